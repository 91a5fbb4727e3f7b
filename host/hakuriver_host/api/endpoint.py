"""What an endpoint is: who may call it, what it takes, what it answers.

From one declaration come the route, the check of permission, the parsing, and the OpenAPI document, so that none
can say something else than the others. There is no way to declare an endpoint that asks for no permission.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog
from pydantic import BaseModel, TypeAdapter, ValidationError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as DatabaseBusyError
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from hakuriver.errors import (
    DeniedError,
    HakuRiverError,
    InternalError,
    StorageError,
    TooLargeError,
    UnauthenticatedError,
    UsageError,
    VersionError,
)
from hakuriver.ids import parse_id
from hakuriver.problems import said
from hakuriver.version import VERSION_HEADER, __version__, compatible
from hakuriver_host.api import sse
from hakuriver_host.services.access import Access, Permission, Principal

log = structlog.get_logger(__name__)

_Body = TypeVar("_Body")
_Part = TypeVar("_Part")
_PARAMETER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Call:
    """One request, checked and parsed."""

    principal: Principal
    path: dict[str, str]
    query: Any
    body: Any
    headers: Headers
    stream: AsyncIterator[bytes]
    """The body as it comes, for an endpoint that takes one."""

    @property
    def task_id(self) -> int:
        return parse_id(self.path["task_id"])

    @property
    def batch_id(self) -> int:
        return parse_id(self.path["batch_id"])

    @property
    def idempotency_key(self) -> str | None:
        key = self.headers.get("idempotency-key")
        if key is not None and not 1 <= len(key) <= 255:  # noqa: PLR2004
            raise UsageError("the Idempotency-Key is empty or longer than 255 characters", "use a UUID")
        return key


class NoQuery(BaseModel):
    model_config = {"extra": "forbid"}


@dataclass(frozen=True)
class Endpoint:
    """`handler(call)` returns an object of `returns`, or a Response of its own where `media_type` is not JSON."""

    method: str
    path: str
    handler: Callable[[Call], Awaitable[Any]]
    permission: Permission
    summary: str
    returns: Any
    body: type[BaseModel] | None = None
    takes: str | None = None
    """Media type of a body that is read as it comes, however long; it goes to the handler as `stream`."""
    query: type[BaseModel] = NoQuery
    status: int = 200
    errors: tuple[type[HakuRiverError], ...] = ()
    media_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    """Response headers beyond the usual, with what they mean."""
    idempotent_by_key: bool = False

    @property
    def parameters(self) -> list[str]:
        """Names in the path."""
        return _PARAMETER.findall(self.path)


class EndpointApp:
    """The ASGI application of one endpoint."""

    def __init__(self, endpoint: Endpoint, access: Access, max_bytes: int) -> None:
        self._endpoint = endpoint
        self._access = access
        self._max_bytes = max_bytes
        self._adapter: TypeAdapter[Any] = TypeAdapter(endpoint.returns)
        self._no_query = endpoint.query()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._respond(request)
        except HakuRiverError as error:
            response = error_response(error)
        except ClientDisconnect:
            return
        except (DBAPIError, DatabaseBusyError) as error:
            response = error_response(_unreadable(error))
        except Exception:
            log.exception("a request failed", path=request.url.path)
            response = error_response(
                InternalError("the Host failed at this request", "see its log, and report it")
            )
        try:
            await response(scope, receive, send)
        except UnauthenticatedError as error:
            # Its end must not look like that of a whole file.
            log.info("a download was broken off", path=request.url.path, cause=error.message)

    async def _respond(self, request: Request) -> Response:
        endpoint = self._endpoint
        check_version(request.headers.get(VERSION_HEADER))
        principal = self._access.principal(request.headers.get("authorization"))
        if endpoint.permission not in principal.permissions:
            raise DeniedError(
                f"this token may not {endpoint.summary[0].lower()}{endpoint.summary[1:]}",
                "ask an admin for another role",
            )
        call = Call(
            principal=principal,
            path=request.path_params,
            query=self._query(request),
            body=await self._body(request) if endpoint.body else None,
            headers=request.headers,
            stream=self._checked(request, request.stream()),
        )
        answer = await endpoint.handler(call)
        if isinstance(answer, StreamingResponse):
            guarded = self._while_valid if answer.media_type == sse.MEDIA_TYPE else self._checked
            answer.body_iterator = guarded(request, answer.body_iterator)
        if isinstance(answer, Response):
            answer.headers[VERSION_HEADER] = __version__
            return answer
        content = self._adapter.dump_json(answer)
        return Response(
            content, endpoint.status, {VERSION_HEADER: __version__}, media_type="application/json"
        )

    async def _checked(self, request: Request, parts: AsyncIterable[_Part]) -> AsyncIterator[_Part]:
        """What is sent or comes, part by part.

        Raises:
            UnauthenticatedError: the token was revoked meanwhile, or has expired.
        """
        async for part in parts:
            self._access.principal(request.headers.get("authorization"))
            yield part

    async def _while_valid(self, request: Request, stream: AsyncIterable[_Part]) -> AsyncIterator[_Part]:
        """Events until their stream ends, or the token does: they end quietly when they are cancelled."""
        streaming = asyncio.current_task()
        if streaming is None:
            raise AssertionError("it is streamed by a task")
        authorization = request.headers.get("authorization")
        with (
            contextlib.suppress(UnauthenticatedError),
            self._access.while_valid(authorization, streaming.cancel),
        ):
            async for part in stream:
                yield part

    def _query(self, request: Request) -> BaseModel:
        if not request.scope["query_string"]:
            return self._no_query
        raw: dict[str, Any] = {}
        for name, value in request.query_params.multi_items():
            if name in raw:
                raw[name] = [*raw[name], value] if isinstance(raw[name], list) else [raw[name], value]
            else:
                raw[name] = value
        return _validated(lambda: self._endpoint.query.model_validate(raw), "the query")

    async def _body(self, request: Request) -> BaseModel:
        body_type = self._endpoint.body
        if body_type is None:
            raise AssertionError("no body is declared")
        content = await _read_body(request, self._max_bytes)
        return _validated(lambda: body_type.model_validate_json(content), "the body")


def _unreadable(error: SQLAlchemyError) -> StorageError:
    cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
    log.error("the database cannot be read", cause=cause)
    return StorageError(
        f"the Host's database cannot be read: {cause}",
        "see that it runs and its disk is well; then try again",
    )


async def _read_body(request: Request, limit: int) -> bytes:
    """The whole body, unless it is larger than the limit; then it is not read any further."""
    declared = request.headers.get("content-length", "")
    too_large = TooLargeError(
        f"the request is larger than {limit} bytes", "pass large data as a file under /shared"
    )
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise too_large
        chunks.append(chunk)
    return b"".join(chunks)


def _validated(parse: Callable[[], _Body], what: str) -> _Body:
    try:
        return parse()
    except HakuRiverError as error:
        # Raised in a field's own validator: it says better than pydantic what is wrong.
        raise UsageError(error.message, error.hint) from None
    except ValidationError as error:
        problems = "; ".join(
            _problem(problem) for problem in error.errors(include_url=False, include_input=False)[:5]
        )
        raise UsageError(
            f"{what} is not as expected: {problems}", "see the API reference (/api/openapi.json)"
        ) from None


def _problem(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{place} is not known"
    return f"{place}: {said(problem)}" if place else said(problem)


def check_version(theirs: str | None) -> None:
    """Refuses a peer that is too far away; one that sends no version is not of ours, and is served.

    Raises:
        VersionError: more than one minor version lies between.

    """
    if theirs is not None and not compatible(__version__, theirs):
        raise VersionError(
            f"the Host is version {__version__}, and yours is {theirs[:32]}",
            "install versions at most one minor version apart",
        )


def error_response(error: HakuRiverError) -> Response:
    headers = {VERSION_HEADER: __version__}
    if error.http_status == 401:  # noqa: PLR2004
        headers["WWW-Authenticate"] = "Bearer"
    return Response(error.body().model_dump_json(), error.http_status, headers, media_type="application/json")
