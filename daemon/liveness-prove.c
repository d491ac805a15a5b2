/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "liveness-prove.h"

#include "liveness.h"

/*
 * DOC: Theory of operation
 *
 * Pairs first: the wanted size, and the smallest until it crossed, quickly at first, since the far
 * end's interface may come up some milliseconds later than ours. When the small ones cross and the
 * wanted size did not within PAIRS_USEC, rounds of a search follow: EC_PROVE_SIZES sizes at once,
 * evenly between the largest that crossed and the smallest that did not, and the wanted one again;
 * unanswered ones once more in the middle of the round. A round lasts one round trip and some, or
 * until all are answered, and leaves an eighth of the distance: three of them make 1500 bytes 3.
 */

#define PAIRS_USEC 250000ULL
/* What a pair has to be late by, when the small one crossed, to be taken for lost. */
#define LATE_USEC 100000ULL
#define EXACT 8u /* bytes */

void ec_prove_start(EcProve *p, uint32_t smallest, uint32_t wanted, uint64_t now)
{
	*p = (EcProve){
		.small = smallest,
		.wanted = wanted,
		.high = wanted,
		.start = now,
		.next = now,
		.deadline = now + EC_LIVENESS_PROVE_USEC,
	};
}

uint64_t ec_prove_due(const EcProve *p)
{
	return MIN(p->deadline, p->searching ? MIN(p->next, p->round_end) : p->next);
}

void ec_prove_postpone(EcProve *p, uint64_t usec)
{
	p->start += usec;
	p->next += usec;
	p->deadline += usec;
	p->round_end += usec;
}

static void send_pair(EcProve *p, uint64_t now, EcProveSend send, void *userdata)
{
	/* Closely for the time that a slow machine takes to make its end. */
	static const uint64_t pause[] = { 3000, 3000, 4000, 5000, 10000, 10000, 10000, 10000, 10000,
		10000, 10000, 20000 };

	send(p->wanted, userdata);
	if (!p->low && p->wanted != p->small)
		send(p->small, userdata);
	p->next = now + (p->pairs < EC_ELEMENTS(pause) ? pause[p->pairs] : 50000);
	p->pairs++;
}

static void send_round(EcProve *p, EcProveSend send, void *userdata)
{
	for (size_t i = 0; i < EC_PROVE_SIZES; i++) {
		if (p->round[i] > p->low)
			send(p->round[i], userdata);
	}
}

static void start_round(EcProve *p, uint64_t now, EcProveSend send, void *userdata)
{
	uint64_t length = p->rtt + MAX(p->rtt / 4, LATE_USEC);

	p->searching = true;
	for (uint32_t i = 0; i < EC_PROVE_SIZES - 1; i++)
		p->round[i] = p->low + (p->high - p->low) * (i + 1) / EC_PROVE_SIZES;
	p->round[EC_PROVE_SIZES - 1] = p->wanted;
	send_round(p, send, userdata);
	p->next = now + length / 2;
	p->round_end = now + length;
}

/* What the answers of a round leave: `low` is known already. */
static void end_round(EcProve *p)
{
	for (size_t i = 0; i < EC_PROVE_SIZES; i++) {
		if (p->round[i] > p->low) {
			p->high = MIN(p->high, p->round[i]);
			return;
		}
	}
}

bool ec_prove_tick(EcProve *p, uint64_t now, EcProveSend send, void *userdata)
{
	uint64_t pairs_end = MAX(p->start + PAIRS_USEC, p->first + LATE_USEC);

	if (now >= p->deadline)
		return true;
	if (p->searching && now >= p->round_end) {
		end_round(p);
		if (p->high - p->low <= EXACT)
			return true;
		start_round(p, now, send, userdata);
	} else if (p->searching && now >= p->next) {
		send_round(p, send, userdata);
		p->next = p->round_end;
	} else if (!p->searching && p->low && now >= pairs_end) {
		start_round(p, now, send, userdata);
	} else if (!p->searching && now >= p->next) {
		send_pair(p, now, send, userdata);
	}
	return false;
}

bool ec_prove_crossed(EcProve *p, uint32_t size, uint64_t rtt, uint64_t now)
{
	if (!p->low)
		p->first = now;
	p->low = MAX(p->low, size);
	if (p->low >= p->high) /* one thought lost was late */
		p->high = p->wanted;
	p->rtt = p->rtt ? MIN(p->rtt, rtt) : rtt;
	p->deadline = p->start + MAX(EC_LIVENESS_PROVE_USEC, p->rtt * 5);
	if (p->low >= p->wanted)
		return true;
	/* All but the wanted one: nothing left to wait for. */
	if (p->searching && p->low >= p->round[EC_PROVE_SIZES - 2])
		p->round_end = MIN(p->round_end, now);
	return false;
}
