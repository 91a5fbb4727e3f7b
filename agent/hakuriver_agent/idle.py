"""VPS that nobody uses, and that their owners want stopped then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from hakuriver.models.runner import EngineName
from hakuriver.sizes import format_duration
from hakuriver_agent.api.doors import Guests
from hakuriver_agent.devices.gpus import Gpus
from hakuriver_agent.engines.port import Engine, EngineUnavailableError, Key
from hakuriver_agent.supervisor import Supervisor

LOOK_SECONDS = 5.0
BUSY_CORES = 0.05
"""Processor time for each second above which it is in use: a server that waits takes less."""
LONGEST_WARNING_SECONDS = 600.0


@dataclass(slots=True)
class Use:
    """Of one VPS, the pure rule: for how long it has not been used. Times are seconds of a monotonic clock."""

    since: float
    """Nobody has used it from then on, as far as is known."""
    seen: float
    cpu_seconds: float | None = None
    warned: bool = False

    def look(self, now: float, cpu_seconds: float | None, *, used: bool) -> float:
        """Seconds for which it has not been used. `used` says that it is, whatever its processor time says.

        Where the engine does not tell of its processor time, it counts as used: nothing is stopped for want of knowledge.
        """
        before, self.cpu_seconds = self.cpu_seconds, cpu_seconds
        if before is None or cpu_seconds is None:
            busy = cpu_seconds is None
        else:
            busy = cpu_seconds - before > BUSY_CORES * (now - self.seen)
        if busy or used:
            self.since = now
        self.seen = now
        return now - self.since


def warning_seconds(limit: float) -> float:
    """For how long before its stop it is said that a VPS will be stopped."""
    return min(LONGEST_WARNING_SECONDS, limit / 2)


class IdleWatch:
    """Looks at the VPS that are to be stopped when nobody uses them."""

    def __init__(
        self, supervisor: Supervisor, engines: Mapping[EngineName, Engine], guests: Guests, gpus: Gpus
    ) -> None:
        self._supervisor, self._engines, self._guests, self._gpus = supervisor, engines, guests, gpus
        self._uses: dict[Key, Use] = {}

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Looks at each once; warns of those that will be stopped, and stops those whose time is up."""
        watched = {spec.key: spec for spec in self._supervisor.stopped_when_idle()}
        self._guests.forget_all_but(watched)
        self._uses = {key: use for key, use in self._uses.items() if key in watched}
        for key, spec in watched.items():
            cpu_seconds = await self._cpu_seconds(spec.engine, key)
            connected = self._guests.were_there(key)
            now, limit = time.monotonic(), float(spec.idle_stop_seconds or 0)
            use = self._uses.setdefault(key, Use(now, now))
            idle = use.look(now, cpu_seconds, used=connected or self._gpus.busy(spec.gpus))
            if idle >= limit:
                await self._supervisor.stop_idle(key, f"nobody has used it for {format_duration(idle)}")
                continue
            warn = idle >= limit - warning_seconds(limit)
            if warn != use.warned:
                use.warned = warn
                left = format_duration(limit - idle)
                self._supervisor.tell(key, f"nobody uses it; it is stopped in {left}" if warn else None)

    async def _cpu_seconds(self, engine: EngineName, key: Key) -> float | None:
        try:
            used = (await self._engines[engine].usage([key])).get(key)
        except EngineUnavailableError:
            return None
        return None if used is None else used.cpu_seconds
