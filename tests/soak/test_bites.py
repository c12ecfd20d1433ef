# SPDX-License-Identifier: MIT
"""Programs that are broken on purpose must make the soak fail, and in the way that mutants/NAME.patch expects."""

import glob
import os
import re
import subprocess

import pytest

from lab import ROOT
from soak import FORMS, Soak

HERE = os.path.dirname(os.path.abspath(__file__))
MUTANTS = sorted(os.path.basename(path).removesuffix(".patch") for path in glob.glob(os.path.join(HERE, "mutants", "*.patch")))
SECONDS = 120  # it ends with the first fault
SOURCES = ("meson.build", "meson.options", "meson_options.txt", "common", "resolver", "gateway")


def run(argv, **options):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout}"


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """A copy of the program's sources, configured."""
    tree = str(tmp_path_factory.mktemp("mutants"))
    run(["cp", "-a", *SOURCES, tree], cwd=ROOT)
    run(["meson", "setup", "build", "-Dtests=false"], cwd=tree)
    return tree


def head(patch):
    """Return: the kind of fault that is expected, and the form in which there is one."""
    with open(patch, encoding="utf-8") as file:
        text = file.read()
    form = re.search(r"^form: (\w+)$", text, re.MULTILINE)
    return re.search(r"^expect: (false drop|wrong pass)$", text, re.MULTILINE).group(1), form.group(1) if form else FORMS[0]


@pytest.mark.parametrize("mutant", MUTANTS)
def test_soak_finds(mutant, tree, say, monkeypatch):  # pylint: disable=redefined-outer-name
    patch = os.path.join(HERE, "mutants", mutant + ".patch")
    expected, form = head(patch)
    run(["patch", "-p1", "--no-backup-if-mismatch", "-i", patch], cwd=tree)
    try:
        run(["ninja", "-C", "build", "gateway/sluice"], cwd=tree)
        monkeypatch.setenv("SLUICE_BINARY", os.path.join(tree, "build", "gateway", "sluice"))
        said = []
        soak = Soak(SECONDS, say=said.append, until=expected, form=form)
        well = soak.run()
        report = "\n".join(said)
        assert not soak.problems, report
        assert not well and soak.model.counts[expected] > 0, f"no {expected} although the program is broken ({mutant}):\n{report}"
        say(f"{mutant}: {soak.model.faults[0].kind} found: {soak.model.faults[0].flow.text()}")
    finally:
        run(["patch", "-p1", "-R", "--no-backup-if-mismatch", "-i", patch], cwd=tree)
