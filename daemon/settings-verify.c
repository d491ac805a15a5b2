/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>

#include "settings.h"

/* The rules that need more than one key. */

static int verify_bridging(const EcSettings *s, sd_bus_error *ret_error)
{
	const char *at = s->bridge ? "bridge" : s->attach ? "attach" : "bridge-create";

	if (s->mode == EC_MODE_POINT_TO_POINT && (s->bridge || s->attach || s->bridge_create))
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"%s: mode is point-to-point, which bridges neither end; allowed with "
				"mode=join-remote or mode=join-networks",
				at);
	if (s->mode == EC_MODE_JOIN_NETWORKS && !s->bridge)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"bridge: mode=join-networks bridges both ends; name this end's bridge");
	if (!s->bridge && (s->attach || s->bridge_create))
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"%s: needs bridge=NAME, the bridge to use", at);
	if (s->bridge && s->address)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"address: the tunnel is a port of bridge %s; put the address on the bridge",
				s->bridge);
	return 0;
}

static int verify_names(const EcSettings *s, sd_bus_error *ret_error)
{
	const char *device = s->underlay && g_str_has_prefix(s->underlay, "device:")
					     ? s->underlay + strlen("device:")
					     : NULL;
	const struct {
		const char *key, *value;
	} name[] = { { "interface", s->interface }, { "bridge", s->bridge },
		{ "attach", s->attach }, { "underlay", device } };

	for (size_t i = 0; i < EC_ELEMENTS(name); i++) {
		for (size_t j = i + 1; name[i].value && j < EC_ELEMENTS(name); j++) {
			if (name[j].value && g_str_equal(name[i].value, name[j].value))
				return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
						"%s and %s: both name '%s'; allowed is a different "
						"interface for each",
						name[i].key, name[j].key, name[i].value);
		}
	}
	return 0;
}

/* What tunnels and listeners have in common. */
static int verify_numbers(const EcSettings *s, sd_bus_error *ret_error)
{
	if (s->mtu > 0 && s->mtu < 68)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"mtu '%u': allowed is 0 (automatic) or 68 to 65535", s->mtu);
	if (s->keepalive_timeout < s->keepalive_interval)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"keepalive-timeout '%u': allowed is keepalive-interval (%u ms) or more",
				s->keepalive_timeout, s->keepalive_interval);
	for (char **g = s->guard; g && *g; g++) {
		if ((g_str_equal(*g, "auto") || g_str_equal(*g, "none")) &&
				g_strv_length(s->guard) > 1)
			return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
					"guard: '%s' stands alone", *g);
	}
	return 0;
}

/* Formats in which nothing tells whose a packet is, and so anybody's may be taken for the peer's.
 */
static bool is_nameless(const char *encapsulation)
{
	static const char *const nameless[] = { "raw-udp", "tun-udp", NULL };

	return g_strv_contains(nameless, encapsulation);
}

static int verify_nameless(const EcSettings *s, sd_bus_error *ret_error)
{
	bool all = s->encapsulation != NULL;
	const char *underlay = s->underlay ? s->underlay : "vpn";
	const char *asked = s->roam ? "roam 'yes'" : "remote";

	for (char **e = s->encapsulation; e && *e; e++)
		all = all && is_nameless(*e);
	if (!s->roam && s->remote)
		return 0;
	if (!s->roam && !all)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"remote: the address or host name of the peer is missing");
	if (!s->roam)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"remote: the address or host name of the peer is missing; to wait for a "
				"client that nobody authenticates set roam=yes");
	if (!all || s->control != EC_CONTROL_STATIC)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"%s: allowed with control=static and encapsulation=raw-udp or tun-udp",
				asked);
	if (!s->remote && !g_str_equal(underlay, "any") && !g_str_has_prefix(underlay, "device:"))
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"underlay '%s': which VPN it is shows by the way to the remote, and there is "
				"none; allowed is device:IFNAME or any",
				underlay);
	return 0;
}

static int verify_tunnel(const EcSettings *s, sd_bus_error *ret_error)
{
	EcAddress local = { 0 }, remote;

	if (!s->name)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING, "name: a tunnel needs one");
	if (verify_nameless(s, ret_error) < 0)
		return -EINVAL;
	if (s->local && ec_address_from_string(s->local, &local) < 0)
		return -EINVAL;
	for (char **r = s->remote; s->local && r && *r; r++) {
		if (ec_address_from_string(*r, &remote) == 0 && remote.family != local.family)
			return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
					"local and remote: %s and %s are not of one IP version",
					s->local, *r);
	}
	int r = verify_numbers(s, ret_error);
	return r < 0 ? r : verify_bridging(s, ret_error);
}

static int verify_listener(const EcSettings *s, sd_bus_error *ret_error)
{
	const EcSetting *mode = ec_setting_find_in(EC_SCOPE_LISTENER, "mode");

	if (!s->name)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING, "name: a listener needs one");
	if (s->bridge && s->mode == EC_MODE_POINT_TO_POINT && ec_settings_is_given(s, mode))
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"bridge: mode is point-to-point, which bridges neither end; allowed with "
				"mode=join-remote, mode=join-networks or no mode");
	return verify_numbers(s, ret_error);
}

static int verify_peer(const EcSettings *s, sd_bus_error *ret_error)
{
	int r = verify_numbers(s, ret_error);

	if (r >= 0 && s->bridge && s->address)
		r = ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"address: the tunnel is a port of bridge %s; put the address on the bridge",
				s->bridge);
	return r;
}

int ec_settings_verify(const EcSettings *s, sd_bus_error *ret_error)
{
	int r = s->scope == EC_SCOPE_LISTENER ? verify_listener(s, ret_error)
		: s->scope == EC_SCOPE_PEER   ? verify_peer(s, ret_error)
					      : verify_tunnel(s, ret_error);

	return r < 0 ? r : verify_names(s, ret_error);
}

static void free_settings(gpointer s)
{
	(void)ec_settings_free(s);
}

GHashTable *ec_settings_peers_new(void)
{
	return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, free_settings);
}

GHashTable *ec_settings_peers_copy(GHashTable *peers)
{
	GHashTable *copy = ec_settings_peers_new();
	GHashTableIter i;
	const EcSettings *s;
	const char *name;

	g_hash_table_iter_init(&i, peers);
	while (g_hash_table_iter_next(&i, (gpointer *)&name, (gpointer *)&s))
		g_hash_table_insert(copy, g_strdup(name), ec_settings_copy(s));
	return copy;
}

/* One peer together with the listener that accepts it, and the interfaces' names seen so far. */
static int verify_accepted(const EcSettings *listener, const char *name, const EcSettings *peer,
		GHashTable *interfaces, sd_bus_error *ret_error)
{
	const char *bridge = peer->bridge ? peer->bridge : listener->bridge;
	bool alone = ec_settings_is_given(listener, ec_setting_find_in(EC_SCOPE_LISTENER, "mode"));

	if (bridge && peer->address)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"peer %s: address: its tunnel is a port of bridge %s; put the address on "
				"the bridge",
				name, bridge);
	if (bridge && alone && listener->mode == EC_MODE_POINT_TO_POINT)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"peer %s: bridge: the listener's mode is point-to-point, which bridges "
				"neither end",
				name);
	if (peer->interface && !g_hash_table_add(interfaces, peer->interface))
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"peer %s: interface '%s': allowed is one that no other peer has",
				name, peer->interface);
	return 0;
}

int ec_settings_verify_peers(const EcSettings *listener, GHashTable *peers, sd_bus_error *ret_error)
{
	g_autoptr(GHashTable) interfaces = g_hash_table_new(g_str_hash, g_str_equal);
	const EcSetting *mode = ec_setting_find_in(EC_SCOPE_LISTENER, "mode");
	bool bridged = listener->bridge;
	int r = ec_settings_verify(listener, ret_error);
	GHashTableIter i;
	const EcSettings *s;
	const char *name;

	g_hash_table_iter_init(&i, peers);
	while (r >= 0 && g_hash_table_iter_next(&i, (gpointer *)&name, (gpointer *)&s)) {
		bridged = bridged || s->bridge;
		r = ec_settings_verify(s, ret_error);
		if (r >= 0)
			r = verify_accepted(listener, name, s, interfaces, ret_error);
	}
	if (r >= 0 && !bridged && ec_settings_is_given(listener, mode) &&
			listener->mode != EC_MODE_POINT_TO_POINT)
		r = ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"bridge: mode=%s joins the peers to a bridge here; name it",
				ec_settings_word("mode", listener->mode));
	if (r >= 0 && !bridged && listener->bridge_create)
		r = ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"bridge-create: needs bridge=NAME, the bridge to use");
	return r;
}

int ec_settings_check_supported(const EcSettings *s, sd_bus_error *ret_error)
{
	const struct {
		bool asked;
		const char *key, *value, *allowed;
	} row[] = {
		{ s->control > EC_CONTROL_STATIC, "control",
				ec_settings_word("control", s->control), "ethercord or static" },
		{ s->fidelity != EC_FIDELITY_BRIDGE, "fidelity",
				ec_settings_word("fidelity", s->fidelity), "bridge" },
		{ s->guard && !g_str_equal(s->guard[0], "auto") &&
						!g_str_equal(s->guard[0], "none"),
				"guard", s->guard ? s->guard[0] : "", "auto or none" },
		{ s->gre_keepalive != NULL, "gre-keepalive", s->gre_keepalive, "to leave it out" },
		{ s->link_loss_forwarding, "link-loss-forwarding", "yes", "no" },
		{ s->compat != NULL, "compat", s->compat ? s->compat[0] : "", "to leave it out" },
	};

	for (size_t i = 0; i < EC_ELEMENTS(row); i++) {
		if (row[i].asked)
			return ec_error(ret_error, EC_ERROR_NOT_SUPPORTED,
					"%s=%s: this build cannot do it; allowed is %s", row[i].key,
					row[i].value, row[i].allowed);
	}
	return 0;
}
