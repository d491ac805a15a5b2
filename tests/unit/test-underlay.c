/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <linux/genetlink.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/time_types.h>
#include <linux/wireguard.h>
#include <netlink/genl/genl.h>
#include <string.h>

#include "underlay.h"
#include "underlay/holder.h"
#include "underlay/networkmanager.h"
#include "underlay/wireguard.h"
#include "unit.h"

/* The parts of the underlay kinds that work on data alone. */

const EcUnderlayKind *const ec_underlay_kinds[] = { NULL };

/* WireGuard */

static const uint8_t key_a[EC_WG_KEY_SIZE] = { 0xaa }, key_b[EC_WG_KEY_SIZE] = { 0xbb };

static EcMessage *new_message(struct nlattr **ret_peers)
{
	EcMessage *m = nlmsg_alloc();

	g_assert_nonnull(genlmsg_put(m, 0, 0, 40, 0, NLM_F_MULTI, WG_CMD_GET_DEVICE, 1));
	g_assert_cmpint(nla_put_u16(m, WGDEVICE_A_LISTEN_PORT, 51820), ==, 0);
	*ret_peers = nla_nest_start(m, WGDEVICE_A_PEERS | NLA_F_NESTED);
	return m;
}

static void put_allowed(EcMessage *m, const char *text)
{
	struct nlattr *nest = nla_nest_start(m, NLA_F_NESTED);
	unsigned length;
	EcAddress a;

	g_assert_cmpint(ec_cidr_from_string(text, &a, &length), ==, 0);
	g_assert_cmpint(nla_put_u16(m, WGALLOWEDIP_A_FAMILY, (uint16_t)a.family), ==, 0);
	g_assert_cmpint(nla_put(m, WGALLOWEDIP_A_IPADDR, (int)ec_address_size(&a), a.bytes), ==, 0);
	g_assert_cmpint(nla_put_u8(m, WGALLOWEDIP_A_CIDR_MASK, (uint8_t)length), ==, 0);
	nla_nest_end(m, nest);
}

/* allowed: separated by blanks. endpoint: NULL, or an address; its port is 1000. */
static void put_peer(EcMessage *m, const uint8_t *key, const char *endpoint, int64_t handshake,
		const char *allowed)
{
	g_auto(GStrv) words = g_strsplit(allowed, " ", -1);
	struct nlattr *peer = nla_nest_start(m, NLA_F_NESTED);
	const struct __kernel_timespec when = { .tv_sec = handshake };

	g_assert_cmpint(nla_put(m, WGPEER_A_PUBLIC_KEY, EC_WG_KEY_SIZE, key), ==, 0);
	if (endpoint) {
		const EcAddress a = unit_address(endpoint);
		const struct sockaddr_in v4 = {
			.sin_family = AF_INET, .sin_port = htons(1000), .sin_addr = a.v4
		};
		const struct sockaddr_in6 v6 = {
			.sin6_family = AF_INET6, .sin6_port = htons(1000), .sin6_addr = a.v6
		};
		bool six = a.family == AF_INET6;

		g_assert_cmpint(nla_put(m, WGPEER_A_ENDPOINT, six ? sizeof(v6) : sizeof(v4),
						six ? (const void *)&v6 : &v4),
				==, 0);
		g_assert_cmpint(nla_put(m, WGPEER_A_LAST_HANDSHAKE_TIME, sizeof(when), &when), ==,
				0);
	}
	struct nlattr *nest = nla_nest_start(m, WGPEER_A_ALLOWEDIPS | NLA_F_NESTED);
	for (char **w = words; *w; w++) {
		if (**w)
			put_allowed(m, *w);
	}
	nla_nest_end(m, nest);
	nla_nest_end(m, peer);
}

static EcMessage *new_device(void)
{
	struct nlattr *peers;
	EcMessage *m = new_message(&peers);

	put_peer(m, key_a, "192.0.2.1", 1700000000, "10.0.0.0/8 10.7.0.64/26 fd00::/16 0.0.0.0/0");
	put_peer(m, key_b, "2001:db8::1", 0, "10.7.0.0/24 10.7.0.9/32 fd00:1::/31");
	nla_nest_end(m, peers);
	return m;
}

static void check_match(const char *to, int peer, int length)
{
	g_autoptr(EcMessage) m = new_device();
	const EcAddress a = unit_address(to);
	g_auto(EcWgDevice) d = { 0 };

	ec_wg_device_init(&d, &a);
	g_assert_cmpint(ec_wg_device_take(nlmsg_hdr(m), &d), ==, 0);
	g_assert_cmpint(d.peer, ==, peer);
	g_assert_cmpint(d.peer_length, ==, length);
}

static void test_longest_match(void)
{
	check_match("10.7.0.9", 1, 32);
	check_match("10.7.0.10", 1, 24);
	check_match("10.7.0.64", 0, 26);
	check_match("10.7.0.127", 0, 26);
	check_match("10.7.0.128", 1, 24);
	check_match("10.8.0.1", 0, 8);
	check_match("192.168.0.1", 0, 0);
	check_match("fd00:1::5", 1, 31);
	check_match("fd00:0:1::5", 1, 31);
	check_match("fd00:2::5", 0, 16);
	check_match("fd01::5", -1, -1);
}

static void test_details(void)
{
	g_autoptr(EcMessage) m = new_device();
	g_auto(EcWgDevice) d = { 0 };

	ec_wg_device_init(&d, NULL);
	g_assert_cmpint(ec_wg_device_take(nlmsg_hdr(m), &d), ==, 0);
	g_assert_cmpuint(d.port, ==, 51820);
	g_assert_cmpuint(d.peers->len, ==, 2);
	const EcWgPeer *a = &g_array_index(d.peers, EcWgPeer, 0), *b = a + 1;
	g_assert_cmpmem(a->key, EC_WG_KEY_SIZE, key_a, EC_WG_KEY_SIZE);
	g_assert_cmpstr(a->endpoint, ==, "192.0.2.1:1000");
	g_assert_cmpint(a->handshake, ==, 1700000000);
	g_assert_cmpstr(b->endpoint, ==, "[2001:db8::1]:1000");
	g_assert_cmpint(b->handshake, ==, 0);
	g_assert_cmpint(d.peer, ==, -1);
}

/* A peer with many allowed-ips is continued in the next message. */
static void test_several_messages(void)
{
	struct nlattr *peers;
	g_autoptr(EcMessage) first = new_message(&peers);
	g_auto(EcWgDevice) d = { 0 };
	const EcAddress to = unit_address("10.2.0.1");

	put_peer(first, key_a, "192.0.2.1", 5, "10.1.0.0/16");
	nla_nest_end(first, peers);
	g_autoptr(EcMessage) second = new_message(&peers);
	put_peer(second, key_a, NULL, 0, "10.2.0.0/16");
	put_peer(second, key_b, NULL, 0, "");
	nla_nest_end(second, peers);

	ec_wg_device_init(&d, &to);
	g_assert_cmpint(ec_wg_device_take(nlmsg_hdr(first), &d), ==, 0);
	g_assert_cmpint(d.peer, ==, -1);
	g_assert_cmpint(ec_wg_device_take(nlmsg_hdr(second), &d), ==, 0);
	g_assert_cmpint(d.peer, ==, 0);
	g_assert_cmpuint(d.peers->len, ==, 2);
	g_assert_cmpstr(g_array_index(d.peers, EcWgPeer, 0).endpoint, ==, "192.0.2.1:1000");
	g_assert_cmpstr(g_array_index(d.peers, EcWgPeer, 1).endpoint, ==, "");
}

/* What the digest is for: any of these may make a flow possible or impossible. */
static void test_digest(void)
{
	static const struct {
		const uint8_t *key;
		const char *endpoint, *allowed;
	} peers[] = {
		{ key_a, "192.0.2.1", "10.1.0.0/16" },
		{ key_b, "192.0.2.1", "10.1.0.0/16" },
		{ key_a, NULL, "10.1.0.0/16" },
		{ key_a, "192.0.2.1", "10.1.0.0/17" },
		{ key_a, "192.0.2.1", "10.1.0.0/16 10.1.0.0/17" },
	};
	uint64_t seen[EC_ELEMENTS(peers)];

	for (size_t i = 0; i < EC_ELEMENTS(peers); i++) {
		struct nlattr *nest;
		g_autoptr(EcMessage) m = new_message(&nest);
		g_auto(EcWgDevice) d = { 0 };

		put_peer(m, peers[i].key, peers[i].endpoint, (int64_t)i, peers[i].allowed);
		nla_nest_end(m, nest);
		ec_wg_device_init(&d, NULL);
		g_assert_cmpint(ec_wg_device_take(nlmsg_hdr(m), &d), ==, 0);
		seen[i] = d.digest;
		for (size_t j = 0; j < i; j++)
			g_assert_cmpuint(seen[i], !=, seen[j]);
	}
}

/* Read from memory of just that size, so that sanitizers see every step beyond it. */
static void take_bytes(const void *bytes, size_t size)
{
	g_autofree struct nlmsghdr *h = g_memdup2(bytes, size);
	const EcAddress to = unit_address("10.7.0.9");
	g_auto(EcWgDevice) d = { 0 };

	h->nlmsg_len = (uint32_t)size;
	ec_wg_device_init(&d, &to);
	int r = ec_wg_device_take(h, &d);
	g_assert_true(r == 0 || r == -EBADMSG);
	g_assert_cmpint(d.error, ==, r);
	g_assert_cmpint(d.peer, <, (int)d.peers->len);
}

static void test_malformed(void)
{
	static const uint8_t values[] = { 0, 1, 3, 4, 5, 0x7f, 0x80, 0xff };
	g_autoptr(EcMessage) m = new_device();
	size_t size = nlmsg_hdr(m)->nlmsg_len;
	g_autofree uint8_t *bytes = g_memdup2(nlmsg_hdr(m), size);

	for (size_t n = sizeof(struct nlmsghdr); n <= size; n++)
		take_bytes(bytes, n);
	for (size_t i = sizeof(struct nlmsghdr); i < size; i++) {
		uint8_t was = bytes[i];

		for (size_t v = 0; v < EC_ELEMENTS(values); v++) {
			bytes[i] = values[v];
			take_bytes(bytes, size);
		}
		bytes[i] = was;
	}
}

/* Holders */

static void test_fdinfo(void)
{
	static const char text[] = "pos:\t0\nflags:\t0104002\nmnt_id:\t24\nino:\t122\niff:\ttun1\n";

	g_assert_true(ec_fdinfo_names(text, "tun1"));
	g_assert_false(ec_fdinfo_names(text, "tun"));
	g_assert_false(ec_fdinfo_names(text, "tun10"));
	g_assert_true(ec_fdinfo_names("iff:\ttun1", "tun1"));
	g_assert_false(ec_fdinfo_names("pos:\t0\n", "tun1"));
	g_assert_false(ec_fdinfo_names("iff:\t\n", "tun1"));
	g_assert_false(ec_fdinfo_names("", "tun1"));
}

/* comms: what may hold the interface, separated by blanks. */
static const char *weigh(const char *ifname, const char *comms, unsigned *ret_processes)
{
	g_auto(GStrv) words = g_strsplit(comms, " ", -1);
	EcHolderEvidence e = { 0 };

	for (char **w = words; *w; w++) {
		const EcVpnProgram *p = ec_vpn_program(*w);

		g_assert_nonnull(p);
		ec_holder_weigh(&e, ifname, p);
	}
	*ret_processes = e.processes;
	return e.several ? "several" : e.program ? e.program->comm : "none";
}

static void test_weighing(void)
{
	unsigned n;

	g_assert_null(ec_vpn_program("bash"));
	g_assert_null(ec_vpn_program(""));
	g_assert_cmpstr(ec_vpn_program("openvpn")->kind, ==, "openvpn");
	g_assert_cmpstr(ec_vpn_program("charon-systemd")->kind, ==, "ipsec");
	g_assert_cmpstr(ec_vpn_program("tailscaled")->title, ==, "Tailscale");
	g_assert_cmpstr(weigh("tun0", "openvpn openvpn", &n), ==, "openvpn");
	g_assert_cmpuint(n, ==, 2);
	g_assert_cmpstr(weigh("tun0", "openvpn tincd", &n), ==, "several");
	/* Who has names of its own is no candidate for others... */
	g_assert_cmpstr(weigh("tun0", "tailscaled openvpn charon", &n), ==, "openvpn");
	g_assert_cmpstr(weigh("tun0", "tailscaled", &n), ==, "none");
	/* ...and the only one for these. */
	g_assert_cmpstr(weigh("tailscale0", "openvpn tailscaled tincd", &n), ==, "tailscaled");
	g_assert_cmpstr(weigh("tailscale0", "openvpn tincd tailscaled", &n), ==, "tailscaled");
	g_assert_cmpuint(n, ==, 1);
	g_assert_cmpstr(weigh("ipsec0", "charon charon-systemd", &n), ==, "several");
}

static void check_mode(const char *kind, int type, int mode)
{
	g_autoptr(EcMessage) m = nlmsg_alloc_simple(RTM_NEWLINK, 0);
	g_auto(EcLink) link = { 0 };
	const struct ifinfomsg ifi = { .ifi_index = 7 };

	g_assert_cmpint(nlmsg_append(m, (void *)&ifi, sizeof(ifi), NLMSG_ALIGNTO), ==, 0);
	g_assert_cmpint(nla_put_string(m, IFLA_IFNAME, "tun0"), ==, 0);
	struct nlattr *info = nla_nest_start(m, IFLA_LINKINFO);
	g_assert_cmpint(nla_put_string(m, IFLA_INFO_KIND, kind), ==, 0);
	struct nlattr *data = nla_nest_start(m, IFLA_INFO_DATA);
	if (type >= 0)
		g_assert_cmpint(nla_put_u8(m, IFLA_TUN_TYPE, (uint8_t)type), ==, 0);
	nla_nest_end(m, data);
	nla_nest_end(m, info);
	g_assert_cmpint(ec_link_parse(nlmsg_hdr(m), &link), ==, 0);
	g_assert_cmpint(ec_tun_mode(&link), ==, mode);
}

static void test_mode(void)
{
	check_mode("tun", IFF_TUN, IFF_TUN);
	check_mode("tun", IFF_TAP, IFF_TAP);
	check_mode("tun", 7, 0);
	check_mode("tun", -1, 0);
	check_mode("dummy", IFF_TUN, 0);
}

/* NetworkManager */

typedef struct Objects {
	GHashTable *actives, *devices;
} Objects;

static void add_device(Objects *o, const char *path, const char *interface, const char *ip4)
{
	EcNmDevice *d = g_new0(EcNmDevice, 1);

	d->interface = g_strdup(interface);
	d->ip_interface = g_strdup("");
	d->ip4 = g_strdup(ip4);
	d->ip6 = g_strdup("/");
	g_hash_table_insert(o->devices, g_strdup(path), d);
}

static EcNmActive *add_active(
		Objects *o, const char *id, const char *type, const char *ip4, const char *device)
{
	EcNmActive *a = g_new0(EcNmActive, 1);

	a->id = g_strdup(id);
	a->type = g_strdup(type);
	a->vpn = g_str_equal(type, "vpn");
	a->ip4 = g_strdup(ip4);
	a->ip6 = g_strdup("/");
	a->devices = g_strsplit(device, " ", -1);
	a->state = 2;
	g_hash_table_insert(o->actives, g_strdup_printf("/a/%s", id), a);
	return a;
}

static const char *called(const Objects *o, const char *interface)
{
	const EcNmActive *a = ec_nm_connection(o->actives, o->devices, interface);

	return a ? a->id : "";
}

static void test_nm_connections(void)
{
	g_autoptr(GHashTable) actives =
			g_hash_table_new_full(g_str_hash, g_str_equal, g_free, ec_nm_active_free);
	g_autoptr(GHashTable) devices =
			g_hash_table_new_full(g_str_hash, g_str_equal, g_free, ec_nm_device_free);
	Objects o = { actives, devices };

	add_device(&o, "/d/1", "eth0", "/ip4/1");
	add_device(&o, "/d/2", "tun0", "/ip4/2");
	add_device(&o, "/d/3", "wg0", "/ip4/3");
	add_device(&o, "/d/4", "tun7", "/");
	add_active(&o, "Home", "802-3-ethernet", "/ip4/1", "/d/1");
	EcNmActive *office = add_active(&o, "Office", "vpn", "/ip4/2", "/d/1");
	/* NetworkManager makes one up for a device that it finds. */
	add_active(&o, "tun0", "tun", "/ip4/2", "/d/2");
	add_active(&o, "Lab", "wireguard", "/ip4/3", "/d/3");
	/* It has no interface: its addresses are on the one that it rides on. */
	add_active(&o, "Policies", "vpn", "/ip4/1", "/d/1");

	g_assert_cmpstr(called(&o, "tun0"), ==, "Office");
	g_assert_cmpstr(called(&o, "wg0"), ==, "Lab");
	g_assert_cmpstr(called(&o, "eth0"), ==, "");
	g_assert_cmpstr(called(&o, "tun7"), ==, "");
	g_assert_cmpstr(called(&o, "tun9"), ==, "");
	office->state = 1;
	g_assert_cmpstr(called(&o, "tun0"), ==, "");
	/* "/" is no configuration that two could have in common. */
	office->state = 2;
	g_free(office->ip4);
	office->ip4 = g_strdup("/");
	g_assert_cmpstr(called(&o, "tun0"), ==, "");
	g_assert_cmpstr(called(&o, "tun7"), ==, "");
}

static void test_nm_names(void)
{
	static const struct {
		const char *id, *name;
	} cases[] = {
		{ "Office", "Office" },
		{ "my \"best\" VPN", "my 'best' VPN" },
		{ "line\nbreak", NULL },
		{ "\xff", NULL },
		{ "", NULL },
		{ NULL, NULL },
		{ "B\xc3\xbcro B\xc3\xbcro B\xc3\xbcro B\xc3\xbcro B\xc3\xbcro B\xc3\xbcro B\xc3\xbcro",
				"B\xc3\xbcro B\xc3\xbcro B\xc3\xbcro B\xc3\xbcro B\xc3\xbcro B\xc3\xbcro B\xc3\xbc" },
	};

	for (size_t i = 0; i < EC_ELEMENTS(cases); i++) {
		const EcNmActive a = { .id = (char *)cases[i].id };
		g_autofree char *name = ec_nm_connection_name(&a);

		g_assert_cmpstr(name, ==, cases[i].name);
	}
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/wireguard/longest-match", test_longest_match);
	g_test_add_func("/wireguard/details", test_details);
	g_test_add_func("/wireguard/several-messages", test_several_messages);
	g_test_add_func("/wireguard/digest", test_digest);
	g_test_add_func("/wireguard/malformed", test_malformed);
	g_test_add_func("/holder/fdinfo", test_fdinfo);
	g_test_add_func("/holder/weighing", test_weighing);
	g_test_add_func("/holder/mode", test_mode);
	g_test_add_func("/networkmanager/connections", test_nm_connections);
	g_test_add_func("/networkmanager/names", test_nm_names);
	return g_test_run();
}
