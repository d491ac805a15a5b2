# SPDX-License-Identifier: GPL-2.0-or-later
"""ethercordctl on listeners: verbs, exit codes, what is printed."""

import base64
import json
import os
import re
import subprocess
import sys

import pytest

import ethercord
from ethercord import CTL, FAR, wait_until

KEY = base64.b64encode(bytes(range(100, 132))).decode()


def ctl(sites, *words, **more):
    return sites.daemon.ctl(*words, **more)


def keys(sites):
    return {p.name: p.read_text() for p in (sites.daemon.state / "keys").iterdir()}


def test_the_life_of_a_listener(sites):
    done = ctl(sites, "listen", "office", "port=65301", "bridge=br0", "allow=10.0.0.0/8", check=0)
    assert done.stdout == "office listens on TCP port 65301; peers join bridge br0\n"
    assert done.stderr == ""
    got = sites.client.get_listener("office")
    assert got["State"] == "up" and not got["Persistent"]
    assert got["Settings"] == {"name": "office", "port": 65301, "bridge": "br0",
                               "allow": ["10.0.0.0/8"]}
    ctl(sites, "peer", "office", "anna", "mtu=1400", "allow=10.1.2.3", check=0)
    ctl(sites, "peer", "office", "anna", "mtu=", "bridge=br1", check=0)
    ctl(sites, "peer", "office", "bert", check=0)
    assert sites.client.get_listener("office")["PeerSettings"] == {
        "anna": {"allow": ["10.1.2.3"], "bridge": "br1"}, "bert": {}}
    ctl(sites, "set", "office", "port=65302", "ttl=9", "bridge=", "allow=", check=0)
    assert sites.client.get_listener("office")["Settings"] == {"name": "office", "port": 65302,
                                                              "ttl": 9}
    ctl(sites, "peer", "office", "bert", "--remove", check=0)
    assert set(sites.client.get_listener("office")["PeerSettings"]) == {"anna"}
    ctl(sites, "down", "office", check=0)
    assert sites.client.get_listener("office")["State"] == "down"
    assert "office: up" in ctl(sites, "up", "office", check=0).stderr
    ctl(sites, "down", "office", check=0)
    ctl(sites, "up", "office", "--no-wait", check=0)
    assert sites.client.get_listener("office")["State"] == "up"
    ctl(sites, "remove", "office", check=0)
    assert sites.client.listeners() == []


def test_save(sites):
    ctl(sites, "listen", "l1", "port=65301", f"key={KEY}", "--save", check=0)
    assert (sites.daemon.config / "listeners.d/l1.conf").read_text() == "[listener]\nport=65301\n"
    assert keys(sites) == {"listener:l1": KEY}
    assert sites.client.get_listener("l1")["Persistent"]


def test_it_says_when_nobody_can_come(sites):
    said = ctl(sites, "listen", "l1", "port=65301", check=0).stderr
    assert "nobody can come in yet" in said and "setkey l1" in said
    for number, words in enumerate((["allow=10.0.0.0/8"], [f"key={KEY}"])):
        said = ctl(sites, "listen", f"m{number}", *words, check=0).stderr
        assert "nobody" not in said


def test_keys_from_standard_input(sites):
    made = ctl(sites, "genkey", check=0).stdout
    ctl(sites, "listen", "l1", check=0)
    ctl(sites, "setkey", "l1", input=made, check=0)
    ctl(sites, "setkey", "l1/anna", input=f"{KEY}\n", check=0)
    assert keys(sites) == {"listener:l1": made.strip(), "listener:l1:anna": KEY}
    assert sites.client.get_listener("l1")["PeerSettings"] == {"anna": {}}
    for name in ("l1", "l1/anna", "l1/bert"):
        done = ctl(sites, "setkey", name, input="nonsense\n")
        assert done.returncode in (1, 2) and "nonsense" not in done.stderr
    assert "../x" in ctl(sites, "setkey", "l1/../x", input=KEY + "\n", check=1).stderr
    assert set(keys(sites)) == {"listener:l1", "listener:l1:anna"}
    warned = ctl(sites, "peer", "l1", "bert", f"key={KEY}", check=0).stderr
    assert "warning" in warned and KEY not in warned
    ctl(sites, "peer", "l1", "anna", "--remove", check=0)
    assert set(keys(sites)) == {"listener:l1", "listener:l1:bert"}


USAGE = [["listen"], ["listen", "../x"], ["listen", "x", "port=0"], ["listen", "x", "remote=a"],
         ["listen", "x", "nonsense=1"], ["listen", "x", "port"], ["listen", "x", "name=y"],
         ["listen", "x", "interface=%n%n"], ["listen", "x", "mode=point-to-point", "bridge=b"],
         ["listen", "x", "--up"], ["peer", "l1"], ["peer", "l1", "../x"], ["peer"],
         ["peer", "l1", "a", "ttl=1"], ["peer", "l1", "a", "mtu=70000"],
         ["peer", "l1", "a", "mtu=1400", "--remove"], ["set", "l1", "remote=a"],
         ["set", "l1", "port=0"], ["listeners", "x"], ["up", "l1", "--remove"],
         ["doctor", "l1"]]


@pytest.mark.parametrize("words", USAGE, ids=" ".join)
def test_usage(sites, words):
    sites.client.listen("l1", peers={"a": {}})
    before = sites.client.objects()
    done = ctl(sites, *words, check=2)
    assert done.stderr.startswith("ethercordctl: ") and not done.stdout
    assert sites.client.objects() == before


@pytest.mark.parametrize("words", [["peer", "x", "a"], ["peer", "x", "a", "--remove"],
                                   ["setkey", "x/a"], ["setkey", "x"], ["up", "x"], ["down", "x"],
                                   ["remove", "x"], ["remove", "l1", "t1", "x"], ["status", "x"],
                                   ["set", "x", "ttl=1"]], ids=" ".join)
def test_not_found(sites, words):
    sites.client.listen("l1")
    sites.client.add("t1", "", remote=FAR)
    done = ctl(sites, *words, check=10, input=f"{KEY}\n")
    assert "x" in done.stderr and len(done.stderr.splitlines()) == 1
    assert sites.client.listeners() == ["l1"] and sites.client.tunnels() == ["t1"]


def test_refused(sites):
    sites.client.listen("l1")
    sites.client.add("t1", "", remote=FAR)
    for words, code in ((["listen", "l1"], 1), (["listen", "t1"], 1), (["add", "l1", "remote=a"], 1),
                        (["peer", "l1", "nobody", "--remove"], 1),
                        (["listen", "x", "compat=dynamic-fou"], 4),
                        (["export", "l1", "--as=ip"], 1)):
        done = ctl(sites, *words, check=code)
        assert done.stderr.startswith("ethercordctl: "), words
    assert sites.client.listeners() == ["l1"]
    sites.client.listen("off", "", compat=["dynamic-fou"])
    assert "compat=dynamic-fou" in ctl(sites, "up", "off", check=4).stderr


def test_no_daemon(sites):
    sites.daemon.stop()
    for words in (["listen", "x"], ["peer", "x", "a"], ["listeners"], ["setkey", "x/a"]):
        done = ctl(sites, *words, check=8, input=f"{KEY}\n")
        assert done.stderr.startswith("ethercordctl: ") and len(done.stderr.splitlines()) == 1
    sites.daemon.start()


def test_both_sorts_at_once(sites):
    sites.client.listen("l1", "", port=65301)
    sites.client.listen("l2", port=65302)
    sites.tunnel("t1", 1)
    sites.client.add("t2", "", remote=FAR, id=2)
    done = ctl(sites, "up", "t1", "l1", "t2", check=0)
    assert all(f"{n}: up" in done.stderr for n in ("t1", "l1", "t2"))
    ctl(sites, "down", "l1", "t1", check=0)
    assert sites.client.get_listener("l1")["State"] == sites.client.state("t1") == "down"
    ctl(sites, "remove", "t1", "l1", check=0)
    assert sites.client.listeners() == ["l2"] and sites.client.tunnels() == ["t2"]
    ctl(sites, "remove", "--all", check=0)
    assert sites.client.objects() == {}


def test_shown(sites):
    sites.tunnel("t1", 1)
    sites.client.listen("office", bridge="br0", mode="join-remote", allow=["10.0.0.0/8"],
                        peers={"anna": {"mtu": 1400}}, port=65301)
    sites.client.listen("other", "", compat=["dynamic-fou"])
    sites.daemon.ctl("up", "other")
    listed = ctl(sites, "list", check=0).stdout
    assert re.search(r"^office +join-remote +up +65301 +br0 +0 +10\.0\.0\.0/8$", listed, re.M)
    assert ctl(sites, "list", "--no-legend", check=0).stdout.split()[0] == "t1"
    assert "office" not in ctl(sites, "list", "--no-legend", check=0).stdout
    assert [t["Name"] for t in json.loads(ctl(sites, "list", "--json", check=0).stdout)] == ["t1"]
    listed = ctl(sites, "listeners", "--no-legend", check=0).stdout
    assert [line.split()[0] for line in listed.splitlines()] == ["office", "other"]
    objects = json.loads(ctl(sites, "listeners", "--json", check=0).stdout)
    assert objects == [sites.client.get_listener(n) for n in ("office", "other")]
    one = ctl(sites, "status", "office", check=0).stdout
    for part in ("listener", "up", "65301 (TCP)", "join-remote", "anna mtu=1400", "bridge=br0"):
        assert part in one, one
    assert json.loads(ctl(sites, "status", "office", "--json", check=0).stdout) == objects[0]
    assert "NotSupported" in ctl(sites, "status", "other", check=0).stdout
    whole = ctl(sites, "status", check=0).stdout
    assert re.search(r"^office +up +port 65301, 0 peers", whole, re.M)
    assert re.search(r"^other +failed .*compat", whole, re.M)
    every = json.loads(ctl(sites, "status", "--json", check=0).stdout)
    assert every["Listeners"] == objects
    for words in (["list"], ["listeners"], ["status"], ["status", "office"]):
        for line in ctl(sites, *words, check=0).stdout.splitlines():
            assert len(line) <= 80
    done = ctl(sites, "listen", "l3", "port=65303", "allow=::/0", "--json", check=0)
    assert json.loads(done.stdout) == sites.client.get_listener("l3")


def test_report(sites):
    sites.client.listen("l1", allow=["10.0.0.0/8", "203.0.113.0/24"], key=KEY,
                        peers={"anna": {"key": KEY}})
    text = ctl(sites, "doctor", "--report").stdout
    assert "listener l1:" in text and "10.0.0.0/8" in text and "anna" in text
    assert "203.0.113" not in text and KEY not in text
    report = json.loads(ctl(sites, "doctor", "--report", "--json").stdout)
    assert [o["Name"] for o in report["Listeners"]] == ["l1"]


def test_completion(sites):
    def words(*arguments):
        return ctl(sites, "complete", *arguments, check=0).stdout.split()
    sites.client.listen("l1")
    sites.client.add("t1", "", remote=FAR)
    assert sorted(words("names")) == ["l1", "t1"] and words("names", "listener") == ["l1"]
    assert {"listen", "peer", "listeners"} <= set(words("verbs"))
    assert "max-peers" in words("keys", "listener") and "remote" not in words("keys", "listener")
    assert "max-peers" not in words("keys") and "remote" in words("keys") == words("keys", "tunnel")
    assert set(words("keys", "peer")) == {"key", "allow", "mtu", "bridge", "interface", "mac",
                                          "address"}
    assert words("values", "compat") == ["dynamic-fou", "tunnel-server"]
    assert "--remove" in words("options", "peer") and "--save=" not in words("options", "listen")

    def complete(line):
        script = (f"source {ethercord.ROOT}/daemon/ctl/ethercordctl.bash; "
                  f"COMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}; compopt() {{ :; }}; "
                  "_ethercordctl; printf '%s\\n' \"${COMPREPLY[@]}\"")
        env = dict(sites.bus.environment(), PATH=f"{CTL.parent}:/usr/bin:/bin")
        return subprocess.run(["bash", "-c", script], env=env, stdout=subprocess.PIPE, text=True,
                              check=True).stdout.split()
    assert complete("ethercordctl listen x max") == ["max-peers="]
    assert complete("ethercordctl peer ") == ["l1"]
    assert complete("ethercordctl peer l1 anna all") == ["allow="]
    assert complete("ethercordctl set l1 max") == ["max-peers="]
    assert complete("ethercordctl set t1 rem") == ["remote=", "remote-data-port="]
    assert complete("ethercordctl listen x compat=tun") == ["tunnel-server"]
    assert sorted(complete("ethercordctl up ")) == ["l1", "t1"]


# A daemon that only says what a tunnel's negotiation would.
SPEAKER = """
import os, sys, dbus, dbus.bus, dbus.service, dbus.mainloop.glib
from gi.repository import GLib
dbus.mainloop.glib.DBusGMainLoop(set_as_default=True)
bus = dbus.bus.BusConnection(os.environ["DBUS_SYSTEM_BUS_ADDRESS"])

class Root(dbus.service.Object):
    @dbus.service.method("org.freedesktop.DBus.ObjectManager", out_signature="a{oa{sa{sv}}}")
    def GetManagedObjects(self):
        GLib.timeout_add(50, tunnel.speak)
        return {"/org/ethercord1/tunnel/t1": {"org.ethercord1.Tunnel":
            {"Name": "t1", "State": "connecting", "StateReason": dbus.Struct(("", "dialling"))}}}

class Tunnel(dbus.service.Object):
    @dbus.service.signal("org.ethercord1.Tunnel", signature="sa{sv}")
    def Event(self, kind, details):
        pass
    @dbus.service.signal("org.freedesktop.DBus.Properties", signature="sa{sv}as")
    def PropertiesChanged(self, interface, changed, invalidated):
        pass
    def speak(self):
        self.Event("dialling", dbus.Dictionary({"remote": "10.8.0.1", "port": dbus.UInt16(65200)},
                                               "sv"))
        self.Event("chose", dbus.Dictionary({"encapsulation": "vxlan", "round": dbus.UInt32(1),
                                             "text": "a\\x1b[31mb"}, "sv"))
        self.PropertiesChanged("org.ethercord1.Tunnel", dbus.Dictionary(
            {"State": "up", "StateReason": dbus.Struct(("", ""))}, "sv"), [])
        self.Event("bye", dbus.Dictionary({}, "sv"))

root, tunnel = Root(bus, "/org/ethercord1"), Tunnel(bus, "/org/ethercord1/tunnel/t1")
bus.request_name("org.ethercord1")
GLib.MainLoop().run()
"""


@pytest.mark.parametrize("mode", [[], ["--json"]], ids=["text", "json"])
def test_monitor_tells_each_step(lab, mode):
    bus = lab.bus()
    lab.popen(sys.executable, "-c", SPEAKER, env=dict(os.environ, **bus.environment()))
    wait_until(bus.has, "it speaks", 20)
    monitor = lab.popen(CTL, "monitor", *mode, env=bus.environment(), text=True,
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    lines = [monitor.stdout.readline().rstrip("\n") for _ in range(4)]
    if mode:
        assert [json.loads(line) for line in lines] == [
            {"event": "step", "name": "t1", "kind": "dialling",
             "details": {"remote": "10.8.0.1", "port": 65200}},
            {"event": "step", "name": "t1", "kind": "chose",
             "details": {"encapsulation": "vxlan", "round": 1, "text": "a\x1b[31mb"}},
            {"event": "changed", "name": "t1", "State": "up", "StateReason": ["", ""]},
            {"event": "step", "name": "t1", "kind": "bye", "details": {}}]
        return
    stamp = re.compile(r"\d\d:\d\d:\d\d\.\d\d\d ")
    assert all(stamp.match(line) for line in lines), lines
    assert [stamp.sub("", line, count=1) for line in lines] == [
        "t1: dialling        remote=10.8.0.1 port=65200",
        "t1: chose           encapsulation=vxlan round=1 text=a?[31mb", "t1: up", "t1: bye"]


def test_monitor_tells_of_listeners(lab, sites):
    sites.client.listen("first", port=65301)
    monitor = lab.popen(CTL, "monitor", "--json", env=sites.bus.environment(), text=True,
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert "1 tunnels and listeners" in monitor.stderr.readline()
    sites.client.listen("l1", "", port=65302)
    sites.client.on_listener("l1", "Activate")
    sites.client.set_peer("l1", "anna", mtu=1400)
    sites.client.on_listener("first", "Remove")
    events = [json.loads(monitor.stdout.readline()) for _ in range(4)]
    assert [(e["event"], e["name"]) for e in events] == [
        ("added", "l1"), ("changed", "l1"), ("changed", "l1"), ("removed", "first")]
    assert events[1]["State"] == "up" and events[2]["PeerSettings"] == {"anna": {"mtu": 1400}}
