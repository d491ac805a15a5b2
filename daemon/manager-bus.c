/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>

#include "bus.h"
#include "diagnose.h"
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
		r = ec_bindings_add(b->manager->bindings, g_steal_pointer(&settings),
				persist ? EC_ORIGIN_CONFIG : EC_ORIGIN_RUNTIME, activate,
				sd_bus_message_get_sender(call), &t, ret_error);
	if (r < 0)
		return r;
	g_autofree char *path = ec_bus_tunnel_path(t);
	return sd_bus_reply_method_return(call, "o", path);
}

static int read_peers(sd_bus_message *call, GHashTable *peers, sd_bus_error *ret_error)
{
	int r = sd_bus_message_enter_container(call, 'a', "{sa{sv}}");

	while (r >= 0 && (r = sd_bus_message_enter_container(call, 'e', "sa{sv}")) > 0) {
		r = ec_listener_bus_read_peer(call, peers, ret_error);
		if (r >= 0)
			r = sd_bus_message_exit_container(call);
	}
	return r < 0 ? r : sd_bus_message_exit_container(call);
}

int ec_manager_bus_add_listener(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error)
{
	g_autoptr(EcSettings) settings = ec_settings_new_for(EC_SCOPE_LISTENER);
	g_autoptr(GHashTable) peers = ec_settings_peers_new();
	bool persist = false, activate = false;
	EcListener *l;
	int r = ec_settings_read(settings, call, ret_error);

	(void)sd_bus_message_sensitive(call);
	if (r >= 0)
		r = read_peers(call, peers, ret_error);
	if (r >= 0)
		r = read_flags(call, &persist, &activate, ret_error);
	if (r >= 0)
		r = ec_manager_add_listener(b->manager, g_steal_pointer(&settings),
				g_steal_pointer(&peers),
				persist ? EC_ORIGIN_CONFIG : EC_ORIGIN_RUNTIME, activate, &l,
				ret_error);
	if (r < 0)
		return r;
	g_autofree char *path = ec_bus_listener_path(l);
	return sd_bus_reply_method_return(call, "o", path);
}

int ec_manager_bus_get_listener(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error)
{
	const char *name;
	int r = sd_bus_message_read_basic(call, 's', &name);

	if (r < 0)
		return r;
	const EcListener *l = ec_manager_find_listener(b->manager, name);
	if (!l)
		return ec_error(ret_error, EC_ERROR_NO_SUCH_LISTENER,
				"there is no listener '%.64s'",
				ec_text_is_clean(name) ? name : "?");
	g_autofree char *path = ec_bus_listener_path(l);
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

/* One option of Diagnose. Those that are settings go by the settings' rules. */
static int read_option(EcBus *b, sd_bus_message *call, const char *key, EcSettings *settings,
		EcTunnel **ret_tunnel, sd_bus_error *ret_error)
{
	static const char allowed[] = "allowed is tunnel (s), underlay (s), encapsulation (as)";
	g_auto(GStrv) words = NULL;
	g_autofree char *text = NULL;
	const char *contents = NULL, *word = "";
	char type;
	int r = sd_bus_message_peek_type(call, &type, &contents);

	if (r < 0)
		return r;
	bool list = g_str_equal(key, "encapsulation");
	if (!list && !g_str_equal(key, "tunnel") && !g_str_equal(key, "underlay"))
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING, "option '%.32s': %s",
				ec_text_is_clean(key) ? key : "?", allowed);
	if (!contents || !g_str_equal(contents, list ? "as" : "s"))
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"option '%s' has another type: %s", key, allowed);
	r = sd_bus_message_enter_container(call, 'v', contents);
	if (r >= 0)
		r = list ? sd_bus_message_read_strv(call, &words)
			 : sd_bus_message_read_basic(call, 's', &word);
	if (r >= 0)
		r = sd_bus_message_exit_container(call);
	if (r < 0)
		return r;
	if (g_str_equal(key, "tunnel")) {
		*ret_tunnel = find_tunnel(b, word, ret_error);
		return *ret_tunnel ? 0 : -ENOENT;
	}
	text = list ? g_strjoinv(",", words ? words : (char *[]){ NULL }) : g_strdup(word);
	return ec_settings_parse(settings, key, text, ret_error);
}

static int read_options(EcBus *b, sd_bus_message *call, EcSettings *settings, EcTunnel **ret_tunnel,
		sd_bus_error *ret_error)
{
	const char *key;
	int r = sd_bus_message_enter_container(call, 'a', "{sv}");

	while (r >= 0 && (r = sd_bus_message_enter_container(call, 'e', "sv")) > 0) {
		r = sd_bus_message_read_basic(call, 's', &key);
		if (r >= 0)
			r = read_option(b, call, key, settings, ret_tunnel, ret_error);
		if (r >= 0)
			r = sd_bus_message_exit_container(call);
	}
	return r < 0 ? r : sd_bus_message_exit_container(call);
}

static int reply_findings(sd_bus_message *call, const GPtrArray *findings)
{
	g_autoptr(sd_bus_message) reply = NULL;
	int r = sd_bus_message_new_method_return(call, &reply);

	if (r >= 0)
		r = sd_bus_message_open_container(reply, 'a', "a{sv}");
	for (guint i = 0; r >= 0 && i < findings->len; i++) {
		const EcFinding *f = findings->pdata[i];

		r = sd_bus_message_append(reply, "a{sv}", 4, "severity", "s",
				ec_severity_to_string(f->severity), "code", "s", f->code, "text",
				"s", f->text, "remedy", "s", f->remedy);
	}
	if (r >= 0)
		r = sd_bus_message_close_container(reply);
	return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}

int ec_manager_bus_diagnose(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error)
{
	g_autoptr(EcSettings) settings = ec_settings_new();
	EcDiagnosis d = { .manager = b->manager, .settings = settings };
	int r = sd_bus_message_read_basic(call, 's', &d.remote);

	if (r >= 0)
		r = read_options(b, call, settings, &d.tunnel, ret_error);
	if (r >= 0 && !ec_text_is_clean(d.remote))
		r = ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"remote: allowed is an address, a host name or nothing");
	if (r < 0)
		return r;
	ec_diagnose(&d);
	r = reply_findings(call, d.findings);
	g_ptr_array_unref(d.findings);
	return r;
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
	SD_BUS_METHOD_WITH_ARGS("AddListener",
			SD_BUS_ARGS("a{sv}", settings, "a{sa{sv}}", peers, "s", flags),
			SD_BUS_RESULT("o", listener), ec_bus_method, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("GetListener", SD_BUS_ARGS("s", name), SD_BUS_RESULT("o", listener),
			ec_bus_method, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("RemoveTunnels", SD_BUS_ARGS("as", names), SD_BUS_NO_RESULT,
			ec_bus_method, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("Reload", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, ec_bus_method,
			SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD_WITH_ARGS("Diagnose", SD_BUS_ARGS("s", remote, "a{sv}", options),
			SD_BUS_RESULT("aa{sv}", findings), ec_bus_method,
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
