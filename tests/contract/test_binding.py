# SPDX-License-Identifier: GPL-2.0-or-later
"""Tunnels of profiles of NetworkManager: they live as long as who holds them, and a grace longer."""

import base64
import contextlib
import signal
import socket
import time

import dbus.lowlevel
import pytest

import ethercord
from ethercord import FAR, Client, refused, stays, wait_until

UUID = "3c8b6d52-0c54-4f0e-9f2b-2f5f0a1c7d11"
OTHER = "f7b5a6e0-93b1-4f0c-8a3c-1d3f6a2b4c55"
NETWORKMANAGER = "org.freedesktop.NetworkManager"
KEY = base64.b64encode(bytes(range(32))).decode()
GRACE = 1  # s; 12 and 3 of them around a restart of NetworkManager


@pytest.fixture
def bound(lab):
    """Sites with a short grace, where NetworkManager is on the bus."""
    made = ethercord.Sites(lab, start=False)
    (made.daemon.config / "ethercord.conf").write_text(f"[daemon]\nprofile-grace={GRACE}\n")
    ethercord.far_vxlan(made.far, "far-t1", 1, mtu=1450)
    made.nm = lab.keep(Client(made.bus.address))
    made.nm.connection.request_name(NETWORKMANAGER)
    made.daemon.start()
    return made


def service(lab, bound, flags="activate", **settings):
    """A caller with a connection of its own, that has added the tunnel."""
    client = lab.keep(Client(bound.bus.address))
    client.add("t1", flags, **{"remote": FAR, "id": 1, "profile": UUID, **settings})
    return client


def is_gone(bound):
    return bound.client.tunnels() == [] and bound.near.link("ec-t1") is None


def wait_gone(bound, after, since):
    """It is removed this long after `since`, not before."""
    wait_until(lambda: is_gone(bound), "the tunnel is removed", after + 10)
    took = time.monotonic() - since
    assert took >= after * 0.95, f"removed after {took:.2f} s, not {after}"
    assert took < after + 3, f"removed after {took:.2f} s, not {after}"


class KernelEvents:
    """Whether the kernel told of any change of links, addresses, routes or rules. It tells before
    the request that made the change is answered."""

    GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400 | 0x80

    def __init__(self, namespace):
        with namespace.entered():
            self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            self.socket.bind((0, self.GROUPS))

    def count(self):
        seen = 0
        with contextlib.suppress(BlockingIOError):
            while self.socket.recv(65536, socket.MSG_DONTWAIT):
                seen += 1
        return seen

    def close(self):
        self.socket.close()


def test_removed_when_its_holder_left(lab, bound):
    holder = service(lab, bound)
    assert bound.client.get("t1")["Settings"]["profile"] == UUID
    index = bound.near.ifindex("ec-t1")
    since = time.monotonic()
    holder.close()
    stays(lambda: bound.near.ifindex("ec-t1") == index, GRACE * 0.5, "it is kept for the grace")
    wait_gone(bound, GRACE, since)
    assert not list((bound.daemon.runtime / "tunnels.d").iterdir())
    assert "NetworkManager is gone" in bound.daemon.text()


def test_stays_while_its_holder_is_there(lab, bound):
    service(lab, bound)
    other = lab.keep(Client(bound.bus.address))
    assert other.state("t1") == "up"
    other.close()
    stays(lambda: bound.client.state("t1") == "up", GRACE * 2, "somebody else left", 0.05)


def test_a_holder_that_is_gone_already(lab, bound):
    """The call is read when its sender has left: nobody would ever tell that it did."""
    raw = lab.keep(Client(bound.bus.address))
    with refused("NoSuchTunnel"):  # who that is is known from now on
        raw.call(ethercord.PATH, ethercord.MANAGER, "GetTunnel", "s", "t1")
    bound.daemon.process.send_signal(signal.SIGSTOP)
    settings = ethercord.typed({"name": "t1", "remote": FAR, "id": 1, "profile": UUID,
                                "control": "static", "underlay": "any", "encapsulation": "vxlan"})
    message = dbus.lowlevel.MethodCallMessage(ethercord.NAME, ethercord.PATH, ethercord.MANAGER,
                                              "AddTunnel")
    message.append(settings, "activate", signature="a{sv}s")
    message.set_no_reply(True)
    raw.connection.send_message(message)
    raw.connection.flush()
    raw.close()
    bound.daemon.process.send_signal(signal.SIGCONT)
    wait_until(lambda: "t1: up" in bound.daemon.text(), "the call is taken")
    wait_until(lambda: is_gone(bound), "nothing stays", GRACE + 5)


@pytest.mark.parametrize("settings, flags", [({"profile": None}, "activate"),
                                             ({}, "persist activate")])
def test_not_bound(lab, bound, settings, flags):
    """Without a profile, and what is to last."""
    holder = service(lab, bound, flags, **settings)
    holder.close()
    stays(lambda: bound.client.state("t1") == "up", GRACE * 2, "it is bound to nobody", 0.05)
    bound.daemon.restart()
    stays(lambda: bound.client.state("t1") == "up", GRACE * 2, "it is bound to nobody", 0.05)


def test_adopted_without_a_flap(lab, bound):
    first = service(lab, bound, key=KEY)
    index = bound.near.ifindex("ec-t1")
    key = bound.daemon.state / "keys/t1"
    written = key.stat().st_mtime_ns
    flow = bound.flow()
    events = lab.keep(KernelEvents(bound.near))
    bound.near.ip("link", "set", "ec-t1", "mtu", "1449")
    wait_until(lambda: bound.near.link("ec-t1")["mtu"] == 1450, "the daemon mends")
    assert events.count() > 0
    first.close()
    signals = lab.signals(bound.daemon)
    second = service(lab, bound, key=KEY)
    assert signals.changes(ethercord.tunnel_path("t1")) == []
    assert events.count() == 0
    stays(lambda: bound.near.ifindex("ec-t1") == index, GRACE * 2, "it has a holder again")
    assert key.stat().st_mtime_ns == written
    assert flow.stop(1000) == [], "not a frame is lost"
    since = time.monotonic()
    second.close()
    wait_gone(bound, GRACE, since)
    assert not key.exists()


def test_adopted_while_the_first_is_there(lab, bound):
    """A program that NetworkManager forgot has nothing to say any more."""
    first = service(lab, bound)
    index = bound.near.ifindex("ec-t1")
    second = service(lab, bound)
    with refused("Busy", "t1"):  # as who is told late that it was taken down
        first.on("t1", "Remove")
    first.close()
    stays(lambda: bound.near.ifindex("ec-t1") == index, GRACE * 2, "the second holds it")
    since = time.monotonic()
    second.close()
    wait_gone(bound, GRACE, since)


def test_adopted_with_other_settings(lab, bound):
    """They replace those there were, also what is no longer given."""
    first = service(lab, bound, ttl=9, mtu=1300)
    index = bound.near.ifindex("ec-t1")
    assert bound.near.link("ec-t1")["mtu"] == 1300
    first.close()
    service(lab, bound, ttl=10)
    link = bound.near.link("ec-t1")
    assert link["ifindex"] == index and link["mtu"] == 1450
    assert link["linkinfo"]["info_data"]["ttl"] == 10
    assert bound.client.get("t1")["Settings"] == {
        "name": "t1", "remote": [FAR], "id": 1, "profile": UUID, "control": "static",
        "underlay": "any", "encapsulation": ["vxlan"], "ttl": 10}


def test_adopted_with_bad_settings(lab, bound):
    """It stays as it was, and whose it was."""
    first = service(lab, bound)
    index = bound.near.ifindex("ec-t1")
    with refused("InvalidSetting", "bridge"):
        service(lab, bound, bridge="br0")
    assert bound.near.ifindex("ec-t1") == index and bound.client.state("t1") == "up"
    since = time.monotonic()
    first.close()
    wait_gone(bound, GRACE, since)


def test_activated_when_it_is_adopted(lab, bound):
    service(lab, bound)
    bound.client.on("t1", "Deactivate")
    assert bound.near.link("ec-t1") is None
    service(lab, bound, flags="")
    assert bound.client.state("t1") == "down"
    service(lab, bound)
    assert bound.client.state("t1") == "up" and bound.near.link("ec-t1")


@pytest.mark.parametrize("profile", [OTHER, None])
def test_another_profile_does_not_adopt(lab, bound, profile):
    service(lab, bound)
    index = bound.near.ifindex("ec-t1")
    with refused("Exists", "t1"):
        service(lab, bound, profile=profile)
    with refused("Exists", "t1"):
        service(lab, bound, "persist activate")
    assert bound.near.ifindex("ec-t1") == index
    assert bound.client.get("t1")["Settings"]["profile"] == UUID


def test_no_profile_is_never_adopted(lab, bound):
    service(lab, bound, profile=None)
    for profile in (None, UUID):
        with refused("Exists", "t1"):
            service(lab, bound, profile=profile)


def test_a_tunnel_keeps_its_profile(lab, bound):
    service(lab, bound)
    for profile in (OTHER, ""):
        with refused("InvalidSetting", "profile"):
            bound.client.update("t1", profile=profile)
    bound.client.update("t1", mtu=1300)
    assert bound.client.get("t1")["Settings"]["profile"] == UUID


def test_exported_as_nobody_s(lab, bound):
    """What is made of a file is bound to no profile."""
    service(lab, bound)
    shown = bound.daemon.ctl("export", "t1", "--as", "keyfile", check=0).stdout
    assert "id=1\n" in shown and "profile" not in shown and UUID not in shown


def test_removed_by_its_holder(lab, bound):
    holder = service(lab, bound)
    holder.on("t1", "Remove")
    holder.close()
    bound.client.add("t1", remote=FAR, id=1)
    stays(lambda: bound.client.state("t1") == "up", GRACE * 2, "another tunnel of that name", 0.05)


def test_longer_while_networkmanager_is_away(lab, bound):
    holder = service(lab, bound)
    index = bound.near.ifindex("ec-t1")
    bound.nm.connection.release_name(NETWORKMANAGER)
    holder.close()
    stays(lambda: bound.near.ifindex("ec-t1") == index, GRACE * 4,
          "it waits for NetworkManager")
    back = time.monotonic()
    bound.nm.connection.request_name(NETWORKMANAGER)
    stays(lambda: bound.near.ifindex("ec-t1") == index, GRACE * 2,
          "it waits for what NetworkManager starts")
    wait_gone(bound, GRACE * 3, back)


def test_networkmanager_does_not_come_back(lab, bound):
    bound.nm.connection.release_name(NETWORKMANAGER)
    holder = service(lab, bound)
    since = time.monotonic()
    holder.close()
    wait_gone(bound, GRACE * 12, since)


def test_adopted_after_networkmanager_came_back(lab, bound):
    holder = service(lab, bound)
    index = bound.near.ifindex("ec-t1")
    bound.nm.connection.release_name(NETWORKMANAGER)
    holder.close()
    bound.nm.connection.request_name(NETWORKMANAGER)
    stays(lambda: bound.near.ifindex("ec-t1") == index, GRACE * 1.5, "it waits")
    service(lab, bound)
    stays(lambda: bound.near.ifindex("ec-t1") == index, GRACE * 3, "it has a holder")


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_daemon_restarts(lab, bound, end):
    """Nobody holds what is there then: who does not come within the grace does not want it."""
    service(lab, bound)
    index = bound.near.ifindex("ec-t1")
    getattr(bound.daemon, end)()
    assert bound.near.ifindex("ec-t1") == index
    bound.daemon.start()
    service(lab, bound)
    assert bound.near.ifindex("ec-t1") == index
    stays(lambda: bound.near.ifindex("ec-t1") == index, GRACE * 2, "it is held again")
    getattr(bound.daemon, end)()
    since = time.monotonic()
    bound.daemon.start()
    wait_gone(bound, GRACE, since)


JOURNAL = """set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal
ln -s "$1" /run/systemd/journal/socket
shift
exec "$@"
"""


def entries(journal):
    """What came to this socket, as dictionaries."""
    seen = []
    with contextlib.suppress(BlockingIOError):
        while datagram := journal.recv(65536, socket.MSG_DONTWAIT).decode():
            seen.append(dict(line.split("=", 1) for line in datagram.splitlines() if "=" in line))
    return seen


def test_journal_names_the_connection(lab):
    """nmcli's hint is `journalctl NM_CONNECTION=UUID`: what is about the tunnel is there, and
    nothing else."""
    path = lab.directory / "journal"
    journal = lab.keep(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    journal.bind(str(path))
    sites = ethercord.Sites(lab, start=False, foreground=False,
                            wrapper=("unshare", "--mount", "sh", "-c", JOURNAL, "sh", str(path)))
    sites.daemon.start()
    sites.client.add("t1", remote=FAR, id=1, profile=UUID)
    sites.client.add("t2", remote=FAR, id=2)
    seen = entries(journal)
    about = {name: [e for e in seen if e.get("ETHERCORD_TUNNEL") == name] for name in ("t1", "t2")}
    assert [e["ETHERCORD_STATE"] for e in about["t1"]] == ["up"]
    assert all(e["NM_CONNECTION"] == UUID for e in about["t1"])
    assert about["t2"] and not any("NM_CONNECTION" in e for e in about["t2"])
    assert not any("NM_CONNECTION" in e for e in seen if "ETHERCORD_TUNNEL" not in e)
