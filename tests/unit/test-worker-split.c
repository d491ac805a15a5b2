/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker/split.h"

#include <errno.h>
#include <glib.h>
#include <string.h>

typedef EcJoin Join;
static void join_free(Join *j)
{
	ec_join_free(j);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Join, join_free)

#define AN_HOUR (UINT64_C(3600) * G_USEC_PER_SEC)

static void test_plan(void)
{
	static const struct {
		size_t length, room;
		unsigned count;
		size_t size;
	} rows[] = {
		{ 1514, 1450, 2, 757 },
		{ 1514, 767, 2, 757 },
		{ 1514, 766, 3, 505 },
		{ 1518, 1420, 2, 759 },
		{ 1513, 1450, 2, 757 },
		{ 9014, 1450, 7, 1288 },
		{ 65535, 1450, 46, 1425 },
		{ 65535, 1034, 64, 1024 },
		{ 65535, 1033, 0, 0 },
		{ 65536, 1450, 0, 0 },
		/* What would fit is split all the same: whoever asks knows that it does not. */
		{ 1000, 1450, 2, 500 },
		{ 3, 1450, 2, 2 },
		{ 2, 11, 2, 1 },
		{ 1, 1450, 0, 0 },
		{ 0, 1450, 0, 0 },
		{ 64, 11, 64, 1 },
		{ 65, 11, 0, 0 },
		/* Of two bytes each, sixty are enough. */
		{ 120, 12, 60, 2 },
		{ 1514, 10, 0, 0 },
		{ 1514, 0, 0, 0 },
		{ SIZE_MAX, 1450, 0, 0 },
		{ 1514, SIZE_MAX, 2, 757 },
	};

	for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
		size_t size = 0;

		g_assert_cmpuint(ec_split_plan(rows[i].length, rows[i].room, &size), ==,
				rows[i].count);
		g_assert_cmpuint(size, ==, rows[i].size);
	}
}

/* Of all plans: the pieces are the frame, none is empty or larger than allowed. */
static void test_plans(void)
{
	for (size_t length = 2; length <= 65535; length += length < 9100 ? 1 : 97) {
		for (size_t room = 11; room < 9100; room += room < 100 ? 1 : 61) {
			size_t size = 0;
			unsigned count = ec_split_plan(length, room, &size);

			if (count == 0) {
				g_assert_cmpuint((room - 10) * EC_SPLIT_PIECES, <, length);
				continue;
			}
			g_assert_cmpuint(count, >=, 2);
			g_assert_cmpuint(count, <=, EC_SPLIT_PIECES);
			g_assert_cmpuint(size + EC_SPLIT_HEADER, <=, room);
			g_assert_cmpuint(size * (count - 1), <, length);
			g_assert_cmpuint(size * count, >=, length);
		}
	}
}

static void test_header(void)
{
	uint8_t header[EC_SPLIT_HEADER];

	ec_split_header(1, 3, 0x89abcdef, 0xfedc, header);
	g_assert_cmpmem(header, sizeof(header), "\x10\x01\x03\0\x89\xab\xcd\xef\xfe\xdc", 10);
}

/* Byte i of frame `number`. */
static uint8_t byte_of(uint32_t number, size_t i)
{
	return (uint8_t)((size_t)number * 151 + i * 7 + (i >> 8) * 31);
}

static GByteArray *piece_of(uint32_t number, size_t length, unsigned count, unsigned index)
{
	size_t size = (length + count - 1) / count;
	size_t from = size * index, to = MIN(from + size, length);
	GByteArray *b = g_byte_array_new();

	g_byte_array_set_size(b, (guint)(EC_SPLIT_HEADER + to - from));
	ec_split_header(index, count, number, length, b->data);
	for (size_t i = from; i < to; i++)
		b->data[EC_SPLIT_HEADER + i - from] = byte_of(number, i);
	return b;
}

/* Adds from a block of exactly its size; a frame that comes of it must be that of its number. */
static int add_bytes(EcJoin *j, const GByteArray *b, uint64_t now)
{
	g_autofree uint8_t *piece = g_memdup2(b->data, b->len);
	const uint8_t *frame = NULL;
	size_t length = 0;
	int r = ec_join_add(j, piece, b->len, now, &frame, &length);

	if (r == 1) {
		uint32_t number = (uint32_t)b->data[4] << 24 | (uint32_t)b->data[5] << 16 |
				  (uint32_t)b->data[6] << 8 | b->data[7];

		g_assert_cmpuint(length, ==, (guint)b->data[8] << 8 | b->data[9]);
		size_t right = 0;
		while (right < length && frame[right] == byte_of(number, right))
			right++;
		g_assert_cmpuint(right, ==, length);
	}
	return r;
}

static int add(EcJoin *j, uint32_t number, size_t length, unsigned count, unsigned index,
		uint64_t now)
{
	g_autoptr(GByteArray) b = piece_of(number, length, count, index);

	return add_bytes(j, b, now);
}

static void test_join(void)
{
	g_autoptr(Join) j = ec_join_new();
	const uint64_t now = AN_HOUR;

	for (unsigned i = 0; i < 7; i++)
		g_assert_cmpint(add(j, 1, 9014, 7, i, now), ==, i == 6);
	for (unsigned i = 64; i-- > 0;)
		g_assert_cmpint(add(j, 2, 65535, 64, i, now), ==, i == 0);
	/* Two at a time, and each piece twice. */
	g_assert_cmpint(add(j, 3, 1514, 2, 1, now), ==, 0);
	g_assert_cmpint(add(j, 4, 1514, 2, 0, now), ==, 0);
	g_assert_cmpint(add(j, 3, 1514, 2, 1, now), ==, 0);
	g_assert_cmpint(add(j, 4, 1514, 2, 1, now), ==, 1);
	g_assert_cmpint(add(j, 3, 1514, 2, 0, now), ==, 1);
	/* What was whole does not become so again. */
	g_assert_cmpint(add(j, 3, 1514, 2, 0, now), ==, 0);
	g_assert_cmpint(add(j, 3, 1514, 2, 1, now), ==, 0);
	g_assert_cmpuint(ec_join_lost(j, now), ==, 0);
	/* Until the number may be another frame's. */
	g_assert_cmpint(add(j, 3, 1000, 2, 0, now + EC_JOIN_USEC + 1), ==, 0);
	g_assert_cmpint(add(j, 3, 1000, 2, 1, now + EC_JOIN_USEC + 1), ==, 1);
	g_assert_cmpuint(ec_join_lost(j, now + 9 * EC_JOIN_USEC), ==, 0);
}

static void test_time(void)
{
	g_autoptr(Join) j = ec_join_new();
	uint64_t now = 0;

	g_assert_cmpint(add(j, 1, 1514, 2, 0, now), ==, 0);
	g_assert_cmpint(add(j, 1, 1514, 2, 1, now + EC_JOIN_USEC), ==, 1);
	now = AN_HOUR;
	/* Too late: its number begins again. */
	g_assert_cmpint(add(j, 2, 1514, 3, 0, now), ==, 0);
	g_assert_cmpint(add(j, 2, 1514, 3, 1, now), ==, 0);
	g_assert_cmpint(add(j, 2, 1514, 3, 2, now + EC_JOIN_USEC + 1), ==, 0);
	g_assert_cmpuint(ec_join_lost(j, now + EC_JOIN_USEC + 1), ==, 2);
	g_assert_cmpint(add(j, 2, 1514, 3, 0, now + EC_JOIN_USEC + 2), ==, 0);
	g_assert_cmpint(add(j, 2, 1514, 3, 1, now + EC_JOIN_USEC + 3), ==, 1);
	/* The time counts from the first piece, not from the last. */
	g_assert_cmpint(add(j, 3, 1514, 3, 0, 2 * now), ==, 0);
	g_assert_cmpint(add(j, 3, 1514, 3, 1, 2 * now + EC_JOIN_USEC), ==, 0);
	g_assert_cmpuint(ec_join_lost(j, 2 * now + EC_JOIN_USEC), ==, 2);
	g_assert_cmpuint(ec_join_lost(j, 2 * now + EC_JOIN_USEC + 1), ==, 4);
	g_assert_cmpuint(ec_join_lost(j, 2 * now + EC_JOIN_USEC + 1), ==, 4);
}

/* The oldest goes when there is no slot, and when there is no memory. */
static void test_bounds(void)
{
	g_autoptr(Join) j = ec_join_new();
	const uint64_t now = AN_HOUR;
	unsigned whole = 0;

	for (uint32_t n = 0; n < EC_JOIN_FRAMES + 1; n++)
		g_assert_cmpint(add(j, n, 1514, 2, 0, now), ==, 0);
	g_assert_cmpuint(ec_join_lost(j, now), ==, 1);
	for (uint32_t n = 1; n < EC_JOIN_FRAMES + 1; n++)
		g_assert_cmpint(add(j, n, 1514, 2, 1, now), ==, 1);
	g_assert_cmpint(add(j, 0, 1514, 2, 1, now), ==, 0);
	g_assert_cmpuint(ec_join_lost(j, now + EC_JOIN_USEC + 1), ==, 2);

	for (uint32_t n = 100; n < 120; n++)
		g_assert_cmpint(add(j, n, 65535, 50, 0, now), ==, 0);
	g_assert_cmpuint(ec_join_lost(j, now), ==, 2 + 20 - EC_JOIN_BYTES / 65536);
	for (uint32_t n = 119; n >= 100; n--) {
		for (unsigned i = 1; i < 50 && n >= 120 - EC_JOIN_BYTES / 65536; i++)
			whole += add(j, n, 65535, 50, i, now) == 1;
	}
	g_assert_cmpuint(whole, ==, EC_JOIN_BYTES / 65536);
	/* Small ones everywhere between: a large one still finds its place. */
	for (uint32_t n = 200; n < 200 + EC_JOIN_FRAMES; n++)
		g_assert_cmpint(add(j, n, n % 2 ? 1514 : 16000, 16, 0, now), ==, 0);
	for (unsigned i = 0; i < 50; i++)
		g_assert_cmpint(add(j, 300, 65535, 50, i, now), ==, i == 49);
}

static void test_numbers_wrap(void)
{
	g_autoptr(Join) j = ec_join_new();
	uint32_t number = UINT32_MAX - 20;

	for (unsigned i = 0; i < 40; i++, number++) {
		g_assert_cmpint(add(j, number, 1514, 2, 1, i), ==, 0);
		g_assert_cmpint(add(j, number, 1514, 2, 0, i), ==, 1);
	}
	g_assert_cmpuint(ec_join_lost(j, AN_HOUR), ==, 0);
}

/* What no sender plans is nothing. */
static void test_malformed(void)
{
	g_autoptr(Join) j = ec_join_new();
	static const struct {
		unsigned at;
		uint8_t to;
	} changes[] = {
		{ 0, 0x00 },
		{ 0, 0x20 },
		{ 0, 0x11 },
		{ 0, 0x18 },
		{ 3, 1 },
		{ 3, 0x80 },
		{ 1, 2 },
		{ 1, 255 },
		{ 2, 0 },
		{ 2, 1 },
		{ 2, 3 },
		{ 2, 64 },
		{ 2, 65 },
		{ 2, 255 },
		{ 8, 0 },
		{ 8, 0xff },
		{ 9, 0 },
		{ 9, 0xff },
	};

	for (size_t i = 0; i < G_N_ELEMENTS(changes); i++) {
		g_autoptr(GByteArray) b = piece_of(1, 1514, 2, 0);

		b->data[changes[i].at] = changes[i].to;
		g_assert_cmpint(add_bytes(j, b, 0), ==, -EBADMSG);
	}
	for (guint cut = 0; cut < EC_SPLIT_HEADER + 757; cut++) {
		g_autoptr(GByteArray) b = piece_of(1, 1514, 2, 0);

		g_byte_array_set_size(b, cut);
		g_assert_cmpint(add_bytes(j, b, 0), ==, -EBADMSG);
	}
	for (unsigned index = 0; index < 2; index++) {
		g_autoptr(GByteArray) b = piece_of(1, 1513, 2, index);

		g_byte_array_append(b, b->data, 1);
		g_assert_cmpint(add_bytes(j, b, 0), ==, -EBADMSG);
	}
	/* 66 bytes in 64 pieces: two each, and after 33 nothing is left. */
	g_autoptr(GByteArray) b = piece_of(1, 66, 64, 0);

	g_assert_cmpint(add_bytes(j, b, 0), ==, -EBADMSG);
	g_assert_cmpuint(ec_join_lost(j, AN_HOUR), ==, 0);
}

/* Somebody else's frame with the number of one that is under way: that one is not disturbed. */
static void test_contradicting(void)
{
	g_autoptr(Join) j = ec_join_new();

	g_assert_cmpint(add(j, 1, 1514, 3, 0, 0), ==, 0);
	g_assert_cmpint(add(j, 1, 1513, 3, 1, 0), ==, -EBADMSG);
	g_assert_cmpint(add(j, 1, 65535, 3, 1, 0), ==, -EBADMSG);
	g_assert_cmpint(add(j, 1, 1514, 2, 1, 0), ==, -EBADMSG);
	g_assert_cmpint(add(j, 1, 1514, 64, 63, 0), ==, -EBADMSG);
	g_assert_cmpint(add(j, 1, 1514, 3, 2, 0), ==, 0);
	g_assert_cmpint(add(j, 1, 1514, 3, 1, 0), ==, 1);
}

typedef struct Sent {
	uint32_t number;
	size_t length;
	unsigned count, index;
	uint32_t when; /* its place in the order of arrival */
} Sent;

static gint by_when(gconstpointer a, gconstpointer b)
{
	const Sent *x = a, *y = b;

	return (x->when > y->when) - (x->when < y->when);
}

/* Lost, doubled and overtaken at random, never further than a few frames: the frames whose pieces
 * all came come out, each once, no others, and what was lost is counted. */
static void test_random(void)
{
	g_autoptr(GRand) rand = g_rand_new_with_seed(7);

	for (unsigned round = 0; round < 300; round++) {
		g_autoptr(Join) j = ec_join_new();
		g_autoptr(GArray) sent = g_array_new(false, false, sizeof(Sent));
		uint32_t first = g_rand_int(rand);
		uint64_t due = 0, lost = 0, seen = 0;

		for (uint32_t n = 0; n < 100; n++) {
			Sent s = { .number = first + n };
			size_t room = (size_t)g_rand_int_range(rand, 200, 1500), size;
			unsigned missing = 0;

			s.length = (size_t)g_rand_int_range(rand, 2, 9100);
			s.count = ec_split_plan(s.length, room, &size);
			g_assert_cmpuint(s.count, >, 0);
			for (s.index = 0; s.index < s.count; s.index++) {
				int copies = g_rand_int_range(rand, 0, 20);

				/* One in 20 is lost, one in 20 doubled. */
				missing += copies == 0;
				for (int c = copies == 19 ? 2 : copies > 0; c > 0; c--) {
					s.when = n * 100 + g_rand_int(rand) % 1500;
					g_array_append_val(sent, s);
				}
			}
			due += missing == 0;
		}
		g_array_sort(sent, by_when);
		g_autoptr(GHashTable) distinct = g_hash_table_new(NULL, NULL);
		for (guint i = 0; i < sent->len; i++) {
			const Sent *s = &g_array_index(sent, Sent, i);
			int r = add(j, s->number, s->length, s->count, s->index, i);

			g_assert_cmpint(r, >=, 0);
			lost += g_hash_table_add(distinct,
					GUINT_TO_POINTER((s->number - first) * 64 + s->index + 1));
			if (r == 1) {
				seen++;
				lost -= s->count;
			}
		}
		g_assert_cmpuint(seen, ==, due);
		g_assert_cmpuint(ec_join_lost(j, AN_HOUR), ==, lost);
	}
}

int main(int argc, char *argv[])
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/worker-split/plan", test_plan);
	g_test_add_func("/worker-split/plans", test_plans);
	g_test_add_func("/worker-split/header", test_header);
	g_test_add_func("/worker-split/join", test_join);
	g_test_add_func("/worker-split/time", test_time);
	g_test_add_func("/worker-split/bounds", test_bounds);
	g_test_add_func("/worker-split/numbers-wrap", test_numbers_wrap);
	g_test_add_func("/worker-split/malformed", test_malformed);
	g_test_add_func("/worker-split/contradicting", test_contradicting);
	g_test_add_func("/worker-split/random", test_random);
	return g_test_run();
}
