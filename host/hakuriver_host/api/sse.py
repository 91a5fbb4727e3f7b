"""Server-sent events: how changes and log bytes are pushed (WHATWG HTML, "Server-sent events")."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from pydantic import BaseModel
from starlette.responses import StreamingResponse

KEEP_ALIVE_SECONDS = 15.0
KEEP_ALIVE = b": keep-alive\n\n"
MEDIA_TYPE = "text/event-stream"


def encode(event: str, data: BaseModel, event_id: int | str | None = None) -> bytes:
    """One event. The JSON has no line breaks, so one `data` line holds it."""
    identity = "" if event_id is None else f"id: {event_id}\n"
    return f"event: {event}\n{identity}data: {data.model_dump_json()}\n\n".encode()


def response(stream: AsyncIterator[bytes]) -> StreamingResponse:
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_begun(stream), media_type=MEDIA_TYPE, headers=headers)


async def _begun(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Says at once that it has begun, so that a follower knows it is connected; ends quietly with the Host."""
    yield KEEP_ALIVE
    try:
        async for part in stream:
            yield part
    except asyncio.CancelledError:
        return
