"""Answers of a Host, for tests of those that read them."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import httpx

from hakuriver.models.batches import BatchDetail
from hakuriver.models.submission import SubmitResponse
from hakuriver.models.tasks import LogChunk, TaskDetail, TaskEvent
from hakuriver.states import TaskState

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def event(
    sequence: int,
    state: TaskState,
    *,
    task_id: int = 11,
    batch_id: int = 10,
    attempt: int = 1,
    exit_code: int | None = None,
    cause: str = "",
) -> TaskEvent:
    return TaskEvent(
        sequence=sequence,
        time=START + timedelta(seconds=sequence),
        task_id=task_id,
        batch_id=batch_id,
        attempt=attempt,
        state=state,
        node="n1",
        exit_code=exit_code,
        cause=cause,
    )


def detail(
    status: TaskState = TaskState.RUNNING,
    *,
    task_id: int = 11,
    batch_id: int = 10,
    exit_code: int | None = None,
) -> TaskDetail:
    return TaskDetail(
        task_id=task_id,
        batch_id=batch_id,
        task_type="command",
        owner="ada",
        status=status,
        attempt=1,
        command="echo",
        arguments=["a b"],
        container_name="hakuriver-base",
        required_cores=1,
        required_memory_bytes=4_000_000_000,
        submitted_at=START,
        started_at=START,
        completed_at=START + timedelta(seconds=3),
        exit_code=exit_code,
        assigned_node="n1",
        stdout_path=f"task_outputs/{task_id}.out",
        stderr_path=f"task_errors/{task_id}.err",
        history=[event(3, status, task_id=task_id, batch_id=batch_id, exit_code=exit_code)],
    )


def batch(counts: dict[TaskState, int], *failures: TaskDetail, last_event: int = 0) -> BatchDetail:
    return BatchDetail(
        batch_id=10,
        name="tune",
        owner="ada",
        task_type="command",
        sweep=True,
        command="echo",
        arguments=["span:{1..3}"],
        counts=counts,
        submitted_at=START,
        failures=list(failures),
        last_event=last_event,
    )


def made(*task_ids: int, batch_id: int = 10) -> SubmitResponse:
    return SubmitResponse(message="submitted", batch_id=batch_id, task_ids=list(task_ids))


def sse_event(item: TaskEvent, name: str = "task") -> bytes:
    return f"event: {name}\nid: {item.sequence}\ndata: {item.model_dump_json()}\n\n".encode()


def sse_log(offset: int, data: bytes, attempt: int = 1) -> bytes:
    text = base64.b64encode(data).decode()
    chunk = LogChunk(attempt=attempt, offset=offset, next_offset=offset + len(data), data=text)
    return f"event: log\nid: {attempt}:{chunk.next_offset}\ndata: {chunk.model_dump_json()}\n\n".encode()


def stream(*pieces: bytes, error: Exception | None = None) -> httpx.Response:
    """A stream of events that ends, or breaks off, after its pieces."""
    return httpx.Response(
        200, headers={"Content-Type": "text/event-stream"}, stream=_Body(*pieces, error=error)
    )


class _Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that breaks off, or ends, after its pieces."""

    def __init__(self, *pieces: bytes, error: Exception | None = None) -> None:
        self._pieces = pieces
        self._error = error

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces
        if self._error:
            raise self._error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece
