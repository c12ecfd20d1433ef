# SPDX-License-Identifier: MIT
"""Every denial is in the log: as a line of its own or in a sum, and the sums are exact. Container names come and stay."""

import os
import signal
import socket
import time

import dns.message
import pytest

from namespaces import patience
from packets import send_frame, udp_packet

DOCKER_DOWN = """table ip down {
 chain output {
  type filter hook output priority 0
  ip daddr 127.0.0.11 udp dport 53 reject with icmp type port-unreachable
 }
}
"""


def total(lines):
    """What was denied, but for the multicast that every host sends unasked."""
    return sum(int(line["count"]) for line in lines if line["reason"] != "multicast")


def wait_total(log, wanted, seconds=40, **keys):
    """Wait until lines and sums are all there; then they may not become more."""
    end = time.monotonic() + patience(seconds)
    while total(log.lines(event="denied", **keys)) < wanted:
        assert time.monotonic() < end, f"only {total(log.lines(event='denied', **keys))} of {wanted} denials are in the log:\n{log.tail()}"
        time.sleep(0.3)
    log.settle()
    assert total(log.lines(event="denied", **keys)) == wanted


def ask_all(app, names, server, kind="A", window=64):
    """Ask for each name, wait for every answer. Return: how many there were."""
    wires = [dns.message.make_query(name, kind).to_wire() for name in names]
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with app.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.connect((server, 53))
        sock.settimeout(patience(5))
        sent = answered = 0
        while answered < len(wires):
            while sent < len(wires) and sent - answered < window:
                sock.send(wires[sent])
                sent += 1
            sock.recv(65535)
            answered += 1
    return answered


# --- questions ---

@pytest.mark.parametrize("server, family", [("192.0.2.53", "ipv4"), ("fdc9:1::1", "ipv6")])
def test_a_flood_of_denied_questions_is_counted_in_full(web2, log, server, family):
    sent = ask_all(web2, [f"q{number}.{family}.evil.example" for number in range(3000)], server)
    wait_total(log, sent, src=getattr(web2, family))
    own = [line for line in log.lines(event="denied", src=getattr(web2, family)) if "qname" in line]
    assert 50 <= len(own) < sent
    sums = log.lines(event="denied", src=getattr(web2, family), what="questions")
    assert sums and all((line["reason"], line["action"]) == ("repeated", "answered") for line in sums)


def test_a_denied_question_asked_again_within_seconds_is_counted_not_repeated(web1, log):
    """As a browser does: A, AAAA and HTTPS, again and again."""
    for _ in range(15):
        for kind in ("A", "AAAA", "HTTPS"):
            web1.ask("again.evil.example", kind)
    log.wait(event="denied", qname="again.evil.example", count=3)
    wait_total(log, 45, src=web1.ipv4)
    assert sorted(line["qtype"] for line in log.lines(qname="again.evil.example")) == ["A", "AAAA", "HTTPS"]
    assert total(log.lines(event="denied", src=web1.ipv4, what="questions", reason="repeated")) == 42


def test_another_apps_question_for_the_same_name_has_a_line(web1, web2, log):
    web1.ask("both.evil.example")
    web2.ask("both.evil.example")
    assert {line["src"] for line in log.wait(event="denied", qname="both.evil.example", count=2)} == {web1.ipv4, web2.ipv4}


# --- flows ---

def test_packets_that_the_queue_could_not_hold_are_counted(own_lab):
    """The worker stands still until its socket is full; what was dropped is told when it goes on."""
    log, web2, sent = own_lab.gateway.log, own_lab.web2, 0
    worker = own_lab.gateway.worker()
    os.kill(worker, signal.SIGSTOP)
    try:
        with web2.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            end = time.monotonic() + 14
            while time.monotonic() < end:
                for _ in range(100):
                    sock.sendto(b"denied", (f"45.35.{sent >> 8}.{sent & 255}", 4004))
                    sent += 1
                time.sleep(0.15)  # slower than the rate above which the kernel refuses without the queue
    finally:
        os.kill(worker, signal.SIGCONT)
    log.wait(event="denied", proto="udp", port=4004)
    own_lab.build1.udp_result("45.12.1.90", 4004)  # what was lost last is noticed when the next packet comes
    wait_total(log, sent + 1)
    full = log.lines(event="denied", reason="queue-full")
    assert full and all((line["what"], line["action"], line["network"]) == ("packets", "dropped", "-") for line in full)


# --- container names ---

def names_of_new_flow(lab, number):
    address = f"45.12.2.{number}"
    lab.web1.tcp_result(address)
    return lab.gateway.log.wait(event="denied", dst=address)[0]["app"]


def test_container_names_come_back_after_dockers_resolver_was_away(own_lab):
    """One refused question used to be the end of all names."""
    own_lab.gw.nft(DOCKER_DOWN)
    assert names_of_new_flow(own_lab, 1) == "-"
    own_lab.gw.nft("delete table ip down\n")
    end = time.monotonic() + patience(20)
    number = 2
    while "web1" not in names_of_new_flow(own_lab, number):
        assert time.monotonic() < end, f"no name after Docker's resolver is back:\n{own_lab.gateway.log.tail()}"
        number += 1
        time.sleep(0.5)


def test_made_up_sources_are_no_channel_to_dockers_resolver(own_lab):
    """Docker forwards the PTR of an address that no container has: an app that may forge its source chooses what is asked."""
    web1, log = own_lab.web1, own_lab.gateway.log
    assert "web1" in names_of_new_flow(own_lab, 1)
    mac = own_lab.gw.mac("web0")
    for number in range(20, 220):
        send_frame(web1, "eth0", mac, udp_packet(f"10.201.1.{number}", 1000, "45.12.2.100", 443, b"x"))
    log.wait(event="denied", dst="45.12.2.100", count=200, seconds=15)
    log.settle()
    asked = {name for name in own_lab.names.asked_of_docker() if name.endswith(".1.201.10.in-addr.arpa.")}
    assert 16 <= len(asked) <= 80, "a burst of 64, then 16 a minute"
    assert "web1" in names_of_new_flow(own_lab, 2)


def test_ipv6_sources_that_are_made_up_cost_others_no_names(own_lab):
    web1, log = own_lab.web1, own_lab.gateway.log
    web1.tcp_result("45.12.2.110")  # so that the gateway knows the neighbour's IPv4 address
    mac = own_lab.gw.mac("web0")
    for number in range(1, 400):
        send_frame(web1, "eth0", mac, udp_packet(f"fdc9:1::beef:{number:x}", 1000, "2a0e:12:1::111", 443, b"x"))
    log.wait(event="denied", dst="2a0e:12:1::111", count=399, seconds=15)
    end = time.monotonic() + patience(10)
    port = 5000
    while True:
        port += 1
        web1.tcp_result("2a0e:12:1::112", port)
        if "web1" in log.wait(event="denied", dst="2a0e:12:1::112", port=port)[0]["app"]:
            break
        assert time.monotonic() < end, f"no name for the IPv6 source:\n{log.tail()}"
        time.sleep(0.3)
