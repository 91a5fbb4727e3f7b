"""Preemption: which tasks are ended so that the first in line can start.

Only those that were submitted as preemptible, for one that was not, and never for one of lower priority. They wait
again afterwards, and lose what they had not saved; so as few as may be, and those that began last.
"""

from __future__ import annotations

from collections.abc import Mapping

from hakuriver_host.domain.ledger import Ledger, Room
from hakuriver_host.domain.model import Node, Request, Task
from hakuriver_host.domain.placement import Claim, may_run


def make_room(
    claim: Claim, nodes: Mapping[str, Node], ledger: Ledger, tasks: Mapping[int, Task]
) -> tuple[Claim, list[Task]]:
    """The tasks to end for the claim's task, none where that does not help; and the claim, on the node where it does.

    What is being ended already counts as gone.
    """
    wanted = claim.request
    if wanted.preemptible:
        return claim, []
    found: list[tuple[int, bool, str, list[Task]]] = []
    for name, node in nodes.items():
        if ledger.has_preemptible(name) and may_run(node, wanted):
            victims = _victims(claim.task, node, ledger, tasks)
            if victims is not None:
                found.append((len(victims), name != claim.node, name, victims))
    if not found:
        return claim, []
    _, elsewhere, name, victims = min(found, key=lambda each: each[:3])
    return Claim(claim.task, name, wanted) if elsewhere else claim, victims


def _victims(task: Task, node: Node, ledger: Ledger, tasks: Mapping[int, Task]) -> list[Task] | None:
    """Those to end on one node; none where that makes no room. What is being ended makes room by itself."""
    room, wanted = Room(node, ledger), task.request
    could: list[Task] = []
    for task_id in ledger.holders(node.name):
        held = tasks.get(task_id)
        if held is None or not held.request.preemptible:
            continue
        if held.preempting or held.kill_requested:
            room.strike(task_id)
        elif held.priority <= task.priority:
            could.append(held)
    if room.fits(wanted):
        return []
    could.sort(key=lambda each: (each.priority, -(each.started_at or float("inf")), -each.task_id))
    chosen: list[Task] = []
    for each in could:
        room.strike(each.task_id)
        chosen.append(each)
        if room.fits(wanted):
            return _needed(chosen, node, ledger, wanted, tasks)
    return None


def _needed(
    chosen: list[Task], node: Node, ledger: Ledger, wanted: Request, tasks: Mapping[int, Task]
) -> list[Task]:
    """Of those chosen, the ones without whose end there is no room: a late small one may not matter beside a larger one."""
    needed = list(chosen)
    for each in chosen[:-1]:
        room = Room(node, ledger)
        for task_id in ledger.holders(node.name):
            held = tasks.get(task_id)
            ends = held is not None and held.request.preemptible and (held.preempting or held.kill_requested)
            if ends or any(other.task_id == task_id and other is not each for other in needed):
                room.strike(task_id)
        if room.fits(wanted):
            needed.remove(each)
    return needed
