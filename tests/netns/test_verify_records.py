# SPDX-License-Identifier: MIT
"""What is told of flows whose name `verify` has read: that name, whichever name their address was an answer for. Two allowed names share an
address here, with real and with virtual addresses."""

import socket
import struct
import time

import pytest

import quic_packets
from app import talk
from hellos import client_hello
from lab import UPSTREAM, VIRTUAL, Lab
from namespaces import patience, wait_until
from sites import Web
from test_flows_log import TIMEOUTS, UDP_HEADERS, counted, numbers, total, wait_ended
from test_verify import OTHERS, ROUTED
from test_visible import ask_stats

EVIL = "evil.other.example"
SUFFIXES = ("shop.example", "also.example")
RULES = "allow = **.shop.example:443\nallow = **.also.example:443\n"
ENFORCE = "verify = enforce\n"
LAN = OTHERS.replace(ENFORCE, ENFORCE + "log_allowed = all\n")
CARRIED = ("bytes_out", "bytes_in")
families = pytest.mark.parametrize("family", ["ipv4", "ipv6"])


def policy_text(form, keys=ENFORCE, log_allowed="all"):
    return UPSTREAM + (ROUTED if form == "routed" else VIRTUAL.format(network="web", number=1)) + f"log_allowed = {log_allowed}\n" + keys + RULES + LAN


@pytest.fixture(scope="module", params=["routed", "virtual"])
def records_lab(request):
    with Lab(policy=policy_text(request.param), internal=["web"] if request.param == "virtual" else []) as lab:
        lab.gw.sysctl(**TIMEOUTS)
        lab.form, lab.keys = request.param, ENFORCE
        yield lab


@pytest.fixture
def lab(records_lab):
    records_lab.gateway.log.mark()
    yield records_lab
    if records_lab.keys != ENFORCE:
        use(records_lab, ENFORCE)


@pytest.fixture
def log(lab):
    return lab.gateway.log


def use(lab, keys):
    lab.gateway.set_policy(policy_text(lab.form, keys))
    lab.keys = keys


def pair(lab, family="ipv4"):
    """Two new names of one server. Return: them, and the addresses that the app has of them: the same one, or two virtual ones."""
    first, address, address6 = lab.names.new(SUFFIXES[0], ipv6=True)
    second = first.replace(*SUFFIXES)
    lab.names.add(second, A=address, AAAA=address6)
    kind = "A" if family == "ipv4" else "AAAA"
    return (first, second), [lab.web1.resolve(name, kind)[0] for name in (first, second)]


def rule_of(lab, name):
    suffix = name.partition(".")[2]
    return f"sluice.conf:{next(i for i, line in enumerate(policy_text(lab.form, lab.keys).splitlines(), 1) if f'**.{suffix}' in line)}"


def is_told(lab, name, address, protocol, flows=1):
    """Each flow has two lines, with the name that it asked for. Return: the one about its end."""
    began = lab.gateway.log.wait(event="allowed", name=name, count=flows)
    over = wait_ended(lab, name=name, count=flows)
    assert (len(began), len(over)) == (flows, flows), lab.gateway.log.tail()
    for line in began + over:
        assert (line["sni"], line["dst"], line["port"], line["proto"], line["app"]) == (name, address, "443", protocol, "shop_web1_1")
        assert line["rule"].endswith(rule_of(lab, name))
        assert ("real" in line) == (lab.form == "virtual")
    return over[0]


def row_of(lab, name, protocol):
    rows = [row for row in ask_stats(lab, "web")["rows"] if row["name"] == name and row["proto"] == protocol]
    assert len(rows) == 1, rows
    return rows[0]


def carried(lines):
    return {key: sum(numbers(line)[key] for line in lines) for key in CARRIED}


def greet(lab, address, name, text=""):
    """A TCP connection to the server that says who it sees, and repeats what it is told."""
    sock = lab.web1.connect(address, 443)
    sock.settimeout(patience(5))
    ask(sock, name)
    if text:
        assert talk(sock, text) == text
    return sock


def ask(sock, name):
    """Say which host is wanted, as HTTP/1 does: in lines, which come back."""
    request = f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode()
    sock.sendall(request)
    answer = b""
    while len(answer) < len(request):
        answer += sock.recv(65536)
    assert answer == request


def send_all(sock, *datagrams):
    sock.settimeout(patience(5))
    for datagram in datagrams:
        sock.send(datagram)
        assert sock.recv(2048) == datagram


# --- the name that the flow asked for ---

@families
def test_tcp_flows_are_told_by_the_name_that_they_ask_for(lab, family):
    names, addresses = pair(lab, family)
    for name, address, size in zip(names, addresses[::-1], (3000, 9000)):
        greet(lab, address, name, "x" * size).close()
    for name, address, size in zip(names, addresses[::-1], (3000, 9000)):
        over = is_told(lab, name, address, "tcp")
        assert size < numbers(over)["bytes_in"] < size + 4000
        assert over["duration"].isdigit()
        row = row_of(lab, name, "tcp")
        assert (row["allowed"], {key: row[key] for key in CARRIED}) == (1, carried([over]))


@families
def test_quic_flows_are_told_by_the_name_that_they_ask_for(lab, family):
    names, addresses = pair(lab, family)
    for count, name, address in zip((1, 5), names, addresses[::-1]):
        with lab.web1.udp(address, 443) as sock:
            send_all(sock, quic_packets.hello(name), *[b"\x40" + bytes(100)] * count)
    for count, name, address in zip((1, 5), names, addresses[::-1]):
        over = is_told(lab, name, address, "udp")
        octets = quic_packets.DATAGRAM_SIZE + 101 * count + UDP_HEADERS[family] * (count + 1)
        assert numbers(over) == {"bytes_out": octets, "bytes_in": octets, "packets_out": count + 1, "packets_in": count + 1}
        row = row_of(lab, name, "udp")
        assert (row["allowed"], {key: row[key] for key in CARRIED}) == (1, carried([over]))


def test_a_hello_in_two_datagrams_is_one_flow(lab, log):
    (name, _), (address, _) = pair(lab)
    datagrams = quic_packets.hello_in_two(name)
    before = counted(lab)
    with lab.web1.udp(address, 443) as sock:
        sock.settimeout(patience(5))
        for datagram in datagrams:
            sock.send(datagram)
        assert {sock.recv(2048) for _ in datagrams} == set(datagrams)
    over = is_told(lab, name, address, "udp")
    octets = sum(len(datagram) + 28 for datagram in datagrams)
    assert carried([over]) == {"bytes_out": octets, "bytes_in": octets}
    assert counted(lab) - before == total(log) == 1


def test_many_flows_at_once(lab, log):
    """Sums by name are exact, and the kernel has counted as many."""
    names, addresses = pair(lab)
    before, flows = counted(lab), []
    for number in range(20):
        flows.append(greet(lab, addresses[number % 2], names[number % 3 % 2], "x" * 100 * number))
    for sock in flows:
        sock.close()
    for name, count in zip(names, (13, 7)):
        over = wait_ended(lab, name=name, count=count)
        assert len(log.lines(event="allowed", name=name)) == len(over) == count
        row = row_of(lab, name, "tcp")
        assert (row["allowed"], {key: row[key] for key in CARRIED}) == (count, carried(over))
    assert counted(lab) - before == total(log) == 20


def test_open_flows_are_counted_by_name(lab):
    names, addresses = pair(lab)
    with greet(lab, addresses[1], names[0], "x" * 5000), greet(lab, addresses[0], names[1]):
        wait_until(lambda: [row_of(lab, name, "tcp")["open"] for name in names] == [1, 1], "the open flows are not told by name", 20)
        first, second = (row_of(lab, name, "tcp") for name in names)
        assert first["bytes_in"] > 5000 > second["bytes_in"] > 0


def test_flows_of_the_same_ports_one_after_the_other(lab):
    """Conntrack tells them apart by nothing but its own number."""
    names, addresses = pair(lab)
    for name in names:
        with lab.web1.socket() as sock:
            sock.bind((lab.web1.ipv4, 21000))
            sock.settimeout(patience(5))
            sock.connect((addresses[0], 443))
            ask(sock, name)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # it is reset: the next one may have its port
        is_told(lab, name, addresses[0], "tcp")


def test_a_second_connection_on_the_same_ports_is_the_same_flow(lab, log):
    """Conntrack has one flow with one sum: it keeps the name of the first."""
    names, addresses = pair(lab)
    with lab.web1.udp(addresses[0], 443) as sock:
        send_all(sock, quic_packets.hello(names[0]), quic_packets.hello(names[1]))
    is_told(lab, names[0], addresses[0], "udp")
    assert log.lines(name=names[1]) == []


@pytest.mark.browser
def test_curl(lab):
    names = tuple(f"curl.{suffix}" for suffix in SUFFIXES)
    web = Web(lab, sites=(*names, EVIL))
    addresses = [lab.web1.resolve(name)[0] for name in names]
    for name, address in zip(names, addresses[::-1]):
        done = lab.web1.run(["curl", "--silent", "--show-error", "--cacert", web.certificate, "--max-time", "20", "--resolve", f"{name}:443:{address}",
                             f"https://{name}/"], timeout=25)
        assert (done.returncode, done.stdout) == (0, "proto=HTTP/2.0"), done.stderr
    for name, address in zip(names, addresses[::-1]):
        over = is_told(lab, name, address, "tcp")
        assert {key: row_of(lab, name, "tcp")[key] for key in CARRIED} == carried([over])


# --- what is not let out ---

def test_what_is_denied_was_never_allowed(lab, log):
    _, addresses = pair(lab)
    before = counted(lab)
    with lab.web1.connect(addresses[0], 443) as sock:
        sock.sendall(client_hello(EVIL))
        sock.settimeout(patience(5))
        with pytest.raises(ConnectionResetError):
            sock.recv(100)
    assert lab.web1.udp_result(addresses[0], payload=quic_packets.hello(EVIL)) == "rejected"
    log.wait(event="denied", reason="sni-mismatch", sni=EVIL, count=2)
    nothing_allowed(lab, before)


def test_a_connection_that_asks_for_nothing_is_not_told(lab):
    _, addresses = pair(lab)
    before = counted(lab)
    lab.web1.connect(addresses[0], 443).close()
    nothing_allowed(lab, before)


def nothing_allowed(lab, before):
    """Neither now nor in a sum, and it has no end."""
    wait_until(lambda: "sport" not in tracked(lab), "conntrack does not forget the flows", 15)
    time.sleep(11)  # two readings of the counter
    lab.gateway.log.settle()
    assert [line for line in lab.gateway.log.lines(network="web") if line["event"] in ("allowed", "ended")] == []
    assert counted(lab) == before


def tracked(lab):
    return "".join(line for line in lab.gw.run(["conntrack", "-L", "-s", lab.web1.ipv4, "--dport", "443", "-p", "tcp"]).stdout.splitlines() if "dport=443" in line)


# --- other names ---

def test_flows_that_name_nothing_have_the_name_of_their_address(lab, log):
    use(lab, ENFORCE + "without_name = allow\n")
    names, addresses = pair(lab)
    with lab.web1.connect(addresses[1], 443) as sock:
        assert talk(sock, "no name") == "no name"
    assert lab.web1.udp_result(addresses[1]) == "open"
    for line in (*log.wait(event="allowed", name=names[1], count=2), *wait_ended(lab, name=names[1], count=2)):
        assert "sni" not in line and line["rule"].endswith(rule_of(lab, names[1])) and line["dst"] == addresses[1]
    assert total(log) == total(log, event="ended") == 2


def test_what_verify_log_lets_pass(lab, log):
    """It was not verified, and `event=audit` says what it asked for."""
    use(lab, "verify = log\n")
    names, addresses = pair(lab)
    greet(lab, addresses[1], EVIL).close()
    greet(lab, addresses[1], names[0]).close()
    log.wait(event="audit", sni=EVIL, name=names[1])
    for event, lines in (("allowed", log.wait(event="allowed", dst=addresses[1], count=2)), ("ended", wait_ended(lab, dst=addresses[1], count=2))):
        assert sorted((line["name"], line.get("sni")) for line in lines) == sorted([(names[0], names[0]), (names[1], None)], key=str), event


def test_what_an_address_rule_allows_has_the_name_of_its_address(lab, log):
    with lab.lan1.connect("45.40.7.7", 443) as sock:
        assert talk(sock, "no name") == "no name"
    line, = log.wait(event="allowed", network="lan", dst="45.40.7.7")
    assert line["name"] == "-" and "sni" not in line


def test_a_network_whose_verify_is_turned_off_meanwhile(lab, log):
    """A flow that has not said its name goes on, and is told of."""
    names, addresses = pair(lab)
    before = counted(lab)
    with lab.web1.connect(addresses[1], 443) as sock:
        use(lab, "verify = off\n")
        assert talk(sock, "x" * 2000) == "x" * 2000
    over, = wait_ended(lab, name=names[1])
    assert "sni" not in over and numbers(over)["bytes_in"] > 2000
    time.sleep(11)
    assert counted(lab) - before == total(log) <= 1


def test_a_worker_that_dies_forgets_the_names(lab, log):
    """The flow goes on, and its end is told by the name of the address."""
    names, addresses = pair(lab)
    with greet(lab, addresses[1], names[0]) as sock:
        log.wait(event="allowed", name=names[0], sni=names[0])
        lab.gateway.kill_worker()
        lab.gateway.wait_healthy()
        assert talk(sock, "after") == "after"
    over, = wait_ended(lab, dst=addresses[1])
    assert over["name"] == names[1] and "sni" not in over


def test_a_reload_that_takes_the_name_away_ends_its_flow(lab):
    """Only its flow: the other one is to the same server, for a name that stays allowed."""
    names, addresses = pair(lab)
    with greet(lab, addresses[0], names[0], "one") as first, greet(lab, addresses[0], names[1], "two") as second:
        try:
            use(lab, ENFORCE + f"deny = {names[1]}\n")
            second.settimeout(patience(5))
            with pytest.raises(OSError):
                for _ in range(50):
                    talk(second, "more")
                    time.sleep(0.1)
            assert talk(first, "more") == "more"
        finally:
            use(lab, ENFORCE)
