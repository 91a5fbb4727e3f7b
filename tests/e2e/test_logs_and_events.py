"""Logs by offset and live, and the stream of events: pushed, and resumed without a gap or a repetition."""

from __future__ import annotations

import base64
import uuid
from itertools import takewhile
from pathlib import Path

import httpx
import pytest

from hakuriver.states import TaskState
from support.cluster import Cluster
from support.waiting import until


def test_a_log_is_read_in_pieces_by_offset(cluster: Cluster) -> None:
    task = cluster.api.submit_one("printf", "0123456789")
    cluster.api.wait_final(task)
    first = cluster.api.call("GET", f"/api/task/{task}/stdout", params={"offset": 0, "limit": 4})
    assert (first.content, first.headers["X-Next-Offset"]) == (b"0123", "4")
    assert first.headers["X-Attempt"] == "1"
    last = cluster.api.call("GET", f"/api/task/{task}/stdout", params={"offset": -3})
    assert (last.content, last.headers["X-Next-Offset"]) == (b"789", "10")
    assert cluster.api.log(task, offset=4) == b"456789"
    assert cluster.api.log(task, offset=10) == b""


def test_a_log_keeps_bytes_that_are_no_text(cluster: Cluster) -> None:
    task = cluster.api.submit_one("printf", r"\000\377\r\n\033[1m")
    cluster.api.wait_final(task)
    assert cluster.api.log(task) == b"\0\xff\r\n\x1b[1m"


def test_a_task_that_waits_has_an_empty_log(cluster: Cluster) -> None:
    task = cluster.api.submit_one("true", targets=["not-there"], hold_for_node=True)
    answer = cluster.api.call("GET", f"/api/task/{task}/stdout")
    assert answer.status_code in {200, 404}
    cluster.api.kill(task)


def test_followers_get_bytes_while_the_task_writes_them_and_then_its_end(cluster: Cluster) -> None:
    gate = cluster.shared / "follow-gate"
    text = f"echo first; until [ -e {gate} ]; do sleep 0.02; done; echo last; exit 6"
    task = cluster.api.submit_one("sh", "-c", text)
    seen = b""
    with cluster.api.events(f"/api/task/{task}/stdout", follow="true") as events:
        for name, _, data in events:
            if name == "end":
                assert (data["state"], data["exit_code"]) == ("failed", 6)
                break
            assert name == "log"
            assert data["offset"] == len(seen)
            seen += base64.b64decode(data["data"])
            assert data["next_offset"] == len(seen)
            if seen == b"first\n":
                gate.touch()
    assert seen == b"first\nlast\n"


def test_following_goes_on_from_an_offset(cluster: Cluster) -> None:
    task = cluster.api.submit_one("printf", "0123456789")
    with cluster.api.events(f"/api/task/{task}/stdout", follow="true", offset=7) as events:
        chunks = [
            data for name, _, data in takewhile(lambda event: event[0] != "end", events) if name == "log"
        ]
    assert b"".join(base64.b64decode(chunk["data"]) for chunk in chunks) == b"789"


_TWICE = 'echo "try $HAKURIVER_ATTEMPT"; until [ -e %s.$HAKURIVER_ATTEMPT ]; do sleep 0.02; done; exit 1'


def test_followers_get_every_attempt_whole(cluster: Cluster) -> None:
    gate = cluster.shared / "attempts-gate"
    task = cluster.api.submit_one("sh", "-c", _TWICE % gate, max_retries=1)
    process = cluster.run.start("task", "logs", "--follow", str(task))
    assert process.stdout is not None
    for attempt in (1, 2):
        assert process.stdout.readline() == f"try {attempt}\n".encode()
        Path(f"{gate}.{attempt}").touch()
    assert process.stdout.read() == b""
    assert process.wait(timeout=30) == 0


def test_a_follower_that_comes_back_gets_the_attempts_that_it_missed(cluster: Cluster) -> None:
    text = "echo try $HAKURIVER_ATTEMPT; exit 1"
    task = cluster.api.submit_one("sh", "-c", text, max_retries=2)
    cluster.api.wait_final(task)
    cluster.api.client.headers["Last-Event-ID"] = "1:4"
    try:
        with cluster.api.events(f"/api/task/{task}/stdout", follow="true", offset=0) as events:
            seen = [(identity, data) for name, identity, data in events if name == "log"]
    finally:
        del cluster.api.client.headers["Last-Event-ID"]
    assert [(data["attempt"], base64.b64decode(data["data"])) for _, data in seen] == [
        (1, b"1\n"),
        (2, b"try 2\n"),
        (3, b"try 3\n"),
    ]
    assert [identity for identity, _ in seen] == ["1:6", "2:6", "3:6"]


def test_a_place_that_is_none_is_refused(cluster: Cluster) -> None:
    task = cluster.api.submit_one("true")
    for wrong in ("7", "0:7", "1:-7", "1:" + "9" * 30, "x"):
        answer = cluster.api.call(
            "GET",
            f"/api/task/{task}/stdout",
            params={"follow": "true"},
            headers={"Last-Event-ID": wrong},
        )
        assert (answer.status_code, answer.json()["error"]) == (400, "usage"), wrong


def test_a_large_log_comes_through_whole(cluster: Cluster) -> None:
    size = 20_000_000
    task = cluster.api.submit_one("sh", "-c", f"head -c {size} /dev/zero; echo end")
    assert cluster.api.wait_final(task).status == TaskState.COMPLETED
    log = b""
    while len(log) < size + 4:
        piece = cluster.api.log(task, offset=len(log))
        assert piece, f"it stops at {len(log)}"
        log += piece
    assert log.endswith(b"\0end\n")
    assert len(log) == size + 4


def test_events_of_a_task_begin_with_its_history_and_rise(cluster: Cluster) -> None:
    task = cluster.api.submit_one("true")
    cluster.api.wait_final(task)
    with cluster.api.events("/api/events", task_id=task, since=0) as events:
        seen = []
        for name, event_id, data in events:
            assert name == "task"
            assert int(event_id) == data["sequence"]
            seen.append((data["sequence"], data["state"]))
            if data["state"] == "completed":
                break
    assert [state for _, state in seen] == ["pending", "assigning", "running", "completed"]
    assert [number for number, _ in seen] == sorted({number for number, _ in seen})


def test_events_resume_after_the_last_one_seen(cluster: Cluster) -> None:
    task = cluster.api.submit_one("true")
    cluster.api.wait_final(task)
    history = cluster.api.task(task).history
    with cluster.api.events("/api/events", task_id=task, since=history[1].sequence) as events:
        _, _, data = next(events)
    assert data["sequence"] == history[2].sequence


def test_events_are_pushed_as_things_happen(cluster: Cluster) -> None:
    with cluster.api.events("/api/events") as events:
        batch = cluster.api.submit("true", count=2)
        seen: dict[str, list[str]] = {}
        for _, _, data in events:
            if data["batch_id"] == str(batch.batch_id):
                seen.setdefault(data["task_id"], []).append(data["state"])
            if len(seen) == 2 and all(states[-1] == "completed" for states in seen.values()):
                break
    assert all(states[0] == "pending" for states in seen.values())


@pytest.mark.parametrize("how", ["revoked", "expired", "user removed"])
@pytest.mark.parametrize("what", ["events", "log"])
def test_a_stream_ends_with_the_token_that_opened_it(cluster: Cluster, how: str, what: str) -> None:
    name = f"u{uuid.uuid4().hex[:8]}"
    cluster.api.json("POST", "/api/users", json={"name": name})
    lasting = cluster.api.json("POST", "/api/tokens", json={"user": name})
    task = cluster.api_as(lasting["token"]).submit_one("sleep", "86400")
    limit = {"expires_in_seconds": 6} if how == "expired" else {}
    made = cluster.api.json("POST", "/api/tokens", json={"user": name, **limit})
    theirs = cluster.api_as(made["token"])
    path = "/api/events" if what == "events" else f"/api/task/{task}/stdout"
    try:
        with theirs.events(path, **({"follow": "true"} if what == "log" else {})) as events:
            if how == "revoked":
                cluster.api.json("DELETE", f"/api/tokens/{made['token_id']}")
            elif how == "user removed":
                cluster.api.json("DELETE", f"/api/users/{name}")
            assert "end" not in [each for each, _, _ in events]
        assert theirs.call("GET", "/api/whoami").status_code == 401
    finally:
        cluster.api.kill(task)
        cluster.api.wait_final(task)


def test_a_download_breaks_off_with_the_token_that_began_it(cluster: Cluster) -> None:
    folder = cluster.shared / "hakuriver-containers"
    folder.mkdir(exist_ok=True)
    archive = folder / "large-100.tar"
    with archive.open("wb") as file:
        file.truncate(300_000_000)
    made = cluster.api.json("POST", "/api/tokens", json={"user": "admin"})
    theirs = cluster.api_as(made["token"])
    try:
        with theirs.client.stream("GET", "/api/environments/large/export") as answer:
            assert answer.is_success
            pieces = answer.iter_raw()
            next(pieces)
            cluster.api.json("DELETE", f"/api/tokens/{made['token_id']}")
            with pytest.raises(httpx.RemoteProtocolError):
                list(pieces)
    finally:
        archive.unlink()


def test_logs_lie_on_the_share_where_the_documentation_says(cluster: Cluster) -> None:
    task = cluster.api.submit_one("sh", "-c", "echo o; echo e >&2")
    detail = cluster.api.wait_final(task)
    assert (detail.stdout_path, detail.stderr_path) == (f"task_outputs/{task}.out", f"task_errors/{task}.err")
    assert (cluster.shared / detail.stdout_path).read_bytes() == b"o\n"
    assert (cluster.shared / detail.stderr_path).read_bytes() == b"e\n"


def test_the_command_follows_a_log_until_the_task_ends(cluster: Cluster) -> None:
    gate = cluster.shared / "logs-gate"
    task = cluster.api.submit_one("sh", "-c", f"echo one; until [ -e {gate} ]; do sleep 0.02; done; echo two")
    process = cluster.run.start("task", "logs", "--follow", str(task))
    assert process.stdout is not None
    assert process.stdout.readline() == b"one\n"
    gate.touch()
    assert process.stdout.read() == b"two\n"
    process.wait(timeout=30)


def test_a_reader_of_a_log_leaves_and_the_task_goes_on(cluster: Cluster) -> None:
    task = cluster.api.submit_one("sh", "-c", "while :; do echo x; sleep 0.01; done")
    with cluster.api.events(f"/api/task/{task}/stdout", follow="true") as events:
        next(events)
    before = len(cluster.api.log(task))
    until(lambda: len(cluster.api.log(task)) > before, "more output")
    cluster.api.kill(task)
    cluster.api.wait_final(task)
