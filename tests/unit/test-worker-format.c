/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "worker/format.h"

#include <errno.h>
#include <glib.h>
#include <string.h>

#include "worker/split.h"

/* The frame that kernels and other programs carried when their packets were written down:
 * "HELLO" ten times, of Ethertype 0x88b5. */
#define FRAME                                                                                      \
	"ffffffffffff"                                                                             \
	"020000000009"                                                                             \
	"88b5"                                                                                     \
	"48454c4c4f48454c4c4f48454c4c4f48454c4c4f48454c4c4f"                                       \
	"48454c4c4f48454c4c4f48454c4c4f48454c4c4f48454c4c4f"
#define PACKET                                                                                     \
	"45000024"                                                                                 \
	"00004000"                                                                                 \
	"40010000"                                                                                 \
	"0a000001"                                                                                 \
	"0a000002"                                                                                 \
	"0800f7ff00000000"                                                                         \
	"0102030405060708"

static GByteArray *bytes_of(const char *hex)
{
	GByteArray *b = g_byte_array_new();

	for (; hex[0]; hex += 2) {
		const uint8_t byte = (uint8_t)(g_ascii_xdigit_value(hex[0]) << 4 |
					       g_ascii_xdigit_value(hex[1]));

		g_byte_array_append(b, &byte, 1);
	}
	return b;
}

static EcFormat format_of(EcWorkerFormat format, uint32_t id, bool sequence)
{
	EcFormat f;

	memset(&f, 0xff, sizeof(f));
	g_assert_cmpint(ec_format_init(&f, format, id, sequence), ==, 0);
	return f;
}

/* What of text comes out of a block of exactly its size: reading beyond it is seen. */
static int parse(const EcFormat *f, const char *hex, bool *ret_piece)
{
	g_autoptr(GByteArray) b = bytes_of(hex);
	g_autofree uint8_t *data = g_memdup2(b->data, b->len);

	return ec_format_parse(f, data, b->len, ret_piece);
}

/* UDP payloads both ways. */
static const struct {
	EcWorkerFormat format;
	uint32_t id;
	bool sequence;
	const char *header, *piece;
} vectors[] = {
	{ EC_WORKER_GRETAP_FOU, 0, false, "00006558", "000088b6" },
	{ EC_WORKER_GRETAP_FOU, 0x11223344, false, "2000655811223344", "200088b611223344" },
	{ EC_WORKER_GRETAP_FOU, 0, true, "1000655800000007", "100088b600000007" },
	{ EC_WORKER_GRETAP_FOU, 0x11223344, true, "300065581122334400000007",
			"300088b61122334400000007" },
	{ EC_WORKER_GRETAP_FOU, UINT32_MAX, false, "20006558ffffffff", "200088b6ffffffff" },
	{ EC_WORKER_VXLAN, 0x123456, false, "0800000012345600", "0800000012345601" },
	{ EC_WORKER_VXLAN, 0, true, "0800000000000000", "0800000000000001" },
	{ EC_WORKER_VXLAN, 0xffffff, false, "08000000ffffff00", "08000000ffffff01" },
	{ EC_WORKER_RAW_UDP, 0, false, "", "000000000000" },
	{ EC_WORKER_RAW_UDP, 7, true, "", "000000000000" },
	{ EC_WORKER_TUN_UDP, 0, false, "", "f0" },
};

static void test_vectors(void)
{
	for (size_t i = 0; i < G_N_ELEMENTS(vectors); i++) {
		EcFormat f = format_of(vectors[i].format, vectors[i].id, vectors[i].sequence);

		g_assert_cmpint(f.ethernet, ==, vectors[i].format != EC_WORKER_TUN_UDP);
		f.joins = true;
		for (int piece = 0; piece <= 1; piece++) {
			const char *header = piece ? vectors[i].piece : vectors[i].header;
			g_autoptr(GByteArray) expected = bytes_of(header);
			g_autofree char *datagram =
					g_strconcat(header, f.ethernet ? FRAME : PACKET, NULL);
			uint8_t written[EC_FORMAT_HEADER_MAX + 1];
			uint32_t number = 7;
			bool seen = !piece;

			memset(written, 0xa5, sizeof(written));
			ec_format_write(&f, piece, &number, written);
			g_assert_cmpuint(piece ? f.piece : f.size, ==, expected->len);
			g_assert_cmpmem(written, expected->len, expected->data, expected->len);
			g_assert_cmpuint(written[expected->len], ==, 0xa5);
			g_assert_cmpuint(number, ==, f.number > 0 ? 8 : 7);
			g_assert_cmpint(parse(&f, datagram, &seen), ==, (int)expected->len);
			g_assert_cmpint(seen, ==, piece);
		}
	}
}

static void test_numbers(void)
{
	EcFormat f = format_of(EC_WORKER_GRETAP_FOU, 5, true);
	uint32_t number = UINT32_MAX;
	uint8_t header[EC_FORMAT_HEADER_MAX];

	ec_format_write(&f, false, &number, header);
	g_assert_cmpmem(header + f.number, 4, "\xff\xff\xff\xff", 4);
	g_assert_cmpuint(number, ==, 0);
	ec_format_write(&f, true, &number, header);
	g_assert_cmpmem(header + f.number, 4, "\0\0\0\0", 4);
	g_assert_cmpuint(number, ==, 1);
}

/* A frame may be for six zeros where nobody sends pieces. */
static void test_raw_zeros(void)
{
	EcFormat f = format_of(EC_WORKER_RAW_UDP, 0, false);
	bool piece = true;

	g_assert_cmpint(parse(&f, "000000000000" FRAME, &piece), ==, 0);
	g_assert_false(piece);
}

static void test_no_format(void)
{
	EcFormat f;

	g_assert_cmpint(ec_format_init(&f, 0, 0, false), ==, -EINVAL);
	g_assert_cmpint(ec_format_init(&f, EC_WORKER_TUN_UDP + 1, 0, false), ==, -EINVAL);
	g_assert_cmpint(ec_format_init(&f, (EcWorkerFormat)UINT32_MAX, 0, false), ==, -EINVAL);
	g_assert_cmpint(ec_format_init(&f, EC_WORKER_VXLAN, 0x1000000, false), ==, -EINVAL);
}

typedef struct Datagram {
	const char *hex;
	int result;
} Datagram;

static void check_parse(const EcFormat *f, const Datagram *d, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		bool piece = true;
		int r = parse(f, d[i].hex, &piece);

		if (r != d[i].result)
			g_error("%s: %d, not %d", d[i].hex, r, d[i].result);
		if (r >= 0)
			g_assert_false(piece);
	}
}

/* Every combination of optional fields, with a checksum that is right and one that is not. */
static void test_gre_fields(void)
{
	EcFormat plain = format_of(EC_WORKER_GRETAP_FOU, 0, true);
	EcFormat keyed = format_of(EC_WORKER_GRETAP_FOU, 0x11223344, false);
	static const Datagram without[] = {
		{ "00006558" FRAME, 4 },
		{ "1000655800000000" FRAME, 8 },
		{ "2000655811223344" FRAME, -ENOENT },
		{ "2000655800000000" FRAME, -ENOENT },
		{ "80006558449d0000" FRAME, 8 },
		{ "800065589a9c0000" FRAME "aa", 8 },
		{ "80006558449c0000" FRAME, -EBADMSG },
		{ "8000655800000000" FRAME, -EBADMSG },
	};
	static const Datagram with[] = {
		{ "00006558" FRAME, -ENOENT },
		{ "1000655811223344" FRAME, -ENOENT },
		{ "2000655811223344" FRAME, 8 },
		{ "2000655811223345" FRAME, -ENOENT },
		{ "30006558112233440badcafe" FRAME, 12 },
		{ "a0006558e036000011223344" FRAME, 12 },
		{ "b0006558d03600001122334400000000" FRAME, 16 },
		{ "b0006558d03500001122334400000001" FRAME, 16 },
		{ "b0006558d03600001122334400000001" FRAME, -EBADMSG },
		{ "b0006558d03500001122334500000000" FRAME, -ENOENT },
		{ "a0006558e036000011223344" FRAME "01", -EBADMSG },
	};

	check_parse(&plain, without, G_N_ELEMENTS(without));
	check_parse(&keyed, with, G_N_ELEMENTS(with));
}

static void test_gre_refused(void)
{
	EcFormat f = format_of(EC_WORKER_GRETAP_FOU, 0, false);
	static const Datagram datagrams[] = {
		{ "", -ENODATA },
		{ "00", -ENODATA },
		{ "ff", -ENODATA },
		{ "0000", -EBADMSG },
		{ "000065", -EBADMSG },
		{ "00006558", -ENODATA }, /* a kernel's mapping keeper: nothing in it */
		{ "1000655800000000", -ENODATA },
		{ "10006558000000", -EBADMSG },
		{ "20006558000000", -EBADMSG },
		{ "80006558000000", -EBADMSG },
		{ "b00065580000000000000000000000", -EBADMSG },
		{ "00000800" PACKET, -EBADMSG },
		{ "000086dd" PACKET, -EBADMSG },
		{ "0000880b" FRAME, -EBADMSG },
		/* Too short for Ethernet. */
		{ "00006558"
		  "ffffffffffff02000000000988",
				-EBADMSG },
		{ "00006558"
		  "ffffffffffff02000000000988b5",
				4 },
		/* A piece without a byte of a frame behind its header. */
		{ "000088b6", -EBADMSG },
		{ "000088b6"
		  "10000200000000010400",
				-EBADMSG },
	};

	check_parse(&f, datagrams, G_N_ELEMENTS(datagrams));
	/* Routing, the other bits of RFC 1701, and versions: none is known. */
	for (unsigned bits = 1; bits <= 0xffff; bits <<= 1) {
		g_autofree char *hex = g_strdup_printf("%04x6558" FRAME, bits);
		bool piece;

		if (!(bits & 0xb000))
			g_assert_cmpint(parse(&f, hex, &piece), ==, -EBADMSG);
	}
}

static void test_vxlan_refused(void)
{
	EcFormat f = format_of(EC_WORKER_VXLAN, 7, false);
	static const Datagram datagrams[] = {
		{ "", -ENODATA },
		{ "08", -ENODATA },
		{ "0800000000000700", -ENODATA },
		{ "08000000000007", -EBADMSG },
		{ "0800000000000700" FRAME, 8 },
		{ "0800000000000800" FRAME, -ENOENT },
		{ "0800000001000700" FRAME, -ENOENT },
		{ "0000000000000700" FRAME, -EBADMSG },
		{ "0800000000000702" FRAME, -EBADMSG },
		{ "0800000000000781" FRAME, -EBADMSG },
		/* Generic protocol extension, group policy, remote checksum. */
		{ "0c00000300000700" FRAME, -EBADMSG },
		{ "8800000100000700" FRAME, -EBADMSG },
		{ "0820000000000700" FRAME, -EBADMSG },
		{ "0800000000000700"
		  "ffffffffffff02000000000988",
				-EBADMSG },
		{ "0800000000000701"
		  "10000200000000010400",
				-EBADMSG },
	};

	check_parse(&f, datagrams, G_N_ELEMENTS(datagrams));
	for (unsigned bit = 0; bit < 32; bit++) {
		g_autofree char *hex =
				g_strdup_printf("%08x00000700" FRAME, 0x08000000u ^ 1u << bit);
		bool piece;

		g_assert_cmpint(parse(&f, hex, &piece), ==, -EBADMSG);
	}
}

static void test_bare_refused(void)
{
	EcFormat raw = format_of(EC_WORKER_RAW_UDP, 0, false);
	EcFormat tun = format_of(EC_WORKER_TUN_UDP, 0, false);
	static const Datagram frames[] = {
		{ "", -ENODATA },
		{ "00", -ENODATA },
		{ "0000", -EBADMSG },
		{ "000000000000", -EBADMSG },
		{ "ffffffffffff02000000000988", -EBADMSG },
		{ "ffffffffffff02000000000988b5", 0 },
		{ "000000000001"
		  "020000000009"
		  "88b5",
				0 },
		{ "0000000000000000000000000000", -EBADMSG },
		{ "000000000000"
		  "10000200000000010400",
				-EBADMSG },
	};
	static const Datagram packets[] = {
		{ "", -ENODATA },
		{ "45", -ENODATA },
		{ PACKET, 0 },
		{ "4500002400004000400100000a0000010a0000", -EBADMSG },
		{ "60000000000b3a40"
		  "fe800000000000000000000000000001"
		  "fe8000000000000000000000000002",
				-EBADMSG },
		{ "6000000000003b40"
		  "fe800000000000000000000000000001"
		  "fe800000000000000000000000000002",
				0 },
		{ "5500002400004000400100000a0000010a000002", -EBADMSG },
		{ "0000002400004000400100000a0000010a000002", -EBADMSG },
		{ "f100002400004000400100000a0000010a000002", -EBADMSG },
		{ "f0"
		  "10000200000000010400",
				-EBADMSG },
	};

	raw.joins = true;
	check_parse(&raw, frames, G_N_ELEMENTS(frames));
	check_parse(&tun, packets, G_N_ELEMENTS(packets));
}

int main(int argc, char *argv[])
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/worker-format/vectors", test_vectors);
	g_test_add_func("/worker-format/numbers", test_numbers);
	g_test_add_func("/worker-format/raw-zeros", test_raw_zeros);
	g_test_add_func("/worker-format/no-format", test_no_format);
	g_test_add_func("/worker-format/gre-fields", test_gre_fields);
	g_test_add_func("/worker-format/gre-refused", test_gre_refused);
	g_test_add_func("/worker-format/vxlan-refused", test_vxlan_refused);
	g_test_add_func("/worker-format/bare-refused", test_bare_refused);
	return g_test_run();
}
