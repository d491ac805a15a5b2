/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "settings.h"
#include "store.h"

typedef struct EcManager EcManager;
typedef struct EcTunnel EcTunnel;

/*
 * A tunnel that was made for a profile of NetworkManager (setting `profile`) and is not persistent
 * is bound: it lives as long as the program that holds it, which is who added it last. See
 * binding.c.
 */
typedef struct EcBinding EcBinding; /* of one tunnel */
typedef struct EcBindings EcBindings;

/* Nothing is watched without a bus. */
int ec_bindings_new(EcManager *m, EcBindings **ret);
EcBindings *ec_bindings_free(EcBindings *b);
/* After the keyfiles were read: nobody holds those of bound tunnels. */
void ec_bindings_loaded(EcBindings *b);

/* As ec_manager_add(), for the caller of this unique name. A tunnel of this name and profile that
 * is there is adopted: the settings take the place of its own, the caller holds it from now on. */
int ec_bindings_add(EcBindings *b, EcSettings *settings, EcOrigin origin, bool activate,
		const char *caller, EcTunnel **ret, sd_bus_error *ret_error);
/* Whether a tunnel may take these settings, as far as its profile goes. */
int ec_binding_verify(const EcTunnel *t, const EcSettings *to, sd_bus_error *ret_error);
/* Whether the caller may remove it: not one that it was adopted from. */
int ec_binding_verify_removal(const EcTunnel *t, const char *caller, sd_bus_error *ret_error);
EcBinding *ec_binding_free(EcBinding *binding);
/* No profile has to be watched for. */
bool ec_bindings_is_idle(const EcBindings *b);
