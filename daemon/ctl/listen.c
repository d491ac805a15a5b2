/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl.h"

#include <stdio.h>
#include <string.h>

/* The verbs that make and change listeners and their peers. */

static int send_add(Ctl *ctl, const EcSettings *s, sd_bus_error *ret_error)
{
	g_autoptr(sd_bus_message) call = NULL;
	int r = sd_bus_message_new_method_call(
			ctl->bus, &call, CTL_BUS_NAME, CTL_ROOT_PATH, CTL_MANAGER, "AddListener");

	if (r >= 0)
		r = sd_bus_message_sensitive(call);
	if (r >= 0)
		r = ec_settings_append(s, call, true);
	if (r >= 0)
		r = sd_bus_message_append(
				call, "a{sa{sv}}s", 0, ctl->save ? "persist activate" : "activate");
	return r < 0 ? r : sd_bus_call(ctl->bus, call, 0, ret_error, NULL);
}

/* What it listens on, and what is still to do. */
static int tell(Ctl *ctl, const EcSettings *s)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autofree char *path = ctl_listener_path(s->name);
	g_autoptr(json_t) l = NULL;
	int r = ctl_get_properties(ctl, path, CTL_LISTENER, &l, &error);

	if (r < 0)
		return ctl_fail(&error, r, s->name, CTL_ERROR);
	if (ctl->json != CTL_JSON_OFF)
		ctl_json_print(ctl, l);
	else
		(void)printf("%s listens on TCP port %" JSON_INTEGER_FORMAT "%s%s\n", s->name,
				ctl_json_integer(l, "Port"),
				s->bridge ? "; peers join bridge " : "",
				s->bridge ? s->bridge : "");
	if (!s->key && !s->allow)
		(void)ctl_complain(0,
				"note: nobody can come in yet; 'ethercordctl setkey %s' gives the "
				"listener a key, 'ethercordctl peer %s NAME' and 'ethercordctl setkey "
				"%s/NAME' a peer its own, and allow=ADDRESS lets peers inside the VPN "
				"in without",
				s->name, s->name, s->name);
	return CTL_OK;
}

int ctl_verb_listen(Ctl *ctl, int argc, char **argv)
{
	g_autoptr(EcSettings) s = ec_settings_new_for(EC_SCOPE_LISTENER);
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	int code = ctl_take_new(ctl, s, argv + 1);

	if (code != CTL_OK)
		return code;
	int r = send_add(ctl, s, &error);
	if (r < 0)
		return ctl_fail(&error, r, argv[1],
				ctl_is_about_settings(&error) ? CTL_ERROR : CTL_UP_FAILED);
	return tell(ctl, s);
}

static int send_peer(Ctl *ctl, const char *listener, const char *peer, const EcSettings *s,
		sd_bus_error *ret_error)
{
	g_autofree char *path = ctl_listener_path(listener);
	g_autoptr(sd_bus_message) call = NULL;
	int r = sd_bus_message_new_method_call(ctl->bus, &call, CTL_BUS_NAME, path, CTL_LISTENER,
			s ? "SetPeer" : "RemovePeer");

	if (r >= 0)
		r = sd_bus_message_sensitive(call);
	if (r >= 0)
		r = sd_bus_message_append(call, "s", peer);
	if (r >= 0 && s)
		r = ec_settings_append(s, call, true);
	return r < 0 ? r : sd_bus_call(ctl->bus, call, 0, ret_error, NULL);
}

int ctl_verb_peer(Ctl *ctl, int argc, char **argv)
{
	g_autoptr(EcSettings) s = ec_settings_new_for(EC_SCOPE_PEER);
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;

	if (ctl->remove && argc > 3)
		return ctl_complain(CTL_USAGE, "peer: --remove takes no settings");
	if (!ec_name_is_valid(argv[2]))
		return ctl_complain(CTL_USAGE,
				"peer '%s': allowed is a name of a letter or digit, then up to 62 of "
				"letters, digits, '_', '.', '-'",
				argv[2]);
	int code = ctl_parse_settings(s, argv + 3);
	if (code == CTL_OK)
		code = ctl_open(ctl);
	if (code != CTL_OK)
		return code;
	int r = send_peer(ctl, argv[1], argv[2], ctl->remove ? NULL : s, &error);
	if (sd_bus_error_has_name(&error, SD_BUS_ERROR_UNKNOWN_OBJECT))
		return ctl_complain(CTL_NOT_FOUND, "there is no listener '%s'", argv[1]);
	return r < 0 ? ctl_fail(&error, r, argv[1], CTL_ERROR) : CTL_OK;
}
