/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "receive.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

#include "connection.h"
#include "socket.h"
#include "statistics.h"

/*
 * DOC: Theory of operation
 *
 * UDP_GRO (udp(7)) gives neighbours of one size and one source as one buffer of up to 64 KiB; here
 * it is cut again, each datagram is looked at, and what it holds goes through the coalescer into
 * the device. The buffers stay as they are until the coalescer is flushed, at the end of the batch:
 * nothing is held for longer. A frame that was joined from pieces is copied once more, because the
 * next piece may overwrite it.
 *
 * Sources are checked here, too, where the socket is connected: what came before connect() is in
 * the queue. A VXLAN sender's port is a hash of the flow (RFC 7348 §5): only the address tells.
 */

#define MESSAGES 16
#define BUFFER_SIZE 65536
#define JOINED_SIZE 262144
#define MSEC 1000
#define ETHERNET_SIZE 14
#define IP_SIZE 20

typedef union Control {
	struct cmsghdr header;
	uint8_t space[CMSG_SPACE(sizeof(int))];
} Control;

struct EcReceive {
	EcCoalesce *coalesce;
	EcJoin *join;
	bool pending; /* pieces may wait for others */
	EcPace pace;
	uint64_t lost;   /* pieces that are counted */
	uint64_t now;    /* us, of this batch; 0: nobody needed it */
	size_t n_joined; /* bytes of `joined` in use */
	struct mmsghdr messages[MESSAGES];
	struct iovec pieces[MESSAGES];
	Control controls[MESSAGES];
	struct sockaddr_storage sources[MESSAGES];
	uint8_t joined[JOINED_SIZE];
	uint8_t buffers[MESSAGES][BUFFER_SIZE];
};

static void write_device(const struct virtio_net_hdr *v, const struct iovec *pieces, int n,
		unsigned frames, void *userdata);

EcReceive *ec_receive_new(EcWorker *w)
{
	EcReceive *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->join = ec_join_new();
	for (unsigned i = 0; i < MESSAGES; i++) {
		r->pieces[i] = (struct iovec){ .iov_base = r->buffers[i], .iov_len = BUFFER_SIZE };
		r->messages[i].msg_hdr.msg_iov = &r->pieces[i];
		r->messages[i].msg_hdr.msg_iovlen = 1;
		r->messages[i].msg_hdr.msg_name = &r->sources[i];
		r->messages[i].msg_hdr.msg_control = &r->controls[i];
	}
	return r->join ? r : ec_receive_free(r);
}

EcReceive *ec_receive_free(EcReceive *r)
{
	if (!r)
		return NULL;
	r->coalesce = ec_coalesce_free(r->coalesce);
	r->join = ec_join_free(r->join);
	free(r);
	return NULL;
}

int ec_receive_set_kind(EcWorker *w)
{
	w->receive->coalesce = ec_coalesce_new(w->ethernet, write_device, w);
	return w->receive->coalesce ? 0 : -ENOMEM;
}

void ec_receive_set_path(EcWorker *w)
{
	const size_t head = (size_t)w->path.overhead + w->format.size;
	const bool whole = w->statistics->offloads & EC_WORKER_COALESCE && w->path.mtu > head;

	ec_coalesce_set_room(w->receive->coalesce, whole ? w->path.mtu - head : 0);
}

/* The device */

static void stop_coalescing(EcWorker *w, int error)
{
	if (!(w->statistics->offloads & EC_WORKER_COALESCE))
		return;
	ec_set_bits(&w->statistics->offloads, EC_WORKER_COALESCE, 0);
	ec_receive_set_path(w);
	ec_connection_event(w, EC_WORKER_LACKS, error,
			"super-frames into the device: it does not take them: %s",
			strerror(-error));
}

static void write_device(const struct virtio_net_hdr *v, const struct iovec *pieces, int n,
		unsigned frames, void *userdata)
{
	EcWorker *w = userdata;
	EcWorkerStatistics *s = w->statistics;
	struct iovec all[EC_COALESCE_PIECES + 1];
	size_t bytes = 0;

	all[0] = (struct iovec){ .iov_base = (void *)v, .iov_len = sizeof(*v) };
	for (int i = 0; i < n; i++) {
		all[i + 1] = pieces[i];
		bytes += pieces[i].iov_len;
	}
	if (writev(w->device, all, n + 1) < 0) {
		if (errno == EBADFD)
			w->device_gone = true;
		if (errno == EINVAL && frames > 1)
			stop_coalescing(w, -errno);
		ec_count(&s->rx_dropped_device, frames);
		return;
	}
	ec_count(&s->device_writes, 1);
	ec_count(&s->rx_packets, frames);
	ec_count(&s->rx_bytes, bytes + (size_t)(frames - 1) * v->hdr_len);
	if (frames > 1)
		ec_count(&s->rx_coalesced, frames);
}

static void put_frame(EcWorker *w, const uint8_t *frame, size_t length)
{
	if (w->statistics->offloads & EC_WORKER_COALESCE)
		ec_coalesce_add(w->receive->coalesce, frame, length);
	else
		ec_coalesce_pass(w->receive->coalesce, frame, length);
}

static void flush(EcWorker *w)
{
	ec_coalesce_flush(w->receive->coalesce);
	w->receive->n_joined = 0;
}

/* Datagrams */

static uint64_t now_usec(void)
{
	struct timespec t;

	/* seccomp: clock_gettime */
	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static bool take_piece(EcWorker *w, const uint8_t *piece, size_t length)
{
	EcReceive *r = w->receive;
	const uint8_t *frame;
	size_t size;
	int n = -EBADMSG;

	if (!r->now)
		r->now = now_usec();
	if (w->configure.flags & EC_WORKER_JOIN)
		n = ec_join_add(r->join, piece, length, r->now, &frame, &size);
	if (n < 0) {
		ec_count(&w->statistics->rx_dropped_malformed, 1);
		return false;
	}
	r->pending = true;
	if (n == 0)
		return true;
	ec_count(&w->statistics->rx_joined, 1);
	if (r->n_joined + size > JOINED_SIZE)
		flush(w);
	if (size < (w->ethernet ? ETHERNET_SIZE : IP_SIZE)) {
		ec_count(&w->statistics->rx_dropped_malformed, 1);
		return false;
	}
	memcpy(r->joined + r->n_joined, frame, size);
	put_frame(w, r->joined + r->n_joined, size);
	r->n_joined += size;
	return true;
}

static void count_lost_pieces(EcWorker *w)
{
	EcReceive *r = w->receive;
	const uint64_t lost = r->now ? ec_join_lost(r->join, r->now) : r->lost;

	/* The counter may go back further than this process. */
	ec_count(&w->statistics->rx_dropped_pieces, lost - r->lost);
	r->lost = lost;
}

/* True if it is one of the peer's. */
static bool take(EcWorker *w, const uint8_t *data, size_t length)
{
	bool piece = false;
	const int r = ec_format_parse(&w->format, data, length, &piece);

	if (r < 0) {
		if (r == -ENOENT)
			ec_count(&w->statistics->rx_dropped_id, 1);
		else if (r != -ENODATA)
			ec_count(&w->statistics->rx_dropped_malformed, 1);
		return r == -ENODATA;
	}
	if (piece)
		return take_piece(w, data + r, length - (size_t)r);
	put_frame(w, data + r, length - (size_t)r);
	return true;
}

/* Sources */

static bool port_matters(const EcWorker *w)
{
	return w->format.format != EC_WORKER_VXLAN && ec_socket_port(&w->path.remote) != 0;
}

static bool is_remote(const EcWorker *w, const struct sockaddr_storage *source)
{
	const bool port = port_matters(w);

	return ec_socket_same(&w->path.remote, source, port) ||
	       ec_socket_same(&w->path.previous, source, port);
}

/* The source of something acceptable is where to send from now on. */
static bool follow(EcWorker *w, const struct sockaddr_storage *source)
{
	const uint16_t port = ec_socket_port(&w->path.remote);

	if (port && ec_socket_same(&w->path.remote, source, port_matters(w)))
		return false;
	w->path.remote = *source;
	w->path.remote_size = ec_socket_address_size(source->ss_family);
	if (w->format.format == EC_WORKER_VXLAN && port)
		ec_socket_set_port(&w->path.remote, port);
	w->path.can_send = ec_socket_port(&w->path.remote) != 0;
	return true;
}

static size_t segment_size(struct msghdr *h, size_t length)
{
	int size = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
		if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO)
			memcpy(&size, CMSG_DATA(c), sizeof(size));
	}
	return size > 0 ? (size_t)size : length;
}

/* A kernel's super-frame of UDP's that nobody cut comes whole, too, and with the size of its own
 * datagrams where UDP_GRO says that of ours: the length in its IP header tells which. */
static bool take_uncut(EcWorker *w, const uint8_t *data, size_t length, size_t size)
{
	bool piece = false;
	int r;

	if (!(w->statistics->offloads & EC_WORKER_DEVICE_USO))
		return false;
	r = ec_format_parse(&w->format, data, length, &piece);
	return r >= 0 && !piece &&
	       ec_coalesce_uncut(w->receive->coalesce, data + r, length - (size_t)r, size);
}

/* A buffer of datagrams from one source. True if that is another remote now. */
static bool take_message(EcWorker *w, unsigned i)
{
	EcReceive *r = w->receive;
	struct msghdr *h = &r->messages[i].msg_hdr;
	const size_t length = r->messages[i].msg_len, size = segment_size(h, length);
	const size_t n = size ? (length + size - 1) / size : 1;
	const bool roam = w->configure.flags & EC_WORKER_ROAM;
	bool good = false;

	ec_count(&w->statistics->rx_datagrams, n);
	if (!roam && !is_remote(w, &r->sources[i])) {
		ec_count(&w->statistics->rx_dropped_stranger, n);
		return false;
	}
	if (h->msg_flags & MSG_TRUNC) {
		ec_count(&w->statistics->rx_dropped_malformed, n);
		return false;
	}
	if (n > 1 && take_uncut(w, r->buffers[i], length, size))
		return (roam || !w->path.can_send) && follow(w, &r->sources[i]);
	for (size_t at = 0, k = 0; k < n; k++, at += size)
		good |= take(w, &r->buffers[i][at], length - at < size ? length - at : size);
	return good && (roam || !w->path.can_send) && follow(w, &r->sources[i]);
}

/* How many messages; *ret_empty: no more are there. */
static int receive(EcWorker *w, bool *ret_empty)
{
	EcReceive *r = w->receive;
	const unsigned limit = ec_pace_limit(&r->pace);
	int n;

	for (unsigned i = 0; i < limit; i++) {
		struct msghdr *h = &r->messages[i].msg_hdr;

		h->msg_namelen = sizeof(r->sources[i]);
		h->msg_controllen = sizeof(r->controls[i].space);
		h->msg_flags = 0;
	}
	/* seccomp: recvmmsg */
	n = recvmmsg(w->path.fd, r->messages, limit, MSG_DONTWAIT, NULL);
	*ret_empty = n < (int)limit;
	if (n > 0)
		ec_pace_came(&r->pace, (unsigned)n, MESSAGES);
	return n;
}

bool ec_receive(EcWorker *w)
{
	bool empty, moved = false;
	const int n = receive(w, &empty);

	/* Errors are those of datagrams that were sent, and taken away by this. */
	if (n <= 0)
		return false;
	w->receive->now = 0;
	ec_count(&w->statistics->rx_calls, 1);
	for (int i = 0; i < n; i++)
		moved |= take_message(w, (unsigned)i);
	flush(w);
	count_lost_pieces(w);
	if (empty)
		w->path.previous.ss_family = AF_UNSPEC;
	if (moved)
		ec_connection_event(w, EC_WORKER_PEER, 0, "%s", "");
	return true;
}

void ec_receive_errors(EcWorker *w)
{
	char buffer[1];
	struct iovec piece = { .iov_base = buffer, .iov_len = sizeof(buffer) };

	for (unsigned i = 0; i < 64; i++) {
		struct msghdr h = { .msg_iov = &piece, .msg_iovlen = 1 };

		/* seccomp: recvmsg */
		if (recvmsg(w->path.fd, &h, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
			return;
	}
}

/* Pieces */

int ec_receive_timeout(const EcWorker *w)
{
	return w->receive->pending ? (int)(EC_JOIN_USEC / MSEC) + 1 : -1;
}

void ec_receive_expire(EcWorker *w)
{
	w->receive->pending = false;
	w->receive->now = now_usec();
	count_lost_pieces(w);
}
