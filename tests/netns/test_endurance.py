# SPDX-License-Identifier: GPL-2.0-or-later
"""Cords that are asked for again and again, at bad moments, and under load."""

import os
import pathlib
import select
import threading
import time

import pytest

import ethercord
from control import FRAME, Follow, Links, World, carries, full_frames, gap
from ethercord import frame_socket, stays, wait_until
from killer import Killer

FAST = {"keepalive_interval": 100, "keepalive_timeout": 1000}
MOST = 80   # calls of a kind that making a cord may take


@pytest.fixture
def world(lab):
    return World(lab)


def one(world):
    """One interface at each end, with one id, and it works."""
    world.both_up(timeout=40)
    wait_until(lambda: list(world.laptop.interfaces()) == ["office"] and
               list(world.office.interfaces()) == ["lan.office"], "one interface at each end", 20)
    ids = {site.ns.link(name)["linkinfo"]["info_data"]["id"] for site in (
        world.laptop, world.office) for name in site.interfaces().values()}
    assert len(ids) == 1
    full_frames(world, world.lan)


def none(world):
    wait_until(lambda: not world.laptop.interfaces() and not world.office.interfaces() and
               "lan.office" not in world.office.client.tunnels(), "nothing at either end")


def cost(site):
    """(descriptors, KiB) of the daemon."""
    proc = pathlib.Path(f"/proc/{site.daemon.pid}")
    resident = next(int(line.split()[1]) for line in (proc / "status").read_text().splitlines()
                    if line.startswith("VmRSS:"))
    return len(os.listdir(proc / "fd")), resident


def test_again_and_again(world):
    """Up and down without end costs nothing that stays."""
    world.lan = world.up()
    costs = []
    for number in range(121):
        world.laptop.down("office")
        world.office.wait("lan.office", None)
        if number in (20, 120):
            # The connection of a cord that is gone is closed a moment later.
            wait_until(lambda: not costs or all(cost(site)[0] <= before[0] for site, before in zip(
                (world.laptop, world.office), costs[0])), "no descriptor leaks")
            costs.append([cost(site) for site in (world.laptop, world.office)])
        world.laptop.client.on("office", "Activate")
        world.both_up()
    one(world)
    for before, after in zip(*costs):
        assert ethercord.sanitized() or after[1] - before[1] <= 300, f"{before} to {after} KiB"


class Passing:
    """Packets that pass the router, from and to the laptop."""

    def __init__(self, world):
        self.world, self.socket = world, frame_socket(world.internet.router, "n1", 3)

    def next(self, seconds):
        """Takes one, if there is one in time."""
        return select.select([self.socket], [], [], seconds)[0] and self.socket.recv(1)

    def forget(self):
        """What has passed up to now."""
        while self.next(0):
            pass

    def wait(self, number):
        """Whether so many pass before the cord is up and nobody says more."""
        end = time.monotonic() + 40
        while number > 0:
            if self.next(0.02):
                number -= 1
            elif through(self.world):
                return False
            assert time.monotonic() < end, f"not up, and {number} packets too few"
        return True

    def close(self):
        self.socket.close()


def test_changes_of_mind(world):
    """Taken down in the midst of it, after every packet: nothing is left, and it still works."""
    world.lan = world.up()
    passing = world.lab.keep(Passing(world))
    amidst = 0
    for number in range(40):
        world.laptop.down("office")
        passing.forget()
        world.laptop.client.on("office", "Activate")
        amidst += passing.wait(number)
    assert amidst > 10, "most were through before they were taken down"
    world.laptop.down("office")
    none(world)
    world.laptop.client.on("office", "Activate")
    one(world)


def test_link_flaps(world):
    """The laptop's network goes and comes at every stage of finding out that it did."""
    world.lan = world.up(**FAST)
    indexes = world.indexes()
    passing = world.lab.keep(Passing(world))
    for turn in range(30):
        world.laptop.ns.ip("link", "set", "net0", "down")
        if turn % 2:
            world.laptop.wait("office", "waiting")
        passing.forget()
        world.laptop.ns.ip("link", "set", "net0", "up")
        world.internet.default(world.laptop.ns, 1)
        if turn % 3 == 1:
            passing.wait(turn % 10)
        elif turn % 3 == 2:
            world.both_up()
    world.both_up(timeout=40)
    carries(world.flows(world.lan)[0])
    assert world.indexes() == indexes
    one(world)


def wait_talking(follow):
    """The laptop was greeted and has lost nothing since: what it says now is heard."""
    wait_until(lambda: [w for w in follow.words("office") if w in ("welcomed", "control-lost")]
               [-1:] == ["welcomed"], "the ends talk", 40)


def through(world):
    try:
        return world.laptop.client.state("office") == \
            world.office.client.state("lan.office") == "up"
    except ethercord.dbus.DBusException:
        return False


@pytest.mark.parametrize("syscall", ["sendmsg,sendto,write,writev", "read,recvmsg,recvfrom"])
@pytest.mark.parametrize("end", ["laptop", "office"])
def test_killed_while_connecting(world, end, syscall):
    """At every step, as far as steps are seen from outside: the next daemon ends with one cord."""
    world.lan = world.up()
    site = world.laptop if end == "laptop" else world.office
    follow = Follow(world.lab, world.laptop)
    killed = 0
    for number in [*range(1, 12), *range(12, MOST, 5)]:
        world.laptop.down("office")
        world.office.wait("lan.office", None, 40)
        killer = Killer(world.lab, site.daemon, syscall, number)
        try:
            world.laptop.client.on("office", "Activate")
        except ethercord.dbus.DBusException as e:
            assert end == "laptop" and "NoReply" in e.get_dbus_name() or \
                "ServiceUnknown" in e.get_dbus_name(), e
        wait_until(lambda s=site: s.daemon.process.poll() is not None or through(world),
                   "it is killed or through", 20)
        if not killer.end():
            break
        killed += 1
        wait_until(lambda: not site.daemon.bus.has(), "the bus sees the daemon gone")
        follow.clear()
        site.daemon.start()
        if world.laptop.client.state("office") == "down":
            world.laptop.client.on("office", "Activate")
        one(world)
        # So that the next round's end is told.
        wait_talking(follow)
    assert killed > 5


def blast(stop, namespace, interface, size):
    """Frames as fast as one can."""
    with frame_socket(namespace, interface, FRAME) as s:
        frame = b"\xff" * 6 + b"\x02\x00\x5e\x10\x00\x41\x88\xb6" + bytes(size)
        while not stop.is_set():
            try:
                for _ in range(200):
                    s.send(frame)
            except OSError:
                pass


def test_busy_is_not_dead(world):
    """Load both ways: neither end takes the other one for lost."""
    world.lan = world.up(**FAST)
    follow = [Follow(world.lab, site) for site in (world.laptop, world.office)]
    links = world.lab.keep(Links(world.laptop.ns))
    index, stop = world.laptop.ns.ifindex("ec-office"), threading.Event()
    threads = [threading.Thread(target=blast, args=(stop, *ends, 1400)) for ends in (
        (world.laptop.ns, "ec-office"), (world.lan, "eth0"))]
    before = world.laptop.statistics("office")
    for thread in threads:
        thread.start()
    try:
        stays(lambda: world.laptop.client.state("office") == "up", 6, "up", 0.1)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    after = world.laptop.statistics("office")
    assert after["tx-packets"] - before["tx-packets"] > 20_000, "there was load"
    assert after["rx-packets"] - before["rx-packets"] > 20_000
    for f, name in zip(follow, ("office", "lan.office")):
        assert "peer-lost" not in f.words(name)
    assert not [s for s in links.of(index) if s[4] != Links.UP]


def test_silent_control(world):
    """The control connection dies in silence, longer than anybody waits; data does not."""
    world.lan = world.up(**FAST)
    indexes, flows = world.indexes(), world.flows(world.lan)
    follow = Follow(world.lab, world.laptop)
    world.internet.filter("tcp dport 65200 drop", "tcp sport 65200 drop")
    follow.wait("office", "control-lost", 45)
    stays(lambda: world.laptop.client.state("office") == "up", 15, "up", 0.1)
    world.internet.filter()
    follow.wait("office", "control-back", 40)
    assert [gap(f) for f in flows] == [(0, 0), (0, 0)]
    assert "=degraded" not in follow.words("office") and world.indexes() == indexes


def test_stopped_while_dialing(world):
    """Whatever a daemon is at, it ends in order, and the tunnel can be removed."""
    world.internet.filter("tcp dport 65200 drop")
    world.laptop.dial(underlay="any")
    world.laptop.daemon.restart()
    wait_until(lambda: world.laptop.client.state("office") == "connecting", "it dials again")
    world.laptop.client.on("office", "Remove")
    assert world.laptop.client.tunnels() == [] and not world.laptop.interfaces()
    world.internet.filter("ip protocol udp drop")
    world.host()
    world.office.listen()
    world.laptop.dial(underlay="any")
    wait_until(lambda: world.office.interfaces(), "it is tried")
    world.laptop.client.on("office", "Remove")
    world.office.wait("lan.office", None)
    wait_until(lambda: not world.laptop.interfaces() and not world.office.interfaces(),
               "no interface at either end")
    world.office.daemon.restart()
