/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "batch.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "connection.h"
#include "socket.h"
#include "statistics.h"

/*
 * DOC: Theory of operation
 *
 * The kernel cuts a message with UDP_SEGMENT into datagrams as late as it can, in the device if
 * that is able: one walk through the stack for up to 64 datagrams. It wants them of one size, but
 * for the last, which may be shorter and ends the message.
 *
 * What it refuses (udp_send_skb(), net/ipv4/udp.c) differs between versions:
 *   EMSGSIZE, EINVAL  a segment is larger than the path's MTU, or the socket sends no checksums;
 *   EIO               the packets will be transformed (IPsec), or the device does no checksums.
 * The message is then sent datagram by datagram, which the kernel may fragment, and the size (all
 * sizes after EIO, or EINVAL where size cannot be the cause) is not tried again until the next
 * CONFIGURE.
 *
 * An error may also be an earlier datagram's, which came back as ICMP (udp(7), ip(7)): it tells
 * nothing of this message, so each message is tried once more before it is given up.
 */

#define ANY_PATH 576 /* bytes that cross every path (RFC 791 §3.2) */

typedef struct Message {
	uint32_t bytes; /* of UDP payload */
	uint32_t frame_bytes;
	uint16_t size;   /* of the first datagram */
	uint16_t count;  /* datagrams */
	uint16_t frames; /* that they complete */
	bool closed;     /* takes no more */
} Message;

typedef union Control {
	struct cmsghdr header;
	uint8_t space[CMSG_SPACE(sizeof(uint16_t))];
} Control;

struct EcBatch {
	unsigned n, n_pieces, sent;
	size_t taken; /* bytes of memory */
	/* Of the first message that is not sent yet */
	bool retried, single;
	unsigned cursor; /* single: datagrams of it that are done */
	struct mmsghdr headers[EC_BATCH_MESSAGES];
	Message messages[EC_BATCH_MESSAGES];
	Control controls[EC_BATCH_MESSAGES];
	struct iovec pieces[EC_BATCH_PIECES];
	uint8_t memory[EC_BATCH_MEMORY];
};

EcBatch *ec_batch_new(void)
{
	return calloc(1, sizeof(EcBatch));
}

EcBatch *ec_batch_free(EcBatch *b)
{
	free(b);
	return NULL;
}

bool ec_batch_fits(const EcBatch *b, unsigned datagrams, size_t bytes)
{
	return b->n + datagrams <= EC_BATCH_MESSAGES &&
	       b->n_pieces + datagrams <= EC_BATCH_PIECES && b->taken + bytes <= EC_BATCH_MEMORY;
}

uint8_t *ec_batch_take(EcBatch *b, size_t size)
{
	uint8_t *result = b->memory + b->taken;

	b->taken += size;
	return result;
}

static bool joins(const Message *m, const EcPath *path, const EcDatagram *d)
{
	return !m->closed && !d->alone && path->segmentation && d->size < path->segment_limit &&
	       d->size <= m->size && m->count < EC_BATCH_SEGMENTS &&
	       m->bytes + d->size <= EC_BATCH_BYTES;
}

static void set_segment_size(struct msghdr *h, Control *c, uint16_t size)
{
	h->msg_control = c;
	h->msg_controllen = sizeof(c->space);
	c->header.cmsg_level = IPPROTO_UDP;
	c->header.cmsg_type = UDP_SEGMENT;
	c->header.cmsg_len = CMSG_LEN(sizeof(uint16_t));
	memcpy(CMSG_DATA(&c->header), &size, sizeof(size));
}

/* Datagrams that lie one behind the other are one piece: the kernel copies large ones quicker. */
static void add_piece(EcBatch *b, struct msghdr *h, const EcDatagram *d)
{
	struct iovec *last = h->msg_iovlen ? &h->msg_iov[h->msg_iovlen - 1] : NULL;

	if (last && (const uint8_t *)last->iov_base + last->iov_len == d->start) {
		last->iov_len += d->size;
		return;
	}
	b->pieces[b->n_pieces++] =
			(struct iovec){ .iov_base = (void *)d->start, .iov_len = d->size };
	h->msg_iovlen++;
}

void ec_batch_add(EcBatch *b, const EcPath *path, const EcDatagram *d)
{
	Message *m = b->n ? &b->messages[b->n - 1] : NULL;
	struct msghdr *h;

	if (m && joins(m, path, d)) {
		h = &b->headers[b->n - 1].msg_hdr;
		if (m->count == 1)
			set_segment_size(h, &b->controls[b->n - 1], m->size);
	} else {
		m = &b->messages[b->n];
		*m = (Message){ .size = (uint16_t)d->size };
		m->closed = d->alone || d->size >= path->segment_limit;
		h = &b->headers[b->n++].msg_hdr;
		*h = (struct msghdr){ .msg_iov = b->pieces + b->n_pieces };
	}
	add_piece(b, h, d);
	m->count++;
	m->bytes += (uint32_t)d->size;
	m->frames = (uint16_t)(m->frames + d->frames);
	m->frame_bytes += (uint32_t)d->bytes;
	m->closed |= d->size < m->size;
}

static void count_sent(EcWorker *w, const Message *m)
{
	ec_count(&w->statistics->tx_datagrams, m->count);
	ec_count(&w->statistics->tx_packets, m->frames);
	ec_count(&w->statistics->tx_bytes, m->frame_bytes);
	w->path.gone = false;
}

static void next_message(EcBatch *b)
{
	b->sent++;
	b->retried = b->single = false;
	b->cursor = 0;
}

/* The kernel knows of a smaller MTU than the daemon. */
static void learn_mtu(EcPath *p)
{
	const unsigned mtu = p->connected ? ec_socket_path_mtu(p->fd, p->family) : 0;

	if (p->mtu && mtu && mtu < p->mtu)
		p->mtu = mtu;
}

/* No route leads through a device that was deleted: only the socket tells that from other causes.
 */
static void report_gone(EcWorker *w)
{
	if (w->path.gone || !ec_socket_is_lost(w->path.fd))
		return;
	w->path.gone = true;
	ec_connection_event(w, EC_WORKER_SOCKET, -ENODEV, "the socket's device is gone");
}

static void count_refused(EcWorker *w, unsigned frames, int error)
{
	if (error == -EMSGSIZE)
		learn_mtu(&w->path);
	ec_count(error == -EMSGSIZE ? &w->statistics->tx_dropped_size
				    : &w->statistics->tx_dropped_socket,
			frames);
	report_gone(w);
}

/* Whether its datagrams may be larger than the path carries whole. */
static bool may_be_size(const EcPath *p, const Message *m)
{
	const unsigned known = p->connected ? ec_socket_path_mtu(p->fd, p->family) : 0;

	return p->overhead + m->size > (known ? known : ANY_PATH);
}

static void lose_segmentation(EcWorker *w, const Message *m, int error)
{
	EcPath *p = &w->path;

	if (error == -EMSGSIZE || (error == -EINVAL && may_be_size(p, m))) {
		if (m->size < p->segment_limit)
			p->segment_limit = m->size;
		return;
	}
	if (p->segmentation)
		ec_connection_event(w, EC_WORKER_LACKS, error,
				"UDP_SEGMENT: the path does not do it: %s", strerror(-error));
	p->segmentation = false;
	ec_set_bits(&w->statistics->offloads, EC_WORKER_UDP_SEGMENT, 0);
}

/* The datagram at the cursor. All are of one size, but for the last; none is in two pieces. */
static struct iovec one_datagram(const EcBatch *b)
{
	const struct iovec *piece = b->headers[b->sent].msg_hdr.msg_iov;
	const Message *m = &b->messages[b->sent];
	size_t at = (size_t)b->cursor * m->size, rest = m->bytes - at;

	while (at >= piece->iov_len)
		at -= piece++->iov_len;
	return (struct iovec){ .iov_base = (uint8_t *)piece->iov_base + at,
		.iov_len = rest < m->size ? rest : m->size };
}

static int send_one_by_one(EcBatch *b, EcWorker *w)
{
	const Message *m = &b->messages[b->sent];
	EcWorkerStatistics *s = w->statistics;

	while (b->cursor < m->count) {
		struct iovec datagram = one_datagram(b);
		struct msghdr h = b->headers[b->sent].msg_hdr;
		/* Which of them complete a frame is not known any more: the last ones. */
		const unsigned frames = b->cursor >= (unsigned)m->count - m->frames;
		ssize_t sent;

		h.msg_iov = &datagram;
		h.msg_iovlen = 1;
		h.msg_control = NULL;
		h.msg_controllen = 0;
		/* seccomp: sendmsg */
		sent = sendmsg(w->path.fd, &h, MSG_DONTWAIT | MSG_NOSIGNAL);

		ec_count(&s->tx_calls, 1);
		if (sent < 0 && (errno == EAGAIN || errno == EINTR))
			return -EAGAIN;
		if (sent < 0 && !b->retried) {
			b->retried = true;
			continue;
		}
		if (sent >= 0) {
			ec_count(&s->tx_datagrams, 1);
			ec_count(&s->tx_packets, frames);
			ec_count(&s->tx_bytes, frames ? m->frame_bytes / m->frames : 0);
		} else {
			count_refused(w, frames, -errno);
		}
		b->retried = false;
		b->cursor++;
	}
	next_message(b);
	return 0;
}

/* The first message was refused. */
static void refused(EcBatch *b, EcWorker *w, int error)
{
	const Message *m = &b->messages[b->sent];

	if (!b->retried) {
		b->retried = true;
		return;
	}
	if (m->count > 1 && (error == -EMSGSIZE || error == -EINVAL || error == -EIO)) {
		lose_segmentation(w, m, error);
		b->single = true;
		b->retried = false;
		return;
	}
	count_refused(w, m->frames, error);
	next_message(b);
}

static void set_names(EcBatch *b, EcPath *p)
{
	for (unsigned i = b->sent; i < b->n; i++) {
		b->headers[i].msg_hdr.msg_name = p->connected ? NULL : &p->remote;
		b->headers[i].msg_hdr.msg_namelen = p->connected ? 0 : p->remote_size;
	}
}

/* As sendmmsg(), which takes longer for a single one. */
static int send_messages(int fd, struct mmsghdr *messages, unsigned n)
{
	const int flags = MSG_DONTWAIT | MSG_NOSIGNAL;

	if (n == 1)
		return sendmsg(fd, &messages->msg_hdr, flags) < 0 ? -1 : 1;
	/* seccomp: sendmmsg */
	return sendmmsg(fd, messages, n, flags);
}

int ec_batch_send(EcBatch *b, EcWorker *w)
{
	set_names(b, &w->path);
	while (b->sent < b->n) {
		int n;

		if (b->single) {
			if (send_one_by_one(b, w) < 0)
				return -EAGAIN;
			continue;
		}
		n = send_messages(w->path.fd, b->headers + b->sent, b->n - b->sent);
		ec_count(&w->statistics->tx_calls, 1);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return -EAGAIN;
		if (n < 0)
			refused(b, w, -errno);
		for (int i = 0; i < n; i++) {
			count_sent(w, &b->messages[b->sent]);
			next_message(b);
		}
	}
	b->n = b->n_pieces = b->sent = 0;
	b->taken = 0;
	return 0;
}
