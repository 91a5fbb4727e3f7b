"""Backfill: what may run in room that is kept for another, since it is over before that one can use it.

As in EASY (Lifka, The ANL/IBM SP scheduling system, 1995): the first that must wait has a reservation, which is the time
by which enough of what runs on its node will have ended, as time limits say. Others may run meanwhile if they end before
that time, or need only what is left beside it then. What has no time limit has no known end: where that has to end first,
there is no time to count on, and all room is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from hakuriver_host.domain.gpus import suitable
from hakuriver_host.domain.ledger import Ledger
from hakuriver_host.domain.model import Node, Now, Request, Task

SLACK_SECONDS = 60.0
"""For a start, and for the end of one that does not heed SIGTERM."""
_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Reservation:
    """When a claim can be served at the latest, and what is left of its node beside it then."""

    at: float
    spare: Mapping[str, int]

    def is_after(self, request: Request, now: float) -> bool:
        """Whether a task that starts now has ended by then, so that it may have anything meanwhile."""
        return request.limit is not None and now + SLACK_SECONDS + request.limit <= self.at

    def leaves(self, request: Request) -> bool:
        """Whether a task may run on beside it, as far as amounts go."""
        return all(amount <= self.spare.get(name, 0) for name, amount in request.amounts)


@dataclass(frozen=True, slots=True)
class Clock:
    """What time it is, on a clock that only goes forward, and when tasks end at the latest."""

    now: float = 0.0
    ends: Callable[[int], float | None] = field(default=lambda _task_id: None)


def clock_of(tasks: Mapping[int, Task], now: Now) -> Clock:
    """For the tasks of a cluster."""

    def ends(task_id: int) -> float | None:
        task = tasks.get(task_id)
        limit = task.batch.spec.time_limit_seconds if task else None
        if task is None or limit is None or task.batch.spec.task_type == "vps":
            return None  # A VPS may be given more time.
        began = SLACK_SECONDS if task.started_at is None else task.started_at - now.wall
        return now.mono + max(0.0, began + limit)

    return Clock(now.mono, ends)


def reservation(wanted: Request, node: Node, ledger: Ledger, clock: Clock) -> Reservation | None:
    """When the node has room for it at the latest; none when that is not known."""
    free = {name: ledger.free(node.name, node.capacity, name) for name in node.capacity}
    would_do = (
        {gpu.uuid for gpu in suitable(node.gpus, wanted.gpus) if not gpu.problem} if wanted.gpus else set()
    )
    taken = {uuid: holder for uuid, holder in ledger.gpus(node.name).items() if uuid in would_do}
    taken |= {uuid: key.task_id for uuid, key in node.leaving.items() if uuid in would_do}
    at = clock.now
    for end, task_id, request in _by_end(ledger.holders(node.name), clock):
        # All that ends at the same time leaves its room beside it.
        if end > at and _fits(wanted, free, len(would_do) - len(taken)):
            break
        if end == _NEVER:
            return None
        at = end
        for name, amount in request.amounts:
            free[name] = free.get(name, 0) + amount
        taken = {uuid: holder for uuid, holder in taken.items() if holder != task_id}
    if not _fits(wanted, free, len(would_do) - len(taken)):
        return None
    return Reservation(at, {name: amount - wanted.amount(name) for name, amount in free.items()})


def _by_end(holders: Mapping[int, Request], clock: Clock) -> Iterable[tuple[float, int, Request]]:
    ends = ((clock.ends(task_id), task_id, request) for task_id, request in holders.items())
    return sorted(
        ((_NEVER if end is None else end, task_id, request) for end, task_id, request in ends),
        key=lambda each: each[:2],
    )


def _fits(wanted: Request, free: Mapping[str, int], gpus: int) -> bool:
    return gpus >= (wanted.gpus.count if wanted.gpus else 0) and all(
        amount <= free.get(name, 0) for name, amount in wanted.amounts
    )
