"""The ledger: who holds what, on which node.

Every attempt that is assigning, running or paused holds its amounts and GPUs until it ends. Amounts
are counted by name, so that cores, memory and whatever follows are one rule. What a node reports to be
running is held even where it exceeds the node's capacity: the ledger records what is, and refuses only
to add to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from hakuriver_host.domain.gpus import Gpu
from hakuriver_host.domain.model import GPUS, TASKS, Request


@dataclass(slots=True)
class _Account:
    held: dict[str, int] = field(default_factory=dict)
    gpus: dict[str, list[int]] = field(default_factory=dict)
    """By UUID: the tasks that hold it; one, but for what a returning node reports."""
    requests: dict[int, Request] = field(default_factory=dict)
    owners: dict[int, tuple[str, int]] = field(default_factory=dict)
    """By task: whose it is, and how many GPUs it holds."""


class Ledger:
    """Holdings by node and task. A task holds on one node at a time."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._owners: dict[str, Counter[str]] = {}
        """What each user holds on all nodes, by name, GPUs and tasks too."""
        self._batches: Counter[int] = Counter()
        """How many tasks hold anything, of batches that have a quota."""
        self.changed: set[str] = set()
        """Nodes whose holdings or capacity changed since `FullestFirst` last looked."""

    def hold(
        self, node: str, task_id: int, request: Request, gpus: Collection[Gpu] = (), *, owner: str = ""
    ) -> None:
        """Enters a holding; repeated for the same task it changes nothing."""
        account = self._accounts.setdefault(node, _Account())
        if task_id in account.requests:
            return
        account.requests[task_id] = request
        self.changed.add(node)
        for name, amount in request.amounts:
            account.held[name] = account.held.get(name, 0) + amount
        account.owners[task_id] = owner, len(gpus)
        self._owners.setdefault(owner, Counter()).update(amounts_of(request, len(gpus)))
        if request.quota is not None:
            self._batches[request.quota.batch_id] += 1
        for gpu in gpus:
            account.gpus.setdefault(gpu.uuid, []).append(task_id)

    def release(self, node: str, task_id: int) -> bool:
        """Strikes a holding; False when there was none."""
        account = self._accounts.get(node)
        request = account.requests.pop(task_id, None) if account else None
        if account is None or request is None:
            return False
        self.changed.add(node)
        owner, gpus = account.owners.pop(task_id)
        self._owners[owner].subtract(amounts_of(request, gpus))
        if not self._owners[owner][TASKS]:
            del self._owners[owner]
        if request.quota is not None:
            self._batches[request.quota.batch_id] -= 1
            if not self._batches[request.quota.batch_id]:
                del self._batches[request.quota.batch_id]
        for name, amount in request.amounts:
            account.held[name] -= amount
        for uuid, holders in list(account.gpus.items()):
            if task_id in holders:
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

    def holders(self, node: str) -> Mapping[int, Request]:
        account = self._accounts.get(node)
        return account.requests if account else {}

    def owners(self) -> Iterable[str]:
        """The users who hold anything."""
        return self._owners.keys()

    def of_owner(self, owner: str) -> Mapping[str, int]:
        """What a user holds, by name; `GPUS` and `TASKS` too."""
        return self._owners.get(owner, _NONE)

    def of_batch(self, batch_id: int) -> int:
        """How many tasks of a batch hold anything; known of those that have a quota."""
        return self._batches[batch_id]

    def free(self, node: str, capacity: Mapping[str, int], name: str) -> int:
        """What is left of `capacity`; below zero where a returning node runs more than it has."""
        return capacity.get(name, 0) - self.held(node, name)

    def fits(self, node: str, capacity: Mapping[str, int], request: Request) -> bool:
        """Whether its amounts fit beside what is held now; its GPUs are for `gpus.choose`."""
        account = self._accounts.get(node) or _NOTHING
        return all(
            amount <= capacity.get(name, 0) - account.held.get(name, 0) for name, amount in request.amounts
        )

    def gpus(self, node: str) -> dict[str, int]:
        """The GPUs that are held, by UUID, and the task that holds each: of several, the first."""
        account = self._accounts.get(node) or _NOTHING
        return {uuid: holders[0] for uuid, holders in account.gpus.items()}


def amounts_of(request: Request, gpus: int) -> dict[str, int]:
    """All that a task holds with so many GPUs, by name."""
    return {**dict(request.amounts), GPUS: gpus, TASKS: 1}


_NOTHING = _Account()
_NONE: Mapping[str, int] = {}
