/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <net/if.h>

#include "fou.h"
#include "netlink.h"
#include "util.h"

/*
 * The kernel's network configuration over netlink. All of it is synchronous: rtnetlink runs inside
 * sendmsg() anyway (facts: model-codebases.md §4.4). Every failure is -errno as the kernel gave it
 * and an error named org.ethercord1.Error.Kernel whose sentence ends in the kernel's own words.
 */
typedef struct EcKernel EcKernel;

/* Links that we made carry this group from their first moment, and soon after this alias; both are
 * how they are found again after a crash. A bridge we made has the alias EC_ALIAS_BRIDGE, which no
 * tunnel name can equal. */
#define EC_LINK_GROUP 0x65636f72u /* "ecor" */
#define EC_LINK_GROUP_DOOMED 0x65636f64u
#define EC_ALIAS_PREFIX "ethercord:"
#define EC_ALIAS_BRIDGE EC_ALIAS_PREFIX "/bridge"

/* One link as RTM_NEWLINK tells it. */
typedef struct EcLink {
	int ifindex;
	char name[IF_NAMESIZE];
	char kind[24];  /* IFLA_INFO_KIND, "" for hardware */
	char alias[96]; /* IFLA_IFALIAS, cut */
	unsigned flags; /* IFF_* */
	uint16_t type;  /* ARPHRD_* */
	uint32_t mtu;
	uint32_t gso_segments; /* IFLA_GSO_MAX_SEGS */
	uint32_t group;
	int master; /* ifindex of the bridge, 0 = none */
	uint8_t mac[6];
	bool dormant; /* its carrier is off, or will be as soon as it is up */
	uint64_t rx_packets, rx_bytes, rx_dropped, tx_packets, tx_bytes, tx_dropped;
	struct nlattr *data; /* a copy of IFLA_INFO_DATA, or NULL */
} EcLink;

void ec_link_done(EcLink *link);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(EcLink, ec_link_done)
/* Fills *ret from an RTM_NEWLINK or RTM_DELLINK message; -EBADMSG when it is malformed. */
int ec_link_parse(const struct nlmsghdr *h, EcLink *ret);
/* Whether every attribute in `want`, `length` bytes of attributes as fill() makes them, is what the
 * kernel reported in `have`. An attribute the kernel left out equals zero. Pure. */
bool ec_link_data_matches(const struct nlattr *have, const void *want, int length);

/* runtime_dir holds the marks of FOU ports that are ours. */
int ec_kernel_new(const char *runtime_dir, EcKernel **ret);
EcKernel *ec_kernel_free(EcKernel *k);

/* 1 and *ret, 0 when there is no such link, or -errno. Counters are zero. */
int ec_kernel_link_by_name(EcKernel *k, const char *name, EcLink *ret, sd_bus_error *ret_error);
int ec_kernel_link_by_index(EcKernel *k, int ifindex, EcLink *ret, sd_bus_error *ret_error);
/* The same with the counters. */
int ec_kernel_link_counters(EcKernel *k, int ifindex, EcLink *ret);
/* Calls f for each link of the namespace. -EINTR when links came and went all the while. */
int ec_kernel_links(EcKernel *k, void (*f)(const EcLink *link, void *userdata), void *userdata,
		sd_bus_error *ret_error);

/* What one RTM_NEWLINK changes: unset members are left as they are. */
typedef struct EcLinkChange {
	int ifindex;              /* the link; 0: made anew (or found by name with no flag set) */
	const char *name;         /* for a new link */
	const char *kind;         /* with info_data: (re)configures the kind */
	struct nl_msg *info_data; /* attributes of IFLA_INFO_DATA, or NULL */
	const uint8_t *mac;       /* 6 bytes */
	uint32_t mtu;
	uint32_t gso_segments; /* of a super-frame that local TCP makes, at most */
	uint32_t group;
	const char *alias;
	const int *master; /* ifindex, 0 = take off */
	const bool *up;
	/* true: no carrier, for kinds that have none of their own to switch: IFF_RUNNING drops, a
	 * bridge disables the port; the state stays over down and up. Frames still go in and out of
	 * the interface itself. */
	const bool *dormant;
	/* The carrier itself, for TUN devices: false: what is sent into the interface is dropped.
	 */
	const bool *carrier;
	bool no_ipv6_autoconf; /* IFLA_INET6_ADDR_GEN_MODE none */
} EcLinkChange;

/* Makes the link (ifindex 0) or changes it; one message. */
int ec_kernel_link_set(EcKernel *k, const EcLinkChange *change, sd_bus_error *ret_error);
/* 0 also when it is gone already. */
int ec_kernel_link_delete(EcKernel *k, int ifindex, sd_bus_error *ret_error);
/* Deletes every link of a group in one operation: one RCU grace period for all of them. */
int ec_kernel_link_delete_group(EcKernel *k, uint32_t group, sd_bus_error *ret_error);

/* Where a VXLAN interface without a remote sends all frames to: the one default entry (MAC zero) of
 * its forwarding database. Sends nothing when that is so already; entries that lead elsewhere are
 * removed after the new one is there, so no frame is lost. own_port: UDP port of the interface,
 * which the kernel leaves out of its reports. */
int ec_kernel_vxlan_remote_set(EcKernel *k, int ifindex, const EcAddress *remote, uint16_t port,
		uint16_t own_port, sd_bus_error *ret_error);

/* Adds or removes one interface address; adding what is there and removing what is not succeed. */
int ec_kernel_address_set(EcKernel *k, int ifindex, const EcAddress *a, unsigned length,
		bool present, sd_bus_error *ret_error);

/* What the kernel would do with a packet. */
typedef struct EcRoute {
	int ifindex;
	EcAddress source;  /* the source it would pick */
	EcAddress gateway; /* next hop of the same family, AF_UNSPEC when on link */
	uint32_t mtu;      /* metric of the route, 0 = the device's */
	uint32_t table;
	uint8_t type; /* RTN_* */
} EcRoute;
/* A packet, as far as routing and IPsec policies look at it. Host byte order. */
typedef struct EcFlow {
	EcAddress remote;
	EcAddress local; /* AF_UNSPEC: any */
	uint32_t fwmark;
	uint8_t protocol; /* IP protocol, 0: not told. FOU counts as 47 (underlay.md §0.5) */
	uint16_t port;    /* the peer's UDP port with protocol 17 */
} EcFlow;
/* 1 and *ret; 0 when there is no route, *ret_why then says how the kernel put it. The protocol is
 * told to the kernel where it takes it: for UDP only. */
int ec_kernel_route_get(EcKernel *k, const EcFlow *flow, EcRoute *ret, sd_bus_error *ret_why);

/* The receive ports of foo-over-UDP. */
EcFou *ec_kernel_fou(EcKernel *k);

/* True for a Wi-Fi interface that cannot be a bridge port: a station without 4-address mode or an
 * ad-hoc member, whose frames carry one source address only (linux/nl80211.h). */
bool ec_kernel_wifi_refuses_bridge(EcKernel *k, int ifindex);
