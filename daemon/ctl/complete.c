/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl.h"

#include <stdio.h>

/*
 * The hidden verb `complete`, which the shell asks for words: verbs, the options of a verb, the
 * names of tunnels and listeners, the keys of settings and the values of one. Says nothing when it
 * knows nothing, and starts no daemon.
 */

static int print_verbs(Ctl *ctl, const char *argument)
{
	ctl_print_verbs();
	return CTL_OK;
}

static int print_options(Ctl *ctl, const char *argument)
{
	ctl_print_options(argument);
	return CTL_OK;
}

/* argument: NULL, or "listener" for those alone. */
static int print_names(Ctl *ctl, const char *argument)
{
	g_autoptr(json_t) objects = NULL, tunnels = NULL, listeners = NULL;

	if (sd_bus_open_system(&ctl->bus) < 0 || ctl_get_objects(ctl, false, &objects, NULL) < 0)
		return CTL_NO_DAEMON;
	tunnels = ctl_pick(objects, CTL_TUNNEL);
	listeners = ctl_pick(objects, CTL_LISTENER);
	if (g_strcmp0(argument, "listener") == 0)
		(void)json_array_clear(tunnels);
	(void)json_array_extend(tunnels, listeners);
	for (size_t i = 0; i < json_array_size(tunnels); i++) {
		const json_t *t = json_array_get(tunnels, i);

		(void)puts(ctl_json_string(t, "Name"));
	}
	return CTL_OK;
}

static void print_keys_of(EcScope scope)
{
	size_t n;
	const EcSetting *table = ec_settings_table(&n);

	for (size_t i = 0; i < n; i++) {
		if ((table[i].scopes & scope) && !g_str_equal(table[i].key, "name"))
			(void)puts(table[i].key);
	}
}

/* argument: tunnel, listener or peer; NULL is tunnel. */
static int print_keys(Ctl *ctl, const char *argument)
{
	static const EcScope scopes[] = { EC_SCOPE_TUNNEL, EC_SCOPE_LISTENER, EC_SCOPE_PEER };

	for (size_t i = 0; i < EC_ELEMENTS(scopes); i++) {
		if (g_str_equal(argument ? argument : "tunnel", ec_scope_to_string(scopes[i]))) {
			print_keys_of(scopes[i]);
			return CTL_OK;
		}
	}
	return CTL_NOT_FOUND;
}

static int print_values(Ctl *ctl, const char *argument)
{
	const EcSetting *row = argument ? ec_setting_find_in(EC_SCOPE_ALL, argument) : NULL;

	if (!row)
		return CTL_NOT_FOUND;
	if (row->type == EC_SETTING_BOOL)
		(void)puts("yes\nno");
	for (const char *const *word = row->choices; word && *word; word++)
		(void)puts(*word);
	return CTL_OK;
}

int ctl_verb_complete(Ctl *ctl, int argc, char **argv)
{
	static const struct {
		const char *what;
		int (*print)(Ctl *ctl, const char *argument);
	} table[] = {
		{ "verbs", print_verbs },
		{ "options", print_options },
		{ "names", print_names },
		{ "keys", print_keys },
		{ "values", print_values },
	};

	for (size_t i = 0; i < EC_ELEMENTS(table); i++) {
		if (g_str_equal(table[i].what, argv[1]))
			return table[i].print(ctl, argv[2]);
	}
	return CTL_USAGE;
}
