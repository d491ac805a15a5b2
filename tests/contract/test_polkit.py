# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may do what. polkit is a mock; the callers without privileges are real."""

import json
import signal
import subprocess
import sys
from xml.etree import ElementTree

import dbus
import pytest

import ethercord
from ethercord import (ERROR, FAR, LISTENER, MANAGER, PATH, TUNNEL, listener_path, tunnel_path,
                       wait_until)

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all")
POLKIT, AUTHORITY = "org.freedesktop.PolicyKit1", "/org/freedesktop/PolicyKit1/Authority"
MOCK = "org.freedesktop.DBus.Mock"
ACTIONS = ["manage", "activate", "bridge", "diagnose", "capture", "impair"]

CALLER = """
import json, os, sys, dbus, dbus.bus
calls = json.loads(sys.argv[1])
bus = dbus.bus.BusConnection(os.environ["DBUS_SYSTEM_BUS_ADDRESS"])
def settings(d):
    kinds = {list: lambda v: dbus.Array(v, "s"), int: dbus.UInt32}
    if any(isinstance(v, dict) for v in d.values()):
        return dbus.Dictionary({k: settings(v) for k, v in d.items()}, "sa{sv}")
    return dbus.Dictionary({k: kinds.get(type(v), lambda v: v)(v) for k, v in d.items()}, "sv")
for path, interface, member, signature, values in calls:
    values = [settings(v) if isinstance(v, dict) else v for v in values]
    try:
        print(json.dumps(["", str(bus.call_blocking("org.ethercord1", path, interface, member,
                                                    signature, values, 60))]), flush=True)
    except dbus.DBusException as e:
        print(json.dumps([e.get_dbus_name(), e.get_dbus_message()]), flush=True)
"""


def settings(name, **more):
    return {"name": name, "control": "static", "underlay": "any", "encapsulation": ["vxlan"],
            "remote": [FAR], "id": 77, **more}


def listens(peers=None, **more):
    return (PATH, MANAGER, "AddListener", "a{sv}a{sa{sv}}s",
            ({"name": "new", "underlay": "any", **more}, peers or {}, ""))


ON = tunnel_path("t1")
AT = listener_path("l1")
# method: call, actions needed
METHODS = {
    "AddTunnel": ((PATH, MANAGER, "AddTunnel", "a{sv}s", (settings("new"), "")), {"manage"}),
    "AddTunnel with a bridge": (
        (PATH, MANAGER, "AddTunnel", "a{sv}s",
         (settings("new", mode="join-networks", bridge="br0"), "")), {"manage", "bridge"}),
    "AddTunnel with attach": (
        (PATH, MANAGER, "AddTunnel", "a{sv}s",
         (settings("new", mode="join-networks", attach="x0", bridge="br0"), "")),
        {"manage", "bridge"}),
    "GetTunnel": ((PATH, MANAGER, "GetTunnel", "s", ("t1",)), {"diagnose"}),
    "RemoveTunnels": ((PATH, MANAGER, "RemoveTunnels", "as", ([],)), {"manage"}),
    "Diagnose": ((PATH, MANAGER, "Diagnose", "sa{sv}", ("", {})), {"diagnose"}),
    "Reload": ((PATH, MANAGER, "Reload", "", ()), {"manage"}),
    "Activate": ((ON, TUNNEL, "Activate", "", ()), {"activate"}),
    "Deactivate": ((ON, TUNNEL, "Deactivate", "", ()), {"activate"}),
    "Update": ((ON, TUNNEL, "Update", "a{sv}", ({"mtu": 1300},)), {"manage"}),
    "Update of a bridge": ((ON, TUNNEL, "Update", "a{sv}",
                            ({"mode": "join-networks", "bridge": "br0"},)),
                           {"manage", "bridge"}),
    "Remove": ((ON, TUNNEL, "Remove", "", ()), {"manage"}),
    "SetKey": ((ON, TUNNEL, "SetKey", "s", ("A" * 43 + "=",)), {"manage"}),
    "AddListener": (listens(), {"manage"}),
    "AddListener with a bridge": (listens(bridge="br0"), {"manage", "bridge"}),
    "AddListener with a bridged peer": (
        listens({"plain": {"mtu": 1400}, "a": {"mtu": 1400, "bridge": "br0"}}),
        {"manage", "bridge"}),
    "AddListener with a plain peer": (listens({"a": {"mtu": 1400}}), {"manage"}),
    "GetListener": ((PATH, MANAGER, "GetListener", "s", ("l1",)), {"diagnose"}),
    "Listener.Activate": ((AT, LISTENER, "Activate", "", ()), {"activate"}),
    "Listener.Deactivate": ((AT, LISTENER, "Deactivate", "", ()), {"activate"}),
    "Listener.Update": ((AT, LISTENER, "Update", "a{sv}", ({"mtu": 1300},)), {"manage"}),
    "Listener.Update of a bridge": ((AT, LISTENER, "Update", "a{sv}", ({"bridge": "br0"},)),
                                    {"manage", "bridge"}),
    "Listener.Remove": ((AT, LISTENER, "Remove", "", ()), {"manage"}),
    "SetPeer": ((AT, LISTENER, "SetPeer", "sa{sv}", ("b", {"mtu": 1300})), {"manage"}),
    "SetPeer with a bridge": ((AT, LISTENER, "SetPeer", "sa{sv}", ("b", {"bridge": "br0"})),
                              {"manage", "bridge"}),
    "RemovePeer": ((AT, LISTENER, "RemovePeer", "s", ("anna",)), {"manage"}),
    "Listener.SetKey": ((AT, LISTENER, "SetKey", "s", ("A" * 43 + "=",)), {"manage"}),
}


class Mock:
    """polkitd as python-dbusmock plays it."""

    def __init__(self, lab, bus):
        self.process = lab.popen(sys.executable, "-m", "dbusmock", "--system", "--template",
                                 "polkitd", env=bus.environment(), stdout=subprocess.DEVNULL)
        self.connection = bus.client.connection
        wait_until(lambda: bus.has(POLKIT), "the mock of polkit runs", 30)

    def call(self, member, signature="", *values):
        return self.connection.call_blocking(POLKIT, AUTHORITY, MOCK, member, signature, values)

    def allow(self, *actions):
        self.call("SetAllowed", "as",
                  dbus.Array([f"org.ethercord1.{a}" for a in actions], "s"))


@pytest.fixture
def guarded(lab, sites):
    """Sites with a tunnel t1 and a listener l1 that are up, and a polkit that allows nothing."""
    sites.tunnel()
    sites.client.listen("l1", peers={"anna": {}})
    ethercord.bridge(sites.near)
    sites.polkit = Mock(lab, sites.bus)
    return sites


def as_nobody(sites, *calls, check=True):
    """[error name, message or result] of each call."""
    done = ethercord.run(*NOBODY, sys.executable, "-c", CALLER, json.dumps(calls), check=check,
                         env=sites.bus.environment())
    return [json.loads(line) for line in done.stdout.splitlines()]


def picture(sites):
    got = sites.client.objects()
    for interfaces in got.values():
        interfaces.get(TUNNEL, {}).pop("Statistics", None)
    return got, sites.near.dump(), sorted(str(p) for p in sites.daemon.directory.rglob("*"))


def test_the_table_is_complete(guarded):
    """Every method that the daemon shows is in the table of this test."""
    shown = set()
    for path, interface in ((PATH, MANAGER), (ON, TUNNEL), (AT, LISTENER)):
        xml = guarded.client.call(path, "org.freedesktop.DBus.Introspectable", "Introspect")
        for i in ElementTree.fromstring(xml).findall("interface"):
            if i.get("name") == interface:
                shown |= {(interface, m.get("name")) for m in i.findall("method")}
    assert shown == {call[1:3] for call, _ in METHODS.values()}


def test_denied_by_default(guarded):
    before = picture(guarded)
    answers = as_nobody(guarded, *(call for call, _ in METHODS.values()))
    assert len(answers) == len(METHODS)
    for what, (name, message) in zip(METHODS, answers):
        assert name == ERROR + "NotAuthorized", f"{what}: {name} {message}"
        assert "org.ethercord1." in message
    assert picture(guarded) == before


@pytest.mark.parametrize("what", METHODS)
def test_allowed_by_its_actions_only(guarded, what):
    call, needed = METHODS[what]
    for missing in needed:
        guarded.polkit.allow(*(a for a in ACTIONS if a != missing))
        before = picture(guarded)
        [(name, message)] = as_nobody(guarded, call)
        assert name == ERROR + "NotAuthorized" and f"org.ethercord1.{missing}" in message
        assert picture(guarded) == before
    guarded.polkit.allow(*needed)
    [(name, message)] = as_nobody(guarded, call)
    assert name == "", f"{name}: {message}"


def test_looking_needs_no_leave(guarded):
    """Properties and GetManagedObjects are for everybody, as on other buses of the system."""
    answers = as_nobody(guarded, (PATH, ethercord.OBJECT_MANAGER, "GetManagedObjects", "", ()),
                        (ON, ethercord.PROPERTIES, "Get", "ss", (TUNNEL, "State")))
    assert [a[0] for a in answers] == ["", ""] and answers[1][1] == "up"


def test_polkit_absent(sites):
    sites.tunnel()
    sites.client.listen("l1", peers={"anna": {}})
    before = picture(sites)
    for call, _ in METHODS.values():
        [(name, message)] = as_nobody(sites, call)
        assert name == ERROR + "NotAuthorized", f"{name}: {message}"
    assert picture(sites) == before


def test_root_is_not_asked_about(guarded):
    guarded.polkit.call("SimulateHang", "b", True)
    guarded.client.call(PATH, MANAGER, "GetTunnel", "s", "t1")
    guarded.client.update("t1", mtu=1300)
    guarded.client.on("t1", "Remove")
    assert not guarded.polkit.call("HaveHangingCalls"), "polkit was asked"


def pending(lab, sites, *calls):
    """A caller whose calls polkit thinks about."""
    process = lab.popen(*NOBODY, sys.executable, "-c", CALLER, json.dumps(calls),
                        env=sites.bus.environment(), stdout=subprocess.PIPE, text=True)
    wait_until(lambda: sites.polkit.call("HaveHangingCalls"), "polkit is asked")
    return process


@pytest.mark.parametrize("leaves", [False, True], ids=["stays", "leaves"])
def test_caller_while_polkit_thinks(lab, guarded, leaves):
    guarded.polkit.allow("manage", "bridge")
    guarded.polkit.call("SimulateHang", "b", True)
    caller = pending(lab, guarded, METHODS["AddTunnel"][0])
    # Others are answered meanwhile.
    guarded.client.add("other", flags="", remote=FAR)
    assert guarded.client.tunnels() == ["other", "t1"]
    if leaves:
        caller.send_signal(signal.SIGKILL)
        caller.wait()
        names = guarded.client.connection.list_names
        known = set(map(str, names()))
        wait_until(lambda: not any(is_pid(guarded, n, caller.pid) for n in names()),
                   f"the bus knows it gone, {len(known)} names")
        # The daemon hears of it in order with what it answers.
        guarded.client.call(PATH, "org.freedesktop.DBus.Peer", "Ping")
    guarded.polkit.call("ReleaseHangingCalls")
    if leaves:
        guarded.polkit.call("HaveHangingCalls")
        guarded.client.call(PATH, "org.freedesktop.DBus.Peer", "Ping")
        ethercord.stays(lambda: guarded.client.tunnels() == ["other", "t1"], 0.3,
                        "a tunnel of a caller that had gone")
    else:
        assert json.loads(caller.communicate(timeout=30)[0])[0] == ""
        assert guarded.client.tunnels() == ["new", "other", "t1"]


def is_pid(sites, name, pid):
    try:
        return str(name).startswith(":") and sites.client.connection.call_blocking(
            "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
            "GetConnectionUnixProcessID", "s", [name]) == pid
    except dbus.DBusException:
        return False


def test_tunnel_removed_while_polkit_thinks(lab, guarded):
    guarded.polkit.allow("activate")
    guarded.polkit.call("SimulateHang", "b", True)
    caller = pending(lab, guarded, METHODS["Deactivate"][0])
    guarded.client.on("t1", "Remove")
    guarded.polkit.call("ReleaseHangingCalls")
    assert json.loads(caller.communicate(timeout=30)[0])[0] == ERROR + "NoSuchTunnel"


def test_polkit_dies_while_asked(lab, guarded):
    guarded.polkit.allow("manage")
    guarded.polkit.call("SimulateHang", "b", True)
    caller = pending(lab, guarded, METHODS["AddTunnel"][0])
    guarded.polkit.process.kill()
    assert json.loads(caller.communicate(timeout=30)[0])[0] == ERROR + "NotAuthorized"
    assert guarded.client.tunnels() == ["t1"]


FLOOD = """
import os, sys, dbus, dbus.bus, dbus.mainloop.glib
from gi.repository import GLib
bus = dbus.bus.BusConnection(os.environ["DBUS_SYSTEM_BUS_ADDRESS"],
                             mainloop=dbus.mainloop.glib.DBusGMainLoop())
refused = []
for i in range(40):
    bus.call_async("org.ethercord1", "/org/ethercord1", "org.ethercord1.Manager", "Reload", "", (),
                   lambda: None, lambda e: refused.append(e.get_dbus_name()))
while len(refused) < 24:
    GLib.MainContext.default().iteration(True)
print(set(refused) == {"org.ethercord1.Error.LimitExceeded"}, flush=True)
sys.stdin.read()
"""


def test_questions_are_limited(lab, guarded):
    """One caller cannot fill the daemon with questions that nobody answers."""
    guarded.polkit.call("SimulateHang", "b", True)
    flood = lab.popen(*NOBODY, sys.executable, "-c", FLOOD, env=guarded.bus.environment(),
                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert flood.stdout.readline() == "True\n"
    guarded.client.update("t1", mtu=1300)
    # When it has gone, its questions have, too: another one is heard.
    flood.kill()
    flood.wait()
    guarded.polkit.call("SimulateHang", "b", False)
    guarded.polkit.allow("manage")
    [(name, message)] = as_nobody(guarded, METHODS["Update"][0])
    assert name == "", message


def test_the_tunnel_is_told_to_polkit(lab, sites):
    """Rules can decide by the tunnel's name; interaction only when the caller wants it."""
    sites.tunnel()
    script = """
import os, dbus, dbus.bus, dbus.service, dbus.mainloop.glib
from gi.repository import GLib
bus = dbus.bus.BusConnection(os.environ["DBUS_SYSTEM_BUS_ADDRESS"],
                             mainloop=dbus.mainloop.glib.DBusGMainLoop())
class Authority(dbus.service.Object):
    @dbus.service.method("org.freedesktop.PolicyKit1.Authority", "(sa{sv})sa{ss}us", "(bba{ss})")
    def CheckAuthorization(self, subject, action, details, flags, cancellation):
        print(subject[0], subject[1]["name"], action, dict(details).get("tunnel"), flags,
              flush=True)
        return (True, False, {})
Authority(bus, "/org/freedesktop/PolicyKit1/Authority")
bus.request_name("org.freedesktop.PolicyKit1")
GLib.MainLoop().run()
"""
    polkit = lab.popen(sys.executable, "-c", script, env=sites.bus.environment(),
                       stdout=subprocess.PIPE, text=True)
    wait_until(lambda: sites.bus.has(POLKIT), "polkit is there")
    [(name, message)] = as_nobody(sites, METHODS["Update"][0])
    assert name == "", message
    subject, caller, action, tunnel, flags = polkit.stdout.readline().split()
    assert (subject, action, tunnel, flags) == ("system-bus-name", "org.ethercord1.manage", "t1",
                                                "0")
    assert caller.startswith(":")


def test_ctl_passes_the_refusal_on(guarded):
    """The client says who refused, in a sentence, and exits with 1."""
    done = ethercord.run(*NOBODY, ethercord.CTL, "down", "t1", check=False,
                         env=guarded.bus.environment())
    assert done.returncode in (1, 5), done
    assert "org.ethercord1.activate" in done.stderr
    assert guarded.client.state("t1") == "up"
