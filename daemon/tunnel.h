/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "binding.h"
#include "encap.h"
#include "mtu.h"
#include "resolve.h"
#include "settings.h"
#include "store.h"
#include "underlay.h"

/*
 * States and what each owns. Only set_state() in tunnel.c writes the state.
 *
 *              wanted  underlay  interface              bridge, attach  leaves by
 *   down       no      -         none                   released        Activate
 *   waiting    yes     held      none, or ours and down kept            path found, Deactivate
 *                                (agreed: up, no carrier)
 *   connecting yes     held      none, or ours and up,  kept            frames crossed both ways
 *                                no carrier
 *   up         yes     held      ours and up            joined          path lost, Deactivate
 *   degraded   yes     held      ours, no carrier       kept            peer answers (control)
 *   failed     yes     held      none, or ours and down kept            Activate, Update, or the
 *                                                                       missing thing appears
 *
 * With control=static nobody answers: a tunnel goes from waiting to up.
 */
typedef enum EcState {
	EC_STATE_DOWN,
	EC_STATE_WAITING,
	EC_STATE_CONNECTING,
	EC_STATE_UP,
	EC_STATE_DEGRADED,
	EC_STATE_FAILED,
	_EC_STATE_MAX,
} EcState;

const char *ec_state_to_string(EcState state);

/* Properties that the bus signals, as bits of EcTunnel.changed; the order of tunnel-bus.c's names.
 */
typedef enum EcProperty {
	EC_PROPERTY_SETTINGS = 1 << 0,
	EC_PROPERTY_MODE = 1 << 1,
	EC_PROPERTY_STATE = 1 << 2, /* with StateReason and SinceUsec */
	EC_PROPERTY_INTERFACE = 1 << 3,
	EC_PROPERTY_IFINDEX = 1 << 4,
	EC_PROPERTY_BRIDGE = 1 << 5,
	EC_PROPERTY_ENCAPSULATION = 1 << 6, /* with DataPlane */
	EC_PROPERTY_LOCAL = 1 << 7,
	EC_PROPERTY_REMOTE = 1 << 8,
	EC_PROPERTY_ID = 1 << 9,
	EC_PROPERTY_MTU = 1 << 10,      /* with LargestFrame */
	EC_PROPERTY_UNDERLAY = 1 << 11, /* with Protected and ProtectedBy */
	EC_PROPERTY_PERSISTENT = 1 << 12,
	EC_PROPERTY_FIDELITY = 1 << 13,
	EC_PROPERTY_PEER = 1 << 14,
} EcProperty;

typedef struct EcManager EcManager;
typedef struct EcListener EcListener;
typedef struct EcSession EcSession;
typedef struct EcWorkerHost EcWorkerHost;

typedef struct EcTunnel {
	EcManager *manager;
	EcSettings *settings;
	EcOrigin origin;
	char ifname[IF_NAMESIZE]; /* wanted name of the interface */
	EcBinding *binding;       /* with `profile`: who holds it; NULL: it is not bound */
	EcListener *listener;     /* that accepted it; NULL: it dials */
	char *peer;               /* the name the peer gave itself; NULL: none yet */
	EcSession *session; /* control channel, agreement, liveness; NULL with control=static */

	EcState state;
	const char *reason; /* token: an error name without prefix, "" when there is nothing to say
			     */
	char *sentence;
	uint64_t since_usec; /* CLOCK_REALTIME */
	bool wanted;         /* Activate was last, not Deactivate */
	bool attached;       /* `attach` was put in the bridge by us */
	bool dirty;          /* to be reconciled in the manager's next round */
	bool suspect;        /* the same, by the last event about its interface */
	bool announced;      /* the bus knows the object: changes are signalled */
	unsigned changed;    /* EcProperty bits not signalled yet */

	EcAddress *remotes; /* of the setting, names resolved, in order; NULL until then */
	size_t n_remotes;
	size_t turn;      /* of the remotes, the one to try first; 0 unless that peer failed */
	EcAddress remote; /* the one in use; AF_UNSPEC until there is one */
	/* With roam=yes and a VPN, which the way to remote tells: where the peer's data came from
	 * last; AF_UNSPEC: nobody else has come. */
	EcAddress roamed;
	uint16_t remote_port; /* with roam=yes: where the peer's data came from last; 0: not known
			       */
	EcResolve *resolve;
	sd_event_source *retry;
	unsigned attempts; /* resolutions that failed in a row */

	/* What reconcile.c built. */
	EcUnderlay *underlay; /* a reference; NULL until a VPN answers */
	EcPath path;
	unsigned layers;      /* EcGuardLayers that hold */
	bool protect;         /* they hold it inside a VPN */
	uint16_t mss4;        /* TCP over IPv4 is clamped to this, 0: not, UINT16_MAX: not known */
	const EcEncap *encap; /* NULL: not chosen */
	EcWire wire;
	EcMtu mtu;
	int ifindex;   /* 0: no interface */
	int bridge;    /* ifindex of the bridge it was put in, 0 = none */
	bool encap_up; /* encap->up() holds something, with held as its argument */
	EcWire held;
	EcWorkerHost *worker; /* with an encapsulation of the user data plane; NULL: none yet */
	GBytes *asked;        /* IFLA_INFO_DATA that we asked for last, ... */
	GBytes *settled;      /* ... and the kernel's report of it where that has another form */
} EcTunnel;

/* Takes the settings over; they are verified. State is down. */
EcTunnel *ec_tunnel_new(EcManager *m, EcSettings *settings, EcOrigin origin);
/* Frees memory only: the interface stays as it is. */
EcTunnel *ec_tunnel_free(EcTunnel *t);
const char *ec_tunnel_name(const EcTunnel *t);
/* IFLA_IFALIAS of its interface. Free it. */
char *ec_tunnel_alias(const EcTunnel *t);

/* Wants the tunnel and does at once what can be done. 0 when it is up or waits for something that
 * ends by itself; -errno and the sentence when it failed (the state then says the same). */
int ec_tunnel_activate(EcTunnel *t, sd_bus_error *ret_error);
/* Cannot fail. The interface is gone after the manager's next flush. */
void ec_tunnel_deactivate(EcTunnel *t);
/* The same without a record or a signal, for a tunnel that is being forgotten. */
void ec_tunnel_drop(EcTunnel *t);
/* Takes new, verified settings over and applies them to a running tunnel in place where the kernel
 * allows. On failure everything is as before. */
int ec_tunnel_update(EcTunnel *t, EcSettings *settings, sd_bus_error *ret_error);
/* Compares with the kernel and mends. */
void ec_tunnel_refresh(EcTunnel *t);
/* The same in a second. */
void ec_tunnel_try_again(EcTunnel *t);
/* Enters the state that the session with the peer is in now; the interface follows. */
void ec_tunnel_look(EcTunnel *t);
/* Looks the names of the remotes up anew; what is known stays until there is an answer. */
void ec_tunnel_resolve_again(EcTunnel *t);
/* Another address of the peer, which proved who it is. */
void ec_tunnel_move(EcTunnel *t, const EcAddress *remote);
/* The same for roam=yes, where nobody proves anything: data came from there. */
void ec_tunnel_follow(EcTunnel *t, const EcAddress *remote, uint16_t port);
/* Where data goes to. */
const EcAddress *ec_tunnel_data_remote(const EcTunnel *t);
/* Whether it has no remote and waits for whoever comes (roam=yes). */
bool ec_tunnel_awaits_client(const EcTunnel *t);
/* Tells the bus of something that happened: kind, then pairs of key and text, then NULL. */
void ec_tunnel_event(EcTunnel *t, const char *kind, ...) G_GNUC_NULL_TERMINATED;
/* Notes for the next start of the daemon whether the tunnel is wanted. */
void ec_tunnel_record(const EcTunnel *t);
/* The settings with what was negotiated in the place of what they leave open. */
const EcSettings *ec_tunnel_terms(const EcTunnel *t);
/* Adds bits of properties to be signalled. */
void ec_tunnel_touch(EcTunnel *t, unsigned properties);
