/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>

#include "guard-layer.h"
#include "netlink.h"

/*
 * DOC: Theory of operation
 *
 * For each sort of packet (protocol, UDP port) that tunnels send, one rule leads to a routing table
 * of ours. There, each peer has a route to its VPN's interface and a worse one that says
 * unreachable; no other destination has any, and the kernel goes on to the next rule. So packets to
 * peers never see the main table, and all others see nothing else.
 *
 * The kernel removes the route to the interface with the interface; what remains is unreachable.
 * The next arming or recheck finds the interface again by its name.
 *
 * FOU is looked up as GRE, though UDP is on the wire. Whoever asks for the route to a peer without
 * a protocol sees the main table.
 *
 * Two tunnels to one peer through two VPNs would want two routes; the last one armed wins, and
 * nftables stops the other.
 */

enum {
	UNREACHABLE,
	DEVICE,
	RULE
};

typedef struct Own {
	struct nl_sock *sk;
} Own;

static void render(const EcGuardSpec *spec, GArray *items)
{
	const EcAddress family = { .family = spec->remote.family };

	if (spec->fence != EC_FENCE_INTERFACE)
		return;
	EcGuardItem wall = ec_guard_item(UNREACHABLE, &spec->remote);
	EcGuardItem way = ec_guard_item(DEVICE, &spec->remote);
	EcGuardItem rule = ec_guard_item(RULE, &family);
	memcpy(way.other, spec->gateway.bytes, ec_address_size(&spec->gateway));
	(void)g_strlcpy(way.device, spec->device, sizeof(way.device));
	rule.protocol = spec->lookup_protocol;
	rule.port = spec->lookup_protocol == IPPROTO_UDP ? spec->remote_port : 0;
	g_array_append_val(items, wall);
	g_array_append_val(items, way);
	g_array_append_val(items, rule);
	rule.protocol = spec->second_protocol;
	if (rule.protocol)
		g_array_append_val(items, rule);
}

static EcMessage *rule_message(const EcGuardItem *item, int type, int flags)
{
	const struct fib_rule_hdr body = { .family = item->family, .action = FR_ACT_TO_TBL };
	const struct fib_rule_port_range port = { item->port, item->port };
	g_autoptr(EcMessage) msg = nlmsg_alloc_simple(type, NLM_F_REQUEST | NLM_F_ACK | flags);

	if (!msg || nlmsg_append(msg, (void *)&body, sizeof(body), NLMSG_ALIGNTO) < 0 ||
			nla_put_u32(msg, FRA_PRIORITY, EC_GUARD_RULE_PRIORITY) < 0 ||
			nla_put_u32(msg, FRA_TABLE, EC_GUARD_ROUTE_TABLE) < 0 ||
			nla_put_u8(msg, FRA_PROTOCOL, EC_GUARD_ROUTE_PROTOCOL) < 0 ||
			nla_put_u8(msg, FRA_IP_PROTO, item->protocol) < 0 ||
			(item->port && nla_put(msg, FRA_DPORT_RANGE, sizeof(port), &port) < 0))
		return NULL;
	return g_steal_pointer(&msg);
}

/* NULL also when the interface is not there: then there is nothing to do. */
static EcMessage *route_message(const EcGuardItem *item, int type, int flags)
{
	const EcAddress peer = ec_guard_item_address(item, item->peer);
	const EcAddress gateway = ec_guard_item_address(item, item->other);
	unsigned ifindex = item->type == DEVICE ? if_nametoindex(item->device) : 0;
	int size = (int)ec_address_size(&peer);
	struct rtmsg body = { .rtm_family = item->family,
		.rtm_dst_len = (uint8_t)(size * 8),
		.rtm_table = RT_TABLE_UNSPEC,
		.rtm_protocol = EC_GUARD_ROUTE_PROTOCOL,
		.rtm_scope = RT_SCOPE_UNIVERSE,
		.rtm_type = item->type == DEVICE ? RTN_UNICAST : RTN_UNREACHABLE };
	g_autoptr(EcMessage) msg = nlmsg_alloc_simple(type, NLM_F_REQUEST | NLM_F_ACK | flags);

	if (item->type == DEVICE && !ifindex)
		return NULL;
	if (gateway.family != AF_UNSPEC)
		body.rtm_flags = RTNH_F_ONLINK;
	else if (item->type == DEVICE && item->family == AF_INET)
		body.rtm_scope = RT_SCOPE_LINK;
	if (!msg || nlmsg_append(msg, &body, sizeof(body), NLMSG_ALIGNTO) < 0 ||
			nla_put_u32(msg, RTA_TABLE, EC_GUARD_ROUTE_TABLE) < 0 ||
			nla_put(msg, RTA_DST, size, peer.bytes) < 0 ||
			(ifindex && nla_put_u32(msg, RTA_OIF, ifindex) < 0) ||
			(gateway.family != AF_UNSPEC &&
					nla_put(msg, RTA_GATEWAY, size, gateway.bytes) < 0) ||
			(item->type == UNREACHABLE &&
					nla_put_u32(msg, RTA_PRIORITY, EC_GUARD_ROUTE_METRIC) < 0))
		return NULL;
	return g_steal_pointer(&msg);
}

static const char *describe(const EcGuardItem *item, char text[static 64])
{
	char address[INET6_ADDRSTRLEN];
	EcAddress peer = ec_guard_item_address(item, item->peer);

	if (item->type == RULE)
		(void)g_snprintf(text, 64, "cannot add the rule for protocol %u", item->protocol);
	else
		(void)g_snprintf(text, 64, "cannot add the route for %s",
				ec_address_to_string(&peer, address));
	return text;
}

/* What is there already is fine. That the way is not open is no failure: the wall stands. */
static int add(struct nl_sock *sk, const EcGuardItem *item, sd_bus_error *ret_error)
{
	EcNetlinkAnswer a = { 0 };
	char text[64];
	g_autoptr(EcMessage) msg =
			item->type == RULE
					? rule_message(item, RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL)
					: route_message(item, RTM_NEWROUTE,
							  NLM_F_CREATE | NLM_F_REPLACE);

	if (!msg && item->type == DEVICE)
		return 0;
	int r = msg ? ec_netlink_exchange(sk, msg, &a) : -ENOMEM;
	if (r >= 0 || r == -EEXIST || item->type == DEVICE)
		return 0;
	return ec_netlink_fail(r, &a, ret_error, "%s", describe(item, text));
}

static void drop(struct nl_sock *sk, const EcGuardItem *item)
{
	EcNetlinkAnswer a = { 0 };
	g_autoptr(EcMessage) msg = item->type == RULE ? rule_message(item, RTM_DELRULE, 0)
						      : route_message(item, RTM_DELROUTE, 0);

	/* It is gone, with its interface or by another hand. */
	if (msg)
		(void)ec_netlink_exchange(sk, msg, &a);
}

static int open_socket(EcGuardShelf *s, struct nl_sock **ret, sd_bus_error *ret_error)
{
	const EcNetlinkAnswer nothing = { 0 };
	int on = 1;

	if (!s->own) {
		Own *own = g_new0(Own, 1);
		int r = ec_netlink_open(NETLINK_ROUTE, &own->sk);

		if (r < 0) {
			g_free(own);
			return ec_netlink_fail(r, &nothing, ret_error, "cannot reach rtnetlink");
		}
		/* Lists of one table only come from a kernel that is asked strictly. */
		(void)setsockopt(nl_socket_get_fd(own->sk), SOL_NETLINK, NETLINK_GET_STRICT_CHK,
				&on, sizeof(on));
		s->own = own;
	}
	*ret = ((Own *)s->own)->sk;
	return 0;
}

static int apply(EcGuardShelf *s, const GPtrArray *gained, const GPtrArray *lost,
		sd_bus_error *ret_error)
{
	struct nl_sock *sk = NULL;
	int r = open_socket(s, &sk, ret_error);

	for (guint i = 0; r >= 0 && i < gained->len; i++) {
		r = add(sk, gained->pdata[i], ret_error);
		for (guint undone = 0; r < 0 && undone < i; undone++)
			drop(sk, gained->pdata[undone]);
	}
	for (guint i = 0; r >= 0 && i < lost->len; i++)
		drop(sk, lost->pdata[i]);
	return r;
}

/* Looking for what is missing */

static void note(GHashTable *found, const EcGuardItem *item)
{
	(void)g_hash_table_add(found, g_memdup2(item, sizeof(*item)));
}

static int take_rule(struct nlmsghdr *h, void *userdata)
{
	const struct fib_rule_hdr *body = nlmsg_data(h);
	struct nlattr *tb[FRA_MAX + 1];
	struct fib_rule_port_range port = { 0 };

	if (h->nlmsg_type != RTM_NEWRULE || nlmsg_parse(h, sizeof(*body), tb, FRA_MAX, NULL) < 0 ||
			!tb[FRA_TABLE] || nla_get_u32(tb[FRA_TABLE]) != EC_GUARD_ROUTE_TABLE ||
			!tb[FRA_PRIORITY] ||
			nla_get_u32(tb[FRA_PRIORITY]) != EC_GUARD_RULE_PRIORITY ||
			!tb[FRA_IP_PROTO] || body->action != FR_ACT_TO_TBL || body->src_len ||
			body->dst_len || tb[FRA_IIFNAME] || tb[FRA_OIFNAME] || tb[FRA_FWMARK])
		return 0;
	if (tb[FRA_DPORT_RANGE] && nla_len(tb[FRA_DPORT_RANGE]) == sizeof(port))
		memcpy(&port, nla_data(tb[FRA_DPORT_RANGE]), sizeof(port));
	EcGuardItem item = { .type = RULE,
		.family = body->family,
		.protocol = nla_get_u8(tb[FRA_IP_PROTO]),
		.port = port.start };
	if (port.start == port.end)
		note(userdata, &item);
	return 0;
}

static int take_route(struct nlmsghdr *h, void *userdata)
{
	const struct rtmsg *body = nlmsg_data(h);
	struct nlattr *tb[RTA_MAX + 1];
	EcAddress peer = { 0 };

	if (h->nlmsg_type != RTM_NEWROUTE || nlmsg_parse(h, sizeof(*body), tb, RTA_MAX, NULL) < 0 ||
			!tb[RTA_DST] || !tb[RTA_TABLE] ||
			nla_get_u32(tb[RTA_TABLE]) != EC_GUARD_ROUTE_TABLE)
		return 0;
	peer.family = body->rtm_family;
	int size = (int)ec_address_size(&peer);
	if (nla_len(tb[RTA_DST]) != size || body->rtm_dst_len != size * 8)
		return 0;
	memcpy(peer.bytes, nla_data(tb[RTA_DST]), (size_t)size);
	EcGuardItem item = ec_guard_item(
			body->rtm_type == RTN_UNREACHABLE ? UNREACHABLE : DEVICE, &peer);
	if (item.type == DEVICE && tb[RTA_OIF] && body->rtm_type == RTN_UNICAST)
		(void)if_indextoname(nla_get_u32(tb[RTA_OIF]), item.device);
	if (tb[RTA_GATEWAY] && nla_len(tb[RTA_GATEWAY]) == size)
		memcpy(item.other, nla_data(tb[RTA_GATEWAY]), (size_t)size);
	note(userdata, &item);
	return 0;
}

static int list(struct nl_sock *sk, struct nl_msg *msg, int (*take)(struct nlmsghdr *, void *),
		GHashTable *found)
{
	EcNetlinkAnswer a = { .on_message = take, .userdata = found };
	int r = ec_netlink_exchange(sk, msg, &a);

	/* A table that nobody has written to does not exist. */
	return r == -ENOENT ? 0 : r;
}

static int list_all(struct nl_sock *sk, int family, GHashTable *found)
{
	const struct fib_rule_hdr rule = { .family = (uint8_t)family };
	const struct rtmsg route = { .rtm_family = (uint8_t)family };
	g_autoptr(EcMessage) rules = nlmsg_alloc_simple(RTM_GETRULE, NLM_F_REQUEST | NLM_F_DUMP);
	g_autoptr(EcMessage) routes = nlmsg_alloc_simple(RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP);

	if (!rules || !routes ||
			nlmsg_append(rules, (void *)&rule, sizeof(rule), NLMSG_ALIGNTO) < 0 ||
			nlmsg_append(routes, (void *)&route, sizeof(route), NLMSG_ALIGNTO) < 0 ||
			nla_put_u32(routes, RTA_TABLE, EC_GUARD_ROUTE_TABLE) < 0)
		return -ENOMEM;
	int r = list(sk, rules, take_rule, found);
	return r < 0 ? r : list(sk, routes, take_route, found);
}

static EcGuardItem any_way(const EcGuardItem *item)
{
	EcGuardItem any = *item;

	memset(any.other, 0, sizeof(any.other));
	memset(any.device, 0, sizeof(any.device));
	return any;
}

/* Adds what is missing. Where another tunnel's way to the same peer is in place it stays: they must
 * not take it from each other in turns. */
static int add_missing(
		EcGuardShelf *s, struct nl_sock *sk, GHashTable *found, sd_bus_error *ret_error)
{
	g_autoptr(GHashTable) taken = ec_guard_item_set();
	GHashTableIter i;
	gpointer p;
	int r = 0;

	g_hash_table_iter_init(&i, found);
	while (g_hash_table_iter_next(&i, &p, NULL)) {
		const EcGuardItem any = any_way(p);
		if (((const EcGuardItem *)p)->type == DEVICE && g_hash_table_contains(s->items, p))
			note(taken, &any);
	}
	g_hash_table_iter_init(&i, s->items);
	while (r >= 0 && g_hash_table_iter_next(&i, &p, NULL)) {
		const EcGuardItem any = any_way(p);
		if (!g_hash_table_contains(found, p) && !g_hash_table_contains(taken, &any))
			r = add(sk, p, ret_error);
	}
	return r;
}

static int recheck(EcGuardShelf *s, sd_bus_error *ret_error)
{
	g_autoptr(GHashTable) found = ec_guard_item_set();
	const EcNetlinkAnswer nothing = { 0 };
	struct nl_sock *sk = NULL;
	unsigned families = 0;
	GHashTableIter i;
	gpointer p;

	g_hash_table_iter_init(&i, s->items);
	while (g_hash_table_iter_next(&i, &p, NULL))
		families |= ((const EcGuardItem *)p)->family == AF_INET6 ? 2 : 1;
	int r = open_socket(s, &sk, ret_error);
	if (r < 0)
		return r;
	for (int tries = 0; tries < 3; tries++) {
		r = families & 1 ? list_all(sk, AF_INET, found) : 0;
		if (r >= 0 && families & 2)
			r = list_all(sk, AF_INET6, found);
		if (r != -EINTR)
			break;
		g_hash_table_remove_all(found);
	}
	if (r < 0)
		return ec_netlink_fail(r, &nothing, ret_error, "cannot list rules and routes");
	return add_missing(s, sk, found, ret_error);
}

static void done(EcGuardShelf *s)
{
	if (s->own)
		nl_socket_free(((Own *)s->own)->sk);
	g_free(s->own);
}

const EcGuardLayer ec_guard_layer_route = {
	.bit = EC_GUARD_ROUTE,
	.word = "route",
	.title = "routing rule",
	.render = render,
	.apply = apply,
	.recheck = recheck,
	.done = done,
};
