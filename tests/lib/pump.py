#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The simplest of VPNs: a TUN device whose packets go through UDP, made unreadable.

    pump.py DEVICE LOCAL REMOTE PORT

It only has to hide what it carries from whoever counts readable packets; it keeps no secrets.
"""

import fcntl
import os
import select
import socket
import struct
import sys

TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x1001
SCRAMBLE = bytes(b ^ 0x5A for b in range(256))


def main(device, local, remote, port):
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH14x", device.encode(), IFF_TUN_NO_PI))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    udp.bind((local, port))
    udp.connect((remote, port))
    poll = select.poll()
    for fd in (tun, udp.fileno()):
        poll.register(fd, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            try:
                if fd == tun:
                    udp.send(os.read(tun, 65536).translate(SCRAMBLE))
                else:
                    os.write(tun, udp.recv(65536).translate(SCRAMBLE))
            except BlockingIOError:
                pass
            except OSError as e:
                # Down, or nobody there; deleted is for good.
                if e.errno == 77:  # EBADFD
                    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
