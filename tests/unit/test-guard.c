/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>

#include "guard-layer.h"
#include "unit.h"

/* The parts of the guard that work on specs and items alone: nothing here reaches the kernel. */

typedef struct Kind {
	const char *name;
	uint8_t protocol, lookup;
	uint16_t local_port, remote_port;
	bool has_vni;
} Kind;

static const Kind gre = { "gre", 47, 47, 0, 0, false };
static const Kind ipip = { "ipip", 4, 4, 0, 0, false };
static const Kind fou = { "fou", 17, 47, 5555, 5556, false };
static const Kind vxlan = { "vxlan", 17, 17, 4789, 4790, true };

static EcGuardSpec new_spec(const Kind *kind, bool v6, EcFence fence)
{
	EcGuardSpec s = { .fence = fence,
		.local = unit_address(v6 ? "fd00::1" : "10.0.0.1"),
		.remote = unit_address(v6 ? "fd00::2" : "10.0.0.2"),
		.protocol = kind->protocol,
		.lookup_protocol = kind->lookup,
		.local_port = kind->local_port,
		.remote_port = kind->remote_port,
		.has_vni = kind->has_vni,
		.vni = kind->has_vni ? 0x10203 : 0,
		.protect = true };

	if (fence == EC_FENCE_INTERFACE)
		(void)g_strlcpy(s.device, "tun0", sizeof(s.device));
	(void)g_strlcpy(s.vpn, "OpenVPN on tun0", sizeof(s.vpn));
	return s;
}

static GArray *render(const EcGuardLayer *layer, const EcGuardSpec *spec)
{
	GArray *items = g_array_new(FALSE, TRUE, sizeof(EcGuardItem));

	layer->render(spec, items);
	return items;
}

static char *elements(const EcGuardSpec *spec)
{
	g_autoptr(GArray) items = render(&ec_guard_layer_nftables, spec);
	g_autoptr(GPtrArray) pointers = g_ptr_array_new();

	for (guint i = 0; i < items->len; i++)
		g_ptr_array_add(pointers, &g_array_index(items, EcGuardItem, i));
	return ec_guard_nft_elements("add", "t", pointers);
}

#define E "add element inet t "

/* Errors to the peer, which quote packets, are in the sets `out` of every fence. */
static void test_nft(void)
{
	const struct {
		const Kind *kind;
		bool v6;
		EcFence fence;
		const char *text;
	} row[] = {
		{ &gre, false, EC_FENCE_NONE, "" },
		{ &gre, false, EC_FENCE_INTERFACE,
				E
				"out4 { 10.0.0.2 . 1, 10.0.0.2 . 47 }\n" E
				"out4-through { 10.0.0.2 . 1 . \"tun0\", 10.0.0.2 . 47 . \"tun0\" }\n" E
				"in4 { 10.0.0.2 . 47 }\n" E
				"in4-through { 10.0.0.2 . 47 . \"tun0\" }\n" },
		{ &ipip, true, EC_FENCE_IPSEC,
				E "out6 { fd00::2 . 58, fd00::2 . 4 }\n" E
				  "out6-ipsec { fd00::2 . 58, fd00::2 . 4 }\n" E
				  "in6 { fd00::2 . 4 }\n" E "in6-ipsec { fd00::2 . 4 }\n" },
		{ &fou, false, EC_FENCE_INTERFACE,
				E
				"out-port { 5556 }\n" E "in-port { 5555 }\n" E
				"out4 { 10.0.0.2 . 1, 10.0.0.2 . 47 }\n" E
				"out4-through { 10.0.0.2 . 1 . \"tun0\", 10.0.0.2 . 47 . \"tun0\" }\n" E
				"out4-udp { 10.0.0.2 . 5556 }\n" E
				"out4-udp-through { 10.0.0.2 . 5556 . \"tun0\" }\n" E
				"in4 { 10.0.0.2 . 47 }\n" E
				"in4-through { 10.0.0.2 . 47 . \"tun0\" }\n" E
				"in4-udp { 5555 }\n" E
				"in4-udp-through { 10.0.0.2 . 5555 . \"tun0\" }\n" },
		{ &vxlan, true, EC_FENCE_INTERFACE,
				E "out-port { 4790 }\n" E "in-port { 4789 }\n" E
				  "vni-port { 4789 }\n" E "out6 { fd00::2 . 58 }\n" E
				  "out6-through { fd00::2 . 58 . \"tun0\" }\n" E
				  "out6-vni { fd00::2 . 4790 . 66051 }\n" E
				  "out6-vni-through { fd00::2 . 4790 . 66051 . \"tun0\" }\n" E
				  "in6-vni { 4789 . 66051 }\n" E
				  "in6-vni-through { fd00::2 . 4789 . 66051 . \"tun0\" }\n" },
		{ &vxlan, false, EC_FENCE_IPSEC,
				E "out-port { 4790 }\n" E "in-port { 4789 }\n" E
				  "out4 { 10.0.0.2 . 1 }\n" E "out4-ipsec { 10.0.0.2 . 1 }\n" E
				  "out4-vni { 10.0.0.2 . 4790 . 66051 }\n" E
				  "out4-vni-ipsec { 10.0.0.2 . 4790 . 66051 }\n" E
				  "in4-vni { 4789 . 66051 }\n" E
				  "in4-vni-ipsec { 10.0.0.2 . 4789 . 66051 }\n" },
	};

	for (size_t i = 0; i < EC_ELEMENTS(row); i++) {
		const EcGuardSpec spec = new_spec(row[i].kind, row[i].v6, row[i].fence);
		g_autofree char *text = elements(&spec);
		g_assert_cmpstr(text, ==, row[i].text);
	}
}

/* The peer is whoever comes through the device. */
static void test_anybody(void)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	static const Kind raw = { "raw", 17, 17, 5555, 5556, false };
	EcGuardSpec spec = new_spec(&raw, false, EC_FENCE_INTERFACE), back;

	spec.anybody = true;
	g_autofree char *text = elements(&spec);
	g_assert_cmpstr(text, ==,
			E "out-port { 5556 }\n" E "in-port { 5555 }\n" E "from-port { 5555 }\n" E
			  "in4-any { 5555 . \"tun0\" }\n" E "out4 { 10.0.0.2 . 1 }\n" E
			  "out4-through { 10.0.0.2 . 1 . \"tun0\" }\n" E
			  "out4-udp { 10.0.0.2 . 5556 }\n" E
			  "out4-udp-through { 10.0.0.2 . 5556 . \"tun0\" }\n" E
			  "out4-from { 5555 }\n" E "out4-from-through { 5555 . \"tun0\" }\n" E
			  "out4-quoted { 5555 }\n" E "out4-quoted-through { 5555 . \"tun0\" }\n" E
			  "in4-udp { 5555 }\n" E
			  "in4-udp-through { 10.0.0.2 . 5555 . \"tun0\" }\n");
	g_autofree char *data = ec_guard_spec_to_data(&spec);
	g_assert_cmpint(ec_guard_spec_from_data(data, &back, &error), ==, 0);
	g_assert_true(back.anybody);
	/* Under a policy alone nothing tells where a packet came in: not with that. */
	spec.fence = EC_FENCE_IPSEC;
	g_assert_cmpint(ec_guard_spec_check(&spec, &error), ==, -EINVAL);
}

/* Whatever is in an element has its set and rules in the table. */
/* Out of an IPsec interface a packet comes again, with another device and under a policy. */
static void test_ipsec_within(void)
{
	EcGuardSpec spec = new_spec(&gre, false, EC_FENCE_INTERFACE);

	spec.ipsec_within = true;
	g_autofree char *text = elements(&spec);
	g_assert_cmpstr(text, ==,
			E "out4 { 10.0.0.2 . 1, 10.0.0.2 . 47 }\n" E
			  "out4-through { 10.0.0.2 . 1 . \"tun0\", 10.0.0.2 . 47 . \"tun0\" }\n" E
			  "out4-ipsec { 10.0.0.2 . 1, 10.0.0.2 . 47 }\n" E
			  "in4 { 10.0.0.2 . 47 }\n" E "in4-through { 10.0.0.2 . 47 . \"tun0\" }\n");
}

static void test_nft_table(void)
{
	static const Kind *const kinds[] = { &gre, &ipip, &fou, &vxlan };

	for (unsigned i = 0; i < 16; i++) {
		bool v6 = i & 4;
		const EcGuardSpec spec = new_spec(
				kinds[i & 3], v6, i & 8 ? EC_FENCE_IPSEC : EC_FENCE_INTERFACE);
		g_autoptr(GArray) items = render(&ec_guard_layer_nftables, &spec);
		g_autoptr(GHashTable) set = ec_guard_item_set();
		for (guint n = 0; n < items->len; n++)
			(void)g_hash_table_add(set, g_memdup2(&g_array_index(items, EcGuardItem, n),
								    sizeof(EcGuardItem)));
		g_autofree char *table = ec_guard_nft_table("t", set);
		g_auto(GStrv) lines = g_strsplit(table, "\n", -1);
		g_assert_true(g_str_has_prefix(
				table, "add table inet t\ndelete table inet t\ntable inet t {\n"));
		for (char **line = lines; *line; line++) {
			if (!g_str_has_prefix(*line, E))
				continue;
			g_auto(GStrv) words = g_strsplit(*line, " ", 6);
			g_autofree char *definition = g_strdup_printf("set %s {", words[4]);
			g_autofree char *use = g_strdup_printf("@%s ", words[4]);
			g_assert_nonnull(strstr(table, definition));
			g_assert_nonnull(strstr(table, use));
		}
		/* The other family is not there at all. */
		g_assert_null(strstr(table, v6 ? "ip saddr" : "ip6 saddr"));
		g_assert_null(strchr(table, '#'));
		g_assert_null(strchr(table, '$'));
		g_assert_null(strchr(table, '~'));
	}
}

static void test_route(void)
{
	const struct {
		const Kind *kind;
		uint8_t protocol;
		uint16_t port;
	} row[] = { { &gre, 47, 0 }, { &ipip, 4, 0 }, { &fou, 47, 0 }, { &vxlan, 17, 4790 } };

	for (size_t i = 0; i < EC_ELEMENTS(row) * 2; i++) {
		EcGuardSpec spec = new_spec(row[i / 2].kind, i % 2, EC_FENCE_INTERFACE);
		spec.gateway = unit_address(i % 2 ? "fd00::3" : "10.0.0.3");
		g_autoptr(GArray) items = render(&ec_guard_layer_route, &spec);
		const EcGuardItem *item = (void *)items->data;

		/* The wall is there before the way, and both before anything is led to them. */
		g_assert_cmpuint(items->len, ==, 3);
		for (guint n = 0; n < 2; n++) {
			const EcAddress peer = ec_guard_item_address(&item[n], item[n].peer);
			g_assert_true(ec_address_equal(&peer, &spec.remote));
		}
		const EcAddress gateway = ec_guard_item_address(&item[1], item[1].other);
		g_assert_true(ec_address_equal(&gateway, &spec.gateway));
		g_assert_cmpstr(item[0].device, ==, "");
		g_assert_cmpstr(item[1].device, ==, "tun0");
		g_assert_cmpuint(item[2].protocol, ==, row[i / 2].protocol);
		g_assert_cmpuint(item[2].port, ==, row[i / 2].port);
		g_assert_cmpuint(item[2].family, ==, i % 2 ? AF_INET6 : AF_INET);
		spec.fence = EC_FENCE_IPSEC;
		g_autoptr(GArray) none = render(&ec_guard_layer_route, &spec);
		g_assert_cmpuint(none->len, ==, 0);
	}
}

/* IP in IPv6 carries both families, each under its own protocol. */
static void test_second_protocol(void)
{
	static const EcGuardLayer *const all[] = { &ec_guard_layer_nftables, &ec_guard_layer_route,
		&ec_guard_layer_xfrm };

	for (size_t i = 0; i < EC_ELEMENTS(all) * 2; i++) {
		EcGuardSpec spec =
				new_spec(&ipip, true, i % 2 ? EC_FENCE_IPSEC : EC_FENCE_INTERFACE);
		g_autoptr(GArray) one = render(all[i / 2], &spec);
		spec.second_protocol = IPPROTO_IPV6;
		g_autoptr(GArray) two = render(all[i / 2], &spec);
		unsigned first = 0, second = 0;

		for (guint n = 0; n < two->len; n++) {
			const EcGuardItem *item = &g_array_index(two, EcGuardItem, n);
			first += item->protocol == IPPROTO_IPIP;
			second += item->protocol == IPPROTO_IPV6;
		}
		g_assert_cmpuint(first, ==, second);
		g_assert_cmpuint(two->len, ==, one->len + second);
	}
}

static void test_xfrm(void)
{
	/* out, and in once or twice: protocol and port. */
	const struct {
		const Kind *kind;
		uint16_t want[6];
	} row[] = {
		{ &gre, { 47, 0, 47, 0 } },
		{ &ipip, { 4, 0, 4, 0 } },
		{ &fou, { 47, 0, 17, 5555, 47, 0 } },
		{ &vxlan, { 17, 4790, 17, 4789 } },
	};

	for (size_t i = 0; i < EC_ELEMENTS(row) * 2; i++) {
		const EcGuardSpec spec = new_spec(row[i / 2].kind, i % 2, EC_FENCE_IPSEC);
		const uint16_t *want = row[i / 2].want;
		g_autoptr(GArray) items = render(&ec_guard_layer_xfrm, &spec);

		g_assert_cmpuint(items->len, ==, want[4] ? 3 : 2);
		for (size_t n = 0; n < items->len; n++) {
			const EcGuardItem *item = &g_array_index(items, EcGuardItem, n);
			const EcAddress local = ec_guard_item_address(item, item->other);
			g_assert_cmpuint(item->protocol, ==, want[n * 2]);
			g_assert_cmpuint(item->port, ==, want[n * 2 + 1]);
			g_assert_cmpuint(item->type, ==, n > 0);
			g_assert_true(ec_address_equal(&local, &spec.local));
		}
		const EcGuardSpec other = new_spec(row[i / 2].kind, i % 2, EC_FENCE_INTERFACE);
		g_autoptr(GArray) none = render(&ec_guard_layer_xfrm, &other);
		g_assert_cmpuint(none->len, ==, 0);
	}
}

/* A layer that notes what it is told. */

typedef struct Told {
	guint gained, lost, calls;
	bool fails;
} Told;

static int tell(EcGuardShelf *s, const GPtrArray *gained, const GPtrArray *lost,
		sd_bus_error *ret_error)
{
	Told *told = s->own;

	told->gained = gained->len;
	told->lost = lost->len;
	told->calls++;
	return told->fails ? ec_error(ret_error, EC_ERROR_KERNEL, "it does not want") : 0;
}

static GArray *items_of(const char *peers)
{
	GArray *items = g_array_new(FALSE, TRUE, sizeof(EcGuardItem));

	for (; *peers; peers++) {
		const EcAddress a = { .family = AF_INET, .bytes = { 10, 0, 0, (uint8_t)*peers } };
		const EcGuardItem item = ec_guard_item(0, &a);
		g_array_append_val(items, item);
	}
	return items;
}

static void test_shelf(void)
{
	const EcGuardLayer layer = { .title = "told", .apply = tell };
	EcGuard guard = { 0 };
	EcGuardShelf s = { 0 };
	Told told = { 0 };
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autoptr(GArray) ab = items_of("ab"), bc = items_of("bc"), d = items_of("d");

	ec_guard_shelf_init(&s, &layer, &guard);
	s.own = &told;
	g_assert_cmpint(ec_guard_shelf_move(&s, ab, NULL, &error), ==, 0);
	g_assert_true(s.holds);
	g_assert_cmpuint(told.gained, ==, 2);
	/* Another tunnel shares b. */
	g_assert_cmpint(ec_guard_shelf_move(&s, bc, NULL, &error), ==, 0);
	g_assert_cmpuint(told.gained, ==, 1);
	/* A third that has nothing of its own is not worth a call, and neither is its end. */
	g_assert_cmpint(ec_guard_shelf_move(&s, ab, NULL, &error), ==, 0);
	g_assert_cmpint(ec_guard_shelf_move(&s, NULL, ab, &error), ==, 0);
	g_assert_cmpuint(told.calls, ==, 2);
	/* What a tunnel keeps is neither new nor gone. */
	g_assert_cmpint(ec_guard_shelf_move(&s, bc, ab, &error), ==, 0);
	g_assert_cmpuint(told.gained, ==, 0);
	g_assert_cmpuint(told.lost, ==, 1);
	/* A refusal changes nothing. */
	told.fails = true;
	g_assert_cmpint(ec_guard_shelf_move(&s, d, bc, &error), <, 0);
	g_assert_cmpstr(error.message, ==, "it does not want");
	g_assert_true(s.holds);
	g_assert_cmpuint(g_hash_table_size(s.items), ==, 2);
	told.fails = false;
	ec_guard_shelf_release(&s, bc);
	g_assert_cmpuint(told.calls, ==, 4);
	ec_guard_shelf_release(&s, bc);
	g_assert_cmpuint(told.lost, ==, 2);
	g_assert_cmpuint(g_hash_table_size(s.items), ==, 0);
	ec_guard_shelf_done(&s);
}

static void test_shelf_refused(void)
{
	const EcGuardLayer layer = { .title = "told", .apply = tell };
	EcGuard guard = { 0 };
	EcGuardShelf s = { 0 };
	Told told = { .fails = true };
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autoptr(GArray) ab = items_of("ab");

	ec_guard_shelf_init(&s, &layer, &guard);
	s.own = &told;
	g_assert_cmpint(ec_guard_shelf_move(&s, ab, NULL, &error), <, 0);
	g_assert_false(s.holds);
	g_assert_cmpstr(s.why, ==, "it does not want");
	told.fails = false;
	g_assert_cmpint(ec_guard_shelf_move(&s, ab, NULL, NULL), ==, 0);
	g_assert_true(s.holds);
	g_assert_cmpstr(s.why, ==, "");
	g_assert_cmpuint(told.gained, ==, 2);
	ec_guard_shelf_done(&s);
}

static void test_file(void)
{
	static const Kind *const kinds[] = { &gre, &ipip, &fou, &vxlan };

	for (unsigned i = 0; i < 16; i++) {
		EcGuardSpec spec = new_spec(
				kinds[i & 3], i & 4, i & 8 ? EC_FENCE_IPSEC : EC_FENCE_INTERFACE);
		EcGuardSpec read = { 0 };
		if (!(i & 8))
			spec.gateway = unit_address(i & 4 ? "fd00::3" : "10.0.0.3");
		spec.second_protocol = kinds[i & 3] == &ipip ? IPPROTO_IPV6 : 0;
		spec.ipsec_within = i & 1;
		g_autofree char *data = ec_guard_spec_to_data(&spec);
		g_assert_cmpint(ec_guard_spec_from_data(data, &read, NULL), ==, 0);
		g_autofree char *again = ec_guard_spec_to_data(&read);
		g_assert_cmpstr(data, ==, again);
	}
}

/* One key changed at a time. */
static void test_broken_file(void)
{
	static const char *const slips[][2] = { { "fence", "interfac" }, { "fence", "none" },
		{ "device", "" }, { "device", "a\"b" }, { "device", "tun*" },
		{ "device", "longer-than-15-chars" }, { "gateway", "10.0.0" },
		{ "gateway", "fd00::3" }, { "local", "fd00::1" }, { "remote", "" },
		{ "remote", "peer.example" }, { "protocol", "6" }, { "protocol", "256" },
		{ "protocol", "47" }, { "lookup-protocol", "4" }, { "second-protocol", "41" },
		{ "local-port", "0" }, { "local-port", "65536" }, { "remote-port", "-1" },
		{ "remote-port", "x" }, { "vni", "16777216" } };
	const EcGuardSpec spec = new_spec(&vxlan, false, EC_FENCE_INTERFACE);
	g_autofree char *data = ec_guard_spec_to_data(&spec);

	for (size_t i = 0; i < EC_ELEMENTS(slips); i++) {
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
		g_autoptr(GKeyFile) file = g_key_file_new();
		EcGuardSpec read = { .vni = 99 };

		g_assert_true(g_key_file_load_from_data(
				file, data, (gsize)-1, G_KEY_FILE_NONE, NULL));
		g_key_file_set_value(file, "guard", slips[i][0], slips[i][1]);
		g_autofree char *bad = g_key_file_to_data(file, NULL, NULL);
		int r = ec_guard_spec_from_data(bad, &read, &error);
		if (r >= 0)
			g_error("%s=%s was taken", slips[i][0], slips[i][1]);
		unit_assert_error(r, &error, "InvalidSetting", "a fence cannot have");
		g_assert_cmpuint(read.vni, ==, 99);
	}
	for (size_t n = 0; n < strlen(data); n++) {
		g_autofree char *cut = g_strndup(data, n);
		EcGuardSpec read;
		/* Its last line is the name for sentences: a shorter one is still one. */
		if (!strstr(cut, "\nvpn="))
			g_assert_cmpint(ec_guard_spec_from_data(cut, &read, NULL), ==, -EINVAL);
	}
}

static void test_words(void)
{
	const char *words[4];

	ec_guard_words(0, words);
	g_assert_null(words[0]);
	ec_guard_words(EC_GUARD_NFTABLES | EC_GUARD_ROUTE | EC_GUARD_XFRM, words);
	g_assert_cmpstr(words[0], ==, "nftables");
	g_assert_cmpstr(words[1], ==, "route");
	g_assert_cmpstr(words[2], ==, "xfrm");
	g_assert_null(words[3]);
}

int main(int argc, char *argv[])
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/guard/nft", test_nft);
	g_test_add_func("/guard/ipsec-within", test_ipsec_within);
	g_test_add_func("/guard/nft-table", test_nft_table);
	g_test_add_func("/guard/anybody", test_anybody);
	g_test_add_func("/guard/route", test_route);
	g_test_add_func("/guard/xfrm", test_xfrm);
	g_test_add_func("/guard/second-protocol", test_second_protocol);
	g_test_add_func("/guard/shelf", test_shelf);
	g_test_add_func("/guard/shelf-refused", test_shelf_refused);
	g_test_add_func("/guard/file", test_file);
	g_test_add_func("/guard/broken-file", test_broken_file);
	g_test_add_func("/guard/words", test_words);
	return g_test_run();
}
