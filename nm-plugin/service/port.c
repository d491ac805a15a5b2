/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "svc.h"

#include <errno.h>
#include <string.h>
#include <syslog.h>
#include <systemd/sd-device.h>
#include <unistd.h>

/*
 * DOC: Theory of operation
 *
 * A VPN connection can neither be a bridge's port nor have its addresses by DHCP. A profile of the
 * tunnel's interface can: it is added in memory only, bound to us (NetworkManager takes it away
 * when we are gone), and its activation is waited for and then followed. It is called "ID (port)".
 *
 * Until udev has seen a fresh interface NetworkManager does not manage it; so a refusal is final
 * only after MANAGED_USEC, and SEEN_USEC after udev has, which tells NetworkManager.
 */

#define MANAGED_USEC 5000000ULL
#define SEEN_USEC 2000000ULL
#define APPEAR_USEC (20 * 1000ULL)
#define REFUSED_USEC (100 * 1000ULL)
#define CONFIGURES_USEC (50 * 1000ULL)

static void look(EcSvcPort *p);

static int on_time(sd_event_source *source, uint64_t usec, void *userdata)
{
	look(userdata);
	return 0;
}

static void refuse(EcSvcPort *p, const char *why)
{
	g_autofree char *text = g_strdup(why);

	ec_svc_port_done(p);
	ec_svc_on_port_refused(p->service, text);
}

/* A busy machine takes long; one without udev, or without the interface, has nothing to wait for.
 */
static bool udev_has_seen(const char *interface)
{
	sd_device *device = NULL;
	bool seen = access("/run/udev/control", F_OK) < 0 ||
		    sd_device_new_from_ifname(&device, interface) < 0 ||
		    sd_device_get_is_initialized(device) != 0;

	(void)sd_device_unref(device);
	return seen;
}

static void look_again(EcSvcPort *p, uint64_t usec, const char *why)
{
	uint64_t now = (uint64_t)g_get_monotonic_time();

	if (!udev_has_seen(p->service->cord.interface))
		p->deadline = MAX(p->deadline, now + SEEN_USEC);
	if (now > p->deadline) {
		refuse(p, why);
		return;
	}
	ec_svc_call_done(&p->call);
	p->retry = sd_event_source_disable_unref(p->retry);
	(void)sd_event_add_time_relative(
			p->service->event, &p->retry, CLOCK_MONOTONIC, usec, 0, on_time, p);
}

static void lose(EcSvcPort *p)
{
	const char *interface = p->service->cord.interface;
	g_autofree char *why = NULL;

	if (p->controller && p->ready)
		why = g_strdup_printf("%s was taken out of bridge %s, or the bridge went down",
				interface, p->controller);
	else if (p->controller)
		why = g_strdup_printf("NetworkManager could not put %s into bridge %s", interface,
				p->controller);
	else if (p->ready)
		why = g_strdup_printf(
				"the profile that NetworkManager configures %s by went down, or "
				"its DHCP lease was lost",
				interface);
	else
		why = g_strdup_printf("no address for %s: no answer to %s through the tunnel; see "
				      "that the far network has a server, or set addresses by hand "
				      "(ipv4.method manual or disabled)",
				interface, p->method4 ? "DHCP" : "router solicitations or DHCPv6");
	g_clear_pointer(&p->active, g_free);
	ec_svc_port_done(p);
	ec_svc_on_port_lost(p->service, why);
}

/* It has no IPv6 address, and need not have one. */
static void do_without(EcSvcPort *p)
{
	ec_svc_tell(p->service, LOG_NOTICE,
			"no router advertises itself through the tunnel: no IPv6 address for %s",
			p->service->cord.interface);
	g_clear_pointer(&p->active, g_free);
	ec_svc_port_done(p);
}

static void be_ready(EcSvcPort *p)
{
	if (p->ready)
		return;
	p->ready = true;
	ec_svc_on_port(p->service);
}

static void look_at_device(EcSvcPort *p);

static int on_device_time(sd_event_source *source, uint64_t usec, void *userdata)
{
	EcSvcPort *p = userdata;

	p->retry = sd_event_source_disable_unref(p->retry);
	look_at_device(p);
	return 0;
}

static int on_device_state(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	static const EcSvcProperty table[] = { { "State", "u", 0 }, { NULL } };
	EcSvcPort *p = userdata;
	uint32_t state = 0;

	ec_svc_call_done(&p->call);
	if (!sd_bus_message_is_method_error(reply, NULL))
		(void)ec_svc_read_properties(reply, table, &state);
	if (state >= EC_SVC_DEVICE_IP_CONFIG && state <= EC_SVC_DEVICE_ACTIVATED)
		be_ready(p);
	else
		(void)sd_event_add_time_relative(p->service->event, &p->retry, CLOCK_MONOTONIC,
				CONFIGURES_USEC, 0, on_device_time, p);
	return 0;
}

static void look_at_device(EcSvcPort *p)
{
	p->retry = sd_event_source_disable_unref(p->retry);
	ec_svc_call_get_all(&p->call, EC_SVC_NM, p->device, EC_SVC_NM_DEVICE, on_device_state, p);
}

static void take_state(EcSvcPort *p, uint32_t state)
{
	if (state >= EC_SVC_ACTIVE_DEACTIVATED ||
			(p->settled && state != EC_SVC_ACTIVE_ACTIVATED)) {
		if (p->ready && !p->settled)
			do_without(p);
		else
			lose(p);
		return;
	}
	p->settled = state == EC_SVC_ACTIVE_ACTIVATED;
	if (p->settled)
		be_ready(p);
	else if (p->optional && !p->ready)
		look_at_device(p);
}

static int on_state(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	EcSvcPort *p = userdata;
	uint32_t state, reason;
	int r = sd_bus_message_read(m, "uu", &state, &reason);

	if (r >= 0 && g_strcmp0(sd_bus_message_get_path(m), p->active) == 0)
		take_state(p, state);
	return MIN(r, 0);
}

static int on_active(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	static const EcSvcProperty table[] = { { "State", "u", 0 }, { NULL } };
	EcSvcPort *p = userdata;
	uint32_t state = EC_SVC_ACTIVE_DEACTIVATED;

	ec_svc_call_done(&p->call);
	if (!sd_bus_message_is_method_error(reply, NULL))
		(void)ec_svc_read_properties(reply, table, &state);
	take_state(p, state);
	return 0;
}

static int on_added(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	const sd_bus_error *error = sd_bus_message_get_error(reply);
	EcSvcPort *p = userdata;
	const char *profile, *active;

	/* A profile that cannot be is not waited for: NetworkManager has none for a GRETAP with a
	 * TTL and without path MTU discovery. */
	if (error && g_str_has_prefix(error->name, EC_SVC_NM ".Settings.Connection.")) {
		refuse(p, error->message);
		return 0;
	}
	if (error) {
		look_again(p, REFUSED_USEC, error->message);
		return 0;
	}
	int r = sd_bus_message_read(reply, "oo", &profile, &active);
	if (r < 0)
		return r;
	p->active = g_strdup(active);
	/* What changed before its path was known is known by asking. */
	ec_svc_call_get_all(&p->call, EC_SVC_NM, active, EC_SVC_NM_ACTIVE, on_active, p);
	return 0;
}

static void add(EcSvcPort *p)
{
	g_autoptr(sd_bus_message) m = NULL;
	int r = sd_bus_message_new_method_call(p->call.bus, &m, EC_SVC_NM, EC_SVC_NM_PATH,
			EC_SVC_NM, "AddAndActivateConnection2");

	if (r >= 0)
		r = ec_svc_port_append(p, m);
	if (r >= 0)
		r = sd_bus_message_append(m, "ooa{sv}", p->device, "/", 2, "persist", "s",
				"volatile", "bind-activation", "s", "dbus-client");
	if (r >= 0)
		r = sd_bus_message_set_auto_start(m, false);
	if (r >= 0)
		ec_svc_call_send(&p->call, m, on_added, p);
	else
		refuse(p, g_strerror(-r));
}

static int on_parent(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	static const EcSvcProperty table[] = {
		{ "Interface", "s", offsetof(EcSvcPort, parent) },
		{ NULL },
	};
	EcSvcPort *p = userdata;

	if (!sd_bus_message_is_method_error(reply, NULL))
		(void)ec_svc_read_properties(reply, table, p);
	add(p);
	return 0;
}

static int on_properties(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	EcSvcPort *p = userdata;

	if (sd_bus_message_is_method_error(reply, NULL)) {
		look_again(p, APPEAR_USEC, sd_bus_message_get_error(reply)->message);
		return 0;
	}
	(void)sd_bus_message_unref(p->properties);
	p->properties = sd_bus_message_ref(reply);
	g_autofree char *parent = ec_svc_port_parent(p);
	if (parent)
		ec_svc_call_get_all(&p->call, EC_SVC_NM, parent, EC_SVC_NM_DEVICE, on_parent, p);
	else
		add(p);
	return 0;
}

static int on_device(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	static const EcSvcProperty table[] = { { "DeviceType", "u", 0 }, { NULL } };
	EcSvcPort *p = userdata;
	uint32_t type = 0;

	if (!sd_bus_message_is_method_error(reply, NULL))
		(void)ec_svc_read_properties(reply, table, &type);
	p->kind = ec_svc_port_kind(type);
	if (p->kind)
		ec_svc_call_get_all(&p->call, EC_SVC_NM, p->device, p->kind->interface,
				on_properties, p);
	else
		look_again(p, APPEAR_USEC,
				"it is of a sort that NetworkManager has no profiles for");
	return 0;
}

static int on_path(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	EcSvcPort *p = userdata;
	const char *path;

	if (sd_bus_message_is_method_error(reply, NULL)) {
		look_again(p, APPEAR_USEC, "NetworkManager does not see it");
		return 0;
	}
	int r = sd_bus_message_read(reply, "o", &path);
	if (r < 0)
		return r;
	g_free(p->device);
	p->device = g_strdup(path);
	ec_svc_call_get_all(&p->call, EC_SVC_NM, path, EC_SVC_NM_DEVICE, on_device, p);
	return 0;
}

static void look(EcSvcPort *p)
{
	ec_svc_call_nm(&p->call, EC_SVC_NM_PATH, EC_SVC_NM, "GetDeviceByIpIface", on_path, p, "s",
			p->service->cord.interface);
}

static const char *method(const EcService *s, bool six)
{
	return ec_svc_connection_method(
			s->connection, s->cord.settings, ec_svc_cord_is_layer2(&s->cord), six);
}

bool ec_svc_port_is_wanted(const EcService *s)
{
	return s->bridge.managed || method(s, false) || method(s, true);
}

void ec_svc_port_start(EcSvcPort *p, EcService *s)
{
	ec_svc_port_done(p);
	p->service = s;
	p->call.bus = s->bus;
	p->controller = s->bridge.managed ? s->cord.settings->bridge : NULL;
	p->method4 = method(s, false);
	p->method6 = method(s, true);
	p->optional = !p->controller && !p->method4 && s->connection->may_fail6 &&
		      g_strcmp0(p->method6, "auto") == 0;
	p->deadline = (uint64_t)g_get_monotonic_time() + MANAGED_USEC;
	/* The paths are known only with the answer. */
	int r = sd_bus_match_signal_async(s->bus, &p->match, EC_SVC_NM, NULL, EC_SVC_NM_ACTIVE,
			"StateChanged", on_state, NULL, p);
	if (r < 0)
		ec_svc_on_port_refused(s, g_strerror(-r));
	else
		look(p);
}

/* What is only bound to us would stay as long as we do. */
static void deactivate(EcSvcPort *p)
{
	g_autoptr(sd_bus_message) m = NULL;
	int r = sd_bus_message_new_method_call(p->call.bus, &m, EC_SVC_NM, EC_SVC_NM_PATH,
			EC_SVC_NM, "DeactivateConnection");

	if (r >= 0)
		r = sd_bus_message_append(m, "o", p->active);
	if (r >= 0)
		r = sd_bus_message_set_expect_reply(m, false);
	if (r >= 0)
		r = sd_bus_message_set_auto_start(m, false);
	if (r >= 0)
		(void)sd_bus_send(p->call.bus, m, NULL);
}

void ec_svc_port_done(EcSvcPort *p)
{
	EcService *s = p->service;

	if (p->active)
		deactivate(p);
	ec_svc_call_done(&p->call);
	(void)sd_bus_slot_unref(p->match);
	(void)sd_event_source_disable_unref(p->retry);
	(void)sd_bus_message_unref(p->properties);
	g_free(p->device);
	g_free(p->active);
	g_free(p->parent);
	*p = (EcSvcPort){ .service = s };
}
