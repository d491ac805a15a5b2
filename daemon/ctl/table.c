/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define COLUMNS_MAX 16
#define COLUMN_MIN 4 /* a narrower cell says nothing */

struct CtlTable {
	size_t n; /* columns */
	const char *const *titles;
	GPtrArray *rows; /* of char **, n cells each */
};

char *ctl_clean(const char *text)
{
	g_autoptr(GString) clean = g_string_new(NULL);
	g_autofree char *valid = g_utf8_make_valid(text, -1);

	for (const char *p = valid; *p; p = g_utf8_next_char(p)) {
		gunichar c = g_utf8_get_char(p);

		g_string_append_unichar(clean, g_unichar_iscntrl(c) ? '?' : c);
	}
	return g_string_free(g_steal_pointer(&clean), FALSE);
}

bool ctl_is_utf8(void)
{
	return g_get_charset(NULL);
}

static bool is_colored(void)
{
	return isatty(STDOUT_FILENO) && !g_getenv("NO_COLOR");
}

const char *ctl_color_of(const char *state)
{
	static const struct {
		const char *state, *code;
	} table[] = {
		{ "up", "\033[32m" },
		{ "degraded", "\033[33m" },
		{ "connecting", "\033[33m" },
		{ "waiting", "\033[33m" },
		{ "failed", "\033[31m" },
		{ "ok", "\033[32m" },
		{ "warning", "\033[33m" },
		{ "error", "\033[31m" },
	};

	for (size_t i = 0; is_colored() && i < EC_ELEMENTS(table); i++) {
		if (g_str_equal(table[i].state, state))
			return table[i].code;
	}
	return "";
}

const char *ctl_color_off(void)
{
	return is_colored() ? "\033[0m" : "";
}

CtlTable *ctl_table_new(const char *const *titles)
{
	CtlTable *t = g_new0(CtlTable, 1);

	t->titles = titles;
	t->n = g_strv_length((char **)titles);
	g_assert(t->n <= COLUMNS_MAX);
	t->rows = g_ptr_array_new_with_free_func((GDestroyNotify)g_strfreev);
	return t;
}

CtlTable *ctl_table_free(CtlTable *t)
{
	if (!t)
		return NULL;
	g_ptr_array_unref(t->rows);
	g_free(t);
	return NULL;
}

void ctl_table_add(CtlTable *t, const char *const *cells)
{
	char **row = g_new0(char *, t->n + 1);

	for (size_t i = 0; i < t->n; i++)
		row[i] = ctl_clean(cells[i] && *cells[i] ? cells[i] : "-");
	g_ptr_array_add(t->rows, row);
}

size_t ctl_terminal_width(void)
{
	struct winsize size = { 0 };
	const char *columns = g_getenv("COLUMNS");
	guint64 n;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
		return size.ws_col;
	if (columns && g_ascii_string_to_unsigned(columns, 10, 20, 10000, &n, NULL))
		return n;
	return 80;
}

static size_t width_of(const char *text)
{
	return (size_t)g_utf8_strlen(text, -1);
}

static void measure(const CtlTable *t, bool legend, size_t width[static COLUMNS_MAX])
{
	size_t total = t->n - 1;

	for (size_t i = 0; i < t->n; i++) {
		width[i] = legend ? width_of(t->titles[i]) : 1;
		for (guint j = 0; j < t->rows->len; j++) {
			char **row = t->rows->pdata[j];

			width[i] = MAX(width[i], width_of(row[i]));
		}
		total += width[i];
	}
	for (size_t limit = ctl_terminal_width(); total > limit; total--) {
		size_t widest = 0;

		for (size_t i = 1; i < t->n; i++) {
			if (width[i] > width[widest])
				widest = i;
		}
		if (width[widest] <= COLUMN_MIN)
			return;
		width[widest]--;
	}
}

static void print_cell(const char *text, size_t width, bool last)
{
	const char *dots = ctl_is_utf8() ? "…" : "...";
	size_t has = width_of(text);
	const char *color = ctl_color_of(text);

	(void)fputs(color, stdout);
	if (has <= width) {
		(void)fputs(text, stdout);
	} else {
		size_t kept = width - width_of(dots);
		(void)fwrite(text, 1, (size_t)(g_utf8_offset_to_pointer(text, (glong)kept) - text),
				stdout);
		(void)fputs(dots, stdout);
	}
	(void)fputs(*color ? ctl_color_off() : "", stdout);
	(void)printf("%*s", last ? 0 : (int)(width - MIN(has, width)) + 1, "");
}

static void print_row(const CtlTable *t, const char *const *cells, const size_t *width)
{
	for (size_t i = 0; i < t->n; i++)
		print_cell(cells[i], width[i], i + 1 == t->n);
	(void)fputc('\n', stdout);
}

void ctl_table_print(const CtlTable *t, bool legend)
{
	size_t width[COLUMNS_MAX] = { 0 };

	measure(t, legend, width);
	if (legend)
		print_row(t, t->titles, width);
	for (guint i = 0; i < t->rows->len; i++)
		print_row(t, t->rows->pdata[i], width);
}

void ctl_field(const char *key, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	g_autofree char *text = g_strdup_vprintf(format, ap);
	va_end(ap);
	g_autofree char *clean = ctl_clean(text);
	g_autofree char *label = g_strconcat(key, *key ? ":" : NULL, NULL);
	if (*clean)
		(void)printf("%-16s %s\n", label, clean);
}
