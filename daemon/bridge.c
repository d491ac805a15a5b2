/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "bridge.h"

#include <errno.h>
#include <linux/if_arp.h>

static int make_bridge(
		EcKernel *k, const char *name, const uint8_t mac[static 6], sd_bus_error *ret_error)
{
	const EcLinkChange make = {
		.name = name, .kind = "bridge", .mac = mac, .group = EC_LINK_GROUP
	};

	return ec_kernel_link_set(k, &make, ret_error);
}

/* Tag and bring up a bridge of ours; a crash may have come between. */
static int finish_bridge(EcKernel *k, const EcLink *link, sd_bus_error *ret_error)
{
	const bool up = true;
	const EcLinkChange change = {
		.ifindex = link->ifindex, .alias = EC_ALIAS_BRIDGE, .up = &up
	};

	if (g_str_equal(link->alias, EC_ALIAS_BRIDGE) && (link->flags & IFF_UP))
		return 0;
	return ec_kernel_link_set(k, &change, ret_error);
}

int ec_bridge_ensure(EcKernel *k, const EcSettings *settings, const uint8_t mac[static 6],
		EcLink *ret, sd_bus_error *ret_error)
{
	const char *name = settings->bridge;
	g_auto(EcLink) link = { 0 };
	int r = ec_kernel_link_by_name(k, name, &link, ret_error);

	if (r == 0 && settings->bridge_create) {
		r = make_bridge(k, name, mac, ret_error);
		if (r >= 0)
			r = ec_kernel_link_by_name(k, name, &link, ret_error);
	}
	if (r < 0)
		return r;
	if (r == 0)
		return ec_error(ret_error, EC_ERROR_NO_BRIDGE,
				"there is no bridge %s; make it, or set bridge-create=yes", name);
	if (!g_str_equal(link.kind, "bridge"))
		return ec_error(ret_error, EC_ERROR_NO_BRIDGE, "interface %s is no bridge but %s",
				name, link.kind[0] ? link.kind : "hardware");
	bool half_made = link.group == EC_LINK_GROUP && !link.alias[0];
	if (half_made || g_str_equal(link.alias, EC_ALIAS_BRIDGE)) {
		r = finish_bridge(k, &link, ret_error);
		if (r < 0)
			return r;
	}
	*ret = link;
	link.data = NULL;
	return 0;
}

/* Does the default route leave here? The VPN itself then most likely does, too. The addresses are
 * of documentation prefixes (RFC 5737, RFC 3849): nothing is sent. */
static bool carries_default_route(EcKernel *k, int ifindex)
{
	static const char *const somewhere[] = { "192.0.2.1", "2001:db8::1" };

	for (size_t i = 0; i < EC_ELEMENTS(somewhere); i++) {
		EcFlow flow = { 0 };
		EcRoute route;

		if (ec_address_from_string(somewhere[i], &flow.remote) == 0 &&
				ec_kernel_route_get(k, &flow, &route, NULL) > 0 &&
				route.ifindex == ifindex)
			return true;
	}
	return false;
}

static int check_attach(
		EcKernel *k, const EcLink *link, const EcPath *path, sd_bus_error *ret_error)
{
	g_auto(EcLink) master = { 0 };

	if (link->type != ARPHRD_ETHER || (link->flags & IFF_LOOPBACK))
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"attach: interface %s is not Ethernet", link->name);
	if (link->master) {
		bool known = ec_kernel_link_by_index(k, link->master, &master, NULL) > 0;
		return ec_error(ret_error, EC_ERROR_BUSY,
				"attach: interface %s is a port of %s already; take it off there first",
				link->name, known ? master.name : "another interface");
	}
	if (ec_kernel_wifi_refuses_bridge(k, link->ifindex))
		return ec_error(ret_error, EC_ERROR_NOT_SUPPORTED,
				"attach: interface %s is Wi-Fi, which cannot be a bridge port; use "
				"mode=point-to-point, or a wired interface",
				link->name);
	if (link->ifindex == path->ifindex)
		return ec_error(ret_error, EC_ERROR_LOOP,
				"attach: interface %s carries the route to the peer; in the bridge it "
				"would cut the tunnel off",
				link->name);
	if (carries_default_route(k, link->ifindex))
		return ec_error(ret_error, EC_ERROR_LOOP,
				"attach: interface %s carries the default route; in the bridge it "
				"would cut this machine off; move its addresses to the bridge first",
				link->name);
	return 0;
}

int ec_bridge_attach(EcKernel *k, const EcSettings *settings, const EcLink *bridge,
		const EcPath *path, sd_bus_error *ret_error)
{
	const bool up = true;
	g_auto(EcLink) link = { 0 };
	int r = ec_kernel_link_by_name(k, settings->attach, &link, ret_error);

	if (r < 0)
		return r;
	if (r == 0)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"attach: there is no interface %s", settings->attach);
	if (link.master == bridge->ifindex && (link.flags & IFF_UP))
		return 0;
	if (link.master != bridge->ifindex) {
		r = check_attach(k, &link, path, ret_error);
		if (r < 0)
			return r;
	}
	const EcLinkChange change = {
		.ifindex = link.ifindex, .master = &bridge->ifindex, .up = &up
	};
	r = ec_kernel_link_set(k, &change, ret_error);
	return r < 0 ? r : link.master != bridge->ifindex;
}

void ec_bridge_detach(EcKernel *k, const char *attach, const char *bridge)
{
	g_auto(EcLink) link = { 0 }, master = { 0 };
	const int none = 0;

	if (ec_kernel_link_by_name(k, attach, &link, NULL) > 0 &&
			ec_kernel_link_by_name(k, bridge, &master, NULL) > 0 &&
			link.master == master.ifindex) {
		const EcLinkChange change = { .ifindex = link.ifindex, .master = &none };
		(void)ec_kernel_link_set(k, &change, NULL);
	}
}
