# SPDX-License-Identifier: MIT
"""A name that is not allowed never leaves the gateway, in whatever form it is asked for."""

import os
import random
import socket
import struct
import time

import dns.edns
import dns.message
import dns.rcode
import dns.rdatatype
import dns.reversename

from app import NoAnswer, extended_errors, family_of, rcode_of
from lab import POLICY
from namespaces import patience
from packets import Sniffer

TYPES = ["A", "AAAA", "TXT", "MX", "NS", "SOA", "CNAME", "SRV", "HTTPS", "SVCB", "NULL", "CAA", "DNSKEY", "DS", "NAPTR"]


def odd_label(generator):
    return bytes(generator.randrange(256) for _ in range(generator.randrange(1, 64)))


def denied_wire(generator, number):
    """One of many forms of a question for a name that is not allowed; each carries the mark "leak"."""
    form = number % 8
    kind = dns.rdatatype.from_text(generator.choice(TYPES)) if form != 3 else 12
    if form == 0:
        labels = [b"leak%d" % number, b"evil", b"example"]
    elif form == 1:
        labels = [odd_label(generator), b"leak", b"evil", b"example"]
    elif form == 2:  # looks like an allowed name, is none
        labels = [b"leak%d" % number, b"https", b"example", b"evil", b"example"]
    elif form == 3:  # PTR
        labels = [b"%d" % generator.randrange(256) for _ in range(4)] + [b"leak", b"in-addr", b"arpa"] if number % 16 == 3 else \
            [b"%d" % generator.randrange(256) for _ in range(4)] + [b"in-addr", b"arpa"]
    elif form == 4:  # as long as names can be
        labels = [b"leak" + b"x" * 59, b"y" * 63, b"z" * 63, b"evil", b"example"]
    elif form == 5:  # a dot inside a label
        labels = [b"leak%d.https" % number, b"example", b"evil"]
    elif form == 6:
        labels = [b"LeAk%d" % number, b"xhttps", b"example"]
    else:  # below a name that is allowed exactly
        labels = [b"leak%d" % number, b"shared", b"example"]
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    opt = b"\0\0\x29\x04\xd0\0\0\x80\0\0\0" if number % 3 == 0 else b""
    return struct.pack("!HHHHHH", number & 0xFFFF, 0x0100, 1, 0, 0, 1 if opt else 0) + name + struct.pack("!HH", kind, 1) + opt


def ask_all_udp(app, server, wires):
    """Send all questions with some in flight. Return: rcodes of the answers, in any order."""
    codes, waiting, wires = [], 0, list(wires)
    with app.socket(family_of(server), socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.connect((server, 53))
        sock.settimeout(patience(10))
        while wires or waiting:
            while wires and waiting < 50:
                sock.send(wires.pop())
                waiting += 1
            codes.append(sock.recv(65535)[3] & 15)
            waiting -= 1
    return codes


def ask_all_tcp(app, server, wires):
    codes = []
    with app.socket(family_of(server)) as sock:
        sock.settimeout(patience(10))
        sock.connect((server, 53))
        for start in range(0, len(wires), 16):
            batch = wires[start:start + 16]
            sock.sendall(b"".join(struct.pack("!H", len(wire)) + wire for wire in batch))
            for _ in batch:
                size = struct.unpack("!H", receive(sock, 2))[0]
                codes.append(receive(sock, size)[3] & 15)
    return codes


def receive(sock, size):
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        assert piece, "the connection was closed"
        data += piece
    return data


def test_ten_thousand_denied_questions_and_not_one_leaves(lab, names, web1):
    generator = random.Random(int(os.environ.get("SLUICE_SEED", "7")))
    wires = [denied_wire(generator, number) for number in range(10000)]
    before = names.count()
    with Sniffer(lab.inet, "up0") as uplink:
        codes = ask_all_udp(web1, "192.0.2.53", wires[:4000])
        codes += ask_all_udp(web1, "10.201.1.1", wires[4000:6000])
        codes += ask_all_udp(web1, "fdc9:1::1", wires[6000:7000])
        codes += ask_all_udp(web1, "2a0e:9::53", wires[7000:8000])
        codes += ask_all_tcp(web1, "192.0.2.53", wires[8000:9000])
        codes += ask_all_tcp(web1, "2a0e:9::53", wires[9000:])
        web1.resolve(names.new("https.example")[0])  # this one does leave, so we see what there is to see
        assert uplink.wait(dport=53)
        leaked = [packet for packet in uplink.packets() if b"leak" in packet.payload.lower() or b"in-addr" in packet.payload.lower()]
    assert leaked == []
    assert names.count() == before + 1
    assert [name for name in names.asked_of_docker() if not name.endswith(".201.10.in-addr.arpa.")] == [], "Docker's resolver forwards, too"
    assert len(codes) == 10000
    assert set(codes) <= {dns.rcode.NXDOMAIN, dns.rcode.NOERROR}


def test_a_denied_name_is_nxdomain_that_nobody_may_cache(web1):
    answer = web1.ask("no.evil.example")
    assert rcode_of(answer) == "NXDOMAIN"
    assert not answer.answer and not answer.authority


def test_a_denied_answer_says_blocked_to_those_who_speak_edns(web1):
    assert extended_errors(web1.ask("no.evil.example", edns=True)) == [15]
    answer = web1.ask("no.evil.example", edns=False)
    assert answer.edns == -1 and rcode_of(answer) == "NXDOMAIN"


def test_the_parent_of_an_allowed_name_is_nodata(web1):
    """musl and others stop at NXDOMAIN of a parent."""
    for name in ("b.parent.example", "parent.example"):
        answer = web1.ask(name)
        assert rcode_of(answer) == "NOERROR" and not answer.answer, name
    assert rcode_of(web1.ask("a.b.parent.example")) == "NOERROR"
    assert rcode_of(web1.ask("c.b.parent.example")) == "NXDOMAIN"


def test_the_parent_of_an_allowed_name_is_not_forwarded(names, web1):
    before = names.count()
    web1.ask("b.parent.example")
    assert names.count() == before


def test_a_search_suffix_without_an_allowed_name_is_nxdomain(web1):
    """musl ends its search list at NODATA."""
    assert rcode_of(web1.ask("shared.example.corp.internal")) == "NXDOMAIN"


def test_local_names_never_leave(names, web1, policy):
    """Also where every name is allowed."""
    policy(POLICY.replace("deny   = **.bad", "allow  = *\ndeny   = **.bad"))
    before = names.count()
    for name in ("db", "web-1", "localhost", "x.localhost", "printer.local", "x.invalid", "x.onion", "host.docker.internal", "gateway.docker.internal"):
        names.add(name, A=names.address())
        assert rcode_of(web1.ask(name)) in ("NXDOMAIN", "NOERROR"), name
    assert names.count() == before


def test_a_pointer_question_is_answered_from_leases(names, web1, build1):
    name, address = names.new("https.example")
    web1.resolve(name)
    reverse = ".".join(reversed(address.split("."))) + ".in-addr.arpa"
    before = names.count()
    assert web1.resolve(reverse, "PTR") == [name + "."]
    assert rcode_of(build1.ask(reverse, "PTR")) == "NXDOMAIN"
    assert names.count() == before


def test_an_ipv6_pointer_question_is_answered_from_leases(names, web1):
    name, _, address6 = names.new("https.example", ipv6=True)
    web1.resolve(name, "AAAA")
    assert web1.resolve(dns.reversename.from_address(address6).to_text(), "PTR") == [name + "."]


def test_a_pointer_question_without_a_lease_never_leaves(names, web1):
    before = names.count()
    for name in ("8.8.8.8.in-addr.arpa", "secret.8.8.8.8.in-addr.arpa", "8.in-addr.arpa", "1.0.0.127.in-addr.arpa", "secret.ip6.arpa",
                 dns.reversename.from_address("2a0e:12:1::66").to_text()):
        assert rcode_of(web1.ask(name, "PTR")) in ("NXDOMAIN", "NOERROR"), name
    assert names.count() == before


def test_a_pointer_question_is_forwarded_when_a_rule_says_so(names, web1, policy):
    policy(POLICY.replace("deny   = **.bad", "allow  = **.12.45.in-addr.arpa\ndeny   = **.bad"))
    names.add("10.1.12.45.in-addr.arpa", PTR="server.example.")
    assert web1.resolve("10.1.12.45.in-addr.arpa", "PTR") == ["server.example."]


def test_edns_options_of_an_app_are_not_passed_on(names, web1):
    """An option is a channel too: client subnet, cookie, padding, and those that nobody knows."""
    name, _ = names.new("https.example")
    before = names.count()
    options = [dns.edns.GenericOption(code, b"exfil-in-an-option") for code in (8, 10, 12, 65001)]
    query = dns.message.make_query(name, "A", use_edns=0, options=options)
    web1.exchange(query.to_wire())
    sent = names.queries(before)
    assert sent and all(b"exfil" not in query["wire"] for query in sent)


def test_what_an_app_puts_behind_its_question_is_not_passed_on(names, web1):
    name, _ = names.new("https.example")
    before = names.count()
    try:
        web1.exchange(dns.message.make_query(name, "A").to_wire() + b"exfil-behind-it", seconds=2)
    except NoAnswer:
        pass
    assert all(b"exfil" not in query["wire"] for query in names.queries(before))


def test_letter_case_of_a_question_is_not_passed_on(names, web1):
    """0x20 randomness replaces the app's own letter case: otherwise case would carry bits out."""
    name, address = names.new("abcdefghijklmnopqrstuvwxyz.https.example", ttl=0)
    asked, seen = name.replace("abcdefghijklmnopqrstuvwxyz", "AbCdEfGhIjKlMnOpQrStUvWxYz"), []
    for _ in range(4):
        before = names.count()
        assert web1.resolve(asked) == [address]
        seen += [dns.message.from_wire(query["wire"]).question[0].name.to_text() for query in names.queries(before)]
        time.sleep(1.1)
    assert seen and asked + "." not in seen
    assert len(set(seen)) == len(seen)


def test_no_question_leaves_past_the_forwarder(lab, web1):
    """An app that asks a server of its own choice over any transport talks to the gateway."""
    with Sniffer(lab.inet, "up0") as uplink:
        for server in ("45.9.0.53", "45.12.1.66", "2a0e:9::53"):
            for tcp in (False, True):
                assert rcode_of(web1.ask("direct.evil.example", server=server, tcp=tcp)) == "NXDOMAIN"
        web1.tcp_result("45.9.0.53", 853)
        web1.udp_result("45.9.0.53", 853, seconds=0.5)
        assert [packet for packet in uplink.packets() if b"evil" in packet.payload or packet.dport == 853] == []
