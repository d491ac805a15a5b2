/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "path.h"

#include <string.h>

#include "log.h"
#include "manager.h"

/*
 * DOC: Theory of operation
 *
 * A path is asked for per flow: a VPN may take GRE and not UDP. So each allowed encapsulation is
 * asked about, and only those stay candidates that leave the same way. A tunnel that runs keeps its
 * encapsulation: the peer would not follow another.
 *
 * The fence is the guard's side of the path. It is armed when the form of the packets is known and
 * no interface sends them yet, changes in one piece with the path, and outlives every outage: a
 * path that is lost leaves the fence as it was.
 */

#define TCP_HEADER 20
#define IPV4_HEADER 20
#define IPV6_HEADER 40

void ec_path_ride(EcTunnel *t, EcUnderlay *u)
{
	EcUnderlay *before = t->underlay;

	if (before != u)
		ec_tunnel_touch(t, EC_PROPERTY_UNDERLAY);
	t->underlay = u;
	if (before)
		ec_underlays_release(t->manager->underlays, before);
}

static bool same_flow(const EcFlow *a, const EcFlow *b)
{
	return a->protocol == b->protocol && a->port == b->port;
}

static bool same_path(const EcPath *a, const EcPath *b)
{
	return a->ifindex == b->ifindex && a->fence == b->fence;
}

/* Those of the allowed encapsulations that the settings and the running interface leave. */
static void choose_from(const EcTunnel *t, int family, const EcEncap *ret[])
{
	ec_encap_candidates(ec_tunnel_terms(t), family, ret);
	for (size_t i = 0; t->encap && ret[i]; i++) {
		if (ret[i] == t->encap) {
			ret[0] = t->encap;
			ret[1] = NULL;
			return;
		}
	}
}

int ec_path_to(EcManager *m, const EcSettings *s, const EcAddress *remote,
		const EcEncap *candidates[], EcPath *ret, EcUnderlay **ret_underlay,
		sd_bus_error *ret_why)
{
	bool any = g_str_equal(s->underlay, "any"), found = false;
	const EcGuardSpec *last = ec_guard_spec(m->guard, s->name);
	EcFlow good = { 0 };
	size_t kept = 0;

	for (size_t i = 0; candidates[i]; i++) {
		g_auto(sd_bus_error) why = SD_BUS_ERROR_NULL;
		EcFlow flow = ec_encap_flow(s, candidates[i], remote);
		EcUnderlay *u = NULL;
		EcPath path;
		int r = 1;

		if (!found || !(any || same_flow(&flow, &good)))
			r = ec_underlays_resolve(m->underlays, s->underlay, &flow, last,
					found ? &path : ret, &u, &why);
		if (r < 0 || (r == 0 && i == 0)) {
			sd_bus_error_free(ret_why);
			(void)sd_bus_error_move(ret_why, &why);
		}
		if (r < 0) {
			if (found)
				ec_underlays_release(m->underlays, *ret_underlay);
			return r;
		}
		if (r > 0 && !found) {
			good = flow;
			*ret_underlay = g_steal_pointer(&u);
		} else if (r > 0 && u && !same_path(&path, ret)) {
			r = 0;
		}
		if (u)
			ec_underlays_release(m->underlays, u);
		found = found || r > 0;
		if (r > 0)
			candidates[kept++] = candidates[i];
	}
	candidates[kept] = NULL;
	return found;
}

/* Where whoever comes may come from: nothing is sent there yet, so there is nothing to fence. */
static int find_nobody(EcTunnel *t, const EcEncap *candidates[static EC_ENCAPS_MAX + 1],
		EcPath *ret, EcUnderlay **ret_underlay, sd_bus_error *ret_why)
{
	const char *underlay = t->settings->underlay;
	const char *device =
			g_str_has_prefix(underlay, "device:") ? strchr(underlay, ':') + 1 : NULL;
	g_auto(EcLink) link = { 0 };
	EcPath path = { .local.family = AF_INET };

	if (t->settings->local)
		(void)ec_address_from_string(t->settings->local, &path.local);
	if (device) {
		int r = ec_kernel_link_by_name(t->manager->kernel, device, &link, ret_why);

		if (r == 0 || (r > 0 && !(link.flags & IFF_UP)))
			(void)ec_error(ret_why, EC_ERROR_NO_UNDERLAY, "interface %s is %s", device,
					r == 0 ? "not there" : "down");
		if (r <= 0 || !(link.flags & IFF_UP))
			return MIN(r, 0);
		path.fence = EC_FENCE_INTERFACE;
		path.ifindex = link.ifindex;
		path.mtu = link.mtu;
		g_strlcpy(path.device, device, sizeof(path.device));
	}
	choose_from(t, path.local.family, candidates);
	t->remote = (EcAddress){ .family = path.local.family };
	*ret = path;
	*ret_underlay = ec_underlays_named(t->manager->underlays, underlay);
	return 1;
}

static int find_remote(EcTunnel *t, const EcEncap *candidates[static EC_ENCAPS_MAX + 1],
		EcPath *ret, EcUnderlay **ret_underlay, sd_bus_error *ret_why)
{
	if (ec_tunnel_awaits_client(t))
		return find_nobody(t, candidates, ret, ret_underlay, ret_why);
	if (t->n_remotes == 0) {
		(void)ec_error(ret_why, EC_ERROR_PEER_UNREACHABLE,
				t->attempts ? "no address is known for %s" : "looking up %s",
				t->settings->remote[0]);
		return 0;
	}
	for (size_t n = 0; n < t->n_remotes; n++) {
		g_auto(sd_bus_error) why = SD_BUS_ERROR_NULL;
		size_t i = (t->turn + n) % t->n_remotes;

		choose_from(t, t->remotes[i].family, candidates);
		if (!candidates[0])
			return ec_error(ret_why, EC_ERROR_NOT_SUPPORTED,
					"this kernel can do none of the encapsulations allowed (none "
					"fits these settings)");
		int r = ec_path_to(t->manager, ec_tunnel_terms(t), &t->remotes[i], candidates, ret,
				ret_underlay, &why);
		if (r > 0) {
			sd_bus_error_free(ret_why);
			if (!ec_address_equal(&t->remote, &t->remotes[i]))
				ec_tunnel_touch(t, EC_PROPERTY_REMOTE);
			t->remote = t->remotes[i];
			return 1;
		}
		/* The sentence is about the first of all. */
		if (r < 0 || n == 0) {
			sd_bus_error_free(ret_why);
			(void)sd_bus_error_move(ret_why, &why);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

/* Says aloud that one layer alone holds, once. */
static void tell_weak(const EcTunnel *t, const EcGuardSpec *spec, unsigned layers)
{
	unsigned second = spec->fence == EC_FENCE_IPSEC ? EC_GUARD_XFRM : EC_GUARD_ROUTE;
	unsigned missing = layers == EC_GUARD_NFTABLES ? second : EC_GUARD_NFTABLES;
	const char *words[4], *lacks[4];

	ec_guard_words(layers, words);
	ec_guard_words(missing, lacks);
	ec_log_tunnel(LOG_WARNING, t, "only one layer of the guard holds (%s), %s does not: %s",
			words[0], lacks[0], ec_guard_why(t->manager->guard, missing));
}

static void note_layers(EcTunnel *t)
{
	unsigned layers = ec_guard_layers(t->manager->guard, ec_tunnel_name(t));
	const EcGuardSpec *spec = ec_guard_spec(t->manager->guard, ec_tunnel_name(t));
	bool protect = layers && spec && spec->protect;

	if (t->layers == layers && t->protect == protect)
		return;
	if (protect && (layers & (layers - 1)) == 0)
		tell_weak(t, spec, layers);
	t->layers = layers;
	t->protect = protect;
	ec_tunnel_touch(t, EC_PROPERTY_UNDERLAY);
}

int ec_path_find(EcTunnel *t, const EcEncap *candidates[static EC_ENCAPS_MAX + 1],
		sd_bus_error *ret_why)
{
	EcUnderlay *u = NULL;
	EcPath path = { 0 };

	note_layers(t); /* as an earlier daemon left them, or what was lost since */
	int r = find_remote(t, candidates, &path, &u, ret_why);
	if (r <= 0)
		return r;
	if ((t->ifindex && path.ifindex == t->ifindex) ||
			(t->bridge && path.ifindex == t->bridge)) {
		ec_underlays_release(t->manager->underlays, u);
		(void)ec_error(ret_why, EC_ERROR_LOOP,
				"the route to the peer leads into this tunnel itself (by %s)",
				path.device);
		return 0;
	}
	if (t->path.ifindex != path.ifindex || t->path.protect != path.protect ||
			!ec_address_equal(&t->path.local, &path.local))
		ec_tunnel_touch(t, EC_PROPERTY_UNDERLAY | EC_PROPERTY_LOCAL);
	t->path = path;
	ec_path_ride(t, u);
	return 1;
}

/* Fence */

int ec_path_fence(EcTunnel *t, const EcEncap *encap, const EcWire *wire, sd_bus_error *ret_error)
{
	const EcPath *path = &t->path;
	bool shared = encap->flags & EC_ENCAP_SHARES_PORT;
	EcGuardSpec spec = {
		.fence = path->fence,
		.ipsec_within = path->ipsec_within,
		.gateway = path->gateway,
		.local = wire->local,
		.remote = wire->remote,
		.protocol = encap->protocol,
		.lookup_protocol = encap->lookup_protocol,
		.second_protocol = wire->remote.family == AF_INET6 ? encap->second_protocol6 : 0,
		.local_port = wire->data_port,
		.remote_port = wire->remote_data_port,
		.has_vni = shared,
		.vni = shared ? wire->id : 0,
		.protect = path->protect,
	};

	/* Where anybody may be the peer and there is no VPN, the socket's device alone can tell. */
	bool anybody = t->settings->roam && !path->protect;
	if (path->fence == EC_FENCE_NONE || anybody || ec_tunnel_awaits_client(t)) {
		ec_path_unfence(t);
		return 0;
	}
	if (t->settings->roam && path->fence == EC_FENCE_INTERFACE) {
		EcWire plain;

		ec_encap_wire(encap, t->settings, &plain);
		spec.remote = t->remote;
		spec.remote_port = plain.remote_data_port;
		spec.anybody = true;
	}
	if (path->fence == EC_FENCE_INTERFACE)
		g_strlcpy(spec.device, path->device, sizeof(spec.device));
	g_strlcpy(spec.vpn, t->underlay->look.title, sizeof(spec.vpn));
	int r = ec_guard_arm(t->manager->guard, ec_tunnel_name(t), &spec, ret_error);
	note_layers(t);
	return r;
}

void ec_path_unfence(EcTunnel *t)
{
	if (!ec_guard_spec(t->manager->guard, ec_tunnel_name(t)))
		return;
	ec_guard_disarm(t->manager->guard, ec_tunnel_name(t));
	ec_manager_flush_later(t->manager);
	t->layers = 0;
	t->protect = false;
	ec_tunnel_touch(t, EC_PROPERTY_UNDERLAY);
}

void ec_path_clamp(EcTunnel *t, bool bridged)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	uint32_t whole = t->mtu.whole, headers4 = IPV4_HEADER + TCP_HEADER,
		 headers6 = IPV6_HEADER + TCP_HEADER;
	/* What answers too-big has TCP adapt by itself. */
	bool wanted = bridged && (t->encap->flags & EC_ENCAP_ETHERNET) &&
		      !(t->encap->flags & EC_ENCAP_TOO_BIG) && whole > headers6 &&
		      whole < EC_MTU_ETHERNET;
	uint16_t mss4 = wanted ? (uint16_t)(whole - headers4) : 0;
	uint16_t mss6 = wanted ? (uint16_t)(whole - headers6) : 0;

	if (mss4 == t->mss4 && !wanted)
		return;
	if (ec_guard_clamp(t->manager->guard, ec_tunnel_name(t), t->ifname, mss4, mss6, &error) < 0)
		ec_log_tunnel(LOG_WARNING, t, "TCP is not kept below the path's MTU: %s",
				error.message);
	else
		t->mss4 = mss4;
}
