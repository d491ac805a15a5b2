/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl.h"

#include <errno.h>
#include <stdio.h>

static int read_number(sd_bus_message *m, char type, json_t **ret)
{
	union {
		uint8_t y;
		int16_t n;
		uint16_t q;
		int32_t i;
		uint32_t u;
		int64_t x;
		uint64_t t;
		double d;
		int b;
	} v;
	int r = sd_bus_message_read_basic(m, type, &v);

	if (r < 0)
		return r;
	switch (type) {
	case SD_BUS_TYPE_BOOLEAN:
		*ret = json_boolean(v.b);
		break;
	case SD_BUS_TYPE_BYTE:
		*ret = json_integer(v.y);
		break;
	case SD_BUS_TYPE_INT16:
		*ret = json_integer(v.n);
		break;
	case SD_BUS_TYPE_UINT16:
		*ret = json_integer(v.q);
		break;
	case SD_BUS_TYPE_INT32:
		*ret = json_integer(v.i);
		break;
	case SD_BUS_TYPE_UINT32:
		*ret = json_integer(v.u);
		break;
	case SD_BUS_TYPE_INT64:
		*ret = json_integer(v.x);
		break;
	case SD_BUS_TYPE_UINT64:
		*ret = json_integer((json_int_t)MIN(v.t, (uint64_t)INT64_MAX));
		break;
	case SD_BUS_TYPE_DOUBLE:
		*ret = json_real(v.d);
		break;
	default:
		return -EBADMSG;
	}
	return *ret ? 0 : -EBADMSG;
}

static int read_string(sd_bus_message *m, char type, json_t **ret)
{
	const char *text;
	int r = sd_bus_message_read_basic(m, type, &text);

	if (r < 0)
		return r;
	*ret = json_string(text);
	return *ret ? 0 : -EBADMSG;
}

/* A D-Bus dictionary has keys of one basic type; JSON has string keys only. */
static int read_entry(sd_bus_message *m, const char *contents, json_t *object)
{
	g_autoptr(json_t) key = NULL;
	json_t *value = NULL;
	int r = sd_bus_message_enter_container(m, SD_BUS_TYPE_DICT_ENTRY, contents);

	if (r <= 0)
		return r;
	r = ctl_json_read(m, &key);
	if (r >= 0)
		r = ctl_json_read(m, &value);
	if (r < 0)
		return r;
	g_autofree char *text = ctl_json_text(key);
	if (json_object_set_new(object, text, value) < 0)
		return -EBADMSG;
	r = sd_bus_message_exit_container(m);
	return r < 0 ? r : 1;
}

static int read_dictionary(sd_bus_message *m, const char *contents, json_t **ret)
{
	g_autoptr(json_t) object = json_object();
	g_autofree char *entry = g_strndup(contents + 1, strlen(contents) - 2);
	int r = sd_bus_message_enter_container(m, SD_BUS_TYPE_ARRAY, contents);

	if (r < 0)
		return r;
	while ((r = read_entry(m, entry, object)) > 0)
		;
	if (r < 0)
		return r;
	r = sd_bus_message_exit_container(m);
	if (r < 0)
		return r;
	*ret = g_steal_pointer(&object);
	return 0;
}

static int read_sequence(sd_bus_message *m, char type, const char *contents, json_t **ret)
{
	g_autoptr(json_t) array = json_array();
	int r = sd_bus_message_enter_container(m, type, contents);

	if (r < 0)
		return r;
	while ((r = sd_bus_message_at_end(m, false)) == 0) {
		json_t *item = NULL;

		r = ctl_json_read(m, &item);
		if (r < 0)
			return r;
		if (json_array_append_new(array, item) < 0)
			return -EBADMSG;
	}
	if (r < 0)
		return r;
	r = sd_bus_message_exit_container(m);
	if (r < 0)
		return r;
	*ret = g_steal_pointer(&array);
	return 0;
}

static int read_variant(sd_bus_message *m, const char *contents, json_t **ret)
{
	g_autoptr(json_t) value = NULL;
	int r = sd_bus_message_enter_container(m, SD_BUS_TYPE_VARIANT, contents);

	if (r >= 0)
		r = ctl_json_read(m, &value);
	if (r >= 0)
		r = sd_bus_message_exit_container(m);
	if (r < 0)
		return r;
	*ret = g_steal_pointer(&value);
	return 0;
}

int ctl_json_read(sd_bus_message *m, json_t **ret)
{
	const char *contents;
	char type;
	int r = sd_bus_message_peek_type(m, &type, &contents);

	if (r < 0)
		return r;
	if (r == 0)
		return -EBADMSG;
	switch (type) {
	case SD_BUS_TYPE_STRING:
	case SD_BUS_TYPE_OBJECT_PATH:
	case SD_BUS_TYPE_SIGNATURE:
		return read_string(m, type, ret);
	case SD_BUS_TYPE_VARIANT:
		return read_variant(m, contents, ret);
	case SD_BUS_TYPE_STRUCT:
		return read_sequence(m, type, contents, ret);
	case SD_BUS_TYPE_ARRAY:
		return contents[0] == SD_BUS_TYPE_DICT_ENTRY_BEGIN
				       ? read_dictionary(m, contents, ret)
				       : read_sequence(m, type, contents, ret);
	default:
		return read_number(m, type, ret);
	}
}

void ctl_json_print(const Ctl *ctl, const json_t *value)
{
	size_t flags = ctl->json == CTL_JSON_PRETTY ? JSON_INDENT(2) : JSON_COMPACT;

	(void)json_dumpf(value, stdout, flags | JSON_ENCODE_ANY);
	(void)fputc('\n', stdout);
}

static CtlMember member_of(void *iter)
{
	CtlMember m = { .iter = iter };

	if (iter) {
		m.key = json_object_iter_key(iter);
		m.value = json_object_iter_value(iter);
	}
	return m;
}

CtlMember ctl_json_first(const json_t *object)
{
	return member_of(json_object_iter((json_t *)object));
}

CtlMember ctl_json_next(const json_t *object, CtlMember m)
{
	return member_of(json_object_iter_next((json_t *)object, m.iter));
}

const char *ctl_json_string(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

json_int_t ctl_json_integer(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

bool ctl_json_true(const json_t *object, const char *key)
{
	return json_is_true(json_object_get(object, key));
}

char *ctl_json_text(const json_t *value)
{
	g_autoptr(GString) list = g_string_new(NULL);

	switch (json_typeof(value)) {
	case JSON_STRING:
		return g_strdup(json_string_value(value));
	case JSON_INTEGER:
		return g_strdup_printf("%" JSON_INTEGER_FORMAT, json_integer_value(value));
	case JSON_TRUE:
		return g_strdup("yes");
	case JSON_FALSE:
		return g_strdup("no");
	case JSON_NULL:
		return g_strdup("");
	case JSON_ARRAY:
		for (size_t i = 0; i < json_array_size(value); i++) {
			g_autofree char *text = ctl_json_text(json_array_get(value, i));
			g_string_append_printf(list, "%s%s", i ? "," : "", text);
		}
		return g_strdup(list->str);
	case JSON_REAL:
	case JSON_OBJECT: {
		char *dump = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
		return dump ? dump : g_strdup("");
	}
	}
	g_assert_not_reached();
}
