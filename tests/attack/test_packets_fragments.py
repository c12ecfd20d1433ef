# SPDX-License-Identifier: MIT
"""Fragments: of one's own packets, among those of others, and too many of them."""

import socket
import struct

import pytest

from attacker import FAMILIES, MARK, RECORD, Tally, allowed, denied, honest, nothing_passes, send
from lab import GATEWAY_UPLINK4, GATEWAY_UPLINK6
from namespaces import patience, wait_until
from packets import TCP_SYN, Sniffer, fragment, icmp_packet, tcp_packet, udp_packet

families = pytest.mark.parametrize("family", FAMILIES)
HONEST, FORGED = b"honest" + bytes(1090), b"stneho" + bytes(1090)  # with the same sum, so that either can be completed with the other
HALF = 552  # octets; with the UDP header 1104


def halves(packet, ident):
    size = len(packet) - (40 if packet[0] >> 4 == 6 else 20)
    return fragment(packet, 0, HALF, ident), fragment(packet, HALF, size, ident)


def large(sock, family):
    """May be fragmented."""
    level, option = (socket.IPPROTO_IP, 10) if family == "ipv4" else (socket.IPPROTO_IPV6, 23)  # (IPV6_)MTU_DISCOVER
    sock.setsockopt(level, option, 0)
    return sock


# --- among those of others ---

@families
@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
def test_no_part_of_another_networks_packet(lab, names, web1, build1, family, first):
    """What is put together counts as coming from where its last part came from. So each part is judged before."""
    name, *addresses = names.new("build.example", ipv6=True)
    target, own = build1.resolve(name, RECORD[family])[0], getattr(build1, family)
    build1.tcp_result("45.12.1.66"), web1.tcp_result("45.12.1.66")
    forged, honest_halves = halves(udp_packet(own, 4000, target, 443, FORGED), 77), halves(udp_packet(own, 4000, target, 443, HONEST), 77)
    assert target in addresses
    with Sniffer(lab.inet, "up0") as uplink:
        tally = Tally(lab)
        send(lab, forged[0 if first else 1])
        send(lab, *honest_halves, app=build1, interface="build0")
        assert uplink.wait(destination=target, contains=b"honest")
        assert uplink.matching(contains=b"stneho") == []
        assert tally.counted("spoofed_web") == 1
    lab.gateway.log.wait(event="denied", network="web", reason="spoofed-source", seconds=25)


@families
def test_no_part_of_a_servers_answer(lab, names, web1, build1, family):
    """web1 knows the server and can guess its identifications: it talks to it as well."""
    name, *_ = names.new("build.example", ipv6=True)
    target = build1.resolve(name, RECORD[family])[0]
    with build1.udp(target, 443) as flow, Sniffer(build1, "eth0", frames=True) as wire:
        flow.settimeout(patience(5))
        flow.send(b"begin")
        assert flow.recv(100) == b"begin"
        port = flow.getsockname()[1]
        outside = GATEWAY_UPLINK4 if family == "ipv4" else GATEWAY_UPLINK6
        forged, answer = (halves(udp_packet(target, 443, outside, port, content), 78) for content in (FORGED, HONEST))
        tally = Tally(lab)
        send(lab, forged[0])
        send(lab, *answer, app=lab.inet, interface="up0", device="up0")
        assert flow.recv(2000) == HONEST
        assert wire.carrying(b"stneho") == []
        assert tally.counted("spoofed_web") == 1


@families
def test_no_part_with_the_gateways_source(lab, family):
    gateway, target = ("10.201.1.1", "45.40.1.9") if family == "ipv4" else ("fdc9:1::1", "2a0e:1b::9")
    with nothing_passes(lab):
        tally = Tally(lab)
        send(lab, *halves(udp_packet(gateway, 4000, target, 443, MARK + bytes(1000)), 79))
        tally.expect(2)
        assert tally.counted("spoofed_web") == 2


@families
def test_no_part_from_the_uplink_with_an_apps_source(lab, family):
    app, other = getattr(lab.web1, family), getattr(lab.build1, family)
    before = lab.counters()["uplink_spoofed"]
    with Sniffer(lab.build1, "eth0", frames=True) as wire:
        send(lab, *halves(udp_packet(app, 4000, other, 443, MARK + bytes(1080)), 79), app=lab.inet, interface="up0", device="up0")
        honest(lab, lab.web1)
        assert wire.carrying(MARK) == []
    assert lab.counters()["uplink_spoofed"] == before + 2


# --- of one's own ---

def ports_only(packet):
    """A first fragment so small that the flags of TCP are in the second."""
    size = len(packet) - (40 if packet[0] >> 4 == 6 else 20)
    return [fragment(packet, 0, 8, 80), fragment(packet, 8, size, 80)]


def other_ports(own, good, bad, first):
    """The same eight octets twice, with an allowed port and with a denied one."""
    parts = [fragment(udp_packet(own, 4000, good, port, MARK + bytes(100)), 0, 16, 81) for port in (443, bad)]
    rest = fragment(udp_packet(own, 4000, good, 443, MARK + bytes(100)), 8, 8 + len(MARK) + 100, 81)
    return (parts if first else parts[::-1]) + [rest]


@families
@pytest.mark.parametrize("target", [allowed, denied], ids=["allowed-name", "denied"])
def test_a_tiny_first_fragment_hides_nothing(world, family, target):
    own = getattr(world.web1, family)
    with nothing_passes(world):
        to = target(world, family, "https.example") if target is allowed else target(world, family)
        tally = Tally(world)
        send(world, *ports_only(tcp_packet(own, 40000, to, 444, TCP_SYN, 1, 0, MARK)))
        tally.expect(1)
        if family == "ipv4":
            assert tally.lines()[0]["port"] == "444"
        else:  # the kernel does not put it together: RFC 7112
            assert tally.counted("invalid_web") == 1


@families
@pytest.mark.parametrize("first", [True, False], ids=["allowed-port-first", "denied-port-first"])
def test_overlapping_fragments_do_not_change_the_port(world, family, first):
    """Nobody puts them together: no order of them may pass with a port that was not judged."""
    own = getattr(world.web1, family)
    with nothing_passes(world), Sniffer(world.inet, "up0") as uplink:
        to = allowed(world, family, "https.example")
        send(world, *other_ports(own, to, 444, first))
        honest(world, world.web1)
        assert uplink.matching(dport=444) == []


@families
def test_what_never_becomes_whole_does_not_pass(world, family):
    """Without its first part, without its last one, with a hole."""
    own = getattr(world.web1, family)
    with nothing_passes(world):
        for to in (allowed(world, family), denied(world, family)):
            for ident, kept in enumerate(((1, 2), (0, 1), (0, 2)), 90):
                whole = udp_packet(own, 4000, to, 443, MARK * 40)
                parts = [fragment(whole, start, min(start + 320, 8 + len(MARK) * 40), ident) for start in (0, 320, 640)]
                send(world, *(parts[number] for number in kept))


@families
def test_a_denied_packet_in_parts_is_told_once(world, family):
    own = getattr(world.web1, family)
    echo = icmp_packet(own, denied(world, family), 128 if family == "ipv6" else 8, 0, struct.pack("!HH", 1, 1) + MARK + bytes(1500))
    datagram = udp_packet(own, 4000, denied(world, family), 443, MARK + bytes(1500))
    with nothing_passes(world):
        tally = Tally(world)
        for packet in (echo, datagram):
            send(world, *halves(packet, 83))
        tally.expect(2)
        assert tally.counted() == 0


# --- too many ---

LIMIT = 1 << 19  # octets


def passes(sock):
    """Does a datagram that has to be fragmented come back?"""
    sock.send(b"l" * 3000)
    try:
        return sock.recv(4000) == b"l" * 3000
    except TimeoutError:
        return False


@families
def test_unfinished_packets_are_bounded_and_pass_away(own_lab, family):
    """The memory for them is one for all networks: while one fills it, large datagrams of others are lost, and nothing else."""
    lab = own_lab
    prefix, seconds = ("net__ipv4__ipfrag_", "time") if family == "ipv4" else ("net__netfilter__nf_conntrack_frag6_", "timeout")
    lab.gw.sysctl(**{prefix + "low_thresh": LIMIT // 2, prefix + "high_thresh": LIMIT, prefix + seconds: 6})
    name, *_ = lab.names.new("build.example", ipv6=True)
    target = lab.build1.resolve(name, RECORD[family])[0]
    own = getattr(lab.web1, family)
    lab.web1.tcp_result("45.12.1.66"), lab.web1.tcp_result("2a0e:12:1::66")
    to = "45.40.1.9" if family == "ipv4" else "2a0e:1b::9"
    with nothing_passes(lab), large(lab.build1.udp(target, 443), family) as sock:
        sock.settimeout(0.5)
        assert passes(sock)
        send(lab, *(fragment(udp_packet(own, 4000, to, 443, MARK + bytes(1400)), 0, 800, ident) for ident in range(1000)))
        assert not passes(sock), "there is a bound, and it is reached"
        assert lab.build1.udp_result(target, 443) == "open", "what is whole passes"
        assert lab.build1.resolve("shared.example")
        wait_until(lambda: passes(sock), "large datagrams never passed again", seconds=20)
