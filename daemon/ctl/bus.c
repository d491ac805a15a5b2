/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A bus daemon refuses the 129th unanswered call of one client (max_replies_per_connection). Of
 * those whom polkit is asked about, the daemon lets only a few calls wait. */
#define CALLS_IN_FLIGHT_OF_ROOT 100
#define CALLS_IN_FLIGHT 10
/* Long enough for a person to answer polkit's question. */
#define CALL_TIMEOUT_USEC 120000000ULL /* 2 minutes */

int ctl_complain(int code, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	g_autofree char *text = g_strdup_vprintf(format, ap);
	va_end(ap);
	g_autofree char *clean = ctl_clean(text);
	(void)fflush(stdout);
	(void)fprintf(stderr, "ethercordctl: %s\n", clean);
	return code;
}

int ctl_open(Ctl *ctl)
{
	int r = sd_bus_open_system(&ctl->bus);

	if (r < 0)
		return ctl_complain(CTL_NO_DAEMON,
				"ethercordd is not running, or cannot be reached: no system bus: %s",
				g_strerror(-r));
	(void)sd_bus_set_method_call_timeout(ctl->bus, CALL_TIMEOUT_USEC);
	(void)sd_bus_set_allow_interactive_authorization(ctl->bus, true);
	return CTL_OK;
}

static const struct {
	const char *error;
	int code;
	const char *sentence; /* instead of the error's own; %s: the tunnel */
} meanings[] = {
	{ EC_ERROR_NO_SUCH_TUNNEL, CTL_NOT_FOUND, NULL },
	{ EC_ERROR_NO_SUCH_LISTENER, CTL_NOT_FOUND, NULL },
	{ SD_BUS_ERROR_UNKNOWN_OBJECT, CTL_NOT_FOUND, "there is no such tunnel or listener" },
	{ SD_BUS_ERROR_SERVICE_UNKNOWN, CTL_NO_DAEMON, "ethercordd is not running" },
	{ SD_BUS_ERROR_NAME_HAS_NO_OWNER, CTL_NO_DAEMON, "ethercordd is not running" },
	{ SD_BUS_ERROR_NO_REPLY, CTL_NO_DAEMON, "ethercordd ended before it answered" },
	{ SD_BUS_ERROR_DISCONNECTED, CTL_NO_DAEMON, "the system bus closed the connection" },
	{ SD_BUS_ERROR_TIMEOUT, CTL_TIMEOUT, "ethercordd did not answer in time" },
};

int ctl_fail(const sd_bus_error *error, int r, const char *name, int otherwise)
{
	const char *error_name = error && error->name ? error->name : "";
	const char *message = error && error->message ? error->message : g_strerror(abs(r));

	for (size_t i = 0; i < EC_ELEMENTS(meanings); i++) {
		if (!g_str_equal(meanings[i].error, error_name))
			continue;
		if (!meanings[i].sentence)
			return ctl_complain(meanings[i].code, "%s", message);
		if (meanings[i].code == CTL_NOT_FOUND && name)
			return ctl_complain(
					CTL_NOT_FOUND, "there is no tunnel or listener '%s'", name);
		return ctl_complain(meanings[i].code, "%s", meanings[i].sentence);
	}
	if (g_str_has_prefix(error_name, "org.freedesktop.DBus.Error.Spawn."))
		return ctl_complain(CTL_NO_DAEMON, "ethercordd could not be started: %s", message);
	if (r == -ENOTCONN || r == -ECONNRESET || r == -EPIPE)
		return ctl_complain(CTL_NO_DAEMON, "the system bus closed the connection");
	return ctl_complain(otherwise, "%s", message);
}

static char *encode(const char *prefix, const char *name)
{
	char *path;
	int r = sd_bus_path_encode(prefix, name, &path);

	g_assert(r >= 0);
	return path;
}

char *ctl_tunnel_path(const char *name)
{
	return encode(CTL_TUNNEL_PATH, name);
}

char *ctl_listener_path(const char *name)
{
	return encode(CTL_LISTENER_PATH, name);
}

bool ctl_is_listener(Ctl *ctl, const char *name)
{
	g_autofree char *path = ctl_listener_path(name);
	g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;
	g_autoptr(sd_bus_message) reply = NULL;

	return sd_bus_get_property(ctl->bus, CTL_BUS_NAME, path, CTL_LISTENER, "Name", &error,
			       &reply, "s") >= 0;
}

int ctl_get_objects(Ctl *ctl, bool start_daemon, json_t **ret, sd_bus_error *ret_error)
{
	g_autoptr(sd_bus_message) call = NULL, reply = NULL;
	int r = sd_bus_message_new_method_call(ctl->bus, &call, CTL_BUS_NAME, CTL_ROOT_PATH,
			"org.freedesktop.DBus.ObjectManager", "GetManagedObjects");

	if (r < 0)
		return r;
	r = sd_bus_message_set_auto_start(call, start_daemon);
	if (r >= 0)
		r = sd_bus_call(ctl->bus, call, 0, ret_error, &reply);
	return r < 0 ? r : ctl_json_read(reply, ret);
}

int ctl_get_properties(Ctl *ctl, const char *path, const char *interface, json_t **ret,
		sd_bus_error *ret_error)
{
	g_autoptr(sd_bus_message) reply = NULL;
	int r = sd_bus_call_method(ctl->bus, CTL_BUS_NAME, path, CTL_PROPERTIES, "GetAll",
			ret_error, &reply, "s", interface);

	return r < 0 ? r : ctl_json_read(reply, ret);
}

/* "site2" before "site10". */
static int compare_names(const void *a, const void *b)
{
	const json_t *const *x = a, *const *y = b;

	return strverscmp(ctl_json_string(*x, "Name"), ctl_json_string(*y, "Name"));
}

json_t *ctl_pick(const json_t *objects, const char *interface)
{
	g_autoptr(GPtrArray) found = g_ptr_array_new();
	json_t *array = json_array();

	for (CtlMember m = ctl_json_first(objects); m.key; m = ctl_json_next(objects, m)) {
		json_t *properties = json_object_get(m.value, interface);

		if (json_is_object(properties))
			g_ptr_array_add(found, properties);
	}
	if (found->len > 0)
		qsort(found->pdata, found->len, sizeof(found->pdata[0]), compare_names);
	for (guint i = 0; i < found->len; i++)
		(void)json_array_append(array, found->pdata[i]);
	return array;
}

typedef struct Batch {
	Ctl *ctl;
	const char *interface, *member, *argument;
	CtlReplyFunc func;
	void *userdata;
	size_t in_flight;
} Batch;

typedef struct Call {
	Batch *batch;
	const char *name;
	bool listener; /* no tunnel has the name */
} Call;

static int on_reply(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error);

static const char *word_for(const Call *call, const char *word)
{
	return call->listener && g_strcmp0(word, CTL_TUNNEL) == 0 ? CTL_LISTENER : word;
}

static int send_call(Call *call)
{
	const Batch *batch = call->batch;
	g_autofree char *path = call->listener ? ctl_listener_path(call->name)
					       : ctl_tunnel_path(call->name);
	const char *interface = word_for(call, batch->interface);
	const char *argument = word_for(call, batch->argument);
	sd_bus *bus = batch->ctl->bus;
	int r = argument ? sd_bus_call_method_async(bus, NULL, CTL_BUS_NAME, path, interface,
					   batch->member, on_reply, call, "s", argument)
			 : sd_bus_call_method_async(bus, NULL, CTL_BUS_NAME, path, interface,
					   batch->member, on_reply, call, NULL);

	if (r >= 0)
		call->batch->in_flight++;
	return r;
}

static int on_reply(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	Call *call = userdata;

	call->batch->in_flight--;
	if (!call->listener &&
			sd_bus_message_is_method_error(reply, SD_BUS_ERROR_UNKNOWN_OBJECT) > 0) {
		call->listener = true;
		if (send_call(call) >= 0)
			return 0;
	}
	call->batch->func(call->batch->ctl, call->name, reply, call->batch->userdata);
	return 0;
}

int ctl_batch(Ctl *ctl, char **names, const char *interface, const char *member,
		const char *argument, CtlReplyFunc func, void *userdata)
{
	size_t n = g_strv_length(names), sent = 0;
	size_t limit = geteuid() == 0 ? CALLS_IN_FLIGHT_OF_ROOT : CALLS_IN_FLIGHT;
	g_autoptr(GArray) calls = g_array_new(FALSE, TRUE, sizeof(Call));
	Batch batch = { .ctl = ctl,
		.interface = interface,
		.member = member,
		.argument = argument,
		.func = func,
		.userdata = userdata };
	int r;

	g_array_set_size(calls, (guint)n); /* never grows: the addresses stay */
	while (sent < n || batch.in_flight > 0) {
		while (sent < n && batch.in_flight < limit) {
			Call *call = &g_array_index(calls, Call, sent);

			*call = (Call){ .batch = &batch, .name = names[sent++] };
			r = send_call(call);
			if (r < 0)
				return r;
		}
		r = sd_bus_process(ctl->bus, NULL);
		if (r == 0)
			r = sd_bus_wait(ctl->bus, UINT64_MAX);
		if (r < 0 && r != -EINTR)
			return r;
	}
	return 0;
}
