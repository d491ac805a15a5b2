# SPDX-License-Identifier: GPL-2.0-or-later
"""Bad input: a named error, one sentence, and a running tunnel that does not notice."""

import base64

import dbus
import pytest

import ethercord
from ethercord import FAR, MANAGER, PATH, bridge, far_vxlan, refused, wait_until

KEY = base64.b64encode(bytes(range(32))).decode()
JOIN = {"mode": "join-networks"}


class Guard:
    """A running tunnel with numbered frames on it; check() says whether it noticed anything."""

    def __init__(self, lab):
        self.sites = ethercord.Sites(lab)
        self.client, self.near = self.sites.client, self.sites.near
        self.sites.tunnel("t1", 1, flags="activate persist")
        bridge(self.near, "br-here")
        self.near.ip("link", "add", "cable", "type", "veth", "peer", "name", "cable2")
        self.file = self.sites.daemon.tunnels / "t1.conf"

    def picture(self):
        seen = self.client.get("t1")
        del seen["Statistics"]
        links = self.near.settled_links()
        return {"bus": seen, "link": links.get("ec-t1"), "links": sorted(links),
                "tunnels": self.client.tunnels(), "file": self.file.read_text(),
                "files": sorted(p.name for d in (self.sites.daemon.tunnels,
                                                 self.sites.daemon.runtime / "tunnels.d",
                                                 self.sites.daemon.runtime / "state",
                                                 self.sites.daemon.state / "keys")
                                for p in d.iterdir())}

    def begin(self):
        self.before = self.picture()
        self.flow = self.sites.flow()

    def end(self):
        lost = self.flow.stop(self.flow.sent + 30)
        if "bad" in self.client.tunnels():
            self.client.on("bad", "Remove")
            raise AssertionError("the tunnel with bad settings exists")
        assert lost == [], f"{len(lost)} of {self.flow.sent} frames lost"
        assert self.picture() == self.before


@pytest.fixture(scope="module")
def running():
    made = ethercord.Lab()
    yield Guard(made)
    made.close()


@pytest.fixture
def guard(running):
    running.begin()
    yield running
    running.end()


def test_the_guard_sees(running):
    """What the other tests rely on."""
    running.begin()

    def lost():
        running.near.ip("link", "set", "ec-t1", "down")
        wait_until(lambda: running.near.is_up("ec-t1"), "it is put back")
        return running.flow.failures
    wait_until(lost, "a frame is sent while it is down")
    with pytest.raises(AssertionError, match="frames lost"):
        running.end()
    running.begin()
    running.client.update("t1", mtu=1400)
    with pytest.raises(AssertionError):
        running.end()
    running.client.update("t1", mtu="")


BAD_SETTINGS = {
    "unknown key": ({"remotes": FAR}, ["remotes"]),
    "unknown key, empty": ({"": FAR}, []),
    "control character in a key": ({"id\n": 1}, []),
    "wrong type: s for u": ({"id": dbus.String("7")}, ["id", "'u'"]),
    "wrong type: i for u": ({"id": dbus.Int32(7)}, ["id", "'u'"]),
    "wrong type: u for s": ({"mode": dbus.UInt32(1)}, ["mode", "'s'"]),
    "wrong type: s for b": ({"bridge-create": dbus.String("yes")},
                            ["bridge-create", "'b'"]),
    "wrong type: nested": ({"id": dbus.Dictionary({"a": dbus.Array([1], "i")}, "sv")}, ["id"]),
    "ttl 0": ({"ttl": 0}, ["ttl", "1 to 255"]),
    "ttl 256": ({"ttl": 256}, ["ttl", "1 to 255"]),
    "dscp 64": ({"dscp": 64}, ["dscp", "0 to 63"]),
    "mtu 67": ({"mtu": 67}, ["mtu", "68"]),
    "mtu 65536": ({"mtu": 65536}, ["mtu", "65535"]),
    "port 0": ({"port": 0}, ["port", "1 to 65535"]),
    "id 2^24": ({"id": 1 << 24}, ["id", "16777215"]),
    "storm-limit 0": ({"storm-limit": 0}, ["storm-limit"]),
    "unknown mode": ({"mode": "bridge"}, ["mode", "point-to-point, join-remote, join-networks"]),
    "unknown encapsulation": ({"encapsulation": "carrier-pigeon"}, ["encapsulation", "gretap"]),
    "encapsulation twice": ({"encapsulation": ["vxlan", "vxlan"]}, ["encapsulation"]),
    "unknown underlay": ({"underlay": "pigeons"}, ["underlay", "device:IFNAME"]),
    "underlay of a bad device": ({"underlay": "device:../../etc"}, ["underlay"]),
    "interface of 16 bytes": ({"interface": "a" * 16}, ["interface", "15"]),
    "interface with a slash": ({"interface": "a/b"}, ["interface"]),
    "interface ..": ({"interface": ".."}, ["interface"]),
    "interface with a blank": ({"interface": "a b"}, ["interface"]),
    "interface with a newline": ({"interface": "a\nb"}, ["interface"]),
    "interface with an escape": ({"interface": "\x1b[31m"}, ["interface"]),
    "bridge of 16 bytes": ({"bridge": "a" * 16, **JOIN}, ["bridge"]),
    "name ../x": ({"name": "../x"}, ["name"]),
    "name with a slash": ({"name": "a/b"}, ["name"]),
    "name empty": ({"name": ""}, ["name"]),
    "name hidden": ({"name": ".x"}, ["name"]),
    "name an option": ({"name": "-x"}, ["name"]),
    "name of 64": ({"name": "x" * 64}, ["name"]),
    "name with a newline": ({"name": "x\ny"}, ["name"]),
    "name not ASCII": ({"name": "büro"}, ["name"]),
    "remote missing": ({"remote": None}, ["remote"]),
    "remote empty": ({"remote": [""]}, ["remote"]),
    "remote half an address": ({"remote": "10.77.0"}, ["remote"]),
    "remote with a control character": ({"remote": "a\x07b"}, ["remote"]),
    "remote an option": ({"remote": "-h"}, ["remote"]),
    "65 remotes": ({"remote": [f"10.0.0.{i}" for i in range(65)]}, ["remote", "64"]),
    "local not an address": ({"local": "here"}, ["local"]),
    "local of the other family": ({"local": "fd00::1"}, ["local", "remote"]),
    "mac of a group": ({"mac": "01:00:5e:00:00:01"}, ["mac"]),
    "mac of five": ({"mac": "02:00:5e:10:00"}, ["mac"]),
    "address of three": ({"address": "192.0.2/24"}, ["address"]),
    "address/33": ({"address": "192.0.2.1/33"}, ["address"]),
    "guard none and more": ({"guard": ["none", "dhcp"]}, ["guard"]),
    "keepalive": ({"keepalive-interval": 3000, "keepalive-timeout": 1000}, ["keepalive-timeout"]),
    "point-to-point with a bridge": ({"bridge": "br-here"}, ["bridge", "point-to-point"]),
    "point-to-point with attach": ({"attach": "cable"}, ["attach"]),
    "point-to-point with bridge-create": ({"bridge-create": True}, ["bridge-create"]),
    "join-networks without a bridge": (JOIN, ["bridge"]),
    "join-remote with attach alone": ({"mode": "join-remote", "attach": "cable"}, ["attach"]),
    "bridge and address": ({"bridge": "br-here", "address": "192.0.2.1/24", **JOIN}, ["address"]),
    "bridge and attach the same": ({"bridge": "br-here", "attach": "br-here", **JOIN},
                                   ["bridge", "attach"]),
    "interface and bridge the same": ({"bridge": "br-here", "interface": "br-here", **JOIN},
                                      ["interface", "bridge"]),
    "attach missing": ({"bridge": "br-here", "attach": "nothing0", **JOIN}, ["attach", "nothing0"]),
    "attach loopback": ({"bridge": "br-here", "attach": "lo", **JOIN}, ["attach", "lo"]),
    "data ports differ": ({"data-port": 4000, "remote-data-port": 4001}, ["data-port"]),
}


@pytest.mark.parametrize("what", BAD_SETTINGS)
def test_invalid_setting(guard, what):
    settings, words = BAD_SETTINGS[what]
    full = {"name": "bad", "remote": FAR, "control": "static", "underlay": "any",
            "encapsulation": "vxlan", "id": 2, **settings}
    full = {k: v for k, v in full.items() if v is not None}
    for flags in ("activate", "activate persist"):
        with refused("InvalidSetting", *words):
            guard.client.call(PATH, MANAGER, "AddTunnel", "a{sv}s", ethercord.typed(full), flags)


def test_bad_key_is_not_repeated(guard):
    for key in (KEY[:-1], KEY + "A", "x" * 44, base64.b64encode(bytes(31)).decode(), "geheim"):
        with pytest.raises(dbus.DBusException) as e:
            guard.client.add("bad", remote=FAR, id=2, key=key)
        assert e.value.get_dbus_name().endswith("InvalidSetting")
        assert key not in e.value.get_dbus_message()
        with refused("InvalidSetting", "key"):
            guard.client.on("t1", "SetKey", "s", key)


def test_unknown_flag(guard):
    with refused("InvalidSetting", "now"):
        guard.client.add("bad", flags="activate now", remote=FAR, id=2)


def test_invalid_utf8_cannot_travel(guard):
    with pytest.raises((dbus.DBusException, UnicodeError, ValueError)):
        guard.client.add("bad", remote=dbus.Array([b"\xff\xfe"], "s"))


def test_name_taken(guard):
    with refused("Exists", "t1"):
        guard.client.add("t1", remote=FAR, id=2)


@pytest.mark.parametrize("interface", ["ec-t1", "wire", "br-here", "lo"])
def test_interface_taken(guard, interface):
    with refused("NameTaken", interface):
        guard.client.add("bad", remote=FAR, id=2, interface=interface)


def test_derived_interface_taken_by_a_stranger(guard):
    guard.near.ip("link", "add", "ec-bad", "type", "bridge")
    index = guard.near.ifindex("ec-bad")
    with refused("NameTaken", "ec-bad"):
        guard.client.add("bad", remote=FAR, id=2)
    assert guard.near.ifindex("ec-bad") == index
    guard.near.ip("link", "del", "ec-bad")


@pytest.mark.parametrize("settings, words", [
    ({"bridge": "nobridge"}, ["nobridge", "bridge-create"]), ({"bridge": "wire"}, ["wire"]),
    ({"bridge": "ec-t1"}, ["ec-t1"])])
def test_no_bridge(guard, settings, words):
    with refused("NoBridge", *words):
        guard.client.add("bad", remote=FAR, id=2, mode="join-networks", **settings)


def test_twin(guard):
    with refused("Exists", "t1", "id"):
        guard.client.add("bad", remote=FAR, id=1)


def test_encapsulation_not_in_this_kernel(guard):
    able = guard.client.call(PATH, ethercord.PROPERTIES, "Get", "ss", MANAGER, "Encapsulations")
    missing = [e for e in ("gretap", "gre", "ipip") if f"{e}/kernel" not in able]
    if not missing:
        pytest.skip("this kernel has all encapsulations")
    for kind in missing:
        with refused("NotSupported", kind):
            guard.client.add("bad", remote=FAR, encapsulation=kind)
    both = guard.client.add("good", remote=FAR, encapsulation=[missing[0], "vxlan"], id=2)
    assert both and guard.client.get("good")["Encapsulation"] == "vxlan"
    guard.client.on("good", "Remove")


@pytest.mark.parametrize("settings", [
    {"control": "dynamic-fou"}, {"control": "tunnel-server"}, {"fidelity": "wire"},
    {"guard": ["dhcp"]}, {"gre_keepalive": "10"}, {"link_loss_forwarding": True},
    {"fwmark": 5, "data_plane": "kernel"}, {"encapsulation": "gretap", "data_plane": "user"},
    {"data_plane": "kernel", "encapsulation": "raw-udp"}],
    ids=lambda s: next(iter(s)))
def test_what_this_build_cannot_do(guard, settings):
    with refused("NotSupported"):
        guard.client.add("bad", remote=FAR, id=2, **settings)


def test_unresolvable_remote(guard):
    guard.client.add("bad", remote="no.such.host.invalid", id=2)
    wait_until(lambda: "no address" in guard.client.get("bad")["StateReason"][1],
               "the look-up fails")
    got = guard.client.get("bad")
    assert got["State"] == "waiting" and got["StateReason"][0] == "PeerUnreachable"
    assert "no.such.host.invalid" in got["StateReason"][1]
    assert guard.near.link("ec-bad") is None
    guard.client.on("bad", "Remove")


def test_no_such_tunnel(guard):
    with refused("NoSuchTunnel", "nobody"):
        guard.client.call(PATH, MANAGER, "GetTunnel", "s", "nobody")
    with refused("NoSuchTunnel"):
        guard.client.call(PATH, MANAGER, "GetTunnel", "s", "../../x")


BAD_UPDATES = {
    "unknown key": ("InvalidSetting", {"nonsense": "x"}),
    "wrong type": ("InvalidSetting", {"mtu": dbus.Int32(5)}),
    "good and bad": ("InvalidSetting", {"mtu": 1300, "ttl": 0}),
    "id": ("InvalidSetting", {"id": 1 << 24}),
    "name": ("InvalidSetting", {"name": "t2"}),
    "mode alone": ("InvalidSetting", {"mode": "join-networks"}),
    "bridge missing": ("NoBridge", {"mode": "join-networks", "bridge": "nobridge"}),
    "interface taken": ("NameTaken", {"interface": "wire"}),
    "encapsulation": ("NotSupported", {"encapsulation": "raw-udp", "data-plane": "kernel"}),
    "data plane": ("NotSupported", {"encapsulation": "gretap", "data-plane": "user"}),
    "encapsulation without id": ("InvalidSetting", {"encapsulation": "raw-udp"}),
    "roam": ("InvalidSetting", {"roam": True}),
    "split": ("InvalidSetting", {"split": "maybe"}),
    "underlay": ("InvalidSetting", {"underlay": "pigeons"}),
    "control": ("NotSupported", {"control": "tunnel-server"}),
    "attach busy": ("Busy", {"mode": "join-networks", "bridge": "br-here", "attach": "cable"}),
    "attach the path": ("Loop", {"mode": "join-networks", "bridge": "br-here", "attach": "wire"}),
    "empty remote": ("InvalidSetting", {"remote": ""}),
}


@pytest.mark.parametrize("what", BAD_UPDATES)
def test_update_rolls_back(guard, what):
    error, settings = BAD_UPDATES[what]
    if error == "Busy":
        bridge(guard.near, "br-else")
        guard.near.ip("link", "set", "cable", "master", "br-else")
    try:
        with refused(error):
            guard.client.update("t1", **settings)
    finally:
        if error == "Busy":
            guard.near.ip("link", "del", "br-else")
    assert guard.near.master("cable") is None


def test_limit(lab):
    sites = ethercord.Sites(lab, start=False)
    (sites.daemon.config / "ethercord.conf").write_text("[daemon]\nmax-tunnels=2\n")
    sites.daemon.start()
    sites.tunnel("t1", 1)
    flow = sites.flow()
    sites.client.add("t2", remote=FAR, id=2)
    with refused("LimitExceeded", "max-tunnels"):
        sites.client.add("t3", remote=FAR, id=3)
    assert flow.stop(100) == []


@pytest.mark.parametrize("text, word", [
    ("[daemon]\nmax-tunnels=0\n", "max-tunnels"), ("[daemon]\nnonsense=1\n", "nonsense"),
    ("[daemon]\nport=65536\n", "port"), ("[daemon\n", "ethercord.conf")])
def test_bad_daemon_configuration(lab, text, word):
    """A slip there is told and costs no tunnel."""
    sites = ethercord.Sites(lab, start=False)
    (sites.daemon.config / "ethercord.conf").write_text(text)
    sites.daemon.keyfile("t1", remote=FAR, id=1)
    sites.daemon.start()
    assert word in sites.daemon.text() and "ethercord.conf" in sites.daemon.text()
    assert sites.client.state("t1") == "up"
    assert sites.client.call(PATH, ethercord.PROPERTIES, "Get", "ss", MANAGER,
                             "DefaultPort") == 65200


def test_kernel_errors_carry_the_kernels_sentence(guard):
    """A UDP port that a stranger's VXLAN with the same VNI holds."""
    far_vxlan(guard.near, "stranger", 44, local="10.77.0.1", remote="10.77.0.3", port=7000)
    with refused("Kernel", "ec-bad"):
        guard.client.add("bad", remote=FAR, id=44, data_port=7000)
    guard.near.ip("link", "del", "stranger")
