/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdbool.h>
#include <sys/socket.h>

#include "worker.h"

/* 0 when fd is a UDP socket: *ret_family. -errno. */
int ec_socket_check(int fd, sa_family_t *ret_family);
/* Bits of EcWorkerOffloads that the socket has; switches UDP_GRO on. */
uint32_t ec_socket_offloads(int fd);
/* Whether the device that the socket is bound to was deleted: SO_BINDTODEVICE, socket(7). */
bool ec_socket_is_lost(int fd);
/* The size of an address of that family; 0: no family of ours. */
socklen_t ec_socket_address_size(sa_family_t family);
uint16_t ec_socket_port(const struct sockaddr_storage *a);
/* In host byte order. */
void ec_socket_set_port(struct sockaddr_storage *a, uint16_t port);
/* Address, scope, and port if that is asked for. */
bool ec_socket_same(const struct sockaddr_storage *a, const struct sockaddr_storage *b, bool port);
/* What the kernel knows of the path of a connected socket, bytes; 0: nothing. */
unsigned ec_socket_path_mtu(int fd, sa_family_t family);
