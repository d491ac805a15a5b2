# SPDX-License-Identifier: GPL-2.0-or-later
"""The user-space data plane: what it puts on the wire, and that it is the same at the other end."""

import socket
import struct

import pytest

import worker
from ethercord import PATIENCE, wait_until
from worker import ME, Pair, Sink, Source, Wire, frame, tcp_super_frame, transfer

HELLO = bytes.fromhex("ffffffffffff 020000000009 88b5") + b"HELLO" * 10
KINDS = list(worker.FORMATS)
VECTORS = [
    ("gretap-fou", 0, (), "00006558"),
    ("gretap-fou", 0x11223344, (), "20006558 11223344"),
    ("gretap-fou", 0x11223344, ("sequence",), "30006558 11223344 00000000"),
    ("vxlan", 0x2A, (), "08000000 00002a00"),
    ("raw-udp", 0, (), ""),
]


def rtt(namespace, address):
    return namespace.exec("ping", "-c", 1, "-W", 5, address)


@pytest.mark.parametrize("kind,identifier,flags,header", VECTORS)
def test_bytes_on_the_wire(lab, kind, identifier, flags, header):
    pair = Pair(lab, kind, far=False, identifier=identifier, flags=flags, wire=True)
    wire, source = lab.keep(Wire(pair.namespaces[1])), lab.keep(Source(pair.namespaces[0]))
    before = pair.near.statistics["tx_datagrams"]
    source.send(HELLO)
    seen = wait_until(lambda: [w for w in wire.take() if HELLO in w[2]], "a datagram")
    payload = seen[0][2]
    expected = bytes.fromhex(header) + HELLO
    if "sequence" in flags:
        # Others may have been before.
        number, = struct.unpack_from("!I", payload, 8)
        assert number >= before
        payload = payload[:8] + bytes(4) + payload[12:]
    assert seen[0][:2] == (pair.addresses[0], worker.PORTS[kind])
    assert payload == expected


def test_bare_packets_on_the_wire(lab):
    pair = Pair(lab, "tun-udp", far=False, wire=True)
    wire = lab.keep(Wire(pair.namespaces[1]))
    with pair.namespaces[0].entered():
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with s:
        s.sendto(b"x" * 100, ("10.8.0.2", 9))
    seen = wait_until(lambda: [w for w in wire.take() if b"x" * 100 in w[2]], "a datagram")[0][2]
    assert len(seen) == 128 and seen[0] == 0x45
    assert seen[12:20] == socket.inet_aton("10.8.0.1") + socket.inet_aton("10.8.0.2")


@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_worker_to_worker(lab, kind, ipv6):
    pair = Pair(lab, kind, ipv6=ipv6, identifier=7, wire=ipv6)
    near, far = pair.namespaces
    for address in ("10.8.0.2", "fd00:8::2"):
        assert transfer(near, far, address)
        rtt(near, address)
    assert transfer(far, near, "10.8.0.1")
    # That was by super-frames, both ways.
    for w in pair.workers:
        seen = w.statistics
        assert seen["tx_segmented"] and seen["rx_coalesced"]
        assert not seen["rx_dropped_malformed"] and not seen["tx_dropped_malformed"]
        assert seen["tx_calls"] < seen["tx_datagrams"] / 4
        assert seen["rx_calls"] < seen["rx_datagrams"] / 4


@pytest.mark.parametrize("off", ["near", "far", "both"])
def test_devices_without_offloads(lab, off):
    """What a device does not leave to the worker, or does not take, is done right all the same."""
    pair = Pair(lab, "vxlan", identifier=1)
    for namespace, label in zip(pair.namespaces, ("near", "far")):
        if off in (label, "both"):
            namespace.exec("ethtool", "-K", "cord", "tx", "off", "tso", "off", "gso", "off",
                           "gro", "off")
    near, far = pair.namespaces
    for address in ("10.8.0.2", "fd00:8::2"):
        assert transfer(near, far, address, 4)
    assert transfer(far, near, "10.8.0.1", 4)


FRAMES = {
    "short": frame(1, 20),
    "minimal": frame(1, 60),
    "full": frame(1, 1450),
    "tagged": frame(1, 200, tags=bytes.fromhex("8100 0005")),
    "tagged twice": frame(1, 200, tags=bytes.fromhex("88a8 0005 8100 0006")),
    "priority tag": frame(1, 100, tags=bytes.fromhex("8100 e000")),
    "multicast": frame(1, 100, destination=bytes.fromhex("01005e000001")),
    "LLDP": frame(1, 100, destination=bytes.fromhex("0180c200000e"), ethertype=0x88CC),
    "length field": frame(1, 100, ethertype=0x0040),
    "no IP in it": frame(1, 100, ethertype=0x0800),
    "no IPv6 in it": frame(1, 100, ethertype=0x86DD),
}


@pytest.mark.parametrize("kind", ["vxlan", "gretap-fou", "raw-udp"])
def test_frames_as_they_are(lab, kind):
    """Byte for byte, in order."""
    pair = Pair(lab, kind)
    source = lab.keep(Source(pair.namespaces[0]))
    sink = lab.keep(Sink(pair.namespaces[1], ethertype=None))
    pair.pin()
    for data in FRAMES.values():
        source.send(data)

    def mine():
        return [f for f in sink.take() if f[6:12] == ME]
    wait_until(lambda: len(mine()) >= len(FRAMES), "all frames")
    assert mine() == list(FRAMES.values())


@pytest.mark.parametrize("tags", ["", "8100 0005", "88a8 0005 8100 0006"])
def test_tagged_super_frames(lab, tags):
    """Cut by whoever does it: with the tags, right lengths and checksums."""
    tags = bytes.fromhex(tags)
    pair = Pair(lab, "raw-udp")
    near, far = pair.namespaces
    source = lab.keep(Source(near))
    sink = lab.keep(Sink(far, ethertype=None))
    header, data = tcp_super_frame(tags, 10000, 1400)
    source.send_super(header, data)

    def mine():
        return [f for f in sink.take() if f[6:12] == ME]

    def payload():
        return b"".join(f[14 + len(tags) + 40:] for f in mine())
    wait_until(lambda: len(payload()) == 10000, "all of it")
    assert payload() == data[-10000:]
    assert all(f[:len(tags) + 14] == data[:len(tags) + 14] for f in mine())


def test_order_and_loss(lab):
    """Numbered frames: all of them, in order."""
    pair = Pair(lab, "vxlan")
    pair.pin()
    source, sink = lab.keep(Source(pair.namespaces[0])), lab.keep(Sink(pair.namespaces[1]))
    for number in range(5000):
        source.send(frame(number, 60 + number % 7 * 200))
        if number % 500 == 499:     # no faster than the device's own queue takes
            sink.wait(number + 1, timeout=PATIENCE)
    assert [worker.number_of(f) for f in sink.wait(5000)] == list(range(5000))
