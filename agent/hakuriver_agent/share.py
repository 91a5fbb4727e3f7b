"""The share as this node sees it: whose it is, whether it can be written, and whether a start may use it.

An empty mount point looks like a folder that can be written, and what is written there is lost. So the Host's marker
is looked for at each look and before each start, and nothing is ever made where it is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from hakuriver.models.runner import SHARED_MARKER
from hakuriver.threads import in_thread
from hakuriver_agent.engines.port import EngineUnavailableError
from hakuriver_agent.folders import LOGS

SECONDS = 5.0


class ShareAwayError(EngineUnavailableError):
    """What needs the share waits until it is back."""


class Share:
    """One share. All looks are in threads, each with a limit of time, one at a time of each kind."""

    def __init__(self, root: Path, node: str) -> None:
        self._root = root
        self._probe = root / LOGS[0] / f".probe-{node}"
        self._reading = _OneAtATime(self._read)
        self._writing = _OneAtATime(self._write)
        self.found: str | None = None
        """What the marker said when it was last looked at; none where there was none."""
        self._accepted: str | None = None

    async def identity(self) -> str | None:
        """What the marker says; none when it cannot be read."""
        try:
            self.found = await self._reading()
        except TimeoutError:
            self.found = None
        return self.found

    def accept(self, identity: str | None) -> None:
        """The Host says that this share is its own: starts use no other from now on."""
        self._accepted = identity

    async def problem(self) -> str | None:
        """What is wrong with it now; none when it can be written."""
        try:
            self.found = await self._reading()
            return self._missing() or await self._writing()
        except TimeoutError:
            self.found = None
            return self._hangs()

    async def check(self) -> None:
        """Whether an attempt may be started.

        Raises:
            ShareAwayError: it is not there now.
        """
        try:
            self.found = await self._reading()
        except TimeoutError:
            raise ShareAwayError(self._hangs()) from None
        if missing := self._missing():
            raise ShareAwayError(missing)

    def _missing(self) -> str | None:
        if self.found is None:
            return f"the share is not mounted at {self._root}: there is no {SHARED_MARKER} in it"
        if self._accepted is not None and self.found != self._accepted:
            return f"another share than before is mounted at {self._root}"
        return None

    def _hangs(self) -> str:
        return f"the share does not answer ({self._root})"

    def _read(self) -> str | None:
        try:
            return (self._root / SHARED_MARKER).read_text("utf-8").strip() or None
        except (OSError, UnicodeDecodeError):
            return None

    def _write(self) -> str | None:
        """Writes a byte where logs are written."""
        try:
            self._probe.write_bytes(b"\0")
            self._probe.unlink()
        except OSError as error:
            return f"cannot write to the share {self._root}: {error.strerror}"
        return None


class _OneAtATime:
    """Calls a function in a thread; who comes while it is called gets the same answer.

    So a share that hangs does not gather threads.
    """

    def __init__(self, function: Callable[[], str | None]) -> None:
        self._function = function
        self._running: asyncio.Task[str | None] | None = None

    async def __call__(self) -> str | None:
        """Raises `TimeoutError` when there is no answer in time."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(in_thread(self._function))
        return await asyncio.wait_for(asyncio.shield(self._running), SECONDS)
