/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "profile.h"

/*
 * nm-ethercord-service: one process for one activation of one connection of NetworkManager. It
 * stands between two programs, and knows both by D-Bus only:
 *
 *   plugin.c      what NetworkManager calls, and the signals that it waits for
 *   service.c     what happens when: the table of situations is there
 *   connection.c  the connection as NetworkManager hands it over
 *   cord.c        the tunnel, at org.ethercord1
 *   bridge.c      the bridge that the tunnel is to join, where NetworkManager has it
 *   port.c        the profile by which NetworkManager configures the tunnel's interface
 *   gateway.c     the address that NetworkManager may make a route to
 *   bus.c         asking without waiting
 *   journal.c     sentences for people
 */

#define EC_SVC_NM "org.freedesktop.NetworkManager"
#define EC_SVC_NM_PATH "/org/freedesktop/NetworkManager"
#define EC_SVC_NM_ACTIVE EC_SVC_NM ".Connection.Active"
#define EC_SVC_NM_DEVICE EC_SVC_NM ".Device"
#define EC_SVC_DAEMON "org.ethercord1"
#define EC_SVC_DAEMON_PATH "/org/ethercord1"
#define EC_SVC_MANAGER EC_SVC_DAEMON ".Manager"
#define EC_SVC_TUNNEL EC_SVC_DAEMON ".Tunnel"
#define EC_SVC_UNDERLAY EC_SVC_DAEMON ".Underlay"
#define EC_SVC_PROPERTIES "org.freedesktop.DBus.Properties"

/* NMVpnPluginFailure: what nmcli and the applets have a sentence for. */
typedef enum EcSvcFailure {
	EC_SVC_FAILURE_LOGIN = 0,   /* "Invalid secrets" */
	EC_SVC_FAILURE_CONNECT = 1, /* "Unknown reason" */
	EC_SVC_FAILURE_CONFIG = 2,  /* "The VPN service returned invalid configuration" */
} EcSvcFailure;

/* NMVpnServiceState */
typedef enum EcSvcState {
	EC_SVC_STATE_INIT = 1,
	EC_SVC_STATE_STARTING = 3,
	EC_SVC_STATE_STARTED = 4,
	EC_SVC_STATE_STOPPING = 5,
	EC_SVC_STATE_STOPPED = 6,
} EcSvcState;

/* NMActiveConnectionState */
typedef enum EcSvcActiveState {
	EC_SVC_ACTIVE_ACTIVATED = 2,
	EC_SVC_ACTIVE_DEACTIVATED = 4,
} EcSvcActiveState;

/* NMDeviceState: from the first to the last of these a controller takes ports. */
#define EC_SVC_DEVICE_PREPARE 40
#define EC_SVC_DEVICE_IP_CONFIG 70
#define EC_SVC_DEVICE_ACTIVATED 100

typedef struct EcService EcService;

/* bus.c */

typedef struct EcSvcProperty {
	const char *name;
	const char *type; /* "s", "o", "y", "u", "i", "b", "ao"; "(ss)": the two as one char *[2] */
	size_t offset;
} EcSvcProperty;

/* One question at a time: a new one, or done, takes the old one back. */
typedef struct EcSvcCall {
	sd_bus *bus;
	sd_bus_slot *slot;
} EcSvcCall;

void ec_svc_call_done(EcSvcCall *call);
/* Sends a message; func has the answer, or an error that is made in its place. */
void ec_svc_call_send(
		EcSvcCall *call, sd_bus_message *m, sd_bus_message_handler_t func, void *userdata);
/* Calls a method of NetworkManager, which is not started by it. */
void ec_svc_call_nm(EcSvcCall *call, const char *path, const char *interface, const char *member,
		sd_bus_message_handler_t func, void *userdata, const char *types, ...);
/* Asks for all properties of one interface of an object. */
void ec_svc_call_get_all(EcSvcCall *call, const char *destination, const char *path,
		const char *interface, sd_bus_message_handler_t func, void *userdata);
/* Reads an a{sv}; what is not in the table, or has another type, is passed over. Ends with an entry
 * without a name. */
int ec_svc_read_properties(sd_bus_message *m, const EcSvcProperty *table, void *object);
/* Enters the a{sv} of setting `name` in an a{sa{sv}}: 1, or 0 when there is none. */
int ec_svc_enter_setting(sd_bus_message *m, const char *name);

/* connection.c */

typedef struct EcSvcConnection {
	sd_bus_message *message; /* a{sa{sv}} as it came */
	char *id, *uuid, *zone;
	char *method4, *method6;
	int persistent;
	int may_fail4, may_fail6;
	int32_t ra_timeout; /* s; 0: not given */
	EcProfile *profile;
	char *name; /* of the tunnel */
} EcSvcConnection;

/* Keeps the message. On failure *ret has what could be read, for the journal. */
int ec_svc_connection_read(sd_bus_message *m, EcSvcConnection **ret, sd_bus_error *ret_error);
EcSvcConnection *ec_svc_connection_free(EcSvcConnection *c);
/* Whether the key has to be asked for before it makes sense to connect. */
bool ec_svc_connection_needs_key(const EcSvcConnection *c);
/* By what NetworkManager is to find addresses on the tunnel; its own words, "auto" or "dhcp". NULL:
 * not at all. settings: of the tunnel, which may be another's. */
const char *ec_svc_connection_method(
		const EcSvcConnection *c, const EcSettings *settings, bool layer2, bool six);
/* Whether the tunnel, which is ours, is to have no IPv6 but what the connection says. Method
 * "ignore" leaves it to the kernel. */
bool ec_svc_connection_refuses_ra(const EcSvcConnection *c);
/* Copies those keys of setting `from` that are there into an open a{sv}. */
int ec_svc_connection_copy(const EcSvcConnection *c, const char *from, const char *const *keys,
		sd_bus_message *to);

/* cord.c */

typedef struct EcSvcCord {
	EcService *service;
	EcSvcCall call, look;
	sd_bus_slot *slots[3];
	sd_event_source *retry;
	EcSettings *settings; /* the daemon's; NULL until they were read */
	char *path;
	char *state;     /* NULL until it was read */
	char *reason[2]; /* token and sentence */
	char *interface, *encapsulation, *bridge, *remote, *underlay;
	uint32_t ifindex;
	int protect;
	uint64_t gone_usec; /* when the daemon went; 0: it is there */
	bool ours;          /* made by us, or brought up by us */
} EcSvcCord;

void ec_svc_cord_start(EcSvcCord *c, EcService *s);
/* Whether the tunnel carries Ethernet. */
bool ec_svc_cord_is_layer2(const EcSvcCord *c);
bool ec_svc_cord_is(const EcSvcCord *c, const char *state);
/* Takes the tunnel away again; ec_svc_on_cord_gone() follows. */
void ec_svc_cord_stop(EcSvcCord *c);
void ec_svc_cord_done(EcSvcCord *c);

/* bridge.c */

typedef struct EcSvcBridge {
	EcService *service;
	EcSvcCall call;
	sd_event_source *retry;
	GPtrArray *profiles; /* object paths that are still to be looked at */
	char *profile;       /* the best of those that were: its object path */
	int autoconnect;     /* and what it has of these */
	int32_t priority;
	uint64_t timestamp;
	char *active; /* of the profile that we brought up */
	bool ended;   /* that activation is over */
	uint64_t deadline;
	bool managed; /* NetworkManager has it, and it is up: a port profile puts us in it */
} EcSvcBridge;

/* ec_svc_on_bridge() follows, or ec_svc_fail(). */
void ec_svc_bridge_start(EcSvcBridge *b, EcService *s);
void ec_svc_bridge_done(EcSvcBridge *b);

/* port.c, port-settings.c */

/* A sort of device, as NetworkManager describes it and as a profile does. */
typedef struct EcSvcPortKind {
	uint32_t type;         /* NMDeviceType */
	const char *interface; /* of the device's properties */
	const char *setting;   /* connection.type */
	const struct EcSvcPortField *fields;
} EcSvcPortKind;

typedef struct EcSvcPort {
	EcService *service;
	EcSvcCall call;
	sd_bus_slot *match;
	sd_event_source *retry;
	const EcSvcPortKind *kind;
	char *device, *active;      /* object paths */
	char *parent;               /* interface that the device names as its own */
	sd_bus_message *properties; /* of the device, by its kind */
	const char *controller;     /* the bridge; NULL: none */
	const char *method4, *method6;
	uint64_t deadline;
	bool optional; /* nothing but router advertisements, which may come late or never */
	bool ready;    /* ec_svc_on_port() was called */
	bool settled;  /* NetworkManager has called it activated */
} EcSvcPort;

/* Whether there is anything for NetworkManager to do on the interface. */
bool ec_svc_port_is_wanted(const EcService *s);
/* ec_svc_on_port() follows, or ec_svc_on_port_refused(), or then or later ec_svc_on_port_lost(). */
void ec_svc_port_start(EcSvcPort *p, EcService *s);
void ec_svc_port_done(EcSvcPort *p);
const EcSvcPortKind *ec_svc_port_kind(uint32_t type);
/* Object of the device that the properties name as parent; NULL: none. */
char *ec_svc_port_parent(const EcSvcPort *p);
/* Appends the a{sa{sv}} of the port's profile. */
int ec_svc_port_append(const EcSvcPort *p, sd_bus_message *m);

/* gateway.c */

typedef struct EcSvcGateway {
	EcService *service;
	EcSvcCall call;
	char *base;  /* interface that NetworkManager takes the connection to ride on */
	char *under; /* interface that the tunnel's packets leave by */
} EcSvcGateway;

/* ec_svc_on_gateway() follows. */
void ec_svc_gateway_start(EcSvcGateway *g, EcService *s);
/* Appends the variant of Config's `gateway`. */
int ec_svc_gateway_append(const EcSvcGateway *g, sd_bus_message *m);
void ec_svc_gateway_done(EcSvcGateway *g);

/* service.c */

typedef enum EcSvcPhase {
	EC_SVC_PHASE_IDLE,    /* not asked yet */
	EC_SVC_PHASE_BRIDGE,  /* a bridge of NetworkManager's is brought up */
	EC_SVC_PHASE_CORD,    /* the tunnel is not up yet */
	EC_SVC_PHASE_PORT,    /* NetworkManager configures its interface */
	EC_SVC_PHASE_GATEWAY, /* Config is being put together */
	EC_SVC_PHASE_STARTED, /* activated */
	EC_SVC_PHASE_SECRETS, /* NetworkManager asks somebody for the key */
	EC_SVC_PHASE_STOPPED, /* said so; the tunnel may still have to go */
	_SVC_PHASE_MAX,
} EcSvcPhase;

struct EcService {
	sd_event *event;
	sd_bus *bus;
	const char *name; /* on the bus */
	char *active;     /* object of our activation; NULL: not known */
	sd_bus_slot *slots[4];
	sd_event_source *grace, *again, *reapply_again;
	EcSvcPhase phase;
	bool interactive;   /* somebody may be asked for the key */
	bool was_started;   /* NetworkManager has had Config */
	bool restart;       /* the tunnel is taken away to be made anew */
	bool lenient;       /* while grace runs: whatever the state is */
	uint32_t ifindex;   /* of the interface in the last Config */
	unsigned failures;  /* of the port in a row, with vpn.persistent */
	unsigned asked;     /* how often for the key */
	unsigned reapplied; /* how often in a row */
	char *told;         /* last sentence in the journal */
	EcSvcCall reapply;
	EcSvcConnection *connection;
	EcSvcCord cord;
	EcSvcBridge bridge;
	EcSvcPort port;
	EcSvcGateway gateway;
};

/* Takes the connection over; `broken` is what is wrong with it, or NULL. */
void ec_svc_connect(EcService *s, EcSvcConnection *c, const sd_bus_error *broken, bool interactive);
void ec_svc_new_key(EcService *s, EcSvcConnection *c, const sd_bus_error *broken);
/* As the user wants it, or NetworkManager. */
void ec_svc_disconnect(EcService *s);
/* NetworkManager shows it as activated. */
void ec_svc_on_activated(EcService *s);
/* NetworkManager went: what it knew it forgot, the tunnel stays. */
void ec_svc_abandon(EcService *s);
/* Ends the activation: the sentence goes to the journal, the code to NetworkManager. */
void ec_svc_fail(EcService *s, EcSvcFailure code, const char *format, ...) G_GNUC_PRINTF(3, 4);
void ec_svc_done(EcService *s);

/* What the parts tell. */
void ec_svc_on_bridge(EcService *s);
void ec_svc_on_cord(EcService *s);
void ec_svc_on_cord_error(EcService *s, const sd_bus_error *error);
void ec_svc_on_cord_gone(EcService *s);
void ec_svc_on_daemon_gone(EcService *s);
void ec_svc_on_port(EcService *s);
void ec_svc_on_port_lost(EcService *s, const char *why);
/* NetworkManager will not have the interface. */
void ec_svc_on_port_refused(EcService *s, const char *why);
void ec_svc_on_gateway(EcService *s);

/* plugin.c */

int ec_svc_plugin_add(EcService *s);
void ec_svc_plugin_state(EcService *s, EcSvcState state);
void ec_svc_plugin_failure(EcService *s, EcSvcFailure code);
/* The interface that the connection is said to have. */
void ec_svc_plugin_config(EcService *s, const char *interface);
void ec_svc_plugin_secrets(EcService *s, const char *sentence);

/* journal.c */

/* A sentence about the connection; the same one is not told twice in a row. */
void ec_svc_tell(EcService *s, int priority, const char *format, ...) G_GNUC_PRINTF(3, 4);
