/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <linux/xfrm.h>
#include <string.h>

#include "guard-layer.h"
#include "netlink.h"

/*
 * DOC: Theory of operation
 *
 * Behind all policies of the VPN stands one that blocks the tunnel's packets. It only acts when
 * none of the VPN's matches. Out, FOU is looked up as GRE; in, it is judged twice, as UDP and, out
 * of it, as GRE.
 *
 * The kernel holds one policy only for each selector. A VPN may well use the same one as we do, and
 * would then be refused its own, or its end would take ours along. So ours carry a user number,
 * which tells selectors apart (selector_cmp()) and plays no part in matching packets
 * (xfrm_selector_match()).
 */

#define OUR_USER 0x65636f72u /* "ecor" */

enum {
	OUT,
	IN
};

static void add_item(GArray *items, uint8_t type, uint8_t protocol, uint16_t port,
		const EcGuardSpec *spec)
{
	EcGuardItem item = ec_guard_item(type, &spec->remote);

	memcpy(item.other, spec->local.bytes, ec_address_size(&spec->local));
	item.protocol = protocol;
	item.port = port;
	g_array_append_val(items, item);
}

static void render(const EcGuardSpec *spec, GArray *items)
{
	bool udp = spec->protocol == IPPROTO_UDP, inner = spec->lookup_protocol != IPPROTO_UDP;

	if (spec->fence != EC_FENCE_IPSEC)
		return;
	add_item(items, OUT, spec->lookup_protocol, inner ? 0 : spec->remote_port, spec);
	if (udp)
		add_item(items, IN, IPPROTO_UDP, spec->local_port, spec);
	if (inner)
		add_item(items, IN, spec->lookup_protocol, 0, spec);
	if (spec->second_protocol) {
		add_item(items, OUT, spec->second_protocol, 0, spec);
		add_item(items, IN, spec->second_protocol, 0, spec);
	}
}

static void fill_selector(const EcGuardItem *item, struct xfrm_selector *sel)
{
	const EcAddress local = ec_guard_item_address(item, item->other);
	uint8_t all = item->family == AF_INET6 ? 128 : 32;
	uint8_t here = local.family == AF_UNSPEC ? 0 : all;

	memset(sel, 0, sizeof(*sel));
	memcpy(item->type == OUT ? &sel->saddr : &sel->daddr, item->other, sizeof(item->other));
	memcpy(item->type == OUT ? &sel->daddr : &sel->saddr, item->peer, sizeof(item->peer));
	sel->prefixlen_s = item->type == OUT ? here : all;
	sel->prefixlen_d = item->type == OUT ? all : here;
	sel->family = item->family;
	sel->proto = item->protocol;
	sel->dport = htons(item->port);
	sel->dport_mask = item->port ? 0xffff : 0;
	sel->user = OUR_USER;
}

static uint8_t direction(const EcGuardItem *item)
{
	return item->type == OUT ? XFRM_POLICY_OUT : XFRM_POLICY_IN;
}

static EcMessage *message(const EcGuardItem *item, int type, const void *body, size_t size)
{
	g_autoptr(EcMessage) msg = nlmsg_alloc_simple(type, NLM_F_REQUEST | NLM_F_ACK);

	if (!msg || nlmsg_append(msg, (void *)body, size, NLMSG_ALIGNTO) < 0)
		return NULL;
	return g_steal_pointer(&msg);
}

static int add(struct nl_sock *sk, const EcGuardItem *item, sd_bus_error *ret_error)
{
	struct xfrm_userpolicy_info policy = { .priority = EC_GUARD_XFRM_PRIORITY,
		.dir = direction(item),
		.action = XFRM_POLICY_BLOCK,
		.share = XFRM_SHARE_ANY,
		.lft = { .soft_byte_limit = XFRM_INF,
				.hard_byte_limit = XFRM_INF,
				.soft_packet_limit = XFRM_INF,
				.hard_packet_limit = XFRM_INF } };
	EcNetlinkAnswer a = { 0 };

	fill_selector(item, &policy.sel);
	g_autoptr(EcMessage) msg = message(item, XFRM_MSG_NEWPOLICY, &policy, sizeof(policy));
	int r = msg ? ec_netlink_exchange(sk, msg, &a) : -ENOMEM;
	if (r >= 0 || r == -EEXIST)
		return 0;
	return ec_netlink_fail(
			r, &a, ret_error, "cannot add the policy for protocol %u", item->protocol);
}

static void drop(struct nl_sock *sk, const EcGuardItem *item)
{
	struct xfrm_userpolicy_id policy = { .dir = direction(item) };
	EcNetlinkAnswer a = { 0 };

	fill_selector(item, &policy.sel);
	g_autoptr(EcMessage) msg = message(item, XFRM_MSG_DELPOLICY, &policy, sizeof(policy));
	/* It is gone by another hand. */
	if (msg)
		(void)ec_netlink_exchange(sk, msg, &a);
}

static int open_socket(EcGuardShelf *s, sd_bus_error *ret_error)
{
	struct nl_sock *sk = NULL;
	const EcNetlinkAnswer nothing = { 0 };

	if (s->own)
		return 0;
	int r = ec_netlink_open(NETLINK_XFRM, &sk);
	if (r < 0)
		return ec_netlink_fail(
				r, &nothing, ret_error, "this kernel does not let us use it");
	s->own = sk;
	return 0;
}

static int apply(EcGuardShelf *s, const GPtrArray *gained, const GPtrArray *lost,
		sd_bus_error *ret_error)
{
	int r = open_socket(s, ret_error);

	for (guint i = 0; r >= 0 && i < gained->len; i++) {
		r = add(s->own, gained->pdata[i], ret_error);
		for (guint undone = 0; r < 0 && undone < i; undone++)
			drop(s->own, gained->pdata[undone]);
	}
	for (guint i = 0; r >= 0 && i < lost->len; i++)
		drop(s->own, lost->pdata[i]);
	return r;
}

static int take_policy(struct nlmsghdr *h, void *userdata)
{
	const struct xfrm_userpolicy_info *policy = nlmsg_data(h);
	EcGuardItem item = { 0 };

	if (h->nlmsg_type != XFRM_MSG_NEWPOLICY || !nlmsg_valid_hdr(h, sizeof(*policy)) ||
			policy->sel.user != OUR_USER || policy->action != XFRM_POLICY_BLOCK ||
			policy->dir > XFRM_POLICY_OUT)
		return 0;
	bool out = policy->dir == XFRM_POLICY_OUT;
	item.type = out ? OUT : IN;
	item.family = (uint8_t)policy->sel.family;
	item.protocol = policy->sel.proto;
	item.port = ntohs(policy->sel.dport);
	memcpy(item.other, out ? &policy->sel.saddr : &policy->sel.daddr, sizeof(item.other));
	memcpy(item.peer, out ? &policy->sel.daddr : &policy->sel.saddr, sizeof(item.peer));
	(void)g_hash_table_add(userdata, g_memdup2(&item, sizeof(item)));
	return 0;
}

static int list(EcGuardShelf *s, GHashTable *found)
{
	EcNetlinkAnswer a = { .on_message = take_policy, .userdata = found };
	g_autoptr(EcMessage) msg =
			nlmsg_alloc_simple(XFRM_MSG_GETPOLICY, NLM_F_REQUEST | NLM_F_DUMP);
	struct xfrm_userpolicy_id id = { 0 };

	if (!msg || nlmsg_append(msg, &id, sizeof(id), NLMSG_ALIGNTO) < 0)
		return -ENOMEM;
	return ec_netlink_exchange(s->own, msg, &a);
}

static int recheck(EcGuardShelf *s, sd_bus_error *ret_error)
{
	g_autoptr(GHashTable) found = ec_guard_item_set();
	const EcNetlinkAnswer nothing = { 0 };
	GHashTableIter i;
	gpointer item;
	int r = open_socket(s, ret_error);

	if (r < 0)
		return r;
	do {
		g_hash_table_remove_all(found);
		r = list(s, found);
	} while (r == -EINTR);
	if (r < 0)
		return ec_netlink_fail(r, &nothing, ret_error, "cannot list policies");
	g_hash_table_iter_init(&i, s->items);
	while (r >= 0 && g_hash_table_iter_next(&i, &item, NULL)) {
		if (!g_hash_table_contains(found, item))
			r = add(s->own, item, ret_error);
	}
	return r;
}

static void done(EcGuardShelf *s)
{
	nl_socket_free(s->own);
}

const EcGuardLayer ec_guard_layer_xfrm = {
	.bit = EC_GUARD_XFRM,
	.word = "xfrm",
	.title = "IPsec policy",
	.render = render,
	.apply = apply,
	.recheck = recheck,
	.done = done,
};
