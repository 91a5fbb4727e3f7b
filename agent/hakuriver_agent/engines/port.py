"""What the supervisor asks of an engine: a few verbs that make restarts of the Runner safe.

An engine runs units: a container, or a process with its children. A unit is named by the key of its attempt and
outlives the Runner. The verbs promise:

- `start` starts a unit at most once per key and run, also when an earlier life of the Runner had begun to;
- `adopt` takes up a unit that an earlier life started, its output included;
- `wait` tells how it ended, after its output has been written;
- `remove` leaves nothing of it behind, and is called only when the Host knows the end.

The double for tests is `fake.py`; `tests/contract/test_engines.py` runs against all of them.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from hakuriver.errors import ConflictError
from hakuriver.models.environments import TerminalStart
from hakuriver.models.runner import AttemptSpec, EngineName
from hakuriver.terminals import Exec

Key = tuple[int, int]
"""Task id and attempt."""

COMMAND_NOT_FOUND = 127
COMMAND_NOT_EXECUTABLE = 126
"""The exit codes that shells give, see POSIX.1-2017, 2.8.2."""


_NO_DOORS = "only tasks in containers can be entered: submit it with --container"


@dataclass(frozen=True, slots=True)
class Started:
    at: datetime
    unit_name: str
    image: str | None = None
    """Digest of the image, if there is one."""


@dataclass(frozen=True, slots=True)
class Used:
    """What a unit has used since it started; none where that is not known."""

    cpu_seconds: float | None = None
    """Processor time of all its processes."""
    memory_bytes: int | None = None
    """Now."""
    peak_bytes: int | None = None
    """The most so far; none where the kernel keeps no account of it."""
    start: int = 0
    """Which start of the unit these are of: with another one they begin anew."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a unit ended."""

    exit_code: int | None
    """None when nobody can know it any more; 128 + number for a signal."""
    at: datetime
    oom: bool = False
    """The kernel killed something in it for want of memory, as the engine says."""
    message: str | None = None
    """What its exit code does not tell, such as output that was cut."""
    started_at: datetime | None = None
    """When it began, if the engine knows it better than `Started` did."""
    used: Used | None = None
    """All that it used, where the engine can tell of one that has ended."""


class UnitState(Enum):
    CREATED = "created"
    """Prepared, and never started."""
    RUNNING = "running"
    PAUSED = "paused"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Unit:
    """What an engine holds of one attempt."""

    key: Key
    state: UnitState
    spec: AttemptSpec
    """As the unit's label has it: command and variables may be left out."""


@dataclass(frozen=True, slots=True)
class Adopted:
    started: Started
    paused: bool


class StartFailedError(Exception):
    """The unit cannot run; the attempt fails with this message and exit code."""

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


class StartCancelledError(Exception):
    """The attempt was killed before its unit ran; nothing runs."""


class EngineUnavailableError(Exception):
    """The engine does not answer now. What was asked may be asked again."""


class Launch:
    """One start in progress: where it tells what it does, and learns that it must not go on."""

    def __init__(self, progress: Callable[[str], None] = lambda _: None) -> None:
        self.progress = progress
        """Takes a line for people; called in the loop's thread."""
        self._cancelled = asyncio.Event()

    @property
    def cancelled(self) -> bool:
        """May be read in any thread."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        self._cancelled.set()

    async def until_cancelled(self) -> None:
        await self._cancelled.wait()

    def check(self) -> None:
        """Raises `StartCancelledError` when the attempt was killed."""
        if self.cancelled:
            raise StartCancelledError


class Engine(ABC):
    """The port. Every verb but `problem` and `refusal` may raise `EngineUnavailableError`."""

    name: EngineName

    @abstractmethod
    async def problem(self) -> str | None:
        """Why the engine cannot be used now; none when it can."""

    @abstractmethod
    async def refusal(self, spec: AttemptSpec) -> str | None:
        """Why this engine can never run `spec` on this node; none when it may."""

    @abstractmethod
    async def start(self, spec: AttemptSpec, launch: Launch) -> Started:
        """Starts the unit, or finds it started. From the second run on, what is there of it is started.

        Raises:
            StartFailedError: it cannot be started.
            StartCancelledError: `launch` was cancelled before it ran.
        """

    @abstractmethod
    async def adopt(self, spec: AttemptSpec, *, ending: bool = False) -> Adopted | None:
        """Takes up a unit of an earlier life, running or ended; none when nothing of it was started.

        One that is `ending` was told to end: where it has, it is not started again.
        """

    @abstractmethod
    async def wait(self, key: Key) -> Ended:
        """Waits for the end of a unit that was started or adopted in this life, and for its output."""

    @abstractmethod
    async def terminate(self, key: Key) -> None:
        """Asks the unit to end (SIGTERM); a paused one goes on, so that it can. No error when it has ended."""

    @abstractmethod
    async def kill(self, key: Key) -> None:
        """Ends the unit and everything that it started (SIGKILL), paused or not. No error when it has ended."""

    @abstractmethod
    async def pause(self, key: Key) -> None: ...

    @abstractmethod
    async def resume(self, key: Key) -> None: ...

    @abstractmethod
    async def remove(self, key: Key) -> None:
        """Removes what is left of an ended unit, or of one that was never started. No error when nothing is."""

    @abstractmethod
    async def units(self) -> list[Unit]:
        """Everything that carries this Runner's label."""

    async def run_beside(self, key: Key, wanted: TerminalStart) -> Exec:
        """Runs another program in a running unit, as its user.

        Raises:
            ConflictError: this engine cannot, or the unit does not run.
        """
        del wanted
        raise ConflictError(f"task {key[0]} runs without container", _NO_DOORS)

    async def snapshot(self, key: Key) -> Generator[bytes]:
        """The files of a unit as they are now, running or stopped, as an archive such as `docker save` writes.

        Raises:
            ConflictError: this engine cannot, or the unit is not there.
        """
        raise ConflictError(f"task {key[0]} runs without container", _NO_DOORS)

    async def usage(self, keys: Collection[Key]) -> dict[Key, Used]:
        """What running units have used; those of which nothing is known now are left out. Costs little."""
        del keys
        return {}

    def enters_as(self, user: str | None) -> str | None:
        """Whom a program runs as that is run beside as `user`; none is whom the unit runs as."""
        return user

    async def connect(self, key: Key, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A TCP connection to what listens in a running unit, on its own loopback too.

        Raises:
            ConflictError: this engine cannot, nothing listens there, or the unit does not run.
        """
        del port
        raise ConflictError(f"task {key[0]} runs without container", _NO_DOORS)

    def holds(self) -> Sequence[str]:
        """Versions of environments that it has, as `NAME:VERSION`, when it was last looked at."""
        return ()

    @abstractmethod
    async def close(self) -> None:
        """Lets go of everything; units go on running."""
