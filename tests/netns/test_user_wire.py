# SPDX-License-Identifier: GPL-2.0-or-later
"""What the user data plane makes of what it is given: frames of every kind byte for byte, and
datagrams that nobody wants."""

import os
import pathlib
import socket
import struct
import sys

import pytest

import ethercord
from ethercord import FAR, NEAR, frame_socket, ping, wait_until
from peer import resident
from test_user_life import Pair
from workers import ETHERNET, KINDS, PORTS, Stock, packet, spec, worker_pid

FLOOD = pathlib.Path(__file__).resolve().parents[1] / "lib/flood.py"
NUMBER = 1_000_000
SOL_PACKET, PACKET_AUXDATA, VLAN_VALID = 263, 8, 1 << 4

# Frames

SOURCE = b"\x02\x00\x5e\x10\x00\x41"
GROUPS = {f"01-80-c2-00-00-{n:02x}": bytes.fromhex(f"0180c20000{n:02x}") for n in range(16)}
UNICAST, BROADCAST = b"\x02\x00\x5e\x10\x00\x42", b"\xff" * 6


def typed(ethertype, size=46, to=UNICAST, source=SOURCE, tags=b""):
    return to + source + tags + struct.pack("!H", ethertype) + os.urandom(size)


def llc(body, to):
    return to + SOURCE + struct.pack("!H", len(body)) + body


FRAMES = {
    **{f"group {name}": typed(0x88B6, to=to) for name, to in GROUPS.items()},
    "STP BPDU": llc(b"\x42\x42\x03" + bytes(35), GROUPS["01-80-c2-00-00-00"]),
    "PAUSE": typed(0x8808, to=GROUPS["01-80-c2-00-00-01"]),
    "LACP": typed(0x8809, 110, GROUPS["01-80-c2-00-00-02"]),
    "OAM": typed(0x8809, 60, GROUPS["01-80-c2-00-00-02"]),
    "EAPOL": typed(0x888E, to=GROUPS["01-80-c2-00-00-03"]),
    "MVRP": typed(0x88F5, to=GROUPS["01-80-c2-00-00-0d"]),
    "LLDP": typed(0x88CC, 200, GROUPS["01-80-c2-00-00-0e"]),
    "gPTP": typed(0x88F7, to=GROUPS["01-80-c2-00-00-0e"]),
    "PTP": typed(0x88F7, to=bytes.fromhex("011b19000000")),
    "CDP": llc(b"\xaa\xaa\x03\x00\x00\x0c\x20\x00" + bytes(60), bytes.fromhex("01000ccccccc")),
    "802.3 LLC": llc(b"\xe0\xe0\x03" + bytes(60), BROADCAST),
    "802.3 padded": UNICAST + SOURCE + b"\x00\x05" + b"\x42\x42\x03ab" + bytes(41),
    "VLAN": typed(0x88B6, tags=b"\x81\x00\x00\x2a"),
    "VLAN of full size": typed(0x88B6, 1500, tags=b"\x81\x00\x6f\xfe"),
    "priority tag": typed(0x88B6, tags=b"\x81\x00\xe0\x00"),
    "QinQ 88a8": typed(0x88B6, tags=b"\x88\xa8\x00\x64\x81\x00\x00\xc8"),
    "QinQ 8100": typed(0x88B6, tags=b"\x81\x00\x00\x64\x81\x00\x00\xc8"),
    "three tags": typed(0x88B6, tags=b"\x88\xa8\x00\x01\x81\x00\x00\x02\x81\x00\x00\x03"),
    "MACsec": typed(0x88E5, 100), "MPLS": typed(0x8847, 100), "PPPoE": typed(0x8863, 40),
    "PROFINET": typed(0x8892), "EtherCAT": typed(0x88A4, 100), "GOOSE": typed(0x88B8, 150),
    "AVTP": typed(0x22F0, 200), "ARP": typed(0x0806, 28, BROADCAST),
    "Wake-on-LAN": BROADCAST + SOURCE + b"\x08\x42" + b"\xff" * 6 + UNICAST * 16,
    "source 0": typed(0x88B6, source=bytes(6)), "source a group": typed(0x88B6, source=b"\x03" * 6),
    "source is destination": typed(0x88B6, to=SOURCE),
    "ethertype 0x0600": typed(0x0600), "ethertype 0xffff": typed(0xFFFF),
    "IPv4 of rubbish": typed(0x0800), "IPv6 of rubbish": typed(0x86DD),
    "header alone": UNICAST + SOURCE + b"\x88\xb6",
    "header and a byte": UNICAST + SOURCE + b"\x88\xb6\x01",
    "59 bytes": typed(0x88B6, 45), "60 bytes": typed(0x88B6, 46), "61 bytes": typed(0x88B6, 47),
    "full": typed(0x88B6, 1500),
    "IPv4": UNICAST + SOURCE + b"\x08\x00" + packet(1, 100),
    "IPv4 padded": UNICAST + SOURCE + b"\x08\x00" + packet(2, 30) + bytes(16),
    "IPv6": UNICAST + SOURCE + b"\x86\xdd" + packet(3, 100, 6),
}


class Ear:
    """Whole frames that come by an interface: a tag that the kernel took out is put back."""

    def __init__(self, namespace, interface):
        self.socket = frame_socket(namespace, interface, socket.htons(3))
        self.socket.bind((interface, 3))
        self.socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self.frames = []

    def take(self):
        while True:
            try:
                data, more, _, where = self.socket.recvmsg(70000, 128, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return self.frames
            if where[2] == socket.PACKET_OUTGOING:
                continue
            for level, kind, value in more:
                if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
                    status, _, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", value[:20])
                    if status & VLAN_VALID:
                        data = data[:12] + struct.pack("!HH", tpid, tci) + data[12:]
            self.frames.append(data)

    def close(self):
        self.socket.close()


HEADER_IN = {"vxlan": struct.pack("!II", 0x08000000, 7 << 8),
             "gretap-fou": struct.pack("!HHI", 0x2000, 0x6558, 7), "raw-udp": b""}
HEADER_SIZE = {"vxlan": 8, "gretap-fou": 12, "raw-udp": 0}      # out: numbered


@pytest.mark.parametrize("kind", ETHERNET)
def test_every_frame(sites, kind):
    """Out of the device into a datagram, and out of a datagram into the device."""
    sites.client.add("t1", remote=FAR, mode="join-remote", full_frames="yes", mtu=ethercord.dbus.
                     UInt32(1508), **spec(kind))
    sites.client.wait_state("t1", "up")
    peer = sites.lab.keep(Stock(sites.far, FAR, PORTS[kind], (NEAR, PORTS[kind])))
    ear = sites.lab.keep(Ear(sites.near, "ec-t1"))
    sender = sites.lab.keep(frame_socket(sites.near, "ec-t1", socket.htons(3)))
    size = HEADER_SIZE[kind]
    lost = {"out": [], "in": []}
    for name, frame in FRAMES.items():
        if name != "header alone":      # the kernel does not let a socket send that
            sender.send(frame)
            try:
                wait_until(lambda f=frame: any(d[size:] == f for d in peer.payloads()), "", 5)
            except AssertionError:
                lost["out"].append(name)
        peer.send(HEADER_IN[kind] + frame)
        try:
            wait_until(lambda f=frame: f in ear.take(), "", 5)
        except AssertionError:
            lost["in"].append(name)
    assert lost == {"out": [], "in": []}
    heads = {d[:size][:8] for d in peer.payloads()}
    if kind == "vxlan":
        assert heads == {HEADER_IN["vxlan"]}
    if kind == "gretap-fou":
        assert heads == {struct.pack("!HHI", 0x3000, 0x6558, 7)}
        numbers = [struct.unpack("!I", d[8:12])[0] for d in peer.payloads()]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def ip_packets():
    v4 = packet(1, 100)
    return {"IPv4": v4, "20 bytes of it": packet(2, 24), "full": packet(3, 1500),
            "IPv6": packet(4, 100, 6), "IPv6, full": packet(5, 1500, 6),
            "fragment": v4[:6] + b"\x20\x00" + v4[8:],
            "later fragment": v4[:6] + b"\x00\x05" + v4[8:],
            "options": b"\x46" + v4[1:20] + b"\x01\x01\x01\x00" + v4[20:],
            "ECN": v4[:1] + b"\x03" + v4[2:],
            "IPv6, hop by hop": packet(6, 100, 6)[:6] + b"\x00" + packet(6, 100, 6)[7:40] +
            b"\x3b\x00\x01\x04\0\0\0\0" + bytes(52),
            "multicast": v4[:16] + b"\xe0\x00\x00\xfb" + v4[20:]}


def test_every_packet(sites):
    sites.client.add("t1", remote=FAR, mtu=ethercord.dbus.UInt32(1500), full_frames="yes",
                     **spec("tun-udp"))
    sites.client.wait_state("t1", "up")
    port = PORTS["tun-udp"]
    peer = sites.lab.keep(Stock(sites.far, FAR, port, (NEAR, port), connected=True))
    ear = sites.lab.keep(Ear(sites.near, "ec-t1"))
    senders = {v: sites.lab.keep(frame_socket(sites.near, "ec-t1", t))
               for v, t in ((4, 0x0800), (6, 0x86DD))}
    for name, data in ip_packets().items():
        senders[data[0] >> 4].send(data)
        wait_until(lambda d=data: d in peer.payloads(), f"{name} goes out")
        peer.send(data)
        wait_until(lambda d=data: d in ear.take(), f"{name} comes in")


# What nobody wants

def waits(pid):
    """Seconds that a process was ready and had no processor, in all."""
    with open(f"/proc/{pid}/schedstat", encoding="ascii") as stat:
        return int(stat.read().split()[1]) / 1e9


def dropped(namespace):
    """Datagrams that no socket of the namespace had room for, and packets that this machine's
    veths had none for."""
    lines = [line.split() for line in namespace.exec("cat", "/proc/net/snmp").stdout.splitlines()
             if line.startswith("Udp:")]
    with open("/proc/net/softnet_stat", encoding="ascii") as stat:
        backlog = sum(int(line.split()[1], 16) for line in stat)
    return int(dict(zip(*lines))["RcvbufErrors"]) + backlog


FLOODS = [(kind, "the peer's") for kind in KINDS] + [("vxlan", "a stranger's"),
                                                     ("raw-udp", "a stranger's")]


@pytest.mark.parametrize("kind,who", FLOODS, ids=lambda v: v.replace(" ", "-"))
def test_flood(sites, kind, who):
    """A million of them at a tunnel that is used: it goes on."""
    pair = Pair(sites, kind, False)
    pid = worker_pid(sites.near)
    flows = pair.flows()
    before = pair.client.get("t1")["Statistics"]
    memory, room, waited = resident(pid), dropped(sites.near), waits(pid)
    outside = sites.lab.capture(sites.near, "wire", outgoing_only=True)
    source = FAR if who == "the peer's" else "10.77.0.66"
    flood = sites.far.popen(sys.executable, FLOOD, kind, f"{source}:{PORTS[kind]}",
                            f"{NEAR}:{PORTS[kind]}", NUMBER)
    try:
        wait_until(lambda: flood.poll() is not None, "the flood is over", 100, 0.05)
    finally:
        flood.kill()
        flood.wait()
    assert flood.returncode == 0
    assert ping(sites.near, "192.168.9.2", 3)
    lost = [flow.stop() for flow in flows]
    full = dropped(sites.near) - room
    got = pair.client.get("t1")["Statistics"]
    bad = sum(got[k] - before[k] for k in ("rx-dropped-malformed", "rx-dropped-id",
                                           "rx-dropped-stranger"))
    print(f"{kind}, {who}: lost {[len(n) for n in lost]}, no room for {full}, {bad} were bad, "
          f"{memory} -> {resident(pid)} KiB")
    assert worker_pid(sites.near) == pid and pair.client.get("t1")["State"] == "up"
    # A frame a millisecond waits for a worker that waits for a processor.
    assert got["tx-dropped"] - before["tx-dropped"] <= (waits(pid) - waited) * 1000, \
        "what we send is read all the time"
    # Or the queue of an interface: the far worker is not flooded, but shares the processors.
    queue = sum(ns.link_statistics("ec-t1")["tx"]["dropped"] for ns in (sites.near, sites.far))
    assert len(lost[0]) + len(lost[1]) <= full + queue
    assert resident(pid) <= memory + 512
    if who == "the peer's":
        assert bad + full >= NUMBER * 0.3, "they arrive"
    strangers = [p for f in outside.take() if (p := ethercord.ipv4(f)) and p[1] == "10.77.0.66" and
                 p[2] == 17]
    assert not strangers, "nothing is sent to whoever came by"
