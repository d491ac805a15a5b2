/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "checksum.h"

#include <arpa/inet.h>

/*
 * DOC: Theory of operation
 *
 * 2^16 is 1 modulo 0xffff, and so are 2^32 and 2^48: the sum of the 16-bit words may be taken 32
 * bits at a time into 64-bit counters, and folded at the end. Large parts are done as vectors, for
 * which the compiler finds the instructions: of 16 bytes, which every 64-bit processor has, and
 * with AVX2 of 32. That is a third of what it costs to cut a segment.
 */

#define BLOCK 64

typedef uint64_t Narrow __attribute__((vector_size(16)));

/* Sums whole blocks. Does not overflow: 2^32 words fit in each counter. One text for both sizes: a
 * compiler makes poor code of vectors that are larger than the processor's. */
#define SUM_BLOCKS(name, Vector)                                                                   \
	static uint64_t name(const uint8_t *data, size_t blocks)                                   \
	{                                                                                          \
		Vector low = { 0 }, high = { 0 }, low2 = { 0 }, high2 = { 0 };                     \
		const size_t n = sizeof(Vector);                                                   \
		uint64_t sum = 0;                                                                  \
                                                                                                   \
		for (const uint8_t *end = data + blocks * BLOCK; data < end; data += 2 * n) {      \
			Vector a, b;                                                               \
                                                                                                   \
			memcpy(&a, data, n);                                                       \
			memcpy(&b, data + n, n);                                                   \
			low += a & 0xffffffff;                                                     \
			high += a >> 32;                                                           \
			low2 += b & 0xffffffff;                                                    \
			high2 += b >> 32;                                                          \
		}                                                                                  \
		low += low2 + high + high2;                                                        \
		for (size_t i = 0; i < n / sizeof(sum); i++)                                       \
			sum += low[i];                                                             \
		return sum;                                                                        \
	}

SUM_BLOCKS(sum_narrow, Narrow)

#ifdef __x86_64__
typedef uint64_t Wide __attribute__((vector_size(32)));

__attribute__((target("avx2"))) static uint64_t sum_wide(const uint8_t *data, size_t blocks);
SUM_BLOCKS(sum_wide, Wide)

static uint64_t sum_blocks(const uint8_t *data, size_t blocks)
{
	return __builtin_cpu_supports("avx2") ? sum_wide(data, blocks) : sum_narrow(data, blocks);
}
#else
static uint64_t sum_blocks(const uint8_t *data, size_t blocks)
{
	return sum_narrow(data, blocks);
}
#endif

static uint32_t fold64(uint64_t sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
	return ec_sum_fold((uint32_t)sum);
}

uint32_t ec_sum(const void *data, size_t length)
{
	const uint8_t *p = data;
	uint64_t sum = 0;

	if (length >= BLOCK) {
		sum = sum_blocks(p, length / BLOCK);
		p += length / BLOCK * BLOCK;
		length %= BLOCK;
	}
	for (; length >= sizeof(uint32_t); length -= sizeof(uint32_t), p += sizeof(uint32_t)) {
		uint32_t word;

		memcpy(&word, p, sizeof(word));
		sum += word;
	}
	if (length > 0) {
		uint8_t rest[sizeof(uint32_t)] = { 0 };
		uint32_t word;

		memcpy(rest, p, length);
		memcpy(&word, rest, sizeof(word));
		sum += word;
	}
	return fold64(sum);
}

uint32_t ec_sum_pseudo(const uint8_t *network, bool ipv6, uint8_t protocol)
{
	return (ipv6 ? ec_sum(network + 8, 32) : ec_sum(network + 12, 8)) + htons(protocol);
}
