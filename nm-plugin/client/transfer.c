/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client.h"

#include <string.h>
#include <sys/stat.h>

/*
 * DOC: Theory of operation
 *
 * A connection is imported from the file that the daemon keeps for a tunnel, and exported to one:
 * /etc/ethercord/tunnels.d/NAME.conf, group [tunnel], as `ethercordctl export --as keyfile` writes
 * it. Both directions go through EcProfile, so that a connection that was imported is one that the
 * service takes, and a file that was exported is one that the daemon takes.
 *
 * The file says a few things that a connection says elsewhere: the key is a secret (imported, never
 * exported, as by ethercordctl), autostart is connection.autoconnect, name is connection.id. And a
 * connection says things that are none of the daemon's business (ipv4, up-with, ...): they are
 * exported as comments of a form that the import reads, so that a connection can be carried to
 * another machine.
 */

#define GROUP "tunnel"
#define COMMENT "#NetworkManager:"
#define SUFFIX ".conf"
#define FILE_MAX (256L * 1024)
#define BAD NM_VPN_PLUGIN_ERROR, NM_VPN_PLUGIN_ERROR_BAD_ARGUMENTS

/* A file's problem: with its name before the sentence. */
static int refuse(const char *path, const char *sentence, sd_bus_error *ret_error)
{
	return ec_error(ret_error, EC_ERROR_INVALID_SETTING, "%s: %s", path, sentence);
}

static char *read_text(const char *path, sd_bus_error *ret_error)
{
	g_autoptr(GError) problem = NULL;
	g_autofree char *text = NULL;
	struct stat st;
	gsize n;

	/* Looked at before it is opened: a pipe would be waited for. */
	if (stat(path, &st) == 0 && (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX)) {
		(void)refuse(path, "allowed is a regular file of at most 256 KiB", ret_error);
		return NULL;
	}
	if (!g_file_get_contents(path, &text, &n, &problem)) {
		(void)ec_error(ret_error, EC_ERROR_INVALID_SETTING, "%s", problem->message);
		return NULL;
	}
	if (strlen(text) != n || !g_utf8_validate(text, -1, NULL)) {
		explicit_bzero(text, n);
		(void)refuse(path, "is not UTF-8 text", ret_error);
		return NULL;
	}
	return g_steal_pointer(&text);
}

static int check_groups(GKeyFile *file, const char *path, sd_bus_error *ret_error)
{
	g_auto(GStrv) groups = g_key_file_get_groups(file, NULL);

	for (char **g = groups; *g; g++) {
		if (!g_str_equal(*g, GROUP)) {
			g_autofree char *sentence =
					g_strdup_printf("group [%s]: allowed is [" GROUP "]", *g);
			return refuse(path, sentence, ret_error);
		}
	}
	return groups[0] ? 0 : refuse(path, "no group [" GROUP "]", ret_error);
}

static NMSettingConnection *connection_of(NMConnection *c)
{
	return nm_connection_get_setting_connection(c);
}

/* Where a connection says in a place of its own what the file says; false: it is no such key. */
static bool take_elsewhere(
		NMConnection *c, const char *key, const char *text, int *r, sd_bus_error *ret_error)
{
	g_autoptr(EcSettings) s = ec_settings_new();

	/* Which connection a tunnel was exported from: this one will be another. */
	if (g_str_equal(key, "profile"))
		return true;
	if (!g_str_equal(key, "autostart") && !g_str_equal(key, "name"))
		return false;
	*r = ec_settings_parse(s, key, text, ret_error);
	if (s->name)
		g_object_set(connection_of(c), NM_SETTING_CONNECTION_ID, s->name, NULL);
	else if (*r >= 0)
		g_object_set(connection_of(c), NM_SETTING_CONNECTION_AUTOCONNECT,
				(gboolean)s->autostart, NULL);
	return true;
}

static int take_item(NMConnection *c, EcProfile *p, const char *key, const char *text,
		sd_bus_error *ret_error)
{
	int r = 0;

	if (take_elsewhere(c, key, text, &r, ret_error))
		return r;
	return g_str_equal(key, EC_VPN_KEY) ? ec_profile_set_secret(p, key, text, ret_error)
					    : ec_profile_set(p, key, text, ret_error);
}

static int take_group(NMConnection *c, GKeyFile *file, const char *path, EcProfile *p,
		sd_bus_error *ret_error)
{
	g_auto(GStrv) keys = g_key_file_get_keys(file, GROUP, NULL, NULL);

	for (char **key = keys; key && *key; key++) {
		g_autofree char *text = g_key_file_get_value(file, GROUP, *key, NULL);
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
		bool secret = g_str_equal(*key, EC_VPN_KEY);
		int r = take_item(c, p, *key, text, &error);

		if (secret)
			explicit_bzero(text, strlen(text));
		if (r < 0)
			return refuse(path, error.message, ret_error);
	}
	return 0;
}

/* The comments in which an export keeps what the daemon has no use for. */
static int take_comments(
		const char *content, const char *path, EcProfile *p, sd_bus_error *ret_error)
{
	g_auto(GStrv) lines = g_strsplit(content, "\n", -1);

	for (char **line = lines; *line; line++) {
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
		char *equals = strchr(*line, '=');

		if (!g_str_has_prefix(*line, COMMENT) || !equals)
			continue;
		*equals = '\0';
		const char *key = g_strstrip(*line + strlen(COMMENT));
		if (ec_profile_set(p, key, g_strstrip(equals + 1), &error) < 0)
			return refuse(path, error.message, ret_error);
	}
	return 0;
}

static int read_profile(NMConnection *c, const char *path, EcProfile *p, sd_bus_error *ret_error)
{
	g_autoptr(GKeyFile) file = g_key_file_new();
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autoptr(GError) problem = NULL;
	g_autofree char *text = read_text(path, ret_error);
	int r;

	if (!text)
		return -EINVAL;
	if (!g_key_file_load_from_data(file, text, (gsize)-1, G_KEY_FILE_NONE, &problem))
		r = refuse(path, problem->message, ret_error);
	else
		r = check_groups(file, path, ret_error);
	if (r >= 0)
		r = take_group(c, file, path, p, ret_error);
	if (r >= 0)
		r = take_comments(text, path, p, ret_error);
	/* It may hold a key. */
	explicit_bzero(text, strlen(text));
	if (r >= 0 && ec_profile_verify(p, &error) < 0)
		r = refuse(path, error.message, ret_error);
	return r;
}

static void put_items(NMSettingVpn *vpn, const EcProfile *p, bool own)
{
	size_t n;
	const EcSetting *rows = own ? ec_profile_table(&n) : ec_settings_table(&n);

	for (size_t i = 0; i < n; i++) {
		const EcSetting *row = &rows[i];

		g_autofree char *text = ec_client_has(row) ? ec_profile_text(p, row->key) : NULL;
		if (text)
			nm_setting_vpn_add_data_item(vpn, row->key, text);
	}
}

/* The daemon puts no address on a tunnel but those of `address`; a client that joins a network gets
 * one from there. */
static void put_methods(NMConnection *c, const EcSettings *s)
{
	bool automatic = s->mode == EC_MODE_JOIN_REMOTE && !s->bridge;
	NMSetting *four = nm_setting_ip4_config_new();
	NMSetting *six = nm_setting_ip6_config_new();

	g_object_set(four, NM_SETTING_IP_CONFIG_METHOD,
			automatic ? NM_SETTING_IP4_CONFIG_METHOD_AUTO
				  : NM_SETTING_IP4_CONFIG_METHOD_DISABLED,
			NULL);
	g_object_set(six, NM_SETTING_IP_CONFIG_METHOD,
			automatic ? NM_SETTING_IP6_CONFIG_METHOD_AUTO
				  : NM_SETTING_IP6_CONFIG_METHOD_DISABLED,
			NULL);
	nm_connection_add_setting(c, four);
	nm_connection_add_setting(c, six);
}

static char *stem_of(const char *path)
{
	g_autofree char *base = g_path_get_basename(path);

	if (g_str_has_suffix(base, SUFFIX) && strlen(base) > strlen(SUFFIX))
		base[strlen(base) - strlen(SUFFIX)] = '\0';
	return g_utf8_make_valid(base, -1);
}

NMConnection *ec_client_import(const char *path, GError **error)
{
	g_autoptr(NMConnection) c = nm_simple_connection_new();
	g_auto(sd_bus_error) problem = SD_BUS_ERROR_NULL;
	g_autofree char *id = stem_of(path);
	g_autoptr(EcProfile) p = ec_profile_new();
	NMSettingVpn *vpn = NM_SETTING_VPN(nm_setting_vpn_new());
	NMSetting *self = nm_setting_connection_new();

	nm_connection_add_setting(c, self);
	nm_connection_add_setting(c, NM_SETTING(vpn));
	g_object_set(self, NM_SETTING_CONNECTION_ID, id, NM_SETTING_CONNECTION_TYPE,
			NM_SETTING_VPN_SETTING_NAME, NULL);
	if (read_profile(c, path, p, &problem) < 0) {
		(void)ec_client_fail(&problem, BAD, error);
		return NULL;
	}
	g_object_set(vpn, NM_SETTING_VPN_SERVICE_TYPE, EC_PROFILE_SERVICE, NULL);
	put_items(vpn, p, false);
	put_items(vpn, p, true);
	if (p->settings->key)
		nm_setting_vpn_add_secret(vpn, EC_VPN_KEY, p->settings->key);
	put_methods(c, p->settings);
	return g_steal_pointer(&c);
}

/* vpn.data as the service would read it. */
static EcProfile *read_connection(NMConnection *c, sd_bus_error *ret_error)
{
	g_autoptr(EcProfile) p = ec_profile_new();
	g_autoptr(GHashTable) items = ec_client_items(nm_connection_get_setting_vpn(c));
	const char *key, *text;
	GHashTableIter i;

	g_hash_table_iter_init(&i, items);
	while (g_hash_table_iter_next(&i, (gpointer *)&key, (gpointer *)&text)) {
		if (ec_profile_set(p, key, text, ret_error) < 0)
			return NULL;
	}
	return ec_profile_verify(p, ret_error) < 0 ? NULL : g_steal_pointer(&p);
}

static void append_row(GString *text, const char *before, const EcProfile *p, const EcSetting *row)
{
	g_autofree char *value =
			(row->flags & EC_SETTING_SECRET) ? NULL : ec_profile_text(p, row->key);

	if (value && ec_profile_find(row->key) == row)
		g_string_append_printf(text, "%s%s=%s\n", before, row->key, value);
}

static char *make_file(NMConnection *c, const EcProfile *p)
{
	g_autofree char *name = ec_profile_name(p, nm_connection_get_id(c));
	GString *text = g_string_new(NULL);
	size_t n;
	const EcSetting *rows = ec_settings_table(&n);

	g_string_append_printf(text, "# /etc/ethercord/tunnels.d/%s" SUFFIX "\n", name);
	g_string_append_printf(text,
			"# The key is not exported: 'ethercordctl setkey %s' sets it.\n", name);
	g_string_append(text, "[" GROUP "]\n");
	for (size_t i = 0; i < n; i++)
		append_row(text, "", p, &rows[i]);
	if (!nm_setting_connection_get_autoconnect(connection_of(c)))
		g_string_append(text, "autostart=no\n");
	rows = ec_profile_table(&n);
	for (size_t i = 0; i < n; i++)
		append_row(text, COMMENT " ", p, &rows[i]);
	return g_string_free(text, FALSE);
}

bool ec_client_export(const char *path, NMConnection *c, GError **error)
{
	g_auto(sd_bus_error) problem = SD_BUS_ERROR_NULL;
	g_autoptr(EcProfile) p = read_connection(c, &problem);

	if (p && p->tunnel)
		(void)ec_error(&problem, EC_ERROR_INVALID_SETTING,
				"the daemon has the settings: 'ethercordctl export %s --as keyfile' "
				"writes them",
				p->tunnel);
	if (!p || p->tunnel)
		return ec_client_fail(&problem, BAD, error);
	g_autofree char *text = make_file(c, p);
	return g_file_set_contents(path, text, -1, error);
}

char *ec_client_filename(NMConnection *c)
{
	g_auto(sd_bus_error) problem = SD_BUS_ERROR_NULL;
	g_autoptr(EcProfile) p = read_connection(c, &problem);
	g_autoptr(EcProfile) none = ec_profile_new();
	const char *id = nm_connection_get_id(c);
	g_autofree char *name = ec_profile_name(p ? p : none, id ? id : "");

	return g_strconcat(name, SUFFIX, NULL);
}
