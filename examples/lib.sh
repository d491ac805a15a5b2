# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# What the examples share: two sites in network namespaces of this machine, joined by a real VPN
# over a router that can see nothing else of them.
#
#    host ---br0--- laptop ------------ router ------------ office ---br0--- server
#   (join-networks)     192.0.2.2            198.51.100.2        (web, DHCP 192.168.77.0/24)
#                $laptop_inside ======= VPN ======= $office_inside
#
# Sourced by an example, which then calls example_begin "$@" first and example_end last. An example
# over another VPN than OpenVPN names a file of examples/vpn in $vpn before it sources this one.

set -euo pipefail
examples=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../tests/lib/setup.sh
. "$examples/../tests/lib/setup.sh"

tag=${ETHERCORD_EXAMPLE:-ectry}   # begins the names of the namespaces; another tag runs beside it
W=/run/$tag                       # everything that is written
sites=(laptop router office server host)
inside=''                         # program that commands at a site run under: COMMAND WORK SITE ...
vpn=${vpn:-openvpn}
keep='' marker='' failed=0 steps=0 started=$SECONDS
SERVER=192.168.77.1

# Talking

step() {
	steps=$((steps + 1))
	printf '\n%s%2d. %s%s\n' "$bold" "$steps" "$*" "$plain"
}

# check TEXT COMMAND...: one thing that must be true.
check() {
	local text=$1
	shift
	if "$@" >"$W/check" 2>&1; then
		printf '    %sok%s    %s\n' "$green" "$plain" "$text"
	else
		printf '    %sFAIL%s  %s\n' "$red" "$plain" "$text"
		sed 's/^/          /' "$W/check"
		failed=$((failed + 1))
	fi
}

# until_true SECONDS COMMAND...: waits for a condition. An emulated machine gets more time.
until_true() {
	local end=$((SECONDS + $1 * (${IN_VM:+3} + 1)))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$SECONDS" -le "$end" ] || return 1
		sleep 0.05
	done
}

# Sites

# on SITE COMMAND...: runs it at that site.
on() {
	local site=$1
	shift
	DBUS_SYSTEM_BUS_ADDRESS=unix:path=$W/$site/bus PATH=$BUILD_DIR/daemon/ctl:$PATH \
		ip netns exec "$tag-$site" ${inside:+"$inside" "$W" "$site"} "$@"
}

# type SITE COMMAND...: what a user would type there, shown and done.
type_at() {
	local site=$1
	shift
	printf '    %s%s#%s %s\n' "$bold" "$site" "$plain" "$*"
	if ! on "$site" "$@" 2>&1 | sed 's/^/      /'; then
		printf '    %sFAIL%s  the command above\n' "$red" "$plain"
		failed=$((failed + 1))
	fi
}

# background SITE NAME COMMAND...: until the example is cleaned up; its output in $W/NAME.log.
background() {
	local site=$1 name=$2
	shift 2
	on "$site" "$@" >"$W/$name.log" 2>&1 </dev/null &
}

# wire SITE INTERFACE SITE INTERFACE
wire() {
	ip link add "$2" netns "$tag-$1" type veth peer name "$4" netns "$tag-$3"
	ip -n "$tag-$1" link set "$2" up
	ip -n "$tag-$3" link set "$4" up
}

make_sites() {
	local site
	mkdir -m 0700 "$W"
	for site in "${sites[@]}"; do
		ip netns add "$tag-$site"
		ip -n "$tag-$site" link set lo up
		mkdir "$W/$site"
	done
	wire laptop eth0 router laptop
	wire router office office eth0
	ip -n "$tag-laptop" address add 192.0.2.2/24 dev eth0
	ip -n "$tag-router" address add 192.0.2.1/24 dev laptop
	ip -n "$tag-router" address add 198.51.100.1/24 dev office
	ip -n "$tag-office" address add 198.51.100.2/24 dev eth0
	ip -n "$tag-laptop" route add default via 192.0.2.1
	ip -n "$tag-office" route add default via 198.51.100.1
	on router sysctl -qw net.ipv4.ip_forward=1
}

# The office's network, which exists before ethercord comes.
make_office() {
	ip -n "$tag-office" link add br0 type bridge
	ip -n "$tag-office" link set br0 up
	wire office lan server eth0
	ip -n "$tag-office" link set lan master br0
	ip -n "$tag-server" address add $SERVER/24 dev eth0
	mkdir "$W/web"
	echo "Hello from the office. Marker: $marker" >"$W/web/index.html"
	background server server/web python3 -m http.server --directory "$W/web" 80
	background server server/dnsmasq dnsmasq --no-daemon --conf-file=/dev/null --port=0 \
		--interface=eth0 --bind-interfaces --dhcp-range=192.168.77.100,192.168.77.199,1h \
		--dhcp-leasefile="$W/server/leases" --dhcp-authoritative --log-dhcp
	until_true 10 on server curl -sf "http://$SERVER/"
}

# A bus and a daemon. On a real host the distribution's bus and D-Bus activation do this.
start_daemon() {
	local site=$1
	cat >"$W/$site/bus.conf" <<-XML
		<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
		 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
		<busconfig>
		  <listen>unix:path=$W/$site/bus</listen>
		  <auth>EXTERNAL</auth>
		  <policy user="root">
		    <allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
		  </policy>
		</busconfig>
	XML
	background "$site" "$site/dbus" dbus-daemon --config-file="$W/$site/bus.conf" --nofork --nopidfile
	until_true 10 test -S "$W/$site/bus"
	background "$site" "$site/ethercordd" "$BUILD_DIR/daemon/ethercordd" --foreground \
		--config-dir "$W/$site/etc" --state-dir "$W/$site/var" --runtime-dir "$W/$site/run"
	until_true 10 on "$site" ethercordctl list
}

# The router's view of everything between the sites, on both its interfaces.
start_capture() {
	background router capture tcpdump -i any -n -U -s 0 -Z root -w "$W/router.pcap"
	until_true 10 test -s "$W/router.pcap"
}

# captured FILTER: how many of the packets that the router saw.
captured() {
	tcpdump -n -r "$W/router.pcap" "$@" 2>/dev/null | wc -l
}

# none_captured FILTER: shows what there is.
none_captured() {
	local n
	n=$(captured "$1")
	[ "$n" -eq 0 ] || { tcpdump -n -r "$W/router.pcap" "$1" 2>/dev/null | head -n 20; return 1; }
}

is_zero() { [ "$1" -eq 0 ] || { echo "$1 packets"; return 1; }; }
is_some() { [ "$1" -gt 0 ] || { echo "none"; return 1; }; }

# Later fragments of a UDP packet have no port, and ICMP errors about the VPN's own packets are no leak.
# What an example sends in clear on purpose, to show that it could be seen, goes to UDP port 9.
prove_privacy() {
	local ends='(host 192.0.2.2 and host 198.51.100.2)' total in
	local carried="($vpn_wire or ip[6:2] & 0x1fff != 0 and $ends)"
	# What was sent before is written: the file ends with a packet sent now.
	on laptop ping -q -n -c 1 -p 656e64 192.0.2.1 >/dev/null
	until_true 10 tcpdump_has_end
	in=$(captured "$carried") total=$(captured)
	printf '    the router saw %s packets, %s of them of %s\n' "$total" "$in" "$vpn_name"
	check "$vpn_name packets crossed the router" is_some "$in"
	check "no VXLAN, GRE, FOU or other packet crossed it outside $vpn_name" none_captured "not $carried
		and not arp and not ip6 and not udp port 9 and not (icmp and (host 192.0.2.1 or
		host 198.51.100.1 or $ends))"
	check "the web page's text is nowhere in what it saw" \
		is_zero "$(grep -c -a "$marker" "$W/router.pcap" || true)"
	check "nor is a DHCP option or an Ethernet address of the office" \
		is_zero "$(tcpdump -n -x -r "$W/router.pcap" 2>/dev/null | grep -c -E \
			'6382 5363|c0a8 4d01' || true)"
}

tcpdump_has_end() { [ "$(captured 'icmp[icmptype] = icmp-echoreply and src host 192.0.2.1')" -ge 1 ]; }

# Beginning and end

clean() {
	local site
	for site in "${sites[@]}"; do
		{ ip netns pids "$tag-$site" | xargs -r kill; } 2>/dev/null || true
	done
	for site in "${sites[@]}"; do
		# shellcheck disable=SC2016
		until_true 5 sh -c '[ -z "$(ip netns pids "$1")" ]' - "$tag-$site" ||
			{ ip netns pids "$tag-$site" | xargs -r kill -KILL; } 2>/dev/null || true
		ip netns del "$tag-$site" 2>/dev/null || true
	done
	rm -rf "$W"
}

usage() {
	cat <<-TEXT
		usage: ${0##*/} [--keep|--clean]
		  --keep   leave the sites running at the end and say how to enter them
		  --clean  remove what --keep left
	TEXT
}

hint() {
	cat <<-TEXT

		${bold}Left running.${plain} A shell at the laptop (or: office, server, host, router):
		    sudo env PATH="$BUILD_DIR/daemon/ctl:\$PATH" DBUS_SYSTEM_BUS_ADDRESS=unix:path=$W/laptop/bus \\
		        ip netns exec $tag-laptop ${inside:+$inside $W laptop }bash
		there, for example:  ethercordctl status   ethercordctl monitor   ip -d link
		Remove everything:   $0 --clean
	TEXT
}

on_exit() {
	local code=$?
	[ "$code" -eq 0 ] || printf '\n%sended before its end (status %s)%s\n' "$red" "$code" "$plain" >&2
	if [ "$code" -ne 0 ] && [ -d "$W" ]; then
		tail -n 5 "$W"/*/ethercordd.log >&2 || true
	fi
	[ -n "$keep" ] || clean
}

# Packages and a build; both are there in the virtual machine. A kernel that lacks what the VPN needs is
# replaced by Debian's, in that machine.
prepare() {
	local lacks
	if [ -z "${IN_VM:-}" ]; then
		vpn_install
		build "$BUILD_DIR"
	fi
	lacks=$(vpn_lacks)
	[ -n "$lacks" ] || return 0
	if [ -n "${IN_VM:-}" ] || [ -n "$keep" ]; then
		echo "this kernel has no $lacks${keep:+; a virtual machine, where the example runs \
without --keep, cannot be kept}" >&2
		exit 1
	fi
	echo "this kernel has no $lacks: the example runs in a virtual machine with Debian's kernel"
	install_packages vm
	exec env VM_TIMEOUT="${VM_TIMEOUT:-540}" "$root/tests/vm/run-vm" env BUILD_DIR="$BUILD_DIR" \
		NO_COLOR="$([ -n "$bold" ] || echo 1)" ETHERCORD_EXAMPLE="$tag" "$examples/${0##*/}" "$@"
}

# Of vpn_lacks: says what, unless this kernel can do the command, done in a network of its own.
needs() {
	local what=$1
	shift
	unshare -n "$@" 2>/dev/null || echo "$what"
}

# example_begin ARGUMENT...: options, root, packages, build, sites, VPN, daemons, capture.
example_begin() {
	case "${1:-}" in
	'') ;;
	--keep) keep=yes ;;
	--clean) be_root "$0" "$@" && clean && exit 0 ;;
	--help) usage && exit 0 ;;
	*) usage >&2 && exit 2 ;;
	esac
	be_root "$0" "$@"
	prepare "$@"
	if [ -e "$W" ]; then
		echo "$W is there: another run goes on, or one was kept. To remove it: $0 --clean" >&2
		exit 1
	fi
	started=$SECONDS
	marker=cord-$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')
	trap on_exit EXIT
	trap 'exit 130' INT TERM
	step "Two sites that reach each other through $vpn_name only, and the office's network"
	make_sites
	vpn_make
	make_office
	start_daemon laptop
	start_daemon office
	check "the office answers the laptop through the VPN" \
		on laptop ping -n -c 1 -W 5 "$office_inside"
	check "the office's network is out of reach" not on laptop curl -sf -m 2 "http://$SERVER/"
	start_capture
}

not() { ! "$@"; }

example_end() {
	local seconds=$((SECONDS - started))
	if [ -n "$keep" ]; then
		hint
	fi
	if [ "$failed" -gt 0 ]; then
		printf '\n%s%s of the checks failed%s (%s s)\n' "$red" "$failed" "$plain" "$seconds"
		trap - EXIT
		[ -n "$keep" ] || clean
		exit 1
	fi
	printf '\n%sall of it works%s (%s s)\n' "$green" "$plain" "$seconds"
}

# shellcheck source=vpn/openvpn.sh
. "$examples/vpn/$vpn.sh"
