"""Dispatch: rounds of placement, and for each node a worker that brings its Runner what is wanted there.

The worker looks at what the node has still to be told, not at messages: whatever fails is simply told again,
and the Runner's journal makes a repeated start harmless. Kills and starts travel side by side, so that a
kill does not wait behind a start.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from hakuriver.errors import HakuRiverError, UnreachableError
from hakuriver.models.runner import AttemptId, AttemptSpec
from hakuriver_host.domain import reactor
from hakuriver_host.domain.model import Node, Task
from hakuriver_host.domain.runs import run_of, variables_of
from hakuriver_host.services.core import Core
from hakuriver_host.services.nodes import Nodes
from hakuriver_host.services.paths import log_path

log = structlog.get_logger(__name__)

_STARTS_AT_ONCE = 200
_MANY = 4
_GATHER_PER_TASK = 0.001
_LONGEST_GATHER = 0.02
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 10.0
_LOOK_AT_CLOCK_SECONDS = 60.0


@dataclass(slots=True)
class _Worker:
    """One direction (starts or kills) of one node."""

    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Dispatcher:
    def __init__(self, core: Core, nodes: Nodes) -> None:
        self._core = core
        self._nodes = nodes
        self._workers: dict[tuple[str, str], _Worker] = {}
        core.wake_node = self.wake

    def wake(self, name: str) -> None:
        """There may be something to tell this node."""
        node = self._core.cluster.nodes.get(name)
        if node is None:
            return
        if node.to_start:
            self._worker(name, "start", self._send_starts).wanted.set()
        if node.to_kill:
            self._worker(name, "kill", self._send_kills).wanted.set()

    async def run(self) -> None:
        """Places what can be placed, whenever something has changed.

        After a round that placed many it waits a moment for more: under load a Runner is then told of a dozen tasks
        at a time and not of each, while a single task never waits.
        """
        core = self._core
        while True:
            await self._until_wanted()
            core.schedule_wanted.clear()
            effects = reactor.on_schedule(core.cluster, core.now())
            if effects.tasks or effects.schedule:
                await core.apply(effects)
            if len(effects.events) >= _MANY and not effects.schedule:
                await asyncio.sleep(min(len(effects.events) * _GATHER_PER_TASK, _LONGEST_GATHER))

    async def _until_wanted(self) -> None:
        """Until something has changed, or the time of a task has come that waits for one."""
        core = self._core
        while not core.schedule_wanted.is_set():
            due = core.cluster.queue.next_time()
            left = None if due is None else due - core.now().wall
            if left is not None and left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                # The wall clock may be set meanwhile.
                async with asyncio.timeout(None if left is None else min(left, _LOOK_AT_CLOCK_SECONDS)):
                    await core.schedule_wanted.wait()

    async def close(self) -> None:
        tasks = [worker.task for worker in self._workers.values() if worker.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _worker(self, name: str, kind: str, send: Callable[[Node], Awaitable[None]]) -> _Worker:
        worker = self._workers.get((name, kind))
        if worker is None:
            worker = self._workers[name, kind] = _Worker()
            worker.task = asyncio.create_task(self._work(name, worker, send), name=f"{kind} {name}")
        return worker

    async def _work(self, name: str, worker: _Worker, send: Callable[[Node], Awaitable[None]]) -> None:
        pause = _FIRST_PAUSE
        while True:
            await worker.wanted.wait()
            worker.wanted.clear()
            node = self._core.cluster.nodes.get(name)
            if node is None:
                continue
            try:
                await send(node)
                pause = _FIRST_PAUSE
            except HakuRiverError as error:
                if node.reconciled:
                    log.warning(
                        "the Runner could not be told; trying again",
                        node=name,
                        cause=error.message,
                        seconds=pause,
                    )
                    worker.wanted.set()
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
            except Exception:
                # A defect in telling one node must not end the telling for ever.
                log.exception("telling the Runner failed", node=name)
                worker.wanted.set()
                await asyncio.sleep(_LONGEST_PAUSE)

    async def _send_starts(self, node: Node) -> None:
        while node.reconciled and (tasks := list(node.to_start.values())[:_STARTS_AT_ONCE]):
            sent = [task.key for task in tasks]
            answer = await self._nodes.client(node).start([_spec(task) for task in tasks])
            effects = reactor.on_start_results(
                self._core.cluster, node.name, answer.results, self._core.now()
            )
            answered = {(result.task_id, result.attempt) for result in answer.results}
            await self._core.apply(effects)
            if missing := len(set(sent) - answered):
                raise UnreachableError(
                    f"the Runner did not answer for {missing} of {len(sent)} starts", "see its log"
                )

    async def _send_kills(self, node: Node) -> None:
        while node.reconciled and (keys := list(node.to_kill)):
            wanted = [AttemptId(task_id=key.task_id, attempt=key.attempt) for key in keys]
            answer = await self._nodes.client(node).act("kill", wanted)
            for result in answer.results:
                if not result.ok:
                    log.warning(
                        "the Runner could not kill", node=node.name, task=result.task_id, cause=result.reason
                    )
            reactor.on_killed(self._core.cluster, node.name, keys)


_VPS_SHELL = "/bin/sh"
"""The program in whose absence no VPS can run."""


def _spec(task: Task) -> AttemptSpec:
    """What the Runner needs to run the task's present attempt."""
    batch, spec = task.batch, task.batch.spec
    run = run_of(spec, task.index)
    return AttemptSpec(
        task_id=task.task_id,
        attempt=task.attempt,
        batch_id=batch.batch_id,
        index=task.index,
        owner=batch.owner,
        task_type=spec.task_type,
        run=task.run,
        engine="docker" if task.request.engine == "docker" else "process",
        # Of a VPS these are keys, which come with each connection.
        command=run.command if spec.task_type == "command" else _VPS_SHELL,
        arguments=run.arguments,
        env_vars=variables_of(run, task.index),
        # One that has the node for itself may use all of it.
        cores=0 if spec.exclusive else spec.required_cores,
        cpus=list(task.cpus),
        memory_bytes=spec.required_memory_bytes,
        gpus=[gpu.uuid for gpu in task.gpus],
        numa_node=task.request.numa,
        environment=batch.environment,
        environment_version=batch.environment_version,
        privileged=bool(spec.privileged),
        mounts=spec.additional_mounts or [],
        working_dir=spec.working_dir,
        user=spec.user,
        owner_uid=batch.default_user,
        network=spec.network,
        shm_size_bytes=spec.shm_size_bytes,
        time_limit_seconds=spec.time_limit_seconds,
        idle_stop_seconds=spec.idle_stop_seconds,
        restart=spec.restart,
        stdout_path=log_path(task.task_id, task.attempt, "stdout"),
        stderr_path=log_path(task.task_id, task.attempt, "stderr"),
    )
