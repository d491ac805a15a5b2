# SPDX-License-Identifier: GPL-2.0-or-later
"""What the worker's process gives up, and how little it needs: of a build without sanitizers, which
need more."""

import os
import pathlib
import platform
import re
import signal

import pytest

import worker
from ethercord import PATIENCE
from worker import Pair, Worker


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_sandbox(lab):
    pair = Pair(lab, "vxlan")
    near = pair.near
    for field in ("Uid", "Gid"):
        assert set(near.status(field).split()) == {"65534"}, field
    assert re.search(r"^Groups:\s*$", near.proc("status"), re.MULTILINE)
    for field in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(near.status(field), 16) == 0, field
    assert near.status("NoNewPrivs") == "1"
    if near.sanitized:
        pytest.skip("a build with sanitizers has no filter")
    assert near.status("Seccomp") == "2"
    limits = near.proc("limits")
    assert re.search(r"Max open files +4096 +4096 ", limits)
    assert re.search(r"Max file size +0 +0 ", limits)
    # /proc/PID belongs to root when it may not be looked into.
    assert pathlib.Path(f"/proc/{near.process.pid}/fd").stat().st_uid == 0
    assert os.listdir(f"/proc/{near.process.pid}/root/") == []


@pytest.mark.skipif(platform.machine() != "x86_64", reason="knows the registers of x86-64")
def test_forbidden_call_kills(lab):
    """A debugger makes the worker call what is not on its list: getppid(2)."""
    w = Worker(lab, lab.namespace("near"), "vxlan")
    if w.sanitized:
        pytest.skip("a build with sanitizers has no filter")
    worker.inject_syscall(w.process.pid, 110)
    assert w.process.wait(PATIENCE) == -signal.SIGSYS


def test_without_root(lab):
    """Who is not root stays who it is."""
    w = Worker(lab, lab.namespace("near"), "raw-udp", user=12345, group=12346, extra_groups=[])
    assert set(w.status("Uid").split()) == {"12345"}
    assert set(w.status("Gid").split()) == {"12346"}
    assert w.status("NoNewPrivs") == "1"
    assert int(w.status("CapEff"), 16) == 0
    w.configure("127.0.0.1", sock=w.new_socket("127.0.0.1"))


def test_memory(lab):
    pair = Pair(lab, "vxlan", flags=["split", "join"], cord_mtu=1500)
    if pair.near.sanitized:
        pytest.skip("a build with sanitizers is larger")
    assert worker.transfer(*pair.namespaces, "10.8.0.2", 64)
    assert worker.transfer(*reversed(pair.namespaces), "10.8.0.1", 64)
    for w in pair.workers:
        assert w.resident < 10240
