/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "control.h"

/* The cord of a session: control.c drives it, control-cord.c makes it. */

/* CLOCK_BOOTTIME, µs. */
uint64_t ec_session_now(const EcSession *s);
void ec_session_set_phase(EcSession *s, EcPhase phase, const char *token, const char *sentence);
/* Sets the timer for what is waited for next. */
void ec_session_schedule(EcSession *s);
/* Makes this the cord's channel. leads: this end dialed. */
void ec_session_attach(EcSession *s, EcChannel *c, bool leads);
/* Begins the next round on the channel that this end leads; without one left, ends it. */
void ec_session_choose(EcSession *s);

/* Decides by the session's WELCOME and sends the CHOOSE. The caller has the interface made. */
int ec_cord_choose(EcSession *s, sd_bus_error *ret_error);
/* A cord that worked has been silent for a while: another encapsulation may do, if there is one. */
void ec_cord_try_another(EcSession *s);
/* Takes a CHOOSE, has the interface made and says READY. */
int ec_cord_accept(EcSession *s, const EcControlMessage *choose, sd_bus_error *ret_error);
/* The peer's end of this round is made. */
void ec_cord_ready(EcSession *s);
/* The interface is as agreed: watches it, and has it prove what is to be proven. 1, or -errno. */
int ec_cord_bind(EcSession *s, sd_bus_error *ret_error);
/* There is no path now. */
void ec_cord_pause(EcSession *s);
/* Up; the reason says what the path does not carry. */
void ec_cord_set_live(EcSession *s);
/* Looks again whether the peer is there: the time unattended is over. */
void ec_cord_judge(EcSession *s);
void ec_cord_settle_terms(EcSession *s);
/* Forgets what was agreed; the interface stays until the tunnel's next round. */
void ec_cord_drop(EcSession *s);
/* Frees memory only: the next daemon finds the cord. */
void ec_cord_free(EcSession *s);
