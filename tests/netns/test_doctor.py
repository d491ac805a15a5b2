# SPDX-License-Identifier: GPL-2.0-or-later
"""ethercordctl doctor over a real VPN, and what status and underlays say of it."""

import base64
import json
import signal
import socket
import struct

import pytest

import ethercord
from ethercord import FAR, run, wait_until
from vpn import OpenVpn, Topology

TITLE = "OpenVPN on tun9"


def doctor(daemon, *words, check=None):
    """Findings by code; those of the last subject win."""
    done = daemon.ctl("doctor", "--json=short", *words, check=check)
    return {f["code"]: f for f in json.loads(done.stdout)}


def text(daemon, *words, check=None, **more):
    """The text in one line, without the breaks that make it fit."""
    return " ".join(daemon.ctl(*words, check=check, **more).stdout.split())


def vxlan_packet(source, target, vni):
    """A whole IPv4 packet; the kernel fills in the length and the sum."""
    payload = struct.pack("!II", 0x08000000, vni << 8) + bytes(60)
    udp = struct.pack("!HHHH", 40000, 4789, 8 + len(payload), 0)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp + payload), 1, 0, 64,
                     socket.IPPROTO_UDP, 0, socket.inet_aton(source), socket.inet_aton(target))
    return ip + udp + payload


def send_outside(namespace, source, target, vni=1, count=3):
    """Past the VPN, as a mistaken route would have it; a raw socket knows no port, so that only
    nftables sees what it is."""
    with namespace.entered():
        s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"net0")
    for _ in range(count):
        try:
            s.sendto(vxlan_packet(source, target, vni), (target, 0))
        except PermissionError:
            pass  # so a drop on the way out shows
    s.close()


@pytest.fixture
def office(lab):
    topology = Topology(lab)
    vpn = OpenVpn(topology).up().wait_up()
    daemon = lab.daemon(topology.near)
    daemon.bus.client.add("t1", remote=vpn.far, id=1, underlay="vpn")
    daemon.bus.client.wait_state("t1", "up")
    return topology, vpn, daemon


def test_all_is_well(office):
    topology, vpn, daemon = office
    out = text(daemon, "doctor", "t1", check=0)
    for words in (f"VPN: {TITLE} is up", "tunnel t1 is up", f"protected by {TITLE}",
                  f"nftables and route hold the fence around {TITLE}", "vxlan 1398",
                  f"from {vpn.near} of 1448 bytes", "had to stop nothing"):
        assert words in out, f"{words} is not in\n{out}"
    assert "\x1b" not in out
    found = doctor(daemon, "t1", check=0)
    assert found["fence"]["tunnel"] == "t1" and "tunnel" not in found["vpn"]
    assert {f["severity"] for f in found.values()} <= {"ok", "info"}
    everything = text(daemon, "doctor", check=0)
    assert "this machine:" in everything and "tunnel t1:" in everything


def test_an_address_before_there_is_a_tunnel(office):
    topology, vpn, daemon = office
    daemon.bus.client.on("t1", "Remove")
    found = doctor(daemon, vpn.far, check=0)
    assert TITLE in found["protected"]["text"] and "tun9" in found["route"]["text"]
    assert found["protected"]["remote"] == vpn.far
    found = doctor(daemon, "10.9.2.2", check=1)
    assert "net0" in found["no-path"]["text"] and found["no-path"]["severity"] == "error"


def test_the_vpn_is_gone(office):
    topology, vpn, daemon = office
    vpn.end("near", signal.SIGKILL)
    daemon.bus.client.wait_state("t1", "waiting")
    found = doctor(daemon, "t1", check=1)
    assert TITLE in found["state"]["text"] and found["state"]["severity"] == "warning"
    assert TITLE in found["no-path"]["text"] and "up" in found["no-path"]["remedy"]
    assert found["fence"]["severity"] == "ok", "it outlives the VPN"
    out = text(daemon, "status", "t1", check=0)
    assert f"underlay: {TITLE}" in out
    assert f"protected by nftables and route (nothing leaves while {TITLE} is down)" in out


def test_what_the_guard_stopped(office):
    topology, vpn, daemon = office
    send_outside(topology.near, vpn.near, vpn.far)
    found = wait_until(lambda: (lambda f: f if "stopped-out" in f else None)(doctor(daemon, "t1")),
                       "what left by hand is counted")
    assert "stopped 3 packets" in found["stopped-out"]["text"]
    assert found["stopped-out"]["severity"] == "warning"
    assert f"ip route get {vpn.far}" in found["stopped-out"]["remedy"]
    send_outside(topology.far, vpn.far, vpn.near)
    wait_until(lambda: "stopped-in" in doctor(daemon, "t1"), "what came in clear is counted")
    daemon.ctl("doctor", "t1", check=0)


# A kernel without nftables.
SHIM = """#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/socket.h>
int socket(int domain, int type, int protocol)
{
	if (domain == AF_NETLINK && protocol == 12) {
		errno = EPROTONOSUPPORT;
		return -1;
	}
	return ((int (*)(int, int, int))dlsym(RTLD_NEXT, "socket"))(domain, type, protocol);
}
"""


def test_one_layer(lab):
    shim = lab.directory / "shim.so"
    run("gcc", "-shared", "-fPIC", "-x", "c", "-o", shim, "-", "-ldl", input=SHIM)
    topology = Topology(lab)
    vpn = OpenVpn(topology).up().wait_up()
    daemon = lab.daemon(topology.near, environment={"LD_PRELOAD": str(shim)})
    found = doctor(daemon, check=1)
    assert found["nftables"]["severity"] == "error" and "not supported" in found["nftables"]["text"]
    daemon.bus.client.add("t1", remote=vpn.far, id=1, underlay="vpn")
    daemon.bus.client.wait_state("t1", "up")
    found = doctor(daemon, "t1", check=1)
    assert found["nftables"]["severity"] == "error"
    assert found["fence-one-layer"]["severity"] == "warning"
    said = found["fence-one-layer"]["text"]
    assert f"only route holds the fence around {TITLE}, nftables does not: " in said
    assert "not supported" in said and "fence" not in found
    assert "protection: protected by route " in text(daemon, "status", "t1")


def test_not_protected(office):
    topology, vpn, daemon = office
    daemon.bus.client.update("t1", underlay="any")
    found = doctor(daemon, "t1", check=0)
    assert "fence" not in found and found["not-protected"]["severity"] == "warning"
    assert "not protected: frames can leave" in text(daemon, "status", "t1")


def test_underlays_and_status_name_it(office):
    topology, vpn, daemon = office
    wide = {"COLUMNS": "200"}
    lines = daemon.ctl("underlays", check=0, env=wide).stdout.splitlines()
    assert lines[0].split()[-1] == "TITLE" and lines[1].endswith(TITLE)
    [listed] = json.loads(daemon.ctl("underlays", "--json=short", check=0).stdout)
    assert listed["Details"]["title"] == TITLE
    assert f"underlays: {TITLE}: up, protected" in text(daemon, "status", check=0)
    out = text(daemon, "status", "t1", check=0)
    assert f"underlay: {TITLE} protection: protected by nftables and route " in out
    daemon.bus.client.add("t2", remote="10.9.2.2", id=2, underlay="device:net0")
    out = text(daemon, "status", "t2", check=0)
    assert "not protected: confined to net0, which is no VPN" in out
    one = json.loads(daemon.ctl("status", "t2", "--json", check=0).stdout)
    assert one["Protected"] is False and one["ProtectedBy"] == ["nftables", "route"]


def test_report(office):
    topology, vpn, daemon = office
    key = base64.b64encode(b"k" * 32).decode()
    daemon.ctl("setkey", "t1", input=key + "\n", check=0)
    daemon.bus.client.add("t2", flags="", remote=["198.51.100.7", "2001:db8::7"], id=2, key=key)
    kernel = run("uname", "-r").stdout.strip()
    out = daemon.ctl("doctor", "--report", check=0).stdout
    for words in ("ethercordctl", "ethercordd", kernel, "nft", "encapsulations:", "tunnel t1:",
                  "underlay tun9:", TITLE, vpn.far, "protected by", '"underlay":"vpn"'):
        assert words in out, f"{words} is not in\n{out}"
    assert "(public address)" in out
    whole = out + daemon.ctl("doctor", "--report", "--json=pretty").stdout
    for secret in (key, key[:12], "198.51.100.7", "2001:db8::7"):
        assert secret not in whole
    report = json.loads(daemon.ctl("doctor", "t1", "--report", "--json=short").stdout)
    assert {"Client", "Kernel", "Nftables", "Manager", "Underlays", "Tunnels", "Listeners",
            "Findings"} == set(report)


def test_lines_fit(sites):
    sites.client.add("w", remote="a-host-whose-name-is-rather-long-indeed.example.invalid", id=2)
    for locale in ("C.UTF-8", "C"):
        for words in ([], ["w"], [FAR]):
            out = sites.daemon.ctl("doctor", *words, check=1, env={"LC_ALL": locale}).stdout
            assert max(map(len, out.splitlines())) <= 80, out
        if locale == "C":
            assert out.isascii()


def test_exit_codes(sites):
    for words, code in ((["doctor", "nobody"], 10), (["doctor", "a", "b"], 2),
                        (["doctor", "--report=x"], 2), (["list", "--report"], 2),
                        (["doctor", "far.example"], 1)):
        sites.daemon.ctl(*words, check=code)
    assert "warning" in sites.daemon.ctl("doctor", check=0).stdout, "a warning is no error"
    sites.daemon.stop()
    for words in (["doctor"], ["doctor", "t1"], ["doctor", "--report"]):
        done = sites.daemon.ctl(*words, check=8)
        assert len(done.stderr.splitlines()) == 1 and not done.stdout
    sites.daemon.start()
    sites.client.close()
    sites.bus.client = ethercord.Client(sites.bus.address)
