"""Placement: which waiting task goes to which node.

`place` is one round: tasks in the order of the queue, each on the fullest node that it fits (so that large
gaps stay for large tasks). The first task that must wait for room claims a node, and what comes later in the
queue takes nothing there that it needs: small tasks cannot keep a large one waiting for ever. Where it waits for
a GPU alone, its cores and memory are set aside, and others use the rest. The claim holds until the task is placed
or that node can no longer run it.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from hakuriver.models.tasks import NodeVerdict
from hakuriver.states import NodeState
from hakuriver_host.domain.gpus import Gpu, choose, has_well, lacking, short, suitable
from hakuriver_host.domain.ledger import Ledger
from hakuriver_host.domain.model import CORES, MEMORY, Node, Request, Task
from hakuriver_host.domain.order import FullestFirst
from hakuriver_host.domain.queue import Queue

FITS = "fits: it is placed in the next round"
AT_ONCE = 100
"""Placements of one round at most, so that nobody waits long behind it."""


@dataclass(slots=True)
class Claim:
    task_id: int
    node: str
    request: Request


@dataclass(slots=True)
class Round:
    """The outcome of one round."""

    placed: list[tuple[Task, Node]] = field(default_factory=list)
    blocked: set[Request] = field(default_factory=set)
    """Groups of which nothing fits until something is freed."""
    more: bool = False
    """It ended before the queue did: there is more to place."""


def impossible(node: Node, request: Request) -> str:
    """Why the node could not run the request even when empty; an empty string when it could."""
    if request.node is not None and request.node != node.name:
        return "the task is for another node"
    if node.name in request.avoided:
        return "the task is not to run there"
    if node.name in request.excluded:
        return "the node refused the task"
    for name, amount in request.amounts:
        if amount > node.capacity.get(name, 0):
            return (
                f"it has {_quantity(name, node.capacity.get(name, 0))}, {_quantity(name, amount)} asked for"
            )
    if request.gpus is not None and (reason := lacking(node.gpus, request.gpus)):
        return reason
    if request.numa is not None and request.numa not in node.numa_nodes:
        known = ", ".join(map(str, sorted(node.numa_nodes))) or "none known"
        return f"it has no NUMA node {request.numa} (it has: {known})"
    return _forbidden(node, request)


def nearest_to(request: Request, nodes: Iterable[Node]) -> Node:
    """The node that comes nearest to what is asked for: what it lacks is worth telling."""

    def rank(node: Node) -> tuple[bool, float, float, str]:
        gpus = request.gpus
        share = min(1.0, len(suitable(node.gpus, gpus)) / gpus.count) if gpus else 1.0
        shares = [min(1.0, node.capacity.get(name, 0) / amount) for name, amount in request.amounts]
        barred = node.name in request.excluded | request.avoided
        return (barred, -share, -min(shares, default=1.0), node.name)

    return min(nodes, key=rank)


def _forbidden(node: Node, request: Request) -> str:
    """What the node's configuration lets no task do. Its Runner looks again, with links resolved."""
    if request.privileged and node.allow_privileged is False:
        return "privileged tasks are not allowed on this node (runner.allow_privileged)"
    if node.mount_roots is not None:
        for source in request.mounts:
            if not any(PurePosixPath(source).is_relative_to(root) for root in node.mount_roots):
                return f"{source} is not under a folder that this node lets tasks mount (runner.allowed_mount_roots)"
    return ""


def hindrance(node: Node, request: Request) -> str:
    """What keeps a node that could run it from doing so now, apart from room; empty when nothing does."""
    if node.cordoned:
        return "the node is cordoned: an admin keeps new tasks from it"
    if node.state is NodeState.OFFLINE:
        return "the node is offline"
    if node.problem:
        return node.problem
    if not node.reconciled:
        return "the node has not registered again yet"
    if request.engine not in node.engines:
        return f"its {request.engine} engine does not work: {node.engine_notes.get(request.engine, 'not offered')}"
    if request.gpus is not None and request.engine == "docker":
        return node.gpu_note
    return ""


def place(
    queue: Queue,
    nodes: Mapping[str, Node],
    ledger: Ledger,
    order: FullestFirst,
    claim: Claim | None,
    blocked: set[Request],
) -> tuple[Round, Claim | None]:
    """One round. Enters each placement in the ledger at once, and takes the task out of the queue.

    `blocked` are the groups that the last round found no room for, valid while nothing was freed since;
    `claim` is the claim in force. Gives the round, and the claim for the next.
    """
    if claim is not None and not _valid(claim, queue, nodes):
        claim, blocked = None, set()
    outcome = Round(blocked=set(blocked))
    heads = [
        (task.task_id, request)
        for request in queue.groups()
        if request not in blocked and (task := queue.first(request))
    ]
    heap = [(task_id, index) for index, (task_id, _) in enumerate(heads)]
    heapq.heapify(heap)
    while heap and len(outcome.placed) < AT_ONCE:
        _, index = heapq.heappop(heap)
        request = heads[index][1]
        task = queue.first(request)
        if task is None:
            continue
        chosen = _choose(task, nodes, ledger, order, claim)
        if chosen is None:
            outcome.blocked.add(request)
            if claim is None or task.task_id < claim.task_id:
                claim = _claim_for(task, nodes.values(), ledger) or claim
            continue
        node, task.gpus = chosen
        queue.remove(task)
        ledger.hold(node.name, task.task_id, request, task.gpus)
        if claim and claim.task_id == task.task_id:
            claim = None
        outcome.placed.append((task, node))
        if following := queue.first(request):
            heapq.heappush(heap, (following.task_id, index))
    outcome.more = bool(heap)
    return outcome, claim


def explain(task: Task, nodes: Iterable[Node], ledger: Ledger, claim: Claim | None) -> list[NodeVerdict]:
    """For each node, why the task is not placed there."""
    verdicts = []
    for node in sorted(nodes, key=lambda node: node.name):
        never = impossible(node, task.request)
        reason = never or _not_now(node, task, ledger, claim)
        verdicts.append(
            NodeVerdict(node=node.name, fits_now=reason == FITS, can_ever_fit=not never, reason=reason)
        )
    return verdicts


def waiting_reason(task: Task, nodes: Mapping[str, Node], ledger: Ledger, claim: Claim | None) -> str:
    """Why it waits, in one line. Only one node is looked at closely: lists ask this for each task that waits."""
    request = task.request
    if request.node is not None:
        node = nodes.get(request.node)
        if node is None:
            return f"no node named {request.node} has joined yet"
        return f"{node.name}: {impossible(node, request) or _not_now(node, task, ledger, claim)}"
    if not nodes:
        return "no node has joined yet"
    hopeful = [name for name, node in nodes.items() if not impossible(node, request)]
    if not hopeful:
        nearest = nearest_to(request, nodes.values())
        return f"no node can run it: {nearest.name}: {impossible(nearest, request)}"
    name = min(hopeful, key=lambda name: (not nodes[name].ready, name))
    reason = f"{name}: {_not_now(nodes[name], task, ledger, claim)}"
    return reason if len(hopeful) == 1 else f"waits for one of {len(hopeful)} nodes; {reason}"


def _not_now(node: Node, task: Task, ledger: Ledger, claim: Claim | None) -> str:
    return hindrance(node, task.request) or _no_room(node, task, ledger, claim) or FITS


def _no_room(node: Node, task: Task, ledger: Ledger, claim: Claim | None) -> str:
    for name, amount in task.request.amounts:
        free, total = ledger.free(node.name, node.capacity, name), node.capacity.get(name, 0)
        if amount > free:
            return f"{_quantity(name, max(free, 0))} of {_quantity(name, total)} free, {_quantity(name, amount)} asked for"
    wanted = task.request.gpus
    if wanted is not None and (reason := short(node.gpus, _taken(node, ledger), wanted)):
        return reason
    if claim and _concerns(claim, node, task) and not _leaves_room(claim, node, task.request, ledger):
        return f"its room is kept for task {claim.task_id}, which is before in the queue"
    return ""


def _concerns(claim: Claim, node: Node, task: Task) -> bool:
    return claim.node == node.name and claim.task_id < task.task_id


def _leaves_room(claim: Claim, node: Node, request: Request, ledger: Ledger) -> bool:
    """Whether the claim's task finds all that it needs beside this request, once the GPUs are free that it waits for."""
    amounts = Counter(dict(request.amounts)) + Counter(dict(claim.request.amounts))
    both = Request(amounts=tuple(amounts.items()))
    if not ledger.fits(node.name, node.capacity, both):
        return False
    return request.gpus is None or _gpus_for(node, request, ledger, claim) is not None


def _gpus_for(node: Node, request: Request, ledger: Ledger, claim: Claim | None) -> tuple[Gpu, ...] | None:
    """The GPUs that it would get there; none of those that would do for the claim's task."""
    if request.gpus is None:
        return ()
    kept = suitable(node.gpus, claim.request.gpus) if claim and claim.request.gpus else []
    taken = {*_taken(node, ledger), *(gpu.uuid for gpu in kept)}
    return choose(node.gpus, taken, request.gpus, request.numa)


def _taken(node: Node, ledger: Ledger) -> dict[str, int]:
    """The GPUs that cannot be given now, by UUID, and the tasks that have them."""
    return {uuid: key.task_id for uuid, key in node.leaving.items()} | ledger.gpus(node.name)


def _quantity(name: str, amount: int) -> str:
    if name == MEMORY:
        return f"{amount / 1e9:.2f}G memory"
    if name == CORES:
        return f"{amount} core" if amount == 1 else f"{amount} cores"
    return f"{amount} {name}"


def _choose(
    task: Task, nodes: Mapping[str, Node], ledger: Ledger, order: FullestFirst, claim: Claim | None
) -> tuple[Node, tuple[Gpu, ...]] | None:
    """The fullest node that the task fits now, and that is not kept for one before it; with the GPUs that it gets."""
    request = task.request
    order.refresh(nodes, ledger)
    names = [request.node] if request.node is not None else order.with_cores(request.amount(CORES))
    for name in names:
        node = nodes.get(name)
        if node is None or not ledger.fits(name, node.capacity, request):
            continue
        before = claim if claim is not None and _concerns(claim, node, task) else None
        if before is not None and not _leaves_room(before, node, request, ledger):
            continue
        if not _may_run(node, request):
            continue
        gpus = _gpus_for(node, request, ledger, before)
        if gpus is not None:
            return node, gpus
    return None


def _may_run(node: Node, request: Request) -> bool:
    """Nothing but room is in the way."""
    return not impossible(node, request) and not hindrance(node, request)


def _is_worth_waiting_for(node: Node, request: Request) -> bool:
    return _may_run(node, request) and has_well(node.gpus, request.gpus)


def _claim_for(task: Task, nodes: Iterable[Node], ledger: Ledger) -> Claim | None:
    """The node to keep room on: of those that could run it, the one with the most GPUs for it free, then cores."""
    able = [node for node in nodes if _is_worth_waiting_for(node, task.request)]
    if not able:
        return None

    def rank(node: Node) -> tuple[int, int, str]:
        would_do = suitable(node.gpus, task.request.gpus) if task.request.gpus else []
        taken = _taken(node, ledger) if would_do else {}
        gpus = sum(gpu.is_free(taken) for gpu in would_do)
        return -gpus, -ledger.free(node.name, node.capacity, CORES), node.name

    return Claim(task.task_id, min(able, key=rank).name, task.request)


def _valid(claim: Claim, queue: Queue, nodes: Mapping[str, Node]) -> bool:
    node = nodes.get(claim.node)
    task = queue.get(claim.task_id)
    if task is None or node is None or task.request != claim.request:
        return False
    return _is_worth_waiting_for(node, claim.request)
