/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "encap/gre-common.h"
#include "encap/user-common.h"

#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>

/*
 * Ethernet in VXLAN (UDP), to one peer.
 *
 * It learns nothing: with learning on, a frame from anywhere would redirect later ones to where it
 * came from. It is never bound to a device: the kernel would cap its MTU there and delete it with
 * that device. DF stays unset: frames above the path MTU are fragmented, and an inner packet that
 * forbids that is answered with too-big by the kernel itself.
 *
 * Without a NAT the source port varies with the inner flow, as the RFC 7348 wants it. Behind one
 * every packet has to leave from the data port: a range of ports with one member. The peer's
 * address and port, which a NAT may change at any time, are then not the link's but its forwarding
 * database's.
 */

#define UDP_SIZE 8
#define VXLAN_SIZE 8

static int fill_addresses(const EcWire *wire, struct nl_msg *m)
{
	bool v6 = wire->remote.family == AF_INET6;
	int size = (int)ec_address_size(&wire->remote);
	const EcAddress none = { 0 };
	const EcAddress *local = wire->local.family == wire->remote.family ? &wire->local : &none;

	if ((!wire->nat && nla_put(m, v6 ? IFLA_VXLAN_GROUP6 : IFLA_VXLAN_GROUP, size,
					   wire->remote.bytes) < 0) ||
			nla_put(m, v6 ? IFLA_VXLAN_LOCAL6 : IFLA_VXLAN_LOCAL, size, local->bytes) <
					0)
		return -ENOBUFS;
	return 0;
}

static int fill(const EcWire *wire, struct nl_msg *m)
{
	const struct ifla_vxlan_port_range sources = {
		.low = htons(wire->nat ? wire->data_port : 0),
		.high = htons(wire->nat ? wire->data_port + 1 : 0), /* not in it */
	};
	int r = fill_addresses(wire, m);

	if (r < 0)
		return r;
	if (nla_put_u32(m, IFLA_VXLAN_ID, wire->id) < 0 ||
			nla_put_u16(m, IFLA_VXLAN_PORT, htons(wire->data_port)) < 0 ||
			nla_put(m, IFLA_VXLAN_PORT_RANGE, sizeof(sources), &sources) < 0 ||
			nla_put_u8(m, IFLA_VXLAN_TTL, wire->ttl) < 0 ||
			nla_put_u8(m, IFLA_VXLAN_TOS, wire->tos) < 0 ||
			nla_put_u8(m, IFLA_VXLAN_LEARNING, 0) < 0 ||
			nla_put_u8(m, IFLA_VXLAN_DF, VXLAN_DF_UNSET) < 0)
		return -ENOBUFS;
	return 0;
}

static unsigned overhead(const EcWire *wire)
{
	return ec_outer_ip_size(wire) + UDP_SIZE + VXLAN_SIZE + ETH_HLEN;
}

static int settle(const EcWire *wire, int ifindex, EcKernel *kernel, sd_bus_error *ret_error)
{
	return wire->nat ? ec_kernel_vxlan_remote_set(kernel, ifindex, &wire->remote,
					   wire->remote_data_port, wire->data_port, ret_error)
			 : 0;
}

const EcEncap ec_encap_vxlan = {
	.name = "vxlan",
	.kind4 = "vxlan",
	.kind6 = "vxlan",
	.flags = EC_ENCAP_ETHERNET | EC_ENCAP_UDP | EC_ENCAP_SHARES_PORT | EC_ENCAP_TOO_BIG |
		 EC_ENCAP_KEEPS | EC_ENCAP_FRAGMENTS_V4,
	.data_port = 4789,
	.id_max = 0xffffff,
	.protocol = IPPROTO_UDP,
	.lookup_protocol = IPPROTO_UDP,
	.fill = fill,
	.overhead = overhead,
	.settle = settle,
};

const EcEncap ec_encap_vxlan_user = {
	.name = "vxlan",
	.worker = EC_WORKER_VXLAN,
	.kind4 = EC_USER_KIND,
	.kind6 = EC_USER_KIND,
	.flags = EC_USER_FLAGS | EC_ENCAP_ETHERNET | EC_ENCAP_SHARES_PORT | EC_ENCAP_TOO_BIG,
	.data_port = 4789,
	.id_max = 0xffffff,
	.protocol = IPPROTO_UDP,
	.lookup_protocol = IPPROTO_UDP,
	.fill = ec_user_fill_tap,
	.overhead = overhead,
};
