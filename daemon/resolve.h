/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "util.h"

/*
 * Name resolution that never blocks the loop: getaddrinfo(), and with it /etc/hosts and every NSS
 * module the administrator chose, runs in a child process.
 */
typedef struct EcResolve EcResolve;

/* addresses: of all names, in their order and getaddrinfo's; n is 0 when none has any.
 * Not called after ec_resolve_free(); may free the EcResolve. */
typedef void (*EcResolved)(const EcAddress *addresses, size_t n, void *userdata);

/* Resolves `names`. family: AF_UNSPEC or the only one wanted. */
int ec_resolve_new(sd_event *event, char **names, int family, EcResolved done, void *userdata,
		EcResolve **ret);
EcResolve *ec_resolve_free(EcResolve *r);
