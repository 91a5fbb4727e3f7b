"""How far a version is on its way: counted by the thread that loads it, told by the loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hakuriver.models.environments import SyncProgress
from hakuriver.sizes import format_duration, format_size
from hakuriver_agent.engines.port import Launch

LOOK_SECONDS = 1.0
"""Between two looks at a load, and so between two things told about it."""
HANG_SECONDS = 10.0
"""Without a byte from the share, before that is told."""
_SOON = 100.0
HANGS = "the share does not answer; going on when it does"

T = TypeVar("T")


@dataclass(slots=True)
class Meter:
    """What the thread of one load has done. Written by that thread, read by the loop."""

    total: int = 0
    """Bytes of the layers that are to come, uncompressed."""
    sent: int = 0
    unpacked: int = 0
    """Bytes that the engine has put in place: it begins once it has got all of them."""
    began: float = 0.0
    asked: float | None = None
    """Since when the share is to answer."""

    def begin(self, total: int) -> None:
        self.total, self.sent, self.unpacked = total, 0, 0
        self.began = time.monotonic()

    @property
    def done(self) -> int:
        """Sending and unpacking are half of the way each."""
        return min(self.total, (self.sent + min(self.unpacked, self.sent)) // 2)

    def hangs(self, now: float) -> bool:
        asked = self.asked
        return asked is not None and now - asked >= HANG_SECONDS

    def reading(self, function: Callable[[], T]) -> T:
        """Calls a function that reads the share."""
        self.asked = time.monotonic()
        try:
            return function()
        finally:
            self.asked = None

    def counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The pieces, which come from the share."""
        while (piece := self.reading(lambda: next(pieces, None))) is not None:
            self.sent += len(piece)
            yield piece


def seconds_left(done: int, total: int, elapsed: float) -> float | None:
    """By the pace so far; none before there is one."""
    if done <= 0 or elapsed <= 0:
        return None
    return elapsed * (total - done) / done


def line(progress: SyncProgress) -> str:
    """One line for people."""
    what = f"syncing {progress.name}@{progress.version}"
    if progress.reason:
        return f"{what}: {progress.reason}"
    if progress.state != "loading":
        return what
    text = f"{what}: {format_size(progress.done)} of {format_size(progress.total)}"
    if (left := progress.seconds_left) is None:
        return text
    return f"{text}, {left:.0f} s left" if left < _SOON else f"{text}, {format_duration(left)} left"


@dataclass(eq=False)
class Sync:
    """One version on its way into the engine, and who waits for it. Lives in the loop."""

    name: str
    version: int
    meter: Meter = field(default_factory=Meter)
    launches: list[Launch] = field(default_factory=list)
    task: asyncio.Task[str] | None = None
    """Gives the image's id."""

    def __post_init__(self) -> None:
        self.progress = SyncProgress(name=self.name, version=self.version, state="waiting")
        self._changed = asyncio.Event()

    @property
    def label(self) -> str:
        return f"{self.name}:{self.version}"

    def joined(self, launch: Launch) -> None:
        """One more attempt waits for it; it is told how things are."""
        self.launches.append(launch)
        if self.progress.state == "loading" or self.progress.reason:
            launch.progress(line(self.progress))

    def waits(self, reason: str) -> None:
        self._tell(state="waiting", reason=reason)

    def loads(self, total: int) -> None:
        self.meter.begin(total)
        self._tell(state="loading", done=0, total=total, reason=None, seconds_left=None)

    def look(self) -> None:
        """Tells how far it is."""
        meter, now = self.meter, time.monotonic()
        if meter.hangs(now):
            self._tell(reason=HANGS, done=meter.done, seconds_left=None)
        elif self.progress.state == "loading":
            left = seconds_left(meter.done, meter.total, now - meter.began)
            self._tell(reason=None, done=meter.done, seconds_left=left)
        elif self.progress.reason == HANGS:
            self._tell(reason=None)

    def ended(self, failure: str | None) -> None:
        """Whoever waits learns it by the task; only who looks on is told here."""
        if failure is None:
            changes: dict[str, Any] = {"state": "ready", "done": self.meter.total, "reason": None}
        else:
            changes = {"state": "failed", "done": self.meter.done, "reason": failure}
        self._set(total=self.meter.total, seconds_left=None, **changes)

    async def changed(self, seconds: float) -> None:
        """Waits for the next change, and no longer than that."""
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return

    def _tell(self, **changes: Any) -> None:
        if self._set(**changes):
            for launch in self.launches:
                if not launch.cancelled:
                    launch.progress(line(self.progress))

    def _set(self, **changes: Any) -> bool:
        before, self.progress = self.progress, self.progress.model_copy(update=changes)
        if before == self.progress:
            return False
        self._changed.set()
        self._changed = asyncio.Event()
        return True
