/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A super-frame, as a device with offloads hands it over, is cut into frames as a wire has them.
 * Pure: no system call, no allocation. Frames are Ethernet (any number of VLAN tags) or, with
 * `ethernet` false, bare IP. See virtio 1.2 §5.1.6.2; hdr_len is not to be trusted
 * (data-plane-study.md §4). */

/* Headers of one segment: Ethernet, QinQ, IPv6 with extension headers, TCP with options. */
#define EC_SEGMENT_HEADER_MAX 512
/* The largest super-frame: 64 KiB and link headers. */
#define EC_FRAME_MAX (65536 + 64)

typedef struct EcSegments {
	const uint8_t *frame;
	uint16_t network;   /* where the IP header begins */
	uint16_t transport; /* where the TCP or UDP header begins */
	uint16_t header;    /* where the payload begins: the headers' bytes */
	uint16_t size;      /* payload bytes in each segment but the last */
	uint32_t length;    /* of the frame */
	uint32_t count;     /* segments: >= 1 */
	bool ipv6, tcp;
	/* of segment.c's own */
	uint32_t sum; /* of what is alike in all transport checksums */
	uint16_t ip_sum;
	uint16_t ip_id;
	uint32_t sequence; /* of the first */
} EcSegments;

/* Reads a frame with its virtio header: 0 and *ret, which refers to the frame; -EBADMSG when the
 * two do not fit together. A frame that is no super-frame has count 1 and header 0. */
int ec_segments_plan(const struct virtio_net_hdr *v, const uint8_t *frame, size_t length,
		bool ethernet, EcSegments *ret);
/* Writes segment i's headers, s->header bytes: lengths, IP id, sequence number, flags, and whole
 * checksums. *ret_payload, *ret_size: the part of the frame that follows. Of super-frames only. */
void ec_segment(const EcSegments *s, unsigned i, uint8_t *ret_header, const uint8_t **ret_payload,
		size_t *ret_size);
/* Completes the checksum of a frame that is no super-frame, in place, if the device left that to
 * do (NEEDS_CSUM). -EBADMSG. */
int ec_segment_complete(const struct virtio_net_hdr *v, uint8_t *frame, size_t length);
