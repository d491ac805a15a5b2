/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "underlay.h"

/* The most telling first: route knows no more than who holds an interface. */
const EcUnderlayKind *const ec_underlay_kinds[] = { &ec_underlay_ipsec, &ec_underlay_wireguard,
	&ec_underlay_openvpn, &ec_underlay_networkmanager, &ec_underlay_route, NULL };
