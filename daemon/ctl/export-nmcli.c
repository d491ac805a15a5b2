/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl.h"

#include <stdio.h>

/* Commands for NetworkManager 1.42; what it cannot express stands in a comment. */

static void print_ip(const EcSettings *s)
{
	static const struct {
		const char *version;
		bool six;
	} versions[] = { { "ipv4", false }, { "ipv6", true } };

	for (size_t i = 0; i < EC_ELEMENTS(versions); i++) {
		g_autoptr(GString) list = g_string_new(NULL);

		for (char **a = s->address; a && *a; a++) {
			if (!strchr(*a, ':') == versions[i].six)
				continue;
			g_string_append_printf(list, "%s%s", list->len ? "," : "", *a);
		}
		if (list->len)
			(void)printf(" %s.method manual %s.addresses %s", versions[i].version,
					versions[i].version, list->str);
		else
			(void)printf(" %s.method %s", versions[i].version,
					versions[i].six ? "link-local" : "disabled");
	}
}

static void print_vxlan(const CtlExport *e)
{
	const EcSettings *s = e->settings;

	(void)printf(" id %u remote %s", s->id, s->remote[0]);
	if (s->local)
		(void)printf(" local %s", s->local);
	(void)printf(" destination-port %u vxlan.learning no vxlan.ttl %u", s->remote_data_port,
			s->ttl);
	if (s->dscp)
		(void)printf(" vxlan.tos %u", s->dscp << 2);
	if (e->mtu)
		(void)printf(" 802-3-ethernet.mtu %u", e->mtu);
}

static void print_ip_tunnel(const CtlExport *e)
{
	const EcSettings *s = e->settings;
	const char *mode = e->ipv6 ? e->kind->kind6 : e->kind->kind4;

	(void)printf(" mode %s remote %s", e->ipv6 && !e->kind->id ? "ip6ip6" : mode, s->remote[0]);
	if (s->local)
		(void)printf(" local %s", s->local);
	if (e->device)
		(void)printf(" dev %s", e->device);
	if (e->kind->id && s->id)
		(void)printf(" ip-tunnel.input-key %u ip-tunnel.output-key %u", s->id, s->id);
	if (e->fragment)
		(void)fputs(" ip-tunnel.path-mtu-discovery no", stdout);
	else
		(void)printf(" ip-tunnel.ttl %u", s->ttl);
	if (s->dscp)
		(void)printf(" ip-tunnel.tos %u", s->dscp << 2);
	if (e->ipv6 && !e->kind->id)
		(void)fputs(" ip-tunnel.flags ip6-ign-encap-limit", stdout);
	if (e->mtu)
		(void)printf(" ip-tunnel.mtu %u", e->mtu);
}

static void print_missing(const CtlExport *e)
{
	const EcSettings *s = e->settings;

	if (e->kind->vxlan)
		return;
	if (e->fragment && e->kind->id)
		(void)fputs("# NetworkManager 1.42 cannot set ignore-df: packets with \"do not "
			    "fragment\" that are\n"
			    "# larger than the path are lost.\n",
				stdout);
	if (e->fragment)
		(void)printf("# NetworkManager 1.42 cannot set ttl (%u) together with "
			     "path-mtu-discovery=no.\n",
				s->ttl);
	if (s->fwmark)
		(void)printf("# NetworkManager 1.42 cannot set the mark 0x%x of the outer "
			     "packets.\n",
				s->fwmark);
	if (e->ipv6 && e->kind->id)
		(void)fputs("# NetworkManager 1.42 cannot leave out the encapsulation limit: a header "
			    "of 8 bytes more.\n",
				stdout);
	if (e->ipv6 && !e->kind->id)
		(void)fputs("# NetworkManager 1.42 cannot set mode any: IPv6 crosses, IPv4 does "
			    "not.\n",
				stdout);
}

int ctl_export_nmcli(const CtlExport *e)
{
	const EcSettings *s = e->settings;

	if (e->kind->fou)
		return ctl_complain(CTL_ERROR,
				"NetworkManager cannot make gretap-fou; --as=ip and --as=networkd "
				"can");
	print_missing(e);
	if (s->bridge && s->bridge_create && !e->peer)
		(void)printf("nmcli connection add type bridge con-name %s ifname %s ipv4.method "
			     "disabled ipv6.method disabled\n",
				s->bridge, s->bridge);
	(void)printf("nmcli connection add type %s con-name %s ifname %s",
			e->kind->vxlan ? "vxlan" : "ip-tunnel", s->name, s->interface);
	if (e->kind->vxlan)
		print_vxlan(e);
	else
		print_ip_tunnel(e);
	if (s->mac)
		(void)printf(" 802-3-ethernet.cloned-mac-address %s", s->mac);
	if (s->bridge && !e->peer)
		(void)printf(" connection.master %s connection.slave-type bridge", s->bridge);
	else
		print_ip(s);
	(void)fputc('\n', stdout);
	if (s->attach && !e->peer)
		(void)printf("nmcli connection add type ethernet con-name %s-%s ifname %s "
			     "connection.master %s connection.slave-type bridge\n",
				s->bridge, s->attach, s->attach, s->bridge);
	if (e->peer && s->mode != EC_MODE_POINT_TO_POINT)
		(void)printf("# if this end is bridged: nmcli connection modify %s "
			     "connection.master BRIDGE connection.slave-type bridge\n",
				s->name);
	return CTL_OK;
}
