"""The cluster as the Host holds it in memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hakuriver.errors import ConflictError, NotFoundError
from hakuriver.states import TaskState
from hakuriver_host.domain.ledger import Ledger
from hakuriver_host.domain.model import Batch, Group, Node, Task
from hakuriver_host.domain.order import NodeOrder
from hakuriver_host.domain.placement import Claim
from hakuriver_host.domain.queue import Queue
from hakuriver_host.domain.turns import Limits, Shares, Turns


@dataclass(slots=True)
class Cluster:
    """All that the Host decides over: its nodes, the tasks that are not final, and who holds what."""

    nodes: dict[str, Node] = field(default_factory=dict)
    tasks: dict[int, Task] = field(default_factory=dict)
    queue: Queue = field(default_factory=Queue)
    ledger: Ledger = field(default_factory=Ledger)
    order: NodeOrder = field(default_factory=NodeOrder)
    pins: bool = True
    """Tasks get cores of their own, where nodes can give them."""
    claim: Claim | None = None
    shares: Shares = field(default_factory=Shares)
    limits: Limits = field(default_factory=Limits)
    blocked: set[Group] = field(default_factory=set)
    """Groups of the queue that the last round found no room for."""
    followers: dict[int, dict[int, Batch]] = field(default_factory=dict)
    """By a task that has not ended: the batches that are to run after it, by id."""
    watched: Counter[int] = field(default_factory=Counter)
    """Tasks that tasks which are being submitted are to run after."""
    outcomes: dict[int, TaskState] = field(default_factory=dict)
    """How those of them ended that have."""
    registering: dict[str, int] = field(default_factory=dict)
    """By node: the number of the last registration that has come, decided or not."""


def turns_of(cluster: Cluster) -> Turns:
    """Whose turn it is now."""
    return Turns(cluster.shares, cluster.limits, cluster.ledger, cluster.nodes.values())


def live_task(cluster: Cluster, task_id: int) -> Task:
    """The task, which has not ended.

    Raises:
        ConflictError: it is lost.
        NotFoundError: no such task is live.

    """
    task = cluster.tasks.get(task_id)
    if task is None:
        raise NotFoundError(f"there is no live task {task_id}", "list them with `hakuriver task list`")
    if task.state is TaskState.LOST:
        raise lost(task)
    return task


def lost(task: Task) -> ConflictError:
    """Why nothing can be done with a task that is lost, and what may be done nevertheless."""
    if task.batch.spec.task_type == "vps":
        return ConflictError(
            f"VPS {task.task_id} is lost: {task.message}",
            f"it comes back with its node; give it up: `hakuriver vps kill {task.task_id}`",
        )
    return ConflictError(
        f"task {task.task_id} is lost: {task.message}",
        "its node ends it should it come back and the task have been killed or retried",
    )
