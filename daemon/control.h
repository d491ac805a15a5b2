/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "agreement.h"
#include "control-channel.h"
#include "liveness.h"
#include "mapping.h"
#include "tunnel.h"

/*
 * A tunnel's session with its peer: the control channel, what was agreed on it, and whether frames
 * cross. See control.c. A tunnel with control=static has none.
 */

/* Where a session stands. Only set_phase() in control.c writes it. */
typedef enum EcPhase {
	EC_PHASE_IDLE,    /* no path, or not wanted */
	EC_PHASE_DIALING, /* no cord; a connection is being made, or waited to be tried again */
	EC_PHASE_PROVING, /* agreed; the cord is made and has to show that frames cross */
	EC_PHASE_LIVE,    /* frames crossed; the peer answers */
	EC_PHASE_LOST,    /* frames crossed; the peer does not answer now */
	EC_PHASE_REFUSED, /* a person has to do something; tried again now and then */
} EcPhase;

struct EcSession {
	EcTunnel *tunnel;
	EcPhase phase;
	const char *token; /* why, as of EcTunnel.reason */
	char *sentence;

	/* Channel */
	EcChannel *dial;    /* under way: from connect() to the CHOOSE */
	EcChannel *channel; /* the cord's; NULL: the cord carries on unattended */
	bool leads;         /* channel was dialed from here: this end chooses */
	EcAddress way;      /* source address and ... */
	uint32_t seen_mtu;  /* of the path when the cord's MTU was agreed on, bytes */
	int way_ifindex;    /* ... device that dial or channel were made for */
	bool dials;         /* else the peer does */
	size_t target;      /* of the remotes: the one that dial goes to */
	uint64_t since;     /* CLOCK_BOOTTIME µs at which channel became the cord's */
	uint64_t lost;      /* CLOCK_BOOTTIME µs at which the peer was lost last */
	uint64_t nonce;     /* settles double dialing */
	uint64_t instance;  /* of the peer's machine, 0 unknown */
	unsigned attempts;  /* that failed in a row */
	uint64_t reconnects;
	sd_event_source *retry;    /* dials again; or tries an earlier remote */
	sd_event_source *timer;    /* pings, waits for READY, unattended, see on_timer() */
	EcControlMessage *welcome; /* of the channel that this end leads */
	bool ready;                /* the peer's end of this round is made */
	uint64_t pinged, ponged;   /* seq; CLOCK_BOOTTIME µs of the last word of the peer */
	uint64_t asked;            /* the same of the last PING to a peer that is lost */
	uint64_t answering;        /* and since when the channel has answered without a pause */
	uint32_t round;

	/* Cord */
	EcAgreement agreement;
	EcSettings *terms;
	EcLiveness *liveness;
	EcLivenessKeys keys;
	EcLivenessSpec spec; /* that liveness has */
	bool rekey;          /* keys are new */
	bool prove;          /* what was agreed is to be proven */
	bool coming; /* the first full-size frame came; ours have yet to show that they cross */
	bool tried;  /* a proof of this round has failed */
	uint64_t ready_at; /* CLOCK_BOOTTIME µs */
	uint64_t paused;   /* CLOCK_BOOTTIME µs since when there is no path, 0: there is one */
	EcMapping *mapping;
	int mapped_ifindex;
	int bound;           /* ifindex that liveness watches */
	uint32_t crossed;    /* bytes of the largest packet that crossed both ways, 0 none */
	bool split;          /* the path was found to drop fragments: frames go in pieces */
	bool barren;         /* the last time, none of the encapsulations carried a frame */
	uint64_t unattended; /* CLOCK_BOOTTIME µs up to which no answer is no loss */
	const EcEncap *refused[EC_ENCAPS_MAX + 1]; /* by the path, with ... */
	uint32_t carried[EC_ENCAPS_MAX];           /* ... what crossed nevertheless, bytes */
};

EcSession *ec_session_new(EcTunnel *t);
/* Says BYE "restart": the cord stays. */
EcSession *ec_session_free(EcSession *s);
/* One round for a wanted tunnel, by ec_reconcile()'s convention; 1: the session's phase says what
 * is. */
int ec_session_attempt(EcSession *s, sd_bus_error *ret_error);
/* Tunnel state that the phase stands for, and why. */
EcState ec_session_state(const EcSession *s, const char **ret_token, const char **ret_sentence);
/* Takes the cord down at both ends and forgets it. Cannot fail. */
void ec_session_end(EcSession *s);
/* The way that the connections' packets took is no more. Over a VPN not one of them may take
 * another: they are dropped without a word, and the cord carries on. */
void ec_session_hush(EcSession *s);
/* Something changed that may help: a key, settings, a person's wish. Tries at once. */
void ec_session_hurry(EcSession *s);
/* The network changed: what waits to be tried again is tried in the tunnel's next round. */
void ec_session_wake(EcSession *s);
/* The tunnel's settings are others now: talks to the peer again, on the cord that is there. */
void ec_session_resettle(EcSession *s);
/* An accepted channel brought this CHOOSE for the tunnel; The channel is taken over. -errno and a
 * sentence for the peer when it cannot be. */
int ec_session_take(EcSession *s, EcChannel *c, const EcControlMessage *choose,
		sd_bus_error *ret_error);
/* Whether a CHOOSE with this nonce has to give way to the dialing of this end. */
bool ec_session_prevails(const EcSession *s, uint64_t nonce);
/* Takes a cord of an earlier daemon over. */
void ec_session_adopt(EcSession *s, const EcCord *cord);
/* Whether its interface has to be without carrier. */
bool ec_session_is_dormant(const EcSession *s);
/* What the cord adds to a plan of its interface. */
void ec_session_fill(const EcSession *s, EcWire *wire, EcMtu *mtu);
/* Bytes of the path that both ends agree on; own: what this end sees. 0 unknown. */
uint32_t ec_session_path_mtu(const EcSession *s, uint32_t own);
EcLivenessStatistics ec_session_statistics(const EcSession *s);

/* A REFUSE with this reason; and sends it. */
void ec_session_refusal(EcControlMessage *m, const sd_bus_error *why);
void ec_session_refuse(EcChannel *c, const sd_bus_error *why);
/* Of this machine and tunnel or listener: tells machines with one name apart. */
uint64_t ec_session_instance(EcManager *m, const char *name);
