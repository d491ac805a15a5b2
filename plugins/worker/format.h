/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol.h"

/* The wire formats: what stands between UDP's header and the frame. Pure. Vectors:
 * seeds-and-peers.md §11. Pieces (split.h) have a header that no whole frame has: GRE protocol type
 * 0x88b6, VXLAN's last byte 1, six zero bytes, the byte 0xf0. */
#define EC_FORMAT_HEADER_MAX 16

typedef struct EcFormat {
	uint32_t id;   /* GRE key (0: none) or VNI */
	bool sequence; /* gretap-fou: number the packets */
	EcWorkerFormat format;
	bool ethernet; /* carries frames, else bare IP packets */
	uint8_t size;  /* of the header of a whole frame, bytes */
	uint8_t piece; /* of the header of a piece (split.h), bytes */
	uint8_t template[EC_FORMAT_HEADER_MAX];
	uint8_t piece_template[EC_FORMAT_HEADER_MAX];
	uint8_t number; /* where in both the sequence number stands; 0: nowhere */
	bool joins;     /* the peer sends pieces; to be set after ec_format_init(): else raw-udp's
			   six zero bytes are a frame's destination */
} EcFormat;

/* Prepares templates. -EINVAL for what is no format, or no VNI. Formats without an id or a number
 * ignore these. */
int ec_format_init(EcFormat *f, EcWorkerFormat format, uint32_t id, bool sequence);
/* Writes f->size (or f->piece) bytes; counts *number up where packets are numbered, else it may be
 * NULL. */
void ec_format_write(const EcFormat *f, bool piece, uint32_t *number, uint8_t *ret);
/* What a UDP payload holds: the offset of the frame (at least an Ethernet header, or an IP header
 * of its version) or of the piece (*ret_piece; at least a split header and a byte more).
 * -EBADMSG: no packet of this format, or one with parts that are not understood; -ENOENT: of
 * another id; -ENODATA: nothing in it, as somebody sends to keep a NAT's mapping. A GRE checksum,
 * if there is one, is verified. */
int ec_format_parse(const EcFormat *f, const uint8_t *data, size_t length, bool *ret_piece);
