/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <syslog.h>
#include <unistd.h>

#include "svc.h"

/*
 * DOC: Theory of operation
 *
 * Activating goes through the phases in order; each part says when it is done, and each may end the
 * whole by ec_svc_fail():
 *
 *   BRIDGE  a bridge of NetworkManager's is brought up         only with bridge=, where it has it
 *   CORD    AddTunnel; wait until its State is up              (SECRETS: the key is asked for)
 *   PORT    the port profile is activated                      only for a bridge, DHCP or SLAAC
 *   GATEWAY what Config has to say is looked up
 *   STARTED Config was sent, NetworkManager shows "activated"
 *
 * What happens, and what the user sees. "Why" is one sentence in the journal with NM_CONNECTION,
 * which nmcli's own hint shows. "Ends": the connection goes down, and the tunnel, its interface and
 * the port profile are gone.
 *
 *   before it is up
 *    vpn.data is wrong                    ends at once, why
 *    ethercordd is missing                ends at once, why
 *    no way to the peer yet, no answer    "activating", why; ends at vpn.timeout (60 s)
 *    wrong key                            the key is asked for where there is somebody to ask;
 *                                         else ends: "Invalid secrets", why
 *    refused, no bridge, name taken       ends, why
 *    no DHCP server at the far end        ends at dhcp-timeout, why
 *    IPv6 by advertisements alone, and    "activated"; the address comes when a router speaks
 *    nobody advertises
 *    bridge's profile is down             it is brought up
 *    NetworkManager leaves the bridge     ethercordd puts the interface into it
 *    alone, or the interface
 *   while it is up                        vpn.persistent=no        vpn.persistent=yes
 *    peer or underlay VPN lost            ends, why                "activating", why, until it is
 *                                                                  back; addresses return with it
 *    bridge down                          ends, why                "activating", why, until it is
 *                                                                  back
 *    port profile down, DHCP lease lost   ends, why                "activating", why; tried again
 *    frames have to be proved anew        nothing for 3 s, then  as if the peer were lost
 *    base device down, Sleep              ends                     stays, rides on the next device
 *    tunnel taken down or removed by      ends, why                ends, why
 *    others
 *    ethercordd stopped or killed         nothing, if it is back within 15 s; else ends, why
 *    NetworkManager stopped or killed     the tunnel stays 60 s; ethercordd brings the connection
 *                                         up again when NetworkManager is back, and no frame is
 *                                         lost meanwhile
 *    this process killed                  ends; the tunnel is gone after 5 s
 *    connection taken down                ends, and so it does when the activation is replaced
 *
 * A tunnel named by tunnel=NAME is nobody's but the daemon's: it is left as it was found, up or
 * down.
 */

#define CONNECTING_USEC 3000000ULL
#define DAEMON_USEC 20000000ULL
#define ASK_MAX 3
#define REAPPLY_USEC 100000ULL
#define REAPPLY_MAX 150
#define REAPPLY_DETOUR 5

static void start_cord(EcService *s);

static void set_timer(
		EcService *s, sd_event_source **source, uint64_t usec, sd_event_time_handler_t func)
{
	*source = sd_event_source_disable_unref(*source);
	(void)sd_event_add_time_relative(s->event, source, CLOCK_MONOTONIC, usec, 0, func, s);
}

static bool is_persistent(const EcService *s)
{
	return s->connection->persistent && s->was_started;
}

static void clear_parts(EcService *s)
{
	s->grace = sd_event_source_disable_unref(s->grace);
	s->again = sd_event_source_disable_unref(s->again);
	s->reapply_again = sd_event_source_disable_unref(s->reapply_again);
	ec_svc_call_done(&s->reapply);
	ec_svc_bridge_done(&s->bridge);
	ec_svc_gateway_done(&s->gateway);
	ec_svc_port_done(&s->port);
}

void ec_svc_fail(EcService *s, EcSvcFailure code, const char *format, ...)
{
	va_list ap;

	if (s->phase == EC_SVC_PHASE_STOPPED)
		return;
	va_start(ap, format);
	g_autofree char *text = g_strdup_vprintf(format, ap);
	va_end(ap);
	ec_svc_tell(s, LOG_WARNING, "%s", text);
	s->phase = EC_SVC_PHASE_STOPPED;
	ec_svc_plugin_failure(s, code);
	ec_svc_plugin_state(s, EC_SVC_STATE_STOPPED);
	clear_parts(s);
	ec_svc_cord_stop(&s->cord);
}

void ec_svc_disconnect(EcService *s)
{
	if (s->phase == EC_SVC_PHASE_STOPPED)
		return;
	s->phase = EC_SVC_PHASE_STOPPED;
	ec_svc_plugin_state(s, EC_SVC_STATE_STOPPING);
	clear_parts(s);
	ec_svc_plugin_state(s, EC_SVC_STATE_STOPPED);
	ec_svc_cord_stop(&s->cord);
}

void ec_svc_abandon(EcService *s)
{
	ec_svc_tell(s, LOG_NOTICE, "NetworkManager ended; the tunnel is kept for its return");
	/* The next one gives the same paths to others. */
	g_clear_pointer(&s->port.active, g_free);
	(void)sd_event_exit(s->event, 0);
}

void ec_svc_on_cord_gone(EcService *s)
{
	if (s->restart) {
		s->restart = false;
		start_cord(s);
	} else if (s->phase == EC_SVC_PHASE_STOPPED) {
		(void)sd_event_exit(s->event, 0);
	}
}

/* The tunnel */

static void start_cord(EcService *s)
{
	s->phase = EC_SVC_PHASE_CORD;
	ec_svc_cord_start(&s->cord, s);
}

void ec_svc_connect(EcService *s, EcSvcConnection *c, const sd_bus_error *broken, bool interactive)
{
	(void)ec_svc_connection_free(s->connection);
	s->connection = c;
	s->interactive = interactive;
	s->phase = EC_SVC_PHASE_CORD;
	ec_svc_plugin_state(s, EC_SVC_STATE_STARTING);
	if (broken) {
		ec_svc_fail(s, EC_SVC_FAILURE_CONFIG, "%s", broken->message);
	} else if (c->profile->settings->bridge) {
		s->phase = EC_SVC_PHASE_BRIDGE;
		ec_svc_bridge_start(&s->bridge, s);
	} else {
		start_cord(s);
	}
}

static void ask_for_key(EcService *s, const char *sentence)
{
	/* Who answers may have it stored and not be a person. */
	if (!s->interactive || s->was_started || s->asked++ >= ASK_MAX) {
		ec_svc_fail(s, EC_SVC_FAILURE_LOGIN, "%s", sentence);
		return;
	}
	ec_svc_tell(s, LOG_NOTICE, "%s", sentence);
	s->phase = EC_SVC_PHASE_SECRETS;
	ec_svc_plugin_secrets(s, sentence);
}

void ec_svc_new_key(EcService *s, EcSvcConnection *c, const sd_bus_error *broken)
{
	if (s->phase != EC_SVC_PHASE_SECRETS) {
		(void)ec_svc_connection_free(c);
		return;
	}
	(void)ec_svc_connection_free(s->connection);
	s->connection = c;
	if (broken) {
		ask_for_key(s, broken->message);
		return;
	}
	ec_svc_plugin_state(s, EC_SVC_STATE_STARTING);
	s->restart = true;
	ec_svc_cord_stop(&s->cord);
}

void ec_svc_on_cord_error(EcService *s, const sd_bus_error *error)
{
	const char *message = error->message ? error->message : error->name;

	if (s->phase == EC_SVC_PHASE_STOPPED)
		return;
	if (sd_bus_error_has_name(error, EC_ERROR_WRONG_KEY))
		ask_for_key(s, message);
	else if (sd_bus_error_has_name(error, EC_ERROR_INVALID_SETTING))
		ec_svc_fail(s, EC_SVC_FAILURE_CONFIG, "%s", message);
	else
		ec_svc_fail(s, EC_SVC_FAILURE_CONNECT, "%s", message);
}

/* Where NetworkManager does not look after IPv6 the kernel does: it would take addresses, and a
 * default route, from any router at the far end. */
static void refuse_advertisements(EcService *s)
{
	g_autofree char *file =
			g_strdup_printf("/proc/sys/net/ipv6/conf/%s/accept_ra", s->cord.interface);
	/* Without IPv6 there is no such file, and nothing to refuse. */
	int fd = open(file, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (write(fd, "0", 1) < 0)
		ec_svc_tell(s, LOG_NOTICE, "%s: %s; routers at the far end may give %s addresses",
				file, g_strerror(errno), s->cord.interface);
	(void)close(fd);
}

static void configure(EcService *s)
{
	s->phase = EC_SVC_PHASE_GATEWAY;
	ec_svc_gateway_start(&s->gateway, s);
}

static void on_up(EcService *s)
{
	if (!ec_svc_port_is_wanted(s) && ec_svc_connection_refuses_ra(s->connection))
		refuse_advertisements(s);
	if (!ec_svc_port_is_wanted(s) || s->port.ready) {
		configure(s);
		return;
	}
	s->phase = EC_SVC_PHASE_PORT;
	ec_svc_port_start(&s->port, s);
}

static const char *reason_of(const EcService *s)
{
	const char *sentence = s->cord.reason[1];

	if (sentence && *sentence)
		return sentence;
	return ec_svc_cord_is(&s->cord, "down") ? "the tunnel was taken down by somebody else"
						: "the peer or the way to it was lost";
}

static void look_at_failed(EcService *s)
{
	if (g_strcmp0(s->cord.reason[0],
			    ec_error_token(&SD_BUS_ERROR_MAKE_CONST(EC_ERROR_WRONG_KEY, ""))) == 0)
		ask_for_key(s, reason_of(s));
	else
		ec_svc_fail(s, EC_SVC_FAILURE_CONNECT, "%s", reason_of(s));
}

/* Not up, and not known to NetworkManager yet, or shown as "activating". */
static void look_while_coming(EcService *s)
{
	const char *sentence = s->cord.reason[1];

	if (ec_svc_cord_is(&s->cord, "down"))
		ec_svc_fail(s, EC_SVC_FAILURE_CONNECT, "%s", reason_of(s));
	else if (ec_svc_cord_is(&s->cord, "failed") && !is_persistent(s))
		look_at_failed(s);
	else if (sentence && *sentence)
		ec_svc_tell(s, LOG_NOTICE, "%s", sentence);
}

void ec_svc_on_activated(EcService *s)
{
	/* It takes any change of the interface, as the port profile's end, for ours to have come
	 * up. It heeds STARTING only after STARTED. */
	if (!s->was_started || s->phase == EC_SVC_PHASE_GATEWAY ||
			s->phase == EC_SVC_PHASE_STARTED || s->phase == EC_SVC_PHASE_STOPPED)
		return;
	ec_svc_plugin_state(s, EC_SVC_STATE_STARTED);
	ec_svc_plugin_state(s, EC_SVC_STATE_STARTING);
}

static void lose(EcService *s)
{
	s->grace = sd_event_source_disable_unref(s->grace);
	/* It went between being up and being known as such. */
	if (!s->was_started) {
		s->phase = EC_SVC_PHASE_CORD;
		ec_svc_gateway_done(&s->gateway);
		ec_svc_port_done(&s->port);
		look_while_coming(s);
		return;
	}
	if (!is_persistent(s) || ec_svc_cord_is(&s->cord, "down")) {
		ec_svc_fail(s, EC_SVC_FAILURE_CONNECT, "%s", reason_of(s));
		return;
	}
	s->phase = EC_SVC_PHASE_CORD;
	ec_svc_gateway_done(&s->gateway);
	ec_svc_plugin_state(s, EC_SVC_STATE_STARTING);
	ec_svc_tell(s, LOG_WARNING, "%s", reason_of(s));
}

static int on_grace(sd_event_source *source, uint64_t usec, void *userdata)
{
	EcService *s = userdata;

	s->grace = sd_event_source_disable_unref(s->grace);
	/* Before it was up vpn.timeout is what ends it. */
	if (s->phase != EC_SVC_PHASE_CORD && !ec_svc_cord_is(&s->cord, "up"))
		lose(s);
	return 0;
}

static void look_while_up(EcService *s)
{
	bool proving = ec_svc_cord_is(&s->cord, "connecting");

	if (s->grace && (s->lenient || proving))
		return;
	if (!proving) {
		lose(s);
		return;
	}
	s->lenient = false;
	set_timer(s, &s->grace, CONNECTING_USEC, on_grace);
}

void ec_svc_on_cord(EcService *s)
{
	bool up = ec_svc_cord_is(&s->cord, "up");

	switch (s->phase) {
	case EC_SVC_PHASE_CORD:
		if (up)
			on_up(s);
		else
			look_while_coming(s);
		break;
	case EC_SVC_PHASE_STARTED:
		if (!up) {
			look_while_up(s);
			break;
		}
		s->grace = sd_event_source_disable_unref(s->grace);
		/* The interface was made anew: what NetworkManager put on it is gone. */
		if (s->ifindex != s->cord.ifindex)
			on_up(s);
		break;
	case EC_SVC_PHASE_PORT:
	case EC_SVC_PHASE_GATEWAY:
		if (!up)
			look_while_up(s);
		break;
	case EC_SVC_PHASE_IDLE:
	case EC_SVC_PHASE_BRIDGE:
	case EC_SVC_PHASE_SECRETS:
	case EC_SVC_PHASE_STOPPED:
	case _SVC_PHASE_MAX:
		break;
	}
}

void ec_svc_on_daemon_gone(EcService *s)
{
	if (s->phase == EC_SVC_PHASE_STOPPED) {
		(void)sd_event_exit(s->event, 0);
		return;
	}
	ec_svc_tell(s, LOG_NOTICE, "ethercordd ended; waiting for its return");
	s->lenient = true;
	set_timer(s, &s->grace, DAEMON_USEC, on_grace);
}

/* NetworkManager's part */

void ec_svc_on_bridge(EcService *s)
{
	if (s->phase == EC_SVC_PHASE_BRIDGE)
		start_cord(s);
	else if (s->phase == EC_SVC_PHASE_PORT)
		on_up(s);
}

void ec_svc_on_port(EcService *s)
{
	s->failures = 0;
	if (s->phase == EC_SVC_PHASE_PORT)
		configure(s);
}

static int on_again(sd_event_source *source, uint64_t usec, void *userdata)
{
	EcService *s = userdata;

	s->again = sd_event_source_disable_unref(s->again);
	if (s->phase != EC_SVC_PHASE_PORT)
		return 0;
	if (s->connection->profile->settings->bridge)
		ec_svc_bridge_start(&s->bridge, s);
	else
		on_up(s);
	return 0;
}

void ec_svc_on_port_lost(EcService *s, const char *why)
{
	/* It went with the carrier; it is made anew when the tunnel is up again. */
	if (s->phase == EC_SVC_PHASE_CORD || s->phase == EC_SVC_PHASE_STOPPED)
		return;
	if (!is_persistent(s)) {
		ec_svc_fail(s, s->was_started ? EC_SVC_FAILURE_CONNECT : EC_SVC_FAILURE_CONFIG,
				"%s", why);
		return;
	}
	s->phase = EC_SVC_PHASE_PORT;
	ec_svc_gateway_done(&s->gateway);
	ec_svc_plugin_state(s, EC_SVC_STATE_STARTING);
	ec_svc_tell(s, LOG_WARNING, "%s", why);
	set_timer(s, &s->again, ec_backoff_usec(s->failures++), on_again);
}

void ec_svc_on_port_refused(EcService *s, const char *why)
{
	if (s->phase != EC_SVC_PHASE_PORT)
		return;
	if (!s->bridge.managed) {
		ec_svc_fail(s, EC_SVC_FAILURE_CONFIG,
				"NetworkManager does not manage %s, so it cannot ask for addresses on it "
				"(%s); take it out of unmanaged-devices, or set addresses by hand "
				"(ipv4.method manual or disabled)",
				s->cord.interface, why);
		return;
	}
	ec_svc_tell(s, LOG_NOTICE,
			"NetworkManager does not manage %s (%s); ethercordd keeps it in bridge %s",
			s->cord.interface, why, s->connection->profile->settings->bridge);
	configure(s);
}

static void reapply(EcService *s);

static int on_reapply_again(sd_event_source *source, uint64_t usec, void *userdata)
{
	EcService *s = userdata;

	s->reapply_again = sd_event_source_disable_unref(s->reapply_again);
	if (s->phase == EC_SVC_PHASE_STARTED)
		reapply(s);
	return 0;
}

static void reapply_again(EcService *s)
{
	if (s->reapplied++ < REAPPLY_MAX)
		set_timer(s, &s->reapply_again, REAPPLY_USEC, on_reapply_again);
}

static int on_own_state(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	static const EcSvcProperty table[] = { { "State", "u", 0 }, { NULL } };
	EcService *s = userdata;
	uint32_t state = 0;

	ec_svc_call_done(&s->reapply);
	if (!sd_bus_message_is_method_error(reply, NULL))
		(void)ec_svc_read_properties(reply, table, &state);
	if (state != EC_SVC_ACTIVE_ACTIVATED)
		reapply_again(s);
	return 0;
}

static void look_at_own(EcService *s)
{
	if (s->active)
		ec_svc_call_get_all(&s->reapply, EC_SVC_NM, s->active, EC_SVC_NM_ACTIVE,
				on_own_state, s);
}

static int on_reapplied(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	EcService *s = userdata;

	ec_svc_call_done(&s->reapply);
	if (!sd_bus_message_is_method_error(reply, NULL)) {
		look_at_own(s);
	} else if (s->reapplied == REAPPLY_DETOUR) {
		/* Not a device of its own: it will never do it, but acts upon another interface. */
		ec_svc_plugin_config(s, "lo");
		ec_svc_plugin_config(s, s->cord.interface);
		s->reapplied++;
		look_at_own(s);
	} else {
		reapply_again(s);
	}
	return 0;
}

static int on_device(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	EcService *s = userdata;
	const char *path;

	ec_svc_call_done(&s->reapply);
	if (!sd_bus_message_is_method_error(reply, NULL) &&
			sd_bus_message_read(reply, "o", &path) >= 0)
		ec_svc_call_nm(&s->reapply, path, EC_SVC_NM_DEVICE, "Reapply", on_reapplied, s,
				"a{sa{sv}}tu", 0, (uint64_t)0, 0);
	else
		reapply_again(s);
	return 0;
}

/* A second Config with nothing new in it is not acted upon: NetworkManager would show "activating"
 * for ever, without the routes. It refuses while it is busy with the device, which it finds anew
 * when the carrier is back: until the activation is what it should be. It always refuses where it
 * does not manage the device, as without an address; there is a detour then, by an interface that
 * no packet leaves by. */
static void reapply(EcService *s)
{
	ec_svc_call_nm(&s->reapply, EC_SVC_NM_PATH, EC_SVC_NM, "GetDeviceByIpIface", on_device, s,
			"s", s->cord.interface);
}

void ec_svc_on_gateway(EcService *s)
{
	if (s->phase != EC_SVC_PHASE_GATEWAY)
		return;
	s->phase = EC_SVC_PHASE_STARTED;
	s->ifindex = s->cord.ifindex;
	ec_svc_plugin_config(s, s->cord.interface);
	ec_svc_plugin_state(s, EC_SVC_STATE_STARTED);
	s->reapplied = 0;
	if (s->was_started)
		reapply(s);
	s->was_started = true;
	g_clear_pointer(&s->told, g_free);
	ec_svc_tell(s, LOG_INFO, "up, by interface %s", s->cord.interface);
	/* What it became while NetworkManager was busy. */
	ec_svc_on_cord(s);
}

void ec_svc_done(EcService *s)
{
	clear_parts(s);
	ec_svc_cord_done(&s->cord);
	(void)ec_svc_connection_free(s->connection);
	for (size_t i = 0; i < EC_ELEMENTS(s->slots); i++)
		(void)sd_bus_slot_unref(s->slots[i]);
	g_free(s->active);
	g_free(s->told);
}
