/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <net/if_arp.h>

#include "underlay.h"
#include "underlay/holder.h"

/*
 * Other VPNs that are interfaces: known by the program that holds their TUN or TAP, or PPP under a
 * VPN. Nothing else is known of them; the netlink events tell of every change.
 *
 * underlay=any and device:IFNAME, which need no VPN, are the core's; their objects are of this
 * kind.
 */

typedef struct Route {
	EcSource s;
	EcHolders *holders;
} Route;

/* PPP is also what DSL and modems speak, and encrypts nothing. It is a VPN if one of these runs; of
 * those, the first two encrypt by themselves. */
static const char *const ppp_programs[] = { "openfortivpn", "sstpc", "nm-l2tp-service", "xl2tpd",
	"nm-pptp-service", "pptp", NULL };
#define PPP_ENCRYPTING 2

static bool recognise_ppp(const EcLink *link, EcLook *look)
{
	const char *program = ec_vpn_program_runs(ppp_programs);

	if (!program)
		return false;
	(void)g_snprintf(look->title, sizeof(look->title), "PPP on %s", link->name);
	for (int i = 0; i < PPP_ENCRYPTING; i++)
		look->protect |= program == ppp_programs[i];
	ec_look_add(look, "program", "%s", program);
	return true;
}

static bool recognise_tun(EcSource *s, const EcLink *link, EcLook *look)
{
	const EcVpnProgram *program = ec_holders_find(((Route *)s)->holders, link);

	/* The other kinds' programs, too: a TAP of OpenVPN's is no openvpn, but a VPN. */
	if (!program)
		return false;
	(void)g_snprintf(look->title, sizeof(look->title), "%s on %s", program->title, link->name);
	look->protect = true;
	ec_look_add(look, "program", "%s", program->comm);
	return true;
}

static bool recognise(EcSource *s, const EcLink *link, EcLook *look)
{
	bool ppp = link->type == ARPHRD_PPP;

	if (ppp ? !recognise_ppp(link, look) : !recognise_tun(s, link, look))
		return false;
	look->up = (link->flags & (IFF_UP | IFF_RUNNING)) == (IFF_UP | IFF_RUNNING);
	look->mtu = link->mtu;
	return true;
}

/* A flow that nobody else wants. One that leaves by a stranger's TUN is worth a sentence of its
 * own: the user may well know that this is a VPN. */
static int flow(EcSource *s, const EcFlow *flow, EcPath *path, char title[static 96],
		char name[static 96], sd_bus_error *ret_why)
{
	g_auto(EcLink) link = { 0 };
	char holder[32], remote[INET6_ADDRSTRLEN];

	if ((ret_why && sd_bus_error_is_set(ret_why)) ||
			ec_kernel_link_by_index(s->kernel, path->ifindex, &link, NULL) <= 0 ||
			!ec_tun_mode(&link) || link.group == EC_LINK_GROUP ||
			ec_holders_find(((Route *)s)->holders, &link))
		return -ENOENT;
	(void)ec_address_to_string(&flow->remote, remote);
	if (ec_tun_holder(link.name, holder) && ec_text_is_clean(holder))
		(void)ec_error(ret_why, EC_ERROR_NOT_PROTECTED,
				"the route to %s leaves by %s, which belongs to the program %s, no VPN "
				"that ethercord knows; if it is one, set underlay=device:%s",
				remote, link.name, holder, link.name);
	else
		(void)ec_error(ret_why, EC_ERROR_NOT_PROTECTED,
				"the route to %s leaves by %s, and which program that belongs to "
				"cannot be told for sure; if it is a VPN, set underlay=device:%s",
				remote, link.name, link.name);
	return 0;
}

static int watch(EcSource *s, sd_bus_error *ret_error)
{
	((Route *)s)->holders = ec_holders_new();
	return 0;
}

static void done(EcSource *s)
{
	Route *r = (Route *)s;

	r->holders = ec_holders_free(r->holders);
}

const EcUnderlayKind ec_underlay_route = {
	.name = "route",
	.size = sizeof(Route),
	.watch = watch,
	.done = done,
	.recognise = recognise,
	.flow = flow,
};
