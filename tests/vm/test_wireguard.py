# SPDX-License-Identifier: GPL-2.0-or-later
"""WireGuard as the VPN: whose packets it takes, what is shown of it, and how it comes and goes."""

import os
import pathlib
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import ethercord
from ethercord import Lab, far_vxlan, ping, run, wait_until, wire

A, B, STRANGER = "10.7.0.1", "10.7.0.2", "10.7.0.9"


def missing():
    if os.geteuid() != 0:
        return "needs root"
    probe = ethercord.Namespace("probe")
    try:
        made = probe.ip("link", "add", "wg0", "type", "wireguard", check=False).returncode == 0
        return None if made else "this kernel has no WireGuard: run it with tests/vm/run-vm"
    finally:
        probe.close()


_why = missing()
pytestmark = pytest.mark.skipif(_why is not None, reason=str(_why))


class World:
    def __init__(self):
        self.lab = Lab()
        self.near, self.far = self.lab.namespace("near"), self.lab.namespace("far")
        wire(self.near, self.far)
        self.keys, self.public = {}, {}
        for name in ("near", "far"):
            self.keys[name] = self.lab.directory / name
            self.keys[name].write_text(run("wg", "genkey").stdout)
            self.public[name] = run("wg", "pubkey", input=self.keys[name].read_text()
                                    ).stdout.strip()
        self.plug(self.near, "near", A)
        self.plug(self.far, "far", B)
        self.far.exec("wg", "set", "wg0", "peer", self.public["near"], "allowed-ips", f"{A}/32")
        far_vxlan(self.far, "far1", 1, local=B, remote=A, mtu=1370)
        self.daemon = self.lab.daemon(self.near)
        self.client = self.daemon.bus.client

    def plug(self, ns, name, address):
        ns.ip("link", "add", "wg0", "type", "wireguard")
        ns.exec("wg", "set", "wg0", "private-key", self.keys[name], "listen-port", 51820)
        ns.ips(f"addr add {address}/24 dev wg0\nlink set wg0 up\n")

    def set_peer(self, *words):
        self.near.exec("wg", "set", "wg0", "peer", self.public["far"], *words)

    def underlay(self):
        return self.client.objects().get(f"{ethercord.PATH}/underlay/wg0", {}).get(
            ethercord.UNDERLAY)

    def wait_reason(self, *words):
        wait_until(lambda: (got := self.client.get("t1"))["State"] == "waiting" and
                   all(w in got["StateReason"][1] for w in words),
                   f"t1 waits and says {words}", 40, 0.1)

    def wait_shown(self, **properties):
        def right():
            got = self.underlay()
            shown = {**got, **got["Details"]} if got else {}
            return all(shown.get(k.replace("_", "-")) == v for k, v in properties.items()) and shown
        try:
            return wait_until(right, "", 60, 0.1)
        except AssertionError:
            raise AssertionError(f"{self.underlay()}; expected: {properties}") from None


@pytest.fixture(scope="module")
def world():
    made = World()
    yield made
    made.lab.close()


def test_shown_without_peers(world):
    shown = world.wait_shown(Kind="wireguard", State="up", Protected=True, Mtu=1420)
    assert shown["title"] == "WireGuard on wg0" and shown["listen-port"] == "51820"
    assert shown["peers"] == "0" and "peer" not in shown


def test_allowed_ips_and_endpoint(world):
    """No event tells of either; the tunnel comes up all the same."""
    world.client.add("t1", remote=B, id=1, underlay="vpn")
    world.wait_reason(f"no peer of wg0 has {B} in its allowed-ips")
    world.set_peer("allowed-ips", f"{B}/32")
    world.wait_reason(f"the WireGuard peer for {B} on wg0 has no endpoint yet")
    world.set_peer("endpoint", "10.77.0.2:51820")
    got = world.client.wait_state("t1", "up", 40)
    assert got["Underlay"] == f"{ethercord.PATH}/underlay/wg0" and got["Protected"] is True
    world.client.add("t2", remote=STRANGER, id=2, underlay="wireguard")
    assert STRANGER in world.client.get("t2")["StateReason"][1]
    world.client.on("t2", "Remove")


def test_handshake_is_shown(world):
    assert ping(world.near, B, timeout=30)
    shown = world.wait_shown(handshake="recent", endpoint="10.77.0.2:51820", peers="1",
                             peer=world.public["far"])
    assert abs(int(shown["handshake-time"]) - time.time()) < 100
    world.lab.flow(world.near, "ec-t1", world.far, "far1").start().stop(10)


def test_down_up_and_made_anew(world):
    index = world.near.ifindex("ec-t1")
    world.near.ip("link", "set", "wg0", "down")
    world.wait_reason("WireGuard on wg0")
    assert world.underlay()["State"] == "down"
    world.near.ip("link", "set", "wg0", "up")
    world.client.wait_state("t1", "up", 40)
    world.near.ip("link", "del", "wg0")
    world.wait_reason("WireGuard on wg0")
    world.plug(world.near, "near", A)
    world.set_peer("allowed-ips", f"{B}/32", "endpoint", "10.77.0.2:51820")
    world.client.wait_state("t1", "up", 40)
    assert world.near.ifindex("ec-t1") == index
    world.lab.flow(world.near, "ec-t1", world.far, "far1").start().stop(10)


def test_peer_is_taken_away(world):
    """Seen by the poll, for there is no event; the kernel itself sends nothing meanwhile."""
    world.set_peer("remove")
    world.wait_reason(f"no peer of wg0 has {B} in its allowed-ips")
