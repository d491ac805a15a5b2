/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "transmit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/uio.h>
#include <unistd.h>

#include "batch.h"
#include "flow.h"
#include "segment.h"
#include "statistics.h"
#include "toobig.h"

/*
 * DOC: Theory of operation
 *
 * A round reads as many frames from the device as came lately (EcPace), or, once there is a
 * super-frame, until it is empty or a bound in bytes or frames is reached; orders what came, and
 * turns it into datagrams (batch.c). The bound is what a packet that comes next may have to wait
 * for, so it is small; it still is several super-frames.
 *
 * Order: small frames (ARP, acknowledgements, pings, DNS) go before the large ones of their round,
 * but no frame overtakes another one of its flow (flow.c).
 *
 * A frame that does not fit the path with its outer headers is, whichever comes first of
 *   SPLIT     sent in pieces of equal size, which UDP_SEGMENT takes;
 *   TOO_BIG   answered, if it is one that must not be fragmented;
 *   FRAGMENT  sent alone, and fragmented by the kernel: UDP_SEGMENT does not do that;
 * dropped and counted.
 *
 * A round can stop anywhere when the socket takes no more: at, segment and the batch say where.
 */

#define ROUND_BYTES (128 * 1024)
#define ROUND_FRAMES 128
#define HEADROOM EC_FORMAT_HEADER_MAX
#define ALIGNMENT 64
#define SMALL 200 /* bytes */

typedef struct Frame {
	struct virtio_net_hdr v;
	uint32_t at, length; /* in the memory */
} Frame;

/* A set of hashes that may say yes wrongly. */
typedef struct Set {
	uint64_t words[8];
} Set;

struct EcTransmit {
	bool blocked; /* waits for EPOLLOUT */
	EcPace pace;
	unsigned n;
	Frame frames[ROUND_FRAMES];
	uint8_t order[ROUND_FRAMES];
	/* Where the round is */
	unsigned at;      /* in order */
	bool begun;       /* plan is of that frame */
	unsigned segment; /* of it */
	EcSegments plan;
	uint32_t number;       /* GRE's */
	uint32_t frame_number; /* split.h's */
	EcBatch *batch;
	uint8_t answer[EC_TOO_BIG_MAX];
	uint8_t scratch[EC_FRAME_MAX];
	uint8_t memory[ROUND_BYTES + HEADROOM + EC_FRAME_MAX];
};

EcTransmit *ec_transmit_new(void)
{
	EcTransmit *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->batch = ec_batch_new();
	/* Frames in pieces begin at a number that the process before did not use a moment ago. */
	if (t->batch && getrandom(&t->frame_number, sizeof(t->frame_number), GRND_NONBLOCK) > 0)
		return t;
	return ec_transmit_free(t);
}

EcTransmit *ec_transmit_free(EcTransmit *t)
{
	if (t)
		t->batch = ec_batch_free(t->batch);
	free(t);
	return NULL;
}

/* Reading */

/* Bytes, 0 for one that is no good, -EAGAIN. */
static ssize_t read_frame(EcWorker *w, Frame *f)
{
	/* The virtio header in front of it, where the format's will be. */
	uint8_t *start = w->transmit->memory + f->at - sizeof(f->v);
	/* seccomp: read */
	const ssize_t n = read(w->device, start, sizeof(f->v) + EC_FRAME_MAX);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return -EAGAIN;
	if (n < 0 && errno == EBADFD) {
		w->device_gone = true;
		return -EAGAIN;
	}
	ec_count(&w->statistics->device_reads, 1);
	/* More than there is room for was cut off. */
	if (n <= (ssize_t)sizeof(f->v) || (size_t)n > sizeof(f->v) + EC_FRAME_MAX) {
		ec_count(&w->statistics->tx_dropped_malformed, 1);
		return 0;
	}
	memcpy(&f->v, start, sizeof(f->v));
	return n - (ssize_t)sizeof(f->v);
}

void ec_transmit_check_device(EcWorker *w)
{
	Frame f = { .at = HEADROOM };

	if (!w->transmit->blocked)
		(void)read_frame(w, &f);
	else if (read(w->device, NULL, 0) < 0 && errno == EBADFD)
		w->device_gone = true;
}

/* Whether there is a super-frame among them. */
static bool read_round(EcWorker *w)
{
	EcTransmit *t = w->transmit;
	const unsigned limit = ec_pace_limit(&t->pace);
	uint32_t at = HEADROOM;
	bool large = false, empty = false;
	unsigned i;

	t->n = 0;
	/* Beside a super-frame one more look costs nothing, and what is small goes before it. */
	for (i = 0; i < (large ? ROUND_FRAMES : limit) && at < ROUND_BYTES; i++) {
		Frame *f = &t->frames[t->n];
		ssize_t n;

		f->at = at;
		n = read_frame(w, f);
		empty = n < 0;
		if (empty)
			break;
		if (n == 0)
			continue;
		f->length = (uint32_t)n;
		large |= f->v.gso_type != VIRTIO_NET_HDR_GSO_NONE;
		t->order[t->n] = (uint8_t)t->n;
		t->n++;
		at += (uint32_t)n + HEADROOM;
		at = (at + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	}
	ec_pace_came(&t->pace, empty && i < limit ? i : limit, ROUND_FRAMES);
	return large;
}

/* Order */

static void set_add(Set *s, uint32_t hash)
{
	s->words[hash >> 6 & 7] |= 1ULL << (hash & 63);
}

static bool set_has(const Set *s, uint32_t hash)
{
	return s->words[hash >> 6 & 7] >> (hash & 63) & 1;
}

/* Small ones first, each class in the order in which it came. */
static void order_round(EcTransmit *t, bool ethernet)
{
	uint8_t late[ROUND_FRAMES];
	Set flows = { 0 }, pairs = { 0 }, inexact = { 0 }; /* of the late ones */
	unsigned early = 0, n_late = 0;

	for (unsigned i = 0; i < t->n; i++) {
		const Frame *f = &t->frames[i];
		const EcFlow flow = ec_flow(t->memory + f->at, f->length, ethernet);

		if (f->length <= SMALL &&
				!(flow.exact ? set_has(&flows, flow.flow) || set_has(&inexact,
											     flow.pair)
					     : set_has(&pairs, flow.pair))) {
			t->order[early++] = (uint8_t)i;
			continue;
		}
		late[n_late++] = (uint8_t)i;
		set_add(&flows, flow.flow);
		set_add(&pairs, flow.pair);
		if (!flow.exact)
			set_add(&inexact, flow.pair);
	}
	memcpy(t->order + early, late, n_late);
}

/* Datagrams */

static void add_whole(EcWorker *w, const Frame *f, bool alone)
{
	EcTransmit *t = w->transmit;
	uint8_t *start = t->memory + f->at - w->format.size;

	ec_format_write(&w->format, false, &t->number, start);
	ec_batch_add(t->batch, &w->path,
			&(EcDatagram){ .start = start,
					.size = w->format.size + f->length,
					.frames = 1,
					.bytes = f->length,
					.alone = alone });
}

/* A segment of the plan as a frame of its own; its size. */
static size_t write_segment(const EcTransmit *t, uint8_t *frame)
{
	const uint8_t *payload;
	size_t size;

	ec_segment(&t->plan, t->segment, frame, &payload, &size);
	/* It was summed up a moment ago and is near: copying it costs less than a piece of memory
	 * of its own does in the kernel. */
	memcpy(frame + t->plan.header, payload, size);
	return t->plan.header + size;
}

static void add_segment(EcWorker *w, size_t length, bool alone)
{
	EcTransmit *t = w->transmit;
	uint8_t *start = ec_batch_take(t->batch, w->format.size + length);

	ec_format_write(&w->format, false, &t->number, start);
	(void)write_segment(t, start + w->format.size);
	ec_batch_add(t->batch, &w->path,
			&(EcDatagram){ .start = start,
					.size = w->format.size + length,
					.frames = 1,
					.bytes = length,
					.alone = alone });
}

static void add_pieces(
		EcWorker *w, const uint8_t *frame, size_t length, unsigned count, size_t size)
{
	EcTransmit *t = w->transmit;
	const size_t head = (size_t)w->format.piece + EC_SPLIT_HEADER;
	const uint32_t number = t->frame_number++;

	for (unsigned i = 0; i < count; i++) {
		const size_t from = i * size, rest = length - from < size ? length - from : size;
		uint8_t *start = ec_batch_take(t->batch, head + rest);

		ec_format_write(&w->format, true, &t->number, start);
		ec_split_header(i, count, number, length, start + w->format.piece);
		memcpy(start + head, frame + from, rest);
		ec_batch_add(t->batch, &w->path,
				&(EcDatagram){ .start = start,
						.size = head + rest,
						.frames = i + 1 == count,
						.bytes = i + 1 == count ? length : 0 });
	}
	ec_count(&w->statistics->tx_split, 1);
}

/* How many pieces this frame needs; 0 if it cannot be done. */
static unsigned plan_pieces(const EcWorker *w, size_t length, size_t *ret_size)
{
	const size_t head = (size_t)w->path.overhead + w->format.piece;

	return w->path.mtu > head ? ec_split_plan(length, w->path.mtu - head, ret_size) : 0;
}

static void split_frame(EcWorker *w, const Frame *f)
{
	EcTransmit *t = w->transmit;
	const uint8_t *frame = t->memory + f->at;
	size_t length = f->length, size;
	unsigned count;

	if (t->plan.header) {
		length = write_segment(t, t->scratch);
		frame = t->scratch;
	}
	count = plan_pieces(w, length, &size);
	if (count)
		add_pieces(w, frame, length, count, size);
	else
		ec_count(&w->statistics->tx_dropped_size, 1);
}

/* Size */

/* Of the largest frame that this one becomes. */
static size_t largest(const EcTransmit *t, const Frame *f)
{
	return t->plan.header ? (size_t)t->plan.header + t->plan.size : f->length;
}

static bool fits(const EcWorker *w, size_t length)
{
	return !w->path.mtu || w->path.overhead + w->format.size + length <= w->path.mtu;
}

/* True when the frame needs no more: it was answered. */
static bool answer(EcWorker *w, const Frame *f)
{
	EcTransmit *t = w->transmit;
	const uint8_t *frame = t->memory + f->at;
	struct virtio_net_hdr v = { 0 };
	struct iovec parts[2] = { { .iov_base = &v, .iov_len = sizeof(v) } };
	size_t length = f->length, size;
	unsigned room = (unsigned)w->path.overhead + w->format.size;

	if (t->plan.header) {
		length = write_segment(t, t->scratch);
		frame = t->scratch;
	}
	room += (unsigned)ec_flow_network(frame, length, w->ethernet);
	if (w->path.mtu <= room)
		return false;
	size = ec_too_big(frame, length, w->ethernet, w->path.mtu - room, t->answer);
	if (!size)
		return false;
	parts[1] = (struct iovec){ .iov_base = t->answer, .iov_len = size };
	/* seccomp: writev */
	if (writev(w->device, parts, 2) > 0) {
		ec_count(&w->statistics->device_writes, 1);
		ec_count(&w->statistics->too_big_answers, 1);
	}
	return true;
}

/* Reads the plan of a frame: 0, -EBADMSG when nothing of it is sent; it is counted. */
static int begin(EcWorker *w, const Frame *f)
{
	EcTransmit *t = w->transmit;
	uint8_t *frame = t->memory + f->at;

	t->segment = 0;
	if (!w->path.can_send) {
		t->plan.count = 1;
		(void)ec_segments_plan(&f->v, frame, f->length, w->ethernet, &t->plan);
		ec_count(&w->statistics->tx_dropped_peer, t->plan.count);
		return -EBADMSG;
	}
	if (ec_segments_plan(&f->v, frame, f->length, w->ethernet, &t->plan) < 0 ||
			(!t->plan.header && ec_segment_complete(&f->v, frame, f->length) < 0)) {
		ec_count(&w->statistics->tx_dropped_malformed, 1);
		return -EBADMSG;
	}
	if (t->plan.header)
		ec_count(&w->statistics->tx_segmented, t->plan.count);
	if (fits(w, largest(t, f)) || (w->configure.flags & EC_WORKER_SPLIT))
		return 0;
	if ((!(w->configure.flags & EC_WORKER_TOO_BIG) || !answer(w, f)) &&
			(w->configure.flags & EC_WORKER_FRAGMENT))
		return 0;
	ec_count(&w->statistics->tx_dropped_size, t->plan.count);
	return -EBADMSG;
}

static void add(EcWorker *w, const Frame *f)
{
	EcTransmit *t = w->transmit;
	size_t length = f->length;
	bool alone;

	if (t->plan.header) {
		const size_t done = (size_t)t->plan.header + (size_t)t->segment * t->plan.size;

		length -= done;
		length = t->plan.header + (length < t->plan.size ? length : t->plan.size);
	}
	alone = !fits(w, length);
	if (alone && (w->configure.flags & EC_WORKER_SPLIT))
		split_frame(w, f);
	else if (w->format.size + length > EC_BATCH_BYTES)
		ec_count(&w->statistics->tx_dropped_size, 1);
	else if (t->plan.header)
		add_segment(w, length, alone);
	else
		add_whole(w, f, alone);
}

/* The rest of the round: 0, or -EAGAIN. */
static int send_round(EcWorker *w)
{
	EcTransmit *t = w->transmit;
	/* What one frame may need at most */
	const size_t bytes =
			EC_FRAME_MAX + EC_SPLIT_PIECES * (EC_FORMAT_HEADER_MAX + EC_SPLIT_HEADER);

	for (; t->at < t->n; t->at++, t->begun = false) {
		const Frame *f = &t->frames[t->order[t->at]];

		if (!t->begun && begin(w, f) < 0)
			continue;
		t->begun = true;
		for (; t->segment < t->plan.count; t->segment++) {
			const int r = ec_batch_fits(t->batch, EC_SPLIT_PIECES, bytes)
						      ? 0
						      : ec_batch_send(t->batch, w);

			if (r < 0)
				return r;
			add(w, f);
		}
	}
	return ec_batch_send(t->batch, w);
}

static void block(EcWorker *w, bool yes)
{
	EcTransmit *t = w->transmit;

	if (t->blocked == yes)
		return;
	t->blocked = yes;
	(void)ec_worker_rewatch(w, EC_SOURCE_DEVICE, w->device, yes ? 0 : EPOLLIN);
	(void)ec_worker_rewatch(w, EC_SOURCE_SOCKET, w->path.fd, ec_transmit_events(w));
}

void ec_transmit_from_device(EcWorker *w)
{
	EcTransmit *t = w->transmit;

	if (t->blocked)
		return;
	if (read_round(w) && t->n > 1)
		order_round(t, w->ethernet);
	t->at = 0;
	t->begun = false;
	if (t->n)
		block(w, send_round(w) < 0);
}

uint8_t *ec_transmit_place(EcWorker *w)
{
	return w->transmit->blocked ? NULL : w->transmit->memory + HEADROOM;
}

void ec_transmit_placed(EcWorker *w, size_t length)
{
	EcTransmit *t = w->transmit;

	t->frames[0] = (Frame){ .at = HEADROOM, .length = (uint32_t)length };
	t->order[0] = 0;
	t->n = 1;
	t->at = 0;
	t->begun = false;
	block(w, send_round(w) < 0);
}

void ec_transmit_to_socket(EcWorker *w)
{
	if (w->transmit->blocked)
		block(w, send_round(w) < 0);
}

uint32_t ec_transmit_events(const EcWorker *w)
{
	return w->transmit->blocked ? EPOLLIN | EPOLLOUT : EPOLLIN;
}
