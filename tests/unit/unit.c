/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unit.h"

#include <string.h>

static void parse(EcSettings *s, const char *assignment)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_auto(GStrv) part = g_strsplit(assignment, "=", 2);

	if (ec_settings_parse(s, part[0], part[1], &error) < 0)
		g_error("%s: %s", assignment, error.message);
}

EcSettings *unit_settings(const char *text)
{
	g_auto(GStrv) items = g_strsplit(text, " ", -1);
	EcSettings *s = ec_settings_new();

	for (char **i = items; *i; i++) {
		if (**i)
			parse(s, *i);
	}
	return s;
}

EcAddress unit_address(const char *text)
{
	EcAddress a = { 0 };

	if (*text && ec_address_from_string(text, &a) < 0)
		g_error("'%s' is no address", text);
	return a;
}
