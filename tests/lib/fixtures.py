# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures that contract and netns share."""

import os
import signal

import pytest

import ethercord
import nmbed

LIMIT = 120  # s per test


def pytest_sessionstart(session):
    if os.geteuid() != 0:
        pytest.exit("network namespaces need root", 1)
    for program in (ethercord.DAEMON, ethercord.CTL):
        if not program.exists():
            pytest.exit(f"there is no {program}: build first, or set ETHERCORD_BUILD", 1)
    ethercord.remove_stale_namespaces()


@pytest.fixture(autouse=True)
def time_limit(request):
    """For pytest without its plugin timeout."""
    if request.config.pluginmanager.hasplugin("timeout") and request.config.getvalue("timeout"):
        yield
        return

    def too_long(number, frame):
        raise TimeoutError(f"the test took longer than {LIMIT} s")
    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(LIMIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def lab():
    made = ethercord.Lab()
    yield made
    made.close()


@pytest.fixture
def sites(lab):
    return ethercord.Sites(lab)


@pytest.fixture
def fake(lab):
    """Sites whose near daemon has a VPN made of the file `vpn`, on the interface `wire`."""
    file = lab.directory / "vpn"
    made = ethercord.Sites(lab, program=ethercord.FAKE_DAEMON,
                           environment={"ETHERCORD_FAKE_UNDERLAY": str(file)})
    made.vpn, path = file, f"{ethercord.PATH}/underlay/wire"

    def vpn_up():
        """What is asked next is answered by a daemon that knows it."""
        file.write_text("wire 1400\n")
        ethercord.wait_until(lambda: made.client.objects()[path][ethercord.UNDERLAY]["State"] ==
                             "up", "the VPN is up")
    made.vpn_up = vpn_up
    made.near.ip("link", "set", "wire", "alias", "fake VPN")
    ethercord.wait_until(lambda: path in made.client.objects(), "the daemon sees the VPN")
    return made


@pytest.fixture
def bed(lab):
    return nmbed.Bed(lab)
