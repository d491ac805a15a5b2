# SPDX-License-Identifier: GPL-2.0-or-later
"""VPNs that are interfaces: which are recognised, by whom, and what tunnels say of them."""

import os
import signal
import subprocess
import sys

import pytest

import ethercord
import nm
from ethercord import FAR, NEAR, run, stays, wait_until
from vpn import OpenVpn, OpenVpnPersist, Topology

# The daemon's rights under its unit: a user of its own and CAP_NET_ADMIN.
SANDBOX_UID = 65534  # nobody: the bus wants users that exist
SANDBOX = ("setpriv", "--reuid", SANDBOX_UID, "--regid", SANDBOX_UID, "--clear-groups",
           "--inh-caps", "-all,+net_admin", "--ambient-caps", "+net_admin", "--bounding-set",
           "-all,+net_admin")

# Holds a TUN under any name of a process, or holds nothing.
HOLDER = """import fcntl, signal, struct, sys
open("/proc/self/comm", "w").write(sys.argv[1])
if len(sys.argv) > 2:
    f = open("/dev/net/tun", "r+b", buffering=0)
    fcntl.ioctl(f, 0x400454ca, struct.pack("16sH22x", sys.argv[2].encode(), 0x1001))
print("ready", flush=True)
signal.pause()
"""


def hold(lab, namespace, comm, interface=None, wrapper=()):
    words = [interface] if interface else []
    process = namespace.popen(*wrapper, sys.executable, "-c", HOLDER, comm, *words,
                              stdout=subprocess.PIPE)
    lab.stack.callback(ethercord.end_process, process)
    assert process.stdout.readline() == b"ready\n"
    if interface:
        namespace.ips(f"addr add 10.55.0.1/24 dev {interface}\nlink set {interface} up\n")
    return process


def underlay(daemon, name):
    """All properties of that VPN's object, or None. Objects and the property Underlays agree."""
    client = daemon.bus.client

    def objects():
        return {p: o[ethercord.UNDERLAY] for p, o in client.objects().items()
                if ethercord.UNDERLAY in o}

    def still():
        """Both, of a moment in which nothing came or went."""
        before = objects()
        listed = client.call(ethercord.PATH, ethercord.PROPERTIES, "Get", "ss", ethercord.MANAGER,
                             "Underlays")
        return (before, listed) if objects() == before else None
    shown, listed = wait_until(still, "the underlays stand still")
    assert sorted(listed) == sorted(shown)
    return shown.get(f"{ethercord.PATH}/underlay/{name}")


def wait_underlay(daemon, name, **properties):
    def right():
        got = underlay(daemon, name)
        return got if got and all(got[k] == v for k, v in properties.items()) else None
    return wait_until(right, f"{name} is shown with {properties}", 20)


def wait_reason(daemon, *words):
    """The tunnel t1 waits and says why."""
    client = daemon.bus.client

    def right():
        got = client.get("t1")
        return got if got["State"] == "waiting" and all(
            w in got["StateReason"][1] for w in words) else None
    try:
        return wait_until(right, "", 20)
    except AssertionError:
        got = client.get("t1")
        raise AssertionError(f"{got['State']}, {got['StateReason']}; expected: {words}") from None


def wait_up(daemon, vpn):
    got = daemon.bus.client.wait_state("t1", "up", 30)
    # NetworkManager's OpenVPN takes whichever name is free.
    assert got["Underlay"].startswith(f"{ethercord.PATH}/underlay/{vpn.device}")
    assert got["Protected"] is True and got["Local"] == vpn.near
    return got


@pytest.fixture
def topology(lab):
    return Topology(lab)


@pytest.fixture
def daemon(topology):
    return topology.lab.daemon(topology.near)


def test_comes_and_goes(topology, daemon):
    assert underlay(daemon, "tun9") is None
    vpn = OpenVpn(topology).up().wait_up()
    got = wait_underlay(daemon, "tun9", State="up")
    assert got["Kind"] == "openvpn" and got["Interface"] == "tun9" and got["Name"] == "tun9"
    assert got["Protected"] is True and got["Mtu"] == 1448
    assert got["Details"]["title"] == "OpenVPN on tun9" and got["Details"]["tun-mtu"] == "1500"
    topology.near.ip("link", "set", "tun9", "mtu", "1300")
    wait_underlay(daemon, "tun9", Mtu=1300)
    vpn.unmake("near")
    wait_until(lambda: underlay(daemon, "tun9") is None, "it is gone")


@pytest.mark.parametrize("setting", ["vpn", "openvpn"])
def test_tunnel_rides_on_it(topology, daemon, setting):
    vpn = OpenVpn(topology)
    daemon.bus.client.add("t1", remote=vpn.far, id=1, underlay=setting)
    assert daemon.bus.client.state("t1") == "waiting"
    vpn.up().wait_up()
    wait_up(daemon, vpn)
    index = topology.near.ifindex("ec-t1")
    vpn.end("near", signal.SIGKILL)
    wait_reason(daemon, "OpenVPN on tun9")
    assert not topology.near.is_up("ec-t1")
    vpn.make("near")
    vpn.wait_up()
    wait_up(daemon, vpn)
    assert topology.near.ifindex("ec-t1") == index


def test_persistent_tun_without_openvpn(topology, daemon):
    """The interface stays, up, with its address. Nobody is behind it."""
    vpn = OpenVpnPersist(topology)
    topology.near.ip("tuntap", "add", "mode", "tun", "tun9")
    vpn.up().wait_up()
    daemon.bus.client.add("t1", remote=vpn.far, id=1, underlay="vpn")
    wait_up(daemon, vpn)
    vpn.end("near", signal.SIGKILL)
    wait_reason(daemon, "OpenVPN on tun9 is down")
    assert topology.near.is_up("tun9")
    got = wait_underlay(daemon, "tun9", State="down")
    assert got["Kind"] == "openvpn"
    vpn.make("near")
    vpn.wait_up()
    wait_up(daemon, vpn)


def test_other_kind_is_not_wanted(topology, daemon):
    vpn = OpenVpn(topology).up().wait_up()
    daemon.bus.client.add("t1", remote=vpn.far, id=1, underlay="wireguard")
    wait_reason(daemon, "OpenVPN on tun9", "underlay=wireguard")


def test_program_of_its_own_name(topology, daemon):
    hold(topology.lab, topology.near, "tailscaled", "tailscale0")
    got = wait_underlay(daemon, "tailscale0", State="up")
    assert got["Kind"] == "route" and got["Mtu"] == 1500 and got["Protected"] is True
    assert got["Details"]["title"] == "Tailscale on tailscale0"
    assert got["Details"]["program"] == "tailscaled"
    daemon.bus.client.add("t1", remote="10.55.0.2", id=1, underlay="vpn")
    daemon.bus.client.wait_state("t1", "up")


def test_tun_of_a_stranger(topology, daemon):
    """Not taken for a VPN; its user may say that it is one."""
    hold(topology.lab, topology.near, "strange", "tun5")
    daemon.bus.client.add("t1", remote="10.55.0.2", id=1, underlay="vpn")
    wait_reason(daemon, "10.55.0.2", "tun5", "strange", "underlay=device:tun5")
    assert underlay(daemon, "tun5") is None
    daemon.bus.client.update("t1", underlay="device:tun5")
    got = daemon.bus.client.wait_state("t1", "up")
    assert got["Underlay"] == f"{ethercord.PATH}/underlay/tun5"


def test_plain_interfaces_are_none(topology, daemon):
    near = topology.near
    near.ip("link", "add", "openvpn0", "type", "bridge")
    near.ip("link", "add", "tun3", "type", "veth", "peer", "name", "tun4")
    near.ips("link set openvpn0 up\nlink set tun3 up\nlink set tun4 up\n"
             "addr add 10.55.0.1/24 dev openvpn0\n")
    daemon.bus.client.add("t1", remote="10.55.0.2", id=1, underlay="vpn")
    wait_reason(daemon, "openvpn0", "no VPN")
    assert all(underlay(daemon, n) is None for n in ("openvpn0", "tun3", "tun4", "net0"))


def test_another_takes_the_name(topology, daemon):
    vpn = OpenVpn(topology).up().wait_up()
    daemon.bus.client.add("t1", remote=vpn.far, id=1, underlay="vpn")
    wait_up(daemon, vpn)
    vpn.unmake("near")
    wait_reason(daemon, "OpenVPN on tun9")
    topology.near.ip("link", "add", "tun9", "type", "bridge")
    topology.near.ips(f"addr add {vpn.near}/24 dev tun9\nlink set tun9 up\n")
    wait_reason(daemon, "OpenVPN on tun9", "bridge")
    stays(lambda: daemon.bus.client.state("t1") == "waiting", 1, "it rides on a bridge", 0.05)
    topology.near.ip("link", "del", "tun9")
    vpn.make("near")
    vpn.wait_up()
    wait_up(daemon, vpn)


# What the daemon may see without the rights of root

def start_sandboxed(lab, namespace, **more):
    d = lab.daemon(namespace, start=False, wrapper=SANDBOX, **more)
    for directory, _, _ in os.walk(d.directory):
        os.chown(directory, SANDBOX_UID, SANDBOX_UID)
    return d.start()


@pytest.fixture
def sandboxed(topology):
    return start_sandboxed(topology.lab, topology.near)


def test_openvpn_seen_from_the_sandbox(topology, sandboxed):
    vpn = OpenVpn(topology).up().wait_up()
    assert wait_underlay(sandboxed, "tun9", State="up")["Kind"] == "openvpn"
    sandboxed.bus.client.add("t1", remote=vpn.far, id=1, underlay="vpn")
    wait_up(sandboxed, vpn)
    # What is known stays known when it could not be found out any more.
    hold(topology.lab, topology.near, "strange", "tun5")
    stays(lambda: sandboxed.bus.client.state("t1") == "up", 1, "it went down", 0.05)
    assert underlay(sandboxed, "tun5") is None


def test_doubt_seen_from_the_sandbox(topology, sandboxed):
    """Two TUN interfaces and one OpenVPN, of which nobody can say which it holds."""
    hold(topology.lab, topology.near, "strange", "tun5")
    vpn = OpenVpn(topology).up().wait_up()
    sandboxed.bus.client.add("t1", remote=vpn.far, id=1, underlay="vpn")
    wait_reason(sandboxed, "tun9", "cannot be told", "underlay=device:tun9")
    assert underlay(sandboxed, "tun5") is None


@pytest.mark.parametrize("where", ["ordinary user", "other namespace"])
def test_name_alone_proves_nothing(topology, sandboxed, where):
    hold(topology.lab, topology.near, "strange", "tun5")
    if where == "ordinary user":
        hold(topology.lab, topology.near, "openvpn",
             wrapper=("setpriv", "--reuid", 1000, "--regid", 1000, "--clear-groups"))
    else:
        hold(topology.lab, topology.far, "openvpn")
    sandboxed.bus.client.add("t1", remote="10.55.0.2", id=1, underlay="vpn")
    wait_reason(sandboxed, "tun5")
    assert underlay(sandboxed, "tun5") is None


# NetworkManager

UUID = nm.Office.uuid
TITLE = "OpenVPN on tun0 (\"Office 'Nord'\")"


@pytest.fixture
def office(lab):
    return nm.Office(lab)


def test_networkmanager_names_the_vpn(lab, office):
    """The daemon is there before NetworkManager, and stays when that goes."""
    daemon = lab.daemon(office.client)
    manager = nm.NetworkManager(lab, office.client, daemon.bus, office.profiles()).start()
    manager.up("base")
    manager.up(UUID)
    got = wait_underlay(daemon, "tun0", State="up")
    got = wait_until(lambda: (u := underlay(daemon, "tun0")) and "connection" in u["Details"] and u,
                     "the connection's name is shown")
    assert got["Kind"] == "openvpn" and got["Protected"] is True and got["Mtu"] == 1448
    assert got["Details"]["title"] == TITLE
    assert got["Details"]["connection"] == 'Office "Nord"'
    assert got["Details"]["connection-uuid"] == UUID
    assert underlay(daemon, "wire") is None, "the device below is no VPN"
    daemon.bus.client.add("t1", remote=office.far, id=1, underlay="networkmanager")
    wait_up(daemon, office)
    daemon.bus.client.add("t2", remote=FAR, id=2, underlay="networkmanager")
    assert daemon.bus.client.state("t2") == "waiting"
    manager.ctl("connection", "down", UUID)
    wait_reason(daemon, TITLE)
    manager.up(UUID)
    wait_up(daemon, office)


def test_networkmanager_resolves_doubt(lab, office):
    """Who holds the interface cannot be seen; NetworkManager says what it is."""
    hold(lab, office.client, "strange", "tun5")
    bus = lab.bus()
    manager = nm.NetworkManager(lab, office.client, bus, office.profiles()).start()
    manager.up("base")
    manager.up(UUID)
    daemon = start_sandboxed(lab, office.client, bus=bus)
    got = wait_underlay(daemon, "tun0", State="up", Kind="networkmanager")
    assert got["Details"]["title"] == "VPN \"Office 'Nord'\" on tun0"
    assert got["Details"]["connection-uuid"] == UUID
    assert underlay(daemon, "tun5") is None and underlay(daemon, "wire") is None
    daemon.bus.client.add("t1", remote=office.far, id=1, underlay="networkmanager")
    wait_up(daemon, office)


def test_networkmanager_goes(lab, office):
    """Its names are forgotten; what is a VPN without it is one still."""
    bus = lab.bus()
    manager = nm.NetworkManager(lab, office.client, bus, office.profiles()).start()
    manager.up("base")
    manager.up(UUID)
    daemon = lab.daemon(office.client, bus=bus)
    wait_until(lambda: (u := underlay(daemon, "tun0")) and u["Details"]["title"] == TITLE,
               "the connection's name is shown")
    daemon.bus.client.add("t1", remote=office.far, id=1, underlay="vpn")
    wait_up(daemon, office)
    manager.crash()
    wait_until(lambda: (u := underlay(daemon, "tun0")) is None or
               u["Details"]["title"] == "OpenVPN on tun0", "the name is forgotten")
    manager.start()
    stays(lambda: bus.has(), 0.5, "the daemon is still there", 0.05)
