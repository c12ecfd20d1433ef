# SPDX-License-Identifier: MIT
"""Start-up in surroundings as Docker makes them, and in wrong ones: what is repaired, what is reported, and what the process may do."""

import json
import os
import signal
import subprocess
import time

import pytest

from lab import GATEWAY_SYSCTLS, POLICY, UPSTREAM, Lab
from namespaces import children, patience
from packets import Sniffer

CAP_NET_ADMIN = 1 << 12


@pytest.fixture(scope="module")
def start_lab():
    with Lab(gateway=False) as lab:
        yield lab


@pytest.fixture
def lab(start_lab):
    start_lab.gateway.log.path = start_lab.gateway.log_path
    open(start_lab.gateway.log_path, "ab").close()
    start_lab.gateway.log.mark()
    yield start_lab
    if start_lab.gateway.process:
        start_lab.gateway.stop()
    subprocess.run(start_lab.gw.argv(["nft", "delete", "table", "inet", "sluice"]), stderr=subprocess.DEVNULL, check=False)
    start_lab.gw.sysctl(**GATEWAY_SYSCTLS)
    start_lab.resolv_conf(start_lab.gw, "nameserver 192.0.2.53\n")
    start_lab.names.reset()


def works(lab):
    name, address = lab.names.new("https.example")
    return lab.web1.resolve(name) == [address] and lab.web1.hello(address).startswith("from 45.9.0.2 ")


def failed_start(lab, policy=POLICY, **environment):
    """Start with something wrong. Return: what it printed; it must have ended with an error."""
    process = lab.gateway.start(policy, wait=False, **environment)
    status = process.wait(patience(15))
    assert status not in (0, None)
    lab.gateway.process = None
    lab.gw.processes.remove(process)
    return lab.gateway.log.since_mark()


def test_the_gateway_addresses_are_claimed(lab):
    lab.gateway.start(POLICY)
    listed = lab.gw.run(["ip", "-o", "address"]).stdout
    for address in ("10.201.1.1/", "10.201.2.1/", "10.201.3.1/", "fdc9:1::1/", "fdc9:2::1/"):
        assert f" {address}" in listed
    assert "tentative" not in "".join(line for line in listed.splitlines() if "fdc9:1::1/" in line)


def test_the_gateways_mac_is_the_same_after_a_recreation(lab):
    lab.gateway.start(POLICY)
    first = lab.gw.mac("web0")
    lab.gateway.stop()
    lab.gw.ip("link set web0 down\nlink set web0 address 02:00:00:00:00:99\nlink set web0 up\n")
    lab.gateway.start()
    assert lab.gw.mac("web0") == first
    assert works(lab)


def test_a_default_route_through_a_network_is_repaired(lab):
    """Docker attaches it to any of the networks: then the gateway would route to itself."""
    lab.gw.ip("addr flush dev web0 to 10.201.1.1\nroute replace default via 10.201.1.1 dev web0\n")
    try:
        lab.gateway.start(POLICY)
        assert works(lab)
    finally:
        lab.gateway.stop()
        lab.gw.ip("route replace default via 45.9.0.1\n")


def test_a_missing_default_route_goes_to_the_first_address_of_the_uplinks_subnet(lab):
    lab.gw.ip("route del default\n")
    try:
        lab.gateway.start(POLICY)
        assert works(lab)
    finally:
        lab.gateway.stop()
        lab.gw.ip("route replace default via 45.9.0.1\n")


def test_the_uplink_may_be_named(lab):
    lab.gateway.start(POLICY.replace("uplink = auto", "uplink = up0"))
    assert works(lab)
    lab.gateway.stop()
    lab.gateway.start(POLICY.replace("uplink = auto", "uplink = 45.9.0.0/24"))
    assert works(lab)


def test_two_candidates_for_the_uplink_are_an_error_that_lists_them(lab):
    text = failed_start(lab, POLICY.partition("[network lan]")[0])
    assert "up0" in text and "lan0" in text


def test_an_unknown_uplink_is_an_error(lab):
    assert "nosuch0" in failed_start(lab, POLICY.replace("uplink = auto", "uplink = nosuch0"))


def test_a_bad_policy_at_the_first_start_ends_the_program(lab):
    assert "sluice.conf:" in failed_start(lab, POLICY + "\nfoo = bar\n")


@pytest.mark.parametrize("path, wrong", [("net.ipv4.ip_forward", 0), ("net.ipv6.conf.all.forwarding", 0)])
def test_without_forwarding_it_does_not_start_and_says_what_to_write(lab, path, wrong):
    lab.gw.sysctl(**{path.replace(".", "__"): wrong})
    assert path in failed_start(lab)


@pytest.mark.parametrize("path, wrong", [("net.ipv4.icmp_ratemask", 6168), ("net.ipv6.icmp.ratemask", "0-1,3-127"), ("net.netfilter.nf_conntrack_acct", 0),
                                         ("net.netfilter.nf_conntrack_tcp_be_liberal", 0)])
def test_another_wrong_sysctl_is_reported_with_its_value(lab, path, wrong):
    lab.gw.sysctl(**{path.replace(".", "__"): wrong})
    lab.gateway.start(POLICY)
    assert [line for line in lab.gateway.log.lines(event="message") if path in line["text"]]
    assert works(lab)


def test_with_all_sysctls_right_none_is_reported(lab):
    lab.gateway.start(POLICY)
    assert [line["text"] for line in lab.gateway.log.lines(event="message") if "sysctl" in line["text"] or "net.ipv" in line["text"]] == []


def test_the_policy_may_come_from_the_environment(lab):
    lab.gateway.start(wait=True, arguments=["run"], SLUICE_CONFIG=POLICY)
    assert works(lab)


def test_upstreams_may_come_from_resolv_conf(lab):
    lab.resolv_conf(lab.gw, "nameserver 45.9.0.54\n")
    lab.gateway.start(POLICY.replace("server = 45.9.0.53", "server = auto"))
    before = lab.names.count()
    assert works(lab)
    assert {query["server"] for query in lab.names.queries(before)} == {"45.9.0.54"}


def test_dockers_own_resolver_is_never_an_upstream(lab):
    """It would answer with container names of other networks."""
    lab.resolv_conf(lab.gw, "nameserver 127.0.0.11\n# ExtServers: [host(45.9.0.54)]\n")
    lab.gateway.start(POLICY.replace("server = 45.9.0.53", "server = auto"))
    before = lab.names.count()
    assert works(lab)
    assert {query["server"] for query in lab.names.queries(before)} == {"45.9.0.54"}


def test_no_usable_upstream_is_an_error(lab):
    lab.resolv_conf(lab.gw, "nameserver 127.0.0.11\n")
    assert "server" in failed_start(lab, POLICY.replace("server = 45.9.0.53", "server = auto"))


def test_json_log_lines(lab):
    lab.gateway.start(POLICY.replace("uplink = auto", "uplink = auto\nlog = json"))
    lab.web1.tcp_result("45.12.1.95", 8443)
    end = time.monotonic() + patience(5)
    while True:
        if lines := [line for line in lab.gateway.log.since_mark().splitlines() if '"45.12.1.95"' in line]:
            break
        assert time.monotonic() < end
        time.sleep(0.05)
    line = json.loads(lines[0])
    assert (line["event"], line["network"], line["dst"], line["port"], line["proto"], line["count"]) == ("denied", "web", "45.12.1.95", 8443, "tcp", 1)


def test_a_network_whose_interface_comes_later_works_then(lab):
    """Docker attaches networks one after the other."""
    lab.gw.ip("addr del 10.201.2.2/24 dev build0\naddr del fdc9:2::2/64 dev build0\nlink set build0 down\n")
    try:
        lab.gateway.start(POLICY.replace("uplink = auto", "uplink = up0"))
        assert works(lab)
        lab.gw.ip("link set build0 up\naddr add 10.201.2.2/24 dev build0\naddr add fdc9:2::2/64 dev build0 nodad\n")
        name, address = lab.names.new("build.example")
        end = time.monotonic() + patience(10)
        while True:
            try:
                if lab.build1.resolve(name, seconds=0.5) == [address]:
                    break
            except Exception:  # pylint: disable=broad-except
                pass
            assert time.monotonic() < end, lab.gateway.log.tail()
        assert lab.build1.tcp_result(address) == "open"
    finally:
        lab.gw.ip("link set build0 up\naddr replace 10.201.2.2/24 dev build0\naddr replace fdc9:2::2/64 dev build0 nodad\n")


def test_nothing_passes_while_it_starts(lab):
    """Apps that send all the time, through a start and a first policy."""
    lab.gw.ip("addr replace 10.201.1.1/24 dev web0\n")
    with Sniffer(lab.inet, "up0") as uplink:
        lab.gateway.start(POLICY, wait=False)
        with lab.web1.socket(2, 2) as sock:  # IPv4, UDP
            end = time.monotonic() + patience(10)
            while not lab.gateway.healthy():
                assert time.monotonic() < end
                for port in range(8000, 8010):
                    try:
                        sock.sendto(b"while it starts", ("45.12.1.96", port))
                    except OSError:
                        pass
        masqueraded = [packet for packet in uplink.matching(destination="45.12.1.96") if packet.source.startswith("45.9.")]
        assert masqueraded == []


# --- privileges ---

def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}


def test_worker_and_supervisor_hold_net_admin_and_nothing_else(lab):
    lab.gateway.start(POLICY)
    for pid in (lab.gateway.process.pid, *children(lab.gateway.process.pid)):
        status = status_of(pid)
        for key in ("CapEff", "CapPrm"):
            assert int(status[key], 16) & ~CAP_NET_ADMIN == 0, (pid, key, status[key])
        assert int(status["CapBnd"], 16) & ~CAP_NET_ADMIN == 0
        assert status["NoNewPrivs"] == "1"
        assert status["Uid"].split() == ["65532"] * 4
        assert status["Gid"].split() == ["65532"] * 4
        assert status["Groups"] in ("", "65532")
    assert int(status_of(lab.gateway.worker())["CapEff"], 16) == CAP_NET_ADMIN


def test_without_net_admin_it_says_what_to_write(lab):
    done = lab.gw.run(["setpriv", "--reuid=65532", "--regid=65532", "--clear-groups", "--bounding-set=-all", lab.gateway.binary, "run", "-c",
                       lab.gateway.policy_directory], env=lab.gateway.environment())
    assert done.returncode != 0
    assert "NET_ADMIN" in done.stderr + done.stdout


def test_the_supervisor_passes_sighup_on_and_ends_with_its_worker(lab):
    lab.gateway.start(POLICY)
    worker = lab.gateway.worker()
    os.kill(lab.gateway.process.pid, signal.SIGHUP)
    lab.gateway.log.wait(event="message", level="info", text="reloaded: 3 networks")
    assert lab.gateway.stop() == 0
    assert not os.path.exists(f"/proc/{worker}")


def test_sigint_stops_cleanly(lab):
    process = lab.gateway.start(POLICY)
    process.send_signal(signal.SIGINT)
    assert process.wait(patience(10)) == 0
    lab.gateway.process = None


def test_no_line_of_configuration_is_needed_but_networks_and_upstream(lab):
    lab.gateway.start(UPSTREAM + "[network web]\nsubnet = 10.201.1.0/24\nallow = **.https.example:443\n[network build]\nsubnet = 10.201.2.0/24\n"
                      "[network lan]\nsubnet = 10.201.3.0/24\n")
    assert works(lab)
