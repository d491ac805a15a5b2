/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

/* Packets and file descriptors over SOCK_SEQPACKET unix sockets, none of them blocking. */

/* fd or -errno. */
int ec_worker_connect(const char *directory, const char *name);
/* The same; a socket of that name that is there is replaced. */
int ec_worker_listen(const char *directory, const char *name);
#define EC_WORKER_FDS 4 /* at most, in one packet */
/* 0 or -errno. */
int ec_worker_send(int socket, const void *message, size_t size, const int *fds, size_t n);
/* Bytes, 0 at the end, or -errno. fds: -1 where there is none. */
ssize_t ec_worker_receive(int socket, void *buffer, size_t size, int fds[static EC_WORKER_FDS]);

/* Makes text of somebody else fit for logs and the bus: ended, and of printable ASCII. */
void ec_worker_clean(char *text, size_t size);
/* Whether so many bytes of a memfd can be read whatever its other owner does: it is that large, and
 * sealed against shrinking. */
bool ec_worker_memory_is_whole(int fd, size_t size);
/* Where the program is, or NULL: beside the daemon's own, as installed or as built. Free it. */
char *ec_worker_program(void);
