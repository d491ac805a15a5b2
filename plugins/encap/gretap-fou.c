/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "encap/gre-common.h"
#include "encap/user-common.h"

#include <linux/if_ether.h>
#include <linux/if_tunnel.h>

/*
 * Ethernet in GRE in UDP (foo-over-UDP): for paths that pass UDP only, as behind NAT.
 *
 * Every packet carries a GRE sequence number. A receiver that does GRO on the underlay would
 * otherwise merge the GRE packets inside the UDP datagrams and lose them: TCP falls to about
 * 1 Mbit/s on Linux 6.1. The receiver need not expect the numbers, so the far end may be any
 * gretap over FOU.
 */

#define UDP_SIZE 8
#define SEQUENCE_SIZE 4

static int fill(const EcWire *wire, struct nl_msg *info_data)
{
	return ec_gre_fill(wire, true, TUNNEL_ENCAP_FOU, info_data);
}

static unsigned overhead(const EcWire *wire)
{
	return UDP_SIZE + ec_gre_overhead(wire) + SEQUENCE_SIZE + ETH_HLEN;
}

/* Bound to the same address and device as the link: what comes in otherwise is nobody's. */
static EcFouPort port_of(const EcWire *wire)
{
	EcFouPort port = {
		.port = wire->data_port, .local = wire->local, .ifindex = wire->ifindex
	};

	port.local.family = wire->remote.family; /* all zero where the link has none */
	return port;
}

static int up(const EcWire *wire, EcKernel *kernel, sd_bus_error *ret_error)
{
	const EcFouPort port = port_of(wire);

	return ec_fou_ref(ec_kernel_fou(kernel), &port, ret_error);
}

static void down(const EcWire *wire, EcKernel *kernel)
{
	const EcFouPort port = port_of(wire);

	ec_fou_unref(ec_kernel_fou(kernel), &port);
}

const EcEncap ec_encap_gretap_fou = {
	.name = "gretap-fou",
	.kind4 = "gretap",
	.kind6 = "ip6gretap",
	.flags = EC_ENCAP_ETHERNET | EC_ENCAP_BINDS | EC_ENCAP_UDP | EC_ENCAP_FRAGMENTS_V4 |
		 EC_ENCAP_FWMARK,
	.data_port = 65201,
	.id_max = UINT32_MAX,
	.protocol = IPPROTO_UDP,
	.lookup_protocol = IPPROTO_GRE,
	.fill = fill,
	.overhead = overhead,
	.up = up,
	.down = down,
};

/* To routes and policies it is what it is on the wire. */
const EcEncap ec_encap_gretap_fou_user = {
	.name = "gretap-fou",
	.worker = EC_WORKER_GRETAP_FOU,
	.kind4 = EC_USER_KIND,
	.kind6 = EC_USER_KIND,
	.flags = EC_USER_FLAGS | EC_ENCAP_ETHERNET | EC_ENCAP_TOO_BIG,
	.data_port = 65201,
	.id_max = UINT32_MAX,
	.protocol = IPPROTO_UDP,
	.lookup_protocol = IPPROTO_UDP,
	.fill = ec_user_fill_tap,
	.overhead = overhead,
};
