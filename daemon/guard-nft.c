/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>

#include "guard-layer.h"
#include "log.h"

/*
 * DOC: Theory of operation
 *
 * The rules are the same for any number of tunnels; tunnels are elements of the sets the rules look
 * into. A packet that is no tunnel's leaves after one look at its protocol, other UDP after one
 * more at its port. `out` and its fellows `udp` and `vni` hold the flows that are guarded; a packet
 * of theirs passes if it goes through an interface in the set `-through`, or if an IPsec policy
 * applies to it and the flow is in `-ipsec`; else it is dropped and counted.
 *
 * Out: a flow is the peer with the protocol, UDP port, or UDP port and VXLAN network identifier.
 * FOU counts as GRE too: its interface would send that if its encapsulation were taken off.
 *
 * What the peer goes on sending while the interface is down would be answered with an ICMP error,
 * which quotes the packet and leaves by whatever route there is: errors to the peer are fenced,
 * too.
 *
 * Whose peer may be anybody in the VPN has a flow of its own: all that leaves from its port, and
 * all errors that quote UDP to that port. A peer that it has learned is not put into the sets, or
 * somebody unknown could have other programs' packets fenced: those to a name server, say.
 *
 * In: what GRE and IPIP are by is the peer's address. A FOU port is all ours whoever sends, and so
 * is an identifier on a VXLAN port: the kernel looks no further. A FOU interface also takes plain
 * GRE from its peer. The judgement is made in the hook `input`: what this host forwards is not
 * meant, ports are final, IPv4 is put together again, IPsec is undone.
 *
 * Fragments: of GRE and IPIP each one is judged before they are put together, or somebody could add
 * a piece from outside. IPv6 is put together only after `input`, so that a first fragment may end
 * before the identifier: on a VXLAN port of ours such runts go. Not covered: pieces of IPv4 UDP
 * that carry the peer's address and hit the identification of a datagram under way. They have no
 * port, and the VPN's own packets may come from the same address.
 *
 * The whole table is made in one transaction that begins with its deletion, so no packet meets a
 * half-made one. Changes by another hand are answered the same way. One packet could still slip
 * through: one that had picked up its list of hooks before the transaction, meets the old chain
 * after it, when that has no rules any more, and never the new one. So a twin of the table, under
 * another name, stands in for it meanwhile.
 */

#define BURST 5                 /* re-creations at once... */
#define WINDOW (3 * 1000000ULL) /* ...in this time, then spaced */
#define SPACE (250 * 1000ULL)
#define SPACE_MAX (5 * 1000000ULL)

enum {
	ADDRESS = 1,
	PROTOCOL = 2,
	PORT = 4,
	VNI = 8,
	DEVICE = 16,
	IN = 32,
	COUNT = 64,
	ANY = 128,
	FROM = 256,  /* the port is the sender's */
	QUOTED = 512 /* the port is in the UDP header that an ICMP error quotes */
};

enum {
	SET_OUT_PORT,
	SET_IN_PORT,
	SET_VNI_PORT,
	SET_FROM_PORT,
	SET_IN_ANY,
	SET_OUT,
	SET_OUT_UDP = SET_OUT + 3,
	SET_OUT_VNI = SET_OUT_UDP + 3,
	SET_OUT_FROM = SET_OUT_VNI + 3,
	SET_QUOTED = SET_OUT_FROM + 3,
	SET_IN = SET_QUOTED + 3,
	SET_IN_UDP = SET_IN + 3,
	SET_IN_VNI = SET_IN_UDP + 3,
	SETS = SET_IN_VNI + 3
};
enum {
	THROUGH = 1,
	IPSEC = 2
};

/* '#' is the digit of the family. */
static const struct {
	const char *name;
	unsigned key;
} sets[SETS] = {
	[SET_OUT_PORT] = { "out-port", PORT | ANY },
	[SET_IN_PORT] = { "in-port", PORT | ANY },
	[SET_VNI_PORT] = { "vni-port", PORT | ANY },
	[SET_FROM_PORT] = { "from-port", PORT | FROM | ANY },
	[SET_IN_ANY] = { "in#-any", IN | PORT | DEVICE },
	[SET_OUT_FROM] = { "out#-from", PORT | FROM | COUNT },
	[SET_OUT_FROM + THROUGH] = { "out#-from-through", PORT | FROM | DEVICE },
	[SET_OUT_FROM + IPSEC] = { "out#-from-ipsec", PORT | FROM },
	[SET_QUOTED] = { "out#-quoted", PORT | QUOTED | COUNT },
	[SET_QUOTED + THROUGH] = { "out#-quoted-through", PORT | QUOTED | DEVICE },
	[SET_QUOTED + IPSEC] = { "out#-quoted-ipsec", PORT | QUOTED },
	[SET_OUT] = { "out#", ADDRESS | PROTOCOL | COUNT },
	[SET_OUT + THROUGH] = { "out#-through", ADDRESS | PROTOCOL | DEVICE },
	[SET_OUT + IPSEC] = { "out#-ipsec", ADDRESS | PROTOCOL },
	[SET_OUT_UDP] = { "out#-udp", ADDRESS | PORT | COUNT },
	[SET_OUT_UDP + THROUGH] = { "out#-udp-through", ADDRESS | PORT | DEVICE },
	[SET_OUT_UDP + IPSEC] = { "out#-udp-ipsec", ADDRESS | PORT },
	[SET_OUT_VNI] = { "out#-vni", ADDRESS | PORT | VNI | COUNT },
	[SET_OUT_VNI + THROUGH] = { "out#-vni-through", ADDRESS | PORT | VNI | DEVICE },
	[SET_OUT_VNI + IPSEC] = { "out#-vni-ipsec", ADDRESS | PORT | VNI },
	[SET_IN] = { "in#", IN | ADDRESS | PROTOCOL | COUNT },
	[SET_IN + THROUGH] = { "in#-through", IN | ADDRESS | PROTOCOL | DEVICE },
	[SET_IN + IPSEC] = { "in#-ipsec", IN | ADDRESS | PROTOCOL },
	[SET_IN_UDP] = { "in#-udp", IN | PORT | COUNT },
	[SET_IN_UDP + THROUGH] = { "in#-udp-through", IN | ADDRESS | PORT | DEVICE },
	[SET_IN_UDP + IPSEC] = { "in#-udp-ipsec", IN | ADDRESS | PORT },
	[SET_IN_VNI] = { "in#-vni", IN | PORT | VNI | COUNT },
	[SET_IN_VNI + THROUGH] = { "in#-vni-through", IN | ADDRESS | PORT | VNI | DEVICE },
	[SET_IN_VNI + IPSEC] = { "in#-vni-ipsec", IN | ADDRESS | PORT | VNI },
};

/* For each family in use: '#' its digit, '$' its keyword, '~' its errors, which quote packets, '%'
 * those of them that quote UDP (behind an IPv4 header of 20 bytes, an IPv6 one alone), '^' the port
 * that the quoted packet was for. */
static const char family_chains[] =
		"chain out# {\n"
		"$ daddr . meta l4proto . oifname @out#-through return\n"
		"rt ipsec exists $ daddr . meta l4proto @out#-ipsec return\n"
		"$ daddr . meta l4proto @out# counter drop\n"
		"}\n"
		"chain out#-error {\n"
		"~ % jump out#-quoted\n"
		"~ goto out#\n"
		"}\n"
		"chain out#-quoted {\n"
		"^ . oifname @out#-quoted-through return\n"
		"rt ipsec exists ^ @out#-quoted-ipsec return\n"
		"^ @out#-quoted counter drop\n"
		"}\n"
		"chain out#-udp {\n"
		"$ daddr . udp dport . oifname @out#-udp-through return\n"
		"rt ipsec exists $ daddr . udp dport @out#-udp-ipsec return\n"
		"$ daddr . udp dport @out#-udp counter drop\n"
		"$ daddr . udp dport . @th,96,24 . oifname @out#-vni-through return\n"
		"rt ipsec exists $ daddr . udp dport . @th,96,24 @out#-vni-ipsec return\n"
		"$ daddr . udp dport . @th,96,24 @out#-vni counter drop\n"
		"}\n"
		"chain out#-from {\n"
		"udp sport . oifname @out#-from-through return\n"
		"rt ipsec exists udp sport @out#-from-ipsec return\n"
		"udp sport @out#-from counter drop\n"
		"}\n"
		"chain fragment# {\n"
		"$ saddr . meta l4proto . iifname @in#-through return\n"
		"$ saddr . meta l4proto @in#-ipsec return\n"
		"$ saddr . meta l4proto @in# counter drop\n"
		"}\n"
		"chain in# {\n"
		"$ saddr . meta l4proto . iifname @in#-through return\n"
		"meta ipsec exists $ saddr . meta l4proto @in#-ipsec return\n"
		"$ saddr . meta l4proto @in# counter drop\n"
		"}\n"
		"chain in#-udp {\n"
		"udp dport . iifname @in#-any return\n"
		"$ saddr . udp dport . iifname @in#-udp-through return\n"
		"meta ipsec exists $ saddr . udp dport @in#-udp-ipsec return\n"
		"udp dport @in#-udp counter drop\n"
		"$ saddr . udp dport . @th,96,24 . iifname @in#-vni-through return\n"
		"meta ipsec exists $ saddr . udp dport . @th,96,24 @in#-vni-ipsec return\n"
		"udp dport . @th,96,24 @in#-vni counter drop\n"
		"}\n";

/* Whoever has an identifier at all leaves by the first rule. */
static const char runt_chain[] = "chain in6-runt {\n"
				 "@th,96,24 >= 0 return\n"
				 "udp dport @vni-port counter drop\n"
				 "}\n";

static const char base_chains[] = "chain out-port {\n"
				  "udp sport @from-port meta nfproto vmap { UDPFROM }\n"
				  "udp dport != @out-port return\n"
				  "meta nfproto vmap { UDPOUT }\n"
				  "}\n"
				  "chain in-port {\n"
				  "udp dport != @in-port return\n"
				  "meta nfproto vmap { UDPIN }\n"
				  "RUNT"
				  "}\n"
				  "chain out {\n"
				  "type filter hook postrouting priority -400; policy accept;\n"
				  "meta nfproto . meta l4proto vmap { ALLOUT }\n"
				  "}\n"
				  "chain fragment {\n"
				  "type filter hook prerouting priority -450; policy accept;\n"
				  "FRAGMENT"
				  "}\n"
				  "chain in {\n"
				  "type filter hook input priority -400; policy accept;\n"
				  "meta nfproto . meta l4proto vmap { ALLIN }\n"
				  "}\n";

typedef struct Own {
	bool there;        /* the table is, as far as we know */
	unsigned families; /* 1: IPv4, 2: IPv6 are in it */
	sd_event_source *timer;
	uint64_t since; /* begin of the window */
	unsigned count; /* re-creations in it */
	uint64_t space; /* until the next attempt after a failure */
	bool announced; /* that they are spaced */
} Own;

/* Rendering */

static void add(GArray *items, uint8_t set, const EcAddress *peer, uint8_t protocol, uint16_t port,
		const EcGuardSpec *spec)
{
	const EcAddress any = { .family = sets[set].key & ANY ? AF_UNSPEC : peer->family };
	EcGuardItem item = ec_guard_item(set, sets[set].key & ADDRESS ? peer : &any);

	if (sets[set].key & PROTOCOL)
		item.protocol = protocol;
	if (sets[set].key & PORT)
		item.port = port;
	if (sets[set].key & VNI)
		item.vni = spec->vni;
	if (sets[set].key & DEVICE)
		(void)g_strlcpy(item.device, spec->device, sizeof(item.device));
	g_array_append_val(items, item);
}

/* The flow, and what lets it pass. */
static void add_pair(GArray *items, uint8_t set, uint8_t protocol, uint16_t port,
		const EcGuardSpec *spec)
{
	uint8_t pass = spec->fence == EC_FENCE_INTERFACE ? THROUGH : IPSEC;

	bool within = spec->fence == EC_FENCE_INTERFACE && spec->ipsec_within;

	add(items, (uint8_t)(set + pass), &spec->remote, protocol, port, spec);
	/* Out of an xfrm interface a packet passes postrouting twice, the second time with the
	 * device of the ESP packet that it is about to become. */
	if (within && !(sets[set].key & IN))
		add(items, (uint8_t)(set + IPSEC), &spec->remote, protocol, port, spec);
	add(items, set, &spec->remote, protocol, port, spec);
}

void ec_guard_nft_errors(const EcGuardSpec *spec, GArray *items)
{
	bool v6 = spec->remote.family == AF_INET6;

	add_pair(items, SET_OUT, v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP, 0, spec);
	if (spec->anybody)
		add_pair(items, SET_QUOTED, 0, spec->local_port, spec);
}

static void render(const EcGuardSpec *spec, GArray *items)
{
	bool v6 = spec->remote.family == AF_INET6;

	if (spec->fence == EC_FENCE_NONE)
		return;
	ec_guard_nft_errors(spec, items);
	const uint8_t plain[] = { spec->lookup_protocol, spec->second_protocol };
	for (size_t i = 0; i < EC_ELEMENTS(plain); i++) {
		if (plain[i] == 0 || plain[i] == IPPROTO_UDP)
			continue;
		add_pair(items, SET_OUT, plain[i], 0, spec);
		add_pair(items, SET_IN, plain[i], 0, spec);
	}
	if (spec->protocol != IPPROTO_UDP)
		return;
	add(items, SET_OUT_PORT, &spec->remote, 0, spec->remote_port, spec);
	add(items, SET_IN_PORT, &spec->remote, 0, spec->local_port, spec);
	if (spec->has_vni && v6)
		add(items, SET_VNI_PORT, &spec->remote, 0, spec->local_port, spec);
	add_pair(items, spec->has_vni ? SET_OUT_VNI : SET_OUT_UDP, 0, spec->remote_port, spec);
	add_pair(items, spec->has_vni ? SET_IN_VNI : SET_IN_UDP, 0, spec->local_port, spec);
	if (!spec->anybody)
		return;
	add(items, SET_FROM_PORT, &spec->remote, 0, spec->local_port, spec);
	add_pair(items, SET_OUT_FROM, 0, spec->local_port, spec);
	add(items, SET_IN_ANY, &spec->remote, 0, spec->local_port, spec);
}

/* Text */

static char digit(const EcGuardItem *item)
{
	return item->family == AF_INET6 ? '6' : '4';
}

static void put_replaced(GString *text, const char *with, char number)
{
	for (; *with; with++) {
		if (*with == '#')
			g_string_append_c(text, number);
		else if (*with == '$')
			g_string_append(text, number == '6' ? "ip6" : "ip");
		else if (*with == '~')
			g_string_append(text, number == '6' ? "icmpv6 type { 1, 2, 3, 4 }"
							    : "icmp type { 3, 4, 5, 11, 12 }");
		else if (*with == '%')
			g_string_append(text, number == '6' ? "@th,112,8 17"
							    : "@th,64,8 0x45 @th,136,8 17");
		else if (*with == '^')
			g_string_append(text, number == '6' ? "@th,400,16" : "@th,240,16");
		else
			g_string_append_c(text, *with);
	}
}

static const char *dot(const GString *text, size_t begin)
{
	return text->len > begin ? " . " : "";
}

static void put_element(GString *text, const EcGuardItem *item)
{
	char address[INET6_ADDRSTRLEN];
	EcAddress a = { .family = item->family };
	unsigned key = sets[item->type].key;
	size_t begin = text->len;

	memcpy(a.bytes, item->peer, ec_address_size(&a));
	if (key & ADDRESS)
		g_string_append(text, ec_address_to_string(&a, address));
	if (key & PROTOCOL)
		g_string_append_printf(text, "%s%u", dot(text, begin), item->protocol);
	if (key & PORT)
		g_string_append_printf(text, "%s%u", dot(text, begin), item->port);
	if (key & VNI)
		g_string_append_printf(text, "%s%u", dot(text, begin), item->vni);
	if (key & DEVICE)
		g_string_append_printf(text, "%s\"%s\"", dot(text, begin), item->device);
}

static void put_set(GString *text, size_t set, char number)
{
	unsigned key = sets[set].key;
	GString *type = g_string_new(NULL);

	if (key & ADDRESS)
		g_string_append(type, key & IN ? "$ saddr" : "$ daddr");
	if (key & PROTOCOL)
		g_string_append_printf(type, "%smeta l4proto", dot(type, 0));
	if (key & PORT)
		g_string_append_printf(type, "%s%s", dot(type, 0),
				key & QUOTED ? "^"
				: key & FROM ? "udp sport"
					     : "udp dport");
	if (key & VNI)
		g_string_append_printf(type, "%s@th,96,24", dot(type, 0));
	if (key & DEVICE)
		g_string_append_printf(
				type, "%s%s", dot(type, 0), key & IN ? "iifname" : "oifname");
	g_string_append(text, "set ");
	put_replaced(text, sets[set].name, number);
	g_string_append(text, " { typeof ");
	put_replaced(text, type->str, number);
	g_string_append(text, key & COUNT ? "; counter; }\n" : "; }\n");
	(void)g_string_free(type, TRUE);
}

char *ec_guard_nft_elements(const char *verb, const char *table, const GPtrArray *items)
{
	g_autoptr(GString) text = g_string_new(NULL);
	GString *of[SETS][2] = { 0 };

	for (guint i = 0; i < items->len; i++) {
		const EcGuardItem *item = items->pdata[i];
		GString **s = &of[item->type][digit(item) == '6'];

		if (!*s)
			*s = g_string_new(NULL);
		else
			g_string_append(*s, ", ");
		put_element(*s, item);
	}
	for (size_t i = 0; i < (size_t)SETS * 2; i++) {
		GString *s = of[i / 2][i % 2];

		if (!s)
			continue;
		g_string_append_printf(text, "%s element inet %s ", verb, table);
		put_replaced(text, sets[i / 2].name, i % 2 ? '6' : '4');
		g_string_append_printf(text, " { %s }\n", s->str);
		(void)g_string_free(s, TRUE);
	}
	return g_string_free(g_steal_pointer(&text), FALSE);
}

static unsigned families_of(const GPtrArray *items)
{
	unsigned families = 0;

	for (guint i = 0; i < items->len; i++) {
		int family = ((const EcGuardItem *)items->pdata[i])->family;
		families |= family == AF_INET ? 1 : family == AF_INET6 ? 2 : 0;
	}
	return families;
}

static void replace(GString *text, const char *what, const char *four, const char *six,
		unsigned families)
{
	g_autofree char *by = g_strconcat(families & 1 ? four : "", families & 2 ? six : "", NULL);

	(void)g_string_replace(text, what, by, 0);
}

static GPtrArray *all_of(GHashTable *items)
{
	GPtrArray *all = g_ptr_array_new();
	GHashTableIter i;
	gpointer item;

	g_hash_table_iter_init(&i, items);
	while (g_hash_table_iter_next(&i, &item, NULL))
		g_ptr_array_add(all, item);
	return all;
}

char *ec_guard_nft_table(const char *table, GHashTable *items)
{
	g_autoptr(GPtrArray) all = all_of(items);
	g_autofree char *elements = ec_guard_nft_elements("add", table, all);
	g_autoptr(GString) text = g_string_new(NULL), chains = g_string_new(base_chains);
	unsigned families = families_of(all);

	g_string_printf(text, "add table inet %s\ndelete table inet %s\ntable inet %s {\n", table,
			table, table);
	for (size_t i = 0; i < SETS; i++) {
		if (sets[i].key & ANY || families & 1)
			put_set(text, i, '4');
		if (!(sets[i].key & ANY) && families & 2)
			put_set(text, i, '6');
	}
	if (families & 1)
		put_replaced(text, family_chains, '4');
	if (families & 2) {
		put_replaced(text, family_chains, '6');
		g_string_append(text, runt_chain);
	}
	replace(chains, "UDPOUT", "ipv4 : goto out4-udp, ", "ipv6 : goto out6-udp", families);
	replace(chains, "UDPFROM", "ipv4 : jump out4-from, ", "ipv6 : jump out6-from", families);
	replace(chains, "UDPIN", "ipv4 : jump in4-udp, ", "ipv6 : jump in6-udp", families);
	replace(chains, "RUNT", "", "exthdr frag exists goto in6-runt\n", families);
	replace(chains, "ALLOUT",
			"ipv4 . 4 : goto out4, ipv4 . 41 : goto out4, ipv4 . 47 : goto out4, "
			"ipv4 . 17 : goto out-port, ipv4 . 1 : goto out4-error, ",
			"ipv6 . 4 : goto out6, ipv6 . 41 : goto out6, ipv6 . 47 : goto out6, "
			"ipv6 . 17 : goto out-port, ipv6 . 58 : goto out6-error",
			families);
	replace(chains, "ALLIN",
			"ipv4 . 4 : goto in4, ipv4 . 41 : goto in4, ipv4 . 47 : goto in4, "
			"ipv4 . 17 : goto in-port, ",
			"ipv6 . 4 : goto in6, ipv6 . 41 : goto in6, ipv6 . 47 : goto in6, "
			"ipv6 . 17 : goto in-port",
			families);
	replace(chains, "FRAGMENT", "ip frag-off & 0x3fff != 0 goto fragment4\n",
			"exthdr frag exists goto fragment6\n", families);
	g_string_append_printf(text, "%s}\n%s", chains->str, elements);
	return g_string_free(g_steal_pointer(&text), FALSE);
}

/* The kernel */

static Own *own_of(EcGuardShelf *s)
{
	if (!s->own) {
		Own *own = g_new0(Own, 1);
		own->space = SPACE;
		s->own = own;
	}
	return s->own;
}

static char *twin_of(const EcGuard *g)
{
	return g_strconcat(g->table, "-twin", NULL);
}

/* "add" first: deleting what is not there is an error. */
static char *deletion_of(const char *table)
{
	return g_strdup_printf("add table inet %s\ndelete table inet %s\n", table, table);
}

static int recreate(EcGuardShelf *s, sd_bus_error *ret_error)
{
	g_autofree char *text = ec_guard_nft_table(s->guard->table, s->items);
	g_autofree char *twin = twin_of(s->guard);
	g_autofree char *stand_in = ec_guard_nft_table(twin, s->items);
	g_autofree char *step_down = deletion_of(twin);
	g_autoptr(GPtrArray) all = all_of(s->items);
	Own *own = own_of(s);
	EcNft *nft = NULL;
	int r = ec_guard_nft(s->guard, &nft, ret_error);

	if (r < 0)
		return r;
	(void)ec_nft_run(nft, stand_in, NULL);
	r = ec_nft_run(nft, text, ret_error);
	if (r < 0)
		return r; /* the twin holds what the table does not */
	(void)ec_nft_run(nft, step_down, NULL);
	own->there = true;
	own->families = families_of(all);
	own->space = SPACE;
	return 0;
}

static int apply(EcGuardShelf *s, const GPtrArray *gained, const GPtrArray *lost,
		sd_bus_error *ret_error)
{
	Own *own = own_of(s);
	EcGuard *g = s->guard;

	if (g_hash_table_size(s->items) == 0) {
		g_autofree char *table = deletion_of(g->table), *twin = twin_of(g);
		g_autofree char *left = deletion_of(twin); /* by a crash, or a failure */
		g_autofree char *text = g_strconcat(table, left, NULL);
		int r = own->there && g->nft ? ec_nft_run(g->nft, text, ret_error) : 0;

		own->there = false;
		(void)sd_event_source_disable_unref(own->timer);
		own->timer = NULL;
		ec_guard_nft_release(g);
		return r;
	}
	if (!own->there || !s->holds || (families_of(gained) & ~own->families))
		return recreate(s, ret_error);
	g_autofree char *more = ec_guard_nft_elements("add", g->table, gained);
	g_autofree char *less = ec_guard_nft_elements("delete", g->table, lost);
	g_autofree char *both = g_strconcat(more, less, NULL);
	/* It fails when somebody changed the table just now. */
	if (!*both || ec_nft_run(g->nft, both, NULL) >= 0)
		return 0;
	return recreate(s, ret_error);
}

/* Other hands */

static void reassert(EcGuardShelf *s);

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	EcGuardShelf *s = userdata;

	if (g_hash_table_size(s->items) > 0)
		reassert(s);
	return 0;
}

static void later(EcGuardShelf *s, uint64_t delay)
{
	Own *own = own_of(s);
	int enabled = SD_EVENT_OFF;

	if (!own->timer) {
		(void)sd_event_add_time_relative(s->guard->event, &own->timer, CLOCK_MONOTONIC,
				delay, 1000, on_timer, s);
		return;
	}
	if (sd_event_source_get_enabled(own->timer, &enabled) >= 0 && enabled != SD_EVENT_OFF)
		return;
	(void)sd_event_source_set_time_relative(own->timer, delay);
	(void)sd_event_source_set_enabled(own->timer, SD_EVENT_ONESHOT);
}

static void reassert(EcGuardShelf *s)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	Own *own = own_of(s);

	if (recreate(s, &error) >= 0) {
		ec_guard_shelf_holds(s, NULL);
		return;
	}
	if (s->holds)
		ec_log(LOG_ERR, "guard: nftables does not hold any more: %s", error.message);
	own->there = false;
	ec_guard_shelf_holds(s, &error);
	later(s, own->space);
	own->space = MIN(own->space * 2, SPACE_MAX);
}

void ec_guard_nft_touched(EcGuardShelf *s, const char *who)
{
	Own *own = own_of(s);
	uint64_t now = 0;

	/* Without a table of ours it is none of our business. */
	if (g_hash_table_size(s->items) == 0 || !own->there)
		return;
	(void)sd_event_now(s->guard->event, CLOCK_MONOTONIC, &now);
	if (now - own->since > WINDOW) {
		own->since = now;
		own->count = 0;
		own->announced = false;
	}
	if (++own->count > BURST) {
		if (!own->announced)
			ec_log(LOG_WARNING,
					"guard: nftables table inet %s is changed again and again%s%s; it is put back every %d ms",
					s->guard->table, *who ? " by " : "", who,
					(int)(SPACE / 1000));
		own->announced = true;
		later(s, SPACE);
		return;
	}
	ec_log(LOG_NOTICE, "guard: nftables table inet %s was changed%s%s; putting it back",
			s->guard->table, *who ? " by " : "", who);
	reassert(s);
}

static void done(EcGuardShelf *s)
{
	Own *own = s->own;

	if (own)
		(void)sd_event_source_disable_unref(own->timer);
	g_free(own);
}

/* Counters */

static bool count(EcGuardShelf *s, const EcGuardItem *item, uint64_t *sum)
{
	const EcAddress family = { .family = item->family };
	g_autoptr(GString) name = g_string_new(NULL);
	g_autoptr(GByteArray) key = g_byte_array_new();
	const uint8_t protocol[4] = { item->protocol };
	const uint8_t port[4] = { item->port >> 8, item->port & 0xff };
	const uint8_t vni[4] = { item->vni >> 16 & 0xff, item->vni >> 8 & 0xff, item->vni & 0xff };
	unsigned parts = sets[item->type].key;
	uint64_t packets = 0;

	put_replaced(name, sets[item->type].name, digit(item));
	if (parts & ADDRESS)
		(void)g_byte_array_append(key, item->peer, (guint)ec_address_size(&family));
	if (parts & PROTOCOL)
		(void)g_byte_array_append(key, protocol, sizeof(protocol));
	/* A port alone is no concatenation and not filled up. */
	if (parts & PORT)
		(void)g_byte_array_append(key, port, parts & (ADDRESS | VNI) ? sizeof(port) : 2);
	if (parts & VNI)
		(void)g_byte_array_append(key, vni, sizeof(vni));
	if (ec_nft_counter(s->guard->nft, name->str, key->data, key->len, &packets) < 0)
		return false;
	*sum += packets;
	return true;
}

bool ec_guard_nft_counters(
		EcGuardShelf *s, const EcGuardSpec *spec, uint64_t *ret_out, uint64_t *ret_in)
{
	g_autoptr(GArray) items = g_array_new(FALSE, TRUE, sizeof(EcGuardItem));
	uint64_t out = 0, in = 0;

	if (!s->guard->nft)
		return false;
	render(spec, items);
	for (guint i = 0; i < items->len; i++) {
		const EcGuardItem *item = &g_array_index(items, EcGuardItem, i);
		unsigned key = sets[item->type].key;

		if ((key & COUNT) && !count(s, item, key & IN ? &in : &out))
			return false;
	}
	*ret_out = out;
	*ret_in = in;
	return true;
}

const EcGuardLayer ec_guard_layer_nftables = {
	.bit = EC_GUARD_NFTABLES,
	.word = "nftables",
	.title = "nftables",
	.render = render,
	.apply = apply,
	.done = done,
};
