# SPDX-License-Identifier: GPL-2.0-or-later
"""Several addresses of one peer, and names."""

import time

from ethercord import FAR, wait_until


def test_first_address_with_a_path(sites):
    """The first remote that has a path is used, and an earlier one takes over when it gets one."""
    sites.client.add("t1", remote=["10.66.0.1", FAR], id=7)
    assert sites.client.state("t1") == "up"
    assert sites.near.link("ec-t1")["linkinfo"]["info_data"]["remote"] == FAR
    index = sites.near.ifindex("ec-t1")
    for change, remote in (("add", "10.66.0.1"), ("del", FAR)):
        sites.near.ip("route", change, "10.66.0.0/24", "via", FAR)
        wait_until(lambda: sites.near.link("ec-t1")["linkinfo"]["info_data"]["remote"] == remote,
                   f"the remote is {remote} after route {change}")
        assert sites.client.get("t1")["Remote"] == remote
    assert sites.near.ifindex("ec-t1") == index, "changed where it is"


def test_no_address_has_a_path(sites):
    sites.client.add("t1", remote=["10.66.0.1", "10.67.0.1"], id=7)
    assert sites.client.state("t1") == "waiting"
    assert "10.66.0.1" in sites.client.get("t1")["StateReason"][1]


def test_names(sites):
    """A name that nobody knows does not stand in the way of one that somebody does, nor of the bus."""
    sites.client.add("t1", remote=["no.such.host.invalid", "localhost"], id=7)
    before = time.monotonic()
    sites.client.get("t1")
    assert time.monotonic() - before < 1, "the bus answers while names are looked up"
    sites.client.wait_state("t1", "up")
    assert sites.client.get("t1")["Remote"] in ("127.0.0.1", "::1")
