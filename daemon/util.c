/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "util.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define BACKOFF_FIRST_USEC 200000ULL
#define BACKOFF_LAST_USEC 30000000ULL

size_t ec_address_size(const EcAddress *a)
{
	return a->family == AF_INET ? 4 : a->family == AF_INET6 ? 16 : 0;
}

int ec_address_from_string(const char *text, EcAddress *ret)
{
	EcAddress a = { .family = strchr(text, ':') ? AF_INET6 : AF_INET };

	if (inet_pton(a.family, text, a.bytes) != 1)
		return -EINVAL;
	*ret = a;
	return 0;
}

const char *ec_address_to_string(const EcAddress *a, char buffer[static INET6_ADDRSTRLEN])
{
	buffer[0] = '\0';
	if (a->family != AF_UNSPEC)
		(void)inet_ntop(a->family, a->bytes, buffer, INET6_ADDRSTRLEN);
	return buffer;
}

bool ec_address_equal(const EcAddress *a, const EcAddress *b)
{
	return a->family == b->family && memcmp(a->bytes, b->bytes, ec_address_size(a)) == 0;
}

bool ec_address_is_unicast(const EcAddress *a)
{
	in_addr_t v4 = ntohl(a->v4.s_addr);

	if (a->family == AF_INET)
		return v4 != INADDR_ANY && v4 != INADDR_BROADCAST && !IN_MULTICAST(v4);
	return a->family == AF_INET6 && !IN6_IS_ADDR_UNSPECIFIED(&a->v6) &&
	       !IN6_IS_ADDR_MULTICAST(&a->v6);
}

int ec_cidr_from_string(const char *text, EcAddress *ret_address, unsigned *ret_length)
{
	const char *slash = strchr(text, '/');
	g_autofree char *address = slash ? g_strndup(text, (size_t)(slash - text)) : NULL;
	EcAddress a;

	if (ec_address_from_string(address ? address : text, &a) < 0)
		return -EINVAL;
	unsigned longest = (unsigned)ec_address_size(&a) * 8;
	guint64 length = longest;
	if (slash && !g_ascii_string_to_unsigned(slash + 1, 10, 0, longest, &length, NULL))
		return -EINVAL;
	*ret_address = a;
	*ret_length = (unsigned)length;
	return 0;
}

static const sd_bus_error_map error_map[] = {
	SD_BUS_ERROR_MAP(EC_ERROR_EXISTS, EEXIST),
	SD_BUS_ERROR_MAP(EC_ERROR_NO_SUCH_TUNNEL, ENOENT),
	SD_BUS_ERROR_MAP(EC_ERROR_NO_SUCH_LISTENER, ENOENT),
	SD_BUS_ERROR_MAP(EC_ERROR_INVALID_SETTING, EINVAL),
	SD_BUS_ERROR_MAP(EC_ERROR_NOT_SUPPORTED, EOPNOTSUPP),
	SD_BUS_ERROR_MAP(EC_ERROR_NO_UNDERLAY, ENONET),
	SD_BUS_ERROR_MAP(EC_ERROR_NOT_PROTECTED, ENETUNREACH),
	SD_BUS_ERROR_MAP(EC_ERROR_NOT_AUTHORIZED, EACCES),
	SD_BUS_ERROR_MAP(EC_ERROR_NAME_TAKEN, EADDRINUSE),
	SD_BUS_ERROR_MAP(EC_ERROR_NO_BRIDGE, ENODEV),
	SD_BUS_ERROR_MAP(EC_ERROR_LOOP, ELOOP),
	SD_BUS_ERROR_MAP(EC_ERROR_REFUSED, ECONNREFUSED),
	SD_BUS_ERROR_MAP(EC_ERROR_WRONG_KEY, EKEYREJECTED),
	SD_BUS_ERROR_MAP(EC_ERROR_PEER_UNREACHABLE, EHOSTUNREACH),
	SD_BUS_ERROR_MAP(EC_ERROR_PROTOCOL, EPROTO),
	SD_BUS_ERROR_MAP(EC_ERROR_BUSY, EBUSY),
	SD_BUS_ERROR_MAP(EC_ERROR_LIMIT_EXCEEDED, ENOBUFS),
	SD_BUS_ERROR_MAP(EC_ERROR_KERNEL, EIO),
	SD_BUS_ERROR_MAP_END,
};

void ec_error_map_register(void)
{
	(void)sd_bus_error_add_map(error_map);
}

int ec_error(sd_bus_error *ret_error, const char *name, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	g_autofree char *text = g_strdup_vprintf(format, ap);
	va_end(ap);
	(void)sd_bus_error_set(ret_error, name, text);
	for (size_t i = 0; i + 1 < EC_ELEMENTS(error_map); i++) {
		if (g_str_equal(error_map[i].name, name))
			return -error_map[i].code;
	}
	return -EIO;
}

const char *ec_error_token(const sd_bus_error *error)
{
	if (error && error->name && g_str_has_prefix(error->name, EC_ERROR_PREFIX))
		return error->name + strlen(EC_ERROR_PREFIX);
	return "Failed";
}

bool ec_text_is_clean(const char *text)
{
	if (!g_utf8_validate(text, -1, NULL))
		return false;
	for (const char *p = text; *p; p = g_utf8_next_char(p)) {
		if (g_unichar_iscntrl(g_utf8_get_char(p)))
			return false;
	}
	return true;
}

static bool is_plain(char c)
{
	return g_ascii_isalnum(c) || c == '_' || c == '.' || c == '-';
}

bool ec_ifname_is_valid(const char *text)
{
	size_t n = strlen(text);

	if (n < 1 || n >= IF_NAMESIZE)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (!is_plain(text[i]))
			return false;
	}
	/* all and default are directories in /proc/sys/net/ipv4/conf. */
	return !g_str_equal(text, ".") && !g_str_equal(text, "..") && !g_str_equal(text, "all") &&
	       !g_str_equal(text, "default");
}

bool ec_name_is_valid(const char *text)
{
	size_t n = strlen(text);

	if (n < 1 || n > 63 || !g_ascii_isalnum(text[0]))
		return false;
	for (size_t i = 1; i < n; i++) {
		if (!is_plain(text[i]))
			return false;
	}
	return true;
}

int ec_mac_from_string(const char *text, uint8_t ret[static 6])
{
	uint8_t mac[6] = { 0 }, any = 0;

	if (strlen(text) != 17)
		return -EINVAL;
	for (size_t i = 0; i < 6; i++) {
		int high = g_ascii_xdigit_value(text[3 * i]);
		int low = g_ascii_xdigit_value(text[3 * i + 1]);

		if (high < 0 || low < 0 || (i < 5 && text[3 * i + 2] != ':'))
			return -EINVAL;
		mac[i] = (uint8_t)(high << 4 | low);
		any |= mac[i];
	}
	if ((mac[0] & 1) || !any)
		return -EINVAL;
	memcpy(ret, mac, sizeof(mac));
	return 0;
}

const char *ec_mac_to_string(const uint8_t mac[static 6], char buffer[static 18])
{
	(void)g_snprintf(buffer, 18, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2],
			mac[3], mac[4], mac[5]);
	return buffer;
}

uint64_t ec_backoff_usec(unsigned failures)
{
	return MIN(BACKOFF_FIRST_USEC << MIN(failures, 10), BACKOFF_LAST_USEC);
}

uint64_t ec_jitter_usec(uint64_t usec)
{
	return usec - usec / 4 * (uint64_t)g_random_int_range(0, 1000) / 1000;
}
