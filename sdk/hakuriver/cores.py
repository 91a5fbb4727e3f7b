"""Cores: which this process may use, as its control groups have it (https://docs.kernel.org/admin-guide/cgroup-v2.html), and lists of them."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")


def usable_cores(root: Path = CGROUP_ROOT, own: Path = Path("/proc/self/cgroup")) -> int:
    """Cores that this process may run on, bounded by the CPU quotas of its control groups."""
    cores = len(os.sched_getaffinity(0))
    quotas = [quota for folder in control_groups(root, own, "cpu") if (quota := _quota(folder)) is not None]
    return max(1, min([cores, *(math.floor(quota) for quota in quotas if quota >= 1)]))


def parse_list(text: str) -> list[int]:
    """The numbers of the kernel's list format, such as `0-3,8`.

    Raises:
        ValueError: it is none.
    """
    numbers: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            numbers += range(int(first), int(last or first) + 1)
    return numbers


def as_list(numbers: Iterable[int]) -> str:
    """Numbers in the kernel's list format."""
    runs: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if runs and runs[-1][1] == number - 1:
            runs[-1] = runs[-1][0], number
        else:
            runs.append((number, number))
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def control_groups(root: Path, own: Path, controller: str) -> list[Path]:
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
