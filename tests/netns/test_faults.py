# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong around a tunnel gets a name and a sentence, and never lets a frame out in clear:
no VPN, two VPNs, a device that only has a VPN's name, no nftables, no guard at all, changes of the
IPsec policies while they are read."""

import socket
import struct
import threading
import types

import pytest

import ethercord
from ethercord import bridge, frame_socket, stays, wait_until
from traffic import PLAIN, Judge, Stream, Traffic
from vpn import PHYSICAL, OpenVpn, Topology

NAME = f"{ethercord.PATH}/underlay/"
SECOND = "10.7.8"


class SecondOpenVpn(OpenVpn):
    """Another one between the same sites."""

    name = "second"
    device = "tun8"
    near, far, other = f"{SECOND}.1", f"{SECOND}.2", f"{SECOND}.12"
    port = 1195


class World:
    """A daemon at the near site and one bridged VXLAN, whose frames go on; the judge watches."""

    def __init__(self, lab, **daemon):
        self.lab = lab
        self.topology = Topology(lab)
        self.near = self.topology.near
        self.daemon = lab.daemon(self.near, "near", **daemon)
        self.client = self.daemon.bus.client
        bridge(self.near, "br-v")
        self.near.ips("link add host-v type veth peer name port-v\n"
                      "link set port-v master br-v up\nlink set host-v up\n")
        self.traffic = lab.keep(Traffic(0.005))
        self.flow = self.traffic.add(Stream("flow", frame_socket(self.near, "host-v")))
        self.judge = None
        self.traffic.start()

    def vpn(self, made):
        """The judge knows the addresses of the (last) VPN."""
        self.judge = self.lab.keep(Judge(made))
        return made

    def watch(self, address):
        """With no VPN: whatever goes to that address."""
        return self.vpn(types.SimpleNamespace(topology=self.topology, far=address, near="-",
                                              other="--"))

    def add(self, remote, **settings):
        self.client.add("t", remote=remote, id=3, encapsulation="vxlan", mode="join-networks",
                        bridge="br-v", **settings)

    def get(self):
        return self.client.get("t")

    def reason(self):
        got = self.get()
        return (got["State"], *got["StateReason"])

    def wait_reason(self, *words):
        """Not up, and the sentence has these words."""
        def said():
            state, token, sentence = self.reason()
            return state in ("waiting", "failed") and token and \
                all(word in sentence for word in words) and (state, token, sentence)
        try:
            return wait_until(said, "")
        except AssertionError:
            raise AssertionError(f"no word of {words} in {self.reason()}") from None

    def silent(self, frames=100):
        """So many more frames are sent and none is seen in clear."""
        mark = self.flow.sent + frames
        wait_until(lambda: self.flow.sent >= mark, f"{frames} frames are sent")
        self.judge.acquit("meanwhile")

    def leaking(self):
        """The control: now they are."""
        wait_until(lambda: self.judge.look()["near", "vxlan"] > 10, "frames are seen in clear")


@pytest.fixture
def world(lab):
    return World(lab)


def test_no_vpn_protects(world):
    """The peer is reached over the bare network only."""
    world.watch(PHYSICAL["far"])
    world.add(PHYSICAL["far"], underlay="vpn")
    state, token, sentence = world.reason()
    assert state == "waiting" and token in ("NotProtected", "NoUnderlay")
    assert "net0" in sentence and "VPN" in sentence
    assert world.get()["Protected"] is False and world.get()["ProtectedBy"] == []
    world.silent()
    # Control: the same tunnel, when asked to go anywhere.
    world.client.update("t", underlay="any")
    world.client.wait_state("t", "up")
    world.leaking()
    assert world.get()["Protected"] is False


@pytest.mark.parametrize("underlay", ["openvpn", "ipsec", "wireguard", "networkmanager"])
def test_vpn_of_another_kind(world, underlay):
    """Only a VPN of the kind that was asked for will do."""
    made = world.vpn(OpenVpn(world.topology).up().wait_up())
    world.add(made.far, underlay=underlay)
    if underlay == "openvpn":
        assert world.client.wait_state("t", "up")["Underlay"] == NAME + made.device
    else:
        state, token, sentence = world.reason()
        assert state == "waiting" and token in ("NotProtected", "NoUnderlay") and sentence
        assert world.near.link("ec-t") is None or not world.near.is_up("ec-t")
    world.silent()


def test_vpn_comes_later(world):
    made = world.vpn(OpenVpn(world.topology))
    world.add(made.far, underlay="vpn")
    assert world.reason()[0] == "waiting"
    world.silent()
    made.up().wait_up()
    assert world.client.wait_state("t", "up")["Protected"] is True
    assert {"nftables", "route"} == set(world.get()["ProtectedBy"])
    world.silent()


@pytest.mark.parametrize("underlay", ["vpn", "openvpn"])
def test_two_vpns(world, underlay):
    """Both lead to the peer. The kernel's routes say which; when one goes the other one serves."""
    second = SecondOpenVpn(world.topology).up().wait_up()
    first = world.vpn(OpenVpn(world.topology).up().wait_up())
    world.add(first.far, underlay=underlay)
    assert world.client.wait_state("t", "up")["Underlay"] == NAME + first.device
    index = world.near.ifindex("ec-t")
    frames = ethercord.Capture(world.near, second.device)
    world.near.ip("route", "add", f"{first.far}/32", "dev", second.device)
    wait_until(lambda: world.get()["Underlay"] == NAME + second.device, "it rides on the second")
    assert world.get()["State"] == "up" and world.get()["Local"] == second.near
    wait_until(lambda: any(b"ETHERCORD" in f for f in frames.take()), "frames go into the second")
    frames.close()
    second.killed().send(None)      # takes the route away, too
    wait_until(lambda: world.get()["Underlay"] == NAME + first.device and
               world.get()["State"] == "up", "it rides on the first again")
    assert world.near.ifindex("ec-t") == index and world.near.master("ec-t") == "br-v"
    first.killed().send(None)
    world.wait_reason("tun9")
    world.silent()


def test_device_by_name_and_route_elsewhere(world):
    """device:tun9 while the routes lead to another VPN."""
    second = SecondOpenVpn(world.topology).up().wait_up()
    first = world.vpn(OpenVpn(world.topology).up().wait_up())
    world.add(first.far, underlay="device:tun9")
    world.client.wait_state("t", "up")
    world.near.ip("route", "add", f"{first.far}/32", "dev", second.device)
    world.wait_reason("tun8", "tun9")
    world.silent()


def impostor(world, made):
    """A device with the VPN's name, address and route that leads to the router in clear."""
    world.near.ip("link", "add", made.device, "type", "veth", "peer", "name", "trap0", "netns",
                  world.topology.router.name)
    world.topology.router.ip("link", "set", "trap0", "up")
    world.near.ips(f"addr add {made.near}/24 dev {made.device}\n"
                   f"link set {made.device} arp off up\n")


@pytest.mark.parametrize("underlay", ["vpn", "openvpn"])
def test_name_reused(world, underlay):
    """The VPN's device is gone; another one has its name."""
    made = world.vpn(OpenVpn(world.topology).up().wait_up())
    world.add(made.far, underlay=underlay)
    world.client.wait_state("t", "up")
    world.silent()
    made.killed().send(None)
    impostor(world, made)
    state, token, _ = world.wait_reason("tun9")
    assert state == "waiting" and token in ("NotProtected", "NoUnderlay")
    world.silent()
    # Control: what the impostor is given is seen.
    plain = world.traffic.add(Stream("plain", frame_socket(world.near, made.device), mark=PLAIN))
    seen = ethercord.Capture(world.topology.router, "trap0")
    wait_until(lambda: any(PLAIN in f for f in seen.take()), "the impostor leads to the router")
    assert plain.sent and not any(b"ETHERCORD" in f for f in seen.take())
    seen.close()
    world.near.ip("link", "del", made.device)
    made.make("near")
    made.wait_up()
    world.client.wait_state("t", "up")
    world.silent()


# The guard itself

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <sys/socket.h>

/* A kernel without nf_tables; with NO_RULES also one that takes no routing rules. */
int socket(int domain, int type, int protocol)
{
	int (*real)(int, int, int) = (int (*)(int, int, int))dlsym(RTLD_NEXT, "socket");

	if (domain == AF_NETLINK && protocol == NETLINK_NETFILTER) {
		errno = EPROTONOSUPPORT;
		return -1;
	}
	return real(domain, type, protocol);
}

ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
	ssize_t (*real)(int, const struct msghdr *, int) =
			(ssize_t(*)(int, const struct msghdr *, int))dlsym(RTLD_NEXT, "sendmsg");
	const struct sockaddr_nl *to = m->msg_name;

	for (size_t i = 0; getenv("NO_RULES") && to && to->nl_family == AF_NETLINK &&
			i < m->msg_iovlen; i++) {
		const struct nlmsghdr *h = m->msg_iov[i].iov_base;
		int left = (int)m->msg_iov[i].iov_len;

		for (; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
			if (h->nlmsg_type == RTM_NEWRULE) {
				errno = EOPNOTSUPP;
				return -1;
			}
		}
	}
	return real(fd, m, flags);
}
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    directory = tmp_path_factory.mktemp("shim")
    (directory / "shim.c").write_text(SHIM)
    ethercord.run("gcc", "-shared", "-fPIC", "-o", directory / "shim.so", directory / "shim.c",
                  "-ldl")
    return {"LD_PRELOAD": str(directory / "shim.so")}


def test_without_nftables(lab, shim):
    """The second layer alone, said aloud; it holds."""
    world = World(lab, environment=shim)
    made = world.vpn(OpenVpn(world.topology).up().wait_up())
    world.add(made.far, underlay="vpn")
    got = world.client.wait_state("t", "up")
    assert got["Protected"] is True and got["ProtectedBy"] == ["route"]
    assert "only one layer of the guard holds (route), nftables does not" in world.daemon.text()
    assert not world.near.exec("nft", "list", "ruleset").stdout
    happening = made.link_down()
    next(happening)
    world.wait_reason("tun9")
    world.silent()
    world.near.ip("link", "set", "ec-t", "up")
    world.silent()
    next(happening, None)
    world.client.wait_state("t", "up")


def test_without_any_guard(lab, shim):
    """Neither layer: refused, by name."""
    world = World(lab, environment={**shim, "NO_RULES": "1"})
    made = world.vpn(OpenVpn(world.topology).up().wait_up())
    with ethercord.refused("NotProtected", "nftables", "cannot guard"):
        world.add(made.far, underlay="vpn")
    assert "ec-t" not in world.near.links()
    next(made.link_down())
    world.silent()


# IPsec policies that change while they are read

def changed_while_read(namespace):
    """Reads all policies as the daemon does. True when one changed meanwhile. (This kernel does not
    flag the answer as inconsistent: the events are all there is to tell.)"""
    with namespace.entered():
        s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 6)  # NETLINK_XFRM
        events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 6)
    with s, events:
        s.settimeout(5)
        s.send(struct.pack("=IHHII", 16, 0x15, 0x301, 1, 0))  # XFRM_MSG_GETPOLICY, dump
        data = s.recv(65536)
        events.bind((0, 1 << 3))  # XFRMNLGRP_POLICY
        while struct.unpack("=IH", data[:6])[1] != 3:  # NLMSG_DONE
            data = s.recv(65536)
        try:
            return bool(events.recv(65536, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False


class Churn:
    """Policies of somebody else that come and go without end."""

    BATCH = "".join(f"xfrm policy {verb} dir out src 192.0.2.{n}/32 dst 198.51.100.{n}/32 {more}\n"
                    for n in range(1, 250) for verb, more in (("add", "action allow"),
                                                              ("delete", "")))

    def __init__(self, namespace):
        for n in range(1, 250):
            namespace.ip("xfrm", "policy", "add", "dir", "fwd", "src", f"192.0.2.{n}/32", "dst",
                         f"198.51.100.{n}/32", "action", "allow")
        self.namespace, self.running, self.rounds = namespace, True, 0
        self.thread = threading.Thread(target=self.go_on, daemon=True)
        self.thread.start()

    def go_on(self):
        while self.running:
            self.namespace.ips(self.BATCH)
            self.rounds += 1

    def close(self):
        self.running = False
        self.thread.join()


def test_policies_change_while_read(world):
    """Whatever state that leads to has a sentence, and ends by itself."""
    made = world.vpn(OpenVpn(world.topology).up().wait_up())
    world.add(made.far, underlay="vpn")
    world.client.wait_state("t", "up")
    world.client.add("i", remote=made.other, id=4, encapsulation="vxlan", underlay="ipsec",
                     mode="join-networks", bridge="br-v")
    assert world.client.state("i") == "waiting"
    churn = world.lab.keep(Churn(world.near))
    wait_until(lambda: changed_while_read(world.near), "policies change while they are read")
    rounds = churn.rounds

    def named():
        got = {name: world.client.get(name) for name in ("t", "i")}
        return got["i"]["State"] == "waiting" and got["t"]["State"] in ("up", "waiting") and all(
            g["State"] == "up" or all(g["StateReason"]) for g in got.values())
    stays(named, 2, "a state without a sentence, or one that does not end by itself", 0.05)
    wait_until(lambda: churn.rounds > rounds, "policies go on changing")
    world.silent()
    churn.close()
    world.client.wait_state("t", "up")
    world.client.wait_state("i", "waiting")
    made.killed().send(None)
    world.wait_reason("tun9")
    world.silent()
