/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "encap/gre-common.h"

#include <errno.h>
#include <linux/if_tunnel.h>
#include <linux/ip6_tunnel.h>

/* Internal to the kernel (include/net/ip6_tunnel.h), but reported in IFLA_GRE_FLAGS and
 * IFLA_IPTUN_FLAGS; it computes them anew at every change. */
#define IP6_TNL_F_CAP_XMIT 0x10000u
#define IP6_TNL_F_CAP_RCV 0x20000u
#define IP6_TNL_F_CAP_PER_PACKET 0x40000u

unsigned ec_outer_ip_size(const EcWire *wire)
{
	return wire->remote.family == AF_INET6 ? 40 : 20;
}

unsigned ec_gre_overhead(const EcWire *wire)
{
	return ec_outer_ip_size(wire) + 4 + (wire->id ? 4 : 0);
}

uint32_t ec_ip6_tunnel_flags(const EcWire *wire)
{
	uint32_t flags = IP6_TNL_F_IGN_ENCAP_LIMIT;

	if (wire->local.family != AF_INET6 || IN6_IS_ADDR_UNSPECIFIED(&wire->local.v6))
		return flags | IP6_TNL_F_CAP_PER_PACKET;
	bool scoped = IN6_IS_ADDR_LINKLOCAL(&wire->local.v6) ||
		      IN6_IS_ADDR_LINKLOCAL(&wire->remote.v6);
	if (scoped && !wire->ifindex)
		return flags;
	return flags | IP6_TNL_F_CAP_XMIT | IP6_TNL_F_CAP_RCV;
}

uint32_t ec_ip6_flowinfo(const EcWire *wire)
{
	return (uint32_t)wire->tos << 20;
}

static int fill_outer4(const EcWire *wire, struct nl_msg *m)
{
	/* Fragmenting needs both: no path MTU discovery of its own, and the inner packet's DF not
	 * copied. The kernel refuses IGNORE_DF together with PMTUDISC. */
	if (nla_put_u8(m, IFLA_GRE_TOS, wire->tos) < 0 ||
			nla_put_u8(m, IFLA_GRE_PMTUDISC, !wire->fragment) < 0 ||
			nla_put_u8(m, IFLA_GRE_IGNORE_DF, wire->fragment) < 0)
		return -ENOBUFS;
	return 0;
}

static int fill_outer6(const EcWire *wire, struct nl_msg *m)
{
	if (nla_put_u8(m, IFLA_GRE_ENCAP_LIMIT, 0) < 0 ||
			nla_put_u32(m, IFLA_GRE_FLOWINFO, htonl(ec_ip6_flowinfo(wire))) < 0 ||
			nla_put_u32(m, IFLA_GRE_FLAGS, ec_ip6_tunnel_flags(wire)) < 0)
		return -ENOBUFS;
	return 0;
}

static int fill_encap(const EcWire *wire, uint16_t type, struct nl_msg *m)
{
	bool udp = type != TUNNEL_ENCAP_NONE;
	/* The inner packets carry their own checksums; over IPv6 a zero UDP checksum is refused by
	 * receivers that were not told to expect it. */
	uint16_t flags = udp && wire->remote.family == AF_INET6 ? TUNNEL_ENCAP_FLAG_CSUM6 : 0;

	if (nla_put_u16(m, IFLA_GRE_ENCAP_TYPE, type) < 0 ||
			nla_put_u16(m, IFLA_GRE_ENCAP_FLAGS, flags) < 0 ||
			nla_put_u16(m, IFLA_GRE_ENCAP_SPORT, htons(udp ? wire->data_port : 0)) <
					0 ||
			nla_put_u16(m, IFLA_GRE_ENCAP_DPORT,
					htons(udp ? wire->remote_data_port : 0)) < 0)
		return -ENOBUFS;
	return 0;
}

int ec_gre_fill(const EcWire *wire, bool sequence, uint16_t encap_type, struct nl_msg *m)
{
	int size = (int)ec_address_size(&wire->remote);
	uint16_t key = wire->id ? GRE_KEY : 0;
	uint16_t oflags = key | (sequence ? GRE_SEQ : 0);
	const EcAddress none = { 0 };
	const EcAddress *local = wire->local.family == wire->remote.family ? &wire->local : &none;

	if (nla_put_u32(m, IFLA_GRE_LINK, (uint32_t)wire->ifindex) < 0 ||
			nla_put_u16(m, IFLA_GRE_IFLAGS, key) < 0 ||
			nla_put_u16(m, IFLA_GRE_OFLAGS, oflags) < 0 ||
			nla_put_u32(m, IFLA_GRE_IKEY, htonl(wire->id)) < 0 ||
			nla_put_u32(m, IFLA_GRE_OKEY, htonl(wire->id)) < 0 ||
			nla_put(m, IFLA_GRE_LOCAL, size, local->bytes) < 0 ||
			nla_put(m, IFLA_GRE_REMOTE, size, wire->remote.bytes) < 0 ||
			nla_put_u8(m, IFLA_GRE_TTL, wire->ttl) < 0 ||
			nla_put_u32(m, IFLA_GRE_FWMARK, wire->fwmark) < 0)
		return -ENOBUFS;
	int r = wire->remote.family == AF_INET6 ? fill_outer6(wire, m) : fill_outer4(wire, m);
	return r < 0 ? r : fill_encap(wire, encap_type, m);
}
