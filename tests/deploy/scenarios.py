"""Plays a molecule scenario and says what went wrong in it."""

from __future__ import annotations

from support.nodes import ROOT, environment, told

SECONDS = 2400
"""An outer watchdog: a scenario takes minutes, and several times as many on a machine that does something else."""
_SHOWN = 60_000
"""Characters of the output that a failure shows: a playbook that a playbook ran shows its errors before all else that it said."""


def names() -> list[str]:
    return sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml"))


def play(scenario: str) -> None:
    """The whole sequence of the scenario; its nodes are removed whatever happens."""
    done = told(["molecule", "test", "--scenario-name", scenario], environment())
    assert done.returncode == 0, f"the scenario {scenario} failed:\n{done.stdout[-_SHOWN:]}"
