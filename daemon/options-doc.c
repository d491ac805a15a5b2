/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "options-print.h"

/* Build tool: copies a scdoc page from stdin to stdout and puts the option lists, made from the
 * table of settings, in the place of the lines @TUNNEL@, @LISTENER@ and @PEER@. */

static void print_scope(EcScope scope)
{
	size_t n;
	const EcSetting *table = ec_settings_table(&n);

	for (size_t i = 0; i < n; i++) {
		if (table[i].scopes & scope)
			ec_options_print(&table[i]);
	}
}

int main(void)
{
	static const struct {
		const char *line;
		EcScope scope;
	} lists[] = {
		{ "@TUNNEL@\n", EC_SCOPE_TUNNEL },
		{ "@LISTENER@\n", EC_SCOPE_LISTENER },
		{ "@PEER@\n", EC_SCOPE_PEER },
	};
	char line[1024];

	while (fgets(line, sizeof(line), stdin)) {
		size_t i = 0;

		while (i < EC_ELEMENTS(lists) && !g_str_equal(line, lists[i].line))
			i++;
		if (i < EC_ELEMENTS(lists))
			print_scope(lists[i].scope);
		else
			fputs(line, stdout);
	}
	return EXIT_SUCCESS;
}
