"""How a WebSocket is closed with words.

What is wrong is a last text message, `{"type": "error", "error": CODE, "message": TEXT, "hint": TEXT}`, and as much of
it as a close frame holds is the reason, for those who look at nothing else. The code is 4000 plus the HTTP status of the
error (RFC 6455, 7.4.2, leaves 4000 to 4999 to applications), 1000 at a good end, and 1011 when a daemon failed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

from hakuriver.errors import ErrorBody, HakuRiverError, from_body, from_status

DONE, POLICY, FAILED = 1000, 1008, 1011
_ERRORS = 4000
_REASON_BYTES = 120
"""A close frame has room for 123 (RFC 6455, 5.5)."""


class Closable(Protocol):
    async def send_text(self, data: str) -> None: ...

    async def close(self, code: int = DONE, reason: str | None = None) -> None: ...


async def refuse(socket: Closable, error: HakuRiverError) -> None:
    with contextlib.suppress(Exception):
        await socket.send_text(json.dumps({"type": "error", **error.body().model_dump()}))
    await close(socket, _ERRORS + error.http_status, f"{error.message}\n{error.hint}")


async def close(socket: Closable, code: int, reason: str = "") -> None:
    """Closes it, unless it is closed: the other end may be gone."""
    with contextlib.suppress(Exception):
        await socket.close(code, reason.encode()[:_REASON_BYTES].decode("utf-8", "ignore"))


def error_said(message: Mapping[str, Any]) -> HakuRiverError | None:
    """The error in a text message; none when it is about something else."""
    if message.get("type") != "error":
        return None
    return from_body(ErrorBody.model_validate(message))


def error_told(code: int, reason: str) -> HakuRiverError | None:
    """The error that a peer closed with; none when its code is no error's."""
    message, _, hint = reason.partition("\n")
    return from_status(code - _ERRORS, message, hint) if code > _ERRORS else None
