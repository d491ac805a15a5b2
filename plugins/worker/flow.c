/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow.h"

#include <linux/if_ether.h>
#include <netinet/in.h>
#include <string.h>

#define MAC_SIZE (2 * ETH_ALEN)
#define TAG_SIZE 4
#define V4_SIZE 20
#define V6_SIZE 40
#define FRAGMENT_BITS 0x3fff /* IPv4: more fragments, offset */

/* Bernstein's would do; this spreads better at the same price. */
static uint32_t mix(uint32_t hash, const uint8_t *data, size_t length)
{
	uint32_t word;

	for (; length >= sizeof(word); length -= sizeof(word), data += sizeof(word)) {
		memcpy(&word, data, sizeof(word));
		hash = (hash ^ word) * 0x9e3779b1u;
		hash ^= hash >> 15;
	}
	for (; length; length--, data++)
		hash = (hash ^ *data) * 0x9e3779b1u;
	return hash;
}

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static bool is_tag(uint16_t type)
{
	return type == ETH_P_8021Q || type == ETH_P_8021AD;
}

size_t ec_flow_network(const uint8_t *frame, size_t length, bool ethernet)
{
	size_t at = ETH_HLEN;

	if (!ethernet)
		return 0;
	while (at + TAG_SIZE <= length && is_tag(get16(frame + at - 2)))
		at += TAG_SIZE;
	return at <= length ? at : length;
}

static bool has_ports(uint8_t protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}

static void transport(EcFlow *f, uint8_t protocol, const uint8_t *data, size_t length)
{
	const bool ports = has_ports(protocol);

	f->exact = ports ? length >= 4 : protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;
	f->flow = mix(f->pair ^ protocol, data, ports && length >= 4 ? 4 : 0);
}

/* What the link header, or without one the packet's first nibble, says. */
static uint16_t network_type(const uint8_t *frame, size_t length, size_t network)
{
	if (network >= ETH_HLEN)
		return get16(frame + network - 2);
	if (network || !length)
		return 0;
	return frame[0] >> 4 == 4 ? ETH_P_IP : frame[0] >> 4 == 6 ? ETH_P_IPV6 : 0;
}

EcFlow ec_flow(const uint8_t *frame, size_t length, bool ethernet)
{
	const size_t network = ec_flow_network(frame, length, ethernet);
	const uint16_t type = network_type(frame, length, network);
	const uint8_t *ip = frame + network;
	const size_t rest = length - network;
	EcFlow f = { .pair = mix(0x5bd1e995, frame, network) };

	if (type == ETH_P_IP && rest >= V4_SIZE && ip[0] >> 4 == 4 && (ip[0] & 15) * 4 >= V4_SIZE) {
		const size_t size = (size_t)(ip[0] & 15) * 4;

		f.pair = mix(f.pair, ip + 12, 8);
		f.flow = f.pair;
		if (!(get16(ip + 6) & FRAGMENT_BITS) && rest >= size)
			transport(&f, ip[9], ip + size, rest - size);
	} else if (type == ETH_P_IPV6 && rest >= V6_SIZE && ip[0] >> 4 == 6) {
		f.pair = mix(f.pair, ip + 8, 32);
		f.flow = f.pair;
		transport(&f, ip[6], ip + V6_SIZE, rest - V6_SIZE);
	} else {
		f.flow = f.pair;
	}
	return f;
}
