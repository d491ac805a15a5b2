/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>

#include "svc.h"

/*
 * DOC: Theory of operation
 *
 * The tunnel is made by AddTunnel with the connection's UUID as `profile`, and is bound to us: the
 * daemon takes it away when we go without a word. The same call to a daemon that has the tunnel
 * already, of an instance of us that NetworkManager forgot or of before it was started anew, adopts
 * it as it is. With vpn.data tunnel=NAME it is somebody else's: it is looked at, and brought up and
 * down only where it was down.
 *
 * When the daemon goes, frames cross all the same and it may be on its way back: the call is
 * repeated, which also starts it, for GRACE_USEC.
 */

#define GRACE_USEC 15000000ULL
#define AGAIN_USEC 500000ULL

static const EcSvcProperty properties[] = {
	{ "State", "s", offsetof(EcSvcCord, state) },
	{ "StateReason", "(ss)", offsetof(EcSvcCord, reason) },
	{ "Interface", "s", offsetof(EcSvcCord, interface) },
	{ "Ifindex", "i", offsetof(EcSvcCord, ifindex) },
	{ "Encapsulation", "s", offsetof(EcSvcCord, encapsulation) },
	{ "Bridge", "s", offsetof(EcSvcCord, bridge) },
	{ "Remote", "s", offsetof(EcSvcCord, remote) },
	{ "Underlay", "o", offsetof(EcSvcCord, underlay) },
	{ "Protected", "b", offsetof(EcSvcCord, protect) },
	{ NULL },
};

static bool is_foreign(const EcSvcCord *c)
{
	return c->service->connection->profile->tunnel != NULL;
}

bool ec_svc_cord_is(const EcSvcCord *c, const char *state)
{
	return g_strcmp0(c->state, state) == 0;
}

bool ec_svc_cord_is_layer2(const EcSvcCord *c)
{
	static const char *const layer3[] = { "gre", "ipip", "tun-udp", NULL };

	return !c->encapsulation || !g_strv_contains(layer3, c->encapsulation);
}

static void ask(EcSvcCord *c);

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
	ask(userdata);
	return 0;
}

static bool is_absence(const sd_bus_error *error)
{
	return sd_bus_error_has_name(error, SD_BUS_ERROR_SERVICE_UNKNOWN) ||
	       sd_bus_error_has_name(error, SD_BUS_ERROR_NAME_HAS_NO_OWNER) ||
	       sd_bus_error_has_name(error, SD_BUS_ERROR_NO_REPLY) ||
	       sd_bus_error_has_name(error, SD_BUS_ERROR_TIMEOUT) ||
	       g_str_has_prefix(error->name, "org.freedesktop.DBus.Error.Spawn.") ||
	       g_str_has_prefix(error->name, "org.freedesktop.systemd1.");
}

static void give_up(EcSvcCord *c, const sd_bus_error *error)
{
	g_auto(sd_bus_error) absent = SD_BUS_ERROR_NULL;
	uint64_t now = (uint64_t)g_get_monotonic_time();

	if (!is_absence(error)) {
		ec_svc_on_cord_error(c->service, error);
	} else if (c->gone_usec && now < c->gone_usec + GRACE_USEC) {
		c->retry = sd_event_source_disable_unref(c->retry);
		(void)sd_event_add_time_relative(c->service->event, &c->retry, CLOCK_MONOTONIC,
				AGAIN_USEC, 0, on_retry, c);
	} else {
		(void)ec_error(&absent, EC_ERROR_NO_UNDERLAY,
				"ethercordd does not run and could not be started (%s); install it, or "
				"see: systemctl status ethercord",
				error->message);
		ec_svc_on_cord_error(c->service, &absent);
	}
}

/* Settings of the tunnel as the daemon has it, which may be another's: the value, at the cursor. */
static EcSettings *read_settings(sd_bus_message *m)
{
	g_autoptr(EcSettings) s = ec_settings_new();

	if (sd_bus_message_enter_container(m, 'v', "a{sv}") < 0 || ec_settings_read(s, m, NULL) < 0)
		return NULL;
	return g_steal_pointer(&s);
}

static EcSettings *find_settings(sd_bus_message *m)
{
	int r = sd_bus_message_rewind(m, true);

	if (r >= 0)
		r = sd_bus_message_enter_container(m, 'a', "{sv}");
	while (r >= 0) {
		const char *name;

		if (sd_bus_message_enter_container(m, 'e', "sv") <= 0)
			break;
		r = sd_bus_message_read_basic(m, 's', &name);
		if (r >= 0 && g_str_equal(name, "Settings"))
			return read_settings(m);
		if (r >= 0)
			r = sd_bus_message_skip(m, "v");
		if (r >= 0)
			r = sd_bus_message_exit_container(m);
	}
	return NULL;
}

static int on_properties(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	EcSvcCord *c = userdata;

	if (sd_bus_message_is_method_error(reply, NULL)) {
		give_up(c, sd_bus_message_get_error(reply));
		return 0;
	}
	int r = ec_svc_read_properties(reply, properties, c);
	if (r < 0)
		return r;
	(void)ec_settings_free(c->settings);
	c->settings = find_settings(reply);
	if (!c->settings)
		c->settings = ec_settings_copy(c->service->connection->profile->settings);
	c->gone_usec = 0;
	ec_svc_on_cord(c->service);
	return 0;
}

static void send_to_tunnel(EcSvcCord *c, const char *member, sd_bus_message_handler_t func)
{
	g_autoptr(sd_bus_message) m = NULL;

	if (sd_bus_message_new_method_call(
			    c->call.bus, &m, EC_SVC_DAEMON, c->path, EC_SVC_TUNNEL, member) < 0)
		return;
	(void)sd_bus_message_set_auto_start(m, false);
	ec_svc_call_send(&c->call, m, func, c);
}

static int on_activated(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	EcSvcCord *c = userdata;

	ec_svc_call_done(&c->call);
	if (sd_bus_message_is_method_error(reply, NULL))
		give_up(c, sd_bus_message_get_error(reply));
	else
		ec_svc_call_get_all(
				&c->look, EC_SVC_DAEMON, c->path, EC_SVC_TUNNEL, on_properties, c);
	return 0;
}

static int on_found(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	EcSvcCord *c = userdata;

	if (sd_bus_message_is_method_error(reply, NULL))
		return on_properties(reply, userdata, ret_error);
	int r = ec_svc_read_properties(reply, properties, c);
	if (r < 0)
		return r;
	if (!ec_svc_cord_is(c, "down"))
		return sd_bus_message_rewind(reply, true) < 0
				       ? -EIO
				       : on_properties(reply, userdata, ret_error);
	c->ours = true;
	send_to_tunnel(c, "Activate", on_activated);
	return 0;
}

static int on_asked(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	EcSvcCord *c = userdata;

	ec_svc_call_done(&c->call);
	if (sd_bus_message_is_method_error(reply, NULL)) {
		if (c->service->phase == EC_SVC_PHASE_STOPPED)
			ec_svc_on_cord_gone(c->service);
		else
			give_up(c, sd_bus_message_get_error(reply));
		return 0;
	}
	c->ours = c->ours || !is_foreign(c);
	if (c->service->phase == EC_SVC_PHASE_STOPPED)
		ec_svc_cord_stop(c);
	else
		ec_svc_call_get_all(&c->look, EC_SVC_DAEMON, c->path, EC_SVC_TUNNEL,
				is_foreign(c) ? on_found : on_properties, c);
	return 0;
}

static int append_tunnel(const EcSvcCord *c, sd_bus_message *m)
{
	const EcSvcConnection *connection = c->service->connection;
	g_autoptr(EcSettings) s = ec_settings_copy(connection->profile->settings);
	int r = ec_settings_parse(s, "name", connection->name, NULL);

	if (r >= 0)
		r = ec_settings_parse(s, "profile", connection->uuid, NULL);
	if (r >= 0)
		r = ec_settings_append(s, m, true);
	/* A key is in there. */
	(void)sd_bus_message_sensitive(m);
	return r < 0 ? r : sd_bus_message_append(m, "s", "activate");
}

static void ask(EcSvcCord *c)
{
	g_autoptr(sd_bus_message) m = NULL;
	const char *member = is_foreign(c) ? "GetTunnel" : "AddTunnel";
	int r = sd_bus_message_new_method_call(
			c->call.bus, &m, EC_SVC_DAEMON, EC_SVC_DAEMON_PATH, EC_SVC_MANAGER, member);

	if (r >= 0 && is_foreign(c))
		r = sd_bus_message_append(m, "s", c->service->connection->name);
	else if (r >= 0)
		r = append_tunnel(c, m);
	if (r >= 0)
		ec_svc_call_send(&c->call, m, on_asked, c);
	else
		ec_svc_fail(c->service, EC_SVC_FAILURE_CONFIG,
				"the settings cannot be sent to ethercordd: %s", g_strerror(-r));
}

static int on_changed(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	EcSvcCord *c = userdata;
	const char *interface;
	int r = sd_bus_message_read_basic(m, 's', &interface);

	/* Before they were all read they will be read as they are now. */
	if (r < 0 || !g_str_equal(interface, EC_SVC_TUNNEL) || !c->settings)
		return r;
	r = ec_svc_read_properties(m, properties, c);
	if (r >= 0 && !c->gone_usec)
		ec_svc_on_cord(c->service);
	return r;
}

static int on_removed(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcSvcCord *c = userdata;
	const char *path;
	int r = sd_bus_message_read_basic(m, 'o', &path);

	if (r < 0 || !g_str_equal(path, c->path) || !c->settings || c->gone_usec)
		return r;
	if (c->service->restart || c->service->phase == EC_SVC_PHASE_STOPPED)
		return 0;
	c->ours = false;
	(void)ec_error(&error, EC_ERROR_NO_SUCH_TUNNEL,
			"tunnel %s was removed by somebody else; bring the connection up again to "
			"have it back",
			c->service->connection->name);
	ec_svc_on_cord_error(c->service, &error);
	return 0;
}

static int on_owner(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	EcSvcCord *c = userdata;
	const char *name, *before, *after;
	int r = sd_bus_message_read(m, "sss", &name, &before, &after);

	if (r < 0 || !c->settings)
		return r;
	if (!*after && !c->gone_usec) {
		c->gone_usec = (uint64_t)g_get_monotonic_time();
		ec_svc_on_daemon_gone(c->service);
	}
	if (c->gone_usec && c->service->phase != EC_SVC_PHASE_STOPPED && (*after || !c->call.slot))
		ask(c);
	return 0;
}

static int add_matches(EcSvcCord *c)
{
	static const char *const owner =
			"type='signal',sender='org.freedesktop.DBus',"
			"interface='org.freedesktop.DBus',member='NameOwnerChanged',"
			"arg0='" EC_SVC_DAEMON "'";
	sd_bus *bus = c->call.bus;
	int r = sd_bus_match_signal_async(bus, &c->slots[0], EC_SVC_DAEMON, c->path,
			EC_SVC_PROPERTIES, "PropertiesChanged", on_changed, NULL, c);

	if (r >= 0)
		r = sd_bus_match_signal_async(bus, &c->slots[1], EC_SVC_DAEMON, EC_SVC_DAEMON_PATH,
				"org.freedesktop.DBus.ObjectManager", "InterfacesRemoved",
				on_removed, NULL, c);
	return r < 0 ? r : sd_bus_add_match_async(bus, &c->slots[2], owner, on_owner, NULL, c);
}

void ec_svc_cord_start(EcSvcCord *c, EcService *s)
{
	char *path = NULL;

	ec_svc_cord_done(c);
	c->service = s;
	c->call.bus = c->look.bus = s->bus;
	int r = sd_bus_path_encode(EC_SVC_DAEMON_PATH "/tunnel", s->connection->name, &path);
	c->path = path;
	if (r >= 0)
		r = add_matches(c);
	if (r < 0)
		ec_svc_fail(s, EC_SVC_FAILURE_CONNECT,
				"the tunnel cannot be followed on the bus: %s", g_strerror(-r));
	else
		ask(c);
}

static int on_stopped(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	EcSvcCord *c = userdata;

	ec_svc_call_done(&c->call);
	c->ours = false;
	ec_svc_on_cord_gone(c->service);
	return 0;
}

void ec_svc_cord_stop(EcSvcCord *c)
{
	c->retry = sd_event_source_disable_unref(c->retry);
	if (c->ours)
		send_to_tunnel(c, is_foreign(c) ? "Deactivate" : "Remove", on_stopped);
	else if (!c->call.slot)
		ec_svc_on_cord_gone(c->service);
	/* Else the answer that is due decides whether there is something to take away. */
}

void ec_svc_cord_done(EcSvcCord *c)
{
	for (size_t i = 0; i < EC_ELEMENTS(c->slots); i++)
		c->slots[i] = sd_bus_slot_unref(c->slots[i]);
	ec_svc_call_done(&c->call);
	ec_svc_call_done(&c->look);
	(void)sd_event_source_disable_unref(c->retry);
	(void)ec_settings_free(c->settings);
	g_free(c->path);
	g_free(c->state);
	g_free(c->reason[0]);
	g_free(c->reason[1]);
	g_free(c->interface);
	g_free(c->encapsulation);
	g_free(c->bridge);
	g_free(c->remote);
	g_free(c->underlay);
	*c = (EcSvcCord){ 0 };
}
