/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "split.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "packet.h"

/*
 * DOC: Theory of operation
 *
 * The length of a frame and the count of its pieces say all about them: each but the last has
 * length / count bytes, rounded up, and the last has the rest, at least one. So the receiver knows
 * from any piece where it belongs and how long it must be; pieces cannot overlap, leave a gap or
 * be made small to fill memory with headers.
 *
 * Joining copies each piece to its place in a block of memory that is cut into chunks; a frame has
 * as many neighbouring chunks as it needs, from the first piece on, and the lowest that are free:
 * in ordinary traffic the block's beginning is used again and again, the rest is never touched.
 * When there is no slot or no memory, the frame whose first piece came earliest is given up, until
 * there is. A whole frame's chunks are free at once; its bytes stay until the next piece comes.
 *
 * The last numbers of frames that became whole are remembered for a while, so that a network that
 * doubles packets does not double frames. A sender that begins anew begins at a random number; if
 * it meets a number that is in use nevertheless, that frame is lost or, with bytes of two frames in
 * it, will not pass its own checksum.
 */

#define VERSION 0x10
#define CHUNK 2048
#define CHUNKS (EC_JOIN_BYTES / CHUNK)
#define LENGTH_MAX 65535
#define NONE UINT16_MAX
#define REMEMBERED 256

typedef struct Head {
	unsigned index, count;
	uint32_t number;
	uint32_t length; /* of the frame */
	uint32_t size;   /* of its pieces but the last, without headers */
} Head;

/* A frame of which pieces are here. */
typedef struct Frame {
	uint64_t since;   /* us: when the first piece came */
	uint64_t order;   /* of the first pieces */
	uint64_t present; /* a bit for each piece */
	uint32_t length;
	uint16_t chunk, chunks;
	uint8_t count, have;
} Frame;

/* A frame that became whole. */
typedef struct Whole {
	uint64_t until; /* us: its number is not used again */
	uint32_t number;
} Whole;

struct EcJoin {
	uint8_t *memory;
	uint64_t order, lost;
	uint64_t used;                    /* a bit for each frame */
	uint32_t numbers[EC_JOIN_FRAMES]; /* of `frames`, together so that they are found quickly */
	Frame frames[EC_JOIN_FRAMES];
	uint64_t taken[CHUNKS / 64]; /* a bit for each chunk */
	Whole whole[REMEMBERED];     /* each at its number modulo that */
};

_Static_assert(EC_JOIN_FRAMES == 64 && EC_SPLIT_PIECES == 64, "a bit each in a uint64_t");
_Static_assert(CHUNKS % 64 == 0 && CHUNKS < NONE, "chunks are counted in words of bits");
_Static_assert(LENGTH_MAX <= EC_JOIN_BYTES, "every frame has room");

static uint32_t piece_size(uint32_t length, uint32_t count)
{
	return (length + count - 1) / count;
}

unsigned ec_split_plan(size_t length, size_t room, size_t *ret_size)
{
	size_t count;

	if (length < 2 || length > LENGTH_MAX || room <= EC_SPLIT_HEADER)
		return 0;
	room -= EC_SPLIT_HEADER;
	count = (length + room - 1) / room;
	if (count < 2)
		count = 2;
	if (count > EC_SPLIT_PIECES)
		return 0;
	/* Tiny pieces, rounded up, may be enough before that many. */
	*ret_size = piece_size((uint32_t)length, (uint32_t)count);
	return (unsigned)((length + *ret_size - 1) / *ret_size);
}

void ec_split_header(unsigned index, unsigned count, uint32_t number, size_t length,
		uint8_t ret[static EC_SPLIT_HEADER])
{
	ret[0] = VERSION;
	ret[1] = (uint8_t)index;
	ret[2] = (uint8_t)count;
	ret[3] = 0;
	ec_put32(ret + 4, number);
	ec_put16(ret + 8, (uint16_t)length);
}

/* Reads a piece's header; only what ec_split_plan() could have planned is accepted. */
static int read_head(const uint8_t *piece, size_t length, Head *ret)
{
	uint32_t before;

	if (length <= EC_SPLIT_HEADER || piece[0] != VERSION || piece[3] != 0)
		return -EBADMSG;
	ret->index = piece[1];
	ret->count = piece[2];
	ret->number = (uint32_t)piece[4] << 24 | (uint32_t)piece[5] << 16 |
		      (uint32_t)piece[6] << 8 | piece[7];
	ret->length = (size_t)piece[8] << 8 | piece[9];
	if (ret->count < 2 || ret->count > EC_SPLIT_PIECES || ret->index >= ret->count)
		return -EBADMSG;
	ret->size = piece_size(ret->length, ret->count);
	before = ret->size * (ret->count - 1);
	if (before >= ret->length)
		return -EBADMSG;
	if (length - EC_SPLIT_HEADER !=
			(ret->index + 1 < ret->count ? ret->size : ret->length - before))
		return -EBADMSG;
	return 0;
}

EcJoin *ec_join_new(void)
{
	EcJoin *j = calloc(1, sizeof(*j));

	if (j)
		j->memory = malloc(EC_JOIN_BYTES);
	if (!j || !j->memory)
		return ec_join_free(j);
	return j;
}

EcJoin *ec_join_free(EcJoin *j)
{
	if (j)
		free(j->memory);
	free(j);
	return NULL;
}

static bool is_taken(const EcJoin *j, unsigned chunk)
{
	return j->taken[chunk / 64] >> chunk % 64 & 1;
}

static void mark(EcJoin *j, const Frame *f, bool taken)
{
	for (unsigned i = f->chunk; i < f->chunk + (unsigned)f->chunks; i++) {
		if (taken)
			j->taken[i / 64] |= UINT64_C(1) << i % 64;
		else
			j->taken[i / 64] &= ~(UINT64_C(1) << i % 64);
	}
}

/* The first of the lowest `n` neighbouring chunks that are free, or NONE. */
static uint16_t find_chunks(const EcJoin *j, unsigned n)
{
	unsigned run = 0;

	for (unsigned i = 0; i < CHUNKS; i++) {
		if (run == 0 && j->taken[i / 64] == UINT64_MAX)
			i |= 63;
		else if (is_taken(j, i))
			run = 0;
		else if (++run == n)
			return (uint16_t)(i + 1 - n);
	}
	return NONE;
}

static void release(EcJoin *j, unsigned slot)
{
	mark(j, &j->frames[slot], false);
	j->used &= ~(UINT64_C(1) << slot);
}

static void give_up(EcJoin *j, unsigned slot)
{
	j->lost += j->frames[slot].have;
	release(j, slot);
}

static bool is_too_old(const Frame *f, uint64_t now)
{
	return now > f->since && now - f->since > EC_JOIN_USEC;
}

static void give_up_oldest(EcJoin *j)
{
	unsigned oldest = EC_JOIN_FRAMES;

	for (uint64_t rest = j->used; rest; rest &= rest - 1) {
		unsigned i = (unsigned)__builtin_ctzll(rest);

		if (oldest == EC_JOIN_FRAMES || j->frames[i].order < j->frames[oldest].order)
			oldest = i;
	}
	if (oldest < EC_JOIN_FRAMES)
		give_up(j, oldest);
}

/* The slot of a number, or EC_JOIN_FRAMES. */
static unsigned find(const EcJoin *j, uint32_t number)
{
	for (uint64_t rest = j->used; rest; rest &= rest - 1) {
		unsigned i = (unsigned)__builtin_ctzll(rest);

		if (j->numbers[i] == number)
			return i;
	}
	return EC_JOIN_FRAMES;
}

static bool was_whole(const EcJoin *j, uint32_t number, uint64_t now)
{
	const Whole *w = &j->whole[number % REMEMBERED];

	return w->number == number && now < w->until;
}

static unsigned begin(EcJoin *j, const Head *h, uint64_t now)
{
	unsigned chunks = (h->length + CHUNK - 1) / CHUNK, slot;
	uint16_t chunk;

	if (j->used == UINT64_MAX)
		give_up_oldest(j);
	while ((chunk = find_chunks(j, chunks)) == NONE)
		give_up_oldest(j);
	slot = (unsigned)__builtin_ctzll(~j->used);
	j->used |= UINT64_C(1) << slot;
	j->numbers[slot] = h->number;
	j->frames[slot] = (Frame){
		.since = now,
		.order = j->order++,
		.length = h->length,
		.chunk = chunk,
		.chunks = (uint16_t)chunks,
		.count = (uint8_t)h->count,
	};
	mark(j, &j->frames[slot], true);
	return slot;
}

int ec_join_add(EcJoin *j, const uint8_t *piece, size_t length, uint64_t now,
		const uint8_t **ret_frame, size_t *ret_length)
{
	unsigned slot;
	uint8_t *memory;
	Frame *f;
	Head h;
	int r = read_head(piece, length, &h);

	if (r < 0)
		return r;
	slot = find(j, h.number);
	if (slot < EC_JOIN_FRAMES && is_too_old(&j->frames[slot], now)) {
		give_up(j, slot);
		slot = EC_JOIN_FRAMES;
	}
	if (slot == EC_JOIN_FRAMES) {
		if (was_whole(j, h.number, now))
			return 0;
		slot = begin(j, &h, now);
	}
	f = &j->frames[slot];
	if (f->length != h.length || f->count != h.count)
		return -EBADMSG;
	if (f->present >> h.index & 1)
		return 0;
	memory = j->memory + (size_t)f->chunk * CHUNK;
	memcpy(memory + (size_t)h.index * h.size, piece + EC_SPLIT_HEADER,
			length - EC_SPLIT_HEADER);
	f->present |= UINT64_C(1) << h.index;
	if (++f->have < f->count)
		return 0;
	release(j, slot);
	j->whole[h.number % REMEMBERED] = (Whole){ now + EC_JOIN_USEC, h.number };
	*ret_frame = memory;
	*ret_length = h.length;
	return 1;
}

uint64_t ec_join_lost(EcJoin *j, uint64_t now)
{
	for (unsigned i = 0; i < EC_JOIN_FRAMES; i++) {
		if (j->used >> i & 1 && is_too_old(&j->frames[i], now))
			give_up(j, i);
	}
	return j->lost;
}
