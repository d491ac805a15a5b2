# SPDX-License-Identifier: GPL-2.0-or-later
"""Peers that move: addresses, networks, names, translation. The same interfaces carry on."""

import socket
import struct

import pytest

import ethercord
from control import HOST, Follow, World, carries, full_frames, gap
from ethercord import ping, wait_until
from traffic import ip_packet, udp

GAP = 2.0  # s
OFFICE = "10.9.2.2"


@pytest.fixture
def world(lab):
    return World(lab)


def check(world, flows, indexes, remote, name="office", told=ethercord.PATIENCE):
    """The flows went on but for a gap, over the same interfaces; the office knows where to."""
    for flow in flows:
        carries(flow)
    world.both_up(name)
    assert world.indexes(name) == indexes, "the same links, the same port"
    wait_until(lambda: world.office.get(f"lan.{name}")["Remote"] == remote, f"Remote is {remote}",
               told)
    for flow in flows:
        longest, lost = gap(flow)
        assert longest <= GAP, f"nothing came for {longest:.2f} s ({lost} frames lost)"


def renumber(site, old, new, gateway):
    site.ns.ip("addr", "add", f"{new}/24", "dev", "net0")
    site.ns.ip("addr", "del", f"{old}/24", "dev", "net0")
    site.ns.ip("addr", "replace", f"{new}/24", "dev", "net0")
    site.ns.ip("route", "replace", "default", "via", gateway, "dev", "net0")


def test_renumbered(world):
    host = world.up()
    indexes, flows = world.indexes(), world.flows(host)
    follow = Follow(world.lab, world.office)
    renumber(world.laptop, "10.9.1.2", "10.9.1.3", "10.9.1.1")
    check(world, flows, indexes, "10.9.1.3")
    assert world.laptop.get("office")["Local"] == "10.9.1.3"
    assert follow.wait("lan.office", "peer-moved")
    assert "=degraded" not in follow.words("lan.office")


def test_listener_is_renumbered(lab):
    """The name that the laptop dials leads elsewhere, as after a new lease and dynamic DNS."""
    world = World(lab, hosts=f"127.0.0.1 localhost\n{OFFICE} vpn.example\n")
    host = world.up(remote="vpn.example", keepalive_interval=200, keepalive_timeout=1000)
    assert world.laptop.get("office")["Remote"] == OFFICE
    indexes = world.indexes()
    renumber(world.office, OFFICE, "10.9.2.3", "10.9.2.1")
    (world.laptop.ns.etc / "hosts").write_text("127.0.0.1 localhost\n10.9.2.3 vpn.example\n")
    wait_until(lambda: world.laptop.get("office")["Remote"] == "10.9.2.3", "followed", 60)
    world.both_up(timeout=60)
    assert world.indexes() == indexes
    assert ping(world.laptop.ns, HOST, size=1472) and host


def test_another_network(world):
    """From one uplink to another one, with another gateway, and back; one is gone when the other
    one comes."""
    host = world.up()
    world.internet.join(world.laptop.ns, 3, "net1", default=False)
    world.laptop.ns.ip("link", "set", "net1", "down")
    for device, other, number in (("net1", "net0", 3), ("net0", "net1", 1)) * 2:
        indexes, flows = world.indexes(), world.flows(host)
        world.laptop.ns.ip("link", "set", other, "down")
        world.laptop.ns.ip("link", "set", device, "up")
        world.internet.default(world.laptop.ns, number, device)
        check(world, flows, indexes, f"10.9.{number}.2")


def test_asleep_meanwhile(world):
    """The laptop's daemon stands still, as in suspend, while the network changes under it."""
    host = world.up()
    indexes = world.indexes()
    world.laptop.daemon.process.send_signal(ethercord.signal.SIGSTOP)
    world.internet.cut(1)
    world.office.wait("lan.office", "degraded")
    world.internet.cut()
    renumber(world.laptop, "10.9.1.2", "10.9.1.9", "10.9.1.1")
    world.laptop.daemon.process.send_signal(ethercord.signal.SIGCONT)
    world.both_up(timeout=20)
    wait_until(lambda: world.office.get("lan.office")["Remote"] == "10.9.1.9", "followed")
    assert world.indexes() == indexes
    carries(world.flows(host)[1])


# Translation

@pytest.fixture
def home(lab):
    """The laptop is behind a NAT."""
    return World(lab, nat=True)


def mapping(wire, dport=4789):
    """Source ports of the tunnel's datagrams that reached the office's network."""
    return {(d.source, d.sport) for d in wire.take() if d.dport == dport}


def test_behind_a_nat(home):
    wire = home.internet.wire(2)
    home.up()
    there = home.office.get("lan.office")
    assert there["Remote"] == home.nat.address
    assert ping(home.laptop.ns, HOST, size=1472)
    sources = mapping(wire)
    assert sources and all(a == home.nat.address and 20000 <= p <= 29999 for a, p in sources)


@pytest.mark.parametrize("translated", [False, True], ids=["direct", "behind a NAT"])
def test_second_address(lab, translated):
    """The listener has several; its data comes from the one that was dialed, or a NAT drops it."""
    world = World(lab, nat=translated)
    world.office.ns.ip("addr", "add", "10.9.2.3/24", "dev", "net0")
    host = world.up(remote="10.9.2.3")
    assert world.laptop.get("office")["Remote"] == "10.9.2.3"
    assert world.office.get("lan.office")["Local"] == "10.9.2.3"
    back = world.internet.wire(1)
    full_frames(world, host)
    assert {d.source for d in back.take() if 4789 in (d.sport, d.dport)} == {"10.9.2.3"}


@pytest.mark.parametrize("how", ["forgotten", "forgotten with TCP", "another range"])
def test_translation_changes(home, how):
    """The data's port, all of a sudden. It is followed without a flap."""
    host = home.up()
    indexes, flows = home.indexes(), home.flows(host)
    wire, back = home.internet.wire(2), home.internet.wire(1)
    follow = [Follow(home.lab, site) for site in (home.laptop, home.office)]
    wait_until(lambda: mapping(wire), "data crosses")
    before = mapping(wire)
    home.nat.map(30000, 39999)
    wire.clear()
    home.nat.forget(None if how == "forgotten with TCP" else 17)
    wait_until(lambda: mapping(wire) - before, "the mapping is another one")
    wait_until(lambda: any(d.dport >= 30000 and d.sport != 0 and d.source == OFFICE
                           for d in back.take()), "the office sends to the new port")
    check(home, flows, indexes, home.nat.address)
    for f, name in zip(follow, ("office", "lan.office")):
        assert "=degraded" not in f.words(name)
    assert "peer-moved" in follow[1].words("lan.office")


def test_two_behind_one_nat(home):
    """One of them with two cords. All are told apart, also when all mappings change at once."""
    host = home.host()
    desk = home.site("desk", 2)
    home.office.listen(peers=("one", "two", "desk"))
    cords = [(home.laptop, "one"), (home.laptop, "two"), (desk, "desk")]
    for site, name in cords:
        site.dial(name, underlay="any", keepalive_interval=200)
        site.wait(name, "up")
        home.office.wait(f"lan.{name}", "up")
    there = {name: home.office.get(f"lan.{name}") for _, name in cords}
    assert {t["Remote"] for t in there.values()} == {home.nat.address}
    assert len({t["Id"] for t in there.values()}) == 3

    def both_ways(name, site):
        own = site.ifname(name)
        for ends in ((site.ns, own, host, "eth0"), (host, "eth0", site.ns, own)):
            assert home.lab.flow(*ends).start().stop(50) == []
    for _ in range(2):
        for site, name in cords:
            both_ways(name, site)
        home.nat.map(30000, 39999)
        home.nat.forget()
        for site, name in cords:
            carries(home.lab.flow(host, "eth0", site.ns, site.ifname(name)).start())
    for site, name in cords:
        assert site.client.state(name) == "up" == home.office.client.state(f"lan.{name}")
        assert home.office.get(f"lan.{name}")["Ifindex"] == there[name]["Ifindex"]


def test_nat_is_renumbered(home):
    """The home router gets another address outside: as its ports, learnt from the data."""
    host = home.up()
    indexes, flows = home.indexes(), home.flows(host)
    home.nat.namespace.ip("addr", "add", "10.9.1.77/24", "dev", "wan")
    home.nat.namespace.ip("addr", "del", "10.9.1.2/24", "dev", "wan")
    home.nat.namespace.ip("addr", "replace", "10.9.1.77/24", "dev", "wan")
    home.nat.namespace.ip("route", "replace", "default", "via", "10.9.1.1")
    home.nat.address = "10.9.1.77"
    home.nat.map(20000, 29999)
    home.nat.forget(None)
    check(home, flows, indexes, "10.9.1.77", told=25)


class Stranger:
    """Somebody else at network 7, who sends the office datagrams of the tunnel."""

    address = "10.9.7.2"

    def __init__(self, world):
        self.ns = world.lab.namespace("stranger")
        world.internet.join(self.ns, 7)
        with self.ns.entered():
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        world.lab.stack.callback(self.socket.close)
        self.wire = world.internet.wire(7)

    def send(self, payload, source=None, sport=4789):
        packet = ip_packet(source or self.address, OFFICE, *udp(4789, payload, sport))
        self.socket.sendto(packet, (OFFICE, 0))

    def gets(self):
        """What the office sends it."""
        return [d for d in self.wire.take() if d.source == OFFICE]


@pytest.mark.parametrize("nat", [False, True], ids=["direct", "behind a NAT"])
def test_strangers_do_not_move_a_peer(lab, nat):
    """Neither with the right VNI, nor with the right form, nor with what was overheard."""
    world = World(lab, nat=nat)
    host = world.up(keepalive_interval=100)
    there = world.office.get("lan.office")
    stranger = Stranger(world)
    heard = world.internet.wire(2)
    flows = world.flows(host)
    wait_until(lambda: len(heard.probes()) > 20, "probes are overheard")
    probes = [d.payload for d in heard.probes()]
    payload = [d.payload for d in heard.take() if d.payload not in probes][:20]
    follow = Follow(lab, world.office)
    for data in [*probes, *payload] * 5:
        stranger.send(data)  # word for word
        stranger.send(data[:-1] + bytes([data[-1] ^ 1]))
        stranger.send(data[:30])
        stranger.send(data + bytes(100))
        stranger.send(data[:22] + bytes(len(data) - 22))
    for flow in flows:
        carries(flow, 200)
    assert not [d for d in stranger.gets() if d.sport == 4789 or d.dport == 4789], \
        "the office answers a stranger"
    assert [f.stop() for f in flows] == [[], []]
    now = world.office.get("lan.office")
    assert (now["Remote"], now["Ifindex"]) == (there["Remote"], there["Ifindex"])
    assert "peer-moved" not in follow.words("lan.office") and world.both_up()


def test_no_datagram_is_answered_louder(home):
    """Nothing that a stranger sends brings more than it cost."""
    home.up()
    stranger = Stranger(home)
    sent = 0
    for size in (1, 8, 50, 100, 1400):
        for head in (b"", struct.pack("!II", 0x08000000, home.office.get("lan.office")["Id"] << 8)):
            for _ in range(20):
                stranger.send(head + bytes(size))
                sent += len(head) + size + 28
    assert ping(home.laptop.ns, HOST, 3)
    assert sum(len(d.payload) + 28 for d in stranger.gets()) <= sent


def in_vpn(world):
    """A second network between the ends, which stands in for a VPN that is an interface."""
    for site, number, other in ((world.laptop, 3, 4), (world.office, 4, 3)):
        world.internet.join(site.ns, number, "vpn0", default=False)
        site.ns.ip("route", "add", f"10.9.{other}.0/24", "via", f"10.9.{number}.1", "dev", "vpn0")
    world.office.listen(underlay="device:vpn0")
    world.laptop.dial(remote="10.9.4.2", underlay="device:vpn0", keepalive_timeout=1000)
    return world.both_up()


@pytest.mark.parametrize("loser", ("laptop", "office"))
def test_nothing_is_said_outside(world, loser):
    """The VPN goes down at one end, and what it led to is routed elsewhere: neither the cord nor
    the control channel follows, whatever is done to them."""
    in_vpn(world)
    site, number, peer = {"laptop": (world.laptop, 1, "10.9.4.2"),
                          "office": (world.office, 2, "10.9.3.2")}[loser]
    clear = world.lab.capture(world.internet.router, f"n{number}")
    site.ns.ip("link", "set", "vpn0", "down")
    assert "dev net0" in site.ns.ip("route", "get", peer).stdout, "the way that is left leads outside"
    if loser == "office":
        world.laptop.wait("office", "degraded")
        world.office.wait("lan.office", "waiting")
        world.laptop.down("office")
        world.office.on_listener("lan", "Deactivate")
    else:
        world.laptop.wait("office", "waiting")
        world.office.on_listener("lan", "Deactivate")
        world.laptop.down("office")
    with site.ns.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"seen", (peer, 9))

    def to_peer():
        return [packet for packet in map(ethercord.ipv4, clear.take())
                if packet and packet[1] == peer]
    wait_until(lambda: any(p[2] == socket.IPPROTO_UDP and p[4].endswith(b"seen")
                           for p in to_peer()), "the router sees what leaves in clear")
    assert len(to_peer()) == 1, "nothing else of it is seen"
