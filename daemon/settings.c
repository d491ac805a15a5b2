/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "settings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const mode_words[] = { "point-to-point", "join-remote", "join-networks", NULL };
static const char *const control_words[] = { "ethercord", "static", "dynamic-fou", "tunnel-server",
	NULL };
static const char *const data_plane_words[] = { "auto", "kernel", "user", NULL };
static const char *const full_frames_words[] = { "auto", "yes", "no", NULL };
static const char *const fidelity_words[] = { "bridge", "transparent", "wire", NULL };
static const char *const encapsulation_words[] = { "auto", "gretap", "gretap-fou", "vxlan",
	"raw-udp", "gre", "ipip", "tun-udp", NULL };
static const char *const guard_words[] = { "auto", "none", "dhcp", "ra", "loop", "storm", "stp",
	NULL };

static_assert(EC_ELEMENTS(mode_words) == _EC_MODE_MAX + 1, "a word per mode");
static_assert(EC_ELEMENTS(control_words) == _EC_CONTROL_MAX + 1, "a word per control");
static_assert(EC_ELEMENTS(data_plane_words) == _EC_DATA_PLANE_MAX + 1, "a word per data plane");
static_assert(EC_ELEMENTS(full_frames_words) == _EC_FULL_FRAMES_MAX + 1, "a word per full-frames");
static_assert(EC_ELEMENTS(fidelity_words) == _EC_FIDELITY_MAX + 1, "a word per fidelity");

static bool is_address(const char *text)
{
	EcAddress a;

	return ec_address_from_string(text, &a) == 0;
}

static bool is_cidr(const char *text)
{
	EcAddress a;
	unsigned length;

	return ec_cidr_from_string(text, &a, &length) == 0;
}

/* An address or a host name (RFC 1123 letters, digits, dots and hyphens; '_' is seen in the wild).
 */
static bool is_remote(const char *text)
{
	if (is_address(text))
		return true;
	size_t n = strlen(text);
	if (n > 253 || !g_ascii_isalnum(text[0]))
		return false;
	for (size_t i = 0; i < n; i++) {
		if (!g_ascii_isalnum(text[i]) && !strchr("-._", text[i]))
			return false;
	}
	/* Digits and dots alone are an address with a slip of the pen, not a name. */
	return strspn(text, "0123456789.") != n;
}

static bool is_mac(const char *text)
{
	uint8_t mac[6];

	return ec_mac_from_string(text, mac) == 0;
}

static bool is_key(const char *text)
{
	gsize n = 0;

	if (strlen(text) != 44)
		return false;
	g_autofree guchar *bytes = g_base64_decode(text, &n);
	g_autofree char *again = g_base64_encode(bytes, n);
	bool same = n == 32 && g_str_equal(again, text);
	explicit_bzero(bytes, n);
	explicit_bzero(again, strlen(again));
	return same;
}

static bool is_underlay(const char *text)
{
	static const char *const kinds[] = { "vpn", "ipsec", "openvpn", "wireguard",
		"networkmanager", "any", NULL };

	if (g_str_has_prefix(text, "device:"))
		return ec_ifname_is_valid(text + strlen("device:"));
	return g_strv_contains(kinds, text);
}

static bool is_gre_keepalive(const char *text)
{
	g_auto(GStrv) part = g_strsplit(text, ",", 3);
	unsigned n = g_strv_length(part);

	return n >= 1 && n <= 2 && g_ascii_string_to_unsigned(part[0], 10, 1, 32767, NULL, NULL) &&
	       (n == 1 || g_ascii_string_to_unsigned(part[1], 10, 1, 255, NULL, NULL));
}

/* NOLINTNEXTLINE(bugprone-macro-parentheses): the arguments are names of fields */
#define FIELD(k, t, f) .key = k, .type = EC_SETTING_##t, .offset = offsetof(EcSettings, f)
#define IFNAME_ALLOWED "an interface name: 1 to 15 of letters, digits, '_', '.', '-'"

/* In the order of the manual. The same keys and types stand in the D-Bus contract. */
static const EcSetting table[] = {
	{ FIELD("name", STRING, name), .is_valid = ec_name_is_valid,
			.allowed = "a letter or digit, then up to 62 of letters, digits, '_', '.', '-'",
			.fallback_help = "the file name",
			.help = "Name of the tunnel, in commands, object paths and messages." },
	{ FIELD("mode", CHOICE, mode), .choices = mode_words, .fallback = "point-to-point",
			.help = "*point-to-point*: neither end is bridged. *join-remote*: the far network is "
				"joined; the end there sets *bridge*, the end here does not. "
				"*join-networks*: both ends set *bridge*." },
	{ FIELD("remote", STRINGS, remote), .is_valid = is_remote,
			.allowed = "IPv4 or IPv6 addresses or host names",
			.help = "Addresses or host names of the peer, inside the VPN, tried in order." },
	{ FIELD("local", STRING, local), .is_valid = is_address,
			.allowed = "an IPv4 or IPv6 address", .fallback_help = "from the path",
			.help = "Source address of the tunnel's packets." },
	{ FIELD("port", UINT16, port), .min = 1, .max = UINT16_MAX, .fallback = "65200",
			.help = "The peer's control port (TCP)." },
	{ FIELD("control", CHOICE, control), .choices = control_words, .fallback = "ethercord",
			.help = "How the two ends agree. *static*: they do not talk; both are configured by "
				"hand, and the far end may be any system that speaks the wire format." },
	{ FIELD("key", STRING, key), .flags = EC_SETTING_SECRET, .is_valid = is_key,
			.allowed = "base64 of 32 bytes, as 'ethercordctl genkey' prints it",
			.help = "Key shared with the peer. Write-only: it is moved to the key store." },
	{ FIELD("identity", STRING, identity), .is_valid = ec_name_is_valid,
			.allowed = "a letter or digit, then up to 62 of letters, digits, '_', '.', '-'",
			.fallback_help = "the tunnel's name",
			.help = "Name given to the listener: the *[peer NAME]* there." },
	{ FIELD("underlay", STRING, underlay), .is_valid = is_underlay,
			.allowed = "vpn, ipsec, openvpn, wireguard, networkmanager, device:IFNAME or any",
			.fallback = "vpn",
			.help = "What the tunnel rides on. *vpn*: whichever VPN the routes and IPsec policies of "
				"this machine lead to the peer. *ipsec*, *openvpn*, *wireguard*, "
				"*networkmanager* (any VPN connection of NetworkManager): only one of that "
				"kind. *device:IFNAME*: that interface and no other. The tunnel waits while "
				"there is no such path, and nothing can leave outside it. *any*: wherever "
				"the routing table points; nothing is protected." },
	{ FIELD("encapsulation", STRINGS, encapsulation), .choices = encapsulation_words,
			.fallback_help = "auto",
			.help = "Wire formats in order of preference; *auto* takes the best that this kernel "
				"can do. *gre* and *ipip* carry IP only." },
	{ FIELD("data-plane", CHOICE, data_plane), .choices = data_plane_words, .fallback = "auto",
			.help = "Who encapsulates: the kernel, or a program of ours." },
	{ FIELD("id", UINT32, id), .max = UINT32_MAX, .fallback = "0",
			.fallback_help = "0; negotiated unless control is static",
			.help = "GRE key (0: none) or VXLAN network identifier (at most 16777215); both ends "
				"the same. Two tunnels between the same addresses need different ids." },
	{ FIELD("data-port", UINT16, data_port), .max = UINT16_MAX, .fallback = "0",
			.fallback_help = "65201 for gretap-fou, 4789 for vxlan",
			.help = "Local UDP port of the data." },
	{ FIELD("remote-data-port", UINT16, remote_data_port), .max = UINT16_MAX, .fallback = "0",
			.fallback_help = "65201 for gretap-fou, data-port for vxlan",
			.help = "The peer's UDP port of the data." },
	{ FIELD("interface", STRING, interface), .is_valid = ec_ifname_is_valid,
			.allowed = IFNAME_ALLOWED,
			.fallback_help = "ec-NAME, shortened to 15 bytes",
			.help = "Name of the tunnel's network interface." },
	{ FIELD("mac", STRING, mac), .is_valid = is_mac,
			.allowed = "a unicast MAC address such as 02:00:5e:10:00:01",
			.fallback_help = "derived, unique per machine and tunnel",
			.help = "Ethernet address of the tunnel's interface." },
	{ FIELD("mtu", UINT32, mtu), .max = 65535, .fallback = "0", .fallback_help = "0: automatic",
			.help = "MTU of the tunnel's interface in bytes, 68 or more. Automatic: what crosses "
				"the path whole in point-to-point mode; the bridge's MTU or 1500 in the "
				"other modes." },
	{ FIELD("full-frames", CHOICE, full_frames), .choices = full_frames_words,
			.fallback = "auto",
			.help = "Carry 1500-byte packets even where the path is smaller, in outer fragments. "
				"*auto*: in the bridged modes, where the outer protocol can fragment." },
	{ FIELD("address", STRINGS, address), .is_valid = is_cidr,
			.allowed = "addresses with prefix length such as 192.0.2.1/24",
			.help = "Addresses put on the tunnel's interface. Not for a bridged end." },
	{ FIELD("bridge", STRING, bridge), .is_valid = ec_ifname_is_valid,
			.allowed = IFNAME_ALLOWED, .help = "Bridge that this end joins." },
	{ FIELD("bridge-create", BOOL, bridge_create), .fallback = "no",
			.help = "Make the bridge when it is missing, and remove it with the last tunnel." },
	{ FIELD("attach", STRING, attach), .is_valid = ec_ifname_is_valid,
			.allowed = IFNAME_ALLOWED,
			.help = "Local Ethernet interface to put in the bridge as well. Refused for Wi-Fi, "
				"for the interface that carries the route to the peer and for a port of "
				"another bridge." },
	{ FIELD("fidelity", CHOICE, fidelity), .choices = fidelity_words, .fallback = "bridge",
			.help = "How much of Ethernet crosses a bridged end." },
	{ FIELD("guard", STRINGS, guard), .choices = guard_words, .fallback_help = "auto",
			.help = "What must not cross when networks are joined." },
	{ FIELD("storm-limit", UINT32, storm_limit), .min = 1, .max = 1000000, .fallback = "500",
			.help = "Broadcast and multicast frames per second on the tunnel port." },
	{ FIELD("keepalive-interval", UINT32, keepalive_interval), .min = 50, .max = 3600000,
			.fallback = "1000", .help = "Milliseconds between keepalives." },
	{ FIELD("keepalive-timeout", UINT32, keepalive_timeout), .min = 100, .max = 3600000,
			.fallback = "3000",
			.help = "Milliseconds without an answer after which the peer is lost." },
	{ FIELD("gre-keepalive", STRING, gre_keepalive), .is_valid = is_gre_keepalive,
			.allowed = "PERIOD[,RETRIES]: 1 to 32767 seconds, 1 to 255 retries",
			.help = "Send Cisco GRE keepalives." },
	{ FIELD("link-loss-forwarding", BOOL, link_loss_forwarding), .fallback = "no",
			.help = "Mirror the far access port's carrier to the near one." },
	{ FIELD("ttl", UINT32, ttl), .min = 1, .max = 255, .fallback = "64",
			.help = "TTL or hop limit of the outer packets." },
	{ FIELD("dscp", UINT32, dscp), .max = 63, .fallback = "0",
			.help = "DSCP of the outer packets." },
	{ FIELD("fwmark", UINT32, fwmark), .max = UINT32_MAX, .fallback = "0",
			.help = "Firewall mark of the outer packets (not vxlan)." },
	{ FIELD("autostart", BOOL, autostart), .fallback = "yes",
			.help = "Bring the tunnel up when the daemon starts." },
};

static_assert(EC_ELEMENTS(table) <= 64, "EcSettings.given is 64 bits");

const EcSetting *ec_settings_table(size_t *ret_n)
{
	*ret_n = EC_ELEMENTS(table);
	return table;
}

const EcSetting *ec_setting_find(const char *key)
{
	for (size_t i = 0; i < EC_ELEMENTS(table); i++) {
		if (g_str_equal(table[i].key, key))
			return &table[i];
	}
	return NULL;
}

const char *ec_setting_signature(const EcSetting *setting)
{
	static const char *const signature[] = { "s", "as", "s", "b", "q", "u" };

	static_assert(EC_ELEMENTS(signature) == _EC_SETTING_TYPE_MAX, "a signature per type");
	return signature[setting->type];
}

const char *ec_settings_word(const char *key, int value)
{
	return ec_setting_find(key)->choices[value];
}

/* The fields are reached by the table's offset. */
#define FIELD_OF(s, row, type) ((type *)(void *)((char *)(s) + (row)->offset))
#define CONST_FIELD_OF(s, row, type)                                                               \
	((type const *)(const void *)((const char *)(s) + (row)->offset))

static uint64_t bit_of(const EcSetting *row)
{
	return UINT64_C(1) << (row - table);
}

bool ec_settings_is_given(const EcSettings *s, const EcSetting *setting)
{
	return s->given & bit_of(setting);
}

static int refuse(const EcSetting *row, const char *text, const char *allowed,
		sd_bus_error *ret_error)
{
	bool show = !(row->flags & EC_SETTING_SECRET) && ec_text_is_clean(text);
	g_autofree char *quoted = show ? g_strdup_printf(" '%.64s'", text) : g_strdup("");

	return ec_error(ret_error, EC_ERROR_INVALID_SETTING, "%s%s: allowed is %s", row->key,
			quoted, allowed);
}

static char *allowed_words(const EcSetting *row)
{
	return g_strjoinv(", ", (char **)row->choices);
}

/* One string, or one item of a list. */
static int check_item(const EcSetting *row, const char *item, sd_bus_error *ret_error)
{
	if (!ec_text_is_clean(item) || strlen(item) > 1024)
		return refuse(row, item,
				"UTF-8 text without control characters, at most 1024 bytes",
				ret_error);
	if (row->choices && !g_strv_contains(row->choices, item)) {
		g_autofree char *words = allowed_words(row);
		return refuse(row, item, words, ret_error);
	}
	if (row->is_valid && !row->is_valid(item))
		return refuse(row, item, row->allowed, ret_error);
	return 0;
}

static void set_string(EcSettings *s, const EcSetting *row, const char *text)
{
	char **field = FIELD_OF(s, row, char *);

	if (*field && (row->flags & EC_SETTING_SECRET))
		explicit_bzero(*field, strlen(*field));
	g_free(*field);
	*field = text && *text ? g_strdup(text) : NULL;
}

static void set_strings(EcSettings *s, const EcSetting *row, char **items)
{
	char ***field = FIELD_OF(s, row, char **);

	g_strfreev(*field);
	*field = items && *items ? g_strdupv(items) : NULL;
}

static int assign_string(
		EcSettings *s, const EcSetting *row, const char *text, sd_bus_error *ret_error)
{
	int r = check_item(row, text, ret_error);

	if (r < 0)
		return r;
	if (row->type == EC_SETTING_CHOICE) {
		int *field = FIELD_OF(s, row, int);

		for (*field = 0; !g_str_equal(row->choices[*field], text);)
			++*field;
	} else {
		set_string(s, row, text);
	}
	return 0;
}

static int assign_strings(
		EcSettings *s, const EcSetting *row, char **items, sd_bus_error *ret_error)
{
	if (g_strv_length(items) > 64)
		return refuse(row, "", "a list of at most 64", ret_error);
	for (char **i = items; *i; i++) {
		int r = check_item(row, *i, ret_error);
		if (r < 0)
			return r;
		if (g_strv_contains((const char *const *)i + 1, *i))
			return refuse(row, *i, "each item once", ret_error);
	}
	set_strings(s, row, items);
	return 0;
}

static int assign_number(
		EcSettings *s, const EcSetting *row, uint64_t value, sd_bus_error *ret_error)
{
	if (value < row->min || value > row->max) {
		g_autofree char *text = g_strdup_printf("%" G_GUINT64_FORMAT, value);
		g_autofree char *allowed = g_strdup_printf("%u to %u", row->min, row->max);
		return refuse(row, text, allowed, ret_error);
	}
	if (row->type == EC_SETTING_UINT16)
		*FIELD_OF(s, row, uint16_t) = (uint16_t)value;
	else
		*FIELD_OF(s, row, uint32_t) = (uint32_t)value;
	return 0;
}

static int parse_number(
		EcSettings *s, const EcSetting *row, const char *text, sd_bus_error *ret_error)
{
	bool hex = g_str_has_prefix(text, "0x");
	guint64 value = 0;

	if (!g_ascii_string_to_unsigned(hex ? text + 2 : text, hex ? 16 : 10, row->min, row->max,
			    &value, NULL)) {
		g_autofree char *allowed =
				g_strdup_printf("a number, %u to %u", row->min, row->max);
		return refuse(row, text, allowed, ret_error);
	}
	return assign_number(s, row, value, ret_error);
}

static int parse_bool(
		EcSettings *s, const EcSetting *row, const char *text, sd_bus_error *ret_error)
{
	static const char *const words[] = { "no", "yes", "false", "true", "off", "on", "0", "1" };

	for (size_t i = 0; i < EC_ELEMENTS(words); i++) {
		if (g_ascii_strcasecmp(words[i], text) == 0) {
			*FIELD_OF(s, row, bool) = i % 2;
			return 0;
		}
	}
	return refuse(row, text, "yes or no", ret_error);
}

static char **split(const char *text)
{
	g_autoptr(GStrvBuilder) b = g_strv_builder_new();
	g_auto(GStrv) parts = g_strsplit_set(text, ",; \t", -1);

	for (char **p = parts; *p; p++) {
		if (**p)
			g_strv_builder_add(b, *p);
	}
	return g_strv_builder_end(b);
}

static int parse_row(EcSettings *s, const EcSetting *row, const char *text, sd_bus_error *ret_error)
{
	switch (row->type) {
	case EC_SETTING_STRING:
	case EC_SETTING_CHOICE:
		return assign_string(s, row, text, ret_error);
	case EC_SETTING_STRINGS: {
		if (!ec_text_is_clean(text))
			return check_item(row, text, ret_error);
		g_auto(GStrv) items = split(text);
		return assign_strings(s, row, items, ret_error);
	}
	case EC_SETTING_BOOL:
		return parse_bool(s, row, text, ret_error);
	case EC_SETTING_UINT16:
	case EC_SETTING_UINT32:
		return parse_number(s, row, text, ret_error);
	case _EC_SETTING_TYPE_MAX:
		break;
	}
	g_assert_not_reached();
}

static void set_fallback(EcSettings *s, const EcSetting *row)
{
	if (row->fallback) {
		int r = parse_row(s, row, row->fallback, NULL);
		g_assert(r == 0);
	} else if (row->type == EC_SETTING_STRINGS) {
		set_strings(s, row, NULL);
	} else {
		set_string(s, row, NULL);
	}
}

EcSettings *ec_settings_new(void)
{
	EcSettings *s = g_new0(EcSettings, 1);

	for (size_t i = 0; i < EC_ELEMENTS(table); i++)
		set_fallback(s, &table[i]);
	return s;
}

EcSettings *ec_settings_copy(const EcSettings *s)
{
	EcSettings *copy = g_memdup2(s, sizeof(*s));

	for (size_t i = 0; i < EC_ELEMENTS(table); i++) {
		const EcSetting *row = &table[i];

		if (row->type == EC_SETTING_STRING)
			*FIELD_OF(copy, row, char *) = g_strdup(*CONST_FIELD_OF(s, row, char *));
		else if (row->type == EC_SETTING_STRINGS)
			*FIELD_OF(copy, row, char **) = g_strdupv(*CONST_FIELD_OF(s, row, char **));
	}
	return copy;
}

EcSettings *ec_settings_free(EcSettings *s)
{
	if (!s)
		return NULL;
	for (size_t i = 0; i < EC_ELEMENTS(table); i++) {
		if (table[i].type == EC_SETTING_STRING)
			set_string(s, &table[i], NULL);
		else if (table[i].type == EC_SETTING_STRINGS)
			set_strings(s, &table[i], NULL);
	}
	g_free(s);
	return NULL;
}

static int unknown_key(const char *key, sd_bus_error *ret_error)
{
	g_autoptr(GString) keys = g_string_new(NULL);

	for (size_t i = 0; i < EC_ELEMENTS(table); i++)
		g_string_append_printf(keys, "%s%s", i ? ", " : "", table[i].key);
	return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
			"there is no setting '%.64s'; there are: %s",
			ec_text_is_clean(key) ? key : "?", keys->str);
}

/* Given, or back to the default. */
static void mark(EcSettings *s, const EcSetting *row, bool given)
{
	if (given) {
		s->given |= bit_of(row);
		s->cleared &= ~bit_of(row);
	} else {
		set_fallback(s, row);
		s->given &= ~bit_of(row);
		s->cleared |= bit_of(row);
	}
}

int ec_settings_parse(EcSettings *s, const char *key, const char *text, sd_bus_error *ret_error)
{
	const EcSetting *row = ec_setting_find(key);
	int r = 0;

	if (!row)
		return unknown_key(key, ret_error);
	if (*text)
		r = parse_row(s, row, text, ret_error);
	if (r >= 0)
		mark(s, row, *text);
	return MIN(r, 0);
}

/* Reads the content of an entered variant. Returns 1 when it takes the default back. */
static int read_row(EcSettings *s, const EcSetting *row, sd_bus_message *m, sd_bus_error *ret_error)
{
	const char *text;
	uint16_t q;
	uint32_t u;
	int b, r;

	switch (row->type) {
	case EC_SETTING_STRING:
	case EC_SETTING_CHOICE:
		r = sd_bus_message_read_basic(m, 's', &text);
		if (r < 0 || !*text)
			return r < 0 ? r : 1;
		return assign_string(s, row, text, ret_error);
	case EC_SETTING_STRINGS: {
		g_auto(GStrv) items = NULL;

		r = sd_bus_message_read_strv(m, &items);
		if (r < 0 || !items || !*items)
			return r < 0 ? r : 1;
		return assign_strings(s, row, items, ret_error);
	}
	case EC_SETTING_BOOL:
		r = sd_bus_message_read_basic(m, 'b', &b);
		if (r >= 0)
			*FIELD_OF(s, row, bool) = b;
		return MIN(r, 0);
	case EC_SETTING_UINT16:
		r = sd_bus_message_read_basic(m, 'q', &q);
		return r < 0 ? r : assign_number(s, row, q, ret_error);
	case EC_SETTING_UINT32:
		r = sd_bus_message_read_basic(m, 'u', &u);
		return r < 0 ? r : assign_number(s, row, u, ret_error);
	case _EC_SETTING_TYPE_MAX:
		break;
	}
	g_assert_not_reached();
}

static int read_entry(EcSettings *s, sd_bus_message *m, sd_bus_error *ret_error)
{
	const char *key, *contents;
	char type;
	int r = sd_bus_message_read_basic(m, 's', &key);

	if (r < 0)
		return r;
	const EcSetting *row = ec_setting_find(key);
	if (!row)
		return unknown_key(key, ret_error);
	r = sd_bus_message_peek_type(m, &type, &contents);
	if (r < 0)
		return r;
	const char *wanted = ec_setting_signature(row);
	if (type == 'v' && g_str_equal(contents, "s") && !g_str_equal(wanted, "s")) {
		const char *text;

		r = sd_bus_message_read(m, "v", "s", &text);
		if (r >= 0 && !*text) {
			mark(s, row, false);
			return 0;
		}
	}
	if (type != 'v' || !g_str_equal(contents, wanted))
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"%s: allowed is D-Bus type '%s', not '%s'", key, wanted, contents);
	r = sd_bus_message_enter_container(m, 'v', contents);
	if (r < 0)
		return r;
	r = read_row(s, row, m, ret_error);
	if (r < 0)
		return r;
	mark(s, row, r == 0);
	return sd_bus_message_exit_container(m);
}

int ec_settings_read(EcSettings *s, sd_bus_message *m, sd_bus_error *ret_error)
{
	int r = sd_bus_message_enter_container(m, 'a', "{sv}");

	while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
		r = read_entry(s, m, ret_error);
		if (r >= 0)
			r = sd_bus_message_exit_container(m);
	}
	if (r >= 0)
		r = sd_bus_message_exit_container(m);
	return MIN(r, 0);
}

static int append_row(const EcSettings *s, const EcSetting *row, sd_bus_message *m)
{
	const char *signature = ec_setting_signature(row);
	const char *text;
	int b;

	switch (row->type) {
	case EC_SETTING_STRING:
		text = *CONST_FIELD_OF(s, row, char *);
		return sd_bus_message_append(m, "{sv}", row->key, signature, text ? text : "");
	case EC_SETTING_CHOICE:
		text = row->choices[*CONST_FIELD_OF(s, row, int)];
		return sd_bus_message_append(m, "{sv}", row->key, signature, text);
	case EC_SETTING_BOOL:
		b = *CONST_FIELD_OF(s, row, bool);
		return sd_bus_message_append(m, "{sv}", row->key, signature, b);
	case EC_SETTING_UINT16:
		return sd_bus_message_append(
				m, "{sv}", row->key, signature, *CONST_FIELD_OF(s, row, uint16_t));
	case EC_SETTING_UINT32:
		return sd_bus_message_append(
				m, "{sv}", row->key, signature, *CONST_FIELD_OF(s, row, uint32_t));
	case EC_SETTING_STRINGS: {
		int r = sd_bus_message_open_container(m, 'e', "sv");

		if (r >= 0)
			r = sd_bus_message_append(m, "s", row->key);
		if (r >= 0)
			r = sd_bus_message_open_container(m, 'v', signature);
		if (r >= 0)
			r = sd_bus_message_append_strv(m, *CONST_FIELD_OF(s, row, char **));
		if (r >= 0)
			r = sd_bus_message_close_container(m);
		return r < 0 ? r : sd_bus_message_close_container(m);
	}
	case _EC_SETTING_TYPE_MAX:
		break;
	}
	g_assert_not_reached();
}

int ec_settings_append(const EcSettings *s, sd_bus_message *m, bool with_secrets)
{
	int r = sd_bus_message_open_container(m, 'a', "{sv}");

	for (size_t i = 0; r >= 0 && i < EC_ELEMENTS(table); i++) {
		bool secret = table[i].flags & EC_SETTING_SECRET;

		if (ec_settings_is_given(s, &table[i]) && (!secret || with_secrets))
			r = append_row(s, &table[i], m);
		else if (s->cleared & bit_of(&table[i]))
			r = sd_bus_message_append(m, "{sv}", table[i].key, "s", "");
	}
	return r < 0 ? r : sd_bus_message_close_container(m);
}

char *ec_settings_text(const EcSettings *s, const EcSetting *row)
{
	switch (row->type) {
	case EC_SETTING_STRING: {
		const char *text = *CONST_FIELD_OF(s, row, char *);
		return g_strdup(text ? text : "");
	}
	case EC_SETTING_STRINGS: {
		char **items = *CONST_FIELD_OF(s, row, char **);
		return items ? g_strjoinv(",", items) : g_strdup("");
	}
	case EC_SETTING_CHOICE:
		return g_strdup(row->choices[*CONST_FIELD_OF(s, row, int)]);
	case EC_SETTING_BOOL:
		return g_strdup(*CONST_FIELD_OF(s, row, bool) ? "yes" : "no");
	case EC_SETTING_UINT16:
		return g_strdup_printf("%u", *CONST_FIELD_OF(s, row, uint16_t));
	case EC_SETTING_UINT32:
		return g_strdup_printf("%u", *CONST_FIELD_OF(s, row, uint32_t));
	case _EC_SETTING_TYPE_MAX:
		break;
	}
	g_assert_not_reached();
}

bool ec_settings_differ(const EcSettings *a, const EcSettings *b, const EcSetting *setting)
{
	g_autofree char *ta = ec_settings_text(a, setting);
	g_autofree char *tb = ec_settings_text(b, setting);

	return !g_str_equal(ta, tb);
}

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
	const char *device = g_str_has_prefix(s->underlay, "device:")
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

int ec_settings_verify(const EcSettings *s, sd_bus_error *ret_error)
{
	EcAddress local = { 0 }, remote;

	if (!s->name)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING, "name: a tunnel needs one");
	if (!s->remote)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"remote: the address or host name of the peer is missing");
	if (s->local && ec_address_from_string(s->local, &local) < 0)
		return -EINVAL;
	for (char **r = s->remote; s->local && *r; r++) {
		if (ec_address_from_string(*r, &remote) == 0 && remote.family != local.family)
			return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
					"local and remote: %s and %s are not of one IP version",
					s->local, *r);
	}
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
	int r = verify_bridging(s, ret_error);
	return r < 0 ? r : verify_names(s, ret_error);
}
