#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A NetworkManager that has profiles and active connections, and does nothing with them. Run as a
program it is that; imported it is the tests' hold on it."""

import json
import subprocess
import sys
import uuid

import dbus
import dbus.bus
import dbus.lowlevel
import dbus.mainloop.glib
from gi.repository import GLib

NM = "org.freedesktop.NetworkManager"
NM_PATH = "/org/freedesktop/NetworkManager"
SETTINGS, SETTINGS_PATH = f"{NM}.Settings", f"{NM_PATH}/Settings"
CONNECTION, ACTIVE = f"{SETTINGS}.Connection", f"{NM}.Connection.Active"
PROPERTIES = "org.freedesktop.DBus.Properties"
MOCK = "org.ethercord1.MockNM"
ACTIVATED, DEACTIVATED = 2, 4
USER, SERVICE_STOPPED = 2, 4    # reasons
METHOD_CALL = 1


def identity(name):
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))


class Refused(Exception):
    pass


class Program:
    """state: profiles {path: {id, uuid, service, data}}, actives {path: {...}}, manager {...},
    refuse {uuid: [error, ...]}, calls [[path, member, args...]]."""

    def __init__(self, address):
        self.connection = dbus.bus.BusConnection(address,
                                                 mainloop=dbus.mainloop.glib.DBusGMainLoop())
        self.state = {"profiles": {}, "actives": {}, "refuse": {}, "calls": [],
                      "manager": {"Startup": False, "PrimaryConnection": "/"}}
        self.connection.add_message_filter(self.on_message)
        self.connection.request_name(MOCK)

    def on_message(self, connection, message):
        if message.get_type() != METHOD_CALL:
            return dbus.lowlevel.HANDLER_RESULT_NOT_YET_HANDLED
        try:
            signature, values = self.answer(message, *message.get_args_list())
            reply = dbus.lowlevel.MethodReturnMessage(message)
            if signature:
                reply.append(*values, signature=signature)
        except Refused as e:
            reply = dbus.lowlevel.ErrorMessage(message, str(e), "refused by the mock")
        connection.send_message(reply)
        return dbus.lowlevel.HANDLER_RESULT_HANDLED

    def answer(self, message, *args):
        path, member, s = message.get_path(), message.get_member(), self.state
        if message.get_interface() == MOCK:
            return getattr(self, member)(*args)
        s["calls"].append([path, member, *map(str, args)])
        if member == "ListConnections":
            return "ao", [list(s["profiles"])]
        if member == "GetSettings" and path in s["profiles"]:
            return "a{sa{sv}}", [self.settings(**s["profiles"][path])]
        if member == "GetConnectionByUuid":
            for known, profile in s["profiles"].items():
                if profile["uuid"] == args[0]:
                    return "o", [known]
        if member == "Get" and args[1] == "ActiveConnections":
            return "v", [dbus.Array(s["actives"], "o", variant_level=1)]
        if member == "GetAll" and path in s["actives"]:
            a = s["actives"][path]
            return "a{sv}", [dict(a, State=dbus.UInt32(a["State"]))]
        if member == "GetAll" and path == NM_PATH:
            return "a{sv}", [dict(s["manager"], PrimaryConnection=dbus.ObjectPath(
                s["manager"]["PrimaryConnection"]), ActiveConnections=dbus.Array(s["actives"], "o"))]
        if member == "ActivateConnection":
            return "o", [self.activate(s["profiles"][args[0]]["uuid"])]
        raise Refused("org.freedesktop.DBus.Error.UnknownMethod")

    @staticmethod
    def settings(**profile):
        vpn = {"service-type": profile["service"],
               "data": dbus.Dictionary(profile["data"], "ss")}
        return {"connection": dbus.Dictionary({"id": profile["id"], "uuid": profile["uuid"],
                                               "type": "vpn"}, "sv"),
                "vpn": dbus.Dictionary(vpn, "sv"),
                "ipv4": dbus.Dictionary({"method": "auto"}, "sv")}

    def activate(self, which):
        errors = self.state["refuse"].get(which)
        if errors:
            raise Refused(errors.pop(0))
        return f"{NM_PATH}/ActiveConnection/99"

    # The tests' methods

    def Own(self, yes):
        if yes:
            self.connection.request_name(NM)
        else:
            self.connection.release_name(NM)
        return "", ()

    def Put(self, part, key, text):
        if text:
            self.state[part][key] = json.loads(text)
        else:
            self.state[part].pop(key, None)
        return "", ()

    def Emit(self, path, interface, member, signature, text):
        signal = dbus.lowlevel.SignalMessage(path, interface, member)
        signal.append(*json.loads(text), signature=signature)
        self.connection.send_message(signal)
        return "", ()

    def Calls(self):
        calls, self.state["calls"] = self.state["calls"], []
        return "s", [json.dumps(calls)]


class NetworkManager:
    """The hold on the program, over a bus of the tests'."""

    def __init__(self, lab, bus, own=True):
        self.bus, self.serial = bus, 0
        self.process = lab.popen(sys.executable, __file__, bus.address, stdout=subprocess.DEVNULL)
        from ethercord import wait_until
        wait_until(lambda: bus.has(MOCK), "the mock of NetworkManager runs", 30)
        if own:
            self.own()

    def call(self, member, signature="", *values):
        return self.bus.client.connection.call_blocking(MOCK, "/", MOCK, member, signature, values)

    def ping(self):
        """What was asked before is answered."""
        self.bus.client.connection.call_blocking(MOCK, "/", "org.freedesktop.DBus.Peer", "Ping",
                                                 "", ())

    def own(self, yes=True):
        self.call("Own", "b", yes)

    def put(self, part, key, value):
        self.call("Put", "sss", part, key, "" if value is None else json.dumps(value))

    def emit(self, path, interface, member, signature, *values):
        self.call("Emit", "sssss", path, interface, member, signature, json.dumps(values))

    def next(self, kind):
        self.serial += 1
        return f"{NM_PATH}/{kind}/{self.serial}"

    def profile(self, name, up_with=None, service=f"{NM}.ethercord", path=None, tell=True):
        """Adds or changes one; its path."""
        data = {"remote": "10.8.0.1", **({"up-with": up_with} if up_with is not None else {})}
        where = path or self.next("Settings")
        self.put("profiles", where, {"id": name, "uuid": identity(name), "service": service,
                                     "data": data})
        if tell and path:
            self.emit(where, CONNECTION, "Updated", "")
        elif tell:
            self.emit(SETTINGS_PATH, SETTINGS, "NewConnection", "o", where)
        return where

    def remove(self, path):
        self.put("profiles", path, None)
        self.emit(SETTINGS_PATH, SETTINGS, "ConnectionRemoved", "o", path)

    def active(self, name, state=ACTIVATED, type="vpn", path=None, tell=True, reason=0):
        """An active connection, or another state of it; its path."""
        where = path or self.next("ActiveConnection")
        self.put("actives", where, {"Id": name, "Uuid": identity(name), "Type": type,
                                    "Vpn": type == "vpn", "State": state} if state < 4 else None)
        if tell:
            self.emit(where, ACTIVE, "StateChanged", "uu", state, reason)
        return where

    def manager(self, **properties):
        for name, value in properties.items():
            self.put("manager", name, value)
        self.emit(NM_PATH, PROPERTIES, "PropertiesChanged", "sa{sv}as", NM,
                  {k: v for k, v in properties.items() if k == "Startup"}, [])

    def refuse(self, name, *errors):
        self.put("refuse", identity(name), [f"{NM}.{e}" for e in errors])

    def calls(self, *members):
        """Taken off the record; of these members, or all."""
        calls = json.loads(self.call("Calls"))
        return [c for c in calls if not members or c[1] in members]


if __name__ == "__main__":
    program = Program(sys.argv[1])
    GLib.MainLoop().run()
