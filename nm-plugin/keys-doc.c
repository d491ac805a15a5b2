/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdio.h>
#include <stdlib.h>

#include "options-print.h"
#include "profile.h"

/* Build tool: copies a scdoc page from stdin to stdout and puts the list of the keys that only a
 * connection of NetworkManager has, made from their table, in the place of the line @PROFILE@. */

static void print_table(void)
{
	size_t n;
	const EcSetting *table = ec_profile_table(&n);

	for (size_t i = 0; i < n; i++)
		ec_options_print(&table[i]);
}

int main(void)
{
	char line[1024];

	while (fgets(line, sizeof(line), stdin)) {
		if (g_str_equal(line, "@PROFILE@\n"))
			print_table();
		else
			fputs(line, stdout);
	}
	return EXIT_SUCCESS;
}
