# SPDX-License-Identifier: MIT
"""A new policy is taken over while everything runs; a bad one is reported and the old one stays."""

import os
import re
import signal
import socket
import time

import dns.message
import pytest

from app import rcode_of, talk
from lab import POLICY
from namespaces import command, wait_until

MORE = POLICY.replace("deny   = **.bad", "allow  = **.more.example:443\ndeny   = **.bad")
LESS = POLICY.replace("**.https.example:443 ", "")
BAD = POLICY.replace("**.https.example:443", "**.https.example:443 foo..bar:443")


def test_reload_takes_over_a_new_rule(names, web1, policy):
    names.add("new.more.example", A=(address := names.address()))
    assert web1.resolve("new.more.example") == []
    policy(MORE)
    assert web1.resolve("new.more.example") == [address]
    assert web1.tcp_result(address) == "open"


def test_sighup_reloads(lab, names, web1, policy):
    names.add("hup.more.example", A=(address := names.address()))
    policy(POLICY)
    lab.gateway.write_policy(MORE)
    os.kill(lab.gateway.process.pid, signal.SIGHUP)
    wait_until(lambda: web1.resolve("hup.more.example") == [address], "SIGHUP was not followed")


def test_a_changed_file_is_noticed(lab, names, web1, policy):
    names.add("file.more.example", A=(address := names.address()))
    policy(POLICY)
    time.sleep(0.5)
    lab.gateway.write_policy(MORE)
    wait_until(lambda: web1.resolve("file.more.example") == [address], "the changed file was not noticed")


def test_a_file_rewritten_in_place_is_noticed(lab, names, web1, policy):
    """As `echo >> file` or an editor without a temporary file does."""
    names.add("inplace.more.example", A=(address := names.address()))
    policy(POLICY)
    time.sleep(0.5)
    with open(lab.gateway.policy_file, "w", encoding="utf-8") as file:
        file.write(MORE)
    wait_until(lambda: web1.resolve("inplace.more.example") == [address], "the changed file was not noticed")


def test_a_bad_policy_is_reported_with_its_line_and_the_old_one_stays(lab, names, web1, policy, log):
    name, address = names.new("https.example")
    policy(POLICY)
    lab.gateway.write_policy(BAD)
    done = lab.gateway.sluice("reload")
    assert done.returncode == 1
    number = next(index for index, line in enumerate(BAD.splitlines(), 1) if "foo..bar" in line)
    assert f"sluice.conf:{number}: " in done.stdout + done.stderr
    assert "foo..bar" in done.stdout + done.stderr
    assert [line for line in log.lines(event="message", level="error") if f"sluice.conf:{number}: " in line["text"]]
    assert web1.resolve(name) == [address]
    assert web1.tcp_result(address) == "open"


def test_a_policy_that_vanished_is_reported_and_the_old_one_stays(lab, names, web1, policy):
    name, address = names.new("https.example")
    policy(POLICY)
    os.unlink(lab.gateway.policy_file)
    done = lab.gateway.sluice("reload")
    assert done.returncode == 1
    assert web1.resolve(name) == [address]
    assert web1.tcp_result(address) == "open"


def test_an_established_flow_is_not_disturbed_by_a_reload(names, web1, policy):
    name, address = names.new("https.example")
    web1.resolve(name)
    with web1.connect(address, 443) as flow:
        assert talk(flow, "one") == "one"
        policy(MORE)
        assert talk(flow, "two") == "two"
        policy(POLICY)
        assert talk(flow, "three") == "three"


def test_leases_outlive_a_reload(names, web1, policy):
    name, address, address6 = names.new("https.example", ipv6=True)
    web1.resolve(name), web1.resolve(name, "AAAA")
    policy(MORE)
    assert web1.tcp_result(address) == "open"
    assert web1.tcp_result(address6) == "open"


def test_a_removed_rule_closes_new_flows_at_once(names, web1, policy):
    name, address = names.new("https.example")
    web1.resolve(name)
    assert web1.tcp_result(address) == "open"
    policy(LESS)
    assert web1.tcp_result(address) == "refused"
    assert rcode_of(web1.ask(name)) == "NXDOMAIN"


def test_a_removed_address_rule_closes_new_flows_at_once(web1, policy):
    assert web1.tcp_result("45.40.1.5") == "open"
    policy(POLICY.replace("45.40.0.0/16:443", "45.41.0.0/16:443"))
    assert web1.tcp_result("45.40.1.5") == "refused"
    assert web1.tcp_result("45.41.1.5") == "open"


def test_changed_ports_of_a_rule_are_followed_by_leases(names, web1, policy):
    """The name was resolved before the reload; the app does not ask again."""
    name, address = names.new("https.example")
    web1.resolve(name)
    policy(POLICY.replace("**.https.example:443 ", "**.https.example:8443 "))
    assert web1.tcp_result(address, 443) == "refused"
    assert web1.tcp_result(address, 8443) == "open"


def handles(lab, chain):
    """Of the rules in a chain: numbers that the kernel gives a rule when it is written."""
    listed = command(lab.gw.argv(["nft", "-a", "list", "chain", "inet", "sluice", chain]))
    return re.findall(r"# handle (\d+)$", listed, re.MULTILINE)


def test_rules_that_stay_as_they_are_are_not_written_again(lab, names, web1, policy):
    policy(POLICY)
    name, address = names.new("https.example")
    web1.resolve(name)
    before = handles(lab, "net_web")
    assert before
    policy(LESS + "\n# names only")
    assert handles(lab, "net_web") == before
    assert web1.tcp_result(address) == "refused"
    policy(POLICY.replace("**.https.example:443 ", "**.https.example:8443 "))
    assert handles(lab, "net_web") != before
    assert web1.tcp_result(address, 8443) == "open"


@pytest.mark.parametrize("damage", ["flush chain inet sluice net_web", "flush chain inet sluice forward",
                                    "insert rule inet sluice net_web drop", "delete table inet sluice"])
def test_a_reload_repairs_what_somebody_else_has_changed(lab, names, web1, policy, damage):
    policy(POLICY)
    name, address = names.new("https.example")
    web1.resolve(name)
    lab.gw.nft(damage)
    policy(MORE)
    assert web1.resolve(name) == [address]
    assert web1.tcp_result(address) == "open"


def test_a_rule_that_comes_back_reopens_its_leases(names, web1, policy):
    name, address = names.new("https.example")
    web1.resolve(name)
    policy(LESS)
    assert web1.tcp_result(address) == "refused"
    policy(POLICY)
    web1.resolve(name)
    assert web1.tcp_result(address) == "open"


def test_a_network_that_is_removed_is_closed_and_no_uplink(lab, names, web1, build1, policy):
    """`uplink = auto` is decided once: build's interface, in no network now, is not taken for it."""
    name, address = names.new("build.example")
    build1.resolve(name)
    without, _, _ = POLICY.partition("[network build]")
    policy(without + "[network lan]" + POLICY.partition("[network lan]")[2])
    assert build1.tcp_result(address, seconds=0.5) != "open"
    assert build1.tcp_result("45.12.1.66", seconds=0.5) != "open"
    other, address = names.new("https.example")
    assert web1.resolve(other) == [address]
    assert web1.hello(address).startswith("from 45.9.0.2 ")


def test_a_network_that_is_added_works_at_once(names, build1, policy):
    without, _, rest = POLICY.partition("[network build]")
    policy(without + "[network lan]" + rest.partition("[network lan]")[2])
    policy(POLICY)
    name, address = names.new("build.example")
    wait_until(lambda: build1.resolve(name) == [address], "the added network does not work")
    assert build1.tcp_result(address) == "open"


def test_a_lease_does_not_inherit_the_life_of_a_denied_name_of_its_address(names, web1, policy):
    """Both names open the address on the same ports; when the one with the longer lease is denied, the other's end counts."""
    policy(POLICY.replace("[network web]", "[network web]\nmin_ttl = 0\ngrace = 0"))
    _, address = names.new("https.example", ttl=600)
    names.add("gone.https.example", ttl=600, A=address)
    names.add("stays.https.example", ttl=3, A=address)
    assert web1.resolve("gone.https.example") == web1.resolve("stays.https.example") == [address]
    policy(POLICY.replace("[network web]", "[network web]\nmin_ttl = 0\ngrace = 0\ndeny = gone.https.example"))
    wait_until(lambda: web1.tcp_result(address) == "refused", "the address stays open after the end of the only lease that is allowed")


def test_many_reloads_in_a_row_drop_nothing(lab, names, web1, policy):
    """Connections are opened all the time while the policy changes back and forth."""
    name, address = names.new("https.example")
    web1.resolve(name)
    for number in range(20):
        policy(MORE if number % 2 else POLICY)
        for _ in range(3):
            assert web1.tcp_result(address) == "open", number


@pytest.mark.parametrize("text, word", [("[network web]\nsubnet = 10.201.1.0/24\nalow = x.example\n", "allow"), ("allow = x.example\n", "section"),
                                        ("[network web]\nsubnet = 10.201.1.7/24\n", "10.201.1.0/24"), ("[network web]\n", "subnet")])
def test_a_hint_says_what_to_write(lab, policy, text, word):
    policy(POLICY)
    lab.gateway.write_policy(text)
    done = lab.gateway.sluice("reload")
    assert done.returncode == 1
    assert word in done.stdout + done.stderr


def test_a_subnet_may_change_hands(names, web1, policy):
    """The policy that applies is that of the network whose subnet the interface is in."""
    swapped = POLICY.replace("[network web]", "[network X]").replace("[network build]", "[network web]").replace("[network X]", "[network build]")
    policy(swapped)
    name, address = names.new("https.example")
    assert web1.resolve(name) == [address], "web1 lives in 10.201.1.0/24, which is called build now"
    assert web1.tcp_result(address) == "open"


def test_a_pool_in_which_a_container_was_seen_is_refused(lab, names, build1, policy):
    build1.ip("addr add 10.201.2.200/24 dev eth0\n")
    with build1.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("10.201.2.200", 0))
        sock.sendto(dns.message.make_query("a.build.example", "A").to_wire(), ("10.201.2.1", 53))
        wait_until(lambda: "10.201.2.200" in lab.gw.run(["ip", "neigh"]).stdout, "the gateway has no such neighbour")
    lab.gateway.write_policy(POLICY.replace("[network build]\n", "[network build]\naddresses = virtual\n"))
    done = lab.gateway.sluice("reload")
    build1.ip("addr del 10.201.2.200/24 dev eth0\n")
    assert done.returncode == 1 and "10.201.2.200" in done.stdout + done.stderr and "ip_range" in done.stdout + done.stderr, done
    name, address = names.new("build.example")
    assert build1.resolve(name) == [address]
    assert build1.tcp_result(address) == "open"
    policy(POLICY)
