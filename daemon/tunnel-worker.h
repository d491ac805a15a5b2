/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "tunnel.h"
#include "worker-host.h"

/* A tunnel's worker: what the encapsulations with EcEncap.worker have in the place of a link that
 * the kernel encapsulates by itself. */

/* Makes the device under t->ifname, or attaches to it; then ec_tunnel_worker_keep() once it is
 * tagged as ours: from there on it outlives all processes. */
int ec_tunnel_worker_make(EcTunnel *t, const EcEncap *encap, sd_bus_error *ret_error);
int ec_tunnel_worker_keep(EcTunnel *t, sd_bus_error *ret_error);
/* Has the worker carry what t->wire says; nothing is sent when it does. */
int ec_tunnel_worker_settle(EcTunnel *t, sd_bus_error *ret_error);
/* Ends it. The device is for ec_reconcile_undo() to delete. Cannot fail. */
void ec_tunnel_worker_end(EcTunnel *t);
/* Whether workers can run here. */
bool ec_tunnel_worker_is_possible(EcManager *m);
/* Ends those that no tunnel has. */
void ec_tunnel_worker_sweep(EcManager *m);
