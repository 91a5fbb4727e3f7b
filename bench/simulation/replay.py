"""Replaying jobs on a policy: time jumps from one event to the next.

What a policy decides is checked against books of its own kept here: none gets more than there is, nothing starts twice,
and everything starts.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from bench.simulation.jobs import Job


class Policy(Protocol):
    """Decides what starts. Told of what happens in the order in which it does; of one moment, of ends first."""

    def submitted(self, job: Job, now: float) -> None: ...

    def ended(self, job: Job, now: float) -> None: ...

    def starts(self, now: float) -> Iterable[tuple[Job, int]]:
        """The jobs that start now, each with the number of its node."""
        ...


class Run(NamedTuple):
    job: Job
    node: int
    start: float

    @property
    def end(self) -> float:
        return self.start + self.job.run

    @property
    def wait(self) -> float:
        return self.start - self.job.submit


def replay(jobs: Sequence[Job], nodes: Sequence[int], policy: Policy) -> list[Run]:
    """All jobs from submission to end, in the order of their starts. `nodes` are the cores of each."""
    free, runs = list(nodes), []
    coming = iter(jobs)
    next_job = next(coming, None)
    running: list[tuple[float, int, Run]] = []
    waiting: set[int] = set()
    while next_job is not None or running:
        now = min(
            running[0][0] if running else float("inf"),
            next_job.submit if next_job is not None else float("inf"),
        )
        while running and running[0][0] <= now:
            ended = heapq.heappop(running)[2]
            free[ended.node] += ended.job.cores
            policy.ended(ended.job, now)
        while next_job is not None and next_job.submit <= now:
            waiting.add(next_job.number)
            policy.submitted(next_job, now)
            next_job = next(coming, None)
        for job, node in policy.starts(now):
            waiting.remove(job.number)
            free[node] -= job.cores
            assert free[node] >= 0, f"job {job.number} starts where there is no room for it"
            run = Run(job, node, now)
            runs.append(run)
            heapq.heappush(running, (run.end, job.number, run))
    assert not waiting, f"{len(waiting)} jobs never start, the first is {min(waiting)}"
    return runs
