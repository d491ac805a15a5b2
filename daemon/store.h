/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "settings.h"

/*
 * What the daemon keeps in files: one keyfile per tunnel and per listener, their keys, and in the
 * runtime directory what must survive a crash of the daemon but not a reboot.
 *
 * Keys are STATE/keys/TUNNEL, STATE/keys/listener:LISTENER and STATE/keys/listener:LISTENER:PEER;
 * no name has a colon. Records of listeners are called as their keys.
 */
typedef struct EcStore EcStore;

/* Where a keyfile lives; the first directory that has NAME.conf wins. */
typedef enum EcOrigin {
	EC_ORIGIN_CONFIG,  /* --config-dir, /etc/ethercord: persistent, written by us and by hand */
	EC_ORIGIN_RUNTIME, /* --runtime-dir, /run/ethercord: gone after a reboot */
	EC_ORIGIN_VENDOR,  /* /usr/lib/ethercord: persistent, belongs to packages, never written */
	_EC_ORIGIN_MAX,
} EcOrigin;

/* What a tunnel or listener was doing, for the next start of the daemon. */
typedef struct EcRecord {
	bool known;    /* there is a record: otherwise autostart decides */
	bool wanted;   /* Activate, not Deactivate, was last */
	bool attached; /* the interface of `attach` was put in the bridge by us */
} EcRecord;

/* Makes missing directories, 0755 but for the keys' (0700). vendor_dir may be NULL. */
int ec_store_new(const char *config_dir, const char *state_dir, const char *runtime_dir,
		const char *vendor_dir, EcStore **ret, sd_bus_error *ret_error);
EcStore *ec_store_free(EcStore *s);
const char *ec_store_runtime_dir(const EcStore *s);

typedef struct EcStoreReader {
	/* Takes the settings over. */
	void (*tunnel)(EcSettings *settings, EcOrigin origin, void *userdata);
	/* sentence: "FILE:LINE: KEY ...: allowed is ..."; name: of the tunnel, or NULL */
	void (*broken)(const char *name, const char *sentence, void *userdata);
	void *userdata;
} EcStoreReader;

/* Reads every tunnel's keyfile; a broken one is reported and the others are read. */
void ec_store_read_tunnels(EcStore *s, const EcStoreReader *reader);
/* Writes a tunnel's keyfile atomically; for EC_ORIGIN_CONFIG it is on the disk on return. Keeps the
 * comments of a file that is there. Secrets are left out. */
int ec_store_save(EcStore *s, const EcSettings *settings, EcOrigin origin, sd_bus_error *ret_error);
/* Forgets everything about a tunnel. */
int ec_store_remove(EcStore *s, const char *name, EcOrigin origin, sd_bus_error *ret_error);

/* key: base64 as in the setting. The file is 0600 and durable. */
int ec_store_set_key(EcStore *s, const char *name, const char *key, sd_bus_error *ret_error);
/* 1 and the key; 0 when there is none; -errno when it cannot be read or is no key. */
int ec_store_get_key(EcStore *s, const char *name, uint8_t ret[static 32]);

/* Listeners: store-listeners.c. peers: name -> EcSettings of EC_SCOPE_PEER. */
typedef struct EcStoreListenerReader {
	/* Takes both over. */
	void (*listener)(EcSettings *settings, GHashTable *peers, EcOrigin origin, void *userdata);
	void (*broken)(const char *name, const char *sentence, void *userdata);
	void *userdata;
} EcStoreListenerReader;

void ec_store_read_listeners(EcStore *s, const EcStoreListenerReader *reader);
int ec_store_save_listener(EcStore *s, const EcSettings *settings, GHashTable *peers,
		EcOrigin origin, sd_bus_error *ret_error);
/* Forgets everything about a listener, its peers' keys, too. */
int ec_store_remove_listener(
		EcStore *s, const char *name, EcOrigin origin, sd_bus_error *ret_error);
/* As those of tunnels; peer NULL: of the listener itself. */
int ec_store_set_listener_key(EcStore *s, const char *listener, const char *peer, const char *key,
		sd_bus_error *ret_error);
int ec_store_get_listener_key(
		EcStore *s, const char *listener, const char *peer, uint8_t ret[static 32]);
void ec_store_forget_listener_key(EcStore *s, const char *listener, const char *peer);
/* The name of a listener's record for ec_store_get_record() and the others. Free it. */
char *ec_store_listener_record(const char *listener);

EcRecord ec_store_get_record(EcStore *s, const char *name);
/* With known false the record is removed. */
void ec_store_set_record(EcStore *s, const char *name, EcRecord record);
/* Removes what a crash left of tunnels that are no more: those whose names are not in the set. */
void ec_store_forget_records(EcStore *s, GHashTable *but);

/* 32 bytes that no other machine and no other installation has, for derived MAC addresses. */
void ec_store_machine_seed(EcStore *s, uint8_t ret[static 32]);
