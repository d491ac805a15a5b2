/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Which frames may be one flow, and so must not overtake each other. Pure. */
typedef struct EcFlow {
	uint32_t pair; /* of whom: addresses, or what there is above the link */
	uint32_t flow; /* the same with protocol and ports */
	bool exact;    /* ports are known: no fragment, no IPv6 extension header */
} EcFlow;

/* Equal flows have equal numbers; different ones mostly have different ones. */
EcFlow ec_flow(const uint8_t *frame, size_t length, bool ethernet);
/* Where the network header begins, behind VLAN tags; 0 for bare IP. At most length. */
size_t ec_flow_network(const uint8_t *frame, size_t length, bool ethernet);
