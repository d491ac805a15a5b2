/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl.h"

#include <getopt.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef enum OptionBit {
	OPTION_JSON = 1 << 0,
	OPTION_NO_LEGEND = 1 << 1,
	OPTION_SAVE = 1 << 2,
	OPTION_UP = 1 << 3,
	OPTION_NO_WAIT = 1 << 4,
	OPTION_TIMEOUT = 1 << 5,
	OPTION_ALL = 1 << 6,
	OPTION_AS = 1 << 7,
	OPTION_PEER = 1 << 8,
	OPTION_HELP = 1 << 9,
	OPTION_VERSION = 1 << 10,
	OPTION_SETTINGS = 1 << 11,
	OPTION_REPORT = 1 << 12,
	OPTION_REMOVE = 1 << 13,
} OptionBit;

#define OPTION_EVERYWHERE (OPTION_HELP | OPTION_VERSION | OPTION_SETTINGS)

typedef struct Verb {
	const char *name;
	const char *arguments;
	int min, max; /* arguments; max -1: any number */
	unsigned options;
	CtlVerb run;
	const char *help; /* NULL: not shown */
} Verb;

static const Verb verbs[] = {
	{ "list", "", 0, 0, OPTION_JSON | OPTION_NO_LEGEND, ctl_verb_list,
			"List the tunnels (the default)" },
	{ "listeners", "", 0, 0, OPTION_JSON | OPTION_NO_LEGEND, ctl_verb_listeners,
			"List the listeners" },
	{ "status", "[NAME]", 0, 1, OPTION_JSON, ctl_verb_status,
			"Show the daemon, a tunnel or listener in full" },
	{ "add", "NAME KEY=VALUE…", 2, -1,
			OPTION_JSON | OPTION_SAVE | OPTION_UP | OPTION_NO_WAIT | OPTION_TIMEOUT,
			ctl_verb_add, "Make a tunnel" },
	{ "listen", "NAME KEY=VALUE…", 1, -1, OPTION_JSON | OPTION_SAVE, ctl_verb_listen,
			"Accept peers: make a listener and open it" },
	{ "peer", "LISTENER NAME KEY=VALUE…", 2, -1, OPTION_JSON | OPTION_REMOVE, ctl_verb_peer,
			"Give one peer of a listener settings" },
	{ "set", "NAME KEY=VALUE…", 2, -1, OPTION_JSON, ctl_verb_set,
			"Change settings; KEY= takes the default back" },
	{ "up", "NAME…", 1, -1, OPTION_JSON | OPTION_NO_WAIT | OPTION_TIMEOUT, ctl_verb_up,
			"Bring up, and wait until it is" },
	{ "down", "NAME…", 1, -1, OPTION_JSON, ctl_verb_down, "Take down" },
	{ "remove", "NAME…|--all", 0, -1, OPTION_JSON | OPTION_ALL, ctl_verb_remove,
			"Take down and forget" },
	{ "monitor", "", 0, 0, OPTION_JSON, ctl_verb_monitor,
			"Print each step and change as it comes" },
	{ "underlays", "", 0, 0, OPTION_JSON | OPTION_NO_LEGEND, ctl_verb_underlays,
			"List the VPNs that were found" },
	{ "doctor", "[NAME|REMOTE]", 0, 1, OPTION_JSON | OPTION_REPORT, ctl_verb_doctor,
			"Say what is wrong, and what to do about it" },
	{ "genkey", "", 0, 0, OPTION_JSON, ctl_verb_genkey, "Print a new random key" },
	{ "setkey", "NAME|LISTENER/PEER", 1, 1, OPTION_JSON, ctl_verb_setkey,
			"Set the key, read from standard input" },
	{ "export", "NAME --as=FORMAT", 1, 1, OPTION_AS | OPTION_PEER, ctl_verb_export,
			"Print a tunnel as other programs configure it" },
	{ "reload", "", 0, 0, OPTION_JSON, ctl_verb_reload, "Read the configuration files again" },
	{ "complete", "verbs|options|names|keys|values", 1, 3, 0, ctl_verb_complete, NULL },
};

static int parse_json(Ctl *ctl, const char *text)
{
	static const char *const words[] = { "off", "short", "pretty" };
	static_assert(EC_ELEMENTS(words) == _CTL_JSON_MAX, "a word per format");

	if (!text) {
		ctl->json = isatty(STDOUT_FILENO) ? CTL_JSON_PRETTY : CTL_JSON_SHORT;
		return CTL_OK;
	}
	for (int i = 0; i < _CTL_JSON_MAX; i++) {
		if (g_str_equal(words[i], text)) {
			ctl->json = i;
			return CTL_OK;
		}
	}
	return ctl_complain(CTL_USAGE, "--json '%s': allowed is short, pretty or off", text);
}

static int parse_timeout(Ctl *ctl, const char *text)
{
	guint64 seconds;

	if (!g_ascii_string_to_unsigned(text, 10, 1, 86400, &seconds, NULL))
		return ctl_complain(
				CTL_USAGE, "--timeout '%s': allowed is 1 to 86400 seconds", text);
	ctl->timeout = (unsigned)seconds;
	return CTL_OK;
}

static int parse_as(Ctl *ctl, const char *text)
{
	ctl->as = text;
	return CTL_OK;
}

typedef struct Option {
	const char *name;
	const char *argument; /* NULL: takes none */
	OptionBit bit;
	size_t flag; /* offset of the bool in Ctl that it sets, unless parse */
	int (*parse)(Ctl *ctl, const char *text);
	const char *help;
} Option;

static const Option options[] = {
	{ "json", "short|pretty|off", OPTION_JSON, 0, parse_json, "Print JSON" },
	{ "no-legend", NULL, OPTION_NO_LEGEND, offsetof(Ctl, no_legend), NULL,
			"Tables: print no headings" },
	{ "save", NULL, OPTION_SAVE, offsetof(Ctl, save), NULL,
			"add, listen: keep it over a restart" },
	{ "up", NULL, OPTION_UP, offsetof(Ctl, up), NULL, "add: bring it up and wait, as up does" },
	{ "no-wait", NULL, OPTION_NO_WAIT, offsetof(Ctl, no_wait), NULL,
			"up, add: do not wait for the state up" },
	{ "timeout", "SECONDS", OPTION_TIMEOUT, 0, parse_timeout,
			"up, add: how long to wait (30)" },
	{ "all", NULL, OPTION_ALL, offsetof(Ctl, all), NULL, "remove: everything" },
	{ "remove", NULL, OPTION_REMOVE, offsetof(Ctl, remove), NULL,
			"peer: forget its settings and key" },
	{ "as", "ip|nmcli|networkd|keyfile", OPTION_AS, 0, parse_as, "export: the format" },
	{ "peer", NULL, OPTION_PEER, offsetof(Ctl, peer), NULL,
			"export: the mirrored one, for the far end" },
	{ "report", NULL, OPTION_REPORT, offsetof(Ctl, report), NULL,
			"doctor: all for a bug report, no secrets" },
	{ "settings", NULL, OPTION_SETTINGS, 0, NULL,
			"Print every setting, its default and meaning" },
	{ "help", NULL, OPTION_HELP, 0, NULL, "Print this and end" },
	{ "version", NULL, OPTION_VERSION, 0, NULL, "Print the version and end" },
};

void ctl_print_verbs(void)
{
	for (size_t i = 0; i < EC_ELEMENTS(verbs); i++) {
		if (verbs[i].help)
			(void)puts(verbs[i].name);
	}
}

static const Verb *find_verb(const char *name)
{
	for (size_t i = 0; i < EC_ELEMENTS(verbs); i++) {
		if (g_str_equal(verbs[i].name, name))
			return &verbs[i];
	}
	return NULL;
}

void ctl_print_options(const char *name)
{
	const Verb *verb = name ? find_verb(name) : NULL;
	unsigned allowed = verb ? verb->options | OPTION_EVERYWHERE : ~0U;

	for (size_t i = 0; i < EC_ELEMENTS(options); i++) {
		if (options[i].bit & allowed)
			(void)printf("--%s%s\n", options[i].name, options[i].argument ? "=" : "");
	}
}

static void print_help(void)
{
	(void)printf("ethercordctl [OPTION…] [VERB [ARGUMENT…]]\n\n"
		     "Virtual Ethernet cords over the VPN you already have.\n\nVerbs:\n");
	for (size_t i = 0; i < EC_ELEMENTS(verbs); i++) {
		if (!verbs[i].help)
			continue;
		g_autofree char *usage = g_strconcat(verbs[i].name, " ", verbs[i].arguments, NULL);
		glong pad = 26 - g_utf8_strlen(usage, -1);
		(void)printf("  %s%*s %s\n", usage, (int)MAX(pad, 0), "", verbs[i].help);
	}
	(void)printf("\nOptions:\n");
	for (size_t i = 0; i < EC_ELEMENTS(options); i++) {
		g_autofree char *usage = g_strconcat("--", options[i].name,
				options[i].argument ? "=" : NULL, options[i].argument, NULL);
		(void)printf("  %-31s %s\n", usage, options[i].help);
	}
}

static int complain_verb(const char *name)
{
	g_autoptr(GString) names = g_string_new(NULL);

	for (size_t i = 0; i < EC_ELEMENTS(verbs); i++) {
		if (verbs[i].help)
			g_string_append_printf(names, "%s%s", i ? ", " : "", verbs[i].name);
	}
	return ctl_complain(CTL_USAGE, "there is no verb '%s'; there are: %s", name, names->str);
}

/* Sets *ret_given to the options seen. */
static int parse_options(Ctl *ctl, int argc, char **argv, unsigned *ret_given)
{
	struct option table[EC_ELEMENTS(options) + 1] = { 0 };
	unsigned given = 0;
	int c;

	for (size_t i = 0; i < EC_ELEMENTS(options); i++) {
		const Option *o = &options[i];
		int has = o->bit == OPTION_JSON ? optional_argument
			  : o->argument         ? required_argument
						: no_argument;

		table[i] = (struct option){ o->name, has, NULL, 256 + (int)i };
	}
	/* One thread, and the only parser. */
	while ((c = getopt_long(argc, argv, "h", table, NULL)) >= 0) { // NOLINT(concurrency-*)
		if (c == 'h') {
			given |= OPTION_HELP;
			continue;
		}
		if (c < 256)
			return CTL_USAGE; /* getopt_long has said why */
		const Option *o = &options[c - 256];
		given |= o->bit;
		int code = o->parse ? o->parse(ctl, optarg) : CTL_OK;
		if (code != CTL_OK)
			return code;
		if (o->flag)
			G_STRUCT_MEMBER(bool, ctl, o->flag) = true;
	}
	*ret_given = given;
	return CTL_OK;
}

static int check_usage(const Verb *verb, int argc, unsigned given)
{
	for (size_t i = 0; i < EC_ELEMENTS(options); i++) {
		if (options[i].bit & given & ~verb->options)
			return ctl_complain(CTL_USAGE, "--%s is not an option of '%s'",
					options[i].name, verb->name);
	}
	if (argc - 1 < verb->min || (verb->max >= 0 && argc - 1 > verb->max))
		return ctl_complain(CTL_USAGE, "usage: ethercordctl %s %s", verb->name,
				verb->arguments);
	return CTL_OK;
}

static int run(Ctl *ctl, int argc, char **argv)
{
	char *fallback[] = { (char *)"list", NULL };
	unsigned given = 0;
	int code = parse_options(ctl, argc, argv, &given);

	if (code != CTL_OK)
		return code;
	if (given & OPTION_HELP) {
		print_help();
		return CTL_OK;
	}
	if (given & OPTION_VERSION) {
		(void)puts("ethercordctl " EC_VERSION);
		return CTL_OK;
	}
	if (given & OPTION_SETTINGS) {
		ctl_print_settings();
		return CTL_OK;
	}
	argc -= optind;
	argv += optind;
	if (argc == 0) {
		argc = 1;
		argv = fallback;
	}
	const Verb *verb = find_verb(argv[0]);
	if (!verb)
		return complain_verb(argv[0]);
	code = check_usage(verb, argc, given);
	return code == CTL_OK ? verb->run(ctl, argc, argv) : code;
}

int main(int argc, char **argv)
{
	Ctl ctl = { .timeout = 30 };
	char program[] = "ethercordctl";

	(void)setlocale(LC_ALL, "");
	if (argc > 0)
		argv[0] = program; /* getopt_long begins its messages with it */
	ec_error_map_register();
	int code = run(&ctl, argc, argv);
	ctl.bus = sd_bus_flush_close_unref(ctl.bus);
	if (fflush(stdout) != 0 && code == CTL_OK)
		code = ctl_complain(CTL_ERROR, "standard output: %m");
	return code;
}
