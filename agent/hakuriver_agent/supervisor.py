"""Starts, watches, stops and re-adopts attempts.

The promises: an attempt is in the journal before anything of it runs; it runs at most once; a kill wins at every
moment before its end is written; and its end is written once, then reported until the Host has it, then cleaned up.
All of it happens in the loop's thread; engines and journal do the slow parts elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

import structlog

from hakuriver.errors import StorageError
from hakuriver.models.runner import (
    ActionResult,
    AttemptId,
    AttemptReport,
    AttemptSpec,
    EngineName,
    StartResult,
    Verdict,
    VerdictAction,
)
from hakuriver.states import TaskState
from hakuriver_agent.attempts import Attempt, accepted, one_line, outcome, time_left
from hakuriver_agent.engines.port import (
    Adopted,
    Engine,
    EngineUnavailableError,
    Key,
    StartCancelledError,
    Started,
    StartFailedError,
    Unit,
)
from hakuriver_agent.journal import Journal, Known

RETRY_SECONDS = 1.0
"""Between tries at an engine or a journal that does not answer."""
KILL_AGAIN_SECONDS = 2.0
PARALLEL_REMOVALS = 2

T = TypeVar("T")
log = structlog.get_logger(__name__)


class Reports(Protocol):
    """Where reports go: the outbox."""

    def put(self, report: AttemptReport) -> None: ...

    def drop(self, key: Key) -> None: ...


class Supervisor:
    """All attempts of one Runner."""

    def __init__(
        self,
        engines: Mapping[EngineName, Engine],
        journal: Journal,
        reports: Reports,
        kill_grace_seconds: float,
    ) -> None:
        self._engines = engines
        self._journal = journal
        self._reports = reports
        self._grace = kill_grace_seconds
        self._attempts: dict[Key, Attempt] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._removals = asyncio.Semaphore(PARALLEL_REMOVALS)

    async def recover(self) -> None:
        """Takes up what earlier lives left: by the journal, then by the engines' labels."""
        known = await self._journal.unacknowledged()
        for entry in known:
            self._take_up(entry)
        for engine in self._engines.values():
            self._spawn(self._take_up_units(engine))
        if known:
            log.info("took up attempts of an earlier life", attempts=len(known))

    async def settled(self, seconds: float) -> None:
        """Waits until it is known how what earlier lives left is now; not for ever, since an engine may be away."""
        waits = [attempt.settled.wait() for attempt in self._attempts.values()]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*waits), seconds)

    async def start(self, specs: Sequence[AttemptSpec]) -> list[StartResult]:
        """Accepts attempts durably and has them started; see `StartResult` for the outcomes.

        Raises:
            StorageError: the journal cannot be written; nothing was accepted.
        """
        results: dict[Key, StartResult] = {}
        new: dict[Key, Attempt] = {}
        for spec in specs:
            if report := self.report(spec.key):
                results[spec.key] = _result(spec, "known", report)
            elif reason := await self._refusal(spec):
                results[spec.key] = _result(spec, "refused", reason=reason)
            else:
                new[spec.key] = self._attempts[spec.key] = Attempt(spec, accepted(spec))
        known = await self._accept(new)
        for key, attempt in new.items():
            spec = _spec_of(attempt)
            if key in known:
                del self._attempts[key]
                results[key] = _result(spec, "known", known[key])
            else:
                self._launch(attempt, spec, resumed=False)
                results[key] = _result(spec, "accepted", attempt.report)
        return [results[spec.key] for spec in specs]

    async def kill(self, ids: Iterable[AttemptId]) -> list[ActionResult]:
        """Kills attempts, in whatever state; one that is not known can never start afterwards."""
        results, stopping = [], []
        for named in ids:
            attempt = self._attempts.get(named.key)
            if attempt is None:
                results.append(await self._bury(named))
            elif attempt.final or attempt.finishing:
                results.append(_action(named, f"it has ended ({attempt.report.status})"))
            else:
                attempt.kill_requested = True
                stopping.append(attempt)
                results.append(_action(named))
        if stopping:
            try:
                await self._journal.request_kill(attempt.key for attempt in stopping)
            except StorageError as error:
                log.warning("a kill is not in the journal; going on", error=error.message)
        for attempt in stopping:
            self._stop(attempt)
        return results

    async def pause(self, ids: Iterable[AttemptId]) -> list[ActionResult]:
        return [await self._freeze(named, TaskState.RUNNING, TaskState.PAUSED) for named in ids]

    async def resume(self, ids: Iterable[AttemptId]) -> list[ActionResult]:
        return [await self._freeze(named, TaskState.PAUSED, TaskState.RUNNING) for named in ids]

    async def apply(self, verdicts: Iterable[Verdict]) -> None:
        """Does what the Host decided about attempts that it was told of."""
        kill = []
        for verdict in verdicts:
            attempt = self._attempts.get(verdict.key)
            if attempt is None or verdict.action is VerdictAction.KEEP:
                continue
            if attempt.final:
                self._reports.drop(verdict.key)
                self.acknowledge([verdict.key])
            elif verdict.action is VerdictAction.KILL:
                kill.append(verdict)
        if kill:
            log.warning(
                "the Host does not want these attempts", attempts=[f"{v.task_id}-{v.attempt}" for v in kill]
            )
            await self.kill(kill)

    def acknowledge(self, keys: Iterable[Key]) -> None:
        """The ends of these attempts are on the Host's record: cleans up."""
        for key in keys:
            attempt = self._attempts.get(key)
            if attempt is not None and attempt.final:
                del self._attempts[key]
                self._journal.acknowledge([key])
                if attempt.spec is not None:
                    self._spawn(self._remove(self._engines.get(attempt.spec.engine), key))

    def report(self, key: Key) -> AttemptReport | None:
        attempt = self._attempts.get(key)
        return attempt.report if attempt else None

    def reports(self) -> list[AttemptReport]:
        """Of every attempt whose end the Host may not know."""
        return [attempt.report for attempt in self._attempts.values()]

    def spec(self, key: Key) -> AttemptSpec | None:
        attempt = self._attempts.get(key)
        return attempt.spec if attempt else None

    @property
    def running(self) -> list[Key]:
        return [key for key, attempt in self._attempts.items() if not attempt.final]

    async def close(self) -> None:
        """Lets go of everything; units go on running."""
        for attempt in self._attempts.values():
            if attempt.timer:
                attempt.timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, new: dict[Key, Attempt]) -> dict[Key, AttemptReport]:
        """Writes new attempts, which a kill finds from now on."""
        if not new:
            return {}
        try:
            return await self._journal.accept((_spec_of(attempt), attempt.report) for attempt in new.values())
        except StorageError:
            for key in new:
                del self._attempts[key]
            raise

    def _launch(self, attempt: Attempt, spec: AttemptSpec, resumed: bool) -> None:
        if not resumed:
            attempt.settled.set()
        attempt.launch.progress = lambda line: self._progress(attempt, line)
        attempt.driver = self._spawn(self._drive(attempt, spec, resumed))

    async def _refusal(self, spec: AttemptSpec) -> str | None:
        engine = self._engines.get(spec.engine)
        if engine is None:
            return f"this node has no {spec.engine} engine"
        return await engine.refusal(spec)

    def _take_up(self, entry: Known) -> None:
        first = self._journal.first_sequence
        attempt = Attempt(entry.spec, entry.report, first, kill_requested=entry.kill_requested)
        self._attempts[attempt.key] = attempt
        if attempt.final:
            attempt.finishing = True
            attempt.settled.set()
            self._reports.put(attempt.report)
        elif entry.spec is not None:
            if attempt.kill_requested:
                attempt.launch.cancel()
            self._launch(attempt, entry.spec, resumed=True)

    async def _take_up_units(self, engine: Engine) -> None:
        """Finds units that the journal does not hold: removes known ends, takes up the others."""
        units = await self._patiently(engine.units)
        for unit in units:
            if unit.key not in self._attempts:
                await self._take_up_unit(engine, unit)

    async def _take_up_unit(self, engine: Engine, unit: Unit) -> None:
        report = accepted(unit.spec)
        known = await self._patiently(lambda: self._journal.accept([(unit.spec, report)]))
        if unit.key in self._attempts:
            return
        if known:
            await self._remove(engine, unit.key)
        else:
            log.warning("took up a unit that the journal does not know", unit=f"{unit.key[0]}-{unit.key[1]}")
            report.status = TaskState.RUNNING
            self._take_up(Known(unit.spec, report, kill_requested=False))

    async def _drive(self, attempt: Attempt, spec: AttemptSpec, resumed: bool) -> None:
        """Runs one attempt from its acceptance to its end."""
        engine = self._engines[spec.engine]
        try:
            started = await self._started(engine, attempt, spec, resumed)
            self._begun(attempt, spec, started)
            ended = await engine.wait(spec.key)
            limit = spec.time_limit_seconds if attempt.over_time else None
            changes = outcome(ended, kill_requested=attempt.kill_requested, time_limit=limit)
        except StartCancelledError:
            changes = _failed(TaskState.KILLED)
        except StartFailedError as error:
            status = TaskState.KILLED if attempt.kill_requested else TaskState.FAILED
            changes = _failed(status, error.message, error.exit_code)
        except Exception as error:
            log.exception("an attempt failed by a defect", task=spec.task_id, attempt=spec.attempt)
            changes = _failed(TaskState.FAILED, f"internal error of the Runner: {error}")
        await self._finish(attempt, changes)

    async def _started(self, engine: Engine, attempt: Attempt, spec: AttemptSpec, resumed: bool) -> Adopted:
        if resumed:
            adopted = await self._patiently(lambda: engine.adopt(spec))
            if adopted is not None:
                return adopted
            if attempt.report.status is not TaskState.ASSIGNING:
                raise StartFailedError("it is gone: neither running nor ended on this node any more")
            if not self._journal.same_boot:
                raise StartFailedError("the machine restarted while it was being started")
        return Adopted(await self._start(engine, attempt, spec), paused=False)

    async def _start(self, engine: Engine, attempt: Attempt, spec: AttemptSpec) -> Started:
        """Starts the unit; waits for an engine that is away, since it may have begun to start it."""
        while True:
            attempt.launch.check()
            try:
                return await engine.start(spec, attempt.launch)
            except EngineUnavailableError as error:
                self._progress(attempt, f"waiting for the {engine.name} engine: {error}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(attempt.launch.until_cancelled(), RETRY_SECONDS)

    def _begun(self, attempt: Attempt, spec: AttemptSpec, adopted: Adopted) -> None:
        attempt.started = True
        attempt.settled.set()
        started = adopted.started
        self._tell(
            attempt,
            status=TaskState.PAUSED if adopted.paused else TaskState.RUNNING,
            message=None,
            started_at=started.at,
            unit_name=started.unit_name,
            image=started.image,
        )
        if spec.time_limit_seconds is not None:
            left = time_left(started.at, spec.time_limit_seconds, datetime.now(UTC))
            loop = asyncio.get_running_loop()
            attempt.timer = loop.call_later(max(0.0, left), self._time_is_up, attempt)
        if attempt.kill_requested:
            self._stop(attempt)

    def _time_is_up(self, attempt: Attempt) -> None:
        if not attempt.ended.is_set() and not attempt.finishing:
            attempt.over_time = True
            self._stop(attempt)

    def _stop(self, attempt: Attempt) -> None:
        attempt.launch.cancel()
        if attempt.started and attempt.stopper is None and attempt.spec is not None:
            attempt.stopper = self._spawn(self._end(self._engines[attempt.spec.engine], attempt))

    async def _end(self, engine: Engine, attempt: Attempt) -> None:
        """SIGTERM, the grace, then SIGKILL until it has ended."""
        await self._once(lambda: engine.terminate(attempt.key))
        pause = self._grace
        while not await _within(attempt.ended, pause):
            await self._once(lambda: engine.kill(attempt.key))
            pause = KILL_AGAIN_SECONDS

    async def _finish(self, attempt: Attempt, changes: dict[str, Any]) -> None:
        """Writes the end, then reports it."""
        attempt.finishing = True
        attempt.ended.set()
        attempt.settled.set()
        if attempt.timer:
            attempt.timer.cancel()
        report = attempt.next_report(**changes)
        await self._patiently(lambda: self._journal.finish(report))
        attempt.report = report
        self._reports.put(report)

    def _tell(self, attempt: Attempt, **changes: Any) -> None:
        """Reports something that is not an end."""
        attempt.report = attempt.next_report(**changes)
        self._journal.note(attempt.report)
        self._reports.put(attempt.report)

    def _progress(self, attempt: Attempt, line: str) -> None:
        message = one_line(line)
        if attempt.report.message != message and not attempt.finishing:
            self._tell(attempt, message=message)

    async def _freeze(self, named: AttemptId, before: TaskState, after: TaskState) -> ActionResult:
        attempt = self._attempts.get(named.key)
        if attempt is None or attempt.spec is None:
            return _action(named, "it does not run on this node")
        engine = self._engines[attempt.spec.engine]
        verb = engine.pause if after is TaskState.PAUSED else engine.resume
        async with attempt.lock:
            if attempt.report.status is not before or attempt.kill_requested or attempt.finishing:
                state = "being killed" if attempt.kill_requested else str(attempt.report.status)
                return _action(named, f"it is {state}, not {before}")
            try:
                await verb(named.key)
            except (EngineUnavailableError, OSError) as error:
                return _action(named, f"the {engine.name} engine cannot do it: {error}")
            if attempt.finishing or attempt.ended.is_set():
                return _action(named, "it has ended")
            self._tell(attempt, status=after)
            if attempt.kill_requested:
                await self._once(lambda: engine.terminate(named.key))
        return _action(named)

    async def _bury(self, named: AttemptId) -> ActionResult:
        """Kills an attempt that has not come yet: it can never start."""
        changes = _failed(TaskState.KILLED, "killed before it started")
        report = AttemptReport(task_id=named.task_id, attempt=named.attempt, sequence=1, **changes)
        known = await self._journal.tombstone(report)
        if known is not None:
            return _action(named, f"it has ended ({known.status})")
        self._take_up(Known(None, report, kill_requested=True))
        return _action(named)

    async def _remove(self, engine: Engine | None, key: Key) -> None:
        if engine is None:
            return
        async with self._removals:
            await self._once(lambda: engine.remove(key))

    async def _once(self, verb: Callable[[], Awaitable[None]]) -> None:
        """Tries a verb that will be tried again anyhow."""
        try:
            await verb()
        except (EngineUnavailableError, OSError) as error:
            log.warning("an engine could not do it now", error=str(error))

    async def _patiently(self, verb: Callable[[], Awaitable[T]]) -> T:
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

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


ACKNOWLEDGED_KEPT = timedelta(days=1)
"""How long a late repeated start of an attempt still finds it known."""


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True


def _spec_of(attempt: Attempt) -> AttemptSpec:
    assert attempt.spec is not None  # noqa: S101 - only an attempt that was killed before it came has none
    return attempt.spec


def _failed(status: TaskState, message: str | None = None, exit_code: int | None = None) -> dict[str, Any]:
    return {
        "status": status,
        "message": one_line(message),
        "exit_code": exit_code,
        "completed_at": datetime.now(UTC),
    }


def _result(
    spec: AttemptSpec, outcome_: Any, report: AttemptReport | None = None, reason: str | None = None
) -> StartResult:
    return StartResult(
        task_id=spec.task_id, attempt=spec.attempt, outcome=outcome_, report=report, reason=reason
    )


def _action(named: AttemptId, reason: str | None = None) -> ActionResult:
    return ActionResult(task_id=named.task_id, attempt=named.attempt, ok=reason is None, reason=reason)
