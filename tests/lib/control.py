# SPDX-License-Identifier: GPL-2.0-or-later
"""Sites that find each other: daemons around a router, which can cut, filter, translate and forget.

    laptop (10.9.1.2) --+
                        router --- office (10.9.2.2), bridge br0 --- host (192.168.9.50)
    others (10.9.N.2) --+

What is asserted was seen at the router, at a host behind a bridge, or is what the kernel holds.
"""

import collections
import contextlib
import socket
import struct
import threading
import time

import dbus

import ethercord
from ethercord import ETHERTYPE, frame_socket, no_offloads, typed, wait_until
from traffic import UDP, outer
from vpn import sysctl

CONTROL, VXLAN = 65200, 4789
LISTENER = f"{ethercord.NAME}.Listener"
KEY = "ZXRoZXJjb3JkIHRlc3RzIHNoYXJlIHRoaXMga2V5ISE="
OTHER_KEY = "YW5vdGhlciBrZXkgdGhhdCBub2JvZHkgaGVyZSBoYXM="
PROBE = bytes.fromhex("0180c200000e")  # where in-band probes go, or another ending
HOST = "192.168.9.50"
SO_TIMESTAMPNS = 35

for _key, _type in (("allow", ethercord.TYPES["remote"]), ("compat", ethercord.TYPES["remote"]),
                    ("max-peers", dbus.UInt32)):
    ethercord.TYPES.setdefault(_key, _type)


def listener_path(name):
    return f"{ethercord.PATH}/listener/{ethercord.encode(name)}"


# Time and links

class Links:
    """Every message about links that the kernel sends in a namespace: (s of CLOCK_MONOTONIC, type,
    index, name, operational state, family)."""

    NEW, DELETE, NAME, OPERSTATE = 16, 17, 3, 16
    UP = 6

    def __init__(self, namespace):
        with namespace.entered():
            self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, ethercord.SO_RCVBUFFORCE, 32 << 20)
        self.socket.bind((0, 1))  # RTMGRP_LINK
        self.seen, self.running = [], True
        self.socket.settimeout(0.1)
        self.thread = threading.Thread(target=self.receive, daemon=True)
        self.thread.start()

    def receive(self):
        while self.running:
            with contextlib.suppress(TimeoutError):
                self.parse(self.socket.recv(1 << 17), time.monotonic())

    def parse(self, data, now):
        while len(data) >= 32:
            length, kind = struct.unpack("=IH", data[:6])
            family, index = data[16], struct.unpack("=i", data[20:24])[0]
            attributes, at = {}, 32
            while at + 4 <= length:
                size, which = struct.unpack("=HH", data[at:at + 4])
                attributes[which & 0x3FFF] = data[at + 4:at + size]
                at += max(4, (size + 3) & ~3)
            self.seen.append((now, kind, index, attributes.get(self.NAME, b"")[:-1].decode(),
                              attributes.get(self.OPERSTATE, b"\0")[0], family))
            data = data[(length + 3) & ~3:]

    def of(self, index, since=0):
        return [s for s in self.seen.copy() if s[2] == index and s[0] >= since]

    def when(self, condition, what, timeout=ethercord.PATIENCE):
        """The time of the first message for which that is so."""
        return wait_until(lambda: next((s[0] for s in self.seen.copy() if condition(s)), None),
                          what, timeout)

    def carrier(self, index, present, since, timeout=ethercord.PATIENCE):
        """When the link got, or lost, its carrier."""
        return self.when(lambda s: s[2] == index and s[0] >= since and s[5] == 0 and
                         (s[4] == self.UP) == present,
                         f"link {index} {'gets' if present else 'loses'} its carrier", timeout)

    def deleted(self, name, since=0, timeout=ethercord.PATIENCE):
        return self.when(lambda s: s[1] == self.DELETE and s[3] == name and s[0] >= since,
                         f"{name} is deleted", timeout)

    def close(self):
        self.running = False
        self.thread.join()
        self.socket.close()


def timed(action):
    """When it began, s of CLOCK_MONOTONIC."""
    begun = time.monotonic()
    action()
    return begun


def stamping(receiver):
    """A socket whose packets say when they came: not when somebody came to see them."""
    receiver.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    return receiver


def stamped(receiver):
    """(packet, s of CLOCK_REALTIME, source) of each that is there."""
    with contextlib.suppress(BlockingIOError):
        while True:
            data, more, _, source = receiver.recvmsg(70000, 64, socket.MSG_DONTWAIT)
            s, ns = struct.unpack("qq", more[0][2])
            yield data, s + ns / 1e9, source


# What crosses the router

Datagram = collections.namedtuple("Datagram", "at source sport destination dport payload")


class Wire:
    """UDP datagrams over IPv4, whole again, that pass an interface in one direction; at: s of
    CLOCK_REALTIME, of the kernel."""

    def __init__(self, namespace, interface, outgoing=True):
        self.socket = stamping(frame_socket(namespace, interface, socket.htons(3)))
        self.socket.bind((interface, 3))
        self.outgoing, self.pieces, self.datagrams = outgoing, {}, []

    def take(self):
        for frame, at, address in stamped(self.socket):
            if (address[2] == ethercord.Capture.OUTGOING) == self.outgoing:
                self.add(frame, at)
        return self.datagrams

    def add(self, frame, at):
        packet = outer(frame) if frame[12:14] == b"\x08\x00" else None
        if not packet or packet[2] != UDP:
            return
        source, destination, _, offset, payload = packet
        flags = struct.unpack("!H", frame[20:22])[0]
        payload = payload[:struct.unpack("!H", frame[16:18])[0] - (frame[14] & 15) * 4]
        if flags & 0x3FFF:
            # By its identification alone: a NAT that puts fragments together changes addresses of
            # the later ones in place, before we have read them.
            pieces = self.pieces.setdefault(frame[18:20], {})
            pieces[offset * 8] = (payload, flags & 0x2000, source, destination)
            payload, position = b"", 0
            while position in pieces:
                payload += pieces[position][0]
                if not pieces[position][1]:
                    break
                position = len(payload)
            else:
                return
            _, _, source, destination = pieces[0]
            del self.pieces[frame[18:20]]
        if len(payload) >= 8:
            sport, dport = struct.unpack("!HH", payload[:4])
            self.datagrams.append(Datagram(at, source, sport, destination, dport, payload[8:]))

    def clear(self):
        self.take()
        self.datagrams = []

    def probes(self, size=0, port=None):
        """Those in VXLAN, of frames that have at least so many bytes."""
        return [d for d in self.take() if len(d.payload) >= size + 8 and
                (port in (None, d.dport)) and d.payload[8:13] == PROBE[:5] and
                d.payload[20:22] == struct.pack("!H", ETHERTYPE)]

    def close(self):
        self.socket.close()


class Internet:
    """The router. Each network that joins has a number."""

    def __init__(self, lab, ipv6=False):
        self.lab, self.ipv6 = lab, ipv6
        self.router = lab.namespace("router", ipv6=ipv6)
        sysctl(self.router, ipv4__ip_forward=1, ipv4__icmp_ratelimit=0)
        if ipv6:
            sysctl(self.router, ipv6__conf__all__forwarding=1)

    def join(self, namespace, number, device="net0", default=True, mtu=None):
        """It gets 10.9.NUMBER.2, the router .1 on its interface nNUMBER; the address."""
        port = f"n{number}"
        self.router.ip("link", "add", port, "type", "veth", "peer", "name", device, "netns",
                       namespace.name)
        for ns, name, end in ((self.router, port, 1), (namespace, device, 2)):
            ns.ip("addr", "add", f"10.9.{number}.{end}/24", "dev", name)
            if self.ipv6:
                ns.ip("addr", "add", f"fd09:{number}::{end}/64", "dev", name, "nodad")
            if mtu:
                ns.ip("link", "set", "dev", name, "mtu", mtu)
            ns.ip("link", "set", "dev", name, "up")
            no_offloads(ns, name)
        if default:
            self.default(namespace, number, device)
        return f"10.9.{number}.2"

    def default(self, namespace, number, device="net0"):
        namespace.ip("route", "replace", "default", "via", f"10.9.{number}.1", "dev", device)
        if self.ipv6:
            namespace.ip("-6", "route", "replace", "default", "via", f"fd09:{number}::1", "dev",
                         device)

    def filter(self, *rules):
        """What the router lets pass: these rules of nftables and no others; none: all. They are in
        a chain before reassembly: fragments can be told."""
        lines = "\n".join(rules)
        self.router.exec("nft", "-f", "-", input=f"""
            table inet judge
            delete table inet judge
            table inet judge {{
                chain through {{
                    type filter hook prerouting priority -450
                    {lines}
                }}
            }}
            """)

    def cut(self, *numbers):
        """Nothing comes from these networks any more; none: everything passes again."""
        self.filter(*[f'iifname "n{n}" drop' for n in numbers])

    def wire(self, number, outgoing=True):
        """What the router sends to that network (or got from it)."""
        return self.lab.keep(Wire(self.router, f"n{number}", outgoing))


class Nat:
    """A home router with network NUMBER outside, and 192.168.1.0/24 behind one address."""

    LAN = "192.168.1"

    def __init__(self, internet, number, ports=(20000, 29999)):
        self.lab = internet.lab
        self.namespace = self.lab.namespace(f"nat{number}")
        sysctl(self.namespace, ipv4__ip_forward=1, ipv4__icmp_ratelimit=0)
        self.address = internet.join(self.namespace, number, "wan")
        ethercord.bridge(self.namespace, "lan")
        self.namespace.ip("addr", "add", f"{self.LAN}.1/24", "dev", "lan")
        # The other side's addresses come in by answers only, as at every home router.
        self.namespace.exec("nft", "-f", "-", input="""
            table inet home {
                chain in {
                    type filter hook forward priority 0
                    iifname "wan" ct state new drop
                }
                chain own {
                    type filter hook input priority 0
                    iifname "wan" ct state new drop
                }
            }
            """)
        self.map(*ports)

    def join(self, namespace, end):
        port = f"p{end}"
        self.namespace.ip("link", "add", port, "type", "veth", "peer", "name", "net0", "netns",
                          namespace.name)
        self.namespace.ip("link", "set", port, "master", "lan", "up")
        namespace.ip("addr", "add", f"{self.LAN}.{end}/24", "dev", "net0")
        namespace.ip("link", "set", "net0", "up")
        namespace.ip("route", "add", "default", "via", f"{self.LAN}.1")
        no_offloads(namespace, "net0")
        no_offloads(self.namespace, port)
        return f"{self.LAN}.{end}"

    def map(self, first, last):
        """UDP of new connections gets ports at random out of these."""
        self.namespace.exec("nft", "-f", "-", input=f"""
            table ip nat
            delete table ip nat
            table ip nat {{
                chain post {{
                    type nat hook postrouting priority 100
                    oifname "wan" meta l4proto udp snat to {self.address}:{first}-{last} random
                    oifname "wan" masquerade
                }}
            }}
            """)

    def forget(self, protocol=UDP):
        """All mappings of UDP, as a router does that restarts its translation (TCP's stay; with
        None they go, too)."""
        with self.namespace.entered():
            s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)  # NETLINK_NETFILTER
        with s:
            if protocol is None:
                self.request(s, 2, 5, b"")  # IPCTNL_MSG_CT_DELETE: all
                return
            s.send(struct.pack("=IHHIIBBH", 20, 1 << 8 | 1, 0x301, 1, 0, 2, 0, 0))  # _GET, dump
            found, done = [], False
            while not done:
                data = s.recv(1 << 17)
                while len(data) >= 16 and not done:
                    length, kind = struct.unpack("=IH", data[:6])
                    done = kind == 3
                    if kind == 1 << 8:
                        found.append(data[20:length])
                    data = data[(length + 3) & ~3:]
            for entry in found:
                original = attribute(entry, 1)
                if attribute(attribute(original, 2), 1)[0] == protocol:
                    body = struct.pack("=HH", 4 + len(original), 0x8001) + original
                    self.request(s, 2, 5, body)

    @staticmethod
    def request(s, kind, flags, body):
        s.send(struct.pack("=IHHIIBBH", 20 + len(body), 1 << 8 | kind, flags, 1, 0, 2, 0, 0) + body)
        code = struct.unpack("=IHHIIi", s.recv(1 << 17)[:20])[5]
        assert code in (0, -2), f"conntrack answers {code}"


def attribute(data, which):
    """The body of a netlink attribute."""
    while len(data) >= 4:
        size, kind = struct.unpack("=HH", data[:4])
        if kind & 0x3FFF == which:
            return data[4:size]
        data = data[max(4, (size + 3) & ~3):]
    raise AssertionError(f"no attribute {which}")


# Sites

class Site:
    """A namespace with a daemon."""

    def __init__(self, lab, namespace, label, start=True, **more):
        self.lab, self.ns, self.label = lab, namespace, label
        self.daemon = lab.daemon(namespace, label, start=start, **more)

    @property
    def client(self):
        return self.daemon.bus.client

    def dial(self, name="office", remote="10.9.2.2", flags="activate", **settings):
        full = {"control": None, "encapsulation": None, "mode": "join-remote", "key": KEY,
                **settings}
        return self.client.add(name, flags, remote=remote, **full)

    def listen(self, name="lan", peers=("office",), flags="activate", **settings):
        """peers: names, or a dictionary of their settings."""
        if not isinstance(peers, dict):
            peers = {peer: {"key": KEY} for peer in peers}
        full = {"underlay": "any", "bridge": "br0", "bridge_create": True, "mode": "join-remote",
                **settings}
        full = {k: v for k, v in full.items() if v is not None}
        made = dbus.Dictionary({p: typed(s) for p, s in peers.items()}, signature="sa{sv}")
        return self.client.call(ethercord.PATH, ethercord.MANAGER, "AddListener", "a{sv}a{sa{sv}}s",
                                typed({"name": name, **full}), made, flags)

    def listener(self, name="lan"):
        return self.client.call(listener_path(name), ethercord.PROPERTIES, "GetAll", "s", LISTENER)

    def on_listener(self, name, member, signature="", *values):
        return self.client.call(listener_path(name), LISTENER, member, signature, *values)

    def get(self, name):
        """A tunnel's properties; None when there is none (any more)."""
        try:
            return self.client.get(name)
        except dbus.DBusException as e:
            assert e.get_dbus_name() in ("org.freedesktop.DBus.Error.UnknownObject",
                                         ethercord.ERROR + "NoSuchTunnel"), e
            return None

    def wait(self, name, state, timeout=ethercord.PATIENCE):
        """None is a state, too: no such tunnel."""
        last = [None]

        def reached():
            last[0] = self.get(name)
            return (last[0] is None) if state is None else last[0] and last[0]["State"] == state
        try:
            wait_until(reached, "", timeout, 0.01)
        except AssertionError:
            got = last[0] and (last[0]["State"], *last[0]["StateReason"])
            raise AssertionError(f"{self.label}: {name} is not {state} but {got}") from None
        return last[0]

    def down(self, name):
        return timed(lambda: self.client.on(name, "Deactivate"))

    def statistics(self, name):
        return self.client.get(name)["Statistics"]

    def interfaces(self):
        """Those of ours: alias -> name."""
        return {link["ifalias"][len("ethercord:"):]: name for name, link in self.ns.links().items()
                if link.get("ifalias", "").startswith("ethercord:")}

    def ifname(self, name):
        return self.client.get(name)["Interface"]

    def restart_killed(self):
        self.daemon.kill()
        self.daemon.start()


class World:
    """The usual two sites, up to the tunnel, which the tests dial."""

    def __init__(self, lab, ipv6=False, nat=False, hosts=None, start=True, **more):
        self.lab = lab
        self.internet = Internet(lab, ipv6)
        self.nat = Nat(self.internet, 1) if nat else None
        self.office = self.site("office", 2, ipv6=ipv6, start=start, **more)
        self.laptop = self.site("laptop", 1, ipv6=ipv6, hosts=hosts, start=start, **more)

    def site(self, label, number, ipv6=False, hosts=None, **more):
        """At a network of its own; 'number' behind the NAT is the last byte of its address."""
        ns = self.lab.namespace(label, ipv6=ipv6, hosts=hosts)
        if ipv6:
            sysctl(ns, ipv6__conf__default__accept_dad=0, ipv6__conf__all__accept_dad=0)
        if self.nat and label != "office":
            self.nat.join(ns, number + 10)
        else:
            self.internet.join(ns, number)
        return Site(self.lab, ns, label, **more)

    def host(self, site=None, address=f"{HOST}/24", label="host", bridge="br0"):
        """Somebody in the LAN; the bridge is made by the daemon with bridge-create, or before."""
        site = site or self.office
        if site.ns.link(bridge) is None:
            ethercord.bridge(site.ns, bridge)
        return self.lab.host(site.ns, bridge, address, label)

    def up(self, name="office", listener="lan", host=True, listening=None, **settings):
        """A cord of laptop and office, both ends up; the host behind the office, or None."""
        settings.setdefault("underlay", "any")
        settings.setdefault("address", "192.168.9.1/24")
        made = self.host() if host else None
        self.office.listen(listener, (name,), **(listening or {}))
        self.laptop.dial(name, **settings)
        self.both_up(name, listener)
        return made

    def both_up(self, name="office", listener="lan", timeout=ethercord.PATIENCE):
        """The properties at the laptop and at the office."""
        return (self.laptop.wait(name, "up", timeout),
                self.office.wait(f"{listener}.{name}", "up", timeout))

    def indexes(self, name="office", listener="lan"):
        """What must not change while a cord carries on: link indexes and bridge of both ends."""
        here, there = self.laptop.ifname(name), self.office.ifname(f"{listener}.{name}")
        return (self.laptop.ns.ifindex(here), self.office.ns.ifindex(there),
                self.office.ns.master(there))

    def flows(self, host, name="office", interval=0.005):
        """Frames there and back, between the laptop's end and the host."""
        here = self.laptop.ifname(name)
        return [self.lab.flow(*ends, interval).start() for ends in (
            (self.laptop.ns, here, host, "eth0"), (host, "eth0", self.laptop.ns, here))]


def gap(flow):
    """Ends it; (longest time without a frame that arrived, s, frames lost)."""
    lost = flow.stop()
    longest = run = 0
    before = None
    for number in lost:
        run = run + 1 if before is not None and number == before + 1 else 1
        longest, before = max(longest, run), number
    return longest * flow.interval, len(lost)


def carries(flow, more=20, timeout=ethercord.PATIENCE):
    """So many of the frames that are sent from now on arrive."""
    mark = flow.sent
    wait_until(lambda: sum(n >= mark for n in flow.drain().copy() if n < 1 << 31) >= more,
               "frames cross", timeout)


FRAME = 0x88B6  # IEEE 802: local experiments, the second


def frame_crosses(lab, from_ns, from_interface, to_ns, to_interface, size=1514, timeout=5):
    """Whether one of so many bytes arrives whole. (A ping from an end of the tunnel is no proof of
    size: once the kernel knows the path, it fragments inside.)"""
    ear = lab.capture(to_ns, to_interface, FRAME)
    mark = struct.pack("!d", time.monotonic())
    frame = (b"\xff" * 6 + b"\x02\x00\x5e\x10\x00\x21" + struct.pack("!H", FRAME) + mark) \
        .ljust(size, b"\x5a")
    with contextlib.closing(frame_socket(from_ns, from_interface, FRAME)) as s:
        def arrived():
            s.send(frame)
            return frame in ear.take()
        try:
            return bool(wait_until(arrived, "", timeout, 0.05))
        except AssertionError:
            return False
        finally:
            ear.close()


def full_frames(world, host, name="office", size=1514):
    """They cross between the laptop's end and the host, both ways."""
    here = world.laptop.ifname(name)
    for ends in ((world.laptop.ns, here, host, "eth0"), (host, "eth0", world.laptop.ns, here)):
        assert frame_crosses(world.lab, *ends, size), f"{size} bytes do not cross from {ends[1]}"


class Follow:
    """States and events of a daemon's tunnels in the order they are told: (path, word, details)."""

    def __init__(self, lab, site):
        self.signals = lab.signals(site.daemon)
        self.log = []

    def take(self):
        # The bus answers after it has passed on what came before; the daemon may be dead.
        self.signals.client.connection.name_has_owner(ethercord.NAME)
        ethercord.iterate()
        seen, self.signals.seen = self.signals.seen, []
        for path, interface, member, values in seen:
            if member == "Event":
                self.log.append((path, values[0], values[1]))
            elif interface == ethercord.PROPERTIES and values[0] == ethercord.TUNNEL and \
                    "State" in values[1]:
                self.log.append((path, "=" + values[1]["State"], values[1]))
        return self.log

    def words(self, name):
        return [word for path, word, _ in self.take() if path == ethercord.tunnel_path(name)]

    def wait(self, name, word, timeout=ethercord.PATIENCE):
        wait_until(lambda: word in self.words(name), f"{name} tells {word}", timeout)
        return next(d for p, w, d in self.log if w == word and p == ethercord.tunnel_path(name))

    def clear(self):
        self.take()
        self.log = []
