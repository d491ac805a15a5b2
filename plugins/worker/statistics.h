/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdint.h>

/* Counters in memory that the daemon reads while they are written: each store is whole, and there
 * is one writer. */
static inline void ec_count(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static inline void ec_set_bits(uint32_t *word, uint32_t mask, uint32_t bits)
{
	__atomic_store_n(word, (*word & ~mask) | bits, __ATOMIC_RELAXED);
}
