# SPDX-License-Identifier: MIT
"""Just enough netfilter netlink for test_kernel_facts.py: rules that nft(8) cannot write, set elements one by one, and a packet queue."""

import contextlib
import errno
import os
import socket
import struct

NETLINK_NETFILTER = 12
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 1, 4, 0x200, 0x400, 0x800
NLMSG_ERROR, BATCH_BEGIN, BATCH_END = 2, 0x10, 0x11
NFTABLES, QUEUE = 10, 3
NEWRULE, NEWSETELEM = 6, 12
NFPROTO_INET = 1
NESTED = 0x8000
NF_DROP, NF_ACCEPT, NF_REPEAT = 0, 1, 4
NFQA_CFG_F_GSO = 4
NFQNL_PACKET, NFQNL_VERDICT, NFQNL_CONFIG = 0, 1, 2
WAIT_SECONDS = 20


def attribute(kind, data):
    if isinstance(data, str):
        data = data.encode() + b"\0"
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def nested(kind, *parts):
    return attribute(kind | NESTED, b"".join(parts))


def message(kind, flags, sequence, family, resource, body=b""):
    header = struct.pack("=BB", family, 0) + struct.pack("!H", resource)
    return struct.pack("=IHHII", 20 + len(body), kind, flags | NLM_F_REQUEST, sequence, 0) + header + body


def attributes(data):
    found = {}
    while len(data) >= 4:
        size, kind = struct.unpack_from("=HH", data)
        found[kind & 0x3FFF] = data[4:size]
        data = data[(size + 3) & ~3:]
    return found


def element_body(table, set_name, key, end=None):
    """Of NEWSETELEM, with one element; with @end an interval."""
    elements = [nested(1, nested(1, attribute(1, key)))]
    if end is not None:
        elements.append(nested(1, nested(1, attribute(1, end)), attribute(3, struct.pack("!I", 1))))
    return attribute(1, table) + attribute(2, set_name) + nested(3, *elements)


class Netfilter:
    """A netfilter netlink socket of a namespace."""

    def __init__(self, namespace):
        self.socket = namespace.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
        self.socket.bind((0, 0))
        self.socket.settimeout(WAIT_SECONDS)
        self.sequence = 1

    def transaction(self, kind, body, flags=NLM_F_CREATE):
        """One nf_tables message as a transaction. Raises OSError as the kernel said."""
        self.send_batch((kind, flags | NLM_F_ACK, body))
        self.acknowledged()

    def send_batch(self, *messages):
        """nf_tables messages, (kind, flags, body), as one transaction. Return: the sequence number of the first of them."""
        first = self.sequence + 1
        batch = message(BATCH_BEGIN, 0, first, 0, NFTABLES)
        for kind, flags, body in messages:
            self.sequence += 1
            batch += message(NFTABLES << 8 | kind, flags, self.sequence, NFPROTO_INET, 0, body)
        self.socket.send(batch + message(BATCH_END, 0, self.sequence, 0, NFTABLES))
        return first

    def said(self):
        """What waits in the socket about earlier messages, each (sequence, errno), in the order of reading."""
        found = []
        self.socket.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                reply = self.socket.recv(65536)
                found.append((struct.unpack_from("=I", reply, 8)[0], -struct.unpack_from("=i", reply, 16)[0]))
        self.socket.settimeout(WAIT_SECONDS)
        return found

    def acknowledged(self):
        reply = self.socket.recv(65536)
        if struct.unpack_from("=H", reply, 4)[0] == NLMSG_ERROR and (code := -struct.unpack_from("=i", reply, 16)[0]):
            raise OSError(code, os.strerror(code))

    def add_rule(self, table, chain, name, data):
        """A rule of one expression."""
        expression = nested(1, attribute(1, name), nested(2, *data))
        self.transaction(NEWRULE, attribute(1, table) + attribute(2, chain) + nested(4, expression), NLM_F_CREATE | NLM_F_APPEND)

    def add_queue_rule(self, table, chain, number):
        """Send to a queue, as this kernel can. Return: "native" or "target"."""
        try:
            self.add_rule(table, chain, "queue", [attribute(1, struct.pack("!H", number)), attribute(2, struct.pack("!H", 1))])
            return "native"
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
        info = struct.pack("=HHHxx", number, 1, 0)
        self.add_rule(table, chain, "target", [attribute(1, "NFQUEUE"), attribute(2, struct.pack("!I", 3)), attribute(3, info)])
        return "target"

    def add_element(self, table, set_name, key, end=None):
        """One element, acknowledged; with @end an interval."""
        self.transaction(NEWSETELEM, element_body(table, set_name, key, end))

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class PacketQueue(Netfilter):
    """Userland of one packet queue. `flags`: NFQA_CFG_F_GSO, that packets which the kernel carries as one come as one."""

    def __init__(self, namespace, number, copy=256, flags=0):
        super().__init__(namespace)
        self.number = number
        self.configure(attribute(1, struct.pack("!BBH", 1, 0, 0)))  # bind
        self.configure(attribute(2, struct.pack("!IB", copy, 2)))  # copy this much of each packet
        if flags:
            self.configure(attribute(4, struct.pack("!I", flags)) + attribute(5, struct.pack("!I", flags)))

    def configure(self, body):
        self.sequence += 1
        self.socket.send(message(QUEUE << 8 | NFQNL_CONFIG, NLM_F_ACK, self.sequence, 0, self.number, body))
        self.acknowledged()

    def packet(self, seconds):
        """The next packet's id, or None."""
        found = self.receive(seconds)
        return found and found[0]

    def receive(self, seconds):
        """The next packet's id and content, or None."""
        self.socket.settimeout(seconds)
        try:
            data = self.socket.recv(1 << 17)
        except TimeoutError:
            return None
        assert struct.unpack_from("=H", data, 4)[0] == QUEUE << 8 | NFQNL_PACKET
        found = attributes(data[20:])
        return struct.unpack_from("!I", found[1])[0], found[10]

    def verdict(self, ident, verdict, mark=0):
        self.sequence += 1
        body = attribute(2, struct.pack("!II", verdict, ident)) + (attribute(3, struct.pack("!I", mark)) if mark else b"")
        self.socket.send(message(QUEUE << 8 | NFQNL_VERDICT, 0, self.sequence, 0, self.number, body))
