#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Instructions of the worker per cold query, per cold query that is alone, per cached query, per denied packet and
per allowed flow, compared with the file `budget`.

budget.py HOT_PATH            compare; a row that costs more than MARGIN above the file's number fails
budget.py HOT_PATH --record   write the file anew

hot_path sends a fixed trace through the worker, in a network namespace of its own; callgrind counts what the worker's loop does. The kernel's
work is not counted. Output is TAP. Where no network namespace can be made the rows are skipped; SLUICE_TESTS_MUST_RUN=1 makes that a
failure. With a compiler and libraries other than Debian 12's, whose numbers the file does not have, the trace has to run through and no more.
"""

import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
BUDGET = os.path.join(HERE, "budget")
MARGIN = 0.05
COUNTS = {"cold": 2048, "single": 512, "cached": 2048, "denied": 512, "allowed": 512}  # of the trace; denied: below the burst that the kernel lets through to us
RULES = 100  # of the policy, besides the one that matters
NETWORK = """
set -e
ip link set lo up
ip link add net0 type veth peer name app0
ip link add up0 type veth peer name inet0
ip address add 10.78.1.2/24 dev net0
ip address add 10.78.1.10/32 dev lo
ip address add 45.9.0.2/24 dev up0
ip address add 45.9.0.53/32 dev lo
for link in net0 app0 up0 inet0; do ip link set $link up; done
ip route add default via 45.9.0.1 dev up0
ip neighbour add 10.78.1.20 lladdr 02:00:00:00:00:10 dev net0 nud permanent
sysctl -q net.ipv4.ip_forward=1 net.ipv4.icmp_ratemask=0 net.netfilter.nf_conntrack_acct=1
exec "$@"
"""
HEADER = f"""\
# Instructions of the worker for each, counted by callgrind on Debian 12, x86-64 (budget.py). ./dev budget records them anew;
# ./dev test fails when one is exceeded by more than {MARGIN:.0%}.
"""


def policy(directory):
    rules = "\n".join(f"    n{i}.rules.example:443" for i in range(RULES))
    path = os.path.join(directory, "sluice.conf")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"[upstream]\nserver = 45.9.0.53\n\n[network web]\nsubnet = 10.78.1.0/24\nallow =\n{rules}\n    **.any.example\n")
    return path


def namespace():
    """A command that runs another one in a new network namespace."""
    return ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]


def measure(hot_path, row, directory):
    """Instructions per query or packet."""
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={directory}/callgrind.{row}", "--toggle-collect=measured", "--collect-atstart=no",
               hot_path, policy(directory), row, str(COUNTS[row])]
    environment = {"PATH": os.environ["PATH"], "SLUICE_STATE": f"{directory}/no-volume"}  # and nothing that malloc() heeds
    result = subprocess.run([*namespace(), "sh", "-c", NETWORK, "sh", *command], capture_output=True, text=True, timeout=120, env=environment, check=False)
    collected = re.search(r"Collected *: (\d+)", result.stderr)
    if result.returncode or not collected:
        sys.exit(f"{row}: the trace did not run through\n{result.stdout}{result.stderr}")
    return round(int(collected[1]) / COUNTS[row])


def recorded():
    rows = {}
    with open(BUDGET, encoding="utf-8") as file:
        for line in file:
            if line.strip() and not line.startswith("#"):
                name, instructions = line.split()
                rows[name] = int(instructions)
    return rows


def is_comparable():
    """The file's numbers are those of one compiler and one set of libraries."""
    with open("/etc/os-release", encoding="utf-8") as file:
        return os.uname().machine == "x86_64" and "VERSION_CODENAME=bookworm" in file.read()


def record(rows):
    with open(BUDGET, "w", encoding="utf-8") as file:
        file.write(HEADER)
        for name, instructions in rows.items():
            file.write(f"{name} {instructions}\n")


def compare(rows):
    """Return: how many rows cost too much."""
    budget, failed = recorded() if is_comparable() else {}, 0
    print(f"1..{len(rows)}")
    for number, (name, instructions) in enumerate(rows.items(), 1):
        if name not in budget:
            print(f"ok {number} - {name}: {instructions} instructions, not compared")
            continue
        change = instructions / budget[name] - 1
        failed += change > MARGIN
        print(f"{'not ok' if change > MARGIN else 'ok'} {number} - {name}: {instructions} instructions, {budget[name]} recorded ({change:+.1%})")
        if change < -MARGIN:
            print("# cheaper by more than the margin: ./dev budget records it")
    return failed


def main():
    hot_path, recording = sys.argv[1], sys.argv[2:] == ["--record"]
    if subprocess.run([*namespace(), "true"], stderr=subprocess.DEVNULL, check=False).returncode:
        print("1..0 # SKIP no network namespace can be made")
        return 1 if recording or os.environ.get("SLUICE_TESTS_MUST_RUN") == "1" else 77
    if recording and not is_comparable():
        sys.exit("the file has the numbers of Debian 12 on x86-64")
    with tempfile.TemporaryDirectory() as directory:
        rows = {row: measure(hot_path, row, directory) for row in COUNTS}
    if recording:
        record(rows)
    return 1 if not recording and compare(rows) else 0


if __name__ == "__main__":
    sys.exit(main())
