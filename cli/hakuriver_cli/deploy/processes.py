"""Processes of this machine, as /proc has them: who lives, since when, and who was started by whom."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path

_PROC = Path("/proc")


def started(pid: int) -> str | None:
    """When the process started, as the kernel counts it; together with the pid it names a process for good."""
    fields = _stat(pid)
    return fields[19] if fields and fields[0] not in {"Z", "X"} else None


def boot() -> str:
    """Names this boot of the machine; empty where the kernel does not tell."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def descendants(pid: int) -> list[int]:
    """Everything that the process started and that still lives, its children's children too."""
    parents: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal() and (fields := _stat(int(entry.name))):
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        below = parents.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def end(pids: Iterable[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _stat(pid: int) -> list[str] | None:
    """The fields from the state on; what stands before may hold blanks and brackets."""
    try:
        text = (_PROC / str(pid) / "stat").read_text("utf-8", "replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()
