/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "svc.h"

#include <stdarg.h>

void ec_svc_call_done(EcSvcCall *call)
{
	call->slot = sd_bus_slot_unref(call->slot);
}

void ec_svc_call_send(
		EcSvcCall *call, sd_bus_message *m, sd_bus_message_handler_t func, void *userdata)
{
	ec_svc_call_done(call);
	/* It fails only where the bus is gone, and then the program ends. */
	(void)sd_bus_call_async(call->bus, &call->slot, m, func, userdata, 0);
}

void ec_svc_call_nm(EcSvcCall *call, const char *path, const char *interface, const char *member,
		sd_bus_message_handler_t func, void *userdata, const char *types, ...)
{
	g_autoptr(sd_bus_message) m = NULL;
	va_list ap;
	int r = sd_bus_message_new_method_call(call->bus, &m, EC_SVC_NM, path, interface, member);

	va_start(ap, types);
	if (r >= 0)
		r = sd_bus_message_appendv(m, types, ap);
	va_end(ap);
	/* Who stopped NetworkManager does not want it started by a question of ours. */
	if (r >= 0)
		r = sd_bus_message_set_auto_start(m, false);
	if (r >= 0)
		ec_svc_call_send(call, m, func, userdata);
}

void ec_svc_call_get_all(EcSvcCall *call, const char *destination, const char *path,
		const char *interface, sd_bus_message_handler_t func, void *userdata)
{
	g_autoptr(sd_bus_message) m = NULL;
	int r = sd_bus_message_new_method_call(
			call->bus, &m, destination, path, EC_SVC_PROPERTIES, "GetAll");

	if (r >= 0)
		r = sd_bus_message_append(m, "s", interface);
	if (r >= 0)
		r = sd_bus_message_set_auto_start(m, false);
	if (r >= 0)
		ec_svc_call_send(call, m, func, userdata);
}

static void set_text(char **field, const char *text)
{
	g_free(*field);
	*field = g_strdup(text);
}

/* The content of an entered variant. */
static int read_value(sd_bus_message *m, const EcSvcProperty *p, void *member)
{
	const char *first, *second;
	int r;

	switch (p->type[0]) {
	case 's':
	case 'o':
		r = sd_bus_message_read_basic(m, p->type[0], &first);
		if (r >= 0)
			set_text(member, first);
		return r;
	case 'a': {
		char **list = NULL;

		r = sd_bus_message_read_strv(m, &list);
		g_strfreev(*(char ***)member);
		/* libsystemd's strv is malloc()ed, as GLib's is. */
		*(char ***)member = list;
		return r;
	}
	case '(':
		r = sd_bus_message_read(m, "(ss)", &first, &second);
		if (r >= 0) {
			set_text(member, first);
			set_text((char **)member + 1, second);
		}
		return r;
	default:
		return sd_bus_message_read_basic(m, p->type[0], member);
	}
}

static int read_entry(sd_bus_message *m, const EcSvcProperty *p, void *object)
{
	const char *type;
	char container;
	int r = sd_bus_message_peek_type(m, &container, &type);

	if (r < 0)
		return r;
	if (!p->name || !g_str_equal(type, p->type))
		return sd_bus_message_skip(m, "v");
	r = sd_bus_message_enter_container(m, 'v', type);
	if (r >= 0)
		r = read_value(m, p, (char *)object + p->offset);
	return r < 0 ? r : sd_bus_message_exit_container(m);
}

int ec_svc_read_properties(sd_bus_message *m, const EcSvcProperty *table, void *object)
{
	int r = sd_bus_message_enter_container(m, 'a', "{sv}");

	while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
		const EcSvcProperty *p = table;
		const char *name;

		r = sd_bus_message_read_basic(m, 's', &name);
		while (r >= 0 && p->name && !g_str_equal(p->name, name))
			p++;
		if (r >= 0)
			r = read_entry(m, p, object);
		if (r >= 0)
			r = sd_bus_message_exit_container(m);
	}
	return r < 0 ? r : sd_bus_message_exit_container(m);
}

int ec_svc_enter_setting(sd_bus_message *m, const char *name)
{
	int r = sd_bus_message_enter_container(m, 'a', "{sa{sv}}");

	while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sa{sv}")) > 0) {
		const char *setting;

		r = sd_bus_message_read_basic(m, 's', &setting);
		if (r >= 0 && g_str_equal(setting, name))
			return 1;
		if (r >= 0)
			r = sd_bus_message_skip(m, "a{sv}");
		if (r >= 0)
			r = sd_bus_message_exit_container(m);
	}
	return r;
}
