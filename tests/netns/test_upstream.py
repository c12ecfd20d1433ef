# SPDX-License-Identifier: MIT
"""The forwarder towards its upstreams: what it sends, whom it believes, and what it does when nobody answers."""

import socket
import time

import dns.message
import pytest

from app import data_of, rcode_of
from lab import DNS, DNS6, DNS_CORP, DNS_NOBODY, DNS_SECOND, POLICY
from namespaces import patience

TWO_SERVERS = POLICY.replace(f"server = {DNS}\n", f"server = {DNS} {DNS_SECOND}\n")


def timed(call):
    start = time.monotonic()
    result = call()
    return result, time.monotonic() - start


def test_an_upstream_question_is_the_forwarders_own(names, web1):
    """Random id, port and letter case; our OPT without options; recursion desired."""
    before = names.count()
    pairs = [names.new("averyverylongname.https.example") for _ in range(40)]
    for name, address in pairs:
        assert web1.resolve(name) == [address]
    queries = names.queries(before)
    messages = [dns.message.from_wire(query["wire"]) for query in queries]
    assert len({message.id for message in messages}) > 35
    assert len({query["port"] for query in queries}) > 10
    assert len({message.question[0].name.to_text().partition(".")[2] for message in messages}) > 35
    for message in messages:
        assert message.edns == 0 and not message.options and message.payload == 1232
        assert message.flags & dns.flags.RD


def test_questions_come_from_a_pool_of_ports_that_cannot_be_guessed(names, web1):
    before = names.count()
    web1.resolve_many([f"n{number}.fresh.example" for number in range(10000, 12000)], window=2)  # those of one turn share a port
    ports = {query["port"] for query in names.queries(before)}
    assert len(ports) >= 200


@pytest.mark.parametrize("wrong", ["id", "port", "question", "case"])
def test_a_forged_answer_is_not_believed(names, web1, wrong):
    """The forged answer is there first; the right one comes after it."""
    good, evil = names.address(), names.address()
    name = f"abcdefghijklmnop-{wrong}.https.example"
    names.add(name, A=good)
    names.behave(name, delay=0.2, forged=[{"wrong": [wrong], "answer": [[name, "A", 60, evil]]}])
    assert web1.resolve(name) == [good]
    assert web1.tcp_result(evil) == "refused"


def test_equal_questions_in_flight_are_joined_and_each_app_gets_its_own_answer(names, lab):
    address = names.address()
    name = "joined.https.example"
    names.add(name, A=address)
    names.behave(name, delay=0.5)
    before = names.count()
    sockets = []
    for number in range(50):
        app = (lab.web1, lab.web2)[number % 2]
        sock = app.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.settimeout(patience(5))
        sock.connect(("192.0.2.53", 53))
        text = "".join(letter.upper() if number >> position & 1 else letter for position, letter in enumerate("joined")) + ".https.example"
        query = dns.message.make_query(text, "A", use_edns=0 if number % 3 else -1)
        query.id = number * 7
        sock.send(query.to_wire())
        sockets.append((sock, query))
    for sock, query in sockets:
        answer = dns.message.from_wire(sock.recv(4096))
        assert answer.id == query.id
        assert answer.question[0].name.to_text() == query.question[0].name.to_text()
        assert answer.edns == query.edns
        assert data_of(answer, "A") == [address]
        sock.close()
    assert names.count() == before + 1


def test_joined_questions_are_judged_for_each_network(names, lab):
    address = names.address()
    name = "judged.both.example"
    names.add(name, A=address)
    names.behave(name, delay=0.5)
    wire = dns.message.make_query(name, "A").to_wire()
    with lab.build1.socket(socket.AF_INET, socket.SOCK_DGRAM) as allowed, lab.web1.socket(socket.AF_INET, socket.SOCK_DGRAM) as denied:
        for sock in (allowed, denied):
            sock.settimeout(patience(5))
            sock.connect(("192.0.2.53", 53))
            sock.send(wire)
        assert rcode_of(dns.message.from_wire(denied.recv(4096))) == "NXDOMAIN"
        assert data_of(dns.message.from_wire(allowed.recv(4096)), "A") == [address]
    assert lab.build1.tcp_result(address) == "open"
    assert lab.web1.tcp_result(address) == "refused"


def test_a_truncated_upstream_answer_is_fetched_over_tcp(names, web1):
    addresses = [f"45.37.2.{number}" for number in range(1, 15)]
    names.add("tc.https.example", A=addresses)
    names.behave("tc.https.example", tc=True, transports=["udp"])
    before = names.count()
    shown = web1.resolve("tc.https.example")
    assert shown and set(shown) <= set(addresses)
    assert [query["transport"] for query in names.queries(before)] == ["udp", "tcp"]
    assert web1.tcp_result(shown[0]) == "open"


def test_what_a_truncated_upstream_answer_shows_is_not_granted(names, web1):
    real, shown = names.address(), names.address()
    names.add("tc2.https.example", A=real)
    names.behave("tc2.https.example", transports=["udp"], tc="with-records", answer=[["tc2.https.example", "A", 60, shown]])
    assert web1.resolve("tc2.https.example") == [real]
    assert web1.tcp_result(shown) == "refused"


def test_one_lost_packet_is_made_up_for(names, web1):
    name, address = names.new("https.example")
    names.behave(name, drop=True, times=1)
    assert web1.resolve(name) == [address]


def test_a_dead_server_is_made_up_for_within_a_second(names, web1, policy, slow_machine):
    policy(TWO_SERVERS)
    names.server(DNS, "drop")
    took = []
    for _ in range(3):
        name, address = names.new("https.example")
        result, seconds = timed(lambda name=name: web1.resolve(name))
        assert result == [address]
        took.append(seconds)
    assert min(took) < (5 if slow_machine else 1)


def test_a_server_that_fails_is_made_up_for(names, web1, policy, slow_machine):
    policy(TWO_SERVERS)
    names.server(DNS, "servfail")
    name, address = names.new("https.example")
    result, seconds = timed(lambda: web1.resolve(name))
    assert result == [address]
    assert seconds < (5 if slow_machine else 1)


def test_a_server_that_refuses_is_made_up_for(names, web1, policy):
    policy(TWO_SERVERS)
    names.server(DNS, "refused")
    name, address = names.new("https.example")
    assert web1.resolve(name) == [address]


def test_a_host_without_a_name_server_is_made_up_for(names, web1, policy, slow_machine):
    """Its kernel answers with ICMP port unreachable."""
    policy(POLICY.replace(f"server = {DNS}\n", f"server = {DNS_NOBODY} {DNS}\n"))
    name, address = names.new("https.example")
    result, seconds = timed(lambda: web1.resolve(name))
    assert result == [address]
    assert seconds < (5 if slow_machine else 1)


def test_servfail_within_three_seconds_when_all_upstreams_are_dead(names, web1, policy, slow_machine):
    """Docker's resolver gives up after four."""
    policy(TWO_SERVERS)
    names.server(DNS, "drop")
    names.server(DNS_SECOND, "drop")
    answer, seconds = timed(lambda: web1.ask(names.new("https.example")[0], seconds=6))
    assert rcode_of(answer) == "SERVFAIL"
    assert seconds < (12 if slow_machine else 3.2)


def test_names_in_use_go_on_when_all_upstreams_are_dead(names, web1, slow_machine):
    """RFC 8767: what was known serves on, at once after the first failure, and is asked for again meanwhile."""
    name, address = names.new("https.example", ttl=0)
    assert web1.resolve(name) == [address]
    names.server(DNS, "drop")
    first = web1.ask(name, edns=True, seconds=6)
    assert data_of(first, "A") == [address]
    assert first.answer[0].ttl == 30
    assert [(option.otype, option.code) for option in first.options] == [(15, 3)], "EDE 3, Stale Answer"
    answer, seconds = timed(lambda: web1.ask(name, seconds=6))
    assert data_of(answer, "A") == [address]
    assert seconds < (2 if slow_machine else 0.5), "nobody waits for servers that are known to fail"
    assert web1.tcp_result(address) == "open"
    names.server(DNS, "up")
    moved = names.address()
    names.add(name, A=moved, ttl=0)
    end = time.monotonic() + patience(10)
    while web1.resolve(name) != [moved]:
        assert time.monotonic() < end, "the servers are back, and still the old answer is given"
        time.sleep(0.2)


def test_denied_names_are_answered_at_once_when_all_upstreams_are_dead(names, web1, slow_machine):
    names.server(DNS, "drop")
    answer, seconds = timed(lambda: web1.ask("dead.evil.example"))
    assert rcode_of(answer) == "NXDOMAIN"
    assert seconds < (2 if slow_machine else 0.5)


def test_slow_names_do_not_delay_others(names, web1, slow_machine):
    names.behave("sleepy.https.example", delay=2)
    names.add("sleepy.https.example", A=names.address())
    with web1.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.53", 53))
        sock.send(dns.message.make_query("sleepy.https.example", "A").to_wire())
        name, address = names.new("https.example")
        result, seconds = timed(lambda: web1.resolve(name))
    assert result == [address]
    assert seconds < (2 if slow_machine else 0.5)


def test_it_recovers_when_the_upstream_comes_back(names, web1):
    names.server(DNS, "drop")
    name, address = names.new("https.example")
    assert rcode_of(web1.ask(name, seconds=6)) == "SERVFAIL"
    names.server(DNS, "up")
    end = time.monotonic() + patience(5)
    while web1.resolve(name) != [address]:
        assert time.monotonic() < end
        time.sleep(0.2)


def test_names_with_an_upstream_of_their_own_are_asked_there_only(names, web1, policy):
    policy(POLICY.replace("[network web]", f"[upstream corp]\nmatch = **.corp.example\nserver = {DNS_CORP}\nprivate = 10.77.0.0/16\n[network web]")
           .replace("deny   = **.bad", "allow  = **.corp.example:443\ndeny   = **.bad"))
    names.add("wiki.corp.example", A="10.77.0.5")
    names.add("evil.corp.example", A="10.78.0.5")
    before = names.count()
    assert web1.resolve("wiki.corp.example") == ["10.77.0.5"]
    assert web1.resolve("evil.corp.example") == [], "only the range that the section names"
    assert {query["server"] for query in names.queries(before)} == {DNS_CORP}
    before = names.count()
    web1.resolve(names.new("https.example")[0])
    assert {query["server"] for query in names.queries(before)} == {DNS}


def test_resolv_conf_is_followed(own_lab):
    """`server = auto`: no reload is needed, and a file that is of no use changes nothing."""
    names, web1, log = own_lab.names, own_lab.web1, own_lab.gateway.log
    own_lab.gateway.stop()
    own_lab.resolv_conf(own_lab.gw, f"nameserver {DNS}\n")
    own_lab.gateway.start(POLICY.replace(f"server = {DNS}\n", "server = auto\n"))

    def asked():
        before = names.count()
        name, address = names.new("https.example")
        assert web1.resolve(name) == [address]
        return {query["server"] for query in names.queries(before)}

    assert asked() == {DNS}
    log.mark()
    own_lab.resolv_conf(own_lab.gw, f"# Generated by Docker Engine.\nnameserver 127.0.0.11\n# ExtServers: [host({DNS_SECOND})]\n")
    log.wait(event="message", level="info", text=f"resolv.conf has changed: the upstream servers are now {DNS_SECOND}:53")
    assert asked() == {DNS_SECOND}
    rules = own_lab.gw.nft_list("chain", "inet", "sluice", "upstream_servers")
    assert DNS_SECOND in rules and DNS not in rules.replace(DNS_SECOND, "")
    log.mark()
    own_lab.resolv_conf(own_lab.gw, "nameserver 127.0.0.11\n")
    said = log.wait(event="message", level="error", count=2)
    assert "finds no usable name server" in said[0]["text"] and f"the servers of before stay: {DNS_SECOND}:53" in said[1]["text"]
    assert asked() == {DNS_SECOND}
    log.mark()
    own_lab.resolv_conf(own_lab.gw, f"nameserver {DNS}\noptions ndots:0\n")
    log.wait(event="message", level="info", text=f"resolv.conf has changed: the upstream servers are now {DNS}:53")
    assert asked() == {DNS}


def test_a_change_of_resolv_conf_does_not_bring_in_a_policy_that_was_not_reloaded(own_lab):
    """What is on disk may be half written, and the one who edits it decides when it is taken."""
    own_lab.gateway.stop()
    own_lab.resolv_conf(own_lab.gw, f"nameserver {DNS}\n")
    own_lab.gateway.start(POLICY.replace(f"server = {DNS}\n", "server = auto\n"))
    own_lab.gateway.log.mark()
    own_lab.gateway.write_policy("[network web]\nsubnt = oops\n")
    own_lab.gateway.log.wait(event="message", level="error")
    own_lab.resolv_conf(own_lab.gw, f"nameserver {DNS_SECOND}\n")
    own_lab.gateway.log.wait(event="message", level="info", text=f"resolv.conf has changed: the upstream servers are now {DNS_SECOND}:53")
    name, address = own_lab.names.new("https.example")
    assert own_lab.web1.resolve(name) == [address]


def test_negative_answers_are_kept_as_long_as_their_soa_says(names, web1):
    """RFC 2308: the SOA's minimum bounds the TTL, which counts down; NXDOMAIN and NODATA are kept by name and type."""
    soa = [["https.example", "SOA", 3600, "ns.invalid. host.invalid. 1 3600 600 86400 2"]]
    names.behave("gone.https.example", answer=[], authority=soa, as_rcode="NXDOMAIN")
    names.behave("empty.https.example", answer=[], authority=soa, types=[1])
    names.add("empty.https.example", AAAA="2a0e:13::ffff")
    before = names.count()
    for _ in range(3):
        assert rcode_of(web1.ask("gone.https.example")) == "NXDOMAIN"
        empty = web1.ask("empty.https.example")
        assert rcode_of(empty) == "NOERROR" and not empty.answer
        assert empty.authority and empty.authority[0].ttl <= 2
        assert web1.resolve("empty.https.example", "AAAA") == ["2a0e:13::ffff"], "NODATA for one type says nothing of another"
    assert names.count() == before + 3, "each was asked for once"
    time.sleep(2.1)
    assert rcode_of(web1.ask("gone.https.example")) == "NXDOMAIN"
    assert names.count() == before + 4, "after the SOA's minimum it is asked for again"


def test_nxdomain_for_aaaa_does_not_hide_an_address(names, web1):
    """Servers that answer AAAA so, although there is an A, are known from RFC 4074 section 4.2."""
    name, address = names.new("https.example")
    names.behave(name, answer=[], as_rcode="NXDOMAIN", types=[28],
                 authority=[["https.example", "SOA", 3600, "ns.invalid. host.invalid. 1 3600 600 86400 60"]])
    assert web1.resolve(name, "AAAA") == []
    assert web1.resolve(name) == [address]


def test_an_upstream_over_ipv6(names, web1, policy):
    policy(POLICY.replace(f"server = {DNS}\n", f"server = {DNS6}\n"))
    name, address = names.new("https.example")
    before = names.count()
    assert web1.resolve(name) == [address]
    assert [query["server"] for query in names.queries(before)] == [DNS6]


def test_a_thousand_questions_at_once_for_slow_names(names, web1):
    """None is lost while they wait."""
    for number in range(400):
        names.behave(f"n{20000 + number}.fresh.example", delay=0.5)
    answers = web1.resolve_many([f"n{20000 + number}.fresh.example" for number in range(400)], window=400)
    assert all(data_of(answer, "A") for answer in answers.values())
