# SPDX-License-Identifier: GPL-2.0-or-later
"""Every mode and format of the user data plane over IPv4 and IPv6, between two daemons: what
crosses, whole, and what is answered."""

import hashlib
import os
import socket
import struct
import threading

import pytest

import ethercord
from control import frame_crosses
from ethercord import Sites, ipv4, no_offloads, ping, wait_until
from traffic import UDP, checksum, outer
from workers import ETHERNET, KINDS, OVERHEAD, offloads_on, spec, worker_pid

ENDS = {4: (ethercord.NEAR, ethercord.FAR), 6: ("fd00:77::1", "fd00:77::2")}
FAMILIES = [pytest.param(4, id="v4"), pytest.param(6, id="v6")]


def more_overhead(family):
    return 0 if family == 4 else 20


class Two:
    """A daemon at each end of a wire, of 1500 bytes."""

    def __init__(self, lab, family):
        self.lab, self.family = lab, family
        self.sites = Sites(lab, ipv6=True)
        self.near, self.far = self.sites.near, self.sites.far
        self.far.exec("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0")
        for ns in (self.near, self.far):
            ns.exec("sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0",
                    "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.wire.disable_ipv6=0",
                    "net.ipv6.icmp.ratelimit=0", "net.ipv4.icmp_ratelimit=0")
        for ns, address in zip((self.near, self.far), ENDS[6]):
            ns.ip("addr", "add", f"{address}/64", "dev", "wire", "nodad")
        self.here, self.there = self.sites.client, lab.daemon(self.far, "far").bus.client

    def add(self, kind, near, far):
        """Settings of each end."""
        ends = ENDS[self.family]
        self.there.add("t1", **spec(kind, remote=ends[0], **far))
        self.here.add("t1", **spec(kind, remote=ends[1], **near))
        self.here.wait_state("t1", "up")
        self.there.wait_state("t1", "up")

    def hosts(self):
        """A bridge at both ends, with a host behind each."""
        for ns in (self.near, self.far):
            ethercord.bridge(ns)
        return (self.lab.host(self.near, "br0", "192.168.9.1/24", "ha"),
                self.lab.host(self.far, "br0", "192.168.9.2/24", "hb"))


@pytest.fixture(params=FAMILIES)
def two(request, lab):
    return Two(lab, request.param)


def crosses(two, a, b, size):
    for ends in ((*a, *b), (*b, *a)):
        assert frame_crosses(two.lab, *ends, size), f"{size} bytes do not cross from {ends[1]}"


@pytest.mark.parametrize("kind", KINDS)
def test_point_to_point(two, kind):
    two.add(kind, {"address": "192.168.9.1/24"}, {"address": "192.168.9.2/24"})
    mtu = 1500 - OVERHEAD[kind] - more_overhead(two.family)
    assert two.here.get("t1")["Mtu"] == two.near.link("ec-t1")["mtu"] == mtu
    # A super-frame of TCP's is one message to the socket; behind IP's and UDP's headers.
    segments = 65507 // (mtu + OVERHEAD[kind] - 28)
    assert two.near.link("ec-t1")["gso_max_segs"] == segments
    wire = two.lab.capture(two.near, "wire", outgoing_only=True)
    for size in (0, 1, 17, 18, 19, 500, mtu - 28):
        assert ping(two.near, "192.168.9.2", size=size, df=True), size
        assert ping(two.far, "192.168.9.1", size=size, df=True), size
    packets = [outer(f) for f in wire.take() if outer(f)]
    sent = [p for p in packets if p[2] == UDP]
    assert len(sent) >= 7 and {p[1] for p in sent} == {ENDS[two.family][1]}
    assert max(len(f) for f in wire.frames) <= 1514 and not [p for p in sent if p[3]]


@pytest.mark.parametrize("kind", ETHERNET)
def test_join_remote(two, kind):
    ethercord.bridge(two.far)
    host = two.lab.host(two.far, "br0", "192.168.9.50/24")
    two.add(kind, {"mode": "join-remote", "address": "192.168.9.1/24"},
            {"mode": "join-remote", "bridge": "br0"})
    assert "master" not in two.near.link("ec-t1")
    assert two.far.master("ec-t1") == "br0"
    assert ping(two.near, "192.168.9.50", 2)
    crosses(two, (two.near, "ec-t1"), (host, "eth0"), 1514)


@pytest.mark.parametrize("kind", ETHERNET)
def test_join_networks(two, kind):
    a, b = two.hosts()
    more = {"mode": "join-networks", "bridge": "br0"}
    two.add(kind, more, more)
    link = two.near.link("ec-t1")
    # Others' super-frames are not cut.
    assert (link["mtu"], link["gso_max_segs"]) == (1500, 65535)
    wire = two.lab.capture(two.near, "wire", outgoing_only=True)
    assert ping(a, "192.168.9.2", 3)
    for size in (60, 61, 1400, 1466, 1513, 1514):
        crosses(two, (a, "eth0"), (b, "eth0"), size)
    assert max(len(f) for f in wire.take()) <= 1514
    assert ping(a, "192.168.9.2", 3, size=1472)
    assert ping(b, "192.168.9.1", 3, size=1472)
    # A fragment each way of what a host itself cut.
    assert ping(a, "192.168.9.2", 3, size=4000)


def told(seen, source):
    """The sizes that ICMP and ICMPv6 said would pass."""
    sizes = []
    for f in seen.take():
        p = ipv4(f)
        if p and p[2] == 1 and p[4][:2] == b"\x03\x04":
            assert p[0] == source[4]
            assert checksum(p[4]) == 0
            sizes.append((4, struct.unpack("!H", p[4][6:8])[0]))
        if f[12:14] == b"\x86\xdd" and f[20] == 58 and f[54] == 2:
            assert socket.inet_ntop(socket.AF_INET6, f[22:38]) == source[6]
            sizes.append((6, struct.unpack("!I", f[58:62])[0]))
    return sizes


@pytest.mark.parametrize("kind", ETHERNET)
def test_too_big_is_answered(two, kind):
    a, b = two.hosts()
    more = {"mode": "join-networks", "bridge": "br0"}
    two.add(kind, more, more)
    for ns, address in ((a, "fd00:9::1/64"), (b, "fd00:9::2/64")):
        ns.exec("sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0",
                "net.ipv6.conf.all.disable_ipv6=0")
        ns.ip("addr", "add", address, "dev", "eth0", "nodad")
    assert ping(a, "192.168.9.2") and ping(a, "fd00:9::2")
    answers, far = two.lab.capture(a, "eth0"), two.lab.capture(b, "eth0")
    # Each ends with the first answer of this kind.
    assert not ping(a, "192.168.9.2", size=1472, df=True, check=False)
    assert not ping(a, "fd00:9::2", size=1452, df=True, check=False)
    sizes = told(answers, {4: "192.168.9.2", 6: "fd00:9::2"})
    whole = {size for _, size in sizes}
    assert {v for v, _ in sizes} == {4, 6} and len(whole) == 1, sizes
    # What was told is true: that size crosses in one piece, one more does not.
    fits = whole.pop()
    assert fits == 1500 - OVERHEAD[kind] - more_overhead(two.family)
    assert not [f for f in far.take() if len(f) > fits + 14]
    wire = two.lab.capture(two.near, "wire", outgoing_only=True)
    assert ping(a, "192.168.9.2", size=fits - 28, df=True)
    assert max(len(f) for f in wire.take()) == 14 + 1500
    assert two.here.get("t1")["Statistics"]["too-big-answers"] >= 2
    # The hosts have learnt.
    assert ping(a, "192.168.9.2", size=1472, df=None) and ping(a, "fd00:9::2", size=1452, df=None)


def transfer(a, b, address, size=16 << 20):
    """TCP, both ways at once; what arrived is what was sent."""
    data = os.urandom(1 << 20) * (size >> 20)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    digests = {}

    def send(s):
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)

    def pump(name, s):
        thread = threading.Thread(target=send, args=(s,), daemon=True)
        thread.start()
        digest = hashlib.sha256()
        while more := s.recv(1 << 18):
            digest.update(more)
        thread.join()
        digests[name] = digest.hexdigest()

    with b.entered():
        listener = socket.create_server((address, 7000), family=family)
    with a.entered():
        client = socket.socket(family, socket.SOCK_STREAM)
    with listener, client:
        listener.settimeout(60)
        client.settimeout(60)
        client.connect((address, 7000))
        server, _ = listener.accept()
        with server:
            server.settimeout(60)
            threads = [threading.Thread(target=pump, args=(n, s), daemon=True)
                       for n, s in (("there", client), ("here", server))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert digests == dict.fromkeys(("there", "here"), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("kind", KINDS)
def test_super_frames(two, kind):
    """TCP with all offloads of device and wire, and with none: every byte arrives, in order."""
    two.add(kind, {"address": ["192.168.9.1/24", "fd00:9::1/64"]},
            {"address": ["192.168.9.2/24", "fd00:9::2/64"]})
    assert ping(two.near, "192.168.9.2") and ping(two.near, "fd00:9::2")
    pids = [worker_pid(ns) for ns in (two.near, two.far)]
    for ns in (two.near, two.far):
        ns.exec("ethtool", "-K", "wire", "tso", "on", "gso", "on", "gro", "on", "tx", "on")
    transfer(two.near, two.far, "192.168.9.2")
    transfer(two.near, two.far, "fd00:9::2")
    got = two.here.get("t1")["Statistics"]
    assert got["tx-segmented"] > 5000 and got["rx-coalesced"] > 5000, got
    assert got["tx-bytes"] > 32 << 20 and got["tx-packets"] > (32 << 20) / 1500
    for ns in (two.near, two.far):
        offloads_on(ns, "wire")     # merged by the receiver alone, as NICs do
    transfer(two.near, two.far, "192.168.9.2", 4 << 20)
    for ns in (two.near, two.far):
        no_offloads(ns, "wire")
        no_offloads(ns, "ec-t1")
    transfer(two.near, two.far, "192.168.9.2", 4 << 20)
    assert [worker_pid(ns) for ns in (two.near, two.far)] == pids


@pytest.mark.parametrize("kind", ETHERNET)
def test_super_frames_of_hosts(two, kind):
    """Full segments of hosts in both LANs, whose TCP learns what crosses."""
    a, b = two.hosts()
    more = {"mode": "join-networks", "bridge": "br0"}
    two.add(kind, more, more)
    for ns, port in ((a, "eth0"), (b, "eth0"), (two.near, "p-ha"), (two.far, "p-hb")):
        ns.exec("ethtool", "-K", port, "tso", "on", "gso", "on", "gro", "on", "tx", "on")
    transfer(a, b, "192.168.9.2", 4 << 20)


@pytest.mark.parametrize("kind", ETHERNET)
def test_carries_its_own_kind(two, kind):
    """UDP of the same ports inside: nothing mistakes it for the outer one."""
    two.add(kind, {"address": "192.168.9.1/24"}, {"address": "192.168.9.2/24"})
    for port in (4789, 65201, 1234, 8000):
        with two.near.entered():
            a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with two.far.entered():
            b = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with a, b:
            a.bind(("192.168.9.1", 0))
            b.bind(("192.168.9.2", port))
            b.settimeout(5)
            a.sendto(b"inside" * 200, ("192.168.9.2", port))
            assert b.recv(2000) == b"inside" * 200
    wait_until(lambda: two.here.get("t1")["Statistics"]["tx-packets"] >= 4, "counted")
