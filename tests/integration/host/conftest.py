"""A Host in this process, over SQLite and over PostgreSQL, with a Runner that answers as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from hakuriver.config import Settings
from hakuriver_host.app import HostApp
from hakuriver_host.db.engine import open_database
from hakuriver_host.services.share import Share


@dataclass
class ScriptedRunner:
    """Accepts every start, and keeps what it was told. It stands in for a Runner where the Host is looked at."""

    url: str = ""
    journal_id: str = "journal-1"
    hostname: str = "node-1"
    starts: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)
    acts: asyncio.Queue[tuple[str, dict[str, Any]]] = field(default_factory=asyncio.Queue)
    ignored: set[str] = field(default_factory=set)
    """Tasks to whose starts it answers nothing."""
    calls: int = 0
    authorizations: set[str] = field(default_factory=set)
    logs: dict[str, bytes] = field(default_factory=dict)

    async def answer(self, request: Request) -> JSONResponse:
        self.authorizations.add(request.headers["authorization"])
        name = request.path_params["name"]
        if name == "health":
            return JSONResponse(
                {
                    "hostname": self.hostname,
                    "version": "0.3.0",
                    "journal_id": self.journal_id,
                    "running": 0,
                    "engines": ["process"],
                }
            )
        self.calls += 1
        attempts = (await request.json())["attempts"]
        for attempt in attempts:
            await (self.starts.put(attempt) if name == "start" else self.acts.put((name, attempt)))
        keys = [
            {"task_id": attempt["task_id"], "attempt": attempt["attempt"]}
            for attempt in attempts
            if attempt["task_id"] not in self.ignored
        ]
        outcome = {"outcome": "accepted"} if name == "start" else {"ok": True}
        return JSONResponse({"results": [{**key, **outcome} for key in keys]})


@dataclass
class RunningHost:
    """The Host's application, and clients to it."""

    app: HostApp
    settings: Settings
    database_url: str
    runner: ScriptedRunner

    def client(self, token: str | None) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://host", headers=headers
        )

    @property
    def admin(self) -> httpx.AsyncClient:
        return self.client((self.settings.paths.state_dir / "admin.token").read_text().strip())

    @property
    def joiner(self) -> httpx.AsyncClient:
        return self.client((self.settings.paths.state_dir / "join.token").read_text().strip())

    async def user(self, name: str, role: str = "user", **columns: Any) -> httpx.AsyncClient:
        """A new user, and a client that speaks as them."""
        made = await self.admin.post("/api/users", json={"name": name, "role": role, **columns})
        assert made.status_code == 201, made.text
        token = await self.admin.post("/api/tokens", json={"user": name})
        return self.client(token.json()["token"])

    async def node(self, **changes: Any) -> httpx.AsyncClient:
        """Joins and registers the scripted Runner; a client that speaks as it."""
        joined = await self.joiner.post(
            "/api/join", json={"hostname": self.runner.hostname, "runner_url": self.runner.url}
        )
        assert joined.status_code == 200, joined.text
        speaker = self.client(joined.json()["node_token"])
        answer = await speaker.post("/api/register", json=self.registration(**changes))
        assert answer.status_code == 200, answer.text
        return speaker

    def registration(self, **changes: Any) -> dict[str, Any]:
        return {
            "hostname": self.runner.hostname,
            "total_cores": 4,
            "total_ram_bytes": 8 * 10**9,
            "runner_url": self.runner.url,
            "version": "0.3.0",
            "journal_id": self.runner.journal_id,
            "engines": ["process"],
            "shared_id": (self.settings.paths.shared_dir / ".hakuriver-share").read_text().strip(),
            **changes,
        }


class GuestServer(uvicorn.Server):
    """Leaves signals to the program that it is a guest in.

    A fixture starts in one run of the event loop and ends in another: uvicorn would put back the handler of a run that
    is over, and the next test that is interrupted would meet it.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@pytest.fixture
async def runner() -> AsyncIterator[ScriptedRunner]:
    scripted = ScriptedRunner()
    app = Starlette(routes=[Route("/api/{name}", scripted.answer, methods=["GET", "POST"])])
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    scripted.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = GuestServer(uvicorn.Config(app, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    yield scripted
    server.should_exit = True
    await serving


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql_url"))
    return f"sqlite:///{tmp_path / 'host.db'}"


Open = Callable[..., contextlib.AbstractAsyncContextManager[RunningHost]]


@pytest.fixture
def open_host(tmp_path: Path, database_url: str, runner: ScriptedRunner) -> Open:
    """Starts a Host; called again on the same folder and database, it is that Host restarted."""

    @contextlib.asynccontextmanager
    async def start(**sections: Any) -> AsyncIterator[RunningHost]:
        for folder in ("shared", "state"):
            (tmp_path / folder).mkdir(exist_ok=True)
        values = {
            "paths": {"shared_dir": tmp_path / "shared", "state_dir": tmp_path / "state"},
            "database": {"url": database_url},
            "docker": {"default_container_name": "NULL"},
            **sections,
        }
        settings = Settings.model_validate(values)
        engine = open_database(settings.database_url)
        share = Share(settings, engine)
        share.open()
        app = HostApp(settings, engine, share)
        async with app.lifespan(app):
            yield RunningHost(app, settings, database_url, runner)

    return start


@pytest.fixture
async def host(open_host: Open) -> AsyncIterator[RunningHost]:
    async with open_host() as running:
        yield running
