# SPDX-License-Identifier: GPL-2.0-or-later
"""Full frames and the MTU of each encapsulation over each VPN."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import joined
from ike import StrongSwan, XfrmInterface
from vpn import OpenVpn, WireGuard

KINDS = ["gretap", "gretap-fou", "vxlan"]
# Inner IP packets that need no fragment. gretap-fou numbers its packets: 4 bytes more than bare.
TABLE = {"wireguard": (1382, 1370, 1370), "openvpn": (1410, 1398, 1398),
         "ipsec-start": (1408, 1396, 1396), "xfrm-interface": (1408, 1396, 1396)}


@pytest.fixture(scope="module", params=[WireGuard, OpenVpn, StrongSwan, XfrmInterface],
                ids=lambda v: v.name)
def lan(request):
    made = joined.Joined(request.param)
    yield made
    made.close()


@pytest.mark.parametrize("kind", KINDS)
def test_point_to_point(lan, kind):
    assert joined.point_to_point(lan, kind) == TABLE[lan.vpn.name][KINDS.index(kind)]


def test_live_change(lan):
    near, router = lan.sites["near"], lan.vpn.topology.router
    if lan.vpn.device:
        device, mtu = lan.vpn.device, lan.sites["near"].link(lan.vpn.device)["mtu"]
        joined.follows(lan, "gretap", lambda: near.ip("link", "set", device, "mtu", 1360),
                       lambda: near.ip("link", "set", device, "mtu", mtu))
        return

    def physical(mtu):
        router.ip("link", "set", "near", "mtu", mtu)
        near.ip("link", "set", "net0", "mtu", mtu)
    joined.follows(lan, "gretap", lambda: physical(1400), lambda: physical(1500))


@pytest.mark.parametrize("kind", KINDS)
def test_full_frames(lan, kind):
    lan.join(kind)
    joined.full_frames(lan, kind)
    if lan.vpn.device:
        joined.tcp_needs_no_fragments(lan, kind)
