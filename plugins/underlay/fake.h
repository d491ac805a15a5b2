/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "underlay.h"

/*
 * Tests only: a VPN made of one file, in WireGuard's place. The file that the environment variable
 * ETHERCORD_FAKE_UNDERLAY names says what the VPN is like: "IFNAME MTU" while it is up (MTU in
 * bytes), empty or missing while it is down. Writing the file is the event. An interface with the
 * alias "fake VPN" is one, up or down.
 */
extern const EcUnderlayKind ec_underlay_fake;
