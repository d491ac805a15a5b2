/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "settings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The fields are reached by the table's offset. */
#define FIELD_OF(s, row, type) ((type *)(void *)((char *)(s) + (row)->offset))
#define CONST_FIELD_OF(s, row, type)                                                               \
	((type const *)(const void *)((const char *)(s) + (row)->offset))

static uint64_t bit_of(const EcSetting *row)
{
	size_t n;

	return UINT64_C(1) << (row - ec_settings_table(&n));
}

bool ec_settings_is_given(const EcSettings *s, const EcSetting *setting)
{
	return s->given & bit_of(setting);
}

bool ec_settings_is_cleared(const EcSettings *s, const EcSetting *setting)
{
	return s->cleared & bit_of(setting);
}

static int refuse(const EcSetting *row, const char *text, const char *allowed,
		sd_bus_error *ret_error)
{
	bool show = !(row->flags & EC_SETTING_SECRET) && ec_text_is_clean(text);
	g_autofree char *quoted = show ? g_strdup_printf(" '%.64s'", text) : g_strdup("");

	return ec_error(ret_error, EC_ERROR_INVALID_SETTING, "%s%s: allowed is %s", row->key,
			quoted, allowed);
}

static char *allowed_words(const EcSetting *row)
{
	return g_strjoinv(", ", (char **)row->choices);
}

/* One string, or one item of a list. */
static int check_item(const EcSetting *row, const char *item, sd_bus_error *ret_error)
{
	if (!ec_text_is_clean(item) || strlen(item) > 1024)
		return refuse(row, item,
				"UTF-8 text without control characters, at most 1024 bytes",
				ret_error);
	if (row->choices && !g_strv_contains(row->choices, item)) {
		g_autofree char *words = allowed_words(row);
		return refuse(row, item, words, ret_error);
	}
	if (row->is_valid && !row->is_valid(item))
		return refuse(row, item, row->allowed, ret_error);
	return 0;
}

static void set_string(EcSettings *s, const EcSetting *row, const char *text)
{
	char **field = FIELD_OF(s, row, char *);

	if (*field && (row->flags & EC_SETTING_SECRET))
		explicit_bzero(*field, strlen(*field));
	g_free(*field);
	*field = text && *text ? g_strdup(text) : NULL;
}

static void set_strings(EcSettings *s, const EcSetting *row, char **items)
{
	char ***field = FIELD_OF(s, row, char **);

	g_strfreev(*field);
	*field = items && *items ? g_strdupv(items) : NULL;
}

static int assign_string(
		EcSettings *s, const EcSetting *row, const char *text, sd_bus_error *ret_error)
{
	int r = check_item(row, text, ret_error);

	if (r < 0)
		return r;
	if (row->type == EC_SETTING_CHOICE) {
		int *field = FIELD_OF(s, row, int);

		for (*field = 0; !g_str_equal(row->choices[*field], text);)
			++*field;
	} else {
		set_string(s, row, text);
	}
	return 0;
}

static int assign_strings(
		EcSettings *s, const EcSetting *row, char **items, sd_bus_error *ret_error)
{
	if (g_strv_length(items) > 64)
		return refuse(row, "", "a list of at most 64", ret_error);
	for (char **i = items; *i; i++) {
		int r = check_item(row, *i, ret_error);
		if (r < 0)
			return r;
		if (g_strv_contains((const char *const *)i + 1, *i))
			return refuse(row, *i, "each item once", ret_error);
	}
	set_strings(s, row, items);
	return 0;
}

static int assign_number(
		EcSettings *s, const EcSetting *row, uint64_t value, sd_bus_error *ret_error)
{
	if (value < row->min || value > row->max) {
		g_autofree char *text = g_strdup_printf("%" G_GUINT64_FORMAT, value);
		g_autofree char *allowed = g_strdup_printf("%u to %u", row->min, row->max);
		return refuse(row, text, allowed, ret_error);
	}
	if (row->type == EC_SETTING_UINT16)
		*FIELD_OF(s, row, uint16_t) = (uint16_t)value;
	else
		*FIELD_OF(s, row, uint32_t) = (uint32_t)value;
	return 0;
}

static int parse_number(
		EcSettings *s, const EcSetting *row, const char *text, sd_bus_error *ret_error)
{
	bool hex = g_str_has_prefix(text, "0x");
	guint64 value = 0;

	if (!g_ascii_string_to_unsigned(hex ? text + 2 : text, hex ? 16 : 10, row->min, row->max,
			    &value, NULL)) {
		g_autofree char *allowed =
				g_strdup_printf("a number, %u to %u", row->min, row->max);
		return refuse(row, text, allowed, ret_error);
	}
	return assign_number(s, row, value, ret_error);
}

static int parse_bool(
		EcSettings *s, const EcSetting *row, const char *text, sd_bus_error *ret_error)
{
	static const char *const words[] = { "no", "yes", "false", "true", "off", "on", "0", "1" };

	for (size_t i = 0; i < EC_ELEMENTS(words); i++) {
		if (g_ascii_strcasecmp(words[i], text) == 0) {
			*FIELD_OF(s, row, bool) = i % 2;
			return 0;
		}
	}
	return refuse(row, text, "yes or no", ret_error);
}

static char **split(const char *text)
{
	g_autoptr(GStrvBuilder) b = g_strv_builder_new();
	g_auto(GStrv) parts = g_strsplit_set(text, ",; \t", -1);

	for (char **p = parts; *p; p++) {
		if (**p)
			g_strv_builder_add(b, *p);
	}
	return g_strv_builder_end(b);
}

static int parse_row(EcSettings *s, const EcSetting *row, const char *text, sd_bus_error *ret_error)
{
	switch (row->type) {
	case EC_SETTING_STRING:
	case EC_SETTING_CHOICE:
		return assign_string(s, row, text, ret_error);
	case EC_SETTING_STRINGS: {
		if (!ec_text_is_clean(text))
			return check_item(row, text, ret_error);
		g_auto(GStrv) items = split(text);
		return assign_strings(s, row, items, ret_error);
	}
	case EC_SETTING_BOOL:
		return parse_bool(s, row, text, ret_error);
	case EC_SETTING_UINT16:
	case EC_SETTING_UINT32:
		return parse_number(s, row, text, ret_error);
	case _EC_SETTING_TYPE_MAX:
		break;
	}
	g_assert_not_reached();
}

static void set_fallback(EcSettings *s, const EcSetting *row)
{
	if (row->fallback) {
		int r = parse_row(s, row, row->fallback, NULL);
		g_assert(r == 0);
	} else if (row->type == EC_SETTING_STRINGS) {
		set_strings(s, row, NULL);
	} else {
		set_string(s, row, NULL);
	}
}

EcSettings *ec_settings_new_for(EcScope scope)
{
	EcSettings *s = g_new0(EcSettings, 1);
	size_t n;
	const EcSetting *table = ec_settings_table(&n);

	s->scope = scope;
	for (size_t i = 0; i < n; i++) {
		if (table[i].scopes & scope)
			set_fallback(s, &table[i]);
	}
	return s;
}

EcSettings *ec_settings_new(void)
{
	return ec_settings_new_for(EC_SCOPE_TUNNEL);
}

EcSettings *ec_settings_copy(const EcSettings *s)
{
	EcSettings *copy = g_memdup2(s, sizeof(*s));
	size_t n;
	const EcSetting *table = ec_settings_table(&n);

	for (size_t i = 0; i < n; i++) {
		const EcSetting *row = &table[i];

		if (!(row->scopes & s->scope))
			continue;
		if (row->type == EC_SETTING_STRING)
			*FIELD_OF(copy, row, char *) = g_strdup(*CONST_FIELD_OF(s, row, char *));
		else if (row->type == EC_SETTING_STRINGS)
			*FIELD_OF(copy, row, char **) = g_strdupv(*CONST_FIELD_OF(s, row, char **));
	}
	return copy;
}

EcSettings *ec_settings_free(EcSettings *s)
{
	size_t n;
	const EcSetting *table = ec_settings_table(&n);

	if (!s)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		if (table[i].type == EC_SETTING_STRING)
			set_string(s, &table[i], NULL);
		else if (table[i].type == EC_SETTING_STRINGS)
			set_strings(s, &table[i], NULL);
	}
	g_free(s);
	return NULL;
}

/* A key of another scope is named as such: a listener's in a tunnel's file is a slip of the place,
 * not of the pen. */
static int unknown_key(const EcSettings *s, const char *key, sd_bus_error *ret_error)
{
	const EcScope others = EC_SCOPE_ALL & ~s->scope;
	g_autoptr(GString) keys = g_string_new(NULL);
	size_t n;
	const EcSetting *table = ec_settings_table(&n);

	for (size_t i = 0; i < n; i++) {
		if (table[i].scopes & s->scope)
			g_string_append_printf(keys, "%s%s", keys->len ? ", " : "", table[i].key);
	}
	if (ec_setting_find_in(others, key))
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"%s: not a setting of a %s; those are: %s", key,
				ec_scope_to_string(s->scope), keys->str);
	return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
			"there is no setting '%.64s'; there are: %s",
			ec_text_is_clean(key) ? key : "?", keys->str);
}

/* Given, or back to the default. */
static void mark(EcSettings *s, const EcSetting *row, bool given)
{
	if (given) {
		s->given |= bit_of(row);
		s->cleared &= ~bit_of(row);
	} else {
		set_fallback(s, row);
		s->given &= ~bit_of(row);
		s->cleared |= bit_of(row);
	}
}

int ec_settings_parse(EcSettings *s, const char *key, const char *text, sd_bus_error *ret_error)
{
	const EcSetting *row = ec_setting_find_in(s->scope, key);
	int r = 0;

	if (!row)
		return unknown_key(s, key, ret_error);
	if (*text)
		r = parse_row(s, row, text, ret_error);
	if (r >= 0)
		mark(s, row, *text);
	return MIN(r, 0);
}

/* Reads the content of an entered variant. Returns 1 when it takes the default back. */
static int read_row(EcSettings *s, const EcSetting *row, sd_bus_message *m, sd_bus_error *ret_error)
{
	const char *text;
	uint16_t q;
	uint32_t u;
	int b, r;

	switch (row->type) {
	case EC_SETTING_STRING:
	case EC_SETTING_CHOICE:
		r = sd_bus_message_read_basic(m, 's', &text);
		if (r < 0 || !*text)
			return r < 0 ? r : 1;
		return assign_string(s, row, text, ret_error);
	case EC_SETTING_STRINGS: {
		g_auto(GStrv) items = NULL;

		r = sd_bus_message_read_strv(m, &items);
		if (r < 0 || !items || !*items)
			return r < 0 ? r : 1;
		return assign_strings(s, row, items, ret_error);
	}
	case EC_SETTING_BOOL:
		r = sd_bus_message_read_basic(m, 'b', &b);
		if (r >= 0)
			*FIELD_OF(s, row, bool) = b;
		return MIN(r, 0);
	case EC_SETTING_UINT16:
		r = sd_bus_message_read_basic(m, 'q', &q);
		return r < 0 ? r : assign_number(s, row, q, ret_error);
	case EC_SETTING_UINT32:
		r = sd_bus_message_read_basic(m, 'u', &u);
		return r < 0 ? r : assign_number(s, row, u, ret_error);
	case _EC_SETTING_TYPE_MAX:
		break;
	}
	g_assert_not_reached();
}

static int read_entry(EcSettings *s, sd_bus_message *m, sd_bus_error *ret_error)
{
	const char *key, *contents;
	char type;
	int r = sd_bus_message_read_basic(m, 's', &key);

	if (r < 0)
		return r;
	const EcSetting *row = ec_setting_find_in(s->scope, key);
	if (!row)
		return unknown_key(s, key, ret_error);
	r = sd_bus_message_peek_type(m, &type, &contents);
	if (r < 0)
		return r;
	const char *wanted = ec_setting_signature(row);
	if (type == 'v' && g_str_equal(contents, "s") && !g_str_equal(wanted, "s")) {
		const char *text;

		r = sd_bus_message_read(m, "v", "s", &text);
		if (r >= 0 && !*text) {
			mark(s, row, false);
			return 0;
		}
	}
	if (type != 'v' || !g_str_equal(contents, wanted))
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"%s: allowed is D-Bus type '%s', not '%s'", key, wanted, contents);
	r = sd_bus_message_enter_container(m, 'v', contents);
	if (r < 0)
		return r;
	r = read_row(s, row, m, ret_error);
	if (r < 0)
		return r;
	mark(s, row, r == 0);
	return sd_bus_message_exit_container(m);
}

int ec_settings_read(EcSettings *s, sd_bus_message *m, sd_bus_error *ret_error)
{
	int r = sd_bus_message_enter_container(m, 'a', "{sv}");

	while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
		r = read_entry(s, m, ret_error);
		if (r >= 0)
			r = sd_bus_message_exit_container(m);
	}
	if (r >= 0)
		r = sd_bus_message_exit_container(m);
	return MIN(r, 0);
}

static int append_row(const EcSettings *s, const EcSetting *row, sd_bus_message *m)
{
	const char *signature = ec_setting_signature(row);
	const char *text;
	int b;

	switch (row->type) {
	case EC_SETTING_STRING:
		text = *CONST_FIELD_OF(s, row, char *);
		return sd_bus_message_append(m, "{sv}", row->key, signature, text ? text : "");
	case EC_SETTING_CHOICE:
		text = row->choices[*CONST_FIELD_OF(s, row, int)];
		return sd_bus_message_append(m, "{sv}", row->key, signature, text);
	case EC_SETTING_BOOL:
		b = *CONST_FIELD_OF(s, row, bool);
		return sd_bus_message_append(m, "{sv}", row->key, signature, b);
	case EC_SETTING_UINT16:
		return sd_bus_message_append(
				m, "{sv}", row->key, signature, *CONST_FIELD_OF(s, row, uint16_t));
	case EC_SETTING_UINT32:
		return sd_bus_message_append(
				m, "{sv}", row->key, signature, *CONST_FIELD_OF(s, row, uint32_t));
	case EC_SETTING_STRINGS: {
		int r = sd_bus_message_open_container(m, 'e', "sv");

		if (r >= 0)
			r = sd_bus_message_append(m, "s", row->key);
		if (r >= 0)
			r = sd_bus_message_open_container(m, 'v', signature);
		if (r >= 0)
			r = sd_bus_message_append_strv(m, *CONST_FIELD_OF(s, row, char **));
		if (r >= 0)
			r = sd_bus_message_close_container(m);
		return r < 0 ? r : sd_bus_message_close_container(m);
	}
	case _EC_SETTING_TYPE_MAX:
		break;
	}
	g_assert_not_reached();
}

int ec_settings_append(const EcSettings *s, sd_bus_message *m, bool with_secrets)
{
	int r = sd_bus_message_open_container(m, 'a', "{sv}");
	size_t n;
	const EcSetting *table = ec_settings_table(&n);

	for (size_t i = 0; r >= 0 && i < n; i++) {
		bool secret = table[i].flags & EC_SETTING_SECRET;

		if (ec_settings_is_given(s, &table[i]) && (!secret || with_secrets))
			r = append_row(s, &table[i], m);
		else if (s->cleared & bit_of(&table[i]))
			r = sd_bus_message_append(m, "{sv}", table[i].key, "s", "");
	}
	return r < 0 ? r : sd_bus_message_close_container(m);
}

char *ec_settings_text(const EcSettings *s, const EcSetting *row)
{
	switch (row->type) {
	case EC_SETTING_STRING: {
		const char *text = *CONST_FIELD_OF(s, row, char *);
		return g_strdup(text ? text : "");
	}
	case EC_SETTING_STRINGS: {
		char **items = *CONST_FIELD_OF(s, row, char **);
		return items ? g_strjoinv(",", items) : g_strdup("");
	}
	case EC_SETTING_CHOICE:
		return g_strdup(row->choices[*CONST_FIELD_OF(s, row, int)]);
	case EC_SETTING_BOOL:
		return g_strdup(*CONST_FIELD_OF(s, row, bool) ? "yes" : "no");
	case EC_SETTING_UINT16:
		return g_strdup_printf("%u", *CONST_FIELD_OF(s, row, uint16_t));
	case EC_SETTING_UINT32:
		return g_strdup_printf("%u", *CONST_FIELD_OF(s, row, uint32_t));
	case _EC_SETTING_TYPE_MAX:
		break;
	}
	g_assert_not_reached();
}

int ec_settings_take(EcSettings *s, const EcSettings *from, const char *key)
{
	const EcSetting *row = ec_setting_find_in(from->scope, key);

	if (!row || !ec_settings_is_given(from, row))
		return 0;
	g_autofree char *text = ec_settings_text(from, row);
	return ec_settings_parse(s, key, text, NULL);
}

bool ec_settings_differ(const EcSettings *a, const EcSettings *b, const EcSetting *setting)
{
	g_autofree char *ta = ec_settings_text(a, setting);
	g_autofree char *tb = ec_settings_text(b, setting);

	return !g_str_equal(ta, tb);
}

bool ec_settings_equal(const EcSettings *a, const EcSettings *b, const char *const *but)
{
	size_t n;
	const EcSetting *rows = ec_settings_table(&n);

	for (size_t i = 0; i < n; i++) {
		bool compared = (rows[i].scopes & a->scope) &&
				!(rows[i].flags & EC_SETTING_SECRET) &&
				!(but && g_strv_contains(but, rows[i].key));

		if (compared && ec_settings_differ(a, b, &rows[i]))
			return false;
	}
	return true;
}
