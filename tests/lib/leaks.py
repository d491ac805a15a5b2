# SPDX-License-Identifier: GPL-2.0-or-later
"""A session: one VPN, every encapsulation over it at once, guarded by a daemon at both sites, and
beside them the same encapsulations without a guard. What happens to the VPN happens to all: while
the judge sees the unguarded ones leak, it must see nothing of the guarded ones.

    host g --- br-g --- ec-g ===                    === ec-g --- br-g --- host g
    host f --- br-f --- ec-f ===   VPN over router  === ec-f ...
    host v --- br-v --- ec-v ===                    === ec-v ...
                        plain-g, plain-f, plain-v: to the far site's other address, unbound
"""

import contextlib
import json
import socket
import time

import ethercord
from ethercord import frame_socket, wait_until
from traffic import FOU, PLAIN, VXLAN, Forged, Judge, Ping, Stream, Traffic, fou, gre, vxlan
from vpn import Topology, bare

ID = {"gretap": 1, "gretap-fou": 2, "vxlan": 3}
LETTER = {"gretap": "g", "gretap-fou": "f", "vxlan": "v"}
LARGE, LARGE_EVERY = 1485, 10     # frames of 1500 bytes, which cross in outer fragments
RETURN = 2          # s until frames cross again once the VPN does
REARMED = 3         # s, three times what a guard that somebody flushed is away at most
CLOSED = 9          # a UDP port that nobody has
FEW = 5             # packets that the same way takes
ENOUGH = 10         # packets in clear that prove that the judge sees them


def gretap(kind, remote, key, port, *more):
    """Words for `ip link add NAME type`: a gretap that is bound to nothing."""
    six = ":" in remote
    words = ["ip6gretap" if six else "gretap", "remote", remote, "key", key, *more]
    words += ["encaplimit", "none"] if six else ["nopmtudisc", "ignore-df"]
    if kind == "gretap-fou":
        words += ["encap", "fou", "encap-sport", port, "encap-dport", port]
    return words


class Control:
    """Tunnels at the near site that are guarded by nobody and bound to nothing."""

    def __init__(self, vpn, encapsulations):
        near, remote = vpn.topology.near, vpn.other
        for kind in encapsulations:
            name, number = f"plain-{LETTER[kind]}", 100 + ID[kind]
            if kind == "vxlan":
                words = ["vxlan", "id", number, "remote", remote, "dstport", VXLAN[1], "nolearning"]
            else:
                # One over IPv6 sends nothing without: the site's bare address, which stays.
                local = ["local", bare("near", remote)] if ":" in remote else []
                words = gretap(kind, remote, number, FOU[1], *local)
            if kind == "gretap-fou":
                module = "fou6" if ":" in remote else "fou"
                ethercord.run("modprobe", module)
                near.ip("-6" if ":" in remote else "-4", "fou", "add", "port", FOU[1], "ipproto",
                        47)
            near.ip("link", "add", name, "type", *words)
            near.ip("link", "set", name, "up")
            if ":" not in remote:
                near.ip("link", "set", name, "mtu", 1500)


class Guarded:
    """A daemon at both sites; its tunnels are ports of bridges. They may find no VPN yet."""

    def __init__(self, vpn, encapsulations, **settings):
        self.vpn, self.encapsulations = vpn, encapsulations
        self.daemons = {}
        for site, ns in vpn.topology.sites().items():
            for kind in encapsulations:
                letter = LETTER[kind]
                ethercord.bridge(ns, f"br-{letter}")
                ns.ips(f"link add host-{letter} type veth peer name port-{letter}\n"
                       f"link set port-{letter} master br-{letter} up\n"
                       f"link set host-{letter} up\n")
            self.daemons[site] = vpn.lab.daemon(ns, site)
            for kind in encapsulations:
                self.client(site).add(
                    LETTER[kind], underlay=vpn.underlay, encapsulation=kind, id=ID[kind],
                    remote=vpn.far if site == "near" else vpn.near, mode="join-networks",
                    bridge=f"br-{LETTER[kind]}", **settings)

    def client(self, site="near"):
        return self.daemons[site].bus.client

    def get(self, kind, site="near"):
        return self.client(site).get(LETTER[kind])

    def ports(self):
        """What must never change: (ifindex, bridge) of each tunnel's interface."""
        result = {}
        for site, ns in self.vpn.topology.sites().items():
            links = ns.links()
            for kind in self.encapsulations:
                link = links.get(f"ec-{LETTER[kind]}", {})
                result[site, kind] = (link.get("ifindex"), link.get("master"))
        return result

    def describe(self):
        """For a failed test."""
        lines = []
        for site, ns in self.vpn.topology.sites().items():
            for kind in self.encapsulations:
                got = self.get(kind, site)
                lines.append(f"{site} {kind}: " + json.dumps({k: got.get(k) for k in (
                    "State", "StateReason", "Underlay", "Protected", "ProtectedBy", "Local",
                    "Remote", "Mtu")}))
            for words in (["nft", "list", "ruleset"], ["ip", "rule"],
                          ["ip", "route", "show", "table", "60260"], ["ip", "route"],
                          ["ip", "-d", "-br", "addr"], ["ip", "xfrm", "policy"],
                          ["ip", "-6", "rule"], ["ip", "-6", "route", "show", "table", "60260"],
                          ["ip", "-d", "-s", "link", "show", "type", "gretap"],
                          ["ip", "-d", "-s", "link", "show", "type", "vxlan"]):
                lines.append(f"--- {site}: {' '.join(words)}\n" +
                             ns.exec(*words, check=False).stdout)
        return "\n".join(lines)


class Session:
    def __init__(self, vpn_class, encapsulations=tuple(ID), interval=0.05, plane="kernel",
                 **more):
        self.lab = ethercord.Lab()
        self.broken = True
        try:
            self.vpn = vpn_class(Topology(self.lab), **more)
            self.near = self.vpn.topology.near
            self.encapsulations = encapsulations
            # An outer IPv6 packet is not fragmented on its way in.
            self.fragments = ":" not in self.vpn.near
            self.judge = self.lab.keep(Judge(self.vpn))
            self.control = Control(self.vpn, encapsulations)
            self.guarded = Guarded(self.vpn, encapsulations, data_plane=plane)
            self.traffic = self.lab.keep(Traffic(interval))
            self.make_streams()
            self.traffic.start()
            self.begin()
        except BaseException:
            self.close()
            raise

    def close(self):
        self.lab.close()

    @property
    def daemon(self):
        return self.guarded.daemons["near"]

    def make_streams(self):
        vpn, add = self.vpn, self.traffic.add
        sites = vpn.topology.sites()
        self.ping = add(Ping(vpn))
        self.traffic.receive(self.ping.sender, self.ping.parse)
        self.flows, self.large, self.plain = {}, {}, {}
        self.forged, self.forged_plain = {}, {}
        for kind in self.encapsulations:
            host = f"host-{LETTER[kind]}"
            for site, ns in sites.items():
                self.flows[site, kind] = add(Stream((site, kind), frame_socket(ns, host)))
                self.traffic.listen(ns, host)
                if self.fragments:
                    self.large[site, kind] = add(Stream((site, kind, "large"), frame_socket(
                        ns, host), LARGE_EVERY, size=LARGE))
            plain = f"plain-{LETTER[kind]}"
            self.plain[kind] = add(Stream(("plain", kind), frame_socket(self.near, plain),
                                           mark=PLAIN))
            if self.fragments:
                add(Stream(("plain", kind, "large"), frame_socket(self.near, plain), LARGE_EVERY,
                           PLAIN, LARGE))
            self.traffic.listen(self.near, plain)
        for name, make, source in self.forgeries(vpn.far, 0, 0):
            for to in (vpn.near, bare("near", vpn.near)):
                self.forged[name, to] = add(Forged((name, to), vpn.topology.router, make, source,
                                                   to))
        for name, make, source in self.forgeries(vpn.other, 100, 1)[:len(self.encapsulations)]:
            for to in (vpn.near, bare("near", vpn.near)):
                self.forged_plain[name, to] = add(Forged((name, to), vpn.topology.router, make,
                                                         source, to))

    def forgeries(self, source, ids, which):
        """(name, what makes it, source): first one of each encapsulation."""
        number = {kind: ids + n for kind, n in ID.items()}
        made = {"gretap": gre(number["gretap"]),
                "gretap-fou": fou(number["gretap-fou"], FOU[which]),
                "vxlan": vxlan(number["vxlan"], VXLAN[which])}
        result = [(kind, made[kind], source) for kind in self.encapsulations]
        if "gretap-fou" in self.encapsulations:
            # The kernel's gretap does not mind what it is wrapped in: the key decides.
            result += [("GRE with the key of gretap-fou", gre(number["gretap-fou"]), source),
                       ("FOU with the key of gretap", fou(number["gretap"], FOU[which]), source)]
        if "vxlan" in self.encapsulations:
            stranger = "fd66::66" if ":" in source else "10.66.66.66"
            result += [("vxlan from a stranger", made["vxlan"], stranger),
                       ("vxlan from the bare peer", made["vxlan"], bare("far", source))]
        return result

    def begin(self):
        """The daemons wait for a VPN that is not there yet: nothing may leave meanwhile."""
        self.wait_sent(10)
        self.judge.acquit(f"before {self.vpn.name} is there")
        self.vpn.up().wait_up()
        self.settle(20)
        self.broken = False

    # Waiting

    def wait_sent(self, number):
        """Every flow has tried that many more frames."""
        marks = {s: s.sent + number for s in self.flows.values()}
        wait_until(lambda: all(s.sent >= mark for s, mark in marks.items()),
                   f"{number} more frames are sent", 30)

    def stalled(self, marks):
        return [s.name for s in (*self.flows.values(), *self.large.values(), self.ping)
                if s.first(marks[s]) is None]

    def marks(self):
        return {s: s.sent for s in self.traffic.streams}

    def settle(self, timeout=10):
        """Everything flows: bare pings, and frames both ways in each tunnel."""
        marks = self.marks()
        try:
            wait_until(lambda: not self.stalled(marks), "", timeout)
        except AssertionError:
            raise AssertionError(f"{self.vpn.name} does not carry {self.stalled(marks)}\n"
                                 f"{self.guarded.describe()}") from None

    def wait_leaking(self):
        """The control: the unguarded tunnels of each encapsulation are seen in clear."""
        def leaking():
            seen = self.judge.look()
            return all(seen["control", kind] >= ENOUGH for kind in self.encapsulations) and \
                (seen["control", "fragment"] or not self.fragments)
        wait_until(leaking, f"the unguarded tunnels leak: {self.judge.count}", 20, 0.02)

    def no_forgery(self, marks, when):
        """No forged frame was let in; unguarded tunnels let them in."""
        taken = {s.name: n for s in self.forged.values()
                 if (n := s.came(marks[s]))}
        assert not taken, f"{when}: forged frames were accepted: {taken}\n" \
            f"{self.guarded.describe()}"

        def control():
            return all(any(s.came(marks[s]) for (name, _), s in self.forged_plain.items()
                           if name == kind) for kind in self.encapsulations)
        wait_until(control, "forged frames reach the unguarded tunnels")

    def fou_ports(self):
        """Those of the guarded tunnels: words for `ip fou`."""
        return [line.split() for line in self.near.ip("fou", "show", check=False).stdout
                .splitlines() if f"port {FOU[0]} " in line]

    def one_fou_port(self):
        """None stays open on a device that is gone."""
        if "gretap-fou" in self.encapsulations:
            wait_until(lambda: len(self.fou_ports()) == 1, f"one FOU port: {self.fou_ports()}")

    # The matrix

    def run(self, event):
        """One thing happens, is judged, and is mended."""
        leaks = self.vpn.events.get(event, True)
        if event in self.vpn.events:
            happening = self.vpn.event(event)
        else:
            happening = getattr(self, event.replace(" ", "_"))()
        self.settle()
        self.broken = True
        self.floor = 0
        before, marks = self.guarded.ports(), self.marks()
        self.judge.clear()
        next(happening)
        if event == "rules flushed":
            # Inbound there is no second layer: until nftables' is back, forgeries get in.
            wait_until(lambda: "drop" in self.near.exec("nft", "list", "ruleset").stdout,
                       "the guard is back", REARMED)
            marks = self.marks()
        if leaks:
            self.wait_leaking()
        self.wait_sent(15)
        mended = self.marks()
        next(happening, None)
        slowest = self.returned(mended, event)
        self.wait_sent(5)
        try:
            self.judge.acquit(event)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.guarded.describe()}") from None
        self.no_forgery(marks, event)
        assert self.guarded.ports() == before, "the bridge ports are others"
        self.one_fou_port()
        self.broken = False
        print(f"{self.vpn.name}, {event}: {dict(self.judge.count)} in clear; back in {slowest:.2f}"
              " s")
        return slowest

    def returned(self, marks, event):
        """Frames cross soon after bare pings do. The longest that it took, s."""
        wait_until(lambda: self.ping.first(marks[self.ping]), f"{self.vpn.name} is back", 40)
        base = max(self.ping.first(marks[self.ping]), self.floor)
        flows = [*self.flows.values(), *self.large.values()]
        wait_until(lambda: time.monotonic() > base + RETURN + 8 or
                   not [s for s in flows if s.first(marks[s]) is None], "", 40)
        # What was sent in time counts, not when a slow machine saw it arrive.
        late = {s.name: at - base for s in flows if (at := s.last_lost(marks[s])) > base + RETURN}
        assert not late, f"{event}: frames sent so many s after the VPN was back were lost: " \
            f"{late}\n{self.guarded.describe()}"
        return max(0, *(s.first(marks[s]) - base for s in flows))

    # What happens to the daemon

    def outage(self):
        """One that every VPN of this kind knows."""
        return self.vpn.event("stopped" if self.vpn.events.get("stopped") else "link down")

    def daemon_killed_before(self):
        """Nobody reacts to the outage, nor to its end."""
        self.daemon.kill()
        happening = self.outage()
        next(happening)
        yield
        next(happening, None)
        wait_until(self.vpn.answers, "the VPN is back", 40)
        self.daemon.start()
        self.floor = time.monotonic()

    def daemon_killed_during(self):
        """The next daemon starts while there is no VPN."""
        happening = self.outage()
        next(happening)
        self.wait_leaking()
        self.daemon.kill()
        self.judge.acquit("before the daemon was killed")
        yield
        self.daemon.start()
        next(happening, None)
        self.floor = time.monotonic()

    def removed(self):
        """The VPN stops taking what goes to the far site, and the near one's tunnels are removed.
        What the far one still sends comes by the VPN and is answered with errors that quote it:
        those of others' packets are seen outside, those of the tunnels' are not as long as their
        part of the fence stands."""
        vpn, client = self.vpn, self.guarded.client()
        self.broken = True
        errors = self.lab.capture(vpn.topology.router, "near")
        with vpn.topology.far.entered():
            other = self.lab.keep(socket.socket(
                socket.AF_INET6 if ":" in vpn.other else socket.AF_INET, socket.SOCK_DGRAM))
        other.bind((vpn.other, 0))
        happening = vpn.specific_route()
        next(happening)

        def quoted():
            other.sendto(PLAIN, (vpn.near, CLOSED))
            return sum(PLAIN in e for e in errors.take()) >= FEW
        wait_until(quoted, "the errors of others leak")
        for kind in self.encapsulations:
            client.on(LETTER[kind], "Remove")
        wait_until(lambda: not any(self.near.link(f"ec-{LETTER[k]}") for k in self.encapsulations),
                   "the interfaces are gone")
        errors.clear()
        marks = {s: s.sent for (site, _), s in self.flows.items() if site == "far"}
        wait_until(lambda: quoted() and all(s.sent >= mark + FEW for s, mark in marks.items()),
                   "frames come", interval=0.02)
        found = self.judge.guarded()
        assert self.near.exec("nft", "list", "ruleset").stdout, "too slow: the fence is gone"
        assert not found, f"in clear: {found}"
        next(happening, None)


DAEMON_EVENTS = ("daemon killed before", "daemon killed during")


class Sessions:
    """One at a time: that of the VPN asked for; a new one after a failure."""

    def __init__(self):
        self.session, self.key = None, None

    def of(self, vpn_class, **more):
        key = vpn_class, tuple(sorted(more.items()))
        if self.key != key or self.session.broken:
            self.close()
            self.session = Session(vpn_class, **more)
            self.key = key
        return self.session

    def close(self):
        session, self.session, self.key = self.session, None, None
        if session:
            session.close()


def case_id(value):
    return value.name if isinstance(value, type) else value.replace(" ", "-")
