/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "polkit.h"

#include <errno.h>

/*
 * DOC: Theory of operation
 *
 * A caller is looked up once: first a match on it leaving the bus, then GetConnectionUnixUser, so
 * that one who left before the match was in place fails there. Its calls wait in order meanwhile
 * and are answered in order. Unique names are never used twice, so that a name is root's is
 * remembered.
 *
 * For everybody but root each call then asks CheckAuthorization per action, with the caller's
 * unique name as subject (never a pid or uid, which could be somebody else's by the time polkit
 * looks: CVE-2021-3560). Whatever is not a clear yes is a no. A caller that leaves takes its calls
 * with it.
 */

#define ASKING_MAX 256
#define ASKING_PER_CALLER_MAX 16
#define CALLERS_MAX 1024
#define DIALOGUE_USEC 300000000ULL /* 5 minutes */

typedef struct Caller {
	EcPolkit *polkit;
	char *name; /* unique */
	bool known, root;
	sd_bus_slot *left;  /* match: it left */
	sd_bus_slot *reply; /* GetConnectionUnixUser */
	GPtrArray *calls;   /* Call, in the order they came */
} Caller;

typedef struct Call {
	Caller *caller;
	sd_bus_message *message;
	const char *const *actions; /* those still to ask */
	char *tunnel;
	char *cancellation; /* polkit's handle of our question; NULL before it is asked */
	EcVerdict verdict;
	void *userdata;
	sd_bus_slot *reply;
} Call;

struct EcPolkit {
	sd_bus *bus;
	GHashTable *callers; /* name -> Caller */
	unsigned asking;     /* questions polkit has not answered */
	unsigned serial;
};

static void free_call(gpointer data)
{
	Call *c = data;

	if (c->cancellation)
		c->caller->polkit->asking--;
	(void)sd_bus_slot_unref(c->reply);
	(void)sd_bus_message_unref(c->message);
	g_free(c->tunnel);
	g_free(c->cancellation);
	g_free(c);
}

static void free_caller(gpointer data)
{
	Caller *w = data;

	g_ptr_array_unref(w->calls);
	(void)sd_bus_slot_unref(w->left);
	(void)sd_bus_slot_unref(w->reply);
	g_free(w->name);
	g_free(w);
}

EcPolkit *ec_polkit_new(sd_bus *bus)
{
	EcPolkit *p = g_new0(EcPolkit, 1);

	p->bus = bus;
	p->callers = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, free_caller);
	return p;
}

EcPolkit *ec_polkit_free(EcPolkit *p)
{
	if (!p)
		return NULL;
	g_hash_table_unref(p->callers);
	g_free(p);
	return NULL;
}

bool ec_polkit_is_idle(const EcPolkit *p)
{
	GHashTableIter i;
	Caller *w;

	g_hash_table_iter_init(&i, p->callers);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&w)) {
		if (w->calls->len > 0)
			return false;
	}
	return true;
}

/* A caller that is not root's is forgotten with its last call. */
static void release(Caller *w)
{
	if (w->known && !w->root && w->calls->len == 0)
		g_hash_table_remove(w->polkit->callers, w->name);
}

/* The call is off the list before the callback runs, which may ask again. */
static void conclude(Call *c, bool allowed, sd_bus_error *error)
{
	Caller *w = c->caller;
	guint i;

	if (g_ptr_array_find(w->calls, c, &i))
		(void)g_ptr_array_steal_index(w->calls, i);
	c->verdict(c->message, allowed, error, c->userdata);
	free_call(c);
	release(w);
}

static void refuse(Call *c, const char *name, const char *why)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;

	(void)ec_error(&error, name, "%s", why);
	conclude(c, false, &error);
}

static int on_left(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	Caller *w = userdata;
	const char *name, *old_owner, *new_owner;

	if (sd_bus_message_read(m, "sss", &name, &old_owner, &new_owner) < 0 || *new_owner)
		return 0;
	for (guint i = 0; i < w->calls->len; i++) {
		const Call *c = g_ptr_array_index(w->calls, i);

		if (c->cancellation)
			(void)sd_bus_call_method_async(w->polkit->bus, NULL,
					"org.freedesktop.PolicyKit1",
					"/org/freedesktop/PolicyKit1/Authority",
					"org.freedesktop.PolicyKit1.Authority",
					"CancelCheckAuthorization", NULL, NULL, "s",
					c->cancellation);
	}
	g_hash_table_remove(w->polkit->callers, w->name);
	return 0;
}

static void ask_next(Call *c);

static int on_checked(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	Call *c = userdata;
	int authorized = false, challenge = false;
	const sd_bus_error *e = sd_bus_message_get_error(m);

	if (e) {
		g_autofree char *why = g_strdup_printf(
				"polkit gave no answer, so the answer is no: %s", e->message);
		refuse(c, EC_ERROR_NOT_AUTHORIZED, why);
	} else if (sd_bus_message_enter_container(m, 'r', "bba{ss}") < 0 ||
			sd_bus_message_read(m, "bb", &authorized, &challenge) < 0 || !authorized) {
		g_autofree char *why = g_strdup_printf("polkit does not allow %s%s", c->actions[0],
				challenge ? " without authentication" : "");
		refuse(c, EC_ERROR_NOT_AUTHORIZED, why);
	} else {
		c->actions++;
		ask_next(c);
	}
	return 0;
}

static int compose_check(const Call *c, sd_bus_message **ret)
{
	g_autoptr(sd_bus_message) m = NULL;
	bool interactive = sd_bus_message_get_allow_interactive_authorization(c->message) > 0;
	int r = sd_bus_message_new_method_call(c->caller->polkit->bus, &m,
			"org.freedesktop.PolicyKit1", "/org/freedesktop/PolicyKit1/Authority",
			"org.freedesktop.PolicyKit1.Authority", "CheckAuthorization");

	if (r >= 0)
		r = sd_bus_message_append(m, "(sa{sv})s", "system-bus-name", 1, "name", "s",
				c->caller->name, c->actions[0]);
	if (r >= 0 && c->tunnel)
		r = sd_bus_message_append(m, "a{ss}", 1, "tunnel", c->tunnel);
	else if (r >= 0)
		r = sd_bus_message_append(m, "a{ss}", 0);
	if (r >= 0)
		r = sd_bus_message_append(m, "us", interactive ? 1U : 0U, c->cancellation);
	if (r >= 0)
		*ret = g_steal_pointer(&m);
	return r;
}

static bool too_many(const Caller *w)
{
	unsigned n = 0;

	for (guint i = 0; i < w->calls->len; i++)
		n += ((const Call *)g_ptr_array_index(w->calls, i))->cancellation != NULL;
	return n >= ASKING_PER_CALLER_MAX || w->polkit->asking >= ASKING_MAX;
}

static void ask_next(Call *c)
{
	EcPolkit *p = c->caller->polkit;
	g_autoptr(sd_bus_message) m = NULL;

	if (!c->actions[0]) {
		conclude(c, true, NULL);
		return;
	}
	if (!c->cancellation && too_many(c->caller)) {
		refuse(c, EC_ERROR_LIMIT_EXCEEDED,
				"too many calls wait for authorisation; wait for their answers");
		return;
	}
	if (!c->cancellation) {
		c->cancellation = g_strdup_printf("ethercord-%u", p->serial++);
		p->asking++;
	}
	c->reply = sd_bus_slot_unref(c->reply);
	int r = compose_check(c, &m);
	if (r >= 0)
		r = sd_bus_call_async(p->bus, &c->reply, m, on_checked, c, DIALOGUE_USEC);
	if (r < 0)
		refuse(c, EC_ERROR_NOT_AUTHORIZED, "polkit cannot be asked, so the answer is no");
}

static void begin(Call *c)
{
	if (c->caller->root)
		conclude(c, true, NULL);
	else
		ask_next(c);
}

static int on_user(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	Caller *w = userdata;
	g_autoptr(GPtrArray) waiting = g_ptr_array_new();
	uint32_t uid;

	if (sd_bus_message_get_error(m) || sd_bus_message_read(m, "u", &uid) < 0) {
		/* It is gone, and so is whom to answer. */
		g_hash_table_remove(w->polkit->callers, w->name);
		return 0;
	}
	w->known = true;
	w->root = uid == 0;
	if (w->root)
		w->left = sd_bus_slot_unref(w->left);
	for (guint i = 0; i < w->calls->len; i++)
		g_ptr_array_add(waiting, g_ptr_array_index(w->calls, i));
	for (guint i = 0; i < waiting->len; i++)
		begin(g_ptr_array_index(waiting, i));
	return 0;
}

static int look_up(Caller *w)
{
	g_autofree char *rule = g_strdup_printf(
			"type='signal',sender='org.freedesktop.DBus',path='/org/freedesktop/DBus',"
			"interface='org.freedesktop.DBus',member='NameOwnerChanged',arg0='%s'",
			w->name);
	int r = sd_bus_add_match_async(w->polkit->bus, &w->left, rule, on_left, NULL, w);

	if (r < 0)
		return r;
	return sd_bus_call_method_async(w->polkit->bus, &w->reply, "org.freedesktop.DBus",
			"/org/freedesktop/DBus", "org.freedesktop.DBus", "GetConnectionUnixUser",
			on_user, w, "s", w->name);
}

static gboolean is_idle_root(gpointer name, gpointer caller, gpointer userdata)
{
	const Caller *w = caller;

	return w->root && w->calls->len == 0;
}

/* NULL when the bus cannot be asked. */
static Caller *caller_of(EcPolkit *p, const char *name)
{
	Caller *w = g_hash_table_lookup(p->callers, name);

	if (w)
		return w;
	if (g_hash_table_size(p->callers) >= CALLERS_MAX)
		(void)g_hash_table_foreach_remove(p->callers, is_idle_root, NULL);
	w = g_new0(Caller, 1);
	w->polkit = p;
	w->name = g_strdup(name);
	w->calls = g_ptr_array_new_with_free_func(free_call);
	if (look_up(w) < 0) {
		free_caller(w);
		return NULL;
	}
	g_hash_table_insert(p->callers, w->name, w);
	return w;
}

void ec_polkit_ask(EcPolkit *p, sd_bus_message *message, const char *const *actions,
		const char *tunnel, EcVerdict verdict, void *userdata)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	Caller *w = caller_of(p, sd_bus_message_get_sender(message));

	if (!w) {
		(void)ec_error(&error, EC_ERROR_NOT_AUTHORIZED,
				"the bus cannot be asked who calls, so the answer is no");
		verdict(message, false, &error, userdata);
		return;
	}
	Call *c = g_new0(Call, 1);
	c->caller = w;
	c->message = sd_bus_message_ref(message);
	c->actions = actions;
	c->tunnel = g_strdup(tunnel);
	c->verdict = verdict;
	c->userdata = userdata;
	g_ptr_array_add(w->calls, c);
	if (w->known)
		begin(c);
}
