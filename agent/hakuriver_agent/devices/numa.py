"""The machine's NUMA nodes, from sysfs (https://docs.kernel.org/admin-guide/mm/numaperf.html)."""

from __future__ import annotations

import re
from pathlib import Path

from hakuriver.cores import parse_list
from hakuriver.models.runner import NumaNode

NODES = Path("/sys/devices/system/node")
_TOTAL = re.compile(r"MemTotal:\s+(\d+) kB")


def topology(root: Path = NODES) -> dict[str, NumaNode] | None:
    """Cores and memory by number of the node; none on a machine without NUMA nodes."""
    found: dict[str, NumaNode] = {}
    for folder in sorted(root.glob("node[0-9]*"), key=lambda path: int(path.name[4:])):
        try:
            cores = parse_list((folder / "cpulist").read_text())
            match = _TOTAL.search((folder / "meminfo").read_text())
        except (OSError, ValueError):
            continue
        memory = int(match.group(1)) * 1024 if match else None
        found[folder.name[4:]] = NumaNode(cores=cores, memory_bytes=memory)
    return found or None


def core_lists(root: Path = NODES) -> dict[int, str]:
    """Per NUMA node its cores in the kernel's list format, as Docker takes them."""
    found: dict[int, str] = {}
    for folder in root.glob("node[0-9]*"):
        try:
            found[int(folder.name[4:])] = (folder / "cpulist").read_text().strip()
        except OSError:
            continue
    return found
