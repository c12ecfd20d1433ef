# SPDX-License-Identifier: MIT
"""The forwarder towards apps: the rules of the design's section "DNS rules"."""

import socket
import struct
import time

import dns.flags
import dns.message
import dns.opcode
import dns.rdataclass
import pytest

from app import NoAnswer, data_of, extended_errors, rcode_of, read_tcp_message
from lab import DNS, GATEWAY_UPLINK4, GATEWAY_UPLINK6, POLICY
from namespaces import patience, wait_until


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize("server", ["192.0.2.53", "45.12.1.66", "45.9.0.53", "8.8.8.8", "10.201.1.1", "10.201.1.2", "fdc9:1::1", "fdc9:1::2",
                                    "2a0e:9::53", "2a0e:12:1::66"])
def test_a_question_to_any_address_is_answered_by_the_gateway(names, web1, server, tcp):
    name, address = names.new("https.example")
    assert web1.resolve(name, server=server, tcp=tcp) == [address]


def test_id_and_letter_case_come_back_as_they_were_sent(names, web1):
    names.add("mixed.https.example", A=names.address())
    for ident, text in ((0, "MiXeD.hTTPs.eXamPLE"), (0xFFFF, "mixed.HTTPS.example"), (0x1234, "MIXED.https.EXAMPLE")):
        query = dns.message.make_query(text, "A")
        query.id = ident
        answer = dns.message.from_wire(web1.exchange(query.to_wire()))
        assert answer.id == ident
        assert answer.question[0].name.to_text() == text + "."


def test_edns_is_answered_with_edns_and_only_then(names, web1):
    name, _ = names.new("https.example")
    assert web1.ask(name, edns=True).edns == 0
    assert web1.ask(name, edns=False).edns == -1


def test_an_unknown_edns_version_is_badvers(names, web1):
    name, _ = names.new("https.example")
    wire = bytearray(dns.message.make_query(name, "A", use_edns=0).to_wire())
    wire[-5] = 7  # version, in an OPT without options
    assert dns.message.from_wire(web1.exchange(bytes(wire))).rcode() == 16


def test_flags_of_an_answer(names, web1):
    name, _ = names.new("https.example")
    names.behave(name, ad=True)
    query = dns.message.make_query(name, "A", want_dnssec=True)
    query.flags |= dns.flags.CD
    answer = dns.message.from_wire(web1.exchange(query.to_wire()))
    assert answer.flags & dns.flags.QR and answer.flags & dns.flags.RA and answer.flags & dns.flags.RD and answer.flags & dns.flags.CD
    assert not answer.flags & dns.flags.AA
    assert not answer.flags & dns.flags.AD, "we do not validate, so we do not say so"


# --- what is not served ---

@pytest.mark.parametrize("kind", ["AXFR", "IXFR"])
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_zone_transfers_are_refused(names, web1, kind, tcp):
    name, _ = names.new("https.example")
    before = names.count()
    assert web1.ask(name, kind, tcp=tcp).rcode() in (1, 4)
    assert names.count() == before


@pytest.mark.parametrize("number", [3, 4, 254, 255, 1000])
def test_other_classes_are_refused(names, web1, number):
    before = names.count()
    wire = b"\x00\x07\x01\0\0\1\0\0\0\0\0\0\7version\4bind\0\0\x10" + struct.pack("!H", number)
    assert web1.exchange(wire)[3] & 15 in (1, 4)
    wire = b"\x00\x07\x01\0\0\1\0\0\0\0\0\0\6shared\7example\0\0\1" + struct.pack("!H", number)
    assert web1.exchange(wire)[3] & 15 in (1, 4)
    assert names.count() == before


def test_two_questions_in_one_message_are_refused(names, web1):
    before = names.count()
    question = b"\6shared\7example\0\0\1\0\1"
    assert web1.exchange(b"\0\7\1\0\0\2\0\0\0\0\0\0" + question * 2)[3] & 15 in (1, 4)
    assert web1.exchange(b"\0\7\1\0\0\0\0\0\0\0\0\0")[3] & 15 in (1, 4)
    assert names.count() == before


@pytest.mark.parametrize("opcode", [dns.opcode.IQUERY, dns.opcode.STATUS, dns.opcode.NOTIFY, dns.opcode.UPDATE, 6, 15])
def test_other_opcodes_are_refused(names, web1, opcode):
    before = names.count()
    query = bytearray(dns.message.make_query("shared.example", "A").to_wire())
    query[2] = query[2] & 0x87 | int(opcode) << 3
    assert web1.exchange(bytes(query))[3] & 15 in (1, 4)
    assert names.count() == before


def test_any_is_answered_small_and_never_forwarded(names, web1):
    name, _ = names.new("https.example")
    before = names.count()
    answer = web1.ask(name, "ANY")
    assert rcode_of(answer) == "NOERROR"
    assert len(answer.answer) == 1 and data_of(answer, "HINFO")
    assert names.count() == before


BROKEN = {
    "empty": b"", "one octet": b"\0", "short header": b"\0\1\1\0\0\1\0\0\0\0\0", "no question": b"\0\1\1\0\0\1\0\0\0\0\0\0",
    "label cut short": b"\0\1\1\0\0\1\0\0\0\0\0\0\x3fshort", "pointer to itself": b"\0\1\1\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1",
    "label of 64": b"\0\1\1\0\0\1\0\0\0\0\0\0" + b"\x40" + b"a" * 64 + b"\0\0\1\0\1",
    "too many records": b"\0\1\1\0\0\1\xff\xff\xff\xff\xff\xff\6shared\7example\0\0\1\0\1", "all ones": b"\xff" * 12,
    "more ones": b"\xff" * 600,
}


@pytest.mark.parametrize("wire", BROKEN.values(), ids=BROKEN)
def test_broken_questions_do_no_harm(lab, names, web1, wire):
    before = names.count()
    try:
        assert web1.exchange(wire, seconds=0.3)[3] & 15 in (1, 4)
    except NoAnswer:
        pass
    assert names.count() == before
    name, address = names.new("https.example")
    assert web1.resolve(name) == [address]
    assert lab.gateway.healthy()


def test_an_answer_sent_as_a_question_is_ignored(web1):
    wire = bytearray(dns.message.make_query("shared.example", "A").to_wire())
    wire[2] |= 0x80
    with pytest.raises(NoAnswer):
        web1.exchange(bytes(wire), seconds=0.5)


# --- sizes and TCP ---

def test_a_big_answer_is_truncated_over_udp_and_whole_over_tcp(names, web1):
    names.add("big.https.example", TXT=['"' + "x" * 200 + f'{number:03}"' for number in range(30)])
    answer = web1.ask("big.https.example", "TXT")
    assert answer.flags & dns.flags.TC and not answer.answer
    assert len(web1.resolve("big.https.example", "TXT", tcp=True)) == 30


def test_without_edns_512_octets_are_the_limit(names, web1):
    names.add("medium.https.example", TXT=['"' + "y" * 200 + f'{number}"' for number in range(4)])
    wire = dns.message.make_query("medium.https.example", "TXT", use_edns=-1).to_wire()
    reply = web1.exchange(wire)
    assert len(reply) <= 512 and reply[2] & 2
    assert len(web1.resolve("medium.https.example", "TXT")) == 4


def test_a_client_that_takes_4096_octets_still_gets_at_most_1232(names, web1):
    names.add("larger.https.example", TXT=['"' + "z" * 200 + f'{number}"' for number in range(12)])
    wire = dns.message.make_query("larger.https.example", "TXT", use_edns=0, payload=4096).to_wire()
    assert len(web1.exchange(wire)) <= 1232


def test_a_truncated_answer_grants_what_the_app_then_gets_over_tcp(names, web1):
    addresses = [f"45.37.0.{number}" for number in range(1, 61)]
    names.add("wide.https.example", A=addresses)
    answer = web1.ask("wide.https.example", edns=False)
    assert answer.flags & dns.flags.TC
    shown = web1.resolve("wide.https.example", tcp=True)
    assert shown and set(shown) <= set(addresses)
    for address in shown[:3] + shown[-3:]:
        assert web1.tcp_result(address) == "open"


def test_several_questions_on_one_connection(names, web1):
    pairs = [names.new("https.example") for _ in range(20)]
    with web1.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(patience(5))
        sock.connect(("192.0.2.53", 53))
        for ident, (name, _) in enumerate(pairs):
            query = dns.message.make_query(name, "A")
            query.id = ident
            wire = query.to_wire()
            sock.sendall(struct.pack("!H", len(wire)) + wire)
        got = {}
        for _ in pairs:
            answer = dns.message.from_wire(read_tcp_message(sock))
            got[answer.id] = data_of(answer, "A")
    assert got == {ident: [address] for ident, (_, address) in enumerate(pairs)}


def test_a_question_in_single_octets_over_tcp(names, web1):
    name, address = names.new("https.example")
    wire = dns.message.make_query(name, "A").to_wire()
    with web1.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(patience(5))
        sock.connect(("192.0.2.53", 53))
        for octet in struct.pack("!H", len(wire)) + wire:
            sock.send(bytes([octet]))
        assert data_of(dns.message.from_wire(read_tcp_message(sock)), "A") == [address]


def test_many_idle_connections_do_not_shut_others_out(names, web1):
    idle = []
    try:
        for _ in range(300):
            sock = web1.socket(socket.AF_INET, socket.SOCK_STREAM)
            idle.append(sock)
            sock.settimeout(patience(5))
            sock.connect(("192.0.2.53", 53))
        name, address = names.new("https.example")
        assert web1.resolve(name, tcp=True) == [address]
        assert web1.resolve(name) == [address]
    finally:
        for sock in idle:
            sock.close()


# --- families ---

def test_a_family_that_the_network_lacks_is_nodata(names, lan1):
    name, address, _ = names.new("lan-only.example", ipv6=True)
    assert lan1.resolve(name) == [address]
    answer = lan1.ask(name, "AAAA")
    assert rcode_of(answer) == "NOERROR" and not answer.answer


def test_a_missing_family_is_not_logged_as_a_denial(names, lan1, log):
    name, _, _ = names.new("lan-only.example", ipv6=True)
    lan1.ask(name, "AAAA")
    log.settle()
    assert log.lines(event="denied", qname=name) == []


def test_a_family_that_the_uplink_lacks_is_nodata_until_it_has_it(lab, names, web1):
    """Without an address there is no route; with one, the gateway sets the route itself."""
    name, _, address6 = names.new("https.example", ipv6=True)
    assert web1.resolve(name, "AAAA") == [address6]
    lab.gw.ip(f"addr del {GATEWAY_UPLINK6}/64 dev up0\n")
    lab.gw.run(["ip", "-6", "route", "del", "default"])
    try:
        wait_until(lambda: web1.resolve(name, "AAAA") == [], "AAAA is still answered without IPv6")
        assert rcode_of(web1.ask(name, "AAAA")) == "NOERROR"
        assert web1.resolve(name) != []
    finally:
        lab.gw.ip(f"addr add {GATEWAY_UPLINK6}/64 dev up0 nodad\nroute replace default via 2a0e:9::1\n")
    wait_until(lambda: web1.resolve(name, "AAAA") == [address6], "AAAA is not answered with IPv6")
    assert web1.tcp_result(address6) == "open"


# --- judging answers ---

def test_a_denied_name_in_the_chain_denies_the_answer(names, web1, log):
    names.add("tracker.bad.ok.example", A=(address := names.address()))
    names.add("cloak.https.example", CNAME="tracker.bad.ok.example.")
    answer = web1.ask("cloak.https.example")
    assert rcode_of(answer) == "NXDOMAIN" and not answer.answer
    line = log.wait(event="denied", qname="cloak.https.example")[0]
    assert line["reason"] == "denied-by-rule"
    assert web1.tcp_result(address) == "refused"


def test_an_alias_without_an_address_is_chased(names, web1):
    names.add("bare-end.cdn.example", A=(address := names.address()))
    names.add("bare-alias.https.example", CNAME="bare-end.cdn.example.")
    names.behave("bare-alias.https.example", chase=False)
    assert web1.resolve("bare-alias.https.example") == [address]
    assert web1.tcp_result(address) == "open"


def test_a_chain_without_end_is_servfail(names, web1):
    names.add("loop1.https.example", CNAME="loop2.https.example.")
    names.add("loop2.https.example", CNAME="loop1.https.example.")
    for name in ("loop1.https.example", "loop2.https.example"):
        names.behave(name, chase=False)
    assert rcode_of(web1.ask("loop1.https.example")) == "SERVFAIL"


def test_records_of_other_names_are_dropped_and_grant_nothing(names, web1):
    good, evil, extra = names.address(), names.address(), names.address()
    names.behave("stuffed.https.example", answer=[["stuffed.https.example", "A", 60, good], ["other.https.example", "A", 60, evil]],
                 additional=[["stuffed.https.example", "A", 60, extra]])
    answer = web1.ask("stuffed.https.example")
    assert [str(rrset.name) for rrset in answer.answer] == ["stuffed.https.example."]
    assert data_of(answer, "A") == [good]
    assert not answer.additional
    assert web1.tcp_result(good) == "open"
    assert web1.tcp_result(evil) == "refused"
    assert web1.tcp_result(extra) == "refused"


def test_addresses_behind_other_record_types_are_stripped(names, web1):
    address = names.address()
    names.behave("mail.https.example", answer=[["mail.https.example", "MX", 60, "10 mx.elsewhere.example."]],
                 additional=[["mx.elsewhere.example", "A", 60, address]])
    answer = web1.ask("mail.https.example", "MX")
    assert data_of(answer, "MX") == ["10 mx.elsewhere.example."]
    assert not answer.additional
    assert web1.tcp_result(address) == "refused"


def test_hints_of_an_https_record_are_stripped(names, web1):
    address = names.address()
    names.behave("hint.https.example", types=[65], answer=[["hint.https.example", "HTTPS", 60,
                                                            f"1 . alpn=h3,h2 ipv4hint={address} ipv6hint=2a0e:13::77 ech=AEX+DQBB"]])
    text = web1.resolve("hint.https.example", "HTTPS")
    assert len(text) == 1 and "alpn" in text[0] and "ech" in text[0]
    assert "hint=" not in text[0]
    assert web1.tcp_result(address) == "refused"


def test_an_https_record_whose_target_or_port_is_not_allowed_is_dropped(names, web1):
    names.behave("svc.https.example", types=[65], answer=[
        ["svc.https.example", "HTTPS", 60, "1 elsewhere.example. alpn=h2"], ["svc.https.example", "HTTPS", 60, "2 . alpn=h2 port=8443"],
        ["svc.https.example", "HTTPS", 60, "3 pool.https.example. alpn=h2"]])
    texts = web1.resolve("svc.https.example", "HTTPS")
    assert len(texts) == 1 and texts[0].startswith("3 pool.https.example.")


def test_an_https_record_with_a_mandatory_hint_is_dropped(names, web1):
    names.behave("must.https.example", types=[65], answer=[["must.https.example", "HTTPS", 60, "1 . mandatory=ipv4hint ipv4hint=45.30.9.9 alpn=h2"]])
    assert web1.resolve("must.https.example", "HTTPS") == []


def test_no_more_addresses_are_shown_than_the_policy_says(names, web1, policy):
    policy(POLICY.replace("[network web]\n", "[network web]\nmax_addresses = 4\n"))
    addresses = [f"45.37.1.{number}" for number in range(1, 21)]
    names.add("crowd.https.example", A=addresses)
    shown = web1.resolve("crowd.https.example", tcp=True)
    assert len(shown) == 4
    assert all(web1.tcp_result(address) == "open" for address in shown)
    assert web1.tcp_result(next(address for address in addresses if address not in shown)) == "refused"


def test_ttls_count_down_in_the_cache(names, web1):
    name, _ = names.new("https.example", ttl=100)
    first = web1.ask(name).answer[0].ttl
    time.sleep(2.2)
    second = web1.ask(name).answer[0].ttl
    assert second < first <= 100


def test_an_upstreams_nxdomain_is_passed_on_with_its_soa(names, web1):
    answer = web1.ask("missing.https.example")
    assert rcode_of(answer) == "NXDOMAIN"
    assert answer.authority and extended_errors(answer) == []


def test_an_upstreams_nodata_is_passed_on(names, web1):
    name, _ = names.new("https.example")
    answer = web1.ask(name, "TXT")
    assert rcode_of(answer) == "NOERROR" and not answer.answer and answer.authority


def test_an_upstreams_servfail_is_passed_on(names, web1):
    names.behave("broken.https.example", rcode="SERVFAIL")
    assert rcode_of(web1.ask("broken.https.example", seconds=6)) == "SERVFAIL"


def test_other_types_of_an_allowed_name_are_answered(names, web1):
    names.add("types.https.example", TXT='"hello"', MX="10 mx.types.https.example.", SRV="1 2 3 srv.types.https.example.", CAA='0 issue "ca.example"')
    assert web1.resolve("types.https.example", "TXT") == ['"hello"']
    assert web1.resolve("types.https.example", "MX") == ["10 mx.types.https.example."]
    assert web1.resolve("types.https.example", "SRV") == ["1 2 3 srv.types.https.example."]
    assert web1.resolve("types.https.example", "CAA") == ['0 issue "ca.example"']


# --- conntrack ---

def test_questions_addressed_to_the_gateway_leave_no_conntrack_entries(lab, names, web1):
    name, address = names.new("https.example")
    for server in ("10.201.1.1", "fdc9:1::1"):
        for tcp in (False, True):
            assert web1.resolve(name, server=server, tcp=tcp) == [address]
    entries = [line for family in ("ipv4", "ipv6") for line in conntrack(lab, family) if "dport=53 " in line]
    assert [line for line in entries if "dst=10.201.1.1 " in line or "dst=fdc9:1::1 " in line or "dst=fdc9:0001" in line] == []


def conntrack(lab, family):
    return lab.gw.run(["conntrack", "-L", "-f", family]).stdout.splitlines()


def test_upstream_questions_use_a_bounded_number_of_conntrack_entries(lab, names, web1):
    web1.resolve_many([f"n{number}.fresh.example" for number in range(5000, 7000)])
    entries = [line for line in conntrack(lab, "ipv4") if f"src={GATEWAY_UPLINK4} dst={DNS} " in line]
    assert 0 < len(entries) <= 1024
