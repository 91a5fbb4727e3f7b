"""Cores: which of a node's a task gets as its own."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple


class NumaCores(NamedTuple):
    """One NUMA node of a machine."""

    cpus: tuple[int, ...]
    distances: tuple[tuple[int, int], ...] = ()
    """How far each NUMA node is, where that is known."""


def choose_cpus(
    cpus: Sequence[int],
    numa_nodes: Mapping[int, NumaCores],
    taken: Collection[int],
    count: int,
    near: Collection[int] = (),
) -> tuple[int, ...]:
    """So many of `cpus` that no other task has; none where there are too few, and the task may use any then.

    Of one NUMA node if it has enough, one of `near` before others, and of those that serve the one with the fewest left.
    Where none has enough, of the one with the most, and of those that are nearest to it. Of each in the order of `cpus`.
    """
    free = [cpu for cpu in cpus if cpu not in taken]
    if not 0 < count <= len(free):
        return ()
    groups = _by_numa(free, numa_nodes)

    def rank(number: int) -> tuple[bool, bool, int, int]:
        size = len(groups[number])
        serves = size >= count
        return (number not in near, not serves, size if serves else -size, number)

    first = min(groups, key=rank)
    known = numa_nodes.get(first)
    far = dict(known.distances) if known else {}
    others = sorted(groups.keys() - {first}, key=lambda number: (far.get(number, _UNKNOWN), rank(number)))
    chosen = [cpu for number in (first, *others) for cpu in groups[number]][:count]
    return tuple(sorted(chosen))


def _by_numa(cpus: Iterable[int], numa_nodes: Mapping[int, NumaCores]) -> dict[int, list[int]]:
    """Those of no known NUMA node stand together."""
    home = {cpu: number for number, numa in numa_nodes.items() for cpu in numa.cpus}
    groups: dict[int, list[int]] = {}
    for cpu in cpus:
        groups.setdefault(home.get(cpu, _NOWHERE), []).append(cpu)
    return groups


_NOWHERE = 1 << 16
_UNKNOWN = 1 << 16
"""Farther than any distance, which has one byte."""
