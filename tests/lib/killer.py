# SPDX-License-Identifier: GPL-2.0-or-later
"""Daemons that are killed in the midst of what they do."""

import pathlib
import signal
import subprocess

import dbus

from ethercord import PATH, PATIENCE, wait_until


class Killer:
    """strace, which kills a daemon when it enters its N-th call of a kind."""

    def __init__(self, lab, daemon, syscall, number):
        self.daemon = daemon
        self.process = lab.popen("strace", "-f", "-o", "/dev/null", "-e", f"trace={syscall}", "-e",
                                 f"inject={syscall}:signal=KILL:when={number}", "-p", daemon.pid,
                                 stderr=subprocess.DEVNULL)
        status = pathlib.Path(f"/proc/{daemon.pid}/status")
        # It may have struck already: echoes of what was done before make the daemon look, too.
        wait_until(lambda: self.process.poll() is not None or
                   f"TracerPid:\t{self.process.pid}\n" in status.read_text(), "strace looks on")

    def end(self):
        """Whether the daemon is dead. It may have been struck last of all, and be dying yet: who
        answers afterwards is alive."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.wait()
        try:
            self.daemon.bus.client.call(PATH, "org.freedesktop.DBus.Peer", "Ping")
        except dbus.DBusException:
            self.daemon.process.wait(PATIENCE)
        return self.daemon.process.poll() is not None
