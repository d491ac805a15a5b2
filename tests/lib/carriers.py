# SPDX-License-Identifier: GPL-2.0-or-later
"""What carries frames between two namespaces: the kernel, ethercord's worker, and what Debian has.

A carrier makes or takes the interface `cord0` in both; how to start each is all that is here."""

import os
import pathlib
import shutil
import subprocess
import time

import ethercord
import gauges
import worker

OUTER = ("10.77.0.1", "10.77.0.2")
INNER = ("10.78.0.1", "10.78.0.2")
DEVICE = "cord0"
LINK = "net0"
# As a wire of a network card without offloads for tunnels: no super-frame crosses it.
WIRE = ("tso", "off", "gso", "off", "gro", "on", "tx-udp-segmentation", "off",
        "tx-udp_tnl-segmentation", "off", "tx-udp_tnl-csum-segmentation", "off")


def mac(end, which):
    return f"02:00:5e:10:{which:02x}:{end + 1:02x}"


class Pair:
    """Two namespaces and what connects them."""

    def __init__(self, lab, build):
        self.build = pathlib.Path(build)
        self.lab = lab
        self.ends = [lab.namespace("a"), lab.namespace("b")]
        self.gauges = gauges.Gauges(lab, build, self.ends)

    def lay(self, underlay):
        """A new link: plain (as veth is: super-frames cross it) or wire."""
        a, b = self.ends
        a.ip("link", "del", LINK, check=False)
        a.ip("link", "add", LINK, "address", mac(0, 1), "type", "veth", "peer", "name", LINK,
             "address", mac(1, 1), "netns", b.name)
        for end, ns in enumerate(self.ends):
            ns.ips(f"addr add {OUTER[end]}/24 dev {LINK}\nlink set {LINK} up\n"
                   f"neigh replace {OUTER[1 - end]} lladdr {mac(1 - end, 1)} dev {LINK}")
            if underlay == "wire":
                ns.exec("ethtool", "-K", LINK, *WIRE)

    @staticmethod
    def addressing(end, mtu, tap=True):
        """Lines for ip(8) that put the device into use."""
        lines = [f"addr add {INNER[end]}/24 dev {DEVICE}", f"link set {DEVICE} mtu {mtu} up"]
        if tap:
            lines.append(f"neigh replace {INNER[1 - end]} lladdr {mac(1 - end, 2)} dev {DEVICE}")
        return lines

    def devices(self, mode, mtu):
        """TAP or TUN devices that last, ready for somebody who opens them."""
        for end, ns in enumerate(self.ends):
            lines = [f"tuntap add {DEVICE} mode {mode}"]
            if mode == "tap":
                lines.append(f"link set {DEVICE} address {mac(end, 2)}")
            ns.ips("\n".join(lines + self.addressing(end, mtu, mode == "tap")))

    def clear(self):
        self.gauges.tunnel.end()
        for ns in self.ends:
            ns.ip("link", "del", DEVICE, check=False)


class Carrier:
    """start() returns when the first process was started, s of CLOCK_MONOTONIC."""

    programs = ()
    standing = False  # a process stands by
    fits = True  # frames cross the path whole
    only = ()  # metrics; none: all of the stage
    device = DEVICE
    addresses = INNER

    def __init__(self, name, mtu):
        self.name, self.mtu = name, mtu

    def missing(self, pair):
        """Why it cannot be started, or None."""
        lacking = [p for p in self.programs if not shutil.which(p, path=PATH)]
        return f"{lacking[0]} is not installed" if lacking else None

    def start(self, pair):
        raise NotImplementedError

    def stop(self, pair):
        pair.clear()

    def says(self):
        """The last that it said."""
        return ""

    def check(self, sample):
        """That what was measured is what is meant: of frames that fit, none in fragments."""
        whole = sample["fragments"] < 100
        if whole != self.fits:
            raise RuntimeError("frames " + ("left whole" if whole else "left in IP fragments"))


PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


class Raw(Carrier):
    """The link itself: what is possible."""

    device = LINK
    addresses = OUTER

    def start(self, pair):
        return time.monotonic()


class Vxlan(Carrier):
    """The kernel's. `fragments`: it does not tell TCP that its packets are too large."""

    def __init__(self, name, mtu, fragments=False):
        super().__init__(name, mtu)
        self.fragments, self.fits = fragments, not fragments

    def start(self, pair):
        begun = time.monotonic()
        for end, ns in enumerate(pair.ends):
            lines = [f"link add {DEVICE} address {mac(end, 2)} type vxlan id 1 local {OUTER[end]} "
                     f"remote {OUTER[1 - end]} dstport 4789 nolearning",
                     *pair.addressing(end, self.mtu)]
            if self.fragments:
                lines.append(f"route add {INNER[1 - end]} dev {DEVICE} mtu lock {self.mtu}")
            ns.ips("\n".join(lines))
        return begun


class Program(Carrier):
    """A program at each end that opens a TAP device."""

    standing = True
    mode = "tap"
    order = (0, 1)

    def __init__(self, name, mtu, *programs):
        super().__init__(name, mtu)
        self.fits = mtu < 1500
        self.programs = programs
        self.directory = None

    def prepare(self, pair):
        """Files, once."""

    def command(self, pair, end):
        """(words, environment)"""
        raise NotImplementedError

    def wait_started(self, pair, end):
        """Until the next one may be started."""

    def start(self, pair):
        if not self.directory:
            self.directory = pair.lab.directory / f"{self.name.replace(' ', '-')}-{self.mtu}"
            self.directory.mkdir()
            self.prepare(pair)
        pair.devices(self.mode, self.mtu)
        begun = time.monotonic()
        for end in self.order:
            words, environment = self.command(pair, end)
            with open(self.directory / f"log-{end}", "wb") as log:
                gauges.spawn(pair.ends[end], pair.gauges.tunnel, *words, stdout=log, stderr=log,
                             stdin=subprocess.DEVNULL, cwd=self.directory,
                             env=dict(os.environ, PATH=PATH, **environment))
            self.wait_started(pair, end)
        return begun

    def says(self):
        for end in (0, 1) if self.directory else ():
            log = self.directory / f"log-{end}"
            if log.exists() and (lines := log.read_text(errors="replace").strip().splitlines()):
                return f"end {end}: {lines[-1].strip()}"
        return "it said nothing"


class Naive(Program):
    """One frame, one datagram: stands for tap2tap and the like."""

    def command(self, pair, end):
        return (pair.build / "tests/bench-naive", DEVICE, OUTER[end], OUTER[1 - end], 1234), {}


class OpenVpn(Program):
    """cipher: None or one for TLS mode."""

    def __init__(self, name, mtu, cipher=None):
        super().__init__(name, mtu, "openvpn", "openssl")
        self.cipher = cipher
        self.fingerprints = []

    def prepare(self, pair):
        for end in (0, 1) if self.cipher else ():
            ethercord.run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                          "ec_paramgen_curve:prime256v1", "-nodes", "-days", 30, "-subj",
                          f"/CN=end{end}", "-keyout", self.directory / f"key{end}", "-out",
                          self.directory / f"cert{end}")
            got = ethercord.run("openssl", "x509", "-in", self.directory / f"cert{end}", "-noout",
                                "-fingerprint", "-sha256")
            self.fingerprints.append(got.stdout.partition("=")[2].strip())

    def command(self, pair, end):
        words = ["openvpn", "--dev", DEVICE, "--dev-type", "tap", "--proto", "udp", "--local",
                 OUTER[end], "--lport", 1194, "--remote", OUTER[1 - end], 1194, "--tun-mtu",
                 self.mtu, "--mssfix", 0, "--fast-io", "--verb", 1]
        if not self.cipher:
            return (*words, "--cipher", "none", "--auth", "none"), {}
        role = ("--tls-client", "--tls-server")[end]
        dh = ("--dh", "none") if end else ()
        return (*words, role, *dh, "--cert", f"cert{end}", "--key", f"key{end}",
                "--peer-fingerprint", self.fingerprints[1 - end], "--data-ciphers", self.cipher,
                "--cipher", self.cipher), {}


class Tinc(Program):
    """Switch mode; cipher and digest none."""

    def __init__(self, name, mtu):
        super().__init__(name, mtu, "tincd")

    def prepare(self, pair):
        for end in (0, 1):
            directory = self.directory / str(end)
            (directory / "hosts").mkdir(parents=True)
            (directory / "tinc.conf").write_text(
                f"Name=end{end}\nMode=switch\nDeviceType=tap\nInterface={DEVICE}\n"
                f"AddressFamily=ipv4\nBindToAddress={OUTER[end]}\n"
                + ("" if end else "ConnectTo=end1\n"))
            (directory / f"hosts/end{end}").write_text(
                f"Address={OUTER[end]}\nCipher=none\nDigest=none\nCompression=0\n")
            ethercord.run("tincd", "-c", directory, "-K", 2048, stdin=subprocess.DEVNULL,
                          env=dict(os.environ, PATH=PATH))
        for end in (0, 1):
            shutil.copy(self.directory / f"{end}/hosts/end{end}",
                        self.directory / f"{1 - end}/hosts/end{end}")

    order = (1, 0)

    def command(self, pair, end):
        return ("tincd", "-c", self.directory / str(end), "-D", f"--pidfile=pid-{end}"), {}

    def wait_started(self, pair, end):
        if end:
            ethercord.wait_until(lambda: listens(pair.ends[1], "udp", 655), "tincd listens", 5,
                                 0.001)


def listens(namespace, protocol, port):
    with namespace.entered(), open(f"/proc/thread-self/net/{protocol}", encoding="ascii") as f:
        return any(line.split()[1].endswith(f":{port:04X}") for line in f.readlines()[1:])


class Fastd(Program):
    """Method null. The one that listens is the first: the other one tries again after 15 s."""

    order = (1, 0)

    def __init__(self, name, mtu):
        super().__init__(name, mtu, "fastd")

    def prepare(self, pair):
        keys = [ethercord.run("fastd", "--generate-key", env=dict(os.environ, PATH=PATH)).stdout
                for _ in (0, 1)]
        secret, public = zip(*([line.split(": ")[1] for line in key.splitlines()] for key in keys))
        for end in (0, 1):
            remote = "" if end else f" remote {OUTER[1]}:10000;"
            (self.directory / f"conf-{end}").write_text(
                f'interface "{DEVICE}";\nmode tap;\nmethod "null";\nmtu {self.mtu};\n'
                f'bind {OUTER[end]}:10000;\nsecret "{secret[end]}";\nlog level warn;\n'
                f'peer "other" {{ key "{public[1 - end]}";{remote} }}\n')

    def command(self, pair, end):
        return ("fastd", "--config", f"conf-{end}"), {}

    def wait_started(self, pair, end):
        if end:
            ethercord.wait_until(lambda: listens(pair.ends[1], "udp", 10000), "fastd listens", 5,
                                 0.001)


class Vtun(Program):
    """Ethernet over UDP. A lock that is left behind by a hard end would keep the next one out."""

    LOCKS = pathlib.Path("/var/lock/vtund")
    order = (1, 0)

    def __init__(self, name, mtu):
        super().__init__(name, mtu, "vtund")
        self.label = f"ecbench{os.getpid()}"

    def prepare(self, pair):
        self.LOCKS.mkdir(exist_ok=True)
        (self.directory / "conf").write_text(
            "options { port 5000; timeout 10; syslog daemon; }\n"
            "default { compress no; encrypt no; speed 0; }\n"
            f"{self.label} {{ passwd x; type ether; proto udp; device {DEVICE}; keepalive no;\n"
            "  compress no; encrypt no; stat no; multi killold; up {}; down {}; }\n")

    def command(self, pair, end):
        if end:
            return ("vtund", "-n", "-s", "-f", "conf", "-P", 5000), {}
        return ("vtund", "-n", "-f", "conf", "-P", 5000, self.label, OUTER[1]), {}

    def wait_started(self, pair, end):
        if end:
            ethercord.wait_until(lambda: listens(pair.ends[1], "tcp", 5000), "vtund listens", 5,
                                 0.001)

    def stop(self, pair):
        super().stop(pair)
        (self.LOCKS / self.label).unlink(missing_ok=True)


class QuickTun(Program):
    """Protocol raw. Debian's takes its settings as ifupdown gives them."""

    def __init__(self, name, mtu):
        super().__init__(name, mtu, "quicktun")

    def command(self, pair, end):
        return ("quicktun",), {
            "IFACE": DEVICE, "IF_QT_INTERFACE": DEVICE, "IF_QT_TUN_MODE": "0",
            "IF_QT_PROTOCOL": "raw", "IF_QT_LOCAL_ADDRESS": OUTER[end],
            "IF_QT_REMOTE_ADDRESS": OUTER[1 - end], "IF_QT_LOCAL_PORT": "2998",
            "IF_QT_REMOTE_PORT": "2998"}


class Socat(Program):
    """UDP4-DATAGRAM: with UDP4 it ends when the peer is not there yet."""

    def __init__(self, name, mtu):
        super().__init__(name, mtu, "socat")

    def command(self, pair, end):
        return ("socat", f"TUN,tun-name={DEVICE},tun-type=tap,iff-no-pi",
                f"UDP4-DATAGRAM:{OUTER[1 - end]}:7000,bind={OUTER[end]}:7000"), {}


class Worker(Carrier):
    """ethercord-worker, told what to do as the daemon would tell it."""

    standing = True
    HEADERS = {"gretap-fou": 26, "vxlan": 22, "raw-udp": 14, "tun-udp": 0}  # bytes, behind UDP's

    def __init__(self, kind, mtu, flags=(), note=""):
        super().__init__(f"worker {kind}{note}", mtu)
        self.kind, self.flags = kind, flags
        self.fits = "fragment" not in flags
        self.lab, self.workers = None, []

    def missing(self, pair):
        return None if worker.PROGRAM.exists() else f"there is no {worker.PROGRAM.name}"

    def start(self, pair):
        self.lab = ethercord.Lab()
        pair.devices("tun" if self.kind == "tun-udp" else "tap", self.mtu)
        # As the daemon does: no super-frame is larger than one message to the socket.
        segments = 65507 // (self.mtu + self.HEADERS[self.kind])
        for ns in pair.ends:
            ns.ip("link", "set", DEVICE, "gso_max_segs", segments)
        identifier = 1 if self.kind in ("gretap-fou", "vxlan") else 0
        begun = time.monotonic()
        self.workers = [worker.Worker(self.lab, ns, self.kind, DEVICE,
                                      preexec_fn=pair.gauges.tunnel.enter) for ns in pair.ends]
        for end, w in enumerate(self.workers):
            w.configure(OUTER[1 - end], identifier=identifier, flags=self.flags, path_mtu=1500,
                        sock=w.new_socket(OUTER[end], device=LINK))
        return begun

    def stop(self, pair):
        if self.lab:
            self.lab.close()
            self.lab = None
        super().stop(pair)

    def check(self, sample):
        super().check(sample)
        if "split" in self.flags and not self.workers[0].statistics["tx_split"]:
            raise RuntimeError("no frame was sent in pieces")

    def says(self):
        ended = [w.process.returncode for w in self.workers if w.process.poll() is not None]
        return f"it ended: {ended}" if ended else ""


# The largest of each that crosses a path of 1500 bytes whole.
PEERS = (
    Naive("naive", 1458),
    OpenVpn("openvpn none", 1450),
    OpenVpn("openvpn aes", 1420, "AES-128-GCM"),
    Tinc("tinc", 1400),
    Fastd("fastd", 1440),
    Vtun("vtun", 1450),
    QuickTun("quicktun", 1458),
    Socat("socat", 1458),
)
WORKERS = (
    Worker("gretap-fou", 1450),
    Worker("vxlan", 1450),
    Worker("raw-udp", 1458),
    Worker("tun-udp", 1472),
)
LIMITS = (Raw("raw veth", 1500), Vxlan("kernel vxlan", 1450))
# Whole frames of an Ethernet of 1500 bytes, over a path that does not carry them whole.
FULL = (
    Vxlan("kernel vxlan", 1500),
    Vxlan("kernel vxlan fragments", 1500, fragments=True),
    Worker("gretap-fou", 1500, ("split", "join")),
    Worker("gretap-fou", 1500, ("too_big",), " too-big"),
    Worker("gretap-fou", 1500, ("fragment",), " fragments"),
    Worker("vxlan", 1500, ("split", "join")),
    Worker("raw-udp", 1500, ("fragment",)),
    Worker("tun-udp", 1500, ("fragment",)),
    Naive("naive", 1500),
    OpenVpn("openvpn none", 1500),
)
