/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <signal.h>
#include <sys/types.h>

#include "worker-host.h"

/* What a worker was told last is noted beside its socket: the next daemon need not tell it again,
 * which would cost the datagrams that its old UDP socket holds. And which process it is, if it is a
 * child of a daemon's: what the worker says of that is not believed. */
typedef struct EcWorkerNote {
	uint32_t version; /* EC_WORKER_PROTOCOL */
	uint32_t serial;
	EcWorkerSpec spec;
	pid_t pid;      /* 0: somebody else started it */
	uint64_t since; /* ec_worker_process_since() */
} EcWorkerNote;

void ec_worker_note_save(const char *directory, const char *name, const EcWorkerNote *note);
/* Whether there is one, by a daemon of this version. */
bool ec_worker_note_load(const char *directory, const char *name, EcWorkerNote *ret);
/* And the worker's socket. */
void ec_worker_note_forget(const char *directory, const char *name);

/* Starts one: our end of its control connection, or -errno. */
int ec_worker_process_spawn(pid_t *ret, sd_bus_error *ret_error);
/* When it was started, in the kernel's ticks: tells a process from a later one of its number. 0:
 * there is none. */
uint64_t ec_worker_process_since(pid_t pid);
/* Kills it, if it is still that one. -errno. */
int ec_worker_process_kill(pid_t pid, uint64_t since);
/* How it ended, as "the worker ..."; si: NULL when that is not known. Free it. */
char *ec_worker_process_cause(const siginfo_t *si, bool hung);
