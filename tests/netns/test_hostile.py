# SPDX-License-Identifier: GPL-2.0-or-later
"""Those who have no key, or change what others say, or come in crowds; and that a peer of another
make gets in."""

import contextlib
import random
import select
import socket
import struct
import subprocess
import threading
import time

import dbus
import pytest

import ethercord
import peer
from ethercord import FAR, NEAR, wait_until
from hostile import GRACE, SILENT, Home, Office
from peer import Over, Session, Silence, choice, dial, welcome
from vpn import sysctl

MANY = "10.78.0.0/16"       # addresses of the far site, as many as anybody has


@pytest.fixture
def office(lab):
    return Office(lab)


@pytest.fixture
def home(lab):
    return Home(lab)


# Interoperation

def test_another_make_dials(office):
    """Whether it takes the greeting in the handshake or after it."""
    index = None
    for early in (True, False):
        with office.comes("office", early=early) as cord:
            got = office.client.wait_state("lan.office", "up")
            assert got["Role"] == "accept" and got["Peer"] == "office"
            assert got["Listener"] == f"{ethercord.PATH}/listener/lan"
            link = office.near.link(got["Interface"])
            assert link["linkinfo"]["info_data"]["id"] == cord.chosen["id"] == got["Id"]
            assert link["linkinfo"]["info_data"]["remote"] == FAR == got["Remote"]
            assert link["master"] == "br0" and link["ifindex"] != index
            index = link["ifindex"]
            cord.pings()
        office.nothing_left()


@pytest.mark.parametrize("early", [False, True])
def test_another_make_listens(home, early):
    with home.accepts(early=early) as cord:
        got = home.client.wait_state("office", "up")
        assert got["Role"] == "dial" and got["Id"] == cord.chosen["id"]
        assert got["Encapsulation"] == "vxlan" and got["Remote"] == FAR
        cord.pings()
        home.client.on("office", "Deactivate")
        assert cord.wait_heard("bye")["error"] == "down"
    home.client.on("office", "Remove")
    home.nothing_left()


def test_openssl_is_welcomed(office):
    """By another make of TLS, too."""
    client = office.far.popen(
        "openssl", "s_client", "-connect", f"{NEAR}:{peer.PORT}", "-psk_identity", "office", "-psk",
        office.keys["office"].hex(), "-tls1_3", "-quiet", stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        header = client.stdout.read(4)
        got = peer.parse(client.stdout.read(struct.unpack("!I", header)[0]))
    finally:
        ethercord.end_process(client)
    assert got["type"] == "welcome" and got["peer"] == "office" and got["name"] == "lan"
    office.nothing_left()


# Who is not known

def test_wrong_key_and_unknown_name(office):
    """Refused, and it cannot be told which it was."""
    told = []
    for name, key in (("office", peer.random_key()), ("nobody", peer.random_key()),
                      ("nobody", office.keys["office"]), ("~office", office.keys["office"]),
                      ("", office.keys["office"]), ("~", bytes(32)), ("offic\0", bytes(32)),
                      ("office\n", office.keys["office"]), ("x" * 400, bytes(32)),
                      ("..", bytes(32)), ("guest", bytes(32)), ("guest", office.keys["office"])):
        proxy = office.lab.keep(peer.Proxy(office.far, FAR, (NEAR, peer.PORT)))
        with pytest.raises(Over):
            with dial(office.far, FAR, name, key, port=proxy.port) as session:
                session.expect("welcome", SILENT + GRACE)
        if len(name) == len("office"):
            told.append((len(proxy.down), proxy.down[:5]))
    assert len(set(told)) == 1, f"they are told apart: {told}"
    office.unmoved()
    with office.comes("office"):
        pass


def test_ipv6(lab):
    """A peer gets in by it, too; all of a /64 count as one."""
    office = Office(lab, ipv6=True)
    sysctl(office.far, ipv6__conf__all__disable_ipv6=0, ipv6__conf__wire__disable_ipv6=0)
    office.near.ip("addr", "add", "fd77::1/64", "dev", "wire", "nodad")
    office.far.ips("addr add fd77::2/64 dev wire nodad\n"
                   "route add local fd78::/16 dev lo\n")
    office.near.ip("route", "add", "fd78::/16", "via", "fd77::2")
    wait_until(lambda: "inet6" not in office.near.ip("addr", "show", "tentative").stdout,
               "no address is tentative")
    office.before = office.held()
    same = [peer.connect(office.far, "fd77::1", source=f"fd78::{n:x}")
            for n in range(1, PER_SOURCE + 20)]
    settle(office, same, PER_SOURCE)
    others = [peer.connect(office.far, "fd77::1", source=f"fd78:0:0:{n:x}::1")
              for n in range(1, 40)]
    settle(office, others, len(others))
    with office.comes("office", address="fd77::1", more={"mtu": 1430, "size": 1430}) as cord:
        got = office.client.wait_state("lan.office", "up")
        assert got["Remote"] == "fd77::2"
        cord.pings()
    for s in same + others:
        s.close()
    office.nothing_left()


def refused_keyless(office, name, source=None, key=peer.KEYLESS_KEY):
    """It does not get to see a greeting, at most why."""
    with contextlib.suppress(Over), dial(office.far, NEAR, name, key, source=source) as session:
        assert session.receive()["type"] == "refuse"
    office.unmoved()


GUESTS = {"guest": {"allow": dbus.Array([f"{FAR}/32"], "s")}, "nobody": {}}


def test_keyless_without_a_vpn(lab):
    """Everybody has the key: nobody comes in, whatever is allowed."""
    office = Office(lab, guests=GUESTS)
    for name in ("~guest", "~office", "~nobody", "~stranger", "guest", "office", "nobody"):
        refused_keyless(office, name)
    refused_keyless(office, "~office", key=office.keys["office"])


def test_keyless_through_a_vpn(lab):
    """From where it is allowed, for whom there is no key."""
    file = lab.directory / "vpn"
    office = Office(lab, settings={"underlay": "wireguard"}, guests=GUESTS,
                    program=ethercord.FAKE_DAEMON,
                    environment={"ETHERCORD_FAKE_UNDERLAY": str(file)})
    office.keys["~guest"] = peer.KEYLESS_KEY
    office.near.ip("link", "set", "wire", "alias", "fake VPN")
    office.far.ip("addr", "add", "10.77.0.9/24", "dev", "wire")
    ethercord.wire(office.near, office.far, "bare", "bare", "10.66.0.1/24", "10.66.0.2/24")
    office.before = office.held()
    refused_keyless(office, "~guest")
    file.write_text("wire 1400\n")
    small = {"mtu": 1350, "size": 1350, "name": "guest"}

    def welcomed():
        with contextlib.suppress(Over), office.dial("~guest") as session:
            return session.receive()["type"] == "welcome"
    ethercord.wait_until(welcomed, "the guest is welcome through the VPN")
    for name in ("~office", "~nobody", "~stranger", "guest", "office", "nobody", "~~guest"):
        refused_keyless(office, name)
    refused_keyless(office, "~guest", source="10.77.0.9")
    # To the same port, but past the VPN.
    with contextlib.suppress(Over):
        with dial(office.far, "10.66.0.1", "~guest", peer.KEYLESS_KEY) as session:
            if session.receive()["type"] == "welcome":
                session.send(**choice({"ids": [4711]}, **small))
                assert session.receive()["type"] == "refuse"
    office.unmoved()
    with office.comes("~guest", more=small, tunnel="guest") as cord:
        got = office.client.wait_state("lan.guest", "up")
        assert got["Protected"] and got["Peer"] == "guest"
        cord.pings()


def test_wrong_key_at_the_acceptor(home):
    """A person is needed, and is told of what."""
    with home.listening() as listener:
        for keys in ({"office": peer.random_key()}, {}):
            with Session(listener.accept()[0], None, keys, server=True) as session:
                with pytest.raises(Over):
                    session.handshake()
                    session.ended()
                wait_until(lambda: "key" in home.client.get("office")["StateReason"][1],
                           f"the state speaks of the key: {home.client.get('office')}")
            home.client.on("office", "Deactivate")
            home.client.on("office", "Activate")
        home.client.on("office", "Deactivate")
    home.client.on("office", "Remove")
    home.nothing_left()


def test_replayed_session(office):
    """All that a good peer has sent, again: nobody is there."""
    proxy = office.lab.keep(peer.Proxy(office.far, FAR, (NEAR, peer.PORT)))
    with office.comes("office", address=FAR, port=proxy.port) as cord:
        office.client.wait_state("lan.office", "up")
        recorded = proxy.up
        assert len(peer.records(recorded)) >= 4 and cord.chosen
    office.nothing_left()
    for pieces in (1, 3):
        begun = time.monotonic()
        with peer.connect(office.far, NEAR) as s:
            for i in range(pieces):
                size = len(recorded) // pieces + 1
                s.sendall(recorded[i * size:(i + 1) * size])
            answer = drained(s, SILENT + GRACE)
        assert time.monotonic() - begun < SILENT + GRACE
        # The first flight of TLS and its greeting, which the replaying one cannot read.
        assert len(answer) <= len(recorded)
    office.unmoved()


def drained(s, timeout):
    """What came until the other end closed."""
    s.settimeout(timeout)
    data = b""
    try:
        while got := s.recv(65536):
            data += got
    except ConnectionError:
        pass
    return data


# Bytes that are not what was sent

def offsets(stream, step):
    """Of every class: each part of a record's header, both ends of its content, and between. But
    for type and version of what is encrypted: always the same, and not all look at them."""
    found = set()
    for at, kind, length in peer.records(stream):
        found |= {at + 3, at + 4, at + 5, at + 4 + length, *range(at + 5, at + 5 + length, step)}
        if kind != 0x17:
            found |= {at, at + 1}
    return sorted(o for o in found if o < len(stream))


def attempt(office, alter, patience=1):
    """A whole negotiation through a proxy that tampers. What the dialer got to see."""
    proxy = peer.Proxy(office.far, FAR, (NEAR, peer.PORT), alter=alter)
    steps = []
    try:
        with dial(office.far, FAR, "office", office.keys["office"], port=proxy.port,
                  timeout=patience) as session:
            got = session.expect("welcome", patience)
            steps.append("welcome")
            session.send(**choice(got, id=got["ids"][-1]))
            session.expect("ready", patience)
            steps.append("ready")
    except (Over, Silence, OSError):
        pass
    finally:
        proxy.close()
    return steps, proxy.up, proxy.down


@pytest.mark.parametrize("tamper", [peer.flip, peer.cut], ids=["flipped", "cut"])
def test_tampered_with_at_the_listener(office, tamper):
    steps, up, down = attempt(office, lambda way, offset, data: data, ethercord.PATIENCE)
    assert steps == ["welcome", "ready"]
    office.gone("lan.office")
    for way, stream in (("up", up), ("down", down)):
        for at in offsets(stream, 61):
            steps, sent, _ = attempt(office, tamper(way, at))
            assert office.daemon.process.poll() is None, f"{tamper.__name__} {way} {at}"
            # The compatibility record of TLS 1.3 (RFC 8446 D.4) is nobody's to check.
            whole = way == "up" and at < up.index(b"\x17\x03\x03")
            if not whole and tamper is peer.flip and way == "up":
                assert "ready" not in steps, f"{way} {at}: accepted"
    office.gone("lan.office")
    with office.comes("office") as cord:
        office.client.wait_state("lan.office", "up")
        cord.pings()
    office.nothing_left()


def test_tampered_with_at_the_dialer(home):
    """It tries again, and is up once nobody tampers."""
    changes = [tamper(way, at, *bit) for way in ("up", "down")
               for at in (0, 3, 5, 70, 180, 390, 500)
               for tamper, bit in ((peer.flip, (3,)), (peer.cut, ()))]
    seen = []

    def alter(way, offset, data):
        if way == "up" and offset == 0:
            seen.append(len(seen))
        number = len(seen) - 1
        return changes[number](way, offset, data) if 0 <= number < len(changes) else data
    inner = home.lab.keep(peer.listening(home.far, "127.0.0.1"))
    home.lab.keep(peer.Proxy(home.far, FAR, ("127.0.0.1", peer.PORT), peer.PORT, alter))
    for number in range(len(changes) + 20):
        # Retries take ever longer: a person does not wait for that, either.
        home.client.on("office", "Deactivate")
        home.client.on("office", "Activate")
        inner.settimeout(5)
        try:
            connection = inner.accept()[0]
        except socket.timeout:
            continue
        if len(seen) > len(changes):
            break
        with Session(connection, None, home.keys, server=True, timeout=0.5) as session:
            try:
                session.handshake()
                session.send(**welcome())
                session.expect("choose", 0.5)
            except (Over, Silence):
                pass
        assert home.daemon.process.poll() is None, f"change {number}"
    assert len(seen) > len(changes), f"it gave up after {len(seen)} of {len(changes)}"
    inner.settimeout(10)
    while True:
        # Those that were given up meanwhile are still in the queue.
        with contextlib.suppress(Over), home.cord(inner.accept()[0]):
            home.client.wait_state("office", "up")
            break
    home.client.on("office", "Remove")
    home.nothing_left()


# Floods

@pytest.fixture
def crowd(office):
    """The far site has a /16; a cord that is up watches."""
    office.far.ip("route", "add", "local", MANY, "dev", "lo")
    office.near.ip("route", "add", MANY, "via", FAR)
    with office.comes("home") as cord:
        office.client.wait_state("lan.home", "up")
        yield office, cord


def addresses():
    for a in range(1, 255):
        for b in range(1, 255):
            yield f"10.78.{b}.{a}"


def begin(office, source, data=b""):
    """A connection that says this and then waits."""
    s = peer.connect(office.far, NEAR, source=source)
    try:
        if data:
            s.sendall(data)
    except ConnectionError:
        pass
    return s


HEADS = (b"", b"\x16\x03\x01", b"\x16\x03\x01\x40\x00\x01", b"GET / HTTP/1.1\r\n",
         b"\x17\x03\x03\x40\x00", b"\x15\x03\x03\x00\x02\x02\x28", bytes(5))


def test_garbage_flood(crowd):
    """From many addresses, over TCP and UDP. A cord that is up loses nothing; what it costs is
    bounded; no answer is larger than what asked for it."""
    office, cord = crowd
    rng = random.Random(1)
    pid = office.daemon.process.pid
    peer.resident(pid)
    sources = addresses()
    flow = cord.flow()
    counter = office.lab.keep(peer.Counter(office.near, "wire", peer.PORT))
    seen = []

    def connections(number):
        for _ in range(number):
            size = rng.choice((16, 100, 517, 3000, 20000))
            head = rng.choice(HEADS)
            with begin(office, next(sources), head + rng.randbytes(size)):
                pass
            if _ % 50 == 0:
                counter.look()
    connections(300)
    before, fds = peer.resident(pid), peer.descriptors(pid)
    connections(700)
    with office.far.entered():
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with udp:
        for number in range(20000):
            udp.sendto(rng.randbytes(rng.randrange(1, 200)),
                       (NEAR, (peer.PORT, cord.chosen["data-port"] if "data-port" in cord.chosen
                               else 4789)[number % 2]))
    lost = flow.stop()
    office.unmoved("lan.home")
    seen = counter.look()
    assert len(seen) >= 1000
    larger = {who: n for who, n in seen.items() if who[0].startswith("10.78.") and n[1] > n[0]}
    assert not larger, f"answers larger than what asked: {list(larger.items())[:5]}"
    assert not lost, f"{len(lost)} frames of {flow.sent} lost"
    wait_until(lambda: peer.descriptors(pid) <= fds, "no descriptor is left", SILENT + GRACE)
    grown = peer.resident(pid) - before
    assert ethercord.sanitized() or grown < 2048, f"{grown} KiB more"


def test_greeting_is_smaller_than_what_asked_for_it(office):
    """Also to one who sends a good hello again, which anybody can who has seen one."""
    proxy = office.lab.keep(peer.Proxy(office.far, FAR, (NEAR, peer.PORT)))
    with dial(office.far, FAR, "office", office.keys["office"], port=proxy.port) as session:
        session.expect("welcome")
    hello = proxy.up[:5 + struct.unpack("!H", proxy.up[3:5])[0]]
    with peer.connect(office.far, NEAR) as s:
        s.sendall(hello)
        answer = drained(s, SILENT + GRACE)
    print(f"{len(hello)} bytes of hello, {len(answer)} of answer")
    assert len(answer) <= len(hello), f"{len(hello)} bytes are answered by {len(answer)}"


def ends_at(connections, begun, timeout):
    """When each connection was ended by the other side, s from begun; None: it was not."""
    found = {}
    ready = select.poll()
    number = {s.fileno(): i for i, s in enumerate(connections)}
    for s in connections:
        s.settimeout(0)
        ready.register(s, select.POLLIN)
    end = time.monotonic() + timeout
    while len(found) < len(number) and (left := end - time.monotonic()) > 0:
        for fd, _ in ready.poll(left * 1000):
            try:
                if connections[number[fd]].recv(65536):
                    continue
            except BlockingIOError:
                continue
            except OSError:
                pass
            found[number[fd]] = time.monotonic() - begun
            ready.unregister(fd)
    return [found.get(i) for i in range(len(connections))]


def test_slow_ones_are_dropped(crowd):
    """Silent, one byte a second, half a hello: gone in 5 s; a good one comes in meanwhile."""
    office, _ = crowd
    proxy = office.lab.keep(peer.Proxy(office.far, FAR, (NEAR, peer.PORT)))
    with dial(office.far, FAR, "office", office.keys["office"], port=proxy.port) as session:
        session.expect("welcome")
    hello = proxy.up[:5 + struct.unpack("!H", proxy.up[3:5])[0]]
    sources = addresses()
    opened = time.monotonic()
    silent = [begin(office, next(sources)) for _ in range(20)]
    half = [begin(office, next(sources), hello[:size]) for size in (1, 4, 5, 6, 40, len(hello) - 1)]
    whole = [begin(office, next(sources), hello) for _ in range(5)]
    slow = [begin(office, next(sources)) for _ in range(5)]
    proven = [dial(office.far, NEAR, "office", office.keys["office"], source=next(sources))
              for _ in range(3)]
    ends = threading.Event()

    def trickle():
        for byte in hello:
            for s in slow:
                try:
                    s.sendall(bytes([byte]))
                except OSError:
                    pass
            if ends.wait(1):
                return
    thread = threading.Thread(target=trickle, daemon=True)
    thread.start()
    begun = time.monotonic()
    with office.comes("office"):
        office.client.wait_state("lan.office", "up")
        assert time.monotonic() - begun < SILENT, "it had to wait for the slow ones' end"
        every = silent + half + whole + slow + [s.socket for s in proven]
        when = ends_at(every, opened, SILENT + GRACE)
        ends.set()
        assert None not in when, f"still there after {SILENT + GRACE} s: {when}"
        assert min(when) > 1, f"dropped at once: {when}"
    thread.join()
    for s in every:
        s.close()
    office.unmoved("lan.home")


def test_half_open(crowd):
    """SYNs that nobody stands behind are the kernel's; the port answers all the same."""
    office, _ = crowd
    with office.far.entered():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with raw:
        for number, source in zip(range(2000), addresses()):
            raw.sendto(syn(source.replace("10.78", "10.79"), NEAR, 1024 + number), (NEAR, 0))
    with office.comes("office"):
        office.client.wait_state("lan.office", "up")
    office.unmoved("lan.home")


def syn(source, destination, port):
    ends = socket.inet_aton(source) + socket.inet_aton(destination)
    segment = struct.pack("!HHIIBBHHH", port, peer.PORT, port, 0, 5 << 4, 2, 65535, 0, 0)
    pseudo = ends + struct.pack("!BBH", 0, 6, len(segment)) + segment
    total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo))
    total = (total >> 16) + (total & 0xFFFF)
    segment = segment[:16] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + segment[18:]
    return struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, 0, 64, 6, 0) + ends + segment


PER_SOURCE, IN_ALL = 32, 256


def alive(connections):
    """How many have not been closed at once."""
    open_ones = 0
    for s in connections:
        s.settimeout(0)
        try:
            open_ones += s.recv(1) != b""
        except BlockingIOError:
            open_ones += 1
        except OSError:
            pass
    return open_ones


def settle(office, connections, number):
    """Once all were accepted or refused, so many are there: before silent ones are dropped."""
    def accepted():
        shown = office.near.exec("ss", "-Hltn", "sport", "=", f":{peer.PORT}").stdout.splitlines()
        return shown and all(line.split()[1] == "0" for line in shown)
    wait_until(lambda: accepted() and alive(connections) == number,
               f"{number} of {len(connections)} stay", 4)
    office.client.tunnels()     # the daemon is through with the last one
    assert alive(connections) == number


def test_limits(crowd):
    """So many from one address, so many in all; others come in while one address is at its limit,
    and all do once the many are dropped."""
    office, cord = crowd
    sources = addresses()
    one = next(sources)
    same = [begin(office, one) for _ in range(PER_SOURCE + 20)]
    settle(office, same, PER_SOURCE)
    with dial(office.far, NEAR, "office", office.keys["office"], source=next(sources)) as session:
        session.expect("welcome", 2)
    every = same + [begin(office, next(sources)) for _ in range(IN_ALL)]
    settle(office, every, IN_ALL)
    flow = cord.flow()

    def somebody():
        try:
            with dial(office.far, NEAR, "office", office.keys["office"]) as session:
                return session.expect("welcome", 2)
        except (Over, OSError, Silence):
            return None
    wait_until(somebody, "somebody comes in again", SILENT + GRACE, 0.1)
    assert not flow.stop()
    for s in every:
        s.close()
    office.unmoved("lan.home")
