/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <string.h>

#include "manager.h"
#include "tunnel-worker.h"

/*
 * What this kernel can do is tried: an interface of each kind is made, down and between
 * documentation addresses (RFC 5737), and all of them are deleted with one request. The answer is
 * kept: for good when it is yes, for a minute when it is no, since the module may be installed.
 */

#define NO_USEC 60000000LL

static bool try(EcManager *m, const EcEncap *encap)
{
	static unsigned serial, first;
	g_autoptr(EcMessage) info = nlmsg_alloc_simple(0, 0);
	g_autoptr(EcSettings) settings = ec_settings_new();
	g_auto(EcLink) link = { 0 };
	char name[IF_NAMESIZE];
	EcWire wire;

	/* A daemon that was killed may have left some: not under the same names. */
	if (serial == 0)
		first = g_random_int() % 100000;
	unsigned number = (first + serial++) % 100000;

	ec_encap_wire(encap, settings, &wire);
	(void)ec_address_from_string("192.0.2.1", &wire.local);
	(void)ec_address_from_string("192.0.2.2", &wire.remote);
	/* Kinds that share a link kind must not look like twins of each other. */
	wire.id = encap->id_max ? encap->id_max - number : 0;
	if (encap->data_port) /* above 1023: the daemon may not bind what is below */
		wire.data_port = wire.remote_data_port = (uint16_t)(64000 + number % 1000);
	g_snprintf(name, sizeof(name), "ec-try-%u", number);
	if (!info || encap->fill(&wire, info) < 0)
		return false;
	const EcLinkChange make = {
		.name = name, .kind = encap->kind4, .info_data = info, .group = EC_LINK_GROUP
	};
	/* Documentation addresses are on no interface: nothing can receive there. */
	wire.local.v4.s_addr = INADDR_ANY;
	if (encap->up && encap->up(&wire, m->kernel, NULL) < 0)
		return false;
	bool made = ec_kernel_link_set(m->kernel, &make, NULL) >= 0;
	if (encap->down)
		encap->down(&wire, m->kernel);
	if (made && ec_kernel_link_by_name(m->kernel, name, &link, NULL) > 0)
		ec_manager_doom(m, link.ifindex);
	return made;
}

bool ec_manager_can_do(EcManager *m, const EcEncap *encap)
{
	if (encap->worker)
		return ec_tunnel_worker_is_possible(m);
	int64_t now = g_get_monotonic_time();
	int64_t *until = g_hash_table_lookup(m->capabilities, encap);

	if (until && (*until == INT64_MAX || now < *until))
		return *until == INT64_MAX;
	until = g_new(int64_t, 1);
	*until = try(m, encap) ? INT64_MAX : now + NO_USEC;
	g_hash_table_replace(m->capabilities, (gpointer)encap, until);
	return *until == INT64_MAX;
}

char **ec_manager_encapsulations(EcManager *m)
{
	g_autoptr(GStrvBuilder) b = g_strv_builder_new();

	for (const EcEncap *const *e = ec_encaps; *e; e++) {
		if (ec_manager_can_do(m, *e)) {
			g_autofree char *word =
					g_strconcat((*e)->name, "/", ec_encap_plane(*e), NULL);
			g_strv_builder_add(b, word);
		}
	}
	g_strfreev(m->capability_words);
	m->capability_words = g_strv_builder_end(b);
	return m->capability_words;
}
