"""Plays a molecule scenario and says what went wrong in it."""

from __future__ import annotations

import subprocess

from support.nodes import ROOT, environment

_SHOWN = 12_000
"""Characters of the output that a failure shows: the play that failed and the one before it."""


def names() -> list[str]:
    return sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml"))


def play(scenario: str) -> None:
    """The whole sequence of the scenario; its nodes are removed whatever happens."""
    done = molecule("test", "--scenario-name", scenario)
    assert done.returncode == 0, f"the scenario {scenario} failed:\n{done.stdout[-_SHOWN:]}"


def molecule(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["molecule", *arguments],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
