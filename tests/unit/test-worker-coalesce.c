/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <glib.h>
#include <string.h>

#include "packets.h"
#include "roundtrip.h"

#define ELEMENTS(a) (sizeof(a) / sizeof((a)[0]))
#define SIZE 1000

static uint8_t payload[EC_FRAME_MAX];

/* The segment that follows a: n bytes of payload after the `before` of a. */
static PacketSpec following(const PacketSpec *a, size_t before)
{
	PacketSpec b = *a;

	b.sequence += (uint32_t)before;
	b.id++;
	return b;
}

static void add(RoundTrip *t, const PacketSpec *s, size_t n)
{
	static uint8_t frame[EC_FRAME_MAX];

	roundtrip_add(t, frame, packet_write(s, payload, n, 0, frame, NULL));
}

/* Adds n segments that follow each other, of `size` bytes each; *s is then the next one. */
static void add_many(RoundTrip *t, PacketSpec *s, unsigned n, size_t size)
{
	for (; n > 0; n--) {
		add(t, s, size);
		*s = following(s, size);
	}
}

static void test_merge(void)
{
	static const PacketSpec kinds[] = { { 0 }, { .tags = 1 }, { .tags = 2 }, { .bare = true },
		{ .ipv6 = true }, { .ipv6 = true, .bare = true }, { .ipv6 = true, .tags = 2 } };

	for (size_t i = 0; i < ELEMENTS(kinds); i++) {
		PacketSpec s = packet_plain;

		s.tags = kinds[i].tags;
		s.bare = kinds[i].bare;
		s.ipv6 = kinds[i].ipv6;
		RoundTrip *t = roundtrip_new(!s.bare);
		add_many(t, &s, 5, SIZE);
		g_assert_cmpuint(t->emitted, ==, 0);
		roundtrip_flush(t);
		g_assert_cmpuint(t->emitted, ==, 1);
		g_assert_cmpuint(t->merged, ==, 5);
		g_assert_cmpuint(t->last.gso_type, ==, s.ipv6 ? 4 : 1);
		g_assert_cmpuint(t->last.gso_size, ==, SIZE);
		g_assert_cmpuint(t->last.hdr_len, ==, packet_header(&s));
		g_assert_cmpuint(t->last.csum_start, ==, packet_transport(&s));
		g_assert_cmpuint(t->last.csum_offset, ==, 16);
		/* One alone is itself; and nothing is left of the batch before. */
		add(t, &s, SIZE);
		roundtrip_flush(t);
		roundtrip_flush(t);
		g_assert_cmpuint(t->emitted, ==, 2);
		g_assert_cmpuint(t->supers, ==, 1);
		roundtrip_free(t);
	}
}

/* Tags that keep the kernel from cutting: others than 802.1Q's and 802.1ad's, and a crowd. */
static void test_tags(void)
{
	for (uint8_t tags = 1; tags <= 10; tags++) {
		for (unsigned odd = 0; odd <= tags; odd++) {
			RoundTrip *t = roundtrip_new(true);
			PacketSpec s = packet_plain;
			uint8_t frame[2 * SIZE];

			s.tags = tags;
			for (unsigned n = 0; n < 3; n++) {
				size_t length = packet_write(&s, payload, SIZE, 0, frame, NULL);

				if (odd > 0)
					memcpy(frame + 8 + (size_t)odd * 4, "\x91", 2);
				roundtrip_add(t, frame, length);
				s = following(&s, SIZE);
			}
			roundtrip_flush(t);
			g_assert_cmpuint(t->supers, ==, odd == 0 && tags <= 4);
			roundtrip_free(t);
		}
	}
}

/* What ends a super-frame: it goes out at once. */
static void test_end(void)
{
	RoundTrip *t = roundtrip_new(true);
	PacketSpec s = packet_plain;

	add_many(t, &s, 2, SIZE);
	s.flags |= 8; /* PSH */
	add(t, &s, SIZE);
	g_assert_cmpuint(t->last_frames, ==, 3);
	s = following(&s, SIZE);
	/* With PSH at the start there is nothing to wait for. */
	add(t, &s, SIZE);
	g_assert_cmpuint(t->emitted, ==, 2);
	g_assert_cmpuint(t->supers, ==, 1);
	s = following(&s, SIZE);
	s.flags &= 0xf7;
	add_many(t, &s, 2, SIZE);
	add_many(t, &s, 1, SIZE - 1);
	g_assert_cmpuint(t->emitted, ==, 3);
	g_assert_cmpuint(t->last_frames, ==, 3);
	/* A larger one is another size: the beginning of a super-frame, not the end. */
	add_many(t, &s, 1, SIZE);
	add_many(t, &s, 2, SIZE + 1);
	g_assert_cmpuint(t->emitted, ==, 4);
	roundtrip_flush(t);
	g_assert_cmpuint(t->last_frames, ==, 2);
	roundtrip_free(t);
}

static void test_limits(void)
{
	RoundTrip *t = roundtrip_new(true);
	PacketSpec s = packet_plain;

	add_many(t, &s, 64, 100);
	g_assert_cmpuint(t->last_frames, ==, 64);
	roundtrip_flush(t);
	g_assert_cmpuint(t->emitted, ==, 1);
	/* 20 + 32 + 45 * 1448 are 65212, and with one more 66660. */
	add_many(t, &s, 45, 1448);
	g_assert_cmpuint(t->last_frames, ==, 45);
	g_assert_cmpuint(t->emitted, ==, 2);
	/* To the byte. */
	s.words = 0;
	add_many(t, &s, 5, (65535 - 40) / 5);
	g_assert_cmpuint(t->last_frames, ==, 5);
	add_many(t, &s, 5, (65535 - 40) / 5 + 1);
	roundtrip_flush(t);
	g_assert_cmpuint(t->last_frames, ==, 4);
	add_many(t, &s, 2, 40000);
	g_assert_cmpuint(t->emitted, ==, 7);
	roundtrip_free(t);
	/* The oldest flow makes room for the 17th. */
	t = roundtrip_new(true);
	for (unsigned i = 0; i <= EC_COALESCE_FLOWS; i++) {
		PacketSpec flow = packet_plain;

		flow.flow = (uint8_t)i;
		add_many(t, &flow, 3, SIZE);
		g_assert_cmpuint(t->emitted, ==, i < EC_COALESCE_FLOWS ? 0 : 1);
	}
	roundtrip_flush(t);
	g_assert_cmpuint(t->supers, ==, EC_COALESCE_FLOWS + 1);
	roundtrip_free(t);
}

/* Flows between each other. */
static void test_flows(void)
{
	RoundTrip *t = roundtrip_new(true);
	PacketSpec flows[EC_COALESCE_FLOWS];

	for (unsigned i = 0; i < ELEMENTS(flows); i++) {
		flows[i] = packet_plain;
		flows[i].flow = (uint8_t)(i / 2);
		flows[i].ipv6 = i % 2;
	}
	for (unsigned n = 0; n < 10; n++)
		for (unsigned i = 0; i < ELEMENTS(flows); i++)
			add_many(t, &flows[i], 1, SIZE);
	g_assert_cmpuint(t->emitted, ==, 0);
	roundtrip_flush(t);
	g_assert_cmpuint(t->supers, ==, ELEMENTS(flows));
	g_assert_cmpuint(t->merged, ==, 10 * ELEMENTS(flows));
	roundtrip_free(t);
}

/* Adds two segments and then the frame after them: what is expected is that the two go out before
 * it, and it alone. */
static void check_alone(const char *what, const uint8_t *frame, size_t length)
{
	RoundTrip *t = roundtrip_new(true);
	PacketSpec s = packet_plain;

	g_test_message("%s", what);
	s.ipv6 = frame[12] == 0x86;
	add_many(t, &s, 2, SIZE);
	roundtrip_add(t, frame, length);
	g_assert_cmpuint(t->supers, ==, 1);
	g_assert_cmpuint(t->last_frames, ==, 2);
	roundtrip_flush(t);
	g_assert_cmpuint(t->emitted, ==, 2);
	g_assert_cmpuint(t->supers, ==, 1);
	roundtrip_free(t);
}

static PacketSpec third(void)
{
	PacketSpec s = following(&packet_plain, SIZE);

	return following(&s, SIZE);
}

static void test_not_merged(void)
{
	static const struct {
		const char *what;
		size_t offset, size;
		uint32_t change; /* is XORed */
	} rows[] = {
#define CHANGE(what, member, change)                                                               \
	{ what, offsetof(PacketSpec, member), sizeof(packet_plain.member), change }
		CHANGE("a VLAN", tags, 1),
		CHANGE("IPv4 options", extra, 1),
		CHANGE("ECN", tos, 3),
		CHANGE("DSCP", tos, 0x80),
		CHANGE("TTL", ttl, 1),
		CHANGE("an id that does not follow", id, 0x100),
		CHANGE("DF", fragment, 0x4000),
		CHANGE("more fragments", fragment, 0x6000),
		CHANGE("a later fragment", fragment, 0x4001),
		CHANGE("another sequence number", sequence, 1),
		CHANGE("another half of the numbers", sequence, 0x80000000),
		CHANGE("an acknowledgment", acknowledgment, 1),
		CHANGE("the window", window, 1),
		CHANGE("more options", words, 4),
		CHANGE("a timestamp", stamp, 2),
		CHANGE("FIN", flags, 1),
		CHANGE("SYN", flags, 2),
		CHANGE("RST", flags, 4),
		CHANGE("no ACK", flags, 0x10),
		CHANGE("URG", flags, 0x20),
		CHANGE("ECE", flags, 0x40),
		CHANGE("CWR", flags, 0x80),
	};
	uint8_t frame[4096];

	for (size_t i = 0; i < ELEMENTS(rows); i++) {
		PacketSpec s = third();
		uint32_t value = 0;

		memcpy(&value, (uint8_t *)&s + rows[i].offset, rows[i].size);
		value ^= rows[i].change;
		memcpy((uint8_t *)&s + rows[i].offset, &value, rows[i].size);
		check_alone(rows[i].what, frame, packet_write(&s, payload, SIZE, 0, frame, NULL));
	}
	PacketSpec s = third();
	s.id--;
	check_alone("the same id", frame, packet_write(&s, payload, SIZE, 0, frame, NULL));
	s.id++;
	check_alone("no data", frame, packet_write(&s, payload, 0, 0, frame, NULL));
	size_t length = packet_write(&s, payload, SIZE, 0, frame, NULL);
	frame[length] = 0;
	check_alone("padding", frame, length + 1);
	check_alone("cut off", frame, length - 1);
	check_alone("cut off in the header", frame, packet_transport(&s) + 4);
	frame[5] ^= 1;
	check_alone("another MAC address", frame, length);
	s.ipv6 = true;
	s.extra = 1;
	length = packet_write(&s, payload, SIZE, 0, frame, NULL);
	check_alone("an extension header", frame, length);
	s.extra = 0;
	s.ttl++;
	length = packet_write(&s, payload, SIZE, 0, frame, NULL);
	check_alone("the hop limit", frame, length);
	s.ttl--;
	s.tos ^= 1;
	length = packet_write(&s, payload, SIZE, 0, frame, NULL);
	check_alone("the traffic class", frame, length);
}

/* Merging writes checksums anew: what was wrong must not become right. Nor is 0xffff, which counts
 * as right too, what would be written. */
static void test_wrong_checksum(void)
{
	static const struct {
		const char *what;
		size_t at;
	} rows[] = { { "payload", 200 }, { "the last byte", SIZE + 65 }, { "TCP", 34 + 16 },
		{ "the urgent pointer", 34 + 18 }, { "IPv4's", 14 + 10 } };
	uint8_t frame[4096];

	for (size_t i = 0; i < ELEMENTS(rows); i++) {
		PacketSpec s = third();
		size_t length = packet_write(&s, payload, SIZE, 0, frame, NULL);

		frame[rows[i].at] ^= 4;
		check_alone(rows[i].what, frame, length);
		/* The first one, too. */
		RoundTrip *t = roundtrip_new(true);
		roundtrip_add(t, frame, length);
		s = following(&s, SIZE);
		add_many(t, &s, 3, SIZE);
		g_assert_cmpuint(t->emitted, ==, 1);
		roundtrip_flush(t);
		g_assert_cmpuint(t->emitted, ==, 2);
		g_assert_cmpuint(t->last_frames, ==, 3);
		roundtrip_free(t);
	}
	PacketSpec s = third();
	uint8_t data[SIZE] = { 0 };
	packet_write(&s, data, SIZE, 0, frame, NULL);
	memcpy(data, frame + 34 + 16, 2);
	size_t length = packet_write(&s, data, SIZE, 0, frame, NULL);
	g_assert_cmpuint(frame[34 + 16] + frame[34 + 17], ==, 0);
	frame[34 + 16] = frame[34 + 17] = 0xff;
	check_alone("0xffff", frame, length);
}

/* A checksum that the sender left to its device, and nobody made: the device is told, of a frame
 * alone as of what is merged. */
static void test_left_to_do(void)
{
	PacketSpec s = packet_plain;

	s.partial = true;
	for (unsigned i = 0; i < 16; i++) {
		RoundTrip *t = roundtrip_new(i & 1);

		s.bare = !(i & 1);
		s.ipv6 = i & 2;
		s.udp = i & 4;
		s.extra = i & 8 ? 1 : 0;
		add(t, &s, SIZE - 1);
		roundtrip_flush(t);
		g_assert_cmpuint(t->last.flags, ==, VIRTIO_NET_HDR_F_NEEDS_CSUM);
		g_assert_cmpuint(t->last.csum_start, ==, packet_transport(&s));
		g_assert_cmpuint(t->last.csum_offset, ==, s.udp ? 6 : 16);
		g_assert_cmpuint(t->last.gso_type, ==, 0);
		PacketSpec next = following(&s, SIZE);
		add_many(t, &next, 3, SIZE);
		roundtrip_flush(t);
		g_assert_cmpuint(t->merged, ==, s.udp || s.extra ? 0 : 3);
		roundtrip_free(t);
	}
}

/* What came out last, and how much. */
typedef struct Out {
	struct virtio_net_hdr v;
	unsigned n, frames;
} Out;

static void keep(const struct virtio_net_hdr *v, const struct iovec *pieces, int n, unsigned frames,
		void *userdata)
{
	Out *out = userdata;

	(void)pieces;
	(void)n;
	*out = (Out){ *v, out->n + 1, frames };
}

/* A super-frame that nobody cut goes out at once, as one, if there is reason to think so. */
static void test_uncut(void)
{
	static uint8_t frame[EC_FRAME_MAX];
	Out out = { 0 };
	EcCoalesce *c = ec_coalesce_new(true, keep, &out);

	for (unsigned i = 0; i < 16; i++) {
		PacketSpec s = packet_plain;
		const bool partial = i & 1, known = i & 2;

		s.partial = partial;
		s.ipv6 = i & 4;
		s.flags |= i & 8 ? 0x80 : 0;
		const size_t header = packet_header(&s);
		ec_coalesce_set_room(c, known ? 1450 : 0);
		const size_t length = packet_write(&s, payload, 6000, 0, frame, NULL);
		const unsigned before = out.n;
		ec_coalesce_add(c, frame, length);
		if (partial && known)
			g_assert_cmpuint(out.n, ==, before + 1);
		ec_coalesce_flush(c);
		g_assert_cmpuint(out.n, ==, before + 1);
		g_assert_cmpuint(out.v.flags, ==, partial);
		if (!partial || !known) {
			g_assert_cmpuint(out.v.gso_type, ==, VIRTIO_NET_HDR_GSO_NONE);
			g_assert_cmpuint(out.frames, ==, 1);
			continue;
		}
		g_assert_cmpuint(out.v.gso_type, ==, (s.ipv6 ? 4 : 1) | (i & 8 ? 0x80 : 0));
		g_assert_cmpuint(out.v.gso_size, ==, 1450 - header);
		g_assert_cmpuint(out.v.hdr_len, ==, header);
		g_assert_cmpuint(out.v.csum_start, ==, packet_transport(&s));
		g_assert_cmpuint(out.frames, ==, 5);
		/* What the path carries is a frame. */
		ec_coalesce_set_room(c, length);
		ec_coalesce_add(c, frame, length);
		ec_coalesce_flush(c);
		g_assert_cmpuint(out.v.gso_type, ==, VIRTIO_NET_HDR_GSO_NONE);
	}
	/* Of UDP it is told how large they are to be. */
	PacketSpec udp = packet_plain;
	udp.udp = true;
	for (unsigned partial = 0; partial < 2; partial++) {
		udp.partial = partial;
		size_t length = packet_write(&udp, payload, 4500, 0, frame, NULL);
		g_assert_true(ec_coalesce_uncut(c, frame, length, 1000) == udp.partial);
		/* Neighbours that were put together, of which this is the first. */
		g_assert_false(ec_coalesce_uncut(c, frame, length + 9, 1000));
		g_assert_false(ec_coalesce_uncut(c, frame, length, 4500));
	}
	g_assert_cmpuint(out.v.gso_type, ==, 5);
	g_assert_cmpuint(out.v.gso_size, ==, 1000);
	g_assert_cmpuint(out.v.hdr_len, ==, packet_header(&udp));
	g_assert_cmpuint(out.frames, ==, 5);
	ec_coalesce_free(c);
}

/* Whatever is of no TCP flow is not held, and holds nothing up. */
static void test_others(void)
{
	RoundTrip *t = roundtrip_new(true);
	PacketSpec s = packet_plain, udp = packet_plain;
	uint8_t frame[60] = { [12] = 8, [13] = 6 };

	udp.udp = true;
	add_many(t, &s, 1, SIZE);
	add_many(t, &udp, 2, SIZE);
	udp.fragment = 0x2000;
	add_many(t, &udp, 1, SIZE);
	g_assert_cmpuint(t->emitted, ==, 3);
	for (size_t n = 0; n <= sizeof(frame); n++)
		roundtrip_add(t, frame, n);
	g_assert_cmpuint(t->emitted, ==, 4 + sizeof(frame));
	add_many(t, &s, 1, SIZE);
	roundtrip_flush(t);
	g_assert_cmpuint(t->last_frames, ==, 2);
	/* Nothing of TCP that is cut off somewhere is read beyond its end. */
	uint8_t whole[256];
	for (unsigned ipv6 = 0; ipv6 < 2; ipv6++) {
		s.ipv6 = ipv6;
		size_t length = packet_write(&s, payload, 100, 0, whole, NULL);
		for (size_t n = 0; n <= length; n++)
			roundtrip_add(t, whole, n);
	}
	roundtrip_flush(t);
	roundtrip_free(t);
}

/* Many flows with now and then something odd. */
static void test_random(void)
{
	static uint8_t frame[EC_FRAME_MAX];
	unsigned merged = 0, odd = 0;

	for (unsigned round = 0; round < 300; round++) {
		PacketSpec flows[20];
		bool bare = g_test_rand_bit();
		RoundTrip *t = roundtrip_new(!bare);

		for (size_t i = 0; i < ELEMENTS(flows); i++) {
			flows[i] = packet_plain;
			flows[i].bare = bare;
			flows[i].flow = (uint8_t)i;
			flows[i].ipv6 = g_test_rand_bit();
			flows[i].tags = (uint8_t)(bare ? 0 : g_test_rand_int_range(0, 3));
			flows[i].sequence = (uint32_t)g_test_rand_int();
		}
		int many = g_test_rand_int_range(1, ELEMENTS(flows));
		for (int n = g_test_rand_int_range(1, 400); n > 0; n--) {
			PacketSpec *s = &flows[g_test_rand_int_range(0, many)];
			size_t size = g_test_rand_int_range(0, 10)
						      ? SIZE
						      : (size_t)g_test_rand_int_range(0, 1500);

			s->flags = g_test_rand_int_range(0, 20) ? 0x10 : (uint8_t)g_test_rand_int();
			size_t length = packet_write(s, payload, size, 0, frame, NULL);
			*s = following(s, size);
			if (g_test_rand_int_range(0, 15) == 0) {
				odd++;
				frame[g_test_rand_int_range(0, MIN(100, (gint32)length))] ^=
						(uint8_t)(1 << g_test_rand_int_range(0, 8));
			}
			roundtrip_add(t, frame, length);
			if (g_test_rand_int_range(0, 60) == 0)
				roundtrip_flush(t);
		}
		roundtrip_flush(t);
		merged += t->merged;
		roundtrip_free(t);
	}
	g_assert_cmpuint(merged, >, 1000);
	g_assert_cmpuint(odd, >, 1000);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	for (size_t i = 0; i < sizeof(payload); i++)
		payload[i] = (uint8_t)g_test_rand_int();
	g_test_add_func("/worker/coalesce/merge", test_merge);
	g_test_add_func("/worker/coalesce/tags", test_tags);
	g_test_add_func("/worker/coalesce/end", test_end);
	g_test_add_func("/worker/coalesce/limits", test_limits);
	g_test_add_func("/worker/coalesce/flows", test_flows);
	g_test_add_func("/worker/coalesce/not-merged", test_not_merged);
	g_test_add_func("/worker/coalesce/wrong-checksum", test_wrong_checksum);
	g_test_add_func("/worker/coalesce/left-to-do", test_left_to_do);
	g_test_add_func("/worker/coalesce/uncut", test_uncut);
	g_test_add_func("/worker/coalesce/others", test_others);
	g_test_add_func("/worker/coalesce/random", test_random);
	return g_test_run();
}
