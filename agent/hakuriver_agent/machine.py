"""What this node tells the Host about itself: at registration, and with each heartbeat."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping

from hakuriver.config import Settings
from hakuriver.cores import usable_cores
from hakuriver.models.runner import EngineName, HeartbeatRequest, RegisterRequest
from hakuriver.threads import in_thread
from hakuriver.version import __version__
from hakuriver_agent.devices import cpu, numa
from hakuriver_agent.devices.gpus import Gpus
from hakuriver_agent.engines.port import Engine
from hakuriver_agent.folders import Folders
from hakuriver_agent.share import Share
from hakuriver_agent.supervisor import Supervisor

SENSORS_SECONDS = 5.0
SETTLE_SECONDS = 3.0
"""How long a registration waits until what an earlier life started has been found again."""


class Machine:
    """Reads the machine; the sensors in threads, with a limit of time."""

    def __init__(
        self,
        settings: Settings,
        folders: Folders,
        share: Share,
        engines: Mapping[EngineName, Engine],
        supervisor: Supervisor,
        gpus: Gpus,
        gpu_note: Callable[[], Awaitable[str]],
        journal_id: str,
        runner_url: str,
    ) -> None:
        self._settings = settings
        self._folders = folders
        self._share = share
        self._told_share: str | None = None
        self._engines = engines
        self._supervisor = supervisor
        self._gpus = gpus
        self._read_gpu_note = gpu_note
        self._gpu_note = ""
        self._told_gpus = gpus.known
        self._journal_id = journal_id
        self._runner_url = runner_url
        self._notes: dict[str, str] = {}
        self._offered: list[EngineName] = []
        self._share_problem: str | None = None
        self._load = cpu.load()
        self._temperatures: tuple[float | None, float | None] = (None, None)

    @property
    def engines(self) -> list[EngineName]:
        """Those that worked when they were last looked at."""
        return list(self._offered)

    @property
    def _working(self) -> list[EngineName]:
        return [name for name in self._engines if name not in self._notes]

    async def changed(self) -> bool:
        """Whether engines, GPUs or share are otherwise than the last registration told."""
        await self._look_at_engines()
        if set(self._offered) != set(self._working) or self._share.found != self._told_share:
            return True
        if self._gpus.has_refused or self._gpus.known != self._told_gpus:
            return True
        return await self._read_gpu_note() != self._gpu_note

    def accepted(self) -> None:
        """The Host found nothing wrong in the last registration."""
        self._share.accept(self._told_share)

    async def _look_at_engines(self) -> None:
        notes: dict[str, str] = {}
        for name, engine in self._engines.items():
            if problem := await engine.problem():
                notes[name] = problem
        self._notes = notes

    async def register_request(self) -> RegisterRequest:
        await self._look_at_engines()
        self._told_share = await self._share.identity()
        await self._gpus.looked()
        self._gpus.has_refused = False
        self._told_gpus, self._gpu_note = self._gpus.known, await self._read_gpu_note()
        await self._supervisor.settled(SETTLE_SECONDS)
        self._offered = self._working
        await self._supervisor.hold_starts()
        runner = self._settings.runner
        return RegisterRequest(
            hostname=runner.name,
            total_cores=runner.cores or usable_cores(),
            total_ram_bytes=runner.memory_bytes or cpu.usable_memory(),
            runner_url=self._runner_url,
            numa_topology=numa.topology(),
            cpus=numa.by_closeness(os.sched_getaffinity(0)),
            tasks_per_gpu=runner.tasks_per_gpu,
            labels=runner.labels,
            gpu_info=self._gpus.infos,
            gpu_note=self._gpu_note,
            version=__version__,
            journal_id=self._journal_id,
            engines=self.engines,
            engine_notes=self._notes,
            shared_id=self._told_share,
            allow_privileged=runner.allow_privileged,
            mount_roots=[str(root) for root in self._folders.mount_roots],
            attempts=self._supervisor.reports(),
        )

    def heartbeat_request(self) -> HeartbeatRequest:
        load, (mean, highest) = self._load, self._temperatures
        problems = [f"{name} engine: {note}" for name, note in self._notes.items() if name in self._offered]
        if self._share_problem:
            problems.append(self._share_problem)
        if self._gpus.problem:
            problems.append(self._gpus.problem)
        return HeartbeatRequest(
            running_tasks=[task for task, _ in self._supervisor.running],
            cpu_percent=load.cpu_percent,
            memory_percent=load.memory_percent,
            memory_used_bytes=load.memory_used_bytes,
            memory_total_bytes=load.memory_total_bytes,
            current_avg_temp=mean,
            current_max_temp=highest,
            gpu_info=self._gpus.infos,
            problems=problems,
            environments=[label for engine in self._engines.values() for label in engine.holds()],
            usage={f"{task}-{attempt}": used for (task, attempt), used in self._supervisor.usage().items()},
        )

    async def watch(self) -> None:
        """Reads the load, for ever; sensors and share as often as heartbeats go."""
        timing = self._settings.timing
        every = max(1, round(timing.heartbeat_interval / timing.resource_check_interval))
        turn = 0
        while True:
            self._load = cpu.load()
            if turn % every == 0:
                with contextlib.suppress(TimeoutError):
                    self._temperatures = await in_thread(cpu.temperatures, SENSORS_SECONDS)
                self._share_problem = await self._share.problem()
                await self._gpus.look()
            turn += 1
            await asyncio.sleep(timing.resource_check_interval)
