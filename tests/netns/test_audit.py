# SPDX-License-Identifier: MIT
"""Audit mode: everything passes that no rule forbids, and the log says what enforce would have denied."""

import socket
import time

import pytest

from app import rcode_of, send_anyway, talk, wait_until_broken
from lab import POLICY
from namespaces import patience
from packets import Sniffer, send_frame, udp_packet

AUDIT = POLICY.replace("[network web]\n", "[network web]\nmode = audit\n")


def test_audit_passes_what_no_rule_allows(names, web1, policy):
    policy(AUDIT)
    names.add("un.known.example", A=(address := names.address()))
    assert web1.resolve("un.known.example") == [address]
    assert web1.tcp_result(address, 8443) == "open"
    assert web1.udp_result(address, 3478) == "open"
    assert web1.tcp_result("2a0e:12:1::66", 80) == "open"


def test_audit_logs_what_enforce_would_deny(names, web1, policy, log):
    policy(AUDIT)
    names.add("noted.known.example", A=(address := names.address()))
    web1.resolve("noted.known.example")
    web1.tcp_result(address, 8443)
    question = log.wait(event="audit", qname="noted.known.example")[0]
    assert question["reason"] == "name-not-allowed"
    flow = log.wait(event="audit", dst=address)[0]
    assert (flow["name"], flow["port"], flow["proto"], flow["network"]) == ("noted.known.example", "8443", "tcp", "web")
    assert flow["reason"] in ("name-not-allowed", "address-not-allowed")
    log.settle()
    assert log.lines(event="denied", dst=address) == []


def test_audit_says_that_exfiltration_is_open(policy, lab):
    lab.gateway.log.mark()
    lab.gateway.set_policy(AUDIT)
    lab.gateway.log.wait(event="message", level="warning", seconds=5)
    texts = [line["text"] for line in lab.gateway.log.lines(event="message", level="warning")]
    assert any("audit" in text and "exfiltration" in text for text in texts)
    policy(POLICY)


def test_deny_rules_stay_in_audit_mode(names, web1, policy):
    policy(AUDIT)
    names.add("y.bad.ok.example", A=names.address())
    assert rcode_of(web1.ask("y.bad.ok.example")) == "NXDOMAIN"
    assert web1.tcp_result("45.40.66.9") == "refused"


@pytest.mark.parametrize("kind", ["A", "AAAA"])
def test_a_flood_does_not_reach_the_address_of_a_denied_name(lab, names, web1, policy, log, kind):
    """Above the rate nobody looks at the name of a flow any more: the kernel has to know the address."""
    name, *addresses = names.new("ok.example", ipv6=True)
    address, other = addresses[kind == "AAAA"], names.address() if kind == "A" else "2a0e:13::ffff"
    assert web1.resolve(name, kind) == [address]
    policy(AUDIT.replace("deny   = ", f"deny   = {name} "))
    with Sniffer(lab.inet, "up0") as uplink, web1.socket(socket.AF_INET6 if kind == "AAAA" else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for port in range(3000):
            for target in (address, other):
                send_anyway(sock, (target, 10000 + port))
        assert uplink.wait(destination=other)
        time.sleep(0.2)
        assert not uplink.matching(destination=address)
    assert log.wait(event="denied", dst=address)[0]["reason"] == "denied-by-rule"


def test_the_rebinding_filter_stays_in_audit_mode(names, web1, policy, log):
    policy(AUDIT)
    names.add("inside.known.example", A="192.168.7.7")
    assert web1.resolve("inside.known.example") == []
    assert web1.tcp_result("192.168.7.7") == "refused"
    assert log.wait(event="denied", dst="192.168.7.7")[0]["reason"] == "special-address"


def test_isolation_stays_in_audit_mode(lab, web1, build1, policy):
    policy(AUDIT)
    assert web1.tcp_result(build1.ipv4, 8080) == "refused"
    assert web1.tcp_result("10.201.1.1", 8080) == "refused"
    assert web1.tcp_result("45.9.0.1", 443) == "refused"
    assert build1.tcp_result("45.12.1.66") == "refused", "audit is for one network"


def test_anti_spoofing_stays_in_audit_mode(lab, web1, policy):
    policy(AUDIT)
    with Sniffer(lab.inet, "up0") as uplink:
        web1.tcp_result("45.12.1.66")
        send_frame(web1, "eth0", lab.gw.mac("web0"), udp_packet("10.201.2.11", 4000, "45.12.1.66", 443, b"not me"))
        send_frame(web1, "eth0", lab.gw.mac("web0"), udp_packet(web1.ipv4, 4000, "45.12.1.66", 443, b"it is me"))
        assert uplink.wait(contains=b"it is me")
        assert uplink.matching(contains=b"not me") == []


def test_local_names_stay_here_in_audit_mode(names, web1, policy):
    policy(AUDIT)
    before = names.count()
    web1.ask("database")
    web1.ask("8.8.8.8.in-addr.arpa", "PTR")
    assert names.count() == before


def test_other_protocols_stay_denied_in_audit_mode_unless_they_are_noted(lab, web1, policy, log):
    """Audit lifts "no rule allows this name, port or address": an unknown protocol is none of these."""
    policy(AUDIT)
    with Sniffer(lab.inet, "up0") as uplink, web1.socket(socket.AF_INET, socket.SOCK_RAW, 47) as raw:
        raw.sendto(bytes(32), ("45.12.1.90", 0))
        assert log.wait(dst="45.12.1.90", event="denied")[0]["reason"] == "protocol-not-allowed"
        assert uplink.matching(destination="45.12.1.90") == []


def test_back_to_enforce_ends_the_flows_that_audit_let_in(names, web1, policy):
    policy(AUDIT)
    name, allowed = names.new("https.example")
    web1.resolve(name)
    with web1.connect("45.12.1.66", 8443) as audited, web1.connect(allowed, 443) as kept:
        assert talk(audited, "hello").startswith("from ")
        assert talk(kept, "one") == "one"
        policy(POLICY)
        assert talk(kept, "two") == "two"
        wait_until_broken(audited)
    assert web1.tcp_result("45.12.1.66", 8443) == "refused"


def test_what_audit_resolved_is_closed_in_enforce(names, web1, policy):
    policy(AUDIT)
    names.add("brief.known.example", A=(address := names.address()))
    web1.resolve("brief.known.example")
    assert web1.tcp_result(address) == "open"
    policy(POLICY)
    assert web1.tcp_result(address) == "refused"
    assert web1.resolve("brief.known.example") == []


def test_audit_until_a_date_that_has_passed_is_enforce(web1, policy):
    policy(POLICY.replace("[network web]\n", "[network web]\nmode = audit\naudit_until = 2020-01-01\n"))
    assert web1.tcp_result("45.12.1.66") == "refused"
    assert rcode_of(web1.ask("some.known.example")) == "NXDOMAIN"


def test_audit_until_a_later_date_is_audit(web1, policy):
    policy(POLICY.replace("[network web]\n", "[network web]\nmode = audit\naudit_until = 2099-01-01\n"))
    end = time.monotonic() + patience(3)
    while web1.tcp_result("45.12.1.66") != "open":
        assert time.monotonic() < end
