/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "bus.h"

#include <errno.h>
#include <string.h>

#define ACTION(name) EC_BUS_NAME "." name

static const char *const manage[] = { ACTION("manage"), NULL };
static const char *const manage_and_bridge[] = { ACTION("manage"), ACTION("bridge"), NULL };
static const char *const activate[] = { ACTION("activate"), NULL };
static const char *const diagnose[] = { ACTION("diagnose"), NULL };

/* The one table of methods and what they need. What is not in it is refused. */
static const struct Method {
	const char *interface, *member;
	const char *const *actions;
	const char *const *lan_actions; /* when the settings in the call name a bridge or attach */
	EcMethod run;
} methods[] = {
	{ EC_BUS_MANAGER, "AddTunnel", manage, manage_and_bridge, ec_manager_bus_add_tunnel },
	{ EC_BUS_MANAGER, "GetTunnel", diagnose, NULL, ec_manager_bus_get_tunnel },
	{ EC_BUS_MANAGER, "RemoveTunnels", manage, NULL, ec_manager_bus_remove_tunnels },
	{ EC_BUS_MANAGER, "Reload", manage, NULL, ec_manager_bus_reload },
	{ EC_BUS_MANAGER, "Diagnose", diagnose, NULL, ec_manager_bus_diagnose },
	{ EC_BUS_MANAGER, "AddListener", manage, manage_and_bridge, ec_manager_bus_add_listener },
	{ EC_BUS_MANAGER, "GetListener", diagnose, NULL, ec_manager_bus_get_listener },
	{ EC_BUS_LISTENER, "Activate", activate, NULL, ec_listener_bus_activate },
	{ EC_BUS_LISTENER, "Deactivate", activate, NULL, ec_listener_bus_deactivate },
	{ EC_BUS_LISTENER, "Update", manage, manage_and_bridge, ec_listener_bus_update },
	{ EC_BUS_LISTENER, "Remove", manage, NULL, ec_listener_bus_remove },
	{ EC_BUS_LISTENER, "SetPeer", manage, manage_and_bridge, ec_listener_bus_set_peer },
	{ EC_BUS_LISTENER, "RemovePeer", manage, NULL, ec_listener_bus_remove_peer },
	{ EC_BUS_LISTENER, "SetKey", manage, NULL, ec_listener_bus_set_key },
	{ EC_BUS_TUNNEL, "Activate", activate, NULL, ec_tunnel_bus_activate },
	{ EC_BUS_TUNNEL, "Deactivate", activate, NULL, ec_tunnel_bus_deactivate },
	{ EC_BUS_TUNNEL, "Update", manage, manage_and_bridge, ec_tunnel_bus_update },
	{ EC_BUS_TUNNEL, "Remove", manage, NULL, ec_tunnel_bus_remove },
	{ EC_BUS_TUNNEL, "SetKey", manage, NULL, ec_tunnel_bus_set_key },
};

static const struct Method *find_method(sd_bus_message *call)
{
	for (size_t i = 0; i < EC_ELEMENTS(methods); i++) {
		if (sd_bus_message_is_method_call(call, methods[i].interface, methods[i].member) >
				0)
			return &methods[i];
	}
	return NULL;
}

/* Settings at the cursor, a{sv}. What cannot be read is found out later, by who reads it. */
static bool settings_name_lan(sd_bus_message *call)
{
	bool found = false;
	const char *key;

	if (sd_bus_message_enter_container(call, 'a', "{sv}") <= 0)
		return false;
	while (sd_bus_message_enter_container(call, 'e', "sv") > 0 &&
			sd_bus_message_read_basic(call, 's', &key) > 0) {
		found = found || g_str_equal(key, "bridge") || g_str_equal(key, "attach");
		if (sd_bus_message_skip(call, "v") < 0 || sd_bus_message_exit_container(call) < 0)
			return true;
	}
	(void)sd_bus_message_exit_container(call);
	return found;
}

/* Settings by name, a{sa{sv}}. */
static bool peers_name_lan(sd_bus_message *call)
{
	bool found = false;

	if (sd_bus_message_enter_container(call, 'a', "{sa{sv}}") <= 0)
		return false;
	while (sd_bus_message_enter_container(call, 'e', "sa{sv}") > 0 &&
			sd_bus_message_skip(call, "s") >= 0) {
		found = settings_name_lan(call) || found;
		if (sd_bus_message_exit_container(call) < 0)
			return true;
	}
	(void)sd_bus_message_exit_container(call);
	return found;
}

/* Looks into all settings among the arguments and leaves the message as it was. */
static bool names_lan(sd_bus_message *call)
{
	const char *contents;
	bool found = false;
	char type;

	while (!found && sd_bus_message_peek_type(call, &type, &contents) > 0) {
		if (type == 'a' && g_str_equal(contents, "{sv}"))
			found = settings_name_lan(call);
		else if (type == 'a' && g_str_equal(contents, "{sa{sv}}"))
			found = peers_name_lan(call);
		else if (sd_bus_message_skip(call, (char[]){ type, '\0' }) < 0)
			break;
	}
	(void)sd_bus_message_rewind(call, true);
	return found;
}

static void on_verdict(sd_bus_message *call, bool allowed, sd_bus_error *error, void *userdata)
{
	g_auto(sd_bus_error) own = SD_BUS_ERROR_NULL;
	EcBus *b = userdata;

	const struct Method *method = allowed ? find_method(call) : NULL;
	if (!method) {
		(void)sd_bus_reply_method_error(call, error);
		return;
	}
	int r = method->run(b, call, &own);
	if (sd_bus_error_is_set(&own))
		(void)sd_bus_reply_method_error(call, &own);
	else if (r < 0)
		(void)sd_bus_reply_method_errnof(call, r, "%s", g_strerror(-r));
}

int ec_bus_method(sd_bus_message *call, void *userdata, sd_bus_error *ret_error)
{
	const struct Method *method = find_method(call);
	EcBus *b = userdata;
	g_autofree char *name = NULL;

	if (!method)
		return ec_error(ret_error, EC_ERROR_NOT_AUTHORIZED,
				"this method has no rule that allows it");
	const char *path = sd_bus_message_get_path(call);
	if (sd_bus_path_decode(path, EC_BUS_TUNNEL_PATH, &name) <= 0)
		(void)sd_bus_path_decode(path, EC_BUS_LISTENER_PATH, &name);
	bool lan = method->lan_actions && names_lan(call);
	ec_polkit_ask(b->polkit, call, lan ? method->lan_actions : method->actions, name,
			on_verdict, b);
	return 1;
}

int ec_bus_reply_flushed(EcBus *b, sd_bus_message *call)
{
	if (b->manager->doomed->len == 0)
		return sd_bus_reply_method_return(call, NULL);
	g_ptr_array_add(b->unanswered, sd_bus_message_ref(call));
	return 1;
}

static void on_flushed(void *userdata)
{
	EcBus *b = userdata;

	for (guint i = 0; i < b->unanswered->len; i++)
		(void)sd_bus_reply_method_return(g_ptr_array_index(b->unanswered, i), NULL);
	g_ptr_array_set_size(b->unanswered, 0);
}

bool ec_bus_is_idle(const EcBus *b)
{
	return b->unanswered->len == 0 && ec_polkit_is_idle(b->polkit);
}

void ec_bus_signal_changed(EcBus *b, const char *path, const char *interface,
		const EcBusChange *rows, size_t n, unsigned bits)
{
	g_autoptr(GPtrArray) names = g_ptr_array_new();

	for (size_t i = 0; i < n; i++) {
		for (size_t j = 0; (bits & rows[i].bit) && j < EC_ELEMENTS(rows[i].names) &&
				   rows[i].names[j];
				j++)
			g_ptr_array_add(names, (gpointer)rows[i].names[j]);
	}
	g_ptr_array_add(names, NULL);
	(void)sd_bus_emit_properties_changed_strv(b->bus, path, interface, (char **)names->pdata);
}

char *ec_bus_tunnel_path(const EcTunnel *t)
{
	char *path = NULL;

	(void)sd_bus_path_encode(EC_BUS_TUNNEL_PATH, ec_tunnel_name(t), &path);
	return path;
}

char *ec_bus_listener_path(const EcListener *l)
{
	char *path = NULL;

	(void)sd_bus_path_encode(EC_BUS_LISTENER_PATH, ec_listener_name(l), &path);
	return path;
}

char *ec_bus_underlay_path(const EcUnderlay *u)
{
	char *path = NULL;

	(void)sd_bus_path_encode(EC_BUS_UNDERLAY_PATH, u->name, &path);
	return path;
}

static void unref_message(gpointer m)
{
	(void)sd_bus_message_unref(m);
}

int ec_bus_new(sd_bus *bus, EcManager *m, EcBus **ret)
{
	EcBus *b = g_new0(EcBus, 1);
	int r;

	b->bus = bus;
	b->manager = m;
	b->polkit = ec_polkit_new(bus);
	b->unanswered = g_ptr_array_new_with_free_func(unref_message);
	r = sd_bus_add_object_manager(bus, NULL, EC_BUS_PATH);
	if (r >= 0)
		r = ec_manager_bus_export(b);
	if (r >= 0)
		r = ec_tunnel_bus_export(b);
	if (r >= 0)
		r = ec_listener_bus_export(b);
	if (r >= 0)
		r = ec_underlay_bus_export(b);
	if (r < 0) {
		(void)ec_bus_free(b);
		return r;
	}
	m->observer = (EcManagerObserver){
		.added = ec_tunnel_bus_added,
		.removed = ec_tunnel_bus_removed,
		.changed = ec_tunnel_bus_changed,
		.event = ec_tunnel_bus_event,
		.listener_added = ec_listener_bus_added,
		.listener_removed = ec_listener_bus_removed,
		.listener_changed = ec_listener_bus_changed,
		.flushed = on_flushed,
		.userdata = b,
	};
	const EcUnderlaysObserver underlays = {
		.added = ec_underlay_bus_added,
		.removed = ec_underlay_bus_removed,
		.changed = ec_underlay_bus_changed,
		.listed = ec_underlay_bus_listed,
		.userdata = b,
	};
	ec_underlays_observe(m->underlays, &underlays);
	*ret = b;
	return 0;
}

EcBus *ec_bus_free(EcBus *b)
{
	if (!b)
		return NULL;
	b->manager->observer = (EcManagerObserver){ 0 };
	ec_underlays_observe(b->manager->underlays, &(const EcUnderlaysObserver){ 0 });
	(void)ec_polkit_free(b->polkit);
	g_ptr_array_unref(b->unanswered);
	g_free(b);
	return NULL;
}
