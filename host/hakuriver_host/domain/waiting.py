"""What keeps a task from the line, and what moves it there: those that it is to run after, holds and priorities."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from hakuriver.dependencies import Dependency, Outcome
from hakuriver.errors import ConflictError
from hakuriver.states import TaskState
from hakuriver_host.domain.attempts import end, enter, follow, freed
from hakuriver_host.domain.cluster import Cluster, live_task
from hakuriver_host.domain.model import Effects, Event, Now, Task

_AT_ONCE = 500
"""Tasks that are moved in one round."""
_SHOWN = 3


def awaited(cluster: Cluster, task_id: int) -> bool:
    """Whether a task is yet to end, so that others can wait for that."""
    task = cluster.tasks.get(task_id)
    return task is not None and task.state is not TaskState.LOST


@contextlib.contextmanager
def watching(cluster: Cluster, task_ids: Collection[int]) -> Iterator[None]:
    """Keeps how these tasks end, for those that are to run after them and are being submitted."""
    cluster.watched.update(task_ids)
    try:
        yield
    finally:
        cluster.watched.subtract(task_ids)
        for task_id in task_ids:
            if not cluster.watched[task_id]:
                del cluster.watched[task_id]
                cluster.outcomes.pop(task_id, None)


def join(
    cluster: Cluster, tasks: Sequence[Task], outcomes: Mapping[int, TaskState], effects: Effects
) -> None:
    """Into the queue, with all that they are to run after; of that, `outcomes` has ended meanwhile."""
    for batch in {task.batch.batch_id: task.batch for task in tasks}.values():
        if follow(batch, outcomes):
            effects.batches[batch.batch_id] = batch
        for dependency in () if batch.doom else batch.after:
            cluster.followers.setdefault(dependency.task_id, {})[batch.batch_id] = batch
    for task in tasks:
        enter(cluster, task)
    for batch_id in {task.batch.batch_id for task in tasks if task.batch.doom}:
        cluster.queue.wake(batch_id)


def line_up(cluster: Cluster, now: Now, effects: Effects) -> bool:
    """Moves those into line that need not stand aside any more, and ends those that never can; not all at once, since
    they may be many. Whether there are more.
    """
    due, more = cluster.queue.pop_due(now.wall, _AT_ONCE)
    for task in due:
        if task.not_before is not None and task.not_before <= now.wall:
            # Not written: a time that has passed means nothing after a restart either.
            task.not_before = None
        if task.batch.doom and task.attempt == 0:
            end(cluster, task, TaskState.FAILED, now, effects, task.batch.doom)
            more = True
        else:
            task.lined_up_at = now.wall
            enter(cluster, task)
    return more


def on_hold(cluster: Cluster, task_id: int, by: str, now: Now) -> Effects:
    """Keeps a task that waits from being placed, until it is released.

    Raises:
        ConflictError: it does not wait any more.
        NotFoundError: no such task is live.

    """
    task = _waiting(cluster, task_id)
    return _moved(cluster, task, now, f"held by {by}", held=True)


def on_release(cluster: Cluster, task_id: int, by: str, now: Now) -> Effects:
    """Lets a task that was held go on waiting in its place.

    Raises:
        ConflictError: it does not wait.
        NotFoundError: no such task is live.

    """
    task = _waiting(cluster, task_id)
    return _moved(cluster, task, now, f"released by {by}", held=False)


def on_reprioritize(cluster: Cluster, task_id: int, priority: int, by: str, now: Now) -> Effects:
    """Gives a task that waits another place in the queue.

    Raises:
        ConflictError: it does not wait any more.
        NotFoundError: no such task is live.

    """
    task = _waiting(cluster, task_id)
    return _moved(cluster, task, now, f"priority {priority}, given by {by}", priority=priority)


def _moved(
    cluster: Cluster,
    task: Task,
    now: Now,
    cause: str,
    *,
    held: bool | None = None,
    priority: int | None = None,
) -> Effects:
    """Where nothing changes, nothing is told."""
    effects = Effects(schedule=True)
    if (held is None or held is task.held) and (priority is None or priority == task.priority):
        return effects
    cluster.queue.remove(task)
    task.held = task.held if held is None else held
    task.lined_up_at = now.wall if held is False else task.lined_up_at
    task.priority = task.priority if priority is None else priority
    enter(cluster, task)
    # What was kept from room that was set aside for it may have it now.
    freed(cluster, effects)
    effects.tasks[task.task_id] = task
    effects.events.append(Event(now.wall, task, task.attempt, task.state, None, cause, None))
    return effects


def _waiting(cluster: Cluster, task_id: int) -> Task:
    task = live_task(cluster, task_id)
    if task.state is not TaskState.PENDING:
        raise ConflictError(
            f"task {task_id} is {task.state}", "only a task that waits has a place in the queue"
        )
    return task


def waits_aside(task: Task) -> str:
    """Why it is not in line, in words; empty when it is."""
    reasons = ["it is held until it is released"] if task.held else []
    after = task.batch.after if task.attempt == 0 else ()
    if after:
        shown = ", ".join(_condition(dependency) for dependency in after[:_SHOWN])
        more = f" and {len(after) - _SHOWN} more" if len(after) > _SHOWN else ""
        reasons.append(f"it waits for {shown}{more}")
    if task.not_before is not None:
        when = datetime.fromtimestamp(task.not_before, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        reasons.append(f"it is not to run before {when}")
    return "; ".join(reasons)


def _condition(dependency: Dependency) -> str:
    how = {Outcome.OK: "complete", Outcome.ANY: "end", Outcome.FAILED: "fail"}[dependency.outcome]
    return f"task {dependency.task_id} to {how}"
