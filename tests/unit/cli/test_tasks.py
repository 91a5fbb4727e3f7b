"""`task list | status | explain | wait | kill | pause | resume | retry`, and the exit codes of all commands."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from hakuriver.errors import (
    ConflictError,
    DeniedError,
    HakuRiverError,
    ImpossibleError,
    InternalError,
    NotFoundError,
    StorageError,
    UnauthenticatedError,
    UsageError,
)
from hakuriver.models.submission import FailedTarget
from hakuriver.models.tasks import Message, NodeVerdict, TaskExplanation
from hakuriver.states import TaskState
from hakuriver_cli.reference import client_app
from hakuriver_cli.tasks import code_of
from unit.cli.conftest import Commands, FakeHost
from unit.sdk.wire_samples import detail, event, made


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("wrong"), 2),
        (NotFoundError("gone"), 3),
        (UnauthenticatedError("who"), 4),
        (DeniedError("no"), 4),
        (ConflictError("busy"), 5),
        (ImpossibleError("never"), 5),
        (StorageError("full"), 1),
        (InternalError("defect"), 1),
    ],
)
def test_exit_codes(commands: Commands, host: FakeHost, error: HakuRiverError, code: int) -> None:
    error.hint = "do something"
    host.on("GET", "/api/nodes", error)
    done = commands("node", "list")
    assert (done.code, done.out) == (code, "")
    assert done.err == f"error: {error.message}\nhint: do something\n"


def test_a_host_that_does_not_answer(commands: Commands, host: FakeHost) -> None:
    def refuse(_request: httpx.Request) -> Any:
        raise httpx.ConnectError("refused")

    host.on("GET", "/api/nodes", refuse)
    assert commands("node", "list").code == 6


@pytest.mark.parametrize(
    "words",
    [["taks"], ["task", "lits"], ["task", "list", "--bogus"], ["task", "kill"], ["task", "kill", "12x"]],
)
def test_usage_errors_have_two_lines_and_their_code(commands: Commands, words: list[str]) -> None:
    done = commands(*words)
    assert done.code == 2
    assert [line.partition(":")[0] for line in done.err.splitlines()] == ["error", "hint"]


def test_an_interrupt_has_the_shells_code(commands: Commands, host: FakeHost) -> None:
    def interrupt(_request: httpx.Request) -> Any:
        raise KeyboardInterrupt

    host.on("GET", "/api/nodes", interrupt)
    assert commands("node", "list").code == 130


def test_a_list_goes_on_over_pages_until_it_has_enough(commands: Commands, host: FakeHost) -> None:
    page = httpx.Response(
        200,
        json=[detail().model_dump(mode="json")] * 2,
        headers={"X-Next-Cursor": "more"},
    )
    host.on("GET", "/api/tasks", lambda _: page)
    assert commands("task", "list", "--limit", "3", "-o", "name").out.split() == ["11"] * 3
    assert [request.url.params.get("cursor") for request in host.asked] == [None, "more"]


def test_filters_reach_the_host(commands: Commands, host: FakeHost) -> None:
    host.on("GET", "/api/tasks", [])
    words = "task list --status failed --status lost --node n1 --owner ada --batch 10 --name x --limit 0"
    assert commands(*words.split()).code == 0
    params = host.asked[0].url.params
    assert params.get_list("status") == ["failed", "lost"]
    for spelt in ("killed-oom", "killed_oom"):
        commands("task", "list", "-s", spelt)
        assert host.asked[-1].url.params["status"] == "killed_oom"
    refused = commands("task", "list", "--status", "dead")
    assert (refused.code, "killed_oom" in refused.err) == (2, True)
    assert {key: params[key] for key in ("node", "owner", "batch_id", "name")} == {
        "node": "n1",
        "owner": "ada",
        "batch_id": "10",
        "name": "x",
    }


def test_status_of_one_is_an_object_and_of_several_an_array(commands: Commands, host: FakeHost) -> None:
    host.on("GET", "/api/status/11", detail())
    host.on("GET", "/api/status/12", detail(task_id=12))
    assert commands("task", "status", "11", "-o", "json").json["task_id"] == "11"
    several = commands("task", "status", "11", "5", "12", "-o", "json")
    assert [found["task_id"] for found in several.json] == ["11", "12"]
    assert several.code == 3
    assert "error: there is no /api/status/5" in several.err


def test_explain_names_each_node(commands: Commands, host: FakeHost) -> None:
    verdict = NodeVerdict(node="n1", fits_now=False, can_ever_fit=True, reason="2 of 2 cores are held")
    told = TaskExplanation(task_id=11, status=TaskState.PENDING, summary="waits", nodes=[verdict])
    host.on("GET", "/api/explain/11", told)
    assert "2 of 2 cores are held" in commands("task", "explain", "11").out
    assert commands("task", "explain", "11", "-o", "json").json["nodes"][0]["node"] == "n1"


def test_explain_of_several_tells_of_each(commands: Commands, host: FakeHost) -> None:
    for task_id in (11, 12):
        told = TaskExplanation(task_id=task_id, status=TaskState.PENDING, summary=f"{task_id} waits")
        host.on("GET", f"/api/explain/{task_id}", told)
    done = commands("task", "explain", "11", "5", "12")
    assert (done.code, done.err.count("error: ")) == (3, 1)
    assert "11 waits" in done.out
    assert "12 waits" in done.out
    several = commands("task", "explain", "11", "12", "-o", "json").json
    assert [told["summary"] for told in several] == ["11 waits", "12 waits"]
    assert commands("task", "explain", "11", "12", "-o", "name").out == "11\n12\n"


def test_wait_waits_for_those_that_there_are(commands: Commands, host: FakeHost) -> None:
    host.on("GET", "/api/status/11", detail(TaskState.COMPLETED, exit_code=0))
    done = commands("task", "wait", "5", "11", "-o", "name")
    assert (done.code, done.out) == (3, "11\n")
    assert "error: there is no /api/status/5" in done.err
    only = commands("task", "wait", "5")
    assert (only.code, only.out) == (3, "")


@pytest.mark.parametrize(
    ("verb", "path"),
    [("kill", "/api/kill/{}"), ("pause", "/api/command/{}/pause"), ("resume", "/api/command/{}/resume")],
)
def test_several_ids_are_all_tried_and_the_first_error_counts(
    commands: Commands, host: FakeHost, verb: str, path: str
) -> None:
    host.on("POST", path.format(11), Message(message="done so"))
    host.on("POST", path.format(12), ConflictError("task 12 has ended"))
    host.on("POST", path.format(14), Message(message="done so"))
    done = commands("task", verb, "11", "12", "13", "14", "-o", "name")
    assert (done.code, done.out) == (5, "11\n14\n")
    assert done.err.count("error: ") == 2


def test_the_same_id_twice_is_done_once(commands: Commands, host: FakeHost) -> None:
    host.on("POST", "/api/kill/11", Message(message="killed"))
    assert commands("task", "kill", "11", "11").code == 0
    assert len(host.asked) == 1


def test_command_of_the_reference(commands: Commands, host: FakeHost) -> None:
    host.on("POST", "/api/command/11/pause", Message(message="paused"))
    assert commands("command", "11", "pause", app=client_app()).code == 0
    assert commands("command", "11", "stop", app=client_app()).code == 2


def test_retry_prints_the_new_ids(commands: Commands, host: FakeHost) -> None:
    host.on("POST", "/api/retry/11", made(21, 22))
    assert commands("task", "retry", "11").out == "21\n22\n"


def test_targets_that_were_refused_are_told_and_count(commands: Commands, host: FakeHost) -> None:
    refused = FailedTarget(target="n9", reason="no such node")
    host.on("POST", "/api/submit", made(11).model_copy(update={"failed_targets": [refused]}))
    done = commands("task", "submit", "--target", "n1", "--target", "n9", "true")
    assert (done.code, done.out) == (5, "11\n")
    assert done.err.startswith("error: n9: no such node\nhint: ")


@pytest.mark.parametrize(
    ("state", "exit_code", "code"),
    [
        (TaskState.COMPLETED, 0, 0),
        (TaskState.COMPLETED, None, 0),
        (TaskState.FAILED, 3, 3),
        (TaskState.FAILED, None, 1),
        (TaskState.KILLED, 137, 137),
        (TaskState.KILLED, None, 1),
        (TaskState.KILLED, 0, 1),
        (TaskState.KILLED_OOM, 137, 137),
        (TaskState.LOST, None, 1),
        (TaskState.KILLED, -15, 143),
        (TaskState.FAILED, 256, 1),
    ],
)
def test_the_exit_code_of_an_end(state: TaskState, exit_code: int | None, code: int) -> None:
    assert code_of(event(1, state, exit_code=exit_code)) == code


@pytest.mark.parametrize(("codes", "expected"), [((0, 0), 0), ((0, 4), 4), ((5, 4), 5)])
def test_wait_exits_with_the_first_code_that_is_not_zero(
    commands: Commands, host: FakeHost, codes: tuple[int, int], expected: int
) -> None:
    host.on("POST", "/api/submit", made(11, 12))
    for task_id, code in zip((11, 12), codes, strict=True):
        state = TaskState.FAILED if code else TaskState.COMPLETED
        host.on("GET", f"/api/status/{task_id}", detail(state, task_id=task_id, exit_code=code))
    assert commands("task", "wait", "11", "12").code == expected
    submitted = commands("task", "submit", "--wait", "--count", "2", "true")
    assert (submitted.code, submitted.out) == (expected, "11\n12\n")
