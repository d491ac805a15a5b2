# SPDX-License-Identifier: GPL-2.0-or-later
"""Listeners: objects, files, keys, and what is refused."""

import base64
import shutil
import signal
import socket
import stat

import dbus
import pytest

import ethercord
from ethercord import (FAR, LISTENER, MANAGER, PATH, PROPERTIES, ROOT, TUNNEL, listener_path,
                       refused, wait_until)

KEY = base64.b64encode(bytes(range(100, 132))).decode()
OTHER_KEY = base64.b64encode(bytes(range(50, 82))).decode()


def keys(sites):
    """Names of the keys in the store, and what they hold."""
    return {p.name: p.read_text() for p in (sites.daemon.state / "keys").iterdir()}


def directory(sites, runtime=False):
    return (sites.daemon.runtime if runtime else sites.daemon.config) / "listeners.d"


def write(sites, name, text, runtime=False):
    path = directory(sites, runtime) / f"{name}.conf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def picture(sites):
    objects = sites.client.objects()
    return objects, keys(sites), {
        str(p): p.read_text() for d in ("listeners.d", "tunnels.d")
        for root in (sites.daemon.config, sites.daemon.runtime) for p in (root / d).iterdir()}


# Objects

def test_a_listener_seen_from_outside(sites):
    path = sites.client.listen("office-1", port=65301, bridge="br0", mode="join-remote",
                               allow=["10.77.0.0/24", "fd00::/8"], max_peers=2,
                               peers={"anna": {"mtu": 1400, "key": KEY}, "bert": {}})
    assert path == listener_path("office-1") == f"{PATH}/listener/office_2d1"
    assert sites.client.call(PATH, MANAGER, "GetListener", "s", "office-1") == path
    assert sites.client.get_listener("office-1") == {
        "Name": "office-1", "State": "up", "StateReason": ["", ""], "Port": 65301, "Peers": [],
        "Persistent": False,
        "Settings": {"name": "office-1", "underlay": "any", "port": 65301, "bridge": "br0",
                     "mode": "join-remote", "allow": ["10.77.0.0/24", "fd00::/8"],
                     "max-peers": 2},
        "PeerSettings": {"anna": {"mtu": 1400}, "bert": {}}}
    assert sites.client.listeners() == ["office-1"] and sites.client.tunnels() == []
    with refused("NoSuchListener", "office-2"):
        sites.client.call(PATH, MANAGER, "GetListener", "s", "office-2")
    with refused("NoSuchTunnel", "office-1"):
        sites.client.call(PATH, MANAGER, "GetTunnel", "s", "office-1")


def test_default_port(lab):
    sites = ethercord.Sites(lab, start=False)
    (sites.daemon.config / "ethercord.conf").write_text("[daemon]\nport=64321\n")
    sites.daemon.start()
    sites.client.listen("l1")
    assert sites.client.get_listener("l1")["Port"] == 64321


def test_object_manager_and_signals(lab, sites):
    signals = lab.signals(sites.daemon)
    path = listener_path("l1")
    sites.client.listen("l1", "", port=65301)
    seen = signals.take()
    added = {values[0]: values[1] for _, i, m, values in seen if m == "InterfacesAdded"}
    assert added == {path: {LISTENER: sites.client.get_listener("l1"),
                            **{k: v for k, v in added[path].items() if k != LISTENER}}}
    assert not [s for s in seen if s[0] == path], "no PropertiesChanged beside InterfacesAdded"

    def change(call, *expected):
        call()
        changes = signals.changes(path)
        now = sites.client.get_listener("l1")
        assert len(changes) == 1, changes
        assert set(expected) == set(changes[0])
        assert {k: now[k] for k in changes[0]} == changes[0], "as a Get answers"
        return now
    state = ("State", "StateReason")
    settings = ("Settings", "PeerSettings", "Port")
    assert change(lambda: sites.client.on_listener("l1", "Activate"), *state)["State"] == "up"
    sites.client.on_listener("l1", "Activate")
    assert signals.changes(path) == [], "nothing changed"
    now = change(lambda: sites.client.on_listener("l1", "Update", "a{sv}",
                                                  ethercord.typed({"port": 65302, "ttl": 9})),
                 *settings)
    assert now["Port"] == 65302 and now["Settings"]["ttl"] == 9 and now["State"] == "up"
    now = change(lambda: sites.client.set_peer("l1", "anna", mtu=1300), *settings)
    assert now["PeerSettings"] == {"anna": {"mtu": 1300}}
    now = change(lambda: sites.client.set_peer("l1", "anna", mtu="", allow=[FAR]), *settings)
    assert now["PeerSettings"] == {"anna": {"allow": [FAR]}}
    now = change(lambda: sites.client.on_listener("l1", "RemovePeer", "s", "anna"), *settings)
    assert now["PeerSettings"] == {}
    change(lambda: sites.client.on_listener("l1", "Deactivate"), *state)
    sites.client.on_listener("l1", "Remove")
    gone = {values[0]: values[1] for _, i, m, values in signals.take()
            if m == "InterfacesRemoved"}
    assert set(gone) == {path} and LISTENER in gone[path]
    assert sites.client.objects() == {}


def test_update_takes_back(sites):
    sites.client.listen("l1", ttl=9, allow=["10.0.0.0/8"], port=65301)
    sites.client.on_listener("l1", "Update", "a{sv}", ethercord.typed({
        "ttl": "", "allow": "", "port": ""}))
    got = sites.client.get_listener("l1")
    assert got["Settings"] == {"name": "l1", "underlay": "any"} and got["Port"] == 65200


def test_one_of_each_name(sites):
    sites.client.listen("x")
    sites.client.add("y", "", remote=FAR)
    before = picture(sites)
    with refused("Exists", "listener x"):
        sites.client.listen("x", port=65301)
    with refused("Exists", "tunnel y"):
        sites.client.listen("y", port=65301)
    with refused("Exists", "listener x"):
        sites.client.add("x", "", remote=FAR)
    assert picture(sites) == before


GONE = ["Activate", "Deactivate", "Remove"]


@pytest.mark.parametrize("member", GONE)
def test_a_removed_one_is_gone(sites, member):
    sites.client.listen("l1")
    sites.client.on_listener("l1", "Remove")
    with pytest.raises(dbus.DBusException) as e:
        sites.client.on_listener("l1", member)
    assert e.value.get_dbus_name() == "org.freedesktop.DBus.Error.UnknownObject"


# Refused

NAMES = ["", ".", "../x", "-a", "a b", "a/b", "a\n", "x" * 64, "ä"]
BAD = {  # of a listener
    "mode": ["join", "POINT-TO-POINT"], "port": [0], "allow": [["host"], ["10.0.0.0/33"]],
    "local": ["here"], "key": ["short", KEY + "="], "max-peers": [0, 4097],
    "interface": ["%n%n", "123456789012%n", "../%n", "a%d"], "bridge": ["../br", "x" * 16],
    "encapsulation": [["l2tp"], ["vxlan", "vxlan"]], "compat": [["static"]],
    "underlay": ["device:", "wg0"], "data-plane": ["none"], "mtu": [65536, 67],
    "full-frames": ["maybe"], "split": ["maybe"], "fidelity": ["hub"], "guard": [["arp"], ["auto", "ra"]],
    "storm-limit": [0], "keepalive-interval": [49, 100000], "keepalive-timeout": [99, 100],
    "ttl": [0, 256], "dscp": [64], "name": NAMES,
}
BAD_PEER = {"key": ["short"], "allow": [["x"]], "mtu": [67, 65536], "bridge": ["../x"],
            "interface": ["ec-%n", "x" * 16], "mac": ["01:00:5e:00:00:01"],
            "address": [["192.0.2.1/33"]]}
OTHERS = {"remote": [FAR], "identity": "x", "control": "static", "id": 7, "attach": "eth0", "roam": True,
          "address": ["192.0.2.1/24"], "mac": "02:00:00:00:00:01"}


@pytest.mark.parametrize("key", sorted(BAD))
def test_bad_settings(sites, key):
    sites.client.listen("l1", "activate persist", key=KEY)
    before = picture(sites)
    for value in BAD[key]:
        with refused("InvalidSetting", key):
            settings = {"name": "bad", "port": 65301, "underlay": "any", key: value}
            sites.client.call(PATH, MANAGER, "AddListener", "a{sv}a{sa{sv}}s",
                              ethercord.typed(settings),
                              dbus.Dictionary(signature="sa{sv}"), "")
        if key != "name":
            with refused("InvalidSetting", key):
                sites.client.on_listener("l1", "Update", "a{sv}", ethercord.typed({key: value}))
    assert picture(sites) == before


def test_every_row_has_a_bad_value(sites):
    """But those that any value of their type is good for."""
    rows = set(sites.daemon.ctl("complete", "keys", "listener", check=0).stdout.split())
    assert rows - set(BAD) == {"bridge-create", "link-loss-forwarding", "autostart", "fwmark",
                               "data-port"}
    rows = set(sites.daemon.ctl("complete", "keys", "peer", check=0).stdout.split())
    assert rows == set(BAD_PEER)


@pytest.mark.parametrize("key", sorted(BAD_PEER))
def test_bad_peers(sites, key):
    sites.client.listen("l1", "activate persist", peers={"anna": {"mtu": 1400}})
    before = picture(sites)
    for value in BAD_PEER[key]:
        with refused("InvalidSetting", key):
            sites.client.listen("bad", port=65301, peers={"good": {}, "x": {key: value}})
        for peer in ("anna", "new"):
            with refused("InvalidSetting", key):
                sites.client.set_peer("l1", peer, **{key: value})
    assert picture(sites) == before


@pytest.mark.parametrize("key", sorted(OTHERS))
def test_settings_of_others(sites, key):
    sites.client.listen("l1")
    before = picture(sites)
    with refused("InvalidSetting", f"{key}: not a setting of a listener"):
        sites.client.listen("bad", **{key: OTHERS[key]})
    if key not in BAD_PEER:
        with refused("InvalidSetting", f"{key}: not a setting of a peer"):
            sites.client.set_peer("l1", "anna", **{key: OTHERS[key]})
    with refused("InvalidSetting", "max-peers: not a setting of a tunnel"):
        sites.client.add("bad", "", remote=FAR, max_peers=2)
    assert picture(sites) == before


def test_bad_names_of_peers(sites):
    sites.client.listen("l1")
    before = picture(sites)
    for name in NAMES:
        with refused("InvalidSetting", "peer"):
            sites.client.set_peer("l1", name, mtu=1400)
        with refused("InvalidSetting", "peer"):
            sites.client.listen("bad", peers={name: {}})
    with refused("InvalidSetting", "no peer 'nobody'"):
        sites.client.on_listener("l1", "RemovePeer", "s", "nobody")
    assert picture(sites) == before


FIT = [({"mode": "point-to-point", "bridge": "br0"}, {}, "bridge"),
       ({"mode": "join-remote"}, {"a": {}}, "bridge"),
       ({"bridge": "br0"}, {"a": {"address": ["192.0.2.1/24"]}}, "peer a: address"),
       ({"bridge_create": True}, {}, "bridge-create"),
       ({}, {"a": {"interface": "x"}, "b": {"interface": "x"}}, "interface 'x'")]


@pytest.mark.parametrize("settings, peers, part", FIT)
def test_what_does_not_fit_together(sites, settings, peers, part):
    with refused("InvalidSetting", part):
        sites.client.listen("bad", peers=peers, **settings)
    sites.client.listen("l1", "")
    before = picture(sites)
    if not peers:
        with refused("InvalidSetting", part):
            sites.client.on_listener("l1", "Update", "a{sv}", ethercord.typed(settings))
    assert picture(sites) == before


@pytest.mark.parametrize("setting", [{"compat": ["dynamic-fou"]}, {"compat": ["tunnel-server"]},
                                     {"fidelity": "wire"}, {"guard": ["dhcp"]},
                                     {"link_loss_forwarding": True}], ids=str)
def test_what_this_build_cannot_do(sites, setting):
    key = next(iter(setting)).replace("_", "-")
    with refused("NotSupported", f"{key}="):
        sites.client.listen("l1", **setting)
    assert sites.client.listeners() == []
    sites.client.listen("l1", "", **setting)
    with refused("NotSupported", f"{key}="):
        sites.client.on_listener("l1", "Activate")
    got = sites.client.get_listener("l1")
    assert got["State"] == "failed" and got["StateReason"][0] == "NotSupported"
    # A running one stays as it is.
    sites.client.listen("l2", port=65301)
    with refused("NotSupported", f"{key}="):
        sites.client.on_listener("l2", "Update", "a{sv}", ethercord.typed(setting))
    got = sites.client.get_listener("l2")
    assert got["State"] == "up" and key not in got["Settings"]


# Keys

def test_keys_are_kept_apart_and_secret(sites):
    sites.client.listen("office", "activate persist", key=KEY,
                        peers={"anna": {"key": OTHER_KEY}, "bert": {}})
    sites.client.listen("office2", "persist", port=65301, peers={"anna": {"key": KEY}})
    sites.client.add("anna", "persist", remote=FAR, key=KEY)
    assert keys(sites) == {"listener:office": KEY, "listener:office:anna": OTHER_KEY,
                           "listener:office2:anna": KEY, "anna": KEY}
    for p in (sites.daemon.state / "keys").iterdir():
        assert stat.S_IMODE(p.stat().st_mode) == 0o600
    shown = str(sites.client.objects()) + sites.daemon.text() + "".join(
        p.read_text() for p in directory(sites).iterdir())
    assert KEY not in shown and OTHER_KEY not in shown
    # Set, taken back, and gone with what they belong to.
    sites.client.on_listener("office", "SetKey", "s", OTHER_KEY)
    sites.client.set_peer("office", "bert", key=KEY)
    assert keys(sites)["listener:office"] == OTHER_KEY
    assert keys(sites)["listener:office:bert"] == KEY
    for bad in ("", "short", KEY + "="):
        with refused("InvalidSetting", "key"):
            sites.client.on_listener("office", "SetKey", "s", bad)
    sites.client.on_listener("office", "Update", "a{sv}", ethercord.typed({"key": ""}))
    sites.client.set_peer("office", "bert", key="")
    sites.client.on_listener("office", "RemovePeer", "s", "anna")
    assert keys(sites) == {"listener:office2:anna": KEY, "anna": KEY}
    sites.client.on_listener("office2", "Remove")
    assert keys(sites) == {"anna": KEY}


def test_a_key_outlives_other_changes(sites):
    sites.client.listen("l1", key=KEY, peers={"anna": {"key": OTHER_KEY}})
    sites.client.set_peer("l1", "anna", mtu=1300)
    sites.client.on_listener("l1", "Update", "a{sv}", ethercord.typed({"ttl": 9}))
    sites.client.on_listener("l1", "Deactivate")
    assert keys(sites) == {"listener:l1": KEY, "listener:l1:anna": OTHER_KEY}


# Files

GOOD = "[listener]\nport=65301\nunderlay=any\n"
# name: content, line, words of the sentence
BROKEN = {
    "b-unknown": ("[listener]\n# a comment\nports=1\n", 3, ["ports"]),
    "c-type": ("[listener]\n\nmax-peers=many\n", 3, ["max-peers", "'many'", "1 to 4096"]),
    "d-range": ("[listener]\nport=65301\nttl=256\n", 3, ["ttl", "1 to 255"]),
    "e-word": ("[listener]\nmode=bridge\n", 2, ["mode", "point-to-point, join-remote"]),
    "f-tunnels": ("[listener]\nremote=10.77.0.2\n", 2, ["remote", "not a setting of a listener"]),
    "g-peer-key": ("[listener]\n[peer a]\nmtu=1400\n[peer b]\nttl=1\n", 5,
                   ["ttl", "not a setting of a peer"]),
    "h-peer-value": ("[listener]\nmtu=1500\n[peer a]\nmtu=70000\n", 4, ["mtu", "0 to 65535"]),
    "i-name": ("[listener]\nname=other\n", 2, ["name", "i-name"]),
    "j-group": ("[listener]\n[tunnel]\nremote=10.77.0.2\n", 2, ["[tunnel]", "[peer NAME]"]),
    "k-peer-name": ("[listener]\n\n[peer ../x]\n", 3, ["[peer ../x]", "[peer NAME]"]),
    "l-no-name": ("[listener]\n[peer]\n", 2, ["[peer]"]),
    "m-only-peers": ("[peer a]\nmtu=1400\n", None, ["no group [listener]"]),
    "n-empty": ("", None, ["[listener]"]),
    "o-line": ("[listener]\nwhat is this\n", 2, []),
    "p-fit": ("[listener]\nmode=join-remote\n", None, ["bridge"]),
    "q-peer-fit": ("[listener]\n[peer a]\nbridge=br0\naddress=192.0.2.1/24\n", 2, ["address"]),
    "r-interface": ("[listener]\ninterface=a%d\n", 2, ["interface", "%n"]),
    "s-key": ("[listener]\nkey=secret\n", 2, ["key", "genkey"]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_file_among_good_ones(lab, name):
    sites = ethercord.Sites(lab, start=False)
    write(sites, "a-good", GOOD + "[peer a]\nmtu=1400\n[peer b]\n")
    write(sites, "z-good", GOOD)
    sites.daemon.keyfile("tunnel", remote=FAR, id=11)
    text, line, words = BROKEN[name]
    path = write(sites, name, text)
    sites.daemon.start()
    assert sites.client.listeners() == ["a-good", "z-good"]
    assert sites.client.state("tunnel") == "up"
    assert [sites.client.get_listener(n)["State"] for n in ("a-good", "z-good")] == ["up", "up"]
    assert sites.client.get_listener("a-good")["PeerSettings"] == {"a": {"mtu": 1400}, "b": {}}
    told = [t for t in sites.daemon.text().splitlines() if f"/{name}.conf" in t]
    assert len(told) == 1, sites.daemon.text()
    assert (f"{path}:{line}: " if line else f"{path}: ") in told[0], told[0]
    for word in words:
        assert word in told[0], told[0]
    assert "secret" not in told[0]
    assert path.read_text() == text, "the file is as its writer left it"
    with refused("InvalidSetting", f"{path}"):
        sites.client.call(PATH, MANAGER, "Reload")
    assert sites.client.listeners() == ["a-good", "z-good"]


def test_a_file_with_the_name_of_a_tunnel(lab):
    sites = ethercord.Sites(lab, start=False)
    sites.daemon.keyfile("both", remote=FAR, id=11)
    write(sites, "both", GOOD + f"key={KEY}\n")
    sites.daemon.start()
    assert sites.client.listeners() == [] and sites.client.tunnels() == ["both"]
    assert "tunnel both" in sites.daemon.text() and keys(sites) == {}


def test_first_directory_wins(lab):
    sites = ethercord.Sites(lab, start=False)
    write(sites, "a", GOOD)
    write(sites, "a", GOOD + "ttl=9\n", runtime=True)
    write(sites, "b", GOOD, runtime=True)
    sites.daemon.start()
    assert sites.client.listeners() == ["a", "b"]
    got = sites.client.get_listener("a")
    assert "ttl" not in got["Settings"] and got["Persistent"]
    assert not sites.client.get_listener("b")["Persistent"]


def test_keys_in_a_file(lab):
    sites = ethercord.Sites(lab, start=False)
    text = GOOD + f"key={KEY}\n[peer anna]\nkey={OTHER_KEY}\n[peer bert]\nkey=\n"
    path = write(sites, "l1", text)
    sites.daemon.start()
    assert keys(sites) == {"listener:l1": KEY, "listener:l1:anna": OTHER_KEY}
    got = sites.client.get_listener("l1")
    assert got["PeerSettings"] == {"anna": {}, "bert": {}} and "key" not in got["Settings"]
    assert path.read_text() == text
    # An empty key= is no order to forget one.
    sites.client.set_peer("l1", "bert", key=KEY)
    write(sites, "l1", text)
    sites.client.call(PATH, MANAGER, "Reload")
    assert keys(sites)["listener:l1:bert"] == KEY


@pytest.mark.parametrize("by", ["call", "signal"])
def test_reload(lab, by):
    sites = ethercord.Sites(lab, start=False)
    write(sites, "same", GOOD)
    write(sites, "changed", "[listener]\nport=65302\n[peer a]\nmtu=1400\n")
    gone = write(sites, "gone", GOOD + f"key={KEY}\n")
    sites.daemon.start()
    wait_until(lambda: [sites.client.get_listener(n)["State"] for n in sites.client.listeners()] ==
               ["up"] * 3, "the listeners are up")
    signals = lab.signals(sites.daemon)
    write(sites, "changed", "[listener]\nport=65303\n[peer a]\nmtu=1300\n[peer b]\n")
    write(sites, "new", GOOD)
    write(sites, "off", GOOD + "autostart=no\n")
    gone.unlink()
    if by == "call":
        sites.client.call(PATH, MANAGER, "Reload")
    else:
        sites.daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: sites.client.listeners() == ["changed", "new", "off", "same"],
               "the files are read")
    got = sites.client.get_listener("changed")
    assert got["Port"] == 65303 and got["PeerSettings"] == {"a": {"mtu": 1300}, "b": {}}
    states = {n: sites.client.get_listener(n)["State"] for n in sites.client.listeners()}
    assert states == {"changed": "up", "new": "up", "off": "down", "same": "up"}
    assert keys(sites) == {}
    seen = signals.take()
    assert [p for p, *_ in seen if p == listener_path("same")] == [], "nothing about the same"
    # A broken change of a running one changes nothing.
    write(sites, "changed", "[listener]\nport=0\n")
    with refused("InvalidSetting", "port"):
        sites.client.call(PATH, MANAGER, "Reload")
    assert sites.client.get_listener("changed") == got


def test_persist_writes_a_file(sites):
    peers = {"anna": {"mtu": 1400, "address": ["192.0.2.1/24"]}, "bert": {"key": KEY}}
    sites.client.listen("l1", "persist activate", port=65301, allow=[FAR, "fd00::/8"],
                        peers=peers)
    file = directory(sites) / "l1.conf"
    assert file.read_text() == (
        f"[listener]\nport=65301\nallow={FAR},fd00::/8\nunderlay=any\n\n"
        "[peer anna]\nmtu=1400\naddress=192.0.2.1/24\n\n[peer bert]\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    before = sites.client.get_listener("l1")
    assert before["Persistent"] is True and before["State"] == "up"
    sites.daemon.restart()
    assert sites.client.get_listener("l1") == before
    # A person's words in it are kept, a peer that is gone is not.
    file.write_text("# ours\n" + file.read_text().replace("[peer anna]", "# a laptop\n[peer anna]")
                    .replace("mtu=1400", "# small\nmtu=1400"))
    sites.client.set_peer("l1", "anna", mtu=1300)
    sites.client.on_listener("l1", "RemovePeer", "s", "bert")
    text = file.read_text()
    assert "# ours\n" in text and "# a laptop\n" in text and "# small\nmtu=1300" in text
    assert "bert" not in text
    sites.client.on_listener("l1", "Remove")
    assert not file.exists() and sites.client.listeners() == []


def test_without_persist_it_is_gone_after_a_boot(sites):
    sites.client.listen("l1", peers={"anna": {"key": KEY}})
    assert not list(directory(sites).iterdir())
    assert [p.name for p in directory(sites, True).iterdir()] == ["l1.conf"]
    sites.client.on_listener("l1", "Remove")
    assert not list(directory(sites, True).iterdir()) and keys(sites) == {}


def test_what_a_crash_leaves(sites):
    sites.client.listen("up", port=65301, peers={"anna": {"key": KEY}})
    sites.client.listen("down", port=65302)
    sites.client.on_listener("down", "Deactivate")
    sites.client.listen("off", "", port=65303, autostart=False)
    sites.client.listen("on", port=65304, autostart=False)
    before = {n: sites.client.get_listener(n) for n in sites.client.listeners()}
    assert {n: g["State"] for n, g in before.items()} == {"up": "up", "down": "down",
                                                          "off": "down", "on": "up"}
    sites.daemon.kill()
    sites.daemon.start()
    assert {n: sites.client.get_listener(n) for n in sites.client.listeners()} == before
    assert keys(sites) == {"listener:up:anna": KEY}
    # And nothing of those that are no more.
    for name in before:
        sites.client.on_listener(name, "Remove")
    assert not list((sites.daemon.runtime / "state").iterdir())


def test_a_file_that_cannot_be_written(sites):
    sites.client.listen("l1", "activate persist", port=65301)
    shutil.rmtree(directory(sites))
    directory(sites).write_text("in the way")
    before = sites.client.get_listener("l1")
    with pytest.raises(dbus.DBusException, match="listeners.d"):
        sites.client.listen("l2", "persist", port=65302)
    with pytest.raises(dbus.DBusException, match="listeners.d"):
        sites.client.on_listener("l1", "Update", "a{sv}", ethercord.typed({"port": 65303}))
    assert sites.client.listeners() == ["l1"] and sites.client.get_listener("l1") == before


@pytest.mark.parametrize("file", sorted((ROOT / "examples/listeners.d").glob("*.conf")),
                         ids=lambda p: p.name)
def test_the_examples_load(lab, file):
    sites = ethercord.Sites(lab, start=False)
    write(sites, file.stem, file.read_text())
    sites.daemon.start()
    assert sites.client.listeners() == [file.stem], sites.daemon.text()
    got = sites.client.get_listener(file.stem)
    assert got["State"] == "up" and got["PeerSettings"], got


def test_limits(lab):
    sites = ethercord.Sites(lab, start=False)
    (sites.daemon.config / "ethercord.conf").write_text("[daemon]\nmax-tunnels=3\n")
    sites.daemon.start()
    for i in range(3):
        sites.client.listen(f"l{i}", "")
    with refused("LimitExceeded", "max-tunnels"):
        sites.client.listen("l3", "")
    assert sites.client.listeners() == ["l0", "l1", "l2"]


def test_many_peers(sites):
    many = {f"p{i}": {"mtu": 1000 + i} for i in range(1000)}
    sites.client.listen("l1", "persist", peers=many)
    assert sites.client.get_listener("l1")["PeerSettings"] == many
    sites.daemon.restart()
    assert sites.client.get_listener("l1")["PeerSettings"] == many


# Ports

def listening(sites, port):
    """The daemon's TCP sockets that listen there, IPv4 and IPv6."""
    out = sites.near.exec("ss", "-Htlnp", f"sport = :{port}").stdout
    return [line for line in out.splitlines() if f"pid={sites.daemon.pid}," in line]


def test_the_port_is_open_while_it_is_up(sites):
    sites.client.listen("l1", port=65301)
    sites.client.listen("l2", port=65301)
    assert listening(sites, 65301)
    sites.client.on_listener("l1", "Update", "a{sv}", ethercord.typed({"port": 65302}))
    assert listening(sites, 65302) and listening(sites, 65301), "the other listener's"
    sites.client.on_listener("l2", "Deactivate")
    assert not listening(sites, 65301)
    sites.client.on_listener("l1", "Remove")
    assert not listening(sites, 65302)


def test_a_port_that_is_taken(lab, sites):
    with sites.near.entered():
        other = socket.create_server(("::", 65301), family=socket.AF_INET6, dualstack_ipv6=True)
    with pytest.raises(dbus.DBusException, match="65301"):
        sites.client.listen("l1", port=65301)
    assert sites.client.listeners() == []
    # A running one keeps the port it has.
    sites.client.listen("l2", port=65302)
    with pytest.raises(dbus.DBusException, match="65301"):
        sites.client.on_listener("l2", "Update", "a{sv}", ethercord.typed({"port": 65301}))
    got = sites.client.get_listener("l2")
    assert got["Port"] == 65302 and got["State"] == "up" and listening(sites, 65302)
    # One that fails tries again by itself.
    sites.client.listen("l3", "", port=65301)
    with pytest.raises(dbus.DBusException, match="65301"):
        sites.client.on_listener("l3", "Activate")
    got = sites.client.get_listener("l3")
    assert got["State"] == "failed" and got["StateReason"][0] and "65301" in got["StateReason"][1]
    other.close()
    wait_until(lambda: sites.client.get_listener("l3")["State"] == "up", "it is up by itself", 15)
    assert listening(sites, 65301)
