"""What commands share that submit tasks or VPS: how their options are named, and what is said of what came of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from hakuriver.errors import ConflictError, UsageError
from hakuriver_cli.errors import report
from hakuriver_cli.options import Size
from hakuriver_cli.output import Column, Printer, View
from hakuriver_cli.session import Session

if TYPE_CHECKING:
    from hakuriver.models.submission import SubmitResponse

PLACE = Group("Where and how much", sort_key=1)
CONTAINER = Group("Environment and container", sort_key=3)

FLAGS = {
    "command": "the command",
    "arguments": "argument",
    "env_vars": "--env",
    "required_cores": "--cores",
    "required_memory_bytes": "--memory",
    "gpus": "--gpus",
    "gpu_model": "--gpu-model",
    "gpu_memory_bytes": "--gpu-memory",
    "targets": "--target",
    "not_nodes": "--not-node",
    "node_labels": "--node-label",
    "share_gpus": "--share-gpus",
    "count": "--count",
    "max_running": "--max-running",
    "name": "--name",
    "container_name": "--container",
    "additional_mounts": "--mount",
    "working_dir": "--workdir",
    "user": "--user",
    "network": "--network",
    "shm_size_bytes": "--shm-size",
    "time_limit_seconds": "--time-limit",
    "max_retries": "--retries",
    "retry_on": "--retry-on",
    "retry_delay_seconds": "--retry-delay",
    "priority": "--priority",
    "not_before": "--not-before",
    "after": "--after",
}
_ENV_HINT = "write KEY=VALUE, such as --env SEED=7"


@Parameter(name="*")
@dataclass(frozen=True)
class GpuOptions:
    """What is asked of GPUs that the target does not name."""

    gpus: Annotated[int, Parameter(group=PLACE, help="GPUs to hold for each, whichever fit.")] = 0
    gpu_model: Annotated[
        str | None,
        Parameter(
            group=PLACE, metavar="TEXT", help="A part of the model's name that they must have, such as A100."
        ),
    ] = None
    gpu_memory: Annotated[
        Size, Parameter(group=PLACE, help="Memory that each of them must have, such as 40G.")
    ] = None
    share_gpus: Annotated[
        bool,
        Parameter(group=PLACE, help="Let other tasks that share have its GPUs, too, on nodes that allow it."),
    ] = False

    def fields(self) -> dict[str, Any]:
        return {
            "gpus": self.gpus,
            "gpu_model": self.gpu_model,
            "gpu_memory_bytes": self.gpu_memory,
            "share_gpus": self.share_gpus,
        }


NO_GPUS = GpuOptions()

WantedLabels = Annotated[
    tuple[str, ...],
    Parameter(
        group=PLACE,
        metavar="KEY[=VALUE]",
        help="What label its node must have: KEY=VALUE, KEY!=VALUE or KEY; repeatable, and all must hold.",
    ),
]

Memory = Annotated[Size, Parameter(group=PLACE, help="Memory to hold, and the limit, such as 4G or 512Mi.")]
HoldForNode = Annotated[
    bool, Parameter(group=PLACE, help="Queue it even if no node that is known now can ever run it.")
]
Privileged = Annotated[
    bool | None,
    Parameter(group=CONTAINER, negative_bool="no-", help="Run privileged, where the node allows it."),
]
Mounts = Annotated[
    tuple[str, ...],
    Parameter(
        group=CONTAINER,
        metavar="HOST:CONTAINER[:ro]",
        help="A folder under a root that the node allows; repeatable, and replaces the configured ones.",
    ),
]
NetworkName = Annotated[
    Literal["host", "bridge", "none"] | None,
    Parameter(group=CONTAINER, help="Network of the container. Default: the node's."),
]
ShmSize = Annotated[Size, Parameter(group=CONTAINER, help="Size of /dev/shm, such as 2G.")]

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


def report_made(session: Session, made: SubmitResponse) -> int:
    """Says what a submission led to; the exit code is not 0 when targets were refused."""
    code = report_refused(session.printer, made)
    if session.printer.err.isatty():
        session.printer.say(made.message)
    return code


def report_refused(printer: Printer, made: SubmitResponse) -> int:
    """Says which targets got no task; gives the exit code for that."""
    for failed in made.failed_targets:
        hint = "the other targets have their tasks; see `hakuriver node list`"
        report(ConflictError(f"{failed.target}: {failed.reason}", hint), printer.err)
    return ConflictError.exit_code if made.failed_targets else 0


def variables(texts: Iterable[str], files: Iterable[Path] = ()) -> dict[str, str]:
    """The variables of files and, before them, of `KEY=VALUE` texts."""
    found: dict[str, str] = {}
    for path in files:
        for number, line in enumerate(_lines(path), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                found.update([_variable(line, f"line {number} of {path}")])
    found.update(_variable(text, f"--env {text!r}") for text in texts)
    return found


def _variable(text: str, where: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"{where} is not a variable", _ENV_HINT)
    return name, value


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise UsageError(f"cannot read {path}: {reason}", "give a file of KEY=VALUE lines") from None
