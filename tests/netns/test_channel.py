# SPDX-License-Identifier: GPL-2.0-or-later
"""The accepting end of the control channel, without a daemon: OpenSSL, which shares no line with it,
gets through the handshake and reads what is documented; and a flood of connections costs a bounded
amount of memory, keeps nobody out, and ends by itself."""

import contextlib
import errno
import json
import os
import select
import socket
import struct
import subprocess
import time

import pytest
from gi.repository import GLib

import ethercord
from ethercord import wait_until

DRIVER = ethercord.BUILD / "tests/channel-driver"
KEY = bytes(range(32)).hex()
PORT = 65200
PER_SOURCE, TOTAL = 32, 256
SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256")


class Driver:
    """channel-driver in a namespace, perhaps with few file descriptors."""

    def __init__(self, lab, namespace, files=4096):
        self.namespace = namespace
        self.process = namespace.popen("prlimit", f"--nofile={files}:{files}", DRIVER, PORT,
                                       "laptop", KEY, stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, text=True, bufsize=1)
        lab.keep(self)
        assert self.process.stdout.readline() == f"ready {PORT}\n"

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            assert self.process.wait(20) == 0
        ethercord.end_process(self.process)

    def counts(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def until(self, condition, what, timeout=10):
        return wait_until(lambda: condition(self.counts()), what, timeout, 0.02)


class Connections:
    """Many sockets of many source addresses to the driver's port."""

    def __init__(self, lab, namespace):
        self.namespace, self.open = namespace, []
        lab.keep(self)

    def close(self):
        for s in self.open:
            s.close()
        self.open = []

    def add(self, source, count=1, target="127.0.0.1"):
        with self.namespace.entered():
            for _ in range(count):
                s = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET)
                s.bind((source, 0))
                s.settimeout(ethercord.PATIENCE)
                s.connect((target, PORT))
                s.setblocking(False)
                self.open.append(s)

    def alive(self):
        """Those that the far end has not closed. None may have been sent a byte."""
        return sum(map(is_alive, self.open))


def is_alive(s):
    try:
        assert s.recv(1) == b"", "an answer to nothing"
        return False
    except BlockingIOError:
        return True
    except OSError as e:
        assert e.errno == errno.ECONNRESET
        return False


def message(text):
    body = GLib.Variant.parse(GLib.VariantType("a{sv}"), text, None, None)
    data = body.get_data_as_bytes().get_data()
    return struct.pack(">I", len(data)) + data


def read_exactly(stream, n, deadline):
    data = b""
    while len(data) < n:
        left = deadline - time.monotonic()
        assert left > 0 and select.select([stream], [], [], left)[0], f"only {data!r} came"
        more = os.read(stream.fileno(), n - len(data))
        assert more, f"closed after {data!r}"
        data += more
    return data


def read_message(stream):
    deadline = time.monotonic() + 10
    length, = struct.unpack(">I", read_exactly(stream, 4, deadline))
    data = GLib.Bytes.new(read_exactly(stream, length, deadline))
    body = GLib.Variant.new_from_bytes(GLib.VariantType("a{sv}"), data, False)
    assert body.is_normal_form()
    return body.unpack()


@contextlib.contextmanager
def openssl(namespace, *options, target="127.0.0.1", name="laptop", key=KEY):
    process = namespace.popen(
        "openssl", "s_client", "-connect", f"{target}:{PORT}", "-psk_identity", name, "-psk", key,
        "-quiet", *options, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        bufsize=0)
    try:
        yield process
    finally:
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()
        ethercord.end_process(process)


@pytest.fixture
def place(lab):
    return lab.namespace("place", ipv6=True)


@pytest.fixture
def driver(lab, place):
    return Driver(lab, place)


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("group", ("X25519", "P-256", "P-521:P-256"))
def test_openssl_gets_a_welcome_and_an_answer(place, driver, suite, group):
    with openssl(place, "-tls1_3", "-ciphersuites", suite, "-groups", group) as client:
        welcome = read_message(client.stdout)
        assert welcome == {
            "type": "welcome", "protocol": 1, "name": "office", "peer": "laptop",
            "nonce": 0x0102030405060708, "instance": 9, "seen": "127.0.0.1",
            "encapsulations": [("vxlan", "kernel", 4789)], "ids": [7]}
        assert driver.counts()["pending"] == 1
        client.stdin.write(message("{'type': <'ping'>, 'seq': <uint64 77>}"))
        assert read_message(client.stdout) == {"type": "pong", "seq": 77}
        assert driver.counts()["greeted"] == 1
    driver.until(lambda n: n["greeted"] == 0 and n["pending"] == 0, "the end is noticed")


def test_openssl_over_ipv6(place, driver):
    with openssl(place, "-tls1_3", "-ciphersuites", SUITES[0], target="[::1]") as client:
        assert read_message(client.stdout)["seen"] == "::1"


@pytest.mark.parametrize("wrong", (
    {"key": "00" * 32}, {"name": "nobody"}, {"key": KEY[:32]}, {"name": "lap\ttop"}))
def test_openssl_with_a_wrong_key_is_told_so(place, driver, wrong):
    with openssl(place, "-tls1_3", "-ciphersuites", SUITES[0], **wrong) as client:
        assert client.wait(10) != 0
        assert b"alert illegal parameter" in client.stderr.read()
        assert client.stdout.read() == b""
    assert driver.counts()["failed"] == 1


@pytest.mark.parametrize("options", (
    ["-tls1_2"], ["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"],
    ["-tls1_3", "-groups", "P-384"],
    ["-tls1_3", "-allow_no_dhe_kex", "-ciphersuites", SUITES[0], "-groups", "P-521"]))
def test_openssl_with_less_than_we_ask_gets_nowhere(place, driver, options):
    with openssl(place, *options) as client:
        assert client.wait(10) != 0
        assert client.stdout.read() == b""
    driver.until(lambda n: n["failed"] == 1 and n["pending"] == 0, "it is closed")


def test_one_source_gets_no_more_than_its_share(lab, place, driver):
    flood = Connections(lab, place)
    flood.add("127.0.0.9", 3 * PER_SOURCE)
    driver.until(lambda n: n["refused"] == 2 * PER_SOURCE, "more than its share is refused")
    assert driver.counts()["pending"] == PER_SOURCE
    wait_until(lambda: flood.alive() == PER_SOURCE, "the newest ones are closed")
    # The oldest are those that stay, and others are let in meanwhile.
    assert all(map(is_alive, flood.open[:PER_SOURCE]))
    with openssl(place, "-tls1_3", "-ciphersuites", SUITES[0]) as client:
        assert read_message(client.stdout)["type"] == "welcome"


def test_an_ipv6_network_is_one_source(lab, place, driver):
    place.ips("".join(f"addr add 2001:db8:{net}::{n}/128 dev lo nodad\n"
                      for net in (1, 2) for n in range(1, 41)))
    flood = Connections(lab, place)
    for n in range(1, 41):
        flood.add(f"2001:db8:1::{n}", target="::1")
    driver.until(lambda n: n["refused"] == 40 - PER_SOURCE, "one /64 has one share")
    flood.add("2001:db8:2::1", target="::1")
    driver.until(lambda n: n["pending"] == PER_SOURCE + 1, "another one has its own")


def test_who_may_not_speak_is_closed_at_once(lab, place, driver):
    flood = Connections(lab, place)
    flood.add("127.66.0.1", 3)
    driver.until(lambda n: n["refused"] == 3, "not admitted")
    assert driver.counts()["accepted"] == 0
    wait_until(lambda: flood.alive() == 0, "they are closed")


def test_ten_thousand_connections(lab, place, driver):
    """From 10 addresses, and nobody else is kept out; all is over 5 s after the last."""
    flood = Connections(lab, place)
    before = driver.counts()["resident"]
    most = 0
    for turn in range(100):
        for source in range(10):
            flood.add(f"127.1.0.{source + 1}", 10)
        seen = driver.counts()
        most = max(most, seen["resident"])
        assert seen["pending"] <= TOTAL
        if turn == 50:
            with openssl(place, "-tls1_3", "-ciphersuites", SUITES[0]) as client:
                assert read_message(client.stdout)["type"] == "welcome"
        if turn % 4 == 3:
            for s in flood.open[:-PER_SOURCE * 10]:
                s.close()
            del flood.open[:-PER_SOURCE * 10]
    # Those that gave way to others count twice.
    driver.until(lambda n: n["accepted"] + n["refused"] >= 10001, "all have come")
    assert most - before < 16 * 1024, f"{most - before} KiB for connections that say nothing"
    driver.until(lambda n: n["pending"] == 0, "silent ones are dropped", timeout=15)


def test_total_is_shared_out(lab, place, driver):
    """8 sources have taken all places: a ninth one gets in, and one of them gives way."""
    flood = Connections(lab, place)
    for source in range(TOTAL // PER_SOURCE):
        flood.add(f"127.2.0.{source + 1}", PER_SOURCE)
    driver.until(lambda n: n["pending"] == TOTAL, "all places are taken")
    newcomer = Connections(lab, place)
    newcomer.add("127.3.0.1", 2)
    driver.until(lambda n: n["refused"] == 2, "two gave way")
    assert newcomer.alive() == 2
    wait_until(lambda: flood.alive() == TOTAL - 2, "two are closed")
    assert all(map(is_alive, flood.open[:PER_SOURCE - 1]))


def test_without_file_descriptors_listening_pauses(lab, place):
    driver = Driver(lab, place, files=40)
    flood = Connections(lab, place)
    for source in range(4):
        flood.add(f"127.4.0.{source + 1}", 20)
    driver.until(lambda n: n["pending"] > 20, "as many as there are descriptors")
    used = cpu(driver.process.pid)
    assert driver.counts()["pending"] < 40
    # Those in the queue are not spun on.
    driver.until(lambda n: n["failed"] > 0, "the first are dropped", timeout=15)
    assert cpu(driver.process.pid) - used < 1.0
    flood.close()
    with openssl(place, "-tls1_3", "-ciphersuites", SUITES[0]) as client:
        assert read_message(client.stdout)["type"] == "welcome"


def cpu(pid):
    """Seconds that a process has used."""
    fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_port_that_is_taken(place, driver):
    second = place.exec(DRIVER, PORT, "laptop", KEY, check=False)
    assert second.returncode == 1
    assert f"TCP port {PORT}: Address already in use" in second.stdout
