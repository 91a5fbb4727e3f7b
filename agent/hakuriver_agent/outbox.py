"""Reports to the Host, until it has acknowledged them.

An end goes out as soon as there is one, with all that waits, and so does what is urgent; another report after a moment. Of an
attempt only the newest report waits: its sequence makes the older ones worthless. A final report stays until the Host has answered that it is on its
record.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from hakuriver.errors import HakuRiverError
from hakuriver.models.runner import AttemptReport
from hakuriver.states import FINAL
from hakuriver_agent.engines.port import Key

CONCURRENT = 2
"""Requests at a time: an end need not wait for the answer to a beginning."""
LARGEST = 1_000
PATIENCE = 0.1
"""Seconds that a report which is not final waits for the end that makes it worthless. An end waits for nothing, and neither does
what somebody waits for."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0

log = structlog.get_logger(__name__)


class Outbox:
    """`send` gives reports to the Host and returns once they are durable there; `delivered` is told of final ones."""

    def __init__(
        self,
        send: Callable[[list[AttemptReport]], Awaitable[None]],
        delivered: Callable[[list[AttemptReport]], None],
    ) -> None:
        self._send = send
        self._delivered = delivered
        self._waiting: dict[Key, AttemptReport] = {}
        self._newest: dict[Key, int] = {}
        self._something = asyncio.Event()
        self._kicked = asyncio.Event()
        self._slots = asyncio.Semaphore(CONCURRENT)
        self._pause = 0.0
        self._complained = False
        self._sending: set[asyncio.Task[None]] = set()

    def put(self, report: AttemptReport, *, urgent: bool = False) -> None:
        """Has a report sent; it replaces an older one of its attempt that still waits."""
        if report.sequence >= self._newest.get(report.key, -1):
            self._newest[report.key] = report.sequence
            self._waiting[report.key] = report
            if urgent or report.status in FINAL:
                self._something.set()
            elif not self._something.is_set():
                asyncio.get_running_loop().call_later(PATIENCE, self._something.set)

    def drop(self, key: Key) -> None:
        """The Host knows the end of the attempt by another way."""
        self._waiting.pop(key, None)
        self._newest.pop(key, None)

    def kick(self) -> None:
        """The Host answers again: try at once."""
        self._pause = 0.0
        self._kicked.set()

    @property
    def empty(self) -> bool:
        return not self._waiting and not self._sending

    async def run(self) -> None:
        """Sends for ever."""
        while True:
            await self._something.wait()
            await self._slots.acquire()
            if self._pause:
                await self._rest()
            batch = self._take()
            if not batch:
                self._slots.release()
                continue
            task = asyncio.create_task(self._deliver(batch))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _rest(self) -> None:
        self._kicked.clear()
        try:
            await asyncio.wait_for(self._kicked.wait(), self._pause * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load
        except TimeoutError:
            return

    def _take(self) -> list[AttemptReport]:
        keys = list(self._waiting)[:LARGEST]
        batch = [self._waiting.pop(key) for key in keys]
        if not self._waiting:
            self._something.clear()
        return batch

    async def _deliver(self, batch: list[AttemptReport]) -> None:
        try:
            await self._send(batch)
        except HakuRiverError as error:
            self._keep(batch, error)
        else:
            self._pause, self._complained = 0.0, False
            final = [report for report in batch if report.status in FINAL]
            for report in final:
                self._newest.pop(report.key, None)
            if final:
                self._delivered(final)
        finally:
            self._slots.release()

    def _keep(self, batch: list[AttemptReport], error: HakuRiverError) -> None:
        """Puts back what is still the newest of its attempt."""
        if not self._complained:
            log.warning(
                "the Host takes no reports now; keeping them", error=error.message, reports=len(batch)
            )
        self._complained = True
        self._pause = min(LONGEST_PAUSE, self._pause * 2 or FIRST_PAUSE)
        for report in batch:
            if self._newest.get(report.key) == report.sequence:
                self._waiting.setdefault(report.key, report)
                self._something.set()
