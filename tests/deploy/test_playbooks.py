"""Each playbook, on clusters that do something meanwhile: tasks go on, and people can use the cluster afterwards."""

from __future__ import annotations

import pytest

from deploy import scenarios


@pytest.mark.deploy
@pytest.mark.timeout(scenarios.SECONDS)
@pytest.mark.parametrize("scenario", ["add-node", "remove-node", "upgrade", "restore"])
def test_the_playbook_does_what_it_promises(scenario: str) -> None:
    scenarios.play(scenario)
