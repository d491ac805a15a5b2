/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "encap/gre-common.h"

#include <errno.h>
#include <linux/if_tunnel.h>

/* IP in IP with nothing between: IPv4 in IPv4 (protocol 4; the kernel's ipip cannot take IPv6), or
 * IPv4 and IPv6 in IPv6 (protocols 4 and 41). It cannot fragment packets that have DF set. */

static int fill_outer4(const EcWire *wire, struct nl_msg *m)
{
	if (nla_put_u8(m, IFLA_IPTUN_TOS, wire->tos) < 0 ||
			nla_put_u8(m, IFLA_IPTUN_PMTUDISC, !wire->fragment) < 0 ||
			nla_put_u8(m, IFLA_IPTUN_PROTO, IPPROTO_IPIP) < 0)
		return -ENOBUFS;
	return 0;
}

static int fill_outer6(const EcWire *wire, struct nl_msg *m)
{
	if (nla_put_u8(m, IFLA_IPTUN_ENCAP_LIMIT, 0) < 0 ||
			nla_put_u32(m, IFLA_IPTUN_FLOWINFO, htonl(ec_ip6_flowinfo(wire))) < 0 ||
			nla_put_u32(m, IFLA_IPTUN_FLAGS, ec_ip6_tunnel_flags(wire)) < 0 ||
			nla_put_u8(m, IFLA_IPTUN_PROTO, 0) < 0) /* either */
		return -ENOBUFS;
	return 0;
}

static int fill(const EcWire *wire, struct nl_msg *m)
{
	int size = (int)ec_address_size(&wire->remote);
	const EcAddress none = { 0 };
	const EcAddress *local = wire->local.family == wire->remote.family ? &wire->local : &none;

	if (nla_put_u32(m, IFLA_IPTUN_LINK, (uint32_t)wire->ifindex) < 0 ||
			nla_put(m, IFLA_IPTUN_LOCAL, size, local->bytes) < 0 ||
			nla_put(m, IFLA_IPTUN_REMOTE, size, wire->remote.bytes) < 0 ||
			nla_put_u8(m, IFLA_IPTUN_TTL, wire->ttl) < 0 ||
			nla_put_u32(m, IFLA_IPTUN_FWMARK, wire->fwmark) < 0 ||
			nla_put_u16(m, IFLA_IPTUN_ENCAP_TYPE, TUNNEL_ENCAP_NONE) < 0 ||
			nla_put_u16(m, IFLA_IPTUN_ENCAP_FLAGS, 0) < 0 ||
			nla_put_u16(m, IFLA_IPTUN_ENCAP_SPORT, 0) < 0 ||
			nla_put_u16(m, IFLA_IPTUN_ENCAP_DPORT, 0) < 0)
		return -ENOBUFS;
	return wire->remote.family == AF_INET6 ? fill_outer6(wire, m) : fill_outer4(wire, m);
}

const EcEncap ec_encap_ipip = {
	.name = "ipip",
	.kind4 = "ipip",
	.kind6 = "ip6tnl",
	.flags = EC_ENCAP_BINDS | EC_ENCAP_FWMARK,
	.protocol = IPPROTO_IPIP,
	.lookup_protocol = IPPROTO_IPIP,
	.second_protocol6 = IPPROTO_IPV6,
	.fill = fill,
	.overhead = ec_outer_ip_size,
};
