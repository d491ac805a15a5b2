/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "settings.h"
#include "store.h"

/*
 * A listener accepts peers that nobody made a tunnel for: settings, peers and a wish (wanted). It
 * makes no connection itself: control-answer.c holds the ports, asks the listeners about who comes,
 * and makes one tunnel (Role accept) for each peer that is let in.
 *
 *   down    not wanted
 *   up      its port is open
 *   failed  its port cannot be opened; why in the sentence; tried again by itself
 */
typedef struct EcManager EcManager;
typedef struct EcListener EcListener;

typedef enum EcListenerState {
	EC_LISTENER_DOWN,
	EC_LISTENER_UP,
	EC_LISTENER_FAILED,
	_EC_LISTENER_STATE_MAX,
} EcListenerState;

/* Properties that the bus signals, as bits of EcListener.changed. */
typedef enum EcListenerProperty {
	EC_LISTENER_SETTINGS = 1 << 0, /* with PeerSettings */
	EC_LISTENER_STATE = 1 << 1,    /* with StateReason */
	EC_LISTENER_PEERS = 1 << 2,
	EC_LISTENER_PERSISTENT = 1 << 3,
} EcListenerProperty;

struct EcListener {
	EcManager *manager;
	EcSettings *settings; /* EC_SCOPE_LISTENER: its own, and what its peers get */
	GHashTable *peers;    /* name -> EcSettings, EC_SCOPE_PEER: [peer NAME] */
	EcOrigin origin;
	bool asked;  /* Activate was last, not Deactivate */
	bool wanted; /* and this build can do what its settings say: the port is to be open */
	bool announced;
	EcListenerState state;
	const char *reason; /* as of EcTunnel */
	char *sentence;
	unsigned changed; /* EcListenerProperty bits not signalled yet */
	sd_event_source *signal;
};

const char *ec_listener_state_to_string(EcListenerState state);

/* Both take everything over; it is verified. State is down. */
EcListener *ec_listener_new(EcManager *m, EcSettings *settings, GHashTable *peers, EcOrigin origin);
EcListener *ec_listener_free(EcListener *l);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(EcListener, ec_listener_free)
const char *ec_listener_name(const EcListener *l);
/* The port it wants open: of its settings, or the daemon's. */
uint16_t ec_listener_port(const EcListener *l);

/* The one writer of the state; called by control-answer.c when it opened the port or could not. One
 * that is asked for and cannot be wanted is never down but failed, and says why. */
void ec_listener_set_state(
		EcListener *l, EcListenerState state, const char *reason, const char *sentence);
/* Adds bits of properties to be signalled, and signals them when the loop comes around. */
void ec_listener_touch(EcListener *l, unsigned properties);
/* Signals them now, before the reply that tells of them. */
void ec_listener_signal(EcListener *l);
/* Wants its port open, also after a restart of the daemon. 0 when it is up; -errno and the sentence
 * when it failed (the state then says the same). */
int ec_listener_activate(EcListener *l, sd_bus_error *ret_error);
/* Sets what is asked for, and wanted by it; ec_answer_refresh() then acts on that. */
void ec_listener_ask(EcListener *l, bool asked);
/* Cannot fail; the accepted tunnels go. */
void ec_listener_deactivate(EcListener *l);

/* Pure. Whether any peer, or with a name this one, may come from this address: `allow` of the peer
 * where it has one, else of the listener; no `allow` at all: with a key from anywhere, keyless from
 * nowhere. */
bool ec_listener_allows(const EcListener *l, const char *peer, const EcAddress *from, bool keyless);

typedef enum EcListenerKey {
	EC_LISTENER_KEY_FOUND,   /* the peer's own, or the listener's for all that have none */
	EC_LISTENER_KEY_NONE,    /* this peer needs none: keyless from where allow says */
	EC_LISTENER_KEY_UNKNOWN, /* no such peer here */
} EcListenerKey;
/* The key for a peer's name. Keys are read from the store each time: SetPeer counts at once. */
EcListenerKey ec_listener_key(EcListener *l, const char *peer, uint8_t ret[static 32]);

/* Pure. Whether a peer with these settings (NULL: none of its own) can have the mode it wants here:
 * the bridged modes need a bridge at this end, point-to-point allows none. Refused, with what to
 * change. */
int ec_listener_check_mode(const EcSettings *listener, const EcSettings *peer, EcMode mode,
		sd_bus_error *ret_error);

/* The settings of the tunnel for a peer that was let in from this address (EC_SCOPE_TUNNEL,
 * verified): the listener's, over them the peer's; name LISTENER.PEER, shortened without collision;
 * identity the peer's name;
 * interface by the listener's pattern (%n: the lowest number that no interface here has) or the
 * peer's; mode as the peer wants it. NULL with an error when they do not fit together (Refused:
 * "the listener joins no bridge: ...", "the listener joins bridge br0: use mode=..."). */
EcSettings *ec_listener_tunnel_settings(EcListener *l, const char *peer, const EcAddress *from,
		EcMode mode, sd_bus_error *ret_error);
/* Accepted tunnels that exist. */
unsigned ec_listener_count(const EcListener *l);

/* manager-listeners.c: the manager's listeners. */
EcListener *ec_manager_find_listener(EcManager *m, const char *name);
/* Takes both over in any case. With activate, a listener that fails at once is not added. */
int ec_manager_add_listener(EcManager *m, EcSettings *settings, GHashTable *peers, EcOrigin origin,
		bool activate, EcListener **ret, sd_bus_error *ret_error);
/* The same from its file: nothing is written or activated. */
int ec_manager_load_listener(EcManager *m, EcSettings *settings, GHashTable *peers, EcOrigin origin,
		EcListener **ret, sd_bus_error *ret_error);
/* Takes both over in any case; they replace the listener's. save: and go to its file. On failure
 * everything is as before. */
int ec_manager_update_listener(EcManager *m, EcListener *l, EcSettings *settings, GHashTable *peers,
		bool save, sd_bus_error *ret_error);
int ec_manager_remove_listener(EcManager *m, EcListener *l, sd_bus_error *ret_error);
/* An empty table of them. */
GHashTable *ec_manager_listeners_new(void);
