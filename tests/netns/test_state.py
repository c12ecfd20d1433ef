# SPDX-License-Identifier: MIT
"""The state directory: what a recreated container knows, and what becomes of files that are damaged, locked or on a full volume."""

import os
import subprocess

import pytest

from lab import POLICY, Lab
from namespaces import patience


@pytest.fixture
def lab():
    with Lab(apps=["web1", "web2"]) as lab:
        lab.gateway.log.mark()
        yield lab


def resolved(lab):
    name, address = lab.names.new("https.example")
    assert lab.web1.resolve(name) == [address]
    return address


def recreate(lab, meanwhile=lambda: None, policy=None, **environment):
    """What is left of a container when another takes its place: the volume. Its tables and flows are gone with its namespace."""
    lab.gateway.stop()
    lab.gw.nft("delete table inet sluice\n")
    lab.gw.run(["conntrack", "--flush"], check=True)
    meanwhile()
    lab.gateway.log.mark()
    lab.gateway.start(policy, **environment)


def test_a_recreated_gateway_knows_what_apps_have_cached(lab):
    address = resolved(lab)
    recreate(lab)
    assert lab.web1.tcp_result(address) == "open"
    assert lab.web1.udp_result(address) == "open"
    assert lab.web1.tcp_result("45.12.1.66") == "refused", "nothing else is open"
    assert "1 leases restored" in lab.gateway.log.since_mark()


def test_a_recreated_gateway_judges_old_leases_by_its_own_policy(lab):
    address = resolved(lab)
    recreate(lab, policy=POLICY.replace("**.https.example:443", "**.other.example:443"))
    assert lab.web1.tcp_result(address) == "refused"


def test_a_lease_ends_also_while_no_gateway_runs(lab):
    lab.gateway.set_policy(POLICY.replace("[network web]", "[network web]\nmin_ttl = 0\ngrace = 1s\nmax_age = 1s"))
    name, address = lab.names.new("https.example", ttl=0)
    assert lab.web1.resolve(name) == [address]

    def meanwhile():
        lab.names.add(name, A=lab.names.address(), ttl=0)
        lab.gw.run(["sleep", str(patience(1.5))])
    recreate(lab, meanwhile)
    assert lab.web1.tcp_result(address) == "refused"


def test_a_damaged_file_is_set_aside_and_nothing_of_it_is_trusted(lab):
    address = resolved(lab)
    file = os.path.join(lab.gateway.state, "leases-0")

    def damage():
        with open(file, "r+b") as journal:
            journal.seek(8)
            journal.write(b"damaged!")
    recreate(lab, damage)
    line, = lab.gateway.log.wait(event="message", level="warning")[:1] or [None]
    assert line
    assert "leases-0 is damaged or of another version" in lab.gateway.log.since_mark()
    with open(file + ".aside", "rb") as aside:
        assert b"damaged!" in aside.read()
    assert lab.web1.tcp_result(address) == "refused"
    address = resolved(lab)
    assert lab.web1.tcp_result(address) == "open"


def test_a_full_volume_costs_no_flow_and_is_said_once(lab):
    mounted = ["mount", "-t", "tmpfs", "-o", "size=8k,mode=1777", "sluice-full", lab.gateway.state]
    lab.gateway.stop()
    subprocess.run(mounted, check=True)
    try:
        lab.gateway.log.mark()
        lab.gateway.start(POLICY)
        first = resolved(lab)
        for _ in range(200):
            address = resolved(lab)
        assert lab.web1.tcp_result(address) == "open"
        log = lab.gateway.log.since_mark()
        said = [line.partition(" text=")[2] for line in log.splitlines() if "No space left on device" in line]
        assert any("leases cannot be kept" in text for text in said) and len(said) == len(set(said)), log  # of each thing once
        lab.gateway.kill_worker()
        lab.gateway.wait_healthy()
        assert lab.web1.tcp_result(first) == "open"
        recreate(lab)
        assert lab.web1.tcp_result(first) == "open", "what fitted is known"
    finally:
        lab.gateway.stop()
        subprocess.run(["umount", lab.gateway.state], check=True)


def test_without_a_volume_leases_are_kept_for_the_next_worker(lab):
    recreate(lab, SLUICE_STATE=os.path.join(lab.directory, "nowhere"))
    assert "leases are kept in memory" in lab.gateway.log.since_mark()
    address = resolved(lab)
    lab.gateway.kill_worker()
    lab.gateway.wait_healthy()
    assert "1 leases restored" in lab.gateway.log.since_mark()
    assert lab.web1.tcp_result(address) == "open"


def test_two_gateways_do_not_share_a_state_directory(lab):
    second = subprocess.run(
        ["timeout", str(patience(3)), "ip", "netns", "exec", lab.inet.name, lab.gateway.binary, "run", "-c", lab.gateway.policy_directory],
        env=lab.gateway.environment(SLUICE_CONTROL=os.path.join(lab.directory, "control", "second.sock")), capture_output=True, text=True,
        check=False)
    assert "another gateway uses it; give each gateway a volume of its own" in second.stdout + second.stderr
