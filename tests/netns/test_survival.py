# SPDX-License-Identifier: GPL-2.0-or-later
"""What a cord survives: the death, restart and standstill of either daemon; and how it tells that
the peer is gone, from the peer's daemon being gone."""

import signal
import time

import pytest

from control import HOST, Follow, Links, World, carries, gap, timed
from ethercord import ping, stays, wait_until

FAST = {"keepalive_interval": 100, "keepalive_timeout": 1000}
DEAD = 8    # s without a daemon; more than the keepalive-timeout
SLACK = 1.5  # s, of a machine with other things to do; less than what the defaults would take


@pytest.fixture
def world(lab):
    return World(lab)


@pytest.fixture
def cord(world):
    """The world with a cord, and the host at the office."""
    world.lan = world.up()
    return world


@pytest.fixture
def fast(world):
    world.lan = world.up(listening=FAST, **FAST)
    return world


def ends(world):
    """site, name of the tunnel there, its interface."""
    return [(site, name, site.ifname(name))
            for site, name in ((world.laptop, "office"), (world.office, "lan.office"))]


class Untouched:
    """The links of a cord, which nobody is to touch."""

    def __init__(self, world):
        self.world, self.indexes = world, world.indexes()
        self.links = [(world.lab.keep(Links(site.ns)), site.ns.ifindex(ifname), site)
                      for site, _, ifname in ends(world)]
        self.before = [site.ns.links() for _, _, site in self.links]

    def check(self):
        assert self.world.indexes() == self.indexes
        for (links, index, site), before in zip(self.links, self.before):
            assert not links.of(index), f"{site.label}: the kernel tells of changes"
            assert site.ns.links() == before

    def control(self):
        """The links are watched indeed."""
        for links, index, site in self.links:
            name = next(n for n, link in site.ns.links().items() if link["ifindex"] == index)
            site.ns.ip("link", "set", name, "txqueuelen", "999")
            wait_until(lambda i=index, w=links: w.of(i), "a change is seen")


def attached(world):
    """The two talk: taken down here, it goes there, at once."""
    links = world.lab.keep(Links(world.office.ns))
    name = world.office.ifname("lan.office")
    begun = world.laptop.down("office")
    assert links.deleted(name, begun) - begun <= 1
    world.office.wait("lan.office", None)


@pytest.mark.parametrize("end", ["laptop", "office"])
def test_killed(cord, end):
    """Not a frame is lost, not a link is touched; the new daemon takes the same cord up again."""
    site, name = (cord.laptop, "office") if end == "laptop" else (cord.office, "lan.office")
    untouched = Untouched(cord)
    survivor, other = ((cord.office, "lan.office") if end == "laptop" else (cord.laptop, "office"))
    follow = Follow(cord.lab, survivor)
    flows = cord.flows(cord.lan)
    site.daemon.kill()
    end_of_it = time.monotonic() + DEAD
    stays(lambda: survivor.client.state(other) == "up", DEAD, "the other end stays up", 0.1)
    assert time.monotonic() >= end_of_it
    site.daemon.start()
    site.wait(name, "up")
    follow.wait(other, "control-back", 35)
    assert "=degraded" not in follow.words(other)
    marks = [f.sent + 200 for f in flows]
    assert [gap(f) for f, m in zip(flows, marks) if f.wait_sent(m) is None] == [(0, 0), (0, 0)]
    untouched.check()
    assert cord.office.listener()["Peers"] != []
    wait_until(lambda: cord.laptop.statistics("office")["reconnects"] >= (end == "office"), "")
    attached(cord)


@pytest.mark.parametrize("end", ["laptop", "office"])
def test_restarted(cord, end):
    """In order, as for an upgrade: the same."""
    site, name = (cord.laptop, "office") if end == "laptop" else (cord.office, "lan.office")
    untouched = Untouched(cord)
    follow = Follow(cord.lab, cord.laptop)
    flows = cord.flows(cord.lan)
    for _ in range(3):
        follow.clear()
        site.daemon.restart()
        site.wait(name, "up", 20)
        cord.both_up()
        follow.wait("office", "control-back", 35)
    assert [gap(f) for f in flows] == [(0, 0), (0, 0)]
    untouched.check()
    untouched.control()
    attached(cord)


def test_both_killed(cord):
    untouched = Untouched(cord)
    follow = Follow(cord.lab, cord.laptop)
    flows = cord.flows(cord.lan)
    cord.laptop.daemon.kill()
    cord.office.daemon.kill()
    flows[0].wait_sent(flows[0].sent + 400)
    cord.laptop.daemon.start()
    cord.office.daemon.start()
    cord.both_up(timeout=40)
    assert [gap(f) for f in flows] == [(0, 0), (0, 0)]
    untouched.check()
    follow.wait("office", "control-back", 35)
    attached(cord)


def reattached(world, follow):
    """There is a connection, and the laptop knows of it: it lost none, or was greeted again."""
    words = [w for w in follow.words("office") if w in ("control-lost", "control-back")]
    shown = world.office.ns.exec("ss", "-Htn", "state", "established", "sport", "=", ":65200")
    return bool(shown.stdout.strip()) and words[-1:] != ["control-lost"]


def test_killed_and_unreachable(fast):
    """Nobody is taken for alive for ever because only its daemon seems to be dead."""
    fast.office.daemon.kill()
    stays(lambda: fast.laptop.client.state("office") == "up", 2, "up", 0.05)
    fast.internet.cut(1, 2)
    # A machine that refused connections a moment ago gets some time for its daemon.
    fast.laptop.wait("office", "degraded", 30)
    assert fast.laptop.ns.link("ec-office")["operstate"] != "UP"
    fast.internet.cut()
    fast.office.daemon.start()
    fast.both_up(timeout=40)


@pytest.mark.parametrize("end", ["laptop", "office"])
def test_gone_while_dead(cord, end):
    """A cord that was taken down while the other daemon was dead does not stay there half."""
    dead, alive, other = (cord.laptop, cord.office, "lan.office") if end == "laptop" else \
        (cord.office, cord.laptop, "office")
    dead.daemon.kill()
    alive.down(other)
    dead.daemon.start()
    if end == "office":
        # Nobody comes for it any more. (It may yet come: the cord is kept, without carrier.)
        name = cord.office.ifname("lan.office")
        wait_until(lambda: cord.office.get("lan.office") is None or
                   (cord.office.ns.link(name) or {}).get("operstate") != "UP", "the peer is gone",
                   70, 0.1)
    else:
        # Who took it down there means it: the laptop is told so, until it is wanted there again.
        wait_until(lambda: cord.laptop.get("office")["StateReason"][0] == "Refused", "it is said",
                   20)
        assert cord.laptop.get("office")["State"] == "failed"
        assert "taken down" in cord.laptop.get("office")["StateReason"][1]
        assert not cord.office.interfaces()
        cord.office.client.on("lan.office", "Activate")
        cord.laptop.client.on("office", "Activate")
        cord.both_up(timeout=40)
        assert ping(cord.laptop.ns, HOST, size=1472)


@pytest.mark.parametrize("end", ["laptop", "office"])
def test_stopped(cord, end):
    """A daemon that stands still for longer than anybody waits: then all is as before."""
    indexes = cord.indexes()
    site = cord.laptop if end == "laptop" else cord.office
    follow = Follow(cord.lab, cord.laptop)
    flows = cord.flows(cord.lan)
    # The shell of `ip netns exec` became the daemon: its number is the daemon's.
    site.daemon.process.send_signal(signal.SIGSTOP)
    other, name = (cord.office, "lan.office") if end == "laptop" else (cord.laptop, "office")
    stays(lambda: other.get(name), 15, "the peer's tunnel is kept", 0.1)
    site.daemon.process.send_signal(signal.SIGCONT)
    cord.both_up(timeout=40)
    for flow in flows:
        carries(flow)
    assert cord.indexes() == indexes
    wait_until(lambda: reattached(cord, follow), "they talk", 35)
    attached(cord)


# The peer is gone

def port(site, name):
    """State of the tunnel's port in its bridge."""
    return site.ns.link(name)["linkinfo"]["info_slave_data"]["state"]


def test_path_is_cut(fast):
    """Both ends notice within the keepalive-timeout: degraded, without carrier, but kept. Then they
    notice again, within an interval."""
    indexes = fast.indexes()
    watch = [(fast.lab.keep(Links(site.ns)), site.ns.ifindex(ifname), site, name, ifname)
             for site, name, ifname in ends(fast)]
    follows = [Follow(fast.lab, site) for _, _, site, *_ in watch]
    assert port(fast.office, watch[1][4]) == "forwarding"
    for _ in range(3):
        cut = timed(lambda: fast.internet.cut(1, 2))
        for links, index, site, name, ifname in watch:
            took = links.carrier(index, False, cut) - cut
            # The last answer came up to an interval before the cut.
            assert 0.9 - 0.1 - 0.05 <= took <= 1.1 + SLACK, f"{site.label}: after {took:.3f} s"
            got = site.wait(name, "degraded")
            assert got["StateReason"][0] and got["StateReason"][1]
            assert site.ns.link(ifname)["operstate"] in ("DOWN", "DORMANT", "LOWERLAYERDOWN")
        wait_until(lambda: port(fast.office, watch[1][4]) == "disabled", "the port is disabled")
        for site, name, _ in ends(fast):
            assert site.get(name)["State"] == "degraded"
        back = timed(fast.internet.cut)
        for links, index, site, name, ifname in watch:
            took = links.carrier(index, True, back) - back
            assert took <= 0.1 + SLACK, f"{site.label}: back after {took:.3f} s"
            site.wait(name, "up")
        assert fast.indexes() == indexes
        wait_until(lambda: ping(fast.laptop.ns, HOST, timeout=1, check=False), "it carries")
    for follow, (_, _, _, name, _) in zip(follows, watch):
        words = follow.words(name)
        assert words.count("peer-lost") == words.count("peer-found") == 3, words


@pytest.mark.parametrize("way", [1, 2])
def test_cut_one_way(fast, way):
    """Neither end believes that it works: one hears nothing, the other one is not answered."""
    begun = timed(lambda: fast.internet.filter(f'iifname "n{way}" ip protocol udp drop'))
    for site, name, ifname in ends(fast):
        site.wait(name, "degraded", 3)
        assert site.ns.link(ifname)["operstate"] != "UP"
    assert time.monotonic() - begun < 3
    stays(lambda: [s.client.state(n) for s, n, _ in ends(fast)] == ["degraded"] * 2, 2, "degraded",
          0.05)
    fast.internet.filter()
    fast.both_up()
    assert ping(fast.laptop.ns, HOST, size=1472)


def test_degraded_is_kept(fast):
    """However long; and what was sent meanwhile went nowhere."""
    indexes = fast.indexes()
    fast.internet.cut(1, 2)
    for site, name, _ in ends(fast):
        site.wait(name, "degraded")
    wire = fast.internet.wire(1, outgoing=False)
    stays(lambda: fast.indexes() == indexes, 10, "kept", 0.2)
    assert [s.client.state(n) for s, n, _ in ends(fast)] == ["degraded"] * 2
    data = [d for d in wire.take() if d.dport == 4789 and d.payload[8:14] != b"\1\x80\xc2\0\0\x0e"]
    assert not data, "only probes are sent"
    fast.internet.cut()
    fast.both_up()


def test_losses_are_no_loss(fast):
    """A quarter of all packets lost is a bad path, not none."""
    follow = Follow(fast.lab, fast.laptop)
    fast.internet.filter("ip protocol udp numgen random mod 4 0 drop")
    before = fast.laptop.statistics("office")["probes-lost"]
    wait_until(lambda: fast.laptop.statistics("office")["probes-lost"] >= before + 20, "", 30)
    fast.internet.filter()
    assert "=degraded" not in follow.words("office")


def test_only_control_is_cut(fast):
    """TCP dies, the cord does not: it carries on, and the ends find each other again."""
    flows = fast.flows(fast.lan)
    follow = Follow(fast.lab, fast.laptop)
    untouched = Untouched(fast)
    fast.internet.filter("tcp dport 65200 reject with tcp reset",
                         "tcp sport 65200 reject with tcp reset")
    # A reset needs something to answer to; silence is told by keepalives.
    stays(lambda: fast.laptop.client.state("office") == "up", 5, "up", 0.05)
    fast.internet.filter()
    fast.both_up()
    wait_until(lambda: reattached(fast, follow), "they talk", 35)
    assert [gap(f) for f in flows] == [(0, 0), (0, 0)]
    assert "=degraded" not in follow.words("office")
    untouched.check()
    attached(fast)
