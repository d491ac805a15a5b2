/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "probe-socket.h"

/*
 * Does the cord carry frames, how large, and is the peer there? Probes cross the tunnel itself:
 *
 *   Ethernet   destination 01:80:c2:00:00:0e (no bridge forwards it unless told to; then another of
 *              that range, which the peer names), ethertype 0x88b5
 *   IP         IPv4 header, protocol 253 (RFC 3692), 192.0.0.8 (RFC 7600) to 224.0.0.254 (RFC
 * 4727), TTL 1
 *
 * and then the probe, described in probe.h, with a truncated HMAC-SHA256 under a key of its
 * direction that both ends export from TLS. A request is answered at its own size. Nothing without
 * a valid HMAC has any effect.
 */
typedef struct EcLiveness EcLiveness;

typedef struct EcLivenessKeys {
	uint8_t tx[EC_PROBE_KEY_SIZE], rx[EC_PROBE_KEY_SIZE];
} EcLivenessKeys;

#define EC_PROBE_GROUP 0x0e

typedef struct EcLivenessSpec {
	int ifindex;
	bool ethernet;  /* the interface carries Ethernet, else IP */
	bool dialer;    /* it keeps the beat; the other end answers in the middle of it */
	uint8_t mac[6]; /* of the interface: the probes' source */
	uint8_t group;  /* last byte of the destination, which no bridge at the peer forwards */
	uint32_t interval_ms; /* between requests, at random up to a twentieth earlier or later */
	uint32_t timeout_ms;  /* without a sign of life: lost */
} EcLivenessSpec;

typedef struct EcLivenessOps {
	/* Ends ec_liveness_prove(): the largest packet (bytes, as an MTU counts) that crossed in
	 * both directions. `wanted` at once when that crossed; else the largest that did, exact to
	 * 8 bytes, when it is known or after EC_LIVENESS_PROVE_USEC, which a long round trip
	 * stretches to five of it; 0 for none. */
	void (*proved)(EcLiveness *l, uint32_t size, void *userdata);
	/* No sign of life for timeout_ms, or the peer says that it hears nothing of us. */
	/* While proving: a request of the peer came, of so many bytes as `proved` counts them: this
	 * size crosses in one direction. May be NULL. */
	void (*came)(EcLiveness *l, uint32_t size, void *userdata);
	void (*lost)(EcLiveness *l, void *userdata);
	void (*found)(EcLiveness *l, void *userdata); /* and there it is again */
	EcProbeInject inject;                         /* see probe-socket.h; may be NULL */
} EcLivenessOps;

#define EC_LIVENESS_PROVE_USEC 1000000ULL

typedef struct EcLivenessStatistics {
	uint64_t rtt_usec;    /* smoothed (RFC 6298), 0: none yet */
	uint64_t jitter_usec; /* smoothed variation of the RTT (RFC 3550 §6.4.1) */
	uint64_t sent, lost;  /* requests, without those that prove, and those never answered */
} EcLivenessStatistics;

/* Opens the packet socket on the interface. It is silent until prove() or watch(). -errno. */
int ec_liveness_new(sd_event *event, const EcLivenessSpec *spec, const EcLivenessKeys *keys,
		const EcLivenessOps *ops, void *userdata, EcLiveness **ret,
		sd_bus_error *ret_error);
EcLiveness *ec_liveness_free(EcLiveness *l); /* safe inside of ops */

/* New keys after a new control connection. Those before stay good for receiving until the first
 * probe under the new ones, at most 10 s. */
void ec_liveness_rekey(EcLiveness *l, const EcLivenessKeys *keys);
/* The interface was re-made or its spec changed; counters stay. */
int ec_liveness_rebind(EcLiveness *l, const EcLivenessSpec *spec, sd_bus_error *ret_error);
/* Begins, or begins anew, to prove that packets of `size` bytes cross both ways. Ends in proved().
 * Afterwards, if anything crossed, the peer is watched; else it is answered, no more. The peer has
 * to prove() or watch() as well: it answers then. That it was lost is forgotten. */
void ec_liveness_prove(EcLiveness *l, uint32_t size);
/* Watches without proving. lost: as a peer that is lost, whose next answer is found(); else as if
 * it had answered just now, for a cord taken over from an earlier daemon. */
void ec_liveness_watch(EcLiveness *l, bool lost);
/* Stops sending, answering and timing, as while there is no path. */
void ec_liveness_pause(EcLiveness *l);
/* Asks at once, out of turn; the answer, or its lack, counts as usual. After a change of path. */
void ec_liveness_ask(EcLiveness *l);
bool ec_liveness_is_lost(const EcLiveness *l);
EcLivenessStatistics ec_liveness_statistics(const EcLiveness *l);

/* For mapping.c: whether `size` bytes from the probe's magic on are a request of the peer under a
 * present key, newer than all that this was true for before: one that was recorded and sent again
 * from elsewhere tells nothing. */
bool ec_liveness_verify(EcLiveness *l, const void *probe, size_t size);
