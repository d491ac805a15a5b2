/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <sys/uio.h>

#include "worker-device.h"
#include "worker/protocol.h"

/* The daemon's end of one ethercord-worker, see worker-host.c. */
typedef struct EcWorkerHost EcWorkerHost;

/* What a tunnel wants of its worker. */
typedef struct EcWorkerSpec {
	EcWorkerSocket socket;
	EcAddress remote;     /* AF_UNSPEC: not known yet */
	uint16_t remote_port; /* 0: not known yet */
	uint32_t id;          /* GRE key or VNI */
	uint32_t flags;       /* EcWorkerFlags */
	uint32_t path_mtu;    /* bytes, 0: not known */
} EcWorkerSpec;

typedef struct EcWorkerOps {
	/* It answered, failed, ended or has to be told something: ec_worker_host_settle() is due.
	 */
	void (*changed)(void *userdata);
	/* With EC_WORKER_ROAM: the peer is there now. */
	void (*peer)(const EcAddress *address, uint16_t port, void *userdata);
	/* Something to tell: a kind of Event, and a sentence. */
	void (*told)(const char *kind, const char *sentence, void *userdata);
} EcWorkerOps;

/* format: EcWorkerFormat. directory: of the sockets at which workers are found again. A worker of
 * that name that runs already is taken over. */
EcWorkerHost *ec_worker_host_new(sd_event *event, const char *directory, const char *name,
		uint32_t format, const EcWorkerOps *ops, void *userdata);
/* Leaves the worker running, for the next daemon. */
EcWorkerHost *ec_worker_host_free(EcWorkerHost *h);
/* Ends the worker. The device stays, for whoever deletes it. Cannot fail. */
EcWorkerHost *ec_worker_host_end(EcWorkerHost *h);

/* Another format on the same device: the worker that runs is ended. */
void ec_worker_host_set_format(EcWorkerHost *h, uint32_t format);
/* Makes the device, unless it is open already. It goes with those who have it open until it is
 * kept. */
int ec_worker_host_make_device(EcWorkerHost *h, const char *ifname, sd_bus_error *ret_error);
int ec_worker_host_keep_device(EcWorkerHost *h, sd_bus_error *ret_error);
/* Has the worker run as this says; nothing is sent when it does. 0, also while it has not answered
 * yet; -errno: what failed, and will be tried again. */
int ec_worker_host_settle(EcWorkerHost *h, const char *ifname, const EcWorkerSpec *spec,
		sd_bus_error *ret_error);
/* Has a frame leave as if it had come from the device: also without a carrier, which takes nothing
 * then. Whether the worker took it. */
bool ec_worker_host_inject(EcWorkerHost *h, const struct iovec *parts, size_t n);
/* All zero where there is no worker. */
void ec_worker_host_statistics(const EcWorkerHost *h, EcWorkerStatistics *ret);
pid_t ec_worker_host_pid(const EcWorkerHost *h);

/* Whether workers can be started here: the program or systemd's socket, and TUN devices. */
bool ec_worker_is_possible(const char *directory);
/* Ends the workers in a directory that nobody wants, as one that was killed with its daemon's
 * settings gone. */
void ec_worker_sweep(const char *directory, bool (*is_wanted)(const char *name, void *userdata),
		void *userdata);
