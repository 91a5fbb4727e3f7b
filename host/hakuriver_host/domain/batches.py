"""What is done to a whole batch: the same as to each of its tasks, a part at a time, since they may be many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from hakuriver.errors import ConflictError, NotFoundError
from hakuriver.states import TaskState
from hakuriver_host.domain.cluster import Cluster
from hakuriver_host.domain.model import Effects, Now, Task
from hakuriver_host.domain.reactor import on_kill

AT_ONCE = 500
"""Tasks of a batch that are decided over between two turns of the Host's loop."""


def live_of(cluster: Cluster, batch_id: int) -> tuple[list[Task], list[Task]]:
    """Those of a batch that wait, the oldest first, and those that are with a Runner. Looks at all tasks."""
    live = [task for task in cluster.tasks.values() if task.batch.batch_id == batch_id]
    waiting = [task for task in live if task.state is TaskState.PENDING]
    return waiting, [task for task in live if task.state not in {TaskState.PENDING, TaskState.LOST}]


def parts(tasks: Sequence[Task]) -> Iterator[Sequence[Task]]:
    """As many at a time as may be decided over at once."""
    return (tasks[start : start + AT_ONCE] for start in range(0, len(tasks), AT_ONCE))


def on_each(tasks: Sequence[Task], decide: Callable[[int], Effects]) -> Effects:
    """One decision for several tasks; those that have ended or begun since they were chosen are left as they are."""
    effects = Effects()
    for task in tasks:
        try:
            effects.add(decide(task.task_id))
        except (ConflictError, NotFoundError):
            continue
    return effects


def on_kill_each(cluster: Cluster, tasks: Sequence[Task], by: str, now: Now) -> Effects:
    """Ends some tasks of a batch. Those that wait are best ended first, or they would get what the others set free."""
    effects = on_each(tasks, lambda task_id: on_kill(cluster, task_id, by, now))
    for group in {task.group for task in tasks}:
        # Drops them from the line of their group now, and not all at once when somebody looks there next.
        cluster.queue.first(group)
    return effects
