/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "kernel.h"

#include <errno.h>
#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <string.h>

#include "unit.h"

/* The parts of the kernel layer that work on messages alone. */

static const uint8_t mac[6] = { 0x02, 0, 0x5e, 0x10, 0, 1 };

static EcMessage *new_message(void)
{
	const struct ifinfomsg ifi = {
		.ifi_index = 7, .ifi_flags = IFF_UP | IFF_RUNNING, .ifi_type = ARPHRD_ETHER
	};
	EcMessage *m = nlmsg_alloc_simple(RTM_NEWLINK, 0);

	g_assert_cmpint(nlmsg_append(m, (void *)&ifi, sizeof(ifi), NLMSG_ALIGNTO), ==, 0);
	return m;
}

static void put_kind(EcMessage *m)
{
	struct nlattr *info = nla_nest_start(m, IFLA_LINKINFO);

	g_assert_cmpint(nla_put_string(m, IFLA_INFO_KIND, "vxlan"), ==, 0);
	struct nlattr *data = nla_nest_start(m, IFLA_INFO_DATA);
	g_assert_cmpint(nla_put_u32(m, IFLA_VXLAN_ID, 5), ==, 0);
	g_assert_cmpint(nla_put_u8(m, IFLA_VXLAN_TTL, 64), ==, 0);
	nla_nest_end(m, data);
	nla_nest_end(m, info);
}

static EcMessage *new_whole_message(void)
{
	const struct rtnl_link_stats64 stats = { .rx_packets = 1,
		.tx_packets = 2,
		.rx_bytes = 3,
		.tx_bytes = 4,
		.rx_errors = 5,
		.rx_dropped = 6,
		.tx_errors = 7,
		.tx_dropped = 8 };
	EcMessage *m = new_message();

	g_assert_cmpint(nla_put_string(m, IFLA_IFNAME, "ec-t"), ==, 0);
	g_assert_cmpint(nla_put_string(m, IFLA_IFALIAS, "ethercord:t"), ==, 0);
	g_assert_cmpint(nla_put_u32(m, IFLA_MTU, 1382), ==, 0);
	g_assert_cmpint(nla_put_u32(m, IFLA_GROUP, EC_LINK_GROUP), ==, 0);
	g_assert_cmpint(nla_put_u32(m, IFLA_MASTER, 9), ==, 0);
	g_assert_cmpint(nla_put(m, IFLA_ADDRESS, sizeof(mac), mac), ==, 0);
	g_assert_cmpint(nla_put(m, IFLA_STATS64, sizeof(stats), &stats), ==, 0);
	put_kind(m);
	return m;
}

/* operstate and link mode: RFC 2863, linux/if.h */
static void test_dormant(void)
{
	static const struct {
		int state, mode;
		bool dormant;
	} row[] = {
		{ -1, -1, false },
		{ IF_OPER_UNKNOWN, IF_LINK_MODE_DEFAULT, false },
		{ IF_OPER_UP, IF_LINK_MODE_DEFAULT, false },
		{ IF_OPER_DOWN, IF_LINK_MODE_DEFAULT, false },
		{ IF_OPER_DORMANT, IF_LINK_MODE_DORMANT, true },
		{ IF_OPER_DORMANT, IF_LINK_MODE_DEFAULT, true },
		{ IF_OPER_DOWN, IF_LINK_MODE_DORMANT, true },
		{ IF_OPER_UP, IF_LINK_MODE_DORMANT, false },
	};

	for (size_t i = 0; i < EC_ELEMENTS(row); i++) {
		g_autoptr(EcMessage) m = new_whole_message();
		g_auto(EcLink) link = { 0 };

		if (row[i].state >= 0)
			g_assert_cmpint(nla_put_u8(m, IFLA_OPERSTATE, (uint8_t)row[i].state), ==,
					0);
		if (row[i].mode >= 0)
			g_assert_cmpint(nla_put_u8(m, IFLA_LINKMODE, (uint8_t)row[i].mode), ==, 0);
		g_assert_cmpint(ec_link_parse(nlmsg_hdr(m), &link), ==, 0);
		g_assert_cmpint(link.dormant, ==, row[i].dormant);
	}
}

static void test_parse(void)
{
	g_autoptr(EcMessage) m = new_whole_message();
	g_auto(EcLink) link = { 0 };

	g_assert_cmpint(ec_link_parse(nlmsg_hdr(m), &link), ==, 0);
	g_assert_cmpint(link.ifindex, ==, 7);
	g_assert_cmpstr(link.name, ==, "ec-t");
	g_assert_cmpstr(link.kind, ==, "vxlan");
	g_assert_cmpstr(link.alias, ==, "ethercord:t");
	g_assert_cmpuint(link.flags, ==, IFF_UP | IFF_RUNNING);
	g_assert_cmpuint(link.type, ==, ARPHRD_ETHER);
	g_assert_cmpuint(link.mtu, ==, 1382);
	g_assert_cmpuint(link.group, ==, EC_LINK_GROUP);
	g_assert_cmpint(link.master, ==, 9);
	g_assert_cmpmem(link.mac, 6, mac, 6);
	g_assert_cmpuint(link.rx_packets, ==, 1);
	g_assert_cmpuint(link.tx_packets, ==, 2);
	g_assert_cmpuint(link.rx_bytes, ==, 3);
	g_assert_cmpuint(link.tx_bytes, ==, 4);
	g_assert_cmpuint(link.rx_dropped, ==, 11);
	/* The message goes, the data stays. */
	memset(nlmsg_hdr(m), 0xff, nlmsg_hdr(m)->nlmsg_len);
	g_assert_nonnull(link.data);
	const struct nlattr *id = nla_find(nla_data(link.data), nla_len(link.data), IFLA_VXLAN_ID);
	g_assert_nonnull(id);
	g_assert_cmpuint(nla_get_u32(id), ==, 5);
}

static void test_parse_bare(void)
{
	g_autoptr(EcMessage) nameless = new_message(), bare = new_message();
	g_auto(EcLink) link = { .ifindex = 99 };

	g_assert_cmpint(ec_link_parse(nlmsg_hdr(nameless), &link), ==, -EBADMSG);
	g_assert_cmpint(link.ifindex, ==, 99);
	g_assert_cmpint(nla_put_string(bare, IFLA_IFNAME, "eth0"), ==, 0);
	g_assert_cmpint(ec_link_parse(nlmsg_hdr(bare), &link), ==, 0);
	g_assert_cmpstr(link.name, ==, "eth0");
	g_assert_cmpstr(link.kind, ==, "");
	g_assert_cmpstr(link.alias, ==, "");
	g_assert_null(link.data);
	g_assert_cmpint(link.master, ==, 0);
}

/* A tunnel's name has at most 63 bytes, so our alias always fits; others' may not. */
static void test_parse_long_alias(void)
{
	g_autofree char *alias = g_strnfill(255, 'a');
	g_autoptr(EcMessage) m = new_message();
	g_auto(EcLink) link = { 0 };

	g_assert_cmpint(nla_put_string(m, IFLA_IFNAME, "eth0"), ==, 0);
	g_assert_cmpint(nla_put_string(m, IFLA_IFALIAS, alias), ==, 0);
	g_assert_cmpint(ec_link_parse(nlmsg_hdr(m), &link), ==, 0);
	g_assert_cmpuint(strlen(link.alias), ==, sizeof(link.alias) - 1);
	g_assert_cmpuint(sizeof(link.alias), >, strlen(EC_ALIAS_PREFIX) + 63);
}

/* Cut anywhere, a message is refused or its whole attributes are used; nothing behind it is read,
 * which the address sanitizer watches. */
static void test_parse_cut(void)
{
	g_autoptr(EcMessage) m = new_whole_message();
	struct nlmsghdr *h = nlmsg_hdr(m);

	for (uint32_t n = NLMSG_HDRLEN; n < h->nlmsg_len; n += NLMSG_ALIGNTO) {
		g_autofree struct nlmsghdr *cut = g_memdup2(h, n);
		g_auto(EcLink) link = { 0 };

		cut->nlmsg_len = n;
		int r = ec_link_parse(cut, &link);
		g_assert_true(r == 0 || r == -EBADMSG);
		if (n < NLMSG_HDRLEN + sizeof(struct ifinfomsg))
			g_assert_cmpint(r, ==, -EBADMSG);
		g_assert_null(link.data);
	}
}

static const struct nlattr *link_data(EcMessage *m)
{
	return nlmsg_find_attr(nlmsg_hdr(m), 0, IFLA_INFO_DATA);
}

static bool data_matches(const struct nlattr *have, struct nl_msg *want)
{
	struct nlmsghdr *h = nlmsg_hdr(want);

	return ec_link_data_matches(have, nlmsg_data(h), nlmsg_datalen(h));
}

static void test_matches(void)
{
	const struct {
		int type;
		unsigned size;
		uint32_t value;
		bool matches;
	} row[] = {
		{ 1, 4, 5, true },  /* as reported */
		{ 1, 4, 6, false }, /* another value */
		{ 1, 2, 5, false }, /* another size */
		{ 2, 1, 64, true }, /* as reported */
		{ 3, 4, 0, true },  /* not reported, zero */
		{ 3, 4, 1, false }, /* not reported, not zero */
		{ 3, 16, 0, true }, /* not reported, an address of zeros */
		{ 4, 1, 0, false }, /* reported as one */
	};
	g_autoptr(EcMessage) have = nlmsg_alloc_simple(0, 0), empty = nlmsg_alloc_simple(0, 0);
	struct nlattr *nest = nla_nest_start(have, IFLA_INFO_DATA);

	g_assert_cmpint(nla_put_u32(have, 1, 5), ==, 0);
	g_assert_cmpint(nla_put_u8(have, 2, 64), ==, 0);
	g_assert_cmpint(nla_put_u8(have, 4, 1), ==, 0);
	nla_nest_end(have, nest);
	for (size_t i = 0; i < EC_ELEMENTS(row); i++) {
		g_autoptr(EcMessage) want = nlmsg_alloc_simple(0, 0);
		uint8_t value[16] = { 0 };

		if (row[i].size == 1)
			value[0] = (uint8_t)row[i].value;
		else
			memcpy(value, &row[i].value, sizeof(row[i].value));
		g_assert_cmpint(nla_put(want, row[i].type, (int)row[i].size, value), ==, 0);
		g_assert_cmpint(data_matches(link_data(have), want), ==, row[i].matches);
		/* Without any report only zeros match. */
		g_assert_cmpint(data_matches(NULL, want), ==, row[i].value == 0);
	}
	/* What is reported beyond what is wanted does not matter. */
	g_assert_true(data_matches(link_data(have), empty));
	g_assert_true(data_matches(NULL, empty));
}

int main(int argc, char *argv[])
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/kernel/link-parse", test_parse);
	g_test_add_func("/link/dormant", test_dormant);
	g_test_add_func("/kernel/link-parse-bare", test_parse_bare);
	g_test_add_func("/kernel/link-parse-long-alias", test_parse_long_alias);
	g_test_add_func("/kernel/link-parse-cut", test_parse_cut);
	g_test_add_func("/kernel/link-data-matches", test_matches);
	return g_test_run();
}
