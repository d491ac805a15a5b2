# SPDX-License-Identifier: GPL-2.0-or-later
"""Two networks joined over a VPN, once with each encapsulation, with hosts that do their own
segmentation; and point-to-point tunnels, whose MTU needs no fragments."""

import re
import socket
import struct
import threading
import time

import ethercord
from ethercord import ping, wait_until
from leaks import ID, LETTER, RETURN
from traffic import GRE, UDP, outer
from vpn import Topology, sysctl

# Bytes around an inner IP packet, Ethernet header included. gretap-fou numbers its packets.
OVERHEAD = {"gretap": 38, "gretap-fou": 50, "vxlan": 50}
KEY = 4         # more, where a gretap has an id
TRANSFER = 512 << 10
SOL_PACKET = 263


class Joined:
    """A VPN and a daemon at both sites; tunnels come with the tests."""

    def __init__(self, vpn_class, **more):
        self.lab = ethercord.Lab()
        try:
            self.vpn = vpn_class(Topology(self.lab), **more).up().wait_up()
            self.sites = self.vpn.topology.sites()
            self.daemons = {site: self.lab.daemon(ns, site) for site, ns in self.sites.items()}
            self.hosts = {}
        except BaseException:
            self.close()
            raise

    def close(self):
        self.lab.close()

    def client(self, site="near"):
        return self.daemons[site].bus.client

    def peer(self, site):
        return self.vpn.far if site == "near" else self.vpn.near

    def add(self, name, kind, **settings):
        """The same tunnel at both sites; up."""
        for site in self.sites:
            self.client(site).add(name, underlay=self.vpn.underlay, encapsulation=kind,
                                  remote=self.peer(site), **settings)
        for site in self.sites:
            self.client(site).wait_state(name, "up")

    def remove(self, name):
        for site in self.sites:
            self.client(site).on(name, "Remove")

    def join(self, kind):
        """A network at each site, and its host; joined by this encapsulation."""
        letter = LETTER[kind]
        for number, (site, ns) in enumerate(self.sites.items(), 1):
            ethercord.bridge(ns, f"br-{letter}")
            host = self.lab.host(ns, f"br-{letter}", f"192.168.77.{number}/24",
                                 f"{letter}-{site}")
            sysctl(host, ipv6__conf__all__disable_ipv6=0, ipv6__conf__eth0__disable_ipv6=0,
                   ipv6__conf__eth0__accept_dad=0)
            host.ip("addr", "add", f"fd77::{number}/64", "dev", "eth0", "nodad")
            self.hosts[kind, site] = host
        self.add(letter, kind, id=ID[kind], mode="join-networks", bridge=f"br-{letter}")
        near, far = (self.hosts[kind, site] for site in self.sites)
        for address in ("192.168.77.2", "fd77::2"):
            wait_until(lambda a=address: ping(near, a, timeout=1, df=None, check=False),
                       f"the networks are joined by {kind}")
        return near, far

    def no_fragment_mtu(self, kind, key):
        return self.vpn.mtu - OVERHEAD[kind] - (KEY if key and kind != "vxlan" else 0)

    def forget(self):
        """What the hosts have learnt of the path."""
        for host in self.hosts.values():
            host.ip("route", "flush", "cache")
            host.ip("-6", "route", "flush", "cache")


def crosses_whole(host, address, size, df):
    """(a packet of `size` bytes came back, the MTU that the host heard of or None)"""
    header = 48 if ":" in address else 28
    done = host.exec("ping", "-n", "-c", 4, "-i", "0.1", "-w", 4, "-W", 2, "-s", size - header, "-M",
                     "do" if df else "dont", address, check=False)
    heard = re.search(r"mtu ?= ?(\d+)", done.stdout + done.stderr)
    return " 0 received" not in done.stdout, int(heard.group(1)) if heard else None


def transfer(from_host, to_host, address, amount=TRANSFER, limit=30):
    """Sends so many bytes over one TCP connection; (bit/s, size of the segments)."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with to_host.entered():
        server = socket.socket(family, socket.SOCK_STREAM)
    with from_host.entered():
        client = socket.socket(family, socket.SOCK_STREAM)
    got, segment = [0], 0
    server.settimeout(limit)
    server.bind((address, 0))
    server.listen(1)

    def receive():
        try:
            connection = server.accept()[0]
        except OSError:
            return
        connection.settimeout(limit)
        with connection:
            while got[0] < amount:
                try:
                    data = connection.recv(1 << 16)
                except OSError:
                    return
                if not data:
                    return
                got[0] += len(data)
    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    begun = time.monotonic()
    client.settimeout(limit)
    try:
        client.connect(server.getsockname())
        client.sendall(bytes(amount))
    except OSError:
        pass
    thread.join(limit)
    segment = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    client.close()
    server.close()
    took = time.monotonic() - begun
    return (got[0] * 8 / took if got[0] >= amount else 0), segment


class Outer:
    """The tunnels' packets as they are inside the VPN: at its interface, in both directions."""

    def __init__(self, joined):
        self.vpn = joined.vpn
        near = self.vpn.topology.near
        with near.entered():
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        self.socket.setsockopt(socket.SOL_SOCKET, ethercord.SO_RCVBUFFORCE, 32 << 20)
        self.socket.bind((self.vpn.device, 3))

    def take(self):
        """(outer packets of tunnels, fragments among them)"""
        whole, pieces = 0, 0
        try:
            while True:
                packet = self.socket.recv(70000, socket.MSG_DONTWAIT)
                kind = b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00"
                found = outer(bytes(12) + kind + packet)
                if found and found[2] in (GRE, UDP):
                    flags = struct.unpack("!H", packet[6:8])[0]
                    pieces += bool(flags & 0x3FFF)
                    whole += 1
        except BlockingIOError:
            return whole, pieces

    def close(self):
        self.socket.close()


def path_mtu(vpn):
    """What the kernel says to a socket that is connected like the tunnel."""
    with vpn.topology.near.entered():
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with s:
        s.bind((vpn.near, 0))
        s.connect((vpn.far, 9))
        return s.getsockopt(socket.IPPROTO_IP, 14)  # IP_MTU


# What is tested

def full_frames(joined, kind):
    """Nothing that a network may carry is lost silently, and TCP is never stuck."""
    near, far = joined.hosts[kind, "near"], joined.hosts[kind, "far"]
    limit = joined.no_fragment_mtu(kind, True)
    # What answers "too big" knows the interface's MTU, though the VPN itself may fragment below.
    largest = path_mtu(joined.vpn) - OVERHEAD[kind] if kind == "vxlan" else limit
    assert joined.client().get(LETTER[kind])["Mtu"] == 1500
    for address, version in (("192.168.77.2", 4), ("fd77::2", 6)):
        joined.forget()
        whole, heard = crosses_whole(near, address, 1500, df=True)
        if kind == "vxlan":
            # It answers as a router would, and the host adapts.
            assert heard and limit <= heard <= largest, \
                f"IPv{version}: the host heard of {heard}, not of {limit} to {largest}"
            assert crosses_whole(near, address, heard, df=True)[0], f"IPv{version}, {heard} bytes"
        else:
            assert whole and heard is None, f"IPv{version}, don't fragment: {whole}, {heard}"
    joined.forget()
    assert crosses_whole(near, "192.168.77.2", 1500, df=False)[0], "IPv4 that may be fragmented"
    for address, headers in (("192.168.77.2", 40), ("fd77::2", 60)):
        for back in (False, True):
            joined.forget()
            ends = (far, near, address[:-1] + "1") if back else (near, far, address)
            speed, segment = transfer(*ends)
            assert speed > 400_000, f"TCP to {ends[2]} over {kind}: {speed:.0f} bit/s"
            assert segment <= largest - headers, f"TCP to {ends[2]}: segments of {segment} bytes"


def tcp_needs_no_fragments(joined, kind):
    """The clamp: TCP's packets fit; full frames of others are the control that it could be seen."""
    near, far = joined.hosts[kind, "near"], joined.hosts[kind, "far"]
    seen = Outer(joined)
    try:
        joined.forget()
        seen.take()
        speed, _ = transfer(near, far, "192.168.77.2", 256 << 10)
        packets, fragments = seen.take()
        assert speed and packets > 100, f"{speed} bit/s, {packets} packets"
        assert fragments == 0, f"{fragments} of {packets} packets of TCP are fragments"
        joined.forget()
        assert crosses_whole(near, "192.168.77.2", 1500, df=False)[0]
        assert seen.take()[1] > 0, "full frames are in fragments"
    finally:
        seen.close()


def point_to_point(joined, kind):
    """The MTU of the table, and that it is the largest one: it fills the VPN's packet."""
    joined.add("p", kind, mode="point-to-point", id=1 if kind == "vxlan" else 0)
    try:
        for number, (site, ns) in enumerate(joined.sites.items(), 1):
            ns.ip("addr", "add", f"10.8.0.{number}/24", "dev", "ec-p")
        near = joined.sites["near"]
        got = joined.client().get("p")
        expected = joined.vpn.mtu - OVERHEAD[kind]
        assert got["Mtu"] == expected == near.link("ec-p")["mtu"], \
            f"{kind} over {joined.vpn.name}: {got['Mtu']}, not {expected}"
        assert got["LargestFrame"] == expected + 14
        wait_until(lambda: ping(near, "10.8.0.2", timeout=1, check=False), "the tunnel carries")
        assert crosses_whole(near, "10.8.0.2", expected, df=True)[0], "it is not too large"
        return expected
    finally:
        joined.remove("p")


def follows(joined, kind, change, back):
    """The VPN's MTU changes under a tunnel that is up."""
    joined.add("p", kind, mode="point-to-point", id=1 if kind == "vxlan" else 0)
    try:
        near = joined.sites["near"]
        index, first = near.ifindex("ec-p"), near.link("ec-p")["mtu"]
        change()
        wait_until(lambda: near.link("ec-p")["mtu"] == joined.client().get("p")["Mtu"] ==
                   min(path_mtu(joined.vpn), joined.vpn.mtu) - OVERHEAD[kind] < first,
                   f"the MTU follows: {first}", 3 * RETURN)
        back()
        wait_until(lambda: near.link("ec-p")["mtu"] == first, f"the MTU is {first} again",
                   3 * RETURN)
        assert near.ifindex("ec-p") == index
    finally:
        joined.remove("p")
