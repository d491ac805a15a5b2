# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels and devices that lack an offload: frames cross whole all the same, the worker goes back
as far as it has to and no further, and says what it does without."""

import errno
import os
import re
import shutil
import signal
import socket

import pytest

import ethercord
import worker
from control import Follow
from ethercord import FAR, NEAR, ping, wait_until
from worker import OFFLOADS, Pair, lacking, transfer
from workers import spec

ALL = set(OFFLOADS)
DEVICE = {"device_csum", "device_tso", "device_uso", "coalesce"}
# ETHERCORD_LACKS, the offloads that are left, and what is said of each that is not
KERNELS = {
    "UDP_SEGMENT": ("segment-option", ALL - {"udp_segment"}, ["UDP_SEGMENT", "Linux 4.18"]),
    "UDP_SEGMENT EIO": (f"segment-{errno.EIO}", ALL - {"udp_segment"},
                        ["UDP_SEGMENT", os.strerror(errno.EIO)]),
    "UDP_SEGMENT EINVAL": (f"segment-{errno.EINVAL}", ALL - {"udp_segment"},
                           ["UDP_SEGMENT", os.strerror(errno.EINVAL)]),
    "UDP_GRO": ("gro", ALL - {"udp_gro"}, ["UDP_GRO", "Linux 5.0"]),
    "USO": ("device-60", ALL - {"device_uso"}, ["UDP super-frames", "Linux 6.2"]),
    "TSO": ("device-6e", ALL - {"device_uso", "device_tso", "coalesce"},
            ["TCP super-frames", "TUN_F_TSO4"]),
    "checksums": ("device-6f", ALL - DEVICE, ["checksums", "TUN_F_CSUM"]),
    "all": ("segment-option,gro,device-6f", set(),
            ["UDP_SEGMENT", "UDP_GRO", "UDP super-frames", "TCP super-frames", "checksums"]),
}


def told(w):
    w.control.poll()
    return [text for kind, _, _, text in w.control.events if kind == worker.LACKS]


def whole(pair, megabytes=4):
    """TCP both ways, over IPv4 and IPv6, and full frames: byte for byte."""
    near, far = pair.namespaces
    assert transfer(near, far, "10.8.0.2", 1)
    before = [w.statistics for w in pair.workers]  # a device may have been late
    for address in ("10.8.0.2", "fd00:8::2"):
        assert transfer(near, far, address, megabytes)
    assert transfer(far, near, "10.8.0.1", megabytes)
    for w, were in zip(pair.workers, before):
        dropped = {k: n - were[k] for k, n in w.statistics.items() if "dropped" in k}
        assert not any(dropped.values()), dropped


def small(pair):
    """Some small packets at once each way: what is refused of them is not refused for its size."""
    for w, namespace, address in zip(pair.workers, pair.namespaces, ("10.8.0.2", "10.8.0.1")):
        w.process.send_signal(signal.SIGSTOP)
        wait_until(lambda w=w: w.status("State").startswith("T"), "it is stopped")
        with namespace.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            for _ in range(12):
                s.sendto(b"small", (address, 9))
        w.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("kind", ["gretap-fou", "vxlan", "tun-udp"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel_that_lacks(lab, kernel, kind):
    words, left, says = KERNELS[kernel]
    pair = Pair(lab, kind, environment=lacking(words), cord_mtu=1400)
    whole(pair)
    small(pair)
    for w in pair.workers:
        wait_until(lambda w=w: w.offloads == left, "it knows what it lacks")
        for word in says:
            assert any(word in text for text in told(w)), (word, told(w))
        # Once each.
        assert len(told(w)) == len(set(told(w)))
    seen = pair.near.statistics
    if "device_tso" not in left:
        assert seen["tx_segmented"] == 0
    if "coalesce" not in left:
        assert seen["rx_coalesced"] == 0


@pytest.mark.parametrize("kind,error", [("vxlan", errno.EINVAL), ("vxlan", errno.EMSGSIZE),
                                        ("gretap-fou", errno.EMSGSIZE)])
def test_large_ones_alone_are_refused(lab, kind, error):
    """Smaller datagrams still share messages: that is no lack, and not said to be one."""
    pair = Pair(lab, kind, environment=lacking(f"segment-{error}-1200"), cord_mtu=1400)
    near, far = pair.namespaces
    assert transfer(near, far, "10.8.0.2", 2)
    before = pair.near.statistics
    for namespace in pair.namespaces:
        namespace.ip("route", "replace", "10.8.0.0/24", "dev", "cord", "advmss", 900)
    assert transfer(near, far, "10.8.0.2", 4)
    seen = {k: n - before[k] for k, n in pair.near.statistics.items()}
    assert seen["tx_calls"] < seen["tx_datagrams"] / 4, seen
    assert pair.near.offloads == ALL and not told(pair.near)


def test_underlay_without_checksums(lab):
    """A device that leaves checksums to the kernel: older ones say EIO to UDP_SEGMENT then."""
    pair = Pair(lab, "gretap-fou", wire=True)
    for namespace in pair.namespaces:
        namespace.exec("ethtool", "-K", "wire", "tx", "off", "rx", "off")
    whole(pair)
    for w in pair.workers:
        assert ("udp_segment" in w.offloads) != any("UDP_SEGMENT" in text for text in told(w))


def test_configured_anew(lab):
    """Another path may do what the one before did not: it is tried again."""
    pair = Pair(lab, "raw-udp", environment=lacking(f"segment-{errno.EIO}"))
    whole(pair, 1)
    near = pair.near
    assert "udp_segment" not in near.offloads
    near.configure("10.9.0.2")
    assert "udp_segment" in near.offloads
    whole(pair, 1)
    assert "udp_segment" not in near.offloads
    assert sum("UDP_SEGMENT" in text for text in told(near)) == 2


# Through the daemon

def without(lab, words):
    """A daemon's program whose workers have a kernel that lacks these."""
    directory = lab.directory / "bin"
    directory.mkdir()
    shutil.copy(ethercord.DAEMON, directory / "ethercordd")
    script = directory / "ethercord-worker"
    more = " ".join(f"{key}={value}" for key, value in lacking(words).items())
    script.write_text(f"#!/bin/sh\n{more} exec {worker.PROGRAM}\n")
    script.chmod(0o755)
    return directory / "ethercordd"


@pytest.mark.skipif(ethercord.sanitized(), reason="a sanitizer comes first in a process")
@pytest.mark.parametrize("words,says,offloads", [
    (f"segment-{errno.EIO}", "not here: UDP GSO outside", ("udp_segment",)),
    ("gro,device-6e", "checksums, UDP GSO outside; not here: TCP segmentation, UDP segmentation, "
     "receive coalescing, UDP GRO outside",
     ("udp_gro", "device_tso", "device_uso", "coalesce"))])
def test_told_by_the_daemon(lab, words, says, offloads):
    sites = ethercord.Sites(lab, program=without(lab, words))
    other = lab.daemon(sites.far, "far")
    follow = Follow(lab, sites)
    for client, remote, address in ((other.bus.client, NEAR, "192.168.9.2/24"),
                                    (sites.client, FAR, "192.168.9.1/24")):
        client.add("t1", remote=remote, **spec("raw-udp", address=address))
        client.wait_state("t1", "up")
    assert ping(sites.near, "192.168.9.2", 3)
    assert transfer(sites.near, sites.far, "192.168.9.2", 4)
    assert transfer(sites.far, sites.near, "192.168.9.1", 4)
    bits = sum(OFFLOADS[name] for name in offloads)
    got = sites.client.get("t1")
    assert got["Statistics"]["offloads"] == sum(OFFLOADS.values()) & ~bits
    assert got["State"] == "up" and follow.wait("t1", "worker-lacks")["text"]
    status = sites.daemon.ctl("status", "t1", check=0).stdout
    assert says in status, status
    assert re.search(r"worker-lacks: .*(UDP_SEGMENT|UDP_GRO)", sites.daemon.text())
    whole = other.bus.client.get("t1")["Statistics"]["offloads"]
    assert whole == sum(OFFLOADS.values()), "the other end has all"
