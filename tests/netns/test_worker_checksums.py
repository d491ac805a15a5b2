# SPDX-License-Identifier: GPL-2.0-or-later
"""Checksums and lengths of what the worker makes of super-frames, and of what the kernel makes of
the worker's: by tshark's reckoning, which is nobody's here."""

import socket
import struct

import pytest

import ethercord
import worker
from ethercord import run, wait_until
from worker import HEADERS, PORTS, Pair, transfer

ETHERNET, RAW = 1, 101  # link types of pcap(3)
BAD, GOOD = "0", "1"
FIELDS = ("ip.checksum.status", "tcp.checksum.status", "udp.checksum.status",
          "icmpv6.checksum.status", "_ws.malformed")


def judged(path, packets, link):
    """How often tshark finds each of FIELDS good; nothing may be bad."""
    with open(path, "wb") as file:
        file.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, link))
        for packet in packets:
            file.write(struct.pack("=IIII", 0, 0, len(packet), len(packet)) + packet)
    checks = [word for name in ("ip", "tcp", "udp") for word in
              ("-o", f"{name}.check_checksum:TRUE")]
    told = run("tshark", "-r", path, *checks, "-T", "fields", "-E", "separator=;",
               *(word for field in FIELDS for word in ("-e", field))).stdout
    good = dict.fromkeys(FIELDS, 0)
    rows = told.splitlines()
    assert len(rows) == len(packets)
    for packet, row in zip(packets, rows):
        for field, value in zip(FIELDS, row.split(";")):
            # A field is there once for each header of its kind.
            assert BAD not in value.split(",") and (field != "_ws.malformed" or not value), \
                f"{field} {value}: {packet.hex()}"
            good[field] += GOOD in value.split(",")
    return good


def datagrams(sender, receiver, address, sizes):
    """UDP, one of each size."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with receiver.entered():
        there = socket.socket(family, socket.SOCK_DGRAM)
    with sender.entered():
        here = socket.socket(family, socket.SOCK_DGRAM)
    with here, there:
        there.bind((address, 7070))
        there.settimeout(ethercord.PATIENCE)
        for size in sizes:
            here.sendto(bytes(i * 13 & 0xFF for i in range(size)), (address, 7070))
            assert len(there.recv(70000)) == size


def traffic(pair, far, back):
    """TCP both ways, and datagrams of even and odd sizes; over IPv4 and IPv6."""
    near = pair.namespaces[0]
    for ours, theirs in (("10.8.0.1", "10.8.0.2"), ("fd00:8::1", "fd00:8::2")):
        assert transfer(near, far, theirs, 1)
        assert not back or transfer(far, near, ours, 1)
        datagrams(near, far, theirs, (1, 2, 3, 100, 1001, 1200))


@pytest.mark.parametrize("kind", list(worker.FORMATS))
def test_sent(lab, kind):
    """Each datagram as it leaves: what the device gave whole, and what was cut."""
    pair = Pair(lab, kind, wire=True)
    wire = lab.capture(pair.namespaces[0], "wire", outgoing_only=True)
    traffic(pair, pair.namespaces[1], False)
    sent = [p[4][8 + HEADERS[kind]:] for f in wire.take() if (p := ethercord.ipv4(f)) and
            p[2] == 17 and struct.unpack("!H", p[4][2:4])[0] == PORTS[kind]]
    good = judged(lab.directory / "sent.pcap", sent, ETHERNET if pair.near.ethernet else RAW)
    print(good)
    assert pair.near.statistics["tx_segmented"] > 1000
    assert good["tcp.checksum.status"] > 1400 and good["udp.checksum.status"] >= 12
    assert good["ip.checksum.status"] > 700


@pytest.mark.parametrize("kind", ["gretap-fou", "vxlan", "raw-udp"])
def test_received(lab, kind):
    """What was put together, as a host beyond a bridge gets it: cut by the kernel again."""
    pair = Pair(lab, kind, wire=True)
    near, far = pair.namespaces
    ethercord.bridge(far, "br0")
    far.ip("addr", "flush", "dev", "cord")
    far.ip("link", "set", "cord", "master", "br0")
    host = lab.host(far, "br0", "10.8.0.2/24")
    host.exec("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0",
              "net.ipv6.conf.eth0.disable_ipv6=0")
    host.ip("addr", "add", "fd00:8::2/64", "dev", "eth0", "nodad")
    host.ip("link", "set", "eth0", "mtu", 1400)
    ear = lab.capture(host, "eth0")
    wait_until(lambda: ethercord.ping(near, "10.8.0.2", check=False), "the host is there")
    traffic(pair, host, True)
    own = bytes.fromhex(host.link("eth0")["address"].replace(":", ""))
    came = [f for f in ear.take() if f[:6] == own]
    good = judged(lab.directory / "came.pcap", came, ETHERNET)
    print(good)
    assert pair.far.statistics["rx_coalesced"] > 1000
    assert good["tcp.checksum.status"] > 1400 and good["udp.checksum.status"] >= 12
