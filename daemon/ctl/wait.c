/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl.h"

#include <errno.h>
#include <stdio.h>

/*
 * The watch is set before Activate is called, and Activate's reply, the reply with the state after
 * it and the signals are all dispatched in the order in which the daemon sent them. A state is
 * judged from the reply after Activate on: what was seen before may be left from an earlier try.
 */

typedef struct Item {
	char *name;
	char *state;
	char *sentence;
	bool judged; /* activated, and the state is of this try */
	bool begun;  /* has left `down` since */
	bool done;
	int code; /* once done */
} Item;

struct CtlWait {
	Ctl *ctl;
	GHashTable *items; /* name -> Item */
	bool daemon_gone;
};

static void item_free(void *data)
{
	Item *item = data;

	g_free(item->name);
	g_free(item->state);
	g_free(item->sentence);
	g_free(item);
}

static void finish(Item *item, int code)
{
	item->done = true;
	item->code = code;
}

static void judge(Item *item)
{
	if (!item->judged || item->done || !item->state)
		return;
	if (!g_str_equal(item->state, "down"))
		item->begun = true;
	if (g_str_equal(item->state, "up")) {
		finish(item, CTL_OK);
	} else if (g_str_equal(item->state, "failed")) {
		finish(item, CTL_UP_FAILED);
	} else if (g_str_equal(item->state, "down") && item->begun) {
		finish(item, ctl_complain(CTL_UP_FAILED, "%s was taken down", item->name));
	}
}

static void show(const Ctl *ctl, const Item *item, const json_t *properties)
{
	if (ctl->json != CTL_JSON_OFF) {
		g_autoptr(json_t) state = json_object();

		(void)json_object_set(state, "State", json_object_get(properties, "State"));
		(void)json_object_set(
				state, "StateReason", json_object_get(properties, "StateReason"));
		ctl_event_print_json("changed", item->name, state);
	}
	g_autofree char *sentence = ctl_clean(item->sentence);
	(void)fprintf(stderr, "%s: %s%s%s\n", item->name, item->state, *sentence ? ": " : "",
			sentence);
}

static void update(const Ctl *ctl, Item *item, const json_t *properties)
{
	const char *state = json_string_value(json_object_get(properties, "State"));
	const char *sentence = json_string_value(
			json_array_get(json_object_get(properties, "StateReason"), 1));

	if (item->done || (!state && !sentence))
		return;
	state = state ? state : item->state ? item->state : "";
	sentence = sentence ? sentence : "";
	bool same = g_strcmp0(state, item->state) == 0 && g_strcmp0(sentence, item->sentence) == 0;
	if (!same) {
		char *kept = g_strdup(state);

		g_free(item->state);
		g_free(item->sentence);
		item->state = kept;
		item->sentence = g_strdup(sentence);
		show(ctl, item, properties);
	}
	judge(item);
}

static void on_event(Ctl *ctl, const CtlEvent *event, void *userdata)
{
	CtlWait *w = userdata;
	Item *item = event->name ? g_hash_table_lookup(w->items, event->name) : NULL;

	switch (event->kind) {
	case CTL_EVENT_CHANGED:
		if (item)
			update(ctl, item, event->properties);
		break;
	case CTL_EVENT_REMOVED:
		if (item && !item->done)
			finish(item, ctl_complain(CTL_NOT_FOUND, "%s was removed", item->name));
		break;
	case CTL_EVENT_DAEMON_GONE:
		w->daemon_gone = true;
		break;
	case CTL_EVENT_ADDED:
	case CTL_EVENT_STEP:
	case CTL_EVENT_DAEMON_BACK:
		break;
	}
}

int ctl_wait_new(Ctl *ctl, CtlWait **ret, sd_bus_error *ret_error)
{
	g_autoptr(CtlWait) w = g_new0(CtlWait, 1);

	w->ctl = ctl;
	w->items = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, item_free);
	int r = ctl_watch(ctl, on_event, w, ret_error);
	if (r < 0)
		return r;
	*ret = g_steal_pointer(&w);
	return 0;
}

CtlWait *ctl_wait_free(CtlWait *w)
{
	if (!w)
		return NULL;
	g_hash_table_unref(w->items);
	g_free(w);
	return NULL;
}

static void on_activated(Ctl *ctl, const char *name, sd_bus_message *reply, void *userdata)
{
	CtlWait *w = userdata;
	Item *item = g_hash_table_lookup(w->items, name);

	if (sd_bus_message_is_method_error(reply, NULL))
		finish(item, ctl_fail(sd_bus_message_get_error(reply),
					     -sd_bus_message_get_errno(reply), name,
					     CTL_UP_FAILED));
}

static void on_properties(Ctl *ctl, const char *name, sd_bus_message *reply, void *userdata)
{
	CtlWait *w = userdata;
	Item *item = g_hash_table_lookup(w->items, name);
	g_autoptr(json_t) properties = NULL;
	int r = 0;

	if (item->done)
		return;
	if (sd_bus_message_is_method_error(reply, NULL))
		r = -sd_bus_message_get_errno(reply);
	else
		r = ctl_json_read(reply, &properties);
	if (r < 0) {
		finish(item, ctl_fail(sd_bus_message_get_error(reply), r, name, CTL_ERROR));
		return;
	}
	item->judged = true;
	update(ctl, item, properties);
}

static size_t count_pending(const CtlWait *w)
{
	GHashTableIter iter;
	void *value;
	size_t n = 0;

	g_hash_table_iter_init(&iter, w->items);
	while (g_hash_table_iter_next(&iter, NULL, &value)) {
		const Item *item = value;

		n += !item->done;
	}
	return n;
}

/* The exit code of the first that did not succeed, in the order given. */
static int conclude(const CtlWait *w, char **names)
{
	int code = CTL_OK;

	for (char **name = names; *name; name++) {
		Item *item = g_hash_table_lookup(w->items, *name);

		if (!item->done) {
			const char *sentence = item->sentence ? item->sentence : "";
			const char *last = *sentence     ? sentence
					   : item->state ? item->state
							 : "no answer";

			finish(item, ctl_complain(CTL_TIMEOUT, "%s: still waiting after %u s: %s",
						     item->name, w->ctl->timeout, last));
		}
		if (code == CTL_OK)
			code = item->code;
	}
	return code;
}

static int follow(CtlWait *w, gint64 deadline)
{
	while (count_pending(w) > 0 && !w->daemon_gone) {
		int r = sd_bus_process(w->ctl->bus, NULL);

		if (r == 0) {
			gint64 left = deadline - g_get_monotonic_time();
			if (left <= 0)
				return 0;
			r = sd_bus_wait(w->ctl->bus, (uint64_t)left);
		}
		if (r < 0 && r != -EINTR)
			return r;
	}
	return 0;
}

int ctl_wait_run(CtlWait *w, char **names, bool activate)
{
	gint64 deadline = g_get_monotonic_time() + w->ctl->timeout * G_TIME_SPAN_SECOND;
	g_autoptr(GPtrArray) once = g_ptr_array_new();
	int r = 0;

	for (char **name = names; *name; name++) {
		if (g_hash_table_contains(w->items, *name))
			continue;
		Item *item = g_new0(Item, 1);
		item->name = g_strdup(*name);
		g_hash_table_insert(w->items, item->name, item);
		g_ptr_array_add(once, item->name);
	}
	g_ptr_array_add(once, NULL);
	if (activate)
		r = ctl_batch(w->ctl, (char **)once->pdata, CTL_TUNNEL, "Activate", NULL,
				on_activated, w);
	if (r >= 0)
		r = ctl_batch(w->ctl, (char **)once->pdata, CTL_PROPERTIES, "GetAll", CTL_TUNNEL,
				on_properties, w);
	if (r >= 0)
		r = follow(w, deadline);
	if (r < 0)
		return ctl_fail(NULL, r, NULL, CTL_ERROR);
	if (w->daemon_gone)
		return ctl_complain(CTL_NO_DAEMON, "ethercordd ended");
	return conclude(w, names);
}
