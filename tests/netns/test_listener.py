# SPDX-License-Identifier: GPL-2.0-or-later
"""One listener and its peers: many, each with settings of its own, known by a key or by the VPN."""

import base64
import contextlib
import struct

import dbus
import pytest

import ethercord
from control import (HOST, KEY, LISTENER, OTHER_KEY, Internet, Nat, Site, World, carries,
                     listener_path)
from ethercord import frame_socket, ping, stays, typed, wait_until
from vpn import OpenVpn, PlainTun, Topology, sysctl

MANY, SITES = 100, 4


def told(site, name="office"):
    got = site.client.get(name)
    return got["State"], *got["StateReason"]


@pytest.fixture
def world(lab):
    return World(lab)


def bare(lab):
    """The office alone, and its host."""
    made = World.__new__(World)
    made.lab, made.internet, made.nat = lab, Internet(lab), None
    made.office = made.site("office", 2)
    return made, made.host()


# Many

def test_many(lab):
    """100 peers of four sites, 25 of them behind one NAT address: each has a cord of its own."""
    world, host = bare(lab)
    names = [f"p{n}" for n in range(MANY)]
    world.office.listen(peers=names, max_peers=MANY)
    sites = []
    for s in range(SITES):
        if s == SITES - 1:
            nat, ns = Nat(world.internet, 20), lab.namespace("behind")
            nat.join(ns, 10)
            sites.append(Site(lab, ns, "behind"))
        else:
            sites.append(world.site(f"site{s}", 10 + s))
    where = {name: sites[n % SITES] for n, name in enumerate(names)}
    for name, site in where.items():
        site.dial(name, underlay="any")

    def states(client):
        return [o[ethercord.TUNNEL]["State"] for o in client.objects().values()
                if ethercord.TUNNEL in o]
    for site in (world.office, *sites):
        wait_until(lambda s=site: states(s.client).count("up") == (
            MANY if s is world.office else MANY // SITES), f"all of {site.label} are up", 60, 0.1)
    links = {n: link for n, link in world.office.ns.links().items()
             if link.get("ifalias", "").startswith("ethercord:lan.")}
    ids = {link["linkinfo"]["info_data"]["id"] for link in links.values()}
    assert len(links) == len(ids) == len({link["address"] for link in links.values()}) == MANY
    assert all(link["master"] == "br0" for link in links.values())
    listener = world.office.listener()
    assert len(set(listener["Peers"])) == MANY
    everywhere(lab, world, host, where)
    # The listener's daemon dies and comes back: the same links, and all talk again.
    indexes = {name: link["ifindex"] for name, link in links.items()}
    flow = lab.flow(sites[0].ns, sites[0].ifname("p0"), host, "eth0", 0.005).start()
    world.office.daemon.kill()
    flow.wait_sent(flow.sent + 200)
    world.office.daemon.start()
    wait_until(lambda: states(world.office.client).count("up") == MANY, "all are up", 40, 0.1)
    wait_until(lambda: reattached(world, MANY), "all talk", 40, 0.1)
    assert flow.stop() == []
    assert {n: link["ifindex"] for n, link in world.office.ns.links().items()
            if link.get("ifalias", "").startswith("ethercord:lan.")} == indexes
    everywhere(lab, world, host, where)


def reattached(world, number):
    """So many peers talk to the office."""
    shown = world.office.ns.exec("ss", "-Htn", "state", "established", "sport", "=", ":65200")
    return len(shown.stdout.splitlines()) >= number


def everywhere(lab, world, host, where):
    """A frame of each peer reaches the LAN once, and one from the LAN each peer."""
    ear = lab.capture(host, "eth0", 0x88B6)
    ears = {}
    for n, (name, site) in enumerate(where.items()):
        ifname = site.ifname(name)
        ears[name] = lab.capture(site.ns, ifname, 0x88B6)
        with contextlib.closing(frame_socket(site.ns, ifname, 0x88B6)) as s:
            s.send(b"\xff" * 6 + struct.pack("!HI", 0x0200, n) + b"\x88\xb6" +
                   struct.pack("!I", n) + bytes(50))
    wait_until(lambda: len(ear.take()) >= MANY, "a frame of each arrives")
    assert sorted(struct.unpack("!I", f[14:18])[0] for f in ear.take()) == list(range(MANY))
    with contextlib.closing(frame_socket(host, "eth0", 0x88B6)) as s:
        s.send(b"\xff" * 6 + b"\x02\x00\x5e\x10\x00\x99\x88\xb6" + b"\xee" * 50)
    for name, here in ears.items():
        wait_until(lambda h=here: [f for f in h.take() if f[14:18] == b"\xee" * 4],
                   f"the LAN's frame reaches {name}")


def test_max_peers(world):
    """One too many is refused by name, touches nothing, and comes in when another one goes."""
    world.host()
    world.office.listen(peers=("a", "b", "c"), max_peers=2)
    for name in "ab":
        world.laptop.dial(name, underlay="any")
        world.both_up(name)
    before = world.office.interfaces()
    world.laptop.dial("c", underlay="any")
    state, _, sentence = wait_until(lambda: (t := told(world.laptop, "c"))[1] == "LimitExceeded"
                                    and t, "it is refused")
    assert state in ("waiting", "connecting", "failed") and "2" in sentence
    assert world.office.interfaces() == before
    world.laptop.down("a")
    world.office.wait("lan.a", None)
    if state == "failed":
        world.laptop.client.on("c", "Activate")
    world.both_up("c", timeout=40)
    world.both_up("b")


def test_two_machines_with_one_name(world):
    """The first is not disturbed by the second, which is told; when it is gone, that comes in."""
    host = world.up(listening={"keepalive_interval": 100, "keepalive_timeout": 1000})
    other = world.site("other", 3)
    flows = world.flows(host)
    index = world.office.get("lan.office")["Ifindex"]
    other.dial(underlay="any")
    state, token, sentence = wait_until(lambda: (t := told(other))[1] not in (
        "", "Dialling", "Probing") and t, "it is told")
    assert state in ("connecting", "failed", "waiting") and token != "WrongKey"
    assert "office" in sentence
    stays(lambda: other.client.state("office") != "up" and world.laptop.client.state("office") ==
          "up", 3, "the first stays", 0.05)
    assert [f.stop() for f in flows] == [[], []]
    assert world.office.get("lan.office")["Ifindex"] == index
    world.internet.cut(1)
    other.wait("office", "up", 60)
    assert world.office.get("lan.office")["Remote"] == "10.9.3.2"
    carries(world.lab.flow(other.ns, "ec-office", host, "eth0").start())
    # And does not have to give way either, when the first one is back.
    world.internet.cut()
    wait_until(lambda: world.laptop.client.state("office") != "up", "the first one is out", 30)
    stays(lambda: other.client.state("office") == "up", 3, "the second stays", 0.05)


# Peers with settings of their own

def test_settings_of_peers(world):
    """Over those of the listener; patterns name interfaces."""
    ethercord.bridge(world.office.ns, "br1")
    world.host()
    world.office.listen(interface="peer%n", peers={
        "plain": {"key": KEY},
        "own": {"key": OTHER_KEY, "bridge": "br1", "interface": "special", "mtu": 1400,
                "mac": "02:00:5e:10:00:77"},
        "third": {"key": KEY}})
    world.laptop.dial("plain", underlay="any")
    world.laptop.dial("own", underlay="any", key=OTHER_KEY)
    world.laptop.dial("third", underlay="any")
    there = {name: world.both_up(name)[1] for name in ("plain", "own", "third")}
    patterned = {there[name]["Interface"] for name in ("plain", "third")}
    assert len(patterned) == 2 and all(p[:4] == "peer" and p[4:].isdigit() for p in patterned)
    assert there["own"]["Interface"] == "special"
    link = world.office.ns.link("special")
    assert (link["mtu"], link["master"], link["address"]) == (1400, "br1", "02:00:5e:10:00:77")
    assert world.laptop.ns.link(world.laptop.ifname("own"))["mtu"] == 1400
    for name in ("plain", "third"):
        assert world.office.ns.master(there[name]["Interface"]) == "br0"


def test_peer_with_the_key_of_another(world):
    """A peer's name goes with its key; the listener's own key is for those that have none."""
    world.host()
    world.office.listen(peers={"a": {"key": KEY}, "b": {"key": OTHER_KEY}})
    world.laptop.dial("b", underlay="any", key=KEY)
    wait_until(lambda: told(world.laptop, "b")[:2] == ("failed", "WrongKey"), "refused")
    assert world.office.client.tunnels() == [] and not world.office.interfaces()


def test_keys_change(world):
    """SetPeer counts for the next that comes."""
    world.host()
    world.office.listen(peers={"office": {"key": OTHER_KEY}})
    world.laptop.dial(underlay="any")
    wait_until(lambda: told(world.laptop)[:2] == ("failed", "WrongKey"), "refused")
    world.office.on_listener("lan", "SetPeer", "sa{sv}", "office", typed({"key": KEY}))
    world.laptop.client.on("office", "Activate")
    world.both_up()
    assert KEY not in str(world.office.client.objects())


def test_port_is_taken(world):
    """Somebody else has the port: said, and no longer when it is free."""
    world.host()
    with world.office.ns.entered():
        taken = ethercord.socket.create_server(("0.0.0.0", 65200))
    try:
        world.office.listen()
    except dbus.DBusException as e:
        assert "65200" in e.get_dbus_message()
        taken.close()
        world.office.listen()
    else:
        got = world.office.listener()
        assert got["State"] == "failed" and "65200" in got["StateReason"][1]
        taken.close()
        wait_until(lambda: world.office.listener()["State"] == "up", "the port is free", 40, 0.05)
    world.laptop.dial(underlay="any")
    world.both_up(timeout=40)


def test_objects(world):
    """The listener and who came by it, as the bus has them; removing it leaves nothing."""
    base = world.office.ns.dump()
    assert world.office.listen() == listener_path("lan")
    assert listener_path("lan") == world.office.client.call(
        ethercord.PATH, ethercord.MANAGER, "GetListener", "s", "lan")
    signals = world.lab.signals(world.office.daemon)
    world.laptop.dial(underlay="any")
    there = world.both_up()[1]
    seen = signals.take()
    added = [v for _, _, member, v in seen if member == "InterfacesAdded"]
    tunnels = [v[0] for v in added if ethercord.TUNNEL in v[1]]
    assert tunnels == [ethercord.tunnel_path("lan.office")]
    assert any(p == listener_path("lan") and "Peers" in v[1] for p, _, m, v in seen
               if m == "PropertiesChanged" and v[0] == LISTENER)
    assert there["Persistent"] is False
    world.office.on_listener("lan", "Remove")
    world.office.wait("lan.office", None)
    removed = [v[0] for _, _, member, v in signals.take() if member == "InterfacesRemoved"]
    assert {ethercord.tunnel_path("lan.office"), listener_path("lan")} <= set(removed)
    assert not world.office.interfaces()
    wait_until(lambda: world.office.ns.dump() == base, "as it was")
    assert not [f for f in world.office.daemon.directory.rglob("*") if f.is_file() and
                KEY in f.read_text(errors="replace")], "its keys are gone"


def test_kept_over_a_reboot(world):
    """Listener, peers and tunnels that were saved, from their files alone; keys are in the store
    only, for nobody else's eyes."""
    world.host()
    world.office.listen(flags="activate persist")
    world.laptop.dial(flags="activate persist", underlay="any", address="192.168.9.1/24")
    world.both_up()
    for site in (world.laptop, world.office):
        site.daemon.kill()
        for ifname in site.interfaces().values():
            site.ns.ip("link", "del", ifname)
        ethercord.shutil.rmtree(site.daemon.runtime)
        files = [f for f in site.daemon.directory.rglob("*") if f.is_file()]
        keys = [f for f in files if f.is_relative_to(site.daemon.state / "keys")]
        assert keys and all(f.stat().st_mode & 0o777 == 0o600 for f in keys)
        raw = base64.b64decode(KEY)
        told_it = [f for f in files if f not in keys and
                   (KEY.encode() in f.read_bytes() or raw in f.read_bytes())]
        assert not told_it, f"the key is in {told_it}"
    for site in (world.office, world.laptop):
        site.daemon.start()
    world.both_up(timeout=20)
    assert ping(world.laptop.ns, HOST, size=1472)


def test_ipv6_peers(lab):
    """allow holds networks of both versions; one socket hears both."""
    world = World(lab, ipv6=True)
    world.host()
    world.office.listen(peers={"six": {"key": KEY, "allow": ["fd09:1::/64"]},
                               "four": {"key": KEY, "allow": ["10.9.1.0/24"]},
                               "none": {"key": KEY, "allow": ["fd09:7::/64"]}})
    for name, remote in (("six", "fd09:2::2"), ("four", "10.9.2.2"), ("none", "fd09:2::2")):
        world.laptop.dial(name, remote, underlay="any")
    assert world.both_up("six")[1]["Remote"] == "fd09:1::2"
    assert world.both_up("four")[1]["Remote"] == "10.9.1.2"
    wait_until(lambda: told(world.laptop, "none")[1] not in ("", "Dialling"), "it is said")
    assert world.laptop.client.state("none") != "up"
    assert sorted(world.office.client.tunnels()) == ["lan.four", "lan.six"]


# Known by the VPN

class Private:
    """Two sites over a VPN."""

    def __init__(self, lab, vpn_class):
        self.lab, self.vpn = lab, vpn_class(Topology(lab)).up().wait_up()
        topology = self.vpn.topology
        self.laptop = Site(lab, topology.near, "laptop")
        self.office = Site(lab, topology.far, "office")
        for site in (self.laptop, self.office):
            sysctl(site.ns, ipv6__conf__default__disable_ipv6=1)
        ethercord.bridge(self.office.ns)
        self.host = lab.host(self.office.ns, "br0", f"{HOST}/24")

    def dial(self, **settings):
        full = {"key": None, "underlay": self.vpn.underlay, "address": "192.168.9.1/24", **settings}
        self.laptop.dial(remote=self.vpn.far, **full)

    def listen(self, **settings):
        full = {"underlay": self.vpn.underlay, "allow": f"{self.vpn.near}/32", **settings}
        self.office.listen(peers=full.pop("peers", {"office": {}}), **full)


@pytest.mark.parametrize("vpn", [PlainTun, OpenVpn], ids=lambda v: v.__name__)
def test_without_key(lab, vpn):
    """Both ends see the other one through a VPN, and the listener's allow names it."""
    private = Private(lab, vpn)
    private.listen()
    private.dial()
    here = private.laptop.wait("office", "up", 20)
    there = private.office.wait("lan.office", "up")
    assert here["Protected"] and there["Protected"] and there["Underlay"] != "/"
    assert ping(private.laptop.ns, HOST, 2) and ping(private.laptop.ns, HOST, size=1472)


@pytest.mark.parametrize("what", ["not allowed", "allow empty", "has a key", "listener any",
                                  "dialer any"])
def test_without_key_is_refused(lab, what):
    private = Private(lab, PlainTun)
    listening = {"not allowed": {"allow": "10.7.99.0/24"}, "allow empty": {"allow": None},
                 "has a key": {"peers": {"office": {"key": KEY}}},
                 "listener any": {"underlay": "any"}}.get(what, {})
    private.listen(**listening)
    before = private.office.ns.dump()
    try:
        private.dial(**({"underlay": "any"} if what == "dialer any" else {}))
    except dbus.DBusException as e:
        assert what == "dialer any" and e.get_dbus_name() == ethercord.ERROR + "NotProtected", e
        return
    tokens = {"not allowed": ("PeerUnreachable", "Refused"),
              "allow empty": ("PeerUnreachable", "Refused", "WrongKey"),
              "has a key": ("WrongKey", "Refused"),
              "listener any": ("NotProtected", "Refused", "PeerUnreachable"),
              "dialer any": ("NotProtected",)}[what]
    state, _, sentence = wait_until(lambda: (t := told(private.laptop))[1] in tokens and t,
                                    f"{told(private.laptop)}", 15)
    assert state in ("failed", "waiting", "connecting") and sentence.isprintable()
    stays(lambda: told(private.laptop)[0] != "up", 1, "up", 0.05)
    assert private.office.client.tunnels() == [] and private.office.ns.dump() == before


def test_allowed_address_outside_of_the_vpn(lab):
    """An address that allow names, but that comes over the bare network, is nobody's."""
    private = Private(lab, PlainTun)
    private.listen(allow="0.0.0.0/0")
    before = private.office.ns.dump()
    try:
        private.laptop.dial(remote="10.9.2.2", key=None, underlay="device:net0")
    except dbus.DBusException as e:
        assert e.get_dbus_name() == ethercord.ERROR + "NotProtected", e
    else:
        wait_until(lambda: told(private.laptop)[1], "it is said")
        stays(lambda: told(private.laptop)[0] != "up", 2, "up", 0.05)
    assert private.office.client.tunnels() == [] and private.office.ns.dump() == before
    # Control: through the VPN it is let in.
    private.laptop.client.on("office", "Remove")
    private.dial()
    private.laptop.wait("office", "up", 20)


def test_the_vpn_goes_and_comes(lab):
    """Both wait; then the same interfaces carry on."""
    private = Private(lab, PlainTun)
    private.listen()
    private.dial()
    private.laptop.wait("office", "up", 20)
    private.office.wait("lan.office", "up")
    indexes = (private.laptop.ns.ifindex("ec-office"),
               private.office.ns.ifindex(private.office.ifname("lan.office")))
    happening = private.vpn.link_down()
    next(happening)
    private.laptop.wait("office", "waiting")
    next(happening, None)
    private.laptop.wait("office", "up", 40)
    there = private.office.wait("lan.office", "up", 40)
    assert indexes == (private.laptop.ns.ifindex("ec-office"), there["Ifindex"])
    carries(private.lab.flow(private.laptop.ns, "ec-office", private.host, "eth0").start())
