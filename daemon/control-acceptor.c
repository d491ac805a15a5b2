/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control-acceptor.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * DOC: Theory of operation
 *
 * One socket listens on [::] for both families; where the kernel has no IPv6, on 0.0.0.0. Each turn
 * of the loop accepts a bounded number of connections.
 *
 * A connection is pending until its first message, then it is the callee's. Before anything is
 * allocated come admit() and the limits. When all places are taken, the source that has the most
 * gives up its newest one for a newcomer that has fewer: a flood from a few addresses keeps nobody
 * out. Within one source, and among equals, the newest is refused: who is in the middle of a
 * handshake gets through it.
 *
 * Without file descriptors (EMFILE, ENFILE) or memory listening pauses for a moment: the kernel
 * keeps those who wait, and the level-triggered socket does not spin.
 */

#define BACKLOG 1024 /* the kernel takes no more than net.core.somaxconn */
#define ACCEPTS_PER_TURN 64
#define PAUSE_USEC 100000ULL

/* What is counted: an IPv4 address or an IPv6 /64. Shared by its pending connections. */
typedef struct Source {
	EcAddress address;
	unsigned n;
} Source;

typedef struct Pending {
	EcAcceptor *acceptor;
	EcChannel *channel;
	Source *source;
} Pending;

struct EcAcceptor {
	sd_event *event;
	const EcAcceptorOps *ops;
	void *userdata;
	int fd;
	uint16_t port;
	sd_event_source *io, *resume;
	GPtrArray *pending; /* Pending, oldest first */
	EcAcceptorCounts counts;
	unsigned busy;
	bool freed;
};

static EcAddress source_of(const EcAddress *a)
{
	EcAddress source = *a;

	if (source.family == AF_INET6)
		memset(source.bytes + 8, 0, 8);
	return source;
}

static void forget(Pending *p)
{
	(void)g_ptr_array_remove(p->acceptor->pending, p);
	if (--p->source->n == 0)
		g_free(p->source);
	g_free(p);
}

static void drop(Pending *p)
{
	EcChannel *c = p->channel;

	forget(p);
	(void)ec_channel_free(c);
}

static void destroy(EcAcceptor *a)
{
	for (guint i = a->pending->len; i-- > 0;)
		drop(g_ptr_array_index(a->pending, i));
	g_ptr_array_unref(a->pending);
	(void)sd_event_source_disable_unref(a->io);
	(void)sd_event_source_disable_unref(a->resume);
	(void)sd_event_unref(a->event);
	if (a->fd >= 0)
		(void)close(a->fd);
	g_free(a);
}

/* Ops of the owner may free the acceptor. */
static void enter(EcAcceptor *a)
{
	a->busy++;
}

static void leave(EcAcceptor *a)
{
	if (--a->busy == 0 && a->freed)
		destroy(a);
}

static Source *find_source(const EcAcceptor *a, const EcAddress *address)
{
	for (guint i = 0; i < a->pending->len; i++) {
		const Pending *p = g_ptr_array_index(a->pending, i);

		if (ec_address_equal(&p->source->address, address))
			return p->source;
	}
	return NULL;
}

/* The newest connection of the source that has the most, when that has more than one above `n`. */
static Pending *find_victim(const EcAcceptor *a, unsigned n)
{
	Pending *victim = NULL;
	unsigned most = n + 1;

	for (guint i = a->pending->len; i-- > 0;) {
		Pending *p = g_ptr_array_index(a->pending, i);

		if (p->source->n > most) {
			most = p->source->n;
			victim = p;
		}
	}
	return victim;
}

static bool make_room(EcAcceptor *a, unsigned n)
{
	if (n >= EC_ACCEPTOR_PENDING_PER_SOURCE)
		return false;
	if (a->pending->len < EC_ACCEPTOR_PENDING_MAX)
		return true;
	Pending *victim = find_victim(a, n);
	if (!victim)
		return false;
	drop(victim);
	a->counts.refused++;
	return true;
}

static bool on_key(EcChannel *c, const char *identity, uint8_t ret[static EC_CHANNEL_KEY_SIZE],
		void *userdata)
{
	Pending *p = userdata;
	EcAcceptor *a = p->acceptor;

	enter(a);
	bool known = a->ops->key(a, c, identity, ret, a->userdata) && !a->freed;
	leave(a);
	return known;
}

static void on_opened(EcChannel *c, void *userdata)
{
	Pending *p = userdata;
	EcAcceptor *a = p->acceptor;
	EcControlMessage m = { .type = EC_CONTROL_WELCOME };

	enter(a);
	bool welcome = a->ops->welcome(a, c, &m, a->userdata);
	if (!a->freed && welcome) {
		ec_channel_send(c, &m);
	} else if (!a->freed) {
		a->counts.refused++;
		drop(p);
	}
	leave(a);
}

static void on_message(EcChannel *c, const EcControlMessage *m, void *userdata)
{
	Pending *p = userdata;
	EcAcceptor *a = p->acceptor;

	enter(a);
	forget(p);
	a->ops->greeted(a, c, m, a->userdata);
	leave(a);
}

static void on_closed(EcChannel *c, const sd_bus_error *why, void *userdata)
{
	Pending *p = userdata;

	p->acceptor->counts.failed++;
	drop(p);
}

static const EcChannelOps channel_ops = {
	.key = on_key,
	.opened = on_opened,
	.message = on_message,
	.closed = on_closed,
};

static EcAddress remote_of(int fd)
{
	struct sockaddr_storage s = { 0 };
	socklen_t n = sizeof(s);
	EcAddress a = { 0 };
	uint16_t port;

	if (getpeername(fd, (struct sockaddr *)&s, &n) == 0)
		a = ec_channel_address(&s, &port);
	return a;
}

static int add_pending(EcAcceptor *a, int fd, Source *source, const EcAddress *address)
{
	Pending *p = g_new0(Pending, 1);

	p->acceptor = a;
	int r = ec_channel_accept(a->event, fd, &channel_ops, p, &p->channel);
	if (r < 0) {
		g_free(p);
		return r;
	}
	if (!source) {
		source = g_new0(Source, 1);
		source->address = *address;
	}
	source->n++;
	p->source = source;
	g_ptr_array_add(a->pending, p);
	return 0;
}

static void take(EcAcceptor *a, int fd)
{
	EcAddress from = remote_of(fd);
	EcAddress address = source_of(&from);
	/* No family: it has gone already. */
	bool admitted = from.family != AF_UNSPEC && a->ops->admit(a, &from, a->userdata) &&
			!a->freed;
	Source *source = admitted ? find_source(a, &address) : NULL;

	if (!admitted || !make_room(a, source ? source->n : 0)) {
		a->counts.refused++;
		(void)close(fd);
	} else if (add_pending(a, fd, source, &address) < 0) {
		a->counts.failed++;
	} else {
		a->counts.accepted++;
	}
}

static void pause_listening(EcAcceptor *a)
{
	(void)sd_event_source_set_enabled(a->io, SD_EVENT_OFF);
	(void)sd_event_source_set_time_relative(a->resume, PAUSE_USEC);
	(void)sd_event_source_set_enabled(a->resume, SD_EVENT_ONESHOT);
}

static int on_resume(sd_event_source *s, uint64_t usec, void *userdata)
{
	EcAcceptor *a = userdata;

	(void)sd_event_source_set_enabled(a->io, SD_EVENT_ON);
	return 0;
}

static int on_connection(sd_event_source *s, int listening, uint32_t revents, void *userdata)
{
	EcAcceptor *a = userdata;

	enter(a);
	for (int i = 0; i < ACCEPTS_PER_TURN && !a->freed; i++) {
		int fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			take(a, fd);
			continue;
		}
		if (errno == EAGAIN)
			break;
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			pause_listening(a);
			break;
		}
		/* The errors of one connection that is gone already (accept(2)): the next. */
	}
	leave(a);
	return 0;
}

static int listen_on(int family, uint16_t port)
{
	const int on = 1, off = 0;
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	const struct sockaddr *s = family == AF_INET ? (void *)&v4 : (void *)&v6;

	int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if ((family == AF_INET6 &&
			    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) < 0) ||
			bind(fd, s, family == AF_INET ? sizeof(v4) : sizeof(v6)) < 0 ||
			listen(fd, BACKLOG) < 0) {
		int r = -errno;

		(void)close(fd);
		return r;
	}
	return fd;
}

static int add_sources(EcAcceptor *a)
{
	struct sockaddr_storage s = { 0 };
	socklen_t n = sizeof(s);

	if (getsockname(a->fd, (struct sockaddr *)&s, &n) < 0)
		return -errno;
	(void)ec_channel_address(&s, &a->port);
	int r = sd_event_add_io(a->event, &a->io, a->fd, EPOLLIN, on_connection, a);
	if (r >= 0)
		r = sd_event_add_time_relative(
				a->event, &a->resume, CLOCK_BOOTTIME, PAUSE_USEC, 1, on_resume, a);
	if (r >= 0)
		r = sd_event_source_set_enabled(a->resume, SD_EVENT_OFF);
	return r;
}

int ec_acceptor_new(sd_event *event, uint16_t port, const EcAcceptorOps *ops, void *userdata,
		EcAcceptor **ret, sd_bus_error *ret_error)
{
	EcAcceptor *a = g_new0(EcAcceptor, 1);

	a->event = sd_event_ref(event);
	a->ops = ops;
	a->userdata = userdata;
	a->pending = g_ptr_array_new();
	a->fd = listen_on(AF_INET6, port);
	if (a->fd == -EAFNOSUPPORT || a->fd == -EADDRNOTAVAIL)
		a->fd = listen_on(AF_INET, port);
	int r = a->fd < 0 ? a->fd : add_sources(a);
	if (r < 0) {
		(void)ec_error(ret_error, EC_ERROR_KERNEL, "cannot listen on TCP port %u: %s", port,
				g_strerror(-r));
		destroy(a);
		return r;
	}
	*ret = a;
	return 0;
}

EcAcceptor *ec_acceptor_free(EcAcceptor *a)
{
	if (!a || a->freed)
		return NULL;
	a->freed = true;
	/* Free for the next one at once, whoever is still on the stack. */
	a->io = sd_event_source_disable_unref(a->io);
	(void)close(a->fd);
	a->fd = -1;
	if (a->busy == 0)
		destroy(a);
	return NULL;
}

uint16_t ec_acceptor_port(const EcAcceptor *a)
{
	return a->port;
}

EcAcceptorCounts ec_acceptor_counts(const EcAcceptor *a)
{
	EcAcceptorCounts counts = a->counts;

	counts.pending = a->pending->len;
	return counts;
}
