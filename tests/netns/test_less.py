# SPDX-License-Identifier: GPL-2.0-or-later
"""A path that carries small frames only: what was found out stays found out."""

from control import Follow, World, full_frames, wait_until

FRAGMENTS = "ip frag-off & 0x3fff != 0 drop"


def check(world, indexes, flows, largest):
    for end in world.both_up():
        token, sentence = end["StateReason"]
        assert token == "RefusedByPath" and "fragments" in sentence
        assert end["LargestFrame"] == largest
    assert world.indexes() == indexes
    assert [flow.stop(100) for flow in flows] == [[], []]


def test_over_another_channel(lab):
    """Neither a new daemon nor a new channel begins with frames that do not cross."""
    world = World(lab)
    host = world.host()
    world.internet.filter(FRAGMENTS)
    world.office.listen()
    # The user data plane has a way around: test_user_control.py.
    world.laptop.dial(underlay="any", address="192.168.9.1/24", data_plane="kernel")
    world.both_up()
    indexes, flows = world.indexes(), world.flows(host)
    follow = [Follow(lab, site) for site in (world.laptop, world.office)]
    for site in (world.office, world.laptop):
        other = follow[0] if site is world.office else follow[1]
        other.clear()
        site.restart_killed()
        other.wait("office" if site is world.office else "lan.office", "chose")
    follow[1].clear()
    world.laptop.client.update("office", autostart=False)  # talks anew
    follow[1].wait("lan.office", "control-back")
    check(world, indexes, flows, 1462)
    for f, name in zip(follow, ("office", "lan.office")):
        assert not {"=degraded", "peer-lost"} & set(f.words(name))


def test_while_up(lab):
    """The path shrinks and drops fragments under a cord that carries frames: it goes on."""
    world = World(lab)
    host = world.up()
    full_frames(world, host)
    indexes, flows = world.indexes(), world.flows(host)
    world.internet.filter(FRAGMENTS)
    world.laptop.ns.ip("link", "set", "net0", "mtu", "1400")
    for site, name in ((world.laptop, "office"), (world.office, "lan.office")):
        wait_until(lambda s=site, n=name: s.get(n)["LargestFrame"] == 1364, "less crosses")
    check(world, indexes, flows, 1364)
