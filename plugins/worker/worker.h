/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "coalesce.h"
#include "format.h"
#include "protocol.h"
#include "split.h"

/* What the parts of the process share. One thread, one loop; main.c makes the only one there is. */

typedef struct EcTransmit EcTransmit;
typedef struct EcReceive EcReceive;

/* The outer side. */
typedef struct EcPath {
	int fd;                 /* the socket, -1: none yet */
	sa_family_t family;     /* of the socket */
	bool connected;         /* the kernel checks the sources */
	bool addressed;         /* or at least their addresses */
	bool gone;              /* EC_WORKER_SOCKET was sent */
	bool segmentation;      /* UDP_SEGMENT is used */
	unsigned segment_limit; /* bytes; datagrams of that size or more are sent one by one */
	unsigned overhead;      /* outer IP and UDP headers, bytes */
	unsigned mtu;           /* EcWorkerConfigure.path_mtu, or what was found to be less */
	bool can_send;          /* the remote has an address and a port */
	/* The remote before this one, until the socket was found empty: what it sent is in there.
	 */
	struct sockaddr_storage previous;
	struct sockaddr_storage remote; /* in force: with ROAM, or without a port, learned */
	socklen_t remote_size;
} EcPath;

/* How much is asked for at a time: as much as came lately, so that who brings one packet does not
 * pay for a look whether there are more. */
typedef struct EcPace {
	unsigned limit; /* 0 stands for 1 */
	unsigned full;  /* times in a row that it was reached */
} EcPace;

typedef struct EcWorker {
	int epoll, control, listener, device, memory;
	char name[64];
	bool started, ethernet, stop, device_gone;
	int status;                  /* of the process, once stop is true */
	EcWorkerConfigure configure; /* in force; type 0: none yet */
	EcFormat format;
	EcPath path;
	EcWorkerStatistics *statistics;
	EcTransmit *transmit;
	EcReceive *receive;
} EcWorker;

/* What the loop waits for. */
typedef enum EcSource {
	EC_SOURCE_CONTROL,
	EC_SOURCE_LISTENER,
	EC_SOURCE_SOCKET,
	EC_SOURCE_DEVICE,
} EcSource;

static inline unsigned ec_pace_limit(const EcPace *p)
{
	return p->limit ? p->limit : 1;
}

/* n came of that limit; no more than `most` are asked for. */
static inline void ec_pace_came(EcPace *p, unsigned n, unsigned most)
{
	const unsigned limit = ec_pace_limit(p);

	if (n < limit) {
		*p = (EcPace){ .limit = n };
	} else if (++p->full > 1) {
		*p = (EcPace){ .limit = limit * 4 < most ? limit * 4 : most };
	}
}

/* Takes over the control connection; memory for good. NULL with errno. */
EcWorker *ec_worker_new(int control);
EcWorker *ec_worker_free(EcWorker *w);
/* Until STOP, or the device is gone: the exit status. */
int ec_worker_run(EcWorker *w);

/* events: EPOLLIN and others; level-triggered. -errno. */
int ec_worker_watch(EcWorker *w, EcSource source, int fd, uint32_t events);
int ec_worker_rewatch(EcWorker *w, EcSource source, int fd, uint32_t events);
