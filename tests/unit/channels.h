/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <gnutls/gnutls.h>

#include "control-channel.h"

/*
 * Two channels over loopback TCP in one loop; a wire between them that can keep, change and cut
 * what it carries and remembers all of it; and a peer that speaks TLS and anything it likes in it.
 */

#define NOT_YET SIZE_MAX

/* Where one end frees its channel. */
typedef enum FreeIn {
	FREE_NEVER,
	FREE_IN_KEY,
	FREE_IN_OPENED,
	FREE_IN_MESSAGE,
	FREE_IN_CLOSED,
} FreeIn;

typedef struct End {
	EcChannel *c;
	bool opened, closed, in_order;
	unsigned messages;
	EcControlMessage first, last;
	char error[64], why[256];
	FreeIn free_in;
	unsigned free_at;             /* number of the message */
	const EcControlMessage *says; /* when opened */
} End;

typedef struct Way {
	int from, to;
	sd_event_source *source;
	GByteArray *seen;
	size_t flip;      /* this bit, or NOT_YET */
	size_t cut, hold; /* after so many bytes: end it, keep the rest */
} Way;

typedef struct Channels {
	sd_event *event;
	End dialer, acceptor;
	int listening;
	uint16_t port;
	const char *known; /* the identity that the acceptor knows, by `key` */
	uint8_t key[EC_CHANNEL_KEY_SIZE];
	unsigned asked;
	sd_event_source *accepting;

	int wire;
	uint16_t wire_port;
	sd_event_source *wiring;
	Way there, back;
} Channels;

typedef struct Raw {
	bool narrow; /* set before raw_connect(): little fits into the sockets on the way */
	int fd;
	gnutls_session_t tls;
	gnutls_psk_client_credentials_t psk;
	gnutls_certificate_credentials_t none;
} Raw;

void channels_set_up(Channels *f, gconstpointer data);
void channels_tear_down(Channels *f, gconstpointer data);
/* Lets both ends and the wire begin anew; what the wire is to do is kept. */
void channels_reset(Channels *f);
void channels_dial(Channels *f, const char *identity, const uint8_t *key, uint16_t port);
/* A listening socket on 127.0.0.1. */
int channels_listen(uint16_t *ret_port);
/* A connected, blocking socket. */
int channels_connect(uint16_t port);

extern const EcChannelOps channels_ops;

EcControlMessage channels_ping(uint64_t seq);
EcControlMessage channels_bye(const char *text);

/* A TLS client of other settings, up to the end of its handshake: its code. key NULL: none. */
int raw_connect(Channels *f, Raw *raw, const char *priority, const char *identity,
		const uint8_t *key);
/* All of it, in records of at most `record` bytes. */
void raw_send(Channels *f, Raw *raw, const void *data, size_t n, size_t record);
void raw_close(Raw *raw);

/* Runs the loop until `what`. */
#define wait_for(f, what)                                                                          \
	do {                                                                                       \
		int64_t end_ = g_get_monotonic_time() + (int64_t)20 * G_USEC_PER_SEC;              \
		while (!(what)) {                                                                  \
			g_assert_cmpint(g_get_monotonic_time(), <, end_);                          \
			g_assert_cmpint(sd_event_run((f)->event, 20000), >=, 0);                   \
		}                                                                                  \
	} while (false)

/* Runs the loop until nothing happens for a moment. */
#define settle(f)                                                                                  \
	do {                                                                                       \
	} while (sd_event_run((f)->event, 10000) > 0)
