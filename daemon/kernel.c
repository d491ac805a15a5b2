/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "kernel.h"

#include <errno.h>
#include <linux/genetlink.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/nl80211.h>
#include <linux/rtnetlink.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <string.h>
#include <sys/socket.h>

/*
 * DOC: Theory of operation
 *
 * One rtnetlink and one generic netlink socket, both blocking, both only for commands: a request is
 * sent and its answer read before anything else happens. That costs nothing, since the kernel works
 * inside sendmsg(). Events come through another socket (kernel-watch.c).
 *
 * netlink.c keeps the kernel's own sentence of each refusal; it ends the D-Bus error.
 *
 * Nothing about links is cached: whoever decides reads the link anew, so a decision is never made
 * on an event that is older than our own last command.
 */

struct EcKernel {
	struct nl_sock *route;
	struct nl_sock *generic;
	EcFou *fou;
};

int ec_kernel_new(const char *runtime_dir, EcKernel **ret)
{
	EcKernel *k = g_new0(EcKernel, 1);
	int r = ec_netlink_open(NETLINK_ROUTE, &k->route);

	/* The longest request is some 400 bytes; libnl would clear a page for each. */
	nlmsg_set_default_size(1024);
	if (r >= 0)
		r = ec_netlink_open(NETLINK_GENERIC, &k->generic);
	k->fou = ec_fou_new(k->generic, runtime_dir);
	if (r < 0) {
		(void)ec_kernel_free(k);
		return r;
	}
	*ret = k;
	return 0;
}

EcKernel *ec_kernel_free(EcKernel *k)
{
	if (!k)
		return NULL;
	nl_socket_free(k->route);
	nl_socket_free(k->generic);
	(void)ec_fou_free(k->fou);
	g_free(k);
	return NULL;
}

EcFou *ec_kernel_fou(EcKernel *k)
{
	return k->fou;
}

/* Links */

void ec_link_done(EcLink *link)
{
	g_free(link->data);
	link->data = NULL;
}

static void parse_carrier(struct nlattr *const *tb, EcLink *link)
{
	/* A device of a program has a carrier that can be taken away. */
	if (g_str_equal(link->kind, "tun")) {
		link->dormant = tb[IFLA_CARRIER] && !nla_get_u8(tb[IFLA_CARRIER]);
		return;
	}
	uint8_t state = tb[IFLA_OPERSTATE] ? nla_get_u8(tb[IFLA_OPERSTATE]) : IF_OPER_UNKNOWN;
	bool mode = tb[IFLA_LINKMODE] && nla_get_u8(tb[IFLA_LINKMODE]) == IF_LINK_MODE_DORMANT;

	link->dormant = state == IF_OPER_DORMANT || (mode && state != IF_OPER_UP);
}

static void parse_stats(const struct nlattr *attr, EcLink *link)
{
	struct rtnl_link_stats64 st = { 0 };

	memcpy(&st, nla_data(attr), MIN((size_t)nla_len(attr), sizeof(st)));
	link->rx_packets = st.rx_packets;
	link->rx_bytes = st.rx_bytes;
	link->rx_dropped = st.rx_dropped + st.rx_errors;
	link->tx_packets = st.tx_packets;
	link->tx_bytes = st.tx_bytes;
	link->tx_dropped = st.tx_dropped + st.tx_errors;
}

int ec_link_parse(const struct nlmsghdr *h, EcLink *ret)
{
	struct nlattr *tb[IFLA_MAX + 1], *info[IFLA_INFO_MAX + 1];
	EcLink link = { 0 };

	if (nlmsg_parse((struct nlmsghdr *)h, sizeof(struct ifinfomsg), tb, IFLA_MAX, NULL) < 0 ||
			!tb[IFLA_IFNAME])
		return -EBADMSG;
	const struct ifinfomsg *ifi = nlmsg_data(h);
	link.ifindex = ifi->ifi_index;
	link.flags = ifi->ifi_flags;
	link.type = ifi->ifi_type;
	nla_strlcpy(link.name, tb[IFLA_IFNAME], sizeof(link.name));
	if (tb[IFLA_IFALIAS])
		nla_strlcpy(link.alias, tb[IFLA_IFALIAS], sizeof(link.alias));
	if (tb[IFLA_MTU])
		link.mtu = nla_get_u32(tb[IFLA_MTU]);
	if (tb[IFLA_GSO_MAX_SEGS])
		link.gso_segments = nla_get_u32(tb[IFLA_GSO_MAX_SEGS]);
	if (tb[IFLA_GROUP])
		link.group = nla_get_u32(tb[IFLA_GROUP]);
	if (tb[IFLA_MASTER])
		link.master = nla_get_s32(tb[IFLA_MASTER]);
	if (tb[IFLA_ADDRESS] && nla_len(tb[IFLA_ADDRESS]) == 6)
		memcpy(link.mac, nla_data(tb[IFLA_ADDRESS]), 6);
	if (tb[IFLA_STATS64])
		parse_stats(tb[IFLA_STATS64], &link);
	if (tb[IFLA_LINKINFO] &&
			nla_parse_nested(info, IFLA_INFO_MAX, tb[IFLA_LINKINFO], NULL) >= 0) {
		if (info[IFLA_INFO_KIND])
			nla_strlcpy(link.kind, info[IFLA_INFO_KIND], sizeof(link.kind));
		if (info[IFLA_INFO_DATA])
			link.data = g_memdup2(info[IFLA_INFO_DATA],
					(gsize)nla_total_size(nla_len(info[IFLA_INFO_DATA])));
	}
	parse_carrier(tb, &link);
	*ret = link;
	return 0;
}

static bool all_zero(const void *data, int n)
{
	const uint8_t *p = data;

	for (int i = 0; i < n; i++) {
		if (p[i])
			return false;
	}
	return true;
}

bool ec_link_data_matches(const struct nlattr *have, const void *want, int length)
{
	const struct nlattr *attr = want;

	for (; nla_ok(attr, length); attr = nla_next(attr, &length)) {
		const struct nlattr *known =
				have ? nla_find(nla_data(have), nla_len(have), nla_type(attr))
				     : NULL;
		if (!known && !all_zero(nla_data(attr), nla_len(attr)))
			return false;
		if (known && (nla_len(known) != nla_len(attr) ||
					     memcmp(nla_data(known), nla_data(attr),
							     (size_t)nla_len(attr)) != 0))
			return false;
	}
	return true;
}

static int take_link(struct nlmsghdr *h, void *userdata)
{
	return ec_link_parse(h, userdata);
}

static int link_get(EcKernel *k, const char *name, int ifindex, uint32_t filter, EcLink *ret,
		sd_bus_error *ret_error)
{
	struct ifinfomsg ifi = { .ifi_index = ifindex };
	g_autoptr(EcMessage) msg = nlmsg_alloc_simple(RTM_GETLINK, NLM_F_REQUEST);
	EcLink link = { 0 };
	EcNetlinkAnswer a = { .on_message = take_link, .userdata = &link };

	if (!msg || nlmsg_append(msg, &ifi, sizeof(ifi), NLMSG_ALIGNTO) < 0 ||
			(name && nla_put_string(msg, IFLA_IFNAME, name) < 0) ||
			nla_put_u32(msg, IFLA_EXT_MASK, filter) < 0)
		return -ENOBUFS;
	int r = ec_netlink_exchange(k->route, msg, &a);
	if (r == -ENODEV)
		return 0;
	if (r < 0)
		return ec_netlink_fail(
				r, &a, ret_error, "cannot look at interface %s", name ? name : "");
	*ret = link;
	return 1;
}

int ec_kernel_link_by_name(EcKernel *k, const char *name, EcLink *ret, sd_bus_error *ret_error)
{
	return link_get(k, name, 0, RTEXT_FILTER_SKIP_STATS, ret, ret_error);
}

int ec_kernel_link_by_index(EcKernel *k, int ifindex, EcLink *ret, sd_bus_error *ret_error)
{
	return link_get(k, NULL, ifindex, RTEXT_FILTER_SKIP_STATS, ret, ret_error);
}

int ec_kernel_link_counters(EcKernel *k, int ifindex, EcLink *ret)
{
	return link_get(k, NULL, ifindex, 0, ret, NULL);
}

static int collect_link(struct nlmsghdr *h, void *userdata)
{
	EcLink link;

	if (h->nlmsg_type == RTM_NEWLINK && ec_link_parse(h, &link) >= 0)
		g_array_append_val((GArray *)userdata, link);
	return 0;
}

static int dump_links(EcKernel *k, GArray *links, EcNetlinkAnswer *a)
{
	struct ifinfomsg ifi = { 0 };
	g_autoptr(EcMessage) msg = nlmsg_alloc_simple(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP);

	if (!msg || nlmsg_append(msg, &ifi, sizeof(ifi), NLMSG_ALIGNTO) < 0)
		return -ENOBUFS;
	*a = (EcNetlinkAnswer){ .on_message = collect_link, .userdata = links };
	return ec_netlink_exchange(k->route, msg, a);
}

int ec_kernel_links(EcKernel *k, void (*f)(const EcLink *link, void *userdata), void *userdata,
		sd_bus_error *ret_error)
{
	g_autoptr(GArray) links = g_array_new(false, false, sizeof(EcLink));
	int r, tries = 0;
	EcNetlinkAnswer a;

	g_array_set_clear_func(links, (GDestroyNotify)ec_link_done);
	do {
		g_array_set_size(links, 0);
		r = dump_links(k, links, &a);
	} while (r == -EINTR && ++tries < 3);
	if (r < 0)
		return ec_netlink_fail(r, &a, ret_error, "cannot list the interfaces");
	for (guint i = 0; i < links->len; i++)
		f(&g_array_index(links, EcLink, i), userdata);
	return 0;
}

static int put_link_info(struct nl_msg *msg, const EcLinkChange *c)
{
	struct nlattr *info, *data;

	if (!c->kind)
		return 0;
	info = nla_nest_start(msg, IFLA_LINKINFO);
	if (!info || nla_put_string(msg, IFLA_INFO_KIND, c->kind) < 0)
		return -ENOBUFS;
	if (c->info_data) {
		struct nlmsghdr *h = nlmsg_hdr(c->info_data);

		data = nla_nest_start(msg, IFLA_INFO_DATA);
		if (!data || nlmsg_append(msg, nlmsg_data(h), (size_t)nlmsg_datalen(h), 1) < 0)
			return -ENOBUFS;
		nla_nest_end(msg, data);
	}
	nla_nest_end(msg, info);
	return 0;
}

/* IFLA_AF_SPEC { AF_INET6 { IFLA_INET6_ADDR_GEN_MODE none } } */
static int put_no_autoconf(struct nl_msg *msg)
{
	struct nlattr *spec = nla_nest_start(msg, IFLA_AF_SPEC);
	struct nlattr *inet6 = spec ? nla_nest_start(msg, AF_INET6) : NULL;

	if (!inet6 || nla_put_u8(msg, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE) < 0)
		return -ENOBUFS;
	nla_nest_end(msg, inet6);
	nla_nest_end(msg, spec);
	return 0;
}

/* The mode is what keeps the state when anything about the link changes. */
static int put_carrier(struct nl_msg *msg, bool dormant)
{
	if (nla_put_u8(msg, IFLA_LINKMODE, dormant ? IF_LINK_MODE_DORMANT : IF_LINK_MODE_DEFAULT) <
					0 ||
			nla_put_u8(msg, IFLA_OPERSTATE, dormant ? IF_OPER_DORMANT : IF_OPER_UP) < 0)
		return -ENOBUFS;
	return 0;
}

static int put_change(struct nl_msg *msg, const EcLinkChange *c)
{
	if ((c->name && nla_put_string(msg, IFLA_IFNAME, c->name) < 0) ||
			(c->mac && nla_put(msg, IFLA_ADDRESS, 6, c->mac) < 0) ||
			(c->mtu && nla_put_u32(msg, IFLA_MTU, c->mtu) < 0) ||
			(c->gso_segments &&
					nla_put_u32(msg, IFLA_GSO_MAX_SEGS, c->gso_segments) < 0) ||
			(c->group && nla_put_u32(msg, IFLA_GROUP, c->group) < 0) ||
			(c->alias && nla_put_string(msg, IFLA_IFALIAS, c->alias) < 0) ||
			(c->master && nla_put_s32(msg, IFLA_MASTER, *c->master) < 0) ||
			(c->dormant && put_carrier(msg, *c->dormant) < 0) ||
			(c->carrier && nla_put_u8(msg, IFLA_CARRIER, *c->carrier) < 0) ||
			(c->no_ipv6_autoconf && put_no_autoconf(msg) < 0))
		return -ENOBUFS;
	return put_link_info(msg, c);
}

int ec_kernel_link_set(EcKernel *k, const EcLinkChange *c, sd_bus_error *ret_error)
{
	struct ifinfomsg ifi = { .ifi_index = c->ifindex };
	int flags = NLM_F_REQUEST | NLM_F_ACK | (c->ifindex ? 0 : NLM_F_CREATE | NLM_F_EXCL);
	g_autoptr(EcMessage) msg = nlmsg_alloc_simple(RTM_NEWLINK, flags);
	EcNetlinkAnswer a = { 0 };

	if (c->up) {
		ifi.ifi_change = IFF_UP;
		ifi.ifi_flags = *c->up ? IFF_UP : 0;
	}
	if (!msg || nlmsg_append(msg, &ifi, sizeof(ifi), NLMSG_ALIGNTO) < 0 ||
			put_change(msg, c) < 0)
		return ec_netlink_fail(
				-ENOBUFS, &a, ret_error, "cannot word a request to the kernel");
	int r = ec_netlink_exchange(k->route, msg, &a);
	if (r >= 0)
		return 0;
	if (!c->ifindex)
		return ec_netlink_fail(r, &a, ret_error,
				"the kernel refused to make the %s interface %s", c->kind, c->name);
	char name[IF_NAMESIZE];
	return ec_netlink_fail(r, &a, ret_error, "the kernel refused to change interface %s",
			if_indextoname((unsigned)c->ifindex, name) ? name : "that is gone");
}

static int link_delete(EcKernel *k, int ifindex, uint32_t group, sd_bus_error *ret_error)
{
	struct ifinfomsg ifi = { .ifi_index = ifindex };
	g_autoptr(EcMessage) msg = nlmsg_alloc_simple(RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK);
	EcNetlinkAnswer a = { 0 };

	if (!msg || nlmsg_append(msg, &ifi, sizeof(ifi), NLMSG_ALIGNTO) < 0 ||
			(!ifindex && nla_put_u32(msg, IFLA_GROUP, group) < 0))
		return -ENOBUFS;
	int r = ec_netlink_exchange(k->route, msg, &a);
	if (r == -ENODEV)
		return 0;
	return r < 0 ? ec_netlink_fail(r, &a, ret_error,
				       "the kernel refused to delete an interface")
		     : 0;
}

int ec_kernel_link_delete(EcKernel *k, int ifindex, sd_bus_error *ret_error)
{
	return link_delete(k, ifindex, 0, ret_error);
}

int ec_kernel_link_delete_group(EcKernel *k, uint32_t group, sd_bus_error *ret_error)
{
	return link_delete(k, 0, group, ret_error);
}

/* Forwarding database of VXLAN */

typedef struct Remote {
	EcAddress address;
	uint16_t port;
} Remote;

typedef struct Remotes {
	uint16_t own_port;
	int ifindex;
	GArray *list; /* Remote */
} Remotes;

static int take_remote(struct nlmsghdr *h, void *userdata)
{
	static const uint8_t zero[6];
	Remotes *remotes = userdata;
	struct nlattr *tb[NDA_MAX + 1];
	Remote remote = { .port = remotes->own_port };

	if (h->nlmsg_type != RTM_NEWNEIGH ||
			nlmsg_parse(h, sizeof(struct ndmsg), tb, NDA_MAX, NULL) < 0)
		return 0;
	const struct ndmsg *ndm = nlmsg_data(h);
	const struct nlattr *mac = tb[NDA_LLADDR], *to = tb[NDA_DST];
	if (ndm->ndm_ifindex != remotes->ifindex || !(ndm->ndm_flags & NTF_SELF) || !mac || !to ||
			nla_len(mac) != 6 || memcmp(nla_data(mac), zero, 6) != 0 ||
			(nla_len(to) != 4 && nla_len(to) != 16))
		return 0;
	remote.address.family = nla_len(to) == 4 ? AF_INET : AF_INET6;
	memcpy(remote.address.bytes, nla_data(to), (size_t)nla_len(to));
	if (tb[NDA_PORT])
		remote.port = ntohs(nla_get_u16(tb[NDA_PORT]));
	g_array_append_val(remotes->list, remote);
	return 0;
}

static int list_remotes(EcKernel *k, Remotes *remotes, sd_bus_error *ret_error)
{
	struct ifinfomsg ifi = { .ifi_family = AF_BRIDGE, .ifi_index = remotes->ifindex };
	int r, tries = 0;
	EcNetlinkAnswer a;

	do {
		g_autoptr(EcMessage) msg =
				nlmsg_alloc_simple(RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP);

		if (!msg || nlmsg_append(msg, &ifi, sizeof(ifi), NLMSG_ALIGNTO) < 0)
			return -ENOBUFS;
		g_array_set_size(remotes->list, 0);
		a = (EcNetlinkAnswer){ .on_message = take_remote, .userdata = remotes };
		r = ec_netlink_exchange(k->route, msg, &a);
	} while (r == -EINTR && ++tries < 3);
	return r < 0 ? ec_netlink_fail(r, &a, ret_error, "cannot list where a VXLAN sends to") : 0;
}

static int change_remote(EcKernel *k, const Remotes *remotes, const Remote *remote, bool present,
		sd_bus_error *ret_error)
{
	static const uint8_t zero[6];
	struct ndmsg ndm = {
		.ndm_family = AF_BRIDGE,
		.ndm_ifindex = remotes->ifindex,
		.ndm_state = NUD_NOARP | NUD_PERMANENT,
		.ndm_flags = NTF_SELF,
	};
	/* The kernel replaces no default entry; it takes a second one. */
	int flags = NLM_F_REQUEST | NLM_F_ACK | (present ? NLM_F_CREATE | NLM_F_APPEND : 0);
	g_autoptr(EcMessage) msg = nlmsg_alloc_simple(present ? RTM_NEWNEIGH : RTM_DELNEIGH, flags);
	EcNetlinkAnswer a = { 0 };
	char text[INET6_ADDRSTRLEN];

	if (!msg || nlmsg_append(msg, &ndm, sizeof(ndm), NLMSG_ALIGNTO) < 0 ||
			nla_put(msg, NDA_LLADDR, sizeof(zero), zero) < 0 ||
			nla_put(msg, NDA_DST, (int)ec_address_size(&remote->address),
					remote->address.bytes) < 0 ||
			nla_put_u16(msg, NDA_PORT, htons(remote->port)) < 0)
		return -ENOBUFS;
	int r = ec_netlink_exchange(k->route, msg, &a);
	if (r >= 0 || (!present && r == -ENOENT))
		return 0;
	return ec_netlink_fail(r, &a, ret_error, "the kernel refused to send VXLAN to %s port %u",
			ec_address_to_string(&remote->address, text), remote->port);
}

int ec_kernel_vxlan_remote_set(EcKernel *k, int ifindex, const EcAddress *address, uint16_t port,
		uint16_t own_port, sd_bus_error *ret_error)
{
	g_autoptr(GArray) list = g_array_new(false, false, sizeof(Remote));
	Remotes remotes = { .own_port = own_port, .ifindex = ifindex, .list = list };
	const Remote wanted = { .address = *address, .port = port };
	bool found = false;
	int r = list_remotes(k, &remotes, ret_error);

	for (guint i = 0; r >= 0 && i < list->len; i++) {
		const Remote *have = &g_array_index(list, Remote, i);

		found |= have->port == port && ec_address_equal(&have->address, address);
	}
	if (r >= 0 && !found)
		r = change_remote(k, &remotes, &wanted, true, ret_error);
	for (guint i = 0; r >= 0 && i < list->len; i++) {
		const Remote *have = &g_array_index(list, Remote, i);

		if (have->port != port || !ec_address_equal(&have->address, address))
			r = change_remote(k, &remotes, have, false, ret_error);
	}
	return r;
}

/* Addresses and routes */

static int put_broadcast(struct nl_msg *msg, const EcAddress *a, unsigned length)
{
	if (a->family != AF_INET || length > 30)
		return 0;
	uint32_t broadcast = a->v4.s_addr | htonl(UINT32_MAX >> length);
	return nla_put(msg, IFA_BROADCAST, sizeof(broadcast), &broadcast);
}

int ec_kernel_address_set(EcKernel *k, int ifindex, const EcAddress *address, unsigned length,
		bool present, sd_bus_error *ret_error)
{
	struct ifaddrmsg ifa = { .ifa_family = (uint8_t)address->family,
		.ifa_prefixlen = (uint8_t)length,
		.ifa_index = (unsigned)ifindex };
	int flags = NLM_F_REQUEST | NLM_F_ACK | (present ? NLM_F_CREATE | NLM_F_EXCL : 0);
	g_autoptr(EcMessage) msg = nlmsg_alloc_simple(present ? RTM_NEWADDR : RTM_DELADDR, flags);
	int size = (int)ec_address_size(address);
	char text[INET6_ADDRSTRLEN];
	EcNetlinkAnswer a = { 0 };

	if (!msg || nlmsg_append(msg, &ifa, sizeof(ifa), NLMSG_ALIGNTO) < 0 ||
			nla_put(msg, IFA_LOCAL, size, address->bytes) < 0 ||
			nla_put(msg, IFA_ADDRESS, size, address->bytes) < 0 ||
			(present && put_broadcast(msg, address, length) < 0))
		return -ENOBUFS;
	int r = ec_netlink_exchange(k->route, msg, &a);
	if (r >= 0 || (present ? r == -EEXIST : r == -EADDRNOTAVAIL || r == -ENODEV))
		return 0;
	return ec_netlink_fail(r, &a, ret_error, "the kernel refused to %s address %s/%u",
			present ? "add" : "remove", ec_address_to_string(address, text), length);
}

static int take_route(struct nlmsghdr *h, void *userdata)
{
	struct nlattr *tb[RTA_MAX + 1], *metric[RTAX_MAX + 1];
	const struct rtmsg *rtm = nlmsg_data(h);
	EcRoute *route = userdata;

	if (nlmsg_parse(h, sizeof(*rtm), tb, RTA_MAX, NULL) < 0)
		return -EBADMSG;
	route->type = rtm->rtm_type;
	route->table = tb[RTA_TABLE] ? nla_get_u32(tb[RTA_TABLE]) : rtm->rtm_table;
	if (tb[RTA_GATEWAY]) {
		route->gateway.family = rtm->rtm_family;
		nla_memcpy(route->gateway.bytes, tb[RTA_GATEWAY],
				(int)ec_address_size(&route->gateway));
	}
	if (tb[RTA_OIF])
		route->ifindex = nla_get_s32(tb[RTA_OIF]);
	if (tb[RTA_PREFSRC]) {
		route->source.family = rtm->rtm_family;
		nla_memcpy(route->source.bytes, tb[RTA_PREFSRC],
				(int)ec_address_size(&route->source));
	}
	if (tb[RTA_METRICS] && nla_parse_nested(metric, RTAX_MAX, tb[RTA_METRICS], NULL) >= 0 &&
			metric[RTAX_MTU])
		route->mtu = nla_get_u32(metric[RTAX_MTU]);
	return 0;
}

static int put_flow(struct nl_msg *msg, const EcFlow *flow, int size)
{
	bool udp = flow->protocol == IPPROTO_UDP;

	if (nla_put(msg, RTA_DST, size, flow->remote.bytes) < 0 ||
			(flow->local.family &&
					nla_put(msg, RTA_SRC, size, flow->local.bytes) < 0) ||
			(flow->fwmark && nla_put_u32(msg, RTA_MARK, flow->fwmark) < 0) ||
			(udp && nla_put_u8(msg, RTA_IP_PROTO, flow->protocol) < 0) ||
			(udp && nla_put_u16(msg, RTA_DPORT, htons(flow->port)) < 0))
		return -ENOBUFS;
	return 0;
}

int ec_kernel_route_get(EcKernel *k, const EcFlow *flow, EcRoute *ret, sd_bus_error *ret_why)
{
	int size = (int)ec_address_size(&flow->remote);
	struct rtmsg rtm = { .rtm_family = (uint8_t)flow->remote.family,
		.rtm_dst_len = (uint8_t)(size * 8),
		.rtm_src_len = (uint8_t)(ec_address_size(&flow->local) * 8),
		.rtm_flags = RTM_F_LOOKUP_TABLE }; /* or IPv4 always says "main" */
	g_autoptr(EcMessage) msg = nlmsg_alloc_simple(RTM_GETROUTE, NLM_F_REQUEST);
	char text[INET6_ADDRSTRLEN];
	EcRoute route = { 0 };
	EcNetlinkAnswer a = { .on_message = take_route, .userdata = &route };

	if (!msg || nlmsg_append(msg, &rtm, sizeof(rtm), NLMSG_ALIGNTO) < 0 ||
			put_flow(msg, flow, size) < 0)
		return -ENOBUFS;
	int r = ec_netlink_exchange(k->route, msg, &a);
	if (r >= 0 && route.ifindex) {
		if (route.source.family == AF_UNSPEC)
			route.source = flow->local;
		*ret = route;
		return 1;
	}
	(void)ec_address_to_string(&flow->remote, text);
	if (r == -EINVAL && rtm.rtm_src_len) {
		char source[INET6_ADDRSTRLEN];

		(void)ec_error(ret_why, EC_ERROR_NO_UNDERLAY,
				"local address %s is on no interface of this machine",
				ec_address_to_string(&flow->local, source));
		return 0;
	}
	(void)ec_error(ret_why, EC_ERROR_NO_UNDERLAY, "no route to %s: %s", text,
			r < 0 ? g_strerror(-r) : "the kernel names no interface");
	return 0;
}

/* Wi-Fi */

static int take_wifi(struct nlmsghdr *h, void *userdata)
{
	struct nlattr *tb[NL80211_ATTR_MAX + 1];

	if (genlmsg_parse(h, 0, tb, NL80211_ATTR_MAX, NULL) < 0 || !tb[NL80211_ATTR_IFTYPE])
		return -EBADMSG;
	uint32_t type = nla_get_u32(tb[NL80211_ATTR_IFTYPE]);
	bool four = tb[NL80211_ATTR_4ADDR] && nla_get_u8(tb[NL80211_ATTR_4ADDR]);
	*(bool *)userdata =
			type == NL80211_IFTYPE_ADHOC || (type == NL80211_IFTYPE_STATION && !four);
	return 0;
}

bool ec_kernel_wifi_refuses_bridge(EcKernel *k, int ifindex)
{
	int id = genl_ctrl_resolve(k->generic, NL80211_GENL_NAME);
	g_autoptr(EcMessage) msg = id < 0 ? NULL : nlmsg_alloc();
	bool refuses = false;
	EcNetlinkAnswer a = { .on_message = take_wifi, .userdata = &refuses };

	if (!msg ||
			!genlmsg_put(msg, NL_AUTO_PORT, NL_AUTO_SEQ, id, 0, NLM_F_REQUEST,
					NL80211_CMD_GET_INTERFACE, 0) ||
			nla_put_u32(msg, NL80211_ATTR_IFINDEX, (uint32_t)ifindex) < 0)
		return false;
	return ec_netlink_exchange(k->generic, msg, &a) >= 0 && refuses;
}
