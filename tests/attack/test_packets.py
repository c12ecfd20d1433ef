# SPDX-License-Identifier: MIT
"""Packets that no well-behaved kernel would send: nothing of them passes, and each is told or counted."""

import contextlib
import socket
import struct
import threading

import pytest

from attacker import FAMILIES, MARK, RULES, Tally, allowed, denied, honest, nothing_passes, policy_text, send
from lab import GATEWAY_UPLINK4, UPSTREAM
from packets import (TCP_ACK, TCP_FIN, TCP_PSH, TCP_RST, TCP_SYN, TCP_URG, Sniffer, icmp_packet, ip_packet, tcp_packet, udp_packet, with_headers,
                     with_options)

families = pytest.mark.parametrize("family", FAMILIES)
targets = pytest.mark.parametrize("target", [allowed, denied], ids=["allowed", "denied"])


# --- tunnels ---

# ICMP by another family's number, IGMP, IPIP, EGP, DCCP, 6in4, RSVP, GRE, ESP, "any host internal", EIGRP, OSPF, IPIP (94), VRRP, L2TP, SCTP,
# UDP-Lite, MPLS, 253, 255. The numbers of IPv6 extension headers are no protocols.
PROTOCOLS = (2, 4, 8, 33, 41, 46, 47, 50, 61, 88, 89, 94, 112, 115, 132, 136, 137, 253, 255)
PROTOCOLS_IPV4 = (0, 43, 44, 51, 58, 59, 60, 135, 139, 140)
PROTOCOLS_IPV6 = (1, 59, 135, 139, 140)


@families
@targets
def test_other_protocols_are_no_tunnel(world, family, target):
    """Towards an address whose every port is allowed, too."""
    protocols = PROTOCOLS + (PROTOCOLS_IPV4 if family == "ipv4" else PROTOCOLS_IPV6)
    with nothing_passes(world):
        addresses = [target(world, family) for _ in protocols]
        tally = Tally(world)
        send(world, *(ip_packet(getattr(world.web1, family), address, protocol, struct.pack("!HHI", 443, 443, 0) + MARK)
                      for protocol, address in zip(protocols, addresses)))
        tally.expect(len(protocols))


# What only neighbours may say, with code 0; the last of each family is nobody's.
ICMP_TYPES = {"ipv4": (8, 0, 13, 14, 15, 16, 17, 18, 5, 9, 10, 3, 4, 11, 12, 30, 40, 42, 43, 253),
              "ipv6": (128, 129, 1, 2, 3, 4, 130, 131, 132, 133, 134, 135, 136, 137, 138, 139, 140, 141, 143, 151, 155, 160, 200)}
DISCOVERY = (130, 131, 132, 135, 136, 143)  # for the gateway's own kernel, which is where an address leads that it holds


@families
@targets
def test_icmp_is_no_tunnel(world, family, target):
    with nothing_passes(world):
        addresses = [target(world, family) for _ in ICMP_TYPES[family]]
        held = family == "ipv6" and world.form == "virtual" and target is allowed
        tally = Tally(world)
        send(world, *(icmp_packet(getattr(world.web1, family), address, kind, 0, struct.pack("!HH", 7, 1) + MARK)
                      for kind, address in zip(ICMP_TYPES[family], addresses)))
        tally.expect(len(addresses) - (len(DISCOVERY) if held else 0))


@families
def test_errors_that_quote_what_never_was(world, family):
    """The quoted packet would have come from an allowed server, from a denied one, from the gateway, or from an app of another network."""
    own, to = getattr(world.web1, family), allowed(world, family)
    gateway = "10.201.1.1" if family == "ipv4" else "fdc9:1::1"
    sources = [to, denied(world, family), gateway, getattr(world.build1, family)]
    kinds = (3, 5, 11, 12) if family == "ipv4" else (1, 2, 3, 4)
    with nothing_passes(world):
        tally = Tally(world)
        for quoted in sources:
            send(world, *(icmp_packet(own, to, kind, 0, bytes(4) + udp_packet(quoted, 443, own, 4000, MARK)) for kind in kinds))
        tally.expect(4 * len(sources))


# --- headers around an ordinary packet ---

ELSEWHERE = socket.inet_pton(socket.AF_INET, "45.31.250.1")
ELSEWHERE6 = socket.inet_pton(socket.AF_INET6, "2a0e:1c:ffff::1")
OPTIONS = {
    "record route": b"\x07\x0f\x04" + bytes(12), "timestamps": b"\x44\x0c\x05\x00" + bytes(8), "timestamps of": b"\x44\x0c\x05\x03" + ELSEWHERE + bytes(4),
    "router alert": b"\x94\x04\0\0", "nothing": b"\x01" * 40, "unknown": b"\x5e\x04ab", "an end in front": b"\0\x83\x07\x04" + ELSEWHERE,
    "loose source route": b"\x83\x07\x04" + ELSEWHERE, "strict source route": b"\x89\x07\x04" + ELSEWHERE, "source route that is done": b"\x83\x07\x08" + ELSEWHERE,
    "no length": b"\x07\0\x04\0", "length beyond the header": b"\x83\x27\x04\0", "CIPSO": b"\x86\x06\0\0\0\1\0\0", "two source routes": (b"\x83\x07\x04" + ELSEWHERE) * 2,
}


# Where the host lets source routes in, an error of ours takes the last one back.
SOURCE_ROUTES = [options for label, options in OPTIONS.items() if "route" in label]


def options_header(number):
    return (number, bytes((0, 1, 4, 0, 0, 0, 0)))


def routing_header(kind):
    """With one hop left."""
    return (43, struct.pack("!BBBI", 2, kind, 1, 0) + ELSEWHERE6)


HOP_BY_HOP, DESTINATION, ATOMIC = options_header(0), options_header(60), (44, struct.pack("!BHI", 0, 0, 9))
HEADERS = {
    "hop-by-hop": [HOP_BY_HOP], "router alert": [(0, bytes((0, 5, 2, 0, 0, 1, 0)))], "destination": [DESTINATION], "seven": [DESTINATION] * 7,
    "long chain": [DESTINATION] * 150, "atomic fragment": [ATOMIC], "a fragment in a fragment": [ATOMIC, ATOMIC],
    "more fragments in a fragment": [ATOMIC, (44, struct.pack("!BHI", 0, 1, 9))], "later fragment in a fragment": [ATOMIC, (44, struct.pack("!BHI", 0, 1 << 3, 9))],
    "behind a fragment": [ATOMIC, DESTINATION], "wrong order": [DESTINATION, HOP_BY_HOP], "AH": [(51, struct.pack("!BHII", 4, 0, 1, 1) + bytes(12))],
    "RH0": [routing_header(0)], "RH2": [routing_header(2)], "RPL": [routing_header(3)], "SRH": [routing_header(4)], "unknown routing": [routing_header(250)],
    "experiment": [options_header(253)], "mobility": [options_header(135)], "HIP": [options_header(139)], "shim6": [options_header(140)],
    "home address": [(60, bytes((2, 1, 2, 0, 0, 201, 16)) + ELSEWHERE6)],
}
# The kernel refuses them by itself, before any rule sees them.
HEADERS_OF_THE_KERNEL = {
    "jumbogram": [(0, bytes((0, 0xC2, 4)) + struct.pack("!I", 70000))], "hop-by-hop that must be known": [(0, bytes((0, 0xC5, 4, 0, 0, 0, 0)))],
    "hop-by-hop beyond the packet": [(0, bytes((200, 1, 4, 0, 0, 0, 0)))],
}


def wrapped(packet, what):
    return with_options(packet, what) if isinstance(what, bytes) else with_headers(packet, *what)


@pytest.mark.parametrize("family, wraps, seen", [("ipv4", OPTIONS, True), ("ipv6", HEADERS, True), ("ipv6", HEADERS_OF_THE_KERNEL, False)],
                         ids=["options", "headers", "headers-of-the-kernel"])
@pytest.mark.parametrize("make", [udp_packet, lambda *flow: tcp_packet(*flow[:4], TCP_SYN, 1, 0, flow[4])], ids=["udp", "tcp"])
def test_no_header_hides_a_denied_port(world, family, wraps, seen, make):
    """Each to an address whose name is allowed for another port, and to one that is denied."""
    own = getattr(world.web1, family)
    with nothing_passes(world):
        packets = [wrapped(make(own, 4000, address, 444, MARK), what) for what in wraps.values()
                   for address in (allowed(world, family, "https.example"), denied(world, family))]
        tally = Tally(world)
        send(world, *packets)
        tally.expect(len(packets) if seen else 0)


@pytest.mark.parametrize("kind", [0, 2, 3, 4])
@pytest.mark.parametrize("first", ["fdc9:1::1", "fdc9:1::2", "fdc9:2::1", "fdc9:1::", "2a0e:9::2"])
def test_the_gateway_is_no_hop_of_a_routing_header(world, first, kind):
    """Port 53 of the gateway's address is one that rules let in."""
    with nothing_passes(world):
        send(world, *(with_headers(udp_packet(world.web1.ipv6, 4000, first, port, MARK), routing_header(kind)) for port in (443, 53)))


@pytest.mark.parametrize("accept", [0, 1], ids=["source-routes-refused", "source-routes-let-in"])
@pytest.mark.parametrize("first", ["10.201.1.1", "10.201.1.2", "10.201.1.99", "10.201.1.200", "10.201.2.1", GATEWAY_UPLINK4, "45.31.250.2"])
def test_the_gateway_is_no_hop_of_a_source_route(world, first, accept):
    """On a host that lets source routes in, which the gateway inherits, the kernel would send the packet on to an address that no rule has seen, and
    its own ICMP errors, with what they quote, back along the route."""
    for where in ("all", "web0"):
        world.gw.sysctl(**{f"net__ipv4__conf__{where}__accept_source_route": accept})
    own = world.web1.ipv4
    packets = [udp_packet(own, 4000, first, port, MARK) for port in (443, 53)] + [icmp_packet(own, first, 8, 0, bytes(4) + MARK)]
    try:
        with nothing_passes(world):
            tally = Tally(world)
            for options in SOURCE_ROUTES:
                send(world, *(with_options(packet, options) for packet in packets))
            # An internal network's bridge keeps to itself what leads out of the subnet.
            passes_bridge = world.form == "routed" or first.startswith("10.201.1.")
            tally.expect(len(packets) * len(SOURCE_ROUTES) if passes_bridge else 0)
    finally:
        world.gw.sysctl(net__ipv4__conf__all__accept_source_route=0)


@pytest.mark.parametrize("to", ["web1", "gateway"])
def test_a_source_route_from_the_uplink_leads_to_no_app(world, to):
    address = {"web1": world.web1.ipv4, "gateway": GATEWAY_UPLINK4}[to]
    route = b"\x83\x07\x04" + socket.inet_pton(socket.AF_INET, world.web1.ipv4)
    for where in ("all", "up0"):
        world.gw.sysctl(**{f"net__ipv4__conf__{where}__accept_source_route": 1})
    try:
        with Sniffer(world.web1, "eth0", frames=True) as wire:
            before = world.counters()["uplink_invalid"]
            for ttl in (64, 1):
                for options in (route, route[:2] + b"\x08" + route[3:]):
                    send(world, with_options(ip_packet("45.9.0.1", address, 17, struct.pack("!HHHH", 53, 443, 8 + len(MARK), 0) + MARK, ttl), options),
                         app=world.inet, interface="up0", device="up0")
            honest(world, world.web1)
            assert wire.carrying(MARK) == []
            assert world.counters()["uplink_invalid"] == before + 4
    finally:
        world.gw.sysctl(net__ipv4__conf__all__accept_source_route=0)


# --- TCP ---

# No flow begins with them, allowed or not.
FLAGS = {"none": 0, "FIN": TCP_FIN, "Xmas": TCP_FIN | TCP_PSH | TCP_URG, "SYN+FIN": TCP_SYN | TCP_FIN, "SYN+RST": TCP_SYN | TCP_RST, "SYN+ACK": TCP_SYN | TCP_ACK,
         "RST": TCP_RST, "RST+ACK": TCP_RST | TCP_ACK, "FIN+ACK": TCP_FIN | TCP_ACK, "URG": TCP_URG, "all": 63}


@families
@targets
def test_no_flow_begins_with_odd_flags(world, family, target):
    own = getattr(world.web1, family)
    with nothing_passes(world):
        addresses = [target(world, family) for _ in FLAGS]
        tally = Tally(world)
        send(world, *(tcp_packet(own, 40000, address, 443, flags, 1, 1, MARK) for flags, address in zip(FLAGS.values(), addresses)))
        tally.expect(len(FLAGS))
        assert tally.counted("invalid_web") == len(FLAGS), "no answer: it would be one about a flow of somebody else"


@families
def test_no_beginning_reaches_a_denied_address(world, family):
    """With content, with TCP Fast Open's cookie, in the middle, as an urgent one, with ECN; from port 0."""
    own = getattr(world.web1, family)
    beginnings = [(40000, flags) for flags in (TCP_SYN, TCP_SYN | TCP_PSH, TCP_SYN | TCP_URG, TCP_SYN | 0xC0, TCP_ACK, TCP_ACK | TCP_PSH)]
    with nothing_passes(world):
        tally = Tally(world)
        send(world, *(tcp_packet(own, sport, denied(world, family), 443, flags, 1, 0, MARK)
                      for sport, flags in beginnings + [(0, TCP_SYN), (65535, TCP_SYN)]))
        tally.expect(len(beginnings) + 2)


def data_offset(packet, words):
    at = (40 if packet[0] >> 4 == 6 else 20) + 12
    return packet[:at] + bytes([words << 4]) + packet[at + 1:]


@families
@targets
def test_a_segment_that_contradicts_itself_is_dropped(world, family, target):
    own = getattr(world.web1, family)
    with nothing_passes(world):
        addresses = [target(world, family) for _ in range(4)]
        tally = Tally(world)
        send(world, tcp_packet(own, 40000, addresses[0], 443, TCP_SYN, 1, 0, MARK, wrong_sum=True))
        send(world, *(data_offset(tcp_packet(own, 40000, address, 443, TCP_SYN, 1, 0, MARK[:20]), words)
                      for address, words in zip(addresses[1:], (0, 4, 15))))
        tally.expect(4)
        assert tally.counted("invalid_web") == 4


@families
@pytest.mark.parametrize("ttl", [0, 1])
def test_what_is_at_its_end_goes_no_further(world, family, ttl):
    """The kernel says so, before any rule sees it: so there is no line, also for what is denied."""
    with nothing_passes(world):
        send(world, *(tcp_packet(getattr(world.web1, family), 40000, target(world, family), 443, TCP_SYN, 1, 0, MARK, ttl=ttl)
                      for target in (allowed, denied)))


@families
@pytest.mark.parametrize("port", [0, 65535])
def test_ports_at_the_edge_are_denied_like_others(world, family, port):
    own = getattr(world.web1, family)
    addresses = [allowed(world, family, "https.example") for _ in range(2)]
    with nothing_passes(world):
        tally = Tally(world)
        send(world, tcp_packet(own, 40000, addresses[0], port, TCP_SYN, 1, 0, MARK))
        send(world, udp_packet(own, 40000, addresses[1], port, MARK))
        tally.expect(2)
        assert {line["port"] for line in tally.lines()} == {str(port)}


# --- destinations ---

DESTINATIONS = {
    "ipv4": ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192", "0.0.0.1", "240.0.0.1", "255.255.255.254", "192.88.99.1",
             "10.201.1.0", "10.201.2.0", "10.201.2.11", "10.201.2.255", "45.9.0.0", "45.9.0.53", GATEWAY_UPLINK4),
    "ipv6": ("fd00:ec2::254", "fd20:ce::254", "fe80::a9fe:a9fe", "::", "::ffff:10.201.2.11", "::ffff:45.40.1.1", "::10.201.2.11", "64:ff9b::10.201.2.11",
             "64:ff9b::169.254.169.254", "64:ff9b:1::a9fe:a9fe", "2002:ac9:20b::1", "2002:a9fe:a9fe::1", "2001:0:ac9:20b::1", "fdc9:1::", "fdc9:2::",
             "fdc9:1::fdff:ffff:ffff:fffe", "2a0e:9::", "2a0e:9::1", "fec0::1", "2001:db8::1", "100::1", "5f00::1", "3fff::1"),
}
NOWHERE = {"ipv4": ("0.0.0.0", "127.0.0.1", "127.1.2.3"), "ipv6": ("::1",)}  # the kernel's own routing refuses them


@families
def test_a_rule_for_everything_leads_to_no_inside(lab, policy, web1, family):
    """Private, link-local and metadata addresses, such as are embedded in others, those of the networks themselves, and subnets' anycast ones."""
    everything = "allow = 0.0.0.0/0 [::/0] **.any.example **.https.example:443\n"
    policy(UPSTREAM + policy_text("routed").partition("server = 45.9.0.53\n")[2].replace(RULES, everything))
    own = getattr(web1, family)
    with nothing_passes(lab):
        tally = Tally(lab)
        send(lab, *(udp_packet(own, 4000, address, 443, MARK) for address in DESTINATIONS[family] + NOWHERE[family]))
        tally.expect(len(DESTINATIONS[family]))


# --- what the kernel might add to a flow ---

HELPED = {"TFTP": (69, b"\0\1file\0octet\0"), "SIP": (5060, b"INVITE sip:a@b SIP/2.0\r\nContact: <sip:a@10.201.1.11:7777>\r\nContent-Length: 0\r\n\r\n"),
          "NetBIOS": (137, bytes(50)), "SNMP": (161, b"\x30\x20"), "Amanda": (10080, b"Amanda 2.4 REQ HANDLE 1 SEQ 1\nCONNECT DATA 7777\n")}
SPOKEN = {"FTP": (21, b"PORT 10,201,1,11,30,97\r\n"), "IRC": (6667, b"PRIVMSG a :\1DCC SEND file 180945163 7777 1\1\r\n"), "PPTP": (1723, bytes(156)),
          "H.323": (1720, bytes(40)), "SANE": (6566, b"\0\0\0\7" + bytes(20))}


@pytest.mark.parametrize("label", [*HELPED, *SPOKEN])
def test_no_helper_expects_another_flow(lab, web1, label):
    """An app asks for a flow to itself inside of an allowed one. Nobody in the gateway's kernel listens."""
    name, address = lab.names.new("any.example")
    web1.resolve(name)
    udp = label in HELPED
    port, words = (HELPED if udp else SPOKEN)[label]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(lab.inet.socket(socket.AF_INET, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM))
        server.settimeout(20)
        server.bind((address, port))
        if not udp:
            server.listen()
        app = stack.enter_context(web1.udp(address, port) if udp else web1.connect(address, port))
        app.sendall(words)
        if udp:
            assert server.recv(2000) == words
        else:
            assert stack.enter_context(server.accept()[0]).recv(2000) == words
        assert f"dport={port}" in (flows := lab.gw.run(["conntrack", "-L"]).stdout)
        assert "helper=" not in flows
        assert lab.gw.run(["conntrack", "-L", "expect"]).stdout == ""
        own = app.getsockname()[1]
        with Sniffer(web1, "eth0", frames=True) as wire:
            for protocol in (udp_packet, lambda *flow: tcp_packet(*flow[:4], TCP_SYN, 1, 0, flow[4])):
                send(lab, *(protocol(address, 20, GATEWAY_UPLINK4, to, MARK) for to in (7777, own + 1)), app=lab.inet, interface="up0", device="up0")
            honest(lab, web1)
            assert wire.carrying(MARK) == []


# --- while the policy changes ---

def test_nothing_slips_through_a_reload(lab, policy, web1):
    """Every denied flow that begins while rules are replaced is refused and told, once."""
    texts = [policy_text("routed"), policy_text("routed").replace(RULES, "allow = **.any.example\n")]
    policy(texts[0])
    stop = threading.Event()

    def reload():
        while not stop.is_set():
            for text in texts:
                lab.gateway.set_policy(text)

    with nothing_passes(lab):
        tally = Tally(lab)
        thread = threading.Thread(target=reload)
        thread.start()
        try:
            for _ in range(10):
                send(lab, *(udp_packet(getattr(web1, family), 4000, denied(lab, family), 443, MARK) for _ in range(20) for family in FAMILIES))
        finally:
            stop.set()
            thread.join()
        lab.gateway.set_policy(texts[0])
        tally.expect(400)
