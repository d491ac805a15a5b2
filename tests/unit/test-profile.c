/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "profile.h"

#include <errno.h>
#include <string.h>

#include "unit.h"

#define KEY "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
#define UUID "5b4a3c2d-1e0f-4a5b-8c7d-9e8f7a6b5c4d"

static int set(EcProfile *p, const char *key, const char *text, sd_bus_error *error)
{
	sd_bus_error_free(error);
	return ec_profile_set(p, key, text, error);
}

/* A profile from "KEY=VALUE KEY=VALUE"; what does not parse ends the test. */
static EcProfile *new_profile(const char *text)
{
	g_auto(GStrv) items = g_strsplit(text, " ", -1);
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcProfile *p = ec_profile_new();

	for (char **i = items; *i; i++) {
		g_auto(GStrv) part = g_strsplit(*i, "=", 2);

		if (**i && set(p, part[0], part[1], &error) < 0)
			g_error("%s: %s", *i, error.message);
	}
	return p;
}

/* The keys of ours: what each takes and what it refuses. Every row must be here. */
static const struct {
	const char *key, *good[10], *bad[10], *allowed;
} samples[] = {
	{ "tunnel-name", { "office", "A.b-c_9" },
			{ "../x", "a b", "a\n", "\xff", "-a", "/etc/shadow" }, "a letter" },
	{ "tunnel", { "office", "site.peer-1" },
			{ "../x", "/etc/ethercord/a", "a b", "a\n", "\xff", "-a" }, "a letter" },
	{ "ipv4", { "dhcp", "auto", "static", "none" },
			{ "manual", "DHCP", "dhcp ", "disabled", "\x01" },
			"dhcp, auto, static, none" },
	{ "ipv6", { "dhcp", "auto", "static", "none" }, { "slaac", "0", "none,dhcp" },
			"dhcp, auto, static, none" },
	{ "up-with", { UUID, "Büro VPN", "a/b" },
			{ "/etc/passwd", "../vpn", "./vpn", "file:///x", "a\x1b[0m", "\xff",
					"tab\there" },
			"" },
	{ "key-flags", { "0", "1", "2", "3", "4", "5", "6", "7" },
			{ "8", "-1", "1 ", "0x1", "agent", "99999999999999999999" }, "0 to 7" },
};

static void test_rows(void)
{
	size_t n;
	const EcSetting *rows = ec_profile_table(&n);

	g_assert_cmpuint(n, ==, EC_ELEMENTS(samples));
	for (size_t i = 0; i < n; i++) {
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
		g_autoptr(EcProfile) p = ec_profile_new();

		g_assert_cmpstr(rows[i].key, ==, samples[i].key);
		g_assert_true(ec_profile_find(samples[i].key) == &rows[i]);
		g_assert_nonnull(rows[i].help);
		g_assert_null(ec_setting_find(rows[i].key));
		g_assert_null(ec_profile_text(p, rows[i].key));
		for (const char *const *good = samples[i].good; *good; good++) {
			g_assert_cmpint(set(p, rows[i].key, *good, &error), ==, 0);
			g_autofree char *text = ec_profile_text(p, rows[i].key);
			g_assert_cmpstr(text, ==, *good);
		}
		g_autofree char *before = ec_profile_text(p, rows[i].key);
		for (const char *const *bad = samples[i].bad; *bad; bad++) {
			int r = set(p, rows[i].key, *bad, &error);

			unit_assert_error(r, &error, "InvalidSetting", rows[i].key);
			unit_assert_error(r, &error, "InvalidSetting", "allowed is ");
			unit_assert_error(r, &error, "InvalidSetting",
					ec_text_is_clean(*bad) ? samples[i].allowed : "");
			g_autofree char *after = ec_profile_text(p, rows[i].key);
			g_assert_cmpstr(after, ==, before);
		}
		g_assert_cmpint(set(p, rows[i].key, "", &error), ==, 0);
		g_assert_null(ec_profile_text(p, rows[i].key));
	}
}

/* Every setting of a tunnel is a key of a connection, but for those that it says otherwise. */
static void test_settings(void)
{
	static const char *const not_here[] = { "name", "autostart", "profile", NULL };
	g_autoptr(EcProfile) p = ec_profile_new();
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	size_t n, found = 0;
	const EcSetting *rows = ec_settings_table(&n);

	for (size_t i = 0; i < n; i++) {
		if (!(rows[i].scopes & EC_SCOPE_TUNNEL))
			continue;
		if (g_strv_contains(not_here, rows[i].key)) {
			g_assert_null(ec_profile_find(rows[i].key));
			continue;
		}
		g_assert_true(ec_profile_find(rows[i].key) == &rows[i]);
		found++;
	}
	g_assert_cmpuint(found, >, 30);
	g_assert_cmpint(set(p, "remote", "10.8.0.1; vpn.example.org", &error), ==, 0);
	g_autofree char *remote = ec_profile_text(p, "remote");
	g_assert_cmpstr(remote, ==, "10.8.0.1,vpn.example.org");
	g_assert_null(ec_profile_text(p, "port"));
	g_assert_null(ec_profile_text(p, "nonsense"));
	unit_assert_error(set(p, "port", "0", &error), &error, "InvalidSetting", "port '0'");
	unit_assert_error(set(p, "mode", "bridge", &error), &error, "InvalidSetting",
			"point-to-point, join-remote");
	unit_assert_error(set(p, "local", "/etc/passwd", &error), &error, "InvalidSetting",
			"an IPv4 or IPv6 address");
	unit_assert_error(set(p, "interface", "a\nb", &error), &error, "InvalidSetting",
			"allowed is");
}

static void test_unknown(void)
{
	g_autoptr(EcProfile) p = ec_profile_new();
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;

	unit_assert_error(set(p, "gateway", "1", &error), &error, "InvalidSetting",
			"no setting 'gateway'; there are: mode, ");
	g_assert_nonnull(strstr(error.message, "key-flags"));
	g_assert_null(strstr(error.message, " key,"));
	g_assert_null(strstr(error.message, "autostart"));
	unit_assert_error(set(p, "bad\nkey", "1", &error), &error, "InvalidSetting", "'?'");
	unit_assert_error(set(p, "max-peers", "1", &error), &error, "InvalidSetting", "max-peers");
	unit_assert_error(set(p, "autostart", "yes", &error), &error, "InvalidSetting",
			"connection.secondaries");
	unit_assert_error(
			set(p, "name", "office", &error), &error, "InvalidSetting", "tunnel-name");
	unit_assert_error(set(p, "profile", UUID, &error), &error, "InvalidSetting", "UUID");
}

static void test_secret(void)
{
	g_autoptr(EcProfile) p = ec_profile_new();
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;

	unit_assert_error(set(p, "key", KEY, &error), &error, "InvalidSetting", "vpn.secrets");
	g_assert_null(strstr(error.message, KEY));
	g_assert_null(p->settings->key);
	g_assert_cmpint(ec_profile_set_secret(p, "key", KEY, NULL), ==, 0);
	g_assert_cmpstr(p->settings->key, ==, KEY);
	sd_bus_error_free(&error);
	int r = ec_profile_set_secret(p, "key", "s3cret", &error);
	unit_assert_error(r, &error, "InvalidSetting", "base64 of 32 bytes");
	g_assert_null(strstr(error.message, "s3cret"));
	sd_bus_error_free(&error);
	r = ec_profile_set_secret(p, "remote", "10.8.0.1", &error);
	unit_assert_error(r, &error, "InvalidSetting", "no secret 'remote'");
	sd_bus_error_free(&error);
	r = ec_profile_set_secret(p, "password", "x", &error);
	unit_assert_error(r, &error, "InvalidSetting", "there is: key");
}

static void test_verify(void)
{
	static const struct {
		const char *text, *wrong; /* NULL: right */
	} row[] = {
		{ "remote=10.8.0.1", NULL },
		{ "remote=10.8.0.1 tunnel-name=office ipv4=dhcp ipv6=auto up-with=x key-flags=4",
				NULL },
		{ "", "remote: " },
		{ "remote=10.8.0.1 mode=join-networks", "bridge: " },
		{ "tunnel=office", NULL },
		{ "tunnel=office ipv4=dhcp ipv6=none up-with=x", NULL },
		{ "tunnel=office ipv4=static", NULL },
		{ "tunnel=office remote=10.8.0.1", "remote: tunnel=office" },
		{ "tunnel=office tunnel-name=other", "tunnel-name: tunnel=office" },
		{ "tunnel=office key-flags=0", "key-flags: tunnel=office" },
		{ "remote=10.8.0.1 ipv4=static", "ipv4 'static': address has no IPv4" },
		{ "remote=10.8.0.1 ipv4=static address=fd00::1/64", "address has no IPv4" },
		{ "remote=10.8.0.1 ipv6=static address=192.0.2.1/24", "address has no IPv6" },
		{ "remote=10.8.0.1 ipv4=static address=192.0.2.1/24", NULL },
		{ "remote=10.8.0.1 ipv6=static ipv4=dhcp address=fd00::1/64", NULL },
		{ "remote=10.8.0.1 address=fd00::1/64", NULL },
		{ "remote=10.8.0.1 ipv4=dhcp address=192.0.2.1/24", "ipv4 'dhcp': address has" },
		{ "remote=10.8.0.1 ipv6=none address=fd00::1/64", "ipv6 'none': address has" },
		{ "remote=10.8.0.1 mode=join-remote bridge=br0 ipv4=none ipv6=none", NULL },
		{ "remote=10.8.0.1 mode=join-remote bridge=br0 ipv4=dhcp", "port of bridge br0" },
		{ "remote=10.8.0.1 mode=join-remote bridge=br0 ipv6=auto", "port of bridge br0" },
		{ "remote=10.8.0.1 encapsulation=gre ipv4=dhcp", "DHCP needs Ethernet" },
		{ "remote=10.8.0.1 encapsulation=gre,tun-udp ipv6=dhcp", "DHCP needs Ethernet" },
		{ "remote=10.8.0.1 encapsulation=gre ipv6=auto", NULL },
		{ "remote=10.8.0.1 encapsulation=gre,vxlan ipv4=dhcp", NULL },
	};

	for (size_t i = 0; i < EC_ELEMENTS(row); i++) {
		g_autoptr(EcProfile) p = new_profile(row[i].text);
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
		int r = ec_profile_verify(p, &error);

		g_test_message("%s", row[i].text);
		if (row[i].wrong)
			unit_assert_error(r, &error, "InvalidSetting", row[i].wrong);
		else
			g_assert_cmpstr(error.message, ==, NULL);
	}
	g_autoptr(EcProfile) p = new_profile("tunnel=office");
	g_assert_cmpint(ec_profile_set_secret(p, "key", KEY, NULL), ==, 0);
	g_assert_cmpint(ec_profile_verify(p, NULL), ==, -EINVAL);
}

static void test_name(void)
{
	static const struct {
		const char *text, *id, *name;
	} row[] = {
		{ "", "office", "office" },
		{ "tunnel-name=x", "office", "x" },
		{ "tunnel=y", "office", "y" },
		{ "", "My office (2nd floor)", "My-office-2nd-floor-" },
		{ "", "../../etc", "etc" },
		{ "", "Büro", "B-ro" },
		{ "", "a\nb", "a-b" },
		{ "", "_.-a_.-b", "a_.-b" },
		{ "", "", "connection" },
		{ "", "日本", "connection" },
	};

	for (size_t i = 0; i < EC_ELEMENTS(row); i++) {
		g_autoptr(EcProfile) p = new_profile(row[i].text);
		g_autofree char *name = ec_profile_name(p, row[i].id);

		g_assert_cmpstr(name, ==, row[i].name);
		g_assert_true(ec_name_is_valid(name));
	}
	g_autoptr(EcProfile) p = ec_profile_new();
	g_autofree char *longest = g_strnfill(200, 'x');
	g_autofree char *name = ec_profile_name(p, longest);
	g_assert_cmpuint(strlen(name), ==, 63);
	g_assert_true(ec_name_is_valid(name));
}

int main(int argc, char *argv[])
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/profile/rows", test_rows);
	g_test_add_func("/profile/settings", test_settings);
	g_test_add_func("/profile/unknown", test_unknown);
	g_test_add_func("/profile/secret", test_secret);
	g_test_add_func("/profile/verify", test_verify);
	g_test_add_func("/profile/name", test_name);
	return g_test_run();
}
