"""The commands, run in this process against a Host that answers as the test says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cyclopts import App
from pydantic import BaseModel

from hakuriver.client import AsyncClient, Client
from hakuriver.errors import HakuRiverError
from hakuriver.models.errors import ErrorBody
from hakuriver_cli.commands import application, run

URL = "http://host:8000"
Answer = BaseModel | list[Any] | dict[str, Any] | bytes | httpx.Response | HakuRiverError
Handler = Callable[[httpx.Request], Answer]


class FakeHost:
    """Answers by method and path; what it was not told of is a 404, as it is at the Host."""

    def __init__(self) -> None:
        self.asked: list[httpx.Request] = []
        self._answers: dict[str, Answer | Handler] = {}

    def on(self, method: str, path: str, answer: Answer | Handler) -> None:
        self._answers[f"{method} {path}"] = answer

    def bodies(self, path: str) -> list[Any]:
        return [json.loads(request.content) for request in self.asked if request.url.path == path]

    def paths(self) -> list[str]:
        return [f"{request.method} {request.url.path}" for request in self.asked]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self._answers.get(f"{request.method} {request.url.path}")
        if answer is None:
            body = ErrorBody(error="not_found", message=f"there is no {request.url.path}", hint="look")
            return httpx.Response(404, content=body.model_dump_json())
        return _response(answer(request) if callable(answer) else answer)


def _response(answer: Answer) -> httpx.Response:
    if isinstance(answer, httpx.Response):
        return answer
    if isinstance(answer, HakuRiverError):
        return httpx.Response(answer.http_status, content=answer.body().model_dump_json())
    if isinstance(answer, bytes):
        return httpx.Response(200, content=answer)
    if isinstance(answer, BaseModel):
        return httpx.Response(200, content=answer.model_dump_json())
    return httpx.Response(200, json=_plain(answer))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Commands:
    """Runs one command line, and gives its code and what it printed."""

    def __init__(self, capture: pytest.CaptureFixture[bytes]) -> None:
        self._capture = capture

    def __call__(self, *words: str, app: App | None = None) -> Result:
        self._capture.readouterr()
        code = run(app or application(), words)
        printed = self._capture.readouterr()
        return Result(code, printed.out.decode("utf-8", "replace"), printed.err.decode(), printed.out)


@pytest.fixture
def commands(capsysbinary: pytest.CaptureFixture[bytes]) -> Commands:
    return Commands(capsysbinary)


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration, token or terminal of whoever runs the tests."""
    for name in ("HAKURIVER_CONFIG", "HAKURIVER_TOKEN", "DOCKER_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """What `Client.from_settings` and `AsyncClient.from_settings` talk to."""
    fake = FakeHost()
    transport = httpx.MockTransport(fake)
    monkeypatch.setattr(Client, "from_settings", lambda *_: Client(URL, "secret", transport=transport))
    monkeypatch.setattr(
        AsyncClient, "from_settings", lambda *_: AsyncClient(URL, "secret", transport=transport)
    )
    return fake
