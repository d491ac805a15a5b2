# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of the peers that are here when their listener changes; and their interfaces' names."""

import pytest

from control import KEY, World, carries, listener_path
from ethercord import PROPERTIES, typed, wait_until


@pytest.fixture
def world(lab):
    return World(lab)


def test_a_number_that_an_interface_has(world):
    """Of somebody else's interface, of a peer that is here, and after a crash of one's own."""
    world.host()
    world.office.ns.ip("link", "add", "peer0", "type", "bridge")
    world.office.listen(interface="peer%n", peers=["a", "b"])
    for name in ("a", "b"):
        world.laptop.dial(name, underlay="any")
        world.both_up(name)
    names = {n: world.office.ifname(f"lan.{n}") for n in ("a", "b")}
    assert names == {"a": "peer1", "b": "peer2"}
    # A number that is free again is given again.
    world.laptop.down("a")
    world.office.wait("lan.a", None)
    wait_until(lambda: not world.office.ns.link("peer1"), "the interface is gone")
    world.laptop.client.on("a", "Activate")
    world.both_up("a")
    assert world.office.ifname("lan.a") == "peer1"
    before = {n: world.indexes(n) for n in names}
    world.office.restart_killed()
    for name in names:
        world.both_up(name, timeout=30)
    assert {n: world.office.ifname(f"lan.{n}") for n in names} == names
    assert {n: world.indexes(n) for n in names} == before


def test_changes_leave_the_others_alone(world):
    """Settings, peers and keys of a listener, and another listener's, change: frames go on."""
    host = world.host()
    world.office.listen(peers=["office", "second"])
    world.laptop.dial(underlay="any")
    world.both_up()
    flows = world.flows(host)
    before = world.indexes()
    set_peer = ("SetPeer", "sa{sv}")
    for member, signature, *values in (
            ("Update", "a{sv}", typed({"max-peers": 9})), (*set_peer, "third", typed({"mtu": 1400})),
            (*set_peer, "second", typed({"key": KEY})), ("RemovePeer", "s", "third"),
            ("SetKey", "s", KEY), ("Activate", "")):
        world.office.on_listener("lan", member, signature, *values)
        for flow in flows:
            carries(flow)
    world.office.listen("other", peers=["x"], port=65300)
    world.office.on_listener("other", "Remove")
    for flow in flows:
        carries(flow)
    assert world.indexes() == before
    assert world.office.listener()["Peers"] == [
        o for o in world.office.client.objects() if o.endswith("/lan_2eoffice")]
    for flow in flows:
        assert len(flow.stop()) <= 1, "of those under way at the end"


def test_changes_count_at_once(world):
    """A peer whose tunnel they change comes back, with what is new; others stay."""
    world.host()
    world.office.listen(peers=["a", "b"])
    for name in ("a", "b"):
        world.laptop.dial(name, underlay="any")
        world.both_up(name)
    before = {n: world.indexes(n) for n in ("a", "b")}
    world.office.on_listener("lan", "SetPeer", "sa{sv}", "a",
                             typed({"mac": "02:00:5e:10:00:77"}))
    wait_until(lambda: (a := world.office.get("lan.a")) and (world.office.ns.link(
        a["Interface"] or "lo") or {}).get("address") == "02:00:5e:10:00:77", "the new MAC", 30)
    world.both_up("a", timeout=30)
    assert world.indexes("b") == before["b"] and world.indexes("a")[1] != before["a"][1]
    world.office.on_listener("lan", "RemovePeer", "s", "b")
    assert world.office.client.tunnels() == ["lan.a"]


def test_the_end_of_a_listener(lab, world):
    """Down or removed, its peers' tunnels and interfaces are gone when the answer comes."""
    world.host()
    world.office.listen(peers=["a", "b"])
    for name in ("a", "b"):
        world.laptop.dial(name, underlay="any")
        world.both_up(name)
    signals = lab.signals(world.office.daemon)
    world.office.on_listener("lan", "Deactivate")
    assert world.office.client.tunnels() == [] and not world.office.interfaces()
    assert world.office.listener()["Peers"] == [] and world.office.listener()["State"] == "down"
    told = [c for c in signals.changes(listener_path("lan")) if "Peers" in c]
    assert told and told[-1]["Peers"] == []
    world.office.on_listener("lan", "Activate")
    for name in ("a", "b"):
        world.both_up(name, timeout=40)
    assert len(world.office.client.call(listener_path("lan"), PROPERTIES, "Get", "ss",
                                        "org.ethercord1.Listener", "Peers")) == 2
    world.office.on_listener("lan", "Remove")
    assert world.office.client.objects() == {} and not world.office.interfaces()
