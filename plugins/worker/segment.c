/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "segment.h"

#include <errno.h>
#include <linux/if_ether.h>
#include <netinet/in.h>

#include "checksum.h"
#include "packet.h"

/*
 * DOC: Theory of operation
 *
 * Of the virtio header only gso_type, gso_size and the place of a checksum are taken, and the last
 * only where nothing else says it: where the headers lie is read from the frame itself. hdr_len is
 * a hint and may be anything (virtio 1.2 §5.1.6.2). What the two say differently is malformed.
 *
 * All segments have the headers of the super-frame with other lengths, IP ids, sequence numbers,
 * flags and checksums. The plan sums up once what is alike in all of them; a segment adds what is
 * its own, and its payload, which so is read once. They are as the kernel would make them
 * (net/ipv4/tcp_offload.c, udp_offload.c, af_inet.c): a peer sees no difference.
 */

/* In linux/virtio_net.h since Linux 6.2. */
#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#	define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif

#define UDP_HEADER 8
#define TCP_HEADER 20
#define TCP_FLAGS 12 /* where the word with data offset and flags is */
#define TCP_CHECKSUM 16
#define UDP_CHECKSUM 6
#define FIN 0x01
#define PSH 0x08
#define CWR 0x80

/* A kind of super-frame. */
typedef struct Kind {
	uint8_t gso;
	uint8_t protocol;
	bool ipv4, ipv6;
} Kind;

static const Kind kinds[] = {
	{ VIRTIO_NET_HDR_GSO_TCPV4, IPPROTO_TCP, true, false },
	{ VIRTIO_NET_HDR_GSO_TCPV6, IPPROTO_TCP, false, true },
	{ VIRTIO_NET_HDR_GSO_UDP_L4, IPPROTO_UDP, true, true },
};

static bool matches(uint8_t gso_type, const EcPacket *p)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		const Kind *k = &kinds[i];

		if (k->gso == (gso_type & ~VIRTIO_NET_HDR_GSO_ECN))
			return p->protocol == k->protocol && (p->ipv6 ? k->ipv6 : k->ipv4);
	}
	return false;
}

/* The size of the transport header, or 0 when it does not fit in. */
static size_t transport_header(const uint8_t *frame, size_t length, const EcPacket *p)
{
	size_t room = length - p->transport, size = UDP_HEADER;

	if (p->protocol == IPPROTO_TCP) {
		if (room < TCP_HEADER)
			return 0;
		size = (size_t)(frame[p->transport + TCP_FLAGS] >> 4) * 4;
		if (size < TCP_HEADER)
			return 0;
	}
	return size < room && p->transport + size <= EC_SEGMENT_HEADER_MAX ? size : 0;
}

/* What is alike in the segments' checksums. */
static void sum_headers(EcSegments *s, uint32_t pseudo)
{
	const uint8_t *ip = s->frame + s->network, *t = s->frame + s->transport;

	s->sum = pseudo + ec_sum(t, (size_t)(s->header - s->transport));
	if (s->tcp) {
		s->sequence = ec_get32(t + 4);
		s->sum = ec_sum_without(s->sum, ec_sum(t + 4, 4));
		s->sum = ec_sum_without(s->sum, ec_sum_word(t + TCP_FLAGS));
		s->sum = ec_sum_without(s->sum, ec_sum_word(t + TCP_CHECKSUM));
	} else {
		s->sum = ec_sum_without(s->sum, ec_sum(t + 4, 4));
	}
	s->sum = ec_sum_fold(s->sum);
	if (!s->ipv6) {
		uint32_t sum = ec_sum(ip, (size_t)(s->transport - s->network));

		s->ip_id = ec_get16(ip + 4);
		sum = ec_sum_without(sum, ec_sum(ip + 2, 4));
		s->ip_sum = ec_sum_fold(ec_sum_without(sum, ec_sum_word(ip + 10)));
	}
}

int ec_segments_plan(const struct virtio_net_hdr *v, const uint8_t *frame, size_t length,
		bool ethernet, EcSegments *ret)
{
	bool partial = v->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;
	EcPacket p;

	*ret = (EcSegments){ .frame = frame, .length = (uint32_t)length, .count = 1 };
	if (length < (ethernet ? ETH_HLEN : sizeof(uint32_t)) || length > EC_FRAME_MAX)
		return -EBADMSG;
	if (v->gso_type == VIRTIO_NET_HDR_GSO_NONE)
		return 0;
	if (v->gso_size == 0 || ec_packet_read(frame, length, ethernet, &p) < 0)
		return -EBADMSG;
	/* A fragment has no segments. The address that a routed packet's checksum has in it, only
	 * the device knows. */
	if (!matches(v->gso_type, &p) || p.fragment || (p.routed && !partial))
		return -EBADMSG;

	size_t header = transport_header(frame, length, &p);
	bool tcp = p.protocol == IPPROTO_TCP;
	unsigned field = tcp ? TCP_CHECKSUM : UDP_CHECKSUM;
	size_t payload = length - p.transport - header;
	if (header == 0)
		return -EBADMSG;
	if (partial && (v->csum_start != p.transport || v->csum_offset != field))
		return -EBADMSG;
	/* The largest segment must be one that IP has a length for. */
	size_t largest = payload < v->gso_size ? payload : v->gso_size;
	if (p.transport - p.network + header + largest > UINT16_MAX)
		return -EBADMSG;

	ret->network = p.network;
	ret->transport = p.transport;
	ret->header = (uint16_t)(p.transport + header);
	ret->size = v->gso_size;
	ret->count = (uint32_t)((payload + v->gso_size - 1) / v->gso_size);
	ret->ipv6 = p.ipv6;
	ret->tcp = tcp;
	uint32_t pseudo = ec_sum_pseudo(frame + p.network, p.ipv6, p.protocol);
	if (p.routed)
		pseudo = ec_sum_without(ec_sum_word(frame + p.transport + field),
				htobe16((uint16_t)(length - p.transport)));
	sum_headers(ret, pseudo);
	return 0;
}

static void write_ipv4(const EcSegments *s, unsigned i, uint8_t *ip, uint16_t length)
{
	uint16_t id = (uint16_t)(s->ip_id + i);
	uint16_t checksum = ec_sum_checksum((uint32_t)s->ip_sum + htobe16(length) + htobe16(id));

	ec_put16(ip + 2, length);
	ec_put16(ip + 4, id);
	memcpy(ip + 10, &checksum, sizeof(checksum));
}

static void write_tcp(const EcSegments *s, unsigned i, uint8_t *t, uint32_t sum)
{
	uint32_t sequence = s->sequence + i * s->size;

	if (i > 0)
		t[TCP_FLAGS + 1] &= (uint8_t)~CWR;
	if (i + 1 < s->count)
		t[TCP_FLAGS + 1] &= (uint8_t) ~(FIN | PSH);
	ec_put32(t + 4, sequence);
	sum += ec_sum_word(t + 4) + ec_sum_word(t + 6) + ec_sum_word(t + TCP_FLAGS);

	uint16_t checksum = ec_sum_checksum(sum);
	memcpy(t + TCP_CHECKSUM, &checksum, sizeof(checksum));
}

static void write_udp(uint8_t *t, uint32_t sum, uint16_t length)
{
	/* The length is in the pseudo header and in the header. */
	uint16_t checksum = ec_sum_checksum(sum + htobe16(length));

	if (checksum == 0)
		checksum = UINT16_MAX;
	ec_put16(t + 4, length);
	memcpy(t + UDP_CHECKSUM, &checksum, sizeof(checksum));
}

void ec_segment(const EcSegments *s, unsigned i, uint8_t *ret_header, const uint8_t **ret_payload,
		size_t *ret_size)
{
	size_t offset = s->header + (size_t)i * s->size;
	size_t size = s->length - offset < s->size ? s->length - offset : s->size;
	uint16_t length = (uint16_t)(s->header - s->transport + size);
	uint8_t *ip = ret_header + s->network, *t = ret_header + s->transport;
	uint32_t sum = s->sum + ec_sum(s->frame + offset, size) + htobe16(length);

	memcpy(ret_header, s->frame, s->header);
	if (s->ipv6)
		ec_put16(ip + 4, (uint16_t)(s->header - s->network - 40 + size));
	else
		write_ipv4(s, i, ip, (uint16_t)(s->header - s->network + size));
	if (s->tcp)
		write_tcp(s, i, t, sum);
	else
		write_udp(t, sum, length);
	*ret_payload = s->frame + offset;
	*ret_size = size;
}

int ec_segment_complete(const struct virtio_net_hdr *v, uint8_t *frame, size_t length)
{
	size_t field = (size_t)v->csum_start + v->csum_offset;

	if (!(v->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
		return 0;
	/* Words begin where the sum does: no checksum is at an odd place. */
	if (field + sizeof(uint16_t) > length || v->csum_offset % 2 != 0)
		return -EBADMSG;

	/* The field holds the sum of what is not in the frame's rest, the pseudo header. */
	uint16_t checksum = ec_sum_checksum(ec_sum(frame + v->csum_start, length - v->csum_start));
	if (checksum == 0 && v->csum_offset == UDP_CHECKSUM)
		checksum = UINT16_MAX;
	memcpy(frame + field, &checksum, sizeof(checksum));
	return 0;
}
