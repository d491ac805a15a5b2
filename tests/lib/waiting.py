# SPDX-License-Identifier: GPL-2.0-or-later
"""Waiting for conditions, with a deadline."""

import time

PATIENCE = 10  # s, for what takes milliseconds on a machine that is not busy


def wait_until(condition, what, timeout=PATIENCE, interval=0.005):
    """The first true answer of condition()."""
    end = time.monotonic() + timeout
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < end, f"not within {timeout} s: {what}"
        time.sleep(interval)


def stays(condition, seconds, what, interval=0.005):
    """condition() holds all the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert condition(), what
        time.sleep(interval)
