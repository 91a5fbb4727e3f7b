"""What goes on is shown on a terminal, and nowhere else."""

from __future__ import annotations

import io
import re

import pytest

from hakuriver_cli.progress import Counter

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def count(err: io.StringIO) -> str:
    with Counter(err, 3, "tasks have ended") as counter:
        counter.update(2)
    return _ESCAPES.sub("", err.getvalue())


def test_a_terminal_shows_how_many_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert "2/3 tasks have ended" in count(Terminal())


def test_a_pipe_shows_nothing() -> None:
    assert count(io.StringIO()) == ""
