/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manager.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "control-answer.h"
#include "control.h"
#include "log.h"
#include "reconcile.h"
#include "tunnel-worker.h"

/*
 * DOC: Theory of operation
 *
 * Events only mark: a tunnel as dirty, or the whole for a sweep. A timer then does one round of
 * work on the kernel's present state, at once after a quiet time and at most five times a second
 * under a flood of events.
 *
 * A sweep looks at every interface once and settles whose it is: tunnels find their interfaces by
 * alias (adoption after a crash), what carries our tag and is wanted by nobody is deleted, what
 * does not carry it is left alone. Only one daemon of a network namespace sweeps, the one that
 * holds an abstract socket, and only while no second copy holds another: each would take the
 * other's tunnels for orphans.
 *
 * Deleting an interface costs the kernel an RCU grace period of some 16 ms, and as long for a
 * thousand: the doomed gather until the bus is silent and go with one request.
 */

#define ROUND_USEC (200 * 1000ULL)
#define LOCK_NAME "org.ethercord1.sweeper"
#define GUEST_NAME "org.ethercord1.guest"
#define GUARD_TABLE "ethercord"
#define GUARD_TABLE_GUEST "ethercord-guest"

static uint64_t now_usec(EcManager *m)
{
	uint64_t usec = 0;

	(void)sd_event_now(m->event, CLOCK_MONOTONIC, &usec);
	return usec;
}

static void schedule(EcManager *m)
{
	uint64_t now = now_usec(m);

	(void)sd_event_source_set_time(m->work, MAX(now, m->worked_usec + ROUND_USEC));
	(void)sd_event_source_set_enabled(m->work, SD_EVENT_ONESHOT);
}

void ec_manager_mark(EcManager *m, EcTunnel *t)
{
	GHashTableIter i;

	if (t) {
		t->dirty = true;
	} else {
		g_hash_table_iter_init(&i, m->tunnels);
		while (g_hash_table_iter_next(&i, NULL, (gpointer *)&t)) {
			t->dirty = true;
			/* The network changed: a name may resolve now, and the peer answer. */
			t->retry = sd_event_source_disable_unref(t->retry);
			if (t->session)
				ec_session_wake(t->session);
		}
	}
	schedule(m);
}

/* Events of the kernel */

static bool names_link(const EcTunnel *t, const char *name)
{
	const EcSettings *s = t->settings;

	return g_str_equal(t->ifname, name) || g_strcmp0(s->bridge, name) == 0 ||
	       g_strcmp0(s->attach, name) == 0 || g_str_equal(t->path.device, name) ||
	       (g_str_has_prefix(s->underlay, "device:") &&
			       g_str_equal(s->underlay + strlen("device:"), name));
}

static void on_link(EcManager *m, const EcLink *link, bool gone)
{
	EcTunnel *own = g_hash_table_lookup(m->by_ifindex, GINT_TO_POINTER(link->ifindex)), *t;
	GHashTableIter i;

	if (own) {
		/* Of the echoes of one request only the last shows it done. */
		own->suspect = gone || !ec_reconcile_is_as_left(own, link);
		if (own->suspect)
			schedule(m);
		return;
	}
	bool tagged = g_str_has_prefix(link->alias, EC_ALIAS_PREFIX) ||
		      link->group == EC_LINK_GROUP;
	if (tagged && !gone) {
		m->sweep = true;
		schedule(m);
	}
	bool vpn = !tagged && ec_underlays_link(m->underlays, link, gone);
	g_hash_table_iter_init(&i, m->tunnels);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&t)) {
		bool touched = vpn && !g_str_equal(t->settings->underlay, "any");

		if (t->wanted && (touched || names_link(t, link->name)))
			ec_manager_mark(m, t);
	}
	/* The fence's route through a device dies with it, and has to come with it. */
	m->recheck = m->recheck || vpn;
}

static void on_kernel(EcKernelEvent what, const EcLink *link, void *userdata)
{
	EcManager *m = userdata;

	switch (what) {
	case EC_KERNEL_LINK:
	case EC_KERNEL_UNLINK:
		on_link(m, link, what == EC_KERNEL_UNLINK);
		break;
	case EC_KERNEL_LOST:
		ec_log(LOG_NOTICE, "the kernel dropped events; looking at everything anew");
		m->sweep = true;
		m->recheck = true;
		ec_underlays_rescan(m->underlays);
		ec_manager_mark(m, NULL);
		break;
	case EC_KERNEL_ROUTES:
		ec_manager_mark(m, NULL);
		break;
	case EC_KERNEL_GUARD:
		m->recheck = true;
		schedule(m);
		break;
	}
}

/* What a kind of VPN reports, or the guard, is about any tunnel. */
static void on_ask(void *userdata)
{
	EcManager *m = userdata;

	m->recheck = true;
	ec_manager_mark(m, NULL);
}

/* The abstract sockets belong to the network namespace and die with their holders. */
static int socket_of(const char *name, int (*with)(int, const struct sockaddr *, socklen_t))
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	memcpy(address.sun_path + 1, name, strlen(name));
	socklen_t n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
	if (fd >= 0 && with(fd, (struct sockaddr *)&address, n) < 0) {
		(void)close(fd);
		return -1;
	}
	return fd;
}

static void take_lock(EcManager *m)
{
	int fd = socket_of(LOCK_NAME, bind);

	m->sweeps = fd >= 0;
	m->lock_fd = m->sweeps ? fd : socket_of(GUEST_NAME, bind);
	if (!m->sweeps)
		ec_log(LOG_WARNING, "another ethercordd runs in this network namespace; "
				    "interfaces that nobody wants are left alone");
}

/* Whether all interfaces with our tag are this daemon's to judge. */
static bool is_alone(const EcManager *m)
{
	int guest = m->sweeps ? socket_of(GUEST_NAME, connect) : -1;

	if (guest >= 0)
		(void)close(guest);
	return m->sweeps && guest < 0;
}

/* Sweep */

static bool bridge_is_wanted(EcManager *m, const char *name)
{
	return ec_manager_bridge_in_use(m, name, NULL);
}

static void sweep_link(const EcLink *link, void *userdata)
{
	EcManager *m = userdata;
	EcTunnel *t = NULL;

	if (g_str_equal(link->alias, EC_ALIAS_BRIDGE)) {
		if (!bridge_is_wanted(m, link->name))
			ec_manager_doom(m, link->ifindex);
		return;
	}
	if (g_str_has_prefix(link->alias, EC_ALIAS_PREFIX)) {
		t = ec_manager_find(m, link->alias + strlen(EC_ALIAS_PREFIX));
		if (t && t->wanted && !t->ifindex) {
			t->ifindex = link->ifindex;
			g_hash_table_insert(m->by_ifindex, GINT_TO_POINTER(t->ifindex), t);
		}
		if (!t || !t->wanted || t->ifindex != link->ifindex)
			ec_manager_doom(m, link->ifindex);
		return;
	}
	bool half_made = link->group == EC_LINK_GROUP && !link->alias[0] &&
			 !ec_manager_ifname_taken(m, link->name, NULL) &&
			 !bridge_is_wanted(m, link->name);
	if (half_made || link->group == EC_LINK_GROUP_DOOMED)
		ec_manager_doom(m, link->ifindex);
}

void ec_manager_sweep(EcManager *m)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;

	m->sweep = false;
	g_hash_table_remove_all(m->strangers);
	if (!is_alone(m))
		return;
	ec_tunnel_worker_sweep(m);
	int r = ec_kernel_links(m->kernel, sweep_link, m, &error);
	if (r == -EINTR) { /* interfaces come and go too fast to be listed: later */
		m->sweep = true;
		schedule(m);
	} else if (r < 0) {
		ec_log(LOG_WARNING, "%s", error.message);
	}
}

/* Work */

static int on_work(sd_event_source *s, uint64_t usec, void *userdata)
{
	EcManager *m = userdata;
	GHashTableIter i;
	EcTunnel *t;

	m->worked_usec = now_usec(m);
	if (m->recheck)
		ec_guard_recheck(m->guard);
	m->recheck = false;
	ec_underlays_refresh(m->underlays);
	if (m->sweep || g_hash_table_size(m->strangers) > 0)
		ec_manager_sweep(m);
	g_hash_table_iter_init(&i, m->tunnels);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&t)) {
		if (t->dirty || t->suspect)
			ec_tunnel_refresh(t);
	}
	return 0;
}

void ec_manager_flush_later(EcManager *m)
{
	(void)sd_event_source_set_enabled(m->flush, SD_EVENT_ONESHOT);
}

void ec_manager_doom(EcManager *m, int ifindex)
{
	g_array_append_val(m->doomed, ifindex);
	ec_manager_flush_later(m);
}

/* Then all interfaces of our group are doomed, and need not be told from others. */
static bool nothing_is_wanted(EcManager *m)
{
	GHashTableIter i;
	EcTunnel *t;

	g_hash_table_iter_init(&i, m->tunnels);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&t)) {
		if (t->wanted)
			return false;
	}
	return is_alone(m);
}

void ec_manager_flush(EcManager *m)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	int r = 0;

	(void)sd_event_source_set_enabled(m->flush, SD_EVENT_OFF);
	if (m->doomed->len > 1 && nothing_is_wanted(m)) {
		r = ec_kernel_link_delete_group(m->kernel, EC_LINK_GROUP, &error);
	} else if (m->doomed->len == 1) {
		r = ec_kernel_link_delete(m->kernel, g_array_index(m->doomed, int, 0), &error);
	} else if (m->doomed->len > 1) {
		for (guint i = 0; i < m->doomed->len; i++) {
			const EcLinkChange doom = { .ifindex = g_array_index(m->doomed, int, i),
				.group = EC_LINK_GROUP_DOOMED };
			(void)ec_kernel_link_set(m->kernel, &doom, NULL);
		}
		r = ec_kernel_link_delete_group(m->kernel, EC_LINK_GROUP_DOOMED, &error);
	}
	if (r < 0)
		ec_log(LOG_ERR, "%s", error.message);
	else
		ec_guard_flush(m->guard); /* an interface that is still there keeps its fence */
	g_array_set_size(m->doomed, 0);
	if (m->observer.flushed)
		m->observer.flushed(m->observer.userdata);
}

static int on_flush(sd_event_source *s, void *userdata)
{
	ec_manager_flush(userdata);
	return 0;
}

/* Tunnels */

EcTunnel *ec_manager_find(EcManager *m, const char *name)
{
	return g_hash_table_lookup(m->tunnels, name);
}

bool ec_manager_ifname_taken(EcManager *m, const char *ifname, const EcTunnel *but)
{
	GHashTableIter i;
	EcTunnel *t;

	g_hash_table_iter_init(&i, m->tunnels);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&t)) {
		if (t != but && g_str_equal(t->ifname, ifname))
			return true;
	}
	return false;
}

bool ec_manager_bridge_in_use(EcManager *m, const char *bridge, const EcTunnel *but)
{
	GHashTableIter i;
	EcTunnel *t;

	g_hash_table_iter_init(&i, m->tunnels);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&t)) {
		if (t != but && t->wanted && g_strcmp0(t->settings->bridge, bridge) == 0)
			return true;
	}
	return false;
}

static bool same_socket(const EcWire *a, const EcWire *b)
{
	return a->data_port == b->data_port && ec_address_equal(&a->local, &b->local) &&
	       a->remote_data_port == b->remote_data_port &&
	       ec_address_equal(&a->remote, &b->remote);
}

EcTunnel *ec_manager_twin(EcManager *m, const EcTunnel *t, const EcEncap *encap, const EcWire *wire)
{
	const char *kind = ec_encap_kind(encap, wire->remote.family);
	bool by_port = encap->flags & EC_ENCAP_SHARES_PORT;
	GHashTableIter i;
	EcTunnel *o;

	g_hash_table_iter_init(&i, m->tunnels);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&o)) {
		if (o == t || !o->ifindex || !o->encap)
			continue;
		if (encap->worker && o->encap->worker && same_socket(&o->wire, wire))
			return o;
		if (encap->worker || o->wire.id != wire->id ||
				!g_str_equal(ec_encap_kind(o->encap, o->wire.remote.family), kind))
			continue;
		/* A VNI is unique for its port; a GRE key for its pair of addresses. */
		if (by_port ? o->wire.data_port == wire->data_port
			    : ec_address_equal(&o->wire.local, &wire->local) &&
								ec_address_equal(&o->wire.remote,
										&wire->remote))
			return o;
	}
	return NULL;
}

/* What a tunnel has on the wire, or will have as soon as its interface is made. */
typedef struct OnWire {
	const EcTunnel *tunnel;
	const EcEncap *encap;
	uint32_t id;
	uint16_t port;
} OnWire;

/* The next tunnel but one that has something there. */
static bool next_on_wire(GHashTableIter *i, const EcTunnel *but, OnWire *ret)
{
	EcTunnel *t;

	while (g_hash_table_iter_next(i, NULL, (gpointer *)&t)) {
		const EcAgreement *a = t->session ? &t->session->agreement : NULL;

		*ret = a && a->encap ? (OnWire){ t, a->encap, a->id, a->data_port }
				     : (OnWire){ t, t->encap, t->wire.id, t->wire.data_port };
		if (t != but && ret->encap)
			return true;
	}
	return false;
}

bool ec_manager_id_is_free(EcManager *m, const EcEncap *encap, uint32_t id, uint16_t port,
		const EcAddress *remote, const EcTunnel *but)
{
	bool by_port = encap->flags & EC_ENCAP_SHARES_PORT;
	GHashTableIter i;
	OnWire o;

	g_hash_table_iter_init(&i, m->tunnels);
	while (next_on_wire(&i, but, &o)) {
		bool alike = o.id == id && g_str_equal(ec_encap_kind(o.encap, remote->family),
							   ec_encap_kind(encap, remote->family));

		if (alike && (by_port ? o.port == port
				      : ec_address_equal(&o.tunnel->remote, remote)))
			return false;
	}
	return true;
}

/* Each worker has a socket of its own, and the kernel tells these apart by addresses and ports. The
 * kernel's own take a port whole. */
static bool port_is_taken(EcManager *m, uint16_t port, const EcAddress *remote, const EcTunnel *but)
{
	GHashTableIter i;
	OnWire o;

	g_hash_table_iter_init(&i, m->tunnels);
	while (next_on_wire(&i, but, &o)) {
		if (o.port == port && (o.encap->flags & EC_ENCAP_UDP) &&
				(!o.encap->worker || ec_address_equal(&o.tunnel->remote, remote)))
			return true;
	}
	return false;
}

uint16_t ec_manager_free_port(EcManager *m, const EcEncap *encap, uint16_t wanted,
		const EcAddress *remote, const EcTunnel *but)
{
	uint16_t port = wanted;

	while (encap->worker && port_is_taken(m, port, remote, but) && port < UINT16_MAX - 1)
		port++;
	return port;
}

bool ec_manager_id_is_unused(EcManager *m, uint32_t id)
{
	GHashTableIter i;
	OnWire o;

	g_hash_table_iter_init(&i, m->tunnels);
	while (next_on_wire(&i, NULL, &o)) {
		if (o.id == id)
			return false;
	}
	return true;
}

static void withdraw(EcManager *m, EcTunnel *t)
{
	if (t->announced && m->observer.removed)
		m->observer.removed(t, m->observer.userdata);
	t->announced = false;
}

/* The key goes to the key store, and out of memory. */
static int store_key(EcManager *m, EcSettings *settings, sd_bus_error *ret_error)
{
	if (!settings->key)
		return 0;
	int r = ec_store_set_key(m->store, settings->name, settings->key, ret_error);
	return r < 0 ? r : ec_settings_parse(settings, "key", "", ret_error);
}

static int check_new(EcManager *m, const EcSettings *settings, sd_bus_error *ret_error)
{
	int r = ec_settings_verify(settings, ret_error);

	if (r < 0)
		return r;
	if (ec_manager_find(m, settings->name))
		return ec_error(ret_error, EC_ERROR_EXISTS, "there is a tunnel %s already%s",
				settings->name,
				settings->profile ? "; set another tunnel-name" : "");
	if (ec_manager_find_listener(m, settings->name))
		return ec_error(ret_error, EC_ERROR_EXISTS,
				"there is a listener %s already; a tunnel needs a name of its own",
				settings->name);
	if (g_hash_table_size(m->tunnels) >= m->config.max_tunnels)
		return ec_error(ret_error, EC_ERROR_LIMIT_EXCEEDED,
				"there are %u tunnels, as many as max-tunnels in ethercord.conf "
				"allows",
				g_hash_table_size(m->tunnels));
	GHashTableIter i;
	EcTunnel *t;
	g_hash_table_iter_init(&i, m->tunnels);
	while (settings->interface && g_hash_table_iter_next(&i, NULL, (gpointer *)&t)) {
		if (g_str_equal(t->ifname, settings->interface))
			return ec_error(ret_error, EC_ERROR_NAME_TAKEN,
					"interface %s belongs to tunnel %s already",
					settings->interface, ec_tunnel_name(t));
	}
	return 0;
}

static int insert(EcManager *m, EcSettings *settings, EcOrigin origin, EcTunnel **ret,
		sd_bus_error *ret_error)
{
	int r = check_new(m, settings, ret_error);

	if (r >= 0)
		r = store_key(m, settings, ret_error);
	if (r < 0) {
		(void)ec_settings_free(settings);
		return r;
	}
	settings->cleared = 0; /* that was a word of the call, not of the tunnel */
	*ret = ec_tunnel_new(m, settings, origin);
	g_hash_table_insert(m->tunnels, g_strdup(ec_tunnel_name(*ret)), *ret);
	return 0;
}

static void announce(EcManager *m, EcTunnel *t)
{
	t->announced = true;
	t->changed = 0;
	if (m->observer.added)
		m->observer.added(t, m->observer.userdata);
}

int ec_manager_load(EcManager *m, EcSettings *settings, EcOrigin origin, EcTunnel **ret,
		sd_bus_error *ret_error)
{
	int r = insert(m, settings, origin, ret, ret_error);

	if (r >= 0)
		announce(m, *ret);
	return r;
}

int ec_manager_add(EcManager *m, EcSettings *settings, EcOrigin origin, bool activate,
		EcTunnel **ret, sd_bus_error *ret_error)
{
	EcTunnel *t;
	int r = insert(m, settings, origin, &t, ret_error);

	if (r < 0)
		return r;
	r = ec_store_save(m->store, t->settings, origin, ret_error);
	bool saved = r >= 0;
	if (r >= 0 && activate)
		r = ec_tunnel_activate(t, ret_error);
	else if (r >= 0)
		ec_tunnel_record(t);
	if (r < 0) {
		ec_tunnel_drop(t);
		if (saved)
			(void)ec_store_remove(m->store, ec_tunnel_name(t), origin, NULL);
		g_hash_table_remove(m->tunnels, ec_tunnel_name(t));
		return r;
	}
	announce(m, t);
	*ret = t;
	return 0;
}

int ec_manager_accept(EcManager *m, EcListener *l, EcSettings *settings, EcTunnel **ret,
		sd_bus_error *ret_error)
{
	int r = check_new(m, settings, ret_error);

	if (r < 0) {
		(void)ec_settings_free(settings);
		return r;
	}
	EcTunnel *t = ec_tunnel_new(m, settings, EC_ORIGIN_RUNTIME);
	t->listener = l;
	t->session = ec_session_new(t);
	t->wanted = true;
	g_hash_table_insert(m->tunnels, g_strdup(ec_tunnel_name(t)), t);
	announce(m, t);
	ec_listener_touch(l, EC_LISTENER_PEERS);
	*ret = t;
	return 0;
}

void ec_manager_forget(EcManager *m, EcTunnel *t)
{
	EcListener *l = t->listener;

	ec_tunnel_drop(t);
	ec_manager_flush_later(m);
	withdraw(m, t);
	g_hash_table_remove(m->tunnels, ec_tunnel_name(t));
	ec_listener_touch(l, EC_LISTENER_PEERS);
}

static int save_update(EcManager *m, EcTunnel *t, sd_bus_error *ret_error)
{
	/* A package's file is overridden, not written. */
	EcOrigin origin = t->origin == EC_ORIGIN_VENDOR ? EC_ORIGIN_CONFIG : t->origin;
	int r = ec_store_save(m->store, t->settings, origin, ret_error);

	if (r >= 0)
		t->origin = origin;
	return r;
}

int ec_manager_update(
		EcManager *m, EcTunnel *t, EcSettings *settings, bool save, sd_bus_error *ret_error)
{
	g_autoptr(EcSettings) before = ec_settings_copy(t->settings);
	EcSettings *to = settings;
	int r = ec_settings_verify(to, ret_error);

	if (r >= 0 && t->listener)
		r = ec_error(ret_error, EC_ERROR_REFUSED,
				"%s is a peer of listener %s; change it there", ec_tunnel_name(t),
				t->listener->settings->name);
	if (r >= 0 && !g_str_equal(to->name, ec_tunnel_name(t)))
		r = ec_error(ret_error, EC_ERROR_INVALID_SETTING,
				"name: a tunnel keeps its name; add another one");
	if (r >= 0)
		r = ec_binding_verify(t, to, ret_error);
	if (r >= 0 && to->interface && ec_manager_ifname_taken(m, to->interface, t))
		r = ec_error(ret_error, EC_ERROR_NAME_TAKEN,
				"interface %s belongs to another tunnel already", to->interface);
	if (r >= 0)
		r = store_key(m, to, ret_error);
	to->cleared = 0;
	if (r < 0) {
		(void)ec_settings_free(to);
		return r;
	}
	r = ec_tunnel_update(t, to, ret_error);
	if (r >= 0 && save) {
		r = save_update(m, t, ret_error);
		if (r < 0)
			(void)ec_tunnel_update(t, g_steal_pointer(&before), NULL);
	}
	return r;
}

int ec_manager_remove(EcManager *m, EcTunnel *t, sd_bus_error *ret_error)
{
	if (t->listener) { /* until it comes again */
		ec_manager_forget(m, t);
		return 0;
	}
	bool drop = t->wanted && t->origin != EC_ORIGIN_VENDOR; /* whose file stays */

	/* Its files go last: until then a start after a crash knows what it had taken. */
	if (drop)
		ec_tunnel_drop(t);
	int r = ec_store_remove(m->store, ec_tunnel_name(t), t->origin, ret_error);
	if (r < 0) {
		if (drop)
			(void)ec_tunnel_activate(t, NULL);
		return r;
	}
	withdraw(m, t);
	g_hash_table_remove(m->tunnels, ec_tunnel_name(t));
	return 0;
}

bool ec_manager_is_idle(const EcManager *m)
{
	GHashTableIter i;
	const EcListener *l;

	g_hash_table_iter_init(&i, m->listeners);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&l)) {
		if (l->wanted)
			return false;
	}
	return g_hash_table_size(m->tunnels) == 0 && m->doomed->len == 0 &&
	       ec_bindings_is_idle(m->bindings);
}

void ec_manager_mac(EcManager *m, const char *purpose, const char *name, uint8_t ret[static 6])
{
	g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
	uint8_t digest[32];
	gsize n = sizeof(digest);

	g_checksum_update(sum, m->seed, sizeof(m->seed));
	g_checksum_update(sum, (const guchar *)purpose, (gssize)strlen(purpose) + 1);
	g_checksum_update(sum, (const guchar *)name, -1);
	g_checksum_get_digest(sum, digest, &n);
	memcpy(ret, digest, 6);
	ret[0] = (uint8_t)((ret[0] & 0xfc) | 0x02);
}

/* Start and end */

static void free_tunnel(gpointer t)
{
	(void)ec_tunnel_free(t);
}

static int open_kernel(EcManager *m, sd_bus_error *ret_error)
{
	const char *runtime_dir = ec_store_runtime_dir(m->store);
	int r = ec_kernel_new(runtime_dir, &m->kernel);

	if (r >= 0)
		r = ec_kernel_watch_new(m->event, on_kernel, m, &m->watch);
	if (r >= 0)
		r = ec_guard_new(m->event, runtime_dir, m->sweeps ? GUARD_TABLE : GUARD_TABLE_GUEST,
				on_ask, m, &m->guard);
	if (r >= 0)
		r = ec_underlays_new(m->kernel, m->event, m->bus, on_ask, m, &m->underlays);
	if (r >= 0)
		r = sd_event_add_time(m->event, &m->work, CLOCK_MONOTONIC, 0, 1, on_work, m);
	if (r >= 0)
		r = sd_event_source_set_enabled(m->work, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_defer(m->event, &m->flush, on_flush, m);
	if (r >= 0)
		r = sd_event_source_set_enabled(m->flush, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_source_set_priority(m->flush, SD_EVENT_PRIORITY_IDLE);
	return r < 0 ? ec_error(ret_error, EC_ERROR_KERNEL, "cannot talk to the kernel: %s",
				       g_strerror(-r))
		     : 0;
}

int ec_manager_new(sd_event *event, sd_bus *bus, const EcConfig *config, EcManager **ret,
		sd_bus_error *ret_error)
{
	EcManager *m = g_new0(EcManager, 1);

	m->event = sd_event_ref(event);
	m->bus = sd_bus_ref(bus);
	m->config = *config;
	m->lock_fd = -1;
	m->tunnels = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, free_tunnel);
	m->listeners = ec_manager_listeners_new();
	m->by_ifindex = g_hash_table_new(NULL, NULL);
	m->doomed = g_array_new(false, false, sizeof(int));
	m->capabilities = g_hash_table_new_full(NULL, NULL, NULL, g_free);
	m->strangers = g_hash_table_new(NULL, NULL);
	int r = ec_store_new(config->config_dir, config->state_dir, config->runtime_dir,
			config->vendor_dir, &m->store, ret_error);
	if (r >= 0) {
		take_lock(m);
		r = open_kernel(m, ret_error);
	}
	if (r >= 0)
		r = ec_answer_new(m, &m->answer);
	if (r >= 0)
		r = ec_bindings_new(m, &m->bindings);
	if (r < 0) {
		(void)ec_manager_free(m);
		return r;
	}
	ec_store_machine_seed(m->store, m->seed);
	*ret = m;
	return 0;
}

EcManager *ec_manager_free(EcManager *m)
{
	if (!m)
		return NULL;
	m->observer = (EcManagerObserver){ 0 };
	(void)ec_answer_free(m->answer);
	g_hash_table_unref(m->tunnels);
	(void)ec_bindings_free(m->bindings);
	g_hash_table_unref(m->listeners);
	g_hash_table_unref(m->by_ifindex);
	(void)ec_underlays_free(m->underlays);
	(void)ec_guard_free(m->guard);
	g_array_unref(m->doomed);
	g_hash_table_unref(m->capabilities);
	g_hash_table_unref(m->strangers);
	g_strfreev(m->capability_words);
	(void)sd_event_source_disable_unref(m->work);
	(void)sd_event_source_disable_unref(m->flush);
	(void)ec_kernel_watch_free(m->watch);
	(void)ec_kernel_free(m->kernel);
	(void)ec_store_free(m->store);
	if (m->lock_fd >= 0)
		(void)close(m->lock_fd);
	(void)sd_bus_unref(m->bus);
	(void)sd_event_unref(m->event);
	g_free(m);
	return NULL;
}
