/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "reconcile.h"

#include <errno.h>
#include <string.h>

#include "bridge.h"
#include "control.h"
#include "manager.h"
#include "path.h"
#include "tunnel-worker.h"

/*
 * DOC: Theory of operation
 *
 * ec_reconcile() is the only place that makes or changes a tunnel's interface, and it always runs
 * from the top: path, bridge, encapsulation, fence, interface, addresses, bridge port. Each step
 * looks at the kernel first and does only what is missing. So bringing a tunnel up, adopting one
 * after a crash, mending one that somebody changed and re-binding one whose VPN came back are the
 * same code, and where nothing is wrong nothing is sent: traffic does not notice.
 *
 * An interface is ours when it carries our alias, or our group and no alias: the kernel takes the
 * group with the request that makes it and the alias only with a second one, and we may be killed
 * between the two.
 *
 * The interface's own configuration is compared attribute by attribute with what fill() would send.
 * Where the kernel reports a value in another form than it was given, the comparison would differ
 * for ever; so the kernel's report after our change is remembered (settled), and as long as it
 * stays like that nothing is sent again.
 */

static EcKernel *kernel_of(const EcTunnel *t)
{
	return t->manager->kernel;
}

static bool is_same(GBytes *known, const void *data, int length)
{
	gsize n = 0;
	const void *bytes = known ? g_bytes_get_data(known, &n) : NULL;

	return bytes && n == (gsize)length && memcmp(bytes, data, n) == 0;
}

/* Has the interface the configuration that we asked for last, in the form the kernel gave it? */
static bool is_as_asked(const EcTunnel *t, const EcLink *link)
{
	gsize n = 0;
	const void *asked = t->asked ? g_bytes_get_data(t->asked, &n) : NULL;

	return asked && (ec_link_data_matches(link->data, asked, (int)n) ||
					(link->data && is_same(t->settled, nla_data(link->data),
								       nla_len(link->data))));
}

bool ec_reconcile_is_as_left(const EcTunnel *t, const EcLink *link)
{
	return t->state == EC_STATE_UP && (link->flags & IFF_UP) && link->mtu == t->mtu.mtu &&
	       (!t->settings->bridge || link->master == t->bridge) &&
	       g_str_equal(link->name, t->ifname) &&
	       g_str_has_prefix(link->alias, EC_ALIAS_PREFIX) && link->group == EC_LINK_GROUP &&
	       is_as_asked(t, link);
}

static bool is_ours(const EcTunnel *t, const EcLink *link)
{
	g_autofree char *alias = ec_tunnel_alias(t);

	return g_str_equal(link->alias, alias) || (!link->alias[0] && link->group == EC_LINK_GROUP);
}

/* An index is not given to another interface while the daemon lives. */
static bool is_known(const EcTunnel *t, const EcLink *link)
{
	return t->encap && g_str_equal(link->kind, ec_encap_kind(t->encap, t->remote.family));
}

static int name_taken(const EcTunnel *t, sd_bus_error *ret_error)
{
	return ec_error(ret_error, EC_ERROR_NAME_TAKEN,
			"interface %s exists and is not ours; choose another name with interface=",
			t->ifname);
}

/* 1: *ret is our interface; 0: there is none; NameTaken when somebody else's has the name. */
static int find_link(const EcTunnel *t, EcLink *ret, sd_bus_error *ret_error)
{
	g_auto(EcLink) link = { 0 };
	int r = 0;

	/* By index first: it may have been renamed, or its tags wiped. */
	if (t->ifindex)
		r = ec_kernel_link_by_index(kernel_of(t), t->ifindex, &link, ret_error);
	if (r == 0 || (r > 0 && !is_ours(t, &link) && !is_known(t, &link))) {
		ec_link_done(&link);
		r = ec_kernel_link_by_name(kernel_of(t), t->ifname, &link, ret_error);
		if (r > 0 && !is_ours(t, &link))
			return name_taken(t, ret_error);
	}
	if (r > 0) {
		*ret = link;
		link.data = NULL;
	}
	return r;
}

static void forget_settled(EcTunnel *t)
{
	g_clear_pointer(&t->asked, g_bytes_unref);
	g_clear_pointer(&t->settled, g_bytes_unref);
}

static void set_ifindex(EcTunnel *t, int ifindex)
{
	if (t->ifindex == ifindex)
		return;
	if (t->ifindex)
		g_hash_table_remove(t->manager->by_ifindex, GINT_TO_POINTER(t->ifindex));
	t->ifindex = ifindex;
	if (ifindex)
		g_hash_table_insert(t->manager->by_ifindex, GINT_TO_POINTER(ifindex), t);
	forget_settled(t);
	ec_tunnel_touch(t, EC_PROPERTY_IFINDEX);
}

static void give_back_encap(EcTunnel *t)
{
	if (t->encap_up)
		t->encap->down(&t->held, kernel_of(t));
	t->encap_up = false;
}

static int take_encap(
		EcTunnel *t, const EcEncap *encap, const EcWire *wire, sd_bus_error *ret_error)
{
	if (t->encap_up && t->encap == encap && t->held.data_port == wire->data_port &&
			t->held.ifindex == wire->ifindex &&
			ec_address_equal(&t->held.local, &wire->local))
		return 0;
	give_back_encap(t);
	if (!encap->up)
		return 0;
	int r = encap->up(wire, kernel_of(t), ret_error);
	if (r < 0)
		return r;
	t->encap_up = true;
	t->held = *wire;
	return 0;
}

/* Encapsulation */

typedef struct Plan {
	const EcEncap *encap;
	EcWire wire;
	EcMtu mtu;
	EcMessage *info; /* IFLA_INFO_DATA */
} Plan;

static void plan_done(Plan *p)
{
	if (p->info)
		nlmsg_free(p->info);
	p->info = NULL;
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Plan, plan_done)

static int make_plan(const EcTunnel *t, const EcEncap *encap, const EcLink *bridge, Plan *ret,
		sd_bus_error *ret_error)
{
	const EcSettings *s = ec_tunnel_terms(t);
	int family = t->remote.family;
	uint32_t path_mtu = t->path.mtu;
	g_auto(Plan) p = { .encap = encap };
	int r = ec_encap_verify(encap, s, family, ret_error);

	if (r < 0)
		return r;
	ec_encap_wire(encap, s, &p.wire);
	p.wire.local = t->path.local;
	p.wire.remote = *ec_tunnel_data_remote(t);
	if (t->remote_port)
		p.wire.remote_data_port = t->remote_port;
	bool bind = t->path.fence == EC_FENCE_INTERFACE && (encap->flags & EC_ENCAP_BINDS);
	p.wire.ifindex = bind ? t->path.ifindex : 0;
	if (t->session)
		path_mtu = ec_session_path_mtu(t->session, path_mtu);
	ec_mtu_choose(s, encap, &p.wire, path_mtu, bridge->mtu, &p.mtu);
	if (t->session)
		ec_session_fill(t->session, &p.wire, &p.mtu);
	p.wire.fragment = p.mtu.fragment;
	p.info = nlmsg_alloc_simple(0, 0);
	if (!p.info || encap->fill(&p.wire, p.info) < 0)
		return -ENOBUFS;
	*ret = p;
	p.info = NULL;
	return 0;
}

static bool matches(const EcLink *link, const Plan *p)
{
	struct nlmsghdr *h = nlmsg_hdr(p->info);

	return ec_link_data_matches(link->data, nlmsg_data(h), nlmsg_datalen(h));
}

static bool is_asked(const EcTunnel *t, const Plan *p)
{
	struct nlmsghdr *h = nlmsg_hdr(p->info);

	return is_same(t->asked, nlmsg_data(h), nlmsg_datalen(h));
}

static void adopt_plan(EcTunnel *t, const Plan *p)
{
	struct nlmsghdr *h = nlmsg_hdr(p->info);

	if (!is_asked(t, p)) {
		g_clear_pointer(&t->asked, g_bytes_unref);
		t->asked = g_bytes_new(nlmsg_data(h), (gsize)nlmsg_datalen(h));
	}
	if (t->encap != p->encap)
		ec_tunnel_touch(t, EC_PROPERTY_ENCAPSULATION);
	if (t->wire.id != p->wire.id)
		ec_tunnel_touch(t, EC_PROPERTY_ID);
	if (!ec_address_equal(&t->wire.local, &p->wire.local))
		ec_tunnel_touch(t, EC_PROPERTY_LOCAL);
	if (!ec_address_equal(&t->wire.remote, &p->wire.remote))
		ec_tunnel_touch(t, EC_PROPERTY_REMOTE);
	if (t->mtu.mtu != p->mtu.mtu || t->mtu.largest_frame != p->mtu.largest_frame)
		ec_tunnel_touch(t, EC_PROPERTY_MTU);
	t->encap = p->encap;
	t->wire = p->wire;
	t->mtu = p->mtu;
}

/* Interface */

static int check_twin(const EcTunnel *t, const Plan *p, sd_bus_error *ret_error)
{
	const EcTunnel *twin = ec_manager_twin(t->manager, t, p->encap, &p->wire);

	return twin ? ec_error(ret_error, EC_ERROR_EXISTS,
				      "tunnel %s has the same endpoints; give each its own %s",
				      ec_tunnel_name(twin), p->encap->worker ? "data-port" : "id")
		    : 0;
}

/* Such a device is made by opening it; what the request for a link would say follows. */
static int make_device(EcTunnel *t, const EcEncap *encap, const EcLinkChange *make,
		sd_bus_error *ret_error)
{
	g_auto(EcLink) link = { 0 };
	EcLinkChange change = *make;
	int r = ec_tunnel_worker_make(t, encap, ret_error);

	if (r >= 0)
		r = ec_kernel_link_by_name(kernel_of(t), t->ifname, &link, ret_error);
	if (r == 0)
		return ec_error(ret_error, EC_ERROR_KERNEL, "interface %s is gone", t->ifname);
	if (r < 0)
		return r;
	change.ifindex = link.ifindex;
	change.name = change.kind = NULL;
	change.info_data = NULL;
	r = ec_kernel_link_set(kernel_of(t), &change, ret_error);
	return r < 0 ? r : ec_tunnel_worker_keep(t, ret_error);
}

static int make_link(EcTunnel *t, const Plan *p, EcLink *ret, sd_bus_error *ret_error)
{
	const EcSettings *s = ec_tunnel_terms(t);
	uint8_t mac[6];

	int r = check_twin(t, p, ret_error);
	if (r < 0)
		return r;
	if (s->mac)
		(void)ec_mac_from_string(s->mac, mac);
	else
		ec_manager_mac(t->manager, "tunnel", ec_tunnel_name(t), mac);
	const EcLinkChange make = {
		.name = t->ifname,
		.kind = ec_encap_kind(p->encap, p->wire.remote.family),
		.info_data = p->info,
		.mac = p->encap->flags & EC_ENCAP_ETHERNET ? mac : NULL,
		.mtu = p->mtu.mtu,
		.gso_segments = p->mtu.gso_segments,
		.group = EC_LINK_GROUP,
	};
	r = ec_path_fence(t, p->encap, &p->wire, ret_error);
	if (r >= 0)
		r = take_encap(t, p->encap, &p->wire, ret_error);
	if (r >= 0 && p->encap->worker)
		r = make_device(t, p->encap, &make, ret_error);
	else if (r >= 0)
		r = ec_kernel_link_set(kernel_of(t), &make, ret_error);
	if (r >= 0)
		r = ec_kernel_link_by_name(kernel_of(t), t->ifname, ret, ret_error);
	if (r <= 0) {
		give_back_encap(t);
		return r < 0 ? r : -ENODEV;
	}
	set_ifindex(t, ret->ifindex);
	return 0;
}

/* Only what differs, for a kind that keeps what is left out and refuses some of what it has
 * already. */
static EcMessage *difference(const EcLink *link, const Plan *p)
{
	EcMessage *msg = nlmsg_alloc_simple(0, 0);
	struct nlattr *attr;
	int left;

	nlmsg_for_each_attr(attr, nlmsg_hdr(p->info), 0, left)
	{
		const struct nlattr *have =
				link->data ? nla_find(nla_data(link->data), nla_len(link->data),
							     nla_type(attr))
					   : NULL;
		bool same = have && nla_len(have) == nla_len(attr) &&
			    memcmp(nla_data(have), nla_data(attr), (size_t)nla_len(attr)) == 0;

		if (msg && !same)
			(void)nla_put(msg, nla_type(attr), nla_len(attr), nla_data(attr));
	}
	return msg;
}

static bool has_size(const EcLink *link, const EcMtu *mtu)
{
	return link->mtu == mtu->mtu &&
	       (!mtu->gso_segments || link->gso_segments == mtu->gso_segments);
}

static int resize(EcTunnel *t, const Plan *p, const EcLink *link, sd_bus_error *ret_error)
{
	const EcLinkChange change = {
		.ifindex = link->ifindex, .mtu = p->mtu.mtu, .gso_segments = p->mtu.gso_segments
	};

	return ec_kernel_link_set(kernel_of(t), &change, ret_error);
}

/* The configuration again, with the MTU: without it the kernel would choose one anew. */
static int change_link(EcTunnel *t, const Plan *p, EcLink *link, sd_bus_error *ret_error)
{
	/* Such a kind also refuses an MTU beside its configuration: a request of its own. */
	bool keeps = p->encap->flags & EC_ENCAP_KEEPS;
	g_autoptr(EcMessage) some = keeps ? difference(link, p) : NULL;
	const EcLinkChange change = {
		.ifindex = link->ifindex,
		.kind = ec_encap_kind(p->encap, p->wire.remote.family),
		.info_data = some ? some : p->info,
		.mtu = keeps ? 0 : p->mtu.mtu,
	};
	int r = take_encap(t, p->encap, &p->wire, ret_error);

	if (r >= 0)
		r = ec_kernel_link_set(kernel_of(t), &change, ret_error);
	if (r >= 0 && keeps && !has_size(link, &p->mtu))
		r = resize(t, p, link, ret_error);
	if (r < 0)
		return r;
	int ifindex = link->ifindex;
	ec_link_done(link);
	r = ec_kernel_link_by_index(kernel_of(t), ifindex, link, ret_error);
	if (r <= 0)
		return r < 0 ? r : -ENODEV;
	g_clear_pointer(&t->settled, g_bytes_unref);
	if (link->data && !matches(link, p))
		t->settled = g_bytes_new(nla_data(link->data), (gsize)nla_len(link->data));
	return 0;
}

/* What tells one tunnel of a kind from another cannot be changed in place. */
static int remake_link(EcTunnel *t, const Plan *p, EcLink *link, sd_bus_error *ret_error)
{
	int r = check_twin(t, p, ret_error);

	if (r >= 0)
		r = ec_kernel_link_delete(kernel_of(t), link->ifindex, ret_error);
	if (r < 0)
		return r;
	ec_link_done(link);
	set_ifindex(t, 0);
	give_back_encap(t);
	return make_link(t, p, link, ret_error);
}

static int fit_link(EcTunnel *t, const Plan *p, EcLink *link, sd_bus_error *ret_error)
{
	bool same_kind = g_str_equal(link->kind, ec_encap_kind(p->encap, p->wire.remote.family));
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;

	set_ifindex(t, link->ifindex);
	int fence = ec_path_fence(t, p->encap, &p->wire, ret_error);
	if (fence < 0)
		return fence;
	if (same_kind && (matches(link, p) || (is_asked(t, p) && is_as_asked(t, link)))) {
		int r = take_encap(t, p->encap, &p->wire, ret_error);

		return r < 0 || has_size(link, &p->mtu) ? r : resize(t, p, link, ret_error);
	}
	if (same_kind && change_link(t, p, link, &error) >= 0)
		return 0;
	return remake_link(t, p, link, ret_error);
}

static bool is_unknown_kind(int r)
{
	return r == -EOPNOTSUPP || r == -EPROTONOSUPPORT || r == -EAFNOSUPPORT;
}

/* Makes the first of the candidates that this kernel knows. */
static int make_first(EcTunnel *t, const EcEncap *const *candidates, const EcLink *bridge,
		EcLink *ret, sd_bus_error *ret_error)
{
	g_autoptr(GString) refusals = g_string_new(NULL);

	for (; *candidates; candidates++) {
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
		g_auto(Plan) p = { 0 };
		int r = make_plan(t, *candidates, bridge, &p, &error);

		if (r >= 0)
			r = make_link(t, &p, ret, &error);
		if (r >= 0) {
			adopt_plan(t, &p);
			return 0;
		}
		/* One refusal alone is told in its own words. */
		if (!is_unknown_kind(r) ||
				(refusals->len == 0 && !candidates[1] &&
						sd_bus_error_has_name(
								&error, EC_ERROR_NOT_SUPPORTED))) {
			(void)sd_bus_error_move(ret_error, &error);
			return r;
		}
		g_string_append_printf(refusals, "%s%s: %s", refusals->len ? "; " : "",
				(*candidates)->name, error.message ? error.message : "");
	}
	return ec_error(ret_error, EC_ERROR_NOT_SUPPORTED,
			"this kernel can do none of the encapsulations allowed (%s)",
			refusals->len ? refusals->str : "none fits these settings");
}

/* Of the candidates, the one an existing interface was made with: all of it, or at least its kind.
 */
static const EcEncap *recognise(EcTunnel *t, const EcEncap *const *candidates, const EcLink *bridge,
		const EcLink *link)
{
	const EcEncap *alike = NULL;

	for (; *candidates; candidates++) {
		g_auto(Plan) p = { 0 };
		const char *kind = ec_encap_kind(*candidates, t->remote.family);

		if (!g_str_equal(link->kind, kind) ||
				make_plan(t, *candidates, bridge, &p, NULL) < 0)
			continue;
		if (t->encap == *candidates || matches(link, &p))
			return *candidates;
		if (!alike)
			alike = *candidates;
	}
	return alike;
}

static int settle_link(EcTunnel *t, const EcEncap *const *candidates, const EcLink *bridge,
		EcLink *ret, sd_bus_error *ret_error)
{
	const EcEncap *encap = NULL;
	int r = find_link(t, ret, ret_error);

	if (r < 0)
		return r;
	if (r > 0)
		encap = recognise(t, candidates, bridge, ret);
	if (encap) {
		g_auto(Plan) p = { 0 };

		r = make_plan(t, encap, bridge, &p, ret_error);
		if (r >= 0)
			r = fit_link(t, &p, ret, ret_error);
		if (r >= 0)
			adopt_plan(t, &p);
		return r;
	}
	if (r > 0) { /* ours, of a kind that the settings do not allow any more */
		const EcEncap *const *c = candidates;
		g_auto(Plan) p = { 0 };

		while (*c && !ec_manager_can_do(t->manager, *c))
			c++;
		if (!*c)
			return ec_error(ret_error, EC_ERROR_NOT_SUPPORTED,
					"this kernel can do none of the encapsulations allowed");
		/* What cannot be is told while there is nothing lost yet. */
		r = make_plan(t, *c, bridge, &p, ret_error);
		if (r >= 0)
			r = check_twin(t, &p, ret_error);
		if (r < 0)
			return r;
		r = ec_kernel_link_delete(kernel_of(t), ret->ifindex, ret_error);
		ec_link_done(ret);
		set_ifindex(t, 0);
		give_back_encap(t);
		if (r < 0)
			return r;
	}
	return make_first(t, candidates, bridge, ret, ret_error);
}

/* Kernels before 6.2 rename an interface only while it is down. */
static int rename_link(const EcTunnel *t, const EcLink *link, sd_bus_error *ret_error)
{
	const bool down = false;
	const EcLinkChange lower = { .ifindex = link->ifindex, .up = &down };
	const EcLinkChange rename = { .ifindex = link->ifindex, .name = t->ifname };
	g_auto(EcLink) other = { 0 };
	int r = ec_kernel_link_by_name(kernel_of(t), t->ifname, &other, ret_error);

	if (r > 0)
		return name_taken(t, ret_error);
	if (r == 0)
		r = ec_kernel_link_set(kernel_of(t), &lower, ret_error);
	return r < 0 ? r : ec_kernel_link_set(kernel_of(t), &rename, ret_error);
}

/* Alias, bridge, flags and addresses of an interface that exists. */
static int finish_link(
		EcTunnel *t, const EcLink *link, const EcLink *bridge, sd_bus_error *ret_error)
{
	const EcSettings *s = ec_tunnel_terms(t);
	g_autofree char *alias = ec_tunnel_alias(t);
	const bool yes = true, dormant = t->session && ec_session_is_dormant(t->session);
	const bool carrier = !dormant;
	bool tag = !g_str_equal(link->alias, alias) || link->group != EC_LINK_GROUP;
	bool join = bridge->ifindex && link->master != bridge->ifindex;
	bool leave = !bridge->ifindex && t->bridge && link->master == t->bridge;
	const int none = 0;
	bool misnamed = !g_str_equal(link->name, t->ifname);
	bool raise = !(link->flags & IFF_UP) || misnamed;
	EcLinkChange change = { .ifindex = link->ifindex,
		.alias = tag ? alias : NULL,
		.group = tag ? EC_LINK_GROUP : 0,
		.no_ipv6_autoconf = join };
	uint8_t mac[6];
	int r = misnamed ? rename_link(t, link, ret_error) : 0;

	if (r < 0)
		return r;
	if (s->mac && (t->encap->flags & EC_ENCAP_ETHERNET) &&
			ec_mac_from_string(s->mac, mac) == 0 && memcmp(mac, link->mac, 6) != 0)
		change.mac = mac;
	if (leave)
		change.master = &none;
	if (link->dormant != dormant && t->encap->worker)
		change.carrier = &carrier;
	else if (link->dormant != dormant)
		change.dormant = &dormant;
	/* A port needs no address of its own: autoconfiguration is off before it comes up. */
	if (!join)
		change.up = raise ? &yes : NULL;
	if (tag || join || leave || raise || change.mac || change.dormant || change.carrier)
		r = ec_kernel_link_set(kernel_of(t), &change, ret_error);
	if (r >= 0 && join) {
		const EcLinkChange port = {
			.ifindex = link->ifindex, .master = &bridge->ifindex, .up = &yes
		};
		r = ec_kernel_link_set(kernel_of(t), &port, ret_error);
	}
	for (char **a = s->address; r >= 0 && a && *a; a++) {
		EcAddress address = { 0 };
		unsigned length = 0;

		(void)ec_cidr_from_string(*a, &address, &length);
		r = ec_kernel_address_set(
				kernel_of(t), link->ifindex, &address, length, true, ret_error);
	}
	if (r >= 0 && t->bridge != bridge->ifindex) {
		t->bridge = bridge->ifindex;
		ec_tunnel_touch(t, EC_PROPERTY_BRIDGE);
	}
	return r;
}

void ec_reconcile_lower(EcTunnel *t)
{
	const bool down = false;
	g_auto(EcLink) link = { 0 };

	if (find_link(t, &link, NULL) > 0) {
		const EcLinkChange change = { .ifindex = link.ifindex, .up = &down };

		set_ifindex(t, link.ifindex);
		if (link.flags & IFF_UP)
			(void)ec_kernel_link_set(kernel_of(t), &change, NULL);
	} else {
		set_ifindex(t, 0);
	}
}

void ec_reconcile_dim(EcTunnel *t)
{
	const bool dormant = true, carrier = false;
	g_auto(EcLink) link = { 0 };

	if (find_link(t, &link, NULL) <= 0) {
		set_ifindex(t, 0);
		return;
	}
	bool tun = t->encap && t->encap->worker;
	const EcLinkChange change = { .ifindex = link.ifindex,
		.dormant = tun ? NULL : &dormant,
		.carrier = tun ? &carrier : NULL };
	set_ifindex(t, link.ifindex);
	if (!link.dormant)
		(void)ec_kernel_link_set(kernel_of(t), &change, NULL);
}

static int join_bridge(EcTunnel *t, EcLink *ret, sd_bus_error *ret_error)
{
	g_auto(EcLink) port = { 0 };
	uint8_t mac[6];

	if (!t->settings->bridge)
		return 0;
	ec_manager_mac(t->manager, "bridge", t->settings->bridge, mac);
	int r = ec_bridge_ensure(kernel_of(t), t->settings, mac, ret, ret_error);
	if (r < 0)
		return r;
	if (t->path.ifindex == ret->ifindex)
		return ec_error(ret_error, EC_ERROR_LOOP,
				"the route to the peer leads into bridge %s, which this tunnel is to "
				"join",
				t->settings->bridge);
	if (!t->settings->attach)
		return 0;
	/* Noted before it is done: a crash in between must not leave it in the bridge. */
	bool take = !t->attached &&
		    ec_kernel_link_by_name(kernel_of(t), t->settings->attach, &port, NULL) > 0 &&
		    port.master != ret->ifindex;
	if (take) {
		t->attached = true;
		ec_tunnel_record(t);
	}
	r = ec_bridge_attach(kernel_of(t), t->settings, ret, &t->path, ret_error);
	if (take && r < 0) {
		t->attached = false;
		ec_tunnel_record(t);
	}
	return r;
}

/* The kernel opens a VXLAN link's socket when the link comes up. Nobody tells when it can. */
static int port_in_use(EcTunnel *t, sd_bus_error *ret_error)
{
	ec_tunnel_try_again(t);
	sd_bus_error_free(ret_error);
	return ec_error(ret_error, EC_ERROR_NAME_TAKEN,
			"UDP port %u is in use by another program, or by a tunnel in the other "
			"data plane; choose another data-port",
			t->wire.data_port);
}

int ec_reconcile(EcTunnel *t, sd_bus_error *ret_error)
{
	const EcEncap *candidates[EC_ENCAPS_MAX + 1];
	g_auto(EcLink) link = { 0 }, bridge = { 0 };
	int r = ec_path_find(t, candidates, ret_error);

	if (r <= 0)
		return r;
	r = join_bridge(t, &bridge, ret_error);
	if (r >= 0)
		r = settle_link(t, candidates, &bridge, &link, ret_error);
	if (r >= 0 && t->encap->settle)
		r = t->encap->settle(&t->wire, link.ifindex, kernel_of(t), ret_error);
	if (r >= 0 && t->encap->worker)
		r = ec_tunnel_worker_settle(t, ret_error);
	else if (r >= 0)
		ec_tunnel_worker_end(t);
	if (r < 0)
		return r;
	r = finish_link(t, &link, &bridge, ret_error);
	if (r == -EADDRINUSE && !t->encap->worker)
		return port_in_use(t, ret_error);
	if (r < 0)
		return r;
	ec_path_clamp(t, bridge.ifindex);
	return 1;
}

void ec_reconcile_leave_bridge(EcTunnel *t, const char *name)
{
	g_auto(EcLink) bridge = { 0 };

	if (!ec_manager_bridge_in_use(t->manager, name, t) &&
			ec_kernel_link_by_name(kernel_of(t), name, &bridge, NULL) > 0 &&
			g_str_equal(bridge.alias, EC_ALIAS_BRIDGE))
		ec_manager_doom(t->manager, bridge.ifindex);
}

void ec_reconcile_undo(EcTunnel *t)
{
	const EcSettings *s = t->settings;
	g_auto(EcLink) link = { 0 };

	if (t->ifindex || find_link(t, &link, NULL) > 0)
		ec_manager_doom(t->manager, t->ifindex ? t->ifindex : link.ifindex);
	set_ifindex(t, 0);
	ec_tunnel_worker_end(t);
	give_back_encap(t);
	if (t->encap)
		ec_path_clamp(t, false);
	ec_path_unfence(t);
	if (t->attached)
		ec_bridge_detach(kernel_of(t), s->attach, s->bridge);
	t->attached = false;
	if (s->bridge)
		ec_reconcile_leave_bridge(t, s->bridge);
	t->bridge = 0;
	t->encap = NULL;
	t->wire = (EcWire){ 0 };
	t->path = (EcPath){ 0 };
	t->mtu = (EcMtu){ 0 };
	ec_tunnel_touch(t, EC_PROPERTY_ENCAPSULATION | EC_PROPERTY_ID | EC_PROPERTY_LOCAL |
					   EC_PROPERTY_MTU | EC_PROPERTY_UNDERLAY |
					   EC_PROPERTY_BRIDGE);
}
