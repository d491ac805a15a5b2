/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "dbus-fields.h"

#include <string.h>

/* Reads a variant into the member; one of another type is passed over. */
static int read_field(sd_bus_message *m, const EcDbusField *f, void *object)
{
	const char contents[] = { f->type, f->type == 'a' ? 'o' : '\0', '\0' };
	void *member = (char *)object + f->offset;
	const char *text, *type;
	char container, **list;
	int r = sd_bus_message_peek_type(m, &container, &type);

	if (r < 0)
		return r;
	if (!g_str_equal(type, contents))
		return sd_bus_message_skip(m, "v");
	r = sd_bus_message_enter_container(m, 'v', contents);
	if (r < 0)
		return r;
	if (f->type == 'a') {
		list = NULL;
		r = sd_bus_message_read_strv(m, &list);
		g_strfreev(*(char ***)member);
		/* libsystemd's strv is malloc()ed, as GLib's is */
		*(char ***)member = list;
	} else if (f->type == 's' || f->type == 'o') {
		r = sd_bus_message_read_basic(m, f->type, &text);
		if (r >= 0) {
			g_free(*(char **)member);
			*(char **)member = g_strdup(text);
		}
	} else {
		r = sd_bus_message_read_basic(m, f->type, member);
	}
	return r < 0 ? r : sd_bus_message_exit_container(m);
}

int ec_dbus_read_fields(sd_bus_message *m, const EcDbusField *table, void *object)
{
	int r = sd_bus_message_enter_container(m, 'a', "{sv}");

	while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
		const EcDbusField *f = table;
		const char *name;

		r = sd_bus_message_read_basic(m, 's', &name);
		while (r >= 0 && f->name && !g_str_equal(f->name, name))
			f++;
		if (r >= 0)
			r = f->name ? read_field(m, f, object) : sd_bus_message_skip(m, "v");
		if (r >= 0)
			r = sd_bus_message_exit_container(m);
	}
	return r < 0 ? r : sd_bus_message_exit_container(m);
}
