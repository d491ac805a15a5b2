/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "bus.h"
#include "log.h"

/*
 * Arguments, bus, loop. The daemon leaves when asked to, and when it has had neither a tunnel nor a
 * call for a while; the tunnels' interfaces stay and are found again at the next start.
 */

typedef struct Daemon {
	EcConfig config;
	sd_event *event;
	sd_bus *bus;
	EcManager *manager;
	EcBus *face;
	sd_event_source *idle;
} Daemon;

static bool is_idle(const Daemon *d)
{
	return ec_manager_is_idle(d->manager) && ec_bus_is_idle(d->face);
}

/* Gives the name back first, so that a call that comes now activates a new daemon; those that came
 * before are answered. If one of them made work, the name is taken again. */
static int on_idle(sd_event_source *s, uint64_t usec, void *userdata)
{
	Daemon *d = userdata;

	if (!is_idle(d) || sd_bus_release_name(d->bus, EC_BUS_NAME) < 0)
		return 0;
	while (sd_bus_process(d->bus, NULL) > 0)
		;
	if (!is_idle(d)) {
		(void)sd_bus_request_name(d->bus, EC_BUS_NAME, 0);
		return 0;
	}
	(void)sd_notify(false, "STOPPING=1");
	return sd_event_exit(d->event, 0);
}

/* Runs after every event: something happened, so the time of idleness starts anew. */
static int on_activity(sd_event_source *s, void *userdata)
{
	Daemon *d = userdata;

	if (!is_idle(d))
		return sd_event_source_set_enabled(d->idle, SD_EVENT_OFF);
	(void)sd_event_source_set_time_relative(d->idle, d->config.idle_timeout * 1000000ULL);
	return sd_event_source_set_enabled(d->idle, SD_EVENT_ONESHOT);
}

static int on_hangup(sd_event_source *s, const struct signalfd_siginfo *si, void *userdata)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	Daemon *d = userdata;

	(void)ec_manager_reload(d->manager, &error);
	return 0;
}

static int add_sources(Daemon *d)
{
	static const int fatal[] = { SIGTERM, SIGINT };
	sigset_t children;
	int r = 0;

	/* As sd_event_add_child(3) wants it. */
	(void)sigemptyset(&children);
	(void)sigaddset(&children, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &children, NULL);

	for (size_t i = 0; r >= 0 && i < EC_ELEMENTS(fatal); i++)
		r = sd_event_add_signal(
				d->event, NULL, fatal[i] | SD_EVENT_SIGNAL_PROCMASK, NULL, NULL);
	if (r >= 0)
		r = sd_event_add_signal(
				d->event, NULL, SIGHUP | SD_EVENT_SIGNAL_PROCMASK, on_hangup, d);
	if (r >= 0 && !d->config.foreground)
		r = sd_event_add_time_relative(d->event, &d->idle, CLOCK_MONOTONIC,
				d->config.idle_timeout * 1000000ULL, 0, on_idle, d);
	if (r >= 0 && !d->config.foreground)
		r = sd_event_add_post(d->event, NULL, on_activity, d);
	return r;
}

/* A tunnel in the user data plane holds seven of them open, and some of our libraries' do not say
 * what they lack: 145 tunnels are all that systemd's default of 1024 allows. */
static void raise_files(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur >= files.rlim_max)
		return;
	files.rlim_cur = files.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &files);
}

/* The objects are there before the name is: whoever sees the name sees them all. */
static int start(Daemon *d, sd_bus_error *ret_error)
{
	int r = sd_event_default(&d->event);

	if (r >= 0)
		r = add_sources(d);
	if (r >= 0)
		r = sd_bus_open_system(&d->bus);
	if (r < 0)
		return ec_error(ret_error, SD_BUS_ERROR_FAILED, "cannot reach the system bus: %s",
				g_strerror(-r));
	r = ec_manager_new(d->event, d->bus, &d->config, &d->manager, ret_error);
	if (r >= 0)
		r = ec_bus_new(d->bus, d->manager, &d->face);
	if (r < 0)
		return r;
	ec_manager_start(d->manager);
	/* Without its bus nobody could reach the daemon; systemd or the next call starts another.
	 */
	(void)sd_bus_set_exit_on_disconnect(d->bus, true);
	r = sd_bus_attach_event(d->bus, d->event, SD_EVENT_PRIORITY_NORMAL);
	if (r >= 0)
		r = sd_bus_request_name(d->bus, EC_BUS_NAME, 0);
	if (r < 0)
		return ec_error(ret_error, SD_BUS_ERROR_FAILED, "cannot own " EC_BUS_NAME ": %s%s",
				g_strerror(-r), r == -EEXIST ? "; another ethercordd has it" : "");
	(void)sd_event_set_watchdog(d->event, true);
	(void)sd_notify(false, "READY=1");
	return 0;
}

static void stop(Daemon *d)
{
	(void)ec_bus_free(d->face);
	(void)ec_manager_free(d->manager);
	(void)sd_bus_flush_close_unref(d->bus);
	(void)sd_event_source_disable_unref(d->idle);
	(void)sd_event_unref(d->event);
	ec_config_done(&d->config);
}

int main(int argc, char **argv)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	Daemon d = { 0 };
	int r = ec_config_from_arguments(&d.config, argc, argv);

	umask(022);
	raise_files();
	if (r != 0) {
		ec_config_done(&d.config);
		return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
	}
	ec_log_to_terminal(d.config.foreground || access("/run/systemd/journal/socket", W_OK) < 0);
	ec_error_map_register();
	/* A slip in ethercord.conf must not cost the tunnels: the defaults do. */
	if (ec_config_read(&d.config, &error) < 0) {
		ec_log(LOG_ERR, "%s", error.message);
		sd_bus_error_free(&error);
	}
	r = start(&d, &error);
	if (r >= 0)
		r = sd_event_loop(d.event);
	if (r < 0)
		ec_log(LOG_ERR, "%s", error.message ? error.message : g_strerror(-r));
	stop(&d);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
