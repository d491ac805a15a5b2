# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections of NetworkManager as installed: systemd, udev, polkit and NetworkManager as Debian has
them, the daemon as its own user, started when it is called. The far end is `ip link`.

    near: eth0 (10.9.0.1) --- ub (10.9.0.2): far          near: an emulated card, nobody beside it

Run with run-vm --systemd --nic: what is installed goes to the machine's throw-away overlay."""

import json
import os
import pathlib
import pwd
import subprocess
import time
import uuid

import pytest

from wire import BUILD, Site, run, wait_for

NEAR, FAR = "10.9.0.1", "10.9.0.2"
INSIDE, OUTSIDE = "192.168.7.2/24", "192.168.7.1"
NM = "org.freedesktop.NetworkManager"
UNIT, PROGRAM = "ethercord.service", "nm-ethercord-service"
PROFILES = pathlib.Path("/etc/NetworkManager/system-connections")
RULE = pathlib.Path("/usr/share/polkit-1/rules.d/org.ethercord1.rules")
NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
KINDS = ("gretap", "gretap-fou")

pytestmark = pytest.mark.skipif("IN_VM" not in os.environ or not pathlib.Path(
    "/run/systemd/system").exists(), reason="installs to /: run it with run-vm --systemd --nic")

CONFIG = """[main]
plugins=keyfile
dns=none
rc-manager=unmanaged
no-auto-default=*
[connectivity]
enabled=false
"""


def nmcli(*words, check=True, by=()):
    return run(*by, "nmcli", *words, check=check)


def link(name):
    done = run("ip", "-d", "-j", "link", "show", name, check=False)
    return json.loads(done.stdout)[0] if done.returncode == 0 else None


def identity(name):
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))


def write(name, type="vpn", ipv4=None, groups=None, **connection):
    """A profile's file, read at once; '_' in a key of [connection] stands for '-'."""
    groups = {"connection": {"id": name, "uuid": identity(name), "type": type,
                             "autoconnect": "false",
                             **{k.replace("_", "-"): v for k, v in connection.items()}},
              "ipv4": ipv4 or {"method": "disabled"}, "ipv6": {"method": "disabled"},
              **(groups or {})}
    file = PROFILES / f"{name}.nmconnection"
    file.touch(0o600)
    file.write_text("".join(f"[{group}]\n" + "".join(f"{k}={v}\n" for k, v in keys.items())
                            for group, keys in groups.items()))
    nmcli("connection", "load", str(file))


def manual(address=INSIDE, gateway=None):
    return {"method": "manual", "address1": f"{address},{gateway}" if gateway else address}


def cord(kind="gretap", name="cord", ipv4=None, persistent=False, remote=FAR, id=7, **data):
    """A profile of ours."""
    vpn = {"service-type": f"{NM}.ethercord", "remote": remote, "control": "static", "id": id,
           "encapsulation": kind, "underlay": "any", **{k.replace("_", "-"): v
                                                        for k, v in data.items()}}
    if persistent:
        vpn["persistent"] = "true"
    write(name, ipv4=ipv4 or manual(), groups={"vpn": vpn})


def state(name="cord"):
    return nmcli("-g", "GENERAL.STATE", "connection", "show", name, check=False).stdout.strip()


def up(name="cord", wait=60):
    nmcli("--wait", str(wait), "connection", "up", name)


def down(name="cord"):
    nmcli("--wait", "30", "connection", "down", name, check=False)


def show(prop, unit=UNIT):
    return run("systemctl", "show", "-P", prop, unit).stdout.strip()


def said(name="cord", since=0):
    """What nmcli's hint leads to, of ours."""
    text = run("journalctl", "-b", "-q", "--no-pager", "-o", "json", f"--since=@{since}",
               f"NM_CONNECTION={identity(name)}").stdout
    entries = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [e["MESSAGE"] for e in entries
            if str(e.get("SYSLOG_IDENTIFIER", "")).startswith(("ethercord", "nm-ethercord"))]


def pings(address=OUTSIDE):
    return run("ping", "-n", "-q", "-c", "3", "-i", "0.05", "-w", "5", address,
               check=False).returncode == 0


def wait_gone(name="cord"):
    wait_for(lambda: not state(name), f"{name} is down")
    wait_for(lambda: link(f"ec-{name}") is None, "its interface is gone")


@pytest.fixture(scope="module", autouse=True)
def installed():
    run("meson", "install", "-C", str(BUILD), "--no-rebuild", "--quiet", timeout=600)
    run("systemd-sysusers", "/usr/lib/sysusers.d/ethercord.conf")
    run("systemd-tmpfiles", "--create", "/usr/lib/tmpfiles.d/ethercord.conf")
    pathlib.Path("/etc/NetworkManager/NetworkManager.conf").write_text(CONFIG)
    # It would run scripts of Debian's at each step, for nothing.
    run("systemctl", "mask", "--quiet", "NetworkManager-dispatcher.service")
    run("systemctl", "daemon-reload")
    run("busctl", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
        "ReloadConfig")
    run("systemctl", "start", "polkit", "NetworkManager")
    yield
    print(run("journalctl", "-b", "-q", "--no-pager", "-o", "short-precise", "-u", UNIT, "-u",
              "NetworkManager", "-u", "polkit", check=False).stdout[-60000:])


@pytest.fixture(scope="module")
def far(installed):
    site = Site("far")
    run("modprobe", "fou")
    # Debian's rules leave a veth of another name to others.
    run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "ub", "netns", "far")
    site.ip("addr", "add", f"{FAR}/24", "dev", "ub")
    site.ip("link", "set", "ub", "up")
    site.ip("fou", "add", "port", "65201", "ipproto", "47")
    for number, (name, more) in enumerate((("gretap", ()), ("gretap-fou", (
            "encap", "fou", "encap-sport", "65201", "encap-dport", "65201")))):
        site.ip("link", "add", name, "type", "gretap", "local", FAR, "remote", NEAR, "key",
                str(7 + number), *more)
    write("base", type="ethernet", interface_name="eth0", autoconnect="true",
          ipv4=manual(f"{NEAR}/24", FAR))
    wait_for(lambda: state("base") == "activated", "the base connection is up", 60)
    return site


@pytest.fixture
def end(far):
    """end(kind): that end has the address that is pinged. A profile's id fits its kind."""
    def move(kind="gretap"):
        for other in KINDS:
            far.ip("addr", "flush", "dev", other)
            far.ip("link", "set", other, "down")
        far.ip("addr", "add", f"{OUTSIDE}/24", "dev", kind)
        far.ip("link", "set", kind, "up")
        return 7 + KINDS.index(kind)
    yield move
    down()
    wait_gone()


@pytest.mark.parametrize("kind", KINDS)
def test_up_and_down(end, kind):
    """Nothing of ours runs before; D-Bus has systemd start the daemon as its user."""
    run("systemctl", "stop", UNIT)
    cord(kind, id=end(kind))
    up()
    made = link("ec-cord")
    assert made["linkinfo"]["info_kind"] == "gretap"
    assert ("encap" in made["linkinfo"]["info_data"]) == (kind == "gretap-fou")
    assert pings()
    assert nmcli("-g", "IP4.ADDRESS", "connection", "show", "cord").stdout.strip() == INSIDE
    assert show("ActiveState") == "active"
    pid = show("MainPID")
    assert pathlib.Path(f"/proc/{pid}").stat().st_uid == pwd.getpwnam("ethercord").pw_uid
    wait_for(lambda: any("up" in s for s in said()), "the journal has it")
    down()
    wait_gone()
    wait_for(lambda: run("pgrep", "-f", PROGRAM, check=False).returncode == 1, "the service ends")
    wait_for(lambda: "65201" not in run("ip", "fou", "show").stdout, "its port is closed")


def is_port():
    """By a profile of the port's own, not by the daemon."""
    shown = [nmcli("-g", f"GENERAL.{what}", "device", "show", "ec-cord").stdout
             for what in ("CONNECTION", "STATE")]
    assert shown[0].startswith("cord (") and "(connected)" in shown[1], shown
    return True


@pytest.mark.parametrize("full_frames", ["no", "auto"])
@pytest.mark.parametrize("kind", KINDS)
def test_bridge_port(end, kind, full_frames):
    """NetworkManager has the bridge up before, and shows the port. It has no profile for a GRETAP
    that takes full frames, with a TTL and without path MTU discovery: the daemon sees to that."""
    write("br0", type="bridge", interface_name="br0", ipv4=manual(),
          groups={"bridge": {"stp": "false"}})
    cord(kind, id=end(kind), mode="join-remote", bridge="br0", ipv4={"method": "disabled"},
         full_frames=full_frames)
    up()
    try:
        assert link("ec-cord")["master"] == "br0"
        wait_for(lambda: state("br0") == "activated", "the bridge is up")
        assert pings()
        if full_frames == "no":
            assert is_port()
        else:
            wait_for(lambda: any("keeps it in bridge br0" in s for s in said()),
                     "the journal has it")
    finally:
        down()
        down("br0")
        nmcli("connection", "delete", "br0")


def test_lease(end, far, tmp_path):
    """NetworkManager's own DHCP over the cord; nothing but udev says when the device may be used."""
    id = end("gretap-fou")
    server = far.popen("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0",
                       "--no-ping", "--interface=gretap-fou", "--bind-interfaces", "--pid-file=",
                       "--dhcp-authoritative", f"--dhcp-leasefile={tmp_path}/leases",
                       "--dhcp-range=192.168.7.100,192.168.7.150,1h", stderr=subprocess.DEVNULL)
    try:
        cord("gretap-fou", id=id, ipv4={"method": "auto"})
        up()
        address = nmcli("-g", "IP4.ADDRESS", "connection", "show", "cord").stdout
        assert address.startswith("192.168.7.1") and address.strip() != INSIDE
        assert pings()
    finally:
        server.terminate()
        server.wait()


def test_udev_is_slow(end):
    """Until udev has seen a device it is strictly unmanaged: that is waited for, not a failure."""
    write("br0", type="bridge", interface_name="br0", ipv4=manual(),
          groups={"bridge": {"stp": "false"}})
    up("br0")
    cord(id=end(), mode="join-remote", bridge="br0", full_frames="no",
         ipv4={"method": "disabled"})
    run("udevadm", "control", "--stop-exec-queue")
    try:
        asked = subprocess.Popen(["nmcli", "--wait", "60", "connection", "up", "cord"],
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        wait_for(lambda: link("ec-cord"), "the interface is there", 60)
        with pytest.raises(subprocess.TimeoutExpired):
            asked.wait(7)  # longer than a refusal is put up with otherwise
        assert state() == "activating"
    finally:
        run("udevadm", "control", "--start-exec-queue")
    assert asked.wait(60) == 0, asked.stdout.read()
    assert pings() and link("ec-cord")["master"] == "br0"
    assert is_port()
    down()
    down("br0")
    nmcli("connection", "delete", "br0")


def test_nobody_may_not(end):
    """Nor does a refused request leave anything; a rule of the administrator's allows it."""
    cord(id=end())
    rule = pathlib.Path("/etc/polkit-1/rules.d/10-nobody.rules")
    denied = nmcli("connection", "up", "cord", check=False, by=NOBODY)
    assert denied.returncode != 0 and "Not authorized" in denied.stdout
    assert not state() and link("ec-cord") is None
    rule.write_text(f"""polkit.addRule(function(action, subject) {{
    if (action.id == "{NM}.network-control" && subject.user == "nobody")
        return polkit.Result.YES; }});""")
    try:
        wait_for(lambda: nmcli("--wait", "60", "connection", "up", "cord", check=False,
                               by=NOBODY).returncode == 0, "polkit has read its rule", 60)
        assert pings()
        assert nmcli("connection", "down", "cord", check=False, by=NOBODY).returncode == 0
    finally:
        rule.unlink()


def test_hint(end):
    """The command that nmcli prints shows why."""
    end()
    cord(bridge="br0")
    failed = nmcli("--wait", "30", "connection", "up", "cord", check=False)
    assert failed.returncode == 4
    assert f"NM_CONNECTION={identity('cord')}" in failed.stdout
    command = failed.stdout[failed.stdout.index("journalctl"):].split("'")[0].split(" + ")[0]
    wait_for(lambda: "bridge: mode is point-to-point" in
             run(*command.split(), "--no-pager", "-b", "-o", "cat").stdout, "the journal has it")
    assert link("ec-cord") is None


# up-with: the daemon asks NetworkManager as user ethercord, without a session

@pytest.fixture
def wireguard(far):
    """A connection of NetworkManager's that leads to 10.7.0.2 in the far end."""
    keys = [run("wg", "genkey").stdout.strip() for _ in range(2)]
    public = [run("sh", "-c", f"echo {key} | wg pubkey").stdout.strip() for key in keys]
    far.ip("link", "add", "wg0", "type", "wireguard")
    far.run("sh", "-c", f"echo {keys[1]} | wg set wg0 private-key /dev/stdin listen-port 51820 "
            f"peer {public[0]} allowed-ips 10.7.0.1/32")
    far.ip("addr", "add", "10.7.0.2/24", "dev", "wg0")
    far.ip("link", "set", "wg0", "up")
    far.ip("link", "add", "inner", "type", "gretap", "local", "10.7.0.2", "remote", "10.7.0.1",
           "key", "9")
    far.ip("addr", "add", "192.168.8.1/24", "dev", "inner")
    far.ip("link", "set", "inner", "up")
    write("Work", type="wireguard", interface_name="wg0", ipv4=manual("10.7.0.1/24"), groups={
        "wireguard": {"private-key": keys[0]},
        f"wireguard-peer.{public[1]}": {"endpoint": f"{FAR}:51820", "allowed-ips": "10.7.0.0/24;"}})
    cord(remote="10.7.0.2", id=9, underlay="vpn", up_with="Work",
         ipv4=manual("192.168.8.2/24"))
    yield
    down()
    down("Work")
    for name in ("inner", "wg0"):
        far.ip("link", "del", name)
    nmcli("connection", "delete", "Work")


def test_up_with(wireguard):
    run("systemctl", "start", UNIT)
    up("Work")
    wait_for(lambda: state() == "activated", "it comes up with its VPN", 60)
    assert pings("192.168.8.1")
    down("Work")
    wait_gone()


def test_up_with_needs_the_rule(wireguard):
    """It is the only one that lets the daemon do so."""
    run("systemctl", "start", UNIT)
    text, since = RULE.read_text(), int(time.time())
    RULE.unlink()
    try:
        run("systemctl", "restart", "polkit")
        up("Work")
        wait_for(lambda: any(RULE.name in s for s in said(since=since)), "it is said", 60)
        assert not state()
    finally:
        RULE.write_text(text)
        run("systemctl", "restart", "polkit")


# Life

@pytest.fixture
def patient():
    """NetworkManager takes its time in an emulated machine."""
    config = pathlib.Path("/etc/ethercord/ethercord.conf")
    config.write_text("[daemon]\nprofile-grace=30\n")
    run("systemctl", "restart", UNIT)
    yield
    config.unlink()
    run("systemctl", "restart", UNIT)


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_networkmanager_is_restarted(patient, end, how):
    cord(id=end())
    up()
    index = link("ec-cord")["ifindex"]
    if how == "kill":
        run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "NetworkManager")
        run("systemctl", "start", "NetworkManager")
    else:
        run("systemctl", "restart", "NetworkManager")
    wait_for(lambda: state() == "activated", "it is a connection again", 60)
    assert link("ec-cord")["ifindex"] == index and pings()


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_daemon_is_restarted(end, how):
    cord(id=end())
    up()
    index, pid = link("ec-cord")["ifindex"], show("MainPID")
    if how == "kill":
        run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", UNIT)
    else:
        run("systemctl", "restart", UNIT)
    wait_for(lambda: show("MainPID") not in ("0", pid), "there is another daemon", 60)
    # Longer than a tunnel is kept that nobody wants.
    end_at = time.monotonic() + 7

    def kept():
        assert link("ec-cord")["ifindex"] == index and state() == "activated"
        return time.monotonic() > end_at
    wait_for(kept, "it is held again")
    assert pings()


def card():
    """The emulated one."""
    for entry in pathlib.Path("/sys/class/net").iterdir():
        if (entry / "device").exists():
            return entry.name
    raise AssertionError("no card: run-vm --nic")


def sleep(yes):
    run("busctl", "call", NM, "/org/freedesktop/NetworkManager", NM, "Sleep", "b",
        "true" if yes else "false", check=False)


@pytest.mark.parametrize("persistent", [False, True])
def test_sleep(end, persistent):
    """What rides on a card goes with it when the machine sleeps, or stays if it is to persist, and
    is there when it wakes."""
    cord(id=end(), persistent=persistent)
    below = {"method": "manual", "address1": "198.51.100.2/24,198.51.100.1", "route-metric": "1"}
    write("card", type="ethernet", interface_name=card(), autoconnect="true", ipv4=below,
          **({} if persistent else {"secondaries": f"{identity('cord')};"}))
    try:
        wait_for(lambda: state("card") == "activated", "the card is up", 60)
        if persistent:
            up()
        wait_for(lambda: state() == "activated", "the cord is up", 60)
        sleep(True)
        wait_for(lambda: not state("card"), "the card sleeps")
        if persistent:
            assert pings(), "only the card sleeps here"
        else:
            wait_gone()
        sleep(False)
        wait_for(lambda: state("card") == "activated", "the card is up", 60)
        wait_for(lambda: state() == "activated", "the cord is up", 60)
        assert pings()
    finally:
        sleep(False)
        nmcli("connection", "delete", "card")
