# SPDX-License-Identifier: MIT
"""The life of leases as docs/leases.md has it: kept while apps use them, ended by max_age, asked for a second time, closed by a reload."""

import time

import pytest

from app import talk, wait_until_broken
from lab import DNS, POLICY, Lab
from namespaces import patience, wait_until

LESS = POLICY.replace("**.https.example:443 ", "")


def with_keys(keys):
    return POLICY.replace("[network web]\n", f"[network web]\n{keys}\n")


SHORT = with_keys("min_ttl = 0\ngrace = 1s")
SHORT_IN_ALL = with_keys("min_ttl = 0\ngrace = 1s\nmax_age = 1s")


@pytest.fixture(scope="module")
def leases_lab():
    with Lab() as lab:
        # What conntrack takes for the end of a flow comes soon after the flow's own.
        lab.gw.sysctl(net__netfilter__nf_conntrack_tcp_timeout_close=1, net__netfilter__nf_conntrack_tcp_timeout_time_wait=1)
        yield lab


@pytest.fixture
def lab(leases_lab):
    leases_lab.gateway.log.mark()
    yield leases_lab
    leases_lab.names.reset()
    leases_lab.gateway.set_policy(POLICY)


def resolved(lab, ttl=0, suffix="https.example"):
    name, address = lab.names.new(suffix, ttl=ttl)
    assert lab.web1.resolve(name) == [address]
    return name, address


def move(lab, name, ttl=0):
    """The name has another address from now on."""
    lab.names.add(name, A=lab.names.address(), ttl=ttl)


def wait_until_ended(lab, *addresses):
    """The kernel's sets do not have them any more. Nothing is sent, so nothing has a second chance."""
    wait_until(lambda: not has_element(lab, *addresses), f"the leases of {addresses} never ended", seconds=20)


def has_element(lab, *addresses):
    listed = lab.gw.run(["nft", "list", "table", "inet", "sluice"], check=True).stdout.replace(",", " ")
    return any(f"{address} " in listed for address in addresses)


# --- second chance ---

def test_an_app_that_caches_for_ever_has_a_second_chance(lab):
    lab.gateway.set_policy(SHORT)
    name, address = resolved(lab)
    wait_until_ended(lab, address)
    before = lab.names.count()
    assert lab.web1.tcp_result(address) == "open"
    assert lab.names.count() > before, "the name was asked again"
    wait_until_ended(lab, address)
    assert lab.web1.udp_result(address) == "open"
    lab.gateway.log.settle()
    assert lab.gateway.log.lines(event="denied", dst=address) == []


def test_there_is_no_second_chance_when_the_name_has_moved(lab):
    lab.gateway.set_policy(SHORT)
    name, address = resolved(lab)
    wait_until_ended(lab, address)
    move(lab, name)
    assert lab.web1.tcp_result(address) == "refused"
    line, = lab.gateway.log.wait(event="denied", dst=address)
    assert (line["reason"], line["name"]) == ("lease-expired", name)


def test_there_is_no_second_chance_for_a_name_that_is_not_allowed_any_more(lab):
    lab.gateway.set_policy(SHORT)
    name, address = resolved(lab)
    wait_until_ended(lab, address)
    lab.gateway.set_policy(LESS)
    before = lab.names.count()
    assert lab.web1.tcp_result(address) == "refused"
    assert lab.names.count() == before, "nothing of it leaves"


def test_a_second_chance_is_for_the_port_of_the_rule_only(lab):
    lab.gateway.set_policy(SHORT)
    name, address = resolved(lab)
    wait_until_ended(lab, address)
    before = lab.names.count()
    assert lab.web1.tcp_result(address, 8443) == "refused"
    assert lab.names.count() == before


def test_every_name_of_the_address_is_asked(lab):
    """Two names were there; the one whose lease ended last has moved, the other one has not."""
    lab.gateway.set_policy(SHORT)
    first, address = resolved(lab)
    time.sleep(0.5)
    lab.names.add("second.https.example", A=address, ttl=0)
    assert lab.web1.resolve("second.https.example") == [address]
    wait_until_ended(lab, address)
    move(lab, "second.https.example")
    assert lab.web1.tcp_result(address) == "open"


def test_a_packet_is_not_held_for_longer_than_a_second(lab):
    """No server answers: the flow fails while the app still waits, and nothing is left in the queue."""
    lab.gateway.set_policy(SHORT)
    name, address = resolved(lab)
    wait_until_ended(lab, address)
    lab.names.behave(name, drop=True)
    start = time.monotonic()
    assert lab.web1.tcp_result(address, seconds=10) == "refused"
    assert time.monotonic() - start < patience(2)
    lab.gateway.log.wait(event="denied", dst=address, reason="lease-expired")


def test_many_flows_share_a_few_second_chances(lab):
    """More than may be held: those beyond are denied at once, each of them told, and none is forgotten."""
    lab.gateway.set_policy(SHORT)
    found = [resolved(lab) for _ in range(100)]
    wait_until_ended(lab, *(address for _, address in found))
    for name, _ in found:
        lab.names.behave(name, drop=True)
    sockets = [lab.web1.udp(address, 443) for _, address in found]
    for sock in sockets:
        sock.send(b"x")
    for sock in sockets:
        sock.settimeout(patience(5))
        with pytest.raises(OSError, match="(?i)prohibited|unreachable|refused|route"):
            sock.recv(100)
        sock.close()
    assert len(lab.gateway.log.wait(count=100, event="denied", reason="lease-expired")) == 100


def test_a_new_worker_still_knows_leases_that_ended(lab):
    lab.gateway.set_policy(SHORT)
    name, address = resolved(lab)
    wait_until_ended(lab, address)
    lab.gateway.kill_worker()
    lab.gateway.wait_healthy()
    assert lab.web1.tcp_result(address) == "open"


# --- in use ---

def test_a_lease_is_kept_while_a_flow_uses_it_and_grace_counts_from_its_end(lab):
    lab.gateway.set_policy(SHORT)
    name, address = resolved(lab)
    with lab.web1.connect(address, 443) as flow:
        move(lab, name)
        time.sleep(5)
        assert lab.web1.tcp_result(address) == "open", "long after TTL and grace"
        assert talk(flow, "still") == "still"
    wait_until_ended(lab, address)
    assert lab.web1.tcp_result(address) == "refused"


def test_an_idle_udp_flow_may_go_on_after_conntrack_forgot_it(lab):
    """As QUIC does, whose idle connections live longer than conntrack's entries."""
    lab.gw.sysctl(net__netfilter__nf_conntrack_udp_timeout=2, net__netfilter__nf_conntrack_udp_timeout_stream=2)
    try:
        name, address = resolved(lab)
        with lab.web1.udp(address, 443) as flow:
            flow.settimeout(patience(5))
            for _ in range(2):
                flow.send(b"hello")
                assert flow.recv(100) == b"hello"
                time.sleep(4)
    finally:
        lab.gw.sysctl(net__netfilter__nf_conntrack_udp_timeout=30, net__netfilter__nf_conntrack_udp_timeout_stream=120)


def test_max_age_ends_a_lease_in_use_but_not_the_flow(lab):
    """No answer has shown the address since: an app cannot keep it for ever."""
    lab.gateway.set_policy(with_keys("min_ttl = 0\ngrace = 1s\nmax_age = 4s"))
    name, address = resolved(lab)
    with lab.web1.connect(address, 443) as flow:
        move(lab, name)
        wait_until_ended(lab, address)
        assert lab.web1.tcp_result(address) == "refused"
        assert talk(flow, "still") == "still"


def test_a_name_in_use_is_asked_again_before_max_age(lab):
    lab.gateway.set_policy(with_keys("min_ttl = 0\ngrace = 1s\nmax_age = 4s"))
    name, address = resolved(lab)
    with lab.web1.connect(address, 443):
        before = lab.names.count()
        for _ in range(10):
            time.sleep(1)
            assert has_element(lab, address)
        assert 2 <= lab.names.count() - before <= 20
        assert {query["server"] for query in lab.names.queries(before)} == {DNS}


def test_a_shorter_max_age_holds_at_once(lab):
    name, address = resolved(lab)
    assert lab.web1.tcp_result(address) == "open"
    move(lab, name)
    time.sleep(1)
    lab.gateway.set_policy(SHORT_IN_ALL)
    assert lab.web1.tcp_result(address) == "refused"


# --- reload and established flows ---

def test_a_reload_ends_flows_that_are_not_allowed_any_more(lab):
    name, address = resolved(lab)
    _, other = resolved(lab, suffix="tcp.example")
    with lab.web1.connect(address, 443) as flow, lab.web1.connect(other, 443) as stays, lab.web1.connect("45.40.1.1", 443) as ruled:
        lab.gateway.set_policy(LESS)
        wait_until_broken(flow)
        lab.gateway.log.wait(event="denied", dst=address, reason="name-not-allowed")
        assert talk(stays, "still") == "still"
        assert talk(ruled, "still") == "still"
        lab.gateway.set_policy(LESS.replace("45.40.0.0/16:443", ""))
        wait_until_broken(ruled)
        assert talk(stays, "still") == "still"


def test_a_reload_ends_flows_to_an_address_that_it_denies(lab):
    """The name is still allowed; a deny rule closes one of its addresses."""
    _, address = resolved(lab)
    with lab.web1.connect(address, 443) as flow:
        lab.gateway.set_policy(POLICY.replace("deny   = **.bad.ok.example", f"deny   = **.bad.ok.example {address}"))
        assert lab.web1.tcp_result(address) == "refused"
        wait_until_broken(flow)


def test_a_reload_ends_udp_and_ipv6_flows_as_well(lab):
    name, address, address6 = lab.names.new("https.example", ipv6=True)
    lab.web1.resolve(name), lab.web1.resolve(name, "AAAA")
    with lab.web1.udp(address, 443) as udp, lab.web1.connect(address6, 443) as tcp6:
        udp.settimeout(patience(2))
        udp.send(b"x")
        assert udp.recv(10) == b"x"
        lab.gateway.set_policy(LESS)
        wait_until_broken(tcp6)

        def rejected():
            try:
                udp.send(b"x")
                return udp.recv(10) != b"x"
            except OSError:
                return True
        wait_until(rejected, "the UDP flow goes on")


def test_other_ports_of_a_rule_end_flows_on_the_old_ones(lab):
    name, address = resolved(lab)
    with lab.web1.connect(address, 443) as flow:
        lab.gateway.set_policy(POLICY.replace("**.https.example:443 ", "**.https.example:8443 "))
        wait_until_broken(flow)


def test_keep_established_lets_flows_go_on_and_closes_new_ones(lab):
    name, address = resolved(lab)
    with lab.web1.connect(address, 443) as flow:
        lab.gateway.set_policy(LESS.replace("[network web]\n", "[network web]\nkeep_established = yes\n"))
        assert lab.web1.tcp_result(address) == "refused"
        time.sleep(1)
        assert talk(flow, "still") == "still"


def test_a_flow_whose_lease_has_ended_is_not_ended_by_a_reload(lab):
    """A lease says which flows may begin. The name is still allowed."""
    lab.gateway.set_policy(with_keys("min_ttl = 0\ngrace = 1s\nmax_age = 2s"))
    name, address = resolved(lab)
    with lab.web1.connect(address, 443) as flow:
        move(lab, name)
        wait_until_ended(lab, address)
        lab.gateway.set_policy(with_keys("min_ttl = 0\ngrace = 1s\nmax_age = 2s") + "\n; another text\n")
        time.sleep(1)
        assert talk(flow, "still") == "still"


# --- aliases ---

def resolved_alias(lab, ttl=60):
    """An alias of a name that no rule is about, by way of another one. Return: alias, target, its IPv4 and its IPv6 address."""
    target, *addresses = lab.names.new("target.example", ttl=ttl, ipv6=True)
    label = target.split(".")[0]
    lab.names.add(f"{label}.middle.example", CNAME=f"{target}.", ttl=ttl)
    lab.names.add(f"{label}.https.example", CNAME=f"{label}.middle.example.", ttl=ttl)
    assert [lab.web1.resolve(f"{label}.https.example", kind) for kind in ("A", "AAAA")] == [[address] for address in addresses]
    return f"{label}.https.example", target, *addresses


def denying(name, policy=POLICY):
    """Return: the policy with a deny rule for a name, the rule's line."""
    text = policy.replace("deny   = **.bad.ok.example", f"deny   = {name}\ndeny   = **.bad.ok.example")
    return text, text.split("\n").index(f"deny   = {name}") + 1


def assert_denied_as(lab, address, name, line_number):
    assert lab.web1.tcp_result(address) == "refused"
    line = lab.gateway.log.wait(event="denied", dst=address)[0]
    assert (line["reason"], line["name"]) == ("denied-by-rule", name)
    assert line["rule"].endswith(f"sluice.conf:{line_number}")


@pytest.mark.parametrize("which", ["target", "middle"])
def test_a_reload_that_denies_a_name_behind_an_alias_closes_its_addresses(lab, which):
    """Any name of the chain, in both families; flows that were there end, and another name of the same address stays open."""
    name, target, *addresses = resolved_alias(lab)
    also, _, *shared = resolved_alias(lab)
    lab.names.add(f"plain.{also}", A=shared[0], AAAA=shared[1])
    assert [lab.web1.resolve(f"plain.{also}", kind) for kind in ("A", "AAAA")] == [[address] for address in shared]
    flows = [lab.web1.connect(address, 443) for address in addresses]
    stay = [lab.web1.connect(address, 443) for address in shared]
    text, line = denying(f"*.{which}.example")
    lab.gateway.set_policy(text)
    for flow, address in zip(flows, addresses):
        wait_until_broken(flow)
        assert_denied_as(lab, address, name, line)
    for flow, address in zip(stay, shared):
        assert lab.web1.tcp_result(address) == "open"
        assert talk(flow, "still") == "still"
    lab.gateway.set_policy(POLICY)
    assert [lab.web1.tcp_result(address) for address in addresses] == ["open", "open"], "the rule is gone again"
    for flow in flows + stay:
        flow.close()


def test_a_new_worker_still_knows_what_an_alias_stands_for(lab):
    name, target, *addresses = resolved_alias(lab)
    lab.gateway.kill_worker()
    lab.gateway.wait_healthy()
    assert [lab.web1.tcp_result(address) for address in addresses] == ["open", "open"]
    text, line = denying(target)
    lab.gateway.set_policy(text)
    for address in addresses:
        assert_denied_as(lab, address, name, line)


def test_keep_established_holds_for_what_an_alias_stands_for_too(lab):
    _, target, address, _ = resolved_alias(lab)
    with lab.web1.connect(address, 443) as flow:
        lab.gateway.set_policy(denying(target, with_keys("keep_established = yes"))[0])
        assert lab.web1.tcp_result(address) == "refused"
        time.sleep(1)
        assert talk(flow, "still") == "still"


def test_there_is_no_second_chance_for_an_alias_of_a_denied_name(lab):
    lab.gateway.set_policy(SHORT)
    name, target, address, address6 = resolved_alias(lab, ttl=0)
    wait_until_ended(lab, address, address6)
    text, line = denying(target, SHORT)
    lab.gateway.set_policy(text)
    before = lab.names.count()
    assert_denied_as(lab, address, name, line)
    assert_denied_as(lab, address6, name, line)
    assert lab.names.count() == before, "nothing of it leaves"


def test_an_alias_that_leads_elsewhere_is_judged_by_where_it_leads_now(lab):
    """The address has a name of its own by then: the chain of the latest answer counts."""
    name, target, address, _ = resolved_alias(lab, ttl=0)
    lab.names.remove(name)
    lab.names.add(name, A=address, ttl=0)
    wait_until(lambda: lab.web1.ask(name).answer[0].rdtype == 1, "the alias is still one")
    lab.gateway.set_policy(denying(target)[0])
    assert lab.web1.tcp_result(address) == "open"
