/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <string.h>

#include "control-answer.h"
#include "log.h"
#include "manager.h"
#include "tunnel-worker.h"

/* Start and reload: what the keyfiles say becomes tunnels and listeners. */

typedef struct Load {
	EcManager *m;
	GHashTable *seen; /* names of tunnels that have a file, broken or not */
	GHashTable *seen_listeners;
	sd_bus_error *first;
	bool starting;
} Load;

static bool same_settings(const EcSettings *a, const EcSettings *b)
{
	return ec_settings_equal(a, b, NULL) && a->given == b->given;
}

static void report(Load *l, const sd_bus_error *error)
{
	ec_log(LOG_ERR, "%s", error->message);
	if (l->first && !sd_bus_error_is_set(l->first))
		(void)sd_bus_error_copy(l->first, error);
}

static bool wants_up(EcManager *m, const EcSettings *settings)
{
	EcRecord record = ec_store_get_record(m->store, settings->name);

	return record.known ? record.wanted : settings->autostart;
}

/* At the start nothing is activated yet: the sweep has to find the interfaces first. */
static void load_new(Load *l, EcSettings *settings, EcOrigin origin, sd_bus_error *ret_error)
{
	EcManager *m = l->m;
	bool up = wants_up(m, settings);
	EcRecord record = ec_store_get_record(m->store, settings->name);
	EcTunnel *t;

	if (ec_manager_load(m, settings, origin, &t, ret_error) < 0)
		return;
	t->attached = record.attached;
	if (l->starting)
		t->wanted = up;
	else if (up)
		(void)ec_tunnel_activate(t, ret_error);
}

static void on_tunnel(EcSettings *settings, EcOrigin origin, void *userdata)
{
	Load *l = userdata;
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcTunnel *t = ec_manager_find(l->m, settings->name);

	g_hash_table_add(l->seen, g_strdup(settings->name));
	if (!t) {
		load_new(l, settings, origin, &error);
	} else if (same_settings(t->settings, settings)) {
		(void)ec_settings_free(settings);
	} else {
		(void)ec_manager_update(l->m, t, settings, false, &error);
	}
	if (t && t->origin != origin) {
		t->origin = origin;
		ec_tunnel_touch(t, EC_PROPERTY_PERSISTENT);
		ec_tunnel_refresh(t);
	}
	if (sd_bus_error_is_set(&error))
		report(l, &error);
}

static void report_broken(Load *l, const char *sentence)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;

	/* Not a constant one, whose copies would keep pointing at the sentence. */
	(void)ec_error(&error, EC_ERROR_INVALID_SETTING, "%s", sentence);
	report(l, &error);
}

static void on_broken(const char *name, const char *sentence, void *userdata)
{
	Load *l = userdata;

	g_hash_table_add(l->seen, g_strdup(name));
	report_broken(l, sentence);
}

/* Listeners */

static bool same_peers(GHashTable *a, GHashTable *b)
{
	GHashTableIter i;
	const char *name;
	const EcSettings *s;

	if (g_hash_table_size(a) != g_hash_table_size(b))
		return false;
	g_hash_table_iter_init(&i, a);
	while (g_hash_table_iter_next(&i, (gpointer *)&name, (gpointer *)&s)) {
		const EcSettings *other = g_hash_table_lookup(b, name);

		if (!other || !same_settings(s, other))
			return false;
	}
	return true;
}

/* The ports of all are opened together, after the last file. */
static void load_listener(Load *l, EcSettings *settings, GHashTable *peers, EcOrigin origin,
		sd_bus_error *ret_error)
{
	g_autofree char *name = ec_store_listener_record(settings->name);
	EcRecord known = ec_store_get_record(l->m->store, name);
	bool up = known.known ? known.wanted : settings->autostart;
	EcListener *new;

	if (ec_manager_load_listener(l->m, settings, peers, origin, &new, ret_error) >= 0)
		ec_listener_ask(new, up);
}

static void on_listener(EcSettings *settings, GHashTable *peers, EcOrigin origin, void *userdata)
{
	Load *l = userdata;
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcListener *known = ec_manager_find_listener(l->m, settings->name);

	g_hash_table_add(l->seen_listeners, g_strdup(settings->name));
	if (!known) {
		load_listener(l, settings, peers, origin, &error);
	} else if (same_settings(known->settings, settings) && same_peers(known->peers, peers)) {
		(void)ec_settings_free(settings);
		g_hash_table_unref(peers);
	} else {
		(void)ec_manager_update_listener(l->m, known, settings, peers, false, &error);
	}
	if (known && known->origin != origin) {
		known->origin = origin;
		ec_listener_touch(known, EC_LISTENER_PERSISTENT);
	}
	if (sd_bus_error_is_set(&error))
		report(l, &error);
}

static void on_broken_listener(const char *name, const char *sentence, void *userdata)
{
	Load *l = userdata;

	g_hash_table_add(l->seen_listeners, g_strdup(name));
	report_broken(l, sentence);
}

static void read_files(Load *l)
{
	const EcStoreReader reader = { .tunnel = on_tunnel, .broken = on_broken, .userdata = l };
	const EcStoreListenerReader listeners = {
		.listener = on_listener, .broken = on_broken_listener, .userdata = l
	};

	ec_store_read_tunnels(l->m->store, &reader);
	ec_store_read_listeners(l->m->store, &listeners);
}

/* What a crash left of tunnels and listeners that are no more. */
static void forget_records(Load *l)
{
	GHashTableIter i;
	const char *name;

	g_hash_table_iter_init(&i, l->seen_listeners);
	while (g_hash_table_iter_next(&i, (gpointer *)&name, NULL))
		g_hash_table_add(l->seen, ec_store_listener_record(name));
	ec_store_forget_records(l->m->store, l->seen);
}

/* Fences of tunnels that nobody wants any more go with the interfaces that the sweep dooms. */
static void retain_fences(EcManager *m)
{
	g_autoptr(GHashTable) wanted = g_hash_table_new(g_str_hash, g_str_equal);
	GHashTableIter i;
	EcTunnel *t;

	g_hash_table_iter_init(&i, m->tunnels);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&t)) {
		if (t->wanted)
			g_hash_table_add(wanted, (gpointer)ec_tunnel_name(t));
	}
	ec_guard_retain(m->guard, wanted);
	ec_manager_flush_later(m);
}

static GHashTable *new_names(void)
{
	return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
}

void ec_manager_start(EcManager *m)
{
	g_autoptr(GHashTable) seen = new_names(), listeners = new_names();
	Load l = { .m = m, .seen = seen, .seen_listeners = listeners, .starting = true };
	GHashTableIter i;
	EcTunnel *t;

	ec_underlays_rescan(m->underlays);
	read_files(&l);
	forget_records(&l);
	ec_answer_restore(m->answer);
	ec_manager_sweep(m);
	retain_fences(m);
	g_hash_table_iter_init(&i, m->tunnels);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&t))
		ec_tunnel_refresh(t);
	ec_bindings_loaded(m->bindings);
	ec_tunnel_worker_sweep(m); /* of those that the kernel carries now */
	ec_fou_sweep(ec_kernel_fou(m->kernel));
	ec_answer_refresh(m->answer);
}

static void remove_gone_listeners(Load *l)
{
	g_autoptr(GPtrArray) gone = g_ptr_array_new();
	GHashTableIter i;
	EcListener *known;

	g_hash_table_iter_init(&i, l->m->listeners);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&known)) {
		if (!g_hash_table_contains(l->seen_listeners, ec_listener_name(known)))
			g_ptr_array_add(gone, known);
	}
	for (guint n = 0; n < gone->len; n++)
		(void)ec_manager_remove_listener(l->m, g_ptr_array_index(gone, n), NULL);
}

int ec_manager_reload(EcManager *m, sd_bus_error *ret_error)
{
	g_autoptr(GHashTable) seen = new_names(), listeners = new_names();
	g_autoptr(GPtrArray) gone = g_ptr_array_new();
	g_auto(sd_bus_error) first = SD_BUS_ERROR_NULL;
	Load l = { .m = m, .seen = seen, .seen_listeners = listeners, .first = &first };
	GHashTableIter i;
	EcTunnel *t;

	read_files(&l);
	remove_gone_listeners(&l);
	ec_answer_refresh(m->answer);
	g_hash_table_iter_init(&i, m->tunnels);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&t)) {
		/* An accepted one has no file. */
		if (!t->listener && !g_hash_table_contains(seen, ec_tunnel_name(t)))
			g_ptr_array_add(gone, t);
	}
	for (guint n = 0; n < gone->len; n++)
		(void)ec_manager_remove(m, g_ptr_array_index(gone, n), NULL);
	ec_bindings_loaded(m->bindings);
	if (!sd_bus_error_is_set(&first))
		return 0;
	int r = -sd_bus_error_get_errno(&first);
	(void)sd_bus_error_move(ret_error, &first);
	return r;
}
