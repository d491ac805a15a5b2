/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control-answer.h"

#include <string.h>

#include "control-abilities.h"
#include "control-acceptor.h"
#include "control.h"
#include "log.h"
#include "path.h"

/*
 * DOC: Theory of operation
 *
 * Who comes names itself (the PSK identity) and then proves it by the key. The name is looked for
 * among the tunnels that dial, since both ends of a tunnel may, and among the peers of the
 * listeners on that port. Up to the CHOOSE, which only somebody with the key can send, nothing is
 * made: no tunnel, no interface, no fence.
 *
 * One peer has one tunnel. When it comes again, from wherever, the tunnel and its interface are
 * taken to the new channel. Only another machine under the same name is kept out while the first
 * one answers.
 */

#define TRY_AGAIN_USEC 5000000ULL
#define LOGGED_PER_SECOND 5

struct EcAnswer {
	EcManager *manager;
	GHashTable *ports; /* port -> EcAcceptor */
	sd_event_source *again;
	uint64_t second; /* in which ... */
	unsigned logged; /* ... so many refusals were logged */
};

/* Who somebody that names itself would be. */
typedef struct Claim {
	EcListener *listener; /* or ... */
	EcTunnel *tunnel;     /* ... the tunnel: that dials there, or that the listener made */
	const char *peer;     /* the name, within the identity */
	bool keyless;
} Claim;

static bool dials(const EcTunnel *t)
{
	return t->wanted && !t->listener && t->settings->control == EC_CONTROL_ETHERCORD;
}

static bool expects(const EcTunnel *t, const EcAddress *from)
{
	for (size_t i = 0; i < t->n_remotes; i++) {
		if (ec_address_equal(&t->remotes[i], from))
			return true;
	}
	return false;
}

static EcTunnel *find_accepted(EcManager *m, const EcListener *l, const char *peer)
{
	GHashTableIter i;
	EcTunnel *t;

	g_hash_table_iter_init(&i, m->tunnels);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&t)) {
		if (t->listener == l && g_str_equal(t->settings->identity, peer))
			return t;
	}
	return NULL;
}

static EcTunnel *find_dialing(EcManager *m, const Claim *c, const EcAddress *from,
		uint8_t key[static EC_CHANNEL_KEY_SIZE])
{
	GHashTableIter i;
	EcTunnel *t;

	g_hash_table_iter_init(&i, m->tunnels);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&t)) {
		const char *name =
				t->settings->identity ? t->settings->identity : t->settings->name;

		if (!dials(t) || !expects(t, from) || !g_str_equal(name, c->peer))
			continue;
		int r = ec_store_get_key(m->store, t->settings->name, key);
		if (r >= 0 && (r == 0) == c->keyless)
			return t;
	}
	return NULL;
}

static EcListener *find_listener(EcManager *m, const Claim *c, uint16_t port, const EcAddress *from,
		uint8_t key[static EC_CHANNEL_KEY_SIZE])
{
	GHashTableIter i;
	EcListener *l;

	g_hash_table_iter_init(&i, m->listeners);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&l)) {
		if (!l->wanted || ec_listener_port(l) != port ||
				!ec_listener_allows(l, c->peer, from, c->keyless))
			continue;
		EcListenerKey k = ec_listener_key(l, c->peer, key);
		if (k == (c->keyless ? EC_LISTENER_KEY_NONE : EC_LISTENER_KEY_FOUND))
			return l;
	}
	return NULL;
}

/* Whether there is somebody of this name, and the key. */
static bool find_claim(EcAnswer *a, uint16_t port, const char *identity, const EcAddress *from,
		uint8_t key[static EC_CHANNEL_KEY_SIZE], Claim *ret)
{
	bool keyless = identity[0] == EC_CHANNEL_KEYLESS;
	Claim c = { .keyless = keyless, .peer = identity + keyless };

	if (!ec_name_is_valid(c.peer))
		return false;
	if (port == a->manager->config.port)
		c.tunnel = find_dialing(a->manager, &c, from, key);
	if (!c.tunnel)
		c.listener = find_listener(a->manager, &c, port, from, key);
	if (c.listener)
		c.tunnel = find_accepted(a->manager, c.listener, c.peer);
	if (c.keyless)
		memcpy(key, ec_channel_keyless_key, EC_CHANNEL_KEY_SIZE);
	*ret = c;
	return c.tunnel || c.listener;
}

/* A flood of wrong guesses must not fill the journal. */
static void log_refusal(EcAnswer *a, const EcAddress *from, const char *who, const char *why)
{
	char text[INET6_ADDRSTRLEN];
	uint64_t now = 0;

	(void)sd_event_now(a->manager->event, CLOCK_BOOTTIME, &now);
	if (now / 1000000 != a->second)
		a->logged = 0;
	a->second = now / 1000000;
	if (a->logged++ < LOGGED_PER_SECOND)
		ec_log(LOG_NOTICE, "%s is not let in as '%s': %s", ec_address_to_string(from, text),
				who, why);
}

/* What an acceptor asks */

static bool admit(EcAcceptor *acceptor, const EcAddress *from, void *userdata)
{
	EcAnswer *a = userdata;
	EcManager *m = a->manager;
	uint16_t port = ec_acceptor_port(acceptor);
	GHashTableIter i;
	EcListener *l;
	EcTunnel *t;

	g_hash_table_iter_init(&i, m->listeners);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&l)) {
		if (l->wanted && ec_listener_port(l) == port &&
				(ec_listener_allows(l, NULL, from, false) ||
						ec_listener_allows(l, NULL, from, true)))
			return true;
	}
	g_hash_table_iter_init(&i, m->tunnels);
	while (port == m->config.port && g_hash_table_iter_next(&i, NULL, (gpointer *)&t)) {
		if (dials(t) && expects(t, from))
			return true;
	}
	return false;
}

static bool find_key(EcAcceptor *acceptor, EcChannel *c, const char *identity,
		uint8_t ret[static EC_CHANNEL_KEY_SIZE], void *userdata)
{
	EcAnswer *a = userdata;
	Claim claim;

	if (find_claim(a, ec_acceptor_port(acceptor), identity, ec_channel_remote(c), ret, &claim))
		return true;
	log_refusal(a, ec_channel_remote(c), identity, "no such peer may come from there");
	return false;
}

/* What the peer's tunnel is or would be: its own settings, or those it would get. Free it. */
static EcSettings *settings_for(
		const Claim *c, const EcAddress *from, int mode, sd_bus_error *ret_error)
{
	if (c->tunnel)
		return ec_settings_copy(c->tunnel->settings);
	if (mode < 0) {
		const EcSettings *l = c->listener->settings;
		const EcSettings *p = g_hash_table_lookup(c->listener->peers, c->peer);
		bool bridged = l->bridge || (p && p->bridge);

		mode = bridged ? EC_MODE_JOIN_REMOTE : EC_MODE_POINT_TO_POINT;
		if (ec_settings_is_given(l, ec_setting_find_in(EC_SCOPE_LISTENER, "mode")))
			mode = l->mode;
	}
	return ec_listener_tunnel_settings(c->listener, c->peer, from, (EcMode)mode, ret_error);
}

/* Without a key, the VPN has to stand for the peer. */
static int check_path(
		const Claim *c, const EcPath *path, const EcAddress *from, sd_bus_error *ret_error)
{
	char text[INET6_ADDRSTRLEN];

	if (!c->keyless || path->protect)
		return 0;
	return ec_error(ret_error, EC_ERROR_NOT_PROTECTED,
			"%s comes without a key and not through a VPN that would vouch for it; set a "
			"key at both ends, or use a VPN",
			ec_address_to_string(from, text));
}

static int make_welcome(EcManager *m, const Claim *c, const EcChannel *channel,
		EcControlMessage *ret, sd_bus_error *ret_error)
{
	const EcEncap *candidates[EC_ENCAPS_MAX + 1];
	const EcAddress *from = ec_channel_remote(channel);
	g_autoptr(EcSettings) plain = settings_for(c, from, -1, ret_error);
	EcPath path = { 0 };

	if (!plain)
		return -EINVAL;
	g_autoptr(EcSettings) s = ec_session_answering(plain, channel);
	int r = ec_session_abilities(m, s, from, candidates, &path, ret_error);
	if (r >= 0)
		r = check_path(c, &path, from, ret_error);
	if (r < 0)
		return r;
	ec_session_greet(m, s, c->tunnel, from, candidates, &path, ret);
	if (c->listener)
		g_strlcpy(ret->name, c->listener->settings->name, sizeof(ret->name));
	return 0;
}

static bool welcome(EcAcceptor *acceptor, EcChannel *c, EcControlMessage *ret, void *userdata)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcAnswer *a = userdata;
	const EcAddress *from = ec_channel_remote(c);
	uint8_t key[EC_CHANNEL_KEY_SIZE];
	Claim claim;
	bool known = find_claim(
			a, ec_acceptor_port(acceptor), ec_channel_identity(c), from, key, &claim);

	explicit_bzero(key, sizeof(key));
	if (!known)
		return false;
	if (make_welcome(a->manager, &claim, c, ret, &error) < 0) {
		log_refusal(a, from, claim.peer, error.message);
		ec_session_refusal(ret, &error);
		return true;
	}
	ret->seen = *from;
	ret->local = *ec_channel_local(c);
	g_strlcpy(ret->peer, claim.peer, sizeof(ret->peer));
	return true;
}

/* A place for one more: of the peers that are lost, the longest goes. */
static int make_room(EcManager *m, EcListener *l, sd_bus_error *ret_error)
{
	EcTunnel *t, *longest = NULL;
	GHashTableIter i;

	if (ec_listener_count(l) < l->settings->max_peers)
		return 0;
	g_hash_table_iter_init(&i, m->tunnels);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&t)) {
		if (t->listener == l && t->session->phase == EC_PHASE_LOST &&
				(!longest || t->session->lost < longest->session->lost))
			longest = t;
	}
	if (!longest)
		return ec_error(ret_error, EC_ERROR_LIMIT_EXCEEDED,
				"listener %s has %u peers, as many as its max-peers allows",
				l->settings->name, l->settings->max_peers);
	ec_manager_forget(m, longest);
	return 0;
}

static int mode_of(const EcControlMessage *m)
{
	for (int mode = 0; mode < _EC_MODE_MAX; mode++) {
		if (g_str_equal(ec_settings_word("mode", mode), m->mode))
			return mode;
	}
	return -1;
}

static int make_tunnel(
		EcManager *m, Claim *c, const EcChannel *channel, int mode, sd_bus_error *ret_error)
{
	EcSettings *s;
	int r = make_room(m, c->listener, ret_error);

	if (r < 0)
		return r;
	s = settings_for(c, ec_channel_remote(channel), mode, ret_error);
	if (!s)
		return -EINVAL;
	g_free(s->identity);
	s->identity = g_strdup(c->peer);
	return ec_manager_accept(m, c->listener, s, &c->tunnel, ret_error);
}

/* Both ends dial: one gives way. */
static int check_nonces(const Claim *c, const EcControlMessage *m, sd_bus_error *ret_error)
{
	return c->tunnel->session && ec_session_prevails(c->tunnel->session, m->nonce)
			       ? ec_error(ret_error, EC_ERROR_BUSY,
						 "both ends dialled; the connection from this end is "
						 "used")
			       : 0;
}

static int check_instance(const Claim *c, const EcControlMessage *m, sd_bus_error *ret_error)
{
	const EcSession *s = c->tunnel->session;
	char text[INET6_ADDRSTRLEN];

	if (s->instance == 0 || s->instance == m->instance || s->phase != EC_PHASE_LIVE ||
			s->unattended || ec_liveness_is_lost(s->liveness))
		return 0;
	return ec_error(ret_error, EC_ERROR_BUSY,
			"%s is connected from %s, from another machine; give each its own identity",
			c->peer, ec_address_to_string(&c->tunnel->remote, text));
}

static int let_in(EcAnswer *a, uint16_t port, EcChannel *c, const EcControlMessage *m,
		sd_bus_error *ret_error)
{
	uint8_t key[EC_CHANNEL_KEY_SIZE];
	bool fresh = false;
	Claim claim;
	int mode = mode_of(m), r = 0;

	bool known = find_claim(a, port, ec_channel_identity(c), ec_channel_remote(c), key, &claim);
	explicit_bzero(key, sizeof(key));
	if (!known)
		return ec_error(ret_error, EC_ERROR_REFUSED, "the peer is not known any more");
	if (m->type == EC_CONTROL_CHOOSE && m->protocol != EC_CONTROL_PROTOCOL)
		return ec_error(ret_error, EC_ERROR_NOT_SUPPORTED,
				"this ethercord speaks protocol %u, not %u; bring the older one up to "
				"date",
				EC_CONTROL_PROTOCOL, m->protocol);
	if (m->type != EC_CONTROL_CHOOSE || mode < 0)
		return ec_error(ret_error, EC_ERROR_PROTOCOL, "a CHOOSE with a mode was expected");
	if (claim.tunnel && !claim.tunnel->wanted)
		r = ec_error(ret_error, EC_ERROR_REFUSED, "%s was taken down at the other end",
				claim.tunnel->settings->name);
	else if (!claim.listener)
		r = check_nonces(&claim, m, ret_error);
	else if (claim.tunnel)
		r = check_instance(&claim, m, ret_error);
	if (r < 0)
		return r;
	if (claim.listener && claim.tunnel && claim.tunnel->settings->mode != mode) {
		ec_manager_forget(a->manager, claim.tunnel);
		claim.tunnel = NULL;
	}
	if (!claim.tunnel) {
		fresh = true;
		r = make_tunnel(a->manager, &claim, c, mode, ret_error);
		if (r < 0)
			return r;
	}
	EcTunnel *t = claim.tunnel;
	r = ec_session_take(t->session, c, m, ret_error);
	if (r < 0 && fresh)
		ec_manager_forget(a->manager, t);
	return r;
}

static void greeted(EcAcceptor *acceptor, EcChannel *c, const EcControlMessage *m, void *userdata)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcAnswer *a = userdata;
	g_autofree char *who = g_strdup(ec_channel_identity(c));
	EcAddress from = *ec_channel_remote(c);

	if (m->type == EC_CONTROL_BYE || m->type == EC_CONTROL_REFUSE) {
		(void)ec_channel_free(c);
		return;
	}
	if (let_in(a, ec_acceptor_port(acceptor), c, m, &error) >= 0)
		return;
	log_refusal(a, &from, who, error.message ? error.message : "?");
	ec_session_refuse(c, &error);
	(void)ec_channel_free(c);
}

/* Ports */

static const EcAcceptorOps ops = {
	.admit = admit, .key = find_key, .welcome = welcome, .greeted = greeted
};

static int on_again(sd_event_source *s, uint64_t usec, void *userdata)
{
	EcAnswer *a = userdata;

	a->again = sd_event_source_disable_unref(a->again);
	ec_answer_refresh(a);
	return 0;
}

/* The ports that are wanted, as a set. */
static GHashTable *wanted_ports(const EcManager *m)
{
	GHashTable *ports = g_hash_table_new(NULL, NULL);
	GHashTableIter i;
	EcListener *l;
	EcTunnel *t;

	g_hash_table_iter_init(&i, m->listeners);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&l)) {
		if (l->wanted)
			g_hash_table_add(ports, GUINT_TO_POINTER(ec_listener_port(l)));
	}
	g_hash_table_iter_init(&i, m->tunnels);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&t)) {
		if (dials(t)) {
			g_hash_table_add(ports, GUINT_TO_POINTER(m->config.port));
			break;
		}
	}
	return ports;
}

static void tell_listeners(EcAnswer *a, uint16_t port, const sd_bus_error *error)
{
	GHashTableIter i;
	EcListener *l;

	g_hash_table_iter_init(&i, a->manager->listeners);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&l)) {
		if (!l->wanted || ec_listener_port(l) != port)
			continue;
		ec_listener_set_state(l, error ? EC_LISTENER_FAILED : EC_LISTENER_UP,
				error ? ec_error_token(error) : "", error ? error->message : "");
		if (error && !a->again)
			(void)sd_event_add_time_relative(a->manager->event, &a->again,
					CLOCK_BOOTTIME, TRY_AGAIN_USEC, 0, on_again, a);
	}
}

static void open_port(EcAnswer *a, uint16_t port)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcAcceptor *acceptor = g_hash_table_lookup(a->ports, GUINT_TO_POINTER(port));

	if (!acceptor && ec_acceptor_new(a->manager->event, port, &ops, a, &acceptor, &error) >= 0)
		g_hash_table_insert(a->ports, GUINT_TO_POINTER(port), acceptor);
	tell_listeners(a, port, acceptor ? NULL : &error);
}

/* Whether a peer that is in would be let in, and as it is. Who is sent away comes back by itself.
 */
static bool may_stay(const EcTunnel *t)
{
	EcListener *l = t->listener;
	const char *peer = t->settings->identity;
	const EcChannel *c = t->session->channel;
	/* What the tunnel has of its own, whatever the listener's settings are. */
	static const char *const own[] = { "name", "identity", "interface", NULL };
	uint8_t key[EC_CHANNEL_KEY_SIZE];

	if (!l->wanted)
		return false;
	EcListenerKey found = ec_listener_key(l, peer, key);
	explicit_bzero(key, sizeof(key));
	bool keyless = found == EC_LISTENER_KEY_NONE;
	if (found == EC_LISTENER_KEY_UNKNOWN || (c && ec_channel_is_keyless(c) != keyless) ||
			!ec_listener_allows(l, peer, &t->remote, keyless))
		return false;
	g_autoptr(EcSettings) now = ec_listener_tunnel_settings(
			l, peer, &t->remote, (EcMode)t->settings->mode, NULL);
	return now && ec_settings_equal(now, t->settings, own);
}

/* Peers that are not wanted any more. */
static void dismiss(EcAnswer *a)
{
	g_autoptr(GPtrArray) gone = g_ptr_array_new();
	GHashTableIter i;
	EcListener *l;
	EcTunnel *t;

	g_hash_table_iter_init(&i, a->manager->tunnels);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&t)) {
		if (t->listener && !may_stay(t))
			g_ptr_array_add(gone, t);
	}
	for (guint n = 0; n < gone->len; n++)
		ec_manager_forget(a->manager, gone->pdata[n]);
	g_hash_table_iter_init(&i, a->manager->listeners);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&l)) {
		if (!l->wanted)
			ec_listener_set_state(l, EC_LISTENER_DOWN, "", "");
	}
}

void ec_answer_refresh(EcAnswer *a)
{
	g_autoptr(GHashTable) wanted = wanted_ports(a->manager);
	GHashTableIter i;
	gpointer port;

	dismiss(a);
	g_hash_table_iter_init(&i, a->ports);
	while (g_hash_table_iter_next(&i, &port, NULL)) {
		if (!g_hash_table_contains(wanted, port))
			g_hash_table_iter_remove(&i);
	}
	g_hash_table_iter_init(&i, wanted);
	while (g_hash_table_iter_next(&i, &port, NULL))
		open_port(a, (uint16_t)GPOINTER_TO_UINT(port));
}

/* Cords of an earlier daemon */

static EcTunnel *restore(EcManager *m, const char *name, const EcCord *cord)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcListener *l = cord->listener ? g_hash_table_lookup(m->listeners, cord->listener) : NULL;
	EcTunnel *t = ec_manager_find(m, name);

	if (!cord->listener && t && dials(t) && !t->session) {
		t->session = ec_session_new(t);
		return t;
	}
	if (t || !l || !l->wanted || !cord->peer)
		return NULL;
	EcSettings *s = ec_listener_tunnel_settings(
			l, cord->peer, &cord->remote, (EcMode)cord->mode, &error);
	if (!s)
		return NULL;
	g_free(s->identity);
	s->identity = g_strdup(cord->peer);
	g_free(s->interface);
	s->interface = g_strdup(cord->interface);
	if (!g_str_equal(s->name, name)) {
		(void)ec_settings_free(s);
		return NULL;
	}
	return ec_manager_accept(m, l, s, &t, &error) < 0 ? NULL : t;
}

void ec_answer_restore(EcAnswer *a)
{
	EcManager *m = a->manager;
	const char *directory = ec_store_runtime_dir(m->store);
	g_auto(GStrv) names = ec_cord_names(directory);

	for (char **name = names; *name; name++) {
		g_auto(EcCord) cord = { 0 };
		EcTunnel *t = ec_cord_load(directory, *name, &cord) ? restore(m, *name, &cord)
								    : NULL;

		if (t)
			ec_session_adopt(t->session, &cord);
		else
			ec_cord_forget(directory, *name);
	}
}

static void free_acceptor(gpointer acceptor)
{
	(void)ec_acceptor_free(acceptor);
}

int ec_answer_new(EcManager *m, EcAnswer **ret)
{
	EcAnswer *a = g_new0(EcAnswer, 1);

	a->manager = m;
	a->ports = g_hash_table_new_full(NULL, NULL, NULL, free_acceptor);
	*ret = a;
	return 0;
}

EcAnswer *ec_answer_free(EcAnswer *a)
{
	if (!a)
		return NULL;
	(void)sd_event_source_disable_unref(a->again);
	g_hash_table_unref(a->ports);
	g_free(a);
	return NULL;
}
