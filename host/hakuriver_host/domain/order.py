"""Nodes in the order in which placement looks at them: fewest free cores first.

Kept from round to round, and mended only where something changed, so that placing one task among hundreds of
nodes costs a look-up and not a sort.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping

from hakuriver_host.domain.ledger import Ledger
from hakuriver_host.domain.model import CORES, Node


class FullestFirst:
    def __init__(self) -> None:
        self._keys: dict[str, tuple[int, str]] = {}
        self._ordered: list[tuple[int, str]] = []

    def refresh(self, nodes: Mapping[str, Node], ledger: Ledger) -> None:
        """Takes up what the ledger has noted as changed."""
        if len(self._keys) != len(nodes):
            ledger.changed.update(nodes)
        for name in ledger.changed:
            if old := self._keys.pop(name, None):
                del self._ordered[bisect_left(self._ordered, old)]
            if node := nodes.get(name):
                key = self._keys[name] = (ledger.free(name, node.capacity, CORES), name)
                insort(self._ordered, key)
        ledger.changed.clear()

    def with_cores(self, cores: int) -> Iterator[str]:
        """Names of the nodes with at least so many cores free, the fullest first."""
        for index in range(bisect_left(self._ordered, (cores, "")), len(self._ordered)):
            yield self._ordered[index][1]
