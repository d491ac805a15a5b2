/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "settings.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "message.h"
#include "unit.h"

#define KEY "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
#define LONGEST "123456789012345678901234567890123456789012345678901234567890123"
#define TOO_LONG (LONGEST "4")
#define PADDED_KEY (KEY "=")
#define KEY_AND_LINE (KEY "\n")

/* For each row what it takes, and what it must refuse; the first of the good is also what comes
 * back as text when it is given in another spelling, the second. Every row of the table must be
 * here. */
static const struct Sample {
	const char *key, *good[8], *bad[16];
	EcScope scopes; /* in which it is tried, where the key is known there; 0: all */
} samples[] = {
	{ "name", { "A.b-c_9", NULL, "a", LONGEST },
			{ "../etc", "a/b", ".a", "-a", "a b", "a\nb", TOO_LONG, "\xc3\xa4",
					"\xff" } },
	{ "mode", { "join-remote", NULL, "point-to-point", "join-networks" },
			{ "Join-Remote", "join", "0", "1", "join-remote ", "\xff" } },
	{ "remote", { "192.0.2.1,vpn.example.org", "192.0.2.1; vpn.example.org ,", "fd00::1", "a" },
			{ "192.0.2.256", "1.2.3", "fe80::1%eth0", "-a", "a/b", "a\x01", "a,a",
					"../x", "\xff", "a:b", "0.0.0.0", "::", "224.0.0.1",
					"255.255.255.255", "ff02::1" } },
	{ "local", { "192.0.2.1", NULL, "fd00::1" },
			{ "host", "192.0.2.1/24", "192.0.2.1,192.0.2.2", "\xff" } },
	{ "port", { "65200", "0xfeb0", "1", "65535" },
			{ "0", "65536", "-1", "+1", " 1", "1 ", "1e3", "0x", "ssh", "4294967297",
					"18446744073709551617" } },
	{ "control", { "static", NULL, "ethercord", "dynamic-fou", "tunnel-server" },
			{ "auto", "Static" } },
	{ "key", { KEY }, { "short", PADDED_KEY, "../../etc/shadow", KEY_AND_LINE, "\xff" } },
	{ "identity", { "site-b" }, { "../b", "a b", ".b", "\x01" } },
	{ "underlay",
			{ "device:wg0", NULL, "vpn", "ipsec", "openvpn", "wireguard",
					"networkmanager", "any" },
			{ "device:", "device:1234567890123456", "device:../x", "wg0", "VPN",
					"device:a b" } },
	{ "encapsulation", { "gretap,vxlan", "gretap;vxlan", "auto", "ipip", "raw-udp" },
			{ "gretap,gretap", "l2tp", "gretap,l2tp", "GRETAP", "\xff", "a\n" } },
	{ "data-plane", { "kernel", NULL, "auto", "user" }, { "none" } },
	{ "id", { "4294967295", "0xffffffff", "0", "16777215" },
			{ "4294967296", "-1", "0x100000000", "one" } },
	{ "data-port", { "65535", "0xFFFF", "1" }, { "65536", "-1" } },
	{ "remote-data-port", { "4789" }, { "65536", "-1" } },
	{ "interface", { "123456789012345", NULL, "ec-a.b_c" },
			{ "1234567890123456", "../x", "a/b", "a b", ".", "..", "all", "default",
					"a\x1b", "\xff", "a:b", "ec-%n" },
			EC_SCOPE_TUNNEL | EC_SCOPE_PEER },
	{ "interface", { "12345678901%n", NULL, "ec-%n.x", "%n", "office" },
			{ "123456789012%n", "%n%n", "a%", "a%d", "%n/..", "a b%n",
					"1234567890123456", "\xff" },
			EC_SCOPE_LISTENER },
	{ "allow", { "10.8.0.0/24,fd00::/64", "10.8.0.0/24 fd00::/64", "192.0.2.1" },
			{ "host", "10.8.0.0/33", "10.8.0.0/24,10.8.0.0/24", "0/0", "\xff" } },
	{ "max-peers", { "4096", NULL, "1", "256" }, { "0", "4097", "-1", "all" } },
	{ "compat", { "dynamic-fou,tunnel-server", "dynamic-fou tunnel-server" },
			{ "static", "dynamic-fou,dynamic-fou", "dynamic_fou" } },
	{ "mac", { "02:00:5e:10:00:01" },
			{ "01:00:5e:10:00:01", "00:00:00:00:00:00", "02:00",
					"02-00-5e-10-00-01" } },
	{ "mtu", { "1500", NULL, "0", "68", "65535" }, { "65536", "-1", "auto" } },
	{ "full-frames", { "yes", NULL, "auto", "no" }, { "true", "1" } },
	{ "split", { "yes", NULL, "auto", "no" }, { "true", "1", "YES", "yes " } },
	{ "roam", { "yes", "TRUE", "on", "1" }, { "maybe", "2", "y", "auto" } },
	{ "address", { "192.0.2.1/24,fd00::1/64", "192.0.2.1/24 fd00::1/64" },
			{ "192.0.2.1/33", "host/24", "192.0.2.1/24,192.0.2.1/24" } },
	{ "bridge", { "br-lan" }, { "1234567890123456", "../br0", "br 0", "\xff" } },
	{ "bridge-create", { "yes", "TRUE", "on", "1" }, { "maybe", "2", "y" } },
	{ "attach", { "eth0" }, { "1234567890123456", "../eth0", "eth0\n" } },
	{ "fidelity", { "wire", NULL, "bridge", "transparent" }, { "hub" } },
	{ "guard", { "dhcp,ra", "dhcp ra", "none", "loop,storm,stp" }, { "arp", "dhcp,dhcp" } },
	{ "storm-limit", { "1", NULL, "1000000" }, { "0", "1000001" } },
	{ "keepalive-interval", { "50", NULL, "3600000" }, { "49", "3600001" } },
	{ "keepalive-timeout", { "100", NULL, "3600000" }, { "99", "3600001" } },
	{ "gre-keepalive", { "10,3", NULL, "1", "32767,255" },
			{ "0", "10,", ",3", "10,256", "32768", "10,3,1", "x" } },
	{ "link-loss-forwarding", { "yes", "On" }, { "2" } },
	{ "ttl", { "255", NULL, "1" }, { "0", "256" } },
	{ "dscp", { "63", NULL, "0", "46" }, { "64", "-1" } },
	{ "fwmark", { "4294967295", "0xFFFFFFFF", "0" }, { "4294967296" } },
	{ "autostart", { "no", "OFF", "false" }, { "nein" } },
	{ "profile", { "3c8b6d52-0c54-4f0e-9f2b-2f5f0a1c7d11" },
			{ "3c8b6d52", "office", "3c8b6d52-0c54-4f0e-9f2b-2f5f0a1c7d1", "../x",
					"{3c8b6d52-0c54-4f0e-9f2b-2f5f0a1c7d11}" } },
};

static sd_bus *bus;

static const EcScope scopes[] = { EC_SCOPE_TUNNEL, EC_SCOPE_LISTENER, EC_SCOPE_PEER };

static bool is_tried(const struct Sample *sample, EcScope scope)
{
	return (!sample->scopes || (sample->scopes & scope)) &&
	       ec_setting_find_in(scope, sample->key);
}

/* A message with one entry in its a{sv}. */
static sd_bus_message *new_entry(const char *key, const char *signature, const void *value)
{
	sd_bus_message *m = message_new(bus);

	g_assert_cmpint(sd_bus_message_open_container(m, 'a', "{sv}"), >=, 0);
	g_assert_cmpint(sd_bus_message_open_container(m, 'e', "sv"), >=, 0);
	g_assert_cmpint(sd_bus_message_append_basic(m, 's', key), >=, 0);
	g_assert_cmpint(sd_bus_message_open_container(m, 'v', signature), >=, 0);
	if (g_str_equal(signature, "as"))
		g_assert_cmpint(sd_bus_message_append_strv(m, (char **)value), >=, 0);
	else
		g_assert_cmpint(sd_bus_message_append_basic(m, signature[0], value), >=, 0);
	g_assert_cmpint(sd_bus_message_close_container(m), >=, 0);
	g_assert_cmpint(sd_bus_message_close_container(m), >=, 0);
	g_assert_cmpint(sd_bus_message_close_container(m), >=, 0);
	message_seal(m);
	return m;
}

/* What a caller of the bus who knows only the type would send for a text. */
static sd_bus_message *new_entry_from_text(const EcSetting *row, const char *text)
{
	const char *signature = ec_setting_signature(row);
	g_auto(GStrv) items = g_strsplit(text, ",", -1);
	guint64 number = 0;

	if (row->type == EC_SETTING_STRINGS)
		return new_entry(row->key, signature, items);
	if (row->type == EC_SETTING_STRING || row->type == EC_SETTING_CHOICE)
		return new_entry(row->key, signature, text);
	if (row->type == EC_SETTING_BOOL ||
			!g_ascii_string_to_unsigned(text, 10, 0, UINT32_MAX, &number, NULL) ||
			(row->type == EC_SETTING_UINT16 && number > UINT16_MAX))
		return NULL; /* D-Bus itself cannot say it */
	uint16_t q = (uint16_t)number;
	uint32_t u = (uint32_t)number;
	return new_entry(row->key, signature,
			row->type == EC_SETTING_UINT16 ? (const void *)&q : &u);
}

static void check_same(const EcSettings *a, const EcSettings *b)
{
	size_t n;
	const EcSetting *row = ec_settings_table(&n);

	for (size_t i = 0; i < n; i++) {
		if (!(row[i].scopes & a->scope))
			continue;
		g_autofree char *ta = ec_settings_text(a, &row[i]);
		g_autofree char *tb = ec_settings_text(b, &row[i]);

		g_assert_cmpstr(ta, ==, tb);
		g_assert_false(ec_settings_differ(a, b, &row[i]));
		g_assert_cmpint(ec_settings_is_given(a, &row[i]), ==,
				ec_settings_is_given(b, &row[i]));
	}
	g_assert_cmpuint(a->given, ==, b->given);
	g_assert_cmpuint(a->scope, ==, b->scope);
}

static void check_bus_round_trip(const EcSettings *s)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autoptr(sd_bus_message) m = message_new(bus);
	g_autoptr(EcSettings) again = ec_settings_new_for(s->scope);

	g_assert_cmpint(ec_settings_append(s, m, true), >=, 0);
	message_seal(m);
	g_assert_cmpint(ec_settings_read(again, m, &error), ==, 0);
	g_assert_cmpint(sd_bus_message_at_end(m, true), >, 0);
	check_same(s, again);
}

static void check_good(EcScope scope, const EcSetting *row, const char *text, const char *canonical)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autoptr(EcSettings) s = ec_settings_new_for(scope);
	g_autoptr(EcSettings) again = ec_settings_new_for(scope);

	g_assert_false(ec_settings_is_given(s, row));
	if (ec_settings_parse(s, row->key, text, &error) < 0)
		g_error("%s", error.message);
	g_assert_true(ec_settings_is_given(s, row));
	g_autofree char *shown = ec_settings_text(s, row);
	if (canonical)
		g_assert_cmpstr(shown, ==, canonical);
	g_assert_cmpint(ec_settings_parse(again, row->key, shown, NULL), ==, 0);
	check_same(s, again);
	check_bus_round_trip(s);

	g_autoptr(EcSettings) copy = ec_settings_copy(s);
	check_same(s, copy);

	/* Nothing takes the default back. */
	g_autoptr(EcSettings) fresh = ec_settings_new_for(scope);
	g_assert_cmpint(ec_settings_parse(copy, row->key, "", NULL), ==, 0);
	g_assert_true(ec_settings_is_cleared(copy, row));
	g_assert_false(ec_settings_is_cleared(s, row));
	g_assert_false(ec_settings_differ(copy, fresh, row));
}

static void check_refused(const EcSetting *row, const EcSettings *s, int r, sd_bus_error *error)
{
	g_autoptr(EcSettings) fresh = ec_settings_new_for(s->scope);

	unit_assert_error(r, error, "InvalidSetting", row->key);
	unit_assert_error(r, error, "InvalidSetting", "allowed is");
	g_assert_false(ec_settings_is_given(s, row));
	g_assert_false(ec_settings_differ(s, fresh, row));
}

static void check_bad(EcScope scope, const EcSetting *row, const char *text)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL, bus_error = SD_BUS_ERROR_NULL;
	g_autoptr(EcSettings) s = ec_settings_new_for(scope);
	int r = ec_settings_parse(s, row->key, text, &error);

	check_refused(row, s, r, &error);
	if (row->flags & EC_SETTING_SECRET)
		g_assert_null(strstr(error.message, text));
	/* libsystemd itself neither sends nor takes what is not UTF-8. */
	g_autoptr(sd_bus_message) m =
			g_utf8_validate(text, -1, NULL) ? new_entry_from_text(row, text) : NULL;
	if (m) {
		r = ec_settings_read(s, m, &bus_error);
		check_refused(row, s, r, &bus_error);
	}
}

static void check_row(const struct Sample *sample, EcScope scope)
{
	const EcSetting *row = ec_setting_find_in(scope, sample->key);

	check_good(scope, row, sample->good[0], sample->good[0]);
	if (sample->good[1])
		check_good(scope, row, sample->good[1], sample->good[0]);
	for (size_t i = 2; i < EC_ELEMENTS(sample->good) && sample->good[i]; i++)
		check_good(scope, row, sample->good[i], NULL);
	for (size_t i = 0; i < EC_ELEMENTS(sample->bad) && sample->bad[i]; i++)
		check_bad(scope, row, sample->bad[i]);
}

static void test_row(gconstpointer data)
{
	unsigned tried = 0;

	for (size_t i = 0; i < EC_ELEMENTS(scopes); i++) {
		if (is_tried(data, scopes[i])) {
			check_row(data, scopes[i]);
			tried++;
		}
	}
	g_assert_cmpuint(tried, >, 0);
}

/* A value of any other D-Bus type than the row's. */
static void check_wrong_type(const EcSetting *row, EcScope scope)
{
	const char *const strv[] = { "1", NULL };
	const uint16_t q = 1;
	const uint32_t u = 1;
	const int32_t i = 1;
	const struct {
		const char *signature;
		const void *value;
	} type[] = { { "s", "1" }, { "as", strv }, { "b", &i }, { "q", &q }, { "u", &u },
		{ "i", &i } };

	for (size_t k = 0; k < EC_ELEMENTS(type); k++) {
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
		g_autoptr(EcSettings) s = ec_settings_new_for(scope);

		if (g_str_equal(type[k].signature, ec_setting_signature(row)))
			continue;
		g_autoptr(sd_bus_message) m = new_entry(row->key, type[k].signature, type[k].value);
		int r = ec_settings_read(s, m, &error);
		check_refused(row, s, r, &error);
	}
}

static void test_wrong_type(gconstpointer data)
{
	const struct Sample *sample = data;

	for (size_t i = 0; i < EC_ELEMENTS(scopes); i++) {
		if (is_tried(sample, scopes[i]))
			check_wrong_type(ec_setting_find_in(scopes[i], sample->key), scopes[i]);
	}
}

/* The table itself: keys, defaults and words fit together. */
static void check_scope(const EcSetting *row, EcScope scope)
{
	g_autoptr(EcSettings) fresh = ec_settings_new_for(scope);
	g_autoptr(EcSettings) s = ec_settings_new_for(scope);
	const char *text = row->fallback ? row->fallback : "";
	g_autofree char *shown = ec_settings_text(fresh, row);
	unsigned n = 0;

	g_assert_cmpuint(fresh->given, ==, 0);
	g_assert_true(ec_setting_find_in(scope, row->key) == row);
	for (size_t i = 0; i < EC_ELEMENTS(samples); i++)
		n += g_str_equal(samples[i].key, row->key) && is_tried(&samples[i], scope);
	if (n != 1)
		g_error("%u samples of %s", n, row->key);
	g_assert_cmpstr(shown, ==, text);
	g_assert_cmpint(ec_settings_parse(s, row->key, text, NULL), ==, 0);
	g_assert_false(ec_settings_differ(s, fresh, row));
}

static void test_table(void)
{
	static const char *const signatures[] = { "s", "as", "b", "q", "u", NULL };
	size_t n;
	const EcSetting *row = ec_settings_table(&n);

	for (size_t i = 0; i < n; i++) {
		const EcSetting *first = ec_setting_find_in(EC_SCOPE_ALL, row[i].key);

		g_assert_true(row[i].scopes && !(row[i].scopes & ~EC_SCOPE_ALL));
		for (size_t k = 0; k < EC_ELEMENTS(scopes); k++) {
			if (row[i].scopes & scopes[k])
				check_scope(&row[i], scopes[k]);
		}
		/* A key is the same thing everywhere. */
		g_assert_cmpuint(first->offset, ==, row[i].offset);
		g_assert_cmpint(first->type, ==, row[i].type);
		g_assert_cmpint(first->flags, ==, row[i].flags);
		g_assert_true(g_strv_contains(signatures, ec_setting_signature(&row[i])));
		g_assert_true(row[i].help && g_str_has_suffix(row[i].help, "."));
		g_assert_true(!row[i].is_valid || row[i].allowed);
		g_assert_true(row[i].type != EC_SETTING_CHOICE || row[i].choices);
	}
	for (size_t i = 0; i < EC_ELEMENTS(samples); i++)
		g_assert_nonnull(ec_setting_find_in(EC_SCOPE_ALL, samples[i].key));
}

/* The contract: which settings each has. */
static void test_scopes(void)
{
	static const struct {
		EcScope scope;
		const char *word, *keys;
	} row[] = {
		{ EC_SCOPE_TUNNEL, "tunnel",
				"name mode remote local port control key identity underlay "
				"encapsulation data-plane id data-port remote-data-port interface mac "
				"mtu full-frames split roam address bridge bridge-create attach "
				"fidelity guard storm-limit keepalive-interval keepalive-timeout "
				"gre-keepalive link-loss-forwarding ttl dscp fwmark autostart profile" },
		{ EC_SCOPE_LISTENER, "listener",
				"name mode port key underlay allow max-peers interface encapsulation "
				"compat bridge bridge-create data-plane data-port mtu full-frames split "
				"fidelity guard storm-limit keepalive-interval keepalive-timeout ttl "
				"dscp fwmark link-loss-forwarding autostart local" },
		{ EC_SCOPE_PEER, "peer", "key allow mtu bridge interface mac address" },
	};
	size_t n;
	const EcSetting *table = ec_settings_table(&n);

	for (size_t i = 0; i < EC_ELEMENTS(row); i++) {
		g_auto(GStrv) keys = g_strsplit(row[i].keys, " ", -1);
		unsigned known = 0;

		g_assert_cmpstr(ec_scope_to_string(row[i].scope), ==, row[i].word);
		for (char **key = keys; *key; key++) {
			if (!ec_setting_find_in(row[i].scope, *key))
				g_error("%s is no setting of a %s", *key, row[i].word);
		}
		for (size_t k = 0; k < n; k++)
			known += (table[k].scopes & row[i].scope) != 0;
		g_assert_cmpuint(known, ==, g_strv_length(keys));
	}
}

/* A key of another scope is known, and named as such. */
static void test_other_scope(void)
{
	static const struct {
		EcScope scope;
		const char *key, *value, *part;
	} row[] = {
		{ EC_SCOPE_TUNNEL, "allow", "10.0.0.0/8", "allow: not a setting of a tunnel" },
		{ EC_SCOPE_TUNNEL, "max-peers", "2", "max-peers: not a setting of a tunnel" },
		{ EC_SCOPE_LISTENER, "remote", "a", "remote: not a setting of a listener" },
		{ EC_SCOPE_LISTENER, "roam", "yes", "roam: not a setting of a listener" },
		{ EC_SCOPE_PEER, "split", "yes", "split: not a setting of a peer" },
		{ EC_SCOPE_LISTENER, "address", "10.0.0.1/8",
				"address: not a setting of a listener" },
		{ EC_SCOPE_PEER, "mode", "join-remote",
				"mode: not a setting of a peer; those are: key" },
		{ EC_SCOPE_PEER, "name", "a", "name: not a setting of a peer" },
	};

	for (size_t i = 0; i < EC_ELEMENTS(row); i++) {
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
		g_autoptr(EcSettings) s = ec_settings_new_for(row[i].scope);

		unit_assert_error(ec_settings_parse(s, row[i].key, row[i].value, &error), &error,
				"InvalidSetting", row[i].part);
		g_assert_cmpuint(s->given, ==, 0);
	}
}

/* From one scope to another. */
static void test_take(void)
{
	g_autoptr(EcSettings) s = ec_settings_new();
	g_autoptr(EcSettings) l = ec_settings_new_for(EC_SCOPE_LISTENER);

	g_assert_cmpint(ec_settings_parse(l, "ttl", "7", NULL), ==, 0);
	g_assert_cmpint(ec_settings_parse(l, "encapsulation", "vxlan,gretap", NULL), ==, 0);
	g_assert_cmpint(ec_settings_parse(l, "interface", "a%n", NULL), ==, 0);
	g_assert_cmpint(ec_settings_take(s, l, "ttl"), ==, 0);
	g_assert_cmpint(ec_settings_take(s, l, "encapsulation"), ==, 0);
	g_assert_cmpint(ec_settings_take(s, l, "mtu"), ==, 0);
	g_assert_cmpint(ec_settings_take(s, l, "remote"), ==, 0);
	g_assert_cmpint(ec_settings_take(s, l, "interface"), ==, -EINVAL);
	g_assert_cmpuint(s->ttl, ==, 7);
	g_assert_cmpstr(s->encapsulation[1], ==, "gretap");
	g_assert_false(ec_settings_is_given(s, ec_setting_find("mtu")));
	g_assert_null(s->interface);
}

static void test_unknown_key(void)
{
	static const char *const keys[] = { "", "Mode", "mode ", "bridge_create", "../mode", "x\n",
		"\xff" };

	for (size_t i = 0; i < EC_ELEMENTS(keys); i++) {
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL, bus_error = SD_BUS_ERROR_NULL;
		g_autoptr(EcSettings) s = ec_settings_new();

		g_assert_null(ec_setting_find(keys[i]));
		unit_assert_error(ec_settings_parse(s, keys[i], "1", &error), &error,
				"InvalidSetting", "encapsulation");
		if (!g_utf8_validate(keys[i], -1, NULL))
			continue;
		g_autoptr(sd_bus_message) m = new_entry(keys[i], "s", "1");
		unit_assert_error(ec_settings_read(s, m, &bus_error), &bus_error, "InvalidSetting",
				"encapsulation");
		g_assert_cmpuint(s->given, ==, 0);
	}
}

/* An empty string or list over the bus takes back what was given. */
static void test_take_back(void)
{
	char *none[] = { NULL };
	g_autoptr(EcSettings) fresh = ec_settings_new();
	g_autoptr(EcSettings) s = unit_settings("mode=join-remote bridge=br0 remote=192.0.2.1");
	g_autoptr(sd_bus_message) mode = new_entry("mode", "s", "");
	g_autoptr(sd_bus_message) bridge = new_entry("bridge", "s", "");
	g_autoptr(sd_bus_message) remote = new_entry("remote", "as", none);

	g_assert_cmpint(ec_settings_read(s, mode, NULL), ==, 0);
	g_assert_cmpint(ec_settings_read(s, bridge, NULL), ==, 0);
	g_assert_cmpint(ec_settings_read(s, remote, NULL), ==, 0);
	check_same(s, fresh);
}

static void test_whole(void)
{
	g_autoptr(EcSettings) s = ec_settings_new();

	for (size_t i = 0; i < EC_ELEMENTS(samples); i++) {
		if (is_tried(&samples[i], EC_SCOPE_TUNNEL))
			g_assert_cmpint(ec_settings_parse(s, samples[i].key, samples[i].good[0],
							NULL),
					==, 0);
	}
	check_bus_round_trip(s);
}

static void test_secret(void)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autoptr(EcSettings) s = unit_settings("name=a remote=192.0.2.1 key=" KEY);
	g_autoptr(EcSettings) again = ec_settings_new();
	g_autoptr(sd_bus_message) m = message_new(bus);

	g_assert_cmpint(ec_settings_append(s, m, false), >=, 0);
	message_seal(m);
	g_assert_cmpint(ec_settings_read(again, m, &error), ==, 0);
	g_assert_null(again->key);
	g_assert_false(ec_settings_is_given(again, ec_setting_find("key")));
	g_assert_cmpstr(again->name, ==, "a");
}

static void test_lists(void)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autoptr(GString) many = g_string_new(NULL);
	g_autoptr(EcSettings) s = ec_settings_new();

	for (unsigned i = 0; i < 64; i++)
		g_string_append_printf(many, "%s192.0.2.%u", i ? "," : "", i);
	g_assert_cmpint(ec_settings_parse(s, "remote", many->str, &error), ==, 0);
	g_assert_cmpuint(g_strv_length(s->remote), ==, 64);
	g_string_append(many, ",192.0.2.64");
	unit_assert_error(ec_settings_parse(s, "remote", many->str, &error), &error,
			"InvalidSetting", "at most 64");

	g_autofree char *label = g_strnfill(2000, 'a');
	sd_bus_error_free(&error);
	unit_assert_error(ec_settings_parse(s, "remote", label, &error), &error, "InvalidSetting",
			"at most 1024");
	g_assert_cmpuint(strlen(error.message), <, 400);
}

typedef struct VerifyRow {
	const char *settings, *part; /* of the error; NULL: verifies */
} VerifyRow;

static void check_verify(const VerifyRow *row)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autoptr(EcSettings) s = unit_settings(row->settings);
	int r = ec_settings_verify(s, &error);

	if (!row->part) {
		if (r < 0)
			g_error("%s: %s", row->settings, error.message);
		return;
	}
	unit_assert_error(r, &error, "InvalidSetting", row->part);
	/* What would not help is not advised. */
	if (!strstr(row->part, "set roam=yes"))
		g_assert_null(strstr(error.message, "set roam=yes"));
}

/* The rules between settings. */
static void test_verify(void)
{
	static const VerifyRow row[] = {
		{ "name=a remote=192.0.2.1", NULL },
		{ "name=a remote=a.example,192.0.2.1 local=192.0.2.9", NULL },
		{ "name=a remote=192.0.2.1 mode=join-remote", NULL },
		{ "name=a remote=192.0.2.1 mode=join-remote bridge=br0 attach=eth0", NULL },
		{ "name=a remote=192.0.2.1 mode=join-networks bridge=br0 bridge-create=yes", NULL },
		{ "name=a remote=192.0.2.1 mtu=68", NULL },
		{ "name=a remote=192.0.2.1 guard=dhcp,ra", NULL },
		{ "remote=192.0.2.1", "name" },
		{ "name=a", "remote" },
		{ "name=a remote=192.0.2.1 local=fd00::1", "local and remote" },
		{ "name=a remote=fd00::1,192.0.2.1 local=fd00::2", "local and remote" },
		{ "name=a remote=192.0.2.1 mtu=67", "mtu '67'" },
		{ "name=a remote=192.0.2.1 bridge=br0", "bridge: mode is point-to-point" },
		{ "name=a remote=192.0.2.1 attach=eth0", "attach: mode is point-to-point" },
		{ "name=a remote=192.0.2.1 bridge-create=yes", "bridge-create: mode" },
		{ "name=a remote=192.0.2.1 mode=join-networks", "bridge: " },
		{ "name=a remote=192.0.2.1 mode=join-remote attach=eth0", "attach: needs bridge" },
		{ "name=a remote=192.0.2.1 mode=join-remote bridge-create=yes", "needs bridge" },
		{ "name=a remote=192.0.2.1 mode=join-remote bridge=br0 address=192.0.2.2/24",
				"address: " },
		{ "name=a remote=192.0.2.1 mode=join-remote bridge=br0 interface=br0",
				"interface and bridge" },
		{ "name=a remote=192.0.2.1 mode=join-remote bridge=br0 attach=br0",
				"bridge and attach" },
		{ "name=a remote=192.0.2.1 underlay=device:x interface=x", "underlay" },
		{ "name=a remote=192.0.2.1 keepalive-interval=5000", "keepalive-timeout" },
		{ "name=a remote=192.0.2.1 guard=auto,ra", "guard" },
		{ "name=a remote=192.0.2.1 guard=ra,none", "guard" },
	};

	for (size_t i = 0; i < EC_ELEMENTS(row); i++)
		check_verify(&row[i]);
}

#define WAITS "name=a control=static roam=yes"
#define ROAM_ALLOWED "roam 'yes': allowed with control=static and encapsulation=raw-udp or tun-udp"

/* Who takes whoever comes for the peer has to say so, and only where nothing else is possible. */
static void test_verify_nameless(void)
{
	static const VerifyRow row[] = {
		/* Without roam a remote is needed, whatever the format. */
		{ "name=a remote=192.0.2.1 encapsulation=raw-udp control=static", NULL },
		{ "name=a remote=192.0.2.1 encapsulation=tun-udp", NULL },
		{ "name=a encapsulation=raw-udp", "set roam=yes" },
		{ "name=a encapsulation=tun-udp,raw-udp control=static", "set roam=yes" },
		{ "name=a roam=no encapsulation=raw-udp", "set roam=yes" },
		{ "name=a encapsulation=vxlan control=static", "of the peer is missing" },
		{ "name=a encapsulation=raw-udp,vxlan control=static", "of the peer is missing" },
		/* With it. */
		{ WAITS " remote=192.0.2.1 encapsulation=raw-udp", NULL },
		{ WAITS " remote=192.0.2.1 encapsulation=raw-udp,tun-udp underlay=wireguard",
				NULL },
		{ WAITS " encapsulation=raw-udp underlay=any", NULL },
		{ WAITS " encapsulation=tun-udp underlay=device:wg0", NULL },
		{ "name=a roam=yes remote=192.0.2.1 encapsulation=raw-udp", ROAM_ALLOWED },
		{ "name=a roam=yes control=ethercord encapsulation=raw-udp underlay=any",
				ROAM_ALLOWED },
		{ WAITS " remote=192.0.2.1", ROAM_ALLOWED },
		{ WAITS " remote=192.0.2.1 encapsulation=auto", ROAM_ALLOWED },
		{ WAITS " remote=192.0.2.1 encapsulation=vxlan", ROAM_ALLOWED },
		{ WAITS " remote=192.0.2.1 encapsulation=raw-udp,gretap", ROAM_ALLOWED },
		{ WAITS " underlay=any encapsulation=gretap-fou", ROAM_ALLOWED },
		/* Nobody to find the way to. */
		{ WAITS " encapsulation=raw-udp", "underlay 'vpn': which VPN it is shows by" },
		{ WAITS " encapsulation=raw-udp underlay=vpn", "allowed is device:IFNAME or any" },
		{ WAITS " encapsulation=tun-udp underlay=ipsec", "underlay 'ipsec'" },
		{ WAITS " encapsulation=tun-udp underlay=openvpn", "underlay 'openvpn'" },
	};

	for (size_t i = 0; i < EC_ELEMENTS(row); i++)
		check_verify(&row[i]);
}

static void test_words(void)
{
	g_assert_cmpstr(ec_settings_word("split", EC_SPLIT_AUTO), ==, "auto");
	g_assert_cmpstr(ec_settings_word("split", EC_SPLIT_NO), ==, "no");
	g_assert_cmpstr(ec_settings_word("mode", EC_MODE_JOIN_REMOTE), ==, "join-remote");
	g_assert_cmpstr(ec_settings_word("control", EC_CONTROL_STATIC), ==, "static");
	g_assert_cmpstr(ec_settings_word("data-plane", EC_DATA_PLANE_USER), ==, "user");
	g_assert_cmpstr(ec_settings_word("full-frames", EC_FULL_FRAMES_NO), ==, "no");
	g_assert_cmpstr(ec_settings_word("fidelity", EC_FIDELITY_WIRE), ==, "wire");
}

int main(int argc, char *argv[])
{
	int other;

	g_test_init(&argc, &argv, NULL);
	bus = message_bus_new(&other);
	g_test_add_func("/settings/table", test_table);
	for (size_t i = 0; i < EC_ELEMENTS(samples); i++) {
		const char *of = samples[i].scopes == EC_SCOPE_LISTENER ? "/listener" : "";
		g_autofree char *row = g_strdup_printf("/settings/row/%s%s", samples[i].key, of);
		g_autofree char *type =
				g_strdup_printf("/settings/wrong-type/%s%s", samples[i].key, of);

		g_test_add_data_func(row, &samples[i], test_row);
		g_test_add_data_func(type, &samples[i], test_wrong_type);
	}
	g_test_add_func("/settings/scopes", test_scopes);
	g_test_add_func("/settings/other-scope", test_other_scope);
	g_test_add_func("/settings/take", test_take);
	g_test_add_func("/settings/unknown-key", test_unknown_key);
	g_test_add_func("/settings/take-back", test_take_back);
	g_test_add_func("/settings/whole", test_whole);
	g_test_add_func("/settings/secret", test_secret);
	g_test_add_func("/settings/lists", test_lists);
	g_test_add_func("/settings/verify", test_verify);
	g_test_add_func("/settings/verify-nameless", test_verify_nameless);
	g_test_add_func("/settings/words", test_words);
	int r = g_test_run();
	sd_bus_close_unref(bus);
	(void)close(other);
	return r;
}
