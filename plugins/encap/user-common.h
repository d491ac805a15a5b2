/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "encap.h"
#include "worker/protocol.h"

/* What all formats of ethercord-worker share: a TUN device instead of a link of the kernel's, and
 * one UDP socket that the daemon binds to the VPN's device, address and mark. */
#define EC_USER_KIND "tun"
#define EC_USER_FLAGS                                                                              \
	(EC_ENCAP_UDP | EC_ENCAP_BINDS | EC_ENCAP_FRAGMENTS_V4 | EC_ENCAP_FRAGMENTS_V6 |           \
			EC_ENCAP_FWMARK)

/* IFLA_INFO_DATA as the kernel reports it of such a device: with Ethernet, or with IP. It cannot be
 * set: a device of another sort is made anew. */
int ec_user_fill_tap(const EcWire *wire, struct nl_msg *info_data);
int ec_user_fill_tun(const EcWire *wire, struct nl_msg *info_data);
