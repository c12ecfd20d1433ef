# SPDX-License-Identifier: MIT
"""DNS over TLS upstreams: the certificate decides, one connection serves all, and nothing ever leaves in clear."""

import os
import shutil
import socket
import time

import dns.message
import pytest

from app import data_of, rcode_of
from certificates import Authority, self_signed
from gateway import UID
from lab import DNS, DNS6, DNS_SECOND, POLICY, UPSTREAM
from namespaces import patience
from packets import Sniffer

NAME, OTHER = "dns.example", "other.example"
ONE = f"tls://{DNS}#{NAME}"
TWO = f"{ONE} tls://{DNS_SECOND}#{NAME}"


@pytest.fixture(scope="module")
def directory(shared_lab):
    """A folder that the gateway's user may read; pytest's own are root's."""
    path = os.path.join(shared_lab.directory, "certificates")
    os.mkdir(path, 0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def authority(directory):
    made = Authority(directory)
    os.chmod(made.file, 0o644)
    return made


@pytest.fixture(scope="module")
def good(authority):
    return authority.issue(NAME)


@pytest.fixture
def tls(names, policy, authority):
    """A function that puts a policy with these servers into force; their listeners are closed at the end."""
    def use(servers=ONE, ca=authority.file):
        extra = f"ca = {ca}\n" if ca else ""
        policy(POLICY.replace(UPSTREAM, f"[upstream]\nserver = {servers}\n{extra}"))
    yield use
    for address in (DNS, DNS_SECOND, DNS6):
        names.tls(address, "off")


def timed(call):
    start = time.monotonic()
    result = call()
    return result, time.monotonic() - start


def transports(names, since):
    return {(query["server"], query["transport"]) for query in names.queries(since)}


def test_a_question_goes_over_tls_and_nothing_in_clear(names, web1, tls, good, lab):
    names.tls(DNS, certificate=good)
    tls()
    name, address = names.new("https.example")
    before = names.count()
    with Sniffer(lab.gw, "up0") as sniffer:
        assert web1.resolve(name) == [address]
        assert web1.tcp_result(address) == "open"
        assert sniffer.matching(dport=853), "the sniffer sees what leaves"
        label = name.partition(".")[0].encode()
        assert not sniffer.matching(dport=53) and not sniffer.matching(contains=bytes([len(label)]) + label)
    assert transports(names, before) == {(DNS, "tls")}
    assert names.tls_connections(DNS) == [{"name": NAME, "alpn": "dot", "version": "TLSv1.3", "resumed": False, "questions": 1, "at_once": 1}]


def test_questions_are_padded(names, web1, tls, good):
    """RFC 8467: the length of a question says nothing about its name."""
    names.tls(DNS, certificate=good)
    tls()
    before = names.count()
    for name in ("s.any.example", "a-much-longer-name." + "x" * 60 + ".any.example", ".".join(["y" * 58] * 4) + ".any.example"):
        names.add(name, A=names.address())
        assert web1.resolve(name)
    wires = [query["wire"] for query in names.queries(before)]
    assert [len(wire) for wire in wires] == [128, 128, 384]
    for wire in wires:
        message = dns.message.from_wire(wire)
        assert [option.otype for option in message.options] == [12] and message.payload == 1232


def test_tls_1_2_will_do_and_1_1_will_not(names, web1, tls, good, log):
    names.tls(DNS, certificate=good, version="TLSv1_2")
    tls()
    name, address = names.new("https.example")
    assert web1.resolve(name) == [address]
    assert names.tls_connections(DNS)[0]["version"] == "TLSv1.2"
    names.tls(DNS, certificate=good, version="TLSv1_1")
    assert rcode_of(web1.ask(names.new("https.example")[0], seconds=6)) == "SERVFAIL"
    assert any("the TLS handshake failed" in line["text"] for line in log.wait(event="message", level="warning"))


def test_over_ipv6_and_no_udp_is_let_out(names, web1, tls, good, lab):
    names.tls(DNS6, certificate=good)
    tls(f"tls://[{DNS6}]:853#{NAME}")
    name, address = names.new("https.example")
    before = names.count()
    assert web1.resolve(name) == [address]
    assert transports(names, before) == {(DNS6, "tls")}
    rules = lab.gw.nft_list("chain", "inet", "sluice", "upstream_servers")
    assert rules.count("accept") == 1 and "dport 853" in rules and "tcp" in rules and "@transport" not in rules, rules


@pytest.mark.parametrize("fault", ["name", "expired", "authority", "self-signed"])
def test_a_certificate_that_is_wrong_is_not_accepted(names, web1, tls, authority, directory, log, fault):
    """One line says what is wrong; every question is SERVFAIL; nothing is asked, in clear or otherwise."""
    if fault == "name":
        certificate, text, cure = authority.issue(OTHER), "hostname mismatch", "behind '#'"
    elif fault == "expired":
        certificate, text, cure = authority.issue(NAME, expired=True), "certificate has expired", "renewed"
    elif fault == "authority":
        certificate, text, cure = Authority(directory, "Foreign CA").issue(NAME), "unable to get local issuer certificate", "ca = FILE"
    else:
        certificate, text, cure = self_signed(directory, NAME), "self-signed certificate", "ca = FILE"
    names.tls(DNS, certificate=certificate)
    tls()
    before = names.count()
    for _ in range(3):
        assert rcode_of(web1.ask(names.new("https.example")[0], seconds=6)) == "SERVFAIL"
    log.settle()
    said = [line["text"] for line in log.lines(event="message", level="warning") if line["text"].startswith("upstream ")]
    assert len(said) == 1 and f"upstream tls://{DNS}:853#{NAME}: " in said[0] and text in said[0] and cure in said[0], said
    assert names.count() == before


def test_the_system_does_not_know_the_tests_authority(names, web1, tls, good, log):
    """Without `ca` the certificates of public authorities decide."""
    names.tls(DNS, certificate=good)
    tls(ca=None)
    assert rcode_of(web1.ask(names.new("https.example")[0], seconds=6)) == "SERVFAIL"
    assert any("unable to get local issuer certificate" in line["text"] for line in log.wait(event="message", level="warning"))


def test_a_repaired_certificate_is_noticed_and_said(names, web1, tls, authority, good, log):
    names.tls(DNS, certificate=authority.issue(OTHER))
    tls()
    assert rcode_of(web1.ask(names.new("https.example")[0], seconds=6)) == "SERVFAIL"
    names.tls(DNS, certificate=good)
    name, address = names.new("https.example")
    end = time.monotonic() + patience(5)
    while web1.resolve(name, seconds=6) != [address]:
        assert time.monotonic() < end
    assert log.wait(event="message", level="info", text=f"upstream tls://{DNS}:853#{NAME}: answers again")


def test_another_server_of_the_section_makes_up_for_a_wrong_certificate(names, web1, tls, authority, good, slow_machine):
    names.tls(DNS, certificate=authority.issue(OTHER))
    names.tls(DNS_SECOND, certificate=good)
    tls(TWO)
    name, address = names.new("https.example")
    before = names.count()
    result, seconds = timed(lambda: web1.resolve(name))
    assert result == [address] and seconds < (5 if slow_machine else 1)
    assert transports(names, before) == {(DNS_SECOND, "tls")}


@pytest.mark.parametrize("mode", ["stall", "close", "deaf", "off"])
def test_a_server_that_does_not_work_is_made_up_for_within_a_second(names, web1, tls, good, slow_machine, mode):
    names.tls(DNS, mode, good)
    names.tls(DNS_SECOND, certificate=good)
    tls(TWO)
    for _ in range(3):
        name, address = names.new("https.example")
        result, seconds = timed(lambda name=name: web1.resolve(name))
        assert result == [address]
        assert seconds < (5 if slow_machine else 1)
    assert rcode_of(web1.ask("denied.evil.example")) == "NXDOMAIN"


@pytest.mark.parametrize("mode", ["stall", "close", "deaf", "off"])
def test_servfail_within_three_seconds_when_the_only_server_does_not_work(names, web1, tls, good, slow_machine, mode):
    names.tls(DNS, mode, good)
    tls()
    answer, seconds = timed(lambda: web1.ask(names.new("https.example")[0], seconds=6))
    assert rcode_of(answer) == "SERVFAIL"
    assert seconds < (12 if slow_machine else 3.2)


@pytest.mark.parametrize("mode", ["stall", "deaf", "off"])
def test_a_server_that_works_again_is_asked_again(names, web1, tls, good, log, mode):
    """One lookup is enough to show that it is back, although the second server answers that one before there is a connection."""
    names.tls(DNS, mode, good)
    names.tls(DNS_SECOND, certificate=good)
    tls(TWO)
    web1.resolve(names.new("https.example")[0])
    names.tls(DNS, certificate=good)
    time.sleep(2.5)  # a server that failed is tried every two seconds
    assert web1.resolve(names.new("https.example")[0])
    log.wait(seconds=1, event="message", level="info", text=f"upstream tls://{DNS}:853#{NAME}: answers again")
    before = names.count()
    name, address = names.new("https.example")
    assert web1.resolve(name) == [address]
    assert transports(names, before) == {(DNS, "tls")}


def test_it_recovers_when_its_only_server_comes_back(names, web1, tls, good):
    tls()
    assert rcode_of(web1.ask(names.new("https.example")[0], seconds=6)) == "SERVFAIL"
    names.tls(DNS, certificate=good)
    name, address = names.new("https.example")
    end = time.monotonic() + patience(5)
    while web1.resolve(name, seconds=6) != [address]:
        assert time.monotonic() < end


def test_two_hundred_questions_at_once_share_one_connection_and_come_in_any_order(names, web1, tls, good):
    """The first ones are the slow ones: their answers must not hold up the others'."""
    names.tls(DNS, certificate=good)
    tls()
    slow = [f"n{number}.fresh.example" for number in range(30000, 30050)]
    quick = [f"n{number}.fresh.example" for number in range(30050, 30200)]
    for name in slow + quick:
        names.behave(name, delay=1 if name in slow else 0.2)
    before = names.count()
    start = time.monotonic()
    answers = web1.resolve_many(slow + quick, window=200)
    assert all(data_of(answer, "A") for answer in answers.values()) and len(answers) == 200
    assert time.monotonic() - start < patience(5), "one after the other they would take 80 s"
    assert len({query["wire"][:2] for query in names.queries(before)}) > 190, "ids are random"
    connections = names.tls_connections(DNS)
    assert len(connections) == 1 and connections[0]["questions"] == 200 and connections[0]["at_once"] >= 100, connections


def test_more_questions_than_a_server_is_given_at_once_are_all_answered(names, web1, tls, good):
    names.tls(DNS, certificate=good)
    tls()
    asked = [f"n{number}.fresh.example" for number in range(31000, 31600)]
    for name in asked:
        names.behave(name, delay=0.3)
    answers = web1.resolve_many(asked, window=600)
    assert all(data_of(answer, "A") for answer in answers.values()) and len(answers) == 600
    connections = names.tls_connections(DNS)
    assert len(connections) == 1 and connections[0]["at_once"] <= 256, connections


def test_answers_larger_than_4_kb(names, web1, tls, good):
    """As large as DNS over TCP takes, in several TLS records."""
    names.tls(DNS, certificate=good)
    tls()
    for count in (300, 1000):
        addresses = [f"45.37.{number >> 8}.{number & 255}" for number in range(count)]
        names.add(f"large{count}.any.example", A=addresses)
        shown = data_of(web1.ask(f"large{count}.any.example", tcp=True), "A")
        assert shown and set(shown) <= set(addresses)


def test_questions_of_a_connection_that_is_cut_are_asked_again(names, web1, tls, good):
    """At the same server: that it has closed a connection says nothing against it."""
    names.tls(DNS, certificate=good)
    names.tls(DNS_SECOND, certificate=good)
    tls(TWO)
    name, address = names.new("https.example")
    names.behave(name, drop=True, times=1)  # in time the connection is cut instead of an answer
    assert web1.resolve(names.new("https.example")[0])
    before = names.count()
    with web1.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(patience(5))
        sock.connect(("192.0.2.53", 53))
        sock.send(dns.message.make_query(name, "A").to_wire())
        end = time.monotonic() + patience(2)
        while names.count() == before:
            assert time.monotonic() < end
        names.tls_drop(DNS)
        assert data_of(dns.message.from_wire(sock.recv(4096)), "A") == [address]
    assert len(names.tls_connections(DNS)) == 2 and not names.tls_connections(DNS_SECOND)


def test_sessions_are_resumed(names, web1, tls, good):
    names.tls(DNS, certificate=good)
    tls()
    for _ in range(2):
        assert web1.resolve(names.new("https.example")[0])
        names.tls_drop(DNS)
        time.sleep(0.1)
    assert web1.resolve(names.new("https.example")[0])
    assert [connection["resumed"] for connection in names.tls_connections(DNS)] == [False, True, True]


def test_a_session_does_not_outlive_the_policy_that_trusted_the_server(names, web1, tls, good, directory, log):
    """Another `ca`: who was trusted before has to show a certificate again."""
    names.tls(DNS, certificate=good)
    tls()
    assert web1.resolve(names.new("https.example")[0])
    tls(ca=Authority(directory, "Later CA").file)
    assert rcode_of(web1.ask(names.new("https.example")[0], seconds=6)) == "SERVFAIL"
    assert any("unable to get local issuer certificate" in line["text"] for line in log.wait(event="message", level="warning"))


def test_a_reload_reads_the_authorities_again(names, web1, tls, good, authority, directory, lab):
    """The policy's text stays the same."""
    path = os.path.join(directory, "changing.pem")
    shutil.copy(Authority(directory, "Old CA").file, path)
    names.tls(DNS, certificate=good)
    tls(ca=path)
    assert rcode_of(web1.ask(names.new("https.example")[0], seconds=6)) == "SERVFAIL"
    shutil.copy(authority.file, path)
    assert lab.gateway.sluice("reload").returncode == 0
    name, address = names.new("https.example")
    assert web1.resolve(name, seconds=6) == [address]


def test_a_reload_without_a_change_keeps_the_connection(names, web1, tls, good, lab):
    names.tls(DNS, certificate=good)
    tls()
    assert web1.resolve(names.new("https.example")[0])
    assert lab.gateway.sluice("reload").returncode == 0
    assert web1.resolve(names.new("https.example")[0])
    assert len(names.tls_connections(DNS)) == 1


def test_a_restarted_server_is_connected_to_again(names, web1, tls, good, slow_machine):
    names.tls(DNS, certificate=good)
    tls()
    assert web1.resolve(names.new("https.example")[0])
    names.tls(DNS, certificate=good)
    name, address = names.new("https.example")
    result, seconds = timed(lambda: web1.resolve(name))
    assert result == [address] and seconds < (5 if slow_machine else 1)
    assert len(names.tls_connections(DNS)) == 1


def test_a_path_that_goes_silent_is_noticed(names, web1, tls, good, lab):
    """Packets of the connection vanish, new connections work: a NAT on the way has forgotten it."""
    names.tls(DNS, certificate=good)
    tls()
    assert web1.resolve(names.new("https.example")[0])
    with Sniffer(lab.gw, "up0") as sniffer:
        assert web1.resolve(names.new("https.example")[0])
        port = sniffer.matching(dport=853)[0].sport
    lab.inet.nft(f"table inet forgets {{ chain input {{ type filter hook input priority 0; tcp dport 853 tcp sport {port} drop; }}\n}}")
    try:
        name, address = names.new("https.example")
        assert web1.resolve(name, seconds=6) == [address]
    finally:
        lab.inet.nft("delete table inet forgets")


def test_doctor_asks_over_tls(names, tls, good, authority, lab):
    names.tls(DNS, certificate=good)
    tls()
    done = lab.gateway.sluice("doctor", "-c", lab.gateway.policy_directory)
    assert f"tls://{DNS}:853#{NAME} (upstream default) answered in" in done.stdout, done.stdout
    names.tls(DNS, certificate=authority.issue(OTHER))
    done = lab.gateway.sluice("doctor", "-c", lab.gateway.policy_directory)
    assert done.returncode == 1 and "hostname mismatch" in done.stdout, done.stdout


def test_the_gateways_user_need_not_be_able_to_read_the_file_later(names, web1, tls, good, authority, directory, lab):
    """It is read with the policy: a worker that starts again has the policy of before only when it can read it."""
    path = os.path.join(directory, "private.pem")
    shutil.copy(authority.file, path)
    os.chown(path, UID, UID)
    os.chmod(path, 0o600)
    names.tls(DNS, certificate=good)
    tls(ca=path)
    os.remove(path)
    name, address = names.new("https.example")
    assert web1.resolve(name) == [address]
