#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""commands.py SLUICE ROOT: the commands that ask the running gateway, against a daemon that is made up here; on terminals, too. And what every
command and option must appear in: the completions and sluice(8). Needs no root."""

import contextlib
import copy
import fcntl
import json
import multiprocessing
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time

SLUICE, ROOT = sys.argv[1], sys.argv[2]
PATIENCE = 60  # s: how long anything may take on a slow machine
TESTS = []


def test(function):
    TESTS.append(function)
    return function


def slow(function):
    """One that waits for a client to give up: 10 seconds. Only when it is asked for."""
    return test(function) if os.environ.get("SLUICE_TESTS_SLOW") else function


# --- the daemon ---

def denied(second, **more):
    return {"ts": f"2026-11-22T03:40:{second:02}.000Z", "event": "denied", "network": "web", "src": "10.201.1.5", "app": "web-1", "dst": "203.0.113.7",
            "port": 443, "proto": "tcp", "name": "evil.example", "reason": "name-not-allowed", "rule": "default", "action": "reset", "count": 1, **more}


LINES = [
    denied(1, name="first.example"),
    denied(2, network="build", app="build-1", src="10.201.2.5", event="audit", name="audit.example", action="allowed"),
    denied(3, name="port.example", port=22, reason="port-not-allowed", rule="SLUICE_CONFIG:4"),
    {"ts": "2026-11-22T03:40:04.000Z", "event": "allowed", "network": "web", "src": "10.201.1.5", "app": "web-1", "dst": "203.0.113.9", "port": 443,
     "proto": "tcp", "name": "api.example", "action": "allowed", "count": 1},
    {"ts": "2026-11-22T03:40:05.000Z", "event": "denied", "network": "web", "src": None, "app": None, "what": "packets", "reason": "repeated",
     "action": "rejected", "count": 512},
]


def row(app, name, **more):
    return {"app": app, "src": "10.201.1.5", "name": name, "dst": "203.0.113.7", "port": 443, "proto": "tcp", "allowed": 0, "denied": 0, "audited": 0,
            "open": 0, "bytes_out": 0, "bytes_in": 0, "packets_out": 0, "packets_in": 0, "first_seen": 1764181000, "last_seen": 1764181230,
            "last_denied": None, "reason": None, "rule": None, **more}


NETWORKS = [{"network": name, "mode": "enforce", "allowed": 40, "denied": 12, "audited": 0, "inbound": 0, "open": 2, "bytes_out": 1, "bytes_in": 2,
             "reasons": [{"reason": "name-not-allowed", "denied": 12, "audited": 0}],
             "rows": [row("web-1", "api.example", allowed=40, bytes_out=4096, bytes_in=1 << 20),
                      row("web-1", "evil.example", denied=12, last_denied=1764181230, reason="name-not-allowed")]} for name in ("web", "build")]
ADVICE = {"ok": True, "section": "network web", "line": "allow = port.example:22/tcp", "opens": "port 22 of that name", "change": None}


class Daemon:
    """Answers as docs/control-protocol.md says. `requests` are what it was asked."""

    def __init__(self, directory):
        self.path = os.path.join(directory, "control.sock")
        self.lines = copy.deepcopy(LINES)
        self.networks = copy.deepcopy(NETWORKS)
        self.advice = ADVICE
        self.requests = []
        self.followers = []
        self.raw = None  # octets to answer with, instead
        self.lock = threading.Lock()
        self.start()

    def start(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(16)
        threading.Thread(target=self.serve, args=(self.listener,), daemon=True).start()

    def stop(self):
        with self.lock:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            os.unlink(self.path)
            for follower in self.followers:
                follower.shutdown(socket.SHUT_RDWR)
            self.followers = []

    def serve(self, listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError):
                self.answer(client)

    def answer(self, client):
        request = json.loads(client.makefile("r").readline())
        self.requests.append(request)
        if self.raw is not None:
            client.sendall(self.raw)
            client.shutdown(socket.SHUT_RDWR)
        elif request["command"] == "log":
            self.answer_log(client, request)
        else:
            client.sendall(json.dumps(self.answer_once(request)).encode() + b"\n")
            client.shutdown(socket.SHUT_RDWR)

    def answer_once(self, request):
        if request["command"] == "stats":
            wanted = [network for network in self.networks if request.get("network") in (None, network["network"])]
            return {"ok": True, "now": 1764181234, "networks": wanted}
        if request["command"] == "advise" and self.advice:
            return self.advice
        return {"ok": False, "error": "unknown command"}

    def answer_log(self, client, request):
        with self.lock:
            known = [line for line in self.lines if not request["denied"] or line["event"] in ("denied", "audit")]
            known = known[len(known) - min(request["lines"], len(known)):]
            client.sendall(b'{"ok": true}\n' + b"".join(json.dumps(line).encode() + b"\n" for line in known))
            if request["follow"]:
                self.followers.append(client)
            else:
                client.shutdown(socket.SHUT_RDWR)

    def tell(self, line):
        with self.lock:
            self.lines.append(line)
            for follower in self.followers:
                follower.sendall(json.dumps(line).encode() + b"\n")

    def wait_follower(self):
        wait(lambda: self.followers, "nobody follows")


def wait(condition, problem):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, problem
        time.sleep(0.01)


def environment(daemon, **more):
    kept = {key: value for key, value in os.environ.items() if key not in ("LC_ALL", "LC_CTYPE", "LANG", "NO_COLOR", "TERM", "COLUMNS", "SLUICE_CONFIG")}
    return {**kept, "SLUICE_CONTROL": daemon.path, **more}


def run(daemon, *words, status=0, **more):
    done = subprocess.run([SLUICE, *words], capture_output=True, encoding="utf-8", timeout=PATIENCE, env=environment(daemon, **more), check=False)
    assert done.returncode == status, f"{words}: status {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout if status == 0 else done.stderr


class Screen:
    """A command on a terminal."""

    def __init__(self, daemon, *words, columns=100, rows=30, **more):
        self.output = b""
        self.status = None
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            self.resize(columns, rows, 0)
            os.execve(SLUICE, [SLUICE, *words], {"TERM": "xterm", **environment(daemon), **more})

    def resize(self, columns, rows, terminal=None):
        fcntl.ioctl(self.terminal if terminal is None else terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, wanted=None):
        """Until a text comes, or to the end. Return: what came since the call before."""
        end = time.monotonic() + PATIENCE
        output = b""
        while wanted is None or wanted.encode() not in output:
            assert time.monotonic() < end, f"no {wanted!r} in {output!r}"
            if not select.select([self.terminal], [], [], 0.1)[0]:
                continue
            try:
                more = os.read(self.terminal, 65536)
            except OSError:
                more = b""
            if not more:
                assert wanted is None, f"no {wanted!r} in {output!r}"
                break
            output += more
        self.output += output
        return output.decode()

    def press(self, key):
        os.write(self.terminal, key)

    def end(self):
        """Return: (exit status, what came since the last read())."""
        text = self.read()
        _, status = os.waitpid(self.pid, 0)
        os.close(self.terminal)
        return os.waitstatus_to_exitcode(status), text


@contextlib.contextmanager
def following(daemon, *words, **more):
    process = subprocess.Popen([SLUICE, "log", "-f", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",  # pylint: disable=consider-using-with
                               env=environment(daemon, **more))
    try:
        daemon.wait_follower()
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


# --- log ---

@test
def log_prints_the_last_decisions(daemon):
    text = run(daemon, "log")
    assert text.splitlines()[:2] == ["2026-11-22 (UTC)", "03:40:01.000 x denied   web    web-1     > first.example:443/tcp  name-not-allowed  default"], text
    assert len(text.splitlines()) == 1 + len(LINES)
    assert daemon.requests[-1] == {"command": "log", "lines": 100, "denied": False, "follow": False}
    assert run(daemon, "log", "-n", "1").splitlines()[1:] == ["03:40:05.000 x denied   web  (several) = 512 packets  repeated"]
    assert run(daemon, "log", "-n", "0") == ""
    daemon.lines[-1]["count"] = 1
    assert " = 1 packet  repeated\n" in run(daemon, "log", "-n", "1")


@test
def log_prints_json_as_it_came(daemon):
    text = run(daemon, "log", "--json")
    assert text == "".join(json.dumps(line) + "\n" for line in LINES)
    daemon.lines.append(denied(6, app="a\x9b1m\u202e"))
    text = run(daemon, "log", "--json", "-n", "1")
    assert text.isascii() and json.loads(text)["app"] == "a\x9b1m\u202e"


@test
def log_counts_lines_after_the_filters(daemon):
    assert "audit.example" in run(daemon, "log", "-n", "1", "--audit")
    assert daemon.requests[-1]["lines"] == 1200 and daemon.requests[-1]["denied"] is True
    assert "api.example" in run(daemon, "log", "-n", "1", "--allowed")
    assert daemon.requests[-1]["denied"] is False
    assert "audit.example" in run(daemon, "log", "-n", "1", "--network", "build")
    assert len(run(daemon, "log", "--app", "web-1", "--denied").splitlines()) == 3
    assert "first.example" in run(daemon, "log", "-n", "1", "--name", "first.example")
    assert len(run(daemon, "log", "--name", "*.example").splitlines()) == 5
    assert run(daemon, "log", "--name", "192.0.2.0/24") == ""


@test
def log_follows(daemon):
    with following(daemon, "--denied") as process:
        daemon.tell(denied(6, name="live.example"))
        daemon.tell({**denied(6), "event": "allowed", "name": "other.example"})
        daemon.tell(denied(7, name="last.example"))
        lines = [process.stdout.readline() for _ in range(6)]
        assert [next(iter(re.findall(r"\w+\.example|512", line)), "") for line in lines] == ["", "first.example", "port.example", "512", "live.example",
                                                                                            "last.example"], lines
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        assert process.stdout.read() == "" and process.stderr.read() == ""


@test
def log_connects_again_and_tells_nothing_twice(daemon):
    with following(daemon, "-n", "2", "--json") as process:
        assert [json.loads(process.stdout.readline()) for _ in range(2)] == LINES[-2:]
        daemon.tell(denied(6, name="before.example"))
        assert json.loads(process.stdout.readline())["name"] == "before.example"
        daemon.stop()
        daemon.lines.append(denied(6, name="same-time.example"))
        daemon.lines.append(denied(7, name="meanwhile.example"))
        daemon.start()
        assert json.loads(process.stdout.readline())["name"] == "same-time.example"
        assert json.loads(process.stdout.readline())["name"] == "meanwhile.example"
        daemon.tell(denied(8, name="afterwards.example"))
        assert json.loads(process.stdout.readline())["name"] == "afterwards.example"
        process.terminate()
        assert process.wait(PATIENCE) == 0
        errors = process.stderr.read()
        assert "has closed the connection" in errors and "connected again" in errors, errors


@slow
def log_gives_up_when_the_gateway_stays_away(daemon):
    with following(daemon) as process:
        daemon.stop()
        assert process.wait(PATIENCE) == 1
        assert "no daemon listens there" in process.stderr.read()


@test
def log_ends_when_nobody_reads(daemon):
    with following(daemon) as process:
        process.stdout.close()  # nothing is written any more
        assert process.wait(PATIENCE) == 0
        process.stdout = open(os.devnull, encoding="ascii")  # pylint: disable=consider-using-with


@test
def log_says_what_it_could_not_read(daemon):
    with following(daemon, "--denied") as process:
        for _ in range(4):
            process.stdout.readline()
        daemon.tell({"event": "log-lost", "count": 7})
        assert process.stdout.readline() == "(7 lines are missing: they came faster than they were read)\n"
        daemon.lines.pop()


@test
def log_has_colours_on_a_terminal_only(daemon):
    status, text = Screen(daemon, "log").end()
    assert status == 0 and "\x1b[31m\u2717\x1b[0m" in text and "\u2192" in text, text
    for more in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        status, text = Screen(daemon, "log", **more).end()
        assert status == 0 and "\x1b" not in text and "denied" in text, text
    for more in ({"LANG": "C"}, {"LC_ALL": "POSIX", "LANG": "C.UTF-8"}, {"TERM": "linux"}):
        assert Screen(daemon, "log", **more).end()[1].isascii()
    assert "\u2717" in run(daemon, "log", LANG="C.UTF-8") and "\x1b" not in run(daemon, "log", LANG="C.UTF-8", TERM="xterm")


@test
def log_of_a_daemon_that_talks_nonsense(daemon):
    for raw, problem in ((b"", "closed the connection"), (b"{\n", "not understood"), (b'{"ok": false, "error": "no log"}\n', "no log"),
                         (b"[]\n", "the daemon says no"), (b'{"ok": false}\n', "the daemon says no")):
        daemon.raw = raw
        assert problem in run(daemon, "log", status=1), raw
        assert problem in run(daemon, "explain", "--last", status=1), raw
    daemon.raw = b'{"ok": true}\nnonsense\n[]\n7\n{"event": 7, "ts": [], "port": {}}\n\0\n{"event": "denied", "ts": "x"}\n'
    text = run(daemon, "log")
    assert text.count("\n") == 2 and "--:--:--.---" in text, text
    daemon.raw = b'{"ok": true, "now": "x", "networks": [7, {"rows": 3}, {"network": "web", "rows": [[], {"app": 7, "port": "x"}], "reasons": 1}]}\n'
    run(daemon, "stats")
    run(daemon, "stats", "--json")


@test
def log_refuses_what_it_does_not_know(daemon):
    for words in (("-n", "x"), ("-n", "-1"), ("-n", "1x"), ("--name", "a..b"), ("--name", "a*.example"), ("more",), ("--no-such",), ("-n",)):
        assert run(daemon, "log", *words, status=2), words
    assert daemon.requests == []


# --- stats ---

@test
def stats_prints_tables(daemon):
    text = run(daemon, "stats")
    assert text.startswith("web  enforce  2 open, 40 allowed, 12 denied"), text
    assert re.search(r"evil\.example  443/tcp +- +12 .* 4s  name-not-allowed\n.*api\.example", text), text
    assert "\x1b" not in text and text.isascii()
    assert daemon.requests == [{"command": "stats"}] * 2  # the first one has the gateway look at all flows
    text = run(daemon, "stats", "--network", "build", "--sort", "bytes", "--limit", "1")
    assert text.startswith("build") and "api.example" in text and "evil.example" not in text and "(1 more)" in text
    assert daemon.requests[-1] == {"command": "stats", "network": "build"}
    assert "there is no such network" in run(daemon, "stats", "--network", "nosuch", status=1)


@test
def stats_prints_json(daemon):
    assert json.loads(run(daemon, "stats", "--json"))["networks"][0]["rows"] == NETWORKS[0]["rows"][::-1]
    answer = json.loads(run(daemon, "stats", "--json", "--limit", "1", "--app", "web-1"))
    assert answer["networks"][0]["left_out"] == 1 and len(answer["networks"][0]["rows"]) == 1


@test
def stats_fits_the_terminal(daemon):
    daemon.networks[0]["rows"][0]["name"] = "a-very-long-name-of-a-host.in-a-long-domain.example"
    for columns in (80, 100, 200):
        text = Screen(daemon, "stats", columns=columns).end()[1]
        lines = [re.sub(r"\x1b\[\d*m", "", line) for line in text.splitlines()]
        assert max(map(len, lines)) <= columns, (columns, lines)
        assert ("\u2026" in text) == (columns < 200) and ("(10.201.1.5)" in text) == (columns == 200), text


@test
def stats_watches_on_a_terminal(daemon):
    screen = Screen(daemon, "stats", "--watch", "1", rows=24)
    text = screen.read("\x1b[J")
    assert text.startswith("\x1b[?1049h\x1b[?25l") and "every 1 s" in text and "evil.example" in text and "build" in text, text
    daemon.networks = copy.deepcopy(daemon.networks)
    daemon.networks[0]["rows"][1]["denied"] += 3
    screen.read("15 +3")
    screen.press(b"\x03")
    status, text = screen.end()
    assert status == 0 and text.endswith("\x1b[?7h\x1b[?25h\x1b[?1049l"), text
    assert screen.output.count(b"\x1b[?1049h") == screen.output.count(b"\x1b[?1049l") == 1


@test
def stats_draws_no_more_than_the_window_has(daemon):
    daemon.networks[0]["rows"] = [row("web-1", f"name-{number}.example", denied=1, last_denied=1764181230) for number in range(100)]
    screen = Screen(daemon, "stats", "--watch=60", rows=20)
    assert screen.read("\x1b[J").count("\r\n") < 20
    screen.resize(100, 40)
    text = screen.read("\x1b[J")  # at once, not after 60 seconds: else this would be the end of our patience
    assert 20 < text.count("\r\n") < 40 and "more)" in text, text
    screen.press(b"\x1a")
    screen.read("\x1b[?1049l")
    wait(lambda: open(f"/proc/{screen.pid}/stat", encoding="ascii").read().split()[2] == "T", "it was not stopped")
    os.kill(screen.pid, signal.SIGCONT)
    screen.read("\x1b[J")
    os.kill(screen.pid, signal.SIGTERM)
    assert screen.end()[0] == 0


@test
def stats_watches_without_a_terminal(daemon):
    with subprocess.Popen([SLUICE, "stats", "-w", "1", "--network", "web"], stdout=subprocess.PIPE, encoding="utf-8", env=environment(daemon)) as process:
        seen = ""
        while seen.count("--- ") < 2:
            seen += process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(PATIENCE) == 0 and "\x1b" not in seen and "evil.example" in seen
    with subprocess.Popen([SLUICE, "stats", "--watch", "1", "--json"], stdout=subprocess.PIPE, encoding="utf-8", env=environment(daemon)) as process:
        assert [json.loads(process.stdout.readline())["ok"] for _ in range(2)] == [True, True]
        process.stdout.close()
        assert process.wait(PATIENCE) == 0


@slow
def stats_waits_for_a_gateway_that_comes_back(daemon):
    screen = Screen(daemon, "stats", "--watch", "1")
    screen.read("\x1b[J")
    daemon.stop()
    assert "evil.example" in screen.read("no daemon listens there") + screen.read("\x1b[J")
    daemon.start()
    count = len(daemon.requests)
    wait(lambda: len(daemon.requests) > count, "it does not look any more")
    daemon.stop()
    status, text = screen.end()
    assert status == 1 and "\x1b[?1049l" in text and "sluice stats: " in text.rpartition("\x1b[?1049l")[2], text


@test
def stats_refuses_what_it_does_not_know(daemon):
    for words in (("--sort", "name"), ("--limit", "0"), ("--limit", "x"), ("--watch=0",), ("--watch=x",), ("more",), ("--watch", "x"), ("--no-such",)):
        assert "usage: sluice stats" in run(daemon, "stats", *words, status=2), words
    assert daemon.requests == []


# --- explain --last ---

POLICY = "[network web]\nsubnet = 10.201.1.0/24\nallow = api.example:443\nallow = port.example:443\n"


@test
def explain_last_says_what_why_and_what_to_do(daemon):
    text = run(daemon, "explain", "--last", SLUICE_CONFIG=POLICY)
    for part in ("port.example:22/tcp: denied, 2026-11-22T03:40:03.000Z (", "from: network web, app web-1 (10.201.1.5)", "address: 203.0.113.7",
                 "reason: port-not-allowed: the name or address is allowed, but not this port",
                 "rule: allow = port.example:443 (SLUICE_CONFIG:4)", "write under [network web]:\n\n    allow = port.example:22/tcp\n",
                 "that opens: port 22 of that name"):
        assert part in text, (part, text)
    assert daemon.requests == [{"command": "log", "lines": 1000, "denied": True, "follow": False},
                               {"command": "advise", "network": "web", "name": "port.example", "address": "203.0.113.7", "port": 22, "proto": "tcp",
                                "reason": "port-not-allowed"}]


@test
def explain_last_looks_where_it_is_told_to(daemon):
    text = run(daemon, "explain", "--last", "--network", "build")
    assert "audit.example:443/tcp: let pass by audit mode only" in text and "rule: none, the default denies" in text, text
    assert "audit.example" in run(daemon, "explain", "--last", "--app", "build-1")
    assert "remembers nothing that was denied and fits" in run(daemon, "explain", "--last", "--app", "nobody", status=1)
    daemon.lines = LINES[3:]
    assert "remembers nothing that was denied\n" in run(daemon, "explain", "--last", status=1)


@test
def explain_last_of_a_question_and_of_a_virtual_address(daemon):
    daemon.lines.append({"ts": "2026-11-22T03:41:00.000Z", "event": "denied", "network": "web", "src": "10.201.1.5", "app": None, "qname": "asked.example",
                         "qtype": "A", "reason": "name-not-allowed", "rule": "default", "action": "nxdomain", "count": 1})
    text = run(daemon, "explain", "--last")
    assert text.startswith("asked.example A: denied") and "from: network web, 10.201.1.5\n" in text, text
    assert daemon.requests[-1] == {"command": "advise", "network": "web", "name": "asked.example", "address": None, "port": None, "proto": None,
                                   "reason": "name-not-allowed"}
    daemon.lines.append(denied(59, dst="10.201.1.130", real="198.51.100.7"))
    daemon.advice = {**ADVICE, "note": "what else there is to know"}
    assert "\nnote: what else there is to know\n" in run(daemon, "explain", "--last")
    assert daemon.requests[-1]["address"] == "10.201.1.130" and daemon.requests[-1]["name"] == "evil.example"


@test
def explain_last_of_a_name_inside_a_flow(daemon):
    daemon.lines.append(denied(59, name="api.example", sni="front.example", reason="sni-mismatch"))
    text = run(daemon, "explain", "--last")
    for part in ("front.example:443/tcp: denied", "address: 203.0.113.7, which the app knows as api.example\n",
                 "reason: sni-mismatch: inside the flow the app asked for another name"):
        assert part in text, (part, text)
    assert daemon.requests[-1] == {"command": "advise", "network": "web", "name": "front.example", "address": "203.0.113.7", "port": 443, "proto": "tcp",
                                   "reason": "sni-mismatch"}
    daemon.lines.append(denied(59, name="api.example", port=22, sni=None, reason="no-name"))
    text = run(daemon, "explain", "--last")
    assert text.startswith("api.example:22/tcp: denied") and "\naddress: 203.0.113.7\n" in text and "reason: no-name: the flow named no host" in text, text
    assert daemon.requests[-1]["name"] == "api.example"


@test
def explain_last_says_why_there_is_no_advice(daemon):
    daemon.advice = {"ok": False, "error": "no rule lets that pass"}
    assert "to allow it: no rule lets that pass\n" in run(daemon, "explain", "--last")
    daemon.advice = {**ADVICE, "change": "deny = a.example (a.conf:3)"}
    assert "\nand change what denies it: deny = a.example (a.conf:3)\nthat opens" in run(daemon, "explain", "--last")
    daemon.advice = {**daemon.advice, "line": None, "rule": None}
    text = run(daemon, "explain", "--last")
    assert "\nto allow it, change what denies it: deny = a.example (a.conf:3)\nthat opens" in text and "write under" not in text, text


@test
def explain_last_prints_json(daemon):
    answer = json.loads(run(daemon, "explain", "--last", "--json", SLUICE_CONFIG=POLICY))
    assert answer["decision"] == LINES[2] and answer["advice"] == ADVICE and answer["meaning"].startswith("the name or address is allowed")
    assert answer["rule"]["rule"] == "port.example:443" and answer["rule"]["line"] == 4


@test
def explain_refuses_what_does_not_go_together(daemon):
    for words in (("--last", "web"), ("--network", "web", "web", "a.example"), ("--app", "a"), ()):
        assert "usage: sluice explain" in run(daemon, "explain", *words, status=2), words


# --- all commands: help, manual, completion ---

def commands():
    listed = re.findall(r"^  ([a-z]+) ", subprocess.run([SLUICE, "--help"], capture_output=True, encoding="utf-8", check=True).stdout, re.M)
    assert len(listed) >= 11, listed
    return listed


def long_options(command):
    """Of a command's help, without those of others that it shows."""
    text = subprocess.run([SLUICE, command, "--help"], capture_output=True, encoding="utf-8", check=True).stdout
    text = "\n".join(line for line in text.splitlines() if "docker" not in line)
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) | {"--help"}


def read(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as file:
        return file.read()


@test
def every_command_and_option_is_in_the_manual(_daemon):
    manual = read("docs", "sluice.8")
    for command in commands():
        # From its item to the next one's, which is a command's, too.
        item = re.search(rf"^\.It (?:Xo )?Cm {command}\b(.*?)^\.(?:It (?:Xo )?Cm (?!{command}\b)|Pp\nEvery command)", manual, re.M | re.S)
        assert item, f"sluice.8 does not describe {command}"
        assert re.search(rf"^\.Cm {command}$", manual.partition(".Sh DESCRIPTION")[0], re.M), f"sluice.8: {command} is not in the synopsis"
        for option in long_options(command) - {"--help", "--config"}:
            assert f"Fl Fl {option[2:]}" in item.group(1), f"sluice.8: {command} {option} is not described"


def complete(daemon, *words, path=None):
    """What bash offers for the last word."""
    script = ('. "$1"; shift; complete -p sluice >/dev/null || exit 9; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _sluice; '
              'printf "%s\\n" "${COMPREPLY[@]}"')
    done = subprocess.run(["bash", "--norc", "-c", script, "bash", os.path.join(ROOT, "gateway", "completion", "sluice.bash"), path or SLUICE, *words],
                          capture_output=True, encoding="utf-8", env=environment(daemon), check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return set(done.stdout.split())


@test
def bash_completes_commands_options_and_values(daemon):
    offered = complete(daemon, "")
    assert set(commands()) | {"--help", "--version"} <= offered
    assert complete(daemon, "st") == {"stats"}
    for command in commands():
        assert complete(daemon, command, "-") == long_options(command), command
    assert complete(daemon, "stats", "--network", "") == complete(daemon, "log", "-N", "") == {"web", "build"}
    assert complete(daemon, "stats", "--network", "=", "b") == complete(daemon, "explain", "b") == {"build"}
    assert complete(daemon, "stats", "--sort", "=") == {"denied", "bytes", "last", "allowed"}
    assert complete(daemon, "stats", "--limit", "") == complete(daemon, "log", "--app", "") == set()
    folder = os.path.join(ROOT, "gateway", "completion")
    assert complete(daemon, "check", f"{folder}/") == {f"{folder}/sluice.bash", f"{folder}/_sluice"}
    assert complete(daemon, "run", "-c", f"{folder}/s") == complete(daemon, "lint", "--config", "=", f"{folder}/s") == {f"{folder}/sluice.bash"}
    daemon.stop()
    assert complete(daemon, "log", "--network", "") == set()


@test
def zsh_knows_every_command_and_option(_daemon):
    """By its text: zsh is not needed for this."""
    text = read("gateway", "completion", "_sluice")
    shared = dict(re.findall(r"^\t(config|json|help|network|app)=\((.*)\)$", text, re.M))
    for command in commands():
        assert re.search(rf"^\t\t'{command}:", text, re.M), command
        body = re.search(rf"^\t(?:\w+ \| )?{command}(?: \| \w+)?\)(.*?);;", text, re.M | re.S).group(1)
        for name, value in shared.items():
            body = re.sub(rf"\${name}\b", lambda _, value=value: value, body)
        found = set(re.findall(r"--[a-z]+", body))
        assert found == long_options(command), (command, found ^ long_options(command))


def run_test(number):
    """Return: the line about it."""
    function = TESTS[number]
    with tempfile.TemporaryDirectory() as directory:
        daemon = Daemon(directory)
        result = f"ok   {function.__name__}"
        try:
            function(daemon)
        except Exception as problem:  # pylint: disable=broad-exception-caught
            line = problem.__traceback__
            while line.tb_next and line.tb_next.tb_frame.f_code.co_filename == __file__:
                line = line.tb_next
            result = f"FAIL {function.__name__}, line {line.tb_lineno}: {type(problem).__name__}: {str(problem)[-3000:]}"
        with contextlib.suppress(OSError):
            daemon.stop()
        return result


def main():
    # Most of their time they wait.
    with multiprocessing.get_context("fork").Pool(8) as pool:
        results = pool.map(run_test, range(len(TESTS)), 1)
    print("\n".join(results))
    return 1 if any(result.startswith("FAIL") for result in results) else 0


sys.exit(main())
