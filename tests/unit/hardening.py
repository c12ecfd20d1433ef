# SPDX-License-Identifier: MIT
"""The binary has what compiler and linker offer against memory errors, and nothing of the tests. Usage: hardening.py SLUICE SLUICE_ATTACKED

What a build was asked for does not count: everything is read from the files, but for what leaves no mark in every file, which only compile_commands.json has.
"""

import glob
import json
import os
import re
import subprocess
import sys
import unittest

BINARY, ATTACKED = sys.argv[1:3]
BUILD = os.path.dirname(os.path.dirname(BINARY))
MACHINE = os.uname().machine
CONTROL_FLOW = {"x86_64": "-fcf-protection=full", "aarch64": "-mbranch-protection=standard"}
MARKED = {"x86_64": "IBT, SHSTK", "aarch64": "BTI, PAC"}
MARKS = (b"ATTACK_POLICY_FILE", b"read-supervisor-memory", b"attack %s")


def readelf(*options):
    return subprocess.run(["readelf", "--wide", *options], capture_output=True, text=True, check=True).stdout


def contents(path):
    with open(path, "rb") as file:
        return file.read()


class Hardening(unittest.TestCase):
    def test_position_independent(self):
        self.assertRegex(readelf("--file-header", BINARY), r"Type:\s+DYN")
        self.assertRegex(readelf("--dynamic", BINARY), r"FLAGS_1.*\bPIE\b")

    def test_relocations_are_read_only_and_bound_at_the_start(self):
        self.assertIn("GNU_RELRO", readelf("--program-headers", BINARY))
        self.assertRegex(readelf("--dynamic", BINARY), r"\bBIND_NOW\b")

    def test_nothing_is_writable_and_executable(self):
        headers = readelf("--program-headers", BINARY)
        self.assertEqual(re.search(r"GNU_STACK.* (R..?) +0x", headers).group(1).strip(), "RW")
        self.assertEqual([line for line in headers.splitlines() if "LOAD" in line and "RWE" in line], [])
        self.assertNotIn("TEXTREL", readelf("--dynamic", BINARY))

    def test_stack_protector_and_checked_functions(self):
        symbols = readelf("--dyn-syms", BINARY)
        self.assertIn("__stack_chk_fail", symbols)
        for function in ("__memcpy_chk", "__snprintf_chk", "__read_chk"):
            self.assertIn(function, symbols)

    def test_every_file_is_compiled_with(self):
        with open(os.path.join(BUILD, "compile_commands.json"), encoding="utf-8") as file:
            commands = json.load(file)
        own = [entry for entry in commands if re.match(r"(gateway|common|resolver)/", entry["output"])]
        self.assertGreater(len(own), 100)
        for option in ("-D_FORTIFY_SOURCE=3", "-fstack-protector-strong", "-fstack-clash-protection", CONTROL_FLOW.get(MACHINE, "-f")):
            self.assertEqual([entry["file"] for entry in own if option not in entry["command"]], [], option)

    def test_control_flow_is_marked(self):
        """Every object is. On x86 Debian's own start files are not, so the whole binary does not ask the kernel for it."""
        if MACHINE not in MARKED:
            self.skipTest("x86 and arm64")
        objects = [path for part in ("gateway", "common", "resolver") for path in glob.glob(os.path.join(BUILD, part, "*.p", "*.o"))]
        self.assertGreater(len(objects), 100)
        self.assertEqual([path for path in objects if MARKED[MACHINE] not in readelf("--notes", path)], [])

    def test_no_code_of_the_tests(self):
        for mark in MARKS:
            self.assertIn(mark, contents(ATTACKED), "the test looks for the right thing")
            self.assertNotIn(mark, contents(BINARY))


unittest.main(argv=sys.argv[:1])
