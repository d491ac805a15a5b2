# SPDX-License-Identifier: GPL-2.0-or-later
"""What nmcli loads: our keyfiles imported and exported, and who is asked for the key."""

import base64
import configparser
import random
import re
import subprocess

import pytest

import ethercord
from nmbed import FAR, SERVICE, Bed, built
from nmprofile import items, secrets

PLUGIN = "libnm-vpn-plugin-ethercord.so"
EDITORS = {"gtk3": ("libnm-vpn-plugin-ethercord-editor.so", "libgtk-3.so"),
           "gtk4": ("libnm-gtk4-vpn-plugin-ethercord-editor.so", "libgtk-4.so")}
KEY = base64.b64encode(bytes(range(7, 39))).decode()
CREATED = r"\(([0-9a-f-]{36})\) successfully added"

# What an import takes from elsewhere in the connection, or gives to it, and what this build cannot do.
NOT_DATA = {"name", "key", "autostart", "profile"}
UNSUPPORTED = {"fidelity": "transparent", "gre-keepalive": "10,3", "link-loss-forwarding": "yes",
               "guard": "dhcp", "control": "dynamic-fou"}


@pytest.fixture(scope="module")
def office():
    """NetworkManager with the plugin, and beside it a daemon to read files."""
    lab = ethercord.Lab()
    try:
        bed = Bed(lab, daemon=False)
        bed.scratch = lab.directory / "files"
        bed.scratch.mkdir()
        bed.reader = lab.daemon(bed.far, "reader")
        yield bed
    finally:
        lab.close()


def write(bed, name, text):
    file = bed.scratch / f"{name}.conf"
    file.write_text(text)
    return file


def keyfile(settings):
    return "[tunnel]\n" + "".join(f"{k}={v}\n" for k, v in settings.items())


def take(bed, file):
    """The UUID of what was imported."""
    done = bed.ctl("connection", "import", "type", "ethercord", "file", file)
    return re.search(CREATED, done.stdout).group(1)


def given(bed, name, text):
    """The settings that the daemon reads from such a file."""
    file = bed.reader.tunnels / f"{name}.conf"
    client = bed.reader.bus.client
    file.write_text(text)
    client.call(ethercord.PATH, ethercord.MANAGER, "Reload")
    settings = client.get(name)["Settings"]
    file.unlink()
    client.call(ethercord.PATH, ethercord.MANAGER, "Reload")
    assert settings.pop("name") == name
    return settings


def linked(name):
    text = subprocess.run(["ldd", built(name)], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert "libnm.so" in text
    return text


def defined(name):
    listed = subprocess.run(["nm", "-D", "--defined-only", built(name)], stdout=subprocess.PIPE,
                            text=True, check=True).stdout
    # But for what a linker puts there.
    return {line.split()[-1] for line in listed.splitlines()} - {"__bss_start", "_edata", "_end"}


def test_what_is_linked():
    """The part that nmcli loads has no toolkit, and nobody's names get in the way of others'."""
    assert not re.search(r"lib(gtk|gdk|nma|X11|cairo)", linked(PLUGIN))
    assert defined(PLUGIN) == {"nm_vpn_editor_plugin_factory"}
    for toolkit, (name, library) in EDITORS.items():
        text = linked(name)
        assert library in text, toolkit
        assert not [other for _, other in EDITORS.values() if other != library and other in text]
        assert "libnma" not in text
        assert defined(name) == {"ec_editor_new"}
    assert not re.search(r"lib(gtk|gdk|nma|X11)", linked("nm-ethercord-auth-dialog"))


def test_import(office):
    file = write(office, "import-one", keyfile({
        "name": "berlin", "remote": "10.8.0.1;vpn.example", "mode": "join-remote", "ttl": "0x20",
        "roam": "off", "key": KEY, "autostart": "no"}))
    uuid = take(office, file)
    assert items(office, uuid) == {"remote": "10.8.0.1,vpn.example", "mode": "join-remote",
                                  "ttl": "32", "roam": "no"}
    assert secrets(office, uuid) == {"key": KEY}
    assert office.get(uuid, "connection.id") == "berlin"
    assert office.get(uuid, "connection.type") == "vpn"
    assert office.get(uuid, "connection.autoconnect") == "no"
    assert office.get(uuid, "vpn.service-type") == SERVICE
    assert office.get(uuid, "ipv4.method") == office.get(uuid, "ipv6.method") == "auto"
    exported = office.ctl("connection", "export", uuid).stdout
    assert KEY not in exported
    assert "autostart=no\n" in exported
    assert "ethercordctl setkey berlin" in exported


@pytest.mark.parametrize("settings, method", [
    ({}, "disabled"), ({"address": "192.0.2.1/24"}, "disabled"),
    ({"mode": "join-remote"}, "auto"), ({"mode": "join-remote", "bridge": "br0"}, "disabled"),
    ({"mode": "join-networks", "bridge": "br0"}, "disabled")])
def test_addresses_of_an_import(office, settings, method):
    """What the daemon would do with the file; a client of another network gets its address there."""
    uuid = take(office, write(office, "methods", keyfile({"remote": "10.8.0.1", **settings})))
    assert office.get(uuid, "ipv4.method") == office.get(uuid, "ipv6.method") == method


def test_what_only_networkmanager_knows(office):
    """An export carries it to where it is imported, and the daemon takes the file all the same."""
    own = {"remote": "10.8.0.1", "tunnel-name": "lab2", "ipv4": "none", "ipv6": "auto", "up-with": "Work, Berlin",
           "key-flags": "2"}
    made = office.ctl("connection", "add", "type", "vpn", "vpn-type", "ethercord", "con-name",
                      "Lab (2nd floor)", "vpn.data",
                      ", ".join(f"{k}={v}" for k, v in own.items() if k != "up-with"))
    uuid = re.search(CREATED, made.stdout).group(1)
    office.ctl("connection", "modify", uuid, "+vpn.data", "up-with=Work\\, Berlin")
    assert items(office, uuid) == own
    file = office.scratch / "Lab.conf"
    office.ctl("connection", "export", uuid, file)
    assert "/etc/ethercord/tunnels.d/lab2.conf" in file.read_text()
    assert given(office, "Lab", file.read_text()) == {"remote": ["10.8.0.1"]}
    assert items(office, take(office, file)) == own


# One random valid value of each row.

def name_of(r, length=10):
    return r.choice("abcxyz") + "".join(r.choice("abc019-_.") for _ in range(r.randrange(length)))


def address(r, six=None):
    six = r.random() < 0.4 if six is None else six
    return f"fd00:{r.randrange(65536):x}::{r.randrange(1, 65536):x}" if six else \
        f"10.{r.randrange(256)}.{r.randrange(256)}.{r.randrange(1, 255)}"


def several(r, make, least=1):
    return r.choice([",", ";", ", "]).join(dict.fromkeys(make(r) for _ in range(r.randrange(least, 4))))


def number(low, high):
    def make(r):
        value = r.choice([low, high, r.randrange(low, high + 1)])
        return r.choice([str(value), hex(value)])
    return make


def word(*words):
    return lambda r: r.choice(words)


BOOL = word("yes", "no", "true", "off", "1", "0", "On")
VALUES = {
    "mode": word("point-to-point", "join-remote", "join-networks"),
    "remote": lambda r: several(r, lambda q: q.choice([address(q, False), "vpn.example.org", "a_b"])),
    "local": lambda r: address(r, False), "port": number(1, 65535),
    "control": word("ethercord", "static"), "identity": name_of,
    "underlay": word("vpn", "ipsec", "openvpn", "wireguard", "networkmanager", "device:wg7", "any"),
    "encapsulation": lambda r: ",".join(r.sample(
        ["auto", "gretap", "gretap-fou", "vxlan", "raw-udp", "gre", "ipip", "tun-udp"],
        r.randrange(1, 5))),
    "data-plane": word("auto", "kernel", "user"), "id": number(0, 2**32 - 1),
    "data-port": number(0, 65535), "remote-data-port": number(0, 65535),
    "interface": lambda r: f"i{name_of(r)}", "mtu": lambda r: number(68, 65535)(r),
    "mac": lambda r: "02:" + ":".join(f"{r.randrange(256):02x}" for _ in range(5)),
    "full-frames": word("auto", "yes", "no"), "split": word("auto", "yes", "no"), "roam": BOOL,
    "address": lambda r: several(r, lambda q: f"{address(q)}/{q.randrange(8, 33)}"),
    "bridge": lambda r: f"b{name_of(r)}", "bridge-create": BOOL, "attach": lambda r: f"a{name_of(r)}",
    "fidelity": word("bridge"), "guard": word("auto", "none"), "storm-limit": number(1, 1000000),
    "keepalive-interval": number(50, 3600000), "keepalive-timeout": number(100, 3600000),
    "link-loss-forwarding": word("no", "off", "0"), "ttl": number(1, 255), "dscp": number(0, 63),
    "fwmark": number(0, 2**32 - 1), "autostart": word("no", "off", "0"),
}
# What belongs together (settings-verify.c).
JOINED = {"bridge", "bridge-create", "attach"}


def is_on(text):
    return text.lower() in ("yes", "true", "on", "1")


def tunnel(r, wanted=()):
    """Settings that a daemon takes, with the wanted one among them."""
    keys = {k for k in VALUES if r.random() < 0.35} | {"remote", *wanted}
    s = {k: VALUES[k](r) for k in sorted(keys)}
    if JOINED & set(wanted):
        s["mode"] = r.choice(["join-remote", "join-networks"])
    if "address" in wanted:
        s["mode"] = "point-to-point"
    if s.get("mode", "point-to-point") == "point-to-point":
        for key in JOINED:
            s.pop(key, None)
    elif s["mode"] == "join-networks" or JOINED & set(s):
        s.setdefault("bridge", VALUES["bridge"](r))
        s.pop("address", None)
    if is_on(s.get("roam", "no")):
        s |= {"control": "static", "encapsulation": r.choice(["raw-udp", "tun-udp"])}
    # The interval is the smaller one.
    times = {"keepalive-interval", "keepalive-timeout"}
    if times & set(s):
        low, high = sorted(r.randrange(100, 3600001) for _ in range(2))
        s |= {"keepalive-interval": str(low), "keepalive-timeout": str(high)}
    keys = list(s)
    r.shuffle(keys)
    return {k: s[k] for k in keys}


def test_round_trip_of_every_setting(office):
    """File -> connection -> file: for the daemon, both files are the same."""
    known = set(subprocess.run([ethercord.CTL, "complete", "keys", "tunnel"], text=True, check=True,
                               stdout=subprocess.PIPE).stdout.split())
    assert set(VALUES) | set(UNSUPPORTED) | {"profile", "key"} >= known - {"name"}, \
        f"no values are tried of {known - set(VALUES)}"
    r = random.Random(6)
    seen = set()
    for number_, key in enumerate(sorted(VALUES)):
        settings = tunnel(r, [key])
        assert key in settings
        seen |= set(settings)
        name = f"tour{number_}"
        text = keyfile(settings)
        uuid = take(office, write(office, name, text))
        held = items(office, uuid)
        assert set(held) == set(settings) - NOT_DATA, text
        exported = office.scratch / f"back{number_}.conf"
        office.ctl("connection", "export", uuid, exported)
        before = given(office, name, text)
        after = given(office, f"back{number_}", exported.read_text())
        assert before == after, f"{text}\n{exported.read_text()}"
        assert set(before) == set(settings) - {"name"}, text
        office.ctl("connection", "delete", uuid)
        assert items(office, take(office, exported)) == held, "and once more"
    assert seen == set(VALUES)


@pytest.mark.parametrize("key", UNSUPPORTED)
def test_what_this_build_cannot_do(office, key):
    text = keyfile({"remote": "10.8.0.1", key: UNSUPPORTED[key]})
    assert office.ctl("connection", "import", "type", "ethercord", "file",
                      write(office, "cannot", keyfile({"remote": "10.8.0.1"}))).returncode == 0
    done = office.ctl("connection", "import", "type", "ethercord", "file",
                      write(office, "cannot", text), check=False)
    assert done.returncode and f"{key}={UNSUPPORTED[key].split(',')[0]}" in done.stderr
    assert "this build cannot do it" in done.stderr


BROKEN = {
    "unknown": ("[tunnel]\nremotes=10.8.0.1\n", ["'remotes'"]),
    "type": ("[tunnel]\nremote=10.8.0.1\nid=seven\n", ["id 'seven'", "0 to 4294967295"]),
    "range": ("[tunnel]\nremote=10.8.0.1\nttl=256\n", ["ttl '256'", "1 to 255"]),
    "word": ("[tunnel]\nremote=10.8.0.1\nmode=bridge\n", ["mode 'bridge'", "join-remote"]),
    "path": ("[tunnel]\nremote=10.8.0.1\nbridge=../x\n", ["bridge '../x'", "interface name"]),
    "control character": ("[tunnel]\nremote=10.8.0.1\nidentity=a\tb\n", ["identity", "control"]),
    "name": ("[tunnel]\nname=../x\nremote=10.8.0.1\n", ["name '../x'"]),
    "missing": ("[tunnel]\nid=5\n", ["remote", "missing"]),
    "together": ("[tunnel]\nremote=10.8.0.1\nbridge=br0\n", ["bridge", "point-to-point"]),
    "key": (f"[tunnel]\nremote=10.8.0.1\nkey={KEY[:-3]}\n", ["key", "base64 of 32 bytes"]),
    "listener": ("[listener]\nbridge=br0\n", ["[listener]", "allowed is [tunnel]"]),
    "empty": ("", ["no group [tunnel]"]),
    "line": ("[tunnel]\nwhat is this\n", ["what is this"]),
    "comment": ("#NetworkManager: ipv4=perhaps\n[tunnel]\nremote=10.8.0.1\n", ["ipv4 'perhaps'"]),
    "bytes": (b"[tunnel]\nremote=\xff\xfe\n", ["UTF-8"]),
    "null": (b"[tunnel]\nremote=10.0.0.1\x00\n", ["UTF-8"]),
    "size": ("#" * 300000, ["256 KiB"]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused(office, name):
    text, words = BROKEN[name]
    file = office.scratch / "broken.conf"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = office.ctl("-t", "-f", "UUID", "connection", "show").stdout
    done = office.ctl("connection", "import", "type", "ethercord", "file", file, check=False)
    assert done.returncode
    sentence = done.stderr.strip()
    assert str(file) in sentence and sentence.isprintable(), repr(sentence)
    for part in words:
        assert part in sentence, sentence
    assert KEY[:-3] not in sentence
    assert office.ctl("-t", "-f", "UUID", "connection", "show").stdout == before


def test_files_that_are_none(office):
    (office.scratch / "directory.conf").mkdir()
    for name in ("directory.conf", "nothing.conf"):
        done = office.ctl("connection", "import", "type", "ethercord", "file", office.scratch / name,
                          check=False)
        assert done.returncode and name in done.stderr


def test_exports_that_are_refused(office):
    for name, items, words in (
            ("shown", "tunnel=cellar", ["ethercordctl export cellar --as keyfile"]),
            ("wrong", "remote=10.8.0.1, mtu=20", ["mtu '20'", "68"]),
            ("strange", "remote=10.8.0.1, remotes=x", ["'remotes'"])):
        office.ctl("connection", "add", "type", "vpn", "vpn-type", "ethercord", "con-name", name,
                   "vpn.data", items)
        done = office.ctl("connection", "export", name, office.scratch / "out.conf", check=False)
        assert done.returncode
        for part in words:
            assert part in done.stderr, done.stderr
        assert not (office.scratch / "out.conf").exists()


# The key

def asked(*options, data=(), known=(), service=SERVICE, name="Büro"):
    """What the auth dialog tells the agent: {group: {key: value}}."""
    told = "".join(f"DATA_KEY={k}\nDATA_VAL={v}\n\n" for k, v in data)
    told += "".join(f"SECRET_KEY={k}\nSECRET_VAL={v}\n\n" for k, v in known)
    done = subprocess.run(
        [built("nm-ethercord-auth-dialog"), "-u", "0-1", "-n", name, "-s", service, *options],
        input=f"{told}DONE\n\nQUIT\n\n", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        timeout=20, check=False, env={"LC_ALL": "C.UTF-8"})
    if done.returncode:
        return done.stderr
    assert not done.stderr
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read_string(done.stdout)
    return {s: dict(parser[s]) for s in parser.sections()}


UI = ("--external-ui-mode", "-i")


@pytest.mark.parametrize("flags, saved, options, ask", [
    ("0", None, (), True), ("0", KEY, (), False), ("0", KEY, ("-r",), True),
    ("1", None, (), True), ("1", KEY, (), False), ("1", KEY, ("-t", "key"), True),
    ("2", None, (), True), ("2", KEY, (), True), ("4", None, (), None), ("6", None, (), None),
    ("4", None, ("-t", "key"), True), (None, None, (), True)])
def test_who_is_asked(flags, saved, options, ask):
    answer = asked(*UI, *options, data=[("remote", "10.8.0.1")] + ([("key-flags", flags)] if flags else []),
                   known=[("key", saved)] if saved else [])
    ui = answer["VPN Plugin UI"]
    assert ui["Version"] == "2" and "Büro" in ui["Description"] and ui["Title"]
    assert "base64 of 32 bytes" in ui["Description"]
    assert answer.get("key") == (None if ask is None else {
        "Value": saved or "", "Label": "Key", "IsSecret": "true",
        "ShouldAsk": "true" if ask else "false"})


def test_nobody_may_be_asked():
    assert "key" not in asked("--external-ui-mode", data=[("key-flags", "2")])
    assert asked("--external-ui-mode", known=[("key", KEY)])["key"]["ShouldAsk"] == "false"
    assert "key" not in asked(*UI, data=[("tunnel", "cellar")]), "the daemon has its key"


@pytest.mark.parametrize("options, service, words", [
    (("-i",), SERVICE, "--external-ui-mode"), (UI, "org.example.other", SERVICE),
    (("--external-ui-mode", "--what"), SERVICE, "--what")])
def test_dialogs_that_are_refused(options, service, words):
    assert words in asked(*options, service=service)


def test_nmcli_asks(lab):
    """And the peer lets in whom it would not without the answer."""
    bed = Bed(lab)
    peer = lab.daemon(bed.far, "peer")
    peer.bus.client.listen("office", peers={"anna": {"key": KEY}})
    bed.ctl("connection", "add", "type", "vpn", "vpn-type", "ethercord", "con-name", "Büro", "vpn.data",
            f"remote={FAR}, underlay=any, identity=anna, key-flags=2, ipv4=none, ipv6=none")
    without = bed.ctl("--wait", "20", "connection", "up", "Büro", check=False)
    assert without.returncode and "secrets" in without.stderr
    done = bed.ctl("--ask", "--wait", "20", "connection", "up", "Büro", input=f"{KEY}\n", check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert "'Büro'" in done.stdout and "Key (vpn.secrets.key)" in done.stdout, done.stdout
    assert KEY not in done.stdout + done.stderr
    peer.bus.client.wait_state("office.anna", "up")
    assert secrets(bed, "Büro") == {}, "it is nowhere kept"
