# SPDX-License-Identifier: GPL-2.0-or-later
"""The key of a connection of NetworkManager: asked for where it is not kept, and where it is wrong."""

import base64

import pytest

from control import KEY
from ethercord import ping
from nmbed import Bed

OTHER_KEY = base64.b64encode(b"another key, of as many bytes: x").decode()
ERASE = "\x15"  # what stands in nmcli's line already


@pytest.fixture
def bed(lab):
    return Bed(lab)


@pytest.fixture(autouse=True)
def office(bed):
    return bed.office()


def ask(bed, *answers):
    return bed.ctl("--ask", "--wait", "20", "connection", "up", "cord", check=False,
                   input="".join(f"{a}\n" for a in answers))


def test_not_saved(bed):
    bed.dial(key=None, data={"key-flags": "2"}, ipv4=bed.manual())
    done = ask(bed, KEY)
    assert done.returncode == 0, done
    assert ping(bed.near, "192.168.7.1")
    assert KEY not in bed.ctl("--show-secrets", "connection", "show", "cord").stdout


def test_wrong_then_right(bed):
    """The person is told what is wrong, and asked again while the activation waits."""
    bed.dial(key=OTHER_KEY, data={"key-flags": "0"}, ipv4=bed.manual())
    done = ask(bed, ERASE + KEY)
    assert done.returncode == 0, done
    assert bed.said("with this key")
    assert ping(bed.near, "192.168.7.1")
    bed.down()
    bed.clean()


def test_wrong_again_and_again(bed):
    """Who answers may be a store: it ends."""
    bed.dial(key=OTHER_KEY, data={"key-flags": "0"}, ipv4=bed.manual())
    done = ask(bed, *[ERASE + OTHER_KEY] * 9)
    assert done.returncode == 4, done
    bed.clean()


@pytest.mark.parametrize("flags", ["1", "2"])
def test_nobody_to_ask(bed, flags):
    bed.dial(key=None, data={"key-flags": flags}, ipv4=bed.manual())
    bed.fails()
