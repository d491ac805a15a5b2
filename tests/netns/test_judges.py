# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests/lib/control.py judges by does see what it looks for: here with plain `ip link`."""

import contextlib
import socket
import struct
import time

from control import PROBE, Internet, Links, Nat, frame_crosses, gap
from ethercord import ETHERTYPE, far_vxlan, frame_socket, ping, wait_until


def two(lab, nat=False):
    """A laptop and an office without daemons."""
    net = Internet(lab)
    office, laptop = lab.namespace("office"), lab.namespace("laptop")
    net.join(office, 2)
    home = Nat(net, 1) if nat else None
    if home:
        home.join(laptop, 11)
    else:
        net.join(laptop, 1)
    return net, home, laptop, office


def cord(laptop, office):
    far_vxlan(laptop, "cord", 5, "10.9.1.2", "10.9.2.2", 1500, "192.168.9.1/24")
    far_vxlan(office, "cord", 5, "10.9.2.2", "10.9.1.2", 1500, "192.168.9.2/24")


def test_wire_and_filter(lab):
    net, _, laptop, office = two(lab)
    cord(laptop, office)
    to_office, from_office = net.wire(2), net.wire(2, outgoing=False)
    assert frame_crosses(lab, laptop, "cord", office, "cord")
    assert frame_crosses(lab, office, "cord", laptop, "cord")
    for wire in (to_office, from_office):
        whole = [d for d in wire.take() if len(d.payload) == 8 + 14 + 1500]
        assert whole and whole[0].dport == 4789 and abs(whole[0].at - time.time()) < 5
    probe = PROBE + b"\x02\x00\x5e\x10\x00\x01" + struct.pack("!H", ETHERTYPE) + bytes(1500)
    with contextlib.closing(frame_socket(laptop, "cord")) as s:
        s.send(probe)
    wait_until(lambda: to_office.probes(1514), "a probe is seen")
    assert not from_office.probes() and not to_office.probes(1515)
    net.filter("ip frag-off & 0x3fff != 0 drop")
    ends = (lab, laptop, "cord", office, "cord")
    assert frame_crosses(*ends, 1464) and not frame_crosses(*ends, 1465, timeout=1)
    net.filter()
    assert frame_crosses(*ends)
    net.filter("ip protocol != tcp drop")
    assert not ping(laptop, "192.168.9.2", timeout=1, check=False)
    net.cut(1)
    to_office.clear(), from_office.clear()
    assert not ping(office, "192.168.9.1", timeout=1, check=False)
    assert from_office.take() and not to_office.take()
    net.cut()
    flow = lab.flow(laptop, "cord", office, "cord", 0.005).start()
    net.cut(1, 2)
    flow.wait_sent(flow.sent + 100)
    net.cut()
    flow.wait_sent(flow.sent + 100)
    longest, lost = gap(flow)
    assert 0.4 < longest < 2 and 80 <= lost <= 400


def test_links(lab):
    ns = lab.namespace("one")
    links = lab.keep(Links(ns))
    ns.ips("link add va type veth peer name vb\nlink set va up\nlink set vb up\n")
    index, begun = ns.ifindex("va"), time.monotonic() - 5
    up = links.carrier(index, True, begun)
    ns.ip("link", "set", "vb", "down")
    assert links.carrier(index, False, up) > up
    ns.ip("link", "del", "va")
    assert links.deleted("va", up) > up
    assert links.of(index) and not links.of(index, time.monotonic())


def test_nat(lab):
    _, home, laptop, office = two(lab, nat=True)
    with office.entered():
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tcp = socket.create_server(("0.0.0.0", 65200))
    server.bind(("0.0.0.0", 4789))
    server.settimeout(5)
    with laptop.entered():
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        connection = socket.create_connection(("10.9.2.2", 65200), 5)
    client.bind(("0.0.0.0", 4789))
    client.settimeout(5)
    accepted = tcp.accept()[0]
    accepted.settimeout(5)

    def seen():
        client.sendto(b"data", ("10.9.2.2", 4789))
        return server.recvfrom(100)[1]

    def tcp_works():
        connection.send(b"x")
        with contextlib.suppress(TimeoutError, ConnectionError):
            return accepted.recv(10)
    first = seen()
    assert first[0] == home.address and 20000 <= first[1] <= 29999 and seen() == first
    server.sendto(b"back", first)
    assert client.recv(100) == b"back"
    home.map(30000, 30009)
    assert seen() == first, "a mapping outlives new rules"
    home.forget()
    moved = seen()
    assert 30000 <= moved[1] <= 30009 and tcp_works()
    for here in (client, accepted):     # nothing is to come any more
        here.settimeout(0.5)
    server.sendto(b"late", first)
    with contextlib.suppress(TimeoutError):
        raise AssertionError(f"the old mapping still leads to {client.recv(100)}")
    home.forget(None)
    assert not tcp_works() or seen()
    for thing in (server, tcp, client, connection, accepted):
        thing.close()
