# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2154
# strongSwan between two sites: IPsec by policies, without an interface. One charon per site, each with a
# /run of its own. examples/vpn/openvpn.sh says what examples/lib.sh wants of it.
#
# start_action: `start` connects at once; with `trap` the first packet does. A trap's policy stays when
# the connection ends, and what comes then brings it up again. After `start`, as here, nothing stays,
# and it is ethercord's guard alone that keeps packets from leaving in clear.

# shellcheck disable=SC2034
{
	vpn_name=IPsec
	vpn_title="IPsec to 198.51.100.2"
	laptop_inside=10.50.1.1
	office_inside=10.50.2.1
	vpn_wire='(ip proto 50 or udp port 500 or udp port 4500)'
	vpn_whole=''
	if_id=''
}

vpn_install() {
	local had=''
	! installed strongswan-starter || had=yes
	install_packages build try ipsec
	# The package starts one for the machine itself, which nobody asked for.
	if [ -z "$had" ] && [ -d /run/systemd/system ]; then
		systemctl --quiet disable --now strongswan-starter
	fi
}

vpn_lacks() {
	needs "IPsec (ESP)" ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 1 mode tunnel \
		aead 'rfc4106(gcm(aes))' 0x0123456789abcdef0123456789abcdef01234567 128
}

# strongswan_conf SITE PEER HERE THERE NET PEER-NET START-ACTION
strongswan_conf() {
	local dir=$W/$1/own-run
	mkdir -p "$dir"
	cat >"$dir/strongswan.conf" <<-CONF
		charon {
		    load_modular = no
		    load = random nonce openssl hmac kdf kernel-netlink socket-default updown vici
		    install_routes = $([ -n "$if_id" ] && echo no || echo yes)
		    retransmit_timeout = 2.0
		    filelog {
		        stderr {
		        }
		    }
		}
		swanctl {
		    load = random openssl
		}
	CONF
	cat >"$dir/swanctl.conf" <<-CONF
		connections {
		    $2 {
		        version = 2
		        local_addrs = $3
		        remote_addrs = $4
		        ${if_id:+if_id_in = $if_id}
		        ${if_id:+if_id_out = $if_id}
		        local {
		            auth = psk
		            id = $1
		        }
		        remote {
		            auth = psk
		            id = $2
		        }
		        children {
		            net {
		                local_ts = $5
		                remote_ts = $6
		                esp_proposals = aes128gcm16
		                start_action = $7
		            }
		        }
		    }
		}
		secrets {
		    ike {
		        secret = "$(cat "$W/psk")"
		    }
		}
	CONF
}

load_connection() {
	on "$1" swanctl --load-all --file /run/swanctl.conf >"$W/$1/swanctl.log" 2>&1
}

start_charon() {
	background "$1" "$1/charon" /usr/lib/ipsec/charon
	until_true 20 load_connection "$1"
}

# The addresses inside belong to networks at the sites.
vpn_addresses() {
	ip -n "$tag-laptop" address add $laptop_inside/32 dev lo
	ip -n "$tag-office" address add $office_inside/32 dev lo
}

vpn_answers() { on laptop ping -n -c 1 -W 1 "$office_inside"; }

vpn_make() {
	(umask 077 && od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$W/psk")
	strongswan_conf laptop office 192.0.2.2 198.51.100.2 10.50.1.0/24 10.50.2.0/24 start
	strongswan_conf office laptop 198.51.100.2 192.0.2.2 10.50.2.0/24 10.50.1.0/24 none
	inside=$examples/vpn/own-run
	vpn_addresses
	if ! { start_charon office && start_charon laptop && until_true 20 vpn_answers; }; then
		tail -n 20 "$W"/*/charon.log "$W"/*/swanctl.log
		return 1
	fi
}

vpn_down() { type_at laptop swanctl --terminate --ike office --loglevel 0; }

vpn_up() { type_at laptop swanctl --initiate --child net --loglevel 0; }
