# SPDX-License-Identifier: MIT
"""When something breaks, nothing opens: leases stay reachable, established flows go on, everything else is dropped."""

import os
import signal
import subprocess
import time

import pytest

from app import NoAnswer, talk
from lab import POLICY, Lab
from namespaces import patience
from packets import Sniffer

TABLE = ("table", "inet", "sluice")


@pytest.fixture(scope="module")
def crash_lab():
    with Lab() as lab:
        yield lab


@pytest.fixture
def lab(crash_lab):
    crash_lab.gateway.log.mark()
    yield crash_lab
    crash_lab.names.reset()
    if crash_lab.gateway.process is None:
        crash_lab.gateway.start(POLICY)
    crash_lab.gateway.release()
    crash_lab.gateway.wait_healthy()


def resolved(lab, ipv6=False):
    name, *addresses = lab.names.new("https.example", ipv6=ipv6)
    lab.web1.resolve(name)
    if ipv6:
        lab.web1.resolve(name, "AAAA")
    return addresses if ipv6 else addresses[0]


def test_leased_addresses_connect_while_no_worker_runs(lab):
    ipv4, ipv6 = resolved(lab, ipv6=True)
    lab.gateway.kill_worker(hold=True)
    assert lab.web1.tcp_result(ipv4) == "open"
    assert lab.web1.tcp_result(ipv6) == "open"
    assert lab.web1.udp_result(ipv4) == "open"
    assert lab.web1.tcp_result("45.40.1.1") == "open", "address rules are in the kernel too"


def test_established_flows_go_on_while_no_worker_runs(lab):
    address = resolved(lab)
    with lab.web1.connect(address, 443) as flow:
        assert talk(flow, "before") == "before"
        lab.gateway.kill_worker(hold=True)
        assert talk(flow, "during") == "during"
        lab.gateway.release()
        lab.gateway.wait_healthy()
        assert talk(flow, "after") == "after"


def test_everything_else_is_dropped_while_no_worker_runs(lab):
    ipv4, ipv6 = resolved(lab, ipv6=True)
    lab.web1.tcp_result("45.12.1.60", 7000)
    lab.gateway.kill_worker(hold=True)
    with Sniffer(lab.inet, "up0") as uplink:
        for target in ("45.12.1.61", "2a0e:12:1::61"):
            assert lab.web1.tcp_result(target, seconds=0.5) == "timeout"
            assert lab.web1.udp_result(target, seconds=0.3) == "timeout"
        assert lab.web1.tcp_result(ipv4, 80, seconds=0.5) == "timeout", "another port of a leased address"
        assert lab.build1.tcp_result(ipv4, seconds=0.5) == "timeout", "another network"
        assert lab.web1.tcp_result(lab.build1.ipv4, seconds=0.5) in ("timeout", "refused")
        with pytest.raises(NoAnswer):
            lab.web1.ask("shared.example", server="45.9.0.53", seconds=0.5)
        with pytest.raises(NoAnswer):
            lab.web1.ask("shared.example", server="45.9.0.53", tcp=True, seconds=0.5)
        assert lab.web1.tcp_result(ipv6) == "open"
        assert uplink.wait(destination=ipv6)
        assert [packet for packet in uplink.packets() if packet.destination in ("45.12.1.61", "2a0e:12:1::61") or packet.dport in (53, 80)] == []


def test_the_worker_is_back_at_once_and_denies_again(lab, slow_machine):
    worker = lab.gateway.kill_worker()
    start = time.monotonic()
    while lab.gateway.worker() == worker or lab.web1.tcp_result("45.12.1.62", 7100, seconds=0.2) != "refused":
        assert time.monotonic() - start < patience(10)
        time.sleep(0.01)
    assert time.monotonic() - start < (20 if slow_machine else 2.5)
    assert lab.gateway.process.poll() is None
    lab.gateway.wait_healthy()
    assert lab.gateway.log.wait(event="denied", dst="45.12.1.62")


def test_names_are_answered_again_after_a_crash(lab):
    lab.gateway.kill_worker()
    name, address = lab.names.new("https.example")
    end = time.monotonic() + patience(5)
    while True:
        try:
            assert lab.web1.resolve(name, seconds=0.5) == [address]
            break
        except NoAnswer:
            assert time.monotonic() < end
    assert lab.web1.tcp_result(address) == "open"


def test_leases_outlive_a_crash(lab):
    """Also in the new worker's own memory: a reload after the crash keeps them."""
    name, address = lab.names.new("https.example")
    lab.web1.resolve(name)
    worker = lab.gateway.kill_worker()
    wait_for_new_worker(lab, worker)
    assert lab.web1.tcp_result(address) == "open"
    lab.gateway.set_policy(POLICY + "\n# changed\n".replace("#", ";"))
    assert lab.web1.tcp_result(address) == "open"
    reverse = ".".join(reversed(address.split("."))) + ".in-addr.arpa"
    assert lab.web1.resolve(reverse, "PTR") == [name + "."]


def wait_for_new_worker(lab, old):
    end = time.monotonic() + patience(10)
    while lab.gateway.worker() == old or not lab.gateway.healthy():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_log_says_that_the_worker_died(lab):
    worker = lab.gateway.kill_worker()
    wait_for_new_worker(lab, worker)
    assert [line for line in lab.gateway.log.lines(event="message") if "signal 9" in line["text"]]


def test_a_hanging_worker_opens_nothing(lab):
    """A worker that stops reading its queue: new flows wait, then are dropped."""
    address = resolved(lab)
    worker = lab.gateway.worker()
    os.kill(worker, signal.SIGSTOP)
    try:
        with Sniffer(lab.inet, "up0") as uplink:
            assert lab.web1.tcp_result("45.12.1.63", seconds=0.5) == "timeout"
            assert lab.web1.tcp_result(address) == "open"
            assert uplink.matching(destination="45.12.1.63") == []
    finally:
        os.kill(worker, signal.SIGCONT)


def test_a_crash_with_a_bad_policy_on_disk_runs_the_last_good_one(lab):
    address = resolved(lab)
    lab.gateway.write_policy("[network web\nallow = *\n")
    worker = lab.gateway.kill_worker()
    wait_for_new_worker(lab, worker)
    assert lab.web1.tcp_result(address) == "open"
    assert lab.web1.tcp_result("45.12.1.64") == "refused"
    lab.gateway.set_policy(POLICY)


def test_sigterm_stops_cleanly_and_the_table_stays(lab):
    address = resolved(lab)
    assert lab.gateway.stop() == 0
    assert "hook forward" in lab.gw.nft_list(*TABLE)
    assert lab.web1.tcp_result(address) == "open"
    assert lab.web1.tcp_result("45.12.1.65", seconds=0.5) == "timeout"
    lab.gateway.start()
    assert lab.web1.tcp_result("45.12.1.65") == "refused"


def test_a_restart_of_the_whole_program_does_not_break_established_flows(lab):
    address = resolved(lab)
    with lab.web1.connect(address, 443) as flow:
        lab.gateway.stop()
        lab.gateway.start()
        assert talk(flow, "still here") == "still here"


def test_a_crash_loop_does_not_end_the_supervisor(lab):
    address = resolved(lab)
    for _ in range(5):
        worker = lab.gateway.kill_worker()
        end = time.monotonic() + patience(10)
        while lab.gateway.worker() == worker:
            assert time.monotonic() < end
            time.sleep(0.02)
    assert lab.web1.tcp_result(address) == "open"
    lab.gateway.wait_healthy()


def test_a_log_reader_that_does_not_read_does_not_stop_dns(lab):
    """`docker logs` into a full pipe. Lines are lost, and counted; nothing waits."""
    lab.gateway.stop()
    read_end, write_end = os.pipe()
    try:
        lab.gateway.start(POLICY, stdout=write_end)
        names = [f"stall{number}-{'x' * 50}.evil.example" for number in range(3000)]
        answers = lab.web1.resolve_many(names, window=30)
        assert len(answers) == 3000
        for port in range(7200, 7260):
            assert lab.web1.tcp_result("45.12.1.67", port) == "refused"
        name, address = lab.names.new("https.example")
        assert lab.web1.resolve(name) == [address]
        assert lab.web1.tcp_result(address) == "open"
        assert lab.gateway.healthy()
    finally:
        os.close(write_end)
        os.close(read_end)
        lab.gateway.stop()
        lab.gateway.start(POLICY)


def test_a_closed_log_does_not_stop_the_program(lab):
    lab.gateway.stop()
    read_end, write_end = os.pipe()
    lab.gateway.start(POLICY, stdout=write_end)
    os.close(write_end)
    os.close(read_end)
    try:
        for port in range(7300, 7320):
            assert lab.web1.tcp_result("45.12.1.67", port) == "refused"
        assert lab.gateway.healthy()
    finally:
        lab.gateway.stop()
        lab.gateway.start(POLICY)


def test_a_second_gateway_in_the_same_place_does_not_take_over(lab):
    """Somebody starts the program twice: the first keeps working."""
    other = subprocess.run(lab.gw.argv([lab.gateway.binary, "run", "-c", lab.gateway.policy_directory]), capture_output=True, text=True, check=False,
                           timeout=patience(20), env=lab.gateway.environment(SLUICE_CONTROL=os.path.join(lab.directory, "control", "second.sock")))
    assert other.returncode != 0
    name, address = lab.names.new("https.example")
    assert lab.web1.resolve(name) == [address]
    assert lab.web1.tcp_result(address) == "open"
    assert lab.web1.tcp_result("45.12.1.68") == "refused"
