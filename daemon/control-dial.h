/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "control.h"

/* The dialing end of a session. */

/* How long a cord may be unattended whose peer was dialled: the time its daemon takes to come back;
 * anew each time that its machine refuses a connection. */
#define EC_DIAL_AWAY_USEC 10000000ULL

/* Dials if there is reason to: no channel, one by a way that is no more, or a peer that does not
 * answer. */
void ec_dial_keep(EcSession *s);
void ec_dial_drop(EcSession *s);
/* An attempt ended with this. A cord that is there goes on. */
void ec_dial_failed(EcSession *s, const sd_bus_error *why);
/* The peer sent a REFUSE. */
void ec_dial_refused(EcSession *s, const EcControlMessage *m);
/* Tries again later: 0.2 s, doubling to 30 s. */
void ec_dial_later(EcSession *s);
