"""Simulated Runners: many nodes in one process, each with its own name, tokens, heartbeats and connection to the Host.

They speak real HTTP in both directions. The Host reaches node 17 at `http://127.0.0.1:PORT/node-17`; what is started
there "runs" for a given time, or for ever when its argument is `hold`, then its running and completed reports go back, as many as there are in one request.
`GET /stats` tells how much was started and when. Run as `python -m bench.fleet`, with its arguments as JSON.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import time
from datetime import UTC, datetime
from typing import Any, cast

import httptools
import uvloop

from bench.wire import Body, Connection
from hakuriver.version import __version__

HOLD = "hold"
"""The argument of tasks that never end."""

_MEMORY = 64_000_000_000
_JOIN_AT_ONCE = 20


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What a fleet is to do."""

    host_url: str
    join_token: str
    shared_id: str
    port: int
    first: int
    count: int
    cores: int
    heartbeat_seconds: float
    task_seconds: float


@dataclasses.dataclass(slots=True)
class Stats:
    """What was started, by `time.time`."""

    nodes: int = 0
    started: int = 0
    first: float = 0.0
    last: float = 0.0
    heartbeats: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)


class Node:
    """One simulated Runner."""

    def __init__(self, plan: Plan, number: int, stats: Stats) -> None:
        self.name = f"node-{number}"
        self.control_token = ""
        self._plan = plan
        self._stats = stats
        self._calls: Connection | None = None
        self._one_call = asyncio.Lock()
        self._reports: list[dict[str, Any]] = []
        self._work = asyncio.Event()

    async def live(self, joining: asyncio.Semaphore, turn: float) -> None:
        """Joins, registers, then beats and reports for ever."""
        async with joining:
            await self._join()
        self._stats.nodes += 1
        reporting = asyncio.create_task(self._report())
        await asyncio.sleep(turn * self._plan.heartbeat_seconds)
        while not reporting.done():
            await self._call("PUT", f"/api/heartbeat/{self.name}", self._health())
            self._stats.heartbeats += 1
            await asyncio.sleep(self._plan.heartbeat_seconds)
        await reporting

    def start(self, attempts: list[dict[str, Any]]) -> dict[str, Any]:
        now = time.time()
        self._stats.first = self._stats.first or now
        self._stats.last = now
        self._stats.started += len(attempts)
        ending = [attempt for attempt in attempts if attempt.get("arguments") != [HOLD]]
        asyncio.get_running_loop().call_later(
            self._plan.task_seconds, self._end, ending, datetime.now(UTC).isoformat()
        )
        results = [
            {"task_id": a["task_id"], "attempt": a["attempt"], "outcome": "accepted"} for a in attempts
        ]
        return {"results": results}

    def act(self, attempts: list[dict[str, Any]]) -> dict[str, Any]:
        return {"results": [{"task_id": a["task_id"], "attempt": a["attempt"], "ok": True} for a in attempts]}

    def _end(self, attempts: list[dict[str, Any]], started: str) -> None:
        ended = datetime.now(UTC).isoformat()
        for attempt in attempts:
            base = {"task_id": attempt["task_id"], "attempt": attempt["attempt"], "started_at": started}
            self._reports.append({**base, "sequence": 1, "status": "running"})
            final = {"sequence": 2, "status": "completed", "exit_code": 0, "completed_at": ended}
            self._reports.append({**base, **final})
        self._work.set()

    async def _report(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            reports, self._reports = self._reports, []
            await self._call("POST", "/api/update", {"hostname": self.name, "reports": reports})

    async def _join(self) -> None:
        url = f"http://127.0.0.1:{self._plan.port}/{self.name}"
        async with Connection(self._plan.host_url, self._plan.join_token) as calls:
            tokens = await calls.json("POST", "/api/join", {"hostname": self.name, "runner_url": url})
        self.control_token = tokens["control_token"]
        self._calls = Connection(self._plan.host_url, tokens["node_token"])
        await self._calls.open()
        registration = {
            "hostname": self.name,
            "total_cores": self._plan.cores,
            "total_ram_bytes": _MEMORY,
            "runner_url": url,
            "version": __version__,
            "journal_id": self.name,
            "engines": ["docker", "process"],
            "shared_id": self._plan.shared_id,
        }
        answer = await self._call("POST", "/api/register", registration)
        if answer.get("problem"):
            self._stats.problems.append(answer["problem"])

    def _health(self) -> dict[str, Any]:
        used = {"memory_used_bytes": _MEMORY // 4, "memory_total_bytes": _MEMORY}
        return {"running_tasks": [], "cpu_percent": 12.5, "memory_percent": 25.0, **used}

    async def _call(self, method: str, path: str, body: dict[str, Any]) -> Any:
        assert self._calls is not None
        async with self._one_call:
            try:
                return await self._calls.json(method, path, body)
            except (RuntimeError, ConnectionError) as error:
                self._stats.problems.append(f"{self.name}: {error}")
                raise


class Server(asyncio.Protocol):
    """What the Host calls: start, kill, pause, resume and health of each node, by the prefix of the path."""

    def __init__(self, nodes: dict[str, Node], stats: Stats) -> None:
        self._nodes = nodes
        self._stats = stats
        self._message = Body()
        self._parser = httptools.HttpRequestParser(self._message)
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)
        if self._message.complete:
            path = self._message.url.decode("ascii").partition("?")[0]
            answer = json.dumps(self._answer(path, self._message.take())).encode()
            head = (
                f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n\r\n"
            )
            assert self._transport is not None
            self._transport.write(head.encode("ascii") + answer)
            self._parser = httptools.HttpRequestParser(self._message)

    def _answer(self, path: str, body: bytes) -> dict[str, Any]:
        if path == "/stats":
            return dataclasses.asdict(self._stats)
        _, name, _, verb = path.split("/", 3)
        node = self._nodes[name]
        if verb == "start":
            return node.start(json.loads(body)["attempts"])
        if verb in {"kill", "pause", "resume"}:
            return node.act(json.loads(body)["attempts"])
        health = {"hostname": name, "version": __version__, "journal_id": name}
        return {**health, "running": 0, "engines": ["docker", "process"], "attempts": []}


async def serve(plan: Plan) -> None:
    stats = Stats()
    numbers = range(plan.first, plan.first + plan.count)
    nodes = {node.name: node for node in (Node(plan, number, stats) for number in numbers)}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Server(nodes, stats), "127.0.0.1", plan.port, backlog=1024)
    joining = asyncio.Semaphore(_JOIN_AT_ONCE)
    async with server:
        lives = (node.live(joining, index / plan.count) for index, node in enumerate(nodes.values()))
        await asyncio.gather(*lives)


if __name__ == "__main__":
    uvloop.run(serve(Plan(**json.loads(sys.argv[1]))))
