/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "settings.h"

/*
 * What stands in vpn.data and vpn.secrets of a NetworkManager connection of ours: the settings of a
 * tunnel, as text, under the names that they have everywhere, and a few keys that only
 * NetworkManager has a use for. One table says everything about those, in the form of the settings'
 * own: the service, the editors and the manual are made from both.
 */

#define EC_PROFILE_SERVICE "org.freedesktop.NetworkManager.ethercord"

/* Where the addresses on the tunnel come from. Not given: from the connection's ipvX.method. */
typedef enum EcProfileIp {
	EC_PROFILE_IP_METHOD,
	EC_PROFILE_IP_DHCP,
	EC_PROFILE_IP_AUTO,
	EC_PROFILE_IP_STATIC,
	EC_PROFILE_IP_NONE,
	_EC_PROFILE_IP_MAX,
} EcProfileIp;

/* NMSettingSecretFlags. */
typedef enum EcProfileKeyFlags {
	EC_PROFILE_KEY_AGENT_OWNED = 1 << 0,
	EC_PROFILE_KEY_NOT_SAVED = 1 << 1,
	EC_PROFILE_KEY_NOT_REQUIRED = 1 << 2,
} EcProfileKeyFlags;

typedef struct EcProfile {
	EcSettings *settings; /* of a tunnel; its key is the secret, its name is that below */
	char *name;           /* of the tunnel; NULL: made from the connection's id */
	char *tunnel;  /* present this tunnel of the daemon; then nothing in settings is given */
	int ipv4;      /* EcProfileIp */
	int ipv6;      /* EcProfileIp */
	char *up_with; /* id or UUID of another connection */
	uint32_t key_flags; /* EcProfileKeyFlags */
	bool key_flags_given;
} EcProfile;

EcProfile *ec_profile_new(void);
EcProfile *ec_profile_free(EcProfile *p);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(EcProfile, ec_profile_free)

/* The rows of the keys that are no settings of a tunnel. Their offsets are into EcProfile; a choice
 * is kept as its index plus one, 0 for none. */
const EcSetting *ec_profile_table(size_t *ret_n);
/* The row of a key of vpn.data, or of the secret: of that table, or of the settings'. NULL for what
 * a connection cannot say. */
const EcSetting *ec_profile_find(const char *key);

/* One item of vpn.data; empty text takes it back. Fails with InvalidSetting that names the key and
 * what is allowed. */
int ec_profile_set(EcProfile *p, const char *key, const char *text, sd_bus_error *ret_error);
/* One item of vpn.secrets; there is only `key`. */
int ec_profile_set_secret(EcProfile *p, const char *key, const char *text, sd_bus_error *ret_error);
/* The rules that need more than one key: pure. A name may be missing. */
int ec_profile_verify(const EcProfile *p, sd_bus_error *ret_error);
/* The text that ec_profile_set() takes; NULL when it was not given. */
char *ec_profile_text(const EcProfile *p, const char *key);
/* The tunnel's name: the profile's own, or the connection's id with '-' for what no name has. */
char *ec_profile_name(const EcProfile *p, const char *id);
