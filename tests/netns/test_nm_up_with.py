# SPDX-License-Identifier: GPL-2.0-or-later
"""What ethercordd asks of a real NetworkManager: connections that come up with another VPN, and
those that are brought up again after NetworkManager was restarted."""

import signal
from socket import IPPROTO_ICMP

import pytest

from ethercord import TUNNEL, ping, stays, tunnel_path, wait_until
from nmbed import FAR, NM, PROGRAM, Bed
from test_nm_vpn import OFFICE, World, in_clear


@pytest.fixture
def world(bed):
    """The office's VPN is down."""
    made = World(bed)
    bed.down(OFFICE)
    return made


def test_vpn_is_up_before_the_daemon(world):
    """And what a person took down meanwhile stays down, whatever becomes of the daemon."""
    bed = world.bed
    world.cord(data={"up-with": OFFICE})
    bed.up(OFFICE)
    assert not bed.bus.has() and not bed.state()
    bed.client.tunnels()
    bed.wait_active()
    assert ping(bed.near, "192.168.7.1", 3)
    bed.down()
    bed.wait_gone()
    bed.clean()  # nobody is there any more who would start it again
    bed.near.signal("ethercordd", signal.SIGKILL)
    wait_until(lambda: not bed.bus.has(), "the bus sees it gone")
    bed.client.tunnels()
    stays(lambda: not bed.state(), 1, "it comes up against a person's wish", 0.05)
    world.judge()


def test_up_by_hand_already(world):
    """It is left alone: not brought down, not brought up a second time."""
    bed = world.bed
    bed.ctl("connection", "modify", OFFICE, "vpn.timeout", "20")
    world.cord(data={"up-with": OFFICE}, persistent=True)
    bed.up(check=False, wait=0)
    wait_until(lambda: bed.state() == "activating", "it waits for the VPN", 10, 0.02)
    [pid] = wait_until(lambda: bed.near.processes(PROGRAM), "its service runs")
    bed.up(OFFICE)
    bed.wait_active()
    assert list(bed.near.processes(PROGRAM)) == [pid]
    assert "does not bring" not in bed.journal.text()
    assert ping(bed.near, "192.168.7.1", 3)


def test_profile_is_edited_and_deleted(world):
    bed = world.bed
    world.cord(name="cord2", data={"up-with": OFFICE}, id=43, ipv4=None)
    world.cord()
    bed.client.tunnels()
    bed.ctl("connection", "modify", "cord", "+vpn.data", f"up-with={OFFICE}")
    bed.ctl("connection", "delete", "cord2")
    bed.up(OFFICE)
    bed.wait_active()
    assert bed.cords() == [bed.uuid("cord")]
    assert bed.said("up with")


def test_no_default_route(world):
    """NetworkManager then knows nothing that a VPN could ride on but the VPN below."""
    bed = world.bed
    wait_until(lambda: not bed.near.link(world.device), "OpenVPN has ended")
    bed.ctl("connection", "modify", "base", "ipv4.gateway", "")
    bed.ctl("--wait", "20", "connection", "up", "base")
    world.cord(data={"up-with": OFFICE})
    bed.client.tunnels()
    bed.ctl("--wait", "20", "connection", "up", OFFICE, "ifname", "eth0")
    bed.wait_active()
    assert ping(bed.near, "192.168.7.1", 3)
    world.judge()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_networkmanager_is_restarted(lab, how):
    """A connection that the device below brings up anyway is in nobody's way."""
    bed = Bed(lab, start=False)
    bed.far_end()
    bed.write("base", type="ethernet", interface_name="eth0", autoconnect="true",
              secondaries=f"{bed.uuid('cord')};",
              ipv4={"method": "manual", "address1": f"10.9.0.1/24,{FAR}"})
    bed.write("cord", data={"remote": FAR, "control": "static", "encapsulation": "vxlan",
                            "id": 42, "underlay": "any"}, ipv4=bed.manual())
    bed.start()
    bed.wait_active("base")
    bed.wait_active()
    index = bed.near.ifindex("ec-cord")
    for _ in range(3):
        bed.restart(how)
        bed.wait_active("base")
        bed.wait_active()
        stays(lambda: bed.state("base") == bed.state() == "activated", 0.5, "both stay up", 0.05)
        assert bed.near.ifindex("ec-cord") == index
    assert ping(bed.near, "192.168.7.1", 3)
    wait_until(lambda: len(bed.near.processes(PROGRAM)) == 1, "there is one service")


def test_vpn_goes_with_networkmanager(world):
    """The cord is asked for, waits for its VPN, and is there when that is back."""
    bed = world.bed
    world.cord(data={"up-with": OFFICE})
    bed.client.tunnels()
    bed.up(OFFICE)
    bed.wait_active()
    bed.restart()
    bed.wait_active("base")
    # OpenVPN ends a moment after NetworkManager: a cord that came back before rides on what goes.
    wait_until(lambda: not bed.near.link(world.device), "OpenVPN has ended")

    def waits():
        cord = bed.client.objects().get(tunnel_path("cord"))
        return not (cord and cord[TUNNEL]["State"] == "up") and bed.state() != "activated"
    wait_until(waits, "everybody knows that it has")
    bed.up(OFFICE)
    bed.wait_active()
    assert ping(bed.near, "192.168.7.1", 5)
    # The server still sends, and is told that nobody is there.
    assert not [f for f in in_clear(world.outside) if f[23] != IPPROTO_ICMP]


def test_not_what_a_person_took_down(bed):
    bed.far_end()
    bed.cord(ipv4=bed.manual())
    bed.up()
    bed.down()
    bed.clean()  # the daemon was told
    bed.restart()
    bed.wait_active("base")
    stays(lambda: not bed.state(), 1, "it comes up", 0.05)
    bed.clean()


def test_networkmanager_stays_away(bed):
    """Nobody is there to bring it up; the tunnel does not stay for ever. (12 graces.)"""
    config = bed.directory / "ethercord/etc/ethercord.conf"
    config.write_text("[daemon]\nprofile-grace=1\n")
    bed.far_end()
    bed.cord(ipv4=bed.manual())
    bed.up()
    index = bed.near.ifindex("ec-cord")
    bed.end()
    assert not bed.bus.has(NM)
    stays(lambda: bed.near.ifindex("ec-cord") == index, 3, "it is kept", 0.05)
    assert ping(bed.near, "192.168.7.1")
    wait_until(lambda: bed.near.link("ec-cord") is None, "it is removed", 20)
