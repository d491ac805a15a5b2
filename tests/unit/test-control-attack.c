/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "channels.h"
#include "unit.h"

/* Peers that mean no good, or are something else. */

#define OURS                                                                                       \
	"NONE:+VERS-TLS1.3:+AES-128-GCM:+AEAD:+ECDHE-PSK:+GROUP-X25519:+SIGN-ECDSA-SECP256R1-SHA256"

/* What comes back until the other end closes. */
static size_t answer(Channels *f, int fd, uint8_t *to, size_t size)
{
	size_t n = 0;
	ssize_t r = 0;

	wait_for(f, f->acceptor.closed);
	while (n < size && (r = recv(fd, to + n, size - n, MSG_DONTWAIT)) > 0)
		n += (size_t)r;
	g_assert_true(r == 0 || errno == ECONNRESET);
	return n;
}

/* No TLS, or none of ours: not a byte in answer. */
static void test_garbage(Channels *f, gconstpointer data)
{
	static const struct {
		const char *bytes;
		size_t n;
	} cases[] = {
		{ "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27 },
		{ "\x16\x03\x01\xff\xff", 5 },
		{ "\x16\x03\x01\x00\x00", 5 },
		{ "\x15\x03\x03\x00\x02\x02\x28", 7 },
		{ "\x17\x03\x03\x00\x05hello", 10 },
		{ "\x14\x03\x03\x00\x01\x01\x17\x03\x03\x00\x01x", 12 },
		/* A ClientHello of 16 MiB, of 0 bytes, and a Finished. */
		{ "\x16\x03\x01\x00\x05\x01\xff\xff\xff\x00", 10 },
		{ "\x16\x03\x01\x00\x04\x01\x00\x00\x00", 9 },
		{ "\x16\x03\x01\x00\x04\x14\x00\x00\x00", 9 },
		/* SSL 2 */
		{ "\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10", 11 },
		{ "\xff\xff\xff\xff\xff\xff\xff\xff", 8 },
		{ "\0\0\0\0\0\0\0\0", 8 },
	};
	uint8_t back[64];

	for (size_t i = 0; i < EC_ELEMENTS(cases); i++) {
		int fd = channels_connect(f->port);

		g_assert_cmpint(send(fd, cases[i].bytes, cases[i].n, 0), ==, (int)cases[i].n);
		(void)shutdown(fd, SHUT_WR);
		g_assert_cmpuint(answer(f, fd, back, sizeof(back)), ==, 0);
		g_assert_true(g_str_equal(f->acceptor.error, "Protocol") ||
				g_str_equal(f->acceptor.error, "PeerUnreachable"));
		g_assert_cmpuint(f->asked, ==, 0);
		(void)close(fd);
		channels_reset(f);
	}
}

static void test_noise(Channels *f, gconstpointer data)
{
	g_autoptr(GRand) rand = g_rand_new_with_seed(1);
	static const uint8_t hello[] = { 0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3 };
	uint8_t bytes[600], back[64];

	for (int i = 0; i < 300; i++) {
		int fd = channels_connect(f->port);

		for (size_t n = 0; n < sizeof(bytes); n++)
			bytes[n] = (uint8_t)g_rand_int(rand);
		/* Every other one looks like a record of a handshake from outside. */
		if (i % 2)
			memcpy(bytes, hello, sizeof(hello));
		(void)send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL);
		(void)shutdown(fd, SHUT_WR);
		g_assert_cmpuint(answer(f, fd, back, sizeof(back)), ==, 0);
		(void)close(fd);
		channels_reset(f);
	}
}

/* TLS, but not as we want it. */
static void test_settings(Channels *f, gconstpointer data)
{
	static const struct {
		const char *priority;
		bool key;
	} cases[] = {
		{ "NORMAL", false },
		{ "NORMAL:-VERS-ALL:+VERS-TLS1.2:+ECDHE-PSK:+PSK", true },
		/* No (EC)DHE. */
		{ "NONE:+VERS-TLS1.3:+AES-128-GCM:+AEAD:+PSK:+GROUP-X25519:+SIGN-ALL", true },
		/* A suite of another hash, a group that we do not have. */
		{ "NONE:+VERS-TLS1.3:+AES-256-GCM:+AEAD:+ECDHE-PSK:+GROUP-X25519:+SIGN-ALL", true },
		{ "NONE:+VERS-TLS1.3:+AES-128-GCM:+AEAD:+ECDHE-PSK:+GROUP-SECP521R1:+SIGN-ALL",
				true },
	};

	for (size_t i = 0; i < EC_ELEMENTS(cases); i++) {
		Raw raw = { 0 };

		g_assert_cmpint(raw_connect(f, &raw, cases[i].priority, "laptop",
						cases[i].key ? f->key : NULL),
				<, 0);
		wait_for(f, f->acceptor.closed);
		g_assert_false(f->acceptor.opened);
		raw_close(&raw);
		channels_reset(f);
	}
}

static void test_names(Channels *f, gconstpointer data)
{
	static const char *const names[] = { "lap\ttop", "\x1b[31mlaptop", "lap\xff",
		"laptop\xc2\x9f",
		"01234567890123456789012345678901234567890123456789012345678901234", "Laptop" };

	for (size_t i = 0; i < EC_ELEMENTS(names); i++) {
		Raw raw = { 0 };

		g_assert_cmpint(raw_connect(f, &raw, OURS, names[i], f->key), ==,
				GNUTLS_E_FATAL_ALERT_RECEIVED);
		/* The same for all that are not known. */
		g_assert_cmpint((int)gnutls_alert_get(raw.tls), ==, GNUTLS_A_ILLEGAL_PARAMETER);
		wait_for(f, f->acceptor.closed);
		g_assert_cmpstr(f->acceptor.error, ==, "WrongKey");
		g_assert_cmpuint(f->asked, ==, i == EC_ELEMENTS(names) - 1);
		raw_close(&raw);
		channels_reset(f);
	}
}

/* A second group makes the acceptor ask for another ClientHello: still one name, one key. */
static void test_retry(Channels *f, gconstpointer data)
{
	EcControlMessage m = channels_ping(3);
	g_autoptr(GByteArray) bytes = ec_control_message_encode(&m);
	Raw raw = { 0 };

	g_assert_cmpint(raw_connect(f, &raw,
					"NONE:+VERS-TLS1.3:+AES-128-GCM:+AEAD:+ECDHE-PSK:+GROUP-SECP521R1:"
					"+GROUP-X448:+GROUP-SECP256R1:+SIGN-ALL",
					"laptop", f->key),
			==, 0);
	raw_send(f, &raw, bytes->data, bytes->len, 64);
	wait_for(f, f->acceptor.messages == 1);
	raw_close(&raw);
}

/* All that a good dialer sent, again. */
static void test_replay(Channels *f, gconstpointer data)
{
	EcControlMessage m = channels_ping(42), welcome = channels_bye("welcome");
	g_autoptr(GByteArray) recorded = NULL;
	uint8_t back[2048];

	f->dialer.says = &m;
	f->acceptor.says = &welcome;
	channels_dial(f, "laptop", f->key, f->wire_port);
	wait_for(f, f->acceptor.messages == 1);
	recorded = g_byte_array_ref(f->there.seen);
	f->dialer.says = NULL;
	channels_reset(f);
	int fd = channels_connect(f->port);
	g_assert_cmpint(send(fd, recorded->data, recorded->len, 0), ==, (int)recorded->len);
	size_t n = answer(f, fd, back, sizeof(back));
	g_assert_cmpuint(n, >, 0);
	g_assert_true(f->acceptor.opened);
	g_assert_cmpuint(f->acceptor.messages, ==, 0);
	for (size_t i = 0; i + 7 <= n; i++)
		g_assert_cmpint(memcmp(back + i, "welcome", 7), !=, 0);
	(void)close(fd);
	channels_reset(f);
	/* The ClientHello alone proves nothing, whatever follows it. */
	size_t hello = 5 + (size_t)(recorded->data[3] << 8 | recorded->data[4]);
	fd = channels_connect(f->port);
	g_assert_cmpint(send(fd, recorded->data, hello, 0), ==, (int)hello);
	wait_for(f, f->acceptor.opened);
	settle(f);
	g_assert_false(ec_channel_is_proven(f->acceptor.c));
	g_assert_cmpint(send(fd,
					"\x17\x03\x03\x00\x13"
					"0123456789012345678",
					24, 0),
			==, 24);
	wait_for(f, f->acceptor.closed);
	g_assert_cmpuint(f->acceptor.messages, ==, 0);
	(void)close(fd);
}

/* With the right key, and then: */
static void test_lengths(Channels *f, gconstpointer data)
{
	static const struct {
		const char *bytes, *error;
		size_t n;
	} cases[] = {
		{ "\0\0\0\0", "Protocol", 4 },
		{ "\0\1\0\1", "Protocol", 4 },
		{ "\xff\xff\xff\xff", "Protocol", 4 },
		{ "\0\0\0\1x", "Protocol", 5 },
		{ "\0\0\0\10\0\0\0\0\0\0\0\0", "Protocol", 12 },
		{ "GET / HTTP/1.1\r\n", "Protocol", 16 },
	};

	for (size_t i = 0; i < EC_ELEMENTS(cases); i++) {
		Raw raw = { 0 };

		g_assert_cmpint(raw_connect(f, &raw, OURS, "laptop", f->key), ==, 0);
		raw_send(f, &raw, cases[i].bytes, cases[i].n, 16384);
		wait_for(f, f->acceptor.closed);
		g_assert_cmpstr(f->acceptor.error, ==, cases[i].error);
		g_assert_cmpuint(f->acceptor.messages, ==, 0);
		raw_close(&raw);
		channels_reset(f);
	}
}

/* Messages in records of any size; one that a newer minor has is passed over. */
static void test_records(Channels *f, gconstpointer data)
{
	static const size_t sizes[] = { 1, 3, 7, 100, 4096, 16384 };
	g_autoptr(GByteArray) all = g_byte_array_new();
	EcControlMessage m;

	for (unsigned i = 1; i <= 200; i++) {
		m = channels_ping(i);
		g_autoptr(GByteArray) bytes = ec_control_message_encode(&m);

		g_byte_array_append(all, bytes->data, bytes->len);
	}
	/* {"type": <"dance">} */
	m = (EcControlMessage){ .type = EC_CONTROL_BYE, .error = "restart" };
	g_autoptr(GByteArray) dance = ec_control_message_encode(&m);
	uint8_t *word = memmem(dance->data, dance->len, "bye", 3);
	word[0] = 'd';
	g_byte_array_append(all, dance->data, dance->len);
	m = channels_ping(201);
	g_autoptr(GByteArray) last = ec_control_message_encode(&m);
	g_byte_array_append(all, last->data, last->len);

	for (size_t i = 0; i < EC_ELEMENTS(sizes); i++) {
		Raw raw = { 0 };

		g_assert_cmpint(raw_connect(f, &raw, OURS, "laptop", f->key), ==, 0);
		raw_send(f, &raw, all->data, all->len, sizes[i]);
		wait_for(f, f->acceptor.messages == 201);
		g_assert_cmpuint(f->acceptor.last.seq, ==, 201);
		g_assert_false(f->acceptor.closed);
		raw_close(&raw);
		channels_reset(f);
	}
	/* Freed in the middle of a record that has more. */
	for (unsigned at = 1; at < 200; at += 13) {
		Raw raw = { 0 };

		f->acceptor.free_in = FREE_IN_MESSAGE;
		f->acceptor.free_at = at;
		g_assert_cmpint(raw_connect(f, &raw, OURS, "laptop", f->key), ==, 0);
		raw_send(f, &raw, all->data, all->len, 16384);
		wait_for(f, f->acceptor.messages == at);
		settle(f);
		g_assert_null(f->acceptor.c);
		g_assert_cmpuint(f->acceptor.messages, ==, at);
		raw_close(&raw);
		channels_reset(f);
	}
}

/* The largest message there may be, of keys that nobody knows. */
static void test_largest(Channels *f, gconstpointer data)
{
	GVariantBuilder b;
	Raw raw = { 0 };

	g_variant_builder_init(&b, G_VARIANT_TYPE_VARDICT);
	g_variant_builder_add(&b, "{sv}", "type", g_variant_new_string("ping"));
	g_variant_builder_add(&b, "{sv}", "seq", g_variant_new_uint64(GUINT64_TO_LE(7)));
	g_autofree char *filling = g_strnfill(65400, 'x');
	g_variant_builder_add(&b, "{sv}", "filling", g_variant_new_string(filling));
	g_autoptr(GVariant) v = g_variant_ref_sink(g_variant_builder_end(&b));
	uint32_t n = (uint32_t)g_variant_get_size(v), length = g_htonl(n);
	g_assert_cmpuint(n, <=, EC_CONTROL_SIZE_MAX);
	g_assert_cmpint(raw_connect(f, &raw, OURS, "laptop", f->key), ==, 0);
	raw_send(f, &raw, &length, 4, 4);
	raw_send(f, &raw, g_variant_get_data(v), n, 16384);
	wait_for(f, f->acceptor.messages == 1);
	g_assert_cmpuint(f->acceptor.last.seq, ==, 7);
	raw_close(&raw);
}

/* A peer that has opened and reads nothing any more. */
static void test_deaf(Channels *f, gconstpointer data)
{
	EcControlMessage m = channels_bye("");
	Raw raw = { 0 };

	memset(m.text, 'x', sizeof(m.text) - 1);
	g_assert_cmpint(raw_connect(f, &raw, OURS, "laptop", f->key), ==, 0);
	wait_for(f, f->acceptor.c && ec_channel_is_proven(f->acceptor.c));
	for (int i = 0; i < 50000; i++)
		ec_channel_send(f->acceptor.c, &m);
	g_assert_false(f->acceptor.closed);
	wait_for(f, f->acceptor.closed);
	g_assert_cmpstr(f->acceptor.error, ==, "PeerUnreachable");
	g_assert_nonnull(strstr(f->acceptor.why, "does not take"));
	raw_close(&raw);
}

/* A narrow way: what does not fit is kept, and comes whole and in order when there is room. */
static void test_narrow(Channels *f, gconstpointer data)
{
	enum {
		COUNT = 2500
	};
	g_autoptr(GByteArray) meant = g_byte_array_new(), got = g_byte_array_new();
	Raw raw = { .narrow = true };
	uint8_t bytes[1024];

	g_assert_cmpint(raw_connect(f, &raw, OURS, "laptop", f->key), ==, 0);
	EcControlMessage hello = channels_ping(0);
	g_autoptr(GByteArray) first = ec_control_message_encode(&hello);
	raw_send(f, &raw, first->data, first->len, first->len);
	wait_for(f, f->acceptor.messages == 1);
	for (unsigned i = 0; i < COUNT; i++) {
		EcControlMessage m = channels_ping(i);
		g_autoptr(GByteArray) one = ec_control_message_encode(&m);

		g_byte_array_append(meant, one->data, one->len);
		ec_channel_send(f->acceptor.c, &m);
	}
	while (got->len < meant->len) {
		ssize_t n = gnutls_record_recv(raw.tls, bytes, sizeof(bytes));

		if (n > 0)
			g_byte_array_append(got, bytes, (guint)n);
		else if (n == GNUTLS_E_AGAIN)
			(void)sd_event_run(f->event, 1000);
		else
			g_error("%s", gnutls_strerror((int)n));
	}
	g_assert_cmpmem(got->data, got->len, meant->data, meant->len);
	g_assert_false(f->acceptor.closed);
	/* It was narrow indeed. */
	for (unsigned i = 0; i < 10 * COUNT; i++) {
		EcControlMessage m = channels_ping(i);

		ec_channel_send(f->acceptor.c, &m);
	}
	wait_for(f, f->acceptor.closed);
	g_assert_nonnull(strstr(f->acceptor.why, "does not take"));
	raw_close(&raw);
}

/* Somebody who sends a byte now and then is not waited for longer than who says nothing. */
static void test_slow(Channels *f, gconstpointer data)
{
	EcControlMessage m = channels_ping(1);
	g_autoptr(GByteArray) hello = NULL;
	uint8_t back[64];
	size_t sent = 0;

	f->dialer.says = &m;
	channels_dial(f, "laptop", f->key, f->wire_port);
	wait_for(f, f->acceptor.messages == 1);
	hello = g_byte_array_ref(f->there.seen);
	f->dialer.says = NULL;
	channels_reset(f);

	/* A port where nobody answers, at the same time. */
	(void)sd_event_source_set_enabled(f->wiring, SD_EVENT_OFF);
	channels_dial(f, "laptop", f->key, f->wire_port);
	int64_t begun = g_get_monotonic_time();
	int fd = channels_connect(f->port);
	while (!f->acceptor.closed || !f->dialer.closed) {
		if (sent < 60 && g_get_monotonic_time() - begun > (int64_t)sent * 100000)
			(void)send(fd, hello->data + sent++, 1, MSG_NOSIGNAL);
		g_assert_cmpint(g_get_monotonic_time() - begun, <, (int64_t)30 * G_USEC_PER_SEC);
		(void)sd_event_run(f->event, 20000);
	}
	int64_t took = g_get_monotonic_time() - begun;
	g_assert_cmpint(took, >, (int64_t)EC_CHANNEL_GREETING_USEC - 100000);
	/* Were each byte waited for anew, it would be twice that and more. */
	g_assert_cmpint(took, <, (int64_t)EC_CHANNEL_GREETING_USEC * 2);
	g_assert_cmpuint(sent, >, 30);
	g_assert_cmpstr(f->acceptor.error, ==, "PeerUnreachable");
	g_assert_cmpuint(answer(f, fd, back, sizeof(back)), ==, 0);
	g_assert_cmpstr(f->dialer.error, ==, "PeerUnreachable");
	g_assert_true(g_str_has_prefix(f->dialer.why, "no answer from 127.0.0.1 port "));
	g_assert_true(g_str_has_suffix(f->dialer.why, " in 5 s"));
	(void)close(fd);
}

/* What answers is no acceptor. */
static int on_bad_server(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	static const char *const words[] = { "SSH-2.0-OpenSSH_9.2p1\r\n",
		"HTTP/1.1 400 Bad Request\r\n\r\n", "\x15\x03\x03\x00\x02\x02\x28",
		"\x15\x03\x03\x00\x02\x02\x33", "\x16\x03\x03\x00\x04\x02\x00\x00\x00", "" };
	static unsigned turn;
	int in = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	const char *word = words[turn++ % EC_ELEMENTS(words)];
	size_t n = word[0] == '\x15' ? 7 : word[0] == '\x16' ? 9 : strlen(word);

	(void)send(in, word, n, MSG_NOSIGNAL);
	(void)shutdown(in, SHUT_WR);
	*(int *)userdata = in; /* not closed: that would be a reset */
	return 0;
}

static void test_bad_server(Channels *f, gconstpointer data)
{
	static const char *const errors[] = { "Protocol", "Protocol", "Protocol", "WrongKey",
		"Protocol", "PeerUnreachable" };
	uint16_t port;
	int fd = channels_listen(&port), in = -1;
	sd_event_source *source = NULL;

	(void)sd_event_add_io(f->event, &source, fd, 1 /* EPOLLIN */, on_bad_server, &in);
	for (size_t i = 0; i < EC_ELEMENTS(errors); i++) {
		channels_dial(f, "laptop", f->key, port);
		wait_for(f, f->dialer.closed);
		g_assert_cmpstr(f->dialer.error, ==, errors[i]);
		g_assert_cmpuint(f->dialer.messages, ==, 0);
		channels_reset(f);
		(void)close(in);
	}
	(void)sd_event_source_disable_unref(source);
	(void)close(fd);
}

#define add(name, function)                                                                        \
	g_test_add("/control-attack/" name, Channels, NULL, channels_set_up, function,             \
			channels_tear_down)

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	add("garbage", test_garbage);
	add("noise", test_noise);
	add("settings", test_settings);
	add("names", test_names);
	add("retry", test_retry);
	add("replay", test_replay);
	add("lengths", test_lengths);
	add("records", test_records);
	add("largest", test_largest);
	add("deaf", test_deaf);
	add("narrow", test_narrow);
	add("slow", test_slow);
	add("bad-server", test_bad_server);
	return g_test_run();
}
