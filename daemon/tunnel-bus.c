/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>

#include "bus.h"
#include "control.h"
#include "worker-host.h"

/* org.ethercord1.Tunnel; dbus/org.ethercord1.Tunnel.xml is the contract. */

static EcTunnel *tunnel_at(EcBus *b, const char *path)
{
	g_autofree char *name = NULL;

	if (sd_bus_path_decode(path, EC_BUS_TUNNEL_PATH, &name) <= 0)
		return NULL;
	EcTunnel *t = ec_manager_find(b->manager, name);
	return t && t->announced ? t : NULL;
}

/* The tunnel may have gone while polkit was asked. */
static EcTunnel *tunnel_of(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error)
{
	EcTunnel *t = tunnel_at(b, sd_bus_message_get_path(call));

	if (!t)
		(void)ec_error(ret_error, EC_ERROR_NO_SUCH_TUNNEL, "this tunnel was removed");
	return t;
}

int ec_tunnel_bus_activate(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error)
{
	EcTunnel *t = tunnel_of(b, call, ret_error);
	int r = t ? ec_tunnel_activate(t, ret_error) : -ENOENT;

	return r < 0 ? r : sd_bus_reply_method_return(call, NULL);
}

int ec_tunnel_bus_deactivate(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error)
{
	EcTunnel *t = tunnel_of(b, call, ret_error);

	if (!t)
		return -ENOENT;
	ec_tunnel_deactivate(t);
	return ec_bus_reply_flushed(b, call);
}

int ec_tunnel_bus_update(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error)
{
	EcTunnel *t = tunnel_of(b, call, ret_error);

	if (!t)
		return -ENOENT;
	g_autoptr(EcSettings) settings = ec_settings_copy(t->settings);
	int r = ec_settings_read(settings, call, ret_error);
	if (r >= 0)
		r = ec_manager_update(b->manager, t, g_steal_pointer(&settings), true, ret_error);
	return r < 0 ? r : ec_bus_reply_flushed(b, call);
}

int ec_tunnel_bus_remove(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error)
{
	EcTunnel *t = tunnel_of(b, call, ret_error);
	int r = t ? ec_binding_verify_removal(t, sd_bus_message_get_sender(call), ret_error)
		  : -ENOENT;

	if (r >= 0)
		r = ec_manager_remove(b->manager, t, ret_error);
	return r < 0 ? r : ec_bus_reply_flushed(b, call);
}

int ec_tunnel_bus_set_key(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error)
{
	EcTunnel *t = tunnel_of(b, call, ret_error);
	const char *key;
	int r = t ? sd_bus_message_read_basic(call, 's', &key) : -ENOENT;

	if (r < 0)
		return r;
	/* A scratch copy holds the key to the rules of its row. */
	g_autoptr(EcSettings) scratch = ec_settings_new();
	(void)sd_bus_message_sensitive(call);
	r = ec_settings_parse(scratch, "key", key, ret_error);
	if (r >= 0 && !scratch->key)
		r = ec_error(ret_error, EC_ERROR_INVALID_SETTING, "key: is empty");
	if (r >= 0)
		r = ec_store_set_key(b->manager->store, ec_tunnel_name(t), key, ret_error);
	if (r >= 0 && t->session && t->wanted) { /* with the new one, at once */
		ec_session_resettle(t->session);
		ec_tunnel_refresh(t);
	}
	return r < 0 ? r : sd_bus_reply_method_return(call, NULL);
}

/* Properties. Names of those that are signalled, by EcProperty bit. */
static const EcBusChange signalled[] = {
	{ EC_PROPERTY_SETTINGS, { "Settings" } },
	{ EC_PROPERTY_MODE, { "Mode" } },
	{ EC_PROPERTY_STATE, { "State", "StateReason", "SinceUsec" } },
	{ EC_PROPERTY_INTERFACE, { "Interface" } },
	{ EC_PROPERTY_IFINDEX, { "Ifindex" } },
	{ EC_PROPERTY_BRIDGE, { "Bridge" } },
	{ EC_PROPERTY_ENCAPSULATION, { "Encapsulation", "DataPlane" } },
	{ EC_PROPERTY_LOCAL, { "Local" } },
	{ EC_PROPERTY_REMOTE, { "Remote" } },
	{ EC_PROPERTY_ID, { "Id" } },
	{ EC_PROPERTY_MTU, { "Mtu", "LargestFrame" } },
	{ EC_PROPERTY_UNDERLAY, { "Underlay", "Protected", "ProtectedBy" } },
	{ EC_PROPERTY_PERSISTENT, { "Persistent" } },
	{ EC_PROPERTY_FIDELITY, { "Fidelity" } },
	{ EC_PROPERTY_PEER, { "Peer" } },
};

#define TEXT_GETTER(name, expression)                                                              \
	static int get_##name(sd_bus *bus, const char *path, const char *interface,                \
			const char *property, sd_bus_message *reply, void *userdata,               \
			sd_bus_error *ret_error)                                                   \
	{                                                                                          \
		const EcTunnel *t = userdata;                                                      \
		const char *text = expression;                                                     \
                                                                                                   \
		return sd_bus_message_append_basic(reply, 's', text ? text : "");                  \
	}

TEXT_GETTER(name, ec_tunnel_name(t))
TEXT_GETTER(mode, ec_settings_word("mode", t->settings->mode))
TEXT_GETTER(state, ec_state_to_string(t->state))
TEXT_GETTER(interface, t->ifname)
TEXT_GETTER(bridge, t->settings->bridge)
TEXT_GETTER(encapsulation, t->encap ? t->encap->name : NULL)
TEXT_GETTER(data_plane, t->encap ? ec_encap_plane(t->encap) : NULL)
TEXT_GETTER(local, ec_address_to_string(&t->path.local, (char[INET6_ADDRSTRLEN]){ 0 }))
TEXT_GETTER(remote, ec_tunnel_awaits_client(t) ? ""
					       : ec_address_to_string(ec_tunnel_data_remote(t),
								 (char[INET6_ADDRSTRLEN]){ 0 }))
TEXT_GETTER(fidelity, ec_settings_word("fidelity", t->settings->fidelity))
TEXT_GETTER(role, t->listener                                 ? "accept"
		  : t->settings->control == EC_CONTROL_STATIC ? "static"
							      : "dial")
/* With static control nobody gives a name. */
TEXT_GETTER(peer, t->peer)

static int get_number(sd_bus *bus, const char *path, const char *interface, const char *property,
		sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	const EcTunnel *t = userdata;

	if (g_str_equal(property, "Ifindex"))
		return sd_bus_message_append(reply, "i", t->ifindex);
	return sd_bus_message_append(reply, "u",
			g_str_equal(property, "Id")    ? t->wire.id
			: g_str_equal(property, "Mtu") ? t->mtu.mtu
						       : t->mtu.largest_frame);
}

static int get_bool(sd_bus *bus, const char *path, const char *interface, const char *property,
		sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	const EcTunnel *t = userdata;
	int yes = g_str_equal(property, "Persistent") ? t->origin != EC_ORIGIN_RUNTIME : t->protect;

	return sd_bus_message_append(reply, "b", yes);
}

static int get_settings(sd_bus *bus, const char *path, const char *interface, const char *property,
		sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	return ec_settings_append(((const EcTunnel *)userdata)->settings, reply, false);
}

static int get_reason(sd_bus *bus, const char *path, const char *interface, const char *property,
		sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	const EcTunnel *t = userdata;

	return sd_bus_message_append(reply, "(ss)", t->reason, t->sentence);
}

static int get_object(sd_bus *bus, const char *path, const char *interface, const char *property,
		sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	const EcTunnel *t = userdata;
	g_autofree char *object = NULL;

	if (g_str_equal(property, "Underlay") && t->underlay)
		object = ec_bus_underlay_path(t->underlay);
	else if (g_str_equal(property, "Listener") && t->listener)
		object = ec_bus_listener_path(t->listener);
	return sd_bus_message_append(reply, "o", object ? object : "/");
}

static int get_guard(sd_bus *bus, const char *path, const char *interface, const char *property,
		sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	return sd_bus_message_append(reply, "as", 0);
}

static int get_layers(sd_bus *bus, const char *path, const char *interface, const char *property,
		sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	const char *words[4];

	ec_guard_words(((const EcTunnel *)userdata)->layers, words);
	return sd_bus_message_append_strv(reply, (char **)words);
}

static int get_since(sd_bus *bus, const char *path, const char *interface, const char *property,
		sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	return sd_bus_message_append(reply, "t", ((const EcTunnel *)userdata)->since_usec);
}

/* Keys have hyphens where members have underscores. */
static int append_counter(sd_bus_message *reply, const char *name, uint64_t value)
{
	g_autofree char *key = g_strdelimit(g_strdup(name), "_", '-');

	return sd_bus_message_append(reply, "{st}", key, value);
}

/* The kernel counts a super-frame as one packet: who cut it knows better. */
static int append_worker(const EcTunnel *t, sd_bus_message *reply)
{
	EcWorkerStatistics s;
	int r = 0;

	ec_worker_host_statistics(t->worker, &s);
#define ROW(member) { #member, s.member },
	const struct {
		const char *key;
		uint64_t value;
	} row[] = { EC_WORKER_STATISTICS(ROW) };
#undef ROW
	for (size_t i = 0; r >= 0 && i < EC_ELEMENTS(row); i++)
		r = append_counter(reply, row[i].key, row[i].value);
	return r < 0 ? r : append_counter(reply, "offloads", s.offloads);
}

static int get_statistics(sd_bus *bus, const char *path, const char *interface,
		const char *property, sd_bus_message *reply, void *userdata,
		sd_bus_error *ret_error)
{
	const EcTunnel *t = userdata;
	g_auto(EcLink) link = { 0 };
	EcLivenessStatistics l = { 0 };

	if (t->ifindex)
		(void)ec_kernel_link_counters(t->manager->kernel, t->ifindex, &link);
	if (t->session)
		l = ec_session_statistics(t->session);
	const struct {
		const char *key;
		uint64_t value;
		bool by_worker;
	} row[] = { { "rtt-us", l.rtt_usec, false }, { "jitter-us", l.jitter_usec, false },
		{ "probes-sent", l.sent, false }, { "probes-lost", l.lost, false },
		{ "reconnects", t->session ? t->session->reconnects : 0, false },
		{ "rx-packets", link.rx_packets, true }, { "rx-bytes", link.rx_bytes, true },
		{ "tx-packets", link.tx_packets, true }, { "tx-bytes", link.tx_bytes, true },
		{ "rx-dropped", link.rx_dropped, false },
		{ "tx-dropped", link.tx_dropped, false } };
	int r = sd_bus_message_open_container(reply, 'a', "{st}");

	for (size_t i = 0; r >= 0 && i < EC_ELEMENTS(row); i++) {
		if (!t->worker || !row[i].by_worker)
			r = append_counter(reply, row[i].key, row[i].value);
	}
	if (r >= 0 && t->worker)
		r = append_worker(t, reply);
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

/* sd-bus hands the found object to methods as well. */
static int on_method(sd_bus_message *call, void *userdata, sd_bus_error *ret_error)
{
	return ec_bus_method(call, ((EcTunnel *)userdata)->manager->observer.userdata, ret_error);
}

#define CHANGES SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE
#define CONSTANT SD_BUS_VTABLE_PROPERTY_CONST
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
	SD_BUS_METHOD_WITH_ARGS("SetKey", SD_BUS_ARGS("s", key), SD_BUS_NO_RESULT, on_method,
			SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_PROPERTY("Name", "s", get_name, 0, CONSTANT),
	SD_BUS_PROPERTY("Settings", "a{sv}", get_settings, 0, CHANGES),
	SD_BUS_PROPERTY("Mode", "s", get_mode, 0, CHANGES),
	SD_BUS_PROPERTY("State", "s", get_state, 0, CHANGES),
	SD_BUS_PROPERTY("StateReason", "(ss)", get_reason, 0, CHANGES),
	SD_BUS_PROPERTY("SinceUsec", "t", get_since, 0, CHANGES),
	SD_BUS_PROPERTY("Interface", "s", get_interface, 0, CHANGES),
	SD_BUS_PROPERTY("Ifindex", "i", get_number, 0, CHANGES),
	SD_BUS_PROPERTY("Bridge", "s", get_bridge, 0, CHANGES),
	SD_BUS_PROPERTY("Encapsulation", "s", get_encapsulation, 0, CHANGES),
	SD_BUS_PROPERTY("DataPlane", "s", get_data_plane, 0, CHANGES),
	SD_BUS_PROPERTY("Local", "s", get_local, 0, CHANGES),
	SD_BUS_PROPERTY("Remote", "s", get_remote, 0, CHANGES),
	SD_BUS_PROPERTY("Peer", "s", get_peer, 0, CHANGES),
	SD_BUS_PROPERTY("Id", "u", get_number, 0, CHANGES),
	SD_BUS_PROPERTY("Mtu", "u", get_number, 0, CHANGES),
	SD_BUS_PROPERTY("LargestFrame", "u", get_number, 0, CHANGES),
	SD_BUS_PROPERTY("Underlay", "o", get_object, 0, CHANGES),
	SD_BUS_PROPERTY("Protected", "b", get_bool, 0, CHANGES),
	SD_BUS_PROPERTY("ProtectedBy", "as", get_layers, 0, CHANGES),
	SD_BUS_PROPERTY("Fidelity", "s", get_fidelity, 0, CHANGES),
	SD_BUS_PROPERTY("Guard", "as", get_guard, 0, CHANGES),
	SD_BUS_PROPERTY("Persistent", "b", get_bool, 0, CHANGES),
	SD_BUS_PROPERTY("Role", "s", get_role, 0, CONSTANT),
	SD_BUS_PROPERTY("Listener", "o", get_object, 0, CONSTANT),
	SD_BUS_PROPERTY("Statistics", "a{st}", get_statistics, 0, 0),
	SD_BUS_SIGNAL_WITH_ARGS("Event", SD_BUS_ARGS("s", kind, "a{sv}", details), 0),
	SD_BUS_VTABLE_END,
};

static int find(sd_bus *bus, const char *path, const char *interface, void *userdata,
		void **ret_found, sd_bus_error *ret_error)
{
	EcTunnel *t = tunnel_at(userdata, path);

	*ret_found = t;
	return t != NULL;
}

static int enumerate(sd_bus *bus, const char *prefix, void *userdata, char ***ret_nodes,
		sd_bus_error *ret_error)
{
	EcBus *b = userdata;
	g_autoptr(GPtrArray) nodes = g_ptr_array_new();
	GHashTableIter i;
	EcTunnel *t;

	g_hash_table_iter_init(&i, b->manager->tunnels);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&t)) {
		if (t->announced)
			g_ptr_array_add(nodes, ec_bus_tunnel_path(t));
	}
	g_ptr_array_add(nodes, NULL);
	*ret_nodes = (char **)g_ptr_array_free(g_steal_pointer(&nodes), false);
	return 0;
}

int ec_tunnel_bus_export(EcBus *b)
{
	int r = sd_bus_add_fallback_vtable(
			b->bus, NULL, EC_BUS_TUNNEL_PATH, EC_BUS_TUNNEL, vtable, find, b);

	return r < 0 ? r
		     : sd_bus_add_node_enumerator(b->bus, NULL, EC_BUS_TUNNEL_PATH, enumerate, b);
}

void ec_tunnel_bus_added(EcTunnel *t, void *userdata)
{
	EcBus *b = userdata;
	g_autofree char *path = ec_bus_tunnel_path(t);

	(void)sd_bus_emit_object_added(b->bus, path);
}

void ec_tunnel_bus_removed(EcTunnel *t, void *userdata)
{
	EcBus *b = userdata;
	g_autofree char *path = ec_bus_tunnel_path(t);

	(void)sd_bus_emit_object_removed(b->bus, path);
}

void ec_tunnel_bus_changed(EcTunnel *t, unsigned properties, void *userdata)
{
	EcBus *b = userdata;
	g_autofree char *path = ec_bus_tunnel_path(t);

	ec_bus_signal_changed(
			b, path, EC_BUS_TUNNEL, signalled, EC_ELEMENTS(signalled), properties);
}

void ec_tunnel_bus_event(EcTunnel *t, const char *kind, const char *const *pairs, void *userdata)
{
	EcBus *b = userdata;
	g_autofree char *path = ec_bus_tunnel_path(t);
	g_autoptr(sd_bus_message) m = NULL;
	int r = sd_bus_message_new_signal(b->bus, &m, path, EC_BUS_TUNNEL, "Event");

	if (r >= 0)
		r = sd_bus_message_append(m, "s", kind);
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'a', "{sv}");
	for (; r >= 0 && pairs[0]; pairs += 2)
		r = sd_bus_message_append(m, "{sv}", pairs[0], "s", pairs[1]);
	if (r >= 0)
		r = sd_bus_message_close_container(m);
	if (r >= 0)
		(void)sd_bus_send(b->bus, m, NULL);
}
