/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "settings.h"

/* Settings from text, with blanks between: "mode=join-remote id=7". What does not parse ends the
 * test. Rules between settings are not checked. */
EcSettings *unit_settings(const char *text);
/* An address from text; it must be one. "" is no address. */
EcAddress unit_address(const char *text);

/* Checks that `r` failed with error `name` (without prefix) and a sentence that has `part`. */
#define unit_assert_error(r, error, last_name, part)                                               \
	do {                                                                                       \
		g_assert_cmpint(r, <, 0);                                                          \
		g_assert_true(sd_bus_error_is_set(error));                                         \
		g_assert_cmpstr(ec_error_token(error), ==, last_name);                             \
		g_assert_true(ec_text_is_clean((error)->message));                                 \
		if (!strstr((error)->message, part))                                               \
			g_error("'%s' is not in '%s'", (const char *)(part), (error)->message);    \
	} while (false)
