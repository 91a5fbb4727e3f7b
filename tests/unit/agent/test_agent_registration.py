"""Joining, registering and heartbeats go on for ever, whatever the Host answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from hakuriver.models.runner import HeartbeatRequest, RegisterRequest, Verdict
from hakuriver.version import __version__
from hakuriver_agent import registration
from hakuriver_agent.host import HostClient
from hakuriver_agent.registration import Hooks, Registrar
from hakuriver_agent.tokens import Tokens
from unit.agent.agent_doubles import eventually

_JOIN = "join"


@dataclass
class Host:
    """A Host that answers as it is told."""

    seen: list[tuple[str, str]] = field(default_factory=list)
    """Path and token of each request."""
    join_token: str = "join"
    node_token: str = "node-1"
    reachable: bool = True
    knows: bool = True
    """Whether it knows the node; heartbeats get 404 otherwise."""
    down: bool = False
    verdicts: list[dict[str, Any]] = field(default_factory=list)

    def handle(self, request: httpx.Request) -> httpx.Response:
        token = request.headers["authorization"].removeprefix("Bearer ")
        self.seen.append((request.url.path, token))
        if self.down:
            raise httpx.ConnectError("refused")
        if request.url.path == "/api/join":
            return self._join(token)
        if token != self.node_token:
            return _error(401, "unauthenticated")
        if request.url.path == "/api/register":
            return self._register()
        return httpx.Response(200, json={"message": "ok"}) if self.knows else _error(404, "not_found")

    def _join(self, token: str) -> httpx.Response:
        if token != self.join_token:
            return _error(401, "unauthenticated")
        return httpx.Response(200, json={"node_token": self.node_token, "control_token": "control"})

    def _register(self) -> httpx.Response:
        self.knows = True
        body = {
            "message": "welcome",
            "version": __version__,
            "heartbeat_interval_seconds": 0.01,
            "reachable": self.reachable,
            "problem": None if self.reachable else "cannot connect",
            "verdicts": self.verdicts,
        }
        return httpx.Response(200, json=body)

    def count(self, path: str) -> int:
        return sum(1 for seen, _ in self.seen if seen == path)


def _error(status: int, code: str) -> httpx.Response:
    return httpx.Response(status, content=json.dumps({"error": code, "message": f"it is {code}", "hint": ""}))


@dataclass
class Runner:
    host: Host
    tokens: Tokens
    registrar: Registrar
    applied: list[Verdict]
    answered: list[int]
    changed: list[bool]
    accepted: list[int]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_PAUSE", "LONGEST_PAUSE", "REFUSED_PAUSE"):
        monkeypatch.setattr(registration, name, 0.01)


@asynccontextmanager
async def runner(host: Host, folder: Path, token: str | None = _JOIN) -> AsyncIterator[Runner]:
    token_file = folder / "join.token"
    if token is not None:
        token_file.write_text(token + "\n")
    tokens = Tokens(folder)
    applied: list[Verdict] = []
    answered: list[int] = []
    changed: list[bool] = []
    accepted: list[int] = []

    async def registered(verdicts: Any) -> None:
        applied.extend(verdicts)

    async def request() -> RegisterRequest:
        return RegisterRequest(
            hostname="n1", total_cores=1, total_ram_bytes=1, runner_url="http://n1", version=__version__,
            journal_id="j", engines=["process"],
        )  # fmt: skip

    async def differs() -> bool:
        return changed.pop() if changed else False

    hooks = Hooks(
        request, HeartbeatRequest, registered, lambda: answered.append(1), lambda: accepted.append(1), differs
    )
    client = HostClient("http://host", "n1", transport=httpx.MockTransport(host.handle))
    registrar = Registrar(client, tokens, hooks, "http://n1", token_file, 0.01)
    running = asyncio.create_task(registrar.run())
    try:
        yield Runner(host, tokens, registrar, applied, answered, changed, accepted)
    finally:
        assert not running.done(), "it never returns"
        running.cancel()


async def _sees(host: Host, path: str, times: int = 1) -> None:
    before = host.count(path)
    await eventually(lambda: host.count(path) >= before + times, f"{path} is called")


async def test_it_joins_registers_and_sends_heartbeats(tmp_path: Path) -> None:
    async with runner(Host(), tmp_path) as own:
        await _sees(own.host, "/api/heartbeat/n1", 2)
        paths = [path for path, _ in own.host.seen]
        assert paths[:3] == ["/api/join", "/api/register", "/api/heartbeat/n1"]
        assert own.tokens.accepts("control")
        assert own.answered
        assert own.accepted


async def test_it_joins_once(tmp_path: Path) -> None:
    async with runner(Host(), tmp_path) as own:
        await _sees(own.host, "/api/heartbeat/n1")
    host = Host(knows=False)
    async with runner(host, tmp_path, token=None):
        await _sees(host, "/api/heartbeat/n1")
    assert host.count("/api/join") == 0


async def test_a_host_that_is_away_is_tried_for_ever(tmp_path: Path) -> None:
    async with runner(Host(down=True), tmp_path) as own:
        await _sees(own.host, "/api/join", 5)
        own.host.down = False
        await _sees(own.host, "/api/heartbeat/n1")


async def test_a_wrong_join_token_is_tried_again(tmp_path: Path) -> None:
    async with runner(Host(), tmp_path, token="wrong") as own:
        await _sees(own.host, "/api/join", 3)
        (tmp_path / "join.token").write_text("join")
        await _sees(own.host, "/api/heartbeat/n1")


async def test_without_a_join_token_it_waits_for_one(tmp_path: Path) -> None:
    async with runner(Host(), tmp_path, token=None) as own:
        (tmp_path / "join.token").write_text("join")
        await _sees(own.host, "/api/heartbeat/n1")


async def test_the_variable_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAKURIVER_JOIN_TOKEN", "join")
    async with runner(Host(), tmp_path, token="wrong") as own:
        await _sees(own.host, "/api/register")


async def test_404_asks_for_a_new_registration(tmp_path: Path) -> None:
    async with runner(Host(), tmp_path) as own:
        await _sees(own.host, "/api/heartbeat/n1")
        own.host.knows = False
        await _sees(own.host, "/api/register")
        await _sees(own.host, "/api/heartbeat/n1")
        assert own.host.count("/api/join") == 1


async def test_401_asks_for_joining_again(tmp_path: Path) -> None:
    async with runner(Host(), tmp_path) as own:
        await _sees(own.host, "/api/heartbeat/n1")
        own.host.node_token = "node-2"
        await _sees(own.host, "/api/join")
        await _sees(own.host, "/api/heartbeat/n1", 2)
        assert own.host.seen[-1] == ("/api/heartbeat/n1", "node-2")


async def test_heartbeats_go_on_over_an_absent_host(tmp_path: Path) -> None:
    async with runner(Host(), tmp_path) as own:
        await _sees(own.host, "/api/heartbeat/n1")
        own.host.down = True
        await _sees(own.host, "/api/heartbeat/n1", 3)
        own.host.down = False
        registered, before = own.host.count("/api/register"), len(own.answered)
        await eventually(lambda: len(own.answered) > before)
        assert own.host.count("/api/register") == registered


async def test_unreachable_it_registers_again_until_it_is_reached(tmp_path: Path) -> None:
    async with runner(Host(reachable=False), tmp_path) as own:
        await _sees(own.host, "/api/register", 3)
        own.host.reachable = True
        await _sees(own.host, "/api/register")
        count = own.host.count("/api/register")
        await _sees(own.host, "/api/heartbeat/n1", 3)
        assert own.host.count("/api/register") <= count + 1


async def test_verdicts_are_applied(tmp_path: Path) -> None:
    host = Host(verdicts=[{"task_id": "5", "attempt": 1, "action": "kill"}])
    async with runner(host, tmp_path) as own:
        await eventually(lambda: own.applied)
        assert own.applied[0].key == (5, 1)


async def test_an_engine_that_comes_up_is_told(tmp_path: Path) -> None:
    async with runner(Host(), tmp_path) as own:
        await _sees(own.host, "/api/heartbeat/n1")
        own.changed.append(True)
        await _sees(own.host, "/api/register")


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: httpx.Response(200, text="hello"),
        lambda _: httpx.Response(500, text="<html>"),
        lambda _: _error(426, "version"),
        lambda _: _error(507, "storage"),
    ],
)
async def test_strange_answers_are_survived(
    tmp_path: Path, answer: Callable[[httpx.Request], httpx.Response]
) -> None:
    host = Host()
    normal = host.handle
    strange = [True]

    def handle(request: httpx.Request) -> httpx.Response:
        usual = normal(request)
        return answer(request) if strange[0] else usual

    host.handle = handle  # type: ignore[method-assign]
    async with runner(host, tmp_path):
        await eventually(lambda: len(host.seen) >= 3)
        strange[0] = False
        await _sees(host, "/api/heartbeat/n1")
