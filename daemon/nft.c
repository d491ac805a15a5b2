/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "nft.h"

#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <nftables/libnftables.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netlink.h"

/*
 * DOC: Theory of operation
 *
 * Every transaction of a network namespace has a number, the generation. The kernel tells of a
 * transaction in one message for each object, then NEWGEN with the number. To know our own ones,
 * the number is read before and after each: one more means that it is ours alone. Any other that
 * names one of our tables is foreign. When somebody commits at the same moment our own is taken for
 * foreign; the table is then made once more than needed, and nothing worse.
 *
 * When events were lost (ENOBUFS: a large transaction, mostly our own) the numbers tell whether
 * there was a foreign one among them.
 *
 * libnftables ends the process when it cannot open its socket. So others of the same sort are
 * opened first, and it is only asked when that went well.
 */

#define RECEIVE_BUFFER (4 * 1024 * 1024)
#define MESSAGE_BUFFER 65536

typedef struct Range {
	uint32_t first, last;
} Range;

struct EcNft {
	struct nft_ctx *ctx;
	struct nl_sock *sk; /* for questions */
	int fd;             /* for events */
	sd_event_source *source;
	char *buffer;
	char *table;
	EcNftTouched touched;
	void *userdata;
	unsigned families; /* touched by the transaction that is being read */
	uint32_t last;     /* newest generation that we know of */
	bool unsure;       /* others may have committed since the last event that was read */
	GArray *own;       /* Range: generations of ours whose event has not been read */
};

static int take_generation(struct nlmsghdr *h, void *userdata)
{
	struct nlattr *tb[NFTA_GEN_MAX + 1];

	if (nlmsg_parse(h, sizeof(struct nfgenmsg), tb, NFTA_GEN_MAX, NULL) >= 0 && tb[NFTA_GEN_ID])
		*(uint32_t *)userdata = ntohl(nla_get_u32(tb[NFTA_GEN_ID]));
	return 0;
}

static int get_generation(EcNft *n, uint32_t *ret, EcNetlinkAnswer *a)
{
	const struct nfgenmsg body = { .nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0 };
	g_autoptr(EcMessage) msg = nlmsg_alloc_simple(
			NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN, NLM_F_REQUEST | NLM_F_ACK);

	*a = (EcNetlinkAnswer){ .on_message = take_generation, .userdata = ret };
	if (!msg || nlmsg_append(msg, (void *)&body, sizeof(body), NLMSG_ALIGNTO) < 0)
		return -ENOMEM;
	return ec_netlink_exchange(n->sk, msg, a);
}

static bool is_own(EcNft *n, uint32_t generation)
{
	bool own = false;

	for (guint i = n->own->len; i-- > 0;) {
		const Range *r = &g_array_index(n->own, Range, i);

		own = own || generation - r->first <= r->last - r->first;
		if ((int32_t)(r->last - generation) <= 0)
			g_array_remove_index_fast(n->own, i);
	}
	return own;
}

static void note_own(EcNft *n, uint32_t generation)
{
	const Range range = { generation, generation };

	n->last = generation;
	for (guint i = 0; i < n->own->len; i++) {
		Range *r = &g_array_index(n->own, Range, i);

		if (r->last + 1 == generation) {
			r->last = generation;
			return;
		}
	}
	g_array_append_val(n->own, range);
}

static void end_of_transaction(EcNft *n, struct nlmsghdr *h)
{
	struct nlattr *tb[NFTA_GEN_MAX + 1];
	char who[32] = "";
	unsigned families = n->families;

	n->families = 0;
	if (nlmsg_parse(h, sizeof(struct nfgenmsg), tb, NFTA_GEN_MAX, NULL) < 0 || !tb[NFTA_GEN_ID])
		return;
	uint32_t generation = ntohl(nla_get_u32(tb[NFTA_GEN_ID]));
	if ((int32_t)(generation - n->last) > 0)
		n->last = generation;
	if (is_own(n, generation) || !families)
		return;
	if (tb[NFTA_GEN_PROC_NAME])
		nla_strlcpy(who, tb[NFTA_GEN_PROC_NAME], sizeof(who));
	n->touched(families, ec_text_is_clean(who) ? who : "", n->userdata);
}

static void take_event(EcNft *n, struct nlmsghdr *h)
{
	/* In all messages of nftables the first attribute is the name of the table. */
	static_assert(NFTA_TABLE_NAME == 1 && NFTA_CHAIN_TABLE == 1 && NFTA_RULE_TABLE == 1 &&
					NFTA_SET_TABLE == 1 && NFTA_SET_ELEM_LIST_TABLE == 1 &&
					NFTA_OBJ_TABLE == 1,
			"first attribute");
	const struct nfgenmsg *body = nlmsg_data(h);

	if (h->nlmsg_type >> 8 != NFNL_SUBSYS_NFTABLES || !nlmsg_valid_hdr(h, sizeof(*body)))
		return;
	if ((h->nlmsg_type & 0xff) == NFT_MSG_NEWGEN) {
		end_of_transaction(n, h);
		return;
	}
	const struct nlattr *name = nlmsg_find_attr(h, sizeof(*body), NFTA_TABLE_NAME);
	if (!name || nla_strcmp(name, n->table) != 0)
		return;
	if (body->nfgen_family == NFPROTO_INET)
		n->families |= EC_NFT_INET;
	else if (body->nfgen_family == NFPROTO_BRIDGE)
		n->families |= EC_NFT_BRIDGE;
}

static void lost_events(EcNft *n)
{
	EcNetlinkAnswer a;
	uint32_t now = 0;
	bool foreign = n->unsure || get_generation(n, &now, &a) < 0 || now != n->last;

	n->unsure = false;
	n->families = 0;
	if (now)
		n->last = now;
	if (foreign)
		n->touched(EC_NFT_INET | EC_NFT_BRIDGE, "", n->userdata);
}

static int on_readable(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	EcNft *n = userdata;
	bool lost = false;

	for (;;) {
		ssize_t size = recv(fd, n->buffer, MESSAGE_BUFFER, MSG_DONTWAIT | MSG_TRUNC);

		if (size < 0 && errno == EINTR)
			continue;
		if (size > MESSAGE_BUFFER || (size < 0 && errno == ENOBUFS)) {
			lost = true;
			continue;
		}
		if (size < 0 && errno != EAGAIN)
			return -errno;
		if (size < 0)
			break;
		int left = (int)size;
		for (struct nlmsghdr *h = (void *)n->buffer; nlmsg_ok(h, left);
				h = nlmsg_next(h, &left))
			take_event(n, h);
	}
	if (lost)
		lost_events(n);
	n->unsure = false;
	return 0;
}

static int open_events(EcNft *n, sd_event *event)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK };
	int size = RECEIVE_BUFFER, group = NFNLGRP_NFTABLES;

	n->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER);
	if (n->fd < 0 || bind(n->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	if (setsockopt(n->fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
		(void)setsockopt(n->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	if (setsockopt(n->fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) < 0)
		return -errno;
	return sd_event_add_io(event, &n->source, n->fd, EPOLLIN, on_readable, n);
}

/* Whether another socket can be had at this moment. */
static int try_socket(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);

	return fd < 0 ? -errno : close(fd);
}

static int open_library(EcNft *n)
{
	int r = try_socket();

	if (r < 0)
		return r;
	n->ctx = nft_ctx_new(NFT_CTX_DEFAULT);
	if (!n->ctx || nft_ctx_buffer_output(n->ctx) || nft_ctx_buffer_error(n->ctx))
		return -ENOMEM;
	return 0;
}

int ec_nft_new(sd_event *event, const char *table, EcNftTouched touched, void *userdata,
		EcNft **ret, sd_bus_error *ret_error)
{
	EcNft *n = g_new0(EcNft, 1);
	EcNetlinkAnswer a = { 0 };

	n->fd = -1;
	n->table = g_strdup(table);
	n->touched = touched;
	n->userdata = userdata;
	n->buffer = g_malloc(MESSAGE_BUFFER);
	n->own = g_array_new(FALSE, FALSE, sizeof(Range));
	int r = ec_netlink_open(NETLINK_NETFILTER, &n->sk);
	if (r >= 0)
		r = get_generation(n, &n->last, &a);
	if (r >= 0)
		r = open_events(n, event);
	if (r >= 0)
		r = open_library(n);
	if (r < 0) {
		(void)ec_nft_free(n);
		return ec_netlink_fail(r, &a, ret_error, "this kernel does not let us use it");
	}
	*ret = n;
	return 0;
}

EcNft *ec_nft_free(EcNft *n)
{
	if (!n)
		return NULL;
	(void)sd_event_source_disable_unref(n->source);
	if (n->fd >= 0)
		(void)close(n->fd);
	nl_socket_free(n->sk);
	if (n->ctx)
		nft_ctx_free(n->ctx);
	g_array_unref(n->own);
	g_free(n->buffer);
	g_free(n->table);
	g_free(n);
	return NULL;
}

/* "<cmdline>:1:1-9: Error: Could not process rule: No such file\n..." and what it pointed at. */
static int fail(EcNft *n, sd_bus_error *ret_error)
{
	const char *said = nft_ctx_get_error_buffer(n->ctx);
	const char *begin = said ? strstr(said, "Error: ") : NULL;
	g_autofree char *line = g_strdup(begin ? begin + strlen("Error: ") : said ? said : "");

	line[strcspn(line, "\r\n")] = '\0';
	g_autofree char *clean = g_utf8_make_valid(line, -1);
	for (char *p = clean; *p; p++) {
		if (g_ascii_iscntrl(*p))
			*p = ' ';
	}
	(void)ec_error(ret_error, EC_ERROR_KERNEL, "%s", *clean ? clean : "it did not say why");
	return -EIO;
}

int ec_nft_run(EcNft *n, const char *commands, sd_bus_error *ret_error)
{
	uint32_t before = 0, after = 0;
	EcNetlinkAnswer a;

	(void)get_generation(n, &before, &a);
	n->unsure |= before != n->last;
	if (nft_run_cmd_from_buffer(n->ctx, commands) != 0)
		return fail(n, ret_error);
	(void)get_generation(n, &after, &a);
	if (after == before + 1)
		note_own(n, after);
	return 0;
}

/* One element, by netlink: libnftables would read the whole set first. */
static int take_counter(struct nlmsghdr *h, void *userdata)
{
	static const int path[] = { NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_LIST_ELEM, NFTA_SET_ELEM_EXPR,
		NFTA_EXPR_DATA, NFTA_COUNTER_PACKETS };
	const struct nlattr *at = nlmsg_find_attr(h, sizeof(struct nfgenmsg), path[0]);

	for (size_t i = 1; at && i < EC_ELEMENTS(path); i++)
		at = nla_find(nla_data(at), nla_len(at), path[i]);
	if (at && nla_len(at) == sizeof(uint64_t))
		*(uint64_t *)userdata = GUINT64_FROM_BE(nla_get_u64(at));
	return at ? 0 : -EBADMSG;
}

int ec_nft_counter(EcNft *n, const char *set, const void *key, size_t size, uint64_t *ret)
{
	const struct nfgenmsg body = { .nfgen_family = NFPROTO_INET, .version = NFNETLINK_V0 };
	EcNetlinkAnswer a = { .on_message = take_counter, .userdata = ret };
	g_autoptr(EcMessage) msg = nlmsg_alloc_simple(
			NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETSETELEM, NLM_F_REQUEST | NLM_F_ACK);

	if (!msg || nlmsg_append(msg, (void *)&body, sizeof(body), NLMSG_ALIGNTO) < 0 ||
			nla_put_string(msg, NFTA_SET_ELEM_LIST_TABLE, n->table) < 0 ||
			nla_put_string(msg, NFTA_SET_ELEM_LIST_SET, set) < 0)
		return -ENOMEM;
	struct nlattr *list = nla_nest_start(msg, NFTA_SET_ELEM_LIST_ELEMENTS | NLA_F_NESTED);
	struct nlattr *element = nla_nest_start(msg, NFTA_LIST_ELEM | NLA_F_NESTED);
	struct nlattr *nest = nla_nest_start(msg, NFTA_SET_ELEM_KEY | NLA_F_NESTED);
	if (!list || !element || !nest || nla_put(msg, NFTA_DATA_VALUE, (int)size, key) < 0)
		return -ENOMEM;
	nla_nest_end(msg, nest);
	nla_nest_end(msg, element);
	nla_nest_end(msg, list);
	return ec_netlink_exchange(n->sk, msg, &a);
}
