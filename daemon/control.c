/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "control-cord.h"
#include "log.h"
#include "manager.h"
#include "path.h"
#include "reconcile.h"

/*
 * DOC: Theory of operation
 *
 * A session is two things that live apart. The *cord* is what was agreed, the interface made of it,
 * and the probes that cross it (control-cord.c). The *channel* is the TLS connection on which it
 * was agreed. The cord outlives the channel: a daemon that dies or restarts at either end costs no
 * frame, the next channel finds the cord as it is.
 *
 *   phase     leaves by
 *   IDLE      a path is there -> DIALING
 *   DIALING   WELCOME came, CHOOSE sent -> PROVING; REFUSE, wrong key -> REFUSED
 *             no answer, closed -> next remote at once, after the last one again later
 *   PROVING   frames of the agreed size crossed both ways -> LIVE
 *             they did not -> CHOOSE of the next encapsulation, and when there is none, of the one
 *             that carried the largest frames; when none carried any -> DIALING, later
 *   LIVE      no answer for keepalive-timeout -> LOST; BYE "down" -> DIALING
 *   LOST      an answer -> LIVE; a new channel -> PROVING
 *   REFUSED   as DIALING, every 30 s: the other end may have been put right
 *
 * Messages, dialer left and acceptor right; TCP and TLS take two round trips, the WELCOME comes
 * with the second, and the dialer's first probe follows its CHOOSE:
 *
 *                 <- WELCOME   capabilities, free ids, MTU, MAC
 *   CHOOSE        ->           encapsulation, id, ports, MTU, size to prove, MAC
 *                 <- READY     the acceptor's end is made: from now silence is the path's
 *   (probes       <->          through the cord, see liveness.c)
 *   CHOOSE ...    ->           the next round, if the probes did not cross
 *   PING          ->           every 15 s; NATs forget connections that are silent
 *                 <- PONG
 *   BYE           <->          "down": take the cord down; "restart": it stays
 *                 <- REFUSE    at any time, with a sentence
 *
 * A channel that ends without BYE, or with BYE "restart", leaves the cord *unattended*: the peer's
 * daemon may be gone while its kernel carries on. For a while no answer is no loss then; a dialer
 * extends it as long as the peer's machine refuses connections, since a machine that refuses is
 * there.
 *
 * Both ends may dial (two tunnels of one name): the one with the lower nonce prevails, decided at
 * the CHOOSE by both alike.
 *
 * A dialer whose path changed (other source address, other device) dials anew at once; the acceptor
 * knows it by its key and moves the cord there. Nothing from an address is believed because it came
 * from there.
 */

#define RETRY_FIRST_USEC 200000ULL
#define RETRY_LAST_USEC 30000000ULL
#define PING_USEC 15000000ULL
#define PONG_USEC 5000000ULL
#define SILENT_USEC 60000000ULL   /* an acceptor that hears no PING for so long drops the channel */
#define UNPROVEN_USEC 10000000ULL /* the same, as long as no frame has crossed */
#define READY_USEC 5000000ULL
/* How long a cord may be unattended: the time a daemon takes to come back. */
#define AWAY_ACCEPTOR_USEC 60000000ULL
#define AWAY_DIALER_USEC 10000000ULL
/* A peer of a listener that does not come back is forgotten; its own daemon knows how to come. */
#define KEEP_USEC 3600000000ULL
#define FAILBACK_USEC 30000000ULL

static const EcChannelOps dial_ops, channel_ops;

uint64_t ec_session_now(const EcSession *s)
{
	uint64_t usec = 0;

	(void)sd_event_now(s->tunnel->manager->event, CLOCK_BOOTTIME, &usec);
	return usec;
}

static uint64_t random64(void)
{
	uint64_t n = 0;

	(void)getrandom(&n, sizeof(n), 0);
	return n;
}

/* The one writer of the phase. sentence is copied; token is a constant or interned. */
void ec_session_set_phase(EcSession *s, EcPhase phase, const char *token, const char *sentence)
{
	if (phase == EC_PHASE_LOST && s->phase != EC_PHASE_LOST)
		s->lost = ec_session_now(s);
	s->phase = phase;
	s->token = g_intern_string(token);
	g_free(s->sentence);
	s->sentence = g_strdup(sentence);
}

EcState ec_session_state(const EcSession *s, const char **ret_token, const char **ret_sentence)
{
	static const EcState state[] = {
		[EC_PHASE_IDLE] = EC_STATE_WAITING,
		[EC_PHASE_DIALING] = EC_STATE_CONNECTING,
		[EC_PHASE_PROVING] = EC_STATE_CONNECTING,
		[EC_PHASE_LIVE] = EC_STATE_UP,
		[EC_PHASE_LOST] = EC_STATE_DEGRADED,
		[EC_PHASE_REFUSED] = EC_STATE_FAILED,
	};

	*ret_token = s->token;
	*ret_sentence = s->sentence;
	return state[s->phase];
}

bool ec_session_is_dormant(const EcSession *s)
{
	return s->phase != EC_PHASE_LIVE;
}

/* A MAC derived for this machine and name is as unique as the machine. */
uint64_t ec_session_instance(EcManager *m, const char *name)
{
	uint64_t instance = 0;

	ec_manager_mac(m, "instance", name, (uint8_t *)&instance);
	return instance;
}

/* Retries */

static void dial(EcSession *s, size_t target);

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
	EcSession *s = userdata;
	EcTunnel *t = s->tunnel;

	s->retry = sd_event_source_disable_unref(s->retry);
	if (s->phase == EC_PHASE_LIVE && s->channel && t->turn > 0 && t->turn < t->n_remotes &&
			!s->dial)
		dial(s, 0); /* is the first of the remotes back? */
	else
		ec_tunnel_refresh(t);
	return 0;
}

static void retry_in(EcSession *s, uint64_t usec)
{
	/* At random up to a quarter earlier: many tunnels do not ask at once. */
	usec -= usec / 4 * (uint64_t)g_random_int_range(0, 1000) / 1000;
	s->retry = sd_event_source_disable_unref(s->retry);
	(void)sd_event_add_time_relative(
			s->tunnel->manager->event, &s->retry, CLOCK_BOOTTIME, usec, 1, on_retry, s);
}

static void retry_later(EcSession *s)
{
	uint64_t usec = MIN(RETRY_FIRST_USEC << MIN(s->attempts, 10), RETRY_LAST_USEC);

	if (s->phase == EC_PHASE_REFUSED)
		usec = RETRY_LAST_USEC;
	/* While the cord carries on, the peer's daemon may be back any moment. */
	if (s->unattended > ec_session_now(s))
		usec = MIN(usec, 1000000);
	s->attempts++;
	retry_in(s, usec);
}

static void drop_dial(EcSession *s)
{
	s->dial = ec_channel_free(s->dial);
}

/* Timer of the channel and of the time unattended: at most one thing is waited for at a time. */

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata);

static void set_timer(EcSession *s, uint64_t usec)
{
	if (!s->timer) {
		(void)sd_event_add_time(s->tunnel->manager->event, &s->timer, CLOCK_BOOTTIME, usec,
				100000, on_timer, s);
		return;
	}
	(void)sd_event_source_set_time(s->timer, usec);
	(void)sd_event_source_set_enabled(s->timer, SD_EVENT_ONESHOT);
}

/* For so long the other end of a channel that it leads may say nothing. */
static uint64_t silence(const EcSession *s)
{
	return s->crossed ? SILENT_USEC : UNPROVEN_USEC;
}

void ec_session_schedule(EcSession *s)
{
	uint64_t now = ec_session_now(s), next = UINT64_MAX;

	if (s->channel && s->leads && !s->ready)
		next = s->ponged + READY_USEC;
	else if (s->channel && s->leads)
		next = s->pinged ? s->ponged + PING_USEC + PONG_USEC : s->ponged + PING_USEC;
	else if (s->channel)
		next = s->ponged + silence(s);
	else if (s->unattended > now)
		next = s->unattended;
	else if (s->phase == EC_PHASE_LOST && s->tunnel->listener)
		next = s->lost + KEEP_USEC;
	if (s->paused && s->phase == EC_PHASE_LIVE)
		next = MIN(next, s->paused + s->tunnel->settings->keepalive_timeout * 1000ULL);
	if (next != UINT64_MAX)
		set_timer(s, next);
	else if (s->timer)
		(void)sd_event_source_set_enabled(s->timer, SD_EVENT_OFF);
}

static void ping(EcSession *s)
{
	EcControlMessage m = { .type = EC_CONTROL_PING, .seq = ++s->pinged };

	ec_channel_send(s->channel, &m);
}

/* A cord that was accepted ends; the tunnel with it, and this session. */
static void abandon(EcSession *s)
{
	EcTunnel *t = s->tunnel;

	s->channel = ec_channel_free(s->channel);
	ec_cord_drop(s);
	if (t->listener)
		ec_manager_forget(t->manager, t);
	else
		ec_tunnel_refresh(t);
}

/* The channel is no more. away: µs for which the cord may be unattended. */
static void lose_channel(EcSession *s, uint64_t away, const char *why)
{
	EcTunnel *t = s->tunnel;

	s->channel = ec_channel_free(s->channel);
	g_clear_pointer(&s->welcome, g_free);
	s->unattended = s->crossed && away ? ec_session_now(s) + away : 0;
	ec_tunnel_event(t, "control-lost", "reason", why, NULL);
	if (!s->crossed && !s->dials) { /* there is no cord to be kept */
		abandon(s);
		return;
	}
	if (!s->crossed) {
		ec_cord_drop(s);
		ec_session_set_phase(s, EC_PHASE_DIALING, ec_error_token(NULL), why);
	}
	ec_session_schedule(s);
	ec_tunnel_refresh(t);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	EcSession *s = userdata;
	uint64_t now = ec_session_now(s);

	if (s->paused && s->phase == EC_PHASE_LIVE &&
			now >= s->paused + s->tunnel->settings->keepalive_timeout * 1000ULL) {
		ec_cord_pause(s);
		ec_tunnel_refresh(s->tunnel);
	} else if (!s->channel) {
		if (s->unattended && now >= s->unattended) {
			s->unattended = 0;
			ec_cord_judge(s);
		} else if (s->phase == EC_PHASE_LOST && s->tunnel->listener &&
				now >= s->lost + KEEP_USEC) {
			ec_manager_forget(s->tunnel->manager, s->tunnel);
			return 0;
		}
	} else if (s->leads && !s->ready && now >= s->ponged + READY_USEC) {
		lose_channel(s, 0, "the peer did not say that its end is ready");
		return 0;
	} else if (!s->leads && now >= s->ponged + silence(s)) {
		lose_channel(s, 0, "the control channel is silent");
		return 0;
	} else if (s->leads && s->pinged && now >= s->ponged + PING_USEC + PONG_USEC) {
		lose_channel(s, 0, "the control channel does not answer");
		return 0;
	} else if (s->leads && s->ready && !s->pinged && now >= s->ponged + PING_USEC) {
		ping(s);
	}
	ec_session_schedule(s);
	return 0;
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
	retry_later(s);
}

/* An attempt to dial ended with this. A cord that is there goes on. */
static void dial_failed(EcSession *s, const sd_bus_error *why)
{
	EcTunnel *t = s->tunnel;
	bool person = sd_bus_error_has_name(why, EC_ERROR_WRONG_KEY) ||
		      sd_bus_error_has_name(why, EC_ERROR_REFUSED) ||
		      sd_bus_error_has_name(why, EC_ERROR_NOT_PROTECTED) ||
		      sd_bus_error_has_name(why, EC_ERROR_NOT_SUPPORTED) ||
		      sd_bus_error_has_name(why, EC_ERROR_INVALID_SETTING);
	bool trial = s->channel && s->phase == EC_PHASE_LIVE;

	drop_dial(s);
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
		retry_later(s);
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

	drop_dial(s);
	s->retry = sd_event_source_disable_unref(s->retry);
	if (try_dial(s, target, &error) < 0)
		dial_failed(s, &error);
}

/* Dials if there is reason to: no channel, one by a way that is no more, or a peer that does not
 * answer. */
static void keep_dialing(EcSession *s)
{
	const EcTunnel *t = s->tunnel;
	bool moved = (s->dial || (s->channel && s->leads)) &&
		     (!ec_address_equal(&s->way, &t->path.local) ||
				     s->way_ifindex != t->path.ifindex) &&
		     s->target == t->turn;

	if (moved) {
		s->attempts = 0;
	} else if (s->dial || s->retry) {
		return;
	} else if (s->channel && s->phase != EC_PHASE_LOST) {
		return;
	}
	if (!t->announced) /* not before anybody can see it */
		retry_in(s, 0);
	else if (t->turn < t->n_remotes)
		dial(s, t->turn);
}

/* What came */

static void refuse(EcChannel *c, const sd_bus_error *why)
{
	EcControlMessage m = { .type = EC_CONTROL_REFUSE };

	g_strlcpy(m.error, ec_error_token(why), sizeof(m.error));
	g_strlcpy(m.text, why->message ? why->message : "refused", sizeof(m.text));
	ec_channel_send(c, &m);
}

static void on_refused(EcSession *s, const EcControlMessage *m)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autofree char *name = g_strconcat(EC_ERROR_PREFIX, m->error, NULL);

	/* A name of ours, or refused. */
	(void)ec_error(&error, name, "the peer says: %s", m->text);
	if (g_str_equal(ec_error_token(&error), "Failed")) {
		sd_bus_error_free(&error);
		(void)ec_error(&error, EC_ERROR_REFUSED, "the peer says: %s", m->text);
	}
	ec_tunnel_event(s->tunnel, "refused", "reason", m->text, NULL);
	dial_failed(s, &error);
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
		refuse(s->dial, &error);
		dial_failed(s, &error);
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
	if (!same_machine && s->instance && s->target != t->turn)
		ec_cord_drop(s);
	if (s->unattended || s->crossed) {
		s->reconnects++;
		ec_tunnel_event(t, "control-back", NULL);
	}
	t->turn = s->target;
	s->instance = m->instance;
	s->channel = g_steal_pointer(&s->dial);
	ec_channel_set_owner(s->channel, &channel_ops, s);
	s->leads = true;
	s->attempts = 0;
	s->unattended = 0;
	s->round = 0;
	s->refused[0] = NULL;
	s->lesser = false;
	g_free(s->welcome);
	s->welcome = g_memdup2(m, sizeof(*m));
	s->ponged = ec_session_now(s);
	s->pinged = 0;
	if (t->turn > 0)
		retry_in(s, FAILBACK_USEC);
	ec_session_choose(s);
}

/* The next round, or why there is none. */
void ec_session_choose(EcSession *s)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcTunnel *t = s->tunnel;

	if (ec_cord_choose(s, &error) >= 0) {
		s->ready = false;
		s->ponged = ec_session_now(s);
		ec_session_schedule(s);
		ec_tunnel_refresh(t);
		return;
	}
	EcControlMessage bye = { .type = EC_CONTROL_BYE, .error = EC_BYE_DOWN };
	g_strlcpy(bye.text, error.message ? error.message : "", sizeof(bye.text));
	ec_channel_send(s->channel, &bye);
	s->channel = ec_channel_free(s->channel);
	s->barren = s->refused[0] != NULL;
	ec_cord_drop(s);
	dial_failed(s, &error);
	ec_tunnel_refresh(t);
}

static void on_dial_message(EcChannel *c, const EcControlMessage *m, void *userdata)
{
	EcSession *s = userdata;

	if (m->type == EC_CONTROL_WELCOME)
		on_welcome(s, m);
	else if (m->type == EC_CONTROL_REFUSE)
		on_refused(s, m);
}

static void on_dial_closed(EcChannel *c, const sd_bus_error *why, void *userdata)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcSession *s = userdata;
	char text[INET6_ADDRSTRLEN];

	/* A machine that refuses is there, and its kernel carries on. */
	if (s->crossed && s->unattended && ec_channel_errno(c) == ECONNREFUSED)
		s->unattended = ec_session_now(s) + AWAY_DIALER_USEC;
	if (sd_bus_error_is_set(why))
		(void)sd_bus_error_copy(&error, why);
	else
		(void)ec_error(&error, EC_ERROR_PEER_UNREACHABLE,
				"%s port %u closed the connection without a word",
				ec_address_to_string(ec_channel_remote(c), text),
				ec_channel_remote_port(c));
	dial_failed(s, &error);
}

static const EcChannelOps dial_ops = { .message = on_dial_message, .closed = on_dial_closed };

/* The peer takes the cord down. */
static void on_bye(EcSession *s, const EcControlMessage *m)
{
	EcTunnel *t = s->tunnel;

	ec_tunnel_event(t, "bye", "reason", m->error, "text", m->text, NULL);
	if (!g_str_equal(m->error, EC_BYE_DOWN)) {
		bool restart = g_str_equal(m->error, EC_BYE_RESTART);

		lose_channel(s,
				!restart   ? 0
				: s->leads ? AWAY_DIALER_USEC
					   : AWAY_ACCEPTOR_USEC,
				"the peer's daemon goes; the cord stays");
		return;
	}
	if (!s->dials) {
		abandon(s);
		return;
	}
	s->channel = ec_channel_free(s->channel);
	ec_cord_drop(s);
	g_autofree char *sentence = g_strdup_printf(
			"the peer took the cord down%s%s", m->text[0] ? ": " : "", m->text);
	ec_session_set_phase(s, EC_PHASE_DIALING, "PeerUnreachable", sentence);
	s->attempts = 2;
	retry_later(s);
	ec_tunnel_refresh(t);
}

static void on_message(EcChannel *c, const EcControlMessage *m, void *userdata)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcSession *s = userdata;
	EcControlMessage pong = { .type = EC_CONTROL_PONG, .seq = m->seq };

	s->ponged = ec_session_now(s);
	switch (m->type) {
	case EC_CONTROL_CHOOSE:
		if (s->leads)
			break;
		if (ec_cord_accept(s, m, &error) < 0) {
			refuse(c, &error);
			abandon(s);
		}
		break;
	case EC_CONTROL_READY:
		if (s->leads && m->round == s->round)
			ec_cord_ready(s);
		break;
	case EC_CONTROL_PING:
		ec_channel_send(c, &pong);
		break;
	case EC_CONTROL_PONG:
		s->pinged = 0;
		ec_session_schedule(s);
		break;
	case EC_CONTROL_BYE:
		on_bye(s, m);
		break;
	case EC_CONTROL_REFUSE:
		ec_cord_drop(s);
		s->channel = ec_channel_free(s->channel);
		on_refused(s, m);
		ec_tunnel_refresh(s->tunnel);
		break;
	case EC_CONTROL_WELCOME:
	case _EC_CONTROL_TYPE_MAX:
		break;
	}
}

static void on_closed(EcChannel *c, const sd_bus_error *why, void *userdata)
{
	EcSession *s = userdata;
	int error = ec_channel_errno(c);
	bool by_peer = error == 0 || error == ECONNRESET || error == EPIPE;

	lose_channel(s,
			!by_peer   ? 0
			: s->leads ? AWAY_DIALER_USEC
				   : AWAY_ACCEPTOR_USEC,
			why && why->message ? why->message : "the peer closed the connection");
}

static const EcChannelOps channel_ops = { .message = on_message, .closed = on_closed };

/* What others ask of a session */

int ec_session_attempt(EcSession *s, sd_bus_error *ret_error)
{
	const EcEncap *candidates[EC_ENCAPS_MAX + 1];
	EcTunnel *t = s->tunnel;
	int r = s->agreement.encap ? ec_reconcile(t, ret_error)
				   : ec_path_find(t, candidates, ret_error);

	if (r > 0 && s->agreement.encap)
		r = ec_cord_bind(s, ret_error);
	if (r == 0) {
		ec_cord_pause(s);
		drop_dial(s);
	}
	if (r <= 0)
		return r;
	if (s->phase == EC_PHASE_IDLE)
		ec_session_set_phase(s, EC_PHASE_DIALING, "Dialling", "");
	if (s->dials)
		keep_dialing(s);
	return 1;
}

void ec_session_hurry(EcSession *s)
{
	s->attempts = 0;
	s->retry = sd_event_source_disable_unref(s->retry);
	if (s->phase == EC_PHASE_REFUSED)
		ec_session_set_phase(s, EC_PHASE_DIALING, "Dialling", "");
}

void ec_session_wake(EcSession *s)
{
	/* What waits for a person, or for an earlier remote, is not waiting for the network. */
	if (s->phase != EC_PHASE_REFUSED && s->phase != EC_PHASE_LIVE)
		s->retry = sd_event_source_disable_unref(s->retry);
}

bool ec_session_prevails(const EcSession *s, uint64_t nonce)
{
	/* A channel of some age is one that the peer lost, or it would not dial. */
	bool young = s->channel && s->leads && s->phase != EC_PHASE_LOST &&
		     ec_session_now(s) < s->since + READY_USEC;
	bool dialing = s->dial && ec_channel_is_open(s->dial);

	return (young || dialing) && s->nonce < nonce;
}

int ec_session_take(
		EcSession *s, EcChannel *c, const EcControlMessage *choose, sd_bus_error *ret_error)
{
	EcTunnel *t = s->tunnel;
	bool back = s->crossed > 0;

	drop_dial(s);
	s->retry = sd_event_source_disable_unref(s->retry);
	s->channel = ec_channel_free(s->channel);
	s->channel = c;
	ec_channel_set_owner(c, &channel_ops, s);
	s->leads = false;
	s->instance = choose->instance;
	s->unattended = 0;
	s->attempts = 0;
	s->since = s->ponged = ec_session_now(s);
	g_free(t->peer);
	t->peer = g_strdup(choose->name);
	ec_tunnel_touch(t, EC_PROPERTY_PEER);
	if (back) {
		s->reconnects++;
		ec_tunnel_event(t, "control-back", NULL);
	}
	if (!ec_address_equal(&t->remote, ec_channel_remote(c)))
		ec_tunnel_move(t, ec_channel_remote(c));
	ec_session_schedule(s);
	int r = ec_cord_accept(s, choose, ret_error);
	if (r < 0)
		s->channel = NULL; /* the caller's again */
	return r;
}

static void say_bye(EcSession *s, const char *why)
{
	EcControlMessage bye = { .type = EC_CONTROL_BYE };

	if (!s->channel)
		return;
	g_strlcpy(bye.error, why, sizeof(bye.error));
	ec_channel_send(s->channel, &bye);
	s->channel = ec_channel_free(s->channel);
}

void ec_session_end(EcSession *s)
{
	say_bye(s, EC_BYE_DOWN);
	drop_dial(s);
	s->retry = sd_event_source_disable_unref(s->retry);
	s->timer = sd_event_source_disable_unref(s->timer);
	ec_cord_drop(s);
	ec_session_set_phase(s, EC_PHASE_IDLE, "", "");
	s->attempts = 0;
	s->unattended = 0;
	s->instance = 0;
	g_clear_pointer(&s->tunnel->peer, g_free);
	ec_tunnel_touch(s->tunnel, EC_PROPERTY_PEER);
}

void ec_session_adopt(EcSession *s, const EcCord *cord)
{
	s->agreement = cord->agreement;
	s->instance = cord->instance;
	s->crossed = cord->proven ? cord->agreement.size : 0;
	ec_cord_settle_terms(s);
	if (!s->crossed) {
		ec_session_set_phase(s, EC_PHASE_PROVING, "", "");
		return;
	}
	s->unattended = ec_session_now(s) + (s->dials ? AWAY_DIALER_USEC : AWAY_ACCEPTOR_USEC);
	ec_session_set_phase(s, EC_PHASE_LIVE, "", "");
	ec_session_schedule(s);
}

EcSession *ec_session_new(EcTunnel *t)
{
	EcSession *s = g_new0(EcSession, 1);

	s->tunnel = t;
	s->dials = !t->listener;
	s->nonce = random64();
	ec_session_set_phase(s, EC_PHASE_IDLE, "", "");
	return s;
}

EcSession *ec_session_free(EcSession *s)
{
	if (!s)
		return NULL;
	say_bye(s, EC_BYE_RESTART);
	drop_dial(s);
	(void)sd_event_source_disable_unref(s->retry);
	(void)sd_event_source_disable_unref(s->timer);
	ec_cord_free(s);
	g_free(s->welcome);
	g_free(s->sentence);
	g_free(s);
	return NULL;
}

void ec_session_resettle(EcSession *s)
{
	ec_cord_settle_terms(s);
	ec_session_hurry(s);
	if (!s->dials)
		return;
	drop_dial(s);
	if (s->channel && s->leads)
		say_bye(s, EC_BYE_MOVED);
}
