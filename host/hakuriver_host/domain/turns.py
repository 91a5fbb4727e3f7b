"""Whose turn it is: priorities, then fair shares between users, then age; and what one user may hold at most.

A user's share at a moment is the largest part that they hold of any one resource of the cluster, as in Dominant Resource
Fairness (Ghodsi et al., NSDI 2011). Those who had less of late come before those who had more: a part of what they hold
now is added to the mean of what they held before, in which the past counts half as much after each half-life. So over
time users who always have something waiting get equal parts, or parts as their weights are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from hakuriver_host.domain.ledger import Ledger, amounts_of
from hakuriver_host.domain.model import CORES, GPUS, MEMORY, TASKS, Node, Request, Task, quantity


class Turn(NamedTuple):
    """A task's place among all: the lowest is first."""

    urgency: int
    """Its priority, negated."""
    yields: bool
    """It is preemptible: what is not comes first."""
    had_more: bool
    """While room is kept: its owner stands above the mean of those who wait. Else all are alike."""
    length: float
    """While room is kept: its time limit. Else all are alike."""
    standing: float
    """Of its owner: what they hold and held, by their weight."""
    task_id: int


@dataclass(frozen=True, slots=True)
class Limit:
    """What one user, or the users of a group together, may hold at the same time."""

    held: Mapping[str, int] = field(default_factory=dict)
    """By name of the resource; `tasks` are those that hold anything."""
    waiting: int | None = None
    """Tasks that may wait."""
    whose: str = "one user"
    members: frozenset[str] = frozenset()
    """Of a group."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What users may hold at the same time, and how many of their tasks may wait."""

    held: Mapping[str, int] = field(default_factory=dict)
    """Of each user for whom nothing else is said."""
    waiting: int | None = None
    users: Mapping[str, Limit] = field(default_factory=dict)
    groups: tuple[Limit, ...] = ()

    def forbids(self, request: Request, owner: str, node: Node | None = None) -> str:
        """Why the request alone (of this node) is too much for its owner; empty when it is not."""
        return self.reached(request, owner, lambda _owner: _NONE, node)

    def reached(
        self,
        request: Request,
        owner: str,
        holds: Callable[[str], Mapping[str, int]],
        node: Node | None = None,
    ) -> str:
        """Why its owner may not hold this (of this node) beside what `holds` says of users; empty when they may."""
        limits = [limit for limit in self.of(owner) if limit.held]
        if not limits:
            return ""
        wanted = amounts_of(request, node)
        return next(filter(None, (_reached(limit, wanted, owner, holds) for limit in limits)), "")

    def too_many(self, owner: str, more: int, waiting: Callable[[str], int]) -> str:
        """Why so many more tasks of a user may not wait beside those that do; empty when they may."""
        for limit in self.of(owner):
            if limit.waiting is not None:
                now = sum(waiting(member) for member in limit.members or {owner})
                if now + more > limit.waiting:
                    most = quantity(TASKS, limit.waiting)
                    return f"{most} of {limit.whose} may wait: {now} do, {more} more are submitted"
        return ""

    def of(self, owner: str) -> Iterable[Limit]:
        """All that hold for a user."""
        yield self.users.get(owner) or Limit(self.held, self.waiting)
        yield from (group for group in self.groups if owner in group.members)


def _reached(
    limit: Limit, wanted: Mapping[str, int], owner: str, holds: Callable[[str], Mapping[str, int]]
) -> str:
    for name, most in limit.held.items():
        amount = wanted.get(name, 0)
        held = sum(holds(member).get(name, 0) for member in limit.members or {owner})
        if amount and held + amount > most:
            now = f", {quantity(name, held)} of them in use" if held else ""
            return f"{limit.whose} may hold {quantity(name, most)}{now}, {quantity(name, amount)} asked for"
    return ""


_NONE: Mapping[str, int] = {}
NO_LIMIT = Limit()


class Shares:
    """What users have held of the cluster: means over the past, up to a time of the monotonic clock."""

    def __init__(self, half_life: float | None = None, weights: Mapping[str, float] | None = None) -> None:
        """`half_life` in seconds; without one nobody's past counts, and nobody's present either."""
        self.half_life = half_life
        self._weights = weights or {}
        self._means: dict[str, float] = {}
        self._rates: dict[str, float] = {}
        self._at = 0.0

    def means(self) -> dict[str, float]:
        return dict(self._means)

    def resume(self, means: Mapping[str, float], passed: float, now: float) -> None:
        """Takes up means as they were `passed` seconds ago; what was held since is not known."""
        self._means, self._rates, self._at = dict(means), {}, now - max(0.0, passed)
        self.advance(now, {})

    def advance(self, now: float, rates: Mapping[str, float]) -> None:
        """Up to `now`, by what each has held since the last time; `rates` are the shares held from now on."""
        if self.half_life is None:
            return
        faded: float = 0.5 ** (max(0.0, now - self._at) / self.half_life)
        for user in self._means.keys() | self._rates.keys():
            mean = self._means.get(user, 0.0) * faded + self._rates.get(user, 0.0) * (1 - faded)
            if mean > _NOTHING:
                self._means[user] = mean
            else:
                self._means.pop(user, None)
        self._rates, self._at = dict(rates), now

    def standing(self, user: str, share: float) -> float:
        """The lower, the sooner; for one who holds `share` now."""
        if self.half_life is None:
            return 0.0
        return (self._means.get(user, 0.0) + _PRESENT * share) / self._weights.get(user, 1.0)


_NOTHING = 1e-9
_PRESENT = 0.25
"""How much what a user holds now counts beside the mean. Were it nothing, whoever is a little behind would get all that
is free; were it much, those would get more than they are due who hold little at a time.
"""


class Turns:
    """The order of all tasks while one round lasts."""

    def __init__(self, shares: Shares, limits: Limits, ledger: Ledger, nodes: Collection[Node] = ()) -> None:
        self._shares, self._limits, self._ledger, self._nodes = shares, limits, ledger, nodes
        self._standings: dict[str, float] = {}
        """Those that have been asked for."""
        self._mean: float | None = None
        """Of the standings of those who wait, once it has been asked for."""

    @cached_property
    def _totals(self) -> Mapping[str, int]:
        """What the cluster has. Not counted where limits alone are asked about, as lists do for each kind of request."""
        capacities = [node.capacity for node in self._nodes]
        return {
            CORES: sum(capacity.get(CORES, 0) for capacity in capacities),
            MEMORY: sum(capacity.get(MEMORY, 0) for capacity in capacities),
            GPUS: sum(len(node.gpus) for node in self._nodes),
        }

    def of(self, task: Task) -> Turn:
        yields, standing = task.request.preemptible, self._standing(task.batch.owner)
        return Turn(-task.priority, yields, False, 0.0, standing, task.task_id)

    def meanwhile(self, task: Task, owners: Callable[[], Collection[str]]) -> Turn:
        """Its place while room is kept for another, behind which it may run: those who had less than the mean of the
        `owners` that wait go first, and among these, as among the others, who is over sooner. So short tasks need not wait
        for the ends of long ones, and nobody gets more than they are due by having short ones.
        """
        if self._mean is None:
            known = owners()
            self._mean = sum(map(self._standing, known)) / max(1, len(known))
        standing = self._standing(task.batch.owner)
        length = math.inf if task.request.limit is None else task.request.limit
        yields, had_more = task.request.preemptible, standing > self._mean
        return Turn(-task.priority, yields, had_more, length, standing, task.task_id)

    def _standing(self, owner: str) -> float:
        standing = self._standings.get(owner)
        if standing is None:
            standing = self._standings[owner] = self._shares.standing(owner, self._share(owner))
        return standing

    def has_more(self, owner: str) -> None:
        """The owner has been given something."""
        self._standings.pop(owner, None)

    def over_limit(self, task: Task, node: Node | None = None) -> str:
        """Why it may not be held now (on this node), whatever room there is; empty when it may."""
        quota = task.request.quota
        if quota is not None and (running := self._ledger.of_batch(quota.batch_id)) >= quota.running:
            return f"{running} of its batch run, and no more than {quota.running} may at a time"
        return self._limits.reached(task.request, task.batch.owner, self._ledger.of_owner, node)

    def shares(self) -> dict[str, float]:
        """What each user holds now."""
        return {owner: self._share(owner) for owner in self._ledger.owners()}

    def _share(self, owner: str) -> float:
        if self._shares.half_life is None:
            return 0.0
        held = self._ledger.of_owner(owner)
        return max(
            (held.get(name, 0) / total for name, total in self._totals.items() if total),
            default=0.0,
        )


def first_come(ledger: Ledger) -> Turns:
    """Priorities and ages alone."""
    return Turns(Shares(), Limits(), ledger)
