# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2154
# What the over-* examples do on each VPN, with examples/lib.sh: the laptop joins the office; then the
# VPN goes down while frames are being sent, and comes back.
# shellcheck source=../join-remote
. "$(dirname "${BASH_SOURCE[0]}")/../join-remote"

# of_tunnel PROPERTY: of the laptop's tunnel.
of_tunnel() {
	on laptop ethercordctl --json=short status office |
		python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"
}

is_state() { [ "$(of_tunnel State)" = "$1" ]; }

# The laptop sends as the kernel would if nobody kept it from it: frames of this very cord, and packets
# to another port, which nobody guards.
send_in_clear() {
	on laptop python3 - "$office_inside" <<-'PY'
		import socket, struct, sys, time
		with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
		    frame = b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x88\xb5" + b"in clear" * 8
		    for _ in range(20):
		        for port, data in ((4789, struct.pack("!II", 8 << 24, 42 << 8) + frame),
		                           (9, b"not guarded")):
		            try:
		                s.sendto(data, (sys.argv[1], port))
		            except OSError:
		                pass
		        time.sleep(0.02)
	PY
}

guard_dropped() {
	on laptop nft list table inet ethercord | tee "$W/nft" |
		grep -m 1 -E 'counter packets [1-9][0-9]* .*drop' || { cat "$W/nft"; false; }
}

cut_vpn() {
	local clear='udp port 4789 or udp port 65201 or ip proto 47'
	step "The VPN goes down while frames are being sent"
	background laptop frames ping -n -i 0.05 -I ec-office "$SERVER"
	until_true 10 grep -q 'bytes from' "$W/frames.log"
	vpn_down
	check "the tunnel waits" until_true 10 is_state waiting
	type_at laptop ethercordctl status office
	check "and names the VPN that it waits for" named_in_reason
	! declare -F vpn_worse >/dev/null || vpn_worse
	sleep 1
	send_in_clear
	until_true 5 captured_clear 'udp port 9'
	check "a packet to the office's address inside leaves in clear, the router sees it" \
		captured_clear 'udp port 9'
	check "nothing of the cord does: the router sees none" is_zero "$(captured "$clear")"
	check "the guard dropped it" guard_dropped
	step "The VPN comes back"
	vpn_up
	check "the tunnel is up again, by itself" until_true 30 is_state up
	check "and carries traffic" until_true 20 fetch_page laptop
}

captured_clear() { is_some "$(captured "$1")"; }

named_in_reason() { of_tunnel StateReason | tee /dev/stderr | grep -q -F "$vpn_title"; }

over_vpn() {
	example_begin "$@"
	step "What ethercord finds on the laptop"
	type_at laptop ethercordctl underlays
	check "it is up, and protects" underlay_is_up
	join_remote
	check "the tunnel is protected" protected_by_two
	cut_vpn
	step "What the router between the sites has seen"
	prove_privacy
	example_end
}

underlay_is_up() {
	on laptop ethercordctl --no-legend underlays | grep -E ' up +yes '
}

protected_by_two() {
	[ "$(of_tunnel Protected)" = True ]
	of_tunnel ProtectedBy | grep nftables | grep -E 'route|xfrm'
}
