"""Tasks: what is told of them, and asked of those that are there."""

from __future__ import annotations

from pydantic import Field

from hakuriver.models.base import PeerModel, StrictModel, TaskId, Timestamp
from hakuriver.models.submission import MAX_PRIORITY, ExitCode, RetryCause
from hakuriver.models.usage import TaskUsage
from hakuriver.states import TaskState


class TaskEvent(PeerModel):
    """One change of a task's state."""

    sequence: int
    """Rises over all tasks; a follower resumes after the last that it saw."""
    time: Timestamp
    task_id: TaskId
    batch_id: TaskId
    attempt: int
    """0 before the first."""
    state: TaskState
    node: str | None = None
    cause: str = ""
    exit_code: int | None = None


class AssignedGpu(PeerModel):
    gpu_id: int
    """Its number when it was given; −1 when that is not known any more."""
    uuid: str
    name: str = ""


class TaskSummary(PeerModel):
    """A task as a list shows it."""

    task_id: TaskId
    batch_id: TaskId
    index: int = 0
    """Its number in the batch."""
    task_type: str
    name: str | None = None
    owner: str
    status: TaskState
    attempt: int
    command: str
    arguments: list[str]
    """Shown to the owner and to admins in full; for others they are left out."""
    container_name: str | None
    required_cores: int
    required_memory_bytes: int | None
    required_gpus: list[int] = []
    """The numbers that its target names."""
    gpus: int = 0
    """How many it asks for."""
    assigned_gpus: list[AssignedGpu] = []
    """Those that its latest attempt was given."""
    target: str | None = None
    assigned_node: str | None = None
    unreachable: bool = False
    """Its node is offline: what it does is not known now."""
    priority: int = 0
    held: bool = False
    not_before: Timestamp | None = None
    """It waits at least until then; after an attempt that failed, for its next."""
    after: list[str] = []
    """What it waits for still, as `ID:ok`, `ID:any` or `ID:failed`."""
    kill_requested: bool = False
    reason: str = ""
    """Why it waits, or what the Runner does (image sync)."""
    exit_code: int | None = None
    error_message: str | None = None
    usage: TaskUsage | None = None
    """What its latest attempt used, or has used so far; none where nothing is known of it."""
    submitted_at: Timestamp
    started_at: Timestamp | None = None
    completed_at: Timestamp | None = None


class TaskDetail(TaskSummary):
    """All that is known of a task."""

    env_vars: dict[str, str] = {}
    sweep_values: list[str] = []
    """Of a task of a sweep: the values of its spans, in their order."""
    privileged: bool = False
    additional_mounts: list[str] = []
    working_dir: str | None = None
    user: str | None = None
    network: str = "bridge"
    shm_size_bytes: int | None = None
    time_limit_seconds: int | None = None
    idle_stop_seconds: int | None = None
    assigned_cores: list[int] = []
    """Numbers of the cores that its latest attempt was given as its own; none where it may use any."""
    node_labels: list[str] = []
    """What it asks of its node's labels."""
    share_gpus: bool = False
    exclusive: bool = False
    preemptible: bool = False
    max_retries: int = 0
    retry_on: list[RetryCause | ExitCode] = []
    retry_delay_seconds: int = 0
    target_numa_node_id: int | None = None
    stdout_path: str
    """Relative to the shared directory."""
    stderr_path: str
    systemd_unit_name: str | None = None
    ssh_port: int | None = None
    environment_version: str | None = None
    image: str | None = None
    """Digest of the image that it ran in."""
    history: list[TaskEvent] = []


class TaskList(PeerModel):
    tasks: list[TaskSummary]
    next_cursor: str | None = None
    """Give it as `cursor` to get the next page; none on the last."""


class NodeVerdict(PeerModel):
    """Why a task is or is not placed on one node."""

    node: str
    fits_now: bool
    can_ever_fit: bool
    reason: str


class TaskExplanation(PeerModel):
    task_id: TaskId
    status: TaskState
    summary: str
    queue_position: int | None = None
    """0 is the first in line; none when it does not wait."""
    expected_start: Timestamp | None = None
    """If all that runs takes as long as it may and nothing else comes; none where that is not known, as when something
    without a time limit has to end first."""
    nodes: list[NodeVerdict] = []


class QueuedTask(TaskSummary):
    """A task that waits, and where it stands."""

    position: int | None = None
    """0 is the first in line; none when it stands aside."""
    expected_start: Timestamp | None = None
    """If all that runs takes as long as it may and nothing else comes; none where that is not known."""


class PriorityRequest(StrictModel):
    priority: int = Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)
    """The higher goes first; above 0 for admins."""


class Message(PeerModel):
    message: str


class LogChunk(PeerModel):
    """A piece of a log, as it travels in a `log` event."""

    attempt: int = 1
    """Which attempt wrote it: each has a log of its own."""
    offset: int
    """Of its first byte in the log."""
    next_offset: int
    data: str
    """Base64 of the bytes: logs need not be text."""
