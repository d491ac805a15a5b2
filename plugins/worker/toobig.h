/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A packet that must not be fragmented and is larger than the cord carries is answered in the name
 * of its destination, as the kernel's VXLAN does (net/ipv4/ip_tunnel_core.c,
 * skb_tunnel_check_pmtu): ICMP 3/4 (RFC 792, 1191) or ICMPv6 2 (RFC 4443). Pure. */
#define EC_TOO_BIG_MAX 1500 /* the largest answer, with its link header */

/* Writes the answer to a frame (bare IP unless `ethernet`): its size; 0 when none is due: no IP, or
 * one that fits; IPv4 that may be fragmented; a fragment but the first; an ICMP error; multicast,
 * broadcast or no sender; mtu below 68, over IPv6 below 1280 (RFC 8201: nobody would heed it). VLAN
 * tags stay as they are. mtu: the largest IP packet that fits, bytes. */
size_t ec_too_big(const uint8_t *frame, size_t length, bool ethernet, unsigned mtu,
		uint8_t ret[static EC_TOO_BIG_MAX]);
