# SPDX-License-Identifier: MIT
"""Networks with virtual addresses, as docs/virtual-addresses.md has them: apps without a route, on a bridge that lets nothing of outside through."""

import contextlib
import ipaddress
import json
import re
import socket
import threading
import time

import dns.message
import pytest

from app import family_of, rcode_of, talk, wait_until_broken
from gateway import NotHealthy
from lab import DNS, DNS6, GATEWAY_UPLINK4, GATEWAY_UPLINK6, HERE, PYTHON, SITE4, SITE6, UPSTREAM, VIRTUAL, Lab
from namespaces import patience, wait_until
from packets import Sniffer, send_frame, udp_packet
from sites import Web, wait_for_port

FAMILIES = ("ipv4", "ipv6")
RECORD = {"ipv4": "A", "ipv6": "AAAA"}
POOL = {"ipv4": "10.201.1.128/25", "ipv6": "fdc9:1:0:0:8000::/65"}
# Eight addresses each, none of them in the pool of other tests.
SMALL = {"ipv4": "10.201.1.64/29", "ipv6": "fdc9:1::f0/125"}
SMALL_SIZE = 8
WEB = VIRTUAL.format(network="web", number=1)
RULES = """
allow = **.https.example:443 **.alt.example:8443 **.any.example
deny  = **.bad.https.example
"""
OTHERS = VIRTUAL.format(network="build", number=2) + """
allow = **.build.example:443 **.https.example:443

[network lan]
subnet = 10.201.3.0/24
min_ttl = 0
grace = 1s
allow = **.https.example:443
"""
SHORT = "min_ttl = 0\ngrace = 1s\n"
STALE_TTL = 30  # of an answer that serves while no server has a better one


def policy_text(keys="", rules=RULES):
    return UPSTREAM + WEB + keys + rules + OTHERS


POLICY = policy_text()
families = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module")
def virtual_lab():
    # build is not internal: nothing but the gateway keeps its apps in.
    with Lab(policy=POLICY, internal=["web"]) as lab:
        for destination, gateway in (("default", "10.201.2.2"), ("default", "fdc9:2::2")):
            lab.build1.ip(f"route replace {destination} via {gateway}\n")
        lab.build1.resolver = "10.201.2.2"
        # What conntrack takes for the end of a flow comes soon after the flow's own.
        lab.gw.sysctl(net__netfilter__nf_conntrack_tcp_timeout_close=1, net__netfilter__nf_conntrack_tcp_timeout_time_wait=1)
        yield lab


@pytest.fixture
def lab(virtual_lab):
    gateway = virtual_lab.gateway
    gateway.log.mark()
    yield virtual_lab
    virtual_lab.names.reset()
    if gateway.process is None:
        gateway.start(POLICY)
    else:
        gateway.release()
        gateway.set_policy(POLICY)
    crashes = [line for line in gateway.log.lines() if "garbage" in line]
    assert crashes == [], f"no log lines:\n{gateway.log.tail()}"


@pytest.fixture(scope="module")
def web(virtual_lab):
    server = Web(virtual_lab, sites=("h3.https.example", "v6.https.example", "h3.elsewhere.example"))
    virtual_lab.names.remove("v6.https.example")
    virtual_lab.names.add("v6.https.example", AAAA=SITE6)
    return server


def in_pool(address, network="web"):
    subnets = {"web": POOL, "build": {"ipv4": "10.201.2.128/25", "ipv6": "fdc9:2:0:0:8000::/65"}}
    return any(ipaddress.ip_address(address) in ipaddress.ip_network(prefix) for prefix in subnets[network].values())


def shown(lab, family="ipv4", suffix="https.example", ttl=60, app=None):
    """A new name. Return: it, the virtual address that an app is told, the real one."""
    name, *reals = lab.names.new(suffix, ttl=ttl, ipv6=True)
    virtual, = (app or lab.web1).resolve(name, RECORD[family])
    return name, virtual, reals[FAMILIES.index(family)]


def real_of(lab, virtual, port=443, app=None):
    """The server that a flow to a virtual address leads to."""
    return (app or lab.web1).hello(virtual, port).split()[4]


def move(lab, name, family="ipv4", ttl=60):
    """The name has another address from now on. Return: that."""
    new, *addresses = lab.names.new("unused.example", ipv6=True)
    address = addresses[FAMILIES.index(family)]
    lab.names.remove(new)
    lab.names.add(name, ttl, **{RECORD[family]: address})
    return address


def open_addresses(lab, network="web"):
    """What the name sets of a network have."""
    listed = lab.gw.run(["nft", "list", "table", "inet", "sluice"], check=True).stdout
    sets = re.findall(rf"^\tset names[46]_{network}_\S+ {{\n(.*?)^\t}}$", listed, re.MULTILINE | re.DOTALL)
    return {word for text in sets for word in text.partition("elements = {")[2].replace(",", " ").split()}


def lease_left(lab, address):
    """Seconds until an address closes."""
    listed = lab.gw.run(["nft", "list", "table", "inet", "sluice"], check=True).stdout
    minutes, seconds = re.search(rf"[ \t]{re.escape(address)} (?:timeout \w+ )?expires (?:(\d+)m)?(?:(\d+)s)?", listed).groups()
    return 60 * int(minutes or 0) + int(seconds or 0)


def asked_for(lab, since):
    """The names that the name servers were asked for."""
    return [dns.message.from_wire(query["wire"]).question[0].name.to_text(omit_final_dot=True).lower() for query in lab.names.queries(since)]


def wait_until_ended(lab, *addresses):
    wait_until(lambda: not open_addresses(lab) & set(addresses), f"the leases of {addresses} never ended", seconds=20)


def denials(lab):
    """Lines about single flows and questions, as soon as there will be no more of them. Counts come later, also those of other tests."""
    lab.gateway.log.settle()
    return [line for line in lab.gateway.log.lines(event="denied") if "what" not in line]


def quick(call, slow):
    """The best of a few tries of a call that should fail at once."""
    took = []
    for _ in range(5):
        start = time.monotonic()
        call()
        took.append(time.monotonic() - start)
    assert min(took) < (1 if slow else 0.1)


# --- allowed ---

@families
def test_an_allowed_name_works_at_the_first_try(lab, family):
    uplink = GATEWAY_UPLINK4 if family == "ipv4" else GATEWAY_UPLINK6
    name, virtual, real = shown(lab, family)
    assert in_pool(virtual)
    words = lab.web1.hello(virtual).split()
    assert (words[1], words[4], words[5]) == (uplink, real, "443")
    _, virtual, _ = shown(lab, family)
    assert lab.web1.udp_result(virtual) == "open"
    assert lab.web1.resolve(name, RECORD[family]) != [virtual]
    assert denials(lab) == []


@pytest.mark.browser
def test_a_browser_loads_a_page_over_http3(lab, web):
    assert "proto=HTTP/3.0" in web.browse(lab.web1, "https://h3.https.example/")


@pytest.mark.browser
def test_a_browser_does_not_reach_a_denied_site(lab, web):
    assert "proto=" not in web.browse(lab.web1, "https://h3.elsewhere.example/")
    assert lab.gateway.log.wait(event="denied", qname="h3.elsewhere.example")


@pytest.mark.browser
def test_curl_loads_pages(lab, web):
    assert web.fetch(lab.web1, "https://h3.https.example/") == (0, "proto=HTTP/2.0")
    assert web.fetch(lab.web1, "https://v6.https.example/") == (0, "proto=HTTP/2.0")
    assert web.fetch(lab.web1, "http://plain.any.example/") == (0, "plain")


def test_a_long_transfer_passes_both_ways(lab):
    _, virtual, _ = shown(lab)
    with lab.web1.connect(virtual, 443) as sock:
        sock.settimeout(patience(20))
        echo_lines(sock, 30)


def echo_lines(sock, count):
    line = b"x" * 65000 + b"\n"
    for _ in range(count):
        sock.sendall(line)
        received = b""
        while len(received) < len(line):
            piece = sock.recv(65536)
            assert piece, "the connection was closed"
            received += piece
        assert received == line


# --- answers ---

@families
def test_an_alias_keeps_its_chain(lab, family):
    address = "45.30.200.1" if family == "ipv4" else "2a0e:13::c801"
    lab.names.add(f"edge.{family}.cdn.example", **{RECORD[family]: address})
    lab.names.add(f"www.{family}.https.example", CNAME=f"edge.{family}.cdn.example.")
    answer = lab.web1.ask(f"www.{family}.https.example", RECORD[family])
    assert [(rrset.name.to_text(), rrset[0].to_text()) for rrset in answer.answer][:1] == [
        (f"www.{family}.https.example.", f"edge.{family}.cdn.example.")]
    owner, virtual = answer.answer[1].name.to_text(), answer.answer[1][0].to_text()
    assert owner == f"edge.{family}.cdn.example." and in_pool(virtual)
    assert real_of(lab, virtual) == address
    assert rcode_of(lab.web1.ask(f"edge.{family}.cdn.example", RECORD[family])) == "NXDOMAIN"


def test_no_answer_has_a_real_address(lab):
    """Nor a hint of an HTTPS record, nor the additional section."""
    name, _, address = shown(lab)
    lab.names.behave(name, types=[65], answer=[[name, "HTTPS", 60, f"1 . alpn=h3,h2 ipv4hint={address} ipv6hint=2a0e:13::77 ech=AEX+DQBB"]],
                     additional=[[name, "A", 60, address]])
    answer = lab.web1.ask(name, "HTTPS")
    assert "alpn" in answer.answer[0][0].to_text()
    assert "hint" not in answer.to_text() and address not in answer.to_text()
    lab.names.reset()
    lab.names.behave(name, types=[1], answer=[[name, "A", 60, address]], additional=[[name, "A", 60, address], ["ns.example", "A", 60, "45.30.200.9"]])
    lab.gateway.set_policy(policy_text("max_addresses = 3\n"))
    answer = lab.web1.ask(name)
    assert address not in answer.to_text() and "45.30.200.9" not in answer.to_text()


@families
def test_the_reverse_of_a_virtual_address_is_its_name(lab, family):
    name, virtual, real = shown(lab, family)
    assert lab.web1.resolve(ipaddress.ip_address(virtual).reverse_pointer, "PTR") == [name + "."]
    assert lab.web1.resolve(ipaddress.ip_address(real).reverse_pointer, "PTR") == []


def test_a_denied_name_does_not_exist(lab):
    assert rcode_of(lab.web1.ask("blocked.example")) == "NXDOMAIN"
    assert rcode_of(lab.web1.ask("x.bad.https.example")) == "NXDOMAIN"
    line, = lab.gateway.log.wait(event="denied", qname="blocked.example")
    assert (line["network"], line["reason"]) == ("web", "name-not-allowed")


def test_a_special_address_gets_no_virtual_one(lab):
    """The rebinding filter judges real addresses."""
    for address in ("192.168.7.7", "127.0.0.1", "10.201.2.11", "10.201.1.130"):
        lab.names.add("inside.https.example", 0, A=address)
        assert lab.web1.resolve("inside.https.example") == [], address
    lab.names.add("inside.https.example", 0, AAAA="fdc9:2::11")
    assert lab.web1.resolve("inside.https.example", "AAAA") == []


@families
def test_every_network_has_addresses_of_its_own(lab, family):
    name, virtual, real = shown(lab, family)
    other, = lab.build1.resolve(name, RECORD[family])
    assert in_pool(virtual) and in_pool(other, "build")
    assert real_of(lab, other, app=lab.build1) == real_of(lab, virtual) == real
    if family == "ipv4":
        assert lab.lan1.resolve(name) == [real], "a routed network beside them"


def test_addresses_keep_their_order(lab):
    """Whatever the order of the real ones."""
    reals = [lab.names.address() for _ in range(2)]
    lab.names.add("two.https.example", 0, A=reals)
    first = lab.web1.resolve("two.https.example")
    assert len(first) == 2
    servers = [real_of(lab, virtual) for virtual in first]
    assert servers == reals
    lab.names.add("two.https.example", 0, A=reals[::-1])
    for _ in range(4):
        assert lab.web1.resolve("two.https.example") == first
    assert [real_of(lab, virtual) for virtual in first] == servers


@families
def test_a_client_that_finds_one_server_dead_has_another_to_try(lab, family):
    dead, alive = ("45.30.200.66", "45.30.200.67") if family == "ipv4" else ("2a0e:13::c842", "2a0e:13::c843")
    lab.inet.ip(f"route add blackhole {dead} table local\n")
    lab.names.add("fallback.https.example", **{RECORD[family]: [dead, alive]})
    first, second = lab.web1.resolve("fallback.https.example", RECORD[family])
    assert lab.web1.tcp_result(first, seconds=0.5) == "timeout"
    assert real_of(lab, second) == alive
    lab.names.remove("fallback.https.example")


def test_a_name_has_as_many_addresses_as_per_name_says(lab):
    reals = [lab.names.address() for _ in range(6)]
    for number in (1, 4):
        lab.gateway.set_policy(policy_text(f"per_name = {number}\n"))
        lab.names.add(f"many{number}.https.example", A=reals)
        virtual = lab.web1.resolve(f"many{number}.https.example")
        assert [real_of(lab, one) for one in virtual] == reals[:number]


# --- refused ---

@families
def test_another_port_is_refused_at_once_and_logged_once(lab, family, slow_machine):
    name, virtual, real = shown(lab, family)
    with Sniffer(lab.inet, "up0") as uplink:
        quick(lambda: lab.web1.tcp_result(virtual, 8443) == "refused" or pytest.fail("not refused"), slow_machine)
        quick(lambda: lab.web1.udp_result(virtual, 9999) == "rejected" or pytest.fail("not rejected"), slow_machine)
        assert lab.web1.tcp_result(virtual) == "open"
        assert uplink.wait(destination=real, dport=443)
        assert [packet for packet in uplink.packets() if packet.dport in (8443, 9999)] == []
    lab.gateway.log.settle()
    for port, protocol in ((8443, "tcp"), (9999, "udp")):
        line, = lab.gateway.log.lines(event="denied", dst=virtual, port=port)
        assert (line["name"], line["real"], line["reason"], line["network"], line["src"], line["proto"]) == (
            name, real, "port-not-allowed", "web", getattr(lab.web1, family), protocol)


def test_an_address_that_stands_for_no_name_is_refused_at_once(lab, slow_machine):
    """In IPv6 it is not there."""
    quick(lambda: lab.web1.tcp_result("10.201.1.250") == "refused" or pytest.fail("not refused"), slow_machine)
    assert lab.web1.udp_result("10.201.1.250") == "rejected"
    line = lab.gateway.log.wait(event="denied", dst="10.201.1.250", proto="tcp")[0]
    assert (line["name"], line["reason"]) == ("-", "address-not-allowed")
    assert "real" not in line or line["real"] == "-"
    assert lab.web1.tcp_result("fdc9:1:0:0:8000::ffff", seconds=5) == "No route to host"


@families
def test_an_app_reaches_nothing_but_its_own_pool(lab, family):
    name, virtual, real = shown(lab, family)
    other, = lab.build1.resolve(name, RECORD[family])
    targets = [real, other, getattr(lab.build1, family), {"ipv4": GATEWAY_UPLINK4, "ipv6": GATEWAY_UPLINK6}[family]]
    for target in targets:
        assert lab.web1.tcp_result(target) == "Network is unreachable", target
        assert lab.web1.udp_result(target) == "rejected", target
    mac = lab.gw.mac("web0")
    with Sniffer(lab.inet, "up0") as uplink, Sniffer(lab.build1, "eth0") as neighbour, Sniffer(lab.gw, "web0") as inner:
        for target in targets:  # who makes frames needs no route
            send_frame(lab.web1, "eth0", mac, udp_packet(getattr(lab.web1, family), 7, target, 443, b"past the route"))
        assert lab.web1.udp_result(virtual, payload=b"to the pool") == "open"
        assert uplink.wait(contains=b"to the pool")
        for wire in (uplink, neighbour, inner):
            assert wire.matching(contains=b"past the route") == []


@families
def test_the_gateway_itself_keeps_apps_in(lab, family):
    """build's bridge is open, and its app has a route: what else would be unreachable is refused."""
    name, virtual, real = shown(lab, family, app=lab.build1)
    elsewhere, = lab.web1.resolve(name, RECORD[family])
    with Sniffer(lab.inet, "up0") as uplink, Sniffer(lab.web1, "eth0") as neighbour:
        for target in (real, elsewhere, getattr(lab.web1, family)):
            assert lab.build1.tcp_result(target) == "refused", target
            assert lab.build1.udp_result(target, payload=b"around the pool") == "rejected", target
            assert lab.gateway.log.wait(event="denied", network="build", dst=target, port=443)
        assert uplink.matching(contains=b"around the pool") == [] and uplink.matching(destination=real) == []
        assert neighbour.matching(contains=b"around the pool") == []
        assert real_of(lab, virtual, app=lab.build1) == real


@families
def test_two_names_on_one_address_are_told_apart(lab, family):
    real = "45.30.201.1" if family == "ipv4" else "2a0e:13::c901"
    for name in ("a.https.example", "b.alt.example", "c.bad.https.example"):
        lab.names.add(name, **{RECORD[family]: real})
    first, = lab.web1.resolve("a.https.example", RECORD[family])
    second, = lab.web1.resolve("b.alt.example", RECORD[family])
    assert rcode_of(lab.web1.ask("c.bad.https.example", RECORD[family])) == "NXDOMAIN"
    assert first != second
    assert real_of(lab, first, 443) == real_of(lab, second, 8443) == real
    assert lab.web1.tcp_result(first, 8443) == "refused"
    assert lab.web1.tcp_result(second, 443) == "refused"
    assert lab.gateway.log.wait(event="denied", dst=first, port=8443)[0]["name"] == "a.https.example"
    assert lab.gateway.log.wait(event="denied", dst=second, port=443)[0]["name"] == "b.alt.example"
    with lab.web1.connect(first, 443) as stays, lab.web1.connect(second, 8443) as goes:
        lab.gateway.set_policy(policy_text(rules=RULES + "deny = b.alt.example\n"))
        wait_until_broken(goes)
        assert lab.web1.tcp_result(second, 8443) == "refused"
        assert talk(stays, "still") == "still"
        assert lab.web1.tcp_result(first, 443) == "open"


@families
def test_a_container_with_an_address_of_the_pool_is_not_heard(lab, family):
    name, virtual, real = shown(lab, family)
    stolen = "10.201.1.251" if family == "ipv4" else "fdc9:1:0:0:8000::fb"
    length = "24" if family == "ipv4" else "64"
    mac = lab.gw.mac("web0")
    lab.web2.ip(f"addr add {stolen}/{length} dev eth0 {'nodad' if family == 'ipv6' else ''}\n")
    try:
        with Sniffer(lab.inet, "up0") as uplink, lab.web2.socket(family_of(virtual), socket.SOCK_DGRAM) as sock:
            sock.bind((stolen, 0))
            sock.sendto(b"from the pool", (virtual, 443))
            send_frame(lab.web1, "eth0", mac, udp_packet(virtual, 443, virtual, 443, b"from the pool"))
            assert lab.web1.udp_result(virtual, payload=b"from an app") == "open"
            assert uplink.wait(destination=real, contains=b"from an app")
            assert uplink.matching(contains=b"from the pool") == []
    finally:
        lab.web2.ip(f"addr del {stolen}/{length} dev eth0\n")
    wait_until(lambda: sum(int(line["count"]) for line in lab.gateway.log.lines(event="denied", reason="spoofed-source", network="web")) >= 2,
               "the packets were not counted", seconds=15)


# --- a name keeps its address ---

def killed(lab):
    worker = lab.gateway.kill_worker()
    wait_until(lambda: lab.gateway.worker() != worker and lab.gateway.healthy(), "no new worker")


def restarted(lab):
    assert lab.gateway.stop() == 0
    lab.gateway.start()


def recreated(lab):
    """What is left of a container when another takes its place: the volume. Its tables, flows and addresses are gone with its namespace."""
    lab.gateway.stop()
    lab.gw.nft("delete table inet sluice\n")
    lab.gw.run(["conntrack", "--flush"], check=True)
    lab.release_addresses()
    lab.gateway.start()


def reloaded(lab):
    lab.gateway.set_policy(policy_text(rules=RULES + "allow = another.example\n"))


@pytest.mark.parametrize("event", [killed, restarted, recreated, reloaded])
def test_a_name_keeps_its_addresses(lab, event):
    known = [(*shown(lab, family), family) for family in FAMILIES * 3]
    for _, virtual, real, _ in known:
        assert real_of(lab, virtual) == real
    event(lab)
    for _, virtual, real, _ in known:
        assert real_of(lab, virtual) == real, "what an app has cached, before anything was asked"
        assert lab.web1.udp_result(virtual) == "open"
    for name, virtual, _, family in reversed(known):
        assert lab.web1.resolve(name, RECORD[family]) == [virtual]
    taken = {virtual for _, virtual, _, _ in known}
    for family in FAMILIES:
        assert shown(lab, family)[1] not in taken
    assert denials(lab) == []


def test_virtual_addresses_work_while_no_worker_runs(lab):
    known = [shown(lab, family) for family in FAMILIES]
    with lab.web1.connect(known[0][1], 443) as flow:
        assert talk(flow, "before") == "before"
        lab.gateway.kill_worker(hold=True)
        for _, virtual, real in known:
            assert real_of(lab, virtual) == real
            assert lab.web1.udp_result(virtual) == "open"
            assert lab.web1.tcp_result(virtual, 8443, seconds=0.5) == "timeout", "nothing else opens"
        assert talk(flow, "during") == "during"
        lab.gateway.release()
        lab.gateway.wait_healthy()
        assert talk(flow, "after") == "after"


@families
def test_established_flows_go_on_through_a_restart(lab, family):
    _, virtual, _ = shown(lab, family)
    with lab.web1.connect(virtual, 443) as flow:
        restarted(lab)
        killed(lab)
        assert talk(flow, "still here") == "still here"


# --- what real addresses do ---

@pytest.mark.parametrize("form", ["virtual", "routed"])
def test_a_cached_address_follows_its_name(lab, form):
    """The point of virtual addresses: an app that resolved once and never again, while its server moves, keeps working; with real addresses it
    does not. Flows that are there keep their server in both forms."""
    app = lab.web1 if form == "virtual" else lab.lan1
    lab.gateway.set_policy(policy_text(SHORT))
    name, cached, before = shown(lab, ttl=1, app=app)
    assert (cached == before) == (form == "routed")
    with app.connect(cached, 443) as flow:
        assert talk(flow, "hello").split()[4] == before
        assert real_of(lab, cached, app=app) == before
        after = move(lab, name, ttl=1)
        found = []

        def reached():
            try:
                found.append(real_of(lab, cached, app=app))
            except ConnectionRefusedError:
                found.append("refused")
            return found[-1]
        if form == "virtual":
            wait_until(lambda: reached() == after, "new flows do not lead to the name's new address", seconds=15)
            assert set(found) == {before, after}, "no flow failed meanwhile"
        else:
            end = time.monotonic() + patience(8)
            while time.monotonic() < end:
                reached()
                time.sleep(0.2)
            assert after not in found
        assert talk(flow, "hello").split()[4] == before
    if form == "routed":  # the connection kept the lease
        wait_until(lambda: reached() == "refused", "the old address stays open for ever", seconds=20)
        assert after not in found


@families
def test_real_addresses_are_looked_up_in_the_background(lab, family):
    """Nobody asks: flows alone keep the name in use."""
    name, virtual, before = shown(lab, family, ttl=2)
    after = move(lab, name, family, ttl=2)
    count = lab.names.count()
    wait_until(lambda: real_of(lab, virtual) == after, "the address does not follow its name", seconds=15)
    assert {query["server"] for query in lab.names.queries(count)} == {DNS}
    assert lab.web1.udp_result(virtual) == "open"
    assert before != after
    assert denials(lab) == []


def test_a_name_that_cannot_be_asked_keeps_its_server(lab):
    name, virtual, real = shown(lab, ttl=1)
    lab.names.behave(name, rcode="SERVFAIL")
    end = time.monotonic() + 12
    while time.monotonic() < end:
        assert real_of(lab, virtual) == real
        time.sleep(0.2)


def test_a_name_is_current_again_soon_after_its_servers_failed(lab):
    """The answer that served meanwhile was told a TTL, but it is no reason to wait for its end."""
    name, virtual, before = shown(lab, ttl=0)
    lab.names.behave(name, rcode="SERVFAIL")
    assert lab.web1.ask(name).answer[0].ttl == STALE_TTL
    after = move(lab, name, ttl=0)
    assert real_of(lab, virtual) == before
    lab.names.reset()
    wait_until(lambda: real_of(lab, virtual) == after, "the address does not follow its name", seconds=20)


def test_a_name_that_is_allowed_again_is_asked_for_at_once(lab):
    """While it is denied it cannot be asked for. The reload is what its address waits for, not the next time that would have been due."""
    name, virtual, before = shown(lab, ttl=0)
    other = shown(lab, ttl=0)[0]
    denying = policy_text(rules=f"{RULES}deny = {name}\n")
    lab.gateway.set_policy(denying)
    after = move(lab, name, ttl=0)
    denied_since = lab.names.count()
    # The other one is asked for in the background when this one would be.
    wait_until(lambda: asked_for(lab, denied_since).count(other) == 2, "no name is looked up in the background", seconds=20)
    assert name not in asked_for(lab, denied_since)
    allowed_since = lab.names.count()
    lab.gateway.set_policy(POLICY)
    wait_until(lambda: real_of(lab, virtual) == after, "the address does not follow its name", seconds=20)
    assert other not in asked_for(lab, allowed_since)
    assert before != after


@families
def test_looking_up_in_the_background_makes_no_lease_longer(lab, family):
    """Else the lease of a name that nobody uses would outlive the time for which it is looked up, and the address be open and out of date."""
    life = 60
    lab.gateway.set_policy(policy_text(f"max_age = {life}s\n"))
    since = lab.names.count()
    name, virtual, _ = shown(lab, family, ttl=0)
    shown_at = time.monotonic()
    wait_until(lambda: asked_for(lab, since).count(name) == 3, "the name is not looked up in the background", seconds=30)
    passed = time.monotonic() - shown_at
    assert lease_left(lab, virtual) < life - passed + 1


def test_flows_pass_while_their_address_changes(lab):
    """An element of a map goes and comes again: there is always another map that has it."""
    name, virtual, real = shown(lab, ttl=0)
    other = lab.names.address()
    done, results = threading.Event(), []

    def connect():
        while not done.is_set():
            results.append(lab.web1.udp_result(virtual, payload=b"%d" % len(results)))
    thread = threading.Thread(target=connect)
    thread.start()
    try:
        for i in range(150):
            lab.names.add(name, 0, A=other if i % 2 else real)
            assert lab.web2.resolve(name) == [virtual]
    finally:
        done.set()
        thread.join()
    assert len(results) > 50 and set(results) == {"open"}


@families
def test_each_mapping_of_a_name_gets_a_current_address(lab, family):
    """Also those for which the answer is too short."""
    reals = ["45.30.202.1", "45.30.202.2"] if family == "ipv4" else ["2a0e:13::ca01", "2a0e:13::ca02"]
    name = f"shrinks.{family}.https.example"
    lab.names.add(name, 0, **{RECORD[family]: reals})
    first, second = lab.web1.resolve(name, RECORD[family])
    lab.names.add(name, 0, **{RECORD[family]: reals[1]})
    assert lab.web1.resolve(name, RECORD[family]) == [first]
    assert real_of(lab, first) == real_of(lab, second) == reals[1]
    lab.names.add(name, 0, **{RECORD[family]: reals})
    assert lab.web1.resolve(name, RECORD[family]) == [first, second]
    assert {real_of(lab, first), real_of(lab, second)} == set(reals)


# --- second chances ---

@families
def test_an_app_that_caches_for_ever_has_a_second_chance(lab, family):
    lab.gateway.set_policy(policy_text(SHORT + "max_age = 2s\n"))
    name, virtual, real = shown(lab, family, ttl=0)
    for result in (lab.web1.tcp_result, lab.web1.udp_result):
        wait_until_ended(lab, virtual)
        before = lab.names.count()
        assert result(virtual) == "open"
        assert lab.names.count() > before, "the name was asked again"
    assert real_of(lab, virtual) == real
    assert denials(lab) == []


@families
def test_a_second_chance_leads_to_the_new_address(lab, family):
    lab.gateway.set_policy(policy_text(SHORT + "max_age = 2s\n"))
    name, virtual, _ = shown(lab, family, ttl=0)
    wait_until_ended(lab, virtual)
    after = move(lab, name, family)
    assert real_of(lab, virtual) == after
    assert denials(lab) == []


def test_there_is_no_second_chance_for_a_name_that_is_gone(lab):
    lab.gateway.set_policy(policy_text(SHORT + "max_age = 2s\n"))
    name, virtual, real = shown(lab, ttl=0)
    wait_until_ended(lab, virtual)
    lab.names.remove(name)
    assert lab.web1.tcp_result(virtual) == "refused"
    line = lab.gateway.log.wait(event="denied", dst=virtual)[0]
    assert (line["reason"], line["name"], line["real"]) == ("lease-expired", name, real)


def test_a_second_chance_is_for_the_port_of_the_rule_only(lab):
    lab.gateway.set_policy(policy_text(SHORT + "max_age = 2s\n"))
    _, virtual, _ = shown(lab, ttl=0)
    wait_until_ended(lab, virtual)
    before = lab.names.count()
    assert lab.web1.tcp_result(virtual, 8443) == "refused"
    assert lab.names.count() == before


# --- the pool is full ---

UNTIL_TAKEN = "min_ttl = 0\n"  # leases do not end by themselves meanwhile


def small_pool(lab, keys=SHORT):
    lab.gateway.set_policy(policy_text(f"pool = {SMALL['ipv4']}\npool = {SMALL['ipv6']}\nper_name = 1\n" + keys))


def fill(lab, family, ttl=0):
    """Names until all of the pool is taken, the one asked for first first."""
    known = []
    for _ in range(SMALL_SIZE):
        known.append(shown(lab, family, ttl=ttl))
        time.sleep(0.05)
    assert {ipaddress.ip_address(virtual) for _, virtual, _ in known} == set(ipaddress.ip_network(SMALL[family]))
    return known


def ask_until_answered(lab, name, family="ipv4", seconds=20):
    """Return: the name's virtual address, and how often the answer was SERVFAIL before."""
    end, refused = time.monotonic() + patience(seconds), 0
    while True:
        answer = lab.web1.ask(name, RECORD[family])
        if rcode_of(answer) == "NOERROR":
            return answer.answer[0][0].to_text(), refused
        assert rcode_of(answer) == "SERVFAIL" and time.monotonic() < end
        refused += 1
        time.sleep(0.1)


@families
def test_the_name_that_was_unused_for_longest_gives_up_its_address(lab, family):
    small_pool(lab, UNTIL_TAKEN)
    known = fill(lab, family)
    with lab.web1.connect(known[0][1], 443) as flow:  # so the second one is
        time.sleep(2)  # a look at all flows has seen it: on a busy machine the first one was idle for long enough before
        name, *reals = lab.names.new("alt.example", ttl=0, ipv6=True)
        virtual, _ = ask_until_answered(lab, name, family)
        assert virtual == known[1][1]
        real = reals[FAMILIES.index(family)]
        assert real_of(lab, virtual, 8443) == real
        assert lab.web1.tcp_result(virtual, 443) == "refused", "what only the old name was allowed on"
        line = lab.gateway.log.wait(event="denied", dst=virtual, port=443)[0]
        assert (line["name"], line["real"]) == (name, real)
        assert lab.web1.resolve(ipaddress.ip_address(virtual).reverse_pointer, "PTR") == [name + "."]
        assert talk(flow, "hello").split()[4] == known[0][2]
        again, _ = ask_until_answered(lab, known[1][0], family)
        assert again == known[2][1]
        assert real_of(lab, again) == known[1][2]


@families
def test_a_flow_of_the_old_name_does_not_reach_the_new_names_server(lab, family):
    """UDP that was idle for so long that conntrack forgot it goes on with a new mapping, or not at all."""
    lab.gw.sysctl(net__netfilter__nf_conntrack_udp_timeout=1, net__netfilter__nf_conntrack_udp_timeout_stream=1)
    try:
        small_pool(lab, UNTIL_TAKEN)
        known = fill(lab, family)
        with lab.web1.udp(known[0][1], 443) as old, Sniffer(lab.inet, "up0") as uplink:
            old.settimeout(patience(3))
            for name, virtual, _ in known[1:]:  # the first one is the one that is unused for longest
                assert lab.web1.resolve(name, RECORD[family]) == [virtual]
            name, *reals = lab.names.new("alt.example", ttl=0, ipv6=True)
            virtual, _ = ask_until_answered(lab, name, family)
            assert virtual == known[0][1]
            old.send(b"for the old one")
            with pytest.raises(OSError, match="(?i)prohibited|unreachable|refused|route|denied"):
                old.recv(100)
            assert lab.web1.udp_result(virtual, 8443) in ("rejected", "timeout"), "the server has no such port"
            assert uplink.wait(destination=reals[FAMILIES.index(family)])
            assert uplink.matching(contains=b"for the old one") == []
    finally:
        lab.gw.sysctl(net__netfilter__nf_conntrack_udp_timeout=30, net__netfilter__nf_conntrack_udp_timeout_stream=120)


@pytest.mark.parametrize("event", [killed, restarted, recreated])
def test_a_new_worker_knows_which_names_were_in_use(lab, event):
    """Long after their addresses were new."""
    small_pool(lab, "min_ttl = 4s\ngrace = 1s\n")
    known = fill(lab, "ipv4")
    end = time.monotonic() + 8
    while time.monotonic() < end:
        for name, virtual, _ in known:
            assert lab.web1.resolve(name) == [virtual]
        time.sleep(0.5)
    event(lab)
    name, _ = lab.names.new("alt.example", ttl=0)
    assert rcode_of(lab.web1.ask(name)) == "SERVFAIL"
    for name, virtual, _ in known:
        assert lab.web1.resolve(name) == [virtual]


@families
def test_names_in_use_keep_a_full_pool(lab, family):
    """Each by a connection, long after their leases would have ended."""
    small_pool(lab)
    known = fill(lab, family)
    with contextlib.ExitStack() as stack:
        flows = [stack.enter_context(lab.web1.connect(virtual, 443)) for _, virtual, _ in known]
        name, *reals = lab.names.new("alt.example", ttl=0, ipv6=True)
        end = time.monotonic() + 8
        while time.monotonic() < end:
            assert rcode_of(lab.web1.ask(name, RECORD[family])) == "SERVFAIL"
            time.sleep(0.5)
        health = json.loads(lab.gateway.sluice("health", "--json").stdout)
        assert health["unmapped"] >= 10 and health["mappings"] >= len(known), health
        for (_, virtual, real), flow in zip(known, flows):
            assert talk(flow, "hello").split()[4] == real
            assert real_of(lab, virtual) == real
    virtual, _ = ask_until_answered(lab, name, family)
    assert real_of(lab, virtual, 8443) == reals[FAMILIES.index(family)]


def test_each_full_pool_is_told(lab):
    """Once, and how many questions had no answer."""
    restarted(lab)  # so that nobody has been told yet
    small_pool(lab, "")
    lab.gateway.log.mark()
    known = [name for family in FAMILIES for name, _, _ in fill(lab, family)]
    name, _, _ = lab.names.new("alt.example", ipv6=True)
    for family in FAMILIES:
        for _ in range(3):
            assert rcode_of(lab.web1.ask(name, RECORD[family])) == "SERVFAIL"
        wait_until(lambda: [line for line in lab.gateway.log.lines(event="message", level="error")  # pylint: disable=cell-var-from-loop
                            if f"network web: the pool {SMALL[family]} is full" in line["text"]], f"nobody was told of the {family} pool", seconds=2)
    lab.gateway.log.wait(event="message", level="warning", seconds=15, text="6 questions were answered SERVFAIL: there was no virtual address for their names")
    assert len([line for line in lab.gateway.log.lines(event="message", level="error") if "is full" in line["text"]]) == 2
    for name in known:
        assert lab.web1.resolve(name, "A") or lab.web1.resolve(name, "AAAA"), "names that have an address keep it"


def test_no_address_goes_to_another_name_before_its_ttl(lab):
    """The TTLs that apps were told are all over, also those of answers from the cache."""
    small_pool(lab)
    known = [shown(lab, ttl=8) for _ in range(SMALL_SIZE)]
    time.sleep(3)
    until = {}
    for name, virtual, _ in known:
        answer = lab.web2.ask(name)
        assert answer.answer[0].ttl <= 6, "what is left of the upstream's TTL"
        until[virtual] = time.monotonic() + answer.answer[0].ttl - 1  # of a TTL in whole seconds
    name, _ = lab.names.new("alt.example", ttl=0)
    virtual, refused = ask_until_answered(lab, name)
    assert time.monotonic() >= until[virtual]
    assert refused > 3


def test_min_ttl_goes_by_before_an_address_goes_to_another_name(lab):
    """An app may hold on to an address for that long, whatever it was told."""
    small_pool(lab, "min_ttl = 6s\ngrace = 1s\n")
    known = fill(lab, "ipv4")
    last = time.monotonic()
    assert lab.web1.resolve(known[0][0]) == [known[0][1]]
    name, _ = lab.names.new("alt.example", ttl=0)
    virtual, refused = ask_until_answered(lab, name)
    assert virtual == known[1][1] and refused > 3
    assert time.monotonic() - last > 5


# --- path MTU, ICMP errors ---

MTU = 1300
MTU_KEYS = {"ipv4": (socket.IPPROTO_IP, 10, 14), "ipv6": (socket.IPPROTO_IPV6, 23, 24)}  # level, (IPV6_)MTU_DISCOVER, (IPV6_)MTU


@contextlib.contextmanager
def narrow(lab, where):
    """A route with a smaller MTU than its links, so that neither end's TCP knows: beyond the gateway, or on its uplink."""
    if where == "far":
        lab.inet.ip("link set site0 mtu 1500\n")
        lab.site.ip("link set eth0 mtu 1500\n")
        lab.inet.ip(f"route replace 45.12.3.0/24 dev site0 mtu lock {MTU} table local\nroute replace 2a0e:12:3::/64 dev site0 mtu lock {MTU} table local\n")
    else:
        lab.gw.ip(f"route replace default via 45.9.0.1 mtu lock {MTU}\nroute replace default via 2a0e:9::1 mtu lock {MTU}\n")
    try:
        yield
    finally:
        lab.inet.ip("route replace 45.12.3.0/24 dev site0 table local\nroute replace 2a0e:12:3::/64 dev site0 table local\n"
                    "link set site0 mtu 1400\n")
        lab.site.ip("link set eth0 mtu 1400\n")
        lab.gw.ip("route replace default via 45.9.0.1\nroute replace default via 2a0e:9::1\n")


@pytest.fixture(scope="module")
def site_server(virtual_lab):
    server = virtual_lab.site.start([PYTHON, HERE + "/servers.py", "--tcp", "8443", "--udp", "9999"])
    wait_for_port(virtual_lab.site, SITE4, 8443)
    yield
    server.kill()


@families
@pytest.mark.parametrize("where", ["far", "uplink"])
def test_a_path_mtu_is_learnt(lab, site_server, family, where):  # pylint: disable=unused-argument
    level, discover, option = MTU_KEYS[family]
    lab.names.add(f"{where}.{family}.any.example", **{RECORD[family]: SITE4 if family == "ipv4" else SITE6})
    virtual, = lab.web1.resolve(f"{where}.{family}.any.example", RECORD[family])
    with narrow(lab, where):
        with lab.web1.udp(virtual, 9999) as sock:
            sock.setsockopt(level, discover, 2)  # never fragment

            def learnt():
                with contextlib.suppress(OSError):
                    sock.send(b"b" * 1430)
                return sock.getsockopt(level, option) == MTU
            wait_until(learnt, f"the path MTU is still {sock.getsockopt(level, option)}", seconds=5)
            with contextlib.suppress(OSError):
                sock.send(b"the error of before")
            with pytest.raises(OSError, match="Message too long"):
                sock.send(b"b" * (MTU - 27))
            while True:  # what comes of the datagrams before the last one
                sock.settimeout(patience(3))
                sock.send(b"s" * (MTU - 60))
                if sock.recv(2000) == b"s" * (MTU - 60):
                    break
        lab.web1.run(["ip", "-4" if family == "ipv4" else "-6", "route", "flush", "cache"], check=True)
        with lab.web1.connect(virtual, 8443) as sock:
            sock.settimeout(patience(20))
            assert sock.getsockopt(level, option) == 1500
            echo_lines(sock, 10)
            assert sock.getsockopt(level, option) == MTU


@families
def test_a_closed_port_of_the_server_is_told_to_the_app(lab, family):
    _, virtual, _ = shown(lab, family, "any.example")
    with lab.web1.udp(virtual, 7777) as sock:
        sock.settimeout(patience(3))
        sock.send(b"anybody there?")
        with pytest.raises(ConnectionRefusedError):
            sock.recv(100)
    assert lab.web1.tcp_result(virtual, 7777) == "refused"
    assert denials(lab) == [], "it was the server that refused"


# --- policies ---

@pytest.mark.parametrize("other", ["deny", "refuse", "crowded"])
def test_a_networks_name_is_part_of_no_other_ones_chains(other):
    """Names of chains are put together from a network's: here of one whose name ends in the other's."""
    first = VIRTUAL.format(network="web", number=2) + "mode = audit\nallow = **.build.example:443\n"
    text = UPSTREAM + first + WEB.replace("[network web]", f"[network {other}_web]") + RULES + OTHERS[OTHERS.index("\n[network lan]"):]
    with Lab(policy=text, internal=["web"], apps=["web1", "build1"]) as lab:
        virtual, real = shown(lab)[1:]
        assert real_of(lab, virtual) == real
        assert lab.web1.tcp_result(virtual, 444) == "refused"
        lab.gateway.log.wait(event="denied", network=f"{other}_web", dst=virtual, port=444)


@families
def test_max_flows_holds_for_what_audit_mode_lets_out(family):
    """New flows of who has too many are refused, whatever stands behind the address; what is there goes on, and it is over when it is over."""
    with Lab(policy=policy_text("mode = audit\nmax_flows = 100\n"), internal=["web"], apps=["web1"]) as lab:
        virtual = shown(lab, family, "unknown.example")[1]
        with lab.web1.connect(virtual, 8443) as flow, contextlib.ExitStack() as held:
            for _ in range(200):
                with contextlib.suppress(ConnectionRefusedError):
                    held.enter_context(lab.web1.connect(virtual, 8443))
            wait_until(lambda: lab.web1.tcp_result(virtual, 8443) == "refused" and lab.web1.udp_result(virtual, 9999) == "rejected", "new flows pass")
            assert talk(flow, "still there") == "still there"
            lab.gateway.log.wait(event="denied", network="web", reason="too-many-flows", action="rejected", seconds=20)
        assert "max_flows" in lab.gateway.log.text()
        lab.gw.run(["conntrack", "-D", "-f", family, "-s", {"ipv4": lab.web1.ipv4, "ipv6": lab.web1.ipv6}[family]])
        wait_until(lambda: "new ones pass again" in lab.gateway.log.text() and lab.web1.tcp_result(virtual, 8443) == "open", "it is not over", seconds=40)


@families
def test_audit_lets_in_and_logs_what_no_rule_allows(lab, family):
    lab.gateway.set_policy(policy_text("mode = audit\n"))
    lab.gateway.log.mark()
    name, virtual, real = shown(lab, family, "unknown.example")
    assert in_pool(virtual)
    assert real_of(lab, virtual, 8443) == real
    assert lab.web1.udp_result(virtual, 9999) == "open"
    assert lab.gateway.log.wait(event="audit", qname=name)[0]["reason"] == "name-not-allowed"
    line = lab.gateway.log.wait(event="audit", dst=virtual, port=8443)[0]
    assert (line["name"], line["real"], line["network"]) == (name, real, "web")
    assert rcode_of(lab.web1.ask("x.bad.https.example")) == "NXDOMAIN"
    lab.gateway.log.settle()
    assert lab.gateway.log.lines(event="denied", dst=virtual) == []
    with lab.web1.connect(virtual, 8443) as flow:
        lab.gateway.set_policy(POLICY)
        wait_until_broken(flow)
        assert lab.web1.tcp_result(virtual, 8443) == "refused"


@families
def test_a_reload_that_removes_a_name_closes_it(lab, family):
    name, virtual, real = shown(lab, family, "alt.example")
    _, other, _ = shown(lab, family)
    with lab.web1.connect(virtual, 8443) as flow, lab.web1.connect(other, 443) as stays:
        lab.gateway.set_policy(policy_text(rules=RULES.replace("**.alt.example:8443 ", "")))
        assert lab.web1.tcp_result(virtual, 8443) == "refused"
        wait_until_broken(flow)
        line = lab.gateway.log.wait(event="denied", dst=virtual, port=8443)[0]
        assert (line["name"], line["real"], line["reason"]) == (name, real, "name-not-allowed")
        assert talk(stays, "still") == "still"
    lab.gateway.set_policy(POLICY)
    assert lab.web1.resolve(name, RECORD[family]) == [virtual]
    assert lab.web1.tcp_result(virtual, 8443) == "open"


def test_keep_established_lets_flows_go_on(lab):
    _, virtual, _ = shown(lab, suffix="alt.example")
    with lab.web1.connect(virtual, 8443) as flow:
        lab.gateway.set_policy(policy_text("keep_established = yes\n", RULES.replace("**.alt.example:8443 ", "")))
        assert lab.web1.tcp_result(virtual, 8443) == "refused"
        time.sleep(1)
        assert talk(flow, "still") == "still"


def test_a_network_may_change_its_form(lab):
    """There and back, with a reload."""
    name, virtual, real = shown(lab)
    with lab.web1.connect(virtual, 443):
        lab.gateway.set_policy(POLICY.replace("addresses = virtual\n", "", 1))
        assert lab.web1.resolve(name) == [real]
        assert lab.web1.tcp_result(virtual) in ("refused", "No route to host")
    lab.gateway.set_policy(POLICY)
    again, = lab.web1.resolve(name)
    assert in_pool(again)
    assert real_of(lab, again) == real


@pytest.mark.parametrize("rules", ["allow = 45.40.0.0/16:443\n", "deny = [2a0e:1b::/32]\n", "use = addresses\n"],
                         ids=["allow", "deny", "use"])
def test_a_section_with_address_rules_is_refused_at_the_start(rules):
    with Lab(gateway=False, apps=["web1"], internal=["web"]) as lab:
        used = "\n[rules addresses]\nallow = 45.40.0.0/16:443\n" if rules.startswith("use") else ""
        with pytest.raises(NotHealthy, match="addresses = virtual"):
            lab.gateway.start(policy_text(rules=RULES + rules) + used)
        lab.gateway.process = None


# --- published ports ---

@families
def test_a_published_app_answers_without_a_route(lab, family):
    """It sees the gateway's address on its network; the log has the client's."""
    gateway = {"ipv4": "10.201.1.2", "ipv6": "fdc9:1::2"}[family]
    uplink = {"ipv4": GATEWAY_UPLINK4, "ipv6": GATEWAY_UPLINK6}[family]
    own = getattr(lab.web1, family)
    lab.names.add("shop", A=lab.web1.ipv4, AAAA=lab.web1.ipv6)
    lab.gateway.set_policy(policy_text("publish = 443 -> shop, 8080/tcp -> shop:80\n"))
    wait_until(lambda: lab.inet.tcp_result(uplink, 443, 0.3) == "refused", "the published container was not found")
    with lab.web1.socket(family_of(own)) as server:
        server.bind((own, 80))
        server.listen(8)
        server.settimeout(patience(5))
        with lab.site.connect(uplink, 8080) as outer:
            inner, peer = server.accept()
            with inner:
                assert peer[0] == gateway
                outer.sendall(b"in\n")
                assert inner.recv(100) == b"in\n"
                inner.sendall(b"out\n")
                assert outer.recv(100) == b"out\n"
    with lab.web1.socket(family_of(own), socket.SOCK_DGRAM) as server, lab.inet.udp(uplink, 443) as client:
        server.bind((own, 443))
        server.settimeout(patience(5))
        client.settimeout(patience(5))
        client.send(b"in")
        data, peer = server.recvfrom(100)
        assert (data, peer[0]) == (b"in", gateway)
        server.sendto(b"out", peer)
        assert client.recv(100) == b"out"
    assert lab.gateway.log.wait(event="inbound", network="web", src=SITE4 if family == "ipv4" else SITE6)
    assert lab.gateway.log.wait(event="inbound", network="web", src="45.9.0.1" if family == "ipv4" else DNS6, proto="udp")


def test_a_published_app_cannot_open_flows_of_its_own(lab):
    lab.names.add("shop", A=lab.web1.ipv4, AAAA=lab.web1.ipv6)
    lab.gateway.set_policy(policy_text("publish = 443 -> shop\n"))
    wait_until(lambda: lab.inet.tcp_result(GATEWAY_UPLINK4, 443, 0.3) == "refused", "the published container was not found")
    with lab.web1.socket() as server:
        server.bind((lab.web1.ipv4, 443))
        server.listen(8)
        server.settimeout(patience(5))
        with lab.inet.connect(GATEWAY_UPLINK4, 443) as outer:
            inner, peer = server.accept()
            with inner:
                assert lab.web1.tcp_result(peer[0], peer[1]) == "refused"
                assert lab.web1.tcp_result("10.201.1.2", 443) == "refused", "nor come back in"
                outer.sendall(b"in\n")
                assert inner.recv(100) == b"in\n"


@families
def test_explain_asks_the_gateway_what_a_virtual_address_stands_for(lab, family):
    name, virtual, real = shown(lab, family)
    target = f"[{virtual}]" if family == "ipv6" else virtual
    done = lab.gateway.sluice("explain", "-c", lab.gateway.policy_directory, "web", f"{target}:443")
    assert done.returncode == 0, done.stderr
    assert f"{virtual} stands for {name}, now leads to {real}\n" in done.stdout and "allow = **.https.example:443" in done.stdout
    assert lab.gateway.sluice("explain", "-c", lab.gateway.policy_directory, "web", f"{target}:80").returncode == 1
    unused = str(ipaddress.ip_network(POOL[family])[-2])
    done = lab.gateway.sluice("explain", "-c", lab.gateway.policy_directory, "web", unused)
    assert done.returncode == 1 and f"{unused} is a virtual address" in done.stderr and done.stderr.count("\n") == 1
