/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <string.h>

#include "diagnose.h"

/* The way to an address: where the route leads, and what each encapsulation's packets would meet on
 * it. Encapsulations that fare the same are named in one sentence. */

typedef struct Answer {
	const EcEncap *encap;
	EcFlow flow;
	int r;          /* as ec_underlays_resolve() */
	char title[96]; /* of the VPN */
	EcPath path;
	char *why;   /* no path */
	bool absent; /* the VPN is not there (NoUnderlay); else it does not take it */
	bool told;
} Answer;

static void answer_done(gpointer p)
{
	g_free(((Answer *)p)->why);
}

typedef struct Way {
	EcDiagnosis *d;
	const EcSettings *settings;
	char remote[INET6_ADDRSTRLEN];
	EcLink device; /* the output device */
	EcRoute route;
	GArray *answers; /* of Answer */
} Way;

static void way_done(Way *w)
{
	ec_link_done(&w->device);
	g_array_unref(w->answers);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Way, way_done)

/* Those that are asked about: what `encapsulation` says, or with auto all of them. */
static void choose(const Way *w, int family, const EcEncap *ret[static EC_ENCAPS_MAX + 1])
{
	const char *const *names = (const char *const *)w->settings->encapsulation;
	size_t n = 0, kept = 0;

	if (w->d->tunnel || (names && *names && !g_strv_contains(names, "auto"))) {
		ec_encap_candidates(w->settings, family, ret);
	} else {
		for (const EcEncap *const *e = ec_encaps; *e && n < EC_ENCAPS_MAX; e++)
			ret[n++] = *e;
		ret[n] = NULL;
	}
	for (n = 0; ret[n]; n++) {
		if (ec_encap_kind(ret[n], family) && ec_manager_can_do(w->d->manager, ret[n]))
			ret[kept++] = ret[n];
	}
	ret[kept] = NULL;
}

/* False when there is no route, and that was said. */
static bool diagnose_route(Way *w, const EcAddress *remote)
{
	g_auto(sd_bus_error) why = SD_BUS_ERROR_NULL;
	EcManager *m = w->d->manager;
	const EcTunnel *t = w->d->tunnel;
	EcFlow flow = { .remote = *remote, .fwmark = w->settings->fwmark };
	char source[INET6_ADDRSTRLEN], gateway[INET6_ADDRSTRLEN];

	if (w->settings->local)
		(void)ec_address_from_string(w->settings->local, &flow.local);
	/* Without a protocol the guard's own routing table does not answer. */
	int r = ec_kernel_route_get(m->kernel, &flow, &w->route, &why);
	if (r > 0)
		r = ec_kernel_link_by_index(m->kernel, w->route.ifindex, &w->device, &why);
	if (r <= 0) {
		ec_finding_add(w->d, EC_SEVERITY_ERROR, "no-route",
				"bring the VPN up, and have it carry the route to the peer", "%s",
				why.message ? why.message : "the route's interface is gone");
		return false;
	}
	if (t && (w->route.ifindex == t->ifindex || (t->bridge && w->route.ifindex == t->bridge))) {
		ec_finding_add(w->d, EC_SEVERITY_ERROR, "route-loop",
				"give the peer an address that is not inside the tunnel, or add a "
				"route to it through the VPN",
				"the route to %s leads into this tunnel itself (by %s)", w->remote,
				w->device.name);
		return false;
	}
	bool via = w->route.gateway.family != AF_UNSPEC;
	ec_finding_add(w->d, EC_SEVERITY_INFO, "route", NULL,
			"the route to %s leaves by %s%s%s, from %s", w->remote, w->device.name,
			via ? " via " : "", ec_address_to_string(&w->route.gateway, gateway),
			w->route.source.family ? ec_address_to_string(&w->route.source, source)
					       : "any address");
	return true;
}

static void resolve(Way *w, const char *setting, const EcFlow *flow, Answer *a)
{
	g_auto(sd_bus_error) why = SD_BUS_ERROR_NULL;
	EcManager *m = w->d->manager;
	const EcGuardSpec *last =
			w->d->tunnel ? ec_guard_spec(m->guard, ec_tunnel_name(w->d->tunnel)) : NULL;
	EcUnderlay *u = NULL;

	/* The object of underlay=any is for tunnels; the route has been asked for. */
	if (g_str_equal(setting, "any")) {
		a->r = 1;
		a->path = (EcPath){ .local = w->route.source,
			.ifindex = w->route.ifindex,
			.mtu = w->route.mtu ? MIN(w->route.mtu, w->device.mtu) : w->device.mtu };
		g_strlcpy(a->path.device, w->device.name, sizeof(a->path.device));
		return;
	}
	a->r = ec_underlays_resolve(m->underlays, setting, flow, last, &a->path, &u, &why);
	a->absent = sd_bus_error_has_name(&why, EC_ERROR_NO_UNDERLAY);
	a->why = g_strdup(why.message ? why.message : "nothing is known of the path");
	if (a->r > 0) {
		g_strlcpy(a->title, u->look.title, sizeof(a->title));
		ec_underlays_release(m->underlays, u);
	}
}

static void ask(Way *w, const EcAddress *remote)
{
	const EcEncap *encaps[EC_ENCAPS_MAX + 1];

	choose(w, remote->family, encaps);
	for (size_t i = 0; encaps[i]; i++) {
		Answer a = { .encap = encaps[i],
			.flow = ec_encap_flow(w->settings, encaps[i], remote) };
		const Answer *same = NULL;

		for (guint n = 0; n < w->answers->len && !same; n++) {
			const Answer *b = &g_array_index(w->answers, Answer, n);

			if (b->flow.protocol == a.flow.protocol && b->flow.port == a.flow.port)
				same = b;
		}
		if (same) {
			a = *same;
			a.encap = encaps[i];
			a.why = g_strdup(same->why);
		} else {
			resolve(w, w->settings->underlay, &a.flow, &a);
		}
		(void)g_array_append_vals(w->answers, &a, 1);
	}
}

static bool fares_the_same(const Answer *a, const Answer *b)
{
	if ((a->r > 0) != (b->r > 0))
		return false;
	return a->r > 0 ? a->path.fence == b->path.fence && a->path.mtu == b->path.mtu &&
					       g_str_equal(a->title, b->title)
			: g_strcmp0(a->why, b->why) == 0;
}

/* "gretap 1410, vxlan 1398": what fits into the path's packets. */
static void add_size(const Way *w, const Answer *a, const char *word, GString *sizes)
{
	EcWire wire;
	EcMtu mtu;

	ec_encap_wire(a->encap, w->settings, &wire);
	wire.local = a->path.local;
	wire.remote = a->flow.remote;
	ec_mtu_choose(w->settings, a->encap, &wire, a->path.mtu, 0, &mtu);
	g_string_append_printf(sizes, "%s%s %u", sizes->len ? ", " : "", word, mtu.whole);
}

/* "vxlan"; or "vxlan/user" where the kernel's was asked about as well and fares otherwise. */
static char *word_of(const Way *w, const EcEncap *encap)
{
	bool twice = false;

	for (guint i = 0; i < w->answers->len && !twice; i++) {
		const EcEncap *e = g_array_index(w->answers, Answer, i).encap;

		twice = e != encap && g_str_equal(e->name, encap->name);
	}
	return g_strconcat(encap->name, encap->worker && twice ? "/user" : NULL, NULL);
}

static void tell_path(Way *w, const Answer *a, const char *names, const char *sizes)
{
	char local[INET6_ADDRSTRLEN];
	bool any = g_str_equal(w->settings->underlay, "any");

	if (a->path.protect)
		ec_finding_add(w->d, EC_SEVERITY_OK, "protected", NULL,
				"%s to %s: protected by %s%s", names, w->remote, a->title,
				a->path.fence == EC_FENCE_IPSEC ? " (an IPsec policy)" : "");
	else if (any)
		ec_finding_add(w->d, EC_SEVERITY_WARNING, "not-protected",
				"set underlay=vpn, and nothing is sent unless a VPN carries it",
				"%s to %s: not protected, frames can leave outside a VPN "
				"(underlay=any, by %s)",
				names, w->remote, a->path.device);
	else
		ec_finding_add(w->d, EC_SEVERITY_WARNING, "not-protected",
				"set underlay=vpn, and nothing is sent unless a VPN carries it",
				"%s to %s: not protected, only confined to %s, which is no VPN",
				names, w->remote, a->path.device);
	(void)ec_address_to_string(&a->path.local, local);
	if (a->path.mtu)
		ec_finding_add(w->d, EC_SEVERITY_INFO, "mtu", NULL,
				"packets from %s of %u bytes cross whole; inside fit: %s",
				*local ? local : "any address", a->path.mtu, sizes);
}

/* others: an encapsulation that has a path. */
static void tell_none(Way *w, const Answer *a, const char *names, bool others)
{
	g_autofree char *remedy =
			a->absent ? g_strdup("bring the VPN up; a tunnel that waits for it "
					     "follows by itself")
				  : g_strdup_printf("have the VPN carry the way to %s, or give the "
						    "peer's address inside the VPN",
						    w->remote);

	ec_finding_add(w->d, others ? EC_SEVERITY_INFO : EC_SEVERITY_ERROR, "no-path", remedy,
			"no path for %s: %s", names, a->why);
}

static void tell(Way *w)
{
	bool any_path = false;

	for (guint i = 0; i < w->answers->len; i++)
		any_path |= g_array_index(w->answers, Answer, i).r > 0;
	for (guint i = 0; i < w->answers->len; i++) {
		g_autoptr(GPtrArray) words = g_ptr_array_new_with_free_func(g_free);
		g_autoptr(GString) sizes = g_string_new(NULL);
		const Answer *a = &g_array_index(w->answers, Answer, i);

		if (a->told)
			continue;
		for (guint n = i; n < w->answers->len; n++) {
			Answer *b = &g_array_index(w->answers, Answer, n);

			if (b->told || !fares_the_same(a, b))
				continue;
			b->told = true;
			/* Both planes of one format are the same on the way. */
			if (g_ptr_array_find_with_equal_func(
					    words, b->encap->name, g_str_equal, NULL))
				continue;
			char *word = word_of(w, b->encap);
			g_ptr_array_add(words, word);
			if (b->r > 0)
				add_size(w, b, word, sizes);
		}
		g_autofree char *names = ec_words_join(words);
		if (a->r > 0)
			tell_path(w, a, names, sizes->str);
		else
			tell_none(w, a, names, any_path);
	}
}

/* An IPsec policy takes packets wherever the route leads, also into another VPN. */
static void tell_second(Way *w)
{
	const Answer *a = NULL;

	for (guint i = 0; i < w->answers->len && !a; i++) {
		if (g_array_index(w->answers, Answer, i).r > 0)
			a = &g_array_index(w->answers, Answer, i);
	}
	if (!a || !g_str_equal(w->settings->underlay, "vpn"))
		return;
	for (const EcUnderlayKind *const *k = ec_underlay_kinds; *k; k++) {
		Answer other = { 0 };

		resolve(w, (*k)->name, &a->flow, &other);
		bool differs = other.r > 0 && !g_str_equal(other.title, a->title);
		if (differs) {
			g_autofree char *remedy = g_strdup_printf("if %s is meant, take the way to "
								  "%s out of %s",
					other.title, w->remote, a->title);
			ec_finding_add(w->d, EC_SEVERITY_INFO, "two-vpns", remedy,
					"two VPNs match the way to %s, %s and %s; ethercord uses "
					"%s",
					w->remote, a->title, other.title, a->title);
		}
		g_free(other.why);
		if (differs)
			return;
	}
}

void ec_diagnose_path(EcDiagnosis *d, const EcSettings *settings, const EcAddress *remote)
{
	g_auto(Way) w = {
		.d = d, .settings = settings, .answers = g_array_new(FALSE, TRUE, sizeof(Answer))
	};

	g_array_set_clear_func(w.answers, answer_done);
	(void)ec_address_to_string(remote, w.remote);
	if (!diagnose_route(&w, remote))
		return;
	ask(&w, remote);
	if (w.answers->len == 0)
		ec_finding_add(d, EC_SEVERITY_ERROR, "no-encapsulation",
				"allow another one, or load its kernel module",
				"this kernel can do none of the encapsulations asked for over %s",
				remote->family == AF_INET6 ? "IPv6" : "IPv4");
	tell(&w);
	tell_second(&w);
}
