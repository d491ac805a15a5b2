# SPDX-License-Identifier: GPL-2.0-or-later
"""Peers that find each other on Debian's kernel: gretap and gretap-fou, firewalls, NAT, VPNs,
roaming, crashes, clocks."""

import contextlib
import datetime
import os
import pathlib
import signal
import socket
import statistics
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import control
import ethercord
import peer
import vpn
from control import Internet, Site
from ethercord import bridge, frame_socket, run, wait_until
from ike import StrongSwan
from laptops import Events, Gaps, crosses, firewall
from vpn import PHYSICAL, PHYSICAL6, Topology, WireGuard


def missing():
    if os.geteuid() != 0:
        return "needs root"
    probe = ethercord.Namespace("probe")
    try:
        made = probe.ip("link", "add", "g0", "type", "gretap", "remote", "192.0.2.1",
                        check=False).returncode == 0
        return None if made else "this kernel has no GRE: run it with tests/vm/run-vm"
    finally:
        probe.close()


_why = missing()
pytestmark = pytest.mark.skipif(_why is not None, reason=str(_why))

PEERS = [f"peer{n}" for n in range(4)]
PLAIN = 65210   # port of the listener that joins no bridge


class World:
    """near (laptop) --- router --- far (office); two listeners at the office."""

    def __init__(self):
        self.lab = ethercord.Lab()
        self.topology = Topology(self.lab)
        self.near, self.router, self.far = (getattr(self.topology, n)
                                            for n in ("near", "router", "far"))
        vpn.sysctl(self.near, ipv4__conf__all__promote_secondaries=1)
        self.laptop = Site(self.lab, self.near, "laptop")
        self.office = Site(self.lab, self.far, "office")
        self.here, self.there = self.laptop.client, self.office.client
        bridge(self.far)
        bridge(self.near)
        self.office.listen("lan", PEERS, mode=None)
        self.office.listen("ptp", [f"p{n}" for n in PEERS], mode=None, port=PLAIN, bridge=None,
                           bridge_create=None)

    def dial(self, name="peer0", remote=PHYSICAL["far"], wait=True, **settings):
        self.laptop.dial(name, remote, **settings)
        return self.laptop.wait(name, "up", 30) if wait else None

    def hang_up(self, *names):
        for name in names:
            self.here.on(name, "Remove")
            self.office.wait(f"{'ptp' if name.startswith('pp') else 'lan'}.{name}", None, 20)

    def their(self, name="peer0"):
        """The other end of it, which is up."""
        return self.office.wait(f"lan.{name}", "up", 20)

    def crosses(self, name="peer0", listener="lan"):
        crosses(self.lab, self.near, self.here.get(name)["Interface"], self.far,
                self.there.get(f"{listener}.{name}")["Interface"])

    def flow(self, name="peer0"):
        return self.lab.flow(self.near, self.here.get(name)["Interface"], self.far,
                             peer.ear(self.far, self.their(name)["Interface"]), 0.005).start()

    def gaps(self, name="peer0"):
        return Gaps(self.near, self.here.get(name)["Interface"], self.far,
                    self.their(name)["Interface"])


@pytest.fixture(scope="module")
def world():
    made = World()
    yield made
    made.lab.close()


@pytest.fixture(autouse=True)
def nothing_left(request):
    """A failed test is not to fail the next ones."""
    yield
    if "world" not in request.fixturenames:
        return
    world = request.getfixturevalue("world")
    for name in world.here.tunnels():
        world.here.on(name, "Remove")
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not world.there.tunnels(), "the office has no guests", 15)
    # Who left while its channel was away is waited for there.
    for name in world.there.tunnels():
        world.there.on(name, "Remove")
    wait_until(lambda: not world.there.tunnels(), "the office has no guests", 30)


# Everything that can be negotiated

MODES = {"point-to-point": {"port": PLAIN}, "join-remote": {}, "join-networks": {"bridge": "br0"}}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", ["gretap", "gretap-fou"])
@pytest.mark.parametrize("mode", MODES)
def test_modes(world, mode, kind, version):
    remote = (PHYSICAL if version == 4 else PHYSICAL6)["far"]
    name, listener = ("ppeer0", "ptp") if mode == "point-to-point" else ("peer0", "lan")
    got = world.dial(name, remote, mode=mode, encapsulation=kind, **MODES[mode])
    assert (got["Encapsulation"], got["Remote"], got["Role"]) == (kind, remote, "dial")
    theirs = world.office.wait(f"{listener}.{name}", "up", 20)
    assert (theirs["Encapsulation"], theirs["Id"], theirs["Mtu"]) == (kind, got["Id"], got["Mtu"])
    assert theirs["Remote"] == (PHYSICAL if version == 4 else PHYSICAL6)["near"]
    ours, other = world.near.link(got["Interface"]), world.far.link(theirs["Interface"])
    for link in (ours, other):
        assert link["linkinfo"]["info_kind"] == ("gretap" if version == 4 else "ip6gretap")
        # Outer packets of IPv6 are no fragments: full frames do not fit in.
        assert link["mtu"] == (1500 if mode != "point-to-point" and version == 4 else got["Mtu"])
    assert ours["address"] != other["address"]
    assert world.far.master(theirs["Interface"]) == (None if mode == "point-to-point" else "br0")
    assert world.near.master(got["Interface"]) == ("br0" if mode == "join-networks" else None)
    world.crosses(name, listener)
    world.hang_up(name)
    # The office forgets its end first, and deletes it when it has nothing else to do.
    wait_until(lambda: not world.far.link(theirs["Interface"]), "their end is gone")
    assert not world.near.link(got["Interface"])
    for ns in (world.near, world.far):
        assert ns.ip("fou", "show").stdout == ns.ip("-6", "fou", "show").stdout == ""


def test_without_a_preference(world):
    got = world.dial()
    assert got["Encapsulation"] == "vxlan" and got["Mtu"] == 1500 == world.their()["Mtu"]
    world.crosses()
    world.hang_up("peer0")
    got = world.dial("ppeer0", mode="point-to-point", port=PLAIN)
    assert got["Encapsulation"] == "gretap" and got["Id"] > 0
    world.crosses("ppeer0", "ptp")


# Firewalls

REFUSED = {"gre": ("gretap", ("vxlan", "gretap-fou")), "udp": ("vxlan", ("gretap",))}


@pytest.mark.parametrize("drop", REFUSED)
def test_firewall_that_drops(world, drop):
    """What would be the first choice. That costs about a second, and it is said what was."""
    first, then = REFUSED[drop]
    bridged = drop == "udp"
    name, listener = ("peer0", "lan") if bridged else ("ppeer0", "ptp")
    with firewall(world.router, f"meta l4proto {drop}"):
        world.laptop.dial(name, PHYSICAL["far"], flags="", **(
            {} if bridged else {"mode": "point-to-point", "port": PLAIN}))
        events = Events(world.lab, world.laptop.daemon, name)
        begun = time.monotonic()
        world.here.on(name, "Activate")
        got = world.here.wait_state(name, "up", 20)
        took = time.monotonic() - begun
        assert got["Encapsulation"] in then, got["Encapsulation"]
        print(f"{took:.2f} s; {got['StateReason']}; {events.take()}")
        assert first in got["StateReason"][1] or events.told("refused", first), events.take()
        assert took < 4, f"{took:.2f} s"
        world.crosses(name, listener)


def test_firewall_that_drops_udp_fragments(world):
    """What carries full frames without is taken."""
    with firewall(world.router, "meta l4proto udp ip frag-off & 0x3fff != 0",
                  "meta l4proto udp exthdr frag exists"):
        got = world.dial(encapsulation=["gretap-fou", "vxlan", "gretap"])
        assert got["Encapsulation"] == "gretap" and got["Mtu"] == 1500, got
        world.crosses()


def test_firewall_that_leaves_only_small_udp(world):
    """Nothing carries full frames: the largest that do cross are settled for."""
    with firewall(world.router, "meta l4proto gre", "ip frag-off & 0x3fff != 0",
                  "meta length > 1400"):
        got = world.dial()
        assert got["Encapsulation"] in ("gretap-fou", "vxlan") and got["Mtu"] <= 1500, got
        print(got["State"], got["StateReason"], got["Mtu"], got["LargestFrame"])
        assert 576 < got["LargestFrame"] <= 1414, got
        world.crosses()


def test_firewall_that_drops_all_but_tcp(world):
    """No kernel's encapsulation is left: never up, and it says so; up once there is a way."""
    with firewall(world.router, "meta l4proto != tcp"):
        world.dial(wait=False)
        reason = wait_until(lambda: "gretap" in (
            r := world.here.get("peer0")["StateReason"])[1] and "vxlan" in r[1] and r,
            "the state says that nothing crosses", 30)
        print(reason)
        assert world.here.state("peer0") != "up"
        assert all(t["State"] != "up" for t in map(world.there.get, world.there.tunnels()))
    world.here.wait_state("peer0", "up", 60)
    world.crosses()


# More than one

def test_two_tunnels_to_one_peer(world):
    for kind in ("gretap", "gretap-fou"):
        first = world.dial("peer0", encapsulation=kind)
        second = world.dial("peer1", encapsulation=kind)
        assert first["Id"] != second["Id"]
        world.crosses("peer0")
        world.crosses("peer1")
        world.hang_up("peer0")
        world.crosses("peer1")
        world.hang_up("peer1")


# The peer is lost

@pytest.mark.parametrize("kind", ["gretap", "gretap-fou"])
def test_lost_and_found(world, kind):
    """No carrier, no bridge port; and back by itself, on the same interface."""
    got = world.dial(mode="join-networks", bridge="br0", encapsulation=kind)
    index, name = got["Ifindex"], got["Interface"]
    wait_until(lambda: port_state(world.near, name) == "forwarding", "the port forwards", 35)
    with firewall(world.router, "meta l4proto != icmp"):
        begun = time.monotonic()
        world.here.wait_state("peer0", "degraded", 10)
        took = time.monotonic() - begun
        assert 1.5 < took < 5, f"lost after {took:.2f} s"
        wait_until(lambda: world.near.link(name)["operstate"] == "DORMANT", "it is dormant")
        wait_until(lambda: port_state(world.near, name) == "disabled", "the port is disabled")
        world.office.wait("lan.peer0", "degraded")
    begun = time.monotonic()
    world.here.wait_state("peer0", "up", 10)
    print(f"lost after {took:.2f} s, found after {time.monotonic() - begun:.2f} s")
    assert time.monotonic() - begun < 3
    wait_until(lambda: world.near.link(name)["operstate"] in ("UP", "UNKNOWN"), "it is up")
    wait_until(lambda: port_state(world.near, name) == "forwarding", "the port forwards", 35)
    assert world.here.get("peer0")["Ifindex"] == index
    world.crosses()


def port_state(ns, name):
    return ns.link(name)["linkinfo"]["info_slave_data"]["state"]


@pytest.mark.parametrize("kind", ["gretap", "gretap-fou"])
def test_killed_in_turn(world, kind):
    """No frame is lost, and the control channel finds its link again."""
    world.dial(encapsulation=kind)
    indexes = world.here.get("peer0")["Ifindex"], world.their()["Ifindex"]
    flow, marks = world.flow(), []
    for site in (world.laptop, world.office, world.laptop):
        marks.append((site.label, "killed", flow.sent))
        site.daemon.kill()
        flow.wait_sent(flow.sent + 200)
        marks.append(("starts", flow.sent))
        site.daemon.start()
        marks.append(("started", flow.sent))
        world.laptop.wait("peer0", "up", 20)
        assert (world.here.get("peer0")["Ifindex"], world.their()["Ifindex"]) == indexes
    # What comes after the last channel is there counts, too; the last few may be late, not lost.
    last = flow.sent + 150
    flow.wait_sent(last + 50)
    lost = [number for number in flow.stop() if number < last]
    assert not lost, f"frames {lost} of {flow.sent} were lost, {flow.failures} not sent: {marks}"
    # The channel is there again: what it says arrives.
    world.hang_up("peer0")


def test_stopped_for_a_minute(world):
    """The process, not the kernel: the same cord carries on."""
    world.dial(encapsulation="gretap")
    indexes = world.here.get("peer0")["Ifindex"], world.their()["Ifindex"]
    pid = world.office.daemon.process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        world.here.wait_state("peer0", "degraded", 10)
        ethercord.stays(lambda: world.near.link("ec-peer0"), 57, "the interface stays", 0.5)
    finally:
        os.kill(pid, signal.SIGCONT)
    world.here.wait_state("peer0", "up", 35)
    assert (world.here.get("peer0")["Ifindex"], world.their()["Ifindex"]) == indexes
    world.crosses()


@pytest.mark.skipif("IN_VM" not in os.environ, reason="the clock of a real machine is not set")
def test_clock_jumps(world):
    """A day back, two days on."""
    world.dial(encapsulation="gretap")
    changes = world.lab.signals(world.laptop.daemon)
    flow = world.flow()
    changes.take()
    for days in (-1, 2, -1):
        now = datetime.datetime.now() + datetime.timedelta(days=days)
        run("date", "-s", now.isoformat(sep=" "))
        sent = probes(world)
        wait_until(lambda: probes(world) >= sent + 3, "probes go on", 10)
    seen = [c for c in changes.changes(ethercord.tunnel_path("peer0")) if "State" in c]
    assert not seen and not flow.stop(), seen
    assert world.here.state("peer0") == "up"


def probes(world):
    return world.here.get("peer0")["Statistics"]["probes-sent"]


# Time

def test_time_to_the_first_frame(world):
    """At 100 ms of round trip: 3 of them and a little; more than that is the emulated processor's
    part (tests/bench measures on a real one), but no 10."""
    delay = ("delay", "50ms")
    for name in ("near", "far"):
        world.router.exec("tc", "qdisc", "add", "dev", name, "root", "netem", *delay)
    took = []
    try:
        world.laptop.dial("ppeer0", PHYSICAL["far"], flags="", mode="point-to-point",
                          encapsulation="gretap", port=PLAIN)
        for _ in range(5):
            took.append(first_frame(world))
    finally:
        for name in ("near", "far"):
            world.router.exec("tc", "qdisc", "del", "dev", name, "root")
    print(f"first frame after {[round(t * 1000) for t in took]} ms")
    assert statistics.median(took) < 1, took


def open_socket(ns):
    """At the only tunnel there, if it is there."""
    with ns.entered():
        # Not one of those that the daemon makes to see what the kernel can do.
        name = next((n for _, n in socket.if_nameindex()
                     if n.startswith("ec-") and not n.startswith("ec-try-")), None)
    return frame_socket(ns, name, 0x88B6) if name else None


def first_frame(world):
    """From Activate to when a frame is at the office's end."""
    sender = receiver = None
    begun = time.monotonic()
    world.here.on("ppeer0", "Activate")

    def arrived():
        nonlocal sender, receiver
        sender = sender or open_socket(world.near)
        receiver = receiver or open_socket(world.far)
        try:
            if sender and world.here.state("ppeer0") == "up":
                sender.send(b"\xff" * 6 + bytes.fromhex("02005e10000188b6") + bytes(50))
        except OSError:
            sender = sender.close()  # of an interface that was made anew
        try:
            return receiver and receiver.recv(2048, socket.MSG_DONTWAIT)
        except OSError:
            return False
    wait_until(arrived, "a frame crosses", 20, 0.002)
    # The frame itself took half a round trip that no negotiation saves.
    took = time.monotonic() - begun
    for s in (sender, receiver):
        s.close()
    world.here.on("ppeer0", "Deactivate")
    world.office.wait("ptp.ppeer0", None, 20)
    return took


# Another address

def test_roaming(world):
    """The laptop has another address from one moment to the next."""
    world.dial(encapsulation="gretap")
    index, theirs = world.here.get("peer0")["Ifindex"], world.their()["Ifindex"]
    gaps = world.gaps()
    try:
        world.near.ips(f"addr add 10.9.1.77/24 dev net0\naddr del {PHYSICAL['near']}/24 dev net0\n"
                       "route replace default via 10.9.1.1\n")
        wait_until(lambda: world.their()["Remote"] == "10.9.1.77", "the office has followed", 10)
        world.here.wait_state("peer0", "up")
        gap = gaps.longest()
    finally:
        world.near.ips(f"addr add {PHYSICAL['near']}/24 dev net0\naddr del 10.9.1.77/24 dev net0\n"
                       "route replace default via 10.9.1.1\n")
    print(f"nothing arrived for {gap:.2f} s")
    assert gap < 2, f"nothing arrived for {gap:.2f} s"
    assert (world.here.get("peer0")["Ifindex"], world.their()["Ifindex"]) == (index, theirs)
    wait_until(lambda: world.their()["Remote"] == PHYSICAL["near"], "and back", 10)
    world.crosses()


# NAT

class Nat:
    """Two laptops behind one address, which the office alone sees."""

    OFFICE = "10.9.2.2"

    def __init__(self):
        self.lab = ethercord.Lab()
        internet = Internet(self.lab)
        self.home = control.Nat(internet, 1)
        self.far = self.lab.namespace("office")
        internet.join(self.far, 2)
        self.office = Site(self.lab, self.far, "office")
        bridge(self.far)
        self.office.listen("lan", PEERS, mode=None)
        self.laptops = {}
        for number in range(2):
            ns = self.lab.namespace(f"laptop{number}")
            self.home.join(ns, 10 + number)
            self.laptops[f"peer{number}"] = Site(self.lab, ns, f"laptop{number}")

    def dial(self, name, **settings):
        laptop = self.laptops[name]
        laptop.dial(name, self.OFFICE, underlay="any", **settings)
        self.their(name)
        return laptop.wait(name, "up", 20)

    def their(self, name):
        return self.office.wait(f"lan.{name}", "up", 20)

    def ends(self, name):
        return (self.laptops[name].ns, self.laptops[name].get(name)["Interface"]), \
            (self.far, self.their(name)["Interface"])

    def crosses(self, name):
        ours, theirs = self.ends(name)
        crosses(self.lab, *ours, *theirs)


@pytest.fixture(scope="module")
def nat():
    made = Nat()
    yield made
    made.lab.close()


def remapped(nat, ports):
    """The NAT forgets all it knew of UDP. For how long nothing crossed, each way, s."""
    ends = [nat.ends(name) for name in nat.laptops]
    gaps = [Gaps(*a, *b) for ours, theirs in ends for a, b in ((ours, theirs), (theirs, ours))]
    indexes = [nat.their(n)["Ifindex"] for n in nat.laptops]
    nat.home.map(*ports)
    nat.home.forget()
    sent = gaps[0].flow.sent
    gaps[0].flow.wait_sent(sent + 500)
    longest = [g.longest() for g in gaps]
    assert [nat.their(n)["Ifindex"] for n in nat.laptops] == indexes
    for name in nat.laptops:
        nat.crosses(name)
    return longest


@pytest.mark.parametrize("kind", ["gretap-fou", "vxlan"])
def test_behind_a_nat(nat, kind):
    """Two at once; each is told from the other; both are followed when the NAT maps anew."""
    for name in nat.laptops:
        got = nat.dial(name, encapsulation=kind)
        assert got["Encapsulation"] == kind
        nat.crosses(name)
    try:
        assert {nat.their(n)["Remote"] for n in nat.laptops} == {nat.home.address}
        for ports in ((40000, 49999), (50000, 59999)):
            gaps = remapped(nat, ports)
            print(f"nothing for {[round(g, 2) for g in gaps]} s")
            # Three times what it may take: the next probe tells, and there is one a second.
            assert max(gaps) < 3, gaps
    finally:
        nat_done(nat)


def test_automatic_behind_a_nat(nat):
    """What most NATs pass for one only is not what is taken."""
    for name in nat.laptops:
        assert nat.dial(name)["Encapsulation"] in ("gretap-fou", "vxlan")
    for name in nat.laptops:
        nat.crosses(name)
    nat_done(nat)


def nat_done(nat):
    for name, laptop in nat.laptops.items():
        laptop.client.on(name, "Remove")
        nat.office.wait(f"lan.{name}", None, 20)
        assert not laptop.ns.link(f"ec-{name}")
    assert nat.far.ip("fou", "show").stdout == ""


# Without a key, where the VPN has shown who is who

class Guests:
    """A VPN between laptop and office."""

    def __init__(self, kind):
        self.lab = ethercord.Lab()
        try:
            self.topology = Topology(self.lab)
            self.vpn = kind(self.topology).up().wait_up()
            vpn.sysctl(self.topology.near, ipv4__conf__all__promote_secondaries=1)
            self.laptop = Site(self.lab, self.topology.near, "laptop")
            self.office = Site(self.lab, self.topology.far, "office")
            bridge(self.topology.far)
        except BaseException:
            self.lab.close()
            raise

    def dial(self, remote=None, **settings):
        """underlay=vpn, the default, is what both ends want."""
        self.laptop.dial("guest", remote or self.vpn.far, **{"underlay": "vpn", "key": None,
                                                             **settings})

    def ends(self):
        return self.topology.near, self.laptop.get("guest")["Interface"], self.topology.far, \
            self.office.get("lan.guest")["Interface"]

    def indexes(self):
        return self.laptop.get("guest")["Ifindex"], self.office.get("lan.guest")["Ifindex"]


@pytest.mark.parametrize("kind", [WireGuard, StrongSwan], ids=lambda v: v.name)
def test_keyless(kind):
    made = Guests(kind)
    try:
        net = made.vpn.near.rsplit(".", 1)[0] + ".0/24"
        made.office.listen("lan", {"guest": {}}, mode=None, underlay="vpn", allow=[net])
        made.dial()
        assert made.laptop.wait("guest", "up", 30)["Protected"]
        assert made.office.wait("lan.guest", "up", 20)["Protected"]
        crosses(made.lab, *made.ends())
        if kind is WireGuard:
            roams(made)
    finally:
        made.lab.close()


def roams(made):
    """The VPN follows by itself; the cord on it does not even notice."""
    indexes, near = made.indexes(), made.topology.near
    gaps = Gaps(*made.ends())
    near.ips(f"addr add 10.9.1.77/24 dev net0\naddr del {PHYSICAL['near']}/24 dev net0\n"
             "route replace default via 10.9.1.1\n")
    wait_until(lambda: "10.9.1.77" in made.topology.far.exec("wg", "show", "wg0",
                                                             "endpoints").stdout,
               "WireGuard has followed", 20)
    gap = gaps.longest()
    print(f"nothing arrived for {gap:.2f} s")
    assert gap < 2 and made.indexes() == indexes
    made.laptop.wait("guest", "up")


def test_keyless_from_elsewhere():
    """Not of the allowed ones, or not through the VPN: nobody comes in, and it is said why."""
    made = Guests(WireGuard)
    try:
        made.office.listen("lan", {"guest": {}}, mode=None, underlay="vpn", allow=["10.99.0.0/16"])
        for remote, underlay in ((made.vpn.far, "vpn"), (PHYSICAL["far"], "any")):
            made.dial(remote, underlay=underlay)
            wait_until(lambda: made.laptop.get("guest")["StateReason"][1], "it says why", 20)
            ethercord.stays(lambda: made.laptop.get("guest")["State"] != "up", 3,
                            "nobody comes in", 0.2)
            print(made.laptop.get("guest")["StateReason"])
            assert made.office.client.tunnels() == []
            made.laptop.client.on("guest", "Remove")
    finally:
        made.lab.close()
