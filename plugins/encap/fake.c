/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "encap/fake.h"

static int fill(const EcWire *wire, struct nl_msg *info_data)
{
	(void)wire;
	(void)info_data;
	return 0;
}

static unsigned overhead(const EcWire *wire)
{
	(void)wire;
	return 50;
}

const EcEncap ec_encap_fake = {
	.name = "fake",
	.kind4 = "ifb",
	.kind6 = "ifb",
	.flags = EC_ENCAP_ETHERNET,
	.id_max = UINT32_MAX,
	.fill = fill,
	.overhead = overhead,
};
