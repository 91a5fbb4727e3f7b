"""The machine's NUMA nodes, from sysfs (https://docs.kernel.org/admin-guide/mm/numaperf.html)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from hakuriver.cores import parse_list
from hakuriver.models.runner import NumaNode

NODES = Path("/sys/devices/system/node")
CPUS = Path("/sys/devices/system/cpu")
_TOTAL = re.compile(r"MemTotal:\s+(\d+) kB")


def topology(root: Path = NODES, cpus: Path = CPUS) -> dict[str, NumaNode] | None:
    """What each has, by number of the node; none on a machine without NUMA nodes."""
    found: dict[str, NumaNode] = {}
    folders = sorted(root.glob("node[0-9]*"), key=lambda path: int(path.name[4:]))
    for folder in folders:
        try:
            cores = parse_list((folder / "cpulist").read_text())
            match = _TOTAL.search((folder / "meminfo").read_text())
        except (OSError, ValueError):
            continue
        memory = int(match.group(1)) * 1024 if match else None
        packages = {_of_core(cpus, core, "physical_package_id") for core in cores} - {None}
        found[folder.name[4:]] = NumaNode(
            cores=cores,
            memory_bytes=memory,
            distances=_distances(folder, [other.name[4:] for other in folders]),
            packages=sorted(package for package in packages if package is not None),
        )
    return found or None


def _distances(folder: Path, numbers: list[str]) -> dict[str, int]:
    """One for each node that is there, in their order; none where the machine does not tell."""
    try:
        told = [int(word) for word in (folder / "distance").read_text().split()]
    except (OSError, ValueError):
        return {}
    return dict(zip(numbers, told, strict=True)) if len(told) == len(numbers) else {}


def by_closeness(cores: Iterable[int], root: Path = CPUS) -> list[int]:
    """Cores in an order in which those that share a processor's core (hyper-threads) are next to each other."""

    def place(core: int) -> tuple[int, int, int]:
        package, own = (_of_core(root, core, name) for name in ("physical_package_id", "core_id"))
        return (package or 0, core if own is None else own, core)

    return sorted(cores, key=place)


def _of_core(root: Path, core: int, name: str) -> int | None:
    try:
        return int((root / f"cpu{core}/topology/{name}").read_text())
    except (OSError, ValueError):
        return None


def core_lists(root: Path = NODES) -> dict[int, str]:
    """Per NUMA node its cores in the kernel's list format, as Docker takes them."""
    found: dict[int, str] = {}
    for folder in root.glob("node[0-9]*"):
        try:
            found[int(folder.name[4:])] = (folder / "cpulist").read_text().strip()
        except OSError:
            continue
    return found
