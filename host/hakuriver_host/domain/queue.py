"""The queue: who waits, in which order, and who is not in line yet.

Tasks of one owner with equal requests form a group, because within one round of placement what does not fit for the
first of a group fits for none of it; so a round costs as many looks as there are groups, not tasks. Within a group the
higher priority goes first, then the lower id; ids rise with time, so a task that is retried keeps its place. Which group
comes first is for `turns` to say.

A task that is held, waits for others to end, or is not to run before some time stands aside, and costs nothing.
"""

from __future__ import annotations

import heapq
import itertools
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

from hakuriver_host.domain.model import Group, Rank, Task


class Queue:
    def __init__(self) -> None:
        self._groups: dict[Group, list[Rank]] = {}
        self._line: dict[int, Task] = {}
        self._aside: dict[int, Task] = {}
        self._times: list[tuple[float, int]] = []
        """When those aside that wait for a time may come, soonest first; entries of those that have gone are dropped
        when they come up."""
        self._batches: dict[int, set[int]] = {}
        """Those aside, by batch."""
        self._woken: deque[Task] = deque()
        """Those aside that are to be looked at again; some may have gone."""
        self._owners: Counter[str] = Counter()
        """How many tasks of each user wait."""

    def __len__(self) -> int:
        return len(self._line)

    def __contains__(self, task_id: int) -> bool:
        return task_id in self._line

    def get(self, task_id: int) -> Task | None:
        """The task, if it is in line."""
        return self._line.get(task_id)

    def add(self, task: Task) -> None:
        """Into the line, or aside."""
        self.remove(task)
        self._owners[task.batch.owner] += 1
        if not task.aside:
            self._line[task.task_id] = task
            heapq.heappush(self._groups.setdefault(task.group, []), task.rank)
            return
        self._aside[task.task_id] = task
        self._batches.setdefault(task.batch.batch_id, set()).add(task.task_id)
        if task.not_before is not None:
            heapq.heappush(self._times, (task.not_before, task.task_id))

    def remove(self, task: Task) -> None:
        """Takes it out; its entry in the group is dropped when the group comes to it."""
        in_line = self._line.pop(task.task_id, None) is not None
        aside = self._aside.pop(task.task_id, None) is not None
        if in_line or aside:
            self._owners[task.batch.owner] -= 1
        if aside:
            of_batch = self._batches[task.batch.batch_id]
            of_batch.discard(task.task_id)
            if not of_batch:
                del self._batches[task.batch.batch_id]

    def wake(self, batch_id: int) -> None:
        """Has those of a batch that stand aside looked at again: they come with those whose time has come."""
        self._woken.extend(self._aside[task_id] for task_id in sorted(self._batches.get(batch_id, ())))

    def next_time(self) -> float | None:
        """When the next task may come that waits for a time, in Unix seconds."""
        while self._times:
            when, task_id = self._times[0]
            task = self._aside.get(task_id)
            if task is not None and task.not_before == when:
                return when
            heapq.heappop(self._times)
        return None

    def pop_due(self, now: float, limit: int) -> tuple[list[Task], bool]:
        """Takes out those that were woken, then those whose time has come, soonest first; and whether there are more."""
        due: list[Task] = []
        while self._woken and len(due) < limit:
            task = self._woken.popleft()
            if self._aside.get(task.task_id) is task:
                self.remove(task)
                due.append(task)
        while len(due) < limit and self._has_due(now):
            task = self._aside[self._times[0][1]]
            self.remove(task)
            due.append(task)
        return due, bool(self._woken) or self._has_due(now)

    def _has_due(self, now: float) -> bool:
        when = self.next_time()
        return when is not None and when <= now

    def groups(self) -> list[Group]:
        return list(self._groups)

    def owners(self) -> set[str]:
        """Those who have something in line."""
        return {group.owner for group in self.groups() if self.first(group)}

    def first(self, group: Group) -> Task | None:
        """The first in line of one group."""
        ranks = self._groups.get(group)
        while ranks:
            task = self._line.get(ranks[0].task_id)
            if task is not None and task.group == group and task.rank == ranks[0]:
                return task
            heapq.heappop(ranks)
        self._groups.pop(group, None)
        return None

    def head(self, turn: Callable[[Task], Any], limit: int) -> list[Task]:
        """The first in line, in order. Costs what there are of groups, and what it gives; not the length of the line."""
        groups = [self._members(group) for group in self.groups()]
        firsts = [next(members, None) for members in groups]
        heads = [(turn(first), index) for index, first in enumerate(firsts) if first is not None]
        heapq.heapify(heads)
        found: list[Task] = []
        while heads and len(found) < limit:
            _, index = heads[0]
            first, firsts[index] = firsts[index], next(groups[index], None)
            if first is not None:
                found.append(first)
            if (following := firsts[index]) is not None:
                heapq.heapreplace(heads, (turn(following), index))
            else:
                heapq.heappop(heads)
        return found

    def _members(self, group: Group) -> Iterator[Task]:
        """Those of a group in their order."""
        ranks = list(self._groups.get(group, ()))
        last = None
        while ranks:
            rank = heapq.heappop(ranks)
            task = self._line.get(rank.task_id)
            if rank != last and task is not None and task.group == group and task.rank == rank:
                yield task
            last = rank

    def longest_in_line(self) -> float | None:
        """Since when the one has waited that has been in line for the longest, in Unix seconds."""
        since = (max(task.batch.submitted_at, task.lined_up_at or 0.0) for task in self._line.values())
        return min(since, default=None)

    def in_order(
        self, turn: Callable[[Task], Any], owner: str | None = None, limit: int | None = None
    ) -> list[tuple[int, Task]]:
        """Those in line (of one owner, so many at most), whose turn comes first first; with how many are before each."""
        turns = {task_id: turn(task) for task_id, task in self._line.items()}
        mine = [task_id for task_id, task in self._line.items() if owner in {None, task.batch.owner}]
        wanted = heapq.nsmallest(len(mine) if limit is None else limit, mine, key=turns.__getitem__)
        marks = [turns[task_id] for task_id in wanted]
        before = Counter(bisect_right(marks, other) for other in turns.values())
        places = itertools.accumulate(before[index] for index in range(len(wanted)))
        return [(place, self._line[task_id]) for place, task_id in zip(places, wanted, strict=True)]

    def aside(self) -> Iterator[Task]:
        """All that stand aside, oldest first."""
        return (self._aside[task_id] for task_id in sorted(self._aside))

    def position(self, task_id: int, turn: Callable[[Task], Any]) -> int | None:
        """How many are before it in line; none when it is not in line."""
        task = self._line.get(task_id)
        if task is None:
            return None
        own = turn(task)
        return sum(1 for other in self._line.values() if turn(other) < own)

    def number_of(self, owner: str) -> int:
        """How many tasks of a user wait, in line or aside."""
        return self._owners[owner]
