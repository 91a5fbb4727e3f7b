"""What was deployed, when, by whom and how it went: a folder for each deployment, the newest kept.

`outcome.json` is written at the start and at the end, so that a deployment whose process was killed is seen as
`running` with nobody alive; `events.jsonl` has the events, `output.txt` what Ansible printed. Values of variables and
passwords are in none of them, and all of it is for the owner alone.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import ValidationError

from hakuriver_cli.deploy.events import Event, Kind
from hakuriver_cli.deploy.outcome import Outcome

KEPT = 50
_FOLDER = "history"
_OUTCOME = "outcome.json"


class Record:
    """One deployment's folder, while it goes on."""

    def __init__(self, controller: Path, outcome: Outcome) -> None:
        self.path = _new(controller / _FOLDER, f"{outcome.started:%Y-%m-%dT%H-%M-%SZ}-{outcome.what}")
        self._events = _open(self.path / "events.jsonl")
        self._output = _open(self.path / "output.txt")
        self.write(outcome)

    def event(self, event: Event) -> None:
        if event.kind is not Kind.START:
            self._line(self._events, event.model_dump_json(exclude_defaults=True))

    def output(self, text: str) -> None:
        if text:
            self._line(self._output, text)

    def write(self, outcome: Outcome) -> None:
        outcome.history = str(self.path)
        temporary = self.path / f"{_OUTCOME}.new"
        temporary.write_text(outcome.model_dump_json(indent=2) + "\n", "utf-8")
        temporary.replace(self.path / _OUTCOME)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._events)
        os.close(self._output)

    @staticmethod
    def _line(file: int, text: str) -> None:
        os.write(file, f"{text}\n".encode())


def deployments(controller: Path, count: int = KEPT) -> list[Outcome]:
    """The newest deployments, newest first; a folder that is not whole is passed over."""
    found = []
    for path in reversed(_paths(controller / _FOLDER)):
        try:
            found.append(Outcome.model_validate_json((path / _OUTCOME).read_bytes()))
        except (OSError, ValidationError):
            continue
        if len(found) == count:
            break
    return found


def prune(controller: Path, kept: int = KEPT) -> None:
    for path in _paths(controller / _FOLDER)[:-kept]:
        shutil.rmtree(path, ignore_errors=True)


def _paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _new(folder: Path, name: str) -> Path:
    """A folder that nobody else has; two in one second differ by a number."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    number = 1
    while True:
        path = folder / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            number += 1
        else:
            return path


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
