"""What a task waits for that is to run after others: `ID`, or `ID:ok`, `ID:any` or `ID:failed`."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from hakuriver.ids import parse_id
from hakuriver.states import TaskState


class Outcome(StrEnum):
    """How the other task has to end."""

    OK = "ok"
    """It completes."""
    ANY = "any"
    FAILED = "failed"
    """It ends in any other way: it fails, is killed or is lost."""

    def admits(self, end: TaskState) -> bool:
        """Whether a task that ended so lets those run that waited for this."""
        return self is Outcome.ANY or (self is Outcome.OK) == (end is TaskState.COMPLETED)


class Dependency(NamedTuple):
    """On one other task."""

    task_id: int
    outcome: Outcome

    def __str__(self) -> str:
        return f"{self.task_id}:{self.outcome}"


def parse_dependency(text: str) -> Dependency:
    """Reads `ID[:ok|:any|:failed]`; without a word it is `ok`.

    Raises:
        UsageError: the id is not one.
        ValueError: the word is not one.
    """
    number, colon, word = text.partition(":")
    if colon and word not in set(Outcome):
        raise ValueError(f"{text!r} is not ID, ID:ok, ID:any or ID:failed")
    return Dependency(parse_id(number), Outcome(word) if colon else Outcome.OK)
