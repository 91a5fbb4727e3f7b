"""The machine's cores, memory, load and temperatures, as this process may use them.

A Runner in a container or a slice offers what its control groups leave it, not what the machine has.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

CGROUP_ROOT = Path("/sys/fs/cgroup")
_UNLIMITED = 2**60
"""Version 1 says no limit by a huge number."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a heartbeat tells of the machine."""

    cpu_percent: float
    memory_percent: float
    memory_used_bytes: int
    memory_total_bytes: int


def usable_cores(root: Path = CGROUP_ROOT, own: Path = Path("/proc/self/cgroup")) -> int:
    """Cores that this process may run on, bounded by the CPU quotas of its control groups."""
    cores = len(os.sched_getaffinity(0))
    quotas = [quota for folder in _groups(root, own, "cpu") if (quota := _quota(folder)) is not None]
    return max(1, min([cores, *(math.floor(quota) for quota in quotas if quota >= 1)]))


def usable_memory(root: Path = CGROUP_ROOT, own: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes of memory, bounded by the limits of its control groups."""
    limits = [
        limit for folder in _groups(root, own, "memory") if (limit := _memory_limit(folder)) is not None
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


def _groups(root: Path, own: Path, controller: str) -> list[Path]:
    """The folders of this process's control group and of those above it."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    folders: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            bases = [root, root / "unified"]
        elif controller in controllers.split(","):
            bases = [root / controllers, root / controller]
        else:
            continue
        for base in bases:
            here = base / path.lstrip("/")
            folders += [folder for folder in (here, *here.parents) if folder.is_relative_to(base)]
    return list(dict.fromkeys(folders))


def _quota(folder: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        quota = (folder / "cpu.cfs_quota_us").read_text()
        period = (folder / "cpu.cfs_period_us").read_text()
        return None if int(quota) <= 0 else int(quota) / int(period)
    return None


def _memory_limit(folder: Path) -> int | None:
    for name in ("memory.max", "memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limit = int((folder / name).read_text())
            return limit if 0 < limit < _UNLIMITED else None
    return None
