#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""analyzer.py BUILD - gcc's -fanalyzer over the program's own files, as BUILD/compile_commands.json has them. Fails when it says anything.

Left out: -Wanalyzer-malloc-leak. gcc 12 loses track of memory that goes into a structure, and calls each such place a leak; the tests under
AddressSanitizer find the real ones.
"""

import concurrent.futures
import json
import os
import shlex
import subprocess
import sys

FLAGS = ["-fanalyzer", "-Wno-analyzer-malloc-leak", "-Werror", "-include", os.path.abspath("tests/lint/lists.h"), "-S", "-o", "/dev/null"]
WITHOUT = {"-c", "-MD"}  # of the build's own command; with their arguments: -o, -MF, -MQ
WITH_ARGUMENT = {"-o", "-MF", "-MQ"}


def command_of(entry):
    words, out = iter(shlex.split(entry["command"])), []
    for word in words:
        if word in WITH_ARGUMENT:
            next(words)
        elif word not in WITHOUT and not word.startswith("-Werror"):
            out.append(word)
    return out + FLAGS


def analyze(entry):
    return subprocess.run(command_of(entry), cwd=entry["directory"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def main():
    with open(os.path.join(sys.argv[1], "compile_commands.json"), encoding="utf-8") as file:
        entries = [entry for entry in json.load(file) if "tests/" not in entry["file"]]
    if not entries:
        sys.exit(f"analyzer: {sys.argv[1]} has no file to look at")
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(analyze, entries))
    failed = [result for result in results if result.returncode != 0]
    for result in failed:
        print(result.stdout)
    sys.exit(1 if failed else 0)


main()
