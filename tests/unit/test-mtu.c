/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "mtu.h"

#include <string.h>

#include "unit.h"

/* MTU of a path, and of what crosses it whole: measured on the kernel's own choices for an
 * underlay of 1420 over IPv4. gretap-fou is 4 less than plain FOU: the sequence number. */
static const struct {
	uint32_t path;
	uint32_t gretap, gretap_key, fou, vxlan, gre, ipip;
} whole[] = {
	{ 1420, 1382, 1378, 1370, 1370, 1396, 1400 }, /* WireGuard */
	{ 1448, 1410, 1406, 1398, 1398, 1424, 1428 }, /* OpenVPN, outer not fragmented */
	{ 1500, 1462, 1458, 1450, 1450, 1476, 1480 }, /* OpenVPN's device; plain Ethernet */
	{ 1446, 1408, 1404, 1396, 1396, 1422, 1426 }, /* ESP tunnel, AES-GCM */
	{ 1438, 1400, 1396, 1388, 1388, 1414, 1418 }, /* the same behind NAT */
	{ 1466, 1428, 1424, 1416, 1416, 1442, 1446 }, /* ESP transport */
	{ 1400, 1362, 1358, 1350, 1350, 1376, 1380 }, /* libipsec */
};

static EcMtu choose(const char *settings, const EcEncap *e, const char *remote, uint32_t id,
		uint32_t path, uint32_t bridge)
{
	g_autoptr(EcSettings) s = unit_settings(settings);
	EcWire w = { .remote = unit_address(remote), .id = id };
	EcMtu m;

	memset(&m, 0xff, sizeof(m));
	ec_mtu_choose(s, e, &w, path, bridge, &m);
	return m;
}

#define assert_mtu(m, u, frame, frag)                                                              \
	do {                                                                                       \
		const EcMtu seen = m;                                                              \
		g_assert_cmpuint(seen.mtu, ==, u);                                                 \
		g_assert_cmpuint(seen.largest_frame, ==, frame);                                   \
		g_assert_cmpint(seen.fragment, ==, frag);                                          \
	} while (false)

/* Point-to-point: what fits goes, nothing is fragmented. */
static void test_point_to_point(void)
{
	for (size_t i = 0; i < EC_ELEMENTS(whole); i++) {
		const struct {
			const EcEncap *encap;
			uint32_t id, mtu;
		} row[] = {
			{ &ec_encap_gretap, 0, whole[i].gretap },
			{ &ec_encap_gretap, 7, whole[i].gretap_key },
			{ &ec_encap_gretap_fou, 0, whole[i].fou },
			{ &ec_encap_gretap_fou, 7, whole[i].fou - 4 },
			{ &ec_encap_vxlan, 0, whole[i].vxlan },
			{ &ec_encap_vxlan, 7, whole[i].vxlan },
			{ &ec_encap_gre, 0, whole[i].gre },
			{ &ec_encap_gre, 7, whole[i].gre - 4 },
			{ &ec_encap_ipip, 0, whole[i].ipip },
			{ &ec_encap_gretap_fou_user, 0, whole[i].fou },
			{ &ec_encap_gretap_fou_user, 7, whole[i].fou - 4 },
			{ &ec_encap_vxlan_user, 7, whole[i].vxlan },
			{ &ec_encap_raw_udp, 0, whole[i].path - 42 },
			{ &ec_encap_tun_udp, 0, whole[i].path - 28 },
		};

		for (size_t j = 0; j < EC_ELEMENTS(row); j++) {
			uint32_t header = row[j].encap->flags & EC_ENCAP_ETHERNET ? 14 : 0;

			assert_mtu(choose("", row[j].encap, "192.0.2.1", row[j].id, whole[i].path,
						   0),
					row[j].mtu, row[j].mtu + header, false);
			assert_mtu(choose("", row[j].encap, "2001:db8::1", row[j].id, whole[i].path,
						   0),
					row[j].mtu - 20, row[j].mtu - 20 + header, false);
		}
	}
}

/* Bridged over IPv4: the bridge's size, in outer fragments, on every path. */
static void test_bridged(void)
{
	static const EcEncap *const kinds[] = { &ec_encap_gretap, &ec_encap_gretap_fou,
		&ec_encap_vxlan, &ec_encap_gretap_fou_user, &ec_encap_vxlan_user,
		&ec_encap_raw_udp };
	static const char *const modes[] = { "mode=join-remote", "mode=join-networks" };

	for (size_t i = 0; i < EC_ELEMENTS(whole); i++) {
		for (size_t k = 0; k < EC_ELEMENTS(kinds) * EC_ELEMENTS(modes); k++) {
			const EcEncap *e = kinds[k / EC_ELEMENTS(modes)];
			const char *mode = modes[k % EC_ELEMENTS(modes)];

			assert_mtu(choose(mode, e, "192.0.2.1", 7, whole[i].path, 0), 1500, 1514,
					true);
			assert_mtu(choose(mode, e, "192.0.2.1", 7, whole[i].path, 1500), 1500, 1514,
					true);
			assert_mtu(choose(mode, e, "192.0.2.1", 7, whole[i].path, 9000), 9000, 9014,
					true);
			/* A bridge takes the MTU of its smallest port: that must not stick. */
			assert_mtu(choose(mode, e, "192.0.2.1", 7, whole[i].path, 1300), 1500, 1514,
					true);
			assert_mtu(choose(mode, e, "192.0.2.1", 7, 9000, 1500), 1500, 1514, true);
		}
	}
}

/* Over IPv6 nothing is fragmented: VXLAN answers too-big, the others must stay below. */
static void test_bridged_ipv6(void)
{
	const char *mode = "mode=join-networks";

	for (size_t i = 0; i < EC_ELEMENTS(whole); i++) {
		uint32_t path = whole[i].path;

		assert_mtu(choose(mode, &ec_encap_vxlan, "2001:db8::1", 7, path, 1500), 1500,
				whole[i].vxlan - 20 + 14, false);
		assert_mtu(choose(mode, &ec_encap_gretap, "2001:db8::1", 7, path, 1500),
				whole[i].gretap_key - 20, whole[i].gretap_key - 20 + 14, false);
		assert_mtu(choose(mode, &ec_encap_gretap_fou, "2001:db8::1", 0, path, 0),
				whole[i].fou - 20, whole[i].fou - 20 + 14, false);
	}
	assert_mtu(choose(mode, &ec_encap_gretap, "2001:db8::1", 0, 9000, 1500), 1500, 1514, false);
	assert_mtu(choose(mode, &ec_encap_vxlan, "2001:db8::1", 0, 9000, 1500), 1500, 1514, false);
}

/* A worker's socket fragments over IPv6 as over IPv4. */
static void test_user_ipv6(void)
{
	static const struct {
		const EcEncap *encap;
		uint32_t overhead; /* over IPv6 */
	} row[] = { { &ec_encap_gretap_fou_user, 70 }, { &ec_encap_vxlan_user, 70 },
		{ &ec_encap_raw_udp, 62 }, { &ec_encap_tun_udp, 48 } };
	const char *v6 = "2001:db8::1";

	for (size_t i = 0; i < EC_ELEMENTS(row); i++) {
		const EcEncap *e = row[i].encap;
		uint32_t header = e->flags & EC_ENCAP_ETHERNET ? 14 : 0,
			 fits = 1420 - row[i].overhead;

		assert_mtu(choose("", e, v6, 0, 1420, 0), fits, fits + header, false);
		assert_mtu(choose("full-frames=yes", e, v6, 0, 1420, 0), 1500, 1500 + header, true);
		assert_mtu(choose("full-frames=no", e, v6, 0, 1420, 0), fits, fits + header, false);
		assert_mtu(choose("mtu=1500", e, v6, 0, 1420, 0), 1500, 1500 + header, true);
		assert_mtu(choose("mtu=1500 full-frames=no", e, v6, 0, 1420, 0), 1500,
				fits + header, false);
		if (!header)
			continue;
		assert_mtu(choose("mode=join-networks", e, v6, 0, 1420, 1500), 1500, 1514, true);
		assert_mtu(choose("mode=join-networks", e, v6, 0, 1420, 9000), 9000, 9014, true);
		assert_mtu(choose("mode=join-remote full-frames=no", e, v6, 0, 1420, 1500), fits,
				fits + header, false);
	}
}

static void test_full_frames(void)
{
	static const EcEncap *const kinds[] = { &ec_encap_gretap, &ec_encap_gretap_fou,
		&ec_encap_vxlan };
	static const uint32_t expected[] = { 1382, 1370, 1370 };

	for (size_t i = 0; i < EC_ELEMENTS(kinds); i++) {
		assert_mtu(choose("full-frames=yes", kinds[i], "192.0.2.1", 0, 1420, 0), 1500, 1514,
				true);
		assert_mtu(choose("full-frames=no", kinds[i], "192.0.2.1", 0, 1420, 0), expected[i],
				expected[i] + 14, false);
		assert_mtu(choose("full-frames=no mode=join-remote", kinds[i], "192.0.2.1", 0, 1420,
					   1500),
				expected[i], expected[i] + 14, false);
		/* A path that carries more needs no less. */
		g_assert_cmpuint(choose("full-frames=yes", kinds[i], "192.0.2.1", 0, 9000, 0).mtu,
				>, 8900);
		g_assert_cmpuint(choose("full-frames=no mode=join-remote", kinds[i], "192.0.2.1", 0,
						 9000, 1500)
						 .mtu,
				==, 1500);
	}
	assert_mtu(choose("full-frames=yes", &ec_encap_gre, "192.0.2.1", 0, 1420, 0), 1500, 1500,
			true);
	/* Refused by ec_encap_verify(); whoever asks nevertheless gets no promise. */
	assert_mtu(choose("full-frames=yes", &ec_encap_ipip, "192.0.2.1", 0, 1420, 0), 1400, 1400,
			false);
	assert_mtu(choose("full-frames=yes", &ec_encap_gretap, "2001:db8::1", 0, 1420, 0), 1362,
			1376, false);
}

static void test_explicit(void)
{
	const char *v4 = "192.0.2.1", *v6 = "2001:db8::1";

	assert_mtu(choose("mtu=1300", &ec_encap_gretap, v4, 0, 1420, 0), 1300, 1314, false);
	assert_mtu(choose("mtu=1382", &ec_encap_gretap, v4, 0, 1420, 0), 1382, 1396, false);
	assert_mtu(choose("mtu=1383", &ec_encap_gretap, v4, 0, 1420, 0), 1383, 1397, true);
	assert_mtu(choose("mtu=9000", &ec_encap_vxlan, v4, 0, 1420, 0), 9000, 9014, true);
	assert_mtu(choose("mtu=1500", &ec_encap_gretap, v6, 0, 1420, 0), 1500, 1376, false);
	assert_mtu(choose("mtu=1500", &ec_encap_ipip, v4, 0, 1420, 0), 1500, 1400, false);
	assert_mtu(choose("mtu=1300 mode=join-remote", &ec_encap_gretap, v4, 0, 1420, 1500), 1300,
			1314, true);
	/* Both said: frames above the path are lost, and the state tells what crosses. */
	assert_mtu(choose("mtu=1500 full-frames=no", &ec_encap_gretap, v4, 0, 1420, 0), 1500, 1396,
			false);
	assert_mtu(choose("mtu=68", &ec_encap_gretap, v4, 0, 1420, 0), 68, 82, false);
	assert_mtu(choose("mtu=1", &ec_encap_gretap, v4, 0, 1420, 0), 68, 82, false);
	assert_mtu(choose("mtu=65535", &ec_encap_gretap, v4, 0, 1420, 0), 65535, 65549, true);
}

/* Nothing known, and paths that cannot be. */
static void test_odd_paths(void)
{
	const char *v4 = "192.0.2.1", *v6 = "2001:db8::1";

	assert_mtu(choose("", &ec_encap_gretap, v4, 0, 0, 0), 1462, 1476, false);
	assert_mtu(choose("", &ec_encap_gretap, v6, 0, 0, 0), 1442, 1456, false);
	assert_mtu(choose("mode=join-remote", &ec_encap_vxlan, v4, 0, 0, 0), 1500, 1514, true);
	assert_mtu(choose("", &ec_encap_gretap, v4, 0, 1, 0), 576, 82, false);
	assert_mtu(choose("", &ec_encap_gretap, v4, 0, 600, 0), 576, 576, false);
	assert_mtu(choose("", &ec_encap_gretap, v4, 0, 614, 0), 576, 590, false);
	assert_mtu(choose("", &ec_encap_gretap, v4, 0, 615, 0), 577, 591, false);
	assert_mtu(choose("mode=join-remote", &ec_encap_vxlan, v4, 0, 1420, 100), 1500, 1514, true);
	assert_mtu(choose("", &ec_encap_gretap, v4, 0, 65536, 0), 65497, 65511, false);
	assert_mtu(choose("", &ec_encap_gretap, v4, 0, UINT32_MAX, 0), 65497, 65511, false);
}

/* As many segments as fit one message: the super-frame's datagrams are 65507 bytes or less. */
static void test_super_frames(void)
{
	const char *v4 = "192.0.2.1", *v6 = "2001:db8::1";
	const EcEncap *fou = &ec_encap_gretap_fou_user, *vxlan = &ec_encap_vxlan_user;

	g_assert_cmpuint(choose("", fou, v4, 7, 1500, 0).gso_segments, ==, 44);
	g_assert_cmpuint(choose("", vxlan, v6, 7, 1500, 0).gso_segments, ==, 45);
	g_assert_cmpuint(choose("mtu=9000", vxlan, v4, 7, 9050, 0).gso_segments, ==, 7);
	g_assert_cmpuint(choose("mtu=576", vxlan, v4, 7, 1500, 0).gso_segments, ==, 64);
	g_assert_cmpuint(choose("mtu=65535", vxlan, v4, 7, 1500, 0).gso_segments, ==, 1);
	g_assert_cmpuint(choose("mode=join-networks bridge=br0", vxlan, v4, 7, 1500, 1500)
					 .gso_segments,
			==, 65535);
	g_assert_cmpuint(choose("", &ec_encap_vxlan, v4, 7, 1500, 0).gso_segments, ==, 0);
}

int main(int argc, char *argv[])
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/mtu/point-to-point", test_point_to_point);
	g_test_add_func("/mtu/bridged", test_bridged);
	g_test_add_func("/mtu/bridged-ipv6", test_bridged_ipv6);
	g_test_add_func("/mtu/user-ipv6", test_user_ipv6);
	g_test_add_func("/mtu/full-frames", test_full_frames);
	g_test_add_func("/mtu/explicit", test_explicit);
	g_test_add_func("/mtu/odd-paths", test_odd_paths);
	g_test_add_func("/mtu/super-frames", test_super_frames);
	return g_test_run();
}
