/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "underlay/fake.h"

/* The product's table behind the fake: what tests link instead. */
const EcUnderlayKind *const ec_underlay_kinds[] = { &ec_underlay_fake, &ec_underlay_route, NULL };
