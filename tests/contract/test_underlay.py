# SPDX-License-Identifier: GPL-2.0-or-later
"""Underlays: objects, signals, and the states of the tunnels on them, with a VPN made of a file."""

import pytest

import ethercord
from ethercord import (FAKE_DAEMON, FAR, PATH, PROPERTIES, UNDERLAY, bridge, refused, tunnel_path,
                       wait_until)

ON = tunnel_path("t1")
VPN = f"{PATH}/underlay/wireguard"


@pytest.fixture
def fake(lab):
    file = lab.directory / "vpn"
    sites = ethercord.Sites(lab, program=FAKE_DAEMON,
                            environment={"ETHERCORD_FAKE_UNDERLAY": str(file)})
    sites.vpn = file
    ethercord.far_vxlan(sites.far, "far-t1", 1, mtu=1350)
    return sites


def underlay(sites, path=VPN):
    return sites.client.call(path, PROPERTIES, "GetAll", "s", UNDERLAY)


def test_waits_comes_up_and_waits_again(lab, fake):
    signals = lab.signals(fake.daemon)
    fake.client.add("t1", remote=FAR, id=1, underlay="wireguard")
    got = fake.client.get("t1")
    assert got["State"] == "waiting" and got["StateReason"] == ["NoUnderlay",
                                                               "the fake VPN is down"]
    assert got["Underlay"] == VPN and not got["Protected"] and got["Ifindex"] == 0
    assert underlay(fake) == {"Name": "wireguard", "Kind": "fake", "Interface": "", "State": "down",
                              "Protected": False, "Mtu": 0, "Details": {"setting": "wireguard"}}
    assert (PATH, ethercord.OBJECT_MANAGER, "InterfacesAdded") in {s[:3] for s in signals.take()}

    fake.vpn.write_text("wire 1400\n")
    got = fake.client.wait_state("t1", "up")
    assert got["Protected"] and got["Mtu"] == 1350 == fake.near.link("ec-t1")["mtu"]
    assert underlay(fake) == {"Name": "wireguard", "Kind": "fake", "Interface": "wire",
                              "State": "up", "Protected": True, "Mtu": 1400,
                              "Details": {"setting": "wireguard"}}
    seen = signals.take()
    of_vpn = [v[1] for p, i, m, v in seen if p == VPN and m == "PropertiesChanged"]
    of_tunnel = [v[1] for p, i, m, v in seen if p == ON and m == "PropertiesChanged"]
    merged = {k: v for c in of_vpn for k, v in c.items()}
    assert {k: merged[k] for k in ("State", "Protected", "Mtu", "Interface")} == {
        "State": "up", "Protected": True, "Mtu": 1400, "Interface": "wire"}
    assert [c["State"] for c in of_tunnel if "State" in c] == ["up"]
    flow = fake.flow()
    index = fake.near.ifindex("ec-t1")

    fake.vpn.write_text("")
    got = fake.client.wait_state("t1", "waiting")
    assert got["StateReason"][1] == "the fake VPN is down"
    assert not fake.near.is_up("ec-t1") and fake.near.ifindex("ec-t1") == index
    assert underlay(fake)["State"] == "down" and not underlay(fake)["Protected"]
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
    fake.vpn.write_text("wire 1400\n")
    fake.client.add("t1", remote=FAR, id=1, underlay="wireguard")
    assert fake.client.state("t1") == "up"
    flow = fake.flow()
    index = fake.near.ifindex("ec-t1")
    fake.vpn.write_text("wire 1300\n")
    wait_until(lambda: fake.near.link("ec-t1")["mtu"] == 1250, "the MTU follows")
    got = fake.client.get("t1")
    assert (got["Mtu"], got["LargestFrame"], got["State"]) == (1250, 1264, "up")
    assert fake.near.ifindex("ec-t1") == index and flow.stop(50) == []


def test_shared_and_removed_with_the_last(lab, fake):
    fake.vpn.write_text("wire 1400\n")
    for i in (1, 2):
        fake.client.add(f"t{i}", remote=FAR, id=i, underlay="wireguard")
    signals = lab.signals(fake.daemon)
    assert VPN in fake.client.objects()
    fake.client.on("t1", "Remove")
    assert VPN in fake.client.objects()
    fake.client.on("t2", "Deactivate")
    assert VPN not in fake.client.objects()
    gone = [v[0] for p, i, m, v in signals.take() if m == "InterfacesRemoved"]
    assert gone.count(VPN) == 1
    fake.client.on("t2", "Activate")
    assert VPN in fake.client.objects() and fake.client.get("t2")["Underlay"] == VPN


def test_bridge_port_outlives_an_outage(fake):
    """A bridge port keeps its place, its number and its settings while it is down."""
    bridge(fake.near)
    fake.vpn.write_text("wire 1400\n")
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
    fake.vpn.write_text("wire 1400\n")
    fake.client.add("t1", remote=FAR, id=1, underlay="wireguard")
    flow = fake.flow()
    fake.client.update("t1", underlay="any")
    got = fake.client.get("t1")
    assert got["Underlay"] == f"{PATH}/underlay/any" and not got["Protected"]
    assert VPN not in fake.client.objects()
    assert flow.stop(50) == []


def test_other_vpns_are_not_guessed(fake):
    for kind in ("vpn", "ipsec", "openvpn", "networkmanager"):
        with refused("NoUnderlay", kind, "device:"):
            fake.client.add("bad", remote=FAR, id=9, underlay=kind)
    assert fake.client.tunnels() == []
