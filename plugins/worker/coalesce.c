/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "coalesce.h"

#include <linux/if_ether.h>
#include <netinet/in.h>
#include <stdlib.h>

#include "checksum.h"
#include "packet.h"

/*
 * DOC: Theory of operation
 *
 * A flow is what two addresses and two ports name. The table holds, for up to 16 flows, segments
 * that make one super-frame when they are put together: each the exact successor of the one before,
 * with nothing different but what the device's segmentation counts up itself - sequence number and
 * IPv4 id - and the checksums, which must be right, because whoever cuts the super-frame makes
 * them anew. So cutting gives back the same bytes; and for the same reason what would come out
 * differently is not merged: an IPv4 id that is not one more, a checksum written as 0xffff.
 *
 * A super-frame ends with the segment that says so (PSH) or that is shorter than the others. What
 * belongs to a flow and cannot be merged pushes out what is held of that flow and follows it at
 * once. All else overtakes what is held; no flow can tell. Nothing is copied: what is held are
 * pointers into the caller's memory, and only the one header of a super-frame is written.
 *
 * A first segment is not looked through until a second one fits: the kernel verifies what stays
 * alone.
 *
 * A kernel's tunnel leaves the checksum of what it carries to the device below, and a veth or a
 * virtual machine's card never makes it: UDP's own, outside, is taken for verified. What comes
 * with the pseudo header's sum in the field is therefore given to the device as what it is,
 * NEEDS_CSUM. A whole checksum that happens to be the same number comes out as it was. Nor are its
 * super-frames cut there, and one that is passed on as a frame is too large for any port of a
 * bridge: it is given to the device as what it is, too. How large its segments were to be is lost
 * (udp_unexpected_gso(), include/linux/udp.h); that of frames that the path carries is as good.
 */

/* In linux/virtio_net.h since Linux 6.2. */
#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#	define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif

#define SEGMENTS_MAX (EC_COALESCE_PIECES - 1) /* as many as UDP_SEGMENT sends at once */
#define HEADER_MAX 256
#define IP_MAX 65535
#define MACS_SIZE 12u
#define VLAN_TAG 4
#define TAGS_MAX 4
#define TCP_HEADER 20
#define TCP_CHECKSUM 16
#define UDP_HEADER 8
#define UDP_CHECKSUM 6
#define IPV6_HEADER 40
#define ACK 0x10
#define PSH 0x08
#define CWR 0x80

/* A frame, as far as it has been looked at. */
typedef struct Segment {
	const uint8_t *frame;
	size_t length;
	EcPacket p;
	uint16_t header; /* all headers' bytes */
	uint16_t size;   /* of the payload */
} Segment;

typedef struct Flow {
	Segment first;
	uint32_t hash;
	uint32_t next;   /* the sequence number that continues it */
	uint32_t length; /* of all as one IP packet, bytes */
	uint16_t next_id;
	bool verified; /* the first one, too */
	bool push;     /* the last one has PSH */
	int n;
	struct iovec pieces[EC_COALESCE_PIECES]; /* [0] is the header's */
} Flow;

struct EcCoalesce {
	EcCoalesceEmit emit;
	void *userdata;
	bool ethernet;
	size_t room; /* bytes; 0: unknown */
	unsigned n;
	uint8_t order[EC_COALESCE_FLOWS]; /* of the flows: the n in use, by age, then the free ones
					   */
	Flow flows[EC_COALESCE_FLOWS];
};

EcCoalesce *ec_coalesce_new(bool ethernet, EcCoalesceEmit emit, void *userdata)
{
	EcCoalesce *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->ethernet = ethernet;
	c->emit = emit;
	c->userdata = userdata;
	for (uint8_t i = 0; i < EC_COALESCE_FLOWS; i++)
		c->order[i] = i;
	return c;
}

void ec_coalesce_set_room(EcCoalesce *c, size_t room)
{
	c->room = room;
}

EcCoalesce *ec_coalesce_free(EcCoalesce *c)
{
	free(c);
	return NULL;
}

/* Out */

/* Where the checksum of a TCP or UDP packet is, from the transport header, if it was left to do:
 * its field then holds the pseudo header's sum, as in a device. Else 0. */
static unsigned left_to_do(const uint8_t *frame, size_t length, const EcPacket *p)
{
	const bool tcp = p->protocol == IPPROTO_TCP;
	const unsigned field = tcp ? TCP_CHECKSUM : UDP_CHECKSUM;
	const uint8_t *ip = frame + p->network;
	const size_t rest = length - p->transport;

	if ((!tcp && p->protocol != IPPROTO_UDP) || p->fragment || p->routed ||
			rest < (tcp ? TCP_HEADER : UDP_HEADER))
		return 0;
	/* What the kernel would sum up ends where the frame does. */
	if (length - p->network - (p->ipv6 ? IPV6_HEADER : 0) != ec_get16(ip + (p->ipv6 ? 4 : 2)))
		return 0;
	uint32_t sum = ec_sum_pseudo(ip, p->ipv6, p->protocol) + htobe16((uint16_t)rest);
	return ec_sum_word(frame + p->transport + field) == ec_sum_fold(sum) ? field : 0;
}

/* Whether it is a super-frame that nobody has cut; *ret_header: its headers' bytes. */
static bool is_uncut(const EcCoalesce *c, const uint8_t *frame, size_t length, const EcPacket *p,
		size_t *ret_header)
{
	if (!c->room || length <= c->room || p->protocol != IPPROTO_TCP ||
			!left_to_do(frame, length, p))
		return false;
	*ret_header = p->transport + (size_t)(frame[p->transport + 12] >> 4) * 4;
	return *ret_header >= (size_t)p->transport + TCP_HEADER && *ret_header < c->room;
}

/* p: of the frame, if there is IP in it. */
static void emit_frame(EcCoalesce *c, const uint8_t *frame, size_t length, const EcPacket *p)
{
	const unsigned field = p ? left_to_do(frame, length, p) : 0;
	struct virtio_net_hdr v = { 0 };
	struct iovec piece = { .iov_base = (void *)frame, .iov_len = length };
	size_t header, size, frames = 1;

	if (field) {
		v.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
		v.csum_start = p->transport;
		v.csum_offset = (uint16_t)field;
	}
	if (field && is_uncut(c, frame, length, p, &header)) {
		size = c->room - header;
		frames = (length - header + size - 1) / size;
		v.gso_type = p->ipv6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4;
		if (frame[p->transport + 13] & CWR)
			v.gso_type |= VIRTIO_NET_HDR_GSO_ECN;
		v.gso_size = (uint16_t)size;
		v.hdr_len = (uint16_t)header;
	}
	c->emit(&v, &piece, 1, (unsigned)frames, c->userdata);
}

static void write_header(const Flow *f, uint8_t *header)
{
	const EcPacket *p = &f->first.p;
	uint8_t *ip = header + p->network, *t = header + p->transport;
	uint16_t sum;

	memcpy(header, f->first.frame, f->first.header);
	if (p->ipv6) {
		ec_put16(ip + 4, (uint16_t)(f->length - (p->transport - p->network)));
	} else {
		ec_put16(ip + 2, (uint16_t)f->length);
		memset(ip + 10, 0, sizeof(sum));
		sum = ec_sum_checksum(ec_sum(ip, (size_t)(p->transport - p->network)));
		memcpy(ip + 10, &sum, sizeof(sum));
	}
	if (f->push)
		t[13] |= PSH;
	sum = ec_sum_fold(ec_sum_pseudo(ip, p->ipv6, IPPROTO_TCP) +
			  htobe16((uint16_t)(f->length - (p->transport - p->network))));
	memcpy(t + TCP_CHECKSUM, &sum, sizeof(sum));
}

/* The flow at a place of the order. */
static void emit_flow(EcCoalesce *c, unsigned place)
{
	uint8_t index = c->order[place];
	Flow *f = &c->flows[index];
	uint8_t header[HEADER_MAX];

	c->n--;
	memmove(c->order + place, c->order + place + 1, c->n - place);
	c->order[c->n] = index;
	if (f->n == 1) {
		emit_frame(c, f->first.frame, f->first.length, &f->first.p);
		return;
	}
	struct virtio_net_hdr v = {
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = f->first.p.ipv6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4,
		.hdr_len = f->first.header,
		.gso_size = f->first.size,
		.csum_start = f->first.p.transport,
		.csum_offset = TCP_CHECKSUM,
	};
	write_header(f, header);
	f->pieces[0] = (struct iovec){ .iov_base = header, .iov_len = f->first.header };
	c->emit(&v, f->pieces, f->n + 1, (unsigned)f->n, c->userdata);
}

void ec_coalesce_flush(EcCoalesce *c)
{
	while (c->n > 0)
		emit_flow(c, 0);
}

/* In */

static uint32_t hash_flow(const Segment *s)
{
	const uint8_t *ip = s->frame + s->p.network;
	uint32_t h = ec_get32(s->frame + s->p.transport) * 0x9e3779b1u;

	if (!s->p.ipv6)
		return h ^ ec_get32(ip + 12) ^ ec_get32(ip + 16);
	for (unsigned i = 8; i < 40; i += 4)
		h ^= ec_get32(ip + i);
	return h;
}

/* Where in the order the flow of s is, or c->n. */
static unsigned find_flow(const EcCoalesce *c, const Segment *s, uint32_t hash)
{
	size_t at = s->p.ipv6 ? 8 : 12, n = s->p.ipv6 ? 32 : 8;
	unsigned i;

	for (i = 0; i < c->n; i++) {
		const Flow *f = &c->flows[c->order[i]];
		const Segment *first = &f->first;

		if (f->hash == hash && first->p.ipv6 == s->p.ipv6 &&
				memcmp(first->frame + first->p.network + at,
						s->frame + s->p.network + at, n) == 0 &&
				memcmp(first->frame + first->p.transport, s->frame + s->p.transport,
						4) == 0)
			break;
	}
	return i;
}

/* Whether a plain TCP packet is nothing but data, without padding behind it; completes s. */
static bool is_data(Segment *s)
{
	const uint8_t *ip = s->frame + s->p.network, *t = s->frame + s->p.transport;
	size_t room = s->length - s->p.transport;
	size_t length = s->length - (s->p.ipv6 ? s->p.transport : s->p.network);

	if (room <= TCP_HEADER || length != ec_get16(ip + (s->p.ipv6 ? 4 : 2)))
		return false;
	size_t header = (size_t)(t[12] >> 4) * 4;
	if (header < TCP_HEADER || header >= room || s->p.transport + header > HEADER_MAX)
		return false;
	s->header = (uint16_t)(s->p.transport + header);
	s->size = (uint16_t)(room - header);
	return (t[12] & 0xf) == 0 && (t[13] & ~PSH) == ACK;
}

/* Whether the checksums are those that a cutter would write, or TCP's is left to do. */
static bool is_whole(const Segment *s)
{
	const uint8_t *ip = s->frame + s->p.network, *t = s->frame + s->p.transport;
	size_t length = s->length - s->p.transport;
	uint32_t field = ec_sum_word(t + TCP_CHECKSUM);
	uint32_t pseudo = ec_sum_pseudo(ip, s->p.ipv6, IPPROTO_TCP) + htobe16((uint16_t)length);

	if (field != ec_sum_fold(pseudo) &&
			(ec_sum_fold(pseudo + ec_sum(t, length)) != UINT16_MAX ||
					field == UINT16_MAX))
		return false;
	return s->p.ipv6 || (ec_sum(ip, (size_t)(s->p.transport - s->p.network)) == UINT16_MAX &&
					    ec_sum_word(ip + 10) != UINT16_MAX);
}

/* Whether all that segments share is the same in both. Addresses and ports are. */
static bool same_headers(const Segment *a, const Segment *b)
{
	const uint8_t *ip = a->frame + a->p.network, *other_ip = b->frame + b->p.network;
	const uint8_t *t = a->frame + a->p.transport, *other_t = b->frame + b->p.transport;

	if (a->header != b->header || a->p.network != b->p.network)
		return false;
	/* Link header and tags; version, traffic class, flow label. */
	if (memcmp(a->frame, b->frame, a->p.network + (a->p.ipv6 ? 4u : 2u)) != 0)
		return false;
	/* The hop limit; or DF and TTL. */
	if (a->p.ipv6 ? ip[7] != other_ip[7] : memcmp(ip + 6, other_ip + 6, 3) != 0)
		return false;
	/* Acknowledgment and data offset; window; urgent pointer and options. */
	return memcmp(t + 8, other_t + 8, 5) == 0 && memcmp(t + 14, other_t + 14, 2) == 0 &&
	       memcmp(t + 18, other_t + 18, a->header - a->p.transport - 18u) == 0;
}

static bool continues(Flow *f, const Segment *s)
{
	const uint8_t *ip = s->frame + s->p.network;

	if (s->size > f->first.size || f->next != ec_get32(s->frame + s->p.transport + 4) ||
			(!s->p.ipv6 && f->next_id != ec_get16(ip + 4)) ||
			!same_headers(&f->first, s))
		return false;
	if (!f->verified && !is_whole(&f->first))
		return false;
	f->verified = true;
	return is_whole(s);
}

static void append(Flow *f, const Segment *s)
{
	f->n++;
	f->pieces[f->n] = (struct iovec){ .iov_base = (void *)(s->frame + s->header),
		.iov_len = s->size };
	f->next += s->size;
	f->next_id++;
	f->length += s->size;
}

static void begin(EcCoalesce *c, const Segment *s, uint32_t hash)
{
	if (c->n == EC_COALESCE_FLOWS)
		emit_flow(c, 0);

	Flow *f = &c->flows[c->order[c->n++]];
	f->first = *s;
	f->hash = hash;
	f->next = ec_get32(s->frame + s->p.transport + 4);
	f->next_id = s->p.ipv6 ? 0 : ec_get16(s->frame + s->p.network + 4);
	f->length = (uint32_t)(s->header - s->p.network);
	f->verified = f->push = false;
	f->n = 0;
	append(f, s);
}

/* A TCP packet whose flow is known. */
static void add_segment(EcCoalesce *c, Segment *s)
{
	uint32_t hash = hash_flow(s);
	unsigned place = find_flow(c, s, hash);
	size_t header;
	bool data = is_data(s), push = data && (s->frame[s->p.transport + 13] & PSH);

	if (place < c->n) {
		Flow *f = &c->flows[c->order[place]];

		if (data && continues(f, s)) {
			append(f, s);
			f->push = push;
			/* The last, or none of this size has room behind it. */
			if (push || s->size < f->first.size || f->n == SEGMENTS_MAX ||
					f->length + f->first.size > IP_MAX)
				emit_flow(c, place);
			return;
		}
		emit_flow(c, place);
	}
	if (!data || push || s->header - s->p.network + 2u * s->size > IP_MAX ||
			is_uncut(c, s->frame, s->length, &s->p, &header))
		emit_frame(c, s->frame, s->length, &s->p);
	else
		begin(c, s, hash);
}

/* Whether the kernel cuts what has this link header: with tags of 802.1Q and 802.1ad, and not too
 * many (vlan_get_protocol() in linux/if_vlan.h); all else that is too large for the way on, it
 * drops. */
static bool is_cut(const Segment *s)
{
	unsigned tags = 0;

	for (size_t at = MACS_SIZE; at + 2 < s->p.network; at += VLAN_TAG, tags++) {
		uint16_t type = ec_get16(s->frame + at);

		if (type != ETH_P_8021Q && type != ETH_P_8021AD)
			return false;
	}
	return tags <= TAGS_MAX;
}

void ec_coalesce_add(EcCoalesce *c, const uint8_t *frame, size_t length)
{
	Segment s = { .frame = frame, .length = length };
	int r = ec_packet_read(frame, length, c->ethernet, &s.p);

	if (r == 0 && s.p.protocol == IPPROTO_TCP) {
		if (s.p.plain && length - s.p.transport >= 4 && is_cut(&s)) {
			add_segment(c, &s);
			return;
		}
		/* Not looked at any further, not even for which flow it is of. */
		ec_coalesce_flush(c);
	}
	emit_frame(c, frame, length, r == 0 ? &s.p : NULL);
}

void ec_coalesce_pass(EcCoalesce *c, const uint8_t *frame, size_t length)
{
	EcPacket p;
	int r = ec_packet_read(frame, length, c->ethernet, &p);

	emit_frame(c, frame, length, r == 0 ? &p : NULL);
}

bool ec_coalesce_uncut(EcCoalesce *c, const uint8_t *frame, size_t length, size_t size)
{
	struct iovec piece = { .iov_base = (void *)frame, .iov_len = length };
	EcPacket p;

	if (ec_packet_read(frame, length, c->ethernet, &p) < 0 || p.protocol != IPPROTO_UDP ||
			!left_to_do(frame, length, &p))
		return false;

	const size_t header = (size_t)p.transport + UDP_HEADER;
	const struct virtio_net_hdr v = {
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = VIRTIO_NET_HDR_GSO_UDP_L4,
		.hdr_len = (uint16_t)header,
		.gso_size = (uint16_t)size,
		.csum_start = p.transport,
		.csum_offset = UDP_CHECKSUM,
	};
	if (length <= header + size)
		return false;
	c->emit(&v, &piece, 1, (unsigned)((length - header + size - 1) / size), c->userdata);
	return true;
}
