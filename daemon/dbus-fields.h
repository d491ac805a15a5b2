/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "util.h"

/* Properties of somebody else's object, read into a struct. */

/* A member of the struct and the property that it is. */
typedef struct EcDbusField {
	const char *name; /* NULL ends a table */
	char type;        /* 's' or 'o': char *; 'u': uint32_t; 'b': int; 'a' of 'o': char ** */
	size_t offset;
} EcDbusField;

/* Reads an a{sv} at the message's cursor over what the struct has; texts are freed and made anew.
 * What is in no row, or has another type, is passed over. */
int ec_dbus_read_fields(sd_bus_message *m, const EcDbusField *table, void *object);
