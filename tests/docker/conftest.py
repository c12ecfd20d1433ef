# SPDX-License-Identifier: MIT
"""One engine and one Internet serve all tests of a run; every test starts the projects it needs."""

import os
import signal
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from engine import ONLY, VERSION, Engine, Project, builds_as_another  # pylint: disable=wrong-import-position
from world import World  # pylint: disable=wrong-import-position

LOG_LINES = 60  # of a failed test's containers


def pytest_configure(config):
    config.addinivalue_line("markers", "modern: is about something that engines before 27 do not have")
    config.addinivalue_line("markers", "vlan: runs on another kernel, see tests/kernel/run; and nothing else does there")
    config.addinivalue_line("markers", "builder: builds the image; run once for each kind of builder")
    config.addinivalue_line("markers", "matrix: is about something that engines do differently; run on each of them")


def is_for_this_engine(item):
    old = tuple(int(part) for part in VERSION.split(".")) < (27,)
    marks = {mark.name for mark in item.iter_markers()}
    if "modern" in marks and old or "vlan" in marks and ONLY != "vlan":
        return False
    if ONLY == "matrix" and "builder" in marks:
        return not builds_as_another()
    return not ONLY or ONLY in marks


def pytest_collection_modifyitems(config, items):
    """Tests that do not apply to this engine are left out, not skipped: a skipped test is one that should have run."""
    left_out = [item for item in items if not is_for_this_engine(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport():
    """A failed test shows what the projects' containers said."""
    report = (yield).get_result()
    if report.failed:
        for one in Project.running:
            report.sections.append((f"containers of {one.name}", "\n".join(one.save_logs().splitlines()[-LOG_LINES:])))


@pytest.fixture(scope="session", autouse=True)
def signals():
    """SIGTERM ends the run as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def world():
    with World(plain=ONLY == "vlan") as world:  # pylint: disable=redefined-outer-name
        yield world


@pytest.fixture(scope="session")
def bare_engine(world):  # pylint: disable=redefined-outer-name,unused-argument
    """An engine with the images that tests need, but not yet ours."""
    engine = Engine()  # pylint: disable=redefined-outer-name
    try:
        engine.start()
        engine.remove_everything()
        engine.load_images()
        yield engine
        if ONLY != "vlan":  # there the machine is thrown away
            engine.remove_everything()
    finally:
        if ONLY != "vlan":
            engine.stop()


@pytest.fixture(scope="session")
def engine(bare_engine):  # pylint: disable=redefined-outer-name
    """An engine with our image."""
    bare_engine.take_image()
    return bare_engine


@pytest.fixture(scope="session")
def modern(bare_engine):  # pylint: disable=redefined-outer-name
    """An engine from 26 on, with Compose v2."""
    return bare_engine.modern


@pytest.fixture
def project(engine):  # pylint: disable=redefined-outer-name
    """A function that makes a project of a recipe; it is removed after the test."""
    made = []

    def make(recipe, name=None, **environment):
        one = Project(engine, recipe, name, environment)
        made.append(one)
        return one.__enter__()  # pylint: disable=unnecessary-dunder-call

    yield make
    for one in reversed(made):
        one.__exit__()


@pytest.fixture
def parents():
    """Two interfaces that lead nowhere, as compose/macvlan/README.md describes for kernels without 8021q."""
    subprocess.run(["ip", "netns", "add", "nowhere"], check=True)
    for name in ("web", "build"):
        subprocess.run(["ip", "link", "add", f"sluice-{name}", "type", "veth", "peer", "name", f"{name}-end", "netns", "nowhere"], check=True)
        subprocess.run(["ip", "link", "set", f"sluice-{name}", "up"], check=True)
        subprocess.run(["ip", "-n", "nowhere", "link", "set", f"{name}-end", "up"], check=True)
    yield {"WEB_PARENT": "sluice-web", "BUILD_PARENT": "sluice-build"}
    subprocess.run(["ip", "netns", "delete", "nowhere"], check=True)
    for name in ("web", "build"):
        subprocess.run(["ip", "link", "delete", f"sluice-{name}"], check=False, stderr=subprocess.DEVNULL)
