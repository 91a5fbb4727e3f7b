"""What lists of GPUs show."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hakuriver.sizes import format_size
from hakuriver_cli.cells import number
from hakuriver_cli.output import NOTHING, Column, View

if TYPE_CHECKING:
    from hakuriver.models.base import TaskId
    from hakuriver.models.nodes import NodeInfo, TaskLoad
    from hakuriver.models.runner import GpuInfo, GpuProcess
    from hakuriver_cli.gpu_records import GpuRow


_PROBLEM_WIDTH = 60


def rows_of(nodes: Iterable[NodeInfo]) -> list[GpuRow]:
    return [
        _row(node.hostname, gpu, node.gpu_tasks.get(gpu.uuid), node.gpu_sharers.get(gpu.uuid, []))
        for node in nodes
        for gpu in node.gpu_info
    ]


def gpu_rows(node: str, gpus: Iterable[GpuInfo], tasks: Iterable[TaskLoad]) -> list[GpuRow]:
    """Of one node, with the tasks that run there."""
    holders: dict[str, list[TaskId]] = {}
    for task in tasks:
        for uuid in task.gpus if task.hostname == node else []:
            holders.setdefault(uuid, []).append(task.task_id)
    rows = []
    for gpu in gpus:
        tasks_of = holders.get(gpu.uuid, [])
        rows.append(_row(node, gpu, next(iter(tasks_of), None), tasks_of if len(tasks_of) > 1 else []))
    return rows


def _row(node: str, gpu: GpuInfo, task_id: TaskId | None, sharers: list[TaskId]) -> GpuRow:
    from hakuriver_cli.gpu_records import GpuRow  # noqa: PLC0415  (see there)

    return GpuRow(node=node, gpu=gpu, task_id=task_id, sharers=sharers)


def _tasks(row: GpuRow) -> str:
    return " ".join(map(str, row.sharers)) or number(row.task_id)


def _told(value: int, unit: str) -> str:
    return NOTHING if value < 0 else f"{value}{unit}"


def _memory(gpu: GpuInfo) -> str:
    used, total = (
        NOTHING if mib < 0 else format_size(mib << 20) for mib in (gpu.memory_used_mib, gpu.memory_total_mib)
    )
    return f"{used}/{total}"


def _power(gpu: GpuInfo) -> str:
    return NOTHING if gpu.power_usage_mw < 0 else f"{gpu.power_usage_mw / 1000:.0f}W"


def _programs(gpu: GpuInfo) -> str:
    """Such as `python (4711, 10.2G, task 42)`."""
    return ", ".join(f"{each.name or '?'} ({', '.join(_told_of(each))})" for each in gpu.processes)


def _told_of(program: GpuProcess) -> list[str]:
    memory = [] if program.memory_used_mib < 0 else [format_size(program.memory_used_mib << 20)]
    return [str(program.pid), *memory, *([f"task {program.task_id}"] if program.task_id else [])]


GPUS: View[GpuRow] = View(
    name=lambda row: f"{row.node}::{row.gpu.gpu_id}",
    columns=[
        Column("NODE", lambda row: row.node),
        Column("GPU", lambda row: str(row.gpu.gpu_id), right=True),
        Column("MODEL", lambda row: row.gpu.name),
        Column("TASK", _tasks),
        Column("USE", lambda row: _told(row.gpu.gpu_utilization, "%"), right=True),
        Column("MEMORY", lambda row: _memory(row.gpu), right=True),
        Column("TEMPERATURE", lambda row: _told(row.gpu.temperature, "°C"), right=True),
        Column("POWER", lambda row: _power(row.gpu), right=True),
        Column("PROBLEM", lambda row: row.gpu.problem, style=lambda _: "red", limit=_PROBLEM_WIDTH),
        Column("PROGRAMS", lambda row: _programs(row.gpu), limit=_PROBLEM_WIDTH),
        Column("NUMA", lambda row: number(row.gpu.numa_node), wide=True, right=True),
        Column("CLOCK", lambda row: _told(row.gpu.graphics_clock_mhz, " MHz"), wide=True, right=True),
        Column("FAN", lambda row: _told(row.gpu.fan_speed, "%"), wide=True, right=True),
        Column("DRIVER", lambda row: row.gpu.driver_version, wide=True),
        Column("UUID", lambda row: row.gpu.uuid, wide=True),
    ],
)
