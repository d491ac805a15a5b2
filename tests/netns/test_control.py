# SPDX-License-Identifier: GPL-2.0-or-later
"""Two ends that find each other: what they agree on, that it is proven before it is said, and what
is said when they do not."""

import struct
import threading

import pytest

import ethercord
from control import (HOST, KEY, OTHER_KEY, PROBE, Follow, Links, World, carries, frame_crosses,
                     full_frames, timed)
from ethercord import ETHERTYPE, bridge, frame_socket, ping, stays, wait_until

FULL = 1472  # bytes of ping that make a 1500-byte packet
FAST = {"keepalive_interval": 100, "keepalive_timeout": 1000}
OFFICE = "10.9.2.2"


@pytest.fixture
def world(lab):
    return World(lab)


def vnis(site):
    """Of the site's tunnels, as the kernel has them: name -> VNI."""
    return {name: site.ns.link(ifname)["linkinfo"]["info_data"]["id"]
            for name, ifname in site.interfaces().items()}


# Three modes

def test_join_remote(world):
    host = world.up()
    here, there = world.both_up()
    assert (here["Role"], there["Role"]) == ("dial", "accept")
    assert there["Listener"] == f"{ethercord.PATH}/listener/lan" and here["Listener"] == "/"
    assert there["Peer"] == "office" and there["Name"] == "lan.office"
    assert here["Id"] == there["Id"] and vnis(world.laptop) == {"office": here["Id"]}
    assert vnis(world.office) == {"lan.office": here["Id"]}
    assert here["Mtu"] == there["Mtu"] == 1500
    assert world.office.ns.master(there["Interface"]) == "br0"
    assert "master" not in world.laptop.ns.link(here["Interface"])
    assert here["Remote"] == OFFICE and there["Remote"] == "10.9.1.2"
    listener = world.office.listener()
    assert listener["State"] == "up"
    assert listener["Peers"] == [ethercord.tunnel_path("lan.office")]
    assert ping(world.laptop.ns, HOST, 2) and ping(host, "192.168.9.1", size=FULL)
    full_frames(world, host)


def test_point_to_point(world):
    world.office.listen(mode="point-to-point", bridge=None, bridge_create=None,
                        peers={"office": {"key": KEY, "address": "192.168.9.2/24"}})
    world.laptop.dial(mode="point-to-point", underlay="any", address="192.168.9.1/24")
    here, there = world.both_up()
    assert here["Mtu"] == there["Mtu"] == 1450
    assert ping(world.laptop.ns, "192.168.9.2", size=1450 - 28, df=True)
    assert ping(world.office.ns, "192.168.9.1", size=1450 - 28, df=True)


def test_join_networks(world):
    b = world.host()
    a = world.host(world.laptop, "192.168.9.60/24", "other")
    world.office.listen(mode="join-networks")
    world.laptop.dial(mode="join-networks", underlay="any", bridge="br0")
    world.both_up()
    for ns, address in ((a, HOST), (b, "192.168.9.60")):
        wait_until(lambda n=ns, d=address: ping(n, d, timeout=1, check=False), "they are joined")
        assert ping(ns, address, size=FULL)
    assert frame_crosses(world.lab, a, "eth0", b, "eth0")
    assert frame_crosses(world.lab, b, "eth0", a, "eth0")


def test_by_hand(world):
    """As the manual has it: a key, a listener, a peer; and one line at the laptop."""
    world.host()
    key = world.office.daemon.ctl("genkey", check=0).stdout.strip()
    world.office.daemon.ctl("listen", "lan", "bridge=br0", "bridge-create=yes", "underlay=any",
                            check=0)
    world.office.daemon.ctl("peer", "lan", "office", f"key={key}", check=0)
    world.laptop.daemon.ctl("add", "office", f"remote={OFFICE}", "mode=join-remote", "underlay=any",
                            "address=192.168.9.1/24", check=0)
    world.laptop.daemon.ctl("setkey", "office", input=key + "\n", check=0)
    world.laptop.daemon.ctl("up", "office", check=0)
    world.both_up()
    assert ping(world.laptop.ns, HOST, size=FULL)
    shown = world.office.daemon.ctl("list", check=0).stdout
    assert "lan.office" in shown
    for daemon in (world.office.daemon, world.laptop.daemon):
        for word in ("status", "--json=short"):
            assert key not in daemon.ctl(word, check=0).stdout
        assert key not in daemon.text()


def test_ipv6(lab):
    world = World(lab, ipv6=True)
    world.up(remote="fd09:2::2")
    here, there = world.both_up()
    assert here["Remote"] == "fd09:2::2" and there["Remote"] == "fd09:1::2"
    outer = lab.capture(world.laptop.ns, "net0", outgoing_only=True)
    assert ping(world.laptop.ns, HOST, 2)
    assert [f for f in outer.take() if f[12:14] == b"\x86\xdd" and f[20] == 17]
    size = here["LargestFrame"] - 14 - 28
    assert size >= 1400 and ping(world.laptop.ns, HOST, size=size)


def test_two_cords_between_two(world):
    """To one listener, by two names; then each of them goes for itself."""
    host = world.host()
    world.office.listen(peers=("one", "two"))
    for name in ("one", "two"):
        world.laptop.dial(name, underlay="any")
        world.both_up(name)
    here, there = vnis(world.laptop), vnis(world.office)
    assert here["one"] != here["two"]
    assert there == {"lan.one": here["one"], "lan.two": here["two"]}
    assert len(world.office.listener()["Peers"]) == 2
    for name in ("one", "two"):
        lost = world.lab.flow(world.laptop.ns, world.laptop.ifname(name), host, "eth0").start()
        assert lost.stop(50) == []
    world.laptop.down("one")
    world.office.wait("lan.one", None)
    world.both_up("two")
    wait_until(lambda: set(world.office.interfaces()) == {"lan.two"}, "its interface is gone")
    assert vnis(world.office) == {"lan.two": there["lan.two"]}


def test_steps_are_told(world):
    """Each step as it happens, in its order; `monitor` shows them."""
    world.host()
    world.office.listen()
    here, there = Follow(world.lab, world.laptop), Follow(world.lab, world.office)
    world.laptop.dial(flags="", underlay="any")
    world.laptop.client.on("office", "Activate")
    world.both_up()
    words = here.words("office")
    steps = ["dialling", "welcomed", "chose", "ready", "proved", "=up"]
    assert [w for w in words if w in steps] == steps, words
    assert "=connecting" in words[:words.index("proved")], words
    words = there.words("lan.office")
    assert "=up" in words and words.index("proved") < words.index("=up"), words


# What is proven

def test_up_after_full_frames_crossed(world):
    """At neither end before they were seen at the router, both ways."""
    world.host()
    to_office, to_laptop = world.internet.wire(2), world.internet.wire(1)
    world.office.listen()
    world.laptop.dial(underlay="any")
    here, there = world.both_up()
    crossed = [min(d.at for d in wire.probes(1514)) for wire in (to_office, to_laptop)]
    for end, got in (("laptop", here), ("office", there)):
        assert got["SinceUsec"] / 1e6 >= max(crossed), f"{end} was up before full frames crossed"
    assert here["LargestFrame"] == there["LargestFrame"] == 1514


@pytest.mark.parametrize("way", [1, 2])
def test_not_up_while_frames_cross_one_way(world, way):
    host = world.host()
    world.internet.filter(f'iifname "n{way}" ip protocol udp drop')
    links, wire = world.lab.keep(Links(world.laptop.ns)), world.internet.wire(way)
    world.office.listen()
    follow = [Follow(world.lab, site) for site in (world.laptop, world.office)]
    world.laptop.dial(underlay="any", address="192.168.9.1/24")
    wait_until(wire.probes, "it is tried", 10)

    def not_up():
        for f in follow:
            assert "=up" not in [w for _, w, _ in f.take()]
        return True
    stays(not_up, 4, "", 0.05)
    assert not [s for s in links.seen if s[3] == "ec-office" and s[4] == Links.UP], "no carrier"
    state, (token, sentence) = (world.laptop.get("office")[k] for k in ("State", "StateReason"))
    assert state in ("waiting", "connecting") and token and sentence
    world.internet.filter()
    world.both_up(timeout=40)
    full_frames(world, host)


@pytest.mark.parametrize("mask", [0, 0x4000], ids=["as usual", "link-local frames forwarded"])
def test_probes_stay_inside(world, mask):
    """They never reach a LAN, not even one whose bridges forward LLDP's address."""
    hosts = [world.host(), world.host(world.laptop, "192.168.9.60/24", "other")]
    for site in (world.office, world.laptop):
        site.ns.ip("link", "set", "br0", "type", "bridge", "group_fwd_mask", mask)
    ears = [world.lab.capture(host, "eth0", ETHERTYPE) for host in hosts]
    world.office.listen(mode="join-networks", **FAST)
    world.laptop.dial(mode="join-networks", underlay="any", bridge="br0", **FAST)
    world.both_up()
    wire = world.internet.wire(2)
    wait_until(lambda: len(wire.probes()) >= 20, "probes cross")
    heard = [f.hex() for ear in ears for f in ear.take()]
    assert not heard, f"{len(heard)} probes in the LANs: {heard[0]}"
    # Control: the hosts hear frames of this kind.
    for ear, ns in zip(ears, (world.laptop.ns, world.office.ns)):
        frame_socket(ns, "br0").send(b"\xff" * 6 + bytes.fromhex("02005e100007") +
                                     struct.pack("!H", ETHERTYPE) + bytes(50))
        wait_until(ear.take, "a frame reaches the other LAN's host")


def test_a_lan_cannot_probe(world):
    """Frames to the probes' address from a LAN, ours played back among them, change nothing."""
    host = world.up(keepalive_interval=50, keepalive_timeout=1000)

    def statistics(more=0):
        """Once so many probes more have been sent."""
        seen = world.laptop.statistics("office")["probes-sent"]
        return wait_until(lambda: (now := world.laptop.statistics("office"))["probes-sent"] >=
                          seen + more and now, f"{more} probes more", 30)
    wire = world.internet.wire(2)
    frames = [d.payload[8:] for d in wait_until(wire.probes, "probes cross")][:4]
    # One counts as lost when there was no answer for the timeout.
    before = statistics(40)
    flows = world.flows(host)
    sender = frame_socket(world.laptop.ns, "ec-office")
    for frame in frames:
        for changed in (frame, frame[:-1] + bytes([frame[-1] ^ 1]), frame[:40], frame + bytes(60),
                        PROBE + frame[6:12] + struct.pack("!H", ETHERTYPE)):
            for _ in range(20):
                sender.send(changed)
            # No more at once than a socket's buffer takes.
            statistics(1)
            world.office.statistics("lan.office")
    sender.close()
    assert [f.stop(400) for f in flows] == [[], []]
    world.both_up()
    assert statistics(40)["probes-lost"] == before["probes-lost"]


def test_statistics(world):
    """Probes are counted, timed, and numbered: one that is lost is seen to be."""
    world.up(**FAST)
    wait_until(lambda: world.laptop.statistics("office")["probes-sent"] > 20, "probes are sent")
    got = world.laptop.statistics("office")
    assert 0 < got["rtt-us"] < 100_000 and got["jitter-us"] < 100_000
    assert got["probes-lost"] == 0 and got["reconnects"] == 0

    def sent():
        return world.laptop.statistics("office")["probes-sent"]
    before = sent()
    wire = world.internet.wire(2)
    begin = sent()
    end = wait_until(lambda: (now := sent()) >= begin + 20 and now, "more")
    crossed = len(wire.probes())
    assert end - begin - 5 <= crossed <= sent() - before + 5, "what is counted crosses the wire"
    world.internet.filter("ip protocol udp numgen inc mod 4 0 drop")
    wait_until(lambda: world.laptop.statistics("office")["probes-lost"] >= 5, "losses are counted")
    world.both_up()


def addresses(world, *names):
    return [site.ns.link(site.ifname(name))["address"]
            for site, name in zip((world.laptop, world.office), names)]


def test_equal_macs(world):
    """The derived address of one end is what the other one is set to: it gets another. So do two
    ends that derive the same: of one machine's identity, for tunnels of one name."""
    host = world.up()
    mac = addresses(world, "office")[0]
    world.laptop.down("office")
    world.office.wait("lan.office", None)
    world.office.on_listener("lan", "SetPeer", "sa{sv}", "office",
                             ethercord.typed({"key": KEY, "mac": mac}))
    world.laptop.client.on("office", "Activate")
    world.both_up()
    here, there = addresses(world, "office", "lan.office")
    assert there == mac != here and not int(here[:2], 16) & 1
    full_frames(world, host)
    world.laptop.client.on("office", "Remove")
    world.office.on_listener("lan", "Remove")
    for site in mirrored(world):
        site.wait("cord", "up")
    here, there = addresses(world, "cord", "cord")
    assert here != there and not (int(here[:2], 16) | int(there[:2], 16)) & 1
    assert ping(world.laptop.ns, "192.168.9.2", 2)


def test_equal_macs_that_are_set(world):
    """What both were told to be is nothing to replace: it is said."""
    world.host()
    mac = "02:00:5e:10:00:55"
    world.office.listen(peers={"office": {"key": KEY, "mac": mac}})
    world.laptop.dial(underlay="any", mac=mac)
    reason(world.laptop, ("failed",), ("InvalidSetting",), "mac")
    wait_until(lambda: not world.office.interfaces(), "nothing is left at the office")


# Both at once

def mirrored(world, flags="activate"):
    """The same cord at both, each of which dials the other."""
    for n, (site, remote) in enumerate(((world.laptop, OFFICE), (world.office, "10.9.1.2")), 1):
        site.dial("cord", remote, flags, mode="point-to-point", underlay="any",
                  address=f"192.168.9.{n}/24")
    return world.laptop, world.office


def one_cord(ends):
    """Exactly one, and it works."""
    got = [site.wait("cord", "up", 30) for site in ends]
    for site in ends:
        assert site.client.tunnels() == ["cord"] and set(site.interfaces()) == {"cord"}
    assert vnis(ends[0]) == vnis(ends[1]) == {"cord": got[0]["Id"]}
    assert sorted(g["Role"] for g in got) in (["accept", "dial"], ["dial", "dial"])
    for site, address in zip(ends, ("192.168.9.2", "192.168.9.1")):
        assert ping(site.ns, address, size=1422, df=True)
    return [site.ns.ifindex("ec-cord") for site in ends]


def test_both_dial(world):
    ends = mirrored(world, "")
    orders = [ends, ends[::-1], None] * 4
    for order in orders:
        threads = [threading.Thread(target=run_ctl, args=(site,)) for site in order or ends]
        for thread in threads:
            thread.start()
            if order:
                thread.join()
        for thread in threads:
            thread.join()
        indexes = one_cord(ends)
        stays(lambda: [s.state("cord") for s in (e.client for e in ends)] == ["up"] * 2, 0.3, "up")
        assert [site.ns.ifindex("ec-cord") for site in ends] == indexes
        for site in order or ends:
            site.down("cord")
        for site in ends:
            wait_until(lambda s=site: not s.interfaces(), "all is gone")
            assert site.client.tunnels() == ["cord"]


def run_ctl(site):
    site.daemon.ctl("up", "cord", "--no-wait", check=0)


def test_both_dial_and_one_restarts(world):
    """A third connection, from either end, finds the cord that is there."""
    ends = mirrored(world)
    indexes = one_cord(ends)
    for site in ends:
        for restart in (site.restart_killed, site.daemon.restart):
            restart()
            for end in ends:
                wait_until(lambda e=end: e.get("cord")["State"] == "up", "both are up", 20)
            assert one_cord(ends) == indexes


# No

def untouched(site, action):
    """The site has no tunnel and no link more than before, all the while."""
    before, links = site.ns.dump(), site.lab.keep(Links(site.ns))
    action()
    assert site.client.tunnels() == [] and not site.interfaces()
    assert not [s for s in links.seen if s[3].startswith("ec-")], "an interface was made"
    assert site.ns.dump() == before


def reason(site, states, tokens, *words, name="office", timeout=10):
    """It is not up, and this is said."""
    def told():
        got = site.client.get(name)
        return got["State"] in states and got["StateReason"][0] in tokens and \
            all(word in got["StateReason"][1] for word in words) and got["StateReason"][1]
    try:
        sentence = wait_until(told, "", timeout, 0.02)
    except AssertionError:
        got = site.client.get(name)
        raise AssertionError(f"{got['State']}: {got['StateReason']}; due were {states} {tokens} "
                             f"{words}") from None
    assert sentence.isprintable() and KEY not in sentence and OTHER_KEY not in sentence
    return sentence


@pytest.mark.parametrize("what", ["another key", "unknown name"])
def test_wrong_key(world, what):
    """The two cannot be told apart; a person has to help; then it works."""
    world.host()
    world.office.listen(peers=("office",))
    more = {"key": OTHER_KEY} if what == "another key" else {"identity": "nobody"}

    def dial():
        world.laptop.dial(underlay="any", **more)
        reason(world.laptop, ("failed",), ("WrongKey",), OFFICE, more.get("identity", "office"))
    untouched(world.office, dial)
    assert not world.laptop.interfaces() or not world.laptop.ns.is_up("ec-office")
    if what == "another key":
        world.laptop.client.on("office", "SetKey", "s", KEY)
    else:
        world.laptop.client.update("office", identity="office")
    world.laptop.client.on("office", "Activate")
    world.both_up()


@pytest.mark.parametrize("end", ["laptop", "office"])
def test_key_at_one_end_only(world, end):
    """Never without: also where the other end would have accepted it from this address."""
    world.host()
    world.office.listen(peers={"office": {} if end == "laptop" else {"key": KEY}},
                        allow="10.9.1.0/24")

    def dial():
        try:
            world.laptop.dial(underlay="any", key=KEY if end == "laptop" else None)
        except ethercord.dbus.DBusException as e:
            assert end == "office" and e.get_dbus_name() == ethercord.ERROR + "NotProtected", e
            return
        reason(world.laptop, ("failed", "waiting", "connecting"),
               ("WrongKey", "NotProtected", "Refused"))
        stays(lambda: world.laptop.client.state("office") != "up", 1, "up", 0.05)
    untouched(world.office, dial)


def test_not_in_allow(world):
    """Whoever is not named there does not learn more than that nobody answers."""
    world.host()
    world.office.listen(allow="10.9.7.0/24")
    wire = world.lab.capture(world.laptop.ns, "net0")

    def dial():
        world.laptop.dial(underlay="any")
        reason(world.laptop, ("waiting", "connecting", "failed"),
               ("PeerUnreachable", "Refused"), OFFICE)
    untouched(world.office, dial)
    got = [f for f in wire.take() if f[12:14] == b"\x08\x00" and f[23] == 6 and
           f[26:30] == bytes([10, 9, 2, 2])]
    data = [f for f in got if struct.unpack("!H", f[16:18])[0] > 20 + (f[46] >> 4) * 4]
    assert got and not data, "not a byte of the listener's"
    # Named, it comes in; by itself where it went on trying.
    world.office.on_listener("lan", "SetPeer", "sa{sv}", "office",
                             ethercord.typed({"key": KEY, "allow": ["10.9.1.2/32"]}))
    if world.laptop.client.state("office") == "failed":
        world.laptop.client.on("office", "Activate")
    world.both_up(timeout=40)


def test_without_key_needs_protection(world):
    """underlay=any protects nothing: refused at both ends, by each."""
    world.host()
    world.office.listen(peers={"office": {}}, allow="10.9.1.0/24")

    def dial():
        try:
            world.laptop.dial(underlay="any", key=None)
        except ethercord.dbus.DBusException as e:
            assert e.get_dbus_name() == ethercord.ERROR + "NotProtected", e
            assert "key" in e.get_dbus_message()
            return
        reason(world.laptop, ("failed", "waiting"), ("NotProtected",), "key")
    untouched(world.office, dial)


def test_nobody_listens(world):
    """It goes on trying, and says at whom; when somebody listens it is up."""
    syns = world.lab.capture(world.office.ns, "net0")
    world.host()
    world.laptop.dial(underlay="any")
    reason(world.laptop, ("waiting", "connecting"), ("PeerUnreachable",), OFFICE)

    def attempts():
        return [f for f in syns.take() if f[12:14] == b"\x08\x00" and f[23] == 6 and
                f[47] & 0x12 == 2]
    wait_until(lambda: len(attempts()) >= 4, "it is tried again and again", 20)
    assert len(attempts()) < 12, "but not too often"
    world.office.listen()
    world.both_up(timeout=40)


def test_modes_that_do_not_fit(world):
    """A bridge at neither end of what shall be a network, or at the wrong one."""
    world.office.listen(mode=None, bridge=None, bridge_create=None)
    # What this kernel can do is tried, with interfaces that are gone at once; now.
    world.office.client.call(ethercord.PATH, ethercord.PROPERTIES, "Get", "ss", ethercord.MANAGER,
                             "Encapsulations")

    def dial():
        world.laptop.dial(mode="join-remote", underlay="any")
        assert "bridge" in reason(world.laptop, ("failed", "waiting"), ("Refused", "NoBridge"))
    untouched(world.office, dial)


# While it is up

def test_settings_change(world):
    """Those of one end that concern both are agreed on anew; the links stay."""
    host = world.up()
    indexes = world.indexes()
    for mtu in (1400, 1500):
        world.laptop.client.update("office", mtu=mtu)
        for site, name in ((world.laptop, "office"), (world.office, "lan.office")):
            wait_until(lambda s=site, n=name, m=mtu: s.get(n)["Mtu"] == m and
                       s.ns.link(s.ifname(n))["mtu"] == m, f"{site.label}: {mtu} bytes")
        world.both_up()
        assert world.indexes() == indexes
        full_frames(world, host, size=mtu + 14)
    world.laptop.client.update("office", keepalive_interval=100, keepalive_timeout=500)
    sent = world.laptop.statistics("office")["probes-sent"]
    wait_until(lambda: world.laptop.statistics("office")["probes-sent"] > sent + 20, "faster")
    world.both_up()
    assert world.indexes() == indexes


def test_path_mtu_changes(world):
    """Of the laptop's way: both ends of a point-to-point cord follow."""
    world.office.listen(mode="point-to-point", bridge=None, bridge_create=None,
                        peers={"office": {"key": KEY, "address": "192.168.9.2/24"}})
    world.laptop.dial(mode="point-to-point", underlay="any", address="192.168.9.1/24")
    first = [got["Ifindex"] for got in world.both_up()]
    for mtu in (1400, 1500):
        world.laptop.ns.ip("link", "set", "net0", "mtu", mtu)
        world.internet.router.ip("link", "set", "n1", "mtu", mtu)
        for site, name in ((world.laptop, "office"), (world.office, "lan.office")):
            wait_until(lambda s=site, n=name, m=mtu: s.get(n)["Mtu"] == m - 50 and
                       s.ns.link(s.ifname(n))["mtu"] == m - 50, f"{site.label}: {mtu - 50} bytes",
                       20)
        got = world.both_up()
        assert [g["Ifindex"] for g in got] == first
        for ns, address in ((world.laptop.ns, "192.168.9.2"), (world.office.ns, "192.168.9.1")):
            ns.ip("route", "flush", "cache")
            assert ping(ns, address, size=mtu - 50 - 28, df=True)


def test_key_changes(world):
    """A new key at the listener ends nothing before the peer has it, too; then both go on."""
    host = world.up()
    world.office.on_listener("lan", "SetPeer", "sa{sv}", "office",
                             ethercord.typed({"key": OTHER_KEY}))
    world.laptop.client.on("office", "SetKey", "s", OTHER_KEY)
    world.laptop.daemon.restart()
    world.both_up(timeout=40)
    full_frames(world, host)
    follow = Follow(world.lab, world.laptop)
    world.laptop.client.on("office", "SetKey", "s", KEY)
    world.laptop.daemon.restart()
    # The cord is there; whoever has the old key does not get it.
    wait_until(lambda: "refused" in follow.words("office") or
               world.laptop.client.get("office")["StateReason"][0] == "WrongKey", "refused", 15)


def test_monitor(world):
    """The steps, for eyes."""
    world.host()
    world.office.listen()
    world.laptop.dial(flags="", underlay="any")
    out = world.lab.directory / "monitor"
    with open(out, "wb") as file:
        process = world.lab.popen(ethercord.CTL, "monitor", stdout=file,
                                  env=world.laptop.daemon.bus.environment())
    wait_until(lambda: world.laptop.daemon.ctl("status", check=0) and out.stat().st_size > 0 or
               process.poll() is None, "it looks on")
    follow = Follow(world.lab, world.laptop)

    def once():
        world.laptop.client.on("office", "Activate")
        world.both_up()
        follow.wait("office", "proved")
        world.laptop.down("office")
        world.office.wait("lan.office", None)
        return all(word in out.read_text() for word in
                   ("dialling", "welcomed", "chose", "ready", "proved", "up", "10.9.2.2"))
    wait_until(once, "each step is shown", 20)
    assert KEY not in out.read_text()


# The end

@pytest.mark.parametrize("end", ["laptop", "office"])
def test_bye(world, end):
    """One end is taken down: the other one's interface is gone at once."""
    world.up()
    here, there = world.laptop, world.office
    names = {"laptop": world.laptop.ifname("office"), "office": world.office.ifname("lan.office")}
    links = world.lab.keep(Links(there.ns if end == "laptop" else here.ns))
    follow = Follow(world.lab, there if end == "laptop" else here)
    other = "lan.office" if end == "laptop" else "office"
    begun = (here.down("office") if end == "laptop" else there.down("lan.office"))
    if end == "laptop":
        gone = links.deleted(names["office"], begun)
        there.wait("lan.office", None)
        assert there.listener()["Peers"] == []
    else:
        gone = links.when(lambda s: s[3] == names["laptop"] and s[0] >= begun and
                          (s[1] == Links.DELETE or s[4] != Links.UP), "the laptop's end is down")
        wait_until(lambda: here.client.state("office") != "up", "it is not up")
    assert gone - begun <= 1, f"after {gone - begun:.3f} s"
    follow.wait(other, "bye")
    # And again.
    if end == "laptop":
        world.laptop.client.on("office", "Activate")
        world.both_up()


def test_listener_goes(world):
    """With it, its peers' tunnels; when it is back so are they."""
    host = world.up()
    links = world.lab.keep(Links(world.office.ns))
    name = world.office.ifname("lan.office")
    begun = timed(lambda: world.office.on_listener("lan", "Deactivate"))
    links.deleted(name, begun)
    world.office.wait("lan.office", None)
    assert world.office.listener()["State"] == "down"
    wait_until(lambda: world.laptop.client.state("office") in ("waiting", "connecting"), "it tries")
    world.office.on_listener("lan", "Activate")
    world.both_up(timeout=40)
    carries(world.flows(host)[0])


def test_peer_is_removed(world):
    """From the listener: its tunnel ends, and it does not come in again."""
    world.up()
    world.office.on_listener("lan", "RemovePeer", "s", "office")
    world.office.wait("lan.office", None)
    reason(world.laptop, ("failed",), ("WrongKey", "Refused"))
    wait_until(lambda: not world.office.interfaces(), "its interface is gone")


# Firewalls

def test_fragments_are_dropped(world):
    """The cord is up with the frames that cross, says how large these are, and why."""
    world.internet.filter("ip frag-off & 0x3fff != 0 drop")
    host = world.host()
    world.office.listen()
    follow = Follow(world.lab, world.laptop)
    # The user data plane has a way around: test_user_control.py.
    world.laptop.dial(underlay="any", address="192.168.9.1/24", data_plane="kernel")
    here, there = world.both_up(timeout=20)
    largest = here["LargestFrame"]
    assert 1460 <= largest == there["LargestFrame"] <= 1464
    assert str(largest) in here["StateReason"][1] or str(largest - 14) in here["StateReason"][1]
    full_frames(world, host, size=largest)
    assert "refused-by-path" in follow.words("office")


def test_only_tcp_passes(world):
    """The ends talk, but nothing else crosses: not up, and it is said what does not."""
    world.internet.filter("ip protocol != tcp drop")
    world.host()
    world.office.listen()
    links = world.lab.keep(Links(world.laptop.ns))
    follow = Follow(world.lab, world.laptop)
    wire = world.internet.wire(1, outgoing=False)
    world.laptop.dial(underlay="any", address="192.168.9.1/24")
    reason(world.laptop, ("waiting", "connecting"), ("PeerUnreachable",), "no frame", "vxlan",
           timeout=20)
    assert "welcomed" in follow.words("office") and "refused-by-path" in follow.words("office")
    tried = len(wire.probes(1514))
    assert tried
    wait_until(lambda: follow.words("office").count("chose") >= 3, "it is tried again", 30)
    assert "=up" not in follow.words("office")
    assert not [s for s in links.seen if s[3] == "ec-office" and s[4] == Links.UP], "no carrier"
    stray = [d for d in wire.take() if d.dport == 4789 and d.payload[8:14] != PROBE]
    assert not stray, "nothing but probes before it is up"
    world.internet.filter()
    world.both_up(timeout=40)
    assert ping(world.laptop.ns, HOST, size=FULL)


def test_control_port_is_filtered(world):
    """Everything but TCP passes: it says that the port does not answer, and goes on."""
    world.internet.filter("tcp dport 65200 drop")
    world.host()
    world.office.listen()
    world.laptop.dial(underlay="any")
    reason(world.laptop, ("waiting", "connecting"), ("PeerUnreachable",), OFFICE, timeout=30)
    world.internet.filter()
    world.both_up(timeout=60)


def test_bridges_that_exist(world):
    """A host's frames cross as soon as both are up; the port forwards."""
    host = world.host()
    bridge(world.laptop.ns)
    world.office.listen(mode="join-networks")
    world.laptop.dial(mode="join-networks", underlay="any", bridge="br0")
    there = world.both_up()[1]
    port = world.office.ns.link(there["Interface"])["linkinfo"]["info_slave_data"]
    assert port["state"] == "forwarding" and host
