# SPDX-License-Identifier: MIT
"""The lab itself: with plain masquerading in the gateway's place everything is reached. What is denied elsewhere is denied by the gateway."""

import os
import subprocess
import sys

import pytest

from lab import HERE, LABS, Lab
from packets import Sniffer, send_frame, udp_packet


@pytest.fixture(scope="module")
def open_lab():
    with Lab(gateway=False) as lab:
        lab.stand_in()
        yield lab


def test_without_the_gateway_nothing_is_denied(open_lab):
    assert open_lab.web1.resolve("blocked.example") == ["45.12.1.66"]
    assert open_lab.web1.tcp_result("45.12.1.66") == "open"
    assert open_lab.web1.tcp_result("2a0e:12:1::66") == "open"
    assert open_lab.web1.udp_result("45.12.1.66") == "open"
    assert open_lab.build1.udp_result("2a0e:12:1::66") == "open"
    assert open_lab.lan1.tcp_result("45.12.1.66") == "open"


def test_servers_see_the_gateway_as_their_peer(open_lab):
    assert open_lab.web1.hello("45.12.1.10").startswith("from 45.9.0.2 ")
    assert open_lab.web1.hello("2a0e:12:1::10").startswith("from 2a0e:9::2 ")


def test_names_are_answered_and_recorded(open_lab):
    before = open_lab.names.count()
    assert open_lab.web1.resolve("n77.fresh.example") == ["45.20.0.77"]
    assert open_lab.web1.resolve("n77.fresh.example", "AAAA", tcp=True) == ["2a0e:14::4d"]
    queries = open_lab.names.queries(before)
    assert [query["transport"] for query in queries] == ["udp", "tcp"]
    assert b"\x03n77\x05fresh" in queries[0]["wire"]


def test_a_sniffer_sees_what_crosses_the_uplink(open_lab):
    with Sniffer(open_lab.inet, "up0") as uplink:
        open_lab.web1.udp_result("45.30.0.9", payload=b"seen on the wire")
        assert uplink.wait(contains=b"seen on the wire", destination="45.30.0.9")


def test_name_servers_can_misbehave(open_lab):
    open_lab.names.add("odd.example", A="45.30.0.1")
    open_lab.names.behave("odd.example", rcode="SERVFAIL", times=1)
    assert open_lab.web1.ask("odd.example").rcode() == 2
    assert open_lab.web1.ask("odd.example").rcode() == 0


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_an_internal_network_is_closed_both_ways(family):
    """Also for an app that writes its own frames, and for a gateway that forwards."""
    outside, inside, gateway = ("45.12.1.66", "10.201.1.2", "10.201.1.2") if family == "ipv4" else ("2a0e:12:1::66", "fdc9:1::2", "fdc9:1::2")
    with Lab(gateway=False, apps=["web1", "build1"], internal=["web"]) as lab:
        lab.stand_in()
        app = getattr(lab.web1, family)
        assert lab.web1.tcp_result(outside) == "Network is unreachable"
        assert lab.web1.tcp_result(inside) == "refused", "a neighbour is reached"
        assert lab.build1.tcp_result(outside) == "open", "the other network is not closed"
        with Sniffer(lab.gw, "web0") as inner, Sniffer(lab.web1, "eth0") as outer:
            for source, target in ((app, outside), (outside, inside), (app, inside)):
                send_frame(lab.web1, "eth0", lab.gw.mac("web0"), udp_packet(source, 7, target, 7, b"out"))
            for source, target in ((outside, app), (gateway, app)):
                send_frame(lab.gw, "web0", lab.web1.mac("eth0"), udp_packet(source, 7, target, 7, b"in"))
            assert inner.wait(destination=inside, source=app, contains=b"out")
            assert outer.wait(source=gateway, contains=b"in")
            assert [packet for packet in inner.matching(contains=b"out") if outside in (packet.source, packet.destination)] == []
            assert outer.matching(contains=b"in", source=outside) == []


def test_a_lab_leaves_nothing_behind():
    with Lab(gateway=False, apps=["web1"]) as lab:
        prefix, process = lab.prefix, lab.inet.processes[0]
    assert process.poll() is not None
    assert not any(name.startswith(prefix) for name in os.listdir("/run/netns"))
    assert prefix not in os.listdir(LABS)


def test_what_a_killed_run_left_is_removed_by_the_next():
    code = f"import sys, os; sys.path.insert(0, {HERE!r}); from lab import Lab; lab = Lab(gateway=False, apps=['web1']).__enter__(); " \
           "print(lab.prefix, flush=True); os.kill(os.getpid(), 9)"
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    prefix = killed.stdout.strip()
    assert prefix, killed.stderr
    with Lab(gateway=False, apps=["web1"]):
        assert not any(name.startswith(prefix) for name in os.listdir("/run/netns"))
        assert prefix not in os.listdir(LABS)
