/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include <glib.h>
#include <string.h>

#include "worker/format.h"
#include "worker/split.h"

/*
 * The first byte chooses the format and the tunnel's id, the rest is a datagram. What is accepted
 * lies within it and is accepted again behind a header of our own; pieces go on to be joined.
 */

#define KINDS 7

static const struct {
	EcWorkerFormat format;
	uint32_t id;
	bool sequence;
} kinds[KINDS] = {
	{ EC_WORKER_GRETAP_FOU, 0, false },
	{ EC_WORKER_GRETAP_FOU, 0x11223344, false },
	{ EC_WORKER_GRETAP_FOU, 0, true },
	{ EC_WORKER_GRETAP_FOU, 0x11223344, true },
	{ EC_WORKER_VXLAN, 7, false },
	{ EC_WORKER_RAW_UDP, 0, false },
	{ EC_WORKER_TUN_UDP, 0, false },
};

static void join(const uint8_t *piece, size_t length)
{
	static EcJoin *j;
	static uint64_t now;
	const uint8_t *frame = NULL;
	size_t n = 0;

	if (!j)
		j = ec_join_new();
	int r = ec_join_add(j, piece, length, now += 1000, &frame, &n);
	g_assert_true(r == 0 || r == 1 || r == -EBADMSG);
	if (r == 1) {
		g_assert_cmpuint(n, >=, 2);
		g_assert_cmpuint(n, <=, 65535);
		for (size_t i = 0; i + length <= n + EC_SPLIT_HEADER; i++) {
			if (memcmp(frame + i, piece + EC_SPLIT_HEADER, length - EC_SPLIT_HEADER) ==
					0)
				return;
		}
		g_error("the last piece is not in the frame");
	}
}

/* What was accepted, once more: behind a header of our own. */
static void again(const EcFormat *f, bool piece, const uint8_t *inner, size_t length)
{
	size_t own = piece ? f->piece : f->size;
	g_autofree uint8_t *ours = g_malloc(own + length);
	uint32_t number = 0;
	bool seen = !piece;

	ec_format_write(f, piece, &number, ours);
	memcpy(ours + own, inner, length);
	int r = ec_format_parse(f, ours, own + length, &seen);
	if (r != (int)own || seen != piece)
		g_error("%d and not %zu, %d and not %d", r, own, seen, piece);
	if (piece)
		join(ours + own, length);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	EcFormat f;
	bool piece;

	if (size == 0)
		return 0;
	unsigned k = data[0] % KINDS;
	/* A block of its own size: reading beyond it is seen. */
	g_autofree uint8_t *datagram = g_memdup2(data + 1, size - 1);

	g_assert_cmpint(ec_format_init(&f, kinds[k].format, kinds[k].id, kinds[k].sequence), ==, 0);
	int r = ec_format_parse(&f, datagram, size - 1, &piece);
	if (r < 0) {
		g_assert_true(r == -EBADMSG || r == -ENOENT || r == -ENODATA);
		return 0;
	}
	g_assert_cmpuint((size_t)r, <, size - 1);
	size_t length = size - 1 - (size_t)r;
	g_assert_cmpuint(length, >=, piece ? EC_SPLIT_HEADER + 1 : f.ethernet ? 14 : 20);
	again(&f, piece, datagram + r, length);
	return 0;
}
