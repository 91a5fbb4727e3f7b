"""The life of one attempt: started or found again, watched, paused, stopped, and its end written and reported once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import structlog

from hakuriver.errors import StorageError
from hakuriver.models.runner import AttemptReport, AttemptSpec, EngineName
from hakuriver.states import TaskState
from hakuriver_agent.attempts import Attempt, failed, one_line, outcome, time_left
from hakuriver_agent.engines.port import (
    Adopted,
    Ended,
    Engine,
    EngineUnavailableError,
    Key,
    StartCancelledError,
    Started,
    StartFailedError,
)
from hakuriver_agent.journal import Journal
from hakuriver_agent.share import ShareAwayError

_UP = frozenset({TaskState.RUNNING, TaskState.PAUSED})
RETRY_SECONDS = 1.0
"""Between tries at an engine or a journal that does not answer."""
KILL_AGAIN_SECONDS = 2.0

T = TypeVar("T")
log = structlog.get_logger(__name__)


Ready = Callable[[], Awaitable[None]]
"""Raises `EngineUnavailableError` while nothing may be started."""


async def always() -> None:
    """Nothing has to be waited for."""


class Reports(Protocol):
    """Where reports go: the outbox."""

    def put(self, report: AttemptReport, *, urgent: bool = False) -> None: ...

    def drop(self, key: Key) -> None: ...


class Driver:
    """Drives attempts; what it does for one touches no other."""

    def __init__(
        self,
        engines: Mapping[EngineName, Engine],
        journal: Journal,
        reports: Reports,
        kill_grace_seconds: float,
        ready: Ready,
    ) -> None:
        self._engines = engines
        self._journal = journal
        self._reports = reports
        self._grace = kill_grace_seconds
        self._ready = ready
        self._tasks: set[asyncio.Task[Any]] = set()
        self.begun = asyncio.Event()
        """Set whenever an attempt begins to run."""

    def launch(self, attempt: Attempt, spec: AttemptSpec, resumed: bool) -> None:
        """Runs an attempt to its end, which may have begun in an earlier life."""
        if not resumed:
            attempt.settled.set()
        attempt.launch.progress = lambda line: self._progress(attempt, line)
        self.spawn(self._drive(attempt, spec, resumed))

    def stop(self, attempt: Attempt) -> None:
        """Ends an attempt, whatever it is doing. Called again, it does nothing more."""
        if attempt.at_rest:
            self._end_at_rest(attempt)
            return
        attempt.launch.cancel()
        if attempt.started and attempt.stopper is None and attempt.spec is not None:
            attempt.stopper = self.spawn(self._end(self._engines[attempt.spec.engine], attempt))

    async def stop_for_now(self, attempt: Attempt, spec: AttemptSpec, why: str | None = None) -> str | None:
        """Ends a VPS that runs and keeps what is in it; tells why it could not, if it could not.

        `why` is for people, where nobody has asked for it.
        """
        async with attempt.lock:
            if attempt.at_rest or attempt.stop_requested:
                return None
            if attempt.report.status not in _UP or attempt.kill_requested or attempt.finishing:
                return f"it is {_state(attempt)}"
            if spec.task_type != "vps":
                return "it is no VPS"
            try:
                await self._journal.request_stop(spec.key)
            except StorageError as error:
                return error.message
            attempt.stop_requested, attempt.stop_cause = True, why
            self.stop(attempt)
        return None

    def rest(self, attempt: Attempt) -> None:
        """One that is stopped stays so until it is to end."""
        attempt.settled.set()
        if attempt.kill_requested:
            self._end_at_rest(attempt)
        else:
            self.limit(attempt)

    def _end_at_rest(self, attempt: Attempt) -> None:
        """Ends one that is stopped: nothing of it runs."""
        attempt.finishing = True
        limit = attempt.spec.time_limit_seconds if attempt.spec and attempt.over_time else None
        now = Ended(attempt.report.exit_code, datetime.now(UTC))
        changes = outcome(now, kill_requested=attempt.kill_requested, time_limit=limit)
        self.spawn(self._finish(attempt, changes))

    async def freeze(
        self, attempt: Attempt, spec: AttemptSpec, before: TaskState, after: TaskState
    ) -> str | None:
        """Pauses or resumes an attempt; tells why it could not, if it could not."""
        engine = self._engines[spec.engine]
        verb = engine.pause if after is TaskState.PAUSED else engine.resume
        async with attempt.lock:
            ending = attempt.kill_requested or attempt.stop_requested or attempt.finishing
            if attempt.report.status is not before or ending:
                return f"it is {_state(attempt)}, not {before}"
            try:
                await verb(spec.key)
            except (EngineUnavailableError, OSError) as error:
                return f"the {engine.name} engine cannot do it: {error}"
            if attempt.finishing or attempt.ended.is_set() or attempt.report.status is not before:
                return "it has ended"
            self._tell(attempt, status=after)
            if attempt.kill_requested:
                await self.once(lambda: engine.terminate(spec.key))
        return None

    async def once(self, verb: Callable[[], Awaitable[None]]) -> bool:
        """Tries a verb that will be tried again anyhow; whether it went well."""
        try:
            await verb()
        except (EngineUnavailableError, OSError) as error:
            log.warning("an engine could not do it now", error=str(error))
            return False
        return True

    async def patiently(self, verb: Callable[[], Awaitable[T]]) -> T:
        """Tries until engine or journal answer."""
        complained = False
        while True:
            try:
                return await verb()
            except (EngineUnavailableError, StorageError, OSError) as error:
                if not complained:
                    log.warning("waiting for engine or journal", error=str(error))
                complained = True
            await asyncio.sleep(RETRY_SECONDS)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Lets go of everything; units go on running."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _drive(self, attempt: Attempt, spec: AttemptSpec, resumed: bool) -> None:
        """Runs one attempt from its acceptance to its end."""
        engine = self._engines[spec.engine]
        try:
            started = await self._started(engine, attempt, spec, resumed)
            self._begun(attempt, started)
            ended = await engine.wait(spec.key)
            attempt.tally.rest(ended.at.timestamp(), ended.used)
            if attempt.stop_requested and not attempt.kill_requested:
                await self._come_to_rest(attempt, ended.exit_code, attempt.stop_cause)
                return
            # Which may have been set anew meanwhile.
            spec = attempt.spec or spec
            limit = spec.time_limit_seconds if attempt.over_time else None
            changes = outcome(ended, kill_requested=attempt.kill_requested, time_limit=limit)
        except StartCancelledError:
            changes = failed(TaskState.KILLED)
        except StartFailedError as error:
            if spec.run and not attempt.kill_requested and not attempt.started:
                # What is in it is kept: a person may mend what keeps it from starting.
                await self._come_to_rest(attempt, error.exit_code, f"cannot start: {error.message}")
                return
            status = TaskState.KILLED if attempt.kill_requested else TaskState.FAILED
            changes = failed(status, error.message, error.exit_code)
        except Exception as error:
            log.exception("an attempt failed by a defect", task=spec.task_id, attempt=spec.attempt)
            changes = failed(TaskState.FAILED, f"internal error of the Runner: {error}")
        await self._finish(attempt, changes)

    async def _started(self, engine: Engine, attempt: Attempt, spec: AttemptSpec, resumed: bool) -> Adopted:
        if resumed:
            ending = attempt.kill_requested or attempt.stop_requested
            adopted = await self.patiently(lambda: engine.adopt(spec, ending=ending))
            if adopted is not None:
                return adopted
            if attempt.report.status is not TaskState.ASSIGNING:
                raise StartFailedError("it is gone: neither running nor ended on this node any more")
            if not self._journal.same_boot:
                raise StartFailedError("the machine restarted while it was being started")
        return Adopted(await self._start(engine, attempt, spec), paused=False)

    async def _start(self, engine: Engine, attempt: Attempt, spec: AttemptSpec) -> Started:
        """Starts the unit; waits for the share, and for an engine that is away, since it may have begun to start it."""
        while True:
            attempt.launch.check()
            try:
                await self._ready()
                return await engine.start(spec, attempt.launch)
            except ShareAwayError as error:
                self._progress(attempt, f"waiting for the share: {error}")
            except EngineUnavailableError as error:
                self._progress(attempt, f"waiting for the {engine.name} engine: {error}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(attempt.launch.until_cancelled(), RETRY_SECONDS)

    def _begun(self, attempt: Attempt, adopted: Adopted) -> None:
        attempt.started = True
        attempt.settled.set()
        started = adopted.started
        # Of a container that was started again meanwhile the engine knows the last start only.
        at = attempt.report.started_at or started.at
        self._tell(
            attempt,
            # A person waits to log in; and unlike that of a command, its end will hardly make this worthless in a moment.
            urgent=attempt.spec is not None and attempt.spec.task_type == "vps",
            status=TaskState.PAUSED if adopted.paused else TaskState.RUNNING,
            message=None,
            started_at=at,
            unit_name=started.unit_name,
            image=started.image,
        )
        attempt.tally.begin(started.at.timestamp())
        self.begun.set()
        self.limit(attempt)
        if attempt.kill_requested or attempt.stop_requested:
            self.stop(attempt)

    def limit(self, attempt: Attempt) -> None:
        """Has it end when its time is up, which a VPS spends while it is stopped, too."""
        spec, started_at = attempt.spec, attempt.report.started_at
        if attempt.timer:
            attempt.timer.cancel()
            attempt.timer = None
        if spec is not None and spec.time_limit_seconds is not None and started_at is not None:
            left = time_left(started_at, spec.time_limit_seconds, datetime.now(UTC))
            loop = asyncio.get_running_loop()
            attempt.timer = loop.call_later(max(0.0, left), self._time_is_up, attempt)

    def _time_is_up(self, attempt: Attempt) -> None:
        if attempt.at_rest:
            attempt.over_time = True
            self._end_at_rest(attempt)
        elif not attempt.ended.is_set() and not attempt.finishing:
            attempt.over_time = True
            self.stop(attempt)

    async def _end(self, engine: Engine, attempt: Attempt) -> None:
        """SIGTERM, the grace, then SIGKILL until it has ended."""
        ended = attempt.ended
        await self.once(lambda: engine.terminate(attempt.key))
        pause = self._grace
        while not await _within(ended, pause):
            await self.once(lambda: engine.kill(attempt.key))
            pause = KILL_AGAIN_SECONDS

    async def _come_to_rest(
        self, attempt: Attempt, exit_code: int | None, message: str | None = None
    ) -> None:
        """Writes that it is stopped, then reports it; unless it was to end for good meanwhile."""
        attempt.ended.set()
        attempt.settled.set()
        if attempt.stopper is not None:
            # What it asks of the engine now must not meet the unit's next run.
            await attempt.stopper
        report = attempt.next_report(
            status=TaskState.STOPPED,
            exit_code=exit_code,
            message=one_line(message),
            usage=attempt.tally.usage(),
        )
        self._journal.note_usage({attempt.key: attempt.tally.model_dump_json()})
        await self.patiently(lambda: self._journal.stopped(report))
        attempt.report = report
        if not attempt.kill_requested:
            attempt.renew()
            self._reports.put(report, urgent=True)
        self.rest(attempt)

    async def _finish(self, attempt: Attempt, changes: dict[str, Any]) -> None:
        """Writes the end, then reports it."""
        attempt.finishing = True
        attempt.ended.set()
        attempt.settled.set()
        if attempt.timer:
            attempt.timer.cancel()
        attempt.tally.rest(time.time())  # Where nobody saw its end.
        report = attempt.next_report(**changes, usage=attempt.tally.usage())
        await self.patiently(lambda: self._journal.finish(report))
        attempt.report = report
        self._reports.put(report)

    def _tell(self, attempt: Attempt, *, urgent: bool = False, **changes: Any) -> None:
        """Reports something that is not an end."""
        attempt.report = attempt.next_report(**changes)
        self._journal.note(attempt.report)
        self._reports.put(attempt.report, urgent=urgent)

    def tell(self, attempt: Attempt, line: str | None) -> None:
        """Has people read what is going on with an attempt that runs."""
        if attempt.report.status in _UP and not attempt.finishing:
            self._tell(attempt, message=one_line(line))

    def _progress(self, attempt: Attempt, line: str) -> None:
        message = one_line(line)
        if attempt.report.message != message and not attempt.finishing:
            self._tell(attempt, message=message)


def _state(attempt: Attempt) -> str:
    """For people."""
    if attempt.kill_requested:
        return "being killed"
    return "being stopped" if attempt.stop_requested else str(attempt.report.status)


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True
