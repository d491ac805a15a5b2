# SPDX-License-Identifier: GPL-2.0-or-later
"""What is asked of NetworkManager, played by a mock: connections that come up with another one, and
those whose tunnels outlived it."""

import os
import pathlib
import signal

import pytest

import ethercord
import mocknm
from ethercord import FAR, Client, stays, wait_until
from mocknm import NM_PATH, identity

VPN = "Office"
ACTIVATE = "ActivateConnection"


class World:
    def __init__(self, lab, own=True, start=True, **more):
        self.lab = lab
        self.sites = ethercord.Sites(lab, start=False, **more)
        self.daemon, self.client = self.sites.daemon, self.sites.client
        (self.daemon.config / "ethercord.conf").write_text(
            "[daemon]\nprofile-grace=1\nidle-timeout=1\n")
        self.nm = mocknm.NetworkManager(lab, self.sites.bus, own)
        self.asked = []
        if start:
            self.start()

    def start(self):
        self.daemon.start()
        if self.sites.bus.has(mocknm.NM):
            self.reads()

    def reads(self):
        """It has read the profiles and looked at what is active."""
        seen = []

        def done():
            new = self.nm.calls()
            seen.extend(c[1] for c in new)
            self.asked += [c for c in new if c[1] == ACTIVATE]
            return "Get" in seen
        wait_until(done, "the daemon reads what there is")
        self.settle()

    def settle(self):
        """What the mock told before is known, and what that led to was asked."""
        for _ in range(8):
            self.client.call(ethercord.PATH, "org.freedesktop.DBus.Peer", "Ping")
            self.nm.ping()

    def activations(self):
        """[profile, device, specific object] of each request since the last time."""
        self.settle()
        asked, self.asked = self.asked, []
        return [c[2:] for c in asked + self.nm.calls(ACTIVATE)]

    def service(self):
        """Who brings a tunnel up for NetworkManager."""
        client = self.lab.keep(Client(self.sites.bus.address))
        client.add("cord", remote=FAR, id=1, profile=identity("cord"))
        return client

    def left(self, **more):
        """A connection that is up when NetworkManager goes, and its holder with it."""
        cord = self.nm.profile("cord", **more)
        service = self.service()
        self.nm.own(False)
        service.close()
        return cord


@pytest.fixture
def world(lab):
    return World(lab)


@pytest.mark.parametrize("by", [VPN, identity(VPN)])
@pytest.mark.parametrize("type", ["vpn", "wireguard"])
def test_up_with(world, by, type):
    cord = world.nm.profile("cord", up_with=by)
    world.nm.profile("other", up_with="elsewhere")
    world.nm.profile("plain")
    world.nm.profile("foreign", up_with=by, service=f"{mocknm.NM}.openvpn")
    vpn = world.nm.active(VPN, state=1, type=type)
    assert world.activations() == []
    world.nm.active(VPN, path=vpn, type=type)
    assert world.activations() == [[cord, "/", "/"]]
    assert f"up with {VPN}" in world.daemon.text()
    # Again when it comes again.
    world.nm.active(VPN, state=mocknm.DEACTIVATED, path=vpn)
    assert world.activations() == []
    world.nm.active(VPN, type=type)
    assert world.activations() == [[cord, "/", "/"]]


def test_several_with_one(world):
    cords = {world.nm.profile(f"cord{i}", up_with=VPN) for i in range(5)}
    world.nm.active(VPN)
    assert {a[0] for a in world.activations()} == cords


def test_with_two_at_once(world):
    """Ids are not unique: whichever it comes up with, it is brought up once."""
    cord = world.nm.profile("cord", up_with=VPN)
    both = [world.nm.active(VPN, state=1, tell=False) for _ in range(2)]
    world.settle()
    os.kill(world.daemon.pid, signal.SIGSTOP)
    for path in both:
        world.nm.active(VPN, path=path)
    os.kill(world.daemon.pid, signal.SIGCONT)
    assert world.activations() == [[cord, "/", "/"]]


def test_never_with_itself_or_with_a_device(world):
    world.nm.profile("loop", up_with="loop")
    world.nm.active("loop")
    world.nm.profile("cord", up_with="Wired")
    world.nm.active("Wired", type="802-3-ethernet")
    assert world.activations() == []


def test_profiles_that_change(world):
    path = world.nm.profile("cord")
    world.nm.active(VPN)
    assert world.activations() == []
    world.nm.profile("cord", up_with=VPN, path=path)
    assert world.activations() == [], "the next time it comes up"
    world.nm.active(VPN)
    assert world.activations() == [[path, "/", "/"]]
    world.nm.profile("cord", up_with="", path=path)
    world.nm.active(VPN)
    assert world.activations() == []
    world.nm.profile("cord", up_with=VPN, path=path)
    world.nm.remove(path)
    world.nm.active(VPN)
    assert world.activations() == []


def test_already_up(world):
    """Nothing to do is no complaint."""
    world.nm.profile("cord", up_with=VPN)
    world.nm.refuse("cord", "ConnectionAlreadyActive")
    world.nm.active(VPN)
    assert len(world.activations()) == 1
    world.nm.active("cord", state=1)
    world.nm.active(VPN)
    assert world.activations() == []
    assert "does not bring" not in world.daemon.text()


@pytest.mark.parametrize("reason", [mocknm.SERVICE_STOPPED, mocknm.USER])
def test_about_to_end(world, reason):
    """It rode on what the VPN was before, and is asked for as soon as it has ended by itself."""
    cord = world.nm.profile("cord", up_with=VPN)
    up = world.nm.active("cord")
    world.nm.active(VPN)
    assert world.activations() == []
    world.nm.active("cord", state=3, path=up, reason=reason)
    assert world.activations() == []
    world.nm.active("cord", state=mocknm.DEACTIVATED, path=up, reason=reason)
    assert world.activations() == ([[cord, "/", "/"]] if reason != mocknm.USER else [])
    up = world.nm.active("cord")
    world.nm.active("cord", state=mocknm.DEACTIVATED, path=up, reason=mocknm.SERVICE_STOPPED)
    assert world.activations() == [], "once"


def test_without_a_default_route(world):
    """It rides on what it came with."""
    cord = world.nm.profile("cord", up_with=VPN)
    world.nm.refuse("cord", "UnknownConnection")
    vpn = world.nm.active(VPN)
    assert world.activations() == [[cord, "/", "/"], [cord, "/", vpn]]
    assert "does not bring" not in world.daemon.text()


@pytest.mark.parametrize("error, word", [("UnknownConnection", "refused by the mock"),
                                         ("PermissionDenied", "org.ethercord1.rules")])
def test_refused(world, error, word):
    world.nm.profile("cord", up_with=VPN)
    world.nm.refuse("cord", error, error)
    world.nm.active(VPN)
    world.activations()
    lines = [line for line in world.daemon.text().splitlines() if "does not bring" in line]
    assert len(lines) == 1 and identity("cord") in lines[0] and word in lines[0] and VPN in lines[0]


def test_up_before_the_daemon(lab):
    """And followed once, whatever becomes of the daemon."""
    world = World(lab, start=False)
    cord = world.nm.profile("cord", up_with=VPN)
    world.nm.active(VPN)
    world.start()
    assert world.activations() == [[cord, "/", "/"]]
    world.daemon.restart()
    world.reads()
    assert world.activations() == []
    world.daemon.kill()
    world.daemon.start()
    world.reads()
    assert world.activations() == []
    world.nm.active(VPN)
    assert world.activations() == [[cord, "/", "/"]]


def test_networkmanager_comes_later(lab):
    world = World(lab, own=False)
    cord = world.nm.profile("cord", up_with=VPN, tell=False)
    world.nm.own()
    world.reads()
    world.nm.active(VPN)
    assert world.activations() == [[cord, "/", "/"]]


def switches(pid):
    """How often it was woken."""
    with open(f"/proc/{pid}/status") as file:
        return sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)


def test_nothing_wakes_it(world):
    """NetworkManager that does other things, and one that does nothing."""
    for i in range(20):
        world.nm.profile(f"p{i}", up_with=VPN)
    world.activations()
    stat = pathlib.Path(f"/proc/{world.daemon.pid}/stat")
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "S", "it sleeps")
    before = switches(world.daemon.pid)
    for i in range(50):
        world.nm.emit(NM_PATH, mocknm.PROPERTIES, "PropertiesChanged", "sa{sv}as", mocknm.NM,
                      {"Connectivity": i}, [])
        world.nm.emit(f"{NM_PATH}/Settings/1", mocknm.PROPERTIES, "PropertiesChanged", "sa{sv}as",
                      mocknm.CONNECTION, {"Flags": i}, [])
        world.nm.emit(f"{NM_PATH}/Devices/1", f"{mocknm.NM}.Device.Wireless", "AccessPointAdded",
                      "o", f"{NM_PATH}/AccessPoint/{i}")
    stays(lambda: switches(world.daemon.pid) - before <= 2, 2, "it sleeps", 0.1)


def test_waits_for_a_vpn_as_for_a_call(lab):
    """A profile that goes up with another keeps the daemon; without one it leaves when idle."""
    world = World(lab, foreground=False)
    path = world.nm.profile("cord", up_with=VPN)
    world.settle()
    stays(lambda: world.daemon.process.poll() is None, 2.5, "it waits for the VPN", 0.05)
    world.nm.remove(path)
    assert world.daemon.process.wait(10) == 0


# NetworkManager goes and comes

def test_brought_up_again(world):
    cord = world.left()
    world.nm.put("manager", "Startup", True)
    world.nm.own()
    world.reads()
    assert world.activations() == [], "it has nothing to bring it up on"
    world.nm.manager(Startup=True)
    assert world.activations() == []
    base = world.nm.active("base", state=1, type="802-3-ethernet")
    world.nm.put("manager", "PrimaryConnection", base)
    world.nm.manager(Startup=True)
    assert world.activations() == [], "its secondaries are on their way"
    world.nm.active("base", type="802-3-ethernet", path=base)
    world.nm.manager(Startup=True)
    assert world.activations() == [[cord, "/", "/"]]
    world.nm.manager(Startup=False)
    assert world.activations() == [], "once"
    world.service()
    stays(lambda: world.client.state("cord") == "up", 3.5, "it is held again", 0.05)


@pytest.mark.parametrize("state", [1, 2])
def test_brought_up_by_networkmanager_itself(world, state):
    """A second time would be in the way of the first."""
    world.left()
    world.nm.active("cord", state=state)
    world.nm.own()
    world.reads()
    assert world.activations() == []
    world.nm.manager(Startup=False)
    assert world.activations() == []


def test_brought_up_again_when_it_can_be(world):
    """Refused at first: asked again when something changed."""
    cord = world.left()
    world.nm.refuse("cord", "UnknownConnection", "UnknownConnection")
    world.nm.own()
    world.reads()
    assert world.activations() == [[cord, "/", "/"]]
    world.nm.manager(Startup=False)
    assert world.activations() == [[cord, "/", "/"]]
    world.nm.manager(Startup=False)
    assert world.activations() == [[cord, "/", "/"]]
    world.nm.manager(Startup=False)
    assert world.activations() == []


def test_what_changes_while_it_is_asked_is_not_missed(world):
    """News that come before the refusal are the last there are."""
    cord = world.left()
    world.nm.put("manager", "Startup", True)
    world.nm.own()
    world.reads()
    world.daemon.process.send_signal(signal.SIGSTOP)
    world.nm.manager(Startup=True)
    world.nm.manager(Startup=True)
    world.nm.put("manager", "Startup", False)
    world.nm.refuse("cord", "UnknownConnection")
    world.daemon.process.send_signal(signal.SIGCONT)
    assert world.activations() == [[cord, "/", "/"]] * 2


def test_network_is_late(world):
    """The tunnel does not wait for ever, but the connection comes up again with the network."""
    cord = world.left()
    world.nm.put("manager", "Startup", True)
    world.nm.own()
    wait_until(lambda: world.client.tunnels() == [], "it is removed", 10)
    assert world.activations() == []
    world.nm.manager(Startup=False)
    assert world.activations() == [[cord, "/", "/"]]


def test_given_up_by_a_person(world):
    world.left()
    world.nm.put("manager", "Startup", True)
    world.nm.own()
    world.reads()
    world.client.on("cord", "Remove")
    world.nm.manager(Startup=False)
    assert world.activations() == []


def test_a_holder_that_is_slow_to_leave(world):
    """NetworkManager is back before what it had started has left."""
    cord = world.nm.profile("cord")
    service = world.service()
    world.nm.own(False)
    world.nm.own()
    world.reads()
    assert world.activations() == []
    service.close()
    wait_until(lambda: world.activations() == [[cord, "/", "/"]], "it is brought up again")


@pytest.mark.parametrize("how", ["left", "removed"])
def test_not_brought_up_again(world, how):
    """What had ended before NetworkManager did."""
    world.nm.profile("cord")
    service = world.service()
    if how == "removed":
        service.on("cord", "Remove")
    service.close()
    wait_until(lambda: how == "removed" or "is gone; kept" in world.daemon.text(), "it is seen")
    world.nm.own(False)
    world.nm.own()
    world.reads()
    assert world.activations() == []


def test_the_daemon_is_not_there_either(world):
    """Both are replaced at once."""
    cord = world.nm.profile("cord")
    service = world.service()
    world.nm.own(False)
    world.daemon.stop()
    service.close()
    world.daemon.start()
    world.settle()
    world.nm.own()
    world.reads()
    assert world.activations() == [[cord, "/", "/"]]


def test_what_is_kept_is_for_root_to_write(world):
    world.nm.active(VPN)
    world.settle()
    file = world.daemon.runtime / "networkmanager-followed"
    wait_until(file.exists, "it is noted")
    assert file.stat().st_mode & 0o777 == 0o644 and file.stat().st_uid == os.getuid()
    assert len(file.read_text().splitlines()) == 1


def test_a_vpn_comes_while_it_is_brought_up_again(world):
    """Two reasons at once: what was asked for the first is no answer to the second."""
    cord = world.left(up_with=VPN)
    world.nm.put("manager", "Startup", True)
    vpn = world.nm.next("ActiveConnection")
    for i in range(40):
        world.nm.active(f"other{i}", type="802-3-ethernet", tell=False)
    world.nm.own()
    world.reads()
    world.nm.emit(NM_PATH, mocknm.PROPERTIES, "PropertiesChanged", "sa{sv}as", mocknm.NM, {}, [])
    world.nm.active(VPN, path=vpn)
    for _ in range(5):
        world.settle()
    assert world.activations() == [[cord, "/", "/"]]
    assert world.daemon.process.poll() is None
