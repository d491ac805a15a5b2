/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <net/if.h>
#include <sys/socket.h>

#include "util.h"

/* The two ends of ethercord-worker, which are made here because that takes rights which the worker
 * has not. */

/* Where a worker's socket is bound and how its datagrams leave. */
typedef struct EcWorkerSocket {
	EcAddress local; /* with its family; all zero: any address of this machine */
	uint16_t port;
	int ifindex;              /* of device: another one of the same name is another socket */
	char device[IF_NAMESIZE]; /* the VPN's, "" where nothing is protected */
	uint32_t mark;
	uint8_t ttl, tos;
	bool fragment; /* datagrams above the path MTU leave in IP fragments, DF unset */
} EcWorkerSocket;

/* Makes the TAP or TUN device of that name, or attaches to one that was left by a process that is
 * gone; *ret_fd is not blocking. -EBUSY: somebody has it.
 * NameTaken, Kernel. */
int ec_worker_device_open(const char *ifname, bool ethernet, int *ret_fd, sd_bus_error *ret_error);
/* False: somebody has deleted it. */
bool ec_worker_device_is_there(int fd);
/* From now on it outlives those who have it open. */
int ec_worker_device_keep(int fd, sd_bus_error *ret_error);
/* Whether one serves for the other. */
bool ec_worker_socket_same(const EcWorkerSocket *a, const EcWorkerSocket *b);
/* A UDP socket that may share its port with others as long as each has a peer of its own. NameTaken
 * when the port is in use (by the kernel's FOU or VXLAN, or a program); Kernel. */
int ec_worker_socket_open(const EcWorkerSocket *s, int *ret_fd, sd_bus_error *ret_error);
/* What the kernel calls an address with a port; ifindex: where a link-local one is. All zero for
 * AF_UNSPEC. Returns the size. */
socklen_t ec_worker_sockaddr(
		const EcAddress *a, uint16_t port, int ifindex, struct sockaddr_storage *ret);
