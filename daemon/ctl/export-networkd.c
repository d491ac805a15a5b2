/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl.h"

#include <stdio.h>

/* Files for systemd-networkd, each under a comment with its path. */

static void print_file(const char *name, const char *suffix, const char *kind)
{
	static bool again;

	(void)printf("%s# /etc/systemd/network/50-%s%s.%s\n", again ? "\n" : "", name, suffix,
			kind);
	again = true;
}

static void print_tunnel_section(const CtlExport *e)
{
	const EcSettings *s = e->settings;

	(void)printf("\n[Tunnel]\nIndependent=yes\nRemote=%s\n", s->remote[0]);
	if (s->local)
		(void)printf("Local=%s\n", s->local);
	if (e->ipv6 && !e->kind->id)
		(void)fputs("Mode=any\n", stdout);
	if (e->kind->id && s->id)
		(void)printf("Key=%u\n", s->id);
	(void)printf("TTL=%u\n", s->ttl);
	if (s->dscp)
		(void)printf("TOS=%u\n", s->dscp << 2);
	if (e->ipv6)
		(void)fputs("EncapsulationLimit=none\n", stdout);
	else
		(void)printf("DiscoverPathMTU=%s\n", e->fragment ? "no" : "yes");
	if (e->fragment && e->kind->id)
		(void)fputs("# IgnoreDontFragment= needs systemd 254.\nIgnoreDontFragment=yes\n",
				stdout);
	if (s->fwmark)
		(void)printf("# networkd cannot set the mark 0x%x of the outer packets.\n",
				s->fwmark);
	if (e->kind->fou)
		(void)printf("# networkd cannot number packets in one direction only (ip: oseq); a\n"
			     "# far end that merges them by GRO drops them, unless GRO is off "
			     "there.\n"
			     "FooOverUDP=yes\nFOUSourcePort=%u\nFOUDestinationPort=%u\n",
				s->data_port, s->remote_data_port);
}

static void print_vxlan_section(const CtlExport *e)
{
	const EcSettings *s = e->settings;

	(void)printf("\n[VXLAN]\nIndependent=yes\nVNI=%u\nRemote=%s\n", s->id, s->remote[0]);
	if (s->local)
		(void)printf("Local=%s\n", s->local);
	(void)printf("DestinationPort=%u\nMacLearning=no\nTTL=%u\n", s->remote_data_port, s->ttl);
	if (s->dscp)
		(void)printf("TOS=%u\n", s->dscp << 2);
	if (!e->ipv6)
		(void)fputs("UDPChecksum=yes\nIPDoNotFragment=no\n", stdout);
}

static void print_netdev(const CtlExport *e)
{
	const EcSettings *s = e->settings;

	print_file(s->interface, "", "netdev");
	(void)printf("[NetDev]\nName=%s\nKind=%s\n", s->interface,
			e->ipv6 ? e->kind->kind6 : e->kind->kind4);
	if (e->mtu)
		(void)printf("MTUBytes=%u\n", e->mtu);
	if (s->mac)
		(void)printf("MACAddress=%s\n", s->mac);
	if (e->kind->vxlan)
		print_vxlan_section(e);
	else
		print_tunnel_section(e);
	if (e->device)
		(void)printf("# To bind it to %s, take Independent= out and put Tunnel=%s in the\n"
			     "# [Network] section of that interface's .network file.\n",
				e->device, s->interface);
}

static void print_network(const CtlExport *e)
{
	const EcSettings *s = e->settings;

	print_file(s->interface, "", "network");
	(void)printf("[Match]\nName=%s\n\n[Network]\n", s->interface);
	if (s->bridge && !e->peer)
		(void)printf("Bridge=%s\nLinkLocalAddressing=no\n", s->bridge);
	else if (e->peer && s->mode != EC_MODE_POINT_TO_POINT)
		(void)fputs("# if this end is bridged: Bridge=BRIDGE\n", stdout);
	for (char **a = s->address; a && *a; a++)
		(void)printf("Address=%s\n", *a);
}

static void print_bridge(const EcSettings *s)
{
	if (s->bridge_create) {
		print_file(s->bridge, "", "netdev");
		(void)printf("[NetDev]\nName=%s\nKind=bridge\n", s->bridge);
		print_file(s->bridge, "", "network");
		(void)printf("[Match]\nName=%s\n\n[Network]\nConfigureWithoutCarrier=yes\n"
			     "LinkLocalAddressing=no\n",
				s->bridge);
	}
	if (s->attach) {
		print_file(s->attach, "", "network");
		(void)printf("[Match]\nName=%s\n\n[Network]\nBridge=%s\nLinkLocalAddressing=no\n",
				s->attach, s->bridge);
	}
}

int ctl_export_networkd(const CtlExport *e)
{
	const EcSettings *s = e->settings;

	if (e->kind->fou && e->ipv6)
		return ctl_complain(CTL_ERROR,
				"networkd cannot make gretap-fou over IPv6; --as=ip can");
	if (e->kind->fou) {
		/* An interface name may be full already; this one is a file's. */
		print_file(s->interface, "-fou", "netdev");
		(void)printf("[NetDev]\nName=fou%u\nKind=fou\n\n[FooOverUDP]\nPort=%u\nProtocol=gre\n",
				s->data_port, s->data_port);
	}
	print_netdev(e);
	print_network(e);
	if (s->bridge && !e->peer)
		print_bridge(s);
	return CTL_OK;
}
