# SPDX-License-Identifier: GPL-2.0-or-later
"""A cord over an OpenVPN connection of NetworkManager's: whatever is asked for, and whatever happens
to the VPN, nothing of the cord leaves outside it."""

import contextlib
import signal
import struct

import pytest

from ethercord import bridge, ping, stays, wait_until
from nm import Office
from nmbed import FAR, NM, PROGRAM, Bed

OFFICE, INSIDE = Office.uuid, Office.far    # the far end's address in the VPN
OPENVPN = 1194
NM_PATH = "/org/freedesktop/NetworkManager"


def is_vpns(packet):
    """Of OpenVPN's server and client, or an error about one that came too late."""
    header = (packet[0] & 15) * 4
    if packet[9] == 1 and packet[header] == 3:
        packet, header = packet[header + 8:], header
        return packet[9] == 17 and OPENVPN in struct.unpack("!HH", packet[header:header + 4])
    return packet[9] == 17 and struct.unpack("!H", packet[header + 2:header + 4])[0] == OPENVPN


def in_clear(capture):
    """What of the captured is neither the VPN's own, nor what a link has for itself."""
    result, pieces = [], set()
    for frame in capture.take():
        ethertype, packet = frame[12:14], frame[14:]
        if ethertype == b"\x08\x06":
            continue
        if ethertype == b"\x08\x00":
            number, offset = packet[4:6], struct.unpack("!H", packet[6:8])[0] & 0x1FFF
            if number in pieces if offset else is_vpns(packet):
                pieces.add(number)
                continue
        # Multicast of IPv6: neighbours, listeners.
        if ethertype == b"\x86\xdd" and packet[24] == 0xFF:
            continue
        result.append(frame)
    return result


class World:
    """The bed with the office's OpenVPN up, and a far end inside it; watched."""

    def __init__(self, bed, never_default=True, far_end=True):
        self.bed, self.office = bed, Office(bed.lab, bed.far, FAR)
        file = bed.directory / "etc/system-connections/office.nmconnection"
        file.touch(0o600)
        file.write_text(self.office.profile(never_default))
        bed.ctl("connection", "load", "/etc/NetworkManager/system-connections/office.nmconnection")
        wait_until(lambda: bed.far.link("tun0"), "the server is there", 30)
        bed.up(OFFICE)
        wait_until(lambda: ping(bed.near, INSIDE, timeout=1, check=False), "the VPN carries", 20)
        # nmcli shows the device below.
        self.device, self.inside = next(
            (words[1], words[3].split("/")[0])
            for words in map(str.split, bed.near.ip("-o", "-4", "addr").stdout.splitlines())
            if words[3].startswith("10.8.0."))
        if far_end:
            bed.far.ip("link", "add", "far", "type", "vxlan", "id", 42, "local", INSIDE, "remote",
                       self.inside, "dstport", 4789, "nolearning")
            bed.far.ips("addr add 192.168.7.1/24 dev far\nlink set far mtu 1398 up\n")
        self.outside = bed.lab.capture(bed.near, "eth0", outgoing_only=True)

    def cord(self, **more):
        return self.bed.cord(**{"remote": INSIDE, "underlay": "vpn", "ipv4": self.bed.manual(),
                                **more})

    def send(self, interface="ec-cord", n=50):
        """Frames on the cord, whether or not they get anywhere."""
        flow = self.bed.lab.flow(self.bed.near, interface, self.bed.far, "far")
        for number in range(n):
            flow.send(number)
        flow.close()

    def send_if_there(self, n=50):
        with contextlib.suppress(OSError):  # it may go at any time
            self.send(n=n)
        return True

    def judge(self):
        """Nothing is in clear, and the way to the far end is the VPN."""
        assert in_clear(self.outside) == []
        route = self.bed.near.ip("route", "get", INSIDE, check=False).stdout
        assert " dev tun" in route or not self.bed.state(OFFICE), route

    def object(self, uuid):
        """The path of an active connection."""
        return self.bed.ctl("-g", "GENERAL.DBUS-PATH", "connection", "show", uuid).stdout.strip()


@pytest.fixture
def world(bed):
    return World(bed)


def test_judge_sees(bed):
    """What is not over the VPN."""
    world = World(bed, far_end=False)
    bed.far_end()
    bed.cord(ipv4=bed.manual())
    bed.up()
    assert ping(bed.near, "192.168.7.1")
    assert in_clear(world.outside)


@pytest.mark.parametrize("how", ["no words", "ifname", "specific object"])
@pytest.mark.parametrize("default", ["keeps the default route", "owns the default route"])
def test_up(bed, how, default):
    world = World(bed, never_default=default.startswith("keeps"))
    world.cord()
    if how == "specific object":
        bed.near.exec("busctl", "call", NM, NM_PATH, NM, "ActivateConnection", "ooo",
                      settings_path(bed, "cord"), "/", world.object(OFFICE))
        bed.wait_active()
    else:
        bed.up("cord", *(["ifname", world.device] if how == "ifname" else []))
    assert ping(bed.near, "192.168.7.1", 5)
    got = bed.client.get("cord")
    assert got["Protected"] is True and got["Underlay"].endswith(f"/{world.device}")
    world.judge()
    bed.down()
    bed.clean()
    world.judge()
    assert ping(bed.near, INSIDE)


def settings_path(bed, name):
    shown = bed.ctl("-t", "-f", "NAME,DBUS-PATH", "connection", "show").stdout
    return next(line.split(":")[1] for line in shown.splitlines() if line.startswith(f"{name}:"))


def test_default_route_over_the_cord(world):
    """A cord that is the default route still is over the VPN, and the VPN over the base device."""
    bed = world.bed
    world.cord(ipv4=bed.manual("192.168.7.2/24,192.168.7.1"))
    bed.far.ip("addr", "add", "198.51.100.1/32", "dev", "lo")
    bed.up()
    assert ping(bed.near, "198.51.100.1", 5)
    assert "ec-cord" in bed.near.ip("route", "get", "198.51.100.1").stdout
    world.judge()


def test_dhcp(world):
    bed = world.bed
    bed.dnsmasq("far", "--dhcp-range=192.168.7.100,192.168.7.150,1h")
    world.cord(ipv4={"method": "auto"})
    bed.up()
    assert bed.get("cord", "IP4.ADDRESS").startswith("192.168.7.1")
    assert ping(bed.near, "192.168.7.1", 5)
    world.judge()


def test_bridge(world):
    bed = world.bed
    bed.write("br0", type="bridge", interface_name="br0", ipv4=bed.manual(), load=True,
              groups={"bridge": {"stp": "false"}})
    world.cord(bridge="br0", mode="join-remote", ipv4=None)
    bed.up()
    assert ping(bed.near, "192.168.7.1", 5)
    world.judge()


def test_dialled(bed):
    """The control connection, too, is inside: no key is needed, the VPN vouches for both."""
    world = World(bed, far_end=False)
    daemon = bed.lab.daemon(bed.far, "far")
    bridge(bed.far)
    bed.far.ip("addr", "add", "192.168.7.1/24", "dev", "br0")
    daemon.bus.client.listen("office", underlay="vpn", allow="10.8.0.0/24", bridge="br0")
    bed.write("cord", data={"remote": INSIDE, "mode": "join-remote"}, ipv4=bed.manual(), load=True)
    bed.up()
    assert ping(bed.near, "192.168.7.1", 5)
    world.judge()


def take_vpn_away(world, how):
    bed = world.bed
    if how == "connection down":
        bed.down(OFFICE)
    elif how == "killed":
        bed.near.signal("openvpn", signal.SIGKILL)
    else:
        bed.near.ip("link", "set", world.device, "down")


@pytest.mark.parametrize("how", ["connection down", "killed", "link down"])
def test_vpn_goes(world, how):
    """NetworkManager does not see to it: the cord ends by itself, and says why."""
    bed = world.bed
    world.cord()
    bed.up()
    world.send()
    take_vpn_away(world, how)
    stays(world.send_if_there, 0.3, "", 0.02)
    bed.wait_gone()
    bed.said("VPN")
    bed.clean()
    assert in_clear(world.outside) == []


def test_vpn_goes_and_is_waited_for(world):
    """vpn.persistent: it is kept, sends nothing meanwhile, and carries when the VPN is back."""
    bed = world.bed
    interface = world.cord(persistent=True)
    bed.up()
    index = bed.near.ifindex(interface)
    bed.down(OFFICE)
    bed.said("VPN")

    def kept():
        world.send(n=3)
        return bed.state() and bed.near.ifindex(interface) == index
    stays(kept, 1, "it is given up", 0.02)
    bed.up(OFFICE)
    # Before there is a route, a ping would go its own way.
    wait_until(lambda: interface in bed.near.ip("route", "get", "192.168.7.1").stdout,
               "the cord has its address again", 20)
    wait_until(lambda: ping(bed.near, "192.168.7.1", timeout=1, check=False), "frames cross again",
               20)
    bed.wait_active()
    assert bed.near.ifindex(interface) == index
    assert in_clear(world.outside) == []
    bed.down()
    bed.clean()


def test_vpn_is_not_there(world):
    """The cord is not activated without; the reason tells what it waits for."""
    bed = world.bed
    world.cord()
    bed.ctl("connection", "modify", "cord", "vpn.timeout", "3")
    bed.down(OFFICE)
    done = bed.up(check=False)
    assert done.returncode == 4 and done.seconds < 8
    bed.said("VPN")
    bed.clean()
    assert in_clear(world.outside) == []


def test_comes_while_it_is_waited_for(world):
    bed = world.bed
    world.cord()
    bed.down(OFFICE)
    bed.up(check=False, wait=0)
    wait_until(lambda: bed.state() == "activating", "it is activating", 10, 0.02)
    bed.up(OFFICE)
    bed.wait_active()
    assert ping(bed.near, "192.168.7.1", 3)
    world.judge()


@pytest.mark.parametrize("program", ["NetworkManager", PROGRAM, "ethercordd"])
def test_killed(world, program):
    """The fence stays, whoever dies."""
    bed = world.bed
    world.cord()
    bed.up()
    bed.near.signal(program, signal.SIGKILL)
    world.send()
    if program == "NetworkManager":
        bed.process.wait()
        wait_until(lambda: not bed.bus.has(NM), "the bus sees NetworkManager gone")
        world.send()
        bed.start()
    bed.near.ip("link", "del", world.device, check=False)
    for _ in range(10):
        world.send_if_there(10)
    assert in_clear(world.outside) == []


# up-with

@pytest.mark.parametrize("named", ["by id", "by UUID"])
def test_up_with(world, named):
    """NetworkManager's secondaries cannot hang on a VPN; ours can, each time."""
    bed = world.bed
    bed.down(OFFICE)
    world.cord(data={"up-with": OFFICE if named == "by UUID" else 'Office "Nord"'})
    bed.client.tunnels()  # the daemon runs
    for _ in range(2):
        bed.up(OFFICE)
        bed.wait_active()
        assert ping(bed.near, "192.168.7.1", 3)
        bed.down(OFFICE)
        bed.wait_gone()
        bed.clean()
    assert in_clear(world.outside) == []


def test_up_with_another(world):
    """What does not name that VPN is left down; what is down by a person's wish stays down until the
    VPN comes again."""
    bed = world.bed
    bed.down(OFFICE)
    world.cord(data={"up-with": "something else"})
    world.cord(name="cord2", data={"up-with": OFFICE}, id=43, ipv4=None)
    bed.client.tunnels()
    bed.up(OFFICE)
    bed.wait_active("cord2")
    assert not bed.state("cord")
    bed.down("cord2")
    bed.wait_gone("cord2")
    stays(lambda: not bed.state("cord2") and not bed.state("cord"), 1, "it comes up", 0.05)


def test_up_with_is_waited_for(lab):
    """The daemon stays for it, though it has no tunnel."""
    bed = Bed(lab, conf="idle-timeout=1")
    world = World(bed)
    bed.down(OFFICE)
    world.cord(data={"up-with": OFFICE})
    bed.client.tunnels()
    stays(lambda: bed.near.processes("ethercordd"), 3, "the daemon leaves", 0.1)
    bed.up(OFFICE)
    bed.wait_active()
    assert ping(bed.near, "192.168.7.1", 3)
    bed.down()
    bed.ctl("connection", "delete", "cord")
    wait_until(lambda: not bed.near.processes("ethercordd"), "nobody needs it any more", 10)
