/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "util.h"

#include <errno.h>
#include <string.h>

#include "unit.h"

static void test_address(void)
{
	static const char *const good[][2] = { { "192.0.2.1", "192.0.2.1" },
		{ "0.0.0.0", "0.0.0.0" }, { "255.255.255.255", "255.255.255.255" }, { "::", "::" },
		{ "2001:DB8::0:1", "2001:db8::1" }, { "::ffff:192.0.2.1", "::ffff:192.0.2.1" } };
	static const char *const bad[] = { "", " ", "192.0.2", "192.0.2.256", "192.0.2.1 ",
		" 192.0.2.1", "192.0.2.1/24", "192.0.2.01x", "0x7f.1", "1", "localhost",
		"fe80::1%eth0", ":", ":::", "2001:db8", "2001:db8::g", "[::1]" };
	char text[INET6_ADDRSTRLEN];

	for (size_t i = 0; i < EC_ELEMENTS(good); i++) {
		EcAddress a = unit_address(good[i][0]);

		g_assert_cmpint(a.family, ==, strchr(good[i][0], ':') ? AF_INET6 : AF_INET);
		g_assert_cmpuint(ec_address_size(&a), ==, a.family == AF_INET ? 4 : 16);
		g_assert_cmpstr(ec_address_to_string(&a, text), ==, good[i][1]);
	}
	for (size_t i = 0; i < EC_ELEMENTS(bad); i++) {
		EcAddress a, before;

		memset(&a, 0x5a, sizeof(a));
		before = a;
		g_assert_cmpint(ec_address_from_string(bad[i], &a), ==, -EINVAL);
		g_assert_cmpmem(&a, sizeof(a), &before, sizeof(before));
	}
	EcAddress none = unit_address("");
	g_assert_cmpuint(ec_address_size(&none), ==, 0);
	g_assert_cmpstr(ec_address_to_string(&none, text), ==, "");
}

static void test_address_equal(void)
{
	EcAddress a = unit_address("192.0.2.1"), b = unit_address("192.0.2.1");
	EcAddress c = unit_address("192.0.2.2"), v6 = unit_address("c000:201::"), none = { 0 };

	/* What lies behind the four bytes does not matter. */
	b.bytes[4] = 1;
	g_assert_true(ec_address_equal(&a, &b));
	g_assert_false(ec_address_equal(&a, &c));
	g_assert_false(ec_address_equal(&a, &v6));
	g_assert_false(ec_address_equal(&a, &none));
	g_assert_true(ec_address_equal(&none, &none));
}

static void test_cidr(void)
{
	static const struct {
		const char *text, *address;
		unsigned length;
	} good[] = { { "192.0.2.1/24", "192.0.2.1", 24 }, { "192.0.2.1/0", "192.0.2.1", 0 },
		{ "192.0.2.1/32", "192.0.2.1", 32 }, { "192.0.2.1", "192.0.2.1", 32 },
		{ "fd00::1/64", "fd00::1", 64 }, { "fd00::1", "fd00::1", 128 } };
	static const char *const bad[] = { "", "/", "/24", "192.0.2.1/", "192.0.2.1/33",
		"192.0.2.1/-1", "192.0.2.1/24/8", "192.0.2.1/ 24", "192.0.2.1/+24", "fd00::1/129",
		"192.0.2.1/255.255.255.0", "host/24", "192.0.2.1/0x18" };
	char text[INET6_ADDRSTRLEN];
	unsigned length;
	EcAddress a;

	for (size_t i = 0; i < EC_ELEMENTS(good); i++) {
		g_assert_cmpint(ec_cidr_from_string(good[i].text, &a, &length), ==, 0);
		g_assert_cmpstr(ec_address_to_string(&a, text), ==, good[i].address);
		g_assert_cmpuint(length, ==, good[i].length);
	}
	for (size_t i = 0; i < EC_ELEMENTS(bad); i++)
		g_assert_cmpint(ec_cidr_from_string(bad[i], &a, &length), ==, -EINVAL);
}

static void test_mac(void)
{
	static const char *const bad[] = { "", "02:00:5e:10:00", "02:00:5e:10:00:01:", "02:00:5e",
		"02-00-5e-10-00-01", "02:00:5e:10:00:0g", "01:00:5e:10:00:01", "ff:ff:ff:ff:ff:ff",
		"00:00:00:00:00:00", "2:0:5e:10:0:1", " 2:00:5e:10:00:01", "02:00:5e:10:00:1 ",
		"02005e100001" };
	static const uint8_t expected[] = { 0x02, 0x00, 0x5e, 0x10, 0xab, 0xcd };
	uint8_t mac[6];

	g_assert_cmpint(ec_mac_from_string("02:00:5e:10:aB:Cd", mac), ==, 0);
	g_assert_cmpmem(mac, sizeof(mac), expected, sizeof(expected));
	for (size_t i = 0; i < EC_ELEMENTS(bad); i++) {
		g_assert_cmpint(ec_mac_from_string(bad[i], mac), ==, -EINVAL);
		g_assert_cmpmem(mac, sizeof(mac), expected, sizeof(expected));
	}
}

static void test_names(void)
{
	static const char *const interfaces[] = { "a", "eth0", "br-lan.100", "_x", "..a", "-a",
		"123456789012345", "All" };
	static const char *const not_interfaces[] = { "", ".", "..", "all", "default",
		"1234567890123456", "a/b", "../x", "a b", "a:1", "a\n", "\x7f", "\xc3\xa4", "a%d" };
	static const char *const names[] = { "a", "9", "Site-A_1.x", "a..",
		"123456789012345678901234567890123456789012345678901234567890123" };
	static const char *const not_names[] = { "", ".", "..", "../x", ".hidden", "-a", "_a",
		"a/b", "a b", "a\n", "\xc3\xa4", "a\xff",
		"1234567890123456789012345678901234567890123456789012345678901234" };

	for (size_t i = 0; i < EC_ELEMENTS(interfaces); i++)
		g_assert_true(ec_ifname_is_valid(interfaces[i]));
	for (size_t i = 0; i < EC_ELEMENTS(not_interfaces); i++)
		g_assert_false(ec_ifname_is_valid(not_interfaces[i]));
	for (size_t i = 0; i < EC_ELEMENTS(names); i++)
		g_assert_true(ec_name_is_valid(names[i]));
	for (size_t i = 0; i < EC_ELEMENTS(not_names); i++)
		g_assert_false(ec_name_is_valid(not_names[i]));
}

static void test_text(void)
{
	static const char *const clean[] = { "", "a b", "B\xc3\xbcro", "\xe2\x82\xac", "~" };
	static const char *const unclean[] = { "\n", "a\tb", "\x1b[31m", "\x7f", "\xc2\x85", "\xff",
		"\xc0\x80", "\xed\xa0\x80", "\xe2\x82" };

	for (size_t i = 0; i < EC_ELEMENTS(clean); i++)
		g_assert_true(ec_text_is_clean(clean[i]));
	for (size_t i = 0; i < EC_ELEMENTS(unclean); i++)
		g_assert_false(ec_text_is_clean(unclean[i]));
}

static void test_errors(void)
{
	static const struct {
		const char *name, *token;
		int number;
	} row[] = {
		{ EC_ERROR_EXISTS, "Exists", EEXIST },
		{ EC_ERROR_NO_SUCH_TUNNEL, "NoSuchTunnel", ENOENT },
		{ EC_ERROR_INVALID_SETTING, "InvalidSetting", EINVAL },
		{ EC_ERROR_NOT_SUPPORTED, "NotSupported", EOPNOTSUPP },
		{ EC_ERROR_NO_UNDERLAY, "NoUnderlay", 0 },
		{ EC_ERROR_NOT_PROTECTED, "NotProtected", 0 },
		{ EC_ERROR_NOT_AUTHORIZED, "NotAuthorized", EACCES },
		{ EC_ERROR_NAME_TAKEN, "NameTaken", 0 },
		{ EC_ERROR_NO_BRIDGE, "NoBridge", 0 },
		{ EC_ERROR_LOOP, "Loop", ELOOP },
		{ EC_ERROR_REFUSED, "Refused", ECONNREFUSED },
		{ EC_ERROR_WRONG_KEY, "WrongKey", EKEYREJECTED },
		{ EC_ERROR_PEER_UNREACHABLE, "PeerUnreachable", EHOSTUNREACH },
		{ EC_ERROR_BUSY, "Busy", EBUSY },
		{ EC_ERROR_LIMIT_EXCEEDED, "LimitExceeded", 0 },
		{ EC_ERROR_KERNEL, "Kernel", EIO },
	};

	ec_error_map_register();
	for (size_t i = 0; i < EC_ELEMENTS(row); i++) {
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
		int r = ec_error(&error, row[i].name, "%s: %d", "x", 7);

		g_assert_cmpint(r, <, 0);
		if (row[i].number)
			g_assert_cmpint(r, ==, -row[i].number);
		g_assert_cmpstr(error.name, ==, row[i].name);
		g_assert_cmpstr(error.message, ==, "x: 7");
		g_assert_cmpstr(ec_error_token(&error), ==, row[i].token);
		/* The way back, as a caller of the bus sees it, is the same number. */
		g_assert_cmpint(sd_bus_error_get_errno(&error), ==, -r);
		g_assert_cmpint(ec_error(NULL, row[i].name, "x"), ==, r);
		for (size_t j = 0; j < i; j++)
			g_assert_cmpint(ec_error(NULL, row[j].name, "x"), !=, r);
	}
	const sd_bus_error unset = SD_BUS_ERROR_NULL;
	const sd_bus_error foreign = SD_BUS_ERROR_MAKE_CONST(SD_BUS_ERROR_FAILED, "x");
	g_assert_cmpstr(ec_error_token(NULL), ==, "Failed");
	g_assert_cmpstr(ec_error_token(&unset), ==, "Failed");
	g_assert_cmpstr(ec_error_token(&foreign), ==, "Failed");
}

int main(int argc, char *argv[])
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/util/address", test_address);
	g_test_add_func("/util/address-equal", test_address_equal);
	g_test_add_func("/util/cidr", test_cidr);
	g_test_add_func("/util/mac", test_mac);
	g_test_add_func("/util/names", test_names);
	g_test_add_func("/util/text", test_text);
	g_test_add_func("/util/errors", test_errors);
	return g_test_run();
}
