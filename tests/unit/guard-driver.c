/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdio.h>

#include "driver.h"
#include "guard-layer.h"
#include "log.h"

/*
 * The guard without a daemon, for tests/netns/test_guard.py: one command a line, one answer a line.
 * It knows encapsulations that this kernel may not have. A fence is told as the path of a keyfile.
 *
 * usage: guard-driver RUNTIME-DIR TABLE
 */

static unsigned changes;

static void on_changed(void *userdata)
{
	changes++;
}

static void arm(EcGuard *g, const char *name, const char *path)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autofree char *data = NULL;
	EcGuardSpec spec;

	if (!g_file_get_contents(path, &data, NULL, NULL) ||
			ec_guard_spec_from_data(data, &spec, &error) < 0)
		printf("bad %s\n", error.message ? error.message : path);
	else if (ec_guard_arm(g, name, &spec, &error) < 0)
		printf("%s %s\n", ec_error_token(&error), error.message);
	else
		printf("ok\n");
}

static void clamp(EcGuard *g, const char *name, const char *ifname, const char *mss)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	uint16_t number = (uint16_t)g_ascii_strtoull(mss, NULL, 10);
	int r = ec_guard_clamp(g, name, ifname, number, number, &error);

	printf("%s\n", r < 0 ? error.message : "ok");
}

static void layers(const EcGuard *g, const char *name)
{
	const char *words[4];

	ec_guard_words(ec_guard_layers(g, name), words);
	printf("layers");
	for (size_t i = 0; words[i]; i++)
		printf(" %s", words[i]);
	printf("\n");
}

static void counters(EcGuard *g, const char *name)
{
	uint64_t out = 0, in = 0;

	if (ec_guard_counters(g, name, &out, &in))
		printf("%ju %ju\n", (uintmax_t)out, (uintmax_t)in);
	else
		printf("unknown\n");
}

static void run(char **word, guint words, void *userdata)
{
	EcGuard *g = userdata;
	const char *name = words > 1 ? word[1] : "";

	if (g_str_equal(word[0], "arm") && words == 3)
		arm(g, name, word[2]);
	else if (g_str_equal(word[0], "clamp") && words == 4)
		clamp(g, name, word[2], word[3]);
	else if (g_str_equal(word[0], "layers"))
		layers(g, name);
	else if (g_str_equal(word[0], "counters"))
		counters(g, name);
	else if (g_str_equal(word[0], "why"))
		printf("%s\n", ec_guard_why(g, (unsigned)g_ascii_strtoull(name, NULL, 10)));
	else if (g_str_equal(word[0], "changes"))
		printf("%u\n", changes);
	else {
		if (g_str_equal(word[0], "disarm"))
			ec_guard_disarm(g, name);
		else if (g_str_equal(word[0], "flush"))
			ec_guard_flush(g);
		else if (g_str_equal(word[0], "recheck"))
			ec_guard_recheck(g);
		printf("ok\n");
	}
}

int main(int argc, char **argv)
{
	g_autoptr(sd_event) event = NULL;
	EcGuard *g = NULL;

	if (argc != 3)
		return 2;
	ec_log_to_terminal(true);
	int r = driver_begin(&event);
	if (r >= 0)
		r = ec_guard_new(event, argv[1], argv[2], on_changed, NULL, &g);
	if (r >= 0) {
		printf("ready\n");
		r = driver_serve(event, run, g);
	}
	(void)ec_guard_free(g);
	return r < 0;
}
