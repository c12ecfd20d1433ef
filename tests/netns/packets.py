# SPDX-License-Identifier: MIT
"""Packets as bytes: to watch what really crosses a wire, and to send what no well-behaved kernel would."""

import collections
import contextlib
import ipaddress
import socket
import struct
import time

from namespaces import patience

SO_RCVBUFFORCE = 33
ETH_P_ALL = 3
TCP_FIN, TCP_SYN, TCP_RST, TCP_PSH, TCP_ACK, TCP_URG = 1, 2, 4, 8, 16, 32

# One packet that was seen. `payload` is what follows the TCP or UDP header, or the whole of any other protocol.
Packet = collections.namedtuple("Packet", "source destination protocol sport dport flags seq ack payload")


def parse_frame(frame):
    """Ethernet frame -> Packet, or None when it is neither IPv4 nor IPv6."""
    kind = struct.unpack_from("!H", frame, 12)[0]
    if kind == 0x0800:
        return parse_ip(frame[14:])
    if kind == 0x86DD:
        return parse_ip(frame[14:])
    return None


def parse_ip(packet):
    if packet[0] >> 4 == 4:
        start, protocol = (packet[0] & 15) * 4, packet[9]
        source, destination = socket.inet_ntop(socket.AF_INET, packet[12:16]), socket.inet_ntop(socket.AF_INET, packet[16:20])
        packet = packet[:struct.unpack_from("!H", packet, 2)[0]]
    else:
        start, protocol = 40, packet[6]
        source, destination = socket.inet_ntop(socket.AF_INET6, packet[8:24]), socket.inet_ntop(socket.AF_INET6, packet[24:40])
        packet = packet[:40 + struct.unpack_from("!H", packet, 4)[0]]
    body = packet[start:]
    if protocol == socket.IPPROTO_UDP and len(body) >= 8:
        sport, dport = struct.unpack_from("!HH", body)
        return Packet(source, destination, protocol, sport, dport, 0, 0, 0, body[8:])
    if protocol == socket.IPPROTO_TCP and len(body) >= 20:
        sport, dport, seq, ack, offset, flags = struct.unpack_from("!HHIIBB", body)
        return Packet(source, destination, protocol, sport, dport, flags, seq, ack, body[(offset >> 4) * 4:])
    return Packet(source, destination, protocol, 0, 0, 0, 0, 0, body)


class Sniffer:
    """Everything that one interface of a namespace receives and sends from now on. `frames`: keep whole frames as well, of any kind."""

    def __init__(self, namespace, interface, frames=False):
        self.socket = namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self.socket.bind((interface, ETH_P_ALL))
        self.socket.setblocking(False)
        self.seen = []
        self.frames = [] if frames else None

    def packets(self):
        """All packets so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, address = self.socket.recvfrom(65535)
                if self.frames is not None:
                    self.frames.append(frame)
                packet = parse_frame(frame)
                if packet is not None:
                    self.seen.append((packet, address[2] == socket.PACKET_OUTGOING))
        return [packet for packet, _ in self.seen]

    def matching(self, **wanted):
        """Packets whose fields have these values; `contains`: bytes in the payload."""
        contains = wanted.pop("contains", b"")
        return [packet for packet in self.packets()
                if contains in packet.payload and all(getattr(packet, key) == value for key, value in wanted.items())]

    def carrying(self, octets):
        """Frames with these octets anywhere in them."""
        self.packets()
        return [frame for frame in self.frames if octets in frame]

    def wait(self, seconds=2, **wanted):
        """The packets that match, as soon as there are any; [] when there are none in this time."""
        end = time.monotonic() + patience(seconds)
        while not (found := self.matching(**wanted)) and time.monotonic() < end:
            time.sleep(0.01)
        return found

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# --- making packets ---

def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip_packet(source, destination, protocol, body, ttl=64):
    source, destination = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    if source.version == 6:
        return struct.pack("!IHBB", 6 << 28, len(body), protocol, ttl) + source.packed + destination.packed + body
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0x1234, 0x4000, ttl, protocol, 0) + source.packed + destination.packed
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + body


def pseudo_header(source, destination, protocol, size):
    source, destination = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    if source.version == 6:
        return source.packed + destination.packed + struct.pack("!II", size, protocol)
    return source.packed + destination.packed + struct.pack("!HH", protocol, size)


def udp_packet(source, sport, destination, dport, payload):
    body = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    total = checksum(pseudo_header(source, destination, socket.IPPROTO_UDP, len(body)) + body) or 0xFFFF
    return ip_packet(source, destination, socket.IPPROTO_UDP, body[:6] + struct.pack("!H", total) + body[8:])


def tcp_packet(source, sport, destination, dport, flags, seq, ack, payload=b"", ttl=64, wrong_sum=False, urgent=0):
    flags |= TCP_URG if urgent else 0
    body = struct.pack("!HHIIBBHHH", sport, dport, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, 5 << 4, flags, 4096, 0, urgent) + payload
    total = checksum(pseudo_header(source, destination, socket.IPPROTO_TCP, len(body)) + body) ^ (0x5555 if wrong_sum else 0)
    return ip_packet(source, destination, socket.IPPROTO_TCP, body[:16] + struct.pack("!H", total) + body[18:], ttl)


def icmp_packet(source, destination, kind, code, body):
    """`body`: what follows type, code and checksum."""
    protocol = socket.IPPROTO_ICMPV6 if ":" in source else socket.IPPROTO_ICMP
    message = struct.pack("!BBH", kind, code, 0) + body
    pseudo = pseudo_header(source, destination, protocol, len(message)) if ":" in source else b""
    return ip_packet(source, destination, protocol, message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:])


def with_options(packet, options):
    """An IPv4 packet with options in its header."""
    options += bytes(-len(options) % 4)
    header = struct.pack("!BBH", 0x45 + len(options) // 4, packet[1], len(packet) + len(options)) + packet[4:10] + b"\0\0" + packet[12:20] + options
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + packet[20:]


def with_headers(packet, *headers):
    """An IPv6 packet with extension headers: (number, what follows the octet that names the next one)."""
    body, following = packet[40:], packet[6]
    for number, rest in reversed(headers):
        body, following = bytes([following]) + rest + body, number
    return packet[:4] + struct.pack("!HB", len(body), following) + packet[7:40] + body


def fragment(packet, start, end, ident):
    """The octets from `start` to `end` behind an IP packet's header, as a fragment; the last one when `end` is the end."""
    ipv6 = packet[0] >> 4 == 6
    body = packet[40 if ipv6 else 20:]
    more = int(end < len(body))
    if ipv6:
        return with_headers(packet[:40] + body[start:end], (socket.IPPROTO_FRAGMENT, struct.pack("!BHI", 0, start | more, ident)))
    header = packet[:2] + struct.pack("!HHH", 20 + len(body[start:end]), ident, more << 13 | start // 8) + packet[8:10] + b"\0\0" + packet[12:20]
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + body[start:end]


def send_frames(namespace, interface, to_mac, packets, from_mac=None, kind=None):
    """Put IP packets on an interface as they are, to this MAC. `kind`: the EtherType of something else."""
    with namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
        raw.bind((interface, 0))
        for packet in packets:
            raw.send(to_mac + (from_mac or raw.getsockname()[4]) + struct.pack("!H", kind or (0x86DD if packet[0] >> 4 == 6 else 0x0800)) + packet)


def send_frame(namespace, interface, to_mac, packet):
    send_frames(namespace, interface, to_mac, [packet])


class RawTcp:
    """A TCP client that sends what it is told to. Offsets count from the first octet of its stream.

    The host's own kernel knows nothing of the connection: the caller keeps it from resetting it (no_resets()).
    """

    def __init__(self, app, gateway_mac, target, port, sport, start=0x10000000):
        self.app, self.mac, self.target, self.port, self.sport, self.start = app, gateway_mac, target, port, sport, start
        self.source = app.ipv6 if ":" in target else app.ipv4
        self.wire = Sniffer(app, "eth0")
        self.answered = 0  # what it acknowledges

    def send(self, flags, offset=-1, payload=b"", **options):
        """Offset -1 is the SYN's place."""
        send_frame(self.app, "eth0", self.mac, tcp_packet(self.source, self.sport, self.target, self.port, flags, self.start + 1 + offset, self.answered,
                                                          payload, **options))

    def data(self, offset, payload, **options):
        self.send(TCP_ACK | TCP_PSH, offset, payload, **options)

    def handshake(self, ack=True):
        """`ack`: send the acknowledgement that ends it."""
        self.send(TCP_SYN)
        answer = self.wire.wait(5, source=self.target, dport=self.sport, flags=TCP_SYN | TCP_ACK)
        assert answer, "no answer to the SYN"
        self.answered = answer[0].seq + 1
        if ack:
            self.send(TCP_ACK, 0)

    def was_reset(self, seconds=3):
        """Has a RST come, or does one come in this time?"""
        end = time.monotonic() + patience(seconds)
        while not (found := [packet for packet in self.wire.matching(source=self.target, dport=self.sport) if packet.flags & TCP_RST]) \
                and time.monotonic() < end:
            time.sleep(0.01)
        return bool(found)

    def close(self):
        self.wire.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def no_resets(app):
    """An app's kernel sends no RST any more by itself. What goes out through send_frame() passes."""
    app.nft("table inet quiet {\n chain output {\n type filter hook output priority 0; policy accept;\n tcp flags & rst == rst drop\n }\n}\n")


class IcmpErrors:
    """ICMP administratively-prohibited errors that an app's host receives, with the (protocol, destination, ports, payload) they quote."""

    def __init__(self, namespace, family):
        self.family = family
        protocol = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
        self.socket = namespace.socket(family, socket.SOCK_RAW, protocol)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        self.socket.setblocking(False)
        self.seen = []

    def all(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                data = self.socket.recv(65535)
                if self.family == socket.AF_INET:
                    data = data[(data[0] & 15) * 4:]
                wanted = (1, 1) if self.family == socket.AF_INET6 else (3, 13)
                if (data[0], data[1]) == wanted:
                    self.seen.append(parse_quoted(data[8:]))
        return self.seen

    def wait(self, count, seconds=3):
        """At least so many errors, or what there is after this time."""
        end = time.monotonic() + patience(seconds)
        while len(self.all()) < count and time.monotonic() < end:
            time.sleep(0.005)
        return self.seen

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def parse_quoted(packet):
    """What an ICMP error quotes: a packet that may be cut short."""
    start, protocol = ((packet[0] & 15) * 4, packet[9]) if packet[0] >> 4 == 4 else (40, packet[6])
    family, at = (socket.AF_INET, 12) if packet[0] >> 4 == 4 else (socket.AF_INET6, 8)
    size = 4 if family == socket.AF_INET else 16
    source, destination = (socket.inet_ntop(family, packet[at + i * size:at + (i + 1) * size]) for i in (0, 1))
    sport, dport = struct.unpack_from("!HH", packet, start) if len(packet) >= start + 4 else (0, 0)
    return Packet(source, destination, protocol, sport, dport, 0, 0, 0, packet[start + 8:])
