/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "keyfile.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>

/* On the disk, file and directory entry, before the call returns. */
#define DURABLE (G_FILE_SET_CONTENTS_CONSISTENT | G_FILE_SET_CONTENTS_DURABLE)

struct EcKeyfile {
	char *path;
	char *text;
	GKeyFile *file;
};

/* The number of the first line that is a key of a group, or (key NULL) that opens the group, or
 * (group NULL) that is no keyfile line at all. 0 when there is none. GKeyFile does not tell. */
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
			inside = group && n == strlen(group) + 2 && line[n - 1] == ']' &&
				 strncmp(line + 1, group, n - 2) == 0;
			if (inside && !key)
				return i + 1;
		} else if (!equals) {
			if (!group)
				return i + 1;
		} else if (inside && key) {
			*equals = '\0';
			if (g_str_equal(g_strchomp(line), key))
				return i + 1;
		}
	}
	return 0;
}

int ec_keyfile_refuse(const EcKeyfile *f, const char *group, const char *key, sd_bus_error *error,
		sd_bus_error *ret_error)
{
	unsigned line = group ? line_of(f->text, group, key) : 0;
	char where[16] = "";

	if (line)
		g_snprintf(where, sizeof(where), ":%u", line);
	int r = ec_error(ret_error, error->name, "%s%s: %s", f->path, where, error->message);
	sd_bus_error_free(error);
	return r;
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

int ec_keyfile_read(const char *path, EcKeyfile **ret, sd_bus_error *ret_error)
{
	g_autoptr(GKeyFile) file = g_key_file_new();
	g_autoptr(GError) problem = NULL;
	g_autofree char *text = NULL;
	int r = read_text(path, &text, ret_error);

	if (r < 0)
		return r;
	if (!g_key_file_load_from_data(file, text, (gsize)-1, G_KEY_FILE_NONE, &problem)) {
		unsigned line = line_of(text, NULL, NULL);
		char where[16] = "";

		if (line)
			g_snprintf(where, sizeof(where), ":%u", line);
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING, "%s%s: %s", path, where,
				g_utf8_validate(text, -1, NULL) ? problem->message
								: "is not UTF-8 text");
	}
	*ret = g_new0(EcKeyfile, 1);
	**ret = (EcKeyfile){
		.path = g_strdup(path),
		.text = g_steal_pointer(&text),
		.file = g_steal_pointer(&file),
	};
	return 0;
}

EcKeyfile *ec_keyfile_free(EcKeyfile *f)
{
	if (!f)
		return NULL;
	/* It may hold a key. */
	explicit_bzero(f->text, strlen(f->text));
	g_free(f->text);
	g_free(f->path);
	g_key_file_unref(f->file);
	g_free(f);
	return NULL;
}

char **ec_keyfile_groups(const EcKeyfile *f)
{
	return g_key_file_get_groups(f->file, NULL);
}

int ec_keyfile_parse(const EcKeyfile *f, const char *group, EcSettings *settings,
		sd_bus_error *ret_error)
{
	g_auto(GStrv) keys = g_key_file_get_keys(f->file, group, NULL, NULL);

	for (char **key = keys; key && *key; key++) {
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
		g_autofree char *value = g_key_file_get_value(f->file, group, *key, NULL);

		if (ec_settings_parse(settings, *key, value, &error) < 0)
			return ec_keyfile_refuse(f, group, *key, &error, ret_error);
	}
	return 0;
}

int ec_keyfile_parse_name(const EcKeyfile *f, const char *group, EcSettings *settings,
		const char *name, sd_bus_error *ret_error)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;

	if (settings->name && !g_str_equal(settings->name, name)) {
		(void)ec_error(&error, EC_ERROR_INVALID_SETTING,
				"name '%s': allowed is '%s', the name of the file", settings->name,
				name);
		return ec_keyfile_refuse(f, group, "name", &error, ret_error);
	}
	if (ec_settings_parse(settings, "name", name, &error) < 0)
		return ec_keyfile_refuse(f, NULL, NULL, &error, ret_error);
	return 0;
}

void ec_keyfile_put(GKeyFile *f, const char *group, const EcSettings *settings)
{
	bool anew = !g_key_file_has_group(f, group);
	size_t n;
	const EcSetting *table = ec_settings_table(&n);

	for (size_t i = 0; i < n; i++) {
		bool own_name = g_str_equal(table[i].key, "name"); /* the file's name says it */

		if (!(table[i].scopes & settings->scope))
			continue;
		if (!own_name && ec_settings_is_given(settings, &table[i]) &&
				!(table[i].flags & EC_SETTING_SECRET)) {
			g_autofree char *text = ec_settings_text(settings, &table[i]);
			g_key_file_set_value(f, group, table[i].key, text);
		} else if (!anew) {
			(void)g_key_file_remove_key(f, group, table[i].key, NULL);
		}
	}
}

static gint compare_names(gconstpointer a, gconstpointer b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

GPtrArray *ec_keyfiles_in(const char *directory)
{
	GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
	g_autoptr(GDir) dir = g_dir_open(directory, 0, NULL);
	const char *entry;

	while (dir && (entry = g_dir_read_name(dir))) {
		if (entry[0] != '.' && g_str_has_suffix(entry, EC_KEYFILE_SUFFIX))
			g_ptr_array_add(names,
					g_strndup(entry,
							strlen(entry) - strlen(EC_KEYFILE_SUFFIX)));
	}
	g_ptr_array_sort(names, compare_names);
	return names;
}

int ec_file_write(const char *path, const char *text, int mode, sd_bus_error *ret_error)
{
	g_autoptr(GError) problem = NULL;

	if (g_file_set_contents_full(path, text, -1, DURABLE, mode, &problem))
		return 0;
	(void)ec_error(ret_error, SD_BUS_ERROR_FAILED, "%s", problem->message);
	return -EIO;
}

int ec_file_write_quickly(const char *path, const char *text, sd_bus_error *ret_error)
{
	g_autofree char *temporary = g_strconcat(path, ".new", NULL);
	g_autoptr(GError) problem = NULL;
	int r = 0;

	if (!g_file_set_contents_full(
			    temporary, text, -1, G_FILE_SET_CONTENTS_NONE, 0644, &problem)) {
		(void)ec_error(ret_error, SD_BUS_ERROR_FAILED, "%s", problem->message);
		return -EIO;
	}
	if (g_rename(temporary, path) < 0) {
		r = -errno;
		(void)ec_error(ret_error, SD_BUS_ERROR_FAILED, "cannot write %s: %s", path,
				g_strerror(-r));
	}
	return r;
}

int ec_keyfile_save(const char *path, void (*put)(GKeyFile *f, gconstpointer data),
		gconstpointer data, const char *group, bool durable, sd_bus_error *ret_error)
{
	g_autoptr(GKeyFile) f = g_key_file_new();
	g_autoptr(GError) problem = NULL;

	if (durable && g_file_test(path, G_FILE_TEST_EXISTS) &&
			!g_key_file_load_from_file(f, path, G_KEY_FILE_KEEP_COMMENTS, &problem))
		return ec_error(ret_error, EC_ERROR_EXISTS,
				"%s is there and cannot be read (%s); mend it or remove it", path,
				problem->message);
	put(f, data);
	g_autofree char *text = g_key_file_to_data(f, NULL, NULL);
	/* An empty group would not be written, and a keyfile needs one. */
	g_autofree char *content = g_key_file_has_group(f, group)
						   ? g_strdup(text)
						   : g_strdup_printf("[%s]\n%s", group, text);
	return durable ? ec_file_write(path, content, 0644, ret_error)
		       : ec_file_write_quickly(path, content, ret_error);
}
