"""What Host and Runner say to each other.

An attempt is named by task id and number. The Runner's reports of one attempt are numbered by
`sequence`, so that stale, repeated and reordered ones can be told.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from hakuriver.models.base import PeerModel, TaskId, Timestamp
from hakuriver.models.submission import Network
from hakuriver.models.usage import TaskUsage
from hakuriver.sizes import MAX_BYTES, MAX_SECONDS
from hakuriver.states import TaskState

EngineName = Literal["docker", "process"]

MAX_COUNTER = 2**31 - 1
"""Attempts and sequences fit a database's 32-bit integer."""


def _without_nul(value: object) -> object:
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


PeerText = Annotated[str, BeforeValidator(_without_nul)]
"""Words of a peer that go on the record; PostgreSQL holds no NUL."""
CpuNumber = Annotated[int, Field(ge=0, le=MAX_COUNTER)]
NumaNumber = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,4}$")]


class AttemptId(PeerModel):
    task_id: TaskId
    attempt: int = Field(ge=1, le=MAX_COUNTER)

    @property
    def key(self) -> tuple[int, int]:
        return (self.task_id, self.attempt)


class AttemptSpec(AttemptId):
    """All that a Runner needs to run one attempt. Paths on the share are relative to its root."""

    batch_id: TaskId
    index: int = 0
    owner: str
    task_type: Literal["command", "vps"] = "command"
    run: int = Field(default=0, ge=0, le=MAX_COUNTER)
    """How often it has been stopped and started again: from 1 on, what the node keeps of it is started."""
    engine: EngineName
    command: str
    arguments: list[str] = []
    env_vars: dict[str, str] = {}
    cores: int = 0
    """0: no limit."""
    cpus: list[CpuNumber] = []
    """Numbers of the cores that it has as its own; none: it may use any."""
    memory_bytes: int | None = None
    gpus: list[str] = []
    """UUIDs."""
    numa_node: int | None = None
    environment: str | None = None
    """Name of the environment; none with the process engine."""
    environment_version: str | None = None
    """The version that was current, or named, at submission: unix seconds of its packing."""
    privileged: bool = False
    mounts: list[str] = []
    working_dir: str | None = None
    user: str | None = None
    """`UID[:GID]` that the task asks for."""
    owner_uid: str | None = None
    """`UID:GID` of the owner, where an admin has set it; the Runner decides what that is good for."""
    network: Network | None = None
    """None: the Runner's `runner.network`."""
    shm_size_bytes: int | None = None
    time_limit_seconds: int | None = None
    idle_stop_seconds: int | None = None
    restart: Literal["always", "never"] = "always"
    """Of a VPS that ends unasked."""
    stdout_path: str
    stderr_path: str


class AttemptReport(AttemptId):
    """The state of one attempt, as its Runner knows it."""

    sequence: int = Field(ge=0, le=MAX_COUNTER)
    """Rises with each change of this attempt; 0 is the acceptance."""
    run: int = Field(default=0, ge=0, le=MAX_COUNTER)
    """The latest that the Runner was told to start."""
    status: TaskState
    exit_code: int | None = Field(default=None, ge=-MAX_COUNTER, le=MAX_COUNTER)
    message: PeerText | None = None
    """Why it failed, or what is going on (image sync)."""
    started_at: Timestamp | None = None
    completed_at: Timestamp | None = None
    image: PeerText | None = None
    """Digest of the image."""
    unit_name: PeerText | None = None
    """Container or systemd scope."""
    gpus: list[PeerText] = []
    """UUIDs of those that it was given."""
    cpus: list[CpuNumber] = []
    """Numbers of the cores that it was given as its own."""
    usage: TaskUsage | None = None
    """What it had used when its latest run ended."""


class StartRequest(PeerModel):
    attempts: list[AttemptSpec]


class StartResult(AttemptId):
    outcome: Literal["accepted", "known", "refused"]
    """`known`: it was started before (or killed before it came); `report` says how it is."""
    report: AttemptReport | None = None
    reason: str | None = None
    unusable_gpus: list[PeerText] = []
    """UUIDs of those that it was to have and cannot: they are the reason of a refusal."""


class StartResponse(PeerModel):
    results: list[StartResult]


class AttemptsRequest(PeerModel):
    """For kill, pause, resume and stop."""

    attempts: list[AttemptId]


class AttemptLimit(AttemptId):
    time_limit_seconds: int | None = Field(ge=1, le=MAX_SECONDS)
    """Counts from the attempt's start; none is no limit."""


class LimitsRequest(PeerModel):
    attempts: list[AttemptLimit]


class ActionResult(AttemptId):
    ok: bool
    reason: str | None = None


class ActionResponse(PeerModel):
    results: list[ActionResult]


class AttemptList(PeerModel):
    attempts: list[AttemptReport]


class RunnerHealth(PeerModel):
    hostname: str
    version: str
    journal_id: str
    running: int
    engines: list[EngineName]


class VerdictAction(StrEnum):
    KEEP = "keep"
    """The Host counts on it."""
    KILL = "kill"
    """It must not run: newer, final or unknown at the Host."""
    FORGET = "forget"
    """Its end is on the Host's record: clean up."""


class Verdict(AttemptId):
    action: VerdictAction


class JoinRequest(PeerModel):
    """Sent with the join token."""

    hostname: PeerText
    runner_url: PeerText


class JoinResponse(PeerModel):
    """The node's own secrets; each is given once."""

    node_token: str
    """The Runner proves itself to the Host by it."""
    control_token: str
    """The Host proves itself to the Runner by it."""


class NumaNode(PeerModel):
    cores: list[int]
    memory_bytes: int | None = None
    distances: dict[NumaNumber, int] = {}
    """To each NUMA node, itself included, as the firmware has them: 10 is near, 20 twice as far (ACPI SLIT)."""
    packages: list[int] = []
    """Numbers of the processors that its cores are of."""


class GpuProcess(PeerModel):
    """A program that uses a GPU."""

    pid: int
    memory_used_mib: int = -1
    name: PeerText = ""
    task_id: TaskId | None = None
    """The task that it says it belongs to."""


class GpuInfo(PeerModel):
    """A GPU, or a MIG instance of one; −1 where the driver does not tell."""

    gpu_id: int
    """Its number, by which it is asked for; it may change when the machine starts anew, as the UUID does not."""
    uuid: PeerText = ""
    name: PeerText
    driver_version: PeerText
    pci_bus_id: PeerText
    gpu_utilization: int = -1
    graphics_clock_mhz: int = -1
    mem_utilization: int = -1
    mem_clock_mhz: int = -1
    memory_total_mib: int = -1
    memory_used_mib: int = -1
    memory_free_mib: int = -1
    temperature: int = -1
    fan_speed: int = -1
    power_usage_mw: int = -1
    power_limit_mw: int = -1
    energy_mj: int = -1
    """Millijoules that it has taken since its driver was loaded; GPUs from Volta on count them."""
    numa_node: int | None = None
    """None where the machine has one only, or does not tell."""
    nvlinks: list[PeerText] = []
    """Where its NVLinks lead that are up: places on the bus, of other GPUs or of switches."""
    parent_uuid: PeerText = ""
    """Of the GPU that a MIG instance is a part of."""
    processes: list[GpuProcess] = []
    problem: PeerText = ""
    """Why nothing new is to run on it; empty when it is well."""


class RegisterRequest(PeerModel):
    """A Runner presents its machine and everything that its journal holds unacknowledged or running."""

    hostname: PeerText
    total_cores: int = Field(ge=1, le=MAX_BYTES)
    total_ram_bytes: int = Field(ge=1, le=MAX_BYTES)
    runner_url: PeerText
    numa_topology: dict[NumaNumber, NumaNode] | None = None
    gpu_info: list[GpuInfo] = []
    gpu_note: PeerText = ""
    """Why containers can be given no GPU here, where there are any."""
    version: PeerText
    journal_id: PeerText
    """Of the Runner's journal: a new one means that it has forgotten what it ran."""
    engines: list[EngineName]
    engine_notes: dict[PeerText, PeerText] = {}
    """Per engine that is missing: why."""
    shared_id: PeerText | None = None
    """What the Runner reads in the share's marker file; none when it cannot."""
    allow_privileged: bool | None = None
    """Whether tasks may run privileged here; none from a Runner that does not tell."""
    mount_roots: list[PeerText] | None = None
    """Folders under which tasks may mount; none from a Runner that does not tell."""
    cpus: list[CpuNumber] = []
    """Numbers of the cores that tasks may run on, in the order in which they are given; none from a Runner that does not
    tell."""
    tasks_per_gpu: int = Field(default=1, ge=1, le=MAX_COUNTER)
    """How many tasks that share may have one GPU."""
    labels: dict[PeerText, PeerText] = {}
    """Those of its configuration."""
    attempts: list[AttemptReport] = []


class RegisterResponse(PeerModel):
    message: str
    version: str
    heartbeat_interval_seconds: float
    reachable: bool
    """Whether the Host could call the Runner back at `runner_url`."""
    problem: str | None = None
    """Why the node gets no work, and what to do about it."""
    verdicts: list[Verdict] = []


class HeartbeatRequest(PeerModel):
    running_tasks: list[TaskId] = []
    cpu_percent: float | None = None
    memory_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    current_avg_temp: float | None = None
    current_max_temp: float | None = None
    gpu_info: list[GpuInfo] = []
    problems: list[str] = []
    """What keeps the node from working well: an unwritable share, a Docker engine that does not answer."""
    environments: list[str] = []
    """Versions that its engine has, as `NAME:VERSION`."""
    usage: dict[PeerText, TaskUsage] = {}
    """What attempts that run have used so far, by `TASK-ATTEMPT`."""


class UpdateRequest(PeerModel):
    hostname: str
    reports: list[AttemptReport]


class UpdateResponse(PeerModel):
    """Every report of the request is on the Host's record now, or was stale."""

    message: str
    verdicts: list[Verdict] = []


SHARED_MARKER = ".hakuriver-share"
"""A file at the share's root, written by the Host; its text names the share."""
