/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "underlay.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/if_tunnel.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "underlay/holder.h"
#include "underlay/vici.h"
#include "underlay/xfrm.h"

/*
 * DOC: Theory of operation
 *
 * IPsec comes in three shapes: policies that take packets wherever they leave (flow(), list());
 * interfaces that lead to policies of their own (kind xfrm, told by if_id; kind vti, by mark); and
 * a TUN in which strongSwan encrypts by itself (kernel-libipsec). What the kernel's policies and
 * security associations (SA) say is the verdict, whichever IKE daemon put them there. VICI only
 * gives them names.
 *
 * Policies and SAs are read whole and kept until an event of the XFRM socket says that they
 * changed. The socket is drained before they are used: an answer never rests on what an event, on
 * its way to us already, has overtaken. If events came while they were read out, they are read
 * again. Policies of our own guard are none, and their events are none.
 *
 * A policy without an SA protects and carries nothing: packets are dropped until the IKE daemon has
 * made one. It is asked as a packet would ask: by connecting a socket, or, where that would meet
 * another policy, by the kernel's own question put in our name. Meanwhile the answer is "down"; the
 * SA's event or, if none comes, a timer leads to the next look.
 *
 * The MTU is what the kernel says to a socket connected like the tunnel: that sees the policy. The
 * size computed from the SA stands in where no such socket can be had: without CAP_NET_RAW for a
 * policy on GRE alone, and behind interfaces.
 */

#define RECEIVE_BUFFER (4 * 1024 * 1024)
#define MESSAGE_BUFFER 65536
#define DUMP_TRIES 5
#define UNWATCHED_USEC ((int64_t)G_USEC_PER_SEC)   /* how long a dump is good without events */
#define ASK_USEC (10 * (int64_t)G_USEC_PER_SEC)    /* between questions for one policy's SA */
#define RETRY_USEC (30 * (uint64_t)G_USEC_PER_SEC) /* after the answer "no SA" */
#define ASKED_MAX 4096
#define DISCARD_PORT 9
#define ETHERNET_MTU 1500
#define BLACKHOLE_MTU 65535 /* a route that leads nowhere for want of an SA says 65536 */

typedef struct Ipsec {
	EcSource s;
	int fd; /* events; -1: none to be had */
	sd_event_source *io, *report, *retry;
	char *buffer;
	EcXfrm *x;
	int64_t loaded; /* when, 0 never */
	bool fresh;
	bool told;         /* why nothing can be known */
	GHashTable *asked; /* index of a policy -> gint64, when its SA was asked for */
	EcVici *vici;
	EcHolders *holders;
} Ipsec;

/* Events */

/* Takes what has arrived. True if policies or SAs may have changed. */
static bool drain(Ipsec *i)
{
	bool matters = false;

	while (i->fd >= 0) {
		ssize_t n = recv(i->fd, i->buffer, MESSAGE_BUFFER, MSG_DONTWAIT | MSG_TRUNC);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != ENOBUFS)
			break;
		if (n < 0 || n > MESSAGE_BUFFER) { /* events were lost */
			matters = true;
			continue;
		}
		int left = (int)n;
		for (struct nlmsghdr *h = (void *)i->buffer; nlmsg_ok(h, left);
				h = nlmsg_next(h, &left))
			matters |= ec_xfrm_event_matters(h);
	}
	if (matters)
		i->fresh = false;
	return matters;
}

static int on_readable(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	Ipsec *i = userdata;

	if (drain(i))
		ec_underlay_report(&i->s);
	return 0;
}

static int on_report(sd_event_source *s, void *userdata)
{
	ec_underlay_report(&((Ipsec *)userdata)->s);
	return 0;
}

static int on_retry(sd_event_source *s, uint64_t usec, void *userdata)
{
	Ipsec *i = userdata;

	i->retry = sd_event_source_disable_unref(i->retry);
	ec_underlay_report(&i->s);
	return 0;
}

static void on_names(void *userdata)
{
	ec_underlay_report(&((Ipsec *)userdata)->s);
}

/* Events that were met while answering: whoever listens is told from the loop. */
static void report_soon(Ipsec *i)
{
	if (i->report)
		(void)sd_event_source_set_enabled(i->report, SD_EVENT_ONESHOT);
	else
		(void)sd_event_add_defer(i->s.event, &i->report, on_report, i);
}

static int subscribe(Ipsec *i)
{
	static const int groups[] = { XFRMNLGRP_EXPIRE, XFRMNLGRP_SA, XFRMNLGRP_POLICY,
		XFRMNLGRP_MIGRATE, XFRMNLGRP_MAPPING };
	struct sockaddr_nl address = { .nl_family = AF_NETLINK };
	int size = RECEIVE_BUFFER, r = 0;

	i->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_XFRM);
	if (i->fd < 0 || bind(i->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		r = -errno;
	if (r == 0 && setsockopt(i->fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
		(void)setsockopt(i->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	for (size_t n = 0; r == 0 && n < EC_ELEMENTS(groups); n++) {
		if (setsockopt(i->fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &groups[n],
				    sizeof(groups[n])) < 0)
			r = -errno;
	}
	if (r == 0)
		r = sd_event_add_io(i->s.event, &i->io, i->fd, EPOLLIN, on_readable, i);
	if (r < 0 && i->fd >= 0) {
		(void)close(i->fd);
		i->fd = -1;
	}
	return r;
}

/* What is known */

static bool is_fresh(Ipsec *i)
{
	if (drain(i))
		report_soon(i);
	return i->fresh && (i->fd >= 0 || g_get_monotonic_time() - i->loaded < UNWATCHED_USEC);
}

/* Reads until nothing happens meanwhile. */
static int read_all(Ipsec *i, sd_bus_error *ret_error)
{
	g_autoptr(EcXfrm) x = ec_xfrm_new();
	struct nl_sock *sk = NULL;
	int r = ec_netlink_open(NETLINK_XFRM, &sk);

	for (int try = 0; r >= 0 && try < DUMP_TRIES; try++) {
		sd_bus_error_free(ret_error);
		r = ec_xfrm_dump(sk, x, ret_error);
		if (r >= 0 && drain(i))
			r = -EINTR;
		if (r != -EINTR)
			break;
		report_soon(i);
		r = try + 1 < DUMP_TRIES ? 0 : r;
	}
	if (sk)
		nl_socket_free(sk);
	if (r == -EINTR) {
		sd_bus_error_free(ret_error);
		(void)ec_error(ret_error, EC_ERROR_NO_UNDERLAY,
				"IPsec policies and security associations change all the while; what "
				"protects the tunnel cannot be told before they rest");
	}
	if (r < 0)
		return r;
	(void)ec_xfrm_free(i->x);
	i->x = g_steal_pointer(&x);
	return 0;
}

/* Makes i->x right. A kernel without IPsec and one that does not let us look have none. */
static int load(Ipsec *i, sd_bus_error *ret_error)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	bool any = false;

	if (is_fresh(i))
		return 0;
	if (i->fd < 0 && i->io == NULL)
		(void)subscribe(i);
	int r = read_all(i, &error);
	if (r == -EPROTONOSUPPORT || r == -EAFNOSUPPORT || r == -EPERM || r == -EACCES) {
		if (!i->told)
			g_info("IPsec is not looked for: %s", g_strerror(-r));
		i->told = true;
		(void)ec_xfrm_free(i->x);
		i->x = ec_xfrm_new();
	} else if (r < 0) {
		i->fresh = false;
		if (!sd_bus_error_is_set(&error))
			(void)ec_error(&error, EC_ERROR_KERNEL, "IPsec policies cannot be read: %s",
					g_strerror(-r));
		(void)sd_bus_error_move(ret_error, &error);
		return r;
	}
	i->fresh = true;
	i->loaded = g_get_monotonic_time();
	for (guint n = 0; !any && n < i->x->policies->len; n++)
		any = ec_xfrm_protects(&g_array_index(i->x->policies, EcXfrmPolicy, n));
	ec_vici_want(i->vici, any);
	return 0;
}

/* Asking for an SA */

static void come_back(Ipsec *i)
{
	if (!i->retry)
		(void)sd_event_add_time_relative(i->s.event, &i->retry, CLOCK_MONOTONIC, RETRY_USEC,
				RETRY_USEC / 10, on_retry, i);
}

/* Once in a while: unlike a packet, the question leaves no trace in the kernel. */
static void ask(Ipsec *i, const EcXfrmPolicy *p)
{
	int64_t now = g_get_monotonic_time();
	gpointer key = GUINT_TO_POINTER(p->info.index);
	const int64_t *last = g_hash_table_lookup(i->asked, key);
	struct nl_sock *sk = NULL;

	if (last && now - *last < ASK_USEC)
		return;
	if (g_hash_table_size(i->asked) >= ASKED_MAX) /* of policies long gone */
		g_hash_table_remove_all(i->asked);
	g_hash_table_replace(i->asked, key, g_memdup2(&now, sizeof(now)));
	int r = ec_netlink_open(NETLINK_XFRM, &sk);
	if (r >= 0)
		r = ec_xfrm_acquire(sk, p);
	if (sk)
		nl_socket_free(sk);
	if (r < 0)
		g_info("the IKE daemon could not be asked for a security association: %s",
				g_strerror(-r));
}

/* Sizes */

/* What the path of the ESP packets carries. */
static uint32_t outer_mtu(
		Ipsec *i, const EcXfrmPolicy *p, const EcXfrmPacket *packet, uint32_t fallback)
{
	const EcFlow flow = { .remote = ec_xfrm_gateway(p, packet) };
	g_auto(EcLink) link = { 0 };
	EcRoute route;

	if (flow.remote.family == AF_UNSPEC ||
			ec_kernel_route_get(i->s.kernel, &flow, &route, NULL) <= 0 ||
			ec_kernel_link_by_index(i->s.kernel, route.ifindex, &link, NULL) <= 0)
		return fallback ? fallback : ETHERNET_MTU;
	return route.mtu ? MIN(route.mtu, link.mtu) : link.mtu;
}

static uint32_t computed_mtu(Ipsec *i, const EcXfrmPolicy *p, const EcXfrmSa *sa,
		const EcXfrmPacket *packet, uint32_t fallback)
{
	uint32_t mtu = ec_xfrm_policy_mtu(p, sa, outer_mtu(i, p, packet, fallback));

	return fallback ? MIN(mtu, fallback) : mtu;
}

static socklen_t to_sockaddr(
		const EcAddress *a, uint16_t port, int ifindex, struct sockaddr_storage *ret)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };

	if (a->family == AF_INET) {
		in.sin_addr = a->v4;
		memcpy(ret, &in, sizeof(in));
		return sizeof(in);
	}
	in6.sin6_addr = a->v6;
	if (IN6_IS_ADDR_LINKLOCAL(&a->v6))
		in6.sin6_scope_id = (uint32_t)ifindex;
	memcpy(ret, &in6, sizeof(in6));
	return sizeof(in6);
}

/* What the kernel says to a socket of this flow; 0 when there can be none. *ret_same: it is looked
 * up as the tunnel's packets are, so it meets the same policy. Asks for an SA if one is missing. */
static uint32_t socket_mtu(const EcXfrmPacket *packet, const EcXfrmPolicy *p, bool *ret_same)
{
	bool v6 = packet->target.family == AF_INET6, udp = packet->protocol == IPPROTO_UDP;
	struct sockaddr_storage address;
	int fd = -1, mtu = 0;
	socklen_t size = sizeof(mtu);

	*ret_same = true;
	if (packet->protocol && !udp)
		fd = socket(packet->target.family, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK,
				packet->protocol);
	if (fd < 0) {
		*ret_same = udp || p->info.sel.proto == 0;
		udp = true;
		fd = socket(packet->target.family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	}
	if (fd < 0)
		return 0;
	uint16_t port = udp ? (packet->target_port ? packet->target_port : DISCARD_PORT) : 0;
	if (p->info.sel.dport_mask && packet->protocol != IPPROTO_UDP)
		*ret_same = false;
	int r = packet->mark ? setsockopt(fd, SOL_SOCKET, SO_MARK, &packet->mark,
					       sizeof(packet->mark))
			     : 0;
	if (r == 0 && packet->source.family != AF_UNSPEC)
		r = bind(fd, (struct sockaddr *)&address,
				to_sockaddr(&packet->source, 0, packet->ifindex, &address));
	if (r == 0)
		r = connect(fd, (struct sockaddr *)&address,
				to_sockaddr(&packet->target, port, packet->ifindex, &address));
	if (r == 0)
		r = getsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_MTU : IP_MTU, &mtu,
				&size);
	(void)close(fd);
	return r == 0 && mtu > 0 ? (uint32_t)mtu : 0;
}

/* Policies */

static const char *name_of(Ipsec *i, const EcXfrmPolicy *p)
{
	const struct xfrm_user_tmpl *t = ec_xfrm_template(p);

	return t ? ec_vici_name(i->vici, t->reqid) : NULL;
}

static void make_title(
		Ipsec *i, const EcXfrmPolicy *p, const EcXfrmPacket *packet, char ret[static 96])
{
	EcAddress gateway = ec_xfrm_gateway(p, packet);
	char address[INET6_ADDRSTRLEN];
	const char *name = name_of(i, p);
	g_autofree char *peers =
			gateway.family == AF_UNSPEC
					? ec_xfrm_selector_text(&p->info.sel, true)
					: g_strdup(ec_address_to_string(&gateway, address));
	g_autofree char *with_name = name ? g_strdup_printf("IPsec to %s (%s)", peers, name) : NULL;

	if (with_name && strlen(with_name) < 96)
		g_strlcpy(ret, with_name, 96);
	else
		(void)g_snprintf(ret, 96, "IPsec to %s", peers);
}

static bool is_xfrm(const EcLink *link)
{
	static const char *const kinds[] = { "xfrm", "vti", "vti6", NULL };
	/* The kernel's own, in every network namespace. */
	static const char *const idle[] = { "ip_vti0", "ip6_vti0", NULL };

	return g_strv_contains(kinds, link->kind) && !g_strv_contains(idle, link->name);
}

/* Says why the flow is not carried; 0. */
#define refuse(ret_why, name, ...) ((void)ec_error((ret_why), (name), __VA_ARGS__), 0)

/* Does the policy that applies protect? 1 and *ret, 0 and why, -ENOENT when no IPsec is meant. */
static int find_policy(Ipsec *i, const EcXfrmPacket *packet, const EcXfrmPolicy **ret,
		sd_bus_error *ret_why)
{
	const EcXfrmPolicy *p = ec_xfrm_policy_for(i->x, XFRM_POLICY_OUT, packet, false);
	char peer[INET6_ADDRSTRLEN];

	(void)ec_address_to_string(&packet->target, peer);
	if (!p)
		return -ENOENT;
	if (p->info.action == XFRM_POLICY_BLOCK)
		return refuse(ret_why, EC_ERROR_NOT_PROTECTED,
				"an IPsec policy blocks packets to %s", peer);
	if (ec_xfrm_protects(p)) {
		*ret = p;
		return 1;
	}
	if (p->n_templates > 0)
		return refuse(ret_why, EC_ERROR_NOT_PROTECTED,
				"the IPsec policy for packets to %s does not encrypt them", peer);
	if (ec_xfrm_policy_for(i->x, XFRM_POLICY_OUT, packet, true))
		return refuse(ret_why, EC_ERROR_NOT_PROTECTED,
				"an IPsec bypass policy lets packets to %s pass in clear", peer);
	return -ENOENT;
}

static int refuse_no_sa(Ipsec *i, const char *title, sd_bus_error *ret_why)
{
	come_back(i);
	return refuse(ret_why, EC_ERROR_NO_UNDERLAY,
			"%s has no security association; the IKE daemon was asked for one", title);
}

static int refuse_null(const EcXfrmSa *sa, const char *title, sd_bus_error *ret_why)
{
	return refuse(ret_why, EC_ERROR_NOT_PROTECTED,
			"%s authenticates packets, but does not encrypt them (%s)", title,
			sa->algorithm);
}

static int through(EcSource *s, const EcLink *link, const EcFlow *f, EcPath *path,
		sd_bus_error *ret_why);

/* A flow that no policy takes as it is: an interface of ours may, which is not up until somebody
 * asks for its SA. 0 and why, -ENOENT for what is no such case. */
static int behind_interface(Ipsec *i, const EcFlow *f, const EcPath *path, sd_bus_error *ret_why)
{
	g_auto(EcLink) link = { 0 };
	EcPath own = *path;
	bool any = false;

	for (guint n = 0; !any && n < i->x->policies->len; n++) {
		const EcXfrmPolicy *p = &g_array_index(i->x->policies, EcXfrmPolicy, n);

		any = p->if_id || p->mark.m;
	}
	if (!any || ec_kernel_link_by_index(i->s.kernel, path->ifindex, &link, NULL) <= 0 ||
			!is_xfrm(&link))
		return -ENOENT;
	int r = through(&i->s, &link, f, &own, ret_why);
	return r > 0 ? -ENOENT : r;
}

static int flow(EcSource *s, const EcFlow *f, EcPath *path, char title[static 96],
		char name[static 96], sd_bus_error *ret_why)
{
	Ipsec *i = (Ipsec *)s;
	const EcXfrmPolicy *p = NULL;
	const EcXfrmPacket packet = {
		.source = f->local.family != AF_UNSPEC ? f->local : path->local,
		.target = f->remote,
		.protocol = f->protocol,
		.target_port = f->protocol == IPPROTO_UDP ? f->port : 0,
		.mark = f->fwmark,
		.ifindex = path->ifindex,
	};
	bool same;

	int r = load(i, ret_why);
	if (r < 0)
		return r == -EINTR ? 0 : r;
	r = find_policy(i, &packet, &p, ret_why);
	if (r == -ENOENT)
		return behind_interface(i, f, path, ret_why);
	if (r <= 0)
		return r;
	make_title(i, p, &packet, title);
	ec_xfrm_name(p, name);
	const EcXfrmSa *sa = ec_xfrm_sa_for(i->x, p, &packet);
	uint32_t mtu = socket_mtu(&packet, p, &same);
	bool nowhere = same && mtu && (mtu >= BLACKHOLE_MTU || (path->mtu && mtu > path->mtu));
	if (!sa && (!same || !mtu))
		ask(i, p);
	if (!sa || nowhere)
		return refuse_no_sa(i, title, ret_why);
	if (!sa->encrypts)
		return refuse_null(sa, title, ret_why);
	uint32_t computed = computed_mtu(i, p, sa, &packet, path->mtu);
	/* The interface's disable_xfrm lets packets leave in clear whatever the policies say. */
	if (same && mtu && mtu == path->mtu && computed < mtu)
		return refuse(ret_why, EC_ERROR_NOT_PROTECTED,
				"%s has a policy, but the kernel does not apply it on %s", title,
				path->device);
	path->fence = EC_FENCE_IPSEC;
	path->protect = true;
	path->mtu = same && mtu ? mtu : computed;
	return 1;
}

static const char *mode_name(uint8_t mode)
{
	static const char *const names[XFRM_MODE_MAX] = { "transport", "tunnel",
		"route-optimization", "in-trigger", "beet" };

	return mode < XFRM_MODE_MAX ? names[mode] : "unknown";
}

static void add_details(Ipsec *i, const EcXfrmPolicy *p, const EcXfrmSa *sa, EcLook *look)
{
	const struct xfrm_user_tmpl *t = ec_xfrm_template(p);
	EcAddress gateway = ec_xfrm_gateway(p, NULL);
	char address[INET6_ADDRSTRLEN];
	g_autofree char *local = ec_xfrm_selector_text(&p->info.sel, false);
	g_autofree char *remote = ec_xfrm_selector_text(&p->info.sel, true);
	const char *name = name_of(i, p);

	if (gateway.family != AF_UNSPEC)
		ec_look_add(look, "gateway", "%s", ec_address_to_string(&gateway, address));
	ec_look_add(look, "local-ts", "%s", local);
	ec_look_add(look, "remote-ts", "%s", remote);
	ec_look_add(look, "reqid", "%u", t->reqid);
	ec_look_add(look, "mode", "%s", mode_name(t->mode));
	if (sa)
		ec_look_add(look, "encryption", "%s", sa->algorithm);
	if (!ec_xfrm_inbound(i->x, p))
		ec_look_add(look, "inbound", "%s", "no policy");
	if (name)
		ec_look_add(look, "connection", "%s", name);
}

static void list(EcSource *s)
{
	Ipsec *i = (Ipsec *)s;

	if (load(i, NULL) < 0)
		return;
	for (guint n = 0; n < i->x->policies->len; n++) {
		const EcXfrmPolicy *p = &g_array_index(i->x->policies, EcXfrmPolicy, n);
		EcLook look = { 0 };
		char name[96];

		if (p->info.dir != XFRM_POLICY_OUT || p->if_id || !ec_xfrm_protects(p))
			continue;
		const EcXfrmSa *sa = ec_xfrm_sa_for(i->x, p, NULL);
		ec_xfrm_name(p, name);
		make_title(i, p, NULL, look.title);
		look.up = sa;
		look.protect = !sa || sa->encrypts;
		look.mtu = sa ? computed_mtu(i, p, sa, NULL, 0) : 0;
		add_details(i, p, sa, &look);
		ec_underlay_found(s, name, &look);
	}
}

/* Interfaces */

static uint32_t attribute_u32(const EcLink *link, int type)
{
	const struct nlattr *a =
			link->data ? nla_find(nla_data(link->data), nla_len(link->data), type)
				   : NULL;

	return a && nla_len(a) == sizeof(uint32_t) ? nla_get_u32(a) : 0;
}

/* The policies that an interface leads to; false when it leads to none in particular. */
static bool identity(const EcLink *link, EcXfrmPacket *ret, int *ret_parent)
{
	bool vti = g_str_has_prefix(link->kind, "vti");

	*ret = (EcXfrmPacket){ .ifindex = link->ifindex };
	if (vti)
		ret->mark = ntohl(attribute_u32(link, IFLA_VTI_OKEY));
	else
		ret->if_id = attribute_u32(link, IFLA_XFRM_IF_ID);
	*ret_parent = (int)attribute_u32(link, vti ? IFLA_VTI_LINK : IFLA_XFRM_LINK);
	/* Without an if_id it is told by each route, which nobody can follow; without a key a vti
	 * shares the policies of packets that are not its own. */
	return ret->mark || ret->if_id;
}

static bool is_policy_of(const EcXfrmPolicy *p, const EcXfrmPacket *identity)
{
	return p->info.dir == XFRM_POLICY_OUT && p->if_id == identity->if_id &&
	       ec_xfrm_protects(p) && (identity->mark & p->mark.m) == p->mark.v &&
	       (identity->if_id || p->mark.m);
}

/* The ESP packets' path, if there is no route to look at: the interface's parent. */
static uint32_t parent_mtu(Ipsec *i, int parent)
{
	g_auto(EcLink) link = { 0 };

	return parent && ec_kernel_link_by_index(i->s.kernel, parent, &link, NULL) > 0
			       ? link.mtu
			       : ETHERNET_MTU;
}

static uint32_t interface_mtu(
		Ipsec *i, const EcLink *link, int parent, const EcXfrmPolicy *p, const EcXfrmSa *sa)
{
	uint32_t mtu = ec_xfrm_policy_mtu(p, sa, parent_mtu(i, parent));

	return MIN(mtu, link->mtu);
}

static void look_at_interface(Ipsec *i, const EcLink *link, EcLook *look)
{
	const EcXfrmPolicy *shown = NULL;
	const EcXfrmSa *shown_sa = NULL;
	EcXfrmPacket wanted;
	int parent;
	bool known = identity(link, &wanted, &parent) && load(i, NULL) >= 0;

	(void)g_snprintf(look->title, sizeof(look->title), "IPsec on %s", link->name);
	look->protect = true;
	look->mtu = link->mtu;
	for (guint n = 0; known && n < i->x->policies->len; n++) {
		const EcXfrmPolicy *p = &g_array_index(i->x->policies, EcXfrmPolicy, n);
		const EcXfrmSa *sa =
				is_policy_of(p, &wanted) ? ec_xfrm_sa_for(i->x, p, NULL) : NULL;

		if (sa) {
			look->mtu = MIN(look->mtu, interface_mtu(i, link, parent, p, sa));
			look->protect = look->protect && sa->encrypts;
		}
		if (!shown_sa && is_policy_of(p, &wanted)) {
			shown = p;
			shown_sa = sa;
		}
	}
	look->up = (link->flags & IFF_UP) && shown_sa;
	if (wanted.if_id)
		ec_look_add(look, "if-id", "%u", wanted.if_id);
	if (wanted.mark)
		ec_look_add(look, "mark", "%u", wanted.mark);
	if (shown)
		add_details(i, shown, shown_sa, look);
}

static bool recognise(EcSource *s, const EcLink *link, EcLook *look)
{
	Ipsec *i = (Ipsec *)s;

	if (is_xfrm(link)) {
		look_at_interface(i, link, look);
		return true;
	}
	const EcVpnProgram *program =
			ec_tun_mode(link) == IFF_TUN ? ec_holders_find(i->holders, link) : NULL;
	if (!program || !g_str_equal(program->kind, s->kind->name))
		return false;
	/* kernel-libipsec: its routes come and go with the connection, the interface stays. */
	(void)g_snprintf(look->title, sizeof(look->title), "IPsec on %s", link->name);
	look->protect = true;
	look->up = link->flags & IFF_UP;
	look->mtu = link->mtu;
	return true;
}

static int through(EcSource *s, const EcLink *link, const EcFlow *f, EcPath *path,
		sd_bus_error *ret_why)
{
	Ipsec *i = (Ipsec *)s;
	const EcXfrmPolicy *p = NULL;
	char peer[INET6_ADDRSTRLEN], title[96];
	EcXfrmPacket packet;
	int parent;

	if (!is_xfrm(link))
		return 1;
	(void)ec_address_to_string(&f->remote, peer);
	(void)g_snprintf(title, sizeof(title), "IPsec on %s", link->name);
	if (!identity(link, &packet, &parent))
		return refuse(ret_why, EC_ERROR_NO_UNDERLAY,
				"%s has no if_id or key, so its policies cannot be told", title);
	int r = load(i, ret_why);
	if (r < 0)
		return r == -EINTR ? 0 : r;
	if (packet.if_id)
		packet.mark = f->fwmark;
	packet.source = f->local.family != AF_UNSPEC ? f->local : path->local;
	packet.target = f->remote;
	packet.protocol = f->protocol;
	packet.target_port = f->protocol == IPPROTO_UDP ? f->port : 0;
	r = find_policy(i, &packet, &p, ret_why);
	if (r == -ENOENT)
		return refuse(ret_why, EC_ERROR_NO_UNDERLAY,
				"%s has no policy that covers packets to %s", title, peer);
	if (r <= 0)
		return r;
	const EcXfrmSa *sa = ec_xfrm_sa_for(i->x, p, &packet);
	if (!sa) {
		ask(i, p);
		return refuse_no_sa(i, title, ret_why);
	}
	if (!sa->encrypts)
		return refuse_null(sa, title, ret_why);
	path->mtu = MIN(path->mtu, interface_mtu(i, link, parent, p, sa));
	path->ipsec_within = true;
	return 1;
}

/* Beginning and end */

static int watch(EcSource *s, sd_bus_error *ret_error)
{
	Ipsec *i = (Ipsec *)s;

	i->fd = -1;
	i->buffer = g_malloc(MESSAGE_BUFFER);
	i->x = ec_xfrm_new();
	i->asked = g_hash_table_new_full(NULL, NULL, NULL, g_free);
	i->vici = ec_vici_new(s->event, on_names, i);
	i->holders = ec_holders_new();
	int r = subscribe(i);
	if (r < 0)
		g_info("IPsec events cannot be followed: %s", g_strerror(-r));
	return 0;
}

static void done(EcSource *s)
{
	Ipsec *i = (Ipsec *)s;

	i->io = sd_event_source_disable_unref(i->io);
	i->report = sd_event_source_disable_unref(i->report);
	i->retry = sd_event_source_disable_unref(i->retry);
	if (i->fd >= 0)
		(void)close(i->fd);
	i->fd = -1;
	i->vici = ec_vici_free(i->vici);
	i->holders = ec_holders_free(i->holders);
	i->x = ec_xfrm_free(i->x);
	g_clear_pointer(&i->asked, g_hash_table_unref);
	g_clear_pointer(&i->buffer, g_free);
}

const EcUnderlayKind ec_underlay_ipsec = {
	.name = "ipsec",
	.size = sizeof(Ipsec),
	.watch = watch,
	.done = done,
	.recognise = recognise,
	.through = through,
	.flow = flow,
	.list = list,
};
