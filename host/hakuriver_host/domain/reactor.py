"""The brain of the Host: what each thing that happens means.

A handful of functions over a plain `Cluster`. Each takes what happened and `now`, changes the cluster, and
says in `Effects` what is to be written and who is to be told. Nothing here waits, reads a clock or talks to anyone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from hakuriver.errors import ConflictError, NotFoundError
from hakuriver.labels import MAX_LABELS
from hakuriver.models.runner import AttemptReport, HeartbeatRequest, StartResult, Verdict
from hakuriver.states import FINAL, HOLDING, NodeState, TaskState
from hakuriver.targets import parse_target
from hakuriver_host.domain.attempts import (
    change,
    end,
    enter,
    freed,
    left,
    lose,
    missing,
    pinned,
    preempt,
    refused,
    release,
    stay,
    struck,
    take,
    take_all,
    told_to_kill,
    without_gpus,
)
from hakuriver_host.domain.backfill import clock_of
from hakuriver_host.domain.cluster import Cluster, live_task, turns_of
from hakuriver_host.domain.gpus import asked
from hakuriver_host.domain.ledger import holding
from hakuriver_host.domain.model import AttemptKey, Effects, Node, Now, Registration, Task
from hakuriver_host.domain.placement import place
from hakuriver_host.domain.preemption import make_room
from hakuriver_host.domain.waiting import awaited, join, line_up


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds."""

    offline_after: float
    lost_after: float


def restore(
    cluster: Cluster,
    nodes: Iterable[Node],
    tasks: Iterable[Task],
    now: Now,
    outcomes: Mapping[int, TaskState] = MappingProxyType({}),
) -> Effects:
    """Takes up what the database holds. Nodes get a full time-out to show themselves.

    `outcomes` are the ends of tasks that others are to run after, which had not been told of it. One that is neither
    live nor among them is not known any more: its followers fail.
    """
    for node in nodes:
        node.last_seen = now.mono
        cluster.nodes[node.name] = node
    waiting = []
    for task in tasks:
        cluster.tasks[task.task_id] = task
        if task.kept or (task.run and not task.closed):
            task.request = pinned(task)
        if task.state is TaskState.PENDING:
            waiting.append(task)
        elif (task.state in HOLDING or task.kept) and task.node:
            if task.state in HOLDING:
                cluster.ledger.hold(task.node, task.task_id, holding(task, cluster.nodes.get(task.node)))
            if (task.kill_requested or task.preempting) and task.node in cluster.nodes:
                cluster.nodes[task.node].to_kill[task.key] = None
    effects = Effects()
    batches = {task.batch.batch_id: task.batch for task in waiting}.values()
    gone = {
        dependency.task_id: outcomes.get(dependency.task_id, TaskState.LOST)
        for batch in batches
        for dependency in batch.after
        if not awaited(cluster, dependency.task_id)
    }
    join(cluster, waiting, gone, effects)
    return effects


def on_submit(cluster: Cluster, tasks: Sequence[Task]) -> Effects:
    """New tasks, already on the record, enter the queue."""
    effects = Effects(schedule=True)
    for task in tasks:
        cluster.tasks[task.task_id] = task
    join(cluster, tasks, cluster.outcomes, effects)
    return effects


def on_schedule(cluster: Cluster, now: Now) -> Effects:
    """One round of placement: reserves, and marks what is to be started."""
    effects = Effects()
    more = line_up(cluster, now, effects)
    turns = turns_of(cluster)
    cluster.shares.advance(now.mono, turns.shares())
    outcome, claim = place(
        cluster.queue,
        cluster.nodes,
        cluster.ledger,
        cluster.order,
        cluster.claim,
        cluster.blocked,
        turns,
        clock_of(cluster.tasks, now),
        pins=cluster.pins,
    )
    freed_claim = cluster.claim is not None and claim is not cluster.claim
    if claim is not None:
        there = claim.node
        claim, victims = make_room(claim, cluster.nodes, cluster.ledger, cluster.tasks, turns)
        freed_claim = freed_claim or claim.node != there
        for victim in victims:
            preempt(cluster, victim, claim.task, effects)
    cluster.claim, cluster.blocked = claim, set() if freed_claim else outcome.blocked
    effects.schedule = more or outcome.more or (freed_claim and bool(outcome.blocked))
    for task, node in outcome.placed:
        again = task.kept
        if not again:
            _next_attempt(task, node.name)
        node.to_start[task.task_id] = task
        effects.wake.add(node.name)
        cause = f"{'starts again' if again else 'placed'} on {node.name}"
        change(task, TaskState.ASSIGNING, now, effects, cause)
    return effects


def on_start_results(cluster: Cluster, node_name: str, results: Iterable[StartResult], now: Now) -> Effects:
    """The Runner's answers to starts. What it refused goes to another node, or fails where none is left."""
    effects = Effects()
    if node_name not in cluster.nodes:
        return effects
    for result in results:
        task = cluster.tasks.get(result.task_id)
        if task is None or task.attempt != result.attempt or task.node != node_name:
            if task is None or task.node != node_name:
                cluster.nodes[node_name].to_start.pop(result.task_id, None)
            continue
        struck(cluster, task)
        why = _why_not_started(task, result)
        if why is not None and task.state is TaskState.ASSIGNING:
            if result.unusable_gpus and not (task.run or task.kill_requested):
                without_gpus(cluster, task, result.unusable_gpus, why, now, effects)
            else:
                refused(cluster, task, why, now, effects)
            continue
        if result.report is not None:
            take(cluster, node_name, result.report, now, effects)
        task.sequence = max(task.sequence, 0)
    return effects


def on_reports(
    cluster: Cluster, node_name: str, reports: Iterable[AttemptReport], now: Now
) -> tuple[Effects, list[Verdict]]:
    """Reports of a Runner; stale, repeated and reordered ones change nothing.

    The verdicts tell the Runner what to do with each attempt of which it must do something.

    Raises:
        NotFoundError: there is no such node; nothing is acknowledged.

    """
    _known(cluster, node_name)
    effects = Effects()
    return effects, take_all(cluster, node_name, reports, now, effects, returning=False)


def on_registering(cluster: Cluster, name: str) -> int:
    """A registration has come; `on_register` decides it when the Runner has been called back. Its number."""
    number = cluster.registering[name] = cluster.registering.get(name, 0) + 1
    return number


def on_register(
    cluster: Cluster, registration: Registration, number: int, now: Now
) -> tuple[Effects, list[Verdict]]:
    """A Runner presents itself: what it holds is reconciled with what the Host thinks before it gets work.

    It takes no starts from when it looked at what it holds until it is answered, so that what is not among it and
    had arrived is gone.

    Raises:
        ConflictError: a later registration has come meanwhile; this one says what is no longer so.

    """
    if cluster.registering.get(registration.name) != number:
        raise ConflictError(
            f"a later registration of {registration.name} has come meanwhile",
            "the Runner tries again by itself",
        )
    node = cluster.nodes.get(registration.name)
    # Of a node that had been removed nobody can say any more whether its journal is the same.
    forgot = node is None or (bool(node.journal_id) and node.journal_id != registration.journal_id)
    if node is None:
        node = cluster.nodes[registration.name] = Node(registration.name, registration.url, {})
    _describe(node, registration, now)
    node.leaving = {}
    cluster.ledger.changed.add(node.name)
    effects = Effects()
    verdicts = take_all(cluster, node.name, registration.attempts, now, effects, returning=True)
    reported = {AttemptKey(report.task_id, report.attempt) for report in registration.attempts}
    for task in [
        task for task in cluster.tasks.values() if task.node == node.name and task.key not in reported
    ]:
        missing(cluster, node, task, forgot=forgot, now=now, effects=effects)
    node.reconciled = True
    effects.nodes[node.name] = node
    effects.wake.add(node.name)
    freed(cluster, effects)
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
        left(cluster, node, effects)
        silence = now.mono - node.last_seen
        if silence > timeouts.offline_after and (node.state is NodeState.ONLINE or node.reconciled):
            node.state, node.reconciled = NodeState.OFFLINE, False
            node.to_kill |= {task.key: None for task in _kept_on(cluster, node.name) if task.kill_requested}
            effects.nodes[node.name] = node
            freed(cluster, effects)
        if silence > timeouts.offline_after + timeouts.lost_after:
            # A stopped VPS stays where it is, unless somebody waits for its end.
            told = [task for key in node.to_kill if (task := cluster.tasks.get(key.task_id))]
            unwanted = [task for task in told if task.kept and task.node == node.name]
            for task in [*map(cluster.tasks.__getitem__, cluster.ledger.holders(node.name)), *unwanted]:
                cause = f"{node.name} has not been heard of for {silence:.0f} s"
                lose(cluster, task, cause, now, effects)
    return effects


def on_cordon(cluster: Cluster, name: str, *, drain: bool = False) -> Effects:
    """Keeps new attempts from a node; those that it holds go on. With `drain` it is to be emptied.

    Raises:
        NotFoundError: there is no such node.

    """
    node = _known(cluster, name)
    effects = Effects()
    if not node.cordoned or (drain and not node.draining):
        node.cordoned, node.draining = True, node.draining or drain
        effects.nodes[name] = node
    return effects


def on_uncordon(cluster: Cluster, name: str) -> Effects:
    """Lets a node have work again.

    Raises:
        NotFoundError: there is no such node.

    """
    node = _known(cluster, name)
    effects = Effects()
    if node.cordoned:
        node.cordoned = node.draining = False
        effects.nodes[name] = node
        freed(cluster, effects)
    return effects


def on_label(cluster: Cluster, name: str, changes: Mapping[str, str | None]) -> Effects:
    """Gives a node labels, or takes them (none); what runs there goes on.

    Raises:
        ConflictError: it would have more than `MAX_LABELS`.
        NotFoundError: there is no such node.

    """
    node = _known(cluster, name)
    effects = Effects()
    given = {**node.given_labels, **changes}
    # Nothing need be taken that its Runner does not give.
    given = {key: value for key, value in given.items() if value is not None or key in node.own_labels}
    if len(given) > MAX_LABELS:
        raise ConflictError(
            f"{name} would have {len(given)} labels, {MAX_LABELS} are the most", "take some away: KEY-"
        )
    if given != node.given_labels:
        node.given_labels = given
        effects.nodes[name] = node
        freed(cluster, effects)
    return effects


def on_remove(cluster: Cluster, name: str, now: Now, *, force: bool = False) -> Effects:
    """Forgets a node. With `force` also one that is there or holds attempts: these are lost, as if it had been silent.

    Raises:
        ConflictError: it is online or holds attempts, and is not forced away.
        NotFoundError: there is no such node.

    """
    node = _known(cluster, name)
    held = sorted({*cluster.ledger.holders(name), *(task.task_id for task in _kept_on(cluster, name))})
    if not force:
        _check_unused(node, held)
    effects = Effects(removed={name})
    for task_id in held:
        lose(cluster, cluster.tasks[task_id], f"{name} was removed", now, effects)
    # A dispatcher in the middle of a call looks at these afterwards.
    node.state, node.reconciled = NodeState.OFFLINE, False
    del cluster.nodes[name]
    cluster.ledger.forget(name)
    freed(cluster, effects)
    return effects


def on_kill(cluster: Cluster, task_id: int, by: str, now: Now) -> Effects:
    """Ends a task in any state that is not final; what may have reached a Runner is ended by the Runner.

    A lost VPS is given up: until then it has its name, since it may come back.

    Raises:
        ConflictError: it is a lost command; nothing is there to be told.
        NotFoundError: no such task is live.

    """
    effects = Effects()
    cause = f"killed by {by}"
    given_up = cluster.tasks.get(task_id)
    if given_up and given_up.state is TaskState.LOST and given_up.batch.spec.task_type == "vps":
        given_up.kill_requested = True
        # Its Runner ends what comes back of it, as of any task that the Host does not know.
        end(cluster, given_up, TaskState.KILLED, now, effects, f"{cause} while it was lost")
        return effects
    task = live_task(cluster, task_id)
    task.kill_requested = True
    if task.kept:
        cluster.queue.remove(task)
        if task.state is TaskState.PENDING:
            change(task, TaskState.STOPPED, now, effects, cause)
    elif task.state is TaskState.PENDING:
        cluster.queue.remove(task)
        end(cluster, task, TaskState.KILLED, now, effects, cause)
        return effects
    struck(cluster, task)
    told_to_kill(cluster, task, effects)
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


def on_stop(cluster: Cluster, task_id: int, now: Now) -> tuple[Effects, Task | None]:
    """A VPS is to hold nothing any more and to keep what is in it; the task whose Runner is to be told, if one is.

    Raises:
        ConflictError: it is no VPS, has not run yet, is being started, or is lost.
        NotFoundError: no such task is live.

    """
    task = _live_vps(cluster, task_id)
    effects = Effects()
    if task.state in {TaskState.RUNNING, TaskState.PAUSED}:
        return effects, task
    if task.kept:
        if task.state is TaskState.PENDING:
            stay(cluster, task, "not started after all", now, effects)
        return effects, None
    give_up = "" if task.run else ", or give it up: `hakuriver vps kill`"
    raise ConflictError(f"VPS {task_id} is {task.state}", f"wait until it runs{give_up}")


def on_start_again(cluster: Cluster, task_id: int, by: str, now: Now) -> Effects:
    """A stopped VPS is to run again, on its node; it waits until there is room. One that runs, or will, is left alone.

    Raises:
        ConflictError: it is no VPS, is lost or paused, or is being killed.
        NotFoundError: no such task is live.

    """
    task = _live_vps(cluster, task_id)
    effects = Effects()
    if task.kill_requested:
        raise ConflictError(f"VPS {task_id} is being killed", "make another: `hakuriver vps create`")
    if task.state is TaskState.PAUSED:
        raise ConflictError(f"VPS {task_id} is paused", f"resume it: `hakuriver vps resume {task_id}`")
    if task.state is TaskState.STOPPED:
        task.run += 1
        task.reason, task.exit_code = "", None
        change(task, TaskState.PENDING, now, effects, f"started by {by}")
        enter(cluster, task)
        effects.schedule = True
    return effects


def check_there(cluster: Cluster, task_id: int) -> Task:
    """The VPS whose files are to be read.

    Raises:
        ConflictError: it is no VPS, is lost, or has nothing in it now.
        NotFoundError: no such task is live.

    """
    task = _live_vps(cluster, task_id)
    if not (task.kept or task.state in {TaskState.RUNNING, TaskState.PAUSED}):
        raise ConflictError(f"VPS {task_id} is {task.state}", "wait until it runs: `hakuriver vps status`")
    return task


def on_restore(cluster: Cluster, task_id: int, version: str, by: str, now: Now) -> Effects:
    """A stopped VPS is to begin anew, from other files: what is kept of it goes, and a new attempt is placed.

    Raises:
        ConflictError: it is no VPS, is not stopped, or is being killed.
        NotFoundError: no such task is live.

    """
    task = check_there(cluster, task_id)
    if not task.kept:
        raise ConflictError(f"VPS {task_id} is {task.state}", "stop it first: `hakuriver vps stop`")
    if task.kill_requested:
        raise ConflictError(f"VPS {task_id} is being killed", "make another from its snapshot")
    effects = Effects()
    cluster.queue.remove(task)
    release(cluster, task, effects)
    # A Runner that is away asks when it comes back, and is told that the attempt is over.
    told_to_kill(cluster, task, effects)
    target = parse_target(task.target) if task.target else None
    task.closed, task.run = True, 0
    task.request = replace(
        task.request, node=target.node if target else None, gpus=asked(task.batch.spec, target)
    )
    task.reason, task.exit_code, task.held = "", None, False
    if task.state is TaskState.PENDING:
        change(task, TaskState.STOPPED, now, effects, "to be restored")
    change(task, TaskState.PENDING, now, effects, f"restored from {version} by {by}")
    enter(cluster, task)
    return effects


def check_extend(cluster: Cluster, task_id: int) -> Task:
    """The VPS whose time limit is to grow.

    Raises:
        ConflictError: it is no VPS, has no time limit, is lost, or is being started or killed.
        NotFoundError: no such task is live.

    """
    task = _live_vps(cluster, task_id)
    if task.batch.spec.time_limit_seconds is None:
        raise ConflictError(f"VPS {task_id} has no time limit", "it runs until it is killed")
    if task.kill_requested or task.state is TaskState.ASSIGNING:
        state = "being killed" if task.kill_requested else "being started"
        raise ConflictError(f"VPS {task_id} is {state}", "see `hakuriver vps status`")
    return task


def check_signal(cluster: Cluster, task_id: int, action: str) -> Task:
    """The task to be paused or resumed.

    Raises:
        ConflictError: it is not in the state for that.
        NotFoundError: no such task is live.

    """
    task = live_task(cluster, task_id)
    wanted = TaskState.RUNNING if action == "pause" else TaskState.PAUSED
    if task.state is not wanted:
        raise ConflictError(
            f"task {task_id} is {task.state}, not {wanted}", f"only a {wanted} task can be {action}d"
        )
    return task


def _kept_on(cluster: Cluster, name: str) -> list[Task]:
    """The VPS that are at rest on a node. Looks at all tasks."""
    return [task for task in cluster.tasks.values() if task.node == name and task.kept]


def _next_attempt(task: Task, node: str) -> None:
    task.attempt += 1
    task.node, task.sequence, task.closed, task.run = node, -1, False, 0
    task.exit_code = task.started_at = task.completed_at = task.message = task.image = task.unit_name = None
    task.usage = None


def _why_not_started(task: Task, result: StartResult) -> str | None:
    """What keeps the Runner from starting it; none when nothing does."""
    if result.outcome == "refused":
        return result.reason or "no reason given"
    report = result.report
    if report is not None and report.status not in FINAL and report.run < task.run:
        return "its Runner is of a version that starts no stopped VPS"
    return None


def _live_vps(cluster: Cluster, task_id: int) -> Task:
    task = live_task(cluster, task_id)
    if task.batch.spec.task_type != "vps":
        raise ConflictError(
            f"task {task_id} is no VPS", "a command can be paused, or killed and submitted again"
        )
    return task


def _known(cluster: Cluster, name: str) -> Node:
    node = cluster.nodes.get(name)
    if node is None:
        raise NotFoundError(f"there is no node {name}", "list them with `hakuriver node list`")
    return node


def _check_unused(node: Node, held: list[int]) -> None:
    if held:
        shown = ", ".join(map(str, held[:5])) + (", …" if len(held) > 5 else "")  # noqa: PLR2004
        raise ConflictError(
            f"{node.name} still holds {len(held)} of the tasks: {shown}",
            f"empty it with `hakuriver node drain {node.name} --wait`, and kill the stopped VPS that it keeps; --force"
            " gives them up as lost",
        )
    if node.state is NodeState.ONLINE:
        raise ConflictError(
            f"{node.name} is online",
            "stop its Runner, and wait until the node is offline; --force removes it now",
        )


def _describe(node: Node, registration: Registration, now: Now) -> None:
    node.url, node.capacity = registration.url, dict(registration.capacity)
    node.gpus, node.gpu_note = registration.gpus, registration.gpu_note
    node.numa_nodes, node.cpus = registration.numa_nodes, registration.cpus
    node.tasks_per_gpu, node.own_labels = registration.tasks_per_gpu, registration.labels
    node.engines, node.engine_notes = registration.engines, registration.engine_notes
    node.journal_id, node.problem = registration.journal_id, registration.problem
    node.allow_privileged, node.mount_roots = registration.allow_privileged, registration.mount_roots
    node.state, node.last_seen, node.last_heartbeat = NodeState.ONLINE, now.mono, now.wall


__all__ = [
    "Cluster",
    "Timeouts",
    "check_extend",
    "check_signal",
    "check_there",
    "on_cordon",
    "on_heartbeat",
    "on_kill",
    "on_killed",
    "on_label",
    "on_register",
    "on_registering",
    "on_remove",
    "on_reports",
    "on_restore",
    "on_schedule",
    "on_start_again",
    "on_start_results",
    "on_stop",
    "on_submit",
    "on_tick",
    "on_uncordon",
    "restore",
]
