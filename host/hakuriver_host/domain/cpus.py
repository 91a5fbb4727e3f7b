"""Cores: which of a node's a task gets as its own."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence


def choose_cpus(
    cpus: Sequence[int],
    numa_nodes: Mapping[int, Collection[int]],
    taken: Collection[int],
    count: int,
    near: Collection[int] = (),
) -> tuple[int, ...]:
    """So many of `cpus` that no other task has; none where there are too few, and the task may use any then.

    As few NUMA nodes as may be, those of `near` before others, and of those that serve the one with the fewest left.
    """
    free = [cpu for cpu in cpus if cpu not in taken]
    if not 0 < count <= len(free):
        return ()
    groups = _by_numa(free, numa_nodes)

    def rank(number: int) -> tuple[bool, bool, int, int]:
        size = len(groups[number])
        serves = size >= count
        return (number not in near, not serves, size if serves else -size, number)

    chosen = [cpu for number in sorted(groups, key=rank) for cpu in groups[number]][:count]
    return tuple(sorted(chosen))


def _by_numa(cpus: Iterable[int], numa_nodes: Mapping[int, Collection[int]]) -> dict[int, list[int]]:
    """Those of no known NUMA node stand together."""
    home = {cpu: number for number, members in numa_nodes.items() for cpu in members}
    groups: dict[int, list[int]] = {}
    for cpu in cpus:
        groups.setdefault(home.get(cpu, _NOWHERE), []).append(cpu)
    return groups


_NOWHERE = 1 << 16
