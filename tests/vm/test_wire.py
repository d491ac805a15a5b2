# SPDX-License-Identifier: GPL-2.0-or-later
"""What goes over the wire, byte by byte, against systems that know nothing of ethercord."""

import json
import re
import struct

import pytest

import wire
from wire import FAR, NEAR, wait_for

_why = wire.why_not_here()
pytestmark = pytest.mark.skipif(_why is not None, reason=str(_why))

FRAME = bytes.fromhex("ffffffffffff02000000000988b5") + b"HELLO" * 10
INNER = FRAME.hex()
KEY = 0x11223344
OUTER4 = "0a0900020a090001"
OUTER6 = "fd000009000000000000000000000002 fd000009000000000000000000000001"


class World:
    """Both sites, the wire between them, and the daemon."""

    def __init__(self, directory):
        wire.run("modprobe", "-a", "tun", "fou", "fou6")
        self.near, self.far, self.lan = (wire.Site(n) for n in ("near", "far", "lan"))
        self.near.ip("link", "add", "wire", "type", "veth", "peer", "wire", "netns", "far")
        for site, address in ((self.near, NEAR), (self.far, FAR)):
            site.ip("address", "add", f"{address[4]}/24", "dev", "wire")
            site.ip("address", "add", f"{address[6]}/64", "dev", "wire", "nodad")
            # Checksums are to be on the wire, not left to a card.
            site.run("ethtool", "-K", "wire", "tx", "off")
            site.ip("link", "set", "wire", "up")
        self.near.ip("link", "add", "lan", "type", "veth", "peer", "eth0", "netns", "lan")
        self.lan.ip("link", "set", "eth0", "up")
        self.lan.run("ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off", "gro", "off")
        self.daemon = wire.Daemon(self.near, directory)
        self.tunnels = []

    def add(self, name, **settings):
        self.tunnels.append(self.daemon.add(name, **settings))
        return self.tunnels[-1]

    def far_link(self, *arguments, family=4, address="10.99.0.1/24", name="t0"):
        """`ip link add` at the far end; LOCAL and REMOTE stand for the outer addresses."""
        words = [{"LOCAL": FAR[family], "REMOTE": NEAR[family]}.get(a, a) for a in arguments]
        self.far.ip(*(["-6"] if family == 6 else []), "link", "add", name, "type", *words)
        self.far.ip("address", "add", address, "dev", name)
        self.far.ip("link", "set", name, "up")

    def far_fou(self, family=4, port=65201):
        self.far.run("ip", f"-{family}", "fou", "add", "port", str(port), "ipproto", "47")

    def clean_tunnels(self):
        for tunnel in self.tunnels:
            tunnel.remove()
        self.tunnels = []

    def clean(self):
        self.clean_tunnels()
        for name in json.loads(self.far.ip("-j", "link", "show").stdout):
            if name["ifname"] in ("t0", "t1"):
                self.far.ip("link", "del", name["ifname"])
        # The next far end has another Ethernet address.
        self.lan.ip("neighbour", "flush", "dev", "eth0")
        # Nor does it carry as little as the one before.
        self.lan.ip("route", "flush", "cache")
        for site in (self.near, self.far):
            for family, port, _ in site.fou_ports():
                site.run("ip", f"-{family}", "fou", "del", "port", str(port))

    def close(self):
        self.daemon.stop()
        for site in (self.near, self.far, self.lan):
            site.remove()


@pytest.fixture(scope="module")
def whole_world(tmp_path_factory):
    w = World(tmp_path_factory.mktemp("wire"))
    yield w
    w.close()
    print(w.daemon.log())


@pytest.fixture
def world(whole_world):
    yield whole_world
    whole_world.clean()


def ip_checksum_is_right(packet):
    total = sum(struct.unpack("!10H", packet[:20]))
    return (total & 0xffff) + (total >> 16) == 0xffff


def assert_looks(packet, pattern):
    """Compares hexadecimal digits; a dot is any one."""
    assert re.fullmatch(pattern.replace(" ", ""), packet.hex()), f"{packet.hex()}\n{pattern}"
    if packet[0] >> 4 == 4:
        assert ip_checksum_is_right(packet)


GRETAP = ["gretap", "local", "LOCAL", "remote", "REMOTE"]
GRETAP6 = ["ip6gretap", "local", "LOCAL", "remote", "REMOTE"]
FOU = ["encap", "fou", "encap-sport", "65201", "encap-dport", "65201"]
VXLAN = ["vxlan", "local", "LOCAL", "remote", "REMOTE", "dstport", "4789", "id", str(0x112233)]

# settings of the near end, far end, outer family, what the packet with FRAME in it looks like
ETHERNET = {
    "gretap": (dict(encapsulation=["gretap"]), GRETAP, 4,
               f"45000058 ....4000 402f.... {OUTER4} 00006558 {INNER}"),
    "gretap-key": (dict(encapsulation=["gretap"], id=KEY), [*GRETAP, "key", str(KEY)], 4,
                   f"4500005c ....4000 402f.... {OUTER4} 20006558 11223344 {INNER}"),
    "gretap-bridged": (dict(encapsulation=["gretap"], mode="join-remote"),
                       [*GRETAP, "nopmtudisc", "ignore-df"], 4,
                       f"45000058 ....0000 402f.... {OUTER4} 00006558 {INNER}"),
    "gretap-ttl-dscp": (dict(encapsulation=["gretap"], ttl=7, dscp=46), GRETAP, 4,
                        f"45b80058 ....4000 072f.... {OUTER4} 00006558 {INNER}"),
    "gretap-bound": (dict(encapsulation=["gretap"], underlay="device:wire"), GRETAP, 4,
                     f"45000058 ....4000 402f.... {OUTER4} 00006558 {INNER}"),
    "gretap-fou": (dict(encapsulation=["gretap-fou"]), [*GRETAP, *FOU], 4,
                   f"45000064 ....4000 4011.... {OUTER4} feb1feb1 00500000 "
                   f"10006558 ........ {INNER}"),
    "gretap-fou-key": (dict(encapsulation=["gretap-fou"], id=KEY),
                       [*GRETAP, "key", str(KEY), *FOU], 4,
                       f"45000068 ....4000 4011.... {OUTER4} feb1feb1 00540000 "
                       f"30006558 11223344 ........ {INNER}"),
    "vxlan": (dict(encapsulation=["vxlan"], id=0x112233), VXLAN, 4,
              f"45000064 ....0000 4011.... {OUTER4} ....12b5 0050(?!0000).... "
              f"08000000 11223300 {INNER}"),
    # Our own process at this end, the kernel at the other.
    "gretap-fou-user": (dict(encapsulation=["gretap-fou"], data_plane="user"), [*GRETAP, *FOU], 4,
                        f"45000064 ....4000 4011.... {OUTER4} feb1feb1 0050(?!0000).... "
                        f"10006558 ........ {INNER}"),
    "gretap-fou-key-user": (dict(encapsulation=["gretap-fou"], data_plane="user", id=KEY),
                            [*GRETAP, "key", str(KEY), *FOU], 4,
                            f"45000068 ....4000 4011.... {OUTER4} feb1feb1 0054(?!0000).... "
                            f"30006558 11223344 ........ {INNER}"),
    "vxlan-user": (dict(encapsulation=["vxlan"], data_plane="user", id=0x112233), VXLAN, 4,
                   f"45000064 ....4000 4011.... {OUTER4} 12b512b5 0050(?!0000).... "
                   f"08000000 11223300 {INNER}"),
    "gretap6-fou-user": (dict(encapsulation=["gretap-fou"], data_plane="user", remote=[FAR[6]]),
                         [*GRETAP6, *FOU], 6,
                         f"600..... 00501140 {OUTER6} feb1feb1 0050(?!0000).... "
                         f"10006558 ........ {INNER}"),
    "vxlan6-user": (dict(encapsulation=["vxlan"], data_plane="user", remote=[FAR[6]],
                         id=0x112233), VXLAN, 6,
                    f"600..... 00501140 {OUTER6} 12b512b5 0050(?!0000).... "
                    f"08000000 11223300 {INNER}"),
    "gretap6": (dict(encapsulation=["gretap"], remote=[FAR[6]]), GRETAP6, 6,
                f"600..... 00442f40 {OUTER6} 00006558 {INNER}"),
    "gretap6-key": (dict(encapsulation=["gretap"], remote=[FAR[6]], id=KEY, dscp=46),
                    [*GRETAP6, "key", str(KEY)], 6,
                    f"6b8..... 00482f40 {OUTER6} 20006558 11223344 {INNER}"),
    "gretap6-fou": (dict(encapsulation=["gretap-fou"], remote=[FAR[6]]), [*GRETAP6, *FOU], 6,
                    f"600..... 00501140 {OUTER6} feb1feb1 0050(?!0000).... "
                    f"10006558 ........ {INNER}"),
    "vxlan6": (dict(encapsulation=["vxlan"], remote=[FAR[6]], id=0x112233), VXLAN, 6,
               f"600..... 00501140 {OUTER6} ....12b5 0050(?!0000).... "
               f"08000000 11223300 {INNER}"),
}


def wire_packet(world, tunnel):
    """The outer packet that carries FRAME."""
    with wire.Capture(world.far, "wire") as capture:
        with world.near.packet_socket(tunnel.interface()) as s:
            s.send(FRAME)
        return capture.first(lambda p: FRAME in p, "the frame")


@pytest.mark.parametrize("case", ETHERNET)
def test_ethernet(world, case):
    settings, far, family, pattern = ETHERNET[case]
    tunnel = world.add("t", address=["10.99.0.2/24"], **settings)
    # Before the far end listens: a FOU receiver rewrites the packet that the capture shares.
    assert_looks(wire_packet(world, tunnel), pattern)
    if "fou" in far:
        world.far_fou(family)
    world.far_link(*far, family=family)
    world.near.wait_ping("10.99.0.1")
    largest = tunnel.get("LargestFrame") - 14 - 28
    world.near.wait_ping("10.99.0.1", "-s", str(largest), "-M", "dont")


GRE = ["gre", "local", "LOCAL", "remote", "REMOTE"]
IP = {
    "gre": (dict(encapsulation=["gre"]), GRE, 4,
            f"4500006c ....4000 402f.... {OUTER4} 00000800 45000054 .*"),
    "gre-key": (dict(encapsulation=["gre"], id=KEY), [*GRE, "key", str(KEY)], 4,
                f"45000070 ....4000 402f.... {OUTER4} 20000800 11223344 45000054 .*"),
    "ipip": (dict(encapsulation=["ipip"]), ["ipip", *GRE[1:]], 4,
             f"45000068 ....4000 4004.... {OUTER4} 45000054 .*"),
    "gre6": (dict(encapsulation=["gre"], remote=[FAR[6]]), ["ip6gre", *GRE[1:]], 6,
             f"600..... 00582f40 {OUTER6} 00000800 45000054 .*"),
    "ipip6": (dict(encapsulation=["ipip"], remote=[FAR[6]]),
              ["ip6tnl", "mode", "any", *GRE[1:]], 6,
              f"600..... 00540440 {OUTER6} 45000054 .*"),
}


@pytest.mark.parametrize("case", IP)
def test_ip(world, case):
    settings, far, family, pattern = IP[case]
    tunnel = world.add("t", address=["10.99.0.2/24"], **settings)
    world.far_link(*far, family=family)
    with wire.Capture(world.far, "wire") as capture:
        world.near.wait_ping("10.99.0.1", "-p", b"HELLO".hex())
        packet = capture.first(lambda p: b"HELLO" * 5 in p, "the ping")
    assert_looks(packet, pattern)
    world.near.wait_ping("10.99.0.1", "-s", str(tunnel.get("LargestFrame") - 28), "-M", "do")


def test_ip6_in_ip6(world):
    """ip6tnl takes both IP versions."""
    tunnel = world.add("t", encapsulation=["ipip"], remote=[FAR[6]], address=["fd99::2/64"])
    world.far_link("ip6tnl", "mode", "any", *GRE[1:], family=6, address="fd99::1/64")
    with wire.Capture(world.far, "wire") as capture:
        world.near.wait_ping("fd99::1", "-p", b"HELLO".hex())
        packet = capture.first(lambda p: b"HELLO" * 5 in p, "the ping")
    assert_looks(packet, f"600..... 00682940 {OUTER6} 60.* ")
    assert tunnel.get("Mtu") == 1460


# Full frames in bridged modes


def bridge_here(world, encapsulation, **settings):
    tunnel = world.add("t", encapsulation=[encapsulation], mode="join-remote", bridge="br0",
                       bridge_create=True, attach="lan", **settings)
    world.lan.ip("address", "replace", "10.99.0.3/24", "dev", "eth0")
    assert tunnel.get("Mtu") == 1500
    assert tunnel.get("LargestFrame") == 1514
    return tunnel


@pytest.mark.parametrize("case", ["gretap", "gretap-fou"])
@pytest.mark.parametrize("df", ["do", "dont"])
def test_full_frames(world, case, df):
    """A network's 1500-byte packets cross a path of 1500 bytes, whatever they say of fragments."""
    bridge_here(world, case)
    if case == "gretap-fou":
        world.far_fou()
        world.far_link(*GRETAP, "nopmtudisc", "ignore-df", *FOU)
    else:
        world.far_link(*GRETAP, "nopmtudisc", "ignore-df")
    world.far.ip("link", "set", "t0", "mtu", "1500")
    world.lan.wait_ping("10.99.0.1")
    with wire.Capture(world.far, "wire") as capture:
        done = world.lan.ping("10.99.0.1", "-s", "1472", "-M", df)
        assert done.returncode == 0, done.stdout
        fragment = capture.first(lambda p: p[0] >> 4 == 4 and p[6] & 0x20, "an outer fragment")
    assert len(fragment) <= 1500


def test_full_frames_vxlan(world):
    """VXLAN fragments what may be and answers too-big to what may not."""
    bridge_here(world, "vxlan", id=5)
    world.far_link("vxlan", "local", "LOCAL", "remote", "REMOTE", "dstport", "4789", "id", "5")
    world.far.ip("link", "set", "t0", "mtu", "1500")
    world.lan.wait_ping("10.99.0.1")
    done = world.lan.ping("10.99.0.1", "-s", "1472", "-M", "dont")
    assert done.returncode == 0, done.stdout
    done = world.lan.ping("10.99.0.1", "-s", "1472", "-M", "do")
    assert done.returncode != 0 and "mtu = 1450" in done.stdout, done.stdout
    # The host has learnt it.
    done = world.lan.ping("10.99.0.1", "-s", "1422", "-M", "do")
    assert done.returncode == 0, done.stdout


def test_full_frames_user(world):
    """So does our own process; at the other end is the kernel's gretap over FOU."""
    bridge_here(world, "gretap-fou", data_plane="user", id=5)
    world.far_fou()
    world.far_link(*GRETAP, "key", "5", "nopmtudisc", "ignore-df", *FOU)
    world.far.ip("link", "set", "t0", "mtu", "1500")
    world.lan.wait_ping("10.99.0.1")
    with wire.Capture(world.far, "wire") as capture:
        done = world.lan.ping("10.99.0.1", "-s", "1472", "-M", "dont")
        assert done.returncode == 0, done.stdout
        capture.first(lambda p: p[0] >> 4 == 4 and p[6] & 0x20, "an outer fragment")
    done = world.lan.ping("10.99.0.1", "-s", "1472", "-M", "do")
    assert done.returncode != 0 and "mtu = 1446" in done.stdout, done.stdout
    done = world.lan.ping("10.99.0.1", "-s", "1418", "-M", "do")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("case", ["gre", "gretap"])
def test_full_frames_asked_for(world, case):
    """Point-to-point, too, where it is asked for."""
    tunnel = world.add("t", encapsulation=[case], full_frames="yes", address=["10.99.0.2/24"])
    world.far_link(case, *GRE[1:], "nopmtudisc", "ignore-df")
    world.far.ip("link", "set", "t0", "mtu", "1500")
    world.near.wait_ping("10.99.0.1")
    done = world.near.ping("10.99.0.1", "-s", "1472", "-M", "do")
    assert done.returncode == 0, done.stdout
    assert tunnel.get("Mtu") == 1500


@pytest.mark.parametrize("case", ["gretap", "ipip"])
def test_fwmark(world, case):
    """Only marked packets find a way."""
    world.near.ip("route", "add", "unreachable", FAR[4])
    world.near.ip("route", "add", FAR[4], "dev", "wire", "src", NEAR[4], "table", "99")
    world.near.ip("rule", "add", "fwmark", "0xcafe", "lookup", "99")
    try:
        world.add("t", encapsulation=[case], fwmark=0xcafe, address=["10.99.0.2/24"])
        world.far_link(case, *GRE[1:])
        world.near.wait_ping("10.99.0.1")
    finally:
        world.near.ip("rule", "del", "fwmark", "0xcafe")
        world.near.ip("route", "flush", "table", "99")
        world.near.ip("route", "del", "unreachable", FAR[4])


# FOU ports


def test_fou_port_is_shared(world):
    first = world.add("t", encapsulation=["gretap-fou"], id=1)
    second = world.add("u", encapsulation=["gretap-fou"], id=2)
    other = world.add("v", encapsulation=["gretap-fou"], remote=[FAR[6]])
    v4, v6 = (4, 65201, 47), (6, 65201, 47)
    assert world.near.fou_ports() == {v4, v6}
    first.call("Deactivate")
    first.wait_state("down")
    assert world.near.fou_ports() == {v4, v6}
    second.call("Deactivate")
    wait_for(lambda: world.near.fou_ports() == {v6}, "the port closed with its last tunnel")
    second.call("Activate")
    second.wait_state("up")
    assert world.near.fou_ports() == {v4, v6}
    other.call("Deactivate")
    wait_for(lambda: world.near.fou_ports() == {v4}, "the IPv6 port closed with its last tunnel")


def test_foreign_fou_port_stays(world):
    world.near.run("ip", "fou", "add", "port", "65201", "ipproto", "47")
    tunnel = world.add("t", encapsulation=["gretap-fou"], address=["10.99.0.2/24"])
    world.far_fou()
    world.far_link(*GRETAP, *FOU)
    world.near.wait_ping("10.99.0.1")
    tunnel.call("Deactivate")
    tunnel.wait_state("down")
    tunnel.call("Activate")
    tunnel.wait_state("up")
    world.clean_tunnels()
    assert (4, 65201, 47) in world.near.fou_ports()


def test_fou_port_of_another_kind(world):
    world.near.run("ip", "fou", "add", "port", "65201", "ipproto", "4")
    done = world.daemon.add("t", check=False, encapsulation=["gretap-fou"])
    assert done.returncode != 0
    assert "65201" in done.stdout and "data-port" in done.stdout, done.stdout
    assert world.near.fou_ports() == {(4, 65201, 4)}
    assert world.near.ip("link", "show", "ec-t", check=False).returncode != 0


def test_fou_survives_a_crash(world):
    """The tunnel carries on without the daemon, and the next one still knows whose port it is."""
    tunnel = world.add("t", flags="persist activate", encapsulation=["gretap-fou"],
                       address=["10.99.0.2/24"])
    world.far_fou()
    world.far_link(*GRETAP, *FOU)
    world.near.wait_ping("10.99.0.1")
    ifindex = tunnel.get("Ifindex")
    world.daemon.kill()
    world.near.wait_ping("10.99.0.1")
    world.daemon.start()
    tunnel.wait_state("up")
    assert tunnel.get("Ifindex") == ifindex
    world.near.wait_ping("10.99.0.1")
    world.clean_tunnels()
    wait_for(lambda: not world.near.fou_ports(), "the port closed")


# Changes in place


@pytest.mark.parametrize("case", ["gretap", "gretap-key", "gretap-fou", "gretap6", "vxlan", "vxlan6"])
def test_change_in_place(world, case):
    """A new hop limit and a new peer keep the interface: its port, its addresses, its traffic."""
    settings, far, family, _ = ETHERNET[case]
    tunnel = world.add("t", address=["10.99.0.2/24"], **settings)
    ifindex, mtu = tunnel.get("Ifindex"), tunnel.get("Mtu")
    tunnel.update(ttl=9, remote=[FAR[family].replace("1", "7") if family == 6 else "10.9.0.7"])
    tunnel.wait_state("up")
    tunnel.update(remote=[FAR[family]])
    tunnel.wait_state("up")
    assert (tunnel.get("Ifindex"), tunnel.get("Mtu")) == (ifindex, mtu)
    assert wire_packet(world, tunnel)[8 if family == 4 else 7] == 9
    if "fou" in far:
        world.far_fou(family)
    world.far_link(*far, family=family)
    world.near.wait_ping("10.99.0.1")


def test_change_of_mode(world):
    """Fragments on and off again: what the kernel cannot change is made anew."""
    tunnel = world.add("t", encapsulation=["gretap"], address=["10.99.0.2/24"])
    for mode, mtu, df in (("join-remote", 1500, 0), ("point-to-point", 1462, 0x40),
                          ("join-remote", 1500, 0)):
        tunnel.update(mode=mode)
        tunnel.wait_state("up")
        assert tunnel.get("Mtu") == mtu
        assert wire_packet(world, tunnel)[6] == df
    world.far_link(*GRETAP, "nopmtudisc", "ignore-df")
    world.near.wait_ping("10.99.0.1")


# FOU where the receiver merges packets


def throughput(world, amount, *options):
    """bit/s of one TCP connection from here to the far end, or 0 when it does not get through."""
    server = world.far.popen("iperf3", "-s", "-1", "-B", "10.99.0.1", stdout=-3, stderr=-3)
    try:
        wait_for(lambda: world.far.run("ss", "-Hltn", "sport = :5201").stdout, "iperf3 listens")
        try:
            done = world.near.run("iperf3", "-J", "-c", "10.99.0.1", "-n", amount, *options,
                                  check=False, timeout=40)
        except wire.subprocess.TimeoutExpired:
            return 0
        return json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def merging_wire(world):
    """Like a network card: no super-frames on the wire, packets merged where they arrive."""
    def offload(state):
        for site in (world.near, world.far):
            site.run("ethtool", "-K", "wire", "tso", state, "gso", state)
            site.run("ethtool", "-K", "wire", "gro", "off" if state == "on" else "on")
    offload("off")
    yield
    offload("on")


def test_fou_with_gro(world, merging_wire, record_property):
    """TCP over gretap-fou keeps up with plain gretap; without sequence numbers it collapses."""
    speed = {}
    for case in ("gretap", "gretap-fou", "gretap-fou-user"):
        settings, far, _, _ = ETHERNET[case]
        world.add("t", address=["10.99.0.2/24"], **settings)
        if case != "gretap":
            world.far_fou()
        world.far_link(*far)
        world.near.wait_ping("10.99.0.1")
        speed[case] = throughput(world, "24M")
        if case == "gretap-fou":
            # For comparison: the far end numbers nothing, and this kernel may or may not mind.
            speed["without numbers"] = throughput(world, "2M", "-R")
        world.clean()
    for case, bits in speed.items():
        record_property(case, bits)
        print(f"{case}: {bits / 1e6:.1f} Mbit/s")
    # What collapses has a hundredth. An emulated processor is slow at leaving the kernel.
    collapsed = min(speed["without numbers"], speed["gretap"] / 100)
    assert speed["gretap-fou"] > 10 * collapsed
    assert speed["gretap-fou-user"] > 2 * collapsed


def test_capabilities(world):
    """What the daemon says it can do was tried, and nothing of the trying is left."""
    done = world.daemon.busctl("get-property", "org.ethercord1", "/org/ethercord1",
                               "org.ethercord1.Manager", "Encapsulations")
    assert sorted(json.loads(done.stdout)["data"]) == [
        "gre/kernel", "gretap-fou/kernel", "gretap-fou/user", "gretap/kernel", "ipip/kernel",
        "raw-udp/user", "tun-udp/user", "vxlan/kernel", "vxlan/user"]
    wait_for(lambda: "ec-try" not in world.near.ip("-br", "link").stdout, "the trials are gone")
    assert world.near.fou_ports() == set()


def test_attach_refuses_wifi(tmp_path):
    """A Wi-Fi station cannot be a bridge port. The simulated radio lives in the first namespace."""
    wire.run("modprobe", "mac80211_hwsim", "radios=1")
    wire.run("ip", "netns", "attach", "first", "1")
    first = wire.Site.__new__(wire.Site)
    first.name = "first"
    wait_for(lambda: "wlan0" in first.ip("-br", "link").stdout, "the radio")
    daemon = wire.Daemon(first, tmp_path)
    try:
        first.ip("link", "add", "here", "type", "veth", "peer", "there")
        first.ip("address", "add", "10.9.9.2/24", "dev", "here")
        for name in ("here", "there"):
            first.ip("link", "set", name, "up")
        settings = {"mode": "join-networks", "remote": ["10.9.9.1"], "bridge": "brw",
                    "bridge_create": True, "encapsulation": ["vxlan"], "id": 5}
        refused = daemon.add("w", check=False, attach="wlan0", **settings)
        assert refused.returncode != 0 and "wlan0 is Wi-Fi" in refused.stdout
        wait_for(lambda: "brw" not in first.ip("-br", "link").stdout,
                 "the bridge it had made is gone")
        first.ip("link", "add", "lan0", "type", "veth", "peer", "lan1")
        daemon.add("w", attach="lan0", **settings).remove()
    finally:
        daemon.stop()
        first.ip("link", "del", "here")
        first.ip("link", "del", "lan0", check=False)
        wire.run("ip", "netns", "del", "first")


OFFLOADS = ("tx", "tso", "gso", "gro")


@pytest.mark.parametrize("off", [(), ("near",), ("far",), ("near", "far")], ids="-".join)
def test_user_with_kernel(world, off):
    """Our own process and the kernel's gretap over FOU, each with its offloads or without: TCP both
    ways, tagged frames, and those of full size."""
    tunnel = world.add("t", address=["10.99.0.2/24"], **ETHERNET["gretap-fou-user"][0])
    world.far_fou()
    world.far_link(*ETHERNET["gretap-fou-user"][1])
    world.near.wait_ping("10.99.0.1")
    for site, label, device in ((world.near, "near", tunnel.interface()), (world.far, "far", "t0")):
        if label in off:
            site.run("ethtool", "-K", device, *(w for name in OFFLOADS for w in (name, "off")))
        end = 2 if label == "near" else 1
        site.ip("link", "add", "link", device, "name", "v42", "type", "vlan", "id", "42")
        site.ip("address", "add", f"10.98.0.{end}/24", "dev", "v42")
        site.ip("link", "set", "v42", "up")
    for way in ((), ("-R",)):
        assert throughput(world, "2M", *way) > 0, way
    mtu = int(tunnel.get("Mtu"))
    world.near.wait_ping("10.98.0.1")
    for address, room in (("10.99.0.1", mtu), ("10.98.0.1", mtu - 4)):
        done = world.near.ping(address, "-c", "3", "-s", str(room - 28), "-M", "do")
        assert done.returncode == 0, done.stdout
