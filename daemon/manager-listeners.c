/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>

#include "control-answer.h"
#include "manager.h"

/* The listeners' life, as manager.c does the tunnels'. */

static void free_listener(gpointer l)
{
	(void)ec_listener_free(l);
}

GHashTable *ec_manager_listeners_new(void)
{
	return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, free_listener);
}

EcListener *ec_manager_find_listener(EcManager *m, const char *name)
{
	return g_hash_table_lookup(m->listeners, name);
}

/* A key goes to the key store, and out of memory. */
static int store_key(EcManager *m, const char *listener, const char *peer, EcSettings *settings,
		sd_bus_error *ret_error)
{
	if (ec_settings_is_cleared(settings, ec_setting_find_in(settings->scope, "key")))
		ec_store_forget_listener_key(m->store, listener, peer);
	if (!settings->key)
		return 0;
	int r = ec_store_set_listener_key(m->store, listener, peer, settings->key, ret_error);
	return r < 0 ? r : ec_settings_parse(settings, "key", "", ret_error);
}

static int store_keys(
		EcManager *m, EcSettings *settings, GHashTable *peers, sd_bus_error *ret_error)
{
	int r = store_key(m, settings->name, NULL, settings, ret_error);
	GHashTableIter i;
	EcSettings *s;
	const char *peer;

	settings->cleared = 0; /* that was a word of the call, not of the listener */
	g_hash_table_iter_init(&i, peers);
	while (r >= 0 && g_hash_table_iter_next(&i, (gpointer *)&peer, (gpointer *)&s)) {
		r = store_key(m, settings->name, peer, s, ret_error);
		s->cleared = 0;
	}
	return r;
}

static int check_new(EcManager *m, const EcSettings *settings, GHashTable *peers,
		sd_bus_error *ret_error)
{
	int r = ec_settings_verify_peers(settings, peers, ret_error);

	if (r < 0)
		return r;
	if (ec_manager_find_listener(m, settings->name))
		return ec_error(ret_error, EC_ERROR_EXISTS, "there is a listener %s already",
				settings->name);
	if (ec_manager_find(m, settings->name))
		return ec_error(ret_error, EC_ERROR_EXISTS,
				"there is a tunnel %s already; a listener needs a name of its own",
				settings->name);
	if (g_hash_table_size(m->listeners) >= m->config.max_tunnels)
		return ec_error(ret_error, EC_ERROR_LIMIT_EXCEEDED,
				"there are %u listeners, as many as max-tunnels in ethercord.conf "
				"allows",
				g_hash_table_size(m->listeners));
	return 0;
}

static int insert(EcManager *m, EcSettings *settings, GHashTable *peers, EcOrigin origin,
		EcListener **ret, sd_bus_error *ret_error)
{
	int r = check_new(m, settings, peers, ret_error);

	if (r >= 0)
		r = store_keys(m, settings, peers, ret_error);
	if (r < 0) {
		(void)ec_settings_free(settings);
		g_hash_table_unref(peers);
		return r;
	}
	*ret = ec_listener_new(m, settings, peers, origin);
	g_hash_table_insert(m->listeners, g_strdup(ec_listener_name(*ret)), *ret);
	return 0;
}

static void announce(EcManager *m, EcListener *l)
{
	l->announced = true;
	l->changed = 0;
	if (m->observer.listener_added)
		m->observer.listener_added(l, m->observer.userdata);
}

int ec_manager_load_listener(EcManager *m, EcSettings *settings, GHashTable *peers, EcOrigin origin,
		EcListener **ret, sd_bus_error *ret_error)
{
	int r = insert(m, settings, peers, origin, ret, ret_error);

	if (r >= 0)
		announce(m, *ret);
	return r;
}

int ec_manager_add_listener(EcManager *m, EcSettings *settings, GHashTable *peers, EcOrigin origin,
		bool activate, EcListener **ret, sd_bus_error *ret_error)
{
	EcListener *l;
	int r = insert(m, settings, peers, origin, &l, ret_error);

	if (r < 0)
		return r;
	r = ec_store_save_listener(m->store, l->settings, l->peers, origin, ret_error);
	bool saved = r >= 0;
	if (r >= 0 && activate)
		r = ec_listener_activate(l, ret_error);
	else if (r >= 0)
		ec_listener_deactivate(l); /* notes that it is not wanted */
	if (r < 0) {
		ec_listener_ask(l, false);
		ec_answer_refresh(m->answer);
		if (saved)
			(void)ec_store_remove_listener(m->store, ec_listener_name(l), origin, NULL);
		g_hash_table_remove(m->listeners, ec_listener_name(l));
		return r;
	}
	announce(m, l);
	*ret = l;
	return 0;
}

static int save_update(EcListener *l, sd_bus_error *ret_error)
{
	/* A package's file is overridden, not written. */
	EcOrigin origin = l->origin == EC_ORIGIN_VENDOR ? EC_ORIGIN_CONFIG : l->origin;
	int r = ec_store_save_listener(l->manager->store, l->settings, l->peers, origin, ret_error);

	if (r >= 0 && l->origin != origin) {
		l->origin = origin;
		ec_listener_touch(l, EC_LISTENER_PERSISTENT);
	}
	return r;
}

/* Puts these in the place of those in force, which the caller gets. */
static void exchange(EcListener *l, EcSettings **settings, GHashTable **peers)
{
	EcSettings *old = l->settings;
	GHashTable *old_peers = l->peers;

	l->settings = *settings;
	l->peers = *peers;
	*settings = old;
	*peers = old_peers;
}

/* A running one that cannot open its new port takes the old one again. */
static int try_settings(EcListener *l, sd_bus_error *ret_error)
{
	bool was_up = l->state == EC_LISTENER_UP;
	int r;

	if (!l->asked) {
		ec_listener_deactivate(l); /* notes it: autostart may be another */
		return 0;
	}
	r = ec_listener_activate(l, ret_error);
	return was_up ? r : 0;
}

static void forget_keys(EcManager *m, const EcListener *l, GHashTable *old_peers)
{
	GHashTableIter i;
	const char *peer;

	g_hash_table_iter_init(&i, old_peers);
	while (g_hash_table_iter_next(&i, (gpointer *)&peer, NULL)) {
		if (!g_hash_table_contains(l->peers, peer))
			ec_store_forget_listener_key(m->store, ec_listener_name(l), peer);
	}
}

int ec_manager_update_listener(EcManager *m, EcListener *l, EcSettings *settings, GHashTable *peers,
		bool save, sd_bus_error *ret_error)
{
	bool asked = l->asked;
	int r = ec_settings_verify_peers(settings, peers, ret_error);

	if (r >= 0 && !g_str_equal(settings->name, ec_listener_name(l)))
		r = ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"name: a listener keeps its name; add another one");
	if (r >= 0)
		r = store_keys(m, settings, peers, ret_error);
	if (r >= 0) {
		exchange(l, &settings, &peers);
		r = try_settings(l, ret_error);
		if (r >= 0 && save)
			r = save_update(l, ret_error);
		if (r >= 0) {
			forget_keys(m, l, peers);
			ec_listener_touch(l, EC_LISTENER_SETTINGS);
		} else {
			exchange(l, &settings, &peers);
			if (asked)
				(void)ec_listener_activate(l, NULL);
		}
	}
	(void)ec_settings_free(settings);
	g_hash_table_unref(peers);
	ec_listener_signal(l);
	return r;
}

int ec_manager_remove_listener(EcManager *m, EcListener *l, sd_bus_error *ret_error)
{
	int r = ec_store_remove_listener(m->store, ec_listener_name(l), l->origin, ret_error);

	if (r < 0)
		return r;
	ec_listener_ask(l, false);
	ec_answer_refresh(m->answer);
	if (l->announced && m->observer.listener_removed)
		m->observer.listener_removed(l, m->observer.userdata);
	l->announced = false;
	g_hash_table_remove(m->listeners, ec_listener_name(l));
	return 0;
}
