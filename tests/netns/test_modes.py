# SPDX-License-Identifier: GPL-2.0-or-later
"""The three modes over VXLAN, to a plain `ip link` and between two daemons."""

import os
import struct

import pytest

from ethercord import (FAR, NEAR, Sites, bridge, far_vxlan, ipv4, ping, wait_until)

FULL = 1472  # bytes of ping that make a 1500-byte packet


def far_end(sites, kind, **settings):
    """The far end as one thinks of it there: a daemon, or `ip link`."""
    if kind == "ip":
        far_vxlan(sites.far, "far", 7, mtu=1500 if "bridge" in settings else 1450,
                  address=settings.get("address"), bridge=settings.get("bridge"))
        return "far"
    other = sites.lab.daemon(sites.far, "far-daemon")
    other.bus.client.add("far", remote=NEAR, id=7, **settings)
    return "ec-far"


@pytest.mark.parametrize("kind", ["ip", "daemon"])
def test_point_to_point(sites, kind):
    far_end(sites, kind, address="192.168.9.2/24")
    sites.client.add("t1", remote=FAR, id=7, address="192.168.9.1/24")
    assert sites.near.link("ec-t1")["mtu"] == 1450
    outer = sites.lab.capture(sites.near, "wire", outgoing_only=True)
    assert ping(sites.near, "192.168.9.2", 3)  # ARP and ICMP
    assert ping(sites.near, "192.168.9.2", size=1450 - 28, df=True)
    assert ping(sites.far, "192.168.9.1", size=1450 - 28, df=True)
    packets = [ipv4(f) for f in outer.take() if ipv4(f)]
    assert packets and all(p[2] == 17 and not p[3] for p in packets), "whole UDP packets only"
    assert max(len(f) for f in outer.frames) == 14 + 1500
    vni = {struct.unpack("!I", p[4][12:16])[0] >> 8 for p in packets}
    assert vni == {7}
    assert not ping(sites.near, "192.168.9.2", size=1451 - 28, df=True, timeout=1, check=False)


@pytest.mark.parametrize("kind", ["ip", "daemon"])
def test_join_remote(sites, kind):
    bridge(sites.far)
    sites.lab.host(sites.far, "br0", "192.168.9.50/24")
    far_end(sites, kind, mode="join-remote", bridge="br0") if kind == "daemon" else \
        far_end(sites, kind, bridge="br0")
    sites.client.add("t1", remote=FAR, id=7, mode="join-remote", address="192.168.9.1/24")
    assert "master" not in sites.near.link("ec-t1")
    assert ping(sites.near, "192.168.9.50", 2)
    assert ping(sites.near, "192.168.9.50", size=FULL)


@pytest.fixture(params=["ip", "daemon"])
def joined(request, sites):
    """Two bridges with a host behind each."""
    bridge(sites.near)
    bridge(sites.far)
    a = sites.lab.host(sites.near, "br0", "192.168.9.1/24", "ha")
    b = sites.lab.host(sites.far, "br0", "192.168.9.2/24", "hb")
    more = {"mode": "join-networks", "bridge": "br0"}
    far_end(sites, request.param, **more)
    sites.client.add("t1", remote=FAR, id=7, **more)
    assert sites.near.master("ec-t1") == "br0"
    assert sites.near.link("ec-t1")["mtu"] == 1500
    assert ping(a, "192.168.9.2", 3)
    return sites, a, b


def test_join_networks_full_frames(joined):
    sites, a, b = joined
    outer = sites.lab.capture(sites.near, "wire", outgoing_only=True)
    inner = sites.lab.capture(b, "eth0")
    assert ping(a, "192.168.9.2", size=FULL, interval=10)   # one, however long its answer takes
    requests = [f for f in inner.take() if len(f) == 1514 and ipv4(f) and ipv4(f)[4][:1] == b"\x08"]
    assert len(requests) == 1, "the 1500-byte packet arrives whole"
    outer_packets = [ipv4(f) for f in outer.take() if ipv4(f)]
    fragments = [p for p in outer_packets if p[3]]
    assert len(fragments) == 2, [(len(p[4]), p[3]) for p in outer_packets]
    assert ping(b, "192.168.9.1", size=FULL)
    outer.clear()
    assert ping(a, "192.168.9.2", size=1422, df=True)
    assert not [p for p in map(ipv4, outer.take()) if p and p[3]], "1450 need no fragment"


def test_join_networks_df_is_answered(joined):
    sites, a, b = joined
    inner = sites.lab.capture(b, "eth0")
    answers = sites.lab.capture(a, "eth0")
    outer = sites.lab.capture(sites.near, "wire", outgoing_only=True)
    assert not ping(a, "192.168.9.2", size=FULL, df=True, timeout=1, check=False)
    told = [p for p in map(ipv4, answers.take()) if p and p[2] == 1 and p[4][:2] == b"\x03\x04"]
    assert told, "no ICMP fragmentation needed"
    assert {struct.unpack("!H", p[4][6:8])[0] for p in told} == {1450}
    assert told[0][0] == "192.168.9.2" and told[0][1] == "192.168.9.1"
    assert not [f for f in inner.take() if len(f) >= 1500]
    assert not [p for p in map(ipv4, outer.take()) if p and p[3]]
    # The host has learnt: its next packets fit.
    assert ping(a, "192.168.9.2", size=FULL, df=None)


def test_frames_ride_inside_only(joined):
    """What crosses the wire between the sites is VXLAN and ARP for the sites' own addresses."""
    sites, a, b = joined
    outer = sites.lab.capture(sites.near, "wire")
    for _ in range(3):
        assert ping(a, "192.168.9.2", 2)
    types = {}
    for frame in outer.take():
        types.setdefault(frame[12:14], []).append(frame)
    assert set(types) <= {b"\x08\x00", b"\x08\x06"}
    assert len(types[b"\x08\x00"]) >= 12
    for p in map(ipv4, types[b"\x08\x00"]):
        assert {p[0], p[1]} == {NEAR, FAR} and p[2] == 17 and p[4][2:4] == struct.pack("!H", 4789)
    for frame in types.get(b"\x08\x06", []):
        assert b"\xc0\xa8\x09" not in frame[14:], "the inner network's ARP is on the wire"


def test_vlan_and_other_protocols_cross(joined):
    """A bridge port carries Ethernet, not only IP."""
    sites, a, b = joined
    seen = sites.lab.capture(b, "eth0")
    outer = sites.lab.capture(sites.near, "wire", outgoing_only=True)
    tagged = b"\xff" * 6 + b"\x02\x00\x5e\x10\x00\x07" + b"\x81\x00\x00\x2a\x88\xb5" + \
        os.urandom(60)
    sites.lab.capture(a, "eth0").socket.send(tagged)
    # A receiving packet socket has the tag beside the frame; on the wire it is inside.
    wait_until(lambda: any(f.endswith(tagged[16:]) for f in seen.take()), "the frame crosses")
    assert [f for f in outer.take() if f.endswith(tagged)], "the tag crosses"


def test_ipv6_outer(lab):
    sites = Sites(lab, ipv6=True)
    sites.far.exec("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0")
    sites.far.exec("sysctl", "-qw", "net.ipv6.conf.wire.disable_ipv6=0")
    sites.near.ip("addr", "add", "fd00:77::1/64", "dev", "wire", "nodad")
    sites.far.ip("addr", "add", "fd00:77::2/64", "dev", "wire", "nodad")
    far_vxlan(sites.far, "far", 7, "fd00:77::2", "fd00:77::1", mtu=1430, address="192.168.9.2/24")
    sites.client.add("t1", remote="fd00:77::2", id=7, address="192.168.9.1/24")
    assert sites.client.wait_state("t1", "up")["Mtu"] == 1430
    outer = lab.capture(sites.near, "wire", outgoing_only=True)
    assert ping(sites.near, "192.168.9.2", size=1430 - 28, df=True)
    assert [f for f in outer.take() if f[12:14] == b"\x86\xdd" and f[20] == 17]
