/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include <glib.h>
#include <string.h>

#include "worker/toobig.h"

/*
 * Two bytes of MTU, of which the first bit asks for a bare packet, and a frame. An answer is never
 * larger than allowed, is no occasion for another one, and quotes the frame as it is.
 */

/* Goes back, the tags as they were: the length of the link header. */
static size_t check_link(const uint8_t *frame, const uint8_t *answer)
{
	size_t at = 12;

	while (frame[at] == 0x81 || frame[at] == 0x91 ||
			(frame[at] == 0x88 && frame[at + 1] == 0xa8))
		at += 4;
	at += 2;
	g_assert_cmpmem(answer, 6, frame + 6, 6);
	g_assert_cmpmem(answer + 6, 6, frame, 6);
	g_assert_cmpmem(answer + 12, at - 12, frame + 12, at - 12);
	return at;
}

static void check(
		const uint8_t *frame, bool ethernet, unsigned mtu, const uint8_t *answer, size_t n)
{
	uint8_t second[EC_TOO_BIG_MAX];
	size_t link = ethernet ? check_link(frame, answer) : 0;
	size_t header = link + (answer[link] >> 4 == 4 ? 28 : 48);

	g_assert_cmpuint(n, >, header);
	g_assert_cmpuint(n - link, <=, header - link == 28 ? 576 : 1280);
	g_assert_cmpmem(answer + header, n - header, frame + link, n - header);
	g_assert_cmpuint((unsigned)answer[header - 2] << 8 | answer[header - 1], ==, mtu);
	g_assert_cmpuint(ec_too_big(answer, n, ethernet, 68, second), ==, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t answer[EC_TOO_BIG_MAX];

	if (size < 2)
		return 0;
	unsigned mtu = (data[0] & 0x7fu) << 8 | data[1];
	bool ethernet = !(data[0] & 0x80);
	/* A block of its own size: reading beyond it is seen. */
	g_autofree uint8_t *frame = g_memdup2(data + 2, size - 2);

	memset(answer, 0xa5, sizeof(answer));
	size_t n = ec_too_big(frame, size - 2, ethernet, mtu, answer);
	g_assert_cmpuint(n, <=, sizeof(answer));
	for (size_t i = n; i < sizeof(answer); i++)
		g_assert_cmpuint(answer[i], ==, 0xa5);
	if (n > 0)
		check(frame, ethernet, mtu, answer, n);
	return 0;
}
