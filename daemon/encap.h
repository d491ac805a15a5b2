/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "kernel.h"
#include "settings.h"
#include "util.h"

/*
 * An encapsulation is one wire format in one data plane, one const struct; one file under
 * plugins/encap/ per format. Everything
 * that decides what goes on the wire is pure and works on an EcWire, so it is tested without a
 * kernel; the core makes the link from fill(). Differences between kinds are data (flags) or
 * functions here: nothing outside the table asks for a kind by name.
 */

/* What both ends of one tunnel must agree on, resolved: no default is left open. Host byte order.
 */
typedef struct EcWire {
	EcAddress local, remote;   /* same family; local may be unset (AF_UNSPEC) */
	int ifindex;               /* device the link is bound to, 0 = not bound */
	uint32_t id;               /* GRE key (0 = none) or VNI */
	uint16_t data_port;        /* local UDP port */
	uint16_t remote_data_port; /* the peer's UDP port */
	uint8_t ttl;
	uint8_t tos; /* outer TOS / traffic class byte */
	uint32_t fwmark;
	bool fragment; /* frames above the path MTU go out in outer fragments */
	/* There is a NAT between the ends: packets leave from data_port and no other, and remote
	 * and remote_data_port, where the peer's packets come from, may change at any time. Not
	 * with data_port 65535. */
	bool nat;
} EcWire;

typedef enum EcEncapFlags {
	EC_ENCAP_ETHERNET = 1 << 0,     /* carries Ethernet: may be a bridge port; else bare IP */
	EC_ENCAP_BINDS = 1 << 1,        /* the link can be bound to the underlay's device */
	EC_ENCAP_UDP = 1 << 2,          /* has data ports */
	EC_ENCAP_SHARES_PORT = 1 << 3,  /* UDP, and one port serves both directions (VXLAN) */
	EC_ENCAP_TOO_BIG = 1 << 4,      /* answers too-big into the LAN by itself */
	EC_ENCAP_FRAGMENTS_V4 = 1 << 5, /* can send outer IPv4 fragments */
	EC_ENCAP_FRAGMENTS_V6 = 1 << 8, /* and IPv6 ones: a socket's sender fragments */
	EC_ENCAP_KEEPS = 1 << 7,        /* a change of the link keeps what it leaves out */
	EC_ENCAP_FWMARK = 1 << 6,       /* the link carries a mark */
	EC_ENCAP_NAMELESS = 1 << 9,     /* nothing in its packets tells whose they are */
} EcEncapFlags;

typedef struct EcEncap {
	const char *name; /* on the bus, in files and in logs; never changes */
	/* EcWorkerFormat: ethercord-worker carries it, and the link is a TUN device of that; 0: the
	 * kernel does. Both planes of one format have the same name. */
	uint32_t worker;
	const char *kind4; /* IFLA_INFO_KIND over IPv4 */
	const char *kind6; /* over IPv6 */
	EcEncapFlags flags;
	uint8_t protocol; /* IP protocol on the wire */
	/* The protocol that the kernel looks routes and IPsec policies up with: for FOU it is not
	 * the one on the wire (underlay.md §0.5). */
	uint8_t lookup_protocol;
	/* Inner IPv6 travels as this one, 0: as all the rest. Over IPv6 only. */
	uint8_t second_protocol6;
	uint16_t data_port; /* default UDP port, 0 without EC_ENCAP_UDP */
	uint32_t id_max;    /* 0: has no id */

	/* Pure: no system call. fill() appends the attributes of IFLA_INFO_DATA to an open nest,
	 * all of them, every time: a changelink re-initialises what is left out. -ENOBUFS only. */
	int (*fill)(const EcWire *wire, struct nl_msg *info_data);
	/* Bytes that one frame grows by: outer IP header up to the inner IP header, so that
	 * inner MTU = path MTU - overhead (underlay.md §5). */
	unsigned (*overhead)(const EcWire *wire);

	/* What the link needs besides fill() and that changes without touching it: ec_reconcile()
	 * calls it when the link is as fill() says and has its index, before it comes up, and again
	 * each time. Sends nothing when all is right. NULL in most kinds. -errno and an error. */
	int (*settle)(const EcWire *wire, int ifindex, EcKernel *kernel, sd_bus_error *ret_error);

	/* Effects around the link that the core makes from fill(); NULL in most kinds. up() undoes
	 * itself on failure; down() undoes one up() and cannot fail. */
	int (*up)(const EcWire *wire, EcKernel *kernel, sd_bus_error *ret_error);
	void (*down)(const EcWire *wire, EcKernel *kernel);
} EcEncap;

extern const EcEncap ec_encap_gretap, ec_encap_gretap_fou, ec_encap_vxlan, ec_encap_gre,
		ec_encap_ipip;
extern const EcEncap ec_encap_gretap_fou_user, ec_encap_vxlan_user, ec_encap_raw_udp,
		ec_encap_tun_udp;

/* All of this build, in no particular order; NULL-terminated. Tests have their own list. */
extern const EcEncap *const ec_encaps[];

/* The first of that name: what both planes have in common. */
const EcEncap *ec_encap_find(const char *name);
/* "kernel" or "user". */
const char *ec_encap_plane(const EcEncap *encap);
/* The one of that name and plane, or NULL. */
const EcEncap *ec_encap_find_in(const char *name, const char *plane);
const char *ec_encap_kind(const EcEncap *encap, int family);
/* Encapsulations that fit these settings over this address family, best first (NULL-terminated, at
 * most EC_ENCAPS_MAX long): what `encapsulation` lists, or for `auto` the order of design §7. Of
 * each the kernel's is before the worker's, as far as `data-plane` allows them. */
#define EC_ENCAPS_MAX 16
void ec_encap_candidates(
		const EcSettings *s, int family, const EcEncap *ret[static EC_ENCAPS_MAX + 1]);
/* What settings mean for this encapsulation: ports, id, ttl. Addresses, ifindex and fragment are
 * left for the caller. */
void ec_encap_wire(const EcEncap *encap, const EcSettings *s, EcWire *ret);
/* What its packets to this address look like to routes and IPsec policies (pure). */
EcFlow ec_encap_flow(const EcSettings *s, const EcEncap *encap, const EcAddress *remote);
/* Whether this encapsulation can do what the settings ask (pure). InvalidSetting/NotSupported. */
int ec_encap_verify(const EcEncap *encap, const EcSettings *s, int family, sd_bus_error *ret_error);
