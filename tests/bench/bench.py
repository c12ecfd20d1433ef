#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""How fast Sluice is, next to what people use in its place: ./dev bench

    bench.py [--quick] [--rounds N] [--json FILE] [--docs] [ROW ...]

Figures go into build/bench.json, from which docs/benchmarks.md and its chart are made. With some rows only, the others stay as
they are there, and nothing is written to docs. --quick: two short rounds, also without docs. --docs: render what is in the file, and measure nothing.
"""

import argparse
import os
import platform
import subprocess
import sys
import time

import render
from benchlab import BenchLab, tool
from contenders import PACKAGES
from figures import load, save
from lab import ROOT, ended_by_signals
from namespaces import Failed
from rows_dns import ROWS as ROWS_DNS
from rows_flow import ROWS as ROWS_FLOW, write_hello
from rows_gateway import ROWS as ROWS_GATEWAY

ROWS = {**ROWS_DNS, **ROWS_FLOW, **ROWS_GATEWAY}
JSON = os.path.join(ROOT, "build", "bench.json")


def say(text):
    print(text, flush=True)


def parse(arguments):
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=" ".join(ROWS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--json", default=JSON)
    parser.add_argument("--docs", action="store_true")
    options = parser.parse_args(arguments)
    wrong = [row for row in options.rows if row not in ROWS]
    if wrong:
        parser.error(f"no such row: {' '.join(wrong)} (there are: {' '.join(ROWS)})")
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.seconds = 0.4 if options.quick else 1.0    # of each measurement
    options.firsts = 10000 if options.quick else 100000
    options.requests = 500 if options.quick else 2000  # first requests of a round
    options.say = say
    options.load = os.getloadavg()[0]
    return options


# --- about the run ---

def package_version(package):
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 and done.stdout else "not installed"


def cpu_model():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        return next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())


def about(options):
    git = ["git", "-c", f"safe.directory={ROOT}", "-C", ROOT, "rev-parse", "--short=10", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    versions = {"sluice": commit or "not known", "Linux": platform.release().split("-")[0], "nftables": package_version("nftables")}
    versions |= {name: package_version(package) for name, (package, _) in PACKAGES.items()}
    return {"date": time.strftime("%Y-%m-%d", time.gmtime()), "cpu": cpu_model(), "cpus": os.cpu_count(), "rounds": options.rounds,
            "seconds": options.seconds, "quick": options.quick, "load": options.load, "versions": versions}


# --- running ---

def measure(options):
    """Return: the rows that were measured, and those that could not be."""
    done, failed = [], []
    with ended_by_signals(), BenchLab() as lab:
        options.hello = write_hello(lab)
        for name in options.rows or ROWS:
            start = time.monotonic()
            try:
                row = ROWS[name](lab, options)
            except (Failed, AssertionError) as error:
                say(f"{name}: failed: {error}")
                failed.append(name)
                continue
            done.append(row)
            say(f"{name}: {time.monotonic() - start:.0f} s")
            say(render.row_text(row))
    return done, failed


def main():
    options = parse(sys.argv[1:])
    if options.docs:
        render.write_docs(*load(options.json))
        return 0
    if os.cpu_count() < 2 or not os.access(tool("dnsload"), os.X_OK):
        say("two CPUs and the load generators (ninja -C build-bench bench-tools) are needed")
        return 1
    if options.load > render.QUIET:
        say(f"the machine is not quiet (load average {options.load:.1f}): ratios will be rough, absolute numbers too low")
    try:
        done, failed = measure(options)
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    rows = {row.key: row for row in done}
    kept = {}
    if options.rows and os.path.exists(options.json):
        _, kept = load(options.json)
    merged = {**kept, **rows}
    save(options.json, about(options), [merged[name] for name in ROWS if name in merged])
    say(render.goals_text(rows))
    if failed:
        say(f"could not be measured: {' '.join(failed)}")
    elif not options.quick and not options.rows:
        render.write_docs(*load(options.json))
        say("written: docs/benchmarks.md, docs/images/benchmarks.svg")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
