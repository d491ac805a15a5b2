# SPDX-License-Identifier: GPL-2.0-or-later
"""The guard against this kernel, without a daemon: what its layers let out and in, for all
encapsulations, both families and both kinds of fence; and what others do to its tables. Packets are
made by hand, so the kernel needs none of the tunnels. That IPsec lets packets pass is in tests/vm."""

import contextlib
import itertools
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

import ethercord
import leaks
from ethercord import Capture, stays, wait_until

DRIVER = ethercord.BUILD / "tests/guard-driver"
TABLE = ("table", "inet", "ethercord")
NEAR, PEER, FOREIGN = ({4: f"10.99.0.{n}", 6: f"fd99::{n}"} for n in (1, 2, 9))
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
MARK = b"this is a tunnel's packet"
COUNT = 5

# Keys of the keyfile, and which layers can stop a datagram of a plain socket: FOU is looked up as
# GRE, which only its own interface does.
KINDS = {
    "gre": {"protocol": 47},
    "ipip": {"protocol": 4},
    "fou": {"protocol": 17, "lookup-protocol": 47, "local-port": 5555, "remote-port": 5556},
    "vxlan": {"protocol": 17, "local-port": 4789, "remote-port": 4790, "vni": 42},
}
LAST = {"protocol": 17, "local-port": 7777}     # nobody's

# Denies sockets of the netlink families given, then runs a program.
DENY = """import errno, os, seccomp, socket, sys
f = seccomp.SyscallFilter(seccomp.ALLOW)
for family in sys.argv[1].split(","):
    f.add_rule(seccomp.ERRNO(errno.EAFNOSUPPORT), "socket",
               seccomp.Arg(0, seccomp.EQ, socket.AF_NETLINK), seccomp.Arg(2, seccomp.EQ, int(family)))
f.load()
os.execvp(sys.argv[2], sys.argv[2:])
"""
NETFILTER, XFRM = "12", "6"


class Driver:
    """guard-driver in a namespace."""

    def __init__(self, lab, namespace, deny=()):
        self.directory = lab.directory / "guard"
        self.log = lab.directory / "guard-log"
        self.serial = itertools.count()
        wrapper = ("/usr/bin/python3", "-c", DENY, ",".join(deny)) if deny else ()
        with open(self.log, "ab") as log:
            self.process = namespace.popen(*wrapper, DRIVER, self.directory, "ethercord",
                                           stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                           stderr=log, text=True, bufsize=1)
        lab.keep(self)
        assert self.process.stdout.readline() == "ready\n"

    def close(self):
        """Its own end, unless a test killed it: with sanitizers it looks for leaks then."""
        if self.process.poll() is None:
            self.process.stdin.close()
            assert self.process.wait(20) == 0, self.log.read_text()
        ethercord.end_process(self.process)

    def __call__(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def arm(self, name, kind, family=4, fence="interface", device="vpn0", **more):
        keys = {"fence": fence, "device": device if fence == "interface" else "", "gateway": "",
                "local": NEAR[family], "remote": PEER[family], "local-port": 0, "remote-port": 0,
                "second-protocol": 0, "protect": "true", "vpn": "a VPN", **KINDS[kind], **more}
        keys.setdefault("lookup-protocol", keys["protocol"])
        file = self.directory.parent / f"spec-{next(self.serial)}"
        file.write_text("[guard]\n" + "".join(f"{k}={v}\n" for k, v in keys.items()))
        return self("arm", name, file)

    def counters(self, name):
        return tuple(map(int, self(f"counters {name}").split()))

    @contextlib.contextmanager
    def asleep(self):
        self.process.send_signal(signal.SIGSTOP)
        yield
        self.process.send_signal(signal.SIGCONT)


class Site:
    """near and far with two cables: vpn0, which is meant, and wire, which is not."""

    def __init__(self, lab):
        self.lab = lab
        self.near, self.far = (lab.namespace(n, ipv6=True) for n in ("near", "far"))
        for name, v4, v6 in (("vpn0", "10.99.0", "fd99::"), ("wire", "10.77.0", "fd77::")):
            self.near.ip("link", "add", name, "type", "veth", "peer", "name", name, "netns",
                         self.far.name)
            for ns, number in ((self.near, 1), (self.far, 2)):
                ns.ips(f"addr add {v4}.{number}/24 dev {name}\n"
                       f"addr add {v6}{number}/64 dev {name} nodad\nlink set {name} up\n")
                ns.exec("sh", "-c", f"echo 0 >/proc/sys/net/ipv4/conf/{name}/rp_filter; "
                                    "echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter")
        self.mac = {(ns, name): bytes.fromhex(ns.link(name)["address"].replace(":", ""))
                    for ns in (self.near, self.far) for name in ("vpn0", "wire")}
        # Whatever comes to a cable finds somebody there.
        for name, address in itertools.product(("vpn0", "wire"), (*PEER.values(),
                                                                   *FOREIGN.values())):
            self.near.ip("neigh", "replace", address, "lladdr",
                         self.far.link(name)["address"], "dev", name)
        self.out = {name: lab.keep(Capture(self.near, name, outgoing_only=True))
                    for name in ("vpn0", "wire")}

    def astray(self):
        """The routes to the peers no longer lead into the VPN."""
        for address in (*PEER.values(), *FOREIGN.values()):
            self.near.ip("route", "replace", address, "dev", "wire")

    def socket(self, family, kind, protocol=0, port=0):
        with self.near.entered():
            made = self.lab.keep(socket.socket(FAMILY[family], kind, protocol))
        if family == 6 and port:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if port:
            made.bind(("", port))
        return made

    def send(self, kind, family, to=PEER, **more):
        """Sends a tunnel's packets as the kernel would; how many left at each cable."""
        keys = {**KINDS[kind], **more}
        if keys["protocol"] == 17:
            sender = self.socket(family, socket.SOCK_DGRAM)
        else:
            sender = self.socket(family, socket.SOCK_RAW, keys["protocol"])
        for capture in self.out.values():
            capture.clear()
        for _ in range(COUNT):
            with contextlib.suppress(OSError):  # what the kernel says to a dropped packet
                sender.sendto(payload(keys), (to[family], keys.get("remote-port", 0)))
        sender.close()
        return {name: sum(MARK in f for f in c.take()) for name, c in self.out.items()}

    def inject(self, cable, packets):
        """On one processor: what several have sent may overtake each other."""
        cpus = os.sched_getaffinity(0)
        with self.far.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as s:
            s.bind((cable, 0x0800))
            os.sched_setaffinity(0, {min(cpus)})
            for packet in packets:
                ethertype = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
                s.send(self.mac[self.near, cable] + self.mac[self.far, cable] + ethertype + packet)
        os.sched_setaffinity(0, cpus)

    def receive(self, kind, family, cable, source=PEER, make=None, **more):
        """Whether a packet from outside gets to whoever listens."""
        keys = {**KINDS[kind], **more}
        if keys["protocol"] == 17:
            listener = self.socket(family, socket.SOCK_DGRAM, port=keys["local-port"])
        else:
            listener = self.socket(family, socket.SOCK_RAW, keys["protocol"])
        # One that is nobody's comes behind them: with it they are there, or never will be.
        last = self.socket(family, socket.SOCK_DGRAM, port=LAST["local-port"])
        self.inject(cable, (make or whole)(family, source[family], keys) +
                    whole(family, FOREIGN[family], LAST))
        last.settimeout(ethercord.PATIENCE)
        try:
            last.recv(4096)
            while MARK not in listener.recv(4096, socket.MSG_DONTWAIT):
                pass
            return True
        except BlockingIOError:
            return False
        finally:
            listener.close()
            last.close()


@pytest.fixture
def site(lab):
    return Site(lab)


@pytest.fixture
def driver(lab, site):
    return Driver(lab, site.near)


# Packets

IDENTIFICATION = itertools.count(1)


def payload(keys):
    vxlan = struct.pack("!BxxxI", 8, keys["vni"] << 8) if "vni" in keys else b"\0\0\x65\x58"
    return vxlan + MARK


def checksum(data):
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xffff) + (total >> 16)
    return ~(total + (total >> 16)) & 0xffff


def header(family, source, protocol, body, fragment=None, number=0):
    """fragment: (offset, more)."""
    if family == 4:
        flags = fragment[0] // 8 | fragment[1] << 13 if fragment else 0
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), number, flags, 64, protocol, 0,
                           socket.inet_aton(source), socket.inet_aton(NEAR[4]))
        return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body
    if fragment:
        body = struct.pack("!BBHI", protocol, 0, fragment[0] | fragment[1], number) + body
        protocol = 44
    return struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + \
        socket.inet_pton(FAMILY[6], source) + socket.inet_pton(FAMILY[6], NEAR[6]) + body


def transport(family, source, keys):
    body = payload(keys)
    if keys["protocol"] != 17:
        return body
    udp = struct.pack("!HHHH", 40000, keys["local-port"], 8 + len(body), 0) + body
    if family == 4:
        return udp
    pseudo = socket.inet_pton(FAMILY[6], source) + socket.inet_pton(FAMILY[6], NEAR[6]) + \
        struct.pack("!II", len(udp), 17)
    return udp[:6] + struct.pack("!H", checksum(pseudo + udp) or 0xffff) + udp[8:]


def whole(family, source, keys):
    return [header(family, source, keys["protocol"], transport(family, source, keys))]


def split(at):
    def make(family, source, keys):
        body, number = transport(family, source, keys), next(IDENTIFICATION)
        return [header(family, source, keys["protocol"], body[:at], (0, 1), number),
                header(family, source, keys["protocol"], body[at:], (at, 0), number)]
    return make


CASES = pytest.mark.parametrize("kind,family", list(itertools.product(KINDS, (4, 6))))


# Interface

@CASES
def test_out(site, driver, kind, family):
    assert site.send(kind, family) == {"vpn0": COUNT, "wire": 0}
    site.astray()
    assert site.send(kind, family) == {"vpn0": 0, "wire": COUNT}, "the road astray is none"
    assert driver.arm("t", kind, family) == "ok" and driver("layers t") == "layers nftables route"
    assert site.send(kind, family)["wire"] == 0
    # Each layer alone.
    before = driver.counters("t")[0]
    while site.near.ip(f"-{family}", "rule", "del", "priority", "100", check=False).returncode == 0:
        pass
    assert site.send(kind, family) == {"vpn0": 0, "wire": 0}
    assert driver.counters("t") == (before + COUNT, 0)
    driver("recheck")
    with driver.asleep():
        site.near.exec("nft", "delete", *TABLE)
        if kind != "fou":
            assert site.send(kind, family) == {"vpn0": COUNT, "wire": 0}
            del site.out["vpn0"]
            site.near.ip("link", "set", "vpn0", "down")
            assert site.send(kind, family) == {"wire": 0}
        # Other peers are led nowhere.
        assert site.send(kind, family, to=FOREIGN)["wire"] == COUNT


@CASES
def test_in(site, driver, kind, family):
    for cable, source in itertools.product(("vpn0", "wire"), (PEER, FOREIGN)):
        assert site.receive(kind, family, cable, source), "without a fence all get in"
    assert driver.arm("t", kind, family) == "ok"
    own = KINDS[kind]["protocol"] == 17  # a port or an identifier is ours, whoever sends
    assert site.receive(kind, family, "vpn0")
    assert not site.receive(kind, family, "wire")
    assert driver.counters("t") == (0, 1)
    assert site.receive(kind, family, "vpn0", FOREIGN) is not own
    assert site.receive(kind, family, "wire", FOREIGN) is not own
    other = 10 - family
    assert site.receive(kind, other, "wire"), "the other family is not meant"


@pytest.mark.parametrize("family", (4, 6))
def test_foreign(site, driver, family):
    """Who shares a port, a protocol or a peer with us is left alone."""
    site.astray()
    for number, kind in enumerate(KINDS):
        assert driver.arm(f"t{number}", kind, family) == "ok"
    for kind in KINDS:
        assert site.send(kind, family, to=FOREIGN)["wire"] == COUNT
    assert site.send("fou", family, **{"remote-port": 5557})["wire"] == COUNT
    assert sum(site.send("vxlan", family, vni=43).values()) == COUNT
    assert site.receive("vxlan", family, "wire", vni=43)
    assert site.receive("fou", family, "wire", **{"local-port": 5554})
    # Its interface would take plain GRE.
    assert not site.receive("gre", family, "wire")


@pytest.mark.parametrize("kind,family,at", [("vxlan", 4, 8), ("vxlan", 4, 16), ("vxlan", 6, 8),
                                            ("vxlan", 6, 16), ("gre", 4, 8), ("gre", 6, 8)])
def test_fragments(site, driver, kind, family, at):
    """A header that is split does not hide what it is."""
    for cable in ("vpn0", "wire"):
        assert site.receive(kind, family, cable, make=split(at))
    assert driver.arm("t", kind, family) == "ok"
    assert not site.receive(kind, family, "wire", make=split(at))
    # IPv6 is put together after the guard looked: who splits so early has something to hide.
    assert site.receive(kind, family, "vpn0", make=split(at)) is not (
        (kind, family, at) == ("vxlan", 6, 8))
    if kind == "vxlan" and at == 16:
        assert site.receive(kind, family, "wire", make=split(at), vni=43)


# IPsec

@CASES
def test_ipsec(site, driver, kind, family):
    """Without a policy nothing passes, on no cable."""
    assert site.send(kind, family)["vpn0"] == COUNT and site.receive(kind, family, "vpn0")
    assert driver.arm("t", kind, family, fence="ipsec") == "ok"
    assert driver("layers t") == "layers nftables xfrm"
    nothing = {"vpn0": 0, "wire": 0}
    assert site.send(kind, family) == nothing and not site.receive(kind, family, "vpn0")
    site.near.ip("xfrm", "policy", "flush")
    before = driver.counters("t")[0]
    assert site.send(kind, family) == nothing and not site.receive(kind, family, "vpn0")
    assert driver.counters("t")[0] == before + COUNT
    driver("recheck")
    with driver.asleep():
        site.near.exec("nft", "delete", *TABLE)
        if kind != "fou":
            assert site.send(kind, family) == nothing
        assert not site.receive(kind, family, "vpn0")
        assert site.send(kind, family, to=FOREIGN)["vpn0"] == COUNT


def test_policy_of_the_vpn(site, driver):
    """It may have our selector: neither is in the other's way."""
    selector = ("src", NEAR[4], "dst", PEER[4], "proto", "gre", "dir", "out")
    assert driver.arm("t", "gre", fence="ipsec") == "ok"
    with driver.asleep():
        site.near.exec("nft", "delete", *TABLE)
        site.near.ip("xfrm", "policy", "add", *selector, "action", "allow", "priority", "1000")
        assert site.send("gre", 4)["vpn0"] == COUNT
        site.near.ip("xfrm", "policy", "delete", *selector)
        assert site.send("gre", 4)["vpn0"] == 0


# Other hands

def has_table(site):
    return site.near.exec("nft", "list", *TABLE, check=False).returncode == 0


@pytest.mark.parametrize("how", [("flush", "ruleset"), ("delete", *TABLE), ("flush", *TABLE),
                                 ("flush", "chain", "inet", "ethercord", "out"),
                                 ("flush", "set", "inet", "ethercord", "out4"),
                                 ("add", "rule", "inet", "ethercord", "in", "accept")])
def test_table_is_put_back(site, driver, how):
    assert driver.arm("t", "gre") == "ok"
    before = site.near.exec("nft", "list", *TABLE).stdout
    site.near.exec("nft", *how)
    wait_until(lambda: site.near.exec("nft", "list", *TABLE, check=False).stdout == before,
               "the table is as it was", leaks.REARMED)
    assert driver("layers t") == "layers nftables route"


def test_struggle(site, driver):
    """Against one who does not tire the guard does neither, and does not do nothing else."""
    assert driver.arm("t", "gre") == "ok"
    begun = time.monotonic()
    while time.monotonic() - begun < 1.5:
        site.near.exec("nft", "delete", *TABLE, check=False)
        assert driver("layers t") == "layers nftables route"
    wait_until(lambda: has_table(site), "the table is there in the end")
    assert driver.log.read_text().count("\n") < 20
    # Own transactions, however many, are no foreign ones.
    for number in range(300):
        assert driver.arm("t", "gre", device=f"vpn{number % 2}") == "ok"
    noted = driver.log.read_text()
    assert driver("layers t") == "layers nftables route" and driver.log.read_text() == noted


def private(site):
    """Rules and private routes, sorted. A table that was never written to does not exist."""
    return sorted(line for v in (4, 6)
                  for what in (("rule", "show"), ("route", "show", "table", "60260"))
                  for line in site.near.ip(f"-{v}", *what, check=False).stdout.splitlines())


def test_rules_and_routes_are_put_back(site, driver):
    for family, kind in itertools.product((4, 6), KINDS):
        assert driver.arm(f"{kind}{family}", kind, family) == "ok"
    whole_lot = private(site)
    assert sum(text.count("lookup 60260") for text in whole_lot) == 6  # FOU is GRE
    assert sum(text.count("unreachable") for text in whole_lot) == 2

    def unchanged():
        """What is heard from a first rule of our own to a second one is what recheck did."""
        with site.near.popen("stdbuf", "-oL", "ip", "monitor", "rule",
                             "route", stdout=subprocess.PIPE) as monitor:
            os.set_blocking(monitor.stdout.fileno(), False)
            heard = b""

            def hears(priority):
                nonlocal heard
                for verb in ("add", "del"):
                    site.near.ip("rule", verb, "priority", priority, "lookup", "main")
                heard += monitor.stdout.read() or b""
                return b"%d:" % priority in heard
            wait_until(lambda: hears(31001), "the monitor listens")
            driver("recheck")
            wait_until(lambda: hears(31002), "it has heard what recheck did")
            monitor.terminate()
        return b"60260" not in heard
    assert unchanged()
    for family in (4, 6):
        site.near.ip(f"-{family}", "route", "flush", "table", "60260")
        while site.near.ip(f"-{family}", "rule", "del", "priority", "100",
                           check=False).returncode == 0:
            pass
    assert private(site) != whole_lot
    driver("recheck")
    assert private(site) == whole_lot and unchanged()
    # The interface goes: the wall stays. It comes back: so does the way.
    site.near.ip("link", "del", "vpn0")
    assert sum(t.count("unreachable") for t in private(site)) == 2
    assert sum(t.count("vpn0") for t in private(site)) == 0
    site.near.ip("link", "add", "vpn0", "type", "veth", "peer", "name", "vpn1")
    site.near.ip("link", "set", "vpn0", "up")
    driver("recheck")
    assert sum(t.count("vpn0") for t in private(site)) == 2


# A kernel that lacks something

def test_without_nftables(lab, site):
    driver = Driver(lab, site.near, deny=(NETFILTER,))
    site.astray()
    assert driver.arm("t", "gre") == "ok"
    assert driver("layers t") == "layers route" and "Address family" in driver("why 1")
    assert site.send("gre", 4) == {"vpn0": COUNT, "wire": 0}
    assert "Address family" in driver("clamp t ec-t 1300")


def test_without_any_layer(lab, site):
    driver = Driver(lab, site.near, deny=(NETFILTER, XFRM))
    got = driver.arm("t", "gre", fence="ipsec")
    assert got.startswith("NotProtected cannot guard the tunnel: nftables: "), got
    assert got.count("Address family") == 2 and "; IPsec policy: " in got
    assert driver("layers t") == "layers" and not list((driver.directory / "guards").iterdir())
    # What was there stays.
    assert driver.arm("t", "gre") == "ok"
    assert driver.arm("t", "gre", fence="ipsec").startswith("NotProtected")
    assert driver("layers t") == "layers route"
    assert "fence=interface" in (driver.directory / "guards/t").read_text()


# Time

def flood(site, stop, sent):
    sender = site.socket(4, socket.SOCK_RAW, 47)
    while not stop.is_set():
        with contextlib.suppress(OSError):
            sender.sendto(payload(KINDS["gre"]), (PEER[4], 0))
        sent.append(1)


def test_no_gap(lab, site, driver):
    """Crashes, other hands, new tunnels of another family, another device: under fire all the
    while, with nftables alone."""
    site.astray()
    assert driver.arm("t", "gre") == "ok"
    without_rules = ("-4", "rule", "del", "priority", "100")
    site.near.ip(*without_rules)
    stop, sent = threading.Event(), []
    thread = threading.Thread(target=flood, args=(site, stop, sent))
    thread.start()
    try:
        for _ in range(4):
            driver.process.kill()
            driver.process.wait()
            driver = Driver(lab, site.near)
            site.near.ip(*without_rules)
            assert driver("layers t") == "layers nftables route"
        site.near.exec("nft", "add", "chain", "inet", "ethercord", "foreign")
        wait_until(lambda: "foreign" not in site.near.exec("nft", "list", *TABLE).stdout,
                   "the table is made anew")
        assert driver.arm("t6", "vxlan", 6) == "ok"
        for number in range(20):
            assert driver.arm("t", "gre", device=f"vpn{number % 2 + 1}") == "ok"
    finally:
        stop.set()
        thread.join()
    assert len(sent) > 1000 and not any(MARK in f for f in site.out["wire"].take())
    for name in ("t", "t6"):
        driver("disarm", name)
    driver("flush")
    assert site.send("gre", 4)["wire"] == COUNT


def test_nothing_stays(site, driver):
    clean = private(site)
    for family, kind, fence in itertools.product((4, 6), KINDS, ("interface", "ipsec")):
        assert driver.arm(f"{kind}{family}{fence}", kind, family, fence) == "ok"
    assert driver("clamp t ec-t 1300") == "ok"
    for family, kind, fence in itertools.product((4, 6), KINDS, ("interface", "ipsec")):
        driver("disarm", f"{kind}{family}{fence}")
    assert driver.arm("gre4interface", "gre") == "ok"
    driver("flush")
    assert driver("layers gre4interface") == "layers nftables route"
    driver("disarm gre4interface")
    driver("flush")
    assert driver("clamp t ec-t 0") == "ok"
    assert private(site) == clean and site.near.ip("xfrm", "policy").stdout == ""
    wait_until(lambda: site.near.exec("nft", "list", "ruleset").stdout == "", "nothing stays", 20)
    assert not os.listdir(driver.directory / "guards")


def elements(site, name):
    """Of a set of the table; None without it."""
    got = site.near.exec("nft", "-j", "list", "set", *TABLE[1:], name, check=False).stdout
    return [e for part in json.loads(got)["nftables"] for e in part.get("set", {}).get("elem", [])] \
        if got else None


def test_errors_outlive(lab, site, driver):
    """A fence that goes leaves that of errors to the peer for a while, and none of the rest. Armed
    again it is whole; the end of the daemon ends it, a kill leaves it to the next."""
    assert driver.arm("t", "gre") == "ok" and len(elements(site, "out4-through")) == 2

    def remove():
        driver("disarm t")
        driver("flush")
        assert driver("layers t") == "layers" and driver("counters t") == "unknown"
        assert len(elements(site, "out4-through")) == 1 and len(elements(site, "out4")) == 1
        assert not elements(site, "in4")
    remove()
    site.astray()
    assert site.send("gre", 4)["wire"] == COUNT and site.receive("gre", 4, "wire")
    assert driver.arm("t", "gre") == "ok" and driver("layers t") == "layers nftables route"
    stays(lambda: site.send("gre", 4)["wire"] == 0, 10.5, "the end of the last time is none of this")
    remove()
    driver.process.kill()
    driver.process.wait()
    driver = Driver(lab, site.near)
    assert driver("layers t") == "layers nftables route"
    remove()
    driver.close()
    assert elements(site, "out4") is None and not os.listdir(driver.directory / "guards")


def test_broken_file(lab, site, driver):
    assert driver.arm("good", "gre") == "ok"
    (driver.directory / "guards/bad").write_text("[guard]\nfence=interface\ndevice=a\"b\n")
    (driver.directory / "guards/.good.X").write_text("cut")
    driver.process.kill()
    driver.process.wait()
    driver = Driver(lab, site.near)
    assert driver("layers good") == "layers nftables route" and driver("layers bad") == "layers"
    assert "guards/bad cannot be used" in driver.log.read_text()
    assert driver.arm("bad", "vxlan") == "ok"


# Clamp

def syn(family, mss=1460):
    """A TCP SYN with that MSS."""
    tcp = struct.pack("!HHIIBBHHHBBH", 1, 2, 0, 0, 0x60, 2, 1000, 0, 0, 2, 4, mss) + MARK
    return (b"\x08\x00" if family == 4 else b"\x86\xdd") + header(family, PEER[family], 6, tcp)


@pytest.mark.parametrize("family", (4, 6))
def test_clamp(lab, site, driver, family):
    """Between a tunnel's port and the others of its bridge, both directions, and there alone."""
    site.near.ip("link", "add", "br0", "type", "bridge")
    site.near.ip("link", "set", "br0", "up")
    for name in ("ec-t", "lan", "lan2"):
        site.near.ips(f"link add {name} type veth peer name {name}-p\n"
                      f"link set {name} master br0 up\nlink set {name}-p up\n")

    def passed(into, out_of):
        """The MSS that a SYN has after it crossed the bridge."""
        capture = Capture(site.near, out_of)
        sender = ethercord.frame_socket(site.near, into)

        def seen():
            sender.send(b"\xff" * 6 + b"\x02\0\0\0\0\1" + syn(family))
            return [f for f in capture.take() if MARK in f]
        frame = wait_until(seen, "the SYN crosses", interval=0.02)[0]
        sender.close()
        capture.close()
        return struct.unpack("!H", frame[frame.index(MARK) - 2:frame.index(MARK)])[0]
    assert passed("lan-p", "ec-t-p") == 1460
    assert driver("clamp t ec-t 1300") == "ok"
    assert passed("lan-p", "ec-t-p") == 1300 and passed("ec-t-p", "lan-p") == 1300
    assert passed("lan-p", "lan2-p") == 1460
    assert driver("clamp t ec-t 1200") == "ok" and passed("lan-p", "ec-t-p") == 1200
    site.near.exec("nft", "flush", "ruleset")
    wait_until(lambda: passed("lan-p", "ec-t-p") == 1200, "the clamp is back")
    driver.process.kill()
    driver.process.wait()
    driver = Driver(lab, site.near)
    assert passed("lan-p", "ec-t-p") == 1200
    assert driver("clamp t ec-t 0") == "ok" and passed("lan-p", "ec-t-p") == 1460


def test_who_may_send_changes(site, driver):
    """The peer alone, anybody in the VPN, the peer alone."""
    for anybody in (False, True, False):
        assert driver.arm("t", "fou", anybody=str(anybody).lower()) == "ok"
        assert [len(elements(site, s)) for s in ("out4-from", "out4-quoted", "in4-any")] == \
            [anybody] * 3
