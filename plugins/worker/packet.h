/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* What a frame holds, as far as cutting and merging need it. Pure. */

/* Where the transport header may begin, at most; what is further in is not looked at. */
#define EC_PACKET_NETWORK_MAX 400

typedef struct EcPacket {
	uint16_t network;   /* where the IP header begins */
	uint16_t transport; /* where the header of `protocol` begins, if not a later fragment */
	uint8_t protocol;   /* IPPROTO_* behind the IP header and IPv6's extension headers */
	bool ipv6;
	bool plain;    /* no IPv4 options, no extension headers, no fragment */
	bool fragment; /* a part of a packet */
	bool routed;   /* by an IPv6 routing header: the destination is not the last one */
} EcPacket;

/* Finds the headers behind any number of VLAN tags, or at the start unless `ethernet`. 0 and all
 * headers up to `transport` are within the frame; -ENOENT: no IP; -EBADMSG: cut off, or not as the
 * RFCs 791 and 8200 have it. */
int ec_packet_read(const uint8_t *frame, size_t length, bool ethernet, EcPacket *ret);

/* Numbers in network byte order, at any address. */
static inline uint16_t ec_get16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return be16toh(v);
}

static inline uint32_t ec_get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return be32toh(v);
}

static inline void ec_put16(uint8_t *p, uint16_t v)
{
	v = htobe16(v);
	memcpy(p, &v, sizeof(v));
}

static inline void ec_put32(uint8_t *p, uint32_t v)
{
	v = htobe32(v);
	memcpy(p, &v, sizeof(v));
}
