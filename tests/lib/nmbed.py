# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine with NetworkManager: its network, processes, /run and system bus are its own.

    near: eth0 (10.9.0.1) --- ub (10.9.0.2): far

On the bus are the policies that are shipped, ethercordd is started by it, and NetworkManager starts
the VPN service, all of the build. What goes to the journal is kept with its fields. There is no
udev, no systemd and no polkit.
"""

import contextlib
import hashlib
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
import uuid

import ethercord
from control import KEY
from ethercord import end_process, run, wait_until

NM = "org.freedesktop.NetworkManager"
SERVICE = f"{NM}.ethercord"
PROGRAM = "nm-ethercord-service"
NEAR, FAR = "10.9.0.1", "10.9.0.2"
VPN_DIRECTORY = pathlib.Path("/usr/lib/NetworkManager/VPN")
POLICIES = pathlib.Path("/usr/share/dbus-1/system.d")
QUICK = 5  # s in which a failure has to be seen

CONFIG = """[main]
plugins=keyfile
dns=none
rc-manager=unmanaged
auth-polkit=root-only
{main}
[logging]
level=INFO
[connectivity]
enabled=false
[keyfile]
{keyfile}
"""

# NetworkManager takes a read-only /sys for a container's and then does without udev. The shell
# stays as the first process and reaps what others leave.
INSIDE = """set -e
mount --make-rprivate /
umount -l /sys || true
mount -t sysfs -o ro sysfs /sys
mount -t tmpfs tmpfs /run
mkdir -p /run/dbus /run/NetworkManager /run/lock /run/systemd/journal
ln -s "$1/bus" /run/dbus/system_bus_socket
ln -s "$1/journal" /run/systemd/journal/socket
mount --bind "$1/etc" /etc/NetworkManager
mount --bind "$1/var" /var/lib/NetworkManager
mount --bind "$1/vpn" /usr/lib/NetworkManager/VPN
echo ready
read -r _ || true
"""


# What is addressed to the inside of a cord or VPN is not answered by the wire: an answer proves that
# it crossed where it should.
BARE = """table inet bare {
    chain input {
        type filter hook input priority -400; policy accept
        iifname "ub" ip daddr != { 10.9.0.0/16, 224.0.0.0/4, 255.255.255.255 } drop
        iifname "ub" ip6 daddr { fd77::/16, fd99::/16 } drop
    }
}
"""


def built(name):
    """The one file of that name that the build, or else the tree, has of the plugin."""
    for top in (ethercord.BUILD, ethercord.ROOT):
        found = sorted((top / "nm-plugin").rglob(name))
        if found:
            return found[0]
    return None


def without(text, *keys):
    return "".join(line for line in text.splitlines(True) if line.split("=")[0] not in keys)


class Journal:
    """What programs send to journald, as dictionaries of fields."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.entries = []
        threading.Thread(target=self.receive, daemon=True).start()

    def receive(self):
        # Whoever logs waits for its place here, so take it at once.
        with contextlib.suppress(OSError):
            while True:
                self.entries.append(self.parse(self.socket.recv(1 << 18)))

    @staticmethod
    def parse(data):
        fields = {}
        while data:
            line, _, data = data.partition(b"\n")
            key, equals, value = line.partition(b"=")
            if not equals:
                size = struct.unpack("<Q", data[:8])[0]
                value, data = data[8:8 + size], data[9 + size:]
            fields[key.decode()] = value.decode(errors="replace")
        return fields

    def of(self, connection):
        """The sentences that nmcli's hint leads to."""
        return [e["MESSAGE"] for e in self.entries.copy() if e.get("NM_CONNECTION") == connection]

    def text(self):
        shown = ("MESSAGE", "NM_CONNECTION", "SYSLOG_IDENTIFIER")
        return "\n".join(" ".join(f"{k}={e[k]}" for k in shown if k in e)
                         for e in self.entries.copy()
                         if e.get("SYSLOG_IDENTIFIER") != "NetworkManager")

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


class Room(ethercord.Namespace):
    """A network namespace with processes and mounts of its own."""

    def __init__(self, label, directory):
        super().__init__(label, ipv6=True)
        self.environment = dict(os.environ, LC_ALL="C.UTF-8", G_DEBUG="fatal-criticals",
                                DBUS_SYSTEM_BUS_ADDRESS=f"unix:path={directory}/bus")
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", self.name, "unshare", "--mount", "--pid", "--fork",
             "--kill-child", "--mount-proc", "bash", "-c", INSIDE, "room", str(directory)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.process.stdout.readline() == b"ready\n"
        pid = self.process.pid
        self.first = int(pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text())
        self.inside = os.readlink(f"/proc/{self.first}/ns/pid")
        self.enter = ["nsenter", f"--target={self.first}", "--net", "--mount", "--pid"]

    def exec(self, *command, check=True, **more):
        return run(*self.enter, *command, check=check, **{"env": self.environment, **more})

    def popen(self, *command, **more):
        return subprocess.Popen([*self.enter, *map(str, command)],
                                **{"env": self.environment, **more})

    def processes(self, *names):
        """{pid outside: command line} of programs inside, without what is dead already."""
        result = {}
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(entry / "ns/pid") != self.inside:
                    continue
                words = (entry / "cmdline").read_bytes().split(b"\0")
                program = os.path.basename(os.readlink(entry / "exe").removesuffix(" (deleted)"))
                if not names or program in names:
                    result[int(entry.name)] = b" ".join(words).decode(errors="replace").strip()
        return result

    def signal(self, name, number=signal.SIGTERM, wait=True):
        """To all processes of that program."""
        pids = list(self.processes(name))
        assert pids, f"no {name} runs"
        for pid in pids:
            os.kill(pid, number)
        if wait:
            wait_until(lambda: not set(pids) & set(self.processes(name)), f"{name} ends", 20)

    def close(self):
        # The first process takes all others with it.
        self.process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.first, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        super().close()


class SystemBus(ethercord.Bus):
    """As Debian configures it, with the policies that are shipped. Its user is root."""

    def __init__(self, room, directory):
        self.directory = directory
        for name in ("services", "policies"):
            (directory / name).mkdir()
        for file in [*POLICIES.glob("*NetworkManager*.conf"), *POLICIES.glob("nm-*.conf"),
                     ethercord.ROOT / "dbus/org.ethercord1.conf", built("nm-ethercord-service.conf")]:
            if file:
                shutil.copy(file, directory / "policies")
        text = pathlib.Path("/usr/share/dbus-1/system.conf").read_text()
        for pattern, new in ((r"<user>messagebus</user>", ""), (r"<fork/>", ""),
                             (r"<syslog/>", ""), (r"<pidfile>.*</pidfile>", ""),
                             (r"<servicehelper>.*</servicehelper>", ""),
                             (r"<listen>.*</listen>", f"<listen>unix:path={directory}/bus</listen>"),
                             (r"<standard_system_servicedirs/>",
                              f"<servicedir>{directory}/services</servicedir>"),
                             (r"<includedir>.*</includedir>", ""),
                             (r"<include [^>]*>.*</include>", ""),
                             (r"</busconfig>",
                              f"<includedir>{directory}/policies</includedir></busconfig>")):
            text = re.sub(pattern, new, text)
        (directory / "bus.conf").write_text(text)
        self.address = f"unix:path={directory}/bus"
        with open(directory / "bus.log", "wb") as log:
            self.process = room.popen("dbus-daemon", f"--config-file={directory}/bus.conf",
                                      "--nofork", "--nopidfile", stdout=log, stderr=log)
        self.client = wait_until(self.connect, "dbus-daemon listens")

    def text(self):
        return (self.directory / "bus.log").read_text(errors="replace")


class Bed:
    """installed: the plugin's .name file is. daemon: ethercordd is, to be started by D-Bus; conf:
    its configuration. main, keyfile: more of NetworkManager's."""

    def __init__(self, lab, installed=True, daemon=True, start=True, near=f"{NEAR}/24",
                 gateway=FAR, main="no-auto-default=*", keyfile="", conf=""):
        self.lab, self.directory = lab, lab.directory / "bed"
        for name in ("etc/system-connections", "etc/conf.d", "etc/dispatcher.d", "etc/VPN", "var",
                     "vpn", "ethercord/etc/tunnels.d"):
            (self.directory / name).mkdir(parents=True)
        (self.directory / "etc/NetworkManager.conf").write_text(
            CONFIG.format(main=main, keyfile=keyfile))
        (self.directory / "ethercord/etc/ethercord.conf").write_text(f"[daemon]\n{conf}\n")
        lab.stack.callback(self.judge)
        self.journal = lab.keep(Journal(self.directory / "journal"))
        self.near = lab.keep(Room("near", self.directory))
        self.far = lab.namespace("far", ipv6=True)
        self.near.ip("link", "add", "eth0", "type", "veth", "peer", "name", "ub", "netns",
                     self.far.name)
        self.far.ips(f"addr add {FAR}/24 dev ub\nlink set ub up\n")
        self.far.exec("nft", "-f", "-", input=BARE)
        for ns, interface in ((self.near, "eth0"), (self.far, "ub")):
            ethercord.no_offloads(ns, interface)
        self.install_vpns(installed)
        self.bus = lab.keep(SystemBus(self.near, self.directory))
        self.client = self.bus.client
        if daemon:
            self.install_daemon()
        self.process = None
        self.write("base", type="ethernet", interface_name="eth0", autoconnect="true",
                   ipv4={"method": "manual", "address1": f"{near},{gateway}" if gateway else near})
        if start:
            self.start()
            self.wait_active("base")

    # What is installed

    def install_vpns(self, installed):
        for file in VPN_DIRECTORY.glob("nm-openvpn*.name"):
            shutil.copy(file, self.directory / "vpn")
        if installed:
            self.install_plugin()

    def install_plugin(self):
        """NetworkManager sees a new file of this sort at once."""
        def program(found):
            key, name = found.group(1), os.path.basename(found.group(2))
            if key == "plugin" and built(name):
                return f"{key}={self.owned_by_root(name)}"
            return f"{key}={built(name) or found.group(2)}"
        text = re.sub(r"^(program|plugin|auth-dialog)=(.*)$", program,
                      built("nm-ethercord-service.name").read_text(), flags=re.MULTILINE)
        made = self.directory / "name"
        made.write_text(text)
        made.rename(self.directory / "vpn/nm-ethercord-service.name")

    def owned_by_root(self, name):
        """libnm loads nothing that is somebody else's, as a build is that sudo was asked for. What
        the file loads lies beside it."""
        directory = self.directory / "lib"
        if not directory.exists():  # once: a file that is in use is not written over
            directory.mkdir()
            for file in built(name).parent.glob("libnm*.so"):
                shutil.copyfile(file, directory / file.name)
        return directory / name

    def install_daemon(self):
        """As D-Bus would start it, with directories of its own."""
        where = self.directory / "ethercord"
        (self.directory / f"services/{ethercord.NAME}.service").write_text(
            f"[D-BUS Service]\nName={ethercord.NAME}\nUser=root\nExec={ethercord.DAEMON} "
            f"--config-dir {where}/etc --state-dir {where}/var --runtime-dir {where}/run\n")
        self.client.connection.call_blocking("org.freedesktop.DBus", "/org/freedesktop/DBus",
                                             "org.freedesktop.DBus", "ReloadConfig", "", ())

    # NetworkManager

    def start(self):
        with open(self.directory / "nm.log", "ab") as log:
            self.process = self.near.popen("NetworkManager", "--debug", stdout=log, stderr=log,
                                           stdin=subprocess.DEVNULL)
        wait_until(lambda: self.bus.has(NM), "NetworkManager has its name", 30)
        wait_until(lambda: self.ctl("-t", "-f", "RUNNING", "general", check=False).stdout
                   .startswith("running"), "NetworkManager runs", 30, 0.02)
        return self

    def end(self, number=signal.SIGTERM):
        """As `systemctl restart` does: what it started lives on."""
        self.near.signal("NetworkManager", number)
        self.process.wait()
        wait_until(lambda: not self.bus.has(NM), "the bus sees NetworkManager gone")

    def restart(self, number=signal.SIGTERM):
        self.end(number)
        return self.start()

    def ctl(self, *words, check=True, **more):
        return self.near.exec("nmcli", *words, check=check, **more)

    def text(self):
        file = self.directory / "nm.log"
        return file.read_text(errors="replace") if file.exists() else ""

    # Profiles

    @staticmethod
    def uuid(name):
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))

    def write(self, name, type="vpn", data=None, secrets=None, ipv4=None, ipv6=None, load=False,
              groups=None, **connection):
        """A profile's file; '_' in a key of [connection] stands for '-'."""
        if type == "vpn":
            data = {"service-type": SERVICE, **(data or {})}
        groups = {"connection": {"id": name, "uuid": self.uuid(name), "type": type,
                                 "autoconnect": "false",
                                 **{k.replace("_", "-"): v for k, v in connection.items()}},
                  "vpn": data, "vpn-secrets": secrets, **(groups or {}),
                  "ipv4": ipv4 or {"method": "disabled"}, "ipv6": ipv6 or {"method": "disabled"}}
        text = "".join(f"[{group}]\n" + "".join(f"{k}={v}\n" for k, v in keys.items())
                       for group, keys in groups.items() if keys)
        file = self.directory / f"etc/system-connections/{name}.nmconnection"
        file.touch(0o600)
        file.write_text(text)
        if load:
            self.ctl("connection", "load",
                     f"/etc/NetworkManager/system-connections/{name}.nmconnection")

    def cord(self, name="cord", secrets=None, ipv4=None, ipv6=None, connection=None, persistent=None,
             data=None, **settings):
        """A profile of ours, towards a far end that is no ethercord if nothing else is said.
        data: more of vpn.data, under names that are taken here."""
        data = {"remote": FAR, "control": "static", "encapsulation": "vxlan", "id": 42,
                "underlay": "any", **{k.replace("_", "-"): v for k, v in settings.items()},
                **(data or {})}
        data = {k: v for k, v in data.items() if v is not None}
        if persistent is not None:
            data["persistent"] = "true" if persistent else "false"
        self.write(name, data=data, secrets=secrets, ipv4=ipv4, ipv6=ipv6, load=True,
                   **(connection or {}))
        return f"ec-{name}"

    def manual(self, address="192.168.7.2/24", **more):
        return {"method": "manual", "address1": address, **more}

    def up(self, name="cord", *more, check=True, wait=30):
        """nmcli's answer; its time in `seconds`."""
        begun = time.monotonic()
        done = self.ctl("--wait", wait, "connection", "up", name, *more, check=False)
        done.seconds = time.monotonic() - begun
        assert not check or done.returncode == 0, f"{done.stdout}{done.stderr}"
        return done

    def down(self, name="cord"):
        return self.ctl("--wait", "20", "connection", "down", name)

    def state(self, name="cord"):
        """activating, activated, deactivating; '' when it is down."""
        return self.get(name, "GENERAL.STATE")

    def get(self, name, field):
        return self.ctl("-e", "no", "-g", field, "connection", "show", name, check=False).stdout.strip()

    def active(self):
        """{name: device} of what is active."""
        lines = self.ctl("-t", "-f", "NAME,DEVICE", "connection", "show", "--active").stdout
        return dict(line.rsplit(":", 1) for line in lines.splitlines())

    def wait_active(self, name="cord", timeout=20):
        wait_until(lambda: self.state(name) == "activated", f"{name} is activated", timeout, 0.02)

    def wait_gone(self, name="cord", timeout=QUICK):
        wait_until(lambda: not self.state(name), f"{name} goes down", timeout, 0.02)

    # What must be so

    def said(self, *words, name="cord", timeout=QUICK):
        """A sentence with these words stands where nmcli's hint leads to."""
        def found():
            return next((s for s in self.journal.of(self.uuid(name)) if all(w in s for w in words)),
                        None)
        try:
            sentence = wait_until(found, "", timeout)
        except AssertionError:
            raise AssertionError(f"{words} are not in {self.journal.of(self.uuid(name))}") from None
        assert sentence.isprintable(), repr(sentence)
        return sentence

    def fails(self, *words, name="cord", more=(), within=QUICK):
        """The connection does not come up, at once, and for this reason; nothing is left."""
        done = self.up(name, *more, check=False)
        if done.returncode == 0:
            self.down(name)
        assert done.returncode == 4, f"{done.returncode}: {done.stdout}{done.stderr}"
        assert done.seconds < within, f"the failure took {done.seconds} s"
        sentence = self.said(*words, name=name) if words else None
        self.clean(name)
        return sentence

    def left(self, name="cord", interface=None):
        """All that there is of a connection."""
        interface = interface or f"ec-{name}"
        listed = self.ctl("-t", "-f", "NAME,DEVICE", "connection", "show").stdout.splitlines()
        found = [f"profile {line}" for line in listed if line.startswith(f"{name} (") or
                 line.endswith(f":{interface}")]
        if self.near.link(interface):
            found.append(f"interface {interface}")
        if self.bus.has() and name in self.client.tunnels():
            found.append(f"tunnel {name}")
        if not self.cords():
            found += [f"process {c}" for c in self.near.processes(PROGRAM).values()]
        return found

    def cords(self):
        """The active connections of ours."""
        lines = self.ctl("-t", "-f", "UUID,TYPE", "connection", "show", "--active").stdout
        return [u for u, t in (line.split(":") for line in lines.splitlines()) if t == "vpn" and
                SERVICE in self.get(u, "vpn.service-type")]

    def clean(self, name="cord", interface=None, timeout=QUICK):
        """Nothing is left of a connection."""
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self.left(name, interface), "", timeout, 0.02)
        left = self.left(name, interface)
        if left:
            # Not in the way of the next test.
            self.ctl("connection", "down", name, check=False)
            for pid in self.near.processes(PROGRAM):
                os.kill(pid, signal.SIGKILL)
        assert not left, f"left: {left}"

    def judge(self):
        """At the end: what the programs logged is shown, and no program complained."""
        print(f"--- journal\n{self.journal.text()}\n--- bus\n{self.bus.text()}\n"
              f"--- NetworkManager\n{self.text()[-30000:]}")
        for log in (self.bus.text(), self.text(), self.journal.text()):
            bad = re.search(r"AddressSanitizer|runtime error:|LeakSanitizer|ethercord.*CRITICAL|"
                            r"ethercord.*Assertion", log)
            assert not bad, f"a program of ours complained: {log[bad.start():][:3000]}"

    # The far end

    def far_end(self, address="192.168.7.1/24", name="far", vni=42, **more):
        """A VXLAN of iproute2's."""
        ethercord.far_vxlan(self.far, name, vni=vni, local=FAR, remote=NEAR, mtu=1450,
                            address=address, **more)

    def office(self, bridge=None, peers=("cord",), **settings):
        """An ethercordd with a listener, whose interface for the first of the peers is `far`; its
        daemon is the answer."""
        daemon = self.lab.daemon(self.far, "far")
        own = {} if bridge else {"address": "192.168.7.1/24"}
        daemon.bus.client.listen("office", bridge=bridge, peers={
            p: {"key": KEY, **({**own, "interface": "far"} if p == peers[0] else {})}
            for p in peers}, **settings)
        return daemon

    def dial(self, name="cord", key=KEY, **settings):
        """A profile that dials the office; a lost peer is noticed soon."""
        return self.cord(name, secrets=key and {"key": key}, **{
            "control": None, "id": None, "keepalive_interval": 300, "keepalive_timeout": 1500,
            **settings})

    def dnsmasq(self, interface, *options):
        """In the far namespace; no pings before an address is given."""
        lease = self.directory / f"leases-{hashlib.md5(interface.encode()).hexdigest()[:6]}"
        process = self.far.popen("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null",
                                 "--port=0", "--no-ping", f"--interface={interface}",
                                 "--bind-interfaces", f"--dhcp-leasefile={lease}",
                                 "--log-facility=-", "--pid-file=", "--dhcp-authoritative",
                                 *options, stderr=subprocess.DEVNULL)
        self.lab.stack.callback(end_process, process)
        return process
