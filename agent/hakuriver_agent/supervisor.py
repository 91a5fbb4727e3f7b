"""Starts, watches, stops and re-adopts attempts.

The promises: an attempt is in the journal before anything of it runs; it runs at most once; a kill wins at every
moment before its end is written; and its end is written once, then reported until the Host has it, then cleaned up.
All of it happens in the loop's thread; engines and journal do the slow parts elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import structlog
from pydantic import ValidationError

from hakuriver.errors import ConflictError, StorageError
from hakuriver.models.runner import (
    ActionResult,
    AttemptId,
    AttemptLimit,
    AttemptReport,
    AttemptSpec,
    EngineName,
    StartResult,
    Verdict,
    VerdictAction,
)
from hakuriver.models.usage import TaskUsage
from hakuriver.states import HOLDING, TaskState
from hakuriver_agent.attempts import Attempt, accepted, failed
from hakuriver_agent.driver import Driver, Ready, Reports, always
from hakuriver_agent.engines.port import (
    Engine,
    Key,
    Unit,
)
from hakuriver_agent.journal import Journal, Known
from hakuriver_agent.tally import Tally

PARALLEL_REMOVALS = 2
REMOVE_AGAIN_SECONDS, LONGEST_REMOVE_PAUSE = 1.0, 300.0
ACKNOWLEDGED_KEPT = timedelta(days=1)
"""How long a late repeated start of an attempt still finds it known."""

HOLD_SECONDS = 10.0
"""How long a start waits for the end of a registration; less than the Host's patience with a call."""

log = structlog.get_logger(__name__)


class Supervisor:
    """All attempts of one Runner."""

    def __init__(
        self,
        engines: Mapping[EngineName, Engine],
        journal: Journal,
        reports: Reports,
        kill_grace_seconds: float,
        ready: Ready = always,
        unusable_gpus: Callable[[Iterable[str]], dict[str, str]] = lambda _: {},
    ) -> None:
        self._engines = engines
        self._unusable_gpus = unusable_gpus
        self._journal = journal
        self._reports = reports
        self._driver = Driver(engines, journal, reports, kill_grace_seconds, ready)
        self._attempts: dict[Key, Attempt] = {}
        self._removals = asyncio.Semaphore(PARALLEL_REMOVALS)
        self._accepting = asyncio.Lock()
        self._takes_starts = asyncio.Event()
        """Set by the first registration of this life."""

    async def hold_starts(self) -> None:
        """Takes no starts until they are released; those that it was taking are in the journal, or refused, by then.

        The Host gives up what a registration does not name. So nothing may come between a look at what is here and
        the Host's answer to it.
        """
        self._takes_starts.clear()
        async with self._accepting:
            pass

    async def registered(self, verdicts: Iterable[Verdict]) -> None:
        """The Host has decided on what is here: starts may come."""
        await self.apply(verdicts)
        self._takes_starts.set()

    async def recover(self) -> None:
        """Takes up what earlier lives left: by the journal, then by the engines' labels."""
        known = await self._journal.unacknowledged()
        for entry in known:
            self._take_up(entry)
        for engine in self._engines.values():
            self._driver.spawn(self._take_up_units(engine))
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
            ConflictError: the Host is being told of what is here; nothing was accepted.
            StorageError: the journal cannot be written; nothing was accepted.
        """
        await self._until_released()
        unknown = [spec for spec in specs if self.report(spec.key) is None or self._at_rest(spec)]
        # All at once, so that one whose mounts hang holds up no other.
        reasons = await asyncio.gather(*map(self._refusal, unknown))
        refusals = {spec.key: reason for spec, reason in zip(unknown, reasons, strict=True)}
        async with self._accepting:
            if not self._takes_starts.is_set():
                raise _held()
            return await self._start(specs, refusals)

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
                # At once: a start that is on its way would go on while the kill is written.
                attempt.launch.cancel()
                stopping.append(attempt)
                results.append(_action(named))
        if stopping:
            try:
                await self._journal.request_kill(attempt.key for attempt in stopping)
            except StorageError as error:
                log.warning("a kill is not in the journal; going on", error=error.message)
        for attempt in stopping:
            self._driver.stop(attempt)
        return results

    async def stop(self, ids: Iterable[AttemptId]) -> list[ActionResult]:
        """Has VPS end and be kept; their rest comes as a report."""
        results = []
        for named in ids:
            attempt = self._attempts.get(named.key)
            if attempt is None or attempt.spec is None:
                results.append(_action(named, "it does not run on this node"))
            else:
                results.append(_action(named, await self._driver.stop_for_now(attempt, attempt.spec)))
        return results

    def stopped_when_idle(self) -> list[AttemptSpec]:
        """The running VPS that are to be stopped when nobody uses them."""
        return [
            attempt.spec
            for attempt in self._attempts.values()
            if attempt.spec is not None
            and attempt.spec.idle_stop_seconds is not None
            and attempt.report.status is TaskState.RUNNING
        ]

    async def stop_idle(self, key: Key, why: str) -> None:
        """Has a VPS end and be kept."""
        attempt = self._attempts.get(key)
        if attempt is not None and attempt.spec is not None:
            log.info("stopping a VPS", task=key[0], cause=why)
            await self._driver.stop_for_now(attempt, attempt.spec, why)

    def tell(self, key: Key, line: str | None) -> None:
        """Has people read what is going on with an attempt."""
        attempt = self._attempts.get(key)
        if attempt is not None:
            self._driver.tell(attempt, line)

    async def limit(self, limits: Iterable[AttemptLimit]) -> list[ActionResult]:
        """Sets time limits anew; each counts from the attempt's start."""
        results = []
        for named in limits:
            attempt = self._attempts.get(named.key)
            if attempt is None or attempt.spec is None or attempt.final or attempt.finishing:
                results.append(_action(named, "it does not run on this node"))
                continue
            if attempt.starting:
                results.append(_action(named, "it is being started"))
                continue
            limit = {"time_limit_seconds": named.time_limit_seconds}
            try:
                await self._journal.respecify(attempt.spec.model_copy(update=limit))
            except StorageError as error:
                results.append(_action(named, error.message))
                continue
            attempt.spec = attempt.spec.model_copy(update=limit)
            if not attempt.starting:  # Else its start arms the limit.
                self._driver.limit(attempt)
            results.append(_action(named))
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
                    self._driver.spawn(self._remove(self._engines.get(attempt.spec.engine), key))

    def report(self, key: Key) -> AttemptReport | None:
        attempt = self._attempts.get(key)
        return attempt.report if attempt else None

    def reports(self) -> list[AttemptReport]:
        """Of every attempt whose end the Host may not know."""
        return [attempt.report for attempt in self._attempts.values()]

    def spec(self, key: Key) -> AttemptSpec | None:
        attempt = self._attempts.get(key)
        return attempt.spec if attempt else None

    def ended(self, key: Key) -> asyncio.Event:
        """Set once what runs of it now has ended; it may be started again after that."""
        return self._attempts[key].ended

    def specs(self) -> list[AttemptSpec]:
        """Of all attempts whose end the Host may not know."""
        return [attempt.spec for attempt in self._attempts.values() if attempt.spec is not None]

    @property
    def begun(self) -> asyncio.Event:
        """Set whenever an attempt begins to run."""
        return self._driver.begun

    def measurable(self) -> list[Attempt]:
        """Those that run, to be looked at."""
        return [attempt for attempt in self._attempts.values() if attempt.measurable]

    def usage(self) -> dict[Key, TaskUsage]:
        """What those that run have used so far, as far as it is known."""
        found = {attempt.key: attempt.tally.usage() for attempt in self.measurable()}
        return {key: usage for key, usage in found.items() if usage is not None}

    def note_usage(self) -> None:
        """Has the journal keep what is known of those that run, soon."""
        self._journal.note_usage(
            {attempt.key: attempt.tally.model_dump_json() for attempt in self.measurable()}
        )

    @property
    def running(self) -> list[Key]:
        """Those that have not ended and are not stopped."""
        return [key for key, attempt in self._attempts.items() if attempt.report.status in HOLDING]

    async def close(self) -> None:
        """Lets go of everything; units go on running."""
        self.note_usage()
        for attempt in self._attempts.values():
            if attempt.timer:
                attempt.timer.cancel()
        await self._driver.close()

    async def _until_released(self) -> None:
        """The Host sends the first starts while its answer to a registration is still on its way."""
        if not self._takes_starts.is_set():
            try:
                await asyncio.wait_for(self._takes_starts.wait(), HOLD_SECONDS)
            except TimeoutError:
                raise _held() from None

    async def _start(
        self, specs: Sequence[AttemptSpec], refusals: Mapping[Key, str | None]
    ) -> list[StartResult]:
        results: dict[Key, StartResult] = {}
        new: dict[Key, Attempt] = {}
        for spec in specs:
            again = self._at_rest(spec)
            if (report := self.report(spec.key)) and not again:
                ending = report.status is TaskState.STOPPED and spec.run > report.run
                results[spec.key] = (
                    _result(spec, "refused", reason="it is being ended")
                    if ending
                    else _result(spec, "known", report)
                )
            elif reason := refusals.get(spec.key):
                gpus = list(self._unusable_gpus(spec.gpus))
                results[spec.key] = _result(spec, "refused", reason=reason, gpus=gpus)
            elif again:
                results[spec.key] = await self._start_again(spec)
            elif spec.run:
                results[spec.key] = _result(spec, "refused", reason="what was in it is here no more")
            else:
                new[spec.key] = self._attempts[spec.key] = Attempt(spec, accepted(spec))
        known = await self._accept(new)
        for key, attempt in new.items():
            spec = _spec_of(attempt)
            if key in known:
                del self._attempts[key]
                results[key] = _result(spec, "known", known[key])
            else:
                self._driver.launch(attempt, spec, resumed=False)
                results[key] = _result(spec, "accepted", attempt.report)
        return [results[spec.key] for spec in specs]

    def _at_rest(self, spec: AttemptSpec) -> bool:
        """Whether it is a stopped VPS that this start has run again."""
        attempt = self._attempts.get(spec.key)
        return attempt is not None and attempt.at_rest and spec.run > attempt.report.run

    async def _start_again(self, spec: AttemptSpec) -> StartResult:
        attempt = self._attempts[spec.key]
        report = attempt.next_report(
            status=TaskState.ASSIGNING, run=spec.run, exit_code=None, message=None, cpus=spec.cpus
        )
        attempt.starting = True
        if attempt.timer:
            attempt.timer.cancel()
        try:
            await self._journal.start_again(spec, report)
        except StorageError:
            attempt.starting = False
            self._driver.rest(attempt)
            raise
        attempt.spec, attempt.report, attempt.starting = spec, report, False
        self._driver.launch(attempt, spec, resumed=False)
        return _result(spec, "accepted", report)

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

    async def _refusal(self, spec: AttemptSpec) -> str | None:
        engine = self._engines.get(spec.engine)
        if engine is None:
            return f"this node has no {spec.engine} engine"
        if unusable := self._unusable_gpus(spec.gpus):
            return "; ".join(unusable.values())
        return await engine.refusal(spec)

    def _take_up(self, entry: Known) -> None:
        first = self._journal.first_sequence
        attempt = Attempt(
            entry.spec,
            entry.report,
            first,
            kill_requested=entry.kill_requested,
            stop_requested=entry.stop_requested,
            tally=_tally_of(entry),
        )
        self._attempts[attempt.key] = attempt
        if attempt.final:
            attempt.finishing = True
            attempt.settled.set()
            self._reports.put(attempt.report)
        elif attempt.at_rest:
            self._driver.rest(attempt)
        elif entry.spec is not None:
            if attempt.kill_requested:
                attempt.launch.cancel()
            self._driver.launch(attempt, entry.spec, resumed=True)

    async def _take_up_units(self, engine: Engine) -> None:
        """Finds units that the journal does not hold: removes known ends, takes up the others."""
        units = await self._driver.patiently(engine.units)
        for unit in units:
            if unit.key not in self._attempts:
                await self._take_up_unit(engine, unit)

    async def _take_up_unit(self, engine: Engine, unit: Unit) -> None:
        report = accepted(unit.spec)
        known = await self._driver.patiently(lambda: self._journal.accept([(unit.spec, report)]))
        if unit.key in self._attempts:
            return
        if known:
            self._driver.spawn(self._remove(engine, unit.key))
        else:
            log.warning("took up a unit that the journal does not know", unit=f"{unit.key[0]}-{unit.key[1]}")
            report.status = TaskState.RUNNING
            self._take_up(Known(unit.spec, report, kill_requested=False))

    async def _freeze(self, named: AttemptId, before: TaskState, after: TaskState) -> ActionResult:
        attempt = self._attempts.get(named.key)
        if attempt is None or attempt.spec is None:
            return _action(named, "it does not run on this node")
        return _action(named, await self._driver.freeze(attempt, attempt.spec, before, after))

    async def _bury(self, named: AttemptId) -> ActionResult:
        """Kills an attempt that has not come yet: it can never start."""
        changes = failed(TaskState.KILLED, "killed before it started")
        report = AttemptReport(task_id=named.task_id, attempt=named.attempt, sequence=1, **changes)
        known = await self._journal.tombstone(report)
        if known is not None:
            return _action(named, f"it has ended ({known.status})")
        self._take_up(Known(None, report, kill_requested=True))
        return _action(named)

    async def _remove(self, engine: Engine | None, key: Key) -> None:
        """Until the engine has removed it: one that is away or busy now would keep it until the next life."""
        pause = REMOVE_AGAIN_SECONDS
        while engine is not None and not await self._try_to_remove(engine, key):
            await asyncio.sleep(pause)
            pause = min(LONGEST_REMOVE_PAUSE, 2 * pause)

    async def _try_to_remove(self, engine: Engine, key: Key) -> bool:
        async with self._removals:
            return await self._driver.once(lambda: engine.remove(key))


def _held() -> ConflictError:
    return ConflictError(
        "the Runner is registering and takes no starts until that is done",
        "the Host sends them again by itself",
    )


def _tally_of(entry: Known) -> Tally:
    """What an earlier life knew of it; an older or newer version may have written it in its own way."""
    try:
        return Tally.model_validate_json(entry.tally) if entry.tally else Tally()
    except ValidationError:
        return Tally()


def _spec_of(attempt: Attempt) -> AttemptSpec:
    assert attempt.spec is not None  # noqa: S101 - only an attempt that was killed before it came has none
    return attempt.spec


def _result(
    spec: AttemptSpec,
    outcome_: Any,
    report: AttemptReport | None = None,
    reason: str | None = None,
    gpus: Sequence[str] = (),
) -> StartResult:
    return StartResult(
        task_id=spec.task_id,
        attempt=spec.attempt,
        outcome=outcome_,
        report=report,
        reason=reason,
        unusable_gpus=list(gpus),
    )


def _action(named: AttemptId, reason: str | None = None) -> ActionResult:
    return ActionResult(task_id=named.task_id, attempt=named.attempt, ok=reason is None, reason=reason)
