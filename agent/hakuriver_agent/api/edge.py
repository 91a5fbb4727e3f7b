"""The edge of the Runner's API: who may call, what a body must be, how errors look."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hakuriver.errors import (
    HakuRiverError,
    InternalError,
    TooLargeError,
    UnauthenticatedError,
    UsageError,
    VersionError,
)
from hakuriver.models.errors import ErrorBody
from hakuriver.problems import said
from hakuriver.version import VERSION_HEADER, __version__, compatible

MAX_BODY_BYTES = 512_000_000
"""A start request of the Host's may hold many tasks with long arguments each."""

Body = TypeVar("Body", bound=BaseModel)
log = structlog.get_logger(__name__)


class Guard:
    """Lets nothing pass without the control token, and nobody whose version is too far away."""

    def __init__(self, app: ASGIApp, accepts: Callable[[str], bool]) -> None:
        self._app = app
        self._accepts = accepts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def with_version(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), _OUR_VERSION]
            await send(message)

        refusal = self._refusal(dict(scope["headers"]))
        if refusal is None:
            await self._app(scope, receive, with_version)
        elif scope["type"] == "http":
            await error_response(refusal)(scope, receive, with_version)
        else:
            await send({"type": "websocket.close", "code": 4401})

    def _refusal(self, headers: dict[bytes, bytes]) -> HakuRiverError | None:
        scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not self._accepts(token.strip()):
            return UnauthenticatedError(
                "this Runner takes orders from its Host only",
                "ask the Host instead; its API is the cluster's",
            )
        version = headers.get(VERSION_HEADER.lower().encode(), b"").decode("latin-1")
        if version and not compatible(__version__, version):
            return VersionError(
                f"this Runner is {__version__} and the caller is {version}",
                "install versions whose minor numbers are at most one apart",
            )
        return None


async def read(request: Request, kind: type[Body]) -> Body:
    """The body, parsed.

    Raises:
        UsageError: it is not a `kind`.
    """
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise TooLargeError(
                f"the body is longer than {MAX_BODY_BYTES} bytes", "send fewer attempts at a time"
            )
        parts.append(part)
    try:
        return kind.model_validate_json(b"".join(parts))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise UsageError(f"{where}: {said(first)}", f"send a JSON {kind.__name__}") from None


def answer(body: BaseModel, status: int = 200) -> Response:
    return Response(body.model_dump_json(), status, media_type="application/json")


def error_response(error: HakuRiverError) -> Response:
    return answer(error.body(), error.http_status)


async def on_error(request: Request, error: Exception) -> Response:
    """Every error as an `ErrorBody`."""
    if isinstance(error, HakuRiverError):
        return error_response(error)
    if isinstance(error, HTTPException):
        code = "not_found" if error.status_code == 404 else "usage"  # noqa: PLR2004 - HTTP
        body = ErrorBody(error=code, message=f"{request.method} {request.url.path}: {error.detail}")
        return answer(body, error.status_code)
    log.error("a request failed by a defect", path=request.url.path, exc_info=error)
    return error_response(InternalError("internal error of the Runner", "see the Runner's log"))


Handler = Callable[[Request], Awaitable[Response]]
_OUR_VERSION = (VERSION_HEADER.lower().encode(), __version__.encode())
