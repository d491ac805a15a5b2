/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "underlay.h"

#include <string.h>

/*
 * DOC: Theory of operation
 *
 * `underlay=` names what a tunnel may ride on. Each distinct value becomes one EcUnderlay, made
 * when the first tunnel asks for it and freed with the last, so a VPN is followed once however many
 * tunnels ride on it. The kind under plugins/underlay/ follows its VPN (watch) and answers flows
 * (path); it never touches a tunnel. The manager re-asks path() after ec_underlay_report() and
 * after every netlink event on links, addresses, routes and rules.
 */

const EcUnderlayKind *ec_underlay_find(const char *setting)
{
	for (const EcUnderlayKind *const *k = ec_underlay_kinds; *k; k++) {
		if ((*k)->serves(setting))
			return *k;
	}
	return NULL;
}

int ec_underlay_new(const char *setting, const EcUnderlayHost *host, EcUnderlay **ret,
		sd_bus_error *ret_error)
{
	const EcUnderlayKind *kind = ec_underlay_find(setting);

	if (!kind)
		return ec_error(ret_error, EC_ERROR_NO_UNDERLAY,
				"underlay=%s: this build recognises no VPN by itself; name its "
				"interface with underlay=device:IFNAME, or accept any path with "
				"underlay=any",
				setting);
	const char *colon = strchr(setting, ':');
	EcUnderlay *u = g_malloc0(kind->size);
	u->kind = kind;
	u->refs = 1;
	u->setting = g_strdup(setting);
	u->name = g_strdup(colon ? colon + 1 : setting);
	u->host = *host;
	int r = kind->watch ? kind->watch(u, ret_error) : 0;
	if (r < 0) {
		(void)ec_underlay_unref(u);
		return r;
	}
	*ret = u;
	return 0;
}

EcUnderlay *ec_underlay_ref(EcUnderlay *u)
{
	u->refs++;
	return u;
}

EcUnderlay *ec_underlay_unref(EcUnderlay *u)
{
	if (!u || --u->refs > 0)
		return NULL;
	if (u->kind->done)
		u->kind->done(u);
	g_free(u->setting);
	g_free(u->name);
	g_free(u);
	return NULL;
}

int ec_underlay_path(EcUnderlay *u, const EcFlow *flow, EcPath *ret, sd_bus_error *ret_why)
{
	EcPath path = { 0 };
	EcUnderlay before = *u;
	int r = u->kind->path(u, flow, &path, ret_why);

	if (before.up != u->up || before.protect != u->protect || before.mtu != u->mtu ||
			!g_str_equal(before.device, u->device))
		u->host.changed(u, false, u->host.userdata);
	if (r > 0)
		*ret = path;
	return r;
}

void ec_underlay_report(EcUnderlay *u)
{
	u->host.changed(u, true, u->host.userdata);
}
