"""The brain of the Host: what each thing that happens means.

A handful of functions over a plain `Cluster`. Each takes what happened and `now`, changes the cluster, and
says in `Effects` what is to be written and who is to be told. Nothing here waits, reads a clock or talks to anyone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from hakuriver.errors import ConflictError, NotFoundError
from hakuriver.models.runner import AttemptReport, HeartbeatRequest, StartResult, Verdict, VerdictAction
from hakuriver.models.tasks import RetryCause
from hakuriver.states import FINAL, HOLDING, NodeState, TaskState
from hakuriver_host.domain.ledger import Ledger
from hakuriver_host.domain.machine import allowed
from hakuriver_host.domain.model import AttemptKey, Effects, Event, Node, Now, Registration, Request, Task
from hakuriver_host.domain.placement import Claim, impossible, place
from hakuriver_host.domain.queue import Queue

_RETRY_CAUSES = {
    TaskState.FAILED: RetryCause.FAILED,
    TaskState.KILLED_OOM: RetryCause.OOM,
    TaskState.LOST: RetryCause.LOST,
}

_NOT_A_RUNNERS = {TaskState.PENDING, TaskState.LOST}
"""States that are the Host's alone to give."""


@dataclass(slots=True)
class Cluster:
    """All that the Host decides over: its nodes, the tasks that are not final, and who holds what."""

    nodes: dict[str, Node] = field(default_factory=dict)
    tasks: dict[int, Task] = field(default_factory=dict)
    queue: Queue = field(default_factory=Queue)
    ledger: Ledger = field(default_factory=Ledger)
    claim: Claim | None = None
    blocked: set[Request] = field(default_factory=set)
    """Groups of the queue that the last round found no room for."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds."""

    offline_after: float
    lost_after: float


def restore(cluster: Cluster, nodes: Iterable[Node], tasks: Iterable[Task], now: Now) -> None:
    """Takes up what the database holds. Nodes get a full time-out to show themselves."""
    for node in nodes:
        node.last_seen = now.mono
        cluster.nodes[node.name] = node
    for task in tasks:
        cluster.tasks[task.task_id] = task
        if task.state is TaskState.PENDING:
            cluster.queue.add(task)
        elif task.state in HOLDING and task.node:
            cluster.ledger.hold(task.node, task.task_id, task.request)
            if task.kill_requested and task.node in cluster.nodes:
                cluster.nodes[task.node].to_kill[task.key] = None


def on_submit(cluster: Cluster, tasks: Iterable[Task]) -> Effects:
    """New tasks, already on the record, enter the queue."""
    effects = Effects(schedule=True)
    for task in tasks:
        cluster.tasks[task.task_id] = task
        cluster.queue.add(task)
    return effects


def on_schedule(cluster: Cluster, now: Now) -> Effects:
    """One round of placement: reserves, and marks what is to be started."""
    effects = Effects()
    outcome, claim = place(cluster.queue, cluster.nodes, cluster.ledger, cluster.claim, cluster.blocked)
    freed_claim = cluster.claim is not None and claim != cluster.claim
    cluster.claim, cluster.blocked = claim, set() if freed_claim else outcome.blocked
    effects.schedule = freed_claim and bool(outcome.blocked)
    for task, node in outcome.placed:
        task.attempt += 1
        task.node, task.sequence, task.closed = node.name, -1, False
        task.exit_code = task.started_at = task.completed_at = task.message = task.image = task.unit_name = (
            None
        )
        node.to_start[task.task_id] = task
        effects.wake.add(node.name)
        _change(task, TaskState.ASSIGNING, now, effects, f"placed on {node.name}")
    return effects


def on_start_results(cluster: Cluster, node_name: str, results: Iterable[StartResult], now: Now) -> Effects:
    """The Runner's answers to starts. What it refused goes to another node, or fails where none is left."""
    effects = Effects()
    for result in results:
        task = cluster.tasks.get(result.task_id)
        if task is None or task.attempt != result.attempt or task.node != node_name:
            continue
        _struck(cluster, task)
        if result.outcome == "refused" and task.state is TaskState.ASSIGNING:
            _refused(cluster, task, result.reason or "no reason given", now, effects)
            continue
        if result.report is not None:
            _take(cluster, node_name, result.report, now, effects)
        task.sequence = max(task.sequence, 0)
    return effects


def on_reports(
    cluster: Cluster, node_name: str, reports: Iterable[AttemptReport], now: Now
) -> tuple[Effects, list[Verdict]]:
    """Reports of a Runner; stale, repeated and reordered ones change nothing.

    The verdicts tell the Runner what to do with each attempt of which it must do something.
    """
    effects = Effects()
    return effects, _take_all(cluster, node_name, reports, now, effects, returning=False)


def on_register(cluster: Cluster, registration: Registration, now: Now) -> tuple[Effects, list[Verdict]]:
    """A Runner presents itself: what it holds is reconciled with what the Host thinks before it gets work."""
    node = cluster.nodes.get(registration.name)
    if node is None:
        node = cluster.nodes[registration.name] = Node(registration.name, registration.url, {})
    forgot = bool(node.journal_id) and node.journal_id != registration.journal_id
    _describe(node, registration, now)
    effects = Effects()
    verdicts = _take_all(cluster, node.name, registration.attempts, now, effects, returning=True)
    reported = {AttemptKey(report.task_id, report.attempt) for report in registration.attempts}
    for task in [
        task for task in cluster.tasks.values() if task.node == node.name and task.key not in reported
    ]:
        _missing(cluster, node, task, forgot=forgot, now=now, effects=effects)
    node.reconciled = True
    effects.nodes[node.name] = node
    effects.wake.add(node.name)
    _freed(cluster, effects)
    return effects, verdicts


def on_heartbeat(cluster: Cluster, name: str, heartbeat: HeartbeatRequest, now: Now) -> bool:
    """Notes that the node lives. False when it has to register (again) first."""
    node = cluster.nodes.get(name)
    if node is None or not node.reconciled or node.state is NodeState.OFFLINE:
        return False
    node.last_seen, node.last_heartbeat, node.heartbeat = now.mono, now.wall, heartbeat
    return True


def on_tick(cluster: Cluster, timeouts: Timeouts, now: Now) -> Effects:
    """Time has passed: silent nodes go offline, and the tasks of those silent for long are lost."""
    effects = Effects()
    for node in cluster.nodes.values():
        silence = now.mono - node.last_seen
        if silence > timeouts.offline_after and (node.state is NodeState.ONLINE or node.reconciled):
            node.state, node.reconciled = NodeState.OFFLINE, False
            effects.nodes[node.name] = node
            _freed(cluster, effects)
        if silence > timeouts.offline_after + timeouts.lost_after:
            for task_id in list(cluster.ledger.holders(node.name)):
                task = cluster.tasks[task_id]
                cause = f"{node.name} has not been heard of for {silence:.0f} s"
                _lose(cluster, task, cause, now, effects)
    return effects


def on_kill(cluster: Cluster, task_id: int, by: str, now: Now) -> Effects:
    """Ends a task in any state that is not final; what may have reached a Runner is ended by the Runner.

    Raises:
        ConflictError: it is lost; nothing is there to be told.
        NotFoundError: no such task is live.

    """
    task = _live(cluster, task_id)
    effects = Effects()
    task.kill_requested = True
    cause = f"killed by {by}"
    if task.state is TaskState.PENDING:
        cluster.queue.remove(task)
        _end(cluster, task, TaskState.KILLED, now, effects, cause)
        return effects
    node = cluster.nodes.get(task.node or "")
    if node is not None:
        node.to_start.pop(task_id, None)
        node.to_kill[task.key] = None
        effects.wake.add(node.name)
    task.reason = cause
    effects.tasks[task_id] = task
    effects.progress.append(task)
    return effects


def on_killed(cluster: Cluster, node_name: str, keys: Iterable[AttemptKey]) -> None:
    """The Runner has taken these kills; their ends come as reports."""
    node = cluster.nodes.get(node_name)
    for key in keys:
        if node is not None:
            node.to_kill.pop(key, None)


def check_signal(cluster: Cluster, task_id: int, action: str) -> Task:
    """The task to be paused or resumed.

    Raises:
        ConflictError: it is not in the state for that.
        NotFoundError: no such task is live.

    """
    task = _live(cluster, task_id)
    wanted = TaskState.RUNNING if action == "pause" else TaskState.PAUSED
    if task.state is not wanted:
        raise ConflictError(
            f"task {task_id} is {task.state}, not {wanted}", f"only a {wanted} task can be {action}d"
        )
    return task


def _live(cluster: Cluster, task_id: int) -> Task:
    task = cluster.tasks.get(task_id)
    if task is None:
        raise NotFoundError(f"there is no live task {task_id}", "list them with `hakuriver task list`")
    if task.state is TaskState.LOST:
        raise ConflictError(
            f"task {task_id} is lost: {task.message}",
            "its node ends it should it come back and the task have been killed or retried",
        )
    return task


def _take_all(
    cluster: Cluster,
    node_name: str,
    reports: Iterable[AttemptReport],
    now: Now,
    effects: Effects,
    *,
    returning: bool,
) -> list[Verdict]:
    verdicts = []
    for report in reports:
        action = _take(cluster, node_name, report, now, effects, returning=returning)
        if action is not VerdictAction.KEEP:
            verdicts.append(Verdict(task_id=report.task_id, attempt=report.attempt, action=action))
    return verdicts


def _take(
    cluster: Cluster,
    node_name: str,
    report: AttemptReport,
    now: Now,
    effects: Effects,
    *,
    returning: bool = False,
) -> VerdictAction:
    """Applies one report, and says what the Runner is to do with the attempt.

    What a `returning` Runner still has is adopted even where it has not changed since it was last heard of.
    """
    task = cluster.tasks.get(report.task_id)
    if task is None or not _is_current(task, node_name, report):
        return _over(report)
    given_up = returning and task.state not in HOLDING
    known = report.attempt == task.attempt and report.sequence <= task.sequence
    if (known and not given_up) or report.status in _NOT_A_RUNNERS:
        return VerdictAction.KEEP
    if task.kill_requested and task.state is TaskState.LOST and report.status not in FINAL:
        return VerdictAction.KILL
    if _retry_is_queued(task, report):
        task.closed = True
        effects.tasks[task.task_id] = task
        return VerdictAction.FORGET
    _reopen(cluster, task, node_name, report)
    task.sequence = report.sequence
    task.image, task.unit_name = report.image or task.image, report.unit_name or task.unit_name
    if report.started_at is not None:
        task.started_at = report.started_at.timestamp()
    if report.status in FINAL:
        _finish(cluster, task, report, now, effects)
        return VerdictAction.FORGET
    if task.kill_requested:
        _told_to_kill(cluster, task, effects)
    task.reason = report.message or ""
    effects.progress.append(task)
    if report.status is not task.state and allowed(task.state, report.status):
        _change(task, report.status, now, effects, report.message or f"on {node_name}")
    return VerdictAction.KEEP


def _is_current(task: Task, node_name: str, report: AttemptReport) -> bool:
    """Whether the report speaks of the attempt that the Host counts on."""
    if (
        task.state is TaskState.PENDING
        and report.attempt == task.attempt + 1
        and report.status is not TaskState.ASSIGNING
    ):
        # Placed by a Host that lost its last writes with the power: the Runner's journal is the better record.
        return task.closed
    return report.attempt == task.attempt and task.node == node_name and not task.closed


def _retry_is_queued(task: Task, report: AttemptReport) -> bool:
    """A lost attempt turns out to have failed, and the task waits for its next try already: that stands."""
    return (
        task.state is TaskState.PENDING
        and not task.closed
        and _RETRY_CAUSES.get(report.status) in task.batch.spec.retry_on
    )


def _over(report: AttemptReport) -> VerdictAction:
    return VerdictAction.FORGET if report.status in FINAL else VerdictAction.KILL


def _reopen(cluster: Cluster, task: Task, node_name: str, report: AttemptReport) -> None:
    """An attempt that had been given up, or that the Host had forgotten, holds its resources again."""
    if task.state is TaskState.PENDING:
        cluster.queue.remove(task)
    if task.state not in HOLDING:
        task.attempt, task.node, task.closed = report.attempt, node_name, False
        task.completed_at = task.exit_code = task.message = None
        cluster.ledger.hold(node_name, task.task_id, task.request)
    _struck(cluster, task)


def _finish(cluster: Cluster, task: Task, report: AttemptReport, now: Now, effects: Effects) -> None:
    """The Runner's last word on the attempt: the end of the task, or its next try."""
    task.closed = True
    task.exit_code, task.message = report.exit_code, report.message
    task.completed_at = report.completed_at.timestamp() if report.completed_at else now.wall
    cause = _RETRY_CAUSES.get(report.status)
    if cause is not None and task.may_retry(cause):
        _retry(cluster, task, f"attempt {task.attempt} {_outcome(report)}", now, effects)
    else:
        _end(cluster, task, report.status, now, effects, report.message or "")


def _outcome(report: AttemptReport) -> str:
    if report.status is TaskState.KILLED_OOM:
        return "ran out of memory"
    if report.exit_code is not None:
        return f"ended with exit code {report.exit_code}"
    return f"failed: {report.message or 'no reason given'}"


def _retry(cluster: Cluster, task: Task, cause: str, now: Now, effects: Effects) -> None:
    """Back into the queue, for another attempt."""
    exit_code = task.exit_code
    task.retries += 1
    cause = f"{cause}; retry {task.retries} of {task.batch.spec.max_retries}"
    _release(cluster, task, effects)
    task.exit_code = task.started_at = task.completed_at = None
    task.reason = cause
    _change(task, TaskState.PENDING, now, effects, cause, exit_code)
    cluster.queue.add(task)


def _end(cluster: Cluster, task: Task, state: TaskState, now: Now, effects: Effects, cause: str) -> None:
    """The task is final."""
    _release(cluster, task, effects)
    task.closed = True
    task.reason = ""
    task.message = cause or task.message
    task.completed_at = task.completed_at or now.wall
    _change(task, state, now, effects, cause, task.exit_code)
    del cluster.tasks[task.task_id]


def _lose(cluster: Cluster, task: Task, cause: str, now: Now, effects: Effects) -> None:
    """The node is given up on. The attempt stays open: the Runner may come back and correct it."""
    if task.may_retry(RetryCause.LOST):
        _retry(cluster, task, f"attempt {task.attempt} is lost: {cause}", now, effects)
        return
    _release(cluster, task, effects)
    task.message, task.completed_at, task.reason = cause, now.wall, ""
    _change(task, TaskState.LOST, now, effects, cause)


def _missing(cluster: Cluster, node: Node, task: Task, *, forgot: bool, now: Now, effects: Effects) -> None:
    """The Host counts on an attempt of which the Runner's journal says nothing."""
    if task.closed or task.state is TaskState.PENDING:
        return
    arrived = task.sequence >= 0
    if forgot or arrived:
        if task.state is not TaskState.LOST:
            _lose(cluster, task, f"{node.name} no longer knows of it", now, effects)
        return
    # It never arrived, and the journal would know. So nothing is lost by sending or queueing it again.
    if task.kill_requested:
        if task.state is not TaskState.LOST:
            _end(cluster, task, TaskState.KILLED, now, effects, task.reason or "killed")
    elif task.state is TaskState.ASSIGNING:
        node.to_start[task.task_id] = task
    elif task.state is TaskState.LOST:
        task.closed = True
        task.completed_at = task.message = None
        _change(task, TaskState.PENDING, now, effects, f"{node.name} came back without having started it")
        cluster.queue.add(task)
        effects.schedule = True


def _refused(cluster: Cluster, task: Task, reason: str, now: Now, effects: Effects) -> None:
    node_name = task.node or ""
    task.closed = True
    excluded = replace(task.request, excluded=task.request.excluded | {node_name})
    elsewhere = any(not impossible(node, excluded) for node in cluster.nodes.values())
    if not elsewhere or task.kill_requested:
        _end(
            cluster,
            task,
            TaskState.KILLED if task.kill_requested else TaskState.FAILED,
            now,
            effects,
            f"{node_name} refused it: {reason}",
        )
        return
    _release(cluster, task, effects)
    task.request = excluded
    task.reason = f"{node_name} refused it: {reason}"
    _change(task, TaskState.PENDING, now, effects, task.reason)
    cluster.queue.add(task)


def _describe(node: Node, registration: Registration, now: Now) -> None:
    node.url, node.capacity = registration.url, dict(registration.capacity)
    node.devices, node.numa_nodes = registration.devices, registration.numa_nodes
    node.engines, node.engine_notes = registration.engines, registration.engine_notes
    node.journal_id, node.problem = registration.journal_id, registration.problem
    node.state, node.last_seen, node.last_heartbeat = NodeState.ONLINE, now.mono, now.wall


def _told_to_kill(cluster: Cluster, task: Task, effects: Effects) -> None:
    node = cluster.nodes.get(task.node or "")
    if node is not None:
        node.to_kill[task.key] = None
        effects.wake.add(node.name)


def _struck(cluster: Cluster, task: Task) -> None:
    """The attempt has reached its Runner: it need not be sent any more."""
    node = cluster.nodes.get(task.node or "")
    if node is not None:
        node.to_start.pop(task.task_id, None)


def _release(cluster: Cluster, task: Task, effects: Effects) -> None:
    _struck(cluster, task)
    node = cluster.nodes.get(task.node or "")
    if node is not None:
        node.to_kill.pop(task.key, None)
    if task.node and cluster.ledger.release(task.node, task.task_id):
        _freed(cluster, effects)
    effects.schedule = True


def _freed(cluster: Cluster, effects: Effects) -> None:
    """Something may fit now that did not before."""
    cluster.blocked.clear()
    effects.schedule = True


def _change(
    task: Task, state: TaskState, now: Now, effects: Effects, cause: str, exit_code: int | None = None
) -> None:
    """The one place where a task's state changes."""
    if not allowed(task.state, state):
        raise AssertionError(f"task {task.task_id} cannot go from {task.state} to {state}")
    task.state = state
    node = task.node if state is not TaskState.PENDING else None
    effects.tasks[task.task_id] = task
    effects.events.append(Event(now.wall, task, task.attempt, state, node, cause, exit_code))


__all__ = [
    "Cluster",
    "Timeouts",
    "check_signal",
    "on_heartbeat",
    "on_kill",
    "on_killed",
    "on_register",
    "on_reports",
    "on_schedule",
    "on_start_results",
    "on_submit",
    "on_tick",
    "restore",
]
