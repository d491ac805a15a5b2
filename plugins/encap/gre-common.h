/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "encap.h"

/* Appends the attributes of IFLA_INFO_DATA for gre, gretap, ip6gre and ip6gretap, all of them.
 * sequence: packets we send carry a sequence number (what arrives may or may not).
 * encap_type: TUNNEL_ENCAP_NONE, or TUNNEL_ENCAP_FOU with the ports of the wire. */
int ec_gre_fill(const EcWire *wire, bool sequence, uint16_t encap_type, struct nl_msg *info_data);

/* Outer IP header and GRE header with its key, without what the kind adds around them. */
unsigned ec_gre_overhead(const EcWire *wire);
/* Outer IP header alone. */
unsigned ec_outer_ip_size(const EcWire *wire);

/* An IPv6 tunnel's flags. Over IPv6 the kernel adds an 8-byte destination option to each packet
 * unless told not to. It reports the capabilities it derives from the addresses in the same
 * attribute; they are said here too, so that what it reports compares equal to what is wanted. */
uint32_t ec_ip6_tunnel_flags(const EcWire *wire);
/* The traffic class where the kernel wants it in IPv6 tunnels: in the flow information. */
uint32_t ec_ip6_flowinfo(const EcWire *wire);
