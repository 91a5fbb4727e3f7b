"""What is asked of the Host, as values: method, path, parameters and body."""

from __future__ import annotations

import json

import httpx
import pytest

from hakuriver.client import calls
from hakuriver.errors import InternalError, UsageError
from hakuriver.models.submission import SubmitRequest
from hakuriver.models.tasks import PriorityRequest
from unit.sdk.wire_samples import detail


def test_a_submission_carries_its_key_and_leaves_defaults_out() -> None:
    call = calls.submit(SubmitRequest(command="echo", arguments=["a"], required_cores=2), "key")
    assert (call.method, call.path, call.headers) == ("POST", "/api/submit", {"Idempotency-Key": "key"})
    assert json.loads(call.body or b"") == {"command": "echo", "arguments": ["a"], "required_cores": 2}
    assert call.repeatable


def test_a_list_repeats_its_states_and_leaves_out_what_is_not_asked() -> None:
    call = calls.tasks(status=["pending", "running"], batch_id=7, limit=5)
    assert call.params == (("status", "pending"), ("status", "running"), ("batch_id", "7"), ("limit", "5"))


def test_a_page_is_read_with_the_cursor_of_its_header() -> None:
    body = b"[" + detail().model_dump_json().encode() + b"]"
    page = calls.tasks().read(httpx.Response(200, content=body, headers={"X-Next-Cursor": "abc"}))
    assert (len(page.tasks), page.next_cursor) == (1, "abc")
    assert calls.tasks().read(httpx.Response(200, content=b"[]")).next_cursor is None


def test_a_part_of_a_log_says_where_to_read_on() -> None:
    call = calls.log(5, "stderr", offset=10, attempt=2)
    assert call.path == "/api/task/5/stderr"
    assert call.params == (("offset", "10"), ("attempt", "2"))
    assert call.read(httpx.Response(200, content=b"abc")).next_offset == 13
    told = httpx.Response(200, content=b"abc", headers={"X-Next-Offset": "20"})
    assert call.read(told) == calls.LogPart(b"abc", 20)


@pytest.mark.parametrize(
    ("call", "method", "path"),
    [
        (calls.pause(5), "POST", "/api/command/5/pause"),
        (calls.resume(5), "POST", "/api/command/5/resume"),
        (calls.task(5), "GET", "/api/status/5"),
        (calls.explain(5), "GET", "/api/explain/5"),
        (calls.nodes(), "GET", "/api/nodes"),
        (calls.health("n1"), "GET", "/api/health"),
        (calls.cluster(), "GET", "/api/cluster"),
        (calls.environments(), "GET", "/api/docker/list"),
        (calls.remove_user("a/b"), "DELETE", "/api/users/a%2Fb"),
        (calls.revoke_token("t"), "DELETE", "/api/tokens/t"),
        (calls.whoami(), "GET", "/api/whoami"),
        (calls.batch(5), "GET", "/api/batches/5"),
        (calls.batches(min_tasks=2), "GET", "/api/batches"),
        (calls.release_batch(5), "POST", "/api/batches/5/release"),
        (calls.remove_node("n 1", force=True), "DELETE", "/api/nodes/n%201"),
    ],
)
def test_paths(call: calls.Call[object], method: str, path: str) -> None:
    assert (call.method, call.path) == (method, path)
    assert call.repeatable == (method == "GET")


def test_calls_that_change_tasks_once_however_often_they_come_may_be_said_again() -> None:
    kill, retry = calls.kill(5), calls.retry(5, "key")
    assert (kill.method, kill.path, kill.repeatable) == ("POST", "/api/kill/5", True)
    assert (retry.method, retry.path, retry.repeatable) == ("POST", "/api/retry/5", True)
    assert retry.headers == {"Idempotency-Key": "key"}


def test_calls_that_change_batches_once_however_often_they_come_may_be_said_again() -> None:
    again = calls.retry_batch(5, "key")
    assert again.headers == {"Idempotency-Key": "key"}
    said = {
        "kill": calls.kill_batch(5),
        "hold": calls.hold_batch(5),
        "priority": calls.reprioritize_batch(5, PriorityRequest(priority=-1)),
        "retry": again,
    }
    for what, call in said.items():
        assert (call.method, call.path, call.repeatable) == ("POST", f"/api/batches/5/{what}", True)


def test_what_a_node_is_to_do_may_be_said_again() -> None:
    for name in ("cordon", "uncordon", "drain"):
        call = getattr(calls, name)("n1")
        assert (call.method, call.path, call.repeatable) == ("POST", f"/api/nodes/n1/{name}", True)


def test_events_resume_after_the_last_one() -> None:
    assert calls.events(None).params == ()
    resumed = calls.events(7, batch_id=3)
    assert resumed.params == (("since", "7"), ("batch_id", "3"))
    assert resumed.headers["Last-Event-ID"] == "7"


def test_an_answer_that_is_not_understood_says_what_is_wrong_with_it() -> None:
    with pytest.raises(InternalError, match="not understood"):
        calls.whoami().read(httpx.Response(200, content=b'{"name": 1}'))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"command": ""}, "command"),
        ({"command": "x", "required_cores": -1}, "required_cores -1"),
        ({"command": "x", "colour": "blue"}, "colour blue"),
        ({"command": "x", "targets": ["a b"]}, "a b"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        calls.submit_request(fields)


def test_a_wrong_field_is_named_as_the_caller_calls_it() -> None:
    with pytest.raises(UsageError, match="--cores -1: must be at least 0"):
        calls.submit_request({"command": "x", "required_cores": -1}, {"required_cores": "--cores"})
