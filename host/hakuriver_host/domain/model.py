"""What the Host knows while it runs: nodes, tasks, and what a decision causes.

Times are Unix seconds (UTC) for the record, and seconds of a monotonic clock for how long something
has lasted, so that a wall clock which jumps makes no node offline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from hakuriver.dependencies import Dependency
from hakuriver.labels import Selector
from hakuriver.models.runner import AttemptReport, HeartbeatRequest
from hakuriver.models.submission import RetryCause, SubmitRequest
from hakuriver.models.usage import TaskUsage
from hakuriver.states import NodeState, TaskState
from hakuriver_host.domain.cpus import NumaCores
from hakuriver_host.domain.gpus import Gpu, GpuRequest

CORES = "cores"
MEMORY = "memory"
GPUS = "gpus"
TASKS = "tasks"
"""How many hold anything; no node has an amount of them."""
_OF_NUMA = "@"

Amounts = tuple[tuple[str, int], ...]
"""Countable resources by name."""


def numa_cores(number: int) -> str:
    """The name of the cores of one NUMA node."""
    return f"{CORES}{_OF_NUMA}{number}"


def numa_memory(number: int) -> str:
    """The name of the memory of one NUMA node; only what tasks ask for of it is counted."""
    return f"{MEMORY}{_OF_NUMA}{number}"


class Now(NamedTuple):
    wall: float
    mono: float


class Rank(NamedTuple):
    """A task's place among its owner's: the lowest is first."""

    urgency: int
    """Its priority, negated."""
    yields: bool
    """It is preemptible: what is not comes first."""
    task_id: int


class AttemptKey(NamedTuple):
    task_id: int
    attempt: int


class Quota(NamedTuple):
    """What the tasks of one batch may hold together."""

    batch_id: int
    running: int
    """How many of them may hold anything at the same time."""


@dataclass(frozen=True, slots=True)
class Request:
    """What one task needs of one node. Equal requests are placed alike, so the queue groups by them."""

    amounts: Amounts = ()
    """Above zero, sorted."""
    gpus: GpuRequest | None = None
    engine: str = "docker"
    node: str | None = None
    numa: int | None = None
    exclusive: bool = False
    """Nothing else is to run on its node meanwhile."""
    preemptible: bool = False
    """It may be ended to make room for one that is not, and waits again then."""
    stays: bool = False
    """It is a VPS, which runs until somebody ends it."""
    limit: int | None = None
    """Seconds that it runs at most; none is without limit."""
    privileged: bool = False
    mounts: tuple[str, ...] = ()
    """Folders of the node that it mounts."""
    avoided: frozenset[str] = frozenset()
    """Nodes that it is not to run on."""
    labels: tuple[Selector, ...] = ()
    """What its node's labels are to be; sorted."""
    excluded: frozenset[str] = frozenset()
    """Nodes that refused the task."""
    quota: Quota | None = None
    """Of its batch, where that has one: so its tasks form a group of their own, which hides no others when it is full."""

    def amount(self, name: str) -> int:
        return next((amount for key, amount in self.amounts if key == name), 0)


class Group(NamedTuple):
    """Tasks that are placed alike, by what they ask for and whose they are."""

    owner: str
    request: Request


def quantity(name: str, amount: int) -> str:
    """An amount for people."""
    name, of_numa, number = name.partition(_OF_NUMA)
    if of_numa:
        return f"{quantity(name, amount)} of NUMA node {number}"
    if name == MEMORY:
        return f"{amount / 1e9:.2f}G memory"
    unit = {CORES: "core", GPUS: "GPU", TASKS: "task"}.get(name)
    if unit is None:
        return f"{amount} {name}"
    return f"{amount} {unit}" if amount == 1 else f"{amount} {unit}s"


@dataclass(slots=True)
class Batch:
    """What the tasks of one submission share."""

    batch_id: int
    owner: str
    submitted_at: float
    spec: SubmitRequest
    environment: str | None
    """None with the process engine."""
    environment_version: str | None
    default_user: str | None = None
    """`uid:gid` of the owner, where the owner has them."""
    after: tuple[Dependency, ...] = ()
    """What its tasks are to run after; those that have ended as they were to are taken out."""
    doom: str = ""
    """Why those of its tasks that have not run can never do so."""


@dataclass(slots=True)
class Task:
    """One task that is not final, or is `lost` and may yet be corrected."""

    task_id: int
    batch: Batch
    index: int
    target: str | None
    request: Request
    state: TaskState = TaskState.PENDING
    attempt: int = 0
    """Number of the latest attempt; 0 before the first."""
    node: str | None = None
    """Node of the latest attempt."""
    gpus: tuple[Gpu, ...] = ()
    """Those that the latest attempt was given."""
    cpus: tuple[int, ...] = ()
    """The cores that the latest attempt was given as its own, by number; none where it may use any."""
    sequence: int = -1
    """Of the last report of the latest attempt; -1 before any."""
    closed: bool = True
    """The latest attempt has ended for good: no report of it changes anything any more."""
    run: int = 0
    """How often the latest attempt was told to start again after it had been stopped."""
    retries: int = 0
    priority: int = 0
    """The higher goes first."""
    held: bool = False
    """It stays aside until somebody releases it."""
    not_before: float | None = None
    """Wall clock: it stays aside until then; none once that has passed."""
    lined_up_at: float | None = None
    """Wall clock: when it came into line, where it stood aside before; not on the record."""
    kill_requested: bool = False
    preempting: bool = False
    """Its attempt is being ended to make room."""
    reason: str = ""
    """Why it waits, or what the Runner does."""
    exit_code: int | None = None
    message: str | None = None
    image: str | None = None
    unit_name: str | None = None
    started_at: float | None = None
    completed_at: float | None = None
    usage: TaskUsage | None = None
    """What the latest attempt used, by its Runner's last word; what it uses while it runs comes with heartbeats."""

    @property
    def key(self) -> AttemptKey:
        return AttemptKey(self.task_id, self.attempt)

    @property
    def group(self) -> Group:
        return Group(self.batch.owner, self.request)

    @property
    def rank(self) -> Rank:
        return Rank(-self.priority, self.request.preemptible, self.task_id)

    @property
    def aside(self) -> bool:
        """While it waits, it is not in line."""
        batch = self.batch
        follows = self.attempt == 0 and (bool(batch.after) or bool(batch.doom))
        return self.held or self.not_before is not None or follows

    @property
    def kept(self) -> bool:
        """It does not run, and its node keeps what is in it: it can be started there alone."""
        waits = self.state is TaskState.PENDING and self.run > 0
        return not self.closed and (waits or self.state is TaskState.STOPPED)

    def may_retry(self, cause: RetryCause | None, exit_code: int | None = None) -> bool:
        spec = self.batch.spec
        return (
            not self.kill_requested and self.retries < spec.max_retries and spec.is_retried(cause, exit_code)
        )


@dataclass(slots=True)
class Node:
    """A machine with a Runner."""

    name: str
    url: str
    capacity: dict[str, int]
    gpus: tuple[Gpu, ...] = ()
    gpu_note: str = ""
    """Why its containers can be given none of them."""
    tasks_per_gpu: int = 1
    """How many may share a GPU, if all of them would."""
    numa_nodes: Mapping[int, NumaCores] = field(default_factory=dict)
    """By number."""
    cpus: tuple[int, ...] = ()
    """The cores, by number, of which tasks get some as their own; none where they cannot."""
    own_labels: Mapping[str, str] = field(default_factory=dict)
    """As its Runner's configuration has them."""
    given_labels: Mapping[str, str | None] = field(default_factory=dict)
    """As admins gave them, or took (none)."""
    engines: frozenset[str] = frozenset()
    engine_notes: Mapping[str, str] = field(default_factory=dict)
    allow_privileged: bool | None = None
    """None until its Runner has told."""
    mount_roots: tuple[str, ...] | None = None
    """Folders under which tasks may mount; none until its Runner has told."""
    journal_id: str = ""
    state: NodeState = NodeState.OFFLINE
    reconciled: bool = False
    """It has registered in this life of the Host, and since it was last offline."""
    problem: str = ""
    """Why it gets no work; empty when it may."""
    cordoned: bool = False
    """A person keeps new attempts from it; what it holds goes on."""
    draining: bool = False
    """It was cordoned to be emptied."""
    last_seen: float = 0.0
    """Monotonic."""
    last_heartbeat: float | None = None
    """Wall clock, for people."""
    heartbeat: HeartbeatRequest = field(default_factory=HeartbeatRequest)
    to_start: dict[int, Task] = field(default_factory=dict)
    """Reserved here, and not yet known to have reached the Runner."""
    leaving: dict[str, AttemptKey] = field(default_factory=dict)
    """By UUID: GPUs that an attempt still has which the Host does not count on any more, until its Runner has ended it."""
    heartbeat_then: HeartbeatRequest | None = None
    """The last one that had come when `leaving` grew."""
    to_kill: dict[AttemptKey, None] = field(default_factory=dict)
    """To be told to the Runner. A dict for its order."""

    @property
    def labels(self) -> dict[str, str]:
        """What admins say goes before what its Runner says."""
        if not self.given_labels:
            return dict(self.own_labels)
        both = {**self.own_labels, **self.given_labels}
        return {key: value for key, value in both.items() if value is not None}

    @property
    def works(self) -> bool:
        """It is there, and all is well with it."""
        return self.state is NodeState.ONLINE and self.reconciled and not self.problem

    @property
    def ready(self) -> bool:
        """It may be given work now."""
        return self.works and not self.cordoned


@dataclass(slots=True)
class Event:
    """A change of state, for the record and for those who follow."""

    time: float
    task: Task
    attempt: int
    state: TaskState
    node: str | None
    cause: str
    exit_code: int | None


@dataclass(slots=True)
class Effects:
    """What a decision causes: to be written first, then acted on."""

    tasks: dict[int, Task] = field(default_factory=dict)
    """Changed, to be written."""
    events: list[Event] = field(default_factory=list)
    batches: dict[int, Batch] = field(default_factory=dict)
    """What they wait for changed, to be written."""
    nodes: dict[str, Node] = field(default_factory=dict)
    """Changed, to be written."""
    removed: set[str] = field(default_factory=set)
    """Nodes to be struck from the record."""
    wake: set[str] = field(default_factory=set)
    """Nodes whose Runner has something to be told."""
    progress: list[Task] = field(default_factory=list)
    """Tasks whose reason changed: told to followers, not written."""
    schedule: bool = False
    """There may be something to place."""

    def add(self, other: Effects) -> None:
        """What another decision causes, after this one."""
        self.tasks |= other.tasks
        self.events += other.events
        self.batches |= other.batches
        self.nodes |= other.nodes
        self.removed |= other.removed
        self.wake |= other.wake
        self.progress += other.progress
        self.schedule = self.schedule or other.schedule


@dataclass(frozen=True, slots=True)
class Registration:
    """What a Runner that registers says of itself, as far as decisions need it."""

    name: str
    url: str
    capacity: dict[str, int]
    gpus: tuple[Gpu, ...]
    gpu_note: str
    numa_nodes: Mapping[int, NumaCores]
    engines: frozenset[str]
    engine_notes: Mapping[str, str]
    journal_id: str
    problem: str
    allow_privileged: bool | None
    mount_roots: tuple[str, ...] | None
    attempts: tuple[AttemptReport, ...]
    cpus: tuple[int, ...] = ()
    tasks_per_gpu: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)
