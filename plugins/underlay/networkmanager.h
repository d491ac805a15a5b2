/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "util.h"

/* What NetworkManager's objects tell, as far as it takes to know a VPN connection's interface. */

typedef struct EcNmDevice {
	char *interface, *ip_interface; /* the latter "" when it is the same */
	char *ip4, *ip6;                /* object paths, "/" none */
	uint32_t type;
} EcNmDevice;

typedef struct EcNmActive {
	char *id, *uuid, *type;
	char *ip4, *ip6;
	char **devices; /* object paths: what it rides on, for a VPN */
	uint32_t state;
	int vpn; /* a D-Bus boolean */
} EcNmActive;

void ec_nm_device_free(gpointer device);
void ec_nm_active_free(gpointer active);

/* The connection in charge of an interface, NULL none. Both tables are by object path. Pure. */
const EcNmActive *ec_nm_connection(GHashTable *actives, GHashTable *devices, const char *interface);
/* Its name as it can be shown in a sentence; NULL when it has none. */
char *ec_nm_connection_name(const EcNmActive *active);
