/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <jansson.h>

#include "settings.h"
#include "util.h"

/*
 * The client knows the daemon by D-Bus only. What it reads becomes JSON at once (json.c), so that
 * the tables, the status block, --json and the exporter all work on one representation: objects
 * whose keys are the D-Bus property names.
 */

#define CTL_BUS_NAME "org.ethercord1"
#define CTL_ROOT_PATH "/org/ethercord1"
#define CTL_TUNNEL_PATH CTL_ROOT_PATH "/tunnel"
#define CTL_LISTENER_PATH CTL_ROOT_PATH "/listener"
#define CTL_MANAGER "org.ethercord1.Manager"
#define CTL_TUNNEL "org.ethercord1.Tunnel"
#define CTL_LISTENER "org.ethercord1.Listener"
#define CTL_UNDERLAY "org.ethercord1.Underlay"
#define CTL_PROPERTIES "org.freedesktop.DBus.Properties"

/* What the program ends with; part of the contract. */
typedef enum CtlExit {
	CTL_OK = 0,
	CTL_ERROR = 1,
	CTL_USAGE = 2,
	CTL_TIMEOUT = 3,
	CTL_UP_FAILED = 4,
	CTL_DOWN_FAILED = 5,
	CTL_NO_DAEMON = 8,
	CTL_NOT_FOUND = 10,
} CtlExit;

typedef enum CtlJson {
	CTL_JSON_OFF,
	CTL_JSON_SHORT,
	CTL_JSON_PRETTY,
	_CTL_JSON_MAX,
} CtlJson;

typedef struct Ctl Ctl;

typedef enum CtlEventKind {
	CTL_EVENT_ADDED,
	CTL_EVENT_REMOVED,
	CTL_EVENT_CHANGED,
	CTL_EVENT_STEP, /* the signal Event of a tunnel */
	CTL_EVENT_DAEMON_GONE,
	CTL_EVENT_DAEMON_BACK,
} CtlEventKind;

typedef struct CtlEvent {
	CtlEventKind kind;
	const char *name;   /* of the tunnel or listener; NULL for the daemon's coming and going */
	json_t *properties; /* all when added, the new ones when changed, a step's details */
	const char *step;   /* kind of a step */
} CtlEvent;

typedef void (*CtlEventFunc)(Ctl *ctl, const CtlEvent *event, void *userdata);

struct Ctl {
	sd_bus *bus; /* NULL until ctl_open() */

	/* Options */
	int json; /* CtlJson */
	bool no_legend;
	bool save;
	bool up;
	bool no_wait;
	bool all;
	bool peer;
	bool report;
	bool remove;
	unsigned timeout; /* s */
	const char *as;

	/* ctl_watch() */
	CtlEventFunc event;
	void *event_userdata;
};

G_DEFINE_AUTOPTR_CLEANUP_FUNC(json_t, json_decref)

/* Verbs: return an exit code; argv is NULL-terminated and begins with the verb. */
typedef int (*CtlVerb)(Ctl *ctl, int argc, char **argv);
int ctl_verb_list(Ctl *ctl, int argc, char **argv);
int ctl_verb_status(Ctl *ctl, int argc, char **argv);
int ctl_verb_underlays(Ctl *ctl, int argc, char **argv);
int ctl_verb_listeners(Ctl *ctl, int argc, char **argv);
int ctl_verb_listen(Ctl *ctl, int argc, char **argv);
int ctl_verb_peer(Ctl *ctl, int argc, char **argv);
int ctl_verb_add(Ctl *ctl, int argc, char **argv);
int ctl_verb_set(Ctl *ctl, int argc, char **argv);
int ctl_verb_up(Ctl *ctl, int argc, char **argv);
int ctl_verb_down(Ctl *ctl, int argc, char **argv);
int ctl_verb_remove(Ctl *ctl, int argc, char **argv);
int ctl_verb_reload(Ctl *ctl, int argc, char **argv);
int ctl_verb_genkey(Ctl *ctl, int argc, char **argv);
int ctl_verb_setkey(Ctl *ctl, int argc, char **argv);
int ctl_verb_monitor(Ctl *ctl, int argc, char **argv);
int ctl_verb_doctor(Ctl *ctl, int argc, char **argv);
int ctl_verb_export(Ctl *ctl, int argc, char **argv);
int ctl_verb_complete(Ctl *ctl, int argc, char **argv);

/* main.c: for completion, one a line; of a verb, or of all when it is NULL. */
void ctl_print_verbs(void);
void ctl_print_options(const char *verb);

/* show-statistics.c: the property Statistics, for a reader. */
void ctl_show_statistics(const json_t *statistics);

/* settings-help.c: every setting for a reader. */
void ctl_print_settings(void);

/* bus.c */
/* "ethercordctl: SENTENCE" on stderr; returns code. */
int ctl_complain(int code, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* Connects to the system bus; complains itself and returns an exit code. */
int ctl_open(Ctl *ctl);
/* Complains about a failed call: the daemon's own sentence where it gave one. name is the tunnel
 * the call was about, or NULL. The exit code follows the error's name, and is `otherwise` when the
 * name says nothing more precise. */
int ctl_fail(const sd_bus_error *error, int r, const char *name, int otherwise);
char *ctl_tunnel_path(const char *name);
char *ctl_listener_path(const char *name);
/* Whether a listener has this name: no tunnel has then. */
bool ctl_is_listener(Ctl *ctl, const char *name);
/* Every object of the daemon in one call: { path: { interface: { property: value } } }. */
int ctl_get_objects(Ctl *ctl, bool start_daemon, json_t **ret, sd_bus_error *ret_error);
/* The objects that have this interface, as an array of their properties in order of Name. Gives a
 * new reference. */
json_t *ctl_pick(const json_t *objects, const char *interface);
/* Gets all properties of one interface. */
int ctl_get_properties(Ctl *ctl, const char *path, const char *interface, json_t **ret,
		sd_bus_error *ret_error);

/* Calls one method of many tunnels, many at a time, and gives each reply (or error reply) to
 * func. argument is a string argument or NULL. Where no tunnel has the name it is tried on the
 * listener of that name, for which CTL_LISTENER stands in the place of CTL_TUNNEL. */
typedef void (*CtlReplyFunc)(Ctl *ctl, const char *name, sd_bus_message *reply, void *userdata);
int ctl_batch(Ctl *ctl, char **names, const char *interface, const char *member,
		const char *argument, CtlReplyFunc func, void *userdata);

/* change.c */
/* KEY=VALUE words into settings; complains and returns an exit code. */
int ctl_parse_settings(EcSettings *s, char **words);
/* The settings of a thing that is to be made, from NAME and KEY=VALUE words, and the bus it is made
 * by: what is wrong needs no daemon to be said. Complains and returns an exit code. */
int ctl_take_new(Ctl *ctl, EcSettings *s, char **words);
/* Whether a thing was refused as such, rather than accepted and then unable to come up. */
bool ctl_is_about_settings(const sd_bus_error *error);

/* watch.c: calls func for each event of every tunnel and listener from now on; one watch per
 * process. The events come out of sd_bus_process(), in the order in which the daemon sent them. */
int ctl_watch(Ctl *ctl, CtlEventFunc func, void *userdata, sd_bus_error *ret_error);
/* One line of JSON for an event: {"event":…,"name":…, then the properties}. */
void ctl_event_print_json(const char *event, const char *name, const json_t *properties);
/* The same for a step: {"event":"step","name":…,"kind":…,"details":{…}}. */
void ctl_step_print_json(const char *name, const char *kind, const json_t *details);

/* wait.c: follows tunnels until each is up or failed. Made before what brings the tunnels up, so
 * that no state is missed. */
typedef struct CtlWait CtlWait;
int ctl_wait_new(Ctl *ctl, CtlWait **ret, sd_bus_error *ret_error);
CtlWait *ctl_wait_free(CtlWait *w);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(CtlWait, ctl_wait_free)
/* Activates them first when asked to. Complains itself; returns an exit code. */
int ctl_wait_run(CtlWait *w, char **names, bool activate);

/* json.c */
/* Reads one complete value of any type at the cursor: variants are unwrapped, dictionaries are
 * objects, structures are arrays. */
int ctl_json_read(sd_bus_message *m, json_t **ret);
void ctl_json_print(const Ctl *ctl, const json_t *value);
/* for (CtlMember m = ctl_json_first(o); m.key; m = ctl_json_next(o, m)) */
typedef struct CtlMember {
	const char *key; /* NULL: past the end */
	json_t *value;
	void *iter;
} CtlMember;
CtlMember ctl_json_first(const json_t *object);
CtlMember ctl_json_next(const json_t *object, CtlMember m);
/* "" or 0 or false when absent or of another type. */
const char *ctl_json_string(const json_t *object, const char *key);
json_int_t ctl_json_integer(const json_t *object, const char *key);
bool ctl_json_true(const json_t *object, const char *key);
/* Any value as text: lists with commas, booleans yes and no. */
char *ctl_json_text(const json_t *value);

/* table.c: rows of cells fitted to the terminal, or to 80 columns; never wrapped. */
typedef struct CtlTable CtlTable;
CtlTable *ctl_table_new(const char *const *titles);
CtlTable *ctl_table_free(CtlTable *t);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(CtlTable, ctl_table_free)
/* As many strings as titles; NULL and "" show as "-". */
void ctl_table_add(CtlTable *t, const char *const *cells);
void ctl_table_print(const CtlTable *t, bool legend);
/* One aligned line, "KEY:  TEXT"; nothing for an empty text. */
void ctl_field(const char *key, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* Columns of the terminal; $COLUMNS or 80 where there is none. */
size_t ctl_terminal_width(void);
/* Text with control characters replaced, fit for a terminal. */
char *ctl_clean(const char *text);
/* Whether the terminal's character set has "→" and "…". */
bool ctl_is_utf8(void);
/* Escape sequences around the word of a state or a severity, "" when stdout is no terminal. */
const char *ctl_color_of(const char *state);
const char *ctl_color_off(void);

/* export.c */
/* One tunnel as another program would be told about it: settings with everything that the daemon
 * has settled filled in. */
typedef struct CtlExport {
	const EcSettings *given; /* as they are */
	EcSettings *settings;    /* with what the daemon settled */
	const struct CtlExportKind *kind;
	bool ipv6;          /* outer */
	bool fragment;      /* outer fragments carry what the path does not */
	bool peer;          /* mirrored, for the far end */
	uint32_t mtu;       /* bytes, 0: the kernel's own */
	const char *device; /* bound to that interface, or NULL */
} CtlExport;

/* The same as the daemon's encapsulations; the far end, and other programs, need it too. */
typedef struct CtlExportKind {
	const char *name;
	const char *kind4,
			*kind6; /* of the link over IPv4 and IPv6; NULL: not made by the kernel */
	const char *id;         /* the word that `ip link` has for the id, or NULL */
	uint16_t port;          /* default UDP port, or 0 */
	unsigned overhead;      /* bytes between the outer and the inner IP header, without id */
	const char *programs;   /* of others that speak it, where the kernel does not */
	bool ethernet;
	bool fragments; /* can send outer IPv4 fragments of any packet */
	bool fou;
	bool vxlan;
} CtlExportKind;

/* export-*.c: print; an exit code. */
int ctl_export_ip(const CtlExport *e);
int ctl_export_nmcli(const CtlExport *e);
int ctl_export_networkd(const CtlExport *e);
int ctl_export_keyfile(const CtlExport *e);
