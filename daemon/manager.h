/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "binding.h"
#include "config.h"
#include "kernel-watch.h"
#include "listener.h"
#include "tunnel.h"

/*
 * The manager owns the tunnels, the underlays in use and the connection to the kernel. It knows no
 * messages: the bus face observes it.
 */
typedef struct EcManagerObserver {
	void (*added)(EcTunnel *t, void *userdata);   /* after it is in the table */
	void (*removed)(EcTunnel *t, void *userdata); /* before it leaves the table */
	void (*changed)(EcTunnel *t, unsigned properties, void *userdata);
	void (*listener_added)(EcListener *l, void *userdata);
	void (*listener_removed)(EcListener *l, void *userdata);
	void (*listener_changed)(EcListener *l, unsigned properties, void *userdata);
	/* pairs: key, text, key, text..., NULL */
	void (*event)(EcTunnel *t, const char *kind, const char *const *pairs, void *userdata);
	void (*flushed)(void *userdata); /* every interface to be deleted is gone */
	void *userdata;
} EcManagerObserver;

typedef struct EcAnswer EcAnswer;

struct EcManager {
	sd_event *event;
	sd_bus *bus;
	EcConfig config;
	EcStore *store;
	EcKernel *kernel;
	EcKernelWatch *watch;
	EcManagerObserver observer;

	GHashTable *tunnels;    /* name -> EcTunnel */
	GHashTable *listeners;  /* name -> EcListener */
	EcAnswer *answer;       /* the open control ports */
	GHashTable *by_ifindex; /* ifindex -> EcTunnel */
	EcUnderlays *underlays;
	EcGuard *guard;
	EcBindings *bindings;
	uint8_t seed[32];

	bool sweep;            /* look at every interface */
	bool recheck;          /* the guard's routes or policies may be incomplete */
	GHashTable *strangers; /* tagged interfaces that no tunnel knows: a reason to sweep */
	int lock_fd;           /* says to others in this network namespace that we are here; -1 */
	bool sweeps;           /* we were the first here */
	uint64_t worked_usec;
	sd_event_source *work;    /* timer: dirty tunnels, sweep */
	sd_event_source *flush;   /* idle: deletes the doomed */
	GArray *doomed;           /* ifindexes */
	GHashTable *capabilities; /* EcEncap -> until when it is known not to be there, or for ever
				   */
	char **capability_words;
};

int ec_manager_new(sd_event *event, sd_bus *bus, const EcConfig *config, EcManager **ret,
		sd_bus_error *ret_error);
EcManager *ec_manager_free(EcManager *m);

/* Reads the keyfiles, adopts what the kernel has, brings up what should be. Broken files are
 * logged. */
void ec_manager_start(EcManager *m);
/* Reads the keyfiles again: new ones are added, changed ones updated, vanished ones removed. A
 * broken file changes nothing about its tunnel; ret_error names the first. */
int ec_manager_reload(EcManager *m, sd_bus_error *ret_error);

EcTunnel *ec_manager_find(EcManager *m, const char *name);
/* Takes the settings over in any case. With activate, a tunnel that fails at once is not added. */
int ec_manager_add(EcManager *m, EcSettings *settings, EcOrigin origin, bool activate,
		EcTunnel **ret, sd_bus_error *ret_error);
/* Takes the settings over in any case; they replace the tunnel's. save: and go to its file. On
 * failure everything is as before. */
int ec_manager_update(EcManager *m, EcTunnel *t, EcSettings *settings, bool save,
		sd_bus_error *ret_error);
int ec_manager_remove(EcManager *m, EcTunnel *t, sd_bus_error *ret_error);
bool ec_manager_is_idle(const EcManager *m);

/* Adds a tunnel from its file: nothing is written, activated or deleted. */
int ec_manager_load(EcManager *m, EcSettings *settings, EcOrigin origin, EcTunnel **ret,
		sd_bus_error *ret_error);
/* Settles whose every interface is; see manager.c. */
void ec_manager_sweep(EcManager *m);

/* For tunnels. */
/* Another tunnel whose interface the kernel could not tell from one with this wire; or NULL. */
EcTunnel *ec_manager_twin(
		EcManager *m, const EcTunnel *t, const EcEncap *encap, const EcWire *wire);
/* Whether an interface of this kind with this id would be none of the other tunnels'. port: ours,
 * where the kind has one; remote: of the peer. */
bool ec_manager_id_is_free(EcManager *m, const EcEncap *encap, uint32_t id, uint16_t port,
		const EcAddress *remote, const EcTunnel *but);
/* A UDP port of ours for a tunnel to this remote: `wanted` or the next after it that no other
 * tunnel has towards the same remote, as far as the encapsulation needs that. */
uint16_t ec_manager_free_port(EcManager *m, const EcEncap *encap, uint16_t wanted,
		const EcAddress *remote, const EcTunnel *but);
/* Whether no tunnel has this id, whatever its kind. */
bool ec_manager_id_is_unused(EcManager *m, uint32_t id);
/* A tunnel for a peer that a listener let in. Takes the settings over in any case. */
int ec_manager_accept(EcManager *m, EcListener *l, EcSettings *settings, EcTunnel **ret,
		sd_bus_error *ret_error);
/* The end of such a tunnel; its interface goes with the next flush. */
void ec_manager_forget(EcManager *m, EcTunnel *t);
/* Whether another wanted tunnel uses this bridge. */
bool ec_manager_bridge_in_use(EcManager *m, const char *bridge, const EcTunnel *but);
/* Deletes an interface with the next flush; many at once cost as much as one. */
void ec_manager_doom(EcManager *m, int ifindex);
/* Deletes the doomed now, and then the fences of tunnels that are gone. */
void ec_manager_flush(EcManager *m);
/* The same as soon as the bus is silent. */
void ec_manager_flush_later(EcManager *m);
/* Whether a tunnel but this one wants an interface of this name. */
bool ec_manager_ifname_taken(EcManager *m, const char *ifname, const EcTunnel *but);
/* Marks a tunnel, or with NULL all, for the next round. */
void ec_manager_mark(EcManager *m, EcTunnel *t);
/* A stable MAC for `purpose` and name: locally administered, unicast. */
void ec_manager_mac(EcManager *m, const char *purpose, const char *name, uint8_t ret[static 6]);

/* "gretap/kernel", ...: what this kernel made when it was asked to just now or the last time.
 * NULL-terminated, owned by the manager. */
char **ec_manager_encapsulations(EcManager *m);
/* Whether this kernel makes interfaces of this kind over IPv4. */
bool ec_manager_can_do(EcManager *m, const EcEncap *encap);
