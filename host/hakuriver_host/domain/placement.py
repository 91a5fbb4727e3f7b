"""Placement: which waiting task goes to which node.

`place` is one round: tasks in the order of their turns, each on the fullest node that it fits (so that large
gaps stay for large tasks). The first task that must wait for room claims a node, and what comes later in the
queue takes nothing there that it needs: small tasks cannot keep a large one waiting for ever. Where it waits for
a GPU alone, its cores and memory are set aside, and others use the rest; and what is over by the time when it can start
at the latest (see `backfill`) may have its room meanwhile. While room is kept, the shorter go first (see
`Turns.meanwhile`). The claim holds until the task is placed
or that node can no longer run it.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from hakuriver.models.tasks import NodeVerdict
from hakuriver.states import NodeState
from hakuriver_host.domain.backfill import Clock, Reservation, reservation
from hakuriver_host.domain.gpus import Gpu, choose, has_well, lacking, short, suitable
from hakuriver_host.domain.ledger import Ledger
from hakuriver_host.domain.model import CORES, Group, Node, Request, Task, quantity
from hakuriver_host.domain.order import FullestFirst
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

    def add(self, request: Request) -> None:
        """One that asks for amounts alone; others say little about the rest."""
        if request.gpus or request.node or request.numa is not None or request.privileged or request.mounts:
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
    for name, amount in request.amounts:
        if amount > node.capacity.get(name, 0):
            return f"it has {quantity(name, node.capacity.get(name, 0))}, {quantity(name, amount)} asked for"
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
    blocked: set[Group],
    turns: Turns | None = None,
    clock: Clock | None = None,
) -> tuple[Round, Claim | None]:
    """One round. Enters each placement in the ledger at once, and takes the task out of the queue.

    `blocked` are the groups that the last round found no room for, valid while nothing was freed since; `claim` is the
    claim in force. `turns` say who goes first; without them, whose priority is higher and who came first. `clock` says
    when what runs ends at the latest; without it, nothing is known to end. Gives the round, and the claim for the next.
    """
    turns, clock = turns or first_come(ledger), clock or Clock()
    if claim is not None and not _valid(claim, queue, nodes, turns):
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
        chosen = _choose(task, nodes, ledger, order, kept if kept_out else None)
        if chosen is None:
            outcome.blocked.add(group)
            hopeless.add(task.request)
            if claim is None or not (claims or kept_out):
                claim = _claim_for(task, nodes.values(), ledger, clock) or claim
                kept = _kept(claim, nodes, ledger, clock)
            continue
        node, task.gpus = chosen
        queue.remove(task)
        ledger.hold(node.name, task.task_id, task.request, task.gpus, owner=group.owner)
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
    if claim is not None and turns.over_limit(claim.task):
        # Its owner has been given something else meanwhile. Room that may not be used is not kept.
        claim, outcome.blocked, outcome.more = None, set(), True
    return outcome, claim


def explain(
    task: Task,
    nodes: Iterable[Node],
    ledger: Ledger,
    claim: Claim | None,
    clock: Clock | None = None,
) -> list[NodeVerdict]:
    """For each node, why the task is not placed there."""
    known = {node.name: node for node in nodes}
    kept = _kept(claim, known, ledger, clock or Clock()) if _goes_before(claim, task) else None
    fits = "fits, once it is in line" if task.aside else FITS
    verdicts = []
    for node in sorted(known.values(), key=lambda node: node.name):
        never = impossible(node, task.request)
        reason = never or _not_now(node, task, ledger, kept) or fits
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
    request = task.request
    if reason := (turns or first_come(ledger)).over_limit(task):
        return reason
    kept = _kept(claim, nodes, ledger, clock or Clock()) if _goes_before(claim, task) else None
    if request.node is not None:
        node = nodes.get(request.node)
        if node is None:
            return f"no node named {request.node} has joined yet"
        return f"{node.name}: {impossible(node, request) or _not_now(node, task, ledger, kept) or FITS}"
    if not nodes:
        return "no node has joined yet"
    hopeful = [name for name, node in nodes.items() if not impossible(node, request)]
    if not hopeful:
        nearest = nearest_to(request, nodes.values())
        return f"no node can run it: {nearest.name}: {impossible(nearest, request)}"
    name = min(hopeful, key=lambda name: (not nodes[name].ready, name))
    reason = f"{name}: {_not_now(nodes[name], task, ledger, kept) or FITS}"
    return reason if len(hopeful) == 1 else f"waits for one of {len(hopeful)} nodes; {reason}"


def _not_now(node: Node, task: Task, ledger: Ledger, kept: Kept | None) -> str:
    """What keeps the task from a node that could run it; empty when nothing does."""
    return hindrance(node, task.request) or _no_room(node, task, ledger, kept)


def _no_room(node: Node, task: Task, ledger: Ledger, kept: Kept | None) -> str:
    for name, amount in task.request.amounts:
        free, total = ledger.free(node.name, node.capacity, name), node.capacity.get(name, 0)
        if amount > free:
            return f"{quantity(name, max(free, 0))} of {quantity(name, total)} free, {quantity(name, amount)} asked for"
    wanted = task.request.gpus
    if wanted is not None and (reason := short(node.gpus, _taken(node, ledger), wanted)):
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
    return claim.task.priority >= task.priority


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
        return others if reserved.leaves(request) else None

    def _leaves_room(self, request: Request) -> bool:
        """Whether the claim's task finds its amounts beside this request, once the GPUs are free that it waits for."""
        amounts = Counter(dict(request.amounts)) + Counter(dict(self.claim.request.amounts))
        both = Request(amounts=tuple(amounts.items()))
        return self.ledger.fits(self.node.name, self.node.capacity, both)

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
    taken = {*_taken(node, ledger), *(gpu.uuid for gpu in kept)}
    return choose(node.gpus, taken, request.gpus, request.numa)


def _taken(node: Node, ledger: Ledger) -> dict[str, int]:
    """The GPUs that cannot be given now, by UUID, and the tasks that have them."""
    return {uuid: key.task_id for uuid, key in node.leaving.items()} | ledger.gpus(node.name)


def _choose(
    task: Task,
    nodes: Mapping[str, Node],
    ledger: Ledger,
    order: FullestFirst,
    kept: Kept | None,
) -> tuple[Node, tuple[Gpu, ...]] | None:
    """The fullest node that the task fits now, and that is not kept for one before it, which has the claim; with the
    GPUs that it gets.
    """
    request = task.request
    order.refresh(nodes, ledger)
    names = [request.node] if request.node is not None else order.with_cores(request.amount(CORES))
    for name in names:
        node = nodes.get(name)
        if node is None or not ledger.fits(name, node.capacity, request):
            continue
        if not _may_run(node, request):
            continue
        if kept is not None and kept.node is node:
            gpus = kept.beside(request)
        else:
            gpus = _gpus_for(node, request, ledger, None)
        if gpus is not None:
            return node, gpus
    return None


def _may_run(node: Node, request: Request) -> bool:
    """Nothing but room is in the way."""
    return not impossible(node, request) and not hindrance(node, request)


def _is_worth_waiting_for(node: Node, request: Request) -> bool:
    return _may_run(node, request) and has_well(node.gpus, request.gpus)


def _claim_for(task: Task, nodes: Iterable[Node], ledger: Ledger, clock: Clock) -> Claim | None:
    """The node to keep room on: of those that could run it, the one that is known to have room for it soonest; where that
    is known of none, the one with the most GPUs for it free, then cores.
    """
    able = [node for node in nodes if _is_worth_waiting_for(node, task.request)]
    if not able:
        return None

    def rank(node: Node) -> tuple[float, int, int, str]:
        reserved = reservation(task.request, node, ledger, clock)
        would_do = suitable(node.gpus, task.request.gpus) if task.request.gpus else []
        taken = _taken(node, ledger) if would_do else {}
        gpus = sum(gpu.is_free(taken) for gpu in would_do)
        soonest = reserved.at if reserved else math.inf
        return soonest, -gpus, -ledger.free(node.name, node.capacity, CORES), node.name

    return Claim(task, min(able, key=rank).name, task.request)


def _valid(claim: Claim, queue: Queue, nodes: Mapping[str, Node], turns: Turns) -> bool:
    node, task = nodes.get(claim.node), claim.task
    if node is None or queue.get(task.task_id) is not task or task.request != claim.request:
        return False
    if turns.over_limit(task):
        return False
    return _is_worth_waiting_for(node, claim.request)
