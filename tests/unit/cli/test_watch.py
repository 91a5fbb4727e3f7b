"""`--watch`: a list is printed again when something changes; whatever ends it is told in words."""

from __future__ import annotations

import os
import signal
import sys

import httpx
import pytest

from hakuriver.errors import UnauthenticatedError
from hakuriver.models.access import UserInfo
from hakuriver.models.nodes import HealthHistory
from hakuriver.models.tasks import QueuedTask, TaskExplanation, TaskSummary
from hakuriver.models.vps import VpsSummary
from hakuriver.roles import Role
from hakuriver.states import TaskState
from hakuriver_cli import watch
from unit.cli.conftest import Answer, Commands, FakeHost
from unit.cli.test_cluster_commands import CLUSTER, NODE, SAMPLE, TOKEN
from unit.sdk.wire_samples import START, detail, event, sse_event, stream

VPS = VpsSummary.model_validate({**detail().model_dump(), "task_type": "vps", "name": "box", "host_key": ""})


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
    monkeypatch.setattr("hakuriver_cli.commands._abandon_stdout", lambda: None)
    done = commands("node", "list", "--watch")
    assert (done.code, done.err) == (1, "")


def test_a_reader_that_goes_is_noticed_though_nothing_changes(
    commands: Commands, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_AT_MOST_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(watch, "_EVERY_SECONDS", 0.0)
    monkeypatch.setattr("hakuriver_cli.commands._abandon_stdout", lambda: None)
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


WATCHED: dict[tuple[str, ...], tuple[str, Answer]] = {
    ("task", "list"): ("/api/batches", []),
    ("batch", "list"): ("/api/batches", []),
    ("task", "list", "--tasks"): ("/api/tasks", [detail()]),
    ("task", "list", "--usage"): ("/api/tasks", [detail()]),
    ("task", "status", "11"): ("/api/status/11", detail()),
    ("task", "explain", "11"): (
        "/api/explain/11",
        TaskExplanation(task_id=11, status=TaskState.PENDING, summary="it waits"),
    ),
    ("queue",): ("/api/queue", [QueuedTask.model_validate(detail().model_dump())]),
    ("node", "list"): ("/api/nodes", [NODE]),
    ("node", "health"): ("/api/health", HealthHistory(nodes=[[SAMPLE]], aggregate=[])),
    ("gpu", "list"): ("/api/nodes", [NODE]),
    ("status",): ("/api/cluster", CLUSTER),
    ("vps", "list"): ("/api/vps/status", [VPS]),
    ("vps", "status", "11"): ("/api/status/11", detail()),
    ("vps", "snapshots", "11"): ("/api/vps/11/snapshots", []),
    ("user", "list"): ("/api/users", [UserInfo(name="ada", role=Role.USER, created_at=START)]),
    ("token", "list"): ("/api/tokens", [TOKEN]),
    ("key", "list"): ("/api/keys", []),
    ("env", "list"): ("/api/environments", []),
}


@pytest.mark.parametrize("words", WATCHED, ids=" ".join)
def test_all_that_lists_can_be_watched(
    commands: Commands, host: FakeHost, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    for name in ("_AT_MOST_EVERY_SECONDS", "_EVERY_SECONDS"):
        monkeypatch.setattr(watch, name, 0.0)
    looks = 0

    def answer(_request: httpx.Request) -> Answer:
        nonlocal looks
        looks += 1
        if looks == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return told

    path, told = WATCHED[words]
    host.on("GET", path, answer)
    host.on("GET", "/api/vps/11", VPS)
    host.on("GET", "/api/events", lambda _: stream(sse_event(event(9, TaskState.COMPLETED))))
    once = commands(*words)
    looks = 0
    done = commands(*words, "--watch")
    assert (once.code, done.code) == (0, 130)
    assert looks >= 3
    assert done.out == once.out, "what has not changed is not printed again"
