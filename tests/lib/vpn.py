# SPDX-License-Identifier: GPL-2.0-or-later
"""VPNs between two sites, and everything that can happen to them.

    near (10.9.1.2) --- router --- far (10.9.2.2)

Each site has a default route to the router: whatever a VPN does not take goes there in clear, and
is seen there. The VPN has an address at each site, and a second one at the far site (`other`), for
tunnels that nobody guards.

An event is a generator: it breaks something, yields while it is broken, and mends it. A VPN's
`events` tells by name what can happen to it, and whether unguarded tunnels then leak.
"""

import pathlib
import signal
import subprocess
import sys

import ethercord
from ethercord import ping, run, wait_until

PHYSICAL = {"near": "10.9.1.2", "far": "10.9.2.2"}
GATEWAY = {"near": "10.9.1.1", "far": "10.9.2.1"}
PHYSICAL6 = {"near": "fd09:1::2", "far": "fd09:2::2"}
GATEWAY6 = {"near": "fd09:1::1", "far": "fd09:2::1"}
PUMP = pathlib.Path(__file__).with_name("pump.py")


def host(address):
    """The address as a network of one."""
    return f"{address}/{128 if ':' in address else 32}"


def bare(site, like):
    """A site's address on the bare network, of the same IP version as the other one."""
    return (PHYSICAL6 if ":" in like else PHYSICAL)[site]


def gateway(site, like):
    return (GATEWAY6 if ":" in like else GATEWAY)[site]


def sysctl(namespace, **values):
    """Keys with '__' for '/'."""
    with namespace.entered():
        for key, value in values.items():
            pathlib.Path("/proc/sys/net", key.replace("__", "/")).write_text(str(value))


class Topology:
    """Two sites and the router between them, which lets no VPN's inner ping through in clear: an
    answer to one proves that the VPN carried it."""

    def __init__(self, lab):
        self.lab = lab
        self.near, self.router, self.far = (lab.namespace(name, ipv6=True)
                                            for name in ("near", "router", "far"))
        for ns in self.sites().values():
            # Errors, too, may quote what is not to be seen: none is to be held back.
            sysctl(ns, ipv6__conf__default__accept_dad=0, ipv6__conf__all__accept_dad=0,
                   ipv6__conf__all__keep_addr_on_down=1, ipv4__icmp_ratelimit=0,
                   ipv6__icmp__ratelimit=0)
        sysctl(self.router, ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
        for name, ns in self.sites().items():
            self.router.ip("link", "add", name, "type", "veth", "peer", "name", "net0", "netns",
                           ns.name)
            self.router.ips(f"addr add {GATEWAY[name]}/24 dev {name}\n"
                            f"addr add {GATEWAY6[name]}/64 dev {name} nodad\n"
                            f"link set {name} up\n")
            ns.ips(f"addr add {PHYSICAL[name]}/24 dev net0\n"
                   f"addr add {PHYSICAL6[name]}/64 dev net0 nodad\n"
                   f"link set net0 up\n"
                   f"route add default via {GATEWAY[name]}\n"
                   f"route add ::/0 via {GATEWAY6[name]}\n")
            ethercord.no_offloads(ns, "net0")
            ethercord.no_offloads(self.router, name)
        wait_until(lambda: ping(self.near, PHYSICAL["far"], check=False), "the sites reach each "
                   "other")

    def sites(self):
        return {"near": self.near, "far": self.far}

    def carry_clear(self, near, far, other):
        """The router knows the inner addresses, as the net of a careless provider would; pings to
        and from them it drops."""
        for site, addresses in (("near", [near]), ("far", [far, other])):
            for address in addresses:
                self.router.ip("route", "add", host(address), "via", bare(site, address))
        ip, icmp = ("ip6", "icmpv6") if ":" in near else ("ip", "icmp")
        inner = ", ".join((near, far, other))
        self.router.exec("nft", "-f", "-", input=f"""table inet router {{
            chain forward {{ type filter hook forward priority 0; policy accept
                {ip} daddr {{ {inner} }} meta l4proto {icmp} drop
                {ip} saddr {{ {inner} }} meta l4proto {icmp} drop
            }}
        }}
        """)


class Vpn:
    """What they share. device: its interface at both sites, "" when it has none."""

    name = underlay = device = ""
    near = far = other = ""     # addresses inside
    title = ""                  # how sentences call it
    events = {}
    rekeyings = ()              # what rekey() can be asked for
    mtu = 1500                  # an inner IP packet of that many bytes needs no fragment
    layer = "route"             # the guard's second layer

    def __init__(self, topology):
        self.topology, self.lab = topology, topology.lab
        self.directory = self.lab.directory / type(self).__name__
        self.directory.mkdir()
        topology.carry_clear(self.near, self.far, self.other)

    def site(self, name):
        return self.topology.sites()[name]

    def wait_up(self, timeout=30):
        wait_until(lambda: self.answers(), f"the far end answers through {self.name}", timeout)
        return self

    def answers(self):
        return ping(self.topology.near, self.far, timeout=1, check=False)

    def event(self, name):
        return getattr(self, name.replace(" ", "_").replace("-", "_"))()

    # Events that every VPN knows

    def specific_route(self):
        """Somebody adds a route to the peer that is none of the VPN's."""
        near = self.topology.near
        for address in (self.far, self.other):
            near.ip("route", "add", host(address), "via", gateway("near", address))
        yield
        for address in (self.far, self.other):
            near.ip("route", "del", host(address), "via", gateway("near", address))


INTERFACE_EVENTS = {"stopped": True, "link down": True, "re-created": True, "specific route": True,
                    "address on lo": True, "rules flushed": True}


class InterfaceVpn(Vpn):
    """One with a network interface: make() and unmake() it at a site."""

    network = 24
    events = INTERFACE_EVENTS

    def up(self):
        for site in ("far", "near"):
            self.make(site)
        return self

    def routes(self, site):
        """What is to be added again after the interface was down. Nothing, if the kernel does."""

    def make(self, site):
        raise NotImplementedError

    def unmake(self, site):
        """The orderly end."""
        raise NotImplementedError

    def stopped(self):
        self.unmake("near")
        yield
        self.make("near")

    def link_down(self):
        near = self.topology.near
        near.ip("link", "set", self.device, "down")
        yield
        near.ip("link", "set", self.device, "up")
        self.routes("near")

    def re_created(self):
        """Deleted under its owner's feet; a foreign interface takes the number that it had."""
        near = self.topology.near
        index = near.ifindex(self.device)
        near.ip("link", "del", self.device)
        near.ip("link", "add", "name", "foreign0", "index", index, "type", "veth", "peer", "name",
                "foreign0", "netns", self.topology.router.name)
        self.topology.router.ip("link", "set", "foreign0", "up")
        near.ip("link", "set", "foreign0", "arp", "off", "up")
        yield
        self.unmake("near")
        self.make("near")
        near.ip("link", "del", "foreign0")

    def address_on_lo(self):
        """So that the tunnel's source address is there without the VPN."""
        near = self.topology.near
        near.ip("addr", "add", host(self.near), "dev", "lo")
        near.ip("addr", "del", f"{self.near}/{self.network}", "dev", self.device)
        near.ip("link", "set", self.device, "down")
        yield
        near.ip("addr", "del", host(self.near), "dev", "lo")
        near.ip("link", "set", self.device, "up")
        near.ip("addr", "add", f"{self.near}/{self.network}", "dev", self.device)
        self.routes("near")

    def inside(self, site):
        """The site's addresses in the VPN."""
        return [self.near] if site == "near" else [self.far, self.other]

    def give_addresses(self, site):
        """The other one is no source: nobody is to choose it for a tunnel's."""
        self.site(site).ips("".join(
            f"addr add {a}/{self.network} dev {self.device}" +
            (" preferred_lft 0" if ":" in a and a == self.other else "") + "\n"
            for a in self.inside(site)))

    def rules_flushed(self):
        """As `systemctl restart nftables` does, and then the VPN is gone."""
        self.topology.near.exec("nft", "flush", "ruleset")
        yield from self.link_down()


class WireGuard(InterfaceVpn):
    name = underlay = "wireguard"
    title = "WireGuard on wg0"
    device = "wg0"
    near, far, other = "10.7.0.1", "10.7.0.2", "10.7.0.12"
    mtu = 1420

    def __init__(self, topology):
        super().__init__(topology)
        self.keys = {}
        for site in ("near", "far"):
            (self.directory / site).touch(0o600)
            (self.directory / site).write_text(run("wg", "genkey").stdout)
            self.keys[site] = run("wg", "pubkey",
                                  input=(self.directory / site).read_text()).stdout.strip()

    def make(self, site):
        ns, peer = self.site(site), "far" if site == "near" else "near"
        ns.ip("link", "add", self.device, "type", "wireguard")
        ns.exec("wg", "set", self.device, "private-key", self.directory / site, "listen-port",
                51820, "peer", self.keys[peer], "endpoint", f"{PHYSICAL[peer]}:51820",
                "allowed-ips", ",".join(map(host, self.inside(peer))))
        self.give_addresses(site)
        ns.ip("link", "set", self.device, "up")

    def unmake(self, site):
        self.site(site).ip("link", "del", self.device, check=False)

    def handshake(self):
        """When the last one was, s of the clock."""
        shown = self.topology.near.exec("wg", "show", self.device, "latest-handshakes").stdout
        return int(shown.split()[1])


class WireGuard6(WireGuard):
    """The tunnels' packets are IPv6."""

    name = "wireguard6"
    near, far, other = "fd07::1", "fd07::2", "fd07::12"
    network = 64


class Processes:
    """One daemon of the VPN at each site."""

    processes = None
    serial = 0

    def spawn(self, site, *command, **more):
        if self.processes is None:
            self.processes = {}
            self.lab.stack.callback(self.end_all)
        self.serial += 1
        log = self.directory / f"{site}-{self.serial}.out"
        with open(log, "wb") as out:
            self.processes[site] = self.site(site).popen(*command, stdout=out, stderr=out,
                                                         stdin=subprocess.DEVNULL, **more)
        return self.processes[site]

    def end(self, site, number=signal.SIGTERM):
        process = self.processes.get(site)
        if process and process.poll() is None:
            process.send_signal(number)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def end_all(self):
        for site in self.processes:
            self.end(site, signal.SIGKILL)

    def output(self, site):
        return "".join(f.read_text(errors="replace")
                       for f in sorted(self.directory.glob(f"{site}*")) if f.suffix in (".out",
                                                                                        ".log"))


class DaemonVpn(Processes, InterfaceVpn):
    """A TUN device that lives as long as a process at each site."""

    def __init__(self, topology):
        super().__init__(topology)
        if not pathlib.Path("/dev/net/tun").exists():
            run("modprobe", "tun")

    def unmake(self, site):
        self.end(site)

    def killed(self):
        self.end("near", signal.SIGKILL)
        yield
        self.make("near")


class OpenVpn(DaemonVpn):
    """Two that know each other's certificate. persist: the device outlives restarts."""

    name = underlay = "openvpn"
    title = "OpenVPN on tun9"
    device = "tun9"
    near, far, other = "10.7.9.1", "10.7.9.2", "10.7.9.12"
    mtu = 1448
    persist, port = False, 1194
    events = {**INTERFACE_EVENTS, "killed": True, "restarted": True}

    def __init__(self, topology, more=()):
        """more: options of the near site."""
        super().__init__(topology)
        self.more, self.fingerprints = list(more), {}
        for site in ("near", "far"):
            run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={site}", "-days", 3650,
                "-keyout", self.directory / f"{site}.key", "-out", self.directory / f"{site}.crt")
            shown = run("openssl", "x509", "-in", self.directory / f"{site}.crt", "-noout",
                        "-fingerprint", "-sha256").stdout
            self.fingerprints[site] = shown.strip().split("=")[1]

    def make(self, site):
        peer = "far" if site == "near" else "near"
        role = ["--tls-client"] if site == "near" else ["--tls-server", "--dh", "none"]
        self.spawn(site, "openvpn", "--dev", self.device, "--dev-type", "tun", "--topology",
                   "subnet", "--ifconfig", self.near if site == "near" else self.far,
                   "255.255.255.0", "--proto", "udp", "--port", self.port, *role, "--remote",
                   PHYSICAL[peer], "--cert", self.directory / f"{site}.crt", "--key",
                   self.directory / f"{site}.key", "--peer-fingerprint", self.fingerprints[peer],
                   "--data-ciphers", "AES-256-GCM", "--keepalive", 1, 4, "--connect-retry", 1, 1,
                   "--tls-timeout", 1, "--verb", 3, "--persist-key",
                   *(["--persist-tun"] if self.persist else []),
                   *(self.more if site == "near" else []))
        wait_until(lambda: self.site(site).is_up(self.device), f"{self.device} is there", 30)
        if site == "far":
            self.site(site).ip("addr", "add", f"{self.other}/32", "dev", "lo", check=False)

    def restarted(self):
        """A soft restart: with --persist-tun nobody sees a thing, else the device is made anew."""
        index = self.topology.near.ifindex(self.device)
        self.processes["near"].send_signal(signal.SIGUSR1)
        if not self.persist:
            wait_until(lambda: self.topology.near.ifindex(self.device) != index,
                       f"{self.device} goes")
        yield


class OpenVpnPersist(OpenVpn):
    name = "openvpn-persist"
    persist = True
    events = {**INTERFACE_EVENTS, "killed": True, "restarted": False}


class PlainTun(DaemonVpn):
    """A TUN device that a script of ours serves: of an unknown make."""

    name = "tun"
    device = "ptun0"
    underlay = f"device:{device}"
    near, far, other = "10.7.5.1", "10.7.5.2", "10.7.5.12"
    mtu = 1400
    port = 5555
    events = {**INTERFACE_EVENTS, "killed": True}

    def make(self, site):
        ns, peer = self.site(site), "far" if site == "near" else "near"
        self.spawn(site, sys.executable, PUMP, self.device, PHYSICAL[site], PHYSICAL[peer],
                   self.port)
        wait_until(lambda: ns.link(self.device), f"{self.device} is there", 30)
        ns.ip("link", "set", self.device, "mtu", self.mtu)
        self.give_addresses(site)
        ns.ip("link", "set", self.device, "up")


class PlainTun6(PlainTun):
    """The tunnels' packets are IPv6."""

    name = "tun6"
    near, far, other = "fd05::1", "fd05::2", "fd05::12"
    network = 64
