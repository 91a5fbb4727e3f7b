"""What one Host bears: 500 simulated Runners that beat, a batch of 10,000 tasks, single submissions, and people who look.

The Runners are in other processes and speak real HTTP. Afterwards the Host is killed, and its database must hold
every submission that it acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import psutil

from bench.fleet import HOLD, Plan
from bench.report import Figure, at_least, at_most, percentile, say, spread
from bench.wire import Connection
from hakuriver.models.runner import SHARED_MARKER
from support.cluster import Cluster, running
from support.ports import free_port
from support.settings import AS_SHIPPED
from support.waiting import until

NAME = "scale"
TITLE = "Scale: 500 simulated Runners in two processes, all on the same cores as the Host"

_NODES = 500
_FLEETS = 2
_CORES = 8
_BATCH = 10_000
_CLIENTS = 16
_SINGLES = 10_000
_LOOK_EVERY = 0.1
_TASK = {"command": "true", "container_name": "NULL", "required_cores": 1}


def measure(folder: Path) -> list[Figure]:
    cluster = Cluster(folder, runners=0, sections=AS_SHIPPED)
    with running(cluster):
        with _fleets(cluster) as ports:
            figures, acknowledged = asyncio.run(_measure(cluster, ports))
        cluster.host.kill()
    stored = _stored(cluster)
    missing = len(acknowledged - stored)
    return [
        *figures,
        at_most(
            "acknowledged submissions that a killed Host lost",
            missing,
            0,
            "{:.0f}",
            f"of {len(acknowledged)}",
        ),
    ]


async def _measure(cluster: Cluster, ports: list[int]) -> tuple[list[Figure], set[int]]:
    token = (cluster.state_dir / "admin.token").read_text("utf-8").strip()
    bench = _Bench(cluster.url, token, ports, cluster.host.pid)
    figures = await bench.batch()
    figures += await bench.singles("while each is dispatched at once", None)
    await bench.fill()
    figures += await bench.singles("while all nodes are full", 2000)
    return figures, bench.acknowledged


class _Bench:
    """The loads, one after the other, on one Host. `acknowledged` has the ids of all tasks that it accepted."""

    def __init__(self, url: str, token: str, ports: list[int], host_pid: int) -> None:
        self.acknowledged: set[int] = set()
        self._url = url
        self._token = token
        self._ports = ports
        self._host = psutil.Process(host_pid)

    async def batch(self) -> list[Figure]:
        say(f"one request of {_BATCH:,} tasks")
        async with _looking(self._url, self._token) as looks:
            start = time.time()
            await self._submit_many({**_TASK, "count": _BATCH, "name": "batch"})
            accepted = time.time() - start
            dispatched = await self._started(_BATCH) - start
        note = f"the last start came after {dispatched:.1f} s"
        return [
            at_most(f"{_BATCH:,} tasks accepted by one request, seconds", accepted, 1.0),
            at_least("dispatched a second", _BATCH / dispatched, 500, "{:.0f}", note),
            *_looked(looks, "meanwhile"),
        ]

    async def fill(self) -> None:
        """Every core of every node gets a task that does not end."""
        before = sum(part["started"] for part in await self._stats())
        full = _NODES * _CORES
        await self._submit_many({**_TASK, "arguments": [HOLD], "count": full})
        await self._started(before + full)

    async def singles(self, when: str, aim: float | None) -> list[Figure]:
        say(f"{_SINGLES:,} single submissions by {_CLIENTS} clients, {when}")
        numbers, times = itertools.count(), list[float]()
        async with _looking(self._url, self._token) as looks:
            before, start = self._host.cpu_times(), time.perf_counter()
            await asyncio.gather(*(self._client(numbers, times) for _ in range(_CLIENTS)))
            seconds = time.perf_counter() - start
            after = self._host.cpu_times()
        busy = (after.user + after.system - before.user - before.system) / seconds
        name = f"durable single submissions a second, {_CLIENTS} clients, {when}"
        note = f"{spread(times, 'ms', 1e3)}; the Host used {busy:.0%} of a core"
        rate = len(times) / seconds
        told = at_least(name, rate, aim, "{:.0f}", note) if aim else Figure(name, f"{rate:.0f}", note=note)
        return [told, *_looked(looks, "meanwhile")]

    async def _client(self, numbers: Iterator[int], times: list[float]) -> None:
        async with Connection(self._url, self._token) as calls:
            while (number := next(numbers)) < _SINGLES:
                body = json.dumps({**_TASK, "arguments": [str(number)]}).encode()
                begin = time.perf_counter()
                key = f"Idempotency-Key: {uuid.uuid4()}\r\n"
                status, answer = await calls.call("POST", "/api/submit", body, key)
                times.append(time.perf_counter() - begin)
                self._accept(status, answer)

    async def _submit_many(self, body: dict[str, object]) -> None:
        async with Connection(self._url, self._token) as calls:
            self._accept(*await calls.call("POST", "/api/submit", json.dumps(body).encode()))

    def _accept(self, status: int, answer: bytes) -> None:
        if status != HTTPStatus.ACCEPTED:
            raise RuntimeError(f"a submission: {status} {answer[:500]!r}")
        self.acknowledged.update(int(task) for task in json.loads(answer)["task_ids"])

    async def _started(self, count: int) -> float:
        """When that many starts had come to the nodes."""
        async with asyncio.timeout(300):
            while True:
                stats = await self._stats()
                if sum(part["started"] for part in stats) >= count:
                    return max(float(part["last"]) for part in stats)
                await asyncio.sleep(0.1)

    async def _stats(self) -> list[dict[str, Any]]:
        stats: list[dict[str, Any]] = []
        for port in self._ports:
            async with Connection(f"http://127.0.0.1:{port}", "") as calls:
                stats.append(await calls.json("GET", "/stats"))
        return stats


@contextlib.asynccontextmanager
async def _looking(url: str, token: str) -> AsyncIterator[dict[str, list[float]]]:
    """Asks for the lists of tasks and nodes again and again; how long each answer took, by path."""
    times: dict[str, list[float]] = {"/api/tasks": [], "/api/nodes": []}

    async def look(path: str) -> None:
        async with Connection(url, token) as calls:
            while True:
                begin = time.perf_counter()
                status, _ = await calls.call("GET", path)
                assert status == 200, f"{path}: {status}"
                times[path].append(time.perf_counter() - begin)
                await asyncio.sleep(_LOOK_EVERY)

    looks = [asyncio.create_task(look(path)) for path in times]
    try:
        yield times
    finally:
        for task in looks:
            task.cancel()
        results = await asyncio.gather(*looks, return_exceptions=True)
    for result in results:
        if not isinstance(result, asyncio.CancelledError) and isinstance(result, BaseException):
            raise result


def _looked(times: dict[str, list[float]], when: str) -> list[Figure]:
    return [
        at_most(
            f"GET {path} {when}, p95 ms",
            1e3 * percentile(taken, 0.95),
            100,
            "{:.0f}",
            spread(taken, "ms", 1e3),
        )
        for path, taken in times.items()
    ]


@contextlib.contextmanager
def _fleets(cluster: Cluster) -> Iterator[list[int]]:
    """Starts the simulated Runners and waits until the Host gives all of them work."""
    say(f"{_NODES} simulated Runners join")
    ports = [free_port() for _ in range(_FLEETS)]
    each = _NODES // _FLEETS
    fleets = [_start_fleet(cluster, port, index * each, each) for index, port in enumerate(ports)]
    try:
        until(lambda: _ready(cluster, fleets), "all simulated Runners online", 120)
        yield ports
    finally:
        for fleet in fleets:
            fleet.terminate()
            fleet.wait()


def _ready(cluster: Cluster, fleets: list[subprocess.Popen[bytes]]) -> bool:
    assert all(fleet.poll() is None for fleet in fleets), "a process of simulated Runners ended"
    return sum(node.schedulable for node in cluster.api.nodes().values()) == _NODES


def _start_fleet(cluster: Cluster, port: int, first: int, count: int) -> subprocess.Popen[bytes]:
    plan = Plan(
        host_url=cluster.url,
        join_token=(cluster.state_dir / "join.token").read_text("utf-8").strip(),
        shared_id=(cluster.shared / SHARED_MARKER).read_text("utf-8").strip(),
        port=port,
        first=first,
        count=count,
        cores=_CORES,
        heartbeat_seconds=5.0,
        task_seconds=0.5,
    )
    arguments = {name: getattr(plan, name) for name in Plan.__slots__}
    return subprocess.Popen([sys.executable, "-m", "bench.fleet", json.dumps(arguments)])


def _stored(cluster: Cluster) -> set[int]:
    with contextlib.closing(sqlite3.connect(cluster.state_dir / "host.db")) as database:
        return {task for (task,) in database.execute("SELECT task_id FROM task")}
