"""Submits to a Host and is told of each end by its event stream, so that waiting costs nothing that is measured."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from bench.wire import Connection
from hakuriver.states import FINAL
from support.cluster import Cluster

_PATIENCE = 300


class Watcher:
    """Knows when each task became final, by `time.perf_counter`."""

    def __init__(self, calls: Connection) -> None:
        self.calls = calls
        self.ended: dict[str, tuple[float, str]] = {}
        self._changed = asyncio.Event()

    async def submit(self, body: dict[str, Any]) -> list[str]:
        status, answer = await self.calls.call("POST", "/api/submit", json.dumps(body).encode())
        if status != 202:
            raise RuntimeError(f"submission: {status} {answer[:500]!r}")
        ids: list[str] = json.loads(answer)["task_ids"]
        return ids

    async def all_ended(self, tasks: list[str]) -> None:
        """Until each of them is final; one that did not complete ends the measurement."""
        deadline = time.monotonic() + _PATIENCE
        while any(task not in self.ended for task in tasks):
            self._changed.clear()
            async with asyncio.timeout(deadline - time.monotonic()):
                await self._changed.wait()
        bad = {self.ended[task][1] for task in tasks} - {"completed"}
        if bad:
            raise RuntimeError(f"tasks ended {bad}")

    async def one(self, body: dict[str, Any]) -> float:
        """Seconds from submission to completed."""
        start = time.perf_counter()
        (task,) = await self.submit(body)
        await self.all_ended([task])
        return self.ended[task][0] - start

    async def many(self, body: dict[str, Any]) -> float:
        """Seconds from one submission to the last of its tasks completed."""
        start = time.perf_counter()
        tasks = await self.submit(body)
        await self.all_ended(tasks)
        return max(self.ended[task][0] for task in tasks) - start

    async def follow(self, events: AsyncIterator[dict[str, Any]]) -> None:
        async for event in events:
            if event["state"] in FINAL:
                self.ended[event["task_id"]] = (time.perf_counter(), event["state"])
                self._changed.set()


@contextlib.asynccontextmanager
async def watching(cluster: Cluster) -> AsyncIterator[Watcher]:
    """A watcher whose stream of events is open."""
    token = (cluster.state_dir / "admin.token").read_text("utf-8").strip()
    async with Connection(cluster.url, token) as stream, Connection(cluster.url, token) as calls:
        events = stream.events("/api/events")
        await anext(events)
        watcher = Watcher(calls)
        following = asyncio.create_task(watcher.follow(events))
        try:
            yield watcher
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
