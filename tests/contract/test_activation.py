# SPDX-License-Identifier: GPL-2.0-or-later
"""Started by the bus where there is no systemd, gone when idle, back with the next call."""

import os
import pathlib

import dbus
import pytest

import ethercord
from ethercord import DAEMON, FAR, NAME, PATH, Client, wait_until


class Activated:
    """A bus that starts the daemon when it is asked for."""

    def __init__(self, lab):
        self.near = lab.namespace("near")
        self.far = lab.namespace("far")
        ethercord.wire(self.near, self.far)
        self.bus = lab.bus()
        self.directory = lab.directory / "d"
        (self.directory / "etc/tunnels.d").mkdir(parents=True)
        (self.directory / "etc/ethercord.conf").write_text("[daemon]\nidle-timeout=1\n")
        words = ["ip", "netns", "exec", self.near.name, DAEMON, "--config-dir",
                 self.directory / "etc", "--state-dir", self.directory / "var", "--runtime-dir",
                 self.directory / "run"]
        (self.bus.directory / f"services/{NAME}.service").write_text(
            f"[D-BUS Service]\nName={NAME}\nExec=/usr/bin/env {' '.join(map(str, words))}\n"
            "User=root\n")
        self.client = lab.keep(Client(self.bus.address))
        self.client.connection.call_blocking("org.freedesktop.DBus", "/org/freedesktop/DBus",
                                             "org.freedesktop.DBus", "ReloadConfig", "", ())
        lab.stack.callback(self.end)

    def end(self):
        pid = self.pid()
        if pid:
            os.kill(pid, 15)
            wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "it ends")

    def pid(self):
        """0 when it does not run."""
        try:
            return int(self.client.connection.call_blocking(
                "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
                "GetConnectionUnixProcessID", "s", [NAME]))
        except dbus.DBusException:
            return 0

    def version(self):
        return self.client.call(PATH, ethercord.PROPERTIES, "Get", "ss", ethercord.MANAGER,
                                "Version")


@pytest.fixture
def activated(lab):
    return Activated(lab)


def test_starts_ends_when_idle_and_starts_again(activated):
    assert activated.pid() == 0
    assert activated.version()
    first = activated.pid()
    assert first
    command = pathlib.Path(f"/proc/{first}/cmdline").read_text()
    assert "ethercordd" in command and "--foreground" not in command
    wait_until(lambda: not activated.pid(), "it leaves when idle", 10)
    wait_until(lambda: not os.path.exists(f"/proc/{first}"), "the process is gone")
    assert activated.version()
    assert activated.pid() not in (0, first)


def test_calls_keep_it(activated):
    activated.version()
    first = activated.pid()
    ethercord.stays(activated.version, 2, "it answers", 0.2)
    assert activated.pid() == first


def test_a_tunnel_keeps_it(activated):
    activated.client.add("t1", flags="", remote=FAR, id=1)
    first = activated.pid()
    ethercord.stays(lambda: activated.pid() == first, 2.5, "it left a tunnel alone", 0.05)
    activated.client.on("t1", "Remove")
    wait_until(lambda: not activated.pid(), "it leaves when idle", 10)


def test_a_listener_keeps_it_while_it_is_wanted(activated):
    activated.client.listen("l1", port=65301)
    first = activated.pid()
    ethercord.stays(lambda: activated.pid() == first, 2.5, "it left its port alone", 0.05)
    activated.client.on_listener("l1", "Deactivate")
    wait_until(lambda: not activated.pid(), "it leaves when idle", 10)
    # The next call finds the listener as it was.
    assert activated.client.get_listener("l1")["State"] == "down"
    activated.client.on_listener("l1", "Remove")


def test_no_call_is_lost_when_it_leaves(activated):
    """Calls that come just when it goes are answered, by it or by the next."""
    pids = set()
    for i in range(4):
        activated.version()
        pids.add(activated.pid())
        # Around the moment of leaving, in steps shorter than leaving takes.
        ethercord.stays(lambda: True, 0.98 + i * 0.01, "", 0.002)
        for _ in range(5):
            assert activated.version()
    assert pids - {0}


def test_tunnels_come_back_with_the_next_call(activated):
    """A crash: the kernel carries on; the next call finds everything."""
    activated.client.add("t1", remote=FAR, id=1)
    index = activated.near.ifindex("ec-t1")
    first = activated.pid()
    os.kill(first, 9)
    wait_until(lambda: not activated.pid(), "it is gone")
    assert activated.near.ifindex("ec-t1") == index
    assert activated.client.state("t1") == "up"
    assert activated.pid() != first and activated.near.ifindex("ec-t1") == index
    activated.client.on("t1", "Remove")
    assert activated.near.link("ec-t1") is None


def test_second_daemon_on_one_bus(lab, sites):
    """It says why it does not run, and touches nothing."""
    sites.tunnel()
    before = sites.near.dump()
    other = ethercord.Daemon(sites.near, sites.bus, lab.directory / "other")
    other.launch()
    assert other.process.wait(30) == 1
    assert "another ethercordd" in other.text()
    assert sites.near.dump() == before and sites.client.state("t1") == "up"


def test_no_bus(lab):
    near = lab.namespace("near")
    directory = lab.directory / "d"
    done = near.exec(DAEMON, "--foreground", "--config-dir", directory / "etc", "--state-dir",
                     directory / "var", "--runtime-dir", directory / "run", check=False,
                     env=dict(os.environ, DBUS_SYSTEM_BUS_ADDRESS="unix:path=/nonexistent/bus"))
    assert done.returncode == 1 and "bus" in done.stderr


@pytest.mark.parametrize("words, code", [(["--help"], 0), (["--version"], 0), (["--nonsense"], 1),
                                         (["extra"], 1), (["--config-dir"], 1)])
def test_arguments(words, code):
    done = ethercord.run(DAEMON, *words, check=False)
    assert done.returncode == code
    assert (done.stdout if code == 0 else done.stderr).strip()
