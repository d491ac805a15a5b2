# SPDX-License-Identifier: GPL-2.0-or-later
"""The editor of a connection, in a program of GTK 3 and in one of GTK 4, and what it saves."""

import base64
import re
import subprocess

import pytest

import ethercord
from ethercord import wait_until
from nmbed import Bed
from nmgui import Accessible, Host, Screen
from nmprofile import items, secrets

TOOLKITS = ("gtk3", "gtk4")
KEY = base64.b64encode(bytes(range(60, 92))).decode()
SIMPLE = {"remote", "mode", "bridge", "ipv4", "ipv6", "address", "up-with", "key", "key-flags"}
# What is said elsewhere in a connection.
ELSEWHERE = {"name", "autostart", "profile"}
OWN = {"tunnel", "tunnel-name", "ipv4", "ipv6", "up-with", "key-flags"}
BUTTONS = {"advanced", "apply", "cancel", "note", "persistent"}

# A value of each advanced setting: what is typed or chosen, and what vpn.data then holds.
ADVANCED = {
    "tunnel-name": "seven", "interface": "cord7", "mac": "02:00:5e:10:00:01", "mtu": "1400", "underlay": "openvpn",
    "local": "10.8.0.2", "control": ("Static", "static"), "port": "65300", "identity": "laptop",
    "roam": ("yes", "yes"), "encapsulation": "raw-udp", "data-plane": ("User", "user"),
    "id": "4711", "data-port": "2001", "remote-data-port": "2002", "ttl": "33", "dscp": "46",
    "fwmark": "9", "full-frames": ("Yes", "yes"), "split": ("No", "no"), "guard": "none",
    "storm-limit": "77", "bridge-create": ("yes", "yes"), "attach": "eth7",
    "keepalive-interval": "250", "keepalive-timeout": "900"}
# Those that this build takes no other value of than the default.
FIXED = {"fidelity", "link-loss-forwarding", "gre-keepalive", "tunnel"}


@pytest.fixture(scope="module")
def desk():
    """NetworkManager, and a screen."""
    lab = ethercord.Lab()
    try:
        bed = Bed(lab, daemon=False)
        bed.screen = Screen(lab)
        yield bed
    finally:
        lab.close()


@pytest.fixture(scope="module", params=TOOLKITS)
def host(request, desk):
    made = Host(desk, desk.screen, request.param)
    made.bed = desk
    yield made
    made.do("close")


def data(host, name):
    return items(host.bed, f"{name}-{host.toolkit}")


def key_of(host, name):
    return secrets(host.bed, f"{name}-{host.toolkit}").get("key")


def create(host, name):
    host.do("create", f"{name}-{host.toolkit}")


def edit(host, name):
    full = f"{name}-{host.toolkit}"
    wait_until(lambda: full in host.do("list"), f"the program has heard of {full}")
    host.do("edit", full)


def save(host):
    assert host.do("save") == ["saved"]


def add(host, name, items, *more):
    host.bed.ctl("connection", "add", "type", "vpn", "vpn-type", "ethercord", "con-name",
                 f"{name}-{host.toolkit}", "vpn.data", items, *more)


def advanced(host, **values):
    host.do("press", "advanced")
    host.set(**values)
    host.do("press", "apply")


def settings_help():
    """{key: (help, default)} of a tunnel's settings."""
    text = subprocess.run([ethercord.CTL, "--settings"], stdout=subprocess.PIPE, text=True,
                          check=True).stdout
    text = text[text.index("Of a tunnel:"):text.index("Of a listener:")]
    result = {}
    for key, body in re.findall(r"^([a-z][a-z0-9-]*)\n((?:\t.*\n)+)", text, re.MULTILINE):
        words = " ".join(body.split())
        default = re.search(r"Default: (.*)\.$", words)
        result[key] = (re.split(r" (?:Allowed|Default): ", words)[0], default and default.group(1))
    return result


def test_create_save_and_open_again(host):
    create(host, "office")
    assert host.get("remote")["error"] == "no", "nobody had the time to fill it in"
    assert host.tell("save")[0].startswith("error remote: "), "but it cannot be saved"
    host.picture("new")
    host.set(remote="10.8.0.1, office.example", mode="Join remote", ipv4="Automatic (DHCP)",
             ipv6="Static", address="fd00::7/64", key=KEY, key_flags="Stored for all users",
             persistent="yes", up_with="Work")
    host.picture("filled")
    save(host)
    held = {"remote": "10.8.0.1, office.example", "mode": "join-remote", "ipv4": "dhcp",
            "ipv6": "static", "address": "fd00::7/64", "up-with": "Work"}
    assert data(host, "office") == held
    assert key_of(host, "office") == KEY
    name = f"office-{host.toolkit}"
    assert host.bed.get(name, "vpn.persistent") == "yes"
    assert name in host.do("list")
    assert host.do("filename", name) == [f"{name}.conf"]
    edit(host, "office")
    shown = {key: host.get(key)["text"] for key in (*SIMPLE, "persistent")}
    assert shown == {
        "remote": "10.8.0.1, office.example", "mode": "Join remote", "bridge": "",
        "ipv4": "Automatic (DHCP)", "ipv6": "Static", "address": "fd00::7/64", "up-with": "Work",
        "key": KEY, "key-flags": "Stored for all users", "persistent": "yes"}
    save(host)
    assert data(host, "office") == held, "opened and saved, it is as it was"
    assert key_of(host, "office") == KEY


def test_every_setting_has_a_field(host):
    create(host, "fields")
    page = set(host.do("fields")) - BUTTONS
    assert page == SIMPLE
    tips = {key: host.do("tooltip", key)[0] for key in SIMPLE}
    host.do("press", "advanced")
    fields = set(host.do("fields")) - BUTTONS
    known = settings_help()
    assert fields == set(known) - ELSEWHERE | OWN
    for key in fields:
        text = tips.get(key) or host.do("tooltip", key)[0]
        assert len(text) > 15, key
        if key in known and key != "key":
            assert " ".join(text.split()).startswith(known[key][0]), text
        default = known.get(key, ("", None))[1]
        if key in ADVANCED and isinstance(ADVANCED[key], str) and default:
            assert host.get(key)["placeholder"] == default
            assert f"Default: {default}" in text
    host.picture("advanced")
    host.do("press", "cancel")
    assert set(host.do("fields")) - BUTTONS == SIMPLE


def test_advanced_settings_are_kept(host):
    create(host, "all")
    host.set(remote="10.8.0.1", mode="Join networks", bridge="br0")
    host.do("press", "advanced")
    typed = {k: v if isinstance(v, str) else v[0] for k, v in ADVANCED.items()}
    host.set(**typed)
    assert {k: host.get(k)["problem"] for k in typed} == dict.fromkeys(typed, "")
    assert set(settings_help()) - ELSEWHERE - SIMPLE == (set(ADVANCED) | FIXED) - OWN
    host.do("press", "apply")
    save(host)
    held = {k: v if isinstance(v, str) else v[1] for k, v in ADVANCED.items()}
    held |= {"remote": "10.8.0.1", "mode": "join-networks", "bridge": "br0"}
    assert data(host, "all") == held
    edit(host, "all")
    host.do("press", "advanced")
    assert {k: host.get(k)["text"] for k in typed} == typed
    host.do("press", "apply")
    save(host)
    assert data(host, "all") == held


def test_defaults_are_not_written(host):
    """But what a connection said in so many words it goes on saying."""
    add(host, "words", "remote=10.8.0.1, mode=point-to-point, ttl=64, roam=0")
    edit(host, "words")
    advanced(host, full_frames="Yes", control="Static")
    save(host)
    held = {"remote": "10.8.0.1", "mode": "point-to-point", "ttl": "64", "roam": "0"}
    assert data(host, "words") == {**held, "full-frames": "yes", "control": "static"}
    advanced(host, full_frames="Automatic", control="Ethercord")
    host.set(mode="Join remote")
    save(host)
    assert data(host, "words") == {**held, "mode": "join-remote"}
    host.set(mode="Point to point")
    save(host)
    assert data(host, "words") == held


@pytest.mark.parametrize("name, wrong, right, words", [
    ("remote", "10.8.0.300", "10.8.0.3", "Allowed is IPv4 or IPv6 addresses"),
    ("bridge", "a/b", "br0", "an interface name"),
    ("address", "10.0.0.0/40", "10.0.0.1/24", "prefix length"),
    ("up-with", "/etc/passwd", "Work", "not a file's path"),
    ("key", "secret", KEY, "base64 of 32 bytes")])
def test_wrong_values_are_marked_as_typed(host, name, wrong, right, words):
    create(host, "wrong")
    host.set(remote="10.8.0.1")
    if name == "bridge":
        host.set(mode="Join networks")
    before = int(host.do("changes")[0])
    host.do("set", name, wrong)
    field = host.get(name)
    assert field["error"] == "yes" and words in field["problem"], field
    assert int(host.do("changes")[0]) > before, "whoever shows the editor looks at it again"
    refusal = host.tell("save")[0]
    assert refusal.startswith(f"error {name}"), refusal
    assert wrong not in refusal or name != "key"
    if name in ("remote", "bridge"):
        host.picture(f"wrong-{name}")
    host.do("set", name, right)
    assert host.get(name)["error"] == "no" and not host.get(name)["problem"]
    save(host)
    host.bed.ctl("connection", "delete", f"wrong-{host.toolkit}")


def test_what_contradicts_is_marked(host):
    """Where the mode makes sense of a field or not."""
    create(host, "mode")
    assert host.get("bridge")["sensitive"] == "no"
    assert host.get("address")["sensitive"] == "no"
    host.set(remote="10.8.0.1", mode="Join networks")
    assert host.get("bridge")["sensitive"] == "yes"
    assert "name this end's bridge" in host.get("bridge")["problem"]
    host.set(bridge="br0", ipv4="Static")
    assert "port of bridge br0" in host.get("ipv4")["problem"]
    host.set(mode="Point to point")
    assert host.get("bridge")["sensitive"] == "yes", "it has to be emptied"
    assert "point-to-point" in host.get("bridge")["problem"]
    host.set(bridge="")
    assert host.get("bridge")["sensitive"] == "no"
    assert "no IPv4 address" in host.get("ipv4")["problem"]
    host.set(address="192.0.2.9/24")
    assert [host.get(n)["error"] for n in ("bridge", "ipv4", "address")] == ["no"] * 3
    save(host)


def test_wrong_advanced_values(host):
    create(host, "narrow")
    host.set(remote="10.8.0.1")
    host.do("press", "advanced")
    for name, wrong, right, words in (
            ("ttl", "256", "255", "1 to 255"), ("mtu", "20", "68", "68 to 65535"),
            ("mac", "01:00:5e:10:00:01", "02:00:5e:10:00:01", "unicast"),
            ("keepalive-timeout", "500", "1500", "keepalive-interval"),
            ("encapsulation", "gretap,udp", "gretap, vxlan", "gretap-fou"),
            ("control", "Dynamic fou", "Static", "build cannot do it")):
        host.do("set", name, wrong)
        field = host.get(name)
        assert field["error"] == "yes" and words in field["problem"], (name, field)
        assert host.get("apply")["sensitive"] == "no"
        assert host.tell("press", "apply")[0].startswith("error ")
        if name == "mtu":
            host.picture("wrong-advanced")
        host.do("set", name, right)
        assert host.get(name)["error"] == "no"
        assert host.get("apply")["sensitive"] == "yes"
    host.do("press", "cancel")
    save(host)
    assert data(host, "narrow") == {"remote": "10.8.0.1"}, "cancelled is cancelled"


def test_an_existing_tunnel(host):
    create(host, "cellar")
    host.set(remote="10.8.0.1")
    advanced(host, tunnel="cellar")
    assert "settings of its own" in host.get("remote")["problem"]
    assert host.tell("save")[0].startswith("error remote: ")
    host.set(remote="", ipv4="Automatic (DHCP)")
    assert host.get("remote")["error"] == "no"
    save(host)
    assert data(host, "cellar") == {"tunnel": "cellar", "ipv4": "dhcp"}


def test_what_others_wrote(host):
    """Values that are none, shown as they stand to be mended; items that nobody knows."""
    add(host, "foreign", "remote=10.8.0.1, mode=sideways, full-frames=perhaps, remotes=x, ttl=900")
    edit(host, "foreign")
    host.picture("foreign")
    assert host.get("mode")["text"] == "sideways" and "join-networks" in host.get("mode")["problem"]
    note = host.get("note")["text"]
    assert "ttl" in note or "full-frames" in note, note
    host.set(mode="join-remote")
    advanced(host, full_frames="", ttl="9")
    assert "remotes" in host.get("note")["text"], "and what will be left out"
    save(host)
    assert data(host, "foreign") == {"remote": "10.8.0.1", "mode": "join-remote", "ttl": "9"}


@pytest.mark.parametrize("storage, flags, typed, kept", [
    ("Stored for all users", None, True, True), ("Stored for this user only", "1", True, False),
    ("Asked for each time", "2", False, False), ("Not required", "4", False, False)])
def test_who_keeps_the_key(host, storage, flags, typed, kept):
    """For this user only: that is, in no file of NetworkManager's."""
    create(host, f"key{flags}")
    host.set(remote="10.8.0.1", key=KEY, key_flags=storage)
    assert host.get("key")["sensitive"] == ("yes" if typed else "no")
    save(host)
    assert data(host, f"key{flags}").get("key-flags") == flags
    assert key_of(host, f"key{flags}") == (KEY if kept else None)
    edit(host, f"key{flags}")
    assert host.get("key-flags")["text"] == storage
    assert host.get("key")["text"] == (KEY if kept else "")


def test_other_sums_of_flags(host):
    """Which the page has no word for: kept, or told to be none."""
    add(host, "flags", "remote=10.8.0.1, key-flags=6")
    edit(host, "flags")
    assert host.get("key-flags")["text"] == "Not required"
    host.set(remote="10.8.0.2")
    save(host)
    assert data(host, "flags") == {"remote": "10.8.0.2", "key-flags": "6"}
    host.bed.ctl("connection", "modify", f"flags-{host.toolkit}", "+vpn.data", "key-flags=9")
    wait_until(lambda: data(host, "flags")["key-flags"] == "9", "it is modified")

    def told():
        edit(host, "flags")
        return "0 to 7" in host.get("key-flags")["problem"]
    wait_until(told, "the program has heard of it")
    assert host.tell("save")[0].startswith("error key-flags")
    host.set(key_flags="Stored for this user only")
    save(host)
    assert data(host, "flags")["key-flags"] == "1"


def test_the_rest_of_the_connection_stays(host):
    """What the page does not show is kept."""
    add(host, "rest", "remote=10.8.0.1, ttl=9", "vpn.timeout", "17", "vpn.user-name", "anna",
        "ipv4.method", "manual", "ipv4.addresses", "192.0.2.7/24", "vpn.persistent", "yes")
    edit(host, "rest")
    assert host.get("persistent")["text"] == "yes"
    host.set(remote="10.8.0.9", persistent="no")
    save(host)
    name = f"rest-{host.toolkit}"
    assert data(host, "rest") == {"remote": "10.8.0.9", "ttl": "9"}
    wanted = {"vpn.timeout": "17", "vpn.user-name": "anna", "ipv4.method": "manual",
              "ipv4.addresses": "192.0.2.7/24", "vpn.persistent": "no"}
    assert {k: host.bed.get(name, k) for k in wanted} == wanted


def test_closed_with_the_advanced_window_open(host):
    create(host, "closed")
    host.set(remote="10.8.0.1")
    host.do("press", "advanced")
    host.do("set", "ttl", "7")
    host.do("close")
    assert not set(host.do("fields")), "nothing of it is left on the screen"
    create(host, "closed")
    assert set(host.do("fields")) - BUTTONS == SIMPLE


def test_advanced_window_by_keys(host):
    """Typed where the focus is; Escape is Cancel, Alt+A is Apply."""
    create(host, "keys")
    host.set(remote="10.8.0.1")
    for key, held in (("Escape", {}), ("alt+a", {"tunnel": "7"})):
        host.do("press", "advanced")
        host.screen.keys("Advanced options of the tunnel", "Tab", "7")
        wait_until(lambda: host.get("tunnel")["text"] == "7", "it is typed")
        host.screen.keys("Advanced options of the tunnel", key)
        wait_until(lambda: "tunnel" not in host.do("fields"), f"{key} closes the window")
        host.do("press", "advanced")
        assert host.get("tunnel")["text"] == held.get("tunnel", "")
        host.do("press", "cancel")


# The program that Debian has for it

KIND = "Ethernet over a VPN (ethercord)"


def editor(desk):
    return Accessible(desk, desk.screen, "nm-connection-editor")


def fill(program, texts, choices):
    for name, text in choices.items():
        program.do("choose", name, text=text)
    for name, text in texts.items():
        program.do("type", name, text=text)


def can_save(program):
    return program.do("get", "Save")["sensitive"]


def test_nm_connection_editor(desk):
    """List, create, edit, save, open again."""
    program = editor(desk)
    wait_until(lambda: "base" in program.do("cells"), "it is in the list")
    program.do("click", "Add")
    program.do("choose", "    Ethernet", text=KIND)
    program.picture("kinds")
    program.do("press", "Create…")
    program.do("type", "Connection name", text="home")
    assert not can_save(program), "there is no remote yet"
    fill(program, {"Remote": "10.8.0.1", "Key": KEY, "Bring up with": "Work"},
         {"Mode": "Join networks", "IPv6": "None"})
    assert not can_save(program), "there is no bridge yet"
    program.do("type", "Bridge", text="br0")
    program.do("press", "Keep trying")
    wait_until(lambda: can_save(program), "it can be saved")
    program.picture("filled")
    program.do("press", "Advanced…")
    program.do("type", "TTL", text="999")
    assert not program.do("get", "Apply")["sensitive"]
    program.picture("wrong-advanced")
    fill(program, {"TTL": "9", "Encapsulation": "vxlan"}, {"Data plane": "Kernel"})
    program.do("press", "Apply")
    program.do("press", "Save")
    wait_until(lambda: "home" in program.do("cells"), "it is in the list")
    held = {"remote": "10.8.0.1", "mode": "join-networks", "bridge": "br0", "ipv6": "none",
            "up-with": "Work", "ttl": "9", "encapsulation": "vxlan", "data-plane": "kernel"}
    assert items(desk, "home") == held
    assert secrets(desk, "home") == {"key": KEY}
    wanted = {"vpn.persistent": "yes", "connection.type": "vpn",
              "vpn.service-type": "org.freedesktop.NetworkManager.ethercord"}
    assert {k: desk.get("home", k) for k in wanted} == wanted
    program.picture("list")
    program.close()

    program = editor(desk)
    wait_until(lambda: "home" in program.do("cells"), "it is in the list")
    program.do("open", "home")
    shown = {n: program.do("get", n)["text"] for n in
             ("Remote", "Mode", "Bridge", "IPv4", "IPv6", "Addresses", "Storage", "Bring up with")}
    assert shown == {"Remote": "10.8.0.1", "Mode": "Join networks", "Bridge": "br0",
                     "IPv4": "By the connection's settings", "IPv6": "None", "Addresses": "",
                     "Storage": "Stored for all users", "Bring up with": "Work"}
    assert program.do("get", "Keep trying")["checked"]
    program.do("type", "Bridge", text="")
    assert not can_save(program)
    program.picture("wrong")
    fill(program, {"Bridge": "br1"}, {"Storage": "Asked for each time"})
    wait_until(lambda: can_save(program), "it can be saved")
    program.do("press", "Save")
    held |= {"bridge": "br1", "key-flags": "2"}
    wait_until(lambda: items(desk, "home") == held, "it is saved")
    assert secrets(desk, "home") == {}
    program.close()
