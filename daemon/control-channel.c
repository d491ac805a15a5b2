/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control-channel.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control-tls.h"

/*
 * DOC: Theory of operation
 *
 *   dialer    CONNECTING --TCP--> HANDSHAKE --server's Finished--> OPEN ----+
 *   acceptor                      HANDSHAKE --client's Finished--> OPEN ----+--> CLOSED
 *
 * Both ends run TLS 1.3 with an external PSK and (EC)DHE; control-tls.c says how. At the acceptor
 * opened() comes in the middle of the handshake: the dialer's binder has shown that whoever made
 * the ClientHello has the key, and what the owner sends there (WELCOME) travels in the
 * EncryptedExtensions of the acceptor's one flight, half a round trip before anything else could.
 * A ClientHello that somebody recorded and sends again gets as far as that - an answer encrypted to
 * a key that he lacks - and no further: OPEN, and with it proven and message(), needs the Finished.
 * The dialer looks at what came in that flight when it has verified the acceptor's Finished.
 *
 * Messages are a stream of length + body, whatever the records' boundaries are. At most one message
 * is kept each way in: its buffer grows as bytes arrive. Each turn of the loop takes a bounded
 * number of reads, so that one busy peer does not keep the others waiting; what GnuTLS has
 * decrypted already does not wake epoll, a deferred source does.
 *
 * Ops are called from event sources only (never from a call of the owner) and may free the channel:
 * then the struct lives until the stack has unwound (busy), and the TLS session until GnuTLS is no
 * longer on it (in_tls). After every op comes a look at freed.
 *
 * Bytes that are no TLS, or a ClientHello without a PSK, are answered by closing. A ClientHello
 * with a PSK that does not fit is answered by an alert, 7 bytes, so that its sender can say "wrong
 * key".
 */

#define QUEUE_MAX ((size_t)256 * 1024)
#define READS_PER_TURN 64
#define BODY_STEP 1024u
#define CONNECT_SECONDS 5
#define USER_TIMEOUT_MS 10000u

typedef enum State {
	CONNECTING,
	HANDSHAKE,
	OPEN,
	CLOSED,
} State;

struct EcChannel {
	EcTls tls; /* first: EcTls knows no channels */
	const EcChannelOps *ops;
	void *userdata;
	sd_event_source *io, *timer, *later;
	int fd;
	State state;
	bool opened, freed, in_tls, blocked;
	unsigned busy;
	EcAddress remote, local;
	uint16_t port;
	int error;            /* errno of the connection's end, 0: none */
	sd_bus_error failure; /* to be told by closed() as soon as possible */

	uint8_t header[4];
	size_t n_header;
	uint8_t *body;
	size_t length, n_body, body_size;

	GByteArray *out;
	size_t out_done;
};

const uint8_t ec_channel_keyless_key[EC_CHANNEL_KEY_SIZE] = "ethercord: keyless, no secret :)";

EcAddress ec_channel_address(const struct sockaddr_storage *s, uint16_t *ret_port)
{
	const struct sockaddr_in *v4 = (const void *)s;
	const struct sockaddr_in6 *v6 = (const void *)s;
	EcAddress a = { 0 };

	if (s->ss_family == AF_INET) {
		a.family = AF_INET;
		a.v4 = v4->sin_addr;
		*ret_port = ntohs(v4->sin_port);
	} else if (s->ss_family == AF_INET6) {
		*ret_port = ntohs(v6->sin6_port);
		if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
			a.family = AF_INET;
			memcpy(a.bytes, v6->sin6_addr.s6_addr + 12, 4);
		} else {
			a.family = AF_INET6;
			a.v6 = v6->sin6_addr;
		}
	}
	return a;
}

static socklen_t to_sockaddr(
		const EcAddress *a, uint16_t port, unsigned scope, struct sockaddr_storage *ret)
{
	struct sockaddr_in *v4 = (void *)ret;
	struct sockaddr_in6 *v6 = (void *)ret;

	memset(ret, 0, sizeof(*ret));
	if (a->family == AF_INET) {
		v4->sin_family = AF_INET;
		v4->sin_addr = a->v4;
		v4->sin_port = htons(port);
		return sizeof(*v4);
	}
	v6->sin6_family = AF_INET6;
	v6->sin6_addr = a->v6;
	v6->sin6_port = htons(port);
	if (IN6_IS_ADDR_LINKLOCAL(&a->v6))
		v6->sin6_scope_id = scope;
	return sizeof(*v6);
}

static const char *who(const EcChannel *c, char buffer[static 64])
{
	char text[INET6_ADDRSTRLEN];

	(void)g_snprintf(buffer, 64, "%s port %u", ec_address_to_string(&c->remote, text), c->port);
	return buffer;
}

/* Everything but the struct itself. */
static void shut(EcChannel *c)
{
	c->state = CLOSED;
	c->io = sd_event_source_disable_unref(c->io);
	c->timer = sd_event_source_disable_unref(c->timer);
	c->later = sd_event_source_disable_unref(c->later);
	ec_tls_done(&c->tls);
	if (c->fd >= 0)
		(void)close(c->fd);
	c->fd = -1;
	g_clear_pointer(&c->body, g_free);
	g_clear_pointer(&c->out, g_byte_array_unref);
}

static void destroy(EcChannel *c)
{
	shut(c);
	sd_bus_error_free(&c->failure);
	g_free(c);
}

static void enter(EcChannel *c)
{
	c->busy++;
}

static void leave(EcChannel *c)
{
	if (--c->busy == 0 && c->freed)
		destroy(c);
}

/* The end. Whoever called this returns. */
static void close_with(EcChannel *c, const sd_bus_error *why)
{
	const EcChannelOps *ops = c->ops;

	if (c->freed || c->state == CLOSED)
		return;
	shut(c);
	if (ops->closed)
		ops->closed(c, why, c->userdata);
}

static void close_failed(EcChannel *c)
{
	g_auto(sd_bus_error) why = c->failure;

	c->failure = SD_BUS_ERROR_NULL;
	close_with(c, sd_bus_error_is_set(&why) ? &why : NULL);
}

/* --- out --- */

/* 0, or -errno with c->failure set. */
static int flush(EcChannel *c)
{
	char buffer[64];

	while (c->out && c->state == OPEN) {
		size_t left = c->out->len - c->out_done;
		/* A record that the socket did not take is GnuTLS's own: it is told to go on. */
		ssize_t n = c->blocked ? gnutls_record_send(c->tls.session, NULL, 0)
				       : gnutls_record_send(c->tls.session,
							 c->out->data + c->out_done, left);
		c->blocked = n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED;
		if (c->blocked)
			return 0;
		if (n < 0)
			return ec_error(&c->failure, EC_ERROR_PEER_UNREACHABLE,
					"the connection to %s broke: %s", who(c, buffer),
					c->tls.error ? g_strerror(c->tls.error)
						     : gnutls_strerror((int)n));
		c->out_done += (size_t)n;
		if (c->out_done == c->out->len) {
			g_clear_pointer(&c->out, g_byte_array_unref);
			c->out_done = 0;
		}
	}
	return 0;
}

static void refresh_events(EcChannel *c)
{
	uint32_t events = EPOLLIN;

	if (c->state == CONNECTING || (c->state == HANDSHAKE && ec_tls_wants_out(&c->tls)))
		events = EPOLLOUT;
	else if (c->state == OPEN && c->out)
		events |= EPOLLOUT;
	if (c->io)
		(void)sd_event_source_set_io_events(c->io, events);
}

static void soon(EcChannel *c)
{
	if (c->later)
		(void)sd_event_source_set_enabled(c->later, SD_EVENT_ONESHOT);
}

void ec_channel_send(EcChannel *c, const EcControlMessage *m)
{
	char buffer[64];

	if (c->freed || c->state == CLOSED || sd_bus_error_is_set(&c->failure))
		return;
	g_autoptr(GByteArray) bytes = ec_control_message_encode(m);
	if (!c->out)
		c->out = g_byte_array_new();
	if (c->out->len - c->out_done + bytes->len > QUEUE_MAX) {
		(void)ec_error(&c->failure, EC_ERROR_PEER_UNREACHABLE,
				"%s does not take what is sent to it", who(c, buffer));
		soon(c);
		return;
	}
	if (c->out_done > QUEUE_MAX) {
		g_byte_array_remove_range(c->out, 0, (guint)c->out_done);
		c->out_done = 0;
	}
	g_byte_array_append(c->out, bytes->data, bytes->len);
	/* Blocked: epoll says when there is room. */
	if (c->state != OPEN || c->in_tls || c->blocked)
		return;
	if (flush(c) < 0)
		soon(c);
	refresh_events(c);
}

/* --- in --- */

static void tell_opened(EcChannel *c)
{
	if (c->opened)
		return;
	c->opened = true;
	if (c->ops->opened)
		c->ops->opened(c, c->userdata);
}

/* Bytes of the stream: > 0, 0: none now, or -errno (c->failure is not set when the peer ended it in
 * order). */
static ssize_t read_some(EcChannel *c, uint8_t *to, size_t n)
{
	char buffer[64];

	if (c->tls.early)
		return (ssize_t)ec_tls_take_early(&c->tls, to, n);
	c->tls.error = 0;
	ssize_t r = gnutls_record_recv(c->tls.session, to, n);
	if (r > 0 || (r < 0 && !gnutls_error_is_fatal((int)r)))
		return MAX(r, 0);
	if (r == 0 && c->n_header == 0)
		return -ECONNRESET;
	c->error = c->tls.error ? c->tls.error : ECONNRESET;
	if (r == 0 || r == GNUTLS_E_PREMATURE_TERMINATION)
		return ec_error(&c->failure, EC_ERROR_PEER_UNREACHABLE,
				"%s closed the connection without saying so", who(c, buffer));
	if (c->tls.error)
		return ec_error(&c->failure, EC_ERROR_PEER_UNREACHABLE,
				"the connection to %s broke: %s", who(c, buffer),
				g_strerror(c->tls.error));
	return ec_error(&c->failure, EC_ERROR_PROTOCOL, "%s sent what is no TLS record: %s",
			who(c, buffer), gnutls_strerror((int)r));
}

static ssize_t read_header(EcChannel *c)
{
	ssize_t r = read_some(c, c->header + c->n_header, sizeof(c->header) - c->n_header);

	if (r <= 0)
		return r;
	c->n_header += (size_t)r;
	if (c->n_header < sizeof(c->header))
		return r;
	int length = ec_control_message_length(c->header, &c->failure);
	if (length < 0)
		return length;
	c->length = (size_t)length;
	c->n_body = 0;
	return r;
}

/* What was announced is only paid for as it arrives. */
static ssize_t read_body(EcChannel *c)
{
	if (c->n_body == c->body_size) {
		c->body_size = MIN(c->length, MAX(BODY_STEP, 2 * c->body_size));
		c->body = g_realloc(c->body, c->body_size);
	}
	ssize_t r = read_some(c, c->body + c->n_body, c->body_size - c->n_body);
	if (r > 0)
		c->n_body += (size_t)r;
	return r;
}

/* One whole message is there. */
static int deliver(EcChannel *c)
{
	EcControlMessage m;

	int r = ec_control_message_decode(c->body, c->length, &m, &c->failure);
	g_clear_pointer(&c->body, g_free);
	c->body_size = c->n_body = c->n_header = c->length = 0;
	if (r == -EOPNOTSUPP)
		return 0;
	if (r < 0)
		return r;
	c->timer = sd_event_source_disable_unref(c->timer);
	if (c->ops->message)
		c->ops->message(c, &m, c->userdata);
	return 0;
}

static void receive(EcChannel *c)
{
	ssize_t r = 1;

	for (unsigned n = 0; n < READS_PER_TURN; n++) {
		r = c->n_header < sizeof(c->header) ? read_header(c) : read_body(c);
		if (r > 0 && c->n_header == sizeof(c->header) && c->n_body == c->length)
			r = deliver(c) < 0 ? -EBADMSG : 1;
		if (c->freed || c->state != OPEN)
			return;
		if (r < 0) {
			close_failed(c);
			return;
		}
		if (r == 0 && gnutls_record_check_pending(c->tls.session) == 0)
			return;
	}
	soon(c);
}

/* --- handshake --- */

/* Why the handshake failed, in c->failure. */
static void explain_dialer(EcChannel *c, int r)
{
	const char *identity = c->tls.identity;
	char buffer[64];

	(void)who(c, buffer);
	if (c->tls.error)
		(void)ec_error(&c->failure, EC_ERROR_PEER_UNREACHABLE,
				"the connection to %s broke: %s", buffer, g_strerror(c->tls.error));
	else if (r == GNUTLS_E_PREMATURE_TERMINATION)
		(void)ec_error(&c->failure, EC_ERROR_PEER_UNREACHABLE,
				"%s closed the connection at once: it does not let this address in, or has too many connections",
				buffer);
	else if (ec_tls_is_wrong_key(&c->tls, r) && *identity == EC_CHANNEL_KEYLESS)
		(void)ec_error(&c->failure, EC_ERROR_WRONG_KEY,
				"%s does not take '%s' without a key", buffer, identity + 1);
	else if (ec_tls_is_wrong_key(&c->tls, r))
		(void)ec_error(&c->failure, EC_ERROR_WRONG_KEY,
				"%s does not know '%s' with this key", buffer, identity);
	else
		(void)ec_error(&c->failure, EC_ERROR_PROTOCOL,
				"%s does not speak ethercord's protocol: %s", buffer,
				r == GNUTLS_E_FATAL_ALERT_RECEIVED
						? gnutls_alert_get_name(
								  gnutls_alert_get(c->tls.session))
						: gnutls_strerror(r));
}

static void explain_acceptor(EcChannel *c, int r)
{
	char buffer[64];

	(void)who(c, buffer);
	if (c->tls.error || r == GNUTLS_E_PREMATURE_TERMINATION)
		(void)ec_error(&c->failure, EC_ERROR_PEER_UNREACHABLE,
				"the connection of %s broke: %s", buffer,
				c->tls.error ? g_strerror(c->tls.error) : gnutls_strerror(r));
	else if (c->tls.asked && !c->opened)
		(void)ec_error(&c->failure, EC_ERROR_WRONG_KEY,
				"%s came with a name or a key that does not fit", buffer);
	else
		(void)ec_error(&c->failure, EC_ERROR_PROTOCOL,
				"%s does not speak ethercord's protocol: %s", buffer,
				gnutls_strerror(r));
}

static void handshake(EcChannel *c)
{
	c->tls.error = 0;
	c->in_tls = true;
	int r = ec_tls_handshake(&c->tls);
	c->in_tls = false;
	if (c->freed)
		return;
	if (r < 0 && !gnutls_error_is_fatal(r)) {
		/* A warning: there may be more that GnuTLS has read already. */
		if (r != GNUTLS_E_AGAIN && r != GNUTLS_E_INTERRUPTED)
			soon(c);
		return;
	}
	if (r < 0) {
		if (c->tls.server)
			explain_acceptor(c, r);
		else
			explain_dialer(c, r);
		/* Only who sent a ClientHello of ours is answered, with 7 bytes. */
		if (c->tls.server && c->tls.asked && !c->opened)
			(void)gnutls_alert_send_appropriate(c->tls.session, r);
		close_failed(c);
		return;
	}
	c->state = OPEN;
	tell_opened(c);
	/* What came with the handshake or after it may be in GnuTLS's hands already. */
	soon(c);
}

static void set_timer(EcChannel *c)
{
	uint64_t now;

	if (c->timer && sd_event_now(sd_event_source_get_event(c->timer), CLOCK_BOOTTIME, &now) >=
					0)
		(void)sd_event_source_set_time(c->timer, now + EC_CHANNEL_GREETING_USEC);
}

static void get_ends(EcChannel *c)
{
	struct sockaddr_storage s = { 0 };
	socklen_t n = sizeof(s);
	uint16_t port;

	if (getsockname(c->fd, (struct sockaddr *)&s, &n) == 0)
		c->local = ec_channel_address(&s, &port);
	n = sizeof(s);
	if (c->tls.server && getpeername(c->fd, (struct sockaddr *)&s, &n) == 0)
		c->remote = ec_channel_address(&s, &c->port);
}

static void connected(EcChannel *c)
{
	int error = 0;
	socklen_t n = sizeof(error);
	char buffer[64];

	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0)
		error = errno;
	if (error == 0) {
		get_ends(c);
		c->state = HANDSHAKE;
		set_timer(c);
		return;
	}
	c->error = error;
	(void)ec_error(&c->failure, EC_ERROR_PEER_UNREACHABLE, "%s cannot be reached: %s",
			who(c, buffer), g_strerror(error));
	close_failed(c);
}

/* --- events --- */

static void step(EcChannel *c)
{
	enter(c);
	if (sd_bus_error_is_set(&c->failure))
		close_failed(c);
	if (!c->freed && c->state == CONNECTING)
		connected(c);
	if (!c->freed && c->state == HANDSHAKE)
		handshake(c);
	if (!c->freed && c->state == OPEN && flush(c) < 0)
		close_failed(c);
	if (!c->freed && c->state == OPEN)
		receive(c);
	if (!c->freed && c->state != CLOSED)
		refresh_events(c);
	leave(c);
}

static int on_io(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	step(userdata);
	return 0;
}

static int on_later(sd_event_source *s, void *userdata)
{
	EcChannel *c = userdata;

	/* Not before the socket is connected: SO_ERROR would say so. */
	if (c->state != CONNECTING || sd_bus_error_is_set(&c->failure))
		step(c);
	return 0;
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
	EcChannel *c = userdata;
	char buffer[64];

	enter(c);
	c->error = ETIMEDOUT;
	(void)ec_error(&c->failure, EC_ERROR_PEER_UNREACHABLE, "%s %s in %d s",
			c->state == OPEN || c->tls.server ? "nothing came from" : "no answer from",
			who(c, buffer), CONNECT_SECONDS);
	close_failed(c);
	leave(c);
	return 0;
}

static bool on_key(EcTls *t, uint8_t ret[static EC_CHANNEL_KEY_SIZE])
{
	EcChannel *c = (EcChannel *)(void *)t;

	return !c->freed && c->ops->key && c->ops->key(c, t->identity, ret, c->userdata);
}

/* The acceptor's flight is being made. */
static GByteArray *on_early(EcTls *t, bool *ret_stop)
{
	EcChannel *c = (EcChannel *)(void *)t;
	GByteArray *all = NULL;

	if (!c->freed)
		tell_opened(c);
	*ret_stop = c->freed;
	if (!c->freed && c->out && c->out->len <= t->room)
		all = g_steal_pointer(&c->out);
	return all;
}

static const EcTlsOps tls_ops = {
	.key = on_key,
	.early = on_early,
};

static int add_sources(EcChannel *c, sd_event *event, uint32_t events)
{
	int r = sd_event_add_io(event, &c->io, c->fd, events, on_io, c);

	if (r >= 0)
		r = sd_event_add_time_relative(event, &c->timer, CLOCK_BOOTTIME,
				EC_CHANNEL_GREETING_USEC, 0, on_timer, c);
	if (r >= 0)
		r = sd_event_add_defer(event, &c->later, on_later, c);
	if (r >= 0)
		r = sd_event_source_set_enabled(c->later, SD_EVENT_OFF);
	return r;
}

static void set_socket(int fd)
{
	const unsigned timeout = USER_TIMEOUT_MS;
	const int on = 1;

	/* Best effort: without them it is slower to speak and to notice. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout));
}

static int bind_socket(int fd, const EcChannelRoute *route, unsigned scope)
{
	const int on = 1;
	struct sockaddr_storage s;

	if (*route->device && setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, route->device,
					      (socklen_t)strlen(route->device)) < 0)
		return -errno;
	if (route->fwmark && setsockopt(fd, SOL_SOCKET, SO_MARK, &route->fwmark,
					     sizeof(route->fwmark)) < 0)
		return -errno;
	if (route->local.family == AF_UNSPEC)
		return 0;
	(void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
	socklen_t n = to_sockaddr(&route->local, 0, scope, &s);
	return bind(fd, (struct sockaddr *)&s, n) < 0 ? -errno : 0;
}

/* A socket that is connecting: fd or -errno. */
static int connect_socket(const EcChannelRoute *route)
{
	unsigned scope = *route->device ? if_nametoindex(route->device) : 0;
	struct sockaddr_storage s;

	int fd = socket(route->remote.family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	set_socket(fd);
	int r = bind_socket(fd, route, scope);
	socklen_t n = to_sockaddr(&route->remote, route->port, scope, &s);
	if (r == 0 && connect(fd, (struct sockaddr *)&s, n) < 0 && errno != EINPROGRESS)
		r = -errno;
	if (r < 0) {
		(void)close(fd);
		return r;
	}
	return fd;
}

/* NOLINTNEXTLINE(readability-function-size): where to, as whom, who is told, and what came of it */
int ec_channel_dial(sd_event *event, const EcChannelRoute *route, const char *identity,
		const uint8_t *key, const EcChannelOps *ops, void *userdata, EcChannel **ret,
		sd_bus_error *ret_error)
{
	EcChannel *c = g_new0(EcChannel, 1);
	char buffer[64];

	c->ops = ops;
	c->userdata = userdata;
	c->remote = route->remote;
	c->local = route->local;
	c->port = route->port;
	c->fd = connect_socket(route);
	int r = c->fd < 0 ? c->fd : ec_tls_init_dialer(&c->tls, c->fd, identity, key, &tls_ops);
	if (r >= 0)
		r = add_sources(c, event, EPOLLOUT);
	if (r < 0) {
		(void)ec_error(ret_error, EC_ERROR_PEER_UNREACHABLE, "%s cannot be reached: %s",
				who(c, buffer), g_strerror(-r));
		destroy(c);
		return r;
	}
	*ret = c;
	return 0;
}

int ec_channel_accept(
		sd_event *event, int fd, const EcChannelOps *ops, void *userdata, EcChannel **ret)
{
	EcChannel *c = g_new0(EcChannel, 1);

	c->ops = ops;
	c->userdata = userdata;
	c->fd = fd;
	c->state = HANDSHAKE;
	set_socket(fd);
	int r = ec_tls_init_acceptor(&c->tls, fd, &tls_ops);
	if (r >= 0)
		r = add_sources(c, event, EPOLLIN);
	if (r < 0) {
		destroy(c);
		return r;
	}
	get_ends(c);
	*ret = c;
	return 0;
}

void ec_channel_set_owner(EcChannel *c, const EcChannelOps *ops, void *userdata)
{
	c->ops = ops;
	c->userdata = userdata;
}

/* Closing with bytes unread makes the kernel send a reset, and throw away what it has not sent. */
static void drain(int fd)
{
	uint8_t waste[4096];

	(void)shutdown(fd, SHUT_WR);
	for (int i = 0; i < READS_PER_TURN; i++) {
		if (recv(fd, waste, sizeof(waste), MSG_DONTWAIT) <= 0)
			return;
	}
}

static EcChannel *leave_off(EcChannel *c)
{
	c->freed = true;
	if (!c->in_tls)
		shut(c);
	if (c->busy == 0)
		destroy(c);
	return NULL;
}

EcChannel *ec_channel_free(EcChannel *c)
{
	if (!c || c->freed)
		return NULL;
	if (c->state == OPEN) {
		c->freed = true;
		(void)flush(c);
		if (!c->blocked)
			(void)gnutls_bye(c->tls.session, GNUTLS_SHUT_WR);
		drain(c->fd);
	}
	return leave_off(c);
}

EcChannel *ec_channel_abandon(EcChannel *c)
{
	const int yes = 1;

	if (!c || c->freed)
		return NULL;
	/* In this mode the kernel closes without FIN or RST (linux/tcp.h, TCP_REPAIR). */
	if (c->fd >= 0)
		(void)setsockopt(c->fd, IPPROTO_TCP, TCP_REPAIR, &yes, sizeof(yes));
	return leave_off(c);
}

void ec_channel_keep_to(EcChannel *c, const char *device)
{
	/* Best effort: ec_channel_abandon() is what counts on. */
	if (c->fd >= 0)
		(void)setsockopt(c->fd, SOL_SOCKET, SO_BINDTODEVICE, device,
				(socklen_t)strlen(device));
}

int ec_channel_errno(const EcChannel *c)
{
	return c->error;
}

bool ec_channel_is_open(const EcChannel *c)
{
	return c->opened && c->state != CLOSED;
}

bool ec_channel_is_proven(const EcChannel *c)
{
	return c->state == OPEN;
}

const char *ec_channel_identity(const EcChannel *c)
{
	return c->tls.identity;
}

bool ec_channel_is_keyless(const EcChannel *c)
{
	return c->tls.identity[0] == EC_CHANNEL_KEYLESS;
}

const EcAddress *ec_channel_remote(const EcChannel *c)
{
	return &c->remote;
}

uint16_t ec_channel_remote_port(const EcChannel *c)
{
	return c->port;
}

const EcAddress *ec_channel_local(const EcChannel *c)
{
	return &c->local;
}

int ec_channel_export(const EcChannel *c, const char *label, uint8_t ret[static 32])
{
	if (c->state != OPEN)
		return -ENOTCONN;
	int r = gnutls_prf_rfc5705(c->tls.session, strlen(label), label, 0, NULL, 32, (char *)ret);
	return r < 0 ? -EIO : 0;
}
