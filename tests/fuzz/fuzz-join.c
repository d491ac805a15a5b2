/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include <glib.h>
#include <string.h>

#include "worker/split.h"

/*
 * The input is a row of pieces, STEP bytes each: when, of what frame, which, how many, how long the
 * frame, and whether the piece is of the right size. Bytes of a frame follow from its number and
 * their place, so a frame made of anything but its own pieces, each at its place, is seen.
 */

#define STEP 7
#define STEPS_MAX 512

static uint8_t byte_of(uint32_t number, size_t i)
{
	return (uint8_t)((size_t)number * 151 + i * 7 + (i >> 8) * 31);
}

static size_t write_piece(const uint8_t *in, uint32_t *ret_number, uint8_t *ret)
{
	unsigned index = in[2], count = in[3];
	size_t length = (size_t)in[4] << 8 | in[5], size = 0, from, n;

	/* Near where numbers wrap. */
	*ret_number = UINT32_MAX - 100 + in[1];
	if (count > 0)
		size = (length + count - 1) / count;
	from = index * size;
	n = from < length ? MIN(size, length - from) : 0;
	if (in[6] & 0x80)
		n = n + in[6] % 8 > 4 ? n + in[6] % 8 - 4 : 0;
	ec_split_header(index, count, *ret_number, length, ret);
	for (size_t i = 0; i < n; i++)
		ret[EC_SPLIT_HEADER + i] = byte_of(*ret_number, from + i);
	return EC_SPLIT_HEADER + n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static EcJoin *j;
	static uint64_t now;
	static uint8_t piece[70000];
	uint64_t lost, taken = 0, given = 0;

	/* The same object again, as a process has it: each input begins when all is too old. */
	if (!j)
		j = ec_join_new();
	now += 2 * EC_JOIN_USEC;
	lost = ec_join_lost(j, now);
	for (unsigned s = 0; s < STEPS_MAX && size >= STEP; s++, data += STEP, size -= STEP) {
		const uint8_t *frame = NULL;
		size_t n = 0, length;
		uint32_t number;

		now += (uint64_t)data[0] * data[0] * 20;
		length = write_piece(data, &number, piece);
		g_autofree uint8_t *copy = g_memdup2(piece, length);
		int r = ec_join_add(j, copy, length, now, &frame, &n);
		g_assert_true(r == 0 || r == 1 || r == -EBADMSG);
		taken += r >= 0;
		if (r != 1)
			continue;
		given += data[3];
		g_assert_cmpuint(n, ==, (size_t)data[4] << 8 | data[5]);
		size_t right = 0;
		while (right < n && frame[right] == byte_of(number, right))
			right++;
		g_assert_cmpuint(right, ==, n);
	}
	lost = ec_join_lost(j, now + 2 * EC_JOIN_USEC) - lost;
	g_assert_cmpuint(lost + given, <=, taken);
	now += 2 * EC_JOIN_USEC;
	return 0;
}
