/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "listener.h"

#include <glib/gstdio.h>
#include <string.h>

#include "manager.h"
#include "unit.h"

#define KEY "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
#define OTHER_KEY "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA="

static EcSettings *parse(EcScope scope, const char *text)
{
	g_auto(GStrv) items = g_strsplit(text, " ", -1);
	EcSettings *s = ec_settings_new_for(scope);

	for (char **i = items; *i; i++) {
		g_auto(GStrv) part = g_strsplit(*i, "=", 2);
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;

		if (part[0] && ec_settings_parse(s, part[0], part[1], &error) < 0)
			g_error("%s: %s", *i, error.message);
	}
	return s;
}

/* "anna mtu=1400; bert" */
static GHashTable *parse_peers(const char *text)
{
	g_auto(GStrv) items = g_strsplit(text, "; ", -1);
	GHashTable *peers = ec_settings_peers_new();

	for (char **i = items; *i && **i; i++) {
		g_auto(GStrv) part = g_strsplit(*i, " ", 2);

		g_hash_table_insert(peers, g_strdup(part[0]),
				parse(EC_SCOPE_PEER, part[1] ? part[1] : ""));
	}
	return peers;
}

static EcListener *new_listener(EcManager *m, const char *settings, const char *peers)
{
	return ec_listener_new(m, parse(EC_SCOPE_LISTENER, settings), parse_peers(peers),
			EC_ORIGIN_RUNTIME);
}

/* A manager with tables, files and the kernel, that runs nothing. */
typedef struct Bench {
	EcManager m;
	char *directory;
	GPtrArray *tunnels;
} Bench;

static void free_tunnel(gpointer data)
{
	EcTunnel *t = data;

	(void)ec_settings_free(t->settings);
	g_free(t);
}

static Bench *bench_new(void)
{
	Bench *b = g_new0(Bench, 1);

	b->directory = g_dir_make_tmp("ec-listener-XXXXXX", NULL);
	g_assert_nonnull(b->directory);
	g_autofree char *etc = g_build_filename(b->directory, "etc", NULL);
	g_autofree char *var = g_build_filename(b->directory, "var", NULL);
	g_autofree char *run = g_build_filename(b->directory, "run", NULL);
	g_assert_cmpint(ec_store_new(etc, var, run, NULL, &b->m.store, NULL), ==, 0);
	g_assert_cmpint(ec_kernel_new(run, &b->m.kernel), ==, 0);
	b->m.config.port = 65200;
	b->m.tunnels = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, free_tunnel);
	b->m.listeners = ec_manager_listeners_new();
	return b;
}

static void remove_tree(const char *path)
{
	g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
	const char *entry;

	while (dir && (entry = g_dir_read_name(dir))) {
		g_autofree char *inner = g_build_filename(path, entry, NULL);
		remove_tree(inner);
	}
	(void)g_remove(path);
}

static void bench_free(Bench *b)
{
	g_hash_table_unref(b->m.tunnels);
	g_hash_table_unref(b->m.listeners);
	(void)ec_kernel_free(b->m.kernel);
	(void)ec_store_free(b->m.store);
	remove_tree(b->directory);
	g_free(b->directory);
	g_free(b);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Bench, bench_free)

static void add_tunnel(
		Bench *b, const char *name, const char *ifname, EcListener *l, const char *peer)
{
	EcTunnel *t = g_new0(EcTunnel, 1);

	t->settings = ec_settings_new();
	g_assert_cmpint(ec_settings_parse(t->settings, "name", name, NULL), ==, 0);
	g_strlcpy(t->ifname, ifname, sizeof(t->ifname));
	t->listener = l;
	if (peer)
		g_assert_cmpint(ec_settings_parse(t->settings, "identity", peer, NULL), ==, 0);
	g_hash_table_insert(b->m.tunnels, t->settings->name, t);
}

static void test_allow(void)
{
	static const struct {
		const char *listener, *peers, *peer, *from;
		bool with_key, keyless;
	} row[] = {
		/* Nothing said: with a key from anywhere. */
		{ "name=l", "", "a", "192.0.2.1", true, false },
		{ "name=l", "", NULL, "192.0.2.1", true, false },
		{ "name=l", "a", "a", "fd00::1", true, false },
		{ "name=l allow=10.8.0.0/24", "", "a", "10.8.0.0", true, true },
		{ "name=l allow=10.8.0.0/24", "", "a", "10.8.0.255", true, true },
		{ "name=l allow=10.8.0.0/24", "", "a", "10.8.1.0", false, false },
		{ "name=l allow=10.8.0.0/24", "", NULL, "10.8.1.0", false, false },
		{ "name=l allow=10.8.0.128/25", "", "a", "10.8.0.127", false, false },
		{ "name=l allow=10.8.0.128/25", "", "a", "10.8.0.128", true, true },
		{ "name=l allow=10.8.0.7", "", "a", "10.8.0.7", true, true },
		{ "name=l allow=10.8.0.7", "", "a", "10.8.0.6", false, false },
		{ "name=l allow=0.0.0.0/0", "", "a", "255.1.2.3", true, true },
		{ "name=l allow=0.0.0.0/0", "", "a", "fd00::1", false, false },
		{ "name=l allow=10.8.0.7,fd00::/9", "", "a", "fd7f::1", true, true },
		{ "name=l allow=10.8.0.7,fd00::/9", "", "a", "fd80::1", false, false },
		{ "name=l allow=fd00::1/128", "", "a", "fd00::1", true, true },
		{ "name=l allow=fd00::1/128", "", "a", "fd00::2", false, false },
		/* The peer's own stands in the place of the listener's. */
		{ "name=l allow=10.0.0.0/8", "a allow=192.0.2.0/24", "a", "192.0.2.9", true, true },
		{ "name=l allow=10.0.0.0/8", "a allow=192.0.2.0/24", "a", "10.0.0.1", false,
				false },
		{ "name=l allow=10.0.0.0/8", "a allow=192.0.2.0/24", "b", "10.0.0.1", true, true },
		{ "name=l allow=10.0.0.0/8", "a allow=192.0.2.0/24", NULL, "192.0.2.9", true,
				true },
		{ "name=l allow=10.0.0.0/8", "a allow=192.0.2.0/24", NULL, "10.0.0.1", true, true },
		{ "name=l allow=10.0.0.0/8", "a allow=192.0.2.0/24", NULL, "11.0.0.1", false,
				false },
		{ "name=l", "a allow=192.0.2.0/24", "a", "192.0.3.1", false, false },
		{ "name=l", "a allow=192.0.2.0/24", "b", "192.0.2.1", true, false },
	};

	for (size_t i = 0; i < EC_ELEMENTS(row); i++) {
		g_autoptr(EcListener) l = new_listener(NULL, row[i].listener, row[i].peers);
		EcAddress from = unit_address(row[i].from);
		bool with_key = ec_listener_allows(l, row[i].peer, &from, false);
		bool keyless = ec_listener_allows(l, row[i].peer, &from, true);

		if (with_key != row[i].with_key || keyless != row[i].keyless)
			g_error("%s / %s: %s from %s: %d %d", row[i].listener, row[i].peers,
					row[i].peer, row[i].from, with_key, keyless);
	}
}

static void test_fit(void)
{
	static const struct {
		const char *listener, *peer;
		EcMode mode;
		const char *part; /* NULL: fits */
	} row[] = {
		{ "name=l", NULL, EC_MODE_POINT_TO_POINT, NULL },
		{ "name=l", NULL, EC_MODE_JOIN_REMOTE, "listener l joins no bridge" },
		{ "name=l", NULL, EC_MODE_JOIN_NETWORKS,
				"mode=join-networks needs; give it bridge" },
		{ "name=l", "bridge=br1", EC_MODE_JOIN_REMOTE, NULL },
		{ "name=l", "bridge=br1", EC_MODE_POINT_TO_POINT, "joins bridge br1" },
		{ "name=l", "mtu=1400", EC_MODE_POINT_TO_POINT, NULL },
		{ "name=l bridge=br0", NULL, EC_MODE_POINT_TO_POINT, "joins bridge br0" },
		{ "name=l bridge=br0", NULL, EC_MODE_JOIN_REMOTE, NULL },
		{ "name=l bridge=br0", NULL, EC_MODE_JOIN_NETWORKS, NULL },
		{ "name=l bridge=br0 mode=join-remote", NULL, EC_MODE_JOIN_REMOTE, NULL },
		{ "name=l bridge=br0 mode=join-remote", NULL, EC_MODE_JOIN_NETWORKS,
				"takes mode=join-remote only, not mode=join-networks" },
		{ "name=l mode=point-to-point", NULL, EC_MODE_JOIN_REMOTE,
				"takes mode=point-to-point only" },
		{ "name=l mode=point-to-point", NULL, EC_MODE_POINT_TO_POINT, NULL },
	};

	for (size_t i = 0; i < EC_ELEMENTS(row); i++) {
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
		g_autoptr(EcSettings) l = parse(EC_SCOPE_LISTENER, row[i].listener);
		g_autoptr(EcSettings) p = row[i].peer ? parse(EC_SCOPE_PEER, row[i].peer) : NULL;
		int r = ec_listener_check_mode(l, p, row[i].mode, &error);

		if (row[i].part)
			unit_assert_error(r, &error, "Refused", row[i].part);
		else
			g_assert_cmpint(r, ==, 0);
	}
}

static void test_verify(void)
{
	static const struct {
		const char *listener, *peers, *part; /* NULL: verifies */
	} row[] = {
		{ "name=l", "", NULL },
		{ "name=l bridge=br0 bridge-create=yes", "", NULL },
		{ "name=l mode=join-networks", "a bridge=br0", NULL },
		{ "name=l mode=join-networks bridge=br0", "a mtu=1400; b", NULL },
		{ "name=l interface=x%n", "a interface=y; b interface=z", NULL },
		{ "name=l", "a address=192.0.2.1/24", NULL },
		{ "port=1", "", "name" },
		{ "name=l mode=join-remote", "a", "bridge: mode=join-remote" },
		{ "name=l mode=point-to-point bridge=br0", "", "bridge: mode is point-to-point" },
		{ "name=l mode=point-to-point", "a bridge=br0", "peer a: bridge" },
		{ "name=l bridge-create=yes", "", "bridge-create: needs" },
		{ "name=l bridge=br0", "a address=192.0.2.1/24", "peer a: address" },
		{ "name=l", "a address=192.0.2.1/24 bridge=br0", "address" },
		{ "name=l", "a interface=x; b interface=x", "interface 'x'" },
		{ "name=l", "a mtu=67", "mtu '67'" },
		{ "name=l mtu=67", "", "mtu '67'" },
		{ "name=l bridge=br0 interface=br0", "", "interface and bridge" },
		{ "name=l", "a interface=br0 bridge=br0", "interface and bridge" },
		{ "name=l keepalive-interval=5000", "", "keepalive-timeout" },
		{ "name=l guard=none,ra", "", "guard" },
	};

	for (size_t i = 0; i < EC_ELEMENTS(row); i++) {
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
		g_autoptr(EcSettings) l = parse(EC_SCOPE_LISTENER, row[i].listener);
		g_autoptr(GHashTable) peers = parse_peers(row[i].peers);
		int r = ec_settings_verify_peers(l, peers, &error);

		if (!row[i].part && r < 0)
			g_error("%s / %s: %s", row[i].listener, row[i].peers, error.message);
		if (row[i].part)
			unit_assert_error(r, &error, "InvalidSetting", row[i].part);
	}
}

static void test_supported(void)
{
	static const char *const words[] = { "compat=dynamic-fou", "fidelity=wire", "guard=dhcp",
		"link-loss-forwarding=yes" };
	static const char *const fine[] = { "name=l guard=auto data-plane=kernel",
		"name=l guard=none data-plane=user split=yes",
		"name=l encapsulation=raw-udp,tun-udp" };

	for (size_t i = 0; i < EC_ELEMENTS(fine); i++) {
		g_autoptr(EcSettings) s = parse(EC_SCOPE_LISTENER, fine[i]);

		g_assert_cmpint(ec_settings_check_supported(s, NULL), ==, 0);
	}
	for (size_t i = 0; i < EC_ELEMENTS(words); i++) {
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
		g_autoptr(EcSettings) s = parse(EC_SCOPE_LISTENER, words[i]);

		unit_assert_error(ec_settings_check_supported(s, &error), &error, "NotSupported",
				words[i]);
	}
}

static void test_keys(void)
{
	g_autoptr(Bench) b = bench_new();
	g_autoptr(EcListener) l = new_listener(&b->m, "name=office", "anna; bert");
	g_autoptr(EcListener) open = new_listener(&b->m, "name=open allow=10.0.0.0/8", "anna");
	g_autofree char *path =
			g_build_filename(b->directory, "var", "keys", "listener:office:anna", NULL);
	uint8_t key[32] = { 0 };

	/* No key anywhere: only who is known, or comes from where allow says, and keyless. */
	g_assert_cmpint(ec_listener_key(l, "anna", key), ==, EC_LISTENER_KEY_NONE);
	g_assert_cmpint(ec_listener_key(l, "carl", key), ==, EC_LISTENER_KEY_UNKNOWN);
	g_assert_cmpint(ec_listener_key(open, "carl", key), ==, EC_LISTENER_KEY_NONE);
	/* The peer's own key, which is not another's. */
	g_assert_cmpint(ec_store_set_listener_key(b->m.store, "office", "anna", KEY, NULL), ==, 0);
	g_assert_cmpint(ec_listener_key(l, "anna", key), ==, EC_LISTENER_KEY_FOUND);
	g_assert_cmpmem(key, 32, "0123456789abcdef0123456789abcdef", 32);
	g_assert_cmpint(ec_listener_key(l, "bert", key), ==, EC_LISTENER_KEY_NONE);
	g_assert_cmpint(ec_listener_key(open, "anna", key), ==, EC_LISTENER_KEY_NONE);
	/* The listener's is for those that have none. */
	g_assert_cmpint(ec_store_set_listener_key(b->m.store, "office", NULL, OTHER_KEY, NULL), ==,
			0);
	g_assert_cmpint(ec_listener_key(l, "anna", key), ==, EC_LISTENER_KEY_FOUND);
	g_assert_cmpmem(key, 32, "0123456789abcdef0123456789abcdef", 32);
	g_assert_cmpint(ec_listener_key(l, "carl", key), ==, EC_LISTENER_KEY_FOUND);
	g_assert_cmpmem(key, 32, "fedcba9876543210fedcba9876543210", 32);
	/* A key of somebody who is no peer any more opens nothing. */
	g_hash_table_remove(l->peers, "anna");
	g_assert_cmpint(ec_listener_key(l, "anna", key), ==, EC_LISTENER_KEY_FOUND);
	g_assert_cmpmem(key, 32, "fedcba9876543210fedcba9876543210", 32);
	/* One that cannot be read does not open the door that is open without. */
	g_hash_table_insert(l->peers, g_strdup("anna"), ec_settings_new_for(EC_SCOPE_PEER));
	g_assert_true(g_file_set_contents(path, "nonsense", -1, NULL));
	g_assert_cmpint(ec_listener_key(l, "anna", key), ==, EC_LISTENER_KEY_UNKNOWN);
}

static void test_tunnel_settings(void)
{
	static const struct {
		const char *listener, *peers, *peer, *tunnel;
	} row[] = {
		{ "name=office", "", "anna",
				"name=office.anna mode=point-to-point remote=10.8.0.2 "
				"interface=ec-anna" },
		{ "name=office bridge=br0 bridge-create=yes ttl=9 encapsulation=vxlan,gretap "
		  "underlay=device:tun0 port=1 key=" KEY
		  " autostart=no allow=10.0.0.0/8 max-peers=2 keepalive-timeout=9000",
				"anna mtu=1400 mac=02:00:00:00:00:01 key=" KEY "; bert mtu=1300",
				"anna",
				"name=office.anna mode=join-networks remote=10.8.0.2 "
				"interface=ec-anna bridge=br0 bridge-create=yes ttl=9 mtu=1400 "
				"encapsulation=vxlan,gretap underlay=device:tun0 "
				"mac=02:00:00:00:00:01 keepalive-timeout=9000" },
		{ "name=office bridge=br0 mtu=1500 interface=x%n",
				"anna mtu=1400 bridge=br1 "
				"interface=lap",
				"anna",
				"name=office.anna mode=join-remote remote=10.8.0.2 interface=lap "
				"bridge=br1 mtu=1400" },
		{ "name=office data-plane=user split=yes encapsulation=raw-udp,vxlan", "", "a",
				"name=office.a mode=point-to-point remote=10.8.0.2 "
				"interface=ec-a data-plane=user split=yes "
				"encapsulation=raw-udp,vxlan" },
		{ "name=office interface=x%n.y", "", "a",
				"name=office.a mode=point-to-point remote=10.8.0.2 interface=x0.y" },
		{ "name=office", "a address=192.0.2.1/24,fd00::1/64", "a",
				"name=office.a mode=point-to-point remote=10.8.0.2 interface=ec-a "
				"address=192.0.2.1/24,fd00::1/64" },
	};
	EcAddress from = unit_address("10.8.0.2");

	for (size_t i = 0; i < EC_ELEMENTS(row); i++) {
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
		g_autoptr(Bench) b = bench_new();
		g_autoptr(EcListener) l = new_listener(&b->m, row[i].listener, row[i].peers);
		g_autoptr(EcSettings) wanted = unit_settings(row[i].tunnel);
		EcMode mode = (EcMode)wanted->mode;
		g_autoptr(EcSettings) s =
				ec_listener_tunnel_settings(l, row[i].peer, &from, mode, &error);
		size_t n;
		const EcSetting *table = ec_settings_table(&n);

		if (!s)
			g_error("%s: %s", row[i].listener, error.message);
		for (size_t k = 0; k < n; k++) {
			if ((table[k].scopes & EC_SCOPE_TUNNEL) &&
					!g_str_equal(table[k].key, "identity") &&
					ec_settings_differ(s, wanted, &table[k])) {
				g_autofree char *text = ec_settings_text(s, &table[k]);
				g_error("%s: %s=%s", row[i].listener, table[k].key, text);
			}
		}
		g_assert_cmpstr(s->identity, ==, row[i].peer);
		g_assert_cmpuint(s->scope, ==, EC_SCOPE_TUNNEL);
	}
}

static char *ifname_for(EcListener *l, const char *peer)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcAddress from = unit_address("10.8.0.2");
	g_autoptr(EcSettings) s =
			ec_listener_tunnel_settings(l, peer, &from, EC_MODE_POINT_TO_POINT, &error);

	return s ? g_strdup(s->interface) : g_strdup(ec_error_token(&error));
}

static void test_interfaces(void)
{
	g_autoptr(Bench) b = bench_new();
	g_autoptr(EcListener) l = new_listener(&b->m, "name=l interface=p%n", "own interface=p1");
	g_autoptr(EcListener) one = new_listener(&b->m, "name=m interface=only", "");
	g_autoptr(EcListener) plain = new_listener(&b->m, "name=n", "");
	g_autofree char *first = ifname_for(l, "a"), *free_one = NULL, *own = NULL, *taken = NULL;
	g_autofree char *again = NULL, *only = NULL, *second = NULL, *shortened = NULL;

	g_assert_cmpstr(first, ==, "p0");
	add_tunnel(b, "l.a", "p0", l, "a");
	add_tunnel(b, "l.c", "p2", l, "c");
	free_one = ifname_for(l, "b");
	g_assert_cmpstr(free_one, ==, "p1");
	again = ifname_for(l, "a"); /* its own is free for it */
	g_assert_cmpstr(again, ==, "p0");
	own = ifname_for(l, "own");
	g_assert_cmpstr(own, ==, "p1");
	add_tunnel(b, "static", "p1", NULL, NULL);
	taken = ifname_for(l, "own");
	g_assert_cmpstr(taken, ==, "NameTaken");
	only = ifname_for(one, "a");
	g_assert_cmpstr(only, ==, "only");
	add_tunnel(b, "m.a", "only", one, "a");
	second = ifname_for(one, "b");
	g_assert_cmpstr(second, ==, "NameTaken");
	shortened = ifname_for(plain, "somebody-with-a-long-name");
	g_assert_cmpstr(shortened, !=, "NameTaken");
	g_assert_true(g_str_has_prefix(shortened, "ec-somebo-"));
	g_assert_cmpuint(strlen(shortened), ==, 15);
}

/* LISTENER.PEER, whatever the lengths, and never another's. */
static void test_names(void)
{
	g_autoptr(Bench) b = bench_new();
	g_autofree char *long_name = g_strnfill(63, 'l'), *long_peer = g_strnfill(63, 'p');
	g_autofree char *settings = g_strconcat("name=", long_name, NULL);
	g_autoptr(EcListener) l = new_listener(&b->m, settings, "");
	g_autoptr(EcListener) x = new_listener(&b->m, "name=x", "");
	EcAddress from = unit_address("fd00::1");
	g_autoptr(EcSettings) cut = ec_listener_tunnel_settings(
			l, long_peer, &from, EC_MODE_POINT_TO_POINT, NULL);
	g_autoptr(EcSettings) other =
			ec_listener_tunnel_settings(l, "p", &from, EC_MODE_POINT_TO_POINT, NULL);

	g_assert_nonnull(cut);
	g_assert_nonnull(other);
	g_assert_true(ec_name_is_valid(cut->name));
	g_assert_cmpstr(cut->name, !=, other->name);
	add_tunnel(b, "x.y", "ec-y", NULL, NULL); /* dials */
	g_autoptr(EcSettings) taken =
			ec_listener_tunnel_settings(x, "y", &from, EC_MODE_POINT_TO_POINT, NULL);
	g_assert_true(g_str_has_prefix(taken->name, "x.y-"));
	g_assert_true(ec_name_is_valid(taken->name));
	add_tunnel(b, taken->name, "ec-z", x, "y");
	g_autoptr(EcSettings) again =
			ec_listener_tunnel_settings(x, "y", &from, EC_MODE_POINT_TO_POINT, NULL);
	g_assert_cmpstr(again->name, ==, taken->name);
	g_assert_cmpuint(ec_listener_count(x), ==, 1);
}

static void test_port(void)
{
	g_autoptr(Bench) b = bench_new();
	g_autoptr(EcListener) l = new_listener(&b->m, "name=l", "");
	g_autoptr(EcListener) own = new_listener(&b->m, "name=m port=1234", "");

	b->m.config.port = 4321;
	g_assert_cmpuint(ec_listener_port(l), ==, 4321);
	g_assert_cmpuint(ec_listener_port(own), ==, 1234);
	g_assert_cmpstr(ec_listener_state_to_string(EC_LISTENER_FAILED), ==, "failed");
}

int main(int argc, char *argv[])
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/listener/allow", test_allow);
	g_test_add_func("/listener/fit", test_fit);
	g_test_add_func("/listener/verify", test_verify);
	g_test_add_func("/listener/supported", test_supported);
	g_test_add_func("/listener/keys", test_keys);
	g_test_add_func("/listener/tunnel-settings", test_tunnel_settings);
	g_test_add_func("/listener/interfaces", test_interfaces);
	g_test_add_func("/listener/names", test_names);
	g_test_add_func("/listener/port", test_port);
	return g_test_run();
}
