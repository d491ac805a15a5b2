/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>

#include "bus.h"

/* org.ethercord1.Listener; dbus/org.ethercord1.Listener.xml is the contract. */

static EcListener *listener_at(EcBus *b, const char *path)
{
	g_autofree char *name = NULL;

	if (sd_bus_path_decode(path, EC_BUS_LISTENER_PATH, &name) <= 0)
		return NULL;
	EcListener *l = ec_manager_find_listener(b->manager, name);
	return l && l->announced ? l : NULL;
}

/* The listener may have gone while polkit was asked. */
static EcListener *listener_of(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error)
{
	EcListener *l = listener_at(b, sd_bus_message_get_path(call));

	if (!l)
		(void)ec_error(ret_error, EC_ERROR_NO_SUCH_LISTENER, "this listener was removed");
	return l;
}

int ec_listener_bus_activate(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error)
{
	EcListener *l = listener_of(b, call, ret_error);
	int r = l ? ec_listener_activate(l, ret_error) : -ENOENT;

	return r < 0 ? r : sd_bus_reply_method_return(call, NULL);
}

int ec_listener_bus_deactivate(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error)
{
	EcListener *l = listener_of(b, call, ret_error);

	if (!l)
		return -ENOENT;
	ec_listener_deactivate(l);
	return ec_bus_reply_flushed(b, call);
}

/* Both are the callee's. */
static int update(EcBus *b, sd_bus_message *call, EcListener *l, EcSettings *settings,
		GHashTable *peers, sd_bus_error *ret_error)
{
	int r = ec_manager_update_listener(b->manager, l, settings, peers, true, ret_error);

	return r < 0 ? r : ec_bus_reply_flushed(b, call);
}

int ec_listener_bus_update(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error)
{
	EcListener *l = listener_of(b, call, ret_error);

	if (!l)
		return -ENOENT;
	g_autoptr(EcSettings) settings = ec_settings_copy(l->settings);
	int r = ec_settings_read(settings, call, ret_error);
	return r < 0 ? r
		     : update(b, call, l, g_steal_pointer(&settings),
				       ec_settings_peers_copy(l->peers), ret_error);
}

int ec_listener_bus_remove(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error)
{
	EcListener *l = listener_of(b, call, ret_error);
	int r = l ? ec_manager_remove_listener(b->manager, l, ret_error) : -ENOENT;

	return r < 0 ? r : ec_bus_reply_flushed(b, call);
}

int ec_listener_bus_read_peer(sd_bus_message *call, GHashTable *peers, sd_bus_error *ret_error)
{
	const char *name;
	int r = sd_bus_message_read_basic(call, 's', &name);

	if (r < 0)
		return r;
	if (!ec_name_is_valid(name))
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"peer '%.64s': allowed is a name of a letter or digit, then up to 62 "
				"of letters, digits, '_', '.', '-'",
				ec_text_is_clean(name) ? name : "?");
	const EcSettings *known = g_hash_table_lookup(peers, name);
	g_autoptr(EcSettings) settings =
			known ? ec_settings_copy(known) : ec_settings_new_for(EC_SCOPE_PEER);
	r = ec_settings_read(settings, call, ret_error);
	if (r >= 0)
		g_hash_table_insert(peers, g_strdup(name), g_steal_pointer(&settings));
	return r;
}

int ec_listener_bus_set_peer(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error)
{
	EcListener *l = listener_of(b, call, ret_error);

	if (!l)
		return -ENOENT;
	g_autoptr(GHashTable) peers = ec_settings_peers_copy(l->peers);
	(void)sd_bus_message_sensitive(call);
	int r = ec_listener_bus_read_peer(call, peers, ret_error);
	return r < 0 ? r
		     : update(b, call, l, ec_settings_copy(l->settings), g_steal_pointer(&peers),
				       ret_error);
}

int ec_listener_bus_remove_peer(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error)
{
	EcListener *l = listener_of(b, call, ret_error);
	const char *name;
	int r = l ? sd_bus_message_read_basic(call, 's', &name) : -ENOENT;

	if (r < 0)
		return r;
	g_autoptr(GHashTable) peers = ec_settings_peers_copy(l->peers);
	if (!g_hash_table_remove(peers, name))
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"listener %s has no peer '%.64s' of its own", ec_listener_name(l),
				ec_text_is_clean(name) ? name : "?");
	return update(b, call, l, ec_settings_copy(l->settings), g_steal_pointer(&peers),
			ret_error);
}

int ec_listener_bus_set_key(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error)
{
	EcListener *l = listener_of(b, call, ret_error);
	const char *key;
	int r = l ? sd_bus_message_read_basic(call, 's', &key) : -ENOENT;

	if (r < 0)
		return r;
	/* A scratch copy holds the key to the rules of its row. */
	g_autoptr(EcSettings) scratch = ec_settings_new_for(EC_SCOPE_LISTENER);
	(void)sd_bus_message_sensitive(call);
	r = ec_settings_parse(scratch, "key", key, ret_error);
	if (r >= 0 && !scratch->key)
		r = ec_error(ret_error, EC_ERROR_INVALID_SETTING, "key: is empty");
	if (r >= 0)
		r = ec_store_set_listener_key(
				b->manager->store, ec_listener_name(l), NULL, key, ret_error);
	return r < 0 ? r : sd_bus_reply_method_return(call, NULL);
}

/* Properties. Names of those that are signalled, by EcListenerProperty bit. */
static const EcBusChange signalled[] = {
	{ EC_LISTENER_SETTINGS, { "Settings", "PeerSettings", "Port" } },
	{ EC_LISTENER_STATE, { "State", "StateReason" } },
	{ EC_LISTENER_PEERS, { "Peers" } },
	{ EC_LISTENER_PERSISTENT, { "Persistent" } },
};

static int get_text(sd_bus *bus, const char *path, const char *interface, const char *property,
		sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	const EcListener *l = userdata;
	const char *text = g_str_equal(property, "Name") ? ec_listener_name(l)
							 : ec_listener_state_to_string(l->state);

	return sd_bus_message_append_basic(reply, 's', text);
}

static int get_settings(sd_bus *bus, const char *path, const char *interface, const char *property,
		sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	return ec_settings_append(((const EcListener *)userdata)->settings, reply, false);
}

static int append_peer(sd_bus_message *reply, const char *name, const EcSettings *settings)
{
	int r = sd_bus_message_open_container(reply, 'e', "sa{sv}");

	if (r >= 0)
		r = sd_bus_message_append_basic(reply, 's', name);
	if (r >= 0)
		r = ec_settings_append(settings, reply, false);
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int get_peer_settings(sd_bus *bus, const char *path, const char *interface,
		const char *property, sd_bus_message *reply, void *userdata,
		sd_bus_error *ret_error)
{
	const EcListener *l = userdata;
	GHashTableIter i;
	const EcSettings *s;
	const char *name;
	int r = sd_bus_message_open_container(reply, 'a', "{sa{sv}}");

	g_hash_table_iter_init(&i, l->peers);
	while (r >= 0 && g_hash_table_iter_next(&i, (gpointer *)&name, (gpointer *)&s))
		r = append_peer(reply, name, s);
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int get_reason(sd_bus *bus, const char *path, const char *interface, const char *property,
		sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	const EcListener *l = userdata;

	return sd_bus_message_append(reply, "(ss)", l->reason, l->sentence);
}

static int get_port(sd_bus *bus, const char *path, const char *interface, const char *property,
		sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	return sd_bus_message_append(reply, "q", ec_listener_port(userdata));
}

static int get_peers(sd_bus *bus, const char *path, const char *interface, const char *property,
		sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	const EcListener *l = userdata;
	GHashTableIter i;
	const EcTunnel *t;
	int r = sd_bus_message_open_container(reply, 'a', "o");

	g_hash_table_iter_init(&i, l->manager->tunnels);
	while (r >= 0 && g_hash_table_iter_next(&i, NULL, (gpointer *)&t)) {
		if (t->listener != l || !t->announced)
			continue;
		g_autofree char *object = ec_bus_tunnel_path(t);
		r = sd_bus_message_append_basic(reply, 'o', object);
	}
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int get_persistent(sd_bus *bus, const char *path, const char *interface,
		const char *property, sd_bus_message *reply, void *userdata,
		sd_bus_error *ret_error)
{
	return sd_bus_message_append(reply, "b",
			(int)(((const EcListener *)userdata)->origin != EC_ORIGIN_RUNTIME));
}

/* sd-bus hands the found object to methods as well. */
static int on_method(sd_bus_message *call, void *userdata, sd_bus_error *ret_error)
{
	return ec_bus_method(call, ((EcListener *)userdata)->manager->observer.userdata, ret_error);
}

#define CHANGES SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE
static const sd_bus_vtable vtable[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_METHOD_WITH_ARGS("Activate", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, on_method,
			SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("Deactivate", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, on_method,
			SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("Update", SD_BUS_ARGS("a{sv}", settings), SD_BUS_NO_RESULT,
			on_method, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("Remove", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, on_method,
			SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("SetPeer", SD_BUS_ARGS("s", peer, "a{sv}", settings),
			SD_BUS_NO_RESULT, on_method, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("RemovePeer", SD_BUS_ARGS("s", peer), SD_BUS_NO_RESULT, on_method,
			SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("SetKey", SD_BUS_ARGS("s", key), SD_BUS_NO_RESULT, on_method,
			SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_PROPERTY("Name", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	SD_BUS_PROPERTY("Settings", "a{sv}", get_settings, 0, CHANGES),
	SD_BUS_PROPERTY("PeerSettings", "a{sa{sv}}", get_peer_settings, 0, CHANGES),
	SD_BUS_PROPERTY("State", "s", get_text, 0, CHANGES),
	SD_BUS_PROPERTY("StateReason", "(ss)", get_reason, 0, CHANGES),
	SD_BUS_PROPERTY("Port", "q", get_port, 0, CHANGES),
	SD_BUS_PROPERTY("Peers", "ao", get_peers, 0, CHANGES),
	SD_BUS_PROPERTY("Persistent", "b", get_persistent, 0, CHANGES),
	SD_BUS_VTABLE_END,
};

static int find(sd_bus *bus, const char *path, const char *interface, void *userdata,
		void **ret_found, sd_bus_error *ret_error)
{
	EcListener *l = listener_at(userdata, path);

	*ret_found = l;
	return l != NULL;
}

static int enumerate(sd_bus *bus, const char *prefix, void *userdata, char ***ret_nodes,
		sd_bus_error *ret_error)
{
	EcBus *b = userdata;
	g_autoptr(GPtrArray) nodes = g_ptr_array_new();
	GHashTableIter i;
	EcListener *l;

	g_hash_table_iter_init(&i, b->manager->listeners);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&l)) {
		if (l->announced)
			g_ptr_array_add(nodes, ec_bus_listener_path(l));
	}
	g_ptr_array_add(nodes, NULL);
	*ret_nodes = (char **)g_ptr_array_free(g_steal_pointer(&nodes), false);
	return 0;
}

int ec_listener_bus_export(EcBus *b)
{
	int r = sd_bus_add_fallback_vtable(
			b->bus, NULL, EC_BUS_LISTENER_PATH, EC_BUS_LISTENER, vtable, find, b);

	return r < 0 ? r
		     : sd_bus_add_node_enumerator(b->bus, NULL, EC_BUS_LISTENER_PATH, enumerate, b);
}

void ec_listener_bus_added(EcListener *l, void *userdata)
{
	EcBus *b = userdata;
	g_autofree char *path = ec_bus_listener_path(l);

	(void)sd_bus_emit_object_added(b->bus, path);
}

void ec_listener_bus_removed(EcListener *l, void *userdata)
{
	EcBus *b = userdata;
	g_autofree char *path = ec_bus_listener_path(l);

	(void)sd_bus_emit_object_removed(b->bus, path);
}

void ec_listener_bus_changed(EcListener *l, unsigned properties, void *userdata)
{
	EcBus *b = userdata;
	g_autofree char *path = ec_bus_listener_path(l);

	ec_bus_signal_changed(
			b, path, EC_BUS_LISTENER, signalled, EC_ELEMENTS(signalled), properties);
}
