/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <net/if.h>

#include "util.h"

/*
 * The guard keeps a tunnel's packets inside its VPN, both directions, whatever the routes, the VPN
 * and this daemon do. Two layers that know nothing of each other hold the same fence:
 *
 *   nftables   table inet ethercord: drops by output device or missing IPsec, and the same inbound
 *   route      for an interface VPN: a private routing table that knows the VPN's device or nothing
 *   xfrm       for policy IPsec: a block policy behind all others
 *
 * A fence is armed before the interface exists and removed after it is gone. It stays when the
 * daemon ends, however it ends; the next daemon takes it over from the runtime directory.
 */

/* The private routing table. Whoever asks the kernel for a route must look through it. */
#define EC_GUARD_ROUTE_TABLE 60260u

typedef enum EcFence {
	EC_FENCE_NONE,      /* nothing confines the tunnel: underlay=any */
	EC_FENCE_INTERFACE, /* the VPN's device and no other */
	EC_FENCE_IPSEC,     /* through IPsec policies, whatever the device */
} EcFence;

/* What one tunnel's packets look like and where they may pass. Host byte order. */
typedef struct EcGuardSpec {
	EcFence fence;
	char device[IF_NAMESIZE]; /* EC_FENCE_INTERFACE: the only device */
	bool ipsec_within;        /* ...which is an IPsec interface (xfrm, vti): what it has taken
				     leaves by another one, under a policy */
	EcAddress gateway;        /* next hop on that device; AF_UNSPEC: the peer is on link */
	EcAddress local, remote;  /* outer addresses, same family */
	uint8_t protocol;         /* IP protocol on the wire: 47 GRE, 4/41 IP in IP, 17 UDP */
	uint8_t lookup_protocol;  /* the one the kernel looks routes and policies up with; differs
				     for FOU: 47, though UDP is on the wire (underlay.md §0.5) */
	uint8_t second_protocol;  /* another one, wire and lookup (41 beside 4 with IP in IPv6), or
				     0 */
	uint16_t local_port;      /* UDP port that takes the peer's packets; 0 without UDP */
	uint16_t remote_port;     /* UDP port of the peer; 0 without UDP */
	bool has_vni;             /* several tunnels share the port and are told apart by this: */
	uint32_t vni;             /* VXLAN network identifier, 24 bits */
	bool anybody;             /* EC_FENCE_INTERFACE and UDP: the peer is whoever comes through
				     the device: ours is what has local_port, to and from anywhere */
	bool protect;             /* the fence is a VPN, not just a device that was asked for */
	char vpn[96];             /* of the VPN, for sentences: "OpenVPN on tun0" */
} EcGuardSpec;

/* Layers that hold. */
typedef enum EcGuardLayers {
	EC_GUARD_NFTABLES = 1 << 0,
	EC_GUARD_ROUTE = 1 << 1,
	EC_GUARD_XFRM = 1 << 2,
} EcGuardLayers;

typedef struct EcGuard EcGuard;

/* Something about the armed layers changed (one was lost for good, or came back): the tunnels
 * should look again. Called from the event loop, never from within a call of ec_guard_*(). */
typedef void (*EcGuardChanged)(void *userdata);

/* Reads what an earlier daemon left in runtime_dir/guards and arms all of it anew, in one piece and
 * without a gap. table: of nftables, "ethercord"; a second daemon in the network namespace needs
 * another. Follows changes of nftables by itself: what somebody flushed is back at once. A layer
 * that this kernel cannot do is not an error here. -errno only where nothing could be set up. */
int ec_guard_new(sd_event *event, const char *runtime_dir, const char *table,
		EcGuardChanged changed, void *userdata, EcGuard **ret);
/* Frees memory: everything that is armed stays. */
EcGuard *ec_guard_free(EcGuard *g);

/* Arms the fence of tunnel `name`, or changes it in one piece: the old one holds until the new one
 * does. The same spec again costs nothing. 0 when at least one layer holds; NotProtected with both
 * layers' own words when none does, and then the old fence stays. */
int ec_guard_arm(EcGuard *g, const char *name, const EcGuardSpec *spec, sd_bus_error *ret_error);
/* What was armed last, also by an earlier daemon; NULL when nothing is. */
const EcGuardSpec *ec_guard_spec(const EcGuard *g, const char *name);
/* EcGuardLayers that hold for this tunnel now; 0 also when it has no fence. */
unsigned ec_guard_layers(const EcGuard *g, const char *name);
/* Why a layer (one bit) does not hold, in the kernel's or nftables' own words; "" when it does. */
const char *ec_guard_why(const EcGuard *g, unsigned layer);
/* Marks the fence for removal; arming it again takes that back. */
void ec_guard_disarm(EcGuard *g, const char *name);
/* Removes the marked ones, in one transaction: the interfaces are gone by now. What fences ICMP
 * errors to the peer stays for 10 s, or until ec_guard_free(). Cannot fail. */
void ec_guard_flush(EcGuard *g);
/* Marks every fence that none of the names (a set) has. For the start, when files of tunnels may
 * have vanished meanwhile. */
void ec_guard_retain(EcGuard *g, GHashTable *names);
/* Routes, rules or XFRM policies changed: puts back what is missing of the route and xfrm layers.
 * Sends nothing where nothing is missing. */
void ec_guard_recheck(EcGuard *g);
/* Packets dropped by nftables for this tunnel since it was armed; out: tried to leave outside the
 * VPN, in: came from outside it. Tunnels with the same flow share a count. False when unknown. */
bool ec_guard_counters(EcGuard *g, const char *name, uint64_t *ret_out, uint64_t *ret_in);

/* Names of the layers in `layers`, for the bus: "nftables", "route", "xfrm"; NULL-terminated static
 * strings in ret. */
void ec_guard_words(unsigned layers, const char *ret[static 4]);

/*
 * MSS clamp: TCP through a bridged tunnel never needs outer fragments. nftables, table bridge
 * ethercord. mss4, mss6: largest segment in bytes; 0, 0 takes the clamp off. Best effort: -errno
 * with a sentence when nftables cannot; nothing leaks by that.
 */
int ec_guard_clamp(EcGuard *g, const char *name, const char *ifname, uint16_t mss4, uint16_t mss6,
		sd_bus_error *ret_error);
