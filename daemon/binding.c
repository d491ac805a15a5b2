/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "binding.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "log.h"
#include "manager.h"
#include "nm-profiles.h"

/*
 * DOC: Theory of operation
 *
 * NetworkManager's profiles are brought up by a program that NetworkManager starts for each and
 * that can be killed, or left behind, at any time. The tunnel must neither stay for ever nor go at
 * once: that program may be started anew by NetworkManager or by a person, and the frames go on
 * meanwhile. So a bound tunnel whose holder left the bus without Remove() is removed after a grace,
 * unless an AddTunnel of the same name and profile adopts it. Whom it was adopted from has no say
 * any more: what that program was told to take away is not what is there now.
 *
 * The grace is profile-grace of ethercord.conf (5 s). While NetworkManager itself is not there it
 * is 12 times as long (60 s), and when NetworkManager is back, 3 times from then (15 s), since it
 * has its devices to bring up first. After a start of the daemon nobody holds anything.
 *
 * Holders that went with NetworkManager (whose it was to end them) did not give their tunnels up:
 * when it is back it is asked to bring those connections up again, also when that takes it longer
 * than the grace. See nm-profiles.c.
 *
 * Deadlines are computed from what happened and never added up: any event leads to rearm().
 */

#define NETWORKMANAGER "org.freedesktop.NetworkManager"
#define BUS "org.freedesktop.DBus"
#define BUS_PATH "/org/freedesktop/DBus"
#define AWAY 12 /* graces */
#define BACK 3

struct EcBindings {
	EcManager *manager;
	bool present;       /* NetworkManager is on the bus */
	uint64_t back_usec; /* when it came; 0: before us */
	sd_bus_slot *match, *reply;
	EcNmProfiles *profiles; /* NULL without a bus */
};

struct EcBinding {
	EcBindings *all;
	EcTunnel *tunnel;
	char *holder;       /* unique name; NULL: nobody */
	GHashTable *former; /* those that it was adopted from while they were there */
	uint64_t held_usec; /* since when; 0: not since our start */
	uint64_t left_usec; /* when the last one left */
	bool lost;          /* it went with NetworkManager: to be brought up again */
	sd_bus_slot *match, *reply;
	sd_event_source *timer; /* runs out when the tunnel is to go */
};

static uint64_t now_usec(const EcBindings *b)
{
	uint64_t usec = 0;

	(void)sd_event_now(b->manager->event, CLOCK_MONOTONIC, &usec);
	return usec;
}

/* Grace */

static uint64_t deadline(const EcBinding *binding)
{
	const EcBindings *b = binding->all;
	uint64_t grace = b->manager->config.profile_grace * 1000000ULL;

	if (!b->present)
		return binding->left_usec + AWAY * grace;
	uint64_t at = binding->left_usec + grace;
	return b->back_usec ? MAX(at, b->back_usec + BACK * grace) : at;
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcBinding *binding = userdata;
	EcTunnel *t = binding->tunnel;

	ec_log_tunnel(LOG_NOTICE, t,
			"removed: what brought it up for NetworkManager is gone and "
			"nobody brought it up again");
	/* NetworkManager may have what it rides on up later than this. */
	binding->lost = false;
	/* Frees the binding as well. */
	if (ec_manager_remove(binding->all->manager, t, &error) < 0)
		ec_log_tunnel(LOG_WARNING, t, "cannot be removed: %s", error.message);
	return 0;
}

static void rearm(EcBinding *binding)
{
	binding->timer = sd_event_source_disable_unref(binding->timer);
	if (!binding->holder)
		(void)sd_event_add_time(binding->all->manager->event, &binding->timer,
				CLOCK_MONOTONIC, deadline(binding), 1, on_timer, binding);
}

/* Holders */

/* As soon as NetworkManager is there. */
static void restore(EcBinding *binding)
{
	if (!binding->holder && binding->lost && binding->all->present)
		ec_nm_profiles_restore(binding->all->profiles, binding->tunnel->settings->profile);
}

static void let_go(EcBinding *binding)
{
	EcBindings *b = binding->all;

	binding->match = sd_bus_slot_unref(binding->match);
	binding->reply = sd_bus_slot_unref(binding->reply);
	g_clear_pointer(&binding->holder, g_free);
	binding->left_usec = now_usec(b);
	binding->lost = !b->present || b->back_usec > binding->held_usec;
	rearm(binding);
	ec_log_tunnel(LOG_NOTICE, binding->tunnel,
			"what brought it up for NetworkManager is gone; kept for %" G_GUINT64_FORMAT
			" s in case it comes back",
			(deadline(binding) - binding->left_usec) / 1000000);
	restore(binding);
}

static int on_left(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	const char *name, *before, *now;

	if (sd_bus_message_read(m, "sss", &name, &before, &now) >= 0 && !*now)
		let_go(userdata);
	return 0;
}

/* It may have left before the match was in place. */
static int on_still_there(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	EcBinding *binding = userdata;

	if (sd_bus_message_get_error(m))
		let_go(binding);
	else
		binding->reply = sd_bus_slot_unref(binding->reply);
	return 0;
}

static int watch_name(sd_bus *bus, const char *name, sd_bus_slot **match,
		sd_bus_message_handler_t on_change, sd_bus_slot **reply,
		sd_bus_message_handler_t on_reply, void *userdata)
{
	g_autofree char *rule =
			g_strdup_printf("type='signal',sender='" BUS "',path='" BUS_PATH
					"',interface='" BUS "',member='NameOwnerChanged',arg0='%s'",
					name);
	int r = sd_bus_add_match_async(bus, match, rule, on_change, NULL, userdata);

	return r < 0 ? r
		     : sd_bus_call_method_async(bus, reply, BUS, BUS_PATH, BUS, "GetNameOwner",
				       on_reply, userdata, "s", name);
}

static EcBinding *bind_tunnel(EcBindings *b, EcTunnel *t)
{
	if (!t->binding) {
		t->binding = g_new0(EcBinding, 1);
		t->binding->all = b;
		t->binding->tunnel = t;
		t->binding->former = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
		t->binding->left_usec = now_usec(b);
	}
	return t->binding;
}

static void hold(EcBindings *b, EcTunnel *t, const char *caller)
{
	EcBinding *binding = bind_tunnel(b, t);

	if (g_strcmp0(binding->holder, caller) == 0)
		return;
	binding->match = sd_bus_slot_unref(binding->match);
	binding->reply = sd_bus_slot_unref(binding->reply);
	if (binding->holder)
		(void)g_hash_table_add(binding->former, g_steal_pointer(&binding->holder));
	(void)g_hash_table_remove(binding->former, caller);
	binding->holder = g_strdup(caller);
	binding->held_usec = now_usec(b);
	rearm(binding);
	ec_nm_profiles_give_up(b->profiles, t->settings->profile);
	if (watch_name(b->manager->bus, caller, &binding->match, on_left, &binding->reply,
			    on_still_there, binding) < 0)
		let_go(binding);
}

EcBinding *ec_binding_free(EcBinding *binding)
{
	if (!binding)
		return NULL;
	if (binding->lost)
		ec_nm_profiles_give_up(binding->all->profiles, binding->tunnel->settings->profile);
	(void)sd_bus_slot_unref(binding->match);
	(void)sd_bus_slot_unref(binding->reply);
	(void)sd_event_source_disable_unref(binding->timer);
	g_hash_table_unref(binding->former);
	g_free(binding->holder);
	g_free(binding);
	return NULL;
}

/* Tunnels */

static bool is_bound(const EcTunnel *t)
{
	return t->settings->profile && t->origin == EC_ORIGIN_RUNTIME && !t->listener;
}

void ec_bindings_loaded(EcBindings *b)
{
	GHashTableIter i;
	EcTunnel *t;

	g_hash_table_iter_init(&i, b->manager->tunnels);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&t)) {
		if (is_bound(t) && !t->binding)
			rearm(bind_tunnel(b, t));
	}
}

int ec_binding_verify(const EcTunnel *t, const EcSettings *to, sd_bus_error *ret_error)
{
	if (t->origin == EC_ORIGIN_RUNTIME && g_strcmp0(t->settings->profile, to->profile) != 0)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"profile: a tunnel keeps its profile; remove it and add another "
				"one");
	return 0;
}

int ec_binding_verify_removal(const EcTunnel *t, const char *caller, sd_bus_error *ret_error)
{
	if (caller && t->binding && g_hash_table_contains(t->binding->former, caller))
		return ec_error(ret_error, EC_ERROR_BUSY,
				"tunnel %s was brought up anew by another program; leave it to that",
				ec_tunnel_name(t));
	return 0;
}

/* Whether the tunnel's key in the store is this one, or none was given. */
static bool has_key(const EcTunnel *t, const char *key)
{
	uint8_t stored[32];
	gsize n = 0;

	if (!key)
		return true;
	g_autofree guchar *given = g_base64_decode(key, &n);
	int r = ec_store_get_key(t->manager->store, ec_tunnel_name(t), stored);
	bool same = r > 0 && n == sizeof(stored) && memcmp(given, stored, n) == 0;
	explicit_bzero(stored, sizeof(stored));
	explicit_bzero(given, n);
	return same;
}

/* An update that changes nothing would have the ends talk anew: it is none. */
static int replace_settings(EcTunnel *t, EcSettings *settings, sd_bus_error *ret_error)
{
	EcManager *m = t->manager;

	if (has_key(t, settings->key) && ec_settings_equal(t->settings, settings, NULL)) {
		(void)ec_settings_free(settings);
		return 0;
	}
	return ec_manager_update(m, t, settings, true, ret_error);
}

int ec_bindings_add(EcBindings *b, EcSettings *settings, EcOrigin origin, bool activate,
		const char *caller, EcTunnel **ret, sd_bus_error *ret_error)
{
	EcTunnel *t = settings->name ? ec_manager_find(b->manager, settings->name) : NULL;
	bool adopt = t && settings->profile && t->origin == origin && !t->listener &&
		     g_strcmp0(t->settings->profile, settings->profile) == 0;
	int r = adopt ? replace_settings(t, settings, ret_error)
		      : ec_manager_add(b->manager, settings, origin, activate, &t, ret_error);

	if (r < 0)
		return r;
	if (is_bound(t))
		hold(b, t, caller);
	*ret = t;
	return adopt && activate ? ec_tunnel_activate(t, ret_error) : 0;
}

/* NetworkManager */

static void look_at_all(EcBindings *b)
{
	GHashTableIter i;
	EcTunnel *t;

	g_hash_table_iter_init(&i, b->manager->tunnels);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&t)) {
		if (!t->binding)
			continue;
		if (!b->present && !t->binding->held_usec) /* both were replaced at once */
			t->binding->lost = true;
		rearm(t->binding);
		restore(t->binding);
	}
}

static int on_networkmanager(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	EcBindings *b = userdata;
	const char *name, *before, *now;

	if (sd_bus_message_read(m, "sss", &name, &before, &now) < 0)
		return 0;
	b->reply = sd_bus_slot_unref(b->reply);
	b->present = *now;
	if (b->present)
		b->back_usec = now_usec(b);
	ec_nm_profiles_owner(b->profiles, b->present ? now : NULL);
	look_at_all(b);
	return 0;
}

static int on_networkmanager_is(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	EcBindings *b = userdata;
	const char *owner = NULL;

	b->reply = sd_bus_slot_unref(b->reply);
	b->present = !sd_bus_message_get_error(m) && sd_bus_message_read(m, "s", &owner) >= 0;
	ec_nm_profiles_owner(b->profiles, b->present ? owner : NULL);
	look_at_all(b);
	return 0;
}

int ec_bindings_new(EcManager *m, EcBindings **ret)
{
	EcBindings *b = g_new0(EcBindings, 1);

	b->manager = m;
	*ret = b;
	if (!m->bus)
		return 0;
	b->profiles = ec_nm_profiles_new(m->bus, ec_store_runtime_dir(m->store));
	return watch_name(m->bus, NETWORKMANAGER, &b->match, on_networkmanager, &b->reply,
			on_networkmanager_is, b);
}

EcBindings *ec_bindings_free(EcBindings *b)
{
	if (!b)
		return NULL;
	(void)sd_bus_slot_unref(b->match);
	(void)sd_bus_slot_unref(b->reply);
	(void)ec_nm_profiles_free(b->profiles);
	g_free(b);
	return NULL;
}

bool ec_bindings_is_idle(const EcBindings *b)
{
	return !b->profiles || ec_nm_profiles_is_idle(b->profiles);
}
