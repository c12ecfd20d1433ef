# SPDX-License-Identifier: MIT
"""Fixtures of the attacks with packets."""

import pytest

from attacker import FORMS, honest, policy_text
from lab import Lab
from packets import no_resets


@pytest.fixture(scope="session", params=FORMS)
def formed_lab(request):
    """Its network `web` has real addresses, or virtual ones. The kernel of web1 does not answer what it has not asked for."""
    form = request.param
    with Lab(policy=policy_text(form), internal=["web"] if form == "virtual" else []) as lab:
        lab.form = form
        no_resets(lab.web1)
        honest(lab, lab.web1)
        yield lab


@pytest.fixture
def world(formed_lab):  # pylint: disable=redefined-outer-name
    formed_lab.gateway.log.mark()
    yield formed_lab
    formed_lab.names.reset()
    garbage = [line for line in formed_lab.gateway.log.lines() if "garbage" in line]
    assert garbage == [], f"no log lines:\n{formed_lab.gateway.log.tail()}"
