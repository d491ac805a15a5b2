# SPDX-License-Identifier: GPL-2.0-or-later
"""liveness-driver as an object, and probes made by hand."""

import hmac
import json
import queue
import struct
import threading
import time

import ethercord
from ethercord import PATIENCE, wait_until

DRIVER = ethercord.BUILD / "tests/liveness-driver"
KEYS = "11" * 32, "22" * 32
GROUP = bytes.fromhex("0180c200000e")
MAGIC = b"Ecp\x01"
REQUEST, ANSWER = 1, 2


def now():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class End:
    """One end of a cord: a liveness-driver on an interface."""

    def __init__(self, lab, namespace, interface, dialer, interval=1000, timeout=3000, keys=KEYS,
                 kind="ethernet"):
        self.namespace, self.interface = namespace, interface
        mine = keys if dialer else keys[::-1]
        self.process = lab.popen(
            "ip", "netns", "exec", namespace.name, DRIVER, namespace.ifindex(interface), kind,
            "dialer" if dialer else "acceptor", *mine, interval, timeout,
            stdin=-1, stdout=-1, text=True)
        self.replies, self.events = queue.Queue(), []
        threading.Thread(target=self.read, daemon=True).start()
        assert self.reply()["event"] == "done"

    def read(self):
        for line in self.process.stdout:
            event = json.loads(line)
            if event["event"] in ("proved", "lost", "found", "moved"):
                self.events.append(event)
            else:
                self.replies.put(event)

    def reply(self):
        return self.replies.get(timeout=PATIENCE)

    def ask(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self.reply()

    def do(self, *words):
        answer = self.ask(*words)
        assert answer["event"] == "done", answer

    def all(self, name, since=0):
        return [e for e in self.events.copy() if e["event"] == name and e["at"] >= since]

    def wait(self, name, since=0, timeout=PATIENCE):
        return wait_until(lambda: self.all(name, since), f"{self.namespace.name}: {name}",
                          timeout)[0]

    def proves(self, size):
        begin = now()
        self.do("prove", size)
        return begin

    def outcome(self, begin):
        return self.wait("proved", begin)["size"]

    def statistics(self):
        return self.ask("statistics")

    def stop(self):
        self.process.stdin.close()
        assert self.process.wait(PATIENCE) == 0
        self.process.stdout.close()


def agree(*ends, size=1450):
    """All ends prove this size."""
    begun = [end.proves(size) for end in ends]
    assert [end.outcome(begin) for end, begin in zip(ends, begun)] == [size] * len(ends)


def encode(key, seq, kind=REQUEST, hears=True, stamp=7, padding=0):
    """As daemon/probe.h says it."""
    head = MAGIC + struct.pack("!BBHII", kind, hears, 32 + padding, seq & 0xFFFFFFFF, stamp)
    return head + hmac.digest(bytes.fromhex(key), head, "sha256")[:16] + bytes(padding)


def frame(probe, source=b"\x02\x00\x5e\x10\x00\x09"):
    return GROUP + source + struct.pack("!H", ethercord.ETHERTYPE) + probe


def parse(data):
    """(type, hears, size, seq, stamp) of a frame that is a probe, or None."""
    if len(data) < 46 or data[:6] != GROUP or data[14:18] != MAGIC:
        return None
    kind, flags, size, seq, stamp = struct.unpack("!BBHII", data[18:30])
    return kind, bool(flags & 1), size, seq, stamp
