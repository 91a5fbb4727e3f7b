"""Logs: bytes by offset, and followed live.

What is final is read from the share. What runs is read through its Runner, which sees its own writes at
once, where a network file system may show them seconds late; when the Runner cannot be reached, the share serves.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from hakuriver.errors import HakuRiverError, NotFoundError, StorageError
from hakuriver.models.tasks import LogChunk, TaskEvent
from hakuriver.states import FINAL, NodeState, TaskState
from hakuriver_host.domain.model import Task
from hakuriver_host.services.bus import Follower
from hakuriver_host.services.core import Core, event_of_row
from hakuriver_host.services.nodes import Nodes
from hakuriver_host.services.paths import Stream, log_path

CHUNK = 64 * 1024
MAX_READ = 16 * 1024 * 1024
_LOOK_AGAIN_SECONDS = 1.0


class Place(NamedTuple):
    """Where a follower is: the next byte of one attempt's log. Without an attempt, of the latest."""

    attempt: int | None
    offset: int


class Piece(NamedTuple):
    """What was read, and where it begins."""

    offset: int
    data: bytes


class Logs:
    def __init__(self, core: Core, nodes: Nodes) -> None:
        self._core = core
        self._nodes = nodes

    async def read(self, task_id: int, attempt: int, stream: Stream, offset: int, limit: int | None) -> Piece:
        """Bytes from `offset` on; a negative one counts from the end.

        Raises:
            NotFoundError: nothing has been written yet.
            StorageError: the share cannot be read.

        """
        path = self._path(task_id, attempt, stream)
        return await self._core.share.call(
            lambda: _read(path, offset, min(limit or MAX_READ, MAX_READ), task_id)
        )

    async def follow(
        self, task_id: int, stream: Stream, start: Place, *, only: bool
    ) -> AsyncIterator[LogChunk | TaskEvent | None]:
        """Chunks as they come, then the final event. None now and then, when nothing comes.

        A start without an attempt is in the latest. It goes on with every attempt after it, unless `only` that one is
        asked for.
        """
        number, offset = start
        with self._core.bus.follow(task_id=task_id) as follower:
            while True:
                follower.take()
                live = self._core.cluster.tasks.get(task_id)
                present = live if live is not None and live.state not in FINAL else None
                if number is None:
                    number = await self._latest(task_id)
                async for chunk in self._live(present, number, stream, offset):
                    offset = chunk.next_offset
                    yield chunk
                # Asked before the rest is read: an attempt that is over then has written all that it ever will.
                superseded = not only and await self._latest(task_id) > number
                over = self._is_over(task_id)
                async for chunk in self._rest(task_id, number, stream, offset):
                    offset = chunk.next_offset
                    yield chunk
                if superseded:
                    number, offset = number + 1, 0
                elif over:
                    yield await self._final_event(task_id, follower)
                    return
                elif not await self._wait(follower, live):
                    yield None

    def _is_over(self, task_id: int) -> bool:
        task = self._core.cluster.tasks.get(task_id)
        return task is None or task.state is TaskState.LOST

    async def _wait(self, follower: Follower, live: Task | None) -> bool:
        """Until something happens to the task. A task that runs and cannot be followed at its Runner is looked at each second."""
        running = live is not None and live.state in {TaskState.RUNNING, TaskState.PAUSED}
        return await follower.wait(_LOOK_AGAIN_SECONDS if running else 15.0)

    async def _latest(self, task_id: int) -> int:
        live = self._core.cluster.tasks.get(task_id)
        if live is not None:
            return live.attempt
        found = await asyncio.to_thread(self._core.repository.task, task_id)
        return found[0].attempt if found else 0

    async def _live(
        self, task: Task | None, attempt: int, stream: Stream, offset: int
    ) -> AsyncIterator[LogChunk]:
        """From the Runner, until the attempt has ended; nothing when it cannot be asked."""
        node = self._core.cluster.nodes.get(task.node or "") if task else None
        if (
            task is None
            or node is None
            or task.state not in {TaskState.RUNNING, TaskState.PAUSED}
            or task.attempt != attempt
        ):
            return
        if node.state is NodeState.OFFLINE or not node.reconciled:
            return
        try:
            async for data in self._nodes.client(node).log(
                f"{task.task_id}/{attempt}/{stream}", offset, follow=True
            ):
                yield _chunk(attempt, offset, data)
                offset += len(data)
        except HakuRiverError:
            return

    async def _rest(self, task_id: int, attempt: int, stream: Stream, offset: int) -> AsyncIterator[LogChunk]:
        """From the share, to its present end."""
        if attempt < 1:
            return
        while True:
            try:
                data = (await self.read(task_id, attempt, stream, offset, CHUNK)).data
            except NotFoundError:
                return
            if not data:
                return
            yield _chunk(attempt, offset, data)
            offset += len(data)

    async def _final_event(self, task_id: int, follower: Follower) -> TaskEvent:
        """The event that ended the task, as soon as it is on the record."""
        while True:
            events = await asyncio.to_thread(self._core.repository.events, 0, task_id=task_id)
            last = event_of_row(events[-1])
            if last.state in FINAL:
                return last
            await follower.wait(_LOOK_AGAIN_SECONDS)
            follower.take()

    def _path(self, task_id: int, attempt: int, stream: Stream) -> Path:
        return self._core.settings.paths.shared_dir / log_path(task_id, max(1, attempt), stream)


def _chunk(attempt: int, offset: int, data: bytes) -> LogChunk:
    text = base64.b64encode(data).decode()
    return LogChunk(attempt=attempt, offset=offset, next_offset=offset + len(data), data=text)


def _read(path: Path, offset: int, limit: int, task_id: int) -> Piece:
    try:
        with path.open("rb") as file:
            if offset < 0:
                size = file.seek(0, 2)
                offset = max(0, size + offset)
            file.seek(offset)
            return Piece(offset, file.read(limit))
    except FileNotFoundError:
        raise NotFoundError(
            f"task {task_id} has written nothing yet", "it begins when the task runs; --follow waits for it"
        ) from None
    except OSError as error:
        raise StorageError(
            f"cannot read the log of task {task_id}: {error.strerror}",
            "check the share's mount and permissions",
        ) from None
