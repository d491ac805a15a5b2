/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "svc.h"

#include <string.h>
#include <unistd.h>

#include "message.h"
#include "unit.h"

#define KEY "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
#define UUID "5b4a3c2d-1e0f-4a5b-8c7d-9e8f7a6b5c4d"

/* Messages that nobody gets. */
static sd_bus *bus;
static int other;

static void begin(sd_bus_message *m, char type, const char *contents)
{
	g_assert_cmpint(sd_bus_message_open_container(m, type, contents), >=, 0);
}

static void close_n(sd_bus_message *m, unsigned n)
{
	while (n--)
		g_assert_cmpint(sd_bus_message_close_container(m), >=, 0);
}

/* One a{ss} of the setting vpn, from "KEY=VALUE KEY=VALUE". */
static void append_items(sd_bus_message *m, const char *name, const char *text)
{
	g_auto(GStrv) items = g_strsplit(text, " ", -1);

	begin(m, 'e', "sv");
	g_assert_cmpint(sd_bus_message_append(m, "s", name), >=, 0);
	begin(m, 'v', "a{ss}");
	begin(m, 'a', "{ss}");
	for (char **i = items; *i; i++) {
		g_auto(GStrv) part = g_strsplit(*i, "=", 2);

		if (**i)
			g_assert_cmpint(sd_bus_message_append(m, "{ss}", part[0], part[1]), >=, 0);
	}
	close_n(m, 3);
}

static void append_ip(sd_bus_message *m, const char *name, const char *method)
{
	g_assert_cmpint(sd_bus_message_append(m, "{sa{sv}}", name, 3, "method", "s", method,
					"dhcp-timeout", "i", 7, "dns-search", "as", 1, "example"),
			>=, 0);
}

/* A connection as NetworkManager sends it. */
static sd_bus_message *new_connection(
		const char *data, const char *secrets, const char *method4, const char *method6)
{
	sd_bus_message *m = message_new(bus);

	begin(m, 'a', "{sa{sv}}");
	g_assert_cmpint(sd_bus_message_append(m, "{sa{sv}}", "connection", 2, "id", "s",
					"My office", "uuid", "s", UUID),
			>=, 0);
	append_ip(m, "ipv4", method4);
	begin(m, 'e', "sa{sv}");
	g_assert_cmpint(sd_bus_message_append(m, "s", "vpn"), >=, 0);
	begin(m, 'a', "{sv}");
	g_assert_cmpint(sd_bus_message_append(m, "{sv}", "persistent", "b", 1), >=, 0);
	append_items(m, "data", data);
	append_items(m, "secrets", secrets);
	close_n(m, 2);
	append_ip(m, "ipv6", method6);
	close_n(m, 1);
	message_seal(m);
	return m;
}

static EcSvcConnection *read_connection(
		const char *data, const char *secrets, const char *method4, const char *method6)
{
	g_autoptr(sd_bus_message) m = new_connection(data, secrets, method4, method6);
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcSvcConnection *c;

	if (ec_svc_connection_read(m, &c, &error) < 0)
		g_error("%s: %s", data, error.message);
	return c;
}

static void test_connection(void)
{
	EcSvcConnection *c = read_connection(
			"remote=10.8.0.1 control=static", "key=" KEY, "manual", "disabled");

	g_assert_cmpstr(c->id, ==, "My office");
	g_assert_cmpstr(c->uuid, ==, UUID);
	g_assert_cmpstr(c->name, ==, "My-office");
	g_assert_cmpstr(c->profile->settings->key, ==, KEY);
	g_assert_cmpint(c->profile->settings->control, ==, EC_CONTROL_STATIC);
	g_assert_true(c->persistent);
	g_assert_true(c->may_fail4);
	(void)ec_svc_connection_free(c);
}

static void test_broken(void)
{
	static const struct {
		const char *data, *secrets, *part;
	} row[] = {
		{ "remote=10.8.0.1 gateway=1", "", "'gateway'" },
		{ "remote=10.8.0.1 port=0", "", "port" },
		{ "remote=10.8.0.1 name=x", "", "tunnel-name" },
		{ "remote=10.8.0.1", "key=short", "base64" },
		{ "remote=10.8.0.1", "password=x", "'password'" },
		{ "", "", "remote" },
	};

	for (size_t i = 0; i < EC_ELEMENTS(row); i++) {
		g_autoptr(sd_bus_message) m =
				new_connection(row[i].data, row[i].secrets, "auto", "auto");
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
		EcSvcConnection *c;
		int r = ec_svc_connection_read(m, &c, &error);

		unit_assert_error(r, &error, "InvalidSetting", row[i].part);
		/* For the journal. */
		g_assert_cmpstr(c->uuid, ==, UUID);
		(void)ec_svc_connection_free(c);
	}
}

static void test_needs_key(void)
{
	static const struct {
		const char *data, *secrets;
		bool needs;
	} row[] = {
		{ "remote=10.8.0.1", "", false },
		{ "remote=10.8.0.1 key-flags=0", "", false },
		{ "remote=10.8.0.1 key-flags=1", "", true },
		{ "remote=10.8.0.1 key-flags=2", "", true },
		{ "remote=10.8.0.1 key-flags=3", "", true },
		{ "remote=10.8.0.1 key-flags=4", "", false },
		{ "remote=10.8.0.1 key-flags=5", "", false },
		{ "remote=10.8.0.1 key-flags=1", "key=" KEY, false },
		{ "tunnel=x", "", false },
	};

	for (size_t i = 0; i < EC_ELEMENTS(row); i++) {
		EcSvcConnection *c = read_connection(row[i].data, row[i].secrets, "auto", "auto");

		g_assert_cmpint(ec_svc_connection_needs_key(c), ==, row[i].needs);
		(void)ec_svc_connection_free(c);
	}
}

/* Who finds addresses: NetworkManager by this method, or (NULL) nobody. */
static void test_method(void)
{
	static const struct {
		const char *data, *method4, *method6, *found4, *found6;
	} row[] = {
		{ "", "auto", "auto", "auto", "auto" },
		{ "", "manual", "manual", NULL, NULL },
		{ "", "disabled", "disabled", NULL, NULL },
		{ "", "link-local", "link-local", NULL, NULL },
		{ "", "auto", "dhcp", "auto", "dhcp" },
		{ "ipv4=none ipv6=none", "auto", "auto", NULL, NULL },
		{ "ipv4=dhcp ipv6=dhcp", "disabled", "disabled", "auto", "dhcp" },
		{ "ipv4=auto ipv6=auto", "manual", "manual", "auto", "auto" },
		{ "address=192.0.2.1/24", "auto", "auto", NULL, "auto" },
		{ "address=fd00::1/64", "auto", "auto", "auto", NULL },
		{ "address=fd00::1/64 ipv6=static", "auto", "auto", "auto", NULL },
		{ "mode=join-remote bridge=br0", "auto", "auto", NULL, NULL },
	};

	for (size_t i = 0; i < EC_ELEMENTS(row); i++) {
		g_autofree char *data = g_strdup_printf("remote=10.8.0.1 %s", row[i].data);
		EcSvcConnection *c = read_connection(data, "", row[i].method4, row[i].method6);
		const EcSettings *s = c->profile->settings;

		g_assert_cmpstr(ec_svc_connection_method(c, s, true, false), ==, row[i].found4);
		g_assert_cmpstr(ec_svc_connection_method(c, s, true, true), ==, row[i].found6);
		/* Nobody answers where there is no Ethernet. */
		g_assert_null(ec_svc_connection_method(c, s, false, false));
		g_assert_null(ec_svc_connection_method(c, s, false, true));
		(void)ec_svc_connection_free(c);
	}
}

static void test_layer2(void)
{
	EcSvcCord c = { .encapsulation = NULL };

	g_assert_true(ec_svc_cord_is_layer2(&c));
	c.encapsulation = (char *)"gretap-fou";
	g_assert_true(ec_svc_cord_is_layer2(&c));
	c.encapsulation = (char *)"tun-udp";
	g_assert_false(ec_svc_cord_is_layer2(&c));
}

/* The port's profile: what it has of a setting, as text. */
static char *setting_of(sd_bus_message *m, const char *name)
{
	g_autoptr(GString) text = g_string_new(NULL);
	int r = sd_bus_message_rewind(m, true);

	g_assert_cmpint(r, >=, 0);
	r = ec_svc_enter_setting(m, name);
	if (r == 0)
		return NULL;
	g_assert_cmpint(sd_bus_message_enter_container(m, 'a', "{sv}"), >, 0);
	while (sd_bus_message_enter_container(m, 'e', "sv") > 0) {
		const char *key, *type, *s;
		uint32_t u;

		g_assert_cmpint(sd_bus_message_read_basic(m, 's', &key), >, 0);
		g_assert_cmpint(sd_bus_message_peek_type(m, NULL, &type), >, 0);
		g_assert_cmpint(sd_bus_message_enter_container(m, 'v', type), >, 0);
		g_string_append_printf(text, "%s%s=", text->len ? " " : "", key);
		if (type[0] == 's') {
			g_assert_cmpint(sd_bus_message_read_basic(m, 's', &s), >, 0);
			g_string_append(text, s);
		} else {
			g_assert_cmpint(sd_bus_message_read_basic(m, type[0], &u), >, 0);
			g_string_append_printf(text, "%u", u);
		}
		g_assert_cmpint(sd_bus_message_exit_container(m), >, 0);
		g_assert_cmpint(sd_bus_message_exit_container(m), >, 0);
	}
	return g_string_free(g_steal_pointer(&text), false);
}

static void assert_setting(sd_bus_message *m, const char *name, const char *wanted)
{
	g_autofree char *text = setting_of(m, name);

	g_assert_cmpstr(text, ==, wanted);
}

/* NetworkManager's description of a device, and the profile that it takes for it. */
static sd_bus_message *port_of(uint32_t type, sd_bus_message *properties, EcSvcPort *p)
{
	sd_bus_message *m = message_new(bus);

	message_seal(properties);
	p->kind = ec_svc_port_kind(type);
	g_assert_nonnull(p->kind);
	p->properties = properties;
	g_assert_cmpint(ec_svc_port_append(p, m), >=, 0);
	message_seal(m);
	return m;
}

static void test_port(void)
{
	EcService s = { .connection = read_connection("remote=10.8.0.1", "", "auto", "auto") };
	EcSvcPort p = { .service = &s, .method4 = "auto", .method6 = "auto" };
	g_autoptr(sd_bus_message) tap = message_new(bus), gre = message_new(bus),
				  vxlan = message_new(bus);

	s.cord.interface = (char *)"ec-x";
	g_assert_cmpint(sd_bus_message_append(tap, "a{sv}", 4, "Mode", "s", "tap", "Owner", "x",
					(int64_t)-1, "NoPi", "b", 1, "Unknown", "b", 1),
			>=, 0);
	g_autoptr(sd_bus_message) m = port_of(16, tap, &p);
	assert_setting(m, "tun", "mode=2 pi=0");
	assert_setting(m, "connection",
			"id=My office (port) type=tun interface-name=ec-x autoconnect=0");
	/* What the connection has by hand stays with it; one of two sources is enough. */
	assert_setting(m, "ipv4", "method=auto dhcp-timeout=7 may-fail=1");
	assert_setting(m, "ipv6", "method=auto dhcp-timeout=7 may-fail=1");

	g_assert_cmpint(sd_bus_message_append(gre, "a{sv}", 7, "Mode", "u", (uint32_t)10, "Parent",
					"o", "/dev/1", "Local", "s", "10.8.0.2", "Remote", "s", "",
					"Ttl", "y", 64, "PathMtuDiscovery", "b", 0, "InputKey", "s",
					"42"),
			>=, 0);
	p.method6 = NULL;
	p.parent = (char *)"wg0";
	g_autoptr(sd_bus_message) n = port_of(17, gre, &p);
	assert_setting(n, "ip-tunnel", "mode=10 parent=wg0 local=10.8.0.2 ttl=64 input-key=42");
	assert_setting(n, "ipv4", "method=auto dhcp-timeout=7 may-fail=0");
	assert_setting(n, "ipv6", "method=link-local");
	g_autofree char *parent = ec_svc_port_parent(&p);
	g_assert_cmpstr(parent, ==, "/dev/1");

	g_assert_cmpint(sd_bus_message_append(vxlan, "a{sv}", 4, "Parent", "o", "/", "Id", "u",
					(uint32_t)42, "Group", "s", "10.8.0.1", "DstPort", "q",
					(uint16_t)4789),
			>=, 0);
	p.controller = "br0";
	p.parent = NULL;
	g_autoptr(sd_bus_message) o = port_of(19, vxlan, &p);
	assert_setting(o, "vxlan", "id=42 remote=10.8.0.1 destination-port=4789");
	assert_setting(o, "connection",
			"id=My office (port) type=vxlan interface-name=ec-x autoconnect=0 "
			"master=br0 slave-type=bridge");
	assert_setting(o, "ipv4", NULL);
	g_assert_null(ec_svc_port_parent(&p));
	g_assert_null(ec_svc_port_kind(1));
	(void)ec_svc_connection_free(s.connection);
}

/* The far end is named only where the tunnel's packets leave by the base device. */
static void test_gateway(void)
{
	static const struct {
		const char *base, *under, *remote, *type;
		uint8_t last; /* byte of the address */
	} row[] = {
		{ NULL, NULL, "10.8.0.1", "u", 255 },
		{ "eth0", NULL, "10.8.0.1", "u", 255 },
		{ "eth0", "tun0", "10.8.0.1", "u", 255 },
		{ "eth0", "tun0", "fd00::7", "u", 255 },
		{ "eth0", "eth0", "10.8.0.1", "u", 1 },
		{ "eth0", "eth0", "fd00::7", "ay", 7 },
		{ "eth0", "eth0", "", "u", 255 },
	};

	for (size_t i = 0; i < EC_ELEMENTS(row); i++) {
		EcService s = { .cord.remote = (char *)row[i].remote };
		EcSvcGateway g = {
			.service = &s, .base = (char *)row[i].base, .under = (char *)row[i].under
		};
		g_autoptr(sd_bus_message) m = message_new(bus);
		const char *type;
		const void *bytes;
		size_t n;
		uint32_t u;

		g_assert_cmpint(ec_svc_gateway_append(&g, m), >=, 0);
		message_seal(m);
		g_assert_cmpint(sd_bus_message_peek_type(m, NULL, &type), >, 0);
		g_assert_cmpstr(type, ==, row[i].type);
		g_assert_cmpint(sd_bus_message_enter_container(m, 'v', type), >, 0);
		if (g_str_equal(type, "ay")) {
			g_assert_cmpint(sd_bus_message_read_array(m, 'y', &bytes, &n), >, 0);
			g_assert_cmpuint(n, ==, 16);
			g_assert_cmpuint(((const uint8_t *)bytes)[15], ==, row[i].last);
		} else {
			g_assert_cmpint(sd_bus_message_read_basic(m, 'u', &u), >, 0);
			g_assert_cmpuint(((const uint8_t *)&u)[3], ==, row[i].last);
		}
	}
}

int main(int argc, char *argv[])
{
	g_test_init(&argc, &argv, NULL);
	bus = message_bus_new(&other);
	g_test_add_func("/nm-service/connection", test_connection);
	g_test_add_func("/nm-service/broken", test_broken);
	g_test_add_func("/nm-service/needs-key", test_needs_key);
	g_test_add_func("/nm-service/method", test_method);
	g_test_add_func("/nm-service/layer2", test_layer2);
	g_test_add_func("/nm-service/port", test_port);
	g_test_add_func("/nm-service/gateway", test_gateway);
	int r = g_test_run();
	sd_bus_close_unref(bus);
	(void)close(other);
	return r;
}
