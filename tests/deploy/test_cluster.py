"""From bare machines to a cluster: several by the playbook `site`, and one by one command."""

from __future__ import annotations

import pytest

from deploy import scenarios


@pytest.mark.deploy
@pytest.mark.timeout(scenarios.SECONDS)
@pytest.mark.parametrize("scenario", ["cluster", "local"])
def test_bare_machines_become_a_cluster(scenario: str) -> None:
    scenarios.play(scenario)
