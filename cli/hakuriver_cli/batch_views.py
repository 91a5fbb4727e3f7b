"""What lists of batches show, lists of tasks in which a batch is one line, and one batch in full."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hakuriver.sizes import format_duration
from hakuriver.states import TaskState
from hakuriver_cli.cells import number, time
from hakuriver_cli.output import NOTHING, Column, View
from hakuriver_cli.task_views import TASKS

if TYPE_CHECKING:
    from hakuriver.models.batches import BatchDetail, BatchSummary
    from hakuriver.models.submission import SubmitResponse
    from hakuriver.models.tasks import TaskSummary
    from hakuriver_cli.records import BatchDone


_COMMAND_WIDTH = 50


def states(batch: BatchSummary) -> str:
    """Such as `85 pending, 3 running, 12 completed`, in the order in which a task goes through them."""
    counts = batch.counts
    return ", ".join(f"{counts[state]} {state}" for state in TaskState if counts.get(state))


def failure(task: TaskSummary) -> str:
    """How a task of a batch ended that did not complete, in a line."""
    code = "" if task.exit_code is None else f" with exit code {task.exit_code}"
    why = f": {task.error_message}" if task.error_message else ""
    return f"task {task.task_id} (index {task.index}) {task.status}{code}{why}"


def _progress(batch: BatchSummary) -> str:
    return f"{batch.ended} of {batch.total}"


def _ran(batch: BatchSummary) -> str:
    if batch.started_at is None:
        return NOTHING
    end = batch.completed_at or datetime.now(UTC)
    return format_duration((end - batch.started_at).total_seconds())


def _command(batch: BatchSummary) -> str:
    if batch.task_type == "vps":
        return "(VPS)"
    return shlex.join([batch.command, *batch.arguments]).replace("\n", "\\n")


def _style(batch: BatchSummary) -> str:
    if batch.ended == batch.total:
        return "green" if set(batch.counts) <= {TaskState.COMPLETED} else "red"
    return "yellow" if set(batch.counts) <= {TaskState.PENDING} else "cyan"


BATCHES: View[BatchSummary] = View(
    name=lambda batch: str(batch.batch_id),
    columns=[
        Column("BATCH ID", lambda batch: str(batch.batch_id)),
        Column("NAME", lambda batch: batch.name or "", limit=20),
        Column("OWNER", lambda batch: batch.owner),
        Column("ENDED", _progress, right=True),
        Column("TASKS", states, style=_style),
        Column("SUBMITTED", lambda batch: time(batch.submitted_at)),
        Column("COMMAND", _command, limit=_COMMAND_WIDTH),
        Column("MAX RUNNING", lambda batch: number(batch.max_running), wide=True, right=True),
        Column("CORES", lambda batch: str(batch.required_cores), wide=True, right=True),
        Column("ENVIRONMENT", lambda batch: batch.container_name or "", wide=True),
        Column("STARTED", lambda batch: time(batch.started_at), wide=True),
        Column("RAN", _ran, wide=True, right=True),
    ],
)

BATCH: View[BatchDetail] = View(
    name=lambda batch: str(batch.batch_id),
    columns=[
        Column("BATCH ID", lambda batch: str(batch.batch_id)),
        Column("NAME", lambda batch: batch.name or "", wide=True),
        Column("OWNER", lambda batch: batch.owner),
        Column("ENDED", _progress),
        Column("TASKS", states, style=_style),
        Column("COMMAND", _command),
        Column("SWEEP", lambda batch: "yes" if batch.sweep else "no"),
        Column("MAX RUNNING", lambda batch: number(batch.max_running)),
        Column("ENVIRONMENT", lambda batch: batch.container_name or ""),
        Column("CORES", lambda batch: str(batch.required_cores)),
        Column("SUBMITTED", lambda batch: time(batch.submitted_at)),
        Column("STARTED", lambda batch: time(batch.started_at)),
        Column("COMPLETED", lambda batch: time(batch.completed_at)),
        Column("RAN", _ran),
        Column(
            "VARIABLES", lambda batch: "\n".join(f"{k}={v}" for k, v in batch.env_vars.items()), wide=True
        ),
        Column("FAILURES", lambda batch: "\n".join(map(failure, batch.failures)), wide=True),
    ],
)

DONE: View[BatchDone] = View(
    name=lambda done: str(done.batch_id),
    columns=[
        Column("BATCH ID", lambda done: str(done.batch_id)),
        Column("RESULT", lambda done: done.message),
    ],
)

SUBMITTED: View[SubmitResponse] = View(
    name=lambda made: str(made.batch_id),
    columns=[
        Column("BATCH ID", lambda made: str(made.batch_id)),
        Column("TASKS", lambda made: str(len(made.task_ids))),
        Column("RESULT", lambda made: made.message),
    ],
)

_OF_BATCH: Mapping[str, Callable[[BatchSummary], str]] = {
    "TASK ID": lambda batch: str(batch.batch_id),
    "NAME": lambda batch: batch.name or "",
    "STATE": states,
    "OWNER": lambda batch: batch.owner,
    "CORES": lambda batch: str(batch.required_cores),
    "RAN": _ran,
    "COMMAND": _command,
    "BATCH": lambda batch: str(batch.batch_id),
    "ENVIRONMENT": lambda batch: batch.container_name or "",
    "SUBMITTED": lambda batch: time(batch.submitted_at),
    "ENDED": lambda batch: time(batch.completed_at),
}
"""What the columns of tasks show of a batch."""


def _line(column: Column[TaskSummary]) -> Column[BatchSummary]:
    of_batch = _OF_BATCH.get(column.title)
    state = column.title == "STATE"

    def text(batch: BatchSummary) -> str:
        if batch.task:
            return column.text(batch.task)
        return of_batch(batch) if of_batch else ""

    def style(batch: BatchSummary) -> str:
        if batch.task:
            return column.style(batch.task) if column.style else ""
        return _style(batch) if state else ""

    return Column(column.title, text, column.wide, column.right, style, column.limit)


LINES: View[BatchSummary] = View(
    name=lambda batch: str(batch.task.task_id if batch.task else batch.batch_id),
    columns=[_line(column) for column in TASKS.columns],
)
"""A list of tasks, in which those of a batch of several are one line."""
