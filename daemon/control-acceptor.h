/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "control-channel.h"

/*
 * One listening TCP port, IPv4 and IPv6, and the connections on it that have not yet shown who they
 * are. Those are limited per source address (an IPv6 /64 counts as one) and in total, and dropped
 * after EC_CHANNEL_GREETING_USEC; until then each costs a socket and a TLS session, nothing else.
 * Too many: refused by closing, at once, newest first; when all places are taken the source that
 * has the most gives one up for a source that has fewer. When file descriptors run out listening
 * pauses and resumes by itself.
 */
typedef struct EcAcceptor EcAcceptor;

#define EC_ACCEPTOR_PENDING_MAX 256
#define EC_ACCEPTOR_PENDING_PER_SOURCE 32

typedef struct EcAcceptorOps {
	/* Before anything is kept: may this address speak to us at all? */
	bool (*admit)(EcAcceptor *a, const EcAddress *from, void *userdata);
	/* As of EcChannelOps; from is ec_channel_remote(c). */
	bool (*key)(EcAcceptor *a, EcChannel *c, const char *identity,
			uint8_t ret[static EC_CHANNEL_KEY_SIZE], void *userdata);
	/* Fill in the WELCOME for this identity, which is not proven yet; it is sent at once.
	 * false: nothing is said and the connection is closed. */
	bool (*welcome)(EcAcceptor *a, EcChannel *c, EcControlMessage *ret, void *userdata);
	/* The peer is proven and this is its first message: the channel is the callee's now
	 * (ec_channel_set_owner(), or ec_channel_free()). */
	void (*greeted)(EcAcceptor *a, EcChannel *c, const EcControlMessage *m, void *userdata);
} EcAcceptorOps;

/* Counts since the start, for Statistics and tests. */
typedef struct EcAcceptorCounts {
	uint64_t accepted, refused, failed; /* connections; over a limit or not admitted; bad key,
					       bad bytes, silent */
	unsigned pending;
} EcAcceptorCounts;

/* -errno (EADDRINUSE, ...) with a sentence that names the port. */
int ec_acceptor_new(sd_event *event, uint16_t port, const EcAcceptorOps *ops, void *userdata,
		EcAcceptor **ret, sd_bus_error *ret_error);
EcAcceptor *ec_acceptor_free(EcAcceptor *a);
uint16_t ec_acceptor_port(const EcAcceptor *a);
EcAcceptorCounts ec_acceptor_counts(const EcAcceptor *a);
