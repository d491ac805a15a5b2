# SPDX-License-Identifier: GPL-2.0-or-later
"""What NetworkManager holds of a VPN connection."""

import configparser
import re


def items(bed, name):
    """vpn.data as a dictionary; nmcli puts a comma between items."""
    text = bed.ctl("-e", "no", "-g", "vpn.data", "connection", "show", name).stdout.strip()
    found = re.split(r"(?<!\\), ", text) if text else []
    return {k: re.sub(r"\\(.)", r"\1", v) for k, v in (i.split(" = ", 1) for i in found)}


def secrets(bed, name):
    """vpn.secrets of a connection's id or UUID, from its file: `nmcli -s`, asked as soon as the
    connection is there, now and then does not tell them."""
    for file in (bed.directory / "etc/system-connections").glob("*.nmconnection"):
        profile = configparser.ConfigParser(interpolation=None, delimiters="=")
        profile.read(file)
        if name in (profile["connection"]["id"], profile["connection"]["uuid"]):
            return dict(profile["vpn-secrets"]) if "vpn-secrets" in profile else {}
    raise AssertionError(f"there is no file of {name}")
