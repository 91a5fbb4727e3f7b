"""Batches: what is told of the tasks of one submission together."""

from __future__ import annotations

from hakuriver.models.base import PeerModel, TaskId, Timestamp
from hakuriver.models.tasks import TaskSummary
from hakuriver.states import FINAL, TaskState


class BatchSummary(PeerModel):
    """A batch as a list shows it."""

    batch_id: TaskId
    name: str | None = None
    owner: str
    task_type: str
    sweep: bool = False
    command: str
    """With its spans, where it is a sweep."""
    arguments: list[str] = []
    """Shown to the owner and to admins; for others they are left out."""
    container_name: str | None = None
    required_cores: int = 0
    max_running: int | None = None
    """How many of its tasks may hold anything at the same time."""
    counts: dict[TaskState, int] = {}
    """By state: how many of its tasks, of those that were asked for; states that none is in are left out."""
    task: TaskSummary | None = None
    """Its task, where only one was asked for."""
    submitted_at: Timestamp
    started_at: Timestamp | None = None
    """When the first of them started."""
    completed_at: Timestamp | None = None
    """When the last of them ended; none while one has not."""

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def ended(self) -> int:
        """How many have ended, in whichever way."""
        return sum(number for state, number in self.counts.items() if state in FINAL)


class BatchDetail(BatchSummary):
    """All that is known of a batch."""

    env_vars: dict[str, str] = {}
    failures: list[TaskSummary] = []
    """The first of those that have ended and not completed."""
    last_event: int = 0
    """Number of the last event before its tasks were counted: a follower goes on after it."""


class BatchList(PeerModel):
    batches: list[BatchSummary]
    next_cursor: str | None = None
    """Give it as `cursor` to get the next page; none on the last."""
