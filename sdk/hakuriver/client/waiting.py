"""Waiting for tasks or a batch to end, as a plan without input or output: which stream to follow next, and what is known so far.

Several tasks of one batch are followed by one stream; a single one by its own. History comes first in each stream,
so nothing is missed whatever the moment at which waiting begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from hakuriver import models
from hakuriver.client.streams import EventCursor
from hakuriver.states import FINAL

if TYPE_CHECKING:
    from hakuriver.models.batches import BatchDetail
    from hakuriver.models.tasks import TaskDetail, TaskEvent


class Waiting:
    """Collects the last event of each task. `ended` holds those that are final; `told` is called with their number."""

    def __init__(self, task_ids: Iterable[int], told: Callable[[int], None] | None = None) -> None:
        self.ended: dict[int, TaskEvent] = {}
        self._told = told
        self._order = dict.fromkeys(task_ids)
        self._open: set[int] = set()

    @property
    def remaining(self) -> list[int]:
        return [task_id for task_id in self._order if task_id not in self.ended]

    def results(self) -> dict[int, TaskEvent]:
        """The final events, in the order in which the tasks were named."""
        return {task_id: self.ended[task_id] for task_id in self._order if task_id in self.ended}

    def next_cursor(self, detail: TaskDetail) -> EventCursor | None:
        """How to go on, given the first task that remains; none when it has ended already."""
        if detail.status in FINAL:
            self.ended[detail.task_id] = _last_event(detail)
            self._tell()
            return None
        self._open = {detail.task_id}
        if len(self.remaining) == 1:
            return EventCursor(0, task_id=detail.task_id)
        return EventCursor(0, batch_id=detail.batch_id)

    def take(self, event: TaskEvent) -> bool:
        """Notes an event; true when the stream that is followed has nothing more to say of these tasks."""
        if event.task_id in self._order:
            if event.state in FINAL:
                self.ended[event.task_id] = event
                self._open.discard(event.task_id)
            else:
                self.ended.pop(event.task_id, None)
                self._open.add(event.task_id)
            self._tell()
        return not self._open

    def _tell(self) -> None:
        if self._told is not None:
            self._told(len(self.ended))


class BatchWaiting:
    """Counts the ends of a batch's tasks. `told` is called with how many have ended so far.

    Only what happens after the tasks were counted is followed, however many ended before.
    """

    def __init__(self, told: Callable[[int], None] | None = None) -> None:
        self._told = told
        self._before = self._live = 0
        self._ended: set[int] = set()

    def next_cursor(self, detail: BatchDetail) -> EventCursor | None:
        """How to go on, given how the batch is now; none when all have ended."""
        self._before, self._live, self._ended = detail.ended, detail.total - detail.ended, set()
        self._tell()
        return EventCursor(detail.last_event, batch_id=detail.batch_id) if self._live else None

    def take(self, event: TaskEvent) -> bool:
        """Notes an event; true when it is time to count again. What ended while they were counted may be among both."""
        if event.state in FINAL:
            self._ended.add(event.task_id)
        else:
            self._ended.discard(event.task_id)
        self._tell()
        return len(self._ended) >= self._live

    def _tell(self) -> None:
        if self._told is not None:
            self._told(self._before + len(self._ended))


def _last_event(detail: TaskDetail) -> TaskEvent:
    if detail.history and detail.history[-1].state is detail.status:
        return detail.history[-1]
    return models.tasks.TaskEvent(
        sequence=0,
        time=detail.completed_at or detail.submitted_at,
        task_id=detail.task_id,
        batch_id=detail.batch_id,
        attempt=detail.attempt,
        state=detail.status,
        node=detail.assigned_node,
        cause=detail.error_message or "",
        exit_code=detail.exit_code,
    )
