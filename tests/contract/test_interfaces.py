# SPDX-License-Identifier: GPL-2.0-or-later
"""What the daemon shows on the bus."""

import pathlib
import subprocess
import xml.etree.ElementTree as ET

import dbus
import pytest

import ethercord
from ethercord import (DAEMON, FAR, LISTENER, MANAGER, NAME, NEAR, OBJECT_MANAGER, PATH, PROPERTIES, ROOT,
                       TUNNEL, UNDERLAY, Client, refused, tunnel_path, wait_until)

EMITS = "org.freedesktop.DBus.Property.EmitsChangedSignal"


def described(element):
    """An interface of introspection XML as comparable data."""
    def arguments(member, default):
        return [(a.get("name"), a.get("type"), a.get("direction", default))
                for a in member.findall("arg")]

    def emits(member):
        return {a.get("name"): a.get("value") for a in member.findall("annotation")}.get(EMITS,
                                                                                       "true")
    return {
        "methods": {m.get("name"): arguments(m, "in") for m in element.findall("method")},
        "signals": {m.get("name"): arguments(m, "out") for m in element.findall("signal")},
        "properties": {m.get("name"): (m.get("type"), m.get("access"), emits(m))
                       for m in element.findall("property")},
        "deprecated": [a.get("name") for a in element.findall("annotation")],
    }


def interfaces(xml):
    return {i.get("name"): described(i) for i in ET.fromstring(xml).findall("interface")}


def introspect(client, path):
    return client.call(path, "org.freedesktop.DBus.Introspectable", "Introspect")


@pytest.mark.parametrize("interface", [MANAGER, TUNNEL, UNDERLAY, LISTENER])
def test_introspection_is_the_contract(sites, interface):
    sites.tunnel()
    sites.client.listen("l1", flags="")
    path = {MANAGER: PATH, TUNNEL: tunnel_path("t1"), UNDERLAY: f"{PATH}/underlay/any",
            LISTENER: f"{PATH}/listener/l1"}[interface]
    live = interfaces(introspect(sites.client, path))
    written = interfaces((ROOT / f"dbus/{interface}.xml").read_text())
    assert live[interface] == written[interface]
    assert live[interface]["properties"]
    other = {n for n in live if n.startswith(NAME)} - {interface}
    assert not other, "one object, one interface of ours"


def test_every_contract_is_served(sites):
    names = {pathlib.Path(f).stem for f in (ROOT / "dbus").glob("org.ethercord1.*.xml")}
    assert names == {MANAGER, TUNNEL, UNDERLAY, LISTENER}


def test_properties_have_their_types(sites):
    """GetAll gives exactly the properties of the contract."""
    sites.tunnel()
    sites.client.listen("l1", flags="")
    for interface, path in ((MANAGER, PATH), (TUNNEL, tunnel_path("t1")),
                            (UNDERLAY, f"{PATH}/underlay/any"),
                            (LISTENER, f"{PATH}/listener/l1")):
        got = sites.client.connection.call_blocking(NAME, path, PROPERTIES, "GetAll", "s",
                                                    [interface])
        written = interfaces((ROOT / f"dbus/{interface}.xml").read_text())[interface]["properties"]
        assert set(got) == set(written)


def test_manager_properties(sites):
    sites.tunnel()
    got = sites.client.call(PATH, PROPERTIES, "GetAll", "s", MANAGER)
    version = subprocess.run([DAEMON, "--version"], stdout=subprocess.PIPE, text=True, check=True)
    assert version.stdout.split() == ["ethercordd", got["Version"]]
    assert got["Underlays"] == [f"{PATH}/underlay/any"]
    assert got["DefaultPort"] == 65200
    assert "vxlan/kernel" in got["Encapsulations"]
    assert {"gretap-fou/user", "vxlan/user", "raw-udp/user", "tun-udp/user"} <= \
        set(got["Encapsulations"])
    for word in got["Encapsulations"]:
        kind, plane = word.split("/")
        settings = {"encapsulation": [kind], "data_plane": plane,
                    "id": 0 if kind in ("ipip", "raw-udp", "tun-udp") else 99}
        if plane == "user":  # the kernel's have theirs
            settings["data_port"] = 20000
        sites.client.add("probe", remote="10.77.0.9", **settings)
        made = sites.client.get("probe")
        assert (made["Encapsulation"], made["DataPlane"]) == (kind, plane)
        sites.client.on("probe", "Remove")
    assert not [n for n in sites.near.links() if "probe" in n]


def test_a_tunnel_seen_from_outside(sites):
    sites.tunnel(vni=5)
    got = sites.client.get("t1")
    link = sites.near.link("ec-t1")
    since = got.pop("SinceUsec")
    statistics = got.pop("Statistics")
    assert got == {
        "Name": "t1", "Mode": "point-to-point", "State": "up", "StateReason": ["", ""],
        "Settings": {"name": "t1", "control": "static", "underlay": "any", "remote": [FAR],
                     "encapsulation": ["vxlan"], "id": 5},
        "Interface": "ec-t1", "Ifindex": link["ifindex"], "Bridge": "", "Encapsulation": "vxlan",
        "DataPlane": "kernel", "Local": NEAR, "Remote": FAR, "Peer": "", "Id": 5, "Mtu": 1450,
        "LargestFrame": 1464, "Underlay": f"{PATH}/underlay/any", "Protected": False,
        "ProtectedBy": [],
        "Fidelity": "bridge", "Guard": [], "Persistent": False, "Role": "static", "Listener": "/"}
    clock = pathlib.Path("/proc/uptime").read_text()
    assert clock and since > 1.5e15
    talk = {"rtt-us", "jitter-us", "probes-sent", "probes-lost", "reconnects"}
    assert set(statistics) == talk | {f"{d}-{w}" for d in ("rx", "tx")
                                      for w in ("packets", "bytes", "dropped")}
    assert not any(statistics[word] for word in talk)  # nobody answers with static control


def test_statistics_count(sites):
    sites.tunnel()
    before = sites.client.get("t1")["Statistics"]
    flow = sites.flow()
    assert flow.stop(300) == []
    after = sites.client.get("t1")["Statistics"]
    assert after["tx-packets"] - before["tx-packets"] >= flow.sent >= 300


def test_names_are_encoded(sites):
    path = sites.client.add("office-1", flags="", remote=FAR)
    assert path == f"{PATH}/tunnel/office_2d1" == tunnel_path("office-1")
    assert sites.client.get("office-1")["Name"] == "office-1"
    assert sites.client.call(PATH, MANAGER, "GetTunnel", "s", "office-1") == path
    assert 'node name="tunnel/office_2d1"' in introspect(sites.client, PATH) or \
        'name="office_2d1"' in introspect(sites.client, f"{PATH}/tunnel")
    path = sites.client.add("9.lives_x", flags="", remote=FAR)
    assert path == f"{PATH}/tunnel/_39_2elives_5fx"
    for missing in ("no", "office_2d2", "_zz", "%"):
        with pytest.raises(dbus.DBusException) as e:
            sites.client.call(f"{PATH}/tunnel/no", PROPERTIES, "GetAll", "s", TUNNEL)
        assert e.value.get_dbus_name() == "org.freedesktop.DBus.Error.UnknownObject", missing


def test_object_manager(lab, sites):
    signals = lab.signals(sites.daemon)
    assert sites.client.objects() == {}
    sites.tunnel()
    path = tunnel_path("t1")
    seen = signals.take()
    added = {values[0]: values[1] for p, i, m, values in seen if m == "InterfacesAdded"}
    assert set(added) == {path, f"{PATH}/underlay/any"}
    assert {p for p, i, m, _ in seen if m == "InterfacesAdded"} == {PATH}
    assert TUNNEL in added[path] and UNDERLAY in added[f"{PATH}/underlay/any"]
    mine = {k: v for k, v in added[path][TUNNEL].items() if k != "Statistics"}
    later = {k: v for k, v in sites.client.get("t1").items() if k != "Statistics"}
    assert mine == later, "InterfacesAdded has what a Get would answer"
    objects = sites.client.objects()
    assert set(objects) == {path, f"{PATH}/underlay/any"}
    assert {k: v for k, v in objects[path][TUNNEL].items() if k != "Statistics"} == later
    assert not [s for s in seen if s[0] == path], "no PropertiesChanged beside InterfacesAdded"
    sites.client.on("t1", "Remove")
    gone = {values[0]: values[1] for _, i, m, values in signals.take() if m == "InterfacesRemoved"}
    assert set(gone) == {path, f"{PATH}/underlay/any"}
    assert TUNNEL in gone[path]
    assert sites.client.objects() == {}


def states(changes):
    return [c["State"] for c in changes if "State" in c]


def test_properties_changed_of_states(lab, sites):
    sites.tunnel()
    signals = lab.signals(sites.daemon)
    path = tunnel_path("t1")
    sites.client.on("t1", "Deactivate")
    changes = signals.changes(path)
    assert states(changes) == ["down"] and len(changes) == 1
    assert changes[0]["Ifindex"] == 0 and changes[0]["Underlay"] == "/"
    sites.client.on("t1", "Activate")
    now = sites.client.get("t1")
    changes = signals.changes(path)
    assert states(changes) == ["up"] and len(changes) == 1
    assert {k: now[k] for k in changes[0]} == changes[0], "as a Get answers"
    assert {"State", "StateReason", "SinceUsec", "Ifindex", "Encapsulation", "Local", "Mtu",
            "LargestFrame", "Underlay", "Protected"} <= set(changes[0])
    sites.client.on("t1", "Activate")
    assert signals.changes(path) == [], "nothing changed"


def test_properties_changed_of_update(lab, sites):
    sites.tunnel()
    signals = lab.signals(sites.daemon)
    path = tunnel_path("t1")
    before = sites.client.get("t1")
    sites.client.update("t1", mtu=1300)
    now = sites.client.get("t1")
    changes = signals.changes(path)
    assert len(changes) == 1
    assert {k: now[k] for k in changes[0]} == changes[0]
    assert {"Settings", "Mtu", "LargestFrame"} <= set(changes[0])
    assert now["Mtu"] == 1300 == sites.near.link("ec-t1")["mtu"]
    different = {k for k in now if now[k] != before[k]} - {"Statistics"}
    assert different <= set(changes[0]), "all that differs was said"
    sites.client.update("t1", mtu="")
    assert sites.client.get("t1")["Mtu"] == 1450
    assert "mtu" not in sites.client.get("t1")["Settings"]


def test_underlays_property_is_signalled(lab, sites):
    signals = lab.signals(sites.daemon)
    sites.tunnel()
    assert [c["Underlays"] for c in signals.changes(PATH) if "Underlays" in c] == \
        [[f"{PATH}/underlay/any"]]
    sites.client.on("t1", "Deactivate")
    assert [c["Underlays"] for c in signals.changes(PATH) if "Underlays" in c] == [[]]


def test_thousand_tunnels_in_one_answer(sites):
    for i in range(1000):
        sites.client.add(f"t{i}", flags="", remote=FAR, id=i)
    objects = sites.client.objects()
    assert sites.client.tunnels() == sorted(f"t{i}" for i in range(1000))
    assert all(objects[tunnel_path(f"t{i}")][TUNNEL]["Settings"]["id"] == i for i in range(1000))
    sites.client.call(PATH, MANAGER, "RemoveTunnels", "as", [f"t{i}" for i in range(1000)])
    assert sites.client.tunnels() == []
    assert not list((sites.daemon.runtime / "tunnels.d").iterdir())


def test_remove_tunnels_is_all_or_none(sites):
    sites.tunnel()
    index = sites.near.ifindex("ec-t1")
    with refused("NoSuchTunnel", "nobody"):
        sites.client.call(PATH, MANAGER, "RemoveTunnels", "as", ["t1", "nobody"])
    assert sites.near.ifindex("ec-t1") == index
    sites.client.call(PATH, MANAGER, "RemoveTunnels", "as", ["t1"])
    assert sites.near.link("ec-t1") is None, "gone when the answer comes"


def test_interface_is_gone_when_the_answer_comes(sites):
    for number in range(5):
        for member in ("Deactivate", "Remove"):
            sites.client.add("x", remote=FAR, id=77)
            assert sites.near.link("ec-x")
            sites.client.on("x", member)
            assert sites.near.link("ec-x") is None, f"{member} {number}"
            if member == "Deactivate":
                sites.client.on("x", "Remove")


def test_pipelined_calls_are_answered_in_order(lab):
    # A system bus lets one caller have 128 calls unanswered.
    bus = lab.bus(more='<limit name="max_replies_per_connection">1000</limit>')
    sites = ethercord.Sites(lab, bus=bus)
    signals = lab.signals(sites.daemon)
    connection = signals.client.connection
    order = []
    # Who the caller is has to be known for a path to be looked at after the call that makes it.
    signals.client.add("pipe", flags="", remote=FAR)
    signals.client.on("pipe", "Remove")
    for i in range(500):
        # Adding and removing the same thing by turns: only in order do all succeed.
        name = "pipe"
        path, interface, member, signature, values = (
            (PATH, MANAGER, "AddTunnel", "a{sv}s",
             (ethercord.typed({"name": name, "remote": FAR, "control": "static"}), ""))
            if i % 2 == 0 else (tunnel_path(name), TUNNEL, "Remove", "", ()))
        connection.call_async(NAME, path, interface, member, signature, values,
                              lambda *a, i=i: order.append((i, "ok")),
                              lambda e, i=i: order.append((i, str(e))), timeout=60)

    def done():
        signals.settle()
        return len(order) == 500
    wait_until(done, "500 answers", 60)
    assert order == [(i, "ok") for i in range(500)]


def test_first_calls_of_a_caller_are_answered_in_order(lab, sites):
    connection = lab.signals(sites.daemon).client.connection
    order = []
    for i in range(100):
        connection.call_async(
            NAME, PATH, MANAGER, "AddTunnel" if i % 2 == 0 else "GetTunnel",
            "a{sv}s" if i % 2 == 0 else "s",
            (ethercord.typed({"name": f"p{i}", "remote": FAR}), "") if i % 2 == 0 else
            (f"p{i - 1}",), lambda *a, i=i: order.append((i, "ok")),
            lambda e, i=i: order.append((i, str(e))))
    wait_until(lambda: ethercord.iterate() and len(order) == 100, "100 answers")
    assert order == [(i, "ok") for i in range(100)]


def test_many_clients_at_once(lab, sites):
    clients = [lab.keep(Client(sites.bus.address)) for _ in range(50)]
    for i, client in enumerate(clients):
        client.add(f"c{i}", flags="", remote=FAR, id=i)
    assert len(sites.client.tunnels()) == 50


def test_one_thread_and_no_gio(sites):
    sites.tunnel()
    status = pathlib.Path(f"/proc/{sites.daemon.pid}/status").read_text()
    assert "Threads:\t1\n" in status
    libraries = subprocess.run(["ldd", DAEMON], stdout=subprocess.PIPE, text=True,
                               check=True).stdout
    assert "libsystemd" in libraries
    for unwanted in ("libgio", "libgobject", "libcurl", "libdbus"):
        assert unwanted not in libraries
    mapped = pathlib.Path(f"/proc/{sites.daemon.pid}/maps").read_text()
    assert "libgio" not in mapped


def test_unknown_members(sites):
    for path, interface, member in ((PATH, MANAGER, "Nothing"), (PATH, TUNNEL, "Activate"),
                                    (PATH, OBJECT_MANAGER, "Nothing")):
        with pytest.raises(dbus.DBusException) as e:
            sites.client.call(path, interface, member)
        assert e.value.get_dbus_name() in ("org.freedesktop.DBus.Error.UnknownMethod",
                                           "org.freedesktop.DBus.Error.UnknownInterface")
    with pytest.raises(dbus.DBusException) as e:
        sites.client.call(PATH, MANAGER, "GetTunnel", "u", 5)
    assert e.value.get_dbus_name() == "org.freedesktop.DBus.Error.InvalidArgs"
    with pytest.raises(dbus.DBusException) as e:
        sites.client.call(PATH, PROPERTIES, "Set", "ssv", MANAGER, "Version", "2")
    assert e.value.get_dbus_name() == "org.freedesktop.DBus.Error.PropertyReadOnly"
