/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/coalesce.h"

/* Frames go through the coalescer; what comes out is cut again and must be what went in, byte for
 * byte, and of each flow in the same order. Stops the test when it is not. */
typedef struct RoundTrip {
	unsigned emitted; /* how often something came out */
	unsigned supers;  /* of these, super-frames */
	unsigned merged;  /* frames in them */
	/* The last super-frame's */
	unsigned last_frames;
	struct virtio_net_hdr last;
	/* roundtrip.c's own */
	bool ethernet;
	EcCoalesce *coalesce;
	GArray *frames;
} RoundTrip;

RoundTrip *roundtrip_new(bool ethernet);
RoundTrip *roundtrip_free(RoundTrip *t);
void roundtrip_add(RoundTrip *t, const uint8_t *frame, size_t length);
/* Ends the batch: all has come out. */
void roundtrip_flush(RoundTrip *t);
