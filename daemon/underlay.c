/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "underlay.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if_arp.h>
#include <string.h>

#include "log.h"

/*
 * DOC: Theory of operation
 *
 * The kernel decides where packets go; this file asks it and judges. For a flow:
 *
 *   1. the route: output device, source address, next hop. Our guard's own routing table is looked
 *      through: it would answer "by the VPN" for ever, and hide that the route has left it.
 *   2. policies: kinds with flow() say whether an IPsec policy takes it, whatever the device.
 *   3. the device: the kind that recognised it says whether the VPN carries this flow.
 *   4. otherwise there is no path. The sentence names the VPN that is missed: the one the tunnel
 *      rode on last, or what the setting asks for.
 *
 * VPNs are remembered by name, not by index: a VPN that makes its device anew is the same VPN. A
 * device that merely took over a VPN's name is not: no kind recognises it.
 *
 * Which VPNs there are is kept up to date by link events and by what the kinds report; who decides
 * about a flow looks at the device anew.
 */

struct EcUnderlays {
	EcKernel *kernel;
	sd_event *event;
	GHashTable *table; /* name -> EcUnderlay */
	GPtrArray *sources;
	EcUnderlaysObserver observer;
	void (*ask)(void *userdata);
	void *userdata;
	bool stale;        /* a kind reported something */
	GHashTable *found; /* during a rescan: names of VPNs that are there */
};

void ec_look_add(EcLook *look, const char *key, const char *format, ...)
{
	va_list ap;

	if (!look->details)
		look->details = g_ptr_array_new_with_free_func(g_free);
	va_start(ap, format);
	g_ptr_array_add(look->details, g_strdup(key));
	g_ptr_array_add(look->details, g_strdup_vprintf(format, ap));
	va_end(ap);
}

void ec_look_done(EcLook *look)
{
	g_clear_pointer(&look->details, g_ptr_array_unref);
}

static bool same_details(const GPtrArray *a, const GPtrArray *b)
{
	guint n = a ? a->len : 0;

	if (n != (b ? b->len : 0))
		return false;
	for (guint i = 0; i < n; i++) {
		if (!g_str_equal(g_ptr_array_index(a, i), g_ptr_array_index(b, i)))
			return false;
	}
	return true;
}

static bool same_look(const EcLook *a, const EcLook *b)
{
	return g_str_equal(a->title, b->title) && a->up == b->up && a->protect == b->protect &&
	       a->mtu == b->mtu && same_details(a->details, b->details);
}

/* Objects */

/* An interface may be called "any", which is the name of underlay=any. */
static const char *name_of(const char *device)
{
	return g_str_equal(device, "any") ? "device:any" : device;
}

static void free_underlay(gpointer p)
{
	EcUnderlay *u = p;

	ec_look_done(&u->look);
	g_free(u->name);
	g_free(u);
}

static EcUnderlay *find(EcUnderlays *all, const char *name)
{
	return g_hash_table_lookup(all->table, name);
}

static EcUnderlay *find_ifindex(EcUnderlays *all, int ifindex)
{
	GHashTableIter i;
	EcUnderlay *u;

	g_hash_table_iter_init(&i, all->table);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&u)) {
		if (u->ifindex == ifindex)
			return u;
	}
	return NULL;
}

static EcUnderlay *add(EcUnderlays *all, const char *name, const EcUnderlayKind *kind)
{
	EcUnderlay *u = g_new0(EcUnderlay, 1);

	u->name = g_strdup(name);
	u->kind = kind;
	g_strlcpy(u->look.title, name, sizeof(u->look.title));
	g_hash_table_insert(all->table, u->name, u);
	return u;
}

static void announce(EcUnderlays *all, EcUnderlay *u)
{
	if (all->observer.added)
		all->observer.added(u, all->observer.userdata);
	if (all->observer.listed)
		all->observer.listed(all->observer.userdata);
}

static void drop_unless_used(EcUnderlays *all, EcUnderlay *u)
{
	if (u->refs > 0 || u->seen)
		return;
	if (all->observer.removed)
		all->observer.removed(u, all->observer.userdata);
	g_hash_table_remove(all->table, u->name);
	if (all->observer.listed)
		all->observer.listed(all->observer.userdata);
}

/* Takes the look over. */
static void set_look(EcUnderlays *all, EcUnderlay *u, EcLook *look)
{
	bool same = same_look(&u->look, look);

	ec_look_done(&u->look);
	u->look = *look;
	*look = (EcLook){ 0 };
	if (!same && all->observer.changed)
		all->observer.changed(u, all->observer.userdata);
}

static void set_gone(EcUnderlays *all, EcUnderlay *u)
{
	EcLook look = { 0 };

	g_strlcpy(look.title, u->look.title, sizeof(look.title));
	u->seen = false;
	u->ifindex = 0;
	set_look(all, u, &look);
	drop_unless_used(all, u);
}

static EcSource *source_of(EcUnderlays *all, const EcUnderlayKind *kind)
{
	for (guint i = 0; i < all->sources->len; i++) {
		EcSource *s = g_ptr_array_index(all->sources, i);

		if (s->kind == kind)
			return s;
	}
	return NULL;
}

static void tell_used(EcUnderlays *all, const EcUnderlayKind *kind)
{
	EcSource *s = source_of(all, kind);
	unsigned users = 0;
	GHashTableIter i;
	EcUnderlay *u;

	g_hash_table_iter_init(&i, all->table);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&u))
		users += u->kind == kind ? u->refs : 0;
	if (s && kind->used)
		kind->used(s, users > 0);
}

static EcUnderlay *take(EcUnderlays *all, EcUnderlay *u)
{
	if (u->refs++ == 0)
		tell_used(all, u->kind);
	return u;
}

void ec_underlays_release(EcUnderlays *all, EcUnderlay *u)
{
	if (--u->refs > 0)
		return;
	tell_used(all, u->kind);
	drop_unless_used(all, u);
}

/* Interfaces */

static bool is_tun(const EcLink *link)
{
	const struct nlattr *type =
			g_str_equal(link->kind, "tun") && link->data
					? nla_find(nla_data(link->data), nla_len(link->data),
							  IFLA_TUN_TYPE)
					: NULL;

	return type && nla_get_u8(type) == IFF_TUN;
}

/* The first kind that recognises an interface, with its look. */
static const EcUnderlayKind *recognise(EcUnderlays *all, const EcLink *link, EcLook *look)
{
	EcSource *by = NULL;

	for (guint i = 0; !by && i < all->sources->len; i++) {
		EcSource *s = g_ptr_array_index(all->sources, i);

		if (s->kind->recognise && s->kind->recognise(s, link, look))
			by = s;
	}
	if (!by)
		return NULL;
	for (guint i = 0; i < all->sources->len; i++) {
		EcSource *s = g_ptr_array_index(all->sources, i);

		if (s != by && s->kind->annotate)
			s->kind->annotate(s, link, look);
	}
	return by->kind;
}

/* What a user named without it being a VPN we know. A TUN or PPP is somebody's tunnel; its user
 * says that it is a VPN. */
static void look_plain(const EcLink *link, EcLook *look)
{
	g_strlcpy(look->title, link->name, sizeof(look->title));
	look->up = link->flags & IFF_UP;
	look->protect = is_tun(link) || link->type == ARPHRD_PPP;
	look->mtu = link->mtu;
}

/* Brings what is known of an interface up to date; NULL when it is nothing to tunnels. */
static EcUnderlay *examine(EcUnderlays *all, const EcLink *link)
{
	EcLook look = { 0 };
	const EcUnderlayKind *kind = recognise(all, link, &look);
	EcUnderlay *u = find(all, name_of(link->name)), *before = find_ifindex(all, link->ifindex);

	if (before && before != u) /* it was renamed */
		set_gone(all, before);
	if (!kind && !u)
		return NULL;
	if (!kind) {
		ec_look_done(&look);
		look_plain(link, &look);
	}
	bool is_new = !u;
	if (is_new)
		u = add(all, name_of(link->name), kind);
	if (kind)
		u->kind = kind;
	g_strlcpy(u->device, link->name, sizeof(u->device));
	u->ifindex = link->ifindex;
	u->seen = kind != NULL;
	(void)sd_event_get_iteration(all->event, &u->looked);
	if (all->found)
		g_hash_table_add(all->found, u->name);
	if (is_new) {
		u->look = look;
		announce(all, u);
	} else {
		set_look(all, u, &look);
		if (!u->seen && u->refs == 0) {
			drop_unless_used(all, u);
			return NULL;
		}
	}
	return u;
}

bool ec_underlays_link(EcUnderlays *all, const EcLink *link, bool gone)
{
	EcUnderlay *u = find_ifindex(all, link->ifindex);
	bool known = u != NULL;

	if (!gone)
		return examine(all, link) || known;
	if (known)
		set_gone(all, u);
	return known;
}

static void on_link(const EcLink *link, void *userdata)
{
	/* Our own interfaces are many, and no VPN. */
	if (link->group != EC_LINK_GROUP)
		(void)examine(userdata, link);
}

void ec_underlay_found(EcSource *s, const char *name, EcLook *look)
{
	EcUnderlay *u = find(s->all, name);

	if (u && u->device[0]) { /* an interface has the name */
		ec_look_done(look);
		return;
	}
	bool is_new = !u;
	if (is_new)
		u = add(s->all, name, s->kind);
	u->seen = true;
	if (s->all->found)
		g_hash_table_add(s->all->found, u->name);
	if (is_new) {
		u->look = *look;
		announce(s->all, u);
	} else {
		set_look(s->all, u, look);
	}
}

void ec_underlays_rescan(EcUnderlays *all)
{
	g_autoptr(GHashTable) found = g_hash_table_new(g_str_hash, g_str_equal);
	g_autoptr(GPtrArray) lost = g_ptr_array_new();
	GHashTableIter i;
	EcUnderlay *u;

	all->stale = false;
	all->found = found;
	int r = ec_kernel_links(all->kernel, on_link, all, NULL);
	for (guint n = 0; n < all->sources->len; n++) {
		EcSource *s = g_ptr_array_index(all->sources, n);

		if (s->kind->list)
			s->kind->list(s);
	}
	all->found = NULL;
	if (r < 0) { /* they come and go too fast: the events tell of each */
		all->stale = r == -EINTR;
		return;
	}
	g_hash_table_iter_init(&i, all->table);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&u)) {
		if (!g_hash_table_contains(found, u->name) && (u->seen || u->ifindex))
			g_ptr_array_add(lost, u);
	}
	for (guint n = 0; n < lost->len; n++)
		set_gone(all, g_ptr_array_index(lost, n));
}

void ec_underlays_refresh(EcUnderlays *all)
{
	if (all->stale)
		ec_underlays_rescan(all);
}

void ec_underlay_report(EcSource *s)
{
	s->all->stale = true;
	s->all->ask(s->all->userdata);
}

/* Flows */

/* What is known of a flow while it is being answered. */
typedef struct Question {
	const char *setting;
	const char *device; /* of device:IFNAME, else NULL */
	const EcFlow *flow;
	const EcGuardSpec *last;
	char remote[INET6_ADDRSTRLEN];
	EcLink link; /* the output device */
} Question;

static void question_done(Question *q)
{
	ec_link_done(&q->link);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Question, question_done)

/* Does the setting allow this kind? */
static bool allows(const Question *q, const EcUnderlayKind *kind)
{
	return q->device || g_str_equal(q->setting, "vpn") || g_str_equal(q->setting, kind->name);
}

/* Where the kernel's routing leads the flow. 1, 0 and why, -errno. */
static int find_route(EcUnderlays *all, Question *q, EcPath *path, sd_bus_error *ret_why)
{
	EcFlow flow = *q->flow;
	EcRoute route;
	int r = ec_kernel_route_get(all->kernel, &flow, &route, ret_why);

	if (r >= 0 && (r == 0 || route.table == EC_GUARD_ROUTE_TABLE)) {
		sd_bus_error_free(ret_why);
		flow.protocol = 0; /* the guard's rules look at the protocol */
		r = ec_kernel_route_get(all->kernel, &flow, &route, ret_why);
	}
	if (r > 0)
		r = ec_kernel_link_by_index(all->kernel, route.ifindex, &q->link, ret_why);
	if (r <= 0)
		return r;
	*path = (EcPath){
		.local = route.source,
		.gateway = route.gateway,
		.ifindex = route.ifindex,
		.mtu = route.mtu ? MIN(route.mtu, q->link.mtu) : q->link.mtu,
	};
	g_strlcpy(path->device, q->link.name, sizeof(path->device));
	return 1;
}

static int no_path(sd_bus_error *ret_why, const char *name, const char *format, ...)
		G_GNUC_PRINTF(3, 4);

/* Says why there is no path, instead of what ret_why said before. Returns 0. */
static int no_path(sd_bus_error *ret_why, const char *name, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	g_autofree char *text = g_strdup_vprintf(format, ap);
	va_end(ap);
	sd_bus_error_free(ret_why);
	(void)ec_error(ret_why, name, "%s", text);
	return 0;
}

/* Nothing is known of the interface but its name. */
static int missed_name(EcUnderlays *all, const Question *q, bool route, sd_bus_error *ret_why)
{
	g_auto(EcLink) link = { 0 };
	int r = ec_kernel_link_by_name(all->kernel, q->device, &link, ret_why);

	if (r < 0)
		return r;
	if (r == 0)
		return no_path(ret_why, EC_ERROR_NO_UNDERLAY, "there is no interface %s",
				q->device);
	if (!(link.flags & IFF_UP))
		return no_path(ret_why, EC_ERROR_NO_UNDERLAY, "interface %s is down", q->device);
	if (!route)
		return 0; /* the kernel's sentence says it */
	const EcUnderlay *u = examine(all, &link);
	if (u && u->seen && !u->look.up)
		return no_path(ret_why, EC_ERROR_NO_UNDERLAY, "%s is down", u->look.title);
	return no_path(ret_why, EC_ERROR_NOT_PROTECTED, "the route to %s leaves by %s, not by %s",
			q->remote, q->link.name, q->device);
}

/* The VPN that the tunnel rode on is missed. */
static int missed_last(EcUnderlays *all, const Question *q, bool route, sd_bus_error *ret_why)
{
	const EcGuardSpec *last = q->last;
	g_auto(EcLink) link = { 0 };

	if (last->fence == EC_FENCE_IPSEC)
		return no_path(ret_why, EC_ERROR_NO_UNDERLAY,
				"%s is down: no IPsec policy covers packets to %s", last->vpn,
				q->remote);
	int r = ec_kernel_link_by_name(all->kernel, last->device, &link, ret_why);
	if (r < 0)
		return r;
	if (r == 0)
		return no_path(ret_why, EC_ERROR_NO_UNDERLAY,
				"%s is down: there is no interface %s", last->vpn, last->device);
	const EcUnderlay *u = examine(all, &link);
	if (last->protect && !(u && u->look.protect))
		return no_path(ret_why, EC_ERROR_NOT_PROTECTED,
				"%s is gone: interface %s is no VPN now%s%s", last->vpn,
				last->device, link.kind[0] ? ", but of kind " : "", link.kind);
	if (!(link.flags & IFF_UP) || (u && !u->look.up))
		return no_path(ret_why, EC_ERROR_NO_UNDERLAY, "%s is down", last->vpn);
	if (!route)
		return no_path(ret_why, EC_ERROR_NO_UNDERLAY, "%s is up, but has no route to %s",
				last->vpn, q->remote);
	return no_path(ret_why, EC_ERROR_NOT_PROTECTED, "the route to %s leaves by %s, not by %s",
			q->remote, q->link.name, last->vpn);
}

/* Why there is no path, in terms of the VPN that is missed. route: there is one, elsewhere; else
 * ret_why holds the kernel's sentence. 0 or -errno. */
static int missed(EcUnderlays *all, const Question *q, bool route, sd_bus_error *ret_why)
{
	const EcGuardSpec *last = q->last;

	if (last && last->protect && (!q->device || g_str_equal(q->device, last->device)))
		return missed_last(all, q, route, ret_why);
	if (q->device)
		return missed_name(all, q, route, ret_why);
	if (!route)
		return 0;
	const EcUnderlay *u = find(all, name_of(q->link.name));
	if (u && u->seen && !u->look.up)
		return no_path(ret_why, EC_ERROR_NO_UNDERLAY, "%s is down", u->look.title);
	if (u && u->seen)
		return no_path(ret_why, EC_ERROR_NOT_PROTECTED,
				"the route to %s leaves by %s, and underlay=%s is wanted",
				q->remote, u->look.title, q->setting);
	return no_path(ret_why, EC_ERROR_NOT_PROTECTED,
			"the route to %s leaves by %s, which is no VPN that ethercord knows; name "
			"the VPN's interface with underlay=device:IFNAME, or accept with "
			"underlay=any that nothing is protected",
			q->remote, q->link.name);
}

/* A flow through a policy. As EcUnderlayKind.flow(). */
static int by_policy(EcUnderlays *all, const Question *q, EcPath *path, EcUnderlay **ret,
		sd_bus_error *ret_why)
{
	int first = -ENOENT;

	for (guint i = 0; !q->device && i < all->sources->len; i++) {
		EcSource *s = g_ptr_array_index(all->sources, i);
		char title[96] = "", name[96] = "";
		EcPath own = *path;

		if (!s->kind->flow || !allows(q, s->kind))
			continue;
		int r = s->kind->flow(s, q->flow, &own, title, name, ret_why);
		if (r > 0) {
			EcUnderlay *u = find(all, name);
			EcLook look = { .up = true, .protect = own.protect, .mtu = own.mtu };

			if (!u) {
				g_strlcpy(look.title, title, sizeof(look.title));
				ec_underlay_found(s, name, &look);
				u = find(all, name);
			}
			*path = own;
			*ret = take(all, u);
			return 1;
		}
		if (r != -ENOENT)
			first = r;
	}
	return first;
}

/* The device of a flow. A round of work asks about many flows through one device: it is looked at
 * once. */
static EcUnderlay *examine_once(EcUnderlays *all, const EcLink *link)
{
	EcUnderlay *u = find(all, name_of(link->name));
	uint64_t now = 0;

	(void)sd_event_get_iteration(all->event, &now);
	return u && u->ifindex == link->ifindex && u->looked == now && now > 0 ? u
									       : examine(all, link);
}

/* A flow through the device it is routed to. -ENOENT: that is no VPN the setting allows. */
static int by_device(EcUnderlays *all, Question *q, EcPath *path, EcUnderlay **ret,
		sd_bus_error *ret_why)
{
	if (q->device && !g_str_equal(q->device, q->link.name))
		return -ENOENT;
	EcUnderlay *held = q->device ? ec_underlays_named(all, q->setting) : NULL;
	EcUnderlay *u = examine_once(all, &q->link);
	EcSource *s = u && u->seen ? source_of(all, u->kind) : NULL;
	bool other = false;
	EcLook look = { 0 };

	/* Another kind may claim what the first one recognised. */
	for (guint i = 0; u && s && !allows(q, s->kind) && !other && i < all->sources->len; i++) {
		EcSource *o = g_ptr_array_index(all->sources, i);

		other = allows(q, o->kind) && o->kind->recognise &&
			o->kind->recognise(o, &q->link, &look);
	}
	ec_look_done(&look);
	/* What no kind recognised has to be named. */
	bool taken = s ? other || allows(q, s->kind) : u && q->device;
	int r = taken ? 1 : -ENOENT;
	if (r > 0 && q->last && q->last->protect && q->device && !u->look.protect &&
			g_str_equal(q->last->device, q->device))
		r = -ENOENT; /* what was a VPN is none any more */
	/* Whoever answers flow by flow knows better, and may have to be asked to come up. */
	bool asks = s && s->kind->through && (q->link.flags & IFF_UP);
	if (r > 0 && !u->look.up && !asks)
		r = -ENOENT;
	if (r > 0) {
		path->fence = EC_FENCE_INTERFACE;
		path->protect = u->look.protect;
		path->mtu = u->look.mtu ? MIN(u->look.mtu, path->mtu) : path->mtu;
		if (s && s->kind->through)
			r = s->kind->through(s, &q->link, q->flow, path, ret_why);
	}
	if (r > 0)
		*ret = take(all, u);
	if (held)
		ec_underlays_release(all, held);
	return r;
}

/* A reference to what a setting names: any path, with device "", or one interface. */
static EcUnderlay *named(EcUnderlays *all, const char *name, const char *device)
{
	EcUnderlay *u = find(all, name);

	if (!u) {
		u = add(all, name, &ec_underlay_route);
		g_strlcpy(u->device, device, sizeof(u->device));
		if (!*device)
			g_strlcpy(u->look.title, "any path", sizeof(u->look.title));
		announce(all, u);
	}
	return take(all, u);
}

EcUnderlay *ec_underlays_named(EcUnderlays *all, const char *setting)
{
	if (g_str_equal(setting, "any"))
		return named(all, setting, "");
	if (!g_str_has_prefix(setting, "device:"))
		return NULL;
	const char *device = setting + strlen("device:");
	return named(all, name_of(device), device);
}

static int resolve_any(EcUnderlays *all, Question *q, EcPath *path, EcUnderlay **ret)
{
	EcLook look = { .up = true, .mtu = path->mtu };
	EcUnderlay *u = named(all, "any", "");

	g_strlcpy(look.title, u->look.title, sizeof(look.title));
	if (!g_str_equal(u->device, path->device)) {
		g_strlcpy(u->device, path->device, sizeof(u->device));
		u->look.mtu = 0; /* so that the change is told */
	}
	set_look(all, u, &look);
	*ret = u;
	return 1;
}

int ec_underlays_resolve(EcUnderlays *all, const char *setting, const EcFlow *flow,
		const EcGuardSpec *last, EcPath *ret_path, EcUnderlay **ret, sd_bus_error *ret_why)
{
	g_auto(Question) q = { .setting = setting, .flow = flow, .last = last };
	g_auto(sd_bus_error) why = SD_BUS_ERROR_NULL;
	bool any = g_str_equal(setting, "any");
	EcPath path = { 0 };

	if (g_str_has_prefix(setting, "device:"))
		q.device = setting + strlen("device:");
	(void)ec_address_to_string(&flow->remote, q.remote);
	int r = find_route(all, &q, &path, ret_why);
	if (r < 0 || (r == 0 && any))
		return r;
	if (r == 0)
		return missed(all, &q, false, ret_why);
	if (any) {
		r = resolve_any(all, &q, &path, ret);
	} else {
		int policy = by_policy(all, &q, &path, ret, &why);

		r = policy;
		if (policy == 0 || policy == -ENOENT)
			r = by_device(all, &q, &path, ret, ret_why);
		if (r == -ENOENT && policy == -ENOENT) {
			r = missed(all, &q, true, ret_why);
		} else if (r <= 0 && policy != -ENOENT) {
			sd_bus_error_free(ret_why);
			(void)sd_bus_error_move(ret_why, &why);
			r = policy;
		}
	}
	if (r > 0)
		*ret_path = path;
	return r;
}

/* Beginning and end */

void ec_underlays_observe(EcUnderlays *all, const EcUnderlaysObserver *observer)
{
	all->observer = *observer;
}

GHashTable *ec_underlays_table(EcUnderlays *all)
{
	return all->table;
}

int ec_underlays_new(EcKernel *kernel, sd_event *event, sd_bus *bus, void (*ask)(void *userdata),
		void *userdata, EcUnderlays **ret)
{
	EcUnderlays *all = g_new0(EcUnderlays, 1);

	all->kernel = kernel;
	all->event = event;
	all->ask = ask;
	all->userdata = userdata;
	all->table = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, free_underlay);
	all->sources = g_ptr_array_new_with_free_func(g_free);
	for (const EcUnderlayKind *const *k = ec_underlay_kinds; *k; k++) {
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
		EcSource *s = g_malloc0((*k)->size);

		*s = (EcSource){
			.kind = *k, .all = all, .kernel = kernel, .event = event, .bus = bus
		};
		g_ptr_array_add(all->sources, s);
		if ((*k)->watch && (*k)->watch(s, &error) < 0)
			ec_log(LOG_WARNING, "VPNs of kind %s cannot be followed: %s", (*k)->name,
					error.message ? error.message : "");
	}
	*ret = all;
	return 0;
}

EcUnderlays *ec_underlays_free(EcUnderlays *all)
{
	if (!all)
		return NULL;
	all->observer = (EcUnderlaysObserver){ 0 };
	for (guint i = 0; i < all->sources->len; i++) {
		EcSource *s = g_ptr_array_index(all->sources, i);

		if (s->kind->done)
			s->kind->done(s);
	}
	g_ptr_array_unref(all->sources);
	g_hash_table_unref(all->table);
	g_free(all);
	return NULL;
}
