# SPDX-License-Identifier: GPL-2.0-or-later
"""ethercordctl doctor over IPsec policies, and where a second VPN would take the packets."""

import json
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import ethercord
from ethercord import wait_until
from ike import StrongSwan
from vpn import OpenVpn, Topology


def doctor(daemon, *words, check=None):
    done = daemon.ctl("doctor", "--json=short", *words, check=check)
    return {f["code"]: f for f in json.loads(done.stdout)}


@pytest.fixture(scope="module")
def site():
    lab = ethercord.Lab()
    topology = Topology(lab)
    vpn = StrongSwan(topology).up()
    vpn.initiate()
    daemon = lab.daemon(topology.near)
    yield topology, vpn, daemon
    lab.close()


def test_every_encapsulation_is_made(site):
    made = doctor(site[2])["encapsulations"]["text"]
    for name in ("gretap", "gretap-fou", "vxlan", "gre", "ipip"):
        assert name in made.replace(",", "").split()


def test_ipsec(site):
    topology, vpn, daemon = site
    found = doctor(daemon, vpn.far, check=0)
    said = found["protected"]["text"]
    assert "gretap-fou" in said and "vxlan" in said and "IPsec" in said
    assert "two-vpns" not in found
    assert "of 1446 bytes" in found["mtu"]["text"] and "gretap 1408" in found["mtu"]["text"]
    daemon.bus.client.add("t1", remote=vpn.far, id=1, underlay="vpn", encapsulation="gretap")
    daemon.bus.client.wait_state("t1", "up", 60)
    found = doctor(daemon, "t1", check=0)
    assert found["fence"]["text"].startswith("nftables and xfrm hold the fence around IPsec")


def test_two_vpns(site):
    topology, vpn, daemon = site
    OpenVpn(topology).up().wait_up(120)
    # strongSwan's own routes are in table 220, which is asked first.
    topology.near.ip("route", "replace", f"{vpn.far}/32", "dev", "tun9", "src", vpn.near, "table",
                     220)
    found = wait_until(lambda: (lambda f: f if "two-vpns" in f else None)(
        doctor(daemon, vpn.far)), "both VPNs are seen", 60)
    said = found["two-vpns"]
    assert said["severity"] == "info" and "if OpenVPN on tun9 is meant" in said["remedy"]
    first, second = said["text"].split("; ethercord uses ")
    assert "IPsec" in second and "OpenVPN on tun9" in first and "IPsec" in first
    assert "IPsec" in found["protected"]["text"]
