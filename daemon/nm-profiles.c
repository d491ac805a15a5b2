/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "nm-profiles.h"

#include <errno.h>
#include <string.h>

#include "dbus-fields.h"
#include "log.h"

/*
 * DOC: Theory of operation
 *
 * NetworkManager brings VPN connections up by hand or with a device (secondaries), never with
 * another VPN connection, and forgets those that were up when it ends. Both is done here, by the
 * same request that nmcli makes (polkit: org.ethercord1.rules).
 *
 * up-with: profiles with that key in vpn.data are known by heart, read once and then followed by
 * the signals of NetworkManager's settings, which come when somebody edits a profile. When a VPN or
 * WireGuard connection becomes activated it is looked at, and what goes up with it is asked for.
 * Each activation is followed once: which were is in the runtime directory, so that a new daemon
 * neither brings up what a person took down nor misses what came up before it was there. A
 * connection that is up already may be about to end, if it rode on what the VPN was before: one
 * that does so within ENDING_USEC, and not by a person's hand, is asked for then.
 *
 * restore: a wish for one profile. NetworkManager refuses it until the device below is up, so it is
 * asked when its start is complete or the connection with the default route is activated, and again
 * whenever it tells of a change.
 *
 * NetworkManager would bring a connection up a second time while the first is on its way, and a
 * device whose secondary that is would fail. So what is active is looked at before, and a
 * connection counts as activated only when its secondaries are.
 *
 * NetworkManager is never started by any of this, and nothing is polled.
 */

#define NM "org.freedesktop.NetworkManager"
#define NM_PATH "/org/freedesktop/NetworkManager"
#define NM_SETTINGS NM ".Settings"
#define NM_SETTINGS_PATH NM_PATH "/Settings"
#define NM_CONNECTION NM_SETTINGS ".Connection"
#define NM_ACTIVE NM ".Connection.Active"
#define PROPERTIES "org.freedesktop.DBus.Properties"
#define SERVICE NM ".ethercord"
#define SIGNAL "type='signal',sender='" NM "',"

#define STATE_ACTIVATED 2 /* NM_ACTIVE_CONNECTION_STATE_ACTIVATED */
#define STATE_DEACTIVATED 4
#define REASON_USER 2 /* NM_ACTIVE_CONNECTION_STATE_REASON_USER_DISCONNECTED */
#define ENDING_USEC 10000000

typedef struct Query Query;

typedef struct Profile {
	char *uuid;
	char *up_with; /* id or UUID of another connection */
} Profile;

/* A profile that is to be brought up. */
typedef struct Wish {
	EcNmProfiles *all;
	char *uuid;
	char *path;  /* of its object; NULL: not known yet */
	char *with;  /* id of the connection that it goes up with; NULL: it is restored */
	char *spare; /* that one's active connection, to ride on where there is no default route */
	char **actives; /* active connections to look at before it is asked for */
	size_t at;      /* the next of them */
	char *primary;  /* the one with the default route */
	bool ready;     /* there is something to bring it up on */
	Query *asked;   /* whose answer is due; it goes with the wish */
	bool again;     /* something changed since */
	char *up;       /* its own active connection, which may be about to end */
	int64_t until;  /* when it is not any more */
} Wish;

/* A question to NetworkManager that is not answered. */
struct Query {
	EcNmProfiles *all;
	char *about; /* object path or UUID */
	void (*answered)(struct Query *q, sd_bus_message *reply);
	sd_bus_slot *slot;
};

struct EcNmProfiles {
	sd_bus *bus;
	char *file;            /* of `followed` */
	char *owner;           /* NetworkManager's unique name; NULL: it is not there */
	unsigned reading;      /* profiles to be read before activations can be judged */
	GHashTable *profiles;  /* object path -> Profile: ours with up-with */
	GHashTable *followed;  /* "OWNER PATH" of activated VPN connections */
	GHashTable *wishes;    /* UUID -> Wish */
	GHashTable *queries;   /* Query, a set */
	sd_bus_slot *match[4]; /* while NetworkManager is there */
	sd_bus_slot *news;     /* the same for what wishes wait for, while there are any */
};

static void free_profile(gpointer profile)
{
	Profile *f = profile;

	g_free(f->uuid);
	g_free(f->up_with);
	g_free(f);
}

static void free_wish(gpointer wish)
{
	Wish *w = wish;

	if (w->asked)
		(void)g_hash_table_remove(w->all->queries, w->asked);
	g_free(w->uuid);
	g_free(w->path);
	g_strfreev(w->actives);
	g_free(w->primary);
	g_free(w->with);
	g_free(w->spare);
	g_free(w->up);
	g_free(w);
}

static void free_query(gpointer query)
{
	Query *q = query;

	(void)sd_bus_slot_unref(q->slot);
	g_free(q->about);
	g_free(q);
}

/* Questions */

static int on_answer(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	Query *q = userdata;

	(void)g_hash_table_steal(q->all->queries, q);
	q->answered(q, reply);
	free_query(q);
	return 0;
}

/* NULL when it cannot be asked. `answered` may get an error; it is never called once NetworkManager
 * has gone. */
static Query *ask(EcNmProfiles *p, const char *about,
		void (*answered)(Query *q, sd_bus_message *reply), const char *path,
		const char *interface, const char *member, const char *types, ...)
{
	g_autoptr(sd_bus_message) m = NULL;
	Query *q = g_new0(Query, 1);
	va_list values;
	int r = sd_bus_message_new_method_call(p->bus, &m, NM, path, interface, member);

	q->all = p;
	q->about = g_strdup(about);
	q->answered = answered;
	if (r >= 0)
		r = sd_bus_message_set_auto_start(m, false);
	va_start(values, types);
	if (r >= 0)
		r = sd_bus_message_appendv(m, types, values);
	va_end(values);
	if (r >= 0)
		r = sd_bus_call_async(p->bus, &q->slot, m, on_answer, q, 0);
	if (r < 0) {
		free_query(q);
		return NULL;
	}
	g_hash_table_add(p->queries, q);
	return q;
}

/* What was followed */

static void write_followed(EcNmProfiles *p)
{
	g_autoptr(GString) text = g_string_new(NULL);
	GHashTableIter i;
	const char *line;

	g_hash_table_iter_init(&i, p->followed);
	while (g_hash_table_iter_next(&i, (gpointer *)&line, NULL))
		g_string_append_printf(text, "%s\n", line);
	(void)g_file_set_contents_full(p->file, text->str, (gssize)text->len,
			G_FILE_SET_CONTENTS_CONSISTENT, 0644, NULL);
}

static void read_followed(EcNmProfiles *p)
{
	g_autofree char *text = NULL;

	if (!g_file_get_contents(p->file, &text, NULL, NULL))
		return;
	g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
	for (char **line = lines; *line; line++) {
		if (**line)
			g_hash_table_add(p->followed, g_strdup(*line));
	}
}

static gboolean is_of_another(gpointer line, gpointer value, gpointer owner)
{
	const char *blank = strchr(line, ' ');

	return !blank || strncmp(line, owner, (size_t)(blank - (char *)line)) != 0 ||
	       ((const char *)owner)[blank - (char *)line];
}

/* True the first time. */
static bool note_followed(EcNmProfiles *p, const char *path)
{
	char *line = g_strdup_printf("%s %s", p->owner, path);

	(void)g_hash_table_foreach_remove(p->followed, is_of_another, p->owner);
	if (!g_hash_table_add(p->followed, line))
		return false;
	write_followed(p);
	return true;
}

/* What NetworkManager has */

typedef struct Active {
	char *id, *uuid, *type;
	uint32_t state;
	int vpn;
} Active;

static void clear_active(Active *a)
{
	g_free(a->id);
	g_free(a->uuid);
	g_free(a->type);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Active, clear_active)

static const EcDbusField active_fields[] = {
	{ "Id", 's', offsetof(Active, id) },
	{ "Uuid", 's', offsetof(Active, uuid) },
	{ "Type", 's', offsetof(Active, type) },
	{ "State", 'u', offsetof(Active, state) },
	{ "Vpn", 'b', offsetof(Active, vpn) },
	{ NULL },
};

typedef struct Manager {
	int startup; /* not all devices are up that are to be */
	char *primary;
	char **actives;
} Manager;

static const EcDbusField manager_fields[] = {
	{ "Startup", 'b', offsetof(Manager, startup) },
	{ "PrimaryConnection", 'o', offsetof(Manager, primary) },
	{ "ActiveConnections", 'a', offsetof(Manager, actives) },
	{ NULL },
};

/* Wishes */

static void end_wish(Wish *w)
{
	EcNmProfiles *p = w->all;

	g_hash_table_remove(p->wishes, w->uuid);
	if (g_hash_table_size(p->wishes) == 0)
		p->news = sd_bus_slot_unref(p->news);
}

/* The wish that a query was about; another answer may become due. */
static Wish *wish_of(const Query *q)
{
	Wish *w = g_hash_table_lookup(q->all->wishes, q->about);

	w->asked = NULL;
	return w;
}

static void activate(Wish *w, const char *base);

static void begin(Wish *w);

/* Until there is news; there may have been since the question. */
static void wait_on(Wish *w)
{
	if (w->with)
		end_wish(w);
	else if (w->again)
		begin(w);
}

static void fail(Wish *w, const sd_bus_error *error)
{
	bool denied = sd_bus_error_has_name(error, NM ".PermissionDenied");

	if (!w->with && !denied) {
		wait_on(w);
		return;
	}
	ec_log_profile(LOG_WARNING, w->uuid,
			"NetworkManager does not bring this connection up%s%s: %s%s",
			w->with ? " with " : " again", w->with ? w->with : "", error->message,
			denied ? " (polkit: org.ethercord1.rules is not installed?)" : "");
	end_wish(w);
}

static void on_activated(Query *q, sd_bus_message *reply)
{
	Wish *w = wish_of(q);
	const sd_bus_error *error = sd_bus_message_get_error(reply);

	if (!error) {
		ec_log_profile(LOG_INFO, w->uuid, "NetworkManager brings this connection up %s%s",
				w->with ? "with " : "again", w->with ? w->with : "");
		end_wish(w);
	} else if (sd_bus_error_has_name(error, NM ".ConnectionAlreadyActive")) {
		end_wish(w);
	} else if (w->spare) {
		g_autofree char *base = g_steal_pointer(&w->spare);

		activate(w, base);
	} else {
		fail(w, error);
	}
}

static void activate(Wish *w, const char *base)
{
	w->asked = ask(w->all, w->uuid, on_activated, NM_PATH, NM, "ActivateConnection", "ooo",
			w->path, "/", base);
}

static void on_object(Query *q, sd_bus_message *reply)
{
	Wish *w = wish_of(q);
	const char *path;

	if (sd_bus_message_get_error(reply) || sd_bus_message_read(reply, "o", &path) < 0) {
		wait_on(w); /* its profile is not read yet, or gone */
		return;
	}
	g_free(w->path);
	w->path = g_strdup(path);
	activate(w, "/");
}

static void look_at_next(Wish *w);

static void on_other(Query *q, sd_bus_message *reply)
{
	g_auto(Active) a = { 0 };
	Wish *w = wish_of(q);

	if (!sd_bus_message_get_error(reply))
		(void)ec_dbus_read_fields(reply, active_fields, &a);
	const char *path = w->actives[w->at++];
	/* Its secondaries were brought up before that. */
	if (g_strcmp0(path, w->primary) == 0 && a.state == STATE_ACTIVATED)
		w->ready = true;
	if (g_strcmp0(a.uuid, w->uuid) != 0 || a.state == 0 || a.state > STATE_ACTIVATED) {
		look_at_next(w);
	} else if (w->with) {
		w->up = g_strdup(path);
		w->until = g_get_monotonic_time() + ENDING_USEC;
	} else {
		end_wish(w);
	}
}

static void look_at_next(Wish *w)
{
	const char *path = w->actives ? w->actives[w->at] : NULL;

	if (path)
		w->asked = ask(w->all, w->uuid, on_other, path, PROPERTIES, "GetAll", "s",
				NM_ACTIVE);
	else if (w->ready)
		w->asked = ask(w->all, w->uuid, on_object, NM_SETTINGS_PATH, NM_SETTINGS,
				"GetConnectionByUuid", "s", w->uuid);
	else
		wait_on(w);
}

static void on_manager(Query *q, sd_bus_message *reply)
{
	Manager nm = { .startup = true };
	Wish *w = wish_of(q);

	if (!sd_bus_message_get_error(reply))
		(void)ec_dbus_read_fields(reply, manager_fields, &nm);
	g_strfreev(w->actives);
	g_free(w->primary);
	w->actives = nm.actives;
	w->primary = nm.primary;
	w->at = 0;
	w->ready = w->with || !nm.startup;
	look_at_next(w);
}

static void begin(Wish *w)
{
	w->again = false;
	w->asked = ask(w->all, w->uuid, on_manager, NM_PATH, PROPERTIES, "GetAll", "s", NM);
}

/* Of those to be restored. */
static void remind(EcNmProfiles *p)
{
	GHashTableIter i;
	Wish *w;

	g_hash_table_iter_init(&i, p->wishes);
	while (p->owner && g_hash_table_iter_next(&i, NULL, (gpointer *)&w)) {
		if (w->asked)
			w->again = true;
		else if (!w->with)
			begin(w);
	}
}

static int on_news(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	remind(userdata);
	return 0;
}

static void one_has_ended(EcNmProfiles *p, const char *active, uint32_t reason)
{
	GHashTableIter i;
	Wish *w;

	g_hash_table_iter_init(&i, p->wishes);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&w)) {
		if (g_strcmp0(w->up, active) != 0)
			continue;
		g_clear_pointer(&w->up, g_free);
		if (reason == REASON_USER || g_get_monotonic_time() > w->until)
			end_wish(w);
		else
			begin(w);
		return;
	}
}

static Wish *new_wish(EcNmProfiles *p, const char *uuid)
{
	Wish *w = g_new0(Wish, 1);

	w->all = p;
	w->uuid = g_strdup(uuid);
	g_hash_table_replace(p->wishes, w->uuid, w);
	return w;
}

void ec_nm_profiles_restore(EcNmProfiles *p, const char *uuid)
{
	const Wish *w = g_hash_table_lookup(p->wishes, uuid);

	/* One that waits for an end, which may never come, is none. */
	if (!w || w->up)
		(void)new_wish(p, uuid);
	if (!p->news)
		(void)sd_bus_add_match_async(p->bus, &p->news,
				SIGNAL "path='" NM_PATH "',interface='" PROPERTIES
				       "',member='PropertiesChanged',arg0='" NM "'",
				on_news, NULL, p);
	remind(p);
}

void ec_nm_profiles_give_up(EcNmProfiles *p, const char *uuid)
{
	Wish *w = g_hash_table_lookup(p->wishes, uuid);

	if (w && !w->with)
		end_wish(w);
}

bool ec_nm_profiles_is_idle(const EcNmProfiles *p)
{
	return g_hash_table_size(p->profiles) == 0 && g_hash_table_size(p->wishes) == 0 &&
	       g_hash_table_size(p->queries) == 0;
}

/* Activations */

static void bring_up_with(EcNmProfiles *p, const Active *a, const char *base)
{
	GHashTableIter i;
	const Profile *f;

	g_hash_table_iter_init(&i, p->profiles);
	while (g_hash_table_iter_next(&i, NULL, (gpointer *)&f)) {
		bool with = g_str_equal(f->up_with, a->uuid) || g_str_equal(f->up_with, a->id);

		if (!with || g_str_equal(f->uuid, a->uuid))
			continue;
		Wish *w = new_wish(p, f->uuid);
		w->with = g_strdup(a->id);
		w->spare = g_strdup(base);
		begin(w);
	}
}

static void on_active(Query *q, sd_bus_message *reply)
{
	g_auto(Active) a = { 0 };

	if (sd_bus_message_get_error(reply))
		return; /* gone again */
	(void)ec_dbus_read_fields(reply, active_fields, &a);
	bool vpn = a.vpn || g_strcmp0(a.type, "wireguard") == 0;
	if (vpn && a.id && a.uuid && a.state == STATE_ACTIVATED && note_followed(q->all, q->about))
		bring_up_with(q->all, &a, q->about);
}

static void look_at(EcNmProfiles *p, const char *path)
{
	(void)ask(p, path, on_active, path, PROPERTIES, "GetAll", "s", NM_ACTIVE);
}

static int on_state(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	EcNmProfiles *p = userdata;
	uint32_t state, reason;

	if (sd_bus_message_read(m, "uu", &state, &reason) < 0)
		return 0;
	if (state == STATE_DEACTIVATED)
		one_has_ended(p, sd_bus_message_get_path(m), reason);
	/* What comes before the profiles were read is looked at then. */
	else if (p->reading == 0 && state == STATE_ACTIVATED)
		look_at(p, sd_bus_message_get_path(m));
	return 0;
}

static void on_actives(Query *q, sd_bus_message *reply)
{
	g_auto(GStrv) paths = NULL;

	if (sd_bus_message_get_error(reply) ||
			sd_bus_message_enter_container(reply, 'v', "ao") < 0 ||
			sd_bus_message_read_strv(reply, &paths) < 0)
		return;
	for (char **path = paths; path && *path; path++)
		look_at(q->all, *path);
}

/* Profiles */

static void one_is_read(EcNmProfiles *p)
{
	if (--p->reading == 0)
		(void)ask(p, NULL, on_actives, NM_PATH, PROPERTIES, "Get", "ss", NM,
				"ActiveConnections");
}

/* a{ss} in a variant: the one value of interest. */
static int read_up_with(sd_bus_message *m, Profile *f)
{
	const char *key, *value;
	int r = sd_bus_message_enter_container(m, 'v', "a{ss}");

	if (r >= 0)
		r = sd_bus_message_enter_container(m, 'a', "{ss}");
	while (r >= 0 && (r = sd_bus_message_read(m, "{ss}", &key, &value)) > 0) {
		if (g_str_equal(key, "up-with") && !f->up_with)
			f->up_with = g_strdup(value);
	}
	if (r >= 0)
		r = sd_bus_message_exit_container(m);
	return r < 0 ? r : sd_bus_message_exit_container(m);
}

static int read_vpn(sd_bus_message *m, Profile *f, bool *ret_ours)
{
	const char *key, *service;
	int r = sd_bus_message_enter_container(m, 'a', "{sv}");

	while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
		r = sd_bus_message_read_basic(m, 's', &key);
		if (r >= 0 && g_str_equal(key, "data")) {
			r = read_up_with(m, f);
		} else if (r >= 0 && g_str_equal(key, "service-type")) {
			r = sd_bus_message_read(m, "v", "s", &service);
			*ret_ours = r >= 0 && g_str_equal(service, SERVICE);
		} else if (r >= 0) {
			r = sd_bus_message_skip(m, "v");
		}
		if (r >= 0)
			r = sd_bus_message_exit_container(m);
	}
	return r < 0 ? r : sd_bus_message_exit_container(m);
}

/* NULL unless it is one of ours with up-with. */
static Profile *read_profile(sd_bus_message *m)
{
	static const EcDbusField fields[] = { { "uuid", 's', offsetof(Profile, uuid) }, { NULL } };
	Profile *f = g_new0(Profile, 1);
	const char *group;
	bool ours = false;
	int r = sd_bus_message_enter_container(m, 'a', "{sa{sv}}");

	while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sa{sv}")) > 0) {
		r = sd_bus_message_read_basic(m, 's', &group);
		if (r >= 0 && g_str_equal(group, "connection"))
			r = ec_dbus_read_fields(m, fields, f);
		else if (r >= 0 && g_str_equal(group, "vpn"))
			r = read_vpn(m, f, &ours);
		else if (r >= 0)
			r = sd_bus_message_skip(m, "a{sv}");
		if (r >= 0)
			r = sd_bus_message_exit_container(m);
	}
	if (r >= 0 && ours && f->uuid && f->up_with && *f->up_with)
		return f;
	free_profile(f);
	return NULL;
}

static void on_settings(Query *q, sd_bus_message *reply)
{
	Profile *f = sd_bus_message_get_error(reply) ? NULL : read_profile(reply);

	if (f)
		g_hash_table_replace(q->all->profiles, g_strdup(q->about), f);
	else
		g_hash_table_remove(q->all->profiles, q->about);
	one_is_read(q->all);
}

static void read_settings(EcNmProfiles *p, const char *path)
{
	if (ask(p, path, on_settings, path, NM_CONNECTION, "GetSettings", ""))
		p->reading++;
}

static void on_list(Query *q, sd_bus_message *reply)
{
	g_auto(GStrv) paths = NULL;

	if (!sd_bus_message_get_error(reply))
		(void)sd_bus_message_read_strv(reply, &paths);
	for (char **path = paths; path && *path; path++)
		read_settings(q->all, *path);
	one_is_read(q->all); /* the list itself */
}

static int on_new(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	const char *path;

	if (sd_bus_message_read(m, "o", &path) >= 0)
		read_settings(userdata, path);
	return 0;
}

static int on_updated(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	read_settings(userdata, sd_bus_message_get_path(m));
	return 0;
}

static int on_removed(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	EcNmProfiles *p = userdata;
	const char *path;

	if (sd_bus_message_read(m, "o", &path) >= 0)
		g_hash_table_remove(p->profiles, path);
	return 0;
}

/* NetworkManager comes and goes */

static void forget(EcNmProfiles *p)
{
	for (size_t i = 0; i < EC_ELEMENTS(p->match); i++)
		p->match[i] = sd_bus_slot_unref(p->match[i]);
	p->news = sd_bus_slot_unref(p->news);
	g_hash_table_remove_all(p->wishes);
	g_hash_table_remove_all(p->queries);
	g_hash_table_remove_all(p->profiles);
	g_clear_pointer(&p->owner, g_free);
	p->reading = 0;
}

void ec_nm_profiles_owner(EcNmProfiles *p, const char *owner)
{
	static const struct {
		const char *rule;
		sd_bus_message_handler_t f;
	} rules[] = {
		{ SIGNAL "interface='" NM_ACTIVE "',member='StateChanged'", on_state },
		{ SIGNAL "path='" NM_SETTINGS_PATH "',interface='" NM_SETTINGS
			 "',member='NewConnection'",
				on_new },
		{ SIGNAL "path='" NM_SETTINGS_PATH "',interface='" NM_SETTINGS
			 "',member='ConnectionRemoved'",
				on_removed },
		{ SIGNAL "interface='" NM_CONNECTION "',member='Updated'", on_updated },
	};

	static_assert(EC_ELEMENTS(rules) == EC_ELEMENTS(p->match), "a slot per rule");
	forget(p);
	if (!owner)
		return;
	p->owner = g_strdup(owner);
	for (size_t i = 0; i < EC_ELEMENTS(rules); i++)
		(void)sd_bus_add_match_async(
				p->bus, &p->match[i], rules[i].rule, rules[i].f, NULL, p);
	if (ask(p, NULL, on_list, NM_SETTINGS_PATH, NM_SETTINGS, "ListConnections", ""))
		p->reading = 1;
}

EcNmProfiles *ec_nm_profiles_new(sd_bus *bus, const char *runtime_dir)
{
	EcNmProfiles *p = g_new0(EcNmProfiles, 1);

	p->bus = bus;
	p->file = g_build_filename(runtime_dir, "networkmanager-followed", NULL);
	p->profiles = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, free_profile);
	p->followed = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	p->wishes = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, free_wish);
	p->queries = g_hash_table_new_full(NULL, NULL, free_query, NULL);
	read_followed(p);
	return p;
}

EcNmProfiles *ec_nm_profiles_free(EcNmProfiles *p)
{
	if (!p)
		return NULL;
	forget(p);
	g_hash_table_unref(p->queries);
	g_hash_table_unref(p->wishes);
	g_hash_table_unref(p->profiles);
	g_hash_table_unref(p->followed);
	g_free(p->file);
	g_free(p);
	return NULL;
}
