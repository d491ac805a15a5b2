# SPDX-License-Identifier: GPL-2.0-or-later
"""No tunnelled frame leaves in clear, none is let in, whatever happens to the VPN: OpenVPN and a
TUN of an unknown make carry VXLAN here. The other VPNs and encapsulations are in tests/vm."""

import pytest

import layers
import leaks
from vpn import OpenVpn, OpenVpnPersist, PlainTun, PlainTun6

VPNS = [PlainTun, PlainTun6, OpenVpn, OpenVpnPersist]


@pytest.fixture(scope="module")
def sessions():
    made = leaks.Sessions()
    yield made
    made.close()


@pytest.mark.parametrize("vpn,event", layers.cases(*VPNS), ids=leaks.case_id)
def test_matrix(sessions, vpn, event):
    layers.check(sessions.of(vpn, encapsulations=("vxlan",), interval=0.01), event)


USER = [case for case in layers.cases(PlainTun, PlainTun6, OpenVpn)
        if case[1] != "each layer alone"]    # a worker's socket is a third


@pytest.mark.parametrize("vpn,event", USER, ids=leaks.case_id)
def test_user_plane(sessions, vpn, event):
    """The same with workers; what else these carry is in test_user_underlay.py."""
    layers.check(sessions.of(vpn, encapsulations=("vxlan",), interval=0.01, plane="user"), event)


def test_openvpn_renegotiates(sessions):
    session = sessions.of(OpenVpnPersist, encapsulations=("vxlan",), interval=0.01,
                          more=layers.renegotiate(4))
    layers.rekeyed(session, lambda: layers.wait_renegotiated(session.vpn))


@pytest.mark.parametrize("plane", ["kernel", "user"])
@pytest.mark.parametrize("vpn", [PlainTun, PlainTun6, OpenVpn], ids=leaks.case_id)
def test_removed(lab, vpn, plane):
    """Even its end is quiet: a tunnel is often removed since its VPN goes."""
    session = leaks.Session(vpn, encapsulations=("vxlan",), interval=0.01, plane=plane)
    lab.keep(session).removed()
