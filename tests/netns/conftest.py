# SPDX-License-Identifier: MIT
"""What the tests here share is in shared.py, which tests/attack uses as well."""

pytest_plugins = ["shared"]
