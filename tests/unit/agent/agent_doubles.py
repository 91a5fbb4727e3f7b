"""Doubles and builders that the Runner's unit tests share."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hakuriver.models.runner import AttemptId, AttemptReport, AttemptSpec
from hakuriver.states import FINAL, TaskState
from hakuriver_agent.driver import Ready, always
from hakuriver_agent.engines.fake import FakeEngine, FakeWorld
from hakuriver_agent.engines.port import Key
from hakuriver_agent.journal import Journal
from hakuriver_agent.supervisor import Supervisor

WITHIN = 10.0
_ids = itertools.count(1000)


def spec(command: str = "wait", *arguments: str, **changes: Any) -> AttemptSpec:
    task = next(_ids)
    fields: dict[str, Any] = {
        "task_id": task,
        "attempt": 1,
        "batch_id": task,
        "owner": "tester",
        "engine": "process",
        "command": command,
        "arguments": list(arguments),
        "stdout_path": f"task_outputs/{task}.out",
        "stderr_path": f"task_errors/{task}.err",
    }
    return AttemptSpec.model_validate(fields | changes)


def named(given: AttemptSpec) -> AttemptId:
    return AttemptId(task_id=given.task_id, attempt=given.attempt)


async def eventually(probe: Callable[[], Any], what: str = "it becomes true") -> None:
    deadline = asyncio.get_running_loop().time() + WITHIN
    while not probe():
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.005)


@dataclass
class Post:
    """Stands for the outbox: keeps what was reported."""

    reports: list[AttemptReport] = field(default_factory=list)
    urgent: list[AttemptReport] = field(default_factory=list)
    dropped: list[Key] = field(default_factory=list)

    def put(self, report: AttemptReport, *, urgent: bool = False) -> None:
        self.reports.append(report.model_copy())
        if urgent:
            self.urgent.append(report.model_copy())

    def drop(self, key: Key) -> None:
        self.dropped.append(key)

    def of(self, given: AttemptSpec) -> list[AttemptReport]:
        return [report for report in self.reports if report.key == given.key]

    def states(self, given: AttemptSpec) -> list[str]:
        return [str(report.status) for report in self.of(given)]

    async def final(self, given: AttemptSpec) -> AttemptReport:
        """The final report, of which there must be one content only."""
        await eventually(
            lambda: any(report.status in FINAL for report in self.of(given)), "there is a final report"
        )
        finals = [report for report in self.of(given) if report.status in FINAL]
        assert all(report == finals[0] for report in finals), finals
        return finals[0]

    async def running(self, given: AttemptSpec) -> None:
        await eventually(lambda: TaskState.RUNNING in self.states(given), "it runs")


@dataclass
class Life:
    """One life of a Runner's core over a world, a journal and a double of the engine."""

    engine: FakeEngine
    journal: Journal
    post: Post
    supervisor: Supervisor


@dataclass
class Node:
    """What outlives the Runner: its journal's file, and the world in which units run."""

    folder: Path
    world: FakeWorld
    boot: str = "boot-1"

    @asynccontextmanager
    async def life(
        self, grace: float = 0.05, engine: FakeEngine | None = None, ready: Ready = always
    ) -> AsyncIterator[Life]:
        engine = engine or FakeEngine(self.world, "process")
        journal = Journal.open(self.folder / "journal.db", self.boot)
        post = Post()
        supervisor = Supervisor({"process": engine}, journal, post, grace, ready)
        await supervisor.recover()
        await supervisor.registered([])
        try:
            yield Life(engine, journal, post, supervisor)
        finally:
            for gate in engine.gates.values():
                gate.set()
            await supervisor.close()
            await journal.close()


def node(folder: Path) -> Node:
    return Node(folder, FakeWorld(folder / "shared"))
