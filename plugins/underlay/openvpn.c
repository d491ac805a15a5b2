/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <linux/if_tun.h>

#include "underlay.h"
#include "underlay/holder.h"

/*
 * OpenVPN: a TUN that a process called openvpn holds, or an interface of its kernel module (data
 * channel offload), which has a kind of its own. Netlink tells of all that there is to see: an
 * OpenVPN that ends takes its interface with it, and a persistent one then has no carrier.
 */

/* OpenVPN puts 52 bytes around a packet (IPv4, UDP, AES-256-GCM) and fragments what then exceeds
 * the usual 1500 bytes of its own path (underlay.md §5). */
#define OVERHEAD 52
#define WHOLE_MTU (1500 - OVERHEAD)

typedef struct OpenVpn {
	EcSource s;
	EcHolders *holders;
} OpenVpn;

static bool is_offloaded(const EcLink *link)
{
	static const char *const kinds[] = { "ovpn", "ovpn-dco", "ovpn-dco-v2", NULL };

	return g_strv_contains(kinds, link->kind);
}

static bool recognise(EcSource *s, const EcLink *link, EcLook *look)
{
	const OpenVpn *o = (OpenVpn *)s;

	if (!is_offloaded(link)) {
		const EcVpnProgram *program = ec_tun_mode(link) == IFF_TUN
							      ? ec_holders_find(o->holders, link)
							      : NULL;
		if (!program || !g_str_equal(program->kind, s->kind->name))
			return false;
	}
	(void)g_snprintf(look->title, sizeof(look->title), "OpenVPN on %s", link->name);
	look->protect = true;
	look->up = (link->flags & (IFF_UP | IFF_RUNNING)) == (IFF_UP | IFF_RUNNING);
	look->mtu = MIN(link->mtu, WHOLE_MTU);
	ec_look_add(look, "tun-mtu", "%u", link->mtu);
	return true;
}

static int watch(EcSource *s, sd_bus_error *ret_error)
{
	((OpenVpn *)s)->holders = ec_holders_new();
	return 0;
}

static void done(EcSource *s)
{
	OpenVpn *o = (OpenVpn *)s;

	o->holders = ec_holders_free(o->holders);
}

const EcUnderlayKind ec_underlay_openvpn = {
	.name = "openvpn",
	.size = sizeof(OpenVpn),
	.watch = watch,
	.done = done,
	.recognise = recognise,
};
