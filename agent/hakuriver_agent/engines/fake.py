"""The double of an engine: units that live in memory, and do what a test says.

A `FakeWorld` is what outlives the Runner; a `FakeEngine` is one life's view of it. Programs are a few words that the
double understands, see `FakeWorld.begin`. A test can also make verbs hang or fail.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from hakuriver.models.runner import AttemptSpec, EngineName
from hakuriver_agent.engines.commands import task_variables
from hakuriver_agent.engines.port import (
    COMMAND_NOT_FOUND,
    Adopted,
    Ended,
    Engine,
    EngineUnavailableError,
    Key,
    Launch,
    Started,
    StartFailedError,
    Unit,
    UnitState,
    Used,
)

SIGTERM_CODE, SIGKILL_CODE = 143, 137


@dataclass(slots=True, eq=False)
class FakeUnit:
    """A unit of the double's."""

    spec: AttemptSpec
    state: UnitState
    started_at: datetime
    deaf: bool = False
    """Ignores SIGTERM."""
    ended: Ended | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)


class FakeWorld:
    """The units of one machine, over all lives of its Runner."""

    def __init__(self, shared: Path) -> None:
        self.shared = shared
        self.units: dict[Key, FakeUnit] = {}
        self.used: dict[Key, Used] = {}
        """What units have used, by now or in all."""
        self.starts: list[Key] = []
        """Each start that really happened, in order."""
        self.away = False
        """The engine does not answer."""

    def begin(self, spec: AttemptSpec) -> FakeUnit:
        """Runs a program: `exit N [oom]`, `wait`, `deaf`, `print TEXT`, `complain TEXT`, `variable NAME`, `arguments` or
        `use SECONDS BYTES`, which waits.
        """
        unit = FakeUnit(spec, UnitState.RUNNING, datetime.now(UTC))
        self.units[spec.key] = unit
        self.starts.append(spec.key)
        text, code, oom = "", 0, False
        match spec.command:
            case "wait":
                return unit
            case "deaf":
                unit.deaf = True
                return unit
            case "use":
                self.used[spec.key] = Used(float(spec.arguments[0]), 0, int(spec.arguments[1]))
                return unit
            case "exit":
                code, oom = int(spec.arguments[0]), "oom" in spec.arguments
            case "print" | "complain":
                text = "".join(spec.arguments)
            case "variable":
                text = task_variables(spec, "fake", "/local_temp", "/shared")[spec.arguments[0]]
            case "arguments":
                text = "\n".join(spec.arguments)
            case other:
                del self.units[spec.key]
                raise StartFailedError(f"cannot execute {other}: not found", COMMAND_NOT_FOUND)
        self._write(spec, text)
        self.end(spec.key, code, oom=oom)
        return unit

    def end(self, key: Key, exit_code: int | None, *, oom: bool = False, message: str | None = None) -> None:
        """A unit ends."""
        unit = self.units[key]
        if unit.ended is None:
            unit.ended = Ended(exit_code, datetime.now(UTC), oom, message, used=self.used.get(key))
            unit.state = UnitState.ENDED
            unit.over.set()

    def _write(self, spec: AttemptSpec, text: str) -> None:
        path = self.shared / (spec.stderr_path if spec.command == "complain" else spec.stdout_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8", "surrogateescape"))


class FakeEngine(Engine):
    """See `Engine`. `gates` hold up verbs by name until their event is set."""

    def __init__(self, world: FakeWorld, name: EngineName = "docker") -> None:
        self.name = name
        self.world = world
        self.gates: dict[str, asyncio.Event] = {}
        self.entered: dict[str, asyncio.Event] = {}
        """Set when a gated verb is reached."""
        self.removed: list[Key] = []

    def gate(self, verb: str) -> asyncio.Event:
        """Holds up `verb` from now on; set the event to let it go on."""
        self.gates[verb], self.entered[verb] = asyncio.Event(), asyncio.Event()
        return self.gates[verb]

    async def problem(self) -> str | None:
        return "it is away" if self.world.away else None

    async def refusal(self, spec: AttemptSpec) -> str | None:
        return "the double runs nothing privileged" if spec.privileged else None

    async def start(self, spec: AttemptSpec, launch: Launch) -> Started:
        await self._prepare(launch)
        launch.check()
        async with self._gated("start"):
            unit = self.world.units.get(spec.key)
            if spec.run and unit is None:
                raise StartFailedError("it is gone")
            if unit is None or (spec.run > unit.spec.run and unit.ended is not None):
                unit = self.world.begin(spec)
        return Started(unit.started_at, f"fake-{spec.task_id}-{spec.attempt}", "sha256:fake")

    async def adopt(self, spec: AttemptSpec, *, ending: bool = False) -> Adopted | None:
        del ending  # Nothing is started again unasked here.
        async with self._gated("adopt"):
            unit = self.world.units.get(spec.key)
            if unit is None or unit.state is UnitState.CREATED:
                return None
            started = Started(unit.started_at, f"fake-{spec.task_id}-{spec.attempt}", "sha256:fake")
            return Adopted(started, unit.state is UnitState.PAUSED)

    async def wait(self, key: Key) -> Ended:
        unit = self.world.units[key]
        await unit.over.wait()
        assert unit.ended is not None  # noqa: S101 - `over` is set after it
        return unit.ended

    async def terminate(self, key: Key) -> None:
        async with self._gated("terminate"):
            if (unit := self.world.units.get(key)) and not unit.deaf:
                self.world.end(key, SIGTERM_CODE)

    async def kill(self, key: Key) -> None:
        async with self._gated("kill"):
            if key in self.world.units:
                self.world.end(key, SIGKILL_CODE)

    async def pause(self, key: Key) -> None:
        async with self._gated("pause"):
            self._set_state(key, UnitState.PAUSED)

    async def resume(self, key: Key) -> None:
        async with self._gated("resume"):
            self._set_state(key, UnitState.RUNNING)

    async def remove(self, key: Key) -> None:
        async with self._gated("remove"):
            self.world.units.pop(key, None)
            self.removed.append(key)

    async def usage(self, keys: Collection[Key]) -> dict[Key, Used]:
        async with self._gated("usage"):
            return {key: self.world.used[key] for key in keys if key in self.world.used}

    async def units(self) -> list[Unit]:
        async with self._gated("units"):
            return [Unit(key, unit.state, unit.spec) for key, unit in self.world.units.items()]

    async def close(self) -> None:
        return

    def _set_state(self, key: Key, state: UnitState) -> None:
        unit = self.world.units.get(key)
        if unit is not None and unit.ended is None:
            unit.state = state

    async def _prepare(self, launch: Launch) -> None:
        """Like a real engine's preparation: a kill ends the waiting."""
        if "prepare" not in self.gates:
            return
        self.entered["prepare"].set()
        launch.progress("preparing")
        waits = [
            asyncio.create_task(self.gates["prepare"].wait()),
            asyncio.create_task(launch.until_cancelled()),
        ]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    @contextlib.asynccontextmanager
    async def _gated(self, verb: str) -> AsyncIterator[None]:
        if verb in self.gates:
            self.entered[verb].set()
            await self.gates[verb].wait()
        if self.world.away:
            raise EngineUnavailableError("the double is away")
        yield
