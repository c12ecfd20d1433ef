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
TCP_FIN, TCP_SYN, TCP_RST, TCP_PSH, TCP_ACK = 1, 2, 4, 8, 16

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
    """Everything that one interface of a namespace receives and sends from now on."""

    def __init__(self, namespace, interface):
        self.socket = namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self.socket.bind((interface, ETH_P_ALL))
        self.socket.setblocking(False)
        self.seen = []

    def packets(self):
        """All packets so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, address = self.socket.recvfrom(65535)
                packet = parse_frame(frame)
                if packet is not None:
                    self.seen.append((packet, address[2] == socket.PACKET_OUTGOING))
        return [packet for packet, _ in self.seen]

    def matching(self, **wanted):
        """Packets whose fields have these values; `contains`: bytes in the payload."""
        contains = wanted.pop("contains", b"")
        return [packet for packet in self.packets()
                if contains in packet.payload and all(getattr(packet, key) == value for key, value in wanted.items())]

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


def ip_packet(source, destination, protocol, body):
    source, destination = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    if source.version == 6:
        return struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + source.packed + destination.packed + body
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0x1234, 0x4000, 64, protocol, 0) + source.packed + destination.packed
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


def tcp_packet(source, sport, destination, dport, flags, seq, ack, payload=b""):
    body = struct.pack("!HHIIBBHHH", sport, dport, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, 5 << 4, flags, 4096, 0, 0) + payload
    total = checksum(pseudo_header(source, destination, socket.IPPROTO_TCP, len(body)) + body)
    return ip_packet(source, destination, socket.IPPROTO_TCP, body[:16] + struct.pack("!H", total) + body[18:])


def send_frame(namespace, interface, to_mac, packet):
    """Put an IP packet on an interface as it is, to this MAC."""
    with namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
        raw.bind((interface, 0))
        kind = 0x86DD if packet[0] >> 4 == 6 else 0x0800
        raw.send(to_mac + raw.getsockname()[4] + struct.pack("!H", kind) + packet)


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
