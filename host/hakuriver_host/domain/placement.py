"""Placement: which waiting task goes to which node.

`place` is one round: tasks in the order of their turns, each on the fullest node that it fits (so that large
gaps stay for large tasks), or on the emptiest where they are to spread. The first task that must wait for room claims a node, and what comes later in the
queue takes nothing there that it needs: small tasks cannot keep a large one waiting for ever. Where it waits for
a GPU alone, its cores and memory are set aside, and others use the rest; and what is over by the time when it can start
at the latest (see `backfill`) may have its room meanwhile. While room is kept, the shorter go first (see
`Turns.meanwhile`). The claim holds until the task is placed
or that node can no longer run it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from hakuriver.labels import as_text
from hakuriver.models.tasks import NodeVerdict
from hakuriver.states import NodeState
from hakuriver_host.domain.backfill import Clock, Reservation, reservation
from hakuriver_host.domain.cpus import choose_cpus
from hakuriver_host.domain.gpus import Gpu, choose, has_well, lacking, short, suitable
from hakuriver_host.domain.ledger import Ledger, holding
from hakuriver_host.domain.model import CORES, TASKS, Group, Node, Request, Task, quantity
from hakuriver_host.domain.order import NodeOrder
from hakuriver_host.domain.queue import Queue
from hakuriver_host.domain.turns import Turn, Turns, first_come

FITS = "fits: it is placed in the next round"
AT_ONCE = 100
"""Placements of one round at most, so that nobody waits long behind it."""


@dataclass(slots=True)
class Claim:
    task: Task
    node: str
    request: Request
    promised: float = math.inf
    """By when it can be served, on the clock that only goes forward: the earliest time that was ever reckoned."""


@dataclass(slots=True)
class Round:
    """The outcome of one round."""

    placed: list[tuple[Task, Node]] = field(default_factory=list)
    blocked: set[Group] = field(default_factory=set)
    """Groups of which nothing fits until something is freed."""
    more: bool = False
    """It ended before the queue did: there is more to place."""


class Hopeless:
    """Requests that found no room in a round: what asks for as much or more, and comes later, finds none either.

    Where all is full, the smallest request answers for nearly all others, however many kinds there are.
    """

    def __init__(self) -> None:
        self._least: list[Request] = []

    def add(self, request: Request, kept_out_by: Claim | None = None) -> None:
        """One that asks for amounts alone; others say little about the rest, as does one that was kept out since nobody
        knows of which NUMA node it takes cores.
        """
        if kept_out_by is not None and kept_out_by.request.numa is not None:
            return
        if request.gpus or request.node or request.numa is not None or request.privileged or request.mounts:
            return
        if request.labels or request.exclusive:
            return
        self._least = [known for known in self._least if not _asks_for_more(known, request)]
        self._least.append(request)

    def covers(self, request: Request) -> bool:
        return any(_asks_for_more(request, known) for known in self._least)


def _asks_for_more(request: Request, plain: Request) -> bool:
    """Whether every node that has room for `request` has it for `plain`, which asks for amounts alone, and for no longer."""
    return (
        request.engine == plain.engine
        and (request.limit is None or (plain.limit is not None and plain.limit <= request.limit))
        and plain.avoided <= request.avoided
        and plain.excluded <= request.excluded
        and all(amount <= request.amount(name) for name, amount in plain.amounts)
    )


def impossible(node: Node, request: Request) -> str:
    """Why the node could not run the request even when empty; an empty string when it could."""
    if request.node is not None and request.node != node.name:
        return "the task is for another node"
    if node.name in request.avoided:
        return "the task is not to run there"
    if node.name in request.excluded:
        return "the node refused the task"
    if request.numa is not None and request.numa not in node.numa_nodes:
        known = ", ".join(map(str, sorted(node.numa_nodes))) or "none known"
        return f"it has no NUMA node {request.numa} (it has: {known})"
    for name, amount in request.amounts:
        if amount > node.capacity.get(name, 0):
            return f"it has {quantity(name, node.capacity.get(name, 0))}, {quantity(name, amount)} asked for"
    if request.gpus is not None and (reason := lacking(node.gpus, request.gpus)):
        return reason
    if request.labels and (missing := [each for each in request.labels if not each.admits(node.labels)]):
        has = as_text(node.labels) or "none"
        return f"its labels are not as asked for: {', '.join(map(str, missing))} (it has {has})"
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
    order: NodeOrder,
    claim: Claim | None,
    blocked: set[Group],
    turns: Turns | None = None,
    clock: Clock | None = None,
    *,
    pins: bool = True,
) -> tuple[Round, Claim | None]:
    """One round. Enters each placement in the ledger at once, and takes the task out of the queue.

    `blocked` are the groups that the last round found no room for, valid while nothing was freed since; `claim` is the
    claim in force. `turns` say who goes first; without them, whose priority is higher and who came first. `clock` says
    when what runs ends at the latest; without it, nothing is known to end. With `pins` tasks get cores of their own where
    nodes can give them. Gives the round, and the claim for the next.
    """
    turns, clock = turns or first_come(ledger), clock or Clock()
    if claim is not None and not _valid(claim, queue, nodes, ledger, turns):
        claim, blocked = None, set()
    outcome, hopeless = Round(blocked=set(blocked)), Hopeless()
    kept = _kept(claim, nodes, ledger, clock)
    groups = [group for group in queue.groups() if group not in blocked]

    def turn_of(task: Task) -> Turn:
        if claim is None or claim.task is task:
            return turns.of(task)
        return turns.meanwhile(task, queue.owners)

    heap = [(turn_of(task), index) for index, group in enumerate(groups) if (task := queue.first(group))]
    heapq.heapify(heap)
    while heap and len(outcome.placed) < AT_ONCE:
        turn, index = heapq.heappop(heap)
        group = groups[index]
        task = queue.first(group)
        if task is None:
            continue
        if (now := turn_of(task)) > turn:
            # Its owner has been given something since, or room is kept for another since.
            heapq.heappush(heap, (now, index))
            continue
        claims, kept_out = claim is not None and claim.task is task, _goes_before(claim, task)
        # What was kept out by the claim says nothing of those whom the claim does not keep out.
        alike = kept_out or claim is None
        if turns.over_limit(task) or (alike and hopeless.covers(task.request)):
            outcome.blocked.add(group)
            continue
        chosen = _choose(task, nodes, ledger, order, kept if kept_out else None, turns)
        if chosen is None:
            outcome.blocked.add(group)
            hopeless.add(task.request, claim if kept_out else None)
            if claim is None or not (claims or kept_out):
                claim = _claim_for(task, nodes.values(), ledger, turns, clock) or claim
                kept = _kept(claim, nodes, ledger, clock)
            continue
        node, task.gpus = chosen
        task.cpus = _cpus_for(node, task, ledger) if pins else ()
        queue.remove(task)
        ledger.hold(node.name, task.task_id, holding(task, node))
        turns.has_more(group.owner)
        if claims:
            # Those who were kept out come first now; a round of their own finds who is next to claim.
            claim, outcome.more = None, True
            outcome.placed.append((task, node))
            break
        if kept is not None and kept.node is node:
            kept.forget()
        outcome.placed.append((task, node))
        if following := queue.first(group):
            heapq.heappush(heap, (turn_of(following), index))
    outcome.more = outcome.more or bool(heap)
    if claim is not None and turns.over_limit(claim.task, nodes.get(claim.node)):
        # Its owner has been given something else meanwhile. Room that may not be used is not kept.
        claim, outcome.blocked, outcome.more = None, set(), True
    return outcome, claim


def explain(
    task: Task,
    nodes: Iterable[Node],
    ledger: Ledger,
    claim: Claim | None,
    clock: Clock | None = None,
    turns: Turns | None = None,
) -> list[NodeVerdict]:
    """For each node, why the task is not placed there."""
    known, turns = {node.name: node for node in nodes}, turns or first_come(ledger)
    kept = _kept(claim, known, ledger, clock or Clock()) if _goes_before(claim, task) else None
    limited = turns.over_limit(task)
    fits = f"has room, but {limited}" if limited else FITS
    if task.aside:
        fits = "fits, once it is in line"
    verdicts = []
    for node in sorted(known.values(), key=lambda node: node.name):
        never = impossible(node, task.request)
        reason = never or _not_now(node, task, ledger, kept, turns) or fits
        verdicts.append(
            NodeVerdict(node=node.name, fits_now=reason == FITS, can_ever_fit=not never, reason=reason)
        )
    return verdicts


def waiting_reason(
    task: Task,
    nodes: Mapping[str, Node],
    ledger: Ledger,
    claim: Claim | None,
    turns: Turns | None = None,
    clock: Clock | None = None,
) -> str:
    """Why one in line waits, in one line. Only one node is looked at closely: lists ask this for each task that waits."""
    request, turns = task.request, turns or first_come(ledger)
    if reason := turns.over_limit(task):
        return reason
    kept = _kept(claim, nodes, ledger, clock or Clock()) if _goes_before(claim, task) else None
    if request.node is not None:
        node = nodes.get(request.node)
        if node is None:
            return f"no node named {request.node} has joined yet"
        reason = impossible(node, request) or _not_now(node, task, ledger, kept, turns) or FITS
        return f"{node.name}: {reason}"
    if not nodes:
        return "no node has joined yet"
    hopeful = [name for name, node in nodes.items() if not impossible(node, request)]
    if not hopeful:
        nearest = nearest_to(request, nodes.values())
        return f"no node can run it: {nearest.name}: {impossible(nearest, request)}"
    name = min(hopeful, key=lambda name: (not nodes[name].ready, name))
    reason = f"{name}: {_not_now(nodes[name], task, ledger, kept, turns) or FITS}"
    return reason if len(hopeful) == 1 else f"waits for one of {len(hopeful)} nodes; {reason}"


def _not_now(node: Node, task: Task, ledger: Ledger, kept: Kept | None, turns: Turns) -> str:
    """What keeps the task from a node that could run it; empty when nothing does."""
    limit = turns.over_limit(task, node) if task.request.exclusive else ""
    return hindrance(node, task.request) or limit or _no_room(node, task, ledger, kept)


def _no_room(node: Node, task: Task, ledger: Ledger, kept: Kept | None) -> str:
    holders = ledger.holders(node.name)
    if alone := next((task_id for task_id, held in holders.items() if held.request.exclusive), None):
        return f"task {alone} has it for itself"
    if task.request.exclusive and holders:
        return f"{quantity(TASKS, len(holders))} there, and it is to be the only one"
    for name, amount in task.request.amounts:
        free, total = ledger.free(node.name, node.capacity, name), node.capacity.get(name, 0)
        if amount > free:
            return f"{quantity(name, max(free, 0))} of {quantity(name, total)} free, {quantity(name, amount)} asked for"
    wanted = task.request.gpus
    if wanted is not None and (reason := short(node.gpus, ledger.taken(node, wanted), wanted)):
        return reason
    if kept is not None and kept.node is node and kept.beside(task.request) is None:
        return f"its room is kept for task {kept.claim.task.task_id}, which is before in the queue"
    return ""


def _goes_before(claim: Claim | None, task: Task) -> bool:
    """Whether the claim's task goes before this one. Once it has the claim, only a higher priority goes before it, and
    what its owner submitted before it: were it by shares, which change with all that is given, its room could be given
    away for ever.
    """
    if claim is None or claim.task is task:
        return False
    if claim.task.batch.owner == task.batch.owner:
        return claim.task.rank < task.rank
    mine, other = claim.task, task
    return (mine.priority, not mine.request.preemptible) >= (other.priority, not other.request.preemptible)


@dataclass(slots=True)
class Kept:
    """The room that a claim keeps on its node, while one round lasts."""

    claim: Claim
    node: Node
    ledger: Ledger
    clock: Clock
    _reserved: Reservation | None = None
    _is_known: bool = False

    def forget(self) -> None:
        """Something was placed on the node."""
        self._is_known = False

    def beside(self, request: Request) -> tuple[Gpu, ...] | None:
        """The GPUs with which a request, that fits now, may run there without making the claim's task late; none when
        it may not.
        """
        node, ledger = self.node, self.ledger
        others = _gpus_for(node, request, ledger, self.claim)
        if others is not None and self._leaves_room(request):
            return others
        reserved = self._reservation()
        if reserved is None or self.clock.now > reserved.at:
            return None
        if reserved.is_after(request, self.clock.now):
            return _gpus_for(node, request, ledger, None)
        return others if reserved.leaves(request) and not self._may_take_its_cores(request) else None

    def _leaves_room(self, request: Request) -> bool:
        """Whether the claim's task finds what this request takes of, once that is free which it waits for."""
        wanted, node = self.claim.request, self.node
        if request.exclusive or wanted.exclusive or self._may_take_its_cores(request):
            return False
        return all(
            amount + wanted.amount(name) <= self.ledger.free(node.name, node.capacity, name)
            for name, amount in request.amounts
        )

    def _may_take_its_cores(self, request: Request) -> bool:
        """Of what asks for no NUMA node nobody knows whose cores it takes."""
        return self.claim.request.numa is not None and request.numa is None and request.amount(CORES) > 0

    def _reservation(self) -> Reservation | None:
        """What was promised stays: tasks that take long to start would move it on and on."""
        if not self._is_known:
            found = reservation(self.claim.request, self.node, self.ledger, self.clock)
            if found is not None:
                self.claim.promised = min(self.claim.promised, found.at)
                found = replace(found, at=self.claim.promised)
            self._reserved, self._is_known = found, True
        return self._reserved


def _kept(claim: Claim | None, nodes: Mapping[str, Node], ledger: Ledger, clock: Clock) -> Kept | None:
    node = nodes.get(claim.node) if claim else None
    return Kept(claim, node, ledger, clock) if claim and node else None


def _gpus_for(node: Node, request: Request, ledger: Ledger, claim: Claim | None) -> tuple[Gpu, ...] | None:
    """The GPUs that it would get there; none of those that would do for the claim's task."""
    if request.gpus is None:
        return ()
    kept = suitable(node.gpus, claim.request.gpus) if claim and claim.request.gpus else []
    taken = {*ledger.taken(node, request.gpus), *(gpu.uuid for gpu in kept)}
    return choose(node.gpus, taken, request.gpus, request.numa, ledger.gpus(node.name))


def _cpus_for(node: Node, task: Task, ledger: Ledger) -> tuple[int, ...]:
    """The cores that it gets as its own, near its GPUs; one that has the node for itself may use any."""
    request = task.request
    if request.exclusive or not node.cpus:
        return ()
    of_numa = node.numa_nodes.get(request.numa) if request.numa is not None else None
    cpus = node.cpus if of_numa is None else tuple(cpu for cpu in node.cpus if cpu in of_numa.cpus)
    near = {gpu.numa for gpu in task.gpus if gpu.numa is not None}
    return choose_cpus(cpus, node.numa_nodes, ledger.cpus(node.name), request.amount(CORES), near)


def _choose(
    task: Task,
    nodes: Mapping[str, Node],
    ledger: Ledger,
    order: NodeOrder,
    kept: Kept | None,
    turns: Turns,
) -> tuple[Node, tuple[Gpu, ...]] | None:
    """The first node in the order that the task fits now, and that is not kept for one before it, which has the claim; with the
    GPUs that it gets.
    """
    request = task.request
    order.refresh(nodes, ledger)
    cores, gpus = request.amount(CORES), request.gpus is not None
    names = [request.node] if request.node is not None else order.with_cores(cores, gpus=gpus)
    for name in names:
        node = nodes.get(name)
        if node is None or not ledger.fits(name, node.capacity, request):
            continue
        if not may_run(node, request) or (request.exclusive and turns.over_limit(task, node)):
            continue
        if kept is not None and kept.node is node:
            given = kept.beside(request)
        else:
            given = _gpus_for(node, request, ledger, None)
        if given is not None:
            return node, given
    return None


def may_run(node: Node, request: Request) -> bool:
    """Nothing but room is in the way."""
    return not impossible(node, request) and not hindrance(node, request)


def _is_worth_waiting_for(node: Node, request: Request) -> bool:
    return may_run(node, request) and has_well(node.gpus, request.gpus)


def _claim_for(task: Task, nodes: Iterable[Node], ledger: Ledger, turns: Turns, clock: Clock) -> Claim | None:
    """The node to keep room on: of those that could run it, the one that is known to have room for it soonest; where that
    is known of none, the one with the most GPUs for it free, then cores.
    """
    able = [node for node in nodes if _is_worth_waiting_for(node, task.request)]
    if task.request.exclusive:
        able = [node for node in able if not turns.over_limit(task, node)]
    if not able:
        return None

    def rank(node: Node) -> tuple[bool, float, int, int, str]:
        reserved = reservation(task.request, node, ledger, clock)
        gpus = 0
        if task.request.gpus is not None:
            taken = ledger.taken(node, task.request.gpus)
            gpus = sum(gpu.is_free(taken) for gpu in suitable(node.gpus, task.request.gpus))
        never_empty = task.request.exclusive and _stays(node, ledger)
        soonest = reserved.at if reserved else math.inf
        return never_empty, soonest, -gpus, -ledger.free(node.name, node.capacity, CORES), node.name

    return Claim(task, min(able, key=rank).name, task.request)


def _stays(node: Node, ledger: Ledger) -> bool:
    """Whether something runs there until somebody ends it."""
    return any(held.request.stays for held in ledger.holders(node.name).values())


def _valid(claim: Claim, queue: Queue, nodes: Mapping[str, Node], ledger: Ledger, turns: Turns) -> bool:
    node, task = nodes.get(claim.node), claim.task
    if node is None or queue.get(task.task_id) is not task or task.request != claim.request:
        return False
    if turns.over_limit(task, node):
        return False
    if claim.request.exclusive and _stays(node, ledger):
        # It may never be empty: another one may be by now.
        others = (each for each in nodes.values() if not _stays(each, ledger))
        if any(
            _is_worth_waiting_for(each, claim.request) and not turns.over_limit(task, each) for each in others
        ):
            return False
    return _is_worth_waiting_for(node, claim.request)
