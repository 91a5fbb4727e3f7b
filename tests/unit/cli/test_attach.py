"""`task run`: output as it comes, the task's own exit code, and an interrupt that kills."""

from __future__ import annotations

import json
import os
import signal

import httpx
import pytest

from hakuriver.errors import NotFoundError
from hakuriver.models.tasks import Message
from hakuriver.states import TaskState
from unit.cli.conftest import Commands, FakeHost
from unit.sdk.wire_samples import event, made, sse_event, sse_log, stream


def prepare(host: FakeHost, state: TaskState, exit_code: int | None, cause: str = "") -> None:
    final = event(4, state, exit_code=exit_code, cause=cause)
    host.on("POST", "/api/submit", made(11))
    changes = [event(1, TaskState.PENDING, attempt=0), event(2, TaskState.RUNNING), final]
    host.on("GET", "/api/events", lambda _: stream(*map(sse_event, changes)))
    end = sse_event(final, "end")
    host.on("GET", "/api/task/11/stdout", lambda _: stream(sse_log(0, b"out \xff\n"), end))
    host.on("GET", "/api/task/11/stderr", lambda _: stream(sse_log(0, b"err\n"), end))


def test_streams_go_where_they_belong_and_the_code_is_the_tasks(commands: Commands, host: FakeHost) -> None:
    prepare(host, TaskState.FAILED, 7)
    done = commands("task", "run", "--", "sh", "-c", "exit 7")
    assert (done.code, done.raw, done.err) == (7, b"out \xff\n", "err\n")


def test_a_task_that_completes_gives_zero_and_no_words(commands: Commands, host: FakeHost) -> None:
    prepare(host, TaskState.COMPLETED, 0)
    done = commands("task", "run", "true")
    assert (done.code, done.err) == (0, "err\n")


@pytest.mark.parametrize(
    ("state", "exit_code", "code", "words"),
    [
        (TaskState.KILLED, None, 1, "task 11 killed: by ada"),
        (TaskState.KILLED_OOM, 137, 137, "task 11 killed_oom with exit code 137: by ada"),
        (TaskState.LOST, None, 1, "task 11 lost: by ada"),
        (TaskState.FAILED, 127, 127, "task 11 failed with exit code 127: by ada"),
    ],
)
def test_an_end_that_is_not_the_programs_own_is_said(
    commands: Commands, host: FakeHost, state: TaskState, exit_code: int | None, code: int, words: str
) -> None:
    prepare(host, state, exit_code, "by ada")
    done = commands("task", "run", "true")
    assert done.code == code
    assert words in done.err


def test_every_attempt_is_followed(commands: Commands, host: FakeHost) -> None:
    prepare(host, TaskState.COMPLETED, 0)
    changes = [
        event(2, TaskState.RUNNING, attempt=1),
        event(3, TaskState.PENDING, attempt=1),
        event(4, TaskState.RUNNING, attempt=2),
        event(5, TaskState.COMPLETED, attempt=2, exit_code=0),
    ]
    host.on("GET", "/api/events", lambda _: stream(*map(sse_event, changes)))
    assert commands("task", "run", "--retries", "1", "true").code == 0
    followed = [
        request.url.params["attempt"] for request in host.asked if request.url.path == "/api/task/11/stdout"
    ]
    assert followed == ["1", "2"]


def test_in_json_lines_and_ends_are_objects(commands: Commands, host: FakeHost) -> None:
    prepare(host, TaskState.FAILED, 7)
    done = commands("task", "run", "-o", "json", "--", "sh", "-c", "exit 7")
    assert (done.code, done.err) == (7, "")
    *lines, end = [json.loads(line) for line in done.out.splitlines()]
    assert {(line["stream"], line["text"]) for line in lines} == {("stdout", "out \\xff"), ("stderr", "err")}
    assert (end["task_id"], end["state"], end["exit_code"]) == ("11", "failed", 7)


def test_a_task_that_wrote_nothing_is_no_error(commands: Commands, host: FakeHost) -> None:
    prepare(host, TaskState.COMPLETED, 0)
    host.on("GET", "/api/task/11/stdout", NotFoundError("nothing yet"))
    host.on("GET", "/api/task/11/stderr", NotFoundError("nothing yet"))
    done = commands("task", "run", "true")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_an_interrupt_kills_the_task_and_waits_for_its_end(commands: Commands, host: FakeHost) -> None:
    killed = False

    def changes(_request: httpx.Request) -> httpx.Response:
        if killed:
            return stream(sse_event(event(4, TaskState.KILLED)))
        os.kill(os.getpid(), signal.SIGINT)
        return stream(sse_event(event(1, TaskState.PENDING, attempt=0)))

    def kill(_request: httpx.Request) -> Message:
        nonlocal killed
        killed = True
        return Message(message="killed")

    prepare(host, TaskState.KILLED, None)
    host.on("GET", "/api/events", changes)
    host.on("POST", "/api/kill/11", kill)
    done = commands("task", "run", "sleep", "600")
    assert done.code == 130
    assert "POST /api/kill/11" in host.paths()
    assert "killing" in done.err


def test_detached_it_prints_the_id_and_stays_not(commands: Commands, host: FakeHost) -> None:
    prepare(host, TaskState.COMPLETED, 0)
    done = commands("task", "run", "--detach", "true")
    assert (done.code, done.out) == (0, "11\n")
    assert host.paths() == ["POST /api/submit"]
