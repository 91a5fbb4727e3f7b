"""Tasks: submit, list, look, control, and their logs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from starlette.responses import Response

from hakuriver.errors import (
    ConflictError,
    ImpossibleError,
    NotFoundError,
    StorageError,
    UnreachableError,
    UsageError,
)
from hakuriver.ids import MAX_ID
from hakuriver.models.base import TaskId
from hakuriver.models.submission import SubmitRequest, SubmitResponse
from hakuriver.models.tasks import (
    LogChunk,
    Message,
    PriorityRequest,
    QueuedTask,
    TaskDetail,
    TaskEvent,
    TaskExplanation,
    TaskSummary,
)
from hakuriver.states import TaskState
from hakuriver_host.api import sse
from hakuriver_host.api.endpoint import Call, Endpoint
from hakuriver_host.db.repository import TaskFilter
from hakuriver_host.services.access import Permission
from hakuriver_host.services.logs import MAX_READ, Logs, Place
from hakuriver_host.services.paths import Stream
from hakuriver_host.services.submit import Submissions
from hakuriver_host.services.tasks import Tasks

MAX_PAGE = 1_000
_EVENT_ID = re.compile(r"([1-9][0-9]{0,8}):([0-9]{1,18})")
"""Attempt, and offset of what follows."""


def as_list(value: object) -> list[object]:
    """A parameter that may be repeated comes alone or in a list."""
    return value if isinstance(value, list) else [value]


def _states(value: object) -> object:
    """`killed-oom` is `killed_oom`."""
    return [part.replace("-", "_") if isinstance(part, str) else part for part in as_list(value)]


_Text = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]


class TaskQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    status: Annotated[list[TaskState], BeforeValidator(_states)] = Field(
        default=[], description="May be repeated."
    )
    node: _Text | None = None
    owner: _Text | None = None
    batch_id: TaskId | None = None
    name: _Text | None = None
    limit: int = Field(default=50, ge=1, le=MAX_PAGE)
    cursor: TaskId | None = Field(default=None, description="The X-Next-Cursor of the page before.")

    def filter(self) -> TaskFilter:
        return TaskFilter(
            states=self.status,
            node=self.node,
            owner=self.owner,
            batch_id=self.batch_id,
            name=self.name,
            before=self.cursor,
            limit=self.limit,
        )


class QueueQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    owner: _Text | None = None
    limit: int = Field(default=100, ge=1, le=MAX_PAGE)


class LogQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    offset: int | None = Field(
        default=None, ge=-MAX_ID, le=MAX_ID, description="First byte; a negative one counts from the end."
    )
    limit: int | None = Field(default=None, ge=1, le=MAX_READ, description="Bytes at most.")
    attempt: int | None = Field(
        default=None, ge=1, le=2**31 - 1, description="Which attempt; the latest unless given."
    )
    follow: bool = Field(default=False, description="Server-sent events, until the task has ended.")


def task_endpoints(tasks: Tasks, submissions: Submissions, logs: Logs) -> list[Endpoint]:
    async def submit(call: Call) -> SubmitResponse:
        return await submissions.submit(call.body, call.principal, call.idempotency_key)

    async def status(call: Call) -> TaskDetail:
        return await tasks.detail(call.task_id, call.principal)

    async def list_tasks(call: Call) -> Response:
        query: TaskQuery = call.query
        found = await tasks.list(query.filter(), call.principal)
        return page(found, found[-1].task_id if len(found) == query.limit else None)

    async def explain(call: Call) -> TaskExplanation:
        return await tasks.explain(call.task_id)

    async def kill(call: Call) -> Message:
        return await tasks.kill(call.task_id, call.principal)

    async def command(call: Call) -> Message:
        action = call.path["action"]
        if action in {"hold", "release"}:
            return await tasks.move(call.task_id, action, call.principal)
        if action not in {"pause", "resume"}:
            raise UsageError(f"{action!r} is not a command", "pause, resume, hold and release are")
        return await tasks.signal(call.task_id, action, call.principal)

    async def reprioritize(call: Call) -> Message:
        return await tasks.reprioritize(call.task_id, call.body.priority, call.principal)

    async def queue(call: Call) -> list[QueuedTask]:
        query: QueueQuery = call.query
        return [*await tasks.queue(query.owner, query.limit, call.principal)]

    async def retry(call: Call) -> SubmitResponse:
        return await tasks.retry(call.task_id, call.principal, call.idempotency_key)

    async def read_log(call: Call) -> Response:
        stream = _stream(call.path["stream"])
        query: LogQuery = call.query
        row = await tasks.owned_row(call.task_id, call.principal)
        if query.follow:
            start = _start(query, call.headers.get("last-event-id"))
            following = logs.follow(row.task_id, stream, start, only=query.attempt is not None)
            return sse.response(_events(following))
        attempt = max(1, query.attempt or row.attempt)
        piece = await logs.read(row.task_id, attempt, stream, query.offset or 0, query.limit)
        headers = {"X-Next-Offset": str(piece.offset + len(piece.data)), "X-Attempt": str(attempt)}
        return Response(piece.data, media_type="application/octet-stream", headers=headers)

    found = (NotFoundError,)
    return [
        Endpoint(
            "POST",
            "/api/submit",
            submit,
            Permission.SUBMIT,
            "Submit tasks",
            SubmitResponse,
            body=SubmitRequest,
            status=202,
            errors=(NotFoundError, ImpossibleError),
            idempotent_by_key=True,
        ),
        Endpoint(
            "GET", "/api/status/{task_id}", status, Permission.SEE, "Show one task", TaskDetail, errors=found
        ),
        Endpoint(
            "GET",
            "/api/tasks",
            list_tasks,
            Permission.SEE,
            "List tasks, newest first",
            list[TaskSummary],
            query=TaskQuery,
            headers={"X-Next-Cursor": "Give it as `cursor` for the next page; absent on the last."},
        ),
        Endpoint(
            "GET",
            "/api/explain/{task_id}",
            explain,
            Permission.SEE,
            "Say why a task waits",
            TaskExplanation,
            errors=found,
        ),
        Endpoint(
            "POST",
            "/api/kill/{task_id}",
            kill,
            Permission.OWN,
            "Kill a task",
            Message,
            status=202,
            errors=(NotFoundError, ConflictError),
        ),
        Endpoint(
            "POST",
            "/api/command/{task_id}/{action}",
            command,
            Permission.OWN,
            "Pause or resume a task that runs, hold or release one that waits",
            Message,
            errors=(NotFoundError, ConflictError, UnreachableError),
        ),
        Endpoint(
            "POST",
            "/api/priority/{task_id}",
            reprioritize,
            Permission.OWN,
            "Give a task that waits another place in the queue",
            Message,
            body=PriorityRequest,
            errors=(NotFoundError, ConflictError),
        ),
        Endpoint(
            "GET",
            "/api/queue",
            queue,
            Permission.SEE,
            "List the tasks that wait, the first in line first",
            list[QueuedTask],
            query=QueueQuery,
        ),
        Endpoint(
            "POST",
            "/api/retry/{task_id}",
            retry,
            Permission.SUBMIT,
            "Submit a final task again",
            SubmitResponse,
            status=202,
            errors=(NotFoundError, ConflictError, StorageError),
            idempotent_by_key=True,
        ),
        Endpoint(
            "GET",
            "/api/task/{task_id}/{stream}",
            read_log,
            Permission.OWN,
            "Read or follow a task's output",
            LogChunk,
            query=LogQuery,
            errors=(NotFoundError, StorageError),
            media_type=f"application/octet-stream, {sse.MEDIA_TYPE}",
            headers={"X-Next-Offset": "Where to read on", "X-Attempt": "which attempt wrote it."},
        ),
    ]


def page(found: Sequence[BaseModel], last: int | None) -> Response:
    """A part of a list; `last` is where the next one begins, none where there is none."""
    content = b"[" + b",".join(each.model_dump_json().encode() for each in found) + b"]"
    headers = {} if last is None else {"X-Next-Cursor": str(last)}
    return Response(content, media_type="application/json", headers=headers)


def _stream(name: str) -> Stream:
    if name == "stdout":
        return "stdout"
    if name == "stderr":
        return "stderr"
    raise NotFoundError(f"there is no stream {name!r}", "stdout and stderr are")


def _start(query: LogQuery, last_event_id: str | None) -> Place:
    """Where to begin: after what the follower saw last, else where the query says.

    In this order because a browser that reconnects repeats its query, and adds the id.
    """
    if last_event_id:
        seen = _EVENT_ID.fullmatch(last_event_id)
        if seen is None:
            raise UsageError(
                f"{last_event_id[:40]!r} is not the id of a piece of a log", "give the last `id` that came"
            )
        return Place(int(seen[1]), int(seen[2]))
    if query.offset is not None and query.offset < 0:
        raise UsageError(
            "a log is followed from an offset of 0 or more",
            "read its end first, and follow from X-Next-Offset",
        )
    return Place(query.attempt, query.offset or 0)


async def _events(following: AsyncIterator[LogChunk | TaskEvent | None]) -> AsyncIterator[bytes]:
    async for item in following:
        if item is None:
            yield sse.KEEP_ALIVE
        elif isinstance(item, LogChunk):
            yield sse.encode("log", item, f"{item.attempt}:{item.next_offset}")
        else:
            yield sse.encode("end", item)
