/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "util.h"

/*
 * One in-band probe on the wire, network order:
 *
 *    0  magic     4  "Ecp" and the version, 1
 *    4  type      1  1 request, 2 answer
 *    5  flags     1  bit 0: its sender hears the peer
 *    6  size      2  of the whole probe from the magic on, padding included: 32 to 65535 bytes
 *    8  seq       4  request: counts up; answer: of the request
 *   12  stamp     4  request: microseconds since a moment that only its sender knows; answer: of
 * the request 16  mac      16  HMAC-SHA256 of the first 16 bytes, cut to its first half 32  padding
 * zeros, not looked at; that there are as many as `size` says is
 *
 * Each direction has a key of its own, so a probe cannot be sent back to where it came from. Pure.
 */

#define EC_PROBE_MAGIC 0x45637001u
#define EC_PROBE_SIZE 32u /* without padding */
#define EC_PROBE_KEY_SIZE 32

typedef enum EcProbeType {
	EC_PROBE_REQUEST = 1,
	EC_PROBE_ANSWER = 2,
} EcProbeType;

typedef struct EcProbe {
	EcProbeType type;
	bool hears;
	uint16_t size; /* at least EC_PROBE_SIZE */
	uint32_t seq, stamp;
} EcProbe;

/* The probe without its padding. */
void ec_probe_encode(const EcProbe *p, const uint8_t key[static EC_PROBE_KEY_SIZE],
		uint8_t ret[static EC_PROBE_SIZE]);
/* Takes apart the first EC_PROBE_SIZE bytes of what came as `size` bytes; more may follow the probe
 * itself (an Ethernet trailer). -EBADMSG for what is no probe. Nothing in *ret is to be believed
 * before ec_probe_is_authentic(). */
int ec_probe_decode(const uint8_t *data, size_t size, EcProbe *ret);
/* Whether these EC_PROBE_SIZE bytes were made with this key. In constant time. */
bool ec_probe_is_authentic(const uint8_t data[static EC_PROBE_SIZE],
		const uint8_t key[static EC_PROBE_KEY_SIZE]);

/* Which numbers of one sender came already: each is taken once, and none that is older than the
 * newest by the width of the window. */
typedef struct EcProbeWindow {
	bool any;
	uint32_t newest;
	uint64_t seen; /* bit i: newest - i */
} EcProbeWindow;

/* Numbers wrap around: whether a is newer than b (RFC 1982). */
bool ec_probe_is_newer(uint32_t a, uint32_t b);
/* False: replayed, or too old. */
bool ec_probe_window_take(EcProbeWindow *w, uint32_t seq);
