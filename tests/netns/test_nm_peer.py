# SPDX-License-Identifier: GPL-2.0-or-later
"""A peer that is an ethercord: what the connection shows while it is there, refuses, is lost, and is
back."""

import os
import signal

import pytest

from control import KEY, OTHER_KEY
from ethercord import bridge, ping, stays, wait_until
from nmbed import QUICK

SOON = 8  # s: what a lost peer may take


@pytest.fixture
def office(bed):
    return bed.office()


def test_dialled(bed, office):
    """With the key of vpn.secrets, which nobody else gets to see."""
    interface = bed.dial(ipv4=bed.manual())
    bed.up()
    assert ping(bed.near, "192.168.7.1", 3)
    got = bed.client.get("cord")
    assert got["State"] == "up" and got["Role"] == "dial"
    assert KEY not in str(got) and KEY not in bed.journal.text() and KEY not in bed.text()
    assert bed.near.link(interface)
    bed.down()
    bed.clean()
    assert not list((bed.directory / "ethercord/var").rglob("cord")), "the key was kept"


def test_dhcp_from_behind_the_peer(bed):
    """As a laptop that joins the office's network."""
    bridge(bed.far)
    host = bed.lab.host(bed.far, "br0", "192.168.7.1/24")
    bed.far, far = host, bed.far
    bed.dnsmasq("eth0", "--dhcp-range=192.168.7.100,192.168.7.150,1h")
    bed.far = far
    bed.office(bridge="br0")
    bed.dial(mode="join-remote", ipv4={"method": "auto"})
    bed.up()
    assert bed.get("cord", "IP4.ADDRESS").startswith("192.168.7.1")
    assert ping(bed.near, "192.168.7.1", 3)
    bed.down()
    bed.clean()


def test_wrong_key(bed, office):
    """It is not tried for ever: a person has to do something."""
    bed.dial(key=OTHER_KEY, ipv4=bed.manual())
    bed.fails("key")


def test_key_in_a_file_for_nmcli(bed, office):
    """A key that is not saved is given when it is brought up."""
    bed.dial(key=None, data={"key-flags": "2"}, ipv4=bed.manual())
    file = bed.directory / "secret"
    file.write_text(f"vpn.secrets.key:{KEY}\n")
    bed.up("cord", "passwd-file", file)
    assert ping(bed.near, "192.168.7.1")


def test_nobody_listens(bed):
    """NetworkManager shows it as activating until its time is over, and why."""
    bed.dial(ipv4=bed.manual())
    bed.ctl("connection", "modify", "cord", "vpn.timeout", "4")
    done = bed.up("cord", check=False, wait=20)
    assert done.returncode == 4 and 3 <= done.seconds < 10, done.seconds
    bed.said("10.9.0.2")
    bed.clean()


def test_comes_while_it_is_waited_for(bed):
    bed.dial(ipv4=bed.manual())
    assert bed.up(check=False, wait=0).returncode == 0
    wait_until(lambda: bed.state() == "activating", "it is activating", 10, 0.02)
    bed.office()
    bed.wait_active(timeout=40)
    assert ping(bed.near, "192.168.7.1", 3)


def lose(bed, office, how):
    if how == "silent":
        os.kill(office.pid, signal.SIGSTOP)
    elif how == "cut":
        bed.far.exec("nft", "-f", "-", input="""table inet cut {
            chain input {
                type filter hook input priority -500; policy accept
                udp dport 4789 drop
                tcp dport 65200 drop
            }
        }
        """)
    else:
        office.bus.client.on_listener("office", "Deactivate")


def mend(bed, office, how):
    if how == "silent":
        os.kill(office.pid, signal.SIGCONT)
    elif how == "cut":
        bed.far.exec("nft", "delete", "table", "inet", "cut")
    else:
        office.bus.client.on_listener("office", "Activate")


LOSSES = ["silent", "cut", "hangs up"]


@pytest.mark.parametrize("how", LOSSES)
def test_peer_is_lost(bed, office, how):
    """Not "activated" with a dead peer: down, with the reason."""
    bed.dial(ipv4=bed.manual())
    bed.up()
    assert ping(bed.near, "192.168.7.1")
    lose(bed, office, how)
    bed.wait_gone(timeout=SOON)
    assert bed.said("10.9.0.2" if how != "hangs up" else "")
    bed.clean()


@pytest.mark.parametrize("how", LOSSES)
def test_peer_is_lost_and_waited_for(bed, office, how):
    """vpn.persistent: the connection is kept, and carries when the peer is back."""
    interface = bed.dial(ipv4=bed.manual(), persistent=True)
    bed.up()
    index = bed.near.ifindex(interface)
    lose(bed, office, how)
    wait_until(lambda: bed.client.state("cord") != "up", "the loss is noticed", SOON)
    assert bed.said("")
    stays(lambda: bed.state() != "", 1, "it is not given up", 0.05)
    mend(bed, office, how)
    wait_until(lambda: ping(bed.near, "192.168.7.1", timeout=1, check=False), "frames cross again",
               40)
    bed.wait_active()
    # A peer that hangs up ends the tunnel; the next one is of its own.
    assert bed.near.ifindex(interface) == index or how == "hangs up"
    assert bed.get("cord", "IP4.ADDRESS") == "192.168.7.2/24"
    bed.down()
    bed.clean()


def test_raw_is_waited_for(bed, office):
    """A cord without addresses is no device that NetworkManager manages; it shows it all the same."""
    bed.dial(persistent=True)
    bed.up()
    lose(bed, office, "cut")
    wait_until(lambda: bed.state() == "activating", "the loss is shown", SOON)
    mend(bed, office, "cut")
    bed.wait_active()
    assert bed.near.exec("ip", "-4", "-o", "addr", "show", "lo").stdout.count("inet") == 1
    bed.down()
    bed.clean()


def test_peer_is_lost_and_waited_for_with_a_lease(bed):
    bridge(bed.far)
    bed.far.ip("addr", "add", "192.168.7.1/24", "dev", "br0")
    bed.dnsmasq("br0", "--dhcp-range=192.168.7.100,192.168.7.150,1h")
    office = bed.office(bridge="br0")
    bed.dial(mode="join-remote", ipv4={"method": "auto"}, persistent=True)
    bed.up()
    lose(bed, office, "silent")
    wait_until(lambda: bed.client.state("cord") != "up", "the loss is noticed", SOON)
    mend(bed, office, "silent")
    wait_until(lambda: ping(bed.near, "192.168.7.1", timeout=1, check=False), "frames cross again",
               40)
    bed.wait_active()
    bed.down()
    bed.clean()


def test_down_while_connecting(bed):
    bed.dial(ipv4=bed.manual())
    bed.up(check=False, wait=0)
    wait_until(lambda: "cord" in bed.client.tunnels(), "the tunnel is there")
    begun = bed.down()
    assert begun.returncode == 0
    bed.clean(timeout=QUICK)
