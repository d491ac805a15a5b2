/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "channels.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "unit.h"

static Channels *running; /* of the test that runs, for ops */

EcControlMessage channels_ping(uint64_t seq)
{
	return (EcControlMessage){ .type = EC_CONTROL_PING, .seq = seq };
}

EcControlMessage channels_bye(const char *text)
{
	EcControlMessage m = { .type = EC_CONTROL_BYE, .error = EC_BYE_DOWN };

	(void)g_strlcpy(m.text, text, sizeof(m.text));
	return m;
}

static bool on_key(EcChannel *c, const char *identity, uint8_t ret[static EC_CHANNEL_KEY_SIZE],
		void *userdata)
{
	End *e = userdata;

	g_assert_true(ec_text_is_clean(identity));
	g_assert_cmpuint(strlen(identity), <=, 64);
	g_assert_cmpstr(ec_channel_identity(c), ==, identity);
	g_assert_false(e->opened);
	running->asked++;
	if (e->free_in == FREE_IN_KEY)
		e->c = ec_channel_free(c);
	if (!g_str_equal(identity, running->known))
		return false;
	memcpy(ret, identity[0] == EC_CHANNEL_KEYLESS ? ec_channel_keyless_key : running->key,
			EC_CHANNEL_KEY_SIZE);
	return true;
}

static void on_opened(EcChannel *c, void *userdata)
{
	End *e = userdata;

	g_assert_false(e->opened);
	g_assert_true(ec_channel_is_open(c));
	e->opened = true;
	if (e->says)
		ec_channel_send(c, e->says);
	if (e->free_in == FREE_IN_OPENED)
		e->c = ec_channel_free(c);
}

static void on_message(EcChannel *c, const EcControlMessage *m, void *userdata)
{
	End *e = userdata;

	g_assert_true(e->opened);
	g_assert_true(ec_channel_is_proven(c));
	g_assert_false(e->closed);
	g_assert_true(e->free_in != FREE_IN_MESSAGE || e->messages < e->free_at);
	if (e->messages++ == 0)
		e->first = *m;
	e->last = *m;
	if (e->free_in == FREE_IN_MESSAGE && e->messages == e->free_at)
		e->c = ec_channel_free(c);
}

static void on_closed(EcChannel *c, const sd_bus_error *why, void *userdata)
{
	End *e = userdata;

	g_assert_false(e->closed);
	g_assert_false(ec_channel_is_open(c));
	e->closed = true;
	e->in_order = !why;
	if (why) {
		g_assert_true(ec_text_is_clean(why->message));
		(void)g_strlcpy(e->error, ec_error_token(why), sizeof(e->error));
		(void)g_strlcpy(e->why, why->message, sizeof(e->why));
	}
	if (e->free_in == FREE_IN_CLOSED)
		e->c = ec_channel_free(c);
}

const EcChannelOps channels_ops = { on_key, on_opened, on_message, on_closed };

static int on_connection(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	Channels *f = userdata;
	int connected = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	g_assert_cmpint(connected, >=, 0);
	g_assert_null(f->acceptor.c);
	g_assert_cmpint(ec_channel_accept(f->event, connected, &channels_ops, &f->acceptor,
					&f->acceptor.c),
			==, 0);
	return 0;
}

int channels_listen(uint16_t *ret_port)
{
	struct sockaddr_storage s;
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t n = sizeof(s);

	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	g_assert_cmpint(bind(fd, (struct sockaddr *)&v4, sizeof(v4)), ==, 0);
	g_assert_cmpint(listen(fd, 16), ==, 0);
	g_assert_cmpint(getsockname(fd, (struct sockaddr *)&s, &n), ==, 0);
	(void)ec_channel_address(&s, ret_port);
	return fd;
}

static int connect_to(uint16_t port, bool narrow)
{
	const int size = 4096, segment = 536;
	struct sockaddr_in v4 = { .sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr = { htonl(INADDR_LOOPBACK) } };

	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (narrow) {
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
		(void)setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof(segment));
	}
	g_assert_cmpint(connect(fd, (struct sockaddr *)&v4, sizeof(v4)), ==, 0);
	return fd;
}

int channels_connect(uint16_t port)
{
	return connect_to(port, false);
}

static void way_end(Way *w)
{
	w->source = sd_event_source_disable_unref(w->source);
	if (w->from >= 0)
		(void)close(w->from);
	w->from = -1;
	g_clear_pointer(&w->seen, g_byte_array_unref);
}

static int on_bytes(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	Way *w = userdata;
	uint8_t data[4096];

	if (w->seen->len == w->hold)
		return sd_event_source_set_enabled(s, SD_EVENT_OFF);
	ssize_t n = recv(fd, data, MIN(sizeof(data), MIN(w->hold, w->cut) - w->seen->len), 0);
	if (n > 0) {
		if (w->flip / 8 >= w->seen->len && w->flip / 8 < w->seen->len + (size_t)n)
			data[w->flip / 8 - w->seen->len] ^= (uint8_t)(1u << w->flip % 8);
		g_byte_array_append(w->seen, data, (guint)n);
		(void)send(w->to, data, (size_t)n, MSG_NOSIGNAL);
	}
	if (n <= 0 || w->seen->len == w->cut) {
		(void)shutdown(w->to, SHUT_WR);
		if (w->seen->len == w->cut)
			(void)shutdown(w->from, SHUT_RDWR);
		return sd_event_source_set_enabled(s, SD_EVENT_OFF);
	}
	return 0;
}

static int on_wire(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	Channels *f = userdata;
	int in = accept4(fd, NULL, NULL, SOCK_CLOEXEC), out = channels_connect(f->port);

	f->there.from = f->back.to = in;
	f->there.to = f->back.from = out;
	f->there.seen = g_byte_array_new();
	f->back.seen = g_byte_array_new();
	(void)sd_event_add_io(f->event, &f->there.source, in, EPOLLIN, on_bytes, &f->there);
	(void)sd_event_add_io(f->event, &f->back.source, out, EPOLLIN, on_bytes, &f->back);
	return 0;
}

void channels_set_up(Channels *f, gconstpointer data)
{
	running = f;
	f->known = "laptop";
	memset(f->key, 7, sizeof(f->key));
	f->there = f->back = (Way){
		.from = -1, .to = -1, .flip = NOT_YET, .cut = NOT_YET, .hold = NOT_YET
	};
	g_assert_cmpint(sd_event_new(&f->event), >=, 0);
	f->listening = channels_listen(&f->port);
	f->wire = channels_listen(&f->wire_port);
	g_assert_cmpint(sd_event_add_io(f->event, &f->accepting, f->listening, EPOLLIN,
					on_connection, f),
			>=, 0);
	g_assert_cmpint(sd_event_add_io(f->event, &f->wiring, f->wire, EPOLLIN, on_wire, f), >=, 0);
}

static void end_reset(End *e)
{
	End fresh = { .free_in = e->free_in, .free_at = e->free_at, .says = e->says };

	(void)ec_channel_free(e->c);
	*e = fresh;
}

void channels_reset(Channels *f)
{
	way_end(&f->there);
	way_end(&f->back);
	end_reset(&f->dialer);
	end_reset(&f->acceptor);
	f->asked = 0;
}

void channels_tear_down(Channels *f, gconstpointer data)
{
	channels_reset(f);
	(void)sd_event_source_disable_unref(f->accepting);
	(void)sd_event_source_disable_unref(f->wiring);
	(void)close(f->listening);
	(void)close(f->wire);
	(void)sd_event_unref(f->event);
	running = NULL;
}

void channels_dial(Channels *f, const char *identity, const uint8_t *key, uint16_t port)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcChannelRoute route = { .remote = unit_address("127.0.0.1"), .port = port };

	if (ec_channel_dial(f->event, &route, identity, key, &channels_ops, &f->dialer,
			    &f->dialer.c, &error) < 0)
		g_error("%s", error.message);
	g_assert_cmpstr(ec_channel_identity(f->dialer.c), ==, identity);
}

int raw_connect(Channels *f, Raw *raw, const char *priority, const char *identity,
		const uint8_t *key)
{
	const gnutls_datum_t psk = { (uint8_t *)key, EC_CHANNEL_KEY_SIZE };
	int r;

	raw->fd = connect_to(f->port, raw->narrow);
	g_assert_cmpint(gnutls_init(&raw->tls, GNUTLS_CLIENT | GNUTLS_NONBLOCK), ==, 0);
	g_assert_cmpint(gnutls_priority_set_direct(raw->tls, priority, NULL), ==, 0);
	g_assert_cmpint(gnutls_certificate_allocate_credentials(&raw->none), ==, 0);
	(void)gnutls_credentials_set(raw->tls, GNUTLS_CRD_CERTIFICATE, raw->none);
	g_assert_cmpint(gnutls_psk_allocate_client_credentials(&raw->psk), ==, 0);
	if (key) {
		(void)gnutls_psk_set_client_credentials(
				raw->psk, identity, &psk, GNUTLS_PSK_KEY_RAW);
		(void)gnutls_credentials_set(raw->tls, GNUTLS_CRD_PSK, raw->psk);
	}
	gnutls_transport_set_int(raw->tls, raw->fd);
	g_assert_cmpint(fcntl(raw->fd, F_SETFL, O_NONBLOCK), ==, 0);
	while ((r = gnutls_handshake(raw->tls)) < 0 && !gnutls_error_is_fatal(r))
		(void)sd_event_run(f->event, 1000);
	return r;
}

void raw_send(Channels *f, Raw *raw, const void *data, size_t n, size_t record)
{
	const uint8_t *p = data, *end = p + n;

	while (p < end) {
		ssize_t sent = gnutls_record_send(raw->tls, p, MIN(record, (size_t)(end - p)));

		if (sent > 0)
			p += sent;
		else if (gnutls_error_is_fatal((int)sent))
			return;
		else
			(void)sd_event_run(f->event, 1000);
	}
}

void raw_close(Raw *raw)
{
	gnutls_deinit(raw->tls);
	gnutls_psk_free_client_credentials(raw->psk);
	gnutls_certificate_free_credentials(raw->none);
	(void)close(raw->fd);
}
