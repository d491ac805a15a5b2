/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker/toobig.h"

#include <glib.h>
#include <string.h>

/*
 * The two answers here are those of a kernel's VXLAN at a bridge over a path of 1400 bytes (Linux
 * 6.18, caught as tests/netns/test_too_big.py does). All that it answers is compared there; here is
 * what needs no kernel: tags, limits, and what is cut off.
 */

#define LINK                                                                                       \
	"020000000002"                                                                             \
	"020000000001"
#define LINK_BACK                                                                                  \
	"020000000001"                                                                             \
	"020000000002"
#define V4 "450005dc123440003d119289c0a80901c0a80902"
#define V4_ANSWER                                                                                  \
	"45000240000040003d01a869c0a80902c0a80901"                                                 \
	"0304a50800000546"
#define V6                                                                                         \
	"6001234505b4113d"                                                                         \
	"fd990000000000000000000000000001"                                                         \
	"fd990000000000000000000000000002"
#define V6_ANSWER                                                                                  \
	"6000000004d83a3d"                                                                         \
	"fd990000000000000000000000000002"                                                         \
	"fd990000000000000000000000000001"                                                         \
	"02002f3f00000546"

#define MTU 1350

/* Headers, and the payload of the recorded packets up to `size` bytes. */
static GByteArray *bytes_of(const char *hex, gsize size)
{
	GByteArray *b = g_byte_array_new();

	for (; hex[0]; hex += 2) {
		const uint8_t byte = (uint8_t)(g_ascii_xdigit_value(hex[0]) << 4 |
					       g_ascii_xdigit_value(hex[1]));

		g_byte_array_append(b, &byte, 1);
	}
	for (unsigned i = 0; b->len < size; i++) {
		const uint8_t byte = (uint8_t)(i * 7 % 251);

		g_byte_array_append(b, &byte, 1);
	}
	return b;
}

/* From a block of exactly its size, to one of exactly the largest answer's. */
static size_t answer_to(const GByteArray *b, bool ethernet, unsigned mtu, uint8_t *ret)
{
	g_autofree uint8_t *frame = g_memdup2(b->data, b->len);
	g_autofree uint8_t *answer = g_malloc(EC_TOO_BIG_MAX);
	size_t n = ec_too_big(frame, b->len, ethernet, mtu, answer);

	g_assert_cmpuint(n, <=, EC_TOO_BIG_MAX);
	memcpy(ret, answer, n);
	return n;
}

static const struct {
	const char *type, *packet, *answer;
	size_t largest;
} kinds[] = {
	{ "0800", V4, V4_ANSWER, 576 },
	{ "86dd", V6, V6_ANSWER, 1280 },
};

static void test_answers(void)
{
	static const char *const tags[] = { "", "81006064", "88a800078100a064",
		"91000001810000028100e003" };

	for (size_t i = 0; i < G_N_ELEMENTS(kinds) * G_N_ELEMENTS(tags); i++) {
		const char *tag = tags[i / G_N_ELEMENTS(kinds)];
		size_t k = i % G_N_ELEMENTS(kinds), link = 14 + strlen(tag) / 2;
		g_autofree char *sent =
				g_strconcat(LINK, tag, kinds[k].type, kinds[k].packet, NULL);
		g_autofree char *back =
				g_strconcat(LINK_BACK, tag, kinds[k].type, kinds[k].answer, NULL);
		g_autoptr(GByteArray) frame = bytes_of(sent, link + 1500);
		g_autoptr(GByteArray) head = bytes_of(back, 0);
		uint8_t answer[EC_TOO_BIG_MAX];
		size_t n = answer_to(frame, true, MTU, answer);

		g_assert_cmpuint(n, ==, link + kinds[k].largest);
		g_assert_cmpmem(answer, head->len, head->data, head->len);
		g_assert_cmpmem(answer + head->len, n - head->len, frame->data + link,
				n - head->len);
	}
}

static void test_bare(void)
{
	for (size_t k = 0; k < G_N_ELEMENTS(kinds); k++) {
		g_autoptr(GByteArray) packet = bytes_of(kinds[k].packet, 1500);
		g_autoptr(GByteArray) head = bytes_of(kinds[k].answer, 0);
		uint8_t answer[EC_TOO_BIG_MAX];

		g_assert_cmpuint(answer_to(packet, false, MTU, answer), ==, kinds[k].largest);
		g_assert_cmpmem(answer, head->len, head->data, head->len);
	}
}

/* Short packets are quoted whole; what fits, or what nobody would heed, has no answer. */
static void test_limits(void)
{
	g_autoptr(GByteArray) small = bytes_of(LINK "0800" V4, 14 + 101);
	g_autoptr(GByteArray) v4 = bytes_of(LINK "0800" V4, 14 + 1500);
	g_autoptr(GByteArray) v6 = bytes_of(LINK "86dd" V6, 14 + 1500);
	uint8_t answer[EC_TOO_BIG_MAX];

	g_assert_cmpuint(answer_to(small, true, 68, answer), ==, 14 + 28 + 101);
	g_assert_cmpmem(answer + 42, 101, small->data + 14, 101);
	g_assert_cmpuint(answer_to(small, true, 100, answer), >, 0);
	g_assert_cmpuint(answer_to(small, true, 101, answer), ==, 0);
	g_assert_cmpuint(answer_to(v4, true, 68, answer), >, 0);
	g_assert_cmpuint(answer_to(v4, true, 67, answer), ==, 0);
	g_assert_cmpuint(answer_to(v4, true, 0, answer), ==, 0);
	g_assert_cmpuint(answer_to(v4, true, 1499, answer), >, 0);
	g_assert_cmpuint(answer_to(v4, true, 1500, answer), ==, 0);
	g_assert_cmpuint(answer_to(v4, true, G_MAXUINT, answer), ==, 0);
	g_assert_cmpuint(answer_to(v6, true, 1280, answer), >, 0);
	g_assert_cmpuint(answer_to(v6, true, 1279, answer), ==, 0);
}

/* As many tags as there is room for, and not one more. */
static void test_many_tags(void)
{
	for (size_t tags = 0; tags < 60; tags++) {
		g_autoptr(GString) hex = g_string_new(LINK);
		uint8_t answer[EC_TOO_BIG_MAX];

		for (size_t i = 0; i < tags; i++)
			g_string_append(hex, "81000001");
		g_string_append(hex, "86dd" V6);
		g_autoptr(GByteArray) frame = bytes_of(hex->str, 14 + 4 * tags + 1500);
		g_assert_cmpuint(answer_to(frame, true, MTU, answer), ==,
				14 + 4 * tags + 1280 <= EC_TOO_BIG_MAX ? 14 + 4 * tags + 1280 : 0);
	}
}

/* Wherever a frame ends: an answer only to what has all its headers and does not fit. */
static void test_cut(void)
{
	static const char *const frames[] = {
		LINK "81000001"
		     "0800" V4,
		LINK "86dd" V6,
		LINK "86dd"
		     "6001234505b4003d"
		     "fd990000000000000000000000000001"
		     "fd990000000000000000000000000002"
		     "3c00010400000000"
		     "3300010400000000"
		     "2c04000000000000"
		     "0000000000000000"
		     "0000000000000000"
		     "1100000100000007",
	};

	for (size_t i = 0; i < G_N_ELEMENTS(frames); i++) {
		for (size_t mtu = 68; mtu <= 1280; mtu += 1280 - 68) {
			g_autoptr(GByteArray) whole = bytes_of(frames[i], 14 + 1500);

			for (; whole->len > 0; g_byte_array_set_size(whole, whole->len - 1)) {
				uint8_t answer[EC_TOO_BIG_MAX];
				size_t link = i == 0 ? 18 : 14;
				bool due = whole->len > link + mtu && (i == 0 || mtu == 1280);

				g_assert_cmpint(answer_to(whole, true, (unsigned)mtu, answer) > 0,
						==, due);
			}
		}
	}
}

#define FROM_TO                                                                                    \
	"fd990000000000000000000000000001"                                                         \
	"fd990000000000000000000000000002"

static void test_not_due(void)
{
	static const struct {
		const char *hex;
		bool due;
	} packets[] = {
		{ "450005dc1234000040119289c0a80901c0a80902", false }, /* may be fragmented */
		{ "450005dc1234200040119289c0a80901c0a80902", false },
		{ "450005dc1234600040119289c0a80901c0a80902", true }, /* the first fragment */
		{ "450005dc1234400140119289c0a80901c0a80902", false },
		{ "450005dc1234400040019289c0a80901c0a80902"
		  "0800",
				true },
		{ "450005dc1234400040019289c0a80901c0a80902"
		  "0301",
				false },
		{ "450005dc1234400040019289c0a80901c0a80902"
		  "0b00",
				false },
		{ "460005dc1234400040019289c0a80901c0a80902"
		  "01010101"
		  "0301",
				false },
		{ "450005dc1234400040119289c0a80901e0a80902", false },
		{ "450005dc1234400040119289c0a80901ffffffff", false },
		{ "450005dc1234400040119289e0000001c0a80902", false },
		{ "450005dc123440004011928900000001c0a80902", false },
		{ "450005dc12344000401192897f000001c0a80902", false },
		{ "440005dc1234400040119289c0a80901c0a80902", false }, /* no whole header */
		{ "6000000005b43a40" FROM_TO "8000", true },
		{ "6000000005b43a40" FROM_TO "0100", false },
		{ "6000000005b43a40" FROM_TO "8900", false },
		{ "6000000005b42c40" FROM_TO "1100000100000007", true },
		{ "6000000005b42c40" FROM_TO "1100000900000007", false },
		{ "6000000005b43b40" FROM_TO, false }, /* no next header */
		/* Behind authentication: an error, a question, and what is cut off. */
		{ "6000000005b43340" FROM_TO "3a01000000000000"
		  "00000000"
		  "0100",
				false },
		{ "6000000005b43340" FROM_TO "3a01000000000000"
		  "00000000"
		  "8000",
				true },
		{ "6000000005b43340"
		  "ff020000000000000000000000000001"
		  "fd990000000000000000000000000002",
				false },
		{ "6000000005b41140"
		  "00000000000000000000000000000000"
		  "fd990000000000000000000000000002",
				false },
		{ "6000000005b41140"
		  "fd990000000000000000000000000001"
		  "ff020000000000000000000000000002",
				false },
	};
	uint8_t answer[EC_TOO_BIG_MAX];

	for (size_t i = 0; i < G_N_ELEMENTS(packets); i++) {
		g_autoptr(GByteArray) b = bytes_of(packets[i].hex, 1500);

		if ((answer_to(b, false, MTU, answer) > 0) != packets[i].due)
			g_error("%s: not %d", packets[i].hex, packets[i].due);
	}
	/* Headers of the greatest length, until there is no more packet. */
	g_autoptr(GByteArray) b = bytes_of("6000000005b43340" FROM_TO "33ff", 1500);
	b->data[40 + 1028] = 51;
	b->data[40 + 1028 + 1] = 103;
	g_assert_cmpuint(40 + 1028 + (103 + 2) * 4, ==, 1488);
	for (unsigned more = 1; more < 4; more++) {
		b->data[1488] = 51;
		b->data[1489] = (uint8_t)more;
		g_assert_cmpuint(answer_to(b, false, MTU, answer), ==, 0);
	}
}

int main(int argc, char *argv[])
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/worker-too-big/answers", test_answers);
	g_test_add_func("/worker-too-big/bare", test_bare);
	g_test_add_func("/worker-too-big/limits", test_limits);
	g_test_add_func("/worker-too-big/many-tags", test_many_tags);
	g_test_add_func("/worker-too-big/cut", test_cut);
	g_test_add_func("/worker-too-big/not-due", test_not_due);
	return g_test_run();
}
