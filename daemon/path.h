/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "tunnel.h"

/* Where a tunnel's packets go, and the fence that keeps them there. */

/* Finds the first of the peer's addresses that one of the allowed encapsulations has a path to:
 * t->remote, t->path and t->underlay. candidates: the encapsulations that have this path, best
 * first, NULL-terminated. 1: found. 0: none yet, why in ret_why. -errno. */
int ec_path_find(EcTunnel *t, const EcEncap *candidates[static EC_ENCAPS_MAX + 1],
		sd_bus_error *ret_why);
/* The same for one address and without a tunnel, whose fence may be there under the settings' name:
 * candidates are what is asked about; those without the path are taken off. *ret_underlay is a
 * reference. */
int ec_path_to(EcManager *m, const EcSettings *s, const EcAddress *remote,
		const EcEncap *candidates[], EcPath *ret, EcUnderlay **ret_underlay,
		sd_bus_error *ret_why);
/* Arms the fence for packets of this form on t->path; before an interface sends any. Nothing
 * changes when it is armed already. */
int ec_path_fence(EcTunnel *t, const EcEncap *encap, const EcWire *wire, sd_bus_error *ret_error);
/* TCP through a bridged tunnel needs no outer fragments, or the clamp is off. */
void ec_path_clamp(EcTunnel *t, bool bridged);
/* Takes the fence down with the manager's next flush: when the interface is gone. */
void ec_path_unfence(EcTunnel *t);
/* Rides on another underlay, whose reference is taken over; NULL: on none. */
void ec_path_ride(EcTunnel *t, EcUnderlay *u);
