# SPDX-License-Identifier: GPL-2.0-or-later
"""What tells of ethercord-worker from outside, and its peers that are no ethercord: plain sockets
that do what tap2tap and ttun do."""

import contextlib
import os
import socket
import struct
import threading

import ethercord
from ethercord import Flow, frame_socket, ipv4, no_offloads, wait_until

USER = {"data_plane": "user"}
KINDS = ("gretap-fou", "vxlan", "raw-udp", "tun-udp")
ETHERNET = KINDS[:3]
PORTS = {"gretap-fou": 65201, "vxlan": 4789, "raw-udp": 1234, "tun-udp": 8000}
OVERHEAD = {"gretap-fou": 54, "vxlan": 50, "raw-udp": 42, "tun-udp": 28}  # over IPv4


def spec(kind, **more):
    """Settings of a static tunnel in the user data plane."""
    numbers = {"id": 7} if kind in ("gretap-fou", "vxlan") else {}
    return {**USER, "encapsulation": kind, **numbers, **more}


# Processes

def namespace_id(namespace):
    with namespace.entered():
        return os.readlink(f"/proc/self/task/{threading.get_native_id()}/ns/net")


def worker_pids(namespace):
    """All of a namespace."""
    found, here = [], namespace_id(namespace)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/exe").endswith("ethercord-worker") and \
                    os.readlink(f"/proc/{pid}/ns/net") == here:
                found.append(int(pid))
    return found


def fds(pid):
    with contextlib.suppress(OSError):
        return os.listdir(f"/proc/{pid}/fdinfo")
    return []


def worker_pid(namespace, name="t1"):
    """Of the process that has the tunnel's device open, or None. A peer's is called by its name."""
    name = name.rsplit(".", 1)[-1]
    for pid in worker_pids(namespace):
        for fd in fds(pid):
            with contextlib.suppress(OSError):
                with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii") as info:
                    if f"iff:\tec-{name}\n" in info.read():
                        return pid
    return None


def left_over(daemon):
    """What is there of workers: processes, files, devices."""
    directory = daemon.runtime / "workers"
    files = sorted(os.listdir(directory)) if directory.exists() else []
    devices = [name for name, link in daemon.namespace.links().items()
               if link.get("linkinfo", {}).get("info_kind") == "tun"]
    return worker_pids(daemon.namespace), files, devices


def nothing_left(daemon):
    wait_until(lambda: left_over(daemon) == ([], [], []),
               f"nothing is left of any worker: {left_over(daemon)}")


def sockets(namespace):
    """UDP sockets of a namespace: (local address, port, device)."""
    found = set()
    for line in namespace.exec("ss", "-Huan").stdout.splitlines():
        local = line.split()[3]
        address, port = local.rsplit(":", 1)
        address, _, device = address.partition("%")
        found.add((address.strip("[]"), int(port), device))
    return found


class IpFlow(Flow):
    """The same over IP: for devices that carry nothing else."""

    PORT = 7007

    def __init__(self, from_ns, from_address, to_ns, to_address, interval=0.001):
        self.names = (from_ns, from_address)
        family = socket.AF_INET6 if ":" in to_address else socket.AF_INET
        with from_ns.entered():
            self.sender = socket.socket(family, socket.SOCK_DGRAM)
        with to_ns.entered():
            self.receiver = socket.socket(family, socket.SOCK_DGRAM)
        self.receiver.setsockopt(socket.SOL_SOCKET, ethercord.SO_RCVBUFFORCE, 16 << 20)
        self.receiver.bind((to_address, self.PORT))
        self.sender.bind((from_address, 0))
        self.sender.connect((to_address, self.PORT))
        self.interval = interval
        self.sent, self.failures, self.running = 0, 0, True
        self.seen = set()
        self.thread = threading.Thread(target=self.send_all, daemon=True)


def arrived_since(flow, mark):
    return sum(mark <= n < 1 << 31 for n in flow.drain().copy())


# Peers

class Stock:
    """tap2tap or ttun without its device: a UDP socket. The first listens to anybody on its port
    and answers whoever sent last; the second is connected. `got` is what came: (bytes, sender)."""

    def __init__(self, namespace, address, port, remote=None, connected=False):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with namespace.entered():
            self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, ethercord.SO_RCVBUFFORCE, 16 << 20)
        self.socket.bind((address, port))
        self.remote, self.connected, self.got = remote, connected, []
        if connected:
            self.socket.connect(remote)

    @property
    def address(self):
        return self.socket.getsockname()[:2]

    def send(self, data):
        if self.connected:
            with contextlib.suppress(ConnectionRefusedError):
                self.socket.send(data)
        else:
            self.socket.sendto(data, self.remote)

    def take(self):
        """All so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    data, sender = self.socket.recvfrom(70000, socket.MSG_DONTWAIT)
                    self.got.append((data, sender[:2]))
                    if not self.connected:
                        self.remote = sender[:2]
        return self.got

    def payloads(self):
        return [data for data, _ in self.take()]

    def close(self):
        self.socket.close()


def packet(number, size=60, version=4):
    """An IP packet of somebody to somebody, of so many bytes."""
    if version == 6:
        head = struct.pack("!IHBB", 6 << 28, size - 40, 253, 64)
        ends = socket.inet_pton(socket.AF_INET6, "fd00:9::2") + \
            socket.inet_pton(socket.AF_INET6, "fd00:9::1")
        return (head + ends + struct.pack("!I", number)).ljust(size, b"\x33")
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, size, number & 0xFFFF, 0, 64, 253, 0,
                       socket.inet_aton("192.168.9.2"), socket.inet_aton("192.168.9.1"))
    total = sum(struct.unpack("!10H", head))
    total = (total >> 16) + (total & 0xFFFF)
    head = head[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + head[12:]
    return (head + struct.pack("!I", number)).ljust(size, b"\x33")


MARK = b"\x02\x00\x5e\x10\x00\x31" + struct.pack("!H", 0x88B6)  # IEEE 802: experiments, the second


def frame(number, size=60):
    return (b"\xff" * 6 + MARK + struct.pack("!I", number)).ljust(size, b"\x5a")


class Tap:
    """What the host sees of the tunnel's device: what it sends, and what came. Frames of tests
    alone are looked at."""

    def __init__(self, namespace, interface, ethernet=True):
        self.ethernet = ethernet
        self.socket = frame_socket(namespace, interface, socket.htons(3))
        self.socket.bind((interface, 3 if ethernet else 0x0800))
        self.ear = frame_socket(namespace, interface, socket.htons(3))
        self.ear.bind((interface, 3))
        self.got = []

    def make(self, number, size=60):
        return frame(number, size) if self.ethernet else packet(number, size)

    def send(self, data):
        self.socket.send(data)

    def take(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                data, where = self.ear.recvfrom(70000, socket.MSG_DONTWAIT)
                if where[2] != socket.PACKET_OUTGOING:
                    self.got.append(data)
        return self.got

    def close(self):
        self.socket.close()
        self.ear.close()


def is_ours(data, ethernet=True):
    """Made by Tap.make()."""
    return data[6:14] == MARK if ethernet else len(data) > 20 and data[:2] == b"\x45\0" and \
        data[9] == 253


def offloads_on(namespace, interface):
    """As a wire between machines: merged on arrival."""
    no_offloads(namespace, interface)
    namespace.exec("ethtool", "-K", interface, "gro", "on")


def datagrams(capture, port):
    """UDP payloads over IPv4 to a port, whole ones, among a capture's frames."""
    found = []
    for seen in capture.take():
        p = ipv4(seen)
        if p and p[2] == 17 and not p[3] and struct.unpack("!H", p[4][2:4])[0] == port:
            found.append(p[4][8:])
    return found
