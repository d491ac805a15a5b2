# SPDX-License-Identifier: GPL-2.0-or-later
"""strongSwan: IPsec by policies, started or trapped, and through an XFRM interface."""

import re
import signal

from ethercord import run, wait_until
from vpn import INTERFACE_EVENTS, PHYSICAL, InterfaceVpn, Processes, Vpn, sysctl

CONF = """charon {{
    load_modular = no
    load = random nonce aes sha1 sha2 hmac kdf gmp x509 pem openssl kernel-netlink \
socket-default updown vici
    install_routes = {routes}
    retransmit_tries = 3
    retransmit_timeout = 2.0
    plugins {{
        vici {{
            socket = unix://{directory}/{site}.vici
        }}
    }}
    filelog {{
        f {{
            path = {directory}/{site}.log
            default = 1
        }}
    }}
}}
swanctl {{
    load = pem pkcs1 x509 random
}}
"""
CONNECTION = """connections {{
    ul {{
        version = 2
        local_addrs = {local}
        remote_addrs = {remote}
        {if_id}
        local {{
            auth = psk
            id = {site}
        }}
        remote {{
            auth = psk
            id = {peer}
        }}
        children {{
            net {{
                local_ts = {net}/24
                remote_ts = {peer_net}/24
                start_action = {action}
                esp_proposals = aes128gcm16
                rekey_time = 1h
            }}
        }}
    }}
}}
secrets {{
    ike-1 {{
        secret = "0123456789abcdefghij"
    }}
}}
"""


class StrongSwan(Processes, Vpn):
    """Policies without an interface; `action` is what charon does with them when it starts."""

    name, underlay, layer = "ipsec-start", "ipsec", "xfrm"
    title = "IPsec"
    near, far, other = "10.50.1.1", "10.50.2.1", "10.50.2.12"
    mtu = 1446
    action, if_id = "start", 0
    rekeyings = ("child", "ike")
    # killed: the SAs outlive charon. A route to the peer does not go past a policy.
    events = {"stopped": True, "killed": False, "specific route": False, "address on lo": False,
              "terminated": True, "policies flushed": True, "rules flushed": True}

    def up(self):
        for ns in self.topology.sites().values():
            # A question to a charon that is not there yet is put again soon.
            sysctl(ns, core__xfrm_acq_expires=3)
        for site, addresses in (("far", (self.far, self.other)), ("near", (self.near,))):
            self.addresses(site, addresses)
        for site in ("far", "near"):
            self.make(site)
        return self

    def addresses(self, site, addresses):
        """Those inside are of the site's own network."""
        self.site(site).ips("link add lan0 type bridge\nlink set lan0 up\n" +
                            "".join(f"addr add {a}/24 dev lan0\n" for a in addresses))

    def configure(self, site):
        peer = "far" if site == "near" else "near"
        net = {"near": self.near, "far": self.far}
        if_id = f"if_id_in = {self.if_id}\n        if_id_out = {self.if_id}" if self.if_id else ""
        (self.directory / f"{site}.conf").write_text(CONF.format(
            routes="no" if self.if_id else "yes", directory=self.directory, site=site))
        (self.directory / f"{site}.swanctl").write_text(CONNECTION.format(
            local=PHYSICAL[site], remote=PHYSICAL[peer], if_id=if_id, site=site, peer=peer,
            net=net[site].rsplit(".", 1)[0] + ".0", peer_net=net[peer].rsplit(".", 1)[0] + ".0",
            action=self.action if site == "near" else "none"))

    def make(self, site):
        self.configure(site)
        (self.directory / f"{site}.vici").unlink(missing_ok=True)
        self.spawn(site, "unshare", "-m", "sh", "-c",
                   "mount -t tmpfs run /run && exec env STRONGSWAN_CONF=\"$0\" "
                   "/usr/lib/ipsec/charon", self.directory / f"{site}.conf")
        wait_until(lambda: self.swanctl(site, "--load-all", "--file",
                                        self.directory / f"{site}.swanctl",
                                        check=False).returncode == 0,
                   f"charon takes its configuration: {self.output(site)[-2000:]}", 40, 0.1)

    def swanctl(self, site, *words, check=True):
        return run("env", f"STRONGSWAN_CONF={self.directory}/{site}.conf", "swanctl", *words,
                   "--uri", f"unix://{self.directory}/{site}.vici", check=check)

    def initiate(self):
        """Until it is up; nothing if it is."""
        def done():
            if "INSTALLED" in self.swanctl("near", "--list-sas", check=False).stdout:
                return True
            self.swanctl("near", "--initiate", "--child", "net", "--timeout", 5, check=False)
            return False
        wait_until(done, "the SA is up", 40, 0.1)

    # Events

    def stopped(self):
        self.end("near")
        yield
        self.make("near")

    def killed(self):
        self.end("near", signal.SIGKILL)
        orphans = self.spis()
        yield
        self.make("near")
        self.initiate()
        # Or a trap would go on using them, though the far site has none to go with them.
        for source, destination, spi in orphans:
            self.topology.near.ip("xfrm", "state", "delete", "src", source, "dst", destination,
                                  "proto", "esp", "spi", spi, check=False)

    def terminated(self):
        self.swanctl("near", "--terminate", "--child", "net")
        yield
        if self.action == "start":
            self.initiate()

    def policies_flushed(self):
        near = self.topology.near
        near.ip("xfrm", "policy", "flush")
        near.ip("xfrm", "state", "flush")
        yield
        self.end("near")
        self.make("near")

    def address_on_lo(self):
        near = self.topology.near
        near.ips(f"addr add {self.near}/32 dev lo\naddr del {self.near}/24 dev lan0\n")
        yield
        near.ips(f"addr add {self.near}/24 dev lan0\naddr del {self.near}/32 dev lo\n")

    def rules_flushed(self):
        self.topology.near.exec("nft", "flush", "ruleset")
        yield from self.stopped()

    # Rekeying

    def rekey(self, what):
        """what: child or ike. Waits until the new one is there."""
        reading = self.spis if what == "child" else self.ike_ids
        before = reading()
        self.swanctl("near", "--rekey", f"--{what}", "net" if what == "child" else "ul")
        wait_until(lambda: reading() and not reading() & before, f"the new {what} SA is alone", 30,
                   0.1)

    def ike_ids(self):
        return set(re.findall(r"^ul: #(\d+)", self.sas(), re.MULTILINE))

    def sas(self):
        return self.swanctl("near", "--list-sas").stdout

    def spis(self):
        """(source, destination, number) of each SA in the kernel."""
        shown = self.topology.near.ip("xfrm", "state").stdout
        return set(re.findall(r"^src (\S+) dst (\S+)\n\s+proto esp spi (\S+)", shown,
                              re.MULTILINE))


class StrongSwanTrap(StrongSwan):
    """A packet of the policy's brings the SA up."""

    name = "ipsec-trap"
    action = "trap"
    events = {**StrongSwan.events, "terminated": False}


class XfrmInterface(StrongSwan, InterfaceVpn):
    """Policies that take what goes through ipsec0 only."""

    name, underlay, layer = "xfrm-interface", "ipsec", "route"
    device = "ipsec0"
    title = "IPsec on ipsec0"
    if_id = 42
    network = 32
    events = {"stopped": False, "killed": False, "terminated": False, "policies flushed": False,
              **{k: v for k, v in INTERFACE_EVENTS.items() if k != "stopped"}}

    def addresses(self, site, addresses):
        self.interface(site)

    def interface(self, site):
        ns = self.site(site)
        addresses = [self.near] if site == "near" else [self.far, self.other]
        ns.ips(f"link add {self.device} type xfrm dev net0 if_id {self.if_id}\n" +
               "".join(f"addr add {a}/32 dev {self.device}\n" for a in addresses) +
               f"link set {self.device} up\n")
        self.routes(site)

    def routes(self, site):
        local, peer = (self.near, self.far) if site == "near" else (self.far, self.near)
        self.site(site).ip("route", "replace", peer.rsplit(".", 1)[0] + ".0/24", "dev",
                           self.device, "src", local)

    def re_created(self):
        """The interface; charon and its SAs stay."""
        near = self.topology.near
        index = near.ifindex(self.device)
        near.ip("link", "del", self.device)
        near.ip("link", "add", "name", "foreign0", "index", index, "type", "veth", "peer", "name",
                "foreign0", "netns", self.topology.router.name)
        self.topology.router.ip("link", "set", "foreign0", "up")
        near.ip("link", "set", "foreign0", "arp", "off", "up")
        yield
        self.interface("near")
        near.ip("link", "del", "foreign0")

    def rules_flushed(self):
        self.topology.near.exec("nft", "flush", "ruleset")
        yield from self.link_down()

    address_on_lo = InterfaceVpn.address_on_lo
