/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "util.h"

/*
 * Asks polkit whether the sender of a method call may do an action. Nothing blocks: the verdict
 * comes through a callback, at once for root. A caller that leaves the bus meanwhile takes its
 * request with it: the callback is then never called.
 */
typedef struct EcPolkit EcPolkit;

/* allowed: every action was granted; otherwise *error says why not (NotAuthorized, LimitExceeded).
 */
typedef void (*EcVerdict)(sd_bus_message *call, bool allowed, sd_bus_error *error, void *userdata);

EcPolkit *ec_polkit_new(sd_bus *bus);
EcPolkit *ec_polkit_free(EcPolkit *p);

/* actions: NULL-terminated constants, asked one after the other. tunnel: for polkit's dialogue and
 * rules (detail "tunnel"), may be NULL. */
void ec_polkit_ask(EcPolkit *p, sd_bus_message *call, const char *const *actions,
		const char *tunnel, EcVerdict verdict, void *userdata);
bool ec_polkit_is_idle(const EcPolkit *p);
