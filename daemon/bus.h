/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manager.h"
#include "polkit.h"

#define EC_BUS_NAME "org.ethercord1"
#define EC_BUS_PATH "/org/ethercord1"
#define EC_BUS_MANAGER EC_BUS_NAME ".Manager"
#define EC_BUS_TUNNEL EC_BUS_NAME ".Tunnel"
#define EC_BUS_LISTENER EC_BUS_NAME ".Listener"
#define EC_BUS_UNDERLAY EC_BUS_NAME ".Underlay"
#define EC_BUS_TUNNEL_PATH EC_BUS_PATH "/tunnel"
#define EC_BUS_LISTENER_PATH EC_BUS_PATH "/listener"
#define EC_BUS_UNDERLAY_PATH EC_BUS_PATH "/underlay"

/* The D-Bus face of the daemon: one per process. */
typedef struct EcBus {
	sd_bus *bus;
	EcManager *manager;
	EcPolkit *polkit;
	GPtrArray *unanswered; /* calls to answer when the doomed interfaces are gone */
} EcBus;

/* Exports everything on `bus` and observes the manager. The name is requested by main. */
int ec_bus_new(sd_bus *bus, EcManager *m, EcBus **ret);
EcBus *ec_bus_free(EcBus *b);
/* No call waits for an answer. */
bool ec_bus_is_idle(const EcBus *b);

/* Every method of every vtable below goes through this handler: it finds the method in the one
 * table of bus.c, has polkit asked, and runs it. */
int ec_bus_method(sd_bus_message *call, void *userdata, sd_bus_error *ret_error);
/* Answers an empty reply, after the doomed interfaces are gone. */
int ec_bus_reply_flushed(EcBus *b, sd_bus_message *call);

/* A bit of an object's `changed`, and the properties that are signalled for it. */
typedef struct EcBusChange {
	unsigned bit;
	const char *names[4];
} EcBusChange;
/* Signals those of n rows whose bits are set. */
void ec_bus_signal_changed(EcBus *b, const char *path, const char *interface,
		const EcBusChange *rows, size_t n, unsigned bits);

/* Free these. */
char *ec_bus_tunnel_path(const EcTunnel *t);
char *ec_bus_listener_path(const EcListener *l);
char *ec_bus_underlay_path(const EcUnderlay *u);

/* A method, after authorisation: reads its arguments, does, replies. -errno or an error: the caller
 * replies with it. */
typedef int (*EcMethod)(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error);

int ec_manager_bus_export(EcBus *b);
int ec_manager_bus_add_tunnel(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error);
int ec_manager_bus_add_listener(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error);
int ec_manager_bus_get_listener(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error);
int ec_manager_bus_get_tunnel(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error);
int ec_manager_bus_remove_tunnels(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error);
int ec_manager_bus_reload(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error);
int ec_manager_bus_diagnose(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error);

int ec_tunnel_bus_export(EcBus *b);
int ec_tunnel_bus_activate(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error);
int ec_tunnel_bus_deactivate(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error);
int ec_tunnel_bus_update(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error);
int ec_tunnel_bus_remove(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error);
int ec_tunnel_bus_set_key(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error);
void ec_tunnel_bus_added(EcTunnel *t, void *userdata);
void ec_tunnel_bus_removed(EcTunnel *t, void *userdata);
void ec_tunnel_bus_changed(EcTunnel *t, unsigned properties, void *userdata);
void ec_tunnel_bus_event(EcTunnel *t, const char *kind, const char *const *pairs, void *userdata);

int ec_listener_bus_export(EcBus *b);
int ec_listener_bus_activate(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error);
int ec_listener_bus_deactivate(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error);
int ec_listener_bus_update(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error);
int ec_listener_bus_remove(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error);
int ec_listener_bus_set_peer(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error);
int ec_listener_bus_remove_peer(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error);
int ec_listener_bus_set_key(EcBus *b, sd_bus_message *call, sd_bus_error *ret_error);
/* Reads a name and an a{sv} at the message's cursor over the peers. */
int ec_listener_bus_read_peer(sd_bus_message *call, GHashTable *peers, sd_bus_error *ret_error);
void ec_listener_bus_added(EcListener *l, void *userdata);
void ec_listener_bus_removed(EcListener *l, void *userdata);
void ec_listener_bus_changed(EcListener *l, unsigned properties, void *userdata);

int ec_underlay_bus_export(EcBus *b);
void ec_underlay_bus_added(EcUnderlay *u, void *userdata);
void ec_underlay_bus_removed(EcUnderlay *u, void *userdata);
void ec_underlay_bus_changed(EcUnderlay *u, void *userdata);
void ec_underlay_bus_listed(void *userdata);
