/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <gnutls/gnutls.h>

#include "control-channel.h"

/*
 * One TLS session of a control channel, and the secrets that it needs. Private to
 * control-channel.c: it knows GnuTLS and a socket, no messages and no events.
 */
typedef struct EcTls EcTls;

/* What the acceptor may send in the handshake, bytes; more is sent after it. */
#define EC_TLS_EARLY_MAX 1024u

/* Called by the acceptor with GnuTLS on the stack: the session must not be touched. */
typedef struct EcTlsOps {
	/* The key of t->identity. */
	bool (*key)(EcTls *t, uint8_t ret[static EC_CHANNEL_KEY_SIZE]);
	/* The key fits. At most t->room bytes to send with the handshake, or NULL; *ret_stop: end
	 * it. */
	GByteArray *(*early)(EcTls *t, bool *ret_stop);
} EcTlsOps;

struct EcTls {
	gnutls_session_t session;
	const EcTlsOps *ops;
	int fd;
	bool server;
	bool asked;  /* acceptor: an identity came, and its key was looked for */
	size_t room; /* acceptor: what may be sent with the handshake, bytes */
	int error;   /* errno of the socket where that was the cause */
	char identity[EC_CONTROL_NAME_MAX + 1];
	uint8_t key[EC_CHANNEL_KEY_SIZE]; /* dialer: until the handshake is over */
	GByteArray *early;                /* dialer: what came with the handshake */
	size_t early_done;
};

int ec_tls_init_dialer(
		EcTls *t, int fd, const char *identity, const uint8_t *key, const EcTlsOps *ops);
int ec_tls_init_acceptor(EcTls *t, int fd, const EcTlsOps *ops);
void ec_tls_done(EcTls *t);
/* A code of GnuTLS: 0 when both ends have proven themselves, not fatal: again. */
int ec_tls_handshake(EcTls *t);
/* The handshake waits for the socket to take more, not to bring more. */
bool ec_tls_wants_out(const EcTls *t);
/* Dialer: whether this failure of the handshake says that key or name do not fit. */
bool ec_tls_is_wrong_key(const EcTls *t, int code);
/* The next bytes of t->early, which is gone when all were taken. */
size_t ec_tls_take_early(EcTls *t, uint8_t *to, size_t n);
