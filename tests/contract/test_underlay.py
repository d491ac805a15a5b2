# SPDX-License-Identifier: GPL-2.0-or-later
"""Underlays: objects, signals, and the states of the tunnels on them, with a VPN made of a file."""

import pytest

import ethercord
from ethercord import (FAR, PATH, PROPERTIES, UNDERLAY, bridge, tunnel_path,
                       wait_until)

ON = tunnel_path("t1")
VPN = f"{PATH}/underlay/wire"
TITLE = "the fake VPN on wire"


@pytest.fixture(autouse=True)
def far_end(fake):
    ethercord.far_vxlan(fake.far, "far-t1", 1, mtu=1350)


def underlay(sites, path=VPN):
    return sites.client.call(path, PROPERTIES, "GetAll", "s", UNDERLAY)


def test_waits_comes_up_and_waits_again(lab, fake):
    signals = lab.signals(fake.daemon)
    fake.client.add("t1", remote=FAR, id=1, underlay="wireguard")
    got = fake.client.get("t1")
    assert got["State"] == "waiting" and got["StateReason"] == ["NoUnderlay", f"{TITLE} is down"]
    assert got["Underlay"] == "/" and not got["Protected"] and got["Ifindex"] == 0
    assert got["ProtectedBy"] == []
    down = {"Name": "wire", "Kind": "wireguard", "Interface": "wire", "State": "down",
            "Protected": True, "Mtu": 0, "Details": {"title": TITLE}}
    assert underlay(fake) == down

    fake.vpn.write_text("wire 1400\n")
    got = fake.client.wait_state("t1", "up")
    assert got["Underlay"] == VPN
    assert got["Protected"] and got["ProtectedBy"] == ["nftables", "route"]
    assert got["Mtu"] == 1350 == fake.near.link("ec-t1")["mtu"]
    assert underlay(fake) == dict(down, State="up", Mtu=1400)
    seen = signals.take()
    of_vpn = [v[1] for p, i, m, v in seen if p == VPN and m == "PropertiesChanged"]
    of_tunnel = [v[1] for p, i, m, v in seen if p == ON and m == "PropertiesChanged"]
    merged = {k: v for c in of_vpn for k, v in c.items()}
    assert {k: merged[k] for k in ("State", "Protected", "Mtu", "Interface")} == {
        "State": "up", "Protected": True, "Mtu": 1400, "Interface": "wire"}
    assert [c["State"] for c in of_tunnel if "State" in c] == ["up"]
    assert [c["ProtectedBy"] for c in of_tunnel if "ProtectedBy" in c][-1] == got["ProtectedBy"]
    flow = fake.flow()
    index = fake.near.ifindex("ec-t1")

    fake.vpn.write_text("")
    got = fake.client.wait_state("t1", "waiting")
    assert got["StateReason"] == ["NoUnderlay", f"{TITLE} is down"]
    assert not fake.near.is_up("ec-t1") and fake.near.ifindex("ec-t1") == index
    assert underlay(fake)["State"] == "down"
    assert got["Underlay"] == VPN and got["Protected"], "the fence outlives the outage"
    wire = lab.capture(fake.near, "wire", outgoing_only=True)
    fake.vpn.unlink()
    mark = flow.sent
    flow.wait_sent(mark + 50)
    assert not wire.take(), "frames leave though the VPN is down"

    fake.vpn.write_text("wire 1400\n")
    fake.client.wait_state("t1", "up")
    assert fake.near.ifindex("ec-t1") == index
    wire.clear()
    wait_until(lambda: [f for f in wire.take() if len(f) > 100], "the flow goes on")
    assert set(flow.stop()) & set(range(mark, mark + 50)), "the frames of the outage are lost"


def test_mtu_follows_the_vpn(lab, fake):
    fake.vpn_up()
    fake.client.add("t1", remote=FAR, id=1, underlay="wireguard")
    assert fake.client.state("t1") == "up"
    flow = fake.flow()
    index = fake.near.ifindex("ec-t1")
    fake.vpn.write_text("wire 1300\n")
    wait_until(lambda: fake.near.link("ec-t1")["mtu"] == 1250, "the MTU follows")
    got = fake.client.get("t1")
    assert (got["Mtu"], got["LargestFrame"], got["State"]) == (1250, 1264, "up")
    assert fake.near.ifindex("ec-t1") == index and flow.stop(50) == []


def test_listed_whether_used_or_not(lab, fake):
    """A VPN is an object as long as it is there, and as long as a tunnel rides on it."""
    signals = lab.signals(fake.daemon)
    assert VPN in fake.client.objects()
    assert VPN in fake.client.call(PATH, PROPERTIES, "Get", "ss", ethercord.MANAGER, "Underlays")
    fake.vpn_up()
    fake.client.add("t1", remote=FAR, id=1, underlay="wireguard")
    fake.client.on("t1", "Deactivate")
    assert VPN in fake.client.objects() and fake.client.get("t1")["Underlay"] == "/"
    fake.client.on("t1", "Activate")
    assert fake.client.get("t1")["Underlay"] == VPN
    signals.take()
    fake.near.ip("link", "set", "wire", "down")
    fake.near.ip("link", "set", "wire", "name", "other")
    wait_until(lambda: f"{PATH}/underlay/other" in fake.client.objects(), "the VPN's new name")
    assert underlay(fake)["State"] == "down", "t1 misses it by its name"
    fake.client.on("t1", "Remove")
    assert VPN not in fake.client.objects()
    gone = [v[0] for p, i, m, v in signals.take() if m == "InterfacesRemoved"]
    assert gone.count(VPN) == 1


def test_named_underlays_come_and_go_with_their_tunnels(lab, fake):
    fake.client.add("t1", remote=FAR, id=1, underlay="any")
    fake.client.add("t2", remote=FAR, id=2, underlay="device:any")
    got = fake.client.objects()
    of = [fake.client.get(name)["Underlay"] for name in ("t1", "t2")]
    assert [got[path][UNDERLAY]["Name"] for path in of] == ["any", "device:any"]
    fake.client.on("t1", "Remove")
    fake.client.on("t2", "Remove")
    assert not set(of) & set(fake.client.objects())


def test_bridge_port_outlives_an_outage(fake):
    """A bridge port keeps its place, its number and its settings while it is down."""
    bridge(fake.near)
    fake.vpn_up()
    fake.client.add("t1", remote=FAR, id=1, underlay="wireguard", mode="join-networks",
                    bridge="br0")
    fake.near.exec("bridge", "link", "set", "dev", "ec-t1", "priority", "7")
    index = fake.near.ifindex("ec-t1")
    fake.vpn.write_text("")
    fake.client.wait_state("t1", "waiting")
    assert fake.near.master("ec-t1") == "br0" and not fake.near.is_up("ec-t1")
    fake.vpn.write_text("wire 1400\n")
    fake.client.wait_state("t1", "up")
    assert fake.near.master("ec-t1") == "br0" and fake.near.ifindex("ec-t1") == index
    port = fake.near.link("ec-t1")["linkinfo"]["info_slave_data"]
    assert port["priority"] == 7


def test_moves_to_another_underlay(fake):
    fake.vpn_up()
    fake.client.add("t1", remote=FAR, id=1, underlay="wireguard")
    flow = fake.flow()
    fake.client.update("t1", underlay="any")
    got = fake.client.get("t1")
    assert got["Underlay"] == f"{PATH}/underlay/any" and not got["Protected"]
    assert got["ProtectedBy"] == []
    assert flow.stop(50) == []


def test_wanting_protection_that_is_not_there(lab, fake):
    """From `any` to a VPN that does not carry it: nothing is sent until one does."""
    fake.client.add("t1", remote=FAR, id=1, underlay="any")
    flow = fake.flow()
    fake.client.update("t1", underlay="vpn")
    got = fake.client.get("t1")
    assert got["State"] == "waiting" and got["Underlay"] == "/"
    assert not fake.near.is_up("ec-t1")
    wire = lab.capture(fake.near, "wire", outgoing_only=True)
    flow.wait_sent(flow.sent + 50)
    assert not wire.take()
    fake.vpn.write_text("wire 1400\n")
    assert fake.client.wait_state("t1", "up")["Protected"]
    wait_until(wire.take, "the flow goes on")
    flow.close()


def test_other_vpns_are_not_taken(fake):
    """The setting names a kind; the route leads to a VPN of another one."""
    fake.vpn_up()
    for kind in ("ipsec", "openvpn", "networkmanager"):
        fake.client.add(kind, remote=FAR, id=9, underlay=kind)
        got = fake.client.get(kind)
        assert got["State"] == "waiting" and got["StateReason"][0] == "NotProtected"
        assert kind in got["StateReason"][1] and TITLE in got["StateReason"][1]
        assert got["Ifindex"] == 0
        fake.client.on(kind, "Remove")
    fake.client.add("t1", remote=FAR, id=1, underlay="vpn")
    assert fake.client.state("t1") == "up" and fake.client.get("t1")["Underlay"] == VPN


def test_no_vpn_at_all(lab, fake):
    """The route leads out by something that is no VPN."""
    fake.near.ip("link", "set", "wire", "alias", "")
    wait_until(lambda: VPN not in fake.client.objects(), "the daemon sees that it is none")
    fake.client.add("t1", remote=FAR, id=1, underlay="vpn")
    got = fake.client.get("t1")
    assert got["State"] == "waiting" and got["StateReason"][0] == "NotProtected"
    for word in ("wire", "no VPN", "underlay=device:", "underlay=any"):
        assert word in got["StateReason"][1]
    assert got["Ifindex"] == 0


def test_a_name_taken_over(fake):
    """What has the VPN's name now is no VPN."""
    fake.vpn_up()
    fake.client.add("t1", remote=FAR, id=1, underlay="device:wire")
    assert fake.client.get("t1")["Protected"]
    fake.near.ip("link", "set", "wire", "alias", "")
    fake.vpn.write_text("")
    got = fake.client.wait_state("t1", "waiting")
    assert got["StateReason"][0] == "NotProtected"
    assert f"{TITLE} is gone" in got["StateReason"][1] and "no VPN" in got["StateReason"][1]
    assert not fake.near.is_up("ec-t1")
    fake.vpn.write_text("wire 1400\n")
    fake.client.wait_state("t1", "up")
