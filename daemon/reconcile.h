/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "tunnel.h"

/* Makes the kernel look as a wanted tunnel's settings say. 1: it does. 0: there is no path yet, why
 * in ret_error; the interface, if any, is down. -errno: it cannot, why in ret_error; likewise. */
int ec_reconcile(EcTunnel *t, sd_bus_error *ret_error);

/* Gives back everything that ec_reconcile() made. */
void ec_reconcile_undo(EcTunnel *t);
