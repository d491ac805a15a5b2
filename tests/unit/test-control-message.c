/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control-message.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "unit.h"

/*
 * What stands here as text is the wire format, written down a second time: it does not come from
 * the table that it checks.
 */

/* A message with every key, and which of them it cannot do without. */
typedef struct Sample {
	const char *type, *needed, *text;
} Sample;

static const Sample samples[] = {
	{ "welcome", "protocol name nonce instance encapsulations ids",
			"{'type': <'welcome'>, 'protocol': <uint32 1>, 'minor': <uint32 3>, "
			"'name': <'office'>, 'peer': <'laptop'>, 'nonce': <uint64 12>, "
			"'instance': <uint64 13>, 'mode': <'join-remote'>, 'bridged': <true>, "
			"'seen': <'192.0.2.7'>, 'any-order': <true>, "
			"'encapsulations': <[('vxlan', 'kernel', uint16 4789), ('gretap', 'user', 0)]>, "
			"'ids': <[uint32 5, 6]>, 'encapsulation': <'vxlan'>, 'id': <uint32 7>, "
			"'path-mtu': <uint32 1420>, 'mtu': <uint32 1370>, 'bridge-mtu': <uint32 1500>, 'probe-group': <uint32 2>, "
			"'full-frames': <'auto'>, "
			"'mac': <[byte 0x02, 0x00, 0x00, 0x00, 0x00, 0x01]>}" },
	{ "choose", "protocol name nonce instance mode encapsulation id mtu size round",
			"{'type': <'choose'>, 'protocol': <uint32 1>, 'minor': <uint32 3>, "
			"'name': <'office'>, 'nonce': <uint64 12>, 'instance': <uint64 13>, "
			"'mode': <'join-remote'>, 'bridged': <true>, 'local': <'fd00::7'>, "
			"'encapsulation': <'vxlan'>, 'plane': <'kernel'>, 'id': <uint32 7>, "
			"'data-port': <uint16 4789>, 'remote-data-port': <uint16 4790>, "
			"'path-mtu': <uint32 1420>, 'mtu': <uint32 1370>, 'split': <true>, "
			"'size': <uint32 1370>, 'mac': <[byte 0x02, 0x00, 0x00, 0x00, 0x00, 0x01]>, "
			"'round': <uint32 2>}" },
	{ "ready", "round",
			"{'type': <'ready'>, 'mac': <[byte 0x02, 0x00, 0x00, 0x00, 0x00, 0x01]>, "
			"'round': <uint32 2>}" },
	{ "ping", "seq",
			"{'type': <'ping'>, 'seq': <uint64 9>, 'rx-packets': <uint64 10>, "
			"'tx-packets': <uint64 11>}" },
	{ "pong", "seq",
			"{'type': <'pong'>, 'seq': <uint64 9>, 'rx-packets': <uint64 10>, "
			"'tx-packets': <uint64 11>}" },
	{ "bye", "error", "{'type': <'bye'>, 'error': <'down'>, 'text': <'it was taken down'>}" },
	{ "refuse", "error text", "{'type': <'refuse'>, 'error': <'Refused'>, 'text': <'no'>}" },
};

static const EcControlMessage welcome = {
	.type = EC_CONTROL_WELCOME,
	.protocol = 1,
	.minor = 3,
	.name = "office",
	.peer = "laptop",
	.nonce = 12,
	.instance = 13,
	.mode = "join-remote",
	.bridged = true,
	.any_order = true,
	.encaps = { { "vxlan", "kernel", 4789 }, { "gretap", "user", 0 } },
	.n_encaps = 2,
	.ids = { 5, 6 },
	.n_ids = 2,
	.encapsulation = "vxlan",
	.id = 7,
	.path_mtu = 1420,
	.mtu = 1370,
	.bridge_mtu = 1500,
	.probe_group = 2,
	.full_frames = "auto",
	.mac = { 2, 0, 0, 0, 0, 1 },
};

static GVariant *parse(const char *text)
{
	g_autoptr(GError) error = NULL;
	GVariant *v = g_variant_parse(G_VARIANT_TYPE_VARDICT, text, NULL, NULL, &error);

	if (!v)
		g_error("%s: %s", text, error->message);
	return g_variant_take_ref(v);
}

static int decode_variant(GVariant *v, EcControlMessage *ret, sd_bus_error *error)
{
	g_autoptr(GVariant) wire = NULL;

#if G_BYTE_ORDER == G_BIG_ENDIAN
	wire = g_variant_byteswap(v);
#else
	wire = g_variant_ref(v);
#endif
	return ec_control_message_decode(
			g_variant_get_data(wire), g_variant_get_size(wire), ret, error);
}

/* Without `skip`; and with `key` as given by `value` (at its end), where there is one. */
static GVariant *edit(GVariant *v, const char *skip, const char *key, GVariant *value)
{
	GVariantBuilder b;
	GVariantIter iter;
	const char *k;
	GVariant *item;

	g_variant_builder_init(&b, G_VARIANT_TYPE_VARDICT);
	g_variant_iter_init(&iter, v);
	while (g_variant_iter_loop(&iter, "{&sv}", &k, &item)) {
		if (!skip || !g_str_equal(k, skip))
			g_variant_builder_add(&b, "{sv}", k, item);
	}
	if (key)
		g_variant_builder_add(&b, "{sv}", key, value);
	return g_variant_ref_sink(g_variant_builder_end(&b));
}

static void assert_bad(GVariant *v, const char *part)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	static const EcControlMessage none;
	EcControlMessage m;

	int r = decode_variant(v, &m, &error);
	unit_assert_error(r, &error, "Protocol", part);
	g_assert_cmpint(r, ==, -EBADMSG);
	g_assert_cmpmem(&m, sizeof(m), &none, sizeof(none));
}

static void assert_good(GVariant *v)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcControlMessage m;

	if (decode_variant(v, &m, &error) < 0)
		g_error("%s", error.message);
}

/* What is decoded is encoded to the same dictionary, whatever the order of its keys. */
static void test_samples(void)
{
	for (size_t i = 0; i < EC_ELEMENTS(samples); i++) {
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
		g_autoptr(GVariant) v = parse(samples[i].text);
		EcControlMessage m;

		if (decode_variant(v, &m, &error) < 0)
			g_error("%s: %s", samples[i].type, error.message);
		g_assert_cmpstr(ec_control_type_to_string(m.type), ==, samples[i].type);
		g_autoptr(GByteArray) bytes = ec_control_message_encode(&m);
		g_autoptr(GBytes) body = g_bytes_new(bytes->data + 4, bytes->len - 4);
		g_autoptr(GVariant) again = g_variant_ref_sink(
				g_variant_new_from_bytes(G_VARIANT_TYPE_VARDICT, body, FALSE));
#if G_BYTE_ORDER == G_LITTLE_ENDIAN
		g_autofree char *text = g_variant_print(again, TRUE);
		g_autofree char *meant = g_variant_print(v, TRUE);
		g_assert_cmpstr(text, ==, meant);
#endif
		g_assert_cmpuint(bytes->data[2] << 8 | bytes->data[3], ==, bytes->len - 4);
	}
	g_assert_cmpstr(ec_control_type_to_string(_EC_CONTROL_TYPE_MAX), ==, "unknown");
}

static void test_members(void)
{
	g_autoptr(GVariant) v = parse(samples[0].text);
	EcControlMessage m, meant = welcome;

	meant.seen.family = AF_INET;
	g_assert_cmpint(inet_pton(AF_INET, "192.0.2.7", meant.seen.bytes), ==, 1);
	g_assert_cmpint(decode_variant(v, &m, NULL), ==, 0);
	g_assert_cmpmem(&m, sizeof(m), &meant, sizeof(meant));
}

/* Only the dialer says how frames are cut and where its own go. */
static void test_choose(void)
{
	g_autoptr(GVariant) v = parse(samples[1].text), short_one = edit(v, "split", NULL, NULL);
	g_autoptr(GVariant) shorter = edit(short_one, "remote-data-port", NULL, NULL);
	g_autoptr(GVariant) other = parse(samples[0].text);
	g_autoptr(GVariant) foreign = edit(other, NULL, "split", g_variant_new_boolean(TRUE));
	EcControlMessage m;

	g_assert_cmpint(decode_variant(v, &m, NULL), ==, 0);
	g_assert_true(m.split);
	g_assert_cmpuint(m.remote_data_port, ==, 4790);
	/* A peer that is older says neither. */
	g_assert_cmpint(decode_variant(shorter, &m, NULL), ==, 0);
	g_assert_false(m.split);
	g_assert_cmpuint(m.remote_data_port, ==, 0);
	g_assert_cmpuint(m.data_port, ==, 4789);
	/* In a WELCOME it is as unknown as any other key. */
	g_assert_cmpint(decode_variant(foreign, &m, NULL), ==, 0);
	g_assert_false(m.split);
}

static void test_keys(void)
{
	for (size_t i = 0; i < EC_ELEMENTS(samples); i++) {
		g_auto(GStrv) needed = g_strsplit(samples[i].needed, " ", -1);
		g_autoptr(GVariant) v = parse(samples[i].text);
		GVariantIter iter;
		const char *key;
		GVariant *value;

		g_variant_iter_init(&iter, v);
		while (g_variant_iter_loop(&iter, "{&sv}", &key, &value)) {
			g_autofree char *quoted = g_strdup_printf("'%s'", key);
			g_autoptr(GVariant) without = edit(v, key, NULL, NULL);
			g_autoptr(GVariant) other = edit(v, key, key, g_variant_new_int32(1));
			g_autoptr(GVariant) twice = edit(v, NULL, key, value);

			assert_bad(other, quoted);
			if (g_str_equal(key, "type"))
				continue;
			assert_bad(twice, quoted);
			if (g_strv_contains((const char *const *)needed, key))
				assert_bad(without, quoted);
			else
				assert_good(without);
		}
	}
}

static void test_values(void)
{
	static const struct {
		unsigned sample;
		const char *key, *value;
		bool good;
	} cases[] = {
		{ 0, "name", "'%63'", true },
		{ 0, "name", "'%64'", false },
		{ 0, "name", "''", false },
		{ 0, "name", "'a\\nb'", false },
		{ 0, "name", "'a\\u009fb'", false },
		{ 0, "name", "'b\\u00fcro'", true },
		{ 0, "peer", "'%64'", false },
		{ 0, "mode", "'\\u001b[31m'", false },
		{ 0, "seen", "'2001:db8::1'", true },
		{ 0, "seen", "''", false },
		{ 0, "seen", "'vpn.example'", false },
		{ 0, "seen", "'192.0.2.7/24'", false },
		{ 0, "seen", "'fe80::1%%eth0'", false },
		{ 0, "mac", "[byte 1, 2, 3, 4, 5]", false },
		{ 0, "mac", "[byte 1, 2, 3, 4, 5, 6, 7]", false },
		{ 0, "mac", "@ay []", false },
		{ 0, "ids", "@au []", true },
		{ 0, "ids", "[uint32 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]", true },
		{ 0, "ids", "[uint32 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]", false },
		{ 0, "encapsulations", "@a(ssq) []", true },
		{ 0, "encapsulations", "[('', 'kernel', uint16 1)]", false },
		{ 0, "encapsulations", "[('vxlan', '%64', uint16 1)]", false },
		{ 0, "encapsulations", "[('vxlan', 'kernel')]", false },
		{ 1, "split", "false", true },
		{ 1, "split", "'yes'", false },
		{ 1, "split", "uint32 1", false },
		{ 1, "remote-data-port", "uint16 0", true },
		{ 1, "remote-data-port", "uint16 65535", true },
		{ 1, "remote-data-port", "uint32 4790", false },
		{ 1, "remote-data-port", "@aq [4790]", false },
		{ 1, "plane", "'user'", true },
		{ 1, "plane", "'%64'", false },
		{ 6, "text", "'%511'", true },
		{ 6, "text", "'%512'", false },
		{ 6, "text", "'one\\ttwo'", false },
	};

	for (size_t i = 0; i < EC_ELEMENTS(cases); i++) {
		g_autoptr(GVariant) v = parse(samples[cases[i].sample].text);
		g_auto(GStrv) part = g_strsplit(cases[i].value, "%", 2);
		g_autoptr(GString) text = g_string_new(part[0]);
		char *rest = part[1];

		if (rest && g_ascii_isdigit(*rest)) {
			for (guint64 n = g_ascii_strtoull(part[1], &rest, 10); n > 0; n--)
				g_string_append_c(text, 'x');
		}
		g_string_append(text, rest ? rest : "");
		g_autoptr(GVariant) value = g_variant_parse(NULL, text->str, NULL, NULL, NULL);
		g_assert_nonnull(value);
		g_autoptr(GVariant) edited = edit(v, cases[i].key, cases[i].key, value);
		if (cases[i].good)
			assert_good(edited);
		else
			assert_bad(edited, cases[i].key);
	}
}

static void test_many_encapsulations(void)
{
	for (unsigned n = 16; n <= 17; n++) {
		g_autoptr(GVariant) v = parse(samples[0].text);
		GVariantBuilder b;

		g_variant_builder_init(&b, G_VARIANT_TYPE("a(ssq)"));
		for (unsigned i = 0; i < n; i++)
			g_variant_builder_add(&b, "(ssq)", "vxlan", "kernel", i);
		g_autoptr(GVariant) edited = edit(
				v, "encapsulations", "encapsulations", g_variant_builder_end(&b));
		if (n == 16)
			assert_good(edited);
		else
			assert_bad(edited, "encapsulations");
	}
}

static void test_unknown(void)
{
	g_autoptr(GVariant) type = parse("{'type': <'dance'>, 'seq': <1>}");
	g_autoptr(GVariant) none = parse("{'seq': <uint64 1>}");
	g_autoptr(GVariant) keys = parse("{'type': <'ping'>, 'seq': <uint64 1>, 'later': <<<3>>>, "
					 "'name': <17>, 'handle': <handle 3>}");
	static const EcControlMessage nothing;
	EcControlMessage m;

	g_assert_cmpint(decode_variant(type, &m, NULL), ==, -EOPNOTSUPP);
	g_assert_cmpmem(&m, sizeof(m), &nothing, sizeof(nothing));
	assert_bad(none, "'type'");
	/* 'name' is none of a ping's: as unknown as the others. */
	g_assert_cmpint(decode_variant(keys, &m, NULL), ==, 0);
	g_assert_cmpuint(m.seq, ==, 1);
	g_assert_cmpstr(m.name, ==, "");
}

static void test_newer(void)
{
	g_autoptr(GVariant) v = parse("{'type': <'welcome'>, 'protocol': <uint32 2>, 'name': <7>}");
	g_autoptr(GVariant) ours = parse("{'type': <'welcome'>, 'protocol': <uint32 1>}");
	g_autoptr(GVariant) other = parse("{'type': <'ready'>, 'protocol': <uint32 2>}");
	EcControlMessage m, meant = { .type = EC_CONTROL_WELCOME, .protocol = 2 };

	g_assert_cmpint(decode_variant(v, &m, NULL), ==, 0);
	g_assert_cmpmem(&m, sizeof(m), &meant, sizeof(meant));
	assert_bad(ours, "missing");
	assert_bad(other, "'round' is missing");
}

static void test_bytes(void)
{
	g_autoptr(GByteArray) bytes = ec_control_message_encode(&welcome);
	const uint8_t *body = bytes->data + 4;
	size_t n = bytes->len - 4;
	g_autofree uint8_t *copy = g_malloc(n + 9), *huge = g_malloc0(EC_CONTROL_SIZE_MAX + 1);
	EcControlMessage m;

	/* At any alignment. */
	for (size_t at = 0; at < 9; at++) {
		memcpy(copy + at, body, n);
		g_assert_cmpint(ec_control_message_decode(copy + at, n, &m, NULL), ==, 0);
		g_assert_cmpmem(&m, sizeof(m), &welcome, sizeof(welcome));
	}
	/* Cut anywhere: at a place that leaves a dictionary, too, something needed is missing. */
	for (size_t cut = 0; cut < n; cut++) {
		g_autofree uint8_t *exact = g_memdup2(body, cut);

		g_assert_cmpint(ec_control_message_decode(exact, cut, &m, NULL), ==, -EBADMSG);
	}
	for (size_t bit = 0; bit < 8 * n; bit++) {
		g_autofree uint8_t *exact = g_memdup2(body, n);

		exact[bit / 8] ^= (uint8_t)(1u << bit % 8);
		(void)ec_control_message_decode(exact, n, &m, NULL);
	}
	g_assert_cmpint(ec_control_message_decode(huge, EC_CONTROL_SIZE_MAX + 1, &m, NULL), ==,
			-EBADMSG);
	g_assert_cmpint(ec_control_message_decode(huge, EC_CONTROL_SIZE_MAX, &m, NULL), ==,
			-EBADMSG);
}

static void test_length(void)
{
	static const struct {
		uint8_t header[4];
		int length;
	} cases[] = {
		{ { 0, 0, 0, 1 }, 1 },
		{ { 0, 0, 1, 2 }, 258 },
		{ { 0, 1, 0, 0 }, 65536 },
		{ { 0, 0, 0, 0 }, -EMSGSIZE },
		{ { 0, 1, 0, 1 }, -EMSGSIZE },
		{ { 0x80, 0, 0, 1 }, -EMSGSIZE },
		{ { 0xff, 0xff, 0xff, 0xff }, -EMSGSIZE },
		{ { 'G', 'E', 'T', ' ' }, -EMSGSIZE },
	};

	for (size_t i = 0; i < EC_ELEMENTS(cases); i++) {
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
		int r = ec_control_message_length(cases[i].header, &error);

		g_assert_cmpint(r, ==, cases[i].length);
		if (r < 0)
			unit_assert_error(r, &error, "Protocol", "1 to 65536");
	}
}

/* Whatever an owner puts into a text, the other end takes it. */
static void test_dirty(void)
{
	EcControlMessage m = { .type = EC_CONTROL_REFUSE, .error = "Kernel" }, got;

	memset(m.text, 'x', sizeof(m.text) - 2);
	m.text[0] = '\n';
	m.text[3] = '\x9b';
	m.text[sizeof(m.text) - 2] = '\xc3'; /* half a character */
	g_autoptr(GByteArray) bytes = ec_control_message_encode(&m);
	g_assert_cmpint(ec_control_message_decode(bytes->data + 4, bytes->len - 4, &got, NULL), ==,
			0);
	g_assert_true(g_str_has_prefix(got.text, " xx\xef\xbf\xbdxx"));
	/* Not even ended. */
	memset(m.text, 'y', sizeof(m.text));
	g_autoptr(GByteArray) endless = ec_control_message_encode(&m);
	g_assert_cmpint(ec_control_message_decode(endless->data + 4, endless->len - 4, &got, NULL),
			==, 0);
	g_assert_cmpuint(strlen(got.text), ==, EC_CONTROL_TEXT_MAX - 1);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/control-message/samples", test_samples);
	g_test_add_func("/control-message/members", test_members);
	g_test_add_func("/control-message/choose", test_choose);
	g_test_add_func("/control-message/keys", test_keys);
	g_test_add_func("/control-message/values", test_values);
	g_test_add_func("/control-message/many-encapsulations", test_many_encapsulations);
	g_test_add_func("/control-message/unknown", test_unknown);
	g_test_add_func("/control-message/newer", test_newer);
	g_test_add_func("/control-message/bytes", test_bytes);
	g_test_add_func("/control-message/length", test_length);
	g_test_add_func("/control-message/dirty", test_dirty);
	return g_test_run();
}
