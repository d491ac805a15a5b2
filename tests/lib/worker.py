# SPDX-License-Identifier: GPL-2.0-or-later
"""ethercord-worker, driven directly: plugins/worker/protocol.h from the daemon's side."""

import ctypes
import fcntl
import hashlib
import itertools
import mmap
import os
import pathlib
import re
import select
import socket
import struct
import subprocess
import threading

import ethercord
from ethercord import PATIENCE, wait_until

PROGRAM = ethercord.BUILD / "plugins/worker/ethercord-worker"
PROTOCOL = (ethercord.ROOT / "plugins/worker/protocol.h").read_text()

START, CONFIGURE, STOP, HELLO, DONE, EVENT, INJECT, ASK = range(1, 9)
PEER, LACKS, SOCKET, DEVICE, HERE = range(1, 6)
FORMATS = {"gretap-fou": 1, "vxlan": 2, "raw-udp": 3, "tun-udp": 4}
PORTS = {"gretap-fou": 65201, "vxlan": 4789, "raw-udp": 1234, "tun-udp": 8000}
HEADERS = {"gretap-fou": 4, "vxlan": 8, "raw-udp": 0, "tun-udp": 0}  # bytes; a key is 4 more
FLAGS = {name.lower(): 1 << int(bit)
         for name, bit in re.findall(r"EC_WORKER_(\w+) = 1 << (\d)", PROTOCOL.split("EcWorkerOffloads")[0])}
OFFLOADS = {name.lower(): 1 << int(bit)
            for name, bit in re.findall(r"EC_WORKER_(\w+) = 1 << (\d)",
                                        PROTOCOL.split("EcWorkerFlags;")[1])}
COUNTERS = re.findall(r"\bX\((\w+)\)", PROTOCOL.split("#define EC_WORKER_STATISTICS(X)")[1])

IFF_TUN, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 1, 2, 0x1000, 0x4000
TUNSETIFF = 0x400454CA
SO_BINDTODEVICE = 25
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER = 10, 23
DONT, WANT, DO, PROBE = range(4)
BUFFER = 8 << 20


def pack_address(address, port=0, scope=0):
    """A sockaddr_storage; None is AF_UNSPEC."""
    if address is None:
        packed = b""
    elif ":" in address:
        packed = struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, 0) + \
            socket.inet_pton(socket.AF_INET6, address) + struct.pack("=I", scope)
    else:
        packed = struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + \
            socket.inet_aton(address)
    return packed.ljust(128, b"\0")


def unpack_address(packed):
    family, = struct.unpack_from("=H", packed)
    port, = struct.unpack_from("!H", packed, 2)
    if family == socket.AF_INET:
        return socket.inet_ntoa(packed[4:8]), port
    if family == socket.AF_INET6:
        return socket.inet_ntop(socket.AF_INET6, packed[8:24]), port
    return None


def open_device(namespace, name, ethernet=True, flags=IFF_VNET_HDR):
    """An open TAP or TUN of that name, which goes with its last descriptor."""
    with namespace.entered():
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        kind = IFF_TAP if ethernet else IFF_TUN
        fcntl.ioctl(fd, TUNSETIFF,
                    struct.pack("16sH22x", name.encode(), kind | IFF_NO_PI | flags))
    return fd


def open_socket(namespace, address, port, device=None, discover=DONT):
    """As the daemon makes it. discover: IP_MTU_DISCOVER."""
    six = ":" in address
    with namespace.entered():
        s = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
        for option in (ethercord.SO_RCVBUFFORCE, 32):
            s.setsockopt(socket.SOL_SOCKET, option, BUFFER)
        if six:
            s.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, discover)
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        else:
            s.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, discover)
        if device:
            s.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, device.encode())
        # As the daemon does: a socket's successor is bound while it is still in use.
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((address, port))
    return s


class Refused(Exception):
    """DONE with an error."""

    def __init__(self, error, text):
        super().__init__(f"{error}: {text}")
        self.error, self.text = error, text


class Connection:
    """A control connection, from the daemon's side."""

    def __init__(self, sock):
        self.socket = sock
        self.serial = itertools.count(1)
        self.events = []

    def close(self):
        self.socket.close()

    def send(self, packet, *fds):
        if fds:
            socket.send_fds(self.socket, [packet], list(fds))
        else:
            self.socket.send(packet)

    def receive(self, timeout=PATIENCE):
        """The next packet and its descriptors; (b"", []) at the end."""
        ready, _, _ = select.select([self.socket], [], [], timeout)
        assert ready, "the worker does not answer"
        data, fds, _, _ = socket.recv_fds(self.socket, 4096, 8)
        return data, fds

    def take_event(self, data):
        _, kind, error = struct.unpack_from("=IIi", data)
        assert len(data) == 264, data
        self.events.append((kind, error, unpack_address(data[16:144]),
                            data[144:].split(b"\0")[0].decode()))

    def done(self, serial):
        while True:
            data, _ = self.receive()
            assert data, "the worker ended the connection"
            if struct.unpack_from("=I", data)[0] == EVENT:
                self.take_event(data)
                continue
            kind, answered, error = struct.unpack_from("=IIi", data)
            assert (kind, answered, len(data)) == (DONE, serial, 132), data
            if error:
                raise Refused(-error, data[12:].split(b"\0")[0].decode())
            return

    def poll(self):
        """Takes what is there without waiting."""
        while select.select([self.socket], [], [], 0)[0]:
            data, _ = self.receive()
            if not data:
                return
            assert struct.unpack_from("=I", data)[0] == EVENT, data
            self.take_event(data)

    def event(self, kind, what="an event of the worker's", timeout=PATIENCE):
        """The next one of this kind that nobody took."""
        def look():
            self.poll()
            return [e for e in self.events if e[0] == kind]
        found = wait_until(look, what, timeout)[0]
        self.events.remove(found)
        return found

    def start(self, kind, name, listener, device, memory, version=1):
        serial = next(self.serial)
        self.send(struct.pack("=IIII64s", START, version, serial, FORMATS.get(kind, kind),
                              name.encode()), listener, device, memory)
        self.done(serial)

    def configure(self, remote=None, port=0, identifier=0, flags=(), path_mtu=0, sock=None):
        serial = next(self.serial)
        bits = flags if isinstance(flags, int) else sum(FLAGS[f] for f in flags)
        packet = struct.pack("=IIIIII", CONFIGURE, serial, identifier, bits, path_mtu, 0) + \
            pack_address(remote, port)
        self.send(packet, *([sock.fileno()] if sock else []))
        self.done(serial)

    def stop(self):
        self.send(struct.pack("=I", STOP))

    def hello(self):
        """The fields, and descriptors by what they are."""
        data, fds = self.receive()
        assert len(data) == 232, data
        kind, version, number, pid = struct.unpack_from("=IIII", data)
        assert (kind, version) == (HELLO, 1)
        _, serial, identifier, flags, path_mtu = struct.unpack_from("=IIIII", data, 80)
        return {"format": number, "pid": pid, "name": data[16:80].split(b"\0")[0].decode(),
                "serial": serial, "id": identifier, "flags": flags, "path_mtu": path_mtu,
                "remote": unpack_address(data[104:232]), "fds": fds}


def lacking(words):
    """The environment of a worker whose kernel lacks this: tests/unit/lacks.c."""
    return {"LD_PRELOAD": str(ethercord.BUILD / "tests/lacks.so"), "ETHERCORD_LACKS": words}


def start_program(lab, control, program=PROGRAM, environment=None, **more):
    """The worker with this socket as its descriptor 3."""
    fd = control.fileno()
    script = f'exec "$0" 3<&{fd}' if fd != 3 else 'exec "$0"'
    # At its end a leak sanitizer would look into a process that nobody may look into.
    environment = dict(os.environ, ASAN_OPTIONS="detect_leaks=0:verify_asan_link_order=0",
                       **(environment or {}))
    return lab.popen("bash", "-c", script, program, pass_fds=[fd], env=environment, **more)


class Worker:
    """A worker with its device `interface` in a namespace."""

    serial = itertools.count()

    def __init__(self, lab, namespace, kind, interface="cord", program=PROGRAM, mtu=None,
                 **more):
        self.lab, self.namespace, self.kind, self.interface = lab, namespace, kind, interface
        self.ethernet = kind != "tun-udp"
        self.path = lab.directory / f"worker-{next(Worker.serial)}"
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(self.path))
        self.listener.listen()
        self.device = open_device(namespace, interface, self.ethernet)
        self.memory = os.memfd_create("statistics")
        self.size = 8 + 8 * len(COUNTERS)
        os.ftruncate(self.memory, self.size)
        self.map = mmap.mmap(self.memory, self.size, prot=mmap.PROT_READ)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process = start_program(lab, theirs, program, **more)
        theirs.close()
        self.control = Connection(ours)
        self.socket = None
        lab.keep(self)
        if mtu:
            namespace.ip("link", "set", interface, "mtu", mtu)
        self.control.start(kind, "test", self.listener.fileno(), self.device, self.memory)

    def close(self):
        self.control.close()
        self.listener.close()
        self.map.close()
        if self.socket:
            self.socket.close()
        for fd in (self.device, self.memory):
            if fd >= 0:
                os.close(fd)
        ethercord.end_process(self.process)

    def let_go(self):
        """Only the worker has the device now."""
        os.close(self.device)
        self.device = -1

    def up(self, *addresses):
        for address in addresses:
            self.namespace.ip("addr", "add", address, "dev", self.interface, "nodad")
        self.namespace.ip("link", "set", self.interface, "up")
        return self

    def new_socket(self, address, port=None, **more):
        if self.socket:
            self.socket.close()
        self.socket = open_socket(self.namespace, address, port or PORTS[self.kind], **more)
        return self.socket

    def configure(self, remote=None, port=None, **more):
        if remote and port is None:
            port = PORTS[self.kind]
        self.control.configure(remote, port or 0, **more)
        return self

    def connect(self):
        """As a daemon that starts anew: HELLO's fields."""
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.connect(str(self.path))
        self.control = Connection(s)
        hello = self.control.hello()
        for fd in hello["fds"]:
            os.close(fd)
        return hello

    @property
    def statistics(self):
        values = struct.unpack_from(f"={len(COUNTERS)}Q", self.map, 8)
        return dict(zip(COUNTERS, values))

    @property
    def offloads(self):
        bits, = struct.unpack_from("=I", self.map, 4)
        return {name for name, bit in OFFLOADS.items() if bits & bit}

    def proc(self, file):
        return pathlib.Path(f"/proc/{self.process.pid}/{file}").read_text()

    def status(self, field):
        return re.search(rf"^{field}:\s+(.*)$", self.proc("status"), re.MULTILINE).group(1)

    @property
    def wakeups(self):
        return int(self.status("voluntary_ctxt_switches"))

    @property
    def resident(self):
        """KiB"""
        return int(self.status("VmRSS").split()[0])

    @property
    def sanitized(self):
        """A build with sanitizers has no filter of system calls, and is larger."""
        return self.status("Seccomp") == "0"

    def stop(self):
        self.control.stop()
        assert self.process.wait(PATIENCE) == 0


class Pair:
    """Two namespaces joined by a veth named wire, and a worker in each, unless one is None."""

    def __init__(self, lab, kind, ipv6=False, wire=False, mtu=1500, far=True, identifier=0,
                 flags=(), path_mtu=None, cord_mtu=None, discover=DONT, **more):
        self.lab, self.kind, self.ipv6, self.identifier = lab, kind, ipv6, identifier
        self.namespaces = [lab.namespace(label, ipv6=True) for label in ("near", "far")]
        self.addresses = ["fd00:9::1", "fd00:9::2"] if ipv6 else ["10.9.0.1", "10.9.0.2"]
        near, other = self.namespaces
        near.ip("link", "add", "wire", "mtu", mtu, "type", "veth", "peer", "name", "wire", "mtu",
                mtu, "netns", other.name)
        for namespace, address in zip(self.namespaces, self.addresses):
            namespace.ip("addr", "add", f"{address}/{64 if ipv6 else 24}", "dev", "wire", "nodad")
            if wire:
                likewise(namespace)
            namespace.ip("link", "set", "wire", "up")
        self.discover = discover
        self.path_mtu = mtu if path_mtu is None else path_mtu
        self.overhead = (48 if ipv6 else 28) + HEADERS[kind] + \
            (4 if kind == "gretap-fou" and identifier else 0) + (4 if "sequence" in flags else 0)
        link = 0 if kind == "tun-udp" else 14
        self.cord_mtu = cord_mtu or mtu - self.overhead - link
        self.flags = flags
        self.workers = [self.worker(i, **more) for i in range(2 if far else 1)]
        self.near = self.workers[0]
        self.far = self.workers[1] if far else None

    def worker(self, i, **more):
        w = Worker(self.lab, self.namespaces[i], self.kind, mtu=self.cord_mtu, **more)
        w.configure(self.addresses[1 - i], identifier=self.identifier, flags=self.flags,
                    path_mtu=self.path_mtu,
                    sock=w.new_socket(self.addresses[i], device="wire", discover=self.discover))
        return w.up(f"10.8.0.{i + 1}/24", f"fd00:8::{i + 1}/64")

    def pin(self):
        """Each worker stays on a CPU. A veth's packets wait at the CPU that sent them, so those of
        a worker that moves to another CPU may overtake each other."""
        cpus = sorted(os.sched_getaffinity(0))
        for i, w in enumerate(self.workers):
            os.sched_setaffinity(w.process.pid, {cpus[i % len(cpus)]})


def likewise(namespace, interface="wire"):
    """The interface does what a wire does: no super-frames cross it, and GRO joins them again."""
    namespace.exec("ethtool", "-K", interface, "tso", "off", "gso", "off", "gro", "on",
                   "tx-udp-segmentation", "off", "tx-udp_tnl-segmentation", "off",
                   "tx-udp_tnl-csum-segmentation", "off")


class Server:
    """iperf3 -s in a namespace."""

    def __init__(self, lab, namespace):
        self.process = lab.popen("ip", "netns", "exec", namespace.name, "iperf3", "-s", "-p", 5201,
                                 stdout=subprocess.DEVNULL)
        wait_until(lambda: ":5201" in namespace.exec("ss", "-ltn").stdout, "iperf3 listens")


# Frames

ME, YOU, ALL = b"\x02\x00\x00\x00\x00\x09", b"\x02\x00\x00\x00\x00\x0a", b"\xff" * 6
PACKET_AUXDATA, PACKET_VNET_HDR, SOL_PACKET = 8, 15, 263
VLAN_VALID, OUTGOING = 0x10, 4


def frame(number=0, size=64, source=ME, destination=ALL, tags=b"", ethertype=ethercord.ETHERTYPE):
    """A numbered frame of so many bytes."""
    head = destination + source + tags + struct.pack("!HI", ethertype, number)
    return head.ljust(size, b"\x5a")


def number_of(data):
    """Of a frame without tags."""
    return struct.unpack_from("!I", data, 14)[0]


def tcp_super_frame(tags, size, mss, sport=40000):
    """(virtio header, frame): TCP over IPv4 with a checksum that is left to do."""
    network = 14 + len(tags)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40 + size, 100, 0x4000, 64, 6, 0,
                     socket.inet_aton("10.8.0.1"), socket.inet_aton("10.8.0.2"))
    total = sum(struct.unpack("!10H", ip))
    total = (total & 0xFFFF) + (total >> 16)
    ip = ip[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + ip[12:]
    pseudo = sum(struct.unpack("!4H", ip[12:20])) + 6 + 20 + size
    pseudo = (pseudo & 0xFFFF) + (pseudo >> 16)
    tcp = struct.pack("!HHIIBBHHH", sport, 5001, 1000, 1, 0x50, 0x18, 1000,
                      (pseudo + (pseudo >> 16)) & 0xFFFF, 0)
    payload = bytes(i * 7 & 0xFF for i in range(size))
    header = struct.pack("=BBHHHH", 1, 1, network + 40, mss, network + 20, 16)
    return header, b"\x02\0\0\0\0\x02" + ME + tags + b"\x08\0" + ip + tcp + payload


class Sink:
    """Frames that come in at an interface, with their tags."""

    def __init__(self, namespace, interface="cord", ethertype=ethercord.ETHERTYPE):
        self.socket = ethercord.frame_socket(namespace, interface, socket.htons(3))
        self.socket.bind((interface, 3))
        self.socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self.ethertype, self.frames = ethertype, []

    def close(self):
        self.socket.close()

    def take(self):
        """All that came so far."""
        while True:
            try:
                data, auxiliary, _, address = self.socket.recvmsg(70000, 256, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return self.frames
            if address[2] == OUTGOING:
                continue
            for level, kind, value in auxiliary:
                if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
                    status, *_, tci, tpid = struct.unpack("=IIIHHHH", value)
                    if status & VLAN_VALID:
                        data = data[:12] + struct.pack("!HH", tpid or 0x8100, tci) + data[12:]
            types = struct.unpack_from("!H", data, 12)[0]
            if self.ethertype in (None, types) or types in (0x8100, 0x88A8):
                self.frames.append(data)

    def wait(self, count, what="frames arrive", timeout=PATIENCE):
        return wait_until(lambda: len(self.take()) >= count and self.frames, what, timeout)


class Source:
    """Sends frames out of an interface."""

    def __init__(self, namespace, interface="cord"):
        # No protocol: the kernel looks into the frames for it, as with those of others.
        self.socket = ethercord.frame_socket(namespace, interface, 0)

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.send(data)

    def send_super(self, header, data):
        """With a virtio header: the kernel cuts it if the interface does not take it whole."""
        self.socket.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        self.socket.send(header + data)
        self.socket.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 0)


class Wire:
    """UDP payloads seen at an interface, of IPv4 or IPv6 without extension headers."""

    def __init__(self, namespace, interface="wire"):
        self.capture = ethercord.Capture(namespace, interface)

    def close(self):
        self.capture.close()

    def take(self):
        """(source, destination port, payload) of all so far."""
        self.capture.take()
        result = []
        for data in map(bytes, self.capture.frames):
            ip = data[14:]
            if data[12:14] == b"\x08\x00" and ip[9] == 17 and not ip[6] & 0x3F and not ip[7]:
                source, udp = socket.inet_ntoa(ip[12:16]), ip[20:]
            elif data[12:14] == b"\x86\xdd" and ip[6] == 17:
                source, udp = socket.inet_ntop(socket.AF_INET6, ip[8:24]), ip[40:]
            else:
                continue
            _, port, length, _ = struct.unpack_from("!HHHH", udp)
            result.append((source, port, udp[8:length]))
        return result


def transfer(sender, receiver, address, megabytes=8, port=5002):
    """Random bytes through TCP: True when they come out as they went in. Namespaces."""
    data = os.urandom(1 << 20)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with receiver.entered():
        listener = socket.create_server((address, port), family=family)
    result = []

    def take():
        with listener, listener.accept()[0] as s:
            s.settimeout(PATIENCE)
            total = hashlib.sha256()
            while got := s.recv(1 << 18):
                total.update(got)
            result.append(total.digest())
    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    with sender.entered():
        s = socket.socket(family, socket.SOCK_STREAM)
    with s:
        s.settimeout(PATIENCE)
        s.connect((address, port))
        for _ in range(megabytes):
            s.sendall(data)
    thread.join(PATIENCE)
    return result == [hashlib.sha256(data * megabytes).digest()]


class Registers(ctypes.Structure):
    """struct user_regs_struct of x86-64."""
    _fields_ = [(name, ctypes.c_ulonglong) for name in
                ("r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags "
                 "rsp ss fs_base gs_base ds es fs gs").split()]


PTRACE_GETREGS, PTRACE_SETREGS, PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = \
    12, 13, 17, 0x4206, 0x4207


def inject_syscall(pid, number):
    """A process that waits in a system call makes another one when that is restarted (x86-64)."""
    def ptrace(request, data):
        assert ethercord.libc.ptrace(request, pid, None, data) == 0, os.strerror(ctypes.get_errno())
    ethercord.libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p,
                                      ctypes.c_void_p]
    registers = Registers()
    ptrace(PTRACE_SEIZE, None)
    ptrace(PTRACE_INTERRUPT, None)
    os.waitpid(pid, 0)
    ptrace(PTRACE_GETREGS, ctypes.addressof(registers))
    registers.orig_rax = 2 ** 64 - 1    # is not restarted by the kernel, but here:
    registers.rax = number
    registers.rip -= 2                  # the instruction syscall
    ptrace(PTRACE_SETREGS, ctypes.addressof(registers))
    ptrace(PTRACE_DETACH, None)
