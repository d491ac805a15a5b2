# SPDX-License-Identifier: GPL-2.0-or-later
"""What a carrier of frames between two namespaces does: throughput, processor time, round trips.

A sample is a dict of figures, with `other`: the processors that did something else meanwhile.
Processor time is that of two control groups (the carrier, and what loads it) and of ksoftirqd."""

import contextlib
import ctypes
import json
import os
import pathlib
import select
import signal
import subprocess
import time

import ethercord

PR_SET_PDEATHSIG = 1
TICK = 1 / os.sysconf("SC_CLK_TCK")
PORT = 5001
FRAME = 22  # bytes of UDP payload that make a frame of 64 bytes on a wire


class Group:
    """A control group that counts processor time, of cgroup v1 or v2."""

    def __init__(self, label):
        mount = self.find()
        self.path = pathlib.Path(mount, f"ecbench-{os.getpid()}-{label}")
        self.path.mkdir()
        self.usage = self.path / "cpuacct.usage"

    @staticmethod
    def find():
        unified = None
        for line in pathlib.Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
            _, mount, kind, options = line.split()[:4]
            if kind == "cgroup" and "cpuacct" in options.split(","):
                return mount
            if kind == "cgroup2":
                unified = mount
        if not unified:
            raise RuntimeError("no control groups that count processor time")
        return unified

    def seconds(self):
        if self.usage.exists():
            return int(self.usage.read_text(encoding="ascii")) / 1e9
        stat = (self.path / "cpu.stat").read_text(encoding="ascii")
        return int(stat.split("usage_usec ")[1].split()[0]) / 1e6

    def enter(self):
        with open(self.path / "cgroup.procs", "w", encoding="ascii") as f:
            f.write("0")

    def processes(self):
        return [int(pid) for pid in (self.path / "cgroup.procs").read_text("ascii").split()]

    def tasks(self):
        for pid in self.processes():
            with contextlib.suppress(FileNotFoundError):
                for task in os.listdir(f"/proc/{pid}/task"):
                    yield int(task)

    def end(self):
        """Nothing of it runs any more."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            with contextlib.suppress(AssertionError):
                return ethercord.wait_until(lambda: not self.alive(), "they end", 2)
        return None

    def alive(self):
        return [pid for pid in self.processes() if not self.is_zombie(pid)]

    @staticmethod
    def is_zombie(pid):
        try:
            stat = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        except OSError:
            return True
        return stat.rpartition(")")[2].split()[0] in "ZX"

    def close(self):
        self.end()
        with contextlib.suppress(AssertionError):
            ethercord.wait_until(self.remove, "the control group is empty", 2)

    def remove(self):
        try:
            self.path.rmdir()
        except OSError:
            return False
        return True


def remove_stale_groups():
    """Those of a run that was killed."""
    for path in pathlib.Path(Group.find()).glob("ecbench-*"):
        if not os.path.exists(f"/proc/{path.name.split('-')[1]}"):
            with contextlib.suppress(OSError):
                path.rmdir()


def spawn(namespace, group, *command, cpus=None, **more):
    """A process in a namespace and a group; ends with this one."""
    with open(f"/run/netns/{namespace.name}", "rb") as there:
        def enter():
            if ethercord.libc.setns(there.fileno(), ethercord.CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            ethercord.libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            group.enter()
            if cpus:
                os.sched_setaffinity(0, cpus)
        return subprocess.Popen([str(word) for word in command], preexec_fn=enter, **more)


class Clock:
    """Time on the wall and on the processors since the beginning."""

    def __init__(self, tunnel, load):
        self.groups = (tunnel, load)
        self.softirqs = [p.parent for p in pathlib.Path("/proc").glob("[0-9]*/comm")
                         if self.is_softirq(p)]
        self.begun = self.read()

    @staticmethod
    def is_softirq(comm):
        try:
            return comm.read_text(encoding="utf-8").startswith("ksoftirqd/")
        except OSError:
            return False

    def read(self):
        stat = pathlib.Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
        user, nice, system, _, _, irq, softirq, steal = map(int, stat[:8])
        soft = sum(int(p.joinpath("schedstat").read_text(encoding="ascii").split()[0])
                   for p in self.softirqs) / 1e9
        return (time.monotonic(), *(g.seconds() for g in self.groups), soft,
                (user + nice + system + irq + softirq + steal) * TICK)

    def since(self):
        wall, tunnel, load, soft, busy = (b - a for a, b in zip(self.begun, self.read()))
        return {"wall": wall, "tunnel_cpu": tunnel, "all_cpu": tunnel + load + soft,
                "other": max(0.0, (busy - tunnel - load - soft) / wall)}


class Gauges:
    """Measures what connects ends[0] to an address in ends[1]."""

    def __init__(self, lab, build, ends):
        self.packets = f"{build}/tests/bench-packets"
        self.ends = ends
        self.tunnel, self.load = lab.keep(Group("tunnel")), lab.keep(Group("load"))

    def clock(self):
        return Clock(self.tunnel, self.load)

    def run(self, *command, end=0, timeout=60, **more):
        """The JSON that it prints."""
        with spawn(self.ends[end], self.load, *command, stdout=subprocess.PIPE,
                   stderr=subprocess.PIPE, text=True, **more) as process:
            try:
                out, errors = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise RuntimeError(f"{command[0]} does not end") from None
        try:
            answer = json.loads(out)
        except ValueError:
            answer = {"error": errors.strip() or f"exit status {process.returncode}"}
        if "error" in answer:
            raise RuntimeError(f"{os.path.basename(command[0])}: {answer['error']}")
        return answer

    @contextlib.contextmanager
    def far(self, verb, address, cpus=None):
        """A tool at the far end, ready."""
        with spawn(self.ends[1], self.load, self.packets, verb, address, PORT, cpus=cpus,
                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                if process.stdout.readline() != "ready\n":
                    raise RuntimeError(f"cannot listen at {address}")
                yield process
            finally:
                process.kill()

    @contextlib.contextmanager
    def server(self):
        with spawn(self.ends[1], self.load, "iperf3", "-s", "-1", "--forceflush",
                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                for line in process.stdout:
                    if "listening" in line:
                        break
                else:
                    raise RuntimeError("iperf3 -s does not start")
                yield
            finally:
                process.kill()

    def fragments(self):
        with self.ends[0].entered():
            rows = [line.split() for line in open("/proc/thread-self/net/snmp", encoding="ascii")
                    if line.startswith("Ip:")]
        return int(rows[1][rows[0].index("FragCreates")])

    def tcp(self, address, streams, seconds):
        before = self.fragments()
        with self.server():
            clock = self.clock()
            done = self.run("iperf3", "-c", address, "-J", "-t", max(1, round(seconds)),
                            "-P", streams, timeout=seconds + 30)["end"]
            used = clock.since()
        gigabytes = done["sum_received"]["bytes"] / 1e9
        if gigabytes == 0:
            raise RuntimeError("iperf3: nothing crosses")
        return {**used, "gbps": done["sum_received"]["bits_per_second"] / 1e9,
                "cpu_gb": used["all_cpu"] / gigabytes, "tunnel_gb": used["tunnel_cpu"] / gigabytes,
                "retransmits": done["sum_sent"].get("retransmits", 0),
                "fragments": self.fragments() - before}

    def blast(self, address, rate, seconds):
        with self.far("sink", address) as sink:
            clock = self.clock()
            sent = self.run(self.packets, "blast", address, PORT, seconds, rate, FRAME)
            used = clock.since()
            ethercord.wait_until(self.settled(), "the last ones arrive", 2, 0.02)
            sink.stdin.close()
            got = json.loads(sink.stdout.read())
        return {**used, "sent": sent["sent"], "received": got["received"],
                "kpps": got["received"] / max(got["seconds"], 0.001) / 1e3,
                "cpu_us": used["all_cpu"] * 1e6 / max(got["received"], 1),
                "lost": 100 * (1 - got["received"] / max(sent["sent"], 1))}

    def settled(self):
        """A condition: since it was asked last, next to nothing was done."""
        last = [-1.0]

        def still():
            now = self.tunnel.seconds() + self.load.seconds()
            answer, last[0] = now - last[0] < 0.0005, now
            return answer
        return still

    def ping(self, address, number, gap=0, cpus=None):
        """Packets of 64 bytes there and back."""
        with self.far("echo", address, cpus):
            clock = self.clock()
            got = self.run(self.packets, "ping", address, PORT, number, gap, FRAME, cpus=cpus)
            if "p50" not in got:
                raise RuntimeError("no packet comes back")
            return {**clock.since(), **got}

    def pinned(self, address, number):
        """The same with all that takes part on one processor: nothing is ever idle."""
        cpu = {min(os.sched_getaffinity(0))}
        self.pin(cpu)
        try:
            return self.ping(address, number, 0, cpu)
        finally:
            self.pin(os.sched_getaffinity(0))

    def pin(self, cpus):
        for task in self.tunnel.tasks():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(task, cpus)

    def loaded(self, address, number, device):
        """Packets a millisecond apart while two streams fill the path."""
        with self.server(), spawn(self.ends[0], self.load, "iperf3", "-c", address, "-t", 60,
                                  "-P", 2, stdout=subprocess.DEVNULL) as streams:
            try:
                begun = self.received(device)
                ethercord.wait_until(lambda: self.received(device) > begun + 10_000_000,
                                     "the streams flow", 20, 0.02)
                begun = self.received(device)
                got = self.ping(address, number, 1000)
                got["gbps"] = (self.received(device) - begun) * 8e-9 / got["wall"]
                return got
            finally:
                streams.kill()

    def received(self, device, end=1):
        with self.ends[end].entered(), open("/proc/thread-self/net/dev", encoding="ascii") as f:
            return next(int(line.split(":")[1].split()[0]) for line in f
                        if line.strip().startswith(device + ":"))

    def quiet(self, device):
        """Until nothing has crossed for a while: connections that were cut still have much to say."""
        last = [None, time.monotonic()]

        def silent():
            now = [self.received(device, n) for n in (0, 1)]
            if now != last[0]:
                last[:] = now, time.monotonic()
            return time.monotonic() - last[1] >= 0.5
        with contextlib.suppress(AssertionError):  # some never are: they are measured as they are
            ethercord.wait_until(silent, "nothing crosses", 10, 0.05)

    def idle(self, seconds, device):
        """While nobody sends anything: each wake-up ends in a context switch."""
        self.quiet(device)

        def switches():
            total = 0
            for task in self.tunnel.tasks():
                text = pathlib.Path(f"/proc/{task}/status").read_text(encoding="ascii")
                total += sum(int(line.split()[1]) for line in text.splitlines()
                             if line.startswith("voluntary_ctxt"))
            return total
        clock, before = self.clock(), switches()
        gone = [os.pidfd_open(pid) for pid in self.tunnel.processes()]
        try:
            assert not select.select(gone, [], [], seconds)[0], "it ended while it was idle"
        finally:
            for fd in gone:
                os.close(fd)
        return {**clock.since(), "wakeups": (switches() - before) / seconds,
                "rss": max((self.resident(pid) for pid in self.tunnel.processes()), default=0)}

    @staticmethod
    def resident(pid):
        """MiB"""
        text = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        return int(text.split("VmRSS:")[1].split()[0]) / 1024 if "VmRSS:" in text else 0

    @contextlib.contextmanager
    def first(self, address, limit):
        """Sends until a packet is back: the function that is given tells when that was (s of
        CLOCK_MONOTONIC), and may be told that processes carry it. Begins before that."""
        with self.far("echo", "0.0.0.0"), \
                spawn(self.ends[0], self.load, self.packets, "first", address, PORT, limit,
                      stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            def when(processes=False):
                while True:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(0.2)
                        break
                    if processes and not self.tunnel.alive():
                        raise RuntimeError("no packet crosses: nothing runs any more;")
                if process.returncode:
                    raise RuntimeError(f"no packet crosses within {limit} s;")
                return json.loads(process.stdout.readline())["at"]
            try:
                if process.stdout.readline() != "ready\n":
                    raise RuntimeError("cannot send")
                yield when
            finally:
                process.kill()
