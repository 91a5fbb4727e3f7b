"""Child processes of `hakuriver up`: each with a log of its own, ended in order, and noticed when they end by themselves."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import deque
from pathlib import Path

from hakuriver.errors import HakuRiverError
from hakuriver_cli.up_plan import Daemon

_TERM_SECONDS = 20.0
_TAIL_LINES = 8


class Child:
    """One daemon that runs."""

    def __init__(self, daemon: Daemon, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = daemon.name
        self.daemon = daemon
        self.began = time.monotonic()
        self.log = log
        self._process = process
        self.ended = asyncio.ensure_future(process.wait())

    @classmethod
    async def start(cls, daemon: Daemon, logs: Path) -> Child:
        log = logs / f"{daemon.name}.log"
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *daemon.arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **daemon.environment},
                start_new_session=True,
            )
        return cls(daemon, process, log)

    async def stop(self) -> None:
        """Asks it to end, and ends it when it does not."""
        if self.ended.done():
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(asyncio.shield(self.ended), _TERM_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self.ended

    def failure(self) -> HakuRiverError:
        """What to say when it has ended by itself."""
        code = self._process.returncode
        how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        return HakuRiverError(f"the {self.name} ended {how}", f"its log is {self.log}")

    def last_lines(self) -> list[str]:
        """The end of its log."""
        with self.log.open(encoding="utf-8", errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, _TAIL_LINES)]
