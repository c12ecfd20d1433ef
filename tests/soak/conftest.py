# SPDX-License-Identifier: MIT
"""The soak uses the lab of tests/netns."""

import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "netns")]

from lab import ended_by_signals  # pylint: disable=wrong-import-position


@pytest.fixture(scope="session", autouse=True)
def signals():
    with ended_by_signals():
        yield


@pytest.fixture
def say(capfd):
    """Print at once, also when all goes well: the summary is what the run is for."""
    def print_now(text):
        with capfd.disabled():
            print(text, flush=True)
    return print_now
