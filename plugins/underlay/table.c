/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "underlay.h"

const EcUnderlayKind *const ec_underlay_kinds[] = { &ec_underlay_route, NULL };
