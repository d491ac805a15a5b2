/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "roundtrip.h"

#include <glib.h>
#include <string.h>

#include "packets.h"

#define KEY 40

typedef struct Frame {
	uint8_t *bytes;
	size_t length;
	bool tcp;         /* its flow can be told */
	bool barrier;     /* TCP whose flow cannot: it overtakes nothing */
	uint8_t key[KEY]; /* of the flow */
	bool out;
} Frame;

/* Not as the worker does it: only what tells flows apart. */
static void find_key(Frame *f, bool ethernet)
{
	const uint8_t *b = f->bytes;
	size_t at = 0, n = f->length;

	if (ethernet) {
		at = 12;
		while (n >= at + 2 && ((b[at] == 0x81 && b[at + 1] == 0) ||
						      (b[at] == 0x88 && b[at + 1] == 0xa8) ||
						      (b[at] == 0x91 && b[at + 1] == 0)))
			at += 4;
		at += 2;
		if (n < at || !((b[at - 2] == 8 && b[at - 1] == 0) ||
					      (b[at - 2] == 0x86 && b[at - 1] == 0xdd)))
			return;
		if (n == at || b[at] >> 4 != (b[at - 2] == 8 ? 4 : 6))
			return;
	}
	if (n >= at + 20 && b[at] >> 4 == 4 && b[at + 9] == 6) {
		bool odd = b[at] != 0x45 || (b[at + 6] & 0x3f) || b[at + 7];

		if (odd && (b[at] & 15) >= 5 && at + (b[at] & (size_t)15) * 4 <= n) {
			f->barrier = true;
		} else if (!odd && n >= at + 24) {
			f->tcp = true;
			f->key[0] = 4;
			memcpy(f->key + 1, b + at + 12, 12);
		}
	} else if (n >= at + 44 && b[at] >> 4 == 6 && b[at + 6] == 6) {
		f->tcp = true;
		f->key[0] = 6;
		memcpy(f->key + 1, b + at + 8, 36);
	}
}

static Frame *frame_at(RoundTrip *t, guint i)
{
	return &g_array_index(t->frames, Frame, i);
}

/* Nothing has changed; or a checksum that was left to do is done, and nothing else. */
static void assert_same(const Frame *f, const uint8_t *bytes, size_t length, bool ethernet)
{
	size_t first = 0, last = length;

	g_assert_cmpuint(f->length, ==, length);
	while (first < length && f->bytes[first] == bytes[first])
		first++;
	if (first == length)
		return;
	while (f->bytes[last - 1] == bytes[last - 1])
		last--;
	g_assert_cmpuint(last - first, <=, 2);
	packet_assert_right(f->bytes, length, ethernet, true);
	packet_assert_right(bytes, length, ethernet, false);
}

/* One that went in has come out. */
static void arrive(RoundTrip *t, const uint8_t *bytes, size_t length)
{
	Frame seen = { .bytes = (uint8_t *)bytes, .length = length };
	guint i;

	find_key(&seen, t->ethernet);
	for (i = 0; i < t->frames->len; i++) {
		const Frame *f = frame_at(t, i);

		if (!f->out && f->tcp == seen.tcp && memcmp(f->key, seen.key, KEY) == 0)
			break;
	}
	g_assert_cmpuint(i, <, t->frames->len);
	Frame *f = frame_at(t, i);
	assert_same(f, bytes, length, t->ethernet);
	f->out = true;
	for (guint j = 0; f->barrier && j < t->frames->len; j++)
		if (frame_at(t, j)->tcp)
			g_assert_true(frame_at(t, j)->out == (j < i));
}

static void on_emit(const struct virtio_net_hdr *v, const struct iovec *pieces, int n,
		unsigned frames, void *userdata)
{
	RoundTrip *t = userdata;
	static uint8_t frame[EC_FRAME_MAX], cut[EC_FRAME_MAX];
	const struct virtio_net_hdr none = { 0 };
	size_t length = 0;
	EcSegments s;

	g_assert_cmpint(n, <=, EC_COALESCE_PIECES);
	for (int i = 0; i < n; i++) {
		g_assert_cmpuint(length + pieces[i].iov_len, <=, sizeof(frame));
		if (pieces[i].iov_len > 0)
			memcpy(frame + length, pieces[i].iov_base, pieces[i].iov_len);
		length += pieces[i].iov_len;
	}
	t->emitted++;
	if (v->gso_type == 0) {
		g_assert_cmpuint(frames, ==, 1);
		if (v->flags) {
			g_assert_cmpuint(v->flags, ==, VIRTIO_NET_HDR_F_NEEDS_CSUM);
			g_assert_cmpuint(v->csum_start + v->csum_offset + 2u, <=, length);
		} else {
			g_assert_cmpmem(v, sizeof(*v), &none, sizeof(none));
		}
		t->last = *v;
		arrive(t, frame, length);
		return;
	}
	t->supers++;
	t->merged += frames;
	t->last_frames = frames;
	t->last = *v;
	g_assert_cmpuint(v->flags, ==, VIRTIO_NET_HDR_F_NEEDS_CSUM);
	g_assert_cmpint(ec_segments_plan(v, frame, length, t->ethernet, &s), ==, 0);
	g_assert_cmpuint(s.header, ==, v->hdr_len);
	g_assert_cmpuint(s.header, ==, pieces[0].iov_len);
	g_assert_cmpuint(s.count, ==, frames);
	g_assert_cmpuint(frames, >, 1);
	g_assert_cmpuint(length - s.network, <=, 65535);
	packet_assert_right(frame, length, t->ethernet, true);
	for (unsigned i = 0; i < s.count; i++) {
		const uint8_t *payload;
		size_t size;

		ec_segment(&s, i, cut, &payload, &size);
		memcpy(cut + s.header, payload, size);
		arrive(t, cut, s.header + size);
	}
}

static void clear(RoundTrip *t)
{
	for (guint i = 0; i < t->frames->len; i++)
		g_free(frame_at(t, i)->bytes);
	g_array_set_size(t->frames, 0);
}

RoundTrip *roundtrip_new(bool ethernet)
{
	RoundTrip *t = g_new0(RoundTrip, 1);

	t->ethernet = ethernet;
	t->coalesce = ec_coalesce_new(ethernet, on_emit, t);
	t->frames = g_array_new(FALSE, FALSE, sizeof(Frame));
	return t;
}

RoundTrip *roundtrip_free(RoundTrip *t)
{
	clear(t);
	g_array_unref(t->frames);
	ec_coalesce_free(t->coalesce);
	g_free(t);
	return NULL;
}

void roundtrip_add(RoundTrip *t, const uint8_t *frame, size_t length)
{
	/* A block of its own size: reading beyond it is seen. */
	Frame f = { .bytes = g_malloc(MAX(length, 1)), .length = length };

	if (length > 0)
		memcpy(f.bytes, frame, length);
	find_key(&f, t->ethernet);
	g_array_append_val(t->frames, f);
	ec_coalesce_add(t->coalesce, f.bytes, f.length);
}

void roundtrip_flush(RoundTrip *t)
{
	ec_coalesce_flush(t->coalesce);
	for (guint i = 0; i < t->frames->len; i++)
		g_assert_true(frame_at(t, i)->out);
	clear(t);
}
