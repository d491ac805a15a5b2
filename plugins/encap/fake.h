/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "encap.h"

/* For tests: carries nothing anywhere, but its link can be made on any kernel. */
extern const EcEncap ec_encap_fake;
