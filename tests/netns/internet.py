#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The Internet's name servers, for tests: one process that answers for every zone, from tables that tests change while it runs.

    internet.py --control SOCKET --listen ADDRESS[@NETNS] ...

Each question is recorded as it came in (bytes, transport, source), so that a test can say what left the gateway and what did not. What
127.0.0.11 is asked is kept apart: there we play Docker's own resolver. The control socket takes one JSON object per line and answers with one.
"""

import argparse
import asyncio
import ipaddress
import json
import os
import re
import socket
import ssl
import struct
import time

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from namespaces import setns

A, CNAME, SOA, AAAA, OPT, ANY = 1, 5, 6, 28, 41, 255
NOERROR, SERVFAIL, NXDOMAIN, REFUSED = 0, 2, 3, 5
RCODES = {"NOERROR": 0, "FORMERR": 1, "SERVFAIL": 2, "NXDOMAIN": 3, "NOTIMP": 4, "REFUSED": 5}
DOCKER = "127.0.0.11"
UDP_BATCH = 64
RECORDS_MAX = 200000

# nK.fresh.example has the K-th address of these, for any K: names nobody has asked for before.
FRESH = re.compile(rb".n(\d+)\x05fresh\x07example\0$")
FRESH4 = int(ipaddress.ip_address("45.20.0.0"))
FRESH6 = int(ipaddress.ip_address("2a0e:14::"))


def wire_name(text):
    return dns.name.from_text(text.lower()).to_wire()


def name_at(message, offset):
    """The (never compressed) name of a question. Return: its bytes as they are, and the offset behind it."""
    end = offset
    while message[end]:
        if message[end] > 63:
            raise ValueError("compressed question")
        end += message[end] + 1
    return message[offset:end + 1], end + 1


class RecordSet:
    def __init__(self, kind, ttl, texts):
        self.kind = kind
        self.ttl = ttl
        self.rdata = [dns.rdata.from_text(dns.rdataclass.IN, kind, text, relativize=False, origin=dns.name.root).to_wire() for text in texts]


class Rotation:
    """A name whose answers walk through a pool of addresses: a window of `show` of them, which moves with every answer, or every `period`
    seconds. The TTL is one of `ttls`, in turn."""

    def __init__(self, first, count, show, ttls, period):
        self.first = ipaddress.ip_address(first)
        self.count, self.show, self.ttls, self.period = count, show, ttls, period
        self.answers = 0

    def next(self, now):
        """Return: TTL, addresses."""
        window = int(now / self.period) if self.period else self.answers
        ttl = self.ttls[self.answers % len(self.ttls)]
        self.answers += 1
        return ttl, [self.first + (window * self.show + i) % self.count for i in range(self.show)]


def record(owner, kind, ttl, rdata):
    return owner + struct.pack("!HHIH", kind, 1, ttl, len(rdata)) + rdata


class Internet:
    def __init__(self):
        self.sets = {}       # (name, type) -> RecordSet
        self.rotations = {}  # (name, type) -> Rotation
        self.handouts = []   # what rotations have answered: (time, name that was asked for, addresses, TTL)
        self.names = set()   # every name that exists, so that others are NXDOMAIN
        self.behaviours = {}  # name -> dict
        self.servers = {}    # address -> mode: up, drop, servfail, refused
        self.queries = []
        self.docker_queries = []  # to 127.0.0.11, which the gateway asks for container names
        self.dropped_records = 0
        self.tls = {}  # address -> TlsServer

    # --- tables ---

    def add(self, name, kind, texts, ttl):
        owner = wire_name(name)
        kind = dns.rdatatype.from_text(kind)
        self.sets[owner, kind] = RecordSet(kind, ttl, texts)
        self.add_name(owner)

    def rotate(self, name, kind, **how):
        owner = wire_name(name)
        self.rotations[owner, dns.rdatatype.from_text(kind)] = Rotation(**how)
        self.add_name(owner)

    def add_name(self, owner):
        while owner not in self.names:
            self.names.add(owner)
            if owner == b"\0":
                break
            owner = owner[owner[0] + 1:]

    def remove(self, name):
        """A container that is gone: its name does not exist any more."""
        owner = wire_name(name)
        self.names.discard(owner)
        self.sets = {key: value for key, value in self.sets.items() if key[0] != owner}

    def find(self, owner, kind, asked):
        found = self.sets.get((owner, kind))
        if found is not None:
            return [record(owner, kind, found.ttl, rdata) for rdata in found.rdata]
        rotation = self.rotations.get((owner, kind))
        if rotation is not None:
            return self.hand_out(owner, kind, asked, rotation)
        fresh = self.fresh(owner)
        if fresh is None or kind not in (A, AAAA):
            return []
        if kind == A:
            return [record(owner, A, 60, (FRESH4 + fresh).to_bytes(4, "big"))]
        return [record(owner, AAAA, 60, (FRESH6 + fresh).to_bytes(16, "big"))]

    def hand_out(self, owner, kind, asked, rotation):
        now = time.monotonic()
        ttl, addresses = rotation.next(now)
        self.handouts.append((now, dns.name.from_wire(asked, 0)[0].to_text(omit_final_dot=True), [str(address) for address in addresses], ttl))
        return [record(owner, kind, ttl, address.packed) for address in addresses]

    @staticmethod
    def fresh(owner):
        match = FRESH.match(owner)
        return int(match.group(1)) if match else None

    def exists(self, owner):
        return owner in self.names or self.fresh(owner) is not None

    # --- answers ---

    def resolve(self, owner, kind, chase):
        """As a recursive resolver does: follow CNAMEs through our tables. Return: rcode, answer, authority."""
        answer, asked = [], owner
        for _ in range(12):
            records = self.find(owner, kind, asked)
            alias = self.sets.get((owner, CNAME))
            if records or alias is None or kind == CNAME:
                answer += records
                break
            answer.append(record(owner, CNAME, alias.ttl, alias.rdata[0]))
            owner = alias.rdata[0].lower()
            if not chase:
                return NOERROR, answer, []
        if answer and records:
            return NOERROR, answer, []
        soa = record(b"\0", SOA, 30, wire_name("ns.invalid") + wire_name("host.invalid") + struct.pack("!IIIII", 1, 3600, 600, 86400, 30))
        return NOERROR if self.exists(owner) else NXDOMAIN, answer, [soa]

    def reply(self, server, message, transport):
        """Return: a list of (delay, other_port, bytes): normally one; none to stay silent."""
        ident, flags, questions, _, _, additional = struct.unpack_from("!HHHHHH", message)
        if flags & 0x8000 or questions != 1:
            return []
        try:
            raw, end = name_at(message, 12)
        except (ValueError, IndexError):
            return []
        owner = raw.lower()
        kind = struct.unpack_from("!H", message, end)[0]
        question = message[12:end + 4]
        edns = self.edns(message, end + 4, additional)
        how = self.behaviour(owner, kind, server, transport)
        mode = self.servers.get(server, "up")
        if mode == "drop" or how.get("drop"):
            return []
        header = (ident, flags, question, edns)
        if mode != "up" or "rcode" in how:
            rcode = RCODES[how.get("rcode", mode.upper())]
            return [(how.get("delay", 0), False, self.build(header, rcode, [], [], [], how))]
        if "answer" in how:
            rcode = RCODES[how.get("as_rcode", "NOERROR")]
            answer, authority = self.texts(how["answer"]), self.texts(how.get("authority", []))
        else:
            rcode, answer, authority = self.resolve(owner, kind, how.get("chase", True))
        extra = self.texts(how.get("additional", []))
        limit = 65535 if transport != "udp" else edns if edns else 512
        replies = []
        for forged in how.get("forged", []):
            replies.append(self.forged(forged, header))
        bytes_ = self.build(header, rcode, answer, authority, extra, how)
        if (len(bytes_) > limit or how.get("tc")) and transport == "udp":
            kept = answer if how.get("tc") == "with-records" else []
            bytes_ = self.build(header, rcode, kept, [], [], {**how, "truncated": True})
        replies.append((how.get("delay", 0), False, bytes_))
        return replies

    def forged(self, forged, header):
        """A reply that does not belong to the question: wrong id, port, question or letter case."""
        ident, flags, question, edns = header
        if "id" in forged["wrong"]:
            ident ^= 0x5555
        if "question" in forged["wrong"]:
            question = wire_name("other.example") + question[-4:]
        if "case" in forged["wrong"]:
            question = question[:-4].swapcase() + question[-4:]
        bytes_ = self.build((ident, flags, question, edns), NOERROR, self.texts(forged["answer"]), [], [], {})
        return 0, "port" in forged["wrong"], bytes_

    @staticmethod
    def texts(records):
        """[owner, type, ttl, rdata] as text -> wire. RDATA that no server would send: "hex:" and its octets."""
        wires = []
        for owner, kind, ttl, text in records:
            kind = dns.rdatatype.from_text(kind)
            if text.startswith("hex:"):
                wires.append(record(wire_name(owner), kind, ttl, bytes.fromhex(text[4:])))
                continue
            rdata = dns.rdata.from_text(dns.rdataclass.IN, kind, text, relativize=False, origin=dns.name.root).to_wire()
            wires.append(record(wire_name(owner), kind, ttl, rdata))
        return wires

    @staticmethod
    def edns(message, offset, additional):
        """The UDP size of the question's OPT, or 0. It is the first additional record of every question that we get."""
        if additional and len(message) >= offset + 11 and message[offset] == 0:
            kind, size = struct.unpack_from("!HH", message, offset + 1)
            if kind == OPT:
                return max(size, 512)
        return 0

    def behaviour(self, owner, kind, server, transport):
        how = self.behaviours.get(owner)
        if how is None or server not in how.get("servers", [server]) or transport not in how.get("transports", [transport]):
            return {}
        if "types" in how and kind not in how["types"]:
            return {}
        if "times" in how:
            if how["times"] == 0:
                return {}
            how["times"] -= 1
        return how

    @staticmethod
    def build(header, rcode, answer, authority, extra, how):
        ident, flags, question, edns = header
        response = 0x8080 | flags & 0x7910 | rcode | (0x0200 if how.get("truncated") else 0) | (0x0020 if how.get("ad") else 0)
        opt = [struct.pack("!BHHIH", 0, OPT, 1232, 0, 0)] if edns else []
        counts = struct.pack("!HHHHHH", ident, response, 1, len(answer), len(authority), len(extra) + len(opt))
        return counts + question + b"".join(answer + authority + extra + opt)

    # --- what came in ---

    def remember(self, server, transport, client, message):
        if server == DOCKER:
            self.docker_queries.append(message.hex())
        elif len(self.queries) < RECORDS_MAX:
            self.queries.append((time.monotonic(), server, transport, client[0], client[1], message))
        else:
            self.dropped_records += 1

    # --- control ---

    async def serve_tls(self, address, mode, cert, key, version):
        if address in self.tls:
            self.tls.pop(address).close()
        if mode != "off":
            server = TlsServer(self, address, mode, cert, key, version)
            await server.open()
            self.tls[address] = server

    async def control(self, request):
        op = request["op"]
        if op == "add":
            self.add(request["name"], request["type"], request["data"], request["ttl"])
        elif op == "rotate":
            self.rotate(request["name"], request["type"], **request["how"])
        elif op == "handouts":
            return {"handouts": self.handouts[request["since"]:]}
        elif op == "remove":
            self.remove(request["name"])
        elif op == "behave":
            self.behaviours[wire_name(request["name"])] = request["how"]
        elif op == "server":
            self.servers[request["address"]] = request["mode"]
        elif op == "reset":
            self.behaviours.clear()
            self.servers.clear()
        elif op == "tls":
            await self.serve_tls(request["address"], request["mode"], request["cert"], request["key"], request["version"])
        elif op == "tls_drop":
            self.tls[request["address"]].drop()
        elif op == "tls_connections":
            return {"connections": self.tls[request["address"]].connections}
        elif op == "count":
            return {"count": len(self.queries) + self.dropped_records}
        elif op == "queries":
            return {"queries": [(*query[:5], query[5].hex()) for query in self.queries[request["since"]:]]}
        elif op == "docker":
            return {"queries": self.docker_queries}
        else:
            return {"error": f"unknown op {op}"}
        return {"ok": True}


class TlsServer:
    """DNS over TLS on one address, port 853. A new one takes the old one's place, as when a server is restarted.

    Modes: "up"; "stall" takes connections and never says a word; "close" ends each connection as soon as it is asked something;
    "deaf" makes connections, and never answers.
    """

    def __init__(self, internet, address, mode, cert, key, version):
        self.internet, self.address, self.mode = internet, address, mode
        self.connections = []  # what clients were like: dicts
        self.writers = set()
        self.server = None
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(cert, key)
        self.context.set_alpn_protocols(["dot"])
        if version:
            self.context.maximum_version = self.context.minimum_version = getattr(ssl.TLSVersion, version)
            self.context.set_ciphers("DEFAULT:@SECLEVEL=0")  # TLS 1.1 is below OpenSSL's own bar
        self.names = {}  # of connections on their way, by SSL object
        self.context.sni_callback = lambda connection, name, _: self.names.__setitem__(connection, name)

    async def open(self):
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        listener = socket.create_server((self.address, 853), family=family, backlog=256)
        self.server = await asyncio.start_server(self.on_client, sock=listener, ssl=None if self.mode == "stall" else self.context)

    def close(self):
        if self.server:
            self.server.close()
        self.drop()

    def drop(self):
        for writer in list(self.writers):
            writer.transport.abort()

    async def on_client(self, reader, writer):
        self.writers.add(writer)
        connection = writer.get_extra_info("ssl_object")
        self.connections.append({"name": self.names.pop(connection, None), "alpn": connection and connection.selected_alpn_protocol(),
                                 "version": connection and connection.version(), "resumed": bool(connection and connection.session_reused),
                                 "questions": 0, "at_once": 0})
        try:
            await self.serve(reader, writer, self.connections[-1])
        except (asyncio.IncompleteReadError, ConnectionError, struct.error):
            pass
        finally:
            self.writers.discard(writer)
            writer.close()

    async def serve(self, reader, writer, seen):
        waiting = 0

        def answer(reply):
            nonlocal waiting
            waiting -= 1
            if not writer.is_closing():
                writer.write(struct.pack("!H", len(reply)) + reply)

        while True:
            if self.mode == "stall":
                while await reader.read(65536):
                    pass
                return
            size = struct.unpack("!H", await reader.readexactly(2))[0]
            message = await reader.readexactly(size)
            self.internet.remember(self.address, "tls", writer.get_extra_info("peername"), message)
            seen["questions"] += 1
            if self.mode == "close":
                return
            if self.mode == "deaf":
                continue
            for delay, _, reply in self.internet.reply(self.address, message, "tls"):
                waiting += 1
                seen["at_once"] = max(seen["at_once"], waiting)
                asyncio.get_running_loop().call_later(delay, answer, reply)


class Server:
    """Sockets of one address: UDP and TCP port 53."""

    def __init__(self, internet, loop, address):
        self.internet, self.loop, self.address = internet, loop, address
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.udp = socket.socket(family, socket.SOCK_DGRAM)
        self.udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.udp.bind((address, 53))
        self.udp.setblocking(False)
        self.other = socket.socket(family, socket.SOCK_DGRAM)
        self.other.bind((address, 0))
        self.tcp = socket.create_server((address, 53), family=family, backlog=256)

    async def open(self):
        self.loop.add_reader(self.udp.fileno(), self.on_udp)
        await asyncio.start_server(self.on_tcp, sock=self.tcp)

    def on_udp(self):
        for _ in range(UDP_BATCH):
            try:
                message, client = self.udp.recvfrom(65535)
            except (BlockingIOError, ConnectionError):
                return
            self.internet.remember(self.address, "udp", client, message)
            if len(message) < 12:
                continue
            for delay, other, reply in self.internet.reply(self.address, message, "udp"):
                if delay:
                    self.loop.call_later(delay, self.send, other, reply, client)
                else:
                    self.send(other, reply, client)

    def send(self, other, reply, client):
        try:
            (self.other if other else self.udp).sendto(reply, client)
        except OSError:
            pass  # the asker is gone; it asks again

    async def on_tcp(self, reader, writer):
        client = writer.get_extra_info("peername")
        try:
            while True:
                size = struct.unpack("!H", await reader.readexactly(2))[0]
                message = await reader.readexactly(size)
                self.internet.remember(self.address, "tcp", client, message)
                for delay, _, reply in self.internet.reply(self.address, message, "tcp"):
                    await asyncio.sleep(delay)
                    writer.write(struct.pack("!H", len(reply)) + reply)
        except (asyncio.IncompleteReadError, ConnectionError, struct.error):
            pass
        finally:
            writer.close()


async def on_control(internet, reader, writer):
    while line := await reader.readline():
        try:
            answer = await internet.control(json.loads(line))
        except Exception as error:  # pylint: disable=broad-except
            answer = {"error": repr(error)}  # the test that asked is told; the others' server goes on
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
    writer.close()


def open_server(internet, loop, listen):
    address, _, namespace = listen.partition("@")
    if not namespace:
        return Server(internet, loop, address)
    here, there = os.open("/proc/self/ns/net", os.O_RDONLY), os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    setns(there)
    try:
        return Server(internet, loop, address)
    finally:
        setns(here)
        os.close(there)
        os.close(here)


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--control", required=True)
    parser.add_argument("--listen", action="append", required=True, metavar="ADDRESS[@NETNS]")
    options = parser.parse_args()
    internet = Internet()
    loop = asyncio.get_running_loop()
    for listen in options.listen:
        await open_server(internet, loop, listen).open()
    await asyncio.start_unix_server(lambda reader, writer: on_control(internet, reader, writer), options.control, limit=1 << 22)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
