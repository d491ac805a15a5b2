# SPDX-License-Identifier: GPL-2.0-or-later
"""ethercordctl and tunnels of the user data plane: what status counts and names, what can be
exported to whom, what completion knows."""

import json
import re
import socket

import pytest

from ethercord import FAR, NEAR, ROOT, ping, wait_until

USER = ["control=static", "underlay=any", "data-plane=user"]


def ctl(sites, *words, **more):
    return sites.daemon.ctl(*words, **more)


@pytest.fixture
def pair(sites):
    """raw-udp between two daemons."""
    sites.other = sites.lab.daemon(sites.far, "far")
    settings = {"encapsulation": "raw-udp", "data_plane": "user"}
    sites.other.bus.client.add("t1", remote=NEAR, address="192.168.9.2/24", **settings)
    sites.client.add("t1", remote=FAR, address="192.168.9.1/24", **settings)
    return sites


def fields(sites, name="t1"):
    """What status prints, by label; a line without one belongs to the one before."""
    found, label = {}, None
    for line in ctl(sites, "status", name, check=0).stdout.splitlines():
        label = line[:16].strip().rstrip(":") or label
        found.setdefault(label, []).append(line[16:].strip())
    return found


def test_status(pair):
    assert ping(pair.near, "192.168.9.2", 5)
    got = fields(pair)
    assert got["encapsulation"] == ["raw-udp, data plane user"]
    assert got["dropped"] == ["none"]
    for label in ("received", "sent"):
        packets = re.fullmatch(r"(\d+) packets, [\d,.]+.(?:bytes|kB)", got[label][0])
        assert packets and int(packets.group(1)) >= 5, got
    assert re.fullmatch(r"\d+ received in \d+ calls, \d+ sent in \d+ calls", got["datagrams"][0])
    assert re.fullmatch(r"\d+ reads, \d+ writes", got["device"][0])
    assert "checksums" in got["offloads"][0] and "UDP GRO outside" in got["offloads"][0]
    # What did not happen takes no line, and nothing is shown twice or by its raw name.
    assert not {"pieces", "too big", "super-frames", "device-reads", "too-big-answers",
                "rx-calls"} & set(got)
    assert len(got["offloads"]) == 1 and len(got["datagrams"]) == 1


def test_status_of_the_kernels_has_none_of_it(sites):
    sites.tunnel()
    got = fields(sites)
    assert got["encapsulation"] == ["vxlan, data plane kernel"]
    assert not {"datagrams", "dropped", "offloads", "device"} & set(got)
    assert got["received"][0].endswith(" dropped")


def test_status_tells_what_was_dropped(sites):
    """Each cause that there was, on a line of its own."""
    sites.client.add("t1", remote=FAR, encapsulation="vxlan", data_plane="user", id=7)
    other_id = bytes([8, 0, 0, 0, 0, 0, 8, 0]) + bytes(60)
    with sites.far.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind((FAR, 4789))
        for data in (other_id, other_id, other_id, b"short"):
            peer.sendto(data, (NEAR, 4789))
    wait_until(lambda: sum(v for k, v in sites.client.get("t1")["Statistics"].items()
                           if k.startswith("rx-dropped-")) == 4, "they are counted")
    got = fields(sites)
    assert {"3 received, with another id", "1 received, not of this encapsulation"} <= \
        set(got["dropped"]), got
    assert "none" not in got["dropped"]
    assert not [line for line in got["dropped"] if line.startswith("0 ")]


def test_json_has_the_counters(pair):
    wait_until(lambda: pair.client.get("t1")["Statistics"]["offloads"], "the worker runs")
    got = json.loads(ctl(pair, "status", "t1", "--json", check=0).stdout)
    assert got["DataPlane"] == "user"
    assert {"rx-datagrams", "tx-split", "rx-dropped-stranger", "offloads", "rtt-us"} <= \
        set(got["Statistics"])
    assert got["Statistics"]["offloads"] & 1
    planes = json.loads(ctl(pair, "status", "--json", check=0).stdout)["Manager"]["Encapsulations"]
    assert {"raw-udp/user", "tun-udp/user", "vxlan/user", "gretap-fou/user"} <= set(planes)
    overview = ctl(pair, "status", check=0).stdout
    assert "raw-udp/user" in overview and "vxlan/kernel" in overview


@pytest.mark.parametrize("encapsulation, program", [("raw-udp", "tap2tap"), ("tun-udp", "ttun")])
@pytest.mark.parametrize("peer", [[], ["--peer"]], ids=["here", "peer"])
@pytest.mark.parametrize("program_of", ["ip", "nmcli", "networkd"])
def test_export_of_what_no_link_does(sites, encapsulation, program, peer, program_of):
    sites.client.add("t1", "", remote=FAR, local=NEAR, data_plane="user",
                     encapsulation=encapsulation)
    done = ctl(sites, "export", "t1", "--as", program_of, *peer, check=1)
    assert not done.stdout
    for word in (encapsulation, "no link of the kernel's", f"--as={program_of}", "--as=keyfile",
                 program):
        assert word in done.stderr, done.stderr
    assert ("--peer" in done.stderr) == bool(peer)


def test_export_of_pieces(sites):
    """The kernel does not put frames together."""
    sites.client.add("t1", remote=FAR, data_plane="user", encapsulation="vxlan", id=7, split="yes")
    done = ctl(sites, "export", "t1", "--as", "ip", "--peer", check=1)
    assert "split=yes" in done.stderr and not done.stdout
    out = ctl(sites, "export", "t1", "--as", "keyfile", "--peer", check=0).stdout
    assert "split=yes\n" in out and "data-plane=user\n" in out
    sites.client.update("t1", split="no")
    assert "type vxlan" in ctl(sites, "export", "t1", "--as", "ip", "--peer", check=0).stdout


@pytest.mark.parametrize("encapsulation, port", [("raw-udp", 1234), ("tun-udp", 8000)])
def test_export_as_keyfile(lab, sites, encapsulation, port):
    """The far end as it is printed: it works."""
    sites.client.add("t1", remote=FAR, data_plane="user", encapsulation=encapsulation,
                     data_port=20000, address="192.168.9.1/24")
    out = ctl(sites, "export", "t1", "--as", "keyfile", "--peer", check=0).stdout
    for line in (f"encapsulation={encapsulation}", f"data-port={port}", "remote-data-port=20000",
                 f"remote={NEAR}", f"local={FAR}", "control=static"):
        assert f"{line}\n" in out, out
    assert "id=" not in out.replace("identity=", "")
    other = lab.daemon(sites.far, "far-daemon", start=False)
    other.keyfile("t1", out)
    other.start()
    other.bus.client.wait_state("t1", "up")
    sites.far.ip("addr", "add", "192.168.9.2/24", "dev", "ec-t1")
    assert ping(sites.near, "192.168.9.2", 3)


def test_export_to_a_kernel(sites):
    """A worker's VXLAN: the far end's link is the kernel's."""
    sites.client.add("t1", remote=FAR, data_plane="user", encapsulation="vxlan", id=7,
                     address="192.168.9.1/24")
    out = ctl(sites, "export", "t1", "--as", "ip", "--peer", check=0).stdout
    sites.far.exec("sh", "-e", "-c", out)
    [name] = [n for n, l in sites.far.links().items()
              if l.get("linkinfo", {}).get("info_kind") == "vxlan"]
    sites.far.ip("addr", "add", "192.168.9.2/24", "dev", name)
    assert ping(sites.near, "192.168.9.2", 3)


def test_what_the_readme_says(sites):
    """Its commands for peers of others make what they say."""
    lines = re.findall(r"^ethercordctl (add lab .*)$", (ROOT / "README.md").read_text(),
                       re.MULTILINE)
    made = []
    for line in lines:
        words = [w for w in line.replace("device:wg0", "device:wire")
                 .replace("10.8.0.2", FAR).split()
                 if w not in ("--save", "--up")]
        ctl(sites, *words, *([] if "underlay=" in line else ["underlay=any"]), check=0)
        ctl(sites, "up", "lab", check=0)
        made.append(sites.client.get("lab")["Encapsulation"])
        assert sites.client.get("lab")["DataPlane"] == "user"
        ctl(sites, "remove", "lab", check=0)
    assert sorted(made) == ["raw-udp", "raw-udp", "raw-udp", "tun-udp"]


def test_roam_waits(sites):
    """Who waits says what for, and that nobody is asked who he is."""
    done = ctl(sites, "add", "t1", *USER, "encapsulation=raw-udp", check=2)
    assert "roam=yes" in done.stderr
    ctl(sites, "add", "t1", *USER, "encapsulation=raw-udp", "roam=yes", "--up", check=0)
    got = fields(sites)
    assert got["path"][0].endswith("(unknown)")
    assert "nobody asks who it is" in got["reason"][0]
    done = ctl(sites, "export", "t1", "--as", "keyfile", "--peer", check=1)
    assert "is not known yet" in done.stderr


def words(sites, *what):
    return set(ctl(sites, "complete", *what, check=0).stdout.split())


def test_completion(sites):
    assert {"split", "roam", "data-plane"} <= words(sites, "keys", "tunnel")
    assert "split" in words(sites, "keys", "listener")
    assert not {"roam"} & words(sites, "keys", "listener")
    assert not {"split", "roam", "data-plane"} & words(sites, "keys", "peer")
    assert words(sites, "values", "split") == {"auto", "yes", "no"}
    assert words(sites, "values", "roam") == {"yes", "no"}
    assert words(sites, "values", "data-plane") == {"auto", "kernel", "user"}
    assert {"raw-udp", "tun-udp"} <= words(sites, "values", "encapsulation")
    told = ctl(sites, "--settings", check=0).stdout
    assert "split\n" in told and "roam\n" in told and "1234 for raw-udp" in told
