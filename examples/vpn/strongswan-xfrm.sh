# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2154
# strongSwan between two sites, through an XFRM interface. examples/vpn/openvpn.sh says what
# examples/lib.sh wants of it.

# shellcheck source=strongswan.sh
. "$examples/vpn/strongswan.sh"

# shellcheck disable=SC2034
{
	vpn_title="IPsec on ipsec0"
	if_id=42
}

vpn_lacks() {
	needs "XFRM interfaces (IPsec)" ip link add ipsec0 type xfrm dev lo if_id 1
}

# xfrm_interface SITE INSIDE PEER-NET
xfrm_interface() {
	ip -n "$tag-$1" link add ipsec0 type xfrm dev eth0 if_id $if_id
	ip -n "$tag-$1" address add "$2/32" dev ipsec0
	ip -n "$tag-$1" link set ipsec0 up
	ip -n "$tag-$1" route add "$3" dev ipsec0 src "$2"
}

vpn_addresses() {
	xfrm_interface laptop $laptop_inside 10.50.2.0/24
	xfrm_interface office $office_inside 10.50.1.0/24
}

# The interface drops by itself what it has no policy for. Worse is to lose it: then the default route
# leads outside.
vpn_worse() { type_at laptop ip link delete ipsec0; }

vpn_up() {
	type_at laptop ip link add ipsec0 type xfrm dev eth0 if_id $if_id
	type_at laptop ip address add $laptop_inside/32 dev ipsec0
	type_at laptop ip link set ipsec0 up
	type_at laptop ip route add 10.50.2.0/24 dev ipsec0 src $laptop_inside
	type_at laptop swanctl --initiate --child net --loglevel 0
}
