"""Nodes in the order in which placement looks at them: fewest free cores first, or most where tasks are to spread.

Those without GPUs come before those that have some, so that tasks without GPUs do not take the cores that GPUs need.
Kept from round to round, and mended only where something changed, so that placing one task among hundreds of
nodes costs a look-up and not a sort.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping

from hakuriver_host.domain.ledger import Ledger
from hakuriver_host.domain.model import CORES, Node

_Key = tuple[int, str]
"""Free cores, and the node's name."""


class NodeOrder:
    def __init__(self, *, spread: bool = False) -> None:
        """With `spread` the emptiest node is the first, and not the fullest that has room."""
        self._spread = spread
        self._keys: dict[str, tuple[bool, _Key]] = {}
        self._ordered: tuple[list[_Key], list[_Key]] = [], []
        """Nodes without GPUs, and those with some."""

    def refresh(self, nodes: Mapping[str, Node], ledger: Ledger) -> None:
        """Takes up what the ledger has noted as changed."""
        if len(self._keys) != len(nodes):
            ledger.changed.update(nodes)
        for name in ledger.changed:
            if old := self._keys.pop(name, None):
                of_kind = self._ordered[old[0]]
                del of_kind[bisect_left(of_kind, old[1])]
            if node := nodes.get(name):
                has_gpus, key = bool(node.gpus), (ledger.free(name, node.capacity, CORES), name)
                self._keys[name] = has_gpus, key
                insort(self._ordered[has_gpus], key)
        ledger.changed.clear()

    def with_cores(self, cores: int, *, gpus: bool) -> Iterator[str]:
        """Names of the nodes with at least so many cores free, and with GPUs where they are wanted; the best first."""
        for of_kind in self._ordered[gpus:]:
            first = bisect_left(of_kind, (cores, ""))
            places = range(first, len(of_kind))
            for index in reversed(places) if self._spread else places:
                yield of_kind[index][1]
