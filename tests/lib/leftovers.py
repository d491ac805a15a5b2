# SPDX-License-Identifier: GPL-2.0-or-later
"""What outlives its daemon on purpose, and must not outlive its test."""

import contextlib
import os
import signal
import subprocess


def end_workers(namespace):
    """Those in a network namespace, which would not go while they are there."""
    found = subprocess.run(["ip", "netns", "pids", namespace], stdout=subprocess.PIPE, text=True,
                           check=False)
    for pid in found.stdout.split():
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/exe").endswith("/ethercord-worker"):
                os.kill(int(pid), signal.SIGKILL)
