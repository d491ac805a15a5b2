# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of a connection when NetworkManager, the VPN service or ethercordd end or are killed,
when the machine sleeps, and when the connection below comes and goes."""

import os
import signal

import pytest

from ethercord import bridge, ping, stays, wait_until
from nmbed import FAR, NM, PROGRAM, Bed

ENDS = {"asked to": signal.SIGTERM, "killed": signal.SIGKILL}
GRACE = 5  # s that ethercordd waits for whoever made a tunnel


@pytest.fixture
def cord(bed):
    """A connection with an address, up."""
    bed.far_end()
    bed.cord(ipv4=bed.manual())
    bed.up()
    assert ping(bed.near, "192.168.7.1")
    return bed


def nm_sleep(bed, yes):
    bed.near.exec("busctl", "call", NM, "/org/freedesktop/NetworkManager", NM, "Sleep", "b",
                  "true" if yes else "false")


# NetworkManager

@pytest.mark.parametrize("how", ENDS)
def test_networkmanager_is_restarted(cord, how):
    """The cord carries on meanwhile, and afterwards it is a connection again."""
    bed = cord
    index = bed.near.ifindex("ec-cord")
    flow = bed.lab.flow(bed.near, "ec-cord", bed.far, "far").start()
    bed.restart(ENDS[how])
    bed.wait_active()
    assert flow.stop(100) == []
    assert bed.near.ifindex("ec-cord") == index
    assert ping(bed.near, "192.168.7.1", 3)
    wait_until(lambda: len(bed.near.processes(PROGRAM)) == 1, "there is one service")
    bed.down()
    bed.clean()


@pytest.mark.parametrize("how", ENDS)
def test_networkmanager_is_restarted_with_a_lease(bed, how):
    """The port profile from before does not stay beside a new one."""
    bed.far_end()
    bed.dnsmasq("far", "--dhcp-range=192.168.7.100,192.168.7.150,1h")
    bed.cord(ipv4={"method": "auto"})
    bed.up()
    bed.restart(ENDS[how])
    bed.wait_active()
    wait_until(lambda: bed.get("cord", "IP4.ADDRESS").startswith("192.168.7.1"), "a lease", 20)
    assert ping(bed.near, "192.168.7.1", 3)

    def profiles():
        return [line for line in bed.ctl("-t", "-f", "NAME", "connection").stdout.splitlines()
                if line.startswith("cord (")]
    wait_until(lambda: len(profiles()) == 1, "NetworkManager forgets the other one", 10, 0.05)
    bed.down()
    bed.clean()


def test_networkmanager_is_restarted_with_a_bridge(bed):
    bed.far_end()
    bed.write("br0", type="bridge", interface_name="br0", ipv4=bed.manual(), load=True,
              groups={"bridge": {"stp": "false"}})
    bed.up("br0")
    bed.cord(bridge="br0", mode="join-remote")
    bed.up()
    bed.restart()
    bed.wait_active()
    wait_until(lambda: bed.near.master("ec-cord") == "br0", "it is br0's port")
    assert ping(bed.near, "192.168.7.1", 3)
    bed.down()
    bed.clean()


def test_service_does_not_outlive_networkmanager(cord):
    cord.end()
    wait_until(lambda: not cord.near.processes(PROGRAM), "the service ends")
    assert ping(cord.near, "192.168.7.1"), "the cord went with it"


# The service

def test_service_is_killed(cord):
    """The connection goes down at once, the cord when nobody has come back for it."""
    bed = cord
    bed.near.signal(PROGRAM, signal.SIGKILL)
    bed.wait_gone()
    bed.clean(timeout=GRACE + 5)


def test_service_is_killed_and_the_connection_wanted_again(cord):
    """What is there is taken over."""
    bed = cord
    index = bed.near.ifindex("ec-cord")
    bed.near.signal(PROGRAM, signal.SIGKILL)
    bed.wait_gone()
    bed.up()
    assert bed.near.ifindex("ec-cord") == index
    stays(lambda: ping(bed.near, "192.168.7.1", check=False) and
          bed.near.ifindex("ec-cord") == index, GRACE + 1, "the cord has an owner again", 0.2)
    bed.down()
    bed.clean()


def test_down_and_up_with_a_slow_service(cord):
    """nmcli does not wait for the first one to end: the second has the tunnel by then."""
    bed = cord
    first, = bed.near.processes(PROGRAM)
    os.kill(first, signal.SIGSTOP)
    bed.down()
    bed.up()
    os.kill(first, signal.SIGCONT)
    wait_until(lambda: first not in bed.near.processes(PROGRAM), "the first one ends")
    stays(lambda: bed.near.ifindex("ec-cord"), 1, "the tunnel is the second one's")
    bed.wait_active()
    assert ping(bed.near, "192.168.7.1", 3)
    bed.down()
    bed.clean()


def test_service_is_killed_with_a_port_profile(bed):
    bed.far_end()
    bed.dnsmasq("far", "--dhcp-range=192.168.7.100,192.168.7.150,1h")
    bed.cord(ipv4={"method": "auto"})
    bed.up()
    bed.near.signal(PROGRAM, signal.SIGKILL)
    bed.wait_gone()
    bed.clean(timeout=GRACE + 5)


# The daemon

@pytest.mark.parametrize("how", ENDS)
def test_daemon_is_restarted(cord, how):
    """The service starts it again; no frame is lost, and nobody notices."""
    bed = cord
    index = bed.near.ifindex("ec-cord")
    flow = bed.lab.flow(bed.near, "ec-cord", bed.far, "far").start()
    bed.near.signal("ethercordd", ENDS[how])
    wait_until(lambda: bed.near.processes("ethercordd"), "the daemon is started again")
    wait_until(lambda: bed.client.tunnels() == ["cord"], "it has the tunnel")
    bed.client.wait_state("cord", "up")
    assert flow.stop(100) == []
    stays(lambda: bed.near.ifindex("ec-cord") == index and bed.state() == "activated", GRACE + 1,
          "the connection stays", 0.2)
    bed.down()
    bed.clean()


def test_daemon_is_killed_again_and_again(cord):
    bed = cord
    for _ in range(5):
        bed.near.signal("ethercordd", signal.SIGKILL)
        wait_until(lambda: bed.near.processes("ethercordd"), "the daemon is started again")
        bed.client.wait_state("cord", "up")
    assert bed.state() == "activated" and ping(bed.near, "192.168.7.1", 3)
    bed.down()
    bed.clean()


@pytest.mark.parametrize("how", ["Remove", "Deactivate"])
def test_tunnel_goes(cord, how):
    """Behind the connection's back."""
    bed = cord
    bed.client.on("cord", how)
    bed.wait_gone()
    bed.said("cord")
    bed.clean()


# The connection below

def test_sleep(cord):
    """As far as virtual devices sleep: it is whole afterwards."""
    bed = cord
    nm_sleep(bed, True)
    nm_sleep(bed, False)
    bed.wait_active("base")

    def whole():
        if bed.state() == "activated":
            return ping(bed.near, "192.168.7.1", check=False)
        return bed.state() == "" and not bed.left()
    wait_until(whole, "it carries, or is down", 10, 0.05)
    if bed.state() != "activated":
        bed.up()
    assert ping(bed.near, "192.168.7.1", 3)
    bed.down()
    bed.clean()


@pytest.mark.parametrize("persistent", [False, True])
def test_base_goes(bed, persistent):
    """Then NetworkManager ends what is above it, unless it is to persist."""
    bed.far_end()
    bed.cord(ipv4=bed.manual(), persistent=persistent)
    bed.up()
    bed.down("base")
    if persistent:
        stays(lambda: bed.state(), 1, "it is not given up", 0.05)
    else:
        bed.wait_gone()
        bed.clean()
    bed.up("base")
    if not persistent:
        bed.up()
    wait_until(lambda: ping(bed.near, "192.168.7.1", check=False), "frames cross again", 20)
    bed.wait_active()
    bed.down()
    bed.clean()


def test_secondary(lab):
    """It comes with the base connection, and again after NetworkManager was restarted."""
    bed = Bed(lab, start=False)
    bed.far_end()
    bed.write("cord", data={"remote": FAR, "control": "static", "encapsulation": "vxlan",
                            "id": 42, "underlay": "any"}, ipv4=bed.manual())
    bed.write("base", type="ethernet", interface_name="eth0", autoconnect="true",
              secondaries=f"{bed.uuid('cord')};",
              ipv4={"method": "manual", "address1": f"10.9.0.1/24,{FAR}"})
    bed.start()
    bed.wait_active()
    assert ping(bed.near, "192.168.7.1")
    bed.restart()
    bed.wait_active()
    bed.wait_active("base")
    assert ping(bed.near, "192.168.7.1", 3)
    bed.down("base")
    bed.wait_gone()
    bed.up("base")
    bed.wait_active()
    assert ping(bed.near, "192.168.7.1", 3)


# A tunnel that the daemon has

@pytest.mark.parametrize("was", ["up", "down"])
def test_presented_tunnel(bed, was):
    """It is shown and used as a connection, and left as it was found."""
    bed.far_end()
    bed.client.add("t1", "activate" if was == "up" else "", remote=FAR, id=42)
    if was == "up":
        bed.client.wait_state("t1", "up")
    index = bed.near.ifindex("ec-t1")
    bed.write("cord", data={"tunnel": "t1"}, ipv4=bed.manual(), load=True)
    bed.up()
    assert ping(bed.near, "192.168.7.1", 3)
    bed.down()
    wait_until(lambda: not bed.near.processes(PROGRAM), "the service ends")
    assert bed.client.tunnels() == ["t1"]
    bed.client.wait_state("t1", was)
    if was == "up":
        assert bed.near.ifindex("ec-t1") == index
        wait_until(lambda: "192.168.7.2" not in
                   bed.near.ip("addr", "show", "dev", "ec-t1").stdout, "its address goes")
    # Once more, and its service is killed: it is nobody's but the daemon's.
    bed.up()
    bed.near.signal(PROGRAM, signal.SIGKILL)
    bed.wait_gone()
    assert bed.client.tunnels() == ["t1"]


def test_presented_tunnel_is_removed(bed):
    bed.far_end()
    bed.client.add("t1", remote=FAR, id=42)
    bed.write("cord", data={"tunnel": "t1"}, ipv4=bed.manual(), load=True)
    bed.up()
    bed.client.on("t1", "Remove")
    bed.wait_gone()
    bed.said("t1")


# What nobody asked it about

@pytest.mark.parametrize("main", ["no-auto-default=*", "#"])
def test_hands_off(lab, main):
    """A tunnel of the daemon's, the port of a bridge that NetworkManager has, or has not."""
    bed = Bed(lab, main=main)
    bed.far_end(None)
    bed.far_end(None, "far2", 43)
    bed.write("br0", type="bridge", interface_name="br0", ipv4=bed.manual(), load=True,
              groups={"bridge": {"stp": "false"}})
    bed.up("br0")
    bridge(bed.near, "br1")
    bed.client.add("t0", remote=FAR, id=42, bridge="br0", mode="join-remote")
    bed.client.add("t1", remote=FAR, id=43, bridge="br1", mode="join-remote")
    for name in ("t0", "t1"):
        bed.client.wait_state(name, "up")
    indices = [bed.near.ifindex(f"ec-{n}") for n in ("t0", "t1")]

    def untouched():
        return bed.near.master("ec-t0") == "br0" and bed.near.master("ec-t1") == "br1" and \
            bed.near.is_up("ec-t0") and bed.near.is_up("ec-t1") and \
            [bed.near.ifindex(f"ec-{n}") for n in ("t0", "t1")] == indices
    watched = bed.lab.flow(bed.near, "br1", bed.far, "far2").start()
    bed.restart()
    nm_sleep(bed, True)
    nm_sleep(bed, False)
    bed.ctl("connection", "reload")
    stays(untouched, 0.5, "the ports stay", 0.02)
    bed.cord(id=44, ipv4=bed.manual("192.168.9.2/24"))
    bed.up()
    bed.down()
    bed.clean()
    stays(untouched, 0.5, "the ports stay", 0.02)
    assert watched.stop(100) == []
    # br0 is made anew by its owner: the daemon puts its port back.
    bed.down("br0")
    bed.up("br0")
    wait_until(lambda: bed.near.master("ec-t0") == "br0" and bed.near.is_up("ec-t0"),
               "the port is back")
    for name in ("t0", "t1"):
        bed.client.wait_state(name, "up")
