# SPDX-License-Identifier: GPL-2.0-or-later
"""One end is a daemon, the other one is the tests' own peer: on its best behaviour, until a test
tells otherwise."""

import contextlib
import itertools
import json
import threading

import dbus

import ethercord
import peer
from ethercord import FAR, NEAR, wait_until
from peer import Over, Session, Silence, choice, dial, welcome

SILENT = 5      # s after which a connection that says nothing is dropped
GRACE = 3       # s more, for machines that are busy
MTU = 1450      # of a VXLAN over the wire between the sites


def leaves(tree, at=""):
    """All that is in nested dictionaries and lists, each with its path."""
    if isinstance(tree, (dict, list)):
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return set().union(*(leaves(v, f"{at}/{k}") for k, v in pairs))
    return {f"{at}={tree}"}


class Cord:
    """What two ends agreed on, at the tests' end: an interface, probes, pongs."""

    serial = itertools.count(1)

    def __init__(self, owner, session, chosen, dialer):
        self.owner, self.lab, self.session, self.chosen = owner, owner.lab, session, chosen
        self.dialer = dialer
        self.name = f"cord{next(self.serial)}"
        self.interface = None           # the daemon's, once asked for
        self.prober = self.thread = None
        self.heard, self.ends = [], threading.Event()
        self.port = chosen["data-port"] if not dialer else owner.data_port
        # Over IPv4 there may be a proxy in between.
        ends = session.socket.getsockname()[0], session.socket.getpeername()[0]
        local, remote = ends if ":" in ends[0] else (FAR, NEAR)
        ethercord.far_vxlan(owner.far, self.name, chosen["id"], mtu=chosen["mtu"], port=self.port,
                            local=local, remote=remote)

    def attend(self):
        """Pings are answered; probes are sent and answered."""
        self.prober_of()
        self.read()
        return self

    def prober_of(self, asks=True, answers=True):
        self.prober = peer.Prober(self.owner.far, self.name, self.session, self.dialer,
                                  self.chosen["size"], asks, answers)
        return self.prober

    def read(self):
        self.ends.clear()
        self.session.set_timeout(0.2)
        self.thread = threading.Thread(target=self.read_all, daemon=True)
        self.thread.start()

    def read_all(self):
        while not self.ends.is_set():
            try:
                got = self.session.receive()
                self.heard.append(got)
                self.session.answer(got)
            except Silence:
                continue
            except Over as e:
                self.heard.append({"type": "over", "why": str(e)})
                return

    def stop_reading(self):
        self.ends.set()
        if self.thread:
            self.thread.join()
        return self

    def wait_heard(self, kind, timeout=10):
        return wait_until(lambda: next((m for m in self.heard if m["type"] == kind), None),
                          f"{kind} comes; so far: {self.heard}", timeout)

    def their_interface(self):
        return wait_until(self.owner.interface_of(self), "the daemon has an interface")

    def pings(self):
        """Frames cross both ways."""
        theirs = self.their_interface()
        for ends in ((self.owner.far, self.name, self.owner.near,
                      peer.ear(self.owner.near, theirs)),
                     (self.owner.near, theirs, self.owner.far, self.name)):
            self.lab.flow(*ends).start().stop(10)

    def flow(self):
        """Frames to the daemon's end, until stop()."""
        near = self.owner.near
        return self.lab.flow(self.owner.far, self.name, near,
                             peer.ear(near, self.their_interface())).start()

    def again(self):
        """The connection is lost; the same peer comes again and wants the same."""
        self.stop_reading()
        self.session.close()
        self.prober.close()
        self.session = self.owner.dial(self.session.identity)
        got = self.session.expect("welcome")
        assert (got.get("encapsulation"), got.get("id")) == ("vxlan", self.chosen["id"]), got
        self.session.send(**{k.replace("-", "_"): v for k, v in self.chosen.items()})
        self.session.expect("ready")
        return self.attend()

    def close(self):
        self.stop_reading()
        if self.prober:
            self.prober.close()
        self.session.close()
        self.owner.far.ip("link", "del", self.name, check=False)


class Site:
    """The near one has the daemon."""

    data_port = 4789

    def __init__(self, lab, **more):
        self.lab = lab
        self.sites = ethercord.Sites(lab, **more)
        self.near, self.far = self.sites.near, self.sites.far
        self.daemon, self.client = self.sites.daemon, self.sites.client
        self.before_links = set(self.near.links())
        self.before = self.held()

    def held(self):
        """What somebody could have had made here."""
        tables = json.loads(self.near.exec("nft", "-j", "list", "tables").stdout)["nftables"]
        with self.near.entered(), open("/proc/thread-self/net/packet", encoding="ascii") as f:
            sockets = len(f.readlines()) - 1
        rules = self.near.exec("nft", "-s", "list", "ruleset").stdout
        paths = sorted(p for p in self.client.objects() if "/underlay/" not in p)
        return {"kernel": self.near.dump(), "tables": len(tables), "rules": rules,
                "packet sockets": sockets, "objects": paths}

    def nothing_left(self, after=""):
        """All is as it was before there was any peer."""
        try:
            wait_until(lambda: self.held() == self.before, "")
        except AssertionError:
            wrong = sorted(leaves(self.held()) ^ leaves(self.before))
            raise AssertionError(f"left behind, or gone, {after}: {wrong}") from None

    def unmoved(self, *tunnels):
        """Nobody was let in: no tunnel but these."""
        assert self.daemon.process.poll() is None
        assert self.client.tunnels() == sorted(tunnels)
        if not tunnels:
            self.nothing_left()

    def gone(self, name, timeout=ethercord.PATIENCE):
        wait_until(lambda: name not in self.client.tunnels(), f"{name} goes", timeout)


class Office(Site):
    """A listener `lan` on a bridge, with the peers `office` and `home`."""

    def __init__(self, lab, peers=None, settings=None, guests=None, **more):
        """peers: settings of both; guests: those of peers without a key."""
        super().__init__(lab, **more)
        self.keys = {"office": peer.random_key(), "home": peer.random_key()}
        self.client.call(
            ethercord.PATH, ethercord.MANAGER, "AddListener", "a{sv}a{sa{sv}}s",
            dictionary({"name": "lan", "bridge": "br0", "bridge-create": True, "underlay": "any",
                        "encapsulation": dbus.Array(["vxlan"], "s"), **(settings or {})}),
            dbus.Dictionary({**{name: dictionary({"key": peer.text_of(key), **(peers or {})})
                                for name, key in self.keys.items()},
                             **{name: dictionary(own) for name, own in (guests or {}).items()}},
                            "sa{sv}"), "activate")
        path = f"{ethercord.PATH}/listener/lan"
        wait_until(lambda: self.client.objects()[path][f"{ethercord.NAME}.Listener"]["State"] ==
                   "up", "the listener is up")
        self.before = self.held()

    def dial(self, name, address=NEAR, port=peer.PORT, **more):
        return dial(self.far, address, name, self.keys[name], port=port, **more)

    @contextlib.contextmanager
    def comes(self, name, address=NEAR, port=peer.PORT, more=None, novel=False, attend=True,
              early=True, tunnel=None):
        """A good peer comes in, and goes in order. novel: it says what nobody knows, too."""
        with self.dial(name, address, port, early=early) as session:
            got = session.expect("welcome")
            members = {**choice(got), "name": name, "mac": mac_of(got["ids"][0]), **(more or {})}
            if novel:
                session.send(type="sing", song=members["brave"])
            session.send(**members)
            chosen = peer.parse(peer.body(**members))
            assert session.expect("ready")["round"] == 1
            cord = Cord(self, session, chosen, dialer=True)
            try:
                if attend:
                    cord.attend()
                yield cord
                cord.stop_reading()
                with contextlib.suppress(Over, Silence):
                    cord.session.send(type="bye", error="down", text="The test is over.")
                cord.session.close()
                self.gone(f"lan.{tunnel or name}")
            finally:
                cord.close()

    def interface_of(self, cord):
        def find():
            for tunnel in self.client.objects().values():
                shown = tunnel.get(ethercord.TUNNEL)
                if shown and shown["Id"] == cord.chosen["id"] and shown["Ifindex"] > 0:
                    cord.interface = shown["Interface"]
                    return cord.interface
            return None
        return find


def mac_of(number):
    return b"\x02\x00" + number.to_bytes(4, "big")


def dictionary(settings):
    return dbus.Dictionary(settings, "sv")


class Home(Site):
    """A tunnel `office` that dials the far site."""

    def __init__(self, lab, **more):
        settings = {k: more.pop(k) for k in list(more) if k == "mode"}
        super().__init__(lab, **more)
        self.keys = {"office": peer.random_key()}
        self.client.add("office", remote=FAR, control="ethercord", encapsulation=None,
                        key=peer.text_of(self.keys["office"]), **settings)

    @contextlib.contextmanager
    def listening(self):
        # What it tried before was refused: it is not to wait long.
        self.client.on("office", "Deactivate")
        s = peer.listening(self.far, FAR)
        try:
            self.client.on("office", "Activate")
            yield s
        finally:
            s.close()

    def accepted(self, listener, early=None):
        """A session with whoever is there: what was given up meanwhile is still in the queue."""
        while True:
            session = Session(listener.accept()[0], None, self.keys, server=True, early=early)
            try:
                return session.handshake()
            except Over:
                session.close()

    @contextlib.contextmanager
    def accepts(self, **how):
        """A good acceptor, for one connection."""
        with self.listening() as listener, self.cord(listener.accept()[0], **how) as cord:
            yield cord

    @contextlib.contextmanager
    def cord(self, connection, more=None, novel=False, early=False):
        """The acceptor of this connection; early: its greeting is in its handshake."""
        greeting = peer.message(**welcome(**(more or {})))
        if novel:
            greeting = peer.message(type="sing", song=more["brave"]) + greeting
        with Session(connection, None, self.keys, server=True,
                     early=greeting if early else None) as session:
            session.handshake()
            if not early:
                session.send_bytes(greeting)
            chosen = session.expect("choose")
            cord = Cord(self, session, chosen, dialer=False)
            try:
                session.send(type="ready", round=chosen["round"],
                             mac=bytes.fromhex("02005e770002"))
                yield cord.attend()
            finally:
                cord.close()

    def interface_of(self, cord):
        return lambda: self.client.get("office")["Interface"]
