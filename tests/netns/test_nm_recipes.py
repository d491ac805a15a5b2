# SPDX-License-Identifier: GPL-2.0-or-later
"""Every line that README and ethercord-networkmanager(7) tell people to type, typed."""

import re

import pytest

import ethercord
from ethercord import bridge, ping, wait_until
from nm import Office
from nmbed import FAR, SERVICE, Bed

SOURCES = {
    "README": ("README.md", r"^## In NetworkManager$", r"^## "),
    "manual": ("nm-plugin/ethercord-networkmanager.7.scd.in", r"^# RECIPES$", r"^# "),
}
THERE = re.compile(r"\s*# the office$")
HOST = "192.168.7.1"


def blocks(source):
    """[[command]] of the fenced blocks."""
    file, begin, end = SOURCES[source]
    text = (ethercord.ROOT / file).read_text()
    text = text[re.search(begin, text, re.MULTILINE).end():]
    text = text[:re.search(end, text, re.MULTILINE).start()]
    result = []
    for block in re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        result.append(re.sub(r"[ \t]*\\{1,2}\n\s*", " ", block).splitlines())
    return result


class World:
    """A laptop with the VPN `Work`, an office with ethercordd and a bridge with DHCP."""

    def __init__(self):
        self.lab = ethercord.Lab()
        try:
            self.make()
        except BaseException:
            self.lab.close()
            raise

    def make(self):
        bed = self.bed = Bed(self.lab)
        office = Office(self.lab, bed.far, FAR)
        file = bed.directory / "etc/system-connections/Work.nmconnection"
        file.touch(0o600)
        file.write_text(office.profile().replace('id=Office "Nord"', "id=Work"))
        bed.ctl("connection", "load", "/etc/NetworkManager/system-connections/Work.nmconnection")
        bridge(bed.far)
        bed.far.ips(f"addr add {HOST}/24 dev br0\naddr add 10.99.0.1/32 dev lo\n")
        bed.dnsmasq("br0", "--dhcp-range=192.168.7.100,192.168.7.150,1h")
        self.office = self.lab.daemon(bed.far, "far")
        wait_until(lambda: bed.far.link("tun0"), "the server is there", 30)
        self.scratch = bed.directory / "scratch"
        self.scratch.mkdir()
        self.path = f"{ethercord.CTL.parent}:{bed.near.environment['PATH']}"

    def type(self, line):
        there = THERE.search(line)
        namespace = self.bed.far if there else self.bed.near
        env = self.office.bus.environment() if there else self.bed.near.environment
        answer = (self.scratch / "anna.key").read_text() if "--ask" in line else None
        # Whoever enters a room is at its root.
        return namespace.exec("bash", "-euo", "pipefail", "-c", f"cd {self.scratch}\n" +
                              THERE.sub("", line), check=False, env=dict(env, PATH=self.path),
                              input=answer)

    def begin(self, block):
        """Nothing is up but the VPN; not that either when it is to be brought up."""
        for uuid in self.bed.cords():
            self.bed.down(uuid)
        wanted = not any(re.search(r"connection up Work", line) for line in block)
        up = self.bed.state("Work") == "activated"
        if wanted and not up:
            self.bed.up("Work")
        elif up and not wanted and not any("connection down Work" in line for line in block):
            self.bed.down("Work")

    def check(self, name):
        """The connection does what it is for."""
        bed = self.bed
        bed.wait_active(name)
        if name in ("office", "anna"):
            assert bed.get(name, "IP4.ADDRESS").startswith("192.168.7.1")
        if name in ("office", "anna", "lab"):
            assert bed.near.exec("ping", "-n", "-q", "-c", 2, "-i", "0.1", "-w", 5, "-I",
                                 f"ec-{name}", HOST)
        if name == "lab":
            assert bed.get(name, "IP4.ADDRESS") == "192.168.7.20/24"
        elif name == "branch":
            assert bed.near.master("ec-branch") == "br0"
            bed.near.ip("addr", "replace", "192.168.7.30/24", "dev", "br0")
            assert ping(bed.near, HOST, 2)
            bed.near.ip("addr", "del", "192.168.7.30/24", "dev", "br0")
        elif name == "raw":
            assert "inet " not in bed.near.ip("addr", "show", "dev", "ec-raw").stdout
            assert bed.lab.flow(bed.near, "ec-raw", bed.far, "br0").start().stop(20) == []
        elif name == "show":
            assert "bench" in bed.client.tunnels()


@pytest.mark.parametrize("source", SOURCES)
def test_recipes(source):
    world = World()
    try:
        typed = 0
        for block in blocks(source):
            world.begin(block)
            for line in block:
                done = world.type(line)
                typed += 1
                assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
                named = re.search(r"connection up (\S+)$", line)
                if named and named.group(1) != "Work":
                    world.check(named.group(1))
            if any("up-with=Work" in line for line in block):
                world.check("office")
            if any("file office.conf" in line for line in block):
                check_round_trip(world)
        assert typed >= 14
    finally:
        world.lab.close()


def check_round_trip(world):
    """What was exported came back: a second connection with the same vpn.data."""
    bed = world.bed
    listed = bed.ctl("-t", "-f", "UUID,NAME", "connection", "show").stdout.splitlines()
    uuids = [line.split(":")[0] for line in listed if line.split(":")[1] == "office"]
    assert len(uuids) == 2, listed
    assert {bed.get(u, "vpn.service-type") for u in uuids} == {SERVICE}
    data = [dict(item.split(" = ") for item in bed.get(u, "vpn.data").split(", ")) for u in uuids]
    assert data[0] == data[1], data


def test_every_recipe_is_found():
    """No command stands outside the blocks that are typed."""
    for source, (file, _, _) in SOURCES.items():
        found = [line for block in blocks(source) for line in block]
        assert all(line.split()[0] in ("nmcli", "ethercordctl") for line in found), found
        for what in ("add type vpn", "import", "connection up", "--ask", "bridge=br0",
                     "ipv4.addresses", "up-with", "export"):
            assert any(what in line for line in found), f"{file} has no recipe with {what}"
