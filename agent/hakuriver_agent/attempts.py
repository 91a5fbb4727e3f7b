"""One attempt in memory, and the pure rule of how an end is told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from hakuriver.models.runner import AttemptReport, AttemptSpec
from hakuriver.states import FINAL, TaskState
from hakuriver_agent.engines.port import Ended, Key, Launch
from hakuriver_agent.tally import Tally


@dataclass(slots=True, eq=False)
class Attempt:
    """What the supervisor holds of an attempt whose end the Host may not know yet."""

    spec: AttemptSpec | None
    """None when it was killed before it came."""
    report: AttemptReport
    first_sequence: int = 0
    """The least number for its next report."""
    launch: Launch = field(default_factory=Launch)
    kill_requested: bool = False
    stop_requested: bool = False
    """It is to end and to be kept."""
    stop_cause: str | None = None
    """Why, where nobody has asked for it."""
    over_time: bool = False
    started: bool = False
    finishing: bool = False
    """Its end is being written: nothing changes it any more."""
    starting: bool = False
    """That it is to run again is being written."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Its unit has ended."""
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """It is known whether it runs, in this life."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while it is paused or resumed."""
    stopper: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None
    tally: Tally = field(default_factory=Tally)

    @property
    def measurable(self) -> bool:
        """Something of it runs that uses something."""
        return self.started and not self.ended.is_set() and not self.finishing

    @property
    def key(self) -> Key:
        return self.report.key

    @property
    def final(self) -> bool:
        return self.report.status in FINAL

    @property
    def at_rest(self) -> bool:
        """It is stopped, and nothing is under way with it."""
        return self.report.status is TaskState.STOPPED and not (self.finishing or self.starting)

    def renew(self) -> None:
        """Nothing of it runs any more, and it may be started again."""
        self.started = self.stop_requested = False
        self.launch, self.ended, self.stopper = Launch(), asyncio.Event(), None

    def next_report(self, **changes: Any) -> AttemptReport:
        """The report that follows the present one."""
        sequence = max(self.report.sequence + 1, self.first_sequence)
        return self.report.model_copy(update={"sequence": sequence, **changes})


LONGEST_MESSAGE = 500


def one_line(text: str | None) -> str | None:
    """A message as a report may carry it."""
    if text is None:
        return None
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_MESSAGE else line[: LONGEST_MESSAGE - 1] + "…"


def accepted(spec: AttemptSpec) -> AttemptReport:
    """The report of an attempt that was just written to the journal."""
    return AttemptReport(
        task_id=spec.task_id,
        attempt=spec.attempt,
        sequence=0,
        status=TaskState.ASSIGNING,
        gpus=spec.gpus,
        cpus=spec.cpus,
    )


def outcome(ended: Ended, *, kill_requested: bool, time_limit: int | None) -> dict[str, Any]:
    """What the final report of a unit says.

    A kill that was accepted goes before everything, then a time limit that was overrun. `killed_oom` comes from the
    engine's flag alone, and only when the task failed: a task may lose a child and go on.
    """
    status, message = TaskState.FAILED, ended.message
    if kill_requested:
        status = TaskState.KILLED
    elif time_limit is not None:
        message = f"ran over its time limit of {time_limit} s"
    elif ended.exit_code == 0:
        status = TaskState.COMPLETED
        if ended.oom:
            message = _joined("the kernel killed one of its processes for want of memory", message)
    elif ended.oom:
        status = TaskState.KILLED_OOM
        message = _joined("it used more memory than its limit", message)
    changes = {
        "status": status,
        "exit_code": ended.exit_code,
        "message": one_line(message),
        "completed_at": ended.at,
    }
    if ended.started_at is not None:
        changes["started_at"] = ended.started_at
    return changes


def failed(status: TaskState, message: str | None = None, exit_code: int | None = None) -> dict[str, Any]:
    """What the final report of an attempt says that has no unit to tell how it ended."""
    return {
        "status": status,
        "message": one_line(message),
        "exit_code": exit_code,
        "completed_at": datetime.now(UTC),
    }


def time_left(started_at: datetime, limit_seconds: int, now: datetime) -> float:
    """Seconds until a time limit is over; negative when it is."""
    return limit_seconds - (now - started_at).total_seconds()


def _joined(first: str, second: str | None) -> str:
    return f"{first}; {second}" if second else first
