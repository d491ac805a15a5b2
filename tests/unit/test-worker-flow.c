/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <glib.h>
#include <stdint.h>
#include <string.h>

#include "worker/flow.h"

/* Two packets' headers, and whether the one may overtake the other. */

typedef struct Packet {
	uint8_t data[128];
	size_t length;
} Packet;

static void put(Packet *p, const char *hex)
{
	for (; *hex; hex++) {
		if (g_ascii_isxdigit(hex[0])) {
			p->data[p->length++] = (uint8_t)(g_ascii_xdigit_value(hex[0]) << 4 |
							 g_ascii_xdigit_value(hex[1]));
			hex++;
		}
	}
}

static EcFlow flow(const char *hex, bool ethernet)
{
	Packet p = { 0 };

	put(&p, hex);
	return ec_flow(p.data, p.length, ethernet);
}

#define MACS "02000000000a 020000000009 "
#define V4 "45000040 00014000 4006 0000 0a000001 0a000002 "
#define V4_FRAGMENT "45000040 00012000 4006 0000 0a000001 0a000002 "
#define V6 "60000000 00140640 fd000000000000000000000000000001 fd000000000000000000000000000002 "
#define PORTS "9c40 1389 00000000 "

static void test_ports(void)
{
	const EcFlow a = flow(MACS "0800" V4 PORTS, true);
	const EcFlow b = flow(MACS "0800" V4 "9c41 1389 00000000", true);
	const EcFlow later = flow(MACS "0800" V4 PORTS "11223344", true);

	g_assert_true(a.exact && b.exact);
	g_assert_cmpuint(a.pair, ==, b.pair);
	g_assert_cmpuint(a.flow, !=, b.flow);
	g_assert_cmpuint(a.flow, ==, later.flow);
}

static void test_ipv6(void)
{
	const EcFlow a = flow(MACS "86dd" V6 PORTS, true);
	const EcFlow b = flow(MACS "86dd" V6 "9c41 1389 00000000", true);

	g_assert_true(a.exact);
	g_assert_cmpuint(a.pair, ==, b.pair);
	g_assert_cmpuint(a.flow, !=, b.flow);
}

/* A fragment may be of any flow of its addresses. */
static void test_fragment(void)
{
	const EcFlow a = flow(MACS "0800" V4 PORTS, true);
	const EcFlow f = flow(MACS "0800" V4_FRAGMENT PORTS, true);

	g_assert_false(f.exact);
	g_assert_cmpuint(a.pair, ==, f.pair);
}

static void test_tags(void)
{
	const EcFlow none = flow(MACS "0800" V4 PORTS, true);
	const EcFlow one = flow(MACS "8100 0005 0800" V4 PORTS, true);
	const EcFlow two = flow(MACS "88a8 0007 8100 0005 0800" V4 PORTS, true);
	const EcFlow again = flow(MACS "88a8 0007 8100 0005 0800" V4 PORTS "00", true);

	g_assert_true(one.exact && two.exact);
	g_assert_cmpuint(none.pair, !=, one.pair);
	g_assert_cmpuint(one.pair, !=, two.pair);
	g_assert_cmpuint(two.flow, ==, again.flow);
}

/* What is no IP is one flow, whatever its payload begins with. */
static void test_other(void)
{
	const EcFlow a = flow(MACS "88b5" V4 PORTS, true);
	const EcFlow b = flow(MACS "88b5 60000000 00", true);
	const EcFlow c = flow(MACS "88b6 60000000 00", true);

	g_assert_cmpuint(a.flow, ==, b.flow);
	g_assert_cmpuint(a.pair, ==, b.pair);
	g_assert_cmpuint(a.flow, !=, c.flow);
	g_assert_false(a.exact);
}

static void test_bare(void)
{
	const EcFlow a = flow(V4 PORTS, false), b = flow(V4 "9c41 1389 00000000", false);

	g_assert_true(a.exact);
	g_assert_cmpuint(a.pair, ==, b.pair);
	g_assert_cmpuint(a.flow, !=, b.flow);
	g_assert_true(flow(V6 PORTS, false).exact);
}

/* Nothing is read beyond the end: the memory is as long as the packet. */
static void test_cut_off(void)
{
	static const char *const whole[] = { MACS "0800" V4 PORTS, MACS "86dd" V6 PORTS,
		MACS "88a8 0007 8100 0005 0800" V4 PORTS, V4 PORTS, V6 PORTS };

	for (size_t i = 0; i < G_N_ELEMENTS(whole); i++) {
		Packet p = { 0 };

		put(&p, whole[i]);
		for (size_t length = 0; length <= p.length; length++) {
			g_autofree uint8_t *copy = g_memdup2(p.data, length);

			(void)ec_flow(copy, length, i < 3);
			g_assert_cmpuint(ec_flow_network(copy, length, i < 3), <=, length);
		}
	}
}

int main(int argc, char *argv[])
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/worker-flow/ports", test_ports);
	g_test_add_func("/worker-flow/ipv6", test_ipv6);
	g_test_add_func("/worker-flow/fragment", test_fragment);
	g_test_add_func("/worker-flow/tags", test_tags);
	g_test_add_func("/worker-flow/other", test_other);
	g_test_add_func("/worker-flow/bare", test_bare);
	g_test_add_func("/worker-flow/cut-off", test_cut_off);
	return g_test_run();
}
