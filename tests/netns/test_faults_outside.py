# SPDX-License-Identifier: MIT
"""Faults around it: the table changed by others, interfaces that go and come, state files that are not ours, kill -9 in the middle of reloads."""

import concurrent.futures
import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time

import dns.message
import pytest

from app import NoAnswer, talk
from gateway import UID
from lab import POLICY, Lab
from namespaces import children, patience, wait_until

DENIED = "45.12.1.66"
GATEWAY = "10.201.1.1"


@pytest.fixture(scope="module")
def outside_lab():
    with Lab(apps=["web1", "lan1"]) as lab:
        yield lab


@pytest.fixture
def lab(outside_lab):
    outside_lab.gateway.log.mark()
    yield outside_lab
    outside_lab.gateway.wait_healthy()


def resolved(lab):
    name, address = lab.names.new("https.example")
    assert lab.web1.resolve(name) == [address]
    return address


def served(lab, app, suffix):
    """Does a name resolve, and its address connect?"""
    name, address = lab.names.new(suffix)

    def works():
        with contextlib.suppress(NoAnswer):
            return app.resolve(name, seconds=1) == [address] and app.tcp_result(address, seconds=1) == "open"
        return False
    return works


# --- the table ---

@pytest.mark.parametrize("change", [
    "delete table inet sluice",
    "flush ruleset",
    "flush table inet sluice",
    "flush chain inet sluice forward",
    "insert rule inet sluice forward accept",
    "delete chain inet sluice postrouting",
    "add chain inet sluice forward { type filter hook forward priority 0; policy accept; }",
    "add chain inet sluice more { type filter hook forward priority -1; policy drop; }",
    "add table inet sluice { flags dormant; }",
    "add element inet sluice names4_web_443 { 45.12.1.66 }",
    "flush set inet sluice names4_web_443",
    "add set inet sluice foreign { type ipv4_addr; }",
    "add counter inet sluice foreign",
], ids=lambda change: " ".join(change.replace("inet sluice", "").split()[:3]))
def test_what_others_do_to_the_table_is_undone(lab, change):
    address = resolved(lab)
    with lab.web1.connect(address, 443) as flow:
        assert talk(flow, "before") == "before"
        before = objects(lab)
        lab.gw.nft(("flush chain inet sluice postrouting\n" if "delete chain" in change else "") + change + "\n")
        # Elements are nothing that objects() shows: what is open and what is closed tells of them.
        wait_until(lambda: objects(lab) == before and lab.web1.tcp_result(DENIED, 443) == "refused"
                   and lab.web1.tcp_result(address) == "open", "the table is not as it was")
        assert talk(flow, "after") == "after"


def objects(lab):
    """Chains with their rules, and names of sets and counters; without what counts or ends."""
    listed = lab.gw.run(["nft", "-s", "list", "table", "inet", "sluice"]).stdout
    lines = [line.strip() for line in listed.splitlines()]
    wanted = ("chain ", "type ", "set ", "map ", "counter ", "flags ", "iif", "oif", "ct ", "ip", "meta ", "accept", "drop", "jump ", "goto ", "tcp ", "udp ")
    return sorted(line.split(" queue")[0] for line in lines if line.startswith(wanted))


def test_who_changed_the_table_is_said_once_in_a_while(own_lab):
    """Ten seconds; on a slow machine the changes take longer than that."""
    start = time.monotonic()
    for _ in range(20):
        own_lab.gw.nft("flush chain inet sluice forward\n")
    wait_until(lambda: "was changed by another program" in own_lab.gateway.log.since_mark(), "it is not said")
    lines = [line for line in own_lab.gateway.log.lines(level="error") if "was changed by another program" in line["text"]]
    assert len(lines) <= 1 + (time.monotonic() - start) / 10
    for line in lines:
        assert "(nft, process " in line["text"]
        assert "was made anew" in line["text"]
    wait_until(lambda: own_lab.web1.tcp_result(DENIED, 443) == "refused", "it is not closed again")


def test_the_gateways_own_changes_are_not_taken_for_anybody_elses(lab):
    for number in range(3):
        resolved(lab)
        lab.gateway.set_policy(POLICY.replace("[network build]", f"[network build]\nmin_ttl = {61 + number}"))
    lab.gateway.set_policy(POLICY)
    lab.gw.nft("add table inet of_others\nadd chain inet of_others some\ndelete table inet of_others\n")
    resolved(lab)
    lab.gateway.log.settle()
    assert "another program" not in lab.gateway.log.since_mark()


def test_a_flow_that_passed_while_the_table_was_open_is_ended(lab):
    worker = lab.gateway.worker()
    os.kill(worker, signal.SIGSTOP)
    try:
        lab.gw.nft("insert rule inet sluice forward accept\n")
        flow = lab.web1.connect(DENIED, 443)
        assert talk(flow, "open") == "open"
    finally:
        os.kill(worker, signal.SIGCONT)
    with flow:
        wait_until(lambda: lab.gateway.log.lines(event="message", text="1 flows that are not allowed any more were ended"), "the flow goes on")
        flow.settimeout(1)
        with pytest.raises((OSError, AssertionError)):
            assert talk(flow, "still open") == "still open"


def test_a_table_that_changed_while_no_worker_ran_is_made_whole(lab):
    lab.gateway.kill_worker(hold=True)
    lab.gw.nft("add table inet sluice { flags dormant; }\n")
    lab.gateway.release()
    lab.gateway.wait_healthy()
    assert "dormant" not in lab.gw.nft_list("table", "inet", "sluice")
    assert lab.web1.tcp_result(DENIED, 443) == "refused"


# --- interfaces ---

UPLINK = "address replace 45.9.0.2/24 dev {0}\naddress replace 2a0e:9::2/64 dev {0} nodad\nroute replace default via 45.9.0.1\n" \
         "route replace default via 2a0e:9::1\n"


def test_the_uplink_goes_down_and_comes_back(lab):
    works = served(lab, lab.web1, "https.example")
    lab.gw.ip("link set up0 down\n")
    assert lab.web1.tcp_result(DENIED, seconds=0.5) != "open"
    lab.gw.ip("link set up0 up\n" + UPLINK.format("up0"))
    wait_until(works, "it is not served again", seconds=20)
    assert lab.web1.tcp_result(DENIED, 443) == "refused"


def test_the_uplink_is_renamed(lab):
    lab.gw.ip("link set up0 down\nlink set up0 name wan7\nlink set wan7 up\n" + UPLINK.format("wan7"))
    try:
        wait_until(served(lab, lab.web1, "https.example"), "it is not served under the uplink's new name", seconds=20)
        assert lab.web1.tcp_result(DENIED, 443) == "refused"
    finally:
        lab.gw.ip("link set wan7 down\nlink set wan7 name up0\nlink set up0 up\n" + UPLINK.format("up0"))
    wait_until(served(lab, lab.web1, "https.example"), "it is not served again", seconds=20)


def test_the_uplinks_address_changes(lab):
    address = resolved(lab)
    lab.gw.ip("address del 45.9.0.2/24 dev up0\naddress add 45.9.0.77/24 dev up0\nroute replace default via 45.9.0.1\n")
    try:
        wait_until(lambda: lab.web1.hello(address).startswith("from 45.9.0.77 "), "flows do not leave with the new address")
        assert served(lab, lab.web1, "https.example")()
    finally:
        lab.gw.ip("address del 45.9.0.77/24 dev up0\n" + UPLINK.format("up0"))
    wait_until(served(lab, lab.web1, "https.example"), "it is not served again", seconds=20)


@pytest.mark.parametrize("how", ["down", "renamed", "made anew"])
def test_a_networks_interface_goes_and_comes_back(lab, how):
    """As an engine does that connects a network again: another interface, with the address that IPAM gives."""
    port = f"{lab.gw.short}-lan"
    if how == "down":
        lab.gw.ip("link set lan0 down\n")
        assert lab.lan1.tcp_result(DENIED, seconds=0.3) != "open"
        lab.gw.ip("link set lan0 up\n")
    elif how == "renamed":
        lab.gw.ip("link set lan0 down\nlink set lan0 name lan9\nlink set lan9 up\n")
    else:
        lab.gw.ip("link del lan9\n" if "lan9" in lab.gw.run(["ip", "link"]).stdout else "link del lan0\n")
        wait_until(lambda: "lan" in " ".join(line["text"] for line in lab.gateway.log.lines(event="message", level="warning")), "nobody says so")
        lab.gw.ip(f"link add lan0 type veth peer name {port} netns {lab.sw.name}\n")
        lab.sw.ip(f"link set {port} master lan up\n")
        lab.gw.ip("addr add 10.201.3.2/24 dev lan0\nlink set lan0 up\n")
    wait_until(served(lab, lab.lan1, "ok.example"), "network lan is not served again", seconds=20)
    assert lab.lan1.tcp_result(DENIED, 443) == "refused"
    assert served(lab, lab.web1, "https.example")(), "the others do not notice"


# --- state files ---

def foreign_owner(path):
    with open(path, "wb") as file:
        file.write(b"not ours")
    os.chown(path, 0, 0)
    os.chmod(path, 0o600)


def link(path):
    os.symlink("/etc/passwd", path)


def directory_instead(path):
    os.mkdir(path)


def truncated(path):
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) - 5)


@pytest.mark.parametrize("make, text", [(foreign_owner, "Permission denied"), (link, "Too many levels of symbolic links"),
                                        (directory_instead, "Is a directory"), (truncated, "the journal of leases was damaged")])
def test_a_state_file_that_is_not_ours(own_lab, make, text):
    """It goes on in memory, and says what is wrong; what is not ours is left alone."""
    lab = own_lab
    resolved(lab)
    lab.gateway.stop()
    path = os.path.join(lab.gateway.state, "leases-0")
    if make is not truncated:
        os.unlink(path)
    make(path)
    lab.gateway.log.mark()
    lab.gateway.start(POLICY)
    assert text in lab.gateway.log.since_mark()
    assert lab.web1.tcp_result(DENIED, 443) == "refused"
    address = resolved(lab)
    lab.gateway.kill_worker()
    lab.gateway.wait_healthy()
    assert lab.web1.tcp_result(address) == "open"
    assert make is not link or os.path.islink(path)


def test_a_read_only_state_directory(own_lab):
    lab = own_lab
    lab.gateway.stop()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,mode=1777", "sluice-ro", lab.gateway.state], check=True)
    try:
        lab.gateway.log.mark()
        lab.gateway.start(POLICY)
        assert "Read-only file system" in lab.gateway.log.since_mark()
        address = resolved(lab)
        lab.gateway.kill_worker()
        lab.gateway.wait_healthy()
        assert lab.web1.tcp_result(address) == "open"
    finally:
        lab.gateway.stop()
        subprocess.run(["umount", lab.gateway.state], check=True)


# --- descriptors ---

PAGE = ("127.0.0.1", 9780)
WITH_PAGE = POLICY.replace("[gateway]\n", "[gateway]\nhttp = {}:{}\n".format(*PAGE), 1)
TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def page_lab():
    with Lab(WITH_PAGE, apps=["web1"]) as lab:
        yield lab


def processor_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def limit_descriptors(pid, limit):
    """As its own user, who may: root without CAP_SYS_RESOURCE may not."""
    subprocess.run(["prlimit", f"--pid={pid}", f"--nofile={limit}:"], user=UID, group=UID, extra_groups=[], check=True)


@contextlib.contextmanager
def without_descriptors(pid):
    """It keeps those that it has and gets no other."""
    with open(f"/proc/{pid}/limits", encoding="ascii") as file:
        before = re.search(r"^Max open files +(\d+)", file.read(), re.MULTILINE).group(1)
    taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    limit_descriptors(pid, next(number for number in range(len(taken) + 1) if number not in taken))
    try:
        yield
    finally:
        limit_descriptors(pid, before)


def client_of(lab, door):
    """A connection that its kernel has made: nobody has accepted it yet. Return: it, what to send, how the answer begins."""
    if door == "control":
        sock = lab.gw.socket(socket.AF_UNIX)
        sock.connect(lab.gateway.control)
        return sock, b'{"command":"health"}\n', b'{"ok":true'
    if door == "page":
        sock = lab.gw.socket()
        sock.connect(PAGE)
        return sock, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", b"HTTP/1.1 200"
    question = dns.message.make_query("shared.example", "A").to_wire()
    return lab.web1.connect(GATEWAY, 53), len(question).to_bytes(2, "big") + question, None


@pytest.mark.parametrize("door", ["control", "dns", "page"])
def test_a_lasting_lack_of_descriptors_costs_new_clients_only(page_lab, door):
    """Who comes waits; nobody else does, the processor has nothing to do, and who waited is served when there are some again."""
    lab = page_lab
    log = lab.gateway.log
    log.mark()
    address = resolved(lab)
    worker = lab.gateway.worker()
    with lab.web1.connect(address, 443) as flow, contextlib.ExitStack() as clients:
        with without_descriptors(worker):
            waiting = [client_of(lab, door) for _ in range(3)]
            for sock, request, _ in waiting:
                clients.enter_context(sock)
                sock.sendall(request)
            began, used = time.monotonic(), processor_seconds(worker)
            while time.monotonic() - began < 4:
                assert talk(flow, "still there") == "still there"
                assert lab.web1.resolve("shared.example") == ["45.12.1.10"], "a known name needs no descriptor"
                assert lab.web1.tcp_result(DENIED) == "refused"
                with contextlib.suppress(NoAnswer):  # it may need a socket towards upstream
                    lab.web1.resolve(lab.names.new("https.example")[0], seconds=0.3)
                time.sleep(0.05)
            assert processor_seconds(worker) - used < (time.monotonic() - began) / 2, "it spins"
            wait_until(lambda: "no file descriptors" in log.since_mark(), "it is not said", seconds=15)
            assert log.since_mark().count("no file descriptors") == 1
        for sock, _, beginning in waiting:
            sock.settimeout(patience(10))
            answer = sock.recv(4096)
            assert answer and answer.startswith(beginning or b"")
    assert lab.gateway.worker() == worker


# --- kill -9 at random points ---

class Prober(threading.Thread):
    """Tries what is denied under both policies, all the time."""

    def __init__(self, lab):
        super().__init__(daemon=True)
        self.lab, self.ending, self.wrong, self.tried = lab, threading.Event(), [], 0

    def run(self):
        while not self.ending.is_set():
            result = self.lab.web1.tcp_result(f"45.12.1.{60 + self.tried % 100}", 443, seconds=0.1)
            self.tried += 1
            if result == "open":
                self.wrong.append(self.tried)

    def finish(self):
        self.ending.set()
        self.join()
        assert self.tried > 20
        assert self.wrong == []


FIRST = POLICY.replace("45.40.0.0/16:443", "45.41.1.0/24:443 45.41.2.0/24:443")
SECOND = POLICY.replace("45.40.0.0/16:443", "45.42.1.0/24:443 45.42.2.0/24:443")
ADDRESSES = {"first": ("45.41.1.5", "45.41.2.5"), "second": ("45.42.1.5", "45.42.2.5")}


def in_force(lab):
    """Which of the two policies is; fails when it is a mixture."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:  # what is closed takes its time while no worker refuses it
        results = {policy: [pool.submit(lab.web1.tcp_result, address, seconds=0.4) for address in addresses] for policy, addresses in ADDRESSES.items()}
    opened = {policy: {result.result() == "open" for result in list_of} for policy, list_of in results.items()}
    assert opened in ({"first": {True}, "second": {False}}, {"first": {False}, "second": {True}}), opened
    return "first" if opened["first"] == {True} else "second"


def kill_during_reloads(lab, rounds, seed, kill, longest):
    chance = random.Random(seed)
    lab.gateway.set_policy(FIRST)
    address = resolved(lab)
    prober = Prober(lab)
    prober.start()
    try:
        with lab.web1.connect(address, 443) as flow:
            for turn in range(rounds):
                lab.gateway.write_policy((SECOND, FIRST)[turn % 2])
                reload = lab.gw.start([lab.gateway.binary, "reload"], env=lab.gateway.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                time.sleep(chance.uniform(0, longest))
                kill(lab)
                reload.wait(patience(20))
                lab.gw.processes.remove(reload)
                assert talk(flow, f"round {turn}") == f"round {turn}", f"round {turn} of seed {seed}"
            lab.gateway.wait_healthy()
            wait_until(lambda: in_force(lab) == ("second", "first")[(rounds - 1) % 2], "the new policy does not come into force")
            assert lab.web1.tcp_result(address) == "open"
    finally:
        prober.finish()


def kill_worker(lab):
    lab.gateway.kill_worker(hold=True)
    in_force(lab)
    lab.gateway.release()


def kill_supervisor(lab):
    """Its worker goes with it, and another gateway takes the table over."""
    workers = children(lab.gateway.process.pid)
    lab.gateway.process.send_signal(signal.SIGKILL)
    lab.gateway.process.wait()
    lab.gw.processes.remove(lab.gateway.process)
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers), "the worker outlived its supervisor")
    in_force(lab)
    lab.gateway.start()


# A worker that keeps dying is started later and later: eight rounds take half a minute.
@pytest.mark.parametrize("kill, rounds", [(kill_worker, 8), (kill_supervisor, 5), pytest.param(kill_supervisor, 20, marks=pytest.mark.slow)])
def test_kill_9_at_random_points_of_reloads(own_lab, kill, rounds):
    kill_during_reloads(own_lab, rounds, 31, kill, 0.1)
