#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Run pytest, and what has failed once more: one after the other, in labs of their own, when the rest is over.

pytest_again.py PYTEST-ARGUMENT...    with --junitxml=FILE among them; whatever is there as a file is taken for tests

The second try counts, and a line `RERUN NODEID` says that there was one. Failures all over the place are no accident and are not tried again.
"""
import os
import sys
import xml.etree.ElementTree as xml

import pytest

FILES_MAX = 4  # more of them with failures


class Failures:
    """A plugin: the node ids of what failed, in setup and teardown too."""

    def __init__(self):
        self.nodes = []

    def pytest_runtest_logreport(self, report):
        if report.failed and report.nodeid not in self.nodes:
            self.nodes.append(report.nodeid)


def key_of(case):
    return case.get("classname"), case.get("name")


def take_over(first, again):
    """The cases of the file `again` replace those of the file `first` that they repeat."""
    tree = xml.parse(first)
    second = list(xml.parse(again).iter("testcase"))
    keys = {key_of(case) for case in second}
    for suite in tree.iter("testsuite"):
        for case in [case for case in suite.findall("testcase") if key_of(case) in keys]:
            suite.remove(case)
        suite.extend(second)
    tree.write(first, encoding="unicode")


def files_of(nodes):
    return {node.partition("::")[0] for node in nodes}


def main(arguments):
    junit, = (argument.partition("=")[2] for argument in arguments if argument.startswith("--junitxml="))
    failures = Failures()
    status = pytest.main(arguments, plugins=[failures])
    if status != pytest.ExitCode.TESTS_FAILED or not 0 < len(files_of(failures.nodes)) <= FILES_MAX:
        return status
    for node in failures.nodes:
        print(f"RERUN {node}", flush=True)
    again = f"{junit}.again"
    options = [argument for argument in arguments if not os.path.exists(argument.partition("::")[0])]
    alone = ["-n0"] if "-n" in arguments else []
    status = pytest.main([*options, *alone, f"--junitxml={again}", *failures.nodes])
    if status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        take_over(junit, again)
        os.unlink(again)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
