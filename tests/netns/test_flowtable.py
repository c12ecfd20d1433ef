# SPDX-License-Identifier: MIT
"""The short way of established flows, where the kernel has one. Where it has none everything here holds as well, but for the way."""

import contextlib
import errno
import re

import pytest

from app import is_broken, read_exactly, talk, wait_until_broken
from faults import Faults
from hellos import client_hello
from lab import POLICY as USUAL
from lab import UPSTREAM, VIRTUAL, Lab
from namespaces import patience, wait_until


def web(keys, policy=USUAL):
    return policy.replace("[network web]\n", f"[network web]\n{keys}\n")


POLICY = web("log_allowed = all")
OFF = POLICY.replace("[gateway]\n", "[gateway]\nflowtable = no\n")
CLOSED = POLICY.replace(" **.any.example", "")
TALKS = 20
TRIED = "table inet tried {\nflowtable t { hook ingress priority 0; devices = { lo }; counter; }\nchain c { flow add @t; }\n}\ndelete table inet tried\n"
families = pytest.mark.parametrize("family", ["ipv4", "ipv6"])
protocols = pytest.mark.parametrize("protocol", ["tcp", "udp"])


@pytest.fixture(scope="module")
def flow_lab():
    with Lab(policy=POLICY) as lab:
        lab.short = has_flowtable(lab)
        yield lab


@pytest.fixture
def lab(flow_lab):
    flow_lab.gateway.log.mark()
    yield flow_lab
    flow_lab.gateway.set_policy(POLICY)


def has_flowtable(lab):
    """Tried out beside the gateway, as a person would."""
    return lab.gw.run(["nft", "-f", "-"], input=TRIED).returncode == 0


def resolved(lab, family, suffix="any.example"):
    """The address of a fresh name that web1 has asked for."""
    name, *addresses = lab.names.new(suffix, ipv6=True)
    for kind in ("A", "AAAA"):
        lab.web1.resolve(name, kind)
    return addresses[family == "ipv6"]


@contextlib.contextmanager
def flow_to(lab, address, protocol, port=443):
    with lab.web1.connect(address, port) if protocol == "tcp" else lab.web1.udp(address, port) as sock:
        sock.settimeout(patience(5))
        yield sock


def talk_much(sock):
    """Each line comes back, so nothing is lost on either way."""
    for number in range(TALKS):
        assert talk(sock, f"line {number}") == f"line {number}"


def entry(lab, address):
    """conntrack's line of a flow."""
    family = "ipv6" if ":" in address else "ipv4"
    return lab.gw.run(["conntrack", "-L", "-f", family, "-d", address]).stdout


def is_short(lab, address):
    return "[OFFLOAD]" in entry(lab, address)


@contextlib.contextmanager
def watched(lab):
    """A function that says how many packets have been forwarded through chains."""
    lab.gw.nft("table inet watch {\ncounter passed { }\nchain watching { type filter hook forward priority 50; counter name passed; }\n}\n")
    try:
        yield lambda: int(re.search(r"packets (\d+)", lab.gw.nft_list("counter", "inet", "watch", "passed")).group(1))
    finally:
        lab.gw.nft("delete table inet watch\n")


@families
@protocols
def test_an_established_flow_goes_the_short_way_and_is_counted(lab, family, protocol):
    address = resolved(lab, family)
    with flow_to(lab, address, protocol) as sock, watched(lab) as packets:
        talk_much(sock)
        before = packets()
        talk_much(sock)
        assert (packets() == before) == lab.short
        assert is_short(lab, address) == lab.short, entry(lab, address)
    began = lab.gateway.log.wait(event="allowed", dst=address)[0]
    assert (began["proto"], began["count"]) == (protocol, "1")


@families
@protocols
def test_a_reload_ends_it_at_once(lab, family, protocol):
    address = resolved(lab, family)
    with flow_to(lab, address, protocol) as sock:
        talk_much(sock)
        lab.gateway.set_policy(CLOSED)
        wait_until_broken(sock)
        assert is_broken(sock)


@protocols
def test_a_reload_that_changes_other_rules_costs_it_no_packet(lab, protocol):
    """The flowtable is made anew: some packets go the slow way, and none is lost."""
    address = resolved(lab, "ipv4")
    with flow_to(lab, address, protocol) as sock:
        talk_much(sock)
        for number in range(4):
            lab.gateway.set_policy(POLICY.replace("45.40.0.0/16:443", f"45.40.0.0/16:{500 + number}"))
            talk_much(sock)
        assert is_short(lab, address) == lab.short


def test_it_can_be_forbidden_and_allowed_again(lab):
    address = resolved(lab, "ipv4")
    with flow_to(lab, address, "udp") as sock:
        talk_much(sock)
        lab.gateway.set_policy(OFF)
        assert "flowtable" not in lab.gw.nft_list("table", "inet", "sluice")
        wait_until(lambda: not is_short(lab, address), "the flow is still in the flowtable")
        talk_much(sock)
        assert not is_short(lab, address)
        lab.gateway.set_policy(POLICY)
        assert ("flowtable" in lab.gw.nft_list("table", "inet", "sluice")) == lab.short
        talk_much(sock)
        assert is_short(lab, address) == lab.short


def test_flows_that_are_still_judged_go_the_slow_way(lab):
    """Those that audit mode lets out end with it; over the ports of a verified QUIC connection another one may begin."""
    lab.gateway.set_policy(web("mode = audit"))
    address = lab.names.address()
    with flow_to(lab, address, "udp") as sock:
        talk_much(sock)
        assert not is_short(lab, address)
        lab.gateway.set_policy(POLICY)
        wait_until_broken(sock)


def test_a_verified_flow_goes_the_short_way_when_its_name_was_read(lab):
    lab.gateway.set_policy(web("verify = enforce"))
    name, address = lab.names.new("tcp.example")
    lab.web1.resolve(name)
    with flow_to(lab, address, "tcp") as sock:
        hello = client_hello(name) + b"\n"
        sock.sendall(hello)
        assert read_exactly(sock, len(hello)) == hello
        talk_much(sock)
        assert is_short(lab, address) == lab.short


@protocols
def test_virtual_addresses(lab, protocol):
    internal = UPSTREAM + VIRTUAL.format(network="web", number=1) + "allow = **.any.example\n" + POLICY[POLICY.index("[network build]"):]
    with Lab(policy=internal, apps=["web1"], internal=["web"]) as other:
        name, *_ = other.names.new("any.example")
        address = other.web1.resolve(name)[0]
        with flow_to(other, address, protocol) as sock:
            talk_much(sock)
            assert is_short(other, address) == lab.short
            other.gateway.set_policy(internal.replace("**.any", "**.other"))
            wait_until_broken(sock)


def test_an_interface_that_comes_back_has_it_again(lab):
    lab.gw.ip("link set web0 down\nlink set web0 up\n")
    lab.gateway.wait_healthy()
    address = resolved(lab, "ipv4")
    with flow_to(lab, address, "tcp") as sock:
        talk_much(sock)
        assert is_short(lab, address) == lab.short


@pytest.mark.preloaded
def test_a_kernel_that_does_not_end_such_flows_gets_none():
    """Before Linux 6.4: EBUSY. The flowtable is given up, then the flow is ended."""
    with Lab(policy=POLICY, gateway=False, apps=["web1"]) as lab:
        faults = Faults(lab)
        short = has_flowtable(lab)
        lab.gateway.start(POLICY, **faults.environment())
        address = resolved(lab, "ipv4")
        with flow_to(lab, address, "udp") as sock:
            talk_much(sock)
            assert is_short(lab, address) == short
            with faults.on("flows_send", errno.EBUSY, after=1, times=1):  # the first one asks for all flows
                lab.gateway.set_policy(CLOSED)
                wait_until(lambda: faults.hits("flows_send") == 1, "no flow was to be ended")
            if short:
                wait_until_broken(sock)
        assert ("this kernel does not end a flow that is in a flowtable" in lab.gateway.log.text()) == short
        assert "flowtable" not in lab.gw.nft_list("table", "inet", "sluice")
        faults.close()
