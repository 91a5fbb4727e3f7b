"""What lists of tasks show, and one task in full."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hakuriver import models
from hakuriver.cores import as_list
from hakuriver.sizes import format_duration
from hakuriver.states import FINAL, TaskState
from hakuriver_cli import usage_views as used
from hakuriver_cli.cells import number, size, time
from hakuriver_cli.output import NOTHING, Column, View

if TYPE_CHECKING:
    from hakuriver.models.tasks import (
        NodeVerdict,
        QueuedTask,
        TaskDetail,
        TaskEvent,
        TaskExplanation,
        TaskSummary,
    )
    from hakuriver.models.vps import VpsSummary
    from hakuriver_cli.records import Done


_STYLES = {
    TaskState.PENDING: "yellow",
    TaskState.ASSIGNING: "cyan",
    TaskState.RUNNING: "cyan",
    TaskState.PAUSED: "magenta",
    TaskState.STOPPED: "dim",
    TaskState.COMPLETED: "green",
    TaskState.FAILED: "red",
    TaskState.KILLED: "red",
    TaskState.KILLED_OOM: "red",
    TaskState.LOST: "red",
}
_COMMAND_WIDTH = 50
_REASON_WIDTH = 60


def _state_style(task: TaskSummary | TaskEvent) -> str:
    return _STYLES[task.status if isinstance(task, models.tasks.TaskSummary) else task.state]


def _ran(task: TaskSummary) -> str:
    if task.started_at is None:
        return NOTHING
    end = task.completed_at or datetime.now(UTC)
    return format_duration((end - task.started_at).total_seconds())


def _state(task: TaskSummary) -> str:
    state = str(task.status)
    if task.unreachable:
        state += " (node offline)"
    if task.kill_requested and task.status not in FINAL:
        state += " (kill asked)"
    return state


def _command(task: TaskSummary) -> str:
    if task.task_type == "vps":
        return "(VPS)"
    return shlex.join([task.command, *task.arguments]).replace("\n", "\\n")


def _cores(task: TaskDetail) -> str:
    if task.exclusive:
        return f"{task.required_cores} or more: all of the node's"
    own = as_list(task.assigned_cores)
    return f"{task.required_cores} ({own})" if own else str(task.required_cores)


def _gpus(task: TaskSummary) -> str:
    """Such as `2 (0,1)`: how many, and the numbers of those that it was given."""
    numbers = ",".join(str(gpu.gpu_id) for gpu in task.assigned_gpus if gpu.gpu_id >= 0)
    return f"{task.gpus} ({numbers})" if numbers else str(task.gpus)


def _why(task: TaskSummary) -> str:
    return task.reason or task.error_message or ""


TASKS: View[TaskSummary] = View(
    name=lambda task: str(task.task_id),
    columns=[
        Column("TASK ID", lambda task: str(task.task_id)),
        Column("NAME", lambda task: task.name or "", limit=20),
        Column("STATE", _state, style=_state_style),
        Column("OWNER", lambda task: task.owner),
        Column("NODE", lambda task: task.assigned_node or ""),
        Column("CORES", lambda task: str(task.required_cores), right=True),
        Column("RAN", _ran, right=True),
        Column("EXIT", lambda task: number(task.exit_code), right=True),
        Column("COMMAND", _command, limit=_COMMAND_WIDTH),
        Column("MEMORY", lambda task: size(task.required_memory_bytes), wide=True, right=True),
        Column("GPUS", _gpus, wide=True, right=True),
        Column("CPU", used.cpu, wide=True, right=True),
        Column("PEAK", used.peak_memory, wide=True, right=True),
        Column("GPU USE", used.gpu_use, wide=True, right=True),
        Column("BATCH", lambda task: str(task.batch_id), wide=True),
        Column("INDEX", lambda task: str(task.index), wide=True, right=True),
        Column("ATTEMPT", lambda task: str(task.attempt), wide=True, right=True),
        Column("ENVIRONMENT", lambda task: task.container_name or "", wide=True),
        Column("TARGET", lambda task: task.target or "", wide=True),
        Column("SUBMITTED", lambda task: time(task.submitted_at), wide=True),
        Column("ENDED", lambda task: time(task.completed_at), wide=True),
        Column("REASON", _why, wide=True),
    ],
)

USAGE: View[TaskSummary] = View(
    name=TASKS.name,
    columns=[
        Column("TASK ID", lambda task: str(task.task_id)),
        Column("NAME", lambda task: task.name or "", limit=20),
        Column("STATE", _state, style=_state_style),
        Column("RAN", _ran, right=True),
        Column("CORES", lambda task: str(task.required_cores), right=True),
        Column("CPU", used.cpu, right=True),
        Column("MEMORY", lambda task: size(task.required_memory_bytes), right=True),
        Column("PEAK", used.peak_memory, right=True),
        Column("GPUS", _gpus, right=True),
        Column("GPU USE", used.gpu_use, right=True),
        Column("GPU PEAK", used.gpu_memory, right=True),
        Column("ENERGY", used.energy, right=True),
        Column("COMMAND", _command, limit=_COMMAND_WIDTH),
        Column("OWNER", lambda task: task.owner, wide=True),
        Column("NODE", lambda task: task.assigned_node or "", wide=True),
        Column("STARTED", lambda task: time(task.started_at), wide=True),
        Column("ENDED", lambda task: time(task.completed_at), wide=True),
    ],
)
"""What was asked for, and what was used of it."""


def _history(task: TaskDetail) -> str:
    return "\n".join(
        f"{time(event.time)}  attempt {event.attempt}  {event.state}"
        + (f" on {event.node}" if event.node else "")
        + (f": {event.cause}" if event.cause else "")
        for event in task.history
    )


VPS: View[VpsSummary] = View(
    name=lambda vps: str(vps.task_id),
    columns=[
        Column("VPS ID", lambda vps: str(vps.task_id)),
        Column("NAME", lambda vps: vps.name or ""),
        Column("STATE", _state, style=_state_style),
        Column("OWNER", lambda vps: vps.owner),
        Column("NODE", lambda vps: vps.assigned_node or ""),
        Column("ENVIRONMENT", lambda vps: vps.container_name or ""),
        Column("CORES", lambda vps: str(vps.required_cores), right=True),
        Column("MEMORY", lambda vps: size(vps.required_memory_bytes), right=True),
        Column("GPUS", _gpus, wide=True, right=True),
        Column("RAN", _ran, right=True),
        Column("CPU", used.cpu, wide=True, right=True),
        Column("PEAK", used.peak_memory, wide=True, right=True),
        Column("GPU USE", used.gpu_use, wide=True, right=True),
        Column("WHY", _why, limit=_REASON_WIDTH),
        Column("ENDS", lambda vps: time(vps.ends_at), wide=True),
        Column("SHARED WITH", lambda vps: ", ".join(vps.shared_with), wide=True),
        Column("HOST KEY", lambda vps: vps.host_key, wide=True),
    ],
)

TASK: View[TaskDetail] = View(
    name=lambda task: str(task.task_id),
    columns=[
        Column("TASK ID", lambda task: str(task.task_id)),
        Column("NAME", lambda task: task.name or "", wide=True),
        Column("STATE", _state, style=_state_style),
        Column("REASON", lambda task: task.reason, wide=True),
        Column("ERROR", lambda task: task.error_message or "", wide=True),
        Column("EXIT CODE", lambda task: number(task.exit_code)),
        Column("NODE", lambda task: task.assigned_node or ""),
        Column("TARGET", lambda task: task.target or "", wide=True),
        Column("OWNER", lambda task: task.owner),
        Column("COMMAND", _command),
        Column("ENVIRONMENT", lambda task: task.container_name or ""),
        Column("CORES", _cores),
        Column("MEMORY", lambda task: size(task.required_memory_bytes)),
        Column("GPUS", _gpus),
        Column("NODE LABELS", lambda task: ", ".join(task.node_labels), wide=True),
        Column("PREEMPTIBLE", lambda task: "yes" if task.preemptible else "no", wide=True),
        Column("CPU USED", used.cpu_line, wide=True),
        Column("MEMORY USED", used.memory_line, wide=True),
        Column("GPUS USED", used.gpu_line, wide=True),
        Column("ATTEMPT", lambda task: str(task.attempt)),
        Column("RETRIES", lambda task: str(task.max_retries)),
        Column("RETRIED ON", lambda task: ", ".join(map(str, task.retry_on)), wide=True),
        Column("PRIORITY", lambda task: str(task.priority)),
        Column("HELD", lambda task: "yes" if task.held else "no", wide=True),
        Column("NOT BEFORE", lambda task: time(task.not_before), wide=True),
        Column("AFTER", lambda task: "\n".join(task.after), wide=True),
        Column("SUBMITTED", lambda task: time(task.submitted_at)),
        Column("STARTED", lambda task: time(task.started_at)),
        Column("ENDED", lambda task: time(task.completed_at)),
        Column("RAN", _ran),
        Column("BATCH", lambda task: str(task.batch_id)),
        Column("INDEX", lambda task: str(task.index)),
        Column("SWEEP VALUES", lambda task: "\n".join(task.sweep_values), wide=True),
        Column("VARIABLES", lambda task: "\n".join(f"{k}={v}" for k, v in task.env_vars.items()), wide=True),
        Column("MOUNTS", lambda task: "\n".join(task.additional_mounts), wide=True),
        Column("WORKING DIRECTORY", lambda task: task.working_dir or "", wide=True),
        Column("USER", lambda task: task.user or "", wide=True),
        Column(
            "IDLE STOP",
            lambda task: format_duration(task.idle_stop_seconds) if task.idle_stop_seconds else "",
            wide=True,
        ),
        Column(
            "TIME LIMIT",
            lambda task: format_duration(task.time_limit_seconds) if task.time_limit_seconds else "",
            wide=True,
        ),
        Column("IMAGE", lambda task: task.image or "", wide=True),
        Column("UNIT", lambda task: task.systemd_unit_name or "", wide=True),
        Column("STDOUT", lambda task: task.stdout_path),
        Column("STDERR", lambda task: task.stderr_path),
        Column("HISTORY", _history),
    ],
)

QUEUE: View[QueuedTask] = View(
    name=lambda task: str(task.task_id),
    columns=[
        Column("PLACE", lambda task: number(task.position), right=True),
        Column("TASK ID", lambda task: str(task.task_id)),
        Column("NAME", lambda task: task.name or "", limit=20),
        Column("OWNER", lambda task: task.owner),
        Column("PRIORITY", lambda task: str(task.priority), right=True),
        Column("CORES", lambda task: str(task.required_cores), right=True),
        Column("MEMORY", lambda task: size(task.required_memory_bytes), right=True),
        Column("GPUS", lambda task: str(task.gpus), right=True),
        Column("EXPECTED", lambda task: time(task.expected_start)),
        Column("SUBMITTED", lambda task: time(task.submitted_at), wide=True),
        Column("TARGET", lambda task: task.target or "", wide=True),
        Column("COMMAND", _command, limit=_COMMAND_WIDTH, wide=True),
        Column("WHY", _why, limit=_REASON_WIDTH),
    ],
)

ENDED: View[TaskEvent] = View(
    name=lambda event: str(event.task_id),
    columns=[
        Column("TASK ID", lambda event: str(event.task_id)),
        Column("STATE", lambda event: str(event.state), style=_state_style),
        Column("EXIT", lambda event: number(event.exit_code), right=True),
        Column("NODE", lambda event: event.node or ""),
        Column("ENDED", lambda event: time(event.time)),
        Column("CAUSE", lambda event: event.cause, limit=_REASON_WIDTH),
    ],
)

DONE: View[Done] = View(
    name=lambda done: str(done.task_id),
    columns=[
        Column("TASK ID", lambda done: str(done.task_id)),
        Column("RESULT", lambda done: done.message),
    ],
)

EXPLANATION: View[TaskExplanation] = View(
    name=lambda told: str(told.task_id),
    columns=[
        Column("TASK ID", lambda told: str(told.task_id)),
        Column("STATE", lambda told: str(told.status), style=lambda told: _STYLES[told.status]),
        Column("SUMMARY", lambda told: told.summary),
        Column("IN LINE", lambda told: number(told.queue_position)),
        Column("EXPECTED", lambda told: time(told.expected_start)),
    ],
)
VERDICTS: View[NodeVerdict] = View(
    name=lambda verdict: verdict.node,
    columns=[
        Column("NODE", lambda verdict: verdict.node),
        Column("FITS NOW", lambda verdict: "yes" if verdict.fits_now else "no"),
        Column("CAN EVER FIT", lambda verdict: "yes" if verdict.can_ever_fit else "no"),
        Column("REASON", lambda verdict: verdict.reason),
    ],
)
