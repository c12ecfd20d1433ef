# SPDX-License-Identifier: MIT
"""Published ports: what they let in, to whom, and that nothing else comes in with it."""

import contextlib
import os
import signal
import socket
import threading
import time

import pytest

from app import family_of, talk
from lab import DNS6, GATEWAY_UPLINK4, GATEWAY_UPLINK6, SITE4, SITE6, SITE_MTU, UPSTREAM, Lab
from namespaces import patience
from packets import Sniffer

UPLINK = {"ipv4": GATEWAY_UPLINK4, "ipv6": GATEWAY_UPLINK6}
CLIENT = {"ipv4": "45.9.0.1", "ipv6": DNS6}  # the source that the kernel chooses
NETWORKS = """
[network build]
subnet = 10.201.2.0/24
subnet = fdc9:2::/64
publish = 444/tcp -> worker

[network lan]
subnet = 10.201.3.0/24
allow = 0.0.0.0/0
"""
WEB = """
[network web]
subnet = 10.201.1.0/24
subnet = fdc9:1::/64
"""
ENTRIES = "publish = 443 -> shop, 8080/tcp -> shop:80\n  5353/udp -> shop:9999, 7000-7002/tcp -> shop\n  1000/tcp -> 10.201.1.12\n"
POLICY = UPSTREAM + WEB + ENTRIES + NETWORKS


def place(lab, name, app=None):
    """Docker's resolver knows a container: an app's addresses by a name."""
    if app is None:
        lab.names.remove(name)
    else:
        lab.names.add(name, A=app.ipv4, AAAA=app.ipv6)


def wait_for(condition, what, seconds=10):
    end = time.monotonic() + patience(seconds)
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def is_open(lab, port=443, address=GATEWAY_UPLINK4):
    return lab.inet.tcp_result(address, port, 0.3) in ("open", "refused")


@pytest.fixture(scope="module")
def module_lab():
    with Lab(policy=POLICY) as lab:
        place(lab, "shop", lab.web1)
        place(lab, "worker", lab.build1)
        wait_for(lambda: is_open(lab) and is_open(lab, 444), "the published containers were not found")
        yield lab


@pytest.fixture
def world(module_lab):  # pylint: disable=redefined-outer-name
    module_lab.gateway.log.mark()
    yield module_lab
    module_lab.names.reset()
    place(module_lab, "shop", module_lab.web1)
    wait_for(lambda: module_lab.gateway.log.text().rpartition("published container shop is ")[2].startswith(f"at {module_lab.web1.ipv4} and {module_lab.web1.ipv6}"),
             "the container did not come back")
    if [line for line in module_lab.gateway.log.lines(event="message", level="error") if "worker died of signal 9" not in line["text"]]:
        pytest.fail(f"errors were logged:\n{module_lab.gateway.log.tail()}")


def wait_ended(lab):
    """Flows are ended right after the new rules are in force."""
    wait_for(lambda: [line for line in lab.gateway.log.lines(event="message") if line["text"].endswith("flows that are not allowed any more were ended")],
             "no flow was ended")


@contextlib.contextmanager
def listening(app, port, address=None):
    address = address or app.ipv4
    with app.socket(family_of(address)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.listen(512)
        server.settimeout(patience(5))
        yield server


@contextlib.contextmanager
def receiving(app, port, address=None):
    address = address or app.ipv4
    with app.socket(family_of(address), socket.SOCK_DGRAM) as server:
        server.bind((address, port))
        server.settimeout(patience(3))
        yield server


@contextlib.contextmanager
def flow_to(lab, app, port=443, inside=None, family="ipv4", client=None):
    """An inbound TCP connection. Yields the client's and the app's end."""
    with listening(app, inside or port, getattr(app, family)) as server, (client or lab.inet).connect(UPLINK[family], port) as outer:
        inner, _ = server.accept()
        with inner:
            inner.settimeout(patience(3))
            yield outer, inner


def echo(outer, inner, text=b"hello\n"):
    outer.sendall(text)
    assert inner.recv(100) == text
    inner.sendall(text)
    assert outer.recv(100) == text


# --- what comes in ---

@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_tcp_comes_in_with_the_clients_address(world, family):
    with flow_to(world, world.web1, family=family) as (outer, inner):
        assert inner.getpeername()[:2] == (CLIENT[family], outer.getsockname()[1])
        echo(outer, inner)


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_udp_comes_in_with_the_clients_address(world, family):
    with receiving(world.web1, 443, getattr(world.web1, family)) as server, world.inet.udp(UPLINK[family], 443) as client:
        client.settimeout(patience(3))
        for text in (b"one", b"two"):  # both before any answer
            client.send(text)
        for text in (b"one", b"two"):
            data, source = server.recvfrom(100)
            assert (data, source[:2]) == (text, (CLIENT[family], client.getsockname()[1]))
        server.sendto(b"answer", source)
        assert client.recv(100) == b"answer"


def test_ports_are_mapped(world):
    with flow_to(world, world.web1, 8080, 80) as ends:
        echo(*ends)
    with flow_to(world, world.web1, 7001) as ends:
        echo(*ends)
    with flow_to(world, world.web2, 1000) as ends:
        echo(*ends)
    with receiving(world.web1, 9999) as server, world.inet.udp(GATEWAY_UPLINK4, 5353) as client:
        client.send(b"mapped")
        assert server.recv(100) == b"mapped"


def test_many_clients_with_the_same_port_are_told_apart(world):
    with listening(world.web1, 443) as server, world.inet.socket() as first, world.site.socket() as second:
        for client, address in ((first, CLIENT["ipv4"]), (second, SITE4)):
            client.bind((address, 50123))
            client.settimeout(patience(5))
            client.connect((GATEWAY_UPLINK4, 443))
        ends = [server.accept() for _ in range(2)]
        assert sorted(peer for _, peer in ends) == sorted([(CLIENT["ipv4"], 50123), (SITE4, 50123)])
        for inner, _ in ends:
            inner.close()


# --- what does not ---

@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_anything_else_is_dropped_silently(world, family):
    address = getattr(world.web1, family)
    with Sniffer(world.web1, "eth0") as wire, Sniffer(world.inet, "up0") as uplink, \
            listening(world.web1, 80, address), listening(world.web1, 9999, address):
        for port in (80, 444 + 1, 5353, 7003, 6999, 9999):
            assert world.inet.tcp_result(UPLINK[family], port, 0.2) == "timeout", f"TCP port {port}"
        for port in (8080, 7000, 80, 9999):
            assert world.inet.udp_result(UPLINK[family], port, 0.2, b"not published") == "timeout", f"UDP port {port}"
        with flow_to(world, world.web1, family=family) as ends:
            echo(*ends)
        assert wire.wait(dport=443)
        assert {packet.dport for packet in wire.matching(destination=address)} - {None, 443} == set()
        assert wire.matching(contains=b"not published") == []
        answers = [packet for packet in uplink.matching(source=UPLINK[family]) if packet.sport not in (443, 53)]
        assert [packet for packet in answers if packet.sport] == []


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_published_container_is_not_reached_by_its_own_address(world, family):
    """Somebody on the uplink's own segment routes to us: the packet has not been sent to a published port of ours."""
    target = getattr(world.web1, family)
    world.inet.ip(f"route replace 10.201.0.0/16 via {GATEWAY_UPLINK4}\nroute replace fdc9::/16 via {GATEWAY_UPLINK6}\n")
    try:
        with listening(world.web1, 443, target), Sniffer(world.web1, "eth0") as wire:
            assert world.inet.tcp_result(target, 443, 0.4) == "timeout"
            assert world.inet.udp_result(target, 443, 0.4) == "timeout"
            assert wire.matching(dport=443) == []
    finally:
        world.inet.ip("route del 10.201.0.0/16\nroute del fdc9::/16\n")


def test_a_port_of_one_network_does_not_lead_to_another(world):
    """444 leads to build's container; web has the same port open and must not be found behind it, nor build behind web's."""
    with listening(world.web1, 444), listening(world.build1, 443), Sniffer(world.web1, "eth0") as web, Sniffer(world.build1, "eth0") as build:
        with flow_to(world, world.build1, 444) as ends:
            echo(*ends)
        world.inet.tcp_result(GATEWAY_UPLINK4, 443)
        assert build.wait(dport=444) and web.wait(dport=443)
        assert web.matching(dport=444) == []
        assert build.matching(dport=443) == []


def test_another_network_does_not_reach_a_published_port(world):
    """Neither through the gateway's address on the uplink, nor through its own, nor directly."""
    with listening(world.web1, 443), Sniffer(world.web1, "eth0") as wire:
        for address in (GATEWAY_UPLINK4, "10.201.3.1", "10.201.1.1", world.web1.ipv4):
            assert world.lan1.tcp_result(address, 443, 1) == "refused"
        assert wire.matching(dport=443) == []


def test_a_published_app_cannot_open_flows_of_its_own(world):
    """It has flows with a client; it may not begin one with it, from whatever port."""
    with listening(world.inet, 8444, CLIENT["ipv4"]), flow_to(world, world.web1) as (outer, inner):
        echo(outer, inner)
        assert world.web1.tcp_result(CLIENT["ipv4"], 8444) == "refused"
        assert world.web1.tcp_result("45.12.1.66", 443) == "refused"
        with world.web1.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, Sniffer(world.inet, "up0") as uplink:
            sender.bind((world.web1.ipv4, 443))
            sender.sendto(b"out with it", (CLIENT["ipv4"], outer.getsockname()[1]))
            echo(outer, inner)
            assert uplink.wait(sport=443)
            assert uplink.matching(contains=b"out with it") == []
    assert world.gateway.log.wait(event="denied", dst=CLIENT["ipv4"], port=8444)[0]["network"] == "web"


def test_an_apps_own_flows_are_as_before(world):
    with world.lan1.connect("45.12.1.10", 443) as flow:
        assert talk(flow, "hello").startswith(f"from {GATEWAY_UPLINK4} ")
    assert world.lan1.udp_result("45.12.1.10") == "open"
    world.gateway.log.settle()
    assert world.gateway.log.lines(event="inbound") == []


# --- ICMP errors ---

@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_closed_udp_port_is_told_to_the_client(world, family):
    """The error is about a packet that came in: it goes out."""
    assert world.inet.udp_result(UPLINK[family], 443, 3) == "rejected"


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_the_path_mtu_towards_a_client_is_told_to_the_app(world, family):
    """The error is about a reply: it comes in. The site is behind a link of 1400 octets."""
    level, discover, do, mtu = (socket.IPPROTO_IP, 10, 2, 14) if family == "ipv4" else (socket.IPPROTO_IPV6, 23, 2, 24)
    with receiving(world.web1, 443, getattr(world.web1, family)) as server, world.site.udp(UPLINK[family], 443) as client:
        client.settimeout(patience(3))
        client.send(b"hello")
        _, source = server.recvfrom(100)
        assert source[0] == (SITE4 if family == "ipv4" else SITE6)
        server.connect(source)
        server.setsockopt(level, discover, do)
        end = time.monotonic() + patience(5)
        while server.getsockopt(level, mtu) != SITE_MTU:
            assert time.monotonic() < end, f"the app's path MTU is still {server.getsockopt(level, mtu)}"
            with contextlib.suppress(OSError):
                server.send(b"b" * 1430)
            time.sleep(0.05)
        with contextlib.suppress(OSError):
            server.send(b"the error of before")
        server.send(b"s" * 1300)
        wait_for(lambda: client.recv(2000) == b"s" * 1300, "the reply was lost")


# --- where the container is ---

def test_a_changed_address_is_followed(world):
    log = world.gateway.log
    with flow_to(world, world.web1) as (outer, inner):
        place(world, "shop", world.web2)
        moved = log.wait(event="message", level="info", count=1, seconds=10, text=f"network web: the published container shop is at {world.web2.ipv4} and {world.web2.ipv6}")
        assert len(moved) == 1
        wait_ended(world)
        with flow_to(world, world.web2) as ends, flow_to(world, world.web2, family="ipv6") as ends6:
            echo(*ends)
            echo(*ends6)
            outer.sendall(b"still there?\n")
            inner.settimeout(0.5)
            with pytest.raises((TimeoutError, ConnectionError)):
                assert inner.recv(100) == b"", "the flow to the old address was not ended"
                raise ConnectionError
    place(world, "shop", world.web1)
    wait_for(lambda: log.lines(text=f"network web: the published container shop is at {world.web1.ipv4} and {world.web1.ipv6}"), "it did not come back")
    with flow_to(world, world.web1) as ends:
        echo(*ends)


def test_nothing_is_applied_while_addresses_stay(world):
    """Polls go on; flows are not disturbed, and no line says that anything was found again."""
    before = len(world.names.asked_of_docker())
    with flow_to(world, world.web1) as ends:
        wait_for(lambda: len(world.names.asked_of_docker()) >= before + 8, "Docker is not asked any more")
        echo(*ends)
    said = [line["text"] for line in world.gateway.log.lines(event="message")]
    assert [text for text in said if not text.endswith("flows that are not allowed any more were ended")] == []  # those of the test before
    assert set(world.names.asked_of_docker()[before:]) <= {"shop.", "worker."} | {name for name in world.names.asked_of_docker() if name.endswith(".arpa.")}


def test_a_name_that_vanishes_closes_its_ports_and_ends_its_flows(world):
    log = world.gateway.log
    with flow_to(world, world.web1) as (outer, inner), flow_to(world, world.web2, 1000) as kept:
        place(world, "shop")
        log.wait(event="message", level="warning", text="network web: the published container shop is gone; its ports are closed until it is back")
        wait_for(lambda: not is_open(world), "its port is still open")
        wait_ended(world)
        echo(*kept)
        outer.sendall(b"lost\n")
        inner.settimeout(0.5)
        with pytest.raises(TimeoutError):
            inner.recv(100)
        assert is_open(world, 444), "another network's container is not concerned"
    place(world, "shop", world.web1)
    wait_for(lambda: is_open(world), "it did not come back")
    assert len(log.lines(event="message", level="warning")) == 1


def test_silence_of_docker_keeps_the_address(world):
    world.names.server("127.0.0.11", "drop")
    try:
        with flow_to(world, world.web1) as ends:
            world.gateway.log.wait(event="message", level="warning", seconds=15,
                                   text="network web: Docker's resolver at 127.0.0.11 does not answer for the published container shop: taken to be at "
                                   f"{world.web1.ipv4} and {world.web1.ipv6} still")
            echo(*ends)
        with flow_to(world, world.web1, family="ipv6") as ends:
            echo(*ends)
    finally:
        world.names.server("127.0.0.11", "up")
    world.gateway.log.wait(event="message", level="info", seconds=15, text=f"network web: the published container shop is at {world.web1.ipv4} and {world.web1.ipv6}")


def test_addresses_on_other_networks_are_ignored(world):
    """The container is on several networks: only its address on the publishing one counts. Ours are nobody's."""
    log = world.gateway.log
    world.names.add("shop", A=["10.201.2.11", "45.12.1.10", "10.201.1.2", "10.201.1.1", world.web2.ipv4], AAAA=["fdc9:2::11", "fdc9:1::2", world.web2.ipv6])
    wait_for(lambda: log.lines(text=f"network web: the published container shop is at {world.web2.ipv4} and {world.web2.ipv6}"), "web2 was not found")
    world.names.add("shop", A=["10.201.2.11", "45.12.1.10", "10.201.1.2", "10.201.1.1"], AAAA=["fdc9:2::11", "fdc9:1::2"])
    with Sniffer(world.build1, "eth0") as wire:
        log.wait(event="message", level="warning", text="network web: the published container shop is gone; its ports are closed until it is back")
        wait_for(lambda: not is_open(world), "its port is still open")
        assert wire.matching(dport=443) == []
    place(world, "shop", world.web1)
    wait_for(lambda: is_open(world), "it did not come back")


def test_of_several_addresses_the_one_in_use_stays(world):
    log = world.gateway.log
    world.names.add("shop", A=["10.201.1.5", world.web1.ipv4], AAAA=["fdc9:1::5", world.web1.ipv6])
    before = len(world.names.asked_of_docker())
    with flow_to(world, world.web1) as ends:
        wait_for(lambda: len(world.names.asked_of_docker()) >= before + 8, "Docker is not asked any more")
        echo(*ends)
    assert log.lines(event="message") == []
    place(world, "shop", world.web1)


def test_a_name_that_never_was_there_is_told_with_the_cure(world):
    world.gateway.set_policy(POLICY.replace("443 -> shop,", "443 -> shopp,"))
    try:
        line = world.gateway.log.wait(event="message", level="warning", seconds=20)[0]
        assert "shopp" in line["text"] and "10.201.1.0/24 or fdc9:1::/64" in line["text"] and "start it" in line["text"]
        assert not is_open(world)
        assert is_open(world, 8080), "what is published for another name is open"
    finally:
        world.gateway.set_policy(POLICY)
        wait_for(lambda: is_open(world), "it did not come back")


# --- reload ---

def test_a_reload_ends_what_it_closes_and_nothing_else(world):
    with flow_to(world, world.web1) as closed, flow_to(world, world.web1, 8080, 80) as kept, flow_to(world, world.build1, 444) as other:
        world.gateway.set_policy(POLICY.replace("443 -> shop,", ""))
        try:
            assert not is_open(world)
            wait_ended(world)
            echo(*kept)
            echo(*other)
            closed[0].sendall(b"am I still here\n")
            closed[1].settimeout(0.5)
            with pytest.raises(TimeoutError):
                closed[1].recv(100)
        finally:
            world.gateway.set_policy(POLICY)
        assert is_open(world), "the address is known: nothing has to be waited for"
        echo(*kept)


def test_a_reload_that_changes_nothing_ends_nothing(world):
    with flow_to(world, world.web1) as tcp, receiving(world.web1, 443) as server, world.inet.udp(GATEWAY_UPLINK4, 443) as client:
        client.settimeout(patience(3))
        client.send(b"one")
        _, source = server.recvfrom(100)
        world.gateway.set_policy(POLICY + "\n")
        server.sendto(b"two", source)
        assert client.recv(100) == b"two"
        echo(*tcp)
    assert not [line for line in world.gateway.log.lines(event="message") if "ended" in line["text"]]


def test_a_changed_port_ends_its_flows(world):
    with flow_to(world, world.web1, 8080, 80) as (outer, inner):
        world.gateway.set_policy(POLICY.replace("8080/tcp -> shop:80", "8080/tcp -> shop:81"))
        try:
            wait_ended(world)
            outer.sendall(b"am I still here\n")
            inner.settimeout(0.5)
            with pytest.raises(TimeoutError):
                inner.recv(100)
            with flow_to(world, world.web1, 8080, 81) as ends:
                echo(*ends)
        finally:
            world.gateway.set_policy(POLICY)


# --- the log ---

@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_flow_is_one_line(world, family):
    log = world.gateway.log
    with flow_to(world, world.web1, 8080, 80, family) as (outer, inner):
        for _ in range(5):
            echo(outer, inner)
    line = log.wait(event="inbound")[0]
    number = next(index for index, text in enumerate(POLICY.splitlines(), 1) if "8080/tcp" in text)
    assert {key: line[key] for key in line if key not in ("ts", "rule")} == {
        "event": "inbound", "network": "web", "src": CLIENT[family], "app": "shop", "dst": getattr(world.web1, family), "port": "80",
        "proto": "tcp", "published": "8080", "action": "allowed", "count": "1"}
    assert line["rule"].endswith(f"sluice.conf:{number}")
    log.settle(1)
    assert len(log.lines(event="inbound")) == 1


def test_udp_before_any_answer_is_one_line(world):
    log = world.gateway.log
    with receiving(world.web1, 443), world.inet.udp(GATEWAY_UPLINK4, 443) as client:
        for _ in range(20):
            client.send(b"again")
        log.wait(event="inbound", proto="udp", src=CLIENT["ipv4"], dst=world.web1.ipv4)
        log.settle(1)
        assert len(log.lines(event="inbound")) == 1


def total(log):
    return sum(int(line["count"]) for line in log.lines(event="inbound"))


def flood(client, count):
    """New UDP flows, each from a port of its own."""
    for number in range(count):
        with client.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((CLIENT["ipv4"], 20000 + number))
            sock.sendto(b"flood", (GATEWAY_UPLINK4, 443))


def counted(lab, network="web"):
    words = lab.gw.nft_list("counter", "inet", "sluice", f"inbound_{network}").split()
    return int(words[words.index("packets") + 1])


def test_a_flood_is_told_as_an_exact_sum(world):
    log, before = world.gateway.log, counted(world)
    with receiving(world.web1, 443):
        flood(world.inet, 3000)
    wait_for(lambda: total(log) >= 3000, "not all flows were told", 30)
    summaries = log.lines(event="inbound", what="flows")
    assert summaries and all(line["src"] == "-" and line["network"] == "web" and line["action"] == "allowed" for line in summaries)
    assert len(log.lines(event="inbound")) < 500
    time.sleep(11)  # two more readings of the counter
    assert total(log) == 3000 == counted(world) - before


# --- the worker ---

def test_without_a_worker_flows_come_in_and_are_told_later(world):
    """Nothing that comes in waits for the program; and what nobody saw is counted."""
    log, gateway = world.gateway.log, world.gateway
    with flow_to(world, world.web1) as kept:
        log.wait(event="inbound")
        gateway.kill_worker(hold=True)
        try:
            for _ in range(7):
                with flow_to(world, world.web1, 8080, 80) as ends:
                    echo(*ends)
            echo(*kept)
        finally:
            gateway.release()
        gateway.wait_healthy()
        echo(*kept)
    wait_for(lambda: total(log) >= 8, "what came in meanwhile was not told", 30)
    time.sleep(6)
    assert total(log) == 8
    assert not [line for line in log.lines(event="message") if "ended" in line["text"] and "flows" in line["text"]]


def test_a_new_worker_keeps_ports_open_before_it_knows_anything(world):
    """Docker does not answer: the addresses are those that the worker before knew."""
    world.names.server("127.0.0.11", "drop")
    try:
        world.gateway.kill_worker()
        world.gateway.wait_healthy()
        with flow_to(world, world.web1) as ends:
            echo(*ends)
    finally:
        world.names.server("127.0.0.11", "up")


def test_an_open_flow_and_new_ones_survive_many_crashes(world):
    stop, failures = threading.Event(), []

    def keep_connecting():
        while not stop.is_set():
            result = world.inet.tcp_result(GATEWAY_UPLINK4, 443, 2)
            if result != "open":
                failures.append(result)
            time.sleep(0.03)  # nobody accepts, and the queue has an end

    with flow_to(world, world.web1) as kept:
        thread = threading.Thread(target=keep_connecting)
        thread.start()
        try:
            for _ in range(4):
                os.kill(world.gateway.worker(), signal.SIGKILL)
                time.sleep(0.7)
                world.gateway.wait_healthy()
        finally:
            stop.set()
            thread.join()
        echo(*kept)
    assert failures == []
