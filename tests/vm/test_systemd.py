# SPDX-License-Identifier: GPL-2.0-or-later
"""As installed: systemd, the system bus and polkit as Debian has them, the daemon as its own user.

Run with run-vm --systemd: what is installed goes to the machine's throw-away overlay."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import waiting

BUILD = pathlib.Path(os.environ.get("ETHERCORD_BUILD",
                                    pathlib.Path(__file__).resolve().parents[2] / "build"))
NAME, ROOT = "org.ethercord1", "/org/ethercord1"
UNIT = "ethercord.service"
NOT_AUTHORIZED = "org.ethercord1.Error.NotAuthorized"

pytestmark = pytest.mark.skipif("IN_VM" not in os.environ or not pathlib.Path(
    "/run/systemd/system").exists(), reason="installs to /: run it with run-vm --systemd")


def run(*command, check=True, **kw):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False, **kw)
    assert not check or done.returncode == 0, f"{' '.join(map(str, command))}: {done.stdout}"
    return done


def wait_for(condition, what, deadline=60):
    try:
        return waiting.wait_until(condition, what, deadline, 0.1)
    except AssertionError as e:
        raise AssertionError(f"{e}\n{journal()}") from None


def journal():
    return run("journalctl", "-b", "--no-pager", "-o", "cat", "-u", UNIT, check=False).stdout


def show(prop):
    return run("systemctl", "show", "-P", prop, UNIT).stdout.strip()


def ctl(*arguments, check=True):
    return run("ethercordctl", *arguments, check=check)


def status(name):
    return json.loads(ctl("--json=short", "status", name).stdout)


def link(name):
    done = run("ip", "-d", "-j", "link", "show", name, check=False)
    return json.loads(done.stdout)[0] if done.returncode == 0 else None


def as_nobody(path, interface, method, *arguments):
    """(name of the error, message), or (None, answer)."""
    done = run("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "gdbus", "call",
               "--system", "-d", NAME, "-o", path, "-m", f"org.ethercord1.{interface}.{method}",
               *arguments, check=False)
    if done.returncode == 0:
        return None, done.stdout
    found = re.search(r"GDBus\.Error:([\w.]+): (.*)", done.stdout)
    assert found, done.stdout
    return found.groups()


@pytest.fixture(scope="module", autouse=True)
def installed():
    run("meson", "install", "-C", BUILD, "--no-rebuild", "--quiet")
    run("systemd-sysusers", "/usr/lib/sysusers.d/ethercord.conf")
    run("systemd-tmpfiles", "--create", "/usr/lib/tmpfiles.d/ethercord.conf")
    run("systemctl", "daemon-reload")
    run("busctl", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
        "ReloadConfig")
    run("ip", "link", "add", "under0", "type", "dummy")
    run("ip", "address", "add", "10.9.0.2/24", "dev", "under0")
    run("ip", "link", "set", "under0", "up")
    yield
    print(journal())


@pytest.fixture
def tunnel():
    """A gretap tunnel that is up."""
    ctl("add", "cord", "control=static", "underlay=any", "remote=10.9.0.1", "id=7",
        "encapsulation=gretap", "--up")
    yield "cord"
    ctl("remove", "cord", check=False)


def test_installed_files():
    for name in ("libexec/ethercord/ethercordd", "bin/ethercordctl",
                 "share/dbus-1/interfaces/org.ethercord1.Manager.xml",
                 "share/dbus-1/interfaces/org.ethercord1.Tunnel.xml",
                 "share/dbus-1/system.d/org.ethercord1.conf",
                 "share/dbus-1/system-services/org.ethercord1.service",
                 "share/polkit-1/actions/org.ethercord1.policy", "lib/systemd/system/" + UNIT,
                 "share/polkit-1/rules.d/org.ethercord1.rules",
                 "libexec/ethercord/ethercord-worker",
                 "lib/systemd/system/ethercord-worker.socket",
                 "lib/systemd/system/ethercord-worker@.service",
                 "share/man/man1/ethercordctl.1", "share/man/man5/ethercord.5",
                 "share/man/man8/ethercordd.8"):
        assert (pathlib.Path("/usr") / name).is_file(), name


def test_activation_by_name():
    """Nothing runs until somebody calls the name; systemd starts the unit for it."""
    run("systemctl", "stop", UNIT)
    assert show("ActiveState") == "inactive"
    assert ctl("list").returncode == 0
    assert show("ActiveState") == "active"
    assert show("MainPID") == str(json.loads(run(
        "busctl", "--json=short", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus",
        "org.freedesktop.DBus", "GetConnectionUnixProcessID", "s", NAME).stdout)["data"][0])


def test_status_and_notify():
    ctl("list")
    assert "Active: active (running)" in run("systemctl", "status", "--no-pager", UNIT).stdout
    assert show("Type") == "notify" and show("BusName") == NAME


def test_own_user():
    ctl("list")
    lines = pathlib.Path(f"/proc/{show('MainPID')}/status").read_text().splitlines()
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    uid = int(run("id", "-u", "ethercord").stdout)
    assert uid != 0 and fields["Uid"].split() == [str(uid)] * 4
    assert int(fields["CapEff"], 16) == 1 << 12 | 1 << 13, "CAP_NET_ADMIN, CAP_NET_RAW, no more"
    assert fields["CapBnd"] == fields["CapEff"]
    assert fields["NoNewPrivs"] == "1" and fields["Seccomp"] == "2"
    assert fields["Threads"] == "1"


def test_security():
    done = run("systemd-analyze", "security", "--no-pager", "--threshold=25", UNIT, check=False)
    exposure = float(re.search(r"exposure level for .*: ([\d.]+)", done.stdout).group(1))
    assert exposure <= 2.5 and done.returncode == 0, done.stdout
    assert run("systemd-analyze", "verify", f"/usr/lib/systemd/system/{UNIT}").stdout == ""
    done = run("systemd-analyze", "security", "--no-pager", "ethercord-worker@.service")
    assert float(re.search(r"exposure level for .*: ([\d.]+)", done.stdout).group(1)) <= 1.5


@pytest.fixture
def worker():
    """A tunnel of the user data plane: the process of its unit."""
    ctl("add", "mine", "control=static", "underlay=any", "remote=10.9.0.1", "data-plane=user",
        "encapsulation=raw-udp", "--up")
    yield wait_for(worker_pid, "systemd started a worker")
    ctl("remove", "mine", check=False)


def worker_pid():
    """Of the one worker there is."""
    found = run("pgrep", "-x", "ethercord-worke", check=False).stdout.split()
    return int(found[0]) if len(found) == 1 else None


def test_worker_has_a_user_and_a_unit_of_its_own(worker):
    lines = pathlib.Path(f"/proc/{worker}/status").read_text().splitlines()
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    uid = run("id", "-u", "ethercord-worker").stdout.strip()
    assert uid not in ("0", run("id", "-u", "ethercord").stdout.strip())
    assert fields["Uid"].split() == [uid] * 4
    assert int(fields["CapEff"], 16) == 0 and int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1" and fields["Seccomp"] == "2"
    assert "ethercord-worker@" in pathlib.Path(f"/proc/{worker}/cgroup").read_text()


def test_worker_carries_on_without_the_daemon(worker):
    """Stopped, restarted, killed: the same process, the same interface."""
    ifindex = link("ec-mine")["ifindex"]
    for deed in (("stop",), ("start",), ("restart",), ("kill", "--signal=KILL")):
        run("systemctl", *deed, UNIT)
        assert worker_pid() == worker and link("ec-mine")["ifindex"] == ifindex, deed
    wait_for(lambda: ctl("list", check=False).returncode == 0, "the daemon is back")
    wait_for(lambda: status("mine")["State"] == "up", "its tunnel is up")
    assert worker_pid() == worker and link("ec-mine")["ifindex"] == ifindex


def test_worker_killed(worker):
    ifindex = link("ec-mine")["ifindex"]
    run("kill", "-KILL", str(worker))
    wait_for(lambda: worker_pid() not in (None, worker), "systemd started another one")
    wait_for(lambda: status("mine")["State"] == "up", "the tunnel is up")
    assert link("ec-mine")["ifindex"] == ifindex
    ctl("down", "mine")
    wait_for(lambda: worker_pid() is None, "it ends with its tunnel")
    assert link("ec-mine") is None


CORD = (f"{ROOT}/tunnel/cord", "Tunnel")
CALLS = {
    "AddTunnel": ("manage", ROOT, "Manager", "{'name': <'x'>, 'remote': <['10.9.0.1']>}", ""),
    "GetTunnel": ("diagnose", ROOT, "Manager", "cord"),
    "Diagnose": ("diagnose", ROOT, "Manager", "10.9.0.1", "@a{sv} {}"),
    "RemoveTunnels": ("manage", ROOT, "Manager", "['cord']"),
    "Reload": ("manage", ROOT, "Manager"),
    "Activate": ("activate", *CORD),
    "Deactivate": ("activate", *CORD),
    "Update": ("manage", *CORD, "{'ttl': <uint32 3>}"),
    "Remove": ("manage", *CORD),
    "SetKey": ("manage", *CORD, "A" * 43 + "="),
}


@pytest.mark.parametrize("method", CALLS)
def test_nobody_is_denied(tunnel, method):
    """By polkit's own verdict: that polkit does not answer at all would look the same."""
    action, path, interface, *arguments = CALLS[method]
    before = link("ec-cord")
    error, message = as_nobody(path, interface, method, *arguments)
    assert error == NOT_AUTHORIZED
    assert message.startswith(f"polkit does not allow org.ethercord1.{action}"), message
    assert link("ec-cord") == before


def test_a_rule_allows_one_action(tunnel):
    """The administrator's rule opens one action to one user, and no other."""
    rule = pathlib.Path("/etc/polkit-1/rules.d/10-ethercord.rules")
    rule.write_text("""polkit.addRule(function(action, subject) {
    if (action.id == "org.ethercord1.activate" && subject.user == "nobody")
        return polkit.Result.YES; });""")
    try:
        wait_for(lambda: as_nobody(*CORD, "Deactivate")[0] is None, "polkit has read its rule", 20)
        assert link("ec-cord") is None
        assert as_nobody(*CORD, "Remove")[0] == NOT_AUTHORIZED
        assert as_nobody(*CORD, "Activate")[0] is None
        assert link("ec-cord")
    finally:
        rule.unlink()
    wait_for(lambda: as_nobody(*CORD, "Deactivate")[0] == NOT_AUTHORIZED, "polkit has forgotten it")


def test_encapsulations_of_this_kernel():
    """In the sandbox, as the daemon's own user."""
    ctl("list")
    usable = json.loads(run("busctl", "--json=short", "get-property", NAME, ROOT,
                            "org.ethercord1.Manager", "Encapsulations").stdout)["data"]
    kernel = {f"{e}/kernel" for e in ("gretap", "gretap-fou", "vxlan", "gre", "ipip")}
    assert set(usable) == kernel | {f"{e}/user" for e in ("gretap-fou", "vxlan", "raw-udp",
                                                          "tun-udp")}


def test_gretap(tunnel):
    made = link("ec-cord")
    assert made["linkinfo"]["info_kind"] == "gretap" and "UP" in made["flags"]
    data = made["linkinfo"]["info_data"]
    assert (data["remote"], data["local"]) == ("10.9.0.1", "10.9.0.2")
    assert made["ifalias"] == "ethercord:cord"


def test_gretap_fou():
    """The FOU port is opened by the daemon's own user, and closed with the tunnel."""
    ctl("add", "foo", "control=static", "underlay=any", "remote=10.9.0.1",
        "encapsulation=gretap-fou", "--up")
    assert link("ec-foo")["linkinfo"]["info_kind"] == "gretap"
    assert "port 65201" in run("ip", "fou", "show").stdout
    ctl("remove", "foo")
    assert "port 65201" not in run("ip", "fou", "show").stdout


@pytest.mark.parametrize("signal", [None, "KILL"])
def test_restart_adopts(tunnel, signal):
    before, pid = link("ec-cord"), show("MainPID")
    if signal:
        run("systemctl", "kill", "--kill-whom=main", f"--signal={signal}", UNIT)
    else:
        run("systemctl", "restart", UNIT)
    wait_for(lambda: show("MainPID") not in ("0", pid) and show("ActiveState") == "active",
             "a new daemon")
    assert status("cord")["State"] == "up"
    assert link("ec-cord") == before, "the very same interface, ifindex and all"


def test_stop_leaves_tunnels(tunnel):
    before = link("ec-cord")
    run("systemctl", "stop", UNIT)
    assert link("ec-cord") == before
    assert status("cord")["State"] == "up"


def test_persist_and_key():
    """Files are written by the daemon's own user; the key can be read by nobody else."""
    file = pathlib.Path("/etc/ethercord/tunnels.d/kept.conf")
    ctl("add", "kept", "control=static", "underlay=any", "remote=10.9.0.1", "id=9", "--save")
    run("sh", "-c", "ethercordctl genkey | ethercordctl setkey kept")
    assert "remote=10.9.0.1" in file.read_text() and file.owner() == "ethercord"
    key = pathlib.Path("/var/lib/ethercord/keys/kept")
    assert key.stat().st_mode & 0o777 == 0o600 and key.owner() == "ethercord"
    run("systemctl", "restart", UNIT)
    assert status("kept")["Persistent"] is True
    assert key.read_text().strip() not in ctl("status", "kept").stdout + journal()
    ctl("remove", "kept")
    assert not file.exists() and not key.exists()


def test_bridge_in_the_sandbox():
    run("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
    ctl("add", "joined", "mode=join-networks", "control=static", "underlay=any", "id=11",
        "remote=10.9.0.1", "bridge=ecbr0", "bridge-create=yes", "attach=lan0", "--up")
    assert link("ecbr0")["linkinfo"]["info_kind"] == "bridge"
    assert link("lan0")["master"] == "ecbr0" and link("ec-joined")["master"] == "ecbr0"
    ctl("remove", "joined")
    assert link("ecbr0") is None and "master" not in link("lan0")
    run("ip", "link", "del", "lan0")


@pytest.fixture
def wireguard():
    """A VPN that leads to 10.7.0.2; nobody answers there."""
    run("ip", "link", "add", "wg0", "type", "wireguard")
    run("sh", "-c", "wg genkey | wg set wg0 private-key /dev/stdin")
    peer = run("sh", "-c", "wg genkey | wg pubkey").stdout.strip()
    run("wg", "set", "wg0", "peer", peer, "endpoint", "10.9.0.77:51820", "allowed-ips",
        "10.7.0.2/32")
    run("ip", "address", "add", "10.7.0.1/24", "dev", "wg0")
    run("ip", "link", "set", "wg0", "up")
    yield "wg0"
    run("ip", "link", "del", "wg0", check=False)


def fences():
    """What the guard has in the kernel."""
    return [run("nft", "list", "table", "inet", "ethercord", check=False).stdout,
            run("ip", "rule").stdout, run("ip", "route", "show", "table", "60260",
                                          check=False).stdout]


def test_guard_in_the_sandbox(wireguard):
    """All of the guard can be done by the daemon's own user, and outlives it."""
    ctl("add", "safe", "control=static", "remote=10.7.0.2", "id=21", "encapsulation=gretap", "--up")
    got = status("safe")
    assert (got["State"], got["Protected"]) == ("up", True)
    assert got["ProtectedBy"] == ["nftables", "route"]
    nft, rules, routes = fences()
    assert '10.7.0.2 . gre . "wg0"' in nft and "ipproto gre lookup 60260" in rules
    assert "10.7.0.2 dev wg0" in routes and "unreachable 10.7.0.2" in routes
    run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", UNIT)
    run("ip", "link", "set", "wg0", "down")
    assert '10.7.0.2 . gre . "wg0"' in fences()[0] and "unreachable 10.7.0.2" in fences()[2]
    wait_for(lambda: (s := status("safe"))["State"] == "waiting" and "WireGuard on wg0 is down" in
             s["StateReason"][1], "the next daemon sees it")
    assert status("safe")["Protected"]
    run("nft", "flush", "ruleset")
    wait_for(lambda: '10.7.0.2 . gre . "wg0"' in fences()[0], "what was flushed is back", 10)
    run("ip", "link", "set", "wg0", "up")
    wait_for(lambda: status("safe")["State"] == "up", "it is up again")
    ctl("remove", "safe")
    nft, rules, routes = fences()
    assert "10.7.0.2 . gre" not in nft and "10.7.0.2" not in routes and "60260" not in rules
    wait_for(lambda: "10.7.0.2" not in fences()[0], "what fenced errors is gone, too", 20)


def test_openvpn_is_recognised_in_the_sandbox(tmp_path):
    """Without the right to look into its process."""
    run("modprobe", "tun")
    key = tmp_path / "key"
    run("openvpn", "--genkey", "secret", key)
    vpn = subprocess.Popen(["openvpn", "--dev", "tun5", "--ifconfig", "10.8.0.1", "10.8.0.2",
                            "--secret", key, "--cipher", "AES-256-CBC", "--remote", "10.9.0.99"],
                           stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: link("tun5") and "UP" in link("tun5")["flags"], "OpenVPN's interface")
        ctl("add", "over", "control=static", "underlay=openvpn", "remote=10.8.0.2", "id=22",
            "encapsulation=gretap", "--up")
        got = status("over")
        assert (got["State"], got["Protected"], got["Mtu"]) == ("up", True, 1448 - 42)
    finally:
        vpn.terminate()
        vpn.wait()
    wait_for(lambda: (s := status("over"))["State"] == "waiting" and "OpenVPN on tun5 is down" in
             s["StateReason"][1], "OpenVPN is missed")
    ctl("remove", "over")


def test_leaves_when_idle():
    """With neither a tunnel nor a call it ends by itself, and the next call starts it."""
    conf = pathlib.Path("/etc/ethercord/ethercord.conf")
    conf.write_text("[daemon]\nidle-timeout=5\n")
    run("systemctl", "restart", UNIT)
    wait_for(lambda: show("ActiveState") == "inactive", "the daemon left")
    assert show("Result") == "success"
    ctl("list")
    assert show("ActiveState") == "active"
    conf.unlink()
