/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* What is known of each tunnel and listener, so that a line can say what is new, and so that what
 * changed while the daemon was restarted is told as well. */
typedef struct Monitor {
	Ctl *ctl;
	json_t *tunnels; /* { name: { property: value } }, listeners, too */
	bool stale;      /* the daemon is back: read everything again */
} Monitor;

/* Said by State's own line, or of no use to a reader. */
static bool is_quiet(const char *key)
{
	static const char *const keys[] = { "Name", "State", "StateReason", "SinceUsec", "Settings",
		"Ifindex", "PeerSettings", NULL };

	return g_strv_contains(keys, key);
}

static void print_line(const char *name, const char *text)
{
	g_autoptr(GDateTime) now = g_date_time_new_now_local();
	g_autofree char *time = g_date_time_format(now, "%H:%M:%S");
	g_autofree char *clean = ctl_clean(text);

	(void)printf("%s.%03d %s: %s\n", time, g_date_time_get_microsecond(now) / 1000, name,
			clean);
	(void)fflush(stdout);
}

/* A step of a tunnel: its kind, and each detail as KEY=VALUE. The kinds line up. */
static void print_step(const char *name, const char *kind, const json_t *details)
{
	g_autoptr(GString) line = g_string_new(NULL);

	g_string_append_printf(line, "%-15s", kind);
	for (CtlMember m = ctl_json_first(details); m.key; m = ctl_json_next(details, m)) {
		g_autofree char *text = ctl_json_text(m.value);

		g_string_append_printf(line, " %s=%s", m.key, text);
	}
	print_line(name, g_strchomp(line->str));
}

/* Objects by their names, lists of them with commas. */
static char *shown_text(const json_t *value)
{
	g_autofree char *text = ctl_json_text(value);
	g_auto(GStrv) items = g_strsplit(text, ",", -1);

	for (char **i = items; *i; i++) {
		if (g_str_has_prefix(*i, CTL_ROOT_PATH)) {
			char *name = g_strdup(strrchr(*i, '/') + 1);
			g_free(*i);
			*i = name;
		}
	}
	return *text ? g_strjoinv(",", items) : g_strdup("-");
}

static char *describe_state(const json_t *properties)
{
	const char *sentence = json_string_value(
			json_array_get(json_object_get(properties, "StateReason"), 1));

	return g_strconcat(ctl_json_string(properties, "State"),
			sentence && *sentence ? ": " : NULL, sentence, NULL);
}

static void print_changes(const char *name, const json_t *all, json_t *changed)
{
	g_autoptr(GString) rest = g_string_new(NULL);

	if (json_object_get(changed, "State") || json_object_get(changed, "StateReason")) {
		g_autofree char *state = describe_state(all);
		print_line(name, state);
	}
	for (CtlMember m = ctl_json_first(changed); m.key; m = ctl_json_next(changed, m)) {
		if (is_quiet(m.key))
			continue;
		g_autofree char *shown = shown_text(m.value);
		g_string_append_printf(rest, "%s%s %s", rest->len ? ", " : "", m.key, shown);
	}
	if (rest->len)
		print_line(name, rest->str);
}

static void on_known(Monitor *monitor, const char *name, json_t *properties)
{
	const Ctl *ctl = monitor->ctl;

	(void)json_object_del(properties, "Statistics"); /* they change without being told */
	if (ctl->json != CTL_JSON_OFF) {
		ctl_event_print_json("added", name, properties);
	} else {
		g_autofree char *state = describe_state(properties);
		g_autofree char *text = g_strconcat("added, ", state, NULL);
		print_line(name, text);
	}
	(void)json_object_set_new(monitor->tunnels, name, json_copy(properties));
}

static void on_gone(Monitor *monitor, const char *name)
{
	if (monitor->ctl->json != CTL_JSON_OFF)
		ctl_event_print_json("removed", name, NULL);
	else
		print_line(name, "removed");
	(void)json_object_del(monitor->tunnels, name);
}

/* Keeps what differs from what is known, tells it, and remembers it. */
static void on_news(Monitor *monitor, const char *name, json_t *properties)
{
	json_t *known = json_object_get(monitor->tunnels, name);
	g_autoptr(json_t) changed = json_object();

	(void)json_object_del(properties, "Statistics");
	if (!known) {
		known = json_object();
		(void)json_object_set_new(monitor->tunnels, name, known);
	}
	for (CtlMember m = ctl_json_first(properties); m.key; m = ctl_json_next(properties, m)) {
		if (!json_equal(m.value, json_object_get(known, m.key)))
			(void)json_object_set(changed, m.key, m.value);
	}
	if (json_object_size(changed) == 0)
		return;
	(void)json_object_update(known, changed);
	if (monitor->ctl->json != CTL_JSON_OFF)
		ctl_event_print_json("changed", name, changed);
	else
		print_changes(name, known, changed);
}

static void on_event(Ctl *ctl, const CtlEvent *event, void *userdata)
{
	Monitor *monitor = userdata;

	switch (event->kind) {
	case CTL_EVENT_ADDED:
		if (json_object_get(monitor->tunnels, event->name))
			on_news(monitor, event->name, event->properties);
		else
			on_known(monitor, event->name, event->properties);
		break;
	case CTL_EVENT_REMOVED:
		if (json_object_get(monitor->tunnels, event->name))
			on_gone(monitor, event->name);
		break;
	case CTL_EVENT_CHANGED:
		on_news(monitor, event->name, event->properties);
		break;
	case CTL_EVENT_STEP:
		if (ctl->json != CTL_JSON_OFF)
			ctl_step_print_json(event->name, event->step, event->properties);
		else
			print_step(event->name, event->step, event->properties);
		break;
	case CTL_EVENT_DAEMON_GONE:
		(void)ctl_complain(0, "ethercordd ended; waiting for its return");
		break;
	case CTL_EVENT_DAEMON_BACK:
		monitor->stale = true;
		break;
	}
}

static int read_tunnels(Monitor *monitor, bool first, sd_bus_error *ret_error)
{
	g_autoptr(json_t) objects = NULL, tunnels = NULL, listeners = NULL, now = json_object();
	int r = ctl_get_objects(monitor->ctl, first, &objects, ret_error);

	if (r < 0)
		return r;
	tunnels = ctl_pick(objects, CTL_TUNNEL);
	listeners = ctl_pick(objects, CTL_LISTENER);
	(void)json_array_extend(tunnels, listeners);
	for (size_t i = 0; i < json_array_size(tunnels); i++) {
		json_t *t = json_array_get(tunnels, i);

		(void)json_object_set(now, ctl_json_string(t, "Name"), t);
	}
	for (CtlMember m = ctl_json_first(now); m.key; m = ctl_json_next(now, m)) {
		if (first)
			(void)json_object_set_new(monitor->tunnels, m.key, json_copy(m.value));
		else if (json_object_get(monitor->tunnels, m.key))
			on_news(monitor, m.key, m.value);
		else
			on_known(monitor, m.key, m.value);
	}
	for (CtlMember m = ctl_json_first(monitor->tunnels), next; m.key; m = next) {
		next = ctl_json_next(monitor->tunnels, m);
		if (!json_object_get(now, m.key))
			on_gone(monitor, m.key);
	}
	return 0;
}

static int run(Monitor *monitor, sd_bus_error *ret_error)
{
	int r = ctl_watch(monitor->ctl, on_event, monitor, ret_error);

	if (r >= 0)
		r = read_tunnels(monitor, true, ret_error);
	if (r < 0)
		return r;
	(void)fprintf(stderr, "ethercordctl: watching; %zu tunnels and listeners now\n",
			json_object_size(monitor->tunnels));
	for (;;) {
		r = sd_bus_process(monitor->ctl->bus, NULL);
		if (monitor->stale) {
			monitor->stale = false;
			/* Not fatal: the daemon may be on its way out again. */
			(void)read_tunnels(monitor, false, NULL);
		}
		if (r == 0)
			r = sd_bus_wait(monitor->ctl->bus, UINT64_MAX);
		if (r < 0 && r != -EINTR)
			return r;
	}
}

int ctl_verb_monitor(Ctl *ctl, int argc, char **argv)
{
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autoptr(json_t) tunnels = json_object();
	Monitor monitor = { .ctl = ctl, .tunnels = tunnels };
	int code = ctl_open(ctl);

	if (code != CTL_OK)
		return code;
	int r = run(&monitor, &error);
	return ctl_fail(&error, r, NULL, CTL_ERROR);
}
