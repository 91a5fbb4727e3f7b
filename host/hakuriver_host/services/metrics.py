"""What the Host tells Prometheus. Everything is read from memory, so that being asked costs little.

The client library is loaded when somebody asks for the first time: a Host that nobody watches does without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hakuriver.models.usage import TaskUsage
from hakuriver.states import FINAL, NodeState, TaskState
from hakuriver.version import __version__
from hakuriver_host.domain.model import CORES, MEMORY, Node
from hakuriver_host.services.core import Core
from hakuriver_host.services.nodes import live_counts

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

Samples = Iterable[tuple[tuple[str, ...], float]]
"""Values by their labels."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name, what it means, its labels, and how it is read. Without labels it has one value."""

    name: str
    meaning: str
    labels: tuple[str, ...]
    read: Callable[[Core], Samples]
    counts: bool = False
    """It only rises, from the Host's start on; its name ends in `_total`."""


def _one(value: Callable[[Core], float]) -> Callable[[Core], Samples]:
    return lambda core: [((), value(core))]


def _of_nodes(value: Callable[[Core, Node], float]) -> Callable[[Core], Samples]:
    return lambda core: [((name,), value(core, node)) for name, node in sorted(core.cluster.nodes.items())]


def _used(node: Node, amount: Callable[[TaskUsage], float | None]) -> float:
    """By all tasks of a node together; what is not known counts as nothing."""
    told = node.heartbeat.usage.values() if node.state is NodeState.ONLINE else ()
    return sum(amount(usage) or 0 for usage in told)


def _node_states(core: Core) -> Samples:
    states = [node.state for node in core.cluster.nodes.values()]
    return [((str(state),), states.count(state)) for state in NodeState]


def _task_states(core: Core) -> Samples:
    counts = live_counts(core)
    return [((state,), counts[state]) for state in TaskState if state not in FINAL]


def _ends(core: Core) -> Samples:
    return [((state,), core.ends[state]) for state in TaskState if state in FINAL]


def _longest(core: Core) -> float:
    since = core.cluster.queue.longest_in_line()
    return 0.0 if since is None else max(0.0, core.now().wall - since)


def _storage(core: Core) -> Samples:
    problems = {"database": core.writer.problem, "share": core.share_problem()}
    return [((what,), not problem) for what, problem in problems.items()]


METRICS = (
    Metric(
        "hakuriver_build_info",
        "1; the label is the Host's version",
        ("version",),
        lambda _: [((__version__,), 1)],
    ),
    Metric(
        "hakuriver_start_time_seconds", "When the Host started (Unix time)", (), _one(lambda core: core.began)
    ),
    Metric("hakuriver_nodes", "Nodes by state", ("state",), _node_states),
    Metric(
        "hakuriver_node_up",
        "1 when the node is online, 0 when its heartbeats are missing",
        ("node",),
        _of_nodes(lambda _, node: node.state is NodeState.ONLINE),
    ),
    Metric(
        "hakuriver_node_schedulable",
        "1 when the node may get work; 0 when it is offline, cordoned or has a problem",
        ("node",),
        _of_nodes(lambda _, node: node.ready),
    ),
    Metric(
        "hakuriver_node_cores",
        "Cores that the node offers",
        ("node",),
        _of_nodes(lambda _, node: node.capacity.get(CORES, 0)),
    ),
    Metric(
        "hakuriver_node_cores_held",
        "Cores that tasks hold on the node",
        ("node",),
        _of_nodes(lambda core, node: core.cluster.ledger.held(node.name, CORES)),
    ),
    Metric(
        "hakuriver_node_cores_used",
        "Cores that tasks keep busy on the node, by its last heartbeat",
        ("node",),
        _of_nodes(lambda _, node: _used(node, lambda usage: usage.cpu_now)),
    ),
    Metric(
        "hakuriver_node_memory_bytes",
        "Memory that the node offers",
        ("node",),
        _of_nodes(lambda _, node: node.capacity.get(MEMORY, 0)),
    ),
    Metric(
        "hakuriver_node_memory_held_bytes",
        "Memory that tasks hold on the node",
        ("node",),
        _of_nodes(lambda core, node: core.cluster.ledger.held(node.name, MEMORY)),
    ),
    Metric(
        "hakuriver_node_memory_used_bytes",
        "Memory that tasks use on the node, by its last heartbeat",
        ("node",),
        _of_nodes(lambda _, node: _used(node, lambda usage: usage.memory_bytes)),
    ),
    Metric(
        "hakuriver_node_gpus",
        "GPUs of the node, those out of service too",
        ("node",),
        _of_nodes(lambda _, node: len(node.gpus)),
    ),
    Metric(
        "hakuriver_node_gpus_held",
        "GPUs that tasks hold on the node",
        ("node",),
        _of_nodes(lambda core, node: len(core.cluster.ledger.gpus(node.name))),
    ),
    Metric(
        "hakuriver_node_gpus_bad",
        "GPUs of the node that are out of service",
        ("node",),
        _of_nodes(lambda _, node: sum(bool(gpu.problem) for gpu in node.gpus)),
    ),
    Metric(
        "hakuriver_node_tasks",
        "Tasks with an attempt that the node holds",
        ("node",),
        _of_nodes(lambda core, node: len(core.cluster.ledger.holders(node.name))),
    ),
    Metric("hakuriver_tasks", "Tasks that are not final, by state", ("state",), _task_states),
    Metric(
        "hakuriver_tasks_ended_total",
        "Tasks that ended since the Host started, by final state",
        ("state",),
        _ends,
        counts=True,
    ),
    Metric(
        "hakuriver_queue_oldest_seconds",
        "How long the task has waited that has been in line for the longest; 0 when none is in line",
        (),
        _one(_longest),
    ),
    Metric(
        "hakuriver_storage_ok",
        "1 when the Host can write its `database`, and its `share`",
        ("what",),
        _storage,
    ),
)


class Metrics:
    def __init__(self, core: Core) -> None:
        self._core = core

    def page(self) -> tuple[bytes, Mapping[str, str]]:
        """The values now, in Prometheus' text format, and the headers that say so."""
        from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest  # noqa: PLC0415

        registry: Any = self
        return generate_latest(registry), {"Content-Type": CONTENT_TYPE_LATEST}

    def collect(self) -> Iterator[Family]:
        """What the library asks a registry for."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415

        for metric in METRICS:
            kind = CounterMetricFamily if metric.counts else GaugeMetricFamily
            family = kind(metric.name, metric.meaning, labels=metric.labels)
            for labels, value in metric.read(self._core):
                family.add_metric(labels, float(value))
            yield family
