/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "kernel-watch.h"

#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guard.h"

/*
 * DOC: Theory of operation
 *
 * One non-blocking rtnetlink socket subscribed to links, addresses, routes and rules. It is drained
 * whenever it is readable; each message becomes one call of the handler, which only notes what to
 * look at. Decisions are made later on the kernel's present state, so an event that is out of date
 * does no harm.
 *
 * When the kernel had to drop events (ENOBUFS) nothing heard before counts: the handler is told
 * EC_KERNEL_LOST and everything is looked at anew. 8 MiB of buffer hold some 6,600 link events.
 *
 * IPv6 link-local addresses and routes come with every interface, ours included, and can never lead
 * to a peer: they are dropped here.
 */

#define RECEIVE_BUFFER (8 * 1024 * 1024)
#define MESSAGE_BUFFER 65536

struct EcKernelWatch {
	int fd;
	sd_event_source *source;
	EcKernelHandler handler;
	void *userdata;
	char *buffer;
};

static bool is_link_scope(const struct nlattr *a)
{
	const uint8_t *p = a && nla_len(a) == 16 ? nla_data(a) : NULL;

	return p && ((p[0] == 0xfe && (p[1] & 0xc0) == 0x80) || p[0] == 0xff);
}

static bool route_matters(const struct nlmsghdr *h, bool *ret_guards)
{
	struct nlattr *tb[RTA_MAX + 1];
	const struct rtmsg *rtm = nlmsg_data(h);

	if (nlmsg_parse((struct nlmsghdr *)h, sizeof(*rtm), tb, RTA_MAX, NULL) < 0)
		return false;
	*ret_guards = tb[RTA_TABLE] && nla_get_u32(tb[RTA_TABLE]) == EC_GUARD_ROUTE_TABLE;
	return rtm->rtm_type != RTN_BROADCAST && rtm->rtm_type != RTN_MULTICAST &&
	       rtm->rtm_type != RTN_ANYCAST && !is_link_scope(tb[RTA_DST]);
}

static bool is_guards_rule(const struct nlmsghdr *h)
{
	struct nlattr *tb[FRA_MAX + 1];

	return nlmsg_parse((struct nlmsghdr *)h, sizeof(struct fib_rule_hdr), tb, FRA_MAX, NULL) >=
			       0 &&
	       tb[FRA_TABLE] && nla_get_u32(tb[FRA_TABLE]) == EC_GUARD_ROUTE_TABLE;
}

/* The guard's own routing is no news to the tunnels, unless somebody takes it away. */
static void tell_routes(EcKernelWatch *w, bool guards, bool gone)
{
	if (!guards)
		w->handler(EC_KERNEL_ROUTES, NULL, w->userdata);
	else if (gone)
		w->handler(EC_KERNEL_GUARD, NULL, w->userdata);
}

static bool address_matters(const struct nlmsghdr *h)
{
	struct nlattr *tb[IFA_MAX + 1];

	return nlmsg_parse((struct nlmsghdr *)h, sizeof(struct ifaddrmsg), tb, IFA_MAX, NULL) >=
			       0 &&
	       !is_link_scope(tb[IFA_ADDRESS]);
}

static void dispatch(EcKernelWatch *w, const struct nlmsghdr *h)
{
	g_auto(EcLink) link = { 0 };
	bool guards = false;

	switch (h->nlmsg_type) {
	case RTM_NEWLINK:
	case RTM_DELLINK:
		/* AF_BRIDGE messages tell of ports and use the same type. */
		if (((const struct ifinfomsg *)nlmsg_data(h))->ifi_family == AF_UNSPEC &&
				ec_link_parse(h, &link) >= 0)
			w->handler(h->nlmsg_type == RTM_NEWLINK ? EC_KERNEL_LINK : EC_KERNEL_UNLINK,
					&link, w->userdata);
		break;
	case RTM_NEWROUTE:
	case RTM_DELROUTE:
		if (route_matters(h, &guards))
			tell_routes(w, guards, h->nlmsg_type == RTM_DELROUTE);
		break;
	case RTM_NEWADDR:
	case RTM_DELADDR:
		if (address_matters(h))
			w->handler(EC_KERNEL_ROUTES, NULL, w->userdata);
		break;
	case RTM_NEWRULE:
	case RTM_DELRULE:
		tell_routes(w, is_guards_rule(h), h->nlmsg_type == RTM_DELRULE);
		break;
	default:
		break;
	}
}

static int on_readable(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	EcKernelWatch *w = userdata;

	for (;;) {
		ssize_t n = recv(fd, w->buffer, MESSAGE_BUFFER, MSG_DONTWAIT | MSG_TRUNC);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == ENOBUFS) {
			w->handler(EC_KERNEL_LOST, NULL, w->userdata);
			continue;
		}
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		if (n > MESSAGE_BUFFER) {
			w->handler(EC_KERNEL_LOST, NULL, w->userdata);
			continue;
		}
		int left = (int)n;
		for (struct nlmsghdr *h = (void *)w->buffer; nlmsg_ok(h, left);
				h = nlmsg_next(h, &left))
			dispatch(w, h);
	}
}

int ec_kernel_watch_new(
		sd_event *event, EcKernelHandler handler, void *userdata, EcKernelWatch **ret)
{
	static const int groups[] = { RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR,
		RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE };
	struct sockaddr_nl address = { .nl_family = AF_NETLINK };
	EcKernelWatch *w = g_new0(EcKernelWatch, 1);
	int size = RECEIVE_BUFFER, r = 0;

	w->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
	w->handler = handler;
	w->userdata = userdata;
	w->buffer = g_malloc(MESSAGE_BUFFER);
	if (w->fd < 0 || bind(w->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		r = -errno;
	/* Without CAP_NET_ADMIN the plain option is cut to rmem_max; better than nothing. */
	if (r == 0 && setsockopt(w->fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
		(void)setsockopt(w->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	for (size_t i = 0; r == 0 && i < EC_ELEMENTS(groups); i++) {
		if (setsockopt(w->fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &groups[i],
				    sizeof(groups[i])) < 0)
			r = -errno;
	}
	if (r == 0)
		r = sd_event_add_io(event, &w->source, w->fd, EPOLLIN, on_readable, w);
	if (r < 0) {
		(void)ec_kernel_watch_free(w);
		return r;
	}
	*ret = w;
	return 0;
}

EcKernelWatch *ec_kernel_watch_free(EcKernelWatch *w)
{
	if (!w)
		return NULL;
	(void)sd_event_source_disable_unref(w->source);
	if (w->fd >= 0)
		(void)close(w->fd);
	g_free(w->buffer);
	g_free(w);
	return NULL;
}
