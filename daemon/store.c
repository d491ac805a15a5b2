/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define GROUP "tunnel"
#define SUFFIX ".conf"

/* On the disk, file and directory entry, before the call returns. */
#define DURABLE (G_FILE_SET_CONTENTS_CONSISTENT | G_FILE_SET_CONTENTS_DURABLE)

struct EcStore {
	char *tunnels[_EC_ORIGIN_MAX]; /* directories of keyfiles; NULL: none */
	char *listeners;
	char *keys;
	char *records;
	char *state;
	char *runtime;
};

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
	s->listeners = g_build_filename(config_dir, "listeners.d", NULL);
	s->keys = g_build_filename(state_dir, "keys", NULL);
	s->records = g_build_filename(runtime_dir, "state", NULL);
	s->state = g_strdup(state_dir);
	s->runtime = g_strdup(runtime_dir);
	const struct {
		const char *path;
		int mode;
	} directory[] = { { s->tunnels[EC_ORIGIN_RUNTIME], 0755 }, { s->keys, 0700 },
		{ s->records, 0755 } };
	/* Needed only to keep tunnels over a reboot: saving one then says what is wrong. */
	(void)make_directory(s->tunnels[EC_ORIGIN_CONFIG], 0755, NULL);
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
	for (size_t i = 0; i < _EC_ORIGIN_MAX; i++)
		g_free(s->tunnels[i]);
	g_free(s->listeners);
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
	return g_strdup_printf("%s/%s" SUFFIX, s->tunnels[origin], name);
}

/* Reading */

/* The number of the first line that satisfies the caller: a key of a group, or (key NULL) a line
 * that is no keyfile line at all. 0 when there is none. GKeyFile does not tell. */
static unsigned line_of(const char *text, const char *group, const char *key)
{
	g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
	bool inside = false;

	for (unsigned i = 0; lines[i]; i++) {
		char *line = g_strstrip(lines[i]);
		char *equals = strchr(line, '=');

		if (*line == '\0' || *line == '#')
			continue;
		if (*line == '[') {
			size_t n = strlen(line);
			inside = n == strlen(group) + 2 && line[n - 1] == ']' &&
				 strncmp(line + 1, group, n - 2) == 0;
		} else if (!equals) {
			if (!key)
				return i + 1;
		} else if (inside && key) {
			*equals = '\0';
			if (g_str_equal(g_strchomp(line), key))
				return i + 1;
		}
	}
	return 0;
}

/* Prefixes the error with "FILE:LINE: ". */
static int locate(const char *path, unsigned line, sd_bus_error *error, sd_bus_error *ret_error)
{
	char where[16] = "";

	if (line)
		g_snprintf(where, sizeof(where), ":%u", line);
	int r = ec_error(ret_error, error->name, "%s%s: %s", path, where, error->message);
	sd_bus_error_free(error);
	return r;
}

static int check_groups(GKeyFile *f, const char *path, sd_bus_error *ret_error)
{
	g_auto(GStrv) groups = g_key_file_get_groups(f, NULL);

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

static int parse_keyfile(GKeyFile *f, const char *path, const char *text, EcSettings *settings,
		sd_bus_error *ret_error)
{
	int r = check_groups(f, path, ret_error);

	if (r < 0)
		return r;
	g_auto(GStrv) keys = g_key_file_get_keys(f, GROUP, NULL, NULL);
	for (char **key = keys; *key; key++) {
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
		g_autofree char *value = g_key_file_get_value(f, GROUP, *key, NULL);

		if (ec_settings_parse(settings, *key, value, &error) < 0)
			return locate(path, line_of(text, GROUP, *key), &error, ret_error);
	}
	return 0;
}

static int read_text(const char *path, char **ret, sd_bus_error *ret_error)
{
	g_autoptr(GError) problem = NULL;
	g_autofree char *text = NULL;
	struct stat st;
	gsize n;

	if (stat(path, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > 256L * 1024)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"%s: allowed is a regular file of at most 256 KiB", path);
	if (!g_file_get_contents(path, &text, &n, &problem))
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING, "%s", problem->message);
	if (strlen(text) != n)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING, "%s: contains a null byte",
				path);
	*ret = g_steal_pointer(&text);
	return 0;
}

static int read_keyfile(
		const char *path, const char *name, EcSettings **ret, sd_bus_error *ret_error)
{
	g_autoptr(EcSettings) settings = ec_settings_new();
	g_autoptr(GKeyFile) f = g_key_file_new();
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autoptr(GError) problem = NULL;
	g_autofree char *text = NULL;
	int r = read_text(path, &text, ret_error);

	if (r < 0)
		return r;
	if (!g_key_file_load_from_data(f, text, (gsize)-1, G_KEY_FILE_NONE, &problem)) {
		(void)ec_error(&error, EC_ERROR_INVALID_SETTING, "%s",
				g_utf8_validate(text, -1, NULL) ? problem->message
								: "is not UTF-8 text");
		return locate(path, line_of(text, GROUP, NULL), &error, ret_error);
	}
	r = parse_keyfile(f, path, text, settings, ret_error);
	if (r < 0)
		return r;
	if (settings->name && !g_str_equal(settings->name, name)) {
		(void)ec_error(&error, EC_ERROR_INVALID_SETTING,
				"name '%s': allowed is '%s', the name of the file", settings->name,
				name);
		return locate(path, line_of(text, GROUP, "name"), &error, ret_error);
	}
	r = ec_settings_parse(settings, "name", name, &error);
	if (r >= 0)
		r = ec_settings_verify(settings, &error);
	if (r < 0)
		return locate(path, 0, &error, ret_error);
	*ret = g_steal_pointer(&settings);
	return 0;
}

static gint compare_names(gconstpointer a, gconstpointer b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The names that a directory has keyfiles for, sorted. */
static GPtrArray *names_in(const char *directory)
{
	GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
	g_autoptr(GDir) dir = g_dir_open(directory, 0, NULL);
	const char *entry;

	while (dir && (entry = g_dir_read_name(dir))) {
		if (entry[0] != '.' && g_str_has_suffix(entry, SUFFIX))
			g_ptr_array_add(names, g_strndup(entry, strlen(entry) - strlen(SUFFIX)));
	}
	g_ptr_array_sort(names, compare_names);
	return names;
}

/* Said, not passed over in silence: this build knows tunnels only. */
static void report_listeners(const EcStore *s, const EcStoreReader *reader)
{
	g_autoptr(GPtrArray) names = names_in(s->listeners);

	for (guint i = 0; i < names->len; i++) {
		const char *name = g_ptr_array_index(names, i);
		g_autofree char *sentence = g_strdup_printf(
				"%s/%s" SUFFIX ": this build has no listeners", s->listeners, name);
		reader->broken(NULL, sentence, reader->userdata);
	}
}

void ec_store_read_tunnels(EcStore *s, const EcStoreReader *reader)
{
	g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);

	for (EcOrigin origin = 0; origin < _EC_ORIGIN_MAX; origin++) {
		if (!s->tunnels[origin])
			continue;
		g_autoptr(GPtrArray) names = names_in(s->tunnels[origin]);
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
	report_listeners(s, reader);
}

/* Writing */

static int write_file(const char *path, const char *text, GFileSetContentsFlags flags, int mode,
		sd_bus_error *ret_error)
{
	g_autoptr(GError) problem = NULL;

	if (g_file_set_contents_full(path, text, -1, flags, mode, &problem))
		return 0;
	(void)ec_error(ret_error, SD_BUS_ERROR_FAILED, "%s", problem->message);
	return -EIO;
}

/* In the runtime directory: whole or not at all, but nothing there outlives a power cut, so nothing
 * is waited for. */
static int write_quickly(const char *path, const char *text, sd_bus_error *ret_error)
{
	g_autofree char *temporary = g_strconcat(path, ".new", NULL);
	int r = write_file(temporary, text, G_FILE_SET_CONTENTS_NONE, 0644, ret_error);

	if (r >= 0 && g_rename(temporary, path) < 0) {
		r = -errno;
		(void)ec_error(ret_error, SD_BUS_ERROR_FAILED, "cannot write %s: %s", path,
				g_strerror(-r));
	}
	return r;
}

static void set_keys(GKeyFile *f, const EcSettings *settings)
{
	bool anew = !g_key_file_has_group(f, GROUP);
	size_t n;
	const EcSetting *table = ec_settings_table(&n);

	for (size_t i = 0; i < n; i++) {
		bool own_name = g_str_equal(table[i].key, "name"); /* the file's name says it */

		if (!own_name && ec_settings_is_given(settings, &table[i]) &&
				!(table[i].flags & EC_SETTING_SECRET)) {
			g_autofree char *text = ec_settings_text(settings, &table[i]);
			g_key_file_set_value(f, GROUP, table[i].key, text);
		} else if (!anew) {
			(void)g_key_file_remove_key(f, GROUP, table[i].key, NULL);
		}
	}
}

int ec_store_save(EcStore *s, const EcSettings *settings, EcOrigin origin, sd_bus_error *ret_error)
{
	g_autofree char *path = file_of(s, origin, settings->name);
	g_autoptr(GKeyFile) f = g_key_file_new();
	g_autoptr(GError) problem = NULL;
	bool durable = origin == EC_ORIGIN_CONFIG;

	if (durable && g_file_test(path, G_FILE_TEST_EXISTS) &&
			!g_key_file_load_from_file(f, path, G_KEY_FILE_KEEP_COMMENTS, &problem))
		return ec_error(ret_error, EC_ERROR_EXISTS,
				"%s is there and cannot be read (%s); mend it or remove it", path,
				problem->message);
	set_keys(f, settings);
	g_autofree char *text = g_key_file_to_data(f, NULL, NULL);
	/* An empty group would not be written, and a keyfile needs one. */
	const char *content = g_key_file_has_group(f, GROUP) ? text : "[" GROUP "]\n";
	return durable ? write_file(path, content, DURABLE, 0644, ret_error)
		       : write_quickly(path, content, ret_error);
}

static void sync_directory(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0) {
		(void)fsync(fd);
		(void)close(fd);
	}
}

int ec_store_remove(EcStore *s, const char *name, EcOrigin origin, sd_bus_error *ret_error)
{
	g_autofree char *path = file_of(s, origin, name);
	g_autofree char *key = g_build_filename(s->keys, name, NULL);
	g_autofree char *record = g_build_filename(s->records, name, NULL);

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
		sync_directory(s->tunnels[origin]);
	(void)unlink(key);
	(void)unlink(record);
	return 0;
}

int ec_store_set_key(EcStore *s, const char *name, const char *key, sd_bus_error *ret_error)
{
	g_autofree char *path = g_build_filename(s->keys, name, NULL);

	return write_file(path, key, DURABLE, 0600, ret_error);
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
		(void)write_quickly(path, text, NULL);
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
		(void)write_file(path, seed, DURABLE, 0600, NULL);
	}
	/* A cloned disk has the same seed; its machine-id is made anew by a proper clone. */
	if (g_file_get_contents("/etc/machine-id", &machine, NULL, NULL))
		g_checksum_update(sum, (const guchar *)machine, -1);
	g_checksum_update(sum, (const guchar *)seed, -1);
	g_checksum_get_digest(sum, ret, &length);
}
