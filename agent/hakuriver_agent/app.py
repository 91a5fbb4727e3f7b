"""Assembles a Runner from its settings, and says in which order its parts start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sdnotify  # type: ignore[import-untyped]  # it has no types
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from hakuriver.config import Settings
from hakuriver.errors import HakuRiverError, StorageError
from hakuriver.models.runner import AttemptReport, EngineName, RunnerHealth
from hakuriver.sessions import Sessions
from hakuriver.threads import in_thread
from hakuriver.version import __version__
from hakuriver_agent.api import attempts, doors, health, logs, snapshots, sync
from hakuriver_agent.api.edge import Guard, on_error
from hakuriver_agent.devices import numa
from hakuriver_agent.devices.gpu import GpuReader
from hakuriver_agent.devices.gpus import Gpus
from hakuriver_agent.engines.docker import DockerEngine, DockerSettings
from hakuriver_agent.engines.port import Engine
from hakuriver_agent.engines.process import ProcessEngine, ProcessSettings, scopes_tell_oom, systemd_runs
from hakuriver_agent.folders import Folders
from hakuriver_agent.host import HostClient
from hakuriver_agent.idle import IdleWatch
from hakuriver_agent.journal import Journal
from hakuriver_agent.machine import Machine
from hakuriver_agent.meter import Meter
from hakuriver_agent.outbox import Outbox
from hakuriver_agent.registration import Hooks, Registrar
from hakuriver_agent.share import Share
from hakuriver_agent.ssh.tools import install
from hakuriver_agent.supervisor import ACKNOWLEDGED_KEPT, Supervisor
from hakuriver_agent.tokens import Tokens

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
HOUSEKEEPING_SECONDS = 3600.0
log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Parts:
    """The parts of one Runner."""

    settings: Settings
    folders: Folders
    tokens: Tokens
    journal: Journal
    docker: DockerEngine
    engines: dict[EngineName, Engine]
    host: HostClient
    outbox: Outbox
    supervisor: Supervisor
    gpus: Gpus
    machine: Machine
    registrar: Registrar
    guests: doors.Guests
    sessions: Sessions


def assemble(settings: Settings, folders: Folders, journal: Journal, port: int) -> Parts:
    """Puts the parts together; nothing runs yet. `port` is the one that the Runner listens on."""
    tokens = Tokens(folders.state)
    gpus = Gpus(GpuReader().read)
    docker, process = _engines(settings, folders, gpus)
    engines: dict[EngineName, Engine] = {"docker": docker, "process": process}
    host = HostClient.of(settings)

    async def send(reports: list[AttemptReport]) -> None:
        response = await host.update(tokens.node, reports)
        await supervisor.apply(response.verdicts)

    def delivered(reports: list[AttemptReport]) -> None:
        supervisor.acknowledge(report.key for report in reports)

    outbox = Outbox(send, delivered)
    share = Share(folders.shared, settings.runner.name)
    supervisor = Supervisor(
        engines, journal, outbox, settings.runner.kill_grace_seconds, share.check, gpus.refused
    )
    url = settings.model_copy(
        update={"network": settings.network.model_copy(update={"runner_port": port})}
    ).runner_url
    machine = Machine(settings, folders, share, engines, supervisor, gpus, docker.gpu_note, journal.id, url)
    hooks = Hooks(
        register_request=machine.register_request,
        heartbeat_request=machine.heartbeat_request,
        registered=supervisor.registered,
        answered=outbox.kick,
        accepted=machine.accepted,
        changed=machine.changed,
    )
    registrar = Registrar(
        host, tokens, hooks, url, settings.runner.join_token_file, settings.timing.heartbeat_interval
    )
    return Parts(
        settings,
        folders,
        tokens,
        journal,
        docker,
        engines,
        host,
        outbox,
        supervisor,
        gpus,
        machine,
        registrar,
        doors.Guests(),
        Sessions(settings.timing.terminal_wait),
    )


def application(parts: Parts) -> Guard:
    """The ASGI application, whose lifespan is the Runner's."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await in_thread(lambda: install(parts.folders.vps_tools))
        await parts.supervisor.recover()
        if any(spec.task_type == "vps" for spec in parts.supervisor.specs()):
            await parts.docker.forget_snapshots()
        loops = [asyncio.create_task(work) for work in _loops(parts)]
        for loop in loops:
            loop.add_done_callback(_complain)
        notifier = sdnotify.SystemdNotifier()
        notifier.notify("READY=1")
        yield
        notifier.notify("STOPPING=1")
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await _close(parts)

    def state() -> RunnerHealth:
        return RunnerHealth(
            hostname=parts.settings.runner.name,
            version=__version__,
            journal_id=parts.journal.id,
            running=len(parts.supervisor.running),
            engines=parts.machine.engines,
        )

    routes = [
        *attempts.routes(parts.supervisor),
        *logs.routes(parts.supervisor, parts.folders),
        *sync.routes(parts.docker, parts.settings.runner.name),
        *health.routes(state),
        *snapshots.routes(parts.supervisor, parts.engines),
        *doors.routes(parts.supervisor, parts.engines, parts.folders, parts.guests, parts.sessions),
    ]
    handlers: dict[Any, Any] = dict.fromkeys((Exception, HakuRiverError, HTTPException), on_error)
    return Guard(
        Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers), parts.tokens.accepts
    )


def boot_id() -> str:
    try:
        return BOOT_ID.read_text("ascii").strip()
    except OSError:
        return "unknown"


def _engines(settings: Settings, folders: Folders, gpus: Gpus) -> tuple[DockerEngine, ProcessEngine]:
    runner = settings.runner
    docker = DockerSettings(
        node=runner.name,
        folders=folders,
        log_max_bytes=runner.log_max_bytes,
        url=settings.docker.socket,
        run_as_owner=runner.run_as_owner,
        allow_privileged=runner.allow_privileged,
        network=runner.network,
        allowed_networks=tuple(runner.allowed_networks),
        parallel_starts=runner.parallel_starts,
        numa_cores=numa.core_lists(),
        gpus=gpus,
        gpu_access=runner.gpu_access,
        environment_cache_bytes=runner.environment_cache_bytes,
    )
    process = ProcessSettings(
        node=runner.name,
        folders=folders,
        log_max_bytes=runner.log_max_bytes,
        run_as_owner=runner.run_as_owner,
        runner_user=settings.environment.runner_user,
        allow_any_user=runner.allow_any_user,
        numactl_path=settings.paths.numactl_path,
        numa_nodes=frozenset(numa.core_lists()),
        gpus=gpus,
        systemd=systemd_runs(),
        scopes=systemd_runs() and scopes_tell_oom(),
    )
    return DockerEngine(docker), ProcessEngine(process)


def _loops(parts: Parts) -> list[Any]:
    return [
        parts.outbox.run(),
        parts.machine.watch(),
        parts.registrar.run(),
        parts.docker.environments.run(parts.docker.problem),
        IdleWatch(parts.supervisor, parts.engines, parts.guests, parts.gpus).run(),
        Meter(parts.supervisor, parts.engines, parts.gpus).run(),
        _housekeeping(parts),
        _watchdog(),
    ]


async def _housekeeping(parts: Parts) -> None:
    """Forgets old attempts and removes scratch folders that belong to none."""
    while True:
        await asyncio.sleep(HOUSEKEEPING_SECONDS)
        with contextlib.suppress(StorageError):
            await parts.journal.prune(ACKNOWLEDGED_KEPT)
        kept = {
            f"{task}-{attempt}" for task, attempt in (report.key for report in parts.supervisor.reports())
        }
        await in_thread(lambda kept=kept: _remove_scratch(parts.folders.local_temp, kept))  # type: ignore[misc]


def _remove_scratch(folder: Path, kept: set[str]) -> None:
    for path in folder.iterdir():
        task, _, attempt = path.name.partition("-")
        if task.isdecimal() and attempt.isdecimal() and path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)


async def _watchdog() -> None:
    """Tells systemd that the loop turns (`WatchdogSec=`, sd_notify(3))."""
    microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    notifier = sdnotify.SystemdNotifier()
    if notifier.socket is not None:
        # Of signs of life that the listener cannot take, the next serves as well: the loop must not wait for it.
        notifier.socket.setblocking(False)
    while microseconds:
        notifier.notify("WATCHDOG=1")
        await asyncio.sleep(microseconds / 3e6)


async def _close(parts: Parts) -> None:
    await parts.sessions.close()
    await parts.supervisor.close()
    for engine in parts.engines.values():
        await engine.close()
    await parts.journal.close()
    await parts.host.__aexit__(None, None, None)


def _complain(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("a loop of the Runner ended by a defect", exc_info=error)
