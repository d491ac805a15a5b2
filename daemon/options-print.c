/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "options-print.h"

#include <stdio.h>
#include <string.h>

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

void ec_options_print(const EcSetting *row)
{
	printf("*%s=* (%s, D-Bus type %s)\n", row->key, type_of(row), ec_setting_signature(row));
	printf("\t%s\n\n", row->help);
	print_allowed(row);
}
