/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <string.h>

#include "agreement.h"
#include "unit.h"

/* The decision of both ends, with the product's encapsulations. */

static uint32_t taken;       /* the id that is not free here */
static uint16_t taken_ports; /* so many ports from a worker's first on are not */

static bool is_free(const EcEncap *encap, uint32_t id, uint16_t port, void *userdata)
{
	return id != taken;
}

/* As the manager does it: only workers need a port each. */
static uint16_t free_port(const EcEncap *encap, uint16_t wanted, void *userdata)
{
	uint16_t first = encap->data_port, end = (uint16_t)(first + taken_ports);

	return encap->worker && wanted >= first && wanted < end ? end : wanted;
}

static const EcEncap *const all[] = { &ec_encap_gretap, &ec_encap_vxlan, &ec_encap_gretap_fou,
	NULL };
static const EcEncap *const only_vxlan[] = { &ec_encap_vxlan, NULL };
static const EcEncap *const both_vxlan[] = { &ec_encap_vxlan, &ec_encap_vxlan_user, NULL };
static const EcEncap *const user_vxlan[] = { &ec_encap_vxlan_user, NULL };
static const EcEncap *const user_raw[] = { &ec_encap_raw_udp, NULL };
static const EcEncap *const user_fou[] = { &ec_encap_gretap_fou_user, NULL };
static const EcEncap *const none[] = { NULL };

typedef struct Pair {
	EcSettings *settings;
	EcAgreementSide own;
	EcControlMessage welcome;
} Pair;

static void pair_done(Pair *p)
{
	(void)ec_settings_free(p->settings);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Pair, pair_done)

static void offer(EcControlMessage *w, const char *name, uint16_t port)
{
	EcControlEncap *e = &w->encaps[w->n_encaps++];

	g_strlcpy(e->name, name, sizeof(e->name));
	g_strlcpy(e->plane, "kernel", sizeof(e->plane));
	e->data_port = port;
}

/* What the peer's worker does. */
static void offer_user(EcControlMessage *w, const char *name, uint16_t port)
{
	offer(w, name, port);
	g_strlcpy(w->encaps[w->n_encaps - 1].plane, "user", sizeof(w->encaps[0].plane));
}

static void make_pair(Pair *p)
{
	static const uint8_t mac[] = { 2, 0, 0, 0, 0, 1 };

	taken = 0;
	taken_ports = 0;
	*p = (Pair){ .settings = ec_settings_new() };
	p->own = (EcAgreementSide){
		.settings = p->settings,
		.candidates = all,
		.local = unit_address("10.0.0.2"),
		.remote = unit_address("10.0.0.1"),
		.path_mtu = 1500,
		.is_free = is_free,
		.free_port = free_port,
	};
	memcpy(p->own.mac, mac, 6);
	p->welcome = (EcControlMessage){
		.type = EC_CONTROL_WELCOME,
		.seen = p->own.local,
		.local = p->own.remote,
		.any_order = true,
		.ids = { 111111, 222222 },
		.n_ids = 2,
		.full_frames = "auto",
	};
	offer(&p->welcome, "vxlan", 4789);
	offer(&p->welcome, "gretap", 0);
	offer(&p->welcome, "gretap-fou", 65201);
}

static EcAgreement chosen(const Pair *p)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcAgreement a = { 0 };

	g_assert_cmpint(ec_agreement_choose(&p->own, &p->welcome, &a, &error), ==, 0);
	g_assert_null(error.message);
	return a;
}

static void refused(const Pair *p, const char *token, const char *word)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcAgreement a;

	g_assert_cmpint(ec_agreement_choose(&p->own, &p->welcome, &a, &error), <, 0);
	g_assert_cmpstr(ec_error_token(&error), ==, token);
	g_assert_nonnull(strstr(error.message, word));
}

static void test_order(void)
{
	g_auto(Pair) p = { 0 };

	make_pair(&p);
	g_assert_cmpstr(chosen(&p).encap->name, ==, "gretap"); /* the dialer's order */
	p.welcome.any_order = false;
	g_assert_cmpstr(chosen(&p).encap->name, ==, "vxlan"); /* the acceptor's */
	g_assert_cmpint(ec_settings_parse(p.settings, "encapsulation", "gretap-fou,vxlan", NULL),
			==, 0);
	g_assert_cmpstr(chosen(&p).encap->name, ==, "gretap"); /* candidates are in its order */
}

static void test_refused_by_path(void)
{
	static const EcEncap *const one[] = { &ec_encap_gretap, NULL };
	g_auto(Pair) p = { 0 };

	make_pair(&p);
	p.own.refused = one;
	g_assert_cmpstr(chosen(&p).encap->name, ==, "vxlan");
	p.own.refused = all;
	refused(&p, "PeerUnreachable",
			"gretap (IP protocol 47), vxlan (UDP port 4789), gretap-fou (UDP");
}

static void test_nothing_in_common(void)
{
	g_auto(Pair) p = { 0 };

	make_pair(&p);
	p.welcome.n_encaps = 1;
	g_strlcpy(p.welcome.encaps[0].name, "raw-udp", sizeof(p.welcome.encaps[0].name));
	refused(&p, "NotSupported", "there raw-udp");
	p.own.candidates = none;
	refused(&p, "NotSupported", "here none");
}

static void test_nat(void)
{
	g_auto(Pair) p = { 0 };

	make_pair(&p);
	g_assert_false(chosen(&p).nat);
	p.welcome.seen = unit_address("192.0.2.9");
	g_assert_true(chosen(&p).nat);
	g_assert_cmpstr(chosen(&p).encap->name, ==, "vxlan"); /* UDP first */
	p.welcome.seen = p.own.local;
	p.welcome.local = unit_address("172.16.0.1");
	g_assert_true(chosen(&p).nat);
}

static void test_ports(void)
{
	g_auto(Pair) p = { 0 };

	make_pair(&p);
	p.own.candidates = only_vxlan;
	p.welcome.encaps[0].data_port = 8472;
	g_assert_cmpuint(chosen(&p).data_port, ==, 8472); /* no wish of its own */
	g_assert_false(chosen(&p).nat);
	p.settings->data_port = 5000;
	g_assert_cmpuint(chosen(&p).data_port, ==, 5000);
	g_assert_cmpuint(chosen(&p).remote_data_port, ==, 8472);
	g_assert_true(chosen(&p).nat); /* the plain form has one port for both */
}

static void test_ids(void)
{
	g_auto(Pair) p = { 0 };

	make_pair(&p);
	g_assert_cmpuint(chosen(&p).id, ==, 111111);
	taken = 111111;
	g_assert_cmpuint(chosen(&p).id, ==, 222222);
	p.welcome.n_ids = 1;
	refused(&p, "Exists", "none of the ids");
	p.settings->id = 77;
	g_assert_cmpuint(chosen(&p).id, ==, 77);
}

static void test_kept(void)
{
	g_auto(Pair) p = { 0 };

	make_pair(&p);
	g_strlcpy(p.welcome.encapsulation, "vxlan", sizeof(p.welcome.encapsulation));
	p.welcome.id = 333;
	g_assert_cmpstr(chosen(&p).encap->name, ==, "vxlan"); /* the acceptor has it still */
	g_assert_cmpuint(chosen(&p).id, ==, 333);
	p.own.before = (EcAgreement){ .encap = &ec_encap_gretap, .id = 444 };
	g_assert_cmpstr(chosen(&p).encap->name, ==, "gretap"); /* this end has another */
	g_assert_cmpuint(chosen(&p).id, ==, 444);
}

static void test_mtu(void)
{
	g_auto(Pair) p = { 0 };

	make_pair(&p);
	p.own.candidates = only_vxlan;
	g_assert_cmpuint(chosen(&p).mtu, ==, 1450);
	p.welcome.path_mtu = 1400;
	g_assert_cmpuint(chosen(&p).mtu, ==, 1350);
	g_assert_cmpuint(chosen(&p).path_mtu, ==, 1400);
	p.welcome.mtu = 1300;
	g_assert_cmpuint(chosen(&p).mtu, ==, 1300);
	p.settings->mtu = 1280;
	g_assert_cmpuint(chosen(&p).mtu, ==, 1280);
	p.settings->mtu = p.welcome.mtu = 0;
	p.settings->mode = EC_MODE_JOIN_REMOTE;
	g_assert_cmpuint(chosen(&p).mtu, ==, 1500); /* full frames, in fragments */
	g_assert_cmpuint(chosen(&p).size, ==, 1500);
}

static void test_mac(void)
{
	static const uint8_t clone[] = { 2, 0, 0, 0, 0, 1 };
	g_auto(Pair) p = { 0 };

	make_pair(&p);
	g_assert_cmpint(memcmp(chosen(&p).mac, clone, 6), ==, 0);
	memcpy(p.welcome.mac, clone, 6);
	g_assert_cmpint(memcmp(chosen(&p).mac, clone, 6), !=, 0);
	p.settings->mac = g_strdup("02:00:00:00:00:01");
	g_assert_cmpint(memcmp(chosen(&p).mac, clone, 6), ==, 0); /* the other end gives way */
}

static EcControlMessage choose_of(const EcAgreement *a)
{
	EcControlMessage m = {
		.type = EC_CONTROL_CHOOSE,
		.local = unit_address("10.0.0.1"),
		.id = a->id,
		.data_port = a->data_port,
		.mtu = a->mtu,
		.size = a->size,
		.path_mtu = a->path_mtu,
	};

	g_strlcpy(m.encapsulation, a->encap->name, sizeof(m.encapsulation));
	memcpy(m.mac, a->mac, 6);
	m.mac[4] = 9;
	return m;
}

static void test_accept(void)
{
	g_auto(Pair) p = { 0 };
	EcAgreement here, there;

	make_pair(&p);
	here = chosen(&p);
	EcControlMessage m = choose_of(&here);
	g_assert_cmpint(ec_agreement_accept(&p.own, &m, &there, NULL), ==, 0);
	g_assert_true(ec_agreement_same_cord(&here, &there));
	g_assert_cmpuint(there.mtu, ==, here.mtu);
	g_assert_false(there.nat);
	m.local = unit_address("192.168.1.5");
	g_assert_cmpint(ec_agreement_accept(&p.own, &m, &there, NULL), ==, 0);
	g_assert_true(there.nat);
}

/* Of one name it is the plane that is preferred here, whatever the other end does it in. */
static void test_planes(void)
{
	g_auto(Pair) p = { 0 };

	make_pair(&p);
	p.own.candidates = both_vxlan;
	g_assert_true(chosen(&p).encap == &ec_encap_vxlan);
	g_strlcpy(p.welcome.encaps[0].plane, "user", sizeof(p.welcome.encaps[0].plane));
	g_assert_true(chosen(&p).encap == &ec_encap_vxlan);
	g_assert_false(chosen(&p).joins);
	p.own.candidates = user_vxlan;
	g_assert_true(chosen(&p).encap == &ec_encap_vxlan_user);
	p.welcome.any_order = false; /* the acceptor's order knows names, not planes */
	g_assert_true(chosen(&p).encap == &ec_encap_vxlan_user);
	p.own.candidates = both_vxlan;
	g_assert_true(chosen(&p).encap == &ec_encap_vxlan);
	/* What the path refused to one plane the other cannot carry either. */
	p.own.refused = only_vxlan;
	refused(&p, "PeerUnreachable", "vxlan (UDP port 4789)");
	/* The cord that is there decides before any order does. */
	p.own.refused = NULL;
	p.own.candidates = all;
	g_strlcpy(p.welcome.encapsulation, "gretap-fou", sizeof(p.welcome.encapsulation));
	g_assert_true(chosen(&p).encap == &ec_encap_gretap_fou);
}

/* Each worker has a socket of its own, and so a port that no other of this peer has. */
static void test_worker_ports(void)
{
	g_auto(Pair) p = { 0 };

	make_pair(&p);
	offer_user(&p.welcome, "raw-udp", 1236);
	p.own.candidates = user_raw;
	EcAgreement a = chosen(&p);
	g_assert_cmpuint(a.data_port, ==, 1234);
	g_assert_cmpuint(a.remote_data_port, ==, 1236); /* the one that is free there */
	g_assert_cmpuint(a.id, ==, 0);
	g_assert_false(a.nat);
	taken_ports = 3;
	g_assert_cmpuint(chosen(&p).data_port, ==, 1237);
	/* One's own is not taken. */
	p.own.before = a;
	g_assert_cmpuint(chosen(&p).data_port, ==, 1234);
	p.own.before.data_port = 4000;
	g_assert_cmpuint(chosen(&p).data_port, ==, 4000);
	p.own.before.encap = &ec_encap_vxlan_user; /* of another format it says nothing */
	g_assert_cmpuint(chosen(&p).data_port, ==, 1237);
	p.own.before = (EcAgreement){ 0 };
	/* What the owner says is not argued with. */
	p.settings->data_port = 1235;
	g_assert_cmpuint(chosen(&p).data_port, ==, 1235);
	/* The kernel tells its tunnels apart by their ids. */
	p.settings->data_port = 0;
	p.own.candidates = only_vxlan;
	taken_ports = 5;
	g_assert_cmpuint(chosen(&p).data_port, ==, 4789);
	/* A worker's second VXLAN has two ports, which the kernel's plain form has not. */
	p.own.candidates = user_vxlan;
	g_assert_cmpuint(chosen(&p).data_port, ==, 4794);
	g_assert_cmpuint(chosen(&p).remote_data_port, ==, 4789);
	g_assert_true(chosen(&p).nat);
}

/* Pieces: only where both ends are workers, and then when the path or the owner asks. */
static void test_split(void)
{
	static const struct {
		bool there, path;
		int setting;
		bool joins, split;
	} row[] = {
		{ false, false, EC_SPLIT_AUTO, false, false },
		{ false, true, EC_SPLIT_AUTO, false, false },
		{ false, true, EC_SPLIT_YES, false, false },
		{ true, false, EC_SPLIT_AUTO, true, false },
		{ true, true, EC_SPLIT_AUTO, true, true },
		{ true, false, EC_SPLIT_YES, true, true },
		{ true, false, EC_SPLIT_NO, true, false },
		{ true, true, EC_SPLIT_NO, true, false },
	};

	for (size_t i = 0; i < EC_ELEMENTS(row); i++) {
		g_auto(Pair) p = { 0 };

		make_pair(&p);
		p.welcome.n_encaps = 0;
		if (row[i].there)
			offer_user(&p.welcome, "vxlan", 4789);
		else
			offer(&p.welcome, "vxlan", 4789);
		p.own.candidates = user_vxlan;
		p.own.split = row[i].path;
		p.settings->split = row[i].setting;
		g_assert_cmpint(chosen(&p).joins, ==, row[i].joins);
		g_assert_cmpint(chosen(&p).split, ==, row[i].split);
		p.own.candidates = only_vxlan;
		g_assert_false(chosen(&p).joins || chosen(&p).split);
	}
}

/* What the path was found to drop holds for the cord that it was found for. */
static void test_split_is_kept(void)
{
	g_auto(Pair) p = { 0 };

	make_pair(&p);
	p.welcome.n_encaps = 0;
	offer_user(&p.welcome, "vxlan", 4789);
	p.own.candidates = user_vxlan;
	EcAgreement a = chosen(&p);
	p.own.before = a;
	g_assert_false(chosen(&p).split);
	p.own.before.split = true;
	g_assert_true(chosen(&p).split);
	p.own.path_mtu = 1400;
	g_assert_false(chosen(&p).split); /* another path */
	p.own.path_mtu = 1500;
	p.own.before.id = a.id + 1;
	taken = a.id + 1;
	g_assert_false(chosen(&p).split); /* another cord */
	taken = 0;
	p.own.before.id = a.id;
	p.settings->split = EC_SPLIT_NO;
	g_assert_false(chosen(&p).split); /* not wanted any more */
	p.settings->split = EC_SPLIT_AUTO;
	g_strlcpy(p.welcome.encaps[0].plane, "kernel", sizeof(p.welcome.encaps[0].plane));
	g_assert_false(chosen(&p).split); /* nobody there who would join them */
	/* What crossed without pieces says nothing of what crosses in them. */
	g_strlcpy(p.welcome.encaps[0].plane, "user", sizeof(p.welcome.encaps[0].plane));
	p.own.before.split = false;
	p.own.before.lesser = true;
	p.own.before.mtu = p.own.before.size = 1000;
	g_assert_true(chosen(&p).lesser);
	g_assert_cmpuint(chosen(&p).mtu, ==, 1000);
	p.own.split = true;
	g_assert_false(chosen(&p).lesser);
	g_assert_cmpuint(chosen(&p).mtu, ==, 1450);
	g_assert_cmpuint(chosen(&p).size, ==, 1450);
}

/* Both planes at both ends: the kernels come first, and give way to workers for pieces alone. */
static void test_split_beside_kernels(void)
{
	static const EcEncap *const refused_by_path[] = { &ec_encap_vxlan, NULL };
	g_auto(Pair) p = { 0 };

	make_pair(&p);
	p.welcome.n_encaps = 0;
	offer(&p.welcome, "vxlan", 4789);
	offer_user(&p.welcome, "vxlan", 4791);
	p.own.candidates = both_vxlan;
	g_assert_true(ec_agreement_splitter(&p.own, &p.welcome, &ec_encap_vxlan) ==
			&ec_encap_vxlan_user);
	g_assert_true(chosen(&p).encap == &ec_encap_vxlan);
	p.own.split = true;
	g_assert_true(chosen(&p).encap == &ec_encap_vxlan);
	p.own.refused = refused_by_path;
	refused(&p, "PeerUnreachable", "vxlan (UDP port 4789)");
	p.own.only = user_vxlan;
	EcAgreement a = chosen(&p);
	g_assert_true(a.encap == &ec_encap_vxlan_user && a.split && a.joins && !a.nat);
	/* The kernel's port is left to the kernel's tunnels. */
	g_assert_cmpuint(a.data_port, ==, 4791);
	g_assert_cmpuint(a.remote_data_port, ==, 4791);
	g_assert_cmpuint(ec_agreement_first_port(both_vxlan, &ec_encap_vxlan_user), ==, 4790);
	g_assert_cmpuint(ec_agreement_first_port(user_vxlan, &ec_encap_vxlan_user), ==, 4789);
	g_assert_cmpuint(ec_agreement_first_port(both_vxlan, &ec_encap_vxlan), ==, 4789);
	/* What was found holds for the next channel, by whatever path. */
	p.own.split = false;
	p.own.only = p.own.refused = NULL;
	p.own.before = a;
	g_assert_true(chosen(&p).encap == &ec_encap_vxlan_user && chosen(&p).split);
	p.own.path_mtu = 1400;
	g_assert_true(chosen(&p).split);
	g_assert_cmpuint(chosen(&p).data_port, ==, 4791);
	p.settings->split = EC_SPLIT_NO;
	g_assert_true(chosen(&p).encap == &ec_encap_vxlan);
	g_assert_null(ec_agreement_splitter(&p.own, &p.welcome, &ec_encap_vxlan));
	p.settings->split = EC_SPLIT_AUTO;
	p.welcome.n_encaps = 1; /* a peer without workers */
	g_assert_null(ec_agreement_splitter(&p.own, &p.welcome, &ec_encap_vxlan));
	g_assert_false(chosen(&p).split);
}

static EcControlMessage choose_of_user(const EcAgreement *a)
{
	EcControlMessage m = choose_of(a);

	g_strlcpy(m.plane, "user", sizeof(m.plane));
	m.remote_data_port = a->remote_data_port;
	m.split = a->split;
	return m;
}

static EcAgreement accepted(const Pair *p, const EcControlMessage *m)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcAgreement a = { 0 };

	if (ec_agreement_accept(&p->own, m, &a, &error) < 0)
		g_error("%s", error.message);
	return a;
}

/* Of both planes the kernel's, but for pieces. */
static void test_accept_pieces(void)
{
	g_auto(Pair) p = { 0 };

	make_pair(&p);
	p.own.candidates = user_vxlan;
	EcAgreement here = chosen(&p);
	EcControlMessage m = choose_of_user(&here);
	p.own.candidates = both_vxlan;
	g_assert_true(accepted(&p, &m).encap == &ec_encap_vxlan && !accepted(&p, &m).joins);
	m.split = true;
	m.remote_data_port = 4790;
	EcAgreement a = accepted(&p, &m);
	g_assert_true(a.encap == &ec_encap_vxlan_user && a.split && a.joins);
	g_assert_cmpuint(a.data_port, ==, 4790);
	p.own.before = a; /* it follows the dialer back, too */
	m.split = false;
	g_assert_true(accepted(&p, &m).encap == &ec_encap_vxlan);
	m.split = true;
	p.settings->split = EC_SPLIT_NO;
	g_assert_true(accepted(&p, &m).encap == &ec_encap_vxlan && !accepted(&p, &m).split);
	p.settings->split = EC_SPLIT_AUTO;
	g_strlcpy(m.plane, "kernel", sizeof(m.plane)); /* nonsense */
	g_assert_true(accepted(&p, &m).encap == &ec_encap_vxlan && !accepted(&p, &m).split);
}

static void test_accept_planes(void)
{
	g_auto(Pair) p = { 0 };

	make_pair(&p);
	p.own.candidates = user_fou;
	EcAgreement here = chosen(&p);
	here.split = here.joins = true;
	EcControlMessage m = choose_of_user(&here);
	g_assert_true(accepted(&p, &m).joins && accepted(&p, &m).split);
	g_assert_true(accepted(&p, &m).encap == &ec_encap_gretap_fou_user);
	m.split = false;
	g_assert_true(accepted(&p, &m).joins);
	g_assert_false(accepted(&p, &m).split);
	m.split = true;
	p.settings->split = EC_SPLIT_NO;
	g_assert_true(accepted(&p, &m).joins);
	g_assert_false(accepted(&p, &m).split);
	p.settings->split = EC_SPLIT_AUTO;
	g_strlcpy(m.plane, "kernel", sizeof(m.plane));
	g_assert_false(accepted(&p, &m).joins || accepted(&p, &m).split);
	*m.plane = '\0'; /* older than the key */
	g_assert_false(accepted(&p, &m).joins || accepted(&p, &m).split);
	/* The kernel here, a worker there. */
	g_strlcpy(m.plane, "user", sizeof(m.plane));
	p.own.candidates = all;
	g_assert_true(accepted(&p, &m).encap == &ec_encap_gretap_fou);
	g_assert_false(accepted(&p, &m).joins || accepted(&p, &m).split);
}

/* The acceptor keeps to the port by which the dialer found it, where no other tunnel has it. */
static void test_accept_ports(void)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_auto(Pair) p = { 0 };

	make_pair(&p);
	offer_user(&p.welcome, "raw-udp", 1235);
	p.own.candidates = user_raw;
	EcAgreement here = chosen(&p), there;
	EcControlMessage m = choose_of_user(&here);
	taken_ports = 1;
	there = accepted(&p, &m);
	g_assert_cmpuint(there.data_port, ==, 1235);
	g_assert_cmpuint(there.remote_data_port, ==, 1234);
	m.remote_data_port = 0; /* an older peer says none */
	taken_ports = 0;
	g_assert_cmpuint(accepted(&p, &m).data_port, ==, 1234);
	/* Somebody else was faster. */
	m.remote_data_port = 1235;
	taken_ports = 2;
	unit_assert_error(ec_agreement_accept(&p.own, &m, &there, &error), &error, "Exists",
			"data-port '1235' is taken here");
	/* Not with the tunnel's own, or where the owner said so. */
	p.own.before = (EcAgreement){ .encap = &ec_encap_raw_udp, .data_port = 1235 };
	g_assert_cmpuint(accepted(&p, &m).data_port, ==, 1235);
	p.own.before = (EcAgreement){ 0 };
	p.settings->data_port = 1235;
	g_assert_cmpuint(accepted(&p, &m).data_port, ==, 1235);
	p.settings->data_port = 7;
	g_assert_cmpuint(accepted(&p, &m).data_port, ==, 7);
	/* The kernel's has its own port, whatever the dialer says. */
	p.settings->data_port = 0;
	p.own.candidates = only_vxlan;
	here = chosen(&p);
	m = choose_of_user(&here);
	m.remote_data_port = 53;
	g_assert_cmpuint(accepted(&p, &m).data_port, ==, 4789);
}

/* Each thing that a peer could ask for and must not get. */
static void test_accept_refuses(void)
{
	g_auto(Pair) p = { 0 };
	EcAgreement here, there;

	make_pair(&p);
	p.own.candidates = only_vxlan;
	here = chosen(&p);
	for (unsigned i = 0; i < 9; i++) {
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
		EcControlMessage m = choose_of(&here);

		switch (i) {
		case 0:
			g_strlcpy(m.encapsulation, "gretap", sizeof(m.encapsulation));
			break;
		case 1:
			m.id = 0;
			break;
		case 2:
			m.id = 1U << 24;
			break;
		case 3:
			m.mtu = 67;
			break;
		case 4:
			m.mtu = m.size = 65536;
			break;
		case 5:
			m.size = m.mtu + 1;
			break;
		case 6:
			m.data_port = 0;
			break;
		case 7:
			m.mac[0] = 1;
			break;
		default:
			taken = m.id;
			break;
		}
		g_assert_cmpint(ec_agreement_accept(&p.own, &m, &there, &error), <, 0);
		g_assert_nonnull(error.message);
	}
}

static void test_terms(void)
{
	g_auto(Pair) p = { 0 };

	make_pair(&p);
	p.own.candidates = only_vxlan;
	EcAgreement a = chosen(&p);
	g_autoptr(EcSettings) s = ec_agreement_terms(&a, p.settings);
	g_assert_cmpstr(s->encapsulation[0], ==, "vxlan");
	g_assert_null(s->encapsulation[1]);
	g_assert_cmpuint(s->id, ==, a.id);
	g_assert_cmpuint(s->mtu, ==, a.mtu);
	g_assert_cmpstr(s->mac, ==, "02:00:00:00:00:01");
	g_assert_cmpint(s->data_plane, ==, EC_DATA_PLANE_KERNEL);
	p.own.candidates = user_fou;
	taken_ports = 1;
	EcAgreement b = chosen(&p);
	g_autoptr(EcSettings) user = ec_agreement_terms(&b, p.settings);
	g_assert_cmpint(user->data_plane, ==, EC_DATA_PLANE_USER);
	g_assert_cmpuint(user->data_port, ==, 65202);
	g_assert_cmpuint(user->remote_data_port, ==, 65201);
	const EcEncap *found[EC_ENCAPS_MAX + 1];
	ec_encap_candidates(user, AF_INET, found);
	g_assert_true(found[0] == &ec_encap_gretap_fou_user && !found[1]);
}

static void test_file(void)
{
	g_autofree char *directory = g_dir_make_tmp("cord-XXXXXX", NULL);
	g_auto(EcCord) back = { 0 };
	EcCord cord = {
		.agreement = { .encap = &ec_encap_gretap_fou,
				.id = 5,
				.data_port = 65201,
				.remote_data_port = 40000,
				.data_remote = unit_address("2001:db8::1"),
				.mtu = 1500,
				.size = 1400,
				.path_mtu = 1420,
				.mac = { 2, 3, 4, 5, 6, 7 },
				.nat = true },
		.remote = unit_address("192.0.2.1"),
		.listener = (char *)"lan",
		.peer = (char *)"office",
		.mode = EC_MODE_JOIN_NETWORKS,
		.interface = (char *)"ec-office",
		.proven = true,
		.instance = UINT64_MAX - 1,
	};

	g_assert_false(ec_cord_load(directory, "lan.office", &back));
	ec_cord_save(directory, "lan.office", &cord);
	g_auto(GStrv) names = ec_cord_names(directory);
	g_assert_cmpuint(g_strv_length(names), ==, 1);
	g_assert_true(ec_cord_load(directory, names[0], &back));
	g_assert_true(ec_agreement_same_cord(&back.agreement, &cord.agreement));
	g_assert_cmpuint(back.agreement.remote_data_port, ==, 40000);
	g_assert_true(ec_address_equal(&back.agreement.data_remote, &cord.agreement.data_remote));
	g_assert_true(ec_address_equal(&back.remote, &cord.remote));
	g_assert_cmpuint(back.agreement.size, ==, 1400);
	g_assert_cmpint(memcmp(back.agreement.mac, cord.agreement.mac, 6), ==, 0);
	g_assert_true(back.agreement.nat && back.proven);
	g_assert_cmpstr(back.listener, ==, "lan");
	g_assert_cmpint(back.mode, ==, EC_MODE_JOIN_NETWORKS);
	g_assert_cmpuint(back.instance, ==, UINT64_MAX - 1);
	g_assert_true(back.agreement.encap == &ec_encap_gretap_fou);
	g_assert_false(back.agreement.split || back.agreement.joins);
	ec_cord_done(&back);
	/* In the other plane. */
	cord.agreement.encap = &ec_encap_gretap_fou_user;
	cord.agreement.split = cord.agreement.joins = true;
	ec_cord_save(directory, "lan.office", &cord);
	g_assert_true(ec_cord_load(directory, "lan.office", &back));
	g_assert_true(back.agreement.encap == &ec_encap_gretap_fou_user);
	g_assert_true(back.agreement.split && back.agreement.joins);
	ec_cord_done(&back);
	/* A file from before there were two. */
	g_autofree char *path = g_build_filename(directory, "cords", "lan.office", NULL);
	g_autofree char *text = NULL;
	g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
	g_auto(GStrv) parts = g_strsplit(text, "data-plane=user\n", 2);
	g_assert_cmpuint(g_strv_length(parts), ==, 2);
	g_autofree char *older = g_strjoinv("", parts);
	g_assert_true(g_file_set_contents(path, older, -1, NULL));
	g_assert_true(ec_cord_load(directory, "lan.office", &back));
	g_assert_true(back.agreement.encap == &ec_encap_gretap_fou);
	ec_cord_forget(directory, "lan.office");
	g_auto(GStrv) gone = ec_cord_names(directory);
	g_assert_cmpuint(g_strv_length(gone), ==, 0);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/agreement/order", test_order);
	g_test_add_func("/agreement/refused-by-path", test_refused_by_path);
	g_test_add_func("/agreement/nothing-in-common", test_nothing_in_common);
	g_test_add_func("/agreement/nat", test_nat);
	g_test_add_func("/agreement/ports", test_ports);
	g_test_add_func("/agreement/ids", test_ids);
	g_test_add_func("/agreement/kept", test_kept);
	g_test_add_func("/agreement/mtu", test_mtu);
	g_test_add_func("/agreement/mac", test_mac);
	g_test_add_func("/agreement/accept", test_accept);
	g_test_add_func("/agreement/planes", test_planes);
	g_test_add_func("/agreement/worker-ports", test_worker_ports);
	g_test_add_func("/agreement/split", test_split);
	g_test_add_func("/agreement/split-is-kept", test_split_is_kept);
	g_test_add_func("/agreement/split-beside-kernels", test_split_beside_kernels);
	g_test_add_func("/agreement/accept-pieces", test_accept_pieces);
	g_test_add_func("/agreement/accept-planes", test_accept_planes);
	g_test_add_func("/agreement/accept-ports", test_accept_ports);
	g_test_add_func("/agreement/accept-refuses", test_accept_refuses);
	g_test_add_func("/agreement/terms", test_terms);
	g_test_add_func("/agreement/file", test_file);
	return g_test_run();
}
