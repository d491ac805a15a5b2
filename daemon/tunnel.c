/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tunnel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bridge.h"
#include "control-answer.h"
#include "control.h"
#include "log.h"
#include "manager.h"
#include "path.h"
#include "reconcile.h"
#include "worker-host.h"

/*
 * DOC: Theory of operation
 *
 * A tunnel is settings plus a wish (wanted) plus a state. Whatever happens - Activate, an event of
 * the kernel, a name that resolved, new settings - ends in run(): resolve the peer if need be, let
 * ec_reconcile() make the kernel match, and set the state by its result. There is no other way into
 * a state, so there is no event that a state could forget to handle.
 *
 * With control=ethercord a session (control.c) stands between: it dials, agrees, and has
 * ec_reconcile() work by what was agreed. Its phase is the state then; ec_tunnel_look() and
 * ec_tunnel_refresh() are how it tells.
 *
 * A tunnel that waits or failed keeps its interface, down, and its fence: a bridge port and its
 * settings survive an outage of the VPN, and nothing can leave. With a session it is not taken down
 * while it waits but loses its carrier.
 *
 * Changes of properties gather in `changed` and are signalled once at the end of each entry point.
 */

#define RETRY_USEC 1000000ULL

const char *ec_state_to_string(EcState state)
{
	static const char *const word[] = { "down", "waiting", "connecting", "up", "degraded",
		"failed" };

	static_assert(EC_ELEMENTS(word) == _EC_STATE_MAX, "a word per state");
	return word[state];
}

static uint64_t now_usec(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* The one writer of the state. sentence is copied; reason is a constant or interned. */
static void set_state(EcTunnel *t, EcState state, const char *reason, const char *sentence)
{
	if (t->state == state && g_str_equal(t->reason, reason) &&
			g_str_equal(t->sentence, sentence))
		return;
	if (t->state != state)
		t->since_usec = now_usec();
	t->state = state;
	t->reason = g_intern_string(reason);
	g_free(t->sentence);
	t->sentence = g_strdup(sentence);
	ec_log_tunnel(state == EC_STATE_FAILED ? LOG_WARNING : LOG_INFO, t, "%s%s%s",
			ec_state_to_string(state), *sentence ? ": " : "", sentence);
	ec_tunnel_touch(t, EC_PROPERTY_STATE);
}

const char *ec_tunnel_name(const EcTunnel *t)
{
	return t->settings->name;
}

char *ec_tunnel_alias(const EcTunnel *t)
{
	return g_strconcat(EC_ALIAS_PREFIX, t->settings->name, NULL);
}

void ec_tunnel_touch(EcTunnel *t, unsigned properties)
{
	t->changed |= properties;
}

const EcSettings *ec_tunnel_terms(const EcTunnel *t)
{
	return t->session && t->session->terms ? t->session->terms : t->settings;
}

void ec_tunnel_event(EcTunnel *t, const char *kind, ...)
{
	const EcManagerObserver *o = &t->manager->observer;
	g_autoptr(GPtrArray) pairs = g_ptr_array_new();
	const char *word;
	va_list words;

	va_start(words, kind);
	while ((word = va_arg(words, const char *)))
		g_ptr_array_add(pairs, (gpointer)word);
	va_end(words);
	g_ptr_array_add(pairs, NULL);
	if (t->announced && o->event)
		o->event(t, kind, (const char *const *)pairs->pdata, o->userdata);
}

/* A tunnel that does what autostart says needs no record, nor one that a listener made. */
void ec_tunnel_record(const EcTunnel *t)
{
	if (t->listener)
		return;
	ec_store_set_record(t->manager->store, ec_tunnel_name(t),
			(EcRecord){
					.known = t->attached || t->wanted != t->settings->autostart,
					.wanted = t->wanted,
					.attached = t->attached,
			});
}

static void signal_changes(EcTunnel *t)
{
	const EcManagerObserver *o = &t->manager->observer;

	if (t->announced && t->changed && o->changed)
		o->changed(t, t->changed, o->userdata);
	t->changed = 0;
}

/* "ec-NAME", or where that is too long "ec-NAM-HHHHH" with a hash of the name; then the next hash
 * until no other tunnel has it. */
static void choose_ifname(EcTunnel *t)
{
	const char *name = ec_tunnel_name(t);
	unsigned salt = 0;

	if (t->settings->interface) {
		g_strlcpy(t->ifname, t->settings->interface, sizeof(t->ifname));
		return;
	}
	g_snprintf(t->ifname, sizeof(t->ifname), "ec-%s", name);
	while (strlen(name) > sizeof(t->ifname) - 1 - 3 || salt > 0) {
		g_autofree char *text = g_strdup_printf("%s/%u", name, salt++);
		g_snprintf(t->ifname, sizeof(t->ifname), "ec-%.6s-%05x", name,
				g_str_hash(text) & 0xfffff);
		if (!ec_manager_ifname_taken(t->manager, t->ifname, t))
			break;
	}
}

/* Addresses alone need no lookup. */
static void forget_remote(EcTunnel *t)
{
	char *const *remote = t->settings->remote;
	size_t known = 0;

	t->resolve = ec_resolve_free(t->resolve);
	t->retry = sd_event_source_disable_unref(t->retry);
	t->attempts = 0;
	t->remote = t->roamed = (EcAddress){ 0 };
	t->remote_port = 0;
	t->n_remotes = 0;
	g_clear_pointer(&t->remotes, g_free);
	ec_tunnel_touch(t, EC_PROPERTY_REMOTE);
	if (!remote) /* a client will come */
		return;
	size_t n = g_strv_length((char **)remote);
	g_autofree EcAddress *addresses = g_new0(EcAddress, n);
	while (known < n && ec_address_from_string(remote[known], &addresses[known]) == 0)
		known++;
	if (known == n) {
		t->n_remotes = n;
		t->remote = addresses[0];
		t->remotes = g_steal_pointer(&addresses);
	}
}

EcTunnel *ec_tunnel_new(EcManager *m, EcSettings *settings, EcOrigin origin)
{
	EcTunnel *t = g_new0(EcTunnel, 1);

	t->manager = m;
	t->settings = settings;
	t->origin = origin;
	t->mss4 = UINT16_MAX; /* not known: an earlier daemon may have left a clamp */
	t->reason = g_intern_static_string("");
	t->sentence = g_strdup("");
	t->since_usec = now_usec();
	choose_ifname(t);
	forget_remote(t);
	return t;
}

EcTunnel *ec_tunnel_free(EcTunnel *t)
{
	if (!t)
		return NULL;
	(void)ec_binding_free(t->binding);
	(void)ec_session_free(t->session);
	if (t->ifindex)
		g_hash_table_remove(t->manager->by_ifindex, GINT_TO_POINTER(t->ifindex));
	(void)ec_worker_host_free(t->worker);
	(void)ec_resolve_free(t->resolve);
	(void)sd_event_source_disable_unref(t->retry);
	if (t->underlay)
		ec_underlays_release(t->manager->underlays, t->underlay);
	(void)ec_settings_free(t->settings);
	g_free(t->remotes);
	g_free(t->peer);
	g_clear_pointer(&t->asked, g_bytes_unref);
	g_clear_pointer(&t->settled, g_bytes_unref);
	g_free(t->sentence);
	g_free(t);
	return NULL;
}

static int on_retry(sd_event_source *s, uint64_t usec, void *userdata)
{
	EcTunnel *t = userdata;

	t->retry = sd_event_source_disable_unref(t->retry);
	ec_tunnel_refresh(t);
	return 0;
}

void ec_tunnel_try_again(EcTunnel *t)
{
	if (!t->retry)
		(void)sd_event_add_time_relative(t->manager->event, &t->retry, CLOCK_BOOTTIME,
				RETRY_USEC, 0, on_retry, t);
}

static void retry_later(EcTunnel *t)
{
	uint64_t usec = ec_jitter_usec(ec_backoff_usec(t->attempts));

	t->retry = sd_event_source_disable_unref(t->retry);
	(void)sd_event_add_time_relative(
			t->manager->event, &t->retry, CLOCK_BOOTTIME, usec, 0, on_retry, t);
}

static void take_addresses(EcTunnel *t, const EcAddress *addresses, size_t n)
{
	if (n == t->n_remotes && memcmp(addresses, t->remotes, n * sizeof(*addresses)) == 0)
		return;
	g_free(t->remotes);
	t->remotes = g_memdup2(addresses, n * sizeof(*addresses));
	t->n_remotes = n;
	t->turn = 0;
	if (t->session)
		ec_session_hurry(t->session);
}

static void on_resolved(const EcAddress *addresses, size_t n, void *userdata)
{
	EcTunnel *t = userdata;

	t->resolve = ec_resolve_free(t->resolve);
	if (n > 0) {
		t->attempts = 0;
		take_addresses(t, addresses, n);
	} else if (t->n_remotes == 0) {
		t->attempts++;
		retry_later(t);
	}
	ec_tunnel_refresh(t);
}

static int look_up(EcTunnel *t, sd_bus_error *ret_error)
{
	EcAddress local = { 0 };

	if (t->settings->local)
		(void)ec_address_from_string(t->settings->local, &local);
	int r = ec_resolve_new(t->manager->event, t->settings->remote, local.family, on_resolved, t,
			&t->resolve);
	if (r < 0)
		(void)ec_error(ret_error, EC_ERROR_PEER_UNREACHABLE, "cannot look up %s: %s",
				t->settings->remote[0], g_strerror(-r));
	return r;
}

static int resolve(EcTunnel *t, sd_bus_error *ret_error)
{
	bool known = t->n_remotes > 0 || ec_tunnel_awaits_client(t);

	return known || t->resolve || t->retry ? 0 : look_up(t, ret_error);
}

void ec_tunnel_resolve_again(EcTunnel *t)
{
	if (!t->resolve)
		(void)look_up(t, NULL);
}

/* A session if the settings ask for one. */
static void settle_session(EcTunnel *t)
{
	bool wanted = t->settings->control == EC_CONTROL_ETHERCORD;

	if (wanted && !t->session) {
		t->session = ec_session_new(t);
		ec_answer_refresh(t->manager->answer);
	} else if (!wanted && t->session) {
		ec_session_end(t->session);
		t->session = ec_session_free(t->session);
		ec_answer_refresh(t->manager->answer);
	}
}

/* One round for a wanted tunnel, by ec_reconcile()'s convention. */
static int attempt(EcTunnel *t, sd_bus_error *ret_error)
{
	int r = ec_settings_check_supported(t->settings, ret_error);

	/* What is named is shown even while there is nothing. */
	if (r >= 0 && !t->underlay)
		ec_path_ride(t, ec_underlays_named(t->manager->underlays, t->settings->underlay));
	if (r >= 0)
		r = resolve(t, ret_error);
	if (r < 0)
		return r;
	settle_session(t);
	return t->session ? ec_session_attempt(t->session, ret_error) : ec_reconcile(t, ret_error);
}

/* Enters the state that an attempt led to. */
static void settle(EcTunnel *t, int r, const sd_bus_error *error)
{
	const char *token = "", *sentence = "";

	if (r > 0) {
		EcState state = t->session ? ec_session_state(t->session, &token, &sentence)
					   : EC_STATE_UP;

		if (t->settings->roam) {
			token = "Unauthenticated";
			sentence = ec_tunnel_awaits_client(t)
						   ? "nobody has come yet; whoever sends first is "
						     "taken for the peer, nobody asks who it is"
						   : "whoever sends last is taken for the peer, "
						     "nobody asks who it is";
		}

		if (t->session && !t->session->agreement.encap)
			ec_reconcile_lower(t);
		set_state(t, state, token, sentence);
		return;
	}
	/* A cord that is only cut off for a while keeps addresses and routes as well. */
	bool kept = r == 0 && t->session && t->session->agreement.encap;
	if (kept && ec_session_is_dormant(t->session))
		ec_reconcile_dim(t);
	else if (!kept)
		ec_reconcile_lower(t);
	set_state(t, r == 0 ? EC_STATE_WAITING : EC_STATE_FAILED, ec_error_token(error),
			error->message ? error->message : g_strerror(-r));
}

static void run(EcTunnel *t, sd_bus_error *ret_error)
{
	int r = attempt(t, ret_error);

	settle(t, r, ret_error);
}

/* The caller's copy of an error that also became a reason. */
static int pass_on(const EcTunnel *t, sd_bus_error *error, sd_bus_error *ret_error)
{
	if (t->state != EC_STATE_FAILED)
		return 0;
	if (!sd_bus_error_is_set(error)) { /* the session's reason */
		g_autofree char *name = g_strconcat(EC_ERROR_PREFIX, t->reason, NULL);

		return ec_error(ret_error, name, "%s", t->sentence);
	}
	(void)sd_bus_error_copy(ret_error, error);
	return -sd_bus_error_get_errno(error);
}

int ec_tunnel_activate(EcTunnel *t, sd_bus_error *ret_error)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;

	ec_manager_flush(t->manager);
	if (!t->wanted) {
		t->wanted = true;
		ec_tunnel_record(t);
		ec_answer_refresh(t->manager->answer);
	}
	if (t->session)
		ec_session_hurry(t->session);
	run(t, &error);
	signal_changes(t);
	return pass_on(t, &error, ret_error);
}

void ec_tunnel_drop(EcTunnel *t)
{
	if (!t->wanted)
		return;
	t->wanted = false;
	if (t->session)
		ec_session_end(t->session);
	ec_reconcile_undo(t);
	forget_remote(t);
	ec_path_ride(t, NULL);
	set_state(t, EC_STATE_DOWN, "", "");
}

void ec_tunnel_deactivate(EcTunnel *t)
{
	ec_tunnel_drop(t);
	ec_tunnel_record(t);
	signal_changes(t);
}

void ec_tunnel_refresh(EcTunnel *t)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;

	t->dirty = t->suspect = false;
	if (t->wanted)
		run(t, &error);
	signal_changes(t);
}

void ec_tunnel_look(EcTunnel *t)
{
	if (t->wanted && t->state != EC_STATE_WAITING)
		settle(t, 1, NULL);
	signal_changes(t);
}

void ec_tunnel_move(EcTunnel *t, const EcAddress *remote)
{
	char text[INET6_ADDRSTRLEN];
	size_t i = 0;

	while (i < t->n_remotes && !ec_address_equal(&t->remotes[i], remote))
		i++;
	if (i == t->n_remotes) {
		g_free(t->remotes);
		t->remotes = g_memdup2(remote, sizeof(*remote));
		t->n_remotes = 1;
		i = 0;
	}
	t->turn = i;
	t->remote = *remote;
	ec_address_to_string(remote, text);
	if (t->listener) {
		g_strfreev(t->settings->remote);
		t->settings->remote = g_strdupv((char *[]){ text, NULL });
		ec_tunnel_touch(t, EC_PROPERTY_SETTINGS);
	}
	ec_tunnel_touch(t, EC_PROPERTY_REMOTE);
}

bool ec_tunnel_awaits_client(const EcTunnel *t)
{
	return t->settings->roam && t->n_remotes == 0 && !t->settings->remote;
}

const EcAddress *ec_tunnel_data_remote(const EcTunnel *t)
{
	return t->roamed.family != AF_UNSPEC ? &t->roamed : &t->remote;
}

void ec_tunnel_follow(EcTunnel *t, const EcAddress *remote, uint16_t port)
{
	char text[INET6_ADDRSTRLEN];
	g_autofree char *number = g_strdup_printf("%u", port);

	if (t->remote_port == port && ec_address_equal(ec_tunnel_data_remote(t), remote))
		return;
	if (t->path.protect && t->settings->remote) {
		t->roamed = *remote;
	} else {
		g_free(t->remotes);
		t->remotes = g_memdup2(remote, sizeof(*remote));
		t->n_remotes = 1;
		t->turn = 0;
		t->remote = *remote;
	}
	t->remote_port = port;
	ec_address_to_string(remote, text);
	ec_log_tunnel(LOG_NOTICE, t,
			"%s port %s is the peer now: it sent last, nobody asked who it is", text,
			number);
	ec_tunnel_touch(t, EC_PROPERTY_REMOTE);
	ec_tunnel_event(t, "peer-moved", "address", text, "port", number, NULL);
	ec_manager_mark(t->manager, t);
}

static void remove_addresses(EcTunnel *t, char *const *addresses, char *const *but)
{
	for (; addresses && *addresses; addresses++) {
		EcAddress address = { 0 };
		unsigned length = 0;

		if (but && g_strv_contains((const char *const *)but, *addresses))
			continue;
		(void)ec_cidr_from_string(*addresses, &address, &length);
		(void)ec_kernel_address_set(
				t->manager->kernel, t->ifindex, &address, length, false, NULL);
	}
}

static bool is_same(const char *a, const char *b)
{
	return g_strcmp0(a, b) == 0;
}

/* Puts `to` in the place of the settings in force and tries. Frees nothing: the caller holds both.
 */
static int try_settings(EcTunnel *t, EcSettings *to, sd_bus_error *ret_error)
{
	EcSettings *from = t->settings;

	t->settings = to;
	if (!is_same(from->interface, to->interface))
		choose_ifname(t);
	if (ec_settings_differ(from, to, ec_setting_find("remote")) ||
			!is_same(from->local, to->local))
		forget_remote(t);
	if (!is_same(from->underlay, to->underlay))
		ec_path_ride(t, NULL);
	if (t->session && ec_settings_differ(from, to, ec_setting_find("remote")))
		ec_session_end(t->session);
	else if (t->session)
		ec_session_resettle(t->session);
	return t->wanted ? attempt(t, ret_error) : 0;
}

/* Puts back what `from` had made and the settings in force have no use for. attached: its `attach`
 * was put in its bridge by us. */
static void clear_up(EcTunnel *t, const EcSettings *from, bool attached)
{
	const EcSettings *to = t->settings;
	bool other_bridge = !is_same(from->bridge, to->bridge);

	if (t->ifindex)
		remove_addresses(t, from->address, to->address);
	if (attached && (other_bridge || !is_same(from->attach, to->attach)))
		ec_bridge_detach(t->manager->kernel, from->attach, from->bridge);
	else
		t->attached = t->attached || attached;
	if (from->bridge && other_bridge)
		ec_reconcile_leave_bridge(t, from->bridge);
	ec_tunnel_record(t);
}

/* An interface that is to move to another bridge has to leave the one it is in first. */
static bool take_attached(EcTunnel *t, const EcSettings *to)
{
	bool attached = t->attached;

	t->attached = false;
	if (attached && !is_same(t->settings->bridge, to->bridge)) {
		ec_bridge_detach(t->manager->kernel, t->settings->attach, t->settings->bridge);
		return false;
	}
	return attached;
}

int ec_tunnel_update(EcTunnel *t, EcSettings *settings, sd_bus_error *ret_error)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL, ignored = SD_BUS_ERROR_NULL;
	bool nothing_to_lose = t->state == EC_STATE_FAILED || !t->wanted;
	bool attached = take_attached(t, settings);
	EcSettings *old = t->settings;
	int r = try_settings(t, settings, &error);

	if (r < 0 && !nothing_to_lose) {
		bool tried = t->attached;

		t->attached = attached;
		settle(t, try_settings(t, old, &ignored), &ignored);
		clear_up(t, settings, tried);
		(void)ec_settings_free(settings);
		(void)sd_bus_error_move(ret_error, &error);
		signal_changes(t);
		return r;
	}
	clear_up(t, old, attached);
	if (t->wanted)
		settle(t, r, &error);
	(void)ec_settings_free(old);
	ec_tunnel_touch(t, EC_PROPERTY_SETTINGS | EC_PROPERTY_MODE | EC_PROPERTY_INTERFACE |
					   EC_PROPERTY_BRIDGE | EC_PROPERTY_FIDELITY);
	signal_changes(t);
	return 0;
}
