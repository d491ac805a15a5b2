/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "profile.h"

#include <errno.h>
#include <string.h>

/* The longest id of a connection that up-with takes, in bytes. */
#define ID_MAX 255

static const char *const ip_words[] = { "dhcp", "auto", "static", "none", NULL };

static_assert(EC_ELEMENTS(ip_words) == _EC_PROFILE_IP_MAX, "a word per source but the first");

/* Any text may be an id; a path is taken for a slip, because nothing here names a file. */
static bool is_connection(const char *text)
{
	return strlen(text) <= ID_MAX && text[0] != '/' && !g_str_has_prefix(text, "./") &&
	       !g_str_has_prefix(text, "../") && !g_str_has_prefix(text, "file:");
}

/* NOLINTNEXTLINE(bugprone-macro-parentheses): the arguments are names of fields */
#define FIELD(k, t, f) .key = k, .type = EC_SETTING_##t, .offset = offsetof(EcProfile, f)
#define TUNNEL EC_SCOPE_TUNNEL

#define NAME_ALLOWED "a letter or digit, then up to 62 of letters, digits, '_', '.', '-'"

static const EcSetting table[] = {
	{ FIELD("tunnel-name", STRING, name), .scopes = TUNNEL, .is_valid = ec_name_is_valid,
			.allowed = NAME_ALLOWED,
			.fallback_help = "the connection's id, with '-' for what no name has",
			.help = "Name of the tunnel, in commands, object paths and messages. Not *name*: "
				"NetworkManager drops that from the files that it keeps connections in." },
	{ FIELD("tunnel", STRING, tunnel), .scopes = TUNNEL, .is_valid = ec_name_is_valid,
			.allowed = NAME_ALLOWED,
			.help = "Name of a tunnel that *ethercordd* already has. The connection shows it, "
				"and brings it up and down; its settings stay where they are. Stands "
				"alone but for *ipv4*, *ipv6* and *up-with*." },
	{ FIELD("ipv4", CHOICE, ipv4), .scopes = TUNNEL, .choices = ip_words,
			.fallback_help =
					"static where address has one, else by the connection's ipv4.method",
			.help = "IPv4 on the tunnel, for editors that cannot set the method of a VPN "
				"connection. *dhcp* and *auto*: by DHCP. *static*: the setting *address*. "
				"*none*: no IPv4." },
	{ FIELD("ipv6", CHOICE, ipv6), .scopes = TUNNEL, .choices = ip_words,
			.fallback_help =
					"static where address has one, else by the connection's ipv6.method",
			.help = "IPv6 on the tunnel. *auto*: by router advertisements. *dhcp*: by DHCPv6 "
				"alone. *static*: the setting *address*. *none*: only a link-local "
				"address." },
	{ FIELD("up-with", STRING, up_with), .scopes = TUNNEL, .is_valid = is_connection,
			.allowed = "the id or UUID of a connection, at most 255 bytes, not a file's path",
			.help = "Id or UUID of a VPN connection of NetworkManager: this connection is "
				"brought up whenever that one comes up, by *ethercordd*, which has to "
				"run." },
	{ FIELD("key-flags", UINT32, key_flags), .scopes = TUNNEL, .max = 7, .fallback = "0",
			.help = "Who keeps *key*: 0 NetworkManager, for all users; 1 the user's agent; "
				"2 nobody, it is asked for each time; 4 there need not be one. The sum "
				"of those that hold." },
};

/* What a connection of NetworkManager says in another way, and what only the service may say. */
static const struct {
	const char *key, *instead;
} elsewhere[] = {
	{ "autostart", "connection.autoconnect, connection.secondaries of another connection, or "
		       "up-with" },
	{ "name", "tunnel-name" },
	{ "profile", "nothing; it is the connection's UUID" },
};

/* The fields are reached by the table's offset. */
#define FIELD_OF(p, row, type) ((type *)(void *)((char *)(p) + (row)->offset))
#define CONST_FIELD_OF(p, row, type)                                                               \
	((type const *)(const void *)((const char *)(p) + (row)->offset))

const EcSetting *ec_profile_table(size_t *ret_n)
{
	*ret_n = EC_ELEMENTS(table);
	return table;
}

static const EcSetting *find_own(const char *key)
{
	for (size_t i = 0; i < EC_ELEMENTS(table); i++) {
		if (g_str_equal(table[i].key, key))
			return &table[i];
	}
	return NULL;
}

static const char *find_elsewhere(const char *key)
{
	for (size_t i = 0; i < EC_ELEMENTS(elsewhere); i++) {
		if (g_str_equal(elsewhere[i].key, key))
			return elsewhere[i].instead;
	}
	return NULL;
}

const EcSetting *ec_profile_find(const char *key)
{
	const EcSetting *own = find_own(key);

	if (own || find_elsewhere(key))
		return own;
	return ec_setting_find(key);
}

EcProfile *ec_profile_new(void)
{
	EcProfile *p = g_new0(EcProfile, 1);

	p->settings = ec_settings_new();
	return p;
}

EcProfile *ec_profile_free(EcProfile *p)
{
	if (!p)
		return NULL;
	p->settings = ec_settings_free(p->settings);
	g_free(p->name);
	g_free(p->tunnel);
	g_free(p->up_with);
	g_free(p);
	return NULL;
}

static int refuse(const EcSetting *row, const char *text, const char *allowed,
		sd_bus_error *ret_error)
{
	return ec_error(ret_error, EC_ERROR_INVALID_SETTING, "%s '%.64s': allowed is %s", row->key,
			ec_text_is_clean(text) ? text : "?", allowed);
}

static int unknown_key(const char *key, sd_bus_error *ret_error)
{
	g_autoptr(GString) keys = g_string_new(NULL);
	size_t n;
	const EcSetting *settings = ec_settings_table(&n);

	for (size_t i = 0; i < n; i++) {
		const EcSetting *row = &settings[i];

		if ((row->scopes & TUNNEL) && !(row->flags & EC_SETTING_SECRET) &&
				!find_elsewhere(row->key))
			g_string_append_printf(keys, "%s, ", row->key);
	}
	for (size_t i = 0; i < EC_ELEMENTS(table); i++)
		g_string_append_printf(
				keys, "%s%s", table[i].key, i + 1 < EC_ELEMENTS(table) ? ", " : "");
	return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
			"vpn.data: there is no setting '%.64s'; there are: %s",
			ec_text_is_clean(key) ? key : "?", keys->str);
}

static int set_string(EcProfile *p, const EcSetting *row, const char *text, sd_bus_error *ret_error)
{
	char **field = FIELD_OF(p, row, char *);

	if (*text && !ec_text_is_clean(text))
		return refuse(row, text, "UTF-8 text without control characters", ret_error);
	if (*text && !row->is_valid(text))
		return refuse(row, text, row->allowed, ret_error);
	g_free(*field);
	*field = *text ? g_strdup(text) : NULL;
	return 0;
}

static int set_choice(EcProfile *p, const EcSetting *row, const char *text, sd_bus_error *ret_error)
{
	int value = 0;

	for (int i = 0; *text && row->choices[i]; i++) {
		if (g_str_equal(row->choices[i], text))
			value = i + 1;
	}
	if (*text && !value) {
		g_autofree char *words = g_strjoinv(", ", (char **)row->choices);
		return refuse(row, text, words, ret_error);
	}
	*FIELD_OF(p, row, int) = value;
	return 0;
}

static int set_flags(EcProfile *p, const EcSetting *row, const char *text, sd_bus_error *ret_error)
{
	guint64 value = 0;

	if (*text && !g_ascii_string_to_unsigned(text, 10, row->min, row->max, &value, NULL)) {
		g_autofree char *allowed =
				g_strdup_printf("a number, %u to %u", row->min, row->max);
		return refuse(row, text, allowed, ret_error);
	}
	*FIELD_OF(p, row, uint32_t) = (uint32_t)value;
	p->key_flags_given = *text;
	return 0;
}

int ec_profile_set(EcProfile *p, const char *key, const char *text, sd_bus_error *ret_error)
{
	const EcSetting *row = ec_profile_find(key);
	const char *instead = find_elsewhere(key);

	if (instead)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"%s: a connection of NetworkManager cannot say it so; allowed is %s",
				key, instead);
	if (!row)
		return unknown_key(key, ret_error);
	if (row->flags & EC_SETTING_SECRET)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"%s: everybody can read vpn.data; allowed is vpn.secrets", key);
	if (!find_own(key))
		return ec_settings_parse(p->settings, key, text, ret_error);
	if (row->type == EC_SETTING_CHOICE)
		return set_choice(p, row, text, ret_error);
	if (row->type == EC_SETTING_UINT32)
		return set_flags(p, row, text, ret_error);
	return set_string(p, row, text, ret_error);
}

int ec_profile_set_secret(EcProfile *p, const char *key, const char *text, sd_bus_error *ret_error)
{
	const EcSetting *row = ec_profile_find(key);

	if (!row || !(row->flags & EC_SETTING_SECRET))
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"vpn.secrets: there is no secret '%.64s'; there is: key",
				ec_text_is_clean(key) ? key : "?");
	return ec_settings_parse(p->settings, key, text, ret_error);
}

char *ec_profile_text(const EcProfile *p, const char *key)
{
	const EcSetting *row = ec_profile_find(key);

	if (!row)
		return NULL;
	if (!find_own(key))
		return ec_settings_is_given(p->settings, row) ? ec_settings_text(p->settings, row)
							      : NULL;
	if (row->type == EC_SETTING_CHOICE) {
		int value = *CONST_FIELD_OF(p, row, int);
		return value ? g_strdup(row->choices[value - 1]) : NULL;
	}
	if (row->type == EC_SETTING_UINT32)
		return p->key_flags_given ? g_strdup_printf("%u", p->key_flags) : NULL;
	return g_strdup(*CONST_FIELD_OF(p, row, char *));
}

/* With tunnel= everything about the tunnel itself is said elsewhere. */
static int verify_alone(const EcProfile *p, sd_bus_error *ret_error)
{
	size_t n;
	const EcSetting *settings = ec_settings_table(&n);
	const char *beside = p->name ? "tunnel-name" : p->key_flags_given ? "key-flags" : NULL;

	for (size_t i = 0; i < n && !beside; i++) {
		if (ec_settings_is_given(p->settings, &settings[i]))
			beside = settings[i].key;
	}
	if (!beside)
		return 0;
	return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
			"%s: tunnel=%s has settings of its own; allowed beside it are ipv4, ipv6 and "
			"up-with",
			beside, p->tunnel);
}

static bool has_address(const EcSettings *s, bool six)
{
	for (char **a = s->address; a && *a; a++) {
		if (!strchr(*a, ':') == !six)
			return true;
	}
	return false;
}

static bool carries_ip_only(const EcSettings *s)
{
	static const char *const layer3[] = { "gre", "ipip", "tun-udp", NULL };
	bool all = s->encapsulation != NULL;

	for (char **e = s->encapsulation; e && *e; e++)
		all = all && g_strv_contains(layer3, *e);
	return all;
}

static int verify_ip(const EcProfile *p, bool six, sd_bus_error *ret_error)
{
	const EcSettings *s = p->settings;
	const char *key = six ? "ipv6" : "ipv4";
	int ip = six ? p->ipv6 : p->ipv4;
	bool dhcp = ip == EC_PROFILE_IP_DHCP || (ip == EC_PROFILE_IP_AUTO && !six);
	g_autofree char *word = ec_profile_text(p, key);

	if (ip == EC_PROFILE_IP_METHOD)
		return 0;
	if (s->bridge && ip != EC_PROFILE_IP_NONE)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"%s '%s': the tunnel is a port of bridge %s; allowed is none, and "
				"addresses on the bridge",
				key, word, s->bridge);
	if (dhcp && carries_ip_only(s))
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"%s '%s': DHCP needs Ethernet, and these encapsulations carry IP only; "
				"allowed are static and none",
				key, word);
	if (p->tunnel)
		return 0;
	if (ip == EC_PROFILE_IP_STATIC && !has_address(s, six))
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"%s 'static': address has no IPv%c address; allowed is one such as %s",
				key, six ? '6' : '4', six ? "fd00::2/64" : "192.0.2.2/24");
	if (ip != EC_PROFILE_IP_STATIC && has_address(s, six))
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"%s '%s': address has an IPv%c address; allowed is static", key,
				word, six ? '6' : '4');
	return 0;
}

int ec_profile_verify(const EcProfile *p, sd_bus_error *ret_error)
{
	g_autoptr(EcSettings) s = ec_settings_copy(p->settings);
	int r = p->tunnel ? verify_alone(p, ret_error) : 0;

	/* The service puts the name there. */
	if (r >= 0)
		r = ec_settings_parse(s, "name", "unnamed", ret_error);
	if (r >= 0 && !p->tunnel)
		r = ec_settings_verify(s, ret_error);
	if (r >= 0 && !p->tunnel)
		r = ec_settings_check_supported(s, ret_error);
	if (r >= 0)
		r = verify_ip(p, false, ret_error);
	if (r >= 0)
		r = verify_ip(p, true, ret_error);
	return r;
}

char *ec_profile_name(const EcProfile *p, const char *id)
{
	const size_t longest = 63;

	if (p->tunnel || p->name)
		return g_strdup(p->tunnel ? p->tunnel : p->name);
	g_autoptr(GString) name = g_string_new(NULL);
	for (const char *c = id; *c && name->len < longest; c++) {
		bool plain = g_ascii_isalnum(*c) || strchr("_.-", *c);

		/* A name begins with a letter or digit, and bytes of one character are one '-'. */
		if (name->len ? plain : g_ascii_isalnum(*c))
			g_string_append_c(name, *c);
		else if (name->len && name->str[name->len - 1] != '-')
			g_string_append_c(name, '-');
	}
	return name->len ? g_strdup(name->str) : g_strdup("connection");
}
