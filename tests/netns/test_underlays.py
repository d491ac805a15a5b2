# SPDX-License-Identifier: GPL-2.0-or-later
"""underlay=device:IFNAME: through that interface or not at all; names; floods; silence."""

import os
import pathlib
import signal
import socket
import time

import pytest

import ethercord
from ethercord import FAR, Sites, bridge, far_vxlan, ipv4, ping, stays, wait_until

PEER = "10.99.0.2"


def plug(sites, up=True, address=True):
    """The VPN's interface vpn0, with the route to the peer."""
    sites.near.ip("link", "add", "vpn0", "type", "veth", "peer", "name", "vpn0", "netns",
                  sites.far.name)
    sites.far.ips(f"addr add {PEER}/24 dev vpn0\nlink set vpn0 up\n")
    if address:
        sites.near.ip("addr", "add", "10.99.0.1/24", "dev", "vpn0")
    if up:
        sites.near.ip("link", "set", "vpn0", "up")


@pytest.fixture
def device(sites):
    """A bridged tunnel on vpn0, which is not there yet."""
    bridge(sites.near)
    sites.far.ip("link", "add", "far", "type", "vxlan", "id", 5, "remote", "10.99.0.1", "dstport",
                 4789, "nolearning")
    sites.far.ip("link", "set", "far", "up")
    sites.client.add("t1", remote=PEER, id=5, underlay="device:vpn0", mode="join-networks",
                     bridge="br0")
    return sites


def reason(sites):
    got = sites.client.get("t1")
    return got["State"], got["StateReason"][0], got["StateReason"][1]


def test_waits_for_device_flag_and_route(device):
    assert reason(device) == ("waiting", "NoUnderlay", "there is no interface vpn0")
    assert device.near.link("ec-t1") is None
    plug(device, up=False, address=False)
    wait_until(lambda: "is down" in reason(device)[2], "it sees that vpn0 is down")
    device.near.ip("link", "set", "vpn0", "up")
    wait_until(lambda: "is down" not in reason(device)[2], "it sees that vpn0 is up")
    assert reason(device)[0] == "waiting"
    device.near.ip("addr", "add", "10.99.0.1/24", "dev", "vpn0")
    got = device.client.wait_state("t1", "up")
    assert got["Underlay"] == f"{ethercord.PATH}/underlay/vpn0" and got["Local"] == "10.99.0.1"
    device.lab.flow(device.near, "ec-t1", device.far, "far").start().stop(10)


def test_device_comes_back_with_another_index(device):
    plug(device)
    device.client.wait_state("t1", "up")
    index = device.near.ifindex("ec-t1")
    device.near.exec("bridge", "link", "set", "dev", "ec-t1", "priority", "9")
    for _ in range(3):
        old = device.near.ifindex("vpn0")
        device.near.ip("link", "del", "vpn0")
        device.client.wait_state("t1", "waiting")
        assert not device.near.is_up("ec-t1") and device.near.ifindex("ec-t1") == index
        assert device.near.master("ec-t1") == "br0"
        plug(device)
        device.client.wait_state("t1", "up")
        assert device.near.ifindex("vpn0") != old
        assert device.near.ifindex("ec-t1") == index and device.near.master("ec-t1") == "br0"
        assert device.near.link("ec-t1")["linkinfo"]["info_slave_data"]["priority"] == 9
        device.lab.flow(device.near, "ec-t1", device.far, "far").start().stop(10)


@pytest.mark.parametrize("how", ["route moves", "device goes down", "device is deleted"])
def test_nothing_leaves_elsewhere(device, how):
    """The VPN goes; the same peer can be reached over the bare wire. Not by the tunnel."""
    plug(device)
    device.client.wait_state("t1", "up")
    near = device.near
    near.ip("route", "add", "default", "via", FAR)
    device.far.ip("addr", "add", f"{PEER}/32", "dev", "lo")
    bare = device.lab.capture(near, "wire", outgoing_only=True)
    flow = device.lab.flow(near, "ec-t1", device.far, "far").start()
    # Control: the flow's packets are seen where they leave.
    vpn = device.lab.capture(near, "vpn0", outgoing_only=True)
    wait_until(lambda: len(tunnelled(vpn)) > 50, "the flow leaves by the VPN")
    assert not tunnelled(bare)
    if how == "route moves":
        near.ip("route", "add", f"{PEER}/32", "via", FAR)
    elif how == "device goes down":
        near.ip("link", "set", "vpn0", "down")
    else:
        near.ip("link", "del", "vpn0")
    device.client.wait_state("t1", "waiting")
    assert not near.is_up("ec-t1") and near.master("ec-t1") == "br0"
    mark = flow.sent
    bare.clear()
    flow.wait_sent(mark + 100)
    assert not tunnelled(bare), "packets leave outside the VPN"
    if how == "route moves":
        assert "leaves by wire, not by vpn0" in reason(device)[2]
        near.ip("route", "del", f"{PEER}/32", "via", FAR)
    elif how == "device goes down":
        near.ip("link", "set", "vpn0", "up")
    else:
        device.far.ip("addr", "del", f"{PEER}/32", "dev", "lo")
        plug(device)
    device.client.wait_state("t1", "up")
    flow.close()


def test_the_bare_wire_would_carry_it(device):
    """Control of the test above: with underlay=any the same packets do leave by the wire."""
    plug(device)
    device.client.update("t1", underlay="any")
    device.client.wait_state("t1", "up")
    device.near.ip("route", "add", f"{PEER}/32", "via", FAR)
    device.far.ip("addr", "add", f"{PEER}/32", "dev", "lo")
    bare = device.lab.capture(device.near, "wire", outgoing_only=True)
    flow = device.lab.flow(device.near, "ec-t1", device.far, "far")
    flow.thread.start()
    wait_until(lambda: len(tunnelled(bare)) > 50, "the flow leaves by the wire")
    flow.close()


def tunnelled(capture):
    """Packets of a VXLAN."""
    return [p for p in map(ipv4, capture.take()) if p and p[2] == 17 and p[4][2:4] == b"\x12\xb5"]


def test_source_address_moves(sites):
    """`any`: the tunnel follows the route and its source address, with the interface it has."""
    sites.tunnel()
    index = sites.near.ifindex("ec-t1")
    sites.near.ips("addr del 10.77.0.1/24 dev wire\naddr add 10.77.0.9/24 dev wire\n")
    wait_until(lambda: sites.client.get("t1")["Local"] == "10.77.0.9", "the source is new")
    sites.client.wait_state("t1", "up")
    wait_until(lambda: sites.near.link("ec-t1")["linkinfo"]["info_data"]["local"] == "10.77.0.9",
               "the kernel has it")
    assert sites.near.ifindex("ec-t1") == index


def test_no_route_at_all(sites):
    sites.client.add("t1", remote="10.200.0.1", id=1)
    assert sites.client.get("t1")["StateReason"][0] in ("NoUnderlay", "PeerUnreachable")
    assert sites.client.state("t1") == "waiting"
    sites.near.ip("route", "add", "default", "via", FAR)
    sites.client.wait_state("t1", "up")


def test_mtu_of_the_path(sites):
    sites.tunnel()
    index = sites.near.ifindex("ec-t1")
    sites.near.ip("route", "add", f"{FAR}/32", "dev", "wire", "mtu", "1400")
    wait_until(lambda: sites.near.link("ec-t1")["mtu"] == 1350, "the MTU follows the route's")
    sites.near.ip("route", "del", f"{FAR}/32")
    sites.near.ip("link", "set", "wire", "mtu", "1450")
    wait_until(lambda: sites.near.link("ec-t1")["mtu"] == 1400, "the MTU follows the device's")
    assert sites.near.ifindex("ec-t1") == index


def test_names_are_looked_up(lab):
    sites = Sites(lab, hosts=f"127.0.0.1 localhost\n{FAR} office.example\n")
    far_vxlan(sites.far, "far-t1", 1, mtu=1450)
    sites.client.add("t1", remote="office.example", id=1)
    got = sites.client.wait_state("t1", "up")
    assert got["Remote"] == FAR and got["Settings"]["remote"] == ["office.example"]
    assert sites.flow().stop(50) == []


def test_a_blocked_name(lab):
    """0.0.0.0 is what filters answer, and would be a tunnel to anybody."""
    sites = Sites(lab, hosts="127.0.0.1 localhost\n0.0.0.0 office.example\n:: office.example\n")
    sites.client.add("t1", remote="office.example", id=1)
    wait_until(lambda: "look" not in sites.client.get("t1")["StateReason"][1], "it is looked up")
    got = sites.client.get("t1")
    assert got["State"] == "waiting" and "office.example" in got["StateReason"][1], got
    assert not sites.near.link("ec-t1")


SOON = 2        # s; who waited for the name server would wait 5


def test_looking_up_blocks_nothing(lab):
    """A name server that never answers."""
    sites = Sites(lab, hosts="127.0.0.1 localhost\n",
                  resolver="nameserver 10.77.0.2\noptions timeout:5 attempts:2\n")
    with sites.far.entered():
        silent = lab.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    silent.bind((FAR, 53))
    sites.tunnel("t1", 1)
    flow = sites.flow()
    questions = lab.capture(sites.near, "wire", outgoing_only=True)
    for i in range(5):
        begun = time.monotonic()
        sites.client.add(f"n{i}", remote=f"slow{i}.example", id=10 + i)
        assert time.monotonic() - begun < SOON
    wait_until(lambda: any(p and p[2] == 17 and p[4][2:4] == b"\x00\x35"
                           for p in map(ipv4, questions.take())), "the server is asked")
    slowest = 0
    for _ in range(100):
        begun = time.monotonic()
        assert sites.client.state("n0") == "waiting"
        slowest = max(slowest, time.monotonic() - begun)
    assert slowest < SOON
    assert "looking up" in sites.client.get("n0")["StateReason"][1]
    begun = time.monotonic()
    sites.client.on("n0", "Remove")
    assert time.monotonic() - begun < SOON
    assert flow.stop(100) == []
    # Afterwards they would be nobody's children.
    asking = wait_until(lambda: [c.parent for c in pathlib.Path("/proc").glob("[0-9]*/comm")
                                 if is_child_of(c.parent, sites.daemon.pid)], "names are looked up")
    sites.daemon.stop()
    wait_until(lambda: not any(p.exists() for p in asking), "no look-up outlives the daemon", SOON)


def is_child_of(process, pid):
    try:
        return f"\nPPid:\t{pid}\n" in (process / "status").read_text()
    except OSError:
        return False


def test_lost_events(sites):
    """The daemon sleeps through more events than its socket holds, and mends all the same."""
    bridge(sites.near)
    sites.client.add("t1", remote=FAR, id=1, mode="join-networks", bridge="br0")
    index = sites.near.ifindex("ec-t1")
    sites.daemon.process.send_signal(signal.SIGSTOP)
    near = sites.near
    near.ip("link", "add", "noise", "type", "veth", "peer", "name", "noise2")
    near.ip("link", "set", "ec-t1", "nomaster")
    near.ip("link", "set", "ec-t1", "mtu", "1300")
    batch = "link set noise mtu 1400\nlink set noise mtu 1500\n" * 2500
    for _ in range(8):
        near.ips(batch)
        if dropped(sites.daemon):
            break
    assert dropped(sites.daemon), "the flood was too small for this test"
    near.ip("link", "del", "noise")
    sites.daemon.process.send_signal(signal.SIGCONT)
    wait_until(lambda: near.master("ec-t1") == "br0", "it is a port again", 30)
    wait_until(lambda: near.link("ec-t1")["mtu"] == 1500, "it has its MTU again", 30)
    assert near.ifindex("ec-t1") == index
    assert "dropped events" in sites.daemon.text()


def dropped(daemon):
    """Events that the kernel could not deliver to the daemon's sockets."""
    inodes = set()
    for fd in pathlib.Path(f"/proc/{daemon.pid}/fd").iterdir():
        target = os.readlink(fd)
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    lines = pathlib.Path(f"/proc/{daemon.pid}/net/netlink").read_text().splitlines()[1:]
    return sum(int(line.split()[8]) for line in lines if line.split()[9] in inodes)


def switches(daemon):
    status = pathlib.Path(f"/proc/{daemon.pid}/status").read_text()
    return [line for line in status.splitlines() if "ctxt_switches" in line]


def test_no_wake_ups_when_idle(sites):
    for i in range(1, 4):
        sites.tunnel(f"t{i}", i)
    sites.client.add("w", remote=FAR, id=9, underlay="device:nothing0")
    flow = sites.flow()
    # Settled: nothing was heard from the kernel, which tells of some changes a second later.
    since = [time.monotonic(), switches(sites.daemon)]

    def quiet():
        now = switches(sites.daemon)
        if now != since[1]:
            since[:] = [time.monotonic(), now]
        return time.monotonic() - since[0] > 1.5
    wait_until(quiet, "the daemon comes to rest", 20)
    before = switches(sites.daemon)
    stays(lambda: switches(sites.daemon) == before, 5, "it woke up", 0.05)
    assert flow.stop(1000) == [], "and the kernel carried frames all the time"
    sites.client.state("t1")
    assert switches(sites.daemon) != before, "the count counts"


def test_flood_of_events_costs_little(sites):
    """Ten rounds of work a second at most, whatever happens around."""
    sites.tunnel()
    sites.near.ip("link", "add", "noise", "type", "veth", "peer", "name", "noise2")
    used = cpu(sites.daemon)
    begun = time.monotonic()
    for _ in range(4):
        sites.near.ips("addr add 172.30.0.1/32 dev noise\naddr del 172.30.0.1/32 dev noise\n" * 300)
    wait_until(lambda: sites.client.state("t1") == "up", "it answers")
    took = time.monotonic() - begun
    assert (cpu(sites.daemon) - used) / took < 0.6
    assert ping(sites.near, FAR)


def cpu(daemon):
    fields = pathlib.Path(f"/proc/{daemon.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
