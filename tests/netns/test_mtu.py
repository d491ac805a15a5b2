# SPDX-License-Identifier: GPL-2.0-or-later
"""Full frames and the MTU over an OpenVPN and over a TUN of an unknown make. The other VPNs and
encapsulations are in tests/vm."""

import pytest

import joined
from vpn import OpenVpn, PlainTun


@pytest.fixture(scope="module", params=[OpenVpn, PlainTun], ids=lambda v: v.name)
def lan(request):
    made = joined.Joined(request.param)
    yield made
    made.close()


@pytest.fixture(scope="module")
def joint(lan):
    lan.join("vxlan")
    return lan


def test_full_frames(joint):
    joined.full_frames(joint, "vxlan")


def test_tcp_needs_no_fragments(joint):
    joined.tcp_needs_no_fragments(joint, "vxlan")


def test_point_to_point(lan):
    expected = joined.point_to_point(lan, "vxlan")
    assert expected == {"openvpn": 1398, "tun": 1350}[lan.vpn.name]


def test_live_change(lan):
    near, device, mtu = lan.sites["near"], lan.vpn.device, lan.sites["near"].link(
        lan.vpn.device)["mtu"]
    joined.follows(lan, "vxlan", lambda: near.ip("link", "set", device, "mtu", 1340),
                   lambda: near.ip("link", "set", device, "mtu", mtu))
