"""Between the domain's objects and the database's rows, both ways."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hakuriver.cores import as_list, parse_list
from hakuriver.dependencies import parse_dependency
from hakuriver.labels import parse_selector
from hakuriver.models.runner import GpuInfo, NumaNode
from hakuriver.models.submission import NO_CONTAINER, SubmitRequest
from hakuriver.models.usage import TaskUsage
from hakuriver.states import NodeState, TaskState
from hakuriver.targets import parse_target
from hakuriver_host.db.bulk import Row
from hakuriver_host.db.tables import BatchRow, NodeRow, TaskRow
from hakuriver_host.domain.cpus import NumaCores
from hakuriver_host.domain.gpus import Gpu, asked, linked
from hakuriver_host.domain.model import (
    CORES,
    MEMORY,
    Batch,
    Event,
    Node,
    Quota,
    Request,
    Task,
    numa_cores,
    numa_memory,
)


@dataclass(slots=True)
class NodeRecord:
    """What is kept of a node beside what decisions need."""

    nonce: str
    joined_at: float
    version: str = ""
    numa_topology: dict[str, NumaNode] | None = None
    gpu_info: list[GpuInfo] = field(default_factory=list)


def millis(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def seconds(value: int | None) -> float | None:
    return None if value is None else value / 1000


def request_of(
    spec: SubmitRequest,
    target_text: str | None,
    excluded: frozenset[str] = frozenset(),
    quota: Quota | None = None,
) -> Request:
    """What a task of this submission asks for at this target; its batch's quota is known once that has an id."""
    target = parse_target(target_text) if target_text else None
    in_container = spec.container_name != NO_CONTAINER
    amounts = {CORES: spec.required_cores, MEMORY: spec.required_memory_bytes or 0}
    if target is not None and target.numa is not None:
        amounts[numa_cores(target.numa)] = amounts[CORES]
        amounts[numa_memory(target.numa)] = amounts[MEMORY]
    return Request(
        amounts=tuple(sorted((name, amount) for name, amount in amounts.items() if amount)),
        gpus=asked(spec, target),
        engine="docker" if in_container else "process",
        node=target.node if target else None,
        numa=target.numa if target else None,
        exclusive=spec.exclusive,
        preemptible=spec.preemptible,
        stays=spec.task_type == "vps",
        limit=spec.time_limit_seconds
        if spec.task_type == "command"
        else None,  # A VPS may be given more time.
        privileged=bool(spec.privileged),
        mounts=tuple(mount.partition(":")[0] for mount in spec.additional_mounts or ())
        if in_container
        else (),
        avoided=frozenset(spec.not_nodes),
        labels=tuple(sorted(map(parse_selector, spec.node_labels), key=str)),
        excluded=excluded,
        quota=quota,
    )


def quota_of(batch_id: int, spec: SubmitRequest) -> Quota | None:
    """What the batch may hold at a time, where that was said."""
    return Quota(batch_id, spec.max_running) if spec.max_running else None


def batch_row(batch: Batch, **extra: Any) -> Row:
    return {
        "batch_id": batch.batch_id,
        "owner": batch.owner,
        "submitted_at": millis(batch.submitted_at),
        "spec": batch.spec.model_dump_json(exclude={"targets", "required_gpus"}, exclude_defaults=True),
        "environment": batch.environment,
        "environment_version": batch.environment_version,
        "default_user": batch.default_user,
        "awaits": awaits(batch),
        **extra,
    }


def batch_of(row: BatchRow) -> Batch:
    return Batch(
        batch_id=row.batch_id,
        owner=row.owner,
        submitted_at=row.submitted_at / 1000,
        spec=SubmitRequest.model_validate_json(row.spec),
        environment=row.environment,
        environment_version=row.environment_version,
        default_user=row.default_user,
        after=tuple(parse_dependency(each) for each in row.awaits.split(",") if each),
    )


def new_task_row(task: Task) -> Row:
    """The whole row."""
    batch = task.batch
    return {
        "task_id": task.task_id,
        "batch_id": batch.batch_id,
        "owner": batch.owner,
        "name": batch.spec.name,
        "task_type": batch.spec.task_type,
        "index": task.index,
        "target": task.target,
        "submitted_at": millis(batch.submitted_at),
        **task_changes(task),
    }


def task_changes(task: Task) -> Row:
    """What may change of a task after its submission."""
    return {
        "state": task.state.value,
        "attempt": task.attempt,
        "node": task.node,
        "gpus": _given(task.gpus),
        "cpus": as_list(task.cpus),
        "sequence": task.sequence,
        "closed": task.closed,
        "run": task.run,
        "retries": task.retries,
        "priority": task.priority,
        "held": task.held,
        "not_before": millis(task.not_before),
        "kill_requested": task.kill_requested,
        "preempting": task.preempting,
        "excluded": ",".join(sorted(task.request.excluded)),
        "reason": task.reason,
        "exit_code": task.exit_code,
        "message": task.message,
        "image": task.image,
        "unit_name": task.unit_name,
        "started_at": millis(task.started_at),
        "completed_at": millis(task.completed_at),
        "usage": "" if task.usage is None else task.usage.model_dump_json(exclude_none=True),
    }


def task_of(row: TaskRow, batch: Batch) -> Task:
    excluded = frozenset(filter(None, row.excluded.split(",")))
    return Task(
        task_id=row.task_id,
        batch=batch,
        index=row.index,
        target=row.target,
        request=request_of(batch.spec, row.target, excluded, quota_of(batch.batch_id, batch.spec)),
        state=TaskState(row.state),
        attempt=row.attempt,
        node=row.node,
        gpus=given_of(row.gpus),
        cpus=tuple(parse_list(row.cpus)),
        sequence=row.sequence,
        closed=row.closed,
        run=row.run,
        retries=row.retries,
        priority=row.priority,
        held=row.held,
        not_before=seconds(row.not_before),
        kill_requested=row.kill_requested,
        preempting=row.preempting,
        reason=row.reason,
        exit_code=row.exit_code,
        message=row.message,
        image=row.image,
        unit_name=row.unit_name,
        started_at=seconds(row.started_at),
        completed_at=seconds(row.completed_at),
        usage=usage_of(row.usage),
    )


def event_row(event: Event, sequence: int) -> Row:
    return {
        "sequence": sequence,
        "time": millis(event.time),
        "task_id": event.task.task_id,
        "batch_id": event.task.batch.batch_id,
        "attempt": event.attempt,
        "state": event.state.value,
        "node": event.node,
        "cause": event.cause,
        "exit_code": event.exit_code,
    }


def gpus_of(infos: Iterable[GpuInfo]) -> tuple[Gpu, ...]:
    """What decisions need of a node's GPUs. One whose UUID was never told has its number for it."""
    infos = list(infos)
    groups = linked((gpu.pci_bus_id.upper(), gpu.nvlinks) for gpu in infos)
    return tuple(
        Gpu(
            uuid=gpu.uuid or f"gpu:{gpu.gpu_id}",
            number=gpu.gpu_id,
            model=gpu.name,
            memory_bytes=max(0, gpu.memory_total_mib) << 20,
            numa=gpu.numa_node,
            problem=gpu.problem,
            group=groups.get(gpu.pci_bus_id.upper()) if gpu.nvlinks else None,
        )
        for gpu in infos
    )


def numa_nodes_of(topology: Mapping[str, NumaNode] | None) -> dict[int, NumaCores]:
    return {
        int(key): NumaCores(
            tuple(numa.cores), tuple((int(other), far) for other, far in numa.distances.items())
        )
        for key, numa in (topology or {}).items()
    }


def _given(gpus: Sequence[Gpu]) -> str:
    """The GPUs of an attempt, as the record has them."""
    if not gpus:
        return "[]"
    return json.dumps([[gpu.uuid, gpu.number, gpu.model] for gpu in gpus])


def given_of(text: str) -> tuple[Gpu, ...]:
    return tuple(Gpu(*each) for each in json.loads(text))


def usage_of(text: str) -> TaskUsage | None:
    return TaskUsage.model_validate_json(text) if text else None


def awaits(batch: Batch) -> str:
    """What it waits for, as the record has it."""
    return ",".join(map(str, batch.after))


def node_row(node: Node, record: NodeRecord) -> Row:
    topology = record.numa_topology
    return {
        "name": node.name,
        "nonce": record.nonce,
        "url": node.url,
        "version": record.version,
        "journal_id": node.journal_id,
        "capacity": json.dumps(node.capacity),
        "engines": json.dumps(sorted(node.engines)),
        "engine_notes": json.dumps(dict(node.engine_notes)),
        "numa_topology": None
        if topology is None
        else json.dumps({key: numa.model_dump() for key, numa in topology.items()}),
        "gpu_info": json.dumps([gpu.model_dump() for gpu in record.gpu_info]),
        "problem": node.problem,
        "online": node.state is NodeState.ONLINE,
        "cordoned": node.cordoned,
        "draining": node.draining,
        "labels": json.dumps(dict(node.given_labels)),
        "own_labels": json.dumps(dict(node.own_labels)),
        "last_heartbeat": millis(node.last_heartbeat),
        "joined_at": millis(record.joined_at),
    }


def node_of(row: NodeRow) -> tuple[Node, NodeRecord]:
    told: Mapping[str, Any] | None = json.loads(row.numa_topology) if row.numa_topology else None
    topology = {key: NumaNode.model_validate(numa) for key, numa in told.items()} if told else None
    gpus = [GpuInfo.model_validate(gpu) for gpu in json.loads(row.gpu_info)]
    numa_nodes = numa_nodes_of(topology)
    # A row of a version that did not count by NUMA nodes has no amounts of them: the node tells when it registers.
    capacity = json.loads(row.capacity)
    for number in numa_nodes:
        capacity.setdefault(numa_cores(number), capacity.get(CORES, 0))
        capacity.setdefault(numa_memory(number), capacity.get(MEMORY, 0))
    node = Node(
        name=row.name,
        url=row.url,
        capacity=capacity,
        gpus=gpus_of(gpus),
        numa_nodes=numa_nodes,
        given_labels=json.loads(row.labels),
        own_labels=json.loads(row.own_labels),
        engines=frozenset(json.loads(row.engines)),
        engine_notes=json.loads(row.engine_notes),
        journal_id=row.journal_id,
        state=NodeState.ONLINE if row.online else NodeState.OFFLINE,
        problem=row.problem,
        cordoned=row.cordoned,
        draining=row.draining,
        last_heartbeat=seconds(row.last_heartbeat),
    )
    record = NodeRecord(
        nonce=row.nonce,
        joined_at=row.joined_at / 1000,
        version=row.version,
        numa_topology=topology,
        gpu_info=gpus,
    )
    return node, record
