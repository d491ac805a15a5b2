# SPDX-License-Identifier: GPL-2.0-or-later
"""Peers that are no ethercord and say nothing of who they are: tap2tap and ttun, in both roles."""

import os

import pytest

import ethercord
from control import Follow, Internet, Site
from ethercord import refused, stays, wait_until
from workers import PORTS, Stock, Tap, is_ours, sockets, spec, worker_pid

STOCK = ["raw-udp", "tun-udp"]
HERE, THERE, AWAY = "10.9.1.2", "10.9.2.2", "10.9.3.2"


class Place:
    """The daemon's site, a peer and somebody else, around a router; `spare` is a second way out of
    the site."""

    def __init__(self, lab, kind):
        self.lab, self.kind, self.ethernet = lab, kind, kind == "raw-udp"
        self.internet = Internet(lab)
        self.ns, self.there, self.away = (lab.namespace(n) for n in ("site", "there", "away"))
        for number, ns in enumerate((self.ns, self.there, self.away), 1):
            self.internet.join(ns, number)
        self.internet.join(self.ns, 4, "net1", default=False)
        self.site = Site(lab, self.ns, "site")
        self.client = self.site.client
        self.port = PORTS[kind]

    def add(self, **more):
        settings = {"address": "192.168.9.1/24", **more}
        self.client.add("t1", **spec(self.kind, **settings))
        self.follow = Follow(self.lab, self.site)
        self.tap = self.lab.keep(Tap(self.ns, "ec-t1", self.ethernet))
        return self

    def stock(self, ns=None, address=THERE, port=None, remote=HERE, connected=None):
        """connected: ttun is, tap2tap is not."""
        connected = not self.ethernet if connected is None else connected
        return self.lab.keep(Stock(ns or self.there, address, port or self.port,
                                   (remote, self.port), connected))

    def get(self):
        return self.client.get("t1")

    def count(self, key):
        return self.get()["Statistics"][key]

    def out(self, peer, number=1, size=60):
        """One that the host sends arrives there, byte for byte."""
        made = self.tap.make(number, size)

        def came():
            self.tap.send(made)
            return made in peer.payloads()
        wait_until(came, f"{size} bytes reach {peer.address}", interval=0.02)

    def into(self, peer, number=2, size=60):
        made = self.tap.make(number, size)

        def came():
            peer.send(made)
            return made in self.tap.take()
        wait_until(came, f"{size} bytes come from {peer.address}", interval=0.02)


@pytest.fixture(params=STOCK)
def place(request, lab):
    return Place(lab, request.param)


SIZES = {"raw-udp": (14, 15, 59, 60, 61, 1000, 1472), "tun-udp": (24, 60, 1000, 1472)}


def test_fixed_remote(place):
    place.add(remote=THERE)
    peer = place.stock()
    for number, size in enumerate(SIZES[place.kind], 100):
        place.into(peer, number, size)
        if size >= 24:      # less than an Ethernet header and a byte the host itself cannot send
            place.out(peer, number, size)
    got = place.get()
    assert (got["State"], got["Remote"]) == ("up", THERE)
    assert "Unauthenticated" not in got["StateReason"]
    assert {sender for _, sender in peer.got} == {(HERE, place.port)}
    stray = [d for d in peer.payloads() if not is_ours(d, place.ethernet)]
    assert not [d for d in stray if len(d) < 14], "only frames are sent"


def test_only_the_configured_peer(place):
    place.add(remote=THERE)
    peer, other = place.stock(), place.stock(place.away, AWAY)
    third = place.stock(port=place.port + 7)
    place.into(peer)
    before = place.count("rx-dropped-stranger")
    for number in range(200):
        for stranger in (other, third):
            stranger.send(place.tap.make(1000 + number))
        place.into(peer, 5000 + number)
    alien = {place.tap.make(1000 + n) for n in range(200)}
    assert not alien & set(place.tap.take()), "a stranger's frames came in"
    place.out(peer)
    assert not other.take() and not third.take(), "strangers are sent to"
    # Those who meet a connected socket end in the kernel.
    assert place.count("rx-dropped-stranger") >= before
    assert place.get()["Remote"] == THERE
    assert not [w for w in place.follow.words("t1") if w == "peer-moved"]


def test_garbage_of_the_peer(place):
    """What ends ttun, and takes tap2tap over."""
    place.add(remote=THERE)
    peer, pid = place.stock(), worker_pid(place.ns)
    for size in (*range(20), 100, 1472):
        for byte in (b"\0", b"\xff", b"\x45", b"\x60"):
            peer.send(byte * size)
    for _ in range(200):
        peer.send(os.urandom(100))
    place.into(peer)
    place.out(peer)
    assert worker_pid(place.ns) == pid
    assert place.count("rx-dropped-malformed") >= 12 * 4


def test_peer_not_there_yet(place):
    """ICMP tells that nobody listens: nothing ends, and who comes later is served."""
    place.add(remote=THERE)
    pid = worker_pid(place.ns)
    sent = place.count("tx-datagrams")
    for number in range(100):
        place.tap.send(place.tap.make(number))
    wait_until(lambda: place.count("tx-datagrams") + place.count("tx-dropped-socket") >=
               sent + 100, "all leave")
    peer = place.stock()
    place.out(peer)
    place.into(peer)
    assert worker_pid(place.ns) == pid and place.get()["State"] == "up"


def test_waits_for_a_client(place):
    place.add(roam=True, underlay="any")
    got = place.get()
    assert (got["State"], got["StateReason"][0], got["Remote"]) == ("up", "Unauthenticated", "")
    assert "nobody" in got["StateReason"][1]
    outside = place.lab.capture(place.internet.router, "n1")
    dropped = place.count("tx-dropped-peer")
    for number in range(50):
        place.tap.send(place.tap.make(number))
    wait_until(lambda: place.count("tx-dropped-peer") >= dropped + 50, "they are counted")
    assert not [p for f in outside.take() if (p := ethercord.ipv4(f)) and p[2] == 17]
    peer = place.stock(port=4321)
    # One byte is no frame: it takes nothing over.
    peer.send(b"?")
    place.into(peer)
    told = place.follow.wait("t1", "peer-moved")
    assert (told["address"], told["port"]) == (THERE, "4321")
    place.out(peer)
    got = place.get()
    assert (got["State"], got["StateReason"][0], got["Remote"]) == ("up", "Unauthenticated", THERE)
    assert "nobody asks who it is" in got["StateReason"][1]
    assert "nobody asked who it is" in place.site.daemon.text()


def test_is_followed(place):
    """To another port, to another address, and back, by one frame each."""
    place.add(roam=True)
    index, pid = place.ns.ifindex("ec-t1"), worker_pid(place.ns)
    ends = [place.stock(port=4321), place.stock(port=4322), place.stock(place.away, AWAY),
            place.stock(port=4323)]
    for turn, peer in enumerate([*ends, ends[0]], 1):
        place.into(peer, turn)
        place.out(peer, 100 + turn)
        wait_until(lambda p=peer: place.get()["Remote"] == p.address[0], "the property follows")
        for other in ends:
            other.take()
        before = [len(o.got) for o in ends if o is not peer]
        for number in range(20):
            place.tap.send(place.tap.make(1000 * turn + number))
        wait_until(lambda p=peer, t=turn: place.tap.make(1000 * t + 19) in p.payloads(), "all go")
        for other in ends:
            other.take()
        assert [len(o.got) for o in ends if o is not peer] == before, "those before get nothing"
    wait_until(lambda: place.follow.words("t1").count("peer-moved") >= len(ends), "told")
    assert (place.ns.ifindex("ec-t1"), worker_pid(place.ns)) == (index, pid)


def test_roams_from_a_remote(place):
    """It is dialled, and may move."""
    place.add(remote=THERE, roam=True)
    assert place.get()["StateReason"][0] == "Unauthenticated"
    peer, moved = place.stock(), place.stock(place.away, AWAY, 4444)
    place.out(peer)
    place.into(moved)
    place.out(moved)


def test_comes_to_another_address(place):
    """The socket is not bound to the one that the first client happened to use."""
    place.add(roam=True)
    peer = place.stock(place.away, AWAY)
    place.into(peer)
    wait_until(lambda: place.get()["Remote"] == AWAY, "it is known")
    beside = place.stock(place.internet.router, "10.9.4.1", remote="10.9.4.2", connected=False)
    place.into(beside, 3)
    place.out(beside, 4)


def test_daemon_killed_after_roaming(place):
    """The next one leaves the peer be: it need not send again first."""
    place.add(roam=True)
    peer = place.stock(place.away, AWAY, 4444)
    place.into(peer)
    wait_until(lambda: place.get()["Remote"] == AWAY, "it is known")
    pid = worker_pid(place.ns)
    place.site.daemon.kill()
    place.out(peer, 1)
    place.site.daemon.start()
    place.client.wait_state("t1", "up")
    wait_until(lambda: place.get()["Remote"] == AWAY, "it is still known")
    place.out(peer, 2)
    assert worker_pid(place.ns) == pid


def test_worker_killed_after_roaming(place):
    """The same with another worker."""
    place.add(roam=True)
    peer = place.stock(place.away, AWAY, 4444)
    place.into(peer)
    wait_until(lambda: place.get()["Remote"] == AWAY, "it is known")
    pid = worker_pid(place.ns)
    os.kill(pid, 9)
    wait_until(lambda: worker_pid(place.ns) not in (None, pid), "another worker")
    place.out(peer, 2)
    assert place.get()["Remote"] == AWAY


@pytest.mark.parametrize("role", ["waits", "dials"])
def test_device_alone(place, role):
    """underlay=device: nothing comes in and nothing leaves by another one, even to a peer that is
    reached by it."""
    spare = place.lab.namespace("spare")
    place.internet.join(spare, 5)
    more = {} if role == "waits" else {"remote": "10.9.4.1"}
    place.add(roam=True, underlay="device:net1", **more)
    assert {d for _, p, d in sockets(place.ns) if p == place.port} == {"net1"}
    elsewhere = place.lab.capture(place.internet.router, "n1")
    beyond = place.stock(spare, "10.9.5.2", remote="10.9.4.2", connected=False)
    main = place.stock(connected=False)
    for number in range(20):        # by the device that is not it
        main.send(place.tap.make(number))
    beside = place.stock(place.internet.router, "10.9.4.1", remote="10.9.4.2", connected=False)
    place.into(beside, 500)
    place.out(beside, 501)
    assert not {place.tap.make(n) for n in range(20)} & set(place.tap.take())
    # One whose route is the default route, over net0: it comes in by net1.
    made = place.tap.make(700)
    wait_until(lambda: beyond.send(made) or made in place.tap.take(), "it comes in by net1")
    for number in range(50):
        place.tap.send(place.tap.make(800 + number))
    # The next one who comes is served again, whatever became of that one.
    place.into(beside, 502)
    place.out(beside, 503)
    found = [p for f in elsewhere.take() if (p := ethercord.ipv4(f)) and p[2] == 17 and
             p[0] in (HERE, "10.9.4.2")]
    assert not found, f"left elsewhere: {found[:3]}"


def test_refusals(place):
    add = place.client.add
    with refused("InvalidSetting", "remote", "roam=yes"):
        add("x", encapsulation=place.kind, data_plane="user")
    with refused("InvalidSetting", "raw-udp or tun-udp"):
        add("x", encapsulation="vxlan", id=7, data_plane="user", roam=True, remote=THERE)
    with refused("InvalidSetting", "device:IFNAME or any"):
        add("x", encapsulation=place.kind, roam=True, underlay="vpn")
    with refused("NotSupported"):
        add("x", encapsulation=place.kind, remote=THERE, data_plane="kernel")
    assert place.client.tunnels() == []
    stays(lambda: not place.site.interfaces(), 0.2, "an interface of a refused tunnel")
