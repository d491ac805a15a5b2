/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "format.h"

#include <errno.h>
#include <string.h>

#include "checksum.h"
#include "packet.h"
#include "split.h"

/*
 * DOC: Theory of operation
 *
 * What is sent always begins alike but for GRE's sequence number: ec_format_init() writes that
 * beginning once, ec_format_write() copies it. What comes is somebody else's choice: GRE's
 * optional fields may be there in any combination, as in a kernel's packets, in the order checksum,
 * key, sequence number (RFC 2890). What the kernel would not take is not taken here either; for
 * GRE that is a bit more, as the kernel looks away from bits that RFC 2784 §2.3 forbids to be set.
 *
 * A piece of a frame is marked by what a kernel refuses as a frame: the second Ethertype for local
 * experiments (IEEE 802) for GRE's protocol type, VXLAN's last reserved byte, a destination of
 * zeros, IP version 15. So a kernel at the other end drops pieces and takes nothing for a frame
 * that is none.
 */

#define ETHERNET_SIZE 14
#define IPV4_SIZE 20
#define IPV6_SIZE 40

#define GRE_CHECKSUM 0x8000
#define GRE_KEY 0x2000
#define GRE_SEQUENCE 0x1000
#define GRE_ETHERNET 0x6558
#define GRE_PIECE 0x88b6

#define VXLAN_SIZE 8
#define VXLAN_VNI 0x08 /* the flag "I" */
#define VXLAN_PIECE 1

#define RAW_PIECE_SIZE 6 /* of a destination of zeros */
#define TUN_PIECE 0xf0

typedef struct Kind {
	bool ethernet;
	uint32_t id_max;
	void (*prepare)(EcFormat *f);
	/* The offset of what is carried, and whether the header says that this is a piece. */
	int (*parse)(const EcFormat *f, const uint8_t *data, size_t length, bool *ret_piece);
} Kind;

static void prepare_gre(EcFormat *f)
{
	uint16_t flags = 0;
	uint8_t size = 4;

	if (f->id > 0) {
		flags |= GRE_KEY;
		ec_put32(f->template + size, f->id);
		size += 4;
	}
	if (f->sequence) {
		flags |= GRE_SEQUENCE;
		f->number = size;
		size += 4;
	}
	ec_put16(f->template, flags);
	f->size = f->piece = size;
	memcpy(f->piece_template, f->template, size);
	ec_put16(f->template + 2, GRE_ETHERNET);
	ec_put16(f->piece_template + 2, GRE_PIECE);
}

static int parse_gre(const EcFormat *f, const uint8_t *data, size_t length, bool *ret_piece)
{
	size_t at = 4;
	unsigned flags, type;

	if (length < at)
		return -EBADMSG;
	flags = ec_get16(data);
	type = ec_get16(data + 2);
	if (flags & ~(unsigned)(GRE_CHECKSUM | GRE_KEY | GRE_SEQUENCE) ||
			(type != GRE_ETHERNET && type != GRE_PIECE))
		return -EBADMSG;
	at += flags & GRE_CHECKSUM ? 4 : 0;
	if (length < at + (flags & GRE_KEY ? 4 : 0) + (flags & GRE_SEQUENCE ? 4 : 0))
		return -EBADMSG;
	if (flags & GRE_CHECKSUM && ec_sum(data, length) != 0xffff)
		return -EBADMSG;
	/* A tunnel without a key is another one than that with key 0: ip_tunnel_key_match(). */
	if (!(flags & GRE_KEY) != (f->id == 0))
		return -ENOENT;
	if (flags & GRE_KEY) {
		if (ec_get32(data + at) != f->id)
			return -ENOENT;
		at += 4;
	}
	at += flags & GRE_SEQUENCE ? 4 : 0;
	*ret_piece = type == GRE_PIECE;
	return (int)at;
}

static void prepare_vxlan(EcFormat *f)
{
	f->size = f->piece = VXLAN_SIZE;
	f->template[0] = VXLAN_VNI;
	ec_put32(f->template + 4, f->id << 8);
	memcpy(f->piece_template, f->template, VXLAN_SIZE);
	f->piece_template[7] = VXLAN_PIECE;
}

static int parse_vxlan(const EcFormat *f, const uint8_t *data, size_t length, bool *ret_piece)
{
	if (length < VXLAN_SIZE || ec_get32(data) != (uint32_t)VXLAN_VNI << 24 ||
			data[7] > VXLAN_PIECE)
		return -EBADMSG;
	if (ec_get32(data + 4) >> 8 != f->id)
		return -ENOENT;
	*ret_piece = data[7] == VXLAN_PIECE;
	return VXLAN_SIZE;
}

static void prepare_raw(EcFormat *f)
{
	f->piece = RAW_PIECE_SIZE;
}

static int parse_raw(const EcFormat *f, const uint8_t *data, size_t length, bool *ret_piece)
{
	static const uint8_t zero[RAW_PIECE_SIZE];

	*ret_piece = f->joins && length >= sizeof(zero) && memcmp(data, zero, sizeof(zero)) == 0;
	return *ret_piece ? RAW_PIECE_SIZE : 0;
}

static void prepare_tun(EcFormat *f)
{
	f->piece = 1;
	f->piece_template[0] = TUN_PIECE;
}

static int parse_tun(const EcFormat *f, const uint8_t *data, size_t length, bool *ret_piece)
{
	*ret_piece = data[0] == TUN_PIECE;
	return *ret_piece ? 1 : 0;
}

static const Kind kinds[] = {
	[EC_WORKER_GRETAP_FOU] = { true, UINT32_MAX, prepare_gre, parse_gre },
	[EC_WORKER_VXLAN] = { true, 0xffffff, prepare_vxlan, parse_vxlan },
	[EC_WORKER_RAW_UDP] = { true, UINT32_MAX, prepare_raw, parse_raw },
	[EC_WORKER_TUN_UDP] = { false, UINT32_MAX, prepare_tun, parse_tun },
};

int ec_format_init(EcFormat *f, EcWorkerFormat format, uint32_t id, bool sequence)
{
	size_t k = format;

	if (k >= sizeof(kinds) / sizeof(kinds[0]) || !kinds[k].parse || id > kinds[k].id_max)
		return -EINVAL;
	*f = (EcFormat){
		.format = format,
		.id = id,
		.sequence = sequence,
		.ethernet = kinds[k].ethernet,
	};
	kinds[k].prepare(f);
	return 0;
}

void ec_format_write(const EcFormat *f, bool piece, uint32_t *number, uint8_t *ret)
{
	if (piece)
		memcpy(ret, f->piece_template, f->piece);
	else
		memcpy(ret, f->template, f->size);
	if (f->number > 0)
		ec_put32(ret + f->number, (*number)++);
}

/* Whether it may be an IP packet or an Ethernet frame. */
static bool is_plausible(const EcFormat *f, const uint8_t *frame, size_t length)
{
	if (f->ethernet)
		return length >= ETHERNET_SIZE;
	switch (frame[0] >> 4) {
	case 4:
		return length >= IPV4_SIZE;
	case 6:
		return length >= IPV6_SIZE;
	default:
		return false;
	}
}

int ec_format_parse(const EcFormat *f, const uint8_t *data, size_t length, bool *ret_piece)
{
	bool piece = false;
	int at;

	/* Sent to keep or to make a mapping: RFC 3948 §2.3, and peers of tap2tap. */
	if (length <= 1)
		return -ENODATA;
	at = kinds[f->format].parse(f, data, length, &piece);
	if (at < 0)
		return at;
	data += at;
	length -= (size_t)at;
	if (piece ? length <= EC_SPLIT_HEADER : length > 0 && !is_plausible(f, data, length))
		return -EBADMSG;
	if (length == 0)
		return -ENODATA;
	*ret_piece = piece;
	return at;
}
