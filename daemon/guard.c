/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "guard.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "guard-layer.h"
#include "log.h"

/*
 * DOC: Theory of operation
 *
 * Each layer renders a fence to items and counts how many tunnels want each. Arming takes the new
 * items before it gives back the old ones, in one step per layer, so that a fence that changes
 * never opens; what two tunnels share goes with the last of them.
 *
 * A layer that fails leaves the tunnel to the others. Only if none holds is the call refused, and
 * then nothing changed. The next call tries the missing layers again.
 *
 * The spec is on disk before the kernel is touched and its file goes after the items are gone:
 * after a crash at any point the next daemon knows at least what the kernel may hold.
 *
 * When the interface is gone nothing takes what the peer still sends, and the kernel answers it
 * with an ICMP error that quotes it. A tunnel is often removed because its VPN goes, and then that
 * answer finds another way. So the fence of ICMP errors to the peer outlives the others for a few
 * seconds.
 */

#define AFTER_USEC (10 * 1000000ULL)

typedef struct Fence {
	EcGuardSpec spec;
	GArray *items[EC_GUARD_LAYERS]; /* what it holds on each shelf */
	unsigned layers;                /* EcGuardLayers that took the present spec */
	bool doomed;
	uint64_t ends; /* CLOCK_MONOTONIC; its tunnel is gone, errors alone are fenced until then */
} Fence;

static const EcGuardLayer *const layers[EC_GUARD_LAYERS] = { &ec_guard_layer_nftables,
	&ec_guard_layer_route, &ec_guard_layer_xfrm };

static GArray *new_items(void)
{
	return g_array_new(FALSE, TRUE, sizeof(EcGuardItem));
}

static Fence *fence_new(void)
{
	Fence *f = g_new0(Fence, 1);

	for (size_t i = 0; i < EC_GUARD_LAYERS; i++)
		f->items[i] = new_items();
	return f;
}

static void fence_free(void *p)
{
	Fence *f = p;

	for (size_t i = 0; i < EC_GUARD_LAYERS; i++)
		g_array_unref(f->items[i]);
	g_free(f);
}

/* Items */

EcGuardItem ec_guard_item(uint8_t type, const EcAddress *peer)
{
	EcGuardItem item = { .type = type, .family = (uint8_t)peer->family };

	memcpy(item.peer, peer->bytes, ec_address_size(peer));
	return item;
}

EcAddress ec_guard_item_address(const EcGuardItem *item, const uint8_t bytes[static 16])
{
	static const uint8_t none[16];
	EcAddress a = { .family = item->family };

	if (memcmp(bytes, none, sizeof(none)) == 0)
		return (EcAddress){ .family = AF_UNSPEC };
	memcpy(a.bytes, bytes, ec_address_size(&a));
	return a;
}

static guint item_hash(gconstpointer p)
{
	const uint8_t *bytes = p;
	guint hash = 2166136261u;

	for (size_t i = 0; i < sizeof(EcGuardItem); i++)
		hash = (hash ^ bytes[i]) * 16777619u;
	return hash;
}

static gboolean item_equal(gconstpointer a, gconstpointer b)
{
	return memcmp(a, b, sizeof(EcGuardItem)) == 0;
}

GHashTable *ec_guard_item_set(void)
{
	return g_hash_table_new_full(item_hash, item_equal, g_free, NULL);
}

/* Shelves */

void ec_guard_shelf_init(EcGuardShelf *s, const EcGuardLayer *layer, EcGuard *g)
{
	s->layer = layer;
	s->guard = g;
	s->items = ec_guard_item_set();
	s->why = g_strdup("");
}

void ec_guard_shelf_done(EcGuardShelf *s)
{
	if (s->layer->done)
		s->layer->done(s);
	g_hash_table_unref(s->items);
	g_free(s->why);
}

static void take(EcGuardShelf *s, const GArray *items, GPtrArray *gained)
{
	for (guint i = 0; items && i < items->len; i++) {
		const EcGuardItem *item = &g_array_index(items, EcGuardItem, i);
		guint count = GPOINTER_TO_UINT(g_hash_table_lookup(s->items, item)) + 1;

		g_hash_table_replace(
				s->items, g_memdup2(item, sizeof(*item)), GUINT_TO_POINTER(count));
		if (count == 1)
			g_ptr_array_add(gained, g_memdup2(item, sizeof(*item)));
	}
}

static void give_back(EcGuardShelf *s, const GArray *items, GPtrArray *lost)
{
	for (guint i = 0; items && i < items->len; i++) {
		const EcGuardItem *item = &g_array_index(items, EcGuardItem, i);
		guint count = GPOINTER_TO_UINT(g_hash_table_lookup(s->items, item));

		if (count > 1) {
			g_hash_table_replace(s->items, g_memdup2(item, sizeof(*item)),
					GUINT_TO_POINTER(count - 1));
		} else if (count == 1) {
			(void)g_hash_table_remove(s->items, item);
			g_ptr_array_add(lost, g_memdup2(item, sizeof(*item)));
		}
	}
}

int ec_guard_shelf_move(
		EcGuardShelf *s, const GArray *gain, const GArray *lose, sd_bus_error *ret_error)
{
	g_autoptr(GPtrArray) gained = g_ptr_array_new_with_free_func(g_free);
	g_autoptr(GPtrArray) lost = g_ptr_array_new_with_free_func(g_free);
	g_autoptr(GPtrArray) undone = g_ptr_array_new_with_free_func(g_free);
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;

	take(s, gain, gained);
	give_back(s, lose, lost);
	if (gained->len == 0 && lost->len == 0 && s->holds)
		return 0;
	int r = s->layer->apply(s, gained, lost, &error);
	if (r < 0) {
		take(s, lose, undone);
		give_back(s, gain, undone);
		/* A layer that holds what it held before is not lost by this. */
		if (!s->holds)
			ec_guard_shelf_holds(s, &error);
		(void)sd_bus_error_move(ret_error, &error);
		return r;
	}
	ec_guard_shelf_holds(s, NULL);
	return 0;
}

void ec_guard_shelf_release(EcGuardShelf *s, const GArray *lose)
{
	g_autoptr(GPtrArray) gained = g_ptr_array_new_with_free_func(g_free);
	g_autoptr(GPtrArray) lost = g_ptr_array_new_with_free_func(g_free);
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;

	give_back(s, lose, lost);
	if (lost->len == 0)
		return;
	if (s->layer->apply(s, gained, lost, &error) < 0)
		ec_log(LOG_WARNING, "guard: what is left of a fence was not removed: %s: %s",
				s->layer->title, error.message);
}

static int on_change(sd_event_source *source, void *userdata)
{
	EcGuard *g = userdata;

	g->changed(g->userdata);
	return 0;
}

void ec_guard_shelf_holds(EcGuardShelf *s, const sd_bus_error *error)
{
	bool holds = !error;
	/* The first tunnel's layer is no news to anybody, but after a failure others lack it. */
	bool news = s->holds || *s->why;

	g_free(s->why);
	s->why = g_strdup(error && error->message ? error->message : "");
	if (s->holds == holds)
		return;
	s->holds = holds;
	if (news && s->guard->change)
		(void)sd_event_source_set_enabled(s->guard->change, SD_EVENT_ONESHOT);
}

static void on_touched(unsigned families, const char *who, void *userdata)
{
	EcGuard *g = userdata;

	if (families & EC_NFT_INET)
		ec_guard_nft_touched(&g->shelf[0], who);
	if (families & EC_NFT_BRIDGE)
		ec_guard_clamp_touched(g);
}

int ec_guard_nft(EcGuard *g, EcNft **ret, sd_bus_error *ret_error)
{
	int r = g->nft ? 0 : ec_nft_new(g->event, g->table, on_touched, g, &g->nft, ret_error);

	*ret = g->nft;
	return r;
}

void ec_guard_nft_release(EcGuard *g)
{
	if (g_hash_table_size(g->shelf[0].items) == 0 && g_hash_table_size(g->clamps) == 0)
		g->nft = ec_nft_free(g->nft);
}

/* Files */

static char *file_of(const EcGuard *g, const char *name)
{
	return g_build_filename(g->directory, name, NULL);
}

int ec_guard_write(
		const char *directory, const char *name, const char *data, sd_bus_error *ret_error)
{
	/* No tunnel has a dot before its name: what a crash leaves is known for what it is. */
	g_autofree char *hidden = g_strdup_printf("%s/.%s", directory, name);
	g_autofree char *path = g_build_filename(directory, name, NULL);
	g_autoptr(GError) error = NULL;

	if (g_mkdir_with_parents(directory, 0755) >= 0 &&
			g_file_set_contents(hidden, data, -1, &error) &&
			g_rename(hidden, path) >= 0)
		return 0;
	int r = error ? -EIO : -errno;
	(void)ec_error(ret_error, SD_BUS_ERROR_FAILED, "cannot write %s: %s", path,
			error ? error->message : g_strerror(-r));
	return r;
}

static int write_file(
		EcGuard *g, const char *name, const EcGuardSpec *spec, sd_bus_error *ret_error)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autofree char *data = ec_guard_spec_to_data(spec);

	if (ec_guard_write(g->directory, name, data, &error) < 0)
		return ec_error(ret_error, EC_ERROR_NOT_PROTECTED, "cannot guard the tunnel: %s",
				error.message);
	return 0;
}

static void remove_file(EcGuard *g, const char *name)
{
	g_autofree char *path = file_of(g, name);

	if (g_unlink(path) < 0 && errno != ENOENT)
		ec_log(LOG_WARNING, "guard: cannot remove %s: %s", path, g_strerror(errno));
}

/* Arming */

/* Moves the fence's items on the shelves that can take the spec. Returns the layers that hold; the
 * sentences of the others are in `words`. */
static unsigned take_spec(EcGuard *g, Fence *f, const EcGuardSpec *spec, GString *words)
{
	unsigned held = 0, refused = 0;

	for (size_t i = 0; i < EC_GUARD_LAYERS; i++) {
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
		EcGuardShelf *s = &g->shelf[i];
		g_autoptr(GArray) items = new_items();

		s->layer->render(spec, items);
		if (items->len == 0)
			continue;
		if (ec_guard_shelf_move(s, items, f->items[i], &error) < 0) {
			refused |= s->layer->bit;
			g_string_append_printf(words, "%s%s: %s", words->len ? "; " : "",
					s->layer->title, error.message);
			continue;
		}
		g_array_unref(f->items[i]);
		f->items[i] = g_steal_pointer(&items);
		held |= s->layer->bit;
	}
	if (!held)
		return 0;
	/* What the other layers have of the old spec. */
	for (size_t i = 0; i < EC_GUARD_LAYERS; i++) {
		if (held & layers[i]->bit || f->items[i]->len == 0)
			continue;
		ec_guard_shelf_release(&g->shelf[i], f->items[i]);
		(void)g_array_set_size(f->items[i], 0);
	}
	if (refused & f->layers)
		ec_log(LOG_WARNING, "guard: %s", words->str);
	return held;
}

static bool spec_equal(const EcGuardSpec *a, const EcGuardSpec *b)
{
	return a->fence == b->fence && strcmp(a->device, b->device) == 0 &&
	       a->ipsec_within == b->ipsec_within && ec_address_equal(&a->gateway, &b->gateway) &&
	       ec_address_equal(&a->local, &b->local) && ec_address_equal(&a->remote, &b->remote) &&
	       a->protocol == b->protocol && a->lookup_protocol == b->lookup_protocol &&
	       a->second_protocol == b->second_protocol && a->local_port == b->local_port &&
	       a->remote_port == b->remote_port && a->has_vni == b->has_vni && a->vni == b->vni &&
	       a->anybody == b->anybody && a->protect == b->protect && strcmp(a->vpn, b->vpn) == 0;
}

/* Whether every layer that has a part in this fence holds it already. */
static bool is_whole(const EcGuard *g, const Fence *f)
{
	unsigned parts = EC_GUARD_NFTABLES |
			 (f->spec.fence == EC_FENCE_INTERFACE ? EC_GUARD_ROUTE : EC_GUARD_XFRM);

	for (size_t i = 0; i < EC_GUARD_LAYERS; i++) {
		if ((parts & layers[i]->bit) && !g->shelf[i].holds)
			return false;
	}
	return (f->layers & parts) == parts;
}

int ec_guard_arm(EcGuard *g, const char *name, const EcGuardSpec *spec, sd_bus_error *ret_error)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autoptr(GString) words = g_string_new(NULL);
	Fence *f = g_hash_table_lookup(g->tunnels, name);
	bool known = f, same = f && !f->ends && spec_equal(&f->spec, spec);

	if (spec->fence == EC_FENCE_NONE) {
		ec_guard_disarm(g, name);
		return 0;
	}
	if (same && is_whole(g, f)) {
		f->doomed = false;
		return 0;
	}
	if (ec_guard_spec_check(spec, &error) < 0)
		return ec_error(ret_error, EC_ERROR_NOT_PROTECTED, "cannot guard the tunnel: %s",
				error.message);
	int r = same ? 0 : write_file(g, name, spec, ret_error);
	if (r < 0)
		return r;
	if (!known)
		f = fence_new();
	unsigned held = take_spec(g, f, spec, words);
	if (held) {
		f->spec = *spec;
		f->layers = held;
		f->doomed = false;
		f->ends = 0;
		if (!known)
			(void)g_hash_table_insert(g->tunnels, g_strdup(name), f);
		return 0;
	}
	if (!known) {
		remove_file(g, name);
		fence_free(f);
	} else if (!same) {
		(void)write_file(g, name, &f->spec, NULL);
	}
	return ec_error(ret_error, EC_ERROR_NOT_PROTECTED, "cannot guard the tunnel: %s",
			words->str);
}

static const Fence *armed(const EcGuard *g, const char *name)
{
	const Fence *f = g_hash_table_lookup(g->tunnels, name);

	return f && !f->ends ? f : NULL;
}

const EcGuardSpec *ec_guard_spec(const EcGuard *g, const char *name)
{
	const Fence *f = armed(g, name);

	return f ? &f->spec : NULL;
}

unsigned ec_guard_layers(const EcGuard *g, const char *name)
{
	const Fence *f = armed(g, name);
	unsigned held = f ? f->layers : 0;

	for (size_t i = 0; i < EC_GUARD_LAYERS; i++) {
		if (!g->shelf[i].holds)
			held &= ~layers[i]->bit;
	}
	return held;
}

const char *ec_guard_why(const EcGuard *g, unsigned layer)
{
	for (size_t i = 0; i < EC_GUARD_LAYERS; i++) {
		if (layers[i]->bit == layer)
			return g->shelf[i].why;
	}
	return "";
}

void ec_guard_words(unsigned held, const char *ret[static 4])
{
	for (size_t i = 0; i < EC_GUARD_LAYERS; i++) {
		if (held & layers[i]->bit)
			*ret++ = layers[i]->word;
	}
	*ret = NULL;
}

bool ec_guard_counters(EcGuard *g, const char *name, uint64_t *ret_out, uint64_t *ret_in)
{
	if (!(ec_guard_layers(g, name) & EC_GUARD_NFTABLES))
		return false;
	return ec_guard_nft_counters(&g->shelf[0], ec_guard_spec(g, name), ret_out, ret_in);
}

/* Disarming */

void ec_guard_disarm(EcGuard *g, const char *name)
{
	Fence *f = g_hash_table_lookup(g->tunnels, name);

	if (f)
		f->doomed = true;
}

void ec_guard_retain(EcGuard *g, GHashTable *names)
{
	GHashTableIter i;
	gpointer name, f;

	g_hash_table_iter_init(&i, g->tunnels);
	while (g_hash_table_iter_next(&i, &name, &f)) {
		if (!g_hash_table_contains(names, name))
			((Fence *)f)->doomed = true;
	}
	ec_guard_clamp_retain(g, names);
}

void ec_guard_flush(EcGuard *g)
{
	g_autoptr(GPtrArray) doomed = g_ptr_array_new();
	g_autoptr(GArray) after = new_items();
	uint64_t now = (uint64_t)g_get_monotonic_time();
	GHashTableIter i;
	gpointer p;

	g_hash_table_iter_init(&i, g->tunnels);
	while (g_hash_table_iter_next(&i, NULL, &p)) {
		const Fence *f = p;
		if (!f->doomed || f->ends)
			continue;
		g_ptr_array_add(doomed, p);
		if (f->layers & EC_GUARD_NFTABLES)
			ec_guard_nft_errors(&f->spec, after);
	}
	if (doomed->len == 0)
		return;
	for (size_t l = 0; l < EC_GUARD_LAYERS; l++) {
		g_autoptr(GArray) all = new_items();

		for (guint n = 0; n < doomed->len; n++) {
			const Fence *f = doomed->pdata[n];
			(void)g_array_append_vals(all, f->items[l]->data, f->items[l]->len);
		}
		if (l == 0 && after->len > 0) {
			if (ec_guard_shelf_move(&g->shelf[0], after, all, NULL) >= 0)
				continue;
			(void)g_array_set_size(after, 0);
		}
		ec_guard_shelf_release(&g->shelf[l], all);
	}
	for (guint n = 0; n < doomed->len; n++) {
		Fence *f = doomed->pdata[n];
		for (size_t l = 0; l < EC_GUARD_LAYERS; l++)
			(void)g_array_set_size(f->items[l], 0);
		if (after->len > 0 && f->layers & EC_GUARD_NFTABLES)
			ec_guard_nft_errors(&f->spec, f->items[0]);
		f->ends = now + AFTER_USEC;
	}
	(void)sd_event_source_set_time(g->after, now + AFTER_USEC);
	(void)sd_event_source_set_enabled(g->after, SD_EVENT_ONESHOT);
}

/* Removes what has outlived its tunnel until `now`. Returns when the next one ends, 0: none. */
static uint64_t end(EcGuard *g, uint64_t now)
{
	g_autoptr(GArray) all = new_items();
	uint64_t next = 0;
	GHashTableIter i;
	gpointer name, p;

	g_hash_table_iter_init(&i, g->tunnels);
	while (g_hash_table_iter_next(&i, &name, &p)) {
		const Fence *f = p;
		if (f->ends > now)
			next = next ? MIN(next, f->ends) : f->ends;
		if (f->ends == 0 || f->ends > now)
			continue;
		(void)g_array_append_vals(all, f->items[0]->data, f->items[0]->len);
		remove_file(g, name);
		g_hash_table_iter_remove(&i);
	}
	ec_guard_shelf_release(&g->shelf[0], all);
	return next;
}

static int on_after(sd_event_source *source, uint64_t usec, void *userdata)
{
	uint64_t next = end(userdata, (uint64_t)g_get_monotonic_time());

	if (next == 0)
		return 0;
	(void)sd_event_source_set_time(source, next);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

void ec_guard_recheck(EcGuard *g)
{
	for (size_t i = 0; i < EC_GUARD_LAYERS; i++) {
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
		EcGuardShelf *s = &g->shelf[i];

		if (!s->layer->recheck || g_hash_table_size(s->items) == 0)
			continue;
		int r = s->layer->recheck(s, &error);
		if (r < 0 && s->holds)
			ec_log(LOG_WARNING, "guard: %s: %s", s->layer->title, error.message);
		ec_guard_shelf_holds(s, r < 0 ? &error : NULL);
	}
}

/* Start and end */

static void load_file(EcGuard *g, const char *name)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autofree char *path = file_of(g, name), *data = NULL;
	g_autoptr(GError) unreadable = NULL;
	EcGuardSpec spec;

	/* What ec_guard_write() left when it was killed. */
	if (!ec_name_is_valid(name)) {
		(void)g_unlink(path);
		return;
	}
	if (!g_file_get_contents(path, &data, NULL, &unreadable) ||
			ec_guard_spec_from_data(data, &spec, &error) < 0) {
		ec_log(LOG_WARNING,
				"guard: %s cannot be used; tunnel %s has no fence until its path is known: %s",
				path, name, unreadable ? unreadable->message : error.message);
		return;
	}
	Fence *f = fence_new();
	f->spec = spec;
	for (size_t i = 0; i < EC_GUARD_LAYERS; i++)
		layers[i]->render(&spec, f->items[i]);
	(void)g_hash_table_replace(g->tunnels, g_strdup(name), f);
}

/* What the earlier daemon left on one layer. nftables takes all in one transaction, or nothing; of
 * routes and policies one alone may fail. */
static void load_shelf(EcGuard *g, size_t l, bool at_once)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autoptr(GArray) all = new_items();
	GHashTableIter i;
	gpointer p;
	int r = 0;

	g_hash_table_iter_init(&i, g->tunnels);
	while (at_once && g_hash_table_iter_next(&i, NULL, &p)) {
		const Fence *f = p;
		(void)g_array_append_vals(all, f->items[l]->data, f->items[l]->len);
	}
	if (all->len > 0)
		r = ec_guard_shelf_move(&g->shelf[l], all, NULL, &error);
	g_hash_table_iter_init(&i, g->tunnels);
	while (g_hash_table_iter_next(&i, NULL, &p)) {
		Fence *f = p;
		if (f->items[l]->len == 0)
			continue;
		if (!at_once) {
			sd_bus_error_free(&error);
			r = ec_guard_shelf_move(&g->shelf[l], f->items[l], NULL, &error);
		}
		if (r >= 0)
			f->layers |= layers[l]->bit;
		else
			(void)g_array_set_size(f->items[l], 0);
	}
	if (sd_bus_error_is_set(&error))
		ec_log(LOG_WARNING, "guard: %s: %s", layers[l]->title, error.message);
}

int ec_guard_new(sd_event *event, const char *runtime_dir, const char *table,
		EcGuardChanged changed, void *userdata, EcGuard **ret)
{
	EcGuard *g = g_new0(EcGuard, 1);

	g->event = sd_event_ref(event);
	g->directory = g_build_filename(runtime_dir, "guards", NULL);
	g->clamp_directory = g_build_filename(runtime_dir, "clamps", NULL);
	g->table = g_strdup(table);
	g->changed = changed;
	g->userdata = userdata;
	g->tunnels = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, fence_free);
	g->clamps = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	for (size_t i = 0; i < EC_GUARD_LAYERS; i++)
		ec_guard_shelf_init(&g->shelf[i], layers[i], g);
	g_autoptr(GDir) directory = g_dir_open(g->directory, 0, NULL);
	for (const char *name; directory && (name = g_dir_read_name(directory));)
		load_file(g, name);
	for (size_t i = 0; i < EC_GUARD_LAYERS; i++)
		load_shelf(g, i, layers[i]->bit == EC_GUARD_NFTABLES);
	ec_guard_clamp_load(g);
	/* Who made the guard looks at it anyway. */
	int r = sd_event_add_defer(event, &g->change, on_change, g);
	if (r >= 0)
		r = sd_event_source_set_enabled(g->change, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_time(event, &g->after, CLOCK_MONOTONIC, 0, 0, on_after, g);
	if (r >= 0)
		r = sd_event_source_set_enabled(g->after, SD_EVENT_OFF);
	if (r < 0) {
		(void)ec_guard_free(g);
		return r;
	}
	*ret = g;
	return 0;
}

EcGuard *ec_guard_free(EcGuard *g)
{
	if (!g)
		return NULL;
	(void)end(g, UINT64_MAX);
	(void)sd_event_source_disable_unref(g->change);
	(void)sd_event_source_disable_unref(g->after);
	(void)sd_event_source_disable_unref(g->clamp_timer);
	for (size_t i = 0; i < EC_GUARD_LAYERS; i++)
		ec_guard_shelf_done(&g->shelf[i]);
	(void)ec_nft_free(g->nft);
	g_hash_table_unref(g->tunnels);
	g_hash_table_unref(g->clamps);
	(void)sd_event_unref(g->event);
	g_free(g->table);
	g_free(g->directory);
	g_free(g->clamp_directory);
	g_free(g);
	return NULL;
}
