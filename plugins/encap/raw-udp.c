/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <linux/if_ether.h>

#include "encap/gre-common.h"
#include "encap/user-common.h"

/*
 * A bare Ethernet frame in each UDP datagram, as tap2tap (port 1234) and QuickTun's raw protocol
 * (port 2998) send it. Nothing in it says whose it is: frames are taken from the peer's address and
 * port alone.
 */

#define UDP_SIZE 8

static unsigned overhead(const EcWire *wire)
{
	return ec_outer_ip_size(wire) + UDP_SIZE + ETH_HLEN;
}

const EcEncap ec_encap_raw_udp = {
	.name = "raw-udp",
	.worker = EC_WORKER_RAW_UDP,
	.kind4 = EC_USER_KIND,
	.kind6 = EC_USER_KIND,
	.flags = EC_USER_FLAGS | EC_ENCAP_ETHERNET | EC_ENCAP_TOO_BIG | EC_ENCAP_NAMELESS,
	.data_port = 1234,
	.protocol = IPPROTO_UDP,
	.lookup_protocol = IPPROTO_UDP,
	.fill = ec_user_fill_tap,
	.overhead = overhead,
};
