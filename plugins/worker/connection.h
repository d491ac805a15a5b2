/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "worker.h"

/* The daemon: protocol.h. None of these fails: a connection that is no good is closed, and the
 * daemon comes again. */
void ec_connection_read(EcWorker *w);
void ec_connection_accept(EcWorker *w);
/* Sent if somebody listens; EC_WORKER_PEER says the remote in force. */
void ec_connection_event(EcWorker *w, EcWorkerEventKind kind, int error, const char *format, ...)
		__attribute__((format(printf, 4, 5)));
