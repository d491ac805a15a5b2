# SPDX-License-Identifier: GPL-2.0-or-later
"""The user data plane agreed on by two ends: who carries, in which format, in pieces or not, behind
NATs, and with many peers."""

import contextlib
import os
import struct

import pytest

import ethercord
from control import (FRAME, HOST, KEY, Follow, Links, Nat, Site, World, carries, frame_crosses,
                     full_frames, gap)
from ethercord import frame_socket, ping, stays, wait_until
from workers import ETHERNET, KINDS, PORTS, nothing_left, worker_pid, worker_pids

FULL = 1472
FRAGMENTS = "ip frag-off & 0x3fff != 0 drop"
PEERS = 20


def up(world, kind, planes=("user", "user"), listening=None, **settings):
    """Encapsulation and planes of laptop and office; the host behind the office."""
    if kind == "tun-udp":
        world.office.listen(mode="point-to-point", bridge=None, bridge_create=None,
                            data_plane=planes[1], **{"encapsulation": kind, **(listening or {})},
                            peers={"office": {"key": KEY, "address": "192.168.9.2/24"}})
        world.laptop.dial(mode="point-to-point", underlay="any", address="192.168.9.1/24",
                          encapsulation=kind, data_plane=planes[0], **settings)
        world.both_up()
        return None
    listening = {"encapsulation": kind, "data_plane": planes[1], **(listening or {})}
    return world.up(encapsulation=kind, data_plane=planes[0], listening=listening, **settings)


def crosses(world, host):
    """Frames of any size both ways, and none is lost."""
    if host is None:
        assert ping(world.laptop.ns, "192.168.9.2", 3)
        return
    full_frames(world, host)
    flows = world.flows(host)
    for flow in flows:
        carries(flow)
    assert [f.stop() for f in flows] == [[], []]


AGREED = [(kind, ("user", "user")) for kind in KINDS] + \
    [("vxlan", ("user", "kernel")), ("vxlan", ("kernel", "user"))]


@pytest.mark.parametrize("kind,planes", AGREED,
                         ids=lambda v: v if isinstance(v, str) else "-".join(v))
def test_agreed(lab, kind, planes):
    world = World(lab)
    links = lab.keep(Links(world.laptop.ns))
    host = up(world, kind, planes)
    got = world.both_up()
    assert [g["DataPlane"] for g in got] == list(planes)
    assert {g["Encapsulation"] for g in got} == {kind}
    crosses(world, host)
    for site, plane, name in zip((world.laptop, world.office), planes, ("office", "lan.office")):
        assert len(worker_pids(site.ns)) == (plane == "user")
        assert bool(worker_pid(site.ns, name)) == (plane == "user")
    # Not a moment of carrier before it was proven.
    index = world.laptop.ns.ifindex("ec-office")
    assert links.carrier(index, True, 0) > links.of(index)[0][0]
    world.laptop.down("office")
    world.office.wait("lan.office", None)
    for site in (world.laptop, world.office):
        nothing_left(site.daemon)


@pytest.mark.parametrize("kind", ["vxlan", "raw-udp"])
def test_over_ipv6(lab, kind):
    world = World(lab, ipv6=True)
    host = up(world, kind, remote="fd09:2::2")
    got = world.both_up()
    assert got[0]["Remote"] == "fd09:2::2" and {g["DataPlane"] for g in got} == {"user"}
    crosses(world, host)


def test_none_in_common(lab):
    """It is said which."""
    world = World(lab)
    world.host()
    world.office.listen(encapsulation="vxlan", data_plane="kernel")
    world.laptop.dial(underlay="any", encapsulation="raw-udp", data_plane="user")
    wait_until(lambda: "raw-udp" in (why := world.laptop.get("office")["StateReason"][1]) or
               "vxlan" in why, "the reason")
    stays(lambda: world.laptop.get("office")["State"] != "up", 1, "up")
    assert not worker_pids(world.laptop.ns)


# Pieces

def outer_sizes(wire):
    """Of the datagrams of the tunnel, and how many came in fragments."""
    return [len(d.payload) for d in wire.take() if d.dport in PORTS.values()]


@pytest.mark.parametrize("kind", ETHERNET)
@pytest.mark.parametrize("cut", ["at the router", "nowhere"])
def test_split(lab, kind, cut):
    """Pieces where the path drops fragments, and fragments where it does not."""
    world = World(lab)
    if cut == "at the router":
        world.internet.filter(FRAGMENTS)
    wire = world.internet.wire(2)
    raw = lab.capture(world.internet.router, "n1")
    host = up(world, kind)
    got = world.both_up(timeout=20)
    assert {g["Mtu"] for g in got} == {1500} and {g["LargestFrame"] for g in got} == {1514}
    assert ("pieces" in got[0]["StateReason"][1]) == (cut == "at the router"), got[0]["StateReason"]
    wire.clear()
    raw.clear()
    crosses(world, host)
    assert ping(world.laptop.ns, HOST, 5, size=FULL) and ping(host, "192.168.9.1", 5, size=FULL)
    split = [site.statistics(name)["tx-split"] for site, name in
             ((world.laptop, "office"), (world.office, "lan.office"))]
    joined = [site.statistics(name)["rx-joined"] for site, name in
              ((world.laptop, "office"), (world.office, "lan.office"))]
    fragments = [f for f in raw.take() if (p := ethercord.ipv4(f)) and p[3]]
    if cut == "nowhere":
        assert split == joined == [0, 0] and fragments
        return
    assert min(split) > 0 and min(joined) > 0 and not fragments
    assert max(outer_sizes(wire)) <= 1500 - 28
    # DF inside is no matter: nothing is too big.
    assert ping(world.laptop.ns, HOST, 3, size=FULL, df=True)
    # What was agreed holds over a daemon's death.
    flows = world.flows(host)
    world.laptop.restart_killed()
    world.both_up()
    full_frames(world, host)
    assert [f.stop() for f in flows] == [[], []]


def test_split_can_be_refused(lab):
    """split=no at one end: frames that fit are all that crosses, and it is said."""
    world = World(lab)
    world.internet.filter(FRAGMENTS)
    host = up(world, "vxlan", split="no")
    here, _ = world.both_up(timeout=20)
    assert here["LargestFrame"] < 1514 and "larger ones do not" in here["StateReason"][1]
    full_frames(world, host, size=here["LargestFrame"])
    assert not frame_crosses(world.lab, world.laptop.ns, "ec-office", host, "eth0", timeout=1)
    assert world.laptop.statistics("office")["tx-split"] == 0


def test_split_is_for_workers(lab):
    """With a kernel at the other end there are no pieces."""
    world = World(lab)
    world.internet.filter(FRAGMENTS)
    host = up(world, "vxlan", ("user", "kernel"))
    here, _ = world.both_up(timeout=20)
    assert here["LargestFrame"] < 1514
    full_frames(world, host, size=here["LargestFrame"])


def test_split_asked_for(lab):
    """split=yes: at once, though the path passes fragments."""
    world = World(lab)
    raw = lab.capture(world.internet.router, "n1")
    host = up(world, "vxlan", split="yes")
    world.both_up()
    raw.clear()
    crosses(world, host)
    assert not [f for f in raw.take() if (p := ethercord.ipv4(f)) and p[3]]
    assert world.laptop.statistics("office")["tx-split"] > 0


def test_path_begins_to_drop_fragments(lab):
    """A tunnel that was up with fragments is up with pieces after it was turned off and on."""
    world = World(lab)
    host = up(world, "raw-udp")
    world.both_up()
    world.internet.filter(FRAGMENTS)
    world.laptop.client.on("office", "Deactivate")
    world.laptop.client.on("office", "Activate")
    world.both_up(timeout=20)
    full_frames(world, host)
    assert world.laptop.statistics("office")["tx-split"] > 0


@pytest.mark.parametrize("kind", [None, "vxlan"], ids=["auto", "vxlan"])
def test_kernels_give_way_to_pieces(lab, kind):
    """data-plane=auto: the kernels come first. Where the path drops their fragments, workers at both
    ends carry full frames, and another tunnel of the kernels' is not in their way."""
    world = World(lab)
    more = {"data_plane": None, "encapsulation": kind}
    host = world.host()
    world.office.listen(peers=("office", "other"), **more)
    world.laptop.dial("other", underlay="any", **more)
    assert [g["DataPlane"] for g in world.both_up("other")] == ["kernel", "kernel"]
    world.internet.filter(FRAGMENTS)
    follow = Follow(lab, world.laptop)
    raw = lab.capture(world.internet.router, "n1")
    world.laptop.dial(underlay="any", address="192.168.9.1/24", **more)
    got = world.both_up(timeout=30)
    # The kernel's was tried first.
    refused = follow.wait("office", "refused-by-path")
    assert refused["encapsulation"] == "vxlan" and int(refused["largest"]) > 1000
    assert [g["DataPlane"] for g in got] == ["user", "user"]
    assert {g["LargestFrame"] for g in got} == {1514} and {g["Mtu"] for g in got} == {1500}
    assert "pieces" in got[0]["StateReason"][1], got[0]["StateReason"]
    raw.clear()
    crosses(world, host)
    assert ping(world.laptop.ns, HOST, 5, size=FULL, df=True)
    assert not [f for f in raw.take() if (p := ethercord.ipv4(f)) and p[3]]
    # Both: the kernels' tunnel is not disturbed, and another one can be made.
    assert [g["State"] for g in (world.laptop.get("other"), world.office.get("lan.other"))] == \
        ["up", "up"]
    # What was found holds: over a daemon's death at either end, and for the next channel.
    pids = [worker_pid(world.laptop.ns, "office"), worker_pid(world.office.ns, "lan.office")]
    assert all(pids)
    flows = world.flows(host)
    for site in (world.laptop, world.office):
        follow.clear()
        site.restart_killed()
        follow.wait("office", "control-back", 20)
        world.both_up()
        full_frames(world, host)
    assert [f.stop() for f in flows] == [[], []]
    assert pids == [worker_pid(world.laptop.ns, "office"), worker_pid(world.office.ns, "lan.office")]
    # Without the filter, and turned off and on, it is the kernels' again.
    world.internet.filter()
    world.laptop.client.on("office", "Deactivate")
    world.office.wait("lan.office", None)
    world.laptop.client.on("office", "Activate")
    assert [g["DataPlane"] for g in world.both_up()] == ["kernel", "kernel"]
    full_frames(world, host)
    wait_until(lambda: not worker_pids(world.laptop.ns) + worker_pids(world.office.ns),
               "no worker is left")


def test_worker_has_the_kernel_give_way(lab):
    """A worker dials somebody whose kernel would come first."""
    world = World(lab)
    world.internet.filter(FRAGMENTS)
    host = up(world, "vxlan", ("user", None))
    assert [g["DataPlane"] for g in world.both_up(timeout=20)] == ["user", "user"]
    crosses(world, host)
    assert world.laptop.statistics("office")["tx-split"] > 0


@pytest.mark.parametrize("planes,split", [(("kernel", None), ("auto", "auto")),
                                          ((None, "kernel"), ("auto", "auto")),
                                          ((None, None), ("no", "auto")),
                                          ((None, None), ("auto", "no"))])
def test_kernels_that_may_not_give_way(lab, planes, split):
    """Then what fits is all that crosses."""
    world = World(lab)
    world.internet.filter(FRAGMENTS)
    host = up(world, "vxlan", planes, {"split": split[1]}, split=split[0])
    here, _ = world.both_up(timeout=30)
    assert here["LargestFrame"] < 1514 and "larger ones do not" in here["StateReason"][1]
    full_frames(world, host, size=here["LargestFrame"])


# Several

def test_two_to_one_peer(lab):
    """Each has ports of its own: no datagram of one is taken for the other's."""
    world = World(lab)
    host = world.host()
    world.office.listen(peers=("one", "two"), encapsulation="raw-udp", data_plane="user")
    for name in ("one", "two"):
        world.laptop.dial(name, underlay="any", encapsulation="raw-udp", data_plane="user")
        world.both_up(name)
    assert len(worker_pids(world.laptop.ns)) == len(worker_pids(world.office.ns)) == 2
    for name in ("one", "two"):
        lost = lab.flow(world.laptop.ns, world.laptop.ifname(name), host, "eth0").start()
        assert lost.stop(50) == []
    received = world.office.statistics("lan.one")["rx-packets"]
    flow = lab.flow(world.laptop.ns, world.laptop.ifname("two"), host, "eth0").start()
    assert flow.stop(200) == []
    assert world.office.statistics("lan.one")["rx-packets"] - received < 20
    world.laptop.down("one")
    world.office.wait("lan.one", None)
    world.both_up("two")
    wait_until(lambda: len(worker_pids(world.office.ns)) == 1, "the other's worker is gone")
    assert worker_pid(world.office.ns, "lan.two")


def both_ways(lab, site, name, host):
    own = site.ifname(name)
    for ends in ((site.ns, own, host, "eth0"), (host, "eth0", site.ns, own)):
        flow = lab.flow(*ends).start()
        lost = flow.stop(50)
        assert lost == [], f"{name}, {ends[1]}: {lost} of {flow.sent}"


@pytest.mark.parametrize("kind", ["vxlan", "raw-udp", "gretap-fou"])
def test_two_behind_one_nat(lab, kind):
    """All mappings change at once: all are followed."""
    world = World(lab, nat=True)
    host = world.host()
    desk = world.site("desk", 2)
    more = {"encapsulation": kind, "data_plane": "user"}
    world.office.listen(peers=("one", "two", "desk"), **more)
    cords = [(world.laptop, "one"), (world.laptop, "two"), (desk, "desk")]
    for site, name in cords:
        site.dial(name, underlay="any", keepalive_interval=200, **more)
        site.wait(name, "up")
        world.office.wait(f"lan.{name}", "up")
    there = {name: world.office.get(f"lan.{name}") for _, name in cords}
    assert {t["Remote"] for t in there.values()} == {world.nat.address}
    assert {t["DataPlane"] for t in there.values()} == {"user"}
    pids = set(worker_pids(world.office.ns))
    for turn in range(2):
        for site, name in cords:
            both_ways(lab, site, name, host)
        world.nat.map(30000 + turn * 10000, 39999 + turn * 10000)
        world.nat.forget()
        for site, name in cords:
            flow = lab.flow(host, "eth0", site.ns, site.ifname(name)).start()
            carries(flow)
            flow.stop()
    for site, name in cords:
        assert site.client.state(name) == "up" == world.office.client.state(f"lan.{name}")
        assert world.office.get(f"lan.{name}")["Ifindex"] == there[name]["Ifindex"]
    assert set(worker_pids(world.office.ns)) == pids


@pytest.mark.parametrize("kind", ["vxlan", "raw-udp", "tun-udp"])
def test_nat_forgets(lab, kind):
    """A NAT that maps anew under load: how long it takes is what keepalive allows."""
    world = World(lab, nat=True)
    host = up(world, kind, keepalive_interval=200)
    if host is None:
        for turn in range(2):
            world.nat.map(30000 + turn * 10000, 39999 + turn * 10000)
            world.nat.forget()
            wait_until(lambda: ping(world.office.ns, "192.168.9.1", timeout=1, check=False),
                       "the office reaches the laptop")
        return
    indexes, flows = world.indexes(), world.flows(host, interval=0.002)
    follow = Follow(lab, world.office)
    world.nat.map(30000, 39999)
    world.nat.forget()
    for flow in flows:
        carries(flow, 100)
    follow.wait("lan.office", "peer-moved")
    assert world.indexes() == indexes
    gaps = [gap(flow) for flow in flows]
    print(f"{kind}: (s, frames lost) there and back: {gaps}")
    assert gaps[0][0] < 0.5 and gaps[1][0] < 2


def test_many(lab):
    """20 peers at one listener, some behind one NAT; then its daemon dies."""
    world = World(lab)
    host = world.host()
    names = [f"p{n}" for n in range(PEERS)]
    more = {"encapsulation": "raw-udp", "data_plane": "user"}
    world.office.listen(peers=names, max_peers=PEERS, **more)
    nat, ns = Nat(world.internet, 20), lab.namespace("behind")
    nat.join(ns, 10)
    sites = [world.laptop, Site(lab, ns, "behind")]
    where = {name: sites[n % 2] for n, name in enumerate(names)}
    for name, site in where.items():
        site.dial(name, underlay="any", **more)
    for name, site in where.items():
        site.wait(name, "up", 40)
        world.office.wait(f"lan.{name}", "up", 40)
    pids = set(worker_pids(world.office.ns))
    assert len(pids) == PEERS
    # A bridge learns a little later that a port has its carrier; each frame is sent once.
    wait_until(lambda: world.office.ns.exec("bridge", "link").stdout.count("state forwarding") ==
               PEERS + 1, "all ports forward")
    with contextlib.ExitStack() as stack:
        ear = lab.capture(host, "eth0", FRAME)
        for number, (name, site) in enumerate(where.items()):
            s = stack.enter_context(frame_socket(site.ns, site.ifname(name), FRAME))
            s.send(b"\xff" * 6 + struct.pack("!HI", 0x0200, number) + b"\x88\xb6" +
                   struct.pack("!I", number) + bytes(50))
        wait_until(lambda: len(ear.take()) >= PEERS, "a frame of each arrives")
        assert sorted(struct.unpack("!I", f[14:18])[0] for f in ear.frames) == list(range(PEERS))
        ears = [lab.capture(site.ns, site.ifname(name), FRAME) for name, site in where.items()]
        s = stack.enter_context(frame_socket(host, "eth0", FRAME))
        s.send(b"\xff" * 6 + b"\x02\x00\x5e\x10\x00\x99\x88\xb6" + b"\xee" * 50)
        for name, here in zip(names, ears):
            wait_until(lambda h=here: [f for f in h.take() if f[14:18] == b"\xee" * 4],
                       f"the LAN's frame reaches {name}")
    flow = lab.flow(world.laptop.ns, world.laptop.ifname("p0"), host, "eth0", 0.002).start()
    world.office.restart_killed()
    for name in names:
        world.office.wait(f"lan.{name}", "up", 40)
    assert set(worker_pids(world.office.ns)) == pids
    assert flow.stop() == []
    world.office.on_listener("lan", "Deactivate")
    nothing_left(world.office.daemon)


# Carrier

def port_state(ns, port):
    link = ns.link(port)
    return link.get("linkinfo", {}).get("info_slave_data", {}).get("state")


@pytest.mark.parametrize("kind", ["vxlan", "raw-udp"])
def test_carrier(lab, kind):
    """A peer that is lost takes the carrier with it: the bridge's port is disabled, and back at
    once with it."""
    world = World(lab)
    fast = {"keepalive_interval": 200, "keepalive_timeout": 1000}
    host = up(world, kind, listening=fast, **fast)
    here, there = (site.ifname(name) for site, name in
                   ((world.laptop, "office"), (world.office, "lan.office")))
    indexes = world.indexes()
    ends = ((world.laptop, here, "office"), (world.office, there, "lan.office"))
    for _ in range(2):
        wait_until(lambda: port_state(world.office.ns, there) == "forwarding", "it forwards")
        world.internet.cut(1, 2)
        for site, device, name in ends:
            wait_until(lambda s=site, d=device: "LOWER_UP" not in s.ns.link(d)["flags"] or
                       s.ns.link(d)["operstate"] != "UP", f"{device} has no carrier")
            assert site.get(name)["State"] != "up"
        wait_until(lambda: port_state(world.office.ns, there) == "disabled", "the port is disabled")
        world.internet.cut()
        world.both_up(timeout=15)
        wait_until(lambda: port_state(world.office.ns, there) == "forwarding", "it forwards again")
        for site, device, _ in ends:
            assert "LOWER_UP" in site.ns.link(device)["flags"]
        full_frames(world, host)
    assert world.indexes() == indexes


@pytest.mark.parametrize("dies", ["kernel", "daemon", "both"])
def test_carrier_over_deaths(lab, dies):
    """Daemon and worker may die meanwhile: the next daemon believes in its cord for a while, then
    takes the carrier away again."""
    world = World(lab)
    fast = {"keepalive_interval": 200, "keepalive_timeout": 1000}
    plane = "kernel" if dies == "kernel" else "user"
    host = up(world, "vxlan", (plane, plane), listening=fast, **fast)
    there = world.office.ifname("lan.office")
    world.internet.cut(1, 2)
    wait_until(lambda: port_state(world.office.ns, there) == "disabled", "the port is disabled")
    pid = worker_pid(world.office.ns, "lan.office")
    world.office.daemon.kill()
    if dies == "both":
        os.kill(pid, 9)
    world.office.daemon.start()
    world.office.wait("lan.office", "degraded", 25)
    wait_until(lambda: port_state(world.office.ns, there) == "disabled", "the port is disabled")
    world.internet.cut()
    world.both_up(timeout=40)
    wait_until(lambda: port_state(world.office.ns, there) == "forwarding", "it forwards again")
    full_frames(world, host)
