/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "packets.h"

#include <glib.h>
#include <string.h>

#define TCP 6
#define UDP 17
#define OPTIONS 60

const PacketSpec packet_plain = {
	.ttl = 64,
	.id = 0x1234,
	.fragment = 0x4000,
	.sequence = 0xfffff000,
	.acknowledgment = 0x01020304,
	.flags = 0x10,
	.words = 3,
	.stamp = 1,
	.window = 512,
};

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v & 0xffff);
}

static unsigned get16(const uint8_t *p)
{
	return p[0] * 256u + p[1];
}

uint16_t packet_checksum(const uint8_t *data, size_t n, uint32_t start)
{
	uint32_t sum = start;

	for (size_t i = 0; i < n; i++) {
		sum += i % 2 ? data[i] : data[i] * 256u;
		if (sum > 0xffff)
			sum -= 0xffff;
	}
	return (uint16_t)~sum;
}

size_t packet_network(const PacketSpec *s)
{
	return s->bare ? 0 : 14 + 4u * s->tags;
}

size_t packet_transport(const PacketSpec *s)
{
	return packet_network(s) + (s->ipv6 ? 40 + 8u * s->extra : 20 + 4u * s->extra);
}

size_t packet_header(const PacketSpec *s)
{
	return packet_transport(s) + (s->udp ? 8 : 20 + 4u * s->words);
}

/* The pseudo header's sum, not complemented. */
static uint16_t pseudo(const uint8_t *ip, uint8_t protocol, size_t length)
{
	bool ipv6 = ip[0] >> 4 == 6;
	uint8_t b[40] = { 0 };
	size_t n = ipv6 ? 32 : 8;

	memcpy(b, ip + (ipv6 ? 8 : 12), n);
	put32(b + n, (uint32_t)length);
	b[n + 7] = protocol;
	return (uint16_t)~packet_checksum(b, n + 8, 0);
}

static void write_ip(const PacketSpec *s, uint8_t *ip, size_t length)
{
	uint8_t protocol = s->udp ? UDP : TCP;
	size_t header = packet_transport(s) - packet_network(s);

	if (s->ipv6) {
		put32(ip, 0x60000000u | (uint32_t)s->tos << 20 | 0x12345);
		put16(ip + 4, (unsigned)(length - 40));
		ip[6] = s->extra ? OPTIONS : protocol;
		ip[7] = s->ttl;
		memset(ip + 8, 0x20, 32);
		ip[23] = s->flow;
		for (size_t i = 0; i < s->extra; i++) {
			static const uint8_t padding[] = { 1, 4 }; /* PadN */

			memset(ip + 40 + 8 * i, 0, 8);
			ip[40 + 8 * i] = i + 1 < s->extra ? OPTIONS : protocol;
			memcpy(ip + 42 + 8 * i, padding, 2);
		}
		return;
	}
	ip[0] = (uint8_t)(0x40 + header / 4);
	ip[1] = s->tos;
	put16(ip + 2, (unsigned)length);
	put16(ip + 4, s->id);
	put16(ip + 6, s->fragment);
	ip[8] = s->ttl;
	ip[9] = protocol;
	put16(ip + 10, 0);
	put32(ip + 12, 0x0a000001);
	put32(ip + 16, 0x0a000100u + s->flow);
	memset(ip + 20, 1, header - 20);
	put16(ip + 10, packet_checksum(ip, header, 0));
}

size_t packet_write(const PacketSpec *s, const uint8_t *payload, size_t n, uint16_t size,
		uint8_t *ret, struct virtio_net_hdr *ret_v)
{
	static const uint8_t addresses[] = { 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2 };
	size_t network = packet_network(s), transport = packet_transport(s);
	size_t header = packet_header(s), length = header + n, field = s->udp ? 6 : 16;
	uint8_t *ip = ret + network, *t = ret + transport;

	if (!s->bare) {
		memcpy(ret, addresses, sizeof(addresses));
		for (size_t i = 0; i < s->tags; i++)
			put32(ret + 12 + 4 * i, (i + 1 < s->tags ? 0x88a80000u : 0x81000000u) +
								100 + (uint32_t)i);
		put16(ret + network - 2, s->ipv6 ? 0x86dd : 0x0800);
	}
	write_ip(s, ip, length - network);
	memset(t, 0, header - transport);
	put16(t, 1024u + s->flow);
	put16(t + 2, 5201);
	if (s->udp) {
		put16(t + 4, (unsigned)(length - transport));
	} else {
		put32(t + 4, s->sequence);
		put32(t + 8, s->acknowledgment);
		t[12] = (uint8_t)((5 + s->words) << 4);
		t[13] = s->flags;
		put16(t + 14, s->window);
		memset(t + 20, s->stamp, s->words * (size_t)4);
	}
	memcpy(ret + header, payload, n);

	uint16_t sum = pseudo(ip, s->udp ? UDP : TCP, length - transport);
	if (!s->partial) {
		sum = packet_checksum(t, length - transport, sum);
		if (s->udp && sum == 0)
			sum = 0xffff;
	}
	put16(t + field, sum);
	if (ret_v)
		*ret_v = (struct virtio_net_hdr){
			.flags = s->partial ? 1 : 0,
			.gso_type = size == 0 ? 0
				    : s->udp  ? 5
				    : s->ipv6 ? 4
					      : 1,
			.hdr_len = (uint16_t)header,
			.gso_size = size,
			.csum_start = s->partial ? (uint16_t)transport : 0,
			.csum_offset = s->partial ? (uint16_t)field : 0,
		};
	return length;
}

size_t packet_write_segment(const PacketSpec *s, const uint8_t *payload, size_t n, uint16_t size,
		unsigned i, uint8_t *ret)
{
	size_t offset = (size_t)size * i;
	PacketSpec segment = *s;

	segment.partial = false;
	segment.id = (uint16_t)(s->id + i);
	segment.sequence = (uint32_t)(s->sequence + offset);
	if (i > 0)
		segment.flags &= 0x7f; /* CWR */
	if (offset + size < n)
		segment.flags &= 0xf6; /* PSH, FIN */
	return packet_write(&segment, payload + offset, MIN(size, n - offset), 0, ret, NULL);
}

void packet_assert_right(const uint8_t *frame, size_t length, bool ethernet, bool partial)
{
	size_t at = 0;

	if (ethernet) {
		at = 12;
		while (get16(frame + at) == 0x8100 || get16(frame + at) == 0x88a8 ||
				get16(frame + at) == 0x9100)
			at += 4;
		at += 2;
	}
	const uint8_t *ip = frame + at;
	bool ipv6 = ip[0] >> 4 == 6;
	size_t header = ipv6 ? 40 : (ip[0] & 15) * 4u;
	uint8_t protocol = ip[ipv6 ? 6 : 9];
	bool routed = false;
	if (ipv6) {
		g_assert_cmpuint(get16(ip + 4), ==, length - at - 40);
		while (protocol == 0 || protocol == 43 || protocol == 60) {
			routed = routed || (protocol == 43 && ip[header + 3] > 0);
			protocol = ip[header];
			header += 8 + 8u * ip[header + 1];
		}
	} else {
		g_assert_cmpuint(get16(ip + 2), ==, length - at);
		g_assert_cmpuint(packet_checksum(ip, header, 0), ==, 0);
	}
	g_assert_true(protocol == TCP || protocol == UDP);

	const uint8_t *t = ip + header;
	size_t n = length - at - header;
	if (protocol == UDP)
		g_assert_cmpuint(get16(t + 4), ==, n);
	/* Of a routed one the last address is not looked for. */
	if (routed)
		return;
	if (partial)
		g_assert_cmpuint(
				get16(t + (protocol == TCP ? 16 : 6)), ==, pseudo(ip, protocol, n));
	else
		g_assert_cmpuint(packet_checksum(t, n, pseudo(ip, protocol, n)), ==, 0);
}
