# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses on a cord that is a connection of NetworkManager's: static, by DHCP, by RA, mixed."""

import pytest

import ethercord
from ethercord import ping, stays, wait_until
from nmbed import NEAR, QUICK, Bed

AUTO = {"method": "auto"}
RANGE = "--dhcp-range=192.168.7.100,192.168.7.150,1h"
PREFIX = "fd77::"
ADVERTISE = ("--enable-ra", f"--dhcp-range={PREFIX},ra-only,1h")
# Encapsulation, data plane: NetworkManager takes the one for a VXLAN, the others for TAP devices.
CORDS = [("vxlan", "kernel"), ("vxlan", "user"), ("gretap-fou", "user"), ("raw-udp", "user")]


def addresses(namespace, interface):
    shown = namespace.ip("-o", "addr", "show", "dev", interface, check=False).stdout
    return [line.split()[3] for line in shown.splitlines()]


def device_to(namespace, address):
    return namespace.ip("route", "get", address).stdout.split(" dev ")[1].split()[0]


def number(kind):
    """Which raw-udp has not."""
    return None if kind == "raw-udp" else 42


def far_end(bed, kind="vxlan", plane="kernel", address="192.168.7.1/24"):
    """Of iproute2 where the kernel can, else a worker's."""
    if kind == "vxlan":
        bed.far_end(address)
        return
    daemon = bed.lab.daemon(bed.far, "far")
    daemon.bus.client.add("far", remote=NEAR, id=number(kind), encapsulation=kind, data_plane=plane,
                          address=address, interface="far")
    daemon.bus.client.wait_state("far", "up")


def test_static_address(bed):
    bed.far_end()
    interface = bed.cord(ipv4=bed.manual())
    bed.up()
    assert bed.get("cord", "IP4.ADDRESS") == "192.168.7.2/24"
    assert addresses(bed.near, interface)[0] == "192.168.7.2/24"
    assert bed.near.link(interface)["ifalias"] == "ethercord:cord"
    assert ping(bed.near, "192.168.7.1", 3)
    assert device_to(bed.near, "198.51.100.1") == "eth0", "it took the default route"
    bed.down()
    bed.clean()
    # Again, as often as one likes.
    bed.up()
    assert ping(bed.near, "192.168.7.1")
    bed.down()
    bed.clean()


def test_frames_cross(bed):
    """Not only IP."""
    bed.far_end(None)
    interface = bed.cord()
    bed.up()
    assert bed.get("cord", "IP4.ADDRESS") == ""
    assert bed.lab.flow(bed.near, interface, bed.far, "far").start().stop(50) == []
    assert bed.lab.flow(bed.far, "far", bed.near, interface).start().stop(50) == []


def test_quick(bed):
    """From nmcli's start to its end."""
    bed.far_end()
    bed.cord(ipv4=bed.manual())
    took = []
    for _ in range(5):
        took.append(bed.up().seconds)
        bed.down()
    assert min(took) <= 0.5, took


def test_routes_and_dns(bed):
    bed.far_end()
    bed.far.ip("addr", "add", "10.99.0.1/32", "dev", "lo")
    interface = bed.cord(ipv4=bed.manual(route1="10.99.0.0/16,192.168.7.1", dns="192.168.7.53;",
                                         **{"dns-search": "office.example;"}),
                         ipv6=bed.manual("fd77::2/64", route1="fd99::/48,fd77::1"))
    bed.far.ip("addr", "add", "fd77::1/64", "dev", "far", "nodad")
    bed.up()
    assert bed.get("cord", "IP4.DNS") == "192.168.7.53"
    assert device_to(bed.near, "10.99.0.1") == interface
    assert ping(bed.near, "10.99.0.1")
    assert device_to(bed.near, "fd99::1") == interface
    wait_until(lambda: ping(bed.near, "fd77::1", check=False), "IPv6 crosses")
    bed.down()
    wait_until(lambda: device_to(bed.near, "10.99.0.1") == "eth0", "the route goes")


def test_default_route_over_the_cord(bed):
    """The cord's own packets go on to the far end by the base device."""
    bed.far.ips("addr add 10.9.9.9/32 dev lo\naddr add 198.51.100.1/32 dev lo\n")
    ethercord.far_vxlan(bed.far, "far", vni=42, local="10.9.9.9", remote=NEAR, mtu=1450,
                        address="192.168.7.1/24")
    interface = bed.cord(remote="10.9.9.9", ipv4=bed.manual("192.168.7.2/24,192.168.7.1"))
    bed.up()
    assert device_to(bed.near, "198.51.100.1") == interface
    assert device_to(bed.near, "10.9.9.9") == "eth0", "the cord would be put into itself"
    assert ping(bed.near, "198.51.100.1", 3)
    bed.down()
    wait_until(lambda: device_to(bed.near, "198.51.100.1") == "eth0", "the base has it back")
    wait_until(lambda: "10.9.9.9" not in bed.near.ip("route").stdout, "and nothing else")


@pytest.mark.parametrize("kind, plane", CORDS)
def test_dhcp(bed, kind, plane):
    far_end(bed, kind, plane)
    bed.dnsmasq("far", RANGE, "--dhcp-option=6,192.168.7.53")
    interface = bed.cord(id=number(kind), encapsulation=kind, data_plane=plane, ipv4=AUTO)
    bed.up()
    got = bed.get("cord", "IP4.ADDRESS")
    assert got.startswith("192.168.7.1") and got.endswith("/24")
    assert got in addresses(bed.near, interface)
    assert bed.get("cord", "IP4.GATEWAY") == "192.168.7.1"
    assert bed.get("cord", "IP4.DNS") == "192.168.7.53"
    assert ping(bed.near, "192.168.7.1", 3)
    assert device_to(bed.near, "198.51.100.1") == "eth0", "the base's default route is better"
    assert "cord" in bed.active()
    bed.down()
    bed.clean()


def test_dhcp_of_the_plugin_key(bed):
    """For editors that leave a VPN's method at "automatic"; and the other way round."""
    far_end(bed)
    bed.dnsmasq("far", RANGE)
    bed.cord(ipv4={"method": "auto"}, data={"ipv4": "dhcp"})
    bed.up()
    assert bed.get("cord", "IP4.ADDRESS").startswith("192.168.7.1")
    bed.down()
    interface = bed.cord(ipv4={"method": "auto"}, data={"ipv4": "none"})
    assert bed.up().seconds < QUICK
    assert not [a for a in addresses(bed.near, interface) if "192.168" in a]


def test_static_of_the_plugin_key(bed):
    """The address is a setting of the cord, since the editor has no field for it."""
    bed.far_end()
    interface = bed.cord(ipv4=AUTO, data={"ipv4": "static", "address": "192.168.7.9/24"})
    assert bed.up().seconds < QUICK
    assert "192.168.7.9/24" in addresses(bed.near, interface)
    assert ping(bed.near, "192.168.7.1")
    bed.down()
    bed.clean()


def test_nobody_answers_dhcp(bed):
    """It fails when NetworkManager gives up, says so, and leaves nothing."""
    bed.far_end()
    bed.cord(ipv4={"method": "auto", "dhcp-timeout": "2"})
    bed.fails("DHCP", within=8)


def test_ipv6_by_ra(bed):
    far_end(bed, address="fd77::1/64")
    bed.dnsmasq("far", *ADVERTISE)
    interface = bed.cord(ipv6=AUTO)
    bed.up()
    wait_until(lambda: "fd77:" in bed.get("cord", "IP6.ADDRESS"), "NetworkManager shows it", 20)
    assert any(a.startswith(PREFIX[:4]) for a in addresses(bed.near, interface))
    assert ping(bed.near, "fd77::1", 3)
    bed.down()
    bed.clean()


def test_static_and_ra(bed):
    far_end(bed)
    bed.far.ip("addr", "add", "fd77::1/64", "dev", "far", "nodad")
    bed.dnsmasq("far", *ADVERTISE)
    interface = bed.cord(ipv4=bed.manual(), ipv6=AUTO)
    bed.up()
    wait_until(lambda: any(a.startswith("fd77") for a in addresses(bed.near, interface)),
               "an address by RA", 20)
    assert bed.get("cord", "IP4.ADDRESS") == "192.168.7.2/24"
    assert ping(bed.near, "192.168.7.1") and ping(bed.near, "fd77::1")


@pytest.mark.parametrize("method", ["manual", "disabled"])
def test_ra_is_refused(bed, method):
    """Who asks for no advertisements gets neither an address nor a default route by them."""
    far_end(bed)
    bed.far.ip("addr", "add", "fd77::1/64", "dev", "far", "nodad")
    own = ["fd77::2/64"] if method == "manual" else []
    interface = bed.cord(ipv4=bed.manual(), ipv6={"method": method, **{"address1": a for a in own}})
    bed.up()
    wait_until(lambda: "fe80" in bed.near.ip("addr", "show", "dev", interface, "-tentative").stdout,
               "the interface would take advertisements", 10)
    capture = bed.lab.capture(bed.near, interface, 0x86DD)
    bed.dnsmasq("far", *ADVERTISE)
    wait_until(lambda: any(frame[54] == 134 for frame in capture.take()), "an advertisement", 20)

    def untouched():
        found = [a for a in addresses(bed.near, interface) if a.startswith("fd77")]
        return found == own and not bed.near.ip("-6", "route", "show", "default").stdout
    stays(untouched, 0.3, "there is nothing but what was asked for", 0.05)


@pytest.mark.parametrize("ipv4", ["static", "none"])
def test_nobody_advertises(bed, ipv4):
    """ipv6.method auto is what nmcli and the editors choose: IPv4 does not wait for it, and a cord
    that is good without addresses does not fail for it."""
    bed.far_end()
    interface = bed.cord(ipv4=bed.manual() if ipv4 == "static" else None, ipv6=AUTO)
    bed.ctl("connection", "modify", "cord", "ipv6.ra-timeout", str(QUICK + 1))
    assert bed.up().seconds < QUICK
    if ipv4 == "static":
        assert ping(bed.near, "192.168.7.1")
    stays(lambda: bed.state() == "activated" and bed.near.is_up(interface), QUICK + 3, "it stays",
          0.1)
    bed.down()
    bed.clean()


def test_dhcp_and_static(bed):
    """DHCP for the one, manual for the other; each address is there once."""
    far_end(bed)
    bed.far.ip("addr", "add", "fd77::1/64", "dev", "far", "nodad")
    bed.dnsmasq("far", RANGE)
    interface = bed.cord(ipv4=AUTO, ipv6=bed.manual("fd77::2/64"))
    bed.up()
    wait_until(lambda: bed.get("cord", "IP4.ADDRESS").startswith("192.168.7.1"), "a lease")
    assert addresses(bed.near, interface).count("fd77::2/64") == 1
    assert ping(bed.near, "192.168.7.1")
    wait_until(lambda: ping(bed.near, "fd77::1", check=False), "IPv6 crosses")


def test_two_at_once(bed):
    """Each has its service, its tunnel and its addresses."""
    bed.far_end()
    bed.far_end("192.168.8.1/24", "far2", 43)
    bed.cord(ipv4=bed.manual())
    bed.cord("cord2", ipv4=bed.manual("192.168.8.2/24"), id=43)
    bed.up("cord")
    bed.up("cord2")
    assert ping(bed.near, "192.168.7.1") and ping(bed.near, "192.168.8.1")
    bed.down("cord")
    bed.clean("cord")
    assert ping(bed.near, "192.168.8.1", 3)
    assert bed.state("cord2") == "activated"
    bed.down("cord2")
    bed.clean("cord2")


def test_no_default_route_below(lab):
    """NetworkManager then wants to be told the device."""
    bed = Bed(lab, gateway=None)
    bed.far_end()
    bed.cord(ipv4=bed.manual())
    assert bed.up(check=False).returncode == 4
    bed.clean()
    bed.up("cord", "ifname", "eth0")
    assert ping(bed.near, "192.168.7.1")


def test_base_without_ipv4(bed):
    """The gateway that NetworkManager is given is then of the other family."""
    bed.far.ips("addr add fd09::2/64 dev ub nodad\n")
    ethercord.far_vxlan(bed.far, "far", vni=42, local="fd09::2", remote="fd09::1", mtu=1400,
                        address="192.168.7.1/24")
    bed.far.ip("addr", "add", "fd77::1/64", "dev", "far", "nodad")
    bed.ctl("connection", "modify", "base", "ipv4.method", "disabled", "ipv4.addresses", "",
            "ipv4.gateway", "", "ipv6.method", "manual", "ipv6.addresses", "fd09::1/64",
            "ipv6.gateway", "fd09::2")
    bed.up("base")
    interface = bed.cord(remote="fd09::2", ipv4=bed.manual(),
                         ipv6=bed.manual("fd77::2/64,fd77::1"))
    bed.up()
    assert ping(bed.near, "192.168.7.1", 3)
    wait_until(lambda: ping(bed.near, "fd77::1", check=False), "IPv6 crosses")
    assert device_to(bed.near, "2001:db8::1") == interface
    assert device_to(bed.near, "fd09::2") == "eth0"
    bed.down()
    bed.clean()
