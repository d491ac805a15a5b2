/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <net/if.h>
#include <sys/socket.h>

#include "control-message.h"

/*
 * One TCP connection with TLS 1.3 and a pre-shared key (GnuTLS), that carries control messages.
 * It knows no tunnels. Non-blocking throughout; nothing from the wire can abort or make it keep
 * more than a message that came and 256 KiB that go.
 *
 * "Keyless" is the same with a key that everybody knows (ec_channel_keyless_key): encrypted against
 * those who only listen, and proof of nothing. Its identity begins with EC_CHANNEL_KEYLESS, which
 * no name can; who accepts it has to know the peer otherwise.
 */
typedef struct EcChannel EcChannel;

#define EC_CHANNEL_KEYLESS '~'
#define EC_CHANNEL_KEY_SIZE 32
/* A connection that has not brought its first message after this is dropped. */
#define EC_CHANNEL_GREETING_USEC 5000000ULL
extern const uint8_t ec_channel_keyless_key[EC_CHANNEL_KEY_SIZE];

typedef struct EcChannelOps {
	/* Accepted ones only: the key of a PSK identity, as it came from the wire (clean text, at
	 * most 64 bytes). false: unknown; the peer cannot tell that from a wrong key. */
	bool (*key)(EcChannel *c, const char *identity, uint8_t ret[static EC_CHANNEL_KEY_SIZE],
			void *userdata);
	/* Messages can be sent. At the dialing end the peer is proven. At the accepting end it has
	 * come with the right key, or somebody sends again what it sent once: it is proven with its
	 * first message. What is sent from inside this op arrives half a round trip earlier. */
	void (*opened)(EcChannel *c, void *userdata);
	void (*message)(EcChannel *c, const EcControlMessage *m, void *userdata);
	/* Once, and nothing after it: the connection is over. why: WrongKey, PeerUnreachable
	 * (refused, reset, no answer in time, ... in errno's words), Protocol; not set when the
	 * peer closed in order. */
	void (*closed)(EcChannel *c, const sd_bus_error *why, void *userdata);
} EcChannelOps;

/* Where to, from where and by which interface. */
typedef struct EcChannelRoute {
	EcAddress remote;
	uint16_t port;
	EcAddress local;          /* AF_UNSPEC: any */
	char device[IF_NAMESIZE]; /* SO_BINDTODEVICE; "": not bound */
	uint32_t fwmark;
} EcChannelRoute;

/* Dials. Every op may free the channel. key: EC_CHANNEL_KEY_SIZE bytes, copied and wiped when not
 * needed any more. -errno when the socket cannot even be made or no route leads there
 * (PeerUnreachable). */
int ec_channel_dial(sd_event *event, const EcChannelRoute *route, const char *identity,
		const uint8_t *key, const EcChannelOps *ops, void *userdata, EcChannel **ret,
		sd_bus_error *ret_error);
/* Takes an accepted, connected socket over (in any case). */
int ec_channel_accept(
		sd_event *event, int fd, const EcChannelOps *ops, void *userdata, EcChannel **ret);
/* Hands it to another owner: later calls go there. ops has to last as long as the channel. */
void ec_channel_set_owner(EcChannel *c, const EcChannelOps *ops, void *userdata);
/* Sends what the socket takes of messages under way (a BYE), says close_notify, closes. No op is
 * called. NULL is fine; safe inside of ops. */
EcChannel *ec_channel_free(EcChannel *c);

/* The same without a packet: nobody may see one, since the way to the peer is no more. */
EcChannel *ec_channel_abandon(EcChannel *c);

/* From now on its packets take this interface or none, as those of one that was dialled through a
 * VPN that is an interface. */
void ec_channel_keep_to(EcChannel *c, const char *device);

/* Queues a message. A peer that does not take more than 256 KiB is closed (by closed(), later). */
void ec_channel_send(EcChannel *c, const EcControlMessage *m);

/* Inside of closed(): the errno that ended the connection, ECONNRESET also for one that the peer's
 * kernel closed and nobody said so; 0: none. */
int ec_channel_errno(const EcChannel *c);
bool ec_channel_is_open(const EcChannel *c);   /* opened() was called */
bool ec_channel_is_proven(const EcChannel *c); /* the peer has shown that it has the key */
/* "" before the peer said it; with EC_CHANNEL_KEYLESS in front where it is keyless. */
const char *ec_channel_identity(const EcChannel *c);
bool ec_channel_is_keyless(const EcChannel *c);
const EcAddress *ec_channel_remote(const EcChannel *c);
uint16_t ec_channel_remote_port(const EcChannel *c);
const EcAddress *ec_channel_local(const EcChannel *c);
/* RFC 5705 exporter: 32 bytes that only the two ends know. label: "EXPORTER-ethercord-..."
 * -ENOTCONN before the peer is proven, and when the connection is over. */
int ec_channel_export(const EcChannel *c, const char *label, uint8_t ret[static 32]);
/* IPv4 that came in on an IPv6 socket (::ffff:1.2.3.4) is IPv4. AF_UNSPEC for other families. */
EcAddress ec_channel_address(const struct sockaddr_storage *s, uint16_t *ret_port);
