# SPDX-License-Identifier: MIT
"""What went wrong once or was taken away leaves no trace: refused reloads, lost netlink messages, removed networks, the uplink away."""

import concurrent.futures
import os
import signal
import subprocess

import pytest

from lab import POLICY, Lab
from namespaces import wait_until

WITHOUT_BUILD = POLICY[:POLICY.index("[network build]")] + POLICY[POLICY.index("[network lan]"):]
NOWHERE_AUDITED = POLICY.replace("[network build]", "[network build]\nmode = audit")
NOWHERE_ALLOWED = POLICY.replace("allow  = **.build.example:443", "allow  = **.nowhere.example:443 **.build.example:443")


@pytest.fixture(scope="module")
def recovery_lab():
    with Lab() as lab:
        yield lab


@pytest.fixture
def lab(recovery_lab):
    recovery_lab.gateway.log.mark()
    yield recovery_lab
    recovery_lab.names.reset()
    recovery_lab.gateway.set_policy(POLICY)
    recovery_lab.gateway.wait_healthy()


def leased(lab):
    name, address = lab.names.new("build.example")
    assert lab.build1.resolve(name) == [address]
    return address


def test_a_worker_that_dies_after_a_network_was_removed_comes_back(lab):
    """The removed network's interface is still there, and is no second way out."""
    lab.gateway.set_policy(WITHOUT_BUILD)
    lab.gateway.kill_worker()
    lab.gateway.wait_healthy()
    name, address = lab.names.new("https.example")
    assert lab.web1.resolve(name) == [address]
    assert lab.web1.tcp_result(address) == "open"
    assert lab.build1.tcp_result(address, seconds=0.5) == "timeout"


def test_a_worker_that_starts_while_the_uplink_is_away_waits_for_it(lab):
    lab.gateway.set_policy(WITHOUT_BUILD)
    lab.gateway.kill_worker(hold=True)
    lab.gw.ip("link set up0 down\naddress flush dev up0\n")
    try:
        lab.gateway.release()
        wait_until(lambda: "uplink, interface up0, is gone" in lab.gateway.log.since_mark(), "the missing uplink is not reported")
        assert lab.gateway.worker()
        assert not lab.gateway.healthy(), "health says that nothing can leave"
        assert "uplink" in lab.gateway.sluice("health").stderr
    finally:
        lab.gw.ip("link set up0 up\naddress add 45.9.0.2/24 dev up0\naddress add 2a0e:9::2/64 dev up0 nodad\n"
                  "route replace default via 45.9.0.1\nroute replace default via 2a0e:9::1\n")
    lab.gateway.wait_healthy()
    name, address = lab.names.new("https.example")
    assert lab.web1.resolve(name) == [address]
    assert lab.web1.tcp_result(address) == "open"


def test_what_audit_mode_showed_is_granted_once_a_rule_allows_it(lab):
    """The way audit mode is meant to be used: look, write the rule, enforce."""
    lab.gateway.set_policy(NOWHERE_AUDITED)
    name, address = lab.names.new("nowhere.example")
    assert lab.build1.resolve(name) == [address]
    lab.gateway.set_policy(NOWHERE_ALLOWED)
    lab.gateway.kill_worker(hold=True)
    try:
        assert lab.build1.tcp_result(address, seconds=1) == "open", "it is in the kernel's set, not only in the worker's memory"
    finally:
        lab.gateway.release()
        lab.gateway.wait_healthy()


@pytest.mark.slow
def test_interface_changes_are_noticed_after_netlink_messages_were_lost(lab):
    worker = lab.gateway.worker()
    os.kill(worker, signal.SIGSTOP)
    try:
        lab.gw.ip("".join(f"route add blackhole 100.64.{i >> 8}.{i & 255}/32\n" for i in range(1 << 15)))
    finally:
        os.kill(worker, signal.SIGCONT)
    lab.gw.ip("route flush type blackhole\naddress del 2a0e:9::2/64 dev up0\n")
    lab.gw.run(["ip", "-6", "route", "del", "default"])
    try:
        def asked():
            name, _, _ = lab.names.new("ok.example", ipv6=True)
            return lab.web1.resolve(name, "AAAA")
        wait_until(lambda: asked() == [], "the uplink lost IPv6, and AAAA is still answered", seconds=20)
    finally:
        lab.gw.ip("address add 2a0e:9::2/64 dev up0 nodad\nroute replace default via 2a0e:9::1\n")


def test_a_gateway_address_that_is_moved_is_given_back(lab):
    moved = POLICY.replace("subnet = 10.201.2.0/24", "subnet = 10.201.2.0/24\ngateway = 10.201.2.9", 1)
    lab.gateway.set_policy(moved)
    addresses = subprocess.run(["ip", "-n", lab.gw.name, "-4", "address", "show", "dev", "build0"], capture_output=True, text=True, check=True)
    assert "10.201.2.9/24" in addresses.stdout
    assert "10.201.2.1/24" not in addresses.stdout


def test_an_app_that_looked_for_the_gateway_while_it_was_away_is_told_when_it_is_back(lab):
    """Its question waits for an answer to its last ARP request. It would not ask again for half a minute here, so only being told helps."""
    lab.gateway.set_policy(WITHOUT_BUILD)
    lab.build1.run(["ip", "neigh", "flush", "all"], check=True)
    lab.build1.run(["ip", "ntable", "change", "name", "arp_cache", "dev", "eth0", "retrans", "30000"], check=True)
    name, address = lab.names.new("build.example")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        try:
            answer = pool.submit(lab.build1.resolve, name)
            wait_until(lambda: "INCOMPLETE" in neighbours(lab.build1), "the app does not look for the gateway")
            lab.gateway.set_policy(POLICY)
            assert answer.result() == [address]
        finally:
            lab.build1.run(["ip", "ntable", "change", "name", "arp_cache", "dev", "eth0", "retrans", "1000"], check=True)


def neighbours(app):
    return app.run(["ip", "neigh", "show", "10.201.2.1"], check=True).stdout


def test_an_interface_that_leaves_and_comes_back_is_served_again(lab):
    lab.gw.ip("address flush dev lan0\n")
    lab.gateway.log.wait(event="message", level="warning")
    lab.gw.ip("address add 10.201.3.2/24 dev lan0\n")
    name, address = lab.names.new("lan-only.example")

    def served():
        try:
            return lab.lan1.resolve(name, seconds=1) == [address]
        except Exception:  # pylint: disable=broad-except
            return False
    wait_until(served, "network lan is not served again", seconds=20)
    assert lab.lan1.tcp_result(address) == "open"
