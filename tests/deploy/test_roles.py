"""Each role that can be tested alone, on nodes of its own: fresh, deployed, a second time, in check mode."""

from __future__ import annotations

import pytest

from deploy import scenarios

_WHOLE = {"cluster", "add-node", "remove-node", "upgrade", "restore", "local"}
"""Scenarios of playbooks, which have tests of their own."""


@pytest.mark.deploy
@pytest.mark.timeout(scenarios.SECONDS)
@pytest.mark.parametrize("scenario", [name for name in scenarios.names() if name not in _WHOLE])
def test_the_role_does_what_it_promises(scenario: str) -> None:
    scenarios.play(scenario)
