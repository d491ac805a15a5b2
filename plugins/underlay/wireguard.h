/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "kernel.h"

/* What WG_CMD_GET_DEVICE tells, put together from its messages. */

#define EC_WG_KEY_SIZE 32

typedef struct EcWgPeer {
	uint8_t key[EC_WG_KEY_SIZE];
	char endpoint[INET6_ADDRSTRLEN + 8]; /* "192.0.2.1:51820", "" when it has none */
	int64_t handshake;                   /* the last one, s since 1970, 0 none */
} EcWgPeer;

typedef struct EcWgDevice {
	EcAddress to; /* asked for: the address that is looked for in the allowed-ips */
	uint16_t port;
	GArray *peers;   /* EcWgPeer */
	int peer;        /* index of the one that packets to that address go to, -1 none */
	int peer_length; /* of its prefix */
	uint64_t digest; /* of keys, allowed-ips, and which peers have an endpoint */
	int error;       /* -EBADMSG: a message was malformed */
} EcWgDevice;

void ec_wg_device_init(EcWgDevice *d, const EcAddress *to);
void ec_wg_device_done(EcWgDevice *d);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(EcWgDevice, ec_wg_device_done)
/* Takes in one message; EcNetlinkAnswer.on_message. 0 or -EBADMSG, which d->error keeps. */
int ec_wg_device_take(struct nlmsghdr *h, void *device);
