"""The bus: what has been written is told to those who follow.

A follower that does not keep up is cut off, and resumes from the record.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from hakuriver.models.tasks import TaskEvent

_BACKLOG = 20_000


@dataclass(slots=True, frozen=True)
class Notice:
    """An event of the record, or (`transient`) a word on progress that is not on it."""

    event: TaskEvent
    transient: bool = False


@dataclass(eq=False)
class Follower:
    """One who follows all tasks, one batch or one task."""

    task_id: int | None
    batch_id: int | None
    notices: deque[Notice] = field(default_factory=deque)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    overrun: bool = False

    def wants(self, event: TaskEvent) -> bool:
        return self.task_id in {None, event.task_id} and self.batch_id in {None, event.batch_id}

    async def wait(self, timeout: float) -> bool:
        """True when there are notices, False when none came in time."""
        if not self.notices:
            self.arrived.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self.arrived.wait()
            except TimeoutError:
                return False
        return True

    def take(self) -> list[Notice]:
        taken = list(self.notices)
        self.notices.clear()
        return taken


class Bus:
    def __init__(self) -> None:
        self._followers: set[Follower] = set()

    @property
    def idle(self) -> bool:
        return not self._followers

    @contextmanager
    def follow(self, *, task_id: int | None = None, batch_id: int | None = None) -> Iterator[Follower]:
        follower = Follower(task_id, batch_id)
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)

    def publish(self, notices: Sequence[Notice]) -> None:
        for follower in self._followers:
            wanted = [notice for notice in notices if follower.wants(notice.event)]
            if not wanted or follower.overrun:
                continue
            if len(follower.notices) + len(wanted) > _BACKLOG:
                follower.overrun = True
            else:
                follower.notices.extend(wanted)
            follower.arrived.set()
