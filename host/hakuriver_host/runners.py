"""The client to Runners."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from hakuriver.closing import LOST, error_said, error_told
from hakuriver.errors import HakuRiverError, UnreachableError, from_body
from hakuriver.exchange import order_of
from hakuriver.models.environments import SyncProgress, SyncRequest
from hakuriver.models.errors import ErrorBody
from hakuriver.models.runner import (
    ActionResponse,
    AttemptId,
    AttemptLimit,
    AttemptSpec,
    AttemptsRequest,
    LimitsRequest,
    RunnerHealth,
    StartRequest,
    StartResponse,
)
from hakuriver.version import VERSION_HEADER, __version__

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

_Answer = TypeVar("_Answer", bound=BaseModel)

_CALL_SECONDS = 20.0
_CONNECT_SECONDS = 5.0
_PROBE_SECONDS = 5.0
_CLOSE_SECONDS = 2.0
_KEEP_ALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 6),
]
"""A node that lost its power says nothing: an answer that takes long must not be waited for when there is nobody (tcp(7))."""


class RunnerClient:
    """Calls to one Runner, over connections that are its alone."""

    def __init__(self, http: httpx.AsyncClient, url: str, token: str, trusted: ssl.SSLContext) -> None:
        self._http = http
        self._trusted = trusted
        self._url = url
        self._headers = {
            "Authorization": f"Bearer {token}",
            VERSION_HEADER: __version__,
            "Content-Type": "application/json",
        }

    async def start(self, specs: Sequence[AttemptSpec]) -> StartResponse:
        return await self._post("start", StartRequest(attempts=list(specs)), StartResponse)

    async def act(self, action: str, attempts: Sequence[AttemptId]) -> ActionResponse:
        """`kill`, `pause`, `resume` or `stop`."""
        return await self._post(action, AttemptsRequest(attempts=list(attempts)), ActionResponse)

    async def limit(self, limits: Sequence[AttemptLimit]) -> ActionResponse:
        """Sets time limits anew."""
        return await self._post("limit", LimitsRequest(attempts=list(limits)), ActionResponse)

    async def health(self) -> RunnerHealth:
        response = await self._send("GET", "health", timeout=_PROBE_SECONDS)
        return _parsed(response, RunnerHealth)

    async def log(self, path: str, offset: int, *, follow: bool) -> AsyncIterator[bytes]:
        """Bytes of a log from `offset` on, as they come when followed."""
        params = {"offset": str(offset), "follow": "true" if follow else "false"}
        timeout = httpx.Timeout(_CALL_SECONDS, read=None if follow else _CALL_SECONDS)
        try:
            async with self._http.stream(
                "GET", f"{self._url}/api/logs/{path}", params=params, headers=self._headers, timeout=timeout
            ) as response:
                if response.is_error:
                    await response.aread()
                    raise _error(response)
                async for chunk in response.aiter_raw():
                    yield chunk
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None

    async def snapshot(self, attempt: AttemptId) -> AsyncIterator[bytes]:
        """What is in an attempt's container, as an archive such as `docker save` writes."""
        async with self._streamed("snapshot", attempt) as response:
            async for piece in response.aiter_raw():
                yield piece

    async def sync(self, request: SyncRequest) -> AsyncIterator[SyncProgress]:
        """Has it load a version of an environment; how that goes, line by line, until it is ready or has failed."""
        try:
            async with self._streamed("sync", request) as response:
                async for line in response.aiter_lines():
                    if line:
                        yield SyncProgress.model_validate_json(line)
        except ValidationError:
            raise _no_runner() from None

    @contextlib.asynccontextmanager
    async def _streamed(self, name: str, body: BaseModel) -> AsyncIterator[httpx.Response]:
        """An answer that comes as it is made, which may take long."""
        try:
            async with self._http.stream(
                "POST",
                f"{self._url}/api/{name}",
                content=body.model_dump_json().encode(),
                headers=self._headers,
                timeout=httpx.Timeout(_CALL_SECONDS, read=None),
            ) as response:
                if response.is_error:
                    await response.aread()
                    raise _error(response)
                yield response
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None

    @contextlib.asynccontextmanager
    async def open(self, door: str) -> AsyncIterator[ClientConnection]:
        """A WebSocket of the Runner's, under `/api`; closed as `hakuriver.closing` says."""
        from websockets.asyncio.client import connect  # noqa: PLC0415 - of terminals and forwards alone
        from websockets.exceptions import InvalidHandshake, InvalidStatus, WebSocketException  # noqa: PLC0415

        headers = {name: self._headers[name] for name in ("Authorization", VERSION_HEADER)}
        try:
            socket = await connect(
                f"ws{self._url.removeprefix('http')}/api/{door}",
                additional_headers=headers,
                ssl=self._trusted if self._url.startswith("https:") else None,
                compression=None,
                max_queue=None,  # What may be on its way is limited by `hakuriver.exchange`.
                close_timeout=_CLOSE_SECONDS,
                open_timeout=_CONNECT_SECONDS,
                proxy=None,
            )
        except InvalidStatus as error:
            raise UnreachableError(
                f"the Runner at {self._url} opens no terminals ({error.response.status_code})",
                "see that it is of the Host's version: `hakuriver node list -o wide`",
            ) from None
        except (OSError, TimeoutError, InvalidHandshake, WebSocketException) as error:
            raise self._unreachable(error) from None
        try:
            yield socket
        except HakuRiverError:
            raise
        except BaseException:
            # Neither end has left: the person is lost, or this Host ends.
            await socket.close(LOST)
            raise
        finally:
            await socket.close()

    async def _post(self, name: str, body: BaseModel, answer: type[_Answer]) -> _Answer:
        return _parsed(await self._send("POST", name, body.model_dump_json().encode()), answer)

    async def _send(
        self, method: str, name: str, content: bytes | None = None, timeout: float = _CALL_SECONDS
    ) -> httpx.Response:
        try:
            limits = httpx.Timeout(timeout, connect=_CONNECT_SECONDS)
            response = await self._http.request(
                method, f"{self._url}/api/{name}", content=content, headers=self._headers, timeout=limits
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from None
        if response.is_error:
            raise _error(response)
        return response

    def _unreachable(self, error: Exception) -> UnreachableError:
        cause = str(error) or type(error).__name__
        return UnreachableError(
            f"the Host cannot reach the Runner at {self._url}: {cause}",
            "check network.runner_address and network.runner_port of the node, and its firewall",
        )


class RunnerTalker:
    """The Host's end of a WebSocket of a Runner's, with messages as ASGI has them."""

    def __init__(self, connection: ClientConnection, node: str) -> None:
        from websockets.exceptions import ConnectionClosed, ConnectionClosedOK  # noqa: PLC0415 - as in `RunnerClient`

        self._connection, self._node = connection, node
        self._has_left = False
        self._closed, self._closed_well = ConnectionClosed, ConnectionClosedOK

    async def receive(self) -> dict[str, Any]:
        """The next message.

        Raises:
            HakuRiverError: what the Runner says that is wrong.
            UnreachableError: the connection was lost.
        """
        try:
            message = await self._connection.recv()
        except self._closed_well:
            return {"type": "websocket.disconnect"}
        except self._closed as error:
            if self._has_left:
                return {"type": "websocket.disconnect"}
            told = error.rcvd and error_told(error.rcvd.code, error.rcvd.reason)
            raise told or UnreachableError(
                f"the connection to {self._node} was lost", "see whether its Runner runs"
            ) from None
        if isinstance(message, bytes):
            return {"type": "websocket.receive", "bytes": message}
        if said := error_said(order_of(message)):
            raise said
        return {"type": "websocket.receive", "text": message}

    async def receive_text(self) -> str:
        return str((await self.receive()).get("text"))

    async def send_bytes(self, data: bytes) -> None:
        await self._send(data)

    async def send_text(self, data: str) -> None:
        await self._send(data)

    async def leave(self, code: int) -> None:
        self._has_left = True
        await self._connection.close(code)

    async def _send(self, data: str | bytes) -> None:
        # Why it is closed is for who receives.
        with contextlib.suppress(self._closed):
            await self._connection.send(data)


class RunnerClients:
    """Makes the clients, and keeps the connections of each Runner apart.

    A pool that holds the connections of all looks at each of them at every request, with a system call: with 500
    Runners that was a third of the Host's time under load. A Runner that moves to another address, which is rare,
    leaves its empty pool behind.
    """

    def __init__(self, ca_file: str | None) -> None:
        """`ca_file` holds the certificates to trust when Runners serve TLS; without it, the system's."""
        self._verify = ssl.create_default_context(cafile=ca_file)
        self._pools: dict[str, httpx.AsyncClient] = {}

    def client(self, url: str, token: str) -> RunnerClient:
        pool = self._pools.get(url)
        if pool is None:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=8, keepalive_expiry=30)
            transport = httpx.AsyncHTTPTransport(
                verify=self._verify, limits=limits, trust_env=False, socket_options=_KEEP_ALIVE
            )
            pool = self._pools[url] = httpx.AsyncClient(transport=transport, trust_env=False)
        return RunnerClient(pool, url, token, self._verify)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(pool.aclose() for pool in self._pools.values()))


def _parsed(response: httpx.Response, answer: type[_Answer]) -> _Answer:
    try:
        return answer.model_validate_json(response.content)
    except ValidationError:
        raise _no_runner() from None


def _no_runner() -> UnreachableError:
    return UnreachableError(
        "what answers there is not a Runner of HakuRiver", "check network.runner_port of the node"
    )


def _error(response: httpx.Response) -> HakuRiverError:
    try:
        return from_body(ErrorBody.model_validate_json(response.content))
    except ValidationError:
        return UnreachableError(f"the Runner answered {response.status_code}", "see its log")
