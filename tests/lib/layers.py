# SPDX-License-Identifier: GPL-2.0-or-later
"""The guard's layers one by one, and rekeying. The daemon sleeps meanwhile: what holds is what it
left in the kernel."""

import json
import re
import signal

from ethercord import wait_until
from leaks import DAEMON_EVENTS, ENOUGH, ID, LETTER, gretap
from traffic import FOU

SLACK = 0.25        # s between a frame and a ping that the same gap may have swallowed
TABLE = ("table", "inet", "ethercord")


def nft_table(namespace):
    """The guard's table as nft(8) would take it again, or ""."""
    return namespace.exec("nft", "list", *TABLE, check=False).stdout


def nft_dropped(namespace):
    """Packets that the guard's rules and sets have counted."""
    return sum(int(n) for n in re.findall(r"counter packets (\d+)", nft_table(namespace)))


def rules(namespace):
    """Those of the guard: (family, words for ip rule)."""
    result = []
    for family in ("-4", "-6"):
        for line in namespace.ip(family, "rule", "show").stdout.splitlines():
            priority, words = line.split(":", 1)
            if priority == "100":
                result.append((family, words.split()))
    return result


def blocks(namespace):
    """XFRM policies of the guard: (selector, direction, index). They have a selector of their own,
    by which ip(8) cannot name them."""
    return re.findall(r"^(src .*)\n\s+dir (\w+) action block index (\d+) priority 2147483647",
                      namespace.ip("-s", "xfrm", "policy").stdout, re.MULTILINE)


def held(namespace):
    """All of the second layer, without what changes when it is made again."""
    return (sorted(map(str, rules(namespace))), sorted(block[:2] for block in blocks(namespace)),
            *(namespace.ip(v, "route", "show", "table", 60260, check=False).stdout
              for v in ("-4", "-6")))


def remove_second_layer(namespace):
    """How many rules and policies that took. A daemon that is awake puts them back meanwhile."""
    taken = 0
    for family, words in rules(namespace):
        taken += namespace.ip(family, "rule", "del", "priority", 100, *words,
                              check=False).returncode == 0
    for _, direction, index in blocks(namespace):
        taken += namespace.ip("xfrm", "policy", "delete", "index", index, "dir", direction,
                              check=False).returncode == 0
    return taken


class Asleep:
    """A session's near daemon is stopped; its tunnels go on by themselves while the way to the peer
    is in clear."""

    def __init__(self, session):
        self.session, self.near = session, session.near
        session.settle()
        session.broken = True   # left as it is: the next test gets a new session
        vpn = session.vpn
        session.daemon.process.send_signal(signal.SIGSTOP)
        # A restarting VPN would end an outage of its own device.
        self.outage = vpn.event("specific route" if vpn.device else "stopped")
        session.judge.clear()
        next(self.outage)

    def attempts(self):
        """What each tunnel's interface tried to send."""
        shown = json.loads(self.near.ip("-s", "-j", "link", "show").stdout)
        tx = {link["ifname"]: link["stats64"]["tx"] for link in shown if link}
        return {kind: sum(tx[f"ec-{LETTER[kind]}"][n] for n in ("packets", "errors", "dropped"))
                for kind in self.session.encapsulations}

    def judged(self, what):
        """Frames are tried and none is in clear. The marks of the time before."""
        session = self.session
        marks, tried = session.marks(), self.attempts()
        session.judge.clear()
        session.wait_leaking()
        wait_until(lambda: all(n >= tried[kind] + ENOUGH for kind, n in self.attempts().items()),
                   f"each tunnel tries to send, {what}")
        session.judge.acquit(what)
        return marks

    def unbind(self):
        """The tunnels as somebody careless would have made them."""
        if "gretap-fou" in self.session.encapsulations:
            version = "-6" if ":" in self.session.vpn.near else "-4"
            for words in self.session.fou_ports():
                self.near.ip(version, "fou", "del", *(w for w in words if w != "-6"))
            self.near.ip(version, "fou", "add", "port", FOU[0], "ipproto", 47)
        for kind in self.session.encapsulations:
            name = f"ec-{LETTER[kind]}"
            if kind == "vxlan":
                continue    # is bound to no device
            # What it was bound to cannot be taken off.
            self.near.ip("link", "del", name)
            self.near.ip("link", "add", name, "type", *gretap(
                kind, self.session.vpn.far, ID[kind], FOU[0], "local", self.session.vpn.near))
            self.near.ip("link", "set", name, "master", f"br-{LETTER[kind]}", "up")

    def leaking(self):
        """Each of the tunnels that were guarded."""
        seen = self.session.judge.look()
        return all(seen["near", kind] >= ENOUGH for kind in self.session.encapsulations)

    def letting_in(self, marks):
        """The forged packets that plainly are of the tunnels', addressed to the bare network."""
        for kind in self.session.encapsulations:
            streams = [s for (name, _), s in self.session.forged.items() if name == kind]
            if not any(s.came(marks[s]) for s in streams):
                return False
        return True


def each_layer_holds_alone(session):
    """Both, one, the other; and without both the very same tunnels leak."""
    asleep, near = Asleep(session), session.near
    marks = asleep.judged("with both layers")
    session.no_forgery(marks, "with both layers, during the outage")
    table = nft_table(near)
    assert "drop" in table, table
    near.exec("nft", "delete", *TABLE)
    asleep.judged(f"with the {session.vpn.layer} layer alone")
    near.exec("nft", "-f", "-", input=table)
    assert remove_second_layer(near), "there was a second layer to remove"
    assert not rules(near) and not blocks(near), f"{rules(near)} {blocks(near)}"
    dropped = nft_dropped(near)
    marks = asleep.judged("with nftables alone")
    session.no_forgery(marks, "with nftables alone, during the outage")
    counted = nft_dropped(near) - dropped
    assert counted >= ENOUGH, f"nftables counted only {counted}\n{nft_table(near)}"
    near.exec("nft", "delete", *TABLE)
    asleep.unbind()
    marks = session.marks()
    wait_until(asleep.leaking, "without a guard each of them leaks", 20, 0.02)
    wait_until(lambda: asleep.letting_in(marks), "without a guard forged frames are accepted", 20,
               0.02)


def rekeyed(session, rekey):
    """No frame is lost in a rekeying that let all bare pings through."""
    session.settle()
    session.broken = True
    session.wait_sent(10)
    begin = session.marks()
    rekey()
    session.wait_sent(20)
    end = session.marks()
    flows = list(session.flows.values())
    # Whatever was sent before `end` has arrived once something sent later has.
    wait_until(lambda: all(s.first(end[s]) for s in (*flows, session.ping)), "frames cross", 20)
    ping = session.ping
    gaps = [ping.sent_at[n] for n in ping.lost(begin[ping], end[ping])]
    for flow in flows:
        assert end[flow] - begin[flow] >= 20
        lost = [flow.sent_at[n] for n in flow.lost(begin[flow], end[flow])]
        ours = [t for t in lost if not any(abs(t - gap) <= SLACK for gap in gaps)]
        assert not ours, f"{flow.name} lost {len(ours)} of {end[flow] - begin[flow]} frames while " \
            f"pings crossed ({len(gaps)} of {end[ping] - begin[ping]} were lost)"
    session.judge.acquit("while rekeying")
    session.broken = False


def guard_comes_back(session):
    """What somebody takes away of the guard is there again soon, and nothing slips out."""
    near = session.near
    session.settle()
    session.broken = True
    session.judge.clear()
    before = session.guarded.ports()
    whole = held(near)
    assert nft_table(near) and (whole[0] or whole[1]), "there is a guard"
    for what, deed in (
            ("the ruleset", lambda: near.exec("nft", "flush", "ruleset")),
            ("the table", lambda: near.exec("nft", "delete", *TABLE)),
            ("the chains", lambda: near.exec("nft", "flush", *TABLE)),
            ("the second layer", lambda: remove_second_layer(near)),
            ("the private routes", lambda: [near.ip(v, "route", "flush", "table", 60260,
                                                    check=False) for v in ("-4", "-6")])):
        done = deed()
        assert done, f"{what}: there was nothing to take away"
        wait_until(lambda: "drop" in nft_table(near) and held(near) == whole, f"{what} is back", 3)
    session.settle()
    session.judge.acquit("while the guard was taken away piece by piece")
    assert session.guarded.ports() == before
    session.broken = False


def wait_handshake(vpn, before):
    """WireGuard's timer has made a new one."""
    wait_until(lambda: vpn.handshake() > before, "WireGuard rekeys", 150, 0.5)


def wait_renegotiated(vpn, times=2):
    """OpenVPN's timer has made new keys, that many times."""
    def count():
        return vpn.output("near").count("Control Channel:")
    before = count()
    wait_until(lambda: count() >= before + times, "OpenVPN renegotiates",
               60, 0.05)


def renegotiate(seconds):
    """Options: so often, and no restart meanwhile, however slow the machine."""
    return ("--reneg-sec", str(seconds), "--keepalive", "2", "30")


# The last one leaves its session without a guard.
DEEDS = {"guard taken away": guard_comes_back, "each layer alone": each_layer_holds_alone}


def cases(*vpn_classes):
    """(VPN, event) of the matrix, one VPN after another: each has a session."""
    return [(v, event) for v in vpn_classes
            for event in (*v.events, *DAEMON_EVENTS, *(f"rekeying {what}" for what in v.rekeyings),
                          *DEEDS)]


def check(session, event):
    if event.startswith("rekeying "):
        rekeyed(session, lambda: session.vpn.rekey(event.split()[1]))
    elif event in DEEDS:
        DEEDS[event](session)
    else:
        session.run(event)
