"""Preemption: which tasks are ended so that the first in line can start.

Only those that were submitted as preemptible, for one that was not, and never for one of lower priority. They wait
again afterwards, and lose what they had not saved; so as few as may be, and those that began last.
"""

from __future__ import annotations

from collections.abc import Mapping

from hakuriver.states import TaskState
from hakuriver_host.domain.ledger import Ledger, Room, wanted_of
from hakuriver_host.domain.model import Node, Request, Task
from hakuriver_host.domain.placement import Claim, may_run
from hakuriver_host.domain.turns import Turns

_LOOKED_AT = 50
"""Nodes that are looked at closely in one round: each takes a tenth of a millisecond or two."""


def make_room(
    claim: Claim, nodes: Mapping[str, Node], ledger: Ledger, tasks: Mapping[int, Task], turns: Turns
) -> tuple[Claim, list[Task]]:
    """The tasks to end for the claim's task, none where that does not help or is not needed any more; and the claim, on
    the node where it does.
    """
    wanted, node = claim.request, nodes.get(claim.node)
    if wanted.preemptible or node is None or not ledger.has_preemptible():
        return claim, []
    if _without_those_that_go(node, ledger, tasks).fits(wanted):
        return claim, []
    found: list[tuple[int, bool, str, list[Task]]] = []
    looks = 0
    for name in (claim.node, *(name for name in nodes if name != claim.node)):
        if looks >= _LOOKED_AT or not _may_help(nodes[name], wanted, ledger):
            continue
        if not may_run(nodes[name], wanted) or turns.over_limit(claim.task, nodes[name]):
            continue
        looks += 1
        victims = _victims(claim.task, nodes[name], ledger, tasks)
        if victims is not None:
            found.append((len(victims), name != claim.node, name, victims))
    if not found:
        return claim, []
    _, elsewhere, name, victims = min(found, key=lambda each: each[:3])
    needed = _needed(victims, nodes[name], ledger, wanted, tasks)
    return Claim(claim.task, name, wanted) if elsewhere else claim, needed


def _may_help(node: Node, wanted: Request, ledger: Ledger) -> bool:
    """Whether there would be room as far as amounts go, if all ended there that may be ended: a quick look."""
    if not ledger.has_preemptible(node.name) or (wanted.node is not None and wanted.node != node.name):
        return False
    return all(
        amount <= ledger.free(node.name, node.capacity, name) + ledger.preemptible(node.name, name)
        for name, amount in wanted_of(wanted, node)
        if name in node.capacity
    )


def _goes(task: Task | None) -> bool:
    return task is not None and (task.preempting or task.kill_requested)


def _without_those_that_go(node: Node, ledger: Ledger, tasks: Mapping[int, Task]) -> Room:
    """What is being ended makes room by itself."""
    room = Room(node, ledger)
    for task_id in ledger.holders(node.name):
        if _goes(tasks.get(task_id)):
            room.strike(task_id)
    return room


def _victims(task: Task, node: Node, ledger: Ledger, tasks: Mapping[int, Task]) -> list[Task] | None:
    """Those to end on one node, some perhaps for nothing; none where that makes no room."""
    room = _without_those_that_go(node, ledger, tasks)
    there = (tasks.get(task_id) for task_id in ledger.holders(node.name))
    could = [
        each
        for each in there
        if each is not None
        and each.request.preemptible
        and not _goes(each)
        and each.priority <= task.priority
        # What waits still has been placed in this round.
        and each.state is not TaskState.PENDING
    ]
    could.sort(key=lambda each: (each.priority, -(each.started_at or float("inf")), -each.task_id))
    chosen: list[Task] = []
    while not room.fits(task.request):
        if len(chosen) == len(could):
            return None
        chosen.append(could[len(chosen)])
        room.strike(chosen[-1].task_id)
    return chosen


def _needed(
    chosen: list[Task], node: Node, ledger: Ledger, wanted: Request, tasks: Mapping[int, Task]
) -> list[Task]:
    """Of those chosen, the ones without whose end there is no room: a late small one may not matter beside a larger one."""
    room = _without_those_that_go(node, ledger, tasks)
    for each in chosen:
        room.strike(each.task_id)
    needed = []
    for each in chosen:
        room.put_back(each.task_id)
        if not room.fits(wanted):
            room.strike(each.task_id)
            needed.append(each)
    return needed
