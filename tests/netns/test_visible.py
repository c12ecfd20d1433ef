# SPDX-License-Identifier: MIT
"""`sluice log`, `stats` and `explain --last`: people see who tried what, and what to do about it. tests/unit/commands.py has what they print."""

import contextlib
import json
import os
import select
import signal
import subprocess
import time

import pytest

from lab import POLICY
from namespaces import patience


class Follower:
    """A `sluice log -f --json` that runs."""

    def __init__(self, lab, *words):
        self.process = lab.gw.start([lab.gateway.binary, "log", "-f", "--json", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                    env=lab.gateway.environment())
        self.lines = []
        self.rest = b""

    def wait(self, seconds=20, **wanted):
        """The first line with these values, as soon as it comes. What comes before it is kept in `lines`."""
        end = time.monotonic() + patience(seconds)
        while True:
            for line in self.lines:
                if all(line.get(key) == value for key, value in wanted.items()):
                    return line
            assert time.monotonic() < end, f"no {wanted} among {self.lines}"
            if select.select([self.process.stdout], [], [], 0.1)[0]:
                self.take(os.read(self.process.stdout.fileno(), 65536))

    def take(self, data):
        assert data, f"it ended: {self.process.stderr.read()}"
        *whole, self.rest = (self.rest + data).split(b"\n")
        self.lines += [json.loads(line) for line in whole]


@contextlib.contextmanager
def following(lab, *words):
    follower = Follower(lab, *words)
    try:
        yield follower
    finally:
        lab.gw.processes.remove(follower.process)
        follower.process.kill()
        follower.process.communicate()


def connected(lab, app, follower):
    """Wait until the follower hears of what happens now: denials of a name of its own, until one comes."""
    for number in range(50):
        app.ask(f"beacon{number}.follow.example")
        with contextlib.suppress(AssertionError):
            return follower.wait(1, qname=f"beacon{number}.follow.example")
    return pytest.fail(f"it hears nothing:\n{lab.gateway.log.tail()}")


def ask_log(lab, *words):
    done = lab.gateway.sluice("log", "--json", *words)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def ask_stats(lab, network, *words):
    done = lab.gateway.sluice("stats", "--json", "--network", network, *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["networks"][0]


def denied_for(network, reason):
    return sum(entry["denied"] for entry in network["reasons"] if entry["reason"] == reason)


# --- log ---

def test_a_follower_sees_a_denial_when_it_happens(lab, web1, build1):
    with following(lab, "-n", "0", "--denied", "--network", "web") as follower:
        connected(lab, web1, follower)
        build1.ask("other-network.evil.example")
        name, address = lab.names.new("https.example")
        web1.resolve(name)
        assert web1.tcp_result(address, 8443) == "refused"
        line = follower.wait(dst=address)
        assert (line["event"], line["app"], line["name"], line["port"], line["reason"]) == ("denied", "shop_web1_1", name, 8443, "port-not-allowed")
        assert {line["network"] for line in follower.lines} == {"web"}
        follower.process.send_signal(signal.SIGINT)
        assert follower.process.wait(patience(10)) == 0


def test_the_lines_are_those_of_the_log(lab, web1, log):
    """To the millisecond."""
    web1.ask("same.evil.example")
    logged, = log.wait(event="denied", qname="same.evil.example")
    told, = ask_log(lab, "--name", "same.evil.example")
    assert {key: "-" if value is None else str(value) for key, value in told.items()} == logged


def test_text_is_for_eyes(lab, web1):
    web1.ask("eyes.evil.example")
    done = lab.gateway.sluice("log", "-n", "1", "--name", "eyes.evil.example")
    assert done.returncode == 0
    assert " denied   web  shop_web1_1 ? eyes.evil.example A  name-not-allowed  default\n" in done.stdout, done.stdout


def test_a_follower_and_the_denials_outlive_a_worker(own_lab):
    own_lab.web1.ask("before.evil.example")
    own_lab.gateway.log.wait(event="denied", qname="before.evil.example")
    with following(own_lab, "--denied") as follower:
        follower.wait(qname="before.evil.example")
        time.sleep(patience(2))  # what is kept is written every now and then
        own_lab.gateway.kill_worker()
        own_lab.gateway.wait_healthy()
        connected(own_lab, own_lab.web1, follower)
        own_lab.web1.ask("after.evil.example")
        follower.wait(qname="after.evil.example")
        names = [line.get("qname") for line in follower.lines]
        assert names.count("before.evil.example") == names.count("after.evil.example") == 1, names
        assert [line["qname"] for line in ask_log(own_lab, "--name", "before.evil.example")] == ["before.evil.example"]
        follower.process.terminate()
        assert follower.process.wait(patience(10)) == 0
        assert b"connected again" in follower.process.stderr.read()


def test_a_gateway_that_ends_ends_its_followers(own_lab):
    with following(own_lab) as follower:
        connected(own_lab, own_lab.web1, follower)
        own_lab.gateway.stop()
        assert follower.process.wait(patience(30)) == 1
        assert b"no daemon listens there" in follower.process.stderr.read()


# --- stats ---

def test_counts_are_exact(lab, web2):
    name, address = lab.names.new("https.example")
    web2.resolve(name)
    before = ask_stats(lab, "web")
    for port in range(8000, 8005):
        assert web2.tcp_result(address, port) == "refused"
    for number in range(3):
        web2.ask(f"count{number}.evil.example")
    lab.gateway.log.wait(event="denied", qname="count2.evil.example")
    lab.gateway.log.wait(event="denied", dst=address, port=8004)
    after = ask_stats(lab, "web")
    assert denied_for(after, "port-not-allowed") - denied_for(before, "port-not-allowed") == 5
    assert denied_for(after, "name-not-allowed") - denied_for(before, "name-not-allowed") == 3
    rows = [row for row in ask_stats(lab, "web", "--app", "shop_web2_1")["rows"] if row["name"] == name]
    assert sorted((row["port"], row["denied"], row["proto"], row["dst"], row["reason"]) for row in rows) == [
        (port, 1, "tcp", address, "port-not-allowed") for port in range(8000, 8005)]
    questions = {row["name"]: row["denied"] for row in after["rows"] if row["proto"] == "dns" and row["app"] == "shop_web2_1"}
    assert all(questions[f"count{number}.evil.example"] == 1 for number in range(3)), questions
    assert sum(entry["denied"] for entry in after["reasons"]) == after["denied"]


def test_allowed_flows_are_followed_and_counted(lab, web2):
    name, address = lab.names.new("https.example")
    with following(lab, "-n", "0", "--app", "shop_web2_1") as follower:
        connected(lab, web2, follower)
        web2.resolve(name)
        for _ in range(3):
            web2.hello(address)
        for _ in range(3):
            line = follower.wait(event="allowed", name=name)
            assert (line["dst"], line["port"], line["network"]) == (address, 443, "web")
            follower.lines.remove(line)
    row, = [row for row in ask_stats(lab, "web", "--app", "shop_web2_1")["rows"] if row["name"] == name]
    assert (row["allowed"], row["denied"], row["port"]) == (3, 0, 443), row
    assert " + allowed  web  shop_web2_1 > " in lab.gateway.sluice("log", "--allowed", "--name", name, env=lab.gateway.environment(LC_ALL="C")).stdout


def test_what_was_denied_now_comes_first(lab, web2):
    web2.ask("older.evil.example")
    lab.gateway.log.wait(event="denied", qname="older.evil.example")
    time.sleep(1.1)  # what is compared are seconds
    web2.ask("newest.evil.example")
    lab.gateway.log.wait(event="denied", qname="newest.evil.example")
    lines = lab.gateway.sluice("stats", "--network", "web", "--limit", "1").stdout.splitlines()
    assert lines[0].startswith("web  enforce"), lines
    assert any("shop_web2_1 (10.201.1.12)" in line and "newest.evil.example" in line and "name-not-allowed" in line for line in lines), lines


# --- explain --last ---

def explain_last(lab, *words):
    done = lab.gateway.sluice("explain", "--last", "--json", "-c", lab.gateway.policy_directory, *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_last_denial_is_explained(lab, build1, log):
    build1.ask("explained.evil.example")
    log.wait(event="denied", qname="explained.evil.example")
    text = lab.gateway.sluice("explain", "--last", "--network", "build").stdout
    assert text.startswith("explained.evil.example A: denied"), text
    assert "from: network build, app shop_build1_1 (10.201.2.11)\n" in text and "rule: none, the default denies" in text, text


def test_the_rule_that_denied_is_shown(lab, web1, log):
    web1.ask("x.bad.ok.example")
    log.wait(event="denied", qname="x.bad.ok.example")
    answer = explain_last(lab, "--app", "shop_web1_1")
    assert answer["decision"]["reason"] == "denied-by-rule" and answer["rule"]["rule"] == "**.bad.ok.example"
    assert answer["rule"]["line"] == 1 + POLICY.splitlines().index("deny   = **.bad.ok.example 45.40.66.0/24")


def with_advice(policy, advice):
    """The policy with the line that was advised, in the section that was advised."""
    head = f"[{advice['section']}]\n"
    assert head in policy
    return policy.replace(head, f"{head}{advice['line']}\n")


def test_advice_that_is_followed_lets_it_pass(lab, policy, web1, log):
    name, address = lab.names.new("https.example")
    web1.resolve(name)
    assert web1.tcp_result(address, 8443) == "refused"
    log.wait(event="denied", dst=address, port=8443)
    answer = explain_last(lab, "--network", "web", "--app", "10.201.1.11")
    assert answer["decision"]["dst"] == address and answer["advice"]["ok"], answer
    policy(with_advice(POLICY, answer["advice"]))
    web1.resolve(name)
    assert web1.tcp_result(address, 8443) == "open"


def test_advice_for_a_name_lets_it_pass(lab, policy, web1, log):
    name, address = lab.names.new("advised.example")
    web1.ask(name)
    log.wait(event="denied", qname=name)
    answer = explain_last(lab, "--network", "web")
    assert answer["decision"]["qname"] == name and answer["advice"]["ok"], answer
    policy(with_advice(POLICY, answer["advice"]))
    web1.resolve(name)
    assert web1.tcp_result(address) == "open"
