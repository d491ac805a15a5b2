/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <syslog.h>

#include "util.h"

typedef struct EcTunnel EcTunnel;

/* To the journal, with ETHERCORD_TUNNEL= and ETHERCORD_INTERFACE= fields; to stderr in the
 * foreground or where there is no journal. Sentences hold no secrets. */
void ec_log_to_terminal(bool yes);
void ec_log(int priority, const char *format, ...) G_GNUC_PRINTF(2, 3);
void ec_log_tunnel(int priority, const EcTunnel *t, const char *format, ...) G_GNUC_PRINTF(3, 4);
