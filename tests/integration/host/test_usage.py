"""What tasks use, as the Host's API tells it: by heartbeats while they run, by the record afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

LITTLE = {"seconds": 10.0, "cpu_seconds": 5.0, "cpu_now": 0.5, "memory_bytes": 100, "peak_memory_bytes": 300}
MUCH = {"seconds": 60.0, "cpu_seconds": 55.0, "peak_memory_bytes": 900, "gpu_percent": 40.0}


async def submitted(host: Any, **changes: Any) -> dict[str, Any]:
    """A task that was sent to its Runner: as the Runner names its attempt."""
    body = {"command": "sleep", "required_cores": 2, "name": "sleeper", **changes}
    answer = await host.admin.post("/api/submit", json=body)
    assert answer.status_code == 202, answer.text
    told = await asyncio.wait_for(host.runner.starts.get(), 20)
    return {"task_id": told["task_id"], "attempt": told["attempt"]}


async def report(node: httpx.AsyncClient, attempt: dict[str, Any], sequence: int, **said: Any) -> None:
    reports = [{**attempt, "sequence": sequence, **said}]
    answer = await node.post("/api/update", json={"hostname": "node-1", "reports": reports})
    assert answer.status_code == 200, answer.text


async def beat(node: httpx.AsyncClient, attempt: dict[str, Any], usage: dict[str, Any]) -> None:
    key = f"{attempt['task_id']}-{attempt['attempt']}"
    answer = await node.put("/api/heartbeat/node-1", json={"usage": {key: usage}})
    assert answer.status_code == 200, answer.text


def known(told: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if told is None else {name: value for name, value in told.items() if value is not None}


async def shown(host: Any, attempt: dict[str, Any]) -> dict[str, Any] | None:
    """By the task's own page; the list must say the same."""
    one = (await host.admin.get(f"/api/status/{attempt['task_id']}")).json()["usage"]
    listed = (await host.admin.get("/api/tasks")).json()
    assert [task["usage"] for task in listed if task["task_id"] == attempt["task_id"]] == [one]
    return known(one)


async def test_while_it_runs_and_afterwards(open_host: Any) -> None:
    async with open_host() as host:
        node = await host.node()
        attempt = await submitted(host, required_memory_bytes=1000)
        await report(node, attempt, 1, status="running")
        assert await shown(host, attempt) is None
        await beat(node, attempt, LITTLE | {"of_a_later_version": 1})
        assert await shown(host, attempt) == LITTLE
        page = (await host.admin.get("/metrics")).text
        assert 'hakuriver_node_cores_used{node="node-1"} 0.5' in page
        assert 'hakuriver_node_memory_used_bytes{node="node-1"} 100.0' in page
        (load,) = (await host.admin.get("/api/health", params={"hostname": "node-1"})).json()["tasks"]
        assert known(load.pop("usage")) == LITTLE
        assert load == {
            **attempt,
            "hostname": "node-1",
            "name": "sleeper",
            "owner": "admin",
            "status": "running",
            "required_cores": 2,
            "required_memory_bytes": 1000,
            "gpus": [],
        }
        await report(node, attempt, 2, status="completed", exit_code=0, usage=MUCH)
        assert await shown(host, attempt) == MUCH
        assert (await host.admin.get("/api/health")).json()["tasks"] == []
    async with open_host() as host:
        assert await shown(host, attempt) == MUCH


async def test_a_runner_that_tells_nothing_of_it(host: Any) -> None:
    node = await host.node()
    attempt = await submitted(host)
    await report(node, attempt, 1, status="running")
    await report(node, attempt, 2, status="completed", exit_code=0)
    assert await shown(host, attempt) is None
