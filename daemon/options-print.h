/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "settings.h"

/* Build tool: an entry of a manual's option list, in scdoc's markup, to stdout. */
void ec_options_print(const EcSetting *row);
