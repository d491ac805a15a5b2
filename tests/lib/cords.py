# SPDX-License-Identifier: GPL-2.0-or-later
"""Tunnels as a person has them: two daemons that stand by, and `ethercordctl up`. Of these only the
time is taken that it takes until the first frame is back."""

import contextlib
import io
import time

import carriers
import ethercord
import worker
from carriers import DEVICE, INNER, OUTER, mac
from control import KEY

NAME, LISTENER = "cord", "lan"


class Cord(carriers.Carrier):
    """static: both ends are turned on, one after the other. Else the near one dials. bridged: the
    far end is a port of a bridge, which has the address."""

    only = ("start",)

    def __init__(self, what, encapsulation, plane, static=False, bridged=False):
        super().__init__(f"ethercord {what} {encapsulation} {plane}", 1450)
        self.static, self.bridged = static, bridged
        self.settings = {"encapsulation": encapsulation, "data_plane": plane}
        self.lab, self.daemons = None, []

    def missing(self, pair):
        programs = (ethercord.DAEMON, ethercord.CTL, worker.PROGRAM)
        lacking = [p.name for p in programs if not p.exists()]
        return f"there is no {lacking[0]}" if lacking else None

    def start(self, pair):
        self.lab = ethercord.Lab()
        self.daemons = [self.lab.daemon(ns, label) for ns, label in zip(pair.ends, "ab")]
        mode = "join-remote" if self.bridged else "point-to-point"
        near, far = (d.bus.client for d in self.daemons)
        common = {"underlay": "any", "mode": mode, **self.settings}
        if self.static:
            for end, client in enumerate((near, far)):
                client.add(NAME, "", remote=OUTER[1 - end], id=1, interface=DEVICE,
                           mac=mac(end, 2), address=f"{INNER[end]}/24", **common)
        else:
            near.add(NAME, "", control=None, remote=OUTER[1], interface=DEVICE, key=KEY,
                     mac=mac(0, 2), address=f"{INNER[0]}/24", **common)
            peer, more = {"key": KEY}, {}
            if self.bridged:
                ethercord.bridge(pair.ends[1], "br0")
                pair.ends[1].ip("link", "set", "br0", "address", mac(1, 2))
                pair.ends[1].ip("addr", "add", f"{INNER[1]}/24", "dev", "br0")
                more["bridge"] = "br0"
            else:
                peer.update(address=f"{INNER[1]}/24", interface=DEVICE, mac=mac(1, 2))
            far.listen(LISTENER, peers={NAME: peer}, **common, **more)
            ethercord.wait_until(lambda: far.get_listener(LISTENER)["State"] == "up",
                                 "the listener is up")
        begun = time.monotonic()
        for daemon in self.daemons[::-1] if self.static else self.daemons[:1]:
            daemon.ctl("up", "--no-wait", NAME, check=0)
        self.introduce(pair)
        return begun

    def introduce(self, pair):
        """As the others do it: who asks for an address while there is no carrier asks again after a
        second only."""
        for end, ns in enumerate(pair.ends):
            device = "br0" if end and self.bridged else DEVICE
            ethercord.wait_until(lambda d=device, n=ns: n.link(d), f"{device} is made", 20, 0.001)
            ns.ip("neigh", "replace", INNER[1 - end], "lladdr", mac(1 - end, 2), "dev", device)

    def says(self):
        texts = [d.text().strip().splitlines() for d in self.daemons]
        return "; ".join(lines[-1] for lines in texts if lines)

    def stop(self, pair):
        if self.lab:
            for daemon in self.daemons[:1] if not self.static else self.daemons:
                daemon.ctl("remove", NAME)
            if not self.static and len(self.daemons) == 2:
                self.daemons[1].bus.client.on_listener(LISTENER, "Deactivate")
            with contextlib.redirect_stdout(io.StringIO()):  # their logs
                self.lab.close()
            self.lab, self.daemons = None, []
        pair.ends[1].ip("link", "del", "br0", check=False)
        super().stop(pair)


CORDS = (
    Cord("static", "vxlan", "user", static=True),
    Cord("static", "vxlan", "kernel", static=True),
    Cord("negotiated", "vxlan", "user"),
    Cord("negotiated", "vxlan", "kernel"),
    Cord("negotiated", "raw-udp", "user"),
    Cord("bridged", "vxlan", "user", bridged=True),
)
