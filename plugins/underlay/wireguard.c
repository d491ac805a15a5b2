/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "underlay/wireguard.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/time_types.h>
#include <linux/wireguard.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <string.h>
#include <time.h>

#include "underlay.h"

/*
 * DOC: Theory of operation
 *
 * A WireGuard interface has many peers; which one a packet goes to is what the longest match among
 * the allowed-ips says, whatever the route. Without a match the kernel refuses the packet (ENOKEY),
 * and without an endpoint, too: so does through().
 *
 * There are no events: handshakes and roaming endpoints are seen by asking. That is done while a
 * tunnel rides on a WireGuard, and told only when something shown is other than before. An old
 * handshake is no fault: a WireGuard without traffic makes none. It is shown, nothing more. A flow
 * that was refused is asked for again now and then: endpoints come without an event, too.
 */

#define POLL_USEC 30000000ULL
#define POLL_WAITING_USEC 10000000ULL
#define POLL_ACCURACY_USEC 2000000ULL
#define DEVICES_MAX 64
#define REJECT_AFTER_TIME 180 /* s, of the protocol: keys older than that are not used */
#define TRIES 3

typedef struct Device {
	char *shown;      /* what was told of it and what decides flows, but for clocks */
	GHashTable *used; /* keys of peers that flows went to, base64 */
} Device;

typedef struct WireGuard {
	EcSource s;
	GHashTable *devices; /* ifindex -> Device */
	sd_event_source *timer;
	bool used;
	bool waiting; /* a flow was refused since the last poll */
} WireGuard;

/* Messages */

void ec_wg_device_init(EcWgDevice *d, const EcAddress *to)
{
	*d = (EcWgDevice){ .peer = -1, .peer_length = -1 };
	if (to)
		d->to = *to;
	d->peers = g_array_new(false, true, sizeof(EcWgPeer));
}

void ec_wg_device_done(EcWgDevice *d)
{
	g_clear_pointer(&d->peers, g_array_unref);
}

static bool is_inside(const EcAddress *a, const uint8_t *prefix, int length)
{
	int bytes = length / 8, bits = length % 8;

	return memcmp(a->bytes, prefix, (size_t)bytes) == 0 &&
	       (bits == 0 || (a->bytes[bytes] ^ prefix[bytes]) >> (8 - bits) == 0);
}

/* What decides about flows, whatever its order. */
static void digest(EcWgDevice *d, int peer, const struct nlattr *attribute)
{
	const EcWgPeer *p = &g_array_index(d->peers, EcWgPeer, peer);
	const uint8_t *data = nla_data(attribute);
	uint64_t h = 0xcbf29ce484222325; /* FNV-1a */

	for (int i = 0; i < EC_WG_KEY_SIZE; i++)
		h = (h ^ p->key[i]) * 0x100000001b3;
	h = (h ^ (p->endpoint[0] != '\0')) * 0x100000001b3;
	for (int i = 0; i < nla_len(attribute); i++)
		h = (h ^ data[i]) * 0x100000001b3;
	d->digest += h;
}

static int take_allowed_ip(EcWgDevice *d, struct nlattr *attribute, int peer)
{
	struct nlattr *tb[WGALLOWEDIP_A_MAX + 1];
	int size = (int)ec_address_size(&d->to);

	if (nla_parse_nested(tb, WGALLOWEDIP_A_MAX, attribute, NULL) < 0 ||
			!tb[WGALLOWEDIP_A_FAMILY] || nla_len(tb[WGALLOWEDIP_A_FAMILY]) < 2 ||
			!tb[WGALLOWEDIP_A_IPADDR] || !tb[WGALLOWEDIP_A_CIDR_MASK] ||
			nla_len(tb[WGALLOWEDIP_A_CIDR_MASK]) < 1)
		return -EBADMSG;
	digest(d, peer, attribute);
	if (nla_get_u16(tb[WGALLOWEDIP_A_FAMILY]) != d->to.family)
		return 0;
	int length = nla_get_u8(tb[WGALLOWEDIP_A_CIDR_MASK]);
	if (nla_len(tb[WGALLOWEDIP_A_IPADDR]) < size || length > size * 8)
		return -EBADMSG;
	if (length > d->peer_length &&
			is_inside(&d->to, nla_data(tb[WGALLOWEDIP_A_IPADDR]), length)) {
		d->peer = peer;
		d->peer_length = length;
	}
	return 0;
}

static int take_endpoint(EcWgPeer *peer, struct nlattr *attribute)
{
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} u = { 0 };
	char text[INET6_ADDRSTRLEN];
	EcAddress a = { 0 };

	if (nla_len(attribute) < (int)sizeof(u.v4))
		return -EBADMSG;
	memcpy(&u, nla_data(attribute), MIN((size_t)nla_len(attribute), sizeof(u)));
	a.family = u.any.sa_family;
	if (a.family == AF_INET6 && nla_len(attribute) >= (int)sizeof(u.v6))
		a.v6 = u.v6.sin6_addr;
	else if (a.family == AF_INET)
		a.v4 = u.v4.sin_addr;
	else
		return -EBADMSG;
	bool v6 = a.family == AF_INET6;
	(void)g_snprintf(peer->endpoint, sizeof(peer->endpoint), "%s%s%s:%u", v6 ? "[" : "",
			ec_address_to_string(&a, text), v6 ? "]" : "",
			ntohs(v6 ? u.v6.sin6_port : u.v4.sin_port));
	return 0;
}

/* The peer of that key: a long one is continued in the next message, which has no more than its key
 * and the rest of its allowed-ips. */
static int peer_index(EcWgDevice *d, const uint8_t *key)
{
	guint last = d->peers->len;

	if (last > 0 && memcmp(g_array_index(d->peers, EcWgPeer, last - 1).key, key,
					EC_WG_KEY_SIZE) == 0)
		return (int)last - 1;
	g_array_set_size(d->peers, last + 1);
	memcpy(g_array_index(d->peers, EcWgPeer, last).key, key, EC_WG_KEY_SIZE);
	return (int)last;
}

static int take_peer(EcWgDevice *d, struct nlattr *attribute)
{
	struct nlattr *tb[WGPEER_A_MAX + 1], *a;
	struct __kernel_timespec handshake;
	int rest, r = 0;

	if (nla_parse_nested(tb, WGPEER_A_MAX, attribute, NULL) < 0 || !tb[WGPEER_A_PUBLIC_KEY] ||
			nla_len(tb[WGPEER_A_PUBLIC_KEY]) < EC_WG_KEY_SIZE)
		return -EBADMSG;
	int index = peer_index(d, nla_data(tb[WGPEER_A_PUBLIC_KEY]));
	EcWgPeer *peer = &g_array_index(d->peers, EcWgPeer, index);
	if (tb[WGPEER_A_ENDPOINT])
		r = take_endpoint(peer, tb[WGPEER_A_ENDPOINT]);
	if (tb[WGPEER_A_LAST_HANDSHAKE_TIME]) {
		if (nla_len(tb[WGPEER_A_LAST_HANDSHAKE_TIME]) < (int)sizeof(handshake))
			return -EBADMSG;
		memcpy(&handshake, nla_data(tb[WGPEER_A_LAST_HANDSHAKE_TIME]), sizeof(handshake));
		peer->handshake = handshake.tv_sec;
	}
	if (!tb[WGPEER_A_ALLOWEDIPS])
		return r;
	nla_for_each_nested(a, tb[WGPEER_A_ALLOWEDIPS], rest)
	{
		int one = take_allowed_ip(d, a, index);
		r = r < 0 ? r : one;
	}
	return r;
}

int ec_wg_device_take(struct nlmsghdr *h, void *device)
{
	struct nlattr *tb[WGDEVICE_A_MAX + 1], *a;
	EcWgDevice *d = device;
	int rest, r = genlmsg_parse(h, 0, tb, WGDEVICE_A_MAX, NULL) < 0 ? -EBADMSG : 0;

	if (r >= 0 && tb[WGDEVICE_A_LISTEN_PORT]) {
		if (nla_len(tb[WGDEVICE_A_LISTEN_PORT]) < 2)
			r = -EBADMSG;
		else
			d->port = nla_get_u16(tb[WGDEVICE_A_LISTEN_PORT]);
	}
	if (r >= 0 && tb[WGDEVICE_A_PEERS]) {
		nla_for_each_nested(a, tb[WGDEVICE_A_PEERS], rest)
		{
			int one = take_peer(d, a);
			r = r < 0 ? r : one;
		}
	}
	if (r < 0)
		d->error = r;
	return r;
}

static int dump_on(struct nl_sock *sk, int ifindex, const EcAddress *to, EcWgDevice *ret,
		EcNetlinkAnswer *a)
{
	int id = genl_ctrl_resolve(sk, WG_GENL_NAME);
	g_autoptr(EcMessage) msg = nlmsg_alloc();

	if (id < 0)
		return -EOPNOTSUPP;
	ec_wg_device_init(ret, to);
	*a = (EcNetlinkAnswer){ .on_message = ec_wg_device_take, .userdata = ret };
	if (!msg ||
			!genlmsg_put(msg, NL_AUTO_PORT, NL_AUTO_SEQ, id, 0,
					NLM_F_REQUEST | NLM_F_DUMP, WG_CMD_GET_DEVICE,
					WG_GENL_VERSION) ||
			nla_put_u32(msg, WGDEVICE_A_IFINDEX, (uint32_t)ifindex) < 0)
		return -ENOBUFS;
	int r = ec_netlink_exchange(sk, msg, a);
	return r < 0 ? r : ret->error;
}

/* Asks the kernel; to: whose peer is looked for, or NULL. 0, or -errno with `a` filled; *ret is to
 * be freed in any case. A socket each time: after a change in mid-dump the old one holds the rest.
 */
static int dump(int ifindex, const EcAddress *to, EcWgDevice *ret, EcNetlinkAnswer *a)
{
	int r = -EINTR;

	*ret = (EcWgDevice){ 0 };
	for (int i = 0; i < TRIES && r == -EINTR; i++) {
		struct nl_sock *sk;

		*a = (EcNetlinkAnswer){ 0 };
		r = ec_netlink_open(NETLINK_GENERIC, &sk);
		if (r < 0)
			return r;
		ec_wg_device_done(ret);
		r = dump_on(sk, ifindex, to, ret, a);
		nl_socket_free(sk);
	}
	return r;
}

/* What is shown */

static char *key_text(const EcWgPeer *peer)
{
	return g_base64_encode(peer->key, EC_WG_KEY_SIZE);
}

static void free_device(gpointer p)
{
	Device *v = p;

	g_hash_table_unref(v->used);
	g_free(v->shown);
	g_free(v);
}

static Device *device_of(WireGuard *w, const EcLink *link)
{
	gpointer key = GINT_TO_POINTER(link->ifindex);
	Device *v = g_hash_table_lookup(w->devices, key);

	if (!v) {
		/* Those that are gone are not told of. */
		if (g_hash_table_size(w->devices) >= DEVICES_MAX)
			g_hash_table_remove_all(w->devices);
		v = g_new0(Device, 1);
		v->used = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
		g_hash_table_insert(w->devices, key, v);
	}
	return v;
}

/* The peer that is shown: of those that flows went to the one with the last handshake; the only
 * peer; or none. */
static const EcWgPeer *peer_to_show(const Device *v, const EcWgDevice *d)
{
	const EcWgPeer *best = NULL;

	for (guint i = 0; i < d->peers->len; i++) {
		const EcWgPeer *p = &g_array_index(d->peers, EcWgPeer, i);
		g_autofree char *key = key_text(p);

		if (d->peers->len > 1 && !g_hash_table_contains(v->used, key))
			continue;
		if (!best || p->handshake > best->handshake)
			best = p;
	}
	return best;
}

static const char *handshake_word(const EcWgPeer *peer)
{
	int64_t age = g_get_real_time() / G_USEC_PER_SEC - peer->handshake;

	return !peer->handshake ? "none" : age > REJECT_AFTER_TIME ? "old" : "recent";
}

/* Remembers what is shown, clocks aside; whether that is new. */
static bool remember(Device *v, const EcWgDevice *d)
{
	const EcWgPeer *p = peer_to_show(v, d);
	g_autofree char *key = p ? key_text(p) : NULL;
	g_autofree char *shown = g_strdup_printf("%u %" PRIx64 " %s %s %s", d->port, d->digest,
			p ? key : "", p ? p->endpoint : "", p ? handshake_word(p) : "");
	bool is_new = g_strcmp0(shown, v->shown) != 0;

	g_free(v->shown);
	v->shown = g_steal_pointer(&shown);
	return is_new;
}

static void add_details(const Device *v, const EcWgDevice *d, EcLook *look)
{
	const EcWgPeer *p = peer_to_show(v, d);

	ec_look_add(look, "listen-port", "%u", d->port);
	ec_look_add(look, "peers", "%u", d->peers->len);
	if (!p)
		return;
	g_autofree char *key = key_text(p);
	ec_look_add(look, "peer", "%s", key);
	if (p->endpoint[0])
		ec_look_add(look, "endpoint", "%s", p->endpoint);
	/* The time and not the age, which would be wrong as soon as it is told. */
	ec_look_add(look, "handshake", "%s", handshake_word(p));
	if (p->handshake)
		ec_look_add(look, "handshake-time", "%" PRIi64, p->handshake);
}

static bool recognise(EcSource *s, const EcLink *link, EcLook *look)
{
	g_auto(EcWgDevice) d = { 0 };
	EcNetlinkAnswer a;

	if (!g_str_equal(link->kind, "wireguard"))
		return false;
	(void)g_snprintf(look->title, sizeof(look->title), "WireGuard on %s", link->name);
	look->protect = true;
	look->up = link->flags & IFF_UP;
	look->mtu = link->mtu;
	Device *v = device_of((WireGuard *)s, link);
	if (dump(link->ifindex, NULL, &d, &a) >= 0) {
		(void)remember(v, &d);
		add_details(v, &d, look);
	}
	return true;
}

static void set_timer(WireGuard *w);

/* Shown from now on. */
static void use_peer(WireGuard *w, Device *v, const EcWgDevice *d, const EcWgPeer *peer)
{
	/* Peers that are gone do no harm, but are not gathered for ever. */
	if (g_hash_table_size(v->used) > d->peers->len)
		g_hash_table_remove_all(v->used);
	if (g_hash_table_add(v->used, key_text(peer)) && remember(v, d))
		ec_underlay_report(&w->s);
}

static int through(EcSource *s, const EcLink *link, const EcFlow *flow, EcPath *path,
		sd_bus_error *ret_why)
{
	WireGuard *w = (WireGuard *)s;
	g_auto(EcWgDevice) d = { 0 };
	char remote[INET6_ADDRSTRLEN];
	EcNetlinkAnswer a;
	int r = dump(link->ifindex, &flow->remote, &d, &a);

	(void)ec_address_to_string(&flow->remote, remote);
	if (r == -ENODEV) {
		(void)ec_error(ret_why, EC_ERROR_NO_UNDERLAY, "WireGuard on %s is gone",
				link->name);
		return 0;
	}
	if (r < 0)
		return ec_netlink_fail(r, &a, ret_why, "cannot ask WireGuard on %s for its peers",
				link->name);
	const EcWgPeer *peer = d.peer < 0 ? NULL : &g_array_index(d.peers, EcWgPeer, d.peer);
	if (peer)
		use_peer(w, device_of(w, link), &d, peer);
	if (peer && peer->endpoint[0])
		return 1;
	if (peer)
		(void)ec_error(ret_why, EC_ERROR_NO_UNDERLAY,
				"the WireGuard peer for %s on %s has no endpoint yet", remote,
				link->name);
	else
		(void)ec_error(ret_why, EC_ERROR_NO_UNDERLAY,
				"no peer of %s has %s in its allowed-ips", link->name, remote);
	w->waiting = true;
	set_timer(w);
	return 0;
}

/* Beginning and end */

static int on_poll(sd_event_source *timer, uint64_t usec, void *userdata)
{
	WireGuard *w = userdata;
	bool changed = w->waiting;
	GHashTableIter i;
	gpointer ifindex;
	Device *v;

	g_hash_table_iter_init(&i, w->devices);
	while (g_hash_table_iter_next(&i, &ifindex, (gpointer *)&v)) {
		g_auto(EcWgDevice) d = { 0 };
		EcNetlinkAnswer a;
		int r = dump(GPOINTER_TO_INT(ifindex), NULL, &d, &a);

		if (r >= 0)
			changed |= remember(v, &d);
		else if (r == -ENODEV)
			g_hash_table_iter_remove(&i);
	}
	/* A flow that still waits is asked for anew, and says so again. */
	w->waiting = false;
	w->timer = sd_event_source_disable_unref(w->timer);
	set_timer(w);
	if (changed)
		ec_underlay_report(&w->s);
	return 0;
}

static void set_timer(WireGuard *w)
{
	if (!w->used && !w->waiting)
		w->timer = sd_event_source_disable_unref(w->timer);
	else if (!w->timer && sd_event_add_time_relative(w->s.event, &w->timer, CLOCK_BOOTTIME,
					      w->waiting ? POLL_WAITING_USEC : POLL_USEC,
					      POLL_ACCURACY_USEC, on_poll, w) >= 0)
		(void)sd_event_source_set_description(w->timer, "wireguard-poll");
}

static void used(EcSource *s, bool used)
{
	WireGuard *w = (WireGuard *)s;

	w->used = used;
	set_timer(w);
}

static int watch(EcSource *s, sd_bus_error *ret_error)
{
	((WireGuard *)s)->devices = g_hash_table_new_full(NULL, NULL, NULL, free_device);
	return 0;
}

static void done(EcSource *s)
{
	WireGuard *w = (WireGuard *)s;

	w->timer = sd_event_source_disable_unref(w->timer);
	g_clear_pointer(&w->devices, g_hash_table_unref);
}

const EcUnderlayKind ec_underlay_wireguard = {
	.name = "wireguard",
	.size = sizeof(WireGuard),
	.watch = watch,
	.done = done,
	.recognise = recognise,
	.through = through,
	.used = used,
};
