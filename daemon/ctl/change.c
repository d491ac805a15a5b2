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

int ctl_parse_settings(EcSettings *s, char **words)
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
		const EcSetting *row = ec_setting_find_in(s->scope, key);
		if (row->flags & EC_SETTING_SECRET && equals[1])
			(void)ctl_complain(0,
					"warning: every user of this machine can see a command "
					"line; 'ethercordctl setkey NAME' reads the key from "
					"standard input");
	}
	return CTL_OK;
}

int ctl_take_new(Ctl *ctl, EcSettings *s, char **words)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	int r = ec_settings_parse(s, "name", words[0], &error);

	if (r < 0)
		return ctl_fail(&error, r, NULL, CTL_USAGE);
	int code = ctl_parse_settings(s, words + 1);
	if (code != CTL_OK)
		return code;
	if (g_strcmp0(s->name, words[0]) != 0)
		return ctl_complain(CTL_USAGE, "name: the %s is already called '%s'",
				ec_scope_to_string(s->scope), words[0]);
	r = ec_settings_verify(s, &error);
	if (r < 0)
		return ctl_fail(&error, r, NULL, CTL_USAGE);
	return ctl_open(ctl);
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

bool ctl_is_about_settings(const sd_bus_error *error)
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
	bool waits = ctl->up && !ctl->no_wait;
	int r = 0, code = ctl_take_new(ctl, s, argv + 1);

	if (code != CTL_OK)
		return code;
	if (waits)
		r = ctl_wait_new(ctl, &wait, &error);
	if (r >= 0)
		r = send_add(ctl, s, ctl->up, &error);
	if (r < 0)
		return ctl_fail(&error, r, argv[1],
				ctl->up && !ctl_is_about_settings(&error) ? CTL_UP_FAILED
									  : CTL_ERROR);
	return waits ? ctl_wait_run(wait, name, false) : CTL_OK;
}

/* Whether the words are settings of that scope, without a word about it. */
static bool are_settings(EcScope scope, char **words)
{
	g_autoptr(EcSettings) s = ec_settings_new_for(scope);

	for (char **word = words; *word; word++) {
		g_auto(GStrv) part = g_strsplit(*word, "=", 2);

		if (!part[0] || !part[1] || ec_settings_parse(s, part[0], part[1], NULL) < 0)
			return false;
	}
	return true;
}

int ctl_verb_set(Ctl *ctl, int argc, char **argv)
{
	g_autoptr(EcSettings) tunnel = ec_settings_new();
	g_autoptr(EcSettings) listener = ec_settings_new_for(EC_SCOPE_LISTENER);
	g_autoptr(sd_bus_message) call = NULL;
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;

	/* What is wrong for either needs no daemon to be said. */
	if (!are_settings(EC_SCOPE_LISTENER, argv + 2) && !are_settings(EC_SCOPE_TUNNEL, argv + 2))
		return ctl_parse_settings(tunnel, argv + 2);
	int code = ctl_open(ctl);
	if (code != CTL_OK)
		return code;
	bool listens = ctl_is_listener(ctl, argv[1]);
	EcSettings *s = listens ? listener : tunnel;
	g_autofree char *path = listens ? ctl_listener_path(argv[1]) : ctl_tunnel_path(argv[1]);
	code = ctl_parse_settings(s, argv + 2);
	if (code != CTL_OK)
		return code;
	int r = call_method(
			ctl, path, listens ? CTL_LISTENER : CTL_TUNNEL, "Update", &call, &error);
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
static int remove_tunnels(Ctl *ctl, char **names, sd_bus_error *ret_error)
{
	g_autoptr(sd_bus_message) call = NULL;
	int r = call_method(ctl, CTL_ROOT_PATH, CTL_MANAGER, "RemoveTunnels", &call, ret_error);

	if (r >= 0)
		r = sd_bus_message_append_strv(call, names);
	return r < 0 ? r : sd_bus_call(ctl->bus, call, 0, ret_error, NULL);
}

static bool has_name(const json_t *objects, const char *name)
{
	for (size_t i = 0; i < json_array_size(objects); i++) {
		if (g_str_equal(ctl_json_string(json_array_get(objects, i), "Name"), name))
			return true;
	}
	return false;
}

/* Names of both sorts: all, or when one does not exist, none. Listeners go first, and take their
 * peers' tunnels with them. */
static int remove_mixed(Ctl *ctl, char **names)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autoptr(json_t) objects = NULL, tunnels = NULL, listeners = NULL;
	g_autoptr(GPtrArray) cords = g_ptr_array_new(), doors = g_ptr_array_new();
	int r = ctl_get_objects(ctl, true, &objects, &error);

	if (r < 0)
		return ctl_fail(&error, r, NULL, CTL_ERROR);
	tunnels = ctl_pick(objects, CTL_TUNNEL);
	listeners = ctl_pick(objects, CTL_LISTENER);
	for (char **name = names; *name; name++) {
		if (has_name(listeners, *name))
			g_ptr_array_add(doors, *name);
		else if (has_name(tunnels, *name))
			g_ptr_array_add(cords, *name);
		else
			return ctl_complain(CTL_NOT_FOUND, "there is no tunnel or listener '%s'",
					*name);
	}
	g_ptr_array_add(cords, NULL);
	g_ptr_array_add(doors, NULL);
	int code = call_all(ctl, (char **)doors->pdata, "Remove", CTL_ERROR);
	if (code != CTL_OK || cords->len == 1)
		return code;
	r = remove_tunnels(ctl, (char **)cords->pdata, &error);
	return r < 0 ? ctl_fail(&error, r, NULL, CTL_ERROR) : CTL_OK;
}

static int remove_all(Ctl *ctl)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autoptr(json_t) objects = NULL, things = NULL, tunnels = NULL;
	g_autoptr(GPtrArray) names = g_ptr_array_new();
	int r = ctl_get_objects(ctl, true, &objects, &error);

	if (r < 0)
		return ctl_fail(&error, r, NULL, CTL_ERROR);
	things = ctl_pick(objects, CTL_LISTENER);
	tunnels = ctl_pick(objects, CTL_TUNNEL);
	(void)json_array_extend(things, tunnels);
	for (size_t i = 0; i < json_array_size(things); i++) {
		const json_t *t = json_array_get(things, i);

		if (!g_str_equal(ctl_json_string(t, "Role"), "accept"))
			g_ptr_array_add(names, (char *)ctl_json_string(t, "Name"));
	}
	g_ptr_array_add(names, NULL);
	return remove_mixed(ctl, (char **)names->pdata);
}

int ctl_verb_remove(Ctl *ctl, int argc, char **argv)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;

	if (ctl->all == (argc > 1))
		return ctl_complain(CTL_USAGE,
				"remove: give the names of tunnels and listeners, or --all");
	int code = ctl_open(ctl);
	if (code != CTL_OK)
		return code;
	if (ctl->all)
		return remove_all(ctl);
	int r = remove_tunnels(ctl, argv + 1, &error);
	if (sd_bus_error_has_name(&error, EC_ERROR_NO_SUCH_TUNNEL))
		return remove_mixed(ctl, argv + 1);
	return r < 0 ? ctl_fail(&error, r, argc == 2 ? argv[1] : NULL, CTL_ERROR) : CTL_OK;
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

static int send_key(Ctl *ctl, const char *path, const char *interface, const char *key,
		sd_bus_error *ret_error)
{
	g_autoptr(sd_bus_message) call = NULL;
	int r = call_method(ctl, path, interface, "SetKey", &call, ret_error);

	if (r >= 0)
		r = sd_bus_message_sensitive(call);
	if (r >= 0)
		r = sd_bus_message_append(call, "s", key);
	return r < 0 ? r : sd_bus_call(ctl->bus, call, 0, ret_error, NULL);
}

/* LISTENER/PEER. */
static int send_peer_key(Ctl *ctl, const char *listener, const char *peer, const char *key,
		sd_bus_error *ret_error)
{
	g_autofree char *path = ctl_listener_path(listener);
	g_autoptr(sd_bus_message) call = NULL;
	int r = call_method(ctl, path, CTL_LISTENER, "SetPeer", &call, ret_error);

	if (r >= 0)
		r = sd_bus_message_sensitive(call);
	if (r >= 0)
		r = sd_bus_message_append(call, "sa{sv}", peer, 1, "key", "s", key);
	return r < 0 ? r : sd_bus_call(ctl->bus, call, 0, ret_error, NULL);
}

static int set_key(Ctl *ctl, const char *name, const char *key)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_auto(GStrv) part = g_strsplit(name, "/", 2);
	int code = ctl_open(ctl), r;

	if (code != CTL_OK)
		return code;
	if (part[0] && part[1]) {
		r = send_peer_key(ctl, part[0], part[1], key, &error);
	} else {
		bool listens = ctl_is_listener(ctl, name);
		g_autofree char *path = listens ? ctl_listener_path(name) : ctl_tunnel_path(name);

		r = send_key(ctl, path, listens ? CTL_LISTENER : CTL_TUNNEL, key, &error);
	}
	return r < 0 ? ctl_fail(&error, r, part[0], CTL_ERROR) : CTL_OK;
}

int ctl_verb_setkey(Ctl *ctl, int argc, char **argv)
{
	g_autoptr(EcSettings) s = ec_settings_new();
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	char key[256];
	int code = read_secret(key, sizeof(key));

	if (code == CTL_OK) {
		int r = ec_settings_parse(s, "key", key, &error);

		code = r < 0 ? ctl_fail(&error, r, NULL, CTL_USAGE) : set_key(ctl, argv[1], key);
	}
	explicit_bzero(key, sizeof(key));
	return code;
}
