# SPDX-License-Identifier: GPL-2.0-or-later
"""ethercordctl: what it does, what it prints, how it exits."""

import base64
import json
import os
import select
import subprocess

import pytest

from ethercord import CTL, FAR, NEAR, Sites, bridge, ping, wait_until

STATIC = ["control=static", "underlay=any", "encapsulation=vxlan", f"remote={FAR}"]


def ctl(sites, *words, **more):
    return sites.daemon.ctl(*words, **more)


def test_the_life_of_a_tunnel(sites):
    out = ctl(sites, "add", "t1", *STATIC, "id=1", check=0)
    assert sites.client.state("t1") == "down"
    ctl(sites, "up", "t1", check=0)
    assert sites.near.is_up("ec-t1")
    ctl(sites, "set", "t1", "mtu=1300", check=0)
    assert sites.near.link("ec-t1")["mtu"] == 1300
    ctl(sites, "set", "t1", "mtu=", check=0)
    assert sites.near.link("ec-t1")["mtu"] == 1450
    out = ctl(sites, "list", check=0).stdout
    assert "t1" in out and "up" in out
    ctl(sites, "down", "t1", check=0)
    assert sites.near.link("ec-t1") is None
    ctl(sites, "remove", "t1", check=0)
    assert sites.client.tunnels() == []


def test_add_save_up(sites):
    done = ctl(sites, "add", "t1", *STATIC, "id=1", "--save", "--up", check=0)
    assert "t1: up" in done.stderr
    assert (sites.daemon.tunnels / "t1.conf").exists() and sites.near.is_up("ec-t1")


def test_without_a_daemon(sites):
    sites.daemon.stop()
    for words in (["list"], ["status", "t1"], ["up", "t1"], ["monitor"], ["reload"], []):
        done = ctl(sites, *words, check=8)
        assert done.stderr.startswith("ethercordctl: ") and len(done.stderr.splitlines()) == 1
    sites.daemon.start()


USAGE = [["nonsense"], ["--nonsense"], ["add"], ["up"], ["set", "t1"], ["list", "--up"],
         ["export", "t1"], ["export", "t1", "--as", "pigeon"], ["up", "t1", "--timeout=x"],
         ["add", "t2", "ttl=999"], ["add", "t2", "nonsense=1"], ["add", "t2", "remote"],
         ["add", "../x", *STATIC], ["add", "t2", *STATIC, "name=t3"],
         ["set", "t1", "ttl=256"], ["list", "--json=pigeon"]]


@pytest.mark.parametrize("words", USAGE, ids=" ".join)
def test_usage(sites, words):
    sites.tunnel()
    done = ctl(sites, *words, check=2)
    assert done.stderr.startswith("ethercordctl: ") and not done.stdout
    assert sites.client.tunnels() == ["t1"]


@pytest.mark.parametrize("words", [["up", "x"], ["down", "x"], ["remove", "x"], ["status", "x"],
                                   ["set", "x", "mtu=1300"], ["export", "x", "--as", "ip"],
                                   ["setkey", "x"]], ids=" ".join)
def test_not_found(sites, words):
    key = base64.b64encode(bytes(32)).decode() + "\n"
    done = ctl(sites, *words, check=10, input=key)
    assert "x" in done.stderr


def test_exit_1_refused(sites):
    sites.tunnel()
    assert "t1" in ctl(sites, "add", "t1", *STATIC, check=1).stderr


def test_exit_3_time_out(sites):
    words = ["mode=point-to-point", "control=static", "underlay=device:none0",
             "encapsulation=vxlan", f"remote={FAR}"]
    done = ctl(sites, "add", "t1", *words, "--up", "--timeout=1", check=3)
    assert "there is no interface none0" in done.stderr
    done = ctl(sites, "up", "t1", "--timeout=1", check=3)
    ctl(sites, "up", "t1", "--no-wait", check=0)
    assert sites.client.state("t1") == "waiting"


def test_exit_4_up_failed(sites):
    ctl(sites, "add", "t1", *STATIC, "mode=join-networks", "bridge=nobridge", check=0)
    done = ctl(sites, "up", "t1", check=4)
    assert "nobridge" in done.stderr and "bridge-create" in done.stderr
    ctl(sites, "add", "t2", *STATIC, "mode=join-networks", "bridge=nobridge", "--up", check=4)
    assert sites.client.tunnels() == ["t1"]


def test_several_names(sites):
    sites.tunnel("t1", 1)
    sites.tunnel("t2", 2)
    done = ctl(sites, "down", "t1", "nobody", "t2", check=10)
    assert "nobody" in done.stderr
    assert [sites.client.state(n) for n in ("t1", "t2")] == ["down", "down"]
    ctl(sites, "up", "t2", "t1", check=0)
    assert [sites.client.state(n) for n in ("t1", "t2")] == ["up", "up"]


def test_up_waits(lab, sites):
    """Until it is up, and says on the way what it waits for."""
    sites.client.add("t1", "", remote=FAR, id=1, underlay="device:late0")
    up = lab.popen(CTL, "up", "t1", "--timeout=30", env=sites.bus.environment(),
                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert "waiting: there is no interface late0" in up.stderr.readline()
    assert up.poll() is None
    sites.near.ip("link", "set", "wire", "down")
    sites.near.ip("link", "set", "wire", "name", "late0", "up")
    assert up.wait(20) == 0
    assert "t1: up" in up.stderr.read()


def test_lines_fit(sites):
    """80 columns in a pipe, also with long names, and for what is not ASCII."""
    bridge(sites.near, "br-with-a-name0")
    name = "a-very-long-name-of-a-tunnel-that-somebody-thought-was-useful.x"
    assert len(name) == 63
    sites.client.add(name, remote=FAR, id=1, mode="join-networks", bridge="br-with-a-name0")
    sites.client.add("w", remote="a-host-whose-name-is-rather-long-indeed.example.invalid", id=2)
    for locale in ("C.UTF-8", "C"):
        for words in (["list"], ["status"], ["underlays"], []):
            out = ctl(sites, *words, check=0, env={"LC_ALL": locale}).stdout
            assert out and max(map(len, out.splitlines())) <= 80, (words, out)
        if locale == "C":
            assert out.isascii()
    wide = ctl(sites, "list", check=0, env={"COLUMNS": "200"}).stdout
    assert name in wide
    assert "\x1b" not in wide, "no colours in a pipe"
    plain = ctl(sites, "list", "--no-legend", check=0).stdout
    assert len(plain.splitlines()) == 2


def test_json(sites):
    sites.tunnel()
    for mode in ("short", "pretty"):
        listed = json.loads(ctl(sites, "list", f"--json={mode}", check=0).stdout)
        assert [t["Name"] for t in listed] == ["t1"] and listed[0]["State"] == "up"
    one = json.loads(ctl(sites, "status", "t1", "--json", check=0).stdout)
    assert one["Ifindex"] == sites.near.ifindex("ec-t1") and one["Settings"]["remote"] == [FAR]
    everything = json.loads(ctl(sites, "status", "--json", check=0).stdout)
    assert set(everything) == {"Manager", "Underlays", "Tunnels", "Listeners"}
    assert "vxlan/kernel" in everything["Manager"]["Encapsulations"]
    underlays = json.loads(ctl(sites, "underlays", "--json", check=0).stdout)
    assert [u["Name"] for u in underlays] == ["any"]
    assert len(ctl(sites, "list", "--json=short", check=0).stdout.splitlines()) == 1


def test_status_tells_all(sites):
    sites.tunnel()
    out = ctl(sites, "status", "t1", check=0).stdout
    for word in ("t1", "up", "ec-t1", FAR, NEAR, "vxlan", "1450", "any"):
        assert word in out, f"{word} is not in\n{out}"


@pytest.mark.parametrize("mode", [[], ["--json"]], ids=["text", "json"])
def test_monitor(lab, sites, mode):
    monitor = lab.popen(CTL, "monitor", *mode, env=sites.bus.environment(), text=True,
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    # It shows what it starts with, or else nothing says that it listens: ask until it does.
    log = []

    def listening():
        sites.client.add("probe", "", remote=FAR, id=99)
        sites.client.on("probe", "Remove")
        return os.read(monitor.stdout.fileno(), 65536) \
            if readable(monitor.stdout) else None
    wait_until(listening, "the monitor prints")
    sites.tunnel()
    sites.client.update("t1", mtu=1300)
    sites.client.on("t1", "Deactivate")
    sites.client.on("t1", "Remove")

    def seen():
        if readable(monitor.stdout):
            log.append(os.read(monitor.stdout.fileno(), 65536).decode())
        text = "".join(log)
        return text.endswith("\n") and [line for line in text.splitlines()
                                        if "t1" in line and "removed" in line]
    wait_until(seen, "it tells of the removal")
    lines = [line for line in "".join(log).splitlines() if "t1" in line]
    if mode:
        events = [json.loads(line) for line in lines]
        assert [e["event"] for e in events][0] == "added"
        assert [e["event"] for e in events][-1] == "removed"
        assert any(e.get("Mtu") == 1300 or e.get("properties", {}).get("Mtu") == 1300
                   for e in events), events
    else:
        assert any("Mtu 1300" in line for line in lines), lines
        assert any("down" in line for line in lines)


def readable(stream):
    return bool(select.select([stream], [], [], 0)[0])


def test_keys(sites):
    sites.tunnel()
    keys = {ctl(sites, "genkey", check=0).stdout for _ in range(20)}
    assert len(keys) == 20
    for key in keys:
        assert len(base64.b64decode(key, validate=False)) == 32 and key.endswith("\n")
    key = keys.pop()
    ctl(sites, "setkey", "t1", input=key, check=0)
    assert (sites.daemon.state / "keys/t1").read_text().strip() == key.strip()
    done = ctl(sites, "setkey", "t1", input="nonsense\n")
    assert done.returncode in (1, 2) and "nonsense" not in done.stderr
    assert (sites.daemon.state / "keys/t1").read_text().strip() == key.strip()


def test_reload(sites):
    sites.daemon.keyfile("t1", remote=FAR, id=1)
    ctl(sites, "reload", check=0)
    assert sites.client.state("t1") == "up"
    path = sites.daemon.keyfile("t2", remote=FAR, id=1, ttl=0)
    done = ctl(sites, "reload")
    assert done.returncode in (1, 2) and f"{path}:" in done.stderr


def execute(namespace, text):
    """The commands as somebody would paste them at the far end."""
    assert "ip link add" in text
    namespace.exec("sh", "-e", "-c", text)


def test_export_to_a_far_end_without_ethercord(sites):
    sites.client.add("t1", remote=FAR, id=42, address="192.168.9.1/24", mtu=1400)
    out = ctl(sites, "export", "t1", "--as", "ip", "--peer", check=0).stdout
    execute(sites.far, out)
    made = [l for l in sites.far.links().values() if l.get("linkinfo", {}).get("info_kind") ==
            "vxlan"]
    assert len(made) == 1 and made[0]["mtu"] == 1400
    sites.far.ip("addr", "add", "192.168.9.2/24", "dev", made[0]["ifname"])
    assert ping(sites.near, "192.168.9.2", 2)
    assert ping(sites.near, "192.168.9.2", size=1400 - 28, df=True)


def test_export_bridged(lab, sites):
    bridge(sites.near)
    bridge(sites.far)
    a = lab.host(sites.near, "br0", "192.168.9.1/24", "ha")
    lab.host(sites.far, "br0", "192.168.9.2/24", "hb")
    sites.client.add("t1", remote=FAR, id=42, mode="join-networks", bridge="br0")
    out = ctl(sites, "export", "t1", "--as", "ip", "--peer", check=0).stdout
    execute(sites.far, out)
    [name] = [n for n, l in sites.far.links().items()
              if l.get("linkinfo", {}).get("info_kind") == "vxlan"]
    sites.far.ip("link", "set", name, "master", "br0")
    assert ping(a, "192.168.9.2", size=1472)


def test_export_of_this_end_makes_the_same(lab):
    """Without --peer: the commands make what the daemon made."""
    sites = Sites(lab)
    sites.client.add("t1", remote=FAR, id=42, address="192.168.9.1/24", ttl=9, dscp=10)
    made = sites.near.link("ec-t1")
    out = ctl(sites, "export", "t1", "--as", "ip", check=0).stdout
    sites.client.on("t1", "Remove")
    execute(sites.near, out)
    again = sites.near.link("ec-t1")
    assert again["linkinfo"] == made["linkinfo"] and again["mtu"] == made["mtu"]


@pytest.mark.parametrize("peer", [[], ["--peer"]], ids=["here", "peer"])
def test_export_as_keyfile(lab, sites, peer):
    sites.client.add("t1", remote=FAR, id=42, mtu=1400)
    out = ctl(sites, "export", "t1", "--as", "keyfile", *peer, check=0).stdout
    other = lab.daemon(sites.far, "far-daemon", start=False)
    other.keyfile("t1", out)
    if not peer:
        sites.client.on("t1", "Remove")
        sites.daemon.keyfile("t1", out)
        ctl(sites, "reload", check=0)
        assert sites.client.get("t1")["Settings"]["id"] == 42
        return
    other.start()
    other.bus.client.wait_state("t1", "up")
    sites.near.ip("addr", "add", "192.168.9.1/24", "dev", "ec-t1")
    sites.far.ip("addr", "add", "192.168.9.2/24", "dev", "ec-t1")
    assert ping(sites.near, "192.168.9.2")


def test_export_for_others(sites):
    sites.client.add("t1", remote=FAR, id=42, address="192.168.9.1/24")
    networkd = ctl(sites, "export", "t1", "--as", "networkd", check=0).stdout
    assert "Kind=vxlan" in networkd and "VNI=42" in networkd and f"Remote={FAR}" in networkd
    nmcli = ctl(sites, "export", "t1", "--as", "nmcli", check=0).stdout
    assert "nmcli connection add" in nmcli and "vxlan" in nmcli and FAR in nmcli


def test_remove_all(sites):
    """More at once than a system bus lets one caller have unanswered."""
    for i in range(400):
        sites.client.add(f"t{i}", "activate" if i < 30 else "", remote=FAR, id=i)
    ctl(sites, "remove", "--all", check=0)
    assert sites.client.tunnels() == []
    assert set(sites.near.links()) == {"lo", "wire"}


def test_help_and_completion(sites):
    help_text = ctl(sites, "--help", check=0).stdout
    for verb in ("list", "status", "add", "up", "down", "set", "remove", "monitor", "genkey",
                 "setkey", "export", "reload", "underlays", "doctor"):
        assert verb in help_text
    assert max(map(len, help_text.splitlines())) <= 80
    version = ctl(sites, "--version", check=0).stdout.split()
    assert version[0] == "ethercordctl" and version[1]
    told = ctl(sites, "--settings", check=0).stdout
    for key in ("encapsulation", "bridge-create", "full-frames"):
        assert key in told


def test_full_output(sites):
    """A full disk behind the output is an error, not a success."""
    sites.tunnel()
    with open("/dev/full", "w") as full:
        done = subprocess.run([CTL, "list"], stdout=full, stderr=subprocess.PIPE, check=False,
                              env=sites.bus.environment())
    assert done.returncode == 1
