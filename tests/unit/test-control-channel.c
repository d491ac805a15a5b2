/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <dlfcn.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "channels.h"
#include "unit.h"

/* Two channels that mean well, and networks that do not. Bad peers: test-control-attack.c. */

static void open_both(Channels *f)
{
	channels_dial(f, f->known, f->key, f->port);
	wait_for(f, f->acceptor.c && ec_channel_is_proven(f->acceptor.c) && f->dialer.opened);
}

static void test_open(Channels *f, gconstpointer data)
{
	uint8_t near[32], far[32];
	EcControlMessage m = channels_ping(42), welcome = channels_bye("welcome");

	f->acceptor.says = &welcome;
	channels_dial(f, "laptop", f->key, f->port);
	g_assert_cmpint(ec_channel_export(f->dialer.c, "EXPORTER-ethercord-a", near), <, 0);
	wait_for(f, f->dialer.messages == 1);
	g_assert_cmpstr(f->dialer.last.text, ==, "welcome");
	g_assert_true(ec_channel_is_proven(f->dialer.c));
	wait_for(f, f->acceptor.c && ec_channel_is_proven(f->acceptor.c));
	g_assert_cmpstr(ec_channel_identity(f->acceptor.c), ==, "laptop");
	g_assert_false(ec_channel_is_keyless(f->acceptor.c));
	ec_channel_send(f->dialer.c, &m);
	wait_for(f, f->acceptor.messages == 1);
	g_assert_cmpuint(f->acceptor.last.seq, ==, 42);
	m.seq = 43;
	ec_channel_send(f->acceptor.c, &m);
	wait_for(f, f->dialer.messages == 2);
	g_assert_cmpuint(f->dialer.last.seq, ==, 43);
	g_assert_cmpint(ec_channel_export(f->dialer.c, "EXPORTER-ethercord-a", near), ==, 0);
	g_assert_cmpint(ec_channel_export(f->acceptor.c, "EXPORTER-ethercord-a", far), ==, 0);
	g_assert_cmpmem(near, 32, far, 32);
	g_assert_cmpint(ec_channel_export(f->acceptor.c, "EXPORTER-ethercord-b", far), ==, 0);
	g_assert_cmpint(memcmp(near, far, 32), !=, 0);
	g_assert_cmpuint(ec_channel_remote_port(f->dialer.c), ==, f->port);
	g_assert_true(ec_address_equal(
			ec_channel_remote(f->acceptor.c), ec_channel_local(f->dialer.c)));
}

/* More than there is room for comes after the handshake. */
static void test_late(Channels *f, gconstpointer data)
{
	EcControlMessage long_one = { .type = EC_CONTROL_WELCOME, .protocol = 1, .n_encaps = 16 };

	(void)g_strlcpy(long_one.name, "office", sizeof(long_one.name));
	for (int i = 0; i < 16; i++) {
		memset(long_one.encaps[i].name, 'x', sizeof(long_one.encaps[i].name) - 1);
		memset(long_one.encaps[i].plane, 'y', sizeof(long_one.encaps[i].plane) - 1);
	}
	f->acceptor.says = &long_one;
	channels_dial(f, "laptop", f->key, f->wire_port);
	wait_for(f, f->dialer.opened);
	g_assert_cmpuint(f->dialer.messages, ==, 0);
	wait_for(f, f->dialer.messages == 1);
	g_assert_cmpuint(f->dialer.last.n_encaps, ==, 16);
}

/* The acceptor's word comes with its first flight: before it has anything but the ClientHello. */
static void test_early(Channels *f, gconstpointer data)
{
	EcControlMessage welcome = channels_bye("welcome");

	memset(welcome.text, 'x', sizeof(welcome.text) - 1);
	f->acceptor.says = &welcome;
	channels_dial(f, "laptop", f->key, f->wire_port);
	wait_for(f, f->there.seen && f->there.seen->len > 0);
	f->there.hold = f->there.seen->len;
	wait_for(f, f->dialer.messages == 1);
	g_assert_true(f->acceptor.opened);
	g_assert_false(ec_channel_is_proven(f->acceptor.c));
	g_assert_cmpuint(f->there.seen->len, ==, f->there.hold);
	/* No answer is larger than its question. */
	g_assert_cmpuint(f->back.seen->len, >, sizeof(welcome.text));
	g_assert_cmpuint(f->back.seen->len, <=, f->there.seen->len);
	/* The rest of the handshake. */
	f->there.hold = NOT_YET;
	(void)sd_event_source_set_enabled(f->there.source, SD_EVENT_ON);
	wait_for(f, ec_channel_is_proven(f->acceptor.c));
}

static void test_keyless(Channels *f, gconstpointer data)
{
	EcControlMessage m = channels_ping(1);

	f->known = "~laptop";
	f->dialer.says = &m;
	channels_dial(f, "~laptop", ec_channel_keyless_key, f->port);
	wait_for(f, f->acceptor.messages == 1);
	g_assert_true(ec_channel_is_keyless(f->acceptor.c));
	g_assert_true(ec_channel_is_keyless(f->dialer.c));
	g_assert_cmpstr(ec_channel_identity(f->acceptor.c), ==, "~laptop");
}

typedef struct WrongKey {
	const char *identity, *part;
	bool right_key;
} WrongKey;

static void test_wrong_key(Channels *f, gconstpointer data)
{
	const WrongKey *w = data;
	uint8_t wrong[EC_CHANNEL_KEY_SIZE] = { 1 };

	channels_dial(f, w->identity, w->right_key ? f->key : wrong, f->wire_port);
	wait_for(f, f->dialer.closed && f->acceptor.closed);
	g_assert_cmpstr(f->dialer.error, ==, "WrongKey");
	g_assert_cmpstr(f->acceptor.error, ==, "WrongKey");
	g_assert_nonnull(strstr(f->dialer.why, w->part));
	g_assert_nonnull(strstr(f->dialer.why, "127.0.0.1 port "));
	g_assert_cmpuint(f->asked, ==, 1);
	g_assert_false(f->acceptor.opened || f->dialer.opened);
	/* An alert, and nothing that tells a name that is known from one that is not. */
	g_assert_cmpuint(f->back.seen->len, ==, 7);
	g_assert_cmpmem(f->back.seen->data, 7, "\x15\x03\x03\x00\x02\x02\x2f", 7);
}

static void test_refused(Channels *f, gconstpointer data)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcChannelRoute route = { .remote = unit_address("127.0.0.1") };

	(void)close(channels_listen(&route.port));
	if (ec_channel_dial(f->event, &route, "laptop", f->key, &channels_ops, &f->dialer,
			    &f->dialer.c, &error) < 0) {
		unit_assert_error(-1, &error, "PeerUnreachable", "Connection refused");
		return;
	}
	wait_for(f, f->dialer.closed);
	g_assert_cmpstr(f->dialer.error, ==, "PeerUnreachable");
	g_assert_nonnull(strstr(f->dialer.why, "Connection refused"));
}

static void test_no_route(Channels *f, gconstpointer data)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcChannelRoute route = { .remote = unit_address("127.0.0.1"), .port = f->port };
	EcChannel *c = NULL;

	(void)g_strlcpy(route.device, "ec-no-such", sizeof(route.device));
	int r = ec_channel_dial(
			f->event, &route, "laptop", f->key, &channels_ops, &f->dialer, &c, &error);
	unit_assert_error(r, &error, "PeerUnreachable", "No such device");
	g_assert_null(c);
	sd_bus_error_free(&error);
	*route.device = '\0';
	route.local = unit_address("192.0.2.99");
	r = ec_channel_dial(
			f->event, &route, "laptop", f->key, &channels_ops, &f->dialer, &c, &error);
	unit_assert_error(r, &error, "PeerUnreachable", "Cannot assign requested address");
}

static void test_local(Channels *f, gconstpointer data)
{
	EcChannelRoute route = { .remote = unit_address("127.0.0.1"),
		.port = f->port,
		.local = unit_address("127.0.0.9"),
		.device = "lo" };

	g_assert_cmpint(ec_channel_dial(f->event, &route, "laptop", f->key, &channels_ops,
					&f->dialer, &f->dialer.c, NULL),
			==, 0);
	wait_for(f, f->acceptor.opened);
	g_assert_true(ec_address_equal(ec_channel_remote(f->acceptor.c), &route.local));
}

/* A BYE and the end, in this order, though the socket is closed at once and bytes are unread. */
static void test_bye(Channels *f, gconstpointer data)
{
	EcControlMessage m = channels_bye("so long");

	open_both(f);
	for (int i = 0; i < 10; i++)
		ec_channel_send(f->acceptor.c, &m);
	ec_channel_send(f->dialer.c, &m);
	f->dialer.c = ec_channel_free(f->dialer.c);
	wait_for(f, f->acceptor.closed);
	g_assert_cmpuint(f->acceptor.messages, ==, 1);
	g_assert_cmpstr(f->acceptor.last.text, ==, "so long");
	g_assert_true(f->acceptor.in_order);
	/* Nothing more comes of it. */
	ec_channel_send(f->acceptor.c, &m);
	settle(f);
	g_assert_false(ec_channel_is_open(f->acceptor.c));
}

static void test_owner(Channels *f, gconstpointer data)
{
	EcControlMessage m = channels_ping(5);
	End other = { .opened = true };

	open_both(f);
	ec_channel_set_owner(f->acceptor.c, &channels_ops, &other);
	ec_channel_send(f->dialer.c, &m);
	wait_for(f, other.messages == 1);
	g_assert_cmpuint(f->acceptor.messages, ==, 0);
	ec_channel_set_owner(f->acceptor.c, &channels_ops, &f->acceptor);
}

/* Queued before there is anything to send it on. */
static void test_queue(Channels *f, gconstpointer data)
{
	EcControlMessage m = channels_bye("");

	memset(m.text, 'x', sizeof(m.text) - 1);
	channels_dial(f, "laptop", f->key, f->port);
	for (unsigned i = 0; i < 100; i++) {
		m.seq = i;
		ec_channel_send(f->dialer.c, &m);
	}
	wait_for(f, f->acceptor.messages == 100);
	/* Both at once, more than the sockets take. */
	for (unsigned i = 0; i < 300; i++) {
		ec_channel_send(f->dialer.c, &m);
		ec_channel_send(f->acceptor.c, &m);
	}
	wait_for(f, f->acceptor.messages == 400 && f->dialer.messages == 300);
}

/* Each op of each end frees its channel, with more to come. */
static void test_free(Channels *f, gconstpointer data)
{
	EcControlMessage m = channels_ping(1);

	for (FreeIn in = FREE_IN_KEY; in <= FREE_IN_CLOSED; in++) {
		for (int which = 0; which < 2; which++) {
			End *e = which ? &f->acceptor : &f->dialer;
			End *other = which ? &f->dialer : &f->acceptor;

			if (in == FREE_IN_KEY && !which)
				continue;
			f->dialer.says = f->acceptor.says = &m;
			e->free_in = in;
			e->free_at = 1;
			channels_dial(f, "laptop", f->key, f->port);
			if (in == FREE_IN_CLOSED) {
				wait_for(f, e->messages == 1);
				other->c = ec_channel_free(other->c);
				wait_for(f, e->closed);
			} else {
				wait_for(f, other->closed);
			}
			g_assert_null(e->c);
			g_assert_cmpint(e->closed, ==, in == FREE_IN_CLOSED);
			e->free_in = FREE_NEVER;
			channels_reset(f);
		}
	}
}

/* The connection ends after each byte of either way. */
static void test_cut(Channels *f, gconstpointer data)
{
	EcControlMessage m = channels_ping(42);
	Way *w = data ? &f->back : &f->there;
	size_t n;

	f->dialer.says = f->acceptor.says = &m;
	channels_dial(f, "laptop", f->key, f->wire_port);
	wait_for(f, f->acceptor.messages == 1 && f->dialer.messages == 1);
	n = w->seen->len;
	for (size_t cut = 1; cut < n; cut++) {
		channels_reset(f);
		w->cut = cut;
		channels_dial(f, "laptop", f->key, f->wire_port);
		wait_for(f, f->dialer.closed && f->acceptor.closed);
		g_assert_cmpuint((data ? &f->dialer : &f->acceptor)->messages, ==, 0);
		g_assert_false(f->dialer.in_order && f->acceptor.in_order);
	}
}

/* One bit of either way changes, wherever: nothing is heard that was not said. */
static void test_flip(Channels *f, gconstpointer data)
{
	EcControlMessage m = channels_ping(42);
	Way *w = data ? &f->back : &f->there;
	End *e = data ? &f->dialer : &f->acceptor;
	unsigned unnoticed = 0;
	size_t n;

	f->dialer.says = f->acceptor.says = &m;
	channels_dial(f, "laptop", f->key, f->wire_port);
	wait_for(f, f->acceptor.messages == 1 && f->dialer.messages == 1);
	n = w->seen->len;
	/* A prime: the bits of a byte take turns. */
	for (size_t flip = 0; flip < 8 * n; flip += 7) {
		channels_reset(f);
		w->flip = flip;
		channels_dial(f, "laptop", f->key, f->wire_port);
		/* A length that became larger is waited for. */
		while ((!f->dialer.closed || !f->acceptor.closed) && e->messages == 0 &&
				sd_event_run(f->event, 100000) > 0)
			;
		unnoticed += e->messages > 0;
		g_assert_true(e->messages == 0 || e->last.seq == 42);
	}
	/* Of what TLS does not look at: a version field, the change_cipher_spec of old. */
	g_test_message("%u of %zu not noticed", unnoticed, 8 * n / 7);
	g_assert_cmpuint(unnoticed, <, 8);
}

static size_t resident(void)
{
	size_t pages = 0;
	FILE *file = fopen("/proc/self/statm", "re");

	g_assert_nonnull(file);
	g_assert_cmpint(fscanf(file, "%*u %zu", &pages), ==, 1);
	(void)fclose(file);
	return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* What an idle channel costs. Both ends are of this process. */
static void test_memory(Channels *f, gconstpointer data)
{
	enum {
		PAIRS = 100
	};
	static End near[PAIRS], far[PAIRS];
	size_t before = 0;

	for (int i = 0; i < PAIRS; i++) {
		if (i == PAIRS / 2) {
			(void)malloc_trim(0);
			before = resident();
		}
		open_both(f);
		near[i].c = g_steal_pointer(&f->dialer.c);
		far[i].c = g_steal_pointer(&f->acceptor.c);
		ec_channel_set_owner(near[i].c, &channels_ops, &near[i]);
		ec_channel_set_owner(far[i].c, &channels_ops, &far[i]);
		channels_reset(f);
	}
	(void)malloc_trim(0);
	size_t each = (resident() - before) / PAIRS;
	g_test_message("%zu bytes for an idle channel", each);
	g_assert_cmpuint(each, <, 32768);
	for (int i = 0; i < PAIRS; i++) {
		(void)ec_channel_free(near[i].c);
		(void)ec_channel_free(far[i].c);
	}
}

#define add(name, data, function)                                                                  \
	g_test_add("/control-channel/" name, Channels, data, channels_set_up, function,            \
			channels_tear_down)

int main(int argc, char **argv)
{
	static const WrongKey wrong = { "laptop", "does not know 'laptop' with this key" },
			      unknown = { "nobody", "does not know 'nobody' with", true },
			      keyless = { "~laptop", "does not take 'laptop' without a key" };

	g_test_init(&argc, &argv, NULL);
	add("open", NULL, test_open);
	add("early", NULL, test_early);
	add("late", NULL, test_late);
	add("keyless", NULL, test_keyless);
	add("wrong-key", &wrong, test_wrong_key);
	add("unknown-name", &unknown, test_wrong_key);
	add("keyless-unknown", &keyless, test_wrong_key);
	add("refused", NULL, test_refused);
	add("no-route", NULL, test_no_route);
	add("local", NULL, test_local);
	add("bye", NULL, test_bye);
	add("owner", NULL, test_owner);
	add("queue", NULL, test_queue);
	add("free", NULL, test_free);
	add("cut-there", NULL, test_cut);
	add("cut-back", "back", test_cut);
	add("flip-there", NULL, test_flip);
	add("flip-back", "back", test_flip);
	/* A sanitizer's memory is not the program's; the plain builds measure. */
	if (!dlsym(RTLD_DEFAULT, "__asan_init"))
		add("memory", NULL, test_memory);
	return g_test_run();
}
