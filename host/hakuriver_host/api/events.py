"""Events: every change of a task's state, pushed as it is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from hakuriver.ids import MAX_ID, parse_id
from hakuriver.models.base import TaskId
from hakuriver.models.tasks import TaskEvent
from hakuriver_host.api import sse
from hakuriver_host.api.endpoint import Call, Endpoint
from hakuriver_host.services.access import Permission
from hakuriver_host.services.bus import Follower
from hakuriver_host.services.core import Core, event_of_row

_PAGE = 1_000


class EventQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    since: int | None = Field(
        default=None, ge=0, le=MAX_ID, description="Events after this sequence; without it, from now on."
    )
    task_id: TaskId | None = Field(default=None, description="Of this task alone.")
    batch_id: TaskId | None = Field(default=None, description="Of this batch alone.")


def event_endpoints(core: Core) -> list[Endpoint]:
    async def events(call: Call) -> Response:
        query: EventQuery = call.query
        last = call.headers.get("last-event-id")
        since = parse_id(last) if last else query.since
        return sse.response(_stream(core, query, since))

    return [
        Endpoint(
            "GET",
            "/api/events",
            events,
            Permission.SEE,
            "Follow changes of state",
            TaskEvent,
            query=EventQuery,
            media_type=sse.MEDIA_TYPE,
        ),
    ]


async def _stream(core: Core, query: EventQuery, since: int | None) -> AsyncIterator[bytes]:
    """First from the record, then live. Following begins before the record is read, so that nothing falls between."""
    with core.bus.follow(task_id=query.task_id, batch_id=query.batch_id) as follower:
        seen = core.last_event if since is None else since
        if since is not None:
            async for event in _record(core, query, since):
                seen = event.sequence
                yield sse.encode("task", event, seen)
        while not follower.overrun:
            if not await follower.wait(sse.KEEP_ALIVE_SECONDS):
                yield sse.KEEP_ALIVE
            async for part in _live(follower, seen):
                yield part


async def _record(core: Core, query: EventQuery, since: int) -> AsyncIterator[TaskEvent]:
    while True:
        page = await asyncio.to_thread(
            core.repository.events, since, task_id=query.task_id, batch_id=query.batch_id, limit=_PAGE
        )
        for row in page:
            yield event_of_row(row)
        if len(page) < _PAGE:
            return
        since = page[-1]["sequence"]


async def _live(follower: Follower, seen: int) -> AsyncIterator[bytes]:
    """What has arrived, less what the record had already. Progress carries no id: it cannot be resumed after."""
    for notice in follower.take():
        if notice.transient:
            yield sse.encode("progress", notice.event)
        elif notice.event.sequence > seen:
            yield sse.encode("task", notice.event, notice.event.sequence)
