/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <NetworkManager.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "profile.h"

/*
 * nm-ethercord-auth-dialog: tells an agent of NetworkManager (nmcli --ask, GNOME Shell, nm-applet)
 * which secret to ask for. It asks nobody itself and needs no display: the agents have a dialog of
 * their own (--external-ui-mode). The agent writes the connection's items to stdin, and QUIT when
 * it has read the answer.
 */

#define KEY "key"
#define GROUP "VPN Plugin UI"

typedef struct Options {
	char *uuid, *name, *service;
	char **hints;
	gboolean interactive, again, external;
} Options;

static bool parse_options(int argc, char **argv, Options *o)
{
	const GOptionEntry entries[] = {
		{ "reprompt", 'r', 0, G_OPTION_ARG_NONE, &o->again, "The secret was wrong", NULL },
		{ "uuid", 'u', 0, G_OPTION_ARG_STRING, &o->uuid, "The connection", "UUID" },
		/* Any bytes, in any locale. */
		{ "name", 'n', 0, G_OPTION_ARG_FILENAME, &o->name, "Its name", "NAME" },
		{ "service", 's', 0, G_OPTION_ARG_STRING, &o->service, "Its VPN service", "NAME" },
		{ "allow-interaction", 'i', 0, G_OPTION_ARG_NONE, &o->interactive,
				"The user may be asked", NULL },
		{ "external-ui-mode", 0, 0, G_OPTION_ARG_NONE, &o->external,
				"Say what to ask for; the caller asks", NULL },
		{ "hint", 't', 0, G_OPTION_ARG_STRING_ARRAY, &o->hints, "A secret that is missing",
				"SECRET" },
		{ 0 },
	};
	g_autoptr(GOptionContext) context =
			g_option_context_new("- key of an ethercord connection");
	g_autoptr(GError) error = NULL;

	g_option_context_add_main_entries(context, entries, NULL);
	const char *why = NULL;
	if (!g_option_context_parse(context, &argc, &argv, &error))
		why = error->message;
	else if (!o->uuid || !o->name || !o->service)
		why = "--uuid, --name and --service are needed";
	else if (!g_str_equal(o->service, EC_PROFILE_SERVICE))
		why = "this is for connections of " EC_PROFILE_SERVICE;
	else if (!o->external)
		why = "the key is asked for by nmcli --ask or the desktop; this program only tells "
		      "them (--external-ui-mode)";
	if (why)
		(void)fprintf(stderr, "%s\n", why);
	return !why;
}

/* Whether the user has to type it: it is never saved, was wrong, or is what is missing. */
static bool must_ask(const Options *o, GHashTable *data, const char *saved)
{
	NMSettingSecretFlags flags = NM_SETTING_SECRET_FLAG_NONE;
	bool hinted = o->hints && g_strv_contains((const char *const *)o->hints, KEY);

	if (g_hash_table_lookup(data, "tunnel"))
		return false;
	(void)nm_vpn_service_plugin_get_secret_flags(data, KEY, &flags);
	if (o->again || hinted)
		return true;
	if (flags & NM_SETTING_SECRET_FLAG_NOT_REQUIRED)
		return false;
	return (flags & NM_SETTING_SECRET_FLAG_NOT_SAVED) || !saved;
}

static void print_answer(const Options *o, GHashTable *data, GHashTable *secrets)
{
	const char *saved = g_hash_table_lookup(secrets, KEY);
	bool ask = o->interactive && must_ask(o, data, saved);
	g_autoptr(GKeyFile) f = g_key_file_new();
	g_autofree char *name = g_utf8_make_valid(o->name, -1);
	g_autofree char *description = g_strdup_printf(
			"The ethercord connection '%s' needs the key that it shares with its peer: %s.",
			name, ec_profile_find(KEY)->allowed);

	g_key_file_set_integer(f, GROUP, "Version", 2);
	g_key_file_set_string(f, GROUP, "Description", description);
	g_key_file_set_string(f, GROUP, "Title", "Key of the peer");
	if (ask || saved) {
		g_key_file_set_string(f, KEY, "Value", saved ? saved : "");
		g_key_file_set_string(f, KEY, "Label", "Key");
		g_key_file_set_boolean(f, KEY, "IsSecret", TRUE);
		g_key_file_set_boolean(f, KEY, "ShouldAsk", ask);
	}
	g_autofree char *text = g_key_file_to_data(f, NULL, NULL);
	(void)fputs(text, stdout);
	(void)fflush(stdout);
	explicit_bzero(text, strlen(text));
}

/* The agent reads until it says so, or goes. */
static void wait_for_quit(void)
{
	char line[64];

	while (fgets(line, sizeof(line), stdin) && !g_str_has_prefix(line, "QUIT"))
		;
}

static void free_options(Options *o)
{
	g_free(o->uuid);
	g_free(o->name);
	g_free(o->service);
	g_strfreev(o->hints);
}

int main(int argc, char **argv)
{
	Options o __attribute__((cleanup(free_options))) = { 0 };
	g_autoptr(GHashTable) data = NULL, secrets = NULL;

	if (!parse_options(argc, argv, &o))
		return EXIT_FAILURE;
	if (!nm_vpn_service_plugin_read_vpn_details(STDIN_FILENO, &data, &secrets)) {
		(void)fputs("no connection was told on stdin (DATA_KEY=, DATA_VAL=, DONE)\n",
				stderr);
		return EXIT_FAILURE;
	}
	print_answer(&o, data, secrets);
	wait_for_quit();
	return EXIT_SUCCESS;
}
