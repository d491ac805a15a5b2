/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The Internet checksum (RFC 1071, RFC 1624). A sum is of 16-bit words as they lie in memory: what
 * is folded of it is stored as it is, on any machine. Sums of parts that begin at an even offset
 * are joined by adding them; 65536 words fit before they must be folded. Pure. */

/* The sum of `length` bytes, folded: at most 0xffff. An odd last byte counts as if a 0 followed. */
uint32_t ec_sum(const void *data, size_t length);
/* What TCP and UDP count in of the IP header (RFC 9293 §3.1, RFC 8200 §8.1), but for the length.
 * network: an IPv4 or IPv6 header whose destination is the last one. */
uint32_t ec_sum_pseudo(const uint8_t *network, bool ipv6, uint8_t protocol);

/* The word at p. */
static inline uint32_t ec_sum_word(const void *p)
{
	uint16_t word;

	memcpy(&word, p, sizeof(word));
	return word;
}

/* To 16 bits: 0 of nothing but zeros, else 1..0xffff. */
static inline uint16_t ec_sum_fold(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)(sum + (sum >> 16));
}

/* Takes a part out again (RFC 1624: a complement's sum, never a difference). */
static inline uint32_t ec_sum_without(uint32_t sum, uint32_t part)
{
	return sum + (uint16_t)~ec_sum_fold(part);
}

/* What a header's checksum field holds. Where 0 means that there is none (UDP), 0xffff is the same
 * number. */
static inline uint16_t ec_sum_checksum(uint32_t sum)
{
	return (uint16_t)~ec_sum_fold(sum);
}
