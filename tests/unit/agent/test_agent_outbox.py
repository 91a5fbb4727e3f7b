"""Reports go out at once, together, newest only, and until they are acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from hakuriver.errors import UnreachableError
from hakuriver.models.runner import AttemptReport
from hakuriver.states import TaskState
from hakuriver_agent import outbox as module
from hakuriver_agent.outbox import CONCURRENT, Outbox
from unit.agent.agent_doubles import eventually


def report(task: int, sequence: int, status: TaskState = TaskState.RUNNING) -> AttemptReport:
    return AttemptReport(task_id=task, attempt=1, sequence=sequence, status=status)


def final(task: int, sequence: int = 9) -> AttemptReport:
    return report(task, sequence, TaskState.COMPLETED)


class Wire:
    """Stands for the Host: holds requests until it is let go, and may refuse them."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, int]]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.down = False
        self.delivered: list[int] = []

    async def send(self, reports: list[AttemptReport]) -> None:
        self.batches.append([(given.task_id, given.sequence) for given in reports])
        await self.open.wait()
        if self.down:
            raise UnreachableError("the Host is away")

    def keep(self, reports: list[AttemptReport]) -> None:
        self.delivered += [given.task_id for given in reports]

    @asynccontextmanager
    async def outbox(self) -> AsyncIterator[Outbox]:
        outbox = Outbox(self.send, self.keep)
        running = asyncio.create_task(outbox.run())
        yield outbox
        running.cancel()


async def test_a_report_goes_out_at_once() -> None:
    wire = Wire()
    async with wire.outbox() as outbox:
        outbox.put(final(1))
        await eventually(lambda: wire.delivered == [1])


async def test_only_final_reports_are_delivered() -> None:
    wire = Wire()
    async with wire.outbox() as outbox:
        outbox.put(report(1, 1))
        outbox.put(final(2))
        await eventually(lambda: outbox.empty)
        assert wire.delivered == [2]


async def test_what_waits_goes_together_and_only_the_newest() -> None:
    wire = Wire()
    wire.open.clear()
    async with wire.outbox() as outbox:
        for task in range(CONCURRENT):
            outbox.put(report(task, 1))
            await eventually(lambda task=task: len(wire.batches) == task + 1)
        outbox.put(report(10, 1))
        outbox.put(final(10, 2))
        outbox.put(report(10, 1))
        outbox.put(final(11))
        wire.open.set()
        await eventually(lambda: outbox.empty)
        assert wire.batches[CONCURRENT:] == [[(10, 2), (11, 9)]]


async def test_an_end_does_not_wait_for_the_answer_to_a_beginning() -> None:
    wire = Wire()
    wire.open.clear()
    async with wire.outbox() as outbox:
        outbox.put(report(1, 1))
        await eventually(lambda: len(wire.batches) == 1)
        outbox.put(final(1))
        await eventually(lambda: wire.batches == [[(1, 1)], [(1, 9)]])
        wire.open.set()


async def test_what_is_urgent_goes_out_at_once_with_all_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 3600.0)
    wire = Wire()
    async with wire.outbox() as outbox:
        outbox.put(report(1, 1))
        outbox.put(report(2, 1), urgent=True)
        await eventually(lambda: wire.batches == [[(1, 1), (2, 1)]])


async def test_a_refused_report_is_kept_and_sent_again() -> None:
    wire = Wire()
    wire.down = True
    async with wire.outbox() as outbox:
        outbox.put(final(1))
        await eventually(lambda: len(wire.batches) >= 2)
        assert wire.delivered == []
        wire.down = False
        outbox.kick()
        await eventually(lambda: wire.delivered == [1])


async def test_an_older_report_is_not_sent_again_after_a_newer_one() -> None:
    wire = Wire()
    wire.open.clear()
    async with wire.outbox() as outbox:
        outbox.put(report(1, 1))
        await eventually(lambda: len(wire.batches) == 1)
        outbox.put(final(1))
        await eventually(lambda: len(wire.batches) == 2)
        wire.down = True
        wire.open.set()
        await eventually(lambda: len(wire.batches) == 3)
        assert wire.batches[2] == [(1, 9)]


async def test_a_dropped_report_is_not_sent() -> None:
    wire = Wire()
    wire.down = True
    async with wire.outbox() as outbox:
        outbox.put(final(1))
        await eventually(lambda: len(wire.batches) == 1)
        outbox.drop((1, 1))
        outbox.put(final(2))
        wire.down = False
        outbox.kick()
        await eventually(lambda: wire.delivered == [2])
        assert outbox.empty
