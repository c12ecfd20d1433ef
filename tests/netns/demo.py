#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A minute with Sluice: two networks, two policies, the same attempts from both, and what the log says about it.

    demo.py            show it and clean up; exit status 1 when something did not come out as it should
    demo.py --shell    then stay in a shell inside an app of network web; leaving it cleans up
"""

import argparse
import os
import shutil
import sys
import time

from app import NoAnswer, rcode_of
from gateway import NotHealthy, parse_line
from lab import SITE4, UPSTREAM, Lab, ended_by_signals
from namespaces import Failed
from packets import Sniffer
from sites import Ssh, Web

WEBSITE, CODE, CLOCK, EVIL = "www.shop.example", "git.code.example", "time.clock.example", "c2-for-all-my-secrets.evil.example"
DIRECT = "45.12.1.66"

POLICY = UPSTREAM + """
[network web]
subnet = 10.201.1.0/24
subnet = fdc9:1::/64
allow  = *.shop.example:443 time.clock.example:123/udp

[network build]
subnet = 10.201.2.0/24
subnet = fdc9:2::/64
allow  = git.code.example:22

[network lan]
subnet = 10.201.3.0/24
mode   = audit
"""

GREEN, RED, DIM, BOLD, PLAIN = ("\033[32m", "\033[31m", "\033[2m", "\033[1m", "\033[0m") if sys.stdout.isatty() else ("",) * 5
WIDTH = 34


class Attempt:
    """What came out of one attempt: reached or not, in which words, after how long."""

    def __init__(self, call, app, expected):
        start = time.monotonic()
        self.reached, self.words = call(app)
        self.seconds = time.monotonic() - start
        self.as_expected = self.reached == expected

    def text(self):
        sign = f"{GREEN}✓{PLAIN}" if self.reached else f"{RED}✗{PLAIN}"
        words = f"{self.words}, {duration(self.seconds)}"
        padding = " " * max(1, WIDTH - len(words))
        return f"{sign} {words}{padding}" + ("" if self.as_expected else f"{RED}(not as it should be){PLAIN} ")


def duration(seconds):
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"


# --- the attempts: each returns (reached, words) ---

def ask(name):
    def attempt(app):
        try:
            answer = app.ask(name)
        except NoAnswer:
            return False, "no answer"
        if not answer.answer:
            return False, rcode_of(answer)
        return True, answer.answer[0][0].to_text()
    return attempt


def fetch(web):
    def attempt(app):
        status, body = web.fetch(app, f"https://{WEBSITE}/")
        return status == 0, body.replace("proto=", "") if status == 0 else {6: "no such host", 7: "refused"}.get(status, f"curl: {status}")
    return attempt


def browse(web):
    def attempt(app):
        page = web.browse(app, f"https://{WEBSITE}/")
        if "proto=HTTP/3.0" in page:
            return True, "page over HTTP/3.0"
        return False, "page without HTTP/3" if "proto=" in page else "cannot be reached"
    return attempt


def log_in(ssh):
    def attempt(app):
        done = ssh.run(app, CODE, "echo welcome")
        return done.returncode == 0, done.stdout.strip() if done.returncode == 0 else "no such host"
    return attempt


def clock(app):
    addresses = app.resolve(CLOCK)
    if not addresses:
        return False, "no such host"
    result = app.udp_result(addresses[0], 123)
    return result == "open", "echoed" if result == "open" else result


def direct_tcp(app):
    result = app.tcp_result(DIRECT)
    return result == "open", result


def direct_udp(app):
    result = app.udp_result(DIRECT)
    return result == "open", result


# --- the show ---

def show_policy():
    print(f"{BOLD}The policy{PLAIN}")
    networks = POLICY[POLICY.index("[network web]"):POLICY.index("[network lan]")]
    print("    " + networks.rstrip().replace("\n", "\n    ").replace("    \n", "\n") + "\n")


def rows(web, ssh):
    """(what, attempt, expected from web, expected from build)"""
    yield f"DNS     {WEBSITE}", ask(WEBSITE), True, False
    yield f"HTTPS   {WEBSITE}", fetch(web), True, False
    if shutil.which("chromium"):
        yield f"HTTP/3  {WEBSITE}", browse(web), True, False
    yield f"UDP     {CLOCK}:123", clock, True, False
    yield f"SSH     {CODE}", log_in(ssh), False, True
    yield f"DNS     {EVIL[:14]}...evil.example", ask(EVIL), False, False
    yield f"TCP     {DIRECT}:443, by its address", direct_tcp, False, False
    yield f"UDP     {DIRECT}:443, by its address", direct_udp, False, False


def show_attempts(lab, web, ssh):
    """Return: the number of attempts that did not come out as they should."""
    wrong = 0
    print(f"{BOLD}{'The attempts':40} {'from network web':{WIDTH + 2}} from network build{PLAIN}")
    for what, attempt, from_web, from_build in rows(web, ssh):
        results = [Attempt(attempt, lab.web1, from_web), Attempt(attempt, lab.build1, from_build)]
        print(f"{what:40} {results[0].text()} {results[1].text()}", flush=True)
        wrong += sum(not result.as_expected for result in results)
    return wrong


def show_exfiltration(lab, before, uplink):
    leaked = [query for query in lab.names.queries(before) if b"evil" in query["wire"]] + uplink.matching(contains=b"secrets")
    print(f"\nQuestions for {EVIL} that left the gateway: {BOLD}{len(leaked)}{PLAIN}")
    return len(leaked)


def tcp_to(address, seconds=5):
    def attempt(app):
        result = app.tcp_result(address, seconds=seconds)
        return result == "open", result
    return attempt


def show_crash(lab):
    """Return: the number of surprises."""
    address = lab.web1.resolve(WEBSITE)[0]
    lab.gateway.kill_worker(hold=True)
    allowed = Attempt(tcp_to(address), lab.web1, True)
    denied = Attempt(tcp_to("45.12.1.67", seconds=0.25), lab.web1, False)
    lab.gateway.release()
    start = time.monotonic()
    lab.gateway.wait_healthy()
    back = duration(time.monotonic() - start)
    again = Attempt(tcp_to("45.12.1.68"), lab.web1, False)
    print(f"\n{BOLD}kill -9 of the gateway's worker{PLAIN}")
    print(f"{'no worker: TCP to ' + WEBSITE:40} {allowed.text()}\n{'no worker: TCP to a denied address':40} {denied.text()}")
    print(f"{'worker back after ' + back + ': denied address':40} {again.text()}")
    return sum(not attempt.as_expected for attempt in (allowed, denied, again))


def show_log(lab, until):
    """The lines of the denials above, the first of each kind. Return: 1 for each that is missing."""
    print(f"\n{BOLD}What the log says{PLAIN}")
    lines = [line for line in until.splitlines() if " event=denied " in line]
    shown, others = {}, set()
    for line in lines:
        fields = parse_line(line)
        target = fields.get("qname", fields.get("dst"))
        if target in (WEBSITE, CODE, CLOCK, EVIL, DIRECT):
            shown.setdefault((fields["network"], target, fields.get("proto")), line)
        elif "qname" in fields:
            others.add(target)
    for line in shown.values():
        print("    " + line.replace("event=denied", f"{RED}event=denied{PLAIN}"))
    if others:
        print(f"    and, what a browser asks for unbidden: {' '.join(sorted(others)[:5])}")
    missing = [key for key in (("web", EVIL, None), ("build", EVIL, None), ("web", DIRECT, "tcp"), ("build", DIRECT, "udp"), ("build", WEBSITE, None),
                               ("web", CODE, None)) if key not in shown]
    if missing:
        print(f"{RED}not in the log: {missing}{PLAIN}\n{lab.gateway.log.tail(10)}")
    return len(missing)


def show_suggestion(lab, web, ssh):
    """Network lan has no rules and is in audit mode: what its app does passes, and becomes rules. Return: the number of surprises."""
    wrong = 0
    print(f"\n{BOLD}From nothing to a policy: network lan is in audit mode{PLAIN}")
    for what, attempt in ((f"HTTPS   {WEBSITE}", fetch(web)), (f"SSH     {CODE}", log_in(ssh)), (f"UDP     {CLOCK}:123", clock)):
        result = Attempt(attempt, lab.lan1, True)
        print(f"{what:40} {result.text()}")
        wrong += not result.as_expected
    lab.gateway.log.wait(event="audit", network="lan", proto="udp", name=CLOCK)
    lab.gateway.log.settle()
    suggested = lab.gateway.sluice("suggest", "lan").stdout
    print(f"{DIM}sluice suggest lan{PLAIN}\n    " + suggested.rstrip().replace("\n", "\n    "))
    missing = [rule for rule in (f"{WEBSITE}:443/tcp", f"{CODE}:22/tcp", f"{CLOCK}:123/udp") if rule not in suggested]
    if missing:
        print(f"{RED}not suggested: {missing}{PLAIN}")
    return wrong + len(missing)


def show_stats(lab):
    """Return: the number of surprises."""
    done = lab.gateway.sluice("stats", "--limit", "5")
    print(f"\n{BOLD}Who did what{PLAIN}\n{DIM}sluice stats --limit 5{PLAIN}\n    " + done.stdout.rstrip().replace("\n", "\n    "))
    return int(done.returncode != 0 or WEBSITE not in done.stdout)


def shell(lab):
    print(f"\nA shell in an app of network web. {WEBSITE} and {CLOCK}:123/udp are allowed; try curl -k, dig, ssh, nc.")
    print(f"The gateway's log: {lab.gateway.log_path}\nIts commands: ip netns exec {lab.gw.name} env SLUICE_CONTROL={lab.gateway.control} "
          f"{lab.gateway.binary} log -f\nLeave with exit or Ctrl-D.\n", flush=True)
    pid = os.spawnvp(os.P_NOWAIT, "ip", ["ip", "netns", "exec", lab.web1.name, os.environ.get("SHELL", "/bin/sh")])
    os.waitpid(pid, 0)


def show(lab):
    """Return: the number of things that did not come out as they should."""
    lab.names.add(CODE, A=SITE4)
    lab.names.add(CLOCK, A="45.12.1.123")
    lab.names.add(EVIL, A=DIRECT)
    web, ssh = Web(lab, (WEBSITE,)), Ssh(lab)
    lab.gateway.log.mark()
    before = lab.names.count()
    with Sniffer(lab.inet, "up0") as uplink:
        wrong = show_attempts(lab, web, ssh)
        wrong += show_exfiltration(lab, before, uplink)
    lab.gateway.log.wait(event="denied", dst=DIRECT, network="build", proto="udp")
    lab.gateway.log.settle()
    until = lab.gateway.log.since_mark()
    wrong += show_crash(lab)
    wrong += show_log(lab, until)
    wrong += show_suggestion(lab, web, ssh)
    wrong += show_stats(lab)
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shell", action="store_true", help="stay in a shell inside an app of network web")
    options = parser.parse_args()
    if os.getuid() != 0:
        sys.exit("demo.py: network namespaces need root")
    start = time.monotonic()
    with ended_by_signals():
        show_policy()
        try:
            with Lab(POLICY) as lab:
                wrong = show(lab)
                if options.shell:
                    shell(lab)
        except KeyboardInterrupt:
            print("\ninterrupted; everything was removed")
            return 130
        except (Failed, NotHealthy) as error:
            sys.exit(f"demo.py: {error}")
    print(f"\n{duration(time.monotonic() - start)}; everything was removed again." if not wrong else
          f"\n{RED}{wrong} of these did not come out as they should.{PLAIN}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
