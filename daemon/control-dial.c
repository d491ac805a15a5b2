/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control-dial.h"

#include <errno.h>
#include <string.h>

#include "control-abilities.h"
#include "control-cord.h"
#include "manager.h"
#include "path.h"

/*
 * From the wish for a peer to its WELCOME: which of the remotes, by which way, with which key, and
 * when again. See control.c for what comes then.
 */

#define REFUSED_USEC 30000000ULL
#define FAILBACK_USEC 30000000ULL

static const EcChannelOps dial_ops;

/* Retries */

static void dial(EcSession *s, size_t target);

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
	EcSession *s = userdata;
	EcTunnel *t = s->tunnel;

	s->retry = sd_event_source_disable_unref(s->retry);
	if (s->phase == EC_PHASE_LIVE && s->channel && t->turn > 0 && t->turn < t->n_remotes &&
			!s->dial)
		dial(s, 0); /* is an earlier one of the remotes back? */
	else
		ec_tunnel_refresh(t);
	return 0;
}

static void retry_in(EcSession *s, uint64_t usec)
{
	s->retry = sd_event_source_disable_unref(s->retry);
	(void)sd_event_add_time_relative(s->tunnel->manager->event, &s->retry, CLOCK_BOOTTIME,
			ec_jitter_usec(usec), 1, on_retry, s);
}

void ec_dial_later(EcSession *s)
{
	uint64_t usec = s->phase == EC_PHASE_REFUSED ? REFUSED_USEC : ec_backoff_usec(s->attempts);

	/* While the cord carries on, the peer's daemon may be back any moment. */
	if (s->unattended > ec_session_now(s))
		usec = MIN(usec, 1000000);
	s->attempts++;
	retry_in(s, usec);
}

void ec_dial_drop(EcSession *s)
{
	s->dial = ec_channel_free(s->dial);
}

/* Dialing */

static bool has_names(const EcTunnel *t)
{
	EcAddress address;

	for (char **r = t->settings->remote; r && *r; r++) {
		if (ec_address_from_string(*r, &address) < 0)
			return true;
	}
	return false;
}

/* This attempt at t->turn came to nothing: the next remote, or all of them again later. */
static void next_remote(EcSession *s)
{
	EcTunnel *t = s->tunnel;

	if (t->n_remotes > 0 && t->turn + 1 < t->n_remotes) {
		t->turn++;
		dial(s, t->turn);
		return;
	}
	t->turn = 0;
	if (has_names(t))
		ec_tunnel_resolve_again(t);
	ec_dial_later(s);
}

/* What a peer may refuse for, and whether a person has to do something about it. */
static const struct {
	const char *name;
	bool person;
} refusals[] = {
	{ EC_ERROR_REFUSED, true }, /* the first: what is none of these counts as it */
	{ EC_ERROR_WRONG_KEY, true },
	{ EC_ERROR_NOT_PROTECTED, true },
	{ EC_ERROR_NOT_SUPPORTED, true },
	{ EC_ERROR_INVALID_SETTING, true },
	{ EC_ERROR_NO_UNDERLAY, false },
	{ EC_ERROR_BUSY, false },
	{ EC_ERROR_EXISTS, false },
	{ EC_ERROR_LIMIT_EXCEEDED, false },
	{ EC_ERROR_PROTOCOL, false },
	{ EC_ERROR_KERNEL, false },
};

static bool needs_person(const sd_bus_error *why)
{
	for (size_t i = 0; i < EC_ELEMENTS(refusals); i++) {
		if (sd_bus_error_has_name(why, refusals[i].name))
			return refusals[i].person;
	}
	return false;
}

/* An attempt to dial ended with this. A cord that is there goes on. */
void ec_dial_failed(EcSession *s, const sd_bus_error *why)
{
	EcTunnel *t = s->tunnel;
	bool person = needs_person(why);
	bool trial = s->channel && s->phase == EC_PHASE_LIVE;

	ec_dial_drop(s);
	if (trial && s->target + 1 < t->turn) {
		dial(s, s->target + 1);
		return;
	}
	if (trial) {
		retry_in(s, FAILBACK_USEC);
		return;
	}
	if (!s->agreement.encap)
		ec_session_set_phase(s, person ? EC_PHASE_REFUSED : EC_PHASE_DIALING,
				ec_error_token(why), why->message ? why->message : "");
	else if (person)
		ec_tunnel_event(t, "refused", "reason", why->message, NULL);
	ec_session_schedule(s);
	if (person)
		ec_dial_later(s);
	else
		next_remote(s);
	ec_tunnel_look(t);
}

/* The key shared with the peer, or without one the one that everybody knows, where the VPN stands
 * for the peer. */
static int find_key(EcSession *s, const EcPath *path, uint8_t key[static EC_CHANNEL_KEY_SIZE],
		char **ret_identity, sd_bus_error *ret_error)
{
	EcTunnel *t = s->tunnel;
	const char *name = t->settings->identity ? t->settings->identity : ec_tunnel_name(t);
	int r = ec_store_get_key(t->manager->store, ec_tunnel_name(t), key);

	if (r < 0)
		return ec_error(ret_error, EC_ERROR_WRONG_KEY, "cannot read the key of %s: %s",
				ec_tunnel_name(t), g_strerror(-r));
	if (r == 0 && !path->protect)
		return ec_error(ret_error, EC_ERROR_NOT_PROTECTED,
				"%s has no key, and no VPN vouches for the peer; set a key with "
				"'ethercordctl setkey %s' at both ends, or use a VPN",
				ec_tunnel_name(t), ec_tunnel_name(t));
	if (r == 0) {
		memcpy(key, ec_channel_keyless_key, EC_CHANNEL_KEY_SIZE);
		*ret_identity = g_strdup_printf("%c%s", EC_CHANNEL_KEYLESS, name);
	} else {
		*ret_identity = g_strdup(name);
	}
	return 0;
}

static int try_dial(EcSession *s, size_t target, sd_bus_error *ret_error)
{
	EcTunnel *t = s->tunnel;
	const EcEncap *candidates[EC_ENCAPS_MAX + 1];
	uint8_t key[EC_CHANNEL_KEY_SIZE];
	g_autofree char *identity = NULL;
	char text[INET6_ADDRSTRLEN];
	EcPath path = { 0 };
	int r = ec_session_abilities(
			t->manager, t->settings, &t->remotes[target], candidates, &path, ret_error);

	if (r >= 0)
		r = find_key(s, &path, key, &identity, ret_error);
	if (r < 0)
		return r;
	EcChannelRoute route = {
		.remote = t->remotes[target],
		.port = t->settings->port,
		.local = path.local,
		.fwmark = t->settings->fwmark,
	};
	if (path.fence == EC_FENCE_INTERFACE)
		g_strlcpy(route.device, path.device, sizeof(route.device));
	g_autofree char *port = g_strdup_printf("%u", route.port);
	ec_tunnel_event(t, "dialling", "remote", ec_address_to_string(&route.remote, text), "port",
			port, NULL);
	if (!s->agreement.encap && s->phase != EC_PHASE_REFUSED && !*s->sentence) {
		g_autofree char *sentence = g_strdup_printf("dialling %s port %s", text, port);
		ec_session_set_phase(s, EC_PHASE_DIALING, "Dialling", sentence);
	}
	s->way = path.local;
	s->way_ifindex = path.ifindex;
	s->target = target;
	r = ec_channel_dial(t->manager->event, &route, identity, key, &dial_ops, s, &s->dial,
			ret_error);
	explicit_bzero(key, sizeof(key));
	return r;
}

static void dial(EcSession *s, size_t target)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;

	ec_dial_drop(s);
	s->retry = sd_event_source_disable_unref(s->retry);
	if (try_dial(s, target, &error) < 0)
		ec_dial_failed(s, &error);
}

/* Dials if there is reason to: no channel, one by a way that is no more, or a peer that does not
 * answer. */
void ec_dial_keep(EcSession *s)
{
	const EcTunnel *t = s->tunnel;
	bool moved = (s->dial || (s->channel && s->leads)) &&
		     (!ec_address_equal(&s->way, &t->path.local) ||
				     s->way_ifindex != t->path.ifindex) &&
		     s->target == t->turn;

	/* A channel that was made since the peer was lost works, though frames do not cross. */
	bool works = s->channel && (s->phase != EC_PHASE_LOST || s->since > s->lost);

	if (!moved && (s->dial || s->retry || works))
		return;
	if (moved) {
		s->attempts = 0;
		ec_session_hush(s);
	}
	if (!t->announced) /* not before anybody can see it */
		retry_in(s, 0);
	else if (t->turn < t->n_remotes)
		dial(s, t->turn);
}

/* What came */

void ec_dial_refused(EcSession *s, const EcControlMessage *m)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	size_t i = EC_ELEMENTS(refusals) - 1;

	while (i > 0 && !g_str_equal(refusals[i].name + strlen(EC_ERROR_PREFIX), m->error))
		i--;
	(void)ec_error(&error, refusals[i].name, "the peer says: %s", m->text);
	ec_tunnel_event(s->tunnel, "refused", "reason", m->text, NULL);
	/* Without the peer's end there is no cord; nor with an id that it has given to another. */
	if (!s->channel && (!s->crossed || refusals[i].person || g_str_equal(m->error, "Exists")))
		ec_cord_drop(s);
	ec_dial_failed(s, &error);
}

static int check_protocol(const EcControlMessage *m, sd_bus_error *ret_error)
{
	if (m->protocol == EC_CONTROL_PROTOCOL)
		return 0;
	return ec_error(ret_error, EC_ERROR_NOT_SUPPORTED,
			"the peer's ethercord speaks protocol %u, this one %u; bring the older one "
			"up to date",
			m->protocol, EC_CONTROL_PROTOCOL);
}

/* The peer stands at the other end of dial: decide, and make it the cord's channel. */
static void on_welcome(EcSession *s, const EcControlMessage *m)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcTunnel *t = s->tunnel;
	bool same_machine = s->instance == m->instance;

	if (check_protocol(m, &error) < 0) {
		ec_session_refuse(s->dial, &error);
		ec_dial_failed(s, &error);
		return;
	}
	ec_tunnel_event(t, "welcomed", "peer", m->name, NULL);
	g_free(t->peer);
	t->peer = g_strdup(m->name);
	ec_tunnel_touch(t, EC_PROPERTY_PEER);
	if (s->channel) { /* one that is there already is left for this one */
		EcControlMessage bye = { .type = EC_CONTROL_BYE };

		g_strlcpy(bye.error, same_machine ? EC_BYE_MOVED : EC_BYE_DOWN, sizeof(bye.error));
		ec_channel_send(s->channel, &bye);
		s->channel = ec_channel_free(s->channel);
	}
	if (s->unattended || s->crossed) {
		s->reconnects++;
		ec_tunnel_event(t, "control-back", NULL);
	}
	t->turn = s->target;
	s->instance = m->instance;
	ec_session_attach(s, g_steal_pointer(&s->dial), true);
	s->round = 0;
	s->refused[0] = NULL;
	g_free(s->welcome);
	s->welcome = g_memdup2(m, sizeof(*m));
	if (t->turn > 0)
		retry_in(s, FAILBACK_USEC);
	ec_session_choose(s);
}

static void on_dial_message(EcChannel *c, const EcControlMessage *m, void *userdata)
{
	EcSession *s = userdata;

	if (m->type == EC_CONTROL_WELCOME)
		on_welcome(s, m);
	else if (m->type == EC_CONTROL_REFUSE)
		ec_dial_refused(s, m);
}

static void on_dial_closed(EcChannel *c, const sd_bus_error *why, void *userdata)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcSession *s = userdata;
	char text[INET6_ADDRSTRLEN];

	/* A machine that refuses is there, and its kernel carries on. */
	if (s->crossed && s->unattended && ec_channel_errno(c) == ECONNREFUSED)
		s->unattended = ec_session_now(s) + EC_DIAL_AWAY_USEC;
	if (sd_bus_error_is_set(why))
		(void)sd_bus_error_copy(&error, why);
	else
		(void)ec_error(&error, EC_ERROR_PEER_UNREACHABLE,
				"%s port %u closed the connection without a word",
				ec_address_to_string(ec_channel_remote(c), text),
				ec_channel_remote_port(c));
	ec_dial_failed(s, &error);
}

static const EcChannelOps dial_ops = { .message = on_dial_message, .closed = on_dial_closed };
