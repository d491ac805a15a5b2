/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/segment.h"

/* Frames made by hand, with checksums summed byte by byte as RFC 1071 says: nothing of the worker's
 * is in them. */

typedef struct PacketSpec {
	bool bare;     /* an IP packet, no link header */
	bool ipv6;     /* else IPv4 */
	bool udp;      /* else TCP */
	bool partial;  /* the checksum is left to do */
	uint8_t tags;  /* VLAN tags */
	uint8_t flow;  /* in addresses and ports */
	uint8_t extra; /* words of IPv4 options, or extension headers of 8 bytes; 0..10 */
	uint8_t tos, ttl;
	uint16_t id, fragment; /* IPv4: the identification; flags and offset */
	uint32_t sequence, acknowledgment;
	uint8_t flags; /* of TCP */
	uint8_t words; /* of TCP options, 0..10 */
	uint8_t stamp; /* what the options are filled with */
	uint16_t window;
} PacketSpec;

/* One IPv4 TCP segment as most are, to be changed. */
extern const PacketSpec packet_plain;

/* The complement of the complement's sum of big endian words. */
uint16_t packet_checksum(const uint8_t *data, size_t n, uint32_t start);
/* Writes the frame; its length. ret_v: as a device would hand it over as a super-frame with
 * segments of `size` bytes, or as a plain frame if that is 0; may be NULL. */
size_t packet_write(const PacketSpec *s, const uint8_t *payload, size_t n, uint16_t size,
		uint8_t *ret, struct virtio_net_hdr *ret_v);
/* What segment i of a super-frame made of s must be. */
size_t packet_write_segment(const PacketSpec *s, const uint8_t *payload, size_t n, uint16_t size,
		unsigned i, uint8_t *ret);
/* Where the IP header, the transport header and the payload begin. */
size_t packet_network(const PacketSpec *s);
size_t packet_transport(const PacketSpec *s);
size_t packet_header(const PacketSpec *s);
/* Stops the test unless all lengths and checksums of a TCP or UDP frame are right. `partial`: its
 * checksum holds the pseudo header's sum. */
void packet_assert_right(const uint8_t *frame, size_t length, bool ethernet, bool partial);
