"""Playbooks, roles, inventories and scenarios are clean, by ansible-lint's strictest profile and yamllint."""

from __future__ import annotations

import subprocess

import pytest

from support.nodes import ROOT, play_environment


@pytest.mark.parametrize(
    "command",
    [["ansible-lint", "--offline", "--nocolor"], ["yamllint", "--strict", "."]],
    ids=["ansible-lint", "yamllint"],
)
def test_it_is_clean(command: list[str]) -> None:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=play_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
