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
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import psutil

from bench.fleet import Plan
from bench.report import Figure, at_least, at_most, percentile, say, spread
from bench.wire import Connection
from hakuriver.models.runner import SHARED_MARKER
from support.cluster import Cluster, running
from support.ports import free_port
from support.waiting import until

NAME = "scale"
TITLE = "Scale: 500 simulated Runners in two processes, all on the same cores as the Host"

_NODES = 500
_FLEETS = 2
_CORES = 8
_BATCH = 10_000
_CLIENTS = 16
_SINGLES = 16_000
_LOOK_EVERY = 0.1
_TASK = {"command": "true", "container_name": "NULL", "required_cores": 1}
_DEFAULTS = {"timing": {"heartbeat_interval": 5.0, "cleanup_check_interval": 1.0}}


def measure(folder: Path) -> list[Figure]:
    cluster = Cluster(folder, runners=0, sections=_DEFAULTS)
    with running(cluster), _fleets(cluster) as ports:
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
    figures, acknowledged = await _batch(cluster.url, token, ports)
    more, singles = await _singles(cluster.url, token, cluster.host.pid)
    return [*figures, *more], acknowledged | singles


async def _batch(url: str, token: str, ports: list[int]) -> tuple[list[Figure], set[int]]:
    say(f"one request of {_BATCH:,} tasks")
    async with Connection(url, token) as calls, _looking(url, token) as looks:
        body = json.dumps({**_TASK, "count": _BATCH, "name": "batch"}).encode()
        start = time.time()
        status, answer = await calls.call("POST", "/api/submit", body)
        accepted = time.time() - start
        if status != 202:
            raise RuntimeError(f"the batch: {status} {answer[:500]!r}")
        tasks = {int(task) for task in json.loads(answer)["task_ids"]}
        dispatched = await _all_dispatched(ports) - start
    figures = [
        at_most(f"{_BATCH:,} tasks accepted by one request, seconds", accepted, 1.0),
        at_least(
            "dispatched a second",
            _BATCH / dispatched,
            500,
            "{:.0f}",
            f"the last start came after {dispatched:.1f} s",
        ),
        *_looked(looks, "while they are dispatched"),
    ]
    return figures, tasks


async def _all_dispatched(ports: list[int]) -> float:
    """When the last start came to a node."""
    async with httpx.AsyncClient() as client, asyncio.timeout(300):
        while True:
            stats = [(await client.get(f"http://127.0.0.1:{port}/stats")).json() for port in ports]
            if sum(part["started"] for part in stats) >= _BATCH:
                return max(float(part["last"]) for part in stats)
            await asyncio.sleep(0.1)


async def _singles(url: str, token: str, host_pid: int) -> tuple[list[Figure], set[int]]:
    say(f"{_SINGLES:,} single submissions by {_CLIENTS} clients")
    numbers = itertools.count()
    times: list[float] = []
    tasks: set[int] = set()

    async def client() -> None:
        async with Connection(url, token) as calls:
            while (number := next(numbers)) < _SINGLES:
                body = json.dumps({**_TASK, "arguments": [str(number)]}).encode()
                begin = time.perf_counter()
                status, answer = await calls.call(
                    "POST", "/api/submit", body, f"Idempotency-Key: {number}\r\n"
                )
                times.append(time.perf_counter() - begin)
                if status != 202:
                    raise RuntimeError(f"a submission: {status} {answer[:500]!r}")
                tasks.update(int(task) for task in json.loads(answer)["task_ids"])

    async with _looking(url, token) as looks:
        before, start = psutil.Process(host_pid).cpu_times(), time.perf_counter()
        await asyncio.gather(*(client() for _ in range(_CLIENTS)))
        seconds = time.perf_counter() - start
        after = psutil.Process(host_pid).cpu_times()
    busy = (after.user + after.system - before.user - before.system) / seconds
    note = f"{spread(times, 'ms', 1e3)}; the Host used {busy:.0%} of a core"
    figures = [
        at_least(
            f"durable single submissions a second, {_CLIENTS} clients",
            len(tasks) / seconds,
            2000,
            "{:.0f}",
            note,
        ),
        *_looked(looks, "while they are submitted"),
    ]
    return figures, tasks


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
