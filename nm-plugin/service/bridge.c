/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "svc.h"

#include <errno.h>
#include <string.h>

/*
 * DOC: Theory of operation
 *
 * A bridge that NetworkManager has, or would make by one of its profiles, is brought up before the
 * tunnel is made: the daemon needs it, and NetworkManager puts only that into it which it knows.
 * It is up for us as soon as it takes ports. One that waits for DHCP may wait for what comes
 * through the tunnel. Of several profiles it is the one that NetworkManager itself would take.
 *
 * Somebody else may bring it up at the same time, as another tunnel: whoever comes last ends the
 * activation of the first. So one that is under way is waited for, and one that was ended may go on
 * as another's for REPLACED_USEC.
 *
 * A bridge that NetworkManager does not have, or leaves alone, is the daemon's business.
 */

#define WAIT_USEC 10000000ULL
#define LOOK_USEC (20 * 1000ULL)
#define REPLACED_USEC 500000ULL

static const char *name_of(const EcSvcBridge *b)
{
	return b->service->connection->profile->settings->bridge;
}

static void finish(EcSvcBridge *b, bool managed)
{
	ec_svc_call_done(&b->call);
	b->retry = sd_event_source_disable_unref(b->retry);
	b->managed = managed;
	ec_svc_on_bridge(b->service);
}

static void look(EcSvcBridge *b);

static int on_time(sd_event_source *source, uint64_t usec, void *userdata)
{
	look(userdata);
	return 0;
}

static void look_again(EcSvcBridge *b)
{
	b->retry = sd_event_source_disable_unref(b->retry);
	(void)sd_event_add_time_relative(
			b->service->event, &b->retry, CLOCK_MONOTONIC, LOOK_USEC, 0, on_time, b);
}

static void wait_on(EcSvcBridge *b)
{
	if ((uint64_t)g_get_monotonic_time() > b->deadline)
		ec_svc_fail(b->service, EC_SVC_FAILURE_CONNECT,
				"NetworkManager could not bring up bridge %s; see: nmcli device status",
				name_of(b));
	else
		look_again(b);
}

/* What came of the profile that was activated. */
static int on_active(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	static const EcSvcProperty table[] = { { "State", "u", 0 }, { NULL } };
	EcSvcBridge *b = userdata;
	uint32_t state = EC_SVC_ACTIVE_DEACTIVATED;

	if (!sd_bus_message_is_method_error(reply, NULL))
		(void)ec_svc_read_properties(reply, table, &state);
	if (state == EC_SVC_ACTIVE_DEACTIVATED && !b->ended) {
		b->ended = true;
		b->deadline = (uint64_t)g_get_monotonic_time() + REPLACED_USEC;
	}
	wait_on(b);
	return 0;
}

static int on_activated(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	EcSvcBridge *b = userdata;
	const char *active;

	ec_svc_call_done(&b->call);
	if (sd_bus_message_is_method_error(reply, NULL)) {
		ec_svc_fail(b->service, EC_SVC_FAILURE_CONNECT,
				"NetworkManager could not bring up bridge %s: %s", name_of(b),
				sd_bus_message_get_error(reply)->message);
		return 0;
	}
	int r = sd_bus_message_read(reply, "o", &active);
	if (r < 0)
		return r;
	g_free(b->active);
	b->active = g_strdup(active);
	look(b);
	return 0;
}

typedef struct Profile {
	char *type, *interface;
	int autoconnect;
	int32_t priority;
	uint64_t timestamp;
} Profile;

static bool is_better(const EcSvcBridge *b, const Profile *p)
{
	if (!b->profile || b->autoconnect != p->autoconnect)
		return !b->profile || p->autoconnect;
	if (b->priority != p->priority)
		return p->priority > b->priority;
	return p->timestamp > b->timestamp;
}

static void look_at_profile(EcSvcBridge *b);

static int on_profile(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	static const EcSvcProperty table[] = {
		{ "type", "s", offsetof(Profile, type) },
		{ "interface-name", "s", offsetof(Profile, interface) },
		{ "autoconnect", "b", offsetof(Profile, autoconnect) },
		{ "autoconnect-priority", "i", offsetof(Profile, priority) },
		{ "timestamp", "t", offsetof(Profile, timestamp) },
		{ NULL },
	};
	EcSvcBridge *b = userdata;
	Profile p = { .autoconnect = true };
	const char *path = b->profiles->pdata[b->profiles->len - 1];

	if (!sd_bus_message_is_method_error(reply, NULL) &&
			ec_svc_enter_setting(reply, "connection") > 0)
		(void)ec_svc_read_properties(reply, table, &p);
	bool found = g_strcmp0(p.type, "bridge") == 0 && g_strcmp0(p.interface, name_of(b)) == 0;
	g_free(p.type);
	g_free(p.interface);
	if (found && is_better(b, &p)) {
		g_free(b->profile);
		b->profile = g_strdup(path);
		b->autoconnect = p.autoconnect;
		b->priority = p.priority;
		b->timestamp = p.timestamp;
	}
	g_ptr_array_set_size(b->profiles, (int)b->profiles->len - 1);
	look_at_profile(b);
	return 0;
}

static void look_at_profile(EcSvcBridge *b)
{
	ec_svc_call_done(&b->call);
	if (b->profiles->len > 0)
		ec_svc_call_nm(&b->call, b->profiles->pdata[b->profiles->len - 1],
				EC_SVC_NM ".Settings.Connection", "GetSettings", on_profile, b, "");
	else if (b->profile)
		look(b); /* it may have come up meanwhile */
	else
		finish(b, false);
}

static int on_profiles(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	EcSvcBridge *b = userdata;
	char **paths = NULL;

	if (!sd_bus_message_is_method_error(reply, NULL))
		(void)sd_bus_message_read_strv(reply, &paths);
	b->profiles = g_ptr_array_new_with_free_func(g_free);
	for (char **p = paths; p && *p; p++)
		g_ptr_array_add(b->profiles, g_strdup(*p));
	g_strfreev(paths);
	look_at_profile(b);
	return 0;
}

/* It is not up by itself: one of the profiles may make it so. */
static void find_profile(EcSvcBridge *b)
{
	ec_svc_call_nm(&b->call, EC_SVC_NM_PATH "/Settings", EC_SVC_NM ".Settings",
			"ListConnections", on_profiles, b, "");
}

static void not_yet(EcSvcBridge *b)
{
	if (b->active)
		ec_svc_call_get_all(&b->call, EC_SVC_NM, b->active, EC_SVC_NM_ACTIVE, on_active, b);
	else if (b->profile)
		ec_svc_call_nm(&b->call, EC_SVC_NM_PATH, EC_SVC_NM, "ActivateConnection",
				on_activated, b, "ooo", b->profile, "/", "/");
	else
		find_profile(b);
}

static int on_device(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	static const EcSvcProperty table[] = { { "State", "u", 0 }, { NULL } };
	EcSvcBridge *b = userdata;
	uint32_t state = 0;

	if (!sd_bus_message_is_method_error(reply, NULL))
		(void)ec_svc_read_properties(reply, table, &state);
	if (state >= EC_SVC_DEVICE_IP_CONFIG && state <= EC_SVC_DEVICE_ACTIVATED)
		finish(b, true);
	else if (state >= EC_SVC_DEVICE_PREPARE && state < EC_SVC_DEVICE_IP_CONFIG)
		wait_on(b);
	else
		not_yet(b);
	return 0;
}

static int on_path(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	EcSvcBridge *b = userdata;
	const char *path;

	if (sd_bus_message_is_method_error(reply, NULL) ||
			sd_bus_message_read(reply, "o", &path) < 0)
		not_yet(b);
	else
		ec_svc_call_get_all(&b->call, EC_SVC_NM, path, EC_SVC_NM_DEVICE, on_device, b);
	return 0;
}

static void look(EcSvcBridge *b)
{
	ec_svc_call_nm(&b->call, EC_SVC_NM_PATH, EC_SVC_NM, "GetDeviceByIpIface", on_path, b, "s",
			name_of(b));
}

void ec_svc_bridge_start(EcSvcBridge *b, EcService *s)
{
	ec_svc_bridge_done(b);
	b->service = s;
	b->call.bus = s->bus;
	b->deadline = (uint64_t)g_get_monotonic_time() + WAIT_USEC;
	look(b);
}

void ec_svc_bridge_done(EcSvcBridge *b)
{
	ec_svc_call_done(&b->call);
	(void)sd_event_source_disable_unref(b->retry);
	if (b->profiles)
		g_ptr_array_unref(b->profiles);
	g_free(b->profile);
	g_free(b->active);
	*b = (EcSvcBridge){ 0 };
}
