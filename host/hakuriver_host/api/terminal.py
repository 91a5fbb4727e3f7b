"""WebSockets into containers: terminals, and connections to ports.

`/api/environments/{name}/terminal` and `/api/tasks/{task_id}/terminal` talk as `hakuriver.terminals` says;
`/api/tasks/{task_id}/forward/{port}` carries one TCP connection as `hakuriver.forwards` says.

`/api/docker/host/containers/{name}/terminal` is the reference's: JSON messages `{"type": "input", "data": TEXT}` and
`{"type": "resize", "rows": R, "cols": C}` in, `{"type": "output" | "error", "data": TEXT}` out.

Close codes: 1000 at the end, 1008 when it is not allowed, not found or not running, 1011 when something failed.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from hakuriver.closing import DONE, FAILED, close, refuse
from hakuriver.errors import DeniedError, HakuRiverError
from hakuriver.ids import parse_id
from hakuriver.models.environments import TerminalStart
from hakuriver.terminals import Exec, order_of, serve_terminal, start_exec, talking
from hakuriver.version import VERSION_HEADER
from hakuriver_host.api.endpoint import check_version
from hakuriver_host.services.access import Access, Permission, Principal
from hakuriver_host.services.doors import Doors
from hakuriver_host.services.environments import Environments

log = structlog.get_logger(__name__)

Session = Callable[[WebSocket, Principal], Awaitable[None]]


def terminal_routes(environments: Environments, doors: Doors, access: Access) -> list[WebSocketRoute]:
    def starter(socket: WebSocket, principal: Principal) -> Callable[[TerminalStart], Awaitable[Exec]]:
        async def start(wanted: TerminalStart) -> Exec:
            container = await environments.preparing.terminal(socket.path_params["name"], principal)
            return await start_exec(environments.engine.execs(container), wanted)

        return start

    async def environment(socket: WebSocket, principal: Principal) -> None:
        await serve_terminal(socket, starter(socket, principal))

    async def reference(socket: WebSocket, principal: Principal) -> None:
        await _of_reference(socket, starter(socket, principal))

    async def task(socket: WebSocket, principal: Principal) -> None:
        await doors.relay(parse_id(socket.path_params["task_id"]), "terminal", socket, principal)

    async def forward(socket: WebSocket, principal: Principal) -> None:
        port = socket.path_params["port"]
        await doors.relay(parse_id(socket.path_params["task_id"]), f"forward/{port}", socket, principal)

    def route(path: str, permission: Permission, session: Session) -> WebSocketRoute:
        async def serve(socket: WebSocket) -> None:
            await _serve(socket, access, permission, session)

        return WebSocketRoute(path, serve)

    return [
        route("/api/environments/{name}/terminal", Permission.PREPARE, environment),
        route("/api/docker/host/containers/{name}/terminal", Permission.PREPARE, reference),
        route("/api/tasks/{task_id}/terminal", Permission.OWN, task),
        route("/api/tasks/{task_id}/forward/{port:int}", Permission.OWN, forward),
    ]


async def _serve(socket: WebSocket, access: Access, permission: Permission, session: Session) -> None:
    """Checks who calls, then lets the session talk; every failure closes the socket with a reason in words."""
    # Before it is accepted, a close is an answer of 403 without words: so it is accepted first.
    await socket.accept()
    try:
        await session(socket, _principal(socket, access, permission))
        await close(socket, DONE)
    except WebSocketDisconnect:
        return
    except HakuRiverError as error:
        await refuse(socket, error)
    except Exception:
        log.exception("a terminal or a forward failed", path=socket.url.path)
        await close(socket, FAILED, "the Host failed at this connection; see its log")


def _principal(socket: WebSocket, access: Access, permission: Permission) -> Principal:
    check_version(socket.headers.get(VERSION_HEADER))
    principal = access.principal(socket.headers.get("authorization"))
    if permission not in principal.permissions:
        raise DeniedError("this token may open no terminals", "ask an admin for another role")
    return principal


async def _of_reference(socket: WebSocket, start: Callable[[TerminalStart], Awaitable[Exec]]) -> None:
    async def take(running: Exec, message: MutableMapping[str, Any]) -> None:
        order = order_of(message.get("text"))
        if order.get("type") == "input":
            await running.write(str(order.get("data", "")).encode())
        elif order.get("type") == "resize":
            await running.resize(order.get("rows"), order.get("cols"))

    running = await start(TerminalStart())
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    async with talking(socket, running, take):
        async for output in running.output():
            if text := decoder.decode(output):
                await socket.send_text(json.dumps({"type": "output", "data": text}))
