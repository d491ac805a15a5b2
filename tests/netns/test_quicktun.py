# SPDX-License-Identifier: GPL-2.0-or-later
"""QuickTun itself, its protocol `raw`, at the far end of a tunnel made as README.md says."""

import os
import re
import subprocess

import pytest

from ethercord import FAR, NEAR, ROOT, bridge, ping, wait_until


@pytest.fixture
def quicktun(sites):
    """As ifupdown starts Debian's."""
    settings = {"INTERFACE": "tap0", "TUN_MODE": "0", "PROTOCOL": "raw", "LOCAL_ADDRESS": FAR,
                "REMOTE_ADDRESS": NEAR, "LOCAL_PORT": "2998", "REMOTE_PORT": "2998"}
    environment = {"IFACE": "tap0", **{f"IF_QT_{k}": v for k, v in settings.items()}}
    program = sites.lab.popen("ip", "netns", "exec", sites.far.name, "quicktun",
                              env={**os.environ, **environment}, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    wait_until(lambda: sites.far.link("tap0") or program.poll() is not None, "its interface")
    assert program.poll() is None
    sites.far.ip("link", "set", "tap0", "mtu", "1458", "up")
    return sites


def command(remote, *more):
    """README's, with this place's addresses and no VPN."""
    [line] = re.findall(r"^ethercordctl (add lab .*data-port=2998.*)$",
                        (ROOT / "README.md").read_text(), re.MULTILINE)
    return [*line.replace("remote=10.8.0.2", f"remote={remote}").split(), "underlay=any", *more]


def test_point_to_point(quicktun):
    quicktun.far.ip("addr", "add", "192.168.9.2/24", "dev", "tap0")
    quicktun.daemon.ctl(*command(FAR), check=0)
    got = quicktun.client.get("lab")
    assert (got["DataPlane"], got["Mtu"]) == ("user", 1458)
    assert ping(quicktun.near, "192.168.9.2", 5)
    assert ping(quicktun.near, "192.168.9.2", size=1458 - 28, df=True)
    assert ping(quicktun.far, "192.168.9.1", 5)


def test_bridged(quicktun):
    """Full frames: QuickTun's kernel puts the outer fragments together, and makes such itself."""
    bridge(quicktun.near, "br0")
    quicktun.far.ip("link", "set", "tap0", "mtu", "1500")
    quicktun.far.ip("addr", "add", "192.168.9.2/24", "dev", "tap0")
    host = quicktun.lab.host(quicktun.near, "br0", "192.168.9.1/24", "host")
    quicktun.daemon.ctl(*[w for w in command(FAR) if not w.startswith("address=")],
                        "mode=join-remote", "bridge=br0", check=0)
    assert quicktun.client.get("lab")["Mtu"] == 1500
    assert ping(host, "192.168.9.2", 3, size=1472)
    assert ping(quicktun.far, "192.168.9.1", 3, size=1472)
