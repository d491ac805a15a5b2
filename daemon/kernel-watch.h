/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "kernel.h"

/* What netlink tells without being asked. */
typedef enum EcKernelEvent {
	EC_KERNEL_LINK,   /* link made or changed: *link is its new look */
	EC_KERNEL_UNLINK, /* link gone */
	EC_KERNEL_ROUTES, /* an address, route or rule changed; link is NULL */
	EC_KERNEL_GUARD,  /* something of the guard's own routing went; link is NULL */
	EC_KERNEL_LOST,   /* events were lost: look at everything anew; link is NULL */
} EcKernelEvent;

typedef void (*EcKernelHandler)(EcKernelEvent what, const EcLink *link, void *userdata);

typedef struct EcKernelWatch EcKernelWatch;

/* Begins to listen; the handler runs from the event loop. -errno when there is no netlink. */
int ec_kernel_watch_new(
		sd_event *event, EcKernelHandler handler, void *userdata, EcKernelWatch **ret);
EcKernelWatch *ec_kernel_watch_free(EcKernelWatch *w);
