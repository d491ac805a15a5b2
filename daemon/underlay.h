/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <net/if.h>

#include "kernel.h"
#include "settings.h"
#include "util.h"

/*
 * An underlay is the VPN (or, asked for by name, the bare network) that tunnels ride on. One kind
 * is one file under plugins/underlay/ and one const struct; one EcUnderlay is made for each value
 * of the setting `underlay` in use and shared by its tunnels.
 *
 * The kind follows its VPN through watch() and says so with ec_underlay_changed(); the manager then
 * asks path() again for each tunnel. A tunnel without a path is `waiting`, with path()'s sentence.
 */

/* The question: where do packets of this flow leave? */
typedef struct EcFlow {
	EcAddress remote;
	EcAddress local; /* wanted source, AF_UNSPEC: any */
	uint32_t fwmark;
} EcFlow;

/* The answer. */
typedef struct EcPath {
	EcAddress local; /* source address packets will carry */
	int ifindex;     /* output device */
	char device[IF_NAMESIZE];
	bool bind;    /* the tunnel must be bound to that device where its kind can be */
	bool protect; /* packets on this path cannot leave in clear */
	uint32_t mtu; /* bytes of the outer IP packet that need no fragment */
} EcPath;

typedef struct EcUnderlay EcUnderlay;
typedef struct EcUnderlayKind EcUnderlayKind;

/* paths: path() may answer otherwise now; else only what is shown of the underlay changed. */
typedef void (*EcUnderlayChanged)(EcUnderlay *u, bool paths, void *userdata);

struct EcUnderlayKind {
	const char *name;
	size_t size; /* of the kind's struct, which begins with its EcUnderlay */
	/* Does underlay=SETTING mean this kind? Pure. */
	bool (*serves)(const char *setting);
	/* Begins to follow the VPN; never blocks. NULL where netlink events say all. */
	int (*watch)(EcUnderlay *u, sd_bus_error *ret_error);
	/* 1 and *ret, or 0 and the sentence why not in ret_why (NoUnderlay, NotProtected, Loop). */
	int (*path)(EcUnderlay *u, const EcFlow *flow, EcPath *ret, sd_bus_error *ret_why);
	void (*done)(EcUnderlay *u);
};

/* What an underlay lives on; all of it outlives the underlay. */
typedef struct EcUnderlayHost {
	EcKernel *kernel;
	sd_event *event;
	sd_bus *bus;
	EcUnderlayChanged changed;
	void *userdata;
} EcUnderlayHost;

struct EcUnderlay {
	const EcUnderlayKind *kind;
	unsigned refs;
	char *setting; /* "any", "device:tun0" */
	char *name;    /* unique, for the object path: "any", "tun0" */
	EcUnderlayHost host;

	/* What path() and watch() last learnt, for the bus. */
	char device[IF_NAMESIZE]; /* "" when none */
	bool up;
	bool protect;
	uint32_t mtu; /* bytes, 0 unknown */
};

extern const EcUnderlayKind ec_underlay_route;
/* All of this build; NULL-terminated. Tests have their own list. */
extern const EcUnderlayKind *const ec_underlay_kinds[];

/* NULL when no kind of this build serves the setting. */
const EcUnderlayKind *ec_underlay_find(const char *setting);
int ec_underlay_new(const char *setting, const EcUnderlayHost *host, EcUnderlay **ret,
		sd_bus_error *ret_error);
EcUnderlay *ec_underlay_ref(EcUnderlay *u);
EcUnderlay *ec_underlay_unref(EcUnderlay *u);
int ec_underlay_path(EcUnderlay *u, const EcFlow *flow, EcPath *ret, sd_bus_error *ret_why);
/* Kinds call this when a path may have changed. */
void ec_underlay_report(EcUnderlay *u);
