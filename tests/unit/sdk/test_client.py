"""Both clients against a Host that answers as it is told: retries, following, waiting, errors."""

from __future__ import annotations

import asyncio
import errno
import inspect
import ssl
from collections.abc import Callable
from typing import Any

import httpx
import pytest

import hakuriver
from hakuriver.client import AsyncClient, Client, LogPart, wire
from hakuriver.client.waiting import Waiting
from hakuriver.config import Settings
from hakuriver.errors import (
    InternalError,
    NotFoundError,
    UnreachableError,
    UsageError,
    VersionError,
)
from hakuriver.models.errors import ErrorBody
from hakuriver.models.tasks import Message, TaskEvent
from hakuriver.states import TaskState
from hakuriver.version import VERSION_HEADER, __version__
from unit.sdk.wire_samples import batch, detail, event, made, sse_event, sse_log, stream

URL = "http://host:8000"
Handler = Callable[[httpx.Request], httpx.Response]


class Script:
    """A Host that gives one prepared answer after the other, and remembers what it was asked."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Blocking:
    """One manner of use for both clients: `Client`."""

    def __init__(self, handler: Handler, **options: Any) -> None:
        self.client = Client(URL, "secret", transport=httpx.MockTransport(handler), **options)

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.client, name)(*args, **kwargs)

    def take(self, name: str, *args: Any, count: int | None = None, **kwargs: Any) -> list[Any]:
        items: list[Any] = []
        for item in getattr(self.client, name)(*args, **kwargs):
            items.append(item)
            if len(items) == count:
                break
        return items


class Asynchronous:
    """The same for `AsyncClient`."""

    def __init__(self, handler: Handler, **options: Any) -> None:
        self.client = AsyncClient(URL, "secret", transport=httpx.MockTransport(handler), **options)

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return asyncio.run(getattr(self.client, name)(*args, **kwargs))

    def take(self, name: str, *args: Any, count: int | None = None, **kwargs: Any) -> list[Any]:
        async def collect() -> list[Any]:
            items: list[Any] = []
            async for item in getattr(self.client, name)(*args, **kwargs):
                items.append(item)
                if len(items) == count:
                    break
            return items

        return asyncio.run(collect())


Kind = type[Blocking] | type[Asynchronous]


@pytest.fixture(params=[Blocking, Asynchronous])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    monkeypatch.setattr(wire, "_FIRST_DELAY", 0.0)
    monkeypatch.setattr(wire, "_LONGEST_DELAY", 0.0)
    chosen: Kind = request.param
    return chosen


def ok(model: Any) -> httpx.Response:
    return httpx.Response(200, content=model.model_dump_json())


def refused(code: str = "not_found", status: int = 404) -> httpx.Response:
    body = ErrorBody(error=code, message="no such task", hint="list them")
    return httpx.Response(status, content=body.model_dump_json())


def test_both_clients_have_the_same_methods() -> None:
    def public(cls: type) -> dict[str, list[str]]:
        members = inspect.getmembers(cls, inspect.isfunction)
        return {
            name: list(inspect.signature(member).parameters)
            for name, member in members
            if not name.startswith("_")
        }

    assert public(Client) == public(AsyncClient)


def test_the_package_gives_the_clients_when_they_are_asked_for() -> None:
    assert hakuriver.Client is Client
    assert hakuriver.AsyncClient is AsyncClient
    with pytest.raises(AttributeError):
        hakuriver.Nothing  # noqa: B018  (asking is the test)


def test_requests_carry_token_and_version(kind: Kind) -> None:
    host = Script(ok(detail()))
    kind(host).call("task", 11)
    assert host.asked[0].headers["Authorization"] == "Bearer secret"
    assert host.asked[0].headers[VERSION_HEADER] == __version__


def test_a_lost_submission_is_sent_again_with_the_same_key(kind: Kind) -> None:
    host = Script(httpx.ReadError("reset"), httpx.ConnectError("refused"), ok(made(11)))
    answer = kind(host).call("submit", command="echo")
    assert answer.task_ids == [11]
    keys = [request.headers["Idempotency-Key"] for request in host.asked]
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_two_submissions_have_two_keys(kind: Kind) -> None:
    host = Script(ok(made(11)), ok(made(12)))
    client = kind(host)
    client.call("submit", command="echo")
    client.call("submit", command="echo")
    first, second = [request.headers["Idempotency-Key"] for request in host.asked]
    assert first != second


def test_what_is_not_safe_to_repeat_is_not_repeated(kind: Kind) -> None:
    host = Script(httpx.ReadError("reset"))
    with pytest.raises(UnreachableError, match="lost"):
        kind(host).call("pause", 11)
    assert len(host.asked) == 1


def test_a_kill_is_sent_again(kind: Kind) -> None:
    host = Script(httpx.ReadError("reset"), httpx.ConnectError("refused"), ok(Message(message="killed")))
    assert kind(host).call("kill", 11).message == "killed"


def test_a_retry_is_sent_again_with_the_same_key(kind: Kind) -> None:
    host = Script(httpx.ReadError("reset"), ok(made(12)))
    assert kind(host).call("retry", 11).task_ids == [12]
    first, second = [request.headers["Idempotency-Key"] for request in host.asked]
    assert first == second


def test_a_host_that_has_answered_before_is_waited_for(kind: Kind) -> None:
    """It is being restarted; a client whose Host was never there has the wrong address."""
    host = Script(ok(made(11)), httpx.ConnectError("refused"), ok(Message(message="killed")))
    client = kind(host)
    client.call("submit", command="true")
    assert client.call("kill", 11).message == "killed"


def test_a_host_that_was_never_there_is_an_error_at_once(kind: Kind) -> None:
    host = Script(httpx.ConnectError("refused"))
    with pytest.raises(UnreachableError, match=URL) as caught:
        kind(host).call("nodes")
    assert "hakuriver up" in caught.value.hint
    assert len(host.asked) == 1


def caused_by(cause: OSError) -> httpx.ConnectError:
    error = httpx.ConnectError("failed")
    error.__cause__ = cause
    return error


def test_how_a_host_is_not_reached_is_said_alike_by_both_clients(kind: Kind) -> None:
    """The library for asyncio shows the arguments of its call in the error's text."""
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 1)")
    with pytest.raises(UnreachableError, match=r"\(Connection refused\)"):
        kind(Script(caused_by(refused))).call("nodes")


def test_https_to_a_host_without_tls_is_told_from_a_wrong_certificate(kind: Kind) -> None:
    wrong = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    wrong.reason = "WRONG_VERSION_NUMBER"
    with pytest.raises(UnreachableError, match="does not speak TLS") as caught:
        kind(Script(caused_by(wrong))).call("nodes")
    assert "http://" in caught.value.hint


def test_patience_ends(kind: Kind) -> None:
    host = Script(httpx.ReadError("reset"))
    with pytest.raises(UnreachableError):
        kind(host, patience=0).call("submit", command="echo")
    assert len(host.asked) == 1


def test_an_error_of_the_host_is_raised_as_it_was_sent(kind: Kind) -> None:
    with pytest.raises(NotFoundError, match="no such task") as caught:
        kind(Script(refused())).call("task", 5)
    assert caught.value.hint == "list them"


def test_a_proxy_that_answers_for_the_host_is_told_from_it(kind: Kind) -> None:
    with pytest.raises(UnreachableError, match="502"):
        kind(Script(httpx.Response(502, text="<html>"))).call("nodes")
    with pytest.raises(InternalError, match="not in the Host's words"):
        kind(Script(httpx.Response(404, text="<html>"))).call("nodes")


def test_a_host_too_far_away_in_versions_is_refused(kind: Kind) -> None:
    answer = httpx.Response(200, content=b"[]", headers={VERSION_HEADER: "9.9.9"})
    with pytest.raises(VersionError, match=r"9\.9\.9"):
        kind(Script(answer)).call("nodes")


def test_pages_are_fetched_until_there_is_none(kind: Kind) -> None:
    page = b"[" + detail().model_dump_json().encode() + b"]"
    host = Script(
        httpx.Response(200, content=page, headers={"X-Next-Cursor": "c1"}), httpx.Response(200, content=page)
    )
    assert len(kind(host).take("iter_tasks", owner="ada")) == 2
    assert [request.url.params.get("cursor") for request in host.asked] == [None, "c1"]


def test_a_whole_log_is_read_piece_by_piece(kind: Kind) -> None:
    host = Script(*(httpx.Response(200, content=piece) for piece in (b"ab", b"c", b"")))
    assert kind(host).call("stdout", 11) == b"abc"
    assert [request.url.params["offset"] for request in host.asked] == ["0", "2", "3"]


def test_following_resumes_at_its_offset_and_ends_with_the_log(kind: Kind) -> None:
    end = sse_event(event(9, TaskState.COMPLETED, exit_code=0), "end")
    host = Script(
        stream(b": keep-alive\n\n", sse_log(0, b"abc"), error=httpx.ReadError("reset")),
        httpx.ConnectError("refused"),
        stream(sse_log(3, b"d\xff"), end),
    )
    assert kind(host).take("follow", 11, "stderr") == [b"abc", b"d\xff"]
    assert [request.url.params["offset"] for request in host.asked] == ["0", "3", "3"]
    assert all(request.url.path == "/api/task/11/stderr" for request in host.asked)


def test_bytes_that_come_twice_are_given_once(kind: Kind) -> None:
    end = sse_event(event(9, TaskState.COMPLETED), "end")
    host = Script(stream(sse_log(0, b"abc"), sse_log(1, b"bcd"), sse_log(0, b"ab"), end))
    assert kind(host).take("follow", 11) == [b"abc", b"d"]


def test_every_attempt_is_given_whole(kind: Kind) -> None:
    """Each begins at 0 again, below where the one before it ended."""
    end = sse_event(event(9, TaskState.COMPLETED, attempt=3), "end")
    host = Script(
        stream(sse_log(0, b"first"), sse_log(0, b"se", 2), error=httpx.ReadError("reset")),
        stream(sse_log(0, b"first"), sse_log(2, b"cond", 2), sse_log(0, b"third", 3), end),
    )
    assert kind(host).take("follow", 11) == [b"first", b"se", b"cond", b"third"]
    assert "Last-Event-ID" not in host.asked[0].headers
    assert host.asked[1].headers["Last-Event-ID"] == "2:2"


def test_following_after_a_part_goes_on_in_its_attempt(kind: Kind) -> None:
    headers = {"X-Next-Offset": "5", "X-Attempt": "2"}
    end = sse_event(event(9, TaskState.COMPLETED, attempt=2), "end")
    host = Script(httpx.Response(200, content=b"abcde", headers=headers), stream(sse_log(5, b"f", 2), end))
    client = kind(host)
    part = client.call("log", 11, "stdout")
    assert part == LogPart(b"abcde", 5, 2)
    assert client.take("follow", 11, after=part) == [b"f"]
    assert host.asked[1].headers["Last-Event-ID"] == "2:5"


def test_all_pieces_of_a_log_are_of_one_attempt(kind: Kind) -> None:
    host = Script(
        httpx.Response(200, content=b"ab", headers={"X-Next-Offset": "2", "X-Attempt": "1"}),
        httpx.Response(200, content=b""),
    )
    assert kind(host).call("stdout", 11) == b"ab"
    assert [request.url.params.get("attempt") for request in host.asked] == [None, "1"]


def test_events_resume_after_the_last_that_was_seen(kind: Kind) -> None:
    first, second = event(3, TaskState.PENDING), event(4, TaskState.RUNNING)
    host = Script(
        stream(sse_event(first)),
        stream(sse_event(first), sse_event(second)),
    )
    assert kind(host).take("events", 0, task_id=11, count=2) == [first, second]
    assert [request.url.params["since"] for request in host.asked] == ["0", "3"]
    assert host.asked[1].headers["Last-Event-ID"] == "3"


def test_a_refused_stream_raises_what_the_host_said(kind: Kind) -> None:
    with pytest.raises(NotFoundError, match="no such task"):
        kind(Script(refused())).take("follow", 5)


def test_what_is_no_stream_is_not_taken_for_one(kind: Kind) -> None:
    with pytest.raises(InternalError, match="text/html"):
        kind(Script(httpx.Response(200, html="<html>"))).take("events")


def test_waiting_for_one_follows_its_events(kind: Kind) -> None:
    end = event(5, TaskState.FAILED, exit_code=3)
    host = Script(ok(detail()), stream(sse_event(event(4, TaskState.RUNNING)), sse_event(end)))
    assert kind(host).call("wait", [11]) == {11: end}
    assert host.asked[1].url.params["task_id"] == "11"


def test_waiting_for_a_batch_uses_one_stream_and_keeps_the_order(kind: Kind) -> None:
    changes = [
        event(1, TaskState.PENDING, task_id=11),
        event(2, TaskState.PENDING, task_id=12),
        event(3, TaskState.COMPLETED, task_id=12, exit_code=0),
        event(4, TaskState.COMPLETED, task_id=13, exit_code=0),
        event(5, TaskState.COMPLETED, task_id=11, exit_code=0),
    ]
    host = Script(ok(detail()), stream(*map(sse_event, changes)))
    told: list[int] = []
    assert list(kind(host).call("wait", [11, 12], told=told.append)) == [11, 12]
    assert told == [0, 0, 1, 2]
    assert host.asked[1].url.params["batch_id"] == "10"


def test_waiting_for_a_whole_batch_follows_what_happens_after_it_was_counted(kind: Kind) -> None:
    """One that ends while they are counted is told of twice, so they are counted again."""
    running, completed, failed = TaskState.RUNNING, TaskState.COMPLETED, TaskState.FAILED
    host = Script(
        ok(batch({running: 2, completed: 1}, last_event=7)),
        stream(
            sse_event(event(8, TaskState.LOST, task_id=12)),
            sse_event(event(9, TaskState.PENDING, task_id=12)),
            sse_event(event(10, completed, task_id=11)),
            sse_event(event(11, failed, task_id=13)),
        ),
        ok(batch({running: 1, completed: 2}, last_event=11)),
        stream(sse_event(event(12, failed, task_id=12))),
        ok(batch({failed: 1, completed: 2})),
    )
    told: list[int] = []
    assert kind(host).call("wait_batch", 10, told=told.append).counts == {failed: 1, completed: 2}
    assert told == [1, 2, 1, 2, 3, 2, 3, 3]
    streams = [request.url.params for request in host.asked if request.url.path == "/api/events"]
    assert [(each["batch_id"], each["since"]) for each in streams] == [("10", "7"), ("10", "11")]


def test_waiting_for_what_has_ended_asks_for_no_stream(kind: Kind) -> None:
    host = Script(ok(detail(TaskState.COMPLETED, exit_code=0)))
    assert kind(host).call("wait", [11])[11].state is TaskState.COMPLETED
    assert len(host.asked) == 1


def test_a_task_that_is_tried_again_has_not_ended() -> None:
    waiting = Waiting([11, 12])
    assert waiting.next_cursor(detail()) is not None
    assert waiting.take(event(1, TaskState.LOST))
    assert not waiting.take(event(2, TaskState.PENDING, attempt=2))
    assert waiting.remaining == [11, 12]


def test_an_end_without_history_is_made_of_the_record() -> None:
    waiting = Waiting([11])
    bare = detail(TaskState.KILLED).model_copy(update={"history": []})
    assert waiting.next_cursor(bare) is None
    assert isinstance(waiting.results()[11], TaskEvent)


def test_what_takes_its_time_has_a_limit_for_connecting_alone(kind: Kind) -> None:
    host = Script(ok(Message(message="begins anew")), ok(detail()))
    client = kind(host, timeout=7)
    client.call("restore_vps", "11")
    client.call("task", 11)
    long, short = (request.extensions["timeout"] for request in host.asked)
    assert long == {"connect": 7, "read": None, "write": None, "pool": 7}
    assert set(short.values()) == {7}


@pytest.mark.parametrize("url", ["", "host:8000", "ftp://host", "http://"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="not a URL"):
        Client(url)


def test_a_token_with_a_line_end_is_refused() -> None:
    with pytest.raises(UsageError, match="token"):
        Client(URL, "a\nb")


def test_settings_name_host_timeout_and_token(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HAKURIVER_TOKEN", raising=False)
    (tmp_path / "token").write_text("beside\n")
    settings = Settings(client={"url": URL + "/", "timeout": 3})  # type: ignore[arg-type]
    found = wire.address_of(settings, tmp_path / "config.toml")
    assert (found.url, found.token, found.timeout) == (URL, "beside", 3)
    monkeypatch.setenv("HAKURIVER_TOKEN", "first")
    assert wire.find_token(settings, tmp_path / "config.toml") == "first"


def test_a_named_token_file_that_is_missing_is_an_error(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HAKURIVER_TOKEN", raising=False)
    settings = Settings(client={"token_file": tmp_path / "none"})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="none"):
        wire.find_token(settings)


def test_pauses_double_and_begin_anew_after_a_connection() -> None:
    now = 0.0
    retries = wire.Retries(10.0, lambda: now)
    lost = httpx.ReadError("reset")
    assert [retries.pause_after(lost) for _ in range(3)] == [0.05, 0.1, 0.2]
    retries.connected()
    assert retries.pause_after(lost) == 0.05
    now = 10.0
    assert retries.pause_after(lost) is None


def test_what_never_answers_and_always_hangs_up_is_not_waited_for_long() -> None:
    """As a port that wants TLS does with plain HTTP."""
    lost, refused = httpx.RemoteProtocolError("hung up"), httpx.ConnectError("refused")
    retries = wire.Retries(60.0, lambda: 0.0)
    assert None not in [retries.pause_after(lost) for _ in range(6)]
    assert retries.pause_after(lost) is None
    restarted = wire.Retries(60.0, lambda: 0.0)
    assert None not in [restarted.pause_after(error) for error in 4 * [lost, lost, refused]]
    known = wire.Retries(60.0, lambda: 0.0, stood=True)
    assert None not in [known.pause_after(lost) for _ in range(20)]
