"""WebSockets into containers: terminals, and connections to ports.

`/api/environments/{name}/terminal` and `/api/tasks/{task_id}/terminal` talk as `hakuriver.terminals` says;
`/api/tasks/{task_id}/forward/{port}` carries one TCP connection as `hakuriver.forwards` says.

`/api/docker/host/containers/{name}/terminal` is the reference's: JSON messages `{"type": "input", "data": TEXT}` and
`{"type": "resize", "rows": R, "cols": C}` in, `{"type": "output" | "error", "data": TEXT}` out. It is closed with 1008
when it is refused; the others are closed as `hakuriver.closing` says.
"""

from __future__ import annotations

import asyncio
import codecs
import json
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

import structlog
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from hakuriver.closing import DONE, FAILED, POLICY, close, refuse, say
from hakuriver.errors import DeniedError, HakuRiverError
from hakuriver.exchange import GoneError, order_of
from hakuriver.ids import parse_id
from hakuriver.models.environments import TerminalStart
from hakuriver.sessions import Place, Sessions
from hakuriver.terminals import Exec, serve_terminal, start_exec
from hakuriver.version import VERSION_HEADER
from hakuriver_host.api.endpoint import check_version
from hakuriver_host.services.access import Access, Permission, Principal, token_is_over
from hakuriver_host.services.doors import Doors
from hakuriver_host.services.environments import Environments
from hakuriver_host.ssh.vps import VpsDesk

log = structlog.get_logger(__name__)

Session = Callable[[WebSocket, Principal, asyncio.Event], Awaitable[None]]
"""What goes on until the event says that the principal's token is revoked."""
Start = Callable[[TerminalStart], Awaitable[Exec]]
Refuse = Callable[[WebSocket, HakuRiverError], Awaitable[None]]


def terminal_routes(
    environments: Environments, doors: Doors, desk: VpsDesk, access: Access, sessions: Sessions
) -> list[WebSocketRoute]:
    async def enter(socket: WebSocket, principal: Principal) -> tuple[str, Start]:
        """The container's id, and what starts a program in it."""
        container = await environments.preparing.terminal(socket.path_params["name"], principal)
        return container.id, partial(start_exec, environments.engine.execs(container))

    async def environment(socket: WebSocket, principal: Principal, revoked: asyncio.Event) -> None:
        container, start = await enter(socket, principal)
        place = Place(sessions, (principal.name, container))
        await serve_terminal(_Guest(socket, revoked), start, place=place)

    async def reference(socket: WebSocket, principal: Principal, revoked: asyncio.Event) -> None:
        _, start = await enter(socket, principal)
        talker = _ReferenceTalker(_Guest(socket, revoked))
        await serve_terminal(talker, start, TerminalStart(), windowed=False)

    async def task(socket: WebSocket, principal: Principal, revoked: asyncio.Event) -> None:
        await doors.relay(parse_id(socket.path_params["task_id"]), "terminal", socket, principal, revoked)

    async def forward(socket: WebSocket, principal: Principal, revoked: asyncio.Event) -> None:
        door = f"forward/{socket.path_params['port']}"
        await doors.relay(parse_id(socket.path_params["task_id"]), door, socket, principal, revoked)

    async def ssh(socket: WebSocket, principal: Principal, revoked: asyncio.Event) -> None:
        await desk.relay(parse_id(socket.path_params["task_id"]), socket, principal, revoked)

    def route(path: str, permission: Permission, session: Session, say_no: Refuse = refuse) -> WebSocketRoute:
        async def serve(socket: WebSocket) -> None:
            # Before it is accepted, a close is an answer of 403 without words: so it is accepted first.
            await socket.accept()
            revoked = asyncio.Event()
            try:
                principal = _principal(socket, access, permission)
                with access.while_valid(socket.headers.get("authorization"), revoked.set):
                    await session(socket, principal, revoked)
                await close(socket, DONE)
            except (GoneError, WebSocketDisconnect):
                if revoked.is_set():
                    await say_no(socket, token_is_over())
                return
            except HakuRiverError as error:
                await say_no(socket, error)
            except Exception:
                log.exception("a terminal or a forward failed", path=socket.url.path)
                await close(socket, FAILED, "the Host failed at this connection; see its log")

        return WebSocketRoute(path, serve)

    return [
        route("/api/environments/{name}/terminal", Permission.PREPARE, environment),
        route(
            "/api/docker/host/containers/{name}/terminal", Permission.PREPARE, reference, _refuse_as_reference
        ),
        route("/api/tasks/{task_id}/terminal", Permission.OWN, task),
        route("/api/tasks/{task_id}/forward/{port:int}", Permission.OWN, forward),
        route("/api/tasks/{task_id}/ssh", Permission.OWN, ssh),
    ]


def _principal(socket: WebSocket, access: Access, permission: Permission) -> Principal:
    check_version(socket.headers.get(VERSION_HEADER))
    principal = access.principal(socket.headers.get("authorization"))
    if permission not in principal.permissions:
        raise DeniedError("this token may open no terminals", "ask an admin for another role")
    return principal


class _Guest:
    """A person, who has left for good once their token is revoked: so what they have begun here ends with it."""

    def __init__(self, socket: WebSocket, revoked: asyncio.Event) -> None:
        self._socket, self._revoked = socket, revoked
        self.send_bytes, self.send_text = socket.send_bytes, socket.send_text

    async def receive(self) -> MutableMapping[str, Any]:
        coming, revoked = (
            asyncio.ensure_future(self._socket.receive()),
            asyncio.create_task(self._revoked.wait()),
        )
        try:
            await asyncio.wait({coming, revoked}, return_when=asyncio.FIRST_COMPLETED)
            return coming.result() if coming.done() else {"type": "websocket.disconnect", "code": DONE}
        finally:
            coming.cancel()
            revoked.cancel()

    async def receive_text(self) -> str:
        message = await self.receive()
        if message["type"] == "websocket.disconnect":
            raise GoneError
        return str(message["text"])


class _ReferenceTalker:
    """The reference's messages as ours, and ours as the reference's. It knows of no credit and of no exit code."""

    def __init__(self, socket: _Guest) -> None:
        self._socket = socket
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    async def receive(self) -> MutableMapping[str, Any]:
        message = await self._socket.receive()
        order = order_of(message.get("text"))
        if order.get("type") == "input":
            return {"type": message["type"], "bytes": str(order.get("data", "")).encode()}
        if order.get("type") == "resize":
            size = {"type": "resize", "rows": order.get("rows"), "columns": order.get("cols")}
            return {"type": message["type"], "text": json.dumps(size)}
        return {"type": message["type"]}

    async def receive_text(self) -> str:
        return await self._socket.receive_text()

    async def send_bytes(self, data: bytes) -> None:
        if text := self._decoder.decode(data):
            await self._socket.send_text(json.dumps({"type": "output", "data": text}))

    async def send_text(self, data: str) -> None:
        """The reference has no message for it."""


async def _refuse_as_reference(socket: WebSocket, error: HakuRiverError) -> None:
    await say(socket, json.dumps({"type": "error", "data": f"{error.message}\n{error.hint}"}))
    await close(socket, POLICY, error.message)
