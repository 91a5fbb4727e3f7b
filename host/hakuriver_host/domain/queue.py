"""The queue: who waits, in which order.

First come, first served: ids rise with time, so the order is that of ids, and a task that is retried
keeps its place. Tasks with equal requests form one group, because within one round of placement what
does not fit for the first of a group fits for none of it; so a round costs as many looks as there are
groups, not tasks.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from hakuriver_host.domain.model import Request, Task


class Queue:
    def __init__(self) -> None:
        self._groups: dict[Request, list[int]] = {}
        self._waiting: dict[int, Task] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, task_id: int) -> bool:
        return task_id in self._waiting

    def get(self, task_id: int) -> Task | None:
        return self._waiting.get(task_id)

    def add(self, task: Task) -> None:
        self._waiting[task.task_id] = task
        heapq.heappush(self._groups.setdefault(task.request, []), task.task_id)

    def remove(self, task: Task) -> None:
        """Takes it out; its entry in the group is dropped when the group comes to it."""
        self._waiting.pop(task.task_id, None)

    def groups(self) -> list[Request]:
        return list(self._groups)

    def first(self, request: Request) -> Task | None:
        """The first in line of one group."""
        group = self._groups.get(request)
        while group:
            task = self._waiting.get(group[0])
            if task is not None and task.request == request:
                return task
            heapq.heappop(group)
        self._groups.pop(request, None)
        return None

    def head(self) -> Task | None:
        """The first in line of all."""
        return self._waiting[min(self._waiting)] if self._waiting else None

    def in_order(self) -> Iterator[Task]:
        return (self._waiting[task_id] for task_id in sorted(self._waiting))

    def position(self, task_id: int) -> int:
        """How many wait before it."""
        return sum(1 for other in self._waiting if other < task_id)
