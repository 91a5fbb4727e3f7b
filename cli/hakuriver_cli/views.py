"""What the lists of commands show: a view for each kind of thing."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime

from pydantic import BaseModel

from hakuriver.models.access import TokenCreated, TokenInfo, UserInfo, WhoAmI
from hakuriver.models.base import TaskId
from hakuriver.models.nodes import ClusterStatus, NodeInfo, NodeSample
from hakuriver.models.tasks import (
    NodeVerdict,
    SubmitResponse,
    TaskDetail,
    TaskEvent,
    TaskExplanation,
    TaskSummary,
)
from hakuriver.sizes import format_duration, format_size
from hakuriver.states import FINAL, NodeState, TaskState
from hakuriver_cli.output import NOTHING, Column, View

_STYLES = {
    TaskState.PENDING: "yellow",
    TaskState.ASSIGNING: "cyan",
    TaskState.RUNNING: "cyan",
    TaskState.PAUSED: "magenta",
    TaskState.COMPLETED: "green",
    TaskState.FAILED: "red",
    TaskState.KILLED: "red",
    TaskState.KILLED_OOM: "red",
    TaskState.LOST: "red",
}
_COMMAND_WIDTH = 50
_REASON_WIDTH = 60


class Done(BaseModel):
    """What became of one task that a command acted on."""

    task_id: TaskId
    message: str


class Told(BaseModel):
    """What became of one named thing that a command acted on."""

    name: str
    message: str


class EnvironmentRow(BaseModel):
    """One version of an environment, as the list shows it."""

    name: str
    timestamp: int
    tarball: str
    latest: bool


class VersionRow(BaseModel):
    client: str
    host: str | None
    url: str


def _state_style(task: TaskSummary | TaskEvent) -> str:
    return _STYLES[task.status if isinstance(task, TaskSummary) else task.state]


def _number(value: object) -> str:
    return NOTHING if value is None else str(value)


def _time(moment: datetime | None) -> str:
    """Local time, to the second."""
    return NOTHING if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _size(value: int | None) -> str:
    return NOTHING if value is None else format_size(value)


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
    return shlex.join([task.command, *task.arguments]).replace("\n", "\\n")


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
        Column("EXIT", lambda task: _number(task.exit_code), right=True),
        Column("COMMAND", _command, limit=_COMMAND_WIDTH),
        Column("MEMORY", lambda task: _size(task.required_memory_bytes), wide=True, right=True),
        Column("BATCH", lambda task: str(task.batch_id), wide=True),
        Column("ATTEMPT", lambda task: str(task.attempt), wide=True, right=True),
        Column("ENVIRONMENT", lambda task: task.container_name or "", wide=True),
        Column("TARGET", lambda task: task.target or "", wide=True),
        Column("SUBMITTED", lambda task: _time(task.submitted_at), wide=True),
        Column("ENDED", lambda task: _time(task.completed_at), wide=True),
        Column("REASON", _why, wide=True),
    ],
)


def _history(task: TaskDetail) -> str:
    return "\n".join(
        f"{_time(event.time)}  attempt {event.attempt}  {event.state}"
        + (f" on {event.node}" if event.node else "")
        + (f": {event.cause}" if event.cause else "")
        for event in task.history
    )


TASK: View[TaskDetail] = View(
    name=lambda task: str(task.task_id),
    columns=[
        Column("TASK ID", lambda task: str(task.task_id)),
        Column("NAME", lambda task: task.name or "", wide=True),
        Column("STATE", _state, style=_state_style),
        Column("REASON", lambda task: task.reason, wide=True),
        Column("ERROR", lambda task: task.error_message or "", wide=True),
        Column("EXIT CODE", lambda task: _number(task.exit_code)),
        Column("NODE", lambda task: task.assigned_node or ""),
        Column("TARGET", lambda task: task.target or "", wide=True),
        Column("OWNER", lambda task: task.owner),
        Column("COMMAND", _command),
        Column("ENVIRONMENT", lambda task: task.container_name or ""),
        Column("CORES", lambda task: str(task.required_cores)),
        Column("MEMORY", lambda task: _size(task.required_memory_bytes)),
        Column("ATTEMPT", lambda task: str(task.attempt)),
        Column("RETRIES", lambda task: str(task.max_retries)),
        Column("SUBMITTED", lambda task: _time(task.submitted_at)),
        Column("STARTED", lambda task: _time(task.started_at)),
        Column("ENDED", lambda task: _time(task.completed_at)),
        Column("RAN", _ran),
        Column("BATCH", lambda task: str(task.batch_id)),
        Column("VARIABLES", lambda task: "\n".join(f"{k}={v}" for k, v in task.env_vars.items()), wide=True),
        Column("MOUNTS", lambda task: "\n".join(task.additional_mounts), wide=True),
        Column("WORKING DIRECTORY", lambda task: task.working_dir or "", wide=True),
        Column("USER", lambda task: task.user or "", wide=True),
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

ENDED: View[TaskEvent] = View(
    name=lambda event: str(event.task_id),
    columns=[
        Column("TASK ID", lambda event: str(event.task_id)),
        Column("STATE", lambda event: str(event.state), style=_state_style),
        Column("EXIT", lambda event: _number(event.exit_code), right=True),
        Column("NODE", lambda event: event.node or ""),
        Column("ENDED", lambda event: _time(event.time)),
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

SUBMITTED: View[SubmitResponse] = View(
    name=lambda made: "\n".join(str(task_id) for task_id in made.task_ids),
    columns=[
        Column("BATCH", lambda made: str(made.batch_id)),
        Column("TASK IDS", lambda made: "\n".join(str(task_id) for task_id in made.task_ids)),
        Column("RESULT", lambda made: made.message),
        Column("NODE", lambda made: made.assigned_node.hostname if made.assigned_node else "", wide=True),
        Column(
            "REFUSED",
            lambda made: "\n".join(f"{refused.target}: {refused.reason}" for refused in made.failed_targets),
            wide=True,
        ),
    ],
)

EXPLANATION: View[TaskExplanation] = View(
    name=lambda told: str(told.task_id),
    columns=[
        Column("TASK ID", lambda told: str(told.task_id)),
        Column("STATE", lambda told: str(told.status), style=lambda told: _STYLES[told.status]),
        Column("SUMMARY", lambda told: told.summary),
        Column("IN LINE", lambda told: _number(told.queue_position)),
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


def _node_style(node: NodeInfo) -> str:
    if node.status is NodeState.OFFLINE:
        return "red"
    return "yellow" if node.problem or not node.schedulable else "green"


def _node_state(node: NodeInfo) -> str:
    return str(node.status) if node.schedulable else f"{node.status} (gets no work)"


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0f}%"


def _degrees(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0f}°C"


NODES: View[NodeInfo] = View(
    name=lambda node: node.hostname,
    columns=[
        Column("NODE", lambda node: node.hostname),
        Column("STATE", _node_state, style=_node_style),
        Column("CORES", lambda node: f"{node.cores_in_use}/{node.total_cores}", right=True),
        Column(
            "MEMORY",
            lambda node: f"{format_size(node.memory_in_use_bytes)}/{format_size(node.total_memory_bytes)}",
            right=True,
        ),
        Column("TASKS", lambda node: str(node.running_tasks), right=True),
        Column("GPUS", lambda node: str(len(node.gpu_info)), right=True),
        Column("CPU", lambda node: _percent(node.cpu_percent), right=True),
        Column("RAM", lambda node: _percent(node.memory_percent), right=True),
        Column("PROBLEM", lambda node: node.problem, limit=_REASON_WIDTH),
        Column("URL", lambda node: node.url, wide=True),
        Column("VERSION", lambda node: node.version, wide=True),
        Column("ENGINES", lambda node: ",".join(node.engines), wide=True),
        Column("NUMA", lambda node: str(len(node.numa_topology or {})), wide=True, right=True),
        Column("TEMPERATURE", lambda node: _degrees(node.current_max_temp), wide=True, right=True),
        Column("LAST HEARTBEAT", lambda node: _time(node.last_heartbeat), wide=True),
    ],
)

SAMPLES: View[NodeSample] = View(
    name=lambda sample: sample.hostname,
    columns=[
        Column("NODE", lambda sample: sample.hostname),
        Column("STATE", lambda sample: str(sample.status)),
        Column("CPU", lambda sample: _percent(sample.cpu_percent), right=True),
        Column("RAM", lambda sample: _percent(sample.memory_percent), right=True),
        Column("USED", lambda sample: _size(sample.memory_used_bytes), right=True),
        Column("OF", lambda sample: _size(sample.memory_total_bytes), right=True),
        Column("TEMPERATURE", lambda sample: _degrees(sample.current_max_temp), right=True),
        Column("GPUS", lambda sample: str(len(sample.gpu_info)), right=True),
        Column("AT", lambda sample: _time(sample.time)),
    ],
)

CLUSTER: View[ClusterStatus] = View(
    name=lambda cluster: cluster.version,
    columns=[
        Column("HOST VERSION", lambda cluster: cluster.version),
        Column("NODES", lambda cluster: f"{cluster.nodes_online} online of {cluster.nodes_total}"),
        Column("CORES", lambda cluster: f"{cluster.cores_in_use} of {cluster.cores_total} held"),
        Column(
            "MEMORY",
            lambda cluster: (
                f"{format_size(cluster.memory_in_use_bytes)} of"
                f" {format_size(cluster.memory_total_bytes)} held"
            ),
        ),
        Column(
            "TASKS",
            lambda cluster: (
                ", ".join(f"{count} {state}" for state, count in cluster.tasks.items() if count)
                or "none in the last 24 hours"
            ),
        ),
        Column(
            "ENVIRONMENT",
            lambda cluster: (
                cluster.default_environment
                + (" (ready)" if cluster.default_environment_ready else " (not there yet)")
            ),
        ),
        Column("PROBLEMS", lambda cluster: "\n".join(cluster.problems), wide=True, style=lambda _: "red"),
    ],
)

ENVIRONMENTS: View[EnvironmentRow] = View(
    name=lambda row: row.name,
    columns=[
        Column("ENVIRONMENT", lambda row: row.name),
        Column("VERSION", lambda row: str(row.timestamp)),
        Column("MADE", lambda row: _time(datetime.fromtimestamp(row.timestamp, UTC))),
        Column("NEWEST", lambda row: "yes" if row.latest else ""),
        Column("ARCHIVE", lambda row: row.tarball),
    ],
)

USERS: View[UserInfo] = View(
    name=lambda user: user.name,
    columns=[
        Column("USER", lambda user: user.name),
        Column("ROLE", lambda user: str(user.role)),
        Column("UID", lambda user: _number(user.uid), right=True),
        Column("GID", lambda user: _number(user.gid), right=True),
        Column("SINCE", lambda user: _time(user.created_at)),
    ],
)

TOKENS: View[TokenInfo] = View(
    name=lambda token: token.token_id,
    columns=[
        Column("TOKEN ID", lambda token: token.token_id),
        Column("KIND", lambda token: token.kind),
        Column("OF", lambda token: token.user or token.node or ""),
        Column("LABEL", lambda token: token.label),
        Column("MADE", lambda token: _time(token.created_at)),
        Column("EXPIRES", lambda token: _time(token.expires_at) if token.expires_at else "never"),
    ],
)

NEW_TOKEN: View[TokenCreated] = View(
    name=lambda token: token.token,
    columns=[
        Column("TOKEN", lambda token: token.token),
        Column("TOKEN ID", lambda token: token.token_id),
        Column("KIND", lambda token: token.kind),
        Column("OF", lambda token: token.user or ""),
        Column("EXPIRES", lambda token: _time(token.expires_at) if token.expires_at else "never"),
    ],
)

TOLD: View[Told] = View(
    name=lambda told: told.name,
    columns=[Column("NAME", lambda told: told.name), Column("RESULT", lambda told: told.message)],
)

WHOAMI: View[WhoAmI] = View(
    name=lambda who: who.name,
    columns=[Column("USER", lambda who: who.name), Column("ROLE", lambda who: str(who.role))],
)

VERSION: View[VersionRow] = View(
    name=lambda row: row.client,
    columns=[
        Column("CLIENT", lambda row: row.client),
        Column("HOST", lambda row: row.host or "not reached"),
        Column("URL", lambda row: row.url),
    ],
)
