# SPDX-License-Identifier: GPL-2.0-or-later
"""The user data plane over an underlay that goes, comes, and is another one: frames cross again,
and meanwhile none leaves in clear, in any format."""

import contextlib
import os
import re
import socket
import time

import pytest

import layers
from ethercord import ETHERTYPE, FAR, NEAR, Sites, frame_socket, stays, wait_until, wire
from leaks import CLOSED, Control
from traffic import MARK, PLAIN, Judge, Stream, Traffic, ip_packet, parse_frame, udp
from vpn import PHYSICAL, OpenVpn, PlainTun, PlainTun6, Topology, sysctl
from workers import KINDS, PORTS, IpFlow, Stock, Tap, sockets, spec, worker_pid, worker_pids

RETURN = 2      # s until frames cross again once the underlay does
NAMES = {"gretap-fou": "f", "vxlan": "v", "raw-udp": "r", "tun-udp": "t"}


class Bound:
    """Two daemons; each tunnel is bound to its site's wire."""

    def __init__(self, lab, kind):
        self.lab, self.kind, self.sites = lab, kind, Sites(lab)
        self.near, self.far = self.sites.near, self.sites.far
        self.other = lab.daemon(self.far, "far")
        for client, remote, address in ((self.other.bus.client, NEAR, "192.168.9.2/24"),
                                        (self.sites.client, FAR, "192.168.9.1/24")):
            client.add("t1", remote=remote, underlay="device:wire", **spec(kind, address=address))
            client.wait_state("t1", "up")
        ends = ((self.near, "192.168.9.1", self.far, "192.168.9.2"),
                (self.far, "192.168.9.2", self.near, "192.168.9.1"))
        self.flows = [IpFlow(*e, 0.002).start() for e in ends]
        for flow in self.flows:
            lab.stack.callback(flow.close)

    def fixture(self):
        return [(ns.ifindex("ec-t1"), worker_pid(ns)) for ns in (self.near, self.far)]

    def returns(self):
        """Seconds until frames cross both ways."""
        begun, marks = time.monotonic(), [flow.sent for flow in self.flows]
        wait_until(lambda: all(any(m <= n < 1 << 31 for n in f.drain().copy())
                               for f, m in zip(self.flows, marks)), "frames cross", 15)
        return time.monotonic() - begun


@pytest.mark.parametrize("kind", KINDS)
def test_device_made_anew(lab, kind):
    """Deleted and made again under load, by the same name: the socket is bound to the new one."""
    bound = Bound(lab, kind)
    before = bound.fixture()
    for turn in range(3):
        old = bound.near.ifindex("wire")
        bound.near.ip("link", "del", "wire")
        wait_until(lambda: bound.sites.client.state("t1") != "up", "it is noticed")
        if turn == 1:       # made by a daemon that did not see the old one go
            bound.sites.daemon.kill()
        wire(bound.near, bound.far)
        assert bound.near.ifindex("wire") != old
        if turn == 1:
            bound.sites.daemon.start()
        took = bound.returns()
        print(f"{kind}: frames cross {took:.2f} s after the device is there")
        assert took < RETURN + (turn == 1) * 3
        assert {d for _, port, d in sockets(bound.near) if port == PORTS[kind]} == {"wire"}
        assert bound.sites.client.wait_state("t1", "up")
        assert bound.fixture() == before


@pytest.mark.parametrize("kind", KINDS)
def test_device_down_and_up(lab, kind):
    bound = Bound(lab, kind)
    before = bound.fixture()
    for _ in range(3):
        bound.near.ip("link", "set", "wire", "down")
        wait_until(lambda: bound.sites.client.state("t1") != "up", "it is noticed")
        bound.near.ip("link", "set", "wire", "up")
        assert bound.returns() < RETURN
        assert bound.fixture() == before


@pytest.mark.parametrize("kind", KINDS)
def test_address_changes(lab, kind):
    """Ours, on the same device: the socket is bound to the new one. The peer knows both."""
    bound = Bound(lab, kind)
    before = bound.fixture()
    bound.near.ip("addr", "add", "10.77.0.9/24", "dev", "wire")
    bound.other.bus.client.update("t1", remote="10.77.0.9")
    bound.near.ip("addr", "del", "10.77.0.1/24", "dev", "wire")
    bound.near.ip("addr", "replace", "10.77.0.9/24", "dev", "wire")
    assert bound.returns() < RETURN + 1
    assert "10.77.0.9" in {a for a, port, _ in sockets(bound.near) if port == PORTS[kind]}
    assert bound.fixture() == before


# Nothing in clear

class Packets(Stream):
    """The same over IP, by that device alone: while it is down, the host has another route."""

    PORT = 7008

    def __init__(self, name, namespace, source, destination, device):
        with namespace.entered():
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        sender.bind((source, 0))
        super().__init__(name, sender, mark=MARK)
        self.destination = destination

    def transmit(self, number):
        self.sender.sendto(self.packet(number), (self.destination, self.PORT))


class Guarded:
    """Every format in the user data plane over one VPN, and one tunnel that nobody guards."""

    def __init__(self, lab, vpn_class):
        self.vpn = vpn_class(Topology(lab))
        self.sites = self.vpn.topology.sites()
        self.judge = lab.keep(Judge(self.vpn))
        Control(self.vpn, ("vxlan",))
        self.vpn.up().wait_up()
        self.daemons = {site: lab.daemon(ns, site) for site, ns in self.sites.items()}
        self.traffic, self.flows = lab.keep(Traffic(0.01)), {}
        for n, kind in enumerate(KINDS):
            for site, daemon in self.daemons.items():
                end = 1 if site == "near" else 2
                daemon.bus.client.add(
                    NAMES[kind], underlay=self.vpn.underlay, address=f"192.168.{n}.{end}/24",
                    remote=self.vpn.far if site == "near" else self.vpn.near, **spec(kind))
            for daemon in self.daemons.values():
                daemon.bus.client.wait_state(NAMES[kind], "up", 20)
        for n, kind in enumerate(KINDS):
            for site, ns in self.sites.items():
                self.add(n, kind, site, ns)
        self.plain = self.traffic.add(Stream("plain", frame_socket(self.sites["near"], "plain-v"),
                                             mark=PLAIN))
        self.traffic.start()
        self.settle()
        self.before = self.fixture()

    def add(self, n, kind, site, ns):
        if kind != "tun-udp":
            stream = Stream((site, kind), frame_socket(ns, f"ec-{NAMES[kind]}", ETHERTYPE))
            self.traffic.listen(ns, f"ec-{NAMES[kind]}")
        else:
            own, other = (1, 2) if site == "near" else (2, 1)
            stream = Packets((site, kind), ns, f"192.168.{n}.{own}", f"192.168.{n}.{other}",
                             f"ec-{NAMES[kind]}")
            with ns.entered():
                ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            ear.bind((f"192.168.{n}.{own}", Packets.PORT))
            self.traffic.receive(ear, parse_frame)
        self.flows[site, kind] = self.traffic.add(stream)

    def fixture(self):
        """What stays: interfaces and workers."""
        return {(site, name): (ns.ifindex(f"ec-{name}"), worker_pid(ns, name))
                for site, ns in self.sites.items() for name in NAMES.values()}

    def settle(self, timeout=15):
        """Seconds until all flow."""
        begun, marks = time.monotonic(), {s: s.sent for s in self.flows.values()}
        try:
            wait_until(lambda: all(s.first(m) for s, m in marks.items()), "", timeout)
        except AssertionError:
            late = [s.name for s, m in marks.items() if not s.first(m)]
            raise AssertionError(f"no frames of {late}") from None
        return time.monotonic() - begun


VPNS = [PlainTun, PlainTun6, OpenVpn]


@pytest.mark.parametrize("vpn", VPNS, ids=lambda v: v.__name__)
def test_nothing_in_clear(lab, vpn):
    """Whatever happens to the VPN, and with nobody to react to it."""
    guarded = Guarded(lab, vpn)
    for event, leaks in guarded.vpn.events.items():
        guarded.judge.clear()
        happening = guarded.vpn.event(event)
        next(happening)
        if leaks:
            wait_until(lambda: guarded.judge.look()["control", "vxlan"] >= 10,
                       f"{event}: the unguarded tunnel leaks", 20, 0.02)
        marks = [s.sent for s in guarded.flows.values()]
        wait_until(lambda m=marks: all(s.sent >= n + 20 for s, n in zip(guarded.flows.values(), m)),
                   "frames are tried")
        next(happening, None)
        wait_until(guarded.vpn.answers, "the VPN is back", 40)
        took = guarded.settle()
        print(f"{vpn.__name__}, {event}: {dict(guarded.judge.count)} in clear; "
              f"back in {took:.2f} s")
        guarded.judge.acquit(event)
        assert guarded.fixture() == guarded.before, event
    assert ("control", "vxlan") in guarded.judge.look() or guarded.judge.seen
    # The worker alone: its daemon is dead when the VPN goes.
    for daemon in guarded.daemons.values():
        daemon.kill()
    guarded.judge.clear()
    event = next(e for e, leaks in guarded.vpn.events.items() if leaks)
    happening = guarded.vpn.event(event)
    next(happening)
    wait_until(lambda: guarded.judge.look()["control", "vxlan"] >= 20, "it leaks", 20, 0.02)
    guarded.judge.acquit(f"{event}, without a daemon")
    next(happening, None)
    wait_until(guarded.vpn.answers, "the VPN is back", 40)
    for daemon in guarded.daemons.values():
        daemon.start()
    guarded.settle(30)
    guarded.judge.acquit(f"{event}, and a daemon again")


def test_worker_dies_without_a_vpn(lab):
    """The next worker waits for it like the one before."""
    guarded = Guarded(lab, PlainTun)
    near = guarded.sites["near"]
    guarded.judge.clear()
    event = next(e for e, leaks in guarded.vpn.events.items() if leaks)
    happening = guarded.vpn.event(event)
    next(happening)
    for pid in worker_pids(near):
        os.kill(pid, 9)
    wait_until(lambda: guarded.judge.look()["control", "vxlan"] >= 20, "it leaks", 20, 0.02)
    stays(lambda: not guarded.judge.guarded(), 0.5, "in clear")
    next(happening, None)
    wait_until(guarded.vpn.answers, "the VPN is back", 40)
    guarded.settle(20)
    guarded.judge.acquit("a worker that died without a VPN")


def test_socket_holds_alone(lab):
    """No daemon and no guard: the sockets' device is enough."""
    guarded = Guarded(lab, PlainTun)
    near = guarded.sites["near"]
    guarded.daemons["near"].kill()
    near.exec("nft", "delete", *layers.TABLE)
    assert layers.remove_second_layer(near)
    guarded.judge.clear()
    # Once the device is another one, the kernel tells the peer so, in clear: that is the guard's.
    for event in ("specific route", "link down", "stopped"):
        happening = guarded.vpn.event(event)
        next(happening)
        wait_until(lambda: guarded.judge.look()["control", "vxlan"] >= 60, "it leaks", 20, 0.02)
        guarded.judge.acquit(event)
        next(happening, None)
        wait_until(guarded.vpn.answers, "the VPN is back", 40)
        guarded.judge.clear()
    guarded.daemons["near"].start()
    guarded.settle(30)
    guarded.judge.acquit("no guard")


# Whoever comes through the VPN

class Roaming:
    """near has the worker, roam=yes; what is at the VPN's far end has no ethercord."""

    def __init__(self, lab, vpn_class, kind):
        self.lab, self.kind = lab, kind
        self.vpn = vpn_class(Topology(lab))
        self.near, self.far = self.vpn.topology.near, self.vpn.topology.far
        self.vpn.up().wait_up()
        self.daemon = lab.daemon(self.near, "near")
        self.client = self.daemon.bus.client
        self.client.add("t1", remote=self.vpn.far, roam=True, underlay=self.vpn.underlay,
                        **spec(kind))
        self.client.wait_state("t1", "up", 20)
        wait_until(lambda: worker_pid(self.near), "the worker runs")
        self.tap, self.port = self.new_tap(), PORTS[kind]

    def new_tap(self):
        return self.lab.keep(Tap(self.near, "ec-t1", self.kind != "tun-udp"))

    def comes(self, namespace, address, number, port=4321):
        """A peer of that address whose frame comes in; it is known then."""
        peer = self.lab.keep(Stock(namespace, address, port, (self.vpn.near, self.port)))
        made = self.tap.make(number)
        wait_until(lambda: peer.send(made) or made in self.tap.take(), f"{address} is heard")
        wait_until(lambda: self.client.get("t1")["Remote"] == address, f"Remote is {address}")
        return peer

    def past(self, source, destination, data):
        """A datagram to the tunnel's port that does not come through the VPN."""
        router = self.vpn.topology.router
        router.ip("route", "replace", f"{self.vpn.near}/32", "via", PHYSICAL["near"])
        with router.entered():
            s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        with s:
            s.sendto(ip_packet(source, destination, *udp(self.port, data, 4444)), (destination, 0))

    def kept_out(self):
        """Packets that the guard dropped on their way in."""
        held = self.near.exec("nft", "list", "set", *layers.TABLE[1:], "in4-udp").stdout
        return int(re.search(rf"{self.port} counter packets (\d+)", held).group(1))

    def goes(self, peer, number):
        made = self.tap.make(number)
        wait_until(lambda: self.tap.send(made) or made in peer.payloads(), "it is sent to")


@pytest.mark.parametrize("kind", ["raw-udp", "tun-udp"])
def test_roams_within_the_vpn(lab, kind):
    """Any address that comes through the VPN is admitted, and answered through it alone. Nobody
    else is, and what an unknown peer is called does not have other packets fenced."""
    r = Roaming(lab, OpenVpn, kind)
    got = r.client.get("t1")
    assert got["Protected"] and got["StateReason"][0] == "Unauthenticated"
    first = r.comes(r.far, r.vpn.far, 1)
    r.goes(first, 2)
    second = r.comes(r.far, r.vpn.other, 3, port=4444)
    r.goes(second, 4)
    assert r.client.get("t1")["Protected"]
    plain = lab.capture(r.far, "net0")
    sysctl(r.near, ipv4__conf__all__rp_filter=0, ipv4__conf__net0__rp_filter=0)
    # Past the VPN, as a peer that is known and as one that is not, nobody comes in.
    for address in (r.vpn.far, r.vpn.other, "10.7.9.77"):
        for number in range(20):
            r.past(address, r.vpn.near, r.tap.make(1000 + number))
            r.past(address, PHYSICAL["near"], r.tap.make(1000 + number))
    wait_until(lambda: r.kept_out() >= 120, "the guard meets them all")
    r.goes(second, 5)
    assert not {r.tap.make(1000 + n) for n in range(20)} & set(r.tap.take())
    assert r.client.get("t1")["Remote"] == r.vpn.other
    # What has our port leaves by nothing but the VPN, whoever sends it.
    with r.near.entered():
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((PHYSICAL["near"], r.port))
        for _ in range(10):
            with contextlib.suppress(PermissionError):
                s.sendto(b"ours" * 20, (PHYSICAL["far"], 4444))
    # Another program's packets to the peer's port, though, are its own affair.
    with r.near.entered():
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with s:
        s.sendto(b"others" * 20, (PHYSICAL["far"], 4444))
    wait_until(lambda: any(b"others" * 20 in f for f in plain.take()), "that leaves")
    assert not any(b"ours" * 20 in f for f in plain.take())
    # The VPN goes: nothing of the tunnel's is seen, and it is known again when it is back.
    plain.clear()
    happening = r.vpn.event("link down")
    next(happening)
    for number in range(50):
        with contextlib.suppress(OSError):
            r.tap.send(r.tap.make(2000 + number))
    stays(lambda: not any(r.tap.make(2000 + n) in f for f in plain.take() for n in (0, 20, 49)),
          0.5, "in clear")
    next(happening, None)
    wait_until(r.vpn.answers, "the VPN is back", 40)
    r.client.wait_state("t1", "up", 20)
    r.tap = r.new_tap()     # the kernel tells the old one that its device was down
    r.goes(second, 6)
    # The next daemon finds it so.
    r.daemon.kill()
    r.goes(second, 7)
    r.daemon.start()
    r.client.wait_state("t1", "up", 20)
    wait_until(lambda: r.client.get("t1")["Remote"] == r.vpn.other, "it is still known")
    r.goes(second, 8)
    r.goes(r.comes(r.far, r.vpn.far, 9, port=4555), 10)


@pytest.mark.parametrize("vpn", [PlainTun, PlainTun6], ids=lambda v: v.__name__)
def test_who_roamed_is_not_quoted(lab, vpn):
    """Removed while its VPN goes: the kernel's errors to any peer, which quote its packets, do not
    leave outside. Those about other ports do."""
    r = Roaming(lab, vpn, "raw-udp")
    peer = r.comes(r.far, r.vpn.other, 1)
    other = lab.keep(Stock(r.far, r.vpn.other, 4444, (r.vpn.near, CLOSED)))
    errors = lab.capture(r.vpn.topology.router, "near")
    r.client.on("t1", "Remove")
    wait_until(lambda: not r.near.link("ec-t1"), "the interface is gone")
    happening = r.vpn.event("specific route")
    next(happening)
    for number in range(20):
        peer.send(r.tap.make(2 + number))
    wait_until(lambda: other.send(PLAIN) or sum(PLAIN in e for e in errors.take()) >= 20,
               "the errors of others leak", interval=0.02)
    assert not [e for e in errors.take() if any(r.tap.make(2 + n)[:40] in e for n in range(20))]
    next(happening, None)
