#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Count test cases for ./dev: prints "PASSED FAILED SKIPPED".

count.py meson TESTLOG.json   each TAP line of a test program is a case; a program without any is one case itself
count.py junit RESULTS.xml    each testcase is a case
"""
import json
import re
import sys
import xml.etree.ElementTree as xml


def count_program(entry):
    """One test program of meson's log, cmocka's TAP lines on its stdout."""
    lines = entry.get("stdout", "").splitlines()
    skipped = sum(1 for line in lines if re.match(r"ok\b.*# SKIP", line, re.I))
    passed = sum(1 for line in lines if re.match(r"ok\b", line)) - skipped
    failed = sum(1 for line in lines if re.match(r"not ok\b", line))
    if entry["result"] == "SKIP":
        return (0, 0, 1)
    if entry["result"] == "OK":
        return (passed or (0 if skipped else 1), failed, skipped)
    return (passed, failed or 1, skipped)  # a crash leaves no "not ok"


def count_meson(path):
    with open(path, encoding="utf-8") as log:
        return [count_program(json.loads(line)) for line in log if line.strip()]


def count_case(case):
    if case.find("failure") is not None or case.find("error") is not None:
        return (0, 1, 0)
    return (0, 0, 1) if case.find("skipped") is not None else (1, 0, 0)


def count_junit(path):
    return [count_case(case) for case in xml.parse(path).iter("testcase")]


def main():
    counts = {"meson": count_meson, "junit": count_junit}[sys.argv[1]](sys.argv[2])
    print(*(sum(column) for column in zip(*counts)) if counts else (0, 0, 0))


if __name__ == "__main__":
    main()
