# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2154
# The VPN that "you already have", as examples/lib.sh wants it: OpenVPN between two sites, with
# throw-away certificates; each end knows the other's fingerprint.
#
# Every file of this folder says:
#   vpn_name        how it is called            vpn_title       how ethercord calls it
#   laptop_inside   address of the laptop       office_inside   address of the office
#   vpn_wire        what tcpdump calls its packets on the wire
#   vpn_whole       "yes" where a full Ethernet frame in VXLAN needs no fragments
#   vpn_install     installs packages           vpn_lacks       says what this kernel does not have
#   vpn_make        makes it, and returns when the sites reach each other
#   vpn_down, vpn_up    what a user types at the laptop to stop and to start it

# shellcheck disable=SC2034
{
	vpn_name=OpenVPN
	vpn_title="OpenVPN on tun0"
	laptop_inside=10.8.0.2
	office_inside=10.8.0.1
	vpn_wire='udp port 1194'
	vpn_whole=yes
}

vpn_install() { install_packages build try; }

vpn_lacks() { :; }

certificate() {
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
		-subj "/CN=$1" -keyout "$W/$1/vpn.key" -out "$W/$1/vpn.crt" 2>/dev/null
	openssl x509 -in "$W/$1/vpn.crt" -noout -fingerprint -sha256 | cut -d= -f2 >"$W/$1/vpn.fp"
}

# tun-mtu: a full Ethernet frame in VXLAN is 1550 bytes; OpenVPN carries it whole.
openvpn_config() {
	local site=$1 peer=$2 local=$3 remote=$4
	shift 4
	cat >"$W/$site/openvpn.conf" <<-CONF
		dev tun0
		dev-type tun
		tun-mtu 1600
		ifconfig $local $remote
		proto udp
		port 1194
		cipher AES-256-GCM
		data-ciphers AES-256-GCM
		dh none
		cert $W/$site/vpn.crt
		key $W/$site/vpn.key
		peer-fingerprint "$(cat "$W/$peer/vpn.fp")"
		keepalive 1 10
		verb 3
		writepid $W/$site/openvpn.pid
	CONF
	printf '%s\n' "$@" >>"$W/$site/openvpn.conf"
}

start_openvpn() {
	background "$1" "$1/openvpn" openvpn --config "$W/$1/openvpn.conf"
}

vpn_answers() { on laptop ping -n -c 1 -W 1 "$office_inside"; }

vpn_make() {
	certificate laptop
	certificate office
	openvpn_config office laptop $office_inside $laptop_inside tls-server
	openvpn_config laptop office $laptop_inside $office_inside tls-client "remote 198.51.100.2"
	start_openvpn office
	start_openvpn laptop
	if ! until_true 20 vpn_answers; then
		tail -n 20 "$W"/*/openvpn.log
		return 1
	fi
}

vpn_down() { type_at laptop pkill -F "$W/laptop/openvpn.pid" openvpn; }

vpn_up() {
	printf '    %slaptop#%s openvpn --config %s &\n' "$bold" "$plain" "$W/laptop/openvpn.conf"
	start_openvpn laptop
}
