/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "diagnose.h"

#include <inttypes.h>
#include <string.h>

#include "nft.h"

/*
 * DOC: Theory of operation
 *
 * Three parts, and who asks gets those that fit: this machine (nothing was named), the way to an
 * address (diagnose-path.c), a tunnel. The same questions are put to the kernel as for a tunnel
 * that comes up, by the same functions; only the answers are worded for a reader.
 */

const char *ec_severity_to_string(EcSeverity severity)
{
	static const char *const word[] = { "ok", "info", "warning", "error" };

	static_assert(EC_ELEMENTS(word) == _EC_SEVERITY_MAX, "a word per severity");
	return word[severity];
}

static void finding_free(gpointer p)
{
	EcFinding *f = p;

	g_free(f->text);
	g_free(f->remedy);
	g_free(f);
}

void ec_finding_add(EcDiagnosis *d, EcSeverity severity, const char *code, const char *remedy,
		const char *format, ...)
{
	EcFinding *f = g_new0(EcFinding, 1);
	va_list ap;

	va_start(ap, format);
	g_autofree char *text = g_strdup_vprintf(format, ap);
	va_end(ap);
	f->severity = severity;
	f->code = code;
	/* The kernel takes interface names that the bus does not. */
	f->text = g_utf8_make_valid(text, -1);
	f->remedy = g_utf8_make_valid(remedy ? remedy : "", -1);
	g_ptr_array_add(d->findings, f);
}

char *ec_words_join(const GPtrArray *words)
{
	g_autoptr(GString) text = g_string_new(NULL);

	for (guint i = 0; i < words->len; i++) {
		const char *between = i == 0 ? "" : i + 1 == words->len ? " and " : ", ";

		g_string_append_printf(text, "%s%s", between, (char *)words->pdata[i]);
	}
	return g_string_free(g_steal_pointer(&text), FALSE);
}

/* This machine */

static void add_once(GPtrArray *words, char *word)
{
	if (g_ptr_array_find_with_equal_func(words, word, g_str_equal, NULL))
		g_free(word);
	else
		g_ptr_array_add(words, word);
}

static void diagnose_encapsulations(EcDiagnosis *d)
{
	g_autoptr(GPtrArray) made = g_ptr_array_new(), missing = g_ptr_array_new();
	g_autoptr(GPtrArray) modules = g_ptr_array_new_with_free_func(g_free);
	bool has_worker = false;

	for (const EcEncap *const *e = ec_encaps; *e; e++) {
		bool can = ec_manager_can_do(d->manager, *e);

		has_worker = has_worker || ((*e)->worker && can);
		if ((*e)->worker)
			continue;
		if (can) {
			g_ptr_array_add(made, (gpointer)(*e)->name);
			continue;
		}
		g_ptr_array_add(missing, (gpointer)(*e)->name);
		add_once(modules, g_strconcat("rtnl-link-", (*e)->kind4, NULL));
		/* What has a protocol of its own on the wire needs FOU besides. */
		if ((*e)->protocol != (*e)->lookup_protocol)
			add_once(modules, g_strdup("fou"));
	}
	g_autofree char *names = ec_words_join(made), *others = ec_words_join(missing);
	g_autofree char *words = ec_words_join(modules);
	g_autofree char *remedy = g_strdup_printf("see what modprobe says of %s", words);
	if (made->len > 0)
		ec_finding_add(d, EC_SEVERITY_OK, "encapsulations", NULL, "this kernel makes %s",
				names);
	if (missing->len > 0)
		ec_finding_add(d,
				made->len > 0 || has_worker ? EC_SEVERITY_INFO : EC_SEVERITY_ERROR,
				"encapsulations-missing", remedy, "this kernel does not make %s",
				others);
}

static void diagnose_worker(EcDiagnosis *d)
{
	g_autoptr(GPtrArray) carried = g_ptr_array_new();

	for (const EcEncap *const *e = ec_encaps; *e; e++) {
		if ((*e)->worker && ec_manager_can_do(d->manager, *e))
			g_ptr_array_add(carried, (gpointer)(*e)->name);
	}
	g_autofree char *names = ec_words_join(carried);
	if (carried->len > 0)
		ec_finding_add(d, EC_SEVERITY_OK, "user-plane", NULL, "ethercord-worker carries %s",
				names);
	else
		ec_finding_add(d, EC_SEVERITY_INFO, "user-plane-missing",
				"install ethercord-worker, and see what modprobe says of tun",
				"there is no user data plane: ethercord-worker or /dev/net/tun is "
				"missing");
}

static void on_touched(unsigned families, const char *who, void *userdata)
{
}

/* Whether nftables would answer if there were a fence to hold. */
static int try_nftables(EcManager *m, sd_bus_error *ret_why)
{
	EcNft *nft = NULL;
	int r = ec_nft_new(m->event, "ethercord", on_touched, NULL, &nft, ret_why);

	(void)ec_nft_free(nft);
	return r;
}

static void diagnose_guard(EcDiagnosis *d)
{
	static const char load[] = "modprobe nf_tables loads it; without it one layer of the fence "
				   "is missing";
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcGuard *guard = d->manager->guard;
	unsigned held = 0, all = 0;
	GHashTableIter i;
	EcTunnel *t;

	g_hash_table_iter_init(&i, d->manager->tunnels);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&t)) {
		all += ec_guard_spec(guard, ec_tunnel_name(t)) != NULL;
		held += (ec_guard_layers(guard, ec_tunnel_name(t)) & EC_GUARD_NFTABLES) != 0;
	}
	const char *why = ec_guard_why(guard, EC_GUARD_NFTABLES);
	if (*why)
		ec_finding_add(d, EC_SEVERITY_ERROR, "nftables", load,
				"nftables cannot hold the fence: %s", why);
	else if (held > 0)
		ec_finding_add(d, held < all ? EC_SEVERITY_WARNING : EC_SEVERITY_OK, "nftables",
				NULL, "nftables holds the fence of %u of %u tunnels that have one",
				held, all);
	else if (try_nftables(d->manager, &error) < 0)
		ec_finding_add(d, EC_SEVERITY_ERROR, "nftables", load,
				"nftables cannot be used: %s",
				error.message ? error.message : "it does not say why");
	else
		ec_finding_add(d, EC_SEVERITY_OK, "nftables", NULL,
				"nftables can be used, and holds nothing now");
	for (unsigned layer = EC_GUARD_ROUTE; layer <= EC_GUARD_XFRM; layer <<= 1) {
		const char *words[4];

		why = ec_guard_why(guard, layer);
		ec_guard_words(layer, words);
		if (*why)
			ec_finding_add(d, EC_SEVERITY_WARNING, "fence-layer", NULL,
					"the layer %s of the fence does not hold: %s", words[0],
					why);
	}
}

static int compare_underlays(gconstpointer a, gconstpointer b)
{
	const EcUnderlay *const *x = a, *const *y = b;

	return strcmp((*x)->name, (*y)->name);
}

static void diagnose_vpns(EcDiagnosis *d)
{
	g_autoptr(GPtrArray) found = g_ptr_array_new();
	GHashTableIter i;
	EcUnderlay *u;

	g_hash_table_iter_init(&i, ec_underlays_table(d->manager->underlays));
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&u)) {
		if (u->seen)
			g_ptr_array_add(found, u);
	}
	g_ptr_array_sort(found, compare_underlays);
	for (guint n = 0; n < found->len; n++) {
		u = found->pdata[n];
		if (!u->look.up)
			ec_finding_add(d, EC_SEVERITY_INFO, "vpn-down", NULL, "VPN: %s is down",
					u->look.title);
		else if (!u->look.protect)
			ec_finding_add(d, EC_SEVERITY_INFO, "vpn-clear", NULL,
					"VPN: %s is up, but does not encrypt", u->look.title);
		else if (u->look.mtu)
			ec_finding_add(d, EC_SEVERITY_OK, "vpn", NULL,
					"VPN: %s is up and carries packets of %u bytes",
					u->look.title, u->look.mtu);
		else
			ec_finding_add(d, EC_SEVERITY_OK, "vpn", NULL, "VPN: %s is up",
					u->look.title);
	}
	if (found->len == 0)
		ec_finding_add(d, EC_SEVERITY_WARNING, "no-vpn",
				"start the VPN; if it runs already, name its interface with "
				"underlay=device:IFNAME",
				"no VPN is recognised on this machine");
}

/* A tunnel */

static void diagnose_state(EcDiagnosis *d)
{
	static const EcSeverity severity[] = { EC_SEVERITY_INFO, EC_SEVERITY_WARNING,
		EC_SEVERITY_WARNING, EC_SEVERITY_OK, EC_SEVERITY_WARNING, EC_SEVERITY_ERROR };
	static_assert(EC_ELEMENTS(severity) == _EC_STATE_MAX, "a severity per state");
	const EcTunnel *t = d->tunnel;
	const char *name = ec_tunnel_name(t);
	g_autofree char *up = g_strdup_printf("ethercordctl up %s brings it up", name);

	ec_finding_add(d, severity[t->state], "state", t->state == EC_STATE_DOWN ? up : NULL,
			"tunnel %s is %s%s%s", name, ec_state_to_string(t->state),
			*t->sentence ? ": " : "", t->sentence);
}

static void diagnose_fence(EcDiagnosis *d)
{
	const EcTunnel *t = d->tunnel;
	const EcGuard *guard = d->manager->guard;
	const EcGuardSpec *spec = ec_guard_spec(guard, ec_tunnel_name(t));
	unsigned held = ec_guard_layers(guard, ec_tunnel_name(t));
	const char *words[4], *lacks[4];

	if (!spec && t->wanted && !g_str_equal(t->settings->underlay, "any"))
		ec_finding_add(d, EC_SEVERITY_INFO, "no-fence", NULL,
				"there is no fence yet: it comes before the first packet, when a "
				"VPN carries the way to the peer");
	if (!spec)
		return;
	unsigned parts = EC_GUARD_NFTABLES |
			 (spec->fence == EC_FENCE_IPSEC ? EC_GUARD_XFRM : EC_GUARD_ROUTE);
	ec_guard_words(held, words);
	if ((held & parts) == parts) {
		ec_finding_add(d, EC_SEVERITY_OK, "fence", NULL,
				"%s and %s hold the fence around %s", words[0], words[1],
				spec->vpn);
		return;
	}
	for (unsigned layer = EC_GUARD_NFTABLES; layer <= EC_GUARD_XFRM; layer <<= 1) {
		if (!(parts & ~held & layer))
			continue;
		const char *why = ec_guard_why(guard, layer);
		ec_guard_words(layer, lacks);
		ec_finding_add(d, held ? EC_SEVERITY_WARNING : EC_SEVERITY_ERROR,
				held ? "fence-one-layer" : "fence-lost",
				held ? "the tunnel stays inside the VPN, but a second mistake is "
				       "not caught; mend what the sentence says"
				     : "take the tunnel down until this is mended",
				"%s%s holds the fence around %s, %s does not: %s",
				held ? "only " : "nothing", held ? words[0] : "", spec->vpn,
				lacks[0], *why ? why : "it was not armed");
	}
}

static void diagnose_stopped(EcDiagnosis *d)
{
	const EcGuardSpec *spec = ec_guard_spec(d->manager->guard, ec_tunnel_name(d->tunnel));
	uint64_t out = 0, in = 0;

	if (!spec || !ec_guard_counters(d->manager->guard, ec_tunnel_name(d->tunnel), &out, &in))
		return;
	char remote[INET6_ADDRSTRLEN];
	g_autofree char *remedy = g_strdup_printf("ip route get %s shows where the route leads now",
			ec_address_to_string(&spec->remote, remote));
	if (out > 0)
		ec_finding_add(d, EC_SEVERITY_WARNING, "stopped-out", remedy,
				"the guard stopped %" PRIu64
				" packets that were about to leave outside %s",
				out, spec->vpn);
	if (in > 0)
		ec_finding_add(d, EC_SEVERITY_WARNING, "stopped-in",
				"look at the peer: its own packets may leave outside the VPN, or "
				"somebody forges them",
				"the guard stopped %" PRIu64
				" packets for this tunnel that did not come through %s",
				in, spec->vpn);
	if (out == 0 && in == 0)
		ec_finding_add(d, EC_SEVERITY_OK, "stopped-none", NULL,
				"the guard had to stop nothing so far");
}

/* What becomes of the largest packets of an Ethernet that the tunnel joins. */
static void diagnose_frames(EcDiagnosis *d)
{
	const EcTunnel *t = d->tunnel;
	const EcMtu *mtu = &t->mtu;
	const char *how = NULL;

	if (!t->encap || !mtu->mtu)
		return;
	if (t->settings->mode == EC_MODE_POINT_TO_POINT) {
		ec_finding_add(d, EC_SEVERITY_OK, "frames", NULL,
				"packets of up to %u bytes cross %s whole, and its MTU is %u",
				MIN(mtu->whole, mtu->mtu), t->ifname, mtu->mtu);
		return;
	}
	if (mtu->mtu < EC_MTU_ETHERNET) {
		ec_finding_add(d, EC_SEVERITY_WARNING, "frames",
				"leave mtu and full-frames at auto, use vxlan or an IPv4 address of "
				"the peer, or lower the MTU of every host on the bridge",
				"packets above %u bytes are lost without a word: the MTU of %s in "
				"the bridge is below the network's",
				mtu->mtu, t->ifname);
		return;
	}
	if (mtu->whole >= EC_MTU_ETHERNET)
		how = "cross whole";
	else if (t->encap->flags & EC_ENCAP_TOO_BIG)
		how = mtu->fragment ? "are answered with too-big, or cross in fragments where they "
				      "may be fragmented"
				    : "are answered with too-big";
	else if (mtu->fragment)
		how = "cross in fragments of the outer packets";
	if (how)
		ec_finding_add(d, EC_SEVERITY_OK, "frames", NULL,
				"%d-byte packets %s; up to %u bytes cross in one piece",
				EC_MTU_ETHERNET, how, mtu->whole);
	else
		ec_finding_add(d, EC_SEVERITY_WARNING, "frames", "set full-frames=auto",
				"packets above %u bytes are lost without a word", mtu->whole);
}

/* Docker and libvirt have bridged frames filtered by rules that were made for routed packets. */
static void diagnose_bridge(EcDiagnosis *d)
{
	static const char file[] = "/proc/sys/net/bridge/bridge-nf-call-iptables";
	const EcSettings *s = d->tunnel->settings;
	g_autofree char *text = NULL;

	if (s->mode == EC_MODE_POINT_TO_POINT || !s->bridge ||
			!g_file_get_contents(file, &text, NULL, NULL) || text[0] == '0')
		return;
	g_autofree char *remedy = g_strdup_printf(
			"if hosts do not reach each other: iptables -I FORWARD -i %s -o %s -j ACCEPT, "
			"or sysctl net.bridge.bridge-nf-call-iptables=0",
			s->bridge, s->bridge);
	ec_finding_add(d, EC_SEVERITY_WARNING, "bridge-filter", remedy,
			"this machine's firewall also filters what crosses the bridge %s "
			"(net.bridge.bridge-nf-call-iptables=1)",
			s->bridge);
}

/* All */

/* The addresses of a name that some tunnel looked up: nobody is asked here, for that takes time. */
static const EcTunnel *tunnel_to(const EcDiagnosis *d, const char *name)
{
	GHashTableIter i;
	EcTunnel *t;

	g_hash_table_iter_init(&i, d->manager->tunnels);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&t)) {
		if (t->n_remotes > 0 && g_strv_length(t->settings->remote) == 1 &&
				g_str_equal(t->settings->remote[0], name))
			return t;
	}
	return NULL;
}

/* The address that is meant, or none and a finding that says why. */
static bool find_remote(EcDiagnosis *d, EcAddress *ret)
{
	const EcTunnel *t = d->tunnel;

	if (!*d->remote && t && t->n_remotes > 0) {
		*ret = t->remote.family != AF_UNSPEC ? t->remote : t->remotes[0];
		return true;
	}
	const char *name = *d->remote ? d->remote
			   : t && t->settings->remote && t->settings->remote[0]
					   ? t->settings->remote[0]
					   : NULL;
	if (!name)
		return false;
	if (ec_address_from_string(name, ret) == 0)
		return true;
	t = tunnel_to(d, name);
	if (t) {
		*ret = t->remotes[0];
		return true;
	}
	g_autofree char *remedy = g_strdup_printf(
			"give an address; getent ahosts %s tells which it has", name);
	ec_finding_add(d, EC_SEVERITY_ERROR, "remote-unknown", remedy,
			"no tunnel knows an address of %s", name);
	return false;
}

/* The settings that the way is looked at with. */
static EcSettings *settings_of(const EcDiagnosis *d)
{
	EcSettings *s = d->tunnel ? ec_settings_copy(d->tunnel->settings) : ec_settings_new();

	if (ec_settings_is_given(d->settings, ec_setting_find("underlay"))) {
		g_free(s->underlay);
		s->underlay = g_strdup(d->settings->underlay);
	}
	if (ec_settings_is_given(d->settings, ec_setting_find("encapsulation"))) {
		g_strfreev(s->encapsulation);
		s->encapsulation = g_strdupv(d->settings->encapsulation);
	}
	return s;
}

void ec_diagnose(EcDiagnosis *d)
{
	g_autoptr(EcSettings) settings = settings_of(d);
	EcAddress remote = { 0 };

	d->findings = g_ptr_array_new_with_free_func(finding_free);
	ec_underlays_refresh(d->manager->underlays);
	if (!*d->remote && !d->tunnel) {
		diagnose_encapsulations(d);
		diagnose_worker(d);
		diagnose_guard(d);
		diagnose_vpns(d);
		return;
	}
	if (d->tunnel)
		diagnose_state(d);
	if (find_remote(d, &remote))
		ec_diagnose_path(d, settings, &remote);
	if (!d->tunnel)
		return;
	diagnose_fence(d);
	diagnose_stopped(d);
	diagnose_frames(d);
	diagnose_bridge(d);
}
