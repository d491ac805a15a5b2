/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "svc.h"

#include <stdarg.h>
#include <stdio.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

/* NM_CONNECTION is what nmcli names in its hint when an activation fails: the entries with it are
 * those that the user is shown. */
void ec_svc_tell(EcService *s, int priority, const char *format, ...)
{
	const EcSvcConnection *c = s->connection;
	va_list ap;

	va_start(ap, format);
	g_autofree char *text = g_strdup_vprintf(format, ap);
	va_end(ap);
	if (g_strcmp0(s->told, text) == 0)
		return;
	g_free(s->told);
	s->told = g_steal_pointer(&text);
	const char *id = c && c->id ? c->id : "ethercord";
	if (access("/run/systemd/journal/socket", W_OK) < 0)
		(void)fprintf(stderr, "nm-ethercord-service: %s: %s\n", id, s->told);
	else
		(void)sd_journal_send("PRIORITY=%d", priority, "MESSAGE=%s: %s", id, s->told,
				"SYSLOG_IDENTIFIER=nm-ethercord-service", "NM_CONNECTION=%s",
				c && c->uuid ? c->uuid : "", "ETHERCORD_TUNNEL=%s",
				c && c->name ? c->name : "", NULL);
}
