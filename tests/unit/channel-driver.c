/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control-acceptor.h"
#include "driver.h"

/*
 * The acceptor without a daemon, for tests/netns/test_channel.py. It knows one name; who has shown
 * that it has the key is answered: PONG to PING. Addresses in 127.66.0.0/16 may not speak to it.
 * Each line of input is answered with the counts and the resident memory in KiB.
 *
 * usage: channel-driver PORT NAME KEY-IN-HEX
 */

typedef struct Driver {
	sd_event *event;
	EcAcceptor *acceptor;
	const char *name;
	uint8_t key[EC_CHANNEL_KEY_SIZE];
	GHashTable *channels; /* those that have been greeted */
} Driver;

static void on_message(EcChannel *c, const EcControlMessage *m, void *userdata)
{
	EcControlMessage answer = { .type = EC_CONTROL_PONG, .seq = m->seq };

	if (m->type == EC_CONTROL_PING)
		ec_channel_send(c, &answer);
}

static void on_closed(EcChannel *c, const sd_bus_error *why, void *userdata)
{
	Driver *d = userdata;

	(void)g_hash_table_remove(d->channels, c);
}

static const EcChannelOps channel_ops = { .message = on_message, .closed = on_closed };

static bool admit(EcAcceptor *a, const EcAddress *from, void *userdata)
{
	return from->family != AF_INET || from->bytes[0] != 127 || from->bytes[1] != 66;
}

static bool get_key(EcAcceptor *a, EcChannel *c, const char *identity,
		uint8_t ret[static EC_CHANNEL_KEY_SIZE], void *userdata)
{
	Driver *d = userdata;

	memcpy(ret, d->key, EC_CHANNEL_KEY_SIZE);
	return g_str_equal(identity, d->name);
}

static bool welcome(EcAcceptor *a, EcChannel *c, EcControlMessage *ret, void *userdata)
{
	ret->protocol = EC_CONTROL_PROTOCOL;
	(void)g_strlcpy(ret->name, "office", sizeof(ret->name));
	(void)g_strlcpy(ret->peer, ec_channel_identity(c), sizeof(ret->peer));
	ret->nonce = 0x0102030405060708;
	ret->instance = 9;
	ret->seen = *ec_channel_remote(c);
	ret->encaps[0] = (EcControlEncap){ "vxlan", "kernel", 4789 };
	ret->n_encaps = 1;
	ret->ids[0] = 7;
	ret->n_ids = 1;
	return true;
}

static void greeted(EcAcceptor *a, EcChannel *c, const EcControlMessage *m, void *userdata)
{
	Driver *d = userdata;

	ec_channel_set_owner(c, &channel_ops, d);
	(void)g_hash_table_add(d->channels, c);
	on_message(c, m, d);
}

static const EcAcceptorOps ops = { admit, get_key, welcome, greeted };

static unsigned long resident(void)
{
	unsigned long pages = 0;
	FILE *file = fopen("/proc/self/statm", "re");

	if (file) {
		if (fscanf(file, "%*u %lu", &pages) != 1)
			pages = 0;
		(void)fclose(file);
	}
	return pages * (unsigned long)sysconf(_SC_PAGESIZE) / 1024;
}

static void run(char **word, guint words, void *userdata)
{
	const Driver *d = userdata;
	EcAcceptorCounts n = ec_acceptor_counts(d->acceptor);
	printf("{\"accepted\": %" PRIu64 ", \"refused\": %" PRIu64 ", \"failed\": %" PRIu64
	       ", \"pending\": %u, \"greeted\": %u, \"resident\": %lu}\n",
			n.accepted, n.refused, n.failed, n.pending, g_hash_table_size(d->channels),
			resident());
}

static int serve(Driver *d, uint16_t port)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	int r = ec_acceptor_new(d->event, port, &ops, d, &d->acceptor, &error);

	if (r < 0) {
		printf("%s: %s\n", ec_error_token(&error), error.message);
		return 1;
	}
	printf("ready %u\n", ec_acceptor_port(d->acceptor));
	r = driver_serve(d->event, run, d);
	(void)ec_acceptor_free(d->acceptor);
	return r < 0;
}

int main(int argc, char **argv)
{
	Driver d = { .channels = g_hash_table_new_full(NULL, NULL, NULL, NULL) };
	GHashTableIter i;
	void *c;

	if (argc != 4 || strlen(argv[3]) != (size_t)2 * EC_CHANNEL_KEY_SIZE)
		return 2;
	d.name = argv[2];
	for (size_t n = 0; n < EC_CHANNEL_KEY_SIZE; n++)
		d.key[n] = (uint8_t)(g_ascii_xdigit_value(argv[3][2 * n]) << 4 |
				     g_ascii_xdigit_value(argv[3][2 * n + 1]));
	if (driver_begin(&d.event) < 0)
		return 1;
	int r = serve(&d, (uint16_t)strtoul(argv[1], NULL, 10));
	g_hash_table_iter_init(&i, d.channels);
	while (g_hash_table_iter_next(&i, &c, NULL))
		(void)ec_channel_free(c);
	g_hash_table_unref(d.channels);
	(void)sd_event_unref(d.event);
	return r;
}
