# SPDX-License-Identifier: GPL-2.0-or-later
"""Manager.Diagnose: what it finds, with a VPN made of a file, and what it refuses."""

import dbus
import pytest

import ethercord
from ethercord import (FAR, MANAGER, NEAR, PATH, ROOT, Capture, bridge, refused,
                       wait_until)

TITLE = "the fake VPN on wire"
SEVERITIES = {"ok", "info", "warning", "error"}


def ask(sites, remote="", **options):
    typed = {k: dbus.Array(v, "s") if isinstance(v, list) else v for k, v in options.items()}
    return sites.client.call(PATH, MANAGER, "Diagnose", "sa{sv}", remote,
                             dbus.Dictionary(typed, signature="sv"))


def diagnose(sites, remote="", **options):
    """Findings by code; a code comes once in these tests."""
    found = ask(sites, remote, **options)
    contract = (ROOT / f"dbus/{MANAGER}.xml").read_text()
    for f in found:
        assert set(f) == {"severity", "code", "text", "remedy"} and f["severity"] in SEVERITIES
        assert f["text"] and f["text"].isprintable() and f["remedy"].isprintable()
        assert not f["text"].endswith("."), "as all our sentences"
        assert f["code"] in contract, "the contract names every code"
    by_code = {f["code"]: f for f in found}
    assert len(by_code) == len(found), found
    return by_code


def has(found, code, severity, *words):
    assert code in found, found
    assert found[code]["severity"] == severity, found[code]
    for word in words:
        assert word in found[code]["text"] + found[code]["remedy"], f"{word}: {found[code]}"


def test_the_machine(fake):
    found = diagnose(fake)
    has(found, "encapsulations", "ok", "vxlan")
    has(found, "nftables", "ok", "can be used")
    has(found, "vpn-down", "info", TITLE)
    fake.vpn.write_text("wire 1400\n")
    wait_until(lambda: "vpn" in diagnose(fake), "the VPN is up")
    has(diagnose(fake), "vpn", "ok", TITLE, "1400")
    fake.client.add("t1", remote=FAR, id=1, underlay="vpn")
    has(diagnose(fake), "nftables", "ok", "1 of 1")
    assert not [f for f in diagnose(fake).values() if f["severity"] == "error"]


def test_encapsulations_are_those_of_the_property(fake):
    made = fake.client.call(PATH, ethercord.PROPERTIES, "Get", "ss", MANAGER, "Encapsulations")
    found = diagnose(fake)
    for word in made:
        kind, plane = word.split("/")
        code = {"kernel": "encapsulations", "user": "user-plane"}[plane]
        assert kind in found[code]["text"]
    assert "raw-udp" not in found["encapsulations"]["text"]
    if "gretap-fou/kernel" not in made:
        has(found, "encapsulations-missing", "info", "gretap-fou", "rtnl-link-gretap", "fou")


def test_no_vpn(sites):
    has(diagnose(sites), "no-vpn", "warning", "underlay=device:")
    found = diagnose(sites, FAR)
    has(found, "route", "info", FAR, "wire", NEAR)
    has(found, "no-path", "error", "vxlan", "no VPN", FAR)
    assert "protected" not in found
    found = diagnose(sites, FAR, underlay="device:wire")
    has(found, "not-protected", "warning", "confined to wire")
    has(diagnose(sites, FAR, underlay="any"), "not-protected", "warning", "underlay=any")
    assert sites.client.objects() == {}, "the questions left no objects"


def test_the_way_through_a_vpn(fake):
    found = diagnose(fake, FAR)
    has(found, "no-path", "error", TITLE, "down")
    fake.vpn.write_text("wire 1400\n")
    wait_until(lambda: "protected" in diagnose(fake, FAR), "the VPN is up")
    found = diagnose(fake, FAR)
    has(found, "protected", "ok", "vxlan", TITLE)
    has(found, "mtu", "info", NEAR, "1400", "vxlan 1350")
    has(diagnose(fake, FAR, underlay="openvpn"), "no-path", "error", "openvpn", TITLE)
    found = diagnose(fake, FAR, encapsulation=["vxlan"])
    assert found["protected"]["text"].startswith("vxlan to ")
    found = diagnose(fake, FAR, encapsulation=["raw-udp"])
    has(found, "protected", "ok", "raw-udp to ")
    has(found, "mtu", "info", "raw-udp 1358")


def test_no_route(fake):
    has(diagnose(fake, "192.0.2.1"), "no-route", "error", "192.0.2.1", "unreachable")
    has(diagnose(fake, "fd00::1"), "no-route", "error", "fd00::1")


def test_names_are_not_looked_up(fake):
    """That would block, and ask the network. A tunnel that did it is believed."""
    has(diagnose(fake, "far.example"), "remote-unknown", "error", "far.example", "address")
    found = diagnose(fake, "a b;$(x)")
    has(found, "remote-unknown", "error")
    fake.client.add("t1", remote="localhost", id=1, underlay="any")
    wait_until(lambda: fake.client.get("t1")["Remote"], "the name is resolved")
    found = diagnose(fake, "localhost")
    has(found, "route", "info", fake.client.get("t1")["Remote"])


def test_a_tunnel(fake):
    fake.client.add("t1", remote=FAR, id=1, underlay="vpn")
    found = diagnose(fake, tunnel="t1")
    has(found, "state", "warning", "t1", "waiting", f"{TITLE} is down")
    has(found, "no-path", "error", TITLE)
    has(found, "no-fence", "info")
    fake.vpn.write_text("wire 1400\n")
    fake.client.wait_state("t1", "up")
    found = diagnose(fake, tunnel="t1")
    has(found, "state", "ok", "t1 is up")
    has(found, "protected", "ok", TITLE)
    has(found, "fence", "ok", "nftables and route", TITLE)
    has(found, "stopped-none", "ok")
    has(found, "frames", "ok", "1350")
    assert {f["severity"] for f in found.values()} <= {"ok", "info"}
    fake.vpn.write_text("")
    fake.client.wait_state("t1", "waiting")
    has(diagnose(fake, tunnel="t1"), "fence", "ok", "nftables and route")
    fake.client.on("t1", "Deactivate")
    has(diagnose(fake, tunnel="t1"), "state", "info", "t1 is down", "ethercordctl up t1")


def test_settings_in_their_stead(fake):
    """The tunnel's settings, but for those that are given."""
    fake.vpn_up()
    fake.client.add("t1", remote=FAR, id=1, underlay="any")
    has(diagnose(fake, tunnel="t1"), "not-protected", "warning", "underlay=any")
    has(diagnose(fake, tunnel="t1", underlay="vpn"), "protected", "ok", TITLE)
    before = fake.client.get("t1")
    diagnose(fake, "192.0.2.1", tunnel="t1", underlay="device:none0", encapsulation=["vxlan"])
    after = fake.client.get("t1")
    del before["Statistics"], after["Statistics"]
    assert before == after


@pytest.mark.parametrize("full, words", [("auto", ["1500-byte", "too-big"]), ("no", ["lost"])])
def test_frames_of_a_network(fake, full, words):
    bridge(fake.near)
    fake.vpn_up()
    fake.client.add("t1", remote=FAR, id=1, underlay="vpn", mode="join-networks", bridge="br0",
                    full_frames=full)
    has(diagnose(fake, tunnel="t1"), "frames", "ok" if full == "auto" else "warning", *words)


def test_loop(fake):
    fake.client.add("t1", remote=FAR, id=1, underlay="any", address="10.5.0.1/24")
    has(diagnose(fake, "10.5.0.2", tunnel="t1"), "route-loop", "error", "ec-t1")


BAD = [({"nonsense": "x"}, ["nonsense", "tunnel", "underlay", "encapsulation"]),
       ({"tunnel": dbus.UInt32(1)}, ["tunnel"]), ({"encapsulation": "vxlan"}, ["encapsulation"]),
       ({"underlay": ["vpn"]}, ["underlay"]), ({"underlay": "telepathy"}, ["wireguard", "any"]),
       ({"encapsulation": ["pigeon"]}, ["vxlan"]), ({"bad\n": "x"}, ["allowed"])]


@pytest.mark.parametrize("options, words", BAD, ids=lambda v: str(list(v)[:1]))
def test_bad_options(sites, options, words):
    with refused("InvalidSetting", *words):
        ask(sites, FAR, **options)


def test_bad_remote_and_no_tunnel(sites):
    with refused("InvalidSetting", "remote"):
        ask(sites, "10.0.0.1\n")
    with refused("NoSuchTunnel", "nobody"):
        ask(sites, "", tunnel="nobody")


def test_nothing_is_changed_or_sent(lab, fake):
    fake.vpn_up()
    fake.client.add("t1", remote=FAR, id=1, underlay="vpn")
    fake.near.ip("neigh", "replace", FAR, "lladdr", "02:00:00:00:00:09", "dev", "wire", "nud",
                 "permanent")
    before = fake.near.dump()
    wire = lab.keep(Capture(fake.near, "wire", outgoing_only=True))
    signals = lab.signals(fake.daemon)
    for options in ({}, {"tunnel": "t1"}):
        ask(fake, "", **options)
        ask(fake, FAR, **options)
        ask(fake, FAR, underlay="any", **options)
    assert not [s for s in signals.take() if s[0].startswith(f"{PATH}/tunnel")]
    assert fake.near.dump() == before
    assert not wire.take()
