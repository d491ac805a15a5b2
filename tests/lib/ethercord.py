# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests share: namespaces, a private bus, the daemon, its client, frames on a wire.

Nothing sleeps for a fixed time: whatever takes time is waited for with a deadline. Whatever is made
is registered with a Lab, which takes it down again in the opposite order, also when a test failed.
"""

import collections
import contextlib
import ctypes
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

import dbus
import dbus.bus
import dbus.mainloop.glib
from gi.repository import GLib

import leftovers
from waiting import PATIENCE, stays, wait_until  # noqa: F401: for all who import this

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("ETHERCORD_BUILD", ROOT / "build")).resolve()
DAEMON = BUILD / "daemon/ethercordd"
FAKE_DAEMON = BUILD / "tests/ethercordd-fake"
CTL = BUILD / "daemon/ctl/ethercordctl"

NAME = "org.ethercord1"
PATH = "/org/ethercord1"
MANAGER, TUNNEL, UNDERLAY = f"{NAME}.Manager", f"{NAME}.Tunnel", f"{NAME}.Underlay"
LISTENER = f"{NAME}.Listener"
ERROR = f"{NAME}.Error."
PROPERTIES = "org.freedesktop.DBus.Properties"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"

ETHERTYPE = 0x88B5  # IEEE 802: local experiments
CLONE_NEWNET = 0x40000000
SO_RCVBUFFORCE = 33
libc = ctypes.CDLL(None, use_errno=True)


def run(*command, check=True, timeout=60, **more):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=timeout, check=False, **more)
    assert not check or done.returncode == 0, \
        f"{' '.join(map(str, command))}: {done.returncode}: {done.stdout}{done.stderr}"
    return done


def lasting(link):
    """Without what changes by itself: clocks."""
    return {k: lasting(v) if isinstance(v, dict) else v for k, v in link.items()
            if not k.endswith("_timer")}


PASSING = {"operstate", "flags", "state", "topology_change", "topology_change_detected",
           "tso_max_size", "tso_max_segs", "root_port",
           "root_path_cost", "designated_cost", "topology_change_ack", "config_pending"}


def configured(link):
    """What a person could have set: without carrier and the state of ports, which follow later."""
    result = {k: configured(v) if isinstance(v, dict) else v for k, v in lasting(link).items()
              if k not in PASSING}
    if "flags" in link:
        result["up"] = "UP" in link["flags"]
    return result


class Namespace:
    """A network namespace; gone with close()."""

    serial = itertools.count()

    def __init__(self, label, ipv6=False, hosts=None, resolver=None):
        self.name = f"ect-{os.getpid()}-{next(self.serial)}-{label}"
        self.etc = pathlib.Path("/etc/netns") / self.name
        for file, text in (("hosts", hosts), ("resolv.conf", resolver)):
            if text is not None:
                self.etc.mkdir(parents=True, exist_ok=True)
                (self.etc / file).write_text(text)
        run("ip", "netns", "add", self.name)
        if not ipv6:
            with self.entered():
                for which in ("all", "default"):
                    file = f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6"
                    if os.path.exists(file):
                        pathlib.Path(file).write_text("1")
        self.ip("link", "set", "lo", "up")

    def close(self):
        leftovers.end_workers(self.name)
        run("ip", "netns", "del", self.name, check=False)
        shutil.rmtree(self.etc, ignore_errors=True)

    def ip(self, *words, check=True):
        return run("ip", "-n", self.name, *words, check=check)

    def ips(self, text):
        """Several commands of ip(8), one a line."""
        run("ip", "-n", self.name, "-batch", "-", input=text)

    def exec(self, *command, check=True, **more):
        return run("ip", "netns", "exec", self.name, *command, check=check, **more)

    def popen(self, *command, **more):
        return subprocess.Popen(["ip", "netns", "exec", self.name, *map(str, command)], **more)

    @contextlib.contextmanager
    def entered(self):
        """This thread is in the namespace; sockets made meanwhile stay there."""
        with open("/proc/thread-self/ns/net", "rb") as back, \
                open(f"/run/netns/{self.name}", "rb") as there:
            assert libc.setns(there.fileno(), CLONE_NEWNET) == 0
            try:
                yield
            finally:
                assert libc.setns(back.fileno(), CLONE_NEWNET) == 0

    def links(self, *more):
        """The kernel's links by name."""
        listed = json.loads(self.ip("-d", "-j", "link", "show", *more).stdout or "[]")
        return {link["ifname"]: lasting(link) for link in listed if link}

    def link(self, name):
        done = self.ip("-d", "-j", "link", "show", "dev", name, check=False)
        return lasting(json.loads(done.stdout)[0]) if done.returncode == 0 else None

    def link_statistics(self, name):
        return json.loads(self.ip("-s", "-j", "link", "show", "dev", name).stdout)[0]["stats64"]

    def ifindex(self, name):
        link = self.link(name)
        return link["ifindex"] if link else 0

    def master(self, name):
        link = self.link(name)
        return link.get("master") if link else None

    def is_up(self, name):
        link = self.link(name)
        return bool(link) and "UP" in link["flags"]

    def settled_links(self):
        """links() once what the daemon tries the kernel with is gone by itself, a round later."""
        return wait_until(lambda: (links := self.links()) and not
                          [n for n in links if n.startswith("ec-try-")] and links, "it is gone")

    def dump(self, *ours):
        """All that a person could have configured, but for the interfaces named."""
        links = [configured(link) for n, link in self.settled_links().items() if n not in ours]
        addresses = {a["ifname"]: a["addr_info"]
                     for a in json.loads(self.ip("-j", "addr", "show").stdout)
                     if a["ifname"] not in ours}
        routes = {v: [r for r in json.loads(self.ip(v, "-j", "route", "show", "table", "all")
                                            .stdout or "[]") if r.get("dev") not in ours]
                  for v in ("-4", "-6")}
        return {"links": links, "addresses": addresses, "routes": routes}


def remove_stale_namespaces():
    """Those of a run that was killed."""
    directory = pathlib.Path("/run/netns")
    for entry in directory.glob("ect-*") if directory.exists() else ():
        pid = entry.name.split("-")[1]
        if not os.path.exists(f"/proc/{pid}"):
            run("ip", "netns", "del", entry.name, check=False)
            shutil.rmtree(f"/etc/netns/{entry.name}", ignore_errors=True)


# Bus

BUS_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={directory}/bus</listen>
  <servicedir>{directory}/services</servicedir>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
  </policy>
  <limit name="reply_timeout">300000</limit>
  {more}
</busconfig>
"""


class Bus:
    """A dbus-daemon of one's own."""

    def __init__(self, directory, more=""):
        self.directory = directory
        (directory / "services").mkdir(exist_ok=True)
        config = directory / "bus.conf"
        config.write_text(BUS_CONFIG.format(directory=directory, more=more))
        self.address = f"unix:path={directory}/bus"
        self.process = subprocess.Popen(
            ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile", "--nosyslog"],
            env=dict(os.environ, DBUS_SYSTEM_BUS_ADDRESS=self.address))
        try:
            self.client = wait_until(self.connect, "dbus-daemon listens")
        except AssertionError:
            self.process.kill()
            raise

    def connect(self):
        try:
            return Client(self.address)
        except dbus.DBusException:
            return None

    def close(self):
        self.client.close()
        self.process.terminate()
        self.process.wait()

    def has(self, name=NAME):
        return bool(self.client.connection.name_has_owner(name))

    def environment(self):
        return dict(os.environ, DBUS_SYSTEM_BUS_ADDRESS=self.address, G_DEBUG="fatal-criticals",
                    LC_ALL="C.UTF-8")


TYPES = collections.defaultdict(lambda: str, {
    "remote": lambda v: dbus.Array([v] if isinstance(v, str) else v, "s"),
    "port": dbus.UInt16, "data-port": dbus.UInt16, "remote-data-port": dbus.UInt16,
    "bridge-create": dbus.Boolean, "link-loss-forwarding": dbus.Boolean,
    "autostart": dbus.Boolean, "roam": dbus.Boolean})
for _key in ("encapsulation", "address", "guard", "allow", "compat"):
    TYPES[_key] = TYPES["remote"]
for _key in ("id", "mtu", "storm-limit", "keepalive-interval", "keepalive-timeout", "ttl", "dscp",
             "fwmark", "max-peers"):
    TYPES[_key] = dbus.UInt32


def typed(settings):
    """a{sv} of Python values; '_' in a key stands for '-'. D-Bus values stay as they are."""
    result = dbus.Dictionary(signature="sv")
    for key, value in settings.items():
        key = key.replace("_", "-")
        made = hasattr(value, "variant_level") or value == ""
        result[key] = value if made else TYPES[key](value)
    return result


def plain(value):
    """The same without D-Bus types."""
    if isinstance(value, dbus.Dictionary):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (dbus.Array, dbus.Struct)):
        return [plain(v) for v in value]
    if isinstance(value, dbus.Boolean):
        return bool(value)
    if isinstance(value, (str, int, float)):
        return str(value) if isinstance(value, str) else type(value).__mro__[-2](value)
    return value


def encode(name):
    """As sd_bus_path_encode(3)."""
    if not name:
        return "_"
    good = re.compile(rb"[A-Za-z]|(?<!^)[0-9]")
    raw = name.encode()
    return "".join(chr(b) if good.match(raw, i) else f"_{b:02x}" for i, b in enumerate(raw))


def tunnel_path(name):
    return f"{PATH}/tunnel/{encode(name)}"


def listener_path(name):
    return f"{PATH}/listener/{encode(name)}"


class Client:
    """A connection to the bus, and the daemon seen through it."""

    def __init__(self, address, mainloop=None):
        self.connection = dbus.bus.BusConnection(address, mainloop=mainloop)
        self.connection.set_exit_on_disconnect(False)

    def close(self):
        self.connection.close()

    def call(self, path, interface, member, signature="", *values, timeout=15):
        return plain(self.connection.call_blocking(NAME, path, interface, member, signature,
                                                   values, timeout))

    def add(self, name, flags="activate", **settings):
        full = {"control": "static", "underlay": "any", "encapsulation": "vxlan", **settings}
        full = {k: v for k, v in full.items() if v is not None}
        return self.call(PATH, MANAGER, "AddTunnel", "a{sv}s", typed({"name": name, **full}), flags)

    def on(self, name, member, signature="", *values):
        return self.call(tunnel_path(name), TUNNEL, member, signature, *values)

    def update(self, tunnel, **settings):
        return self.on(tunnel, "Update", "a{sv}", typed(settings))

    def get(self, name):
        """All properties of a tunnel."""
        return self.call(tunnel_path(name), PROPERTIES, "GetAll", "s", TUNNEL)

    def state(self, name):
        return self.get(name)["State"]

    def listen(self, name, flags="activate", peers=None, **settings):
        full = {"underlay": "any", **settings}
        full = {k: v for k, v in full.items() if v is not None}
        peers = dbus.Dictionary({k: typed(v) for k, v in (peers or {}).items()},
                                signature="sa{sv}")
        return self.call(PATH, MANAGER, "AddListener", "a{sv}a{sa{sv}}s",
                         typed({"name": name, **full}), peers, flags)

    def on_listener(self, name, member, signature="", *values):
        return self.call(listener_path(name), LISTENER, member, signature, *values)

    def set_peer(self, listener, peer, **settings):
        return self.on_listener(listener, "SetPeer", "sa{sv}", peer, typed(settings))

    def get_listener(self, name):
        """All properties of a listener."""
        return self.call(listener_path(name), PROPERTIES, "GetAll", "s", LISTENER)

    def listeners(self):
        return sorted(o[LISTENER]["Name"] for o in self.objects().values() if LISTENER in o)

    def objects(self):
        return self.call(PATH, OBJECT_MANAGER, "GetManagedObjects")

    def tunnels(self):
        return sorted(o[TUNNEL]["Name"] for o in self.objects().values() if TUNNEL in o)

    def wait_state(self, name, state, timeout=PATIENCE):
        seen = []

        def reached():
            seen[:] = [self.get(name)]
            return seen[0]["State"] == state
        try:
            wait_until(reached, "", timeout)
        except AssertionError:
            raise AssertionError(f"{name} is not {state} but {seen[0]['State']}: "
                                 f"{seen[0]['StateReason']}") from None
        return seen[0]


@contextlib.contextmanager
def refused(name, *words):
    """The body fails with this error of ours, in one clean sentence that holds the words."""
    try:
        yield
    except dbus.DBusException as e:
        message = e.get_dbus_message()
        assert e.get_dbus_name() == ERROR + name, f"{e.get_dbus_name()}: {message}"
        assert message and "\n" not in message and message.isprintable(), repr(message)
        for word in words:
            assert word in message, f"'{word}' is not in: {message}"
        return
    raise AssertionError(f"no error; {ERROR}{name} was due")


def iterate():
    """Dispatches what has come to connections with a main loop."""
    while GLib.MainContext.default().iteration(False):
        pass
    return True


class Signals:
    """Records the daemon's signals, in order: (path, interface, member, values)."""

    def __init__(self, address):
        self.client = Client(address, dbus.mainloop.glib.DBusGMainLoop())
        self.seen = []
        self.client.connection.add_match_string(f"type='signal',sender='{NAME}'")
        self.client.connection.add_message_filter(self.on_message)

    def on_message(self, connection, message):
        if message.get_type() == 4 and message.get_interface() != "org.freedesktop.DBus":
            self.seen.append((message.get_path(), message.get_interface(), message.get_member(),
                              plain(dbus.Array(message.get_args_list(), "v"))))
        return 1  # DBUS_HANDLER_RESULT_NOT_YET_HANDLED

    def settle(self):
        """Takes in what the daemon sent before it answers this."""
        self.client.connection.call_blocking(NAME, PATH, "org.freedesktop.DBus.Peer", "Ping", "",
                                             ())
        iterate()
        return self

    def take(self):
        self.settle()
        seen, self.seen = self.seen, []
        return seen

    def changes(self, path):
        """PropertiesChanged of one object taken off the record: a list of dictionaries."""
        return [values[1] for p, i, m, values in self.take()
                if p == path and i == PROPERTIES and m == "PropertiesChanged"]

    def close(self):
        self.client.close()


# Daemon

class Daemon:
    def __init__(self, namespace, bus, directory, program=None, environment=None, wrapper=(),
                 foreground=True):
        self.namespace, self.bus, self.directory = namespace, bus, directory
        self.program = program or DAEMON
        self.extra = environment or {}
        self.wrapper, self.foreground = wrapper, foreground
        self.config, self.state, self.runtime = (directory / d for d in ("etc", "var", "run"))
        self.tunnels = self.config / "tunnels.d"
        self.log = directory / "log"
        self.process = None
        directory.mkdir(exist_ok=True)
        self.tunnels.mkdir(parents=True, exist_ok=True)

    def arguments(self):
        return [str(self.program), "--config-dir", str(self.config), "--state-dir",
                str(self.state), "--runtime-dir", str(self.runtime)] + \
            (["--foreground"] if self.foreground else [])

    def launch(self, wrapper=None):
        with open(self.log, "ab") as log:
            self.process = self.namespace.popen(
                *(self.wrapper if wrapper is None else wrapper), *self.arguments(), stdout=log,
                stderr=log, env=dict(self.bus.environment(), **self.extra))
        return self

    def start(self, wrapper=None):
        self.launch(wrapper)
        wait_until(lambda: self.bus.has() or self.process.poll() is not None,
                   "the daemon has its name", 30)
        assert self.process.poll() is None, f"the daemon did not start: {self.text()}"
        return self

    @property
    def pid(self):
        return self.process.pid

    def text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def kill(self):
        """As a crash."""
        self.process.kill()
        self.process.wait()
        wait_until(lambda: not self.bus.has(), "the bus sees the daemon gone")

    def stop(self):
        self.process.terminate()
        code = self.process.wait(30)
        assert code == 0, f"the daemon ended with {code}: {self.text()[-4000:]}"
        wait_until(lambda: not self.bus.has(), "the bus sees the daemon gone")

    def restart(self):
        self.stop()
        return self.start()

    def close(self):
        code = 0
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                code = self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                code = "nothing in 20 s"
        print(f"--- log of {self.directory.name}\n{self.text()}")
        assert code == 0, f"asked to end, the daemon gave {code}"
        bad = re.search(r"AddressSanitizer|runtime error:|LeakSanitizer|CRITICAL|Assertion",
                        self.text())
        assert not bad, f"the daemon's log: {self.text()[bad.start():][:3000]}"

    def ctl(self, *words, check=None, timeout=60, **more):
        """ethercordctl; check: the exit status it must have."""
        env = dict(self.bus.environment(), **more.pop("env", {}))
        done = run(CTL, *words, check=False, env=env, timeout=timeout, **more)
        assert check is None or done.returncode == check, \
            f"ethercordctl {' '.join(map(str, words))}: {done.returncode}, not {check}: " \
            f"{done.stdout}{done.stderr}"
        return done

    def keyfile(self, name, text=None, **settings):
        full = {"control": "static", "underlay": "any", "encapsulation": "vxlan", **settings}
        body = "".join(f"{k.replace('_', '-')}={v}\n" for k, v in full.items())
        path = self.tunnels / f"{name}.conf"
        path.write_text(f"[tunnel]\n{body}" if text is None else text)
        return path


# Frames

def frame_socket(namespace, interface, ethertype=ETHERTYPE):
    with namespace.entered():
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        s.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        s.bind((interface, ethertype))
    return s


class Capture:
    """Frames seen at an interface, both directions; ethertype 3 is all."""

    OUTGOING = 4

    def __init__(self, namespace, interface, ethertype=3, outgoing_only=False):
        self.socket = frame_socket(namespace, interface, socket.htons(3) if ethertype == 3
                                   else ethertype)
        if ethertype == 3:
            self.socket.bind((interface, 3))
        self.outgoing_only = outgoing_only
        self.frames = []

    def take(self):
        """All so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, address = self.socket.recvfrom(70000, socket.MSG_DONTWAIT)
                if not self.outgoing_only or address[2] == self.OUTGOING:
                    self.frames.append(frame)
        return self.frames

    def clear(self):
        self.take()
        self.frames = []

    def close(self):
        self.socket.close()


def ipv4(frame):
    """(source, destination, protocol, more fragments or offset, payload) of an IPv4 frame."""
    if len(frame) < 34 or frame[12:14] != b"\x08\x00":
        return None
    header = (frame[14] & 15) * 4
    fragment = struct.unpack("!H", frame[20:22])[0] & 0x3FFF
    return (socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34]), frame[23], fragment,
            frame[14 + header:])


class Flow:
    """Numbered frames, one a millisecond, from an interface to another one somewhere else.

    stop() tells which were lost. The first frame only counts once one has arrived."""

    def __init__(self, from_ns, from_interface, to_ns, to_interface, interval=0.001):
        self.names = (from_ns, from_interface)
        self.sender = frame_socket(from_ns, from_interface)
        self.receiver = frame_socket(to_ns, to_interface)
        self.interval = interval
        self.sent, self.failures, self.running = 0, 0, True
        self.seen = set()
        self.thread = threading.Thread(target=self.send_all, daemon=True)

    def frame(self, number):
        return b"\xff" * 6 + b"\x02\x00\x5e\x10\x00\x01" + struct.pack("!HI", ETHERTYPE, number) + \
            bytes(60)

    def send(self, number):
        try:
            self.sender.send(self.frame(number))
        except OSError:
            self.failures += 1

    def send_all(self):
        due = time.monotonic()
        while self.running:
            self.send(self.sent)
            self.sent += 1
            # Who was late sends no more at once than an interface's queue takes.
            due = max(due + self.interval, time.monotonic() - 0.1)
            time.sleep(max(0, due - time.monotonic()))

    def drain(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                frame = self.receiver.recv(2048, socket.MSG_DONTWAIT)
                if len(frame) >= 18 and frame[12:14] == struct.pack("!H", ETHERTYPE):
                    self.seen.add(struct.unpack("!I", frame[14:18])[0])
        return self.seen

    def start(self):
        probe = 0xFFFFFFFF

        def arrived():
            self.send(probe)
            return probe in self.drain()
        wait_until(arrived, f"a frame crosses from {self.names[1]}", interval=0.02)
        self.failures = 0
        self.thread.start()
        self.wait_sent(20)
        return self

    def wait_sent(self, number):
        wait_until(lambda: self.sent >= number, f"{number} frames are sent", 60)

    def stop(self, at_least=0):
        """The numbers of the lost ones."""
        self.wait_sent(at_least)
        self.running = False
        self.thread.join()
        last = self.sent - 1
        with contextlib.suppress(AssertionError):
            # Whoever carries them may wait for a processor. Or the path is cut: not for long.
            wait_until(lambda: last in self.drain(), "the last arrives", 3)
            # Not what else is of that type, such as the daemon's probes.
            wait_until(lambda: sum(n <= last for n in self.drain()) > last, "all arrive", 0.5)
        self.close()
        return [n for n in range(self.sent) if n not in self.seen]

    def close(self):
        self.running = False
        self.sender.close()
        self.receiver.close()


# Topology

class Lab:
    """Everything a test makes, and its end."""

    def __init__(self):
        self.stack = contextlib.ExitStack()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="ect-"))
        self.directory.chmod(0o755)
        self.stack.callback(shutil.rmtree, self.directory, ignore_errors=True)

    def close(self):
        self.stack.close()

    def keep(self, thing):
        self.stack.callback(thing.close)
        return thing

    def namespace(self, label, **more):
        return self.keep(Namespace(label, **more))

    def bus(self, label="bus", more=""):
        directory = self.directory / label
        directory.mkdir()
        directory.chmod(0o755)
        return self.keep(Bus(directory, more))

    def daemon(self, namespace, label="daemon", bus=None, start=True, **more):
        d = Daemon(namespace, bus or self.bus(f"bus-{label}"), self.directory / label, **more)
        self.keep(d)
        return d.start() if start else d

    def signals(self, daemon):
        return self.keep(Signals(daemon.bus.address))

    def flow(self, *ends):
        flow = Flow(*ends)
        self.stack.callback(flow.close)
        return flow

    def capture(self, *where, **how):
        return self.keep(Capture(*where, **how))

    def popen(self, *command, **more):
        process = subprocess.Popen([str(w) for w in command], **more)
        self.stack.callback(end_process, process)
        return process

    def host(self, namespace, bridge, address, label="host"):
        """A host behind a bridge, in a namespace of its own, which does its own segmentation."""
        host = self.namespace(label)
        port = f"p-{label}"[:15]
        namespace.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns",
                     host.name)
        namespace.ip("link", "set", port, "master", bridge, "up")
        host.ip("addr", "add", address, "dev", "eth0")
        host.ip("link", "set", "eth0", "up")
        no_offloads(host, "eth0")
        no_offloads(namespace, port)
        return host


def end_process(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            stream.close()


def no_offloads(namespace, interface):
    namespace.exec("ethtool", "-K", interface, "tso", "off", "gso", "off", "gro", "off", "tx",
                   "off")


def wire(a, b, name_a="wire", name_b="wire", address_a="10.77.0.1/24", address_b="10.77.0.2/24"):
    """A cable between two namespaces."""
    a.ip("link", "add", name_a, "type", "veth", "peer", "name", name_b, "netns", b.name)
    for ns, name, address in ((a, name_a, address_a), (b, name_b, address_b)):
        if address:
            ns.ip("addr", "add", address, "dev", name)
        ns.ip("link", "set", name, "up")
        no_offloads(ns, name)


NEAR, FAR = "10.77.0.1", "10.77.0.2"


def far_vxlan(namespace, name="far", vni=1, local=FAR, remote=NEAR, mtu=None, address=None,
              bridge=None, port=4789, more=()):
    """The far end that is no ethercord."""
    namespace.ip("link", "add", name, "type", "vxlan", "id", vni, "local", local, "remote", remote,
                 "dstport", port, "nolearning", *more)
    if mtu:
        namespace.ip("link", "set", name, "mtu", mtu)
    if address:
        namespace.ip("addr", "add", address, "dev", name)
    if bridge:
        namespace.ip("link", "set", name, "master", bridge)
    namespace.ip("link", "set", name, "up")


def bridge(namespace, name="br0", mtu=None):
    namespace.ip("link", "add", name, "type", "bridge")
    if mtu:
        namespace.ip("link", "set", name, "mtu", mtu)
    namespace.ip("link", "set", name, "up")


class Sites:
    """A daemon at `near`; at `far` nothing yet. A wire between them."""

    def __init__(self, lab, start=True, **more):
        self.lab = lab
        options = {k: more.pop(k) for k in ("ipv6", "hosts", "resolver") if k in more}
        self.near, self.far = lab.namespace("near", **options), lab.namespace("far")
        wire(self.near, self.far)
        self.daemon = lab.daemon(self.near, start=start, **more)
        self.bus = self.daemon.bus
        self.client = self.bus.client

    def tunnel(self, name="t1", vni=1, **settings):
        """A point-to-point tunnel that works, with a far end that is no ethercord."""
        far_vxlan(self.far, f"far-{name}", vni, mtu=1450)
        self.client.add(name, remote=FAR, id=vni, **settings)
        return f"ec-{name}"

    def flow(self, name="t1"):
        return self.lab.flow(self.near, f"ec-{name}", self.far, f"far-{name}").start()


def ping(namespace, address, count=1, size=None, df=False, timeout=5, interval="0.05", check=True):
    """Answers or, without check, the exit status 0."""
    words = ["ping", "-n", "-q", "-c", count, "-i", interval, "-w", timeout]
    if size is not None:
        words += ["-s", size]
    if df is not None:
        words += ["-M", "do" if df else "dont"]
    return namespace.exec(*words, address, check=check).returncode == 0


def sanitized():
    """Is the build one with AddressSanitizer?"""
    return b"__asan_init" in DAEMON.read_bytes()


sys.setswitchinterval(0.001)
