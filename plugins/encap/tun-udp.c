/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "encap/gre-common.h"
#include "encap/user-common.h"

/* A bare IP packet in each UDP datagram, as ttun sends it: no Ethernet, and nothing that says whose
 * it is. */

#define UDP_SIZE 8

static unsigned overhead(const EcWire *wire)
{
	return ec_outer_ip_size(wire) + UDP_SIZE;
}

const EcEncap ec_encap_tun_udp = {
	.name = "tun-udp",
	.worker = EC_WORKER_TUN_UDP,
	.kind4 = EC_USER_KIND,
	.kind6 = EC_USER_KIND,
	.flags = EC_USER_FLAGS | EC_ENCAP_NAMELESS,
	.data_port = 8000,
	.protocol = IPPROTO_UDP,
	.lookup_protocol = IPPROTO_UDP,
	.fill = ec_user_fill_tun,
	.overhead = overhead,
};
