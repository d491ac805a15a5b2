/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "encap/fake.h"

/* The product's table and the fake: what tests link instead. */
const EcEncap *const ec_encaps[] = { &ec_encap_gretap, &ec_encap_gretap_fou, &ec_encap_vxlan,
	&ec_encap_gre, &ec_encap_ipip, &ec_encap_gretap_fou_user, &ec_encap_vxlan_user,
	&ec_encap_raw_udp, &ec_encap_tun_udp, &ec_encap_fake, NULL };
