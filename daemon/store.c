/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "store-layer.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define GROUP "tunnel"

static int make_directory(const char *path, int mode, sd_bus_error *ret_error)
{
	if (g_mkdir_with_parents(path, mode) >= 0)
		return 0;
	int r = -errno;
	(void)ec_error(ret_error, SD_BUS_ERROR_FAILED, "cannot make directory %s: %s", path,
			g_strerror(-r));
	return r;
}

int ec_store_new(const char *config_dir, const char *state_dir, const char *runtime_dir,
		const char *vendor_dir, EcStore **ret, sd_bus_error *ret_error)
{
	EcStore *s = g_new0(EcStore, 1);
	int r = 0;

	s->tunnels[EC_ORIGIN_CONFIG] = g_build_filename(config_dir, "tunnels.d", NULL);
	s->tunnels[EC_ORIGIN_RUNTIME] = g_build_filename(runtime_dir, "tunnels.d", NULL);
	if (vendor_dir)
		s->tunnels[EC_ORIGIN_VENDOR] = g_build_filename(vendor_dir, "tunnels.d", NULL);
	s->listeners[EC_ORIGIN_CONFIG] = g_build_filename(config_dir, "listeners.d", NULL);
	s->listeners[EC_ORIGIN_RUNTIME] = g_build_filename(runtime_dir, "listeners.d", NULL);
	if (vendor_dir)
		s->listeners[EC_ORIGIN_VENDOR] = g_build_filename(vendor_dir, "listeners.d", NULL);
	s->keys = g_build_filename(state_dir, "keys", NULL);
	s->records = g_build_filename(runtime_dir, "state", NULL);
	s->state = g_strdup(state_dir);
	s->runtime = g_strdup(runtime_dir);
	const struct {
		const char *path;
		int mode;
	} directory[] = { { s->tunnels[EC_ORIGIN_RUNTIME], 0755 },
		{ s->listeners[EC_ORIGIN_RUNTIME], 0755 }, { s->keys, 0700 },
		{ s->records, 0755 } };
	/* Needed only to keep tunnels over a reboot: saving one then says what is wrong. */
	(void)make_directory(s->tunnels[EC_ORIGIN_CONFIG], 0755, NULL);
	(void)make_directory(s->listeners[EC_ORIGIN_CONFIG], 0755, NULL);
	for (size_t i = 0; r >= 0 && i < EC_ELEMENTS(directory); i++)
		r = make_directory(directory[i].path, directory[i].mode, ret_error);
	if (r < 0) {
		(void)ec_store_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

EcStore *ec_store_free(EcStore *s)
{
	if (!s)
		return NULL;
	for (size_t i = 0; i < _EC_ORIGIN_MAX; i++) {
		g_free(s->tunnels[i]);
		g_free(s->listeners[i]);
	}
	g_free(s->keys);
	g_free(s->records);
	g_free(s->state);
	g_free(s->runtime);
	g_free(s);
	return NULL;
}

const char *ec_store_runtime_dir(const EcStore *s)
{
	return s->runtime;
}

static char *file_of(const EcStore *s, EcOrigin origin, const char *name)
{
	return g_strdup_printf("%s/%s" EC_KEYFILE_SUFFIX, s->tunnels[origin], name);
}

/* Reading */

static int check_groups(const EcKeyfile *f, const char *path, sd_bus_error *ret_error)
{
	g_auto(GStrv) groups = ec_keyfile_groups(f);

	for (char **g = groups; *g; g++) {
		if (!g_str_equal(*g, GROUP))
			return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
					"%s: group [%s]: allowed is [" GROUP "]", path,
					ec_text_is_clean(*g) ? *g : "?");
	}
	if (!groups[0])
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING, "%s: no group [" GROUP "]",
				path);
	return 0;
}

static int read_keyfile(
		const char *path, const char *name, EcSettings **ret, sd_bus_error *ret_error)
{
	g_autoptr(EcSettings) settings = ec_settings_new();
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autoptr(EcKeyfile) f = NULL;
	int r = ec_keyfile_read(path, &f, ret_error);

	if (r >= 0)
		r = check_groups(f, path, ret_error);
	if (r >= 0)
		r = ec_keyfile_parse(f, GROUP, settings, ret_error);
	if (r >= 0)
		r = ec_keyfile_parse_name(f, GROUP, settings, name, ret_error);
	if (r < 0)
		return r;
	if (ec_settings_verify(settings, &error) < 0)
		return ec_keyfile_refuse(f, NULL, NULL, &error, ret_error);
	*ret = g_steal_pointer(&settings);
	return 0;
}

void ec_store_read_tunnels(EcStore *s, const EcStoreReader *reader)
{
	g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);

	for (EcOrigin origin = 0; origin < _EC_ORIGIN_MAX; origin++) {
		if (!s->tunnels[origin])
			continue;
		g_autoptr(GPtrArray) names = ec_keyfiles_in(s->tunnels[origin]);
		for (guint i = 0; i < names->len; i++) {
			const char *name = g_ptr_array_index(names, i);
			g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
			g_autofree char *path = file_of(s, origin, name);
			EcSettings *settings = NULL;

			if (!g_hash_table_add(seen, g_strdup(name)))
				continue;
			if (read_keyfile(path, name, &settings, &error) >= 0)
				reader->tunnel(settings, origin, reader->userdata);
			else
				reader->broken(name, error.message, reader->userdata);
		}
	}
}

/* Writing */

static void put(GKeyFile *f, gconstpointer settings)
{
	ec_keyfile_put(f, GROUP, settings);
}

int ec_store_save(EcStore *s, const EcSettings *settings, EcOrigin origin, sd_bus_error *ret_error)
{
	g_autofree char *path = file_of(s, origin, settings->name);

	return ec_keyfile_save(path, put, settings, GROUP, origin == EC_ORIGIN_CONFIG, ret_error);
}

static void sync_directory(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0) {
		(void)fsync(fd);
		(void)close(fd);
	}
}

int ec_store_unlink(char *const *directories, EcOrigin origin, const char *name,
		sd_bus_error *ret_error)
{
	g_autofree char *path =
			g_strdup_printf("%s/%s" EC_KEYFILE_SUFFIX, directories[origin], name);

	if (origin == EC_ORIGIN_VENDOR)
		return ec_error(ret_error, EC_ERROR_REFUSED,
				"%s belongs to a package; an administrator's file of the same name "
				"in the configuration directory takes its place",
				path);
	if (unlink(path) < 0 && errno != ENOENT) {
		int r = -errno;
		(void)ec_error(ret_error, SD_BUS_ERROR_FAILED, "cannot remove %s: %s", path,
				g_strerror(-r));
		return r;
	}
	if (origin == EC_ORIGIN_CONFIG)
		sync_directory(directories[origin]);
	return 0;
}

int ec_store_remove(EcStore *s, const char *name, EcOrigin origin, sd_bus_error *ret_error)
{
	g_autofree char *key = g_build_filename(s->keys, name, NULL);
	g_autofree char *record = g_build_filename(s->records, name, NULL);
	int r = ec_store_unlink(s->tunnels, origin, name, ret_error);

	if (r < 0)
		return r;
	(void)unlink(key);
	(void)unlink(record);
	return 0;
}

int ec_store_set_key(EcStore *s, const char *name, const char *key, sd_bus_error *ret_error)
{
	g_autofree char *path = g_build_filename(s->keys, name, NULL);

	return ec_file_write(path, key, 0600, ret_error);
}

int ec_store_get_key(EcStore *s, const char *name, uint8_t ret[static 32])
{
	g_autofree char *path = g_build_filename(s->keys, name, NULL);
	g_autoptr(GError) problem = NULL;
	g_autofree char *text = NULL;
	gsize n = 0, size = 0;

	if (!g_file_get_contents(path, &text, &n, &problem))
		return g_error_matches(problem, G_FILE_ERROR, G_FILE_ERROR_NOENT) ? 0 : -EIO;
	g_autofree guchar *bytes = g_base64_decode(text, &size);
	bool good = size == 32;
	if (good)
		memcpy(ret, bytes, 32);
	explicit_bzero(text, n);
	explicit_bzero(bytes, size);
	return good ? 1 : -EBADMSG;
}

/* Records: the words "up" or "down" and "attached". */

EcRecord ec_store_get_record(EcStore *s, const char *name)
{
	g_autofree char *path = g_build_filename(s->records, name, NULL);
	g_autofree char *text = NULL;

	if (!g_file_get_contents(path, &text, NULL, NULL))
		return (EcRecord){ 0 };
	return (EcRecord){
		.known = true,
		.wanted = g_str_has_prefix(text, "up"),
		.attached = strstr(text, "attached"),
	};
}

void ec_store_set_record(EcStore *s, const char *name, EcRecord record)
{
	g_autofree char *path = g_build_filename(s->records, name, NULL);
	g_autofree char *text = g_strdup_printf("%s%s\n", record.wanted ? "up" : "down",
			record.attached ? " attached" : "");

	if (record.known)
		(void)ec_file_write_quickly(path, text, NULL);
	else
		(void)unlink(path);
}

void ec_store_forget_records(EcStore *s, GHashTable *but)
{
	g_autoptr(GDir) dir = g_dir_open(s->records, 0, NULL);
	const char *entry;

	while (dir && (entry = g_dir_read_name(dir))) {
		g_autofree char *path = g_build_filename(s->records, entry, NULL);

		if (!g_hash_table_contains(but, entry))
			(void)unlink(path);
	}
}

void ec_store_machine_seed(EcStore *s, uint8_t ret[static 32])
{
	g_autofree char *path = g_build_filename(s->state, "seed", NULL);
	g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
	g_autofree char *seed = NULL, *machine = NULL;
	gsize length = 32;

	if (!g_file_get_contents(path, &seed, NULL, NULL) || strlen(seed) != 32) {
		uint8_t random[16];

		if (getrandom(random, sizeof(random), 0) != sizeof(random))
			memset(random, 0, sizeof(random));
		g_free(seed);
		seed = g_malloc0(33);
		for (unsigned i = 0; i < 16; i++)
			g_snprintf(seed + (size_t)2 * i, 3, "%02x", random[i]);
		(void)ec_file_write(path, seed, 0600, NULL);
	}
	/* A cloned disk has the same seed; its machine-id is made anew by a proper clone. */
	if (g_file_get_contents("/etc/machine-id", &machine, NULL, NULL))
		g_checksum_update(sum, (const guchar *)machine, -1);
	g_checksum_update(sum, (const guchar *)seed, -1);
	g_checksum_get_digest(sum, ret, &length);
}
