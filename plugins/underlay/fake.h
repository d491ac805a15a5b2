/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "underlay.h"

/*
 * Tests only: a VPN made of one file. It serves underlay=wireguard. The file that the environment
 * variable ETHERCORD_FAKE_UNDERLAY names says what the VPN is like: "IFNAME MTU" while it is up
 * (MTU in bytes), empty or missing while it is down. Writing the file is the event.
 */
extern const EcUnderlayKind ec_underlay_fake;
