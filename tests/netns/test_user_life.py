# SPDX-License-Identifier: GPL-2.0-or-later
"""Daemons and workers that die under load, and what is left of a tunnel in the user data plane."""

import contextlib
import os
import re
import shutil
import signal
import socket

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


def test_worker_that_hangs(alone):
    """Stopped, it carries nothing; a daemon that starts does not wait for it for ever."""
    pid = worker_pid(alone.near)
    os.kill(pid, signal.SIGSTOP)
    try:
        alone.daemon.kill()
        alone.daemon.start()
        wait_until(lambda: alone.client.get("t1")["State"] != "up" or worker_pid(alone.near) != pid
                   or "does not answer" in str(alone.client.get("t1")["StateReason"]),
                   "it is noticed")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    alone.client.wait_state("t1", "up", 20)
    wait_until(lambda: ping(alone.near, "192.168.9.2", check=False), "it carries")
    wait_until(lambda: len(worker_pids(alone.near)) == 1, "one worker")


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
    assert not any(port == PORTS[pair.kind] for _, port, _ in sockets(pair.near))
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
    ports = {port for _, port, _ in sockets(alone.near)}
    assert PORTS["raw-udp"] in ports and not ports & {4000, 4789, 65201, 8000}
    alone.client.on("t1", "Deactivate")
    nothing_left(alone.daemon)


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
    before = get()
    assert keys <= set(before) and not [k for k in before if "_" in k]
    sender = ethercord.frame_socket(alone.near, "ec-t1")
    with contextlib.closing(sender):
        for number in range(100):
            sender.send(b"\xff" * 6 + b"\x02\0\0\0\0\1\x88\xb5" + bytes(86))
        wait_until(lambda: get()["tx-packets"] >= before["tx-packets"] + 100, "they are counted")
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
