/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include <glib.h>
#include <string.h>

#include "../unit/packets.h"
#include "../unit/roundtrip.h"

/*
 * A byte whose lowest bit says that frames have a link header, then orders, each of 8 bytes, to
 * make a segment that follows in one of four flows, with something changed, before or after its
 * checksum was made; or a frame as it is. What comes out of the coalescer, cut again, is what went
 * in.
 */

enum {
	FLOW = 3,
	IPV6 = 4,
	TAG = 8,
	TAG2 = 16,
	FLUSH = 32,
	CHANGE = 64,
	AGAIN = 128, /* the numbers do not go on */
	AS_IT_IS = 0xff,
};

#define FRAMES 200

typedef struct Order {
	uint8_t kind;
	uint8_t size[2];
	uint8_t flags; /* XORed to ACK */
	uint8_t words;
	uint8_t skip; /* from the numbers that follow */
	uint8_t where, change;
} Order;

static void change_spec(PacketSpec *s, uint8_t where, uint8_t change)
{
	switch (where % 10) {
	case 0:
		s->tos ^= change;
		break;
	case 1:
		s->ttl ^= change;
		break;
	case 2:
		s->id ^= change;
		break;
	case 3:
		s->fragment ^= (uint16_t)(change << 8);
		break;
	case 4:
		s->sequence ^= (uint32_t)change << 24;
		break;
	case 5:
		s->acknowledgment ^= change;
		break;
	case 6:
		s->stamp ^= change;
		break;
	case 7:
		s->window ^= change;
		break;
	case 8:
		s->extra = change % 11;
		break;
	default:
		s->udp = true;
	}
}

static void follow(RoundTrip *t, PacketSpec *flow, const Order *o)
{
	static uint8_t payload[2000], frame[4096];
	size_t n = (o->size[0] + o->size[1] * 256u) % sizeof(payload);
	PacketSpec s = *flow;

	s.flags ^= o->flags;
	s.words = o->words % 11;
	s.sequence += o->skip;
	s.id = (uint16_t)(s.id + o->skip);
	if ((o->kind & CHANGE) && o->where < 32)
		change_spec(&s, o->where, o->change);
	memset(payload, o->change, sizeof(payload));
	size_t length = packet_write(&s, payload, n, 0, frame, NULL);
	if ((o->kind & CHANGE) && o->where >= 32) {
		size_t at = o->where - 32u;

		frame[at] ^= o->change;
		/* Beyond the end: padding. */
		length = MAX(length, at + 1);
	}
	roundtrip_add(t, frame, length);
	if (!(o->kind & AGAIN)) {
		flow->sequence += (uint32_t)n;
		flow->id++;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	PacketSpec flows[32];
	bool bare = size > 0 && !(data[0] & 1);
	size_t at = 1, n;
	Order o;

	for (unsigned i = 0; i < G_N_ELEMENTS(flows); i++) {
		flows[i] = packet_plain;
		flows[i].bare = bare;
		flows[i].flow = i & FLOW;
		flows[i].ipv6 = i & IPV6;
		flows[i].tags = (uint8_t)(bare ? 0 : i >> 3);
	}
	RoundTrip *t = roundtrip_new(!bare);
	for (unsigned i = 0; i < FRAMES && at + sizeof(o) <= size; i++) {
		memcpy(&o, data + at, sizeof(o));
		if (o.kind == AS_IT_IS) {
			n = MIN((o.size[0] + o.size[1] * 256u) % 2000, size - at - 3);
			roundtrip_add(t, data + at + 3, n);
			at += 3 + n;
			continue;
		}
		at += sizeof(o);
		follow(t, &flows[o.kind % G_N_ELEMENTS(flows)], &o);
		if (o.kind & FLUSH)
			roundtrip_flush(t);
	}
	roundtrip_flush(t);
	roundtrip_free(t);
	return 0;
}
