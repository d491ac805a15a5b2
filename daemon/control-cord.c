/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control-cord.h"

#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <string.h>

#include "control-abilities.h"
#include "log.h"
#include "manager.h"
#include "path.h"
#include "worker-host.h"

/*
 * DOC: Theory of operation
 *
 * What was agreed becomes the tunnel's *terms*: its settings with the open places filled in.
 * ec_reconcile() makes the interface from these as it does for a tunnel that is all set by hand,
 * and keeps it so. Its carrier is off (dormant) until frames have crossed, and while the peer is
 * lost.
 *
 * The carrier of the dialled end comes with the first full-size frame, half a round trip before the
 * dialer's own: neither has to wait for the other's proof.
 *
 * A round ends in on_proved(). Only the leader of the channel, who dialed, goes on to another
 * encapsulation; the other end proves again and again until it is told. A cord that exists is kept
 * through all changes that leave the same encapsulation, id and port: another channel, address,
 * NAT mapping, MTU.
 *
 * Behind a NAT the peer's data comes from an address and port that nobody can tell in advance.
 * mapping.c learns them from the peer's own probes; the agreement takes them over, and the
 * interface follows in place.
 */

#define LABEL_DIALER "EXPORTER-ethercord-dialer"
#define LABEL_ACCEPTOR "EXPORTER-ethercord-acceptor"
/* A proof says nothing unless the peer's end was there for so much of it. */
#define READY_PROOF_USEC (EC_LIVENESS_PROVE_USEC / 2)
#define ROUNDS_MAX 16 /* of one channel: each has an interface made */

static const EcLivenessOps liveness_ops;

static const char *runtime_dir(const EcSession *s)
{
	return ec_store_runtime_dir(s->tunnel->manager->store);
}

static void save(EcSession *s)
{
	EcTunnel *t = s->tunnel;
	const EcCord cord = {
		.agreement = s->agreement,
		.remote = t->remote,
		.listener = t->listener ? t->listener->settings->name : NULL,
		.peer = t->listener ? t->settings->identity : t->peer,
		.mode = t->settings->mode,
		.interface = t->ifname,
		.proven = s->crossed > 0,
		.instance = s->instance,
	};

	ec_cord_save(runtime_dir(s), ec_tunnel_name(t), &cord);
}

void ec_cord_settle_terms(EcSession *s)
{
	s->terms = ec_settings_free(s->terms);
	if (s->agreement.encap)
		s->terms = ec_agreement_terms(&s->agreement, s->tunnel->settings);
}

static void note_refused(EcSession *s, uint32_t size)
{
	g_autofree char *bytes = g_strdup_printf("%u", size);
	size_t n = 0;

	while (s->refused[n])
		n++;
	if (n < EC_ENCAPS_MAX) {
		s->refused[n] = s->agreement.encap;
		s->carried[n] = size;
		s->refused[n + 1] = NULL;
	}
	ec_tunnel_event(s->tunnel, "refused-by-path", "encapsulation", s->agreement.encap->name,
			"largest", bytes, NULL);
}

/* Rounds */

static void send_choose(EcSession *s)
{
	const EcTunnel *t = s->tunnel;
	const EcAgreement *a = &s->agreement;
	EcControlMessage m = {
		.type = EC_CONTROL_CHOOSE,
		.protocol = EC_CONTROL_PROTOCOL,
		.minor = EC_CONTROL_MINOR,
		.nonce = s->nonce,
		.instance = ec_session_instance(t->manager, ec_tunnel_name(t)),
		.bridged = t->settings->bridge != NULL,
		.local = *ec_channel_local(s->channel),
		.id = a->id,
		.data_port = a->data_port,
		.remote_data_port = a->remote_data_port,
		.path_mtu = a->path_mtu,
		.mtu = a->mtu,
		.size = a->size,
		.round = ++s->round,
		.probe_group = ec_session_probe_group(t->manager, t->settings),
	};

	g_strlcpy(m.name, ec_tunnel_name(t), sizeof(m.name));
	g_strlcpy(m.mode, ec_settings_word("mode", t->settings->mode), sizeof(m.mode));
	g_strlcpy(m.encapsulation, a->encap->name, sizeof(m.encapsulation));
	g_strlcpy(m.plane, ec_encap_plane(a->encap), sizeof(m.plane));
	m.split = a->split;
	memcpy(m.mac, a->mac, sizeof(m.mac));
	ec_channel_send(s->channel, &m);
}

static void tell_chosen(EcSession *s)
{
	const EcAgreement *a = &s->agreement;
	g_autofree char *id = g_strdup_printf("%u", a->id), *mtu = g_strdup_printf("%u", a->mtu);

	ec_tunnel_event(s->tunnel, "chose", "encapsulation", a->encap->name, "id", id, "mtu", mtu,
			"nat", a->nat ? "yes" : "no", NULL);
}

static int take_keys(EcSession *s)
{
	int r = ec_channel_export(s->channel, s->leads ? LABEL_DIALER : LABEL_ACCEPTOR, s->keys.tx);

	if (r >= 0)
		r = ec_channel_export(
				s->channel, s->leads ? LABEL_ACCEPTOR : LABEL_DIALER, s->keys.rx);
	s->rekey = true;
	return r;
}

/* What is agreed now is in force; the interface is made or changed in the tunnel's next round. */
static void adopt(EcSession *s, const EcAgreement *a)
{
	bool same = ec_agreement_same_cord(a, &s->agreement);
	bool as_was = same && s->phase == EC_PHASE_LIVE && a->mtu == s->agreement.mtu &&
		      a->size == s->agreement.size && a->path_mtu == s->agreement.path_mtu;

	if (!same)
		s->crossed = 0;
	s->coming = s->tried = false;
	s->agreement = *a;
	ec_cord_settle_terms(s);
	s->prove = !as_was;
	/* A cord that carried frames stays what it is while it is looked at. */
	if (s->crossed) {
		save(s);
		return;
	}
	if (s->barren) { /* what came of the last time says more */
		g_autofree char *before = g_strdup(s->sentence);

		ec_session_set_phase(s, EC_PHASE_PROVING, "PeerUnreachable", before);
	} else {
		g_autofree char *sentence = g_strdup_printf("trying whether frames of %u bytes "
							    "cross with %s",
				a->size, a->encap->name);
		ec_session_set_phase(s, EC_PHASE_PROVING, "Probing", sentence);
	}
	save(s);
}

/* Of what carried something, that which carried most. */
static const EcEncap *best_of(const EcSession *s, uint32_t *ret_size)
{
	const EcEncap *best = NULL;

	*ret_size = 0;
	for (size_t i = 0; s->refused[i]; i++) {
		if (s->carried[i] > *ret_size) {
			*ret_size = s->carried[i];
			best = s->refused[i];
		}
	}
	return best;
}

/* Small frames cross and full ones do not, with nothing that the kernels carry: workers at both
 * ends do it, in pieces. */
static int go_over_to_pieces(EcSession *s, const EcAgreementSide *side, EcAgreement *ret,
		sd_bus_error *ret_error)
{
	g_auto(sd_bus_error) ignored = SD_BUS_ERROR_NULL;
	const EcEncap *workers[EC_ENCAPS_MAX + 1] = { NULL };
	EcAgreementSide pieces = *side;
	size_t n = 0;

	for (size_t i = 0; s->refused[i]; i++) {
		const EcEncap *e = ec_agreement_splitter(side, s->welcome, s->refused[i]);

		if (e && s->carried[i] && !s->refused[i]->worker)
			workers[n++] = e;
	}
	pieces.only = workers;
	pieces.split = true;
	int r = ec_agreement_choose(&pieces, s->welcome, ret, &ignored);
	if (r < 0)
		return r;
	s->split = true;
	sd_bus_error_free(ret_error);
	return 0;
}

static bool is_bridged(const EcSession *s)
{
	return s->tunnel->settings->mode != EC_MODE_POINT_TO_POINT;
}

/* Full frames cross with none. A bridge port that answers too-big keeps its MTU: hosts learn. */
static int settle_for_less(EcSession *s, const EcAgreementSide *side, EcAgreement *ret,
		sd_bus_error *ret_error)
{
	g_auto(sd_bus_error) ignored = SD_BUS_ERROR_NULL;
	EcAgreementSide less = *side;
	uint32_t size;
	const EcEncap *const best[] = { best_of(s, &size), NULL };

	if (!best[0] || s->agreement.lesser)
		return -EHOSTUNREACH;
	less.only = best;
	less.refused = NULL;
	int r = ec_agreement_choose(&less, s->welcome, ret, &ignored);
	if (r < 0)
		return r;
	ret->size = size;
	if (!is_bridged(s) || !(ret->encap->flags & EC_ENCAP_TOO_BIG))
		ret->mtu = size;
	ret->lesser = true;
	sd_bus_error_free(ret_error);
	return 0;
}

void ec_cord_try_another(EcSession *s)
{
	const EcEncap *candidates[EC_ENCAPS_MAX + 1];
	const EcEncap *const this[] = { s->agreement.encap, NULL };
	EcTunnel *t = s->tunnel;
	EcAgreementSide side;
	EcAgreement other;
	EcPath path;

	if (ec_session_abilities(t->manager, t->settings, &t->remote, candidates, &path, NULL) < 0)
		return;
	ec_session_look_at_self(s, candidates, &path, &t->remote, &side);
	side.refused = this;
	if (ec_agreement_choose(&side, s->welcome, &other, NULL) < 0)
		return;
	note_refused(s, 0);
	s->crossed = 0;
	ec_session_choose(s);
}

int ec_cord_choose(EcSession *s, sd_bus_error *ret_error)
{
	const EcEncap *candidates[EC_ENCAPS_MAX + 1];
	EcTunnel *t = s->tunnel;
	const EcAddress *remote = ec_channel_remote(s->channel);
	EcAgreementSide side;
	EcAgreement a = { 0 };
	EcPath path = { 0 };
	int r = ec_session_abilities(t->manager, t->settings, remote, candidates, &path, ret_error);

	if (r < 0)
		return r;
	ec_session_look_at_self(s, candidates, &path, remote, &side);
	/* A cord that carries frames is not given up because it could carry larger ones. */
	r = s->crossed && s->refused[0] && settle_for_less(s, &side, &a, ret_error) >= 0
			    ? 0
			    : ec_agreement_choose(&side, s->welcome, &a, ret_error);
	if (r < 0 && s->refused[0] &&
			(go_over_to_pieces(s, &side, &a, ret_error) >= 0 ||
					settle_for_less(s, &side, &a, ret_error) >= 0))
		r = 0;
	if (r >= 0)
		r = take_keys(s);
	if (r < 0)
		return r;
	s->seen_mtu = path.mtu;
	adopt(s, &a);
	send_choose(s);
	tell_chosen(s);
	return 0;
}

int ec_cord_accept(EcSession *s, const EcControlMessage *choose, sd_bus_error *ret_error)
{
	const EcEncap *candidates[EC_ENCAPS_MAX + 1];
	EcTunnel *t = s->tunnel;
	const EcAddress *remote = ec_channel_remote(s->channel);
	EcControlMessage ready = { .type = EC_CONTROL_READY, .round = choose->round };
	EcAgreementSide side;
	EcAgreement a = { 0 };
	EcPath path = { 0 };
	int r = ec_session_abilities(t->manager, t->settings, remote, candidates, &path, ret_error);

	if (r >= 0 && (choose->round != s->round + 1 || choose->round > ROUNDS_MAX))
		r = ec_error(ret_error, EC_ERROR_PROTOCOL,
				"round %u: allowed is one after the other, up to %d", choose->round,
				ROUNDS_MAX);
	if (r < 0)
		return r;
	ec_session_look_at_self(s, candidates, &path, remote, &side);
	r = ec_agreement_accept(&side, choose, &a, ret_error);
	if (r >= 0)
		r = take_keys(s);
	if (r < 0)
		return r;
	a.local = *ec_channel_local(s->channel);
	s->round++;
	s->seen_mtu = path.mtu;
	adopt(s, &a);
	tell_chosen(s);
	ec_tunnel_refresh(t);
	if (t->state == EC_STATE_FAILED)
		return ec_error(ret_error, EC_ERROR_REFUSED, "%s", t->sentence);
	memcpy(ready.mac, a.mac, sizeof(ready.mac));
	ready.mtu = a.mtu;
	if (s->channel)
		ec_channel_send(s->channel, &ready);
	return 0;
}

/* Probes */

static void begin_proof(EcSession *s)
{
	s->prove = false;
	ec_liveness_prove(s->liveness, s->agreement.size);
}

void ec_cord_ready(EcSession *s)
{
	s->ready = true;
	s->ready_at = ec_session_now(s);
	ec_tunnel_event(s->tunnel, "ready", NULL);
}

static void tell_crossed(EcSession *s, uint32_t size)
{
	g_autofree char *bytes = g_strdup_printf("%u", size);

	ec_tunnel_event(s->tunnel, "proved", "encapsulation", s->agreement.encap->name, "size",
			bytes, NULL);
}

void ec_cord_set_live(EcSession *s)
{
	g_autoptr(GString) sentence = g_string_new(NULL);
	const EcEncap *used = s->agreement.encap;

	if (s->agreement.split && s->tunnel->settings->split != EC_SPLIT_YES) {
		g_string_printf(sentence,
				"large frames go in pieces with %s, instead of IP fragments",
				used->name);
	} else if (s->agreement.lesser || s->crossed < s->agreement.mtu) {
		g_string_printf(sentence,
				"the path drops fragments: packets of up to %u bytes cross with "
				"%s, larger ones do not",
				s->crossed, used->name);
	} else if (s->refused[0]) {
		g_string_append(sentence, "the path does not carry ");
		for (size_t i = 0; s->refused[i]; i++)
			g_string_append_printf(sentence, "%s%s%s", i ? ", " : "",
					s->carried[i] ? "full frames with " : "",
					s->refused[i]->name);
		g_string_append_printf(sentence, "; %s is used", used->name);
	}
	ec_session_set_phase(s, EC_PHASE_LIVE, sentence->len ? "RefusedByPath" : "", sentence->str);
}

static void set_lost(EcSession *s)
{
	bool news = s->phase != EC_PHASE_LOST;

	ec_session_set_phase(s, EC_PHASE_LOST, "PeerUnreachable",
			"the peer does not answer; the cord is kept and recovers by itself");
	ec_session_schedule(s);
	if (news)
		ec_tunnel_event(s->tunnel, "peer-lost", NULL);
	ec_tunnel_refresh(s->tunnel);
}

/* Small frames cross and full ones do not: pieces will. */
static bool can_split(EcSession *s, uint32_t size)
{
	const EcEncap *candidates[EC_ENCAPS_MAX + 1], *used = s->agreement.encap;
	EcAgreementSide side;
	EcPath path = { 0 };

	if (!size || s->agreement.split || !s->welcome ||
			ec_session_abilities(s->tunnel->manager, s->tunnel->settings,
					&s->tunnel->remote, candidates, &path, NULL) < 0)
		return false;
	ec_session_look_at_self(s, candidates, &path, &s->tunnel->remote, &side);
	return ec_agreement_splitter(&side, s->welcome, used) == used;
}

static void on_proved(EcLiveness *l, uint32_t size, void *userdata)
{
	EcSession *s = userdata;

	if (size >= s->agreement.size) {
		bool news = s->crossed != size || s->phase != EC_PHASE_LIVE;

		s->crossed = size;
		s->barren = false;
		s->attempts = 0;
		ec_cord_set_live(s);
		tell_crossed(s, size);
		save(s);
		if (news)
			ec_tunnel_refresh(s->tunnel);
		return;
	}
	bool enough = ec_session_now(s) >= s->ready_at + READY_PROOF_USEC, came = s->coming;

	s->coming = false;
	s->tried = true;
	if (s->crossed && size == 0) { /* it worked, and may again: see ec_cord_try_another() */
		ec_liveness_watch(l, true);
		if (s->phase != EC_PHASE_LIVE || s->unattended <= ec_session_now(s))
			set_lost(s);
	} else if (s->channel && s->leads && s->ready && enough) {
		if (can_split(s, size))
			s->split = true;
		else
			note_refused(s, size);
		ec_session_choose(s);
	} else if (s->channel) {
		begin_proof(s); /* until the leader finds another; or the peer was late */
		if (came)
			ec_tunnel_refresh(s->tunnel);
	}
}

/* The end that was dialled cannot know yet whether its own frames cross. But who dialled is up by
 * the time that ours can arrive, or will not be: waiting would cost a round trip. */
static void on_came(EcLiveness *l, uint32_t size, void *userdata)
{
	EcSession *s = userdata;

	if (s->leads || s->coming || s->tried || s->phase != EC_PHASE_PROVING ||
			size < s->agreement.size)
		return;
	s->coming = true;
	ec_tunnel_refresh(s->tunnel);
}

static void on_lost(EcLiveness *l, void *userdata)
{
	EcSession *s = userdata;

	if (s->phase == EC_PHASE_LIVE && s->unattended <= ec_session_now(s))
		set_lost(s);
}

static void on_found(EcLiveness *l, void *userdata)
{
	EcSession *s = userdata;

	if (s->phase != EC_PHASE_LOST)
		return;
	ec_cord_set_live(s);
	ec_tunnel_event(s->tunnel, "peer-found", NULL);
	ec_tunnel_refresh(s->tunnel);
}

static bool on_inject(const struct iovec *parts, size_t n, void *userdata)
{
	EcSession *s = userdata;

	return s->tunnel->worker && ec_worker_host_inject(s->tunnel->worker, parts, n);
}

static const EcLivenessOps liveness_ops = {
	.inject = on_inject,
	.proved = on_proved,
	.came = on_came,
	.lost = on_lost,
	.found = on_found,
};

void ec_cord_judge(EcSession *s)
{
	bool lost = !s->liveness || ec_liveness_is_lost(s->liveness);

	if (s->phase == EC_PHASE_LIVE && !s->channel && lost)
		set_lost(s);
}

/* Interface */

static void on_moved(EcMapping *m, const EcAddress *address, uint16_t port, void *userdata)
{
	EcSession *s = userdata;
	char text[INET6_ADDRSTRLEN];
	g_autofree char *number = g_strdup_printf("%u", port);

	if (s->agreement.remote_data_port == port &&
			ec_address_equal(&s->agreement.data_remote, address))
		return;
	s->agreement.data_remote = *address;
	s->agreement.remote_data_port = port;
	if (!ec_address_equal(&s->tunnel->remote, address))
		ec_tunnel_move(s->tunnel, address);
	ec_cord_settle_terms(s);
	save(s);
	ec_tunnel_event(s->tunnel, "peer-moved", "address", ec_address_to_string(address, text),
			"port", number, NULL);
	ec_tunnel_refresh(s->tunnel);
}

static EcMappingFormat mapping_format(const EcEncap *encap)
{
	if (encap->flags & EC_ENCAP_NAMELESS)
		return encap->flags & EC_ENCAP_ETHERNET ? EC_MAPPING_RAW : EC_MAPPING_IP;
	return encap->flags & EC_ENCAP_SHARES_PORT ? EC_MAPPING_VXLAN : EC_MAPPING_GRE;
}

/* Only the end that a NAT hides the other from has to learn. */
static void follow_mapping(EcSession *s)
{
	EcTunnel *t = s->tunnel;
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	bool wanted = s->agreement.nat && !s->leads && (s->agreement.encap->flags & EC_ENCAP_UDP);

	if (s->mapping && wanted && s->mapped_ifindex == t->path.ifindex)
		return;
	s->mapping = ec_mapping_free(s->mapping);
	if (!wanted)
		return;
	const EcMappingSpec spec = {
		.ifindex = t->path.ifindex,
		.family = t->remote.family,
		.data_port = s->agreement.data_port,
		.format = mapping_format(s->agreement.encap),
		.id = s->agreement.id,
	};
	s->mapped_ifindex = t->path.ifindex;
	if (ec_mapping_new(t->manager->event, &spec, s->liveness, on_moved, s, &s->mapping,
			    &error) < 0)
		ec_log_tunnel(LOG_WARNING, t, "the peer's NAT cannot be followed: %s",
				error.message);
}

static EcLivenessSpec spec_of(const EcSession *s)
{
	const EcTunnel *t = s->tunnel;
	EcLivenessSpec spec = {
		.ifindex = t->ifindex,
		.ethernet = s->agreement.encap->flags & EC_ENCAP_ETHERNET,
		.dialer = s->leads,
		.interval_ms = t->settings->keepalive_interval,
		.timeout_ms = t->settings->keepalive_timeout,
		.group = s->agreement.group ? s->agreement.group : EC_PROBE_GROUP,
	};

	memcpy(spec.mac, s->agreement.mac, sizeof(spec.mac));
	return spec;
}

static bool same_spec(const EcLivenessSpec *a, const EcLivenessSpec *b)
{
	return a->ifindex == b->ifindex && a->ethernet == b->ethernet && a->dialer == b->dialer &&
	       memcmp(a->mac, b->mac, sizeof(a->mac)) == 0 && a->group == b->group &&
	       a->interval_ms == b->interval_ms && a->timeout_ms == b->timeout_ms;
}

int ec_cord_bind(EcSession *s, sd_bus_error *ret_error)
{
	EcTunnel *t = s->tunnel;
	EcLivenessSpec spec = spec_of(s);
	bool anew = !same_spec(&spec, &s->spec);
	int r = 0;

	if (!s->liveness)
		s->paused = 0;
	if (!s->liveness && !s->rekey)
		return 1; /* taken over from an earlier daemon: the keys come with the channel */
	if (!s->liveness) {
		r = ec_liveness_new(t->manager->event, &spec, &s->keys, &liveness_ops, s,
				&s->liveness, ret_error);
	} else if (anew) {
		r = ec_liveness_rebind(s->liveness, &spec, ret_error);
	}
	if (r < 0)
		return r;
	if (s->rekey && s->liveness)
		ec_liveness_rekey(s->liveness, &s->keys);
	s->spec = spec;
	follow_mapping(s);
	if (s->prove || (anew && s->bound != t->ifindex) || s->paused)
		begin_proof(s);
	else if (s->rekey)
		ec_liveness_ask(s->liveness);
	s->bound = t->ifindex;
	s->rekey = false;
	s->paused = 0;
	return 1;
}

/* A laptop that goes from one network to the next keeps its carrier, as for a peer that is silent
 * for so long. */
void ec_cord_pause(EcSession *s)
{
	uint64_t now = ec_session_now(s);

	if (!s->paused) {
		s->paused = now;
		if (s->liveness)
			ec_liveness_pause(s->liveness);
		ec_session_schedule(s);
	}
	if (s->phase == EC_PHASE_LIVE &&
			now >= s->paused + s->tunnel->settings->keepalive_timeout * 1000ULL)
		ec_session_set_phase(s, EC_PHASE_LOST, "", "");
}

void ec_session_fill(const EcSession *s, EcWire *wire, EcMtu *mtu)
{
	const EcAgreement *a = &s->agreement;

	if (!a->encap)
		return;
	wire->nat = a->nat && (a->encap->flags & EC_ENCAP_UDP);
	wire->remote_data_port = a->remote_data_port;
	if (a->data_remote.family == wire->remote.family)
		wire->remote = a->data_remote;
	if (s->crossed && s->crossed < mtu->mtu) {
		uint32_t header = a->encap->flags & EC_ENCAP_ETHERNET ? ETH_HLEN : 0;

		mtu->largest_frame = MIN(mtu->largest_frame, s->crossed + header);
		mtu->whole = MIN(mtu->whole, s->crossed);
	}
}

uint32_t ec_session_path_mtu(const EcSession *s, uint32_t own)
{
	uint32_t both = s->agreement.path_mtu;

	return both && own ? MIN(both, own) : MAX(both, own);
}

EcLivenessStatistics ec_session_statistics(const EcSession *s)
{
	return s->liveness ? ec_liveness_statistics(s->liveness) : (EcLivenessStatistics){ 0 };
}

void ec_cord_free(EcSession *s)
{
	s->mapping = ec_mapping_free(s->mapping);
	s->liveness = ec_liveness_free(s->liveness);
	s->terms = ec_settings_free(s->terms);
	explicit_bzero(&s->keys, sizeof(s->keys));
}

void ec_cord_drop(EcSession *s)
{
	ec_cord_free(s);
	s->agreement = (EcAgreement){ 0 };
	s->spec = (EcLivenessSpec){ 0 };
	s->bound = 0;
	s->crossed = 0;
	s->prove = s->rekey = s->ready = s->coming = false;
	s->paused = 0;
	ec_cord_forget(runtime_dir(s), ec_tunnel_name(s->tunnel));
}
