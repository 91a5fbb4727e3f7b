"""What a task without container costs: from submission to completed, and how many a second one Runner ends."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from bench.report import Figure, at_least, at_most, median, say, spread
from bench.watching import watching
from support.cluster import Cluster, running
from support.settings import AS_SHIPPED

NAME = "processes"
TITLE = "Processes: one Runner, no container"

_ROUNDS = 200
_BATCHES = 5
_BATCH = 1000
_TASK = {"command": "true", "container_name": "NULL", "required_cores": 1}


def measure(folder: Path) -> list[Figure]:
    with running(Cluster(folder, cores=8, sections=AS_SHIPPED)) as cluster:
        return asyncio.run(_measure(cluster))


async def _measure(cluster: Cluster) -> list[Figure]:
    async with watching(cluster) as watcher:
        say("processes, one at a time")
        times = [await watcher.one(_TASK) for _ in range(_ROUNDS + 5)][5:]
        say("processes, in batches")
        rates = [_BATCH / await watcher.many({**_TASK, "count": _BATCH}) for _ in range(_BATCHES)]
    floor = await asyncio.to_thread(_spawn_floor)
    return [
        at_most("submit → completed, median ms", 1e3 * median(times), 30, "{:.1f}", spread(times, "ms", 1e3)),
        at_least("tasks a second", median(rates), 100, "{:.0f}", f"aim 450; {spread(rates, 'tasks/s')}"),
        Figure(
            "the same program without any queue, a second",
            f"{floor:.0f}",
            note="fork, exec and wait in one process",
        ),
    ]


def _spawn_floor() -> float:
    start = time.perf_counter()
    for _ in range(_BATCH):
        os.waitpid(os.posix_spawnp("true", ["true"], os.environ), 0)
    return _BATCH / (time.perf_counter() - start)
