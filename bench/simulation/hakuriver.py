"""HakuRiver as a policy: the Host's own decisions, with its default settings, told of events as Runners tell of them.

Nothing of the domain is written anew here. What a simulation leaves out is time: a task runs as soon as it is placed, and
its end is known at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

from bench.simulation.jobs import Job
from hakuriver.config import Scheduling
from hakuriver.models.runner import AttemptReport
from hakuriver.models.submission import SubmitRequest
from hakuriver.states import TaskState
from hakuriver_host.db.rows import request_of
from hakuriver_host.domain import reactor
from hakuriver_host.domain.model import CORES, Batch, Effects, Now, Registration, Task
from hakuriver_host.domain.turns import Shares

_T0 = 1_800_000_000.0
_DAY = 86_400.0


class HakuRiver:
    def __init__(self, nodes: Sequence[int], half_life_days: float | None = None) -> None:
        """`nodes` are the cores of each. Without `half_life_days` it is that of the default settings."""
        if half_life_days is None:
            half_life_days = Scheduling().fair_share_half_life_days
        self.cluster = reactor.Cluster(shares=Shares(half_life_days * _DAY or None))
        self._wanted = True
        self._jobs: dict[int, Job] = {}
        """That wait."""
        width = len(str(len(nodes)))
        self._nodes = {f"node-{index:0{width}}": index for index in range(len(nodes))}
        for name, index in self._nodes.items():
            turn = reactor.on_registering(self.cluster, name)
            reactor.on_register(self.cluster, _registration(name, nodes[index]), turn, _now(0.0))

    def submitted(self, job: Job, now: float) -> None:
        spec = SubmitRequest(
            command="x",
            container_name="base",
            required_cores=job.cores,
            time_limit_seconds=max(1, math.ceil(job.limit)),
        )
        batch = Batch(job.number, f"user-{job.user}", _now(now).wall, spec, "base", "1")
        self._jobs[job.number] = job
        task = Task(job.number, batch, 0, None, request_of(spec, None))
        self._heed(reactor.on_submit(self.cluster, [task]))

    def ended(self, job: Job, now: float) -> None:
        self._report(self.cluster.tasks[job.number], TaskState.COMPLETED, now)

    def starts(self, now: float) -> list[tuple[Job, int]]:
        """Rounds, as long as the Host wants another."""
        started = []
        while self._wanted:
            self._wanted = False
            effects = reactor.on_schedule(self.cluster, _now(now))
            self._heed(effects)
            for task in effects.tasks.values():
                self._report(task, TaskState.RUNNING, now)
                started.append((self._jobs.pop(task.task_id), self._nodes[task.node or ""]))
        return started

    def _report(self, task: Task, state: TaskState, now: float) -> None:
        """What the task's Runner says of it."""
        when = datetime.fromtimestamp(_now(now).wall, UTC)
        report = AttemptReport(
            task_id=task.task_id,
            attempt=task.attempt,
            sequence=task.sequence + 1,
            status=state,
            exit_code=0 if state is TaskState.COMPLETED else None,
            started_at=when if state is TaskState.RUNNING else None,
            completed_at=when if state is TaskState.COMPLETED else None,
        )
        effects, _ = reactor.on_reports(self.cluster, task.node or "", [report], _now(now))
        self._heed(effects)

    def _heed(self, effects: Effects) -> None:
        self._wanted = self._wanted or effects.schedule


def _now(seconds: float) -> Now:
    return Now(_T0 + seconds, seconds)


def _registration(name: str, cores: int) -> Registration:
    return Registration(
        name=name,
        url=f"http://{name}",
        capacity={CORES: cores},
        gpus=(),
        gpu_note="",
        numa_nodes={},
        engines=frozenset({"docker"}),
        engine_notes={},
        journal_id=name,
        problem="",
        allow_privileged=None,
        mount_roots=None,
        attempts=(),
    )
