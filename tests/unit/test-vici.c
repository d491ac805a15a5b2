/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "underlay/vici.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "unit.h"

/* A charon of our own at the other end of a socket pair. */

static void put_name(GByteArray *b, uint8_t type, const char *name)
{
	uint8_t head[] = { type, (uint8_t)strlen(name) };

	g_byte_array_append(b, head, sizeof(head));
	g_byte_array_append(b, (const uint8_t *)name, head[1]);
}

static void put_section(GByteArray *b, const char *name)
{
	put_name(b, 1, name);
}

static void put_end(GByteArray *b)
{
	g_byte_array_append(b, (const uint8_t *)"\2", 1);
}

static void put_value(GByteArray *b, const char *key, const char *value)
{
	uint8_t length[] = { (uint8_t)(strlen(value) >> 8), (uint8_t)strlen(value) };

	put_name(b, 3, key);
	g_byte_array_append(b, length, sizeof(length));
	g_byte_array_append(b, (const uint8_t *)value, (guint)strlen(value));
}

static void put_list(GByteArray *b, const char *key, const char *item)
{
	uint8_t head[] = { 5, 0, (uint8_t)strlen(item) };

	put_name(b, 4, key);
	g_byte_array_append(b, head, sizeof(head));
	g_byte_array_append(b, (const uint8_t *)item, head[2]);
	g_byte_array_append(b, (const uint8_t *)"\6", 1);
}

/* As list-sa tells it. */
static GByteArray *sa_message(const char *ike, const char *child, const char *reqid)
{
	GByteArray *b = g_byte_array_new();

	put_section(b, ike);
	put_value(b, "uniqueid", "1");
	put_value(b, "remote-host", "10.9.2.2");
	put_section(b, "child-sas");
	put_section(b, "net-1");
	put_value(b, "name", child);
	put_value(b, "reqid", reqid);
	put_list(b, "remote-ts", "10.50.2.0/24");
	put_end(b);
	put_end(b);
	put_end(b);
	return b;
}

static void frame(GByteArray *out, uint8_t type, const char *event, const GByteArray *message)
{
	guint n = 1 + (event ? 1 + (guint)strlen(event) : 0) + (message ? message->len : 0);
	const uint8_t head[] = { (uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8),
		(uint8_t)n };

	g_byte_array_append(out, head, sizeof(head));
	if (event)
		put_name(out, type, event);
	else
		g_byte_array_append(out, &type, 1);
	if (message)
		g_byte_array_append(out, message->data, message->len);
}

/* The decoder */

static void note_value(const EcViciPlace *at, const char *key, const char *value, void *userdata)
{
	for (unsigned i = 0; i < at->depth; i++)
		g_string_append_printf(userdata, "%s.", at->names[i]);
	g_string_append_printf(userdata, "%s=%s ", key, value);
}

static void note_leave(const EcViciPlace *at, void *userdata)
{
	g_string_append_printf(userdata, "/%s ", at->names[at->depth - 1]);
}

static int parse(const uint8_t *data, size_t size, GString *ret)
{
	const EcViciVisitor visitor = { note_value, note_leave, ret };

	return ec_vici_parse(data, size, &visitor);
}

/* The message of the protocol's documentation (strongSwan, src/libcharon/plugins/vici/README.md).
 */
static const uint8_t golden[] = { 3, 4, 'k', 'e', 'y', '1', 0, 6, 'v', 'a', 'l', 'u', 'e', '1', 1,
	8, 's', 'e', 'c', 't', 'i', 'o', 'n', '1', 1, 11, 's', 'u', 'b', '-', 's', 'e', 'c', 't',
	'i', 'o', 'n', 3, 4, 'k', 'e', 'y', '2', 0, 6, 'v', 'a', 'l', 'u', 'e', '2', 2, 4, 5, 'l',
	'i', 's', 't', '1', 5, 0, 5, 'i', 't', 'e', 'm', '1', 5, 0, 5, 'i', 't', 'e', 'm', '2', 6,
	2 };

static void test_golden(void)
{
	g_autoptr(GString) text = g_string_new(NULL);

	g_assert_cmpint(parse(golden, sizeof(golden), text), ==, 0);
	g_assert_cmpstr(text->str, ==,
			"key1=value1 section1.sub-section.key2=value2 /sub-section /section1 ");
	g_string_truncate(text, 0);
	g_assert_cmpint(parse(golden, 0, text), ==, 0);
	g_assert_cmpstr(text->str, ==, "");
}

static void test_truncated(void)
{
	/* Where it may end: before anything, and behind the first key. */
	for (size_t n = 1; n < sizeof(golden); n++) {
		g_autofree uint8_t *cut = g_memdup2(golden, n);
		g_autoptr(GString) text = g_string_new(NULL);

		g_assert_cmpint(parse(cut, n, text), ==, n == 14 ? 0 : -EBADMSG);
	}
}

static void test_flipped(void)
{
	for (size_t n = 0; n < 8 * sizeof(golden); n++) {
		g_autofree uint8_t *flipped = g_memdup2(golden, sizeof(golden));
		g_autoptr(GString) text = g_string_new(NULL);

		flipped[n / 8] ^= (uint8_t)(1 << n % 8);
		(void)parse(flipped, sizeof(golden), text);
	}
}

static void test_malformed(void)
{
	static const struct {
		const char *bytes;
		size_t size;
	} rows[] = {
		{ "\0", 1 },                /* no element */
		{ "\7\1k", 3 },             /* no such element */
		{ "\2", 1 },                /* an end without beginning */
		{ "\1\1s", 3 },             /* a beginning without end */
		{ "\1\1s\2\2", 5 },         /* an end too many */
		{ "\5\0\1i", 4 },           /* an item outside a list */
		{ "\6", 1 },                /* a list's end outside one */
		{ "\4\1l", 3 },             /* a list without end */
		{ "\4\1l\3\1k\0\1v\6", 9 }, /* a key in a list */
		{ "\3\1k\377\377v", 6 },    /* a value longer than the message */
	};

	for (size_t i = 0; i < EC_ELEMENTS(rows); i++) {
		g_autoptr(GString) text = g_string_new(NULL);

		g_assert_cmpint(parse((const uint8_t *)rows[i].bytes, rows[i].size, text), ==,
				-EBADMSG);
	}
}

static void test_depth(void)
{
	for (unsigned depth = 1; depth <= EC_VICI_DEPTH + 1; depth++) {
		g_autoptr(GByteArray) b = g_byte_array_new();
		g_autoptr(GString) text = g_string_new(NULL);

		for (unsigned i = 0; i < depth; i++)
			put_section(b, "s");
		for (unsigned i = 0; i < depth; i++)
			put_end(b);
		g_assert_cmpint(parse(b->data, b->len, text), ==,
				depth <= EC_VICI_DEPTH ? 0 : -EBADMSG);
	}
}

/* The client */

typedef struct Fixture {
	sd_event *event;
	EcVici *vici;
	int charon; /* its end */
	unsigned changed;
} Fixture;

static void on_changed(void *userdata)
{
	((Fixture *)userdata)->changed++;
}

static void run(Fixture *f)
{
	while (sd_event_run(f->event, 0) > 0)
		;
}

static void set_up(Fixture *f, gconstpointer data)
{
	int fds[2];

	f->changed = 0;
	g_assert_cmpint(sd_event_new(&f->event), >=, 0);
	f->vici = ec_vici_new(f->event, on_changed, f);
	g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), ==,
			0);
	f->charon = fds[1];
	g_assert_cmpint(ec_vici_attach(f->vici, fds[0]), ==, 0);
	g_assert_true(ec_vici_attached(f->vici));
}

static void tear_down(Fixture *f, gconstpointer data)
{
	f->vici = ec_vici_free(f->vici);
	if (f->charon >= 0)
		(void)close(f->charon);
	f->event = sd_event_unref(f->event);
}

static void say(Fixture *f, const void *data, size_t size)
{
	g_assert_cmpint(send(f->charon, data, size, MSG_NOSIGNAL), ==, size);
}

static void say_event(Fixture *f, const char *event, GByteArray *message)
{
	g_autoptr(GByteArray) out = g_byte_array_new();

	frame(out, 7, event, message);
	say(f, out->data, out->len);
	g_byte_array_unref(message);
}

static void test_asks(Fixture *f, gconstpointer data)
{
	uint8_t said[512];
	static const char expected[] = "\0\0\0\14\3\12ike-updown\0\0\0\16\3\14child-updown"
				       "\0\0\0\13\3\11ike-rekey\0\0\0\15\3\13child-rekey"
				       "\0\0\0\14\3\12ike-update\0\0\0\11\3\7list-sa"
				       "\0\0\0\12\0\10list-sas";

	ssize_t n = recv(f->charon, said, sizeof(said), 0);
	g_assert_cmpmem(said, n, expected, sizeof(expected) - 1);
}

static void test_names(Fixture *f, gconstpointer data)
{
	g_autoptr(GByteArray) out = g_byte_array_new();

	for (unsigned i = 0; i < 6; i++)
		frame(out, 5, NULL, NULL);
	say(f, out->data, out->len);
	say_event(f, "list-sa", sa_message("site", "net", "1"));
	say_event(f, "list-sa", sa_message("other", "lan", "2"));
	run(f);
	g_assert_cmpstr(ec_vici_name(f->vici, 1), ==, "site/net");
	g_assert_cmpstr(ec_vici_name(f->vici, 2), ==, "other/lan");
	g_assert_null(ec_vici_name(f->vici, 3));
	g_assert_null(ec_vici_name(f->vici, 0));
	g_assert_cmpuint(f->changed, ==, 1);
	/* The same again is no news; another name is. */
	say_event(f, "child-updown", sa_message("site", "net", "1"));
	run(f);
	g_assert_cmpuint(f->changed, ==, 1);
	say_event(f, "child-updown", sa_message("site", "new", "1"));
	run(f);
	g_assert_cmpuint(f->changed, ==, 2);
	g_assert_cmpstr(ec_vici_name(f->vici, 1), ==, "site/new");
}

static void test_rekey(Fixture *f, gconstpointer data)
{
	GByteArray *b = g_byte_array_new();

	put_section(b, "site");
	put_section(b, "child-sas");
	put_section(b, "net");
	put_section(b, "old");
	put_value(b, "name", "net");
	put_value(b, "reqid", "4");
	put_end(b);
	put_section(b, "new");
	put_value(b, "name", "net");
	put_value(b, "reqid", "5");
	put_end(b);
	put_end(b);
	put_end(b);
	put_end(b);
	say_event(f, "child-rekey", b);
	/* Sections old and new at the top, and nothing of a child. */
	b = g_byte_array_new();
	put_section(b, "site");
	put_section(b, "old");
	put_value(b, "uniqueid", "1");
	put_end(b);
	put_section(b, "new");
	put_value(b, "uniqueid", "2");
	put_end(b);
	put_end(b);
	say_event(f, "ike-rekey", b);
	run(f);
	g_assert_true(ec_vici_attached(f->vici));
	g_assert_cmpstr(ec_vici_name(f->vici, 4), ==, "site/net");
	g_assert_cmpstr(ec_vici_name(f->vici, 5), ==, "site/net");
}

static void test_byte_by_byte(Fixture *f, gconstpointer data)
{
	g_autoptr(GByteArray) m = sa_message("site", "net", "1"), out = g_byte_array_new();

	frame(out, 5, NULL, NULL);
	frame(out, 7, "list-sa", m);
	frame(out, 1, NULL, NULL);
	for (guint i = 0; i < out->len; i++) {
		say(f, out->data + i, 1);
		run(f);
	}
	g_assert_true(ec_vici_attached(f->vici));
	g_assert_cmpstr(ec_vici_name(f->vici, 1), ==, "site/net");
}

static void test_gone(Fixture *f, gconstpointer data)
{
	say_event(f, "list-sa", sa_message("site", "net", "1"));
	run(f);
	g_assert_cmpuint(f->changed, ==, 1);
	(void)close(f->charon);
	f->charon = -1;
	run(f);
	g_assert_false(ec_vici_attached(f->vici));
	g_assert_null(ec_vici_name(f->vici, 1));
	g_assert_cmpuint(f->changed, ==, 2);
}

static void test_nonsense(Fixture *f, gconstpointer data)
{
	if (g_str_equal(data, "too-long")) {
		say(f, "\0\10\0\1", 4); /* 512 KiB and one */
	} else if (g_str_equal(data, "empty")) {
		say(f, "\0\0\0\0", 4);
	} else if (g_str_equal(data, "no-name")) {
		say(f, "\0\0\0\1\7", 5);
	} else if (g_str_equal(data, "long-name")) {
		say(f, "\0\0\0\3\7\2e", 7);
	} else {
		GByteArray *b = sa_message("site", "net", "1");

		g_byte_array_set_size(b, b->len - 1);
		say_event(f, "list-sa", b);
	}
	run(f);
	g_assert_false(ec_vici_attached(f->vici));
	g_assert_null(ec_vici_name(f->vici, 1));
}

static void test_longest(Fixture *f, gconstpointer data)
{
	g_autofree char *chunk = g_strnfill(8192, 'x');

	say(f, "\0\10\0\0\1", 5); /* a response of 512 KiB */
	for (unsigned i = 0; i < 64; i++) {
		say(f, chunk, i == 63 ? 8191 : 8192);
		run(f);
	}
	say_event(f, "list-sa", sa_message("site", "net", "1"));
	run(f);
	g_assert_true(ec_vici_attached(f->vici));
	g_assert_cmpstr(ec_vici_name(f->vici, 1), ==, "site/net");
}

/* Names that no sentence may hold, and numbers that are none. */
static void test_bad_names(Fixture *f, gconstpointer data)
{
	say_event(f, "list-sa", sa_message("si\033te", "net", "1"));
	say_event(f, "list-sa", sa_message("si\377te", "net", "2"));
	say_event(f, "list-sa", sa_message("site", "net", "0"));
	say_event(f, "list-sa", sa_message("site", "net", "-3"));
	say_event(f, "list-sa", sa_message("site", "net", "99999999999"));
	run(f);
	g_assert_true(ec_vici_attached(f->vici));
	g_assert_cmpuint(f->changed, ==, 0);
	g_assert_null(ec_vici_name(f->vici, 1));
	g_assert_null(ec_vici_name(f->vici, 2));
}

static void test_flipped_stream(Fixture *f, gconstpointer data)
{
	g_autoptr(GByteArray) m = sa_message("site", "net", "1"), out = g_byte_array_new();

	frame(out, 7, "list-sa", m);
	for (guint n = 0; n < 8 * out->len; n++) {
		g_autofree uint8_t *flipped = g_memdup2(out->data, out->len);

		flipped[n / 8] ^= (uint8_t)(1 << n % 8);
		say(f, flipped, out->len);
		run(f);
		tear_down(f, NULL);
		set_up(f, NULL);
	}
}

#define add(name, data, function)                                                                  \
	g_test_add("/vici/" name, Fixture, data, set_up, function, tear_down)

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/vici/golden", test_golden);
	g_test_add_func("/vici/truncated", test_truncated);
	g_test_add_func("/vici/flipped", test_flipped);
	g_test_add_func("/vici/malformed", test_malformed);
	g_test_add_func("/vici/depth", test_depth);
	add("asks", NULL, test_asks);
	add("names", NULL, test_names);
	add("rekey", NULL, test_rekey);
	add("byte-by-byte", NULL, test_byte_by_byte);
	add("gone", NULL, test_gone);
	add("too-long", "too-long", test_nonsense);
	add("empty", "empty", test_nonsense);
	add("no-name", "no-name", test_nonsense);
	add("long-name", "long-name", test_nonsense);
	add("cut", "cut", test_nonsense);
	add("longest", NULL, test_longest);
	add("bad-names", NULL, test_bad_names);
	add("flipped-stream", NULL, test_flipped_stream);
	return g_test_run();
}
