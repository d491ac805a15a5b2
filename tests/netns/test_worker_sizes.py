# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames that the path does not carry whole: pieces, answers, fragments, or nothing."""

import re
import socket
import struct

import pytest

import worker
from ethercord import wait_until
from worker import Pair, Sink, Source, Wire, frame, number_of, transfer

KINDS = list(worker.FORMATS)
SO_NO_CHECK = 11
DROP_FRAGMENTS = """
table inet t {
  chain c {
    type filter hook prerouting priority -500
    ip frag-off & 0x3fff != 0 counter drop
    exthdr frag exists counter drop
  }
}
"""


def count(namespace):
    return int(re.search(r"counter packets (\d+)", namespace.exec("nft", "list", "ruleset").stdout)
               .group(1))


@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_pieces(lab, kind, ipv6):
    """Full frames over a path of the same MTU that drops fragments."""
    pair = Pair(lab, kind, ipv6=ipv6, cord_mtu=1500, flags=["split", "join"], identifier=5)
    near, far = pair.namespaces
    far.exec("nft", "-f", "-", input=DROP_FRAGMENTS)
    for address in ("10.8.0.2", "fd00:8::2"):
        assert transfer(near, far, address, 2)
    near.exec("ping", "-c1", "-W5", "-s1472", "-Mdo", "10.8.0.2")
    near.exec("ping", "-c1", "-W5", "-s1452", "fd00:8::2")
    sent, came = pair.near.statistics, pair.far.statistics
    assert sent["tx_split"] > 1000 and came["rx_joined"] == sent["tx_split"]
    assert came["rx_coalesced"] > 1000
    assert sent["tx_datagrams"] > sent["tx_packets"]
    # Pieces, too, share messages.
    assert sent["tx_calls"] < sent["tx_datagrams"] / 4
    assert count(far) == 0


def test_pieces_of_jumbo_frames(lab):
    pair = Pair(lab, "vxlan", cord_mtu=9000, flags=["split", "join"])
    pair.pin()
    near, far = pair.namespaces
    assert transfer(near, far, "10.8.0.2", 2)
    source, sink = lab.keep(Source(near)), lab.keep(Sink(far))
    for number in range(100):
        source.send(frame(number, 9014 - number))
    assert sink.wait(100) == [frame(n, 9014 - n) for n in range(100)]


def test_pieces_on_the_wire(lab):
    """Both pieces of each frame, byte for byte, after split.h."""
    pair = Pair(lab, "raw-udp", far=False, wire=True, cord_mtu=1500, flags=["split"])
    wire, source = lab.keep(Wire(pair.namespaces[1])), lab.keep(Source(pair.namespaces[0]))
    data = frame(1, 1514)
    source.send(data)

    def pieces():
        return [w[2] for w in wire.take() if w[2][:6] == bytes(6) and w[2][14:16] == b"\x05\xea"]
    wait_until(lambda: len(pieces()) == 2, "two pieces")
    heads = [struct.unpack("!BBBBIH", p[6:16]) for p in pieces()]
    number = heads[0][4]
    assert heads == [(0x10, 0, 2, 0, number, 1514), (0x10, 1, 2, 0, number, 1514)]
    assert b"".join(p[16:] for p in pieces()) == data


def test_pieces_that_nobody_asked_for(lab):
    pair = Pair(lab, "vxlan", cord_mtu=1500, flags=["split"])
    source = lab.keep(Source(pair.namespaces[0]))
    source.send(frame(1, 1514))
    wait_until(lambda: pair.far.statistics["rx_dropped_malformed"] == 2, "both are dropped")


def test_lost_pieces(lab):
    """Of a frame that never becomes whole; its sender is silent after that."""
    pair = Pair(lab, "raw-udp", flags=["join"], far=False)
    with pair.namespaces[1].entered():
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with s:
        s.bind(("10.9.0.2", 1234))
        for number in range(3):
            head = struct.pack("!BBBBIH", 0x10, 0, 2, 0, number, 1000)
            s.sendto(bytes(6) + head + bytes(500), ("10.9.0.1", 1234))
        wait_until(lambda: pair.near.statistics["rx_dropped_pieces"] == 3, "all are given up")


# Answers

def mtu_of_route(namespace, address):
    shown = namespace.ip("route", "get", address).stdout
    found = re.search(r" mtu (\d+)", shown)
    return int(found.group(1)) if found else None


@pytest.mark.parametrize("kind,ipv6", [(k, s) for k in KINDS for s in (False, True)])
def test_too_big(lab, kind, ipv6):
    """Who may not fragment is told what fits, to the byte."""
    pair = Pair(lab, kind, ipv6=ipv6, cord_mtu=1500, flags=["too_big"])
    near, far = pair.namespaces
    fits = 1500 - pair.overhead - (14 if pair.near.ethernet else 0)
    near.exec("ping", "-c1", "-W5", f"-s{fits - 28}", "-Mdo", "10.8.0.2")
    assert pair.near.statistics["too_big_answers"] == 0
    near.exec("ping", "-c1", "-W1", f"-s{fits - 27}", "-Mdo", "10.8.0.2", check=False)
    wait_until(lambda: mtu_of_route(near, "10.8.0.2") == fits, "the answer")
    wait_until(lambda: pair.near.statistics["tx_dropped_size"] == 1, "it is counted")
    assert pair.near.statistics["too_big_answers"] == 1
    # IPv6, and TCP's super-frames: they learn from it, and go on.
    assert transfer(near, far, "fd00:8::2", 2)
    assert mtu_of_route(near, "fd00:8::2") == fits
    assert transfer(near, far, "10.8.0.2", 2)


def test_too_big_behind_a_tag(lab):
    pair = Pair(lab, "vxlan", cord_mtu=1500, flags=["too_big"], far=False)
    near = pair.namespaces[0]
    source, sink = lab.keep(Source(near)), lab.keep(Sink(near, ethertype=None))
    tags = bytes.fromhex("8100 0007")
    header, data = worker.tcp_super_frame(tags, 10000, 1440)
    source.send_super(header, data)
    answers = wait_until(lambda: [f for f in sink.take() if f[12:16] == tags and f[27] == 1],
                         "an answer with the tag")
    answer = answers[0]
    assert answer[:12] == data[6:12] + data[:6]
    assert answer[38:40] == b"\3\4" and \
        struct.unpack("!H", answer[44:46])[0] == 1500 - 36 - 14 - 4


def test_nothing_that_does_not_fit(lab):
    """Without any of these flags it is dropped, and counted."""
    pair = Pair(lab, "vxlan", cord_mtu=1500)
    source, sink = lab.keep(Source(pair.namespaces[0])), lab.keep(Sink(pair.namespaces[1]))
    wire = lab.keep(Wire(pair.namespaces[1]))
    source.send(frame(1, 1465))
    source.send(frame(2, 1464))
    assert [number_of(f) for f in sink.wait(1)] == [2]
    assert pair.near.statistics["tx_dropped_size"] == 1
    assert all(len(w[2]) <= 1472 for w in wire.take())


# Fragments

@pytest.mark.parametrize("ipv6", [False, True])
def test_fragments(lab, ipv6):
    """By the kernel: also what must not be fragmented itself, as bridges need it."""
    pair = Pair(lab, "vxlan", ipv6=ipv6, cord_mtu=1500, flags=["fragment"])
    near, far = pair.namespaces
    near.exec("ping", "-c1", "-W5", "-s1472", "-Mdo", "10.8.0.2")
    assert transfer(near, far, "10.8.0.2", 2)
    seen = pair.near.statistics
    assert not seen["tx_dropped_size"] and not seen["tx_dropped_socket"]


@pytest.mark.parametrize("flags", [["fragment"], ["too_big", "fragment"], ["split", "join"]])
@pytest.mark.parametrize("discover", ["DONT", "WANT", "DO", "PROBE"])
def test_path_smaller_than_said(lab, discover, flags):
    """The daemon thinks of 1500; the kernel knows that it is 1400. Where the socket may fragment,
    nothing is lost; else frames are, until the worker has learned."""
    pair = Pair(lab, "raw-udp", flags=flags, discover=getattr(worker, discover), cord_mtu=1500)
    pair.pin()
    near, far = pair.namespaces
    near.ip("route", "add", "10.9.0.2/32", "dev", "wire", "mtu", 1400)
    pair.near.configure("10.9.0.2", path_mtu=1500, flags=flags)
    source, sink = lab.keep(Source(near)), lab.keep(Sink(far))
    may = discover in ("DONT", "WANT")
    # 1430 bytes fit 1500 but not 1400.
    source.send(frame(0, 1430))
    source.send(frame(1, 100))
    expected = [0, 1] if may or discover == "PROBE" else [1]
    assert [number_of(f) for f in sink.wait(len(expected))] == expected
    if flags != ["fragment"] or may:
        assert transfer(near, far, "10.8.0.2", 2)
    if discover == "DO":
        assert pair.near.statistics["tx_dropped_size"] >= 1
    if discover == "DO" and "split" in flags:
        assert pair.near.statistics["tx_split"] > 0


@pytest.mark.parametrize("why", ["path", "checksums", "device"])
def test_refused_segmentation(lab, why):
    """What UDP_SEGMENT is refused for is sent one by one, loses nothing, and is remembered: of the
    size that was refused, or until the next CONFIGURE."""
    pair = Pair(lab, "vxlan")
    near, far = pair.namespaces
    sock = pair.near.new_socket("10.9.0.1", device="wire")
    if why == "path":
        near.ip("route", "add", "10.9.0.2/32", "dev", "wire", "mtu", 1400)
    elif why == "checksums":
        sock.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
    else:
        near.exec("ethtool", "-K", "wire", "tx", "off")
    pair.near.configure("10.9.0.2", path_mtu=1500, sock=sock)

    def missing():
        sent, came = pair.near.statistics, pair.far.statistics
        return sent["tx_packets"] - came["rx_packets"] - came["rx_dropped_device"]
    # Some may have been sent before the far worker was there, and one may be on its way.
    early = missing()
    assert transfer(near, far, "10.8.0.2", 2)
    seen = pair.near.statistics
    assert not seen["tx_dropped_socket"] and not seen["tx_dropped_size"]
    # Tried again for each size that came, not for each message.
    assert seen["tx_calls"] < seen["tx_packets"] / 2
    wait_until(lambda: missing() <= early, "nothing is lost")


def test_mtu_unknown(lab):
    """Nothing is split or answered; the kernel does what it does."""
    pair = Pair(lab, "vxlan", cord_mtu=1500, path_mtu=0, flags=["split", "join", "too_big"])
    near, far = pair.namespaces
    assert transfer(near, far, "10.8.0.2", 2)
    seen = pair.near.statistics
    assert not seen["tx_split"] and not seen["too_big_answers"] and not seen["tx_dropped_size"]


def test_larger_than_udp(lab):
    """No datagram is that large: dropped, or in pieces."""
    pair = Pair(lab, "vxlan", cord_mtu=65521, flags=["fragment"])
    near, far = pair.namespaces
    source, sink = lab.keep(Source(near)), lab.keep(Sink(far))
    source.send(frame(1, 65521))
    source.send(frame(2))
    assert [number_of(f) for f in sink.wait(1)] == [2]
    assert pair.near.statistics["tx_dropped_size"] == 1
    for w, other in zip(pair.workers, reversed(pair.addresses)):
        w.configure(other, path_mtu=1500, flags=["split", "join"])
    source.send(frame(3, 65521))
    assert sink.wait(2)[1] == frame(3, 65521)
