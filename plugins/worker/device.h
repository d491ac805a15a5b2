/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* 0 when fd is an open TAP (or TUN, unless `ethernet`) with IFF_NO_PI and IFF_VNET_HDR; makes it
 * non-blocking, with a virtio header of 10 bytes. -EINVAL and others, with *ret_text saying what.
 */
int ec_device_prepare(int fd, bool ethernet, const char **ret_text);
/* Switches on what kernel and device have, best first: EcWorkerOffloads. */
uint32_t ec_device_offloads(int fd);
