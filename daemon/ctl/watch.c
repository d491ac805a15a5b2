/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl.h"

#include <stdio.h>
#include <stdlib.h>

/* The name in the object path of a tunnel or listener, and its interface; NULL for others. */
static char *name_of(const char *path, const char **ret_interface)
{
	char *name = NULL;

	*ret_interface = CTL_TUNNEL;
	if (sd_bus_path_decode(path, CTL_TUNNEL_PATH, &name) > 0)
		return name;
	*ret_interface = CTL_LISTENER;
	return sd_bus_path_decode(path, CTL_LISTENER_PATH, &name) > 0 ? name : NULL;
}

static void tell(Ctl *ctl, CtlEventKind kind, const char *name, json_t *properties)
{
	CtlEvent event = { .kind = kind, .name = name, .properties = properties };

	ctl->event(ctl, &event, ctl->event_userdata);
}

static int on_added(Ctl *ctl, sd_bus_message *m)
{
	g_autoptr(json_t) interfaces = NULL;
	const char *path, *interface;
	int r = sd_bus_message_read_basic(m, 'o', &path);

	if (r >= 0)
		r = ctl_json_read(m, &interfaces);
	if (r < 0)
		return r;
	g_autofree char *name = name_of(path, &interface);
	json_t *properties = json_object_get(interfaces, interface);
	if (name && properties)
		tell(ctl, CTL_EVENT_ADDED, name, properties);
	return 0;
}

static int on_removed(Ctl *ctl, sd_bus_message *m)
{
	g_auto(GStrv) interfaces = NULL;
	const char *path, *interface;
	int r = sd_bus_message_read_basic(m, 'o', &path);

	if (r >= 0)
		r = sd_bus_message_read_strv(m, &interfaces);
	if (r < 0)
		return r;
	g_autofree char *name = name_of(path, &interface);
	if (name && interfaces && g_strv_contains((const char *const *)interfaces, interface))
		tell(ctl, CTL_EVENT_REMOVED, name, NULL);
	return 0;
}

static int on_changed(Ctl *ctl, sd_bus_message *m)
{
	g_autoptr(json_t) properties = NULL;
	const char *changed, *interface;
	g_autofree char *name = name_of(sd_bus_message_get_path(m), &interface);
	int r = sd_bus_message_read_basic(m, 's', &changed);

	if (r < 0 || !name || !g_str_equal(interface, changed))
		return r;
	r = ctl_json_read(m, &properties);
	if (r < 0)
		return r;
	tell(ctl, CTL_EVENT_CHANGED, name, properties);
	return 0;
}

static int on_step(Ctl *ctl, sd_bus_message *m)
{
	g_autoptr(json_t) details = NULL;
	const char *kind, *interface;
	g_autofree char *name = name_of(sd_bus_message_get_path(m), &interface);
	int r = sd_bus_message_read_basic(m, 's', &kind);

	if (r >= 0)
		r = ctl_json_read(m, &details);
	if (r < 0 || !name)
		return r;
	const CtlEvent event = {
		.kind = CTL_EVENT_STEP, .name = name, .properties = details, .step = kind
	};
	ctl->event(ctl, &event, ctl->event_userdata);
	return 0;
}

static int on_signal(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	static const struct {
		const char *interface, *member;
		int (*func)(Ctl *ctl, sd_bus_message *m);
	} table[] = {
		{ "org.freedesktop.DBus.ObjectManager", "InterfacesAdded", on_added },
		{ "org.freedesktop.DBus.ObjectManager", "InterfacesRemoved", on_removed },
		{ CTL_PROPERTIES, "PropertiesChanged", on_changed },
		{ CTL_TUNNEL, "Event", on_step },
	};

	for (size_t i = 0; i < EC_ELEMENTS(table); i++) {
		if (sd_bus_message_is_signal(m, table[i].interface, table[i].member) > 0)
			return table[i].func(userdata, m);
	}
	return 0;
}

static int on_owner(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	const char *name, *before, *after;
	int r = sd_bus_message_read(m, "sss", &name, &before, &after);

	if (r < 0)
		return r;
	tell(userdata, *after ? CTL_EVENT_DAEMON_BACK : CTL_EVENT_DAEMON_GONE, NULL, NULL);
	return 0;
}

int ctl_watch(Ctl *ctl, CtlEventFunc func, void *userdata, sd_bus_error *ret_error)
{
	ctl->event = func;
	ctl->event_userdata = userdata;
	int r = sd_bus_add_match(ctl->bus, NULL,
			"type='signal',sender='" CTL_BUS_NAME "',path_namespace='" CTL_ROOT_PATH
			"'",
			on_signal, ctl);
	if (r >= 0)
		r = sd_bus_add_match(ctl->bus, NULL,
				"type='signal',sender='org.freedesktop.DBus',"
				"interface='org.freedesktop.DBus',member='NameOwnerChanged',"
				"arg0='" CTL_BUS_NAME "'",
				on_owner, ctl);
	return r < 0 ? sd_bus_error_set_errno(ret_error, r) : 0;
}

static void print_json(const json_t *object)
{
	(void)json_dumpf(object, stdout, JSON_COMPACT);
	(void)fputc('\n', stdout);
	(void)fflush(stdout);
}

void ctl_event_print_json(const char *event, const char *name, const json_t *properties)
{
	g_autoptr(json_t) object = json_pack("{s:s, s:s}", "event", event, "name", name);

	if (properties)
		(void)json_object_update(object, (json_t *)properties);
	print_json(object);
}

void ctl_step_print_json(const char *name, const char *kind, const json_t *details)
{
	g_autoptr(json_t) object = json_pack("{s:s, s:s, s:s, s:O}", "event", "step", "name", name,
			"kind", kind, "details", details);

	print_json(object);
}
