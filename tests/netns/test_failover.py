# SPDX-License-Identifier: GPL-2.0-or-later
"""Several remotes, and coming back as soon as there is a way."""

import itertools
import time

import pytest

from control import HOST, Follow, World, carries, stamped, stamping, timed
from ethercord import bridge, frame_socket, ping, stays, wait_until, wire

FAST = {"keepalive_interval": 100, "keepalive_timeout": 1000}
FIRST, SECOND = "10.9.2.2", "10.9.4.2"
AT_ONCE = 1.5   # s; the goal of tests/bench/connect thrice, for machines that are busy


@pytest.fixture
def world(lab):
    return World(lab)


@pytest.fixture
def two(world):
    """Two gateways of one LAN; the laptop prefers the first."""
    world.spare = world.site("spare", 4)
    world.host()
    bridge(world.spare.ns)
    wire(world.office.ns, world.spare.ns, "patch", "patch", None, None)
    for site in (world.office, world.spare):
        site.ns.ip("link", "set", "patch", "master", "br0")
        site.listen(**FAST)
    return world


def dial(world, **more):
    world.laptop.dial(remote=[FIRST, SECOND], underlay="any", address="192.168.9.1/24",
                      **{**FAST, **more})


def at(world, remote, timeout=30):
    """The cord leads there, and nowhere else."""
    def there():
        got = world.laptop.get("office")
        return got["State"] == "up" and got["Remote"] == remote
    wait_until(there, f"up to {remote}", timeout)
    wait_until(lambda: ping(world.laptop.ns, HOST, timeout=1, check=False), "it carries")


def test_in_order(two):
    """The first that answers; at the other one nothing is made."""
    dial(two)
    at(two, FIRST)
    assert two.spare.client.tunnels() == [] and not two.spare.interfaces()


def test_first_is_dead(two):
    two.internet.cut(2)
    begun = time.monotonic()
    dial(two)
    at(two, SECOND)
    assert time.monotonic() - begun < 20, "it does not wait for ever for the first"


@pytest.mark.parametrize("how", ["refuses", "unreachable"])
def test_first_says_no(two, how):
    """An answer is no reason to wait."""
    if how == "refuses":
        two.office.on_listener("lan", "Deactivate")
    else:
        two.internet.router.ip("route", "add", "unreachable", f"{FIRST}/32")
    begun = time.monotonic()
    dial(two)
    at(two, SECOND)
    assert time.monotonic() - begun < 5, "as long as one that says nothing takes"


def test_over_and_back(two):
    """When the first one is lost, to the second; when it is there again, back; one interface."""
    dial(two)
    at(two, FIRST)
    index = two.laptop.ns.ifindex("ec-office")
    two.internet.cut(2)
    at(two, SECOND)
    assert two.laptop.ns.ifindex("ec-office") == index
    two.internet.cut()
    at(two, FIRST, 70)
    assert two.laptop.ns.ifindex("ec-office") == index
    wait_until(lambda: not two.spare.interfaces(), "the second one is left", 40)
    wait_until(lambda: len(two.office.interfaces()) == 1, "one at the first")


def test_over_when_the_first_goes(two):
    """Its daemon takes the listener down: at once."""
    dial(two)
    at(two, FIRST)
    begun = timed(lambda: two.office.on_listener("lan", "Deactivate"))
    at(two, SECOND)
    assert time.monotonic() - begun < 5


def test_two_ways_to_one_office(world):
    """The same listener at two addresses: the same tunnel there, too."""
    host = world.host()
    world.internet.join(world.office.ns, 4, "net1", default=False)
    # Each network's answers leave by it.
    world.office.ns.ip("rule", "add", "from", SECOND, "lookup", "4")
    world.office.ns.ip("route", "add", "default", "via", "10.9.4.1", "dev", "net1", "table", "4")
    world.office.listen(**FAST)
    dial(world)
    at(world, FIRST)
    indexes = world.indexes()
    flows = world.flows(host)
    world.internet.filter("ip daddr 10.9.2.2 drop", "ip saddr 10.9.2.2 drop")
    at(world, SECOND)
    world.office.wait("lan.office", "up")
    assert world.indexes() == indexes
    for flow in flows:
        carries(flow)
    world.internet.filter()
    at(world, FIRST, 70)
    assert world.indexes() == indexes


# At once

def crossing(world, begun, limit):
    """A frame crosses so soon."""
    with_host = world.lab.capture(world.lan, "eth0", 0x88B6)
    sender = frame_socket(world.laptop.ns, "ec-office", 0x88B6)

    def arrived():
        try:
            sender.send(b"\xff" * 6 + b"\x02\x00\x5e\x10\x00\x09\x88\xb6" + bytes(50))
        except OSError:
            pass
        return with_host.take()
    wait_until(arrived, "a frame crosses", 10, 0.002)
    took = time.monotonic() - begun
    sender.close()
    assert took <= limit, f"after {took:.3f} s"


def test_back_at_once(world):
    """The route to the peer returns after so long that retries have become rare."""
    world.lan = world.up(**FAST)
    index = world.laptop.ns.ifindex("ec-office")
    for seconds in (0.5, 6):
        world.laptop.ns.ip("link", "set", "net0", "down")
        wait_until(lambda: world.laptop.client.state("office") == "waiting", "it waits")
        assert "office" in world.laptop.client.tunnels()
        stays(lambda: world.laptop.client.state("office") == "waiting", seconds, "waits", 0.05)

        def back():
            world.laptop.ns.ip("link", "set", "net0", "up")
            world.internet.default(world.laptop.ns, 1)
        begun = timed(back)
        crossing(world, begun, AT_ONCE)
        world.both_up()
        assert world.laptop.ns.ifindex("ec-office") == index


def test_first_time_at_once(world):
    """The same for a cord that never was: the VPN comes up after it was asked for."""
    world.lan = world.host()
    world.office.listen()
    world.laptop.ns.ip("link", "set", "net0", "down")
    world.laptop.dial(underlay="any", address="192.168.9.1/24")
    stays(lambda: world.laptop.client.state("office") == "waiting", 4, "waits", 0.05)

    def back():
        world.laptop.ns.ip("link", "set", "net0", "up")
        world.internet.default(world.laptop.ns, 1)
    begun = timed(back)
    world.laptop.wait("office", "up")
    assert time.monotonic() - begun <= AT_ONCE


def test_retries_are_spread(world):
    """Further and further apart, never in step, at most 30 s."""
    syns = stamping(world.lab.capture(world.internet.router, "n1").socket)
    follow = Follow(world.lab, world.laptop)
    world.laptop.dial(underlay="any")
    times = {}

    def attempts():
        for f, at, _ in stamped(syns):
            if f[12:14] == b"\x08\x00" and f[23] == 6 and f[47] == 2 and \
                    f[36:38] == (65200).to_bytes(2, "big"):
                times.setdefault(f[34:36], at)
        return len(times) >= 7
    wait_until(attempts, "seven attempts", 60)
    gaps = [b - a for a, b in itertools.pairwise(times.values())]
    assert 0.05 <= gaps[0] <= 0.5, gaps
    assert all(later > earlier * 1.2 for earlier, later in zip(gaps, gaps[2:])), gaps
    assert follow.words("office").count("dialling") >= 6
