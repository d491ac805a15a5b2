/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "encap.h"

#include <string.h>

/* What `auto` tries, best first. Without bridges GRE's smaller header wins; VXLAN is the better
 * bridge port, since it answers too-big into the network. FOU costs a sequence number and matters
 * only where nothing but UDP passes. What carries no Ethernet is never chosen unasked. */
static const char *const auto_point_to_point[] = { "gretap", "vxlan", "gretap-fou", NULL };
static const char *const auto_bridged[] = { "vxlan", "gretap", "gretap-fou", NULL };

const EcEncap *ec_encap_find(const char *name)
{
	for (const EcEncap *const *e = ec_encaps; *e; e++) {
		if (g_str_equal((*e)->name, name))
			return *e;
	}
	return NULL;
}

const char *ec_encap_plane(const EcEncap *encap)
{
	return encap->worker ? "user" : "kernel";
}

const EcEncap *ec_encap_find_in(const char *name, const char *plane)
{
	for (const EcEncap *const *e = ec_encaps; *e; e++) {
		if (g_str_equal((*e)->name, name) && g_str_equal(ec_encap_plane(*e), plane))
			return *e;
	}
	return NULL;
}

const char *ec_encap_kind(const EcEncap *encap, int family)
{
	return family == AF_INET6 ? encap->kind6 : encap->kind4;
}

static bool allows(const EcSettings *s, const EcEncap *e)
{
	return s->data_plane == EC_DATA_PLANE_AUTO ||
	       (s->data_plane == EC_DATA_PLANE_USER) == (e->worker != 0);
}

static bool has(const EcEncap *const *list, size_t n, const EcEncap *e)
{
	while (n > 0 && list[n - 1] != e)
		n--;
	return n > 0;
}

void ec_encap_candidates(
		const EcSettings *s, int family, const EcEncap *ret[static EC_ENCAPS_MAX + 1])
{
	static const char *const planes[] = { "kernel", "user" };
	const char *const *names = (const char *const *)s->encapsulation;
	size_t n = 0;

	if (!names || !*names || g_strv_contains(names, "auto"))
		names = s->mode == EC_MODE_POINT_TO_POINT ? auto_point_to_point : auto_bridged;
	for (; *names; names++) {
		for (size_t plane = 0; plane < EC_ELEMENTS(planes); plane++) {
			const EcEncap *e = ec_encap_find_in(*names, planes[plane]);

			if (e && n < EC_ENCAPS_MAX && allows(s, e) && ec_encap_kind(e, family) &&
					!has(ret, n, e))
				ret[n++] = e;
		}
	}
	ret[n] = NULL;
}

static void fill_ports(const EcEncap *encap, const EcSettings *s, EcWire *wire)
{
	uint16_t local = s->data_port, remote = s->remote_data_port;

	if (encap->flags & EC_ENCAP_SHARES_PORT) {
		local = local ? local : remote;
		remote = remote ? remote : local;
	}
	wire->data_port = local ? local : encap->data_port;
	wire->remote_data_port = remote ? remote : encap->data_port;
}

void ec_encap_wire(const EcEncap *encap, const EcSettings *s, EcWire *ret)
{
	/* Callers compare wires as memory: the padding is cleared too. */
	memset(ret, 0, sizeof(*ret));
	if (encap->flags & EC_ENCAP_UDP)
		fill_ports(encap, s, ret);
	if (encap->id_max)
		ret->id = s->id;
	ret->ttl = (uint8_t)s->ttl;
	ret->tos = (uint8_t)(s->dscp << 2);
	if (encap->flags & EC_ENCAP_FWMARK)
		ret->fwmark = s->fwmark;
}

EcFlow ec_encap_flow(const EcSettings *s, const EcEncap *encap, const EcAddress *remote)
{
	EcFlow flow = {
		.remote = *remote, .fwmark = s->fwmark, .protocol = encap->lookup_protocol
	};
	EcWire wire;

	ec_encap_wire(encap, s, &wire);
	if (s->local)
		(void)ec_address_from_string(s->local, &flow.local);
	flow.port = flow.protocol == IPPROTO_UDP ? wire.remote_data_port : 0;
	return flow;
}

/* A kind that carries IP is a plain interface: no bridge, no Ethernet address. */
static int verify_ip(const EcEncap *encap, const EcSettings *s, sd_bus_error *ret_error)
{
	if (encap->flags & EC_ENCAP_ETHERNET)
		return 0;
	if (s->mode != EC_MODE_POINT_TO_POINT || s->bridge || s->attach)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"encapsulation: %s carries IP, not Ethernet: it cannot join networks; "
				"use gretap or vxlan",
				encap->name);
	if (s->mac)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"mac: %s carries IP and has no Ethernet address; allowed with gretap, "
				"gretap-fou, vxlan and raw-udp",
				encap->name);
	return 0;
}

static int verify_id(const EcEncap *encap, const EcSettings *s, sd_bus_error *ret_error)
{
	if (s->id <= encap->id_max)
		return 0;
	if (!encap->id_max)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"id '%u': %s has none; allowed is 0, or another encapsulation",
				s->id, encap->name);
	return ec_error(ret_error, EC_ERROR_INVALID_SETTING, "id '%u': allowed with %s is 0 to %u",
			s->id, encap->name, encap->id_max);
}

static int verify_ports(const EcEncap *encap, const EcSettings *s, sd_bus_error *ret_error)
{
	if (!(encap->flags & EC_ENCAP_UDP) && (s->data_port || s->remote_data_port))
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"%s: %s uses no UDP; allowed with gretap-fou, vxlan, raw-udp and "
				"tun-udp",
				s->data_port ? "data-port" : "remote-data-port", encap->name);
	if ((encap->flags & EC_ENCAP_SHARES_PORT) && s->data_port && s->remote_data_port &&
			s->data_port != s->remote_data_port)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"data-port and remote-data-port: %s uses one port in both directions; "
				"allowed is the same port for both, or only one of the two settings",
				encap->name);
	return 0;
}

static int verify_full_frames(
		const EcEncap *encap, const EcSettings *s, int family, sd_bus_error *ret_error)
{
	if (s->full_frames != EC_FULL_FRAMES_YES)
		return 0;
	if (family == AF_INET6 && !(encap->flags & EC_ENCAP_FRAGMENTS_V6))
		return ec_error(ret_error, EC_ERROR_NOT_SUPPORTED,
				"full-frames 'yes': IPv6 routers and %s over IPv6 do not fragment; "
				"allowed is auto or no, data-plane=user, or an IPv4 address as "
				"remote",
				encap->name);
	if (family == AF_INET && !(encap->flags & EC_ENCAP_FRAGMENTS_V4))
		return ec_error(ret_error, EC_ERROR_NOT_SUPPORTED,
				"full-frames 'yes': %s cannot send outer fragments; allowed is auto or "
				"no, or another encapsulation",
				encap->name);
	return 0;
}

int ec_encap_verify(const EcEncap *encap, const EcSettings *s, int family, sd_bus_error *ret_error)
{
	if (s->fwmark && !(encap->flags & EC_ENCAP_FWMARK))
		return ec_error(ret_error, EC_ERROR_NOT_SUPPORTED,
				"fwmark '%u': %s packets carry no mark; allowed is 0, or another "
				"encapsulation",
				s->fwmark, encap->name);
	int r = verify_ip(encap, s, ret_error);
	if (r >= 0)
		r = verify_id(encap, s, ret_error);
	if (r >= 0)
		r = verify_ports(encap, s, ret_error);
	if (r >= 0)
		r = verify_full_frames(encap, s, family, ret_error);
	return r;
}
