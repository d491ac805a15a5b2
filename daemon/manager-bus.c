/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>

#include "bus.h"
#include "ethercord-config.h"

/* org.ethercord1.Manager; dbus/org.ethercord1.Manager.xml is the contract. */

static int read_flags(sd_bus_message *call, bool *ret_persist, bool *ret_activate,
		sd_bus_error *ret_error)
{
	const char *text;
	int r = sd_bus_message_read_basic(call, 's', &text);

	if (r < 0)
		return r;
	g_auto(GStrv) flags = g_strsplit(text, " ", -1);
	for (char **f = flags; *f; f++) {
		if (g_str_equal(*f, "persist"))
			*ret_persist = true;
		else if (g_str_equal(*f, "activate"))
			*ret_activate = true;
		else if (**f)
			return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
					"flags '%.32s': allowed is persist, activate",
					ec_text_is_clean(*f) ? *f : "?");
	}
	return 0;
}

int ec_manager_bus_add_tunnel(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error)
{
	g_autoptr(EcSettings) settings = ec_settings_new();
	bool persist = false, activate = false;
	EcTunnel *t;
	int r = ec_settings_read(settings, call, ret_error);

	if (r >= 0)
		r = read_flags(call, &persist, &activate, ret_error);
	if (r >= 0)
		r = ec_manager_add(b->manager, g_steal_pointer(&settings),
				persist ? EC_ORIGIN_CONFIG : EC_ORIGIN_RUNTIME, activate, &t,
				ret_error);
	if (r < 0)
		return r;
	g_autofree char *path = ec_bus_tunnel_path(t);
	return sd_bus_reply_method_return(call, "o", path);
}

static EcTunnel *find_tunnel(EcBus *b, const char *name, sd_bus_error *ret_error)
{
	EcTunnel *t = ec_manager_find(b->manager, name);

	if (!t)
		(void)ec_error(ret_error, EC_ERROR_NO_SUCH_TUNNEL, "there is no tunnel '%.64s'",
				ec_text_is_clean(name) ? name : "?");
	return t;
}

int ec_manager_bus_get_tunnel(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error)
{
	const char *name;
	int r = sd_bus_message_read_basic(call, 's', &name);
	EcTunnel *t = r < 0 ? NULL : find_tunnel(b, name, ret_error);

	if (!t)
		return r < 0 ? r : -ENOENT;
	g_autofree char *path = ec_bus_tunnel_path(t);
	return sd_bus_reply_method_return(call, "o", path);
}

/* All or, when one does not exist, none. */
int ec_manager_bus_remove_tunnels(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error)
{
	g_auto(GStrv) names = NULL;
	int r = sd_bus_message_read_strv(call, &names);

	for (char **n = names; r >= 0 && n && *n; n++)
		r = find_tunnel(b, *n, ret_error) ? 0 : -ENOENT;
	for (char **n = names; r >= 0 && n && *n; n++) {
		EcTunnel *t = ec_manager_find(b->manager, *n);

		if (t) /* unless the name was there twice */
			r = ec_manager_remove(b->manager, t, ret_error);
	}
	return r < 0 ? r : ec_bus_reply_flushed(b, call);
}

int ec_manager_bus_reload(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error)
{
	int r = ec_manager_reload(b->manager, ret_error);

	return r < 0 ? r : ec_bus_reply_flushed(b, call);
}

static int get_version(sd_bus *bus, const char *path, const char *interface, const char *property,
		sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	return sd_bus_message_append(reply, "s", EC_VERSION);
}

static int get_encapsulations(sd_bus *bus, const char *path, const char *interface,
		const char *property, sd_bus_message *reply, void *userdata,
		sd_bus_error *ret_error)
{
	EcBus *b = userdata;

	return sd_bus_message_append_strv(reply, ec_manager_encapsulations(b->manager));
}

static int get_underlays(sd_bus *bus, const char *path, const char *interface, const char *property,
		sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	EcBus *b = userdata;
	GHashTableIter i;
	EcUnderlay *u;
	int r = sd_bus_message_open_container(reply, 'a', "o");

	g_hash_table_iter_init(&i, ec_underlays_table(b->manager->underlays));
	while (r >= 0 && g_hash_table_iter_next(&i, NULL, (gpointer *)&u)) {
		g_autofree char *object = ec_bus_underlay_path(u);
		r = sd_bus_message_append_basic(reply, 'o', object);
	}
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int get_default_port(sd_bus *bus, const char *path, const char *interface,
		const char *property, sd_bus_message *reply, void *userdata,
		sd_bus_error *ret_error)
{
	EcBus *b = userdata;

	return sd_bus_message_append(reply, "q", (uint16_t)b->manager->config.port);
}

static const sd_bus_vtable vtable[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_METHOD_WITH_ARGS("AddTunnel", SD_BUS_ARGS("a{sv}", settings, "s", flags),
			SD_BUS_RESULT("o", tunnel), ec_bus_method, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("GetTunnel", SD_BUS_ARGS("s", name), SD_BUS_RESULT("o", tunnel),
			ec_bus_method, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("RemoveTunnels", SD_BUS_ARGS("as", names), SD_BUS_NO_RESULT,
			ec_bus_method, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("Reload", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, ec_bus_method,
			SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_PROPERTY("Version", "s", get_version, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	SD_BUS_PROPERTY("Encapsulations", "as", get_encapsulations, 0, 0),
	SD_BUS_PROPERTY("Underlays", "ao", get_underlays, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
	SD_BUS_PROPERTY("DefaultPort", "q", get_default_port, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	SD_BUS_VTABLE_END,
};

int ec_manager_bus_export(EcBus *b)
{
	return sd_bus_add_object_vtable(b->bus, NULL, EC_BUS_PATH, EC_BUS_MANAGER, vtable, b);
}
