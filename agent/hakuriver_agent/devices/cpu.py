"""The machine's cores, memory, load and temperatures, as this process may use them.

A Runner in a container or a slice offers what its control groups leave it, not what the machine has.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from hakuriver.cores import CGROUP_ROOT, control_groups

_UNLIMITED = 2**60
"""Version 1 says no limit by a huge number."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a heartbeat tells of the machine."""

    cpu_percent: float
    memory_percent: float
    memory_used_bytes: int
    memory_total_bytes: int


def usable_memory(root: Path = CGROUP_ROOT, own: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes of memory, bounded by the limits of its control groups."""
    limits = [
        limit
        for folder in control_groups(root, own, "memory")
        if (limit := _memory_limit(folder)) is not None
    ]
    return min([psutil.virtual_memory().total, *limits])


def load() -> Load:
    """The load since the last call (the first one tells 0 % of CPU)."""
    memory = psutil.virtual_memory()
    used = memory.total - memory.available
    return Load(psutil.cpu_percent(interval=None), round(100 * used / memory.total, 1), used, memory.total)


def temperatures() -> tuple[float | None, float | None]:
    """Mean and highest of the machine's sensors in °C; none where there is no sensor."""
    reader: Callable[[], dict[str, list[object]]] | None = getattr(psutil, "sensors_temperatures", None)
    if reader is None:
        return None, None
    with contextlib.suppress(OSError, ValueError):
        values = [float(entry.current) for group in reader().values() for entry in group if entry.current]  # type: ignore[attr-defined]  # psutil's named tuple
        if values:
            return round(sum(values) / len(values), 1), max(values)
    return None, None


def _memory_limit(folder: Path) -> int | None:
    for name in ("memory.max", "memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limit = int((folder / name).read_text())
            return limit if 0 < limit < _UNLIMITED else None
    return None
