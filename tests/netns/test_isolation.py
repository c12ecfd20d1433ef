# SPDX-License-Identifier: MIT
"""Networks are apart: what is allowed for one is not allowed for another, and none reaches another or speaks into its flows."""

import socket
import time

import dns.message
import pytest

from app import NoAnswer
from lab import GATEWAY_UPLINK4, GATEWAY_UPLINK6, SITE4, SITE6, SITE_MTU
from namespaces import patience
from packets import TCP_ACK, TCP_PSH, TCP_RST, TCP_SYN, Sniffer, send_frame, tcp_packet, udp_packet


def test_a_lease_of_one_network_opens_nothing_for_another(names, web1, build1):
    name, address, address6 = names.new("https.example", ipv6=True)
    web1.resolve(name), web1.resolve(name, "AAAA")
    assert web1.tcp_result(address) == "open"
    assert build1.tcp_result(address) == "refused"
    assert build1.tcp_result(address6) == "refused"
    assert build1.udp_result(address) == "rejected"


def test_a_name_of_one_network_is_not_answered_for_another(names, web1, build1):
    name, address = names.new("https.example")
    assert web1.resolve(name) == [address]
    assert build1.resolve(name) == [], "not from the cache either"


@pytest.mark.parametrize("target", ["ipv4", "ipv6"])
def test_one_network_does_not_reach_an_app_of_another(lab, web1, build1, log, target):
    address = getattr(build1, target)
    with Sniffer(build1, "eth0") as wire, build1.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as server:
        server.bind((address, 8080))
        server.listen()
        assert web1.tcp_result(address, 8080) == "refused"
        assert web1.udp_result(address, 8080) == "rejected"
        assert wire.matching(destination=address, dport=8080) == []
    assert log.wait(event="denied", dst=address, proto="tcp")[0]["reason"] == "isolated"


@pytest.mark.parametrize("address", ["10.201.1.1", "10.201.1.2", "10.201.2.1", GATEWAY_UPLINK4, "fdc9:1::1", "fdc9:1::2", "fdc9:2::1",
                                     GATEWAY_UPLINK6])
def test_the_gateway_itself_is_closed_but_for_dns(lab, web1, log, address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with lab.gw.socket(family) as server:
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 8080))
        server.listen()
        assert web1.tcp_result(address, 8080) == "refused"
        assert web1.udp_result(address, 8080) == "rejected"
    assert log.wait(event="denied", dst=address, port=8080)[0]["reason"] == "isolated"


def test_the_gateway_answers_a_ping_of_its_apps(web1):
    assert web1.run(["ping", "-c", "1", "-W", "5", "10.201.1.1"]).returncode == 0
    assert web1.run(["ping", "-c", "1", "-W", "5", "fdc9:1::1"]).returncode == 0


def test_apps_of_one_network_reach_each_other(web1, web2):
    """That traffic does not pass the gateway, and it must not get in its way."""
    with web2.socket() as server:
        server.bind((web2.ipv4, 8081))
        server.listen()
        assert web1.tcp_result(web2.ipv4, 8081) == "open"


def test_the_uplink_does_not_reach_the_gateway_or_its_apps(lab, web1):
    """Somebody on the uplink's own segment routes to us."""
    lab.inet.ip(f"route replace 10.201.0.0/16 via {GATEWAY_UPLINK4}\nroute replace fdc9::/16 via {GATEWAY_UPLINK6}\n")
    try:
        with Sniffer(web1, "eth0") as wire, Sniffer(lab.inet, "up0") as uplink:
            for address in (web1.ipv4, web1.ipv6, GATEWAY_UPLINK4, GATEWAY_UPLINK6, "10.201.1.1"):
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                with lab.inet.socket(family) as sock:
                    sock.settimeout(0.5)
                    with pytest.raises(TimeoutError):  # silence: a reject here would reset live flows after a recreation
                        sock.connect((address, 8080))
                with lab.inet.socket(family, socket.SOCK_DGRAM) as sock:
                    sock.sendto(b"from outside", (address, 53))
            assert uplink.wait(contains=b"from outside")
            time.sleep(0.2)
            assert wire.matching(contains=b"from outside") == []
            assert wire.matching(dport=8080) == []
            assert uplink.matching(sport=53, contains=b"from outside") == []
    finally:
        lab.inet.ip("route del 10.201.0.0/16\nroute del fdc9::/16\n")


def test_dns_is_not_served_to_the_uplink(lab):
    for address in (GATEWAY_UPLINK4, GATEWAY_UPLINK6):
        with pytest.raises(NoAnswer):
            lab.inet.ask("shared.example", server=address, seconds=0.3)


# --- speaking with another's voice ---

@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_network_cannot_send_into_another_networks_udp_flow(lab, names, web1, build1, log, family):
    """A frame that arrives on web's interface with the source, destination and ports of a flow of build's."""
    kind = "A" if family == "ipv4" else "AAAA"
    name, address, address6 = names.new("build.example", ipv6=True)
    target = address if family == "ipv4" else address6
    build1.resolve(name, kind)
    web1.tcp_result("45.12.1.66")
    with build1.udp(target, 443) as flow, Sniffer(lab.inet, "up0") as uplink:
        flow.settimeout(patience(3))
        flow.send(b"mine")
        assert flow.recv(100) == b"mine"
        source, port = flow.getsockname()[:2]
        for interface_mac in (lab.gw.mac("web0"), b"\xff" * 6):
            send_frame(web1, "eth0", interface_mac, udp_packet(source, port, target, 443, b"forged by web1"))
        flow.send(b"after")
        assert flow.recv(100) == b"after"
        assert uplink.wait(contains=b"after")
        assert uplink.matching(contains=b"forged") == []
    counted = log.wait(event="denied", reason="spoofed-source", seconds=25)[0]
    assert counted["network"] == "web"


def test_a_network_cannot_reset_another_networks_tcp_flow(lab, names, web1, build1):
    name, address = names.new("build.example")
    build1.resolve(name)
    web1.tcp_result("45.12.1.66")
    with Sniffer(build1, "eth0") as wire, build1.connect(address, 443) as flow:
        flow.settimeout(patience(3))
        source, port = flow.getsockname()
        last = wire.wait(destination=address, dport=443, sport=port, flags=TCP_ACK)[-1]
        send_frame(web1, "eth0", lab.gw.mac("web0"), tcp_packet(source, port, address, 443, TCP_RST, last.seq, 0))
        flow.sendall(b"still here\n")
        assert flow.recv(100) == b"still here\n"


@pytest.mark.parametrize("source", ["45.12.1.10", "10.201.2.11", "10.99.9.9", "127.0.0.1", "255.255.255.255", "0.0.0.0", "2a0e:12:1::10", "fdc9:2::11", "::1"])
def test_a_source_outside_the_network_is_dropped(lab, web1, source):
    target = "2a0e:1b::9" if ":" in source else "45.40.1.9"  # allowed by address, so only the source can be the reason
    with Sniffer(lab.inet, "up0") as uplink:
        web1.tcp_result("45.12.1.66")
        mac = lab.gw.mac("web0")
        send_frame(web1, "eth0", mac, udp_packet(source, 4000, target, 443, b"with a false source"))
        own = web1.ipv6 if ":" in source else web1.ipv4
        send_frame(web1, "eth0", mac, udp_packet(own, 4000, target, 443, b"with the true source"))
        assert uplink.wait(contains=b"with the true source")
        assert uplink.matching(contains=b"with a false source") == []


def test_a_false_source_cannot_ask_questions_in_another_networks_name(lab, names, web1):
    """The question would be answered by build's policy."""
    name, _ = names.new("build.example")
    before = names.count()
    web1.tcp_result("45.12.1.66")
    wire = dns.message.make_query(name, "A").to_wire()
    for target in ("10.201.2.1", "10.201.1.1", "192.0.2.53"):
        send_frame(web1, "eth0", lab.gw.mac("web0"), udp_packet("10.201.2.11", 4000, target, 53, wire))
    web1.ask("evil.example")
    time.sleep(0.2)
    assert names.count() == before


def test_one_network_cannot_ask_anothers_listener(names, web1):
    """A question to build's gateway address from web is answered by web's policy, or not at all."""
    name, _ = names.new("build.example")
    for server in ("10.201.2.1", "fdc9:2::1"):
        try:
            assert web1.resolve(name, server=server, seconds=1) == []
        except NoAnswer:
            pass


# --- state of connections ---

@pytest.mark.parametrize("liberal", [1, 0], ids=["be_liberal", "strict"])
def test_an_out_of_window_segment_does_not_reset_an_allowed_flow(lab, names, web1, liberal):
    name, address = names.new("https.example")
    web1.resolve(name)
    lab.gw.sysctl(net__netfilter__nf_conntrack_tcp_be_liberal=liberal)
    try:
        with Sniffer(web1, "eth0") as wire, web1.connect(address, 443) as flow:
            flow.settimeout(patience(3))
            source, port = flow.getsockname()
            last = wire.wait(destination=address, dport=443, sport=port, flags=TCP_ACK)[-1]
            for distance in (1 << 30, 1 << 31, -(1 << 30)):
                send_frame(web1, "eth0", lab.gw.mac("web0"),
                           tcp_packet(source, port, address, 443, TCP_ACK | TCP_PSH, last.seq + distance, last.ack + distance, b"far away"))
            flow.sendall(b"still here\n")
            assert flow.recv(100) == b"still here\n"
            assert [packet for packet in wire.matching(source=address, dport=port) if packet.flags & TCP_RST] == []
    finally:
        lab.gw.sysctl(net__netfilter__nf_conntrack_tcp_be_liberal=1)


def test_a_segment_without_a_connection_opens_nothing(lab, web1):
    """Neither allowed nor denied destinations see a segment that belongs to no flow and is no SYN of an allowed one."""
    with Sniffer(lab.inet, "up0") as uplink:
        web1.tcp_result("45.12.1.66")
        mac = lab.gw.mac("web0")
        for flags in (TCP_ACK, TCP_ACK | TCP_PSH, TCP_SYN | TCP_ACK, TCP_RST, 0, 0x29, 0x3F):
            send_frame(web1, "eth0", mac, tcp_packet(web1.ipv4, 40100 + flags, "45.12.1.71", 443, flags, 1, 1, b"smuggled"))
        web1.tcp_result("45.40.1.1")
        assert uplink.wait(destination="45.40.1.1")
        assert uplink.matching(destination="45.12.1.71") == []


@pytest.mark.parametrize("mark", range(0x51d00001, 0x51d00009))
def test_a_mark_that_an_app_gives_its_packets_is_no_verdict(web1, mark):
    """What comes back from the queue is told by marks; one of an app's own must not come that far."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with web1.socket(socket.AF_INET, kind) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            sock.settimeout(patience(5))
            with pytest.raises(OSError) as raised:
                sock.connect(("45.12.1.66", 443))
                sock.send(b"marked")
                sock.recv(100)
            assert not isinstance(raised.value, TimeoutError)


@pytest.mark.parametrize("target", ["224.0.0.251", "255.255.255.255", "10.201.1.255", "ff02::fb", "ff05::2"])
def test_multicast_and_broadcast_go_nowhere(lab, web1, target):
    mac = lab.gw.mac("web0")
    own = web1.ipv6 if ":" in target else web1.ipv4
    with Sniffer(lab.inet, "up0") as uplink, Sniffer(lab.build1, "eth0") as other:
        for to in (mac, b"\xff" * 6):
            send_frame(web1, "eth0", to, udp_packet(own, 5353, target, 5353, b"anyone there"))
        web1.tcp_result("45.40.1.1")
        assert uplink.wait(destination="45.40.1.1")
        assert uplink.matching(contains=b"anyone there") == []
        assert other.matching(contains=b"anyone there") == []


def test_fragments_of_a_denied_flow_do_not_pass(lab, web1):
    with Sniffer(lab.inet, "up0") as uplink:
        with web1.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER: may be fragmented
            sock.sendto(b"f" * 4000, ("45.12.1.72", 443))
            sock.sendto(b"g" * 4000, ("45.40.1.3", 443))
        assert uplink.wait(destination="45.40.1.3")
        assert uplink.matching(destination="45.12.1.72") == []


def test_icmp_path_mtu_errors_pass(lab, names, web1):
    """The site is behind a link of 1400 octets; the app must learn that."""
    names.add("narrow.https.example", A=SITE4, AAAA=SITE6)
    web1.resolve("narrow.https.example"), web1.resolve("narrow.https.example", "AAAA")
    for address, level, discover, do, mtu in ((SITE4, socket.IPPROTO_IP, 10, 2, 14), (SITE6, socket.IPPROTO_IPV6, 23, 2, 24)):
        with web1.udp(address, 443) as sock:
            sock.setsockopt(level, discover, do)
            end = time.monotonic() + patience(5)
            while sock.getsockopt(level, mtu) != SITE_MTU:
                assert time.monotonic() < end, f"the path MTU to {address} is still {sock.getsockopt(level, mtu)}"
                try:
                    sock.send(b"b" * 1430)
                except OSError:
                    pass
                time.sleep(0.05)
