# SPDX-License-Identifier: GPL-2.0-or-later
"""Probes across a tunnel: what they prove, how fast a loss is seen, and what forging them gives."""

import collections
import contextlib
import itertools
import json
import os
import select
import signal
import socket
import statistics
import threading

import pytest

import ethercord
from ethercord import far_vxlan, stays, wait_until, wire
from probes import ANSWER, KEYS, REQUEST, End, agree, encode, frame, now, parse

NEAR, FAR = ethercord.NEAR, ethercord.FAR
BLOCK = """table ip block {{
  chain in {{ type filter hook prerouting priority -450; policy accept; {rule} drop; }}
}}"""


class LongWire:
    """A wire that takes its time (s), each way."""

    def __init__(self, lab, near, far, delay):
        middle = lab.namespace("middle")
        wire(near, middle, "wire", "left", f"{NEAR}/24", None)
        wire(far, middle, "wire", "right", f"{FAR}/24", None)
        self.ends = [ethercord.frame_socket(middle, name) for name in ("left", "right")]
        for end, name in zip(self.ends, ("left", "right")):
            end.bind((name, 3))
        self.delay, self.running, self.under_way = delay, True, collections.deque()
        self.thread = threading.Thread(target=self.carry, daemon=True)
        self.thread.start()

    def carry(self):
        poll = select.poll()
        for end in self.ends:
            poll.register(end, select.POLLIN)
        while self.running:
            wait = self.under_way[0][0] - now() if self.under_way else 0.05
            for fd, _ in poll.poll(max(0, wait) * 1000):
                this, other = self.ends if fd == self.ends[0].fileno() else self.ends[::-1]
                data, address = this.recvfrom(70000)
                if address[2] != socket.PACKET_OUTGOING:
                    self.under_way.append((now() + self.delay, other, data))
            while self.under_way and self.under_way[0][0] <= now():
                _, other, data = self.under_way.popleft()
                other.send(data)

    def close(self):
        self.running = False
        self.thread.join()
        for end in self.ends:
            end.close()


class Cord:
    """Two namespaces, a wire, tunnels by `ip link` across it."""

    def __init__(self, lab, count=1, mtu=1450, bridges=False, delay=0):
        self.lab, self.names = lab, [f"cord{i}" for i in range(count)]
        self.near, self.far = lab.namespace("near"), lab.namespace("far")
        if delay:
            lab.keep(LongWire(lab, self.near, self.far, delay))
        else:
            wire(self.near, self.far)
        for i, name in enumerate(self.names):
            far_vxlan(self.near, name, i + 1, NEAR, FAR, mtu=mtu)
            far_vxlan(self.far, name, i + 1, FAR, NEAR, mtu=mtu)
        if bridges:
            for namespace in (self.near, self.far):
                ethercord.bridge(namespace)
                namespace.ip("link", "set", self.names[0], "master", "br0")

    def ends(self, interval=1000, timeout=3000, name="cord0", near=True, far=True):
        made = [End(self.lab, ns, name, dialer, interval, timeout)
                for ns, dialer, wanted in ((self.near, True, near), (self.far, False, far))
                if wanted]
        return made if len(made) > 1 else made[0]

    # Each of these tells when it began: its effects may come before it ends.

    def cut(self):
        begin = now()
        self.near.ip("link", "set", "wire", "down")
        return begin

    def mend(self):
        begin = now()
        self.near.ip("link", "set", "wire", "up")
        return begin

    @staticmethod
    def block(namespace, rule="udp dport 4789"):
        begin = now()
        namespace.exec("nft", "-f", "-", input=BLOCK.format(rule=rule))
        return begin

    @staticmethod
    def unblock(namespace):
        begin = now()
        namespace.exec("nft", "delete", "table", "ip", "block")
        return begin


def quiet(ends, since, seconds):
    """Nobody loses anybody."""
    stays(lambda: not any(e.all("lost", since) for e in ends), seconds, "a peer was lost")


def both(ends, event, since, timeout=10):
    return [end.wait(event, since, timeout)["at"] for end in ends]


def test_full_size(lab):
    near, far = Cord(lab).ends()
    begin = now()
    agree(near, far)
    assert now() - begin < 0.5
    # A second proof on a cord that works disturbs nobody.
    agree(near)
    assert not near.all("lost") + far.all("lost")


def test_peer_comes_later(lab):
    near, far = Cord(lab).ends()
    begin = near.proves(1450)
    wait_until(lambda: now() > begin + 0.2, "200 ms")
    came = far.proves(1450)
    assert near.outcome(begin) == far.outcome(came) == 1450
    assert near.all("proved")[0]["at"] - came < 0.3


def test_nobody(lab):
    near = Cord(lab).ends(far=False)
    begin = near.proves(1450)
    assert near.outcome(begin) == 0
    assert 0.95 < near.all("proved")[0]["at"] - begin < 1.5


def test_fragments_dropped(lab):
    cord = Cord(lab, mtu=1500)
    near, far = cord.ends()
    agree(near, far, size=1500)
    cord.block(cord.far, "ip frag-off & 0x3fff != 0")
    begun = [end.proves(1500) for end in (near, far)]
    for end, begin in zip((near, far), begun):
        assert 1442 <= end.outcome(begin) <= 1450
        assert end.all("proved", begin)[0]["at"] - begin < 1.5
    quiet((near, far), 0, 0.3)


@pytest.mark.parametrize("rtt", [0.1, 0.7])
def test_long_path(lab, rtt):
    """As over a satellite: proved in one round trip, searched in five."""
    cord = Cord(lab, mtu=1500, delay=rtt / 2)
    near, far = cord.ends()
    cord.near.exec("ping", "-c1", "-w5", FAR)
    begin = now()
    agree(near, far, size=1500)
    assert rtt <= now() - begin < rtt + 0.4
    cord.block(cord.far, "ip frag-off & 0x3fff != 0")
    begin = near.proves(1500)
    assert 1450 - (8 if rtt < 0.5 else 24) <= near.outcome(begin) <= 1450
    assert near.all("proved", begin)[0]["at"] - begin < max(1, 5 * rtt) + 0.3
    quiet((near, far), 0, 0.3)


def test_cut(lab):
    """Median of several: a busy machine may be late with one."""
    cord = Cord(lab, count=4)
    pairs = [cord.ends(name=name) for name in cord.names]
    ends = sum(pairs, [])
    agree(*ends)
    detected, recovered = [], []
    for _ in range(3):
        begin = cord.cut()
        detected += [at - begin for at in both(ends, "lost", begin)]
        begin = cord.mend()
        recovered += [at - begin for at in both(ends, "found", begin)]
    print(sorted(detected), sorted(recovered))
    assert 2.7 < statistics.median(detected) < 3.3
    assert max(detected) < 3.6 and min(detected) > 2.5
    assert statistics.median(recovered) < 1 and max(recovered) < 1.3
    quiet(ends, now(), 1)
    assert {len(e.all(what)) for e in ends for what in ("lost", "found")} == {3}


@pytest.mark.parametrize("deaf", ["near", "far"])
def test_one_way(lab, deaf):
    """Who still hears is told."""
    cord = Cord(lab)
    ends = cord.ends(interval=300, timeout=900)
    agree(*ends)
    wait_until(lambda: min(e.statistics()["sent"] for e in ends) > 2, "the beat goes on")
    begin = cord.block(getattr(cord, deaf))
    times = both(ends, "lost", begin)
    assert abs(times[0] - times[1]) < 0.1
    assert 0.6 < min(times) - begin < 1.4
    assert not any(e.all("found", begin) for e in ends)
    stays(lambda: not any(e.all("found", begin) for e in ends), 1, "found through a one-way path")
    begin = cord.unblock(getattr(cord, deaf))
    assert max(both(ends, "found", begin)) - begin < 0.6
    quiet(ends, begin, 2)
    assert [len(e.all("lost")) for e in ends] == [1, 1] == [len(e.all("found")) for e in ends]


def test_bridge_forwards_none(lab):
    """Not even of a port without carrier."""
    cord = Cord(lab, bridges=True)
    host = lab.host(cord.far, "br0", "10.5.0.1/24")
    wait_until(lambda: "state forwarding" in cord.far.exec("bridge", "link").stdout, "forwarding")
    sniffer = lab.capture(host, "eth0", 0x88B5)
    injector = ethercord.frame_socket(cord.near, "cord0")
    # The sniffer sees what does cross the bridge.
    wait_until(lambda: injector.send(b"\xff" * 6 + frame(b"seen")[6:] + bytes(50)) and
               any(b"seen" in f for f in sniffer.take()), "a broadcast crosses")
    sniffer.clear()
    ends = cord.ends(interval=100, timeout=400)
    agree(*ends)
    for end in ends:
        end.do("carrier", end.namespace.ifindex("cord0"), "off")
    wait_until(lambda: "state disabled" in cord.far.exec("bridge", "link", "show", "dev",
                                                          "cord0").stdout, "disabled")
    agree(*ends)
    before = [e.statistics()["sent"] for e in ends]
    wait_until(lambda: all(e.statistics()["sent"] > b + 10 for e, b in zip(ends, before)), "beats")
    for end in ends:
        end.do("carrier", end.namespace.ifindex("cord0"), "on")
    agree(*ends)
    wait_until(lambda: injector.send(b"\xff" * 6 + frame(b"last")[6:] + bytes(50)) and
               any(b"last" in f for f in sniffer.take()), "a broadcast crosses")
    assert not [f for f in sniffer.take() if b"seen" not in f and b"last" not in f]
    assert not any(e.all("lost") for e in ends)
    injector.close()


def test_idle_traffic(lab):
    """Bytes of IP a second, both ways, at an interval four times shorter than the default."""
    cord = Cord(lab)
    ends = cord.ends(interval=250, timeout=1000)
    agree(*ends)
    sniffer = lab.capture(cord.near, "wire")
    sniffer.clear()
    begin = now()
    wait_until(lambda: now() - begin > 4, "4 s")
    frames = [f for f in sniffer.take() if f[12:14] == b"\x08\x00"]
    rate = sum(len(f) - 14 for f in frames) / (now() - begin) / 4
    print(rate, len(frames))
    assert {len(f) - 14 for f in frames} == {36 + 14 + 32}
    assert 200 < rate <= 380


def test_beat(lab):
    """The acceptor asks in the middle between the dialer's requests."""
    cord = Cord(lab)
    agree(*cord.ends(interval=400, timeout=1200))
    sniffer = ethercord.frame_socket(cord.near, "cord0")
    sniffer.bind(("cord0", 3))
    requests = []
    sniffer.settimeout(5)
    while len(requests) < 24:
        data, address = sniffer.recvfrom(2000)
        if (parse(data) or [0])[0] == REQUEST:
            requests.append((now(), address[2] == 4))
    sniffer.close()
    steady = requests[8:]
    assert [mine for _, mine in steady] in [[True, False] * 8, [False, True] * 8]
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(steady)]
    assert 0.15 < statistics.median(gaps) < 0.25


def test_stopped_daemon(lab):
    """Its peer loses it; it does not take its own sleep for the peer's."""
    cord = Cord(lab)
    ends = cord.ends(interval=200, timeout=600)
    agree(*ends)
    for stopped, other in (ends, ends[::-1]):
        quiet(ends, now(), 0.5)
        begin = now()
        os.kill(stopped.process.pid, signal.SIGSTOP)
        other.wait("lost", begin)
        wait_until(lambda: now() > begin + 3, "3 s")
        woken = now()
        os.kill(stopped.process.pid, signal.SIGCONT)
        assert other.wait("found", woken)["at"] - woken < 0.3
        quiet(ends, woken, 1)
        assert not stopped.all("lost", begin)
        assert stopped.statistics()["rtt"] < 100000


class Forger:
    """Sends to `end` through the tunnel, in place of its peer whose key it may have."""

    def __init__(self, lab, cord, key=KEYS[0]):
        self.key = key
        self.sender = ethercord.frame_socket(cord.near, "cord0")
        self.sniffer = ethercord.frame_socket(cord.near, "cord0")
        self.sniffer.bind(("cord0", 3))
        self.frames = []    # (is it ours, frame)
        for each in (self.sender, self.sniffer):
            lab.stack.callback(each.close)

    def send(self, seq, **more):
        key = more.pop("key", self.key)
        self.raw(frame(encode(key, seq, **more)))

    def raw(self, data):
        self.sender.send(data)

    def take(self):
        """All frames on the tunnel so far that are probes."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data, address = self.sniffer.recvfrom(70000, socket.MSG_DONTWAIT)
                if parse(data):
                    self.frames.append((address[2] == socket.PACKET_OUTGOING, data))
        return self.frames

    def clear(self):
        self.take()
        self.frames = []

    def answers(self):
        """Of the far end: (type, hears, size, seq, stamp)."""
        return [p for ours, data in self.take() if not ours and (p := parse(data))[0] == ANSWER]

    def answer(self, key=None):
        """Answers the far end's newest request, which comes soon."""
        self.clear()
        asked = wait_until(lambda: [p for ours, data in self.take()
                                    if not ours and (p := parse(data))[0] == REQUEST], "a request")
        _, _, size, seq, stamp = asked[-1]
        self.send(seq, kind=ANSWER, stamp=stamp, padding=size - 32, key=key or self.key)

    def newest(self):
        """Number of the newest request of the near end so far."""
        return max(p[3] for ours, data in self.take() if ours and (p := parse(data))[0] == REQUEST)


def test_forged(lab):
    cord = Cord(lab)
    near, far = cord.ends(interval=200, timeout=600)
    forger = Forger(lab, cord)
    agree(near, far)
    forger.clear()  # of the first ones the far end, which was not there yet, may have got none
    wait_until(lambda: far.statistics()["sent"] > 3, "the beat goes on")
    near.do("pause")
    recorded = [data for _, data in forger.take()]
    seq = forger.newest() + 1000
    begin = now()
    far.wait("lost", begin)

    # What was recorded, and what is made with another key, is nothing: found stays out.
    forger.clear()
    for data in recorded * 3:
        forger.raw(data)
    good = encode(KEYS[0], seq)
    for bit in range(len(good) * 8):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        forger.raw(frame(bytes(bad)))
    for key in ("00" * 32, KEYS[1]):
        forger.send(seq, key=key)
        forger.send(seq, key=key, kind=ANSWER)
    stays(lambda: not far.all("found", begin), 0.5, "found by forgeries")
    assert not forger.answers()

    # The same with the key is the peer.
    forger.send(seq)
    wait_until(lambda: [a[3] for a in forger.answers()] == [seq], "one answer")
    forger.answer()
    far.wait("found", begin)
    # Once, and not again; then the peer falls silent.
    forger.clear()
    at = now()
    while not far.all("lost", at):
        assert now() - at < 2, "kept alive by replays"
        forger.send(seq)
        for data in recorded:
            forger.raw(data)
    assert not forger.answers()


def test_told_of_being_unheard(lab):
    cord = Cord(lab)
    near, far = cord.ends(interval=1000, timeout=3000)
    forger = Forger(lab, cord)
    agree(near, far)
    wait_until(lambda: near.statistics()["sent"] > 1, "the beat goes on")
    near.do("pause")
    seq = forger.newest() + 1000
    begin = now()
    # Not believed so soon after an answer: overtaken by it.
    forger.send(seq, hears=False)
    quiet([far], begin, 1.6)
    forger.send(seq + 2, hears=True)
    # Older ones and those of others do not count.
    forger.send(seq + 1, hears=False)
    forger.send(seq + 3, hears=False, key=KEYS[1])
    quiet([far], begin, 0.3)
    begin = now()
    forger.send(seq + 4, hears=False)
    assert far.wait("lost", begin)["at"] - begin < 0.3
    # That it hears us again is asked for; and a late "unheard" from before does not undo it.
    forger.clear()
    forger.send(seq + 6, hears=True)
    forger.answer()
    far.wait("found", begin)
    forger.send(seq + 5, hears=False)
    quiet([far], now(), 0.3)


def test_no_amplifier(lab):
    cord = Cord(lab)
    near, far = cord.ends(interval=200, timeout=600)
    forger = Forger(lab, cord)
    agree(near, far)
    near.do("pause")
    seq = forger.newest() + 1000
    forger.clear()
    begin = now()
    for i in range(1000):
        forger.send(seq + i, padding=i)
    wait_until(lambda: len(forger.answers()) >= 32, "answers")
    assert far.statistics()["event"] == "statistics"
    answers = forger.answers()
    spent = now() - begin
    assert len(answers) <= 200 * (1 + spent) + 1
    # Each at its own size, none twice.
    assert all(size == 32 + number - seq for _, _, size, number, _ in answers)
    assert len({number for *_, number, _ in answers}) == len(answers)


def test_rekey(lab):
    cord = Cord(lab)
    near, far = cord.ends(interval=200, timeout=600)
    forger = Forger(lab, cord)
    agree(near, far)
    begin, fresh = now(), ("33" * 32, "44" * 32)
    near.do("rekey", *fresh)
    quiet((near, far), begin, 0.3)      # half the timeout: the control channel is slow
    far.do("rekey", *fresh[::-1])
    quiet((near, far), begin, 2)
    # The old key is worth nothing any more.
    near.do("pause")
    seq = forger.newest() + 1000
    begin = now()
    far.wait("lost", begin)
    forger.clear()
    forger.send(seq)
    stays(lambda: not far.all("found", begin), 0.3, "found by the old key")
    assert not forger.answers()
    forger.send(seq, key=fresh[0])
    wait_until(forger.answers, "an answer under the new key")
    forger.answer(fresh[0])
    far.wait("found", begin)


def test_interface_made_anew(lab):
    cord = Cord(lab)
    near, far = cord.ends(interval=200, timeout=600)
    agree(near, far)
    sent = near.statistics()["sent"]
    begin = now()
    cord.near.ip("link", "del", "cord0")
    both((near, far), "lost", begin)
    far_vxlan(cord.near, "cord0", 1, NEAR, FAR, mtu=1450)
    near.do("rebind", cord.near.ifindex("cord0"))
    both((near, far), "found", begin)
    assert near.statistics()["sent"] > sent
    # Down and up needs nothing.
    cord.near.ip("link", "set", "cord0", "down")
    cord.near.ip("link", "set", "cord0", "up")
    quiet((near, far), now(), 1)


def test_statistics(lab):
    cord = Cord(lab, delay=0.05)
    ends = cord.ends(interval=100, timeout=600)
    agree(*ends)
    wait_until(lambda: ends[0].statistics()["sent"] > 10, "10 requests")
    for end in ends:
        seen = end.statistics()
        assert 100000 <= seen["rtt"] < 150000 and seen["unanswered"] == 0
        assert not seen["is_lost"]
    begin = cord.block(cord.far)
    both(ends, "lost", begin)
    wait_until(lambda: all(e.statistics()["unanswered"] > 3 for e in ends), "requests are lost")
    assert all(e.statistics()["is_lost"] for e in ends)


def test_carrier(lab):
    cord = Cord(lab, bridges=True)
    near = cord.ends(far=False)

    def seen():
        link = json.loads(cord.near.ip("-d", "-j", "link", "show", "cord0").stdout)[0]
        return ("NO-CARRIER" not in link["flags"], link["operstate"],
                link["linkinfo"]["info_slave_data"]["state"],
                near.ask("link", index)["dormant"])
    index = cord.near.ifindex("cord0")
    wait_until(lambda: seen()[2] == "forwarding", "the port forwards")
    assert not seen()[3]
    for _ in range(3):
        near.do("carrier", index, "off")
        wait_until(lambda: seen() == (False, "DORMANT", "disabled", True), "carrier off")
        # It stays so over down and up.
        cord.near.ip("link", "set", "cord0", "down")
        assert seen()[3]
        cord.near.ip("link", "set", "cord0", "up")
        stays(lambda: seen() == (False, "DORMANT", "disabled", True), 0.2, "carrier off")
        near.do("carrier", index, "on")
        wait_until(lambda: seen() == (True, "UP", "forwarding", False), "carrier on")
