# SPDX-License-Identifier: MIT
"""What is not allowed fails fast, and each denial is logged once, or counted."""

import errno
import socket
import struct
import time

import pytest

from app import send_anyway
from namespaces import patience
from packets import IcmpErrors, Sniffer, checksum, ip_packet, send_frame, tcp_packet, udp_packet

FAST = 0.05  # seconds, the best of a few tries on an ordinary machine
ATTEMPTS = 10


def time_of(call):
    start = time.monotonic()
    call()
    return time.monotonic() - start


def total(lines):
    return sum(int(line["count"]) for line in lines)


# --- fast failure ---

@pytest.mark.parametrize("address", ["45.12.1.66", "2a0e:12:1::66"])
def test_a_denied_tcp_connection_is_refused_fast(web1, address, slow_machine, record_property):
    took = []
    for port in range(5000, 5000 + ATTEMPTS):
        took.append(time_of(lambda port=port: pytest.raises(ConnectionRefusedError, web1.connect, address, port)))
    record_property("best_seconds", min(took))
    assert min(took) < (1 if slow_machine else FAST)


@pytest.mark.parametrize("address", ["45.12.1.66", "2a0e:12:1::66"])
def test_a_denied_datagram_is_rejected_fast(web1, address, slow_machine):
    took = []
    for port in range(5000, 5000 + ATTEMPTS):
        took.append(time_of(lambda port=port: web1.udp_result(address, port) == "rejected" or pytest.fail("no ICMP error")))
    assert min(took) < (1 if slow_machine else FAST)


def test_a_denied_datagram_gets_administratively_prohibited(web1):
    with web1.udp("45.12.1.66", 5050) as sock:
        sock.settimeout(patience(3))
        sock.send(b"x")
        with pytest.raises(OSError) as caught:
            sock.recv(100)
    assert caught.value.errno == errno.EHOSTUNREACH  # ICMP type 3 code 13
    with web1.udp("2a0e:12:1::66", 5050) as sock:
        sock.settimeout(patience(3))
        sock.send(b"x")
        with pytest.raises(OSError) as caught:
            sock.recv(100)
    assert caught.value.errno == errno.EACCES  # ICMPv6 type 1 code 1


def test_a_denied_name_is_answered_fast(web1, slow_machine):
    took = [time_of(lambda number=number: web1.ask(f"fast{number}.evil.example")) for number in range(ATTEMPTS)]
    assert min(took) < (1 if slow_machine else FAST)


@pytest.mark.parametrize("family, target", [(socket.AF_INET, "45.33.{}.{}"), (socket.AF_INET6, "2a0e:1c::{:x}:{:x}")])
def test_each_of_300_denied_datagrams_to_300_hosts_gets_its_error(web1, family, target):
    with IcmpErrors(web1, family) as errors, web1.socket(family, socket.SOCK_DGRAM) as sock:
        wanted = {target.format(number >> 8, number & 255) for number in range(1, 301)}
        for address in sorted(wanted):
            send_anyway(sock, (address, 4000))
        errors.wait(300, seconds=20)
    got = {quoted.destination for quoted in errors.seen if quoted.dport == 4000}
    assert len(got) == 300


@pytest.mark.parametrize("family, address", [(socket.AF_INET, "45.12.1.67"), (socket.AF_INET6, "2a0e:12:1::67")])
def test_each_of_300_denied_datagrams_to_300_ports_gets_its_error(web1, family, address):
    with IcmpErrors(web1, family) as errors, web1.socket(family, socket.SOCK_DGRAM) as sock:
        for port in range(6000, 6300):
            send_anyway(sock, (address, port))
        errors.wait(300, seconds=20)
    assert {quoted.dport for quoted in errors.seen if quoted.destination == address} == set(range(6000, 6300))


@pytest.mark.parametrize("family, address", [(socket.AF_INET, "45.12.1.68"), (socket.AF_INET6, "2a0e:12:1::68")])
def test_each_of_300_repeats_of_a_denied_datagram_gets_its_error(web1, family, address):
    with IcmpErrors(web1, family) as errors, web1.socket(family, socket.SOCK_DGRAM) as sock:
        for _ in range(300):
            send_anyway(sock, (address, 4001))
        errors.wait(300, seconds=20)
    assert len([quoted for quoted in errors.seen if quoted.destination == address]) == 300


# --- nothing passes ---

@pytest.mark.parametrize("address", ["45.12.1.66", "2a0e:12:1::66"])
def test_no_packet_of_a_denied_flow_reaches_the_uplink(lab, web1, address):
    with Sniffer(lab.inet, "up0") as uplink:
        web1.tcp_result(address, 5101)
        web1.udp_result(address, 5102)
        web1.tcp_result("45.40.1.1", 443)  # an allowed flow, so that we know we would see one
        assert uplink.wait(destination="45.40.1.1")
        assert uplink.matching(destination=address) == []


def test_another_port_of_an_allowed_name_is_denied(names, web1, log):
    name, address = names.new("https.example")
    web1.resolve(name)
    assert web1.tcp_result(address, 80) == "refused"
    assert web1.udp_result(address, 123) == "rejected"
    line = log.wait(event="denied", dst=address, port=80)[0]
    assert (line["reason"], line["name"]) == ("port-not-allowed", name)


def test_udp_is_denied_where_only_tcp_is_allowed(names, web1):
    name, address = names.new("tcp.example")
    web1.resolve(name)
    assert web1.tcp_result(address, 443) == "open"
    assert web1.udp_result(address, 443) == "rejected"


def test_an_address_that_nobody_asked_for_is_denied(names, web1, log):
    """A name's address as a literal, before the name was asked: there is no lease."""
    name, address = names.new("https.example")
    assert web1.tcp_result(address) == "refused"
    assert log.wait(event="denied", dst=address)[0]["reason"] == "address-not-allowed"
    web1.resolve(name)
    assert web1.tcp_result(address) == "open"


def test_a_deny_rule_wins_over_an_allow_rule(names, web1, log):
    names.add("x.bad.ok.example", A=names.address())
    answer = web1.ask("x.bad.ok.example")
    assert answer.rcode() == 3
    assert log.wait(event="denied", qname="x.bad.ok.example")[0]["reason"] == "denied-by-rule"
    assert web1.tcp_result("45.40.1.1") == "open"
    assert web1.tcp_result("45.40.66.1") == "refused"
    assert log.wait(event="denied", dst="45.40.66.1")[0]["reason"] == "denied-by-rule"


@pytest.mark.parametrize("address", ["10.0.0.5", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "198.18.0.1", "fdcc::1", "fec0::1"])
def test_special_purpose_space_is_denied(web1, log, address):
    assert web1.tcp_result(address) == "refused"
    assert log.wait(event="denied", dst=address)[0]["reason"] == "special-address"


def test_a_rule_for_everything_does_not_cover_special_purpose_space_or_the_uplink(web1, policy):
    policy("""[upstream]
server = 45.9.0.53
[network web]
subnet = 10.201.1.0/24
subnet = fdc9:1::/64
allow = 0.0.0.0/0 [::/0]
[network build]
subnet = 10.201.2.0/24
subnet = fdc9:2::/64
[network lan]
subnet = 10.201.3.0/24
""")
    assert web1.tcp_result("45.12.1.66") == "open"
    assert web1.tcp_result("2a0e:12:1::66") == "open"
    for address in ("45.9.0.1", "45.9.0.2", "45.9.0.53", "2a0e:9::1", "2a0e:9::2", "10.201.2.11", "10.201.1.2", "192.168.0.1", "169.254.169.254",
                    "fdc9:2::11"):
        assert web1.tcp_result(address) == "refused", address


def test_a_named_address_of_the_uplinks_subnet_is_reached(web1, policy):
    policy("""[upstream]
server = 45.9.0.53
[network web]
subnet = 10.201.1.0/24
allow = 45.9.0.1:443
[network build]
subnet = 10.201.2.0/24
[network lan]
subnet = 10.201.3.0/24
""")
    assert web1.tcp_result("45.9.0.1") == "open"
    assert web1.tcp_result("45.9.0.1", 80) == "refused"


# --- other protocols ---

def icmp_echo(family):
    kind = 128 if family == socket.AF_INET6 else 8
    body = bytes([kind, 0, 0, 0, 0x12, 0x34, 0, 1]) + b"tunnel in here"
    if family == socket.AF_INET:
        body = body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
    return body


@pytest.mark.parametrize("family, address", [(socket.AF_INET, "45.40.1.2"), (socket.AF_INET6, "2a0e:1b::2")])
def test_icmp_echo_to_an_allowed_address_is_denied(lab, web1, log, family, address):
    protocol = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
    with Sniffer(lab.inet, "up0") as uplink, web1.socket(family, socket.SOCK_RAW, protocol) as raw:
        raw.sendto(icmp_echo(family), (address, 0))
        line = log.wait(event="denied", dst=address)[0]
        assert line["reason"] == "protocol-not-allowed"
        assert uplink.matching(destination=address) == []


def sctp_init():
    """A whole INIT: what is malformed, conntrack drops as invalid before anybody can log it."""
    chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 0x1234, 65535, 1, 1, 1)
    header = struct.pack("!HHII", 12345, 443, 0, 0)
    return header[:8] + struct.pack("<I", crc32c(header + chunk)) + chunk


def crc32c(data):
    value = 0xFFFFFFFF
    for octet in data:
        value ^= octet
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


# Protocol, its name, a packet's body, and whether the kernel's reject can answer it: it does not where it takes the body for one with a
# checksum like TCP's.
OTHERS = [(132, "sctp", sctp_init(), True), (47, "gre", b"\0\0\x08\0" + bytes(28), True), (50, "esp", bytes(range(1, 41)), True),
          (4, "ipip", bytes(range(1, 41)), False), (253, "253", bytes(range(1, 41)), False)]


@pytest.mark.parametrize("protocol, label, body, answered", OTHERS, ids=[row[1] for row in OTHERS])
def test_other_protocols_are_denied_and_logged(lab, web1, log, protocol, label, body, answered):
    address = f"45.40.2.{protocol}"
    with Sniffer(lab.inet, "up0") as uplink, IcmpErrors(web1, socket.AF_INET) as errors:
        with web1.socket(socket.AF_INET, socket.SOCK_RAW, protocol) as raw:
            raw.sendto(body, (address, 0))
        line = log.wait(event="denied", dst=address)[0]
        assert errors.wait(1) or not answered
        assert uplink.matching(destination=address) == []
    assert line["reason"] == "protocol-not-allowed"
    assert line["proto"] in (label, str(protocol))


def test_a_reset_is_never_answered_with_a_reset(lab, web1):
    """Two gateways that answer each other's resets would never stop."""
    gateway_mac = web1_gateway_mac(lab)
    with Sniffer(web1, "eth0") as wire:
        send_frame(web1, "eth0", gateway_mac, tcp_packet(web1.ipv4, 40001, "45.12.1.69", 443, 4, 1000, 0))
        send_frame(web1, "eth0", gateway_mac, tcp_packet(web1.ipv4, 40002, "45.12.1.69", 443, 2, 1000, 0))
        assert wire.wait(source="45.12.1.69", dport=40002, flags=0x14), "a SYN is answered, so answers can be seen here"
        assert wire.matching(source="45.12.1.69", dport=40001) == []


def web1_gateway_mac(lab):
    lab.web1.tcp_result("45.12.1.66")
    return lab.gw.mac("web0")


def test_a_malformed_packet_is_dropped(lab, web1):
    mac = web1_gateway_mac(lab)
    with Sniffer(lab.inet, "up0") as uplink:
        whole = udp_packet(web1.ipv4, 1, "45.12.1.70", 443, b"short")
        send_frame(web1, "eth0", mac, whole[:24])
        send_frame(web1, "eth0", mac, ip_packet(web1.ipv4, "45.12.1.70", 17, b"\1"))
        send_frame(web1, "eth0", mac, ip_packet(web1.ipv4, "45.12.1.70", 6, b"\1\2\3"))
        web1.tcp_result("45.40.1.1", 443)
        assert uplink.wait(destination="45.40.1.1")
        assert uplink.matching(destination="45.12.1.70") == []
    assert lab.gateway.healthy()


# --- the log ---

def test_a_denied_flow_has_exactly_one_line_that_says_everything(web1, log):
    assert web1.tcp_result("45.12.1.80", 8443) == "refused"
    line = log.wait(event="denied", dst="45.12.1.80")[0]
    log.settle()
    assert len(log.lines(dst="45.12.1.80")) == 1
    assert line["network"] == "web"
    assert line["src"] == web1.ipv4
    assert line["port"] == "8443"
    assert line["proto"] == "tcp"
    assert line["reason"] == "address-not-allowed"
    assert line["rule"] == "default"
    assert line["action"] == "reset"
    assert line["count"] == "1"
    assert line["ts"].endswith("Z") and len(line["ts"]) == len("2026-11-22T03:40:01.123Z")


def test_the_line_names_the_container(web1, log):
    web1.tcp_result("45.12.1.81", 8443)
    assert "web1" in log.wait(event="denied", dst="45.12.1.81")[0]["app"]


def test_the_line_names_the_container_of_an_ipv6_flow(web1, log):
    web1.tcp_result(web1.ipv4.replace("11", "12"), 9)  # so that the gateway knows the neighbour's IPv4 address
    web1.resolve("shared.example")
    web1.tcp_result("2a0e:12:1::81", 8443)
    assert "web1" in log.wait(event="denied", dst="2a0e:12:1::81")[0]["app"]


def test_a_denied_datagrams_line_says_unreachable(web1, log):
    web1.udp_result("45.12.1.82", 3478)
    line = log.wait(event="denied", dst="45.12.1.82")[0]
    assert (line["proto"], line["port"], line["action"]) == ("udp", "3478", "unreachable")


def test_the_line_names_what_the_address_was_resolved_as(web1, build1, names, log):
    name, address = names.new("https.example")
    web1.resolve(name)
    build1.tcp_result(address)
    line = log.wait(event="denied", dst=address, network="build")[0]
    assert line["name"] == name


def test_300_denied_flows_have_300_lines(web1, log):
    with web1.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for number in range(1, 301):
            send_anyway(sock, (f"45.34.{number >> 8}.{number & 255}", 4000))
    lines = log.wait(event="denied", count=300, proto="udp", port=4000, seconds=10)
    log.settle()
    assert len({line["dst"] for line in lines if line["dst"].startswith("45.34.")}) == 300
    assert len([line for line in log.lines(event="denied") if line.get("dst", "").startswith("45.34.")]) == 300


def test_a_flow_denied_again_within_seconds_is_counted_not_repeated(web1, log):
    """From its line on: what waits to be judged beside its first packet has lines as well."""
    with web1.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        send_anyway(sock, ("45.12.1.83", 4002))
        log.wait(event="denied", dst="45.12.1.83")
        log.settle()
        for _ in range(20):
            send_anyway(sock, ("45.12.1.83", 4002))
            time.sleep(0.01)
    log.settle()
    assert len(log.lines(dst="45.12.1.83")) == 1


def test_no_denial_is_uncounted(web2, log):
    """Lines and summaries of a source add up to what it sent, once the summary is due."""
    sent = 40
    with web2.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(sent):
            send_anyway(sock, ("45.12.1.84", 4003))
    end = time.monotonic() + patience(25)
    while total(log.lines(event="denied", src=web2.ipv4)) < sent:
        assert time.monotonic() < end, f"only {total(log.lines(event='denied', src=web2.ipv4))} of {sent} denials are in the log:\n{log.tail()}"
        time.sleep(0.2)
    assert total(log.lines(event="denied", src=web2.ipv4)) == sent


def test_a_flood_of_denied_flows_is_counted_in_full(web2, log):
    sent = 6000
    with web2.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for number in range(sent):
            send_anyway(sock, (f"45.35.{number >> 8}.{number & 255}", 4004))
    end = time.monotonic() + patience(30)
    while total(log.lines(event="denied", src=web2.ipv4)) < sent:
        assert time.monotonic() < end, f"only {total(log.lines(event='denied', src=web2.ipv4))} of {sent} denials are in the log"
        time.sleep(0.3)
    log.settle()
    assert total(log.lines(event="denied", src=web2.ipv4)) == sent
    assert len(log.lines(event="denied", src=web2.ipv4)) < sent


def test_one_apps_flood_does_not_blind_the_log_for_another_network(web2, build1, log):
    with web2.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for number in range(4000):
            send_anyway(sock, (f"45.36.{number >> 8}.{number & 255}", 4005))
    build1.tcp_result("45.12.1.85", 443)
    assert log.wait(event="denied", dst="45.12.1.85", seconds=10)[0]["network"] == "build"


def test_a_denied_question_has_a_line_that_says_everything(web1, log):
    web1.ask("secret.evil.example", "TXT")
    line = log.wait(event="denied", qname="secret.evil.example")[0]
    assert line["network"] == "web"
    assert line["src"] == web1.ipv4
    assert line["qtype"] == "TXT"
    assert line["reason"] == "name-not-allowed"
    assert line["rule"] == "default"
    assert line["action"] == "nxdomain"


def test_odd_octets_of_a_name_cannot_forge_a_log_line(web1, log):
    label = b"a\nts=2026 event=allowed \x1b[31m\"x"
    wire = b"\x12\x34\x01\0\0\1\0\0\0\0\0\0" + bytes([len(label)]) + label + b"\4evil\7example\0\0\1\0\1"
    web1.exchange(wire)
    log.settle()
    assert log.lines(event="allowed") == []
    with open(log.path, "rb") as file:
        assert b"\x1b" not in file.read()
    assert [line for line in log.lines(event="denied") if "evil.example" in line.get("qname", "")]
