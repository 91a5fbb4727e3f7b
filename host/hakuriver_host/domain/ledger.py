"""The ledger: who holds what, on which node.

Every attempt that is assigning, running or paused holds its amounts, cores and GPUs until it ends. Amounts
are counted by name, so that cores, memory and whatever follows are one rule. What a node reports to be
running is held even where it exceeds the node's capacity: the ledger records what is, and refuses only
to add to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hakuriver_host.domain.gpus import Gpu, GpuRequest, suitable
from hakuriver_host.domain.model import GPUS, TASKS, Amounts, Node, Request, Task, numa_cores

_NO_AMOUNTS: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class Holding:
    """What one task holds of a node."""

    request: Request
    amounts: Amounts
    gpus: tuple[Gpu, ...] = ()
    cpus: tuple[int, ...] = ()
    owner: str = ""


def holding(task: Task, node: Node | None) -> Holding:
    """What a task holds of the node that it was given, if that is known."""
    request = task.request
    amounts = dict(wanted_of(request, node))
    if request.numa is None and node is not None and task.cpus:
        given = set(task.cpus)
        for number, numa in node.numa_nodes.items():
            if here := len(given.intersection(numa.cpus)):
                amounts[numa_cores(number)] = here
    return Holding(request, tuple(amounts.items()), task.gpus, task.cpus, task.batch.owner)


def wanted_of(request: Request, node: Node | None) -> Amounts:
    """What a request takes of a node: of one that it is to have for itself, all."""
    if node is None or not request.exclusive:
        return request.amounts
    amounts = dict(request.amounts)
    whole = {name: max(amount, amounts.get(name, 0)) for name, amount in node.capacity.items()}
    return tuple({**amounts, **whole, GPUS: len(node.gpus)}.items())


@dataclass(slots=True)
class _Account:
    held: dict[str, int] = field(default_factory=dict)
    gpus: dict[str, list[int]] = field(default_factory=dict)
    """By UUID: the tasks that hold it; one, but for what tasks share and what a returning node reports."""
    holdings: dict[int, Holding] = field(default_factory=dict)
    whole: int = 0
    """How many hold all of the node."""
    preemptible: Counter[str] = field(default_factory=Counter)
    """What those hold that may be ended to make room; `TASKS` too."""


class Ledger:
    """Holdings by node and task. A task holds on one node at a time."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._owners: dict[str, Counter[str]] = {}
        """What each user holds on all nodes, by name, GPUs and tasks too."""
        self._batches: Counter[int] = Counter()
        """How many tasks hold anything, of batches that have a quota."""
        self._preemptible = 0
        """How many tasks hold anything, of those that may be ended to make room."""
        self.changed: set[str] = set()
        """Nodes whose holdings or capacity changed since `NodeOrder` last looked."""

    def hold(self, node: str, task_id: int, held: Holding) -> None:
        """Enters a holding; repeated for the same task it changes nothing."""
        account = self._accounts.setdefault(node, _Account())
        if task_id in account.holdings:
            return
        account.holdings[task_id] = held
        self.changed.add(node)
        for name, amount in held.amounts:
            account.held[name] = account.held.get(name, 0) + amount
        account.whole += held.request.exclusive
        if held.request.preemptible:
            account.preemptible.update({**dict(held.amounts), TASKS: 1})
            self._preemptible += 1
        if held.request.quota is not None:
            self._batches[held.request.quota.batch_id] += 1
        self._owners.setdefault(held.owner, Counter()).update(_of_owner(held))
        for gpu in held.gpus:
            account.gpus.setdefault(gpu.uuid, []).append(task_id)

    def release(self, node: str, task_id: int) -> bool:
        """Strikes a holding; False when there was none."""
        account = self._accounts.get(node)
        held = account.holdings.pop(task_id, None) if account else None
        if account is None or held is None:
            return False
        self.changed.add(node)
        self._owners[held.owner].subtract(_of_owner(held))
        if not self._owners[held.owner][TASKS]:
            del self._owners[held.owner]
        if (quota := held.request.quota) is not None:
            self._batches[quota.batch_id] -= 1
            if not self._batches[quota.batch_id]:
                del self._batches[quota.batch_id]
        for name, amount in held.amounts:
            account.held[name] -= amount
        account.whole -= held.request.exclusive
        if held.request.preemptible:
            account.preemptible.subtract({**dict(held.amounts), TASKS: 1})
            self._preemptible -= 1
        for uuid in {gpu.uuid for gpu in held.gpus}:
            holders = account.gpus[uuid]
            holders.remove(task_id)
            if not holders:
                del account.gpus[uuid]
        return True

    def forget(self, node: str) -> None:
        """Closes the account of a node that is no more."""
        for task_id in list(self.holders(node)):
            self.release(node, task_id)
        self._accounts.pop(node, None)
        self.changed.add(node)

    def held(self, node: str, name: str) -> int:
        account = self._accounts.get(node)
        return account.held.get(name, 0) if account else 0

    def holders(self, node: str) -> Mapping[int, Holding]:
        account = self._accounts.get(node)
        return account.holdings if account else {}

    def owners(self) -> Iterable[str]:
        """The users who hold anything."""
        return self._owners.keys()

    def of_owner(self, owner: str) -> Mapping[str, int]:
        """What a user holds, by name; `GPUS` and `TASKS` too."""
        return self._owners.get(owner, _NO_AMOUNTS)

    def of_batch(self, batch_id: int) -> int:
        """How many tasks of a batch hold anything; known of those that have a quota."""
        return self._batches[batch_id]

    def free(self, node: str, capacity: Mapping[str, int], name: str) -> int:
        """What is left of `capacity`; below zero where a returning node runs more than it has."""
        return capacity.get(name, 0) - self.held(node, name)

    def fits(self, node: str, capacity: Mapping[str, int], request: Request) -> bool:
        """Whether its amounts fit beside what is held now; its GPUs are for `gpus.choose`."""
        account = self._accounts.get(node) or _NOTHING
        if account.whole or (request.exclusive and account.holdings):
            return False
        return all(
            amount <= capacity.get(name, 0) - account.held.get(name, 0) for name, amount in request.amounts
        )

    def gpus(self, node: str) -> Mapping[str, Sequence[int]]:
        """The GPUs that are held, by UUID, and the tasks that hold each."""
        return (self._accounts.get(node) or _NOTHING).gpus

    def cpus(self, node: str) -> set[int]:
        """The cores that tasks of the node were given as their own."""
        return {cpu for held in self.holders(node).values() for cpu in held.cpus}

    def taken(self, node: Node, wanted: GpuRequest) -> dict[str, int]:
        """The GPUs of a node that cannot be given to such a request now, by UUID, and a task that has each."""
        most = node.tasks_per_gpu if wanted.shared else 1
        holdings = self.holders(node.name)
        held = {
            uuid: holders[0]
            for uuid, holders in self.gpus(node.name).items()
            if not may_join(holders, holdings, most)
        }
        return {uuid: key.task_id for uuid, key in node.leaving.items()} | held

    def has_preemptible(self, node: str | None = None) -> bool:
        """Whether there are tasks, on this node or any, that may be ended to make room."""
        return (self._preemptible if node is None else self.preemptible(node, TASKS)) > 0

    def preemptible(self, node: str, name: str) -> int:
        """How much of a resource those hold."""
        return (self._accounts.get(node) or _NOTHING).preemptible[name]


def _of_owner(held: Holding) -> dict[str, int]:
    return {GPUS: len(held.gpus), **dict(held.amounts), TASKS: 1}


def amounts_of(request: Request, node: Node | None = None) -> dict[str, int]:
    """All that a task will hold, by name; of a node that it is to have for itself, if that is known."""
    gpus = request.gpus.count if request.gpus else 0
    return {GPUS: gpus, **dict(wanted_of(request, node)), TASKS: 1}


def may_join(holders: Collection[int], holdings: Mapping[int, Holding], most: int) -> bool:
    """Whether a GPU that these tasks hold takes one more: fewer than `most` do, and all share it."""
    return len(holders) < most and all(
        (held := holdings.get(task_id)) is not None
        and held.request.gpus is not None
        and held.request.gpus.shared
        for task_id in holders
    )


_NOTHING = _Account()


class Room:
    """What a node has free, and would have without some of its tasks."""

    def __init__(self, node: Node, ledger: Ledger) -> None:
        self.node = node
        self.free = {name: ledger.free(node.name, node.capacity, name) for name in node.capacity}
        self._holdings = dict(ledger.holders(node.name))
        self._struck: dict[int, Holding] = {}
        self._gpus = {uuid: set(holders) for uuid, holders in ledger.gpus(node.name).items()}
        for uuid, key in node.leaving.items():
            self._gpus.setdefault(uuid, set()).add(key.task_id)

    def strike(self, task_id: int) -> None:
        """As if the task had ended."""
        held = self._holdings.pop(task_id, None)
        if held is None:
            return
        self._struck[task_id] = held
        for name, amount in held.amounts:
            self.free[name] = self.free.get(name, 0) + amount
        for gpu in held.gpus:
            if holders := self._gpus.get(gpu.uuid):
                holders.discard(task_id)

    def put_back(self, task_id: int) -> None:
        """As if it had not, after all."""
        held = self._holdings[task_id] = self._struck.pop(task_id)
        for name, amount in held.amounts:
            self.free[name] -= amount
        for gpu in held.gpus:
            self._gpus.setdefault(gpu.uuid, set()).add(task_id)

    def fits(self, wanted: Request) -> bool:
        """Whether there is room for the request, if the node can serve it at all."""
        if any(held.request.exclusive for held in self._holdings.values()):
            return False
        if wanted.exclusive and self._holdings:
            return False
        if any(amount > self.free.get(name, 0) for name, amount in wanted.amounts):
            return False
        return wanted.gpus is None or self.free_gpus(wanted.gpus) >= wanted.gpus.count

    def free_gpus(self, wanted: GpuRequest) -> int:
        """How many GPUs there are for such a request."""
        most = self.node.tasks_per_gpu if wanted.shared else 1
        taken = {
            uuid
            for uuid, holders in self._gpus.items()
            if holders and not may_join(holders, self._holdings, most)
        }
        return sum(gpu.is_free(taken) for gpu in suitable(self.node.gpus, wanted))
