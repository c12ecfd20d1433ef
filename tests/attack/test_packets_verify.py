# SPDX-License-Identifier: MIT
"""`verify = enforce` against headers around what has to be read: another name in front of which something stands that no app sends."""

import ipaddress
import itertools

import pytest

import quic_packets
from attacker import FAMILIES, FORMS, RECORD, policy_text, send
from hellos import client_hello
from lab import Lab
from namespaces import wait_until
from packets import TCP_ACK, TCP_PSH, RawTcp, Sniffer, no_resets, tcp_packet, udp_packet, with_headers, with_options
from test_packets import ATOMIC, DESTINATION, HEADERS, HOP_BY_HOP

EVIL = "evil.other.example"
WRAPS = {"ipv4": {"plain": None, "options": b"\x01" * 8},
         "ipv6": {"plain": None, "hop-by-hop": [HOP_BY_HOP], "destination": [DESTINATION], "seven": [DESTINATION] * 7, "atomic": [ATOMIC], "nested": [ATOMIC, ATOMIC],
                  "nested-first": HEADERS["more fragments in a fragment"], "AH": HEADERS["AH"], "mixed": [DESTINATION, ATOMIC, DESTINATION]}}
ports = itertools.count(21000)


@pytest.fixture(scope="module", params=FORMS)
def lab(request):
    form = request.param
    with Lab(policy=policy_text(form, "verify = enforce\n"), internal=["web"] if form == "virtual" else []) as made:
        made.form = form
        no_resets(made.web1)
        made.web1.tcp_result("45.12.1.66")
        yield made


def wrapped(packet, what):
    if what is None:
        return packet
    return with_options(packet, what) if isinstance(what, bytes) else with_headers(packet, *what)


@pytest.mark.parametrize("family, label", [(family, label) for family in FAMILIES for label in WRAPS[family]])
def test_no_header_hides_another_name(lab, family, label):
    """The handshake is an ordinary one: the flow is allowed, and waits for its name."""
    name, *_ = lab.names.new("https.example", ipv6=True)
    address = lab.web1.resolve(name, RECORD[family])[0]
    hello = client_hello(EVIL)
    with Sniffer(lab.inet, "up0", frames=True) as uplink, RawTcp(lab.web1, lab.gw.mac("web0"), address, 443, next(ports)) as client:
        client.handshake()
        packet = tcp_packet(client.source, client.sport, address, 443, TCP_ACK | TCP_PSH, client.start + 1, client.answered, hello)
        lab.gateway.log.mark()
        before = lab.counters()["invalid_web"]
        send(lab, wrapped(packet, WRAPS[family][label]))
        if label in ("options", "AH"):
            client.data(0, client_hello(name))  # it is gone, and the flow still waits
            assert client.wire.wait(5, source=address, dport=client.sport)
            assert lab.counters()["invalid_web"] == before + 1
        else:
            assert lab.gateway.log.wait(event="denied", network="web", sni=EVIL)[0]["reason"] == "sni-mismatch"
        assert uplink.carrying(EVIL.encode()) == []


@pytest.mark.parametrize("family, label", [(family, label) for family in FAMILIES for label in WRAPS[family]])
def test_no_header_hides_another_name_in_quic(lab, family, label):
    name, *real = lab.names.new("https.example", ipv6=True)
    address = lab.web1.resolve(name, RECORD[family])[0]
    packet = udp_packet(getattr(lab.web1, family), next(ports), address, 443, quic_packets.hello(EVIL))
    server = ipaddress.ip_address(real[FAMILIES.index(family)]).packed
    with Sniffer(lab.inet, "up0", frames=True) as uplink:
        lab.gateway.log.mark()
        before = lab.counters()["invalid_web"]
        send(lab, wrapped(packet, WRAPS[family][label]))
        # It is read, or dropped since it can belong to no flow.
        wait_until(lambda: lab.gateway.log.lines(event="denied", network="web", sni=EVIL, reason="sni-mismatch")
                   or lab.counters()["invalid_web"] == before + 1, "it was neither refused nor dropped")
        assert uplink.carrying(server) == []


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("flags", [TCP_ACK, TCP_ACK | TCP_PSH], ids=["ACK", "ACK+PSH"])
def test_a_flow_without_a_beginning_carries_nothing(lab, family, flags):
    name, *_ = lab.names.new("https.example", ipv6=True)
    address = lab.web1.resolve(name, RECORD[family])[0]
    with Sniffer(lab.inet, "up0", frames=True) as uplink:
        lab.gateway.log.mark()
        send(lab, tcp_packet(getattr(lab.web1, family), next(ports), address, 443, flags, 1, 1, client_hello(EVIL)))
        assert lab.gateway.log.wait(event="denied", network="web", proto="tcp")[0]["reason"] == "malformed"
        assert uplink.carrying(EVIL.encode()) == []
