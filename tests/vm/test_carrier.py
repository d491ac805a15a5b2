# SPDX-License-Identifier: GPL-2.0-or-later
"""Probes, carrier and NAT mappings with the encapsulations of a kernel that has GRE."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import ethercord
from ethercord import wait_until, wire
from probes import End, agree, now

A4, B4 = "10.9.0.1", "10.9.0.2"
A6, B6 = "fd00:9::1", "fd00:9::2"
FOU = ["key", "7", "encap", "fou", "encap-sport", "65201", "encap-dport", "65201"]
V6 = ["encaplimit", "none"]
# kind, more words, outer family, Ethernet?, the largest packet over 1500
KINDS = {
    "gretap": ("gretap", [], 4, True, 1462),
    "gretap-key": ("gretap", ["key", "7"], 4, True, 1458),
    "gretap-fou": ("gretap", FOU, 4, True, 1450),
    "gretap-fragments": ("gretap", ["nopmtudisc", "ignore-df"], 4, True, 1500),
    "ip6gretap": ("ip6gretap", V6, 6, True, 1442),
    "vxlan": ("vxlan", ["id", "7", "dstport", "4789", "nolearning"], 4, True, 1450),
    "gre": ("gre", [], 4, False, 1476),
    "ipip": ("ipip", [], 4, False, 1480),
    "ip6gre": ("ip6gre", V6, 6, False, 1456),
    "ip6tnl": ("ip6tnl", [*V6, "mode", "any"], 6, False, 1460),
}
FRAGMENTS = """table ip block {
  chain in { type filter hook prerouting priority -450; policy accept; ip frag-off & 0x3fff != 0 drop; }
}"""


class World:
    def __init__(self, lab, name):
        self.near, self.far = lab.namespace("near", ipv6=True), lab.namespace("far", ipv6=True)
        wire(self.near, self.far, address_a=f"{A4}/24", address_b=f"{B4}/24")
        kind, more, family, self.ethernet, self.mtu = KINDS[name]
        ends = (A4, B4) if family == 4 else (A6, B6)
        for ns, (local, remote), own in ((self.near, ends, A6), (self.far, ends[::-1], B6)):
            ns.ip("address", "add", f"{own}/64", "dev", "wire", "nodad")
            if "fou" in more:
                ethercord.run("modprobe", "fou")
                ns.ip("fou", "add", "port", "65201", "ipproto", "47")
            words = ["-6"] if family == 6 else []
            ns.ip(*words, "link", "add", "cord0", "type", kind, "local", local, "remote", remote,
                  *more)
            ns.ip("link", "set", "cord0", "mtu", self.mtu)
            if self.ethernet:
                ethercord.bridge(ns, mtu=self.mtu)
                ns.ip("link", "set", "cord0", "master", "br0")
            ns.ip("link", "set", "cord0", "up")
        kind = "ethernet" if self.ethernet else "ip"
        self.ends = [End(lab, ns, "cord0", dialer, 500, 2000, kind=kind)
                     for ns, dialer in ((self.near, True), (self.far, False))]


@pytest.fixture
def lab():
    made = ethercord.Lab()
    yield made
    made.close()


@pytest.mark.parametrize("name", KINDS)
def test_proof_loss_carrier(lab, name):
    world = World(lab, name)
    near, far = world.ends
    agree(near, far, size=world.mtu)

    def state(end):
        link = end.namespace.link("cord0")
        port = link["linkinfo"].get("info_slave_data", {}).get("state", "none")
        return "NO-CARRIER" not in link["flags"], link["operstate"] == "DORMANT", port
    working = (True, False, "forwarding" if world.ethernet else "none")
    dead = (False, True, "disabled" if world.ethernet else "none")
    for end in world.ends:
        wait_until(lambda e=end: state(e) == working, "it works", 30)
    begin = now()
    world.far.ip("link", "set", "wire", "down")
    for end in world.ends:
        end.wait("lost", begin, 20)
        end.do("carrier", end.namespace.ifindex("cord0"), "off")
        wait_until(lambda e=end: state(e) == dead, "no carrier", 30)
    begin = now()
    world.far.ip("link", "set", "wire", "up")
    world.far.ip("address", "replace", f"{B6}/64", "dev", "wire", "nodad")
    for end in world.ends:
        end.wait("found", begin, 30)
        end.do("carrier", end.namespace.ifindex("cord0"), "on")
        wait_until(lambda e=end: state(e) == working, "it works again", 30)
    agree(near, far, size=world.mtu)


def test_fragments_dropped(lab):
    world = World(lab, "gretap-fragments")
    world.far.exec("nft", "-f", "-", input=FRAGMENTS)
    begin = world.ends[0].proves(1500)
    world.ends[1].proves(1500)
    assert 1462 - 8 <= world.ends[0].outcome(begin) <= 1462


def test_fou_mapping(lab):
    """The peer's port changes: what the kernel drops as a stranger's is seen all the same."""
    world = World(lab, "gretap-fou")
    near, far = world.ends
    far.do("map", world.far.ifindex("wire"), 4, 65201, "gre", 7)
    agree(near, far, size=world.mtu)
    assert far.wait("moved")["port"] == 65201
    for sequence in ([], ["oseq"]):
        begin, port = now(), 40000 + len(sequence)
        world.near.ip("link", "set", "cord0", "type", "gretap", "local", A4, "remote", B4, "key",
                      "7", *sequence, "encap", "fou", "encap-sport", port, "encap-dport", "65201")
        moved = far.wait("moved", begin, 30)
        assert (moved["address"], moved["port"]) == (A4, port)
    # Of another key nothing is taken.
    far.do("map", world.far.ifindex("wire"), 4, 65201, "gre", 8)
    begin = now()
    wait_until(lambda: near.statistics()["sent"] and now() > begin + 2, "four beats")
    assert not far.all("moved", begin)
