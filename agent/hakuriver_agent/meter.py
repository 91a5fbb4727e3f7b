"""Looks at what running attempts use, seldom enough to cost them nothing.

A young attempt is looked at after a tenth of a second, then each time that it has become a tenth older, in the end every
5 s: so a container, whose account is gone when it has ended, has been seen for nine tenths of its time. That is about
fifty looks in the first minute and twelve in each after it, at 0.1 to 0.2 ms of processor time each, less where many are
looked at together. A look that fails or hangs holds up nothing: what is not seen is not known.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Mapping
from typing import Any

import structlog

from hakuriver.models.runner import EngineName
from hakuriver_agent.attempts import Attempt
from hakuriver_agent.devices.gpus import Gpus
from hakuriver_agent.engines.port import Engine, EngineUnavailableError
from hakuriver_agent.supervisor import Supervisor

SHARE_OF_AGE = 0.1
FIRST_SECONDS, LONGEST_SECONDS = 0.1, 5.0
SHORTEST_SECONDS = 0.05
"""Between two turns: what is due by then is looked at together."""
GPU_SECONDS, YOUNG_GPU_SECONDS = 5.0, 1.0
"""How old a reading of GPUs in use may be; while their attempt is younger than `YOUNG_SECONDS`, the second."""
YOUNG_SECONDS = 10.0
NOTE_SECONDS = 60.0
"""How much of what is in no counter a Runner that is killed may forget."""

log = structlog.get_logger(__name__)


def pause(age: float) -> float:
    """Seconds until the next look at an attempt that has run for `age`."""
    return min(LONGEST_SECONDS, max(FIRST_SECONDS, age * SHARE_OF_AGE))


def first_pause(age: float) -> float:
    """Seconds until the first look: none at what an earlier life of the Runner began, and may have looked at last."""
    return max(0.0, FIRST_SECONDS - age)


class Meter:
    """Fills the tallies of the attempts of one Runner."""

    def __init__(self, supervisor: Supervisor, engines: Mapping[EngineName, Engine], gpus: Gpus) -> None:
        self._supervisor, self._engines, self._gpus = supervisor, engines, gpus
        self._due: dict[Attempt, float] = {}
        """When each is to be looked at; monotonic."""
        self._looks: dict[str, asyncio.Task[None]] = {}
        """Under way, by what is looked at: one that hangs is not begun again."""
        self._gpus_seen = 0.0
        self._noted = time.monotonic()

    async def run(self) -> None:
        """Never returns."""
        try:
            while True:
                self._supervisor.begun.clear()
                left = self._look_at_due()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._supervisor.begun.wait(), left)
        finally:
            for look in self._looks.values():
                look.cancel()

    def _look_at_due(self) -> float | None:
        """Begins the looks whose time has come; seconds until the next one, none while nothing runs."""
        now, running = time.monotonic(), self._supervisor.measurable()
        ages = {attempt: _age(attempt) for attempt in running}
        self._due = {attempt: self._due.get(attempt, now + first_pause(ages[attempt])) for attempt in running}
        due = [attempt for attempt in running if self._due[attempt] <= now]
        for name, engine in self._engines.items():
            wanted = [attempt for attempt in due if attempt.spec and attempt.spec.engine == name]
            if wanted:
                self._begin(name, self._look_at_units(engine, wanted))
        for attempt in due:
            self._due[attempt] = now + pause(ages[attempt])
        self._see_to_gpus([attempt for attempt in running if attempt.spec and attempt.spec.gpus], ages, now)
        if now - self._noted >= NOTE_SECONDS:
            self._noted = now
            self._supervisor.note_usage()
        return max(SHORTEST_SECONDS, min(self._due.values()) - now) if running else None

    def _see_to_gpus(self, using: list[Attempt], ages: Mapping[Attempt, float], now: float) -> None:
        if self._gpus.read_at > self._gpus_seen:
            self._gpus_seen = self._gpus.read_at
            for attempt in using:
                self._take_gpus(attempt, time.time() - (now - self._gpus.read_at))
        young = any(ages[attempt] < YOUNG_SECONDS for attempt in using)
        if using and now - self._gpus.read_at >= (YOUNG_GPU_SECONDS if young else GPU_SECONDS):
            self._begin("gpus", self._gpus.look())

    def _take_gpus(self, attempt: Attempt, at: float) -> None:
        wanted = attempt.spec.gpus if attempt.spec else []
        mine = [gpu for gpu in self._gpus.infos if gpu.uuid in wanted and not gpu.problem]
        if len(mine) == len(wanted) and at >= (attempt.tally.began_at or at):
            attempt.tally.look_at_gpus(mine, at)

    async def _look_at_units(self, engine: Engine, attempts: list[Attempt]) -> None:
        with contextlib.suppress(EngineUnavailableError):
            found = await engine.usage([attempt.key for attempt in attempts])
            now = time.time()
            for attempt in attempts:
                # One that has ended meanwhile has its last word said.
                if (used := found.get(attempt.key)) and attempt.measurable:
                    attempt.tally.look(used, now)

    def _begin(self, name: str, look: Coroutine[Any, Any, None]) -> None:
        known = self._looks.get(name)
        if known is not None and not known.done():
            look.close()
            return
        self._looks[name] = task = asyncio.create_task(look)
        task.add_done_callback(_complain)


def _age(attempt: Attempt) -> float:
    began = attempt.tally.began_at
    return 0.0 if began is None else max(0.0, time.time() - began)


def _complain(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("looking at what tasks use failed by a defect", exc_info=error)
