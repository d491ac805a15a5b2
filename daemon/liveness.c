/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "liveness.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "liveness-prove.h"
#include "probe-socket.h"

/*
 * DOC: Theory of operation
 *
 * Both ends ask and both answer. Two things are kept apart: whether this end hears the peer, that
 * is whether anything fresh came within the timeout, and whether the peer hears this end, which its
 * requests say ("hears") and its answers prove. The peer is lost as soon as either is not so. What
 * an end says of itself is only what it hears, never what it concluded from the other's words: else
 * two ends that find each other again could go on telling each other of a loss for ever.
 *
 * An answer is fresh when it matches a request of ours that is open. A request is fresh when it is
 * the newest, and once the peer has answered under the same key: what was recorded earlier is older
 * than that. Requests are answered at their own size, each once, and not more than ANSWER_RATE a
 * second.
 *
 * The beat: each end asks every interval, and the end that did not dial moves its requests to the
 * middle between the other's, so that something comes about every half interval. An end is deaf
 * when nothing came for timeout + min(interval, timeout / 3) / 5: between 2.7 and 3.2 s after the
 * cut with the defaults. It says so at once, and so both ends agree when one direction is cut. Who
 * hears something again after being deaf, or finds the peer, also says so at once. That the peer
 * hears nothing is not believed while an answer of its came within half the timeout: the complaint
 * is then from before that and was overtaken.
 *
 * A daemon that slept (SIGSTOP, suspend) judges nobody by the silence that it slept through: before
 * each judgement all that came is read, and when the timer is late by a quarter of the timeout, the
 * peer has a whole timeout more from now, is asked at once, and what it said meanwhile about not
 * hearing us does not count.
 *
 * Numbers of requests start at the clock (in 10 ms), and no end sends a hundred a second for long:
 * an object made anew for the same keys continues above the numbers of the one before.
 */

#define MS 1000ULL
#define SECOND 1000000ULL
#define TIMER_ACCURACY 1000 /* µs */
#define OPEN_MAX 128        /* requests under way */
#define ANSWER_RATE 200     /* a second */
#define LOST_INTERVAL (250 * MS)
#define ASK_AGAIN (50 * MS)
#define OLD_KEY_USEC (10 * SECOND)
#define DRAIN_MAX 128

typedef enum Mode {
	PAUSED,
	ANSWERING, /* nothing was proved */
	PROVING,
	WATCHING,
} Mode;

typedef struct Request {
	bool open;
	bool beat; /* not of a proof */
	uint16_t size;
	uint32_t seq, stamp;
	uint64_t sent_at;
} Request;

/* Keys, and what came under them. */
typedef struct Era {
	bool set, answered;
	EcLivenessKeys keys;
	EcProbeWindow window;
	bool any_mapped;
	uint32_t mapped;
} Era;

struct EcLiveness {
	unsigned refs; /* the owner's, and one while an op may be called */
	bool dead;
	sd_event *event;
	sd_event_source *io, *timer;
	int fd;
	EcLivenessSpec spec;
	EcLivenessOps ops;
	void *userdata;

	Era era[2]; /* present, before */
	uint64_t old_until;

	Mode mode;
	EcProve prove;
	bool lost;
	bool heard_before; /* the proof, or the pause before it */
	uint64_t heard;    /* when something fresh came last, or what stands for it */
	uint64_t answered; /* the same with answers */
	uint64_t asked;    /* last request of the beat */
	uint64_t next;     /* request of the beat */
	uint64_t due;      /* when the timer is to fire, 0: never */
	uint64_t resumed;  /* end of the last sleep: what was sent before measures no round trip */
	bool waking;       /* what came during a sleep is being read */

	uint32_t seq;
	uint32_t clock_offset;
	Request request[OPEN_MAX]; /* by seq */
	uint64_t allowance;        /* answers x SECOND */
	uint64_t allowed_at;
	uint64_t last_rtt;
	EcLivenessStatistics statistics;
};

static uint64_t now_usec(void)
{
	struct timespec ts = { 0 };

	(void)clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec / 1000;
}

static uint64_t interval(const EcLiveness *l)
{
	return l->spec.interval_ms * MS;
}

static uint64_t timeout(const EcLiveness *l)
{
	return l->spec.timeout_ms * MS;
}

/* At random up to a twentieth earlier or later. A peer that is lost is asked more often: it is back
 * all the sooner. */
static uint64_t next_beat(const EcLiveness *l, uint64_t now)
{
	uint64_t whole = l->lost ? MIN(interval(l), LOST_INTERVAL) : interval(l);

	return now + whole - whole / 20 +
	       (uint64_t)g_random_int_range(0, (gint32)(whole / 10 / MS) + 1) * MS;
}

static uint64_t dead_at(const EcLiveness *l)
{
	return l->heard + timeout(l) + MIN(interval(l), timeout(l) / 3) / 5;
}

/* A proof on a cord that works says nothing against the peer. */
static bool hears(const EcLiveness *l, uint64_t now)
{
	return (l->heard && now < dead_at(l)) || (l->mode == PROVING && l->heard_before);
}

/* Timer */

static void arm(EcLiveness *l)
{
	uint64_t due = 0;

	if (l->dead)
		return;
	if (l->mode == PROVING)
		due = ec_prove_due(&l->prove);
	else if (l->mode == WATCHING)
		due = l->lost ? l->next : MIN(l->next, dead_at(l));
	if (due == l->due)
		return;
	l->due = due;
	if (due)
		(void)sd_event_source_set_time(l->timer, due);
	(void)sd_event_source_set_enabled(l->timer, due ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
}

/* Sending */

static void send_probe(
		const EcLiveness *l, const EcProbe *p, const uint8_t key[static EC_PROBE_KEY_SIZE])
{
	EcProbeWay way = { .fd = l->fd,
		.ethernet = l->spec.ethernet,
		.group = l->spec.group,
		.inject = l->ops.inject,
		.userdata = l->userdata };

	memcpy(way.mac, l->spec.mac, sizeof(way.mac));
	ec_probe_socket_send(&way, p, key);
}

static void send_request(EcLiveness *l, uint32_t size, bool beat, uint64_t now)
{
	Request *q = &l->request[++l->seq % OPEN_MAX];

	if (q->open && q->beat)
		l->statistics.lost++;
	*q = (Request){
		.open = true,
		.beat = beat,
		.size = (uint16_t)(size - ec_probe_socket_header(l->spec.ethernet)),
		.seq = l->seq,
		.stamp = (uint32_t)now + l->clock_offset,
		.sent_at = now,
	};
	const EcProbe p = { EC_PROBE_REQUEST, hears(l, now), q->size, q->seq, q->stamp };
	if (beat)
		l->statistics.sent++;
	send_probe(l, &p, l->era[0].keys.tx);
}

static uint32_t smallest(const EcLiveness *l)
{
	return EC_PROBE_SIZE + ec_probe_socket_header(l->spec.ethernet);
}

static void ask(EcLiveness *l, uint64_t now)
{
	send_request(l, smallest(l), true, now);
	l->asked = now;
	l->next = next_beat(l, now);
}

static void prove_send(uint32_t size, void *userdata)
{
	send_request(userdata, size, false, now_usec());
}

static bool may_answer(EcLiveness *l, uint64_t now)
{
	l->allowance = MIN(
			l->allowance + (now - l->allowed_at) * ANSWER_RATE, ANSWER_RATE * SECOND);
	l->allowed_at = now;
	if (l->allowance < SECOND)
		return false;
	l->allowance -= SECOND;
	return true;
}

/* Life and death */

static void go_deaf(EcLiveness *l, uint64_t now)
{
	l->lost = true;
	ask(l, now); /* tells the peer */
	if (l->ops.lost)
		l->ops.lost(l, l->userdata);
}

/* Something fresh came, an answer or not. */
static void hear(EcLiveness *l, bool answer, bool peer_hears, uint64_t now)
{
	bool was_deaf = !hears(l, now);
	bool was_lost = l->lost;

	l->heard = now;
	if (l->mode != WATCHING)
		return;
	l->lost = peer_hears ? was_lost && !answer : true;
	bool found = was_lost && !l->lost;
	if (was_deaf || found || (l->lost && peer_hears && now >= l->asked + ASK_AGAIN))
		ask(l, now);
	if (found && l->ops.found)
		l->ops.found(l, l->userdata);
	else if (!was_lost && l->lost && l->ops.lost)
		l->ops.lost(l, l->userdata);
}

static void start_watching(EcLiveness *l, uint64_t now)
{
	l->mode = WATCHING;
	l->lost = false;
	l->heard = l->answered = l->asked = now;
	l->next = next_beat(l, now);
}

static void end_proof(EcLiveness *l, uint64_t now)
{
	uint32_t size = l->prove.low;

	l->mode = ANSWERING;
	if (size)
		start_watching(l, now);
	if (l->ops.proved)
		l->ops.proved(l, size, l->userdata);
}

static void measure(EcLiveness *l, uint64_t rtt)
{
	EcLivenessStatistics *s = &l->statistics;

	if (!s->rtt_usec) {
		s->rtt_usec = rtt;
	} else {
		uint64_t change = rtt > l->last_rtt ? rtt - l->last_rtt : l->last_rtt - rtt;

		s->rtt_usec = (s->rtt_usec * 7 + rtt) / 8;
		s->jitter_usec = (s->jitter_usec * 15 + change) / 16;
	}
	l->last_rtt = rtt;
}

/* Receiving */

static void on_answer(EcLiveness *l, Era *era, const EcProbe *p, uint64_t now)
{
	Request *q = &l->request[p->seq % OPEN_MAX];

	if (!q->open || q->seq != p->seq || q->stamp != p->stamp || q->size != p->size)
		return;
	q->open = false;
	era->answered = true;
	uint32_t size = p->size + ec_probe_socket_header(l->spec.ethernet);
	uint64_t rtt = MAX(now - q->sent_at, 1);
	if (size == smallest(l) && q->sent_at >= l->resumed)
		measure(l, rtt);
	l->answered = now;
	hear(l, true, true, now);
	if (l->mode == PROVING && q->sent_at >= l->prove.start &&
			ec_prove_crossed(&l->prove, size, rtt, now))
		end_proof(l, now);
}

/* To the middle between the dialer's requests, though by no more than half an interval later than
 * it was due: the ends' intervals may differ. */
static void keep_beat(EcLiveness *l, uint64_t now)
{
	uint64_t half = interval(l) / 2;

	if (!l->spec.dialer && !l->lost)
		l->next = MIN(now + half - half / 20, l->asked + interval(l) + half);
}

static void on_request(EcLiveness *l, Era *era, const EcProbe *p, uint64_t now)
{
	if (!ec_probe_window_take(&era->window, p->seq))
		return;
	const EcProbe answer = { EC_PROBE_ANSWER, hears(l, now), p->size, p->seq, p->stamp };
	if (may_answer(l, now))
		send_probe(l, &answer, era->keys.tx);
	if (l->mode == PROVING && l->ops.came)
		l->ops.came(l, p->size + ec_probe_socket_header(l->spec.ethernet), l->userdata);
	if (l->dead || p->seq != era->window.newest || !era->answered || l->waking)
		return;
	keep_beat(l, now);
	hear(l, false, p->hears || now < l->answered + timeout(l) / 2, now);
}

static void forget_old_keys(EcLiveness *l)
{
	explicit_bzero(&l->era[1], sizeof(l->era[1]));
}

static void check_old_keys(EcLiveness *l, uint64_t now)
{
	if (l->era[1].set && now >= l->old_until)
		forget_old_keys(l);
}

/* The era whose key a probe was made with, or NULL. */
static Era *era_of(EcLiveness *l, const uint8_t *probe)
{
	for (size_t i = 0; i < EC_ELEMENTS(l->era); i++) {
		if (l->era[i].set && ec_probe_is_authentic(probe, l->era[i].keys.rx))
			return &l->era[i];
	}
	return NULL;
}

static void take(EcLiveness *l, const uint8_t *data, size_t size)
{
	uint64_t now = now_usec();
	EcProbe p;

	check_old_keys(l, now);
	if (l->mode == PAUSED || ec_probe_decode(data, size, &p) < 0)
		return;
	Era *era = era_of(l, data);
	if (!era)
		return;
	if (era == &l->era[0])
		forget_old_keys(l);
	if (p.type == EC_PROBE_ANSWER)
		on_answer(l, era, &p, now);
	else
		on_request(l, era, &p, now);
}

/* All that came, until an op has freed the object. */
static void drain(EcLiveness *l)
{
	uint8_t data[EC_PROBE_SIZE];

	for (unsigned i = 0; i < DRAIN_MAX && !l->dead; i++) {
		ssize_t n = ec_probe_socket_receive(l->fd, l->spec.ethernet, data);
		if (n < 0)
			break;
		if (n > 0)
			take(l, data, (size_t)n);
	}
}

static void notice_sleep(EcLiveness *l, uint64_t now)
{
	l->waking = l->due && now >= l->due + timeout(l) / 4;
	if (!l->waking)
		return;
	uint64_t slept = now - l->due;
	l->resumed = now;
	if (!l->lost)
		l->heard = l->answered = now;
	l->next = now;
	ec_prove_postpone(&l->prove, slept);
}

static void unref(EcLiveness *l)
{
	if (--l->refs == 0)
		g_free(l);
}

static int on_io(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	EcLiveness *l = userdata;

	l->refs++;
	notice_sleep(l, now_usec());
	drain(l);
	arm(l);
	unref(l);
	return 0;
}

/* Requests that nobody will answer any more. */
static void count_lost(EcLiveness *l, uint64_t now)
{
	uint64_t patience = MAX(MAX(timeout(l), SECOND), l->statistics.rtt_usec * 4);

	for (size_t i = 0; i < OPEN_MAX; i++) {
		Request *q = &l->request[i];

		if (q->open && now > q->sent_at + patience) {
			q->open = false;
			l->statistics.lost += q->beat;
		}
	}
}

static void tick(EcLiveness *l, uint64_t now)
{
	if (l->mode == PROVING) {
		if (ec_prove_tick(&l->prove, now, prove_send, l))
			end_proof(l, now);
	} else if (l->mode == WATCHING) {
		count_lost(l, now);
		if (!l->lost && now >= dead_at(l))
			go_deaf(l, now);
		else if (now >= l->next)
			ask(l, now);
	}
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
	EcLiveness *l = userdata;

	l->refs++;
	notice_sleep(l, now_usec());
	l->due = 0;
	drain(l);
	if (!l->dead)
		tick(l, now_usec());
	arm(l);
	unref(l);
	return 0;
}

/* Life of the object */

static int open_socket(EcLiveness *l, const EcLivenessSpec *spec, sd_bus_error *ret_error)
{
	sd_event_source *io = NULL;
	int fd = ec_probe_socket_open(spec->ifindex, spec->ethernet, ret_error);

	if (fd < 0)
		return fd;
	int r = sd_event_add_io(l->event, &io, fd, EPOLLIN, on_io, l);
	if (r < 0) {
		(void)close(fd);
		return r;
	}
	(void)sd_event_source_set_io_fd_own(io, true);
	sd_event_source_disable_unref(l->io);
	l->io = io;
	l->fd = fd;
	l->spec = *spec;
	return 0;
}

static void set_keys(Era *era, const EcLivenessKeys *keys)
{
	*era = (Era){ .set = true, .keys = *keys };
}

int ec_liveness_new(sd_event *event, const EcLivenessSpec *spec, const EcLivenessKeys *keys,
		const EcLivenessOps *ops, void *userdata, EcLiveness **ret, sd_bus_error *ret_error)
{
	EcLiveness *l = g_new0(EcLiveness, 1);

	l->refs = 1;
	l->fd = -1;
	l->event = sd_event_ref(event);
	l->ops = *ops;
	l->userdata = userdata;
	l->allowed_at = now_usec();
	l->allowance = ANSWER_RATE * SECOND;
	l->seq = (uint32_t)(l->allowed_at / (10 * MS));
	(void)getrandom(&l->clock_offset, sizeof(l->clock_offset), 0);
	set_keys(&l->era[0], keys);
	int r = sd_event_add_time(event, &l->timer, CLOCK_BOOTTIME, 0, TIMER_ACCURACY, on_timer, l);
	if (r >= 0)
		r = sd_event_source_set_enabled(l->timer, SD_EVENT_OFF);
	if (r >= 0)
		r = open_socket(l, spec, ret_error);
	if (r < 0) {
		(void)ec_liveness_free(l);
		return r;
	}
	*ret = l;
	return 0;
}

EcLiveness *ec_liveness_free(EcLiveness *l)
{
	if (!l || l->dead)
		return NULL;
	l->dead = true;
	l->io = sd_event_source_disable_unref(l->io);
	l->timer = sd_event_source_disable_unref(l->timer);
	l->fd = -1;
	l->event = sd_event_unref(l->event);
	explicit_bzero(l->era, sizeof(l->era));
	unref(l);
	return NULL;
}

void ec_liveness_rekey(EcLiveness *l, const EcLivenessKeys *keys)
{
	forget_old_keys(l);
	l->era[1] = l->era[0];
	l->old_until = now_usec() + OLD_KEY_USEC;
	set_keys(&l->era[0], keys);
}

int ec_liveness_rebind(EcLiveness *l, const EcLivenessSpec *spec, sd_bus_error *ret_error)
{
	int r = 0;

	if (spec->ifindex != l->spec.ifindex || spec->ethernet != l->spec.ethernet)
		r = open_socket(l, spec, ret_error);
	if (r < 0)
		return r;
	l->spec = *spec;
	arm(l);
	return 0;
}

void ec_liveness_prove(EcLiveness *l, uint32_t size)
{
	uint64_t now = now_usec();
	uint32_t most = UINT16_MAX;

	if (l->mode != PAUSED)
		l->heard_before = hears(l, now);
	l->mode = PROVING;
	l->lost = false;
	ec_prove_start(&l->prove, smallest(l), CLAMP(size, smallest(l), most), now);
	arm(l);
}

void ec_liveness_watch(EcLiveness *l, bool lost)
{
	uint64_t now = now_usec();

	start_watching(l, now);
	l->lost = lost;
	ask(l, now);
	arm(l);
}

void ec_liveness_pause(EcLiveness *l)
{
	if (l->mode != PAUSED)
		l->heard_before = hears(l, now_usec());
	l->mode = PAUSED;
	arm(l);
}

void ec_liveness_ask(EcLiveness *l)
{
	if (l->mode != WATCHING)
		return;
	ask(l, now_usec());
	arm(l);
}

bool ec_liveness_is_lost(const EcLiveness *l)
{
	return l->lost;
}

EcLivenessStatistics ec_liveness_statistics(const EcLiveness *l)
{
	return l->statistics;
}

bool ec_liveness_verify(EcLiveness *l, const void *probe, size_t size)
{
	EcProbe p;

	check_old_keys(l, now_usec());
	if (ec_probe_decode(probe, size, &p) < 0 || p.type != EC_PROBE_REQUEST)
		return false;
	Era *era = era_of(l, probe);
	if (!era || (era->any_mapped && !ec_probe_is_newer(p.seq, era->mapped)))
		return false;
	era->any_mapped = true;
	era->mapped = p.seq;
	return true;
}
