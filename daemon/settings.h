/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "util.h"

/*
 * One table says everything about a setting: its key, type, range, default and help. The keyfile
 * reader, the D-Bus dictionary, `ethercordctl add KEY=VALUE`, shell completion and the option list
 * of ethercord(5) are made from it. Adding a setting is adding a field here and a row there.
 */

/* What a set of settings is of; a row of the table says by a mask which sets it belongs to. */
typedef enum EcScope {
	EC_SCOPE_TUNNEL = 1 << 0,   /* [tunnel] */
	EC_SCOPE_LISTENER = 1 << 1, /* [listener] */
	EC_SCOPE_PEER = 1 << 2,     /* [peer NAME] of a listener */
	EC_SCOPE_ALL = EC_SCOPE_TUNNEL | EC_SCOPE_LISTENER | EC_SCOPE_PEER,
} EcScope;

typedef enum EcMode {
	EC_MODE_POINT_TO_POINT,
	EC_MODE_JOIN_REMOTE,
	EC_MODE_JOIN_NETWORKS,
	_EC_MODE_MAX,
} EcMode;

typedef enum EcControl {
	EC_CONTROL_ETHERCORD,
	EC_CONTROL_STATIC,
	EC_CONTROL_DYNAMIC_FOU,
	EC_CONTROL_TUNNEL_SERVER,
	_EC_CONTROL_MAX,
} EcControl;

typedef enum EcDataPlane {
	EC_DATA_PLANE_AUTO,
	EC_DATA_PLANE_KERNEL,
	EC_DATA_PLANE_USER,
	_EC_DATA_PLANE_MAX,
} EcDataPlane;

typedef enum EcFullFrames {
	EC_FULL_FRAMES_AUTO,
	EC_FULL_FRAMES_YES,
	EC_FULL_FRAMES_NO,
	_EC_FULL_FRAMES_MAX,
} EcFullFrames;

typedef enum EcSplit {
	EC_SPLIT_AUTO,
	EC_SPLIT_YES,
	EC_SPLIT_NO,
	_EC_SPLIT_MAX,
} EcSplit;

typedef enum EcFidelity {
	EC_FIDELITY_BRIDGE,
	EC_FIDELITY_TRANSPARENT,
	EC_FIDELITY_WIRE,
	_EC_FIDELITY_MAX,
} EcFidelity;

/* D-Bus signature in brackets. A choice travels as its word and is kept as its enum. */
typedef enum EcSettingType {
	EC_SETTING_STRING,  /* s   char *, NULL when empty */
	EC_SETTING_STRINGS, /* as  char **, NULL when empty */
	EC_SETTING_CHOICE,  /* s   int, index into choices */
	EC_SETTING_BOOL,    /* b   bool */
	EC_SETTING_UINT16,  /* q   uint16_t */
	EC_SETTING_UINT32,  /* u   uint32_t */
	_EC_SETTING_TYPE_MAX,
} EcSettingType;

typedef enum EcSettingFlags {
	EC_SETTING_SECRET = 1 << 0, /* write-only: kept in the key store, never shown */
} EcSettingFlags;

typedef struct EcSettings {
	EcScope scope;    /* one; fields of rows of other scopes are zero */
	uint64_t given;   /* bit n: row n of the table was given, not defaulted */
	uint64_t cleared; /* bit n: its default was asked back (empty text) */
	char *name;
	int mode; /* EcMode */
	char **remote;
	char *local;
	uint16_t port;
	int control; /* EcControl */
	char *key;
	char *identity;
	char **allow;
	uint32_t max_peers;
	char **compat;
	char *underlay;
	char **encapsulation;
	int data_plane; /* EcDataPlane */
	uint32_t id;
	uint16_t data_port;
	uint16_t remote_data_port;
	char *interface;
	char *mac;
	uint32_t mtu;    /* bytes, 0 = auto */
	int full_frames; /* EcFullFrames */
	int split;       /* EcSplit */
	bool roam;
	char **address;
	char *bridge;
	bool bridge_create;
	char *attach;
	int fidelity; /* EcFidelity */
	char **guard;
	uint32_t storm_limit;        /* frames/s */
	uint32_t keepalive_interval; /* ms */
	uint32_t keepalive_timeout;  /* ms */
	char *gre_keepalive;
	bool link_loss_forwarding;
	uint32_t ttl;
	uint32_t dscp;
	uint32_t fwmark;
	bool autostart;
	char *profile;
} EcSettings;

typedef struct EcSetting {
	const char *key;
	EcSettingType type;
	size_t offset;  /* of the field in EcSettings */
	EcScope scopes; /* a key has one row, or one for each scope */
	EcSettingFlags flags;
	uint32_t min, max;          /* of numbers */
	const char *const *choices; /* words of a choice or of a list, NULL-terminated, or NULL */
	bool (*is_valid)(const char *item); /* extra check of a string or of each list item */
	const char *allowed;       /* what is_valid() wants, for the error and the manual */
	const char *fallback;      /* the default as text; NULL: none */
	const char *fallback_help; /* how the manual words the default where it is derived */
	const char *help;          /* one paragraph for the manual */
} EcSetting;

/* The rows, in the order of the manual; *ret_n of them. */
const EcSetting *ec_settings_table(size_t *ret_n);
/* The row of a tunnel's setting; NULL when there is no such key. */
const EcSetting *ec_setting_find(const char *key);
const EcSetting *ec_setting_find_in(EcScope scope, const char *key);
/* "tunnel", "listener" or "peer". */
const char *ec_scope_to_string(EcScope scope);
/* "s", "as", "b", "q" or "u". */
const char *ec_setting_signature(const EcSetting *setting);

/* All defaults, nothing given; of a tunnel, or of another scope. */
EcSettings *ec_settings_new(void);
EcSettings *ec_settings_new_for(EcScope scope);
EcSettings *ec_settings_copy(const EcSettings *s);
EcSettings *ec_settings_free(EcSettings *s);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(EcSettings, ec_settings_free)

/* One value in the text form of keyfiles, the command line and NetworkManager: lists are separated
 * by commas, semicolons or blanks; booleans are yes/no, true/false, on/off, 1/0. Empty text gives
 * the default. Fails with InvalidSetting that names the key and what is allowed. */
int ec_settings_parse(EcSettings *s, const char *key, const char *text, sd_bus_error *ret_error);
/* Reads a whole a{sv} at the message's cursor over s. An empty string, for any type, or an empty
 * list takes the default back. On failure s is half changed: read into a copy. */
int ec_settings_read(EcSettings *s, sd_bus_message *m, sd_bus_error *ret_error);
/* Appends an a{sv} with the name, everything given, and an empty string for what was cleared.
 * Secrets only with with_secrets. */
int ec_settings_append(const EcSettings *s, sd_bus_message *m, bool with_secrets);
/* The value of one row as text that ec_settings_parse() takes; "" when empty. */
char *ec_settings_text(const EcSettings *s, const EcSetting *setting);
/* Copies one setting, where it is given, from a set of any scope. -EINVAL where it is no value of
 * that key here. */
int ec_settings_take(EcSettings *s, const EcSettings *from, const char *key);
bool ec_settings_is_given(const EcSettings *s, const EcSetting *setting);
/* Its default was asked back. */
bool ec_settings_is_cleared(const EcSettings *s, const EcSetting *setting);
/* Whether a row differs between two sets (in its value, not in being given). */
bool ec_settings_differ(const EcSettings *a, const EcSettings *b, const EcSetting *setting);
/* Whether two sets of one scope have the same values; secrets, and the keys in `but` (NULL: none),
 * are not compared. */
bool ec_settings_equal(const EcSettings *a, const EcSettings *b, const char *const *but);
/* The rules that need more than one key (a bridge in point-to-point mode, ...): pure. */
int ec_settings_verify(const EcSettings *s, sd_bus_error *ret_error);
/* A listener with its peers (EC_SCOPE_LISTENER; name -> EC_SCOPE_PEER), all of them: pure. */
int ec_settings_verify_peers(
		const EcSettings *listener, GHashTable *peers, sd_bus_error *ret_error);
/* An empty table of peers, that owns what is put in it. */
GHashTable *ec_settings_peers_new(void);
GHashTable *ec_settings_peers_copy(GHashTable *peers);
/* NotSupported, by name, for what this build cannot do: said when it is asked for, not silently
 * left out. Pure. */
int ec_settings_check_supported(const EcSettings *s, sd_bus_error *ret_error);

/* The word of a choice: ec_settings_word("mode", EC_MODE_JOIN_REMOTE) is "join-remote". */
const char *ec_settings_word(const char *key, int value);
