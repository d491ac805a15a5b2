# SPDX-License-Identifier: GPL-2.0-or-later
"""What somebody changes by hand is put back; what is not ours is left alone."""

import pytest

from ethercord import FAR, Sites, bridge, far_vxlan, wait_until

TAG = "ethercord:t1"


def vxlan(site, name="ec-t1"):
    return site.link(name)["linkinfo"]["info_data"]


@pytest.fixture
def port(sites):
    """A tunnel that is a port of br0."""
    bridge(sites.near)
    far_vxlan(sites.far, "far", 7, mtu=1500)
    sites.client.add("t1", remote=FAR, id=7, mode="join-networks", bridge="br0")
    assert sites.near.master("ec-t1") == "br0"
    return sites


CHANGES = {
    "off the bridge": ("link set ec-t1 nomaster", lambda s: s.near.master("ec-t1") == "br0"),
    "down": ("link set ec-t1 down", lambda s: s.near.is_up("ec-t1")),
    "mtu": ("link set ec-t1 mtu 1300", lambda s: s.near.link("ec-t1")["mtu"] == 1500),
    "remote": ("link set ec-t1 type vxlan id 7 remote 10.77.0.99",
               lambda s: vxlan(s.near)["remote"] == FAR),
    "learning": ("link set ec-t1 type vxlan id 7 learning",
                 lambda s: not vxlan(s.near).get("learning")),
    "alias": ("link set ec-t1 alias somebody", lambda s: s.near.link("ec-t1")["ifalias"] == TAG),
    "group": ("link set ec-t1 group 0", lambda s: str(s.near.link("ec-t1")["group"]) not in
              ("0", "default")),
    "name": ("link set ec-t1 down name other", lambda s: "ec-t1" in s.near.links()
             and s.near.is_up("ec-t1")),
}


@pytest.mark.parametrize("what", CHANGES)
def test_changed_by_hand(port, what):
    command, repaired = CHANGES[what]
    index = port.near.ifindex("ec-t1")
    port.near.ip(*command.split())
    wait_until(lambda: repaired(port), f"{what} is put back")
    assert port.near.ifindex("ec-t1") == index, "the same interface"
    assert port.near.master("ec-t1") == "br0"
    assert port.client.state("t1") == "up"


def test_deleted(port):
    index = port.near.ifindex("ec-t1")
    port.near.ip("link", "del", "ec-t1")
    wait_until(lambda: port.near.master("ec-t1") == "br0" and port.near.is_up("ec-t1"),
               "it is made again and is a port again")
    assert port.near.ifindex("ec-t1") != index
    assert port.client.get("t1")["Ifindex"] == port.near.ifindex("ec-t1")


def test_bridge_deleted_and_made_again(port):
    port.near.ip("link", "del", "br0")
    port.client.wait_state("t1", "failed")
    assert port.client.get("t1")["StateReason"][0] == "NoBridge"
    assert not port.near.is_up("ec-t1"), "nothing leaves by it meanwhile"
    bridge(port.near)
    port.client.wait_state("t1", "up")
    assert port.near.master("ec-t1") == "br0"


@pytest.mark.parametrize("when", ["running", "starting"])
def test_orphans_go_others_stay(lab, when):
    sites = Sites(lab, start=when == "running")
    near = sites.near
    for name in ("orphan", "mine", "plain"):
        near.ip("link", "add", name, "type", "vxlan", "id", str(100 + len(name)), "remote", FAR,
                "dstport", str(5000 + len(name)))
    near.ip("link", "set", "mine", "alias", "mine: not ethercord:t1")
    near.ip("link", "add", "brx", "type", "bridge")
    near.ip("address", "add", "192.0.2.9/32", "dev", "mine")
    near.ip("link", "set", "orphan", "alias", "ethercord:gone")
    near.ip("link", "set", "orphan", "up")  # the kernel tells nobody of an alias on one that is down
    if when == "starting":
        sites.daemon.start()
    wait_until(lambda: "orphan" not in near.links(), "the orphan goes")
    before = near.dump("ec-t1")
    sites.client.add("t1", remote=FAR, id=7)
    sites.client.on("t1", "Deactivate")
    sites.client.on("t1", "Activate")
    sites.client.on("t1", "Remove")
    assert near.dump("ec-t1") == before, "what is not ours is as it was"
    assert {"mine", "plain", "brx"} <= set(near.links())
