/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "connection.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "device.h"
#include "receive.h"
#include "sandbox.h"
#include "segment.h"
#include "socket.h"
#include "statistics.h"
#include "transmit.h"

/*
 * DOC: Theory of operation
 *
 * Requests are done one by one, wholly or not at all: all that can fail comes before the first
 * change. A socket that takes the place of another one is connected first; then what the old one
 * still holds is passed on.
 *
 * A connected UDP socket is never disconnected: that would also undo its SO_BINDTODEVICE
 * (__udp_disconnect(), net/ipv4/udp.c), and packets would leave outside the VPN.
 */

#define FDS_MAX 4
#define DRAIN_MAX 64 /* batches of the old socket */
#define ELEMENTS(a) (sizeof(a) / sizeof((a)[0]))

typedef union Request {
	uint32_t type;
	EcWorkerStart start;
	EcWorkerConfigure configure;
} Request;

typedef struct Fds {
	int fd[FDS_MAX];
	unsigned n;
} Fds;

typedef union Control {
	struct cmsghdr header;
	uint8_t space[CMSG_SPACE(FDS_MAX * sizeof(int))];
} Control;

static void drop(EcWorker *w)
{
	if (w->control >= 0)
		(void)close(w->control);
	w->control = -1;
	/* Nobody can come any more. */
	if (w->listener < 0) {
		w->status = EXIT_FAILURE;
		w->stop = true;
	}
}

/* Somebody who does not read must not hold us up: is then served anew. */
static void put(EcWorker *w, const void *data, size_t size, const int *fds, unsigned n)
{
	Control c = { 0 };
	struct iovec piece = { .iov_base = (void *)data, .iov_len = size };
	struct msghdr h = { .msg_iov = &piece, .msg_iovlen = 1 };

	if (w->control < 0)
		return;
	if (n) {
		h.msg_control = &c;
		h.msg_controllen = CMSG_SPACE(n * sizeof(int));
		c.header.cmsg_level = SOL_SOCKET;
		c.header.cmsg_type = SCM_RIGHTS;
		c.header.cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(&c.header), fds, n * sizeof(int));
	}
	/* One that is gone may have left a last word, STOP: that is read first. */
	if (sendmsg(w->control, &h, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EPIPE &&
			errno != ECONNRESET)
		drop(w);
}

void ec_connection_event(EcWorker *w, EcWorkerEventKind kind, int error, const char *format, ...)
{
	EcWorkerEvent e = { .type = EC_WORKER_EVENT, .kind = kind, .error = error };
	va_list ap;

	if (kind == EC_WORKER_PEER)
		e.remote = w->path.remote;
	va_start(ap, format);
	(void)vsnprintf(e.text, sizeof(e.text), format, ap);
	va_end(ap);
	put(w, &e, sizeof(e), NULL, 0);
}

static void done(EcWorker *w, uint32_t serial, int error, const char *text)
{
	EcWorkerDone d = { .type = EC_WORKER_DONE, .serial = serial, .error = error };

	if (error)
		(void)snprintf(d.text, sizeof(d.text), "%s%s%s", text, *text ? ": " : "",
				strerror(-error));
	put(w, &d, sizeof(d), NULL, 0);
}

static void lacks(EcWorker *w, uint32_t offloads)
{
	static const struct {
		uint32_t bit;
		const char *text;
	} names[] = {
		{ EC_WORKER_DEVICE_CSUM, "the device leaves no checksums to us (TUN_F_CSUM)" },
		{ EC_WORKER_DEVICE_TSO, "the device gives no TCP super-frames (TUN_F_TSO4, 6)" },
		{ EC_WORKER_DEVICE_USO,
				"the device gives no UDP super-frames (TUN_F_USO4, 6: Linux 6.2)" },
		{ EC_WORKER_UDP_SEGMENT, "UDP_SEGMENT: the kernel does not have it (Linux 4.18)" },
		{ EC_WORKER_UDP_GRO, "UDP_GRO: the kernel does not have it (Linux 5.0)" },
	};

	for (size_t i = 0; i < ELEMENTS(names); i++) {
		if (names[i].bit & ~offloads)
			ec_connection_event(w, EC_WORKER_LACKS, 0, "%s", names[i].text);
	}
}

/* START */

static int map_statistics(int fd, EcWorkerStatistics **ret, const char **ret_text)
{
	struct stat st;
	void *memory;

	*ret_text = "the memory is not of the statistics' size";
	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size < (off_t)sizeof(EcWorkerStatistics))
		return -EINVAL;
	*ret_text = "cannot map the memory";
	memory = mmap(NULL, sizeof(EcWorkerStatistics), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		return -errno;
	*ret = memory;
	return 0;
}

static int check_listener(int fd, const char **ret_text)
{
	int listens = 0;
	socklen_t size = sizeof(listens);

	*ret_text = "the listener is no listening socket";
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0)
		return -errno;
	return listens ? 0 : -EINVAL;
}

static int start_up(EcWorker *w, const EcWorkerStart *s, const Fds *f, const char **ret_text)
{
	EcFormat format;
	EcWorkerStatistics *statistics = NULL;
	int r;

	*ret_text = "the tunnel's name";
	if (!memchr(s->name, '\0', sizeof(s->name)))
		return -EINVAL;
	*ret_text = "another protocol than ours is spoken";
	if (s->version != EC_WORKER_PROTOCOL)
		return -EPROTO;
	*ret_text = "the format is not known";
	r = ec_format_init(&format, (EcWorkerFormat)s->format, 0, false);
	if (r < 0)
		return r;
	r = check_listener(f->fd[0], ret_text);
	if (r < 0)
		return r;
	r = ec_device_prepare(f->fd[1], format.ethernet, ret_text);
	if (r < 0)
		return r;
	r = map_statistics(f->fd[2], &statistics, ret_text);
	if (r < 0)
		return r;
	w->format = format;
	w->ethernet = format.ethernet;
	w->statistics = statistics;
	memcpy(w->name, s->name, sizeof(w->name));
	*ret_text = "memory";
	return ec_receive_set_kind(w);
}

static void start(EcWorker *w, const EcWorkerStart *s, Fds *f)
{
	const char *text = "START comes once, with three descriptors";
	uint32_t offloads;
	int r = w->started || f->n != 3 ? -EINVAL : start_up(w, s, f, &text);

	if (r < 0) {
		done(w, s->serial, r, text);
		return;
	}
	w->listener = f->fd[0];
	w->device = f->fd[1];
	w->memory = f->fd[2];
	f->n = 0;
	offloads = ec_device_offloads(w->device);
	/* UDP's are known when there is a socket. */
	lacks(w, offloads | EC_WORKER_UDP_SEGMENT | EC_WORKER_UDP_GRO);
	if (offloads & EC_WORKER_DEVICE_TSO)
		offloads |= EC_WORKER_COALESCE;
	ec_set_bits(&w->statistics->offloads, UINT32_MAX, offloads);
	w->statistics->version = EC_WORKER_PROTOCOL;
	w->started = true;
	r = ec_worker_watch(w, EC_SOURCE_LISTENER, w->listener, EPOLLIN);
	/* Not to read it yet; but whoever does not wait for what its queue wakes with would not
	 * hear that it was deleted either. */
	if (r == 0)
		r = ec_worker_watch(w, EC_SOURCE_DEVICE, w->device, EPOLLPRI);
	text = "cannot wait for events";
	if (r == 0)
		r = ec_sandbox(&text);
	done(w, s->serial, r, text);
	/* Half locked up is no state to be in. */
	if (r < 0) {
		w->status = EXIT_FAILURE;
		w->stop = true;
	}
}

/* CONFIGURE */

/* A connected socket that this fails for sends to the new remote nevertheless, or to none: what a
 * flow starts with is not put back (__ip4_datagram_connect(), net/ipv4/datagram.c). */
static int connect_path(const EcPath *p)
{
	struct sockaddr_storage to = p->remote;

	/* Where any port will do, as of a kernel's VXLAN, the kernel still tells this worker's
	 * packets from those of others at the same port, by the address. */
	if (!p->connected)
		ec_socket_set_port(&to, 0);
	/* seccomp: connect */
	return connect(p->fd, (const struct sockaddr *)&to, p->remote_size) < 0 ? -errno : 0;
}

/* The outer side as it is to be: 0 and *ret; nothing is changed but a new socket. */
static int plan_path(const EcWorker *w, const EcWorkerConfigure *c, int fd, EcPath *ret,
		const char **ret_text)
{
	const bool vxlan = w->format.format == EC_WORKER_VXLAN;
	EcPath p = { .fd = fd >= 0 ? fd : w->path.fd, .mtu = c->path_mtu };
	bool same;
	int r;

	*ret_text = "there is no socket yet";
	if (p.fd < 0)
		return -ENOTCONN;
	*ret_text = "that is no UDP socket";
	r = ec_socket_check(p.fd, &p.family);
	if (r < 0)
		return r;
	*ret_text = "the remote is of another address family than the socket";
	if (c->remote.ss_family != AF_UNSPEC && c->remote.ss_family != p.family)
		return -EAFNOSUPPORT;
	p.remote = c->remote;
	p.remote_size = ec_socket_address_size(c->remote.ss_family);
	p.overhead = (p.family == AF_INET ? 20 : 40) + 8;
	p.segment_limit = UINT32_MAX;
	p.can_send = ec_socket_port(&p.remote) != 0;
	p.addressed = p.remote_size > 0 && !(c->flags & EC_WORKER_ROAM);
	p.connected = p.addressed && p.can_send && !vxlan;
	same = fd < 0 && w->path.addressed;
	*ret_text = "the socket is connected and cannot be undone: a new one is needed";
	if (same && !p.addressed)
		return -EISCONN;
	*ret_text = "cannot connect the socket to the remote";
	r = p.addressed ? connect_path(&p) : 0;
	if (r < 0 && same)
		(void)connect_path(&w->path);
	if (r < 0)
		return r;
	*ret = p;
	return 0;
}

/* With ROAM, or without a port, what was learned stays, unless the daemon names somebody else than
 * before. */
static void keep_learned(const EcWorker *w, const EcWorkerConfigure *c, EcPath *p)
{
	if (!w->configure.type || p->connected || p->family != w->path.family ||
			!w->path.can_send ||
			memcmp(&w->configure.remote, &c->remote, sizeof(c->remote)) != 0)
		return;
	if (!(c->flags & EC_WORKER_ROAM) && p->can_send)
		return;
	p->remote = w->path.remote;
	p->remote_size = w->path.remote_size;
	p->can_send = true;
}

static void change_socket(EcWorker *w, const EcPath *p)
{
	const uint32_t mask = EC_WORKER_UDP_SEGMENT | EC_WORKER_UDP_GRO;
	const uint32_t offloads = ec_socket_offloads(p->fd);
	const int old = w->path.fd;
	struct sockaddr_storage previous = { 0 };

	if (p->fd != old) {
		for (unsigned i = 0; old >= 0 && i < DRAIN_MAX && ec_receive(w); i++)
			;
		if (old >= 0)
			(void)close(old);
		(void)ec_worker_watch(w, EC_SOURCE_SOCKET, p->fd, ec_transmit_events(w));
		lacks(w, offloads | ~mask);
	} else {
		previous = w->path.remote;
	}
	w->path = *p;
	w->path.previous = previous;
	w->path.segmentation = offloads & EC_WORKER_UDP_SEGMENT;
	ec_set_bits(&w->statistics->offloads, mask, offloads);
}

static int configure_all(EcWorker *w, const EcWorkerConfigure *c, Fds *f, const char **ret_text)
{
	const uint32_t known = EC_WORKER_ROAM | EC_WORKER_SEQUENCE | EC_WORKER_SPLIT |
			       EC_WORKER_JOIN | EC_WORKER_TOO_BIG | EC_WORKER_FRAGMENT;
	EcFormat format;
	EcPath path = { .fd = -1 };
	int r;

	*ret_text = "CONFIGURE comes after START, with one descriptor at most";
	if (!w->started || f->n > 1)
		return -EINVAL;
	*ret_text = "a flag is not known";
	if (c->flags & ~known)
		return -EINVAL;
	*ret_text = "the remote is no address";
	if (c->remote.ss_family != AF_UNSPEC && !ec_socket_address_size(c->remote.ss_family))
		return -EAFNOSUPPORT;
	*ret_text = "the id does not fit the format";
	r = ec_format_init(&format, w->format.format, c->id, c->flags & EC_WORKER_SEQUENCE);
	if (r < 0)
		return r;
	format.joins = c->flags & EC_WORKER_JOIN;
	r = plan_path(w, c, f->n ? f->fd[0] : -1, &path, ret_text);
	if (r < 0)
		return r;
	f->n = 0;
	keep_learned(w, c, &path);
	change_socket(w, &path);
	/* What waits in the device since a worker before us ended has somewhere to go now. */
	if (!w->configure.type)
		(void)ec_worker_rewatch(w, EC_SOURCE_DEVICE, w->device, EPOLLIN);
	w->format = format;
	w->configure = *c;
	ec_receive_set_path(w);
	return 0;
}

static void configure(EcWorker *w, const EcWorkerConfigure *c, Fds *f)
{
	const char *text = "";
	const int r = configure_all(w, c, f, &text);

	done(w, c->serial, r, text);
}

/* Packets */

static void stop(EcWorker *w)
{
	w->stop = true;
	w->status = EXIT_SUCCESS;
}

/* Its frame is split between the request and what followed. */
static void inject(EcWorker *w, const Request *q, size_t size, const uint8_t *rest)
{
	const size_t head = size < sizeof(*q) ? size : sizeof(*q), skip = sizeof(q->type);
	uint8_t *place = w->started ? ec_transmit_place(w) : NULL;

	if (!place || size <= skip)
		return;
	memcpy(place, (const uint8_t *)q + skip, head - skip);
	memcpy(place + head - skip, rest, size - head);
	ec_transmit_placed(w, size - skip);
}

static void handle(EcWorker *w, const Request *q, size_t size, Fds *f)
{
	if (size == sizeof(q->start) && q->type == EC_WORKER_START)
		start(w, &q->start, f);
	else if (size == sizeof(q->configure) && q->type == EC_WORKER_CONFIGURE)
		configure(w, &q->configure, f);
	else if (size >= sizeof(q->type) && q->type == EC_WORKER_STOP && f->n == 0)
		stop(w);
	else if (size == sizeof(q->type) && q->type == EC_WORKER_ASK && f->n == 0)
		ec_connection_event(w, EC_WORKER_HERE, 0, "%s", "");
	else
		done(w, 0, -EBADMSG, "no request that is known");
}

static void take_fds(struct msghdr *h, Fds *f)
{
	f->n = 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		f->n = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(f->fd, CMSG_DATA(c), f->n * sizeof(int));
	}
}

void ec_connection_read(EcWorker *w)
{
	Request q = { 0 };
	Control c = { 0 };
	Fds f = { 0 };
	static uint8_t rest[EC_FRAME_MAX];
	struct iovec pieces[] = { { .iov_base = &q, .iov_len = sizeof(q) },
		{ .iov_base = rest, .iov_len = sizeof(rest) } };
	struct msghdr h = {
		.msg_iov = pieces,
		.msg_iovlen = ELEMENTS(pieces),
		.msg_control = &c,
		.msg_controllen = sizeof(c.space),
	};
	const ssize_t n = recvmsg(w->control, &h, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	/* RESET: our answer was not read. What was sent before is still there, and then an end. */
	if (n < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNRESET))
		return;
	if (n <= 0) {
		drop(w);
		return;
	}
	take_fds(&h, &f);
	const bool whole = !(h.msg_flags & (MSG_TRUNC | MSG_CTRUNC));

	if (whole && q.type == EC_WORKER_INJECT && f.n == 0)
		inject(w, &q, (size_t)n, rest);
	else if (!whole || n > (ssize_t)sizeof(q))
		done(w, 0, -EBADMSG, "a request with too much in it");
	else
		handle(w, &q, (size_t)n, &f);
	/* Those that nobody took. */
	for (unsigned i = 0; i < f.n; i++)
		(void)close(f.fd[i]);
}

void ec_connection_accept(EcWorker *w)
{
	EcWorkerHello hello = {
		.type = EC_WORKER_HELLO,
		.version = EC_WORKER_PROTOCOL,
		.format = w->format.format,
		.pid = (uint32_t)getpid(), /* seccomp: getpid */
		.configure = w->configure,
	};
	const int fds[] = { w->device, w->memory, w->path.fd };
	/* seccomp: accept4 */
	const int fd = accept4(w->listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		return;
	if (w->control >= 0)
		(void)close(w->control);
	w->control = fd;
	if (ec_worker_watch(w, EC_SOURCE_CONTROL, fd, EPOLLIN) < 0) {
		drop(w);
		return;
	}
	memcpy(hello.name, w->name, sizeof(hello.name));
	if (w->configure.type && w->path.can_send)
		hello.configure.remote = w->path.remote;
	put(w, &hello, sizeof(hello), fds, w->path.fd >= 0 ? 3 : 2);
}
