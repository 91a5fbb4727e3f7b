"""Backfill: what may run in room that is kept for another, since it is over before that one can use it.

As in EASY (Lifka, The ANL/IBM SP scheduling system, 1995): the first that must wait has a reservation, which is the time
by which enough of what runs on its node will have ended, as time limits say. Others may run meanwhile if they end before
that time, or need only what is left beside it then. What has no time limit has no known end: where that has to end first,
there is no time to count on, and all room is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from hakuriver_host.domain.ledger import Ledger, Room, wanted_of
from hakuriver_host.domain.model import Node, Now, Request, Task

SLACK_SECONDS = 60.0
"""For a start, and for the end of one that does not heed SIGTERM."""
_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Reservation:
    """When a claim can be served at the latest, and what is left of its node beside it then."""

    at: float
    spare: Mapping[str, int]
    whole: bool = False
    """Nothing may be beside it."""

    def is_after(self, request: Request, now: float) -> bool:
        """Whether a task that starts now has ended by then, so that it may have anything meanwhile."""
        return request.limit is not None and now + SLACK_SECONDS + request.limit <= self.at

    def leaves(self, request: Request) -> bool:
        """Whether a task may run on beside it, as far as amounts go."""
        if self.whole or request.exclusive:
            return False
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
        if task is not None and (task.preempting or task.kill_requested):
            return now.mono + SLACK_SECONDS
        limit = task.batch.spec.time_limit_seconds if task else None
        if task is None or limit is None or task.batch.spec.task_type == "vps":
            return None  # A VPS may be given more time.
        began = SLACK_SECONDS if task.started_at is None else task.started_at - now.wall
        return now.mono + max(0.0, began + limit)

    return Clock(now.mono, ends)


def reservation(wanted: Request, node: Node, ledger: Ledger, clock: Clock) -> Reservation | None:
    """When the node has room for it at the latest; none when that is not known."""
    room, at = Room(node, ledger), clock.now
    for end, task_id in _by_end(ledger.holders(node.name), clock):
        # All that ends at the same time leaves its room beside it.
        if end > at and room.fits(wanted):
            break
        if end == _NEVER:
            return None
        at = end
        room.strike(task_id)
    if not room.fits(wanted):
        return None
    amounts = dict(wanted_of(wanted, node))
    spare = {name: amount - amounts.get(name, 0) for name, amount in room.free.items()}
    return Reservation(at, spare, whole=wanted.exclusive)


def _by_end(task_ids: Iterable[int], clock: Clock) -> list[tuple[float, int]]:
    ends = ((clock.ends(task_id), task_id) for task_id in task_ids)
    return sorted((_NEVER if end is None else end, task_id) for end, task_id in ends)
