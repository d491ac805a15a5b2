# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon is killed at every system call of a kind in turn; the next start ends as desired."""

import contextlib
import signal

import dbus
import pytest

import ethercord
from ethercord import FAR, bridge, wait_until
from killer import Killer

MOST = 120  # calls of one kind that an operation may take
SETTINGS = {"remote": FAR, "id": 1, "mode": "join-networks", "bridge": "br0", "attach": "cable"}


def survives(lab, sites, syscall, number, operation):
    """Whether the daemon came through the operation; if not, it runs again afterwards."""
    killer = Killer(lab, sites.daemon, syscall, number)
    answered = True
    try:
        operation()
    except dbus.DBusException as e:
        answered = False
        assert e.get_dbus_name() in ("org.freedesktop.DBus.Error.NoReply",
                                     "org.freedesktop.DBus.Error.ServiceUnknown"), e
    # What was killed after its answer is also killed.
    if answered:
        sites.near.ip("link", "set", "lo", "up")
    alive = not killer.end() and answered
    if not alive:
        sites.daemon.process.wait(10)
        wait_until(lambda: not sites.bus.has(), "the bus sees the daemon gone")
        sites.daemon.start()
    return alive


def flat(tree, at=""):
    """The leaves of nested dictionaries."""
    if isinstance(tree, dict):
        return [leaf for k, v in tree.items() for leaf in flat(v, f"{at}/{k}")]
    return [f"{at}={tree}"]


def restored(sites, base, when):
    """What is not the daemon's is as it was."""
    try:
        wait_until(lambda: sites.near.dump() == base, "")
    except AssertionError:
        now = sites.near.dump()
        other = [(a["ifname"], sorted(set(flat(b)) ^ set(flat(a)))) for a, b in
                 zip(base["links"], now["links"]) if a != b]
        raise AssertionError(f"{when}: {sorted(sites.near.links())}: {other}") from None


def check(sites, base):
    """All there, or nothing; and removing it leaves nothing. Answers whether it was there."""
    names = sites.client.tunnels()
    assert names in ([], ["t1"])
    if names:
        sites.client.wait_state("t1", "up")
        assert sites.near.master("ec-t1") == "br0" == sites.near.master("cable")
        assert sites.near.is_up("br0") and sites.near.is_up("ec-t1")
        link = sites.near.link("ec-t1")
        assert link["ifalias"] == "ethercord:t1"
        assert link["linkinfo"]["info_data"]["remote"] == FAR
        sites.client.on("t1", "Remove")
    restored(sites, base, "removed")
    for directory in (sites.daemon.tunnels, sites.daemon.runtime / "tunnels.d",
                      sites.daemon.runtime / "state", sites.daemon.state / "keys"):
        left = [p.name for p in directory.iterdir() if p.suffix not in (".new",)
                and p.name.endswith((".conf", "t1"))]
        assert not left, f"left in {directory.name}: {left}"
    return bool(names)


@pytest.fixture
def crashing(sites):
    sites.near.ip("link", "add", "cable", "type", "veth", "peer", "name", "cable2")
    sites.near.ips("link set cable up\nlink set cable2 up\n")
    return sites


CALLS = ["sendmsg", "rename", "fsync", "openat", "unlink"]
FLAGS = ["activate", "activate persist"]


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("syscall", CALLS)
def test_killed_while_adding(lab, crashing, syscall, flags):
    base = crashing.near.dump()
    outcomes = []
    for number in range(1, MOST):
        if survives(lab, crashing, syscall, number,
                    lambda: crashing.client.add("t1", flags, **SETTINGS, bridge_create=True)):
            assert check(crashing, base)
            break
        outcomes.append(check(crashing, base))
    else:
        raise AssertionError(f"more than {MOST} {syscall}")
    print(syscall, flags, outcomes)
    if syscall == "sendmsg":
        assert len(outcomes) > 8 and {True, False} == set(outcomes), "killed before and after"


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("syscall", CALLS)
def test_killed_while_removing(lab, crashing, syscall, flags):
    base = crashing.near.dump()
    outcomes = []
    for number in range(1, MOST):
        crashing.client.add("t1", flags, **SETTINGS, bridge_create=True)
        if survives(lab, crashing, syscall, number, lambda: crashing.client.on("t1", "Remove")):
            assert not check(crashing, base)
            break
        outcomes.append(check(crashing, base))
    else:
        raise AssertionError(f"more than {MOST} {syscall}")
    print(syscall, flags, outcomes)
    if syscall == "sendmsg":
        assert len(outcomes) > 2


@pytest.mark.parametrize("syscall", ["sendmsg", "rename", "unlink"])
@pytest.mark.parametrize("operation", ["add", "Deactivate", "Activate", "Remove"])
def test_attach_is_given_back_whenever_killed(lab, crashing, operation, syscall):
    """In a bridge that stays."""
    bridge(crashing.near)
    crashing.near.ip("link", "set", "br0", "address", "02:00:5e:10:00:99")
    base = crashing.near.dump()
    for number in range(1, MOST):
        if operation != "add":
            crashing.client.add("t1", "" if operation == "Activate" else "activate", **SETTINGS)

        def run():
            if operation == "add":
                crashing.client.add("t1", **SETTINGS)
            else:
                crashing.client.on("t1", operation)
        done = survives(lab, crashing, syscall, number, run)
        if "t1" in crashing.client.tunnels():
            crashing.client.on("t1", "Remove")
        restored(crashing, base, f"killed at {number}")
        if done:
            break
    assert number > 3 or syscall != "sendmsg"


@pytest.mark.parametrize("number", [1, 3, 5, 8, 12, 20, 40])
def test_killed_while_starting(lab, crashing, number):
    """A start that is killed, then a plain one."""
    crashing.client.add("t1", "activate persist", **SETTINGS, bridge_create=True)
    before = crashing.near.link("ec-t1")["ifindex"]
    crashing.daemon.kill()
    crashing.daemon.launch(("strace", "-f", "-o", "/dev/null", "-e", "trace=sendmsg", "-e",
                            f"inject=sendmsg:signal=KILL:when={number}"))
    wait_until(lambda: crashing.daemon.process.poll() is not None or crashing.bus.has(),
               "it is killed or through", 30)
    if crashing.daemon.process.poll() is None:
        # What it sends once it has its name may be its end as well.
        with contextlib.suppress(dbus.DBusException, ProcessLookupError):
            pid = crashing.client.connection.call_blocking(
                "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
                "GetConnectionUnixProcessID", "s", [ethercord.NAME])
            ethercord.os.kill(int(pid), signal.SIGKILL)
        crashing.daemon.process.wait(10)
    wait_until(lambda: not crashing.bus.has(), "the bus sees it gone")
    crashing.daemon.start()
    crashing.client.wait_state("t1", "up")
    assert crashing.near.link("ec-t1")["ifindex"] == before
    assert crashing.near.master("ec-t1") == "br0" == crashing.near.master("cable")
