"""Placement: what a decision costs as nodes and queue grow. The pure domain alone, without database or network."""

from __future__ import annotations

import random
import time
from pathlib import Path
from statistics import median

from bench.report import Figure, at_most, say
from hakuriver.models.submission import SubmitRequest
from hakuriver.states import NodeState, TaskState
from hakuriver_host.db.rows import request_of
from hakuriver_host.domain import reactor
from hakuriver_host.domain.attempts import end
from hakuriver_host.domain.gpus import Gpu
from hakuriver_host.domain.model import Batch, Effects, Node, Now, Task
from hakuriver_host.domain.turns import Shares

NAME = "placement"
TITLE = "Placement: one task has ended on a full cluster, and all that waits is looked at"

_USERS, _KINDS = 20, 50
_ENDS = 40
_WEEK = 7 * 86_400.0
_GIGA = 10**9
_SIZES = ((10, 1_000), (10, 100_000), (100, 10_000), (1_000, 1_000), (1_000, 10_000), (1_000, 100_000))


def measure(folder: Path) -> list[Figure]:
    del folder
    figures = []
    for nodes, tasks in _SIZES:
        say(f"{nodes} nodes, {tasks} tasks")
        passes, ends = _costs(nodes, tasks)
        largest = (nodes, tasks) == _SIZES[-1]
        name = f"{nodes:,} nodes, {tasks:,} tasks: ms for a pass, median"
        cost = 1e3 * median(passes)
        note = f"the end of a task itself {1e3 * median(ends):.3f} ms; longest pass {1e3 * max(passes):.1f}"
        figures.append(
            at_most(name, cost, 50, "{:.1f}", note) if largest else Figure(name, f"{cost:.1f}", note=note)
        )
    return figures


def _costs(nodes: int, tasks: int) -> tuple[list[float], list[float]]:
    """Seconds of each pass after an end, with all rounds that it takes, and of each end."""
    chance = random.Random(1)
    cluster = _cluster(nodes)
    waiting = _tasks(tasks, chance)
    reactor.on_submit(cluster, waiting)
    clock = 0.0
    while reactor.on_schedule(cluster, _now(clock)).schedule:
        clock += 1.0
    running = [task for task in waiting if task.state is TaskState.ASSIGNING]
    passes, ends = [], []
    for _ in range(min(_ENDS, len(running))):
        task = running.pop(chance.randrange(len(running)))
        clock += 1.0
        before = time.perf_counter()
        end(cluster, task, TaskState.COMPLETED, _now(clock), Effects(), "")
        between = time.perf_counter()
        while reactor.on_schedule(cluster, _now(clock)).schedule:
            continue
        ends.append(between - before)
        passes.append(time.perf_counter() - between)
    return passes, ends


def _now(clock: float) -> Now:
    return Now(1.8e9 + clock, clock)


def _cluster(number: int) -> reactor.Cluster:
    """Nodes of 32 cores, every fourth with four GPUs."""
    cluster = reactor.Cluster(shares=Shares(_WEEK))
    for index in range(number):
        node = Node(f"node-{index:04}", f"http://node-{index}", {"cores": 32, "memory": 128 * _GIGA})
        node.engines, node.state, node.reconciled = frozenset({"docker"}), NodeState.ONLINE, True
        if index % 4 == 0:
            node.gpus = tuple(Gpu(f"{node.name}-{gpu}", gpu, "A100", 80 << 30, gpu // 2) for gpu in range(4))
        cluster.nodes[node.name] = node
    return cluster


def _tasks(number: int, chance: random.Random) -> list[Task]:
    """Of several users, who ask for as many kinds of things as people do."""
    kinds = [
        SubmitRequest(
            command="x",
            required_cores=chance.choice([1, 1, 2, 4, 8, 16]),
            required_memory_bytes=chance.choice([None, 1, 4, 16]) and chance.choice([1, 4, 16]) * _GIGA,
            gpus=chance.choice([0, 0, 0, 1, 2]),
            container_name="base",
        )
        for _ in range(_KINDS)
    ]
    batches = [
        Batch(index + 1, f"user-{index % _USERS}", 0.0, chance.choice(kinds), "base", "1")
        for index in range(_USERS * _KINDS)
    ]
    made = []
    for index in range(number):
        batch = chance.choice(batches)
        made.append(Task(10_000 + index, batch, 0, None, request_of(batch.spec, None)))
    return made
