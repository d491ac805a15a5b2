# SPDX-License-Identifier: GPL-2.0-or-later
"""Tunnels whose data plane is ethercord-worker: made, found again, mended, in both kinds of
control."""

import os
import pathlib
import signal

import pytest

from control import World, carries, full_frames
from ethercord import FAR, NEAR, far_vxlan, ping, wait_until
from workers import USER, worker_pid


@pytest.fixture(params=["gretap-fou", "vxlan", "raw-udp", "tun-udp"])
def pair(request, sites):
    """A daemon at both ends, each with a worker, point to point."""
    kind = request.param
    sites.kind, sites.other = kind, sites.lab.daemon(sites.far, "far")
    settings = {**USER, "encapsulation": kind}
    if kind in ("gretap-fou", "vxlan"):
        settings["id"] = 7
    sites.settings = settings
    sites.other.bus.client.add("t1", remote=NEAR, address="192.168.9.2/24", **settings)
    sites.client.add("t1", remote=FAR, address="192.168.9.1/24", **settings)
    wait_until(lambda: worker_pid(sites.near) and worker_pid(sites.far), "the workers run")
    return sites


def test_static(pair):
    got = pair.client.get("t1")
    assert (got["State"], got["DataPlane"], got["Encapsulation"]) == ("up", "user", pair.kind)
    assert ping(pair.near, "192.168.9.2", 3)
    mtu = got["Mtu"]
    assert mtu == {"gretap-fou": 1446, "vxlan": 1450, "raw-udp": 1458, "tun-udp": 1472}[pair.kind]
    assert ping(pair.near, "192.168.9.2", size=mtu - 28, df=True)
    statistics = pair.client.get("t1")["Statistics"]
    assert statistics["tx-datagrams"] >= 4 and statistics["rx-packets"] >= 4


def test_ends_with_its_tunnel(pair):
    assert worker_pid(pair.near)
    pair.client.on("t1", "Deactivate")
    wait_until(lambda: not pair.near.link("ec-t1"), "the device is gone")
    wait_until(lambda: not worker_pid(pair.near), "the worker is gone")


def test_daemon_killed(pair):
    """The worker carries on, and the next daemon takes it over without a lost frame."""
    link, pid = pair.near.link("ec-t1"), worker_pid(pair.near)
    flows = [pair.lab.flow(pair.near, "ec-t1", pair.far, "ec-t1").start()] \
        if pair.kind != "tun-udp" else []
    for _ in range(3):
        pair.daemon.kill()
        assert ping(pair.near, "192.168.9.2", 3)
        pair.daemon.start()
        pair.client.wait_state("t1", "up", 10)
    assert ping(pair.near, "192.168.9.2", 3)
    assert pair.near.link("ec-t1")["ifindex"] == link["ifindex"]
    assert worker_pid(pair.near) == pid
    assert [f.stop() for f in flows] in ([], [[]])


def test_worker_killed(pair):
    """It is started again with all it had."""
    link, pid = pair.near.link("ec-t1"), worker_pid(pair.near)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: (worker_pid(pair.near) or pid) != pid, "another worker")
    assert ping(pair.near, "192.168.9.2", 3)
    assert pair.near.link("ec-t1")["ifindex"] == link["ifindex"]
    assert pair.client.get("t1")["State"] == "up"


def test_with_a_kernel(sites):
    far_vxlan(sites.far, "far", 7, mtu=1450, address="192.168.9.2/24")
    sites.client.add("t1", remote=FAR, id=7, encapsulation="vxlan", address="192.168.9.1/24",
                     **USER)
    assert ping(sites.near, "192.168.9.2", 3)


def test_kernel_without_checksums(sites):
    """Over IPv6 a kernel's UDP may have none, as its FOU has unless told otherwise (RFC 6935)."""
    for ns, number in ((sites.near, 1), (sites.far, 2)):
        with ns.entered():
            pathlib.Path("/proc/sys/net/ipv6/conf/wire/disable_ipv6").write_text("0")
        ns.ip("addr", "add", f"fd77::{number}/64", "dev", "wire", "nodad")
    far_vxlan(sites.far, "far", 7, local="fd77::2", remote="fd77::1", mtu=1400,
              address="192.168.9.2/24", more=["udp6zerocsumtx"])
    sites.client.add("t1", remote="fd77::2", id=7, encapsulation="vxlan",
                     address="192.168.9.1/24", **USER)
    assert ping(sites.near, "192.168.9.2", 3)


def test_kernels_at_several_addresses(sites):
    """To one port of ours, from any of theirs: each is heard by its own worker, there and back."""
    peers = {f"t{n}": f"10.77.0.{n}" for n in (3, 4, 5)}
    for n, (name, address) in enumerate(peers.items(), 3):
        sites.far.ip("addr", "add", f"{address}/24", "dev", "wire")
        far_vxlan(sites.far, f"far-{name}", n, local=address, mtu=1450)
        sites.client.add(name, remote=address, id=n, encapsulation="vxlan", **USER)
    wait_until(lambda: all(worker_pid(sites.near, name) for name in peers), "the workers run")
    for ends in ((sites.near, "ec-{}", sites.far, "far-{}"),
                 (sites.far, "far-{}", sites.near, "ec-{}")):
        for name in peers:
            flow = sites.lab.flow(*(e.format(name) if isinstance(e, str) else e for e in ends))
            assert flow.start().stop() == [], f"{name}, {ends}"


@pytest.mark.parametrize("planes", [("user", "user"), ("user", "kernel"), ("kernel", "user")],
                         ids="-".join)
def test_negotiated(lab, planes):
    world = World(lab)
    host = world.up(encapsulation="vxlan", data_plane=planes[0],
                    listening={"data_plane": planes[1]})
    got = world.both_up()
    assert [g["DataPlane"] for g in got] == list(planes)
    full_frames(world, host)
    flows = world.flows(host)
    for flow in flows:
        carries(flow)
    assert [f.stop() for f in flows] == [[], []]
