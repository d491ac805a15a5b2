/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "worker.h"

/* Datagrams on their way into the socket: neighbours of one size share a message with UDP_SEGMENT
 * (udp(7)), all messages share one sendmmsg(). The datagrams must stay where they are until
 * ec_batch_send() has returned 0. */
#define EC_BATCH_MESSAGES 256
#define EC_BATCH_PIECES 256
#define EC_BATCH_MEMORY 262144 /* bytes */
#define EC_BATCH_SEGMENTS 64   /* UDP_MAX_SEGMENTS, include/linux/udp.h */
#define EC_BATCH_BYTES 65507   /* of UDP payload in one message */

typedef struct EcBatch EcBatch;

typedef struct EcDatagram {
	const uint8_t *start;
	size_t size;     /* bytes */
	unsigned frames; /* that it completes: 0 or 1 */
	size_t bytes;    /* of them, without headers */
	bool alone;      /* too large for UDP_SEGMENT */
} EcDatagram;

EcBatch *ec_batch_new(void);
EcBatch *ec_batch_free(EcBatch *b);
/* Whether so many datagrams, and so many bytes of its memory, still go in. */
bool ec_batch_fits(const EcBatch *b, unsigned datagrams, size_t bytes);
/* Memory for a datagram, until the batch is sent; what is taken next lies behind it. There must be
 * room. */
uint8_t *ec_batch_take(EcBatch *b, size_t size);
/* There must be room. */
void ec_batch_add(EcBatch *b, const EcPath *path, const EcDatagram *d);
/* 0: all are sent, or refused and counted. -EAGAIN: the socket takes no more now; call it again. */
int ec_batch_send(EcBatch *b, EcWorker *w);
