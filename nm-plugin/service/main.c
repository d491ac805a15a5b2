/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "svc.h"

static const struct option options[] = {
	{ "bus-name", required_argument, NULL, 'b' },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'v' },
	{ NULL },
};

static int usage(FILE *to)
{
	(void)fputs("usage: nm-ethercord-service [--bus-name NAME]\n"
		    "NetworkManager runs this for each activation of an ethercord connection; see\n"
		    "ethercord-networkmanager(7).\n",
			to);
	return to == stdout ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* NetworkManager's own child: it is ended by a signal only where somebody wants the tunnel gone. */
static int on_signal(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata)
{
	EcService *s = userdata;

	if (s->phase == EC_SVC_PHASE_STOPPED)
		(void)sd_event_exit(s->event, 0);
	else
		ec_svc_disconnect(s);
	return 0;
}

static int add_signals(EcService *s)
{
	static const int wanted[] = { SIGTERM, SIGINT };
	int r = 0;

	for (size_t i = 0; r >= 0 && i < EC_ELEMENTS(wanted); i++)
		r = sd_event_add_signal(
				s->event, NULL, wanted[i] | SD_EVENT_SIGNAL_PROCMASK, on_signal, s);
	return r;
}

/* The object is there before the name is: NetworkManager calls as soon as it sees the name. */
static int run(EcService *s)
{
	int r = sd_event_default(&s->event);

	if (r >= 0)
		r = add_signals(s);
	if (r >= 0)
		r = sd_bus_open_system(&s->bus);
	if (r < 0)
		return r;
	s->reapply.bus = s->bus;
	s->cord.service = s;
	(void)sd_bus_set_exit_on_disconnect(s->bus, true);
	r = sd_bus_attach_event(s->bus, s->event, SD_EVENT_PRIORITY_NORMAL);
	if (r >= 0)
		r = ec_svc_plugin_add(s);
	if (r >= 0)
		r = sd_bus_request_name(s->bus, s->name, 0);
	return r < 0 ? r : sd_event_loop(s->event);
}

int main(int argc, char **argv)
{
	EcService s = { .name = EC_PROFILE_SERVICE };
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'h')
			return usage(stdout);
		if (option == 'v')
			return puts("nm-ethercord-service " EC_VERSION) < 0 ? EXIT_FAILURE
									    : EXIT_SUCCESS;
		if (option != 'b')
			return usage(stderr);
		s.name = optarg;
	}
	if (optind < argc || !sd_bus_service_name_is_valid(s.name) ||
			!g_str_has_prefix(s.name, EC_PROFILE_SERVICE))
		return usage(stderr);
	ec_error_map_register();
	int r = run(&s);
	if (r < 0)
		(void)fprintf(stderr, "nm-ethercord-service: cannot serve as %s: %s\n", s.name,
				g_strerror(-r));
	ec_svc_done(&s);
	(void)sd_bus_flush_close_unref(s.bus);
	(void)sd_event_unref(s.event);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
