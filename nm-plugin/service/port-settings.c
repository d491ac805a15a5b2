/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "svc.h"

#include <errno.h>
#include <string.h>

/*
 * NetworkManager takes a profile for a device that it did not make only where each parameter is the
 * device's. So the parameters are not ours but those that it reads from the device itself.
 */

typedef struct EcSvcPortField {
	const char *property; /* of the device */
	char type;            /* of the property */
	const char *key;      /* of the setting; the type is 'u' for all numbers */
} EcSvcPortField;

static const EcSvcPortField tun[] = {
	{ "Mode", 's', "mode" },
	{ "Owner", 'x', "owner" },
	{ "Group", 'x', "group" },
	{ "VnetHdr", 'b', "vnet-hdr" },
	{ "MultiQueue", 'b', "multi-queue" },
	{ "NoPi", 'b', "pi" },
	{ NULL },
};

static const EcSvcPortField ip_tunnel[] = {
	{ "Mode", 'u', "mode" },
	{ "Parent", 'o', "parent" },
	{ "Local", 's', "local" },
	{ "Remote", 's', "remote" },
	{ "Ttl", 'y', "ttl" },
	{ "Tos", 'y', "tos" },
	{ "PathMtuDiscovery", 'b', "path-mtu-discovery" },
	{ "InputKey", 's', "input-key" },
	{ "OutputKey", 's', "output-key" },
	{ "EncapsulationLimit", 'y', "encapsulation-limit" },
	{ "FlowLabel", 'u', "flow-label" },
	{ "FwMark", 'u', "fwmark" },
	{ NULL },
};

static const EcSvcPortField vxlan[] = {
	{ "Parent", 'o', "parent" },
	{ "Id", 'u', "id" },
	{ "Group", 's', "remote" },
	{ "Local", 's', "local" },
	{ "Tos", 'y', "tos" },
	{ "Ttl", 'y', "ttl" },
	{ "Learning", 'b', "learning" },
	{ "Ageing", 'u', "ageing" },
	{ "Limit", 'u', "limit" },
	{ "DstPort", 'q', "destination-port" },
	{ "SrcPortMin", 'q', "source-port-min" },
	{ "SrcPortMax", 'q', "source-port-max" },
	{ "Proxy", 'b', "proxy" },
	{ "Rsc", 'b', "rsc" },
	{ "L2miss", 'b', "l2-miss" },
	{ "L3miss", 'b', "l3-miss" },
	{ NULL },
};

static const EcSvcPortKind kinds[] = {
	{ 16, EC_SVC_NM_DEVICE ".Tun", "tun", tun },
	{ 17, EC_SVC_NM_DEVICE ".IPTunnel", "ip-tunnel", ip_tunnel },
	{ 19, EC_SVC_NM_DEVICE ".Vxlan", "vxlan", vxlan },
};

const EcSvcPortKind *ec_svc_port_kind(uint32_t type)
{
	for (size_t i = 0; i < EC_ELEMENTS(kinds); i++) {
		if (kinds[i].type == type)
			return &kinds[i];
	}
	return NULL;
}

char *ec_svc_port_parent(const EcSvcPort *p)
{
	static const EcSvcProperty table[] = { { "Parent", "o", 0 }, { NULL } };
	g_autofree char *path = NULL;

	if (sd_bus_message_rewind(p->properties, true) < 0 ||
			ec_svc_read_properties(p->properties, table, &path) < 0)
		return NULL;
	return path && !g_str_equal(path, "/") ? g_steal_pointer(&path) : NULL;
}

static int append_text(sd_bus_message *m, const char *key, const char *text)
{
	return text && *text ? sd_bus_message_append(m, "{sv}", key, "s", text) : 0;
}

/* The user or group that may use a TUN device; -1: none in particular. */
static int append_id(sd_bus_message *m, const char *key, int64_t id)
{
	g_autofree char *text = g_strdup_printf("%" G_GINT64_FORMAT, id);

	return id < 0 ? 0 : append_text(m, key, text);
}

static int append_flag(sd_bus_message *m, const EcSvcPortField *f, int value)
{
	/* The one property that says the opposite of its setting. */
	bool yes = g_str_equal(f->property, "NoPi") ? !value : value;

	return sd_bus_message_append(m, "{sv}", f->key, "b", (int)yes);
}

/* NMSettingTunMode */
static int append_tun_mode(sd_bus_message *m, const char *mode)
{
	return sd_bus_message_append(m, "{sv}", "mode", "u", g_str_equal(mode, "tap") ? 2 : 1);
}

static int append_value(const EcSvcPort *p, const EcSvcPortField *f, sd_bus_message *from,
		sd_bus_message *m)
{
	union {
		uint8_t y;
		uint16_t q;
		uint32_t u;
		int64_t x;
		int b;
		const char *s;
	} value;
	int r = sd_bus_message_read_basic(from, f->type, &value);

	if (r < 0)
		return r;
	switch (f->type) {
	case 'o':
		return append_text(m, f->key, p->parent);
	case 's':
		return p->kind->fields == tun ? append_tun_mode(m, value.s)
					      : append_text(m, f->key, value.s);
	case 'b':
		return append_flag(m, f, value.b);
	case 'x':
		return append_id(m, f->key, value.x);
	case 'y':
		return sd_bus_message_append(m, "{sv}", f->key, "u", (uint32_t)value.y);
	case 'q':
		return sd_bus_message_append(m, "{sv}", f->key, "u", (uint32_t)value.q);
	default:
		return sd_bus_message_append(m, "{sv}", f->key, "u", value.u);
	}
}

/* Of an IPv6 tunnel NetworkManager reports no path MTU discovery, does not look at it in a profile,
 * and takes no profile with a TTL without it. An IPv4 tunnel with a TTL always has it. */
static bool is_left_out(const EcSvcPortField *f, uint8_t ttl)
{
	return ttl && g_str_equal(f->property, "PathMtuDiscovery");
}

static int append_field(const EcSvcPort *p, uint8_t ttl, sd_bus_message *from, sd_bus_message *m)
{
	const EcSvcPortField *f = p->kind->fields;
	const char *name, *type;
	char container;
	int r = sd_bus_message_read_basic(from, 's', &name);

	if (r >= 0)
		r = sd_bus_message_peek_type(from, &container, &type);
	if (r < 0)
		return r;
	while (f->property && !g_str_equal(f->property, name))
		f++;
	if (!f->property || type[0] != f->type || is_left_out(f, ttl))
		return sd_bus_message_skip(from, "v");
	r = sd_bus_message_enter_container(from, 'v', type);
	if (r >= 0)
		r = append_value(p, f, from, m);
	return r < 0 ? r : sd_bus_message_exit_container(from);
}

static int append_device(const EcSvcPort *p, sd_bus_message *m)
{
	static const EcSvcProperty table[] = { { "Ttl", "y", 0 }, { NULL } };
	sd_bus_message *from = p->properties;
	uint8_t ttl = 0;
	int r = sd_bus_message_rewind(from, true);

	if (r >= 0)
		r = ec_svc_read_properties(from, table, &ttl);
	if (r >= 0)
		r = sd_bus_message_rewind(from, true);
	if (r >= 0)
		r = sd_bus_message_enter_container(from, 'a', "{sv}");
	while (r >= 0 && (r = sd_bus_message_enter_container(from, 'e', "sv")) > 0) {
		r = append_field(p, ttl, from, m);
		if (r >= 0)
			r = sd_bus_message_exit_container(from);
	}
	return r;
}

static int append_connection(const EcSvcPort *p, sd_bus_message *m)
{
	const EcSvcConnection *c = p->service->connection;
	g_autofree char *id = g_strdup_printf("%s (port)", c->id);
	int r = sd_bus_message_append(m, "{sv}{sv}{sv}{sv}", "id", "s", id, "type", "s",
			p->kind->setting, "interface-name", "s", p->service->cord.interface,
			"autoconnect", "b", (int)false);

	if (r >= 0)
		r = append_text(m, "zone", c->zone);
	if (r >= 0 && p->controller)
		r = sd_bus_message_append(m, "{sv}{sv}", "master", "s", p->controller, "slave-type",
				"s", "bridge");
	return r;
}

/* Addresses, routes and names that the profile has by hand are put on by NetworkManager with the
 * VPN connection itself. */
static int append_ip4(const EcSvcPort *p, sd_bus_message *m)
{
	static const char *const copied[] = { "dhcp-client-id", "dhcp-fqdn", "dhcp-hostname",
		"dhcp-hostname-flags", "dhcp-iaid", "dhcp-reject-servers", "dhcp-send-hostname",
		"dhcp-timeout", "dhcp-vendor-class-identifier", "dns-priority", "ignore-auto-dns",
		"ignore-auto-routes", "never-default", "route-metric", "route-table",
		"required-timeout", NULL };
	const EcSvcConnection *c = p->service->connection;
	/* Where IPv6 comes by itself, too, one of the two is enough if the profile says so. */
	bool may_fail = p->method6 && c->may_fail4;
	int r = sd_bus_message_append(
			m, "{sv}", "method", "s", p->method4 ? p->method4 : "disabled");

	if (r < 0 || !p->method4)
		return r;
	r = ec_svc_connection_copy(c, "ipv4", copied, m);
	return r < 0 ? r : sd_bus_message_append(m, "{sv}", "may-fail", "b", (int)may_fail);
}

static int append_ip6(const EcSvcPort *p, sd_bus_message *m)
{
	static const char *const copied[] = { "addr-gen-mode", "dhcp-duid", "dhcp-hostname",
		"dhcp-hostname-flags", "dhcp-iaid", "dhcp-send-hostname", "dhcp-timeout",
		"dns-priority", "ignore-auto-dns", "ignore-auto-routes", "ip6-privacy",
		"never-default", "ra-timeout", "route-metric", "route-table", "token",
		"required-timeout", "mtu", NULL };
	const EcSvcConnection *c = p->service->connection;
	const char *otherwise = g_strcmp0(c->method6, "disabled") == 0 ? "disabled" : "link-local";
	int r = sd_bus_message_append(
			m, "{sv}", "method", "s", p->method6 ? p->method6 : otherwise);

	if (r < 0 || !p->method6)
		return r;
	r = ec_svc_connection_copy(c, "ipv6", copied, m);
	/* A router may begin to speak at any time. */
	if (r >= 0 && p->optional && !c->ra_timeout)
		r = sd_bus_message_append(m, "{sv}", "ra-timeout", "i", INT32_MAX);
	return r < 0 ? r : sd_bus_message_append(m, "{sv}", "may-fail", "b", (int)true);
}

int ec_svc_port_append(const EcSvcPort *p, sd_bus_message *m)
{
	const struct {
		const char *name;
		int (*append)(const EcSvcPort *, sd_bus_message *);
		bool wanted;
	} setting[] = {
		{ "connection", append_connection, true },
		{ p->kind->setting, append_device, true },
		{ "ipv4", append_ip4, !p->controller },
		{ "ipv6", append_ip6, !p->controller },
	};
	int r = sd_bus_message_open_container(m, 'a', "{sa{sv}}");

	for (size_t i = 0; r >= 0 && i < EC_ELEMENTS(setting); i++) {
		if (!setting[i].wanted)
			continue;
		r = sd_bus_message_open_container(m, 'e', "sa{sv}");
		if (r >= 0)
			r = sd_bus_message_append_basic(m, 's', setting[i].name);
		if (r >= 0)
			r = sd_bus_message_open_container(m, 'a', "{sv}");
		if (r >= 0)
			r = setting[i].append(p, m);
		if (r >= 0)
			r = sd_bus_message_close_container(m);
		if (r >= 0)
			r = sd_bus_message_close_container(m);
	}
	return r < 0 ? r : sd_bus_message_close_container(m);
}
