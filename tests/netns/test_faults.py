# SPDX-License-Identifier: MIT
"""Faults while it runs: netlink, descriptors, memory, files and clocks that fail. Nothing opens, nothing crashes, and afterwards it works as before."""

import contextlib
import errno
import os
import random
import signal
import socket
import subprocess
import time

import pytest

from app import NoAnswer, talk
from faults import Faults
from lab import POLICY as USUAL
from lab import Lab
from namespaces import patience, wait_until

POLICY = USUAL.replace("[network web]", "[network web]\nlog_allowed = all")
OTHER = POLICY.replace("45.40.0.0/16:443", "45.40.0.0/15:443")
NETLINK = ("nft_send", "nft_commit", "nft_receive", "queue_send", "queue_receive", "flows_send", "flows_receive", "events_receive", "table_receive",
           "route_send", "route_receive", "monitor_receive")
DENIED = "45.12.1.66"
GATEWAY = "10.201.1.1"
pytestmark = pytest.mark.preloaded


@pytest.fixture(scope="module")
def faulty_lab():
    with Lab(policy=POLICY, gateway=False, apps=["web1", "web2"]) as lab:
        lab.faults = Faults(lab)
        lab.gateway.start(POLICY, **lab.faults.environment())
        yield lab
        lab.faults.close()


@pytest.fixture
def lab(faulty_lab):
    faulty_lab.gateway.log.mark()
    faulty_lab.killed = 0
    yield faulty_lab
    faulty_lab.faults.clear()
    faulty_lab.faults.clocks()
    if faulty_lab.killed and faulty_lab.gateway.process:
        faulty_lab.gateway.stop()  # a supervisor waits longer with every worker that dies young
    if faulty_lab.gateway.process is None or faulty_lab.gateway.process.poll() is not None:
        faulty_lab.gateway.start(POLICY, **faulty_lab.faults.environment())
    works(faulty_lab)


def kill(lab):
    lab.gateway.kill_worker()
    lab.killed += 1


def works(lab):
    """All is as if nothing had happened."""
    lab.gateway.wait_healthy()
    name, address = lab.names.new("https.example")

    def answered():
        with contextlib.suppress(NoAnswer):
            return lab.web1.resolve(name, seconds=1) == [address]
        return False
    wait_until(answered, "an allowed name is not answered any more")
    assert lab.web1.tcp_result(address) == "open"
    wait_until(lambda: denied(lab) == "refused", "what is denied is not refused any more")


def denied(lab):
    result = lab.web1.tcp_result(DENIED, random.randrange(1000, 60000), seconds=0.5)
    assert result != "open"
    return result


def ask(lab, tcp=False):
    """Ask for an allowed name. It may fail; an address that is answered can be reached."""
    name, address = lab.names.new("https.example")
    try:
        shown = lab.web1.resolve(name, seconds=0.3, tcp=tcp)
    except NoAnswer:
        return
    if shown:
        assert shown == [address]
        assert lab.web1.tcp_result(address) == "open", "an app was told an address that it cannot reach"


def do_everything(lab):
    """A bit of all that the worker does. Only what must never happen fails."""
    lab.gw.ip("route add blackhole 100.64.0.1/32\nroute del blackhole 100.64.0.1/32\n")
    lab.gw.nft("add table inet of_others\ndelete table inet of_others\n")
    ask(lab)
    ask(lab, tcp=True)
    denied(lab)
    assert lab.web1.udp_result(DENIED, 443, seconds=0.1) != "open"
    with open(lab.gateway.policy_file, encoding="utf-8") as file:
        lab.gateway.write_policy(POLICY if file.read() == OTHER else OTHER)
    for command in (["reload"], ["stats", "--json"]):
        process = lab.gw.start([lab.gateway.binary, *command], env=lab.gateway.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with contextlib.suppress(Exception):
            process.wait(1)
        process.kill()
        process.wait()
        lab.gw.processes.remove(process)


def said(lab, *signals):
    """Nobody died of a signal, but for these."""
    found = [line["text"] for line in lab.gateway.log.lines(event="message") if "died of signal" in line.get("text", "")]
    assert all(any(f"signal {number} " in text for number in signals) for text in found), found


# --- netlink ---

@pytest.mark.parametrize("error", [errno.ENOBUFS, errno.EAGAIN, errno.EINTR], ids=errno.errorcode.get)
@pytest.mark.parametrize("fault", NETLINK)
def test_netlink_fails_a_few_times(lab, fault, error):
    with lab.faults.on(fault, error, times=3):
        do_everything(lab)
        wait_until(lambda: lab.faults.hits(fault), "the fault did not happen")
    said(lab)


def test_a_reload_that_the_kernel_refuses_takes_no_lease(lab):
    name, address = lab.names.new("https.example")
    assert lab.web1.resolve(name) == [address]
    with lab.faults.on("nft_commit", errno.ENOBUFS, times=1):
        # The gateway finds the changed file by itself; it is told nothing, because a second attempt would not fail any more.
        lab.gateway.write_policy(POLICY.replace("**.https.example:443 ", ""))
        wait_until(lambda: "reload refused" in lab.gateway.log.since_mark(), "the kernel did not refuse the reload")
    assert "No buffer space available" in lab.gateway.log.since_mark()
    assert lab.web1.tcp_result(address) == "open"
    lab.gateway.set_policy(POLICY)


def test_a_kernel_that_takes_no_grant_costs_the_answer(lab):
    name, address = lab.names.new("https.example")
    with lab.faults.on("nft_commit", errno.ENOBUFS):
        assert lab.web1.resolve(name, seconds=3) == []
    assert lab.web1.resolve(name) == [address]
    wait_until(lambda: "could not be granted (No buffer space available)" in lab.gateway.log.since_mark(), "nobody said so", seconds=20)


def test_a_rule_set_that_cannot_be_put_back_is_said_once(lab):
    with lab.faults.on("nft_commit", errno.ENOBUFS):
        lab.gateway.write_policy(OTHER)  # the gateway finds it; told as well, it would try, and say so, twice
        wait_until(lambda: "tried again every second" in lab.gateway.log.since_mark(), "it is not said")
        assert not lab.gateway.healthy()
        lab.gw.run(["sleep", "2.5"])
        assert denied(lab) == "refused"
    lab.gateway.wait_healthy()
    assert lab.gateway.log.since_mark().count("tried again every second") == 1
    lab.gateway.set_policy(POLICY)


# --- descriptors ---

def test_without_descriptors_nothing_opens(lab):
    name, address = lab.names.new("https.example")
    assert lab.web1.resolve(name) == [address]
    with lab.faults.on("socket", errno.EMFILE), lab.faults.on("open", errno.EMFILE):
        do_everything(lab)
        wait_until(lambda: denied(lab) == "refused", "what is denied is not refused any more")
        assert lab.web1.resolve(name) == [address], "a known name needs no descriptor"
        assert lab.web1.tcp_result(address) == "open"
    said(lab)


@pytest.mark.parametrize("fault, error", [("socket", errno.EMFILE), ("accept", errno.EMFILE), ("accept", errno.ECONNABORTED), ("open", errno.EMFILE),
                                          ("open", errno.EACCES)])
def test_descriptors_that_cannot_be_had(lab, fault, error):
    """The last one is also /proc and resolv.conf that cannot be read."""
    with lab.faults.on(fault, error, times=20):
        do_everything(lab)
    said(lab)


# --- memory ---

def test_memory_that_fails_while_it_runs(lab):
    seed = random.randrange(1 << 32) if os.environ.get("SLUICE_SEED") == "random" else 20
    chance = random.Random(seed)
    lab.faults.set("memory", errno.ENOMEM, after=1 << 30)
    do_everything(lab)
    total = lab.faults.calls("memory")
    for turn in range(20):
        after, times = chance.randrange(total), chance.choice((1, 1, 1, 5, 100))
        lab.faults.set("memory", errno.ENOMEM, after=after, times=times)
        do_everything(lab)
        lab.faults.clear()
        said(lab)
        assert lab.gateway.process.poll() is None, f"turn {turn} of seed {seed}: call {after}, {times} times"
    lab.gateway.wait_healthy()


def restart(lab, fault, error, after, times=1):
    """A worker that starts with a fault. Return: whether it met the fault."""
    lab.gateway.stop()
    lab.gateway.log.mark()
    lab.faults.set(fault, error, after=after, times=times)
    process = lab.gateway.start(POLICY, wait=False, **lab.faults.environment())
    wait_until(lambda: lab.faults.hits(fault) or process.poll() is not None or lab.gateway.healthy(), "it hangs")
    hit = lab.faults.hits(fault) > 0
    assert denied(lab) in ("refused", "timeout", "unreachable")
    lab.faults.clear()
    if process.poll() is None:
        with contextlib.suppress(Exception):
            lab.gateway.wait_healthy()
    if process.poll() is not None:
        lab.gateway.process = None
        lab.gw.processes.remove(process)
        assert lab.gateway.log.lines(level="error"), "it ended without a word"
    return hit


def start_counting(lab):
    """Calls for memory at a start, those for libraries of cryptography left out as far as that can be: they are in the middle."""
    restart(lab, "memory", errno.ENOMEM, 1 << 30)
    lab.gateway.stop()
    lab.faults.set("memory", errno.ENOMEM, after=1 << 30)
    lab.gateway.start(POLICY, **lab.faults.environment())
    return lab.faults.calls("memory")


def memory_at_starts(lab, turns, seed):
    chance = random.Random(seed)
    total = start_counting(lab)
    hits = 0
    for _ in range(turns):
        after = chance.choice((chance.randrange(230), total - 1 - chance.randrange(1500), chance.randrange(total)))
        hits += restart(lab, "memory", errno.ENOMEM, after)
        said(lab)
    assert hits > turns / 2


def test_memory_that_fails_at_a_start(lab):
    memory_at_starts(lab, 10, 21)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_memory_that_fails_at_many_starts(lab):
    memory_at_starts(lab, 150, 22)


@pytest.mark.parametrize("fault, error, after", [("filter", errno.ENOMEM, 0), ("filter", errno.EINVAL, 0), ("filter", errno.ENOMEM, 1),
                                                 ("landlock", errno.ENOMEM, 1), ("landlock", errno.EMFILE, 1), ("landlock", errno.ENFILE, 0)])
def test_a_worker_that_cannot_be_confined_does_not_run(lab, fault, error, after):
    """What the kernel has lacks memory or descriptors; a kernel that does not have it is another matter."""
    if fault == "landlock" and "files yes" not in lab.gateway.log.text():
        pytest.skip("no Landlock")
    lab.faults.set(fault, error, after=after, times=1)
    kill(lab)
    wait_until(lambda: "the worker cannot be confined" in lab.gateway.log.since_mark(), "it is not said")
    lab.gateway.wait_healthy()
    lines = [line["text"].split(":")[0] for line in lab.gateway.log.lines(event="message") if "confined" in line["text"]]
    assert lines == ["the worker cannot be confined", "confined"], "one that was not confined was ready"
    said(lab, 9)


def test_a_new_worker_needs_no_memory_for_its_filters(lab):
    with lab.faults.on("confine", errno.ENOMEM):
        kill(lab)
        works(lab)
        assert lab.faults.calls("confine") == 0
    assert "confined: system calls yes" in lab.gateway.log.since_mark()


@pytest.mark.parametrize("after", [0, 3, 30, 300, 3000])
def test_without_memory_for_filters_it_does_not_start(lab, after):
    """libseccomp fails, crashes or hangs then, in a child that does nothing else."""
    lab.gateway.stop()
    lab.gateway.log.mark()
    lab.faults.set("confine", errno.ENOMEM, after=after)
    process = lab.gateway.start(POLICY, wait=False, **lab.faults.environment())
    assert process.wait(patience(60)) == 1
    assert lab.faults.hits("confine")
    assert "system calls cannot be limited: Cannot allocate memory; it does not run without" in lab.gateway.log.since_mark()
    assert lab.gateway.log.lines(event="message") == [], "a worker was started"
    lab.gw.processes.remove(process)
    lab.gateway.process = None


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_worker_that_begins_without_memory_for_libuv_is_started_again(lab, after):
    """The table's first entries are there before anything else."""
    assert restart(lab, "loop", errno.ENOMEM, after)
    works(lab)
    said(lab, 6)


def test_libuv_needs_no_memory_for_more_descriptors(lab):
    """It would abort. Its table has the size that it may need from the start."""
    with contextlib.ExitStack() as clients:
        with lab.faults.on("loop", errno.ENOMEM):
            for app in (lab.web1, lab.web2):
                for _ in range(32):
                    clients.enter_context(app.connect(GATEWAY, 53))
            for _ in range(10):
                clients.enter_context(lab.gw.socket(socket.AF_UNIX)).connect(lab.gateway.control)
            works(lab)
    said(lab)


# --- files ---

@pytest.mark.parametrize("fault, error", [("write", errno.ENOSPC), ("write", errno.EROFS), ("write", errno.EIO), ("memfd", errno.ENOSPC), ("sync", errno.EIO),
                                          ("rename", errno.EROFS), ("truncate", errno.EIO), ("output", errno.ENOSPC)])
def test_files_that_cannot_be_written(lab, fault, error):
    with lab.faults.on(fault, error):
        for _ in range(3):
            do_everything(lab)
        name, address = lab.names.new("https.example")
        assert lab.web1.resolve(name) == [address], "an answer needs no file"
        assert lab.web1.tcp_result(address) == "open"
        assert denied(lab) == "refused"
        kill(lab)
        wait_until(lambda: denied(lab) == "refused", "no new worker")
    said(lab, 9)


def test_lines_that_the_logs_disk_did_not_take_come_later_or_are_counted(lab):
    with lab.faults.on("output", errno.ENOSPC):
        for port in range(2000, 2010):
            assert lab.web1.tcp_result("45.12.1.67", port) == "refused"
        wait_until(lambda: lab.faults.hits("output") > 0, "nothing was to be written")
    assert lab.web1.tcp_result("45.12.1.67", 2011) == "refused"
    lab.gateway.log.wait(event="denied", dst="45.12.1.67", port=2011)
    lost = sum(int(line["count"]) for line in lab.gateway.log.lines(event="log-lost"))
    seen = len(lab.gateway.log.lines(event="denied", dst="45.12.1.67"))
    assert seen <= 11 <= seen + lost


# --- clocks ---

@pytest.mark.parametrize("seconds", [86400 * 400, -86400 * 400, 7200, -7200])
def test_the_wall_clock_jumps(lab, seconds):
    """Leases and grants do not follow it; a new worker, which has nothing else to go by, does not open anything for it."""
    name, address = lab.names.new("https.example")
    assert lab.web1.resolve(name) == [address]
    with lab.web1.connect(address, 443) as flow:
        lab.faults.clocks(wall=seconds)
        assert talk(flow, "later") == "later"
        assert lab.web1.tcp_result(address) == "open"
        do_everything(lab)
        works(lab)
        kill(lab)
        works(lab)
        assert talk(flow, "even later") == "even later"
    lab.faults.clocks()
    kill(lab)
    works(lab)
    said(lab, 9)


def test_time_passes_while_the_worker_is_suspended(lab):
    """As on a machine that slept: the loop's clock is an hour further than the kernel's timers."""
    name, address = lab.names.new("https.example")
    assert lab.web1.resolve(name) == [address]
    with lab.web1.connect(address, 443) as flow:
        lab.faults.clocks(wall=3600, uptime=3600)
        works(lab)
        assert talk(flow, "later") == "later"
    said(lab)
    kill(lab)
    lab.faults.clocks()


def test_a_worker_that_was_stopped_goes_on(lab):
    name, address = lab.names.new("https.example")
    assert lab.web1.resolve(name) == [address]
    worker = lab.gateway.worker()
    os.kill(worker, signal.SIGSTOP)
    try:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            assert denied(lab) == "timeout"
            assert lab.web1.tcp_result(address) == "open"
    finally:
        os.kill(worker, signal.SIGCONT)
    works(lab)
    assert lab.gateway.worker() == worker
