/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl.h"

#include <stdio.h>

/* Commands of iproute2 6.1 that make the same link. */

static void print_gre_options(const CtlExport *e)
{
	const EcSettings *s = e->settings;

	if (e->kind->id && s->id)
		(void)printf(" %s %u", e->kind->id, s->id);
	if (e->ipv6) {
		(void)printf(" hoplimit %u encaplimit none", s->ttl);
		if (s->dscp)
			(void)printf(" tclass 0x%02x", s->dscp << 2);
	} else {
		(void)printf(" ttl %u", s->ttl);
		if (s->dscp)
			(void)printf(" tos 0x%02x", s->dscp << 2);
		(void)fputs(e->fragment ? " nopmtudisc" : " pmtudisc", stdout);
		if (e->fragment && e->kind->id)
			(void)fputs(" ignore-df", stdout);
	}
	if (s->fwmark)
		(void)printf(" fwmark 0x%x", s->fwmark);
	/* Sequence numbers keep the far end's GRO from merging what its FOU would then drop. */
	if (e->kind->fou)
		(void)printf(" oseq encap fou encap-sport %u encap-dport %u%s", s->data_port,
				s->remote_data_port, e->ipv6 ? " encap-udp6-csum" : "");
}

static void print_vxlan_options(const CtlExport *e)
{
	const EcSettings *s = e->settings;

	(void)printf(" id %u dstport %u nolearning ttl %u", s->id, s->remote_data_port, s->ttl);
	if (s->dscp)
		(void)printf(" tos 0x%02x", s->dscp << 2);
	if (!e->ipv6)
		(void)fputs(" df unset", stdout);
}

static void print_link(const CtlExport *e)
{
	const EcSettings *s = e->settings;

	(void)printf("ip link add name %s", s->interface);
	if (e->mtu)
		(void)printf(" mtu %u", e->mtu);
	if (s->mac)
		(void)printf(" address %s", s->mac);
	(void)printf(" type %s", e->ipv6 ? e->kind->kind6 : e->kind->kind4);
	if (!e->kind->id)
		(void)fputs(e->ipv6 ? " mode any" : " mode ipip", stdout);
	if (s->local)
		(void)printf(" local %s", s->local);
	(void)printf(" remote %s", s->remote[0]);
	if (e->device)
		(void)printf(" dev %s", e->device);
	if (e->kind->vxlan)
		print_vxlan_options(e);
	else
		print_gre_options(e);
	(void)fputc('\n', stdout);
}

static void print_bridge(const CtlExport *e)
{
	const EcSettings *s = e->settings;

	if (e->peer) {
		if (s->mode != EC_MODE_POINT_TO_POINT)
			(void)printf("# if this end is bridged: ip link set dev %s master BRIDGE\n",
					s->interface);
		return;
	}
	if (!s->bridge)
		return;
	if (s->bridge_create)
		(void)printf("ip link show dev %s >/dev/null 2>&1 || ip link add name %s type "
			     "bridge\n"
			     "ip link set dev %s up\n",
				s->bridge, s->bridge, s->bridge);
	(void)printf("ip link set dev %s master %s\n", s->interface, s->bridge);
	if (s->attach)
		(void)printf("ip link set dev %s master %s\nip link set dev %s up\n", s->attach,
				s->bridge, s->attach);
}

int ctl_export_ip(const CtlExport *e)
{
	const EcSettings *s = e->settings;

	if (e->kind->fou)
		(void)printf("modprobe fou\nip fou add port %u ipproto 47%s\n", s->data_port,
				e->ipv6 ? " -6" : "");
	print_link(e);
	print_bridge(e);
	for (char **a = s->address; a && *a; a++)
		(void)printf("ip address add %s dev %s\n", *a, s->interface);
	(void)printf("ip link set dev %s up\n", s->interface);
	return CTL_OK;
}
