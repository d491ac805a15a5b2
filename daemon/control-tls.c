/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "control-tls.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <string.h>
#include <sys/socket.h>

/*
 * DOC: Theory of operation
 *
 * TLS 1.3 (RFC 8446) with an external PSK, always together with ECDHE (psk_dhe_ke): a key that
 * leaks does not open what was recorded before. Suites of SHA-256 only, which is the hash of the
 * PSK. No certificates (GnuTLS wants a signature algorithm named all the same), tickets,
 * resumption, 0-RTT. Credentials and priorities are shared by all sessions; keys are asked for by
 * call-back and wiped.
 *
 * The acceptor has its word in its first flight, as an extension of EncryptedExtensions (private
 * use range of the IANA registry). TLS lets a server send data there, too (0.5-RTT), with the same
 * security: encrypted to who has the PSK and this connection's ECDHE share, and covered by the
 * Finished that the dialer verifies before it looks at it. GnuTLS does that only for sessions
 * without PSK. The dialer's extension is zeros, as many as it wants to leave room for: an answer is
 * never larger than its ClientHello, not even to one that somebody sends again. What does not fit,
 * and what is for a dialer without the extension, is sent after the handshake.
 *
 * An unknown identity is given a random key: the binder does not fit, as with a wrong key, after as
 * much work.
 */

#define PRIORITY                                                                                   \
	"NONE:+VERS-TLS1.3:+AES-128-GCM:+CHACHA20-POLY1305:+AEAD:+ECDHE-PSK:"                      \
	"+GROUP-X25519:+GROUP-SECP256R1:+SIGN-ECDSA-SECP256R1-SHA256"
#define EARLY_EXTENSION 0xffec
/* Of a handshake message, bytes: a ClientHello has some 250, one of a browser less than 2,000. */
#define ACCEPTOR_HANDSHAKE_MAX 4096
#define DIALER_HANDSHAKE_MAX (EC_TLS_EARLY_MAX + 4096)

static gnutls_priority_t priority;
static gnutls_psk_client_credentials_t dialers;
static gnutls_psk_server_credentials_t acceptors;

static ssize_t on_pull(gnutls_transport_ptr_t p, void *data, size_t n)
{
	EcTls *t = p;
	ssize_t r = recv(t->fd, data, n, 0);

	if (r < 0) {
		if (errno != EAGAIN && errno != EINTR)
			t->error = errno;
		gnutls_transport_set_errno(t->session, errno);
	}
	return r;
}

static ssize_t on_push(gnutls_transport_ptr_t p, const giovec_t *iov, int n)
{
	EcTls *t = p;
	const struct msghdr h = { .msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n };
	ssize_t r = sendmsg(t->fd, &h, MSG_NOSIGNAL);

	if (r < 0) {
		if (errno != EAGAIN && errno != EINTR)
			t->error = errno;
		gnutls_transport_set_errno(t->session, errno);
	}
	return r;
}

static int give_key(gnutls_datum_t *ret, const uint8_t *key)
{
	ret->data = gnutls_malloc(EC_CHANNEL_KEY_SIZE);
	if (!ret->data)
		return GNUTLS_E_MEMORY_ERROR;
	memcpy(ret->data, key, EC_CHANNEL_KEY_SIZE);
	ret->size = EC_CHANNEL_KEY_SIZE;
	return 0;
}

/* GnuTLS wipes and frees the copy. */
static int on_dialer_key(
		gnutls_session_t session, gnutls_datum_t *ret_name, gnutls_datum_t *ret_key)
{
	EcTls *t = gnutls_session_get_ptr(session);
	size_t n = strlen(t->identity);

	ret_name->data = gnutls_malloc(n + 1);
	if (!ret_name->data)
		return -1;
	memcpy(ret_name->data, t->identity, n + 1);
	ret_name->size = (unsigned)n;
	return give_key(ret_key, t->key) < 0 ? -1 : 0;
}

/* Into t->identity: false when it cannot be anybody's. */
static bool take_identity(EcTls *t, const gnutls_datum_t *name)
{
	char text[sizeof(t->identity)] = "";

	if (name->size < 1 || name->size >= sizeof(text) || memchr(name->data, 0, name->size))
		return false;
	memcpy(text, name->data, name->size);
	if (!ec_text_is_clean(text))
		return false;
	/* After a HelloRetryRequest they come again, and must be the same. */
	if (t->asked && !g_str_equal(text, t->identity))
		return false;
	memcpy(t->identity, text, sizeof(text));
	return true;
}

static int on_acceptor_key(
		gnutls_session_t session, const gnutls_datum_t *name, gnutls_datum_t *ret_key)
{
	EcTls *t = gnutls_session_get_ptr(session);
	uint8_t key[EC_CHANNEL_KEY_SIZE], wrong[EC_CHANNEL_KEY_SIZE];

	if (gnutls_rnd(GNUTLS_RND_NONCE, wrong, sizeof(wrong)) < 0)
		return -1;
	memcpy(key, wrong, sizeof(key));
	bool known = take_identity(t, name);
	t->asked = true;
	known = known && t->ops->key(t, key);
	int r = give_key(ret_key, known ? key : wrong);
	explicit_bzero(key, sizeof(key));
	return r < 0 ? -1 : 0;
}

static int on_early_recv(gnutls_session_t session, const unsigned char *data, size_t n)
{
	EcTls *t = gnutls_session_get_ptr(session);

	if (t->server)
		t->room = MIN(n, EC_TLS_EARLY_MAX);
	if (t->server || t->early || n == 0)
		return 0;
	if (n > EC_TLS_EARLY_MAX)
		return GNUTLS_E_RECEIVED_ILLEGAL_PARAMETER;
	t->early = g_byte_array_sized_new((guint)n);
	g_byte_array_append(t->early, data, (guint)n);
	return 0;
}

static int on_early_send(gnutls_session_t session, gnutls_buffer_t to)
{
	EcTls *t = gnutls_session_get_ptr(session);
	bool stop = false;

	if (!t->server) {
		static const uint8_t room[EC_TLS_EARLY_MAX];
		int r = gnutls_buffer_append_data(to, room, sizeof(room));

		return r < 0 ? r : (int)sizeof(room);
	}
	if (!t->asked)
		return GNUTLS_E_INSUFFICIENT_CREDENTIALS;
	g_autoptr(GByteArray) bytes = t->ops->early(t, &stop);
	if (stop)
		return GNUTLS_E_USER_ERROR;
	if (!bytes)
		return 0;
	int r = gnutls_buffer_append_data(to, bytes->data, bytes->len);
	return r < 0 ? r : (int)bytes->len;
}

static int set_up_shared(void)
{
	int r = 0;

	if (!priority)
		r = gnutls_priority_init(&priority, PRIORITY, NULL);
	if (r >= 0 && !dialers) {
		r = gnutls_psk_allocate_client_credentials(&dialers);
		if (r >= 0)
			gnutls_psk_set_client_credentials_function2(dialers, on_dialer_key);
	}
	if (r >= 0 && !acceptors) {
		r = gnutls_psk_allocate_server_credentials(&acceptors);
		if (r >= 0)
			gnutls_psk_set_server_credentials_function2(acceptors, on_acceptor_key);
	}
	return r;
}

static int init(EcTls *t, int fd, const EcTlsOps *ops)
{
	unsigned flags = GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS |
			 GNUTLS_NO_AUTO_SEND_TICKET;

	t->fd = fd;
	t->ops = ops;
	int r = set_up_shared();
	if (r >= 0)
		r = gnutls_init(&t->session, flags | (t->server ? GNUTLS_SERVER : GNUTLS_CLIENT));
	if (r >= 0)
		r = gnutls_priority_set(t->session, priority);
	if (r >= 0)
		r = gnutls_credentials_set(t->session, GNUTLS_CRD_PSK,
				t->server ? (void *)acceptors : (void *)dialers);
	if (r >= 0)
		r = gnutls_session_ext_register(t->session, "ethercord", EARLY_EXTENSION,
				GNUTLS_EXT_APPLICATION, on_early_recv, on_early_send, NULL, NULL,
				NULL,
				GNUTLS_EXT_FLAG_CLIENT_HELLO | GNUTLS_EXT_FLAG_EE |
						GNUTLS_EXT_FLAG_TLS);
	if (r < 0)
		return r == GNUTLS_E_MEMORY_ERROR ? -ENOMEM : -EIO;
	gnutls_session_set_ptr(t->session, t);
	gnutls_transport_set_ptr(t->session, t);
	gnutls_transport_set_pull_function(t->session, on_pull);
	gnutls_transport_set_vec_push_function(t->session, on_push);
	gnutls_handshake_set_max_packet_length(
			t->session, t->server ? ACCEPTOR_HANDSHAKE_MAX : DIALER_HANDSHAKE_MAX);
	/* Time is watched by the event loop. */
	gnutls_handshake_set_timeout(t->session, 0);
	return 0;
}

int ec_tls_init_dialer(
		EcTls *t, int fd, const char *identity, const uint8_t *key, const EcTlsOps *ops)
{
	if (g_strlcpy(t->identity, identity, sizeof(t->identity)) >= sizeof(t->identity))
		return -ENAMETOOLONG;
	/* It gets into sentences. */
	if (!*identity || !ec_text_is_clean(identity))
		return -EINVAL;
	memcpy(t->key, key, sizeof(t->key));
	return init(t, fd, ops);
}

int ec_tls_init_acceptor(EcTls *t, int fd, const EcTlsOps *ops)
{
	t->server = true;
	return init(t, fd, ops);
}

void ec_tls_done(EcTls *t)
{
	if (t->session)
		gnutls_deinit(t->session);
	t->session = NULL;
	explicit_bzero(t->key, sizeof(t->key));
	g_clear_pointer(&t->early, g_byte_array_unref);
}

/* That it was really us two, by the key of that name. */
static bool is_as_meant(const EcTls *t)
{
	gnutls_datum_t name = { 0 };

	if (gnutls_protocol_get_version(t->session) != GNUTLS_TLS1_3 ||
			gnutls_kx_get(t->session) != GNUTLS_KX_ECDHE_PSK)
		return false;
	if (!t->server)
		return true;
	return t->asked && gnutls_psk_server_get_username2(t->session, &name) == 0 &&
	       name.size == strlen(t->identity) && memcmp(name.data, t->identity, name.size) == 0;
}

int ec_tls_handshake(EcTls *t)
{
	int r = gnutls_handshake(t->session);

	if (r < 0)
		return r;
	explicit_bzero(t->key, sizeof(t->key));
	return is_as_meant(t) ? 0 : GNUTLS_E_INSUFFICIENT_CREDENTIALS;
}

bool ec_tls_wants_out(const EcTls *t)
{
	return gnutls_record_get_direction(t->session) == 1;
}

bool ec_tls_is_wrong_key(const EcTls *t, int code)
{
	/* What the common libraries say when the binder or the identity does not fit. */
	static const gnutls_alert_description_t alerts[] = {
		GNUTLS_A_ILLEGAL_PARAMETER,
		GNUTLS_A_DECRYPT_ERROR,
		GNUTLS_A_BAD_RECORD_MAC,
		GNUTLS_A_UNKNOWN_PSK_IDENTITY,
		GNUTLS_A_ACCESS_DENIED,
	};

	if (code == GNUTLS_E_DECRYPTION_FAILED)
		return true;
	for (size_t i = 0; code == GNUTLS_E_FATAL_ALERT_RECEIVED && i < EC_ELEMENTS(alerts); i++) {
		if (gnutls_alert_get(t->session) == alerts[i])
			return true;
	}
	return false;
}

size_t ec_tls_take_early(EcTls *t, uint8_t *to, size_t n)
{
	n = MIN(n, t->early->len - t->early_done);
	memcpy(to, t->early->data + t->early_done, n);
	t->early_done += n;
	if (t->early_done == t->early->len)
		g_clear_pointer(&t->early, g_byte_array_unref);
	return n;
}
