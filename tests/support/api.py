"""The Host's HTTP API as the tests call it: raw enough to send it what it must refuse."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from hakuriver.models.nodes import ClusterStatus, NodeInfo
from hakuriver.models.submission import SubmitResponse
from hakuriver.models.tasks import TaskDetail, TaskSummary
from hakuriver.states import FINAL, TaskState
from hakuriver.version import VERSION_HEADER, __version__
from support.waiting import until

Event = tuple[str, str, dict[str, Any]]
"""Name, id and data of a server-sent event."""


class Api:
    """Calls as one user. Methods that parse also assert success; `call` returns whatever came."""

    def __init__(self, url: str, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}", VERSION_HEADER: __version__}
        self.client = httpx.Client(base_url=url, headers=headers, timeout=30)

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.client.request(method, path, **options)

    def json(self, method: str, path: str, **options: Any) -> Any:
        answer = self.call(method, path, **options)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def cluster(self) -> ClusterStatus:
        return ClusterStatus.model_validate(self.json("GET", "/api/cluster"))

    def nodes(self) -> dict[str, NodeInfo]:
        parsed = [NodeInfo.model_validate(node) for node in self.json("GET", "/api/nodes")]
        return {node.hostname: node for node in parsed}

    def submit(self, command: str, *arguments: str, **fields: Any) -> SubmitResponse:
        body = {"command": command, "arguments": list(arguments), **fields}
        return SubmitResponse.model_validate(self.json("POST", "/api/submit", json=body))

    def submit_one(self, command: str, *arguments: str, **fields: Any) -> int:
        (task_id,) = self.submit(command, *arguments, **fields).task_ids
        return task_id

    def task(self, task_id: int) -> TaskDetail:
        return TaskDetail.model_validate(self.json("GET", f"/api/status/{task_id}"))

    def tasks(self, **filters: Any) -> list[TaskSummary]:
        """All pages, newest first."""
        found: list[TaskSummary] = []
        query = {"limit": 500, **filters}
        while True:
            answer = self.call("GET", "/api/tasks", params=query)
            assert answer.is_success, answer.text
            found += [TaskSummary.model_validate(task) for task in answer.json()]
            cursor = answer.headers.get("X-Next-Cursor")
            if not cursor:
                return found
            query["cursor"] = cursor

    def kill(self, task_id: int) -> httpx.Response:
        return self.call("POST", f"/api/kill/{task_id}")

    def log(self, task_id: int, stream: str = "stdout", **query: Any) -> bytes:
        answer = self.call("GET", f"/api/task/{task_id}/{stream}", params=query)
        assert answer.is_success, answer.text
        return answer.content

    def wait_state(self, task_id: int, *states: TaskState, within: float = 30.0) -> TaskDetail:
        def probe() -> TaskDetail | None:
            task = self.task(task_id)
            assert task.status in states or task.status not in FINAL, (
                f"it is {task.status} for good: {task!r}"
            )
            return task if task.status in states else None

        return until(probe, lambda: f"one of {states}; it is {self.task(task_id)!r}", within)

    def wait_final(self, task_id: int, within: float = 30.0) -> TaskDetail:
        return self.wait_state(task_id, *FINAL, within=within)

    @contextmanager
    def events(self, path: str, **query: Any) -> Iterator[Iterator[Event]]:
        """The events of a stream, as they come."""
        with self.client.stream("GET", path, params=query) as answer:
            if not answer.is_success:
                answer.read()
                raise AssertionError(f"{path}: {answer.status_code} {answer.text}")
            yield _parse_events(answer.iter_lines())


def _parse_events(lines: Iterable[str]) -> Iterator[Event]:
    name, event_id, data = "message", "", ""
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line and data:
            yield name, event_id, json.loads(data)
            name, data = "message", ""
        elif field == "event":
            name = value
        elif field == "id":
            event_id = value
        elif field == "data":
            data += value
