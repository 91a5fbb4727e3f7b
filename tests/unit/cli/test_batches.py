"""`batch …`, batches in the list of tasks, ids of batches where tasks are acted on, and lines with numbers."""

from __future__ import annotations

import io
import json
from typing import Any

import httpx
import pytest

from hakuriver.client.calls import LogPart
from hakuriver.errors import ConflictError, NotFoundError
from hakuriver.models.batches import BatchSummary
from hakuriver.models.tasks import Message, TaskDetail
from hakuriver.states import TaskState
from hakuriver_cli.sinks import Prefixed
from unit.cli.conftest import Commands, FakeHost
from unit.sdk.wire_samples import batch, detail, event, made, sse_event, sse_log, stream

ENDED = {TaskState.COMPLETED: 2, TaskState.FAILED: 2}


def failed(index: int, code: int | None, state: TaskState = TaskState.FAILED) -> TaskDetail:
    return detail(state, task_id=11 + index, exit_code=code).model_copy(update={"index": index})


def lines_of(host: FakeHost) -> None:
    alone = BatchSummary(**batch({TaskState.RUNNING: 1}).model_dump() | {"batch_id": 30, "task": detail()})
    several = batch({TaskState.COMPLETED: 12, TaskState.RUNNING: 3, TaskState.PENDING: 85})
    host.on("GET", "/api/batches", [several, alone])
    host.on("GET", "/api/tasks", [detail(), detail(task_id=12)])


def test_tables_show_a_batch_in_one_line_in_the_order_of_states(commands: Commands, host: FakeHost) -> None:
    lines_of(host)
    _, several, alone = commands("task", "list").out.splitlines()
    assert several.startswith("10       tune  85 pending, 3 running, 12 completed  ada")
    assert several.endswith("echo 'span:{1..3}'")
    assert alone.split()[:4] == ["11", "-", "running", "ada"]
    assert host.paths() == ["GET /api/batches"]


@pytest.mark.parametrize("words", [["--tasks"], ["--batch", "10"], ["-o", "json"], ["-o", "name"]])
def test_what_is_for_programs_or_asks_for_it_tells_of_each_task(
    commands: Commands, host: FakeHost, words: list[str]
) -> None:
    lines_of(host)
    assert "12" in commands("task", "list", *words).out
    assert host.paths() == ["GET /api/tasks"]


def test_the_list_leaves_out_batches_of_one(commands: Commands, host: FakeHost) -> None:
    lines_of(host)
    words = "batch list --owner ada --name x --status failed"
    assert "12 completed" in commands(*words.split()).out
    params = host.asked[0].url.params
    assert {name: params[name] for name in ("owner", "name", "status", "min_tasks")} == {
        "owner": "ada",
        "name": "x",
        "status": "failed",
        "min_tasks": "2",
    }
    commands("batch", "list", "--all")
    assert host.asked[1].url.params["min_tasks"] == "1"
    assert commands("batch", "list", "--limit", "-1").code == 2


def test_waiting_ends_with_the_code_of_the_first_failure_and_names_five(
    commands: Commands, host: FakeHost
) -> None:
    failures = [failed(0, None, TaskState.KILLED), *(failed(index, 7) for index in range(1, 8))]
    host.on("GET", "/api/batches/10", batch({TaskState.COMPLETED: 2, TaskState.FAILED: 8}, *failures))
    done = commands("batch", "wait", "10")
    lines = done.err.splitlines()
    assert (done.code, len(lines)) == (1, 6)
    assert lines[:2] == ["task 11 (index 0) killed", "task 12 (index 1) failed with exit code 7"]
    assert lines[5] == "8 of 10 tasks have not completed; `hakuriver batch retry 10` makes them anew"
    assert "2 completed, 8 failed" in done.out


def test_waiting_for_several_that_partly_are_none(commands: Commands, host: FakeHost) -> None:
    host.on("GET", "/api/batches/10", batch({TaskState.COMPLETED: 2}))
    done = commands("batch", "wait", "10", "5")
    assert (done.code, "there is no /api/batches/5" in done.err) == (3, True)
    assert "2 completed" in done.out


def test_task_wait_takes_both(commands: Commands, host: FakeHost) -> None:
    host.on("GET", "/api/status/11", detail(TaskState.COMPLETED, exit_code=0))
    host.on("GET", "/api/batches/10", batch(ENDED, failed(1, 9)))
    done = commands("task", "wait", "11", "10")
    assert done.code == 9
    assert "TASK ID" in done.out
    assert "BATCH ID" in done.out


@pytest.mark.parametrize(
    ("words", "of_task", "of_batch"),
    [
        (["kill"], "/api/kill/10", "/api/batches/10/kill"),
        (["hold"], "/api/command/10/hold", "/api/batches/10/hold"),
        (["release"], "/api/command/10/release", "/api/batches/10/release"),
        (["reprioritize", "--priority", "-1"], "/api/priority/10", "/api/batches/10/priority"),
    ],
)
def test_what_is_done_to_tasks_is_done_to_batches(
    commands: Commands, host: FakeHost, words: list[str], of_task: str, of_batch: str
) -> None:
    host.on("POST", of_batch, Message(message="done to all"))
    done = commands("task", *words, "10")
    assert (done.code, "done to all" in done.out) == (0, True)
    assert host.paths() == [f"POST {of_task}", f"POST {of_batch}"]
    done = commands("batch", *words, "10", "-o", "json")
    assert done.json == [{"batch_id": "10", "message": "done to all"}]
    neither = commands("task", *words, "5")
    assert neither.code == 3
    assert of_task.replace("10", "5") in neither.err, "what is told is of the task"


def test_a_batch_that_refuses_is_told_of(commands: Commands, host: FakeHost) -> None:
    host.on("POST", "/api/batches/10/kill", ConflictError("all tasks of batch 10 have ended"))
    assert commands("task", "kill", "10").code == 5


def test_retry_prints_what_the_other_commands_take(commands: Commands, host: FakeHost) -> None:
    host.on("POST", "/api/batches/10/retry", made(21, 22, batch_id=20))
    assert commands("batch", "retry", "10").out == "20\n"
    assert commands("task", "retry", "10").out == "21\n22\n"
    assert host.asked[0].headers["Idempotency-Key"]


def test_a_sweep_prints_its_batch_and_waits_for_it(commands: Commands, host: FakeHost) -> None:
    host.on("POST", "/api/submit", made(11, 12, 13))
    host.on("GET", "/api/batches/10", batch(ENDED, failed(1, 4)))
    words = ("task", "submit", "--sweep", "--max-running", "2")
    assert commands(*words, "--", "echo", "span:{1..3}").out == "10\n"
    (body,) = host.bodies("/api/submit")
    assert body == {"command": "echo", "arguments": ["span:{1..3}"], "sweep": True, "max_running": 2}
    assert commands(*words, "--wait", "--", "echo", "span:{1..3}").code == 4


def test_status_names_failures_in_the_wide_form(commands: Commands, host: FakeHost) -> None:
    host.on("GET", "/api/batches/10", batch(ENDED, failed(1, 4)))
    assert "task 12 (index 1) failed with exit code 4" in commands("batch", "status", "10", "-o", "wide").out
    assert commands("batch", "status", "10", "-o", "json").json["counts"] == {"completed": 2, "failed": 2}
    assert len(commands("batch", "status", "10", "10", "-o", "json").json) == 1


def tasks_with_logs(host: FakeHost, *found: TaskDetail) -> None:
    host.on("GET", "/api/tasks", list(found))
    for task in found:
        for name in ("stdout", "stderr"):
            host.on("GET", f"/api/task/{task.task_id}/{name}", _log(task.task_id, name))


def _log(task_id: int, name: str) -> Any:
    text = f"{name} of {task_id}\n".encode()

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.params.get("follow"):
            return stream(sse_log(0, text), sse_event(event(9, TaskState.COMPLETED, task_id=task_id), "end"))
        start = int(request.url.params.get("offset", 0))
        headers = {"X-Next-Offset": str(len(text)), "X-Attempt": "1"}
        return httpx.Response(200, content=text[start:], headers=headers)

    return answer


def test_logs_are_in_the_order_of_numbers_and_leave_out_what_has_not_run(
    commands: Commands, host: FakeHost
) -> None:
    waits = detail(TaskState.PENDING, task_id=14).model_copy(update={"attempt": 0, "index": 3})
    host.on("GET", "/api/batches/10", batch(ENDED))
    tasks_with_logs(host, waits, failed(2, 1), failed(0, 1))
    done = commands("batch", "logs", "10")
    assert done.raw == b"[0] stdout of 11\n[2] stdout of 13\n"
    assert done.err == "[0] stderr of 11\n[2] stderr of 13\n"
    assert commands("batch", "logs", "10", "--stderr").raw == b"[0] stderr of 11\n[2] stderr of 13\n"
    assert commands("batch", "logs", "10", "--tail", "0").raw == b""
    lines = [json.loads(line) for line in commands("batch", "logs", "10", "-o", "json").out.splitlines()]
    assert lines[2] == {"task_id": "13", "index": 2, "attempt": 1, "stream": "stdout", "text": "stdout of 13"}
    commands("batch", "logs", "10", "--status", "failed")
    assert any(request.url.params.get("status") == "failed" for request in host.asked)


def test_task_logs_of_a_batch_are_those_of_its_tasks(commands: Commands, host: FakeHost) -> None:
    host.on("GET", "/api/batches/10", batch(ENDED))
    tasks_with_logs(host, failed(0, 1))
    assert commands("task", "logs", "10").raw == b"[0] stdout of 11\n"
    assert commands("task", "logs", "5").code == 3


def test_following_shows_what_had_ended_then_what_runs_and_what_starts(
    commands: Commands, host: FakeHost
) -> None:
    running = detail(TaskState.RUNNING, task_id=12).model_copy(update={"index": 1})
    waits = detail(TaskState.PENDING, task_id=13).model_copy(update={"attempt": 0, "index": 2})
    host.on("GET", "/api/batches/10", batch(ENDED, last_event=7))
    tasks_with_logs(host, waits, running, failed(0, 1))
    changes = [
        event(8, TaskState.COMPLETED, task_id=12),
        event(9, TaskState.RUNNING, task_id=13),
        event(10, TaskState.COMPLETED, task_id=13),
    ]
    host.on("GET", "/api/events", lambda _: stream(*map(sse_event, changes)))
    done = commands("batch", "logs", "10", "--follow", "--stdout")
    assert done.code == 0
    first, *others = done.raw.splitlines()
    assert first == b"[0] stdout of 11"
    assert sorted(others) == [b"[1] stdout of 12", b"[2] stdout of 13"]
    assert next(each for each in host.asked if each.url.path == "/api/events").url.params["since"] == "7"
    assert commands("batch", "logs", "10", "--follow", "--status", "failed").code == 2


def test_lines_of_several_do_not_run_together() -> None:
    out = io.BytesIO()
    sink = Prefixed(out, 3)
    for data, attempt in ((b"one\ntw", 1), (b"o\nhalf", 1), (b"again\n", 2), (b"x" * 70_000, 2), (b"end", 2)):
        sink.take(LogPart(data, 0, attempt))
    sink.end()
    assert out.getvalue().splitlines() == [
        b"[3] one",
        b"[3] two",
        b"[3] half",
        b"[3] again",
        b"[3] " + b"x" * 70_000,
        b"[3] end",
    ]


def test_what_is_neither_is_told_as_a_task(commands: Commands, host: FakeHost) -> None:
    host.on("POST", "/api/kill/5", NotFoundError("there is no task 5"))
    assert "there is no task 5" in commands("task", "kill", "5").err
