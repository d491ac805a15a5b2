# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections that cannot be: they fail at once, with a sentence for a person, and leave nothing."""

import contextlib
import os

import pytest

import ethercord
from control import KEY
from ethercord import ping
from nmbed import FAR, QUICK, Bed

# What vpn.data has beside what works, and the words that the sentence has to have.
BAD = {
    "unknown key": ({"colour": "blue"}, ["colour"]),
    "misspelt key": ({"bridge_create": "yes"}, ["bridge_create"]),
    "listener's key": ({"max-peers": "3"}, ["max-peers"]),
    "number": ({"mtu": "abc"}, ["mtu"]),
    "out of range": ({"mtu": "9"}, ["mtu"]),
    "negative": ({"ttl": "-1"}, ["ttl"]),
    "choice": ({"mode": "hub"}, ["mode", "join-remote"]),
    "list": ({"encapsulation": "vxlan,pigeon"}, ["encapsulation", "gretap"]),
    "boolean": ({"bridge-create": "maybe"}, ["bridge-create"]),
    "mac": ({"mac": "01:02:03:04:05:06:07"}, ["mac"]),
    "name": ({"tunnel-name": "a b"}, ["name"]),
    "path for a name": ({"tunnel-name": "../../etc/shadow"}, ["name"]),
    "long name": ({"tunnel-name": "n" * 64}, ["name"]),
    "path for an interface": ({"interface": "/etc/passwd"}, ["interface"]),
    "path for a bridge": ({"bridge": "../br0"}, ["bridge"]),
    "path for a tunnel": ({"tunnel": "/etc/ethercord/tunnels.d/x"}, ["tunnel"]),
    "path for a remote": ({"remote": "/etc/passwd"}, ["remote"]),
    "long interface": ({"interface": "i" * 16}, ["interface"]),
    "control character": ({"remote": "10.9.0.2\\t\\x07"}, ["remote"]),
    "line feed": ({"identity": "a\\nb"}, ["identity"]),
    "escape": ({"attach": "\\x1b[31m"}, ["attach"]),
    "ipv4": ({"ipv4": "perhaps"}, ["ipv4", "dhcp"]),
    "ipv6": ({"ipv6": "9"}, ["ipv6"]),
    "flags": ({"key-flags": "77"}, ["key-flags"]),
    "up-with": ({"up-with": "a\\nb"}, ["up-with"]),
    "tunnel and settings": ({"tunnel": "other"}, ["tunnel"]),
    "no remote": ({"remote": None}, ["remote"]),
    "do not go together": ({"address": "192.168.7.2/24", "bridge": "br0"}, ["bridge"]),
    "key in data": ({"key": KEY}, ["key"]),
}


@pytest.fixture(scope="module")
def world():
    """One machine for all: each must leave it as it was."""
    lab = ethercord.Lab()
    try:
        bed = Bed(lab)
        bed.far_end()
        yield bed
    finally:
        lab.close()


@pytest.mark.parametrize("what", BAD)
def test_bad_data(world, what):
    data, words = BAD[what]
    world.journal.entries.clear()
    world.cord(data=data)
    sentence = world.fails(*words)
    assert len(sentence) > 15 and not sentence.startswith("/"), sentence
    assert world.client.tunnels() == []


@pytest.mark.parametrize("key, words", [("", ["key"]), ("short", ["key"]), ("/etc/shadow", ["key"]),
                                        (KEY[:-4] + "\\n!==", ["key"])])
def test_bad_key(world, key, words):
    """And the sentence does not tell it."""
    world.journal.entries.clear()
    world.cord(control="ethercord", id=None, secrets={"key": key} if key else None,
               data={"key-flags": "0"})
    if key:
        sentence = world.fails(*words)
        assert key.replace("\\n", "\n") not in sentence and KEY[:-4] not in sentence
    else:
        # Nobody is there to be asked; a cord without one is refused, since no VPN protects it.
        done = world.up(check=False, wait=QUICK)
        assert done.returncode != 0
        with contextlib.suppress(AssertionError):
            world.down()
        world.clean()


@pytest.mark.parametrize("family, method, own", [
    ("ipv4", "manual", {"address1": "192.168.7.9/24"}), ("ipv4", "auto", {"route1": "10.99.0.0/16"}),
    ("ipv6", "manual", {"address1": "fd77:7::9/64"})])
def test_addresses_of_a_port(world, family, method, own):
    """The bridge's network could not be reached any more."""
    world.journal.entries.clear()
    world.cord(mode="join-remote", bridge="br0", **{family: {"method": method, **own}})
    world.fails(family, "br0")


def test_works_after_all_that(world):
    world.cord(ipv4=world.manual())
    world.up()
    assert ping(world.near, "192.168.7.1")
    world.down()
    world.clean()


@pytest.mark.parametrize("identifier", ["Büro Köln (2.)!", "a/b", "..", "-x", "n" * 90, "%s%n"])
def test_any_name_of_a_connection(world, identifier):
    """It is made a tunnel's name."""
    uuid = world.uuid("strange")
    world.write("strange", data={"remote": FAR, "control": "static", "encapsulation": "vxlan",
                                 "id": 42, "underlay": "any"}, ipv4=world.manual(), load=True,
                id=identifier)
    world.up(uuid)
    assert ping(world.near, "192.168.7.1")
    assert len(world.client.tunnels()) == 1
    world.down(uuid)
    world.ctl("connection", "delete", uuid)
    ethercord.wait_until(lambda: world.client.tunnels() == [], "the tunnel goes")
    world.clean("strange")


def test_named(world):
    """Not as the connection."""
    world.write("strange", data={"remote": FAR, "control": "static", "encapsulation": "vxlan",
                                 "id": 42, "underlay": "any", "tunnel-name": "other"}, load=True,
                ipv4=world.manual())
    world.up("strange")
    assert world.client.tunnels() == ["other"] and ping(world.near, "192.168.7.1")
    world.down("strange")
    world.clean("strange", "ec-other")


def test_name_is_taken(world):
    """By a tunnel of somebody else, which is left alone."""
    world.journal.entries.clear()
    world.client.add("cord", remote=FAR, id=42, address="192.168.7.5/24")

    def seen():
        return {k: v for k, v in world.client.get("cord").items() if k != "Statistics"}, \
            world.near.link("ec-cord")
    world.client.wait_state("cord", "up")
    before = seen()
    world.cord(ipv4=world.manual())
    done = world.up(check=False)
    assert done.returncode == 4 and done.seconds < QUICK
    world.said("cord", "tunnel-name")
    assert seen() == before
    assert ping(world.near, "192.168.7.1")
    world.client.on("cord", "Remove")
    world.clean()


def test_no_such_tunnel(world):
    world.journal.entries.clear()
    world.write("cord", data={"tunnel": "nowhere"}, load=True)
    world.fails("nowhere")


def test_interface_is_taken(world):
    world.journal.entries.clear()
    world.near.ip("link", "add", "ec-cord", "type", "bridge")
    world.cord()
    done = world.up(check=False)
    assert done.returncode == 4 and done.seconds < QUICK
    world.said("ec-cord")
    assert world.near.link("ec-cord")["linkinfo"]["info_kind"] == "bridge"
    world.near.ip("link", "del", "ec-cord")
    world.clean()


def test_not_allowed(world):
    """A user without rights starts nothing."""
    world.cord(ipv4=world.manual())
    done = world.near.exec("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "nmcli",
                           "connection", "up", "cord", check=False,
                           env=dict(os.environ, LC_ALL="C.UTF-8"))
    assert done.returncode != 0, done.stdout
    world.clean()


def test_no_name_file(lab):
    bed = Bed(lab, installed=False)
    bed.far_end()
    bed.cord(ipv4=bed.manual())
    done = bed.up(check=False)
    assert done.returncode == 4 and done.seconds < QUICK
    assert "not installed" in done.stderr
    bed.clean()
    bed.install_plugin()
    ethercord.wait_until(lambda: bed.up(check=False).returncode == 0, "it is seen", 10)
    assert ping(bed.near, "192.168.7.1")


def test_daemon_is_not_installed(lab):
    bed = Bed(lab, daemon=False)
    bed.cord(ipv4=bed.manual())
    bed.fails("ethercordd")
    bed.install_daemon()
    bed.far_end()
    bed.up()
    assert ping(bed.near, "192.168.7.1")


def test_hint_of_nmcli(world):
    """The field that nmcli tells people to look for is the one that the sentence has."""
    world.journal.entries.clear()
    world.cord(data={"colour": "blue"})
    done = world.up(check=False)
    assert f"NM_CONNECTION={world.uuid('cord')}" in done.stdout + done.stderr
    world.said("colour")  # it may be read after nmcli has ended
    entry = next(e for e in world.journal.entries if "colour" in e["MESSAGE"])
    assert entry["NM_CONNECTION"] == world.uuid("cord")
    assert int(entry["PRIORITY"]) <= 4
