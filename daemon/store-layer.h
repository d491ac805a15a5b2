/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "keyfile.h"
#include "store.h"

/* What the files of the store share. */
struct EcStore {
	char *tunnels[_EC_ORIGIN_MAX]; /* directories of keyfiles; NULL: none */
	char *listeners[_EC_ORIGIN_MAX];
	char *keys;
	char *records;
	char *state;
	char *runtime;
};

/* Removes the keyfile of this name, durably; Refused where it belongs to a package. 0 also when it
 * is gone already. */
int ec_store_unlink(char *const *directories, EcOrigin origin, const char *name,
		sd_bus_error *ret_error);
