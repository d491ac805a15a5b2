/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "tunnel.h"

/* Makes the kernel look as a wanted tunnel's settings say. 1: it does. 0: there is no path yet, why
 * in ret_error. -errno: it cannot, why in ret_error; an interface that works is left working as
 * long as the kernel allows. */
int ec_reconcile(EcTunnel *t, sd_bus_error *ret_error);

/* Whether an event shows the interface of a tunnel that is up as ec_reconcile() left it. Most
 * events are echoes of our own requests. Pure. */
bool ec_reconcile_is_as_left(const EcTunnel *t, const EcLink *link);

/* Takes the interface, if there is one, down: nothing leaves by it. */
void ec_reconcile_lower(EcTunnel *t);

/* Takes its carrier only: a bridge disables the port, addresses stay. */
void ec_reconcile_dim(EcTunnel *t);

/* Removes a bridge that we made and that only this tunnel used. */
void ec_reconcile_leave_bridge(EcTunnel *t, const char *name);

/* Gives back everything that ec_reconcile() made. */
void ec_reconcile_undo(EcTunnel *t);
