/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "worker.h"

/* From the socket into the device. */
EcReceive *ec_receive_new(EcWorker *w);
EcReceive *ec_receive_free(EcReceive *r);
/* Once w->ethernet is known. -ENOMEM. */
int ec_receive_set_kind(EcWorker *w);
/* The path, the format or the device's offloads are others. */
void ec_receive_set_path(EcWorker *w);
/* Takes a batch: true if there was one. */
bool ec_receive(EcWorker *w);
/* The socket has an error to tell: takes it away, with those that somebody asked to be kept. */
void ec_receive_errors(EcWorker *w);
/* For epoll_wait(), ms: -1 unless pieces wait for others; and when that is over. */
int ec_receive_timeout(const EcWorker *w);
void ec_receive_expire(EcWorker *w);
