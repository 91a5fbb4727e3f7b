"""What the Host does as time passes: silent nodes, samples of health, and what is old enough to go."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import structlog
from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import SQLModel

from hakuriver.errors import HakuRiverError, NotFoundError, StorageError
from hakuriver.ids import EPOCH_MS
from hakuriver.models.nodes import ClusterSample, ClusterStatus, HealthHistory, NodeSample, TaskLoad
from hakuriver.states import NodeState, TaskState
from hakuriver.version import __version__
from hakuriver_host.db.repository import SHARES_KEY
from hakuriver_host.db.tables import BatchRow, EventRow, MetaRow, TaskRow
from hakuriver_host.db.writer import Changes
from hakuriver_host.domain import reactor, retention
from hakuriver_host.domain.cluster import turns_of
from hakuriver_host.domain.model import CORES, MEMORY, Node, Now, Task
from hakuriver_host.services.core import Core, moment
from hakuriver_host.services.environments import list_environments
from hakuriver_host.services.nodes import RUNNING, live_counts, persist_heartbeats, used_so_far
from hakuriver_host.services.paths import STREAMS, log_path

log = structlog.get_logger(__name__)

SAMPLES = 60
_PERSIST_EVERY = 30
_RETAIN_EVERY = 3_600
_RETAIN_AT_ONCE = 1_000
_LOGS_AT_ONCE = 100
_DAY = 86_400
_BELIEVED_KEY = "retention_time"
_BATCH, _TASK, _META = (
    SQLModel.metadata.tables[str(model.__tablename__)] for model in (BatchRow, TaskRow, MetaRow)
)


class Monitor:
    def __init__(self, core: Core) -> None:
        self._core = core
        timing = core.settings.timing
        self._timeouts = reactor.Timeouts(
            offline_after=timing.heartbeat_interval * timing.heartbeat_timeout_factor,
            lost_after=timing.lost_after,
        )
        self._nodes: deque[list[NodeSample]] = deque(maxlen=SAMPLES)
        self._aggregate: deque[ClusterSample] = deque(maxlen=SAMPLES)
        self._believed: Now | None = None
        """The time by which old records were last removed."""

    async def watch(self) -> None:
        """Looks at the nodes' silence, every `cleanup_check_interval`."""
        core = self._core
        while True:
            await asyncio.sleep(core.settings.timing.cleanup_check_interval)
            effects = reactor.on_tick(core.cluster, self._timeouts, core.now())
            for name in effects.nodes:
                log.warning("node is offline", node=name)
            if effects.nodes or effects.tasks:
                await core.apply(effects)

    async def sample(self) -> None:
        """Once a second for the history of health; now and then for the record."""
        second = 0
        while True:
            await asyncio.sleep(1)
            second += 1
            self._take_sample()
            if second % _PERSIST_EVERY == 0:
                await persist_heartbeats(self._core)
                await self.note_shares()

    async def note_shares(self) -> None:
        """So that a restart does not make those equal who were not. Where it cannot be written now, it is not."""
        core, now = self._core, self._core.now()
        shares = core.cluster.shares
        shares.advance(now.mono, turns_of(core.cluster).shares())
        text = json.dumps([now.wall, shares.means()])
        changes = Changes(actions=[lambda connection: _store(connection, SHARES_KEY, text)])
        with contextlib.suppress(StorageError):
            await core.writer.write(changes, firm=False)

    async def retain(self) -> None:
        """Removes records and logs of tasks that ended long ago."""
        while True:
            try:
                await self._remove_old(await self._believed_time())
            except (HakuRiverError, OSError, SQLAlchemyError) as error:
                log.warning("old tasks could not be removed; trying again", cause=str(error))
            await asyncio.sleep(_RETAIN_EVERY)

    def health(self, hostname: str | None) -> HealthHistory:
        """The last minute, of one node or of all.

        Raises:
            NotFoundError: there is no such node.

        """
        if hostname is not None and hostname not in self._core.cluster.nodes:
            raise NotFoundError(f"there is no node {hostname}", "list them with `hakuriver node list`")
        samples = [[node for node in nodes if hostname in {None, node.hostname}] for nodes in self._nodes]
        return HealthHistory(nodes=samples, aggregate=list(self._aggregate), tasks=self._loads(hostname))

    async def status(self) -> ClusterStatus:
        core = self._core
        nodes = core.cluster.nodes.values()
        day_ago = int((core.now().wall - _DAY) * 1000 - EPOCH_MS) << 22
        counts = live_counts(core)
        for state, number in (await asyncio.to_thread(core.repository.final_counts, max(0, day_ago))).items():
            counts[state] = number
        default = core.settings.docker.default_container_name
        return ClusterStatus(
            version=__version__,
            nodes_online=sum(node.state is NodeState.ONLINE for node in nodes),
            nodes_total=len(nodes),
            cores_total=_total(nodes, CORES),
            cores_in_use=sum(core.cluster.ledger.held(node.name, CORES) for node in nodes),
            memory_total_bytes=_total(nodes, MEMORY),
            memory_in_use_bytes=sum(core.cluster.ledger.held(node.name, MEMORY) for node in nodes),
            tasks=counts,
            default_environment=default,
            default_environment_ready=default == "NULL" or await self._has_environment(default),
            problems=self._problems(),
        )

    async def _has_environment(self, name: str) -> bool:
        core = self._core
        if core.share_problem():
            return False
        try:
            return name in await core.share.call(lambda: list_environments(core.settings.container_dir))
        except StorageError:
            return False

    def _loads(self, hostname: str | None) -> list[TaskLoad]:
        cluster = self._core.cluster
        names = sorted(cluster.nodes) if hostname is None else [hostname]
        held = [
            cluster.tasks.get(task_id) for name in names for task_id in sorted(cluster.ledger.holders(name))
        ]
        return [_load(self._core, task) for task in held if task is not None and task.state in RUNNING]

    def _problems(self) -> list[str]:
        problems = [self._core.writer.problem, self._core.share_problem()]
        for node in self._core.cluster.nodes.values():
            problems += [
                f"{node.name}: {problem}" for problem in [node.problem, *node.heartbeat.problems] if problem
            ]
        return [problem for problem in problems if problem]

    def _take_sample(self) -> None:
        now = self._core.now().wall
        nodes = sorted(self._core.cluster.nodes.values(), key=lambda node: node.name)
        self._nodes.append([_node_sample(node, now) for node in nodes])
        self._aggregate.append(_aggregate(nodes, now))

    async def _believed_time(self) -> float:
        """What time it is for the removal of old records; kept on the record for the next start."""
        core, now = self._core, self._core.now()
        if self._believed is None:
            stored = await asyncio.to_thread(core.repository.meta, _BELIEVED_KEY)
            last = float(stored) if stored else await asyncio.to_thread(core.repository.newest)
            time = retention.believed(
                now.wall, now.wall if last is None else last, 0, retention.STEP_AT_START
            )
        else:
            passed = now.mono - self._believed.mono
            time = retention.believed(now.wall, self._believed.wall, passed, retention.STEP)
        self._believed = Now(time, now.mono)
        if now.wall - time > _DAY:
            log.warning(
                "the clock is far ahead of the record; old tasks are kept until that has passed",
                days=round((now.wall - time) / _DAY),
            )
        await core.writer.write(
            Changes(actions=[lambda connection: _store(connection, _BELIEVED_KEY, str(time))])
        )
        return time

    def _is_back(self, task_id: int) -> bool:
        """It was lost, and its Runner has come back with it since it was read."""
        task = self._core.cluster.tasks.get(task_id)
        return task is not None and task.state is not TaskState.LOST

    async def _remove_old(self, now: float) -> None:
        core = self._core
        before = int((now - core.settings.host.final_task_days * _DAY) * 1000)
        while found := await asyncio.to_thread(core.repository.finished_before, before, _RETAIN_AT_ONCE):
            for start in range(0, len(found), _LOGS_AT_ONCE):
                some = found[start : start + _LOGS_AT_ONCE]
                await core.share.call(lambda some=some: _remove_logs(core.settings.paths.shared_dir, some))  # type: ignore[misc]
            ids = [row.task_id for row in found if not self._is_back(row.task_id)]
            if not ids:
                break
            for task_id in ids:
                core.cluster.tasks.pop(task_id, None)

            def remove(connection: Connection, ids: list[int] = ids) -> None:
                for model in (EventRow, TaskRow):
                    table = SQLModel.metadata.tables[str(model.__tablename__)]
                    connection.execute(delete(table).where(table.c.task_id.in_(ids)))

            await core.writer.write(Changes(actions=[remove]))
            log.info("removed old tasks", tasks=len(ids))
        await core.writer.write(Changes(actions=[lambda connection: _remove_batches(connection, before)]))


def _remove_batches(connection: Connection, before: int) -> None:
    """Those of which no task is left."""
    alive = select(_TASK.c.task_id).where(_TASK.c.batch_id == _BATCH.c.batch_id).exists()
    connection.execute(delete(_BATCH).where(_BATCH.c.submitted_at < before, ~alive))


def _store(connection: Connection, key: str, value: str) -> None:
    connection.execute(delete(_META).where(_META.c.key == key))
    connection.execute(insert(_META), [{"key": key, "value": value}])


def _remove_logs(shared_dir: Path, found: list[TaskRow]) -> None:
    for row in found:
        for attempt in range(1, row.attempt + 1):
            for stream in STREAMS:
                (shared_dir / log_path(row.task_id, attempt, stream)).unlink(missing_ok=True)


def _total(nodes: Iterable[Node], name: str) -> int:
    return sum(node.capacity.get(name, 0) for node in nodes)


def _node_sample(node: Node, now: float) -> NodeSample:
    beat = node.heartbeat
    return NodeSample(
        time=moment(now),
        hostname=node.name,
        status=node.state,
        cpu_percent=beat.cpu_percent,
        memory_percent=beat.memory_percent,
        memory_used_bytes=beat.memory_used_bytes,
        memory_total_bytes=beat.memory_total_bytes,
        current_avg_temp=beat.current_avg_temp,
        current_max_temp=beat.current_max_temp,
        gpu_info=beat.gpu_info,
    )


def _load(core: Core, task: Task) -> TaskLoad:
    spec = task.batch.spec
    return TaskLoad(
        task_id=task.task_id,
        attempt=task.attempt,
        hostname=task.node or "",
        name=spec.name,
        owner=task.batch.owner,
        status=task.state,
        required_cores=spec.required_cores,
        required_memory_bytes=spec.required_memory_bytes,
        gpus=[gpu.uuid for gpu in task.gpus],
        usage=used_so_far(core, task),
    )


def _aggregate(nodes: list[Node], now: float) -> ClusterSample:
    online = [node for node in nodes if node.state is NodeState.ONLINE]
    beats = [node.heartbeat for node in online]
    cpu = [beat.cpu_percent for beat in beats if beat.cpu_percent is not None]
    memory = [beat.memory_percent for beat in beats if beat.memory_percent is not None]
    return ClusterSample(
        totalNodes=len(nodes),
        onlineNodes=len(online),
        totalCores=sum(node.capacity.get(CORES, 0) for node in online),
        totalMemBytes=sum(node.capacity.get(MEMORY, 0) for node in online),
        usedMemBytes=sum(beat.memory_used_bytes or 0 for beat in beats),
        avgCpuPercent=sum(cpu) / len(cpu) if cpu else 0.0,
        avgMemPercent=sum(memory) / len(memory) if memory else 0.0,
        maxAvgCpuTemp=max(
            (beat.current_avg_temp for beat in beats if beat.current_avg_temp is not None), default=None
        ),
        maxMaxCpuTemp=max(
            (beat.current_max_temp for beat in beats if beat.current_max_temp is not None), default=None
        ),
        lastUpdated=moment(now),
    )
