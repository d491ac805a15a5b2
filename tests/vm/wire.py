# SPDX-License-Identifier: GPL-2.0-or-later
"""Two sites on one wire: ethercordd here, plain `ip link` there.

    lan --- br0 --- [ near: ethercordd ] --- wire --- [ far: ip link ]
            (bridged modes only)         10.9.0.2    10.9.0.1
                                         fd00:9::2   fd00:9::1

Everything that waits, waits for a condition with a deadline.
"""

import ctypes
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import waiting

BUILD = pathlib.Path(os.environ.get("ETHERCORD_BUILD",
                                    pathlib.Path(__file__).resolve().parents[2] / "build"))
NEAR, FAR = {4: "10.9.0.2", 6: "fd00:9::2"}, {4: "10.9.0.1", 6: "fd00:9::1"}
DEADLINE = 30
UINT16 = {"port", "data-port", "remote-data-port"}


def run(*command, check=True, timeout=120):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=timeout, check=False)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}"
    return done


def wait_for(condition, what, deadline=DEADLINE):
    """The first true answer of condition()."""
    return waiting.wait_until(condition, what, deadline, 0.02)


class Site:
    """A network namespace."""

    def __init__(self, name):
        self.name = name
        run("ip", "netns", "add", name)
        self.ip("link", "set", "lo", "up")

    def run(self, *command, **kw):
        return run("ip", "netns", "exec", self.name, *command, **kw)

    def ip(self, *arguments, **kw):
        return run("ip", "-n", self.name, *arguments, **kw)

    def popen(self, *command, **kw):
        return subprocess.Popen(["ip", "netns", "exec", self.name, *command], **kw)

    def inside(self, function):
        """What function() returns when it runs in this namespace: a socket stays there."""
        answer = []

        def body():
            libc = ctypes.CDLL(None, use_errno=True)
            with open(f"/run/netns/{self.name}", "rb") as ns:
                assert libc.setns(ns.fileno(), 0) == 0, os.strerror(ctypes.get_errno())
            answer.append(function())

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        assert answer, f"failed in {self.name}"
        return answer[0]

    def packet_socket(self, interface):
        def make():
            s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            s.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
            s.bind((interface, 3))
            return s
        return self.inside(make)

    def ping(self, address, *options):
        return self.run("ping", "-n", "-c", "1", "-W", "5", *options, address, check=False)

    def wait_ping(self, address, *options):
        wait_for(lambda: self.ping(address, *options).returncode == 0,
                 f"{self.name}: ping {' '.join(options)} {address}")

    def fou_ports(self):
        """(family, port, protocol) of each FOU port that is open."""
        shown = self.run("ip", "fou", "show", check=False).stdout
        return {(6 if "-6" in line.split() else 4, *map(int, found.groups()))
                for line in shown.splitlines()
                if (found := re.search(r"port (\d+) ipproto (\d+)", line))}

    def remove(self):
        # A worker outlives its daemon on purpose.
        self.run("pkill", "-KILL", "-x", "ethercord-worke", check=False)
        run("ip", "netns", "del", self.name, check=False)


class Capture:
    """What arrives at one interface from now on, as bytes from the outer IP header on."""

    def __init__(self, site, interface):
        self.socket = site.packet_socket(interface)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def packets(self, deadline=DEADLINE):
        end = time.monotonic() + deadline
        while time.monotonic() < end:
            self.socket.settimeout(max(end - time.monotonic(), 0.001))
            try:
                frame, address = self.socket.recvfrom(65536)
            except socket.timeout:
                return
            if address[2] != socket.PACKET_OUTGOING:
                yield frame[14:]

    def first(self, wanted, what):
        for packet in self.packets():
            if wanted(packet):
                return packet
        raise AssertionError(f"{what} was not seen on the wire")


class Daemon:
    """ethercordd in a namespace, on a bus of its own."""

    def __init__(self, site, directory):
        self.site, self.directory = site, pathlib.Path(directory)
        self.address = f"unix:path={self.directory}/bus"
        config = self.directory / "bus.conf"
        config.write_text(f"""<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>{self.address}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/>
<allow eavesdrop="true"/></policy>
</busconfig>""")
        self.bus = subprocess.Popen(["dbus-daemon", f"--config-file={config}", "--nofork"])
        wait_for((self.directory / "bus").exists, "the bus")
        self.process = None
        self.start()

    def start(self):
        d = self.directory
        with open(d / "log", "ab") as log:
            self.process = self.site.popen(
                str(BUILD / "daemon" / "ethercordd"), "--config-dir", str(d / "etc"),
                "--state-dir", str(d / "state"), "--runtime-dir", str(d / "run"), "--foreground",
                env=dict(os.environ, DBUS_SYSTEM_BUS_ADDRESS=self.address), stderr=log)
        wait_for(lambda: self.busctl("get-property", "org.ethercord1", "/org/ethercord1",
                                     "org.ethercord1.Manager", "Version",
                                     check=False).returncode == 0, "the daemon")

    def kill(self):
        """As a crash does."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        assert self.process.wait(DEADLINE) == 0
        self.bus.terminate()
        self.bus.wait()

    def busctl(self, *arguments, **kw):
        return run("busctl", f"--address={self.address}", "--json=short", *arguments, **kw)

    def call(self, path, interface, method, *arguments, **kw):
        done = self.busctl("call", "org.ethercord1", path, f"org.ethercord1.{interface}", method,
                           *arguments, **kw)
        return done if not kw.get("check", True) else json.loads(done.stdout or "null")

    @staticmethod
    def dictionary(settings):
        words = [str(len(settings))]
        for key, value in settings.items():
            if isinstance(value, bool):
                words += [key, "b", str(value).lower()]
            elif isinstance(value, (list, tuple)):
                words += [key, "as", str(len(value)), *value]
            elif isinstance(value, int):
                words += [key, "q" if key in UINT16 else "u", str(value)]
            else:
                words += [key, "s", value]
        return words

    def add(self, name, check=True, flags="activate", **settings):
        """A static tunnel over the bare wire, activated. Underscores stand for hyphens."""
        whole = {"name": name, "control": "static", "underlay": "any", "remote": [FAR[4]]}
        whole.update({key.replace("_", "-"): value for key, value in settings.items()})
        added = self.call("/org/ethercord1", "Manager", "AddTunnel", "a{sv}s",
                          *self.dictionary(whole), flags, check=check)
        if not check:
            return added
        tunnel = Tunnel(self, name)
        tunnel.wait_state("up")
        return tunnel

    def log(self):
        return (self.directory / "log").read_text()


class Tunnel:
    def __init__(self, daemon, name):
        self.daemon, self.name = daemon, name
        self.path = f"/org/ethercord1/tunnel/{name}"

    def get(self, name):
        done = self.daemon.busctl("get-property", "org.ethercord1", self.path,
                                  "org.ethercord1.Tunnel", name)
        return json.loads(done.stdout)["data"]

    def wait_state(self, state):
        def reached():
            seen = self.get("State")
            assert seen == state or seen != "failed", self.get("StateReason")
            return seen == state
        wait_for(reached, f"{self.name} {state}")

    def call(self, method, *arguments):
        return self.daemon.call(self.path, "Tunnel", method, *arguments)

    def update(self, **settings):
        self.call("Update", "a{sv}", *self.daemon.dictionary(
            {key.replace("_", "-"): value for key, value in settings.items()}))

    def interface(self):
        return self.get("Interface")

    def remove(self):
        self.call("Remove")


def why_not_here():
    """Why these tests cannot run on this machine, or None."""
    if os.geteuid() != 0:
        return "needs root"
    for program in ("ip", "busctl", "dbus-daemon", "ping", "ethtool", "iperf3"):
        if not shutil.which(program):
            return f"needs {program}"
    if not (BUILD / "daemon" / "ethercordd").exists():
        return f"no ethercordd in {BUILD} (set ETHERCORD_BUILD)"
    probe = Site("probe")
    try:
        if probe.ip("link", "add", "g0", "type", "gretap", "remote", "192.0.2.1",
                    check=False).returncode:
            return "this kernel has no GRE: run it with tests/vm/run-vm"
    finally:
        probe.remove()
    return None
