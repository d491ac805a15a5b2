/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/toobig.h"

/*
 * ec_too_big() for tests/netns/test_too_big.py: each line is an MTU and a frame in hexadecimal, or
 * "-" for a bare packet before that; the answer is a line in hexadecimal, empty if there is none.
 */

int main(int argc, char **argv)
{
	char line[2 * 65536 + 32];

	while (fgets(line, sizeof(line), stdin)) {
		uint8_t answer[EC_TOO_BIG_MAX];
		g_autoptr(GByteArray) frame = g_byte_array_new();
		char *p;
		unsigned long mtu = strtoul(line, &p, 10);
		bool ethernet = !strchr(p, '-');

		for (p += strspn(p, " -"); g_ascii_isxdigit(p[0]) && g_ascii_isxdigit(p[1]);
				p += 2) {
			const uint8_t byte = (uint8_t)(g_ascii_xdigit_value(p[0]) << 4 |
						       g_ascii_xdigit_value(p[1]));

			g_byte_array_append(frame, &byte, 1);
		}
		size_t n = ec_too_big(frame->data, frame->len, ethernet, (unsigned)mtu, answer);
		for (size_t i = 0; i < n; i++)
			printf("%02x", answer[i]);
		printf("\n");
		fflush(stdout);
	}
	return 0;
}
