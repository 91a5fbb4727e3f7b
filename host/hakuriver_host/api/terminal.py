"""Terminals: WebSockets into environments' containers, raw bytes both ways.

`/api/environments/{name}/terminal`: the client's first message is a `TerminalStart` (JSON); then its binary messages
are input, and its text messages are `{"type": "resize", "rows": R, "columns": C}` and `{"type": "eof"}`. What comes
back is binary output (without a tty, each message begins with 1 for stdout or 2 for stderr), then `{"type": "exit",
"code": N}` as text.

`/api/docker/host/containers/{name}/terminal` is the reference's: JSON messages `{"type": "input", "data": TEXT}` and
`{"type": "resize", "rows": R, "cols": C}` in, `{"type": "output" | "error", "data": TEXT}` out.

Close codes: 1000 at the end, 1008 when it is not allowed, not found or not running, 1011 when something failed.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import structlog
from pydantic import ValidationError
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from hakuriver.errors import DeniedError, HakuRiverError, UsageError
from hakuriver.models.environments import TerminalStart
from hakuriver.version import VERSION_HEADER
from hakuriver_host.api.endpoint import check_version
from hakuriver_host.services.access import Access, Permission, Principal
from hakuriver_host.services.environments import Environments
from hakuriver_host.services.environments.execs import Exec, start_exec

log = structlog.get_logger(__name__)

_POLICY, _FAILED = 1008, 1011
_START_SECONDS = 30.0
_REASON_BYTES = 120
"""A close frame has room for 123 (RFC 6455, 5.5)."""


def terminal_routes(environments: Environments, access: Access) -> list[WebSocketRoute]:
    async def terminal(socket: WebSocket) -> None:
        await _serve(socket, environments, access, _raw)

    async def reference(socket: WebSocket) -> None:
        await _serve(socket, environments, access, _of_reference)

    return [
        WebSocketRoute("/api/environments/{name}/terminal", terminal),
        WebSocketRoute("/api/docker/host/containers/{name}/terminal", reference),
    ]


Session = Callable[[WebSocket, Callable[[TerminalStart], Awaitable[Exec]]], Awaitable[None]]


async def _serve(socket: WebSocket, environments: Environments, access: Access, session: Session) -> None:
    """Checks who calls, then lets the session talk; every failure closes the socket with a reason in words."""
    try:
        principal = _principal(socket, access)
    except HakuRiverError as error:
        # Before it is accepted, a close is an answer of 403 without words: so it is accepted first.
        await socket.accept()
        await _close(socket, _POLICY, error.message)
        return
    await socket.accept()
    name = socket.path_params["name"]

    async def start(wanted: TerminalStart) -> Exec:
        container = await environments.preparing.terminal(name, principal)
        return await start_exec(environments.engine, container, wanted)

    try:
        await session(socket, start)
        await _close(socket, 1000, "")
    except WebSocketDisconnect:
        return
    except HakuRiverError as error:
        await _close(socket, _POLICY, f"{error.message}\n{error.hint}")
    except Exception:
        log.exception("a terminal failed", environment=name)
        await _close(socket, _FAILED, "the Host failed at this terminal; see its log")


def _principal(socket: WebSocket, access: Access) -> Principal:
    check_version(socket.headers.get(VERSION_HEADER))
    principal = access.principal(socket.headers.get("authorization"))
    if Permission.PREPARE not in principal.permissions:
        raise DeniedError("this token may not open terminals", "ask an admin for another role")
    return principal


async def _raw(socket: WebSocket, start: Callable[[TerminalStart], Awaitable[Exec]]) -> None:
    try:
        async with asyncio.timeout(_START_SECONDS):
            wanted = TerminalStart.model_validate_json(await socket.receive_text())
    except (ValidationError, KeyError, TimeoutError):
        raise UsageError("a terminal begins with what to run", "send a TerminalStart as JSON") from None

    async def take(running: Exec, message: dict[str, Any]) -> None:
        if message.get("bytes") is not None:
            await running.write(message["bytes"])
            return
        order = _order(message.get("text"))
        if order.get("type") == "resize":
            await running.resize(order.get("rows"), order.get("columns"))
        elif order.get("type") == "eof":
            running.write_eof()

    running = await start(wanted)
    async with _talking(socket, running, take):
        async for output in running.output():
            await socket.send_bytes(output)
        code = await running.exit_code()
    await socket.send_text(json.dumps({"type": "exit", "code": code}))


async def _of_reference(socket: WebSocket, start: Callable[[TerminalStart], Awaitable[Exec]]) -> None:
    async def take(running: Exec, message: dict[str, Any]) -> None:
        order = _order(message.get("text"))
        if order.get("type") == "input":
            await running.write(str(order.get("data", "")).encode())
        elif order.get("type") == "resize":
            await running.resize(order.get("rows"), order.get("cols"))

    running = await start(TerminalStart())
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    async with _talking(socket, running, take):
        async for output in running.output():
            if text := decoder.decode(output):
                await socket.send_text(json.dumps({"type": "output", "data": text}))


@contextlib.asynccontextmanager
async def _talking(
    socket: WebSocket, running: Exec, take: Callable[[Exec, dict[str, Any]], Awaitable[None]]
) -> AsyncIterator[None]:
    """Takes what the client sends while the block sends what the program writes.

    A client that goes away ends the program, and with it the block.
    """

    async def listen() -> None:
        try:
            while (message := await socket.receive())["type"] != "websocket.disconnect":
                await take(running, dict(message))
        except ConnectionError:
            return
        await running.hang_up()

    listener = asyncio.create_task(listen())
    try:
        yield
    finally:
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)
        await running.close()


def _order(text: str | None) -> dict[str, Any]:
    try:
        order = json.loads(text or "")
    except ValueError:
        return {}
    return order if isinstance(order, dict) else {}


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    if socket.application_state is not WebSocketState.CONNECTED:
        return
    with contextlib.suppress(Exception):
        await socket.close(code, reason.encode()[:_REASON_BYTES].decode("utf-8", "ignore"))
