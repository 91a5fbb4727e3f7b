"""Whose turn it is: priorities, then fair shares between users, then age; and what one user may hold at most.

A user's share at a moment is the largest part that they hold of any one resource of the cluster, as in Dominant Resource
Fairness (Ghodsi et al., NSDI 2011). Those who had less of late come before those who had more: a part of what they hold
now is added to the mean of what they held before, in which the past counts half as much after each half-life. So over
time users who always have something waiting get equal parts, or parts as their weights are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from hakuriver_host.domain.ledger import Ledger, amounts_of
from hakuriver_host.domain.model import CORES, GPUS, MEMORY, Node, Request, Task, quantity


class Turn(NamedTuple):
    """A task's place among all: the lowest is first."""

    urgency: int
    """Its priority, negated."""
    had_more: bool
    """While room is kept: its owner stands above the mean of those who wait. Else all are alike."""
    length: float
    """While room is kept: its time limit. Else all are alike."""
    standing: float
    """Of its owner: what they hold and held, by their weight."""
    task_id: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What one user may hold at the same time, by name of the resource; `tasks` are those that hold anything."""

    held: Mapping[str, int] = field(default_factory=dict)
    waiting: int | None = None
    """Tasks of one user that may wait."""

    def forbids(self, request: Request) -> str:
        """Why the request alone is too much; empty when it is not."""
        return self.reached(request, {})

    def reached(self, request: Request, held: Mapping[str, int]) -> str:
        """Why its owner, who holds so much, may not hold this too; empty when they may."""
        if not self.held:
            return ""
        for name, amount in amounts_of(request, request.gpus.count if request.gpus else 0).items():
            most = self.held.get(name)
            if most is not None and amount and held.get(name, 0) + amount > most:
                now = f", {quantity(name, held[name])} of them in use" if held.get(name) else ""
                return f"one user may hold {quantity(name, most)}{now}, {quantity(name, amount)} asked for"
        return ""


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

    def __init__(self, shares: Shares, limits: Limits, ledger: Ledger, nodes: Iterable[Node] = ()) -> None:
        self._shares, self._limits, self._ledger, self._nodes = shares, limits, ledger, nodes
        self._standings: dict[str, float] = {}
        """Those that have been asked for."""
        self._mean: float | None = None
        """Of the standings of those who wait, once it has been asked for."""

    @cached_property
    def _totals(self) -> Mapping[str, int]:
        """What the cluster has. Not counted where limits alone are asked about, as lists do for each kind of request."""
        totals: Counter[str] = Counter()
        for node in self._nodes:
            totals.update(node.capacity)
            totals[GPUS] += len(node.gpus)
        return totals

    def of(self, task: Task) -> Turn:
        return Turn(-task.priority, False, 0.0, self._standing(task.batch.owner), task.task_id)

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
        return Turn(-task.priority, standing > self._mean, length, standing, task.task_id)

    def _standing(self, owner: str) -> float:
        standing = self._standings.get(owner)
        if standing is None:
            standing = self._standings[owner] = self._shares.standing(owner, self._share(owner))
        return standing

    def has_more(self, owner: str) -> None:
        """The owner has been given something."""
        self._standings.pop(owner, None)

    def over_limit(self, task: Task) -> str:
        """Why its owner may not hold it now; empty when they may."""
        return self._limits.reached(task.request, self._ledger.of_owner(task.batch.owner))

    def shares(self) -> dict[str, float]:
        """What each user holds now."""
        return {owner: self._share(owner) for owner in self._ledger.owners()}

    def _share(self, owner: str) -> float:
        if self._shares.half_life is None:
            return 0.0
        held = self._ledger.of_owner(owner)
        return max(
            (held.get(name, 0) / self._totals[name] for name in (CORES, MEMORY, GPUS) if self._totals[name]),
            default=0.0,
        )


def first_come(ledger: Ledger) -> Turns:
    """Priorities and ages alone."""
    return Turns(Shares(), Limits(), ledger)
