/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "kernel.h"
#include "settings.h"
#include "underlay.h"

/* The bridge that one end of a tunnel joins, and the local interface that joins it as well. */

/* Finds settings->bridge, or makes it where bridge-create allows (with this MAC, up, tagged
 * EC_ALIAS_BRIDGE). NoBridge when it is missing or is no bridge. */
int ec_bridge_ensure(EcKernel *k, const EcSettings *settings, const uint8_t mac[static 6],
		EcLink *ret, sd_bus_error *ret_error);

/* Puts settings->attach in the bridge and up: 1 done now, 0 it was there, or -errno with the reason
 * why not: missing, not Ethernet, Wi-Fi, port of another bridge (Busy), carries the route to the
 * peer (Loop). */
int ec_bridge_attach(EcKernel *k, const EcSettings *settings, const EcLink *bridge,
		const EcPath *path, sd_bus_error *ret_error);

/* Takes `attach` off `bridge` again, if it is there. */
void ec_bridge_detach(EcKernel *k, const char *attach, const char *bridge);
