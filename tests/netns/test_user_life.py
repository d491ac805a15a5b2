# SPDX-License-Identifier: GPL-2.0-or-later
"""Daemons and workers that die under load, and what is left of a tunnel in the user data plane."""

import contextlib
import os
import re
import shutil
import signal
import socket
import time

import dbus.lowlevel
import pytest

import ethercord
from control import Follow, gap
from ethercord import FAR, NEAR, Client, far_vxlan, ping, refused, stays, wait_until
from workers import (ETHERNET, KINDS, PORTS, IpFlow, Stock, arrived_since, nothing_left, sockets,
                     spec, worker_pid, worker_pids)

INTERVAL = 0.001    # s between frames
KILLED_LOSS = 20    # frames of 1 ms that a worker's death may cost: what it had in hand


class Pair:
    """A daemon at both ends. Bridged: with a host behind each; else with addresses."""

    def __init__(self, sites, kind, bridged):
        self.sites, self.kind, self.bridged = sites, kind, bridged
        self.lab, self.near, self.far = sites.lab, sites.near, sites.far
        self.daemon, self.client = sites.daemon, sites.client
        self.other = self.lab.daemon(self.far, "far")
        ends = ({"address": "192.168.9.1/24"}, {"address": "192.168.9.2/24"})
        if bridged:
            for ns in (self.near, self.far):
                ethercord.bridge(ns)
            self.hosts = (self.lab.host(self.near, "br0", "192.168.9.1/24", "ha"),
                          self.lab.host(self.far, "br0", "192.168.9.2/24", "hb"))
            ends = ({"mode": "join-networks", "bridge": "br0"},) * 2
        else:
            self.hosts = self.near, self.far
        self.other.bus.client.add("t1", remote=NEAR, **spec(kind, **ends[1]))
        self.client.add("t1", remote=FAR, **spec(kind, **ends[0]))
        for client in (self.client, self.other.bus.client):
            client.wait_state("t1", "up")
        wait_until(lambda: worker_pid(self.near) and worker_pid(self.far), "the workers run")
        # One that is at its beginning yet has more time to answer.
        assert ping(self.hosts[0], "192.168.9.2", timeout=10)

    def flows(self):
        """There and back."""
        if self.kind == "tun-udp":
            ends = ((self.near, "192.168.9.1", self.far, "192.168.9.2"),
                    (self.far, "192.168.9.2", self.near, "192.168.9.1"))
            made = [IpFlow(*e, INTERVAL) for e in ends]
            for flow in made:
                self.lab.stack.callback(flow.close)
        else:
            device = "eth0" if self.bridged else "ec-t1"
            a, b = ((h, device) for h in self.hosts)
            made = [self.lab.flow(*a, *b), self.lab.flow(*b, *a)]
        return [flow.start() for flow in made]

    def fixture(self):
        """What must stay."""
        link = self.near.link("ec-t1")
        return link["ifindex"], link.get("master"), link["address"] if "address" in link else None

    def new_worker(self, old):
        return wait_until(lambda: (pid := worker_pid(self.near)) != old and pid, "another worker")

    def kill_worker(self):
        pid = worker_pid(self.near)
        os.kill(pid, signal.SIGKILL)
        return self.new_worker(pid)


PAIRS = [(kind, False) for kind in KINDS] + [(kind, True) for kind in ETHERNET]


@pytest.fixture(params=PAIRS, ids=lambda p: f"{p[0]}-{'bridged' if p[1] else 'alone'}")
def pair(request, sites):
    return Pair(sites, *request.param)


def carried(flow, more=50):
    mark = flow.sent
    wait_until(lambda: arrived_since(flow, mark) >= more, "frames cross", 10)


def test_daemon_dies_under_load(pair):
    """Not one frame is lost, whoever carries them is the same, and the interface too."""
    before, pid = pair.fixture(), worker_pid(pair.near)
    flows = pair.flows()
    for _ in range(5):
        pair.daemon.kill()
        for flow in flows:
            carried(flow)
        pair.daemon.start()
        pair.client.wait_state("t1", "up")
        for flow in flows:
            carried(flow)
    assert (pair.fixture(), worker_pid(pair.near)) == (before, pid)
    assert worker_pids(pair.near) == [pid], "one worker"
    assert [flow.stop() for flow in flows] == [[], []]


def test_daemon_stops_and_starts_under_load(pair):
    """An orderly end, as with an upgrade, leaves the worker, too."""
    before, pid = pair.fixture(), worker_pid(pair.near)
    flows = pair.flows()
    for _ in range(2):
        pair.daemon.restart()
        pair.client = pair.daemon.bus.client
        pair.client.wait_state("t1", "up")
        for flow in flows:
            carried(flow)
    assert (pair.fixture(), worker_pid(pair.near)) == (before, pid)
    assert [flow.stop() for flow in flows] == [[], []]


def test_worker_dies_under_load(pair):
    before, pid = pair.fixture(), worker_pid(pair.near)
    follow = Follow(pair.lab, pair)
    flows = pair.flows()
    new = pair.kill_worker()
    for flow in flows:
        carried(flow)
    told = follow.wait("t1", "worker-ended")
    assert str(pid) in told["text"] and "signal 9" in told["text"], told
    assert re.search(rf"the worker of t1 \(process {pid}\) was killed by signal 9",
                     pair.daemon.text())
    got = pair.client.get("t1")
    assert got["State"] == "up" and pair.fixture() == before
    assert got["Statistics"]["tx-packets"] > 0
    assert worker_pids(pair.near) == [new]
    gaps = [gap(flow) for flow in flows]
    print(f"{pair.kind}: (longest gap, frames lost) there and back: {gaps}")
    assert max(lost for _, lost in gaps) <= KILLED_LOSS, gaps


def test_both_die_under_load(pair):
    """The interface outlives them, and is found again."""
    before = pair.fixture()
    flows = pair.flows()
    pid = worker_pid(pair.near)
    pair.daemon.kill()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not worker_pids(pair.near), "it is dead")
    assert pair.near.link("ec-t1")["ifindex"] == before[0]
    pair.daemon.start()
    pair.client.wait_state("t1", "up")
    for flow in flows:
        carried(flow)
    assert pair.fixture() == before and worker_pids(pair.near)
    for flow in flows:
        flow.stop()


def test_worker_dies_while_the_daemon_is_away(pair):
    """The next daemon sees that there is none."""
    before, pid = pair.fixture(), worker_pid(pair.near)
    pair.daemon.stop()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not worker_pids(pair.near), "it is dead")
    pair.daemon.start()
    pair.client.wait_state("t1", "up")
    assert ping(pair.hosts[0], "192.168.9.2", 3) and pair.fixture() == before


@pytest.fixture(params=["raw-udp"])
def alone(request, sites):
    return Pair(sites, request.param, False)


def test_worker_that_keeps_dying(alone):
    """Not for ever at full speed: it is told, and tried again."""
    follow = Follow(alone.lab, alone)
    for _ in range(4):
        alone.kill_worker()
    assert alone.client.get("t1")["State"] == "up"
    os.kill(worker_pid(alone.near), signal.SIGKILL)
    wait_until(lambda: not worker_pids(alone.near), "it is dead")
    told = alone.client.wait_state("t1", "failed")
    assert "signal 9" in told["StateReason"][1] and "5 times" in told["StateReason"][1], told
    follow.signals.settle()
    assert follow.words("t1").count("worker-ended") == 5
    stays(lambda: not worker_pids(alone.near), 1, "started at once again")
    before = alone.fixture()
    alone.client.wait_state("t1", "up", 75)
    assert ping(alone.near, "192.168.9.2", 3) and alone.fixture() == before


def test_worker_that_keeps_dying_is_asked_for(alone):
    """Who turns it off and on need not wait."""
    for _ in range(4):
        alone.kill_worker()
    os.kill(worker_pid(alone.near), signal.SIGKILL)
    alone.client.wait_state("t1", "failed")
    alone.client.on("t1", "Deactivate")
    alone.client.on("t1", "Activate")
    alone.client.wait_state("t1", "up")
    assert ping(alone.near, "192.168.9.2", 3)


# One that hangs

HUNG = 15       # s, three times what it takes: it is watched, asked twice, killed


@contextlib.contextmanager
def stopped(pid):
    """It goes on at the end, if it is still there."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def quieten(pair):
    """What hosts send by themselves."""
    for ns in (pair.near, pair.far):
        ns.exec("sysctl", "-qw", "net.ipv6.conf.ec-t1.disable_ipv6=1")
        # Who was answered is asked after 5 s whether he is still there.
        ns.ip("neigh", "flush", "dev", "ec-t1")


@pytest.mark.parametrize("way", [0, 1], ids=["sends", "receives"])
def test_worker_that_hangs(alone, way):
    """Packets wait, and it does nothing: it is killed, and the next one has all it had."""
    before, pid = alone.fixture(), worker_pid(alone.near)
    counted = alone.client.get("t1")["Statistics"]["tx-packets"]
    quieten(alone)      # nothing goes the other way by itself
    follow = Follow(alone.lab, alone)
    ends = (alone.near, alone.far)[::-1 if way else 1]
    flow = alone.lab.flow(ends[0], "ec-t1", ends[1], "ec-t1")
    with stopped(pid):
        begun = time.monotonic()
        flow.start()
        new = wait_until(lambda: (now := worker_pid(alone.near)) != pid and now, "another worker",
                         HUNG)
        took = time.monotonic() - begun
        carried(flow)
    print(f"replaced after {took:.1f} s")
    told = follow.wait("t1", "worker-ended")["text"]
    assert str(pid) in told and "did not answer" in told, told
    assert worker_pids(alone.near) == [new] and alone.fixture() == before
    got = alone.client.get("t1")
    assert got["State"] == "up" and got["Statistics"]["tx-packets"] >= counted
    flow.stop()


def test_workers_that_keep_hanging(alone):
    """They count like those that die."""
    flow = alone.lab.flow(alone.near, "ec-t1", alone.far, "ec-t1").start()
    for _ in range(4):
        alone.kill_worker()
    carried(flow)
    with stopped(worker_pid(alone.near)):
        told = alone.client.wait_state("t1", "failed", HUNG)
        assert "did not answer" in told["StateReason"][1] and "5 times" in told["StateReason"][1]
    assert not worker_pids(alone.near)


def test_worker_hangs_and_its_daemon_dies(alone):
    """The next daemon does not know it, but for what the one before has noted."""
    before, pid = alone.fixture(), worker_pid(alone.near)
    with stopped(pid):
        alone.daemon.kill()
        alone.daemon.start()
        wait_until(lambda: worker_pid(alone.near) not in (pid, None), "another worker", 20)
        wait_until(lambda: pid not in worker_pids(alone.near), "it was killed")
    alone.client.wait_state("t1", "up", 20)
    wait_until(lambda: ping(alone.near, "192.168.9.2", check=False), "it carries")
    assert alone.fixture() == before and len(worker_pids(alone.near)) == 1


def test_stopped_for_a_moment(alone):
    """Nobody is killed for being slow, with or without something to do."""
    pid = worker_pid(alone.near)
    quieten(alone)
    with stopped(pid):
        stays(lambda: worker_pid(alone.near) == pid, 6, "nothing to do, and killed")
    flow = alone.lab.flow(alone.near, "ec-t1", alone.far, "ec-t1").start()
    for _ in range(3):
        with stopped(pid):
            stays(lambda: worker_pid(alone.near) == pid, 0.5, "killed at once")
        carried(flow)
    assert worker_pid(alone.near) == pid
    assert flow.stop() == []


def test_worker_with_a_path_that_is_slow(alone):
    """It waits for its socket, and says so when asked."""
    pid = worker_pid(alone.near)
    alone.near.exec("tc", "qdisc", "add", "dev", "wire", "root", "tbf", "rate", "8kbit", "burst",
                    "2k", "limit", "100m")
    before = alone.client.get("t1")["Statistics"]["device-reads"]
    sender = ethercord.frame_socket(alone.near, "ec-t1")
    with contextlib.closing(sender):
        def waits():
            """The worker reads no more, though there is more to read."""
            with contextlib.suppress(BlockingIOError):
                for _ in range(200):
                    sender.send(b"\xff" * 6 + b"\x02\0\0\0\0\1\x88\xb5" + bytes(1400),
                                socket.MSG_DONTWAIT)
            now = alone.client.get("t1")["Statistics"]["device-reads"]
            done, waits.last = now == waits.last > before, now
            return done
        waits.last = -1
        wait_until(waits, "the socket takes no more", 20, 0.2)
        stays(lambda: worker_pid(alone.near) == pid, 7, "killed for waiting")
    assert "hung" not in alone.daemon.text()


def wakeups(pid):
    """So often a process slept."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status.read(), re.M).group(1))


def test_watching_costs_nothing(alone):
    """With nothing to do, neither daemon nor worker wakes."""
    quieten(alone)
    assert ping(alone.near, "192.168.9.2", 3)
    pids = (alone.daemon.pid, worker_pid(alone.near))

    def quiet():
        before = [wakeups(p) for p in pids]
        try:
            stays(lambda: [wakeups(p) for p in pids] == before, 5, "", 0.25)
        except AssertionError:
            return False
        return True
    wait_until(quiet, "five seconds without a wake-up", 40)


def test_hung_and_no_daemon_meets_it(alone):
    """One daemon after another comes and goes: it has more callers than its socket takes."""
    before, pid = alone.fixture(), worker_pid(alone.near)
    with stopped(pid):
        for _ in range(7):
            alone.daemon.kill()
            alone.daemon.start()
        wait_until(lambda: worker_pid(alone.near) not in (pid, None), "another worker", 20)
    alone.client.wait_state("t1", "up")
    wait_until(lambda: ping(alone.near, "192.168.9.2", check=False), "it carries")
    assert alone.fixture() == before and len(worker_pids(alone.near)) == 1


# Ends and changes

@pytest.mark.parametrize("how", ["Deactivate", "Remove"])
def test_nothing_is_left(pair, how):
    before = sockets(pair.near)
    assert any(port == PORTS[pair.kind] for _, port, _ in before)
    if how == "Remove":
        pair.client.call(ethercord.tunnel_path("t1"), ethercord.TUNNEL, "Remove")
    else:
        pair.client.on("t1", "Deactivate")
    nothing_left(pair.daemon)
    # What a process has open is closed last.
    wait_until(lambda: not any(port == PORTS[pair.kind] for _, port, _ in sockets(pair.near)),
               "its socket is closed")
    if how == "Deactivate":
        pair.client.on("t1", "Activate")
        pair.client.wait_state("t1", "up")
        assert ping(pair.hosts[0], "192.168.9.2", 3)


def test_removed_while_the_daemon_was_away(alone):
    """Its file is gone when the next daemon starts: so go worker and device."""
    pid = worker_pid(alone.near)
    alone.daemon.stop()
    for directory in (alone.daemon.tunnels, alone.daemon.runtime, alone.daemon.state):
        for path in directory.rglob("t1*") if directory.exists() else ():
            if path.is_file() and "workers" not in path.parts:
                path.unlink()
    assert worker_pid(alone.near) == pid
    alone.daemon.start()
    nothing_left(alone.daemon)


def test_given_to_the_kernel_while_the_daemon_was_away(sites):
    sites.daemon.keyfile("t1", remote=FAR, **spec("vxlan"))
    sites.daemon.restart()
    sites.client.wait_state("t1", "up")
    wait_until(lambda: worker_pid(sites.near), "the worker runs")
    sites.daemon.stop()
    sites.daemon.keyfile("t1", remote=FAR, id=7, data_plane="kernel")
    sites.daemon.start()
    assert sites.client.wait_state("t1", "up")["DataPlane"] == "kernel"
    nothing_left(sites.daemon)


CHANGES = [({"encapsulation": "vxlan", "id": 7}, "vxlan", "user"),
           ({"encapsulation": "gretap-fou", "id": 9}, "gretap-fou", "user"),
           ({"data_port": 4000, "remote_data_port": 4000}, "raw-udp", "user"),
           ({"encapsulation": "tun-udp"}, "tun-udp", "user"),
           ({"encapsulation": "vxlan", "id": 7, "data_plane": "kernel"}, "vxlan", "kernel")]


@pytest.mark.parametrize("change,kind,plane", CHANGES,
                         ids=lambda v: v if isinstance(v, str) else "")
def test_changed_and_back(alone, change, kind, plane):
    """At both ends, there and back again: what was is gone."""
    first = dict(alone.client.get("t1")["Settings"])
    for settings, now, where in ((change, kind, plane),
                                 ({k: first.get(k.replace("_", "-"), "") for k in change},
                                  "raw-udp", "user")):
        for client in (alone.client, alone.other.bus.client):
            client.update("t1", **settings)
        got = [c.wait_state("t1", "up") for c in (alone.client, alone.other.bus.client)]
        assert {(g["Encapsulation"], g["DataPlane"]) for g in got} == {(now, where)}
        wait_until(lambda: ping(alone.near, "192.168.9.2", check=False), "it carries")
        wait_until(lambda w=where: len(worker_pids(alone.near)) == (w == "user"),
                   "so many workers as are needed")
        if where == "kernel":
            nothing_left(alone.daemon)
    assert PORTS["raw-udp"] in {port for _, port, _ in sockets(alone.near)}
    wait_until(lambda: not {port for _, port, _ in sockets(alone.near)} & {4000, 4789, 65201, 8000},
               "the sockets of those before are closed")
    alone.client.on("t1", "Deactivate")
    nothing_left(alone.daemon)


@pytest.mark.parametrize("ttl", range(5, 9))
def test_changed_as_its_worker_dies(alone, ttl):
    """The daemon learns of both at once, in either order: the change is not refused, and the next
    worker has it."""
    pid, wire = worker_pid(alone.near), alone.lab.capture(alone.far, "wire")
    message = dbus.lowlevel.MethodCallMessage(
        ethercord.NAME, ethercord.tunnel_path("t1"), ethercord.TUNNEL, "Update")
    message.append(ethercord.typed({"ttl": ttl}), signature="a{sv}")
    bus = alone.client.connection
    with stopped(alone.daemon.pid):
        bus.send_message(message)
        bus.get_name_owner(ethercord.NAME)      # by then the bus has given it on
        os.kill(pid, signal.SIGKILL)
    alone.new_worker(pid)
    wait_until(lambda: alone.client.get("t1")["Settings"].get("ttl") == ttl, "it is in force")
    alone.client.wait_state("t1", "up")
    wire.clear()
    assert ping(alone.near, "192.168.9.2", 3, timeout=10)
    assert {f[22] for f in wire.take() if (ip := ethercord.ipv4(f)) and ip[0] == NEAR} == {ttl}


def test_name_and_mtu_change_under_load(alone):
    """What needs no other worker leaves it."""
    pid, flows = worker_pid(alone.near), alone.flows()
    alone.client.update("t1", mtu=ethercord.dbus.UInt32(1300))
    wait_until(lambda: alone.near.link("ec-t1")["mtu"] == 1300, "the MTU is set")
    alone.client.update("t1", mtu="")
    wait_until(lambda: alone.near.link("ec-t1")["mtu"] == 1458, "and back")
    assert worker_pid(alone.near) == pid
    assert [flow.stop() for flow in flows] == [[], []]


def test_device_is_deleted(alone):
    """By somebody with ip(8): the tunnel gets another, and another worker, or the same."""
    alone.near.ip("link", "del", "ec-t1")
    wait_until(lambda: alone.near.ifindex("ec-t1"), "it is back")
    alone.client.wait_state("t1", "up")
    wait_until(lambda: ping(alone.near, "192.168.9.2", check=False), "it carries")
    assert len(worker_pids(alone.near)) == 1
    alone.client.on("t1", "Deactivate")
    nothing_left(alone.daemon)


# What is not there

@pytest.mark.parametrize("kind", KINDS)
def test_port_in_use(sites, kind):
    words = (str(PORTS[kind]), NEAR, "in use")
    thief = Stock(sites.near, NEAR, PORTS[kind])
    with thief.socket:
        with refused("NameTaken", *words):
            sites.client.add("t1", remote=FAR, **spec(kind))
        nothing_left(sites.daemon)
        # One that is wanted whatever happens: as soon as the port is free.
        sites.daemon.keyfile("t1", remote=FAR, **spec(kind))
        sites.daemon.restart()
        client = sites.daemon.bus.client
        told = client.wait_state("t1", "failed")
        assert all(word in told["StateReason"][1] for word in words), told
    client.wait_state("t1", "up", 40)


def test_port_of_a_kernel_tunnel(sites):
    far_vxlan(sites.near, "other", 9, NEAR, FAR)
    with refused("NameTaken", "4789", "in use"):
        sites.client.add("t1", remote=FAR, **spec("vxlan"))
    nothing_left(sites.daemon)


def test_kernel_tunnel_at_a_worker_s_port(sites):
    """It is told whose port it is, and comes up when the port is free."""
    sites.client.add("t1", remote=FAR, **spec("vxlan"))
    sites.client.wait_state("t1", "up")
    wait_until(lambda: 4789 in {port for _, port, _ in sockets(sites.near)}, "the port is taken")
    with refused("NameTaken", "4789", "data-port"):
        sites.client.add("t2", remote=FAR, id=8, data_plane="kernel")
    sites.daemon.keyfile("t2", remote=FAR, id=8, data_plane="kernel")
    sites.daemon.ctl("reload")
    assert "4789" in sites.client.wait_state("t2", "failed")["StateReason"][1]
    sites.client.on("t1", "Deactivate")
    sites.client.wait_state("t2", "up")


def open_files(daemon):
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


def test_more_than_the_files_it_is_given(sites):
    """The limit that programs start with is not what the daemon may have."""
    sites.daemon.stop()
    sites.daemon.wrapper = ("prlimit", "--nofile=64:4096")
    sites.daemon.start()
    for number in range(12):
        sites.client.add(f"t{number}", remote=FAR, **spec("raw-udp", data_port=2000 + number))
    assert open_files(sites.daemon) > 64
    wait_until(lambda: len(worker_pids(sites.near)) == 12, "a worker each")


def program_beside(lab, text):
    """A daemon's copy with another ethercord-worker."""
    directory = lab.directory / "bin"
    directory.mkdir()
    shutil.copy(ethercord.DAEMON, directory / "ethercordd")
    worker = directory / "ethercord-worker"
    worker.write_text(text)
    worker.chmod(0o755)
    return directory / "ethercordd"


def test_starts_that_fail_leave_nothing(lab, sites):
    daemon = lab.daemon(sites.far, "far", program=program_beside(lab, "not a program"))

    def attempt():
        with refused("Kernel", "ethercord-worker"):
            daemon.bus.client.add("t1", remote=NEAR, **spec("raw-udp"))
    attempt()
    before = open_files(daemon)
    for _ in range(10):
        attempt()
    nothing_left(daemon)
    assert open_files(daemon) <= before


def test_no_place_for_its_socket(alone):
    """The tunnel is up again by itself once there is one."""
    pid, directory = worker_pid(alone.near), alone.daemon.runtime / "workers"
    shutil.rmtree(directory)
    directory.touch()
    os.kill(pid, signal.SIGKILL)
    told = alone.client.wait_state("t1", "failed")
    assert str(directory) in told["StateReason"][1], told
    directory.unlink()
    alone.client.wait_state("t1", "up")
    wait_until(lambda: ping(alone.near, "192.168.9.2", check=False), "it carries")


def test_same_endpoints(sites):
    sites.client.add("t1", remote=FAR, **spec("raw-udp"))
    with refused("Exists", "t1", "data-port"):
        sites.client.add("t2", remote=FAR, **spec("raw-udp"))
    sites.client.add("t2", remote=FAR, **spec("raw-udp", data_port=4000))
    sites.client.wait_state("t2", "up")
    wait_until(lambda: worker_pid(sites.near, "t1") and worker_pid(sites.near, "t2"),
               "both workers run")


def encapsulations(daemon):
    return daemon.bus.client.call(ethercord.PATH, ethercord.PROPERTIES, "Get", "ss",
                                  ethercord.MANAGER, "Encapsulations")


def without_tun(lab, sites):
    return lab.daemon(sites.far, "far", wrapper=(
        "unshare", "-m", "sh", "-c", 'mount -t tmpfs none /dev/net && exec "$@"', "sh"))


def without_program(lab, sites):
    directory = lab.directory / "bin"
    directory.mkdir()
    shutil.copy(ethercord.DAEMON, directory / "ethercordd")
    return lab.daemon(sites.far, "far", program=directory / "ethercordd")


@pytest.mark.parametrize("lacking,words", [(without_tun, ["/dev/net/tun", "module tun"]),
                                           (without_program, ["ethercord-worker"])],
                         ids=["tun", "program"])
def test_cannot(lab, sites, lacking, words):
    assert {f"{kind}/user" for kind in KINDS} <= set(encapsulations(sites.daemon))
    daemon = lacking(lab, sites)
    assert not [e for e in encapsulations(daemon) if e.endswith("/user")]
    assert "vxlan/kernel" in encapsulations(daemon)
    client = daemon.bus.client
    with refused("NotSupported", *words):
        client.add("t1", remote=NEAR, **spec("raw-udp"))
    nothing_left(daemon)
    # The kernel's own are not concerned.
    client.add("t2", remote=NEAR, encapsulation="vxlan", id=7)
    client.wait_state("t2", "up")


def test_auto_takes_what_is_there(sites):
    """data-plane=auto: the kernel where it can, us where it cannot."""
    sites.client.add("t1", remote=FAR, encapsulation="vxlan", id=1)
    assert sites.client.wait_state("t1", "up")["DataPlane"] == "kernel"
    sites.client.add("t2", remote=FAR, encapsulation=["gretap-fou", "vxlan"], id=2)
    got = sites.client.wait_state("t2", "up")
    kernel = "gretap-fou/kernel" in encapsulations(sites.daemon)
    assert got["Encapsulation"] == "gretap-fou"
    assert got["DataPlane"] == ("kernel" if kernel else "user")
    with refused("NotSupported"):
        sites.client.add("t3", remote=FAR, encapsulation="gretap", id=3, data_plane="user")


# What is counted

def test_statistics(alone):
    def get():
        return alone.client.get("t1")["Statistics"]
    keys = {"rx-packets", "rx-bytes", "tx-packets", "tx-bytes", "rx-datagrams", "tx-datagrams",
            "rx-calls", "tx-calls", "device-reads", "device-writes", "rx-coalesced",
            "tx-segmented", "rx-dropped-stranger", "rx-dropped-malformed", "rx-dropped-id",
            "rx-dropped-device", "tx-dropped-peer", "tx-dropped-size", "tx-dropped-socket",
            "tx-dropped-malformed", "tx-split", "rx-joined", "rx-dropped-pieces",
            "too-big-answers", "rx-dropped", "tx-dropped", "reconnects", "rtt-us"}
    quieten(alone)
    before = get()
    assert keys <= set(before) and not [k for k in before if "_" in k]
    sender = ethercord.frame_socket(alone.near, "ec-t1")
    with contextlib.closing(sender):
        for number in range(100):
            sender.send(b"\xff" * 6 + b"\x02\0\0\0\0\1\x88\xb5" + bytes(86))
        # Of what one frame adds to, bytes are the last.
        wait_until(lambda: get()["tx-bytes"] >= before["tx-bytes"] + 10000, "they are counted")
    after = get()
    delta = {k: after[k] - before[k] for k in keys}
    assert 100 <= delta["tx-packets"] == delta["tx-datagrams"] < 110
    assert 10000 <= delta["tx-bytes"] < 11000
    assert 1 <= delta["tx-calls"] <= delta["tx-packets"]
    assert not [k for k in keys if "dropped" in k and delta[k]]
    far = alone.other.bus.client.get("t1")["Statistics"]
    wait_until(lambda: alone.other.bus.client.get("t1")["Statistics"]["rx-packets"] >= 100,
               "and there")
    assert far["tx-datagrams"] < 100
    # A second daemon counts on, not anew.
    alone.daemon.kill()
    alone.daemon.start()
    alone.client.wait_state("t1", "up")
    wait_until(lambda: get().get("tx-packets", 0) >= after["tx-packets"], "they are still there")
    # Another worker too.
    pid = worker_pid(alone.near)
    os.kill(pid, signal.SIGKILL)
    alone.new_worker(pid)
    assert get()["tx-packets"] >= after["tx-packets"]


def test_another_client_reads(alone):
    """A property of an object like any other."""
    other = Client(alone.daemon.bus.address)
    with contextlib.closing(other):
        assert other.get("t1")["Statistics"]["tx-datagrams"] >= 0


def test_reserved_port_of_the_host(sites):
    """The host's own UDP does not meet the worker's."""
    sites.client.add("t1", remote=FAR, **spec("raw-udp", address="192.168.9.1/24"))
    sites.client.wait_state("t1", "up")
    with sites.near.entered():
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with s, pytest.raises(OSError):
        s.bind((NEAR, PORTS["raw-udp"]))


def test_changed_again_and_again(alone):
    """Faster than workers start: in the end there is one."""
    kinds = [({"encapsulation": "vxlan", "id": 7}, "vxlan"),
             ({"encapsulation": "gretap-fou", "id": 7}, "gretap-fou"),
             ({"encapsulation": "raw-udp", "id": ""}, "raw-udp")]
    for _ in range(6):
        for change, _ in kinds:
            for client in (alone.client, alone.other.bus.client):
                client.update("t1", **change)
    wait_until(lambda: [len(worker_pids(ns)) for ns in (alone.near, alone.far)] == [1, 1],
               "one worker each")
    wait_until(lambda: ping(alone.near, "192.168.9.2", check=False), "it carries")
    alone.client.on("t1", "Deactivate")
    nothing_left(alone.daemon)
