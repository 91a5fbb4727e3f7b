"""What control groups tell of the processes in them, in both versions. Standard library only.

Version 1 has a folder for each controller, and processor time is counted by `cpuacct`; in version 2 one folder has all
(https://docs.kernel.org/admin-guide/cgroup-v1/memory.html, .../cpuacct.html, .../cgroup-v2.html). A look reads two or
three small files: 30 to 40 µs. What cannot be read is unknown; that is never an error.
"""

# Plain os calls: the shim starts without pathlib.
# ruff: noqa: PTH123
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Fields = dict[str, Any]


def read(folders: Mapping[str, str]) -> Fields:
    """Processor time `cpu` in seconds, memory `now` and its `peak` in bytes: those of them that are told.

    `folders` has those of a group by controller, of version 2 as `unified`.
    """
    found: Fields = {}
    if (nanoseconds := _number(folders, "cpuacct", "cpuacct.usage")) is not None:
        found["cpu"] = nanoseconds / 1e9
    elif (microseconds := _microseconds(folders)) is not None:
        found["cpu"] = microseconds / 1e6
    names = ("memory.usage_in_bytes", "memory.max_usage_in_bytes")
    controller = "memory"
    if controller not in folders:
        controller, names = "unified", ("memory.current", "memory.peak")
    for what, name in zip(("now", "peak"), names, strict=True):
        if (size := _number(folders, controller, name)) is not None:
            found[what] = size
    return found


def _number(folders: Mapping[str, str], controller: str, name: str) -> int | None:
    text = _text(folders, controller, name)
    return int(text) if text.strip().isdigit() else None


def _microseconds(folders: Mapping[str, str]) -> int | None:
    for line in _text(folders, "unified", "cpu.stat").splitlines():
        key, _, value = line.partition(" ")
        if key == "usage_usec" and value.isdigit():
            return int(value)
    return None


def _text(folders: Mapping[str, str], controller: str, name: str) -> str:
    if controller not in folders:
        return ""
    try:
        with open(f"{folders[controller]}/{name}") as file:
            return file.read()
    except (OSError, ValueError):
        return ""
