/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <systemd/sd-journal.h>

#include "tunnel.h"

static bool terminal;

void ec_log_to_terminal(bool yes)
{
	terminal = yes;
}

static void put(int priority, const EcTunnel *t, const char *text)
{
	if (terminal) {
		fprintf(stderr, "ethercordd: %s%s%s\n", t ? ec_tunnel_name(t) : "", t ? ": " : "",
				text);
		return;
	}
	if (t)
		(void)sd_journal_send("PRIORITY=%d", priority, "MESSAGE=%s: %s", ec_tunnel_name(t),
				text, "ETHERCORD_TUNNEL=%s", ec_tunnel_name(t),
				"ETHERCORD_INTERFACE=%s", t->ifname, "ETHERCORD_STATE=%s",
				ec_state_to_string(t->state),
				t->settings->profile ? "NM_CONNECTION=%s" : NULL,
				t->settings->profile, NULL);
	else
		(void)sd_journal_send("PRIORITY=%d", priority, "MESSAGE=%s", text, NULL);
}

void ec_log(int priority, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	g_autofree char *text = g_strdup_vprintf(format, ap);
	va_end(ap);
	put(priority, NULL, text);
}

void ec_log_tunnel(int priority, const EcTunnel *t, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	g_autofree char *text = g_strdup_vprintf(format, ap);
	va_end(ap);
	put(priority, t, text);
}

void ec_log_profile(int priority, const char *uuid, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	g_autofree char *text = g_strdup_vprintf(format, ap);
	va_end(ap);
	if (terminal)
		fprintf(stderr, "ethercordd: %s: %s\n", uuid, text);
	else
		(void)sd_journal_send("PRIORITY=%d", priority, "MESSAGE=%s", text,
				"NM_CONNECTION=%s", uuid, NULL);
}
