/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "util.h"

/*
 * What strongSwan's daemon calls the IPsec connections, asked over its VICI socket. Names only:
 * nothing depends on it, and any fault merely ends it until the next try.
 */
typedef struct EcVici EcVici;

/* changed: names came or went; called from the event loop. */
EcVici *ec_vici_new(sd_event *event, void (*changed)(void *userdata), void *userdata);
EcVici *ec_vici_free(EcVici *v);
/* Connects and tries again now and then, or gives up. To be called whenever policies changed. */
void ec_vici_want(EcVici *v, bool want);
/* "CONNECTION/CHILD" of a policy's reqid, or NULL. */
const char *ec_vici_name(const EcVici *v, uint32_t reqid);
/* Talks over this socket, which it closes; -errno. */
int ec_vici_attach(EcVici *v, int fd);
bool ec_vici_attached(const EcVici *v);

#define EC_VICI_DEPTH 8

/* One place in a message: the names of the sections it is in, outermost first. */
typedef struct EcViciPlace {
	unsigned depth;
	char *names[EC_VICI_DEPTH];
} EcViciPlace;

/* Calls value() for each key and leave() at each section's end. The texts have no NUL byte but need
 * not be UTF-8. 0, or -EBADMSG for a malformed message; calls were made then. */
typedef struct EcViciVisitor {
	void (*value)(const EcViciPlace *at, const char *key, const char *value, void *userdata);
	void (*leave)(const EcViciPlace *at, void *userdata);
	void *userdata;
} EcViciVisitor;
int ec_vici_parse(const uint8_t *data, size_t size, const EcViciVisitor *visitor);
