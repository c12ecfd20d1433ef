# SPDX-License-Identifier: MIT
"""The attacks use the lab of tests/netns, its fixtures, and some of their own."""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "netns")]

pytest_plugins = ["shared", "worlds"]
