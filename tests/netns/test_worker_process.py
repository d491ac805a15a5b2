# SPDX-License-Identifier: GPL-2.0-or-later
"""The worker as a process: what the daemon asks of it, and what it costs."""

import errno
import mmap
import os
import re
import select
import signal
import socket
import struct
import subprocess
import threading

import pytest

import worker
from ethercord import PATIENCE, stays, wait_until
from worker import Pair, Refused, Sink, Source, Worker, frame, number_of


def crosses(pair, number=1):
    """A frame goes from near to far."""
    source, sink = Source(pair.namespaces[0]), Sink(pair.namespaces[1])
    try:
        source.send(frame(number))
        return [number_of(f) for f in sink.wait(1)] == [number]
    finally:
        source.close()
        sink.close()


def refused(code, call, *words, **more):
    with pytest.raises(Refused) as caught:
        call(*words, **more)
    assert caught.value.error == code, caught.value
    return caught.value.text


def descriptors(w):
    return len(os.listdir(f"/proc/{w.process.pid}/fd"))


# Started by hand

def test_by_hand():
    def run(*words):
        return subprocess.run([worker.PROGRAM, *words], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=PATIENCE, check=False)
    assert run("--help").returncode == 0 and "ethercordd" in run("--help").stdout
    assert re.fullmatch(r"ethercord-worker [\d.]+\n", run("--version").stdout)
    done = run()
    assert done.returncode == 1 and "ethercordd starts it" in done.stderr
    assert run("--nothing").returncode == 1 and "--nothing" in run("--nothing").stderr


# Requests

@pytest.fixture
def raw(lab):
    """A worker that was not told anything, and what START takes."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = worker.start_program(lab, theirs)
    theirs.close()
    connection = lab.keep(worker.Connection(ours))
    connection.process = process
    connection.namespace = lab.namespace("near")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(lab.directory / "worker"))
    listener.listen()
    connection.listener = lab.keep(listener)
    connection.tap = worker.open_device(connection.namespace, "cord")
    connection.memory = os.memfd_create("statistics")
    os.ftruncate(connection.memory, mmap.PAGESIZE)
    yield connection
    os.close(connection.tap)
    os.close(connection.memory)


def test_bad_starts(raw):
    fds = raw.listener.fileno(), raw.tap, raw.memory
    assert "START" in refused(errno.EINVAL, raw.configure, "10.0.0.1", 1)
    refused(errno.EPROTO, raw.start, "vxlan", "x", *fds, version=2)
    assert "format" in refused(errno.EINVAL, raw.start, 0, "x", *fds)
    assert "format" in refused(errno.EINVAL, raw.start, 5, "x", *fds)
    assert "TUN" in refused(errno.EINVAL, raw.start, "tun-udp", "x", *fds)
    assert "name" in refused(errno.EINVAL, raw.start, "vxlan", "x" * 64, *fds)
    assert "listen" in refused(errno.ENOTSOCK, raw.start, "vxlan", "x", raw.tap, *fds[1:])
    assert "device" in refused(errno.ENOTTY, raw.start, "vxlan", "x",
                               fds[0], raw.memory, fds[2])
    os.ftruncate(raw.memory, 8)
    assert "memory" in refused(errno.EINVAL, raw.start, "vxlan", "x", *fds)
    os.ftruncate(raw.memory, mmap.PAGESIZE)
    no_header = worker.open_device(raw.namespace, "other", flags=0)
    assert "IFF_VNET_HDR" in refused(errno.EINVAL, raw.start, "vxlan", "x", fds[0], no_header,
                                     fds[2])
    os.close(no_header)
    # Too few descriptors, too many.
    serial = next(raw.serial)
    raw.send(struct.pack("=IIII64s", worker.START, 1, serial, 2, b"x"), *fds[:2])
    refused(errno.EINVAL, raw.done, serial)
    raw.send(struct.pack("=IIII64s", worker.START, 1, serial, 2, b"x"), *fds, raw.tap)
    refused(errno.EINVAL, raw.done, serial)
    for rubbish in (b"", b"\0", bytes(4), bytes(2000), struct.pack("=I", 99),
                    struct.pack("=I", worker.START)):
        raw.send(rubbish or b"\1")
        refused(errno.EBADMSG, raw.done, 0)
    # No descriptor of all these is left; it is still of use.
    raw.start("vxlan", "x", *fds)
    refused(errno.EINVAL, raw.start, "vxlan", "x", *fds)
    wait_until(lambda: sorted(map(int, os.listdir(f"/proc/{raw.process.pid}/fd"))) ==
               list(range(8)), "stdio, control, epoll, listener, device and memory are open")


def test_bad_configurations_change_nothing(lab):
    pair = Pair(lab, "vxlan", identifier=7)
    near = pair.near
    configure = near.control.configure
    refused(errno.EINVAL, configure, "10.9.0.2", 4789, identifier=1 << 24)
    refused(errno.EINVAL, configure, "10.9.0.2", 4789, flags=1 << 20)
    refused(errno.EAFNOSUPPORT, configure, "fd00::1", 4789)
    other = worker.open_socket(pair.namespaces[0], "::", 4789)
    with other:
        refused(errno.EAFNOSUPPORT, configure, "10.9.0.2", 4789, sock=other)
    with socket.socket() as tcp:
        refused(errno.EPROTOTYPE, configure, "10.9.0.2", 4789, sock=tcp)
    with open("/dev/null", encoding="ascii") as file:
        refused(errno.ENOTSOCK, configure, "10.9.0.2", 4789, sock=file)
    assert crosses(pair)
    wait_until(lambda: descriptors(near) == 9, "stdio, control, epoll, listener, device, memory "
               "and socket are open")


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("kind", ["raw-udp", "vxlan"])
def test_no_route_changes_nothing(lab, kind, ipv6):
    """A connect() that fails leaves the kernel with the new remote, or none; not the worker."""
    elsewhere = "2001:db8::1" if ipv6 else "192.0.2.1"
    pair = Pair(lab, kind, ipv6=ipv6)
    # Bound to a device, all the world would be a neighbour.
    pair.near.configure(pair.addresses[1], sock=pair.near.new_socket(pair.addresses[0]))
    text = refused(errno.ENETUNREACH, pair.near.control.configure, elsewhere, 1234)
    assert "unreachable" in text
    for number in range(3):
        assert crosses(pair, number)
    assert elsewhere not in pair.namespaces[0].ip("neigh").stdout


def test_a_connected_socket_is_not_disconnected(lab):
    """That would undo its SO_BINDTODEVICE, too."""
    pair = Pair(lab, "raw-udp")
    configure = pair.near.control.configure
    refused(errno.EISCONN, configure, "10.9.0.2", 1234, flags=["roam"])
    assert crosses(pair)
    configure("10.9.0.2", 0)    # of an address alone: connected all the same
    refused(errno.EISCONN, configure, "10.9.0.2", 0, flags=["roam"])
    configure("10.9.0.2", 1234, flags=["roam"],
              sock=pair.near.new_socket("10.9.0.1", device="wire"))
    assert crosses(pair)


def test_stop(lab):
    pair = Pair(lab, "vxlan")
    pair.near.stop()
    assert pair.namespaces[0].link("cord")


def test_end_before_start(lab, raw):
    raw.close()
    assert raw.process.wait(PATIENCE) == 1


def test_deleted_device(lab):
    w = Worker(lab, lab.namespace("near"), "vxlan")
    w.let_go()
    w.namespace.ip("link", "del", "cord")
    assert w.control.event(worker.DEVICE)[1] == -errno.EBADFD
    assert w.process.wait(PATIENCE) == 1


def test_deleted_underlay(lab):
    """Said once; a new socket makes it good."""
    pair = Pair(lab, "vxlan")
    near = pair.near
    near.namespace.ip("link", "del", "wire")
    source = lab.keep(Source(near.namespace))

    def told():
        source.send(frame())
        near.control.poll()
        return [e for e in near.control.events if e[0] == worker.SOCKET]
    assert wait_until(told, "the socket is said to be gone")[0][1] == -errno.ENODEV
    dropped = near.statistics["tx_dropped_socket"]
    wait_until(lambda: told() and near.statistics["tx_dropped_socket"] > dropped, "another one")
    assert len(told()) == 1
    near.namespace.ip("link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns",
                      pair.namespaces[1].name)
    for namespace, address, w in zip(pair.namespaces, pair.addresses, pair.workers):
        namespace.ip("addr", "add", f"{address}/24", "dev", "wire")
        namespace.ip("link", "set", "wire", "up")
    for i, w in enumerate(pair.workers):
        w.configure(pair.addresses[1 - i], sock=w.new_socket(pair.addresses[i], device="wire"))
    assert crosses(pair)


# The control connection

def test_another_daemon(lab):
    """The connection ends, packets go on; the next daemon is told all, and goes on."""
    pair = Pair(lab, "raw-udp", path_mtu=1400, flags=["too_big"])
    near = pair.near
    near.control.close()
    assert crosses(pair, 1)
    assert near.connect() == {
        "format": 3, "pid": near.process.pid, "name": "test", "serial": 2, "id": 0,
        "flags": worker.FLAGS["too_big"], "path_mtu": 1400, "remote": ("10.9.0.2", 1234),
        "fds": Descriptors(3)}
    near.configure("10.9.0.2")
    assert crosses(pair, 2)
    # A third one takes over from one that is still there.
    second = lab.keep(near.control)
    near.connect()
    assert second.receive() == (b"", [])
    near.stop()


class Descriptors:
    """So many descriptors."""

    def __init__(self, n):
        self.n = n

    def __eq__(self, other):
        return len(other) == self.n


def test_killed_daemon(lab):
    """Whoever is killed in the middle of it all."""
    pair = Pair(lab, "vxlan", identifier=3)
    near = pair.near
    near.control.close()
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            near.connect()
            os.write(tell, b"x")
            for _ in range(50):
                near.control.send(struct.pack("=IIIIII", worker.CONFIGURE, 9, 3, 0, 0, 0) +
                                  worker.pack_address("10.9.0.2", 4789))
            signal.pause()
        finally:
            os._exit(1)
    assert os.read(told, 1) == b"x"
    for fd in (told, tell):
        os.close(fd)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert crosses(pair)
    assert near.connect()["id"] == 3


def test_asked(lab):
    """It answers at once, each time, also when it waits for its socket."""
    pair = Pair(lab, "vxlan")
    near = pair.near
    for _ in range(3):
        near.control.send(struct.pack("=I", worker.ASK))
        assert near.control.event(worker.HERE)
    near.namespace.exec("tc", "qdisc", "add", "dev", "wire", "root", "tbf", "rate", "8kbit",
                        "burst", "2k", "limit", "100m")
    source = lab.keep(Source(near.namespace))
    sock = near.new_socket("10.9.0.1", device="wire")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100000)
    near.configure("10.9.0.2", path_mtu=1500, sock=sock)
    before = near.statistics["device_reads"]
    for number in range(400):
        source.send(frame(number, 1400))
    assert near.statistics["device_reads"] - before < 400
    near.control.send(struct.pack("=I", worker.ASK))
    assert near.control.event(worker.HERE)
    assert near.statistics["device_reads"] - before < 400


def test_daemon_that_does_not_read(lab):
    """Is left: the worker does not wait for it. Then it may come again."""
    pair = Pair(lab, "vxlan")
    near = pair.near
    request = struct.pack("=IIIIII", worker.CONFIGURE, 9, 0, 0, 0, 0) + \
        worker.pack_address("10.9.0.2", 4789)
    near.control.socket.settimeout(PATIENCE)
    with pytest.raises(OSError):
        for _ in range(100000):
            near.control.send(request)
    assert crosses(pair)
    near.connect()
    near.configure("10.9.0.2")


# Order and back-pressure

@pytest.fixture
def stopped(lab):
    """A pair whose near worker does not run, so that what comes meanwhile is one round."""
    pair = Pair(lab, "raw-udp")
    near = pair.near
    near.namespace.exec("sysctl", "-qw", "net.ipv6.conf.cord.disable_ipv6=1")
    pair.pin()
    pair.source, pair.sink = lab.keep(Source(near.namespace)), \
        lab.keep(Sink(pair.namespaces[1], ethertype=None))
    near.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: near.status("State").startswith("T"), "it is stopped")
    yield pair
    near.process.send_signal(signal.SIGCONT)


def ports(frames):
    """(source port, payload) of TCP frames, in order; the number of others."""
    mine = [f for f in frames if f[6:12] == worker.ME]
    return [struct.unpack_from("!H", f, 34)[0] if f[12:14] == b"\x08\0" else number_of(f)
            for f in mine]


def segment(size, sport):
    return worker.tcp_super_frame(b"", size, 1400, sport)


def test_small_frames_go_first(stopped):
    """But not before what may be of their own flow."""
    source = stopped.source
    source.send_super(*segment(20000, 1))   # a super-frame of flow 1
    source.send_super(*segment(100, 1))     # flow 1 again: behind it
    source.send_super(*segment(100, 2))     # another flow: ahead
    source.send(frame(3, 60))               # ahead
    source.send(frame(4, 1000))             # large: not ahead
    source.send(frame(5, 60))               # of the same flow as 4
    source.send_super(*segment(100, 6))     # ahead
    stopped.near.process.send_signal(signal.SIGCONT)
    wait_until(lambda: len(ports(stopped.sink.take())) >= 7, "all frames")
    assert ports(stopped.sink.take()) == [2, 3, 6, 1, 1, 4, 5]


def test_without_super_frames_order_is_kept(stopped):
    for number in range(40):
        stopped.source.send(frame(number, 60 if number % 3 else 1200))
    stopped.near.process.send_signal(signal.SIGCONT)
    wait_until(lambda: len(ports(stopped.sink.take())) >= 40, "all frames")
    assert ports(stopped.sink.take()) == list(range(40))


def test_back_pressure(lab):
    """A path that is slow: the device's queue waits, nothing is lost, nothing spins, the daemon is
    answered, and the other direction goes on."""
    pair = Pair(lab, "vxlan")
    pair.pin()
    near, far = pair.workers

    def path(verb, rate):
        near.namespace.exec("tc", "qdisc", verb, "dev", "wire", "root", "tbf", "rate", rate,
                            "burst", "20k", "limit", "100m")
    path("add", "1mbit")
    sock = near.new_socket("10.9.0.1", device="wire")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100000)
    near.configure("10.9.0.2", path_mtu=1500, sock=sock)
    source, sink = lab.keep(Source(near.namespace)), lab.keep(Sink(far.namespace))
    back, home = lab.keep(Source(far.namespace)), lab.keep(Sink(near.namespace))
    before, ticks = near.statistics["device_reads"], cpu(near)
    for number in range(900):
        source.send(frame(number, 1400))
    assert near.statistics["device_reads"] - before < 900
    near.configure("10.9.0.2", path_mtu=1500)
    for number in range(100):
        back.send(frame(number))
    assert [number_of(f) for f in home.wait(100)] == list(range(100))
    assert near.statistics["device_reads"] - before < 900, "it was over before that"
    path("change", "20mbit")
    assert [number_of(f) for f in sink.wait(900)] == list(range(900))
    assert near.statistics["tx_dropped_socket"] == 0
    assert cpu(near) - ticks < 0.25     # of the half second that it takes at least


def test_new_socket_while_the_old_one_is_full(lab):
    pair = Pair(lab, "vxlan")
    pair.pin()
    near = pair.near
    near.namespace.exec("tc", "qdisc", "add", "dev", "wire", "root", "tbf", "rate", "20mbit",
                        "burst", "20k", "limit", "100m")
    sock = near.new_socket("10.9.0.1", device="wire")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100000)
    near.configure("10.9.0.2", path_mtu=1500, sock=sock)
    source, sink = lab.keep(Source(near.namespace)), lab.keep(Sink(pair.namespaces[1]))
    for number in range(300):
        source.send(frame(number, 1400))
    near.configure("10.9.0.2", path_mtu=1500, sock=near.new_socket("10.9.0.1", device="wire"))
    assert [number_of(f) for f in sink.wait(300)] == list(range(300))


def cpu(w):
    """s"""
    fields = w.proc("stat").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# Moving

class Stream(threading.Thread):
    """Numbered frames from near to far, as many as are under way at a time as no queue is too short
    for."""

    WINDOW = 400

    def __init__(self, pair):
        super().__init__(daemon=True)
        pair.pin()
        self.source, self.sink = Source(pair.namespaces[0]), Sink(pair.namespaces[1])
        self.sent, self.over = 0, False
        self.start()
        wait_until(lambda: self.sent > self.WINDOW, "the stream runs")

    def run(self):
        while not self.over:
            if self.sent - len(self.sink.take()) >= self.WINDOW:
                select.select([self.sink.socket], [], [], 1)
                continue
            self.source.send(frame(self.sent, 200))
            self.sent += 1

    def lost(self):
        """After all have come that will."""
        self.over = True
        self.join()
        wait_until(lambda: self.sink.take() and number_of(self.sink.frames[-1]) == self.sent - 1,
                   "the last one")
        numbers = [number_of(f) for f in self.sink.take()]
        assert numbers == sorted(set(numbers)), "order, or doubled"
        self.source.close()
        self.sink.close()
        return self.sent - len(numbers)


def further(stream, frames=500):
    goal = stream.sent + frames
    wait_until(lambda: stream.sent > goal, "the stream goes on")


@pytest.mark.parametrize("kind", ["vxlan", "raw-udp"])
def test_reconfigured_under_load(lab, kind):
    """Nothing is lost when the same is said again, with a new socket, or with other flags."""
    pair = Pair(lab, kind)
    stream = Stream(pair)
    for i in range(10):
        for w, ours, theirs in zip(pair.workers, pair.addresses, reversed(pair.addresses)):
            further(stream)
            more = {}
            if i % 2 and w is pair.near:
                more["sock"] = w.new_socket(ours, device="wire")
            w.configure(theirs, flags=["join"] if i % 3 else [], path_mtu=1500, **more)
    assert stream.lost() == 0


def test_another_remote_under_load(lab):
    """The far end gets another address: what is lost is what was on its way."""
    pair = Pair(lab, "vxlan")
    near, far = pair.workers
    far.namespace.ip("addr", "add", "10.9.0.3/24", "dev", "wire")
    far.configure("10.9.0.1", sock=far.new_socket("0.0.0.0", device="wire"), flags=["roam"])
    # Whose Ethernet address is not known has few frames kept until it is.
    near.namespace.exec("ping", "-c1", "-W5", "10.9.0.3")
    stream = Stream(pair)
    for address in ("10.9.0.3", "10.9.0.2") * 5:
        further(stream)
        near.configure(address)
    assert stream.lost() == 0


# What it costs

def test_idle(lab):
    """Nothing wakes it when there is nothing to do."""
    pair = Pair(lab, "vxlan", flags=["split", "join"])
    for namespace in pair.namespaces:
        # Solicitations of routers and the like come by themselves.
        namespace.exec("sysctl", "-qw", "net.ipv6.conf.cord.disable_ipv6=1")
    assert crosses(pair)

    def quiet():
        before = [w.wakeups for w in pair.workers]
        try:
            stays(lambda: [w.wakeups for w in pair.workers] == before, 2, "it sleeps", 0.1)
        except AssertionError:
            return False
        return True
    wait_until(quiet, "two seconds without a wake-up")
