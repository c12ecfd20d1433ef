# SPDX-License-Identifier: MIT
"""Flows that are allowed, in the log: when they begin, what they carried when they are over, and sums that are exact whatever is lost."""

import contextlib
import socket
import threading
import time

import pytest

from app import family_of, talk
from lab import POLICY, UPSTREAM, VIRTUAL, Lab
from namespaces import patience, wait_until

TIMEOUTS = {f"net__netfilter__nf_conntrack_{name}": 1 for name in ("tcp_timeout_close", "tcp_timeout_time_wait", "tcp_timeout_last_ack", "udp_timeout", "udp_timeout_stream")}
UDP_HEADERS = {"ipv4": 28, "ipv6": 48}
NAMED = ("app", "src", "dst", "port", "proto", "name")
families = pytest.mark.parametrize("family", ["ipv4", "ipv6"])


def keys(network, text, policy=POLICY):
    return policy.replace(f"[network {network}]\n", f"[network {network}]\n{text}\n")


# build tells once a minute: what happens there in the beginning is looked at by the last tests.
SUMMARY = keys("build", "log_allowed = summary")
ALL = keys("web", "log_allowed = all", SUMMARY)
VIRTUAL_ALL = UPSTREAM + VIRTUAL.format(network="web", number=1) + "log_allowed = all\nallow = **.https.example:443\n" + POLICY[POLICY.index("[network build]"):]


@pytest.fixture(scope="module")
def flows_lab():
    with Lab(policy=ALL) as lab:
        lab.gw.sysctl(**TIMEOUTS)
        lab.began = time.monotonic()
        lab.early = three_flows(lab)
        yield lab


@pytest.fixture
def lab(flows_lab):
    flows_lab.gateway.log.mark()
    yield flows_lab
    flows_lab.names.reset()
    errors = [line for line in flows_lab.gateway.log.lines(event="message", level="error") if "worker died of signal 9" not in line["text"]]
    assert errors == [], flows_lab.gateway.log.tail()
    flows_lab.gateway.set_policy(ALL)


@pytest.fixture
def log(lab):
    return lab.gateway.log


def three_flows(lab):
    """In the network that tells once a minute."""
    name, address = lab.names.new("build.example")
    lab.build1.resolve(name)
    for _ in range(3):
        lab.build1.hello(address)
    return name, address


def collect(lab):
    """conntrack forgets what has expired when somebody looks."""
    for family in ("ipv4", "ipv6"):
        lab.gw.run(["conntrack", "-L", "-f", family])


def wait_ended(lab, count=1, **wanted):
    wait_until(lambda: collect(lab) or len(lab.gateway.log.lines(event="ended", **wanted)) >= count, f"no end of {wanted} was told", 15)
    return lab.gateway.log.lines(event="ended", **wanted)


def counted(lab, network="web"):
    words = lab.gw.nft_list("counter", "inet", "sluice", f"allowed_{network}").split()
    return int(words[words.index("packets") + 1])


def total(log, network="web", event="allowed"):
    return sum(int(line["count"]) for line in log.lines(event=event, network=network))


def known(lab, suffix="https.example", app=None):
    """A name that an app has asked for. Return: name, IPv4 and IPv6 address."""
    name, *addresses = lab.names.new(suffix, ipv6=True)
    for kind in ("A", "AAAA"):
        (app or lab.web1).resolve(name, kind)
    return name, *addresses


def values(line, names):
    return {name: line.get(name) for name in names}


def numbers(line):
    return {name: int(line[name]) for name in ("bytes_out", "bytes_in", "packets_out", "packets_in")}


# --- one line when a flow begins, one when it is over ---

@families
def test_a_tcp_connection(lab, log, family):
    name, address, address6 = known(lab)
    to = address if family == "ipv4" else address6
    with lab.web1.connect(to, 443) as flow:
        assert talk(flow, "x" * 3000) == "x" * 3000
        time.sleep(1.2)
    began = log.wait(event="allowed", dst=to)[0]
    expected = {"app": "shop_web1_1", "src": getattr(lab.web1, family), "dst": to, "port": "443", "proto": "tcp", "name": name}
    assert values(began, NAMED) == expected
    assert (began["network"], began["action"], began["count"], "real" in began) == ("web", "allowed", "1", False)
    assert began["rule"].endswith(f"sluice.conf:{next(i for i, line in enumerate(ALL.splitlines(), 1) if '**.https.example' in line)}")
    over = wait_ended(lab, dst=to)[0]
    assert values(over, NAMED) == expected
    carried = numbers(over)
    assert 3001 < carried["bytes_out"] < 5000 and 3001 < carried["bytes_in"] < 5000
    assert 4 <= carried["packets_out"] <= 20 and 3 <= carried["packets_in"] <= 20
    assert int(over["duration"]) >= 1150  # slept 1200, in ticks of the kernel
    log.settle(1)
    assert len(log.lines(event="allowed")) == len(log.lines(event="ended")) == 1


@families
def test_udp_is_counted_to_the_octet(lab, log, family):
    name, address, address6 = known(lab)
    to = address if family == "ipv4" else address6
    with lab.web1.udp(to, 443) as flow:
        flow.settimeout(patience(5))
        for size in (100, 1200, 7):
            flow.send(b"q" * size)
            assert len(flow.recv(2000)) == size
    began = log.wait(event="allowed", dst=to)[0]
    assert values(began, NAMED) == {"app": "shop_web1_1", "src": getattr(lab.web1, family), "dst": to, "port": "443", "proto": "udp", "name": name}
    octets = 1307 + 3 * UDP_HEADERS[family]
    assert numbers(wait_ended(lab, dst=to)[0]) == {"bytes_out": octets, "bytes_in": octets, "packets_out": 3, "packets_in": 3}


def test_packets_before_any_answer_are_one_flow(lab, log):
    """A server that is slow, or not there."""
    address = "45.8.0.9"  # nobody has it
    lab.gateway.set_policy(ALL.replace("45.40.0.0/16:443", f"45.40.0.0/16:443 {address}"))
    before = counted(lab)
    with lab.web1.udp(address, 443) as flow:
        for _ in range(20):
            with contextlib.suppress(OSError):
                flow.send(b"again")
    log.wait(event="allowed", dst=address)
    log.settle(1)
    assert len(log.lines(event="allowed", dst=address)) == 1 == counted(lab) - before
    wait_ended(lab, dst=address)


def test_the_duration_has_no_waiting_in_it(lab, log):
    """conntrack remembers a flow for a while after its last packet."""
    name, address, _ = known(lab)
    lab.gw.sysctl(net__netfilter__nf_conntrack_tcp_timeout_time_wait=120, net__netfilter__nf_conntrack_udp_timeout=5)
    time.sleep(11)  # the worker reads them now and then
    try:
        lab.web1.hello(address)
        assert lab.web1.udp_result(address) == "open"
        log.wait(event="allowed", name=name, count=2)
        time.sleep(3)
        lab.gw.run(["conntrack", "-D", "-s", lab.web1.ipv4, "-d", address], check=True)
        for line in log.wait(event="ended", name=name, count=2):
            assert int(line["duration"]) < 3000, line
        # Forgotten late: only a look while it waited knows when it was over.
        lab.gateway.set_policy(ALL.replace("45.40.0.0/16:443", f"45.40.0.0/16:443 {address}:444"))
        assert lab.web1.udp_result(address, 444) == "open"
        for _ in range(4):  # the gateway looks at most once a second
            time.sleep(0.6)
            assert lab.gateway.sluice("stats").returncode == 0
        time.sleep(8)
        assert int(wait_ended(lab, name=name, port=444)[0]["duration"]) < 4000
    finally:
        lab.gw.sysctl(**TIMEOUTS)
        time.sleep(11)


def test_an_address_rule_lets_out_without_a_name(lab, log):
    lab.web1.hello("45.40.1.1")
    line = log.wait(event="allowed", dst="45.40.1.1")[0]
    assert line["name"] == "-"
    assert line["rule"].endswith(f"sluice.conf:{next(i for i, text in enumerate(ALL.splitlines(), 1) if '45.40.0.0/16' in text)}")
    wait_ended(lab, dst="45.40.1.1")


def test_a_flow_that_the_program_has_let_through(lab, log):
    """Its lease had ended; it waited in the queue while the name was asked again."""
    lab.gateway.set_policy(keys("web", "log_allowed = all\nmin_ttl = 0\ngrace = 0", SUMMARY))
    before = counted(lab)
    name, address = lab.names.new("https.example", ttl=1)
    lab.web1.resolve(name)
    time.sleep(3)
    lab.web1.hello(address)
    assert values(log.wait(event="allowed", dst=address)[0], NAMED)["name"] == name
    log.settle(1)
    assert len(log.lines(event="allowed", dst=address)) == 1 == counted(lab) - before
    assert log.lines(event="denied", dst=address) == []
    wait_ended(lab, dst=address)


def test_an_app_without_a_known_name(lab, log):
    lab.names.remove("12.1.201.10.in-addr.arpa")
    name, address, _ = known(lab, app=lab.web2)
    lab.web2.hello(address)
    assert values(log.wait(event="allowed", dst=address)[0], ("src", "app", "name")) == {"src": lab.web2.ipv4, "app": "-", "name": name}
    wait_ended(lab, dst=address)


def test_questions_are_not_told(lab, log):
    name, _, _ = known(lab)
    lab.web1.resolve(name, tcp=True)
    lab.web1.resolve(name, server="45.9.0.54")
    lab.web1.resolve(name, server="45.9.0.54", tcp=True)
    before = counted(lab)
    collect(lab)
    log.settle(2)
    collect(lab)
    log.settle(1)
    assert log.lines(event="allowed") == log.lines(event="ended") == []
    assert counted(lab) == before


# --- audit mode ---

def test_flows_that_audit_mode_lets_out_have_an_end(lab, log):
    lab.gateway.set_policy(keys("web", "log_allowed = all\nmode = audit", SUMMARY))
    lab.names.add("un.known.example", A=(address := lab.names.address()))
    lab.web1.resolve("un.known.example")
    before = counted(lab)
    with lab.web1.udp(address, 9999) as flow:
        flow.settimeout(patience(5))
        flow.send(b"x" * 50)
        flow.recv(100)
    log.wait(event="audit", dst=address, port=9999)
    over = wait_ended(lab, dst=address)[0]
    assert values(over, NAMED) == {"app": "shop_web1_1", "src": lab.web1.ipv4, "dst": address, "port": "9999", "proto": "udp", "name": "un.known.example"}
    assert numbers(over) == {"bytes_out": 78, "bytes_in": 78, "packets_out": 1, "packets_in": 1}
    assert over["duration"].isdigit()
    assert log.lines(event="allowed", network="web") == [] and counted(lab) == before
    name, allowed, _ = known(lab)
    lab.web1.hello(allowed)
    log.wait(event="allowed", dst=allowed, name=name)
    wait_ended(lab, dst=allowed)


# --- what the network wants to hear ---

def test_by_default_nothing_is_told(lab, log):
    lab.gateway.set_policy(SUMMARY)
    log.mark()
    name, address, _ = known(lab)
    before = counted(lab)
    lab.web1.hello(address)
    assert lab.web1.udp_result(address) == "open"
    wait_until(lambda: counted(lab) == before + 2, "the kernel has not counted them")
    time.sleep(11)  # two readings of the counter
    collect(lab)
    log.settle(1)
    assert [line for line in log.lines(network="web") if line["event"] in ("allowed", "ended")] == []
    lab.gateway.set_policy(ALL)  # and nothing of before is told from now on
    lab.web1.hello(address)
    log.wait(event="allowed", name=name)
    time.sleep(11)
    assert total(log) == 1
    wait_ended(lab, name=name)


def test_check_says_what_is_told(lab):
    text = lab.gateway.sluice("check", lab.gateway.policy_file).stdout
    assert "log_allowed: all" in text and "log_allowed: summary" in text and text.count("log_allowed") == 2


# --- sums ---

def flood(app, address, count, first=20000):
    """New UDP flows, each from a port of its own."""
    for number in range(count):
        with app.socket(family_of(address), socket.SOCK_DGRAM) as sock:
            sock.bind((app.ipv4, first + number))
            sock.sendto(b"flood", (address, 443))


def test_a_burst_is_told_as_an_exact_sum(lab, log):
    name, address, _ = known(lab)
    before, began = counted(lab), time.monotonic()
    flood(lab.web1, address, 3000)
    flooded = time.monotonic() - began
    wait_until(lambda: total(log) >= 3000, "not all flows were told", 30)
    assert counted(lab) - before == 3000
    lines = log.lines(event="allowed")
    sums = [line for line in lines if line.get("what") == "flows"]
    assert all(line["src"] == "-" and line["network"] == "web" for line in sums)
    assert all(line["name"] == name for line in lines if line not in sums)
    assert 100 <= len(lines) - len(sums) <= 110 + 50 * flooded
    wait_until(lambda: collect(lab) or total(log, event="ended") >= 3000, "not all ends were told", 40)
    over = log.lines(event="ended")
    assert len(over) <= 120 + 50 * (time.monotonic() - began)
    assert all(line["duration"].isdigit() for line in over if line["src"] != "-")
    time.sleep(11)  # two more readings of the counter
    assert total(log) == total(log, event="ended") == 3000 == counted(lab) - before
    assert sum(numbers(line)["bytes_out"] for line in over) == 3000 * 33


def test_the_sum_is_exact_when_workers_are_killed(lab, log):
    _, address, _ = known(lab)
    before, stop = counted(lab), threading.Event()

    def keep_flowing():
        first = 20000
        while not stop.is_set():
            flood(lab.web1, address, 50, first)
            first += 50
            time.sleep(0.1)

    thread = threading.Thread(target=keep_flowing)
    thread.start()
    try:
        for _ in range(4):
            time.sleep(1.5)
            lab.build1.hello(lab.early[1])
            lab.gateway.kill_worker()
            lab.gateway.wait_healthy()
    finally:
        stop.set()
        thread.join()
    came = counted(lab) - before
    assert came > 1000
    wait_until(lambda: total(log) >= came, "not all flows were told", 40)
    time.sleep(11)
    assert counted(lab) - before == came
    assert 0 <= total(log) - came <= 4, "each worker may have died with a line that it had not counted yet"


def test_what_came_while_nobody_listened_is_told_later(lab, log):
    _, address, _ = known(lab)
    before = counted(lab)
    lab.gateway.kill_worker(hold=True)
    try:
        for _ in range(5):
            assert lab.web1.hello(address)
    finally:
        lab.gateway.release()
    lab.gateway.wait_healthy()
    wait_until(lambda: total(log) >= 5, "they were not told", 30)
    time.sleep(6)
    assert total(log) == 5 == counted(lab) - before


@pytest.mark.parametrize("timestamps", [0, 1])
def test_a_flow_older_than_the_worker(lab, log, timestamps):
    """Only the kernel can know when it began, and does where it was told to."""
    _, address, _ = known(lab)
    lab.gw.sysctl(net__netfilter__nf_conntrack_timestamp=timestamps)
    try:
        with lab.web1.connect(address, 443) as flow:
            assert talk(flow, "before") == "before"
            log.wait(event="allowed", dst=address)
            time.sleep(1)
            lab.gateway.kill_worker()
            lab.gateway.wait_healthy()
            assert talk(flow, "after") == "after"
        duration = wait_ended(lab, dst=address)[0]["duration"]
    finally:
        lab.gw.sysctl(net__netfilter__nf_conntrack_timestamp=0)
    assert int(duration) >= 950 if timestamps else duration == "-"


# --- virtual addresses ---

@contextlib.contextmanager
def virtual_lab():
    with Lab(policy=VIRTUAL_ALL, internal=["web"]) as lab:
        lab.gw.sysctl(**TIMEOUTS)
        yield lab


def test_virtual_addresses_are_told_with_the_real_ones():
    with virtual_lab() as lab:
        log = lab.gateway.log
        for kind, family in (("A", "ipv4"), ("AAAA", "ipv6")):
            name, *reals = lab.names.new("https.example", ipv6=True)
            virtual = lab.web1.resolve(name, kind)[0]
            real = reals[kind == "AAAA"]
            with lab.web1.udp(virtual, 443) as flow:
                flow.settimeout(patience(5))
                for text in (b"one", b"two"):
                    flow.send(text)
                    assert flow.recv(100) == text
            line = log.wait(event="allowed", name=name)[0]
            assert values(line, (*NAMED, "real")) == {"app": "shop_web1_1", "src": getattr(lab.web1, family), "dst": virtual, "port": "443", "proto": "udp",
                                                      "name": name, "real": real}
            octets = 6 + 2 * UDP_HEADERS[family]
            over = wait_ended(lab, name=name)[0]
            assert over["real"] == real
            assert numbers(over) == {"bytes_out": octets, "bytes_in": octets, "packets_out": 2, "packets_in": 2}
        assert total(log) == 2 == counted(lab)
        lab.gateway.set_policy(VIRTUAL_ALL.replace("log_allowed = all", "log_allowed = all\nmode = audit"))
        name, address = lab.names.new("un.known.example")
        virtual = lab.web1.resolve(name)[0]
        assert lab.web1.udp_result(virtual) == "open"
        log.wait(event="audit", dst=virtual)
        over = wait_ended(lab, dst=virtual)[0]
        assert values(over, ("name", "real", "packets_out")) == {"name": name, "real": address, "packets_out": "1"}
        log.settle(1)
        assert total(log) == 2 == counted(lab)


# --- the table, and once a minute ---

def test_the_table_can_be_printed_and_read_back(lab):
    """By the names of its chains and counters, too."""
    listed = lab.gw.nft_list("table", "inet", "sluice")
    assert "counter allowed_web" in listed and "chain pass_web" in listed and "0x51d00006" in listed


def test_summaries_come_once_a_minute(lab):
    """The first three flows of all are told once, whatever became of the worker since."""
    log = lab.gateway.log
    log.start = 0
    name, address = lab.early
    wait_until(lambda: time.monotonic() > lab.began + 62, "time stands still", 70)
    line = log.wait(event="allowed", network="build", app="shop_build1_1", seconds=5)[0]
    assert values(line, ("dst", "name", "port", "proto", "what", "count")) == {"dst": address, "name": name, "port": "443", "proto": "tcp", "what": "flows", "count": "3"}
    assert numbers(line)["packets_out"] >= 12
    assert log.lines(event="ended", network="build") == []


# --- the last one: a gateway that is started again in this namespace finds counters of before ---

def test_a_stopping_gateway_leaves_nothing_untold(lab, log):
    _, address, _ = known(lab)
    before = counted(lab)
    flood(lab.web1, address, 400)
    lab.build1.hello(lab.early[1])
    came = counted(lab) - before
    assert lab.gateway.stop() == 0
    assert total(log) == came == 400
    log.start = 0
    assert total(log, "build") == counted(lab, "build") >= 4
    lab.gateway.start(ALL)
