/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <time.h>

/*
 * Calls ethercordd as a program would, over $DBUS_SYSTEM_BUS_ADDRESS, and prints seconds:
 *   create N REMOTE [UNDERLAY]    N vxlan tunnels, 64 calls in flight
 *   remove N           all of them with one call
 *   latency N          N calls one after the other; the median
 */

#define NAME "org.ethercord1"
#define PATH "/org/ethercord1"
#define MANAGER "org.ethercord1.Manager"
#define WINDOW 64

static unsigned in_flight, failed;

static double now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int on_answer(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	const sd_bus_error *e = sd_bus_message_get_error(m);

	in_flight--;
	if (e && failed++ == 0)
		fprintf(stderr, "%s: %s\n", e->name, e->message);
	return 0;
}

static int wait_below(sd_bus *bus, unsigned n)
{
	int r = 0;

	while (r >= 0 && in_flight >= n) {
		r = sd_bus_process(bus, NULL);
		if (r == 0)
			r = sd_bus_wait(bus, UINT64_MAX);
	}
	return r;
}

static int create(sd_bus *bus, unsigned n, const char *remote, const char *underlay)
{
	int r = 0;

	for (unsigned i = 0; r >= 0 && i < n; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "b%u", i);
		r = sd_bus_call_method_async(bus, NULL, NAME, PATH, MANAGER, "AddTunnel", on_answer,
				NULL, "a{sv}s", 6, "name", "s", name, "control", "s", "static",
				"underlay", "s", underlay, "remote", "as", 1, remote,
				"encapsulation", "as", 1, "vxlan", "id", "u", i + 1, "activate");
		in_flight++;
		if (r >= 0)
			r = wait_below(bus, WINDOW);
	}
	return r < 0 ? r : wait_below(bus, 1);
}

static int remove_all(sd_bus *bus, unsigned n)
{
	sd_bus_message *m = NULL;
	int r = sd_bus_message_new_method_call(bus, &m, NAME, PATH, MANAGER, "RemoveTunnels");

	if (r >= 0)
		r = sd_bus_message_open_container(m, 'a', "s");
	for (unsigned i = 0; r >= 0 && i < n; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "b%u", i);
		r = sd_bus_message_append(m, "s", name);
	}
	if (r >= 0)
		r = sd_bus_message_close_container(m);
	if (r >= 0)
		r = sd_bus_call(bus, m, 0, NULL, NULL);
	sd_bus_message_unref(m);
	return r;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static int latency(sd_bus *bus, unsigned n, double *ret)
{
	double *taken = calloc(n, sizeof(*taken));
	int r = taken ? 0 : -ENOMEM;

	for (unsigned i = 0; r >= 0 && i < n; i++) {
		double before = now();

		r = sd_bus_call_method(
				bus, NAME, PATH, MANAGER, "GetTunnel", NULL, NULL, "s", "b0");
		taken[i] = now() - before;
	}
	if (r >= 0) {
		qsort(taken, n, sizeof(*taken), compare);
		*ret = taken[n / 2];
	}
	free(taken);
	return r;
}

int main(int argc, char **argv)
{
	unsigned n = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 0;
	sd_bus *bus = NULL;
	double seconds = 0;
	int r = n > 0 ? sd_bus_open_system(&bus) : -EINVAL;
	double before = now();

	if (r >= 0 && strcmp(argv[1], "create") == 0 && argc > 3)
		r = create(bus, n, argv[3], argc > 4 ? argv[4] : "any");
	else if (r >= 0 && strcmp(argv[1], "remove") == 0)
		r = remove_all(bus, n);
	else if (r >= 0 && strcmp(argv[1], "latency") == 0)
		r = latency(bus, n, &seconds);
	else if (r >= 0)
		r = -EINVAL;
	if (seconds == 0)
		seconds = now() - before;
	sd_bus_flush_close_unref(bus);
	if (r < 0 || failed) {
		fprintf(stderr, "bench client: %s\n", failed ? "calls failed" : strerror(-r));
		return EXIT_FAILURE;
	}
	printf("%.6f\n", seconds);
	return EXIT_SUCCESS;
}
