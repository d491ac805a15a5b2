# SPDX-License-Identifier: GPL-2.0-or-later
"""Files: what is read, what is written, what is kept secret, what outlives a power cut."""

import base64
import re
import signal
import stat
import subprocess

import dbus
import pytest

import ethercord
from ethercord import FAR, MANAGER, PATH, TUNNEL, refused, tunnel_path, wait_until

KEY = base64.b64encode(bytes(range(100, 132))).decode()
OTHER_KEY = base64.b64encode(bytes(range(50, 82))).decode()

# name: content, line, words of the sentence
BROKEN = {
    "b-unknown": ("[tunnel]\n# a comment\nremotes=10.77.0.2\n", 3, ["remotes"]),
    "c-type": ("[tunnel]\nremote=10.77.0.2\n\nid=seven\n", 4, ["id", "'seven'", "0 to"]),
    "d-range": ("[tunnel]\nremote=10.77.0.2\nttl=256\n", 3, ["ttl", "1 to 255"]),
    "e-word": ("[tunnel]\nmode=bridge\n", 2, ["mode", "point-to-point, join-remote"]),
    "f-ifname": ("[tunnel]\nremote=10.77.0.2\ninterface=" + "x" * 16 + "\n", 3,
                 ["interface", "15"]),
    "g-path": ("[tunnel]\nremote=10.77.0.2\nbridge=../x\n", 3, ["bridge"]),
    "h-line": ("[tunnel]\nremote=10.77.0.2\nwhat is this\n", 3, []),
    "i-name": ("[tunnel]\nname=other\nremote=10.77.0.2\n", 2, ["name", "i-name"]),
    "j-group": ("[tunnels]\nremote=10.77.0.2\n", None, ["[tunnel]"]),
    "k-empty": ("", None, ["[tunnel]"]),
    "l-missing": ("[tunnel]\nid=5\n", None, ["remote"]),
    "m-bool": ("[tunnel]\nremote=10.77.0.2\nautostart=maybe\n", 3, ["autostart"]),
    "n-control": ("[tunnel]\nremote=10.77.0.2\ninterface=a\\tb\n", 3, ["interface"]),
}


def begin(lab, **more):
    sites = ethercord.Sites(lab, start=False, **more)
    sites.daemon.keyfile("a-good", remote=FAR, id=11)
    sites.daemon.keyfile("z-good", remote=FAR, id=12)
    return sites


def lines_about(daemon, name):
    return [line for line in daemon.text().splitlines() if f"/{name}.conf" in line]


@pytest.mark.parametrize("name", BROKEN)
def test_broken_file_among_good_ones(lab, name):
    sites = begin(lab)
    text, line, words = BROKEN[name]
    path = sites.daemon.keyfile(name, text)
    sites.daemon.start()
    assert sites.client.tunnels() == ["a-good", "z-good"]
    assert [sites.client.state(n) for n in ("a-good", "z-good")] == ["up", "up"]
    told = lines_about(sites.daemon, name)
    assert len(told) == 1, sites.daemon.text()
    assert (f"{path}:{line}: " if line else f"{path}: ") in told[0], told[0]
    for word in words:
        assert word in told[0], told[0]
    assert path.read_text() == text, "the file is as its writer left it"
    with refused("InvalidSetting", f"{path}"):
        sites.client.call(PATH, MANAGER, "Reload")


def test_invalid_utf8_and_null_bytes(lab):
    sites = begin(lab)
    (sites.daemon.tunnels / "bytes.conf").write_bytes(b"[tunnel]\nremote=\xff\xfe\n")
    (sites.daemon.tunnels / "null.conf").write_bytes(b"[tunnel]\nremote=10.0.0.1\x00\n")
    (sites.daemon.tunnels / "big.conf").write_bytes(b"#" * 300000)
    (sites.daemon.tunnels / "dir.conf").mkdir()
    (sites.daemon.tunnels / "-bad.conf").write_text("[tunnel]\nremote=10.77.0.9\n")
    (sites.daemon.tunnels / "README").write_text("not a keyfile\n")
    (sites.daemon.tunnels / ".hidden.conf").write_text("not a keyfile\n")
    sites.daemon.start()
    assert sites.client.tunnels() == ["a-good", "z-good"]
    for name in ("bytes", "null", "big", "dir", "-bad"):
        assert len(lines_about(sites.daemon, name)) == 1, name
    assert not lines_about(sites.daemon, ".hidden")


def test_reload(lab):
    sites = begin(lab)
    daemon, client = sites.daemon, sites.client
    daemon.start()
    ethercord.far_vxlan(sites.far, "far-a", 11, mtu=1450)
    flow = lab.flow(sites.near, "ec-a-good", sites.far, "far-a").start()
    index = sites.near.ifindex("ec-a-good")
    # A broken change of a running tunnel changes nothing; the others are read.
    path = daemon.keyfile("a-good", remote=FAR, id=11, ttl=0)
    daemon.keyfile("new", remote=FAR, id=13)
    daemon.keyfile("z-good", remote=FAR, id=12, mtu=1300)
    with refused("InvalidSetting", f"{path}:", "ttl"):
        client.call(PATH, MANAGER, "Reload")
    assert client.state("new") == "up"
    assert sites.near.link("ec-z-good")["mtu"] == 1300
    assert sites.near.ifindex("ec-a-good") == index
    # By signal, too; a file that is gone takes its tunnel along.
    (daemon.tunnels / "new.conf").unlink()
    daemon.keyfile("a-good", remote=FAR, id=11)
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: client.tunnels() == ["a-good", "z-good"], "the file's tunnel is gone")
    wait_until(lambda: sites.near.link("ec-new") is None, "its interface is gone")
    assert flow.stop(100) == []


def test_first_directory_wins(lab):
    sites = begin(lab)
    runtime = sites.daemon.runtime / "tunnels.d"
    runtime.mkdir(parents=True)
    (runtime / "a-good.conf").write_text("[tunnel]\nremote=10.77.0.9\n")
    (runtime / "r.conf").write_text(f"[tunnel]\ncontrol=static\nunderlay=any\nremote={FAR}\n"
                                    "encapsulation=vxlan\nid=9\n")
    sites.daemon.start()
    assert sites.client.tunnels() == ["a-good", "r", "z-good"]
    assert sites.client.get("a-good")["Remote"] == FAR
    assert sites.client.get("a-good")["Persistent"] and not sites.client.get("r")["Persistent"]


def test_autostart(lab):
    sites = begin(lab)
    sites.daemon.keyfile("off", remote=FAR, id=14, autostart="no")
    sites.daemon.start()
    assert sites.client.state("off") == "down" and not sites.near.link("ec-off")
    sites.client.on("off", "Activate")
    assert sites.client.state("off") == "up"


def test_persist_writes_a_file(sites):
    sites.client.add("t1", flags="persist activate", remote=[FAR, "peer.example"], id=3,
                     address=["192.0.2.1/24"])
    file = sites.daemon.tunnels / "t1.conf"
    assert sorted(file.read_text().split()) == sorted(
        ["[tunnel]", f"remote={FAR},peer.example", "control=static", "underlay=any",
         "encapsulation=vxlan", "id=3", "address=192.0.2.1/24"])
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert sites.client.get("t1")["Persistent"] is True
    assert [p.name for p in sites.daemon.tunnels.iterdir()] == ["t1.conf"], "nothing left over"
    before = sites.client.wait_state("t1", "up")
    del before["Statistics"], before["SinceUsec"]
    sites.daemon.restart()
    after = sites.client.wait_state("t1", "up")
    assert {k: after[k] for k in before} == before
    sites.client.on("t1", "Remove")
    assert not file.exists()


def test_without_persist_it_is_gone_after_a_boot(sites):
    sites.client.add("t1", remote=FAR, id=3)
    assert not list(sites.daemon.tunnels.iterdir())
    assert (sites.daemon.runtime / "tunnels.d/t1.conf").exists()
    assert sites.client.get("t1")["Persistent"] is False
    sites.client.on("t1", "Remove")
    assert not (sites.daemon.runtime / "tunnels.d/t1.conf").exists()


def test_comments_are_kept(lab):
    sites = begin(lab)
    path = sites.daemon.keyfile("mine", f"""# The office, as agreed with Ada.
[tunnel]
control=static
underlay=any
encapsulation=vxlan

# her end
remote={FAR}
id=15
# small, because of the satellite
mtu=1300
""")
    sites.daemon.start()
    before = path.read_text()
    sites.client.update("mine", ttl=5)
    text = path.read_text()
    for line in before.splitlines():
        assert line in text.splitlines(), f"'{line}' is gone from:\n{text}"
    assert "ttl=5" in text.splitlines()
    sites.client.update("mine", mtu="")
    text = path.read_text()
    assert "mtu=" not in text and "# her end" in text
    assert sites.near.link("ec-mine")["mtu"] == 1450
    # A refused change is not written.
    with refused("InvalidSetting"):
        sites.client.update("mine", ttl=0)
    assert path.read_text() == text


@pytest.mark.parametrize("step", ["add", "update"])
def test_persist_is_durable(lab, sites, step):
    """fsync of the new file, rename, fsync of the directory, then the answer."""
    if step == "update":
        sites.client.add("t1", flags="persist", remote=FAR, id=3)
    trace = lab.directory / "trace"
    tracer = lab.popen("strace", "-f", "-y", "-o", trace, "-e",
                       "trace=fsync,fdatasync,rename,renameat,renameat2,sendmsg", "-p",
                       sites.daemon.pid, stderr=subprocess.DEVNULL)

    def looks_on():
        """It holds the daemon a moment before it sees what that does."""
        sites.client.call(PATH, "org.freedesktop.DBus.Peer", "Ping")
        return trace.exists() and "sendmsg" in trace.read_text()
    wait_until(looks_on, "strace looks on")
    if step == "add":
        sites.client.add("t1", flags="persist", remote=FAR, id=3)
    else:
        sites.client.update("t1", mtu=1300)
    tracer.send_signal(signal.SIGINT)
    tracer.wait()
    calls = trace.read_text().splitlines()
    directory = re.escape(str(sites.daemon.tunnels))
    patterns = [rf"f(data)?sync\(\d+<{directory}/[^>]+>\) += 0",
                rf'rename.*"{directory}/t1\.conf".* = 0', rf"fsync\(\d+<{directory}>\) += 0"]
    at = [next((i for i, line in enumerate(calls) if re.search(p, line)), None) for p in patterns]
    assert None not in at and at == sorted(at), (at, calls)
    answer = max(i for i, line in enumerate(calls) if "sendmsg" in line)
    assert at[2] < answer


def everything_visible(sites):
    """All that the daemon tells or leaves lying about, but for the key store."""
    parts = [str(sites.client.objects()), sites.daemon.text(),
             sites.daemon.ctl("status", "t1", "--json").stdout,
             sites.daemon.ctl("export", "t1", "--as", "keyfile").stdout]
    for directory in (sites.daemon.config, sites.daemon.runtime):
        parts += [p.read_text() for p in directory.rglob("*") if p.is_file()]
    return "\n".join(parts)


def check_key(sites, key):
    file = sites.daemon.state / "keys/t1"
    assert file.read_text().strip() == key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert key not in everything_visible(sites)
    assert "key" not in sites.client.get("t1")["Settings"]


@pytest.mark.parametrize("flags", ["activate", "activate persist"])
def test_keys_are_kept_to_oneself(lab, sites, flags):
    signals = lab.signals(sites.daemon)
    sites.client.add("t1", flags=flags, remote=FAR, id=3, key=KEY)
    check_key(sites, KEY)
    sites.client.on("t1", "SetKey", "s", OTHER_KEY)
    check_key(sites, OTHER_KEY)
    sites.client.update("t1", key=KEY)
    check_key(sites, KEY)
    sites.daemon.ctl("setkey", "t1", input=OTHER_KEY + "\n", check=0)
    check_key(sites, OTHER_KEY)
    sites.client.update("t1", mtu=1300)
    check_key(sites, OTHER_KEY)
    told = str(signals.take())
    assert "t1" in told and KEY not in told and OTHER_KEY not in told
    sites.daemon.restart()
    check_key(sites, OTHER_KEY)
    sites.client.on("t1", "Remove")
    assert not list((sites.daemon.state / "keys").iterdir())


def test_key_in_a_keyfile(lab):
    sites = begin(lab)
    sites.daemon.keyfile("t1", remote=FAR, id=16, key=KEY).chmod(0o600)
    sites.daemon.start()
    assert (sites.daemon.state / "keys/t1").read_text().strip() == KEY
    assert KEY not in str(sites.client.objects()) and KEY not in sites.daemon.text()


def test_broken_key_in_a_keyfile_is_not_told(lab):
    sites = begin(lab)
    sites.daemon.keyfile("t1", remote=FAR, id=16, key=KEY[:-2])
    sites.daemon.start()
    assert len(lines_about(sites.daemon, "t1")) == 1
    assert KEY[:-2] not in sites.daemon.text()
    assert TUNNEL not in str(sites.client.objects().get(tunnel_path("t1"), ""))


def test_full_disk_changes_nothing(lab):
    """A file that cannot be written: the error says so, tunnel and file stay as they were."""
    sites = ethercord.Sites(lab, start=False)
    small = sites.daemon.config
    ethercord.run("mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=32", "none", small)
    lab.stack.callback(ethercord.run, "umount", "-l", small)
    sites.daemon.tunnels.mkdir()
    sites.daemon.start()
    sites.tunnel("t1", 1, flags="activate persist")
    before = (sites.daemon.tunnels / "t1.conf").read_text()
    flow = sites.flow()
    with open(small / "filler", "wb", buffering=0) as f, pytest.raises(OSError):
        while True:
            f.write(bytes(4096))
    for attempt in (lambda: sites.client.update("t1", mtu=1300),
                    lambda: sites.client.add("t2", flags="persist activate", remote=FAR, id=2)):
        with pytest.raises(ethercord.dbus.DBusException, match="No space left"):
            attempt()
    assert sites.client.tunnels() == ["t1"] and sites.near.link("ec-t2") is None
    assert (sites.daemon.tunnels / "t1.conf").read_text() == before
    assert sites.near.link("ec-t1")["mtu"] == 1450 == sites.client.get("t1")["Mtu"]
    assert "mtu" not in sites.client.get("t1")["Settings"]
    assert flow.stop(50) == []


def test_no_place_to_save(lab):
    """Without tunnels.d, and without the right to make it, only saving fails."""
    sites = ethercord.Sites(lab, start=False)
    sites.daemon.tunnels.rmdir()
    sites.daemon.tunnels.write_text("in the way")
    sites.daemon.start()
    index = sites.near.ifindex(sites.tunnel("t1"))
    with pytest.raises(dbus.DBusException, match="tunnels.d"):
        sites.client.add("t2", "persist", remote=FAR, id=2)
    assert sites.client.tunnels() == ["t1"]
    assert sites.near.ifindex("ec-t1") == index
