/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "encap.h"

/*
 * How large frames may get. Pure arithmetic on what the settings ask, what the encapsulation adds
 * and what the path carries; see ethercord(5), mtu and full-frames.
 */

/* An automatic MTU is never chosen below this: every IPv4 host takes datagrams of that size
 * (RFC 791), and a path that claims less is in error or lies. */
#define EC_MTU_MIN 576
/* What the kernel takes for an Ethernet-like link, and so what the setting may be. */
#define EC_MTU_KERNEL_MIN 68
/* Ethernet's, assumed where nothing is known. */
#define EC_MTU_ETHERNET 1500

typedef struct EcMtu {
	uint32_t mtu;           /* of the tunnel's interface */
	uint32_t largest_frame; /* bytes that cross whole: with the Ethernet header, or, where the
				   encapsulation carries IP, without one */
	bool fragment;          /* for EcWire */
	uint32_t whole;         /* the largest inner IP packet that needs no outer fragment */
	uint32_t gso_segments;  /* IFLA_GSO_MAX_SEGS of a user-space device; 0: left as it is */
} EcMtu;

/* path_mtu: of the path to the peer, 0 = unknown. bridge_mtu: of the bridge that the tunnel joins
 * here, without this tunnel's own influence on it; 0 = none or unknown. Of the wire only what
 * overhead() looks at matters: addresses and id. */
void ec_mtu_choose(const EcSettings *s, const EcEncap *e, const EcWire *w, uint32_t path_mtu,
		uint32_t bridge_mtu, EcMtu *ret);
