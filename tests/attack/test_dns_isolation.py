# SPDX-License-Identifier: MIT
"""One network wants to know, or to change, what another one asks: the cache, the look-ups under way and the upstreams are shared."""

import dns.message
import dns.reversename
import pytest
from app import data_of, rcode_of
from lab import DNS_CORP, POLICY
from namespaces import patience

BOTH = "**.both.example"
# `web` may ask for the names of `build`, but for one.
OPEN = POLICY.replace("deny   = **.bad", f"allow  = {BOTH}:443\ndeny   = no.both.example\ndeny   = **.bad")


def reply_to(app, name, kind="A"):
    """The bytes of an answer, without id and question: all that could tell one name from another."""
    query = dns.message.make_query(name, kind, use_edns=0)
    wire = app.exchange(query.to_wire())
    return wire[2:12] + wire[12 + len(query.question[0].name.to_wire()) + 4:]


def test_a_denied_network_sees_no_difference_between_what_others_use_and_what_nobody_does(names, web1, build1):
    """Cached, under way, leased, failing, unknown: the policy answers before anything of that is looked at."""
    states = {"cached": names.new("build.example")[0], "unknown": names.new("build.example")[0], "nxdomain": "missing.build.example",
              "failing": "failing.build.example", "slow": names.new("build.example")[0]}
    names.behave(states["failing"], rcode="SERVFAIL")
    build1.resolve(states["cached"])
    build1.ask(states["nxdomain"])
    build1.ask(states["failing"], seconds=6)
    names.behave(states["slow"], delay=1.5)
    with build1.udp("192.0.2.53", 53) as sock:
        sock.settimeout(patience(5))
        sock.send(dns.message.make_query(states["slow"], "A").to_wire())
        before = names.count()
        replies = {state: {kind: reply_to(web1, name, kind) for kind in ("A", "AAAA", "TXT", "ANY", "HTTPS")} for state, name in states.items()}
        assert names.count() <= before + 1, "the slow one, and nothing that web asked for"
        assert data_of(dns.message.from_wire(sock.recv(4096)), "A") != []
    assert all(reply == replies["unknown"] for reply in replies.values()), "the answers differ"


def test_a_denied_question_joins_no_look_up_and_does_not_end_one(names, web1, build1):
    """A hundred of them for the name that another network waits for."""
    name, address = names.new("build.example")
    names.behave(name, delay=0.7)
    with build1.udp("192.0.2.53", 53) as sock:
        sock.settimeout(patience(5))
        sock.send(dns.message.make_query(name, "A").to_wire())
        for _ in range(100):
            assert rcode_of(web1.ask(name)) == "NXDOMAIN"
        assert data_of(dns.message.from_wire(sock.recv(4096)), "A") == [address]
    assert web1.tcp_result(address) == "refused" and build1.tcp_result(address) == "open"


def test_a_shared_answer_is_granted_to_the_one_who_asks(names, web1, build1, policy):
    """Both may have the name; the second one's answer comes from the cache, and only it opens the address for the second one."""
    policy(OPEN)
    name, address = names.new("both.example")
    assert build1.resolve(name) == [address]
    assert web1.tcp_result(address) == "refused", "another network's answer opens nothing"
    before = names.count()
    assert web1.resolve(name) == [address] and web1.tcp_result(address) == "open"
    assert names.count() == before, "what is cached says, by its time and TTL, that somebody has asked: docs/security.md"


def test_an_answer_is_judged_by_each_networks_own_rules(names, web1, build1, policy):
    """One cached answer: an alias that one network denies, and a private range that only one of them has."""
    policy(OPEN.replace("[network build]\n", "[network build]\nprivate = 10.99.0.0/16\n"))
    private, aliased, address = "private.both.example", "aliased.both.example", names.address()
    names.add(private, A="10.99.1.1")
    names.add("no.both.example", A=address)
    names.add(aliased, CNAME="no.both.example.")
    for _ in range(2):
        assert build1.resolve(private) == ["10.99.1.1"] and web1.resolve(private) == []
        assert build1.resolve(aliased) == [address] and rcode_of(web1.ask(aliased)) == "NXDOMAIN"
    assert web1.tcp_result(address) == "refused"


def test_flags_do_not_reach_another_networks_answer(names, web1, build1, policy):
    """DO, CD and letter case of the one who asked first."""
    policy(OPEN)
    name, address = names.new("both.example")
    names.behave(name, ad=True)
    query = dns.message.make_query(name.upper(), "A", use_edns=0, want_dnssec=True)
    query.flags |= dns.flags.CD | dns.flags.AD
    web1.exchange(query.to_wire())
    answer = build1.ask(name)
    assert not answer.flags & (dns.flags.CD | dns.flags.AD | dns.flags.AA)
    assert answer.question[0].name.to_text() == name + "." and str(answer.answer[0].name) == name + "."
    assert data_of(answer, "A") == [address]


def test_reverse_names_tell_nothing_of_other_networks(names, web1, build1, lan1):
    """Neither what they have resolved nor which of their addresses are in use."""
    name, address, address6 = names.new("build.example", ipv6=True)
    build1.resolve(name), build1.resolve(name, "AAAA")
    unused = [dns.reversename.from_address(other).to_text() for other in ("45.30.255.255", "2a0e:13::ffff")]
    used = [dns.reversename.from_address(other).to_text() for other in (address, address6, build1.ipv4, build1.ipv6, "10.201.2.1", "10.201.2.2")]
    for app in (web1, lan1):
        assert {reply_to(app, reverse, "PTR") for reverse in used} == {reply_to(app, reverse, "PTR") for reverse in unused}
    assert build1.resolve(used[0], "PTR") == [name + "."]


def test_an_upstream_of_its_own_is_asked_for_no_other_network(names, web1, build1, policy):
    """A company's names belong to `build`: `web` does not reach the company's server with them, nor by an alias of its own names into them."""
    text = POLICY.replace("[network web]", f"[upstream corp]\nmatch = **.corp.example\nserver = {DNS_CORP}\nprivate = 10.77.0.0/16\n[network web]")
    policy(text.replace("allow  = **.build.example:443", "allow  = **.corp.example:443 **.build.example:443"))
    names.add("wiki.corp.example", A="10.77.0.5")
    alias = names.new("https.example")[0] + ".https.example"
    names.behave(alias, answer=[[alias, "CNAME", 60, "wiki.corp.example."]])
    assert build1.resolve("wiki.corp.example") == ["10.77.0.5"]
    assert rcode_of(web1.ask("wiki.corp.example")) == "NXDOMAIN"
    assert web1.resolve(alias) == [], "what the company's range is for holds for the name that was asked for"
    names.behave(alias, answer=[[alias, "CNAME", 60, "wiki.corp.example."], ["wiki.corp.example", "A", 60, "10.77.0.5"]])
    assert web1.resolve(alias) == []
    assert web1.tcp_result("10.77.0.5", 443, seconds=1) == "refused"


@pytest.mark.parametrize("what", ["names", "types", "failures"])
def test_a_flood_of_one_network_pushes_no_answer_of_another_into_silence(names, web1, build1, what):
    """The cache is one for all, and what is pushed out of it is asked for again. Nothing is lost, whatever an app fills it with."""
    kept = [names.new("build.example") for _ in range(20)]
    for name, address in kept:
        assert build1.resolve(name) == [address]
    flood = {"names": [f"n{number}.fresh.example" for number in range(40000, 43000)], "types": [f"n{number}.fresh.example" for number in range(50000, 53000)],
             "failures": [f"x{number}.fresh.example" for number in range(3000)]}[what]
    web1.resolve_many(flood, "TXT" if what == "types" else "A", window=400)
    for name, address in kept:
        assert build1.resolve(name) == [address] and build1.tcp_result(address) == "open"
