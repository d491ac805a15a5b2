/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "manager.h"

/*
 * The answering end of the control channel: the open ports, who comes in on them, and the tunnels
 * made for those that a listener lets in.
 */

int ec_answer_new(EcManager *m, EcAnswer **ret);
EcAnswer *ec_answer_free(EcAnswer *a);
/* Opens and closes ports as the listeners and tunnels that are wanted now need, and sets the
 * listeners' states. After any change of either. */
void ec_answer_refresh(EcAnswer *a);
/* At the start, after the files are read: tunnels of peers, and cords, that an earlier daemon left.
 */
void ec_answer_restore(EcAnswer *a);
