"""The Runner's API denies by default, reads strictly enough, and answers errors as `ErrorBody`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from hakuriver.config import Settings
from hakuriver.errors import HakuRiverError
from hakuriver.models.errors import ErrorBody
from hakuriver.models.runner import (
    ActionResponse,
    AttemptList,
    AttemptsRequest,
    RunnerHealth,
    StartRequest,
    StartResponse,
)
from hakuriver.states import TaskState
from hakuriver.version import VERSION_HEADER, __version__
from hakuriver_agent.api import attempts, health, logs
from hakuriver_agent.api.edge import Guard, on_error
from hakuriver_agent.folders import Folders
from unit.agent.agent_doubles import Life, Node, named, node, spec

TOKEN = "control"


@dataclass
class Served:
    life: Life
    machine: Node
    client: httpx.AsyncClient
    folders: Folders


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    machine = node(tmp_path)
    folders = Folders.of(
        Settings.model_validate({"paths": {"shared_dir": tmp_path / "shared", "state_dir": tmp_path}})
    )
    async with machine.life() as life:
        state = RunnerHealth(hostname="n1", version=__version__, journal_id="j", running=0, engines=[])
        routes = [
            *attempts.routes(life.supervisor),
            *logs.routes(life.supervisor, folders),
            *health.routes(lambda: state),
        ]
        app = Starlette(
            routes=routes, exception_handlers=dict.fromkeys((HakuRiverError, HTTPException), on_error)
        )
        guard = Guard(app, lambda token: token == TOKEN)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(guard), base_url="http://n1", headers=headers
        ) as client:
            yield Served(life, machine, client, folders)


PATHS = [
    ("POST", "/api/start"),
    ("POST", "/api/kill"),
    ("POST", "/api/pause"),
    ("POST", "/api/resume"),
    ("GET", "/api/attempts"),
    ("GET", "/api/health"),
    ("GET", "/api/logs/1/1/stdout"),
    ("GET", "/nowhere"),
]


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN])
async def test_nothing_is_open(served: Served, method: str, path: str, authorization: str) -> None:
    answer = await served.client.request(method, path, headers={"Authorization": authorization})
    assert answer.status_code == 401
    assert ErrorBody.model_validate_json(answer.content).error == "unauthenticated"


async def test_start_kill_and_list(served: Served) -> None:
    given = spec()
    body = StartRequest(attempts=[given]).model_dump_json()
    answer = await served.client.post("/api/start", content=body)
    assert answer.headers[VERSION_HEADER] == __version__
    assert StartResponse.model_validate_json(answer.content).results[0].outcome == "accepted"
    await served.life.post.running(given)
    listed = AttemptList.model_validate_json((await served.client.get("/api/attempts")).content)
    assert [report.status for report in listed.attempts] == [TaskState.RUNNING]
    keys = AttemptsRequest(attempts=[named(given)]).model_dump_json()
    for verb in ("pause", "resume", "kill"):
        done = await served.client.post(f"/api/{verb}", content=keys)
        assert ActionResponse.model_validate_json(done.content).results[0].ok, verb
    assert (await served.life.post.final(given)).status is TaskState.KILLED


async def test_health(served: Served) -> None:
    answer = await served.client.get("/api/health")
    assert RunnerHealth.model_validate_json(answer.content).hostname == "n1"


@pytest.mark.parametrize("body", ["", "not json", "[]", "{}", '{"attempts": [{"task_id": "x"}]}'])
async def test_bad_bodies(served: Served, body: str) -> None:
    answer = await served.client.post("/api/start", content=body)
    assert answer.status_code == 400
    error = ErrorBody.model_validate_json(answer.content)
    assert (error.error, "\n" in error.message) == ("usage", False)


async def test_unknown_fields_of_a_newer_host_are_left_aside(served: Served) -> None:
    answer = await served.client.post("/api/start", content='{"attempts": [], "colour": "red"}')
    assert answer.status_code == 200


async def test_a_far_version_is_told(served: Served) -> None:
    answer = await served.client.get("/api/health", headers={VERSION_HEADER: "9.0.0"})
    assert answer.status_code == 426


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/api/nowhere", 404), ("GET", "/api/start", 405)]
)
async def test_errors_of_the_router(served: Served, method: str, path: str, status: int) -> None:
    answer = await served.client.request(method, path)
    assert answer.status_code == status
    ErrorBody.model_validate_json(answer.content)


async def test_logs_from_an_offset(served: Served) -> None:
    given = spec("print", "hello world")
    await served.life.supervisor.start([given])
    await served.life.post.final(given)
    path = f"/api/logs/{given.task_id}/1/stdout"
    assert (await served.client.get(path)).content == b"hello world"
    assert (await served.client.get(path, params={"offset": 6, "follow": "true"})).content == b"world"
    assert (await served.client.get(path, params={"offset": 99})).content == b""


async def test_followed_logs_end_with_the_attempt(served: Served) -> None:
    given = spec()
    await served.life.supervisor.start([given])
    await served.life.post.running(given)
    file = served.folders.log_file(given.stdout_path)
    file.parent.mkdir(parents=True)
    file.write_bytes(b"first ")
    path = f"/api/logs/{given.task_id}/1/stdout"
    following = asyncio.create_task(served.client.get(path, params={"follow": "true"}))
    await asyncio.sleep(0)
    with file.open("ab") as more:
        more.write(b"second")
    served.machine.world.end(given.key, 0)
    assert (await following).content == b"first second"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/logs/1/1/stdout", 404),
        ("/api/logs/x/1/stdout", 404),
        ("/api/logs/{task}/1/stdin", 404),
        ("/api/logs/{task}/1/stdout?offset=x", 400),
    ],
)
async def test_bad_requests_for_logs(served: Served, path: str, status: int) -> None:
    given = spec()
    await served.life.supervisor.start([given])
    assert (await served.client.get(path.format(task=given.task_id))).status_code == status


async def test_who_follows_a_quiet_task_looks_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, pauses = tmp_path / "log", []

    async def noted(_: object, seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 6:
            log.write_bytes(b"words")

    monkeypatch.setattr(logs, "_until", noted)
    pieces = [piece async for piece in logs._pieces(log, 0, lambda: len(pauses) == 8)]
    assert pieces == [b"words"]
    assert pauses[0] == pauses[6] == logs.FIRST_LOOK_SECONDS
    assert pauses[:6] == sorted(pauses[:6])
    assert pauses[5] == logs.LONGEST_LOOK_SECONDS
