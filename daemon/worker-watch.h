/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <systemd/sd-event.h>

#include "worker/protocol.h"

/* Whether a worker does what there is to do, see worker-watch.c. */
typedef struct EcWorkerWatch EcWorkerWatch;

typedef struct EcWorkerWatchOps {
	/* Something has waited for a while, and the worker took none of it: it is to be asked. */
	void (*ask)(void *userdata);
	/* And it did not answer. Once. */
	void (*hangs)(void *userdata);
} EcWorkerWatchOps;

/* socket: -1: none. The descriptors are duplicated; the statistics have to stay. */
int ec_worker_watch_new(sd_event *event, int device, int socket,
		const EcWorkerStatistics *statistics, const EcWorkerWatchOps *ops, void *userdata,
		EcWorkerWatch **ret);
EcWorkerWatch *ec_worker_watch_free(EcWorkerWatch *w);
/* The worker said something. w: NULL is nothing. */
void ec_worker_watch_heard(EcWorkerWatch *w);
