# SPDX-License-Identifier: MIT
"""Ways into the flows of others, and around the count: ICMP errors, port 53 from every side, packets that belong to nothing."""

import contextlib
import socket
import struct
import time

import dns.message
import pytest

from app import read_exactly, read_tcp_message
from lab import GATEWAY_UPLINK4, GATEWAY_UPLINK6, SITE4, SITE6
from namespaces import patience
from packets import TCP_ACK, TCP_SYN, Sniffer, checksum, icmp_packet, ip_packet, pseudo_header, send_frame, tcp_packet, udp_packet

REDIRECT_PORT = 5300
FAMILIES = ["ipv4", "ipv6"]


def counter(lab, name):
    """Packets of a named counter in the gateway's table."""
    return lab.counters()[name]


def icmp_error(source, destination, quoted, too_big=False):
    """An ICMP error about a packet: port unreachable, or "fragmentation needed" for an MTU of 1280."""
    kind, code = ((2, 0) if too_big else (1, 4)) if ":" in source else (3, 4 if too_big else 3)
    return icmp_packet(source, destination, kind, code, struct.pack("!I", 1280 if too_big else 0) + quoted)


@contextlib.contextmanager
def flow_of_build(lab, family):
    """An answered UDP flow of build1. Yields: its socket, own address and port, the server's address."""
    name, address, address6 = lab.names.new("build.example", ipv6=True)
    target = address if family == "ipv4" else address6
    lab.build1.resolve(name, "A" if family == "ipv4" else "AAAA")
    lab.web1.tcp_result("45.12.1.66"), lab.web1.tcp_result("2a0e:12:1::66")  # so that web1 knows its gateway's MAC
    with lab.build1.udp(target, 443) as flow:
        flow.settimeout(patience(3))
        flow.send(b"mine")
        assert flow.recv(100) == b"mine"
        source, port = flow.getsockname()[:2]
        yield flow, source, port, target


# --- errors ---

@pytest.mark.parametrize("too_big", [False, True], ids=["unreachable", "too-big"])
@pytest.mark.parametrize("direction", ["out", "in"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_cannot_send_errors_about_another_networks_flow(lab, log, family, direction, too_big):
    """The error has web1's own true source; what it quotes is a packet of build1's flow, one way or the other."""
    uplink_address = GATEWAY_UPLINK4 if family == "ipv4" else GATEWAY_UPLINK6
    own = getattr(lab.web1, family)
    with flow_of_build(lab, family) as (flow, source, port, target), Sniffer(lab.inet, "up0") as uplink, Sniffer(lab.build1, "eth0") as wire:
        before = counter(lab, "spoofed_web")
        if direction == "out":
            quoted, to = udp_packet(target, 443, source, port, b"carried out by web1"), target
        else:
            quoted, to = udp_packet(uplink_address, port, target, 443, b"carried in by web1"), uplink_address
        send_frame(lab.web1, "eth0", lab.gw.mac("web0"), icmp_error(own, to, quoted, too_big))
        flow.send(b"after")
        assert flow.recv(100) == b"after"
        assert uplink.wait(contains=b"after")
        assert uplink.matching(contains=b"by web1") == []
        assert wire.matching(contains=b"by web1") == []
        assert counter(lab, "spoofed_web") == before + 1
    log.wait(event="denied", network="web", reason="spoofed-source", seconds=25)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_cannot_send_errors_about_another_networks_questions(lab, family):
    """They end at the gateway itself."""
    server = "192.0.2.53" if family == "ipv4" else "2001:db8::53"
    lab.web1.tcp_result("45.12.1.66")
    with lab.build1.udp(server, 53) as sock:
        sock.settimeout(patience(3))
        sock.send(dns.message.make_query("shared.example", "A").to_wire())
        sock.recv(2000)
        source, port = sock.getsockname()[:2]
        before = counter(lab, "spoofed_web"), counter(lab, "spoofed_build")
        quoted = udp_packet(server, 53, source, port, b"an answer")
        send_frame(lab.web1, "eth0", lab.gw.mac("web0"), icmp_error(getattr(lab.web1, family), server, quoted))
        send_frame(lab.build1, "eth0", lab.gw.mac("build0"), icmp_error(source, server, quoted))
        assert lab.build1.resolve("shared.example") and lab.web1.resolve("shared.example")
        assert (counter(lab, "spoofed_web"), counter(lab, "spoofed_build")) == (before[0] + 1, before[1])


@pytest.mark.parametrize("too_big", [False, True], ids=["unreachable", "too-big"])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_app_may_send_errors_about_its_own_flow(lab, family, too_big):
    with flow_of_build(lab, family) as (_, source, port, target), Sniffer(lab.inet, "up0") as uplink:
        quoted = udp_packet(target, 443, source, port, b"told by build1")
        send_frame(lab.build1, "eth0", lab.gw.mac("build0"), icmp_error(source, target, quoted, too_big))
        assert uplink.wait(destination=target, contains=b"told by build1")


@pytest.mark.parametrize("family", FAMILIES)
def test_errors_from_outside_reach_the_app(lab, family):
    """A router beyond the gateway says that the packet is too big for its next link."""
    lab.names.add("narrow.build.example", A=SITE4, AAAA=SITE6)
    lab.build1.resolve("narrow.build.example", "A" if family == "ipv4" else "AAAA")
    with lab.build1.udp(SITE4 if family == "ipv4" else SITE6, 443) as sock:
        level, option = (socket.IPPROTO_IP, 10) if family == "ipv4" else (socket.IPPROTO_IPV6, 23)  # (IPV6_)MTU_DISCOVER
        sock.setsockopt(level, option, 2)  # never fragment
        with pytest.raises(OSError, match="Message too long"):
            for _ in range(100):
                sock.send(b"b" * 1430)
                time.sleep(0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_error_from_the_uplink_about_an_apps_packets_does_not_pass_through(lab, family):
    """Only an app could say that: who knows a flow's inner side must not send through us in its name."""
    with flow_of_build(lab, family) as (_, source, port, target), Sniffer(lab.inet, "up0") as uplink:
        before = counter(lab, "uplink_errors")
        own = "45.9.0.1" if family == "ipv4" else "2a0e:9::1"
        send_frame(lab.inet, "up0", lab.gw.mac("up0"), icmp_error(own, target, udp_packet(target, 443, source, port, b"reflected")))
        time.sleep(0.2)
        assert [packet for packet in uplink.matching(contains=b"reflected") if packet.source != own] == []
        assert counter(lab, "uplink_errors") == before + 1


# --- questions to any server ---

def answers(sock, questions):
    """Send each (server, name), and take as many answers. Return: {server: whether the answer is to its question}."""
    sock.settimeout(patience(3))
    asked, found = {}, {}
    for server, name in questions:
        asked[server] = dns.message.make_query(name, "A")
        sock.sendto(asked[server].to_wire(), (server, 53))
    for _ in questions:
        wire, sender = sock.recvfrom(2000)
        found[sender[0]] = asked[sender[0]].is_response(dns.message.from_wire(wire))
    return found


@pytest.mark.parametrize("servers", [("192.0.2.53", "192.0.2.54"), ("10.201.1.1", "192.0.2.53"), ("192.0.2.53", "10.201.1.1"),
                                     ("2001:db8::53", "2001:db8::54"), ("fdc9:1::1", "2001:db8::53")], ids="+".join)
def test_one_socket_asks_several_servers(lab, names, web1, servers):
    """musl sends each question to all servers of resolv.conf at once, from one socket."""
    with web1.socket(socket.AF_INET6 if ":" in servers[0] else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(3):
            assert answers(sock, [(server, names.new("ok.example")[0]) for server in servers]) == {server: True for server in servers}


@pytest.mark.parametrize("servers", [("192.0.2.53", "192.0.2.54"), ("10.201.1.1", "192.0.2.53"), ("2001:db8::53", "fdc9:1::1")], ids="+".join)
def test_one_tcp_port_asks_several_servers(lab, names, web1, servers):
    family, anywhere = (socket.AF_INET6, "::") if ":" in servers[0] else (socket.AF_INET, "0.0.0.0")
    with contextlib.ExitStack() as stack:
        port = 0
        for server in servers:
            sock = stack.enter_context(web1.socket(family))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.settimeout(patience(3))
            sock.bind((anywhere, port))
            sock.connect((server, 53))
            port = sock.getsockname()[1]
            query = dns.message.make_query(names.new("ok.example")[0], "A")
            sock.sendall(struct.pack("!H", len(query.to_wire())) + query.to_wire())
            assert query.is_response(dns.message.from_wire(read_tcp_message(sock)))


def questions_in_table(lab, sock):
    """Lines of the gateway's table of flows about what a connected socket asked. (An earlier socket may have had the same port.)"""
    source, port, server = *sock.getsockname()[:2], sock.getpeername()[0]
    listed = lab.gw.run(["conntrack", "-L", "-f", "ipv6" if ":" in source else "ipv4"]).stdout
    return [line for line in listed.splitlines() if f"src={source} dst={server} sport={port} dport=53 " in line]


@pytest.mark.parametrize("server", ["10.201.1.1", "fdc9:1::1"])
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_a_question_to_the_gateway_leaves_no_flow_in_the_table(lab, web1, server, tcp):
    query = dns.message.make_query("shared.example", "A").to_wire()
    for address, tracked in ((server, False), ("2001:db8::53" if ":" in server else "192.0.2.53", True)):
        with web1.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as sock:
            sock.settimeout(patience(3))
            sock.connect((address, 53))
            sock.sendall((struct.pack("!H", len(query)) if tcp else b"") + query)
            assert read_exactly(sock, 2) if tcp else sock.recv(2000)
            assert bool(questions_in_table(lab, sock)) == tracked


@pytest.mark.parametrize("address", ["10.201.1.1", "fdc9:1::1", GATEWAY_UPLINK4])
def test_the_port_of_redirected_questions_cannot_be_reached_directly(web1, log, address):
    query = dns.message.make_query("shared.example", "A").to_wire()
    assert web1.tcp_result(address, REDIRECT_PORT) == "refused"
    assert web1.udp_result(address, REDIRECT_PORT, payload=query) == "rejected"
    assert {line["reason"] for line in log.wait(event="denied", dst=address, port=REDIRECT_PORT, count=2)} == {"isolated"}


def test_the_port_of_redirected_questions_is_closed_to_the_uplink(lab):
    with lab.inet.udp(GATEWAY_UPLINK4, REDIRECT_PORT) as sock:
        sock.settimeout(0.5)
        sock.send(dns.message.make_query("shared.example", "A").to_wire())
        with pytest.raises(TimeoutError):
            sock.recv(2000)


def repeated_of(log, source):
    """The sum of all summaries of a source's refused packets."""
    return sum(int(line["count"]) for line in log.lines(event="denied", reason="repeated", src=source))


def test_questions_to_many_servers_do_not_fill_the_table_of_flows(own_lab):
    """Each begins a flow, and the table is shared by all networks. What exceeds the rate is dropped and counted, with its source."""
    lab = own_lab
    start = time.monotonic()
    with lab.web1.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        sent = 0
        while sent < 20000 or time.monotonic() - start < 1:
            with contextlib.suppress(OSError):
                sock.sendto(b"x", (socket.inet_ntoa(struct.pack("!I", (45 << 24) + sent * 7 + 11)), 53))
            sent += 1
            if sent == 10000:
                assert lab.build1.resolve("shared.example", seconds=2), "another network is not kept from asking"
    seconds = time.monotonic() - start
    flows = int(lab.gw.read_sysctl("net.netfilter.nf_conntrack_count"))
    refused = counter(lab, "refused_web")
    assert 0 < refused <= sent - 4000
    assert flows <= 4000 + 2000 * seconds + 500
    end = time.monotonic() + patience(15)  # the reading that comes in the middle of it tells a part
    while (told := repeated_of(lab.gateway.log, lab.web1.ipv4)) < refused and time.monotonic() < end:
        time.sleep(0.1)
    assert told == refused


# --- numbers ---

def test_a_restarted_worker_does_not_count_again(own_lab):
    lab, log = own_lab, own_lab.gateway.log
    lab.web1.tcp_result("45.12.1.66")
    mac = lab.gw.mac("web0")
    for _ in range(7):
        send_frame(lab.web1, "eth0", mac, udp_packet("10.99.1.1", 1, "45.12.1.66", 443, b"x"))
    for _ in range(20):
        lab.web1.udp_result("45.12.1.67", 443)  # a repeat is refused in the kernel, and counted with its source
    log.wait(event="denied", reason="spoofed-source", count=1, seconds=25)
    log.wait(event="denied", reason="repeated", src=lab.web1.ipv4, seconds=25)
    time.sleep(5.5)  # a whole turn of reading: all is told
    told = [(line["reason"], line["count"]) for line in log.lines(event="denied") if line.get("what") == "packets"]
    assert ("spoofed-source", "7") in told
    log.mark()
    lab.gateway.kill_worker()
    lab.gateway.wait_healthy()
    send_frame(lab.web1, "eth0", mac, tcp_packet(lab.web1.ipv4, 40000, "45.12.1.66", 443, TCP_SYN | TCP_ACK, 1, 1))
    log.wait(event="denied", reason="invalid-state", seconds=25)
    time.sleep(0.5)
    assert [line for line in log.lines(event="denied") if line["reason"] in ("spoofed-source", "repeated")] == []
    assert lab.gateway.sluice("health").returncode == 0
    for _ in range(2):
        send_frame(lab.web1, "eth0", mac, udp_packet("10.99.1.1", 1, "45.12.1.66", 443, b"x"))
    assert log.wait(event="denied", reason="spoofed-source", seconds=25)[0]["count"] == "2"


@pytest.mark.parametrize("family", FAMILIES)
def test_packets_of_no_flow_are_counted(lab, web1, log, family):
    web1.tcp_result("45.12.1.66")
    before = counter(lab, "invalid_web")
    target = "45.12.1.66" if family == "ipv4" else "2a0e:12:1::66"
    for number in range(3):
        send_frame(web1, "eth0", lab.gw.mac("web0"), tcp_packet(getattr(web1, family), 40000 + number, target, 443, TCP_SYN | TCP_ACK, 1, 1))
    end = time.monotonic() + patience(3)
    while counter(lab, "invalid_web") < before + 3 and time.monotonic() < end:
        time.sleep(0.01)
    assert counter(lab, "invalid_web") == before + 3
    line = log.wait(event="denied", network="web", reason="invalid-state", seconds=25)[0]
    assert line["what"] == "packets" and line["action"] == "dropped"


@pytest.mark.parametrize("target", ["224.0.0.251", "239.255.1.1", "255.255.255.255", "ff02::fb", "ff05::2", "echo ff02::1"])
@pytest.mark.parametrize("frame", ["to us", "to all"])
def test_multicast_is_counted_whatever_its_frame(lab, web1, target, frame):
    kind, _, target = target.rpartition(" ")
    own = web1.ipv6 if ":" in target else web1.ipv4
    if kind:
        body = struct.pack("!BBHHH", 128, 0, 0, 1, 1)
        packet = ip_packet(own, target, 58, body[:2] + struct.pack("!H", checksum(pseudo_header(own, target, 58, 8) + body)) + body[4:])
    else:
        packet = udp_packet(own, 5353, target, 5353, b"anyone there")
    before = counter(lab, "multicast_web")
    send_frame(web1, "eth0", lab.gw.mac("web0") if frame == "to us" else b"\xff" * 6, packet)
    end = time.monotonic() + patience(3)
    while counter(lab, "multicast_web") == before and time.monotonic() < end:
        time.sleep(0.01)
    assert counter(lab, "multicast_web") > before


@pytest.mark.parametrize("what", ["IGMP without an address", "IGMP", "router solicitation", "MLDv2 report from ::"])
def test_housekeeping_of_kernels_is_dropped_and_no_denial(lab, web1, log, what):
    """Bridges and hosts send it unasked, every few seconds: it must not look like an attack."""
    mld = struct.pack("!BBHHH", 143, 0, 0, 0, 0)
    solicitation = struct.pack("!BBHI", 133, 0, 0, 0)
    packet = {
        "IGMP without an address": lambda: ip_packet("0.0.0.0", "224.0.0.22", 2, struct.pack("!BBHI", 0x22, 0, 0, 0)),
        "IGMP": lambda: ip_packet(web1.ipv4, "224.0.0.22", 2, struct.pack("!BBHI", 0x22, 0, 0, 0)),
        "router solicitation": lambda: ip_packet("fe80::5", "ff02::2", 58, solicitation),
        "MLDv2 report from ::": lambda: ip_packet("::", "ff02::16", 58, mld),
    }[what]()
    web1.tcp_result("45.12.1.66")  # so that the gateway's MAC is known, and the line of this is out of the way
    log.settle()
    log.mark()
    names = ("housekeeping", "spoofed_web", "multicast_web")
    before = [counter(lab, name) for name in names]
    send_frame(web1, "eth0", lab.gw.mac("web0"), packet)
    end = time.monotonic() + patience(3)
    while counter(lab, "housekeeping") == before[0] and time.monotonic() < end:
        time.sleep(0.01)
    assert counter(lab, "housekeeping") > before[0]
    assert [counter(lab, name) for name in names[1:]] == before[1:]
    assert [line for line in log.lines(event="denied") if "what" not in line] == []  # sums may be of the tests before
