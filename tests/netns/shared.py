# SPDX-License-Identifier: MIT
"""Fixtures of all suites that use the lab. One lab with one gateway serves all tests that leave it as they found it; tests that break things take `own_lab`."""

import os
import shutil

import pytest

from lab import POLICY, Lab, ended_by_signals
from namespaces import SLOW
from sites import Ssh, Web, browser_missing


def pytest_configure(config):
    config.addinivalue_line("markers", "browser: needs Chromium and Caddy")
    config.addinivalue_line("markers", "confined: a build with sanitizers is not")
    config.addinivalue_line("markers", "preloaded: a build with sanitizers cannot have a library before theirs")
    config.addinivalue_line("markers", "slow: takes more than half a minute")


def pytest_collection_modifyitems(items):
    if os.getuid() != 0:
        for item in items:
            item.add_marker(pytest.mark.skip(reason="network namespaces need root"))
    missing = browser_missing()
    if missing and os.environ.get("SLUICE_TESTS_MUST_RUN", "") in ("", "0"):
        for item in items:
            if item.get_closest_marker("browser"):
                item.add_marker(pytest.mark.skip(reason=missing))


@pytest.fixture(scope="session", autouse=True)
def signals():
    with ended_by_signals():
        yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """A failed test shows what the gateway logged meanwhile, and keeps the log where SLUICE_LOGS says."""
    outcome = yield
    report = outcome.get_result()
    if not report.failed:
        return
    for name in ("lab", "own_lab"):
        lab = item.funcargs.get(name)
        if isinstance(lab, Lab) and getattr(lab, "gateway", None):
            report.sections.append(("gateway log", lab.gateway.log.tail(60)))
            report.sections.append(("servers log", lab.servers_log()[-2000:]))
            if os.environ.get("SLUICE_LOGS"):
                shutil.copy(lab.gateway.log_path, os.path.join(os.environ["SLUICE_LOGS"], item.name.replace("/", "_")[:120] + ".log"))


@pytest.fixture(scope="session")
def shared_lab():
    with Lab() as lab:
        yield lab


@pytest.fixture
def lab(shared_lab):  # pylint: disable=redefined-outer-name
    """The shared lab, with the log read from here on and name servers that behave."""
    gateway = shared_lab.gateway
    if gateway.process is None or gateway.process.poll() is not None:
        pytest.fail(f"the gateway is gone:\n{gateway.log.tail()}")
    gateway.log.mark()
    yield shared_lab
    shared_lab.names.reset()


@pytest.fixture
def policy(lab):  # pylint: disable=redefined-outer-name
    """A function that puts another policy into force; the usual one comes back after the test."""
    def set_policy(text):
        lab.gateway.set_policy(text)
        lab.gateway.log.mark()
    yield set_policy
    lab.gateway.set_policy(POLICY)


@pytest.fixture
def own_lab():
    """A lab for this test alone."""
    with Lab() as lab:  # pylint: disable=redefined-outer-name
        lab.gateway.log.mark()
        yield lab


@pytest.fixture
def bare_lab():
    """A lab with nothing in the gateway's place."""
    with Lab(gateway=False) as lab:  # pylint: disable=redefined-outer-name
        yield lab


@pytest.fixture
def log(lab):  # pylint: disable=redefined-outer-name
    return lab.gateway.log


@pytest.fixture
def names(lab):  # pylint: disable=redefined-outer-name
    return lab.names


@pytest.fixture
def web1(lab):  # pylint: disable=redefined-outer-name
    return lab.web1


@pytest.fixture
def web2(lab):  # pylint: disable=redefined-outer-name
    return lab.web2


@pytest.fixture
def build1(lab):  # pylint: disable=redefined-outer-name
    return lab.build1


@pytest.fixture
def lan1(lab):  # pylint: disable=redefined-outer-name
    return lab.lan1


@pytest.fixture(scope="session")
def web(shared_lab):  # pylint: disable=redefined-outer-name
    """The real web server."""
    return Web(shared_lab)


@pytest.fixture(scope="session")
def ssh(shared_lab):  # pylint: disable=redefined-outer-name
    """The real SSH server."""
    return Ssh(shared_lab)


@pytest.fixture
def slow_machine():
    """True on an emulated machine, where only orders of magnitude can be said."""
    return SLOW
