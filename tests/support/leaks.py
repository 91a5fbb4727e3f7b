"""What a cluster must not leave behind: containers, processes of tasks, held resources."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from pathlib import Path

_VARIABLE = b"HAKURIVER_TASK_ID="


def task_processes(task_ids: Collection[int] | None = None) -> dict[int, int]:
    """Processes whose environment names one of these tasks (or any task): task by process id."""
    found: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        task = _task_of(folder)
        if task is not None and (task_ids is None or task in task_ids):
            found[int(folder.name)] = task
    return found


def end_task_processes(task_ids: Collection[int]) -> None:
    """Kills what a failed test left of its tasks."""
    for pid in task_processes(task_ids):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _task_of(process: Path) -> int | None:
    try:
        # A process that has ended and waits for its parent has no environment any more.
        environment = (process / "environ").read_bytes()
    except OSError:
        return None
    for variable in environment.split(b"\0"):
        if variable.startswith(_VARIABLE):
            text = variable.removeprefix(_VARIABLE)
            return int(text) if text.isdigit() else None
    return None
