"""What people are told of a command line that is wrong: their words, not Python's."""

from __future__ import annotations

from pathlib import Path

import pytest

from unit.cli.conftest import Commands


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("task list 7 8", "'7 8' is more than the command takes"),
        ("task list --limit x", "--limit x: must be a whole number"),
        ("task submit --poll-interval x true", "--poll-interval x: must be a number"),
        ("task kill", "TASK_ID is missing"),
        ("task list --owner", "--owner needs a value"),
        ("task lst", 'Unknown command "lst". Did you mean "list"?'),
        ("user create A", "name A: must be 1 to 32 lower-case letters"),
    ],
)
def test_a_command_line_that_is_wrong(commands: Commands, words: str, said: str) -> None:
    done = commands(*words.split())
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {said}")
    assert done.err.count("\n") == 2


def test_a_configuration_that_is_a_folder(commands: Commands, tmp_path: Path) -> None:
    done = commands("task", "list", "--config", str(tmp_path))
    assert done.code == 2
    assert done.err.startswith(f"error: cannot read the configuration {tmp_path}: Is a directory\n")
