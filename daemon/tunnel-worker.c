/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tunnel-worker.h"

#include <string.h>

#include "control.h"
#include "log.h"
#include "manager.h"

static char *directory_of(EcManager *m)
{
	return g_build_filename(m->config.runtime_dir, "workers", NULL);
}

static void on_changed(void *userdata)
{
	EcTunnel *t = userdata;

	ec_manager_mark(t->manager, t);
}

static void on_peer(const EcAddress *address, uint16_t port, void *userdata)
{
	ec_tunnel_follow(userdata, address, port);
}

static void on_told(const char *kind, const char *sentence, void *userdata)
{
	EcTunnel *t = userdata;

	ec_log_tunnel(LOG_INFO, t, "%s: %s", kind, sentence);
	ec_tunnel_event(t, kind, "text", sentence, NULL);
}

static const EcWorkerOps ops = {
	.changed = on_changed,
	.peer = on_peer,
	.told = on_told,
};

static void have_host(EcTunnel *t, const EcEncap *encap)
{
	g_autofree char *directory = directory_of(t->manager);

	if (t->worker)
		ec_worker_host_set_format(t->worker, encap->worker);
	else
		t->worker = ec_worker_host_new(t->manager->event, directory, ec_tunnel_name(t),
				encap->worker, &ops, t);
}

int ec_tunnel_worker_make(EcTunnel *t, const EcEncap *encap, sd_bus_error *ret_error)
{
	have_host(t, encap);
	return ec_worker_host_make_device(t->worker, t->ifname, ret_error);
}

int ec_tunnel_worker_keep(EcTunnel *t, sd_bus_error *ret_error)
{
	return ec_worker_host_keep_device(t->worker, ret_error);
}

static uint32_t flags_of(const EcTunnel *t)
{
	const EcSettings *s = t->settings;
	bool split = t->session ? t->session->agreement.split : s->split == EC_SPLIT_YES;
	bool join = t->session ? t->session->agreement.joins : split;

	return (t->encap->flags & EC_ENCAP_TOO_BIG ? EC_WORKER_TOO_BIG : 0u) |
	       (t->wire.fragment ? EC_WORKER_FRAGMENT : 0u) |
	       (t->encap->worker == EC_WORKER_GRETAP_FOU && !join ? EC_WORKER_SEQUENCE : 0u) |
	       (split ? EC_WORKER_SPLIT : 0u) | (join ? EC_WORKER_JOIN : 0u) |
	       (s->roam ? EC_WORKER_ROAM : 0u);
}

static void fill_spec(const EcTunnel *t, EcWorkerSpec *ret)
{
	const EcWire *w = &t->wire;
	bool known = !ec_tunnel_awaits_client(t);

	*ret = (EcWorkerSpec){ 0 };
	ret->socket.local.family = w->remote.family;
	/* Who roams may come to any address of ours. */
	if (w->local.family == w->remote.family && (!t->settings->roam || t->settings->local))
		memcpy(ret->socket.local.bytes, w->local.bytes, ec_address_size(&w->local));
	ret->socket.port = w->data_port;
	ret->socket.ifindex = w->ifindex;
	if (w->ifindex)
		g_strlcpy(ret->socket.device, t->path.device, sizeof(ret->socket.device));
	ret->socket.mark = w->fwmark;
	ret->socket.ttl = w->ttl;
	ret->socket.tos = w->tos;
	ret->socket.fragment = w->fragment;
	if (known) {
		ret->remote.family = w->remote.family;
		memcpy(ret->remote.bytes, w->remote.bytes, ec_address_size(&w->remote));
		ret->remote_port = w->remote_data_port;
	}
	ret->id = w->id;
	ret->path_mtu = t->session ? ec_session_path_mtu(t->session, t->path.mtu) : t->path.mtu;
	ret->flags = flags_of(t);
}

int ec_tunnel_worker_settle(EcTunnel *t, sd_bus_error *ret_error)
{
	EcWorkerSpec spec;

	have_host(t, t->encap);
	fill_spec(t, &spec);
	return ec_worker_host_settle(t->worker, t->ifname, &spec, ret_error);
}

void ec_tunnel_worker_end(EcTunnel *t)
{
	t->worker = ec_worker_host_end(t->worker);
}

bool ec_tunnel_worker_is_possible(EcManager *m)
{
	g_autofree char *directory = directory_of(m);

	return ec_worker_is_possible(directory);
}

static bool is_wanted(const char *name, void *userdata)
{
	const EcTunnel *t = ec_manager_find(userdata, name);

	return t && t->wanted && (t->worker || !t->encap || t->encap->worker);
}

void ec_tunnel_worker_sweep(EcManager *m)
{
	g_autofree char *directory = directory_of(m);

	ec_worker_sweep(directory, is_wanted, m);
}
