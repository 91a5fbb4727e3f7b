"""`--watch`: a list is printed again when something changes; whatever ends it is told in words."""

from __future__ import annotations

import os
import signal
import sys

import httpx
import pytest

from hakuriver.errors import UnauthenticatedError
from hakuriver.models.tasks import TaskSummary
from hakuriver.states import TaskState
from hakuriver_cli import watch
from unit.cli.conftest import Commands, FakeHost
from unit.sdk.wire_samples import detail, event, sse_event, stream


def summaries(state: TaskState) -> list[TaskSummary]:
    return [TaskSummary.model_validate(detail(state).model_dump())]


def away(_request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


@pytest.mark.parametrize(("noun", "path"), [("task", "/api/tasks"), ("node", "/api/nodes")])
def test_a_host_that_is_not_there_is_told_in_words(
    commands: Commands, host: FakeHost, noun: str, path: str
) -> None:
    host.on("GET", path, away)
    host.on("GET", "/api/events", away)
    done = commands(noun, "list", "--watch")
    assert (done.code, done.out) == (6, "")
    assert done.err.startswith("error: no Host answers")
    assert done.err.count("\n") == 2


@pytest.mark.parametrize(("noun", "path"), [("task", "/api/tasks"), ("node", "/api/nodes")])
def test_a_token_that_is_refused_is_told_in_words(
    commands: Commands, host: FakeHost, noun: str, path: str
) -> None:
    for refused in (path, "/api/events"):
        host.on("GET", refused, UnauthenticatedError("the token is not known", "get another"))
    done = commands(noun, "list", "--watch")
    assert (done.code, done.err) == (4, "error: the token is not known\nhint: get another\n")


def test_a_reader_that_goes_ends_it_quietly(
    commands: Commands, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_text: str) -> int:
        raise BrokenPipeError

    host.on("GET", "/api/nodes", [])
    monkeypatch.setattr(sys.stdout, "write", gone)
    monkeypatch.setattr("hakuriver_cli.main._abandon_stdout", lambda: None)
    done = commands("node", "list", "--watch")
    assert (done.code, done.err) == (1, "")


def test_a_reader_that_goes_is_noticed_though_nothing_changes(
    commands: Commands, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_AT_MOST_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(watch, "_EVERY_SECONDS", 0.0)
    monkeypatch.setattr("hakuriver_cli.main._abandon_stdout", lambda: None)
    reader, writer = os.pipe()
    looks = 0

    def nodes(_request: httpx.Request) -> httpx.Response:
        nonlocal looks
        looks += 1
        if looks == 3:
            os.close(reader)
        return httpx.Response(200, json=[])

    host.on("GET", "/api/nodes", nodes)
    with os.fdopen(writer, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        done = commands("node", "list", "--watch")
    assert (done.code, done.err) == (1, "")
    assert looks == 3


def test_a_change_is_printed_and_ctrl_c_ends_it(
    commands: Commands, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_AT_MOST_EVERY_SECONDS", 0.0)
    states = [TaskState.RUNNING, TaskState.COMPLETED]

    def tasks(_request: httpx.Request) -> httpx.Response:
        if len(states) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        found = summaries(states.pop(0))
        return httpx.Response(200, json=[task.model_dump(mode="json") for task in found])

    host.on("GET", "/api/tasks", tasks)
    host.on("GET", "/api/events", lambda _: stream(sse_event(event(9, TaskState.COMPLETED))))
    done = commands("task", "list", "--watch", "-o", "json")
    assert done.code == 130
    assert '"running"' in done.out
