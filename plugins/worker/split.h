/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Frames larger than a path carries, in pieces of about the same size, each with this header
 * behind the format's own; only between workers that agreed on it. Network byte order:
 *
 *     version 1 (4 bits) | 0 (4) | index (8) | count (8) | 0 (8) | frame number (32) | length (16)
 *
 * index < count, 2..EC_SPLIT_PIECES; length: of the whole frame. Each piece but the last has length
 * divided by count, rounded up, bytes of the frame, the last has the rest, which is not empty. The
 * number begins at random and counts frames up. Pure but for memory at the start.
 */
#define EC_SPLIT_HEADER 10
#define EC_SPLIT_PIECES 64
#define EC_JOIN_USEC UINT64_C(500000) /* a frame that is not whole by then is given up */
#define EC_JOIN_FRAMES 64       /* that may be incomplete at a time: the oldest is given up first */
#define EC_JOIN_BYTES (1 << 20) /* that they may hold together */

/* How many pieces, each of at most `room` bytes with its split header: 0 when that cannot be done,
 * else *ret_size, the bytes of the frame in each but the last. Never one: whoever asks knows that
 * the frame does not fit. */
unsigned ec_split_plan(size_t length, size_t room, size_t *ret_size);
void ec_split_header(unsigned index, unsigned count, uint32_t number, size_t length,
		uint8_t ret[static EC_SPLIT_HEADER]);

typedef struct EcJoin EcJoin;
EcJoin *ec_join_new(void);
EcJoin *ec_join_free(EcJoin *j);
/* Takes one piece, with its split header. 1: *ret_frame, *ret_length, valid until the next call; 0:
 * not whole yet, or a piece that came before; -EBADMSG: no piece, or of another frame with the
 * number of one that is not whole yet. now: us of CLOCK_MONOTONIC. */
int ec_join_add(EcJoin *j, const uint8_t *piece, size_t length, uint64_t now,
		const uint8_t **ret_frame, size_t *ret_length);
/* Gives up what is too old. Pieces that came and were given up, ever: for time, or for want of
 * slots or memory. */
uint64_t ec_join_lost(EcJoin *j, uint64_t now);
