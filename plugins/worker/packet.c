/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "packet.h"

#include <errno.h>
#include <linux/if_ether.h>
#include <netinet/in.h>

#define IPV4_HEADER 20
#define IPV6_HEADER 40
#define VLAN_TAG 4
#define IPV4_FRAGMENT 0x3fff /* more fragments, or an offset */

static int read_ipv4(const uint8_t *frame, size_t length, EcPacket *p)
{
	const uint8_t *ip = frame + p->network;

	if (length - p->network < IPV4_HEADER)
		return -EBADMSG;
	size_t header = (ip[0] & (size_t)0xf) * 4;
	if (ip[0] >> 4 != 4 || header < IPV4_HEADER || header > length - p->network)
		return -EBADMSG;
	p->fragment = ec_get16(ip + 6) & IPV4_FRAGMENT;
	p->plain = header == IPV4_HEADER && !p->fragment;
	p->protocol = ip[9];
	p->transport = (uint16_t)(p->network + header);
	return 0;
}

/* Ends at what is not one of RFC 8200's headers with options, and at a fragment header. */
static int read_ipv6(const uint8_t *frame, size_t length, EcPacket *p)
{
	const uint8_t *ip = frame + p->network;
	size_t at = p->network + IPV6_HEADER;

	if (length < at || ip[0] >> 4 != 6)
		return -EBADMSG;
	p->ipv6 = true;
	p->protocol = ip[6];
	while (p->protocol == IPPROTO_HOPOPTS || p->protocol == IPPROTO_ROUTING ||
			p->protocol == IPPROTO_DSTOPTS || p->protocol == IPPROTO_FRAGMENT) {
		if (length < at + 8)
			return -EBADMSG;
		const uint8_t *header = frame + at;
		size_t size = 8;
		bool last = p->protocol == IPPROTO_FRAGMENT;

		if (last)
			p->fragment = true;
		else
			size += header[1] * (size_t)8;
		if (p->protocol == IPPROTO_ROUTING && header[3] > 0)
			p->routed = true;
		p->protocol = header[0];
		at += size;
		if (at > length || at > EC_PACKET_NETWORK_MAX + IPV6_HEADER)
			return -EBADMSG;
		if (last)
			break;
	}
	p->transport = (uint16_t)at;
	p->plain = p->transport == p->network + IPV6_HEADER;
	return 0;
}

int ec_packet_read(const uint8_t *frame, size_t length, bool ethernet, EcPacket *ret)
{
	*ret = (EcPacket){ 0 };
	if (!ethernet) {
		if (length < 1)
			return -EBADMSG;
		return frame[0] >> 4 == 6 ? read_ipv6(frame, length, ret)
					  : read_ipv4(frame, length, ret);
	}
	for (size_t at = offsetof(struct ethhdr, h_proto);
			at + 2 <= length && at < EC_PACKET_NETWORK_MAX; at += VLAN_TAG) {
		uint16_t type = ec_get16(frame + at);

		if (type == ETH_P_8021Q || type == ETH_P_8021AD || type == ETH_P_QINQ1)
			continue;
		ret->network = (uint16_t)(at + 2);
		return type == ETH_P_IP     ? read_ipv4(frame, length, ret)
		       : type == ETH_P_IPV6 ? read_ipv6(frame, length, ret)
					    : -ENOENT;
	}
	return -EBADMSG;
}
