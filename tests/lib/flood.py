#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Datagrams that nobody wants, as fast as they leave: what a sender of the tunnel's format could
have meant, cut short, with another key, or nothing at all.

    flood.py FORMAT SOURCE:PORT DESTINATION:PORT NUMBER

SOURCE may be anybody's."""

import os
import random
import socket
import struct
import sys

HEADERS = {"vxlan": struct.pack("!II", 0x08000000, 7 << 8),
           "gretap-fou": struct.pack("!HHI", 0x2000, 0x6558, 7), "raw-udp": b"", "tun-udp": b""}
WRONG = {"vxlan": struct.pack("!II", 0x08000000, 8 << 8),
         "gretap-fou": struct.pack("!HHI", 0x2000, 0x6558, 8)}


def payloads(kind, number=512):
    """None of them is a frame that the tunnel would carry."""
    rand = random.Random(4711)
    header, made = HEADERS[kind], [b""]
    wrong = WRONG.get(kind)
    for _ in range(number):
        made.append(header[:rand.randrange(len(header) + 1)])
        made.append(header + os.urandom(rand.randrange(14)))    # less than an Ethernet header
        if wrong:
            made.append(wrong + b"\xff" * 6 + os.urandom(rand.randrange(8, 1000)))
            # Flags that are not spoken, and a version of something else.
            made.append(bytes([rand.choice([0x40, 0x80, 0xC0, 0x07])]) + header[1:] +
                        os.urandom(60))
        if kind == "tun-udp":
            made.append(bytes([rand.choice([0x00, 0x10, 0x55, 0x70, 0xFF])]) + os.urandom(60))
    return made


def main(kind, source, destination, number):
    source, sport = source.rsplit(":", 1)
    address, port = destination.rsplit(":", 1)
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    packets = []
    for payload in payloads(kind):
        udp = struct.pack("!HHHH", int(sport), int(port), 8 + len(payload), 0) + payload
        packets.append(struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, 17, 0,
                                   socket.inet_aton(source), socket.inet_aton(address)) + udp)
    sent = 0
    while sent < number:
        for packet in packets[:number - sent]:
            try:
                s.sendto(packet, (address, 0))
            except BlockingIOError:
                pass
            sent += 1


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
