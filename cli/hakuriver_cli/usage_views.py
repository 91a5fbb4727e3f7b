"""How lists and single tasks show what was used, beside what was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hakuriver import models
from hakuriver.sizes import format_duration, format_size
from hakuriver_cli.cells import percent, size
from hakuriver_cli.output import NOTHING, Column, View

if TYPE_CHECKING:
    from hakuriver.models.nodes import TaskLoad
    from hakuriver.models.tasks import TaskSummary
    from hakuriver.models.usage import TaskUsage


_WATT_HOUR = 3_600


def cpu_percent(cores: int, usage: TaskUsage | None) -> float | None:
    """Of the processor time that its cores could have given while it was looked at."""
    if usage is None or usage.cpu_seconds is None or not (cores and usage.seconds):
        return None
    return 100 * usage.cpu_seconds / (cores * usage.seconds)


def cpu(task: TaskSummary) -> str:
    return percent(cpu_percent(task.required_cores, task.usage))


def peak_memory(task: TaskSummary) -> str:
    """Such as `1.2G (30%)`: of what it asked for, if it did."""
    peak = _of(task).peak_memory_bytes
    asked = task.required_memory_bytes
    return size(peak) if peak is None or not asked else f"{size(peak)} ({100 * peak / asked:.0f}%)"


def gpu_use(task: TaskSummary) -> str:
    return percent(_of(task).gpu_percent)


def gpu_memory(task: TaskSummary) -> str:
    return size(_of(task).peak_gpu_memory_bytes)


def energy(task: TaskSummary) -> str:
    return _energy(_of(task).gpu_joules)


def cpu_line(task: TaskSummary) -> str:
    """Such as `3m10s, 79% of 2 cores for 2m00s, 1.6 cores now`."""
    usage, share = _of(task), cpu_percent(task.required_cores, task.usage)
    if usage.cpu_seconds is None:
        return NOTHING
    text = _seconds(usage.cpu_seconds)
    if share is not None:
        cores = f"{task.required_cores} core{'' if task.required_cores == 1 else 's'}"
        text += f", {share:.0f}% of {cores} for {_seconds(usage.seconds)}"
    return text if usage.cpu_now is None else f"{text}, {cores_now(usage)} cores now"


def memory_line(task: TaskSummary) -> str:
    usage = _of(task)
    if usage.peak_memory_bytes is None:
        return NOTHING
    text = f"{format_size(usage.peak_memory_bytes)} at most"
    if task.required_memory_bytes:
        share = 100 * usage.peak_memory_bytes / task.required_memory_bytes
        text += f", {share:.0f}% of {format_size(task.required_memory_bytes)}"
    return text if usage.memory_bytes is None else f"{text}, {format_size(usage.memory_bytes)} now"


def gpu_line(task: TaskSummary) -> str:
    usage = _of(task)
    parts = []
    if usage.gpu_percent is not None:
        parts.append(f"{usage.gpu_percent:.0f}% on average")
    if usage.peak_gpu_memory_bytes is not None:
        parts.append(f"{format_size(usage.peak_gpu_memory_bytes)} of memory at most")
    if usage.gpu_joules is not None:
        parts.append(_energy(usage.gpu_joules))
    return ", ".join(parts) or NOTHING


def cores_now(usage: TaskUsage | None) -> str:
    return NOTHING if usage is None or usage.cpu_now is None else f"{usage.cpu_now:.1f}"


def _of(task: TaskSummary) -> TaskUsage:
    return task.usage or models.usage.TaskUsage()


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f}s" if seconds < 10 else format_duration(seconds)  # noqa: PLR2004 - more says nothing


def _energy(joules: float | None) -> str:
    if joules is None:
        return NOTHING
    hours = joules / _WATT_HOUR
    return f"{hours / 1000:.1f}kWh" if hours >= 1000 else f"{hours:.1f}Wh"  # noqa: PLR2004


def _memory_now(load: TaskLoad) -> str:
    return size(load.usage.memory_bytes if load.usage else None)


def _of_asked(amount: str, asked: object) -> str:
    return f"{amount}/{asked}" if asked else amount


LOADS: View[TaskLoad] = View(
    name=lambda load: str(load.task_id),
    columns=[
        Column("TASK ID", lambda load: str(load.task_id)),
        Column("NAME", lambda load: load.name or "", limit=20),
        Column("STATE", lambda load: str(load.status)),
        Column("OWNER", lambda load: load.owner),
        Column("NODE", lambda load: load.hostname),
        Column("CORES", lambda load: _of_asked(cores_now(load.usage), load.required_cores), right=True),
        Column(
            "MEMORY",
            lambda load: _of_asked(
                _memory_now(load), load.required_memory_bytes and size(load.required_memory_bytes)
            ),
            right=True,
        ),
        Column("PEAK", lambda load: size(load.usage.peak_memory_bytes if load.usage else None), right=True),
        Column("CPU", lambda load: percent(cpu_percent(load.required_cores, load.usage)), right=True),
        Column("GPUS", lambda load: str(len(load.gpus)), right=True),
        Column("GPU USE", lambda load: percent(load.usage.gpu_percent if load.usage else None), right=True),
    ],
)
"""What runs on nodes: cores and memory in use now, of those that were asked for."""
