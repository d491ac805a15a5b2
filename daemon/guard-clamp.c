/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>

#include "guard-layer.h"
#include "log.h"

/*
 * The MSS clamp of bridged tunnels: table bridge TABLE has one chain for each tunnel's port, and
 * two maps' worth of rules that lead to it, by the port a frame comes from and the one it goes to.
 * Only frames through the bridge are looked at; those with a VLAN tag are left alone.
 *
 * The files are for the next daemon: it makes the table anew with what they hold.
 */

#define TOUCHED_DELAY (100 * 1000ULL)

typedef struct Clamp {
	char ifname[IF_NAMESIZE];
	uint16_t mss4, mss6;
} Clamp;

static void put_rule(GString *text, const char *type, unsigned mss)
{
	if (mss)
		g_string_append_printf(text,
				"ether type %s tcp flags & (syn | rst) == syn tcp option maxseg size > %u tcp option maxseg size set %u\n",
				type, mss, mss);
}

/* The body of a chain. */
static void put_rules(GString *text, const Clamp *c)
{
	put_rule(text, "ip", c->mss4);
	put_rule(text, "ip6", c->mss6);
}

static char *whole_table(const EcGuard *g)
{
	g_autoptr(GString) text = g_string_new(NULL), ports = g_string_new(NULL);
	GHashTableIter i;
	gpointer p;

	g_string_printf(text, "add table bridge %s\ndelete table bridge %s\n", g->table, g->table);
	if (g_hash_table_size(g->clamps) == 0)
		return g_string_free(g_steal_pointer(&text), FALSE);
	g_string_append_printf(text, "table bridge %s {\n", g->table);
	g_hash_table_iter_init(&i, g->clamps);
	while (g_hash_table_iter_next(&i, NULL, &p)) {
		const Clamp *c = p;
		g_string_append_printf(text, "chain port-%s {\n", c->ifname);
		put_rules(text, c);
		g_string_append(text, "}\n");
		g_string_append_printf(ports, "%s\"%s\" : jump port-%s", ports->len ? ", " : "",
				c->ifname, c->ifname);
	}
	g_string_append_printf(text,
			"map ports { typeof oifname : verdict; elements = { %s }; }\n"
			"chain forward {\n"
			"type filter hook forward priority 0; policy accept;\n"
			"oifname vmap @ports\niifname vmap @ports\n"
			"}\n}\n",
			ports->str);
	return g_string_free(g_steal_pointer(&text), FALSE);
}

static int remake(EcGuard *g, sd_bus_error *ret_error)
{
	g_autofree char *text = whole_table(g);
	EcNft *nft = NULL;
	int r = ec_guard_nft(g, &nft, ret_error);

	return r < 0 ? r : ec_nft_run(nft, text, ret_error);
}

/* One port, new or changed, or none any more (c NULL); without touching the others. */
static char *one_port(const EcGuard *g, const char *ifname, const Clamp *c, bool known)
{
	g_autoptr(GString) text = g_string_new(NULL);

	if (c) {
		g_string_append_printf(text,
				"add chain bridge %s port-%s\nflush chain bridge %s port-%s\n",
				g->table, ifname, g->table, ifname);
		g_string_append_printf(
				text, "table bridge %s {\nchain port-%s {\n", g->table, ifname);
		put_rules(text, c);
		g_string_append(text, "}\n}\n");
	}
	if (c && !known)
		g_string_append_printf(text,
				"add element bridge %s ports { \"%s\" : jump port-%s }\n", g->table,
				ifname, ifname);
	if (!c)
		g_string_append_printf(text,
				"delete element bridge %s ports { \"%s\" }\ndelete chain bridge %s port-%s\n",
				g->table, ifname, g->table, ifname);
	return g_string_free(g_steal_pointer(&text), FALSE);
}

/* The kernel holds all but what changed; if that is not so after all, everything anew. */
static int update(
		EcGuard *g, const char *ifname, const Clamp *c, bool known, sd_bus_error *ret_error)
{
	g_autofree char *text = one_port(g, ifname, c, known);
	guint others = g_hash_table_size(g->clamps) - (c && !known ? 1 : 0);

	if (g->nft && others > 0 && ec_nft_run(g->nft, text, NULL) >= 0)
		return 0;
	return remake(g, ret_error);
}

static void save(EcGuard *g, const char *name, const Clamp *c)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autofree char *text =
			c ? g_strdup_printf("%u %u %s\n", c->mss4, c->mss6, c->ifname) : NULL;
	g_autofree char *path = g_build_filename(g->clamp_directory, name, NULL);

	if (!c)
		(void)g_unlink(path);
	else if (ec_guard_write(g->clamp_directory, name, text, &error) < 0)
		ec_log(LOG_WARNING, "clamp: %s", error.message);
}

static int remove_clamp(EcGuard *g, const char *name, sd_bus_error *ret_error)
{
	const Clamp *old = g_hash_table_lookup(g->clamps, name);

	if (!old)
		return 0;
	const Clamp gone = *old;
	(void)g_hash_table_remove(g->clamps, name);
	int r = update(g, gone.ifname, NULL, true, ret_error);
	save(g, name, NULL);
	ec_guard_nft_release(g);
	return r;
}

int ec_guard_clamp(EcGuard *g, const char *name, const char *ifname, uint16_t mss4, uint16_t mss6,
		sd_bus_error *ret_error)
{
	const Clamp *old = g_hash_table_lookup(g->clamps, name);
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	Clamp c = { .mss4 = mss4, .mss6 = mss6 };

	if (old && old->mss4 == mss4 && old->mss6 == mss6 && g_str_equal(old->ifname, ifname))
		return 0;
	if (old && ((!mss4 && !mss6) || !g_str_equal(old->ifname, ifname)))
		(void)remove_clamp(g, name, NULL);
	if (!mss4 && !mss6)
		return 0;
	if (!ec_ifname_is_valid(ifname))
		return ec_error(ret_error, EC_ERROR_KERNEL,
				"cannot clamp TCP segments: an interface cannot have that name");
	(void)g_strlcpy(c.ifname, ifname, sizeof(c.ifname));
	bool known = g_hash_table_contains(g->clamps, name);
	(void)g_hash_table_replace(g->clamps, g_strdup(name), g_memdup2(&c, sizeof(c)));
	if (update(g, ifname, &c, known, &error) >= 0) {
		save(g, name, &c);
		return 0;
	}
	/* Not remembered: the next call tries again. */
	(void)g_hash_table_remove(g->clamps, name);
	save(g, name, NULL);
	ec_guard_nft_release(g);
	return ec_error(ret_error, EC_ERROR_KERNEL, "cannot clamp TCP segments: nftables: %s",
			error.message);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcGuard *g = userdata;

	if (g_hash_table_size(g->clamps) > 0 && remake(g, &error) < 0)
		ec_log(LOG_WARNING, "clamp: nftables: %s", error.message);
	return 0;
}

/* Nothing leaks meanwhile: a moment's wait bounds what a struggle with another program costs. */
void ec_guard_clamp_touched(EcGuard *g)
{
	if (g_hash_table_size(g->clamps) == 0)
		return;
	if (!g->clamp_timer)
		(void)sd_event_add_time_relative(g->event, &g->clamp_timer, CLOCK_MONOTONIC,
				TOUCHED_DELAY, 1000, on_timer, g);
	else
		(void)sd_event_source_set_time_relative(g->clamp_timer, TOUCHED_DELAY);
	(void)sd_event_source_set_enabled(g->clamp_timer, SD_EVENT_ONESHOT);
}

void ec_guard_clamp_load(EcGuard *g)
{
	g_autoptr(GDir) directory = g_dir_open(g->clamp_directory, 0, NULL);
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;

	for (const char *name; directory && (name = g_dir_read_name(directory));) {
		g_autofree char *path = g_build_filename(g->clamp_directory, name, NULL);
		g_autofree char *data = NULL;
		Clamp c = { 0 };

		/* A broken one costs nothing: its tunnel clamps again. */
		if (ec_name_is_valid(name) && g_file_get_contents(path, &data, NULL, NULL) &&
				sscanf(data, "%hu %hu %15s", &c.mss4, &c.mss6, c.ifname) == 3 &&
				ec_ifname_is_valid(c.ifname))
			(void)g_hash_table_replace(
					g->clamps, g_strdup(name), g_memdup2(&c, sizeof(c)));
		else
			(void)g_unlink(path);
	}
	if (g_hash_table_size(g->clamps) > 0 && remake(g, &error) < 0)
		ec_log(LOG_WARNING, "clamp: nftables: %s", error.message);
}

void ec_guard_clamp_retain(EcGuard *g, GHashTable *names)
{
	g_autoptr(GPtrArray) gone = g_ptr_array_new_with_free_func(g_free);
	GHashTableIter i;
	gpointer name;

	g_hash_table_iter_init(&i, g->clamps);
	while (g_hash_table_iter_next(&i, &name, NULL)) {
		if (!g_hash_table_contains(names, name))
			g_ptr_array_add(gone, g_strdup(name));
	}
	for (guint n = 0; n < gone->len; n++)
		(void)remove_clamp(g, gone->pdata[n], NULL);
}
