/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* The opposite of segment.h: TCP segments that follow each other in one flow become one super-frame
 * for the device. Pure: no system call, no allocation after the start. What goes out, cut again, is
 * what came in, byte for byte; frames of one flow leave in the order in which they came. Nothing is
 * held beyond ec_coalesce_flush(), which ends each batch. UDP is never merged
 * (data-plane-study.md §5.4). A segment whose checksum is wrong is never merged; one that is left
 * to do, the device is told of. */
typedef struct EcCoalesce EcCoalesce;

/* n pieces of memory that are one frame: the headers first. Valid until it returns. */
typedef void (*EcCoalesceEmit)(const struct virtio_net_hdr *v, const struct iovec *pieces, int n,
		unsigned frames, void *userdata);

#define EC_COALESCE_FLOWS 16
#define EC_COALESCE_PIECES 65 /* at most, in one super-frame */

EcCoalesce *ec_coalesce_new(bool ethernet, EcCoalesceEmit emit, void *userdata);
EcCoalesce *ec_coalesce_free(EcCoalesce *c);
/* The largest frame that the path carries whole, bytes: what is larger and has its TCP checksum
 * left to do, is a super-frame that nobody cut. 0, as at first: there are none. */
void ec_coalesce_set_room(EcCoalesce *c, size_t room);
/* The memory stays valid and unchanged until the next flush. */
void ec_coalesce_add(EcCoalesce *c, const uint8_t *frame, size_t length);
/* Emits it alone, at once. */
void ec_coalesce_pass(EcCoalesce *c, const uint8_t *frame, size_t length);
/* The same for a super-frame of UDP's that nobody cut, of datagrams of `size` bytes; false: it is
 * none. */
bool ec_coalesce_uncut(EcCoalesce *c, const uint8_t *frame, size_t length, size_t size);
void ec_coalesce_flush(EcCoalesce *c);
