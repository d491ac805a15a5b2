/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "util.h"

/*
 * What ec_liveness_prove() sends when, and what follows from the answers. It knows no sockets and
 * no clock: times (µs) are told. Sizes in bytes, as an MTU counts.
 */

#define EC_PROVE_SIZES 8

typedef struct EcProve {
	uint32_t small, wanted;
	uint32_t low;  /* the largest that crossed, 0: none */
	uint32_t high; /* the smallest that is thought not to cross */
	uint64_t rtt;  /* the shortest round trip, 0: none */
	uint64_t start, next, deadline;
	uint64_t first; /* when the first one crossed */
	unsigned pairs; /* sent so far */
	bool searching;
	uint32_t round[EC_PROVE_SIZES]; /* rising; the last is `wanted` */
	uint64_t round_end;
} EcProve;

typedef void (*EcProveSend)(uint32_t size, void *userdata);

/* The first requests are due at `now`. */
void ec_prove_start(EcProve *p, uint32_t smallest, uint32_t wanted, uint64_t now);
/* When ec_prove_tick() has something to do. */
uint64_t ec_prove_due(const EcProve *p);
/* Sends what is due. True: over, p->low is the outcome. */
bool ec_prove_tick(EcProve *p, uint64_t now, EcProveSend send, void *userdata);
/* A request of this size was answered. True: over. */
bool ec_prove_crossed(EcProve *p, uint32_t size, uint64_t rtt, uint64_t now);
/* Nothing was sent or heard for a while. */
void ec_prove_postpone(EcProve *p, uint64_t usec);
