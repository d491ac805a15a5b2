/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <syslog.h>

#include "util.h"

typedef struct EcTunnel EcTunnel;

/* To the journal, with ETHERCORD_TUNNEL= and ETHERCORD_INTERFACE= fields; to stderr in the
 * foreground or where there is no journal. What is about a tunnel of a profile of NetworkManager
 * has its NM_CONNECTION= field, which nmcli's hints ask for. Sentences hold no secrets. */
void ec_log_to_terminal(bool yes);
void ec_log(int priority, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* About a profile of NetworkManager. */
void ec_log_profile(int priority, const char *uuid, const char *format, ...) G_GNUC_PRINTF(3, 4);
void ec_log_tunnel(int priority, const EcTunnel *t, const char *format, ...) G_GNUC_PRINTF(3, 4);
