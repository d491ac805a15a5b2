/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl.h"

#include <stdio.h>
#include <string.h>

/* The verbs that show something. */

static const json_t *setting_of(const json_t *tunnel, const char *key)
{
	return json_object_get(json_object_get(tunnel, "Settings"), key);
}

/* A property, or what the settings say while the daemon has not settled it. */
static char *settled(const json_t *tunnel, const char *property, const char *key)
{
	const char *text = ctl_json_string(tunnel, property);
	const json_t *setting = setting_of(tunnel, key);

	if (*text || !setting)
		return g_strdup(text);
	return ctl_json_text(setting);
}

static const char *sentence_of(const json_t *tunnel)
{
	const char *text = json_string_value(
			json_array_get(json_object_get(tunnel, "StateReason"), 1));

	return text ? text : "";
}

static int get_objects(Ctl *ctl, json_t **ret)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	int code = ctl_open(ctl);

	if (code != CTL_OK)
		return code;
	int r = ctl_get_objects(ctl, true, ret, &error);
	return r < 0 ? ctl_fail(&error, r, NULL, CTL_ERROR) : CTL_OK;
}

/* Empty where any that fits is taken. */
static char *listener_mode(const json_t *l)
{
	return ctl_json_text(setting_of(l, "mode") ? setting_of(l, "mode") : json_null());
}

static void add_listeners(CtlTable *table, const json_t *listeners)
{
	for (size_t i = 0; i < json_array_size(listeners); i++) {
		const json_t *l = json_array_get(listeners, i);
		const json_t *allowed = setting_of(l, "allow");
		g_autofree char *mode = listener_mode(l);
		g_autofree char *allow = allowed ? ctl_json_text(allowed) : NULL;
		g_autofree char *port = g_strdup_printf(
				"%" JSON_INTEGER_FORMAT, ctl_json_integer(l, "Port"));
		g_autofree char *peers = g_strdup_printf(
				"%zu", json_array_size(json_object_get(l, "Peers")));
		const json_t *bridge = setting_of(l, "bridge");

		const char *cells[] = { ctl_json_string(l, "Name"), mode,
			ctl_json_string(l, "State"), port,
			bridge ? json_string_value(bridge) : NULL, peers, allow };
		ctl_table_add(table, cells);
	}
}

static CtlTable *listeners_table(const json_t *listeners)
{
	static const char *const titles[] = { "LISTENER", "MODE", "STATE", "PORT", "BRIDGE",
		"PEERS", "ALLOW", NULL };
	CtlTable *table = ctl_table_new(titles);

	add_listeners(table, listeners);
	return table;
}

int ctl_verb_list(Ctl *ctl, int argc, char **argv)
{
	static const char *const titles[] = { "NAME", "MODE", "STATE", "INTERFACE", "BRIDGE",
		"REMOTE", "ENCAPSULATION", NULL };
	g_autoptr(CtlTable) table = ctl_table_new(titles);
	g_autoptr(json_t) objects = NULL, tunnels = NULL, listeners = NULL;
	int code = get_objects(ctl, &objects);

	if (code != CTL_OK)
		return code;
	tunnels = ctl_pick(objects, CTL_TUNNEL);
	if (ctl->json != CTL_JSON_OFF) {
		ctl_json_print(ctl, tunnels);
		return CTL_OK;
	}
	for (size_t i = 0; i < json_array_size(tunnels); i++) {
		const json_t *t = json_array_get(tunnels, i);
		g_autofree char *bridge = settled(t, "Bridge", "bridge");
		g_autofree char *remote = settled(t, "Remote", "remote");

		const char *cells[] = { ctl_json_string(t, "Name"), ctl_json_string(t, "Mode"),
			ctl_json_string(t, "State"), ctl_json_string(t, "Interface"), bridge,
			remote, ctl_json_string(t, "Encapsulation") };
		ctl_table_add(table, cells);
	}
	ctl_table_print(table, !ctl->no_legend);
	listeners = ctl_pick(objects, CTL_LISTENER);
	if (json_array_size(listeners) > 0 && !ctl->no_legend) {
		g_autoptr(CtlTable) second = listeners_table(listeners);

		(void)fputc('\n', stdout);
		ctl_table_print(second, true);
	}
	return CTL_OK;
}

int ctl_verb_listeners(Ctl *ctl, int argc, char **argv)
{
	g_autoptr(json_t) objects = NULL, listeners = NULL;
	g_autoptr(CtlTable) table = NULL;
	int code = get_objects(ctl, &objects);

	if (code != CTL_OK)
		return code;
	listeners = ctl_pick(objects, CTL_LISTENER);
	if (ctl->json != CTL_JSON_OFF) {
		ctl_json_print(ctl, listeners);
		return CTL_OK;
	}
	table = listeners_table(listeners);
	ctl_table_print(table, !ctl->no_legend);
	return CTL_OK;
}

/* What people call a VPN. */
static const char *title_of(const json_t *underlay)
{
	const char *title = ctl_json_string(json_object_get(underlay, "Details"), "title");

	return *title ? title : ctl_json_string(underlay, "Name");
}

int ctl_verb_underlays(Ctl *ctl, int argc, char **argv)
{
	static const char *const titles[] = { "NAME", "KIND", "INTERFACE", "STATE", "PROTECTED",
		"MTU", "TITLE", NULL };
	g_autoptr(CtlTable) table = ctl_table_new(titles);
	g_autoptr(json_t) objects = NULL, underlays = NULL;
	int code = get_objects(ctl, &objects);

	if (code != CTL_OK)
		return code;
	underlays = ctl_pick(objects, CTL_UNDERLAY);
	if (ctl->json != CTL_JSON_OFF) {
		ctl_json_print(ctl, underlays);
		return CTL_OK;
	}
	for (size_t i = 0; i < json_array_size(underlays); i++) {
		const json_t *u = json_array_get(underlays, i);
		g_autofree char *mtu = g_strdup_printf(
				"%" JSON_INTEGER_FORMAT, ctl_json_integer(u, "Mtu"));

		const char *cells[] = { ctl_json_string(u, "Name"), ctl_json_string(u, "Kind"),
			ctl_json_string(u, "Interface"), ctl_json_string(u, "State"),
			ctl_json_true(u, "Protected") ? "yes" : "no",
			g_str_equal(mtu, "0") ? "" : mtu, title_of(u) };
		ctl_table_add(table, cells);
	}
	ctl_table_print(table, !ctl->no_legend);
	return CTL_OK;
}

static char *duration(json_int_t seconds)
{
	static const struct {
		json_int_t seconds;
		const char *unit, *next;
		json_int_t next_seconds;
	} table[] = {
		{ 86400, "d", "h", 3600 },
		{ 3600, "h", "min", 60 },
		{ 60, "min", "s", 1 },
	};

	for (size_t i = 0; i < EC_ELEMENTS(table); i++) {
		if (seconds >= table[i].seconds)
			return g_strdup_printf("%" JSON_INTEGER_FORMAT " %s %" JSON_INTEGER_FORMAT
					       " %s",
					seconds / table[i].seconds, table[i].unit,
					seconds % table[i].seconds / table[i].next_seconds,
					table[i].next);
	}
	return g_strdup_printf("%" JSON_INTEGER_FORMAT " s", MAX(seconds, 0));
}

static void show_since(const json_t *t)
{
	json_int_t usec = ctl_json_integer(t, "SinceUsec");

	if (usec <= 0)
		return;
	g_autoptr(GDateTime) when = g_date_time_new_from_unix_local(usec / G_USEC_PER_SEC);
	g_autofree char *ago = duration((g_get_real_time() - usec) / G_USEC_PER_SEC);
	if (!when) {
		ctl_field("since", "%s", ago);
		return;
	}
	g_autofree char *text = g_date_time_format(when, "%Y-%m-%d %H:%M:%S");
	ctl_field("since", "%s (%s)", ago, text);
}

static void show_state(const json_t *t)
{
	const char *state = ctl_json_string(t, "State");
	const char *token = json_string_value(json_array_get(json_object_get(t, "StateReason"), 0));
	const char *sentence = sentence_of(t);

	(void)printf("%-16s %s%s%s\n", "state:", ctl_color_of(state), state, ctl_color_off());
	if (*sentence && token && *token)
		ctl_field("reason", "%s (%s)", sentence, token);
	else
		ctl_field("reason", "%s", *sentence || !token ? sentence : token);
}

static const json_t *underlay_of(const json_t *t, const json_t *objects)
{
	const json_t *interfaces = json_object_get(objects, ctl_json_string(t, "Underlay"));

	return json_object_get(interfaces, CTL_UNDERLAY);
}

/* A VPN's title, with the name that NetworkManager or the IKE daemon has for the connection. */
static char *underlay_text(const json_t *underlay)
{
	const char *title = title_of(underlay);
	const char *connection =
			ctl_json_string(json_object_get(underlay, "Details"), "connection");

	if (!*connection || strstr(title, connection))
		return g_strdup(title);
	return ctl_is_utf8() ? g_strdup_printf("%s (“%s”)", title, connection)
			     : g_strdup_printf("%s (\"%s\")", title, connection);
}

/* "nftables and route"; "" when nothing holds. */
static char *layers_of(const json_t *tunnel)
{
	const json_t *layers = json_object_get(tunnel, "ProtectedBy");
	g_autoptr(GString) text = g_string_new(NULL);

	for (size_t i = 0; i < json_array_size(layers); i++)
		g_string_append_printf(text, "%s%s", i ? " and " : "",
				json_string_value(json_array_get(layers, i)));
	return g_string_free(g_steal_pointer(&text), FALSE);
}

static void show_protection(const json_t *t, const json_t *underlay)
{
	const char *state = ctl_json_string(t, "State");
	bool up = g_str_equal(state, "up");
	/* The interface of these is down. */
	bool idle = g_str_equal(state, "waiting") || g_str_equal(state, "failed");
	bool vpn_down = g_str_equal(ctl_json_string(underlay, "State"), "down");
	const char *device = ctl_json_string(underlay, "Interface");
	g_autofree char *layers = layers_of(t);

	if (ctl_json_true(t, "Protected") && up)
		ctl_field("protection", "protected by %s", layers);
	else if (ctl_json_true(t, "Protected") && underlay)
		ctl_field("protection", "protected by %s (nothing leaves while %s %s)", layers,
				vpn_down ? title_of(underlay) : "the tunnel",
				vpn_down ? "is down" : "is not up");
	else if (ctl_json_true(t, "Protected"))
		ctl_field("protection", "protected by %s (nothing leaves)", layers);
	else if (*layers && *device)
		ctl_field("protection", "not protected: confined to %s, which is no VPN", device);
	else if (ctl_json_integer(t, "Ifindex") > 0 && !idle)
		ctl_field("protection", "not protected: frames can leave outside a VPN");
	else
		ctl_field("protection", "nothing is sent");
}

static void show_underlay(const json_t *t, const json_t *objects)
{
	const json_t *u = underlay_of(t, objects);
	const char *device = ctl_json_string(u, "Interface");
	g_autofree char *wanted = settled(t, "", "underlay");
	g_autofree char *text = u ? underlay_text(u) : NULL;

	if (!u)
		ctl_field("underlay", "%s (none yet)", *wanted ? wanted : "vpn");
	else if (*device && !strstr(text, device))
		ctl_field("underlay", "%s (%s)", text, device);
	else
		ctl_field("underlay", "%s", text);
	show_protection(t, u);
}

static void show_path(const json_t *t)
{
	g_autofree char *local = settled(t, "Local", "local");
	g_autofree char *remote = settled(t, "Remote", "remote");
	const char *peer = ctl_json_string(t, "Peer");
	json_int_t id = ctl_json_integer(t, "Id"), mtu = ctl_json_integer(t, "Mtu");
	json_int_t largest = ctl_json_integer(t, "LargestFrame");

	ctl_field("path", "%s %s %s", *local ? local : "(any)", ctl_is_utf8() ? "→" : "->",
			*remote ? remote : "(unknown)");
	ctl_field("peer", "%s", peer);
	if (id == 0)
		id = json_integer_value(setting_of(t, "id"));
	if (id > 0)
		ctl_field("id", "%" JSON_INTEGER_FORMAT, id);
	if (mtu > 0)
		ctl_field("mtu", "%" JSON_INTEGER_FORMAT, mtu);
	if (largest > 0)
		ctl_field("largest frame", "%" JSON_INTEGER_FORMAT, largest);
}

static void show_interface(const json_t *t)
{
	const char *interface = ctl_json_string(t, "Interface");
	const char *encapsulation = ctl_json_string(t, "Encapsulation");
	const char *data_plane = ctl_json_string(t, "DataPlane");
	g_autofree char *bridge = settled(t, "Bridge", "bridge");
	json_int_t ifindex = ctl_json_integer(t, "Ifindex");

	if (ifindex > 0)
		ctl_field("interface", "%s (index %" JSON_INTEGER_FORMAT ")", interface, ifindex);
	else
		ctl_field("interface", "%s", interface);
	ctl_field("bridge", "%s", bridge);
	ctl_field("encapsulation", "%s%s%s", encapsulation, *data_plane ? ", data plane " : "",
			data_plane);
}

static void show_settings(const json_t *settings)
{
	const char *label = "settings:";

	for (CtlMember m = ctl_json_first(settings); m.key; m = ctl_json_next(settings, m)) {
		g_autofree char *text = ctl_json_text(m.value);
		g_autofree char *clean = ctl_clean(text);

		(void)printf("%-16s %s=%s\n", label, m.key, clean);
		label = "";
	}
}

static void show_tunnel(const json_t *t, const json_t *objects)
{
	g_autofree char *guard = NULL;
	const char *listener = ctl_json_string(t, "Listener");

	ctl_field("name", "%s", ctl_json_string(t, "Name"));
	show_state(t);
	show_since(t);
	ctl_field("mode", "%s", ctl_json_string(t, "Mode"));
	ctl_field("role", "%s", ctl_json_string(t, "Role"));
	if (g_str_has_prefix(listener, CTL_ROOT_PATH))
		ctl_field("listener", "%s", strrchr(listener, '/') + 1);
	show_interface(t);
	show_path(t);
	show_underlay(t, objects);
	ctl_field("fidelity", "%s", ctl_json_string(t, "Fidelity"));
	if (json_object_get(t, "Guard"))
		guard = ctl_json_text(json_object_get(t, "Guard"));
	ctl_field("guard", "%s", guard ? guard : "");
	ctl_field("persistent", "%s", ctl_json_true(t, "Persistent") ? "yes" : "no");
	ctl_show_statistics(json_object_get(t, "Statistics"));
	show_settings(json_object_get(t, "Settings"));
}

/* The tunnels of those who are here, one a line. */
static void show_peers(const json_t *l, const json_t *objects)
{
	const json_t *peers = json_object_get(l, "Peers");

	ctl_field("peers", "%zu", json_array_size(peers));
	for (size_t i = 0; i < json_array_size(peers); i++) {
		const char *path = json_string_value(json_array_get(peers, i));
		const json_t *t = json_object_get(json_object_get(objects, path), CTL_TUNNEL);

		ctl_field("", "%s: %s, %s, %s", ctl_json_string(t, "Name"),
				ctl_json_string(t, "State"), ctl_json_string(t, "Interface"),
				ctl_json_string(t, "Remote"));
	}
}

static void show_peer_settings(const json_t *l)
{
	const json_t *all = json_object_get(l, "PeerSettings");
	const char *label = "known";

	for (CtlMember m = ctl_json_first(all); m.key; m = ctl_json_next(all, m)) {
		g_autoptr(GString) text = g_string_new(m.key);

		for (CtlMember s = ctl_json_first(m.value); s.key; s = ctl_json_next(m.value, s)) {
			g_autofree char *value = ctl_json_text(s.value);
			g_string_append_printf(text, " %s=%s", s.key, value);
		}
		ctl_field(label, "%s", text->str);
		label = "";
	}
}

static void show_listener(const json_t *l, const json_t *objects)
{
	g_autofree char *mode = listener_mode(l);

	ctl_field("name", "%s", ctl_json_string(l, "Name"));
	ctl_field("role", "listener");
	show_state(l);
	ctl_field("port", "%" JSON_INTEGER_FORMAT " (TCP)", ctl_json_integer(l, "Port"));
	ctl_field("mode", "%s", *mode ? mode : "as the peer wants");
	ctl_field("persistent", "%s", ctl_json_true(l, "Persistent") ? "yes" : "no");
	show_peers(l, objects);
	show_peer_settings(l);
	show_settings(json_object_get(l, "Settings"));
}

static int status_listener(Ctl *ctl, const char *name, const json_t *objects)
{
	g_autofree char *path = ctl_listener_path(name);
	const json_t *l = json_object_get(json_object_get(objects, path), CTL_LISTENER);

	if (!l)
		return ctl_complain(CTL_NOT_FOUND, "there is no tunnel or listener '%s'", name);
	if (ctl->json != CTL_JSON_OFF)
		ctl_json_print(ctl, l);
	else
		show_listener(l, objects);
	return CTL_OK;
}

static int status_tunnel(Ctl *ctl, const char *name)
{
	g_autoptr(json_t) objects = NULL, statistics = NULL;
	g_autoptr(sd_bus_message) reply = NULL;
	g_autofree char *path = ctl_tunnel_path(name);
	int code = get_objects(ctl, &objects);

	if (code != CTL_OK)
		return code;
	json_t *t = json_object_get(json_object_get(objects, path), CTL_TUNNEL);
	if (!t)
		return status_listener(ctl, name, objects);
	/* Counters are read on demand and are not among the objects; a tunnel without a link has
	 * none. */
	if (sd_bus_get_property(ctl->bus, CTL_BUS_NAME, path, CTL_TUNNEL, "Statistics", NULL,
			    &reply, "a{st}") >= 0 &&
			ctl_json_read(reply, &statistics) >= 0)
		(void)json_object_set(t, "Statistics", statistics);
	if (ctl->json != CTL_JSON_OFF)
		ctl_json_print(ctl, t);
	else
		show_tunnel(t, objects);
	return CTL_OK;
}

/* Tunnels or listeners, each with the reason for its state. */
static void show_states(const char *label, const json_t *things, CtlTable *table)
{
	ctl_field(label, "%zu", json_array_size(things));
	for (size_t i = 0; i < json_array_size(things); i++) {
		const json_t *o = json_array_get(things, i);
		const json_t *peers = json_object_get(o, "Peers");
		g_autofree char *listens = g_strdup_printf("port %" JSON_INTEGER_FORMAT
							   ", %zu peers",
				ctl_json_integer(o, "Port"), json_array_size(peers));
		const char *cells[] = { ctl_json_string(o, "Name"), ctl_json_string(o, "State"),
			peers ? listens : ctl_json_string(o, "Interface"), sentence_of(o) };
		ctl_table_add(table, cells);
	}
}

static void show_overview(const json_t *manager, const json_t *underlays, const json_t *tunnels,
		const json_t *listeners)
{
	static const char *const titles[] = { "NAME", "STATE", "INTERFACE", "REASON", NULL };
	g_autoptr(CtlTable) table = ctl_table_new(titles);

	ctl_field("daemon", "ethercordd %s", ctl_json_string(manager, "Version"));
	const json_t *usable = json_object_get(manager, "Encapsulations");
	for (size_t i = 0; i < json_array_size(usable); i++) {
		const json_t *o = json_array_get(usable, i);
		ctl_field(i ? "" : "encapsulations", "%s", json_string_value(o));
	}
	if (json_array_size(underlays) == 0)
		ctl_field("underlays", "no VPN was found");
	for (size_t i = 0; i < json_array_size(underlays); i++) {
		const json_t *o = json_array_get(underlays, i);
		g_autofree char *text = underlay_text(o);

		ctl_field(i ? "" : "underlays", "%s: %s, %s", text, ctl_json_string(o, "State"),
				ctl_json_true(o, "Protected") ? "protected" : "not protected");
	}
	show_states("tunnels", tunnels, table);
	if (json_array_size(listeners) > 0)
		show_states("listeners", listeners, table);
	if (json_array_size(tunnels) + json_array_size(listeners) > 0) {
		(void)fputc('\n', stdout);
		ctl_table_print(table, false);
	}
}

int ctl_verb_status(Ctl *ctl, int argc, char **argv)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autoptr(json_t) objects = NULL, manager = NULL, tunnels = NULL, underlays = NULL;
	g_autoptr(json_t) listeners = NULL;

	if (argc > 1)
		return status_tunnel(ctl, argv[1]);
	int code = get_objects(ctl, &objects);
	if (code != CTL_OK)
		return code;
	int r = ctl_get_properties(ctl, CTL_ROOT_PATH, CTL_MANAGER, &manager, &error);
	if (r < 0)
		return ctl_fail(&error, r, NULL, CTL_ERROR);
	tunnels = ctl_pick(objects, CTL_TUNNEL);
	underlays = ctl_pick(objects, CTL_UNDERLAY);
	listeners = ctl_pick(objects, CTL_LISTENER);
	if (ctl->json == CTL_JSON_OFF) {
		show_overview(manager, underlays, tunnels, listeners);
		return CTL_OK;
	}
	g_autoptr(json_t) all = json_pack("{s:O, s:O, s:O, s:O}", "Manager", manager, "Underlays",
			underlays, "Tunnels", tunnels, "Listeners", listeners);
	ctl_json_print(ctl, all);
	return CTL_OK;
}
