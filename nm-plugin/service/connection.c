/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "svc.h"

#include <errno.h>
#include <string.h>

/* Every setting of the profile that we look at is an a{sv} of a{sa{sv}}; vpn.data and vpn.secrets
 * are a{ss} within. */

static int read_items(sd_bus_message *m, EcProfile *p,
		int (*set)(EcProfile *, const char *, const char *, sd_bus_error *),
		sd_bus_error *ret_error)
{
	int r = sd_bus_message_enter_container(m, 'v', "a{ss}");

	if (r >= 0)
		r = sd_bus_message_enter_container(m, 'a', "{ss}");
	while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "ss")) > 0) {
		const char *key, *text;

		r = sd_bus_message_read(m, "ss", &key, &text);
		if (r >= 0)
			r = set(p, key, text, ret_error);
		if (r >= 0)
			r = sd_bus_message_exit_container(m);
	}
	if (r >= 0)
		r = sd_bus_message_exit_container(m);
	return r < 0 ? r : sd_bus_message_exit_container(m);
}

/* The a{sv} of the setting vpn, entered by nobody yet. */
static int read_vpn(sd_bus_message *m, EcSvcConnection *c, sd_bus_error *ret_error)
{
	int r = sd_bus_message_enter_container(m, 'a', "{sv}");

	while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
		const char *key;

		r = sd_bus_message_read_basic(m, 's', &key);
		if (r < 0)
			break;
		if (g_str_equal(key, "data"))
			r = read_items(m, c->profile, ec_profile_set, ret_error);
		else if (g_str_equal(key, "secrets"))
			r = read_items(m, c->profile, ec_profile_set_secret, ret_error);
		else if (g_str_equal(key, "persistent"))
			r = sd_bus_message_read(m, "v", "b", &c->persistent);
		else
			r = sd_bus_message_skip(m, "v");
		if (r >= 0)
			r = sd_bus_message_exit_container(m);
	}
	return MIN(r, 0);
}

static int enter(const EcSvcConnection *c, const char *setting)
{
	int r = sd_bus_message_rewind(c->message, true);

	return r < 0 ? r : ec_svc_enter_setting(c->message, setting);
}

static int read_plain(EcSvcConnection *c)
{
	static const EcSvcProperty connection[] = {
		{ "id", "s", offsetof(EcSvcConnection, id) },
		{ "uuid", "s", offsetof(EcSvcConnection, uuid) },
		{ "zone", "s", offsetof(EcSvcConnection, zone) },
		{ NULL },
	};
	static const EcSvcProperty ipv4[] = {
		{ "method", "s", offsetof(EcSvcConnection, method4) },
		{ "may-fail", "b", offsetof(EcSvcConnection, may_fail4) },
		{ NULL },
	};
	static const EcSvcProperty ipv6[] = {
		{ "method", "s", offsetof(EcSvcConnection, method6) },
		{ "may-fail", "b", offsetof(EcSvcConnection, may_fail6) },
		{ "ra-timeout", "i", offsetof(EcSvcConnection, ra_timeout) },
		{ NULL },
	};
	static const struct {
		const char *name;
		const EcSvcProperty *table;
	} setting[] = { { "connection", connection }, { "ipv4", ipv4 }, { "ipv6", ipv6 } };
	int r = 0;

	c->may_fail4 = c->may_fail6 = true;
	for (size_t i = 0; r >= 0 && i < EC_ELEMENTS(setting); i++) {
		r = enter(c, setting[i].name);
		if (r > 0)
			r = ec_svc_read_properties(c->message, setting[i].table, c);
	}
	return r;
}

/* Of a variant, a list of a{sv}: 1 when there is something in it; else it is behind us. */
static int is_filled(sd_bus_message *m)
{
	int r = sd_bus_message_enter_container(m, 'v', "aa{sv}");

	if (r >= 0)
		r = sd_bus_message_enter_container(m, 'a', "a{sv}");
	if (r < 0)
		return r;
	if (sd_bus_message_at_end(m, false) == 0)
		return 1;
	r = sd_bus_message_exit_container(m);
	if (r >= 0)
		r = sd_bus_message_exit_container(m);
	return MIN(r, 0);
}

/* Whether a setting has an address or a route of its own. */
static int has_own(const EcSvcConnection *c, const char *setting)
{
	static const char *const lists[] = { "address-data", "route-data", NULL };
	sd_bus_message *m = c->message;
	int r = enter(c, setting);

	if (r <= 0)
		return r;
	r = sd_bus_message_enter_container(m, 'a', "{sv}");
	while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
		const char *key;

		r = sd_bus_message_read_basic(m, 's', &key);
		if (r >= 0 && g_strv_contains(lists, key)) {
			r = is_filled(m);
			if (r > 0)
				return r;
		} else if (r >= 0) {
			r = sd_bus_message_skip(m, "v");
		}
		if (r >= 0)
			r = sd_bus_message_exit_container(m);
	}
	return r;
}

/* NetworkManager would put them on the port, and what goes to the bridge's network would leave by
 * the port alone, without an answer. */
static int verify_port(const EcSvcConnection *c, sd_bus_error *ret_error)
{
	static const char *const settings[] = { "ipv4", "ipv6" };

	for (size_t i = 0; c->profile->settings->bridge && i < EC_ELEMENTS(settings); i++) {
		int r = has_own(c, settings[i]);

		if (r < 0)
			return r;
		if (r > 0)
			return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
					"%s.addresses, %s.routes: the tunnel is a port of bridge %s; "
					"allowed are none, and addresses and routes on the bridge",
					settings[i], settings[i], c->profile->settings->bridge);
	}
	return 0;
}

int ec_svc_connection_read(sd_bus_message *m, EcSvcConnection **ret, sd_bus_error *ret_error)
{
	EcSvcConnection *c = *ret = g_new0(EcSvcConnection, 1);

	c->message = sd_bus_message_ref(m);
	/* A key may be in there. */
	(void)sd_bus_message_sensitive(m);
	c->profile = ec_profile_new();
	int r = read_plain(c);
	if (r >= 0 && (!c->uuid || !c->id))
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"the connection has no id or no UUID");
	if (r >= 0)
		r = enter(c, "vpn");
	if (r > 0)
		r = read_vpn(m, c, ret_error);
	if (r < 0)
		return r;
	c->name = ec_profile_name(c->profile, c->id);
	r = ec_profile_verify(c->profile, ret_error);
	return r < 0 ? r : verify_port(c, ret_error);
}

EcSvcConnection *ec_svc_connection_free(EcSvcConnection *c)
{
	if (!c)
		return NULL;
	(void)sd_bus_message_unref(c->message);
	(void)ec_profile_free(c->profile);
	g_free(c->id);
	g_free(c->uuid);
	g_free(c->zone);
	g_free(c->method4);
	g_free(c->method6);
	g_free(c->name);
	g_free(c);
	return NULL;
}

/* A tunnel need not have a key: one inside a VPN, or made by hand at both ends, has none. Who says
 * that the key is kept elsewhere says that there is one. */
bool ec_svc_connection_needs_key(const EcSvcConnection *c)
{
	const uint32_t elsewhere = EC_PROFILE_KEY_AGENT_OWNED | EC_PROFILE_KEY_NOT_SAVED;
	const EcProfile *p = c->profile;

	return !p->settings->key && !p->tunnel && (p->key_flags & elsewhere) &&
	       !(p->key_flags & EC_PROFILE_KEY_NOT_REQUIRED);
}

const char *ec_svc_connection_method(
		const EcSvcConnection *c, const EcSettings *settings, bool layer2, bool six)
{
	const char *method = six ? c->method6 : c->method4;
	int ip = six ? c->profile->ipv6 : c->profile->ipv4;

	/* On what carries IP only there is nobody to ask. */
	if (settings->bridge || !layer2)
		return NULL;
	switch ((EcProfileIp)ip) {
	case EC_PROFILE_IP_DHCP:
		return six ? "dhcp" : "auto";
	case EC_PROFILE_IP_AUTO:
		return "auto";
	case EC_PROFILE_IP_METHOD:
		break;
	case EC_PROFILE_IP_STATIC:
	case EC_PROFILE_IP_NONE:
	case _EC_PROFILE_IP_MAX:
		return NULL;
	}
	for (char **a = settings->address; a && *a; a++) {
		if (!strchr(*a, ':') == !six)
			return NULL;
	}
	if (g_strcmp0(method, "auto") == 0)
		return "auto";
	return six && g_strcmp0(method, "dhcp") == 0 ? "dhcp" : NULL;
}

bool ec_svc_connection_refuses_ra(const EcSvcConnection *c)
{
	return !c->profile->tunnel &&
	       (c->profile->ipv6 != EC_PROFILE_IP_METHOD || g_strcmp0(c->method6, "ignore") != 0);
}

int ec_svc_connection_copy(const EcSvcConnection *c, const char *from, const char *const *keys,
		sd_bus_message *to)
{
	int r = enter(c, from);

	if (r > 0)
		r = sd_bus_message_enter_container(c->message, 'a', "{sv}");
	else
		return r;
	while (r >= 0 && (r = sd_bus_message_enter_container(c->message, 'e', "sv")) > 0) {
		const char *key;

		r = sd_bus_message_read_basic(c->message, 's', &key);
		if (r >= 0 && g_strv_contains(keys, key)) {
			r = sd_bus_message_open_container(to, 'e', "sv");
			if (r >= 0)
				r = sd_bus_message_append_basic(to, 's', key);
			if (r >= 0)
				r = sd_bus_message_copy(to, c->message, false);
			if (r >= 0)
				r = sd_bus_message_close_container(to);
		} else if (r >= 0) {
			r = sd_bus_message_skip(c->message, "v");
		}
		if (r >= 0)
			r = sd_bus_message_exit_container(c->message);
	}
	return r;
}
