/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <NetworkManager.h>

#include "profile.h"

/*
 * What the programs that show and edit connections load: libnm-vpn-plugin-ethercord.so, which knows
 * no toolkit, and one of two editors, made from one source for GTK 3 and for GTK 4.
 */

/* The one secret, and the item that says who keeps it. */
#define EC_VPN_KEY "key"
#define EC_VPN_KEY_FLAGS "key-flags"

/* The symbol that an editor's module has for the plugin. */
#define EC_EDITOR_NEW "ec_editor_new"
typedef NMVpnEditor *(*EcEditorNew)(NMConnection *connection, GError **error);
NMVpnEditor *ec_editor_new(NMConnection *connection, GError **error);

/* Turns the sentence into a GError of that domain and code, and frees it. Always false. */
bool ec_client_fail(sd_bus_error *error, GQuark domain, int code, GError **ret_error);

/* Whether an item of vpn.data is made from this row of a table. */
bool ec_client_has(const EcSetting *row);
/* What is wrong with items of vpn.data: key -> sentence; empty when nothing is. What takes more
 * than one key stands under the key that the sentence begins with. */
GHashTable *ec_client_check(GHashTable *items);
/* A copy of vpn.data: key -> text. */
GHashTable *ec_client_items(NMSettingVpn *vpn);

/* A connection from our keyfile, and our keyfile from a connection. */
NMConnection *ec_client_import(const char *path, GError **error);
bool ec_client_export(const char *path, NMConnection *connection, GError **error);
/* NAME.conf */
char *ec_client_filename(NMConnection *connection);
