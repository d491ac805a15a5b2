# SPDX-License-Identifier: GPL-2.0-or-later
"""No tunnelled frame leaves in clear, none is let in, whatever happens to the VPN: gretap,
gretap-fou and vxlan at once over each VPN; over WireGuard in IPv6, too."""

import contextlib
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import layers
import leaks
from ike import StrongSwan, StrongSwanTrap, XfrmInterface
from vpn import OpenVpn, OpenVpnPersist, WireGuard, WireGuard6

VPNS = [WireGuard, WireGuard6, OpenVpn, OpenVpnPersist, StrongSwan, StrongSwanTrap, XfrmInterface]


@pytest.fixture(scope="module")
def sessions():
    made = leaks.Sessions()
    yield made
    made.close()


class SlowWireGuard:
    """WireGuard rekeys after two minutes: a session of its own waits for that beside the others."""

    def __init__(self):
        self.session = leaks.Session(WireGuard, ("gretap",), interval=0.2)
        self.first = self.session.vpn.handshake()


@pytest.fixture(scope="module", autouse=True)
def slow_wireguard():
    slow = SlowWireGuard()
    yield slow
    slow.session.close()


@pytest.fixture(autouse=True)
def watch_slow_wireguard(slow_wireguard):
    """Its judge holds so much and no more."""
    yield
    slow_wireguard.session.judge.acquit("while other VPNs were tested")


@pytest.mark.parametrize("vpn,event", layers.cases(*VPNS), ids=leaks.case_id)
def test_matrix(sessions, vpn, event):
    layers.check(sessions.of(vpn), event)


def test_wireguard_rekeys(slow_wireguard):
    slow = slow_wireguard
    layers.rekeyed(slow.session, lambda: layers.wait_handshake(slow.session.vpn, slow.first))


def test_openvpn_renegotiates(sessions):
    session = sessions.of(OpenVpnPersist, more=layers.renegotiate(8))
    layers.rekeyed(session, lambda: layers.wait_renegotiated(session.vpn))


def test_removed():
    """Even their end is quiet."""
    with contextlib.closing(leaks.Session(WireGuard)) as session:
        session.removed()
