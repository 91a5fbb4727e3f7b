"""How a WebSocket is closed with words.

What is wrong is a last text message, `{"type": "error", "error": CODE, "message": TEXT, "hint": TEXT}`, and as much of
it as a close frame holds is the reason, for those who look at nothing else. The code is 4000 plus the HTTP status of the
error (RFC 6455, 7.4.2, leaves 4000 to 4999 to applications), 1000 at a good end, and 1011 when a daemon failed.

Whoever is at the other end and leaves for good closes with a code of its own, such as 1000. No close, or one of the codes of
`was_lost`, says that the connection alone is lost: the Host passes on by `LOST` that this was so between a person and it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

from hakuriver.errors import HakuRiverError, from_body, from_status

DONE, POLICY, FAILED = 1000, 1008, 1011
LOST = 4001
_ERRORS = 4000
_NO_CODE, _NO_CLOSE, _RESTARTS = 1005, 1006, 1012
"""RFC 6455, 7.4.1, and IANA's registry. uvicorn says 1005 of a connection that was lost, and 1012 when it ends itself."""
_CLOSE_SECONDS = 5.0
"""An end that is lost takes nothing any more: what is said to it waits for room that does not come."""
_REASON_BYTES = 120
"""A close frame has room for 123 (RFC 6455, 5.5)."""


class Closable(Protocol):
    async def send_text(self, data: str) -> None: ...

    async def close(self, code: int = DONE, reason: str | None = None) -> None: ...


async def refuse(socket: Closable, error: HakuRiverError) -> None:
    await say(socket, json.dumps({"type": "error", **error.body().model_dump()}))
    await close(socket, _ERRORS + error.http_status, f"{error.message}\n{error.hint}")


async def say(socket: Closable, text: str) -> None:
    """Sends the last words, if the other end takes them."""
    import asyncio  # noqa: PLC0415  (whoever waits for an answer without it loads this module, too)

    with contextlib.suppress(Exception):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await socket.send_text(text)


async def close(socket: Closable, code: int, reason: str = "") -> None:
    """Closes it, unless it is closed: the other end may be gone."""
    import asyncio  # noqa: PLC0415

    with contextlib.suppress(Exception):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await socket.close(code, reason.encode()[:_REASON_BYTES].decode("utf-8", "ignore"))


def error_said(message: Mapping[str, Any]) -> HakuRiverError | None:
    """The error in a text message; none when it is about something else."""
    if message.get("type") != "error":
        return None
    from hakuriver.models.errors import ErrorBody  # noqa: PLC0415  (models load much, and errors are rare)

    return from_body(ErrorBody.model_validate(message))


def error_told(code: int, reason: str) -> HakuRiverError | None:
    """The error that a peer closed with; none when its code is no error's."""
    message, _, hint = reason.partition("\n")
    return from_status(code - _ERRORS, message, hint) if code > _ERRORS else None


def was_lost(code: object) -> bool:
    """Whether the code of an ASGI server's `websocket.disconnect` says that nobody left for good."""
    return code in {None, _NO_CODE, _NO_CLOSE, _RESTARTS, LOST}
