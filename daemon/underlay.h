/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <net/if.h>

#include "guard.h"
#include "kernel.h"
#include "settings.h"
#include "util.h"

/*
 * An underlay is a VPN (or, asked for by name, the bare network) that tunnels ride on. One kind of
 * VPN is one file under plugins/underlay/ and one const struct: it recognises its VPNs among the
 * interfaces or the IPsec policies, follows them, and says whether a flow is protected. Every VPN
 * that is recognised is an EcUnderlay, whether a tunnel rides on it or not.
 *
 * The setting `underlay` selects: `vpn` takes whichever VPN the kernel's own routes and policies
 * lead the flow to, a kind's name only one of that kind, device:IFNAME only that interface. See
 * underlay.c for how a flow is answered.
 */

/* The answer to a flow: where its packets leave, and what keeps them there. */
typedef struct EcPath {
	EcAddress local; /* source address packets will carry */
	EcAddress gateway;
	int ifindex; /* output device */
	char device[IF_NAMESIZE];
	EcFence fence;     /* how the guard can confine the flow to this path */
	bool ipsec_within; /* the device is an IPsec interface, see guard.h */
	bool protect;      /* a VPN: packets on this path cannot leave in clear */
	uint32_t mtu;      /* bytes of the outer IP packet that need no fragment, 0 unknown */
} EcPath;

typedef struct EcUnderlayKind EcUnderlayKind;
typedef struct EcUnderlays EcUnderlays;

/* A kind at work: its struct begins with this. */
typedef struct EcSource {
	const EcUnderlayKind *kind;
	EcUnderlays *all;
	EcKernel *kernel;
	sd_event *event;
	sd_bus *bus;
} EcSource;

/* What there is to show of a VPN. */
typedef struct EcLook {
	char title[96];     /* for sentences: "OpenVPN on tun0" */
	bool up;            /* it can carry packets, as far as can be seen */
	bool protect;       /* it encrypts */
	uint32_t mtu;       /* bytes of an IP packet it carries without fragments, 0 unknown */
	GPtrArray *details; /* key, value, key, value...: strings, owned */
} EcLook;

typedef struct EcUnderlay EcUnderlay;

struct EcUnderlayKind {
	const char *name; /* word of the setting and on the bus: "wireguard" */
	size_t size;      /* of the kind's struct, which begins with its EcSource */

	/* Begins to follow; never blocks. What is heard ends in ec_underlay_report(). NULL where
	 * the netlink events on links, addresses, routes and rules say all. A kernel that lacks
	 * what the kind needs is no error: it then recognises nothing. */
	int (*watch)(EcSource *s, sd_bus_error *ret_error);
	void (*done)(EcSource *s);

	/* Is this interface such a VPN? Fills the look if so. Called once for each interface and
	 * again when it changes; must not block. NULL for a kind without interfaces. */
	bool (*recognise)(EcSource *s, const EcLink *link, EcLook *look);
	/* A flow that the kernel's routes lead to an interface that recognise() took. *path is
	 * filled as for an interface VPN (fence, protect, the look's MTU); the kind corrects what
	 * differs. 1, or 0 and the sentence why the VPN does not carry the flow (NoUnderlay,
	 * NotProtected), or -errno. NULL: it carries everything. */
	int (*through)(EcSource *s, const EcLink *link, const EcFlow *flow, EcPath *path,
			sd_bus_error *ret_why);

	/* A flow that no interface VPN takes: policies. *path holds the route and link's MTU; the
	 * kind fills fence, protect, mtu. title: of what protects it. 1: protected. 0: such a VPN
	 * is there for the flow but does not carry it now, why in ret_why. -ENOENT: this kind
	 * knows nothing of the flow. Other -errno: with an error. NULL for interface kinds. */
	int (*flow)(EcSource *s, const EcFlow *flow, EcPath *path, char title[static 96],
			char name[static 96], sd_bus_error *ret_why);
	/* Calls ec_underlay_found() for each VPN that is no interface. */
	void (*list)(EcSource *s);

	/* Adds what this kind knows about a VPN that another kind recognised (its name in
	 * NetworkManager). NULL in most. */
	void (*annotate)(EcSource *s, const EcLink *link, EcLook *look);
	/* Tunnels began (true) or ceased (false) to ride on a VPN of this kind: what has to be
	 * polled is polled only meanwhile. NULL in most. */
	void (*used)(EcSource *s, bool used);
};

struct EcUnderlay {
	const EcUnderlayKind *kind;
	unsigned refs;            /* tunnels that ride on it */
	char *name;               /* unique, for the object path: "tun0", "any" */
	char device[IF_NAMESIZE]; /* "" when it is no interface */
	int ifindex;              /* the one it was recognised on, 0 none now */
	bool seen;                /* it is there (else only held by tunnels) */
	uint64_t looked;          /* iteration of the event loop of the last look */
	EcLook look;
};

typedef struct EcUnderlaysObserver {
	void (*added)(EcUnderlay *u, void *userdata);
	void (*removed)(EcUnderlay *u, void *userdata); /* before it leaves the table */
	void (*changed)(EcUnderlay *u, void *userdata);
	void (*listed)(void *userdata); /* one came or went; the table is right */
	void *userdata;
} EcUnderlaysObserver;

extern const EcUnderlayKind ec_underlay_ipsec, ec_underlay_openvpn, ec_underlay_wireguard,
		ec_underlay_networkmanager, ec_underlay_route;
/* All of this build, asked in this order; NULL-terminated. Tests have their own list. */
extern const EcUnderlayKind *const ec_underlay_kinds[];

/* ask: called when a kind reports that flows may be answered otherwise now. */
int ec_underlays_new(EcKernel *kernel, sd_event *event, sd_bus *bus, void (*ask)(void *userdata),
		void *userdata, EcUnderlays **ret);
EcUnderlays *ec_underlays_free(EcUnderlays *all);
void ec_underlays_observe(EcUnderlays *all, const EcUnderlaysObserver *observer);
/* name -> EcUnderlay */
GHashTable *ec_underlays_table(EcUnderlays *all);
/* An interface appeared, changed or went. Whether it is or was something that tunnels ride on. */
bool ec_underlays_link(EcUnderlays *all, const EcLink *link, bool gone);
/* Looks at every interface and policy anew; before the first flow, and after lost events. */
void ec_underlays_rescan(EcUnderlays *all);
/* The same if a kind reported something since. */
void ec_underlays_refresh(EcUnderlays *all);

/* Answers a flow under a setting of `underlay`. last: the fence that the tunnel had until now, or
 * NULL. 1: *path and *ret, a reference. 0: there is no such path now; ret_why names the VPN and
 * what is wrong (NoUnderlay, NotProtected). -errno: with an error. */
int ec_underlays_resolve(EcUnderlays *all, const char *setting, const EcFlow *flow,
		const EcGuardSpec *last, EcPath *ret_path, EcUnderlay **ret, sd_bus_error *ret_why);
/* What device:IFNAME and any name even while there is nothing: a reference, or NULL. */
EcUnderlay *ec_underlays_named(EcUnderlays *all, const char *setting);
void ec_underlays_release(EcUnderlays *all, EcUnderlay *u);

/* For kinds: what they know may have changed; all interfaces are looked at again soon. */
void ec_underlay_report(EcSource *s);
/* For list(): a VPN that is no interface. The look is taken over. */
void ec_underlay_found(EcSource *s, const char *name, EcLook *look);
/* Appends to look->details. */
void ec_look_add(EcLook *look, const char *key, const char *format, ...) G_GNUC_PRINTF(3, 4);
void ec_look_done(EcLook *look);
