/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "polkit.h"

#include <errno.h>

/*
 * DOC: Theory of operation
 *
 * A request goes through: a match on the sender leaving the bus; GetConnectionUnixUser, sent after
 * the match, so that a sender who left before the match was in place fails here; for uid 0 the
 * verdict; for everybody else CheckAuthorization per action with the sender's unique name as
 * subject (never a pid or uid, which could be somebody else's by the time polkit looks:
 * CVE-2021-3560). Whatever is not a clear yes is a no.
 *
 * Unique names are never used twice, so that one is root's is remembered.
 */

#define PENDING_MAX 256
#define PENDING_PER_SENDER_MAX 16
#define ROOT_NAMES_MAX 256
#define DIALOGUE_USEC (5 * 60 * 1000000ULL)

typedef struct Request {
	EcPolkit *polkit;
	sd_bus_message *call;
	const char *const *actions; /* those still to ask */
	char *tunnel;
	char *cancellation;
	bool asking; /* polkit has the question */
	EcVerdict verdict;
	void *userdata;
	sd_bus_slot *left;  /* match: the sender left */
	sd_bus_slot *reply; /* the call under way */
} Request;

struct EcPolkit {
	sd_bus *bus;
	GPtrArray *pending; /* Request */
	GHashTable *roots;  /* unique names of uid 0 */
	unsigned serial;
};

static void free_request(gpointer data)
{
	Request *q = data;

	(void)sd_bus_slot_unref(q->left);
	(void)sd_bus_slot_unref(q->reply);
	(void)sd_bus_message_unref(q->call);
	g_free(q->tunnel);
	g_free(q->cancellation);
	g_free(q);
}

EcPolkit *ec_polkit_new(sd_bus *bus)
{
	EcPolkit *p = g_new0(EcPolkit, 1);

	p->bus = bus;
	p->pending = g_ptr_array_new_with_free_func(free_request);
	p->roots = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	return p;
}

EcPolkit *ec_polkit_free(EcPolkit *p)
{
	if (!p)
		return NULL;
	g_ptr_array_unref(p->pending);
	g_hash_table_unref(p->roots);
	g_free(p);
	return NULL;
}

bool ec_polkit_is_idle(const EcPolkit *p)
{
	return p->pending->len == 0;
}

/* Ends the request; the callback runs after it is off the list, so it may ask again. */
static void conclude(Request *q, bool allowed, sd_bus_error *error)
{
	guint i;

	if (!g_ptr_array_find(q->polkit->pending, q, &i))
		return;
	(void)g_ptr_array_steal_index_fast(q->polkit->pending, i);
	q->verdict(q->call, allowed, error, q->userdata);
	free_request(q);
}

static void refuse(Request *q, const char *why)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;

	(void)ec_error(&error, EC_ERROR_NOT_AUTHORIZED, "%s", why);
	conclude(q, false, &error);
}

static int on_left(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	Request *q = userdata;
	const char *name, *old_owner, *new_owner;

	if (sd_bus_message_read(m, "sss", &name, &old_owner, &new_owner) < 0 || *new_owner)
		return 0;
	if (q->asking)
		(void)sd_bus_call_method_async(q->polkit->bus, NULL, "org.freedesktop.PolicyKit1",
				"/org/freedesktop/PolicyKit1/Authority",
				"org.freedesktop.PolicyKit1.Authority", "CancelCheckAuthorization",
				NULL, NULL, "s", q->cancellation);
	g_ptr_array_remove_fast(q->polkit->pending, q);
	return 0;
}

static int ask_next(Request *q);

static int on_checked(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	Request *q = userdata;
	int authorized = false, challenge = false;
	const sd_bus_error *e = sd_bus_message_get_error(m);

	if (e) {
		g_autofree char *why = g_strdup_printf(
				"polkit gave no answer, so the answer is no: %s", e->message);
		refuse(q, why);
	} else if (sd_bus_message_read(m, "(bba{ss})", &authorized, &challenge, 0) < 0 ||
			!authorized) {
		g_autofree char *why = g_strdup_printf("polkit does not allow %s%s", q->actions[0],
				challenge ? " without authentication" : "");
		refuse(q, why);
	} else {
		q->actions++;
		(void)ask_next(q);
	}
	return 0;
}

static int compose_check(Request *q, sd_bus_message **ret)
{
	g_autoptr(sd_bus_message) m = NULL;
	bool interactive = sd_bus_message_get_allow_interactive_authorization(q->call) > 0;
	int r = sd_bus_message_new_method_call(q->polkit->bus, &m, "org.freedesktop.PolicyKit1",
			"/org/freedesktop/PolicyKit1/Authority",
			"org.freedesktop.PolicyKit1.Authority", "CheckAuthorization");

	if (r >= 0)
		r = sd_bus_message_append(m, "(sa{sv})s", "system-bus-name", 1, "name", "s",
				sd_bus_message_get_sender(q->call), q->actions[0]);
	if (r >= 0 && q->tunnel)
		r = sd_bus_message_append(m, "a{ss}", 1, "tunnel", q->tunnel);
	else if (r >= 0)
		r = sd_bus_message_append(m, "a{ss}", 0);
	if (r >= 0)
		r = sd_bus_message_append(m, "us", interactive ? 1 : 0, q->cancellation);
	if (r >= 0)
		*ret = g_steal_pointer(&m);
	return r;
}

static int ask_next(Request *q)
{
	g_autoptr(sd_bus_message) m = NULL;

	if (!q->actions[0]) {
		conclude(q, true, NULL);
		return 0;
	}
	q->reply = sd_bus_slot_unref(q->reply);
	int r = compose_check(q, &m);
	if (r >= 0)
		r = sd_bus_call_async(q->polkit->bus, &q->reply, m, on_checked, q, DIALOGUE_USEC);
	q->asking = r >= 0;
	if (r < 0)
		refuse(q, "polkit cannot be asked, so the answer is no");
	return r;
}

static int on_user(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	Request *q = userdata;
	EcPolkit *p = q->polkit;
	uint32_t uid;

	if (sd_bus_message_get_error(m) || sd_bus_message_read(m, "u", &uid) < 0) {
		refuse(q, "the caller is not on the bus any more");
	} else if (uid == 0) {
		if (g_hash_table_size(p->roots) >= ROOT_NAMES_MAX)
			g_hash_table_remove_all(p->roots);
		g_hash_table_add(p->roots, g_strdup(sd_bus_message_get_sender(q->call)));
		conclude(q, true, NULL);
	} else {
		(void)ask_next(q);
	}
	return 0;
}

static int begin(Request *q)
{
	const char *sender = sd_bus_message_get_sender(q->call);
	g_autofree char *rule = g_strdup_printf(
			"type='signal',sender='org.freedesktop.DBus',path='/org/freedesktop/DBus',"
			"interface='org.freedesktop.DBus',member='NameOwnerChanged',arg0='%s'",
			sender);
	int r = sd_bus_add_match_async(q->polkit->bus, &q->left, rule, on_left, NULL, q);

	if (r < 0)
		return r;
	return sd_bus_call_method_async(q->polkit->bus, &q->reply, "org.freedesktop.DBus",
			"/org/freedesktop/DBus", "org.freedesktop.DBus", "GetConnectionUnixUser",
			on_user, q, "s", sender);
}

static bool too_many(const EcPolkit *p, const char *sender)
{
	unsigned n = 0;

	for (guint i = 0; i < p->pending->len; i++) {
		const Request *q = g_ptr_array_index(p->pending, i);

		n += g_str_equal(sd_bus_message_get_sender(q->call), sender);
	}
	return n >= PENDING_PER_SENDER_MAX || p->pending->len >= PENDING_MAX;
}

void ec_polkit_ask(EcPolkit *p, sd_bus_message *call, const char *const *actions,
		const char *tunnel, EcVerdict verdict, void *userdata)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	const char *sender = sd_bus_message_get_sender(call);

	if (g_hash_table_contains(p->roots, sender)) {
		verdict(call, true, NULL, userdata);
		return;
	}
	if (too_many(p, sender)) {
		(void)ec_error(&error, EC_ERROR_LIMIT_EXCEEDED,
				"too many calls wait for authorisation; wait for their answers");
		verdict(call, false, &error, userdata);
		return;
	}
	Request *q = g_new0(Request, 1);
	q->polkit = p;
	q->call = sd_bus_message_ref(call);
	q->actions = actions;
	q->tunnel = g_strdup(tunnel);
	q->cancellation = g_strdup_printf("ethercord-%u", p->serial++);
	q->verdict = verdict;
	q->userdata = userdata;
	g_ptr_array_add(p->pending, q);
	if (begin(q) < 0)
		refuse(q, "the bus cannot be asked who calls, so the answer is no");
}
