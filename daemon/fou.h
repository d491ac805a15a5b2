/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "netlink.h"
#include "util.h"

/*
 * Receive ports of foo-over-UDP for GRE (linux/fou.h). They belong to no link, so they are counted
 * here.
 */
typedef struct EcFou EcFou;

typedef struct EcFouPort {
	uint16_t port;   /* host byte order */
	EcAddress local; /* family, and the address it takes packets for; all zero: any */
	int ifindex;     /* device it takes packets from, 0: any */
} EcFouPort;

/* runtime_dir holds the marks of ports that are ours. generic: a generic netlink socket that
 * outlives it. */
EcFou *ec_fou_new(struct nl_sock *generic, const char *runtime_dir);
EcFou *ec_fou_free(EcFou *f);

/* Takes a share in a port, opening it for the first holder; a port somebody else opened for GRE is
 * used and never closed. Busy when it serves something else. */
int ec_fou_ref(EcFou *f, const EcFouPort *port, sd_bus_error *ret_error);
/* Closes the ports that an earlier daemon opened and nobody holds: of a tunnel that is gone or
 * waits, or of a VPN's device that was made anew. */
void ec_fou_sweep(EcFou *f);
/* Gives the share back; the last one closes the port if we opened it. */
void ec_fou_unref(EcFou *f, const EcFouPort *port);
