"""Forecast: when those in line start, if all that runs takes as long as it may and nothing else comes.

Each in its turn gets the earliest time at which some node has room for as long as it may run, beside those that got theirs
before. GPUs that are not free yet are counted, and not told apart. Of what waits for the end of something without a
time limit, nothing can be said.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hakuriver_host.domain.backfill import Clock
from hakuriver_host.domain.ledger import Ledger, Room, amounts_of
from hakuriver_host.domain.model import GPUS, Node, Request, Task
from hakuriver_host.domain.placement import may_run

BUDGET = 3_000
"""Looks at one node for one kind of request, or at one time, of which each takes about ten microseconds; what is not reached
by then has no forecast."""


@dataclass(frozen=True, slots=True)
class _Planned:
    begin: float
    end: float
    amounts: Mapping[str, int]
    alone: bool


@dataclass(slots=True)
class _Plan:
    """What is known to come on one node."""

    node: Node
    ends: list[tuple[float, int]]
    """Of what runs, the soonest first; without those of which no end is known."""
    planned: list[_Planned] = field(default_factory=list)
    looks: int = 0

    def earliest(self, request: Request, ledger: Ledger, now: float) -> float:
        """When there is room for it; infinite when that is not known."""
        length = math.inf if request.limit is None else request.limit
        room, running = Room(self.node, ledger), iter(self.ends)
        following = next(running, None)
        times = {now, *(end for end, _ in self.ends), *(each.end for each in self.planned)}
        for at in sorted(time for time in times if now <= time < math.inf):
            while following is not None and following[0] <= at:
                room.strike(following[1])
                following = next(running, None)
            self.looks += 1
            if room.fits(request) and self._beside(room, request, at, at + length):
                return at
        return math.inf

    def _beside(self, room: Room, request: Request, begin: float, end: float) -> bool:
        """Whether there is room beside all that is planned for that time, for one that fits without that."""
        others = [each for each in self.planned if each.begin < end and begin < each.end]
        if not others:
            return True
        if request.exclusive or any(each.alone for each in others):
            return False
        free = {**room.free, GPUS: room.free_gpus(request.gpus)} if request.gpus else room.free
        return all(
            amount + sum(each.amounts.get(name, 0) for each in others) <= free.get(name, 0)
            for name, amount in amounts_of(request).items()
            if amount and name in free
        )

    def add(self, request: Request, begin: float) -> None:
        end = math.inf if request.limit is None else begin + request.limit
        self.planned.append(_Planned(begin, end, amounts_of(request), request.exclusive))


def forecast(
    line: Iterable[Task], nodes: Mapping[str, Node], ledger: Ledger, clock: Clock, budget: int = BUDGET
) -> dict[int, float]:
    """When tasks of the line, which come in its order, start; in seconds of the clock, by task id."""
    plans: dict[str, _Plan] = {}
    able: dict[Request, list[str]] = {}
    found: dict[int, float] = {}
    for task in line:
        request = task.request
        if request not in able:
            names = sorted(nodes) if request.node is None else [request.node] * (request.node in nodes)
            able[request] = [name for name in names if may_run(nodes[name], request)]
            budget -= len(names)
        best, where = math.inf, None
        for name in able[request]:
            if name not in plans:
                plans[name] = _plan(nodes[name], ledger, clock)
            plan = plans[name]
            at = plan.earliest(request, ledger, clock.now)
            budget -= plan.looks
            plan.looks = 0
            if at < best:
                best, where = at, plan
            if best <= clock.now or budget < 0:
                break
        if budget < 0:
            break
        if where is not None:
            where.add(request, best)
            found[task.task_id] = best
    return found


def _plan(node: Node, ledger: Ledger, clock: Clock) -> _Plan:
    ends = ((clock.ends(task_id), task_id) for task_id in ledger.holders(node.name))
    known = ((max(end, clock.now), task_id) for end, task_id in ends if end is not None)
    return _Plan(node, sorted(known))
