/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include <glib.h>
#include <string.h>

#include "../unit/packets.h"

static void cut_all(const EcSegments *s, bool ethernet)
{
	static uint8_t cut[EC_FRAME_MAX];
	size_t payload = 0;

	g_assert_cmpuint(s->header, <=, EC_SEGMENT_HEADER_MAX);
	for (unsigned i = 0; i < s->count; i++) {
		const uint8_t *part;
		size_t n;

		ec_segment(s, i, cut, &part, &n);
		g_assert_true(part == s->frame + s->header + payload);
		memcpy(cut + s->header, part, n);
		packet_assert_right(cut, s->header + n, ethernet, false);
		payload += n;
	}
	g_assert_cmpuint(s->header + payload, ==, s->length);
}

/*
 * A virtio header, a byte whose lowest bit says that a link header follows, and a frame. Whatever
 * they are, the frame is refused, or cut into frames that are right in all lengths and checksums
 * and have its payload.
 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct virtio_net_hdr v;
	EcSegments s;

	if (size < sizeof(v) + 1)
		return 0;
	memcpy(&v, data, sizeof(v));
	bool ethernet = data[sizeof(v)] & 1;
	size_t length = size - sizeof(v) - 1;
	g_autofree uint8_t *frame = g_malloc(MAX(length, 1));
	memcpy(frame, data + sizeof(v) + 1, length);

	int r = ec_segments_plan(&v, frame, length, ethernet, &s);
	g_assert_true(r == 0 || r == -EBADMSG);
	if (r == 0 && s.header > 0)
		cut_all(&s, ethernet);
	r = ec_segment_complete(&v, frame, length);
	g_assert_true(r == 0 || r == -EBADMSG);
	return 0;
}
