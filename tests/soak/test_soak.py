# SPDX-License-Identifier: MIT
"""The soak as a test. SLUICE_SOAK_SECONDS says how long, SLUICE_SOAK_SEED repeats a run, SLUICE_SOAK_FORM is soak.py's --form."""

import os

from soak import Soak


def test_no_false_drop_and_no_wrong_pass(say):
    seed = os.environ.get("SLUICE_SOAK_SEED")
    soak = Soak(float(os.environ.get("SLUICE_SOAK_SECONDS") or 60), int(seed) if seed else None, say=say,
                form=os.environ.get("SLUICE_SOAK_FORM") or "mixed")
    assert soak.run(), "false drops, wrong passes or problems: see above"
