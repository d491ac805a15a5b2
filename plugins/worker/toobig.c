/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "toobig.h"

#include <linux/if_ether.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>

#include "checksum.h"
#include "packet.h"

/*
 * DOC: Theory of operation
 *
 * The answer is the frame's own link header with the addresses changed over, an IP header from its
 * destination to its sender, and ICMP with as much of the packet as an answer may quote: 576 bytes
 * in all over IPv4, 1280 over IPv6. Byte for byte it is what the kernel's VXLAN at a bridge sends,
 * which also takes over the packet's TTL, so that an answer goes no further than the packet might
 * have; tests/netns/test_too_big.py compares the two. Where we differ: tagged frames are answered
 * too, and fragments that must not be fragmented again; nothing is answered that RFC 4443 §2.4(e)
 * forbids, though the kernel errs there; and IPv4 is down to 68 bytes (RFC 791), as nothing else
 * would tell the sender.
 *
 * Over IPv6 no sender goes below 1280 bytes (RFC 8201 §4), so there is no answer that says less.
 */

#define MACS_SIZE 12u
#define IPV4_SIZE 20
#define IPV6_SIZE 40
#define ICMP_SIZE 8 /* of either sort, before what it quotes */
#define IPV4_QUOTED (576 - IPV4_SIZE - ICMP_SIZE)
#define IPV6_QUOTED (1280 - IPV6_SIZE - ICMP_SIZE)
#define IPV4_MTU_MIN 68
#define IPV6_MTU_MIN 1280
#define LINK_MAX (EC_TOO_BIG_MAX - 1280)

static bool is_ipv4_error(unsigned type)
{
	return type == ICMP_DEST_UNREACH || type == ICMP_SOURCE_QUENCH || type == ICMP_REDIRECT ||
	       type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETERPROB;
}

static bool is_one_host(const uint8_t *v4)
{
	static const uint8_t everybody[4] = { 255, 255, 255, 255 };

	return (v4[0] & 0xf0) != 0xe0 && memcmp(v4, everybody, 4) != 0;
}

/* iptunnel_pmtud_check_icmp() */
static bool is_due_ipv4(const uint8_t *frame, size_t length, const EcPacket *p, unsigned mtu)
{
	const uint8_t *ip = frame + p->network;
	unsigned fragment = ec_get16(ip + 6);

	if (mtu < IPV4_MTU_MIN || !(fragment & IP_DF) || fragment & IP_OFFMASK)
		return false;
	/* From 0/8 and 127/8 nobody sends. */
	if (!is_one_host(ip + 16) || !is_one_host(ip + 12) || ip[12] == 0 || ip[12] == 127)
		return false;
	return p->protocol != IPPROTO_ICMP ||
	       (length > p->transport && !is_ipv4_error(frame[p->transport]));
}

/* iptunnel_pmtud_check_icmpv6() */
static bool is_due_ipv6(const uint8_t *frame, size_t length, const EcPacket *p, unsigned mtu)
{
	static const uint8_t nobody[15];
	const uint8_t *from = frame + p->network + 8, *to = frame + p->network + 24;
	uint8_t protocol = p->protocol;
	size_t at = p->transport;

	/* :: and ::1 are nobody here. */
	if (mtu < IPV6_MTU_MIN || from[0] == 0xff || to[0] == 0xff ||
			(memcmp(from, nobody, sizeof(nobody)) == 0 && from[15] <= 1))
		return false;
	/* A fragment header is the last one that was read; the offset is in its third byte. */
	if (p->fragment && ec_get16(frame + at - 6) & 0xfff8)
		return false;
	for (; protocol == IPPROTO_AH; at += ((size_t)frame[at + 1] + 2) * 4) {
		if (length < at + 2)
			return false;
		protocol = frame[at];
	}
	if (protocol == IPPROTO_ICMPV6)
		return length > at && frame[at] & ICMP6_INFOMSG_MASK && frame[at] != ND_REDIRECT;
	return protocol != IPPROTO_NONE;
}

static void put_checksum(uint8_t *p, uint32_t sum)
{
	const uint16_t checksum = ec_sum_checksum(sum);

	memcpy(p, &checksum, sizeof(checksum));
}

static size_t answer_ipv4(const uint8_t *ip, size_t length, unsigned mtu, uint8_t *ret)
{
	uint8_t *icmp = ret + IPV4_SIZE;
	size_t quoted = length < IPV4_QUOTED ? length : IPV4_QUOTED;
	size_t whole = IPV4_SIZE + ICMP_SIZE + quoted;

	memset(ret, 0, IPV4_SIZE + ICMP_SIZE);
	ret[0] = 0x45;
	ec_put16(ret + 2, (uint16_t)whole);
	ec_put16(ret + 6, IP_DF);
	ret[8] = ip[8];
	ret[9] = IPPROTO_ICMP;
	memcpy(ret + 12, ip + 16, 4);
	memcpy(ret + 16, ip + 12, 4);
	put_checksum(ret + 10, ec_sum(ret, IPV4_SIZE));
	icmp[0] = ICMP_DEST_UNREACH;
	icmp[1] = ICMP_FRAG_NEEDED;
	ec_put16(icmp + 6, (uint16_t)mtu);
	memcpy(icmp + ICMP_SIZE, ip, quoted);
	put_checksum(icmp + 2, ec_sum(icmp, ICMP_SIZE + quoted));
	return whole;
}

static size_t answer_ipv6(const uint8_t *ip, size_t length, unsigned mtu, uint8_t *ret)
{
	uint8_t *icmp = ret + IPV6_SIZE;
	size_t quoted = length < IPV6_QUOTED ? length : IPV6_QUOTED;

	memset(ret, 0, IPV6_SIZE + ICMP_SIZE);
	ret[0] = 0x60;
	ec_put16(ret + 4, (uint16_t)(ICMP_SIZE + quoted));
	ret[6] = IPPROTO_ICMPV6;
	ret[7] = ip[7];
	memcpy(ret + 8, ip + 24, 16);
	memcpy(ret + 24, ip + 8, 16);
	icmp[0] = ICMP6_PACKET_TOO_BIG;
	ec_put16(icmp + 6, (uint16_t)mtu);
	memcpy(icmp + ICMP_SIZE, ip, quoted);
	/* The length has its part in the pseudo-header (RFC 8200 §8.1). */
	put_checksum(icmp + 2, ec_sum_pseudo(ret, true, IPPROTO_ICMPV6) + ec_sum_word(ret + 4) +
					       ec_sum(icmp, ICMP_SIZE + quoted));
	return IPV6_SIZE + ICMP_SIZE + quoted;
}

size_t ec_too_big(const uint8_t *frame, size_t length, bool ethernet, unsigned mtu,
		uint8_t ret[static EC_TOO_BIG_MAX])
{
	const uint8_t *ip;
	EcPacket p;

	if (ec_packet_read(frame, length, ethernet, &p) < 0 || p.network > LINK_MAX ||
			mtu > UINT16_MAX || length - p.network <= mtu)
		return 0;
	if (!(p.ipv6 ? is_due_ipv6 : is_due_ipv4)(frame, length, &p, mtu))
		return 0;
	if (ethernet) {
		/* To and from groups of the link layer. */
		if ((frame[0] | frame[ETH_ALEN]) & 1)
			return 0;
		memcpy(ret, frame + ETH_ALEN, ETH_ALEN);
		memcpy(ret + ETH_ALEN, frame, ETH_ALEN);
		memcpy(ret + MACS_SIZE, frame + MACS_SIZE, p.network - MACS_SIZE);
	}
	ip = frame + p.network;
	length -= p.network;
	return p.network + (p.ipv6 ? answer_ipv6 : answer_ipv4)(ip, length, mtu, ret + p.network);
}
