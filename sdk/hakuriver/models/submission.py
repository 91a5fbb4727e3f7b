"""What is submitted: a request for tasks, and what the Host answers."""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from hakuriver.dependencies import parse_dependency
from hakuriver.labels import MAX_LABELS, parse_selector
from hakuriver.models.base import PeerModel, StrictModel, TaskId, Timestamp
from hakuriver.mounts import check_mount
from hakuriver.references import parse_reference
from hakuriver.sizes import MAX_BYTES, MAX_SECONDS
from hakuriver.targets import NODE_NAME, parse_target

MAX_ARGUMENT_BYTES = 131_071
"""The kernel's own limit on one argument or environment variable (MAX_ARG_STRLEN, less the final NUL)."""
MAX_ARGV_BYTES = 1_500_000
"""All arguments and variables together; the kernel allows about 2 MB by default (a quarter of the stack limit)."""
MAX_COUNT = 100_000
"""Tasks in one submission."""
MAX_CORES = 100_000
MAX_GPUS = 1_000
MAX_PRIORITY = 1_000
FIRST_YEAR, LAST_YEAR = 1980, 2200
MAX_AFTER = 1_000
"""Tasks that one may wait for."""
MAX_RETRY_DELAY = 3_600
"""Seconds: the longest pause before another attempt, however often it was doubled."""
OWN_KEYS = "-"
"""The command of a VPS that only its owner's registered keys open."""

NO_CONTAINER = "NULL"
"""The `--container` that means the process engine."""

RESERVED_VARIABLES = frozenset(
    {
        "HAKURIVER_TASK_ID",
        "HAKURIVER_ATTEMPT",
        "HAKURIVER_BATCH_ID",
        "HAKURIVER_TASK_INDEX",
        "HAKURIVER_SWEEP_INDEX",
        "HAKURIVER_SWEEP_COUNT",
        "HAKURIVER_NODE",
        "HAKURIVER_LOCAL_TEMP_DIR",
        "HAKURIVER_SHARED_DIR",
        "HAKURIVER_TARGET_NUMA_NODE",
        "HAKURIVER_GPUS",
        "NVIDIA_VISIBLE_DEVICES",
    }
)
"""What the Runner tells every task; a submission cannot set them."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_USER = re.compile(r"[0-9]{1,10}(:[0-9]{1,10})?")


def check_argument(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL byte")
    if len(text.encode("utf-8", "surrogateescape")) > MAX_ARGUMENT_BYTES:
        raise ValueError(
            f"is longer than the kernel's limit of {MAX_ARGUMENT_BYTES} bytes; pass a file under /shared instead"
        )
    return text


def _check_variables(variables: dict[str, str]) -> dict[str, str]:
    for name, value in variables.items():
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"{name!r} is not an environment variable's name")
        check_argument(value)
    return variables


def _check_target(text: str) -> str:
    return str(parse_target(text))


def _check_node(text: str) -> str:
    if not NODE_NAME.fullmatch(text):
        raise ValueError(f"{text!r} is not a node's name")
    return text


def _check_selector(text: str) -> str:
    return str(parse_selector(text))


def _check_container(name: str) -> str:
    if name != NO_CONTAINER:
        parse_reference(name)
    return name


def _check_user(text: str) -> str:
    if not _USER.fullmatch(text):
        raise ValueError(f"{text!r} is not UID or UID:GID in numbers")
    return text


def _check_working_dir(text: str) -> str:
    if not text.startswith("/") or "\0" in text:
        raise ValueError(f"{text!r} is not an absolute path")
    return text


Argument = Annotated[str, AfterValidator(check_argument)]
EnvVars = Annotated[dict[str, str], AfterValidator(_check_variables)]
MountText = Annotated[str, AfterValidator(check_mount)]
NodeText = Annotated[str, AfterValidator(_check_node)]
SelectorText = Annotated[str, AfterValidator(_check_selector)]
TargetText = Annotated[str, AfterValidator(_check_target)]
EnvironmentName = Annotated[str, AfterValidator(_check_container)]
Network = Literal["host", "bridge", "none"]


def _check_dependency(text: str) -> str:
    return str(parse_dependency(text))


def _check_moment(moment: datetime) -> datetime:
    """Within what calendars, clocks and databases can all hold, in every time zone."""
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise ValueError(f"must be between the years {FIRST_YEAR} and {LAST_YEAR}")
    return moment


DependencyText = Annotated[str, AfterValidator(_check_dependency)]
MAX_EXIT_CODE = 255
ExitCode = Annotated[int, Field(ge=1, le=MAX_EXIT_CODE)]


class RetryCause(StrEnum):
    FAILED = "failed"
    OOM = "oom"
    LOST = "lost"


def _check_cause(value: object) -> object:
    """Before it is read as one or the other, which would be told of twice."""
    code = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_EXIT_CODE
    if not (code or (isinstance(value, str) and value in set(RetryCause))):
        raise ValueError(f"must be 'failed', 'oom', 'lost' or an exit code from 1 to {MAX_EXIT_CODE}")
    return value


RetriedOn = Annotated[RetryCause | ExitCode, BeforeValidator(_check_cause)]
"""A cause, or an exit code of a task that failed."""


class SubmitRequest(StrictModel):
    """Asks for one task for each target, or for `count` tasks that the Host places itself."""

    task_type: Literal["command", "vps"] = "command"
    command: Annotated[Argument, StringConstraints(min_length=1)]
    """The program: the first element of argv. No shell reads it. Of a VPS: public keys that open it, one in each line,
    or `-` for those of its owner alone."""
    arguments: list[Argument] = []
    env_vars: EnvVars = {}
    required_cores: int = Field(default=1, ge=0, le=MAX_CORES)
    """Cores to hold, which are also the limit; at least 1 for a command."""
    required_memory_bytes: int | None = Field(default=None, ge=1, le=MAX_BYTES)
    """Memory to hold, which is also the limit; none holds none and sets no limit."""
    required_gpus: list[list[int]] = []
    """GPU numbers, one list for each target, as an alternative to `node::0,1` in the targets."""
    gpus: int = Field(default=0, ge=0, le=MAX_GPUS)
    """How many GPUs to hold, whichever of one node fit; for targets that name none."""
    gpu_model: Annotated[str, StringConstraints(min_length=1, max_length=96)] | None = None
    """A part of the model's name that the GPUs must have, whatever its case."""
    gpu_memory_bytes: int | None = Field(default=None, ge=1, le=MAX_BYTES)
    """Memory that each of the GPUs must have."""
    share_gpus: bool = False
    """Other tasks that share may have its GPUs too, on nodes that let them (`runner.tasks_per_gpu`)."""
    exclusive: bool = False
    """It has its node for itself, with all cores of it: `required_cores` is what the node must have."""
    preemptible: bool = False
    """It may be ended to make room for a task that is not, and waits for another attempt then."""
    targets: list[TargetText] = Field(default=[], max_length=MAX_COUNT)
    not_nodes: list[NodeText] = Field(default=[], max_length=1_000)
    """Nodes that are not to run it."""
    node_labels: list[SelectorText] = Field(default=[], max_length=MAX_LABELS)
    """`KEY=VALUE`, `KEY!=VALUE` or `KEY`: what labels the node must have that runs it, all of these."""
    count: int = Field(default=1, ge=1, le=MAX_COUNT)
    """How many tasks to make for each target (or without one); each sees its number in `HAKURIVER_TASK_INDEX`."""
    sweep: bool = False
    """The command, its arguments and values of its variables hold spans, such as `span:{1..10}`: makes one task for each
    combination of their values, which sees its number in `HAKURIVER_SWEEP_INDEX` too."""
    max_running: int | None = Field(default=None, ge=1, le=MAX_COUNT)
    """How many of its tasks may hold anything at the same time."""
    name: Annotated[str, StringConstraints(max_length=128, pattern=r"^[^\x00-\x1f]*$")] | None = None
    """What to call the batch in lists; for people only."""
    container_name: EnvironmentName | None = None
    """Environment: `NAME`, `NAME@VERSION` or `NAME:TAG`; none is the Host's default, `NULL` is no container."""
    privileged: bool | None = None
    additional_mounts: list[MountText] | None = None
    """`HOST:CONTAINER[:ro]`; replaces the configured ones."""
    working_dir: Annotated[str, AfterValidator(_check_working_dir)] | None = None
    user: Annotated[str, AfterValidator(_check_user)] | None = None
    """`UID[:GID]` to run as."""
    network: Network | None = None
    shm_size_bytes: int | None = Field(default=None, ge=1, le=MAX_BYTES)
    time_limit_seconds: int | None = Field(default=None, ge=1, le=MAX_SECONDS)
    """Time to run before the task is stopped and `failed`; pauses count."""
    idle_stop_seconds: int | None = Field(default=None, ge=1, le=MAX_SECONDS)
    """Of a VPS: it is stopped when for so long nobody was connected to it and it used next to no processor time, and no GPU."""
    restart: Literal["always", "never"] = "always"
    """Of a VPS that ends unasked, as when its machine restarts: started again with all that is in it, or `failed`."""
    max_retries: int = Field(default=0, ge=0, le=1_000)
    retry_on: tuple[RetriedOn, ...] = tuple(
        RetryCause
    )  # A default that can change is copied, deeply, for each request.
    """Causes, and exit codes of those that failed."""
    retry_delay_seconds: int = Field(default=0, ge=0, le=MAX_RETRY_DELAY)
    """Pause before the first further attempt; it doubles before each one after that, up to an hour."""
    priority: int = Field(default=0, ge=-MAX_PRIORITY, le=MAX_PRIORITY)
    """The higher goes first; above 0 for admins."""
    hold: bool = False
    """It waits until it is released."""
    not_before: Annotated[Timestamp, AfterValidator(_check_moment)] | None = None
    """It waits at least until then."""
    after: list[DependencyText] = Field(default=[], max_length=MAX_AFTER)
    """`ID`, `ID:ok`, `ID:any` or `ID:failed`: it waits until these tasks, or all tasks of these batches, have completed,
    ended or failed. It fails once they can't do so any more."""
    hold_for_node: bool = False
    """Queue it even when no node that is known now can ever run it."""

    def is_retried(self, cause: RetryCause | None, exit_code: int | None) -> bool:
        """Whether it is tried again after such an end, while `max_retries` lets it."""
        return cause in self.retry_on or (cause is RetryCause.FAILED and exit_code in self.retry_on)


class FailedTarget(PeerModel):
    target: str
    reason: str


class AssignedNode(PeerModel):
    hostname: str
    url: str


class SubmitResponse(PeerModel):
    message: str
    batch_id: TaskId
    task_ids: list[TaskId]
    failed_targets: list[FailedTarget] = []
    assigned_node: AssignedNode | None = None
    """Where a single task already is; none when it waits."""
    runner_response: dict[str, str] | None = None
