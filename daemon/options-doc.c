/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "settings.h"

/* Build tool: copies a scdoc page from stdin to stdout and puts the option lists, made from the
 * table of settings, in the place of the lines @TUNNEL@, @LISTENER@ and @PEER@. */

/* Text that is not markup. */
static void print_plain(const char *text)
{
	for (; *text; text++) {
		if (strchr("_*\\", *text))
			putchar('\\');
		putchar(*text);
	}
}

static void print_allowed(const EcSetting *row)
{
	if (row->choices) {
		g_autofree char *words = g_strjoinv(", ", (char **)row->choices);
		fputs("\tAllowed: ", stdout);
		print_plain(words);
	} else if (row->allowed) {
		fputs("\tAllowed: ", stdout);
		print_plain(row->allowed);
	} else if (row->type == EC_SETTING_BOOL) {
		printf("\tAllowed: yes, no");
	} else if (row->type == EC_SETTING_UINT16 || row->type == EC_SETTING_UINT32) {
		printf("\tAllowed: %u to %u", row->min, row->max);
	} else {
		return;
	}
	const char *fallback = row->fallback_help ? row->fallback_help : row->fallback;
	if (fallback) {
		fputs(". Default: ", stdout);
		print_plain(fallback);
	}
	fputs(".\n\n", stdout);
}

static const char *type_of(const EcSetting *row)
{
	static const char *const word[] = { "text", "list", "word", "yes or no", "number",
		"number" };

	static_assert(EC_ELEMENTS(word) == _EC_SETTING_TYPE_MAX, "a word per type");
	return word[row->type];
}

static void print_scope(EcScope scope)
{
	size_t n;
	const EcSetting *table = ec_settings_table(&n);

	for (size_t i = 0; i < n; i++) {
		if (!(table[i].scopes & scope))
			continue;
		printf("*%s=* (%s, D-Bus type %s)\n", table[i].key, type_of(&table[i]),
				ec_setting_signature(&table[i]));
		printf("\t%s\n\n", table[i].help);
		print_allowed(&table[i]);
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
