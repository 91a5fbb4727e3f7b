"""What people see of tasks, and how they control them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, update
from sqlmodel import SQLModel

from hakuriver.cores import parse_list
from hakuriver.errors import ConflictError, HakuRiverError, NotFoundError
from hakuriver.models.runner import ActionResponse, AttemptId, AttemptLimit
from hakuriver.models.submission import SubmitRequest, SubmitResponse
from hakuriver.models.tasks import (
    AssignedGpu,
    Message,
    NodeVerdict,
    QueuedTask,
    TaskDetail,
    TaskExplanation,
    TaskSummary,
)
from hakuriver.models.usage import TaskUsage
from hakuriver.references import Reference
from hakuriver.sizes import MAX_SECONDS, format_duration
from hakuriver.states import FINAL, HOLDING, NodeState, TaskState
from hakuriver.targets import parse_target
from hakuriver_host.db import rows
from hakuriver_host.db.repository import TaskFilter
from hakuriver_host.db.tables import BatchRow, TaskRow
from hakuriver_host.domain import placement, reactor, waiting
from hakuriver_host.domain.backfill import Clock, clock_of
from hakuriver_host.domain.cluster import turns_of
from hakuriver_host.domain.forecast import forecast
from hakuriver_host.domain.model import Batch, Effects, Group, Task
from hakuriver_host.domain.runs import run_of
from hakuriver_host.services.access import Principal
from hakuriver_host.services.core import RECORD_SECONDS, Core, event_of_row, moment, optional_moment
from hakuriver_host.services.nodes import RUNNING, Nodes, used_so_far
from hakuriver_host.services.paths import log_path
from hakuriver_host.services.submit import Again, Submissions, check_priority

_BATCHES = SQLModel.metadata.tables[str(BatchRow.__tablename__)]
_STOP_SECONDS = 120.0
_FORECAST_SECONDS = 1.0
"""How old a forecast may be."""
_FORESEEN = 200
"""Tasks in line whose start is foreseen, at most."""
_LOOK_SECONDS = 1.0
_LIST = "list them with `hakuriver task list`"
_PAST = {"pause": "paused", "resume": "resumed", "hold": "held", "release": "released"}


def _respecify(batch: Batch) -> Callable[[Connection], None]:
    """What writes a batch's specification anew."""
    row = rows.batch_row(batch)
    changed = {name: row[name] for name in ("spec", "environment", "environment_version")}
    statement = update(_BATCHES).where(_BATCHES.c.batch_id == batch.batch_id).values(**changed)

    def write(connection: Connection) -> None:
        connection.execute(statement)

    return write


def _check_done(task: Task, action: str, answer: ActionResponse) -> None:
    for result in answer.results:
        if not result.ok:
            raise ConflictError(
                f"the Runner could not {action} task {task.task_id}: {result.reason}",
                "see `hakuriver task status`",
            )


def anew(spec: SubmitRequest, principal: Principal) -> SubmitRequest:
    """What is submitted for a task that is made once more: at once, and no sooner than the caller may have it."""
    priority = spec.priority if principal.is_admin else min(0, spec.priority)
    return spec.model_copy(
        update={
            "targets": [],
            "count": 1,
            "hold": False,
            "not_before": None,
            "after": [],
            "priority": priority,
        }
    )


class Tasks:
    def __init__(self, core: Core, nodes: Nodes, submissions: Submissions) -> None:
        self._core = core
        self._nodes = nodes
        self._submissions = submissions
        self._extending = asyncio.Lock()
        self._foreseen: dict[int, datetime] = {}
        self._foreseen_at = float("-inf")

    async def list(self, wanted: TaskFilter, principal: Principal) -> Sequence[TaskSummary]:
        """Newest first; why each waits included."""
        found = await asyncio.to_thread(self._core.repository.tasks, wanted)
        return self.summaries(found, principal)

    def summaries(
        self, found: Sequence[tuple[TaskRow, Batch]], principal: Principal
    ) -> Sequence[TaskSummary]:
        """Rows as lists show them."""
        reasons: dict[Group, str] = {}
        return [self._summary(row, batch, principal, reasons) for row, batch in found]

    async def detail(self, task_id: int, principal: Principal) -> TaskDetail:
        row, batch = await self._find(task_id)
        history = await asyncio.to_thread(self._core.repository.events, 0, task_id=task_id)
        spec, run = batch.spec, run_of(batch.spec, row.index)
        mine = principal.is_admin or principal.name == row.owner
        target = parse_target(row.target) if row.target else None
        return TaskDetail(
            **self._summary(row, batch, principal, {}).model_dump(),
            env_vars=run.env_vars if mine else {},
            sweep_values=list(run.values) if mine else [],
            privileged=bool(spec.privileged),
            additional_mounts=spec.additional_mounts or [],
            working_dir=spec.working_dir,
            user=spec.user,
            network=spec.network or self._core.settings.runner.network,
            shm_size_bytes=spec.shm_size_bytes,
            time_limit_seconds=spec.time_limit_seconds,
            idle_stop_seconds=spec.idle_stop_seconds,
            max_retries=spec.max_retries,
            retry_on=list(spec.retry_on),
            retry_delay_seconds=spec.retry_delay_seconds,
            target_numa_node_id=target.numa if target else None,
            assigned_cores=parse_list(row.cpus),
            node_labels=spec.node_labels,
            share_gpus=spec.share_gpus,
            exclusive=spec.exclusive,
            preemptible=spec.preemptible,
            stdout_path=log_path(task_id, max(1, row.attempt), "stdout"),
            stderr_path=log_path(task_id, max(1, row.attempt), "stderr"),
            systemd_unit_name=row.unit_name,
            environment_version=batch.environment_version,
            image=row.image,
            history=[event_of_row(event) for event in history],
        )

    async def queue(self, owner: str | None, limit: int, principal: Principal) -> Sequence[QueuedTask]:
        """Those that wait: in line first, in its order, then those that stand aside."""
        queue = self._core.cluster.queue
        line = queue.in_order(turns_of(self._core.cluster).of, owner, limit)
        aside = (task for task in queue.aside() if owner in {None, task.batch.owner})
        wanted = [*line, *((None, task) for task in itertools.islice(aside, limit - len(line)))]
        places = {task.task_id: place for place, task in wanted}
        found = await asyncio.to_thread(self._core.repository.tasks_of, list(places))
        reasons: dict[Group, str] = {}
        starts = self._starts()
        return [
            QueuedTask(
                **self._summary(row, batch, principal, reasons).model_dump(),
                position=places[row.task_id],
                expected_start=starts.get(row.task_id),
            )
            for row, batch in found
            if row.state == TaskState.PENDING
        ]

    async def explain(self, task_id: int) -> TaskExplanation:
        """Why it waits, node by node; for one that does not wait, how it is."""
        cluster = self._core.cluster
        task = cluster.tasks.get(task_id)
        if task is None or task.state is not TaskState.PENDING:
            row, _ = await self._find(task_id)
            where = f" on {row.node}" if row.node else ""
            return TaskExplanation(
                task_id=task_id,
                status=TaskState(row.state),
                summary=f"it is {row.state}{where}, so it does not wait",
            )
        return TaskExplanation(
            task_id=task_id,
            status=task.state,
            summary=self._waiting(task, {}),
            queue_position=cluster.queue.position(task_id, turns_of(cluster).of),
            expected_start=self._starts().get(task_id),
            nodes=[*self._verdicts(task)],
        )

    async def kill(self, task_id: int, principal: Principal) -> Message:
        """Ends a task; one that may have reached a Runner ends a moment later.

        Also where the record cannot be written now: it may be this task that fills the disk.
        """
        await self.check_owns(task_id, principal)
        effects = reactor.on_kill(self._core.cluster, task_id, principal.name, self._core.now())
        writing = self._core.begin(effects, urgent=True)
        done, _ = await asyncio.wait({writing}, timeout=RECORD_SECONDS)
        if not done:
            return Message(message=f"task {task_id} is being killed, which is {self._core.why_unwritten}")
        writing.result()
        if task_id not in self._core.cluster.tasks:
            return Message(message=f"task {task_id} is killed")
        return Message(message=f"task {task_id} is being killed")

    async def move(self, task_id: int, action: str, principal: Principal) -> Message:
        """Holds or releases a task that waits.

        Raises:
            ConflictError: it does not wait.

        """
        await self.check_owns(task_id, principal)
        decide = waiting.on_hold if action == "hold" else waiting.on_release
        await self._core.apply(decide(self._core.cluster, task_id, principal.name, self._core.now()))
        return Message(message=f"task {task_id} is {_PAST[action]}")

    async def reprioritize(self, task_id: int, priority: int, principal: Principal) -> Message:
        """Gives a task that waits another place in the queue.

        Raises:
            ConflictError: it does not wait.
            DeniedError: the priority is an admin's to give.

        """
        await self.check_owns(task_id, principal)
        check_priority(priority, principal)
        await self._core.apply(
            waiting.on_reprioritize(self._core.cluster, task_id, priority, principal.name, self._core.now())
        )
        return Message(message=f"task {task_id} has priority {priority}")

    async def signal(self, task_id: int, action: str, principal: Principal) -> Message:
        """Pauses or resumes. Returns when the Runner has done it.

        Raises:
            ConflictError: not in the state for that, or the Runner could not.
            UnreachableError: the Runner does not answer.

        """
        await self.check_owns(task_id, principal)
        cluster = self._core.cluster
        task = reactor.check_signal(cluster, task_id, action)
        await self._act(task, action)
        return Message(message=f"task {task_id} is {_PAST[action]}")

    async def stop(self, task_id: int, principal: Principal) -> Message:
        """Has a VPS hold nothing any more and keep what is in it; that it has ended comes a moment later.

        Raises:
            ConflictError: it is no VPS, has not run yet, or the Runner could not.
            UnreachableError: the Runner does not answer.

        """
        await self.check_owns(task_id, principal)
        effects, running = reactor.on_stop(self._core.cluster, task_id, self._core.now())
        await self._core.apply(effects)
        if running is None:
            return Message(message=f"VPS {task_id} is stopped")
        await self._act(running, "stop")
        return Message(message=f"VPS {task_id} is being stopped")

    async def start_again(self, task_id: int, principal: Principal) -> Message:
        """Has a stopped VPS run again, on its node, as soon as there is room.

        Raises:
            ConflictError: it is no VPS, is paused, or is being killed.

        """
        await self.check_owns(task_id, principal)
        cluster = self._core.cluster
        effects = reactor.on_start_again(cluster, task_id, principal.name, self._core.now())
        await self._core.apply(effects)
        state = "is being started" if effects.events else f"is {cluster.tasks[task_id].state} already"
        return Message(message=f"VPS {task_id} {state}")

    def ends_at(self, task_id: int, started_at: datetime | None) -> datetime | None:
        """When the time limit of a live task is over that started then."""
        task = self._core.cluster.tasks.get(task_id)
        limit = task.batch.spec.time_limit_seconds if task else None
        return None if limit is None or started_at is None else started_at + timedelta(seconds=limit)

    async def extend(self, task_id: int, seconds: int, principal: Principal) -> Message:
        """Gives a VPS with a time limit more time.

        Raises:
            ConflictError: it is no VPS, has no time limit, is being started, or the Runner could not.
            UnreachableError: the Runner does not answer.

        """
        await self.check_owns(task_id, principal)
        async with self._extending:
            task = reactor.check_extend(self._core.cluster, task_id)
            batch, before = task.batch, task.batch.spec.time_limit_seconds
            limit = min(MAX_SECONDS, (before or 0) + seconds)
            # At once, so that a start that is sent meanwhile has it, too.
            batch.spec = batch.spec.model_copy(update={"time_limit_seconds": limit})
            try:
                if task.state is not TaskState.PENDING or task.kept:
                    wanted = AttemptLimit(task_id=task_id, attempt=task.attempt, time_limit_seconds=limit)
                    _check_done(task, "extend", await self._nodes.client_of(task.node).limit([wanted]))
            except HakuRiverError:
                # Its keys may have changed meanwhile.
                batch.spec = batch.spec.model_copy(update={"time_limit_seconds": before})
                raise
            await self._core.apply(Effects(), _respecify(batch))
        return Message(message=f"VPS {task_id} may run {format_duration(limit)} from its start")

    async def vps_there(self, task_id: int, principal: Principal) -> tuple[Task, AsyncIterator[bytes]]:
        """A VPS, and what is in it as an archive.

        Raises:
            ConflictError: it is no VPS, or has nothing in it now.
            UnreachableError: the Runner does not answer.

        """
        await self.check_owns(task_id, principal)
        task = reactor.check_there(self._core.cluster, task_id)
        wanted = AttemptId(task_id=task_id, attempt=task.attempt)
        return task, self._nodes.client_of(task.node).snapshot(wanted)

    async def restore(self, task_id: int, reference: Reference, principal: Principal) -> Message:
        """Has a VPS begin anew from a version of an environment; what is in it now is gone.

        Raises:
            ConflictError: it is no VPS, or is being started or killed.

        """
        await self.check_owns(task_id, principal)
        cluster = self._core.cluster
        task = reactor.check_there(cluster, task_id)
        if not task.kept:
            # What it holds is others' only when nothing of it runs any more.
            await self.stop(task_id, principal)
            await self._until_kept(task)
        now = self._core.now()
        effects = reactor.on_restore(cluster, task_id, str(reference), principal.name, now)
        batch = task.batch
        batch.environment, batch.environment_version = reference.name, str(reference.version)
        batch.spec = batch.spec.model_copy(update={"container_name": str(reference)})
        await self._core.apply(effects, _respecify(batch))
        return Message(message=f"VPS {task_id} is being restored from {reference}")

    async def _until_kept(self, task: Task) -> None:
        """Raises `ConflictError` when it does not come to rest."""
        with self._core.bus.follow(task_id=task.task_id) as follower:
            deadline = self._core.now().mono + _STOP_SECONDS
            while not task.kept:
                left = deadline - self._core.now().mono
                if left <= 0 or task.closed:
                    raise ConflictError(
                        f"VPS {task.task_id} has not stopped: it is {task.state}", "try again in a moment"
                    )
                follower.take()
                await follower.wait(min(left, _LOOK_SECONDS))

    async def _act(self, task: Task, action: str) -> None:
        runner = self._nodes.client_of(task.node)
        wanted = AttemptId(task_id=task.task_id, attempt=task.attempt)
        _check_done(task, action, await runner.act(action, [wanted]))

    async def retry(self, task_id: int, principal: Principal, key: str | None) -> SubmitResponse:
        """Submits the same again, as a new task with the same number in its batch.

        Raises:
            ConflictError: it is not final.

        """
        row, batch = await self._find(task_id)
        principal.check_owns(row.owner, f"task {task_id}")
        if TaskState(row.state) not in FINAL:
            raise ConflictError(f"task {task_id} is {row.state}", "kill it first, or wait for its end")
        again = Again(task_id, [(row.index, row.target)])
        return await self._submissions.submit(anew(batch.spec, principal), principal, key, again)

    async def owned_row(self, task_id: int, principal: Principal) -> TaskRow:
        """The task's row, for its owner or an admin."""
        row, _ = await self._find(task_id)
        principal.check_owns(row.owner, f"task {task_id}")
        return row

    async def check_owns(self, task_id: int, principal: Principal) -> None:
        """That it is live, and the caller's own or the caller an admin."""
        task = self._core.cluster.tasks.get(task_id)
        if task is not None:
            principal.check_owns(task.batch.owner, f"task {task_id}")
            return
        row = await self.owned_row(task_id, principal)
        raise ConflictError(f"task {task_id} is {row.state} already", "nothing is left to be done")

    async def _find(self, task_id: int) -> tuple[TaskRow, Batch]:
        found = await asyncio.to_thread(self._core.repository.task, task_id)
        if found is None:
            batch = await asyncio.to_thread(self._core.repository.batch, task_id)
            hint = f"it is a batch: `hakuriver batch status {task_id}`" if batch else _LIST
            raise NotFoundError(f"there is no task {task_id}", hint)
        return found

    def _summary(
        self, row: TaskRow, batch: Batch, principal: Principal, reasons: dict[Group, str]
    ) -> TaskSummary:
        spec, run = batch.spec, run_of(batch.spec, row.index)
        mine = principal.is_admin or principal.name == row.owner
        live = self._core.cluster.tasks.get(row.task_id)
        target = parse_target(row.target) if row.target else None
        return TaskSummary(
            task_id=row.task_id,
            batch_id=row.batch_id,
            index=row.index,
            task_type=spec.task_type,
            name=row.name,
            owner=row.owner,
            status=TaskState(row.state),
            attempt=row.attempt,
            command=run.command if spec.task_type == "command" else "",  # Of a VPS these are keys.
            arguments=run.arguments if mine else [],
            container_name=spec.container_name,
            required_cores=spec.required_cores,
            required_memory_bytes=spec.required_memory_bytes,
            required_gpus=[int(gpu) for gpu in target.gpus if gpu.isdigit()] if target else [],
            gpus=len(target.gpus) if target and target.gpus else spec.gpus,
            assigned_gpus=[
                AssignedGpu(gpu_id=gpu.number, uuid=gpu.uuid, name=gpu.model)
                for gpu in rows.given_of(row.gpus)
            ],
            target=row.target,
            assigned_node=None if row.state == TaskState.PENDING else row.node,
            unreachable=live is not None and self._unreachable(live),
            priority=row.priority,
            held=row.held,
            not_before=optional_moment(rows.seconds(row.not_before)),
            after=[*map(str, live.batch.after)] if live is not None and live.attempt == 0 else [],
            kill_requested=row.kill_requested,
            reason=self._reason(row, live, reasons),
            exit_code=row.exit_code,
            error_message=row.message,
            usage=self._used(row, live),
            submitted_at=moment(row.submitted_at / 1000),
            started_at=optional_moment(rows.seconds(row.started_at)),
            completed_at=optional_moment(rows.seconds(row.completed_at)),
        )

    def _used(self, row: TaskRow, live: Task | None) -> TaskUsage | None:
        if live is not None and live.state in RUNNING:
            return used_so_far(self._core, live)
        return rows.usage_of(row.usage)

    def _unreachable(self, task: Task) -> bool:
        node = self._core.cluster.nodes.get(task.node or "")
        return task.state in HOLDING and (node is None or node.state is NodeState.OFFLINE)

    def _reason(self, row: TaskRow, live: Task | None, reasons: dict[Group, str]) -> str:
        if live is None or row.state != live.state:
            return row.reason
        if live.state is TaskState.PENDING:
            waits = self._waiting(live, reasons)
            return f"{row.reason}; {waits}" if live.retries and row.reason else waits
        if self._unreachable(live):
            return f"{live.node} is offline; what the task does is not known now"
        return live.reason

    def _waiting(self, task: Task, reasons: dict[Group, str]) -> str:
        if why := waiting.waits_aside(task):
            return why
        if task.group not in reasons:
            cluster = self._core.cluster
            reasons[task.group] = placement.waiting_reason(
                task, cluster.nodes, cluster.ledger, cluster.claim, turns_of(cluster), self._clock()
            )
        return reasons[task.group]

    def _verdicts(self, task: Task) -> Sequence[NodeVerdict]:
        cluster = self._core.cluster
        return placement.explain(
            task, cluster.nodes.values(), cluster.ledger, cluster.claim, self._clock(), turns_of(cluster)
        )

    def _starts(self) -> dict[int, datetime]:
        """When the first in line are expected to start, as far as that is known; who is at a limit is left out."""
        cluster, now = self._core.cluster, self._core.now()
        if now.mono - self._foreseen_at > _FORECAST_SECONDS:
            turns = turns_of(cluster)
            line = [task for task in cluster.queue.head(turns.of, _FORESEEN) if not turns.over_limit(task)]
            found = forecast(line, cluster.nodes, cluster.ledger, clock_of(cluster.tasks, now))
            self._foreseen = {task_id: moment(now.wall + at - now.mono) for task_id, at in found.items()}
            self._foreseen_at = now.mono
        return self._foreseen

    def _clock(self) -> Clock:
        return clock_of(self._core.cluster.tasks, self._core.now())
