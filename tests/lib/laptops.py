# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens to cords on their way: firewalls, gaps, and what is told of it."""

import contextlib
import select
import threading
import time

import ethercord
import peer


def crosses(lab, a, interface_a, b, interface_b):
    """Frames, both ways."""
    for ends in ((a, interface_a, b, interface_b), (b, interface_b, a, interface_a)):
        lab.flow(*ends[:3], peer.ear(*ends[2:]), 0.01).start().stop(10)


class Gaps:
    """Frames a few milliseconds apart, from an interface to another; when did none arrive?"""

    def __init__(self, from_ns, from_interface, to_ns, to_interface, interval=0.01):
        self.flow = ethercord.Flow(from_ns, from_interface, to_ns, peer.ear(to_ns, to_interface),
                                   interval)
        self.times, self.running = [], True
        self.flow.start()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self):
        before = 0
        while self.running:
            # For a while only: whether it still runs has to be seen, too.
            select.select([self.flow.receiver], [], [], 0.1)
            now = len(self.flow.drain())
            if now != before:
                self.times.append(time.monotonic())
                before = now

    def longest(self):
        """The longest time without a frame, s, up to now; ends."""
        self.running = False
        self.thread.join()
        times = [*self.times, time.monotonic()]
        self.flow.stop()
        return max(b - a for a, b in zip(times, times[1:]))


class Events:
    """What the daemon tells of a tunnel while something is done."""

    def __init__(self, lab, daemon, name):
        self.signals, self.path = lab.signals(daemon), ethercord.tunnel_path(name)
        self.all = []

    def take(self):
        self.all += [(values[0], values[1]) for p, _, member, values in self.signals.take()
                     if p == self.path and member == "Event"]
        return self.all

    def told(self, *words):
        """Somewhere it says all these words."""
        return any(all(w in f"{kind} {details}" for w in words) for kind, details in self.take())


@contextlib.contextmanager
def rules(namespace, ruleset):
    """nftables rules, for as long."""
    namespace.exec("nft", "-f", "-", input=ruleset)
    try:
        yield
    finally:
        namespace.exec("nft", "flush", "ruleset")


FORWARD = """table inet firewall {{
    chain forward {{ type filter hook forward priority 0; policy accept
        {}
    }}
}}
"""


def firewall(router, *drops):
    """The router drops these."""
    return rules(router, FORWARD.format("\n        ".join(f"{d} drop" for d in drops)))
