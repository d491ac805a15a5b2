# SPDX-License-Identifier: GPL-2.0-or-later
"""A cord that is a bridge's port: of one that NetworkManager has, and of one that it has not."""

import contextlib

import pytest

from ethercord import bridge, ping, stays, wait_until
from nmbed import Bed

RANGE = "--dhcp-range=192.168.7.100,192.168.7.150,1h"
STP = {"bridge": {"stp": "false"}}
FIXED = {"method": "manual", "address1": "192.168.7.2/24"}


def br0(bed, ipv4=None, up=False, **more):
    bed.write("br0", type="bridge", interface_name="br0", ipv4=ipv4 or FIXED, load=True,
              groups=STP, **more)
    if up:
        bed.up("br0")


def port_of(bed, interface="ec-cord"):
    return bed.near.master(interface)


def ports(bed):
    """What nmcli shows under br0: the names of profiles."""
    uuid = bed.uuid("br0")
    listed = bed.ctl("-t", "-f", "UUID", "connection", "show", "--active").stdout.split()
    return [bed.get(u, "connection.id") for u in listed
            if bed.get(u, "connection.master") in ("br0", uuid)]


def lasts(condition, seconds):
    """It is so all that time."""
    with contextlib.suppress(AssertionError):
        stays(condition, seconds, "", 0.05)
        return True
    return False


@pytest.mark.parametrize("plane", ["kernel", "user"])
def test_managed(bed, plane):
    """It is shown under br0, and carries br0's frames."""
    bed.far_end()
    br0(bed, up=True)
    interface = bed.cord(bridge="br0", mode="join-remote", data_plane=plane)
    bed.up()
    assert port_of(bed) == "br0"
    assert ports(bed) == ["cord (port)"]
    assert bed.get("cord (port)", "GENERAL.DEVICES") == interface
    assert ping(bed.near, "192.168.7.1", 3)
    bed.down()
    bed.clean()
    assert bed.state("br0") == "activated" and bed.near.link("br0")


def test_quick(bed):
    bed.far_end()
    br0(bed, up=True)
    bed.cord(bridge="br0", mode="join-remote")
    took = []
    for _ in range(5):
        took.append(bed.up().seconds)
        bed.down()
    assert min(took) <= 1, took


def test_profile_is_down(bed):
    """br0 is started first, and stays when the cord goes."""
    bed.far_end()
    br0(bed)
    assert not bed.near.link("br0")
    bed.cord(bridge="br0", mode="join-remote")
    bed.up()
    assert port_of(bed) == "br0"
    bed.wait_active("br0")  # the port does not wait for the bridge's last steps
    assert ping(bed.near, "192.168.7.1", 3)
    bed.down()
    bed.clean()


def test_two_at_once(bed):
    """Neither ends the bridge of the other."""
    names = ("cord", "two")
    bed.far_end()
    bed.far_end(name="second", vni=43, address="192.168.7.3/24")
    br0(bed)
    for name, number in zip(names, (42, 43)):
        bed.cord(name, bridge="br0", mode="join-networks", id=number)
    for _ in range(3):
        wanted = [bed.near.popen("nmcli", "--wait", 20, "connection", "up", name) for name in names]
        assert [process.wait() for process in wanted] == [0, 0]
        assert {port_of(bed, f"ec-{name}") for name in names} == {"br0"}
        for name in (*names, "br0"):
            bed.down(name)
            bed.clean(name)


def test_one_of_several_profiles(bed):
    """As NetworkManager chooses itself."""
    bed.far_end()
    other = {"method": "manual", "address1": "192.168.9.9/24"}
    for name in ("another", "zero"):
        bed.write(name, type="bridge", interface_name="br0", ipv4=other, load=True, groups=STP)
    br0(bed, autoconnect_priority="10")
    bed.write("old", type="bridge", interface_name="br0", ipv4=other, load=True, groups=STP,
              autoconnect_priority="-1")
    bed.cord(bridge="br0", mode="join-remote")
    bed.up()
    bed.wait_active("br0")


def test_bridge_gets_its_address_over_the_cord(bed):
    """It cannot be activated before its port is there."""
    bed.far_end()
    bed.dnsmasq("far", RANGE)
    br0(bed, ipv4={"method": "auto"})
    bed.cord(bridge="br0", mode="join-remote")
    bed.up()
    wait_until(lambda: bed.get("br0", "IP4.ADDRESS").startswith("192.168.7.1"), "a lease", 20)
    assert ping(bed.near, "192.168.7.1", 3)


def test_nowhere(bed):
    """There is no such bridge, and nobody was asked to make one."""
    bed.far_end()
    bed.cord(bridge="br7", mode="join-remote")
    bed.fails("br7")
    assert not bed.near.link("br7")


def test_made_on_request(bed):
    bed.far_end()
    bed.cord(bridge="br7", mode="join-remote", bridge_create="yes")
    bed.up()
    assert port_of(bed) == "br7"
    bed.near.ip("addr", "add", "192.168.7.2/24", "dev", "br7")
    assert ping(bed.near, "192.168.7.1", 3)
    bed.down()
    bed.clean()
    assert not bed.near.link("br7")


@pytest.mark.parametrize("kind", ["bare", "with an address", "unmanaged"])
def test_not_managed(lab, kind):
    """Made by somebody else. Whoever takes the port away, it is put back."""
    bed = Bed(lab, keyfile="unmanaged-devices=interface-name:br0" if kind == "unmanaged" else "")
    bed.far_end()
    bridge(bed.near)
    if kind == "with an address":
        bed.near.ip("addr", "add", "192.168.7.2/24", "dev", "br0")
        wait_until(lambda: "br0" in bed.active(), "NetworkManager shows it as external")
    interface = bed.cord(bridge="br0", mode="join-remote")
    bed.up()
    assert port_of(bed) == "br0"
    if kind != "with an address":
        bed.near.ip("link", "set", interface, "nomaster")
        wait_until(lambda: port_of(bed) == "br0", "it is put back")
        stays(lambda: bed.state() == "activated", 0.3, "the connection stays", 0.05)
        bed.near.ip("addr", "add", "192.168.7.2/24", "dev", "br0")
    assert ping(bed.near, "192.168.7.1", 3)
    bed.down()
    bed.clean()
    assert bed.near.link("br0")


def test_unmanaged_is_deleted(lab):
    """No bridge, no frames: the connection says so, one way or the other."""
    bed = Bed(lab, keyfile="unmanaged-devices=interface-name:br0")
    bed.far_end()
    bridge(bed.near)
    bed.cord(bridge="br0", mode="join-remote")
    bed.up()
    bed.near.ip("link", "del", "br0")
    bed.said("br0")
    wait_until(lambda: bed.state() != "activated", "it is not shown as activated", 10, 0.02)


@pytest.mark.parametrize("how", ["connection down", "link deleted", "port down"])
def test_taken_away(bed, how):
    """Never "activated" with a port that is none."""
    bed.far_end()
    br0(bed, up=True)
    bed.cord(bridge="br0", mode="join-remote")
    bed.up()
    if how == "connection down":
        bed.down("br0")
    elif how == "port down":
        bed.down("cord (port)")
    else:
        bed.near.ip("link", "del", "br0")
    bed.wait_gone()
    bed.said("br0")
    bed.clean()


def test_bridge_is_activated_anew(bed):
    """It ends as it began, or is down with a reason; never silently without its port."""
    bed.far_end()
    br0(bed, up=True)
    bed.cord(bridge="br0", mode="join-remote")
    bed.up()
    bed.up("br0")

    def settled():
        state = bed.state()
        return (state == "activated" and port_of(bed) == "br0") or \
            (not state and bed.journal.of(bed.uuid("cord")) and not bed.left())
    # The daemon may put the port back before the service has heard that it was taken away.
    wait_until(lambda: lasts(settled, 0.5), "the port is back, or the connection is down, for good",
               10, 0.05)


@pytest.mark.parametrize("kind", ["managed", "unmanaged"])
def test_bridge_is_waited_for(lab, kind):
    """vpn.persistent: not "activated" without its bridge, and again when that is back."""
    bed = Bed(lab, keyfile="unmanaged-devices=interface-name:br0" if kind == "unmanaged" else "")
    bed.far_end()
    if kind == "managed":
        br0(bed, up=True)
    else:
        bridge(bed.near)
    bed.cord(bridge="br0", mode="join-remote", persistent=True)
    bed.up()
    if kind == "managed":
        bed.down("br0")
    else:
        bed.near.ip("link", "del", "br0")
    bed.said("br0")
    # NetworkManager takes the port's own end for the cord's return, for a moment.
    wait_until(lambda: lasts(lambda: bed.state() == "activating", 1), "the loss is shown, and "
               "goes on to be")
    if kind == "managed":
        bed.up("br0")
    else:
        bridge(bed.near)
    bed.wait_active()
    assert port_of(bed) == "br0"
