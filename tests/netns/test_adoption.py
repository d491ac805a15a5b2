# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon goes and comes; the kernel carries on, and everything is found again."""

import signal

import pytest

import ethercord
from ethercord import FAR, NEAR, bridge, far_vxlan, ping, refused, stays, wait_until


def crash(daemon):
    daemon.kill()
    daemon.start()


def leave(daemon):
    daemon.restart()


WAYS = {"kill -9": crash, "SIGTERM": leave}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("flags", ["activate", "activate persist"])
def test_no_frame_is_lost(sites, way, flags):
    sites.tunnel("t1", 1, flags=flags)
    before = sites.near.link("ec-t1")
    flow = sites.flow()
    for _ in range(3):
        flow.wait_sent(flow.sent + 400)
        WAYS[way](sites.daemon)
        assert sites.client.state("t1") == "up"
        assert sites.near.link("ec-t1") == before
    assert flow.stop(2000) == [] and flow.sent >= 2000


@pytest.mark.parametrize("way", WAYS)
def test_no_frame_is_lost_across_bridges(lab, sites, way):
    """With a bridge of ours, both directions, hosts behind them."""
    bridge(sites.far)
    far_vxlan(sites.far, "far", 7, mtu=1500, bridge="br0")
    sites.client.add("t1", remote=FAR, id=7, mode="join-networks", bridge="br0",
                     bridge_create=True)
    a = lab.host(sites.near, "br0", "192.168.9.1/24", "ha")
    b = lab.host(sites.far, "br0", "192.168.9.2/24", "hb")
    flows = [lab.flow(a, "eth0", b, "eth0").start(), lab.flow(b, "eth0", a, "eth0").start()]
    wait_until(lambda: {link["operstate"] for name, link in sites.near.links().items()
                        if name in ("br0", "p-ha")} == {"UP"}, "the bridge has its carrier")
    before = sites.near.links()
    for _ in range(2):
        WAYS[way](sites.daemon)
        sites.client.wait_state("t1", "up")
    assert [flow.stop(2000) for flow in flows] == [[], []]
    assert sites.near.links() == before
    assert ping(a, "192.168.9.2")


def test_the_flow_would_show_a_gap(sites):
    """The control of the tests above: what re-makes the interface loses frames."""
    sites.tunnel()
    flow = sites.flow()
    sites.client.on("t1", "Deactivate")
    sites.client.on("t1", "Activate")
    assert len(flow.stop(500)) > 0
    flow = sites.flow()
    sites.near.ip("link", "set", "ec-t1", "down")
    sites.near.ip("link", "set", "ec-t1", "up")
    flow.wait_sent(200)
    sites.near.ip("link", "set", "wire", "down")
    flow.wait_sent(flow.sent + 20)
    sites.near.ip("link", "set", "wire", "up")
    assert len(flow.stop(500)) > 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("flags", ["", "persist"])
def test_what_is_down_stays_down(sites, way, flags):
    sites.tunnel("t1", 1, flags="activate " + flags)
    sites.client.on("t1", "Deactivate")
    WAYS[way](sites.daemon)
    assert sites.client.state("t1") == "down" and not sites.near.link("ec-t1")
    WAYS[way](sites.daemon)
    assert sites.client.state("t1") == "down"
    sites.client.on("t1", "Activate")
    WAYS[way](sites.daemon)
    assert sites.client.state("t1") == "up"


def test_never_activated_stays_down(sites):
    sites.client.add("t1", flags="", remote=FAR, id=1)
    sites.daemon.restart()
    assert sites.client.state("t1") == "down"


def test_boot_forgets_what_is_not_persistent(lab, sites):
    sites.tunnel("t1", 1)
    sites.tunnel("t2", 2, flags="activate persist")
    sites.daemon.stop()
    ethercord.shutil.rmtree(sites.daemon.runtime)
    for name in ("ec-t1", "ec-t2"):
        sites.near.ip("link", "del", name)
    sites.daemon.start()
    assert sites.client.tunnels() == ["t2"] and sites.client.state("t2") == "up"


def test_removed_while_the_daemon_was_away(sites):
    """Its file is gone: its interface is an orphan."""
    sites.tunnel("t1", 1, flags="activate persist")
    sites.tunnel("t2", 2, flags="activate persist")
    index = sites.near.ifindex("ec-t2")
    sites.daemon.stop()
    (sites.daemon.tunnels / "t1.conf").unlink()
    sites.daemon.start()
    wait_until(lambda: sites.near.link("ec-t1") is None, "the orphan is gone")
    assert sites.near.ifindex("ec-t2") == index


def test_changed_while_the_daemon_was_away(sites):
    """Another id is another tunnel; another MTU is not."""
    sites.tunnel("t1", 1, flags="activate persist")
    index = sites.near.ifindex("ec-t1")
    sites.daemon.stop()
    file = sites.daemon.tunnels / "t1.conf"
    file.write_text(file.read_text() + "mtu=1300\n")
    sites.daemon.start()
    wait_until(lambda: sites.near.link("ec-t1")["mtu"] == 1300, "the MTU is new")
    assert sites.near.ifindex("ec-t1") == index
    sites.daemon.stop()
    file.write_text(file.read_text().replace("id=1\n", "id=5\n"))
    sites.near.ip("link", "set", "ec-t1", "name", "elsewhere")
    sites.daemon.start()
    wait_until(lambda: "ec-t1" in (links := sites.near.links()) and "elsewhere" not in links,
               "it has its name, and the other one is gone")
    assert sites.near.link("ec-t1")["linkinfo"]["info_data"]["id"] == 5


def test_others_are_never_touched(lab, sites):
    """Untagged interfaces, bridges, addresses and routes of all sorts, over a full cycle."""
    near = sites.near
    bridge(near, "br-own")
    far_vxlan(near, "vx-own", 500, local=NEAR, remote="10.77.0.77", port=4790, bridge="br-own")
    near.ip("link", "set", "br-own", "address", "02:00:5e:10:00:99")
    near.ips("""link add ec-x type veth peer name ec-y
link set ec-x master br-own up
link set ec-y up
link add strange type bridge
link set strange alias somebody:t1
link set strange group 7
addr add 172.16.1.1/24 dev br-own
route add 172.20.0.0/16 via 172.16.1.2
link add ec-tail type vxlan id 501 remote 10.77.0.78 dstport 4791
link set ec-tail alias ethercordesque
""")
    wait_until(lambda: "linkdown" not in near.ip("route").stdout, "br-own has its carrier")
    before = near.dump()
    sites.client.add("t1", remote=FAR, id=1, mode="join-networks", bridge="br-own")
    sites.client.add("t2", remote=FAR, id=2, mode="join-networks", bridge="br-new",
                     bridge_create=True, attach="ec-y")
    during = near.dump("ec-t1", "ec-t2", "br-new")
    assert [l["ifname"] for l in during["links"]] == [l["ifname"] for l in before["links"]]
    crash(sites.daemon)
    sites.client.on("t2", "Deactivate")
    sites.client.on("t1", "Remove")
    sites.client.on("t2", "Remove")
    sites.daemon.restart()
    wait_until(lambda: {"ec-t1", "ec-t2", "br-new"}.isdisjoint(near.links()), "ours are gone")
    wait_until(lambda: near.dump() == before, "all else is as it was")


def test_second_daemon_deletes_nothing(lab, sites):
    """It does not know the first one's tunnels, and does not take them for orphans."""
    sites.tunnel("t1", 1)
    flow = sites.flow("t1")
    index = sites.near.ifindex("ec-t1")
    other = lab.daemon(sites.near, "second")
    assert "another ethercordd" in other.text()
    other.bus.client.add("t2", flags="", remote=FAR, id=2)
    other.restart()
    other.process.send_signal(signal.SIGHUP)
    other.bus.client.on("t2", "Remove")
    stays(lambda: sites.near.ifindex("ec-t1") == index, 0.5, "it lives")
    assert flow.stop(300) == []
    assert sites.client.tunnels() == ["t1"]


def test_first_daemon_deletes_nothing(lab, sites):
    """Nor does the first one take the second one's for orphans."""
    sites.tunnel("t1", 1)
    other = lab.daemon(sites.near, "second")
    far_vxlan(sites.far, "far-t2", 2, mtu=1450)
    other.bus.client.add("t2", remote=FAR, id=2)
    index = sites.near.ifindex("ec-t2")
    sites.near.ip("link", "set", "lo", "mtu", "60000")
    stays(lambda: sites.near.ifindex("ec-t2") == index, 0.5, "the first daemon deleted it")
    assert sites.flow("t2").stop(300) == []
    sites.daemon.restart()
    stays(lambda: sites.near.ifindex("ec-t2") == index, 0.5, "the first daemon deleted it")


def test_two_namespaces_share_nothing(lab, sites):
    other = lab.daemon(sites.far, "far-daemon")
    assert "another" not in other.text()
    sites.client.add("t1", remote=FAR, id=1, address="192.168.9.1/24")
    other.bus.client.add("t1", remote=NEAR, id=1, address="192.168.9.2/24")
    assert ping(sites.near, "192.168.9.2")
    sites.client.on("t1", "Remove")
    assert other.bus.client.state("t1") == "up" and sites.far.link("ec-t1")
    with refused("NoSuchTunnel"):
        sites.client.call(ethercord.PATH, ethercord.MANAGER, "GetTunnel", "s", "t1")
