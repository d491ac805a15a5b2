/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "store-layer.h"

#define GROUP "listener"
#define PEER_GROUP "peer "
#define PREFIX "listener:"

static char *key_name(const char *listener, const char *peer)
{
	return g_strconcat(PREFIX, listener, peer ? ":" : NULL, peer, NULL);
}

char *ec_store_listener_record(const char *listener)
{
	return key_name(listener, NULL);
}

/* Reading */

static const char *peer_of(const char *group)
{
	const char *name = g_str_has_prefix(group, PEER_GROUP) ? group + strlen(PEER_GROUP) : "";

	return ec_name_is_valid(name) ? name : NULL;
}

static int refuse_group(const EcKeyfile *f, const char *group, sd_bus_error *ret_error)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;

	(void)ec_error(&error, EC_ERROR_INVALID_SETTING,
			"group [%.80s]: allowed is [" GROUP
			"] and [peer NAME] with a NAME of a letter "
			"or digit, then up to 62 of letters, digits, '_', '.', '-'",
			ec_text_is_clean(group) ? group : "?");
	return ec_keyfile_refuse(f, group, NULL, &error, ret_error);
}

static int read_peer(
		const EcKeyfile *f, const char *group, GHashTable *peers, sd_bus_error *ret_error)
{
	g_autoptr(EcSettings) settings = ec_settings_new_for(EC_SCOPE_PEER);
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	const char *name = peer_of(group);

	if (!name)
		return refuse_group(f, group, ret_error);
	int r = ec_keyfile_parse(f, group, settings, ret_error);
	if (r < 0)
		return r;
	if (ec_settings_verify(settings, &error) < 0)
		return ec_keyfile_refuse(f, group, NULL, &error, ret_error);
	settings->cleared = 0;
	g_hash_table_insert(peers, g_strdup(name), g_steal_pointer(&settings));
	return 0;
}

static int read_groups(const EcKeyfile *f, EcSettings *settings, GHashTable *peers,
		sd_bus_error *ret_error)
{
	g_auto(GStrv) groups = ec_keyfile_groups(f);
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	int r = 0;

	for (char **g = groups; r >= 0 && *g; g++) {
		if (g_str_equal(*g, GROUP))
			r = ec_keyfile_parse(f, GROUP, settings, ret_error);
		else
			r = read_peer(f, *g, peers, ret_error);
	}
	if (r >= 0 && !g_strv_contains((const char *const *)groups, GROUP)) {
		(void)ec_error(&error, EC_ERROR_INVALID_SETTING, "no group [" GROUP "]");
		r = ec_keyfile_refuse(f, NULL, NULL, &error, ret_error);
	}
	return r;
}

static int read_keyfile(const char *path, const char *name, EcSettings **ret_settings,
		GHashTable **ret_peers, sd_bus_error *ret_error)
{
	g_autoptr(EcSettings) settings = ec_settings_new_for(EC_SCOPE_LISTENER);
	g_autoptr(GHashTable) peers = ec_settings_peers_new();
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autoptr(EcKeyfile) f = NULL;
	int r = ec_keyfile_read(path, &f, ret_error);

	if (r >= 0)
		r = read_groups(f, settings, peers, ret_error);
	if (r >= 0)
		r = ec_keyfile_parse_name(f, GROUP, settings, name, ret_error);
	if (r < 0)
		return r;
	if (ec_settings_verify_peers(settings, peers, &error) < 0)
		return ec_keyfile_refuse(f, NULL, NULL, &error, ret_error);
	settings->cleared = 0; /* an empty "key=" in a file is no order to forget one */
	*ret_settings = g_steal_pointer(&settings);
	*ret_peers = g_steal_pointer(&peers);
	return 0;
}

void ec_store_read_listeners(EcStore *s, const EcStoreListenerReader *reader)
{
	g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);

	for (EcOrigin origin = 0; origin < _EC_ORIGIN_MAX; origin++) {
		if (!s->listeners[origin])
			continue;
		g_autoptr(GPtrArray) names = ec_keyfiles_in(s->listeners[origin]);
		for (guint i = 0; i < names->len; i++) {
			const char *name = g_ptr_array_index(names, i);
			g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
			g_autofree char *path = g_strdup_printf(
					"%s/%s" EC_KEYFILE_SUFFIX, s->listeners[origin], name);
			GHashTable *peers = NULL;
			EcSettings *settings = NULL;

			if (!g_hash_table_add(seen, g_strdup(name)))
				continue;
			if (read_keyfile(path, name, &settings, &peers, &error) >= 0)
				reader->listener(settings, peers, origin, reader->userdata);
			else
				reader->broken(name, error.message, reader->userdata);
		}
	}
}

/* Writing */

typedef struct Listener {
	const EcSettings *settings;
	GHashTable *peers;
} Listener;

static void put(GKeyFile *f, gconstpointer data)
{
	const Listener *l = data;
	g_auto(GStrv) groups = g_key_file_get_groups(f, NULL);
	g_autoptr(GList) names = g_list_sort(
			g_hash_table_get_keys(l->peers), (GCompareFunc)(void (*)(void))strcmp);

	ec_keyfile_put(f, GROUP, l->settings);
	for (char **g = groups; *g; g++) {
		const char *peer = peer_of(*g);

		if (peer && !g_hash_table_contains(l->peers, peer))
			(void)g_key_file_remove_group(f, *g, NULL);
	}
	for (const GList *name = names; name; name = name->next) {
		g_autofree char *group = g_strconcat(PEER_GROUP, name->data, NULL);

		ec_keyfile_put(f, group, g_hash_table_lookup(l->peers, name->data));
		/* One that only has a key, which is not in here, is a group all the same. */
		if (!g_key_file_has_group(f, group)) {
			g_key_file_set_value(f, group, "key", "");
			(void)g_key_file_remove_key(f, group, "key", NULL);
		}
	}
}

int ec_store_save_listener(EcStore *s, const EcSettings *settings, GHashTable *peers,
		EcOrigin origin, sd_bus_error *ret_error)
{
	g_autofree char *path = g_strdup_printf(
			"%s/%s" EC_KEYFILE_SUFFIX, s->listeners[origin], settings->name);
	const Listener l = { settings, peers };

	return ec_keyfile_save(path, put, &l, GROUP, origin == EC_ORIGIN_CONFIG, ret_error);
}

int ec_store_remove_listener(EcStore *s, const char *name, EcOrigin origin, sd_bus_error *ret_error)
{
	g_autofree char *own = key_name(name, NULL), *prefix = key_name(name, "");
	g_autofree char *record = g_build_filename(s->records, own, NULL);
	g_autoptr(GDir) dir = NULL;
	const char *entry;
	int r = ec_store_unlink(s->listeners, origin, name, ret_error);

	if (r < 0)
		return r;
	(void)unlink(record);
	dir = g_dir_open(s->keys, 0, NULL);
	while (dir && (entry = g_dir_read_name(dir))) {
		g_autofree char *path = g_build_filename(s->keys, entry, NULL);

		if (g_str_equal(entry, own) || g_str_has_prefix(entry, prefix))
			(void)unlink(path);
	}
	return 0;
}

int ec_store_set_listener_key(EcStore *s, const char *listener, const char *peer, const char *key,
		sd_bus_error *ret_error)
{
	g_autofree char *name = key_name(listener, peer);

	return ec_store_set_key(s, name, key, ret_error);
}

int ec_store_get_listener_key(
		EcStore *s, const char *listener, const char *peer, uint8_t ret[static 32])
{
	g_autofree char *name = key_name(listener, peer);

	return ec_store_get_key(s, name, ret);
}

void ec_store_forget_listener_key(EcStore *s, const char *listener, const char *peer)
{
	g_autofree char *name = key_name(listener, peer);
	g_autofree char *path = g_build_filename(s->keys, name, NULL);

	(void)unlink(path);
}
