"""Nodes: joining, registering, their heartbeats and reports, and what people see of them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from hakuriver.errors import (
    ConflictError,
    DeniedError,
    HakuRiverError,
    NotFoundError,
    StorageError,
    UsageError,
)
from hakuriver.models.nodes import NodeDuty, NodeInfo, NodeLabels
from hakuriver.models.runner import (
    HeartbeatRequest,
    JoinRequest,
    JoinResponse,
    RegisterRequest,
    RegisterResponse,
    UpdateRequest,
    UpdateResponse,
)
from hakuriver.models.tasks import Message
from hakuriver.models.usage import TaskUsage
from hakuriver.states import NodeState, TaskState
from hakuriver.targets import NODE_NAME
from hakuriver.version import __version__
from hakuriver_host.db import rows
from hakuriver_host.db.writer import Changes
from hakuriver_host.domain import reactor
from hakuriver_host.domain.model import (
    CORES,
    MEMORY,
    Effects,
    Node,
    Registration,
    Task,
    numa_cores,
    numa_memory,
)
from hakuriver_host.runners import RunnerClient
from hakuriver_host.services.access import Access, Principal
from hakuriver_host.services.core import Core, optional_moment

log = structlog.get_logger(__name__)


class Nodes:
    def __init__(
        self, core: Core, access: Access, client: Callable[[str, str], RunnerClient], share_id: str
    ) -> None:
        self._core = core
        self._access = access
        self._client = client
        self._share_id = share_id
        self._told: dict[str, tuple[tuple[Any, ...], bytes]] = {}
        """What lists told of each node last, as JSON, and what that was made from."""

    def client(self, node: Node) -> RunnerClient:
        """To call the node's Runner."""
        return self._client(
            node.url, self._access.control_token(node.name, self._core.records[node.name].nonce)
        )

    def client_of(self, name: str | None) -> RunnerClient:
        """To call the Runner of the node that a task is on.

        Raises:
            ConflictError: it is offline, or gone.
        """
        node = self._core.cluster.nodes.get(name or "")
        if node is None or node.state is NodeState.OFFLINE:
            raise ConflictError(f"{name} is offline", "try again when it is back")
        return self.client(node)

    async def join(self, request: JoinRequest) -> JoinResponse:
        """Gives a node its own secrets, for the join token.

        Raises:
            UsageError: the name cannot be a node's.
            ConflictError: a node of that name is online.

        """
        name = request.hostname
        if not NODE_NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot be a node's name",
                "set runner.name: letters, digits and . _ - inside, at most 64",
            )
        node = self._core.cluster.nodes.get(name)
        if node is not None and node.works:
            raise ConflictError(
                f"a node named {name} is online already, at {node.url}",
                "set another runner.name on one of the two",
            )
        core = self._core
        record = rows.NodeRecord(nonce=secrets.token_hex(16), joined_at=core.now().wall)
        former, core.records[name] = core.records.get(name), record
        row = rows.node_row(node or Node(name, request.runner_url, {}), record)
        try:
            await core.writer.write(Changes(nodes={name: row}), firm=False)
        except StorageError:
            self._take_back(name, record, former)
            raise
        token = await self._access.node_token(name)
        if core.records.get(name) is not record:
            raise ConflictError(f"{name} was removed or joined anew meanwhile", "join again")
        log.info("node joined", node=name, url=request.runner_url)
        return JoinResponse(node_token=token, control_token=self._access.control_token(name, record.nonce))

    async def register(self, request: RegisterRequest, principal: Principal) -> RegisterResponse:
        """Takes a Runner up, reconciles what it holds, and says whether it can be reached back."""
        _check_self(principal, request.hostname)
        core = self._core
        record = core.records.get(request.hostname)
        if record is None:
            raise NotFoundError(f"no node {request.hostname} has joined", "join with the join token")
        record.version, record.numa_topology, record.gpu_info = (
            request.version,
            request.numa_topology,
            request.gpu_info,
        )
        number = reactor.on_registering(core.cluster, request.hostname)
        unreachable = await self._unreachable(request)
        if core.records.get(request.hostname) is not record:
            raise NotFoundError(f"{request.hostname} was removed or joined anew meanwhile", "register again")
        problem = unreachable or self._share(request)
        effects, verdicts = reactor.on_register(
            core.cluster, _registration(request, problem), number, core.now()
        )
        await core.apply(effects)
        log.info("node registered", node=request.hostname, url=request.runner_url, problem=problem or None)
        return RegisterResponse(
            message=f"{request.hostname} is registered",
            version=__version__,
            heartbeat_interval_seconds=core.settings.timing.heartbeat_interval,
            reachable=not unreachable,
            problem=problem or None,
            verdicts=verdicts,
        )

    def heartbeat(self, name: str, request: HeartbeatRequest, principal: Principal) -> None:
        """Notes that the node lives, in memory.

        Raises:
            NotFoundError: it has to register (again).

        """
        _check_self(principal, name)
        if not reactor.on_heartbeat(self._core.cluster, name, request, self._core.now()):
            raise NotFoundError(f"{name} is not registered now", "register")

    async def update(self, request: UpdateRequest, principal: Principal) -> UpdateResponse:
        """Takes reports. When this returns they are durable."""
        _check_self(principal, request.hostname)
        core = self._core
        effects, verdicts = reactor.on_reports(core.cluster, request.hostname, request.reports, core.now())
        await core.apply(effects)
        return UpdateResponse(message=f"{len(request.reports)} reports taken", verdicts=verdicts)

    async def cordon(self, name: str, *, drain: bool = False) -> NodeDuty:
        """Keeps new attempts from the node. Returns when that is durable."""
        await self._core.apply(reactor.on_cordon(self._core.cluster, name, drain=drain))
        return self._duty(name, "is cordoned and drains" if drain else "is cordoned")

    async def uncordon(self, name: str) -> NodeDuty:
        """Lets the node have work again."""
        await self._core.apply(reactor.on_uncordon(self._core.cluster, name))
        return self._duty(name, "may have work again")

    async def label(self, name: str, changes: Mapping[str, str | None]) -> NodeLabels:
        """Changes a node's labels. Returns when that is durable.

        Raises:
            ConflictError: it would have too many.
            NotFoundError: there is no such node.

        """
        await self._core.apply(reactor.on_label(self._core.cluster, name, changes))
        node = self._core.cluster.nodes.get(name)
        return NodeLabels(hostname=name, labels=node.labels if node else {})

    async def remove(self, name: str, *, force: bool) -> Message:
        """Forgets the node and its tokens: to come back it must join. Its tasks stay on the record.

        Raises:
            ConflictError: it is online or holds attempts, and is not forced away.
            NotFoundError: there is no such node.

        """
        core = self._core
        if name in core.records and name not in core.cluster.nodes:
            effects = Effects(removed={name})  # It has joined, and never registered.
        else:
            effects = reactor.on_remove(core.cluster, name, core.now(), force=force)
        lost = len(effects.tasks)
        await core.apply(effects, self._access.forget_node(name))
        log.info("node removed", node=name, given_up=lost)
        return Message(
            message=f"{name} is removed" + (f"; {lost} of its attempts are given up" if lost else "")
        )

    def list_json(self) -> bytes:
        """All nodes by name: a list of `NodeInfo`."""
        nodes = self._core.cluster.nodes
        if len(self._told) > len(nodes):
            self._told = {name: told for name, told in self._told.items() if name in nodes}
        return b"[" + b",".join(self._current(node) for _, node in sorted(nodes.items())) + b"]"

    def _take_back(self, name: str, record: rows.NodeRecord, former: rows.NodeRecord | None) -> None:
        """The node is as it was before a joining that could not be written."""
        if self._core.records.get(name) is not record:
            return
        if former is None:
            del self._core.records[name]
        else:
            self._core.records[name] = former

    def _duty(self, name: str, message: str) -> NodeDuty:
        core = self._core
        if name not in core.cluster.nodes:
            raise NotFoundError(f"{name} was removed meanwhile", "list them with `hakuriver node list`")
        node, held = core.cluster.nodes[name], sorted(core.cluster.ledger.holders(name))
        return NodeDuty(
            message=f"{name} {message}",
            hostname=name,
            cordoned=node.cordoned,
            draining=node.draining,
            held_tasks=held,
            sequence=core.last_event,
        )

    def _current(self, node: Node) -> bytes:
        """Made anew only when something that it tells has changed: of many nodes few have between two lists."""
        ledger, record = self._core.cluster.ledger, self._core.records[node.name]
        # What changes most often is first: the rest is not compared then.
        seen = (
            node.last_heartbeat,
            node.heartbeat,
            node.state,
            node.reconciled,
            node.problem,
            node.cordoned,
            node.draining,
            node.url,
            node.capacity,
            node.engines,
            record.version,
            record.numa_topology,
            record.gpu_info,
            ledger.held(node.name, CORES),
            ledger.held(node.name, MEMORY),
            len(ledger.holders(node.name)),
            {uuid: tuple(holders) for uuid, holders in ledger.gpus(node.name).items()},
            node.labels,
        )
        known = self._told.get(node.name)
        if known is None or known[0] != seen:
            told = self._info(node).model_dump_json().encode()
            known = self._told[node.name] = (seen, told)
        return known[1]

    def _info(self, node: Node) -> NodeInfo:
        ledger, record, beat = self._core.cluster.ledger, self._core.records[node.name], node.heartbeat
        cores, memory = node.capacity.get(CORES, 0), node.capacity.get(MEMORY, 0)
        cores_held, memory_held = ledger.held(node.name, CORES), ledger.held(node.name, MEMORY)
        return NodeInfo(
            hostname=node.name,
            url=node.url,
            status=node.state,
            schedulable=node.ready,
            cordoned=node.cordoned,
            draining=node.draining,
            problem="; ".join(filter(None, [node.problem, *beat.problems])),
            version=record.version,
            engines=sorted(node.engines),
            total_cores=cores,
            cores_in_use=cores_held,
            available_cores=max(0, cores - cores_held),
            total_memory_bytes=memory,
            memory_in_use_bytes=memory_held,
            available_memory_bytes=max(0, memory - memory_held),
            running_tasks=len(ledger.holders(node.name)),
            cpu_percent=beat.cpu_percent,
            memory_percent=beat.memory_percent,
            memory_used_bytes=beat.memory_used_bytes,
            current_avg_temp=beat.current_avg_temp,
            current_max_temp=beat.current_max_temp,
            last_heartbeat=optional_moment(node.last_heartbeat),
            numa_topology=record.numa_topology,
            gpu_info=beat.gpu_info or record.gpu_info,
            gpu_tasks={uuid: holders[0] for uuid, holders in ledger.gpus(node.name).items()},
            gpu_sharers={
                uuid: list(holders) for uuid, holders in ledger.gpus(node.name).items() if len(holders) > 1
            },
            labels=node.labels,
        )

    async def _unreachable(self, request: RegisterRequest) -> str:
        """Calls the Runner back at the address it gave; empty when it is the right one that answers."""
        record = self._core.records[request.hostname]
        client = self._client(request.runner_url, self._access.control_token(request.hostname, record.nonce))
        try:
            health = await client.health()
        except HakuRiverError as error:
            return f"{error.message} ({error.hint})"
        if health.journal_id != request.journal_id:
            return f"at {request.runner_url} another Runner answers, named {health.hostname} (give each its own address and port)"
        return ""

    def _share(self, request: RegisterRequest) -> str:
        if request.shared_id is None:
            return "the node cannot read the shared directory (check its mount and paths.shared_dir)"
        if request.shared_id != self._share_id:
            return "the node's shared directory is not the Host's (check its mount and paths.shared_dir)"
        return ""


RUNNING = frozenset({TaskState.RUNNING, TaskState.PAUSED})


def used_so_far(core: Core, task: Task) -> TaskUsage | None:
    """What a task uses that runs: by the last heartbeat of its node, and before that tells, by its attempt's last report."""
    node = core.cluster.nodes.get(task.node or "")
    told = node.heartbeat.usage.get(f"{task.task_id}-{task.attempt}") if node is not None else None
    return told or task.usage


def live_counts(core: Core) -> dict[str, int]:
    """Tasks that are not final, by state."""
    counts = {state.value: 0 for state in TaskState}
    for task in core.cluster.tasks.values():
        counts[task.state.value] += 1
    return counts


async def persist_heartbeats(core: Core) -> None:
    """Writes the nodes' last signs of life, all at once."""
    changes = Changes(
        nodes={name: rows.node_row(node, core.records[name]) for name, node in core.cluster.nodes.items()}
    )
    if changes.nodes:
        await asyncio.shield(core.writer.write(changes))


def _check_self(principal: Principal, name: str) -> None:
    if principal.name != name:
        raise DeniedError(
            f"this token is of node {principal.name}, not of {name}", "join again under the new name"
        )


def _registration(request: RegisterRequest, problem: str) -> Registration:
    # A node that offers more cores than it has can give none of them to one task alone.
    cpus = tuple(dict.fromkeys(request.cpus))
    if len(cpus) < request.total_cores:
        cpus = ()
    return Registration(
        name=request.hostname,
        url=request.runner_url,
        capacity=_capacity(request, cpus),
        gpus=rows.gpus_of(request.gpu_info),
        gpu_note=request.gpu_note,
        numa_nodes=rows.numa_nodes_of(request.numa_topology),
        engines=frozenset(request.engines),
        engine_notes=request.engine_notes,
        journal_id=request.journal_id,
        problem=problem,
        allow_privileged=request.allow_privileged,
        mount_roots=None if request.mount_roots is None else tuple(request.mount_roots),
        attempts=tuple(request.attempts),
        cpus=cpus,
        tasks_per_gpu=request.tasks_per_gpu,
        labels=request.labels,
    )


def _capacity(request: RegisterRequest, cpus: tuple[int, ...]) -> dict[str, int]:
    """What the node has to give, of each of its NUMA nodes too."""
    capacity = {CORES: request.total_cores, MEMORY: request.total_ram_bytes}
    for key, numa in (request.numa_topology or {}).items():
        number = int(key)
        capacity[numa_cores(number)] = (
            len(set(cpus).intersection(numa.cores)) if cpus else request.total_cores
        )
        memory = request.total_ram_bytes if numa.memory_bytes is None else numa.memory_bytes
        capacity[numa_memory(number)] = min(memory, request.total_ram_bytes)
    return capacity
