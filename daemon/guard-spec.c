/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>

#include "guard-layer.h"

/*
 * A fence as a keyfile of one group, and what a fence must be like.
 */

#define GROUP "guard"

static const char *const fence_names[] = {
	[EC_FENCE_NONE] = "none",
	[EC_FENCE_INTERFACE] = "interface",
	[EC_FENCE_IPSEC] = "ipsec",
};

static int wrong(sd_bus_error *ret_error, const char *what)
{
	(void)ec_error(ret_error, EC_ERROR_INVALID_SETTING, "a fence cannot have %s", what);
	return -EINVAL;
}

int ec_guard_spec_check(const EcGuardSpec *s, sd_bus_error *ret_error)
{
	bool udp = s->protocol == IPPROTO_UDP;

	if (s->fence != EC_FENCE_INTERFACE && s->fence != EC_FENCE_IPSEC)
		return wrong(ret_error, "that kind");
	/* In nftables a name may not hold quotes, and one that ends in an asterisk means many. */
	if (s->fence == EC_FENCE_INTERFACE && !ec_ifname_is_valid(s->device))
		return wrong(ret_error, "an interface of that name");
	if (s->remote.family != AF_INET && s->remote.family != AF_INET6)
		return wrong(ret_error, "no address of the peer");
	if ((s->local.family != AF_UNSPEC && s->local.family != s->remote.family) ||
			(s->gateway.family != AF_UNSPEC && s->gateway.family != s->remote.family))
		return wrong(ret_error, "addresses of two families");
	if (!udp && s->protocol != IPPROTO_GRE && s->protocol != IPPROTO_IPIP &&
			s->protocol != IPPROTO_IPV6)
		return wrong(ret_error, "that protocol");
	if (udp ? !s->local_port || !s->remote_port : s->has_vni)
		return wrong(ret_error, udp ? "no port" : "a network identifier without a port");
	if (udp && s->lookup_protocol != IPPROTO_UDP && s->lookup_protocol != IPPROTO_GRE)
		return wrong(ret_error, "that protocol inside UDP");
	if (s->anybody && (!udp || s->has_vni || s->fence != EC_FENCE_INTERFACE))
		return wrong(ret_error, "just anybody as the peer");
	if (!udp && s->lookup_protocol != s->protocol)
		return wrong(ret_error, "two protocols");
	if (s->second_protocol && (udp || (s->second_protocol != IPPROTO_IPV6 &&
							  s->second_protocol != IPPROTO_IPIP)))
		return wrong(ret_error, "that second protocol");
	return s->vni < 1u << 24 ? 0 : wrong(ret_error, "such a network identifier");
}

static void put_address(GKeyFile *file, const char *key, const EcAddress *a)
{
	char text[INET6_ADDRSTRLEN];

	g_key_file_set_string(file, GROUP, key, ec_address_to_string(a, text));
}

char *ec_guard_spec_to_data(const EcGuardSpec *s)
{
	g_autoptr(GKeyFile) file = g_key_file_new();

	g_key_file_set_string(file, GROUP, "fence", fence_names[s->fence]);
	g_key_file_set_string(file, GROUP, "device", s->device);
	g_key_file_set_boolean(file, GROUP, "ipsec-within", s->ipsec_within);
	put_address(file, "gateway", &s->gateway);
	put_address(file, "local", &s->local);
	put_address(file, "remote", &s->remote);
	g_key_file_set_integer(file, GROUP, "protocol", s->protocol);
	g_key_file_set_integer(file, GROUP, "lookup-protocol", s->lookup_protocol);
	g_key_file_set_integer(file, GROUP, "second-protocol", s->second_protocol);
	g_key_file_set_integer(file, GROUP, "local-port", s->local_port);
	g_key_file_set_integer(file, GROUP, "remote-port", s->remote_port);
	if (s->has_vni)
		g_key_file_set_integer(file, GROUP, "vni", (int)s->vni);
	g_key_file_set_boolean(file, GROUP, "anybody", s->anybody);
	g_key_file_set_boolean(file, GROUP, "protect", s->protect);
	g_key_file_set_string(file, GROUP, "vpn", s->vpn);
	return g_key_file_to_data(file, NULL, NULL);
}

/* A number from 0 to max; the key must be there. */
static bool get_number(GKeyFile *file, const char *key, uint32_t max, uint32_t *ret)
{
	g_autofree char *text = g_key_file_get_value(file, GROUP, key, NULL);
	guint64 number = 0;

	if (!text || !g_ascii_string_to_unsigned(text, 10, 0, max, &number, NULL))
		return false;
	*ret = (uint32_t)number;
	return true;
}

static bool get_address(GKeyFile *file, const char *key, EcAddress *ret)
{
	g_autofree char *text = g_key_file_get_string(file, GROUP, key, NULL);

	*ret = (EcAddress){ .family = AF_UNSPEC };
	return text && (!*text || ec_address_from_string(text, ret) >= 0);
}

static bool get_text(GKeyFile *file, const char *key, char *ret, size_t size)
{
	g_autofree char *text = g_key_file_get_string(file, GROUP, key, NULL);

	return text && ec_text_is_clean(text) && g_strlcpy(ret, text, size) < size;
}

static bool get_fence(GKeyFile *file, EcFence *ret)
{
	g_autofree char *text = g_key_file_get_string(file, GROUP, "fence", NULL);

	for (size_t i = 0; text && i < EC_ELEMENTS(fence_names); i++) {
		if (g_str_equal(text, fence_names[i])) {
			*ret = (EcFence)i;
			return true;
		}
	}
	return false;
}

int ec_guard_spec_from_data(const char *data, EcGuardSpec *ret, sd_bus_error *ret_error)
{
	g_autoptr(GKeyFile) file = g_key_file_new();
	EcGuardSpec s = { 0 };
	uint32_t protocol, lookup, second, local, remote;

	if (!g_key_file_load_from_data(file, data, (gsize)-1, G_KEY_FILE_NONE, NULL))
		return wrong(ret_error, "a file that is no keyfile");
	s.has_vni = g_key_file_has_key(file, GROUP, "vni", NULL);
	if (!get_fence(file, &s.fence) || !get_text(file, "device", s.device, sizeof(s.device)) ||
			!get_address(file, "gateway", &s.gateway) ||
			!get_address(file, "local", &s.local) ||
			!get_address(file, "remote", &s.remote) ||
			!get_number(file, "protocol", 255, &protocol) ||
			!get_number(file, "lookup-protocol", 255, &lookup) ||
			!get_number(file, "second-protocol", 255, &second) ||
			!get_number(file, "local-port", 65535, &local) ||
			!get_number(file, "remote-port", 65535, &remote) ||
			(s.has_vni && !get_number(file, "vni", (1u << 24) - 1, &s.vni)) ||
			!get_text(file, "vpn", s.vpn, sizeof(s.vpn)))
		return wrong(ret_error, "a key that is missing or not understood");
	s.protocol = (uint8_t)protocol;
	s.lookup_protocol = (uint8_t)lookup;
	s.second_protocol = (uint8_t)second;
	s.local_port = (uint16_t)local;
	s.remote_port = (uint16_t)remote;
	s.ipsec_within = g_key_file_get_boolean(file, GROUP, "ipsec-within", NULL);
	s.anybody = g_key_file_get_boolean(file, GROUP, "anybody", NULL);
	s.protect = g_key_file_get_boolean(file, GROUP, "protect", NULL);
	int r = ec_guard_spec_check(&s, ret_error);
	if (r >= 0)
		*ret = s;
	return r;
}
