/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "encap.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/if_tunnel.h>
#include <linux/ip6_tunnel.h>
#include <netlink/attr.h>
#include <string.h>

#include "encap/fake.h"
#include "encap/user-common.h"
#include "unit.h"

/* One wire with every field set, so that none can be left out unseen. */
static EcWire new_wire(int family, uint32_t id, bool fragment)
{
	bool v6 = family == AF_INET6;

	return (EcWire){
		.local = unit_address(v6 ? "fd00::2" : "10.9.0.2"),
		.remote = unit_address(v6 ? "fd00::1" : "10.9.0.1"),
		.ifindex = 5,
		.id = id,
		.data_port = 1000,
		.remote_data_port = 2000,
		.ttl = 64,
		.tos = 0xb8,
		.fwmark = 0xcafe,
		.fragment = fragment,
	};
}

static EcMessage *fill(const EcEncap *e, const EcWire *w)
{
	EcMessage *m = nlmsg_alloc_simple(0, 0);

	g_assert_nonnull(m);
	g_assert_cmpint(e->fill(w, m), ==, 0);
	return m;
}

#define MAX_ATTR 64

/* Attributes by number; none twice. */
static void parse(EcMessage *m, struct nlattr *tb[static MAX_ATTR + 1])
{
	struct nlmsghdr *h = nlmsg_hdr(m);
	struct nlattr *attr;
	int left, count = 0, found = 0;

	g_assert_cmpint(nla_parse(tb, MAX_ATTR, nlmsg_attrdata(h, 0), nlmsg_attrlen(h, 0), NULL),
			==, 0);
	nlmsg_for_each_attr(attr, h, 0, left) count++;
	g_assert_cmpint(left, ==, 0);
	for (size_t i = 0; i <= MAX_ATTR; i++)
		found += tb[i] != NULL;
	g_assert_cmpint(found, ==, count);
}

#define assert_attr(attr, type, value)                                                             \
	do {                                                                                       \
		const type wanted = (type)(value);                                                 \
		g_assert_nonnull(attr);                                                            \
		g_assert_cmpmem(nla_data(attr), (size_t)nla_len(attr), &wanted, sizeof(wanted));   \
	} while (false)

static void assert_address(const struct nlattr *attr, const EcAddress *a)
{
	g_assert_nonnull(attr);
	g_assert_cmpmem(nla_data(attr), (size_t)nla_len(attr), a->bytes, ec_address_size(a));
}

static unsigned count_attrs(struct nlattr *tb[static MAX_ATTR + 1])
{
	unsigned n = 0;

	for (size_t i = 0; i <= MAX_ATTR; i++)
		n += tb[i] != NULL;
	return n;
}

/* gre, gretap and gretap-fou over both families, with and without key and fragments. */
static void check_gre(const EcEncap *e, int family, uint32_t id, bool fragment)
{
	const EcWire w = new_wire(family, id, fragment);
	g_autoptr(EcMessage) m = fill(e, &w);
	struct nlattr *tb[MAX_ATTR + 1];
	bool fou = e == &ec_encap_gretap_fou;
	uint16_t key = id ? 0x2000 : 0;

	parse(m, tb);
	assert_attr(tb[IFLA_GRE_LINK], uint32_t, 5);
	assert_attr(tb[IFLA_GRE_IFLAGS], uint16_t, htons(key));
	/* Numbered on the way out, not demanded on the way in. */
	assert_attr(tb[IFLA_GRE_OFLAGS], uint16_t, htons(fou ? key | 0x1000 : key));
	assert_attr(tb[IFLA_GRE_IKEY], uint32_t, htonl(id));
	assert_attr(tb[IFLA_GRE_OKEY], uint32_t, htonl(id));
	assert_address(tb[IFLA_GRE_LOCAL], &w.local);
	assert_address(tb[IFLA_GRE_REMOTE], &w.remote);
	assert_attr(tb[IFLA_GRE_TTL], uint8_t, 64);
	assert_attr(tb[IFLA_GRE_FWMARK], uint32_t, 0xcafe);
	assert_attr(tb[IFLA_GRE_ENCAP_TYPE], uint16_t, fou ? TUNNEL_ENCAP_FOU : TUNNEL_ENCAP_NONE);
	assert_attr(tb[IFLA_GRE_ENCAP_SPORT], uint16_t, htons(fou ? 1000 : 0));
	assert_attr(tb[IFLA_GRE_ENCAP_DPORT], uint16_t, htons(fou ? 2000 : 0));
	if (family == AF_INET) {
		assert_attr(tb[IFLA_GRE_TOS], uint8_t, 0xb8);
		assert_attr(tb[IFLA_GRE_PMTUDISC], uint8_t, !fragment);
		assert_attr(tb[IFLA_GRE_IGNORE_DF], uint8_t, fragment);
		assert_attr(tb[IFLA_GRE_ENCAP_FLAGS], uint16_t, 0);
	} else {
		assert_attr(tb[IFLA_GRE_ENCAP_LIMIT], uint8_t, 0);
		assert_attr(tb[IFLA_GRE_FLOWINFO], uint32_t, htonl(0x0b800000));
		g_assert_cmpuint(nla_get_u32(tb[IFLA_GRE_FLAGS]) & 0xffff, ==,
				IP6_TNL_F_IGN_ENCAP_LIMIT);
		assert_attr(tb[IFLA_GRE_ENCAP_FLAGS], uint16_t, fou ? TUNNEL_ENCAP_FLAG_CSUM6 : 0);
	}
	g_assert_cmpuint(count_attrs(tb), ==, 16);
}

static void test_gre(void)
{
	static const EcEncap *const kinds[] = { &ec_encap_gre, &ec_encap_gretap,
		&ec_encap_gretap_fou };

	for (size_t i = 0; i < EC_ELEMENTS(kinds); i++) {
		for (unsigned n = 0; n < 8; n++)
			check_gre(kinds[i], n & 1 ? AF_INET6 : AF_INET, n & 2 ? 0x11223344 : 0,
					n & 4);
	}
}

static void assert_sources(const struct nlattr *attr, uint16_t low, uint16_t high)
{
	const struct ifla_vxlan_port_range want = { htons(low), htons(high) };

	g_assert_nonnull(attr);
	g_assert_cmpmem(nla_data(attr), (size_t)nla_len(attr), &want, sizeof(want));
}

static void test_vxlan(void)
{
	for (unsigned n = 0; n < 16; n++) {
		bool v6 = n & 1;
		EcWire w = new_wire(v6 ? AF_INET6 : AF_INET, n & 2 ? 0x112233 : 0, n & 4);
		w.nat = n & 8;
		g_autoptr(EcMessage) m = fill(&ec_encap_vxlan, &w);
		struct nlattr *tb[MAX_ATTR + 1];

		parse(m, tb);
		assert_attr(tb[IFLA_VXLAN_ID], uint32_t, n & 2 ? 0x112233 : 0);
		/* Behind a NAT the forwarding database has the peer's address, which varies, and
		 * only the data port gets through. */
		if (w.nat)
			g_assert_null(tb[v6 ? IFLA_VXLAN_GROUP6 : IFLA_VXLAN_GROUP]);
		else
			assert_address(tb[v6 ? IFLA_VXLAN_GROUP6 : IFLA_VXLAN_GROUP], &w.remote);
		assert_sources(tb[IFLA_VXLAN_PORT_RANGE], w.nat ? 1000 : 0, w.nat ? 1001 : 0);
		assert_address(tb[v6 ? IFLA_VXLAN_LOCAL6 : IFLA_VXLAN_LOCAL], &w.local);
		assert_attr(tb[IFLA_VXLAN_PORT], uint16_t, htons(1000));
		assert_attr(tb[IFLA_VXLAN_LEARNING], uint8_t, 0);
		assert_attr(tb[IFLA_VXLAN_TTL], uint8_t, 64);
		assert_attr(tb[IFLA_VXLAN_TOS], uint8_t, 0xb8);
		assert_attr(tb[IFLA_VXLAN_DF], uint8_t, 0);
		/* The kernel deletes a VXLAN together with the device it is bound to. */
		g_assert_null(tb[IFLA_VXLAN_LINK]);
		g_assert_cmpuint(count_attrs(tb), ==, w.nat ? 8 : 9);
	}
}

static void test_ipip(void)
{
	for (unsigned n = 0; n < 4; n++) {
		int family = n & 1 ? AF_INET6 : AF_INET;
		EcWire w = new_wire(family, 0, n & 2);
		g_autoptr(EcMessage) m = fill(&ec_encap_ipip, &w);
		struct nlattr *tb[MAX_ATTR + 1];

		parse(m, tb);
		assert_attr(tb[IFLA_IPTUN_LINK], uint32_t, 5);
		assert_address(tb[IFLA_IPTUN_LOCAL], &w.local);
		assert_address(tb[IFLA_IPTUN_REMOTE], &w.remote);
		assert_attr(tb[IFLA_IPTUN_TTL], uint8_t, 64);
		assert_attr(tb[IFLA_IPTUN_FWMARK], uint32_t, 0xcafe);
		assert_attr(tb[IFLA_IPTUN_ENCAP_TYPE], uint16_t, TUNNEL_ENCAP_NONE);
		assert_attr(tb[IFLA_IPTUN_ENCAP_FLAGS], uint16_t, 0);
		assert_attr(tb[IFLA_IPTUN_ENCAP_SPORT], uint16_t, 0);
		assert_attr(tb[IFLA_IPTUN_ENCAP_DPORT], uint16_t, 0);
		assert_attr(tb[IFLA_IPTUN_PROTO], uint8_t, family == AF_INET ? IPPROTO_IPIP : 0);
		if (family == AF_INET) {
			assert_attr(tb[IFLA_IPTUN_TOS], uint8_t, 0xb8);
			assert_attr(tb[IFLA_IPTUN_PMTUDISC], uint8_t, !(n & 2));
		} else {
			assert_attr(tb[IFLA_IPTUN_ENCAP_LIMIT], uint8_t, 0);
			assert_attr(tb[IFLA_IPTUN_FLOWINFO], uint32_t, htonl(0x0b800000));
			g_assert_cmpuint(nla_get_u32(tb[IFLA_IPTUN_FLAGS]) & 0xffff, ==,
					IP6_TNL_F_IGN_ENCAP_LIMIT);
		}
		g_assert_cmpuint(count_attrs(tb), ==, family == AF_INET ? 12 : 13);
	}
}

/* A TUN device: what it is, and nothing of the wire, which is the worker's. */
static void test_user(void)
{
	static const struct {
		const EcEncap *encap;
		uint8_t type;
	} row[] = { { &ec_encap_gretap_fou_user, IFF_TAP }, { &ec_encap_vxlan_user, IFF_TAP },
		{ &ec_encap_raw_udp, IFF_TAP }, { &ec_encap_tun_udp, IFF_TUN } };

	for (size_t i = 0; i < EC_ELEMENTS(row) * 2; i++) {
		const EcEncap *e = row[i / 2].encap;
		const EcWire w = new_wire(i % 2 ? AF_INET6 : AF_INET, 0, false);
		g_autoptr(EcMessage) m = fill(e, &w);
		struct nlattr *tb[MAX_ATTR + 1];

		parse(m, tb);
		assert_attr(tb[IFLA_TUN_TYPE], uint8_t, row[i / 2].type);
		assert_attr(tb[IFLA_TUN_PI], uint8_t, 0);
		assert_attr(tb[IFLA_TUN_VNET_HDR], uint8_t, 1);
		g_assert_cmpuint(count_attrs(tb), ==, 3);
		g_assert_cmpint(!(e->flags & EC_ENCAP_ETHERNET), ==, row[i / 2].type == IFF_TUN);
	}
}

/* The kernel reports, beside the flags it was given, what it may do between two addresses. */
static void test_ip6_capabilities(void)
{
	static const struct {
		const char *local, *remote;
		int ifindex;
		uint32_t flags;
	} row[] = {
		{ "fd00::2", "fd00::1", 0, 0x30001 },
		{ "", "fd00::1", 0, 0x40001 },
		{ "::", "fd00::1", 0, 0x40001 },
		{ "fe80::2", "fe80::1", 5, 0x30001 },
		{ "fe80::2", "fe80::1", 0, 0x1 },
	};

	for (size_t i = 0; i < EC_ELEMENTS(row); i++) {
		const EcWire w = { .local = unit_address(row[i].local),
			.remote = unit_address(row[i].remote),
			.ifindex = row[i].ifindex };
		g_autoptr(EcMessage) gre = fill(&ec_encap_gretap, &w);
		g_autoptr(EcMessage) ipip = fill(&ec_encap_ipip, &w);
		struct nlattr *tb[MAX_ATTR + 1];

		parse(gre, tb);
		assert_attr(tb[IFLA_GRE_FLAGS], uint32_t, row[i].flags);
		parse(ipip, tb);
		assert_attr(tb[IFLA_IPTUN_FLAGS], uint32_t, row[i].flags);
	}
}

/* No source address yet: written all the same, as zero, so that a change clears an older one. */
static void test_no_local(void)
{
	static const EcEncap *const kinds[] = { &ec_encap_gretap, &ec_encap_vxlan, &ec_encap_ipip };
	static const uint8_t zero[16];

	for (size_t i = 0; i < EC_ELEMENTS(kinds) * 2; i++) {
		const EcEncap *e = kinds[i / 2];
		EcWire w = new_wire(i % 2 ? AF_INET6 : AF_INET, 0, false);
		struct nlattr *tb[MAX_ATTR + 1];

		w.local = (EcAddress){ 0 };
		g_autoptr(EcMessage) m = fill(e, &w);
		parse(m, tb);
		int type = e == &ec_encap_gretap ? IFLA_GRE_LOCAL
			   : e == &ec_encap_ipip ? IFLA_IPTUN_LOCAL
			   : i % 2               ? IFLA_VXLAN_LOCAL6
						 : IFLA_VXLAN_LOCAL;
		g_assert_nonnull(tb[type]);
		g_assert_cmpmem(nla_data(tb[type]), (size_t)nla_len(tb[type]), zero,
				ec_address_size(&w.remote));
	}
}

/* Every byte, as the kernel of Debian 12 took it and reported it back. Netlink is in host order. */
static const struct {
	const EcEncap *encap;
	int family;
	const char *hex;
} golden[] = {
	{ &ec_encap_gretap, AF_INET,
			"080001000500000006000200200000000600030020000000080004000011223308000500"
			"00112233080006000a090002080007000a090001050008004000000008001400feca0000"
			"05000900b800000005000a0000000000050013000100000006000e000000000006000f00"
			"0000000006001000000000000600110000000000" },
	{ &ec_encap_gretap, AF_INET6,
			"080001000500000006000200200000000600030020000000080004000011223308000500"
			"0011223314000600fd00000000000000000000000000000214000700fd00000000000000"
			"0000000000000001050008004000000008001400feca000005000b000000000008000c00"
			"0b80000008000d000100030006000e000000000006000f00000000000600100000000000"
			"0600110000000000" },
	{ &ec_encap_gretap_fou, AF_INET,
			"080001000500000006000200200000000600030030000000080004000011223308000500"
			"00112233080006000a090002080007000a090001050008004000000008001400feca0000"
			"05000900b800000005000a0000000000050013000100000006000e000100000006000f00"
			"000000000600100003e800000600110007d00000" },
	{ &ec_encap_gretap_fou, AF_INET6,
			"080001000500000006000200200000000600030030000000080004000011223308000500"
			"0011223314000600fd00000000000000000000000000000214000700fd00000000000000"
			"0000000000000001050008004000000008001400feca000005000b000000000008000c00"
			"0b80000008000d000100030006000e000100000006000f00020000000600100003e80000"
			"0600110007d00000" },
	{ &ec_encap_vxlan, AF_INET,
			"080002000a090001080004000a090002080001003322110006000f0003e8000008000a00"
			"00000000050005004000000005000600b8000000050007000000000005001d0000000000" },
	{ &ec_encap_vxlan, AF_INET6,
			"14001000fd00000000000000000000000000000114001100fd0000000000000000000000"
			"00000002080001003322110006000f0003e8000008000a00000000000500050040000000"
			"05000600b8000000050007000000000005001d0000000000" },
	{ &ec_encap_gre, AF_INET,
			"080001000500000006000200200000000600030020000000080004000011223308000500"
			"00112233080006000a090002080007000a090001050008004000000008001400feca0000"
			"05000900b800000005000a0000000000050013000100000006000e000000000006000f00"
			"0000000006001000000000000600110000000000" },
	{ &ec_encap_gre, AF_INET6,
			"080001000500000006000200200000000600030020000000080004000011223308000500"
			"0011223314000600fd00000000000000000000000000000214000700fd00000000000000"
			"0000000000000001050008004000000008001400feca000005000b000000000008000c00"
			"0b80000008000d000100030006000e000000000006000f00000000000600100000000000"
			"0600110000000000" },
	{ &ec_encap_ipip, AF_INET,
			"0800010005000000080002000a090002080003000a090001050004004000000008001400"
			"feca000006000f0000000000060010000000000006001100000000000600120000000000"
			"05000500b800000005000a00010000000500090004000000" },
	{ &ec_encap_ipip, AF_INET6,
			"080001000500000014000200fd00000000000000000000000000000214000300fd000000"
			"000000000000000000000001050004004000000008001400feca000006000f0000000000"
			"060010000000000006001100000000000600120000000000050006000000000008000700"
			"0b80000008000800010003000500090000000000" },
};

static void test_golden(void)
{
	if (G_BYTE_ORDER != G_LITTLE_ENDIAN) {
		g_test_skip("the vectors are little-endian");
		return;
	}
	for (size_t i = 0; i < EC_ELEMENTS(golden); i++) {
		const EcWire w = new_wire(golden[i].family, golden[i].encap->id_max ? 0x112233 : 0,
				golden[i].family == AF_INET &&
						(golden[i].encap->flags & EC_ENCAP_FRAGMENTS_V4));
		g_autoptr(EcMessage) m = fill(golden[i].encap, &w);
		struct nlmsghdr *h = nlmsg_hdr(m);
		g_autoptr(GString) hex = g_string_new(NULL);
		const uint8_t *data = nlmsg_data(h);

		for (int j = 0; j < nlmsg_datalen(h); j++)
			g_string_append_printf(hex, "%02x", data[j]);
		g_assert_cmpstr(hex->str, ==, golden[i].hex);
	}
}

/* A message too small says so, wherever it ends, and nothing else happens. */
static void test_no_room(void)
{
	for (const EcEncap *const *e = ec_encaps; *e; e++) {
		for (unsigned n = 0; n < 2; n++) {
			const EcWire w = new_wire(n ? AF_INET6 : AF_INET, 0, false);
			g_autoptr(EcMessage) whole = fill(*e, &w);
			uint32_t size = nlmsg_hdr(whole)->nlmsg_len;

			for (uint32_t room = NLMSG_HDRLEN; room < size; room += 4) {
				g_autoptr(EcMessage) m = nlmsg_alloc_size(room);

				g_assert_nonnull(nlmsg_put(m, 0, 0, 0, 0, 0));
				g_assert_cmpint((*e)->fill(&w, m), ==, -ENOBUFS);
			}
		}
	}
}

static void test_overhead(void)
{
	static const struct {
		const EcEncap *encap;
		unsigned plain, key;
	} row[] = { { &ec_encap_gretap, 38, 42 }, { &ec_encap_gretap_fou, 50, 54 },
		{ &ec_encap_vxlan, 50, 50 }, { &ec_encap_gre, 24, 28 }, { &ec_encap_ipip, 20, 20 },
		{ &ec_encap_gretap_fou_user, 50, 54 }, { &ec_encap_vxlan_user, 50, 50 },
		{ &ec_encap_raw_udp, 42, 42 }, { &ec_encap_tun_udp, 28, 28 },
		{ &ec_encap_fake, 50, 50 } };

	for (size_t i = 0; i < EC_ELEMENTS(row); i++) {
		EcWire v4 = new_wire(AF_INET, 0, false), v6 = new_wire(AF_INET6, 0, false);
		unsigned outer6 = row[i].encap == &ec_encap_fake ? 0 : 20;

		g_assert_cmpuint(row[i].encap->overhead(&v4), ==, row[i].plain);
		g_assert_cmpuint(row[i].encap->overhead(&v6), ==, row[i].plain + outer6);
		if (!row[i].encap->id_max)
			continue;
		v4.id = v6.id = 1;
		g_assert_cmpuint(row[i].encap->overhead(&v4), ==, row[i].key);
		g_assert_cmpuint(row[i].encap->overhead(&v6), ==, row[i].key + outer6);
	}
}

/* One of a name in each plane, and on the wire both are the same. */
static void check_planes(const EcEncap *e)
{
	const EcEncap *first = ec_encap_find(e->name);
	const char *other = e->worker ? "kernel" : "user";

	g_assert_cmpstr(ec_encap_plane(e), ==, e->worker ? "user" : "kernel");
	g_assert_true(ec_encap_find_in(e->name, ec_encap_plane(e)) == e);
	g_assert_true(first == e || first == ec_encap_find_in(e->name, other));
	g_assert_cmpuint(e->data_port, ==, first->data_port);
	g_assert_cmpuint(e->id_max, ==, first->id_max);
	g_assert_cmpint(e->protocol, ==, first->protocol);
	for (unsigned n = 0; n < 4; n++) {
		const EcWire w = new_wire(n & 1 ? AF_INET6 : AF_INET, n & 2, false);

		g_assert_cmpuint(e->overhead(&w), ==, first->overhead(&w));
	}
}

static void check_user(const EcEncap *e)
{
	g_assert_cmpint(e->flags & EC_USER_FLAGS, ==, EC_USER_FLAGS);
	g_assert_cmpstr(e->kind4, ==, "tun");
	g_assert_cmpstr(e->kind6, ==, "tun");
	g_assert_cmpint(e->protocol, ==, IPPROTO_UDP);
	/* The kernel looks up FOU's way as GRE's, a socket's as UDP's. */
	g_assert_cmpint(e->lookup_protocol, ==, IPPROTO_UDP);
	g_assert_true(!e->up && !e->settle);
	/* Either an id tells whose a packet is, or nothing does. */
	g_assert_true(!e->id_max == !!(e->flags & EC_ENCAP_NAMELESS));
}

static void test_table(void)
{
	for (const EcEncap *const *e = ec_encaps; *e; e++) {
		g_assert_cmpstr(ec_encap_kind(*e, AF_INET), ==, (*e)->kind4);
		g_assert_cmpstr(ec_encap_kind(*e, AF_INET6), ==, (*e)->kind6);
		g_assert_true(!(*e)->data_port == !((*e)->flags & EC_ENCAP_UDP));
		g_assert_true(!(*e)->up == !(*e)->down);
		g_assert_true(((*e)->flags & EC_ENCAP_UDP) ||
				!((*e)->flags & EC_ENCAP_SHARES_PORT));
		g_assert_true((*e)->worker || !((*e)->flags & EC_ENCAP_NAMELESS));
		check_planes(*e);
		if ((*e)->worker)
			check_user(*e);
	}
	/* What both planes have in common is asked of the kernel's. */
	g_assert_true(ec_encap_find("vxlan") == &ec_encap_vxlan);
	g_assert_true(ec_encap_find("gretap-fou") == &ec_encap_gretap_fou);
	g_assert_true(ec_encap_find_in("vxlan", "user") == &ec_encap_vxlan_user);
	g_assert_true(ec_encap_find("raw-udp") == &ec_encap_raw_udp);
	g_assert_null(ec_encap_find_in("raw-udp", "kernel"));
	g_assert_null(ec_encap_find_in("gretap", "user"));
	g_assert_null(ec_encap_find_in("vxlan", "hardware"));
	g_assert_null(ec_encap_find_in("vxlan", ""));
	g_assert_null(ec_encap_find("l2tp"));
	g_assert_null(ec_encap_find(""));
	g_assert_null(ec_encap_find("GRETAP"));
}

#define AUTO "gretap vxlan vxlan/user gretap-fou gretap-fou/user"
#define AUTO_BRIDGED "vxlan vxlan/user gretap gretap-fou gretap-fou/user"

static void test_candidates(void)
{
	static const struct {
		const char *settings, *names;
	} row[] = {
		{ "", AUTO },
		{ "encapsulation=auto", AUTO },
		{ "data-plane=auto", AUTO },
		{ "encapsulation=auto mode=join-remote", AUTO_BRIDGED },
		{ "mode=join-networks", AUTO_BRIDGED },
		{ "encapsulation=ipip,auto", AUTO },
		{ "encapsulation=vxlan", "vxlan vxlan/user" },
		{ "encapsulation=ipip,gre,gretap-fou,vxlan,gretap",
				"ipip gre gretap-fou gretap-fou/user vxlan vxlan/user gretap" },
		{ "encapsulation=gretap,vxlan mode=join-networks", "gretap vxlan vxlan/user" },
		{ "encapsulation=raw-udp", "raw-udp/user" },
		{ "encapsulation=tun-udp,gre", "tun-udp/user gre" },
		/* In one plane only. */
		{ "data-plane=kernel", "gretap vxlan gretap-fou" },
		{ "data-plane=user", "vxlan/user gretap-fou/user" },
		{ "data-plane=user mode=join-networks", "vxlan/user gretap-fou/user" },
		{ "data-plane=user encapsulation=gretap-fou,gretap,vxlan",
				"gretap-fou/user vxlan/user" },
		{ "data-plane=user encapsulation=gretap,gre,ipip", "" },
		{ "data-plane=kernel encapsulation=raw-udp,tun-udp", "" },
		{ "data-plane=kernel encapsulation=raw-udp,vxlan", "vxlan" },
		{ "data-plane=user encapsulation=tun-udp,raw-udp", "tun-udp/user raw-udp/user" },
	};

	for (size_t i = 0; i < EC_ELEMENTS(row) * 2; i++) {
		g_autoptr(EcSettings) s = unit_settings(row[i / 2].settings);
		const EcEncap *found[EC_ENCAPS_MAX + 1];
		g_autoptr(GString) names = g_string_new(NULL);

		memset(found, 0xff, sizeof(found));
		ec_encap_candidates(s, i % 2 ? AF_INET6 : AF_INET, found);
		for (const EcEncap **e = found; *e; e++)
			g_string_append_printf(names, "%s%s%s", e == found ? "" : " ", (*e)->name,
					(*e)->worker ? "/user" : "");
		g_assert_cmpstr(names->str, ==, row[i / 2].names);
	}
}

/* Lists that no parser would let through: they must not overflow. */
static void test_many_candidates(void)
{
	g_autoptr(EcSettings) s = ec_settings_new();
	const EcEncap *found[EC_ENCAPS_MAX + 1];

	s->encapsulation = g_new0(char *, 101);
	for (unsigned i = 0; i < 100; i++)
		s->encapsulation[i] = g_strdup(i % 2 ? "fake" : "vxlan");
	ec_encap_candidates(s, AF_INET, found);
	g_assert_true(found[0] == &ec_encap_vxlan);
	g_assert_true(found[1] == &ec_encap_vxlan_user);
	g_assert_true(found[2] == &ec_encap_fake);
	g_assert_null(found[3]);
}

static void test_wire(void)
{
	static const struct {
		const EcEncap *encap;
		const char *settings;
		uint16_t data_port, remote_data_port;
	} row[] = {
		{ &ec_encap_vxlan, "", 4789, 4789 },
		{ &ec_encap_vxlan, "data-port=8472", 8472, 8472 },
		{ &ec_encap_vxlan, "remote-data-port=8472", 8472, 8472 },
		{ &ec_encap_vxlan, "data-port=8472 remote-data-port=8472", 8472, 8472 },
		{ &ec_encap_gretap_fou, "", 65201, 65201 },
		{ &ec_encap_gretap_fou, "data-port=5555", 5555, 65201 },
		{ &ec_encap_gretap_fou, "remote-data-port=5555", 65201, 5555 },
		{ &ec_encap_gretap_fou, "data-port=5555 remote-data-port=6666", 5555, 6666 },
		{ &ec_encap_gretap_fou_user, "data-port=5555", 5555, 65201 },
		{ &ec_encap_vxlan_user, "", 4789, 4789 },
		{ &ec_encap_vxlan_user, "data-port=8472", 8472, 8472 },
		{ &ec_encap_raw_udp, "", 1234, 1234 },
		{ &ec_encap_raw_udp, "data-port=2998", 2998, 1234 },
		{ &ec_encap_raw_udp, "data-port=2998 remote-data-port=2998", 2998, 2998 },
		{ &ec_encap_tun_udp, "", 8000, 8000 },
		{ &ec_encap_tun_udp, "remote-data-port=9000", 8000, 9000 },
		{ &ec_encap_gretap, "", 0, 0 },
		{ &ec_encap_ipip, "", 0, 0 },
	};
	static const char *const common = " id=7 ttl=9 dscp=46 fwmark=0xcafe";

	for (size_t i = 0; i < EC_ELEMENTS(row); i++) {
		g_autofree char *text = g_strconcat(row[i].settings, common, NULL);
		g_autoptr(EcSettings) s = unit_settings(text);
		EcWire a, b;

		memset(&a, 0x00, sizeof(a));
		memset(&b, 0xff, sizeof(b));
		ec_encap_wire(row[i].encap, s, &a);
		ec_encap_wire(row[i].encap, s, &b);
		/* Callers compare wires as memory. */
		g_assert_cmpmem(&a, sizeof(a), &b, sizeof(b));
		g_assert_cmpuint(a.data_port, ==, row[i].data_port);
		g_assert_cmpuint(a.remote_data_port, ==, row[i].remote_data_port);
		g_assert_cmpuint(a.id, ==, row[i].encap->id_max ? 7 : 0);
		g_assert_cmpuint(a.ttl, ==, 9);
		g_assert_cmpuint(a.tos, ==, 0xb8);
		g_assert_cmpuint(a.fwmark, ==, row[i].encap == &ec_encap_vxlan ? 0 : 0xcafe);
		g_assert_cmpint(a.local.family, ==, AF_UNSPEC);
		g_assert_cmpint(a.remote.family, ==, AF_UNSPEC);
		g_assert_cmpint(a.ifindex, ==, 0);
		g_assert_false(a.fragment);
	}
}

#define INVALID "InvalidSetting"
#define UNSUPPORTED "NotSupported"
#define NO_ETHERNET "carries IP, not Ethernet: it cannot join networks; use gretap or vxlan"

static void test_verify(void)
{
	static const struct {
		const char *encap, *settings, *error, *part;
		int family;        /* 0: both */
		const char *plane; /* NULL: the first of that name */
	} row[] = {
		{ "gretap", "id=4294967295", NULL, NULL, 0 },
		{ "gre", "id=4294967295 fwmark=1 dscp=46 ttl=1", NULL, NULL, 0 },
		{ "gretap-fou", "data-port=1 remote-data-port=2", NULL, NULL, 0 },
		{ "vxlan", "id=16777215 data-port=4790 remote-data-port=4790", NULL, NULL, 0 },
		{ "vxlan", "mode=join-networks bridge=br0 data-plane=kernel", NULL, NULL, 0 },
		{ "ipip", "fwmark=1", NULL, NULL, 0 },
		{ "gretap", "full-frames=yes", NULL, NULL, AF_INET },
		{ "gretap", "full-frames=no", NULL, NULL, AF_INET6 },
		{ "vxlan", "id=16777216", INVALID,
				"id '16777216': allowed with vxlan is 0 to 16777215", 0 },
		{ "ipip", "id=1", INVALID, "id '1': ipip has none; allowed is 0", 0 },
		{ "gre", "mode=join-networks", INVALID, "encapsulation: gre " NO_ETHERNET, 0 },
		{ "ipip", "mode=join-remote", INVALID, "encapsulation: ipip " NO_ETHERNET, 0 },
		{ "gre", "bridge=br0", INVALID, NO_ETHERNET, 0 },
		{ "gre", "attach=eth0", INVALID, NO_ETHERNET, 0 },
		{ "gre", "mac=02:00:00:00:00:01", INVALID, "mac: gre", 0 },
		{ "vxlan", "data-port=1 remote-data-port=2", INVALID,
				"data-port and remote-data-port: vxlan uses one port", 0 },
		{ "gretap", "data-port=1", INVALID, "data-port: gretap uses no UDP", 0 },
		{ "ipip", "remote-data-port=1", INVALID, "remote-data-port: ipip uses no UDP", 0 },
		{ "vxlan", "fwmark=1", UNSUPPORTED, "fwmark '1': vxlan", 0 },
		{ "gretap", "full-frames=yes", UNSUPPORTED, "full-frames 'yes': ", AF_INET6 },
		{ "vxlan", "full-frames=yes", UNSUPPORTED, "an IPv4 address", AF_INET6 },
		{ "vxlan", "full-frames=yes", UNSUPPORTED, "data-plane=user", AF_INET6 },
		{ "ipip", "full-frames=yes", UNSUPPORTED, "ipip cannot send outer fragments",
				AF_INET },
		/* A socket's packets are fragmented over IPv6 as well, and have a mark. */
		{ "vxlan", "full-frames=yes fwmark=1", NULL, NULL, 0, "user" },
		{ "gretap-fou", "full-frames=yes data-port=1 remote-data-port=2", NULL, NULL, 0,
				"user" },
		{ "raw-udp", "full-frames=yes mode=join-networks bridge=br0 fwmark=1", NULL, NULL,
				0, "user" },
		{ "raw-udp", "mac=02:00:00:00:00:01 data-port=1 remote-data-port=2", NULL, NULL, 0,
				"user" },
		{ "tun-udp", "full-frames=yes split=yes fwmark=1", NULL, NULL, 0, "user" },
		{ "vxlan", "id=16777216", INVALID, "id '16777216': allowed with vxlan", 0, "user" },
		{ "vxlan", "data-port=1 remote-data-port=2", INVALID, "vxlan uses one port", 0,
				"user" },
		{ "raw-udp", "id=1", INVALID, "id '1': raw-udp has none; allowed is 0", 0, "user" },
		{ "tun-udp", "id=1", INVALID, "id '1': tun-udp has none; allowed is 0", 0, "user" },
		{ "tun-udp", "mode=join-remote", INVALID, "encapsulation: tun-udp " NO_ETHERNET, 0,
				"user" },
		{ "tun-udp", "bridge=br0", INVALID, NO_ETHERNET, 0, "user" },
		{ "tun-udp", "mac=02:00:00:00:00:01", INVALID, "vxlan and raw-udp", 0, "user" },
	};

	for (size_t i = 0; i < EC_ELEMENTS(row) * 2; i++) {
		int family = i % 2 ? AF_INET6 : AF_INET;
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
		g_autoptr(EcSettings) s = unit_settings(row[i / 2].settings);

		if (row[i / 2].family && row[i / 2].family != family)
			continue;
		const EcEncap *e = row[i / 2].plane ? ec_encap_find_in(row[i / 2].encap,
								      row[i / 2].plane)
						    : ec_encap_find(row[i / 2].encap);
		int r = ec_encap_verify(e, s, family, &error);
		if (!row[i / 2].error) {
			if (r < 0)
				g_error("%s: %s", row[i / 2].settings, error.message);
			continue;
		}
		unit_assert_error(r, &error, row[i / 2].error, row[i / 2].part);
		unit_assert_error(r, &error, row[i / 2].error,
				strstr(row[i / 2].part, NO_ETHERNET) ? "use " : "allowed");
	}
}

int main(int argc, char *argv[])
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/encap/gre", test_gre);
	g_test_add_func("/encap/vxlan", test_vxlan);
	g_test_add_func("/encap/ipip", test_ipip);
	g_test_add_func("/encap/user", test_user);
	g_test_add_func("/encap/ip6-capabilities", test_ip6_capabilities);
	g_test_add_func("/encap/no-local", test_no_local);
	g_test_add_func("/encap/golden", test_golden);
	g_test_add_func("/encap/no-room", test_no_room);
	g_test_add_func("/encap/overhead", test_overhead);
	g_test_add_func("/encap/table", test_table);
	g_test_add_func("/encap/candidates", test_candidates);
	g_test_add_func("/encap/many-candidates", test_many_candidates);
	g_test_add_func("/encap/wire", test_wire);
	g_test_add_func("/encap/verify", test_verify);
	return g_test_run();
}
