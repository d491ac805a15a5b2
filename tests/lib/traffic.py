# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbered frames that go on whatever happens, forged ones among them, and the judge that counts
what passes the router in clear."""

import collections
import contextlib
import itertools
import select
import socket
import struct
import threading
import time

import ethercord
from ethercord import ETHERTYPE, frame_socket, wait_until

MARK, PLAIN, FALSE = b"ETHERCORD", b"UNGUARDED", b"FORGERIES"  # guarded, control, forged
ETHERNET = b"\x02\x00\x5e\x20\x00\x02" + b"\x02\x00\x5e\x20\x00\x01" + struct.pack("!H", ETHERTYPE)
# Ports on the wire; the second ones are those of the tunnels that nobody guards.
FOU, VXLAN = (65201, 65301), (4789, 4790)
SO_RCVBUFFORCE, SOL_PACKET, PACKET_STATISTICS, PACKET_IGNORE_OUTGOING = 33, 263, 6, 23
IP_FREEBIND, IPV6_FREEBIND = 15, 78
GRE, UDP, FRAGMENT6 = 47, 17, 44


class Stream:
    """Frames from one socket. every: sent in each tick that it divides."""

    def __init__(self, name, sender, every=1, mark=MARK, size=50):
        self.name, self.sender, self.every, self.mark = name, sender, every, mark
        self.size = size
        self.index = None
        self.sent, self.failures = 0, 0
        self.sent_at, self.arrived = [], {}

    def payload(self, number):
        return self.mark + struct.pack("!HI", self.index, number) + bytes(self.size)

    def packet(self, number):
        return ETHERNET + self.payload(number)

    def send(self):
        self.sent_at.append(time.monotonic())
        number = self.sent
        self.sent += 1
        try:
            self.transmit(number)
        except OSError:
            self.failures += 1

    def transmit(self, number):
        self.sender.send(self.packet(number))

    def since(self, mark):
        """When those of the frames from `mark` on arrived that did. Asked often: not to cost more
        the longer the session lasts."""
        return [at for n in range(mark, self.sent) if (at := self.arrived.get(n)) is not None]

    def first(self, mark):
        """When the first of the frames from `mark` on arrived, or None."""
        return min(self.since(mark), default=None)

    def last_lost(self, mark):
        """When the last of the frames from `mark` on was sent before the first that arrived; 0 if
        none was lost, for ever if none arrived."""
        arrived = next((n for n in range(mark, self.sent) if n in self.arrived), None)
        if arrived is None:
            return float("inf")
        return self.sent_at[arrived - 1] if arrived > mark else 0

    def lost(self, begin, end):
        return [n for n in range(begin, end) if n not in self.arrived]

    def came(self, mark):
        """How many of the frames from `mark` on arrived."""
        return len(self.since(mark))

    def close(self):
        self.sender.close()


class Forged(Stream):
    """Packets of a tunnel, with the peer's address for a source, on the bare network."""

    def __init__(self, name, router, make, source, destination, every=10):
        family = socket.AF_INET6 if ":" in destination else socket.AF_INET
        with router.entered():
            sender = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
        super().__init__(name, sender, every, FALSE)
        self.make, self.source, self.destination = make, source, destination

    def transmit(self, number):
        packet = ip_packet(self.source, self.destination,
                           *self.make(ETHERNET + self.payload(number)))
        self.sender.sendto(packet, (self.destination, 0))


class Ping(Stream):
    """Bare ones inside the VPN: they tell when it carries."""

    def __init__(self, vpn):
        self.version6 = ":" in vpn.near
        family, protocol, level, freebind = \
            (socket.AF_INET6, socket.IPPROTO_ICMPV6, socket.IPPROTO_IPV6, IPV6_FREEBIND) \
            if self.version6 else \
            (socket.AF_INET, socket.IPPROTO_ICMP, socket.IPPROTO_IP, IP_FREEBIND)
        with vpn.topology.near.entered():
            sender = socket.socket(family, socket.SOCK_RAW, protocol)
        sender.setsockopt(level, freebind, 1)
        sender.bind((vpn.near, 0))
        super().__init__(("ping", vpn.name), sender)
        self.destination = vpn.far

    def transmit(self, number):
        # The kernel fills the checksum of ICMPv6.
        body = struct.pack("!BBHHI", 128 if self.version6 else 8, 0, 0, self.index, number) + \
            bytes(40)
        self.sender.sendto(body[:2] + struct.pack("!H", checksum(body)) + body[4:],
                           (self.destination, 0))

    def parse(self, packet):
        body = packet if self.version6 else packet[(packet[0] & 15) * 4:]
        if len(body) < 10 or body[0] != (129 if self.version6 else 0):
            return None
        return struct.unpack("!HI", body[4:10])


def checksum(data):
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def ip_packet(source, destination, protocol, payload):
    if ":" in source:
        ends = b"".join(socket.inet_pton(socket.AF_INET6, a) for a in (source, destination))
        if protocol == UDP:     # has a checksum
            pseudo = ends + struct.pack("!II", len(payload), protocol)
            payload = payload[:6] + struct.pack("!H", checksum(pseudo + payload)) + payload[8:]
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + ends + payload
    # The kernel fills length, identification and checksum.
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, protocol, 0,
                       socket.inet_aton(source), socket.inet_aton(destination)) + payload


def gre(key):
    return lambda frame: (GRE, struct.pack("!HHI", 0x2000, 0x6558, key) + frame)


def udp(port, payload, source=None):
    return UDP, struct.pack("!HHHH", source or port, port, 8 + len(payload), 0) + payload


def fou(key, port):
    return lambda frame: udp(port, gre(key)(frame)[1])


def vxlan(vni, port):
    return lambda frame: udp(port, struct.pack("!II", 0x08000000, vni << 8) + frame, 33333)


def parse_frame(frame):
    """(stream, number) of a frame that a Stream sent."""
    at = 14 + len(MARK)
    if len(frame) < at + 6 or frame[12:14] != ETHERNET[12:] or \
            frame[14:at] not in (MARK, PLAIN, FALSE):
        return None
    return struct.unpack("!HI", frame[at:at + 6])


class Traffic:
    """All streams of a session: one thread sends, one receives."""

    def __init__(self, interval):
        self.interval, self.running = interval, True
        self.streams, self.receivers, self.threads = [], {}, []

    def add(self, stream):
        stream.index = len(self.streams)
        self.streams.append(stream)
        return stream

    def receive(self, receiver, parse=parse_frame):
        self.receivers[receiver.fileno()] = (receiver, parse)

    def listen(self, namespace, interface):
        self.receive(frame_socket(namespace, interface, ETHERTYPE))

    def start(self):
        self.threads = [threading.Thread(target=f, daemon=True)
                        for f in (self.send_all, self.receive_all)]
        for thread in self.threads:
            thread.start()
        return self

    def send_all(self):
        due = time.monotonic()
        for tick in itertools.count():
            for stream in self.streams:
                if (tick + stream.index) % stream.every == 0:
                    stream.send()
            due = max(due + self.interval, time.monotonic() - 1)
            if not self.running:
                return
            time.sleep(max(0, due - time.monotonic()))

    def receive_all(self):
        poll = select.poll()
        for fd in self.receivers:
            poll.register(fd, select.POLLIN)
        while self.running:
            for fd, _ in poll.poll(50):
                receiver, parse = self.receivers[fd]
                with contextlib.suppress(BlockingIOError, OSError):
                    while True:
                        self.take(parse(receiver.recv(2048, socket.MSG_DONTWAIT)))

    def take(self, found):
        if found and found[0] < len(self.streams):
            self.streams[found[0]].arrived.setdefault(found[1], time.monotonic())

    def close(self):
        self.running = False
        for thread in self.threads:
            thread.join()
        for receiver, _ in self.receivers.values():
            receiver.close()
        for stream in self.streams:
            stream.close()


# The judge

def outer(frame):
    """(source, destination, protocol, offset of the fragment, payload) of an IP packet."""
    kind = frame[12:14]
    if kind == b"\x08\x00" and len(frame) >= 34:
        offset = struct.unpack("!H", frame[20:22])[0] & 0x1FFF
        return (socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34]), frame[23], offset,
                frame[14 + (frame[14] & 15) * 4:])
    if kind == b"\x86\xdd" and len(frame) >= 54:
        source, destination = (socket.inet_ntop(socket.AF_INET6, frame[i:i + 16])
                               for i in (22, 38))
        following, payload, offset = frame[20], frame[54:], 0
        while following in (0, 60, FRAGMENT6) and len(payload) >= 8:
            if following == FRAGMENT6:
                offset = struct.unpack("!H", payload[2:4])[0] >> 3
            length = 8 if following == FRAGMENT6 else 8 + payload[1] * 8
            following, payload = payload[0], payload[length:]
        return source, destination, following, offset, payload
    return None


def encapsulation(frame, inner):
    """What kind of a tunnel's packet in clear this is, or None. inner: the VPN's addresses."""
    packet = outer(frame)
    if packet is None:
        return None
    _, destination, protocol, offset, payload = packet
    if protocol == GRE:
        return "gretap"
    if protocol == UDP and offset:
        return "fragment" if destination in inner else None
    if protocol == UDP and len(payload) >= 8:
        ports = struct.unpack("!HH", payload[:4])
        if set(ports) & set(FOU):
            return "gretap-fou"
        if set(ports) & set(VXLAN):
            return "vxlan"
    return "payload" if MARK in frame else None


class Judge:
    """Counts what comes in clear to the router, whichever way, by whose it is and what."""

    def __init__(self, vpn):
        self.vpn = vpn
        self.whose = {vpn.other: "control", vpn.far: "near", vpn.near: "far"}
        self.count, self.examples = collections.Counter(), {}
        self.seen = 0
        with vpn.topology.router.entered():
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 32 << 20)
        self.socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)

    def look(self):
        """Counts so far: (whose, encapsulation) -> packets."""
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, address = self.socket.recvfrom(70000, socket.MSG_DONTWAIT)
                self.seen += 1
                kind = encapsulation(frame, self.whose)
                if kind:
                    key = self.whose.get(outer(frame)[1], address[0]), kind
                    self.count[key] += 1
                    self.examples.setdefault(key, (address[0], frame.hex()))
        statistics = self.socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 12)
        assert struct.unpack("II", statistics[:8])[1] == 0, "the judge itself missed packets"
        return self.count

    def clear(self):
        self.look()
        self.count, self.examples = collections.Counter(), {}

    def guarded(self):
        return {key: n for key, n in self.look().items() if key[0] != "control"}

    def acquit(self, when):
        """Nothing of a guarded tunnel's was in clear."""
        found = self.guarded()
        assert not found, f"{when}: in clear: {found}; the first: " \
            f"{[self.examples[key] for key in found]}"

    def close(self):
        self.socket.close()
