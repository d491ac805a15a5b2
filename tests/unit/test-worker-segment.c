/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "packets.h"
#include "worker/checksum.h"

#define ELEMENTS(a) (sizeof(a) / sizeof((a)[0]))

static uint8_t payload[EC_FRAME_MAX];

/* A block of its own size: reading beyond it is seen. */
static int plan(const struct virtio_net_hdr *v, const uint8_t *frame, size_t length, bool ethernet,
		EcSegments *ret, uint8_t **ret_copy)
{
	*ret_copy = g_memdup2(frame, length);
	return ec_segments_plan(v, *ret_copy, length, ethernet, ret);
}

static void assert_refused(
		const struct virtio_net_hdr *v, const uint8_t *frame, size_t length, bool ethernet)
{
	g_autofree uint8_t *copy = NULL;
	EcSegments s;

	g_assert_cmpint(plan(v, frame, length, ethernet, &s, &copy), ==, -EBADMSG);
}

/* Cuts and compares with what was made by hand. */
static void check_cut(const PacketSpec *spec, size_t n, uint16_t size)
{
	static uint8_t frame[EC_FRAME_MAX], expected[EC_FRAME_MAX], seen[EC_FRAME_MAX];
	struct virtio_net_hdr v;
	size_t length = packet_write(spec, payload, n, size, frame, &v), total = 0;
	g_autofree uint8_t *copy = NULL;
	EcSegments s;

	/* Whatever the device says here: it is a hint. */
	v.hdr_len = (uint16_t)g_test_rand_int();
	g_assert_cmpint(plan(&v, frame, length, !spec->bare, &s, &copy), ==, 0);
	g_assert_cmpuint(s.header, ==, packet_header(spec));
	g_assert_cmpuint(s.network, ==, packet_network(spec));
	g_assert_cmpuint(s.transport, ==, packet_transport(spec));
	g_assert_cmpuint(s.size, ==, size);
	g_assert_cmpuint(s.count, ==, (n + size - 1) / size);
	for (unsigned i = 0; i < s.count; i++) {
		const uint8_t *part;
		size_t part_size;

		ec_segment(&s, i, seen, &part, &part_size);
		memcpy(seen + s.header, part, part_size);
		length = packet_write_segment(spec, payload, n, size, i, expected);
		g_assert_cmpmem(seen, s.header + part_size, expected, length);
		g_assert_true(part == copy + s.header + total);
		total += part_size;
	}
	g_assert_cmpuint(total, ==, n);
}

static PacketSpec random_spec(void)
{
	PacketSpec s = packet_plain;

	s.bare = g_test_rand_bit();
	s.ipv6 = g_test_rand_bit();
	s.udp = g_test_rand_int_range(0, 4) == 0;
	s.partial = g_test_rand_int_range(0, 8) != 0;
	s.tags = (uint8_t)(s.bare ? 0 : g_test_rand_int_range(0, 4));
	s.extra = (uint8_t)(g_test_rand_bit() ? 0 : g_test_rand_int_range(0, 11));
	s.tos = (uint8_t)g_test_rand_int();
	s.ttl = (uint8_t)g_test_rand_int();
	s.id = (uint16_t)g_test_rand_int();
	s.fragment = g_test_rand_bit() ? 0x4000 : 0;
	s.sequence = (uint32_t)g_test_rand_int();
	s.acknowledgment = (uint32_t)g_test_rand_int();
	s.flags = (uint8_t)g_test_rand_int();
	s.words = (uint8_t)g_test_rand_int_range(0, 11);
	s.window = (uint16_t)g_test_rand_int();
	return s;
}

static void test_sum(void)
{
	/* A header whose checksum, 0xb861, is known. */
	static const uint8_t header[] = { 0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0,
		0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7 };
	static const uint8_t answer[] = { 0xb8, 0x61 };
	static uint8_t most[65536];
	uint16_t sum = ec_sum_checksum(ec_sum(header, sizeof(header)));

	g_assert_cmpmem(&sum, 2, answer, 2);
	for (size_t n = 0; n < 700; n++) {
		g_autofree uint8_t *copy = g_memdup2(payload + n, n);

		g_assert_cmpuint(ec_sum_checksum(ec_sum(copy, n)), ==,
				GUINT16_TO_BE(packet_checksum(payload + n, n, 0)));
		for (size_t at = 0; at < 9; at++)
			g_assert_cmpuint(ec_sum_checksum(ec_sum(payload + at, n)), ==,
					GUINT16_TO_BE(packet_checksum(payload + at, n, 0)));
	}
	g_assert_cmpuint(ec_sum(most, sizeof(most)), ==, 0);
	memset(most, 0xff, sizeof(most));
	g_assert_cmpuint(ec_sum(most, sizeof(most)), ==, 0xffff);
	g_assert_cmpuint(ec_sum(most, 65535), ==, GUINT16_FROM_BE(0xff00));
	/* Without a part it is the rest's sum, whatever is added first. */
	for (size_t at = 2; at < 100; at += 2) {
		uint32_t rest = ec_sum_without(ec_sum(payload, 100), ec_sum(payload, at));

		g_assert_cmpuint(ec_sum_fold(rest), ==, ec_sum(payload + at, 100 - at));
	}
}

static void test_cut(void)
{
	static const struct {
		const char *what;
		PacketSpec change; /* what is not 0 of it */
	} rows[] = {
		{ "plain", { 0 } },
		{ "VLAN", { .tags = 1 } },
		{ "QinQ", { .tags = 2 } },
		{ "bare", { .bare = true } },
		{ "IPv4 options", { .extra = 10 } },
		{ "IPv6", { .ipv6 = true } },
		{ "IPv6 with extension headers", { .ipv6 = true, .extra = 3 } },
		{ "IPv6, bare", { .ipv6 = true, .bare = true } },
		{ "IPv6 in QinQ", { .ipv6 = true, .tags = 2 } },
		{ "UDP", { .udp = true } },
		{ "UDP over IPv6", { .udp = true, .ipv6 = true, .tags = 1 } },
		{ "ECN, FIN and PSH", { .flags = 0xd9, .tos = 1 } },
	};
	static const struct {
		size_t payload;
		uint16_t size;
	} sizes[] = { { 1, 1 }, { 1448, 1448 }, { 1449, 1448 }, { 2896, 1448 }, { 65000, 1448 },
		{ 65000, 48 }, { 3000, 1 }, { 65000, 8948 }, { 999, 65535 } };

	for (size_t i = 0; i < ELEMENTS(rows); i++) {
		PacketSpec s = packet_plain;
		const PacketSpec *c = &rows[i].change;

		g_test_message("%s", rows[i].what);
		s.partial = true;
		s.tags = c->tags;
		s.bare = c->bare;
		s.extra = c->extra;
		s.ipv6 = c->ipv6;
		s.udp = c->udp;
		s.tos = c->tos;
		s.flags |= c->flags;
		for (size_t j = 0; j < ELEMENTS(sizes); j++)
			check_cut(&s, sizes[j].payload, sizes[j].size);
	}
}

static void test_cut_random(void)
{
	for (unsigned i = 0; i < 3000; i++) {
		PacketSpec s = random_spec();
		size_t n = (size_t)g_test_rand_int_range(1, i % 100 ? 6000 : 65000);

		check_cut(&s, n, (uint16_t)g_test_rand_int_range(i % 50 ? 100 : 1, 9000));
	}
}

/* 64 KiB in segments of one byte: slow, but whole. */
static void test_cut_smallest(void)
{
	PacketSpec s = packet_plain;
	EcSegments plan_of;
	struct virtio_net_hdr v;
	static uint8_t frame[EC_FRAME_MAX];
	uint8_t header[EC_SEGMENT_HEADER_MAX];
	size_t n = 65535 - 52, total = 0, size, length = packet_write(&s, payload, n, 1, frame, &v);
	const uint8_t *part;

	g_assert_cmpint(ec_segments_plan(&v, frame, length, true, &plan_of), ==, 0);
	g_assert_cmpuint(plan_of.count, ==, n);
	for (unsigned i = 0; i < plan_of.count; i++, total += size)
		ec_segment(&plan_of, i, header, &part, &size);
	g_assert_cmpuint(total, ==, n);
	g_assert_true(part + size == frame + length);
}

/* Where UDP's checksum would be 0 it is written as 0xffff: 0 says that there is none. */
static void test_udp_zero(void)
{
	PacketSpec s = packet_plain;
	uint8_t frame[256], data[4] = { 0 };
	uint8_t header[EC_SEGMENT_HEADER_MAX];
	struct virtio_net_hdr v;
	const uint8_t *part;
	EcSegments p;
	size_t size, length;

	s.udp = true;
	packet_write(&s, data, sizeof(data), 0, frame, &v);
	memcpy(data, frame + packet_transport(&s) + 6, 2);
	s.partial = true;
	length = packet_write(&s, data, sizeof(data), 4, frame, &v);
	g_assert_cmpint(ec_segments_plan(&v, frame, length, true, &p), ==, 0);
	ec_segment(&p, 0, header, &part, &size);
	g_assert_cmphex(ec_sum_word(header + p.transport + 6), ==, 0xffff);
	v.gso_type = v.gso_size = 0;
	g_assert_cmpint(ec_segment_complete(&v, frame, length), ==, 0);
	g_assert_cmphex(ec_sum_word(frame + p.transport + 6), ==, 0xffff);
}

/* The last destination is not in the IPv6 header: the device's sum knows it. */
static void test_routed(void)
{
	PacketSpec s = packet_plain;
	static const uint8_t routing[] = { 6, 2, 4, 1, 0, 0, 0, 0 };
	uint8_t frame[4096], seen[4096], last[16];
	struct virtio_net_hdr v;
	EcSegments p;
	size_t length, at;

	s.ipv6 = s.partial = true;
	s.extra = 3;
	length = packet_write(&s, payload, 2000, 1000, frame, &v);
	at = packet_network(&s);
	/* One routing header of 24 bytes instead of three: one address, not reached yet. */
	frame[at + 6] = 43;
	memcpy(frame + at + 40, routing, sizeof(routing));
	memset(last, 0x55, sizeof(last));
	memcpy(frame + at + 48, last, sizeof(last));
	/* The pseudo header's sum is that with this address. */
	uint8_t *field = frame + packet_transport(&s) + 16;
	uint32_t sum = ec_sum_without(ec_sum_word(field), ec_sum(frame + at + 24, 16));
	uint16_t word = ec_sum_fold(sum + ec_sum(last, 16));
	memcpy(field, &word, 2);

	g_assert_cmpint(ec_segments_plan(&v, frame, length, true, &p), ==, 0);
	for (unsigned i = 0; i < 2; i++) {
		const uint8_t *part;
		size_t n;

		ec_segment(&p, i, seen, &part, &n);
		memcpy(seen + p.header, part, n);
		/* As it is when it has arrived. */
		memcpy(seen + at + 24, last, sizeof(last));
		packet_assert_right(seen, p.header + n, true, false);
	}
	v.flags = 0;
	assert_refused(&v, frame, length, true);
}

static void test_plain_frames(void)
{
	struct virtio_net_hdr v = { 0 };
	EcSegments s;
	uint8_t *copy;

	for (size_t n = 0; n < 100; n++) {
		for (unsigned ethernet = 0; ethernet < 2; ethernet++) {
			int expected = n < (ethernet ? 14 : 4) ? -EBADMSG : 0;

			g_assert_cmpint(plan(&v, payload, n, ethernet, &s, &copy), ==, expected);
			if (expected == 0) {
				g_assert_cmpuint(s.count, ==, 1);
				g_assert_cmpuint(s.header, ==, 0);
				g_assert_cmpuint(s.length, ==, n);
			}
			g_free(copy);
		}
	}
}

static void test_malformed(void)
{
	static uint8_t frame[EC_FRAME_MAX + 1];
	PacketSpec s = packet_plain;
	struct virtio_net_hdr v, bad;
	g_autofree uint8_t *copy = NULL;
	EcSegments p;
	size_t length;

	s.partial = true;
	s.tags = 1;
	length = packet_write(&s, payload, 3000, 1000, frame, &v);
	g_assert_cmpint(plan(&v, frame, length, true, &p, &copy), ==, 0);
	for (size_t n = 0; n <= packet_header(&s); n++)
		assert_refused(&v, frame, n, true);
	static const uint8_t types[] = { 3, 4, 5, 0x80, 0x83, 0xff, 2, 6 };
	for (size_t i = 0; i < ELEMENTS(types); i++) {
		bad = v;
		bad.gso_type = types[i];
		assert_refused(&bad, frame, length, true);
	}
#define REFUSED(member, value)                                                                     \
	do {                                                                                       \
		bad = v;                                                                           \
		bad.member = (uint16_t)(value);                                                    \
		assert_refused(&bad, frame, length, true);                                         \
	} while (false)
	REFUSED(gso_size, 0);
	REFUSED(csum_start, v.csum_start - 1);
	REFUSED(csum_start, v.csum_start + 4);
	REFUSED(csum_start, 0);
	REFUSED(csum_start, 65535);
	REFUSED(csum_offset, 6);
	REFUSED(csum_offset, 65535);
	/* Of the wrong kind, or no frame at all. */
	assert_refused(&v, frame, length, false);
	assert_refused(&v, payload, length, true);
	static const struct {
		bool transport;
		uint8_t at, value;
	} bytes[] = {
		{ false, 0, 0x55 }, /* the version */
		{ false, 0, 0x44 }, /* the header's length: too short */
		{ false, 0, 0x4f }, /* and not where the TCP header begins */
		{ false, 6, 0x20 }, /* more fragments */
		{ false, 7, 1 },    /* a later fragment */
		{ false, 9, 17 },   /* not TCP */
		{ true, 12, 0x40 }, /* the data offset: too short */
	};
	for (size_t i = 0; i < ELEMENTS(bytes); i++) {
		uint8_t *byte = frame + bytes[i].at +
				(bytes[i].transport ? packet_transport(&s) : packet_network(&s));
		uint8_t old = *byte;

		*byte = bytes[i].value;
		assert_refused(&v, frame, length, true);
		*byte = old;
	}
	/* No length for it in the IP header. */
	memset(frame + length, 0, sizeof(frame) - length);
	bad = v;
	bad.gso_size = 65535;
	assert_refused(&bad, frame, EC_FRAME_MAX, true);
	assert_refused(&v, frame, EC_FRAME_MAX + 1, true);
	g_assert_cmpint(ec_segments_plan(&v, frame, EC_FRAME_MAX, true, &p), ==, 0);
	/* An IPv6 fragment. */
	s.ipv6 = true;
	s.extra = 1;
	length = packet_write(&s, payload, 3000, 1000, frame, &v);
	g_assert_cmpint(ec_segments_plan(&v, frame, length, true, &p), ==, 0);
	frame[packet_network(&s) + 6] = 44;
	assert_refused(&v, frame, length, true);
}

/* Headers that do not fit where the caller lets them be written. */
static void test_header_too_large(void)
{
	PacketSpec s = packet_plain;
	uint8_t frame[2048];
	struct virtio_net_hdr v;
	size_t length;

	s.tags = 96;
	s.extra = 10;
	s.words = 8;
	check_cut(&s, 1000, 400);
	g_assert_cmpuint(packet_header(&s), <=, EC_SEGMENT_HEADER_MAX);
	s.words = 9;
	g_assert_cmpuint(packet_header(&s), >, EC_SEGMENT_HEADER_MAX);
	length = packet_write(&s, payload, 1000, 400, frame, &v);
	assert_refused(&v, frame, length, true);
	s.tags = 97;
	s.extra = s.words = 0;
	length = packet_write(&s, payload, 1000, 400, frame, &v);
	assert_refused(&v, frame, length, true);
}

/* Anything may come: it is cut into right frames, or refused. */
static void test_hostile(void)
{
	static uint8_t frame[EC_FRAME_MAX], seen[EC_FRAME_MAX];
	unsigned cut = 0, refused = 0;

	for (unsigned i = 0; i < 100000; i++) {
		PacketSpec spec = random_spec();
		struct virtio_net_hdr v;
		g_autofree uint8_t *copy = NULL;
		EcSegments s;
		size_t length = packet_write(&spec, payload, (size_t)g_test_rand_int_range(1, 400),
				(uint16_t)g_test_rand_int_range(1, 300), frame, &v);

		for (int changes = g_test_rand_int_range(0, 4); changes > 0; changes--) {
			uint8_t byte = (uint8_t)g_test_rand_int();

			if (g_test_rand_bit())
				((uint8_t *)&v)[g_test_rand_int_range(0, sizeof(v))] = byte;
			else
				frame[g_test_rand_int_range(0, MIN(120, (gint32)length))] = byte;
		}
		if (g_test_rand_bit())
			length -= (size_t)g_test_rand_int_range(0, (gint32)length);
		int r = plan(&v, frame, length, !spec.bare, &s, &copy);
		refused += r < 0;
		if (r == 0 && s.header > 0) {
			cut++;
			g_assert_cmpuint(s.count, ==, (length - s.header + s.size - 1) / s.size);
			for (unsigned j = 0; j < s.count; j++) {
				const uint8_t *part;
				size_t n;

				ec_segment(&s, j, seen, &part, &n);
				memcpy(seen + s.header, part, n);
				packet_assert_right(seen, s.header + n, !spec.bare, false);
			}
		}
		r = ec_segment_complete(&v, copy, length);
		g_assert_true(r == 0 || r == -EBADMSG);
	}
	g_assert_cmpuint(cut, >, 1000);
	g_assert_cmpuint(refused, >, 1000);
}

static void test_complete(void)
{
	uint8_t frame[2048], expected[2048];
	struct virtio_net_hdr v;
	size_t length;

	for (unsigned i = 0; i < 3000; i++) {
		PacketSpec s = random_spec();
		size_t n = (size_t)g_test_rand_int_range(0, 1000);

		s.partial = false;
		length = packet_write(&s, payload, n, 0, expected, &v);
		memcpy(frame, expected, length);
		g_assert_cmpint(ec_segment_complete(&v, frame, length), ==, 0);
		g_assert_cmpmem(frame, length, expected, length);
		s.partial = true;
		packet_write(&s, payload, n, 0, frame, &v);
		g_assert_cmpint(ec_segment_complete(&v, frame, length), ==, 0);
		g_assert_cmpmem(frame, length, expected, length);
	}
	/* Inside of a UDP tunnel whose own checksum is done. */
	PacketSpec inner = packet_plain;
	inner.partial = true;
	PacketSpec outer = packet_plain;
	outer.udp = true;
	length = packet_write(&inner, payload, 100, 0, expected, &v);
	size_t whole = packet_write(&outer, expected, length, 0, frame, NULL);
	v.csum_start = (uint16_t)(v.csum_start + whole - length);
	g_assert_cmpint(ec_segment_complete(&v, frame, whole), ==, 0);
	packet_assert_right(frame + whole - length, length, true, false);
}

static void test_complete_malformed(void)
{
	static const struct {
		uint16_t start, offset;
		int r;
	} rows[] = { { 34, 16, 0 }, { 98, 0, 0 }, { 99, 0, -EBADMSG }, { 0, 98, 0 },
		{ 34, 65534, -EBADMSG }, { 65535, 65534, -EBADMSG }, { 65535, 0, -EBADMSG },
		{ 34, 15, -EBADMSG }, { 100, 0, -EBADMSG } };

	for (size_t i = 0; i < ELEMENTS(rows); i++) {
		g_autofree uint8_t *copy = g_memdup2(payload, 100);
		struct virtio_net_hdr v = {
			.flags = 1, .csum_start = rows[i].start, .csum_offset = rows[i].offset
		};

		g_assert_cmpint(ec_segment_complete(&v, copy, 100), ==, rows[i].r);
		g_assert_cmpint(memcmp(copy, payload, 100) == 0, ==, rows[i].r < 0);
	}
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	for (size_t i = 0; i < sizeof(payload); i++)
		payload[i] = (uint8_t)g_test_rand_int();
	g_test_add_func("/worker/segment/sum", test_sum);
	g_test_add_func("/worker/segment/cut", test_cut);
	g_test_add_func("/worker/segment/cut-random", test_cut_random);
	g_test_add_func("/worker/segment/cut-smallest", test_cut_smallest);
	g_test_add_func("/worker/segment/udp-zero", test_udp_zero);
	g_test_add_func("/worker/segment/routed", test_routed);
	g_test_add_func("/worker/segment/plain-frames", test_plain_frames);
	g_test_add_func("/worker/segment/malformed", test_malformed);
	g_test_add_func("/worker/segment/header-too-large", test_header_too_large);
	g_test_add_func("/worker/segment/hostile", test_hostile);
	g_test_add_func("/worker/segment/complete", test_complete);
	g_test_add_func("/worker/segment/complete-malformed", test_complete_malformed);
	return g_test_run();
}
