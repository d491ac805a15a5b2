/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "util.h"

/*
 * Has NetworkManager bring profiles of ours up where it does not do so itself: with another VPN
 * connection (the profile's up-with), and after it was restarted. See nm-profiles.c.
 */
typedef struct EcNmProfiles EcNmProfiles;

/* runtime_dir: where is kept which VPN connections were followed. */
EcNmProfiles *ec_nm_profiles_new(sd_bus *bus, const char *runtime_dir);
EcNmProfiles *ec_nm_profiles_free(EcNmProfiles *p);
/* NetworkManager is on the bus by this unique name; NULL: it is not. */
void ec_nm_profiles_owner(EcNmProfiles *p, const char *owner);
/* Brings this profile up again as soon as NetworkManager has anything to bring it up on. */
void ec_nm_profiles_restore(EcNmProfiles *p, const char *uuid);
/* That is not wanted any more. */
void ec_nm_profiles_give_up(EcNmProfiles *p, const char *uuid);
/* No profile waits for anything. */
bool ec_nm_profiles_is_idle(const EcNmProfiles *p);
