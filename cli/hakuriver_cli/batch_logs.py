"""`hakuriver batch logs`: what the tasks of a batch wrote, each line with the number of its task.

What has ended is printed task by task, in their order. With `--follow` those that run come after that, as they write,
and those that start later.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from hakuriver.errors import HakuRiverError, NotFoundError, UsageError
from hakuriver.states import FINAL, TaskState
from hakuriver_cli.errors import report
from hakuriver_cli.logs import Follow, Tail, present_part
from hakuriver_cli.options import COMMON, BatchIdOption, Common, States
from hakuriver_cli.output import Format
from hakuriver_cli.session import Session
from hakuriver_cli.sinks import JsonLines, Prefixed, Sink

if TYPE_CHECKING:
    from hakuriver.client import AsyncClient
    from hakuriver.client.calls import Stream
    from hakuriver.models.batches import BatchDetail


_PAGE = 1_000
_AT_ONCE = 100
"""Tasks that are followed at the same time."""


@dataclass(slots=True)
class _Tasks:
    """Those of a batch that are to be shown, by id, the first first."""

    indices: dict[int, int] = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)
    """The latest of each."""
    ended: set[int] = field(default_factory=set)


def logs(
    batch_id: BatchIdOption,
    /,
    *,
    status: States = (),
    follow: Follow = False,
    stdout: Annotated[bool, Parameter(help="Only stdout.")] = False,
    stderr: Annotated[bool, Parameter(help="Only stderr, printed to stdout.")] = False,
    tail: Tail = None,
    common: Common = COMMON,
) -> int:
    """Print what the tasks of a batch wrote, each line after the number of its task in brackets.

    With --follow it goes on until all have ended. With -o json all goes to stdout, as one object for each line: task_id,
    index, attempt, stream and text.
    """
    streams: tuple[Stream, ...] = ("stdout", "stderr")
    if stdout != stderr:
        streams = ("stdout",) if stdout else ("stderr",)
    if follow and status:
        raise UsageError("tasks in a state are not followed: they leave it", "leave out --status or --follow")
    session = Session(common)
    batch = session.client.batch(batch_id)
    return print_logs(session, batch, streams, follow=follow, tail=tail, states=status)


def print_logs(
    session: Session,
    batch: BatchDetail,
    streams: tuple[Stream, ...],
    *,
    follow: bool,
    tail: int | None,
    states: tuple[TaskState, ...] = (),
) -> int:
    """The exit code is that of the first task whose log cannot be read."""
    if tail is not None and tail < 0:
        raise UsageError(f"--tail {tail} is below zero", "give how many lines of each to print")
    tasks = _tasks_of(session, batch, states)

    def one(task_id: int) -> None:
        for stream in streams:
            sink = _sink(session, tasks, task_id, stream, alone=len(streams) == 1)
            present_part(
                session.client,
                task_id,
                stream,
                sink,
                tail,
                tasks.attempts[task_id] if follow else None,
                follow=False,
            )
            sink.end()

    started = [task_id for task_id, attempt in tasks.attempts.items() if attempt]
    code = session.for_each([each for each in started if each in tasks.ended or not follow], one)
    if follow and len(tasks.ended) < len(tasks.indices):
        asyncio.run(_Following(session, batch, tasks, streams).run())
    return code


def _tasks_of(session: Session, batch: BatchDetail, states: tuple[TaskState, ...]) -> _Tasks:
    found = [
        (task.index, task.task_id, task.attempt, task.status)
        for task in session.client.iter_tasks(page=_PAGE, batch_id=batch.batch_id, status=states)
    ]
    tasks = _Tasks()
    for index, task_id, attempt, state in sorted(found):
        tasks.indices[task_id], tasks.attempts[task_id] = index, attempt
        if state in FINAL:
            tasks.ended.add(task_id)
    return tasks


def _sink(session: Session, tasks: _Tasks, task_id: int, stream: Stream, *, alone: bool) -> Sink:
    index = tasks.indices[task_id]
    if session.printer.form is Format.JSON:
        return JsonLines(session.printer.out, task_id, stream, index)
    return Prefixed(sys.stdout.buffer if alone or stream == "stdout" else sys.stderr.buffer, index)


class _Following:
    """Prints what those write that had not ended, until they have."""

    def __init__(
        self, session: Session, batch: BatchDetail, tasks: _Tasks, streams: tuple[Stream, ...]
    ) -> None:
        self._session, self._batch, self._tasks, self._streams = session, batch, tasks, streams
        self._shown = {(task_id, tasks.attempts[task_id]) for task_id in tasks.ended}
        """Attempts whose logs are printed, or being so."""
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def run(self) -> None:
        try:
            async with self._session.async_client() as client, asyncio.TaskGroup() as group:
                for task_id, attempt in self._tasks.attempts.items():
                    self._show(client, group, task_id, attempt)
                await self._watch(client, group)
        except BaseExceptionGroup as failed:
            # Such as that nobody reads what is printed any more: it is told once.
            raise failed.exceptions[0] from None

    async def _watch(self, client: AsyncClient, group: asyncio.TaskGroup) -> None:
        """Since the batch was looked at, which was before its tasks were."""
        tasks = self._tasks
        events = client.events(self._batch.last_event, batch_id=self._batch.batch_id)
        async with aclosing(events) as changes:
            async for event in changes:
                self._show(client, group, event.task_id, event.attempt)
                if event.state in FINAL:
                    tasks.ended.add(event.task_id)
                elif event.attempt > tasks.attempts.get(event.task_id, 0):
                    tasks.ended.discard(event.task_id)
                if len(tasks.ended) == len(tasks.indices):
                    return

    def _show(self, client: AsyncClient, group: asyncio.TaskGroup, task_id: int, attempt: int) -> None:
        if attempt and (task_id, attempt) not in self._shown and task_id in self._tasks.indices:
            self._shown.add((task_id, attempt))
            group.create_task(self._copy_all(client, task_id, attempt))

    async def _copy_all(self, client: AsyncClient, task_id: int, attempt: int) -> None:
        async with self._room:
            await asyncio.gather(*(self._copy(client, task_id, attempt, each) for each in self._streams))

    async def _copy(self, client: AsyncClient, task_id: int, attempt: int, stream: Stream) -> None:
        sink = _sink(self._session, self._tasks, task_id, stream, alone=len(self._streams) == 1)
        try:
            async with aclosing(client.follow_parts(task_id, stream, attempt=attempt)) as parts:
                async for part in parts:
                    sink.take(part)
            sink.end()
        except NotFoundError:
            return
        except HakuRiverError as error:
            report(error, self._session.printer.err)
