/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "listener.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control-answer.h"
#include "log.h"
#include "manager.h"

const char *ec_listener_state_to_string(EcListenerState state)
{
	static const char *const word[] = { "down", "up", "failed" };

	static_assert(EC_ELEMENTS(word) == _EC_LISTENER_STATE_MAX, "a word per state");
	return word[state];
}

EcListener *ec_listener_new(EcManager *m, EcSettings *settings, GHashTable *peers, EcOrigin origin)
{
	EcListener *l = g_new0(EcListener, 1);

	l->manager = m;
	l->settings = settings;
	l->peers = peers;
	l->origin = origin;
	l->reason = g_intern_static_string("");
	l->sentence = g_strdup("");
	return l;
}

EcListener *ec_listener_free(EcListener *l)
{
	if (!l)
		return NULL;
	(void)sd_event_source_disable_unref(l->signal);
	(void)ec_settings_free(l->settings);
	g_hash_table_unref(l->peers);
	g_free(l->sentence);
	g_free(l);
	return NULL;
}

const char *ec_listener_name(const EcListener *l)
{
	return l->settings->name;
}

static bool is_given(const EcSettings *listener, const char *key)
{
	return ec_settings_is_given(listener, ec_setting_find_in(EC_SCOPE_LISTENER, key));
}

uint16_t ec_listener_port(const EcListener *l)
{
	return is_given(l->settings, "port") ? l->settings->port
					     : (uint16_t)l->manager->config.port;
}

unsigned ec_listener_count(const EcListener *l)
{
	GHashTableIter i;
	EcTunnel *t;
	unsigned n = 0;

	g_hash_table_iter_init(&i, l->manager->tunnels);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&t))
		n += t->listener == l;
	return n;
}

/* State and signals */

void ec_listener_signal(EcListener *l)
{
	const EcManagerObserver *o = &l->manager->observer;

	if (l->announced && l->changed && o->listener_changed)
		o->listener_changed(l, l->changed, o->userdata);
	l->changed = 0;
}

static int on_signal(sd_event_source *s, void *userdata)
{
	ec_listener_signal(userdata);
	return 0;
}

void ec_listener_touch(EcListener *l, unsigned properties)
{
	l->changed |= properties;
	if (l->signal)
		(void)sd_event_source_set_enabled(l->signal, SD_EVENT_ONESHOT);
	else
		(void)sd_event_add_defer(l->manager->event, &l->signal, on_signal, l);
}

void ec_listener_set_state(
		EcListener *l, EcListenerState state, const char *reason, const char *sentence)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;

	if (l->asked && !l->wanted && ec_settings_check_supported(l->settings, &error) < 0) {
		state = EC_LISTENER_FAILED;
		reason = ec_error_token(&error);
		sentence = error.message;
	}
	if (l->state == state && g_str_equal(l->reason, reason) &&
			g_str_equal(l->sentence, sentence))
		return;
	l->state = state;
	l->reason = g_intern_string(reason);
	g_free(l->sentence);
	l->sentence = g_strdup(sentence);
	ec_log(state == EC_LISTENER_FAILED ? LOG_WARNING : LOG_INFO, "listener %s: %s%s%s",
			ec_listener_name(l), ec_listener_state_to_string(state),
			*sentence ? ": " : "", sentence);
	ec_listener_touch(l, EC_LISTENER_STATE);
}

/* One that does what autostart says needs no record. */
static void record(const EcListener *l)
{
	g_autofree char *name = ec_store_listener_record(ec_listener_name(l));

	ec_store_set_record(l->manager->store, name,
			(EcRecord){
					.known = l->asked != l->settings->autostart,
					.wanted = l->asked,
			});
}

void ec_listener_ask(EcListener *l, bool asked)
{
	l->asked = asked;
	l->wanted = asked && ec_settings_check_supported(l->settings, NULL) >= 0;
}

int ec_listener_activate(EcListener *l, sd_bus_error *ret_error)
{
	int r = 0;

	ec_listener_ask(l, true);
	record(l);
	ec_answer_refresh(l->manager->answer);
	if (l->state == EC_LISTENER_FAILED) {
		g_autofree char *name = g_strconcat(EC_ERROR_PREFIX, l->reason, NULL);
		r = ec_error(ret_error, name, "%s", l->sentence);
	}
	ec_listener_signal(l);
	return r;
}

void ec_listener_deactivate(EcListener *l)
{
	ec_listener_ask(l, false);
	record(l);
	ec_answer_refresh(l->manager->answer);
	ec_listener_set_state(l, EC_LISTENER_DOWN, "", "");
	ec_listener_signal(l);
}

/* Who may come in */

static bool is_within(const EcAddress *a, const char *cidr)
{
	EcAddress network;
	unsigned length;

	if (ec_cidr_from_string(cidr, &network, &length) < 0 || network.family != a->family)
		return false;
	unsigned bytes = length / 8, bits = length % 8;
	if (memcmp(a->bytes, network.bytes, bytes) != 0)
		return false;
	return bits == 0 || (a->bytes[bytes] ^ network.bytes[bytes]) >> (8 - bits) == 0;
}

static bool is_in_list(const EcAddress *a, char *const *allow)
{
	for (; allow && *allow; allow++) {
		if (is_within(a, *allow))
			return true;
	}
	return false;
}

/* peer may be NULL: whoever has no settings of its own. */
static bool allows(const EcListener *l, const EcSettings *peer, const EcAddress *from, bool keyless)
{
	char *const *allow = peer && peer->allow ? peer->allow : l->settings->allow;

	return allow ? is_in_list(from, allow) : !keyless;
}

bool ec_listener_allows(const EcListener *l, const char *peer, const EcAddress *from, bool keyless)
{
	GHashTableIter i;
	const EcSettings *s;

	if (peer)
		return allows(l, g_hash_table_lookup(l->peers, peer), from, keyless);
	if (allows(l, NULL, from, keyless))
		return true;
	g_hash_table_iter_init(&i, l->peers);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&s)) {
		if (allows(l, s, from, keyless))
			return true;
	}
	return false;
}

/* A key that cannot be read must not open the door that stands open without one. */
EcListenerKey ec_listener_key(EcListener *l, const char *peer, uint8_t ret[static 32])
{
	EcStore *store = l->manager->store;
	bool known = g_hash_table_contains(l->peers, peer);
	int r = known ? ec_store_get_listener_key(store, ec_listener_name(l), peer, ret) : 0;

	if (r == 0)
		r = ec_store_get_listener_key(store, ec_listener_name(l), NULL, ret);
	if (r < 0)
		ec_log(LOG_ERR, "listener %s: the key for peer %s cannot be read: %s",
				ec_listener_name(l), peer, g_strerror(-r));
	if (r != 0)
		return r > 0 ? EC_LISTENER_KEY_FOUND : EC_LISTENER_KEY_UNKNOWN;
	return known || l->settings->allow ? EC_LISTENER_KEY_NONE : EC_LISTENER_KEY_UNKNOWN;
}

int ec_listener_check_mode(const EcSettings *listener, const EcSettings *peer, EcMode mode,
		sd_bus_error *ret_error)
{
	const char *bridge = peer && peer->bridge ? peer->bridge : listener->bridge;
	const char *word = ec_settings_word("mode", (int)mode);

	if (is_given(listener, "mode") && (EcMode)listener->mode != mode)
		return ec_error(ret_error, EC_ERROR_REFUSED,
				"listener %s takes mode=%s only, not mode=%s; dial with that one",
				listener->name, ec_settings_word("mode", listener->mode), word);
	if (mode == EC_MODE_POINT_TO_POINT && bridge)
		return ec_error(ret_error, EC_ERROR_REFUSED,
				"listener %s joins bridge %s, and mode=%s bridges neither end; dial "
				"with mode=join-remote or mode=join-networks",
				listener->name, bridge, word);
	if (mode != EC_MODE_POINT_TO_POINT && !bridge)
		return ec_error(ret_error, EC_ERROR_REFUSED,
				"listener %s joins no bridge, which mode=%s needs; give it bridge=NAME, "
				"or dial with mode=point-to-point",
				listener->name, word);
	return 0;
}

/* The tunnel of an accepted peer */

/* Nobody's name, or that of this peer's tunnel. */
static bool is_own(EcListener *l, const char *name, const char *peer)
{
	const EcTunnel *t = ec_manager_find(l->manager, name);

	return t ? t->listener == l && g_strcmp0(t->settings->identity, peer) == 0
		 : !ec_manager_find_listener(l->manager, name);
}

/* "LISTENER.PEER", cut where that is too long and ending in a hash of it. */
static char *tunnel_name(EcListener *l, const char *peer)
{
	g_autofree char *full = g_strconcat(ec_listener_name(l), ".", peer, NULL);
	g_autofree char *name = g_strdup(full);

	for (unsigned salt = 0; !ec_name_is_valid(name) || !is_own(l, name, peer); salt++) {
		g_autofree char *text = g_strdup_printf("%s/%u", full, salt);

		g_free(name);
		name = g_strdup_printf("%.56s-%05x", full, g_str_hash(text) & 0xfffff);
	}
	return g_steal_pointer(&name);
}

/* Free, or what an earlier daemon left of the very tunnel. */
static bool is_available(EcManager *m, const char *ifname, const char *tunnel)
{
	g_autofree char *alias = g_strconcat(EC_ALIAS_PREFIX, tunnel, NULL);
	g_auto(EcLink) link = { 0 };
	const EcTunnel *own = ec_manager_find(m, tunnel);

	if (ec_manager_ifname_taken(m, ifname, own))
		return false;
	return ec_kernel_link_by_name(m->kernel, ifname, &link, NULL) == 0 ||
	       g_str_equal(link.alias, alias);
}

static char *number_ifname(EcManager *m, const char *pattern, const char *tunnel)
{
	g_auto(GStrv) part = g_strsplit(pattern, "%n", 2);

	if (!part[1])
		return g_strdup(pattern);
	for (unsigned n = 0; n <= 9999; n++) {
		g_autofree char *ifname = g_strdup_printf("%s%u%s", part[0], n, part[1]);
		if (is_available(m, ifname, tunnel))
			return g_steal_pointer(&ifname);
	}
	return NULL;
}

/* "ec-PEER", or where that is too long or taken "ec-PEE-HHHHH" with a hash, as tunnels do it. */
static char *peer_ifname(EcManager *m, const char *peer, const char *tunnel)
{
	g_autofree char *ifname = g_strconcat("ec-", peer, NULL);

	for (unsigned salt = 0; !ec_ifname_is_valid(ifname) || !is_available(m, ifname, tunnel);
			salt++) {
		g_autofree char *text = g_strdup_printf("%s/%u", tunnel, salt);

		g_free(ifname);
		ifname = g_strdup_printf("ec-%.6s-%05x", peer, g_str_hash(text) & 0xfffff);
	}
	return g_steal_pointer(&ifname);
}

static int take_interface(EcListener *l, const char *peer, EcSettings *s, sd_bus_error *ret_error)
{
	EcManager *m = l->manager;
	const EcTunnel *own = ec_manager_find(m, s->name);
	const char *pattern = l->settings->interface;
	g_autofree char *ifname = s->interface ? g_strdup(s->interface)
				  : own        ? g_strdup(own->ifname)
				  : pattern    ? number_ifname(m, pattern, s->name)
					       : peer_ifname(m, peer, s->name);

	if (!ifname || ec_manager_ifname_taken(m, ifname, own))
		return ec_error(ret_error, EC_ERROR_NAME_TAKEN,
				"interface %s of listener %s: all its names are taken",
				ifname ? ifname : pattern, ec_listener_name(l));
	return ec_settings_parse(s, "interface", ifname, ret_error);
}

/* Those that are the listener's own affair, or are settled otherwise. */
static bool is_inherited(const char *key)
{
	static const char *const own[] = { "name", "mode", "port", "key", "interface", "autostart",
		NULL };

	return !g_strv_contains(own, key);
}

EcSettings *ec_listener_tunnel_settings(EcListener *l, const char *peer, const EcAddress *from,
		EcMode mode, sd_bus_error *ret_error)
{
	const EcSettings *own = g_hash_table_lookup(l->peers, peer);
	g_autoptr(EcSettings) s = ec_settings_new();
	g_autofree char *name = tunnel_name(l, peer);
	char remote[INET6_ADDRSTRLEN];
	size_t n;
	const EcSetting *table = ec_settings_table(&n);
	int r = ec_listener_check_mode(l->settings, own, mode, ret_error);

	for (size_t i = 0; r >= 0 && i < n; i++) {
		const char *key = table[i].key;

		if (!(table[i].scopes & EC_SCOPE_TUNNEL))
			continue;
		if (is_inherited(key))
			r = ec_settings_take(s, l->settings, key);
		if (r >= 0 && own && !(table[i].flags & EC_SETTING_SECRET))
			r = ec_settings_take(s, own, key);
	}
	if (r >= 0)
		r = ec_settings_parse(s, "name", name, ret_error);
	if (r >= 0)
		r = ec_settings_parse(s, "mode", ec_settings_word("mode", (int)mode), ret_error);
	if (r >= 0)
		r = ec_settings_parse(s, "remote", ec_address_to_string(from, remote), ret_error);
	if (r >= 0)
		r = ec_settings_parse(s, "identity", peer, ret_error);
	if (r >= 0)
		r = take_interface(l, peer, s, ret_error);
	if (r >= 0)
		r = ec_settings_verify(s, ret_error);
	return r < 0 ? NULL : g_steal_pointer(&s);
}
