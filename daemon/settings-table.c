/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "settings.h"

#include <string.h>

static const char *const mode_words[] = { "point-to-point", "join-remote", "join-networks", NULL };
static const char *const control_words[] = { "ethercord", "static", "dynamic-fou", "tunnel-server",
	NULL };
static const char *const data_plane_words[] = { "auto", "kernel", "user", NULL };
static const char *const full_frames_words[] = { "auto", "yes", "no", NULL };
static const char *const split_words[] = { "auto", "yes", "no", NULL };
static const char *const fidelity_words[] = { "bridge", "transparent", "wire", NULL };
static const char *const encapsulation_words[] = { "auto", "gretap", "gretap-fou", "vxlan",
	"raw-udp", "gre", "ipip", "tun-udp", NULL };
static const char *const guard_words[] = { "auto", "none", "dhcp", "ra", "loop", "storm", "stp",
	NULL };

static const char *const compat_words[] = { "dynamic-fou", "tunnel-server", NULL };

static_assert(EC_ELEMENTS(mode_words) == _EC_MODE_MAX + 1, "a word per mode");
static_assert(EC_ELEMENTS(control_words) == _EC_CONTROL_MAX + 1, "a word per control");
static_assert(EC_ELEMENTS(data_plane_words) == _EC_DATA_PLANE_MAX + 1, "a word per data plane");
static_assert(EC_ELEMENTS(full_frames_words) == _EC_FULL_FRAMES_MAX + 1, "a word per full-frames");
static_assert(EC_ELEMENTS(split_words) == _EC_SPLIT_MAX + 1, "a word per split");
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
	EcAddress a;

	if (ec_address_from_string(text, &a) == 0)
		return ec_address_is_unicast(&a);
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

/* An interface name in which at most one %n stands for a number. */
static bool is_ifname_pattern(const char *text)
{
	g_auto(GStrv) part = g_strsplit(text, "%n", 3);
	g_autofree char *longest = g_strjoinv("9999", part);

	return g_strv_length(part) <= 2 && ec_ifname_is_valid(longest);
}

static bool is_underlay(const char *text)
{
	static const char *const kinds[] = { "vpn", "ipsec", "openvpn", "wireguard",
		"networkmanager", "any", NULL };

	if (g_str_has_prefix(text, "device:"))
		return ec_ifname_is_valid(text + strlen("device:"));
	return g_strv_contains(kinds, text);
}

static bool is_uuid(const char *text)
{
	return g_uuid_string_is_valid(text);
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
#define NAME_ALLOWED "a letter or digit, then up to 62 of letters, digits, '_', '.', '-'"
#define KEY_ALLOWED "base64 of 32 bytes, as 'ethercordctl genkey' prints it"
#define MTU_HELP                                                                                   \
	"MTU of the tunnel's interface in bytes, 68 or more. Automatic: what crosses "             \
	"the path whole in point-to-point mode; the bridge's MTU or 1500 in the "                  \
	"other modes."
#define LISTENER EC_SCOPE_LISTENER
#define PEER EC_SCOPE_PEER
#define TUNNEL EC_SCOPE_TUNNEL

/* In the order of the manual. The same keys and types stand in the D-Bus contract. A key whose
 * meaning, default or range differs between scopes has a row for each. */
static const EcSetting table[] = {
	{ FIELD("name", STRING, name), .scopes = TUNNEL, .is_valid = ec_name_is_valid,
			.allowed = "a letter or digit, then up to 62 of letters, digits, '_', '.', '-'",
			.fallback_help = "the file name",
			.help = "Name of the tunnel, in commands, object paths and messages." },
	{ FIELD("name", STRING, name), .scopes = LISTENER, .is_valid = ec_name_is_valid,
			.allowed = NAME_ALLOWED, .fallback_help = "the file name",
			.help = "Name of the listener; no tunnel may have the same. The tunnels that it "
				"accepts are called NAME.PEER." },
	{ FIELD("mode", CHOICE, mode), .scopes = TUNNEL, .choices = mode_words,
			.fallback = "point-to-point",
			.help = "*point-to-point*: neither end is bridged. *join-remote*: the far network is "
				"joined; the end there sets *bridge*, the end here does not. "
				"*join-networks*: both ends set *bridge*." },
	{ FIELD("mode", CHOICE, mode), .scopes = LISTENER, .choices = mode_words,
			.fallback = "point-to-point", .fallback_help = "what the peer wants",
			.help = "Accept only peers that want this mode. Not given: *point-to-point* where "
				"neither the listener nor the *[peer NAME]* has a *bridge*, "
				"*join-remote* and *join-networks* where one has." },
	{ FIELD("remote", STRINGS, remote), .scopes = TUNNEL, .is_valid = is_remote,
			.allowed = "IPv4 or IPv6 addresses of a host, or host names",
			.help = "Addresses or host names of the peer, inside the VPN, tried in order." },
	{ FIELD("local", STRING, local), .scopes = TUNNEL | LISTENER, .is_valid = is_address,
			.allowed = "an IPv4 or IPv6 address", .fallback_help = "from the path",
			.help = "Source address of the tunnel's packets." },
	{ FIELD("port", UINT16, port), .scopes = TUNNEL, .min = 1, .max = UINT16_MAX,
			.fallback = "65200", .help = "The peer's control port (TCP)." },
	{ FIELD("port", UINT16, port), .scopes = LISTENER, .min = 1, .max = UINT16_MAX,
			.fallback = "65200", .fallback_help = "port of ethercord.conf, 65200",
			.help = "TCP port to listen on, IPv4 and IPv6. Listeners may share one: the "
				"peer's name and key tell which is meant." },
	{ FIELD("control", CHOICE, control), .scopes = TUNNEL, .choices = control_words,
			.fallback = "ethercord",
			.help = "How the two ends agree. *ethercord*: the peer runs ethercordd; it is dialled, and "
				"the rest is agreed on. *static*: they do not talk; both are configured by "
				"hand, and the far end may be any system that speaks the wire format." },
	{ FIELD("key", STRING, key), .scopes = TUNNEL, .flags = EC_SETTING_SECRET,
			.is_valid = is_key,
			.allowed = "base64 of 32 bytes, as 'ethercordctl genkey' prints it",
			.help = "Key shared with the peer. Write-only: it is moved to the key store." },
	{ FIELD("key", STRING, key), .scopes = LISTENER, .flags = EC_SETTING_SECRET,
			.is_valid = is_key, .allowed = KEY_ALLOWED,
			.help = "Key of all peers that have none of their own. Without one, and without "
				"a *[peer NAME]* with one, only peers from *allow* get in, and only "
				"through a VPN at both ends. Write-only." },
	{ FIELD("key", STRING, key), .scopes = PEER, .flags = EC_SETTING_SECRET, .is_valid = is_key,
			.allowed = KEY_ALLOWED, .fallback_help = "the listener's",
			.help = "Key of this peer alone. Write-only: it is moved to the key store." },
	{ FIELD("allow", STRINGS, allow), .scopes = LISTENER, .is_valid = is_cidr,
			.allowed = "addresses or networks such as 10.8.0.0/24",
			.fallback_help = "from anywhere with a key, from nowhere without",
			.help = "Where peers may come from." },
	{ FIELD("allow", STRINGS, allow), .scopes = PEER, .is_valid = is_cidr,
			.allowed = "addresses or networks such as 10.8.0.0/24",
			.fallback_help = "the listener's",
			.help = "Where this peer may come from." },
	{ FIELD("max-peers", UINT32, max_peers), .scopes = LISTENER, .min = 1, .max = 4096,
			.fallback = "256", .help = "Peers at a time." },
	{ FIELD("identity", STRING, identity), .scopes = TUNNEL, .is_valid = ec_name_is_valid,
			.allowed = "a letter or digit, then up to 62 of letters, digits, '_', '.', '-'",
			.fallback_help = "the tunnel's name",
			.help = "Name given to the listener: the *[peer NAME]* there." },
	{ FIELD("underlay", STRING, underlay), .scopes = TUNNEL | LISTENER, .is_valid = is_underlay,
			.allowed = "vpn, ipsec, openvpn, wireguard, networkmanager, device:IFNAME or any",
			.fallback = "vpn",
			.help = "What the tunnel rides on. *vpn*: whichever VPN the routes and IPsec policies of "
				"this machine lead to the peer. *ipsec*, *openvpn*, *wireguard*, "
				"*networkmanager* (any VPN connection of NetworkManager): only one of that "
				"kind. *device:IFNAME*: that interface and no other. The tunnel waits while "
				"there is no such path, and nothing can leave outside it. *any*: wherever "
				"the routing table points; nothing is protected." },
	{ FIELD("encapsulation", STRINGS, encapsulation), .scopes = TUNNEL | LISTENER,
			.choices = encapsulation_words, .fallback_help = "auto",
			.help = "Wire formats in order of preference; *auto* takes the best that this "
				"machine can do. *gre*, *ipip* and *tun-udp* carry IP only. *raw-udp* is the "
				"format of tap2tap and QuickTun, *tun-udp* that of ttun." },
	{ FIELD("data-plane", CHOICE, data_plane), .scopes = TUNNEL | LISTENER,
			.choices = data_plane_words, .fallback = "auto",
			.help = "Who encapsulates: the kernel's links, or a process of its own for each "
				"tunnel (*user*), which speaks the same formats. *auto*: the kernel where it "
				"can. *gretap-fou* and *vxlan* are done by either, *raw-udp* and *tun-udp* by "
				"*user* alone, the others by *kernel* alone." },
	{ FIELD("id", UINT32, id), .scopes = TUNNEL, .max = UINT32_MAX, .fallback = "0",
			.fallback_help = "0; negotiated unless control is static",
			.help = "GRE key (0: none) or VXLAN network identifier (at most 16777215); both ends "
				"the same. Two tunnels between the same addresses need different ids." },
	{ FIELD("data-port", UINT16, data_port), .scopes = TUNNEL | LISTENER, .max = UINT16_MAX,
			.fallback = "0",
			.fallback_help = "65201 for gretap-fou, 4789 for vxlan, 1234 for "
					 "raw-udp, 8000 for tun-udp",
			.help = "Local UDP port of the data." },
	{ FIELD("remote-data-port", UINT16, remote_data_port), .scopes = TUNNEL, .max = UINT16_MAX,
			.fallback = "0",
			.fallback_help = "65201 for gretap-fou, data-port for vxlan, 1234 for "
					 "raw-udp, 8000 for tun-udp",
			.help = "The peer's UDP port of the data." },
	{ FIELD("interface", STRING, interface), .scopes = TUNNEL, .is_valid = ec_ifname_is_valid,
			.allowed = IFNAME_ALLOWED,
			.fallback_help = "ec-NAME, shortened to 15 bytes",
			.help = "Name of the tunnel's network interface." },
	{ FIELD("interface", STRING, interface), .scopes = LISTENER, .is_valid = is_ifname_pattern,
			.allowed = "an interface name, in which one %n may stand for up to 4 digits",
			.fallback_help = "ec-PEER, shortened to 15 bytes",
			.help = "Names of the accepted peers' interfaces: %n is the lowest number that "
				"no interface has. Without %n there is room for one peer." },
	{ FIELD("interface", STRING, interface), .scopes = PEER, .is_valid = ec_ifname_is_valid,
			.allowed = IFNAME_ALLOWED, .fallback_help = "as the listener names it",
			.help = "Name of this peer's network interface." },
	{ FIELD("mac", STRING, mac), .scopes = TUNNEL | PEER, .is_valid = is_mac,
			.allowed = "a unicast MAC address such as 02:00:5e:10:00:01",
			.fallback_help = "derived, unique per machine and tunnel",
			.help = "Ethernet address of the tunnel's interface." },
	{ FIELD("mtu", UINT32, mtu), .scopes = TUNNEL | LISTENER, .max = 65535, .fallback = "0",
			.fallback_help = "0: automatic", .help = MTU_HELP },
	{ FIELD("mtu", UINT32, mtu), .scopes = PEER, .max = 65535, .fallback = "0",
			.fallback_help = "the listener's", .help = MTU_HELP },
	{ FIELD("full-frames", CHOICE, full_frames), .scopes = TUNNEL | LISTENER,
			.choices = full_frames_words, .fallback = "auto",
			.help = "Carry 1500-byte packets even where the path is smaller, in outer fragments. "
				"*auto*: in the bridged modes, where the outer protocol can fragment." },
	{ FIELD("split", CHOICE, split), .scopes = TUNNEL | LISTENER, .choices = split_words,
			.fallback = "auto",
			.help = "Send frames that are larger than the path in pieces, which the peer puts "
				"together: where *data-plane* is *user* at both ends. *auto*: when the path was "
				"found to drop IP fragments. *yes*: at once; with *control=static* both ends "
				"have to say so." },
	{ FIELD("roam", BOOL, roam), .scopes = TUNNEL, .fallback = "no",
			.help = "Take whoever sends last for the peer: for *raw-udp* and *tun-udp* with "
				"*control=static*, whose packets do not tell whose they are. Without *remote* "
				"the tunnel waits for a client. Nothing about this is authenticated: anybody "
				"who can send to *data-port* can take the tunnel over." },
	{ FIELD("address", STRINGS, address), .scopes = TUNNEL | PEER, .is_valid = is_cidr,
			.allowed = "addresses with prefix length such as 192.0.2.1/24",
			.help = "Addresses put on the tunnel's interface. Not for a bridged end." },
	{ FIELD("bridge", STRING, bridge), .scopes = TUNNEL, .is_valid = ec_ifname_is_valid,
			.allowed = IFNAME_ALLOWED, .help = "Bridge that this end joins." },
	{ FIELD("bridge", STRING, bridge), .scopes = LISTENER, .is_valid = ec_ifname_is_valid,
			.allowed = IFNAME_ALLOWED, .help = "Bridge that the peers join." },
	{ FIELD("bridge", STRING, bridge), .scopes = PEER, .is_valid = ec_ifname_is_valid,
			.allowed = IFNAME_ALLOWED, .fallback_help = "the listener's",
			.help = "Bridge that this peer joins." },
	{ FIELD("bridge-create", BOOL, bridge_create), .scopes = TUNNEL | LISTENER,
			.fallback = "no",
			.help = "Make the bridge when it is missing, and remove it with the last tunnel." },
	{ FIELD("attach", STRING, attach), .scopes = TUNNEL, .is_valid = ec_ifname_is_valid,
			.allowed = IFNAME_ALLOWED,
			.help = "Local Ethernet interface to put in the bridge as well. Refused for Wi-Fi, "
				"for the interface that carries the route to the peer and for a port of "
				"another bridge." },
	{ FIELD("fidelity", CHOICE, fidelity), .scopes = TUNNEL | LISTENER,
			.choices = fidelity_words, .fallback = "bridge",
			.help = "How much of Ethernet crosses a bridged end." },
	{ FIELD("guard", STRINGS, guard), .scopes = TUNNEL | LISTENER, .choices = guard_words,
			.fallback_help = "auto",
			.help = "What must not cross when networks are joined." },
	{ FIELD("storm-limit", UINT32, storm_limit), .scopes = TUNNEL | LISTENER, .min = 1,
			.max = 1000000, .fallback = "500",
			.help = "Broadcast and multicast frames per second on the tunnel port." },
	{ FIELD("keepalive-interval", UINT32, keepalive_interval), .scopes = TUNNEL | LISTENER,
			.min = 50, .max = 3600000, .fallback = "1000",
			.help = "Milliseconds between keepalives." },
	{ FIELD("keepalive-timeout", UINT32, keepalive_timeout), .scopes = TUNNEL | LISTENER,
			.min = 100, .max = 3600000, .fallback = "3000",
			.help = "Milliseconds without an answer after which the peer is lost." },
	{ FIELD("gre-keepalive", STRING, gre_keepalive), .scopes = TUNNEL,
			.is_valid = is_gre_keepalive,
			.allowed = "PERIOD[,RETRIES]: 1 to 32767 seconds, 1 to 255 retries",
			.help = "Send Cisco GRE keepalives." },
	{ FIELD("link-loss-forwarding", BOOL, link_loss_forwarding), .scopes = TUNNEL | LISTENER,
			.fallback = "no",
			.help = "Mirror the far access port's carrier to the near one." },
	{ FIELD("ttl", UINT32, ttl), .scopes = TUNNEL | LISTENER, .min = 1, .max = 255,
			.fallback = "64", .help = "TTL or hop limit of the outer packets." },
	{ FIELD("dscp", UINT32, dscp), .scopes = TUNNEL | LISTENER, .max = 63, .fallback = "0",
			.help = "DSCP of the outer packets." },
	{ FIELD("fwmark", UINT32, fwmark), .scopes = TUNNEL | LISTENER, .max = UINT32_MAX,
			.fallback = "0",
			.help = "Firewall mark of the outer packets (not vxlan)." },
	{ FIELD("autostart", BOOL, autostart), .scopes = TUNNEL, .fallback = "yes",
			.help = "Bring the tunnel up when the daemon starts." },
	{ FIELD("autostart", BOOL, autostart), .scopes = LISTENER, .fallback = "yes",
			.help = "Listen when the daemon starts." },
	{ FIELD("profile", STRING, profile), .scopes = TUNNEL, .is_valid = is_uuid,
			.allowed = "a UUID such as 3c8b6d52-0c54-4f0e-9f2b-2f5f0a1c7d11",
			.help = "NetworkManager's profile that the tunnel was made for. Set by "
				"NetworkManager's plugin: such a tunnel goes when the plugin has gone, "
				"unless the tunnel is persistent." },
	{ FIELD("compat", STRINGS, compat), .scopes = LISTENER, .choices = compat_words,
			.fallback_help = "none",
			.help = "Programs of others whose clients are let in as well." },
};

static_assert(EC_ELEMENTS(table) <= 64, "EcSettings.given is 64 bits");

static const char *const scope_words[] = { "tunnel", "listener", "peer" };

const EcSetting *ec_settings_table(size_t *ret_n)
{
	*ret_n = EC_ELEMENTS(table);
	return table;
}

const EcSetting *ec_setting_find_in(EcScope scope, const char *key)
{
	for (size_t i = 0; i < EC_ELEMENTS(table); i++) {
		if ((table[i].scopes & scope) && g_str_equal(table[i].key, key))
			return &table[i];
	}
	return NULL;
}

const EcSetting *ec_setting_find(const char *key)
{
	return ec_setting_find_in(EC_SCOPE_TUNNEL, key);
}

const char *ec_scope_to_string(EcScope scope)
{
	return scope_words[g_bit_nth_lsf(scope, -1)];
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
