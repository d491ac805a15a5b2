/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <termios.h>
#include <unistd.h>

/* The verbs that change something. */

static int call_method(Ctl *ctl, const char *path, const char *interface, const char *member,
		sd_bus_message **ret, sd_bus_error *ret_error)
{
	return sd_bus_message_new_method_call(ctl->bus, ret, CTL_BUS_NAME, path, interface, member);
}

/* KEY=VALUE words into settings; complains and returns an exit code. */
static int parse_settings(EcSettings *s, char **words)
{
	for (char **word = words; *word; word++) {
		g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
		const char *equals = strchr(*word, '=');

		if (!equals)
			return ctl_complain(CTL_USAGE, "'%s' is not KEY=VALUE", *word);
		g_autofree char *key = g_strndup(*word, (size_t)(equals - *word));
		int r = ec_settings_parse(s, key, equals + 1, &error);
		if (r < 0)
			return ctl_fail(&error, r, NULL, CTL_USAGE);
		const EcSetting *row = ec_setting_find(key);
		if (row->flags & EC_SETTING_SECRET && equals[1])
			(void)ctl_complain(0,
					"warning: every user of this machine can see a command "
					"line; 'ethercordctl setkey NAME' reads the key from "
					"standard input");
	}
	return CTL_OK;
}

static int send_add(Ctl *ctl, const EcSettings *s, bool activate, sd_bus_error *ret_error)
{
	g_autoptr(sd_bus_message) call = NULL;
	g_autofree char *flags = g_strjoin(ctl->save && activate ? " " : "",
			ctl->save ? "persist" : "", activate ? "activate" : "", NULL);
	int r = call_method(ctl, CTL_ROOT_PATH, CTL_MANAGER, "AddTunnel", &call, ret_error);

	if (r >= 0)
		r = sd_bus_message_sensitive(call);
	if (r >= 0)
		r = ec_settings_append(s, call, true);
	if (r >= 0)
		r = sd_bus_message_append(call, "s", flags);
	if (r >= 0)
		r = sd_bus_call(ctl->bus, call, 0, ret_error, NULL);
	return r;
}

/* Refused as such, rather than accepted and then unable to come up. */
static bool is_about_settings(const sd_bus_error *error)
{
	static const char *const names[] = { EC_ERROR_EXISTS, EC_ERROR_INVALID_SETTING,
		EC_ERROR_NOT_AUTHORIZED, EC_ERROR_LIMIT_EXCEEDED, SD_BUS_ERROR_ACCESS_DENIED };

	for (size_t i = 0; i < EC_ELEMENTS(names); i++) {
		if (sd_bus_error_has_name(error, names[i]))
			return true;
	}
	return false;
}

int ctl_verb_add(Ctl *ctl, int argc, char **argv)
{
	g_autoptr(EcSettings) s = ec_settings_new();
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autoptr(CtlWait) wait = NULL;
	char *name[] = { argv[1], NULL };
	int r = ec_settings_parse(s, "name", argv[1], &error);

	if (r < 0)
		return ctl_fail(&error, r, NULL, CTL_USAGE);
	int code = parse_settings(s, argv + 2);
	if (code != CTL_OK)
		return code;
	if (g_strcmp0(s->name, argv[1]) != 0)
		return ctl_complain(CTL_USAGE, "name: the tunnel is already called '%s'", argv[1]);
	r = ec_settings_verify(s, &error);
	if (r < 0)
		return ctl_fail(&error, r, NULL, CTL_USAGE);
	code = ctl_open(ctl);
	if (code != CTL_OK)
		return code;
	bool waits = ctl->up && !ctl->no_wait;
	if (waits)
		r = ctl_wait_new(ctl, &wait, &error);
	if (r >= 0)
		r = send_add(ctl, s, ctl->up, &error);
	if (r < 0)
		return ctl_fail(&error, r, argv[1],
				ctl->up && !is_about_settings(&error) ? CTL_UP_FAILED : CTL_ERROR);
	return waits ? ctl_wait_run(wait, name, false) : CTL_OK;
}

int ctl_verb_set(Ctl *ctl, int argc, char **argv)
{
	g_autoptr(EcSettings) s = ec_settings_new();
	g_autoptr(sd_bus_message) call = NULL;
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autofree char *path = ctl_tunnel_path(argv[1]);
	int code = parse_settings(s, argv + 2);

	if (code == CTL_OK)
		code = ctl_open(ctl);
	if (code != CTL_OK)
		return code;
	int r = call_method(ctl, path, CTL_TUNNEL, "Update", &call, &error);
	if (r >= 0)
		r = sd_bus_message_sensitive(call);
	if (r >= 0)
		r = ec_settings_append(s, call, true);
	if (r >= 0)
		r = sd_bus_call(ctl->bus, call, 0, &error, NULL);
	return r < 0 ? ctl_fail(&error, r, argv[1], CTL_ERROR) : CTL_OK;
}

typedef struct Outcome {
	int otherwise;
	int code; /* of the first failure */
} Outcome;

static void on_outcome(Ctl *ctl, const char *name, sd_bus_message *reply, void *userdata)
{
	Outcome *outcome = userdata;

	if (!sd_bus_message_is_method_error(reply, NULL))
		return;
	int code = ctl_fail(sd_bus_message_get_error(reply), -sd_bus_message_get_errno(reply), name,
			outcome->otherwise);
	if (outcome->code == CTL_OK)
		outcome->code = code;
}

static int call_all(Ctl *ctl, char **names, const char *member, int otherwise)
{
	Outcome outcome = { .otherwise = otherwise };
	int r = ctl_batch(ctl, names, CTL_TUNNEL, member, NULL, on_outcome, &outcome);

	return r < 0 ? ctl_fail(NULL, r, NULL, otherwise) : outcome.code;
}

int ctl_verb_up(Ctl *ctl, int argc, char **argv)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autoptr(CtlWait) wait = NULL;
	int code = ctl_open(ctl);

	if (code != CTL_OK)
		return code;
	if (ctl->no_wait)
		return call_all(ctl, argv + 1, "Activate", CTL_UP_FAILED);
	int r = ctl_wait_new(ctl, &wait, &error);
	if (r < 0)
		return ctl_fail(&error, r, NULL, CTL_ERROR);
	return ctl_wait_run(wait, argv + 1, true);
}

int ctl_verb_down(Ctl *ctl, int argc, char **argv)
{
	int code = ctl_open(ctl);

	return code != CTL_OK ? code : call_all(ctl, argv + 1, "Deactivate", CTL_DOWN_FAILED);
}

/* One call for all: the daemon then deletes their interfaces with one request. */
static int remove_all(Ctl *ctl, char **names)
{
	g_autoptr(sd_bus_message) call = NULL;
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	int r = call_method(ctl, CTL_ROOT_PATH, CTL_MANAGER, "RemoveTunnels", &call, &error);

	if (r >= 0)
		r = sd_bus_message_append_strv(call, names);
	if (r >= 0)
		r = sd_bus_call(ctl->bus, call, 0, &error, NULL);
	return r < 0 ? ctl_fail(&error, r, names[0] && !names[1] ? names[0] : NULL, CTL_ERROR)
		     : CTL_OK;
}

int ctl_verb_remove(Ctl *ctl, int argc, char **argv)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autoptr(GPtrArray) names = g_ptr_array_new();
	g_autoptr(json_t) objects = NULL, tunnels = NULL;

	if (ctl->all == (argc > 1))
		return ctl_complain(CTL_USAGE, "remove: give the names of tunnels, or --all");
	int code = ctl_open(ctl);
	if (code != CTL_OK)
		return code;
	if (!ctl->all)
		return remove_all(ctl, argv + 1);
	int r = ctl_get_objects(ctl, true, &objects, &error);
	if (r < 0)
		return ctl_fail(&error, r, NULL, CTL_ERROR);
	tunnels = ctl_pick(objects, CTL_TUNNEL);
	for (size_t i = 0; i < json_array_size(tunnels); i++) {
		const json_t *t = json_array_get(tunnels, i);

		g_ptr_array_add(names, (char *)ctl_json_string(t, "Name"));
	}
	g_ptr_array_add(names, NULL);
	return remove_all(ctl, (char **)names->pdata);
}

int ctl_verb_reload(Ctl *ctl, int argc, char **argv)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	int code = ctl_open(ctl);

	if (code != CTL_OK)
		return code;
	int r = sd_bus_call_method(ctl->bus, CTL_BUS_NAME, CTL_ROOT_PATH, CTL_MANAGER, "Reload",
			&error, NULL, NULL);
	return r < 0 ? ctl_fail(&error, r, NULL, CTL_ERROR) : CTL_OK;
}

int ctl_verb_genkey(Ctl *ctl, int argc, char **argv)
{
	guchar bytes[32];

	if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
		return ctl_complain(CTL_ERROR, "no random bytes: %s", g_strerror(errno));
	g_autofree char *key = g_base64_encode(bytes, sizeof(bytes));
	explicit_bzero(bytes, sizeof(bytes));
	if (ctl->json != CTL_JSON_OFF) {
		g_autoptr(json_t) object = json_pack("{s:s}", "key", key);
		ctl_json_print(ctl, object);
	} else {
		(void)puts(key);
	}
	explicit_bzero(key, strlen(key));
	return CTL_OK;
}

/* One line of standard input, without echo when it is a terminal. */
static int read_secret(char *buffer, int size)
{
	struct termios before, quiet;
	bool terminal = tcgetattr(STDIN_FILENO, &before) == 0;

	if (terminal) {
		quiet = before;
		quiet.c_lflag &= ~(tcflag_t)ECHO;
		(void)fputs("Key: ", stderr);
		(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
	}
	bool got = fgets(buffer, size, stdin);
	if (terminal) {
		(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
		(void)fputc('\n', stderr);
	}
	if (!got)
		return ctl_complain(CTL_USAGE, "key: nothing on standard input");
	(void)g_strstrip(buffer);
	if (!*buffer)
		return ctl_complain(CTL_USAGE, "key: the line on standard input is empty");
	return CTL_OK;
}

static int send_key(Ctl *ctl, const char *name, const char *key)
{
	g_autoptr(sd_bus_message) call = NULL;
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autofree char *path = ctl_tunnel_path(name);
	int code = ctl_open(ctl);

	if (code != CTL_OK)
		return code;
	int r = call_method(ctl, path, CTL_TUNNEL, "SetKey", &call, &error);
	if (r >= 0)
		r = sd_bus_message_sensitive(call);
	if (r >= 0)
		r = sd_bus_message_append(call, "s", key);
	if (r >= 0)
		r = sd_bus_call(ctl->bus, call, 0, &error, NULL);
	return r < 0 ? ctl_fail(&error, r, name, CTL_ERROR) : CTL_OK;
}

int ctl_verb_setkey(Ctl *ctl, int argc, char **argv)
{
	g_autoptr(EcSettings) s = ec_settings_new();
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	char key[256];
	int code = read_secret(key, sizeof(key));

	if (code == CTL_OK) {
		int r = ec_settings_parse(s, "key", key, &error);

		code = r < 0 ? ctl_fail(&error, r, NULL, CTL_USAGE) : send_key(ctl, argv[1], key);
	}
	explicit_bzero(key, sizeof(key));
	return code;
}
