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
# to another port, which nobody guards. Prints how many of the frames the kernel refused at once.
send_in_clear() {
	on laptop python3 - "$office_inside" "$(of_tunnel Id)" <<-'PY'
		import socket, struct, sys, time
		frame = b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x88\xb5" + b"in clear" * 8
		vxlan = struct.pack("!II", 8 << 24, int(sys.argv[2]) << 8)
		refused = 0
		with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
		    for _ in range(20):
		        try:
		            s.sendto(vxlan + frame, (sys.argv[1], 4789))
		        except OSError:
		            refused += 1
		        try:
		            s.sendto(b"not guarded", (sys.argv[1], 9))
		        except OSError:
		            pass
		        time.sleep(0.02)
		print(refused)
	PY
}

# dropped out|in: packets that nftables dropped on the laptop.
dropped() {
	on laptop nft list table inet ethercord |
		awk -v way="$1" '/^\tchain/ { here = index($2, way) == 1 }
			here && / drop$/ { for (i = 1; i < NF; i++) if ($i == "packets") n += $(i + 1) }
			END { print n + 0 }'
}

# The router sends frames of this cord to the laptop, as if they came from the office.
forge() {
	on router python3 - "$office_inside" 192.0.2.2 "$(of_tunnel Id)" <<-'PY'
		import socket, struct, sys
		source, target = (socket.inet_aton(a) for a in sys.argv[1:3])
		frame = b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x88\xb5" + b"forged" * 8
		data = struct.pack("!II", 8 << 24, int(sys.argv[3]) << 8) + frame
		udp = struct.pack("!HHHH", 4789, 4789, 8 + len(data), 0) + data
		head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, 17, 0, source, target)
		with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as s:
		    for _ in range(20):
		        s.sendto(head + udp, (sys.argv[2], 0))
	PY
}

# The kernel may refuse a frame, or lose it: either way nobody answers, and ping says so.
unanswered() { grep -c 'no answer yet' "$W/frames.log" || true; }

tried_on() { [ "$(unanswered)" -ge "$1" ]; }

forged_dropped() { [ $(($(dropped in) - $1)) -ge 20 ] || { dropped in; false; }; }

forge_frames() {
	local before
	step "Somebody between the sites forges frames of the cord"
	# What a strict filter of source addresses would stop is to come as far as the guard.
	on laptop sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0
	before=$(dropped in)
	forge
	check "the guard drops all 20" until_true 5 forged_dropped "$before"
}

cut_vpn() {
	local clear='udp port 4789 or udp port 65201 or ip proto 47' before refused dropped
	step "The VPN goes down while frames are being sent"
	background laptop frames ping -O -n -i 0.05 -I ec-office "$SERVER"
	check "frames cross the cord" until_true 10 grep -q 'bytes from' "$W/frames.log"
	vpn_down
	check "the tunnel waits" until_true 10 is_state waiting
	check "frames are still being sent" until_true 10 tried_on $(($(unanswered) + 20))
	type_at laptop ethercordctl status office
	check "and names the VPN that it waits for" named_in_reason
	! declare -F vpn_worse >/dev/null || vpn_worse
	before=$(dropped out)
	refused=$(send_in_clear)
	dropped=$(($(dropped out) - before))
	[ "$dropped" -le "$refused" ] || dropped=$refused
	until_true 5 captured_clear 'udp port 9' || true
	check "a packet to the office's address inside leaves in clear, the router sees it" \
		captured_clear 'udp port 9'
	check "nothing of the cord does: the router sees none" none_captured "$clear"
	check "20 frames of the cord sent by hand were refused" test "$refused" -eq 20
	printf '          %s of them by nftables, %s by routes or policies\n' "$dropped" $((refused - dropped))
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
	check "it is up, and protects" until_true 10 underlay_is_up
	join_remote
	check "the tunnel is protected" protected_by_two
	cut_vpn
	step "What the router between the sites has seen"
	prove_privacy
	forge_frames
	example_end
}

underlay_is_up() {
	on laptop ethercordctl --no-legend underlays | grep -E ' up +yes '
}

protected_by_two() {
	[ "$(of_tunnel Protected)" = True ]
	of_tunnel ProtectedBy | grep nftables | grep -E 'route|xfrm'
}
