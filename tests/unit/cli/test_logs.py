"""`task logs | stdout | stderr`: raw bytes, the tail, and following."""

from __future__ import annotations

import json

import httpx
import pytest

from hakuriver.errors import NotFoundError
from hakuriver.states import TaskState
from hakuriver_cli import logs
from hakuriver_cli.logs import last_lines
from unit.cli.conftest import Commands, FakeHost
from unit.sdk.wire_samples import event, sse_event, sse_log
from unit.sdk.wire_samples import stream as events

OUT, ERR = b"a\xff\nb\nc", b"e1\ne2\n"


def serve(host: FakeHost, stream: str, data: bytes, task_id: int = 11) -> None:
    """Gives at most three bytes at once, or follows from the offset to the end."""

    def answer(request: httpx.Request) -> httpx.Response:
        query = request.url.params
        offset = int(query["offset"])
        if query.get("follow"):
            end = sse_event(event(9, TaskState.COMPLETED), "end")
            return events(sse_log(offset, data[offset:]), end)
        start = max(0, len(data) + offset) if offset < 0 else offset
        found = data[start : start + min(3, int(query.get("limit", 3)))]
        headers = {"X-Next-Offset": str(start + len(found)), "X-Attempt": "1"}
        return httpx.Response(200, content=found, headers=headers)

    host.on("GET", f"/api/task/{task_id}/{stream}", answer)


@pytest.fixture(autouse=True)
def _logs(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "BLOCK", 3)
    serve(host, "stdout", OUT)
    serve(host, "stderr", ERR)


@pytest.mark.parametrize(
    ("words", "out", "err"),
    [
        ("stdout 11", OUT, b""),
        ("stderr 11", ERR, b""),
        ("logs 11", OUT, ERR),
        ("logs 11 --both", OUT, ERR),
        ("logs 11 --stdout", OUT, b""),
        ("logs 11 --stderr", ERR, b""),
        ("logs 11 --follow", OUT, ERR),
        ("stdout 11 -f", OUT, b""),
        ("stdout 11 --tail 1", b"c", b""),
        ("stdout 11 --tail 2", b"b\nc", b""),
        ("stdout 11 --tail 0", b"", b""),
        ("stderr 11 --tail 1", b"e2\n", b""),
        ("stdout 11 --tail 1 -f", b"c", b""),
    ],
)
def test_bytes_are_printed_as_they_are(commands: Commands, words: str, out: bytes, err: bytes) -> None:
    done = commands("task", *words.split())
    assert (done.code, done.raw, done.err.encode()) == (0, out, err)


def test_the_last_line_of_a_large_log_is_read_from_its_end(commands: Commands, host: FakeHost) -> None:
    serve(host, "stdout", b"0123456789" * 100 + b"\nab\n")
    assert commands("task", "stdout", "11", "--tail", "1").raw == b"ab\n"
    assert [request.url.params["offset"] for request in host.asked] == ["-3", "998"]


def test_following_the_tail_of_nothing_waits_for_something(commands: Commands, host: FakeHost) -> None:
    """A task that waits has written nothing yet, which is no error for one who follows."""

    def answer(request: httpx.Request) -> httpx.Response | NotFoundError:
        if request.url.params.get("follow"):
            return events(sse_log(0, b"ab"), sse_event(event(9, TaskState.COMPLETED), "end"))
        return NotFoundError("nothing yet")

    host.on("GET", "/api/task/11/stdout", answer)
    done = commands("task", "stdout", "11", "--tail", "1", "--follow")
    assert (done.code, done.raw, done.err) == (0, b"ab", "")
    assert commands("task", "stdout", "11", "--tail", "1").code == 3


def test_following_the_tail_goes_on_in_the_attempt_that_it_is_of(commands: Commands, host: FakeHost) -> None:
    commands("task", "stdout", "11", "--tail", "1", "--follow")
    assert host.asked[-1].headers["Last-Event-ID"] == f"1:{len(OUT)}"


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("words", ["logs 11", "logs 11 --follow", "logs 11 --tail 9"])
def test_in_json_each_line_is_an_object(commands: Commands, words: str) -> None:
    done = commands("task", *words.split(), "-o", "json")
    assert done.err == ""
    assert sorted(lines(done.out), key=lambda line: str(line["stream"])) == [
        {"task_id": "11", "attempt": 1, "stream": stream, "text": text}
        for stream, text in (
            ("stderr", "e1"),
            ("stderr", "e2"),
            ("stdout", "a\\xff"),
            ("stdout", "b"),
            ("stdout", "c"),
        )
    ]


def test_in_json_a_line_is_of_one_attempt(commands: Commands, host: FakeHost) -> None:
    """The first one was killed in the midst of a line."""
    end = sse_event(event(9, TaskState.COMPLETED), "end")
    pieces = (sse_log(0, b"fir"), sse_log(0, b"sec", 2), sse_log(3, b"ond\n", 2))
    host.on("GET", "/api/task/11/stdout", lambda _: events(*pieces, end))
    done = commands("task", "stdout", "11", "--follow", "-o", "json")
    assert [(line["attempt"], line["text"]) for line in lines(done.out)] == [(1, "fir"), (2, "second")]


def test_several_tasks_one_after_the_other(commands: Commands, host: FakeHost) -> None:
    serve(host, "stdout", b"second", task_id=12)
    done = commands("task", "stdout", "11", "5", "12")
    assert (done.code, done.raw) == (3, OUT + b"second")


def test_a_tail_below_zero_is_refused(commands: Commands) -> None:
    assert commands("task", "stdout", "11", "--tail=-1").code == 2


@pytest.mark.parametrize(
    ("count", "kept"), [(0, []), (1, [b"d"]), (2, [b"c\n", b"d"]), (9, [b"ab\n", b"c\n", b"d"])]
)
def test_the_last_lines_of_pieces(count: int, kept: list[bytes]) -> None:
    assert last_lines([b"a", b"b\nc\n", b"d"], count) == kept
