# SPDX-License-Identifier: MIT
"""Whoever runs the name servers of an allowed name wants to point it inside: in other forms of an address, later, by detours."""

import ipaddress
import time

import dns.message
import pytest
from app import data_of, extended_errors, rcode_of
from lab import GATEWAY_UPLINK4, POLICY, UPSTREAM, VIRTUAL, Lab
from namespaces import wait_until
from packets import Sniffer

INSIDE4 = ["10.0.0.1", "10.201.1.1", "10.201.2.11", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.168.1.1", "0.0.0.1", "255.255.255.255",
           "224.0.0.251", "192.0.0.192", "168.63.129.16"]
UPLINK4 = [GATEWAY_UPLINK4, "45.9.0.1", "45.9.0.53", "45.9.0.255"]  # public, and inside all the same


def embedded(address):
    """Every IPv6 form of an IPv4 address that a host or a router on the way may take for it."""
    octets = ipaddress.ip_address(address).packed
    number = int.from_bytes(octets, "big")
    forms = {
        "mapped": 0xFFFF << 32 | number, "translated": 0xFFFF << 48 | number, "compatible": number,
        "NAT64": 0x0064FF9B << 96 | number, "local NAT64": 0x0064FF9B0001 << 80 | number, "local NAT64, 64 bits": 0x0064FF9B0001ABCD << 64 | number << 24,
        "6to4": 0x2002 << 112 | number << 80, "6to4 with a host": 0x2002 << 112 | number << 80 | 0x10001,
        "Teredo": 0x20010000 << 96 | 0x4136E378 << 64 | 0x80003000 << 32 | number ^ 0xFFFFFFFF, "Teredo server": 0x20010000 << 96 | number << 64,
    }
    return {form: str(ipaddress.IPv6Address(value)) for form, value in forms.items()}


@pytest.mark.parametrize("address", INSIDE4 + UPLINK4)
def test_no_embedding_of_an_inside_address_is_shown(names, web1, address):
    name, public = names.new("https.example")[0], "2a0e:13::beef"
    names.add(name, AAAA=[*embedded(address).values(), public])
    assert web1.resolve(name, "AAAA", tcp=True) == [public]


OTHERS6 = ["::", "::1", "fe80::1", "fe80::a9fe:a9fe", "fec0::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254", "fdc9:1::1", "fdc9:2::11", "ff02::1", "ff0e::1", "200::1",
           "21e::1", "100::1", "2001:db8::1", "3fff::1", "5f00::1", "2a0e:9::1", "2a0e:9::2", "2a0e:9::53", "2a0e:9::ffff:ffff"]


def test_one_answer_with_every_inside_address_opens_none(names, web1, log):
    """Two public ones between them: they alone are shown, and what opens is what is shown."""
    inside = [*OTHERS6, *(form for address in INSIDE4 + UPLINK4 for form in embedded(address).values())]
    name, public4, _ = names.new("https.example", ipv6=True)
    names.add(name, A=[*INSIDE4, public4, *UPLINK4, *(f"10.0.{number}.1" for number in range(60))],
              AAAA=[*inside[:40], "2a0e:13::a", *inside[40:], "2a0e:13::b"])
    assert web1.resolve(name, tcp=True) == [public4]
    assert sorted(web1.resolve(name, "AAAA", tcp=True)) == ["2a0e:13::a", "2a0e:13::b"]
    for address in ("10.0.0.1", "169.254.169.254", "45.9.0.53", "fd00:ec2::254", "64:ff9b::2d09:35"):
        assert web1.tcp_result(address, 443, seconds=1) != "open", address
    assert log.lines(event="denied", qname=name) == [], "there is an answer, so no denial"


@pytest.mark.parametrize("hidden", ["authority", "additional", "other owner", "private type", "AAAA for A", "behind NXDOMAIN", "behind SERVFAIL", "HTTPS hints"])
def test_an_inside_address_in_another_place_is_not_seen(names, web1, hidden):
    """Whatever an app makes of such a record, it does not get it."""
    inside, name = "192.168.7.7", names.new("https.example")[0]
    record = [name, "A", 60, inside]
    how = {
        "authority": {"answer": [], "authority": [record]},
        "additional": {"answer": [[name, "A", 60, "45.31.200.1"]], "additional": [record]},
        "other owner": {"answer": [["www." + name, "A", 60, inside]]},
        "private type": {"answer": [[name, "TYPE65280", 60, r"\# 4 c0a80707"]]},
        "AAAA for A": {"answer": [[name, "AAAA", 60, f"::ffff:{inside}"]]},
        "behind NXDOMAIN": {"answer": [record], "as_rcode": "NXDOMAIN"},
        "behind SERVFAIL": {"answer": [record], "as_rcode": "SERVFAIL"},
        "HTTPS hints": {"answer": [[name, "HTTPS", 60, f"1 . alpn=h2 ipv4hint={inside} ipv6hint=::ffff:{inside}"]]},
    }[hidden]
    names.behave(name, **how)
    kind = "HTTPS" if hidden == "HTTPS hints" else "A"
    wire = web1.exchange(dns.message.make_query(name, kind, use_edns=0).to_wire(), seconds=6)
    assert ipaddress.ip_address(inside).packed not in wire
    assert (wire[3] & 15 == 2) == (hidden == "behind SERVFAIL")


@pytest.mark.parametrize("kind", ["HTTPS", "SVCB"])
@pytest.mark.parametrize("params, shown", [("0004 0004 0a424d58", True), ("0000 0002 0004" "0004 0004 0a424d58", False), ("0004 0008 0a424d58 2d1f0a0a", True),
                                           ("0006 0010 00000000000000000000ffff0a424d58", True), ("0004 0005 0a424d5800", False),
                                           ("0006 0010 fd000000000000000000ffff0a424d58" "0004 0004 0a424d58", False), ("0001 0003 026832" "0004 0004 0a424d58", True)])
def test_a_service_record_carries_no_address(names, web1, kind, params, shown):
    """A hint, one that is mandatory, some, mapped, no multiple of an address, keys out of order, behind another parameter."""
    name = names.new("https.example")[0]
    names.behave(name, answer=[[name, kind, 60, f"hex:0001 00 {params}"]])
    wire = web1.exchange(dns.message.make_query(name, kind, use_edns=0).to_wire())
    assert bool(data_of(dns.message.from_wire(wire), kind)) == shown
    assert bytes.fromhex("0a424d58") not in wire


# --- by time ---

@pytest.mark.parametrize("kind, public, inside", [("A", "45.31.201.1", "10.201.2.11"), ("AAAA", "2a0e:13::201", "fd00:ec2::254"), ("A", "45.31.201.2", GATEWAY_UPLINK4),
                                                  ("AAAA", "2a0e:13::202", "64:ff9b::a00:1")])
def test_a_name_that_moves_inside_after_it_was_granted(names, web1, log, kind, public, inside):
    """The usual attack: the first answer is good and has TTL 0, the second one is not. The first one's lease goes on, for what it was for."""
    name = names.new("https.example")[0]
    names.add(name, 0, **{kind: public})
    assert web1.resolve(name, kind) == [public]
    names.add(name, 0, **{kind: inside})
    wait_until(lambda: web1.resolve(name, kind) == [], "the old answer is still given")
    assert extended_errors(web1.ask(name, kind)) == [17]
    assert web1.tcp_result(inside, 443, seconds=1) != "open"
    assert web1.tcp_result(public) == "open"
    assert log.wait(event="denied", qname=name)[0]["reason"] == "rebinding"


def test_an_answer_past_its_ttl_is_filtered_like_a_fresh_one(names, web1, policy):
    """It was put into the cache when the network's policy let it show a private range; servers are dead when that is over."""
    policy(POLICY.replace("[network web]\n", "[network web]\nprivate = 10.88.0.0/16\n"))
    name = names.new("https.example")[0]
    names.add(name, 0, A="10.88.0.7")
    assert web1.resolve(name) == ["10.88.0.7"]
    policy(POLICY)
    names.server("45.9.0.53", "drop")
    time.sleep(1.1)
    assert web1.resolve(name, seconds=8) == []


def test_by_an_alias_that_changes(names, web1):
    """First to an own name, then by one, two, many steps to where names inside are; the chain's names are public."""
    good = names.address()
    names.add("end.cdn.example", A="172.16.9.9", ttl=0)
    names.add("good.cdn.example", A=good, ttl=0)
    name = names.new("https.example")[0] + "x.https.example"
    names.add(name, 0, CNAME="good.cdn.example.")
    assert web1.resolve(name) == [good]
    names.add("middle.cdn.example", 0, CNAME="end.cdn.example.")
    for target in ("end.cdn.example.", "middle.cdn.example."):
        for chase in (True, False):
            names.add(name, 0, CNAME=target)
            names.behave(name, chase=chase)
            names.behave("middle.cdn.example", chase=chase)
            wait_until(lambda: web1.resolve(name) == [], f"{target} chase {chase} shows an inside address")
            answer = web1.ask(name)
            assert rcode_of(answer) == "NOERROR" and not answer.answer, "not even the chain"


@pytest.mark.parametrize("target", ["localhost", "db", "gateway.docker.internal", "printer.local", "metadata.google.internal", "1.1.168.192.in-addr.arpa", "_dns.resolver.arpa"])
def test_an_alias_to_a_name_that_means_something_inside(lab, names, web1, target):
    """The gateway asks nobody for what only means something here, and Docker's resolver never for an app."""
    names.add(target, A="45.31.202.1")
    name = names.new("https.example")[0] + ".https.example"
    names.behave(name, answer=[[name, "CNAME", 60, target + "."]])
    before = names.count()
    with Sniffer(lab.gw, "lo") as inside:
        web1.ask(name, seconds=6)
        asked = [dns.message.from_wire(query["wire"]).question[0].name.to_text().lower() for query in names.queries(before)]
        assert [packet for packet in inside.packets() if packet.destination == "127.0.0.11"] == []
    if target not in ("metadata.google.internal", "1.1.168.192.in-addr.arpa"):  # names like others: whoever answers for them is asked
        assert target + "." not in asked


def test_a_dname_leads_no_further_than_a_cname(names, web1):
    """Everything below an allowed name is turned into names of somebody else: judged by the name that was asked for, and by deny rules for the rest."""
    public, name = names.address(), "a1.dn.https.example"
    names.behave(name, answer=[["dn.https.example", "DNAME", 60, "elsewhere.example."], [name, "CNAME", 60, "a1.elsewhere.example."], ["a1.elsewhere.example", "A", 60, public],
                               ["a1.elsewhere.example", "A", 60, "10.9.8.7"], ["dn.https.example", "A", 60, "45.31.203.1"], ["elsewhere.example", "A", 60, "45.31.203.2"]])
    assert data_of(web1.ask(name), "A") == [public]
    assert web1.tcp_result(public) == "open"
    for other in ("45.31.203.1", "45.31.203.2"):
        assert web1.tcp_result(other) == "refused"
    assert rcode_of(web1.ask("a1.elsewhere.example")) == "NXDOMAIN", "the name it leads to is allowed for nobody"
    name = "a2.dn.https.example"
    names.behave(name, answer=[["dn.https.example", "DNAME", 60, "bad.ok.example."], [name, "CNAME", 60, "a2.bad.ok.example."], ["a2.bad.ok.example", "A", 60, "45.31.203.3"]])
    assert rcode_of(web1.ask(name)) == "NXDOMAIN"
    assert web1.tcp_result("45.31.203.3") == "refused"
    name = "a3.dn.https.example"  # a DNAME without its CNAME says nothing
    names.behave(name, answer=[["dn.https.example", "DNAME", 60, "elsewhere.example."], ["a3.elsewhere.example", "A", 60, "45.31.203.4"]])
    assert data_of(web1.ask(name), "A") == []
    assert web1.tcp_result("45.31.203.4") == "refused"


# --- where the gateway asks by itself ---

VIRTUAL_POLICY = UPSTREAM.replace("auto", "up0") + VIRTUAL.format(network="web", number=1) + "min_ttl = 0\nallow = **.https.example:443\n"


@pytest.fixture(scope="module")
def virtual_lab():
    with Lab(policy=VIRTUAL_POLICY, apps=["web1"], internal=["web"]) as lab:
        yield lab


@pytest.mark.parametrize("inside", ["10.201.1.2", "45.9.0.53", "192.168.0.1"])
def test_looking_up_in_the_background_leads_no_virtual_address_inside(virtual_lab, inside):
    """The app has its address and asks nothing any more; the name's owner waits until the gateway asks."""
    lab = virtual_lab
    name, real = lab.names.new("https.example", ttl=1)
    virtual = lab.web1.resolve(name)[0]
    assert lab.web1.hello(virtual).split()[4] == real
    lab.names.add(name, 0, A=inside)
    before = lab.names.count()

    def asked():
        with lab.web1.connect(virtual, 443):
            return lab.names.count() > before + 1
    with Sniffer(lab.gw, "up0") as uplink:
        wait_until(asked, "the name is not looked up in the background", seconds=20)
        assert lab.web1.hello(virtual).split()[4] == real, "it leads to where it led, or nowhere"
        assert [packet for packet in uplink.packets() if packet.destination == inside and packet.dport == 443] == []
    assert lab.web1.resolve(name) == []
