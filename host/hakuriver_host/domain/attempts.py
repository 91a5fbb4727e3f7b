"""What becomes of an attempt: its reports, its end, its loss, and the next try.

The pieces that the reactor's functions are made of. `change` is the one place where a task's state changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from hakuriver.dependencies import Outcome
from hakuriver.models.runner import AttemptReport, Verdict, VerdictAction
from hakuriver.models.submission import MAX_RETRY_DELAY, RetryCause
from hakuriver.sizes import format_duration
from hakuriver.states import FINAL, HOLDING, TaskState
from hakuriver_host.domain.cluster import Cluster
from hakuriver_host.domain.gpus import Gpu, GpuRequest
from hakuriver_host.domain.ledger import holding
from hakuriver_host.domain.machine import allowed
from hakuriver_host.domain.model import AttemptKey, Batch, Effects, Event, Node, Now, Request, Task
from hakuriver_host.domain.placement import impossible

_RETRY_CAUSES = {
    TaskState.FAILED: RetryCause.FAILED,
    TaskState.KILLED_OOM: RetryCause.OOM,
    TaskState.LOST: RetryCause.LOST,
}
_MOST_DOUBLINGS = 32
_NOT_A_RUNNERS = {TaskState.PENDING, TaskState.LOST}
"""States that are the Host's alone to give."""


def take_all(
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
        action = take(cluster, node_name, report, now, effects, returning=returning)
        _keep_back(cluster, node_name, report, action, effects)
        if action is not VerdictAction.KEEP:
            verdicts.append(Verdict(task_id=report.task_id, attempt=report.attempt, action=action))
    return verdicts


def take(
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
    if report.status not in FINAL and report.run < task.run and task.state is not TaskState.LOST:
        _not_told_to_start(cluster, task, effects)
        return VerdictAction.KEEP
    given_up = returning and task.state not in HOLDING and task.state is not TaskState.STOPPED
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
    task.sequence, task.run = report.sequence, report.run
    task.image, task.unit_name = report.image or task.image, report.unit_name or task.unit_name
    if report.started_at is not None:
        task.started_at = report.started_at.timestamp()
    task.usage = report.usage or task.usage
    if report.status in FINAL:
        _finish(cluster, task, report, now, effects)
        return VerdictAction.FORGET
    if report.status is TaskState.STOPPED:
        _at_rest(cluster, task, effects)
    if task.kill_requested or task.preempting:
        told_to_kill(cluster, task, effects)
    if not task.preempting:
        task.reason = report.message or ""
    effects.progress.append(task)
    if report.status is not task.state and allowed(task.state, report.status):
        if report.status is TaskState.RUNNING and cluster.claim and cluster.claim.node == node_name:
            # When it ends at the latest is known now: others may use what is kept there until then.
            freed(cluster, effects)
        how = "as it was asked to" if report.status is TaskState.STOPPED else f"on {node_name}"
        change(task, report.status, now, effects, report.message or how)
    return VerdictAction.KEEP


def _keep_back(
    cluster: Cluster, node_name: str, report: AttemptReport, action: VerdictAction, effects: Effects
) -> None:
    """Nobody gets the GPUs of an attempt that is to be killed before it has ended."""
    node = cluster.nodes[node_name]
    key = AttemptKey(report.task_id, report.attempt)
    if action is VerdictAction.KILL and report.status is not TaskState.STOPPED:
        node.leaving |= dict.fromkeys(report.gpus, key)
        node.heartbeat_then = node.heartbeat
    elif report.status in FINAL and key in node.leaving.values():
        node.leaving = {uuid: holder for uuid, holder in node.leaving.items() if holder != key}
        freed(cluster, effects)


def left(cluster: Cluster, node: Node, effects: Effects) -> None:
    """Gives on the GPUs of attempts that the node has no more: the report of their end may have overtaken another."""
    if not node.leaving or node.heartbeat is node.heartbeat_then:
        return
    running = set(node.heartbeat.running_tasks)
    gone = [uuid for uuid, key in node.leaving.items() if key.task_id not in running]
    for uuid in gone:
        del node.leaving[uuid]
    if gone:
        freed(cluster, effects)


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
    retried = task.batch.spec.is_retried(_RETRY_CAUSES.get(report.status), report.exit_code)
    waits = task.state is TaskState.PENDING and not (task.closed or task.kept)
    return waits and (retried or _made_room(task, report))


def _made_room(task: Task, report: AttemptReport) -> bool:
    """Whether it was ended for another task: killed, and no person asked for that. The order may be older than what the
    Host knows of it, when it lost its last writes or had given the node up.
    """
    return report.status is TaskState.KILLED and task.request.preemptible and not task.kill_requested


def _over(report: AttemptReport) -> VerdictAction:
    return VerdictAction.FORGET if report.status in FINAL else VerdictAction.KILL


def _reopen(cluster: Cluster, task: Task, node_name: str, report: AttemptReport) -> None:
    """An attempt that had been given up, or that the Host had forgotten, holds its resources again."""
    if task.state is TaskState.PENDING:
        cluster.queue.remove(task)
        task.held, task.not_before = False, None
    if task.state not in HOLDING:
        task.attempt, task.node, task.closed = report.attempt, node_name, False
        task.completed_at = task.exit_code = task.message = None
        _take_gpus(cluster, task, report)
        if report.status is not TaskState.STOPPED:
            cluster.ledger.hold(node_name, task.task_id, holding(task, cluster.nodes.get(node_name)))
    struck(cluster, task)


def _take_gpus(cluster: Cluster, task: Task, report: AttemptReport) -> None:
    """GPUs and cores that the Runner says it gave: a Host that lost its last writes does not know of them."""
    task.cpus = tuple(report.cpus)
    if report.gpus != [gpu.uuid for gpu in task.gpus]:
        node = cluster.nodes.get(task.node or "")
        known = {gpu.uuid: gpu for gpu in node.gpus} if node else {}
        task.gpus = tuple(known.get(uuid, Gpu(uuid, -1)) for uuid in report.gpus)


def _not_told_to_start(cluster: Cluster, task: Task, effects: Effects) -> None:
    """The Runner speaks of the time before the start that it is to be told of, perhaps by a Host that has ended since."""
    node = cluster.nodes.get(task.node or "")
    if node is not None and task.state is TaskState.ASSIGNING and not task.kill_requested:
        node.to_start[task.task_id] = task
        effects.wake.add(node.name)


def _at_rest(cluster: Cluster, task: Task, effects: Effects) -> None:
    """It has been stopped: others may have what it held, and it can be started where it is alone."""
    release(cluster, task, effects)
    task.request = pinned(task)


def pinned(task: Task) -> Request:
    """What it asks for where it is kept: its container has the GPUs that it was made with."""
    gpus = GpuRequest(len(task.gpus), tuple(gpu.uuid for gpu in task.gpus)) if task.gpus else None
    return replace(task.request, node=task.node, gpus=gpus)


def stay(cluster: Cluster, task: Task, cause: str, now: Now, effects: Effects) -> None:
    """A stopped VPS that was to be started stays stopped."""
    cluster.queue.remove(task)
    task.held = False
    _at_rest(cluster, task, effects)
    task.reason = cause
    change(task, TaskState.STOPPED, now, effects, cause)


def _finish(cluster: Cluster, task: Task, report: AttemptReport, now: Now, effects: Effects) -> None:
    """The Runner's last word on the attempt: the end of the task, or its next try."""
    if task.state is TaskState.ASSIGNING and report.started_at is not None:
        # The end overtook the report of the start, or stands for both: the history tells of both.
        began = now._replace(wall=report.started_at.timestamp())
        change(task, TaskState.RUNNING, began, effects, f"on {task.node}")
    task.closed = True
    _keep_usage(cluster, task)
    task.exit_code, task.message = report.exit_code, report.message
    task.completed_at = report.completed_at.timestamp() if report.completed_at else now.wall
    if _made_room(task, report):
        _wait_again(cluster, task, task.reason or "ended to make room", now, effects)
    elif task.may_retry(_RETRY_CAUSES.get(report.status), report.exit_code):
        _retry(cluster, task, f"attempt {task.attempt} {_outcome(report)}", now, effects)
    else:
        end(cluster, task, report.status, now, effects, report.message or "")


def _keep_usage(cluster: Cluster, task: Task) -> None:
    """What the last heartbeat told, where that is more than its end does: a Runner that is killed forgets what it saw last."""
    node = cluster.nodes.get(task.node or "")
    told = node.heartbeat.usage.get(f"{task.task_id}-{task.attempt}") if node is not None else None
    if told is not None and (task.usage is None or task.usage.seconds < told.seconds):
        task.usage = told.model_copy(update={"cpu_now": None, "memory_bytes": None})


def _outcome(report: AttemptReport) -> str:
    if report.status is TaskState.KILLED_OOM:
        return "ran out of memory"
    if report.exit_code is not None:
        return f"ended with exit code {report.exit_code}"
    return f"failed: {report.message or 'no reason given'}"


def _retry(cluster: Cluster, task: Task, cause: str, now: Now, effects: Effects) -> None:
    """Back into the queue, for another attempt, of which there are not so many more."""
    task.retries += 1
    spec = task.batch.spec
    cause = f"{cause}; retry {task.retries} of {spec.max_retries}"
    if spec.retry_delay_seconds:
        pause = min(spec.retry_delay_seconds << min(task.retries - 1, _MOST_DOUBLINGS), MAX_RETRY_DELAY)
        task.not_before = now.wall + pause
        cause = f"{cause} in {format_duration(pause)}"
    _wait_again(cluster, task, cause, now, effects)


def preempt(cluster: Cluster, task: Task, wanted_by: Task, effects: Effects) -> None:
    """Has its attempt ended to make room for another task; when it has, it waits again."""
    struck(cluster, task)
    task.preempting = True
    task.reason = f"ended to make room for task {wanted_by.task_id}"
    told_to_kill(cluster, task, effects)
    effects.tasks[task.task_id] = task
    effects.progress.append(task)


def _wait_again(cluster: Cluster, task: Task, cause: str, now: Now, effects: Effects) -> None:
    exit_code, task.preempting = task.exit_code, False
    release(cluster, task, effects)
    task.message = task.exit_code = task.started_at = task.completed_at = None
    task.reason = cause
    change(task, TaskState.PENDING, now, effects, cause, exit_code)
    enter(cluster, task)


def refused(cluster: Cluster, task: Task, reason: str, now: Now, effects: Effects) -> None:
    node_name = task.node or ""
    if task.run:
        stay(cluster, task, f"{node_name} cannot start it: {reason}", now, effects)
        if task.kill_requested:
            told_to_kill(cluster, task, effects)
        return
    task.closed = True
    excluded = replace(task.request, excluded=task.request.excluded | {node_name})
    elsewhere = any(not impossible(node, excluded) for node in cluster.nodes.values())
    if not elsewhere or task.kill_requested:
        end(
            cluster,
            task,
            TaskState.KILLED if task.kill_requested else TaskState.FAILED,
            now,
            effects,
            f"{node_name} refused it: {reason}",
        )
        return
    release(cluster, task, effects)
    task.request, task.preempting = excluded, False
    task.reason = f"{node_name} refused it: {reason}"
    change(task, TaskState.PENDING, now, effects, task.reason)
    enter(cluster, task)


def without_gpus(
    cluster: Cluster, task: Task, unusable: Iterable[str], reason: str, now: Now, effects: Effects
) -> None:
    """The node cannot give it its GPUs: others may do, there too. These get no work until the node registers again."""
    node, bad = cluster.nodes[task.node or ""], set(unusable)
    node.gpus = tuple(
        replace(gpu, problem=gpu.problem or "its Runner cannot give it now") if gpu.uuid in bad else gpu
        for gpu in node.gpus
    )
    task.closed, task.preempting = True, False
    release(cluster, task, effects)
    task.reason = f"{node.name} could not start it: {reason}"
    change(task, TaskState.PENDING, now, effects, task.reason)
    enter(cluster, task)


def missing(cluster: Cluster, node: Node, task: Task, *, forgot: bool, now: Now, effects: Effects) -> None:
    """The Host counts on an attempt of which the Runner's journal says nothing."""
    if task.closed or (task.state is TaskState.PENDING and not task.kept):
        return
    arrived = task.sequence >= 0
    if forgot or arrived:
        if task.state is not TaskState.LOST:
            lose(cluster, task, f"{node.name} no longer knows of it", now, effects)
        return
    # It never arrived, and the journal would know. So nothing is lost by sending or queueing it again.
    if task.kill_requested:
        if task.state is not TaskState.LOST:
            end(cluster, task, TaskState.KILLED, now, effects, task.reason or "killed")
    elif task.preempting:
        task.closed = True
        _wait_again(cluster, task, task.reason, now, effects)
    elif task.state is TaskState.ASSIGNING:
        node.to_start[task.task_id] = task
    elif task.state is TaskState.LOST:
        task.closed = True
        task.completed_at = task.message = None
        change(task, TaskState.PENDING, now, effects, f"{node.name} came back without having started it")
        enter(cluster, task)
        effects.schedule = True


def lose(cluster: Cluster, task: Task, cause: str, now: Now, effects: Effects) -> None:
    """The node is given up on. The attempt stays open: the Runner may come back and correct it."""
    _keep_usage(cluster, task)
    if task.may_retry(RetryCause.LOST):
        _retry(cluster, task, f"attempt {task.attempt} is lost: {cause}", now, effects)
        return
    cluster.queue.remove(task)
    release(cluster, task, effects)
    task.message, task.completed_at, task.reason = cause, now.wall, ""
    task.preempting = False
    change(task, TaskState.LOST, now, effects, cause)
    _ended(cluster, task, effects)


def end(cluster: Cluster, task: Task, state: TaskState, now: Now, effects: Effects, cause: str) -> None:
    """The task is final; those that are to run after it are told."""
    release(cluster, task, effects)
    task.closed = True
    task.reason = ""
    task.held, task.not_before, task.preempting = False, None, False
    task.message = cause or task.message
    task.completed_at = task.completed_at or now.wall
    change(task, state, now, effects, cause, task.exit_code)
    del cluster.tasks[task.task_id]
    _ended(cluster, task, effects)


def _ended(cluster: Cluster, task: Task, effects: Effects) -> None:
    """Tells the batches that are to run after it. Their tasks are moved round by round, since they may be many."""
    if task.task_id in cluster.watched:
        cluster.outcomes[task.task_id] = task.state
    for batch in cluster.followers.pop(task.task_id, {}).values():
        if follow(batch, {task.task_id: task.state}):
            effects.batches[batch.batch_id] = batch
        if batch.doom or not batch.after:
            cluster.queue.wake(batch.batch_id)
            effects.schedule = True


def follow(batch: Batch, outcomes: Mapping[int, TaskState]) -> bool:
    """Takes out of what it waits for those that have ended as it wants, and says whether there were any. Where one has
    ended in another way, its tasks are doomed; what it waits for stays on the record, so that a restart finds it again.
    """
    if batch.doom:
        return False
    waits = []
    for dependency in batch.after:
        state = outcomes.get(dependency.task_id)
        if state is None:
            waits.append(dependency)
        elif not dependency.outcome.admits(state):
            wanted = "had completed" if dependency.outcome is Outcome.OK else "had failed"
            batch.doom = f"it was to run once task {dependency.task_id} {wanted}, which is {state}"
            return False
    changed = len(waits) < len(batch.after)
    batch.after = tuple(waits)
    return changed


def enter(cluster: Cluster, task: Task) -> None:
    """Into the queue. What comes first of its group is looked at, though there was no room for those behind it: they may
    have been kept from room that was set aside for a task which it goes before.
    """
    cluster.queue.add(task)
    if cluster.queue.first(task.group) is task:
        cluster.blocked.discard(task.group)


def release(cluster: Cluster, task: Task, effects: Effects) -> None:
    struck(cluster, task)
    node = cluster.nodes.get(task.node or "")
    # Of what waits, an earlier attempt may be left, which is to be killed all the same.
    if node is not None and task.state is not TaskState.PENDING:
        node.to_kill.pop(task.key, None)
    if task.node and cluster.ledger.release(task.node, task.task_id):
        freed(cluster, effects)
    effects.schedule = True


def freed(cluster: Cluster, effects: Effects) -> None:
    """Something may fit now that did not before."""
    cluster.blocked.clear()
    effects.schedule = True


def struck(cluster: Cluster, task: Task) -> None:
    """The attempt has reached its Runner: it need not be sent any more."""
    node = cluster.nodes.get(task.node or "")
    if node is not None:
        node.to_start.pop(task.task_id, None)


def told_to_kill(cluster: Cluster, task: Task, effects: Effects) -> None:
    node = cluster.nodes.get(task.node or "")
    if node is not None:
        node.to_kill[task.key] = None
        effects.wake.add(node.name)


def change(
    task: Task, state: TaskState, now: Now, effects: Effects, cause: str, exit_code: int | None = None
) -> None:
    """The one place where a task's state changes."""
    if not allowed(task.state, state):
        raise AssertionError(f"task {task.task_id} cannot go from {task.state} to {state}")
    task.state = state
    node = task.node if state is not TaskState.PENDING else None
    effects.tasks[task.task_id] = task
    effects.events.append(Event(now.wall, task, task.attempt, state, node, cause, exit_code))
