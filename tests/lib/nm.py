# SPDX-License-Identifier: GPL-2.0-or-later
"""A real NetworkManager in a namespace of its own, on a private bus, without udev and systemd."""

import contextlib
import os
import pathlib
import signal
import subprocess

import ethercord
from ethercord import FAR, NEAR, end_process, run, wait_until
from vpn import Processes

SERVICES = ("openvpn", "nm-openvpn-serv")  # what close() must not leave behind
NAME = "org.freedesktop.NetworkManager"

CONFIG = """[main]
plugins=keyfile
dns=none
rc-manager=unmanaged
auth-polkit=root-only
no-auto-default=*
[logging]
level=INFO
[connectivity]
enabled=false
"""

# NetworkManager takes a read-only /sys for a container's and then does without udev. VPN services
# look for the bus where it always is.
INSIDE = """set -e
mount --make-rprivate /
umount -l /sys || true
mount -t sysfs -o ro sysfs /sys
mount -t tmpfs tmpfs /run
mkdir -p /run/dbus /run/NetworkManager /run/lock
ln -s "$1/bus" /run/dbus/system_bus_socket
mount --bind "$2/etc" /etc/NetworkManager
mount --bind "$2/var" /var/lib/NetworkManager
exec NetworkManager --debug
"""


class NetworkManager:
    """profiles: file name -> text. Started on a bus that the test has."""

    def __init__(self, lab, namespace, bus, profiles):
        self.lab, self.namespace, self.bus = lab, namespace, bus
        self.directory = lab.directory / "nm"
        for name in ("etc/system-connections", "etc/conf.d", "etc/dispatcher.d", "etc/VPN", "var"):
            (self.directory / name).mkdir(parents=True)
        (self.directory / "etc/NetworkManager.conf").write_text(CONFIG)
        for name, text in profiles.items():
            file = self.directory / "etc/system-connections" / f"{name}.nmconnection"
            file.touch(0o600)
            file.write_text(text)
        self.process = None
        lab.keep(self)

    def start(self):
        with open(self.directory / "log", "ab") as log:
            self.process = self.namespace.popen(
                "unshare", "--mount", "sh", "-c", INSIDE, "nm", self.bus.directory,
                self.directory, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env=self.bus.environment())
        wait_until(lambda: self.ctl("-t", "-f", "RUNNING", "general", check=False).stdout
                   .startswith("running"), "NetworkManager runs", 30, 0.05)
        return self

    def ctl(self, *words, check=True):
        return run("nmcli", *words, check=check, env=self.bus.environment())

    def up(self, connection):
        done = self.ctl("--wait", "30", "connection", "up", connection, check=False)
        assert done.returncode == 0, \
            f"{done.stdout}{done.stderr}{self.text()[-6000:]}"

    def text(self):
        return (self.directory / "log").read_text(errors="replace")

    def stop(self):
        end_process(self.process)
        wait_until(lambda: not self.bus.has(NAME), "the bus sees NetworkManager gone")

    def crash(self):
        """What it started lives on."""
        self.process.kill()
        self.process.wait()
        wait_until(lambda: not self.bus.has(NAME), "the bus sees NetworkManager gone")

    def close(self):
        if self.process:
            end_process(self.process)
        for pid in run("ip", "netns", "pids", self.namespace.name).stdout.split():
            comm = pathlib.Path(f"/proc/{pid}/comm")
            with contextlib.suppress(OSError):
                if comm.read_text().strip() in SERVICES:
                    os.kill(int(pid), signal.SIGKILL)


class Office(Processes):
    """A site with an OpenVPN server, and the profiles of its client."""

    device, near, far = "tun", "10.8.0.2", "10.8.0.1"
    uuid = "00000000-0000-4000-8000-000000000002"

    def __init__(self, lab, server=None, remote=FAR):
        """server: the namespace of the server, with the address `remote`. None: one is made, and
        one for the client."""
        self.lab, self.directory = lab, lab.directory / "office"
        self.directory.mkdir()
        self.ns, self.client, self.remote = server, None, remote
        if not server:
            self.ns, self.client = lab.namespace("office"), lab.namespace("near")
            ethercord.wire(self.client, self.ns, address_a=None)
        self.certificate("ca", "-addext", "basicConstraints=critical,CA:TRUE")
        for name, usage in (("server", "serverAuth"), ("client", "clientAuth")):
            self.certificate(name, "-CA", self.file("ca.crt"), "-CAkey", self.file("ca.key"),
                             "-addext", f"extendedKeyUsage={usage}")
        self.spawn("server", "openvpn", "--dev", "tun0", "--dev-type", "tun", "--server",
                   "10.8.0.0", "255.255.255.0", "--topology", "subnet", "--proto", "udp", "--port",
                   1194, "--dh", "none", "--keepalive", 1, 10, "--ca", self.file("ca.crt"),
                   "--cert", self.file("server.crt"), "--key", self.file("server.key"))

    def site(self, name):
        return self.ns

    def file(self, name):
        return self.directory / name

    def certificate(self, name, *more):
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
            "ec_paramgen_curve:prime256v1", "-nodes", "-days", 3650, "-subj", f"/CN={name}",
            "-keyout", self.file(f"{name}.key"), "-out", self.file(f"{name}.crt"), *more)

    def profile(self, never_default=True):
        return f"""[connection]
id=Office "Nord"
uuid={self.uuid}
type=vpn
autoconnect=false
[vpn]
service-type=org.freedesktop.NetworkManager.openvpn
connection-type=tls
remote={self.remote}
port=1194
ca={self.file("ca.crt")}
cert={self.file("client.crt")}
key={self.file("client.key")}
cert-pass-flags=4
[ipv4]
method=auto
never-default={"true" if never_default else "false"}
[ipv6]
method=disabled
"""

    def profiles(self):
        # NetworkManager wants a default gateway below a VPN.
        return {"base": f"""[connection]
id=base
uuid=00000000-0000-4000-8000-000000000001
type=ethernet
interface-name=wire
autoconnect=false
[ipv4]
method=manual
address1={NEAR}/24,{FAR}
[ipv6]
method=disabled
""", "office": self.profile()}
