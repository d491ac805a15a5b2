# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2154
# WireGuard between two sites, with throw-away keys. examples/vpn/openvpn.sh says what examples/lib.sh
# wants of it.

# shellcheck disable=SC2034
{
	vpn_name=WireGuard
	vpn_title="WireGuard on wg0"
	laptop_inside=10.8.0.2
	office_inside=10.8.0.1
	vpn_wire='udp port 51820'
	vpn_whole=''
}

vpn_install() { install_packages build try wireguard; }

vpn_lacks() { needs WireGuard ip link add wg0 type wireguard; }

# wireguard_conf SITE PEER ENDPOINT INSIDE: as for wg setconf.
wireguard_conf() {
	cat >"$W/$1/wg0.conf" <<-CONF
		[Interface]
		PrivateKey = $(cat "$W/$1/wg0.key")
		ListenPort = 51820

		[Peer]
		PublicKey = $(wg pubkey <"$W/$2/wg0.key")
		Endpoint = $3:51820
		AllowedIPs = $4/32
	CONF
}

# What `wg-quick up` does, which has no place for two configurations of one name.
wireguard_up() {
	ip -n "$tag-$1" link add wg0 type wireguard
	on "$1" wg setconf wg0 "$W/$1/wg0.conf"
	ip -n "$tag-$1" address add "$2/24" dev wg0
	ip -n "$tag-$1" link set wg0 up
}

vpn_answers() { on laptop ping -n -c 1 -W 1 "$office_inside"; }

vpn_make() {
	(umask 077 && wg genkey >"$W/laptop/wg0.key" && wg genkey >"$W/office/wg0.key")
	wireguard_conf laptop office 198.51.100.2 $office_inside
	wireguard_conf office laptop 192.0.2.2 $laptop_inside
	wireguard_up office $office_inside
	wireguard_up laptop $laptop_inside
	until_true 20 vpn_answers
}

vpn_down() { type_at laptop ip link delete wg0; }

vpn_up() {
	type_at laptop ip link add wg0 type wireguard
	type_at laptop wg setconf wg0 "$W/laptop/wg0.conf"
	type_at laptop ip address add $laptop_inside/24 dev wg0
	type_at laptop ip link set wg0 up
}
