"""What a task in a container costs above the same container by bare calls to the Docker API.

The floor makes its container from the very description that the Runner gave for one of its own (image, argv, mounts,
limits, network), and does no more than create, start, wait and remove. Both take turns in one run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker

from bench.report import Figure, at_least, at_most, median, say, spread
from bench.watching import Watcher, watching
from hakuriver.states import TaskState
from support import engine
from support.cluster import Cluster, running
from support.settings import AS_SHIPPED
from support.waiting import until

NAME = "containers"
TITLE = "Containers: HakuRiver over bare Docker, in turns"

_AT_ONCE = 8
_ROUNDS = 60
_BATCHES = 5
_BATCH = 40
_TASK = {"command": "true", "required_cores": 1}


def measure(folder: Path) -> list[Figure]:
    if reason := engine.why_not():
        return [Figure("containers", "-", note=f"left out: {reason}")]
    with running(Cluster(folder, cores=_AT_ONCE + 1, containers=True, sections=AS_SHIPPED)) as cluster:
        return asyncio.run(_measure(cluster))


async def _measure(cluster: Cluster) -> list[Figure]:
    model = cluster.api.submit_one("sleep", "86400")
    cluster.api.wait_state(model, TaskState.RUNNING)
    floor = Floor(engine.containers_of(cluster.node.name)[0].attrs)
    async with watching(cluster) as watcher:
        one = await _one_at_a_time(watcher, floor, lambda: _settle(cluster))
        figures = one + await _eight_at_a_time(watcher, floor, lambda: _settle(cluster))
    cluster.api.kill(model)
    cluster.api.wait_final(model)
    return figures


async def _one_at_a_time(watcher: Watcher, floor: Floor, settle: Callable[[], None]) -> list[Figure]:
    say("containers, one at a time")
    ours, bare = [], []
    for turn in range(_ROUNDS + 2):
        pair = (await watcher.one(_TASK), await asyncio.to_thread(floor.one_after, settle))
        if turn >= 2:  # the first ones warm both
            ours.append(pair[0])
            bare.append(pair[1])
    ratio = median(ours) / median(bare)
    note = f"{spread(ours, 'ms', 1e3)}; bare {spread(bare, 'ms', 1e3)}"
    return [at_most("submit → completed over bare Docker, median", ratio, 1.08, "{:.3f}", note)]


async def _eight_at_a_time(watcher: Watcher, floor: Floor, settle: Callable[[], None]) -> list[Figure]:
    say(f"containers, {_AT_ONCE} at a time")
    ours, bare = [], []
    for _ in range(_BATCHES):
        ours.append(_BATCH / await watcher.many({**_TASK, "count": _BATCH}))
        await asyncio.to_thread(settle)
        bare.append(_BATCH / await asyncio.to_thread(floor.many, _BATCH, _AT_ONCE))
    note = f"{spread(ours, 'tasks/s')}; bare {spread(bare, 'tasks/s')}"
    return [
        at_least(
            f"throughput, {_AT_ONCE} at a time, over bare Docker's",
            median(ours) / median(bare),
            0.95,
            note=note,
        )
    ]


def _settle(cluster: Cluster) -> None:
    """Until only the model is left: removing the others must not take from the floor's turn."""
    until(lambda: len(engine.containers_of(cluster.node.name)) == 1, "ended containers are removed")


class Floor:
    """Bare Docker: the same container, without HakuRiver."""

    def __init__(self, model: dict[str, Any]) -> None:
        config, host = dict(model["Config"]), dict(model["HostConfig"])
        config.pop("Hostname", None)
        config["Labels"] = {"hakuriver.bench": "floor"}
        # The argument of the model is its sleep; here the command is the task's.
        config["Cmd"] = _without_sleep(config["Cmd"])
        if config.get("Entrypoint"):
            config["Entrypoint"] = _without_sleep(config["Entrypoint"])
        self._config = {**config, "HostConfig": host}
        self._api: Any = docker.from_env().api

    def one(self) -> float:
        start = time.perf_counter()
        container = self._api.create_container_from_config(self._config)["Id"]
        self._api.start(container)
        self._api.wait(container)
        self._api.remove_container(container)
        return time.perf_counter() - start

    def one_after(self, settle: Callable[[], None]) -> float:
        settle()
        return self.one()

    def many(self, count: int, at_once: int) -> float:
        start = time.perf_counter()
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(lambda _: self.one(), range(count)))
        return time.perf_counter() - start


def _without_sleep(argv: list[str] | None) -> list[str]:
    words = [word for word in argv or [] if word != "86400"]
    return ["true" if word == "sleep" else word for word in words]
