# SPDX-License-Identifier: MIT
"""The tests that docs/security.md and docs/failures.md name exist, and each row of a table of promises or faults names one. Usage: documents.py SOURCE_ROOT

A file that is named stands for all its tests. `test_some_...` stands for all tests that begin so; there has to be one.
"""

import glob
import os
import re
import sys
import unittest

ROOT = sys.argv[1]
PAGES = ("docs/security.md", "docs/failures.md")
HELD = ("held by", "tests", "test")  # the head of the column that names them


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def known():
    """Files, as a page may name them, and functions: of pytest, cmocka and unittest."""
    files, functions = set(), set()
    for path in glob.glob(os.path.join(ROOT, "tests/*/*")):
        files |= {os.path.relpath(path, ROOT), os.path.basename(path)}
        if path.endswith(".py"):
            functions |= set(re.findall(r"^ *def (test_\w+)\(", read(path), re.MULTILINE))
        elif path.endswith(".c"):
            functions |= set(re.findall(r"cmocka_unit_test\w*\((\w+)", read(path)))
    return files, functions


FILES, FUNCTIONS = known()


def words(text):
    """Tests and files with tests that a text names."""
    return [word for word in re.findall(r"`([^`]+)`", text) if is_named(word)]


def is_named(word):
    return re.fullmatch(r"(tests/\w+/)?test_[\w*]+(\.py|\.c|\.\.\.)?|tests/[\w/]+(\.\w+)?", word) is not None or word in FUNCTIONS


def exists(word):
    if word.endswith("..."):
        return any(name.startswith(word[:-3]) for name in FUNCTIONS)
    if "*" in word:
        return bool(glob.glob(os.path.join(ROOT, word)) or glob.glob(os.path.join(ROOT, "tests/*", word)))
    return word in FILES or word in FUNCTIONS or os.path.exists(os.path.join(ROOT, word))


def tables(text):
    """Those that have a column for tests: lists of (first cell, that column)."""
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.splitlines()]
        columns = [i for i, head in enumerate(rows[0]) if head in HELD]
        if columns:
            yield [(row[0], row[columns[-1]]) for row in rows[2:]]


class Documents(unittest.TestCase):
    def test_what_is_named_exists(self):
        for page in PAGES:
            named = words(read(os.path.join(ROOT, page)))
            self.assertGreater(len(named), 20, page)
            self.assertEqual([word for word in named if not exists(word)], [], page)

    def test_every_promise_and_fault_has_a_test(self):
        for page in PAGES:
            found = list(tables(read(os.path.join(ROOT, page))))
            self.assertGreater(len(found), 1, page)
            bare = [first for table in found for first, held in table if not any(exists(word) for word in words(held))]
            self.assertEqual(bare, [], page)

    def test_the_check_finds_what_is_missing(self):
        self.assertFalse(exists("test_of_nothing"))
        self.assertFalse(exists("test_of_nothing..."))
        self.assertFalse(exists("test_nothing.py"))
        self.assertEqual(words("`nft` `test_of_nothing` `tests/attack`"), ["test_of_nothing", "tests/attack"])


unittest.main(argv=sys.argv[:1])
