"""The policies that others are measured by, as simply as they can be written: FIFO and EASY backfill.

EASY is that of Lifka (The ANL/IBM SP scheduling system, 1995) in the words of Mu'alem and Feitelson (Utilization,
predictability, workloads, and user runtime estimates in scheduling the IBM SP2 with backfilling, IEEE TPDS 12(6), 2001):
jobs start in the order of submission; the first that cannot gets a reservation at the *shadow time*, when enough of what
runs will have ended by what it asked for; a later job starts now if that does not make the first one late: it ends before
the shadow time, or needs only the *extra* cores that are left beside the first one then.

Both take the first node with room. On several nodes, the reservation is on the one that has the earliest shadow time; of
several, the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.simulation.jobs import Job


@dataclass(slots=True)
class Shadow:
    """When and where the first in line can start at the latest, and what is left beside it then."""

    at: float
    node: int
    extra: int


class Fifo:
    """Strictly in the order of submission: nothing goes before the first in line."""

    def __init__(self, nodes: Sequence[int]) -> None:
        self.free = list(nodes)
        self.line: list[Job] = []
        self.running: dict[int, tuple[Job, int, float]] = {}
        """By number: the job, its node, and when it ends by what it asked for."""

    def submitted(self, job: Job, now: float) -> None:
        del now
        self.line.append(job)

    def ended(self, job: Job, now: float) -> None:
        del now
        _, node, _ = self.running.pop(job.number)
        self.free[node] += job.cores

    def starts(self, now: float) -> list[tuple[Job, int]]:
        started = []
        while self.line and (node := self._room(self.line[0])) is not None:
            started.append(self._start(self.line[0], node, now))
        return started

    def _room(self, job: Job) -> int | None:
        return next((node for node, free in enumerate(self.free) if job.cores <= free), None)

    def _start(self, job: Job, node: int, now: float) -> tuple[Job, int]:
        self.line.remove(job)
        self.free[node] -= job.cores
        self.running[job.number] = (job, node, now + job.limit)
        return job, node


class Easy(Fifo):
    """FIFO with aggressive backfill."""

    def starts(self, now: float) -> list[tuple[Job, int]]:
        started = super().starts(now)
        if self.line:
            shadow = self.shadow(self.line[0])
            for job in self.line[1:]:
                node = self._room_beside(job, shadow, now)
                if node is not None:
                    if node == shadow.node and now + job.limit > shadow.at:
                        shadow.extra -= job.cores
                    started.append(self._start(job, node, now))
        return started

    def shadow(self, first: Job) -> Shadow:
        """For one that fits nowhere now."""
        return min(
            (self._shadow_on(node, first) for node in range(len(self.free))), key=lambda found: found.at
        )

    def _shadow_on(self, node: int, first: Job) -> Shadow:
        there = sorted((end, job.cores) for job, where, end in self.running.values() if where == node)
        free, at = self.free[node], 0.0
        for end, cores in there:
            if free >= first.cores and end > at:
                break
            free, at = free + cores, end
        return Shadow(at if free >= first.cores else float("inf"), node, free - first.cores)

    def _room_beside(self, job: Job, shadow: Shadow, now: float) -> int | None:
        for node, free in enumerate(self.free):
            harmless = node != shadow.node or now + job.limit <= shadow.at or job.cores <= shadow.extra
            if job.cores <= free and harmless:
                return node
        return None
