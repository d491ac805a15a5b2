/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl.h"

#include <stdio.h>
#include <string.h>

#define WIDTH 72

/* The help is marked up for the manual; a terminal gets the words. */
static void print_wrapped(const char *text)
{
	g_auto(GStrv) words = g_strsplit(text, " ", -1);
	size_t column = 0;

	for (char **word = words; *word; word++) {
		g_auto(GStrv) parts = g_strsplit(*word, "*", -1);
		g_autofree char *plain = g_strjoinv("", parts);
		size_t n = strlen(plain);

		if (column > 0 && column + 1 + n > WIDTH) {
			(void)fputc('\n', stdout);
			column = 0;
		}
		(void)printf("%s%s", column ? " " : "\t", plain);
		column += n + (column ? 1 : 0);
	}
	(void)fputc('\n', stdout);
}

static char *allowed_of(const EcSetting *row)
{
	switch (row->type) {
	case EC_SETTING_BOOL:
		return g_strdup("yes or no");
	case EC_SETTING_UINT16:
	case EC_SETTING_UINT32:
		return g_strdup_printf("%u to %u", row->min, row->max);
	case EC_SETTING_CHOICE:
		return g_strjoinv(", ", (char **)row->choices);
	case EC_SETTING_STRINGS:
		if (row->choices) {
			g_autofree char *words = g_strjoinv(", ", (char **)row->choices);
			return g_strconcat("any of ", words, NULL);
		}
		return g_strdup(row->allowed);
	case EC_SETTING_STRING:
		return g_strdup(row->allowed);
	case _EC_SETTING_TYPE_MAX:
		break;
	}
	g_assert_not_reached();
}

static void print_scope(EcScope scope)
{
	size_t n;
	const EcSetting *table = ec_settings_table(&n);

	for (size_t i = 0; i < n; i++) {
		if (!(table[i].scopes & scope))
			continue;
		g_autofree char *allowed = allowed_of(&table[i]);
		const char *fallback =
				table[i].fallback_help ? table[i].fallback_help : table[i].fallback;

		(void)printf("%s\n", table[i].key);
		print_wrapped(table[i].help);
		if (allowed) {
			g_autofree char *text = g_strconcat("Allowed: ", allowed, ".", NULL);
			print_wrapped(text);
		}
		if (fallback)
			(void)printf("\tDefault: %s.\n", fallback);
	}
}

void ctl_print_settings(void)
{
	(void)puts("Of a tunnel:\n");
	print_scope(EC_SCOPE_TUNNEL);
	(void)puts("\nOf a listener:\n");
	print_scope(EC_SCOPE_LISTENER);
	(void)puts("\nOf a peer of a listener:\n");
	print_scope(EC_SCOPE_PEER);
}
