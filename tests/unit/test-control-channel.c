/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control-channel.h"
#include "unit.h"

/*
 * Two channels over loopback TCP in one loop, with something between them that forwards and can
 * keep, change, cut and send again what it forwards.
 */

#define PATIENCE_USEC 20000000ULL

typedef struct End {
	EcChannel *c;
	EcChannelOps ops;
	bool opened, closed, closed_in_order;
	unsigned messages;
	EcControlMessage last;
	char error[64], why[256];
	const char *free_in; /* name of the op that frees the channel */
	unsigned free_at;    /* ... message number */
	bool echo, welcome;
} End;

typedef struct Fixture {
	sd_event *event;
	End dialer, acceptor;
	int listening;
	uint16_t port;
	const char *known; /* identity the acceptor knows, with `key` */
	uint8_t key[EC_CHANNEL_KEY_SIZE];
	bool asked;
} Fixture;

static Fixture *fixture; /* of the running test, for ops */

static EcControlMessage ping(uint64_t seq)
{
	return (EcControlMessage){ .type = EC_CONTROL_PING, .seq = seq };
}

static EcControlMessage bye(const char *text)
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
	g_assert_cmpstr(ec_channel_identity(c), ==, identity);
	fixture->asked = true;
	if (g_strcmp0(e->free_in, "key") == 0)
		e->c = ec_channel_free(c);
	if (!g_str_equal(identity, fixture->known))
		return false;
	memcpy(ret, ec_channel_keyless_key, EC_CHANNEL_KEY_SIZE);
	if (identity[0] != EC_CHANNEL_KEYLESS)
		memcpy(ret, fixture->key, EC_CHANNEL_KEY_SIZE);
	return true;
}

static void on_opened(EcChannel *c, void *userdata)
{
	End *e = userdata;

	g_assert_false(e->opened);
	g_assert_true(ec_channel_is_open(c));
	e->opened = true;
	if (e->welcome) {
		EcControlMessage m = bye("welcome");

		ec_channel_send(c, &m);
	}
	if (g_strcmp0(e->free_in, "opened") == 0)
		e->c = ec_channel_free(c);
}

static void on_message(EcChannel *c, const EcControlMessage *m, void *userdata)
{
	End *e = userdata;

	g_assert_true(e->opened);
	g_assert_true(ec_channel_is_proven(c));
	g_assert_false(e->closed);
	e->messages++;
	e->last = *m;
	if (e->echo) {
		EcControlMessage answer = *m;

		answer.type = EC_CONTROL_PONG;
		ec_channel_send(c, &answer);
	}
	if (g_strcmp0(e->free_in, "message") == 0 && e->messages == e->free_at)
		e->c = ec_channel_free(c);
}

static void on_closed(EcChannel *c, const sd_bus_error *why, void *userdata)
{
	End *e = userdata;

	g_assert_false(e->closed);
	e->closed = true;
	e->closed_in_order = !why;
	if (why) {
		g_assert_true(ec_text_is_clean(why->message));
		(void)g_strlcpy(e->error, ec_error_token(why), sizeof(e->error));
		(void)g_strlcpy(e->why, why->message, sizeof(e->why));
	}
	if (g_strcmp0(e->free_in, "closed") == 0)
		e->c = ec_channel_free(c);
}

static const EcChannelOps ops = { on_key, on_opened, on_message, on_closed };

static int on_connection(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	Fixture *f = userdata;
	int connected = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	g_assert_cmpint(connected, >=, 0);
	g_assert_null(f->acceptor.c);
	g_assert_cmpint(ec_channel_accept(f->event, connected, &ops, &f->acceptor, &f->acceptor.c),
			==, 0);
	return 0;
}

static void set_up(Fixture *f, gconstpointer data)
{
	struct sockaddr_storage s;
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t n = sizeof(s);

	fixture = f;
	f->known = "laptop";
	memset(f->key, 7, sizeof(f->key));
	g_assert_cmpint(sd_event_new(&f->event), >=, 0);
	f->listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	g_assert_cmpint(bind(f->listening, (struct sockaddr *)&v4, sizeof(v4)), ==, 0);
	g_assert_cmpint(listen(f->listening, 16), ==, 0);
	g_assert_cmpint(getsockname(f->listening, (struct sockaddr *)&s, &n), ==, 0);
	(void)ec_channel_address(&s, &f->port);
	g_assert_cmpint(sd_event_add_io(f->event, NULL, f->listening, EPOLLIN, on_connection, f),
			>=, 0);
}

static void tear_down(Fixture *f, gconstpointer data)
{
	(void)ec_channel_free(f->dialer.c);
	(void)ec_channel_free(f->acceptor.c);
	(void)close(f->listening);
	(void)sd_event_unref(f->event);
	fixture = NULL;
}

static void dial_port(Fixture *f, const char *identity, const uint8_t *key, uint16_t port)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcChannelRoute route = { .remote = unit_address("127.0.0.1"), .port = port };

	if (ec_channel_dial(f->event, &route, identity, key, &ops, &f->dialer, &f->dialer.c,
			    &error) < 0)
		g_error("%s", error.message);
}

static void dial(Fixture *f, const char *identity, const uint8_t *key)
{
	dial_port(f, identity, key, f->port);
}

/* Runs the loop until `what`. */
#define wait_for(f, what)                                                                          \
	do {                                                                                       \
		int64_t end = g_get_monotonic_time() + (int64_t)PATIENCE_USEC;                     \
		while (!(what)) {                                                                  \
			g_assert_cmpint(g_get_monotonic_time(), <, end);                           \
			g_assert_cmpint(sd_event_run((f)->event, 100000), >=, 0);                  \
		}                                                                                  \
	} while (false)

static void test_open(Fixture *f, gconstpointer data)
{
	uint8_t near[32], far[32];
	EcControlMessage m = ping(42);

	f->acceptor.welcome = true;
	dial(f, "laptop", f->key);
	g_assert_cmpstr(ec_channel_identity(f->dialer.c), ==, "laptop");
	wait_for(f, f->dialer.messages == 1);
	g_assert_cmpstr(f->dialer.last.text, ==, "welcome");
	wait_for(f, f->acceptor.c && ec_channel_is_proven(f->acceptor.c));
	ec_channel_send(f->dialer.c, &m);
	wait_for(f, f->acceptor.messages == 1);
	g_assert_cmpuint(f->acceptor.last.seq, ==, 42);
	g_assert_cmpint(ec_channel_export(f->dialer.c, "EXPORTER-ethercord-a", near), ==, 0);
	g_assert_cmpint(ec_channel_export(f->acceptor.c, "EXPORTER-ethercord-a", far), ==, 0);
	g_assert_cmpmem(near, 32, far, 32);
	g_assert_cmpint(ec_channel_export(f->acceptor.c, "EXPORTER-ethercord-b", far), ==, 0);
	g_assert_cmpint(memcmp(near, far, 32), !=, 0);
	g_assert_cmpuint(ec_channel_rtt_usec(f->dialer.c), >, 0);
}

static void test_wrong_key(Fixture *f, gconstpointer data)
{
	uint8_t wrong[EC_CHANNEL_KEY_SIZE] = { 1 };

	dial(f, data, wrong);
	wait_for(f, f->dialer.closed && f->acceptor.closed);
	g_test_message("%s: %s", f->dialer.error, f->dialer.why);
	g_test_message("%s: %s", f->acceptor.error, f->acceptor.why);
	g_assert_cmpstr(f->dialer.error, ==, "WrongKey");
	g_assert_cmpstr(f->acceptor.error, ==, "WrongKey");
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add("/channel/open", Fixture, NULL, set_up, test_open, tear_down);
	g_test_add("/channel/wrong-key", Fixture, "laptop", set_up, test_wrong_key, tear_down);
	g_test_add("/channel/unknown", Fixture, "nobody", set_up, test_wrong_key, tear_down);
	return g_test_run();
}
