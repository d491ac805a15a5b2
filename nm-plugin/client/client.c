/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client.h"

#include <string.h>

bool ec_client_fail(sd_bus_error *error, GQuark domain, int code, GError **ret_error)
{
	g_set_error_literal(ret_error, domain, code, error->message);
	sd_bus_error_free(error);
	return false;
}

bool ec_client_has(const EcSetting *row)
{
	return (row->scopes & EC_SCOPE_TUNNEL) && !(row->flags & EC_SETTING_SECRET) &&
	       ec_profile_find(row->key) == row;
}

GHashTable *ec_client_items(NMSettingVpn *vpn)
{
	GHashTable *items = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	g_autofree const char **keys = vpn ? nm_setting_vpn_get_data_keys(vpn, NULL) : NULL;

	for (const char **key = keys; key && *key; key++)
		g_hash_table_insert(items, g_strdup(*key),
				g_strdup(nm_setting_vpn_get_data_item(vpn, *key)));
	return items;
}

/* "mtu '60': allowed ..." and "local and remote: ..." begin with a key. */
static char *first_key(const char *sentence)
{
	return g_strndup(sentence, strcspn(sentence, " :='"));
}

/* One problem after the other: what has one is taken back, to see what else there is. */
static void check_together(EcProfile *p, GHashTable *problems)
{
	bool more = true;

	while (more) {
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;

		if (ec_profile_verify(p, &error) >= 0)
			return;
		g_autofree char *key = first_key(error.message);
		more = !g_hash_table_contains(problems, key);
		/* Without a remote there is nothing to look at. */
		(void)ec_profile_set(p, key, g_str_equal(key, "remote") ? "192.0.2.1" : "", NULL);
		if (more)
			g_hash_table_insert(
					problems, g_steal_pointer(&key), g_strdup(error.message));
	}
}

GHashTable *ec_client_check(GHashTable *items)
{
	GHashTable *problems = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	g_autoptr(EcProfile) p = ec_profile_new();
	const char *key, *text;
	GHashTableIter i;

	g_hash_table_iter_init(&i, items);
	while (g_hash_table_iter_next(&i, (gpointer *)&key, (gpointer *)&text)) {
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;

		if (ec_profile_set(p, key, text, &error) < 0)
			g_hash_table_insert(problems, g_strdup(key), g_strdup(error.message));
	}
	if (g_hash_table_contains(problems, "remote"))
		(void)ec_profile_set(p, "remote", "192.0.2.1", NULL);
	check_together(p, problems);
	return problems;
}
