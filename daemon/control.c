/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "control-cord.h"
#include "control-dial.h"
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
 *             small ones did, and both ends are workers -> CHOOSE of the same in pieces
 *             they did not -> CHOOSE of the next encapsulation, and when there is none, of the one
 *             that carried the largest frames; when none carried any -> DIALING, later
 *   LIVE      no answer for keepalive-timeout -> LOST; BYE "down" -> DIALING
 *   LOST      an answer -> LIVE; a new channel: dialled at once, and frames are tried again
 *             10 s in which the peer answers PINGs -> another encapsulation, if there is one
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
 *   PING          ->           every 30 s; NATs forget connections that are silent
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

#define PING_USEC 30000000ULL
#define PONG_USEC 5000000ULL
#define SILENT_USEC                                                                                \
	100000000ULL              /* an acceptor that hears no PING for so long drops the channel  \
				   */
#define UNPROVEN_USEC 10000000ULL /* the same, as long as no frame has crossed */
#define READY_USEC 5000000ULL
#define SHORT_USEC 1000000ULL /* a channel that lasted no longer did not work */
/* How long a cord may be unattended: the time a daemon takes to come back. */
#define AWAY_ACCEPTOR_USEC 60000000ULL
/* A lost peer whose daemon answers: the path may have begun to drop this encapsulation. */
#define ANOTHER_USEC 10000000ULL
#define ASK_USEC 2000000ULL /* between PINGs meanwhile: does it answer? */
/* A peer of a listener that does not come back is forgotten; its own daemon knows how to come. */
#define KEEP_USEC 3600000000ULL

static const EcChannelOps channel_ops;

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
	return s->phase != EC_PHASE_LIVE && !(s->phase == EC_PHASE_PROVING && s->coming);
}

/* A MAC derived for this machine and name is as unique as the machine. */
uint64_t ec_session_instance(EcManager *m, const char *name)
{
	uint64_t instance = 0;

	ec_manager_mac(m, "instance", name, (uint8_t *)&instance);
	return instance;
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

/* When the peer's daemon will have answered for long enough while no frame crossed. */
static uint64_t for_another(const EcSession *s)
{
	return s->ponged + PONG_USEC < ec_session_now(s)
			       ? UINT64_MAX
			       : MAX(s->lost, s->answering) + ANOTHER_USEC;
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
	else if (s->tunnel->listener && !s->crossed)
		next = s->since + UNPROVEN_USEC;
	else if (s->phase == EC_PHASE_LOST && s->tunnel->listener)
		next = s->lost + KEEP_USEC;
	if (s->phase == EC_PHASE_LOST && s->channel && s->leads && s->ready)
		next = MIN(next, MIN(MAX(for_another(s), now), s->asked + ASK_USEC));
	if (s->paused && s->phase == EC_PHASE_LIVE)
		next = MIN(next, s->paused + s->tunnel->settings->keepalive_timeout * 1000ULL);
	if (next != UINT64_MAX)
		set_timer(s, next);
	else if (s->timer)
		(void)sd_event_source_set_enabled(s->timer, SD_EVENT_OFF);
}

/* Of the cord as this end sees it, for whoever looks at the other end's side of a loss. */
static void add_counters(const EcSession *s, EcControlMessage *m)
{
	const EcTunnel *t = s->tunnel;
	g_auto(EcLink) link = { 0 };

	if (t->ifindex)
		(void)ec_kernel_link_counters(t->manager->kernel, t->ifindex, &link);
	m->rx_packets = link.rx_packets;
	m->tx_packets = link.tx_packets;
}

static void ping(EcSession *s)
{
	EcControlMessage m = { .type = EC_CONTROL_PING, .seq = ++s->pinged };

	add_counters(s, &m);
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
		ec_session_set_phase(s, EC_PHASE_DIALING, "PeerUnreachable", why);
	}
	/* A peer that always ends it is not asked without a pause. */
	if (s->dials && (!s->crossed || ec_session_now(s) < s->since + SHORT_USEC))
		ec_dial_later(s);
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
		} else if (s->tunnel->listener &&
				((!s->crossed && now >= s->since + UNPROVEN_USEC) ||
						(s->phase == EC_PHASE_LOST &&
								now >= s->lost + KEEP_USEC))) {
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
	} else if (s->leads && s->ready && s->phase == EC_PHASE_LOST && now >= for_another(s)) {
		s->lost = now;
		ec_cord_try_another(s);
	} else if (s->leads && s->ready && s->phase == EC_PHASE_LOST &&
			now >= s->asked + ASK_USEC) {
		s->asked = now;
		ping(s);
	}
	ec_session_schedule(s);
	return 0;
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
	/* A cord that works is kept: what is wrong may be over the next time. */
	EcControlMessage bye = { .type = EC_CONTROL_BYE };
	g_strlcpy(bye.error, s->crossed ? EC_BYE_MOVED : EC_BYE_DOWN, sizeof(bye.error));
	g_strlcpy(bye.text, error.message ? error.message : "", sizeof(bye.text));
	ec_channel_send(s->channel, &bye);
	s->channel = ec_channel_free(s->channel);
	s->barren = s->refused[0] != NULL;
	if (!s->crossed)
		ec_cord_drop(s);
	ec_dial_failed(s, &error);
	ec_tunnel_refresh(t);
}

void ec_session_refusal(EcControlMessage *m, const sd_bus_error *why)
{
	*m = (EcControlMessage){ .type = EC_CONTROL_REFUSE };
	g_strlcpy(m->error, ec_error_token(why), sizeof(m->error));
	g_strlcpy(m->text, why->message ? why->message : "refused", sizeof(m->text));
}

void ec_session_refuse(EcChannel *c, const sd_bus_error *why)
{
	EcControlMessage m;

	ec_session_refusal(&m, why);
	ec_channel_send(c, &m);
}

/* The peer takes the cord down. */
static void on_bye(EcSession *s, const EcControlMessage *m)
{
	EcTunnel *t = s->tunnel;

	ec_tunnel_event(t, "bye", "reason", m->error, "text", m->text, NULL);
	if (!g_str_equal(m->error, EC_BYE_DOWN)) {
		bool restart = g_str_equal(m->error, EC_BYE_RESTART);

		lose_channel(s,
				!restart   ? 0
				: s->leads ? EC_DIAL_AWAY_USEC
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
	ec_dial_later(s);
	ec_tunnel_refresh(t);
}

static void on_message(EcChannel *c, const EcControlMessage *m, void *userdata)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	EcSession *s = userdata;
	EcControlMessage pong = { .type = EC_CONTROL_PONG, .seq = m->seq };

	if (ec_session_now(s) > s->ponged + PONG_USEC)
		s->answering = ec_session_now(s);
	s->ponged = ec_session_now(s);
	switch (m->type) {
	case EC_CONTROL_CHOOSE:
		if (s->leads)
			break;
		if (ec_cord_accept(s, m, &error) < 0) {
			ec_session_refuse(c, &error);
			abandon(s);
		}
		break;
	case EC_CONTROL_READY:
		if (s->leads && m->round == s->round)
			ec_cord_ready(s);
		break;
	case EC_CONTROL_PING:
		add_counters(s, &pong);
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
		s->channel = ec_channel_free(s->channel);
		ec_dial_refused(s, m);
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
			: s->leads ? EC_DIAL_AWAY_USEC
				   : AWAY_ACCEPTOR_USEC,
			why && why->message ? why->message : "the peer closed the connection");
}

static const EcChannelOps channel_ops = { .message = on_message, .closed = on_closed };

void ec_session_attach(EcSession *s, EcChannel *c, bool leads)
{
	s->channel = c;
	ec_channel_set_owner(c, &channel_ops, s);
	s->leads = leads;
	s->unattended = 0;
	s->pinged = 0;
	s->since = s->ponged = ec_session_now(s);
}

/* What others ask of a session */

static void say_bye(EcSession *s, const char *why)
{
	EcControlMessage bye = { .type = EC_CONTROL_BYE };

	if (!s->channel)
		return;
	g_strlcpy(bye.error, why, sizeof(bye.error));
	ec_channel_send(s->channel, &bye);
	s->channel = ec_channel_free(s->channel);
}

/* The path carries more or less than when the MTU was agreed on. */
static void agree_anew(EcSession *s)
{
	say_bye(s, EC_BYE_MOVED);
	s->seen_mtu = s->tunnel->path.mtu;
	ec_session_schedule(s);
}

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
		ec_session_hush(s);
		ec_dial_drop(s);
	}
	if (r <= 0)
		return r;
	if (s->channel && !s->leads && t->path.fence == EC_FENCE_INTERFACE)
		ec_channel_keep_to(s->channel, t->path.device);
	if (s->phase == EC_PHASE_IDLE)
		ec_session_set_phase(s, EC_PHASE_DIALING, "Dialling", "");
	if (s->channel && s->phase == EC_PHASE_LIVE && s->seen_mtu != t->path.mtu)
		agree_anew(s);
	if (s->dials)
		ec_dial_keep(s);
	return 1;
}

void ec_session_hush(EcSession *s)
{
	if (g_str_equal(s->tunnel->settings->underlay, "any"))
		return;
	s->dial = ec_channel_abandon(s->dial);
	if (!s->channel)
		return;
	s->channel = ec_channel_abandon(s->channel);
	g_clear_pointer(&s->welcome, g_free);
	ec_tunnel_event(s->tunnel, "control-lost", "reason", "the path is gone", NULL);
	ec_session_schedule(s);
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

	ec_dial_drop(s);
	s->retry = sd_event_source_disable_unref(s->retry);
	s->channel = ec_channel_free(s->channel);
	ec_session_attach(s, c, false);
	s->round = 0;
	s->instance = choose->instance;
	g_free(t->peer);
	t->peer = g_strdup(ec_channel_identity(c) + ec_channel_is_keyless(c));
	ec_tunnel_touch(t, EC_PROPERTY_PEER);
	if (back) {
		s->reconnects++;
		ec_tunnel_event(t, "control-back", NULL);
	}
	if (!ec_address_equal(&t->remote, ec_channel_remote(c))) {
		ec_tunnel_move(t, ec_channel_remote(c));
		ec_tunnel_event(t, "peer-moved", "address",
				ec_address_to_string(&t->remote, (char[INET6_ADDRSTRLEN]){ 0 }),
				NULL);
	}
	ec_session_schedule(s);
	int r = ec_cord_accept(s, choose, ret_error);
	if (r < 0)
		s->channel = NULL; /* the caller's again */
	return r;
}

void ec_session_end(EcSession *s)
{
	say_bye(s, EC_BYE_DOWN);
	ec_dial_drop(s);
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
	/* Who dialled notices at once that this daemon was gone, and comes. */
	s->unattended = ec_session_now(s) + EC_DIAL_AWAY_USEC;
	ec_cord_set_live(s);
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
	ec_dial_drop(s);
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
	ec_dial_drop(s);
	if (s->channel && s->leads)
		say_bye(s, EC_BYE_MOVED);
}
