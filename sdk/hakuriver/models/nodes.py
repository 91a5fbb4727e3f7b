"""Nodes, and the health of the cluster."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from hakuriver.labels import MAX_LABELS, check_key, check_value
from hakuriver.models.base import PeerModel, StrictModel, TaskId, Timestamp
from hakuriver.models.runner import GpuInfo, NumaNode
from hakuriver.models.usage import TaskUsage
from hakuriver.states import NodeState, TaskState


class NodeInfo(PeerModel):
    hostname: str
    url: str
    status: NodeState
    schedulable: bool
    cordoned: bool = False
    """An admin keeps new attempts from it; those that it holds go on."""
    draining: bool = False
    """It was cordoned to be emptied."""
    problem: str = ""
    """Why it gets no work, or what is not well with it."""
    version: str
    engines: list[str]
    total_cores: int
    cores_in_use: int
    available_cores: int
    total_memory_bytes: int
    memory_in_use_bytes: int
    available_memory_bytes: int
    running_tasks: int
    cpu_percent: float | None = None
    memory_percent: float | None = None
    memory_used_bytes: int | None = None
    current_avg_temp: float | None = None
    current_max_temp: float | None = None
    last_heartbeat: Timestamp | None = None
    numa_topology: dict[str, NumaNode] | None = None
    gpu_info: list[GpuInfo] = []
    gpu_tasks: dict[str, TaskId] = {}
    """By UUID: the task that holds a GPU; of several, the first."""
    gpu_sharers: dict[str, list[TaskId]] = {}
    """By UUID: all tasks that hold a GPU, where there are several."""
    labels: dict[str, str] = {}
    """Those of its Runner's configuration, as admins have changed them."""


class NodeDuty(PeerModel):
    """What became of a node that was cordoned, drained or uncordoned."""

    message: str
    hostname: str
    cordoned: bool
    draining: bool
    held_tasks: list[TaskId]
    """Tasks with an attempt that the node holds now."""
    sequence: int
    """Of the last change of state when this was told: followed from there, no end of these attempts is missed."""


class LabelsRequest(StrictModel):
    """Changes of a node's labels."""

    labels: dict[
        Annotated[str, AfterValidator(check_key)], Annotated[str, AfterValidator(check_value)] | None
    ] = Field(max_length=MAX_LABELS)
    """Values by key; null takes a label away."""


class NodeLabels(PeerModel):
    """A node's labels, once they are changed."""

    hostname: str
    labels: dict[str, str]


class NodeSample(PeerModel):
    """One second of one node."""

    time: Timestamp
    hostname: str
    status: NodeState
    cpu_percent: float | None = None
    memory_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    current_avg_temp: float | None = None
    current_max_temp: float | None = None
    gpu_info: list[GpuInfo] = []


class TaskLoad(PeerModel):
    """A task that runs on a node, or is paused there: what it asked for, and what it uses."""

    task_id: TaskId
    attempt: int
    hostname: str
    name: str | None = None
    owner: str
    status: TaskState
    required_cores: int
    required_memory_bytes: int | None
    gpus: list[str] = []
    """UUIDs of those that it was given."""
    usage: TaskUsage | None = None


class ClusterSample(PeerModel):
    """One second of the cluster; the names are the reference's."""

    totalNodes: int  # noqa: N815
    onlineNodes: int  # noqa: N815
    totalCores: int  # noqa: N815
    totalMemBytes: int  # noqa: N815
    usedMemBytes: int  # noqa: N815
    avgCpuPercent: float  # noqa: N815
    avgMemPercent: float  # noqa: N815
    maxAvgCpuTemp: float | None  # noqa: N815
    maxMaxCpuTemp: float | None  # noqa: N815
    lastUpdated: Timestamp  # noqa: N815


class HealthHistory(PeerModel):
    """The last 60 samples, taken once a second."""

    nodes: list[list[NodeSample]]
    """One list for each sample, oldest first."""
    aggregate: list[ClusterSample]
    tasks: list[TaskLoad] = []
    """What runs now, by the nodes' last heartbeats; by node and task."""


class ClusterStatus(PeerModel):
    version: str
    nodes_online: int
    nodes_total: int
    cores_total: int
    cores_in_use: int
    memory_total_bytes: int
    memory_in_use_bytes: int
    tasks: dict[str, int]
    """Tasks by state; final ones of the last 24 hours."""
    default_environment: str
    default_environment_ready: bool
    """Whether the default environment is on the share."""
    problems: list[str] = []


class EnvironmentVersion(PeerModel):
    timestamp: int
    tarball: str


class EnvironmentVersions(PeerModel):
    latest_timestamp: int
    latest_tarball: str
    all_versions: list[EnvironmentVersion]
