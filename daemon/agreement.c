/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agreement.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "liveness.h"
#include "mtu.h"

/*
 * DOC: Theory of operation
 *
 * Which encapsulation: what both ends can do on the path, in the dialer's order, or where that is
 * "auto" in the acceptor's. A cord that is there already is kept before anything better: changing
 * would cost the traffic on it. What the path refused in this round of trying is out; behind a NAT
 * what has no UDP ports comes last, since most NATs pass GRE for one peer only.
 *
 * Of one format the data plane that is first is taken, each end for itself: the wire is the same.
 * Only pieces need workers at both ends. So a CHOOSE with pieces has the acceptor take its worker
 * where its kernel would have come first.
 *
 * Ids come from the acceptor, which sees all of its peers; the dialer takes the first that it has
 * free, too. So ids are unique at both ends and any number of tunnels fits between two addresses.
 */

static uint32_t smaller(uint32_t a, uint32_t b)
{
	return a && b ? MIN(a, b) : MAX(a, b); /* 0 says nothing */
}

static bool is_refused(const EcAgreementSide *own, const EcEncap *encap)
{
	for (const EcEncap *const *e = own->refused; e && *e; e++) {
		if (*e == encap)
			return true;
	}
	return false;
}

static bool is_user(const EcControlEncap *e)
{
	return e && g_str_equal(e->plane, "user");
}

/* The peer's first of that name: what it takes, but for pieces. */
static const EcControlEncap *offered(const EcControlMessage *welcome, const EcEncap *encap)
{
	for (size_t i = 0; i < welcome->n_encaps; i++) {
		if (g_str_equal(welcome->encaps[i].name, encap->name))
			return &welcome->encaps[i];
	}
	return NULL;
}

static const EcControlEncap *offered_worker(const EcControlMessage *welcome, const EcEncap *encap)
{
	for (size_t i = 0; i < welcome->n_encaps; i++) {
		if (is_user(&welcome->encaps[i]) &&
				g_str_equal(welcome->encaps[i].name, encap->name))
			return &welcome->encaps[i];
	}
	return NULL;
}

/* Ours of that name: the first, in the data plane that is preferred; NULL. */
static const EcEncap *first_of(const EcEncap *const *candidates, const char *name)
{
	for (; *candidates; candidates++) {
		if (g_str_equal((*candidates)->name, name))
			return *candidates;
	}
	return NULL;
}

static const EcEncap *worker_of(const EcEncap *const *candidates, const char *name)
{
	for (; *candidates; candidates++) {
		if ((*candidates)->worker && g_str_equal((*candidates)->name, name))
			return *candidates;
	}
	return NULL;
}

/* The same, but for a cord that is there in the other plane. */
static const EcEncap *candidate(const EcAgreementSide *own, const char *name)
{
	const EcEncap *here = own->before.encap;
	bool stays = !own->before.split || own->settings->split != EC_SPLIT_NO;

	if (here && stays && here->worker && g_str_equal(here->name, name) &&
			worker_of(own->candidates, name) == here)
		return here;
	return first_of(own->candidates, name);
}

const EcEncap *ec_agreement_splitter(
		const EcAgreementSide *own, const EcControlMessage *welcome, const EcEncap *encap)
{
	if (own->settings->split == EC_SPLIT_NO || !offered_worker(welcome, encap))
		return NULL;
	return worker_of(own->candidates, encap->name);
}

uint16_t ec_agreement_first_port(const EcEncap *const *candidates, const EcEncap *encap)
{
	const EcEncap *first = first_of(candidates, encap->name);
	bool beside = encap->worker && first && !first->worker;

	return (uint16_t)(encap->data_port + beside);
}

static bool is_among(const EcEncap *const *list, size_t n, const char *name)
{
	while (n > 0 && !g_str_equal(list[n - 1]->name, name))
		n--;
	return n > 0;
}

static bool is_auto(const EcSettings *s)
{
	return !s->encapsulation || g_str_equal(s->encapsulation[0], "auto");
}

/* What both ends can do, best first; at most EC_ENCAPS_MAX and NULL. */
static void in_common(const EcAgreementSide *own, const EcControlMessage *welcome,
		const EcEncap *ret[static EC_ENCAPS_MAX + 1])
{
	const EcEncap *const *list = own->only ? own->only : own->candidates;
	bool theirs = is_auto(own->settings) && !welcome->any_order && !own->only;
	size_t n = 0;

	for (size_t i = 0; theirs && i < welcome->n_encaps && n < EC_ENCAPS_MAX; i++) {
		const EcEncap *e = candidate(own, welcome->encaps[i].name);

		if (e && !is_among(ret, n, e->name))
			ret[n++] = e;
	}
	for (; !theirs && *list && n < EC_ENCAPS_MAX; list++) {
		const EcEncap *e = own->only ? *list : candidate(own, (*list)->name);

		if (offered(welcome, e) && !is_among(ret, n, e->name))
			ret[n++] = e;
	}
	ret[n] = NULL;
}

/* The cord that is there is kept; else the first that the path has not refused, with UDP first
 * where a NAT is in between. */
static const EcEncap *pick(const EcAgreementSide *own, const EcControlMessage *welcome,
		const EcEncap *const *common, bool nat)
{
	const EcEncap *here = own->before.encap, *last = NULL;
	const EcEncap *there =
			welcome->encapsulation[0] ? candidate(own, welcome->encapsulation) : NULL;

	for (const EcEncap *const *e = common; *e; e++) {
		if (!is_refused(own, *e) && (here ? *e == here : *e == there))
			return *e;
	}
	for (const EcEncap *const *e = common; *e; e++) {
		if (is_refused(own, *e))
			continue;
		if (!nat || ((*e)->flags & EC_ENCAP_UDP))
			return *e;
		if (!last)
			last = *e;
	}
	return last;
}

static bool is_usable(const EcAgreementSide *own, const EcEncap *encap, uint32_t id, uint16_t port)
{
	return id > 0 && id <= encap->id_max && own->is_free(encap, id, port, own->userdata);
}

static int choose_id(const EcAgreementSide *own, const EcControlMessage *welcome, EcAgreement *a,
		sd_bus_error *ret_error)
{
	if (a->encap->id_max == 0)
		return 0;
	const uint32_t wanted[] = { own->settings->id,
		own->before.encap == a->encap ? own->before.id : 0,
		g_str_equal(welcome->encapsulation, a->encap->name) ? welcome->id : 0 };

	for (size_t i = 0; i < EC_ELEMENTS(wanted); i++) {
		if (is_usable(own, a->encap, wanted[i], a->data_port)) {
			a->id = wanted[i];
			return 0;
		}
	}
	for (size_t i = 0; i < welcome->n_ids; i++) {
		if (is_usable(own, a->encap, welcome->ids[i], a->data_port)) {
			a->id = welcome->ids[i];
			return 0;
		}
	}
	return ec_error(ret_error, EC_ERROR_EXISTS,
			"none of the ids that the peer has free is free here as well");
}

static void choose_ports(const EcAgreementSide *own, const EcControlEncap *there, EcAgreement *a)
{
	uint16_t port = own->settings->data_port;

	if (!(a->encap->flags & EC_ENCAP_UDP))
		return;
	if (!port && (a->encap->flags & EC_ENCAP_SHARES_PORT))
		port = there->data_port;
	a->data_port = port ? port : a->encap->data_port;
	a->remote_data_port = there->data_port ? there->data_port : a->encap->data_port;
	if (own->settings->data_port)
		return;
	if (!port)
		a->data_port = ec_agreement_first_port(own->candidates, a->encap);
	if (a->encap->worker && own->before.encap == a->encap)
		a->data_port = own->before.data_port;
	else
		a->data_port = own->free_port(a->encap, a->data_port, own->userdata);
}

/* Whether the workers would not be taken but for pieces: the kernel comes first at either end. */
static bool is_last_resort(
		const EcAgreementSide *own, const EcControlMessage *welcome, const EcEncap *encap)
{
	return first_of(own->candidates, encap->name) != encap || !is_user(offered(welcome, encap));
}

/* Pieces are for workers at both ends. What the path was found to drop holds for the cord that it
 * was found for, as long as it is the same path; but where workers stand in for the kernel, the
 * cord is not changed back. The peer's end of this, for its port. */
static const EcControlEncap *choose_split(
		const EcAgreementSide *own, const EcControlMessage *welcome, EcAgreement *a)
{
	const EcEncap *worker = ec_agreement_splitter(own, welcome, a->encap);
	const EcControlEncap *there = offered(welcome, a->encap);
	bool keeps = own->before.split && own->before.encap == a->encap &&
		     (a->path_mtu == own->before.path_mtu ||
				     (worker && is_last_resort(own, welcome, a->encap)));

	a->split = worker == a->encap &&
		   (own->split || own->settings->split == EC_SPLIT_YES || keeps);
	if (a->split)
		there = offered_worker(welcome, a->encap);
	a->joins = a->encap->worker && is_user(there);
	return there;
}

/* One port for both directions is all that the plain form of such a kind has. */
static void settle_nat(EcAgreement *a)
{
	if ((a->encap->flags & EC_ENCAP_SHARES_PORT) && a->data_port != a->remote_data_port)
		a->nat = true;
}

static int merged_full_frames(int own, const char *theirs)
{
	if (own == EC_FULL_FRAMES_NO || g_str_equal(theirs, "no"))
		return EC_FULL_FRAMES_NO;
	return g_str_equal(theirs, "yes") ? EC_FULL_FRAMES_YES : own;
}

static void choose_mtu(const EcAgreementSide *own, const EcControlMessage *welcome, EcAgreement *a)
{
	g_autoptr(EcSettings) s = ec_settings_copy(own->settings);
	EcWire wire = { .local = own->local, .remote = own->remote, .id = a->id };
	EcMtu mtu;

	s->mtu = smaller(own->settings->mtu, welcome->mtu);
	s->full_frames = merged_full_frames(own->settings->full_frames, welcome->full_frames);
	ec_mtu_choose(s, a->encap, &wire, a->path_mtu,
			smaller(own->bridge_mtu, welcome->bridge_mtu), &mtu);
	a->mtu = MIN(mtu.mtu, 65535);
	a->size = a->mtu;
}

/* Cloned machines have the same derived address; two ports with one would not hear each other. */
static void choose_mac(const EcAgreementSide *own, const uint8_t theirs[static 6], EcAgreement *a)
{
	memcpy(a->mac, own->mac, 6);
	if (memcmp(a->mac, theirs, 6) == 0 && !own->settings->mac)
		a->mac[5] ^= 1;
}

/* Only what bridges keep to themselves (IEEE 802.1Q, table 8-1): a peer cannot have us send where
 * it likes. */
static uint8_t group_of(const EcControlMessage *m)
{
	return m->probe_group >= 2 && m->probe_group <= 15 ? (uint8_t)m->probe_group
							   : EC_PROBE_GROUP;
}

static char *words_of(const EcEncap *const *list)
{
	g_autoptr(GString) s = g_string_new(NULL);

	for (; *list; list++)
		g_string_append_printf(s, "%s%s", s->len ? ", " : "", (*list)->name);
	return g_string_free(g_steal_pointer(&s), FALSE);
}

/* With what a firewall would have to let pass. */
static char *words_with_ports(const EcControlMessage *welcome, const EcEncap *const *list)
{
	g_autoptr(GString) s = g_string_new(NULL);

	for (; *list; list++) {
		const EcControlEncap *e = offered(welcome, *list);

		g_string_append_printf(s, "%s%s ", s->len ? ", " : "", (*list)->name);
		if ((*list)->flags & EC_ENCAP_UDP)
			g_string_append_printf(s, "(UDP port %d)", e ? e->data_port : 0);
		else
			g_string_append_printf(s, "(IP protocol %d)", (*list)->protocol);
	}
	return g_string_free(g_steal_pointer(&s), FALSE);
}

static int nothing_left(const EcAgreementSide *own, const EcControlMessage *welcome,
		const EcEncap *const *common, sd_bus_error *ret_error)
{
	g_autofree char *here =
			common[0] ? words_with_ports(welcome, common) : words_of(own->candidates);
	g_autoptr(GString) there = g_string_new(NULL);

	if (common[0])
		return ec_error(ret_error, EC_ERROR_PEER_UNREACHABLE,
				"TCP reaches the peer, but no frame crosses with %s: something "
				"between the ends drops it",
				here);
	for (size_t i = 0; i < welcome->n_encaps; i++)
		g_string_append_printf(
				there, "%s%s", there->len ? ", " : "", welcome->encaps[i].name);
	return ec_error(ret_error, EC_ERROR_NOT_SUPPORTED,
			"the two ends have no encapsulation in common: here %s, there %s",
			*here ? here : "none", there->len ? there->str : "none");
}

int ec_agreement_choose(const EcAgreementSide *own, const EcControlMessage *welcome,
		EcAgreement *ret, sd_bus_error *ret_error)
{
	const EcEncap *common[EC_ENCAPS_MAX + 1];
	EcAgreement a = { .nat = welcome->seen.family != AF_UNSPEC &&
				 !ec_address_equal(&welcome->seen, &own->local) };

	a.nat = a.nat || (welcome->local.family != AF_UNSPEC &&
					 !ec_address_equal(&welcome->local, &own->remote));
	a.group = group_of(welcome);
	in_common(own, welcome, common);
	a.encap = pick(own, welcome, common, a.nat);
	if (!a.encap)
		return nothing_left(own, welcome, common, ret_error);
	a.path_mtu = smaller(own->path_mtu, welcome->path_mtu);
	choose_ports(own, choose_split(own, welcome, &a), &a);
	int r = choose_id(own, welcome, &a, ret_error);
	if (r < 0)
		return r;
	if (a.split && !own->split && own->settings->split != EC_SPLIT_YES &&
			!ec_agreement_same_cord(&a, &own->before) &&
			!is_last_resort(own, welcome, a.encap))
		a.split = false;
	settle_nat(&a);
	if (a.nat && a.data_port == UINT16_MAX)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"data-port '%u': with a NAT between the ends allowed is 1 to %d",
				a.data_port, UINT16_MAX - 1);
	choose_mtu(own, welcome, &a);
	/* What the path was found to carry holds as long as it is the same path. */
	if (own->before.lesser && ec_agreement_same_cord(&a, &own->before) &&
			a.path_mtu == own->before.path_mtu && !a.split) {
		a.mtu = MIN(a.mtu, own->before.mtu);
		a.size = MIN(a.size, own->before.size);
		a.lesser = true;
	}
	choose_mac(own, welcome->mac, &a);
	*ret = a;
	return 0;
}

/* Acceptor */

/* What ec_manager_free_port() may come to: a peer cannot have just any port opened. */
#define PORTS_OFFERED 4096

/* The port that was offered, by which the dialer found it. */
static uint16_t own_port(
		const EcAgreementSide *own, const EcControlMessage *choose, const EcEncap *encap)
{
	if (own->settings->data_port)
		return own->settings->data_port;
	return encap->worker && choose->remote_data_port ? choose->remote_data_port
							 : encap->data_port;
}

static int check_numbers(const EcAgreementSide *own, const EcControlMessage *choose,
		const EcEncap *encap, sd_bus_error *ret_error)
{
	uint16_t port = own_port(own, choose, encap);
	bool kept = own->before.encap == encap && own->before.data_port == port;

	if (choose->mtu < EC_MTU_KERNEL_MIN || choose->mtu > 65535)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"mtu '%u': allowed is %d to 65535", choose->mtu, EC_MTU_KERNEL_MIN);
	if (choose->size > choose->mtu)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"size '%u': allowed is up to the mtu, %u", choose->size,
				choose->mtu);
	if ((encap->flags & EC_ENCAP_UDP) && choose->data_port == 0)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING, "data-port '0': %s needs one",
				encap->name);
	if ((encap->flags & EC_ENCAP_ETHERNET) && (choose->mac[0] & 1))
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"mac: allowed is a unicast address");
	if (encap->id_max && (choose->id == 0 || choose->id > encap->id_max))
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"id '%u': allowed with %s is 1 to %u", choose->id, encap->name,
				encap->id_max);
	bool offered = port >= encap->data_port && port < encap->data_port + PORTS_OFFERED;

	if ((encap->flags & EC_ENCAP_UDP) && !kept && port != own->settings->data_port &&
			(!offered || own->free_port(encap, port, own->userdata) != port))
		return ec_error(ret_error, EC_ERROR_EXISTS, "data-port '%u' is taken here", port);
	if (encap->id_max && !own->is_free(encap, choose->id, port, own->userdata))
		return ec_error(ret_error, EC_ERROR_EXISTS, "id '%u' is taken here", choose->id);
	return 0;
}

/* Pieces take a worker here as well; else the dialer counts on our first of that name. */
static const EcEncap *answering(const EcAgreementSide *own, const EcControlMessage *choose)
{
	const EcEncap *worker = worker_of(own->candidates, choose->encapsulation);
	bool pieces = choose->split && g_str_equal(choose->plane, "user") &&
		      own->settings->split != EC_SPLIT_NO;

	return pieces && worker ? worker : first_of(own->candidates, choose->encapsulation);
}

int ec_agreement_accept(const EcAgreementSide *own, const EcControlMessage *choose,
		EcAgreement *ret, sd_bus_error *ret_error)
{
	const EcEncap *encap = answering(own, choose);
	static const uint8_t none[6];

	if (!encap)
		return ec_error(ret_error, EC_ERROR_NOT_SUPPORTED,
				"encapsulation '%s' was not offered", choose->encapsulation);
	int r = check_numbers(own, choose, encap, ret_error);
	if (r < 0)
		return r;
	EcAgreement a = {
		.encap = encap,
		.id = encap->id_max ? choose->id : 0,
		.mtu = choose->mtu,
		.size = choose->size ? choose->size : choose->mtu,
		.path_mtu = smaller(own->path_mtu, choose->path_mtu),
		.group = group_of(choose),
		.nat = choose->local.family != AF_UNSPEC &&
		       !ec_address_equal(&choose->local, &own->remote),
	};
	if (encap->flags & EC_ENCAP_UDP) {
		a.data_port = own_port(own, choose, encap);
		a.remote_data_port = choose->data_port;
	}
	a.joins = encap->worker && g_str_equal(choose->plane, "user");
	a.split = a.joins && choose->split && own->settings->split != EC_SPLIT_NO;
	/* What was learned of the NAT stays until it is learned anew. */
	if (a.nat && ec_agreement_same_cord(&a, &own->before) && own->before.nat) {
		a.remote_data_port = own->before.remote_data_port;
		a.data_remote = own->before.data_remote;
	}
	settle_nat(&a);
	if (memcmp(choose->mac, none, 6) != 0 && own->settings->mac &&
			memcmp(choose->mac, own->mac, 6) == 0)
		return ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"mac: both ends are set to the same address");
	choose_mac(own, choose->mac, &a);
	*ret = a;
	return 0;
}

bool ec_agreement_same_cord(const EcAgreement *a, const EcAgreement *b)
{
	return a->encap == b->encap && a->id == b->id && a->data_port == b->data_port;
}

EcSettings *ec_agreement_terms(const EcAgreement *a, const EcSettings *settings)
{
	EcSettings *s = ec_settings_copy(settings);
	bool shared = a->encap->flags & EC_ENCAP_SHARES_PORT;
	static const uint8_t none[6];
	char text[INET6_ADDRSTRLEN];

	if (!s->local && a->local.family != AF_UNSPEC)
		s->local = g_strdup(ec_address_to_string(&a->local, text));
	g_strfreev(s->encapsulation);
	s->encapsulation = g_strdupv((char *[]){ (char *)a->encap->name, NULL });
	s->data_plane = a->encap->worker ? EC_DATA_PLANE_USER : EC_DATA_PLANE_KERNEL;
	s->id = a->id;
	s->data_port = a->data_port;
	s->remote_data_port = shared ? a->data_port : a->remote_data_port;
	s->mtu = a->mtu;
	if (memcmp(a->mac, none, 6) != 0 && (a->encap->flags & EC_ENCAP_ETHERNET)) {
		g_free(s->mac);
		s->mac = g_strdup(ec_mac_to_string(a->mac, (char[18]){ 0 }));
	}
	return s;
}

/* File */

#define GROUP "cord"

void ec_cord_done(EcCord *c)
{
	g_free(c->listener);
	g_free(c->peer);
	g_free(c->interface);
	*c = (EcCord){ 0 };
}

static char *path_of(const char *runtime_dir, const char *name)
{
	return g_build_filename(runtime_dir, "cords", name, NULL);
}

static void put_address(GKeyFile *f, const char *key, const EcAddress *a)
{
	char text[INET6_ADDRSTRLEN];

	if (a->family != AF_UNSPEC)
		g_key_file_set_value(f, GROUP, key, ec_address_to_string(a, text));
}

static void put_text(GKeyFile *f, const char *key, const char *text)
{
	if (text)
		g_key_file_set_value(f, GROUP, key, text);
}

void ec_cord_save(const char *runtime_dir, const char *name, const EcCord *c)
{
	g_autofree char *directory = g_build_filename(runtime_dir, "cords", NULL);
	g_autofree char *path = path_of(runtime_dir, name);
	g_autofree char *fresh = g_strdup_printf("%s/.%s", directory, name);
	g_autoptr(GKeyFile) f = g_key_file_new();
	const EcAgreement *a = &c->agreement;
	const struct {
		const char *key;
		uint64_t value;
	} number[] = { { "id", a->id }, { "data-port", a->data_port },
		{ "remote-data-port", a->remote_data_port }, { "mtu", a->mtu }, { "size", a->size },
		{ "path-mtu", a->path_mtu }, { "nat", a->nat }, { "lesser", a->lesser },
		{ "split", a->split }, { "joins", a->joins }, { "proven", c->proven },
		{ "instance", c->instance } };
	char mac[18];

	put_text(f, "encapsulation", a->encap->name);
	put_text(f, "data-plane", ec_encap_plane(a->encap));
	put_text(f, "listener", c->listener);
	put_text(f, "peer", c->peer);
	put_text(f, "interface", c->interface);
	put_text(f, "mode", ec_settings_word("mode", c->mode));
	put_text(f, "mac", ec_mac_to_string(a->mac, mac));
	put_address(f, "remote", &c->remote);
	put_address(f, "local", &a->local);
	put_address(f, "data-remote", &a->data_remote);
	for (size_t i = 0; i < EC_ELEMENTS(number); i++)
		g_key_file_set_uint64(f, GROUP, number[i].key, number[i].value);
	(void)g_mkdir(directory, 0755);
	/* Gone with the next boot: only that it is whole matters, not that it is on a disk. */
	g_autofree char *text = g_key_file_to_data(f, NULL, NULL);
	if (g_file_set_contents_full(fresh, text, -1, G_FILE_SET_CONTENTS_NONE, 0600, NULL))
		(void)g_rename(fresh, path);
}

static void get_address(GKeyFile *f, const char *key, EcAddress *ret)
{
	g_autofree char *text = g_key_file_get_value(f, GROUP, key, NULL);

	if (text)
		(void)ec_address_from_string(text, ret);
}

bool ec_cord_load(const char *runtime_dir, const char *name, EcCord *ret)
{
	g_autofree char *path = path_of(runtime_dir, name);
	g_autoptr(GKeyFile) f = g_key_file_new();

	if (!g_key_file_load_from_file(f, path, G_KEY_FILE_NONE, NULL))
		return false;
	g_autofree char *encap = g_key_file_get_value(f, GROUP, "encapsulation", NULL);
	g_autofree char *mode = g_key_file_get_value(f, GROUP, "mode", NULL);
	g_autofree char *mac = g_key_file_get_value(f, GROUP, "mac", NULL);
	g_autofree char *plane = g_key_file_get_value(f, GROUP, "data-plane", NULL);
	EcCord c = { .agreement.encap = encap ? ec_encap_find_in(encap, plane ? plane : "kernel")
					      : NULL };
	EcAgreement *a = &c.agreement;

	if (!a->encap)
		return false;
	a->id = (uint32_t)g_key_file_get_uint64(f, GROUP, "id", NULL);
	a->data_port = (uint16_t)g_key_file_get_uint64(f, GROUP, "data-port", NULL);
	a->remote_data_port = (uint16_t)g_key_file_get_uint64(f, GROUP, "remote-data-port", NULL);
	a->mtu = (uint32_t)g_key_file_get_uint64(f, GROUP, "mtu", NULL);
	a->size = (uint32_t)g_key_file_get_uint64(f, GROUP, "size", NULL);
	a->path_mtu = (uint32_t)g_key_file_get_uint64(f, GROUP, "path-mtu", NULL);
	a->nat = g_key_file_get_uint64(f, GROUP, "nat", NULL);
	a->lesser = g_key_file_get_uint64(f, GROUP, "lesser", NULL);
	a->split = g_key_file_get_uint64(f, GROUP, "split", NULL);
	a->joins = g_key_file_get_uint64(f, GROUP, "joins", NULL);
	c.proven = g_key_file_get_uint64(f, GROUP, "proven", NULL);
	c.instance = g_key_file_get_uint64(f, GROUP, "instance", NULL);
	if (mac)
		(void)ec_mac_from_string(mac, a->mac);
	get_address(f, "remote", &c.remote);
	get_address(f, "local", &a->local);
	get_address(f, "data-remote", &a->data_remote);
	while (mode && c.mode < _EC_MODE_MAX - 1 &&
			!g_str_equal(mode, ec_settings_word("mode", c.mode)))
		c.mode++;
	c.listener = g_key_file_get_value(f, GROUP, "listener", NULL);
	c.peer = g_key_file_get_value(f, GROUP, "peer", NULL);
	c.interface = g_key_file_get_value(f, GROUP, "interface", NULL);
	*ret = c;
	return true;
}

void ec_cord_forget(const char *runtime_dir, const char *name)
{
	g_autofree char *path = path_of(runtime_dir, name);

	(void)unlink(path);
}

char **ec_cord_names(const char *runtime_dir)
{
	g_autofree char *directory = g_build_filename(runtime_dir, "cords", NULL);
	g_autoptr(GStrvBuilder) b = g_strv_builder_new();
	g_autoptr(GDir) dir = g_dir_open(directory, 0, NULL);
	const char *entry;

	while (dir && (entry = g_dir_read_name(dir))) {
		if (ec_name_is_valid(entry))
			g_strv_builder_add(b, entry);
	}
	return g_strv_builder_end(b);
}
