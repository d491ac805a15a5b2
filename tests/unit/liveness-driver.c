/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "driver.h"
#include "encap.h"
#include "mapping.h"

/*
 * Liveness, mapping and the kernel's part of a cord without a daemon, for
 * tests/netns/test_liveness.py and tests/vm/test_carrier.py: one command a line, one JSON object a
 * line back, and one for each event, with the time (CLOCK_BOOTTIME, s).
 *
 * usage: liveness-driver IFINDEX ethernet|ip dialer|acceptor TX-KEY RX-KEY INTERVAL TIMEOUT
 */

typedef struct Driver {
	sd_event *event;
	EcKernel *kernel;
	EcLiveness *liveness;
	EcLivenessSpec spec;
	EcMapping *mapping;
} Driver;

static void tell(const char *event, const char *more)
{
	struct timespec ts = { 0 };

	(void)clock_gettime(CLOCK_BOOTTIME, &ts);
	printf("{\"event\": \"%s\", \"at\": %jd.%06ld%s%s}\n", event, (intmax_t)ts.tv_sec,
			ts.tv_nsec / 1000, *more ? ", " : "", more);
}

static void answer(int r, const sd_bus_error *error)
{
	g_autofree char *more =
			r < 0 ? g_strdup_printf("\"error\": \"%s\"",
						error->message ? error->message : g_strerror(-r))
			      : g_strdup("");

	tell(r < 0 ? "refused" : "done", more);
}

static void on_proved(EcLiveness *l, uint32_t size, void *userdata)
{
	g_autofree char *more = g_strdup_printf("\"size\": %u", size);

	tell("proved", more);
}

static void on_lost(EcLiveness *l, void *userdata)
{
	tell("lost", "");
}

static void on_found(EcLiveness *l, void *userdata)
{
	tell("found", "");
}

static void on_moved(EcMapping *m, const EcAddress *address, uint16_t port, void *userdata)
{
	char text[INET6_ADDRSTRLEN];
	g_autofree char *more = g_strdup_printf("\"address\": \"%s\", \"port\": %u",
			ec_address_to_string(address, text), port);

	tell("moved", more);
}

static const EcLivenessOps ops = { .proved = on_proved, .lost = on_lost, .found = on_found };

static uint32_t number(const char *word)
{
	return (uint32_t)g_ascii_strtoull(word, NULL, 0);
}

static void take_key(const char *hex, uint8_t ret[static EC_PROBE_KEY_SIZE])
{
	for (size_t i = 0; i < EC_PROBE_KEY_SIZE && strlen(hex) >= i * 2 + 2; i++)
		ret[i] = (uint8_t)(g_ascii_xdigit_value(hex[i * 2]) << 4 |
				   g_ascii_xdigit_value(hex[i * 2 + 1]));
}

static EcLivenessKeys take_keys(const char *tx, const char *rx)
{
	EcLivenessKeys keys = { 0 };

	take_key(tx, keys.tx);
	take_key(rx, keys.rx);
	return keys;
}

static void tell_statistics(const Driver *d)
{
	const EcLivenessStatistics s = ec_liveness_statistics(d->liveness);
	g_autofree char *more = g_strdup_printf("\"rtt\": %ju, \"jitter\": %ju, \"sent\": %ju, "
						"\"unanswered\": %ju, \"is_lost\": %s",
			(uintmax_t)s.rtt_usec, (uintmax_t)s.jitter_usec, (uintmax_t)s.sent,
			(uintmax_t)s.lost, ec_liveness_is_lost(d->liveness) ? "true" : "false");

	tell("statistics", more);
}

static void tell_link(const Driver *d, int ifindex)
{
	g_auto(EcLink) link = { 0 };

	if (ec_kernel_link_by_index(d->kernel, ifindex, &link, NULL) > 0)
		tell("link", link.dormant ? "\"dormant\": true" : "\"dormant\": false");
	else
		tell("refused", "");
}

static int rebind(Driver *d, int ifindex, sd_bus_error *error)
{
	g_auto(EcLink) link = { 0 };

	d->spec.ifindex = ifindex;
	if (ec_kernel_link_by_index(d->kernel, ifindex, &link, NULL) > 0)
		memcpy(d->spec.mac, link.mac, sizeof(link.mac));
	return ec_liveness_rebind(d->liveness, &d->spec, error);
}

/* map IFINDEX FAMILY PORT vxlan|gre ID */
static int map(Driver *d, char **word, sd_bus_error *error)
{
	const EcMappingSpec spec = {
		.ifindex = (int)number(word[0]),
		.family = *word[1] == '6' ? AF_INET6 : AF_INET,
		.data_port = (uint16_t)number(word[2]),
		.format = g_str_equal(word[3], "vxlan") ? EC_MAPPING_VXLAN : EC_MAPPING_GRE,
		.id = number(word[4]),
	};

	d->mapping = ec_mapping_free(d->mapping);
	return ec_mapping_new(d->event, &spec, d->liveness, on_moved, d, &d->mapping, error);
}

/* vxlan NAME ID PORT LOCAL: one behind a NAT, without a remote as yet */
static int make_vxlan(Driver *d, char **word, sd_bus_error *error)
{
	g_autoptr(EcMessage) info = nlmsg_alloc_simple(0, 0);
	EcWire wire = { .nat = true,
		.id = number(word[1]),
		.data_port = (uint16_t)number(word[2]),
		.ttl = 64 };
	const bool up = true;
	const EcLinkChange change = {
		.name = word[0], .kind = "vxlan", .info_data = info, .up = &up
	};

	if (!info || ec_address_from_string(word[3], &wire.local) < 0)
		return -EINVAL;
	wire.remote.family = wire.local.family;
	int r = ec_encap_vxlan.fill(&wire, info);
	return r < 0 ? r : ec_kernel_link_set(d->kernel, &change, error);
}

/* settle IFINDEX REMOTE REMOTE-PORT PORT */
static int settle(Driver *d, char **word, sd_bus_error *error)
{
	EcWire wire = { .nat = true,
		.remote_data_port = (uint16_t)number(word[2]),
		.data_port = (uint16_t)number(word[3]) };

	if (ec_address_from_string(word[1], &wire.remote) < 0)
		return -EINVAL;
	return ec_encap_vxlan.settle(&wire, (int)number(word[0]), d->kernel, error);
}

static int set_carrier(Driver *d, char **word, sd_bus_error *error)
{
	const bool dormant = g_str_equal(word[1], "off");
	const EcLinkChange change = { .ifindex = (int)number(word[0]), .dormant = &dormant };

	return ec_kernel_link_set(d->kernel, &change, error);
}

static int rekey(Driver *d, char **word, sd_bus_error *error)
{
	const EcLivenessKeys keys = take_keys(word[0], word[1]);

	ec_liveness_rekey(d->liveness, &keys);
	return 0;
}

static int prove(Driver *d, char **word, sd_bus_error *error)
{
	ec_liveness_prove(d->liveness, number(word[0]));
	return 0;
}

static int rebind_to(Driver *d, char **word, sd_bus_error *error)
{
	return rebind(d, (int)number(word[0]), error);
}

static int simple(Driver *d, const char *verb)
{
	if (g_str_equal(verb, "watch"))
		ec_liveness_watch(d->liveness, false);
	else if (g_str_equal(verb, "pause"))
		ec_liveness_pause(d->liveness);
	else if (g_str_equal(verb, "ask"))
		ec_liveness_ask(d->liveness);
	else if (g_str_equal(verb, "unmap"))
		d->mapping = ec_mapping_free(d->mapping);
	else
		return -EINVAL;
	return 0;
}

static const struct {
	const char *verb;
	guint words;
	int (*run)(Driver *d, char **word, sd_bus_error *error);
} commands[] = {
	{ "prove", 1, prove },
	{ "rekey", 2, rekey },
	{ "rebind", 1, rebind_to },
	{ "carrier", 2, set_carrier },
	{ "map", 5, map },
	{ "vxlan", 4, make_vxlan },
	{ "settle", 4, settle },
};

static void run(char **word, guint words, void *userdata)
{
	Driver *d = userdata;
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;

	if (words == 1 && g_str_equal(word[0], "statistics")) {
		tell_statistics(d);
		return;
	}
	if (words == 2 && g_str_equal(word[0], "link")) {
		tell_link(d, (int)number(word[1]));
		return;
	}
	for (size_t i = 0; i < EC_ELEMENTS(commands); i++) {
		if (words == commands[i].words + 1 && g_str_equal(word[0], commands[i].verb)) {
			answer(commands[i].run(d, word + 1, &error), &error);
			return;
		}
	}
	answer(words ? simple(d, word[0]) : -EINVAL, &error);
}

static int start(Driver *d, char **argv, sd_bus_error *error)
{
	g_auto(EcLink) link = { 0 };
	const EcLivenessKeys keys = take_keys(argv[4], argv[5]);

	d->spec = (EcLivenessSpec){
		.group = EC_PROBE_GROUP,
		.ifindex = (int)number(argv[1]),
		.ethernet = g_str_equal(argv[2], "ethernet"),
		.dialer = g_str_equal(argv[3], "dialer"),
		.interval_ms = number(argv[6]),
		.timeout_ms = number(argv[7]),
	};
	int r = driver_begin(&d->event);
	if (r >= 0)
		r = ec_kernel_new("/nowhere", &d->kernel);
	if (r >= 0 && ec_kernel_link_by_index(d->kernel, d->spec.ifindex, &link, NULL) > 0)
		memcpy(d->spec.mac, link.mac, sizeof(link.mac));
	if (r >= 0)
		r = ec_liveness_new(d->event, &d->spec, &keys, &ops, d, &d->liveness, error);
	return r;
}

int main(int argc, char **argv)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	Driver d = { 0 };

	if (argc != 8)
		return 2;
	int r = start(&d, argv, &error);
	answer(r, &error);
	if (r >= 0)
		r = driver_serve(d.event, run, &d);
	(void)ec_mapping_free(d.mapping);
	(void)ec_liveness_free(d.liveness);
	(void)ec_kernel_free(d.kernel);
	(void)sd_event_unref(d.event);
	return r < 0;
}
