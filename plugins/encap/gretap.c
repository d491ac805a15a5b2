/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "encap/gre-common.h"

#include <linux/if_ether.h>
#include <linux/if_tunnel.h>

/* Ethernet in GRE (IP protocol 47, GRE protocol type 0x6558). */

static int fill(const EcWire *wire, struct nl_msg *info_data)
{
	return ec_gre_fill(wire, false, TUNNEL_ENCAP_NONE, info_data);
}

static unsigned overhead(const EcWire *wire)
{
	return ec_gre_overhead(wire) + ETH_HLEN;
}

const EcEncap ec_encap_gretap = {
	.name = "gretap",
	.kind4 = "gretap",
	.kind6 = "ip6gretap",
	.flags = EC_ENCAP_ETHERNET | EC_ENCAP_BINDS | EC_ENCAP_FRAGMENTS_V4 | EC_ENCAP_FWMARK,
	.id_max = UINT32_MAX,
	.protocol = IPPROTO_GRE,
	.lookup_protocol = IPPROTO_GRE,
	.fill = fill,
	.overhead = overhead,
};
