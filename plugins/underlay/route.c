/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <string.h>

#include "underlay.h"

/*
 * The generic underlay: the kernel's own routing decides. `any` takes whatever interface the route
 * to the peer leaves by; `device:IFNAME` takes the peer only through that interface, and the tunnel
 * is bound to it. There is nothing to watch: the netlink events that the manager follows anyway
 * tell of every change. Neither says that the path is protected: only a VPN's own plugin can know
 * that.
 */

static bool serves(const char *setting)
{
	return g_str_equal(setting, "any") || g_str_has_prefix(setting, "device:");
}

static void learn(EcUnderlay *u, const char *device, bool up, uint32_t mtu)
{
	g_strlcpy(u->device, device, sizeof(u->device));
	u->up = up;
	u->mtu = mtu;
}

static int path(EcUnderlay *u, const EcFlow *flow, EcPath *ret, sd_bus_error *ret_why)
{
	const char *device = g_str_has_prefix(u->setting, "device:") ? u->name : NULL;
	char to[INET6_ADDRSTRLEN];
	g_auto(EcLink) link = { 0 };
	EcRoute route;
	int r;

	(void)ec_address_to_string(&flow->remote, to);
	if (device) {
		learn(u, device, false, 0);
		r = ec_kernel_link_by_name(u->host.kernel, device, &link, ret_why);
		if (r < 0)
			return r;
		if (r == 0 || !(link.flags & IFF_UP)) {
			(void)ec_error(ret_why, EC_ERROR_NO_UNDERLAY,
					r ? "interface %s is down" : "there is no interface %s",
					device);
			return 0;
		}
		learn(u, device, true, link.mtu);
	}
	r = ec_kernel_route_get(
			u->host.kernel, &flow->remote, &flow->local, flow->fwmark, &route, ret_why);
	if (r <= 0)
		return r;
	int wanted = link.ifindex;
	if (!device || route.ifindex != wanted) {
		ec_link_done(&link);
		r = ec_kernel_link_by_index(u->host.kernel, route.ifindex, &link, ret_why);
		if (r <= 0)
			return r;
	}
	if (device && route.ifindex != wanted) {
		(void)ec_error(ret_why, EC_ERROR_NO_UNDERLAY,
				"the route to %s leaves by %s, not by %s", to, link.name, device);
		return 0;
	}
	ret->local = route.source;
	ret->ifindex = route.ifindex;
	g_strlcpy(ret->device, link.name, sizeof(ret->device));
	ret->bind = device;
	ret->mtu = route.mtu ? route.mtu : link.mtu;
	learn(u, link.name, true, ret->mtu);
	return 1;
}

const EcUnderlayKind ec_underlay_route = {
	.name = "route",
	.size = sizeof(EcUnderlay),
	.serves = serves,
	.path = path,
};
