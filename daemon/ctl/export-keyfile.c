/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl.h"

#include <stdio.h>

/* Our own file: as it was given, or what the far end needs to be static with the same wire. */

static void print_row(const EcSettings *s, const EcSetting *row)
{
	g_autofree char *text = ec_settings_text(s, row);

	(void)printf("%s=%s\n", row->key, text);
}

static void print_given(const EcSettings *s)
{
	size_t n;
	const EcSetting *table = ec_settings_table(&n);

	for (size_t i = 0; i < n; i++) {
		/* A file belongs to no profile of NetworkManager. */
		if ((table[i].scopes & s->scope) && ec_settings_is_given(s, &table[i]) &&
				!(table[i].flags & EC_SETTING_SECRET) &&
				!g_str_equal(table[i].key, "profile"))
			print_row(s, &table[i]);
	}
}

static void print_mirrored(const CtlExport *e)
{
	static const char *const keys[] = { "name", "mode", "remote", "local", "encapsulation",
		"data-plane", "full-frames", "split", "ttl", "dscp", NULL };
	EcSettings *s = e->settings;

	for (const char *const *key = keys; *key; key++) {
		const EcSetting *row = ec_setting_find(*key);

		if (ec_settings_is_given(s, row))
			print_row(s, row);
	}
	(void)fputs("control=static\n", stdout);
	if (e->kind->id)
		(void)printf("id=%u\n", s->id);
	if (e->kind->port)
		(void)printf("data-port=%u\nremote-data-port=%u\n", s->data_port,
				s->remote_data_port);
	if (e->mtu)
		(void)printf("mtu=%u\n", e->mtu);
	if (g_str_equal(s->underlay, "any"))
		(void)fputs("underlay=any\n", stdout);
	if (s->mode == EC_MODE_JOIN_NETWORKS)
		(void)printf("# The far end's bridge may have another name.\nbridge=%s\n",
				s->bridge ? s->bridge : "br0");
	else if (s->mode == EC_MODE_JOIN_REMOTE && !s->bridge)
		(void)fputs("# The network there is the one that is joined: name its bridge.\n"
			    "#bridge=br0\n",
				stdout);
}

int ctl_export_keyfile(const CtlExport *e)
{
	(void)printf("# /etc/ethercord/tunnels.d/%s.conf\n[tunnel]\n", e->settings->name);
	if (e->peer)
		print_mirrored(e);
	else
		print_given(e->given);
	return CTL_OK;
}
