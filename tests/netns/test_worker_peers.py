# SPDX-License-Identifier: GPL-2.0-or-later
"""Others at the other end: the kernel's VXLAN, tap2tap, ttun, and those who are not wanted."""

import os
import random
import select
import socket
import struct
import threading

import pytest

import worker
from ethercord import ETHERTYPE, PATIENCE, bridge, wait_until
from worker import ME, Pair, Sink, Source, frame, number_of, transfer

UDP_SEGMENT = 103
OFF = "tx", "off", "tso", "off", "gso", "off", "gro", "off"


class Kernel:
    """A VXLAN device of the kernel's at the far end of a Pair."""

    def __init__(self, pair, identifier, mtu=1450):
        self.namespace = far = pair.namespaces[1]
        near, mine = pair.addresses
        far.ip("link", "add", "cord", "mtu", mtu, "type", "vxlan", "id", identifier, "local", mine,
               "remote", near, "dstport", 4789, *(["udp6zerocsumrx"] if pair.ipv6 else []))
        for address in ("10.8.0.2/24", "fd00:8::2/64"):
            far.ip("addr", "add", address, "dev", "cord", "nodad")
        far.ip("link", "set", "cord", "up")


@pytest.mark.parametrize("off", [(), ("near",), ("far",), ("near", "far"), ("wire",)])
@pytest.mark.parametrize("ipv6", [False, True])
def test_kernel_vxlan(lab, ipv6, off):
    """TCP both ways, with offloads on and off at either end, and full frames. Unless they are off
    below as well, the kernel's end makes no checksums of what it carries, and nobody after it."""
    pair = Pair(lab, "vxlan", ipv6=ipv6, far=False, identifier=77, cord_mtu=1430)
    near, far = pair.namespaces
    Kernel(pair, 77, 1430)
    for namespace, label in zip(pair.namespaces, ("near", "far")):
        if label in off:
            namespace.exec("ethtool", "-K", "cord", *OFF)
    if "wire" in off:
        far.exec("ethtool", "-K", "wire", "tx", "off")
    for address in ("10.8.0.2", "fd00:8::2"):
        assert transfer(near, far, address, 4)
    for address in ("10.8.0.1", "fd00:8::1"):
        assert transfer(far, near, address, 4)
    for a, b in ((near, "10.8.0.2"), (far, "10.8.0.1")):
        a.exec("ping", "-c1", "-W5", "-s1402", "-Mdo", b)
    seen = pair.near.statistics
    assert not any(seen[name] for name in seen if "dropped" in name and name != "rx_dropped_device")


def test_kernel_super_frames(lab):
    """Those of the kernel's end that nobody has cut on the way go through a bridge here."""
    pair = Pair(lab, "vxlan", far=False, identifier=77)
    near, far = pair.namespaces
    Kernel(pair, 77)
    bridge(near)
    near.ip("addr", "flush", "dev", "cord")
    near.ip("link", "set", "cord", "master", "br0")
    host = lab.host(near, "br0", "10.8.0.3/24")
    host.exec("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0",
              "net.ipv6.conf.eth0.disable_ipv6=0")
    host.ip("addr", "add", "fd00:8::3/64", "dev", "eth0", "nodad")
    for address in ("10.8.0.3", "fd00:8::3"):
        assert transfer(far, host, address, 4)
    assert transfer(host, far, "10.8.0.2", 4)
    with host.entered():
        there = lab.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with far.entered():
        here = lab.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    there.bind(("10.8.0.3", 7070))
    here.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
    data = random.randbytes(4500)
    here.sendto(data, ("10.8.0.3", 7070))
    there.settimeout(PATIENCE)
    assert [there.recv(2000) for _ in range(5)] == [data[n:n + 1000] for n in range(0, 4500, 1000)]


def test_kernel_vxlan_frames(lab):
    """Tagged and odd frames both ways."""
    pair = Pair(lab, "vxlan", far=False, identifier=77)
    near, far = pair.namespaces
    Kernel(pair, 77)
    frames = [frame(1, 20), frame(2, 60), frame(3, 1464),
              frame(4, 200, tags=bytes.fromhex("8100 0005")),
              frame(5, 200, tags=bytes.fromhex("88a8 0005 8100 0006"))]
    for here, there in ((near, far), (far, near)):
        source, sink = lab.keep(Source(here)), lab.keep(Sink(there, ethertype=None))

        def mine(sink=sink):
            return [f for f in sink.take() if f[6:12] == ME]
        for i, data in enumerate(frames):
            source.send(data)
            assert wait_until(lambda mine=mine, i=i: mine()[i:], "the frame") == [data]


@pytest.mark.parametrize("kind,port", [("raw-udp", 1234), ("tun-udp", 8000)])
def test_plain_sockets(lab, kind, port):
    """What tap2tap and ttun do: one read, one send, no header."""
    pair = Pair(lab, kind, far=False)
    near, far = pair.namespaces
    ethernet = kind == "raw-udp"
    device = worker.open_device(far, "cord", ethernet, flags=0)
    lab.stack.callback(os.close, device)
    sock = lab.keep(worker.open_socket(far, "10.9.0.2", port))
    sock.connect(("10.9.0.1", port))
    os.set_blocking(device, False)
    sock.setblocking(False)
    far.ip("link", "set", "cord", "mtu", pair.cord_mtu, "up")
    far.ip("addr", "add", "10.8.0.2/24", "dev", "cord")
    lab.keep(Pump(device, sock))
    assert transfer(near, far, "10.8.0.2", 2)
    assert transfer(far, near, "10.8.0.1", 2)
    near.exec("ping", "-c1", "-W5", "-s", pair.cord_mtu - 28, "-Mdo", "10.8.0.2")


class Pump:
    """Between a device and a socket, in a thread."""

    def __init__(self, device, sock):
        self.stop_read, self.stop_write = os.pipe()

        def run():
            while True:
                ready, _, _ = select.select([device, sock, self.stop_read], [], [])
                if self.stop_read in ready:
                    return
                for fd in ready:
                    try:
                        if fd == device:
                            sock.send(os.read(device, 2000))
                        else:
                            os.write(device, sock.recv(2000))
                    except OSError:
                        pass
        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def close(self):
        os.write(self.stop_write, b"x")
        self.thread.join()
        os.close(self.stop_read)
        os.close(self.stop_write)


# Who may send, and where it goes

@pytest.fixture
def alone(lab):
    """A near worker of raw-udp and sockets to talk to it."""
    def make(kind="raw-udp", flags=(), remote=None, port=None, ipv6=False, **more):
        pair = Pair(lab, kind, far=False, ipv6=ipv6)
        near, far = pair.namespaces
        if not ipv6:
            far.ip("addr", "add", "10.9.0.3/24", "dev", "wire")
        pair.near.control.configure(
            remote, port or 0, flags=flags, path_mtu=1500,
            sock=pair.near.new_socket(pair.addresses[0], device="wire"), **more)
        pair.source, pair.sink = lab.keep(Source(near)), lab.keep(Sink(near))
        return pair
    return make


def peer(lab, pair, address="10.9.0.2", port=1234):
    s = lab.keep(worker.open_socket(pair.namespaces[1], address, port))
    s.connect((pair.addresses[0], worker.PORTS[pair.kind]))
    s.settimeout(5)
    return s


def receive(sock):
    """The next numbered frame at a peer."""
    while True:
        data = sock.recv(2000)
        if data[12:14] == struct.pack("!H", ETHERTYPE):
            return number_of(data)


def test_only_the_remote(lab, alone):
    pair = alone(remote="10.9.0.2", port=1234)
    good = peer(lab, pair)
    others = [peer(lab, pair, port=1235), peer(lab, pair, "10.9.0.3")]
    for bad in others:
        with pytest.raises(ConnectionRefusedError):
            while True:
                bad.send(frame(1))
                bad.recv(1)
    good.send(frame(2))
    assert [number_of(f) for f in pair.sink.wait(1)] == [2]
    pair.source.send(frame(3))
    assert receive(good) == 3


def test_any_port_of_an_address(lab, alone):
    """Nothing is sent until the port is known; then it is that one."""
    pair = alone(remote="10.9.0.2")
    first, stranger = peer(lab, pair, port=4444), peer(lab, pair, "10.9.0.3")
    # This frame, not one of those that the host sends by itself: it would reach the peer later.
    pair.namespaces[0].exec("sysctl", "-qw", "net.ipv6.conf.cord.disable_ipv6=1")
    dropped = pair.near.statistics["tx_dropped_peer"]
    pair.source.send(frame(1))
    wait_until(lambda: pair.near.statistics["tx_dropped_peer"] > dropped, "dropped")
    stranger.send(frame(2))
    first.send(frame(3))
    assert [number_of(f) for f in pair.sink.wait(1)] == [3]
    assert pair.near.control.event(worker.PEER)[2] == ("10.9.0.2", 4444)
    pair.source.send(frame(4))
    assert receive(first) == 4
    assert pair.near.statistics["rx_packets"] == 1


@pytest.mark.parametrize("remote", [None, "10.9.0.3"])
def test_roam(lab, alone, remote):
    """Whoever sent last, also if nobody was before; but not for what nobody can use."""
    pair = alone(flags=["roam"], remote=remote, port=1234)
    a, b = peer(lab, pair, port=1111), peer(lab, pair, port=2222)
    control = pair.near.control
    for i, (sock, port) in enumerate([(a, 1111), (b, 2222), (a, 1111)]):
        sock.send(frame(10 + i))
        assert number_of(pair.sink.wait(i + 1)[i]) == 10 + i
        assert control.event(worker.PEER)[2] == ("10.9.0.2", port)
        pair.source.send(frame(20 + i))
        assert receive(sock) == 20 + i
    b.send(b"junk")
    wait_until(lambda: pair.near.statistics["rx_dropped_malformed"] == 1, "dropped")
    pair.source.send(frame(30))
    assert receive(a) == 30
    # The same said again by the daemon changes nothing; a daemon that comes is told.
    control.configure(remote, 1234 if remote else 0, flags=["roam"], path_mtu=1500)
    pair.source.send(frame(31))
    assert receive(a) == 31
    assert pair.near.connect()["remote"] == ("10.9.0.2", 1111)
    # Another one that it names is the remote.
    pair.near.control.configure("10.9.0.2", 2222, flags=["roam"], path_mtu=1500)
    pair.source.send(frame(32))
    assert receive(b) == 32


@pytest.mark.parametrize("size", [0, 1])
def test_registration(lab, alone, size):
    """tap2tap's way to say where one is."""
    pair = alone(flags=["roam"])
    s = peer(lab, pair, port=1111)
    s.send(bytes(size))
    assert pair.near.control.event(worker.PEER)[2] == ("10.9.0.2", 1111)
    pair.source.send(frame(1))
    assert receive(s) == 1
    seen = pair.near.statistics
    assert seen["rx_packets"] == 0 and seen["rx_dropped_malformed"] == 0


def test_roaming_vxlan(lab, alone):
    """The port of a VXLAN sender is no place to answer to, if another one is known."""
    pair = alone("vxlan", flags=["roam"], remote="10.9.0.3", port=4789, identifier=1)
    s = lab.keep(worker.open_socket(pair.namespaces[1], "10.9.0.2", 4789))
    other = peer(lab, pair, port=33333)
    other.send(bytes.fromhex("08000000 00000100") + frame(1))
    pair.sink.wait(1)
    assert pair.near.control.event(worker.PEER)[2] == ("10.9.0.2", 4789)
    pair.source.send(frame(2))
    s.settimeout(5)
    while frame(2) not in s.recv(2000):
        pass


# Counters

def test_counters(lab, alone):
    """What no other test looks at, one by one."""
    pair = alone("vxlan", remote="10.9.0.2", port=4789, identifier=9)
    near, s = pair.near, peer(lab, pair, port=5000)
    good = bytes.fromhex("08000000 00000900")

    def gains(send, **expected):
        before = near.statistics
        send()
        wait_until(lambda: all(near.statistics[k] - before[k] == v for k, v in expected.items()),
                   f"{expected}, not {[near.statistics[k] - before[k] for k in expected]}")
    near.namespace.exec("sysctl", "-qw", "net.ipv6.conf.cord.disable_ipv6=1")
    gains(lambda: s.send(good + frame(1, 100)), rx_packets=1, rx_bytes=100, rx_datagrams=1,
          rx_calls=1, device_writes=1, rx_coalesced=0)
    gains(lambda: pair.source.send(frame(1, 100)), tx_packets=1, tx_bytes=100, tx_datagrams=1,
          tx_calls=1, device_reads=1, tx_segmented=0)
    gains(lambda: s.send(bytes.fromhex("08000000 00000800") + frame()), rx_dropped_id=1,
          rx_packets=0)
    gains(lambda: s.send(bytes.fromhex("18000000 00000900") + frame()), rx_dropped_malformed=1,
          rx_packets=0)
    gains(lambda: s.send(good), rx_datagrams=1, rx_packets=0, rx_dropped_malformed=0)
    stranger = peer(lab, pair, "10.9.0.3", 5000)
    gains(lambda: (stranger.send(good + frame()), s.send(good + frame())), rx_packets=1,
          rx_datagrams=1, rx_dropped_stranger=0)
    header, data = worker.tcp_super_frame(b"", 10000, 1000)
    gains(lambda: pair.source.send_super(header, data), tx_segmented=10, tx_packets=10,
          tx_bytes=10 * 54 + 10000, device_reads=1, tx_datagrams=10, tx_calls=1)
    near.namespace.ip("link", "set", "cord", "down")
    gains(lambda: s.send(good + frame()), rx_dropped_device=1, rx_packets=0, device_writes=0)
    near.namespace.ip("link", "set", "cord", "up")
    near.namespace.exec("nft", "-f", "-", input="""
table inet t {
  chain c {
    type filter hook output priority 0
    udp dport 4789 drop
  }
}
""")
    gains(lambda: pair.source.send(frame(1)), tx_dropped_socket=1, tx_packets=0)
    near.namespace.exec("nft", "flush", "ruleset")
    near.control.configure(None, flags=["roam"], path_mtu=1500,
                           sock=near.new_socket("10.9.0.1", device="wire"))
    gains(lambda: pair.source.send_super(header, data), tx_dropped_peer=10)


# Those who mean harm

def rubbish(rng, good):
    """Datagrams near to what is right, and far from it."""
    kind = rng.randrange(6)
    if kind == 0:
        return rng.randbytes(rng.randrange(200))
    data = bytearray(good)
    if kind == 1:
        return bytes(data[:rng.randrange(len(data))])
    for _ in range(rng.randrange(1, 6)):
        data[rng.randrange(min(len(data), 8 if kind == 2 else 80))] = rng.randrange(256)
    return bytes(data)


def samples(kind):
    """A TCP segment, a frame, and a piece, in the format."""
    ip = worker.tcp_super_frame(b"", 300, 300)[1]
    inner = ip[14:] if kind == "tun-udp" else ip
    whole, piece = {
        "gretap-fou": ("20006558 00000009", "200088b6 00000009"),
        "vxlan": ("08000000 00000900", "08000000 00000901"),
        "raw-udp": ("", "000000000000"), "tun-udp": ("", "f0")}[kind]
    split = struct.pack("!BBBBIH", 0x10, 0, 2, 0, 7, 2 * len(inner))
    return [bytes.fromhex(whole) + inner, bytes.fromhex(piece) + split + inner]


@pytest.mark.parametrize("kind", list(worker.FORMATS))
def test_flood_of_rubbish(lab, kind):
    """From the remote itself: no crash, no growth, and it goes on afterwards."""
    rng = random.Random(20)
    pair = Pair(lab, kind, identifier=9 if kind in ("vxlan", "gretap-fou") else 0,
                flags=["join", "split"])
    near, far = pair.namespaces
    pair.far.control.configure("10.9.0.1", worker.PORTS[kind], flags=[],
                               identifier=pair.identifier, path_mtu=1500)
    s = lab.keep(worker.open_socket(far, "10.9.0.2", 0 if kind == "vxlan" else worker.PORTS[kind]))
    s.connect(("10.9.0.1", worker.PORTS[kind]))
    before, resident = pair.near.statistics["rx_datagrams"], 0
    good = samples(kind)
    datagrams = [rubbish(rng, good[i % 2]) for i in range(5000)]
    sent = 0
    for turn in range(20):
        for data in datagrams:
            s.send(data)
            sent += 1
            if sent % 500 == 0:     # no more at once than a processor's backlog takes
                wait_until(lambda n=sent: pair.near.statistics["rx_datagrams"] - before >= n,
                           "all were seen")
        if turn == 3:
            resident = pair.near.resident
    assert pair.near.resident <= resident + 64
    assert pair.near.statistics["rx_dropped_malformed"] > 10000
    s.close()
    pair.far.configure("10.9.0.1", identifier=pair.identifier, path_mtu=1500,
                       sock=pair.far.new_socket("10.9.0.2", device="wire"))
    assert transfer(far, near, "10.8.0.1", 1)
    assert transfer(near, far, "10.8.0.2", 1)


def test_nobody_listens(lab):
    """ICMP errors come back: the worker goes on, and costs nothing."""
    pair = Pair(lab, "raw-udp", far=False)
    source = lab.keep(Source(pair.namespaces[0]))
    for number in range(100):
        source.send(frame(number))
    wait_until(lambda: pair.near.statistics["tx_datagrams"] + pair.near.statistics[
        "tx_dropped_socket"] >= 100, "all are dealt with")
    second = pair.worker(1)
    sink = lab.keep(Sink(pair.namespaces[1]))
    source.send(frame(1000))
    assert number_of(sink.wait(1)[0]) == 1000
    assert second.statistics["rx_packets"] >= 1
