# SPDX-License-Identifier: GPL-2.0-or-later
"""bridge-create and attach: made, taken, given back, and refused with the reason."""

import pytest

from ethercord import FAR, bridge, far_vxlan, ping, refused, wait_until

JOIN = {"mode": "join-networks", "bridge": "br0"}


def cable(sites, name="cable"):
    sites.near.ip("link", "add", name, "type", "veth", "peer", "name", name + "-far")
    sites.near.ip("link", "set", name + "-far", "up")


def add(sites, name="t1", vni=1, **more):
    return sites.client.add(name, **{"remote": FAR, "id": vni, **JOIN, **more})


def test_bridge_is_made_and_removed_with_the_last(sites):
    for i in (1, 2):
        add(sites, f"t{i}", i, bridge_create=True)
    made = sites.near.link("br0")
    assert made["linkinfo"]["info_kind"] == "bridge" and made["ifalias"].startswith("ethercord")
    assert sites.near.is_up("br0")
    assert sites.near.master("ec-t1") == sites.near.master("ec-t2") == "br0"
    sites.client.on("t1", "Deactivate")
    assert sites.near.ifindex("br0") == made["ifindex"]
    sites.client.on("t1", "Activate")
    sites.client.on("t2", "Remove")
    assert sites.near.ifindex("br0") == made["ifindex"]
    sites.client.on("t1", "Remove")
    assert "br0" not in sites.near.links()


def test_removing_both_at_once(sites):
    for i in (1, 2):
        add(sites, f"t{i}", i, bridge_create=True)
    sites.client.call("/org/ethercord1", "org.ethercord1.Manager", "RemoveTunnels", "as",
                      ["t1", "t2"])
    assert set(sites.near.links()) == {"lo", "wire"}


@pytest.mark.parametrize("way", ["kill", "stop"])
def test_restart_keeps_the_bridge(sites, way):
    add(sites, bridge_create=True)
    wait_until(lambda: sites.near.link("br0")["operstate"] == "UP", "br0 has its port's carrier")
    before = sites.near.settled_links()
    getattr(sites.daemon, way)()
    assert sites.near.links() == before
    sites.daemon.start()
    sites.client.wait_state("t1", "up")
    assert sites.near.links() == before
    sites.client.on("t1", "Remove")
    assert "br0" not in sites.near.links()


def test_the_bridges_mac_is_its_own(sites):
    """The same after it was made anew, so that DHCP knows it."""
    add(sites, bridge_create=True)
    mac = sites.near.link("br0")["address"]
    sites.client.on("t1", "Deactivate")
    assert "br0" not in sites.near.links()
    sites.client.on("t1", "Activate")
    assert sites.near.link("br0")["address"] == mac
    assert int(mac[:2], 16) & 3 == 2


def test_somebodys_bridge_stays(sites):
    bridge(sites.near)
    add(sites, bridge_create=True)
    index = sites.near.ifindex("br0")
    sites.client.on("t1", "Remove")
    assert sites.near.ifindex("br0") == index and sites.near.is_up("br0")


def test_bridge_deleted_and_back(sites):
    """Without bridge-create it fails, with the reason, and mends itself when the bridge is back."""
    bridge(sites.near)
    add(sites)
    sites.near.ip("link", "del", "br0")
    got = sites.client.wait_state("t1", "failed")
    assert got["StateReason"][0] == "NoBridge" and "br0" in got["StateReason"][1]
    assert not sites.near.is_up("ec-t1")
    bridge(sites.near)
    sites.client.wait_state("t1", "up")
    assert sites.near.master("ec-t1") == "br0"


def test_created_bridge_deleted_by_somebody(sites):
    add(sites, bridge_create=True)
    sites.near.ip("link", "del", "br0")
    wait_until(lambda: sites.near.master("ec-t1") == "br0", "it is made again")
    sites.client.wait_state("t1", "up")


def test_attach(lab, sites):
    """What hangs on the attached interface reaches the far network; down gives it back."""
    bridge(sites.far)
    far_vxlan(sites.far, "far", 1, mtu=1500, bridge="br0")
    lab.host(sites.far, "br0", "192.168.9.2/24", "hb")
    box = lab.namespace("box")
    sites.near.ip("link", "add", "lan", "type", "veth", "peer", "name", "eth0", "netns", box.name)
    box.ips("addr add 192.168.9.1/24 dev eth0\nlink set eth0 up\n")
    add(sites, attach="lan", bridge_create=True)
    assert sites.near.master("lan") == "br0" and sites.near.is_up("lan")
    assert ping(box, "192.168.9.2", 2)
    sites.daemon.kill()
    sites.daemon.start()
    assert sites.near.master("lan") == "br0" and ping(box, "192.168.9.2")
    sites.client.on("t1", "Deactivate")
    assert sites.near.master("lan") is None
    assert not ping(box, "192.168.9.2", timeout=1, check=False)
    sites.client.on("t1", "Activate")
    assert ping(box, "192.168.9.2")
    sites.client.update("t1", attach="")
    assert sites.near.master("lan") is None
    sites.client.on("t1", "Remove")
    assert {"lan", "lo", "wire"} == set(sites.near.links())


def test_attach_that_was_in_the_bridge_stays(sites):
    """Not put there by us: not taken off by us, also by the next daemon."""
    bridge(sites.near)
    cable(sites)
    sites.near.ip("link", "set", "cable", "master", "br0", "up")
    add(sites, attach="cable")
    sites.daemon.restart()
    sites.client.on("t1", "Remove")
    assert sites.near.master("cable") == "br0"


def test_attach_taken_by_us_is_given_back_by_the_next_daemon(sites):
    bridge(sites.near)
    cable(sites)
    add(sites, attach="cable")
    sites.daemon.kill()
    sites.daemon.start()
    sites.client.on("t1", "Remove")
    assert sites.near.master("cable") is None


def test_attach_taken_off_is_put_back(sites):
    bridge(sites.near)
    cable(sites)
    add(sites, attach="cable")
    sites.near.ip("link", "set", "cable", "nomaster")
    wait_until(lambda: sites.near.master("cable") == "br0", "it is put back")


def refuse(sites, error, *words, **settings):
    before = sites.near.dump()
    with refused(error, *words):
        add(sites, **settings)
    assert sites.near.dump() == before
    # Refused to a running tunnel as well, which stays as it is.
    add(sites)
    before = sites.near.dump()
    with refused(error, *words):
        sites.client.update("t1", **settings)
    assert sites.near.dump() == before and sites.client.state("t1") == "up"


def test_attach_elsewhere_a_port(sites):
    bridge(sites.near)
    bridge(sites.near, "br-else")
    cable(sites)
    sites.near.ip("link", "set", "cable", "master", "br-else")
    refuse(sites, "Busy", "cable", "br-else", attach="cable")


def test_attach_carries_the_route(sites):
    bridge(sites.near)
    refuse(sites, "Loop", "wire", "route", attach="wire")


def test_attach_carries_the_default_route(sites):
    bridge(sites.near)
    cable(sites)
    sites.near.ips("addr add 172.16.0.1/24 dev cable\nlink set cable up\n"
                   "route add default via 172.16.0.2\n")
    refuse(sites, "Loop", "cable", "default route", attach="cable")


def test_attach_missing(sites):
    bridge(sites.near)
    refuse(sites, "InvalidSetting", "nothing0", attach="nothing0")


def test_attach_is_no_ethernet(sites):
    bridge(sites.near)
    refuse(sites, "InvalidSetting", "lo", "Ethernet", attach="lo")


def test_route_into_the_bridge_is_a_loop(sites):
    bridge(sites.near)
    sites.near.ips("addr add 10.66.0.1/24 dev br0\n")
    with refused("Loop", "br0"):
        add(sites, remote="10.66.0.2")
    assert "ec-t1" not in sites.near.links()


def test_moves_between_bridges(sites):
    bridge(sites.near, "br0")
    bridge(sites.near, "br1")
    cable(sites)
    add(sites, attach="cable")
    index = sites.near.ifindex("ec-t1")
    sites.client.update("t1", bridge="br1")
    assert sites.near.master("ec-t1") == sites.near.master("cable") == "br1"
    assert sites.near.ifindex("ec-t1") == index
    sites.client.update("t1", mode="point-to-point", bridge="", attach="")
    assert sites.near.master("ec-t1") is None and sites.near.master("cable") is None
    assert sites.near.ifindex("ec-t1") == index and sites.client.state("t1") == "up"


def test_half_made_bridge_of_nobody_is_removed(sites):
    """As a crash leaves it: our tag, and no tunnel that wants it."""
    sites.daemon.stop()
    bridge(sites.near, "br-left")
    sites.near.ip("link", "set", "br-left", "alias", made_alias(sites))
    sites.daemon.start()
    wait_until(lambda: "br-left" not in sites.near.links(), "it is removed")


def made_alias(sites):
    """The alias that the daemon gives to bridges of its own."""
    sites.daemon.start()
    add(sites, "probe", 77, bridge="br-probe", bridge_create=True)
    alias = sites.near.link("br-probe")["ifalias"]
    sites.client.on("probe", "Remove")
    sites.daemon.stop()
    return alias
