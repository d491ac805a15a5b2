/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "encap/user-common.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>

static int fill(uint8_t type, struct nl_msg *m)
{
	if (nla_put_u8(m, IFLA_TUN_TYPE, type) < 0 || nla_put_u8(m, IFLA_TUN_PI, 0) < 0 ||
			nla_put_u8(m, IFLA_TUN_VNET_HDR, 1) < 0)
		return -ENOBUFS;
	return 0;
}

int ec_user_fill_tap(const EcWire *wire, struct nl_msg *info_data)
{
	return fill(IFF_TAP, info_data);
}

int ec_user_fill_tun(const EcWire *wire, struct nl_msg *info_data)
{
	return fill(IFF_TUN, info_data);
}
