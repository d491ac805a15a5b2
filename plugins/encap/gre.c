/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "encap/gre-common.h"

#include <linux/if_tunnel.h>

/* IP in GRE (IP protocol 47). */

static int fill(const EcWire *wire, struct nl_msg *info_data)
{
	return ec_gre_fill(wire, false, TUNNEL_ENCAP_NONE, info_data);
}

const EcEncap ec_encap_gre = {
	.name = "gre",
	.kind4 = "gre",
	.kind6 = "ip6gre",
	.flags = EC_ENCAP_BINDS | EC_ENCAP_FRAGMENTS_V4 | EC_ENCAP_FWMARK,
	.id_max = UINT32_MAX,
	.protocol = IPPROTO_GRE,
	.lookup_protocol = IPPROTO_GRE,
	.fill = fill,
	.overhead = ec_gre_overhead,
};
