# SPDX-License-Identifier: MIT
"""An app container, as the gateway sees one: a namespace whose only way out is the gateway, and the things that apps do."""

import socket
import struct

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from namespaces import Namespace, patience, wait_until

RESOLVER = "192.0.2.53"  # as in the recipes: any address does, port 53 is brought to the gateway


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class NoAnswer(Exception):
    """No DNS answer came in time."""


class Host(Namespace):
    """A host that asks names and opens flows."""

    resolver = RESOLVER  # whom it asks

    # --- DNS ---

    def exchange(self, wire, server=None, tcp=False, seconds=5):
        """Send a DNS message as bytes. Return: the bytes of the answer. Raises NoAnswer."""
        server = server or self.resolver
        kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
        with self.socket(family_of(server), kind) as sock:
            sock.settimeout(patience(seconds))
            try:
                sock.connect((server, 53))
                if not tcp:
                    sock.send(wire)
                    return sock.recv(65535)
                sock.sendall(struct.pack("!H", len(wire)) + wire)
                return read_tcp_message(sock)
            except (TimeoutError, ConnectionError) as error:
                raise NoAnswer(f"{self.short} got no answer from {server}: {error!r}") from error

    def ask(self, name, kind="A", server=None, tcp=False, seconds=5, edns=True, **options):
        """Ask a question. Return: the answer as dns.message.Message; a truncated one is returned as it is."""
        query = dns.message.make_query(name, kind, use_edns=0 if edns else -1, payload=1232 if edns else None, **options)
        wire = self.exchange(query.to_wire(), server, tcp, seconds)
        answer = dns.message.from_wire(wire, raise_on_truncation=False)
        assert answer.id == query.id, "the answer has another id than the question"
        return answer

    def resolve(self, name, kind="A", **options):
        """The addresses (or other data) that an app gets for a name, as texts; [] when there are none."""
        answer = self.ask(name, kind, **options)
        return data_of(answer, kind)

    def resolve_many(self, names, kind="A", window=64, seconds=20, on_answer=None):
        """Ask for many names with up to `window` questions in flight, through one socket. Return: {name: Message}."""
        answers, waiting, names = {}, {}, list(names)
        with self.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            sock.connect((self.resolver, 53))
            sock.settimeout(patience(seconds))
            ident = 0
            while names or waiting:
                while names and len(waiting) < window:
                    name, ident = names.pop(), (ident + 1) % 65536
                    query = dns.message.make_query(name, kind, use_edns=0)
                    query.id = ident
                    waiting[ident] = name
                    sock.send(query.to_wire())
                try:
                    answer = dns.message.from_wire(sock.recv(65535))
                except TimeoutError as error:
                    raise NoAnswer(f"{len(waiting)} questions without answer, for example {next(iter(waiting.values()))}") from error
                name = waiting.pop(answer.id, None)
                if name is not None:
                    answers[name] = answer
                    if on_answer:
                        on_answer(name, answer)
        return answers

    # --- flows ---

    def connect(self, address, port, seconds=5):
        """Open a TCP connection. Raises ConnectionRefusedError, TimeoutError, OSError as connect() does."""
        sock = self.socket(family_of(address))
        try:
            sock.settimeout(patience(seconds))
            sock.connect((address, port))
        except OSError:
            sock.close()
            raise
        return sock

    def hello(self, address, port=443, seconds=5):
        """Connect, and let the server say who it sees. Return: its line."""
        with self.connect(address, port, seconds) as sock:
            return talk(sock, "hello")

    def tcp_result(self, address, port=443, seconds=5):
        """What becomes of a TCP connection: "open", "refused", "timeout", or another error's text."""
        try:
            self.connect(address, port, seconds).close()
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "timeout"
        except OSError as error:
            return error.strerror
        return "open"

    def udp(self, address, port):
        """A connected UDP socket."""
        sock = self.socket(family_of(address), socket.SOCK_DGRAM)
        sock.connect((address, port))
        return sock

    def udp_result(self, address, port=443, seconds=2, payload=b"ping"):
        """What becomes of a datagram: "open" when it is echoed, "rejected" after an ICMP error or without a route, or "timeout"."""
        try:
            with self.udp(address, port) as sock:
                sock.settimeout(patience(seconds))
                sock.send(payload)
                return "open" if sock.recv(2048) == payload else "garbled"
        except TimeoutError:
            return "timeout"
        except OSError:
            return "rejected"


class App(Host):
    """One app: `ipv4`, `ipv6` (None when its network has none), on network `network`."""

    def __init__(self, prefix, short, network, ipv4, ipv6):
        super().__init__(prefix, short)
        self.network, self.ipv4, self.ipv6 = network, ipv4, ipv6


def read_tcp_message(sock):
    """One DNS message from a TCP stream."""
    size = struct.unpack("!H", read_exactly(sock, 2))[0]
    return read_exactly(sock, size)


def read_exactly(sock, size):
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise ConnectionError("the server closed the connection")
        data += piece
    return data


def send_anyway(sock, address):
    """sendto() reports the error of an earlier datagram instead of sending; then it is called again."""
    for _ in range(3):
        try:
            sock.sendto(b"denied", address)
            return
        except OSError:
            continue
    raise AssertionError("sendto() fails again and again")


def talk(sock, line):
    """Send a line to a plain server. Return: the line it answers."""
    sock.sendall(line.encode() + b"\n")
    answer = b""
    while not answer.endswith(b"\n"):
        piece = sock.recv(65536)
        if not piece:
            raise ConnectionError(f"the server closed the connection after {answer!r}")
        answer += piece
    return answer.decode().rstrip("\n")


def is_broken(flow):
    """Has a flow come to an end? What is sent first makes the gateway say so."""
    try:
        return talk(flow, "still") != "still"
    except OSError:
        return True


def wait_until_broken(flow):
    """A reload ends flows right after it, not before it returns."""
    flow.settimeout(patience(5))
    wait_until(lambda: is_broken(flow), "the flow goes on")


def data_of(answer, kind):
    """The data of all records of a type in the answer section, as texts."""
    kind = dns.rdatatype.from_text(kind)
    return [rdata.to_text() for rrset in answer.answer if rrset.rdtype == kind for rdata in rrset]


def rcode_of(answer):
    return dns.rcode.to_text(answer.rcode())


def extended_errors(answer):
    """The info-codes of all extended DNS errors (RFC 8914) in an answer."""
    codes = []
    for option in answer.options:
        if option.otype == 15:
            codes.append(struct.unpack_from("!H", option.to_wire())[0])
    return codes
