# SPDX-License-Identifier: GPL-2.0-or-later
"""Peers that have the key, and die, or speak another version, or ask what nobody offered, or would
like to have what is another's."""

import contextlib
import random
import socket
import struct
import threading
import time

import pytest
from gi.repository import GLib

import ethercord
import peer
from ethercord import NEAR, stays, wait_until
from hostile import GRACE, SILENT, Home, Office
from peer import Over, Session, Silence, choice, dial, welcome


@pytest.fixture
def office(lab):
    return Office(lab)


@pytest.fixture
def home(lab):
    return Home(lab)


# Peers that die

DEATHS = {"closes": lambda s: s.close(), "resets": lambda s: reset(s)}


def reset(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def dialer_until(office, step, source=None):
    """A dialer that has come as far as `step`, with its socket."""
    s = peer.connect(office.far, NEAR, source=source)
    session = Session(s, "office", office.keys["office"])
    office.lab.stack.callback(session.close)
    if step == "connected":
        return s
    if step == "half a hello":
        s.sendall(b"\x16\x03\x01\x01\x00\x01\x00\x00\xfc\x03\x03" + bytes(20))
        return s
    session.handshake()
    if step == "proven":
        return s
    got = session.expect("welcome")
    if step == "welcomed":
        return s
    if step == "half a message":
        session.send_bytes(peer.message(**choice(got))[:40])
        return s
    session.send(**choice(got))
    if step == "has chosen":
        return s
    session.expect("ready")
    return s


DIALER = ["connected", "half a hello", "proven", "welcomed", "half a message", "has chosen",
          "ready"]


@pytest.mark.parametrize("death", DEATHS)
def test_dialer_dies(office, death):
    for step in DIALER:
        DEATHS[death](dialer_until(office, step))
        office.gone("lan.office")
        office.nothing_left(step)
    with office.comes("office"):
        office.client.wait_state("lan.office", "up")


def test_dialer_falls_silent(office):
    """Wherever it does, nothing stays that it could have had made."""
    for step in DIALER:
        dialer_until(office, step)
    office.gone("lan.office", SILENT + GRACE + 10)
    office.nothing_left("silent")
    with office.comes("office"):
        office.client.wait_state("lan.office", "up")


def acceptor_until(home, listener, step):
    """An acceptor that has come as far as `step`; its socket."""
    s = listener.accept()[0]
    session = Session(s, None, home.keys, server=True)
    home.lab.stack.callback(session.close)
    if step == "connected":
        return s
    if step == "half a hello":
        s.recv(65536)
        s.sendall(b"\x16\x03\x03\x00\x9b\x02\x00\x00\x97\x03\x03" + bytes(20))
        return s
    session.handshake()
    if step == "proven":
        return s
    if step == "half a message":
        session.send_bytes(peer.message(**welcome())[:40])
        return s
    session.send(**welcome())
    if step == "has welcomed":
        return s
    got = session.expect("choose")
    if step == "chosen":
        return s
    session.send(type="ready", round=got["round"], mac=bytes.fromhex("02005e770002"))
    return s


ACCEPTOR = ["connected", "half a hello", "proven", "half a message", "has welcomed", "chosen",
            "ready"]


@pytest.mark.parametrize("death", [*DEATHS, "silent"])
@pytest.mark.parametrize("step", ACCEPTOR)
def test_acceptor_dies(home, step, death):
    """Our end comes again by itself, and gets in where it can."""
    with home.listening() as listener:
        s = acceptor_until(home, listener, step)
        listener.settimeout(30)
        if death != "silent":
            DEATHS[death](s)
        connection = listener.accept()[0]
        with home.cord(connection):
            home.client.wait_state("office", "up")
    home.client.on("office", "Remove")
    home.nothing_left()


# Versions

def test_future_dialer_is_refused(office):
    for protocol in (2, 0xFFFFFFFF):
        with dial(office.far, NEAR, "office", office.keys["office"]) as session:
            got = session.expect("welcome")
            session.send(type="choose", protocol=protocol, brave=GLib.Variant("s", "new world"))
            last, _ = session.ended(SILENT)
            assert got["protocol"] == 1 and last and last["type"] == "refuse", last
            assert str(protocol) in last["text"] and "1" in last["text"], last["text"]
    office.nothing_left()


def test_future_acceptor_is_refused(home):
    with home.listening() as listener:
        with home.accepted(listener) as session:
            session.send(type="welcome", protocol=7, brave=GLib.Variant("s", "new world"))
            last, _ = session.ended(SILENT)
            assert last and last["type"] == "refuse" and "7" in last["text"], last
        text = wait_until(lambda: "7" in (t := home.client.get("office")["StateReason"][1]) and t,
                          "the state names their protocol")
        assert "1" in text.replace("10.77.0.2", ""), text


NOVELTIES = {"brave": GLib.Variant("s", "new"), "world": GLib.Variant("a{sv}", {}),
             "minor": 99, "zzz": GLib.Variant("(xx)", (1, 2))}


def test_newer_minor_dialer(office):
    with office.comes("office", more=NOVELTIES, novel=True):
        office.client.wait_state("lan.office", "up")


@pytest.mark.parametrize("early", [False, True])
def test_newer_minor_acceptor(home, early):
    with home.accepts(more=NOVELTIES, novel=True, early=early):
        home.client.wait_state("office", "up")


# Messages that are none

def wrong_types(members):
    """Each member with each of some types that it does not have."""
    for key in members:
        signature = peer.TYPES[key.replace("_", "-")]
        for variant in (GLib.Variant("s", "x"), GLib.Variant("u", 1), GLib.Variant("as", ["x"]),
                        GLib.Variant("v", GLib.Variant("u", 1)), GLib.Variant("t", 1),
                        GLib.Variant("d", 1.0)):
            if variant.get_type_string() != signature:
                yield {**members, key: variant}


def no_message(good):
    """(what it is, bytes)"""
    data = peer.body(**good)
    yield "64 KiB + 1", struct.pack("!I", peer.SIZE_MAX + 1) + data
    yield "64 KiB + 1, all of it", peer.framed(bytes(peer.SIZE_MAX + 1))
    yield "4 GiB", struct.pack("!I", 0xFFFFFFFF) + data
    yield "no length", struct.pack("!I", 0)
    yield "zeros", peer.framed(bytes(64))
    yield "noise", peer.framed(random.Random(2).randbytes(500))
    yield "cut short", peer.framed(data[:-1])
    yield "longer than it says", peer.framed(data + b"\0")
    yield "offsets turned", peer.framed(data[:-4] + bytes([0xFF] * 4))
    yield "another dictionary", peer.framed(GLib.Variant("a{ss}", {"type": "choose"})
                                            .get_data_as_bytes().get_data())
    yield "no type", peer.message(**{k: v for k, v in good.items() if k != "type"})
    yield "text that is not UTF-8", peer.framed(data.replace(b"vxlan", b"vx\xff\xfen"))
    deep = GLib.Variant("s", "x")
    for _ in range(60):
        deep = GLib.Variant("v", deep)
    yield "nested", peer.message(**{**good, "type": deep})
    for members in wrong_types(good):
        yield f"wrong type {sorted(members)}", peer.message(**members)


OPTIONAL = {"minor", "bridged", "path_mtu", "bridge_mtu", "full_frames", "plane", "data_port",
            "mac", "any_order", "peer", "mtu"}


def test_no_messages_to_the_listener(office):
    with dial(office.far, NEAR, "office", office.keys["office"]) as session:
        good = choice(session.expect("welcome"))
    tries = [*no_message(good), *((f"without {key}", peer.message(**{**good, key: None}))
                                  for key in good if key not in OPTIONAL)]
    for what, data in tries:
        with dial(office.far, NEAR, "office", office.keys["office"]) as session:
            session.expect("welcome")
            last, _ = session.ended(SILENT + GRACE, data)
            assert last is None or last["type"] in ("refuse", "bye"), f"{what}: {last}"
            assert last is None or clean(last["text"]), last
        assert office.daemon.process.poll() is None, what
    office.nothing_left("messages that are none")


def clean(sentence):
    return sentence and sentence.isprintable() and len(sentence) < 512


def test_no_messages_to_the_dialer(home):
    good = welcome()
    tries = list(no_message(good)) + [
        (f"without {key}", peer.message(**{**good, key: None})) for key in good
        if key not in OPTIONAL]
    with home.listening() as listener:
        for what, data in tries:
            home.client.on("office", "Deactivate")
            home.client.on("office", "Activate")
            early = data if len(data) < 8192 and len(data) % 2 else None
            with home.accepted(listener, early) as session:
                last, _ = session.ended(SILENT + GRACE, b"" if early else data)
                assert last is None or last["type"] in ("refuse", "bye"), f"{what}: {last}"
            assert home.daemon.process.poll() is None, what
            assert not home.near.link("ec-office"), what
    with home.accepts():
        home.client.wait_state("office", "up")


# Choices that nobody offered

def test_choices_that_are_refused(office):
    """In a sentence, and nothing is made."""
    with office.comes("home") as other:
        office.client.wait_state("lan.home", "up")
        before, wrong = office.near.dump(), []
        for what, members in bad_choices(other.chosen["id"]):
            with dial(office.far, NEAR, "office", office.keys["office"]) as session:
                got = session.expect("welcome")
                session.send(**choice(got, **members))
                with contextlib.suppress(Over):
                    last = session.receive()
                    if last["type"] == "refuse" and clean(last["text"]):
                        session.ended(SILENT + GRACE)
                    else:
                        wrong.append(what)
                        session.send(type="bye", error="down", text="It was not meant so.")
            assert office.daemon.process.poll() is None, what
            wait_until(lambda: office.near.dump() == before, f"nothing is left of {what}")
            assert office.client.tunnels() == ["lan.home"], what
        assert not wrong, f"accepted: {wrong}"
        other.pings()


def bad_choices(taken):
    yield "encapsulation that was not offered", {"encapsulation": "gretap"}
    yield "encapsulation that there is not", {"encapsulation": "smoke-signals"}
    yield "encapsulation with control characters", {"encapsulation": "vx\nlan"}
    yield "no encapsulation", {"encapsulation": ""}
    yield "id of another tunnel", {"id": taken}
    yield "id 0", {"id": 0}
    yield "id that is no VNI", {"id": 1 << 24}
    yield "mtu 0", {"mtu": 0, "size": 0}
    yield "mtu 1", {"mtu": 1, "size": 1}
    yield "mtu 4e9", {"mtu": 4000000000, "size": 4000000000}
    yield "size above mtu", {"size": 9000}
    yield "multicast MAC", {"mac": bytes.fromhex("01005e770001")}
    yield "short MAC", {"mac": b"\2\0"}
    yield "long MAC", {"mac": bytes.fromhex("02005e77000102005e770001")}
    yield "unknown mode", {"mode": "take-over"}
    yield "no mode", {"mode": ""}
    yield "name with control characters", {"name": "off\x1b[31mice"}


@pytest.mark.parametrize("what,members", [
    ("ids that are none", {"ids": [0, 1 << 24, 0xFFFFFFFF]}),
    ("no ids", {"ids": []}),
    ("nothing to choose", {"encapsulations": []}),
    ("unknown things to choose", {"encapsulations": [("smoke", "kernel", 1),
                                                     ("vxlan", "astral", 1)]}),
    ("port 0", {"encapsulations": [("vxlan", "kernel", 0)]}),
    ("mtu 1", {"mtu": 1}),
    ("mtu 4e9", {"mtu": 4000000000}),
    ("path mtu 4e9", {"path_mtu": 4000000000, "mtu": 0}),
    ("multicast MAC", {"mac": bytes.fromhex("01005e770001")}),
    ("its name has control characters", {"name": "pyt\x1b[31mhon"}),
    ("unknown mode", {"mode": "take-over"}),
    ("seen is no address", {"seen": "over there"}),
    ("ten thousand ids", {"ids": list(range(1, 10001))}),
    ("many encapsulations", {"encapsulations": [("vxlan", "kernel", 4789)] * 2000})],
    ids=lambda v: v.replace(" ", "-") if isinstance(v, str) else "")
def test_odd_welcomes(home, what, members):
    """Come to nothing, or to something sensible; never to a crash or a half-made link."""
    with home.listening() as listener, home.accepted(listener) as session:
        session.send(**welcome(**members))
        try:
            got = session.expect("choose", SILENT + GRACE)
        except AssertionError as e:
            assert "refuse" in str(e) or "bye" in str(e), e
        except Over:
            pass
        else:
            assert got["encapsulation"] == "vxlan" and got["plane"] in ("kernel", "user"), got
            assert 0 < got["id"] < 1 << 24 and got["data-port"] > 0, got
            assert 68 <= got["size"] <= got["mtu"] <= 65535, got
            wait_until(lambda: (home.near.link("ec-office") or {}).get("mtu") == got["mtu"],
                       "the interface is as it was said")
    shown = home.client.get("office")
    assert clean(shown["StateReason"][1] or "none") and shown["Peer"].isprintable(), shown
    home.client.on("office", "Remove")
    home.nothing_left(what)


def test_choice_repeated(office):
    """Ten thousand times: at most one link at a time, and the daemon answers others meanwhile."""
    with dial(office.far, NEAR, "office", office.keys["office"], timeout=20) as session:
        got = session.expect("welcome")
        office.near.dump()      # what the kernel was tried with for it is gone
        failed = []

        def flood():
            try:
                for number in range(1, 10001):
                    session.send(**choice(got, round=number,
                                          id=got["ids"][number % len(got["ids"])]))
            except (Over, Silence) as e:
                failed.append(e)
        thread = threading.Thread(target=flood, daemon=True)
        thread.start()
        begun = time.monotonic()
        try:
            while thread.is_alive() and time.monotonic() < begun + 15:
                asked = time.monotonic()
                office.client.tunnels()
                assert time.monotonic() - asked < 5, "the daemon is busy with one peer"
                ours = [n for n in office.near.links() if n not in office.before_links]
                assert len([n for n in ours if n != "br0"]) <= 1, ours
        finally:
            with contextlib.suppress(OSError):
                session.socket.shutdown(socket.SHUT_RDWR)
            thread.join()
    office.gone("lan.office")
    office.nothing_left()
    with office.comes("office"):
        office.client.wait_state("lan.office", "up")


def test_ping_flood(office):
    """Its sender does not take the answers: bounded memory, others are served."""
    pid = office.daemon.process.pid
    with office.comes("office") as cord, office.comes("home") as other:
        office.client.wait_state("lan.office", "up")
        office.client.wait_state("lan.home", "up")
        cord.stop_reading()
        before = peer.resident(pid)
        flow = other.flow()
        data = b"".join(peer.message(type="ping", seq=n) for n in range(200))
        begun = time.monotonic()
        cord.session.set_timeout(1)
        sent = 0
        while time.monotonic() < begun + 5:
            try:
                cord.session.send_bytes(data)
                sent += 200
            except (Over, Silence):
                break
        assert sent > 200
        assert not flow.stop()
        grown = peer.resident(pid) - before
        assert ethercord.sanitized() or grown < 4096, f"{grown} KiB more"
        cord.again()
    office.nothing_left()


# Others' tunnels

def test_peers_do_not_touch_each_other(office):
    """By name, by id, by saying bye."""
    with office.comes("home") as other:
        got = office.client.wait_state("lan.home", "up")
        index, flow = got["Ifindex"], other.flow()
        for members in ({"name": "home"}, {"name": "lan.home"}, {"id": other.chosen["id"]},
                        {"id": other.chosen["id"], "name": "home"},
                        {"mac": bytes.fromhex("02005e770001")}):
            with dial(office.far, NEAR, "office", office.keys["office"]) as session:
                got = session.expect("welcome")
                assert "home" not in str(got) and other.chosen["id"] not in got["ids"]
                session.send(**choice(got, **members))
                session.send(type="bye", error="down", text="Away with it.")
                session.ended(SILENT)
        for name in ("home", "office"):
            with dial(office.far, NEAR, "office", office.keys["office"]) as session:
                session.expect("welcome")
                session.send(type="bye", error="down", text=f"{name} goes.")
                session.ended(SILENT)
        assert not flow.stop()
        got = office.client.get("lan.home")
        assert got["State"] == "up" and got["Ifindex"] == index
        other.pings()
    office.nothing_left()


def test_the_name_is_the_proven_one(office):
    """Whatever a peer calls itself."""
    for name in ("home", "../../etc", "lan.home"):
        with office.dial("office") as session:
            session.send(**choice(session.expect("welcome"), name=name))
            session.expect("ready")
            assert office.client.tunnels() == ["lan.office"]
            assert office.client.get("lan.office")["Peer"] == "office"
            session.send(type="bye", error="down", text="It was not meant so.")
            office.gone("lan.office")
    office.nothing_left()


def test_bye_takes_the_cord_down_at_once(office):
    with office.comes("office") as cord:
        office.client.wait_state("lan.office", "up")
        begun = time.monotonic()
        cord.session.send(type="bye", error="down", text="Good night.")
        office.gone("lan.office", 2)
        print(f"gone after {time.monotonic() - begun:.3f} s")
    office.nothing_left()


def test_another_connection_of_the_same_name(office):
    """Is none of that cord's as long as it chose nothing; and another machine's is kept out."""
    with office.comes("office") as cord:
        got = office.client.wait_state("lan.office", "up")
        flow = cord.flow()
        for kind in ("bye", "refuse", "ping", "pong", "ready"):
            with office.dial("office") as session:
                session.expect("welcome")
                session.send(type=kind, error="down", text="Away with it.", seq=1, round=1)
                session.ended(SILENT + GRACE)
        with office.dial("office") as session:
            session.send(**choice(session.expect("welcome"), instance=666))
            last, _ = session.ended(SILENT)
            assert last["type"] == "refuse" and clean(last["text"]), last
            print(last["text"])
        assert not flow.stop(200)
        now = office.client.get("lan.office")
        assert (now["State"], now["Ifindex"]) == ("up", got["Ifindex"])
        cord.pings()
    office.nothing_left()


def test_connection_lost_is_no_bye(office):
    """The cord carries on; the same peer is given the same link again."""
    with office.comes("office") as cord:
        index = office.client.wait_state("lan.office", "up")["Ifindex"]
        flow = cord.flow()
        reset(cord.session.socket)
        stays(lambda: office.near.link(cord.interface), 1, "the link stays")
        assert not flow.stop()
        cord.again()
        wait_until(lambda: office.client.get("lan.office")["State"] == "up", "up again")
        assert office.client.get("lan.office")["Ifindex"] == index
        cord.pings()
    office.nothing_left()


# Probes

def test_forged_probes(office):
    """With another key, changed, out of place, from another tunnel: no effect. With the right key:
    the state goes up."""
    with office.comes("home") as other, office.comes("office", attend=False) as cord:
        theirs = cord.their_interface()
        good = cord.prober_of(asks=False, answers=False)
        wrong = [peer.random_key(), good.rx, other.prober.tx, bytes(32)]
        number = [good.seq]

        def forged():
            number[0] += 1
            for key in wrong:
                for kind in (peer.REQUEST, peer.ANSWER):
                    good.send(peer.probe(key, kind, number[0], 1, 64))
            # Answers to what was asked, but not with this key, or to what nobody asked.
            for seq, size in good.requests[-3:]:
                good.send(peer.probe(wrong[0], peer.ANSWER, seq, 0, size))
                good.send(peer.probe(good.tx, peer.ANSWER, seq, 0, size))      # the stamp is wrong
                good.send(peer.probe(good.tx, peer.ANSWER, seq + 1000, 0, size))
            right = peer.probe(good.tx, peer.REQUEST, number[0], 1, 64)
            for at in (0, 4, 5, 6, 8, 12, 16, 31):
                good.send(right[:at] + bytes([right[at] ^ 1]) + right[at + 1:])
            good.send(right[:31])
            good.send(peer.probe(good.tx, 3, number[0], 1, 64))
            good.send(peer.probe(good.tx, peer.REQUEST, number[0], 1, 64, magic=0x45637002))
            # In order, but by another tunnel.
            other.prober.send(right)
            return office.client.get("lan.office")["State"] != "up"
        stays(forged, 0.7, "up by forged probes", 0.05)
        assert not good.replies, f"forged requests are answered: {good.replies}"
        assert office.near.link(theirs)
        good.asks = good.answers = True
        office.client.wait_state("lan.office", "up")
        cord.read()
    office.nothing_left()


def test_replayed_probes_do_not_keep_a_peer_alive(office):
    """Nor are they answered."""
    with office.comes("office") as cord:
        office.client.wait_state("lan.office", "up")
        wait_until(lambda: len(cord.prober.sent) > 20, "there is something to replay")
        cord.prober.asks = cord.prober.answers = False
        wait_until(lambda: set(cord.prober.asked.copy().items()) == set(cord.prober.replies),
                   "all that was asked is answered")
        recorded = list(cord.prober.sent)

        def replayed():
            for data in recorded[-40:]:
                cord.prober.send(data)
            return office.client.state("lan.office") == "degraded"
        begun = time.monotonic()
        wait_until(replayed, "the peer is lost in spite of old probes", 10, 0.1)
        print(f"lost after {time.monotonic() - begun:.2f} s")
        assert len(cord.prober.replies) == len(set(cord.prober.replies)), \
            "replayed requests are answered"
        index = office.client.get("lan.office")["Ifindex"]
        cord.prober.asks = cord.prober.answers = True
        office.client.wait_state("lan.office", "up")
        assert office.client.get("lan.office")["Ifindex"] == index


def test_probe_flood(office):
    """From one who has the key: answered at a bounded rate, never larger than asked."""
    with office.comes("office") as cord:
        office.client.wait_state("lan.office", "up")
        before = len(cord.prober.replies)
        begun = time.monotonic()
        while time.monotonic() < begun + 2:
            cord.prober.ask(64)
        took = time.monotonic() - begun
        answered = len(cord.prober.replies) - before
        assert 10 < answered < 1000 * took, f"{answered} answers in {took:.1f} s"
        assert all(cord.prober.asked[seq] == size for seq, size in cord.prober.replies)
        assert office.client.state("lan.office") == "up"


def test_probes_never_reach_the_lan(office):
    """A port of the same bridge sees none, though frames to everybody it does."""
    with office.comes("office") as cord:
        office.client.wait_state("lan.office", "up")
        office.near.ips("link add seen type veth peer name port\nlink set port master br0 up\n"
                        "link set seen up\n")
        try:
            capture = office.lab.capture(office.near, "seen", peer.PROBE_ETHERTYPE)
            office.lab.flow(office.far, cord.name, office.near, "seen").start().stop(20)
            have = len(cord.prober.replies)
            wait_until(lambda: len(cord.prober.replies) > have + 5, "probes cross")
            frames = capture.take()
            assert frames and not [f for f in frames if f[:6] == peer.PROBE_TO or
                                   f[14:18] == struct.pack("!I", peer.MAGIC)]
        finally:
            office.near.ip("link", "del", "seen")


def vxlan(vni, number):
    """Payload of a VXLAN packet with a frame that a Flow would count."""
    return struct.pack("!II", 0x08000000, vni << 8) + b"\xff" * 6 + \
        bytes.fromhex("02005e100001") + struct.pack("!HI", ethercord.ETHERTYPE, number) + bytes(60)


def test_data_from_elsewhere(lab):
    """With the id of a cord, but past the VPN: it is not let in."""
    file = lab.directory / "vpn"
    office = Office(lab, settings={"underlay": "wireguard"}, program=ethercord.FAKE_DAEMON,
                    environment={"ETHERCORD_FAKE_UNDERLAY": str(file)})
    office.near.ip("link", "set", "wire", "alias", "fake VPN")
    file.write_text("wire 1400\n")
    ethercord.wire(office.near, office.far, "bare", "bare", "10.66.0.1/24", "10.66.0.2/24")
    wait_until(lambda: any(o[ethercord.UNDERLAY]["State"] == "up" for o in
                           office.client.objects().values() if ethercord.UNDERLAY in o),
               "the VPN is seen")
    with office.comes("office", more={"mtu": 1350, "size": 1350}) as cord:
        office.client.wait_state("lan.office", "up")
        theirs = cord.their_interface()
        receiver = ethercord.frame_socket(office.near, peer.ear(office.near, theirs))
        office.far.ip("addr", "add", "10.77.0.9/24", "dev", "wire")
        flow = cord.flow()
        for source, address in (("10.66.0.2", "10.66.0.1"), ("10.77.0.9", "10.66.0.1"),
                                ("10.66.0.2", NEAR)):
            with office.far.entered():
                s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            with s:
                s.bind((source, 0))
                s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"bare")
                for number in range(20):
                    s.sendto(vxlan(cord.chosen["id"], 0x5A000000 + number), (address, 4789))
        assert not flow.stop(200)
        came = []
        receiver.setblocking(False)
        with receiver:
            while True:
                try:
                    came.append(receiver.recv(2048))
                except BlockingIOError:
                    break
        numbers = [struct.unpack("!I", f[14:18])[0] for f in came if len(f) >= 18]
        assert numbers and not [n for n in numbers if n >> 24 == 0x5A], "forged data came in"
