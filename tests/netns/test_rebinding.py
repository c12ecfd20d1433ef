# SPDX-License-Identifier: MIT
"""An allowed name cannot be pointed into space that is not the Internet: in no form that an address can be written in."""

import time

import pytest

from app import extended_errors, rcode_of
from lab import POLICY

INSIDE4 = ["0.0.0.0", "0.1.2.3", "10.0.0.1", "10.201.1.11", "10.201.2.11", "10.201.1.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.1.2.3",
           "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.53", "192.168.1.1", "198.18.0.1", "198.51.100.7", "203.0.113.9",
           "224.0.0.251", "239.255.255.250", "240.0.0.1", "255.255.255.255", "168.63.129.16",
           "45.9.0.2", "45.9.0.1", "45.9.0.53"]  # the gateway itself and the uplink's own subnet
INSIDE6 = ["::", "::1", "fe80::1", "fc00::1", "fdc9:1::11", "fdc9:2::11", "fd00:ec2::254", "fec0::1", "ff02::fb", "2001:db8::1", "100::1", "2001::1",
           "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1",
           "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a00:1::1", "2002:a9fe:a9fe::1", "2001:0:a00:1::1", "2001:0:4136:e378:8000:63bf:f5ff:fffe",
           "2a0e:9::2", "2a0e:9::53"]


@pytest.mark.parametrize("address", INSIDE4 + INSIDE6)
def test_an_inside_address_is_taken_out(names, web1, address):
    kind = "AAAA" if ":" in address else "A"
    name = names.new("https.example")[0]
    names.add(name, **{kind: address})
    answer = web1.ask(name, kind)
    assert rcode_of(answer) == "NOERROR" and not answer.answer
    assert extended_errors(answer) == [17]
    if address not in ("0.0.0.0", "::", "127.0.0.1", "127.1.2.3", "::1") and not address.startswith(("ff", "224", "239", "255", "240", "0.", "fe80", "::")):
        assert web1.tcp_result(address, 443, seconds=2) != "open"


@pytest.mark.parametrize("kind, address", [("A", "169.254.169.254"), ("AAAA", "::ffff:10.0.0.1")])
def test_it_is_logged(names, web1, log, kind, address):
    time.sleep(1.1)  # above 50 lines a second there are summaries only
    name = names.new("https.example")[0]
    names.add(name, **{kind: address})
    web1.ask(name, kind)
    line = log.wait(event="denied", qname=name)[0]
    assert (line["reason"], line["action"], line["qtype"]) == ("rebinding", "nodata", kind)


def test_public_addresses_of_a_mixed_answer_stay(names, web1):
    public = names.address()
    names.add("mixed-in.https.example", A=["10.0.0.1", public, "169.254.169.254"])
    assert web1.resolve("mixed-in.https.example") == [public]
    assert web1.tcp_result(public) == "open"


def test_an_alias_into_inside_space_is_taken_out(names, web1):
    names.add("inside.cdn.example", A="192.168.0.10")
    names.add("alias-in.https.example", CNAME="inside.cdn.example.")
    assert web1.resolve("alias-in.https.example") == []


def test_private_ranges_that_the_network_names_are_shown(names, web1, policy):
    policy(POLICY.replace("[network web]\n", "[network web]\nprivate = 10.77.0.0/16 fd77::/16\n"))
    names.add("nas.https.example", A=["10.77.1.1", "10.78.1.1"], AAAA=["fd77::1", "fd78::1"])
    assert web1.resolve("nas.https.example") == ["10.77.1.1"]
    assert web1.resolve("nas.https.example", "AAAA") == ["fd77::1"]


def test_a_private_range_that_a_reload_takes_away_is_closed(names, web1, policy, log):
    policy(POLICY.replace("[network web]\n", "[network web]\nprivate = 10.77.0.0/16\n"))
    name = names.new("https.example")[0]
    names.add(name, A="10.77.5.7")
    assert web1.resolve(name) == ["10.77.5.7"]
    assert web1.tcp_result("10.77.5.7", 443, seconds=1) != "refused", "it goes out, where nobody has this address"
    policy(POLICY)
    log.mark()
    assert web1.tcp_result("10.77.5.7", 443) == "refused"
    line = log.wait(event="denied", dst="10.77.5.7")[0]
    assert (line["name"], line["reason"]) == (name, "special-address")


def test_private_ranges_are_those_of_one_network_only(names, build1, policy):
    policy(POLICY.replace("[network web]\n", "[network web]\nprivate = 10.77.0.0/16\n"))
    names.add("nas.build.example", A="10.77.1.1")
    assert build1.resolve("nas.build.example") == []


def test_an_ipv6_address_that_embeds_a_public_one_is_shown(names, web1):
    """6to4 and NAT64 of 45.30.0.1: what they embed is not inside."""
    names.add("tunnel.https.example", AAAA=["2002:2d1e:1::1", "64:ff9b::2d1e:1"])
    assert sorted(web1.resolve("tunnel.https.example", "AAAA")) == ["2002:2d1e:1::1", "64:ff9b::2d1e:1"]
