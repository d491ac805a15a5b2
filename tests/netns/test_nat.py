# SPDX-License-Identifier: GPL-2.0-or-later
"""VXLAN through a NAT that maps ports as it likes, and forgets."""

import re
import socket
import struct

import pytest

import ethercord
from ethercord import no_offloads, ping, wait_until, wire
from probes import KEYS, End, encode, frame, now

MASQUERADE = """
flush ruleset
table ip nat {{
  chain post {{
    type nat hook postrouting priority 100
    oifname "outside" ip saddr 10.1.0.0/16 ip protocol udp masquerade to :{low}-{high} random
  }}
}}"""
PUBLIC, SERVER, PORT = "10.77.0.1", "10.77.0.2", 4789
CT_DELETE = 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE


class Nat:
    """near0 and near1, with private addresses, behind `nat`; `far` on the other side."""

    def __init__(self, lab):
        self.lab = lab
        self.nat, self.far = lab.namespace("nat"), lab.namespace("far")
        self.near = [lab.namespace(f"near{i}") for i in range(2)]
        wire(self.nat, self.far, "outside", "wire", f"{PUBLIC}/24", f"{SERVER}/24")
        for i, near in enumerate(self.near):
            wire(self.nat, near, f"inside{i}", "wire", f"10.1.{i}.1/24", f"10.1.{i}.2/24")
            near.ip("route", "add", "default", "via", f"10.1.{i}.1")
        self.nat.exec("sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.map(20000)

    def map(self, low):
        """New flows get one of a hundred ports from `low` on."""
        self.nat.exec("nft", "-f", "-", input=MASQUERADE.format(low=low, high=low + 99))

    def forget(self):
        """As a NAT that was restarted."""
        with self.nat.entered():
            s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)  # NETLINK_NETFILTER
        with s:
            s.sendto(struct.pack("=IHHIIBBH", 20, CT_DELETE, 5, 1, 0, 0, 0, 0), (0, 0))
            error = struct.unpack("=i", s.recv(4096)[16:20])[0]
            assert error == 0, error


class Tunnel:
    """Number i: from near[i] to far."""

    def __init__(self, nat, i, interval=200, timeout=600):
        self.name, self.near, self.far = f"cord{i}", nat.near[i], nat.far
        self.ends = []
        for namespace, local, address, dialer in (
                (self.near, f"10.1.{i}.2", f"10.5.{i}.1/24", True),
                (self.far, SERVER, f"10.5.{i}.2/24", False)):
            # Made by a driver that has the interface "lo" for want of another.
            maker = End(nat.lab, namespace, "lo", True)
            maker.do("vxlan", self.name, i + 1, PORT, local)
            maker.stop()
            namespace.ip("link", "set", self.name, "mtu", 1450)
            no_offloads(namespace, self.name)
            namespace.ip("addr", "add", address, "dev", self.name)
            self.ends.append(End(nat.lab, namespace, self.name, dialer, interval, timeout))
        self.a, self.b = self.ends
        self.address = f"10.5.{i}.2"
        self.a.do("settle", self.near.ifindex(self.name), SERVER, PORT, PORT)
        self.b.do("map", self.far.ifindex("wire"), 4, PORT, "vxlan", i + 1)

    def follow(self, since):
        """Sends to where the peer was seen, as the daemon would."""
        moved = self.b.wait("moved", since)
        self.b.do("settle", self.far.ifindex(self.name), moved["address"], moved["port"], PORT)
        return moved["address"], moved["port"]

    def connect(self):
        begun = [end.proves(1450) for end in self.ends]
        where = self.follow(begun[0])
        assert [e.outcome(b) for e, b in zip(self.ends, begun)] == [1450, 1450]
        return where

    def carries(self):
        return ping(self.near, self.address, size=1400)

    def indexes(self):
        return self.near.ifindex(self.name), self.far.ifindex(self.name)


def remotes(tunnel):
    shown = tunnel.far.exec("bridge", "fdb", "show", "dev", tunnel.name).stdout
    return [(found.group(1), int(found.group(2)))
            for found in re.finditer(r"^00:00:00:00:00:00 dst (\S+) port (\d+) self", shown, re.M)]


def test_two_behind_one_address(lab):
    nat = Nat(lab)
    tunnels = [Tunnel(nat, i) for i in range(2)]
    first = [t.connect() for t in tunnels]
    assert all(a == PUBLIC and 20000 <= p < 20100 for a, p in first) and first[0] != first[1]
    assert all(t.carries() for t in tunnels)

    # Both mappings are forgotten; what follows is the same interfaces all the time.
    before = [t.indexes() for t in tunnels]
    begin = now()
    nat.map(30000)
    nat.forget()
    second = [t.follow(begin) for t in tunnels]
    assert all(30000 <= p < 30100 for _, p in second)
    for t, where in zip(tunnels, second):
        assert remotes(t) == [(PUBLIC, where[1])]
        assert t.carries()
        wait_until(lambda t=t: not any(e.statistics()["is_lost"] for e in t.ends), "all is well")
    assert [t.indexes() for t in tunnels] == before


def test_frames_leave_from_the_data_port(lab):
    """Whatever is in them: the NAT knows one flow."""
    nat = Nat(lab)
    t = Tunnel(nat, 0)
    _, mapped = t.connect()
    senders = [ethercord.frame_socket(ns, t.name) for ns in (t.near, t.far)]
    for namespace, flow in ((t.near, (PORT, PORT)), (t.far, (PORT, mapped))):
        capture = lab.capture(namespace, "wire", outgoing_only=True)

        def ports(capture=capture):
            packets = [p for f in capture.take() if (p := ethercord.ipv4(f)) and p[2] == 17]
            return [struct.unpack("!HH", p[4][:4]) for p in packets]
        for i in range(64):
            for sender in senders:
                sender.send(b"\xff" * 6 + bytes([2, 0, 0x5E, 0x20, 0, i]) + b"\x88\xb5" + bytes(50))
        wait_until(lambda p=ports: len(p()) >= 64, "the frames leave")
        assert set(ports()) == {flow}
    for sender in senders:
        sender.close()


def vxlan(vni, probe):
    return struct.pack("!II", 0x08000000, vni << 8) + frame(probe)


def gre(key, probe, flags=0x2000, sequence=b""):
    return struct.pack("!HHI", flags, 0x6558, key) + sequence + frame(probe)


GOOD = {"vxlan": lambda p: vxlan(7, p), "gre": lambda p: gre(7, p),
        "gre-sequence": lambda p: gre(7, p, 0x3000, b"SEQ!")}
BAD = {"vxlan": [lambda p: vxlan(8, p), lambda p: bytes(8) + frame(p), lambda p: b"",
                 lambda p: vxlan(7, p)[:-1]],
       "gre": [lambda p: gre(8, p), lambda p: gre(7, p, 0x0000), lambda p: gre(7, p, 0xB000, b"SEQ!"),
               lambda p: gre(7, p, 0x3000), lambda p: gre(7, p)[:-1], lambda p: gre(7, p)[:20]]}


@pytest.mark.parametrize("family, options", [(4, False), (4, True), (6, False)])
@pytest.mark.parametrize("name", GOOD)
def test_formats(lab, name, family, options):
    """What the filter takes, by hand; options: of IPv4."""
    near, far = lab.namespace("near", ipv6=True), lab.namespace("far", ipv6=True)
    wire(near, far)
    for ns, address in ((near, "fd00:77::1/64"), (far, "fd00:77::2/64")):
        ns.ip("addr", "add", address, "dev", "wire", "nodad")
    source, target = (PUBLIC, SERVER) if family == 4 else ("fd00:77::1", "fd00:77::2")
    end = End(lab, far, "lo", False)
    kind = name.split("-")[0]
    end.do("map", far.ifindex("wire"), family, PORT, kind, 7)
    senders = []
    with near.entered():
        for _ in range(2):
            s = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
            s.bind((source, 0))
            if options:
                s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x01" * 8)
            senders.append(s)
            lab.stack.callback(s.close)
    bad, good = senders
    for number, make in enumerate(BAD[kind]):
        bad.sendto(make(encode(KEYS[0], 100 + number)), (target, PORT))
    # An answer has no number of its sender's; the wrong port is nobody's.
    bad.sendto(GOOD[name](encode(KEYS[0], 100, kind=2)), (target, PORT))
    bad.sendto(GOOD[name](encode(KEYS[0], 100)), (target, PORT + 1))
    good.sendto(GOOD[name](encode(KEYS[0], 200)), (target, PORT))
    end.wait("moved")
    # Sent again, or older, by somebody else.
    bad.sendto(GOOD[name](encode(KEYS[0], 200)), (target, PORT))
    bad.sendto(GOOD[name](encode(KEYS[0], 199)), (target, PORT))
    last = (source, bad.getsockname()[1])
    bad.sendto(GOOD[name](encode(KEYS[0], 202)), (target, PORT))
    wait_until(lambda: len(end.all("moved")) == 2, "a newer one")
    assert [(m["address"], m["port"]) for m in end.all("moved")] == \
        [(source, good.getsockname()[1]), last]


def test_only_the_peer_moves(lab):
    """A datagram to our port, from anywhere, is believed for its probe's sake alone."""
    nat = Nat(lab)
    t = Tunnel(nat, 0)
    t.connect()
    capture = lab.capture(nat.far, "wire")

    def beat():
        return [p[4][8:] for f in capture.take() if (p := ethercord.ipv4(f)) and p[2] == 17 and
                p[1] == SERVER]
    recorded = wait_until(lambda: len(found := beat()) > 3 and found, "the beat goes on")
    t.a.do("pause")
    begin = now()
    with nat.nat.entered():
        thief = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    thief.bind((PUBLIC, 6666))
    for payload in [*recorded, vxlan(1, encode("00" * 32, 1 << 31)), vxlan(1, b"Ecp\x01")]:
        thief.sendto(payload, (SERVER, PORT))
    # The same with the key is believed: so the others did arrive before.
    fresh = encode(KEYS[0], int(now() * 100) + 100000)
    thief.sendto(vxlan(1, fresh), (SERVER, PORT))
    t.b.wait("moved", begin)
    assert [(m["address"], m["port"]) for m in t.b.all("moved", begin)] == [(PUBLIC, 6666)]
    thief.close()
